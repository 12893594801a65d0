/* The bus: who answers, splitting of wide accesses, edges, MSRs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "vm/bus.h"
#include "vm/irq.h"
#include "vm/vm.h"

/* A device of 256 bytes of memory that keeps a list of the accesses it got. */
struct mem {
	u8 byte[256];
	char log[512];
	pthread_mutex_t lock;
};

static void mem_note(struct mem *m, char what, u64 offset, unsigned size)
{
	size_t n = strlen(m->log);

	assert_int_not_equal(pthread_mutex_trylock(&m->lock), 0); /* held by the bus */
	snprintf(m->log + n, sizeof(m->log) - n, "%c%llx.%u ", what, (unsigned long long)offset, size);
}

static u64 mem_read(void *opaque, u64 offset, unsigned size)
{
	struct mem *m = opaque;
	u64 val = ~0ull; /* rubbish above size must not get through */

	mem_note(m, 'r', offset, size);
	memcpy(&val, m->byte + offset, size);
	return val;
}

static void mem_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct mem *m = opaque;

	mem_note(m, 'w', offset, size);
	assert_true((val & ~bits_mask(size)) == 0);
	memcpy(m->byte + offset, &val, size);
}

static const struct region_ops mem_ops[] = {
	{ .read = mem_read, .write = mem_write, .max_size = 1 },
	{ .read = mem_read, .write = mem_write, .max_size = 2 },
	{ .read = mem_read, .write = mem_write, .max_size = 4 },
	{ .read = mem_read, .write = mem_write, .max_size = 8 },
};

static struct mem mem = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct region region(enum bus_space space, u64 base, u64 len, unsigned log2_max)
{
	return (struct region){
		.name = "mem",
		.ops = &mem_ops[log2_max],
		.opaque = &mem,
		.lock = &mem.lock,
		.space = space,
		.base = base,
		.len = len,
	};
}

static const char *seen(void)
{
	static char copy[sizeof(mem.log)];

	memcpy(copy, mem.log, sizeof(copy));
	mem.log[0] = 0;
	return copy;
}

static int setup(void **state)
{
	mem.log[0] = 0;
	for (unsigned i = 0; i < sizeof(mem.byte); i++)
		mem.byte[i] = (u8)(0x10 + i);
	return 0;
}

static void test_nobody(void **state)
{
	static struct bus bus;

	assert_true(bus_read(&bus, BUS_PIO, 0x80, 1) == 0xff);
	assert_true(bus_read(&bus, BUS_PIO, 0x80, 4) == 0xffffffff);
	assert_true(bus_read(&bus, BUS_MMIO, ~0ull, 8) == ~0ull);
	bus_write(&bus, BUS_MMIO, 0, 8, 1);
	assert_null(bus_find(&bus, BUS_PIO, 0));
}

static void test_add(void **state)
{
	static struct bus bus;
	struct region a = region(BUS_PIO, 0x100, 0x10, 0), b = region(BUS_PIO, 0x110, 0x10, 0);
	struct region c = region(BUS_PIO, 0xf0, 0x10, 0), bad;

	assert_int_equal(bus_add(&bus, &a), 0);
	assert_int_equal(bus_add(&bus, &a), -EEXIST);
	assert_int_equal(bus_add(&bus, &b), 0);
	assert_int_equal(bus_add(&bus, &c), 0);
	bad = region(BUS_PIO, 0x10f, 1, 0);
	assert_int_equal(bus_add(&bus, &bad), -EEXIST);
	bad = region(BUS_PIO, 0, 0x10000, 0);
	assert_int_equal(bus_add(&bus, &bad), -EEXIST);
	bad = region(BUS_PIO, 0xe0, 0x11, 0);
	assert_int_equal(bus_add(&bus, &bad), -EEXIST);
	bad = region(BUS_PIO, 0xffff, 2, 0);
	assert_int_equal(bus_add(&bus, &bad), -EINVAL);
	bad = region(BUS_MMIO, 0x1000, 0, 0);
	assert_int_equal(bus_add(&bus, &bad), -EINVAL);
	bad = region(BUS_MMIO, ~0ull, 2, 0);
	assert_int_equal(bus_add(&bus, &bad), -EINVAL);
	assert_ptr_equal(bus_find(&bus, BUS_PIO, 0x100), &a);
	assert_ptr_equal(bus_find(&bus, BUS_PIO, 0x10f), &a);
	assert_ptr_equal(bus_find(&bus, BUS_PIO, 0x110), &b);
	assert_ptr_equal(bus_find(&bus, BUS_PIO, 0xff), &c);
	assert_null(bus_find(&bus, BUS_PIO, 0xef));
	assert_null(bus_find(&bus, BUS_PIO, 0x120));
	assert_null(bus_find(&bus, BUS_MMIO, 0x100));
	bus_del(&bus, &a);
	bus_del(&bus, &a);
	assert_null(bus_find(&bus, BUS_PIO, 0x100));
	assert_ptr_equal(bus_find(&bus, BUS_PIO, 0x110), &b);
	assert_int_equal(bus.nr[BUS_PIO], 2);
}

