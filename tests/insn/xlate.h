/* What the families xlate_* share. They aim at an engine that translates code which has run often, so their cases run the
 * code many times, in a loop whose last round gets other pointers: over a page's end, or into a fault. The code
 * is put together from pieces, each assembled on its own.
 *
 * The loop is steered by words in the data, so that the pieces may use all sixteen registers: see struct xlate_words. */
#pragma once

#include "families.h"

/* At INSN_DATA + 300H; the code has the addresses as numbers. */
#define XLATE_WORDS 0x300
struct xlate_words {
	u32 rounds, zero;
	u64 warm, last;   /* the first pointer, and that of the last round */
	u64 toggle;       /* by which the first pointer is changed in each round */
	u64 warm2, last2; /* the second pointer */
	u64 count;        /* RCX of string instructions */
	u64 flags, last_flags;
};

/* One round begins: gives a register the first or the second pointer, RCX the count. */
#define XLATE_ROUND "dec dword ptr [0x20000300];"
#define XLATE_POINTER(reg) \
	"mov " reg ", [0x20000318]; xor [0x20000308], " reg ";" XLATE_ROUND XLATE_FIRST(reg)
#define XLATE_FIRST(reg)  "mov " reg ", [0x20000308]; cmovz " reg ", [0x20000310];"
#define XLATE_SECOND(reg) "mov " reg ", [0x20000320]; cmovz " reg ", [0x20000328];"
#define XLATE_COUNT       "mov rcx, [0x20000330];"
#define XLATE_FLAGS       "mov rdi, [0x20000338]; cmovz rdi, [0x20000340];"

struct xlate_piece {
	const char *text;
	const u8 *code;
	unsigned len;
};

#define XLATE_MAX_PIECES 400
struct xlate_pieces {
	struct xlate_piece p[XLATE_MAX_PIECES];
	unsigned n;
};

struct xlate_code {
	u8 code[INSN_MAX_CODE];
	char text[4096];
	unsigned len, loop;
};

/* EACH_IN(list, text, text, ...) */
#define EACH_IN(l, ...)                         \
	do {                                    \
		struct xlate_pieces *list_ = l; \
		EACH(PIECE_, __VA_ARGS__);      \
	} while (0)
#define PIECE_(text) PIECE(list_, text)
void xlate_add(struct xlate_pieces *list, const char *text, const u8 *begin, const u8 *end);
/* PIECE(list, "add eax, ebx; mov [rbx], eax"): assembles it and puts it into the list. */
#define PIECE(list, text)                                                                    \
	do {                                                                                 \
		const u8 *begin_, *end_;                                                     \
		__asm__ volatile(".pushsection .rodata\n771:\n.intel_syntax noprefix\n" text \
				 "\n.att_syntax prefix\n772:\n.popsection\n\t"               \
				 "lea 771b(%%rip), %0\n\tlea 772b(%%rip), %1"                \
				 : "=r"(begin_), "=r"(end_));                                \
		xlate_add(list, text, begin_, end_);                                         \
	} while (0)

u32 xlate_below(struct insn_rng *r, u32 n);
const struct xlate_piece *xlate_any(struct insn_rng *r, const struct xlate_pieces *list);

void xlate_begin(struct xlate_code *c);
/* false, and nothing is changed: it is too long, for the loop's end has to fit as well */
bool xlate_put(struct xlate_code *c, const struct xlate_piece *p);
void xlate_raw(struct xlate_code *c, const char *text, const void *code, unsigned len);
void xlate_loop(struct xlate_code *c); /* the loop begins here */
void xlate_end(struct xlate_code *c);  /* its end: back while rounds are left */
/* insn_try(), and the code as instructions when it failed. */
void xlate_try(struct insn_test *t, const struct xlate_code *c);
/* A near jump of two bytes of opcode or one (0: of one) to a place in the code. */
void xlate_jump(struct xlate_code *c, u8 prefix, u8 opcode, unsigned target);

/* How often the loops go round: from once to what any engine takes for often. */
u32 xlate_rounds(struct insn_rng *r);
void xlate_set_words(struct insn_state *s, const struct xlate_words *w);
/* A place for accesses of up to span bytes from it on: inside of a page, over the end of page 0 into page 1, into the
 * read-only page or over its end, before the data; for a stack, span is downwards as well. */
u64 xlate_inside(struct insn_rng *r, unsigned span);
u64 xlate_edge(struct insn_rng *r, unsigned span);
