/* The I/O APIC, and the routing of lines and messages in front of it and the local APICs. */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pic.h"

#define LEVEL  BIT(15)
#define RIRR   BIT(14)
#define MASKED BIT(16)

static u32 rd(unsigned reg)
{
	mmio_wr(IOAPIC_BASE, 4, reg);
	return (u32)mmio_rd(IOAPIC_BASE + 0x10, 4);
}

static void wr(unsigned reg, u32 val)
{
	mmio_wr(IOAPIC_BASE, 4, reg);
	mmio_wr(IOAPIC_BASE + 0x10, 4, val);
}

static void redirect(unsigned pin, u32 dest, u32 low)
{
	wr(0x10 + 2 * pin, MASKED);
	wr(0x11 + 2 * pin, dest << 24);
	wr(0x10 + 2 * pin, low);
}

static void lapic_wr(unsigned n, unsigned offset, u32 val)
{
	fake.b.self = cpu(n);
	mmio_wr(LAPIC_BASE + offset, 4, val);
}

static void eoi(unsigned n)
{
	lapic_wr(n, 0xb0, 0);
}

static int ack(unsigned n)
{
	return irq_ack(cpu(n));
}

static int setup(void **state)
{
	fake_vm(2);
	fake_controllers();
	for (unsigned i = 0; i < 2; i++)
		lapic_wr(i, 0xf0, 0x1ff);
	return 0;
}

static void test_registers(void **state)
{
	assert_int_equal(rd(0), 0);
	assert_int_equal(rd(1), 0x00170020);
	assert_int_equal(rd(2), 0);
	assert_int_equal(rd(3), 0xffffffff);
	assert_int_equal(rd(0x0f), 0xffffffff);
	assert_int_equal(rd(0x40), 0xffffffff);
	assert_int_equal(rd(0xff), 0xffffffff);
	wr(0, 0xffffffff);
	assert_int_equal(rd(0), 0x0f000000);
	assert_int_equal(rd(2), 0x0f000000); /* arbitration follows */
	wr(2, 0);
	assert_int_equal(rd(2), 0x0f000000);
	wr(1, 0);
	assert_int_equal(rd(1), 0x00170020);
	for (unsigned pin = 0; pin < 24; pin++) {
		assert_int_equal(rd(0x10 + 2 * pin), MASKED);
		wr(0x10 + 2 * pin, 0xffffffff);
		wr(0x11 + 2 * pin, 0xffffffff);
		assert_int_equal(rd(0x10 + 2 * pin), 0x1afff); /* neither delivery status nor remote IRR */
		assert_int_equal(rd(0x11 + 2 * pin), 0xff000000);
	}
	/* widths */
	mmio_wr(IOAPIC_BASE, 1, 1);
	assert_int_equal(mmio_rd(IOAPIC_BASE, 4), 1);
	assert_int_equal(mmio_rd(IOAPIC_BASE + 0x10, 1), 0x20);
	assert_int_equal(mmio_rd(IOAPIC_BASE + 0x12, 2), 0x17);
	mmio_wr(IOAPIC_BASE, 4, 0x10);
	mmio_wr(IOAPIC_BASE + 0x10, 1, 0x77); /* a byte is not a register write */
	assert_int_equal(rd(0x10), 0x1afff);
	assert_int_equal(mmio_rd(IOAPIC_BASE + 0x20, 4), 0xffffffff);
}

/* What is selected may come late, since whatever it is for comes behind it. */
static void test_late(void **state)
{
	struct bus_late late;

	assert_true(bus_late(&fake.b.vm.bus, BUS_MMIO, IOAPIC_BASE, &late));
	assert_true(late.posted);
	assert_int_equal(late.at, IOAPIC_BASE);
	assert_int_equal(late.len, 4);
	assert_false(bus_late(&fake.b.vm.bus, BUS_MMIO, IOAPIC_BASE + 0x10, &late));
	assert_false(bus_late(&fake.b.vm.bus, BUS_MMIO, IOAPIC_BASE + 0x40, &late));
}

static void test_edge(void **state)
{
	redirect(5, 1, 0x45);
	irq_set(&fake.b.vm, 5, true);
	assert_int_equal(ack(1), 0x45);
	eoi(1);
	irq_set(&fake.b.vm, 5, true); /* no edge */
	assert_int_equal(irq_pending(cpu(1)), -1);
	irq_set(&fake.b.vm, 5, false);
	irq_pulse(&fake.b.vm, 5);
	assert_int_equal(ack(1), 0x45);
	eoi(1);
	/* An edge on a masked pin is lost. */
	redirect(5, 1, MASKED | 0x45);
	irq_pulse(&fake.b.vm, 5);
	redirect(5, 1, 0x45);
	assert_int_equal(irq_pending(cpu(1)), -1);
}

