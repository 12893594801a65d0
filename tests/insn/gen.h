/* Random sequences of user-mode instructions. */
#pragma once

#include "insn.h"

#define GEN_MAX_INSNS 24

struct gen_seq {
	unsigned n;               /* instructions, without those that only prepare operands */
	u16 start[GEN_MAX_INSNS]; /* where each begins, its preparation included */
	u16 body[GEN_MAX_INSNS];  /* where it begins itself */
	u16 end[GEN_MAX_INSNS];
};

/* Fills mode, code and in of c. The same seed gives the same case on every host with the same features. */
void gen_case(u64 seed, struct insn_case *c, struct gen_seq *ret_seq);
void gen_init(void);                    /* after insn_start() */
bool gen_exclude(const char *mnemonic); /* after gen_init(); false: no such name */
