/* What the test and its child (native_child.c) share: one memfd, this at its start, the cases behind it. */
#pragma once

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "insn.h"

struct native_shared {
	_Atomic u32 go;   /* batches asked for */
	_Atomic u32 done; /* batches finished */
	u32 n;
	_Atomic u32 at; /* the case being run */
	u32 patience;   /* a case that runs over so many ticks of NATIVE_TICK_US does not end */
};

#define NATIVE_TICK_US 50000
#define NATIVE_CASES   4096 /* offset */
#define NATIVE_SIZE    (NATIVE_CASES + INSN_BATCH * sizeof(struct insn_case))

static inline void native_wait(_Atomic u32 *word, u32 val, unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };
	syscall(SYS_futex, word, FUTEX_WAIT, val, &ts, NULL, 0);
}

static inline void native_wake(_Atomic u32 *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