static void test_level(void **state)
{
	redirect(17, 0, LEVEL | 0x61);
	irq_set(&fake.b.vm, 17, true);
	assert_true(rd(0x10 + 34) & RIRR);
	for (unsigned i = 0; i < 5; i++) { /* comes again until the device is served */
		assert_int_equal(ack(0), 0x61);
		assert_int_equal(irq_pending(cpu(0)), -1);
		eoi(0);
	}
	irq_set(&fake.b.vm, 17, false);
	assert_int_equal(ack(0), 0x61);
	assert_true(rd(0x10 + 34) & RIRR);
	eoi(0);
	assert_false(rd(0x10 + 34) & RIRR);
	assert_int_equal(irq_pending(cpu(0)), -1);
	/* Masked while high; unmasking sends. */
	redirect(17, 0, LEVEL | MASKED | 0x61);
	irq_set(&fake.b.vm, 17, true);
	assert_int_equal(irq_pending(cpu(0)), -1);
	redirect(17, 0, LEVEL | 0x61);
	assert_int_equal(ack(0), 0x61);
	/* The EOI register does what the message does. */
	irq_set(&fake.b.vm, 17, false);
	mmio_wr(IOAPIC_BASE + 0x40, 4, 0x62);
	assert_true(rd(0x10 + 34) & RIRR);
	mmio_wr(IOAPIC_BASE + 0x40, 4, 0x61);
	assert_false(rd(0x10 + 34) & RIRR);
	eoi(0);
	/* Nobody takes it: not lost, comes when somebody can. */
	redirect(17, 9, LEVEL | 0x61);
	irq_set(&fake.b.vm, 17, true);
	assert_false(rd(0x10 + 34) & RIRR);
	wr(0x11 + 34, 1 << 24);
	assert_int_equal(ack(1), 0x61);
	eoi(1);
	/* A switch to edge forgets remote IRR. */
	assert_true(rd(0x10 + 34) & RIRR);
	wr(0x10 + 34, MASKED | 0x61);
	assert_false(rd(0x10 + 34) & RIRR);
}

static void test_modes(void **state)
{
	vcpu_take(cpu(1), ~0u);
	redirect(16, 1, 0x400); /* NMI */
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(vcpu_take(cpu(1), ~0u), VCPU_REQ_NMI);
	redirect(16, 1, LEVEL | 0x400); /* is an edge all the same */
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(vcpu_take(cpu(1), ~0u), VCPU_REQ_NMI);
	redirect(16, 1, 0x500); /* INIT */
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(vcpu_take(cpu(1), ~0u), VCPU_REQ_INIT);
	redirect(16, 1, 0x200); /* SMI, reserved: nothing */
	irq_pulse(&fake.b.vm, 16);
	redirect(16, 1, 0x300);
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(vcpu_take(cpu(1), ~0u), 0);
	redirect(16, 0xff, 0x05); /* an illegal vector */
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(irq_pending(cpu(0)), -1);
	/* Logical, lowest priority */
	lapic_wr(0, 0xd0, 1 << 24);
	lapic_wr(1, 0xd0, 2 << 24);
	lapic_wr(1, 0xf0, 0x1ff);
	lapic_wr(0, 0x80, 0x30);
	redirect(16, 3, 0x900 | 0x41);
	irq_pulse(&fake.b.vm, 16);
	assert_int_equal(irq_pending(cpu(0)), -1);
	assert_int_equal(ack(1), 0x41);
}

static void pic_start(void)
{
	for (unsigned i = 0; i < 2; i++) {
		u64 port = i ? 0xa0 : 0x20;
		pio_wr(port, 1, 0x11);
		pio_wr(port + 1, 1, i ? 0x38 : 0x30);
		pio_wr(port + 1, 1, i ? 2 : 4);
		pio_wr(port + 1, 1, 1);
		pio_wr(port + 1, 1, 0);
	}
}

static void test_routing(void **state)
{
	pic_start();
	lapic_wr(0, 0x350, 0x10700); /* no virtual wire */
	for (unsigned pin = 0; pin < 24; pin++)
		redirect(pin, 1, 0x80 + pin);
	redirect(0, 1, MASKED);
	for (unsigned gsi = 0; gsi < 30; gsi++) {
		irq_pulse(&fake.b.vm, gsi);
		int want = gsi == 0 ? 0x82 : gsi == 2 || gsi >= 24 ? -1 : 0x80 + (int)gsi;
		assert_int_equal(ack(1), want);
		if (want >= 0)
			eoi(1);
		pthread_mutex_lock(&fake.b.vm.intc_lock);
		int pic = pic_pending(fake.intc.pic);
		if (pic >= 0)
			pic_ack(fake.intc.pic);
		pthread_mutex_unlock(&fake.b.vm.intc_lock);
		assert_int_equal(pic, gsi >= 16 || gsi == 2 ? -1 : 0x30 + (int)gsi);
		pio_wr(0xa0, 1, 0x20);
		pio_wr(0x20, 1, 0x20);
	}
}

