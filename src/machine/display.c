/* --display text: the guest's text screen in the terminal, whose keys go to the guest.
 *
 * Document: ECMA-48 8.3 (SGR, CUP, ED); [XTERM] for the alternate screen and the cursor.
 *
 * Twenty-five times a second, ten times when nothing has changed for a while, the screen is looked at and what differs from
 * what the terminal shows is sent, with attributes as colours. A terminal that is smaller than the screen shows the rows around
 * the cursor; one that has been resized is drawn anew. One picture is sent to its end before the next is made, so a slow
 * terminal sees fewer pictures and never a broken sequence.
 *
 * The terminal's alternate screen is used; at the end what the guest's screen showed last is printed on the ordinary one.
 *
 * Keys: the terminal's bytes wait here until the keyboard has taken what came before, so that nothing is lost when text is
 * pasted into a guest that is slow. A lone ESC is told from an escape sequence by what comes within 50 ms.
 *
 * Omitted: pictures (their size is shown instead; bothy screen saves them). Main thread.
 */
#include "machine/display.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/os.h"
#include "dev/pm.h"
#include "dev/ps2.h"
#include "dev/vga.h"
#include "host/chr.h"
#include "machine/keys.h"
#include "machine/screen.h"
#include "vm/device.h"
#include "vm/vm.h"

#define FRAME_NS    40000000ull
#define IDLE_NS     100000000ull
#define IDLE_FRAMES 50
#define ESCAPE_NS   50000000ull
#define KEY_NS      5000000ull /* how soon to try again after the keyboard was full */
#define TYPED_SIZE  1024
#define MAX_COLUMNS 1000u

#define KEY_LEFT_SHIFT 0x2a
#define KEY_LEFT_ALT   0x38
#define KEY_LEFT_CTRL  0x1d

static const char hello[] = "\x1b[?1049h\x1b[?7l\x1b[0m\x1b[2J";
static const char farewell[] = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

struct display {
	struct vm *vm;
	struct device *vga, *keyboard, *pm;
	struct chr *chr;
	struct loop_timer *frame, *key;
	struct vga_text now, shown;
	bool valid;             /* the terminal shows `shown` */
	u32 columns, rows, top; /* the terminal's; the screen's row in its first */
	unsigned quiet;         /* looks that found no change */
	int attr;               /* as set on the terminal, -1: unknown */
	char *out;
	size_t out_len, out_done, out_room;
	u8 typed[TYPED_SIZE];
	size_t nr_typed;
	u64 escape_at; /* when what looks like a sequence began to wait, 0: it does not */
};

/* ---- output ---- */

static void put(struct display *d, const char *text, size_t len)
{
	if (d->out_len + len > d->out_room) {
		size_t room = (d->out_len + len) * 2;
		char *more = realloc(d->out, room);

		if (!more)
			return;
		d->out = more;
		d->out_room = room;
	}
	memcpy(d->out + d->out_len, text, len);
	d->out_len += len;
}

static __attribute__((format(printf, 2, 3))) void put_text(struct display *d, const char *fmt, ...)
{
	char text[160];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		put(d, text, MIN((size_t)n, sizeof(text) - 1));
}

/* True: all of it is with the terminal. */
static bool flush(struct display *d)
{
	d->out_done += chr_write(d->chr, (const u8 *)d->out + d->out_done, d->out_len - d->out_done);
	if (d->out_done < d->out_len)
		return false;
	d->out_len = d->out_done = 0;
	return true;
}

/* A VGA's colour has blue in bit 0, a terminal's red. */
static unsigned ansi_colour(unsigned c)
{
	return (c & 2) | (c & 1) << 2 | (c >> 2 & 1);
}

static void put_attribute(struct display *d, u8 attr)
{
	unsigned fore = attr & 0xf, back = attr >> 4;
	bool blinks = d->now.blink && back & 8;

	if (d->attr == attr)
		return;
	d->attr = attr;
	if (d->now.blink)
		back &= 7;
	put_text(d, "\x1b[0;%s%u;%um", blinks ? "5;" : "", (fore & 8 ? 90 : 30) + ansi_colour(fore),
		 (back & 8 ? 100 : 40) + ansi_colour(back));
}

