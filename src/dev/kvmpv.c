/* KVM's paravirtual interface beyond its clock: hypercalls, and the record of stolen time.
 *
 * Documents: Linux Documentation/virt/kvm/x86/hypercalls.rst, cpuid.rst and msr.rst, cited as [KVM hypercalls], [KVM cpuid],
 * [KVM msr].
 *
 * What it is for: a guest with more vCPUs than the host has processors to spare loses time wherever a running vCPU waits for one
 * that does not run. A waiter for a spinlock halts instead (the holder wakes it by a kick); an interrupt for many is one
 * exit instead of one each; and a vCPU that is off, because it sleeps in HLT or has given its processor away, is
 * marked in a structure in the guest's memory, so that others need not interrupt it for the sake of its TLB: they
 * leave a bit there, and the TLB is flushed before the vCPU executes anything again.
 *
 * How that bit is not lost: off() stores PREEMPTED, on() exchanges the byte for 0 and looks at what was there. A guest's
 * compare-and-exchange from PREEMPTED to PREEMPTED | FLUSH comes before that exchange, and is seen, or finds 0, and the guest
 * sends its interrupt. Between the two the vCPU executes nothing.
 *
 * Stolen time is what the host's scheduler says the thread was ready and did not get a processor; a guest's scheduler
 * takes it into account. It is written at the local timer's interrupts and when a vCPU comes back, but not more often than
 * every millisecond or so.
 *
 * DEVIATION: a vCPU's thread that the host puts off of its own accord is not marked; only the kernel could do that.
 * Omitted, and why that is safe: the other hypercalls; they are not offered in CPUID, and fail with KVM's ENOSYS.
 *
 * Threads: everything but init, reset and fini on the vCPU's own, where nobody else touches its entries.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "dev/lapic.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/dma.h"
#include "vm/pv.h"
#include "vm/vm.h"

/* [KVM hypercalls] */
#define HC_KICK_CPU    5
#define HC_SEND_IPI    10
#define HC_SCHED_YIELD 11
#define KVM_ENOSYS     1000
#define KVM_EINVAL     22

#define ICR_VECTOR   0xffu
#define ICR_MODE     (7u << 8)
#define ICR_ASSERT   BIT(14)
#define ICR_ACCEPTED (ICR_VECTOR | ICR_MODE | ICR_ASSERT)

/* The record, by offset [KVM msr] */
#define STEAL_NS      0
#define STEAL_VERSION 8
#define STEAL_FLAGS   12
#define STEAL_STATE   16
#define STEAL_SIZE    64
#define STATE_OFF     BIT(0) /* "preempted" */
#define STATE_FLUSH   BIT(1)

#define MSR_ENABLE   BIT(0)
#define MSR_RESERVED 0x3eu /* the record is aligned to its size */

struct kvmpv {
	struct device dev;
	struct msr_region msr;
	bool msr_added;
	u64 seen[VM_MAX_VCPUS];     /* vcpu_delay_ns() as it was last added to stolen */
	u64 seen_tsc[VM_MAX_VCPUS]; /* and when; 0: not yet */

	/* State */
	u64 record[VM_MAX_VCPUS]; /* the MSR: where the record is */
	u64 stolen[VM_MAX_VCPUS]; /* ns */
	u32 version[VM_MAX_VCPUS];
};

/* ---- the record of stolen time ---- */

/* NULL: the guest has none, or it is not in RAM any more (a state that was loaded). */
static u8 *record_of(struct kvmpv *k, const struct vcpu *vcpu)
{
	u64 msr = k->record[vcpu->id];

	return msr & MSR_ENABLE ? dma_map(k->dev.vm, msr & ~(u64)MSR_ENABLE, STEAL_SIZE, true) : NULL;
}

static void write_record(struct kvmpv *k, const struct vcpu *vcpu, u8 *record)
{
	u32 version = k->version[vcpu->id];

	st32(record + STEAL_VERSION, version + 1);
	atomic_thread_fence(memory_order_release);
	st64(record + STEAL_NS, k->stolen[vcpu->id]);
	st32(record + STEAL_FLAGS, 0);
	atomic_thread_fence(memory_order_release);
	st32(record + STEAL_VERSION, version + 2);
	k->version[vcpu->id] = version + 2;
	dma_written(k->dev.vm, record, STEAL_SIZE);
}

