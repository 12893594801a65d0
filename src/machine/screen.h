/* The guest's screen as text and as a picture. Main thread. */
#pragma once

#include "base/err.h"
#include "dev/vga.h"

/* Text of the characters, row by row with a line's end each, in UTF-8 without blanks at the end of rows; free(). NULL where memory
 * is short. "" for a screen that shows no text. */
char *screen_text(const struct vga_text *text);

/* A PNG file of whatever is shown; free(). -ENOMEM. */
int screen_png(struct device *vga, u8 **ret_file, size_t *ret_len, struct err *err);

/* A character of the screen in UTF-8, at most 3 bytes; returns how many. */
unsigned screen_utf8(u8 character, char ret[3]);

/* "text", "graphics" or "blank". */
const char *screen_kind_name(enum vga_kind kind);
