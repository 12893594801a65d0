/* The lock-step mode, the host's part: memory, and what is said when translation and interpreter differ.
 *
 * The report goes to standard error as a whole: it is longer than what a crash keeps, and for whoever mends
 * the translator. The crash itself is one line.
 *
 * Creation on the main thread, the report on the vCPU's; vector state has been spilled there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/lockstep.h"
#include "x86/disasm.h"

typedef unsigned long long ull;

int lockstep_check(const struct vm *vm, struct err *err)
{
	if (!vm->engine_conf.lockstep)
		return 0;
	if (vm->nr_vcpus > 1)
		return err_set(
			err, -EINVAL,
			"the engine compares in lock-step with one processor only (this machine has %u): give --cpus 1, "
			"or leave out lockstep=on",
			vm->nr_vcpus);
	if (!vm->engine_conf.translate)
		return err_set(
			err, -EINVAL,
			"the engine setting lockstep=on compares translations, and translate=off makes none");
	return 0;
}

int lockstep_init(struct soft_cpu *c, struct err *err)
{
	c->lockstep = aligned_alloc(64, ALIGN_UP(sizeof(*c->lockstep), 64));
	if (!c->lockstep)
		return err_set(err, -ENOMEM, "no memory to compare in lock-step");
	memset(c->lockstep, 0, sizeof(*c->lockstep));
	return 0;
}

void lockstep_fini(struct soft_cpu *c)
{
	free(c->lockstep);
	c->lockstep = NULL;
}

/* --- the report -------------------------------------------------------------------------- */
static u64 field_value(const struct soft_cpu *c, const struct lockstep_field *f)
{
	u64 v = 0;

	memcpy(&v, (const u8 *)c + f->offset, MIN((size_t)f->size, sizeof(v)));
	return v;
}

static bool field_differs(const struct soft_cpu *a, const struct soft_cpu *b, const struct lockstep_field *f)
{
	return memcmp((const u8 *)a + f->offset, (const u8 *)b + f->offset, f->size) != 0;
}

static void print_row(FILE *out, bool differs, const char *name, u64 before, u64 interpreted, u64 translated)
{
	fprintf(out, "%c %-18s %16llx  %16llx  %16llx\n", differs ? '*' : ' ', name, (ull)before,
		(ull)interpreted, (ull)translated);
}

/* All of the first fields, general registers, RIP and flags; of the others those that change or differ. */
static void print_fields(FILE *out, const struct lockstep *l)
{
	const struct soft_cpu *s0 = &l->before.c, *s1 = &l->interpreted.c, *s2 = &l->translated.c;

	fprintf(out, "  %-18s %16s  %16s  %16s\n", "", "before", "interpreted", "translated");
	for (unsigned k = 0; k < lockstep_nr_fields; k++) {
		const struct lockstep_field *f = &lockstep_fields[k];
		bool differs = field_differs(s1, s2, f);

		if (k <= X86_NR_GPR || differs || field_differs(s0, s1, f))
			print_row(out, differs, f->name, field_value(s0, f), field_value(s1, f),
				  field_value(s2, f));
	}
	print_row(out, soft_get_flags(s1) != soft_get_flags(s2), "rflags", soft_get_flags(s0),
		  soft_get_flags(s1), soft_get_flags(s2));
}