static void put_row(struct display *d, u32 y, u32 line)
{
	u32 columns = MIN(d->now.columns, d->columns), at = MAX_COLUMNS;

	for (u32 x = 0; x < columns; x++) {
		u16 cell = d->now.cell[y * d->now.columns + x];
		char utf8[3];

		if (d->valid && d->shown.cell[y * d->now.columns + x] == cell)
			continue;
		if (at != x)
			put_text(d, "\x1b[%u;%uH", line + 1, x + 1);
		put_attribute(d, cell >> 8);
		put(d, utf8, screen_utf8((u8)cell, utf8));
		at = x + 1;
	}
}

static void put_cursor(struct display *d)
{
	const struct vga_text *t = &d->now;
	bool shown = t->cursor_on && t->cursor_row >= d->top && t->cursor_row - d->top < d->rows &&
		     t->cursor_column < d->columns;

	if (shown)
		put_text(d, "\x1b[%u;%uH\x1b[?25h", t->cursor_row - d->top + 1, t->cursor_column + 1);
	else
		put_text(d, "\x1b[?25l");
}

/* The first row to be shown: all, or those up to the cursor. */
static u32 first_row(const struct display *d)
{
	const struct vga_text *t = &d->now;

	if (t->rows <= d->rows || !t->cursor_on || t->cursor_row < d->rows)
		return 0;
	return t->cursor_row - d->rows + 1;
}

static void get_terminal_size(struct display *d)
{
	struct winsize size;
	u32 columns = 80, rows = 25;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
		columns = MIN((u32)size.ws_col, MAX_COLUMNS - 1);
		rows = size.ws_row;
	}
	d->valid &= columns == d->columns && rows == d->rows;
	d->columns = columns;
	d->rows = rows;
}

static bool looks_the_same(const struct display *d)
{
	const struct vga_text *a = &d->now, *b = &d->shown;

	return d->valid && !memcmp(a, b, offsetof(struct vga_text, cell)) &&
	       !memcmp(a->cell, b->cell, sizeof(a->cell[0]) * a->columns * a->rows);
}

/* Makes what takes the terminal from `shown` to `now`. */
static void draw(struct display *d)
{
	const struct vga_text *t = &d->now;
	u32 top = first_row(d);

	d->valid &= t->kind == d->shown.kind && t->columns == d->shown.columns && t->rows == d->shown.rows &&
		    t->blink == d->shown.blink && top == d->top && t->kind == VGA_TEXT;
	d->top = top;
	put_text(d, "\x1b[?25l");
	if (!d->valid) {
		put_text(d, "\x1b[0m\x1b[2J");
		d->attr = -1;
	}
	if (t->kind == VGA_TEXT) {
		for (u32 y = top; y < t->rows && y - top < d->rows; y++)
			put_row(d, y, y - top);
		put_cursor(d);
	} else if (t->kind == VGA_GRAPHICS) {
		put_text(d, "\x1b[H%s: a picture of %u x %u pixels; bothy screen %s --png FILE saves it",
			 d->vm->name, t->width, t->height, d->vm->name);
	}
	memcpy(&d->shown, t, sizeof(*t));
	d->valid = true;
}

static void on_frame(void *opaque)
{
	struct display *d = opaque;

	if (flush(d)) {
		get_terminal_size(d);
		vga_screen_look(d->vga, &d->now);
		if (looks_the_same(d)) {
			d->quiet += d->quiet < IDLE_FRAMES;
		} else {
			d->quiet = 0;
			draw(d);
			flush(d);
		}
	}
	loop_timer_arm(d->frame, os_now_ns() + (d->quiet < IDLE_FRAMES ? FRAME_NS : IDLE_NS));
}

/* ---- keys ---- */

