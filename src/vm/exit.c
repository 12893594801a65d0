/* The one dispatcher for exits, and the one account of them.
 *
 * An exit costs two readings of the TSC and a few additions to counters that only its own vCPU writes.
 * Counts by key live in a table with open addressing and a short probe. When all places for a new key
 * are taken (a kernel looking for hypervisors asks for 256 CPUID leaves, a hostile guest sweeps all
 * ports), it takes that of the rarest; what that one had is then booked under its reason alone. So the
 * table cannot grow, and what is frequent stays. Counters are written with relaxed atomic stores: any
 * thread may read them; while a place changes hands a reader may see the new key with an old count.
 *
 * Figures of the report, all vCPUs added up: wall = the time between start and stop of the vCPUs' threads;
 * idle = waiting (HLT, before the start-up IPI, after a shutdown); exits = all reasons but HLT, whose
 * time is idle time; guest = the rest.
 *
 * exit_dispatch, exit_account: the vCPU's thread. Printing: main thread.
 */
#include "vm/exit.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "vm/pv.h"
#include "vm/vm.h"

#define EXIT_KVM_ENOSYS 1000ll /* what a guest of KVM's gets for a hypercall that there is not */
#define EXIT_PROBE      8
#define EXIT_TOP_KEYS   8
#define EXIT_PAGE_MASK  0xfffull
#define EXIT_NOWHERE    BIT(60) /* beyond every physical address: nobody answers */

struct exit_info {
	const char *name, *key;
};

static const struct exit_info exit_info[EXIT_NR] = {
#define EXIT_INFO_(NAME, number, text, keytext) [number] = { text, keytext },
	EXIT_REASONS(EXIT_INFO_)
#undef EXIT_INFO_
};

const char *exit_name(enum exit_reason reason)
{
	if ((unsigned)reason >= EXIT_NR || !exit_info[reason].name)
		return "unknown";
	return exit_info[reason].name;
}

/* ---- booking ---- */

