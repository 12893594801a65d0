/* The KVM engine's side of the contract in vm/engine.h: creation and destruction of a VM and its vCPUs.
 *
 * What a guest decodes or translates is nobody's business here, so ram->code_written stays NULL.
 *
 * Omitted: KVM's own PIT, which guests of today hardly use.
 *
 * Main thread, but for what the contract calls on a vCPU's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"

/* Four pages in the hole, below all firmware, that KVM needs on old processors of Intel's [KVM api 4.35, 4.38]. */
#define TSS_ADDR          0xfeffd000ul
#define IDENTITY_MAP_ADDR 0xfeffc000ull

static int kvm_probe(struct err *err)
{
	int fd = kvm_sys_open(err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* --- a VM --- */
/* With local APICs KVM has its own answers, which wake who waits in the kernel (kvm_apic.c). Else VMCALL is the machine's to
 * answer where the host's KVM can leave it to somebody; if not, CPUID does not offer what it is for (kvm_cpuid.c). */
static int leave_hypercalls(int fd, struct err *err)
{
	const struct kvm_xen_hvm_config conf = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = 0x40000200, /* for a page of calls, which nobody reaches: kvm_msr.c */
	};

	return kvm_sys_hypercalls(fd) ? KVM_CALL(fd, KVM_XEN_HVM_CONFIG, &conf, err) : 0;
}

/* Instructions that KVM's emulator does not know come here whatever the privilege, rather than as #UD to the guest. */
static int leave_failures(int fd, struct err *err)
{
	const struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1 };

	return kvm_sys_cap(fd, cap.cap) ? KVM_CALL(fd, KVM_ENABLE_CAP, &cap, err) : 0;
}

static int set_up(struct kvm_vm *kvm, int sys_fd, struct err *err)
{
	const u64 identity = IDENTITY_MAP_ADDR;
	int size = KVM_CALL(sys_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, err), r;

	if (size < 0)
		return size;
	if ((u32)size < sizeof(struct kvm_run))
		return err_set(err, -EINVAL, "the host's KVM maps only %d bytes of a vCPU", size);
	kvm->run_size = (u32)size;
	kvm->fd = KVM_CALL(sys_fd, KVM_CREATE_VM, NULL, err);
	if (kvm->fd < 0)
		return kvm->fd;
	kvm->xcrs = kvm_sys_cap(kvm->fd, KVM_CAP_XCRS);
	size = kvm_sys_cap(kvm->fd, KVM_CAP_XSAVE2);
	kvm->xsave2 = size > 0;
	kvm->xsave_size = MAX((u32)size, (u32)sizeof(struct kvm_xsave));
	r = kvm_cpuid_check(sys_fd, &kvm->vm->cpuid, err);
	if (r >= 0)
		r = kvm_apic_init(kvm, sys_fd, err);
	if (r >= 0)
		r = kvm_nested_init(kvm, err);
	if (r >= 0 && kvm_sys_cap(kvm->fd, KVM_CAP_SET_TSS_ADDR))
		r = kvm_sys_ioctl(kvm->fd, KVM_SET_TSS_ADDR, (void *)TSS_ADDR, "KVM_SET_TSS_ADDR", err);
	if (r >= 0 && kvm_sys_cap(kvm->fd, KVM_CAP_SET_IDENTITY_MAP_ADDR))
		r = KVM_CALL(kvm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, err);
	if (r >= 0)
		r = kvm_msr_filter(kvm, err);
	if (r >= 0)
		r = kvm->split ? 0 : leave_hypercalls(kvm->fd, err);
	if (r >= 0)
		r = leave_failures(kvm->fd, err);
	if (r >= 0)
		r = kvm_dirty_init(kvm, err);
	if (r >= 0)
		r = kvm_bus_init(kvm, err);
	if (r >= 0)
		r = kvm_memory_follow(kvm, err);
	return r;
}

static int kvm_vm_init(struct vm *vm, struct err *err)
{
	struct kvm_vm *kvm = calloc(1, sizeof(*kvm));
	int sys_fd, r;

	vm->engine_vm = kvm;
	if (!kvm)
		return err_set(err, -ENOMEM, "no memory for the KVM engine");
	kvm->vm = vm;
	kvm->fd = -1;
	pthread_mutex_init(&kvm->memory_lock, NULL);
	r = kvm_sys_signals(err);
	if (r < 0)
		return r;
	sys_fd = kvm_sys_open(err);
	if (sys_fd < 0)
		return sys_fd;
	r = set_up(kvm, sys_fd, err);
	close(sys_fd);
	return MIN(r, 0);
}

static void kvm_vm_fini(struct vm *vm)
{
	struct kvm_vm *kvm = vm->engine_vm;

	vm->engine_vm = NULL;
	if (!kvm)
		return;
	kvm_bus_fini(kvm);
	kvm_irqfd_drop(kvm, NULL);
	if (kvm->fd >= 0)
		close(kvm->fd);
	pthread_mutex_destroy(&kvm->memory_lock);
	free(kvm);
}

/* --- a vCPU --- */
static void kvm_vcpu_fini(struct vcpu *vcpu)
{
	struct kvm_cpu *k = vcpu->engine;

	if (!k)
		return;
	exit_keep_waits(vcpu);
	vcpu->engine = NULL;
	kvm_vcpu_drop_timer(k);
	kvm_stats_close(k->stats);
	kvm_dirty_vcpu_fini(k);
	if (k->carrier)
		soft_engine.carry_end(k->carrier);
	if (k->run) {
		kvm_bus_vcpu_fini(k);
		munmap(k->run, k->kvm->run_size);
	}
	if (k->fd >= 0)
		close(k->fd);
	kvm_nested_vcpu_fini(k);
	free(k->xsave);
	free(k);
}

