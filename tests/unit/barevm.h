/* A machine of one vCPU and RAM without devices, on either engine, for tests of engines. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/os.h"
#include "vm/vm.h"
#include "x86/cpuid.h"
#include "x86/defs.h"

#define CODE 0x1000

static struct vm vm;
static struct vcpu vcpu;

/* The ioctls of this process, by the linker's --wrap: true, and *ret (a negative one is an errno), in the kernel's place. NULL: the
 * kernel answers all. */
static bool (*ioctl_shim)(unsigned long request, void *arg, int *ret);

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int r;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!ioctl_shim || !ioctl_shim(request, arg, &r))
		return __real_ioctl(fd, request, arg);
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : r;
}

/* The next machine's guest has SVM or VMX. */
static bool with_nested;

static void need_kvm(void)
{
	struct err err = { 0 };
	u64 ps;

	if (!kvm_engine.probe(&err) && !kvm_engine.trial(&ps, &err))
		return;
	print_message("skipped: %s\n", err.msg);
	skip();
}

static void make_vm(const struct engine_ops *engine, u64 ram)
{
	u64 features[4], soft[4];
	struct cpuid_params params = { .model = "host", .nr_vcpus = 1, .engine_features = features };
	struct err err = { 0 };

	memset(&vm, 0, sizeof(vm));
	memset(&vcpu, 0, sizeof(vcpu));
	vm.engine = engine;
	engine_conf_init(&vm.engine_conf);
	/* There are no devices to have local APICs from. */
	vm.engine_conf.irqchip = with_nested ? IRQCHIP_SPLIT : IRQCHIP_USER;
	vm.engine_conf.nested = with_nested;
	vm.nr_vcpus = 1;
	vm.tsc_khz = params.tsc_khz = os_tsc_khz();
	vm.vcpu[0] = &vcpu;
	vcpu.vm = &vm;
	vcpu.timer_tsc = ~0ull;
	pthread_mutex_init(&vm.intc_lock, NULL);
	engine->features(&vm.engine_conf, features);
	soft_engine.features(&vm.engine_conf, soft);
	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		if (!cpuid_runs_guests(f) && !(soft[f / 64] >> (f % 64) & 1))
			features[f / 64] &= ~BIT(f % 64);
	if (ram_init(&vm.ram, ram, &err) < 0 || cpuid_build(&vm.cpuid, &params, &err) < 0)
		fail_msg("%s", err.msg);
}

static void free_vm(void)
{
	ram_fini(&vm.ram);
	pthread_mutex_destroy(&vm.intc_lock);
}

static inline void start_vm(const struct engine_ops *engine, u64 ram)
{
	struct err err = { 0 };

	make_vm(engine, ram);
	if (engine->vm_init(&vm, &err) < 0 || engine->vcpu_init(&vcpu, &err) < 0)
		fail_msg("%s", err.msg);
}

static void stop_vm(void)
{
	vm.engine->vcpu_fini(&vcpu);
	vm.engine->vm_fini(&vm);
	free_vm();
}

/* Flat 32-bit protected mode without paging. */
static void protected_mode(struct x86_state *s)
{
	const struct x86_segreg data = { .sel = 0x10, .attr = SA_P | SA_S | 3 | SA_DB | SA_G, .limit = ~0u };

	x86_state_reset(s, false, true, vm.cpuid.signature);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->cr4 = CR4_OSFXSR;
	for (unsigned i = 0; i < X86_NR_SEG; i++)
		s->seg[i] = data;
	s->seg[SEG_CS].sel = 8;
	s->seg[SEG_CS].attr = SA_P | SA_S | 0xb | SA_DB | SA_G;
	s->rip = CODE;
	s->gpr[R_SP] = 0x8000;
	s->tsc_offset = vm.tsc_fixed ? 0 : 0 - vcpu_rdtsc();
}
