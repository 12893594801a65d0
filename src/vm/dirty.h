/* Which pages of RAM have been written: for who copies a running machine's memory, again and again, until what is left is little.
 *
 *	dirty_start()            what is copied from here on may be written behind the copier's back
 *	copy everything
 *	dirty_collect(), copy    what has been written since; and so on
 *	pause the machine
 *	dirty_collect(), copy    now the copy is the same
 *	dirty_stop()
 *
 * Everybody who writes takes part: vCPUs on either engine, the processor's own writes (accessed and dirty bits), devices
 * (dma_written()), a debugger, a reset, which clears all. A page may be said to be written that was not. Not covered is what the guest cannot write: ROM, whose
 * contents are a device's, and RAM that is not to be seen at the moment (vm/ram.h, shadow).
 *
 * Main thread, all of it; vCPUs may run, and are stopped for a moment. A hand-over to another engine loses nothing.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct vm;

/* -errno with a sentence where the engine cannot. */
int dirty_start(struct vm *vm, struct err *err);
/* Adds the pages written since the last call, or since the start, to bits: bit n of word n / 64 for page n, as many words as
 * dirty_words() says. How many of them are new in bits, or -errno: those that are not there then come next time. */
s64 dirty_collect(struct vm *vm, u64 *bits, struct err *err);
void dirty_stop(struct vm *vm);

u64 dirty_words(const struct vm *vm);
