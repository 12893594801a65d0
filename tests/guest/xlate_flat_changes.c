/* Warm 32-bit code whose segments, pages, bytes or debug registers change while it is warm: segments that are flat no longer and
 * again, by each way there is to load one; loops over the end of 4 GiB that only an interrupt ends; the same page at many
 * addresses; code that changes; single steps, data breakpoints and timer interrupts in it. [SDM3 5.3, 6.6, 7.2.1, 11.6, 17.2] */
#include "lib/flat.h"
#include "lib/emit.h"
#include "lib/irq.h"

#define WARM 60

#define CODE(name, text)                                                            \
	__asm__(".pushsection .text; " #name ": " text "; int $0x30; .popsection"); \
	extern const u8 name[];

static unsigned runs(const struct state *s, unsigned n, const struct state *want)
{
	unsigned bad = 0;

	for (unsigned k = 0; k < n; k++) {
		run(s);
		if (!same(&end_state, want) && !bad++) {
			print_state("want", want);
			print_state("have", &end_state);
		}
	}
	return bad;
}

/* --- segments that are not flat --- */
CODE(loads_and_stores, "mov (%ebx), %eax; add %eax, %ecx; mov %ecx, 4(%ebx); mov %esi, 8(%ebx)")
CODE(by_ss, "push %eax; mov 4(%esp), %ecx; pop %edx; mov (%ebp), %esi; mov %esi, -4(%ebp)")
CODE(strings, "mov $4, %ecx; rep movsl; stosb; lodsl; mov %eax, -12(%edi)")

#define AT     (LOW + 0x2000)
#define LOWEST 0x1000 /* within 64 KiB, on a scratch page */

/* How a piece of code ends with one register of segments changed. */
struct segment_case {
	const char *name;
	const u8 *code;
	unsigned seg; /* member of struct state: 0 CS, 1 SS, 2 DS, 3 ES */
	u32 sel;
	u32 at;          /* EBX, EBP, ESI */
	unsigned vector; /* how it ends */
	unsigned eip;    /* at this byte of the code, of a fault */
	unsigned from;   /* of the address that is really accessed */
};

static const struct segment_case segment_cases[] = {
	{ "DS with a limit", loads_and_stores, 2, SEL_LIMIT, AT, GP, 0, 0 },
	{ "DS with a limit, within it", loads_and_stores, 2, SEL_LIMIT, LOWEST, 0x30, 0, 0 },
	{ "DS whose limit is in the middle", loads_and_stores, 2, SEL_LIMIT, 0xfff8, GP, 7, 0 },
	{ "DS with a base", loads_and_stores, 2, SEL_BASE, AT - 0x1000, 0x30, 0, 0x1000 },
	{ "DS with a base that wraps", loads_and_stores, 2, SEL_BASE, 0xfffffff8, 0x30, 0, 0x1000 },
	{ "DS read-only", loads_and_stores, 2, SEL_RONLY, AT, GP, 4, 0 },
	{ "DS of code", loads_and_stores, 2, SEL_UCODE, AT, GP, 4, 0 },
	{ "DS that expands down", loads_and_stores, 2, SEL_DOWN, AT, 0x30, 0, 0 },
	{ "DS that expands down, below it", loads_and_stores, 2, SEL_DOWN, LOWEST, GP, 0, 0 },
	{ "DS that expands down over nothing", loads_and_stores, 2, SEL_EMPTY, AT, GP, 0, 0 },
	{ "SS that expands down over nothing", by_ss, 1, SEL_EMPTY, AT, SS, 0, 0 },
	{ "ES that expands down over nothing", strings, 3, SEL_EMPTY, AT, GP, 5, 0 },
	{ "DS null", loads_and_stores, 2, 0, AT, GP, 0, 0 },
	{ "DS null with RPL 3", loads_and_stores, 2, 3, AT, GP, 0, 0 },
	{ "DS of DPL 0, which IRET takes away", loads_and_stores, 2, SEL_UP, AT, GP, 0, 0 },
	{ "ES with a limit, DS in use", loads_and_stores, 3, SEL_LIMIT, AT, 0x30, 0, 0 },
	{ "CS with a limit", loads_and_stores, 0, SEL_CODEL, AT, 0x30, 0, 0 },
	{ "16-bit stack, DS in use", loads_and_stores, 1, SEL_SP16, AT, 0x30, 0, 0 },
	{ "SS with a limit", by_ss, 1, SEL_LIMIT, AT, SS, 0, 0 },
	{ "SS with a limit, within it", by_ss, 1, SEL_LIMIT, LOWEST, 0x30, 0, 0 },
	{ "SS with a base", by_ss, 1, SEL_BASE, AT - 0x1000, 0x30, 0, 0x1000 },
	{ "SS that expands down, below it", by_ss, 1, SEL_DOWN, LOWEST, SS, 0, 0 },
	{ "SS that expands down", by_ss, 1, SEL_DOWN, AT, 0x30, 0, 0 },
	{ "ES with a limit, strings", strings, 3, SEL_LIMIT, AT, GP, 5, 0 },
	{ "ES read-only, strings", strings, 3, SEL_RONLY, AT, GP, 5, 0 },
	{ "ES null, strings", strings, 3, 0, AT, GP, 5, 0 },
	{ "ES below which it expands, strings", strings, 3, SEL_DOWN, LOWEST, GP, 5, 0 },
	{ "DS with a limit, strings", strings, 2, SEL_LIMIT, AT, GP, 5, 0 },
	{ "DS read-only, strings", strings, 2, SEL_RONLY, AT, GP, 9, 0 },
};

static void set_segment(struct state *s, unsigned seg, u32 sel)
{
	*(seg == 0 ? &s->cs : seg == 1 ? &s->ss : seg == 2 ? &s->ds : &s->es) = sel;
}

static void put_words(u32 at)
{
	for (u32 k = 0; k < 16; k++)
		*(volatile u32 *)(at + 4 * k) = 0x01010101 * k + at;
}

static void changed_segments(void)
{
	for (unsigned n = 0; n < sizeof(segment_cases) / sizeof(segment_cases[0]); n++) {
		const struct segment_case *t = &segment_cases[n];

		if (t->vector != 0x30 && !off_tcg(t->name)) /* which checks neither limits nor rights */
			continue;
		struct state s = begin((u32)t->code), flat_end;
		unsigned bad = 0;

		s.reg[EAX] = 0x11;
		s.reg[EBX] = s.reg[ESI] = s.reg[EBP] = s.reg[EDI] = AT;
		s.reg[EDI] += 0x20;
		s.reg[ESP] = AT + 0x20;
		put_words(AT);
		run(&s);
		flat_end = end_state;
		for (unsigned round = 0; round < 4; round++) {
			struct state x = s;

			for (unsigned k = 0; k < WARM; k++) {
				put_words(AT);
				bad += runs(&s, 1, &flat_end);
			}
			set_segment(&x, t->seg, t->sel);
			x.reg[EBX] = x.reg[ESI] = x.reg[EBP] = x.reg[EDI] = t->at;
			x.reg[EDI] += 0x20;
			x.reg[ESP] = t->at + 0x20;
			for (unsigned k = 0; k < 1 + round * 20; k++) {
				u32 at = t->at + t->from, w = 0;

				put_words(at);
				run(&x);
				bad += end_state.vector != t->vector || end_state.error;
				if (t->vector != 0x30)
					bad += end_state.eip != (u32)t->code + t->eip;
				else if (t->code == loads_and_stores)
					w = *(volatile u32 *)(at + 4), bad += end_state.reg[EAX] != at ||
									      w != at ||
									      end_state.reg[ECX] != at;
				else if (t->code == by_ss)
					bad += *(volatile u32 *)(at + 0x1c) != 0x11 ||
					       end_state.reg[EDX] != 0x11 ||
					       end_state.reg[ECX] != 0x08080808 + at ||
					       end_state.reg[ESI] != at;
				if (bad == 1)
					print_state("first", &end_state), bad++;
			}
		}
		check(!bad, "%s: %u wrong", t->name, bad);
	}
}

/* A register is loaded in the middle of what is warm. */
CODE(mov_ds, "mov (%ebx), %edx; mov %eax, %ds; mov (%ebx), %ecx; mov %ecx, 4(%ebx); inc %esi")
CODE(mov_ds_from_memory,
     "mov (%ebx), %edx; mov %ss:(%ebp), %ds; mov (%ebx), %ecx; mov %ecx, 4(%ebx); inc %esi")
CODE(pop_ds, "push %eax; mov (%ebx), %edx; pop %ds; mov (%ebx), %ecx; mov %ecx, 4(%ebx); inc %esi")
CODE(lds, "mov (%ebx), %edx; lds %ss:(%ebp), %ecx; mov (%ebx), %ecx; mov %ecx, 4(%ebx); "
	  "inc %esi")
CODE(mov_es, "mov (%ebx), %edx; mov %eax, %es; mov %es:(%ebx), %ecx; mov %ecx, %es:4(%ebx); "
	     "inc %esi")
CODE(pop_es, "push %eax; mov (%ebx), %edx; pop %es; mov %es:(%ebx), %ecx; "
	     "mov %ecx, %es:4(%ebx); inc %esi")
CODE(les, "mov (%ebx), %edx; les %ss:(%ebp), %ecx; mov %es:(%ebx), %ecx; "
	  "mov %ecx, %es:4(%ebx); inc %esi")
CODE(mov_gs, "mov (%ebx), %edx; mov %eax, %gs; mov %gs:(%ebx), %ecx; mov %ecx, %gs:4(%ebx); "
	     "inc %esi")
CODE(pop_gs, "push %eax; mov (%ebx), %edx; pop %gs; mov %gs:(%ebx), %ecx; "
	     "mov %ecx, %gs:4(%ebx); inc %esi")
CODE(lfs, "mov (%ebx), %edx; lfs (%ebp), %ecx; mov %fs:(%ebx), %ecx; mov %ecx, %fs:4(%ebx); "
	  "inc %esi")
CODE(mov_es_stos, "mov %eax, %es; push %edi; mov $2, %ecx; mov %ebx, %edi; rep stosl; "
		  "mov %ebx, %edi; mov %es:(%edi), %ecx; pop %edi; mov %ebx, %edx; inc %esi")

static const struct {
	const char *name;
	const u8 *code;
} loads[] = {
	{ "MOV DS", mov_ds },
	{ "MOV DS from memory", mov_ds_from_memory },
	{ "POP DS", pop_ds },
	{ "LDS", lds },
	{ "MOV ES", mov_es },
	{ "POP ES", pop_es },
	{ "LES", les },
	{ "MOV GS", mov_gs },
	{ "POP GS", pop_gs },
	{ "LFS", lfs },
	{ "MOV ES and STOS", mov_es_stos },
};

static void loaded_segments(void)
{
	static const u32 sel[] = { SEL_LIMIT, SEL_BASE, SEL_RONLY, SEL_DOWN, 0, SEL_UCODE, SEL_UDATA };

	for (unsigned n = 0; n < sizeof(loads) / sizeof(loads[0]); n++) {
		unsigned bad = 0;
		bool stos = loads[n].code == mov_es_stos;

		for (unsigned round = 0; round < 3 * sizeof(sel) / sizeof(sel[0]); round++) {
			struct state s = begin((u32)loads[n].code);
			u32 other = sel[round % (sizeof(sel) / sizeof(sel[0]))];

			if (on_tcg() && other != SEL_BASE && other != SEL_DOWN)
				continue;
			s.reg[EBX] = AT;
			s.reg[EBP] = AT + 0x40;
			for (unsigned k = 0; k < WARM + 3; k++) {
				u32 now = k < WARM ? SEL_UDATA : other,
				    at = now == SEL_BASE ? AT + 0x1000 : AT;
				bool write_faults = now == SEL_RONLY || now == SEL_UCODE;
				bool faults = now == SEL_LIMIT || !now || write_faults, fine;

				put_words(AT);
				put_words(AT + 0x1000);
				*(volatile u32 *)(AT + 0x40) = AT;
				*(volatile u32 *)(AT + 0x44) = now;
				if (loads[n].code == mov_ds_from_memory)
					*(volatile u32 *)(AT + 0x40) = now;
				s.reg[EAX] = now;
				run(&s);
				fine = end_state.vector == (faults ? GP : 0x30) && !end_state.error;
				if (faults)
					fine &= end_state.reg[ESI] == 0;
				else if (stos)
					fine &= end_state.reg[ECX] == now && *(volatile u32 *)(at + 4) == now;
				else
					fine &= end_state.reg[ECX] == at && *(volatile u32 *)(at + 4) == at;
				if (write_faults && !stos)
					fine &= end_state.reg[ECX] == AT;
				if (!fine && !bad++)
					print_state("first", &end_state);
			}
		}
		check(!bad, "%s in the middle of warm code: %u wrong", loads[n].name, bad);
	}
}

/* FS and GS as they are when the code begins: what may be warm, with any base, and what may not. */
CODE(by_fs_gs, "mov %fs:(%ebx), %eax; add %eax, %fs:4(%ebx); mov %gs:8(%ebx), %ecx; "
	       "mov %ecx, %gs:0xc(%ebx); mov %fs:0x2002000, %edx; incl %gs:0x2002000")

static void changed_fs_gs(void)
{
	static const struct {
		u32 sel, base;
		bool reads, writes;
	} kinds[] = {
		{ SEL_UDATA, 0, true, true },       { SEL_BASE, 0x1000, true, true },
		{ SEL_GS, 0xffffff00, true, true }, { SEL_LIMIT, 0, false, false },
		{ SEL_RONLY, 0, true, false },      { SEL_DOWN, 0, true, true },
		{ SEL_EMPTY, 0, false, false },     { 0, 0, false, false },
		{ SEL_UCODE, 0, true, false },      { SEL_SP16, 0, true, true },
	};
	const unsigned nr = sizeof(kinds) / sizeof(kinds[0]);
	unsigned bad = 0;

	for (unsigned round = 0; round < 2 * nr * nr; round++) {
		unsigned f = round % nr, g = round / nr % nr;
		u32 fs = AT + kinds[f].base, gs = AT + kinds[g].base;

		if (on_tcg() && !(kinds[f].writes && kinds[g].writes))
			continue;
		for (unsigned k = 0; k < 12; k++) {
			struct state s = begin((u32)by_fs_gs);
			bool fine;

			s.fs = kinds[f].sel;
			s.gs = kinds[g].sel;
			s.reg[EBX] = AT;
			for (u32 at = AT - 0x1000; at <= AT + 0x1000; at += 0x1000)
				put_words(at);
			put_words(AT - 0x100);
			run(&s);
			if (!kinds[f].writes || !kinds[g].writes) {
				fine = end_state.vector == GP && !end_state.error;
				fine &= end_state.reg[EAX] == (kinds[f].reads ? fs : 0);
			} else {
				u32 word2 = 0x02020202 + gs;

				fine = end_state.vector == 0x30 && end_state.reg[EAX] == fs &&
				       end_state.reg[ECX] == word2 && end_state.reg[EDX] == fs &&
				       *(volatile u32 *)(fs + 4) == 0x01010101 + 2 * fs &&
				       *(volatile u32 *)(gs + 0xc) == word2 && *(volatile u32 *)gs == gs + 1;
			}
			if (!fine && !bad++)
				print_state("first", &end_state);
		}
	}
	check(!bad, "FS and GS of all kinds by turns: %u wrong", bad);
}

/* A stack that becomes another one in the middle. */
CODE(mov_ss, "push %ebx; mov %eax, %ss; mov %ecx, %esp; push %edx; pop %esi; push %edx; "
	     "call 1f; jmp 2f; 1: ret; 2: pop %edi")
CODE(lss, "push %ebx; mov %ebx, (%ebp); mov %eax, 4(%ebp); mov %ecx, (%ebp); "
	  "lss (%ebp), %esp; push %edx; pop %esi; push %edx; call 1f; jmp 2f; 1: ret; "
	  "2: pop %edi")

static void changed_stacks(void)
{
	static const struct {
		const char *name;
		u32 sel, sp, at;
	} stacks[] = {
		{ "flat", SEL_UDATA, AT, AT - 4 },
		{ "with a limit", SEL_LIMIT, LOWEST, LOWEST - 4 },
		{ "with a base", SEL_BASE, AT - 0x1000, AT - 4 },
		{ "of 16 bits", SEL_SP16, LOW | LOWEST, LOWEST - 4 },
		{ "of 16 bits, elsewhere", SEL_SP16, LOW | 0x3000, 0x2ffc },
		{ "with a limit, beyond it", SEL_LIMIT, AT, 0 },
	};

	for (unsigned way = 0; way < 2; way++)
		for (unsigned n = 0; n < sizeof(stacks) / sizeof(stacks[0]); n++) {
			unsigned bad = 0;

			if (!stacks[n].at && !off_tcg(stacks[n].name))
				continue;
			for (unsigned k = 0; k < 4 * WARM; k++) {
				unsigned m = k % (WARM + 5) < WARM ? 0 : n;
				struct state s = begin((u32)(way ? lss : mov_ss));
				bool fine;

				s.reg[EAX] = stacks[m].sel;
				s.reg[ECX] = stacks[m].sp;
				s.reg[EDX] = 0x12345678 + k;
				s.reg[EBX] = 0x77;
				s.reg[EBP] = AT + 0x100;
				if (stacks[m].at)
					*(volatile u32 *)stacks[m].at = 0;
				run(&s);
				if (stacks[m].at)
					fine = end_state.vector == 0x30 &&
					       end_state.reg[ESI] == 0x12345678 + k &&
					       end_state.reg[EDI] == 0x12345678 + k &&
					       end_state.reg[ESP] == stacks[m].sp &&
					       *(volatile u32 *)stacks[m].at == 0x12345678 + k;
				else
					fine = end_state.vector == SS && !end_state.error &&
					       end_state.reg[ESP] == stacks[m].sp;
				if (!fine && !bad++)
					print_state("first", &end_state);
			}
			check(!bad, "%s to a stack %s: %u wrong", way ? "LSS" : "MOV SS", stacks[n].name,
			      bad);
		}
}

/* --- ways to CPL 3 --- */
/* RETF with an ESP and SS; DS as it is in s. */
void flat_far_return(const struct state *s) __attribute__((noreturn));
__asm__(".pushsection .text; flat_far_return: mov 4(%esp), %ebp; push 44(%ebp); push 16(%ebp); push 40(%ebp); push 32(%ebp)\n"
	"mov 0(%ebp), %eax; mov 4(%ebp), %ecx; mov 12(%ebp), %ebx; mov 52(%ebp), %es; mov 48(%ebp), %ds; lret; .popsection");

static void run_far(const struct state *s)
{
	if (!guest_setjmp(end_jump))
		flat_far_return(s);
}

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, io_map;
};
static struct tss32 task __attribute__((aligned(128)));
#define SEL_TASK 0xa0

