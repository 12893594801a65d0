/* The KVM engine: state in and out, exits, every ioctl failing once; and the other engine's carrying of single instructions. Of interrupt
 * controllers of KVM's is test_kvm_apic.c.
 * What needs /dev/kvm is skipped where there is none that works. */
#include <fcntl.h>
#include <sys/ioctl.h>

#include "kvmvm.h"
#include "vm/handover.h"

/* --- states --- */
/* One of everything. */
static void rich_state(struct x86_state *s)
{
	protected_mode(s);
	for (unsigned i = 0; i < X86_NR_GPR; i++)
		s->gpr[i] = 0x1111111111111111ull * i + 3;
	s->rflags = FL_RES1 | FL_CF | FL_ZF | FL_ID;
	s->cr2 = 0x12345678;
	s->dr[0] = 0x1000;
	s->dr[3] = 0x3000;
	s->dr6 = 0xffff4ff1;
	s->star = 0x0023001000000000;
	s->lstar = 0xffffffff81000000;
	s->cstar = 0xffffffff82000000;
	s->sfmask = 0x47700;
	s->kernel_gs_base = 0xffff888000000000;
	s->sysenter_cs = 0x10;
	s->sysenter_esp = 0x9000;
	s->sysenter_eip = 0xa000;
	s->pat = 0x0407050600070106;
	s->mtrr_def_type = 0xc06;
	s->mtrr_fixed[0] = 0x0606060606060606;
	s->mtrr_base[0] = 0x80000000;
	s->mtrr_mask[0] = 0xff80000800ull & (BIT(vm.cpuid.maxphyaddr) - 1);
	s->tsc_adjust = 77;
	s->xcr0 = vm.cpuid.xcr0_mask ? vm.cpuid.xcr0_mask : 1;
	s->gdtr = (struct x86_dtr){ 0x3f, 0x4000 };
	s->idtr = (struct x86_dtr){ 0x7ff, 0x5000 };
	st16(s->xsave, 0x37f);
	for (unsigned i = 0; i < 256; i++)
		s->xsave[160 + i] = (u8)(i * 7);
	if (vm.cpuid.xcr0_mask & XFEATURE_AVX) {
		for (unsigned i = 0; i < 256; i++)
			s->xsave[X86_XSAVE_AVX_OFFSET + i] = (u8)(i * 5 + 1);
		st64(s->xsave + 512, ld64(s->xsave + 512) | XFEATURE_AVX);
	}
	s->nmi_blocked = true;
	s->activity = X86_HLT;
}

static void same_text(const struct x86_state *x, const struct x86_state *y)
{
	char tx[2048], ty[2048];

	x86_state_describe(x, tx, sizeof(tx));
	x86_state_describe(y, ty, sizeof(ty));
	assert_string_equal(tx, ty);
}

static void same_states(const struct x86_state *x, const struct x86_state *y)
{
	same_text(x, y);
	assert_memory_equal(x->dr, y->dr, sizeof(x->dr));
	assert_int_equal(x->dr6, y->dr6);
	assert_int_equal(x->dr7, y->dr7);
	/* MSRs lie next to each other, events and what follows too. */
	assert_memory_equal(&x->star, &y->star,
			    offsetof(struct x86_state, activity) - offsetof(struct x86_state, star));
	assert_memory_equal(&x->activity, &y->activity,
			    offsetof(struct x86_state, exc_error) - offsetof(struct x86_state, activity));
	assert_int_equal(x->intr_taken, y->intr_taken);
	assert_int_equal(x->intr_vector, y->intr_vector);
	assert_memory_equal(&x->virt, &y->virt, offsetof(struct x86_virt, nested));
	assert_int_equal(x->virt.nested_size, y->virt.nested_size);
	if (x->virt.nested)
		assert_memory_equal(x->virt.nested, y->virt.nested, x->virt.nested_size);
	assert_memory_equal(x->xsave, y->xsave, sizeof(x->xsave));
}

