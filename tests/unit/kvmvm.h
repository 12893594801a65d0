/* What the tests of the KVM engine share, on top of barevm.h: a shim that makes one ioctl fail; a board in the place of a machine's
 * interrupt controllers, for KVM's to be had from; and a machine's whole life, once for each ioctl that fails in it. */
#pragma once

#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "barevm.h"
#include "base/bits.h"
#include "openfiles.h"

#define KVM_IOCTLS 0xae /* the type of KVM's requests */
#define DATA       0x2000
#define HOLE       0xd0000000u

static struct x86_state a, b;

/* --- the shim --- */
static unsigned calls, fail_at, nr_tables;

static bool fail_one(unsigned long request, void *arg, int *ret)
{
	nr_tables += request == KVM_SET_GSI_ROUTING;
	if ((request >> 8 & 0xff) != KVM_IOCTLS || ++calls != fail_at)
		return false;
	*ret = -EIO;
	return true;
}

/* --- state --- */
static void set(const struct x86_state *s)
{
	struct err err = { 0 };

	if (vm.engine->set_state(&vcpu, s, &err) < 0)
		fail_msg("%s", err.msg);
}

static void get(struct x86_state *s)
{
	struct err err = { 0 };

	memset(s, 0xa5, sizeof(*s));
	if (vm.engine->get_state(&vcpu, s, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Ports, MMIO, MSRs, HLT. */
static const u8 tour[] = {
	0xb0, 0x41,                   /* mov $0x41, %al */
	0xe6, 0x80,                   /* out %al, $0x80 */
	0xe5, 0x92,                   /* in $0x92, %eax: nobody, all-ones */
	0x89, 0xc6,                   /* mov %eax, %esi */
	0xa1, 0x00, 0x00, 0x00, 0xd0, /* mov HOLE, %eax: nobody */
	0x89, 0xc7,                   /* mov %eax, %edi */
	0xb9, 0x3b, 0x00, 0x00, 0x00, /* mov $IA32_TSC_ADJUST, %ecx */
	0xb8, 0x64, 0x00, 0x00, 0x00, /* mov $100, %eax */
	0x31, 0xd2,                   /* xor %edx, %edx */
	0x0f, 0x30,                   /* wrmsr */
	0x31, 0xc0,                   /* xor %eax, %eax */
	0x0f, 0x32,                   /* rdmsr */
	0xf4,                         /* hlt */
};

/* --- KVM's own local APICs, and its other interrupt controllers --- */
#define STOP_PORT 0x81
#define LEVEL     0x51
#define APIC_EN   (0xfee00000u | BIT(11) | BIT(8))

/* Messages */
#define TO_FIRST  0xfee00000
#define TO_NOBODY 0xfee05000
#define TO_ALL    0xfeeff000

#define RED_RIRR   BIT(14)
#define RED_LEVEL  BIT(15)
#define RED_MASKED BIT(16)

/* In the place of a board's controllers: one local APIC as it was last, one level-triggered line; and where those are KVM's too,
 * the 8259A pair and the I/O APIC, of which the lines are the board's. */
static struct {
	struct apic_state apic;
	struct irq_chips chips;
	unsigned eois, level_gsi;
	int extint;
} board;

static bool with_irqfd;

static int board_pending(void *opaque, struct vcpu *v)
{
	return board.extint;
}

static int board_ack(void *opaque, struct vcpu *v)
{
	int vector = board.extint;

	board.extint = -1;
	return vector;
}

static void board_get_apic(void *opaque, struct vcpu *v, struct apic_state *ret_apic)
{
	*ret_apic = board.apic;
}

static void board_set_apic(void *opaque, struct vcpu *v, const struct apic_state *apic)
{
	board.apic = *apic;
}

static bool board_route(void *opaque, unsigned gsi, u64 *ret_addr, u32 *ret_data)
{
	*ret_addr = TO_FIRST;
	*ret_data = LEVEL | BIT(15) | BIT(14);
	return gsi == board.level_gsi;
}

static void board_eoi(void *opaque, u8 vector)
{
	board.eois += vector == LEVEL;
}

static void board_get_chips(void *opaque, struct irq_chips *ret_chips)
{
	*ret_chips = board.chips;
}

static void board_set_chips(void *opaque, const struct irq_chips *chips)
{
	const struct irq_chips old = board.chips;

	board.chips = *chips;
	board.chips.lines = old.lines;
	for (unsigned i = 0; i < 2; i++)
		board.chips.pic[i].lines = old.pic[i].lines;
}

static const struct intc_ops board_ops = {
	.pending = board_pending,
	.ack = board_ack,
	.get_apic = board_get_apic,
	.set_apic = board_set_apic,
	.route = board_route,
	.eoi = board_eoi,
	.get_chips = board_get_chips,
	.set_chips = board_set_chips,
};

static u64 stop_read(void *opaque, u64 offset, unsigned size)
{
	return 0;
}

/* As devices do. */
static void set_input(unsigned input, bool level)
{
	unsigned n = input - IRQ_NR_GSI;

	if (input < IRQ_NR_GSI)
		board.chips.lines = (board.chips.lines & ~(1u << input)) | (u32)level << input;
	else
		board.chips.pic[n / 8].lines =
			(u8)((board.chips.pic[n / 8].lines & ~(1u << n % 8)) | (unsigned)level << n % 8);
	if (irq_chips_away(&vm))
		vm.apics->set_input(&vm, input, level);
}

static void stop_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	set_input(4, val & 1);
	vcpu_post(&vcpu, VCPU_REQ_STOP);
}

static const struct region_ops stop_ops = { .read = stop_read, .write = stop_write, .max_size = 1 };
static struct region stop_port = {
	.name = "stop", .ops = &stop_ops, .space = BUS_PIO, .base = STOP_PORT, .len = 1
};

static void make_apic_vm(enum engine_irqchip irqchip)
{
	need_kvm();
	if (!kvm_engine.own_apics(irqchip == IRQCHIP_FULL)) {
		print_message("skipped: this host's KVM has not such interrupt controllers\n");
		skip();
	}
	make_vm(&kvm_engine, 1 * MiB);
	vm.engine_conf.irqchip = irqchip;
	vm.engine_conf.irqfd = with_irqfd;
	vm.intc = &board_ops;
	board.level_gsi = 9;
	board.extint = -1;
	board.eois = 0;
	/* As after a reset, enabled, and open for the 8259A. */
	board.apic = (struct apic_state){ .base = APIC_EN };
	board.apic.reg[3] = 0x50014;
	board.apic.reg[0xe] = ~0u;
	board.apic.reg[0xf] = 0x1ff;
	for (unsigned i = 0x32; i <= 0x37; i++)
		board.apic.reg[i] = 0x10000;
	board.apic.reg[0x35] = 0x700;
	board.chips = (struct irq_chips){ 0 };
	for (unsigned i = 0; i < 2; i++) {
		board.chips.pic[i].imr = 0xff;
		board.chips.pic[i].vector = (u8)(0x20 + 8 * i);
		board.chips.pic[i].lowest = 7;
	}
	for (unsigned pin = 0; pin < IRQ_NR_GSI; pin++)
		board.chips.red[pin] = RED_MASKED;
	stop_port.lock = &vm.intc_lock;
	assert_int_equal(bus_add(&vm.bus, &stop_port), 0);
}

static void start_apic_vm(enum engine_irqchip irqchip)
{
	struct err err = { 0 };

	make_apic_vm(irqchip);
	if (vm.engine->vm_init(&vm, &err) < 0 || vm.engine->vcpu_init(&vcpu, &err) < 0)
		fail_msg("%s", err.msg);
	protected_mode(&a);
	set(&a);
}

static void stop_apic_vm(void)
{
	bus_del(&vm.bus, &stop_port);
	stop_vm();
}

static void move_apics(bool inside)
{
	struct err err = { 0 };

	if (vm.engine->apics(&vm, inside, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(inside == (vm.apics != NULL));
	if (vm.apics && with_irqfd) /* there is something in the table */
		vm.apics->send(&vm, TO_NOBODY, 0x31);
}

/* Did a vector wait in the local APIC? Not any more. */
static bool requested(u8 vector)
{
	u32 *irr = &board.apic.reg[0x20 + vector / 32], bit = 1u << vector % 32;
	bool is = *irr & bit;

	*irr &= ~bit;
	return is;
}

static u64 engine_stat(const char *name)
{
	struct engine_stat stat[ENGINE_MAX_STATS];
	unsigned nr = kvm_engine.stats(&vcpu, stat);

	for (unsigned i = 0; i < nr; i++)
		if (!strcmp(stat[i].name, name))
			return stat[i].value;
	fail_msg("the engine has no figure %s", name);
	return 0;
}

/* --- the host fails --- */
/* A machine's whole life. True: something failed, and was said. */
static bool live(void)
{
	enum run_end end = vm.intc ? RUN_REQUEST : RUN_HLT;
	struct err err = { 0 };
	bool failed = true;

	vm.apics = NULL;
	atomic_store(&vcpu.requests, 0);

	if (vm.engine->vm_init(&vm, &err) >= 0 && vm.engine->vcpu_init(&vcpu, &err) >= 0) {
		protected_mode(&a);
		if (vm.engine->set_state(&vcpu, &a, &err) >= 0 && vm.engine->apics(&vm, true, &err) >= 0) {
			if (with_irqfd)
				vm.apics->send(&vm, TO_FIRST, 0x61);
			failed = vm.engine->run(&vcpu) != end || *vm.crash;
			if (failed)
				snprintf(err.msg, sizeof(err.msg), "%.900s", vm.crash);
			else
				failed = vm.engine->apics(&vm, false, &err) < 0 ||
					 vm.engine->get_state(&vcpu, &b, &err) < 0;
		}
		vm.engine->vcpu_fini(&vcpu);
	}
	vm.engine->vm_fini(&vm);
	/* Whatever KVM does not take, the message has arrived. */
	assert_true(failed || !with_irqfd || requested(0x61));
	if (failed && !strstr(err.msg, "KVM"))
		fail_msg("call %u fails, and that is all that is said: '%s'", fail_at, err.msg);
	return failed;
}

static void fail_each(void)
{
	unsigned failures = 0, files, n;

	files = open_files();
	for (fail_at = 1;; fail_at++) {
		calls = 0;
		failures += live();
		assert_int_equal(open_files(), files);
		atomic_store(&vm.request, VM_REQ_NONE);
		*vm.crash = 0;
		if (calls < fail_at)
			break;
	}
	n = fail_at;
	fail_at = 0;
	/* Those that only ask for a capability or an MSR may be without consequence. */
	print_message("%u ioctls, %u of them end the machine\n", n - 1, failures);
	assert_true(failures >= 25);
}

static void every_apic_ioctl_fails(enum engine_irqchip irqchip)
{
	static const u8 stop[] = { 0xe6, STOP_PORT, 0xf4 };

	make_apic_vm(irqchip);
	memcpy(vm.ram.base + CODE, tour, sizeof(tour) - 1);
	memcpy(vm.ram.base + CODE + sizeof(tour) - 1, stop, sizeof(stop));
	fail_each();
	bus_del(&vm.bus, &stop_port);
	free_vm();
}
