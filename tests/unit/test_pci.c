/* PCI: configuration space both ways, BARs, shared INTx lines, the contract for functions. */
#include "fakevm.h"

#include <errno.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "dev/pm.h"

/* A function with one BAR of each kind, whose registers remember the last access. */
struct toy {
	struct device dev;
	struct pci_dev pci;
	u64 offset, val;
	unsigned size, reads, writes, configs;
	int cap;
};

static struct device *bus;
static struct toy toys[3];

static u64 toy_read(void *opaque, u64 offset, unsigned size)
{
	struct toy *t = opaque;

	t->reads++;
	t->offset = offset;
	t->size = size;
	return 0x1122334455667788;
}

static void toy_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct toy *t = opaque;

	t->writes++;
	t->offset = offset;
	t->size = size;
	t->val = val;
}

static void toy_configured(struct pci_dev *pd, unsigned offset, unsigned len)
{
	container_of(pd, struct toy, pci)->configs++;
}

static const struct region_ops toy_ops = { .read = toy_read, .write = toy_write, .max_size = 4 };

static void toy_make(struct toy *t, u8 pin)
{
	const struct pci_id id = {
		.vendor = 0x1234,
		.device = 0x5678,
		.subsystem_vendor = 0x9abc,
		.subsystem = 0xdef0,
		.class_code = 0x010203,
		.revision = 4,
		.int_pin = pin,
	};

	memset(t, 0, sizeof(*t));
	t->dev.vm = &fake.b.vm;
	pthread_mutex_init(&t->dev.own_lock, NULL);
	t->dev.lock = &t->dev.own_lock;
	strcpy(t->dev.id, "toy");
	pci_dev_init(&t->pci, &t->dev, &id);
	t->pci.config_written = toy_configured;
	assert_int_equal(pci_dev_add_bar(&t->pci, 0, PCI_BAR_IO, 32, &toy_ops, t), 0);
	assert_int_equal(pci_dev_add_bar(&t->pci, 1, PCI_BAR_MEM32, 0x1000, &toy_ops, t), 0);
	assert_int_equal(pci_dev_add_bar(&t->pci, 2, PCI_BAR_MEM64, 0x10000, &toy_ops, t), 0);
	t->cap = pci_dev_add_cap(&t->pci, 9, 10);
	assert_int_equal(t->cap, 0x40);
	t->pci.init[0x42] = 0x5a;
	t->pci.wmask[0x43] = 0xf0;
}

static int setup(void **state)
{
	fake_vm(1);
	fake_controllers();
	bus = fake_add("pci", NULL);
	for (unsigned i = 0; i < 3; i++) {
		toy_make(&toys[i], i == 2 ? 2 : 1);
		assert_int_equal(pci_add(bus, &toys[i].pci, i == 0 ? -1 : (int)i * 4, 0, NULL), 0);
		pci_dev_reset(&toys[i].pci);
	}
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		pci_del(&toys[i].pci);
		pthread_mutex_destroy(&toys[i].dev.own_lock);
	}
	return fake_done(state);
}

static u64 ecam(unsigned slot, unsigned off)
{
	return PCI_ECAM_BASE + (slot << 15) + off;
}

static u64 cfg_rd(unsigned slot, unsigned off, unsigned size)
{
	pio_wr(0xcf8, 4, BIT(31) | slot << 11 | (off & 0xfc));
	return pio_rd(0xcfc + (off & 3), size);
}

static void cfg_wr(unsigned slot, unsigned off, unsigned size, u64 val)
{
	pio_wr(0xcf8, 4, BIT(31) | slot << 11 | (off & 0xfc));
	pio_wr(0xcfc + (off & 3), size, val);
}