static void test_state_round_trip(void **state)
{
	need_kvm();
	start_vm(&kvm_engine, 1 * MiB);
	rich_state(&a);
	set(&a);
	get(&b);
	/* MXCSR_MASK belongs to the processor, not to the state. */
	memcpy(a.xsave + 28, b.xsave + 28, 4);
	same_states(&a, &b);
	/* Once more: identical. */
	set(&b);
	get(&a);
	same_states(&a, &b);
	a.intr_taken = true;
	a.intr_vector = 0x55;
	a.nmi_blocked = false;
	a.nmi_pending = true;
	a.activity = X86_ACTIVE;
	set(&a);
	get(&b);
	same_states(&a, &b);
	stop_vm();
}

static void test_bad_states(void **state)
{
	struct err err = { 0 };

	need_kvm();
	start_vm(&kvm_engine, 1 * MiB);
	protected_mode(&a);
	a.activity = 9;
	assert_int_equal(kvm_engine.set_state(&vcpu, &a, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "activity 9"));
	a.activity = X86_ACTIVE;
	a.exc_pending = true;
	a.exc_vector = EXC_PF;
	assert_int_equal(kvm_engine.set_state(&vcpu, &a, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "exception 14"));
	a.exc_pending = false;
	a.cr4 = BIT(60);
	assert_true(kvm_engine.set_state(&vcpu, &a, &err) < 0);
	assert_non_null(strstr(err.msg, "KVM"));
	stop_vm();
}

/* --- running --- */
static void test_tour(void **state)
{
	s64 offset, moved;

	need_kvm();
	start_vm(&kvm_engine, 1 * MiB);
	memcpy(vm.ram.base + CODE, tour, sizeof(tour));
	protected_mode(&a);
	set(&a);
	offset = vcpu.tsc_offset;
	assert_int_equal(kvm_engine.run(&vcpu), RUN_HLT);
	get(&b);
	assert_int_equal(b.rip, CODE + sizeof(tour));
	assert_int_equal(b.activity, X86_HLT);
	assert_int_equal((u32)b.gpr[R_SI], ~0u);
	assert_int_equal((u32)b.gpr[R_DI], ~0u);
	moved = vm.tsc_fixed ? 0 : 100;
	assert_int_equal(b.gpr[R_AX], moved);
	assert_int_equal(b.tsc_adjust, moved);
	assert_int_equal(vcpu.tsc_offset - offset, moved);
	assert_int_equal(vcpu.stats.reason[EXIT_IO].count, 2);
	assert_int_equal(vcpu.stats.reason[EXIT_EPT_VIOLATION].count, 1);
	assert_int_equal(vcpu.stats.reason[EXIT_WRMSR].count, 1);
	assert_int_equal(vcpu.stats.reason[EXIT_RDMSR].count, 1);
	/* It waits on, until somebody kicks it. */
	assert_int_equal(kvm_engine.run(&vcpu), RUN_HLT);
	vm.ram.base[CODE + sizeof(tour)] = 0xf4;
	vcpu_post(&vcpu, VCPU_REQ_KICK);
	assert_int_equal(kvm_engine.run(&vcpu), RUN_HLT);
	get(&b);
	assert_int_equal(b.rip, CODE + sizeof(tour) + 1);
	/* A request is seen before anything runs. */
	vcpu_post(&vcpu, VCPU_REQ_KICK | VCPU_REQ_STOP);
	assert_int_equal(kvm_engine.run(&vcpu), RUN_REQUEST);
	stop_vm();
}

static void test_triple_fault(void **state)
{
	need_kvm();
	start_vm(&kvm_engine, 1 * MiB);
	vm.ram.base[CODE] = 0x0f;
	vm.ram.base[CODE + 1] = 0x0b; /* ud2 */
	protected_mode(&a);
	a.idtr.limit = 0;
	set(&a);
	assert_int_equal(kvm_engine.run(&vcpu), RUN_SHUTDOWN);
	assert_non_null(strstr(vm.crash, "triple fault on vCPU 0"));
	assert_int_equal(vm.request, VM_REQ_CRASH);
	stop_vm();
}

