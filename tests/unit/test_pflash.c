/* Flash: commands, what is read after each, what reaches the store; and the memory that comes and goes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/pflash.h"
#include "fakeboard.h"

#define RAM   (4 * MiB)
#define ROM   (256 * KiB)
#define SIZE  (64 * KiB)
#define FLASH (4 * GiB - ROM)

static struct board b;
static struct device *dev;
static u8 kept[SIZE];
static unsigned saves;

static void save(void *opaque, u64 offset, const u8 *data, u64 len)
{
	assert_ptr_equal(opaque, kept);
	assert_true(len && offset < SIZE && len <= SIZE - offset);
	memcpy(kept + offset, data, len);
	saves++;
}

static int setup(void **state)
{
	board_init_rom(&b, RAM, ROM, 2);
	dev = board_add(&b, "pflash", &(const struct device_conf){ .base = SIZE });
	memset(kept, 0xff, sizeof(kept));
	saves = 0;
	pflash_set_store(dev, save, kept);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static void wr(u64 offset, u8 val)
{
	bus_write(&b.vm.bus, BUS_MMIO, FLASH + offset, 1, val);
}

/* As an engine reads: memory if there is some, else the bus. */
static u8 rd(u64 offset)
{
	u8 *p = ram_ptr(&b.vm.ram, FLASH + offset, 1);

	return p ? *p : (u8)bus_read(&b.vm.bus, BUS_MMIO, FLASH + offset, 1);
}

static bool is_memory(void)
{
	return ram_ptr(&b.vm.ram, FLASH, SIZE);
}

static void test_modes(void **state)
{
	assert_true(is_memory());
	assert_int_equal(rd(7), 0xff);
	wr(0, 0x70);
	assert_false(is_memory());
	assert_null(ram_ptr(&b.vm.ram, FLASH + SIZE - 1, 1));
	assert_non_null(ram_ptr(&b.vm.ram, FLASH + SIZE, ROM - SIZE)); /* the rest of the ROM stays */
	/* Both processors are told. */
	for (unsigned i = 0; i < 2; i++)
		assert_true(atomic_exchange(&b.vm.vcpu[i]->requests, 0) & VCPU_REQ_FLUSH);
	assert_int_equal(rd(123), 0x80);
	wr(0, 0x50);
	assert_int_equal(rd(0), 0); /* as OVMF wants it */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(atomic_load(&b.vm.vcpu[i]->requests), 0); /* nothing has changed */
	wr(0, 0x90);
	assert_int_equal(rd(0), 0x89);
	wr(0, 0x98);
	assert_true(rd(0x10) == 'Q' && rd(0x11) == 'R' && rd(0x12) == 'Y');
	assert_int_equal(rd(0x27), 16);
	assert_int_equal(rd(0x2d) + 256 * rd(0x2e) + 1, SIZE / PFLASH_BLOCK);
	assert_int_equal((rd(0x2f) + 256 * rd(0x30)) * 256, PFLASH_BLOCK);
	wr(0, 0xff);
	assert_true(is_memory());
	wr(0, 0x90);
	wr(0, 0x77); /* no command: the array again */
	assert_true(is_memory());
	wr(0, 0x90);
	device_reset_all(&b.vm, RESET_WARM);
	assert_true(is_memory());
	assert_int_equal(saves, 0);
}

static void test_program_and_erase(void **state)
{
	wr(0x1234, 0x40);
	wr(0x1234, 0xf5);
	assert_int_equal(rd(0), 0x80);
	assert_int_equal(saves, 0);
	wr(0x1234, 0xff);
	assert_true(rd(0x1234) == 0xf5 && kept[0x1234] == 0xf5 && saves == 1);
	wr(0x1234, 0x10);
	wr(0x1234, 0x5f);
	wr(0, 0xff);
	assert_true(rd(0x1234) == 0x55 && kept[0x1234] == 0x55 && saves == 2);
	wr(0, 0xff); /* nothing has changed since */
	assert_int_equal(saves, 2);
	wr(0x1fff, 0x20);
	wr(0x1fff, 0xd0);
	assert_true(saves == 3 && kept[0x1234] == 0xff);
	assert_int_equal(rd(0), 0x80);
	wr(0, 0x20);
	wr(0, 0x11); /* not confirmed */
	assert_int_equal(rd(0), 0xb0);
	wr(0, 0x50);
	assert_int_equal(rd(0), 0);
	wr(0, 0x60);
	wr(0, 0xd0);
	assert_int_equal(rd(0), 0x80);
	/* Wide data. */
	wr(0x2000, 0x10);
	bus_write(&b.vm.bus, BUS_MMIO, FLASH + 0x2000, 4, 0x04030201);
	wr(0, 0xff);
	assert_true(rd(0x2000) == 1 && rd(0x2003) == 4 && rd(0x2004) == 0xff);
	/* The last byte, and across the end. */
	wr(SIZE - 1, 0x10);
	bus_write(&b.vm.bus, BUS_MMIO, FLASH + SIZE - 1, 8, 0);
	wr(0, 0xff);
	assert_int_equal(*(u8 *)ram_ptr(&b.vm.ram, FLASH + SIZE, 1), 0xff);
}

static void test_buffered(void **state)
{
	wr(0x3000, 0xe8);
	assert_int_equal(rd(0), 0x80);
	wr(0x3000, 3); /* four bytes */
	for (unsigned i = 0; i < 4; i++)
		wr(0x3000 + i, (u8)(0x10 + i));
	wr(0x3000, 0xd0);
	wr(0, 0xff);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rd(0x3000 + i), 0x10 + i);
	/* Not confirmed. */
	wr(0x3100, 0xe8);
	wr(0x3100, 0);
	wr(0x3100, 0x55);
	wr(0x3100, 0x55);
	assert_int_equal(rd(0), 0xb0);
	/* Over the end: refused. */
	wr(0, 0x50);
	wr(SIZE - 1, 0xe8);
	wr(SIZE - 1, 255);
	for (unsigned i = 0; i < 256; i++)
		wr(SIZE - 1, 0);
	wr(SIZE - 1, 0xd0);
	assert_int_equal(rd(0), 0x90);
	wr(0, 0xff);
	assert_int_equal(rd(SIZE - 1), 0xff);
	assert_int_equal(rd(0x3100), 0xff);
}

static void test_conf(void **state)
{
	static const u64 bad[] = { 0, 1, PFLASH_BLOCK + 1, ROM + PFLASH_BLOCK, ~0ull };
	struct device *other;
	struct err err;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(device_new(&b.vm, "pflash",
					    &(const struct device_conf){ .id = "x", .base = bad[i] }, &other,
					    &err),
				 -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_program_and_erase, setup, teardown),
		cmocka_unit_test_setup_teardown(test_buffered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conf, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