static void test_chipset(void **state)
{
	assert_int_equal(cfg_rd(0, 0, 4), 0x29c08086);
	assert_int_equal(cfg_rd(0, 8, 4) >> 8, 0x060000);
	assert_int_equal(cfg_rd(0, 0x60, 4), PCI_ECAM_BASE | 1);
	assert_int_equal(cfg_rd(31, 0, 4), 0x29188086);
	assert_int_equal(cfg_rd(31, 0x0a, 2), 0x0601);
	assert_int_equal(cfg_rd(31, 0x40, 4), PM_BASE | 1);
	cfg_wr(31, 0x40, 4, 0);
	assert_int_equal(cfg_rd(31, 0x40, 4), PM_BASE | 1);
	cfg_wr(31, 0x60, 4, 0x0b0a090f);
	assert_int_equal(cfg_rd(31, 0x60, 4), 0x0b0a090f);
	assert_int_equal(mmio_rd(ecam(31, 0), 4), 0x29188086);
	assert_int_equal(cfg_rd(30, 0, 4), 0xffffffff);
	assert_int_equal(mmio_rd(ecam(30, 0), 4), 0xffffffff);
	assert_int_equal(mmio_rd(PCI_ECAM_BASE + (1 << 20), 4), 0xffffffff); /* bus 1 */
	pio_wr(0xcf8, 4, BIT(31) | 1 << 16);
	assert_int_equal(pio_rd(0xcfc, 4), 0xffffffff);
	assert_ptr_equal(pci_find(&fake.b.vm), bus);
}

static void test_address_port(void **state)
{
	pio_wr(0xcf8, 4, 0xffffffff);
	assert_int_equal(pio_rd(0xcf8, 4), 0x80fffffc);
	assert_int_equal(pio_rd(0xcf8, 1), 0xfc);
	assert_int_equal(pio_rd(0xcfa, 2), 0x80ff);
	pio_wr(0xcf8, 2, 0);
	pio_wr(0xcfb, 1, 0);
	assert_int_equal(pio_rd(0xcf8, 4), 0x80fffffc);
	pio_wr(0xcf8, 4, 0); /* not enabled */
	assert_int_equal(pio_rd(0xcfc, 4), 0xffffffff);
}

static void test_reset_port(void **state)
{
	pio_wr(0xcf9, 1, 2);
	assert_int_equal(pio_rd(0xcf9, 1), 2);
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	pio_wr(0xcf8, 4, 0x00000600); /* the address register, not the reset control */
	pio_wr(0xcf9, 2, 6);
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	pio_wr(PM_RESET_PORT, 1, PM_RESET_VALUE);
	assert_int_equal(fake.b.vm.request, VM_REQ_RESET);
	device_reset_all(&fake.b.vm, RESET_WARM);
	assert_int_equal(pio_rd(0xcf9, 1), 0);
}

static void test_header(void **state)
{
	assert_int_equal(cfg_rd(1, 0, 4), 0x56781234);
	assert_int_equal(cfg_rd(1, 8, 4), 0x01020304);
	assert_int_equal(cfg_rd(1, 0x2c, 4), 0xdef09abc);
	assert_int_equal(cfg_rd(1, 0x3c, 4), 0x0100);
	cfg_wr(1, 0, 4, 0);
	cfg_wr(1, 8, 4, ~0u);
	cfg_wr(1, 0x3c, 4, ~0u);
	assert_int_equal(cfg_rd(1, 0, 4), 0x56781234);
	assert_int_equal(cfg_rd(1, 8, 4), 0x01020304);
	assert_int_equal(cfg_rd(1, 0x3c, 4), 0x01ff);
	cfg_wr(1, 4, 4, ~0u);
	assert_int_equal(cfg_rd(1, 4, 4), 0x00100547);
	assert_int_equal(cfg_rd(1, 0x34, 1), 0x40);
	assert_int_equal(cfg_rd(1, 0x40, 4), 0x005a0009);
	cfg_wr(1, 0x40, 4, ~0u);
	assert_int_equal(cfg_rd(1, 0x40, 4), 0xf05a0009);
	toys[0].pci.config[7] = 0xf9; /* errors as hardware notes them */
	cfg_wr(1, 6, 2, 0x8100);
	assert_int_equal(cfg_rd(1, 6, 2), 0x7810);
	assert_true(toys[0].configs > 0);
	assert_int_equal(mmio_rd(ecam(1, 0x100), 4), 0xffffffff);
	assert_int_equal(mmio_rd(ecam(1, 0xfe), 4), 0xffff0000 | cfg_rd(1, 0xfe, 2));
}

