/* Two processors run warm code on the same memory: every LOCKed operation, inside of a line and over its end; locks made from them and from plain stores with fences; code that one changes and the other executes; a page of code
 * that one maps elsewhere. And LOCKed operations over the end of a page that fault. */
#include "lib/emit.h"
#include "lib/smp.h"

#define AREA   0x2000000ul
#define WINDOW 0x40000000ul
#define ROUNDS 30000ul

static u8 shared[3 * 4096] __attribute__((aligned(4096)));
static volatile u32 go, arrived;

/* --- loops --- */

/* RSI rounds on (%rdi); RDX is the processor. RAX: a sum. R9 counts. */
#define OPS(X)                                                                                       \
	X(inc, 8, "lock incq (%rdi)")                                                                \
	X(dec, 4, "lock decl (%rdi)")                                                                \
	X(add, 4, "lock addl $3, (%rdi)")                                                            \
	X(add_register, 8, "mov $0x123456789, %r8; lock add %r8, (%rdi)")                            \
	X(sub, 2, "lock subw $5, (%rdi)")                                                            \
	X(adc, 8, "stc; lock adcq $2, (%rdi)")                                                       \
	X(sbb, 4, "stc; lock sbbl $0, (%rdi)")                                                       \
	X(byte, 1, "lock incb (%rdi)")                                                               \
	X(xadd, 8, "mov $1, %r8d; lock xadd %r8, (%rdi); add %r8, %rax")                             \
	X(xadd32, 4, "mov $1, %r8d; lock xadd %r8d, (%rdi); add %r8, %rax")                          \
	X(xadd_r10, 8, "mov %rdi, %r11; mov $1, %r10d; lock xadd %r10, (%r11); add %r10, %rax")      \
	X(cmpxchg, 8, "2: mov (%rdi), %rax; lea 1(%rax), %r8; lock cmpxchg %r8, (%rdi); jne 2b")     \
	X(cmpxchg32, 4, "mov (%rdi), %eax; 2: lea 1(%rax), %r8d; lock cmpxchg %r8d, (%rdi); jne 2b") \
	X(cmpxchg8b, 8,                                                                              \
	  "mov (%rdi), %eax; mov 4(%rdi), %edx; 2: mov %eax, %ebx; mov %edx, %ecx; add $1, %ebx;"    \
	  "adc $0, %ecx; lock cmpxchg8b (%rdi); jne 2b")                                             \
	X(neg, 8, "lock negq (%rdi)")                                                                \
	X(not, 4, "lock notl (%rdi)")
#define OP_CODE_(name, size, text)                                                                    \
	__asm__(".text\nop_" #name ": push %rbx; xor %eax, %eax; mov %rsi, %r9; 1: " text             \
		"; dec %r9; jnz 1b; pop %rbx; ret\nop_" #name "_once: push %rbx; mov $1, %r9d; " text \
		"; pop %rbx; ret\n");
OPS(OP_CODE_)
typedef u64 (*op_fn)(void *p, u64 rounds, u64 processor);
#define OP_DECLARE_(name, size, text) u64 op_##name(void *p, u64 rounds, u64 processor);
OPS(OP_DECLARE_)

static const struct {
	const char *name;
	op_fn fn;
	unsigned size;
} ops[] = {
#define OP_ROW_(name, size, text) { #name, op_##name, size },
	OPS(OP_ROW_)
};
#define NR_OPS (sizeof(ops) / sizeof(ops[0]))

