/* Flags in code that runs often: what sets them, what leaves them alone in between (memory accesses of all kinds, calls,
 * shifts by 0, overwritten sources), what reads them, in all combinations. In the last round a memory access may
 * fault in between; then the flags at the fault are compared, otherwise what was read goes into R14. */
#include "xlate.h"

static struct xlate_code code;
static struct xlate_pieces head, set, keep, use, partial;

/* RBX is the pointer and R14 the sum; all others are operands. */
static void state(struct insn_rng *r, struct insn_state *s)
{
	struct xlate_words w = { .rounds = xlate_rounds(r), .warm = xlate_inside(r, 64) };

	w.last = xlate_below(r, 2) ? xlate_edge(r, 64) : w.warm;
	if (xlate_below(r, 3) == 0)
		w.toggle = 0x1000;
	else if (xlate_below(r, 6) == 0)
		w.warm = INSN_DATA + 0x1000 - xlate_below(r, 64);
	w.warm2 = w.last2 = INSN_STACK;
	if (xlate_below(r, 6) == 0) { /* the stack's end; not also RBX there, over a return address */
		w.last2 = xlate_edge(r, 64) + xlate_below(r, 48);
		w.warm = w.last = xlate_inside(r, 64);
		w.toggle = 0;
		if (w.last2 - w.last + 512 < 1024)
			w.last2 = INSN_STACK;
	}
	xlate_set_words(s, &w);
}

static void setters(struct xlate_pieces *l)
{
	EACH_IN(l, "add rax, rdx", "add eax, ecx", "add al, dl", "add r9, r10", "add ax, 0x7fff",
		"adc rax, rcx", "sub rdx, rax", "sub r8d, r11d", "sub cl, al", "sbb rax, rdx", "cmp rax, rcx",
		"cmp ecx, edx", "cmp r10b, al", "cmp rdx, -1", "cmp ax, 0", "neg rax");
	EACH_IN(l, "neg r9d", "and rax, rdx", "and r8b, 0x81", "or rcx, rax", "or r9d, r10d", "xor rax, rcx",
		"xor edx, edx", "test rax, rax", "test al, 0x80", "test r9, rdx", "imul rax, rcx",
		"imul r9d, edx, 1000", "mul rdx", "imul cl", "shl rax, 1", "shl ecx, 5");
	EACH_IN(l, "shr rdx, 1", "shr r9, 31", "sar rax, 3", "sar r8d, 1", "shl rax, cl", "shr r10w, cl",
		"rol rax, 1", "ror ecx, 7", "rol r9b, cl", "rcl rax, 1", "rcr rdx, 1", "rcl r8d, cl",
		"shld rax, rdx, 7", "shrd r9, rcx, 1", "bt rax, rcx", "bt rdx, 5");
	EACH_IN(l, "bts r9, rdx", "btr eax, 3", "bsf rax, rcx", "bsr r9d, edx", "xadd rax, rcx",
		"xadd r9b, al", "cmpxchg rcx, rdx", "cmpxchg r10d, r9d", "inc rax", "dec ecx", "inc r9b",
		"dec r10w", "stc", "clc", "cmc", "sahf");
	/* a register with itself or with a part of itself, RSP, high bytes */
	EACH_IN(l, "add rax, rax", "add r9d, r9d", "sub rdx, rdx", "adc rcx, rcx", "sbb r8, r8",
		"and rdx, rdx", "or r10, r10", "cmp rax, rax", "test r9, r9", "add al, ah", "sub ah, al",
		"add ch, ch", "cmp dh, cl", "test ah, 0x41", "and ch, dl", "neg dh");
	EACH_IN(l, "cmp rsp, rdx", "test rsp, rsp", "sub rsp, 32; lea rsp, [rsp+32]",
		"add rsp, 16; lea rsp, [rsp-16]", "cmp rdx, rsp", "xor ah, ah", "inc ch", "shl ah, 3",
		"xadd cl, ch", "xadd rdx, rdx", "cmp ax, cx", "sub ax, 1", "add dx, dx", "imul rdx, rdx",
		"cmp r12, r13", "sub r10b, r9b");
	/* with memory */
	EACH_IN(l, "add rax, [rbx]", "add [rbx+8], rdx", "sub ecx, [rbx+4]", "sub byte ptr [rbx], 3",
		"adc [rbx+16], rax", "sbb r9, [rbx+8]", "cmp rax, [rbx]", "cmp [rbx+8], r10d",
		"cmp byte ptr [rbx+3], 0x40", "and [rbx], r9", "or eax, [rbx+12]",
		"xor qword ptr [rbx+24], -7", "test [rbx+8], rdx", "test dword ptr [rbx], 0x80000001",
		"inc dword ptr [rbx+4]", "dec qword ptr [rbx+8]");
	EACH_IN(l, "neg word ptr [rbx+2]", "shl qword ptr [rbx], 1", "sar dword ptr [rbx+4], cl",
		"rcr byte ptr [rbx], 1", "rol word ptr [rbx+6], 3", "shld [rbx], rax, 5", "imul rax, [rbx+8]",
		"mul dword ptr [rbx]", "bt qword ptr [rbx], 33", "btc dword ptr [rbx+4], 9",
		"xadd [rbx], rax", "cmpxchg [rbx+8], rcx", "lock xadd [rbx+16], edx", "lock cmpxchg8b [rbx]",
		"lock sub [rbx+4], eax", "bsf rcx, [rbx+8]");
	EACH_IN(l, "mov rsi, rbx; lea rdi, [rbx+32]; cmpsb", "mov rdi, rbx; scasd",
		"mov rsi, rbx; lea rdi, [rbx+8]; mov ecx, 3; repe cmpsw",
		"mov rdi, rbx; mov ecx, 5; repne scasb", "mov edi, 0x8d5; and rdi, rax; push rdi; popf",
		"comiss xmm0, xmm1", "ucomisd xmm2, qword ptr [rbx]", "fninit; fld1; fldpi; fcomip st, st(1)",
		"adc al, [rbx]; inc rdx");
	if (insn_has(X86_FEATURE_POPCNT))
		EACH_IN(l, "popcnt rax, rcx", "popcnt edx, [rbx]");
	if (insn_has(X86_FEATURE_ABM) && insn_has(X86_FEATURE_BMI1) && insn_has(X86_FEATURE_BMI2))
		EACH_IN(l, "lzcnt rax, rdx", "tzcnt r9d, ecx", "tzcnt rax, [rbx]", "andn rax, rcx, rdx",
			"blsr r9, r10", "blsi eax, [rbx]", "bextr rax, rcx, rdx", "bzhi r9d, eax, ecx",
			"blsmsk rdx, rax");
	if (insn_has(X86_FEATURE_ADX))
		EACH_IN(l, "adcx rax, rcx", "adox r9, rdx", "adcx ecx, [rbx]; adox rax, [rbx+8]");
	if (insn_has(X86_FEATURE_SSE4_1))
		EACH_IN(l, "ptest xmm0, xmm1", "ptest xmm3, [rbx]");
}