static void test_bar_sizing(void **state)
{
	static const struct {
		unsigned off;
		u32 want;
	} bar[] = {
		{ 0x10, 0xffffffe1 }, { 0x14, 0xfffff000 }, { 0x18, 0xffff0004 },
		{ 0x1c, 0xffffffff }, { 0x20, 0 },          { 0x30, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bar); i++) {
		cfg_wr(1, bar[i].off, 4, 0xffffffff);
		assert_int_equal(cfg_rd(1, bar[i].off, 4), bar[i].want);
	}
}

static void test_bar_access(void **state)
{
	struct toy *t = &toys[0];

	cfg_wr(1, 0x10, 4, 0xc100);
	cfg_wr(1, 0x14, 4, 0xc0010000);
	cfg_wr(1, 0x18, 4, 0xd0000000);
	assert_int_equal(pio_rd(0xc104, 1), 0xff); /* not decoded yet */
	cfg_wr(1, 4, 2, 3);
	assert_int_equal(pio_rd(0xc104, 1), 0x88);
	assert_int_equal(t->offset, 4);
	assert_int_equal(pio_rd(0xc120, 1), 0xff);
	assert_int_equal(pio_rd(0xc0ff, 1), 0xff);
	pio_wr(0xc11f, 1, 0x77);
	assert_int_equal(t->offset, 31);
	assert_int_equal(t->val, 0x77);
	t->reads = 0;
	assert_int_equal(mmio_rd(0xc0010008, 8), 0x5566778855667788); /* in the device's own width */
	assert_int_equal(t->reads, 2);
	assert_int_equal(t->offset, 12);
	assert_int_equal(mmio_rd(0xc0010ffe, 4), 0xffff7788); /* over the end */
	t->writes = 0;
	mmio_wr(0xc0010ffd, 8, 0x1234567890);
	assert_int_equal(t->writes, 2);
	assert_int_equal(t->val, 0x56);
	mmio_wr(0xd000fffc, 4, 0xdeadbeef);
	assert_int_equal(t->offset, 0xfffc);
	cfg_wr(1, 0x18, 4, 0xd0010000); /* moves */
	assert_int_equal(mmio_rd(0xd0000000, 4), 0xffffffff);
	assert_int_equal(mmio_rd(0xd0010000, 4), 0x55667788);
	cfg_wr(1, 4, 2, 1); /* memory off, ports stay */
	assert_int_equal(mmio_rd(0xd0010000, 4), 0xffffffff);
	assert_int_equal(pio_rd(0xc104, 1), 0x88);
}

