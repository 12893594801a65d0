/* When each event of a boot came first, and how that is shown.
 *
 * A mark is written by who takes its bit out of `wanted`, then published by its bit in `seen`. What an event makes possible
 * becomes wanted with it: the kernel's processors and processes when the kernel has been entered, a second-stage loader when the
 * boot sector has been read.
 */
#include "vm/timeline.h"

#include <string.h>

#include "base/os.h"
#include "vm/vm.h"

#define EL_TORITO    (17 * 2048) /* the boot record of a CD-ROM, by its specification 2.0 */
#define BIT_OF(NAME) (1u << TIMELINE_##NAME)

static const struct {
	const char *json, *text;
} names[TIMELINE_NR] = {
#define TIMELINE_NAME_(NAME, json, text) [TIMELINE_##NAME] = { json, text },
	TIMELINE_EVENTS(TIMELINE_NAME_)
#undef TIMELINE_NAME_
};

/* ---- marks ---- */

static u64 count_exits(const struct vm *vm)
{
	u64 sum = 0;

	for (u32 k = 0; k < vm->nr_vcpus; k++)
		for (unsigned r = 0; r < EXIT_NR; r++)
			sum += __atomic_load_n(&vm->vcpu[k]->stats.reason[r].count, __ATOMIC_RELAXED);
	return sum;
}

static u64 count_insns(struct vm *vm, bool *ret_exact)
{
	u64 sum = 0;

	*ret_exact = true;
	for (u32 k = 0; vm->engine->insns && k < vm->nr_vcpus; k++) {
		bool exact;

		sum += vm->engine->insns(vm->vcpu[k], &exact);
		*ret_exact &= exact;
	}
	return sum;
}

static void write_mark(struct vm *vm, enum timeline_event event)
{
	struct timeline *t = &vm->timeline;
	struct timeline_mark *m = &t->mark[event];
	bool exact;

	m->ns = os_now_ns() - t->base_ns;
	m->counted = vm->engine && vm->engine->insns;
	m->insns = vm->engine ? count_insns(vm, &exact) - t->insns_at_reset : 0;
	m->exact = m->counted && exact;
	m->exits = count_exits(vm) - t->exits_at_reset;
	m->vcpu = vcpu_self() ? (int)vcpu_self()->id : -1;
	atomic_fetch_or(&t->seen, 1u << event);
}

void timeline_happened(struct vm *vm, enum timeline_event event)
{
	struct timeline *t = &vm->timeline;

	if (!(atomic_fetch_and(&t->wanted, ~(1u << event)) >> event & 1))
		return; /* somebody else was first */
	write_mark(vm, event);
	switch (event) {
	case TIMELINE_BOOT_SECTOR: atomic_fetch_or(&t->wanted, BIT_OF(SECOND_STAGE) | BIT_OF(KERNEL)); break;
	case TIMELINE_KERNEL:
		atomic_fetch_and(&t->wanted, ~(BIT_OF(MEMORY) | BIT_OF(BOOT_SECTOR) | BIT_OF(SECOND_STAGE)));
		atomic_fetch_or(&t->wanted, BIT_OF(IDLE) | BIT_OF(PROCESS) |
						    (vm->nr_vcpus > 1 ? BIT_OF(SIPI) | BIT_OF(LAST_CPU) : 0));
		break;
	default: break;
	}
}

void timeline_begin(struct vm *vm, bool direct)
{
	struct timeline *t = &vm->timeline;
	bool exact;

	atomic_store(&t->seen, 0);
	atomic_store(&t->online, 0);
	t->direct = direct;
	t->base_ns = os_now_ns();
	t->insns_at_reset = vm->engine ? count_insns(vm, &exact) : 0;
	t->exits_at_reset = count_exits(vm);
	atomic_store(&t->wanted, BIT_OF(RESET));
	timeline_happened(vm, TIMELINE_RESET);
	atomic_store(&t->wanted,
		     BIT_OF(PCI) | (direct ? BIT_OF(KERNEL)
					   : BIT_OF(FIRMWARE) | BIT_OF(MEMORY) | BIT_OF(BOOT_SECTOR)));
}

void timeline_first(struct vcpu *vcpu)
{
	if (vcpu->vm->timeline.direct)
		timeline_note(vcpu->vm, TIMELINE_KERNEL);
	else
		timeline_note(vcpu->vm, TIMELINE_FIRMWARE);
}

void timeline_started(struct vcpu *vcpu)
{
	struct timeline *t = &vcpu->vm->timeline;
	u64 all = ~0ull >> (64 - vcpu->vm->nr_vcpus) & ~1ull;

	if (!timeline_wants(t, TIMELINE_LAST_CPU))
		return;
	timeline_note(vcpu->vm, TIMELINE_SIPI);
	if ((atomic_fetch_or(&t->online, BIT(vcpu->id)) | BIT(vcpu->id)) == all)
		timeline_note(vcpu->vm, TIMELINE_LAST_CPU);
}

bool timeline_disk_read(void *opaque, u64 offset)
{
	struct vm *vm = opaque;

	if (!offset || offset == EL_TORITO)
		timeline_note(vm, TIMELINE_BOOT_SECTOR);
	else
		timeline_note(vm, TIMELINE_SECOND_STAGE);
	return atomic_load(&vm->timeline.wanted) & (BIT_OF(BOOT_SECTOR) | BIT_OF(SECOND_STAGE));
}

/* ---- how it is shown ---- */

/* The events that have come, in the order of time. */
struct line {
	unsigned nr;
	u8 event[TIMELINE_NR];
	struct timeline_mark mark[TIMELINE_NR]; /* by event */
};

