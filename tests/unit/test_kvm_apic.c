/* KVM's interrupt controllers: their state in and out, what comes to them by lines, messages and eventfds, every ioctl failing once.
 * Skipped where there is no /dev/kvm that works. */
#include "kvmvm.h"

/* --- local APICs --- */
static void test_apic_round_trip(void **state)
{
	struct apic_state before;

	start_apic_vm(IRQCHIP_SPLIT);
	board.apic.reg[8] = 0x23;          /* TPR */
	board.apic.reg[0xd] = 0x04000000;  /* LDR */
	board.apic.reg[0x10 + 3] = BIT(5); /* in service: 65H */
	board.apic.reg[0x20 + 2] = 3;      /* requests 40H, 41H */
	board.apic.reg[0x20 + 7] = BIT(31);
	board.apic.reg[0x18 + 2] = 2;      /* 41H is level-triggered */
	board.apic.reg[0x28] = 0x40;       /* ESR */
	board.apic.reg[0x30] = 0x000c4061; /* ICR */
	board.apic.reg[0x31] = 0x03000000;
	board.apic.reg[0x32] = 0x000400ec; /* the timer by deadline, */
	board.apic.deadline = ~0ull >> 2;  /* in some years */
	board.apic.reg[0x3e] = 0xb;
	before = board.apic;
	for (unsigned i = 0; i < 3; i++) {
		move_apics(true);
		memset(&board.apic, 0xa5, sizeof(board.apic));
		move_apics(false);
		if (i == 0) /* KVM's version */
			before.reg[3] = board.apic.reg[3];
		before.reg[0xa] = board.apic.reg[0xa]; /* PPR, which is computed */
		for (unsigned k = 0; k < IRQ_APIC_REG; k++)
			if (board.apic.reg[k] != before.reg[k])
				fail_msg("round %u: register %#x is %#x, not %#x", i, k, board.apic.reg[k],
					 before.reg[k]);
		assert_memory_equal(&board.apic, &before, sizeof(before));
	}
	/* x2APIC mode. */
	before.base = board.apic.base = APIC_EN | BIT(10);
	before.reg[0xd] = 1;
	for (unsigned i = 0; i < 2; i++) {
		move_apics(true);
		memset(&board.apic, 0xa5, sizeof(board.apic));
		move_apics(false);
		assert_int_equal(board.apic.base, before.base);
		assert_int_equal(board.apic.reg[0xd], 1);
		assert_int_equal(board.apic.reg[0x31], before.reg[0x31]);
	}
	stop_apic_vm();
}

static void test_apic_messages(void **state)
{
	start_apic_vm(IRQCHIP_SPLIT);
	move_apics(true);
	assert_int_equal(vm.apics->send(&vm, TO_FIRST, 0x61), 1);
	assert_int_equal(vm.apics->send(&vm, TO_NOBODY, 0x62), 0);
	assert_int_equal(vm.apics->send(&vm, TO_ALL, 0x63), 1);
	move_apics(false);
	assert_int_equal(board.apic.reg[0x20 + 3], BIT(1) | BIT(3));
	stop_apic_vm();
}
static void gate(unsigned vector, u32 at)
{
	st64(vm.ram.base + 0x5000 + 8 * vector, at | 8u << 16 | 0x8e00ull << 32);
}

/* A guest that waits for what has a gate(). */
static void wait_for_interrupts(void)
{
	protected_mode(&a);
	memcpy(vm.ram.base + CODE, "\xfb\xeb\xfe", 3); /* sti; here: jmp here */
	a.idtr = (struct x86_dtr){ 0x7ff, 0x5000 };
	a.gdtr = (struct x86_dtr){ 0x17, 0x4000 };
	st64(vm.ram.base + 0x4008, 0x00cf9b000000ffffull);
	st64(vm.ram.base + 0x4010, 0x00cf93000000ffffull);
}

