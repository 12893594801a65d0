/* The KVM paravirtual clock: time structures in the guest's memory, asked for through MSRs.
 *
 * Document: Linux Documentation/virt/kvm/x86/msr.rst and cpuid.rst, cited as [KVM msr] and [KVM cpuid].
 *
 * How it works: a guest computes system_time + ((tsc - tsc_timestamp) scaled) from the structure of its
 * vCPU. One pair (host TSC, guest time) serves all vCPUs, taken when the first of them asks and again by
 * kvmclock_refresh(); as all of them extrapolate from it, the clock is the same on all, and the flag that
 * says so is set. While a structure is being written its version is odd.
 *
 * Omitted, and why that is safe: no periodic update, as the host's TSC is constant; the flag "guest was
 * paused" (a pause stops guest time, so that no watchdog sees it). A guest that writes its TSC must write
 * the MSR again, as the structure would no longer fit; nobody who uses this clock does.
 *
 * Threads: MSRs on the vCPU's own under the device's lock; the rest on the main thread while no vCPU runs.
 */
#include "dev/kvmclock.h"

#include <errno.h>

#include "base/bits.h"
#include "base/os.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/dma.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

#define NS_PER_S 1000000000ull

#define SYSTEM_TIME_ENABLE BIT(0)
#define SYSTEM_TIME_ALIGN  BIT(1) /* must be 0: the structure is 4-byte aligned */
#define WALL_CLOCK_ALIGN   3

/* The structures, by offset [KVM msr] */
#define WALL_VERSION 0
#define WALL_SEC     4
#define WALL_NSEC    8
#define WALL_SIZE    12

#define TIME_VERSION 0
#define TIME_TSC     8
#define TIME_SYSTEM  16
#define TIME_MUL     24
#define TIME_SHIFT   28
#define TIME_FLAGS   29
#define TIME_SIZE    32

#define FLAG_TSC_STABLE BIT(0)

struct kvmclock {
	struct device dev;
	struct msr_region msr[2];
	bool msr_added[2];
	u64 wall_clock; /* the MSRs, as last written */
	u64 system_time[VM_MAX_VCPUS];
	u32 version[VM_MAX_VCPUS]; /* even */
	bool based;                /* the pair below is valid; derived */
	u64 base_tsc;              /* host TSC */
	u64 base_ns;               /* guest time */
};

/* ns = ((ticks << shift) * mul) >> 32, mul with its top bit set. A negative shift is to the right. */
static void scale(u64 tsc_khz, u32 *ret_mul, s8 *ret_shift)
{
	u64 hz = (tsc_khz ? tsc_khz : 1) * 1000, scaled = hz;
	int shift = 0;

	for (; scaled <= NS_PER_S; scaled <<= 1)
		shift++;
	for (; scaled > 2 * NS_PER_S; scaled >>= 1)
		shift--;
	unsigned __int128 mul = ((unsigned __int128)NS_PER_S << (32 - shift)) / hz;
	*ret_mul = mul > 0xffffffff ? 0xffffffff : (u32)mul;
	*ret_shift = (s8)shift;
}

static void take_base(struct kvmclock *k)
{
	k->base_tsc = vcpu_rdtsc();
	k->base_ns = clock_now(k->dev.vm);
	k->based = true;
}

/* False where the structure does not lie in RAM. */
static bool write_system_time(struct kvmclock *k, struct vcpu *vcpu)
{
	u64 gpa = k->system_time[vcpu->id] & ~SYSTEM_TIME_ENABLE;
	u32 version = k->version[vcpu->id], mul;
	u8 buf[TIME_SIZE] = { 0 };
	s8 shift;

	if (!k->based)
		take_base(k);
	scale(k->dev.vm->tsc_khz, &mul, &shift);
	st32(buf + TIME_VERSION, version + 1);
	st64(buf + TIME_TSC, k->base_tsc + (u64)vcpu->tsc_offset);
	st64(buf + TIME_SYSTEM, k->base_ns);
	st32(buf + TIME_MUL, mul);
	buf[TIME_SHIFT] = (u8)shift;
	buf[TIME_FLAGS] = FLAG_TSC_STABLE;
	if (dma_write(k->dev.vm, gpa, buf, sizeof(buf)) < 0)
		return false;
	st32(buf, version + 2);
	atomic_thread_fence(memory_order_release);
	dma_write(k->dev.vm, gpa + TIME_VERSION, buf, 4);
	k->version[vcpu->id] = version + 2;
	return true;
}