static int make_vcpu(struct kvm_cpu *k, struct err *err)
{
	const struct kvm_device_attr offset = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
	void *run;
	int r;

	k->xsave = calloc(1, k->kvm->xsave_size);
	if (!k->xsave)
		return err_set(err, -ENOMEM, "no memory for vCPU %u", k->vcpu->id);
	r = kvm_nested_vcpu_init(k, err);
	if (r < 0)
		return r;
	k->fd = kvm_sys_ioctl(k->kvm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)k->vcpu->id, "KVM_CREATE_VCPU",
			      err);
	if (k->fd < 0)
		return k->fd;
	run = mmap(NULL, k->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(err, -errno, "cannot map vCPU %u of the host's KVM", k->vcpu->id);
	k->run = run;
	kvm_bus_vcpu_init(k);
	/* A host that does not know it is told the TSC's value instead. */
	k->tsc_exact =
		kvm_sys_ioctl(k->fd, KVM_HAS_DEVICE_ATTR, (void *)&offset, "KVM_HAS_DEVICE_ATTR", NULL) == 0;
	if (kvm_sys_cap(k->kvm->fd, KVM_CAP_BINARY_STATS_FD))
		k->stats = kvm_stats_open(k->fd);
	r = kvm_dirty_vcpu_init(k, err);
	if (r >= 0)
		r = kvm_cpuid_set(k, err);
	if (r >= 0)
		r = kvm_msr_learn(k, err);
	return r < 0 ? r : kvm_state_try_tsc(k, err);
}

static int kvm_vcpu_init(struct vcpu *vcpu, struct err *err)
{
	struct kvm_cpu *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_set(err, -ENOMEM, "no memory for vCPU %u", vcpu->id);
	k->vcpu = vcpu;
	k->kvm = vcpu->vm->engine_vm;
	k->fd = -1;
	k->armed_tsc = ~0ull;
	k->waits = ~0ull;
	vcpu->engine = k;
	r = make_vcpu(k, err);
	if (r < 0)
		kvm_vcpu_fini(vcpu);
	return MIN(r, 0);
}

/* --- the contract --- */
static enum run_end run(struct vcpu *vcpu)
{
	return kvm_vcpu_run(vcpu->engine);
}

static void kick(struct vcpu *vcpu)
{
	kvm_vcpu_kick(vcpu->engine);
}

static int get_state(struct vcpu *vcpu, struct x86_state *ret_state, struct err *err)
{
	return kvm_state_get(vcpu->engine, ret_state, err);
}

static int set_state(struct vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	return kvm_state_set(vcpu->engine, state, err);
}

static int dirty_set(struct vm *vm, bool on, struct err *err)
{
	return kvm_dirty_set(vm->engine_vm, on, err);
}

static int dirty_sync(struct vm *vm, struct err *err)
{
	return kvm_dirty_sync(vm->engine_vm, err);
}

static void settle(struct vm *vm)
{
	kvm_bus_settle(vm->engine_vm, NULL);
}

static unsigned stats(struct vcpu *vcpu, struct engine_stat ret[ENGINE_MAX_STATS])
{
	const struct kvm_cpu *k = vcpu->engine;

	ret[0] = (struct engine_stat){ "entries_to_the_guest", k->nr_runs };
	ret[1] = (struct engine_stat){ "ended_by_signals", k->nr_interrupted };
	ret[2] = (struct engine_stat){ "posted_port_writes", k->nr_posted[BUS_PIO] };
	ret[3] = (struct engine_stat){ "posted_memory_writes", k->nr_posted[BUS_MMIO] };
	/* The machine's, whoever took them. */
	ret[4] = (struct engine_stat){ "messages_by_eventfd", k->vcpu->id ? 0 : k->kvm->nr_rung };
	return KVM_OWN_STATS + kvm_stats_read(k->stats, ret + KVM_OWN_STATS);
}

static bool own_apics(bool all)
{
	int fd = kvm_sys_open(NULL);
	bool offered = fd >= 0 && (all ? kvm_irqchip_offered(fd) : kvm_apic_offered(fd));

	if (fd >= 0)
		close(fd);
	return offered;
}

static bool waited(struct vcpu *vcpu, struct engine_wait *ret_wait)
{
	const struct kvm_cpu *k = vcpu->engine;

	return k->kvm->split && kvm_stats_wait(k->stats, ret_wait);
}

const struct engine_ops kvm_engine = {
	.name = "kvm",
	.large_pages = true,
	.probe = kvm_probe,
	.features = kvm_cpuid_features,
	.vm_init = kvm_vm_init,
	.vm_fini = kvm_vm_fini,
	.vcpu_init = kvm_vcpu_init,
	.vcpu_fini = kvm_vcpu_fini,
	.run = run,
	.kick = kick,
	.get_state = get_state,
	.set_state = set_state,
	.dirty_set = dirty_set,
	.dirty_sync = dirty_sync,
	.apics = kvm_apic_move,
	.settle = settle,
	.own_apics = own_apics,
	.nested = kvm_cpuid_nested,
	.waited = waited,
	.stats = stats,
	.trial = kvm_trial_run,
};