/* Nothing here changes a flag; some take away what the flags came from. */
static void keepers(struct xlate_pieces *l)
{
	EACH_IN(l, "mov rax, [rbx]", "mov [rbx+8], rax", "mov cl, [rbx+1]", "mov [rbx+3], ah",
		"mov [rbx+16], r9d", "movzx edx, word ptr [rbx+2]", "movsx rax, byte ptr [rbx+5]",
		"movsxd r9, dword ptr [rbx]", "mov qword ptr [rbx+24], 77", "xchg [rbx], rcx",
		"not dword ptr [rbx+4]", "push rdx; pop r10", "push [rbx]; pop [rbx+8]",
		"lea rax, [rax+rdx*2+9]", "movups xmm1, [rbx]", "movups [rbx+16], xmm2");
	EACH_IN(l, "mov rax, 0", "mov edx, -1", "mov rcx, 0x5555", "mov rax, rdx; mov rdx, rcx", "bswap rax",
		"not rdx", "xchg rax, r9", "nop", "mov ecx, 32; shl eax, cl", "mov ecx, 64; shr rdx, cl",
		"mov ecx, 0; sar byte ptr [rbx], cl", "mov ecx, 0; rol r9, cl", "mov ecx, 0; rcr rax, cl",
		"shl rax, 0", "mov ecx, 32; shld [rbx+8], edx, cl", "mov ecx, 0; shrd rax, rdx, cl");
	EACH_IN(l,
		"call 1f; jmp 2f; 1: ret; 2:", "call 1f; jmp 2f; 1: mov rax, [rsp]; mov [rbx], rax; ret; 2:",
		"jmp 1f; ud2; 1:", "call 1f; 1: pop rdx",
		"lea rdx, [rip+1f]; jmp rdx; 1:", "lea rdx, [rip+1f]; push rdx; ret; 1:",
		"lea rdx, [rip+1f]; mov [0x20000600], rdx; jmp [0x20000600]; 1:",
		"lea rdx, [rip+1f]; call rdx; 1: pop r10",
		"jrcxz 1f; mov rdx, [rbx]; 1:", "mov ecx, 3; 1: mov rax, [rbx+rcx*8]; loop 1b", "pushf; popf",
		"pushf; pop r10; push r10; popf", "lahf; sahf",
		"push rax; push rcx; mov rax, [rsp+8]; lea rsp, [rsp+16]", "cld",
		"mov rsi, rbx; lea rdi, [rbx+8]; movsb; lodsd; stosq");
	EACH_IN(l, "mov rsi, rbx; mov rdi, rbx; mov ecx, 3; rep movsq", "mov rdi, rbx; mov ecx, 0; rep stosb",
		"mov rdi, rbx; mov ecx, 0; repe cmpsb", "enter 16, 0; mov [rbp-8], rax; leave",
		"push rbp; mov rbp, rsp; lea rsp, [rsp-32]; mov [rbp-16], rdx; leave",
		"mov rax, rsp; mov r9, [rax]", "fld qword ptr [rbx]; fstp qword ptr [rbx+8]", "fnstsw ax",
		"stmxcsr [rbx]", "cvtsi2sd xmm1, rax; cvttsd2si rcx, xmm1",
		"paddd xmm1, [rbx+16]; movd eax, xmm1", "movq r9, xmm0; movq [rbx], xmm1",
		"mov rdx, gs:[0x100]; mov gs:[0x108], rdx", "mov rax, [rip+0x10000100]", "mov al, 3; xlatb",
		"setc al; setz [rbx+9]");
	EACH_IN(l, "cmovc rax, rdx; cmovs r9d, [rbx]", "jc 1f; mov rdx, [rbx]; 1:",
		"jnz 1f; mov [rbx+8], rcx; 1:", "js 1f; call 2f; jmp 1f; 2: ret; 1:",
		"mov rax, [rbx]; mov rcx, [rbx+8]; mov rdx, [rbx+16]; mov [rbx+24], rax",
		"mov r11, [0x20000608]; mov [0x20000610], r11");
	EACH_IN(l, "lea rax, [rax+8]", "lea rdx, [rdx-1]", "lea rcx, [rcx+rcx]", "lea ecx, [rcx+4]",
		"push rax", "pop rdx", "push rax; push rcx; pop rax; pop rcx", "lea rsp, [rsp-8]",
		"lea rsp, [rsp+8]", "mov ah, [rbx+2]", "mov [rbx+7], ch", "mov r8, rsp", "mov dh, al",
		"mov cl, 7", "movzx eax, ah", "xchg al, ah");
	EACH_IN(l, "rdtsc; mov eax, 5; mov edx, 9", "mov ecx, ds", "mov r9, ss", "mov edx, gs");
	if (insn_has(X86_FEATURE_BMI2))
		EACH_IN(l, "rorx rax, [rbx], 5", "shlx rdx, rax, rcx", "mulx r9, r10, [rbx+8]",
			"pdep rax, rcx, rdx", "sarx eax, [rbx], ecx");
	if (insn_has(X86_FEATURE_MOVBE))
		EACH_IN(l, "movbe rax, [rbx+8]", "movbe [rbx], edx");
	if (insn_has(X86_FEATURE_AVX))
		EACH_IN(l, "vmovups ymm1, [rbx]", "vaddps ymm2, ymm1, [rbx+32]",
			"vpextrq rax, xmm1, 1; vmovq [rbx], xmm2");
}

