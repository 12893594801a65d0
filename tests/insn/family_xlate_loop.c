/* Loops of one run of instructions, as compilers make them: pointers that move by constants, in either direction, indexes, sums with
 * a carry that goes round, copies onto themselves; up to some hundred rounds, which begin inside of a page and end there, in the next one,
 * in the read-only one or where nothing is. An engine may check addresses for several rounds at once; the round that faults,
 * and the state then, must be the right ones. */
#include "xlate.h"

static struct xlate_code code;
/* Accesses through the first and the second pointer, how the pointers move, and what does not touch memory. */
static struct xlate_pieces access[2], move[2], other;

struct loop_end {
	struct xlate_piece piece;
	u8 cc; /* of the jump back */
};

/* --- states --- */

static void state(struct insn_rng *r, struct insn_state *s)
{
	static const u8 rounds[] = { 1, 1, 2, 3, 12, 30 };
	static const u16 counts[] = { 1, 2, 3, 7, 8, 9, 30, 60, 100, 250, 400 };
	struct xlate_words w = { .rounds = rounds[xlate_below(r, ARRAY_SIZE(rounds))] };

	w.count = counts[xlate_below(r, ARRAY_SIZE(counts))] + xlate_below(r, 8);
	w.warm = xlate_inside(r, 64);
	w.warm2 = xlate_inside(r, 64);
	w.last = xlate_inside(r, 64);
	w.last2 = xlate_inside(r, 64);
	switch (xlate_below(r, 8)) {
	case 0: break;
	case 1:
		w.warm = INSN_DATA + 0x1000 - xlate_below(r, 500);
		break;                                             /* over the end of a page each time */
	case 2: w.last2 = w.last + xlate_below(r, 64) - 32; break; /* onto itself */
	case 3: w.last = xlate_edge(r, 64); break;
	case 4: w.last2 = xlate_edge(r, 64); break;
	case 5: w.last2 = INSN_DATA + INSN_DATA_RW - xlate_below(r, 2000); break;
	case 6: w.last = INSN_DATA + INSN_DATA_SIZE - xlate_below(r, 2000); break;
	default: w.last = INSN_DATA + INSN_DATA_RW + 64 - xlate_below(r, 1000); break;
	}
	if (xlate_below(r, 2))
		w.last &= ~7ull, w.last2 &= ~7ull;
	xlate_set_words(s, &w);
	s->gpr[R_SP] = s->gpr[R_15] = w.rounds;
	st64(s->xsave + 160 + 16 * 7, w.count);
	s->gpr[R_8] = xlate_below(r, 64); /* an index */
	if (xlate_below(r, 4) == 0)       /* zeros, for loops that look for something */
		for (unsigned k = 1024; k < INSN_DATA_SIZE; k++)
			s->data[k] &= (u8)(xlate_below(r, 8) ? 0xff : 0);
}

static void state_with_stack(struct insn_rng *r, struct insn_state *s)
{
	state(r, s);
	s->gpr[R_SP] = INSN_STACK;
}

/* --- pieces --- */

#define ACCESSES(l, P)                                                                                     \
	EACH_IN(l, "mov rax, [" P "]", "mov edx, [" P "+4]", "movzx eax, byte ptr [" P "]",                \
		"movsx rdx, word ptr [" P "+2]", "add rax, [" P "]", "adc rax, [" P "+8]",                 \
		"xor edx, [" P "]", "mov r9, [" P "-8]", "movups xmm0, [" P "]", "paddd xmm1, [" P "]",    \
		"mov al, [" P "+rcx]", "mov rax, [" P "+rcx*8]", "sbb rdx, [" P "]", "cmp rax, [" P "]",   \
		"imul rax, [" P "]", "addsd xmm2, qword ptr [" P "+8]");                                   \
	EACH_IN(l, "mov [" P "], rax", "mov [" P "+4], edx", "mov [" P "], al", "mov [" P "+2], dx",       \
		"mov [" P "-8], r9", "mov [" P "+8], r11", "movups [" P "], xmm0",                         \
		"mov qword ptr [" P "], 5", "mov byte ptr [" P "+1], 0x55", "mov [" P "+rcx], dl",         \
		"mov [" P "+rcx*4], eax", "add [" P "], rdx", "adc [" P "], rax", "inc dword ptr [" P "]", \
		"xor byte ptr [" P "], 0x5a", "movd [" P "+4], xmm1");                                     \
	EACH_IN(l, "mov rax, [" P "+r8*8]", "mov [" P "+r8*4], edx", "neg qword ptr [" P "]",              \
		"xchg al, [" P "]", "setc [" P "]", "lock add [" P "], al", "mov [" P "+16], " P,          \
		"shl dword ptr [" P "], 3", "bts qword ptr [" P "], 9",                                    \
		"mov rdx, [" P "+0x40]; mov [" P "+0x48], rdx", "mov rdx, [" P "]; mov [" P "], rdx",      \
		"cmovb rax, [" P "]")