/* --- writes that come late --- */
#define LATE_PORT 0x90 /* posted, but the last of its eight */
#define NR_POSTED 500
#define BELL      0xd0001000u

static unsigned nr_late, nr_read_at;
static u64 late_sum;

static u64 late_read(void *opaque, u64 offset, unsigned size)
{
	nr_read_at = nr_late;
	return 0x5a;
}

static void late_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	nr_late++;
	late_sum = late_sum * 31 + val + offset;
}

static bool posted(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .posted = true, .len = 7 };
	return offset < 7;
}

static bool bell(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .at = 4, .val = 1 };
	return offset == 4;
}

static const struct region_ops posted_ops = {
	.read = late_read, .write = late_write, .max_size = 4, .late = posted
};
static const struct region_ops bell_ops = {
	.read = late_read, .write = late_write, .max_size = 4, .late = bell
};
static struct region posted_ports = {
	.name = "posted", .ops = &posted_ops, .space = BUS_PIO, .base = LATE_PORT, .len = 8
};
static struct region posted_memory = {
	.name = "posted", .ops = &posted_ops, .space = BUS_MMIO, .base = HOLE, .len = 8
};
static struct region bells = { .name = "bell", .ops = &bell_ops, .space = BUS_MMIO, .base = BELL, .len = 16 };

static bool host_cap(int cap)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	bool offered = fd >= 0 && ioctl(fd, KVM_CHECK_EXTENSION, cap) > 0;

	close(fd);
	return offered;
}

static u64 nr_entries(void)
{
	return engine_stat("entries_to_the_guest");
}

static void run_code(const void *code, size_t len)
{
	nr_late = nr_read_at = 0;
	late_sum = 0;
	memcpy(vm.ram.base + CODE, code, len);
	protected_mode(&a);
	set(&a);
	assert_int_equal(kvm_engine.run(&vcpu), RUN_HLT);
}

/* More writes than the ring has room for come in order, and before what is read after them. */
static void test_posted(void **state)
{
	static const u8 to_ports[] = {
		0xb9,
		NR_POSTED & 0xff,
		NR_POSTED >> 8,
		0,
		0, /* mov $NR_POSTED, %ecx */
		0x89,
		0xc8, /* 1: mov %ecx, %eax */
		0xe6,
		LATE_PORT + 1, /* out %al */
		0xe2,
		0xfa, /* loop 1b */
		0xe4,
		LATE_PORT + 7, /* in, %al */
		0xf4,          /* hlt */
	};
	static const u8 to_memory[] = {
		0xb9,
		NR_POSTED & 0xff,
		NR_POSTED >> 8,
		0,
		0, /* mov $NR_POSTED, %ecx */
		0x89,
		0x0d,
		0,
		0,
		0,
		0xd0, /* 1: mov %ecx, HOLE */
		0xe2,
		0xf8, /* loop 1b */
		0xf4, /* hlt */
	};
	u64 before, sum = 0;

	need_kvm();
	start_vm(&kvm_engine, 1 * MiB);
	bus_add(&vm.bus, &posted_ports);
	bus_add(&vm.bus, &posted_memory);
	for (u32 i = NR_POSTED; i; i--)
		sum = sum * 31 + (i & 0xff) + 1;
	for (unsigned round = 0; round < 2; round++) {
		before = nr_entries();
		run_code(to_ports, sizeof(to_ports));
		assert_int_equal(nr_late, NR_POSTED);
		assert_int_equal(nr_read_at, NR_POSTED);
		assert_true(late_sum == sum);
		print_message("%d writes to a port: %llu entries to the guest\n", NR_POSTED,
			      (unsigned long long)(nr_entries() - before));
		if (host_cap(KVM_CAP_COALESCED_PIO))
			assert_true(nr_entries() - before < NR_POSTED / 50);
	}
	assert_int_equal(vcpu.stats.reason[EXIT_IO].count, 2 * (NR_POSTED + 1));
	if (host_cap(KVM_CAP_COALESCED_PIO))
		assert_in_range(engine_stat("posted_port_writes"), NR_POSTED + 1, 2 * NR_POSTED - 1);
	assert_int_equal(engine_stat("posted_memory_writes"), 0);

	/* The end of the run brings them, too. */
	for (unsigned round = 0; round < 2; round++) {
		before = nr_entries();
		run_code(to_memory, sizeof(to_memory));
		assert_int_equal(nr_late, NR_POSTED);
		print_message("%d writes to memory: %llu entries to the guest\n", NR_POSTED,
			      (unsigned long long)(nr_entries() - before));
	}

	/* Nobody is there any more, and it is no other's. */
	bus_del(&vm.bus, &posted_ports);
	run_code(to_ports, sizeof(to_ports));
	assert_int_equal(nr_late, 0);
	bus_del(&vm.bus, &posted_memory);
	stop_vm();
}