/* What must hold of the data behind the place in the end; RAX: errors seen on the way. */
#define LOCKS(X)                                                                                                                       \
	X(bts,                                                                                                                         \
	  "2: lock btsl $3, (%rdi); jc 3f; incq 128(%rdi); lock btrl $3, (%rdi); jmp 4f; 3: pause; jmp 2b; 4:")                        \
	X(xchg,                                                                                                                        \
	  "2: mov $1, %r8d; xchg %r8d, (%rdi); test %r8d, %r8d; jz 3f; pause; jmp 2b; 3: incq 128(%rdi); movl $0, (%rdi)")             \
	X(xchg8,                                                                                                                       \
	  "2: mov $1, %r8b; xchg %r8b, (%rdi); test %r8b, %r8b; jz 3f; pause; jmp 2b; 3: incq 128(%rdi); movb $0, (%rdi)")             \
	X(ticket,                                                                                                                      \
	  "mov $1, %r8d; lock xadd %r8d, (%rdi); 2: cmp %r8d, 64(%rdi); je 3f; pause; jmp 2b; 3: incq 128(%rdi); incl 64(%rdi)")       \
	/* Peterson's, with a fence; 64(%rdi): whose turn it is */                                                                     \
	X(mfence,                                                                                                                      \
	  "movl $1, (%rdi, %rdx, 4); mov %rdx, %r8; xor $1, %r8; mov %r8d, 64(%rdi); mfence;"                                          \
	  "2: cmpl $0, (%rdi, %r8, 4); je 3f; cmp %r8d, 64(%rdi); jne 3f; pause; jmp 2b; 3: incq 128(%rdi); movl $0, (%rdi, %rdx, 4)") \
	X(lock_or,                                                                                                                     \
	  "movl $1, (%rdi, %rdx, 4); mov %rdx, %r8; xor $1, %r8; mov %r8d, 64(%rdi); lock orl $0, (%rsp);"                             \
	  "2: cmpl $0, (%rdi, %r8, 4); je 3f; cmp %r8d, 64(%rdi); jne 3f; pause; jmp 2b; 3: incq 128(%rdi); movl $0, (%rdi, %rdx, 4)") \
	X(xchg_store,                                                                                                                  \
	  "movl $1, (%rdi, %rdx, 4); mov %rdx, %r8; xor $1, %r8; mov %r8d, %r10d; xchg %r10d, 64(%rdi);"                               \
	  "2: cmpl $0, (%rdi, %r8, 4); je 3f; cmp %r8d, 64(%rdi); jne 3f; pause; jmp 2b; 3: incq 128(%rdi); movl $0, (%rdi, %rdx, 4)")
