/* The firmware configuration device: items by ports and by DMA, and a hostile guest's descriptors [G43]. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/fwcfg.h"
#include "fakeboard.h"

#define RAM  (4 * MiB)
#define ROM  (128 * KiB)
#define DESC 0x1000u
#define BUF  0x2000u

static struct board b;
static struct device *dev;
static unsigned filled;

static int setup(void **state)
{
	board_init_rom(&b, RAM, ROM, 1);
	dev = board_add(&b, "fwcfg", &(const struct device_conf){ .id = NULL });
	filled = 0;
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static void select_item(u16 key)
{
	bus_write(&b.vm.bus, BUS_PIO, 0x510, 2, key);
}

static u8 next(void)
{
	return (u8)bus_read(&b.vm.bus, BUS_PIO, 0x511, 1);
}

static u8 *ram(u64 gpa)
{
	return b.vm.ram.base + gpa;
}

/* What is left in the descriptor's control field. */
static u32 dma_at(u64 desc, u32 control, u32 len, u64 addr)
{
	u8 *p = ram_ptr(&b.vm.ram, desc, 16);

	if (p) {
		st32be(p, control);
		st32be(p + 4, len);
		st64be(p + 8, addr);
	}
	bus_write(&b.vm.bus, BUS_PIO, 0x514, 4, __builtin_bswap32((u32)(desc >> 32)));
	bus_write(&b.vm.bus, BUS_PIO, 0x518, 4, __builtin_bswap32((u32)desc));
	return p ? ld32be(p) : 0;
}

static u32 dma(u32 control, u32 len, u64 addr)
{
	return dma_at(DESC, control, len, addr);
}

static void fill(void *opaque, u8 *data)
{
	filled++;
	memset(data, (int)filled, 8);
}

static void test_items(void **state)
{
	struct err err;

	select_item(FWCFG_SIGNATURE);
	assert_true(next() == 'Q' && next() == 'E' && next() == 'M' && next() == 'U');
	assert_int_equal(next(), 0);
	select_item(FWCFG_ID);
	assert_int_equal(next(), 3);
	select_item(0x1234); /* none */
	assert_int_equal(next(), 0);
	assert_int_equal(fwcfg_add_number(dev, FWCFG_NR_CPUS, 2, 0x0304, &err), 0);
	select_item(FWCFG_NR_CPUS);
	assert_true(next() == 4 && next() == 3 && next() == 0);
	/* Other widths are nobody's. */
	assert_int_equal(bus_read(&b.vm.bus, BUS_PIO, 0x510, 2), 0xffff);
	bus_write(&b.vm.bus, BUS_PIO, 0x510, 1, FWCFG_NR_CPUS);
	assert_int_equal(next(), 0);
	/* A machine that knows DMA says so here. */
	assert_int_equal(bus_read(&b.vm.bus, BUS_PIO, 0x514, 4), ld32("QEMU"));
	assert_int_equal(bus_read(&b.vm.bus, BUS_PIO, 0x518, 4), ld32(" CFG"));
}

static void test_files(void **state)
{
	char name[FWCFG_MAX_NAME + 1];
	struct err err;
	u8 dir[4 + 3 * 64];

	assert_int_equal(fwcfg_add_file(dev, "a", "12345", 5, &err), 0);
	assert_int_equal(fwcfg_add_number_file(dev, "b", 7, &err), 0);
	assert_int_equal(fwcfg_add_live_file(dev, "live", 8, fill, NULL, &err), 0);
	assert_int_equal(fwcfg_add_file(dev, "a", "xyz", 3, &err), 0); /* instead */
	select_item(FWCFG_FILE_DIR);
	for (unsigned i = 0; i < sizeof(dir); i++)
		dir[i] = next();
	assert_int_equal(ld32be(dir), 3);
	assert_int_equal(ld32be(dir + 4), 3);
	assert_string_equal((char *)dir + 12, "a");
	assert_string_equal((char *)dir + 12 + 64, "b");
	assert_string_equal((char *)dir + 12 + 128, "live");
	select_item(ld16be(dir + 8));
	assert_true(next() == 'x' && next() == 'y' && next() == 'z' && next() == 0);
	/* Made when it is selected. */
	select_item(ld16be(dir + 8 + 128));
	assert_true(filled == 1 && next() == 1);
	select_item(ld16be(dir + 8 + 128));
	assert_true(filled == 2 && next() == 2);
	/* Too long, and too many. */
	memset(name, 'n', sizeof(name));
	name[FWCFG_MAX_NAME] = 0;
	assert_int_equal(fwcfg_add_file(dev, name, "", 0, &err), -EINVAL);
	name[FWCFG_MAX_NAME - 1] = 0;
	assert_int_equal(fwcfg_add_file(dev, name, "", 0, &err), 0);
	for (unsigned i = 0; i < 100 && err.code != -ENOSPC; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		fwcfg_add_file(dev, name, "", 0, &err);
	}
	assert_int_equal(err.code, -ENOSPC);
}