/* The date at which guest time was 0. */
static bool write_wall_clock(struct kvmclock *k, u64 gpa)
{
	u64 ns = os_realtime_ns() - clock_now(k->dev.vm);
	u8 buf[WALL_SIZE];

	if (dma_read(k->dev.vm, gpa, buf, 4) < 0)
		return false;
	u32 version = ld32(buf) & ~1u;
	st32(buf + WALL_VERSION, version + 1);
	st32(buf + WALL_SEC, (u32)(ns / NS_PER_S));
	st32(buf + WALL_NSEC, (u32)(ns % NS_PER_S));
	if (dma_write(k->dev.vm, gpa, buf, sizeof(buf)) < 0)
		return false;
	st32(buf, version + 2);
	atomic_thread_fence(memory_order_release);
	dma_write(k->dev.vm, gpa, buf, 4);
	return true;
}

static bool is_wall_clock(u32 msr)
{
	return msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_WALL_CLOCK_NEW;
}

static bool kvmclock_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct kvmclock *k = opaque;

	*ret_val = is_wall_clock(msr) ? k->wall_clock : k->system_time[vcpu->id];
	return true;
}

static bool kvmclock_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct kvmclock *k = opaque;

	if (is_wall_clock(msr)) {
		if (val & WALL_CLOCK_ALIGN || !write_wall_clock(k, val))
			return false;
		k->wall_clock = val;
		return true;
	}
	u64 old = k->system_time[vcpu->id];
	if (val & SYSTEM_TIME_ALIGN)
		return false;
	k->system_time[vcpu->id] = val;
	if (val & SYSTEM_TIME_ENABLE && !write_system_time(k, vcpu)) {
		k->system_time[vcpu->id] = old;
		return false;
	}
	return true;
}

static const struct msr_ops kvmclock_ops = { .read = kvmclock_read, .write = kvmclock_write };

static void refresh(struct kvmclock *k)
{
	struct vm *vm = k->dev.vm;

	k->based = false;
	for (u32 id = 0; id < vm->nr_vcpus; id++)
		if (vm->vcpu[id] && k->system_time[id] & SYSTEM_TIME_ENABLE)
			write_system_time(k, vm->vcpu[id]);
}

void kvmclock_refresh(struct device *dev)
{
	pthread_mutex_lock(dev->lock);
	refresh(container_of(dev, struct kvmclock, dev));
	pthread_mutex_unlock(dev->lock);
}

static int kvmclock_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct kvmclock *k = container_of(dev, struct kvmclock, dev);
	static const u32 first[2] = { MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_NEW };

	for (unsigned i = 0; i < 2; i++) {
		/* Wall clock and system time are neighbours in both places. */
		k->msr[i] = (struct msr_region){ "KVM clock", &kvmclock_ops, k,
						 dev->lock,   first[i],      first[i] + 1 };
		int r = bus_add_msr(&dev->vm->bus, &k->msr[i]);
		if (r < 0)
			return err_sys(err, r, "the KVM clock's MSR %#x cannot be added", first[i]);
		k->msr_added[i] = true;
	}
	return 0;
}

static void kvmclock_reset(struct device *dev, enum reset_kind kind)
{
	struct kvmclock *k = container_of(dev, struct kvmclock, dev);

	k->wall_clock = 0;
	memset(k->system_time, 0, sizeof(k->system_time));
	memset(k->version, 0, sizeof(k->version));
	k->based = false;
}

static const struct state_field kvmclock_state[] = {
	STATE_U64(kvmclock, wall_clock),
	STATE_U64S(kvmclock, system_time),
	STATE_U32S(kvmclock, version),
	STATE_END,
};

static int kvmclock_post_load(struct device *dev, struct err *err)
{
	struct kvmclock *k = container_of(dev, struct kvmclock, dev);
	struct vm *vm = dev->vm;
	u8 buf[TIME_SIZE];

	for (u32 id = 0; id < VM_MAX_VCPUS; id++) {
		u64 msr = k->system_time[id];
		if (k->version[id] & 1 || msr & SYSTEM_TIME_ALIGN ||
		    (msr & SYSTEM_TIME_ENABLE &&
		     (id >= vm->nr_vcpus || dma_read(vm, msr & ~SYSTEM_TIME_ENABLE, buf, sizeof(buf)) < 0)))
			return err_set(
				err, -EINVAL,
				"the state of the KVM clock has an impossible address %#llx for vCPU %u",
				(unsigned long long)msr, id);
	}
	refresh(k);
	return 0;
}

static void kvmclock_fini(struct device *dev)
{
	struct kvmclock *k = container_of(dev, struct kvmclock, dev);

	for (unsigned i = 0; i < 2; i++)
		if (k->msr_added[i])
			bus_del_msr(&dev->vm->bus, &k->msr[i]);
}

const struct device_ops kvmclock_device = {
	.name = "kvmclock",
	.size = sizeof(struct kvmclock),
	.init = kvmclock_init,
	.reset = kvmclock_reset,
	.state = kvmclock_state,
	.post_load = kvmclock_post_load,
	.fini = kvmclock_fini,
};