static inline u64 exit_get(const u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* Only the owner adds, so load and store need not be one operation. */
static inline void exit_add(u64 *p, u64 n)
{
	__atomic_store_n(p, exit_get(p) + n, __ATOMIC_RELAXED);
}

static struct exit_key_count *exit_key_slot(struct exit_stats *stats, unsigned reason, u64 key)
{
	u64 hash = (key ^ (u64)reason << 56) * 0x9e3779b97f4a7c15ull;
	unsigned at = (unsigned)(hash >> 32) % EXIT_MAX_KEYS;
	struct exit_key_count *least = &stats->key[at];

	for (unsigned i = 0; i < EXIT_PROBE; i++, at = (at + 1) % EXIT_MAX_KEYS) {
		struct exit_key_count *k = &stats->key[at];

		if (!k->used) {
			least = k;
			break;
		}
		if (k->key == key && k->reason == reason)
			return k;
		if (k->n.count < least->n.count)
			least = k;
	}
	exit_add(&stats->keys_dropped, least->n.count);
	__atomic_store_n(&least->used, false, __ATOMIC_RELAXED);
	__atomic_store_n(&least->reason, (u16)reason, __ATOMIC_RELAXED);
	__atomic_store_n(&least->key, key, __ATOMIC_RELAXED);
	__atomic_store_n(&least->n.count, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&least->n.tsc, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&least->used, true, __ATOMIC_RELEASE);
	return least;
}

static unsigned exit_bucket(u64 tsc)
{
	return tsc ? MIN(64u - (unsigned)__builtin_clzll(tsc), EXIT_HIST - 1u) : 0;
}

static void exit_book(struct vcpu *vcpu, unsigned reason, u64 key, u64 tsc)
{
	struct exit_stats *stats = &vcpu->stats;
	struct exit_key_count *k;

	if ((s64)tsc < 0)
		tsc = 0; /* a host whose TSCs differ between CPUs */
	exit_add(&stats->reason[reason].count, 1);
	exit_add(&stats->reason[reason].tsc, tsc);
	exit_add(&stats->hist[reason][exit_bucket(tsc)], 1);
	if (key == EXIT_NO_KEY)
		return;
	k = exit_key_slot(stats, reason, key);
	exit_add(&k->n.count, 1);
	exit_add(&k->n.tsc, tsc);
}

void exit_account(struct vcpu *vcpu, enum exit_reason reason, u64 key, u64 t0)
{
	if ((unsigned)reason >= EXIT_NR)
		return;
	exit_book(vcpu, reason, key, t0 ? vcpu_rdtsc() - t0 : 0);
}

/* Where on the bus it is: each processor may see its local APIC at an address of its own [SDM3 10.4.5]. */
static u64 exit_mmio_addr(const struct vcpu *vcpu, u64 addr)
{
	u64 page = addr & ~(u64)EXIT_PAGE_MASK, offset = addr & EXIT_PAGE_MASK;

	if (likely(vcpu->apic_page == vcpu->apic_home))
		return addr;
	if (page == vcpu->apic_page)
		return vcpu->apic_home | offset;
	return page == vcpu->apic_home ? EXIT_NOWHERE | offset : addr;
}

void exit_dispatch(struct vcpu *vcpu, struct vm_exit *exit)
{
	u64 t0 = vcpu_rdtsc();
	struct vm *vm = vcpu->vm;
	u64 key = exit->addr, addr;

	exit->fault = false;
	switch (exit->reason) {
	case EXIT_IO:
		if (exit->write)
			bus_write(&vm->bus, BUS_PIO, exit->addr, exit->size, exit->data);
		else
			exit->data = bus_read(&vm->bus, BUS_PIO, exit->addr, exit->size);
		break;
	case EXIT_EPT_VIOLATION:
		addr = exit_mmio_addr(vcpu, exit->addr);
		if (exit->write)
			bus_write(&vm->bus, BUS_MMIO, addr, exit->size, exit->data);
		else
			exit->data = bus_read(&vm->bus, BUS_MMIO, addr, exit->size);
		break;
	case EXIT_RDMSR:
		exit->data = 0;
		exit->fault = !bus_read_msr(&vm->bus, vcpu, (u32)exit->addr, &exit->data);
		break;
	case EXIT_VMCALL:
		exit->data =
			vm->pv ? (u64)vm->pv->call(vm->pv_opaque, vcpu, exit->addr, exit->arg, exit->is_long)
			       : (u64)-EXIT_KVM_ENOSYS;
		break;
	case EXIT_WRMSR: exit->fault = !bus_write_msr(&vm->bus, vcpu, (u32)exit->addr, exit->data); break;
	default:
		/* Not the machine's to answer: the engine's mistake, not the guest's. */
		log_guest("exit for reason %u reached the machine", (unsigned)exit->reason);
		exit->fault = true;
		if ((unsigned)exit->reason >= EXIT_NR)
			return;
		key = EXIT_NO_KEY;
		break;
	}
	exit_book(vcpu, exit->reason, key, vcpu_rdtsc() - t0);
}

/* ---- the report ---- */

struct exit_row {
	unsigned reason;
	u64 key;
	struct exit_count n;
};

struct exit_report {
	struct exit_row reason[EXIT_NR]; /* those that occurred, largest first */
	unsigned nr_reasons;
	struct exit_row *key; /* sorted by reason, then largest first */
	size_t nr_keys;
	u64 hist[EXIT_NR][EXIT_HIST];
	u64 keys_dropped;
	u64 wall, guest, exits, idle; /* TSC ticks */
	u64 insns;
	u64 tsc_khz;
};

static int exit_cmp_u64(u64 a, u64 b)
{
	return (a > b) - (a < b);
}

static int exit_cmp_size(const void *pa, const void *pb)
{
	const struct exit_row *a = pa, *b = pb;
	int c = exit_cmp_u64(b->n.tsc, a->n.tsc);

	if (!c)
		c = exit_cmp_u64(b->n.count, a->n.count);
	return c ? c : exit_cmp_u64(a->reason, b->reason);
}

static int exit_cmp_key(const void *pa, const void *pb)
{
	const struct exit_row *a = pa, *b = pb;
	int c = exit_cmp_u64(a->reason, b->reason);

	return c ? c : exit_cmp_u64(a->key, b->key);
}

static int exit_cmp_reason_size(const void *pa, const void *pb)
{
	const struct exit_row *a = pa, *b = pb;
	int c = exit_cmp_u64(a->reason, b->reason);

	return c ? c : exit_cmp_size(pa, pb);
}

static bool exit_wanted(int vcpu, u32 i)
{
	return vcpu == EXIT_ALL_VCPUS || (u32)vcpu == i;
}

static void exit_collect_keys(struct vm *vm, int vcpu, struct exit_report *rep)
{
	size_t n = 0, out = 0;

	rep->key = calloc((size_t)MAX(vm->nr_vcpus, 1u) * EXIT_MAX_KEYS, sizeof(*rep->key));
	if (!rep->key)
		return; /* the table then comes without keys */
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		const struct exit_stats *s = &vm->vcpu[i]->stats;

		if (!exit_wanted(vcpu, i))
			continue;
		for (unsigned k = 0; k < EXIT_MAX_KEYS; k++) {
			if (!__atomic_load_n(&s->key[k].used, __ATOMIC_ACQUIRE))
				continue;
			rep->key[n++] = (struct exit_row){
				.reason = __atomic_load_n(&s->key[k].reason, __ATOMIC_RELAXED),
				.key = exit_get(&s->key[k].key),
				.n = { exit_get(&s->key[k].n.count), exit_get(&s->key[k].n.tsc) },
			};
		}
	}
	qsort(rep->key, n, sizeof(*rep->key), exit_cmp_key);
	for (size_t i = 0; i < n; i++) {
		if (out && !exit_cmp_key(&rep->key[out - 1], &rep->key[i])) {
			rep->key[out - 1].n.count += rep->key[i].n.count;
			rep->key[out - 1].n.tsc += rep->key[i].n.tsc;
		} else {
			rep->key[out++] = rep->key[i];
		}
	}
	qsort(rep->key, out, sizeof(*rep->key), exit_cmp_reason_size);
	rep->nr_keys = out;
}