/* A level-triggered interrupt whose end the board hears of, then one of the 8259A's. */
static void test_apic_interrupts(void **state)
{
	static const u8 handler[] = {
		0xc7, 0x05,      0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, /* movl $0, the EOI register */
		0xe6, STOP_PORT,                                     /* out %al, $STOP_PORT */
		0xcf,                                                /* iret */
	};
	static const int vector[] = { LEVEL, 0x20 };

	start_apic_vm(IRQCHIP_SPLIT);
	wait_for_interrupts();
	for (unsigned i = 0; i < ARRAY_SIZE(vector); i++) {
		u8 *code = vm.ram.base + DATA + 0x100 * i;

		gate((unsigned)vector[i], DATA + 0x100 * i);
		memcpy(code, handler, sizeof(handler));
		if (i) /* no EOI */
			memset(code, 0x90, 10);
	}
	set(&a);
	move_apics(true);
	assert_int_equal(vm.apics->send(&vm, TO_FIRST, LEVEL | BIT(15) | BIT(14)), 1);
	assert_int_equal(vm.engine->run(&vcpu), RUN_REQUEST);
	/* By its own exit, or, where the run ended before that, when the state is looked at. */
	assert_int_equal(vcpu.stats.reason[EXIT_EOI].count, board.eois);
	move_apics(false);
	assert_true(board.eois >= 1);
	assert_int_equal(board.apic.reg[0x20 + (LEVEL >> 5)] | board.apic.reg[0x10 + (LEVEL >> 5)], 0);
	move_apics(true);
	atomic_store(&vcpu.requests, VCPU_REQ_INTR);
	board.extint = 0x20;
	assert_int_equal(vm.engine->run(&vcpu), RUN_REQUEST);
	assert_int_equal(board.extint, -1);
	get(&b);
	assert_int_equal(b.rip, DATA + 0x100 + 12);
	move_apics(false);
	stop_apic_vm();
}

/* --- all of them --- */

static void test_chips_round_trip(void **state)
{
	struct irq_chips before;

	start_apic_vm(IRQCHIP_FULL);
	for (unsigned i = 0; i < 2; i++)
		board.chips.pic[i] = (struct pic_state){
			.lines = i ? 0x12 : 0x0a,
			.irr = i ? 0x16 : 0x8e, /* the second one asks, */
			.isr = i ? 0x08 : 0x20,
			.imr = i ? 0xe8 : 0x04, /* and the first one does not listen to that */
			.elcr = i ? 0x02 : 0x08,
			.vector = i ? 0x78 : 0x30,
			.lowest = i ? 3 : 7,
			.icw = i ? 0 : 4,
			.icw4_due = !i,
			.aeoi = i,
			.sfnm = !i,
			.smm = i,
			.rotate = i,
			.read_isr = !i,
			.poll = i,
		};
	board.chips.select = 0x3f;
	board.chips.id = 0x05000000;
	board.chips.lines = BIT(3) | BIT(5) | BIT(9) | BIT(20);
	board.chips.red[3] = 0x43;                                   /* high, an edge that was sent */
	board.chips.red[5] = RED_MASKED | 0x45;                      /* and one that was not */
	board.chips.red[9] = RED_LEVEL | RED_RIRR | BIT(13) | LEVEL; /* in service */
	board.chips.red[20] = RED_LEVEL | RED_MASKED | 0x0300000000000000 | 0x54; /* waits */
	board.chips.red[23] = 0xff00000000010900 | 0x57;
	before = board.chips;
	for (unsigned i = 0; i < 3; i++) {
		move_apics(true);
		memset(&board.chips.select, 0xa5, sizeof(board.chips) - offsetof(struct irq_chips, select));
		board.chips.lines = before.lines;
		move_apics(false);
		assert_memory_equal(board.chips.pic, before.pic, sizeof(before.pic));
		assert_int_equal(board.chips.select, before.select);
		assert_int_equal(board.chips.id, before.id);
		for (unsigned pin = 0; pin < IRQ_NR_GSI; pin++)
			if (board.chips.red[pin] != before.red[pin])
				fail_msg("round %u: the entry of pin %u is %#llx, not %#llx", i, pin,
					 (unsigned long long)board.chips.red[pin],
					 (unsigned long long)before.red[pin]);
		for (unsigned v = 0; v < 8; v++)
			assert_int_equal(board.apic.reg[0x20 + v], 0);
	}
	stop_apic_vm();
}

static void move_out_and_in(void)
{
	move_apics(false);
	move_apics(true);
}