static void test_extint_pin(void **state)
{
	pic_start();
	lapic_wr(0, 0x350, 0x10700);
	redirect(0, 1, 0x700); /* mixed mode: the 8259A through pin 0 to vCPU 1 */
	vcpu_take(cpu(1), ~0u);
	irq_set(&fake.b.vm, 3, true);
	assert_int_equal(vcpu_take(cpu(1), ~0u), VCPU_REQ_INTR);
	assert_int_equal(irq_pending(cpu(0)), -1);
	assert_int_equal(ack(1), 0x33);
	assert_int_equal(ack(1), -1);
}

static void test_G23_msi(void **state)
{
	irq_msi(&fake.b.vm, 0xfee01000, 0x71);
	assert_int_equal(irq_pending(cpu(0)), -1);
	assert_int_equal(ack(1), 0x71);
	eoi(1);
	irq_msi(&fake.b.vm, 0xfeeff008, 0x72); /* redirection hint: to one of all */
	assert_true((irq_pending(cpu(0)) == 0x72) != (irq_pending(cpu(1)) == 0x72));
	ack(0);
	ack(1);
	eoi(0);
	eoi(1);
	irq_msi(&fake.b.vm, 0xfee00000, 0xc073); /* level, assert */
	assert_int_equal(ack(0), 0x73);
	fake.b.self = cpu(0);
	assert_true(mmio_rd(LAPIC_BASE + 0x1b0, 4) >> 19 & 1); /* TMR */
	eoi(0);
	irq_msi(&fake.b.vm, 0xfee00000, 0x8074); /* level, de-assert */
	static const u64 outside[] = { 0,           0xfed00000, 0xfef00000,         0xfec00000,
				       0x1fee00000, ~0ull,      0xfee00000ull << 32 };
	for (unsigned i = 0; i < ARRAY_SIZE(outside); i++)
		irq_msi(&fake.b.vm, outside[i], 0x75);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(irq_pending(cpu(i)), -1);
	for (unsigned data = 0; data < 0x10000; data++)
		irq_msi(&fake.b.vm, 0xfee00000 | (fake_random() & 0xfffff), data);
}

/* A line that is never lowered costs one message per EOI, nothing by itself. */
static void test_G41_level_storm(void **state)
{
	for (unsigned pin = 0; pin < 24; pin++)
		redirect(pin, 0xff, LEVEL | 0x61);
	for (unsigned gsi = 0; gsi < 24; gsi++)
		irq_set(&fake.b.vm, gsi, true);
	for (unsigned i = 0; i < 10000; i++) {
		unsigned n = i % 2;
		assert_int_equal(ack(n), 0x61);
		assert_int_equal(ack(n), -1);
		eoi(n);
		mmio_wr(IOAPIC_BASE + 0x40, 4, 0x61);
	}
	fake_storm(BUS_MMIO, IOAPIC_BASE, 0x60, 20000);
	device_reset_all(&fake.b.vm, RESET_COLD);
	for (unsigned pin = 0; pin < 24; pin++)
		assert_int_equal(rd(0x10 + 2 * pin), MASKED);
}

static void test_legacy_route(void **state)
{
	redirect(2, 0, 0x50);
	redirect(8, 0, 0x58);
	irq_set(&fake.b.vm, 8, true);
	assert_int_equal(ack(0), 0x58);
	eoi(0);
	intc_set_legacy(&fake.b.vm, true); /* the RTC is cut off: low */
	irq_pulse(&fake.b.vm, 0);
	irq_set(&fake.b.vm, 8, false);
	irq_set(&fake.b.vm, 8, true);
	assert_int_equal(irq_pending(cpu(0)), -1);
	intc_legacy_irq(&fake.b.vm, 0, true);
	assert_int_equal(ack(0), 0x50);
	eoi(0);
	intc_legacy_irq(&fake.b.vm, 8, true);
	assert_int_equal(ack(0), 0x58);
	eoi(0);
	intc_legacy_irq(&fake.b.vm, 5, true); /* not one of its lines */
	intc_legacy_irq(&fake.b.vm, 8, false);
	assert_int_equal(irq_pending(cpu(0)), -1);
	intc_set_legacy(&fake.b.vm, false); /* back to the RTC, which is high */
	assert_int_equal(ack(0), 0x58);
	eoi(0);
	intc_legacy_irq(&fake.b.vm, 0, true);
	assert_int_equal(irq_pending(cpu(0)), -1);
}