/* They change some flags and leave others, or read what they write. */
static void partials(struct xlate_pieces *l)
{
	EACH_IN(l, "inc rax", "dec rcx", "inc byte ptr [rbx]", "dec dword ptr [rbx+4]", "rol rax, 1",
		"ror rdx, 5", "rol qword ptr [rbx], 1", "bt rax, 7", "bts qword ptr [rbx+8], 3", "stc", "clc",
		"cmc", "sahf", "std; cld", "cmpxchg8b [rbx]", "mov cl, 1; rcl rdx, cl");
	EACH_IN(l, "mov ecx, 3; bts dword ptr [rbx+8], ecx", "mov ecx, 77; btr [rbx], rcx",
		"mov rcx, -3; btc [rbx+8], rcx");
	EACH_IN(l, "adc rax, 0", "sbb rdx, rdx", "adc [rbx+8], ecx", "sbb byte ptr [rbx], 0", "rcl eax, 1",
		"rcr qword ptr [rbx], 1", "mov cl, 9; rcr word ptr [rbx+2], cl", "lahf; xor ah, 0x41; sahf",
		"pushf; xor qword ptr [rsp], 0x881; popf", "shl edx, cl", "sar qword ptr [rbx+8], cl");
	if (insn_has(X86_FEATURE_ADX))
		EACH_IN(l, "adcx rax, rdx", "adox rcx, rax", "adcx rax, [rbx]; adox rdx, [rbx+8]");
}