static void test_dma(void **state)
{
	struct err err;

	assert_int_equal(fwcfg_add(dev, 0x40, "0123456789", 10, &err), 0);
	memset(ram(BUF), 0xee, 16);
	assert_int_equal(dma(0x0040000a, 4, BUF), 0); /* select and read */
	assert_memory_equal(ram(BUF), "0123\xee", 5);
	assert_int_equal(dma(0x2, 2, BUF), 0); /* goes on */
	assert_memory_equal(ram(BUF), "45", 2);
	assert_int_equal(dma(0x4, 1, 0), 0); /* skips */
	assert_int_equal(dma(0x2, 8, BUF), 0);
	assert_memory_equal(ram(BUF), "789\0\0\0\0\0", 8);
	assert_int_equal(dma(0x2, 8, BUF), 0); /* the end */
	assert_memory_equal(ram(BUF), "\0\0\0\0\0\0\0\0", 8);
	assert_int_equal(dma(0x4, ~0u, 0), 0);
	assert_int_equal(next(), 0);
	assert_int_equal(dma(0x00400008, 0, 0), 0); /* selects only */
	assert_int_equal(next(), '0');
	assert_int_equal(dma(0x00400018, 4, BUF), 1); /* writes: nothing can be written */
	select_item(0x40);
	assert_int_equal(next(), '0');
	assert_int_equal(dma(0, 4, BUF), 0); /* asks for nothing */
	/* The upper half of the address is used up by a transfer. */
	bus_write(&b.vm.bus, BUS_PIO, 0x514, 4, 0x01000000);
	bus_write(&b.vm.bus, BUS_PIO, 0x518, 4, __builtin_bswap32(DESC));
	st32be(ram(DESC), 0x00400008);
	bus_write(&b.vm.bus, BUS_PIO, 0x518, 4, __builtin_bswap32(DESC));
	assert_int_equal(ld32be(ram(DESC)), 0);
}

static void test_G43_hostile_dma(void **state)
{
	static const u64 bad[] = { RAM,     RAM - 4, 0xfee00000, 0xfebf0000, 0xb0000000,
				   4 * GiB, ~0ull,   ~0ull - 3,  1ull << 63 };
	struct err err;

	assert_int_equal(fwcfg_add(dev, 0x40, "0123456789", 10, &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		/* The buffer, then the descriptor, is where nothing or a device is: refused as a whole. */
		assert_int_equal(dma(0x0040000a, 8, bad[i]), 1);
		assert_int_equal(next(), '0');
		if (!ram_ptr(&b.vm.ram, bad[i], 16))
			dma_at(bad[i], 0x0040000a, 8, BUF);
	}
	/* ROM is read, never written: a descriptor there is carried out, and cannot be told the result. */
	assert_int_equal(dma(0x0040000a, 8, 4 * GiB - ROM), 1);
	memset(ram(BUF), 0, 8);
	dma_at(4 * GiB - 64, 0x0040000a, 8, BUF);
	assert_memory_equal(ram(BUF), "01234567", 8);
	assert_int_equal(ld32be(ram(4 * GiB - 64)), 0x0040000a);
	/* Lengths. */
	assert_int_equal(dma(0x0040000a, ~0u, 0), 1);
	assert_int_equal(dma(0x0040000a, RAM + 1, 0), 1);
	assert_int_equal(dma(0x0040000a, 0, ~0ull), 0);
	/* A transfer onto its own descriptor: the fields were read before. */
	assert_int_equal(dma(0x0040000a, 16, DESC), 0);
	assert_memory_equal(ram(DESC) + 4, "456789\0\0\0\0\0\0", 12);
}

static void test_state(void **state)
{
	struct err err;

	assert_int_equal(fwcfg_add(dev, 0x40, "0123456789", 10, &err), 0);
	select_item(0x40);
	next();
	size_t size = state_size(dev->ops->state);
	u8 *buf = test_malloc(size), *pos;
	state_save(dev->ops->state, dev, buf);
	next();
	assert_int_equal(state_load(dev->ops->state, dev, buf, size, &err), 0);
	assert_int_equal(dev->ops->post_load(dev, &err), 0);
	assert_int_equal(next(), '1');
	/* A position behind the item's end. */
	pos = memmem(buf, size, "pos", 3);
	assert_non_null(pos);
	st32(pos + 3 + 5, 11);
	assert_int_equal(state_load(dev->ops->state, dev, buf, size, &err), 0);
	assert_int_equal(dev->ops->post_load(dev, &err), -EINVAL);
	device_reset_all(&b.vm, RESET_WARM);
	test_free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_items, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_G43_hostile_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