static void print_xsave(FILE *out, const struct lockstep *l)
{
	for (unsigned at = 0; at < LOCKSTEP_XSAVE; at += 8) {
		u64 s0 = ld64(l->before.xsave + at), s1 = ld64(l->interpreted.xsave + at),
		    s2 = ld64(l->translated.xsave + at);
		char name[32];

		if (at >= FPU_XMM_END && at < FPU_YMMH)
			continue;
		if (s0 == s1 && s1 == s2)
			continue;
		if (at >= fpu_layout.hi16_zmm)
			snprintf(name, sizeof(name), "zmm%u[%u]", 16 + (at - fpu_layout.hi16_zmm) / 64,
				 (at - fpu_layout.hi16_zmm) / 8 % 8);
		else if (at >= fpu_layout.zmm_hi256)
			snprintf(name, sizeof(name), "zmm%u[%u]", (at - fpu_layout.zmm_hi256) / 32,
				 4 + (at - fpu_layout.zmm_hi256) / 8 % 4);
		else if (at >= fpu_layout.opmask)
			snprintf(name, sizeof(name), "k%u", (at - fpu_layout.opmask) / 8);
		else if (at >= FPU_YMMH)
			snprintf(name, sizeof(name), "ymm%u[%u]", (at - FPU_YMMH) / 16,
				 2 + (at - FPU_YMMH) / 8 % 2);
		else if (at >= FPU_XMM)
			snprintf(name, sizeof(name), "xmm%u[%u]", (at - FPU_XMM) / 16,
				 (at - FPU_XMM) / 8 % 2);
		else if (at >= FPU_ST)
			snprintf(name, sizeof(name), "st%u%s", (at - FPU_ST) / 16,
				 (at - FPU_ST) / 8 % 2 ? " exponent" : "");
		else
			snprintf(name, sizeof(name), "xsave area +%u", at);
		print_row(out, s1 != s2, name, s0, s1, s2);
	}
}

static void print_fault(FILE *out, const char *who, const struct lockstep_state *s)
{
	if (!s->fault)
		return;
	fprintf(out, "%s raises exception %u", who, s->c.exc.vector);
	if (s->c.exc.has_error)
		fprintf(out, " (error code %#x)", s->c.exc.error);
	fprintf(out, " at %016llx, cr2 %016llx\n", (ull)s->c.exc.rip, (ull)s->c.cr2);
}

static const struct storelog_page *seen_page(const struct lockstep *l, const struct storelog_page *p)
{
	for (u32 k = 0; k < l->seen.nr_pages; k++)
		if (l->seen.page[k].host == p->host)
			return &l->seen.page[k];
	return p;
}

static void print_memory(FILE *out, const struct soft_cpu *c, const struct lockstep *l)
{
	unsigned shown = 0;

	for (u32 k = 0; k < l->log.nr_pages; k++) {
		const struct storelog_page *p = &l->log.page[k], *q = seen_page(l, p);
		u8 before[RAM_PAGE_SIZE];

		storelog_before(&l->log, p, before);
		for (unsigned at = MAX(p->lo, q->lo); at < MIN(p->hi, q->hi); at += 8) {
			u64 s0 = ld64(before + at), s1 = ld64(p->after + at), s2 = ld64(q->after + at);
			char name[32];

			if ((s0 == s1 && s1 == s2) || shown++ >= 64)
				continue;
			snprintf(name, sizeof(name), "ram at %#llx", (ull)(p->host + at - c->ram->base));
			print_row(out, s1 != s2, name, s0, s1, s2);
		}
	}
	if (shown > 64)
		fprintf(out, "  and %u more places in memory\n", shown - 64);
}

static void print_code(FILE *out, const u8 *p, u64 len, u64 rip)
{
	for (u64 at = 0; at < len;) {
		char text[96], hex[48] = "";
		unsigned n = disasm(p + at, (unsigned)MIN(len - at, 15ull), 64, rip + at, text, sizeof(text));

		for (unsigned k = 0; k < MAX(n, 1u); k++)
			snprintf(hex + 2 * k, sizeof(hex) - 2 * k, "%02x", p[at + k]);
		fprintf(out, "  %016llx  %-30s  %s\n", (ull)rip + at, hex, text);
		at += MAX(n, 1u);
	}
}