/* Without the keys. */
/* What the engine has waited by itself; the times of single waits are not known. */
static void exit_add_waits(struct vcpu *vcpu, u64 tsc_khz, struct exit_count *halts, u64 *idle)
{
	const struct engine_ops *engine = vcpu->vm->engine;
	struct engine_wait wait;
	u64 tsc;

	if (!engine || !engine->waited || !vcpu->engine || !engine->waited(vcpu, &wait))
		return;
	tsc = (u64)((unsigned __int128)wait.ns * tsc_khz / 1000000);
	halts->count += wait.count;
	halts->tsc += tsc;
	*idle += tsc;
}

static void exit_collect_sums(struct vm *vm, int vcpu, struct exit_report *rep)
{
	struct exit_count sum[EXIT_NR] = { 0 };
	u64 now = vcpu_rdtsc();

	memset(rep, 0, sizeof(*rep));
	rep->tsc_khz = vm->tsc_khz ? vm->tsc_khz : os_tsc_khz();
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		const struct exit_stats *s = &vm->vcpu[i]->stats;
		u64 start = exit_get(&s->start_tsc), stop = exit_get(&s->stop_tsc);

		if (!exit_wanted(vcpu, i))
			continue;
		if (!stop)
			stop = now;
		if (start && stop > start)
			rep->wall += stop - start;
		rep->idle += exit_get(&s->idle_tsc);
		rep->insns += exit_get(&s->insns);
		rep->keys_dropped += exit_get(&s->keys_dropped);
		for (unsigned r = 0; r < EXIT_NR; r++) {
			sum[r].count += exit_get(&s->reason[r].count);
			sum[r].tsc += exit_get(&s->reason[r].tsc);
			for (unsigned b = 0; sum[r].count && b < EXIT_HIST; b++)
				rep->hist[r][b] += exit_get(&s->hist[r][b]);
		}
		exit_add_waits(vm->vcpu[i], rep->tsc_khz, &sum[EXIT_HLT], &rep->idle);
	}
	for (unsigned r = 0; r < EXIT_NR; r++) {
		if (!sum[r].count)
			continue;
		rep->reason[rep->nr_reasons++] =
			(struct exit_row){ .reason = r, .key = EXIT_NO_KEY, .n = sum[r] };
		if (r != EXIT_HLT)
			rep->exits += sum[r].tsc;
	}
	qsort(rep->reason, rep->nr_reasons, sizeof(rep->reason[0]), exit_cmp_size);
	if (rep->wall > rep->exits + rep->idle)
		rep->guest = rep->wall - rep->exits - rep->idle;
}

