/* Shadow RAM by the host bridge's registers: what is memory, what is ROM, what DMA may write. tests/guest/rom.c has the same with
 * code. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "fakeboard.h"
#include "vm/dma.h"

#define RAM (4 * MiB)
#define ROM (256 * KiB)

static struct board b;
static u64 code_gpa, code_len;

static void on_code(void *opaque, gpa_t gpa, u64 len)
{
	code_gpa = gpa;
	code_len = len;
}

static int setup(void **state)
{
	board_init_rom(&b, RAM, ROM, 2);
	/* Each page of the ROM says which it is. */
	for (u32 at = 0; at < ROM; at += 4096)
		st32(b.vm.ram.rom_ptr + at, at / 4096);
	b.vm.ram.code_written = on_code;
	board_add(&b, "pci", &(const struct device_conf){ .id = NULL });
	return 0;
}

static int teardown(void **state)
{
	b.vm.ram.code_written = NULL;
	board_fini(&b);
	return 0;
}

static void pam(unsigned reg, u8 val)
{
	bus_write(&b.vm.bus, BUS_MMIO, PCI_ECAM_BASE + reg, 1, val);
}

static u32 seen(gpa_t gpa)
{
	return ld32(ram_ptr(&b.vm.ram, gpa, 4));
}

/* As an engine writes. */
static void store(gpa_t gpa, u32 val)
{
	if (ram_is_rom(&b.vm.ram, gpa))
		bus_write(&b.vm.bus, BUS_MMIO, gpa, 4, val);
	else
		st32(ram_ptr(&b.vm.ram, gpa, 4), val);
}

static void test_after_reset(void **state)
{
	assert_int_equal(seen(0xf0000), (ROM - 0x10000) / 4096);
	assert_int_equal(seen(0xff000), ROM / 4096 - 1);
	assert_int_equal(seen(0xe0000), (ROM - 0x20000) / 4096);
	assert_int_equal(seen(0xc0000), 0xffffffff);
	assert_int_equal(seen(0xdf000), 0xffffffff);
	assert_int_equal(seen(4 * GiB - ROM), 0);
	assert_true(ram_is_rom(&b.vm.ram, 0xc0000) && ram_is_rom(&b.vm.ram, 0xfffff));
	assert_false(ram_is_rom(&b.vm.ram, 0xbffff) || ram_is_rom(&b.vm.ram, 0x100000));
	assert_true(ram_is_rom(&b.vm.ram, 4 * GiB - ROM) && ram_is_rom(&b.vm.ram, 4 * GiB - 1));
	assert_false(ram_is_rom(&b.vm.ram, 4 * GiB) || ram_is_rom(&b.vm.ram, 4 * GiB - ROM - 1));
}

/* Each field is for one segment and no other. */
static void test_segments(void **state)
{
	for (gpa_t gpa = RAM_SHADOW_START; gpa < RAM_SHADOW_END; gpa += RAM_SHADOW_SEGMENT) {
		unsigned n = (unsigned)((gpa - RAM_SHADOW_START) / RAM_SHADOW_SEGMENT);
		unsigned reg = gpa >= 0xf0000 ? 0x90 : 0x91 + n / 2, shift = gpa >= 0xf0000 || n % 2 ? 4 : 0;
		gpa_t end = gpa >= 0xf0000 ? RAM_SHADOW_END : gpa + RAM_SHADOW_SEGMENT;

		pam(reg, (u8)(3 << shift));
		for (gpa_t at = RAM_SHADOW_START; at < RAM_SHADOW_END; at += 4096) {
			bool in = at >= gpa && at < end;

			/* All of F0000 goes by one field, of which this is any segment. */
			if (gpa >= 0xf0000)
				in = at >= 0xf0000;
			assert_int_equal(ram_is_rom(&b.vm.ram, at), !in);
			if (in)
				assert_int_equal(seen(at), 0);
		}
		pam(reg, 0);
	}
	/* What is reserved stays 0. */
	pam(0x90, 0xff);
	pam(0x91, 0xff);
	assert_int_equal(bus_read(&b.vm.bus, BUS_MMIO, PCI_ECAM_BASE + 0x90, 2), 0x3330);
}