static void run_task(const struct state *s)
{
	static const struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, SEL_TASK };

	memset_(&task, 0, sizeof(task));
	memcpy_(&task.esp0, tss + 4, 8);
	task.cr3 = read_cr3();
	task.eip = s->eip;
	task.eflags = s->flags;
	task.eax = s->reg[EAX];
	task.ecx = s->reg[ECX];
	task.ebx = s->reg[EBX];
	task.esp = s->reg[ESP];
	task.cs = s->cs;
	task.ss = s->ss;
	task.ds = s->ds;
	task.es = s->es;
	task.io_map = 0x68;
	gdt[SEL_TASK / 8] = make_desc((u32)&task, 0x67, 0x89, 0);
	gdt[SEL_TSS / 8] = make_desc((u32)tss, sizeof(tss) - 1, 0x8b, 0);
	if (!guest_setjmp(end_jump))
		__asm__ volatile("ljmp *%0" : : "m"(target) : "memory");
	gdt[SEL_TSS / 8] = make_desc((u32)tss, sizeof(tss) - 1, 0x89, 0);
	__asm__ volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
}

static void ways_in(void)
{
	static const u32 sel[] = { SEL_UDATA, SEL_UP, 0, SEL_LIMIT, SEL_UDATA, SEL_BASE };

	for (unsigned way = 0; way < 2; way++) {
		unsigned bad = 0;

		for (unsigned round = 0; round < 12; round++)
			for (unsigned k = 0; k < 30; k++) {
				u32 ds = sel[round % 6], at = ds == SEL_BASE ? AT + 0x1000 : AT;
				struct state s = begin((u32)loads_and_stores);

				if ((way && ds == SEL_UP) || (on_tcg() && ds != SEL_BASE && ds != SEL_UDATA))
					continue;
				s.ds = ds;
				s.reg[EBX] = AT;
				put_words(AT);
				put_words(AT + 0x1000);
				(way ? run_task : run_far)(&s);
				if (ds == SEL_UDATA || ds == SEL_BASE)
					bad += end_state.vector != 0x30 || end_state.reg[EAX] != at ||
					       *(volatile u32 *)(at + 4) != at;
				else
					bad += end_state.vector != GP ||
					       end_state.eip != (u32)loads_and_stores;
			}
		check(!bad, "%s with data segments that are flat and not: %u wrong",
		      way ? "a task switch" : "RETF to CPL 3", bad);
	}
}