#define SUM       "lea r14, [r14+r14*2];"
#define JCC(cc)   "j" cc " 1f; lea r14, [r14+5]; 1: lea r14, [r14+r14*2]"
#define SETCC(cc) "set" cc " r15b; movzx r15d, r15b; lea r14, [r14+r14*2]; lea r14, [r14+r15]"
#define SETMEM(cc)             \
	"mov r15, r14; set" cc \
	" [rbx+33]; movzx r15d, byte ptr [rbx+33]; lea r14, [r14+r14*4]; lea r14, [r14+r15]"
#define CMOV(cc) "lea r15, [r14+r14*2]; cmov" cc " r14, r15; cmov" cc " r14d, [0x20000618]"
/* A condition takes two bytes of code or six. */
#define FAR(cc) "j" cc " 1f; lea r14, [r14+7]; jmp 2f; .fill 128, 1, 0x90; 1: lea r14, [r14+r14*8]; 2:"
#define CONDITIONS(l, m)                                                                                \
	EACH_IN(l, m("o"), m("no"), m("b"), m("ae"), m("z"), m("nz"), m("be"), m("a"), m("s"), m("ns"), \
		m("p"), m("np"), m("l"), m("ge"), m("le"), m("g"))

static void users(struct xlate_pieces *l)
{
	CONDITIONS(l, JCC);
	CONDITIONS(l, SETCC);
	CONDITIONS(l, CMOV);
	EACH_IN(l, SETMEM("o"), SETMEM("b"), SETMEM("z"), SETMEM("be"), SETMEM("s"), SETMEM("p"), SETMEM("l"),
		SETMEM("g"));
	EACH_IN(l, "pushf; pop r15; " SUM "add r14, r15",
		"lahf; mov [0x20000640], ah; movzx r15d, byte ptr [0x20000640]; " SUM
		"lea r14, [r14+r15]; seto r15b; mov [0x20000620], r15b",
		"adc r14, r14", "sbb r14, r15", "rcl r14, 1", "rcr r14, 3",
		"mov ecx, 2; loope 1f; lea r14, [r14+3]; 1:",
		"mov ecx, 2; loopne 1f; lea r14, [r14+3]; 1: " SUM "nop", "cmc; adc r14, 7",
		"inc r14; adc r14, r14", "mov ecx, 0; shl r15, cl; adc r14, r14",
		"adc byte ptr [0x20000628], 3; mov r15, [0x20000628]; add r14, r15",
		"jz 1f; js 2f; lea r14, [r14+9]; 1: lea r14, [r14+11]; 2: jc 3f; " SUM "3: nop",
		"seta al; setl dl; movzx eax, al; movzx edx, dl; lea r14, [r14+rax*2]; lea r14, [r14+rdx*4]",
		"pushf; pop [0x20000630]; mov r15, [0x20000630]; " SUM "xor r14, r15",
		"setc r15b; neg r15b; sbb r14, 3; jo 1f; lea r14, [r14+1]; 1:");
	EACH_IN(l, FAR("b"), FAR("z"), FAR("g"), FAR("o"));
}

/* Gives the operands other values in each round, some of them small or equal. */
#define STIR                                                                                                                                         \
	"mov rax, 0x5851f42d4c957f2d; imul r13, rax; add r13, r12; mov rax, r13; mov rcx, r13; shr rcx, 30; mov rdx, rax; ror rdx, 23; mov r9, rdx;" \
	"xor r9, rcx; bt r13, 50; sbb r10, r10; and r10, rax; mov r11, rdx; bt r13, 51; cmovc rcx, rax; bt r13, 52; cmovc edx, r10d;"                \
	"bt r13, 53; sbb r8, r8; and r8d, 0x7f; bt r13, 54; sbb rsi, rsi; or rax, rsi;"

