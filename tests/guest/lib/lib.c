/* The library of the bare-metal tests: see guest.h. Output goes to COM1 by polling; the end of a test to the
 * debug-exit port: 0 all passed (bothy's status 1), 1 a check failed (3). */
#include "guest.h"

#define COM1       0x3f8
#define DEBUG_EXIT 0xf4

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
u64 idt[256 * (BITS / 32)] __attribute__((aligned(16)));
u8 tss[0x80 + 8192 / 8 + 8] __attribute__((aligned(16)));
u8 user_stack[8192] __attribute__((aligned(16)));
static u8 fault_stack[8192] __attribute__((aligned(16)));
struct fault fault;
void (*interrupt_handler[256])(struct frame *f);

static unsigned nr_passed, nr_failed;
static bool catching;
static uptr recover[10];
uptr user_alias;

void *memset(void *p, int c, uptr n);
void *memcpy(void *d, const void *s, uptr n);
void *memset(void *p, int c, uptr n)
{
	return memset_(p, c, n);
}
void *memcpy(void *d, const void *s, uptr n)
{
	memcpy_(d, s, n);
	return d;
}

/* --- output --- */

static void put(char ch)
{
	if (ch == '\n')
		put('\r');
	for (unsigned k = 0; k < 100000 && !(inb(COM1 + 5) & 0x20); k++)
		;
	outb(COM1, (u8)ch);
}

static void put_number(u64 v, unsigned base, unsigned width)
{
	char digit[24];
	unsigned n = 0;

	do {
		/* no 64-bit division in 32-bit images */
		if (base == 16) {
			digit[n++] = "0123456789abcdef"[v & 15];
			v >>= 4;
		} else {
			digit[n++] = (char)('0' + (u32)v % 10);
			v = (u32)v / 10;
		}
	} while (v);
	while (n < width)
		digit[n++] = '0';
	while (n)
		put(digit[--n]);
}

static void vprint(const char *fmt, __builtin_va_list ap)
{
	for (; *fmt; fmt++) {
		unsigned width = 0, longs = 0;

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		fmt++;
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + (unsigned)(*fmt - '0');
		for (; *fmt == 'l'; fmt++)
			longs++;
		u64 v;
		switch (*fmt) {
		case 's':
			for (const char *s = __builtin_va_arg(ap, const char *); *s; s++)
				put(*s);
			break;
		case 'c': put((char)__builtin_va_arg(ap, int)); break;
		case 'd': {
			long d = longs ? __builtin_va_arg(ap, long) : __builtin_va_arg(ap, int);
			if (d < 0)
				put('-');
			put_number((u64)(d < 0 ? -d : d), 10, width);
			break;
		}
		case 'u':
		case 'x':
			v = longs > 1 ? __builtin_va_arg(ap, u64)
			    : longs   ? __builtin_va_arg(ap, unsigned long)
				      : __builtin_va_arg(ap, unsigned);
			put_number(v, *fmt == 'x' ? 16 : 10, width);
			break;
		default: put(*fmt);
		}
	}
}

void print(const char *fmt, ...)
{
	__builtin_va_list ap;

	__builtin_va_start(ap, fmt);
	vprint(fmt, ap);
	__builtin_va_end(ap);
}

void check_(bool ok, const char *fmt, ...)
{
	__builtin_va_list ap;

	print(ok ? "PASS " : "FAIL ");
	__builtin_va_start(ap, fmt);
	vprint(fmt, ap);
	__builtin_va_end(ap);
	print("\n");
	if (ok)
		nr_passed++;
	else
		nr_failed++;
}

void skip(const char *why)
{
	print("SKIP %s\n", why);
}

bool on_tcg(void)
{
	static int tcg = -1;
	u32 r[4];

	if (tcg < 0) {
		cpuid(0x40000000, 0, r);
		tcg = r[1] == 0x54474354; /* "TCGT" */
	}
	return tcg;
}

bool off_tcg(const char *what)
{
	if (on_tcg())
		print("SKIP %s: not as documented in QEMU's TCG\n", what);
	return !on_tcg();
}