/* --- jumps that cut EIP to 16 bits --- */
static void short_jumps(void)
{
	static const struct {
		const char *name, *bytes;
		u32 n, target; /* from the code's beginning; 0 if it is uncut */
		u32 sp;        /* what ESP is then */
		u32 ecx, flags;
	} jumps[] = {
		{ "JMP rel8", "\x66\xeb\x10", 3, 0x13, 0, 2, 0 },
		{ "JMP rel16", "\x66\xe9\x10\x00", 4, 0x14, 0, 2, 0 },
		{ "Jcc rel8", "\x66\x74\x10", 3, 0x13, 0, 2, FL_ZF },
		{ "Jcc rel16", "\x66\x0f\x84\x10\x00", 5, 0x15, 0, 2, FL_ZF },
		{ "Jcc rel8, not taken", "\x66\x75\x10\xcc", 4, 0, 0, 2, FL_ZF },
		{ "Jcc rel16, not taken", "\x66\x0f\x85\x10\x00\xcc", 6, 0, 0, 2, FL_ZF },
		{ "CALL rel16", "\x66\xe8\x10\x00", 4, 0x14, -2u, 2, 0 },
		{ "JMP r16", "\x66\xff\xe0", 3, 0x40, 0, 2, 0 },
		{ "CALL r16", "\x66\xff\xd0", 3, 0x40, -2u, 2, 0 },
		{ "JMP m16", "\x66\xff\x23", 3, 0x40, 0, 2, 0 },
		{ "CALL m16", "\x66\xff\x13", 3, 0x40, -2u, 2, 0 },
		{ "RET to 16 bits", "\x66\xc3", 2, 0x40, 2, 2, 0 },
		{ "RET n to 16 bits", "\x66\xc2\x06\x00", 4, 0x40, 8, 2, 0 },
		{ "LOOP to 16 bits", "\x66\xe2\x10", 3, 0x13, 0, 2, 0 },
		{ "JECXZ to 16 bits", "\x66\xe3\x10", 3, 0x13, 0, 0, 0 },
	};

	/* the low pages are all INT3 */
	memset_((void *)0x3000, 0xcc, 4096);
	for (unsigned n = 0; n < sizeof(jumps) / sizeof(jumps[0]); n++) {
		u32 at = LOW + 0x3100 + n * 0x80, low = at & 0xffff;
		struct state s = begin(at);
		unsigned bad = 0;

		emit_at(at);
		emit(jumps[n].bytes, jumps[n].n);
		emit("\x0f\x0b", 2);
		for (unsigned k = 0; k < WARM; k++) {
			s.reg[EAX] = 0xabcd0000 | (low + 0x40);
			s.reg[EBX] = AT;
			s.reg[ECX] = jumps[n].ecx;
			s.reg[ESP] = AT - 0x100;
			s.flags = 2 | jumps[n].flags;
			*(volatile u32 *)AT = *(volatile u32 *)(AT - 0x100) = 0x12340000 | (low + 0x40);
			*(volatile u32 *)(AT - 0x104) = 0x55555555;
			run(&s);
			bad += end_state.vector != BP || end_state.reg[ESP] != s.reg[ESP] + jumps[n].sp ||
			       end_state.eip !=
				       (jumps[n].target ? low + jumps[n].target + 1 : at + jumps[n].n);
			bad += jumps[n].sp == -2u &&
			       *(volatile u32 *)(AT - 0x104) != (0x5555 | (low + jumps[n].n) << 16);
		}
		check(!bad, "%s: %u wrong", jumps[n].name, bad);
	}
}