static void end_loop(void *opaque)
{
	loop_stop(vm.loop, 0);
}

/* The first one is an exit; the next ones are answered by the main loop, as one, where ioeventfd=on. */
static void test_doorbell(void **state)
{
	static const u8 code[] = {
		0xa2, 0x04, 0x10, 0x00, 0xd0, /* mov %al, BELL + 4 */
		0xa3, 0x04, 0x10, 0x00, 0xd0, /* mov %eax, BELL + 4 */
		0xa3, 0x04, 0x10, 0x00, 0xd0, /* mov %eax, BELL + 4 */
		0xf4,                         /* hlt */
	};
	struct err err = { 0 };
	struct loop_timer *end;

	need_kvm();
	for (unsigned on = 0; on < 2; on++) {
		unsigned here = on && host_cap(KVM_CAP_IOEVENTFD_ANY_LENGTH) ? 1 : 3;

		make_vm(&kvm_engine, 1 * MiB);
		vm.engine_conf.ioeventfd = on;
		assert_int_equal(loop_new(&vm.loop, &err), 0);
		end = loop_timer_new(vm.loop, end_loop, NULL);
		assert_int_equal(bus_add(&vm.bus, &bells), 0);
		assert_true(kvm_engine.vm_init(&vm, &err) >= 0 && kvm_engine.vcpu_init(&vcpu, &err) >= 0);
		run_code(code, sizeof(code));
		assert_int_equal(nr_late, here);
		loop_timer_arm(end, os_now_ns() + 20 * 1000000);
		loop_run(vm.loop);
		assert_int_equal(nr_late, MAX(here, 1 + on));
		assert_int_equal(vcpu.stats.reason[EXIT_EPT_VIOLATION].count, here);

		/* Somewhere else: an exit again. */
		bus_del(&vm.bus, &bells);
		bells.base += 16;
		assert_int_equal(bus_add(&vm.bus, &bells), 0);
		run_code(code, sizeof(code));
		assert_int_equal(nr_late, 0);
		bus_del(&vm.bus, &bells);
		bells.base -= 16;
		loop_timer_free(end);
		kvm_engine.vcpu_fini(&vcpu);
		kvm_engine.vm_fini(&vm);
		loop_free(vm.loop);
		free_vm();
	}
}

/* --- the host fails --- */
static void test_every_ioctl_fails(void **state)
{
	need_kvm();
	make_vm(&kvm_engine, 1 * MiB);
	memcpy(vm.ram.base + CODE, tour, sizeof(tour));
	fail_each();
	free_vm();
}

/* --- the probe and the trial --- */
static void test_probe_fails(void **state)
{
	struct err err = { 0 };
	char why[256];
	u64 ps;

	need_kvm();
	for (fail_at = 1;; fail_at++) {
		calls = 0;
		if (kvm_engine.trial(&ps, &err) >= 0 && calls < fail_at)
			break;
		calls = 0;
		/* Whatever fails, somebody runs. */
		assert_non_null(engine_select("auto", why, sizeof(why), &err));
		assert_non_null(strstr(why, "engine runs: "));
	}
	fail_at = 0;
}

/* --- carrying --- */
static enum run_end carry(void **carrier, struct x86_state *s)
{
	struct err err = { 0 };
	enum run_end end;