/* --- an engine that has the controllers --- */
static struct {
	unsigned calls, input;
	bool level;
} told;

static void engine_set_input(struct vm *vm, unsigned input, bool level)
{
	told.calls++;
	told.input = input;
	told.level = level;
}

static unsigned engine_send(struct vm *vm, u64 addr, u32 data)
{
	return 1;
}

static void assert_told(unsigned calls, unsigned input, bool level)
{
	assert_int_equal(told.calls, calls);
	assert_int_equal(told.input, input);
	assert_int_equal(told.level, level);
	told.calls = 0;
}

static void test_away(void **state)
{
	static const struct apic_ops ops = { .send = engine_send, .set_input = engine_set_input };
	struct vm *vm = &fake.b.vm;
	struct irq_chips chips = { 0 }, again = { 0 };

	redirect(17, 0, LEVEL | 0x61);
	redirect(5, 0, 0x55);
	pio_wr(0x21, 1, 0xdf);
	vm->intc->get_chips(vm->intc_opaque, &chips);
	assert_int_equal(chips.red[17], LEVEL | 0x61);
	assert_int_equal(chips.pic[0].imr, 0xdf);

	vm->apics = &ops;
	told.calls = 0;
	irq_set(vm, 17, true);
	assert_told(1, 17, true);
	irq_set(vm, 17, true); /* no change */
	assert_int_equal(told.calls, 0);
	/* One of ISA comes to both, the timer to another pin, one of PCI to where the chip set leads it. */
	irq_set(vm, 5, true);
	assert_told(2, 5, true);
	irq_set(vm, 0, true);
	assert_told(2, INTC_TIMER_PIN, true);
	intc_set_pic(vm, BIT(11));
	assert_told(1, IRQ_INPUT_PIC(11), true);
	irq_set(vm, 11, true); /* which is high there already */
	assert_told(1, 11, true);
	irq_set(vm, 11, false);
	assert_told(1, 11, false);
	intc_set_pic(vm, 0);
	assert_told(1, IRQ_INPUT_PIC(11), false);
	/* Their registers are nobody's here. */
	assert_int_equal(rd(0x10 + 34), 0xffffffff);
	wr(0x10 + 34, 0x99);
	mmio_wr(IOAPIC_BASE + 0x40, 4, 0x61);
	assert_int_equal(pio_rd(0x20, 1), 0xff);
	assert_int_equal(pio_rd(0xa1, 1), 0xff);
	assert_int_equal(pio_rd(0x4d0, 1), 0xff);
	pio_wr(0x21, 1, 0);
	pio_wr(0x4d1, 1, 0xff);

	/* Back, with what came meanwhile: the edge as a request, the level as the pin has it. */
	vm->apics = NULL;
	chips.pic[0].irr |= BIT(5);
	chips.pic[0].elcr = 0xff;
	chips.pic[1].icw = 0;
	chips.id = 0xffffffff;
	chips.red[3] = ~0ull;
	chips.red[4] = ~0ull & ~(u64)(7 << 8); /* fixed */
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->set_chips(vm->intc_opaque, &chips);
	vm->intc->get_chips(vm->intc_opaque, &again);
	pthread_mutex_unlock(&vm->intc_lock);
	assert_int_equal(told.calls, 0);
	assert_int_equal(rd(0x10 + 34), LEVEL | RIRR | 0x61);
	assert_int_equal(ack(0), 0x61);
	eoi(0);
	assert_int_equal(rd(0), 0x0f000000);
	assert_int_equal(rd(0x10 + 6) & RIRR, 0); /* of a mode that knows no levels */
	assert_int_equal(rd(0x10 + 8) & (RIRR | 0xfffe0000), RIRR);
	assert_int_equal(again.pic[0].elcr, 0xf8);
	assert_int_equal(again.pic[0].irr & BIT(5), BIT(5)); /* it is high */
	assert_int_equal(again.pic[0].lines, BIT(0) | BIT(5));
	assert_int_equal(again.lines & ~1u, BIT(2) | BIT(5) | BIT(17));
	irq_set(vm, 5, false);
	vm->intc->get_chips(vm->intc_opaque, &again);
	assert_int_equal(again.pic[0].irr & BIT(5), 0);
}

static void test_state(void **state)
{
	redirect(17, 0, LEVEL | 0x61);
	irq_set(&fake.b.vm, 17, true);
	irq_set(&fake.b.vm, 4, true);
	fake_state(device_find(&fake.b.vm, "ioapic"));
	assert_true(rd(0x10 + 34) & RIRR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
		T(test_registers),       T(test_late),         T(test_edge),       T(test_level),
		T(test_modes),           T(test_routing),      T(test_extint_pin), T(test_G23_msi),
		T(test_G41_level_storm), T(test_legacy_route), T(test_away),       T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