static bool press(struct display *d, const struct key_press *k)
{
	static const u8 mods[] = { KEY_LEFT_SHIFT, KEY_LEFT_ALT, KEY_LEFT_CTRL };

	if (!k->key)
		return true;
	if (pm_asleep(d->pm)) { /* the key that wakes a PC means nothing else */
		pm_power_button(d->pm);
		return true;
	}
	/* All of a key press fits into an empty keyboard: three modifiers and a key, down and up, are 15 bytes. */
	if (!ps2_idle(d->keyboard))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(mods); i++)
		if (k->mods & BIT(i))
			ps2_key(d->keyboard, mods[i], true);
	ps2_key(d->keyboard, k->key, true);
	ps2_key(d->keyboard, k->key, false);
	for (unsigned i = ARRAY_SIZE(mods); i-- > 0;)
		if (k->mods & BIT(i))
			ps2_key(d->keyboard, mods[i], false);
	return true;
}

/* Sends what has been typed as far as the keyboard takes it. */
static void type(struct display *d)
{
	size_t done = 0;
	u64 now = os_now_ns(), again = 0;

	while (done < d->nr_typed) {
		bool all = d->escape_at && now >= d->escape_at + ESCAPE_NS;
		struct key_press k;
		size_t n = keys_parse(d->typed + done, d->nr_typed - done, all, &k);

		if (!n) {
			if (!d->escape_at)
				d->escape_at = now;
			again = d->escape_at + ESCAPE_NS;
			break;
		}
		if (!press(d, &k)) {
			again = now + KEY_NS;
			break;
		}
		d->escape_at = 0;
		done += n;
	}
	d->nr_typed -= done;
	memmove(d->typed, d->typed + done, d->nr_typed);
	if (again)
		loop_timer_arm(d->key, again);
	if (done)
		d->chr->ops->input_ready(d->chr);
}

static void on_key(void *opaque)
{
	type(opaque);
}

static void on_input(void *opaque, const u8 *buf, size_t len)
{
	struct display *d = opaque;

	len = MIN(len, sizeof(d->typed) - d->nr_typed);
	memcpy(d->typed + d->nr_typed, buf, len);
	d->nr_typed += len;
	d->escape_at = 0;
	type(d);
}

static size_t can_input(void *opaque)
{
	const struct display *d = opaque;

	return sizeof(d->typed) - d->nr_typed;
}

/* ---- opening and closing ---- */

int display_open(struct vm *vm, void (*on_quit)(void *opaque), void *opaque, struct display **ret_display,
		 struct err *err)
{
	struct display *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(err, -ENOMEM, "no memory for the display");
	d->vm = vm;
	d->vga = vga_find(vm);
	d->keyboard = device_find(vm, "ps2");
	d->pm = device_find(vm, "pm");
	d->frame = loop_timer_new(vm->loop, on_frame, d);
	d->key = loop_timer_new(vm->loop, on_key, d);
	r = chr_open("stdio", vm->loop, on_quit, opaque, &d->chr, err);
	if (r < 0) {
		err_wrap(err, "--display text");
		display_close(d);
		return r;
	}
	d->chr->opaque = d;
	d->chr->on_input = on_input;
	d->chr->can_input = can_input;
	chr_set_farewell(farewell);
	put(d, hello, sizeof(hello) - 1);
	loop_timer_arm(d->frame, 0);
	*ret_display = d;
	return 0;
}

/* What the screen shows, for the ordinary screen of the terminal, without the empty rows at its end. */
static void put_last(struct display *d)
{
	char *text, *end;

	vga_screen_look(d->vga, &d->now);
	text = d->now.kind == VGA_TEXT ? screen_text(&d->now) : NULL;
	if (!text)
		return;
	for (end = text + strlen(text); end - text >= 2 && end[-2] == '\n'; end--)
		;
	if (end - text > 1)
		put(d, text, (size_t)(end - text));
	free(text);
}

void display_close(struct display *d)
{
	if (!d)
		return;
	if (d->chr) {
		flush(d); /* or a sequence would end in its middle; what does not fit now is the terminal's loss */
		d->out_len = d->out_done = 0;
		put(d, farewell, sizeof(farewell) - 1);
		put_last(d);
		flush(d);
		chr_set_farewell(NULL);
		chr_close(d->chr);
	}
	loop_timer_free(d->frame);
	loop_timer_free(d->key);
	free(d->out);
	free(d);
}