static void test_full(void **state)
{
	static struct bus bus;
	static struct region r[BUS_MAX_REGIONS + 1];

	/* In an order that is neither ascending nor descending. */
	for (unsigned i = 0; i < BUS_MAX_REGIONS; i++) {
		unsigned k = i * 37 % BUS_MAX_REGIONS;

		r[i] = region(BUS_MMIO, 0x1000 + k * 16, 16, 3);
		assert_int_equal(bus_add(&bus, &r[i]), 0);
	}
	r[BUS_MAX_REGIONS] = region(BUS_MMIO, 0x100000, 16, 3);
	assert_int_equal(bus_add(&bus, &r[BUS_MAX_REGIONS]), -ENOSPC);
	for (unsigned i = 0; i < BUS_MAX_REGIONS; i++)
		for (unsigned k = 0; k < 16; k++)
			assert_ptr_equal(bus_find(&bus, BUS_MMIO, r[i].base + k), &r[i]);
}

static void test_top_of_space(void **state)
{
	static struct bus bus;
	struct region top = region(BUS_MMIO, ~0ull - 15, 16, 3), io = region(BUS_PIO, 0xfff8, 8, 2);

	assert_int_equal(bus_add(&bus, &top), 0);
	assert_int_equal(bus_add(&bus, &io), 0);
	assert_true(bus_read(&bus, BUS_MMIO, ~0ull, 8) == 0xffffffffffffff1full);
	assert_string_equal(seen(), "rf.1 ");
	assert_true(bus_read(&bus, BUS_PIO, 0xfffe, 4) == 0xffff1716);
	assert_string_equal(seen(), "r6.2 ");
}

static void test_split(void **state)
{
	static struct bus bus;
	struct region b = region(BUS_PIO, 0x100, 0x20, 0), w = region(BUS_PIO, 0x200, 0x20, 1);
	struct region q = region(BUS_MMIO, 0x1000, 0x20, 3), d = region(BUS_MMIO, 0x2000, 7, 2);

	assert_int_equal(bus_add(&bus, &b) | bus_add(&bus, &w) | bus_add(&bus, &q) | bus_add(&bus, &d), 0);
	assert_true(bus_read(&bus, BUS_PIO, 0x101, 4) == 0x14131211);
	assert_string_equal(seen(), "r1.1 r2.1 r3.1 r4.1 ");
	assert_true(bus_read(&bus, BUS_PIO, 0x201, 4) == 0x14131211);
	assert_string_equal(seen(), "r1.2 r3.2 ");
	assert_true(bus_read(&bus, BUS_MMIO, 0x1000, 8) == 0x1716151413121110ull);
	assert_string_equal(seen(), "r0.8 ");
	assert_true(bus_read(&bus, BUS_MMIO, 0x1000, 1) == 0x10);
	assert_string_equal(seen(), "r0.1 ");
	bus_write(&bus, BUS_PIO, 0x200, 4, 0xffffffffaabbccddull);
	assert_string_equal(seen(), "w0.2 w2.2 ");
	assert_true(ld32(mem.byte) == 0xaabbccdd);
	/* Over the end: the largest pieces that fit; the rest reads ones and is not written. */
	memset(mem.byte, 0x22, sizeof(mem.byte));
	assert_true(bus_read(&bus, BUS_MMIO, 0x2004, 8) == 0xffffffffff222222ull);
	assert_string_equal(seen(), "r4.2 r6.1 ");
	bus_write(&bus, BUS_MMIO, 0x2004, 8, 0x8877665544332211ull);
	assert_string_equal(seen(), "w4.2 w6.1 ");
	assert_memory_equal(mem.byte + 4, "\x11\x22\x33\x22", 4);
	assert_true(bus_read(&bus, BUS_PIO, 0x11f, 2) == 0xff22);
	assert_string_equal(seen(), "r1f.1 ");
}