/* With EVEX; braces mean something in a template of inline assembly. */
#define ACCESSES512(l, P)                                                                                  \
	EACH_IN(l, "vmovups zmm0, [" P "]", "vmovdqu64 [" P "+64], zmm0", "vmovdqu8 [" P "]%{k1%}, zmm20", \
		"vmovdqu32 ymm17%{k2%}%{z%}, [" P "-8]", "vpaddd zmm20, zmm17, [" P "+rcx*4]",             \
		"vaddps zmm0, zmm20, dword ptr [" P "+8]%{1to16%}", "kmovw k3, [" P "]",                   \
		"kmovb [" P "], k3", "vmovd xmm20, [" P "+4]", "vpcompressd [" P "]%{k3%}, zmm0",          \
		"vptestmd k2, zmm0, [" P "]")
#define MOVES(l, P)                                                                                          \
	EACH_IN(l, "add " P ", 8", "add " P ", 8", "add " P ", 4", "add " P ", 1", "inc " P,                 \
		"add " P ", 16", "sub " P ", 8", "lea " P ", [" P "+8]", "lea " P ", [" P "+4]",             \
		"lea " P ", [" P "-1]", "dec " P, "sub " P ", 24", "add " P ", 32", "lea " P ", [" P "+64]", \
		"add " P ", 0x100", "add " P ", 2; add " P ", 2");                                           \
	EACH_IN(l, "add " P ", r8", "lea " P ", [" P "+r8*2-7]", "sub " P ", -8", "nop")
/* What the loop writes may lie on the words: RSP (or R15) counts the outer rounds, and XMM7 says how many the loop has. */
#define HEAD(P1, P2) "dec rsp;" XLATE_FIRST(P1) XLATE_SECOND(P2) "movq rcx, xmm7; mov r11, rcx;"

static struct loop_end ends[24];
static unsigned nr_ends;

static void add_end(const struct xlate_pieces *l, u8 cc)
{
	ends[nr_ends].piece = l->p[l->n - 1];
	ends[nr_ends++].cc = cc;
}
#define END(text, cc)               \
	do {                        \
		PIECE(&list, text); \
		add_end(&list, cc); \
	} while (0)

static void pieces(void)
{
	static struct xlate_pieces list;

	END("dec rcx", 0x5); /* jnz */
	END("dec rcx", 0x5);
	END("dec ecx", 0x5);
	END("sub rcx, 1", 0x5);
	END("sub rcx, 1", 0x3); /* jae: once more */
	END("dec ecx", 0x9);    /* jns */
	END("dec rcx", 0xf);    /* jg */
	END("dec r11", 0x5);
	END("add rcx, -1", 0x2); /* jc, until it is below 0 */
	END("sub r11, 2", 0xf);
	END("lea rcx, [rcx-1]; test rcx, rcx", 0x5);
	END("inc r8; cmp r8, r11", 0xc); /* jl */
	END("inc r8; cmp r8, rcx", 0x2); /* jb */
	END("dec ecx; mov r9, rcx; cmp r9d, 1", 0x7);
	END("sub ecx, 1; lea rax, [rax+rcx]; test ecx, ecx", 0x5);
	END("dec rcx; bt rcx, 63", 0x3); /* jnc */
	EACH_IN(&other, "add rax, rdx", "lea rdx, [rdx+rax*2+1]", "xor rax, rcx", "rol rdx, 5",
		"adc rdx, rax", "mov r9, rax", "add r9, r11", "imul rdx, rax", "cmp rax, rdx", "shr rax, 3",
		"paddd xmm1, xmm0", "movq rax, xmm1", "bswap rdx", "setl al", "cmovs rax, rdx", "test al, 1");
}