static void one(struct insn_test *t, unsigned nr_keep, const struct xlate_piece *setter,
		const struct xlate_piece *user)
{
	bool more = false;

	xlate_begin(&code);
	xlate_loop(&code);
	xlate_put(&code, &head.p[xlate_below(&t->rng, head.n)]);
	xlate_put(&code, setter ? setter : xlate_any(&t->rng, &set));
	do {
		for (unsigned k = 0; k < nr_keep; k++)
			xlate_put(&code, xlate_any(&t->rng, xlate_below(&t->rng, 6) ? &keep : &partial));
		xlate_put(&code, user ? user : xlate_any(&t->rng, &use));
		user = NULL;
		more = nr_keep && xlate_below(&t->rng, 3) == 0;
	} while (more && code.len < INSN_MAX_CODE - 256);
	xlate_end(&code);
	xlate_try(t, &code);
}

/* TF or DF, set by POPF in the last round only. TF: the trap comes after the instruction behind POPF. */
static void trap(struct insn_rng *r, struct insn_state *s)
{
	struct xlate_words w = { .rounds = xlate_rounds(r), .warm = xlate_inside(r, 64) };

	w.last = xlate_below(r, 4) ? w.warm : xlate_edge(r, 64);
	w.last_flags = insn_rnd(r) & (FL_ARITH | FL_DF);
	w.flags = insn_rnd(r) & FL_ARITH;
	if (xlate_below(r, 4))
		w.last_flags |= FL_TF;
	xlate_set_words(s, &w);
	s->gpr[R_CX] = xlate_below(r, 5);
	s->gpr[R_9] = xlate_below(r, 5);
}

#define TRAP(insns)                                                                              \
	do {                                                                                     \
		set.n = 0;                                                                       \
		PIECE(&set, XLATE_ROUND XLATE_FLAGS XLATE_FIRST(                                 \
				    "rbx") "mov rsi, rbx; push rdi; mov rdi, rbx; popf;" insns); \
		xlate_begin(&code);                                                              \
		xlate_put(&code, &set.p[0]);                                                     \
		xlate_end(&code);                                                                \
		xlate_try(t, &code);                                                             \
	} while (0)

static void traps(struct insn_test *t)
{
	t->setup = trap;
	EACH(TRAP, "add rax, rdx; inc rax", "mov rax, [rbx]; mov [rbx+8], rax; mov rdx, [rbx+16]",
	     "mov [rbx], rax; add [rbx+8], rdx", "jmp 1f; ud2; 1: inc rax",
	     "call 1f; jmp 2f; 1: ret; 2: inc rdx", "jc 1f; inc rax; 1: inc rdx",
	     "mov ecx, 3; rep movsb; inc rax", "movsq; lodsb; stosd", "push rax; pop rdx; nop",
	     "pushf; pop rax; nop", "movups xmm1, [rbx]; movups [rbx+16], xmm1",
	     "lea rdx, [rip+1f]; jmp rdx; nop; 1: inc rax",
	     "mov ecx, r9d; jrcxz 1f; inc rax; 1: loop 2f; inc rdx; 2: nop", "fld1; fstp st(0); nop",
	     "lea rdx, [rip+1f]; push rdx; ret; nop; 1: inc rax", "inc dword ptr [rbx]; cmpsb; scasw");
}

void family_xlate_flags(struct insn_test *t)
{
	unsigned states = t->states;

	head.n = set.n = keep.n = use.n = partial.n = 0;
	PIECE(&head, XLATE_POINTER("rbx") XLATE_SECOND("rsp") STIR);
	PIECE(&head, XLATE_POINTER("rbx") XLATE_SECOND("rsp") STIR "stc");
	PIECE(&head, XLATE_POINTER("rbx") XLATE_SECOND("rsp") STIR "cmp rax, rdx");
	setters(&set);
	keepers(&keep);
	partials(&partial);
	users(&use);
	t->setup = state;
	t->states = MIN(states, 2u);
	for (unsigned s = 0; s < set.n; s++)
		for (unsigned u = 0; u < use.n; u++)
			one(t, 0 + xlate_below(&t->rng, 3), &set.p[s], &use.p[u]);
	t->states = MIN(states, 4u);
	for (unsigned n = 0; n < 4000; n++)
		one(t, 1 + xlate_below(&t->rng, 5), NULL, NULL);
	traps(t);
	t->setup = NULL;
}