static void get_line(struct vm *vm, struct line *l)
{
	u32 seen = atomic_load(&vm->timeline.seen);

	l->nr = 0;
	for (unsigned e = 0; e < TIMELINE_NR; e++) {
		unsigned at = l->nr;

		if (!(seen >> e & 1))
			continue;
		l->mark[e] = vm->timeline.mark[e];
		for (; at && l->mark[l->event[at - 1]].ns > l->mark[e].ns; at--)
			l->event[at] = l->event[at - 1];
		l->event[at] = (u8)e;
		l->nr++;
	}
}

static void insns_text(const struct timeline_mark *m, char text[32])
{
	if (!m->counted)
		snprintf(text, 32, "-");
	else
		snprintf(text, 32, "%s%llu", m->exact ? "" : ">=", (unsigned long long)m->insns);
}

void timeline_print(struct vm *vm, FILE *out)
{
	struct line l;
	u64 before = 0;

	get_line(vm, &l);
	fprintf(out, "%-28s %12s %12s %16s %12s %5s\n", "event", "ms", "since before", "instructions",
		"exits", "vCPU");
	for (unsigned k = 0; k < l.nr; k++) {
		const struct timeline_mark *m = &l.mark[l.event[k]];
		char insns[32], vcpu[16] = "-";

		insns_text(m, insns);
		if (m->vcpu >= 0)
			snprintf(vcpu, sizeof(vcpu), "%d", m->vcpu);
		fprintf(out, "%-28s %12.3f %12.3f %16s %12llu %5s\n", names[l.event[k]].text,
			(double)m->ns / 1e6, (double)(m->ns - before) / 1e6, insns,
			(unsigned long long)m->exits, vcpu);
		before = m->ns;
	}
}

void timeline_print_json(struct vm *vm, FILE *out)
{
	struct line l;

	get_line(vm, &l);
	fprintf(out, "{\n  \"boot\": \"%s\",\n  \"events\": [", vm->timeline.direct ? "direct" : "firmware");
	for (unsigned k = 0; k < l.nr; k++) {
		const struct timeline_mark *m = &l.mark[l.event[k]];

		fprintf(out, "%s\n    {\"event\": \"%s\", \"name\": \"%s\", \"ns\": %llu, \"exits\": %llu",
			k ? "," : "", names[l.event[k]].json, names[l.event[k]].text,
			(unsigned long long)m->ns, (unsigned long long)m->exits);
		if (m->counted)
			fprintf(out, ", \"instructions\": %llu, \"exact\": %s", (unsigned long long)m->insns,
				m->exact ? "true" : "false");
		if (m->vcpu >= 0)
			fprintf(out, ", \"vcpu\": %d", m->vcpu);
		fputc('}', out);
	}
	fprintf(out, "\n  ]\n}\n");
}

/* One row for each event: a bar over the time since the one before. */
#define SVG_LEFT  230
#define SVG_WIDTH 560
#define SVG_RIGHT 270
#define SVG_ROW   26
#define SVG_TOP   44

static void escape(const char *text, FILE *out)
{
	for (; *text; text++) {
		switch (*text) {
		case '<': fputs("&lt;", out); break;
		case '&': fputs("&amp;", out); break;
		case '"': fputs("&quot;", out); break;
		default: fputc((unsigned char)*text < ' ' ? ' ' : *text, out); break;
		}
	}
}

void timeline_print_svg(struct vm *vm, FILE *out)
{
	static const char *const colours[] = { "#4e79a7", "#f28e2b", "#59a14f",
					       "#e15759", "#76b7b2", "#b07aa1" };
	struct line l;
	unsigned height;
	u64 end, before = 0;

	get_line(vm, &l);
	end = l.nr ? MAX(l.mark[l.event[l.nr - 1]].ns, 1ull) : 1;
	height = SVG_TOP + l.nr * SVG_ROW + 14;
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\" "
		"font-family=\"sans-serif\" font-size=\"13\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"12\" y=\"24\" font-size=\"16\">Boot of ",
		SVG_LEFT + SVG_WIDTH + SVG_RIGHT, height, SVG_LEFT + SVG_WIDTH + SVG_RIGHT, height);
	escape(vm->name, out);
	fprintf(out, ", %.1f ms</text>\n", (double)end / 1e6);
	for (unsigned k = 0; k < l.nr; k++) {
		const struct timeline_mark *m = &l.mark[l.event[k]];
		double from = SVG_LEFT + (double)before / (double)end * SVG_WIDTH;
		double to = SVG_LEFT + (double)m->ns / (double)end * SVG_WIDTH;
		unsigned y = SVG_TOP + k * SVG_ROW;
		char insns[32];

		insns_text(m, insns);
		fprintf(out, "<text x=\"%u\" y=\"%u\" text-anchor=\"end\">%s</text>\n", SVG_LEFT - 10, y + 17,
			names[l.event[k]].text);
		fprintf(out, "<line x1=\"%.1f\" y1=\"%u\" x2=\"%.1f\" y2=\"%u\" stroke=\"#dddddd\"/>\n", to,
			SVG_TOP - 6, to, height - 8);
		fprintf(out, "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%u\" fill=\"%s\"/>\n", from,
			y + 4, MAX(to - from, 1.5), SVG_ROW - 8, colours[k % ARRAY_SIZE(colours)]);
		fprintf(out, "<text x=\"%u\" y=\"%u\">%.3f ms, ", SVG_LEFT + SVG_WIDTH + 10, y + 17,
			(double)m->ns / 1e6);
		escape(insns, out); /* >= */
		fprintf(out, " insns, %llu exits</text>\n", (unsigned long long)m->exits);
		before = m->ns;
	}
	fputs("</svg>\n", out);
}