/* A BAR put over something else answers nowhere, and what is there goes on. */
static void test_G24_bar_anywhere(void **state)
{
	static const u32 places[] = { 0,          0x1000,     0xa0000,    0x100000,   0xbffff000,
				      0xe0000000, 0xe0008000, 0xfec00000, 0xfebffff0, 0xfee00000,
				      0xfffff000, 0xdffff000, 0xc0000000 };

	cfg_wr(1, 4, 2, 7);
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		bool inside = places[i] >= PCI_MMIO_BASE && places[i] < PCI_MMIO_BASE + PCI_MMIO_SIZE;
		bool ecam = places[i] >= PCI_ECAM_BASE && places[i] < PCI_ECAM_BASE + PCI_ECAM_SIZE;
		cfg_wr(1, 0x14, 4, places[i]);
		toys[0].reads = 0;
		mmio_rd(places[i], 4);
		assert_int_equal(toys[0].reads, inside && !ecam);
		assert_true((atomic_load(&toys[0].pci.bar[1].addr) == ~0ull) == !inside);
		cfg_wr(1, 0x10, 4, places[i]);
		pio_rd(places[i] & 0xffff, 1);
	}
	/* The larger one does not fit at the end of the window, nor above 4 GiB, nor at the top of all. */
	cfg_wr(1, 0x14, 4, 0);
	cfg_wr(1, 0x18, 4, 0xfebf0000);
	assert_int_equal(mmio_rd(0xfebf0000, 4), 0x55667788);
	cfg_wr(1, 0x1c, 4, 1);
	assert_int_equal(mmio_rd(0xfebf0000, 4), 0xffffffff);
	cfg_wr(1, 0x1c, 4, 0xffffffff);
	cfg_wr(1, 0x18, 4, 0xffffffff);
	/* Two functions at one place: one answers. */
	cfg_wr(4, 4, 2, 2);
	cfg_wr(1, 0x14, 4, 0xc5000000);
	cfg_wr(4, 0x14, 4, 0xc5000000);
	toys[0].writes = toys[1].writes = 0;
	mmio_wr(0xc5000000, 4, 1);
	assert_int_equal(toys[0].writes + toys[1].writes, 1);
	/* The chip set's ports and ECAM still answer. */
	assert_int_equal(cfg_rd(0, 0, 4), 0x29c08086);
	assert_int_equal(mmio_rd(ecam(0, 0), 4), 0x29c08086);
}

static void test_G25_config_sweep(void **state)
{
	/* Both ways agree at each offset, width and alignment. */
	for (unsigned off = 0; off < 256; off++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			u64 want = 0;
			for (unsigned i = 0; i < size; i++)
				want |= (off + i < 256 ? mmio_rd(ecam(1, off + i), 1) : 0xff) << 8 * i;
			assert_int_equal(mmio_rd(ecam(1, off), size), want);
			if ((off & 3) + size <= 4)
				assert_int_equal(cfg_rd(1, off, size), want);
		}
	}
	for (unsigned off = 0x100; off < 0x1000; off++)
		for (unsigned size = 1; size <= 8; size *= 2)
			if (off + size <= 0x1000)
				assert_int_equal(mmio_rd(ecam(1, off), size), ~0ull >> (64 - 8 * size));
	assert_int_equal(pio_rd(0xcfe, 4), 0xffff0000 | pio_rd(0xcfe, 2)); /* past the last port */
	for (unsigned i = 0; i < 20; i++) {
		fake_storm(BUS_PIO, 0xcf8, 8, 3000);
		fake_storm(BUS_MMIO, ecam(fake_random() % 32, 0), 0x1000, 3000);
		pio_wr(0xcf8, 4, BIT(31) | 1 << 11 | (fake_random() & 0xfc));
	}
	fake_storm(BUS_MMIO, PCI_ECAM_BASE, PCI_ECAM_SIZE, 3000);
	fake_storm(BUS_MMIO, PCI_MMIO_BASE, PCI_MMIO_SIZE, 3000);
	fake_storm(BUS_PIO, PCI_IO_BASE, PCI_IO_SIZE - 8, 3000);
	assert_int_equal(mmio_rd(ecam(1, 0), 4), 0x56781234);
}

static bool line(unsigned gsi)
{
	size_t len;
	u8 *buf = fake_save(device_find(&fake.b.vm, "ioapic"), &len);
	u32 lines = ld32(buf + len - 4); /* the last field of its state */

	free(buf);
	return lines >> gsi & 1;
}