#define LOCK_CODE_(name, text) \
	__asm__(".text\nlock_" #name ": xor %eax, %eax; mov %rsi, %r9; 1: " text "; dec %r9; jnz 1b; ret\n");
LOCKS(LOCK_CODE_)
#define LOCK_DECLARE_(name, text) u64 lock_##name(void *p, u64 rounds, u64 processor);
LOCKS(LOCK_DECLARE_)
static const struct {
	const char *name;
	op_fn fn;
} locks[] = {
#define LOCK_ROW_(name, text) { #name, lock_##name },
	LOCKS(LOCK_ROW_)
};

/* Each processor's own bits or bytes of one word: the other's changes take none of them away. RAX counts what is lost. */
__asm__(".text\n"
	"own_xor: xor %eax, %eax; mov %edx, %ecx; mov $0x55555555, %r8d; shl %cl, %r8d; xor %r10d, %r10d; mov %rsi, %r9;"
	"1: lock xorl %r8d, (%rdi); xor %r8d, %r10d; mov (%rdi), %r11d; and %r8d, %r11d; cmp %r10d, %r11d; setne %cl; movzbl %cl, %ecx; add %rcx, %rax; dec %r9; jnz 1b; ret\n"
	"own_bits: xor %eax, %eax; lea 7(%rdx, %rdx, 8), %r8; mov %rsi, %r9;"
	"1: lock btsq %r8, (%rdi); adc $0, %rax; lock btcq %r8, (%rdi); cmc; adc $0, %rax; lock btsq %r8, (%rdi); lock btrq %r8, (%rdi); cmc; adc $0, %rax; dec %r9; jnz 1b; ret\n"
	"own_byte: mov %rsi, %r9; 1: incb (%rdi, %rdx); mov (%rdi, %rdx), %al; addb $2, (%rdi, %rdx); movb %al, 8(%rdi, %rdx); dec %r9; jnz 1b; xor %eax, %eax; ret\n"
	"own_masks: xor %eax, %eax; mov $0xff, %r8d; mov %edx, %ecx; shl $3, %ecx; shl %cl, %r8d; mov %r8d, %r10d; not %r10d; mov %rsi, %r9;"
	"1: lock orl %r8d, (%rdi); mov (%rdi), %r11d; and %r8d, %r11d; cmp %r8d, %r11d; setne %cl; movzbl %cl, %ecx; add %rcx, %rax;"
	"lock andl %r10d, (%rdi); testl %r8d, (%rdi); setne %cl; movzbl %cl, %ecx; add %rcx, %rax; dec %r9; jnz 1b; ret\n"
	"pair16: push %rbx; xor %eax, %eax; mov %rsi, %r9; mov (%rdi), %rax; mov 8(%rdi), %rdx;"
	"1: lea 1(%rax), %rbx; lea 3(%rdx), %rcx; lock cmpxchg16b (%rdi); jne 1b; mov %rbx, %rax; mov %rcx, %rdx; dec %r9; jnz 1b; pop %rbx; xor %eax, %eax; ret\n");
u64 own_xor(void *p, u64 rounds, u64 processor);
u64 own_bits(void *p, u64 rounds, u64 processor);
u64 own_byte(void *p, u64 rounds, u64 processor);
u64 own_masks(void *p, u64 rounds, u64 processor);
u64 pair16(void *p, u64 rounds, u64 processor);

/* --- both at once --- */

static op_fn now;
static void *now_at;
static u64 now_rounds;
static u64 result[2];

static void meet(u32 n)
{
	__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	while (arrived < n)
		__asm__ volatile("pause");
}

static void on_second(void)
{
	meet(2);
	result[1] = now(now_at, now_rounds, 1);
}

static void on_first(void)
{
	meet(2);
	result[0] = now(now_at, now_rounds, 0);
}

static bool both(op_fn fn, void *at, u64 rounds)
{
	now = fn;
	now_at = at;
	now_rounds = rounds;
	arrived = 0;
	return ap_together(on_second, on_first);
}

static u64 get(const void *p, unsigned size)
{
	u64 v = 0;

	memcpy_(&v, p, size);
	return v;
}

static u64 cycles(void *at)
{
	u64 before = rdtsc();

	op_inc(at, 100, 0);
	return rdtsc() - before;
}

static void operations(void)
{
	static const char *const places[] = { "aligned", "over the end of a line" };
	u64 rounds = ROUNDS;

	for (unsigned p = 0; p < 2; p++) {
		/* Some hosts hold up each access under a bus lock, for 0.1 ms. */
		if (p && cycles(shared + 124) > 200 * cycles(shared + 128))
			rounds = ROUNDS / 30;
		for (unsigned k = 0; k < NR_OPS; k++) {
			unsigned size = ops[k].size;
			u8 *at = shared + 128 - (p ? (size + 1) / 2 : 0);
			u64 want, mask = size == 8 ? ~0ull : (1ull << size * 8) - 1;
			u64 sums = 0;
			static u8 one[8];

			if (size == 1 && p)
				continue;
			memset_(shared, 0, sizeof(shared));
			memset_(one, 0, 8);
			/* what one processor makes of as many rounds */
			for (unsigned n = 0; n < 2; n++)
				sums += ops[k].fn(one, rounds, 0);
			want = get(one, 8) & mask;
			bool ended = both(ops[k].fn, at, rounds);
			bool sum_ok = ops[k].name[0] != 'x' || result[0] + result[1] == sums;
			check(ended && get(at, size) == want && sum_ok, "%s by two, %s: %llx for %llx",
			      ops[k].name, places[p], get(at, size), want);
		}
	}
}

static void shared_words(void)
{
	static const struct {
		const char *name;
		op_fn fn;
	} own[] = { { "bits by LOCK XOR", own_xor },
		    { "bits by LOCK BTS, BTC and BTR", own_bits },
		    { "bytes by LOCK OR and AND", own_masks } };
	u32 r[4];

	for (unsigned k = 0; k < 3; k++) {
		memset_(shared, 0, sizeof(shared));
		bool ended = both(own[k].fn, shared + 128, ROUNDS * 2);
		check(ended && !result[0] && !result[1], "each its own %s: %llu and %llu lost", own[k].name,
		      result[0], result[1]);
	}
	memset_(shared, 0, sizeof(shared));
	bool ended = both(own_byte, shared + 128, ROUNDS * 2 + 7);
	u8 want = (u8)((ROUNDS * 2 + 7) * 3);
	check(ended && shared[128] == want && shared[129] == want,
	      "each its own byte, without LOCK: %x and %x for %x", shared[128], shared[129], want);
	cpuid(1, 0, r);
	if (r[2] & 1u << 13) {
		memset_(shared, 0, sizeof(shared));
		ended = both(pair16, shared + 64, ROUNDS);
		check(ended && get(shared + 64, 8) == 2 * ROUNDS && get(shared + 72, 8) == 6 * ROUNDS,
		      "LOCK CMPXCHG16B by two");
	}
	for (unsigned k = 0; k < sizeof(locks) / sizeof(locks[0]); k++) {
		memset_(shared, 0, sizeof(shared));
		ended = both(locks[k].fn, shared + 256, ROUNDS);
		check(ended && get(shared + 256 + 128, 8) == 2 * ROUNDS, "a lock by %s: %llu of %lu",
		      locks[k].name, get(shared + 256 + 128, 8), 2 * ROUNDS);
	}
}

/* --- order of stores --- */

static volatile u64 message[512];
static volatile u64 flag;

static void writer(void)
{
	for (u64 n = 1; n <= ROUNDS; n++) {
		message[n * 8 % 512] = n;
		message[(n * 8 + 256) % 512] = ~n;
		flag = n;
	}
}

static void reader(void)
{
	u64 last = 0, f;
	unsigned bad = 0;

	do {
		f = flag;
		if (!f)
			continue;
		/* what was written before the flag is there, or something later */
		u64 a = message[f * 8 % 512], b = ~message[(f * 8 + 256) % 512];
		bad += (a < f && ~a < f) || (b < f && ~b < f) || f < last;
		last = f;
	} while (f < ROUNDS);
	result[0] = bad;
}

/* --- code --- */

static volatile u32 turn, mixed, backward, last_seen;

/* The other writes code and then the turn; CPUID, and what is executed then is new [SDM3 8.1.3]. */
static void executor(void)
{
	unsigned bad = 0;
	u32 r[4];

	for (u32 n = 1; n <= 2000; n++) {
		while (turn != n)
			__asm__ volatile("pause");
		cpuid(0, 0, r);
		for (unsigned k = 0; k < 1 + (n % 8) * 8; k++)
			bad += ((u32(*)(u32))(AREA + 0x40 * (n % 3)))(k) != n;
		turn = 0;
	}
	result[1] = bad;
}

static void modifier(void)
{
	for (u32 n = 1; n <= 2000; n++) {
		uptr at = AREA + 0x40 * (n % 3);

		if (n % 16 < 8) {
			*(volatile u32 *)(at + 1) = n;
		} else { /* other instructions of another length */
			emit_at(at);
			emit("\x90\x31\xc0\x05", 4); /* nop; xor %eax, %eax; add $n, %eax */
			emit32(n);
			emit8(0xc3);
		}
		if (n % 16 >= 8 || n % 16 < 3) {
			emit_at(at);
			if (n % 16 < 8) {
				emit8(0xb8);
				emit32(n);
				emit8(0xc3);
			}
		}
		turn = n;
		while (turn)
			__asm__ volatile("pause");
	}
}

/* Without any ceremony: old or new, never a mixture, never back, and new in the end. */
static void free_executor(void)
{
	u32 seen = 0, v;

	do {
		v = ((u32(*)(u32))(AREA + 0x1000))(0);
		mixed += v != (v & 0xff) * 0x01010101;
		backward += v == (v & 0xff) * 0x01010101 && (v & 0xff) < seen;
		seen = v & 0xff;
	} while (!go);
	for (u64 begin = rdtsc(); v != 0xfefefefe && rdtsc() - begin < 4000000000ull;)
		v = ((u32(*)(u32))(AREA + 0x1000))(0);
	last_seen = v;
}

static void free_modifier(void)
{
	for (u32 n = 1; n <= 20000; n++) {
		*(volatile u32 *)(AREA + 0x1008) = n / 80 * 0x01010101;
		*(volatile u8 *)(AREA + 0x1040 + n % 1024) = (u8)n;
		if (n % 3 == 0)
			*(volatile u8 *)(AREA + 0x1005) = n & 1 ? 0x90 : 0xf8; /* nop or clc */
	}
	*(volatile u32 *)(AREA + 0x1008) = 0xfefefefe;
	go = 1;
}

/* A page of code that is mapped elsewhere; the other processor is told by an interrupt and answers. */
static u64 page_table[512] __attribute__((aligned(4096)));
static volatile u32 shot, shots;

static void on_shootdown(struct frame *f)
{
	invlpg((void *)(WINDOW + 0x1000));
	apic_write(APIC_EOI, 0);
	shot = 1;
}

/* Its code at WINDOW jumps to the page that changes; it must not go back to an older one. */
static void runner(void)
{
	u32 seen = 0, v;
	unsigned bad = 0;

	sti();
	while (!go) {
		u32 before = shots;
		__asm__ volatile("" ::: "memory");
		v = ((u32(*)(void))WINDOW)();
		bad += v < before || v < seen;
		seen = v;
	}
	cli();
	result[1] = bad;
}

static void shooter(void)
{
	unsigned lost = 0;

	for (u32 n = 1; n <= 600; n++) {
		emit_at(AREA + 0x10000 + (n & 1) * 0x1000);
		emit8(0xb8);
		emit32(n);
		emit8(0xc3);
		((volatile u64 *)page_table)[1] = (AREA + 0x10000 + (n & 1) * 0x1000) | 3;
		invlpg((void *)(WINDOW + 0x1000));
		shot = 0;
		apic_write(APIC_ICR2, 1u << 24);
		apic_write(APIC_ICR, 0x4060);
		if (!ap_wait(&shot, 1)) {
			lost++;
			break;
		}
		shots = n; /* from now on it is this one or a later one */
		for (u64 t = rdtsc(); rdtsc() - t < 60000;)
			;
	}
	go = 1;
	result[0] = lost;
}

static void code(void)
{
	turn = 0;
	for (unsigned k = 0; k < 3; k++) {
		emit_at(AREA + 0x40 * k);
		emit("\xb8\x00\x00\x00\x00\xc3", 6);
	}
	bool ended = ap_together(executor, modifier);
	check(ended && !result[1], "code changed by the other processor, with CPUID: %llu of it old",
	      result[1]);

	memset_((void *)(AREA + 0x1000), 0x90, 64);
	emit_at(AREA + 0x1007);
	emit("\xb8\x00\x00\x00\x00\xc3", 6);
	go = 0;
	ended = ap_together(free_executor, free_modifier);
	if (off_tcg("code changed without ceremony"))
		check(ended && !mixed && !backward && last_seen == 0xfefefefe,
		      "and without: %u mixed, %u old after new, %x in the end", mixed, backward, last_seen);

	interrupt_handler[0x60] = on_shootdown;
	guest_pd[WINDOW >> 21] = (uptr)page_table | 7;
	page_table[0] = (AREA + 0x20000) | 3;
	page_table[1] = (AREA + 0x10000) | 3;
	emit_at(AREA + 0x10000);
	emit("\xb8\x00\x00\x00\x00\xc3", 6);
	emit_to(AREA + 0x20000, WINDOW);
	emit_jmp(WINDOW + 0x1000);
	write_cr3(read_cr3());
	go = 0;
	ended = ap_together(runner, shooter);
	check(ended && !result[0] && !result[1],
	      "a page of code mapped elsewhere under the other processor: %llu of it old, %llu lost",
	      result[1], result[0]);
}

/* --- faults, on one processor --- */

static op_fn fault_fn;

static void fault_once(uptr at)
{
	fault_fn((void *)at, 1, 0);
}

static void faults(void)
{
	write_cr0(read_cr0() | 0x10000);
	for (unsigned k = 0; k < NR_OPS; k++) {
		bool ok = true;

		if (ops[k].size == 1)
			continue;
		fault_fn = ops[k].fn;
		for (unsigned n = 0; n < 12; n++) {
			unsigned first = 1 + n % (ops[k].size - 1), size = ops[k].size;
			u8 *a = (u8 *)AREA + 0x31000, *b = (u8 *)AREA + 0x33000;
			uptr at = WINDOW + 0x3000 - first;
			u64 before[2];

			page_table[2] = (uptr)a | 3;
			page_table[3] = (uptr)b | 3;
			write_cr3(read_cr3());
			/* works, in two pages that are not neighbours */
			static u8 one[8];
			memset_(one, 0, 8);
			memset_(a + 4096 - first, 0, first);
			memset_(b, 0, 8);
			fault_fn(one, 300, 0);
			fault_fn((void *)at, 300, 0);
			u64 got = 0;
			memcpy_(&got, a + 4096 - first, first);
			memcpy_((u8 *)&got + first, b, size - first);
			ok &= got == get(one, size);
			before[0] = get(a + 4096 - 8, 8);
			before[1] = get(b, 8);
			bool readonly = n & 1, second = n & 2;
			page_table[second ? 3 : 2] = (uptr)(second ? b : a) | (readonly ? 1 : 0);
			invlpg((void *)(second ? WINDOW + 0x3000 : at));
			ok &= guest_try(fault_once, at) && fault.vector == PF;
			/* a loop around CMPXCHG reads first */
			unsigned error = readonly ? 3 : 2;
			ok &= fault.error == error ||
			      (ops[k].name[0] == 'c' && !readonly && fault.error == 0);
			ok &= fault.cr2 == (second ? WINDOW + 0x3000 : at) ||
			      (ops[k].name[0] == 'c' && size == 8 &&
			       fault.cr2 >> 12 == (second ? WINDOW + 0x3000 : at) >> 12);
			ok &= before[0] == get(a + 4096 - 8, 8) && before[1] == get(b, 8);
		}
		check(ok, "%s over the end of a page works, or faults and changes nothing", ops[k].name);
	}
	write_cr0(read_cr0() & ~0x10000ul);
}

void guest_main(void)
{
	cli();
	if (!ap_begin()) {
		check(false, "the other processor does not start");
		return;
	}
	operations();
	shared_words();
	flag = 0;
	bool ended = ap_together(writer, reader);
	check(ended && !result[0], "messages: %llu out of order", result[0]);
	code();
	if (off_tcg("LOCK over the end of a page"))
		faults();
}