	if (soft_engine.carry(&vcpu, carrier, s, &end, &err) < 0)
		fail_msg("%s", err.msg);
	return end;
}

static void put_code(const char *bytes, size_t len)
{
	memcpy(vm.ram.base + CODE, bytes, len);
}

static void test_carry(void **state)
{
	void *carrier = NULL;

	/* The machine is any other engine's: nothing of it is looked at. */
	make_vm(&kvm_engine, 1 * MiB);
	protected_mode(&a);
	a.gpr[R_DX] = 0; /* EDX:EAX is what is there */
	a.gpr[R_BX] = 0x11111111;
	a.gpr[R_CX] = 0x22222222;
	a.gpr[R_SI] = DATA;
	put_code("\x0f\xc7\x0e\xf4", 4); /* cmpxchg8b (%esi); hlt */
	assert_int_equal(carry(&carrier, &a), RUN_REQUEST);
	assert_int_equal(a.rip, CODE + 3);
	assert_int_equal(ld64(vm.ram.base + DATA), 0x2222222211111111);
	assert_int_equal(carry(&carrier, &a), RUN_HLT);
	assert_int_equal(a.activity, X86_HLT);

	/* The same place says something else by now, and nobody has been told. */
	for (unsigned i = 0; i < 3; i++) {
		a.activity = X86_ACTIVE;
		a.rip = CODE;
		put_code(i & 1 ? "\x40" : "\x43", 1); /* inc %eax; inc %ebx */
		a.gpr[R_AX] = a.gpr[R_BX] = 7;
		assert_int_equal(carry(&carrier, &a), RUN_REQUEST);
		assert_int_equal(a.gpr[i & 1 ? R_AX : R_BX], 8);
	}
	/* No granule is marked: nobody would take the mark away. */
	assert_false(ram_has_code(&vm.ram, 0, 1 * MiB));

	/* What the model lacks is executed, too: KVM let the guest come so far. */
	a.rip = CODE;
	a.rflags |= FL_AC;
	vm.cpuid.features[X86_FEATURE_SMAP / 64] &= ~BIT(X86_FEATURE_SMAP % 64);
	put_code("\x0f\x01\xca", 3); /* clac */
	assert_int_equal(carry(&carrier, &a), RUN_REQUEST);
	assert_int_equal(a.rip, CODE + 3);
	assert_int_equal(a.rflags & FL_AC, 0);

	/* An exception is delivered: through a gate to DATA + 0x100. */
	a.rip = CODE;
	a.idtr = (struct x86_dtr){ 0x7ff, 0x5000 };
	a.gdtr = (struct x86_dtr){ 0x17, 0x4000 };
	st64(vm.ram.base + 0x4008, 0x00cf9b000000ffffull);
	st64(vm.ram.base + 0x4010, 0x00cf93000000ffffull);
	st64(vm.ram.base + 0x5000 + 8 * EXC_UD, (DATA + 0x100) | 8u << 16 | 0x8e00ull << 32);
	put_code("\x0f\x0b", 2); /* ud2 */
	a.gpr[R_SP] = 0x8000;
	assert_int_equal(carry(&carrier, &a), RUN_REQUEST);
	assert_int_equal(a.rip, DATA + 0x100);
	assert_int_equal(ld32(vm.ram.base + a.gpr[R_SP]), CODE);

	/* And where that is not possible, described. */
	a.rip = CODE;
	a.idtr.limit = 0;
	assert_int_equal(carry(&carrier, &a), RUN_SHUTDOWN);
	assert_non_null(strstr(vm.crash, "triple fault"));
	soft_engine.carry_end(carrier);
	free_vm();
}

