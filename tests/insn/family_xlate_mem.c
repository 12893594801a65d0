/* Memory operands of code that runs often: every kind of access, each base and index register, several accesses
 * through one base in a row, bases that change in between, stack frames. In the last round of the loop the
 * pointer leads over the end of a page, into the read-only page, or to where nothing is, so that some access of many
 * is the first that faults: what comes before it must have happened, what comes after it must not. */
#include <string.h>

#include "xlate.h"

static struct xlate_code code;
static unsigned span; /* of what is accessed from the pointer on */

/* --- states --- */

static void set_pointers(struct insn_rng *r, struct insn_state *s, u64 last)
{
	struct xlate_words w = { .rounds = xlate_rounds(r), .last = last };
	w.warm = xlate_inside(r, span);
	switch (xlate_below(r, 4)) {
	case 0: w.warm = INSN_DATA + 0x1000 - xlate_below(r, span + 1); break; /* slow all the time */
	case 1: w.toggle = 0x1000; break; /* another page in each round */
	case 2: w.toggle = 0x40; break;
	default: break;
	}
	w.warm2 = xlate_inside(r, span);
	w.last2 = xlate_below(r, 3) ? w.warm2 : xlate_edge(r, span);
	w.count = xlate_below(r, 8) ? xlate_below(r, 40) : 0;
	xlate_set_words(s, &w);
	s->gpr[R_9] = xlate_below(r, 4); /* an index */
	s->gpr[R_AX] = xlate_below(r, 2) ? s->gpr[R_AX] : s->gpr[R_DX];
}

static void edges(struct insn_rng *r, struct insn_state *s)
{
	set_pointers(r, s, xlate_edge(r, span));
}

/* All of it can be written: gathers and masked stores fault differently on different processors. */
static void writable(struct insn_rng *r, struct insn_state *s)
{
	u64 last = xlate_below(r, 2) ? INSN_DATA + 0x1000 - xlate_below(r, span + 1) : xlate_inside(r, span);
	set_pointers(r, s, last);
}

/* Not canonical, the kernel's, or nothing at all. */
static void nowhere(struct insn_rng *r, struct insn_state *s)
{
	static const u64 bad[] = { 0x0000800000000000, 0xffff7ffffffffff0, 0x12345678abcdef00,
				   0xffffffff80001000, 0x8000000000000000, 0x0000000030000000,
				   0x4000000000000ff8, 0x4000000000000100, 0x0000100000000000,
				   0xffffffff9ffffff8 };
	set_pointers(r, s, bad[xlate_below(r, ARRAY_SIZE(bad))]);
}

/* Where an engine that keeps the page of the last access by register may have put a page that is none, for nothing; as the
 * first access of all, or after others. */
static void no_page(struct insn_rng *r, struct insn_state *s)
{
	static const u64 pages[] = { BIT(62), BIT(62), BIT(62), BIT(61), BIT(63), ~0xfffull };
	u64 page = pages[xlate_below(r, ARRAY_SIZE(pages))];

	set_pointers(r, s, page + (xlate_below(r, 4) ? xlate_below(r, 0x1000) : 0x1000 - xlate_below(r, 32)));
	if (xlate_below(r, 2))
		st32(s->data + XLATE_WORDS, 1); /* rounds */
}

/* Where the operand is what code jumps to. */
static void no_page_at_once(struct insn_rng *r, struct insn_state *s)
{
	no_page(r, s);
	st32(s->data + XLATE_WORDS, 1); /* rounds */
}

static void strings(struct insn_rng *r, struct insn_state *s)
{
	edges(r, s);
	s->flags |= insn_rnd(r) & FL_DF;
	u64 k = insn_rnd(r);
	if (k & 1) /* equal runs, so that comparisons go on for a while */
		memset(s->data + 1024, (int)(k >> 20 & 1), 2 * 4096);
	if (k & 2)
		s->gpr[R_AX] = (k >> 20 & 1) * 0x0101010101010101ull;
}

/* Alignment is checked in the last round or in all. */
static void aligned(struct insn_rng *r, struct insn_state *s)
{
	struct xlate_words w = { .rounds = xlate_rounds(r) };
	bool always = xlate_below(r, 2);
	w.warm = xlate_inside(r, span) & ~63ull;
	w.last = w.warm + xlate_below(r, 16);
	w.flags = always ? FL_AC | FL_IF : FL_IF;
	w.last_flags = FL_AC | FL_IF;
	xlate_set_words(s, &w);
}

static void stack(struct insn_rng *r, struct insn_state *s)
{
	struct xlate_words w = { .rounds = xlate_rounds(r) };
	w.warm = xlate_inside(r, 0) + 512;
	w.last = xlate_edge(r, span) + xlate_below(r, span * 3 / 2);
	if (xlate_below(r, 2))
		w.last &= ~7ull;
	if (xlate_below(r, 4) == 0)
		w.warm = INSN_DATA + 0x1000 + xlate_below(r, 128) - 64;
	else if (xlate_below(r, 2))
		w.toggle = 0x1000;
	/* RBX; over the end of a page it is slow each time, and what comes after it in the run is checked all the same. */
	w.warm2 = w.last2 =
		xlate_below(r, 3) ? xlate_inside(r, 0) : INSN_DATA + 0x1000 - 1 - xlate_below(r, 15);
	xlate_set_words(s, &w);
}

/* --- one kind of access --- */

static struct xlate_pieces head;

/* In states of the family's, and in those that lead to no page. */
static void try(struct insn_test *t)
{
	xlate_try(t, &code);
	if (t->setup == edges) {
		t->setup = no_page;
		xlate_try(t, &code);
		t->setup = edges;
	}
}

static void one(struct insn_test *t, struct xlate_pieces *list)
{
	xlate_begin(&code);
	xlate_loop(&code);
	for (unsigned k = 0; k < list->n; k++)
		xlate_put(&code, &list->p[k]);
	xlate_end(&code);
	try(t);
}

/* The first part sets the pointers. */
#define LOOP(before, text)              \
	do {                            \
		struct xlate_pieces l_; \
		l_.n = 0;               \
		PIECE(&l_, before);     \
		PIECE(&l_, text);       \
		one(t, &l_);            \
	} while (0)
#define K(text)  LOOP(XLATE_POINTER("rbx"), text)
#define K2(text) LOOP(XLATE_POINTER("rsi") XLATE_SECOND("rdi") XLATE_COUNT, text)

#define ALU(op)                          \
	K(op " cl, [rbx]");              \
	K(op " dh, [rbx+1]");            \
	K(op " si, [rbx]");              \
	K(op " r9d, [rbx]");             \
	K(op " rcx, [rbx]");             \
	K(op " r11, [rbx+8]");           \
	K(op " [rbx], al");              \
	K(op " [rbx+2], ch");            \
	K(op " [rbx], r10w");            \
	K(op " [rbx], edx");             \
	K(op " [rbx+4], r8");            \
	K(op " byte ptr [rbx], 0x55");   \
	K(op " word ptr [rbx], 0x1234"); \
	K(op " dword ptr [rbx], -3");    \
	K(op " qword ptr [rbx], 0x1234567")