static void update(struct kvmpv *k, struct vcpu *vcpu, u8 *record)
{
	u64 now = vcpu_rdtsc(), delay, *seen = &k->seen[vcpu->id], *seen_tsc = &k->seen_tsc[vcpu->id];

	if (*seen_tsc && now - *seen_tsc < k->dev.vm->tsc_khz)
		return;
	delay = vcpu_delay_ns(vcpu);
	if (*seen_tsc && delay > *seen)
		k->stolen[vcpu->id] += delay - *seen;
	*seen = delay;
	*seen_tsc = now;
	write_record(k, vcpu, record);
}

static void kvmpv_tick(void *opaque, struct vcpu *vcpu)
{
	struct kvmpv *k = opaque;
	u8 *record = record_of(k, vcpu);

	if (record)
		update(k, vcpu, record);
}

static void kvmpv_off(void *opaque, struct vcpu *vcpu)
{
	struct kvmpv *k = opaque;
	u8 *record = record_of(k, vcpu);

	if (!record)
		return;
	__atomic_store_n(record + STEAL_STATE, STATE_OFF, __ATOMIC_SEQ_CST);
	dma_written(k->dev.vm, record + STEAL_STATE, 1);
}

static void kvmpv_on(void *opaque, struct vcpu *vcpu)
{
	struct kvmpv *k = opaque;
	u8 *record = record_of(k, vcpu);

	if (!record)
		return;
	if (__atomic_exchange_n(record + STEAL_STATE, 0, __ATOMIC_SEQ_CST) & STATE_FLUSH)
		vcpu_post(vcpu, VCPU_REQ_FLUSH);
	dma_written(k->dev.vm, record + STEAL_STATE, 1);
	update(k, vcpu, record);
}

static u64 kvmpv_get_record(void *opaque, struct vcpu *vcpu)
{
	const struct kvmpv *k = opaque;

	return k->record[vcpu->id];
}

/* What an engine has written goes on from there; the vCPU is not off any more, whatever that has left. */
static void kvmpv_set_record(void *opaque, struct vcpu *vcpu, u64 msr)
{
	struct kvmpv *k = opaque;
	u8 *record;

	k->record[vcpu->id] = msr;
	record = record_of(k, vcpu);
	if (!record)
		return;
	k->stolen[vcpu->id] = ld64(record + STEAL_NS);
	k->version[vcpu->id] = ld32(record + STEAL_VERSION) & ~1u;
	k->seen_tsc[vcpu->id] = 0;
	kvmpv_on(k, vcpu);
}

static bool kvmpv_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct kvmpv *k = opaque;

	*ret_val = k->record[vcpu->id];
	return true;
}

static bool kvmpv_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct kvmpv *k = opaque;
	u64 old = k->record[vcpu->id];
	u8 *record;

	if (val & MSR_RESERVED)
		return false;
	k->record[vcpu->id] = val;
	if (!(val & MSR_ENABLE))
		return true;
	record = record_of(k, vcpu);
	if (!record) {
		k->record[vcpu->id] = old;
		return false;
	}
	/* Counts from here on: what was waited for before was not the guest's. */
	k->seen_tsc[vcpu->id] = 0;
	update(k, vcpu, record);
	return true;
}

static const struct msr_ops kvmpv_msr_ops = { .read = kvmpv_read, .write = kvmpv_write };

/* ---- hypercalls ---- */

static struct vcpu *by_apic_id(struct vm *vm, u64 id)
{
	return id < vm->nr_vcpus ? vm->vcpu[id] : NULL;
}

static s64 kick(struct vm *vm, u64 apic_id)
{
	struct vcpu *target = by_apic_id(vm, apic_id);

	if (!target)
		return -KVM_EINVAL;
	vcpu_post(target, VCPU_REQ_KICK);
	return 0;
}

