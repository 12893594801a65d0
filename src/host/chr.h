/* Character back ends: where a serial port's bytes come from and go to. Contract: vm/backend.h. */
#pragma once

#include "base/err.h"
#include "vm/backend.h"

struct loop;

/* The forms of spec, for help texts. */
#define CHR_SPECS "stdio, file:PATH, pty, unix:PATH or none"

/* spec: stdio       standard input and output; a terminal goes into raw mode until the process ends or the
 *                   back end is closed, and Ctrl-a begins a command: Ctrl-a x calls on_quit, Ctrl-a h lists
 *                   the others. Once per process.
 *       file:PATH   output only, into a file that is emptied first
 *       pty         a new pseudo-terminal, whose name is printed on standard error
 *       unix:PATH   a Unix socket made there, as chr_share_open()
 *       none        no input, output is dropped
 *
 * Main thread. SIGPIPE is ignored from here on. on_quit runs there without locks; NULL: ignored. */
int chr_open(const char *spec, struct loop *loop, void (*on_quit)(void *opaque), void *opaque,
	     struct chr **ret_chr, struct err *err);

/* Flushes and closes (chr->ops->close); NULL is allowed. Main thread. */
void chr_close(struct chr *chr);

/* Bytes that were given to chr_write() and never reached the host. Any thread. */
u64 chr_dropped(struct chr *chr);

/* What standard output is sent when the terminal is put back, by whatever end of the process; NULL: nothing. The text stays
 * the caller's. Main thread. */
void chr_set_farewell(const char *text);

/* Puts the terminal back as it was. Safe in a signal handler: for handlers of fatal signals that
 * were installed after chr_open(), which has its own for those that nobody handles. */
void chr_restore_terminal(void);
