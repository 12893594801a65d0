/* What the bare-metal tests share: output, checks, descriptor tables, catching of faults, code at CPL 3.
 * Selectors: 08 code, 10 data, 1B and 23 the same for CPL 3, 28 TSS; in 64-bit images 38 is 32-bit code; from 40H on
 * free for the test. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long uptr;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#ifdef __x86_64__
#define BITS 64
#else
#define BITS 32
#endif

#define SEL_CODE           0x08
#define SEL_DATA           0x10
#define SEL_UCODE          0x1b
#define SEL_UDATA          0x23
#define SEL_TSS            0x28
#define SEL_CODE32         0x38
#define SEL_FREE           0x40
#define GDT_ENTRIES        64
#define VECTOR_USER_RETURN 0x30

enum {
	DE = 0,
	DB = 1,
	NMI = 2,
	BP = 3,
	OF = 4,
	BR = 5,
	UD = 6,
	NM = 7,
	DF = 8,
	TS = 10,
	NP = 11,
	SS = 12,
	GP = 13,
	PF = 14,
	MF = 16,
	AC = 17,
	XM = 19
};

struct frame {
#ifdef __x86_64__
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
#else
	u32 gs, fs, es, ds, edi, esi, ebp, esp_at_pusha, ebx, edx, ecx, eax;
#endif
	uptr vector, error, ip, cs, flags;
	uptr sp, ss; /* 32-bit: only when the privilege level changed */
};

/* What guest_try() caught. */
struct fault {
	bool happened;
	unsigned vector;
	uptr error, ip, cs, flags, cr2;
};
extern struct fault fault;

extern u64 gdt[GDT_ENTRIES];
extern uptr tss_sp0_storage;
extern u8 tss[0x80 + 8192 / 8 + 8];
extern u64 idt[256 * (BITS / 32)];
extern u64 guest_pml4[512], guest_pdpt[512], guest_pd[4 * 512];
extern const uptr guest_vector_table[256];
extern u8 user_stack[8192];
extern uptr user_alias; /* added to addresses of user code and stack */

/* EAX and EBX as the loader left them. */
extern u32 multiboot_magic, multiboot_info;

/* Every test's main. Its return ends the run: it fails when a check failed. */
void guest_main(void);

void print(const char *fmt, ...)
	__attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %lx %llx, width with 0 */
/* What is to be true comes first: the figures are those that it leaves. */
#define check(ok, ...)                    \
	do {                              \
		bool ok_ = (ok);          \
		check_(ok_, __VA_ARGS__); \
	} while (0)
void check_(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *why);
/* For what QEMU's TCG is known to do otherwise than the manual: not checked there, with a line that says so. */
bool on_tcg(void);
bool off_tcg(const char *what);
void guest_exit(void) __attribute__((noreturn));

/* A descriptor's bits: type and S, DPL, P as in byte 5; flags: G, D/B, L, AVL as in the high half of byte 6. */
u64 make_desc(u32 base, u32 limit, u8 access, u8 flags);
void set_idt(unsigned vector, uptr handler, u16 sel, unsigned type_dpl, unsigned ist);
void reset_idt(void); /* all vectors to guest_interrupt(), DPL 0 but 3, 4 and 30H */
void load_idt(const void *base, u16 limit);
void load_gdt(u16 limit);

/* Called for vectors without fault catching (interrupts); NULL: a fault outside guest_try() ends the test. */
extern void (*interrupt_handler[256])(struct frame *f);

/* Runs fn(arg); true: it faulted (see fault). The recovery is by a jump, so nothing of fn is undone but the flags. */
bool guest_try(void (*fn)(uptr arg), uptr arg);
/* The same at CPL 3 with these flags; ends by returning from fn. */
bool guest_try_user(void (*fn)(uptr arg), uptr arg, uptr flags);
int guest_setjmp(uptr buf[10]) __attribute__((returns_twice));
void guest_longjmp(uptr buf[10]) __attribute__((noreturn));

/* One line per expected fault: vector, error code. error -1: do not care. */
void expect(const char *what, bool faulted, unsigned vector, long error);

static inline void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outw(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
	u8 v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u16 inw(u16 port)
{
	u16 v;
	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u32 inl(u16 port)
{
	u32 v;
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

#define CR_ACCESS(n)                                                           \
	static inline uptr read_cr##n(void)                                    \
	{                                                                      \
		uptr v;                                                        \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(v) : : "memory"); \
		return v;                                                      \
	}                                                                      \
	static inline void write_cr##n(uptr v)                                 \
	{                                                                      \
		__asm__ volatile("mov %0, %%cr" #n : : "r"(v) : "memory");     \
	}
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)

static inline u64 rdmsr(u32 n)
{
	u32 lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
	return lo | (u64)hi << 32;
}
static inline void wrmsr(u32 n, u64 v)
{
	__asm__ volatile("wrmsr" : : "c"(n), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(sub));
}
static inline u64 rdtsc(void)
{
	u32 lo, hi;
	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (u64)hi << 32;
}
static inline void invlpg(const volatile void *p)
{
	__asm__ volatile("invlpg (%0)" : : "r"(p) : "memory");
}
static inline void cli(void)
{
	__asm__ volatile("cli" : : : "memory");
}
static inline void sti(void)
{
	__asm__ volatile("sti" : : : "memory");
}
static inline void sti_hlt(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}
static inline uptr read_flags(void)
{
	uptr v;
	__asm__ volatile("pushf; pop %0" : "=r"(v));
	return v;
}
static inline void *memset_(void *p, int c, uptr n)
{
	void *q = p;
	__asm__ volatile("rep stosb" : "+D"(q), "+c"(n) : "a"(c) : "memory");
	return p;
}
static inline void memcpy_(void *d, const void *s, uptr n)
{
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}