/* Every size at every offset of regions of every length and width: compared byte by byte. */
static void test_G25_all_edges(void **state)
{
	for (unsigned width = 0; width < 4; width++) {
		for (unsigned len = 1; len <= 17; len++) {
			static struct bus bus;
			struct region r = region(BUS_MMIO, 0x1000, len, width);

			bus.nr[BUS_MMIO] = 0;
			assert_int_equal(bus_add(&bus, &r), 0);
			for (unsigned at = 0; at < len; at++) {
				for (unsigned size = 1; size <= 8; size *= 2) {
					u64 want = 0, got;

					for (unsigned i = size; i-- > 0;)
						want = want << 8 | (at + i < len ? mem.byte[at + i] : 0xff);
					got = bus_read(&bus, BUS_MMIO, 0x1000 + at, size);
					assert_true(got == want);
					bus_write(&bus, BUS_MMIO, 0x1000 + at, size, want);
					seen();
					assert_int_equal(mem.byte[len], 0x10 + len);
				}
			}
		}
	}
}

/* ---- MSRs ---- */

static bool msr_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	*ret_val = msr * 2;
	return msr != 0x805;
}

static bool msr_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	*(u64 *)opaque = val;
	return val != 13;
}

static void test_msr(void **state)
{
	static const struct msr_ops ops = { msr_read, msr_write };
	static struct bus bus;
	static struct msr_region many[BUS_MAX_MSR_REGIONS + 1];
	u64 last = 0, val = 77;
	struct msr_region a = { "x2apic", &ops, &last, NULL, 0x800, 0x8ff };
	struct msr_region b = { "clock", &ops, &last, NULL, 0x11, 0x12 };
	struct msr_region top = { "top", &ops, &last, NULL, 0xffffffff, 0xffffffff };
	struct msr_region bad = { "bad", &ops, &last, NULL, 0x8ff, 0x900 };
	struct msr_region inverse = { "inverse", &ops, &last, NULL, 2, 1 };

	assert_int_equal(bus_add_msr(&bus, &a), 0);
	assert_int_equal(bus_add_msr(&bus, &b), 0);
	assert_int_equal(bus_add_msr(&bus, &top), 0);
	assert_int_equal(bus_add_msr(&bus, &bad), -EEXIST);
	assert_int_equal(bus_add_msr(&bus, &inverse), -EINVAL);
	assert_ptr_equal(bus.msr[0], &b);
	assert_true(bus_read_msr(&bus, NULL, 0x11, &val) && val == 0x22);
	assert_true(bus_read_msr(&bus, NULL, 0x8ff, &val) && val == 0x11fe);
	assert_true(bus_read_msr(&bus, NULL, 0xffffffff, &val));
	assert_false(bus_read_msr(&bus, NULL, 0x805, &val));
	assert_false(bus_read_msr(&bus, NULL, 0x10, &val));
	assert_false(bus_read_msr(&bus, NULL, 0x900, &val));
	assert_true(bus_write_msr(&bus, NULL, 0x800, 5) && last == 5);
	assert_false(bus_write_msr(&bus, NULL, 0x800, 13));
	assert_false(bus_write_msr(&bus, NULL, 0x10, 6));
	bus_del_msr(&bus, &a);
	assert_false(bus_write_msr(&bus, NULL, 0x800, 5));
	assert_int_equal(bus.nr_msr, 2);
	bus.nr_msr = 0;
	for (unsigned i = 0; i <= BUS_MAX_MSR_REGIONS; i++) {
		many[i] = (struct msr_region){ "m", &ops, &last, NULL, 1000 - i, 1000 - i };
		assert_int_equal(bus_add_msr(&bus, &many[i]), i < BUS_MAX_MSR_REGIONS ? 0 : -ENOSPC);
	}
}

