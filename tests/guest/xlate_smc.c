/* Code that changes while it is warm: every function here has run hundreds of times before its bytes change under it, by its
 * own stores, by those of what it calls or is called by, and by stores that have only half to do with it. What has
 * been written must be executed at the next instruction already [SDM3 11.6: same linear address]. */
#include "lib/guest.h"
#include "lib/emit.h"
#include "lib/restless.h"

/* Built with RESTLESS, all pages whose code changes are such that keep changing. */
#ifdef RESTLESS
#define emit_at(where) (emit_at)(restless(where))
#endif

#define AREA    0x2000000ul
#define SCRATCH 0x3000000ul
#define WARM    400

typedef u64 (*code_fn)(u64 a, u64 b, u64 c);

static u64 call(uptr code, u64 a, u64 b, u64 c)
{
	return ((code_fn)code)(a, b, c);
}

/* --- stores into the code ahead --- */

/* (%rsi) goes to (%rdi). May change RAX, RCX, R8 and vector registers. */
#define STORES(X)                                                                                 \
	X(mov8, 1, "mov (%rsi), %al; mov %al, (%rdi)")                                            \
	X(mov16, 2, "mov (%rsi), %ax; mov %ax, (%rdi)")                                           \
	X(mov32, 4, "mov (%rsi), %eax; mov %eax, (%rdi)")                                         \
	X(mov64, 8, "mov (%rsi), %rax; mov %rax, (%rdi)")                                         \
	X(mov_r9, 8, "mov (%rsi), %r9; mov %rdi, %r10; mov %r9, (%r10)")                          \
	X(bytes, 8,                                                                               \
	  "mov (%rsi), %rax; mov %al, (%rdi); mov %ah, 1(%rdi); shr $16, %rax; mov %ax, 2(%rdi);" \
	  "shr $16, %rax; mov %eax, 4(%rdi)")                                                     \
	X(movnti, 8, "mov (%rsi), %rax; movnti %rax, (%rdi)")                                     \
	X(xchg, 4, "mov (%rsi), %eax; xchg %eax, (%rdi)")                                         \
	X(xadd, 4, "mov (%rsi), %eax; sub (%rdi), %eax; lock xadd %eax, (%rdi)")                  \
	X(add, 8, "mov (%rsi), %rax; sub (%rdi), %rax; add %rax, (%rdi)")                         \
	X(xor, 4, "mov (%rsi), %eax; xor (%rdi), %eax; xor %eax, (%rdi)")                         \
	X(cmpxchg, 8, "mov (%rsi), %rcx; mov (%rdi), %rax; lock cmpxchg %rcx, (%rdi)")            \
	X(push, 8, "mov %rsp, %r8; lea 8(%rdi), %rsp; pushq (%rsi); mov %r8, %rsp")               \
	X(pop, 8, "pushq (%rsi); popq (%rdi)")                                                    \
	X(movss, 4, "movss (%rsi), %xmm0; movss %xmm0, (%rdi)")                                   \
	X(movq, 8, "movq (%rsi), %xmm1; movq %xmm1, (%rdi)")                                      \
	X(movups, 16, "movups (%rsi), %xmm2; movups %xmm2, (%rdi)")                               \
	X(x87, 8, "fildll (%rsi); fistpll (%rdi)")                                                \
	X(movsb, 1, "movsb")                                                                      \
	X(movsq, 8, "movsq")                                                                      \
	X(rep_movsb, 24, "mov $24, %ecx; rep movsb")                                              \
	X(rep_movsq, 16, "mov $2, %ecx; rep movsq")                                               \
	X(stosl, 4, "mov (%rsi), %eax; stosl")