#define ONE(op)                   \
	K(op " byte ptr [rbx]");  \
	K(op " word ptr [rbx]");  \
	K(op " dword ptr [rbx]"); \
	K(op " qword ptr [rbx+8]")
#define SHIFT(op)                     \
	K(op " byte ptr [rbx], 1");   \
	K(op " word ptr [rbx], 5");   \
	K(op " dword ptr [rbx], cl"); \
	K(op " qword ptr [rbx], 33"); \
	K("xor ecx, ecx; " op " qword ptr [rbx], cl")
#define CMOV(cc)                    \
	K("cmov" cc " ax, [rbx]");  \
	K("cmov" cc " r9d, [rbx]"); \
	K("cmov" cc " rdx, [rbx]")
#define SETCC(cc) K("set" cc " byte ptr [rbx]")
#define BOTH(text) \
	K(text);   \
	K("lock " text)

static void integers(struct insn_test *t)
{
	EACH(K, "mov al, [rbx]", "mov ah, [rbx]", "mov r9b, [rbx]", "mov bpl, [rbx]", "mov cx, [rbx]",
	     "mov r10w, [rbx]", "mov edx, [rbx]", "mov r11d, [rbx]", "mov rsi, [rbx]", "mov r12, [rbx]",
	     "mov [rbx], bh", "mov [rbx], r9b", "mov [rbx], ax", "mov [rbx], r10d", "mov [rbx], r11",
	     "mov [rbx], rbx");
	EACH(K, "mov byte ptr [rbx], 0x80", "mov word ptr [rbx], 0x8001", "mov dword ptr [rbx], -1",
	     "mov qword ptr [rbx], -2", "movnti [rbx], eax", "movnti [rbx], r10",
	     "movsxd rax, dword ptr [rbx]", "movsxd r9, dword ptr [rbx]");
	EACH(K, "movzx eax, byte ptr [rbx]", "movzx r9d, byte ptr [rbx]", "movzx rdx, word ptr [rbx]",
	     "movzx cx, byte ptr [rbx]", "movsx eax, byte ptr [rbx]", "movsx r11, word ptr [rbx]",
	     "movsx dx, byte ptr [rbx]", "movsx r10d, word ptr [rbx]");
	EACH(ALU, "add", "adc", "sub", "sbb", "and", "or", "xor", "cmp");
	EACH(K, "test [rbx], al", "test [rbx], r9d", "test byte ptr [rbx], 3", "test qword ptr [rbx], -5",
	     "imul eax, [rbx]", "imul r9, [rbx]", "imul dx, [rbx], 5", "imul r10, [rbx], 0x12345",
	     "mul byte ptr [rbx]", "mul qword ptr [rbx]", "imul dword ptr [rbx]",
	     "xor edx, edx; or byte ptr [rbx], 1; div word ptr [rbx]");
	EACH(ONE, "inc", "dec", "neg", "not");
	EACH(SHIFT, "shl", "shr", "sar", "rol", "ror", "rcl", "rcr");
	EACH(K, "shld [rbx], eax, 5", "shrd [rbx], rdx, cl", "shld word ptr [rbx], dx, 3");
	EACH(CMOV, "c", "nc", "z", "nz", "l", "ge", "be", "a");
	EACH(SETCC, "o", "no", "b", "ae", "z", "nz", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g");
	EACH(K, "bt word ptr [rbx], 3", "bt dword ptr [rbx], 40", "bt qword ptr [rbx], 63",
	     "bts dword ptr [rbx], 5", "btr qword ptr [rbx], 33", "btc word ptr [rbx], 15",
	     "mov eax, 70; bts [rbx], eax", "mov rdx, -9; btc [rbx], rdx", "mov r9d, 130; bt [rbx], r9");
	EACH(BOTH, "xadd [rbx], al", "xadd [rbx], r9w", "xadd [rbx], ecx", "xadd [rbx], rdx",
	     "cmpxchg [rbx], cl", "cmpxchg [rbx], cx", "cmpxchg [rbx], r9d", "cmpxchg [rbx], rcx",
	     "cmpxchg8b [rbx]", "add [rbx], rdx", "inc dword ptr [rbx]", "bts qword ptr [rbx], 7",
	     "not word ptr [rbx]", "and byte ptr [rbx], 0x3f");
	if (insn_has(X86_FEATURE_CX16)) {
		BOTH("cmpxchg16b [rbx]");
		K("and rbx, -16; cmpxchg16b [rbx]; lock cmpxchg16b [rbx]");
	}
	EACH(K, "xchg [rbx], al", "xchg [rbx], bh", "xchg [rbx], r9w", "xchg [rbx], edx", "xchg [rbx], r10",
	     "xchg [rbx], rbx", "bsf eax, [rbx]", "bsr r9, [rbx]", "push [rbx]", "pop [rbx]",
	     "push [rbx]; pop [rbx+8]", "pushw [rbx]; popw [rbx+2]", "mov al, 5; xlatb",
	     "lea rax, [rbx]; nop dword ptr [rbx]; prefetcht0 [rbx]", "cmp al, [rbx]; mov ah, [rbx+9]");
	if (insn_has(X86_FEATURE_MOVBE))
		EACH(K, "movbe ax, [rbx]", "movbe r9, [rbx]", "movbe [rbx], edx", "movbe [rbx], r10");
	if (insn_has(X86_FEATURE_POPCNT))
		EACH(K, "popcnt eax, [rbx]", "popcnt r9, [rbx]");
	if (insn_has(X86_FEATURE_ABM))
		EACH(K, "lzcnt eax, [rbx]", "lzcnt r9, [rbx]");
	if (insn_has(X86_FEATURE_SSE4_2))
		EACH(K, "crc32 eax, byte ptr [rbx]", "crc32 r9, qword ptr [rbx]");
	if (insn_has(X86_FEATURE_BMI1) && insn_has(X86_FEATURE_BMI2))
		EACH(K, "andn eax, ecx, [rbx]", "bextr r9, [rbx], rdx", "blsr rax, [rbx]", "tzcnt ecx, [rbx]",
		     "shlx rax, [rbx], rcx", "rorx r9d, [rbx], 7", "mulx r9, r10, [rbx]",
		     "pdep rax, rdx, [rbx]", "pext r9d, eax, [rbx]", "bzhi eax, [rbx], ecx");
	if (insn_has(X86_FEATURE_ADX))
		EACH(K, "adcx eax, [rbx]", "adox r9, [rbx]");
}

#define VLOAD(op)                \
	K(op " xmm0, [rbx]");    \
	K(op " xmm9, [rbx+16]"); \
	K(op " [rbx], xmm3");    \
	K(op " [rbx+16], xmm12")
#define YLOAD(op)                \
	K(op " xmm0, [rbx]");    \
	K(op " ymm9, [rbx+32]"); \
	K(op " [rbx], xmm3");    \
	K(op " [rbx], ymm12")
/* Several operands of one thing, so that indexes are small. */
#define INDEX  "vpsrld ymm1, ymm1, 25;"
#define INDEXQ "vpsrlq ymm1, ymm1, 57;"
#define ONES   "vpcmpeqd ymm2, ymm2, ymm2;"

static void vectors(struct insn_test *t)
{
	EACH(VLOAD, "movups", "movaps", "movdqu", "movdqa", "movupd");
	EACH(K, "movss xmm0, dword ptr [rbx]", "movss dword ptr [rbx], xmm9", "movsd xmm1, qword ptr [rbx]",
	     "movsd qword ptr [rbx], xmm1", "movd xmm2, [rbx]", "movd [rbx], xmm2", "movq xmm3, [rbx]",
	     "movq [rbx], xmm10", "movlps xmm1, [rbx]", "movhps xmm1, [rbx]", "movhpd [rbx], xmm1",
	     "movlpd [rbx], xmm9", "movntps [rbx], xmm1", "movntdq [rbx], xmm9", "paddd xmm1, [rbx]",
	     "pxor xmm9, [rbx]");
	EACH(K, "addss xmm1, dword ptr [rbx]", "addsd xmm1, qword ptr [rbx]", "addps xmm1, [rbx]",
	     "ucomisd xmm1, qword ptr [rbx]", "cvtsi2sd xmm1, qword ptr [rbx]",
	     "cvtss2si eax, dword ptr [rbx]", "pinsrw xmm1, word ptr [rbx], 3", "pshufd xmm1, [rbx], 0x1b",
	     "movq mm1, [rbx]; emms", "movq [rbx], mm2; emms", "paddb mm3, [rbx]; emms",
	     "movntq [rbx], mm4; emms");
	if (insn_has(X86_FEATURE_SSE4_1))
		EACH(K, "pextrb [rbx], xmm1, 5", "pextrw [rbx], xmm2, 6", "pextrd [rbx], xmm3, 1",
		     "pextrq [rbx], xmm9, 1", "extractps [rbx], xmm3, 2", "pinsrb xmm1, [rbx], 2",
		     "pinsrq xmm9, [rbx], 1", "pmovzxbw xmm1, [rbx]", "pmovsxbq xmm2, [rbx]",
		     "movntdqa xmm3, [rbx]", "insertps xmm1, dword ptr [rbx], 0x1a", "ptest xmm1, [rbx]");
	if (insn_has(X86_FEATURE_SSE3))
		EACH(K, "lddqu xmm1, [rbx]", "movddup xmm2, qword ptr [rbx]");
	EACH(K, "fld dword ptr [rbx]; fstp st(0)", "fld qword ptr [rbx]; fstp st(0)",
	     "fld1; fstp dword ptr [rbx]", "fldpi; fstp qword ptr [rbx]", "fild word ptr [rbx]; fstp st(0)",
	     "fild dword ptr [rbx]; fstp st(0)", "fild qword ptr [rbx]; fstp st(0)",
	     "fld1; fistp word ptr [rbx]", "fld1; fistp dword ptr [rbx]", "fldpi; fistp qword ptr [rbx]",
	     "fninit; fldpi; fadd qword ptr [rbx]; fstp st(0)", "fldz; fcomp dword ptr [rbx]", "fnstcw [rbx]",
	     "fnstsw [rbx]", "fldpi; fst dword ptr [rbx]; fstp st(0)");
	EACH(K, "fninit; fld tbyte ptr [rbx]", "fninit; fldpi; fstp tbyte ptr [rbx]", "stmxcsr [rbx]",
	     "mov dword ptr [rbx], 0x1f80; ldmxcsr [rbx]", "mov word ptr [rbx], 0x37f; fldcw [rbx]");
	if (!insn_has(X86_FEATURE_AVX))
		return;
		/* Vector state around what an engine may do outside. */
#define CPUID "mov rsi, rbx; xor eax, eax; cpuid; mov rbx, rsi; xor eax, eax; xor ecx, ecx; xor edx, edx;"
#define RDTSC "rdtsc; xor eax, eax; xor edx, edx;"
	EACH(K, "paddd xmm1, [rbx]; " CPUID "paddd xmm2, xmm1; movups [rbx+16], xmm2",
	     "movups xmm1, [rbx]; " RDTSC "pxor xmm9, xmm1; movups [rbx], xmm9",
	     CPUID "paddd xmm1, xmm2; " CPUID "movups [rbx], xmm1",
	     "fld qword ptr [rbx]; " CPUID "fstp qword ptr [rbx+8]",
	     "movd mm1, [rbx]; " CPUID "movd [rbx+4], mm1; emms",
	     "vmovups ymm1, [rbx]; " CPUID "vaddps ymm2, ymm1, ymm3; vmovups [rbx], ymm2");
	EACH(YLOAD, "vmovups", "vmovaps", "vmovdqu", "vmovdqa");
	EACH(K, "vaddps ymm0, ymm1, [rbx]", "vxorpd ymm9, ymm10, [rbx+32]",
	     "vaddsd xmm1, xmm2, qword ptr [rbx]", "vmovss dword ptr [rbx], xmm1",
	     "vmovsd xmm1, qword ptr [rbx]", "vmovd [rbx], xmm9", "vmovq xmm1, [rbx]",
	     "vbroadcastss ymm1, dword ptr [rbx]", "vbroadcastsd ymm9, qword ptr [rbx]",
	     "vbroadcastf128 ymm1, [rbx]", "vinsertf128 ymm1, ymm2, [rbx], 1", "vextractf128 [rbx], ymm9, 1",
	     "vmovntps [rbx], ymm1", "vlddqu ymm1, [rbx]");
	t->setup = writable;
	EACH(K, "vmaskmovps xmm0, xmm1, [rbx]", "vmaskmovps [rbx], ymm1, ymm2",
	     "vmaskmovpd [rbx], xmm1, xmm2", "mov rdi, rbx; maskmovdqu xmm3, xmm4");
	if (insn_has(X86_FEATURE_AVX2)) {
		EACH(K, INDEX ONES "vpgatherdd xmm0, [rbx+xmm1*4], xmm2",
		     INDEX ONES "vpgatherdd ymm0, [rbx+ymm1*1+8], ymm2",
		     INDEX "vpgatherdq ymm0, [rbx+xmm1*2], ymm2",
		     INDEXQ "vpgatherqd xmm0, [rbx+ymm1*2], xmm2",
		     INDEXQ ONES "vgatherqpd ymm0, [rbx+ymm1*8-32], ymm2",
		     INDEX "vgatherdps ymm0, [rbx+ymm1*4], ymm2", "vpmaskmovd [rbx], ymm1, ymm2",
		     "vpmaskmovq ymm3, ymm4, [rbx]");
	}
	t->setup = edges;
}

/* AVX-512: braces mean something in a template of inline assembly. */
#define M(n) "%{k" n "%}"
#define Z    "%{z%}"
#define B(n) "%{1to" n "%}"

static bool has_avx512(void)
{
	return insn_has(X86_FEATURE_AVX512F) && insn_has(X86_FEATURE_AVX512VL) &&
	       insn_has(X86_FEATURE_AVX512BW) && insn_has(X86_FEATURE_AVX512DQ);
}

/* Displacements count in operands, masks spare elements, broadcasts read one; what is checked is the whole. */
static void vectors512(struct insn_test *t)
{
	t->loose_cr2 = true;
	EACH(K, "vmovups zmm0, [rbx]", "vmovups [rbx], zmm17", "vmovdqu64 ymm20, [rbx+32]",
	     "vmovdqu8 [rbx+16], xmm21", "vmovaps zmm1, [rbx]", "vmovdqa64 [rbx], zmm2",
	     "vmovntps [rbx], zmm3", "vpaddd zmm1, zmm2, [rbx]", "vpaddd zmm21, zmm22, [rbx+64]",
	     "vaddps zmm0, zmm1, [rbx+1]");
	EACH(K, "vaddps zmm0, zmm1, dword ptr [rbx+4]" B("16"),
	     "vpaddq ymm20, ymm1, qword ptr [rbx+8]" B("4"), "vpcmpeqd k1, zmm0, [rbx]",
	     "vptestmb k2" M("3") ", zmm1, [rbx]", "vmovups zmm0" M("1") ", [rbx]",
	     "vmovdqu8 zmm20" M("2") Z ", [rbx]", "vmovups [rbx]" M("1") ", zmm0",
	     "vmovdqu16 [rbx]" M("3") ", ymm1", "vmovdqu64 [rbx]" M("5") ", zmm30",
	     "vaddpd zmm0" M("4") ", zmm1, [rbx]");
	EACH(K, "vaddss xmm0" M("1") ", xmm1, dword ptr [rbx]", "vmovsd qword ptr [rbx]" M("2") ", xmm20",
	     "vpmovzxbd zmm0" M("3") ", [rbx]", "vpmovqb [rbx]" M("4") ", zmm0", "vpmovdw [rbx], zmm20",
	     "vbroadcastf32x4 zmm0" M("5") ", [rbx]", "vextracti32x4 [rbx]" M("7") ", zmm0, 1",
	     "vpcompressd [rbx]" M("1") ", zmm0", "vpexpandq zmm20" M("2") ", [rbx]",
	     "vpcompressq [rbx], ymm17", "vcvtps2ph [rbx]" M("3") ", zmm0, 0");
	EACH(K, "kmovb k1, [rbx]", "kmovw k2, [rbx]", "kmovd k3, [rbx]", "kmovq k4, [rbx]", "kmovb [rbx], k1",
	     "kmovw [rbx], k2", "kmovd [rbx], k3", "kmovq [rbx], k4",
	     "vcvtusi2sd xmm17, xmm1, qword ptr [rbx]", "vpinsrd xmm20, xmm1, [rbx], 2",
	     "vpextrq [rbx], xmm21, 1", "vucomisd xmm20, qword ptr [rbx]; seta al");
	EACH(K, "kmovd k1, [rbx]; vmovdqu32 zmm0" M("1") Z ", [rbx]; kmovq rax, k1; mov [rbx], eax",
	     "vmovd xmm20, [rbx]; vpbroadcastd zmm21, r9d; vpaddd zmm20, zmm20, zmm21; vmovd [rbx+4], xmm20",
	     "cmp eax, ecx; vpaddd zmm0, zmm1, [rbx]; adc eax, 0; vmovups [rbx], zmm0; setc cl",
	     "vpternlogd zmm0, zmm1, [rbx], 0x96; kortestw k1, k2; jc 1f; vmovups [rbx+64], zmm0; 1:",
	     "vmovups zmm0, [rbx]; " CPUID "vpaddd zmm20, zmm0, zmm1; kmovd eax, k3; vmovups [rbx], zmm20",
	     "vzeroupper; vpaddd xmm0, xmm1, [rbx]; vmovups zmm2, [rbx]; vmovups [rbx+8], zmm0");
	t->setup = writable;
	EACH(K, "vpsrld zmm1, zmm1, 25; vpgatherdd zmm0" M("1") ", [rbx+zmm1*1]",
	     "vpsrlq zmm17, zmm17, 57; vpgatherqq zmm20" M("2") ", [rbx+zmm17*1]; kmovd eax, k2",
	     "vpsrld zmm1, zmm1, 25; vpscatterdd [rbx+zmm1*1]" M("3") ", zmm0; mov eax, [rbx]",
	     "vpsrlq zmm17, zmm17, 57; vscatterqpd [rbx+ymm17*1]" M("4") ", ymm0; vpaddd zmm0, zmm0, [rbx]");
	t->setup = edges;
	t->loose_cr2 = false;
}
#undef B

#define STRING(op)         \
	K2(op "b");        \
	K2(op "w");        \
	K2(op "d");        \
	K2(op "q");        \
	K2("rep " op "b"); \
	K2("rep " op "w"); \
	K2("rep " op "d"); \
	K2("rep " op "q"); \
	K2(op "b; " op "q; " op "d; " op "w; mov rax, [rsi]; mov [rdi], rdx")
#define REPNE(op)            \
	K2("repne " op "b"); \
	K2("repne " op "w"); \
	K2("repne " op "d"); \
	K2("repne " op "q")

static void string_ops(struct insn_test *t)
{
	t->setup = strings;
	EACH(STRING, "movs", "stos", "lods", "cmps", "scas");
	EACH(REPNE, "cmps", "scas");
	K2("rep movsb; mov ecx, 3; rep stosd; mov al, [rsi]; lodsb");
	K2("mov rdi, rsi; inc rdi; rep movsb"); /* overlapping */
	K2("mov r8, 0x500000000; add rsi, r8; add rdi, r8; .byte 0x67; movsd; .byte 0x67; stosb");
	K2("xor ecx, ecx; mov rsi, -1; rep movsq; repe cmpsb");
	t->setup = edges;
}

/* --- registers --- */

#define DATA(R, D, W, B)                                                                                \
	K("mov " R ", [rbx]");                                                                          \
	K("mov [rbx], " R);                                                                             \
	K("add [rbx+8], " R "; xor " R ", [rbx+16]");                                                   \
	K("mov " D ", [rbx+4]; add [rbx], " D);                                                         \
	K("mov " W ", [rbx+2]; mov [rbx+8], " W);                                                       \
	K("mov " B ", [rbx+1]; or [rbx], " B);                                                          \
	K("xchg " R ", [rbx]; lea " D ", [" R "+3]; mov [0x20000600], " R);                             \
	K("push rax; mov rax, [rbx]; mov " R ", rax; add " R ", 1; cmp " R ", [rbx]; mov [rbx+8], " R); \
	K("xadd [rbx], " R "; imul " R ", [0x20000600]; cmovs " R ", [0x20000608]; movzx " D            \
	  ", byte ptr [0x20000610]")
/* As a base; the other register is data. */
#define BASE(R, A)                                                                                         \
	LOOP(XLATE_POINTER(R), "mov " A ", [" R "]; add [" R "+8], " A);                                   \
	LOOP(XLATE_POINTER(R), "mov [" R "-8], " A "; mov " A ", [" R "+0x20]; mov [" R "+0x88], " A);     \
	LOOP(XLATE_POINTER(R), "mov r8, [" R "+r9*8]; lea r8, [" R "+r9*4-9]; xor [" R "+r9*8-0x80], r8"); \
	LOOP(XLATE_POINTER(R), "movups xmm1, [" R "+8]; movups [" R "+24], xmm1; inc dword ptr [" R "]");  \
	LOOP(XLATE_POINTER(R), "mov [" R "], " R "; mov " R ", [" R "]; mov [" R "+8], " R);               \
	LOOP(XLATE_POINTER(R), "mov " A ", [" R "]; mov " R ", [" R "+8]; mov " A ", [" R "]");            \
	LOOP(XLATE_POINTER(R), "push [" R "]; pop [" R "+8]; push qword ptr [" R "+16]; pop " A);          \
	LOOP(XLATE_POINTER(R), "mov al, [" R "]; mov [" R "+1], dl; mov [" R "+2], dx")
/* As an index: a small number, or the address itself. */
#define INDEXES(R)                                                                                  \
	LOOP(XLATE_POINTER(R), "mov r8, [" R "*1]; mov [" R "*1+16], r8");                          \
	LOOP(XLATE_POINTER(R), "shr " R ", 1; mov r8, [" R "+" R "]; mov [" R "*2+8], r8");         \
	LOOP(XLATE_POINTER("rsp"), "mov " R ", 3; mov r8, [rsp+" R "*8]; add [rsp+" R "*4+4], r8"); \
	LOOP(XLATE_POINTER("rsp"), "mov " R ", -2; mov [rsp+" R "*8+16], al; mov [rsp+" R "*1+2], " R)

static void registers(struct insn_test *t)
{
	DATA("rax", "eax", "ax", "al");
	DATA("rcx", "ecx", "cx", "ch");
	DATA("rdx", "edx", "dx", "dh");
	DATA("rbx", "ebx", "bx", "bh");
	DATA("rsp", "esp", "sp", "spl");
	DATA("rbp", "ebp", "bp", "bpl");
	DATA("rsi", "esi", "si", "sil");
	DATA("rdi", "edi", "di", "dil");
	DATA("r8", "r8d", "r8w", "r8b");
	DATA("r9", "r9d", "r9w", "r9b");
	DATA("r10", "r10d", "r10w", "r10b");
	DATA("r11", "r11d", "r11w", "r11b");
	DATA("r12", "r12d", "r12w", "r12b");
	DATA("r13", "r13d", "r13w", "r13b");
	DATA("r14", "r14d", "r14w", "r14b");
	DATA("r15", "r15d", "r15w", "r15b");
	BASE("rax", "rcx");
	BASE("rcx", "rdx");
	BASE("rdx", "rbx");
	BASE("rbx", "rbp");
	BASE("rsp", "rsi");
	BASE("rbp", "rdi");
	BASE("rsi", "r10");
	BASE("rdi", "r11");
	BASE("r10", "r11");
	BASE("r11", "r10");
	BASE("r12", "rax");
	BASE("r13", "r9");
	BASE("r14", "r15");
	BASE("r15", "r14");
	EACH(INDEXES, "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r9", "r10", "r11", "r12", "r13",
	     "r14", "r15");
	LOOP(XLATE_POINTER("r9"),
	     "mov r10, [r9]; mov r11, [r9+8]; mov [r9+16], r10; mov [r9+24], r11; mov r9, r11");
	LOOP(XLATE_POINTER("r9"),
	     "mov r8, [r9]; lea r10, [r9+8]; mov [r10], r8; lea r11, [r10+8]; mov [r11], r10; xchg r9, r11; mov [r9+8], r11");
	LOOP(XLATE_POINTER("r9"),
	     "xor r9d, 8; mov r10d, r9d; shl r10, 1; mov [r9], r10w; mov [r9+2], r9w; mov r11b, [r9+4]; add r11, r10");
	/* AH, CH, DH and BH with memory on either side. */
	K("mov ah, [rbx]; mov ch, [rbx+1]; add ah, ch; mov [rbx+2], ah; adc dh, [rbx+3]; xor [rbx+4], dh; xchg ch, [rbx+5]");
	K("mov dl, bh; sub bh, 1; add bh, 1; mov [rbx], bh; cmp [rbx+1], bh; mov dh, [rbx]; setb ah; sbb dl, ah");
	K("movzx ecx, ah; movzx eax, bh; mov [rbx+1], cl; inc byte ptr [rbx]; xadd [rbx], dh; cmpxchg [rbx+1], ch; shl ah, 1");
	/* RSP as an operand like any other. */
	LOOP(XLATE_POINTER("rsp"),
	     "mov rax, rsp; mov [rsp], rsp; add [rsp+8], rsp; sub rsp, 16; mov [rsp+16], esp; mov [rsp], sp");
	LOOP(XLATE_POINTER("rsp"),
	     "xchg rsp, rbp; mov rax, [rbp]; mov [rbp+8], rax; xor rsp, rbp; mov rsp, [rbp]; xchg rsp, [rbp+16]");
	LOOP(XLATE_POINTER("rbp"),
	     "mov rsp, rbp; mov rdx, rsp; neg rsp; add rsp, 5; and rsp, rdx; imul rsp, rsp, 3; lea rsp, [rsp+rdx*2]; mov [rbp], rsp");
	LOOP(XLATE_POINTER("rsp"),
	     "mov spl, 0x40; mov rax, [rsp]; or sp, 0x80; mov [rsp], rax; inc esp; mov [rsp+8], al; bswap rsp; mov [0x20000600], rsp");
}

/* --- ways to say where --- */

static void addresses(struct insn_test *t)
{
#define GS "lea rbx, [rbx-0x20000800];"
	K(GS "mov rax, gs:[rbx]; mov gs:[rbx+8], rax; add dword ptr gs:[rbx+16], 3");
	K(GS "movups xmm1, gs:[rbx]; movups gs:[rbx+16], xmm1; inc byte ptr gs:[rbx+40]");
	K(GS "mov rcx, gs:[0x40]; mov gs:[0x48], rcx; mov rdx, [0x20000848]; xchg gs:[rbx], rdx");
	K(GS "push gs:[rbx]; pop gs:[rbx+8]; cmp gs:[rbx+16], rax; setb gs:[rbx+17]");
	K("mov rsi, rbx; " GS "mov rax, gs:[rbx]; mov [rsi+8], rax; mov gs:[rbx+16], rax; mov rcx, [rsi+16]");
	K("mov rsi, rbx; lea rsi, [rsi-0x20000800]; mov rdi, 0x20000a00; mov ecx, 3; .byte 0xf3, 0x65, 0xa4, 0x66, 0x65, 0xad");
	K("lea rbx, [rbx-0x20000800]; mov r8, 0x1111111100000000; add rbx, r8; mov rax, gs:[ebx]; mov gs:[ebx+8], eax");
#define HIGH "mov r8, 0xabcdef0100000000; add rbx, r8;"
	K(HIGH "mov rax, [ebx]; mov [ebx+8], rax; add dword ptr [ebx+16], 1");
	K(HIGH
	  "mov r9, r8; add r9, 2; mov rax, [ebx+r9d*8]; mov [ebx+r9d*4-4], al; lea rcx, [ebx+r9d*8]; lea edx, [ebx-1]");
	K("mov esi, 0xfffffff8; add rbx, 8; mov rax, [ebx+esi]; mov [ebx+esi*1+8], rax"); /* wraps at 2^32 */
	K("mov r10, rbx; " HIGH "mov [r10], rdx; mov [ebx+8], rdx; mov rcx, [r10+16]; mov rcx, [ebx+24]");
	K("mov eax, [eip+1f]; 1: mov rdx, [rip+1b]; mov ecx, [rip]; cmp byte ptr [rip-1], 0");
	K("lea rax, [rip]; mov rdx, [rax]; lea r10, [rip+1f]; cmp byte ptr [r10], 0x4d; 1: mov r11, [r10]");
	K("mov rax, [rip+0x10000000]; mov [rip+0x10000000], rcx; add [rip+0x10000008], rdx; movups xmm1, [rip+0x10000100]");
	K("cmp dword ptr [rip+0x10000200], 0x12345678; mov word ptr [rip+0x10000200], 0x7777; imul r9, [rip+0x10000203], 100");
	K("cmp dword ptr [0x20000300], 0; jnz 1f; mov [rip], eax; 1: nop"); /* in the last round the code, read-only */
	K("movabs al, [0x20000800]; movabs eax, [0x20000ffe]; movabs [0x20000810], rax; movabs [0x20000ffd], eax; movabs ax, [0x20001fff]");
	K("mov eax, [0x20000800]; mov [0x20000ffc], rax; mov r9, [0x20001ffc]; add [0x20000ffe], r9d");
	K("mov rax, ds:[rbx]; .byte 0x2e; mov rcx, [rbx+8]; .byte 0x3e; mov [rbx+16], rax; .byte 0x26; mov rdx, [rbx]; .byte 0x36; add [rbx], ecx");
	/* Far apart: other pages through the same base. */
	K("mov rax, [rbx]; mov rcx, [rbx+0x800]; mov rdx, [rbx-0x400]; mov [rbx+0x10], rax; mov rsi, [rbx+0x400]");
	K("mov rax, [rbx]; and ebx, 0xfffffff; or ebx, 0x20000000; mov rcx, [rbx+0x10]; mov rdx, [rbx+0x7fffffff]");
	K("mov rax, [rbx]; mov rcx, [rbx-0x7ffffff8]");
	K("mov rax, [rbx]; mov rcx, 0x7fffffffffff; mov rdx, [rbx+8]; mov rdx, [rbx+rcx]");
	K("mov rax, [rbx]; mov rcx, -0x4000000; mov rdx, [rbx+8]; mov rdx, [rbx+rcx*8]");
	K("mov rax, 0x20000ff0; mov rcx, [rax]; mov rdx, [rax+0xff0]; mov [rax+0xf], r8; mov [rax-0xff0+0x800], rcx; mov rdi, [rax+0x1ff0]; mov rsi, [rax+0x2000]; mov [rax], rdi");
	t->setup = nowhere;
	EACH(K, "mov [rbx], eax", "mov rax, [rbx+8]", "add [rbx-8], rax", "inc byte ptr [rbx]",
	     "movups xmm1, [rbx]", "push [rbx]", "pop [rbx]", "xchg [rbx], rax", "movaps [rbx], xmm2",
	     "mov [0x20000600], rbx; mov rax, [rbx]; mov [0x20000608], rbx");
	LOOP(XLATE_POINTER("rsp"), "mov rax, [rsp]");
	LOOP(XLATE_POINTER("rsp"), "push rax; pop rcx");
	LOOP(XLATE_POINTER("rsp"), "call 1f; 1: pop rcx");
	LOOP(XLATE_POINTER("rbp"), "mov rax, [rbp+8]; mov [rbp], rax");
	LOOP(XLATE_POINTER("rbp"), "mov rsi, rsp; leave; mov rsp, rsi");
	LOOP(XLATE_POINTER("r12"), "mov [r12], r12; mov rax, [r12+8]");
	t->setup = no_page;
	EACH(K, GS "mov rax, gs:[rbx]", GS "mov gs:[rbx+8], rax", GS "add gs:[rbx], rax; mov gs:[rbx+8], rcx",
	     "mov r9, rbx; mov r10, 8; mov rax, [r9+r10]", "mov r12, rbx; mov r9, 8; add [r12+r9*2], rax",
	     "mov r13, rbx; mov [r13*1-8], rax",
	     "mov [rbx], eax; mov rsi, [0x20000600]; mov [0x20000608], rbx",
	     "mov rcx, [0x20000600]; inc rcx; cmp rcx, rdx; mov [rbx], eax; setb [rbx+8]",
	     "shl rcx, 3; adc [rbx], rcx", "sub rcx, rdx; push [rbx]; sbb rcx, 0");
	LOOP(XLATE_POINTER("rsp"), "push rax; call 1f; 1: pop rcx; pop rdx");
	LOOP(XLATE_POINTER("rsp"), "mov rbp, rsp; cmp rax, rcx; leave");
	LOOP(XLATE_POINTER("rsp"), "cmp rax, rcx; lea rdx, [rip+1f]; jmp 2f; 1: nop; 2: call rdx; pop rdx");
	t->setup = no_page_at_once;
	EACH(K, "jmp [rbx]", "call [rbx]", "mov r12, rbx; jmp [r12+8]", "mov r10, rbx; call [r10]",
	     "mov rsp, rbx; cmp rax, rcx; ret", "mov rsp, rbx; ret 8", GS "jmp gs:[rbx]",
	     GS "call gs:[rbx+8]", "mov rbp, rbx; jmp [rbp]", "mov r9, 2; call [rbx+r9*8]",
	     "mov rsp, rbx; call [rsp+8]", "mov rsp, rbx; push [rsp]", "mov rsp, rbx; pop [rsp]",
	     "mov rsp, rbx; mov rbx, 0x20000800; push [rbx]", "mov rsp, rbx; mov rbx, 0x20000800; pop [rbx]",
	     "mov rsp, rbx; jmp [rsp-8]");
	t->setup = edges;
}

/* --- several accesses through one base --- */

/* B: the base and its parts. */
#define ACCESSES(l, B)                                                                                       \
	EACH_IN(l, "mov rax, [" B "]", "mov rcx, [" B "+8]", "mov rdx, [" B "+16]", "mov esi, [" B "+4]",    \
		"mov di, [" B "+30]", "mov al, [" B "+7]", "mov r8, [" B "+40]", "mov r9, [" B "+48]",       \
		"mov r11, [" B "-8]", "mov r15, [" B "+56]", "movzx eax, byte ptr [" B "+3]",                \
		"movsx rcx, word ptr [" B "+22]", "movsxd rdx, dword ptr [" B "+12]",                        \
		"movups xmm0, [" B "+8]", "movsd xmm1, qword ptr [" B "+24]", "paddd xmm2, [" B "+16]");     \
	EACH_IN(l, "mov [" B "], rax", "mov [" B "+8], rcx", "mov [" B "+16], rdx", "mov [" B "+20], esi",   \
		"mov [" B "+30], di", "mov [" B "+1], al", "mov [" B "+40], r9", "mov [" B "+48], r8",       \
		"mov [" B "-8], r15", "mov [" B "-16], r11", "mov dword ptr [" B "+4], 0x12345678",          \
		"mov qword ptr [" B "+32], -5", "mov byte ptr [" B "+63], 9", "movups [" B "+16], xmm3",     \
		"movsd qword ptr [" B "+40], xmm1", "movaps [" B "+48], xmm4");                              \
	EACH_IN(l, "add [" B "+8], rax", "sub dword ptr [" B "+12], 7", "xor [" B "+24], r9",                \
		"inc qword ptr [" B "+32]", "neg word ptr [" B "+2]", "shl qword ptr [" B "+40], 3",         \
		"adc rax, [" B "+16]", "sbb [" B "], ecx", "xchg rdx, [" B "+8]", "xadd [" B "+16], rcx",    \
		"cmpxchg [" B "+24], r8", "bts dword ptr [" B "+28], 5", "setc byte ptr [" B "+5]",          \
		"cmovs rax, [" B "+48]", "cmp [" B "+36], edx", "imul rax, [" B "+8], 3");                   \
	EACH_IN(l, "push [" B "+8]", "pop [" B "+16]", "fld qword ptr [" B "+24]; fstp st(0)",               \
		"fild dword ptr [" B "+8]; fistp dword ptr [" B "+12]", "mov r8d, 2; mov rax, [" B "+r8*8]", \
		"mov edi, 3; mov [" B "+rdi*4+2], rax", "mov [" B "+24], " B,                                \
		"lock inc dword ptr [" B "+44]")
/* The same with EVEX. */
#define ACCESSES512(l, B)                                                                              \
	EACH_IN(l, "vmovups zmm0, [" B "]", "vmovups ymm17, [" B "+24]", "vmovdqu64 [" B "+8], zmm20", \
		"vmovdqu8 [" B "+16]" M("1") ", zmm3", "vmovdqu32 zmm21" M("2") Z ", [" B "-8]",       \
		"vpaddd zmm0, zmm17, [" B "+64]", "vaddps zmm3, zmm0, dword ptr [" B "+12]%{1to16%}",  \
		"kmovq k3, [" B "+40]", "kmovd [" B "+48], k3", "vmovd xmm20, [" B "+4]",              \
		"vmovq [" B "+32], xmm21", "vpcompressd [" B "]" M("4") ", zmm0",                      \
		"vpmovdb [" B "+16]" M("5") ", zmm3")
#define BYTES(l, B)                                                                                      \
	EACH_IN(l, "mov ah, [" B "+9]", "mov [" B "+10], ch", "add dh, [" B "+11]", "sub [" B "+3], ah", \
		"mov ch, [" B "+33]; add [" B "+34], dh")
#define CHANGES(l, B, D, W, L)                                                                               \
	EACH_IN(l, "add " B ", 8", "sub " B ", 8", "add " B ", 32", "sub " B ", 24", "inc " B, "dec " B,     \
		"lea " B ", [" B "+16]", "lea " B ", [" B "-12]", "add " B ", 1; sub " B ", 1",              \
		"mov r8, " B "; mov " B ", r8", "mov " D ", " D, "add " D ", 4", "lea " D ", [" B "-4]",     \
		"add " W ", 8", "add " L ", 8", "xor " L ", 8");                                             \
	EACH_IN(l, "mov r9d, 8; add " B ", r9", "mov r9, " B "; add r9, 8; mov " B ", r9",                   \
		"xchg " B ", rdx; xchg rdx, " B,                                                             \
		"mov [" B "+8], " B "; mov rax, [" B "]; mov " B ", [" B "+8]",                              \
		"mov [" B "], " B "; mov " B ", [" B "]", "neg " B "; not " B "; add " B ", 1",              \
		"push " B "; pop " B, "mov [" B "+16], " B "; xchg " B ", [" B "+16]",                       \
		"mov [" B "], " B "; add qword ptr [" B "], 8; mov " B ", [" B "]", "bswap " B "; bswap " B, \
		"cmp al, dl; lea r8, [" B "+8]; cmovb " B ", r8", "and " B ", -8", "or " L ", 1",            \
		"adc " B ", 3", "mov " L ", 0xe0",                                                           \
		"mov r9, " B "; mov " B ", r9; mov [r9+24], al; mov dl, [" B "+24]")

static struct xlate_pieces access, change, other;

static void others(struct xlate_pieces *l)
{
	l->n = 0;
	EACH_IN(l, "add rax, rcx", "lea rdx, [rax+rcx*2+5]", "xor rcx, rdx", "imul rax, rdx", "mov r8, rax",
		"add r9, r8", "ror rdx, 7", "cmp rax, rdx", "test cl, cl", "adc rcx, r9", "mov r11, rdx",
		"shl rcx, 3", "paddd xmm3, xmm0", "bswap rax", "sbb eax, edx", "jc 1f; add rax, 1; 1:");
	EACH_IN(l, "jmp 1f; ud2; 1:", "jz 1f; not rcx; 1:", "call 1f; jmp 2f; 1: ret; 2:", "clc", "stc",
		"nop", "mov rdx, [0x20000600]", "mov [0x20000608], rcx");
}

static void one_group(struct insn_test *t, const struct xlate_piece *first)
{
	unsigned want = 2 + xlate_below(&t->rng, xlate_below(&t->rng, 4) ? 10 : 40);

	xlate_begin(&code);
	xlate_loop(&code);
	xlate_put(&code, first);
	for (unsigned n = 0; n < want; n++) {
		u32 k = xlate_below(&t->rng, 16);
		if (!xlate_put(&code, xlate_any(&t->rng, k < 11 ? &access : k < 14 ? &change : &other)))
			break;
	}
	xlate_end(&code);
	try(t);
}

#define GROUPS(B, D, W, L, bytes)                  \
	do {                                       \
		head.n = access.n = change.n = 0;  \
		PIECE(&head, XLATE_POINTER(B));    \
		ACCESSES(&access, B);              \
		if (has_avx512())                  \
			ACCESSES512(&access, B);   \
		bytes;                             \
		CHANGES(&change, B, D, W, L);      \
		for (unsigned n = 0; n < 120; n++) \
			one_group(t, &head.p[0]);  \
	} while (0)

static void groups(struct insn_test *t)
{
	others(&other);
	GROUPS("rbx", "ebx", "bx", "bl", BYTES(&access, "rbx"));
	GROUPS("rbp", "ebp", "bp", "bpl", BYTES(&access, "rbp"));
	GROUPS("rsp", "esp", "sp", "spl", BYTES(&access, "rsp"));
	GROUPS("r10", "r10d", "r10w", "r10b", (void)0);
	GROUPS("r12", "r12d", "r12w", "r12b", (void)0);
	GROUPS("r13", "r13d", "r13w", "r13b", (void)0);
	GROUPS("r14", "r14d", "r14w", "r14b", (void)0);
}

/* --- the stack --- */

static struct xlate_pieces pushes, frames;

static void stacks(struct insn_test *t)
{
	head.n = pushes.n = frames.n = 0;
	PIECE(&head, XLATE_POINTER("rsp") "mov rbp, rsp; "
					  "mov rbx, [0x20000320]");
	EACH_IN(&pushes, "push rax", "push rbx", "push rsp", "push r9", "push r10", "push r12", "push 5",
		"push -0x12345678", "push ax", "pushw 0x1234", "pushf", "push [rsp+8]", "push [rsp]",
		"push [rbx+8]", "push gs", "push rbp");
	EACH_IN(&pushes, "pop rax", "pop rcx", "pop r9", "pop r11", "pop r15", "pop dx", "pop [rsp]",
		"pop [rsp+8]", "pop [rbx]", "pop qword ptr [rsp-8]", "push rsp; pop rsp",
		"push rsp; add rsp, 8", "push rdx; pop rdx", "pop rsi; push rsi", "pushf; popf",
		"popw [rsp+4]");
	EACH_IN(&frames, "sub rsp, 16", "sub rsp, 40", "add rsp, 24", "add rsp, 8", "lea rsp, [rsp-32]",
		"lea rsp, [rsp+16]", "inc rsp; dec rsp", "and rsp, -16", "mov [rsp], rax", "mov [rsp+8], rcx",
		"mov rdx, [rsp+16]", "mov rax, [rsp]", "mov [rsp-8], r9", "add [rsp+8], rax",
		"mov r10, [rsp-16]", "movups [rsp+16], xmm1");
	EACH_IN(&frames, "push rbp; mov rbp, rsp; sub rsp, 32", "leave", "mov rsp, rbp",
		"mov rsp, rbp; pop rbp", "enter 16, 0", "enter 32, 1", "enter 8, 2", "mov [rbp-8], rax",
		"mov rcx, [rbp-16]", "mov [rbp+8], rdx", "add qword ptr [rbp-24], 1", "mov rbp, rsp",
		"xchg rsp, rax; xchg rsp, rax", "mov rax, rsp; mov rsp, rax", "lea rbp, [rsp+24]",
		"lea rsp, [rbp-40]");
	EACH_IN(&frames, "call 1f; jmp 2f; 1: mov rax, [rsp]; ret; 2:", "call 1f; 1: pop rdx",
		"call 1f; 1: add rsp, 8", "lea rax, [rip+1f]; push rax; ret; 1:",
		"call 1f; jmp 2f; 1: push rbx; mov rbx, [rsp+8]; pop rbx; ret; 2:",
		"push rcx; push rdx; call 1f; jmp 2f; 1: ret 16; 2:",
		"call 1f; jmp 2f; ud2; 1: push rbp; mov rbp, rsp; mov [rbp-8], rcx; leave; ret; 2:",
		"sub rsp, 128; mov [rsp+120], rax; add rsp, 128", "push rax; push rcx; pop rax; pop rcx",
		"mov [0x20000600], rsp",
		"xor eax, eax; call 1f; inc eax; jmp 2f; 1: dec eax; ret; 2:", "movaps [rsp], xmm2",
		"sub esp, 8", "add sp, 8", "cmp rsp, rbp", "sub rsp, 1");
	for (unsigned n = 0; n < 1500; n++) {
		unsigned want = 2 + xlate_below(&t->rng, 10);
		xlate_begin(&code);
		xlate_loop(&code);
		xlate_put(&code, &head.p[0]);
		for (unsigned k = 0; k < want; k++)
			if (!xlate_put(&code,
				       xlate_any(&t->rng, xlate_below(&t->rng, 2) ? &pushes : &frames)))
				break;
		xlate_end(&code);
		t->setup = n % 4 ? stack : no_page;
		xlate_try(t, &code);
	}
}

/* Two accesses in one instruction, of which the first is slow, over the end of a page; and slow ones between those of a frame. */
static void slow_between(struct insn_test *t)
{
#define SLOW(text)                                                                                                                   \
	LOOP(XLATE_POINTER(                                                                                                          \
		     "rsp") "mov rbp, rsp; mov ebx, 0x20000ffc; mov r12, rbx; mov r10, rbx; lea rsi, [rbx+1]; mov edi, 0x20000800;", \
	     text)
	EACH(SLOW, "push [rbx]; push rax; push rcx; pop rdx",
	     "push [rbx]; mov [rsp-8], rax; mov rcx, [rsp+8]", "pop [rbx]; push rax; pop rcx",
	     "pop [rbx]; pop rax; mov [rsp], rcx", "push [rbx]; pop [rbx+16]; push rdx; mov rax, [rsp]",
	     "push [r12]; push rsp; pop rcx; push rdx", "push [r10]; push r9; mov r11, [rsp+8]",
	     "push rax; mov rcx, [rbx]; push rdx; movups xmm1, [rbx]; pop r8; pop rdx",
	     "mov [rsp-16], rax; mov [rbx], rdx; mov rcx, [rsp-16]; add [rbx], rcx; mov [rsp-8], rcx",
	     "push rax; add [rbx], rax; pop rcx; push rcx; xchg [rbx], rcx; pop rax",
	     "mov [rbp-8], rax; mov rax, [rbx]; mov [rbp-16], rax; movups [rbx], xmm1; mov rcx, [rbp-8]",
	     "mov rdx, [rbp-8]; push [rbx]; mov [rbp-24], rdx; mov rcx, [rbp-16]",
	     "push [rbx]; call 1f; jmp 2f; 1: push rax; pop rdx; ret; 2: pop rcx",
	     "pop [rbx]; call 1f; 1: pop rdx; push rcx; pop r8",
	     "movsq; push rax; stosb; pop rcx; mov rdx, [rsi]",
	     "mov [rsp-64], rsi; mov rcx, [rsp-64]; push [rbx]; mov [rsp-56], rdx; mov r8, [rsp-56]");
	EACH(SLOW, "cmpxchg [rbx], rcx; push rax; push rcx; xadd [rbx], rdx; pop rdx; pop rcx",
	     "fld qword ptr [rbx]; push rax; fstp qword ptr [rbx+8]; pop rcx; push rdx; pop r8",
	     "push [rbx+2]; push [rbx]; push [rbx]; pop rax; pop rcx; pop rdx",
	     "push [rsp+8]; push [rbx]; pop [rsp+8]; pop [rbx]",
	     "mov rax, [rsp]; push [rbx]; add [rsp+8], rax; pop rcx; sub [rsp], rcx");
}

/* --- alignment checks --- */

static void alignment(struct insn_test *t)
{
	t->setup = aligned;
#define A(text) LOOP("dec dword ptr [0x20000300];" XLATE_FLAGS XLATE_FIRST("rbx") "push rdi; popf;", text)
	EACH(A, "mov eax, [rbx]", "mov rax, [rbx]", "mov [rbx], cx", "mov [rbx+1], al", "add [rbx], rdx",
	     "mov rax, [rbx]; mov [rbx+8], eax",
	     "mov al, [rbx]; mov ah, [rbx+1]; mov [rbx+4], ecx; mov rdx, [rbx+8]", "movups xmm0, [rbx]",
	     "push [rbx]; pop rax", "fld qword ptr [rbx]; fstp st(0)",
	     "lea rsp, [rsp+rbx]; sub rsp, rbx; mov rbp, rbx; mov ax, [rbp]", "mov rsi, rbx; lodsw",
	     "movsd xmm1, qword ptr [rbx]", "cmpxchg [rbx], rcx", "movzx eax, word ptr [rbx]",
	     "movaps xmm1, [rbx]");
	t->setup = edges;
}

void family_xlate_mem(struct insn_test *t)
{
	unsigned states = t->states;

	t->setup = edges;
	span = 40;
	integers(t);
	vectors(t);
	if (has_avx512()) {
		span = 80;
		vectors512(t);
		span = 40;
	}
	string_ops(t);
	t->states = MIN(states, 24u);
	registers(t);
	addresses(t);
	alignment(t);
	t->states = MIN(states, 12u);
	span = 64;
	groups(t);
	t->setup = stack;
	t->states = MIN(states, 24u);
	slow_between(t);
	t->states = MIN(states, 8u);
	stacks(t);
	t->setup = NULL;
}