static void test_intx(void **state)
{
	/* Toys 0 and 1 are INTA# of slots 1 and 4, toy 2 is INTB# of slot 8. */
	assert_int_equal(PCI_GSI(1, 0), 17);
	assert_int_equal(PCI_GSI(4, 0), 16);
	assert_int_equal(PCI_GSI(8, 1), 17);
	pci_set_intx(&toys[1].pci, true);
	assert_true(line(16) && !line(17));
	pci_set_intx(&toys[1].pci, false);
	assert_false(line(16));
	pci_set_intx(&toys[0].pci, true);
	pci_set_intx(&toys[2].pci, true); /* shared */
	assert_true(line(17));
	assert_int_equal(cfg_rd(1, 6, 2) & 8, 8);
	pci_set_intx(&toys[0].pci, false);
	assert_true(line(17));
	cfg_wr(8, 4, 2, 0x400); /* forbidden by the guest; the status still shows it */
	assert_false(line(17));
	assert_int_equal(cfg_rd(8, 6, 2) & 8, 8);
	cfg_wr(8, 4, 2, 0);
	assert_true(line(17));
	pci_dev_reset(&toys[2].pci);
	assert_false(line(17));
	pci_set_intx(&toys[2].pci, true);
	pci_del(&toys[2].pci);
	assert_false(line(17));
	pci_set_intx(&toys[2].pci, true); /* no bus any more */
	assert_false(line(17));
}

/* The requests at the 8259A's inputs; all that can be are level-triggered. */
static u32 pic_inputs(void)
{
	return (u32)(pio_rd(0x20, 1) | pio_rd(0xa0, 1) << 8) & ~4u;
}

static void test_pirq(void **state)
{
	pio_wr(0x4d0, 1, 0xf8);
	pio_wr(0x4d1, 1, 0xde);
	pci_set_intx(&toys[0].pci, true); /* line B */
	assert_int_equal(pic_inputs(), 0);
	cfg_wr(31, 0x60, 4, 0x800a0a0b); /* A to 11, B and C to 10, D nowhere */
	assert_int_equal(pic_inputs(), 1 << 10);
	assert_true(line(17) && !line(10)); /* the I/O APIC sees its own pin only */
	pci_set_intx(&toys[1].pci, true);   /* line A */
	assert_int_equal(pic_inputs(), 1 << 10 | 1 << 11);
	cfg_wr(31, 0x60, 1, 0x0a); /* one input for both */
	assert_int_equal(pic_inputs(), 1 << 10);
	pci_set_intx(&toys[0].pci, false);
	assert_int_equal(pic_inputs(), 1 << 10);
	pci_set_intx(&toys[1].pci, false);
	assert_int_equal(pic_inputs(), 0);

	/* An input that a device of the board drives, too. */
	irq_set(&fake.b.vm, 5, true);
	cfg_wr(31, 0x61, 1, 5);
	pci_set_intx(&toys[0].pci, true);
	irq_set(&fake.b.vm, 5, false);
	assert_int_equal(pic_inputs(), 1 << 5);
	irq_set(&fake.b.vm, 5, true);
	pci_set_intx(&toys[0].pci, false);
	assert_int_equal(pic_inputs(), 1 << 5);
	irq_set(&fake.b.vm, 5, false);
	assert_int_equal(pic_inputs(), 0);

	/* What is no input of PCI, and off again. */
	pci_set_intx(&toys[0].pci, true);
	for (unsigned rout = 0; rout < 256; rout++) {
		u32 want = rout & 0x80 ? 0 : 1u << (rout & 0xf) & 0xdef8;

		cfg_wr(31, 0x61, 1, rout);
		assert_int_equal(pic_inputs(), want);
	}
	cfg_wr(31, 0x61, 1, 3);
	bus->ops->reset(bus, RESET_WARM);
	assert_int_equal(pic_inputs(), 0);
	assert_int_equal(cfg_rd(31, 0x61, 1), 0x80);
}

