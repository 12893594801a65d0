/* --display text: the guest's text screen in the terminal, whose keys go to the guest. Main thread. */
#pragma once

#include "base/err.h"

struct display;
struct vm;

/* Takes standard input and output, as chr_open("stdio") does. The VM has a display adapter and a keyboard. on_quit: see there. */
int display_open(struct vm *vm, void (*on_quit)(void *opaque), void *opaque, struct display **ret_display,
		 struct err *err);
/* Puts the terminal back as it was, and leaves there what the screen showed last; NULL is allowed. The devices still exist. */
void display_close(struct display *display);