static void test_chips_edges(void **state)
{
	start_apic_vm(IRQCHIP_FULL);
	board.chips.red[4] = 0x44;
	board.chips.red[5] = RED_MASKED | 0x45;
	move_apics(true);
	set_input(4, true);
	set_input(5, true);
	set_input(IRQ_INPUT_PIC(1), true);
	set_input(IRQ_INPUT_PIC(12), true);
	set_input(IRQ_INPUT_PIC(12), false);
	move_out_and_in();
	move_apics(false);
	assert_true(requested(0x44));
	assert_false(requested(0x45));
	assert_int_equal(board.chips.pic[0].irr & 0xfb, BIT(1));
	assert_int_equal(board.chips.pic[1].irr, BIT(4));
	/* Taken, and still high. */
	board.chips.pic[0].irr = 0;
	move_apics(true);
	move_out_and_in();
	move_apics(false);
	assert_false(requested(0x44));
	assert_int_equal(board.chips.pic[0].irr & 0xfb, 0);
	/* The next ones, one of which comes while the devices have it all: the board's affair. */
	set_input(4, false);
	move_apics(true);
	set_input(4, true);
	set_input(5, false);
	set_input(IRQ_INPUT_PIC(1), false);
	set_input(IRQ_INPUT_PIC(1), true);
	move_apics(false);
	assert_true(requested(0x44));
	assert_false(requested(0x45));
	assert_int_equal(board.chips.pic[0].irr & 0xfb, BIT(1));
	/* One that was masked is forgotten. */
	board.chips.red[5] = 0x45;
	move_apics(true);
	set_input(5, true);
	move_apics(false);
	assert_true(requested(0x45));
	stop_apic_vm();
}

static void test_chips_levels(void **state)
{
	start_apic_vm(IRQCHIP_FULL);
	board.chips.red[16] = RED_LEVEL | 0x46;
	board.chips.red[17] = RED_LEVEL | 0x47 | RED_MASKED;
	board.chips.pic[0].elcr = BIT(5);
	move_apics(true);
	set_input(16, true);
	set_input(17, true);
	set_input(IRQ_INPUT_PIC(5), true);
	move_out_and_in();
	move_apics(false);
	assert_true(requested(0x46));
	assert_int_equal(board.chips.red[16], RED_LEVEL | RED_RIRR | 0x46);
	assert_false(requested(0x47));
	assert_int_equal(board.chips.pic[0].irr, BIT(5));
	/* In service: not again. After its end, as the line is still high: once. */
	move_out_and_in();
	move_apics(false);
	assert_false(requested(0x46));
	board.chips.red[16] &= ~RED_RIRR;
	board.chips.red[17] &= ~RED_MASKED;
	move_out_and_in();
	move_apics(false);
	assert_true(requested(0x46) && requested(0x47));
	assert_int_equal(board.chips.red[17], RED_LEVEL | RED_RIRR | 0x47);
	/* The lines have gone low before their ends. */
	move_apics(true);
	set_input(16, false);
	set_input(17, false);
	set_input(IRQ_INPUT_PIC(5), false);
	move_apics(false);
	assert_int_equal(board.chips.pic[0].irr, 0);
	board.chips.red[16] &= ~RED_RIRR;
	board.chips.red[17] &= ~RED_RIRR;
	move_out_and_in();
	move_apics(false);
	assert_false(requested(0x46) || requested(0x47));
	stop_apic_vm();
}