/* What differs first, for the one line. */
static void summary(const struct lockstep *l, char *out, size_t len)
{
	const struct lockstep_state *s1 = &l->interpreted, *s2 = &l->translated;

	if (l->crashed) {
		snprintf(out, len, "the translation accesses %#llx, where nothing is", (ull)l->crash_addr);
		return;
	}
	if (l->other_exit) {
		snprintf(out, len, "the translation alone goes to a device, or changes code or the TLB");
		return;
	}
	if (s1->fault != s2->fault) {
		snprintf(out, len, "only the %s raises exception %u",
			 s1->fault ? "interpreter" : "translation", (s1->fault ? s1 : s2)->c.exc.vector);
		return;
	}
	for (unsigned k = 0; k < lockstep_nr_fields; k++) {
		const struct lockstep_field *f = &lockstep_fields[k];

		if (!field_differs(&s1->c, &s2->c, f))
			continue;
		snprintf(out, len, "%s is %#llx by the interpreter, %#llx by the translation", f->name,
			 (ull)field_value(&s1->c, f), (ull)field_value(&s2->c, f));
		return;
	}
	if (!storelog_same(&l->seen)) {
		snprintf(out, len, "memory is different");
		return;
	}
	snprintf(out, len, "the vector or x87 state is different");
}

static void print_how(FILE *out, const struct lockstep *l)
{
	fprintf(out, "the translation was entered with the flags %s, vector state %s, %s%s\n",
		l->how & LOCKSTEP_A ? "in RFLAGS (entry A)" : "saved (entry B)",
		l->vec_used && !(l->how & LOCKSTEP_DEAD) ? "in the host's registers" : "spilled",
		l->how & LOCKSTEP_MISS ? "an empty TLB" : "the TLB as it was",
		l->how & LOCKSTEP_WINDOW && !(l->how & LOCKSTEP_MISS) ? ", the stack's page in its window"
								      : "");
	if (l->limit < l->block->n)
		fprintf(out, "both stop before instruction %u of the block\n", l->limit);
}

static void print_all(FILE *out, const struct soft_cpu *c, const char *what)
{
	const struct lockstep *l = c->lockstep;
	const struct xblock *x = l->xblock;

	fprintf(out, "lock-step: the block at %016llx (cpl %u): %s\n", (ull)l->before.c.rip, l->before.c.cpl,
		what);
	fprintf(out,
		"comparison number %llu (%llu runs were not compared); again: the same options and input; what comes\n"
		"from outside at other times changes the number, hardly the difference\n",
		(ull)l->nr_equal + 1, (ull)l->nr_once + l->nr_long + l->nr_interrupted);
	print_how(out, l);
	print_fault(out, "the interpreter", &l->interpreted);
	if (l->crashed)
		fprintf(out,
			"the translation faults at %016llx (+%#llx), address %#llx; its registers are those from before\n",
			(ull)l->crash_rip, (ull)(l->crash_rip - (u64)(uintptr_t)x->code), (ull)l->crash_addr);
	else
		print_fault(out, "the translation", &l->translated);
	print_fields(out, l);
	print_xsave(out, l);
	print_memory(out, c, l);
	fprintf(out, "the guest's code:\n");
	/* A block that has been dropped meanwhile keeps its instructions, but not its place. */
	if (l->block->hva)
		print_code(out, (const u8 *)(uintptr_t)l->block->hva, l->block->bytes, l->before.c.rip);
	fprintf(out, "its translation (entry A at %016llx, entry B at %016llx):\n",
		(ull)(uintptr_t)x->entry_a, (ull)(uintptr_t)x->entry_b);
	print_code(out, x->code, (u64)(x->code_end - x->code), (u64)(uintptr_t)x->code);
}

/* A terminal may be in raw mode and need CR as well; in another mode that does no harm. */
static void write_text(const char *text)
{
	bool cr = isatty(STDERR_FILENO);

	for (const char *end; *text; text = end) {
		end = strchrnul(text, '\n');
		fwrite(text, 1, (size_t)(end - text), stderr);
		if (*end) {
			fputs(cr ? "\r\n" : "\n", stderr);
			end++;
		}
	}
	fflush(stderr);
}

void lockstep_report(struct soft_cpu *c)
{
	char what[160], crash[320], *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	summary(c->lockstep, what, sizeof(what));
	if (out) {
		print_all(out, c, what);
		fclose(out);
		write_text(text);
		free(text);
	}
	snprintf(crash, sizeof(crash), "translation and interpreter differ at %016llx: %s\n",
		 (ull)c->lockstep->before.c.rip, what);
	vm_crash(c->vcpu->vm, crash);
}