static void test_add_refused(void **state)
{
	static struct toy t, many[32];
	struct err err = { 0 };

	toy_make(&t, 1);
	assert_int_equal(pci_add(bus, &t.pci, 4, 0, &err), -EEXIST);
	assert_int_equal(pci_add(bus, &t.pci, 32, 0, &err), -EINVAL);
	assert_int_equal(pci_add(bus, &t.pci, 3, 8, &err), -EINVAL);
	pci_del(&t.pci); /* never added */
	assert_int_equal(pci_add(bus, &t.pci, 4, 1, &err), 0);
	assert_int_equal(cfg_rd(4, 0x0e, 1), 0x80); /* function 0 says so */
	assert_int_equal(mmio_rd(ecam(4, 0x1000), 4), 0x56781234);
	pci_del(&t.pci);
	unsigned n;
	for (n = 0; n < 32; n++) {
		toy_make(&many[n], 0);
		if (pci_add(bus, &many[n].pci, -1, 0, &err) < 0)
			break;
	}
	assert_int_equal(n, 27); /* 30 slots less three */
	assert_int_equal(err.code, -ENOSPC);
	while (n-- > 0)
		pci_del(&many[n].pci);

	toy_make(&t, 1);
	assert_int_equal(pci_dev_add_bar(&t.pci, 0, PCI_BAR_IO, 32, &toy_ops, &t), -EINVAL);
	assert_int_equal(pci_dev_add_bar(&t.pci, 3, PCI_BAR_MEM32, 32, &toy_ops, &t),
			 -EINVAL); /* upper half of 2 */
	assert_int_equal(pci_dev_add_bar(&t.pci, 5, PCI_BAR_MEM64, 32, &toy_ops, &t), -EINVAL);
	assert_int_equal(pci_dev_add_bar(&t.pci, 4, PCI_BAR_IO, 512, &toy_ops, &t), -EINVAL);
	assert_int_equal(pci_dev_add_bar(&t.pci, 4, PCI_BAR_MEM32, 48, &toy_ops, &t), -EINVAL);
	int caps = 0;
	while (pci_dev_add_cap(&t.pci, 9, 20) > 0)
		caps++;
	assert_int_equal(caps, 8);
	/* The list can be walked. */
	unsigned at = t.pci.config[0x34], seen = 0;
	for (; at; at = t.pci.config[at + 1])
		seen++;
	assert_int_equal(seen, 9);
	struct device_conf conf = { .id = "pci2" };
	assert_int_equal(device_new(&fake.b.vm, "pci", &conf, NULL, &err), -EEXIST);
	assert_int_equal(cfg_rd(0, 0, 4), 0x29c08086);
}

static void test_state(void **state)
{
	cfg_wr(31, 0x60, 4, 0x0b0a090f);
	fake_state(bus);
	assert_int_equal(cfg_rd(31, 0x60, 4), 0x0b0a090f);
	/* A function's own */
	struct err err = { 0 };
	cfg_wr(1, 0x14, 4, 0xc0010000);
	cfg_wr(1, 4, 2, 2);
	u8 saved[PCI_CONFIG_SIZE];
	memcpy(saved, toys[0].pci.config, sizeof(saved));
	pci_dev_reset(&toys[0].pci);
	assert_int_equal(mmio_rd(0xc0010000, 4), 0xffffffff);
	memcpy(toys[0].pci.config, saved, sizeof(saved));
	assert_int_equal(pci_dev_post_load(&toys[0].pci, &err), 0);
	assert_int_equal(mmio_rd(0xc0010000, 4), 0x55667788);
	toys[0].pci.config[2] ^= 1;
	assert_int_equal(pci_dev_post_load(&toys[0].pci, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_chipset),    T(test_address_port), T(test_reset_port),       T(test_header),
		T(test_bar_sizing), T(test_bar_access),   T(test_G24_bar_anywhere), T(test_G25_config_sweep),
		T(test_intx),       T(test_pirq),         T(test_add_refused),      T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