/* One of each of its controllers, taken by a guest. */
static void test_chips_interrupts(void **state)
{
	static const u8 eoi_apic[] = {
		0xc7, 0x05,      0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, /* movl $0, the EOI register */
		0x31, 0xc0,                                          /* xor %eax, %eax */
		0xe6, STOP_PORT, /* out %al, $STOP_PORT: its line goes low */
		0xcf,            /* iret */
	};
	static const u8 eoi_pic[] = {
		0xb0, 0x20,      /* mov $0x20, %al */
		0xe6, 0x20,      /* out %al, $0x20 */
		0xe6, STOP_PORT, /* out %al, $STOP_PORT */
		0xcf,            /* iret */
	};
	bool second = false, extint = false;

	start_apic_vm(IRQCHIP_FULL);
	wait_for_interrupts();
	gate(LEVEL, DATA + 0x100);
	gate(0x21, DATA + 0x200);
	memcpy(vm.ram.base + DATA + 0x100, eoi_apic, sizeof(eoi_apic));
	memcpy(vm.ram.base + DATA + 0x200, eoi_pic, sizeof(eoi_pic));
	set(&a);
	board.chips.red[4] = RED_LEVEL | LEVEL;
	board.chips.pic[0].imr = 0xfd;
	move_apics(true);
	/* The line is still high at the first end, so there is a second interrupt; it is low at the second. */
	set_input(4, true);
	assert_int_equal(vm.engine->run(&vcpu), RUN_REQUEST);
	assert_int_equal(vcpu_take(&vcpu, VCPU_REQ_STOP), VCPU_REQ_STOP);
	move_out_and_in();
	get(&b);
	assert_int_equal(b.rip, DATA + 0x100 + 14);
	/* And one of the 8259A's, without a word from here. */
	set_input(IRQ_INPUT_PIC(1), true);
	move_out_and_in();
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(vm.engine->run(&vcpu), RUN_REQUEST);
		vcpu_take(&vcpu, VCPU_REQ_STOP);
		get(&b);
		second |= b.rip == DATA + 0x100 + 14;
		extint |= b.rip == DATA + 0x200 + 6;
	}
	assert_true(second && extint);
	move_apics(false);
	assert_int_equal(board.chips.pic[0].irr | board.chips.pic[0].isr, 0);
	assert_int_equal(board.chips.red[4] & RED_RIRR, 0);
	assert_false(requested(LEVEL));
	stop_apic_vm();
}

/* --- messages by eventfd --- */
static int irqfd_on(void **state)
{
	with_irqfd = true;
	return 0;
}

static int irqfd_off(void **state)
{
	with_irqfd = false;
	return 0;
}
#define irqfd_unit_test(f)                                   \
	{                                                    \
#f " irqfd=on", f, irqfd_on, irqfd_off, NULL \
	}

static u64 nr_rung(void)
{
	return engine_stat("messages_by_eventfd");
}

/* Whatever was sent is there when the state is, once; also what KVM delivers on a thread of its own (TO_ALL). */
static void test_irqfd_messages(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		start_apic_vm(i ? IRQCHIP_FULL : IRQCHIP_SPLIT);
		for (unsigned round = 0; round < 200; round++) {
			u64 rung;

			move_apics(true);
			rung = nr_rung();
			vm.apics->send(&vm, TO_FIRST, 0x61);
			vm.apics->send(&vm, TO_FIRST, 0x161); /* lowest priority: another message */
			vm.apics->send(&vm, TO_NOBODY, 0x62);
			for (unsigned n = 0; n <= round % 3; n++)
				vm.apics->send(&vm, TO_ALL, 0x63);
			move_apics(false);
			assert_int_equal(nr_rung() - rung, 4 + round % 3);
			if (!requested(0x61) || !requested(0x63))
				fail_msg("round %u: a message is lost", round);
			for (unsigned n = 0; n < 8; n++)
				assert_int_equal(board.apic.reg[0x20 + n], 0);
		}
		stop_apic_vm();
	}
}

/* Level-triggered ones, and others than of fixed and lowest priority delivery: who takes them is known, and nothing is merged. */
static void test_irqfd_others(void **state)
{
	start_apic_vm(IRQCHIP_SPLIT);
	move_apics(true);
	assert_int_equal(nr_rung(), 1);
	assert_int_equal(vm.apics->send(&vm, TO_FIRST, LEVEL | BIT(15) | BIT(14)), 1);
	assert_int_equal(vm.apics->send(&vm, TO_NOBODY, LEVEL | BIT(15) | BIT(14)), 0);
	assert_int_equal(vm.apics->send(&vm, TO_FIRST, 0x400), 1); /* NMI */
	assert_int_equal(nr_rung(), 1);
	get(&b);
	assert_true(b.nmi_pending);
	move_apics(false);
	assert_true(requested(LEVEL));
	stop_apic_vm();
}

