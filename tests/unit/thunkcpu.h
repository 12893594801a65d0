/* A soft_cpu without a machine, for tests of thunks and of the vector state: no guest memory but two pages whose linear
 * addresses are their host addresses.
 *
 * The TLB has entries that add 0 for them, or none; then mmu_*(), which the linker replaces (thunkcpu.c), copies and
 * spills the vector state on the way, as the real one does for MMIO.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/soft/fpu.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

#define PAGE       4096ull
#define IMAGE_SIZE (FPU_YMMH + 256) /* of the XSAVE image that is used */

extern struct soft_cpu cpu;
extern struct tlb_table thunkcpu_table;
extern struct thunk_arena *thunkcpu_arena;
extern u64 thunkcpu_features[4]; /* the host's */
extern u32 thunkcpu_components;  /* of XSAVE that the host has on: XFEATURE_*, 0 without XSAVE or AVX */
extern u8 *data;                 /* the two pages, at a fixed address below 4 GiB */
extern unsigned nr_slow;         /* slow paths taken */
extern gva_t hole;               /* an element of a vector on this page is a page fault; 0: none */
extern u64 thunkcpu_seed;

u64 rnd(void);
/* Random, or one of the values that are borders. */
u64 interesting(void);
/* An XSAVE image that XRSTOR takes. */
void random_image(u8 *x);

/* For cmocka's group. Handlers of signals that a test wants for itself must be there before setup. */
int thunkcpu_setup(void **state);
int thunkcpu_teardown(void **state);
/* cmocka takes the signals for each test: gives them back to the engine. */
void take_signals(void);
/* Fast: the data pages are in the TLB. */
void map_tlb(bool fast);
bool has(unsigned feature);

/* Decodes exactly len bytes. */
void decode(struct insn *i, const char *bytes, unsigned len, unsigned mode);
#define DECODE(i, mode, bytes) decode(i, bytes, sizeof(bytes) - 1, mode)
/* Runs i and spills; the vector of the fault, or -1. */
int run_engine(struct insn *i);