/* A device's answer reaches the register, a fault leaves nothing half done. */
static void test_carry_mmio(void **state)
{
	void *carrier = NULL;

	make_vm(&kvm_engine, 1 * MiB);
	protected_mode(&a);
	a.gpr[R_SI] = HOLE;
	put_code("\xf3\x0f\x6f\x06", 4); /* movdqu (%esi), %xmm0 */
	memset(a.xsave + 160, 0, 16);
	assert_int_equal(carry(&carrier, &a), RUN_REQUEST);
	assert_int_equal(a.rip, CODE + 4);
	assert_int_equal(ld64(a.xsave + 160), ~0ull);
	assert_int_equal(ld64(a.xsave + 168), ~0ull);
	assert_true(vcpu.stats.reason[EXIT_EPT_VIOLATION].count > 0);
	soft_engine.carry_end(carrier);
	free_vm();
}

/* --- an interrupt in flight reaches the other engine's guest --- */
static void test_taken_interrupt(void **state)
{
	start_vm(&soft_engine, 1 * MiB);
	protected_mode(&a);
	a.idtr = (struct x86_dtr){ 0x7ff, 0x5000 };
	a.gdtr = (struct x86_dtr){ 0x17, 0x4000 };
	st64(vm.ram.base + 0x4008, 0x00cf9b000000ffffull);
	st64(vm.ram.base + 0x4010, 0x00cf93000000ffffull);
	st64(vm.ram.base + 0x5000 + 8 * 0x55, (DATA + 0x100) | 8u << 16 | 0x8e00ull << 32);
	vm.ram.base[DATA + 0x100] = 0xf4;
	a.intr_taken = true;
	a.intr_vector = 0x55;
	set(&a);
	get(&b);
	assert_true(b.intr_taken && b.intr_vector == 0x55);
	assert_int_equal(soft_engine.run(&vcpu), RUN_HLT);
	get(&b);
	assert_false(b.intr_taken);
	assert_int_equal(b.rip, DATA + 0x101);
	stop_vm();
}

/* --- a guest that runs a guest --- */
#define VMCB  0x3000
#define HSAVE 0x4000
#define PAGES 0x9000
#define INNER 0x1200

static const u8 outer_code[] = {
	0xb9, 0x17, 0x01, 0x01,      0xc0, /* mov $VM_HSAVE_PA, %ecx */
	0xb8, 0x00, 0x40, 0x00,      0x00, /* mov $HSAVE, %eax */
	0x31, 0xd2,                        /* xor %edx, %edx */
	0x0f, 0x30,                        /* wrmsr */
	0xb8, 0x00, 0x30, 0x00,      0x00, /* mov $VMCB, %eax */
	0x0f, 0x01, 0xd8,                  /* vmrun */
	0xb0, 0x10, 0xe6, STOP_PORT,       /* out $STOP: GIF = 0 */
	0x0f, 0x01, 0xdc,                  /* stgi */
	0xb0, 0x10, 0xe6, STOP_PORT,       /* out $STOP */
	0xf4,                              /* hlt */
};
#define OUTER_LEFT (CODE + 26)
#define OUTER_END  (CODE + sizeof(outer_code) - 1)

static const u8 inner_code[] = {
	0xbb, 0x78, 0x56, 0x34,      0x12, /* mov $0x12345678, %ebx */
	0xb0, 0x10, 0xe6, STOP_PORT,       /* out $STOP, which the outer guest does not intercept */
	0x43,                              /* inc %ebx */
	0x0f, 0x01, 0xd9,                  /* vmmcall */
};

static u8 kept_ram[MiB], kept_nested[16384];

static void vmcb_segment(u8 *at, u16 sel, u16 attr)
{
	st16(at, sel);
	st16(at + 2, attr);
	st32(at + 4, ~0u);
}