/* arg: two words of a bitmap, the APIC id that its first bit stands for, the low word of an ICR. */
static s64 send_ipi(struct vm *vm, const u64 arg[4], bool is_long)
{
	u64 icr = arg[3], min = is_long ? arg[2] : (u32)arg[2], ids = 0;
	unsigned taken, width = is_long ? 64 : 32;

	if (icr & ~(u64)ICR_ACCEPTED)
		return -KVM_EINVAL;
	for (unsigned bit = 0; bit < 2 * width && min < VM_MAX_VCPUS && bit < VM_MAX_VCPUS - min; bit++)
		if (arg[bit / width] >> bit % width & 1)
			ids |= BIT(min + bit);
	pthread_mutex_lock(&vm->intc_lock);
	taken = lapic_deliver_ids(vm, ids, (u8)((icr & ICR_MODE) >> 8), (u8)icr);
	pthread_mutex_unlock(&vm->intc_lock);
	return (s64)taken;
}

static s64 kvmpv_call(void *opaque, struct vcpu *vcpu, u64 nr, const u64 arg[4], bool is_long)
{
	struct kvmpv *k = opaque;
	struct vm *vm = k->dev.vm;

	switch (nr) {
	case HC_KICK_CPU: return kick(vm, arg[1]);
	case HC_SEND_IPI: return send_ipi(vm, arg, is_long);
	case HC_SCHED_YIELD:
		if (!by_apic_id(vm, arg[0]))
			return -KVM_EINVAL;
		/* The host has no call for "to that one". */
		vcpu_yield(vcpu);
		return 0;
	default: return -KVM_ENOSYS;
	}
}

static const struct pv_ops pv_ops = { kvmpv_call, kvmpv_off,        kvmpv_on,
				      kvmpv_tick, kvmpv_get_record, kvmpv_set_record };

/* ---- the device ---- */

static int kvmpv_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct kvmpv *k = container_of(dev, struct kvmpv, dev);
	int r;

	/* Without a lock: see Threads above. */
	k->msr = (struct msr_region){ "KVM stolen time",  &kvmpv_msr_ops,    k, NULL,
				      MSR_KVM_STEAL_TIME, MSR_KVM_STEAL_TIME };
	r = bus_add_msr(&dev->vm->bus, &k->msr);
	if (r < 0)
		return err_sys(err, r, "the MSR %#x of stolen time cannot be added", MSR_KVM_STEAL_TIME);
	k->msr_added = true;
	dev->vm->pv = &pv_ops;
	dev->vm->pv_opaque = k;
	return 0;
}

static void kvmpv_reset(struct device *dev, enum reset_kind kind)
{
	struct kvmpv *k = container_of(dev, struct kvmpv, dev);

	memset(k->record, 0, sizeof(k->record));
	memset(k->stolen, 0, sizeof(k->stolen));
	memset(k->version, 0, sizeof(k->version));
	memset(k->seen_tsc, 0, sizeof(k->seen_tsc));
}

static const struct state_field kvmpv_state[] = {
	STATE_U64S(kvmpv, record),
	STATE_U64S(kvmpv, stolen),
	STATE_U32S(kvmpv, version),
	STATE_END,
};

static int kvmpv_post_load(struct device *dev, struct err *err)
{
	struct kvmpv *k = container_of(dev, struct kvmpv, dev);
	struct vm *vm = dev->vm;

	for (u32 id = 0; id < VM_MAX_VCPUS; id++) {
		u64 msr = k->record[id];

		if (msr & MSR_RESERVED || k->version[id] & 1 ||
		    (msr & MSR_ENABLE &&
		     (id >= vm->nr_vcpus || !dma_map(vm, msr & ~(u64)MSR_ENABLE, STEAL_SIZE, true))))
			return err_set(
				err, -EINVAL,
				"the state of device %s has an impossible record %#llx of stolen time for vCPU %u",
				dev->id, (unsigned long long)msr, id);
		k->seen_tsc[id] = 0;
	}
	return 0;
}

static void kvmpv_fini(struct device *dev)
{
	struct kvmpv *k = container_of(dev, struct kvmpv, dev);

	if (dev->vm->pv_opaque == k)
		dev->vm->pv = NULL;
	if (k->msr_added)
		bus_del_msr(&dev->vm->bus, &k->msr);
}

const struct device_ops kvmpv_device = {
	.name = "kvmpv",
	.size = sizeof(struct kvmpv),
	.init = kvmpv_init,
	.reset = kvmpv_reset,
	.state = kvmpv_state,
	.post_load = kvmpv_post_load,
	.fini = kvmpv_fini,
};