static bool has_avx512(void)
{
	return insn_has(X86_FEATURE_AVX512F) && insn_has(X86_FEATURE_AVX512VL) &&
	       insn_has(X86_FEATURE_AVX512BW) && insn_has(X86_FEATURE_AVX512DQ);
}

static void one(struct insn_test *t, const struct xlate_piece *first)
{
	unsigned nr = 1 + xlate_below(&t->rng, 5), from;
	bool two = xlate_below(&t->rng, 2), early = xlate_below(&t->rng, 3) == 0;
	const struct xlate_piece *by[2] = { xlate_any(&t->rng, &move[0]), xlate_any(&t->rng, &move[1]) };
	const struct loop_end *end = &ends[xlate_below(&t->rng, nr_ends)];

	xlate_begin(&code);
	xlate_loop(&code);
	xlate_put(&code, first);
	from = code.len;
	if (early)
		xlate_put(&code, by[0]);
	for (unsigned k = 0; k < nr; k++) {
		unsigned which = two ? xlate_below(&t->rng, 2) : 0;
		xlate_put(&code, xlate_below(&t->rng, 4) ? xlate_any(&t->rng, &access[which])
							 : xlate_any(&t->rng, &other));
		if (two && k == nr / 2)
			xlate_put(&code, by[1]);
	}
	if (!early)
		xlate_put(&code, by[0]);
	xlate_put(&code, &end->piece);
	if (code.len + 2 - from <= 128) {
		const u8 jump[2] = { (u8)(0x70 | end->cc), (u8)(from - (code.len + 2)) };
		xlate_raw(&code, "jcc back", jump, 2);
	} else {
		xlate_jump(&code, 0x0f, 0x80 | end->cc, from);
	}
	xlate_raw(&code, "test rsp, rsp", "\x48\x85\xe4", 3);
	xlate_jump(&code, 0x0f, 0x85, code.loop);
	xlate_try(t, &code);
}

#define PAIR(P1, P2)                                 \
	do {                                         \
		static struct xlate_pieces head;     \
		for (unsigned k = 0; k < 2; k++)     \
			access[k].n = move[k].n = 0; \
		PIECE(&head, HEAD(P1, P2));          \
		ACCESSES(&access[0], P1);            \
		ACCESSES(&access[1], P2);            \
		if (has_avx512()) {                  \
			ACCESSES512(&access[0], P1); \
			ACCESSES512(&access[1], P2); \
		}                                    \
		MOVES(&move[0], P1);                 \
		MOVES(&move[1], P2);                 \
		for (unsigned n = 0; n < 500; n++)   \
			one(t, &head.p[0]);          \
	} while (0)