/* ---- interrupt lines ---- */

static char lines[256];

static void intc_set(void *opaque, unsigned gsi, bool level)
{
	size_t n = strlen(lines);

	assert_int_not_equal(pthread_mutex_trylock(&((struct vm *)opaque)->intc_lock), 0);
	snprintf(lines + n, sizeof(lines) - n, "%u=%d ", gsi, level);
}

static void intc_msi(void *opaque, u64 addr, u32 data)
{
	size_t n = strlen(lines);

	snprintf(lines + n, sizeof(lines) - n, "msi %llx %x ", (unsigned long long)addr, data);
}

static int intc_pending(void *opaque, struct vcpu *vcpu)
{
	return 0x31;
}

static int intc_ack(void *opaque, struct vcpu *vcpu)
{
	return 0x32;
}

static u64 intc_get_cr8(void *opaque, struct vcpu *vcpu)
{
	return 5;
}

static void intc_set_cr8(void *opaque, struct vcpu *vcpu, u64 cr8)
{
	snprintf(lines, sizeof(lines), "cr8=%llu", (unsigned long long)cr8);
}

static void test_irq(void **state)
{
	static const struct intc_ops ops = {
		.set_gsi = intc_set,
		.msi = intc_msi,
		.pending = intc_pending,
		.ack = intc_ack,
		.get_cr8 = intc_get_cr8,
		.set_cr8 = intc_set_cr8,
	};
	static struct vm vm = { .intc_lock = PTHREAD_MUTEX_INITIALIZER };
	static struct vcpu vcpu = { .vm = &vm };

	/* Without a controller nothing happens. */
	irq_set(&vm, 1, true);
	irq_pulse(&vm, 1);
	irq_msi(&vm, 0xfee00000, 1);
	irq_set_cr8(&vcpu, 1);
	assert_int_equal(irq_pending(&vcpu), -1);
	assert_int_equal(irq_ack(&vcpu), -1);
	assert_int_equal(irq_get_cr8(&vcpu), 0);
	vm.intc = &ops;
	vm.intc_opaque = &vm;
	irq_set(&vm, 1, true);
	irq_set(&vm, IRQ_NR_GSI, true);
	irq_pulse(&vm, 23);
	irq_pulse(&vm, ~0u);
	irq_msi(&vm, 0xfee00000, 0x41);
	assert_string_equal(lines, "1=1 23=0 23=1 23=0 msi fee00000 41 ");
	assert_int_equal(irq_pending(&vcpu), 0x31);
	assert_int_equal(irq_ack(&vcpu), 0x32);
	assert_int_equal(irq_get_cr8(&vcpu), 5);
	irq_set_cr8(&vcpu, 9);
	assert_string_equal(lines, "cr8=9");
	assert_int_equal(pthread_mutex_trylock(&vm.intc_lock), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nobody, setup),
		cmocka_unit_test_setup(test_add, setup),
		cmocka_unit_test_setup(test_full, setup),
		cmocka_unit_test_setup(test_top_of_space, setup),
		cmocka_unit_test_setup(test_split, setup),
		cmocka_unit_test_setup(test_G25_all_edges, setup),
		cmocka_unit_test(test_msr),
		cmocka_unit_test(test_irq),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