static void exit_collect(struct vm *vm, int vcpu, struct exit_report *rep)
{
	exit_collect_sums(vm, vcpu, rep);
	exit_collect_keys(vm, vcpu, rep);
}

void exit_keep_waits(struct vcpu *vcpu)
{
	struct exit_stats *s = &vcpu->stats;

	exit_add_waits(vcpu, vcpu->vm->tsc_khz, &s->reason[EXIT_HLT], &s->idle_tsc);
}

static u64 exit_ns(const struct exit_report *rep, u64 tsc)
{
	return (u64)((unsigned __int128)tsc * 1000000 / rep->tsc_khz);
}

void exit_sum(struct vm *vm, int vcpu, struct exit_sums *ret_sums)
{
	struct exit_report rep;

	exit_collect_sums(vm, vcpu, &rep);
	*ret_sums = (struct exit_sums){
		.wall_ns = exit_ns(&rep, rep.wall),
		.guest_ns = exit_ns(&rep, rep.guest),
		.exits_ns = exit_ns(&rep, rep.exits),
		.idle_ns = exit_ns(&rep, rep.idle),
		.insns = rep.insns,
	};
	for (unsigned i = 0; i < rep.nr_reasons; i++) {
		const struct exit_row *row = &rep.reason[i];

		ret_sums->reason[row->reason].count = row->n.count;
		ret_sums->reason[row->reason].ns = exit_ns(&rep, row->n.tsc);
		memcpy(ret_sums->reason[row->reason].hist, rep.hist[row->reason], sizeof(rep.hist[0]));
	}
	for (unsigned b = 0; b < EXIT_HIST; b++)
		ret_sums->hist_ns[b] = exit_ns(&rep, BIT(b));
}

void exit_each_key(struct vm *vm,
		   void (*fn)(void *opaque, enum exit_reason reason, const char *what, u64 key, u64 count,
			      u64 ns),
		   void *opaque)
{
	struct exit_report rep;

	exit_collect(vm, EXIT_ALL_VCPUS, &rep);
	for (size_t i = 0; i < rep.nr_keys; i++) {
		const struct exit_row *row = &rep.key[i];
		const char *what = exit_info[row->reason].key;

		fn(opaque, (enum exit_reason)row->reason, what ? what : "key", row->key, row->n.count,
		   exit_ns(&rep, row->n.tsc));
	}
	free(rep.key);
}

static double exit_ms(const struct exit_report *rep, u64 tsc)
{
	return (double)exit_ns(rep, tsc) / 1e6;
}

static double exit_share(const struct exit_report *rep, u64 tsc)
{
	return rep->wall ? 100.0 * (double)tsc / (double)rep->wall : 0;
}

static double exit_mips(const struct exit_report *rep)
{
	return rep->guest ? (double)rep->insns * 1e3 / (double)exit_ns(rep, rep->guest) : 0;
}