static void test_states(void **state)
{
	const u32 rom = (ROM - 0x10000) / 4096;

	pam(0x90, 0x30);
	for (unsigned i = 0; i < 2; i++)
		assert_true(atomic_exchange(&b.vm.vcpu[i]->requests, 0) & VCPU_REQ_FLUSH);
	assert_true(code_gpa == 0xfc000 && code_len == RAM_SHADOW_SEGMENT); /* the last one */
	store(0xf0000, 0x1111);
	pam(0x90, 0x30); /* nothing new */
	assert_int_equal(atomic_load(&b.vm.vcpu[0]->requests), 0);
	pam(0x90, 0x10);
	store(0xf0000, 0x2222);
	assert_int_equal(seen(0xf0000), 0x1111);
	pam(0x90, 0x20);
	store(0xf0000, 0x3333);
	assert_int_equal(seen(0xf0000), rom);
	pam(0x90, 0x00);
	store(0xf0000, 0x4444);
	assert_int_equal(seen(0xf0000), rom);
	pam(0x90, 0x30);
	assert_int_equal(seen(0xf0000), 0x3333);
	/* A store over the end of a segment, in two states. */
	pam(0x90, 0x00);
	pam(0x96, 0x22);
	bus_write(&b.vm.bus, BUS_MMIO, 0xefffc, 8, 0x6666666655555555);
	pam(0x96, 0x33);
	pam(0x90, 0x30);
	assert_int_equal(seen(0xefffc), 0x55555555);
	assert_int_equal(seen(0xf0000), 0x3333);
	/* A reset: ROM. */
	device_reset_all(&b.vm, RESET_WARM);
	assert_int_equal(seen(0xf0000), rom);
	assert_int_equal(seen(0xef000), (ROM - 0x11000) / 4096);
}

static void test_G06_dma(void **state)
{
	u8 buf[32] = { 1 };

	for (gpa_t gpa = 0xbfff0; gpa <= 0xffff0; gpa += RAM_SHADOW_SEGMENT)
		assert_int_equal(dma_write(&b.vm, gpa, buf, sizeof(buf)), -EFAULT);
	assert_int_equal(dma_write(&b.vm, 0, b.vm.ram.rom_ptr, 0x200000), -EFAULT);
	assert_int_equal(dma_write(&b.vm, 4 * GiB - ROM, buf, 1), -EFAULT);
	assert_int_equal(dma_write(&b.vm, 4 * GiB - 1, buf, 1), -EFAULT);
	assert_int_equal(dma_read(&b.vm, 4 * GiB - 4096, buf, sizeof(buf)), 0);
	assert_int_equal(ld32(buf), ROM / 4096 - 1);
	assert_int_equal(dma_read(&b.vm, 4 * GiB - 1, buf, 2), -EFAULT);
	assert_int_equal(dma_read(&b.vm, 4 * GiB - ROM - 1, buf, 2), -EFAULT);
	pam(0x91, 0x33);
	assert_int_equal(dma_write(&b.vm, 0xc0000, buf, sizeof(buf)), 0);
	pam(0x91, 0x13);
	assert_int_equal(dma_write(&b.vm, 0xc3ff0, buf, sizeof(buf)), -EFAULT);
}

static void test_ecam_moves(void **state)
{
	struct bus *bus = &b.vm.bus;
	struct device *pci = pci_find(&b.vm);

	assert_true(pci_ecam(pci) == PCI_ECAM_BASE);
	for (u64 base = 0; base < 4 * GiB; base += PCI_ECAM_SIZE) {
		bool inside = base >= PCI_MMIO_BASE;

		bus_write(bus, BUS_PIO, 0xcf8, 4, BIT(31) | 0x60);
		bus_write(bus, BUS_PIO, 0xcfc, 4, base | 1);
		assert_true(pci_ecam(pci) == base);
		if (base < RAM)
			continue;
		assert_int_equal(bus_read(bus, BUS_MMIO, base, 4), inside ? 0x29c08086 : 0xffffffff);
		assert_int_equal(bus_read(bus, BUS_MMIO, base, 8) >> 32, inside ? 0 : 0xffffffff);
	}
	bus_write(bus, BUS_PIO, 0xcf8, 4, BIT(31) | 0x64);
	bus_write(bus, BUS_PIO, 0xcfc, 4, 1); /* above 4 GiB */
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xf0000000, 4), 0xffffffff);
	device_reset_all(&b.vm, RESET_COLD);
	assert_int_equal(bus_read(bus, BUS_MMIO, PCI_ECAM_BASE, 4), 0x29c08086);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_after_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_states, setup, teardown),
		cmocka_unit_test_setup_teardown(test_G06_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ecam_moves, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