/* As in libraries: each until a fault or its end. */
static void by_hand(struct insn_test *t)
{
#define L(text)                                                                       \
	I("1: dec r15;" XLATE_FIRST("rsi") XLATE_SECOND("rdi") "movq rcx, xmm7;" text \
							       "; test r15, r15; jne 1b")
	EACH(L, "2: mov al, [rsi]; mov [rdi], al; inc rsi; inc rdi; dec rcx; jnz 2b",
	     "2: mov rax, [rsi]; mov [rdi], rax; add rsi, 8; add rdi, 8; sub rcx, 1; jne 2b",
	     "2: movups xmm0, [rsi]; movups [rdi], xmm0; add rsi, 16; add rdi, 16; dec ecx; jnz 2b",
	     "2: mov rax, [rsi+rcx*8-8]; mov [rdi+rcx*8-8], rax; dec rcx; jnz 2b",
	     "xor eax, eax; lea rdx, [rdi+rcx]; 2: mov [rdi], al; add rdi, 1; cmp rdi, rdx; jne 2b",
	     "2: cmp byte ptr [rsi], 0; lea rsi, [rsi+1]; jne 2b",
	     "clc; 2: mov rax, [rsi]; adc [rdi], rax; lea rsi, [rsi+8]; lea rdi, [rdi+8]; dec rcx; jnz 2b; setc dl",
	     "xor eax, eax; 2: add rax, [rsi]; adc rax, [rsi+8]; adc rax, 0; lea rsi, [rsi+16]; dec ecx; jnz 2b",
	     "xor edx, edx; 2: movzx eax, byte ptr [rsi]; imul edx, edx, 31; add edx, eax; inc rsi; dec rcx; jnz 2b",
	     "xor r9d, r9d; 2: mov eax, [rsi+r9*4]; add [rdi+r9*4], eax; inc r9; cmp r9, rcx; jb 2b",
	     "2: mov al, [rsi]; cmp al, [rdi]; jne 3f; inc rsi; inc rdi; dec rcx; jnz 2b; 3: setb dl",
	     "mov r10, rsi; mov r11, rdi; 2: mov r9, [r10]; mov [r11], r9; add r10, 8; add r11, 8; dec rcx; jnz 2b");
	EACH(L, "2: push rax; lea rax, [rax+rcx]; dec rcx; jnz 2b; mov rsp, 0x20001c00",
	     "mov rsp, rsi; 2: pop rax; add rdx, rax; dec rcx; jnz 2b; mov rsp, 0x20001c00",
	     "mov rsp, rdi; 2: push rcx; dec rcx; jnz 2b; mov rsp, 0x20001c00",
	     "2: inc qword ptr [rsi]; dec rcx; jnz 2b",
	     "2: mov rax, [rsi]; add rax, rcx; mov [rsi], rax; mov [rdi], rax; sub rdi, 8; dec rcx; jnz 2b",
	     "2: movd xmm0, [rsi]; paddd xmm1, xmm0; movups [rdi-16], xmm1; add rsi, 4; sub rdi, 16; dec rcx; jnz 2b",
	     "mov rbx, rsi; 2: mov [rbx], rbx; mov rbx, [rbx]; add rbx, 8; dec rcx; jnz 2b",
	     "mov r12, rdi; mov r13, rsi; 2: mov rax, [r13]; xor [r12], rax; add r12, 16; add r13, 16; mov rdx, [r13-8]; xor [r12-8], rdx; dec rcx; jnz 2b",
	     "2: add dword ptr [rdi], ecx; rol dword ptr [rdi+4], 3; add rdi, 0x80; dec rcx; jnz 2b",
	     "2: mov rax, gs:[0x100]; add gs:[0x108], rax; mov [rdi], rax; add rdi, 8; dec rcx; jnz 2b",
	     "2: mov rax, [0x20000600]; lea rax, [rax+rax*2+1]; mov [0x20000600], rax; mov [rdi], eax; add rdi, 4; dec ecx; jnz 2b",
	     "2: mov rax, [rip+0x10000600]; add rax, rcx; mov [rip+0x10000600], rax; mov [rdi], al; inc rdi; dec rcx; jnz 2b");
	if (!has_avx512())
		return;
	EACH(L, "2: vmovups zmm0, [rsi]; vmovups [rdi], zmm0; add rsi, 64; add rdi, 64; dec ecx; jnz 2b",
	     "2: vpaddd zmm0, zmm1, [rsi]; vmovdqu64 ymm17, [rsi+64]; vmovdqu64 [rdi+32], ymm17; vmovups [rdi], zmm0; add rsi, 32; add rdi, 96; sub rcx, 1; jne 2b",
	     "2: vmovdqu8 zmm0%{k1%}%{z%}, [rsi]; vpsubb zmm1, zmm0, zmm2; vmovdqu8 [rdi]%{k2%}, zmm1; inc rsi; inc rdi; dec rcx; jnz 2b",
	     "2: vpcmpeqd k1, zmm0, [rsi]; kmovw eax, k1; add rdx, rax; kmovw [rdi], k1; add rsi, 64; add rdi, 2; dec rcx; jnz 2b",
	     "2: vpcmpgtd k1, zmm0, [rsi]; vpcompressd [rdi]%{k1%}, zmm0; kmovd eax, k1; popcnt eax, eax; lea rdi, [rdi+rax*4]; add rsi, 64; dec rcx; jnz 2b",
	     "2: vaddps zmm0, zmm1, dword ptr [rsi]%{1to16%}; vmovss dword ptr [rdi], xmm0; kortestb k1, k2; jc 3f; add rsi, 4; add rdi, 4; dec rcx; jnz 2b; 3:");
}

void family_xlate_loop(struct insn_test *t)
{
	unsigned states = t->states;

	other.n = nr_ends = 0;
	pieces();
	t->setup = state_with_stack;
	by_hand(t);
	t->setup = state;
	t->states = MIN(states, 12u);
	PAIR("rsi", "rdi");
	PAIR("rbx", "rsi");
	PAIR("r10", "rdi");
	PAIR("r12", "r13");
	PAIR("rbp", "r14");
	PAIR("rdi", "r15");
	t->setup = NULL;
}
