/* String instructions: all sizes, with and without repetition, both directions, across pages, into faults. */
#include <string.h>

#include "families.h"

static void counts(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	s->gpr[R_CX] = k % 8 == 0 ? 0 : k >> 8 & 0x3f;
	s->flags |= k & 0x400; /* DF */
	if (k & 0x10000)       /* equal runs, so that comparisons go on for a while */
		memset(s->data + 1024, (int)(k >> 20 & 1), 4096);
	if (k & 0x20000)
		s->gpr[R_AX] = (k >> 20 & 1) * 0x0101010101010101ull;
	if (k >> 32 & 1) { /* near a page's end */
		s->gpr[R_SI] = INSN_DATA + 4096 - (k >> 40 & 31);
		s->gpr[R_DI] = INSN_DATA + 4096 + 512 - (k >> 45 & 31);
	}
	if ((k >> 33 & 7) == 0) { /* overlapping */
		s->gpr[R_DI] = s->gpr[R_SI] + (k >> 50 & 15) - 8;
	}
}

static void into_fault(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	counts(r, s);
	s->flags &= ~FL_DF;
	s->gpr[R_CX] = 64;
	s->gpr[k & 1 ? R_SI : R_DI] =
		(k & 2 ? INSN_DATA + INSN_DATA_SIZE : INSN_DATA + INSN_DATA_RW) - (k >> 8 & 127);
	if (k & 4) { /* down, past the start */
		s->flags |= FL_DF;
		s->gpr[k & 8 ? R_SI : R_DI] = INSN_DATA + (k >> 16 & 127);
	}
}

#define SIZES(op)         \
	I(op "b");        \
	I(op "w");        \
	I(op "d");        \
	I(op "q");        \
	I("rep " op "b"); \
	I("rep " op "w"); \
	I("rep " op "d"); \
	I("rep " op "q")
#define COMPARES(op)        \
	SIZES(op);          \
	I("repne " op "b"); \
	I("repne " op "w"); \
	I("repne " op "d"); \
	I("repne " op "q")
#define ALL()             \
	SIZES("movs");    \
	SIZES("stos");    \
	SIZES("lods");    \
	COMPARES("cmps"); \
	COMPARES("scas")

void family_string(struct insn_test *t)
{
	t->setup = counts;
	ALL();
	I("mov rdx, rsi; rep movsb; mov rcx, 5; rep stosq; lodsd; scasb");
	/* 32-bit addresses and counts: upper halves are ignored and cleared. */
	I("mov rax, 0x100000000; add rcx, rax; .byte 0x67; rep movsb");
	I("mov rax, 0x500000000; add rcx, rax; add rsi, rax; add rdi, rax; .byte 0x67; rep movsd");
	I("mov rax, 0x500000000; add rcx, rax; add rdi, rax; .byte 0x67; repne scasb");
	I("xor ecx, ecx; mov rsi, -1; mov rdi, 0x1234567812345678; rep movsq; rep stosb; repe cmpsb");
	t->setup = into_fault;
	ALL();
	t->setup = counts;
	t->mode = INSN_32;
	I32("rep movsb");
	I32("rep movsd");
	I32("rep stosw");
	I32("repne scasb");
	I32("repe cmpsd");
	I32("lodsb; stosd; movsw; cmpsb; scasd");
	t->mode = INSN_64;
	t->setup = NULL;
}