/* 32-bit code with paging, one to one, in both [APM2 appendix B]. */
static void make_guests(bool nested_paging)
{
	u8 *v = vm.ram.base + VMCB;

	memset(v, 0, 4096);
	memcpy(vm.ram.base + CODE, outer_code, sizeof(outer_code));
	memcpy(vm.ram.base + INNER, inner_code, sizeof(inner_code));
	st32(vm.ram.base + PAGES, 0x87);
	st32(v + 0x10, 3); /* VMRUN, VMMCALL */
	st32(v + 0x58, 1); /* ASID */
	st64(v + 0x90, nested_paging);
	st64(v + 0xb0, PAGES);
	vmcb_segment(v + 0x400, 0x10, 0xc93);
	vmcb_segment(v + 0x410, 0x08, 0xc9b);
	vmcb_segment(v + 0x420, 0x10, 0xc93);
	vmcb_segment(v + 0x430, 0x10, 0xc93);
	st32(v + 0x464, 0x27); /* GDTR */
	st64(v + 0x468, 0x6000);
	st64(v + 0x4d0, EFER_SVME);
	st64(v + 0x548, CR4_PSE);
	st64(v + 0x550, PAGES);
	st64(v + 0x558, CR0_PG | CR0_PE | CR0_ET | CR0_NE);
	st64(v + 0x560, 0x400);
	st64(v + 0x568, 0xffff0ff0);
	st64(v + 0x570, FL_RES1 | FL_CF);
	st64(v + 0x578, INNER);
	st64(v + 0x5d8, 0x7000);
	st64(v + 0x668, 0x0007040600070406);
	protected_mode(&a);
	a.efer = EFER_SVME;
	a.cr3 = PAGES;
	a.cr4 |= CR4_PSE;
	a.cr0 |= CR0_PG;
	a.gdtr = (struct x86_dtr){ 0x37, 0x5000 };
	set(&a);
}

static void start_nested_vm(void)
{
	need_kvm();
	with_nested = true;
	make_apic_vm(IRQCHIP_SPLIT);
	with_nested = false;
	if (!cpuid_has(&vm.cpuid, X86_FEATURE_SVM)) {
		bus_del(&vm.bus, &stop_port);
		free_vm();
		print_message("skipped: this host's KVM has no SVM for a guest\n");
		skip();
	}
	if (vm.engine->vm_init(&vm, NULL) < 0 || vm.engine->vcpu_init(&vcpu, NULL) < 0)
		fail_msg("no machine whose guest has SVM");
}

/* To the next STOP. */
static void run_to_stop(struct x86_state *s)
{
	move_apics(true);
	assert_int_equal(kvm_engine.run(&vcpu), RUN_REQUEST);
	assert_int_equal(vcpu_take(&vcpu, VCPU_REQ_STOP), VCPU_REQ_STOP);
	move_apics(false);
	get(s);
}

static void keep(struct x86_state *s)
{
	assert_in_range(s->virt.nested_size, 1, sizeof(kept_nested));
	memcpy(kept_nested, s->virt.nested, s->virt.nested_size);
	s->virt.nested = kept_nested;
}

static void round_trips(bool nested_paging)
{
	start_nested_vm();
	make_guests(nested_paging);
	get(&b);
	assert_null(b.virt.nested);
	assert_int_equal(b.virt.tsc_ratio, BIT(32));

	/* The inner guest runs. */
	run_to_stop(&a);
	assert_non_null(a.virt.nested);
	keep(&a);
	assert_int_equal(a.rip, INNER + 9);
	assert_int_equal(a.gpr[R_BX], 0x12345678);
	assert_int_equal(a.gdtr.limit, 0x27);
	assert_int_equal(a.virt.vm_hsave_pa, HSAVE);
	for (unsigned i = 0; i < 3; i++) {
		set(&a);
		get(&b);
		same_states(&a, &b);
	}
	/* In another machine, where it goes on, and comes back to the outer one: GIF = 0. */
	memcpy(kept_ram, vm.ram.base, sizeof(kept_ram));
	stop_apic_vm();
	start_nested_vm();
	memcpy(vm.ram.base, kept_ram, sizeof(kept_ram));
	set(&a);
	get(&b);
	assert_int_equal(b.virt.nested_size, a.virt.nested_size);
	/* But for what is no state in a VMCB's place for the outer one's: as each machine has it. */
	a.virt.nested = b.virt.nested = NULL;
	same_states(&a, &b);
	get(&a);
	keep(&a);
	set(&a);
	get(&b);
	same_states(&a, &b);
	run_to_stop(&a);
	assert_int_equal(a.rip, OUTER_LEFT);
	assert_int_equal(a.gpr[R_BX], 0x12345679);
	assert_int_equal(a.gdtr.limit, 0x37);
	assert_non_null(a.virt.nested);
	keep(&a);
	set(&a);
	get(&b);
	same_states(&a, &b);
	run_to_stop(&a);
	assert_int_equal(a.rip, OUTER_END);
	assert_null(a.virt.nested);
	set(&a);
	get(&b);
	same_states(&a, &b);
	stop_apic_vm();
}