void guest_exit(void)
{
	print("%u passed, %u failed\n", nr_passed, nr_failed);
	outb(DEBUG_EXIT, nr_failed || !nr_passed);
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* --- tables --- */

u64 make_desc(u32 base, u32 limit, u8 access, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void set_idt(unsigned vector, uptr handler, u16 sel, unsigned type_dpl, unsigned ist)
{
	u64 *gate = &idt[vector * (BITS / 32)];

	gate[0] = (handler & 0xffff) | (u64)sel << 16 | (u64)ist << 32 | (u64)type_dpl << 40 |
		  (u64)(handler >> 16 & 0xffff) << 48;
#if BITS == 64
	gate[1] = handler >> 32;
#endif
}

void reset_idt(void)
{
	for (unsigned v = 0; v < 256; v++)
		set_idt(v, guest_vector_table[v], SEL_CODE,
			v == BP || v == OF || v == VECTOR_USER_RETURN ? 0xee : 0x8e, 0);
	load_idt(idt, sizeof(idt) - 1);
}

static void load_table(bool is_idt, const void *base, u16 limit)
{
	struct {
		u16 limit;
		uptr base;
	} __attribute__((packed)) d = { limit, (uptr)base };

	if (is_idt)
		__asm__ volatile("lidt %0" : : "m"(d));
	else
		__asm__ volatile("lgdt %0" : : "m"(d));
}

void load_idt(const void *base, u16 limit)
{
	load_table(true, base, limit);
}

void load_gdt(u16 limit)
{
	load_table(false, gdt, limit);
}

static void set_up_tables(void)
{
	uptr top = (uptr)fault_stack + sizeof(fault_stack);

	gdt[1] = make_desc(0, 0xfffff, 0x9b, BITS == 64 ? 0xa : 0xc);
	gdt[2] = make_desc(0, 0xfffff, 0x93, 0xc);
	gdt[3] = make_desc(0, 0xfffff, 0xfb, BITS == 64 ? 0xa : 0xc);
	gdt[4] = make_desc(0, 0xfffff, 0xf3, 0xc);
	gdt[5] = make_desc((u32)(uptr)tss, sizeof(tss) - 1, 0x89, 0);
#if BITS == 64
	gdt[6] = (uptr)tss >> 32;
	memcpy_(tss + 4, &top, 8);
#else
	u32 ss0 = SEL_DATA;
	memcpy_(tss + 4, &top, 4);
	memcpy_(tss + 8, &ss0, 4);
#endif
	gdt[7] = make_desc(0, 0xfffff, 0x9b, 0xc);
	tss[0x66] = 0x80; /* offset of the I/O bit map: all ports forbidden */
	memset_(tss + 0x80, 0xff, sizeof(tss) - 0x80);
	load_gdt(sizeof(gdt) - 1);
	__asm__ volatile("mov %w0, %%ds; mov %w0, %%es; mov %w0, %%ss; ltr %w1"
			 :
			 : "r"(SEL_DATA), "r"(SEL_TSS));
#if BITS == 64
	__asm__ volatile("pushq %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" : : "i"(SEL_CODE) : "rax");
#else
	__asm__ volatile("ljmp %0, $1f; 1:" : : "i"(SEL_CODE));
#endif
	reset_idt();
}

/* --- faults --- */

void guest_interrupt(struct frame *f);
void guest_interrupt(struct frame *f)
{
	if (interrupt_handler[f->vector]) {
		interrupt_handler[f->vector](f);
		return;
	}
	fault.happened = f->vector != VECTOR_USER_RETURN;
	fault.vector = (unsigned)f->vector;
	fault.error = f->error;
	fault.ip = f->ip;
	fault.cs = f->cs & 0xffff;
	fault.flags = f->flags;
	fault.cr2 = read_cr2();
	if (catching)
		guest_longjmp(recover);
	print("unexpected vector %u, error %lx, ip %lx, cs %lx, flags %lx, cr2 %lx\n", fault.vector,
	      fault.error, fault.ip, fault.cs, fault.flags, fault.cr2);
	nr_failed++;
	guest_exit();
}

bool guest_try(void (*fn)(uptr arg), uptr arg)
{
	fault.happened = false;
	catching = true;
	if (!guest_setjmp(recover))
		fn(arg);
	catching = false;
	return fault.happened;
}

void guest_enter_user(void (*fn)(uptr arg), uptr arg, void *stack, uptr flags);
void guest_user_return(void);

bool guest_try_user(void (*fn)(uptr arg), uptr arg, uptr flags)
{
	uptr *sp = (uptr *)(user_stack + sizeof(user_stack) - 64);

	fault.happened = false;
	catching = true;
	if (!guest_setjmp(recover)) {
#if BITS == 64
		*--sp = (uptr)guest_user_return + user_alias;
#endif
		guest_enter_user((void (*)(uptr))((uptr)fn + user_alias), arg, (u8 *)sp + user_alias,
				 flags | 2);
	}
	catching = false;
	return fault.happened;
}

void expect(const char *what, bool faulted, unsigned vector, long error)
{
	bool ok = faulted && fault.vector == vector && (error < 0 || fault.error == (uptr)error);

	if (ok && error >= 0)
		check(true, "%s: #%u(%lx)", what, vector, (uptr)error);
	else if (ok)
		check(true, "%s: #%u", what, vector);
	else if (faulted)
		check(false, "%s: #%u(%lx) instead of #%u(%lx)", what, fault.vector, fault.error, vector,
		      (uptr)error);
	else
		check(false, "%s: no fault instead of #%u(%lx)", what, vector, (uptr)error);
}

void guest_start(void);
void guest_start(void)
{
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7);
	outb(COM1 + 4, 3);
	set_up_tables();
	guest_main();
	guest_exit();
}