static void exit_print_row(const struct exit_report *rep, const char *label, const struct exit_row *row,
			   FILE *out)
{
	fprintf(out, "%-38s %12llu %12.3f %12llu %6.2f%%\n", label, (unsigned long long)row->n.count,
		exit_ms(rep, row->n.tsc),
		(unsigned long long)(row->n.count ? exit_ns(rep, row->n.tsc) / row->n.count : 0),
		exit_share(rep, row->n.tsc));
}

static void exit_print_keys(const struct exit_report *rep, unsigned reason, FILE *out)
{
	unsigned shown = 0, more = 0;
	char label[64];

	for (size_t i = 0; i < rep->nr_keys; i++) {
		const struct exit_row *row = &rep->key[i];

		if (row->reason != reason)
			continue;
		if (shown == EXIT_TOP_KEYS) {
			more++;
			continue;
		}
		shown++;
		snprintf(label, sizeof(label), "       %s 0x%llx",
			 exit_info[reason].key ? exit_info[reason].key : "key", (unsigned long long)row->key);
		exit_print_row(rep, label, row, out);
	}
	if (more)
		fprintf(out, "       and %u more\n", more);
}

static void exit_print_time(const struct exit_report *rep, const char *label, u64 tsc, FILE *out)
{
	fprintf(out, "%-38s %25.3f ms %16.2f%%\n", label, exit_ms(rep, tsc), exit_share(rep, tsc));
}

/* The engine's own figures, vCPU by vCPU. */
static void exit_print_engine(struct vm *vm, int vcpu, FILE *out)
{
	struct engine_stat stat[ENGINE_MAX_STATS];

	for (u32 k = 0; vm->engine && vm->engine->stats && k < vm->nr_vcpus; k++) {
		unsigned n;

		if (!exit_wanted(vcpu, k))
			continue;
		n = vm->engine->stats(vm->vcpu[k], stat);

		fprintf(out, "engine %s, vCPU %u\n", vm->engine->name, k);
		for (unsigned s = 0; s < n; s++) {
			char label[64];

			snprintf(label, sizeof(label), "  %s", stat[s].name);
			for (char *p = label; *p; p++)
				*p = *p == '_' ? ' ' : *p;
			fprintf(out, "%-38s %12llu\n", label, (unsigned long long)stat[s].value);
		}
	}
}

static void exit_json_engine(struct vm *vm, int vcpu, FILE *out)
{
	struct engine_stat stat[ENGINE_MAX_STATS];

	fprintf(out, "  \"engine\": [");
	for (u32 k = 0; vm->engine && vm->engine->stats && k < vm->nr_vcpus; k++) {
		unsigned n;

		if (!exit_wanted(vcpu, k))
			continue;
		n = vm->engine->stats(vm->vcpu[k], stat);

		fprintf(out, "%s\n    {\"vcpu\": %u", k && vcpu == EXIT_ALL_VCPUS ? "," : "", k);
		for (unsigned s = 0; s < n; s++)
			fprintf(out, ", \"%s\": %llu", stat[s].name, (unsigned long long)stat[s].value);
		fprintf(out, "}");
	}
	fprintf(out, "],\n");
}

void exit_print(struct vm *vm, int vcpu, FILE *out)
{
	struct exit_report rep;
	char label[64];

	exit_collect(vm, vcpu, &rep);
	fprintf(out, "%-38s %12s %12s %12s %7s\n", "exit reason", "count", "total ms", "mean ns", "share");
	for (unsigned i = 0; i < rep.nr_reasons; i++) {
		snprintf(label, sizeof(label), "%4u  %s", rep.reason[i].reason,
			 exit_name(rep.reason[i].reason));
		exit_print_row(&rep, label, &rep.reason[i], out);
		exit_print_keys(&rep, rep.reason[i].reason, out);
	}
	if (!rep.nr_reasons)
		fprintf(out, "   no exits\n");
	if (rep.keys_dropped)
		fprintf(out, "%llu exits were booked under their reason alone: too many different keys\n",
			(unsigned long long)rep.keys_dropped);
	if (vcpu == EXIT_ALL_VCPUS)
		snprintf(label, sizeof(label), "wall time of %u vCPU%s", vm->nr_vcpus,
			 vm->nr_vcpus == 1 ? "" : "s");
	else
		snprintf(label, sizeof(label), "wall time of vCPU %d", vcpu);
	exit_print_time(&rep, label, rep.wall, out);
	exit_print_time(&rep, "  in the guest", rep.guest, out);
	exit_print_time(&rep, "  in exits (all but HLT)", rep.exits, out);
	exit_print_time(&rep, "  idle", rep.idle, out);
	if (rep.insns)
		fprintf(out, "guest instructions %llu, %.1f million per second of guest time\n",
			(unsigned long long)rep.insns, exit_mips(&rep));
	exit_print_engine(vm, vcpu, out);
	free(rep.key);
}