static void test_nested_round_trip(void **state)
{
	round_trips(false);
	round_trips(true);
}

/* A reset, or INIT, while the inner guest runs. */
static void test_nested_left(void **state)
{
	struct err err = { 0 };

	start_nested_vm();
	for (unsigned i = 0; i < 2; i++) {
		make_guests(true);
		run_to_stop(&a);
		assert_non_null(a.virt.nested);
		if (i) {
			x86_state_reset(&a, true, true, vm.cpuid.signature);
			assert_int_equal(a.virt.vm_hsave_pa, HSAVE);
		} else {
			rich_state(&a);
			a.activity = X86_ACTIVE;
		}
		assert_null(a.virt.nested);
		set(&a);
		get(&b);
		memcpy(a.xsave + 28, b.xsave + 28, 4);
		same_states(&a, &b);
	}
	/* It can run anew, and be refused. */
	make_guests(false);
	run_to_stop(&a);
	assert_int_equal(a.rip, INNER + 9);
	keep(&a);
	a.virt.nested_size -= 8;
	assert_int_equal(kvm_engine.set_state(&vcpu, &a, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "not in KVM's form"));
	a.virt.nested_size += 8;
	set(&a);
	assert_int_equal(handover_check(&vm, &soft_engine, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "has SVM (nested=on), which the soft engine does not have"));
	stop_apic_vm();
	/* Those that cannot have it. */
	b = a;
	start_apic_vm(IRQCHIP_SPLIT);
	assert_int_equal(kvm_engine.set_state(&vcpu, &b, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "nested=on"));
	stop_apic_vm();
}

static void test_every_nested_ioctl_fails(void **state)
{
	with_nested = true;
	every_apic_ioctl_fails(IRQCHIP_SPLIT);
	with_nested = false;
}

/* Without KVM. */
static void test_nested_soft(void **state)
{
	struct err err = { 0 };
	u64 features[4];

	start_vm(&soft_engine, 1 * MiB);
	protected_mode(&a);
	a.virt.nested = kept_nested;
	a.virt.nested_size = 128;
	assert_int_equal(soft_engine.set_state(&vcpu, &a, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "the soft engine does not have"));
	vm.engine_conf.nested = true;
	soft_engine.features(&vm.engine_conf, features);
	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		assert_false(cpuid_runs_guests(f) && features[f / 64] >> (f % 64) & 1);
	vm.cpuid.features[X86_FEATURE_VMX / 64] |= BIT(X86_FEATURE_VMX % 64);
	assert_int_equal(handover_check(&vm, &soft_engine, &err), -ENOTSUP);
	assert_string_equal(
		err.msg, "the guest's processor has VMX (nested=on), which the soft engine does not have; a "
			 "machine that is to move begins without nested=on");
	stop_vm();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carry),
		cmocka_unit_test(test_carry_mmio),
		cmocka_unit_test(test_taken_interrupt),
		cmocka_unit_test(test_state_round_trip),
		cmocka_unit_test(test_bad_states),
		cmocka_unit_test(test_tour),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_posted),
		cmocka_unit_test(test_doorbell),
		cmocka_unit_test(test_every_ioctl_fails),
		cmocka_unit_test(test_probe_fails),
		cmocka_unit_test(test_nested_soft),
		cmocka_unit_test(test_nested_round_trip),
		cmocka_unit_test(test_nested_left),
		cmocka_unit_test(test_every_nested_ioctl_fails),
	};

	ioctl_shim = fail_one;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