#define STORE_CODE_(name, size, text) \
	__asm__(".pushsection .rodata; store_" #name ": " text "; store_" #name "_end: .popsection");
STORES(STORE_CODE_)
#define STORE_DECLARE_(name, size, text) extern const u8 store_##name[], store_##name##_end[];
STORES(STORE_DECLARE_)

static const struct {
	const char *name;
	const u8 *begin, *end;
	unsigned size;
} stores[] = {
#define STORE_ROW_(name, size, text) { #name, store_##name, store_##name##_end, size },
	STORES(STORE_ROW_)
#undef STORE_ROW_
};

/* The store, fillers, then what it changes: mov $imm, %eax; ret. The address of the immediate. */
static uptr put_ahead(uptr code, unsigned store, unsigned fillers)
{
	emit_at(code);
	emit(stores[store].begin, (unsigned)(stores[store].end - stores[store].begin));
	for (unsigned k = 0; k < fillers; k++)
		emit("\x48\x8d\x52\x01", 4); /* lea 1(%rdx), %rdx */
	emit8(0xb8);
	emit32(0x11111111);
	emit8(0xc3);
	return emit_here() - 5;
}

static unsigned ahead_once(unsigned store, uptr code, unsigned fillers, unsigned before)
{
	static u8 bytes[64];
	uptr imm = put_ahead(code, store, fillers), target = imm - before;
	unsigned bad = 0;

	memset_(bytes, 0x55, sizeof(bytes));
	for (unsigned k = 0; k < WARM; k++)
		bad += call(code, SCRATCH + (k & 1) * 64, (uptr)bytes, 0) != 0x11111111;
	for (u32 n = 1; n < 6; n++) {
		u32 v = n & 1 ? 0x11111122 + n * 0x101 : 0x11111133, covered = stores[store].size - before;
		u32 keep = covered >= 4 ? 0 : ~0u << covered * 8, want = (*(u32 *)imm & keep) | (v & ~keep);

		memcpy_(bytes, (void *)target, sizeof(bytes));
		*(u32 *)(bytes + before) = want;
		bad += call(code, target, (uptr)bytes, 0) != want;
		for (unsigned k = 0; k < n * 40; k++)
			bad += call(code, SCRATCH, (uptr)bytes, 0) != want;
	}
	return bad;
}

static void ahead(void)
{
	static const u8 distances[] = { 0, 1, 2, 7, 30, 62, 70 };
	static const u16 offsets[] = { 0, 0x7c0, 0xf00, 0xfe0, 0xff0, 0xff4, 0xff8 };

	for (unsigned s = 0; s < sizeof(stores) / sizeof(stores[0]); s++) {
		unsigned bad = 0, tried = 0;

		for (unsigned d = 0; d < sizeof(distances); d++)
			for (unsigned o = 0; o < sizeof(offsets) / 2; o += 1 + (d + s) % 2)
				for (unsigned before = 0; before < stores[s].size;
				     before += 1 + stores[s].size / 3, tried++)
					bad += ahead_once(s, AREA + offsets[o], distances[d], before);
		check(!bad, "%s into the code ahead, in %u layouts: %u wrong", stores[s].name, tried, bad);
	}
}

/* A store that changes itself and has no more effect on this execution: mov %dl, (%rdi) becomes mov (%rdi), %dl. */
static void itself(void)
{
	unsigned bad = 0;

	for (unsigned round = 0; round < 20; round++) {
		uptr code = AREA + round * 64;

		emit_at(code);
		emit("\x88\x17\x0f\xb6\xc2\xc3", 6); /* mov %dl, (%rdi); movzbl %dl, %eax; ret */
		for (unsigned k = 0; k < WARM; k++)
			bad += call(code, SCRATCH, 0, k & 0xff) != (k & 0xff);
		bad += call(code, code, 0, 0x8a) != 0x8a;
		*(u8 *)SCRATCH = 0x77;
		for (unsigned k = 0; k < WARM; k++)
			bad += call(code, SCRATCH, 0, k & 0xff) != 0x77;
	}
	check(!bad, "a store that becomes a load: %u wrong", bad);
}

/* Other opcodes ahead: INC, DEC, RET, a jump. */
static void opcodes(void)
{
	static const struct {
		u8 byte[2];
		u32 result;
	} forms[] = {
		{ { 0xff, 0xc0 }, 11 },                               /* inc %eax */
		{ { 0xff, 0xc8 }, 9 },                                /* dec %eax */
		{ { 0x90, 0x90 }, 10 },       { { 0xc3, 0x90 }, 10 }, /* ret */
		{ { 0xeb, 0x05 }, 10 },                               /* jmp over the add */
		{ { 0xf7, 0xd8 }, (u32)-10 }, { { 0xd1, 0xe0 }, 20 }, /* shl %eax */
	};
	unsigned bad = 0;

	for (unsigned from = 0; from < 4096; from += 1021) {
		uptr code = AREA + 0x4000 + from;
		u16 *insn;

		emit_at(code);
		emit("\xb8\x0a\x00\x00\x00\x66\x89\x37", 8); /* mov $10, %eax; mov %si, (%rdi) */
		insn = (u16 *)emit_here();
		emit("\xff\xc0\x48\x83\xc2\x01\x90\xc3", 8); /* inc %eax; add $1, %rdx; nop; ret */
		for (unsigned n = 0; n < 60; n++) {
			unsigned f = n * 5 % 7;
			u16 v = (u16)(forms[f].byte[0] | forms[f].byte[1] << 8);

			bad += (u32)call(code, (uptr)insn, v, 0) != forms[f].result;
			for (unsigned k = 0; k < 60; k++)
				bad += (u32)call(code, SCRATCH, v, 0) != forms[f].result;
		}
	}
	check(!bad, "other opcodes ahead: %u wrong", bad);
}

/* --- callers and callees --- */

/* A loop that puts its counter into an immediate of what it calls, and adds what comes back. */
static u64 patched_callee(uptr loop, uptr callee, u32 n)
{
	emit_at(callee);
	emit8(0xba); /* mov $imm, %edx */
	emit32(0);
	emit8(0xc3);
	emit_at(loop);
	emit("\x31\xc0", 2); /* xor %eax, %eax */
	emit8(0xb9);
	emit32(n);
	uptr again = emit_here();
	emit("\x89\x0c\x25", 3); /* mov %ecx, imm */
	emit32((u32)callee + 1);
	emit_call(callee);
	emit("\x48\x01\xd0\xff\xc9", 5); /* add %rdx, %rax; dec %ecx */
	emit_jcc(0x5, again);
	emit8(0xc3);
	return call(loop, 0, 0, 0);
}

/* The callee puts the counter into an immediate behind the call it returns to. */
static u64 patched_caller(uptr loop, uptr callee, u32 n, unsigned every)
{
	emit_at(loop);
	emit("\x31\xc0", 2);
	emit8(0xb9);
	emit32(n);
	uptr again = emit_here();
	emit_call(callee);
	emit8(0xba);
	uptr imm = emit_here();
	emit32(0);
	emit("\x48\x01\xd0\xff\xc9", 5);
	emit_jcc(0x5, again);
	emit8(0xc3);
	emit_at(callee);
	emit("\xf6\xc1", 2); /* test $every - 1, %cl */
	emit8((u8)(every - 1));
	emit("\x75\x07\x89\x0c\x25", 5); /* jnz over; mov %ecx, imm */
	emit32((u32)imm);
	emit8(0xc3);
	return call(loop, 0, 0, 0);
}

static void calls(void)
{
	static const u32 places[] = { 0x28, 0x40, 0x800, 0xffc, 0xffe, 0x1000, 0x1ffb, 0x5000, 0x203000 };
	const u32 n = 3000;

	for (unsigned k = 0; k < sizeof(places) / 4; k++) {
		uptr loop = AREA + 0x10000, callee = loop + places[k];
		u64 sum = patched_callee(loop, callee, n);

		check(sum == (u64)n * (n + 1) / 2, "a callee at +%x changed before each of %u calls: %llu",
		      places[k], n, (unsigned long long)sum);
		for (unsigned every = 1; every <= 64; every *= 8) {
			u64 want = 0;
			u32 v = 0;

			for (u32 c = n; c; c--) {
				v = c & (every - 1) ? v : c;
				want += v;
			}
			sum = patched_caller(loop, callee, n, every);
			check(sum == want, "the caller of +%x changed before one of %u returns: %llu",
			      places[k], every, (unsigned long long)sum);
		}
	}
}

/* Branches that are linked to their targets get other ones; targets become something else. */
static void branches(void)
{
	uptr loop = AREA + 0x20000, a = AREA + 0x20800, b = AREA + 0x22000;
	unsigned bad = 0;

	for (unsigned how = 0; how < 4;
	     how++) { /* jmp, call and ret, jcc, a jcc that changes its condition */
		uptr field, back;

		emit_at(loop); /* %rdi times; %eax counts */
		emit("\x31\xc0", 2);
		back = emit_here();
		if (how == 1)
			emit_call(a);
		else if (how == 0)
			emit_jmp(a);
		else
			emit_jcc(0x5, a); /* jnz: %rdi is not 0 */
		field = emit_here() - 4;
		uptr next = emit_here();
		emit("\x48\xff\xcf", 3); /* dec %rdi */
		emit_jcc(0x5, back);
		emit8(0xc3);
		for (unsigned k = 0; k < 2; k++) {
			emit_at(k ? b : a);
			emit("\x83\xc0", 2); /* add $1 or $100, %eax */
			emit8(k ? 100 : 1);
			emit("\x48\x85\xff", 3); /* test %rdi, %rdi */
			if (how == 1)
				emit8(0xc3);
			else
				emit_jmp(next);
		}
		for (unsigned n = 1; n < 200; n++) {
			unsigned other = n % 3 == 0, condition = how == 3 && n % 2;

			*(volatile int *)field = (int)((other ? b : a) - next);
			if (how == 3)
				*(volatile u8 *)(field - 1) = condition ? 0x84 : 0x85; /* jz is not taken */
			/* ZF: of emit's TEST or of DEC; at the start it is that of XOR: set */
			u32 want = how < 2 ? n * (other ? 100 : 1) : (n - 1) * (other ? 100 : 1);
			if (condition)
				want = other ? 100 : 1; /* the first time only */
			bad += (u32)call(loop, n, 0, 0) != want;
		}
		/* the target returns at once, or goes on to the other one */
		*(volatile int *)field = (int)(a - next);
		if (how == 3)
			*(volatile u8 *)(field - 1) = 0x85;
		bad += (u32)call(loop, 500, 0, 0) != (how < 2 ? 500 : 499);
		emit_at(a);
		emit_jmp(b);
		bad += (u32)call(loop, 500, 0, 0) != (how < 2 ? 50000 : 49900);
		emit_at(a);
		emit("\xff\xc0\xc3", 3);
		bad += (u32)call(loop, 500, 0, 0) != (how == 1 ? 500 : 1);
	}
	check(!bad, "branches with other targets, targets with other code: %u wrong", bad);
}

/* --- data beside code --- */

/* Counters around a loop: before it, in its own 64 bytes, behind it; and its stack. */
static void beside(void)
{
	static const int at[] = { -0x200, -8, 0x20, 0x38, 0x3c, 0x100, 0xd00, 0xdfc };
	unsigned bad = 0;

	for (unsigned k = 0; k < sizeof(at) / 4; k++) {
		uptr loop = AREA + 0x30200;
		u64 *counter = (u64 *)(loop + (uptr)(long)at[k]);

		*counter = 0;
		emit_at(loop);
		uptr again = emit_here();
		emit("\x48\x83\x04\x25", 4); /* addq $3, counter */
		emit32((u32)(uptr)counter);
		emit8(3);
		emit("\x48\x8b\x04\x25", 4); /* mov counter, %rax */
		emit32((u32)(uptr)counter);
		emit("\x48\xff\xcf", 3);
		emit_jcc(0x5, again);
		emit8(0xc3);
		bad += call(loop, 5000, 0, 0) != 15000;
		bad += *counter != 15000;
	}
	check(!bad, "a counter in the page of its loop: %u wrong", bad);

	/* mov %rdx -> %rsp; loop: push, call, pop, ret: all in the page of the code */
	uptr code = AREA + 0x31000, callee = code + 0x80;

	emit_at(callee);
	emit("\x48\x8b\x04\x24\x48\x01\x44\x24\x08\xc3", 10); /* mov (%rsp), %rax; add %rax, 8(%rsp); ret */
	emit_at(code);
	emit("\x49\x89\xe0\x48\x89\xd4", 6); /* mov %rsp, %r8; mov %rdx, %rsp */
	uptr again = emit_here();
	emit("\x57", 1); /* push %rdi */
	emit_call(callee);
	uptr ret = emit_here();
	emit("\x59\x48\x01\xce\x48\xff\xcf", 7); /* pop %rcx; add %rcx, %rsi; dec %rdi */
	emit_jcc(0x5, again);
	emit("\x4c\x89\xc4\x48\x89\xf0\xc3", 7); /* mov %r8, %rsp; mov %rsi, %rax; ret */
	for (unsigned n = 1; n <= 2000; n += 333)
		bad += call(code, n, 0, code + 0x400 + (n & 0x700)) != (u64)n * (n + 1) / 2 + n * ret;
	check(!bad, "a stack in the page of its code: %u wrong", bad);
}

/* Code on the stack: written by PUSH, executed, written over. %rdi rounds; the sum of what the code returned. */
__asm__(".text\n"
	"on_stack: xor %edx, %edx; movabs $0x9090c300000000b8, %rsi\n" /* mov $imm, %eax; ret; nop; nop */
	"1: mov %rdi, %rax; shl $8, %rax; or %rsi, %rax; push %rax; mov %rsp, %rcx; call *%rcx; pop %rcx; add %rax, %rdx; dec %rdi; jnz 1b;"
	"mov %rdx, %rax; ret\n"
	/* the same by stores around a frame, and the code is called twice */
	"in_frame: push %rbp; mov %rsp, %rbp; sub $64, %rsp; xor %edx, %edx; movl $0xc3, -20(%rbp); movb $0xb8, -25(%rbp)\n"
	"1: mov %edi, -24(%rbp); lea -25(%rbp), %rcx; call *%rcx; add %rax, %rdx; push %rdi; call *%rcx; pop %rdi; add %rax, %rdx; dec %rdi; jnz 1b;"
	"mov %rdx, %rax; leave; ret\n");
extern const u8 on_stack[], in_frame[];

static void stack_code(void)
{
	unsigned bad = 0;

	for (u64 n = 1; n < 3000; n += 299) {
		bad += call((uptr)on_stack, n, 0, 0) != n * (n + 1) / 2;
		bad += call((uptr)in_frame, n, 0, 0) != n * (n + 1);
	}
	check(!bad, "code on the stack: %u wrong", bad);
}

/* Stores over the end of a page of data into one of code, and the other way round. */
static void across(void)
{
	unsigned bad = 0, tried = 0;

	for (unsigned s = 0; s < sizeof(stores) / sizeof(stores[0]); s++) {
		uptr store = AREA + 0x40000, code = AREA + 0x42000;

		if (stores[s].size < 2)
			continue;
		emit_at(store);
		emit(stores[s].begin, (unsigned)(stores[s].end - stores[s].begin));
		emit8(0xc3);
		for (unsigned front = 0; front < 2; front++)
			for (unsigned over = 1; over < stores[s].size; over++, tried++) {
				/* front: the last `over` bytes of the store are the first of the code's page; else its
				 * first bytes are the last of the code's page, where the code ends. */
				uptr fn = front ? code : code + 4096 - 6;
				uptr target = front ? code - (stores[s].size - over) : code + 4096 - over;
				u8 bytes[64], was;

				emit_at(fn);
				emit("\xb8\x44\x33\x22\x11\xc3", 6);
				for (unsigned k = 0; k < WARM / 4; k++) {
					bad += call(fn, 0, 0, 0) != 0x11223344;
					call(store, SCRATCH, SCRATCH + 64, 0);
				}
				memcpy_(bytes, (void *)target, sizeof(bytes));
				/* the immediate's bytes are 1 to 4 of the function */
				uptr byte =
					front ? (over < 2 ? 0 : code + 1) : (over < 2 ? 0 : code + 4096 - 2);
				if (!byte)
					continue;
				was = bytes[byte - target];
				for (u32 n = 1; n < 20; n++) {
					unsigned shift = (unsigned)(byte - fn - 1) * 8;
					u32 want = (0x11223344 & ~(0xffu << shift)) | (u32)(u8)(was + n)
											      << shift;

					bytes[byte - target] = (u8)(was + n);
					call(store, target, (uptr)bytes, 0);
					bad += call(fn, 0, 0, 0) != want;
					bad += call(fn, 0, 0, 0) != want;
				}
			}
	}
	check(!bad, "stores over the end of a page, in %u layouts: %u wrong", tried, bad);

	/* An instruction over the end of a page; each of its bytes changes. */
	bad = 0;
	for (unsigned in_first = 1; in_first < 10; in_first++) {
		uptr fn = AREA + 0x52000 - in_first;
		u64 want = 0x1122334455667788;

		emit_at(fn);
		emit("\x48\xb8", 2);
		emit32((u32)want);
		emit32((u32)(want >> 32));
		emit8(0xc3);
		for (unsigned k = 0; k < WARM; k++)
			bad += call(fn, 0, 0, 0) != want;
		for (unsigned b = 0; b < 8; b++) {
			want ^= 0x5aull << b * 8;
			*(volatile u8 *)(fn + 2 + b) ^= 0x5a;
			for (unsigned k = 0; k < 40; k++)
				bad += call(fn, 0, 0, 0) != want;
		}
	}
	check(!bad, "an instruction over the end of a page: %u wrong", bad);
}

/* Whole pages of code replaced, at once and in parts. */
static void pages(void)
{
	unsigned bad = 0;

	for (u32 round = 0; round < 40; round++) {
		uptr from = SCRATCH + 0x10000, to = AREA + 0x60000;

		for (unsigned k = 0; k < 8192; k += 32) {
			emit_at(from + k);
			emit8(0xb8);
			emit32(round << 16 | k);
			if (k & 32 && k < 8160)
				emit("\x83\xc0\x01\xeb\x16", 5); /* add $1, %eax; jmp to the next */
			else
				emit8(0xc3);
		}
		if (round & 1)
			memcpy_((void *)to, (void *)from, 8192);
		else
			for (unsigned k = 0; k < 8192; k += 8)
				*(volatile u64 *)(to + k) = *(u64 *)(from + k);
		for (unsigned turn = 0; turn < 12; turn++)
			for (unsigned k = 0; k < 8192; k += 32) {
				u32 last = k & 32 && k < 8160 ? k + 32 : k;
				bad += call(to + k, 0, 0, 0) != (round << 16 | last);
			}
	}
	check(!bad, "two pages of code replaced 40 times: %u wrong", bad);
}

void guest_main(void)
{
	cli();
	ahead();
	itself();
	opcodes();
	calls();
	branches();
	beside();
	stack_code();
	across();
	pages();
}