static void exit_json_count(const struct exit_report *rep, const struct exit_row *row, FILE *out)
{
	fprintf(out, "\"count\": %llu, \"ns\": %llu", (unsigned long long)row->n.count,
		(unsigned long long)exit_ns(rep, row->n.tsc));
}

/* Buckets with something in them; those of exits that were not timed are left out. */
static void exit_json_hist(const struct exit_report *rep, unsigned reason, FILE *out)
{
	const char *sep = "";

	fprintf(out, ", \"histogram\": [");
	for (unsigned b = 1; b < EXIT_HIST; b++) {
		if (!rep->hist[reason][b])
			continue;
		fprintf(out, "%s{\"below_ns\": %llu, \"count\": %llu}", sep,
			(unsigned long long)exit_ns(rep, BIT(b)), (unsigned long long)rep->hist[reason][b]);
		sep = ", ";
	}
	fputc(']', out);
}

static void exit_json_reason(const struct exit_report *rep, const struct exit_row *row, FILE *out)
{
	const char *sep = "";

	/* Names and keys of the table are plain text without quotes or backslashes. */
	fprintf(out, "    {\"reason\": %u, \"name\": \"%s\", ", row->reason, exit_name(row->reason));
	exit_json_count(rep, row, out);
	if (exit_info[row->reason].key)
		fprintf(out, ", \"key\": \"%s\"", exit_info[row->reason].key);
	fprintf(out, ", \"keys\": [");
	for (size_t i = 0; i < rep->nr_keys; i++) {
		if (rep->key[i].reason != row->reason)
			continue;
		fprintf(out, "%s\n      {\"key\": \"0x%llx\", ", sep, (unsigned long long)rep->key[i].key);
		exit_json_count(rep, &rep->key[i], out);
		fprintf(out, "}");
		sep = ",";
	}
	fputc(']', out);
	exit_json_hist(rep, row->reason, out);
	fputc('}', out);
}

void exit_print_json(struct vm *vm, int vcpu, FILE *out)
{
	struct exit_report rep;

	exit_collect(vm, vcpu, &rep);
	fprintf(out, "{\n  \"vcpus\": %u,\n  \"wall_ns\": %llu,\n  \"guest_ns\": %llu,\n",
		vcpu == EXIT_ALL_VCPUS ? vm->nr_vcpus : 1, (unsigned long long)exit_ns(&rep, rep.wall),
		(unsigned long long)exit_ns(&rep, rep.guest));
	fprintf(out, "  \"exits_ns\": %llu,\n  \"idle_ns\": %llu,\n",
		(unsigned long long)exit_ns(&rep, rep.exits), (unsigned long long)exit_ns(&rep, rep.idle));
	fprintf(out, "  \"instructions\": %llu,\n  \"keys_dropped\": %llu,\n", (unsigned long long)rep.insns,
		(unsigned long long)rep.keys_dropped);
	exit_json_engine(vm, vcpu, out);
	fprintf(out, "  \"reasons\": [\n");
	for (unsigned i = 0; i < rep.nr_reasons; i++) {
		exit_json_reason(&rep, &rep.reason[i], out);
		fprintf(out, i + 1 < rep.nr_reasons ? ",\n" : "\n");
	}
	fprintf(out, "  ]\n}\n");
	free(rep.key);
}
