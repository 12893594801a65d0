/* MSI and MSI-X of a function: what a guest programs, masks and pending bits, what leaves as a message [G23]. */
#include "fakevm.h"

#include <errno.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "dev/pci_msi.h"

#define NR_MSI  4
#define NR_MSIX 5
#define TABLE   0xc0100000ull
#define PBA     (TABLE + 0x800)
#define WINDOW  0xfee00000ull

struct toy {
	struct device dev;
	struct pci_dev pci;
	struct pci_msi msi;
	struct pci_msix msix;
};

static struct toy toy;

static u64 rd(unsigned off, unsigned size)
{
	return mmio_rd(PCI_ECAM_BASE + (3 << 15) + off, size);
}

static void wr(unsigned off, unsigned size, u64 val)
{
	mmio_wr(PCI_ECAM_BASE + (3 << 15) + off, size, val);
}

static int setup(void **state)
{
	const struct pci_id id = { .vendor = 0x1234, .device = 0x5678, .int_pin = 1 };

	fake_vm(1);
	struct device *bus = fake_add("pci", NULL);

	memset(&toy, 0, sizeof(toy));
	toy.dev.vm = &fake.b.vm;
	pthread_mutex_init(&toy.dev.own_lock, NULL);
	toy.dev.lock = &toy.dev.own_lock;
	strcpy(toy.dev.id, "toy");
	pci_dev_init(&toy.pci, &toy.dev, &id);
	assert_int_equal(pci_msi_init(&toy.msi, &toy.pci, NR_MSI), 0);
	assert_int_equal(pci_msi_init_x(&toy.msix, &toy.pci, NR_MSIX, 1), 0);
	assert_int_equal(pci_add(bus, &toy.pci, 3, 0, NULL), 0);
	pci_dev_reset(&toy.pci);
	wr(0x14, 4, TABLE);
	wr(PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	return 0;
}

static int teardown(void **state)
{
	pci_del(&toy.pci);
	pthread_mutex_destroy(&toy.dev.own_lock);
	return fake_done(state);
}

static void test_layout(void **state)
{
	unsigned msi = (unsigned)rd(PCI_CAP_PTR, 1), msix = (unsigned)rd(msi + 1, 1);

	assert_int_equal(msi, toy.msi.cap);
	assert_int_equal(rd(msi, 1), 5);
	assert_int_equal(rd(msi + 2, 2), 0x180 | 2 << 1); /* 64 bits, masks, four vectors */
	assert_int_equal(msix, toy.msix.cap);
	assert_int_equal(rd(msix, 1), 0x11);
	assert_int_equal(rd(msix + 1, 1), 0);
	assert_int_equal(rd(msix + 2, 2), NR_MSIX - 1);
	assert_int_equal(rd(msix + 4, 4), 1);
	assert_int_equal(rd(msix + 8, 4), 0x801);
	/* What cannot be written */
	wr(msi + 2, 2, 0xffff);
	assert_int_equal(rd(msi + 2, 2), 0x180 | 2 << 1 | 0x71);
	wr(msi + 4, 4, ~0u);
	assert_int_equal(rd(msi + 4, 4), 0xfffffffc);
	wr(msi + 0x10, 4, ~0u);
	assert_int_equal(rd(msi + 0x10, 4), 0xf);
	wr(msi + 0x14, 4, ~0u);
	assert_int_equal(rd(msi + 0x14, 4), 0);
	wr(msix + 2, 2, 0xffff);
	assert_int_equal(rd(msix + 2, 2), 0xc000 | (NR_MSIX - 1));
	assert_int_equal(pci_msi_init(&toy.msi, &toy.pci, 3), -EINVAL);
	assert_int_equal(pci_msi_init(&toy.msi, &toy.pci, 64), -EINVAL);
	assert_int_equal(pci_msi_init_x(&toy.msix, &toy.pci, 0, 2), -EINVAL);
	assert_int_equal(pci_msi_init_x(&toy.msix, &toy.pci, PCI_MSIX_MAX + 1, 2), -EINVAL);
	assert_int_equal(pci_msi_init_x(&toy.msix, &toy.pci, 1, 1), -EINVAL); /* the BAR is taken */
}

static void test_msi(void **state)
{
	unsigned cap = toy.msi.cap;

	wr(cap + 4, 4, WINDOW);
	wr(cap + 8, 4, 0);
	wr(cap + 12, 2, 0x4043);
	pci_msi_notify(&toy.msi, 1);
	assert_int_equal(fake.b.msis, 0); /* not enabled */
	wr(cap + 2, 2, 1 | 2 << 4);
	pci_msi_notify(&toy.msi, 1);
	assert_int_equal(fake.b.msis, 1);
	assert_int_equal(fake.b.msi_addr, WINDOW);
	assert_int_equal(fake.b.msi_data, 0x4041); /* the low bits are the vector's */
	pci_msi_notify(&toy.msi, 200);
	assert_int_equal(fake.b.msi_data, 0x4040);
	wr(cap + 2, 2, 1 | 1 << 4); /* two granted */
	pci_msi_notify(&toy.msi, 3);
	assert_int_equal(fake.b.msi_data, 0x4042);
	wr(cap + 2, 2, 1 | 7 << 4); /* reserved: as many as there are */
	pci_msi_notify(&toy.msi, 3);
	assert_int_equal(fake.b.msi_data, 0x4043);
	assert_int_equal(fake.b.msis, 4);

	wr(cap + 0x10, 4, 1 << 2);
	pci_msi_notify(&toy.msi, 2);
	pci_msi_notify(&toy.msi, 2);
	assert_int_equal(fake.b.msis, 4);
	assert_int_equal(rd(cap + 0x14, 4), 1 << 2);
	wr(cap + 0x10, 4, 0);
	assert_int_equal(fake.b.msis, 5); /* once */
	assert_int_equal(rd(cap + 0x14, 4), 0);
	wr(PCI_COMMAND, 2, PCI_COMMAND_MEM); /* may not write to memory */
	pci_msi_notify(&toy.msi, 0);
	assert_int_equal(fake.b.msis, 5);
	wr(PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	assert_int_equal(fake.b.msis, 6);
}

static void test_msix(void **state)
{
	unsigned cap = toy.msix.cap;

	for (unsigned v = 0; v < NR_MSIX; v++)
		assert_int_equal(mmio_rd(TABLE + 16 * v + 12, 4), 1); /* masked after a reset */
	for (unsigned v = 0; v < NR_MSIX; v++) {
		mmio_wr(TABLE + 16 * v, 8, WINDOW | v << 12);
		mmio_wr(TABLE + 16 * v + 8, 4, 0x30 + v);
	}
	mmio_wr(TABLE + 12, 4, ~0u);
	assert_int_equal(mmio_rd(TABLE + 12, 4), 1);
	mmio_wr(TABLE, 4, WINDOW | 3);
	assert_int_equal(mmio_rd(TABLE, 4), WINDOW);
	mmio_wr(TABLE + 16 * NR_MSIX, 4, 0x55); /* behind the last one */
	assert_int_equal(mmio_rd(TABLE + 16 * NR_MSIX, 4), 0);

	pci_msi_notify_x(&toy.msix, 1);
	assert_int_equal(fake.b.msis, 0);
	assert_int_equal(mmio_rd(PBA, 8), 0); /* off: nothing is kept */
	wr(cap + 2, 2, 0xc000);
	mmio_wr(TABLE + 16 + 12, 4, 0);
	pci_msi_notify_x(&toy.msix, 1);
	pci_msi_notify_x(&toy.msix, 2);
	assert_int_equal(fake.b.msis, 0); /* the function is masked */
	assert_int_equal(mmio_rd(PBA, 8), 6);
	mmio_wr(PBA, 8, 0);
	assert_int_equal(mmio_rd(PBA, 4), 6);
	wr(cap + 2, 2, 0x8000);
	assert_int_equal(fake.b.msis, 1);
	assert_int_equal(fake.b.msi_addr, WINDOW | 1 << 12);
	assert_int_equal(fake.b.msi_data, 0x31);
	assert_int_equal(mmio_rd(PBA, 4), 4);
	mmio_wr(TABLE + 32 + 12, 4, 0);
	assert_int_equal(fake.b.msis, 2);
	assert_int_equal(fake.b.msi_data, 0x32);
	mmio_wr(TABLE + 32 + 12, 4, 0);
	assert_int_equal(fake.b.msis, 2);
	assert_int_equal(mmio_rd(PBA, 4), 0);
	pci_dev_reset(&toy.pci);
	pci_msi_notify_x(&toy.msix, 1);
	assert_int_equal(fake.b.msis, 2);
}

/* The pin and messages exclude each other. */
static void test_pin(void **state)
{
	unsigned gsi = PCI_GSI(3, 0);

	pci_set_intx(&toy.pci, true);
	assert_true(fake.b.level[gsi]);
	wr(toy.msix.cap + 2, 2, 0x8000);
	assert_false(fake.b.level[gsi]);
	wr(toy.msix.cap + 2, 2, 0);
	assert_true(fake.b.level[gsi]);
	wr(toy.msi.cap + 2, 2, 1);
	assert_false(fake.b.level[gsi]);
	pci_dev_reset(&toy.pci);
	assert_false(fake.b.level[gsi]);
}

/* Addresses that are none of the APICs', vectors that do not exist, the table rewritten all the time. */
static void test_G23_messages_anywhere(void **state)
{
	static const u64 where[] = {
		0, 0x1000, 0xfec00000, TABLE, ~3ull, 0xfee00000, 0xfeefffff, 1ull << 40
	};

	fake_controllers();
	u8 *before = malloc(FAKE_RAM);
	memcpy(before, fake.b.vm.ram.base, FAKE_RAM);
	wr(toy.msix.cap + 2, 2, 0x8000);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned v = (unsigned)fake_random() % NR_MSIX;

		mmio_wr(TABLE + 16 * v, 8, where[fake_random() % ARRAY_SIZE(where)]);
		mmio_wr(TABLE + 16 * v + 8, 4, fake_random());
		pci_msi_notify_x(&toy.msix, (unsigned)fake_random() % 40);
		mmio_wr(TABLE + 16 * v + 12, 4, fake_random());
		pci_msi_notify_x(&toy.msix, (unsigned)fake_random());
		mmio_wr(PBA + fake_random() % 16, 8, fake_random());
		fake_storm(BUS_MMIO, TABLE, 0x1000, 1);
		wr(toy.msix.cap + 2, 2, 0x8000 | (fake_random() & 0x4000));
	}
	assert_memory_equal(before, fake.b.vm.ram.base, FAKE_RAM);
	free(before);
}

static void test_state(void **state)
{
	struct err err = { 0 };

	mmio_wr(TABLE, 8, WINDOW);
	wr(toy.msix.cap + 2, 2, 0x8000);
	pci_msi_notify_x(&toy.msix, 3);
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), 0);
	assert_int_equal(mmio_rd(PBA, 4), 8);
	toy.msix.pending |= BIT(NR_MSIX);
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), -EINVAL);
	toy.msix.pending = 0;
	toy.msix.table[0] |= 1;
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), -EINVAL);
	toy.msix.table[0] &= 0xfe;
	toy.msix.table[16 * NR_MSIX] = 1;
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), -EINVAL);
	toy.msix.table[16 * NR_MSIX] = 0;
	toy.msi.pending = BIT(NR_MSI);
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), -EINVAL);
	toy.msi.pending = 0;
	assert_int_equal(pci_dev_post_load(&toy.pci, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_layout), T(test_msi), T(test_msix), T(test_pin), T(test_G23_messages_anywhere),
		T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
