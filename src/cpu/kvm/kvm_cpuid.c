/* CPU models under KVM: the features that this host's KVM can run, and the model's leaves for each vCPU.
 *
 * The leaves are those of vm->cpuid, the same as on the other engine; KVM answers CPUID from them by itself and puts in
 * what changes while the guest runs (OSXSAVE, the size of the XSAVE area).
 *
 * The XSAVE area of a guest has the layout of the host's processor, since that executes XSAVE. A model shows the
 * layout of its vendor's processors; a host that has another one is refused.
 *
 * Main thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"
#include "x86/cpuid.h"

#define MAX_SUPPORTED 256

union supported KVM_ROOM(kvm_cpuid2, kvm_cpuid_entry2, MAX_SUPPORTED);

struct feature {
	u32 leaf, subleaf;
	u8 reg, bit;
};

static const struct feature features[X86_NR_FEATURES] = {
#define FEATURE_(name, l, s, r, b, level) { l, s, r, b },
	X86_FEATURES(FEATURE_)
#undef FEATURE_
};

/* bothy's own, or decided by the machine: there whatever KVM says. */
static const u8 own[] = { X86_FEATURE_APIC, X86_FEATURE_X2APIC, X86_FEATURE_TSC_DEADLINE, X86_FEATURE_HTT,
			  X86_FEATURE_HYPERVISOR };
/* Those for which the guest calls the machine, or KVM where that has the local APICs. */
static const u8 by_hypercall[] = { X86_FEATURE_PV_UNHALT, X86_FEATURE_PV_SEND_IPI,
				   X86_FEATURE_PV_SCHED_YIELD };

/* VME is not offered by the other engine, so a guest that had it could not move. */
static bool listed(const u8 *list, size_t n, unsigned f)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == f)
			return true;
	return false;
}

static int ask(int sys_fd, union supported **ret, struct err *err)
{
	union supported *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for what KVM says of the processor");
	s->head.nent = MAX_SUPPORTED;
	r = KVM_CALL(sys_fd, KVM_GET_SUPPORTED_CPUID, &s->head, err);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static const struct kvm_cpuid_entry2 *find(const union supported *s, u32 leaf, u32 subleaf)
{
	for (u32 i = 0; i < MIN(s->head.nent, (u32)MAX_SUPPORTED); i++)
		if (s->head.entries[i].function == leaf &&
		    (!(s->head.entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) ||
		     s->head.entries[i].index == subleaf))
			return &s->head.entries[i];
	return NULL;
}

static bool offered(const union supported *s, const struct feature *f)
{
	const struct kvm_cpuid_entry2 *e = find(s, f->leaf, f->subleaf);
	u32 r[4];

	if (!e)
		return false;
	memcpy(r, (const u32[]){ e->eax, e->ebx, e->ecx, e->edx }, sizeof(r));
	return r[f->reg] >> f->bit & 1;
}

bool kvm_cpuid_keeps_record(int sys_fd)
{
	static const struct feature steal_time = { .leaf = 0x40000001, .bit = 5 }; /* [KVM cpuid] */
	union supported *s = NULL;
	bool is = !ask(sys_fd, &s, NULL) && offered(s, &steal_time);

	free(s);
	return is;
}

void kvm_cpuid_features(const struct engine_conf *conf, u64 ret_features[4])
{
	int fd = kvm_sys_open(NULL);
	union supported *s = NULL;

	memset(ret_features, 0, 4 * sizeof(u64));
	if (fd < 0)
		return;
	if (!ask(fd, &s, NULL)) {
		bool split = conf->irqchip != IRQCHIP_USER && kvm_apic_offered(fd);
		bool calls = kvm_sys_hypercalls(fd);
		bool nested = conf->nested && split && kvm_sys_cap(fd, KVM_CAP_NESTED_STATE);

		for (unsigned f = 0; f < X86_NR_FEATURES; f++) {
			bool on = f == X86_FEATURE_VME   ? false
				  : cpuid_runs_guests(f) ? nested && offered(s, &features[f])
				  : listed(by_hypercall, ARRAY_SIZE(by_hypercall), f)
					  ? split ? offered(s, &features[f]) : calls
				  : listed(own, ARRAY_SIZE(own), f) ? true
								    : offered(s, &features[f]);

			if (on)
				ret_features[f / 64] |= BIT(f % 64);
		}
	}
	free(s);
	close(fd);
}

const char *kvm_cpuid_nested(const struct engine_conf *conf, struct err *err)
{
	u64 f[4];

	kvm_cpuid_features(conf, f);
	if (cpuid_bit(f, X86_FEATURE_SVM))
		return "SVM";
	if (cpuid_bit(f, X86_FEATURE_VMX))
		return "VMX";
	if (conf->irqchip == IRQCHIP_USER)
		err_set(err, -ENOTSUP,
			"nested=on needs local APICs of KVM's, which know whom an interrupt is for, the guest or the guest "
			"that it runs; use it with irqchip=split or full");
	else
		err_set(err, -ENOTSUP,
			"this host's KVM has neither SVM nor VMX for a guest, so nested=on cannot be had; load kvm_amd or "
			"kvm_intel with nested=1, or leave it out");
	return NULL;
}

/* Is the component where the model says? */
static bool fits(const union supported *s, u32 component, u32 offset)
{
	const struct kvm_cpuid_entry2 *e = find(s, 0xd, component);

	return e && e->ebx == offset;
}

int kvm_cpuid_check(int sys_fd, const struct cpuid_table *t, struct err *err)
{
	union supported *s = NULL;
	int r;

	if (!(t->xcr0_mask & XFEATURE_OPMASK))
		return 0;
	r = ask(sys_fd, &s, err);
	if (!s)
		return r;
	if (!fits(s, 5, t->xsave.opmask) || !fits(s, 6, t->xsave.zmm_hi256) || !fits(s, 7, t->xsave.hi16_zmm))
		r = err_set(err, -ENOTSUP,
			    "this host's processor keeps AVX-512's registers in other places than CPU model "
			    "'%s' shows; use --cpu v3 or --engine soft",
			    t->model);
	free(s);
	return r;
}

int kvm_cpuid_set(struct kvm_cpu *k, struct err *err)
{
	const struct cpuid_table *t = &k->vcpu->vm->cpuid;
	union supported *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for the CPU model of vCPU %u", k->vcpu->id);
	for (u32 i = 0; i < t->nr; i++) {
		const struct cpuid_entry *e = &t->entry[i];
		u32 reg[4];

		cpuid_query(t, e->leaf, e->subleaf, k->vcpu->id, 0, 1, 0, reg);
		s->head.entries[i] = (struct kvm_cpuid_entry2){
			.function = e->leaf,
			.index = e->subleaf,
			.flags = e->by_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = reg[0],
			.ebx = reg[1],
			.ecx = reg[2],
			.edx = reg[3],
		};
	}
	s->head.nent = t->nr;
	r = KVM_CALL(k->fd, KVM_SET_CPUID2, &s->head, err);
	free(s);
	return MIN(r, 0);
}
