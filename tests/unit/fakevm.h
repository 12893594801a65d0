/* What the tests of interrupt controllers, timers and buses share, on top of the board of fakeboard.h: the
 * wiring of the controllers, accesses by width, random traffic, and the treatment of a device's state.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/intc.h"
#include "fakeboard.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define FAKE_UNUSED __attribute__((unused))
#define FAKE_RAM    (4 * MiB)

static struct {
	struct board b;
	struct intc intc;
} fake;

static FAKE_UNUSED void fake_advance(u64 ns)
{
	board_advance(&fake.b, ns);
}

static FAKE_UNUSED struct vcpu *cpu(unsigned n)
{
	return fake.b.vm.vcpu[n];
}

/* What the vCPU's thread does when its timer may be due. */
static FAKE_UNUSED void ring(unsigned n)
{
	cpu(n)->timer_fn(cpu(n)->timer_opaque);
}

/* A VM with vCPUs and RAM, without devices. */
static FAKE_UNUSED void fake_vm(unsigned nr_vcpus)
{
	static const unsigned features[] = { X86_FEATURE_X2APIC, X86_FEATURE_TSC_DEADLINE };

	board_init(&fake.b, FAKE_RAM, nr_vcpus);
	fake.b.vm.tsc_khz = 2000000;
	fake.b.vm.cpuid.maxphyaddr = 40;
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		fake.b.vm.cpuid.features[features[i] / 64] |= BIT(features[i] % 64);
	fake.b.now = 1000;
	fake.b.self = cpu(0);
}

static FAKE_UNUSED struct device *fake_add(const char *name, const struct device_conf *conf)
{
	return board_add(&fake.b, name, conf);
}

/* The interrupt controllers, as the board wires them. */
static FAKE_UNUSED void fake_controllers(void)
{
	const struct device_conf pic = { .base = 0x20 };
	struct device *p = fake_add("pic", &pic), *io = fake_add("ioapic", NULL);

	for (unsigned i = 0; i < fake.b.vm.nr_vcpus; i++) {
		const struct device_conf conf = { .index = i };
		fake_add("lapic", &conf);
	}
	intc_init(&fake.intc, &fake.b.vm, p, io);
}

static FAKE_UNUSED int fake_done(void **state)
{
	board_fini(&fake.b);
	return 0;
}

static FAKE_UNUSED u64 mmio_rd(u64 addr, unsigned size)
{
	return bus_read(&fake.b.vm.bus, BUS_MMIO, addr, size);
}

static FAKE_UNUSED void mmio_wr(u64 addr, unsigned size, u64 val)
{
	bus_write(&fake.b.vm.bus, BUS_MMIO, addr, size, val);
}

static FAKE_UNUSED u64 pio_rd(u64 port, unsigned size)
{
	return bus_read(&fake.b.vm.bus, BUS_PIO, port, size);
}

static FAKE_UNUSED void pio_wr(u64 port, unsigned size, u64 val)
{
	bus_write(&fake.b.vm.bus, BUS_PIO, port, size, val);
}

/* MSRs of vCPU n; -1 stands for #GP. */
static FAKE_UNUSED bool msr_wr(unsigned n, u32 msr, u64 val)
{
	fake.b.self = cpu(n);
	return bus_write_msr(&fake.b.vm.bus, cpu(n), msr, val);
}

static FAKE_UNUSED bool msr_rd(unsigned n, u32 msr, u64 *ret_val)
{
	fake.b.self = cpu(n);
	return bus_read_msr(&fake.b.vm.bus, cpu(n), msr, ret_val);
}

/* xorshift64*; every test begins with the same seed, so that a failure can be had again. */
static u64 fake_seed = 0x9e3779b97f4a7c15;

static FAKE_UNUSED u64 fake_random(void)
{
	fake_seed ^= fake_seed >> 12;
	fake_seed ^= fake_seed << 25;
	fake_seed ^= fake_seed >> 27;
	return fake_seed * 0x2545f4914f6cdd1d;
}

/* n accesses of any width and alignment in and around [base, base+len), with small and large values. */
static FAKE_UNUSED void fake_storm(enum bus_space space, u64 base, u64 len, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		u64 addr = base + fake_random() % (len + 8) - 4, val = fake_random() >> fake_random() % 64;
		unsigned size = 1u << fake_random() % (space == BUS_PIO ? 3 : 4);

		if (fake_random() & 1)
			addr &= ~(u64)(size - 1);
		if (fake_random() & 1)
			bus_write(&fake.b.vm.bus, space, addr, size, val);
		else
			assert_int_equal(bus_read(&fake.b.vm.bus, space, addr, size) &
						 ~(~0ull >> (64 - 8 * size)),
					 0);
		if (i % 16 == 0)
			fake_advance(fake_random() % 100000);
	}
}

static FAKE_UNUSED int fake_load(struct device *dev, const u8 *buf, size_t len)
{
	struct err err = { 0 };
	u8 *obj = (u8 *)dev;
	int r = state_load(dev->ops->state, obj, buf, len, &err);

	if (r == 0 && dev->ops->post_load)
		r = dev->ops->post_load(dev, &err);
	if (r < 0)
		assert_true(err.code == r && err.msg[0]);
	return r;
}

static FAKE_UNUSED u8 *fake_save(struct device *dev, size_t *ret_len)
{
	u8 *buf = malloc(*ret_len = state_size(dev->ops->state));

	assert_non_null(buf);
	state_save(dev->ops->state, dev, buf);
	return buf;
}

/* The state comes back as it went, survives a double reset, and no wrong byte in it does harm [M02, M03]. */
static FAKE_UNUSED void fake_state(struct device *dev)
{
	size_t len, len2;
	u8 *buf = fake_save(dev, &len), *buf2, *bad = malloc(len);

	assert_non_null(bad);
	assert_int_equal(fake_load(dev, buf, len), 0);
	buf2 = fake_save(dev, &len2);
	assert_int_equal(len, len2);
	assert_memory_equal(buf, buf2, len);
	free(buf2);

	for (size_t cut = 0; cut < len; cut++)
		assert_true(fake_load(dev, buf, cut) < 0);
	for (size_t i = 0; i < len; i++) {
		memcpy(bad, buf, len);
		bad[i] ^= (u8)(1u << fake_random() % 8);
		if (fake_load(dev, bad, len) == 0)
			fake_advance(fake_random() % 1000000);
		dev->ops->reset(dev, RESET_COLD);
	}
	for (unsigned i = 0; i < 200; i++) {
		memcpy(bad, buf, len);
		for (unsigned n = 0; n < 8; n++)
			bad[fake_random() % len] = (u8)fake_random();
		if (fake_load(dev, bad, len) == 0)
			fake_advance(fake_random() % 1000000);
		dev->ops->reset(dev, RESET_WARM);
	}

	dev->ops->reset(dev, RESET_COLD);
	buf2 = fake_save(dev, &len2);
	dev->ops->reset(dev, RESET_COLD);
	state_save(dev->ops->state, dev, bad);
	assert_memory_equal(bad, buf2, len);
	free(buf2);
	assert_int_equal(fake_load(dev, buf, len), 0);
	free(bad);
	free(buf);
}