/* --- loops that nothing but an interrupt ends --- */
static volatile u32 ticks, ticks_to_end;

static void on_tick(struct frame *f)
{
	pic_eoi(0);
	if (++ticks >= ticks_to_end)
		on_end(f);
}

static void pit(unsigned hz)
{
	unsigned count = 1193182 / hz;

	outb(0x43, 0x34);
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

static void loop_at_end(const char *name, const void *at_end, unsigned n, const void *at_0, unsigned m)
{
	struct state s = begin(0u - n);

	memcpy_((void *)(0xffffffffu - (n - 1)), at_end, n);
	emit_at(0);
	emit(at_0, m);
	s.flags |= FL_IF;
	s.reg[EBX] = AT;
	s.reg[ESI] = 0u - n;
	s.reg[EDI] = AT + 0x100;
	*(volatile u32 *)s.reg[EDI] = 0u - n;
	ticks = 0;
	ticks_to_end = 4;
	run(&s);
	pic_mask(0);
	pic_mask(1);
	check(end_state.vector == IRQ_BASE && ticks >= 4 &&
		      (end_state.eip >= 0u - n || end_state.eip < 0x1000),
	      "%s: interrupted at %x", name, end_state.eip);
}
#define LOOP(name, end, start) loop_at_end(name, end, sizeof(end) - 1, start, sizeof(start) - 1)

static void endless_loops(void)
{
	pic_init(1);
	interrupt_handler[IRQ_BASE] = on_tick;
	pit(500);
	LOOP("falling over the end, JMP back", "\x40\x48\x41\x49", "\xeb\xfa");
	LOOP("the same by a near JMP", "\x40\x48\x41\x49\x90", "\xe9\xf6\xff\xff\xff");
	LOOP("a jump that is not taken at the end", "\x90\x39\xc0\x75\xfb", "\xeb\xf9");
	LOOP("a jump into itself that is not taken", "\x39\xc0\x75\xff", "\xeb\xfa");
	LOOP("a jump over the end that is taken", "\x90\x39\xc0\x74\x10",
	     "\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\xeb\xe9");
	LOOP("a JMP over the end", "\x90\xeb\x02", "\x0f\x0b\xeb\xf9");
	LOOP("a CALL at the end", "\xe8\x10\x00\x00\x00",
	     "\xeb\xf9\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x40\xc3");
	LOOP("a CALL of what lies before, at the end", "\xeb\x01\xc3\xe8\xfa\xff\xff\xff", "\xeb\xf6");
	LOOP("a CALL of a register at the end", "\xeb\x01\xc3\x8d\x46\x02\xff\xd0", "\xeb\xf6");
	LOOP("an access to memory at the end", "\x90\xff\x03", "\xeb\xfb");
	LOOP("an instruction for the interpreter at the end", "\x90\x0f\xa2", "\xeb\xfb");
	LOOP("an indirect JMP back", "\x40\x48", "\xff\xe6");
	LOOP("an indirect JMP through memory back", "\x40\x48", "\xff\x27");
	LOOP("PUSH and RET back", "\x40\x48", "\x56\xc3");
	LOOP("a Jcc back", "\x39\xc0", "\x74\xfc\x0f\x0b");
	LOOP("a CALL back and a drop", "\x58\x40", "\xe8\xf9\xff\xff\xff");
	pic_mask(0);
	if (off_tcg("an instruction across the end of the segment")) {
		struct state s = begin(0xfffffffe);
		unsigned bad = 0;

		memcpy_((void *)0xfffffffe, "\x90\xb8", 2); /* NOP; MOV EAX, imm */
		for (unsigned k = 0; k < WARM; k++) {
			run(&s);
			bad += end_state.vector != GP || end_state.error || end_state.eip != 0xffffffff;
		}
		check(!bad, "an instruction across the end of 4 GiB: #GP, %u wrong", bad);
	}
}

/* --- one page at many addresses --- */
static void many_addresses(void)
{
	unsigned bad = 0;
	u32 page = WINDOW + 0x10000;

	/* CALL +0; POP ECX (its own address); ADD EAX, imm; CALL f; JMP end; f: INC EDX; RET; end: INT 30H */
	emit_at(page);
	emit("\xe8\x00\x00\x00\x00\x59\x05\x11\x00\x00\x00\xe8\x02\x00\x00\x00\xeb\x02\x42\xc3\xcd\x30", 22);
	for (u32 k = 0; k < 32; k++)
		map(WINDOW + (0x40 + k * 3) * 4096, PHYS + 0x10000, 7);
	for (u32 round = 0; round < 60; round++) {
		if (round % 10 == 9)
			*(volatile u32 *)(page + 7) = round;
		for (u32 k = 0; k < 32; k++) {
			u32 at = WINDOW + (0x40 + k * 3) * 4096;
			struct state s = begin(at);

			s.reg[EAX] = k;
			s.reg[EDX] = round;
			for (unsigned n = 0; n < 2 + (k == round % 32) * 30; n++) {
				run(&s);
				bad += end_state.vector != 0x30 || end_state.reg[ECX] != at + 5 ||
				       end_state.reg[EDX] != round + 1 || end_state.eip != at + 22 ||
				       end_state.reg[EAX] != k + *(volatile u32 *)(page + 7);
			}
		}
	}
	check(!bad, "a page at 32 addresses, all warm: %u wrong", bad);

	/* the last page of all, at another address too: what follows is address 0, and another page */
	bad = 0;
	map(WINDOW + 0x370000, PHYS + 0x403000, 7);
	map(WINDOW + 0x371000, PHYS + 0x371000, 7);
	emit_at(0xfffffff0);
	emit("\xe8\x00\x00\x00\x00\x59\xeb\x08", 8); /* CALL +0; POP ECX; JMP over the end */
	emit_at(0);
	emit("\x42\xcd\x30", 3);
	emit_at(WINDOW + 0x371000);
	emit("\x4a\xcd\x30", 3);
	for (u32 k = 0; k < 4 * WARM; k++) {
		bool end = k < 2 * WARM ? k & 1 : k & 16;
		struct state s = begin(end ? 0xfffffff0 : WINDOW + 0x370ff0);

		run(&s);
		bad += end_state.vector != 0x30 || end_state.reg[ECX] != s.eip + 5 ||
		       end_state.reg[EDX] != (end ? 1 : ~0u) || end_state.eip != s.eip + 0x13;
	}
	check(!bad, "the last page of 4 GiB at another address too: %u wrong", bad);

	/* that page's bytes, changed through any of the addresses; by itself too */
	bad = 0;
	emit_at(page + 0x100);
	emit("\xb8\x00\x00\x00\x00\xff\x43\x01\x89\x53\x11\xba\x00\x00\x00\x00\xb9\x00\x00\x00\x00\xcd\x30",
	     23);
	for (u32 round = 1; round < 40; round++)
		for (u32 k = 0; k < 32; k++) {
			u32 at = WINDOW + (0x40 + k * 3) * 4096 + 0x100;
			struct state s = begin(at);
			u32 before = *(volatile u32 *)(page + 0x101);

			/* MOV EAX, n; INC [EBX + 1] (that n); MOV [EBX + 17], EDX (ECX's); MOV EDX, 0; MOV ECX, m */
			s.reg[EBX] = WINDOW + (0x40 + (k * 7 + round) % 32 * 3) * 4096 + 0x100;
			s.reg[EDX] = round * 1000 + k;
			run(&s);
			bad += end_state.reg[EAX] != before || end_state.reg[ECX] != round * 1000 + k ||
			       end_state.reg[EDX];
			bad += *(volatile u32 *)(page + 0x101) != before + 1;
		}
	check(!bad, "and changed by its own stores: %u wrong", bad);

	/* addresses that become another page's */
	bad = 0;
	for (u32 p = 0; p < 3; p++) {
		emit_at(WINDOW + 0x20000 + p * 4096);
		emit8(0xb8);
		emit32(0x1000 + p);
		emit("\xe8\x02\x00\x00\x00\xcd\x30\x41\xc3", 9);
	}
	for (u32 round = 0; round < 60; round++)
		for (u32 p = 0; p < 3; p++) {
			struct state s = begin(WINDOW + 0x30000);

			map(WINDOW + 0x30000, PHYS + 0x20000 + p * 4096, 7);
			for (unsigned n = 0; n < 4 + round % 3 * 20; n++) {
				run(&s);
				bad += end_state.reg[EAX] != 0x1000 + p || end_state.reg[ECX] != 1;
			}
		}
	check(!bad, "an address that means three pages by turns: %u wrong", bad);
}

/* Instructions that lie across two pages, of which the second is another one by turns. */
static void across_pages(void)
{
	unsigned bad = 0;

	for (u32 head = 1; head < 6; head++) {
		u32 at = WINDOW + 0x151000 - head;

		for (u32 p = 0; p < 2; p++) {
			static const u8 bytes[] = {
				0x81, 0xc0, 0, 0x11, 0x22, 0x33, 0x41, 0xcd, 0x30
			}; /* ADD EAX, imm */

			for (u32 k = 0; k < sizeof(bytes); k++)
				*(volatile u8 *)(k < head ? at + k
							  : WINDOW + 0x160000 + p * 4096 + k - head) =
					bytes[k];
			*(volatile u8 *)(WINDOW + 0x160000 + p * 4096 + 5 - head) = 0x40 + p;
		}
		for (u32 round = 0; round < 20; round++)
			for (u32 p = 0; p < 2; p++) {
				struct state s = begin(at);

				map(WINDOW + 0x151000, PHYS + 0x160000 + p * 4096, 7);
				for (unsigned n = 0; n < 3 + round * 5; n++) {
					run(&s);
					bad += end_state.vector != 0x30 || end_state.reg[ECX] != 1 ||
					       end_state.reg[EAX] != ((0x40 + p) << 24 | 0x221100);
				}
			}
	}
	check(!bad, "instructions across a border of pages: %u wrong", bad);
}

/* --- debugging what is warm --- */
CODE(stepped, "mov $5, %ecx; 1: push %eax; add (%ebx), %eax; pop %edx; mov %eax, 4(%ebx); "
	      "call 2f; loop 1b; jmp 3f; 2: inc %esi; ret; 3: rep stosb; nop")

static u32 step_ip[256], nr_steps;

static void on_step(struct frame *f)
{
	if (nr_steps < 256)
		step_ip[nr_steps++] = f->ip;
}

static void single_steps(void)
{
	struct state s = begin((u32)stepped), end;
	unsigned bad = 0;
	u32 sum = 0, first;

	s.reg[EBX] = AT;
	s.reg[EDI] = AT + 0x100;
	put_words(AT);
	run(&s);
	end = end_state;
	bad += runs(&s, WARM, &end);
	interrupt_handler[DB] = on_step;
	for (unsigned round = 0; round < 6; round++) {
		struct state t = s;

		put_words(AT);
		t.flags |= FL_TF;
		t.cs = round & 1 ? SEL_TWIN : SEL_UCODE;
		nr_steps = 0;
		run(&t);
		end_state.cs = SEL_UCODE;
		end_state.flags &= ~FL_TF;
		bad += !same(&end_state, &end);
		first = sum;
		sum = nr_steps;
		for (u32 k = 0; k < nr_steps; k++)
			sum = sum * 31 + step_ip[k];
		bad += round && sum != first;
		bad += runs(&s, 20, &end);
	}
	interrupt_handler[DB] = on_end;
	check(!bad && nr_steps > 40, "%u single steps through warm code: %u wrong", nr_steps, bad);

	/* a breakpoint on the store to 4(%ebx), then one on the byte of code that CALL goes to */
	bad = 0;
	for (unsigned kind = 0; kind < 2; kind++)
		for (unsigned round = 0; round < 4; round++) {
			u32 at = kind ? step_ip[0] : AT + 4;

			put_words(AT);
			__asm__ volatile("mov %0, %%dr0; mov %1, %%dr7"
					 :
					 : "r"(at), "r"(kind ? 0x2 : 0xd0202)
					 : "memory");
			for (unsigned k = 0; k < 3; k++) {
				run(&s);
				bad += end_state.vector != DB;
				if (kind)
					bad += end_state.eip != at;
				else
					bad += *(const u8 *)end_state.eip != 0xe8 ||
					       *(volatile u32 *)(AT + 4) != end_state.reg[EAX];
			}
			__asm__ volatile("mov %0, %%dr7" : : "r"(0));
			bad += runs(&s, WARM, &end);
		}
	check(!bad, "breakpoints in warm code: %u wrong", bad);
}

CODE(restless_sum, "1: add %ecx, %eax; adc $0, %edx; push %ecx; mov %eax, (%ebx); call 2f; pop %ecx; "
		   "mov (%ebx), %eax; dec %ecx; jnz 1b; jmp 3f; 2: add $4, %esi; sub %ecx, %edi; ret; "
		   "3: nop")

static void interrupted(void)
{
	struct state s = begin((u32)restless_sum), end;
	unsigned bad = 0, n = 0;

	s.reg[ECX] = 10000;
	s.reg[EBX] = AT;
	s.reg[ESP] = 8; /* wraps */
	run(&s);
	end = end_state;
	bad += end.vector != 0x30 || end.reg[EAX] != 10000u * 10001u / 2 || end.reg[ESI] != 40000;
	end.flags |= FL_IF;
	s.flags |= FL_IF;
	pic_init(1);
	interrupt_handler[IRQ_BASE] = on_tick;
	pit(2000);
	ticks = 0;
	ticks_to_end = ~0u;
	while ((ticks < 100 || n < 10) && n < 100000 && !bad) {
		bad += runs(&s, 1, &end);
		n++;
	}
	pic_mask(0);
	check(!bad && ticks >= 100, "%u timer interrupts in a warm loop, %u runs: %u wrong", ticks, n, bad);
}

void guest_main(void)
{
	flat_init();
	changed_segments();
	loaded_segments();
	changed_fs_gs();
	changed_stacks();
	ways_in();
	short_jumps();
	endless_loops();
	many_addresses();
	across_pages();
	single_steps();
	interrupted();
}