/* A table that is full stays as it is, and costs nothing more. Other routes change meanwhile. */
static void test_irqfd_table(void **state)
{
	start_apic_vm(IRQCHIP_SPLIT);
	for (unsigned round = 0; round < 2; round++) {
		unsigned tables, limit;

		move_apics(true);
		tables = nr_tables;
		for (unsigned v = 0x20; v < 0x100; v++)
			vm.apics->send(&vm, TO_FIRST, v);
		limit = nr_tables - tables;
		assert_in_range(limit, 16, 64);
		board.level_gsi++;
		vm.apics->rerouted(&vm);
		vm.apics->rerouted(&vm);
		assert_int_equal(nr_tables - tables, limit + 1);
		calls = 0;
		for (unsigned v = 0x20; v < 0x100; v++)
			vm.apics->send(&vm, TO_FIRST, v);
		assert_int_equal(calls, 0x100 - 0x20 - limit);
		move_apics(false);
		for (unsigned v = 0x20; v < 0x100; v++)
			assert_true(requested((u8)v));
	}
	stop_apic_vm();
}

static bool refuse_irqfd(unsigned long request, void *arg, int *ret)
{
	*ret = -ENOMEM;
	calls += request == KVM_IRQFD;
	return request == KVM_IRQFD;
}

/* They go without, and KVM is asked once until the table begins anew. */
static void test_irqfd_refused(void **state)
{
	start_apic_vm(IRQCHIP_SPLIT);
	ioctl_shim = refuse_irqfd;
	for (unsigned round = 0; round < 2; round++) {
		calls = 0;
		move_apics(true);
		for (unsigned v = 0x20; v < 0x30; v++)
			vm.apics->send(&vm, TO_FIRST, v);
		move_apics(false);
		assert_int_equal(calls, 1);
		for (unsigned v = 0x20; v < 0x30; v++)
			assert_true(requested((u8)v));
	}
	assert_int_equal(nr_rung(), 0);
	ioctl_shim = fail_one;
	stop_apic_vm();
}

static bool no_irqfd(unsigned long request, void *arg, int *ret)
{
	*ret = 0;
	return request == KVM_CHECK_EXTENSION && (uintptr_t)arg == KVM_CAP_IRQFD;
}

static void test_irqfd_lacking(void **state)
{
	struct err err = { 0 };

	make_apic_vm(IRQCHIP_SPLIT);
	ioctl_shim = no_irqfd;
	assert_int_equal(vm.engine->vm_init(&vm, &err), -ENOTSUP);
	assert_string_equal(err.msg, "this host's KVM takes no interrupts by eventfd; leave irqfd=on out");
	vm.engine->vm_fini(&vm);
	/* Nobody asks for it where it is not used. */
	vm.engine_conf.irqchip = IRQCHIP_USER;
	assert_int_equal(vm.engine->vm_init(&vm, &err), 0);
	vm.engine->vm_fini(&vm);
	ioctl_shim = fail_one;
	bus_del(&vm.bus, &stop_port);
	free_vm();
}

/* --- the host fails --- */
static void test_every_split_ioctl_fails(void **state)
{
	every_apic_ioctl_fails(IRQCHIP_SPLIT);
}

static void test_every_full_ioctl_fails(void **state)
{
	every_apic_ioctl_fails(IRQCHIP_FULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apic_round_trip),
		cmocka_unit_test(test_apic_messages),
		cmocka_unit_test(test_apic_interrupts),
		cmocka_unit_test(test_every_split_ioctl_fails),
		cmocka_unit_test(test_chips_round_trip),
		cmocka_unit_test(test_chips_edges),
		cmocka_unit_test(test_chips_levels),
		cmocka_unit_test(test_chips_interrupts),
		cmocka_unit_test(test_every_full_ioctl_fails),
		irqfd_unit_test(test_irqfd_messages),
		irqfd_unit_test(test_irqfd_others),
		irqfd_unit_test(test_irqfd_table),
		irqfd_unit_test(test_irqfd_refused),
		irqfd_unit_test(test_irqfd_lacking),
		irqfd_unit_test(test_apic_round_trip),
		irqfd_unit_test(test_apic_interrupts),
		irqfd_unit_test(test_every_split_ioctl_fails),
		irqfd_unit_test(test_chips_round_trip),
		irqfd_unit_test(test_chips_edges),
		irqfd_unit_test(test_chips_levels),
		irqfd_unit_test(test_chips_interrupts),
		irqfd_unit_test(test_every_full_ioctl_fails),
	};

	ioctl_shim = fail_one;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
