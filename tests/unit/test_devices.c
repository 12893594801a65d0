/* What every device owes, asked of all types in devices.def on a whole board.
 *
 * - its state survives save, load, save byte for byte, in itself and in a fresh board;
 * - a truncated state is refused without effect [M02]; one with any bit flipped is refused, or leaves a
 * device that
 *   works and can be reset [M03, M06, M08];
 * - a reset, repeated, changes nothing;
 * - a second one at the same place is refused, and what was begun is undone;
 * - fini leaves no region, MSR or timer (board_fini() looks).
 *
 * Traffic before each check puts the devices into states of all kinds; its seeds are fixed.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../fuzz/device_traffic.h"
#include "wholeboard.h"

#define RAM     (16 * MiB)
#define SEEDS   20
#define TRAFFIC 2000
#define FLIPS   4000 /* at most, per device; a prime stride spreads them over a longer state */

static struct wholeboard whole;

static bool is_up, is_whole;

static void board_down(void)
{
	is_up = false;
	if (is_whole)
		wholeboard_fini(&whole);
	else
		board_fini(&whole.b);
	is_whole = false;
}

static int teardown(void **state)
{
	if (is_up) /* a test has failed */
		board_down();
	return 0;
}

static void board_up(void)
{
	wholeboard_init(&whole, RAM, 2);
	is_up = is_whole = true;
}

static void traffic(u64 seed, size_t len)
{
	u8 *script = malloc(len);
	u64 x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		script[i] = (u8)(x >> 56);
	}
	device_traffic(&whole.b, &whole.chr, script, len);
	free(script);
}

static u8 *save(const struct device *dev, size_t *ret_len)
{
	u8 *buf;

	*ret_len = state_size(dev->ops->state);
	buf = malloc(*ret_len + 1);
	assert_non_null(buf);
	state_save(dev->ops->state, dev, buf);
	return buf;
}

static int load(struct device *dev, const u8 *buf, size_t len)
{
	struct err err = { 0 };
	int ret = state_load(dev->ops->state, dev, buf, len, &err);

	if (!ret && dev->ops->post_load)
		ret = dev->ops->post_load(dev, &err);
	if (ret) {
		assert_true(ret < 0);
		assert_true(err.msg[0]);
	}
	return ret;
}

static void load_good(struct device *dev, const u8 *buf, size_t len, const char *when)
{
	struct err err = { 0 };
	int ret = state_load(dev->ops->state, dev, buf, len, &err);

	if (!ret && dev->ops->post_load)
		ret = dev->ops->post_load(dev, &err);
	if (ret)
		fail_msg("%s refuses a good state %s: %s", dev->id, when, err.msg);
}

/* The version of a time structure counts its updates, and loading is one. */
static bool moves_on_load(const struct device *dev, const struct state_field *field)
{
	return !strcmp(dev->ops->name, "kvmclock") && !strcmp(field->name, "version");
}

static void check_same(const struct device *dev, const u8 *want, size_t len, const char *when)
{
	const struct state_field *field = dev->ops->state;
	size_t n, at = 0;
	u8 *have = save(dev, &n);

	assert_int_equal(n, len);
	for (; field->name; field++) {
		const struct state_field one[2] = { *field };
		size_t size = state_size(one);

		if (memcmp(have + at, want + at, size) && !moves_on_load(dev, field))
			fail_msg("%s: the field %s differs %s", dev->id, field->name, when);
		at += size;
	}
	assert_int_equal(at, len);
	free(have);
}

static void test_all_types_are_there(void **state)
{
	board_up();
	for (const struct device_ops *const *t = device_types; *t; t++) {
		bool found = false;

		assert_non_null((*t)->name);
		assert_non_null((*t)->init);
		assert_non_null((*t)->reset);
		assert_non_null((*t)->fini);
		for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next)
			found |= dev->ops == *t;
		if (!found)
			fail_msg("the board has no %s: the checks of this file miss it", (*t)->name);
		/* Types are found by name. */
		for (const struct device_ops *const *u = device_types; u != t; u++)
			assert_string_not_equal((*u)->name, (*t)->name);
	}
	board_down();
}

static void test_round_trip(void **state)
{
	for (u64 seed = 0; seed < SEEDS; seed++) {
		u8 *saved[32] = { NULL };
		size_t len[32] = { 0 };
		unsigned n = 0;
		u64 now;

		board_up();
		traffic(seed, seed * TRAFFIC / SEEDS);
		for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next) {
			if (!dev->ops->state)
				continue;
			assert_true(n < ARRAY_SIZE(saved));
			saved[n] = save(dev, &len[n]);
			load_good(dev, saved[n], len[n], "where it came from");
			check_same(dev, saved[n], len[n], "after loading it where it came from");
			n++;
		}
		now = whole.b.now;
		board_down();
		/* On a board that has just been built, at the same time. */
		board_up();
		whole.b.now = now;
		n = 0;
		for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next) {
			if (!dev->ops->state)
				continue;
			load_good(dev, saved[n], len[n], "on another board");
			assert(saved[n]);
			check_same(dev, saved[n], len[n], "after loading it on another board");
			free(saved[n++]);
		}
		traffic(seed + 1000, TRAFFIC);
		board_down();
	}
}

static void test_truncated(void **state)
{
	board_up();
	traffic(7, TRAFFIC);
	for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next) {
		size_t len;
		u8 *buf;

		if (!dev->ops->state)
			continue;
		buf = save(dev, &len);
		buf[len] = 0;
		for (size_t cut = 0; cut < len; cut += cut < 2000 ? 1 : 97) {
			/* In memory of its own length, for the sanitizer. */
			u8 *part = malloc(cut ? cut : 1);

			memcpy(part, buf, cut);
			if (load(dev, part, cut) == 0)
				fail_msg("%s: takes a state cut off after %zu of %zu bytes", dev->id, cut,
					 len);
			free(part);
		}
		assert_true(load(dev, buf, len + 1) < 0);
		check_same(dev, buf, len, "after states were refused");
		free(buf);
	}
	board_down();
}

static void test_bit_flips(void **state)
{
	unsigned refused = 0, taken = 0;

	board_up();
	traffic(3, TRAFFIC);
	for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next) {
		size_t len, bits, stride;
		u8 *buf;

		if (!dev->ops->state)
			continue;
		buf = save(dev, &len);
		bits = 8 * len;
		stride = bits <= FLIPS ? 1 : bits / FLIPS | 1;
		for (size_t bit = 0; bit < bits; bit += stride) {
			buf[bit / 8] ^= (u8)(1u << bit % 8);
			if (load(dev, buf, len) == 0) {
				taken++;
				traffic(bit, 60);
			} else {
				refused++;
			}
			buf[bit / 8] ^= (u8)(1u << bit % 8);
			dev->ops->reset(dev, RESET_COLD);
			if (bit % 64 == 0)
				traffic(bit, 60);
		}
		/* It takes a good one after all that. */
		load_good(dev, buf, len, "after bad ones");
		free(buf);
		traffic(len, TRAFFIC);
	}
	board_down();
	assert_true(refused > 1000);
	assert_true(taken > 1000);
}

static void test_reset_twice(void **state)
{
	for (u64 seed = 0; seed < SEEDS; seed++) {
		enum reset_kind kind = (enum reset_kind)(seed % 3);

		board_up();
		traffic(seed, TRAFFIC);
		for (struct device *dev = whole.b.vm.devices; dev; dev = dev->next) {
			size_t len;
			u8 *once;

			if (!dev->ops->state) {
				dev->ops->reset(dev, kind);
				dev->ops->reset(dev, kind);
				continue;
			}
			dev->ops->reset(dev, kind);
			once = save(dev, &len);
			dev->ops->reset(dev, kind);
			check_same(dev, once, len, "after a second reset");
			/* A loaded reset state is the reset state. */
			load_good(dev, once, len, "after a reset");
			check_same(dev, once, len, "after loading what a reset left");
			free(once);
		}
		board_down();
	}
}

/* After a cold reset of everything, timers at rest fire no more than a fresh board's. */
static void test_reset_quiets(void **state)
{
	u64 fresh, after;

	board_up();
	fresh = whole.b.fired;
	board_advance(&whole.b, 10000000000ull);
	fresh = whole.b.fired - fresh;
	board_down();
	for (u64 seed = 0; seed < SEEDS; seed++) {
		board_up();
		traffic(seed, TRAFFIC);
		device_reset_all(&whole.b.vm, RESET_COLD);
		after = whole.b.fired;
		board_advance(&whole.b, 10000000000ull);
		assert_in_range(whole.b.fired - after, 0, fresh);
		board_down();
	}
}

static void test_second_is_refused(void **state)
{
	board_up();
	unsigned timers = board_timers();
	unsigned regions = whole.b.vm.bus.nr[BUS_PIO] + whole.b.vm.bus.nr[BUS_MMIO] + whole.b.vm.bus.nr_msr;

	for (const struct device_ops *const *t = device_types; *t; t++) {
		struct device_conf conf = { .id = "second", .index = 0 };
		struct device *dev = NULL;
		struct err err = { 0 };

		/* Of these there may be any number, in slots of their own. */
		if (!strncmp((*t)->name, "virtio-", 7))
			continue;
		/* Where the board has put the first. */
		if (!strcmp((*t)->name, "serial"))
			conf.base = 0x3f8;
		if (!strcmp((*t)->name, "ioapic"))
			conf.base = 0xfec00000;
		if (!strcmp((*t)->name, "hpet"))
			conf.base = 0xfed00000;
		if (!strcmp((*t)->name, "pm"))
			conf.base = 0x600;
		assert_true(device_new(&whole.b.vm, (*t)->name, &conf, &dev, &err) < 0);
		assert_true(err.msg[0]);
		assert_null(dev);
		assert_int_equal(board_timers(), timers);
		assert_int_equal(whole.b.vm.bus.nr[BUS_PIO] + whole.b.vm.bus.nr[BUS_MMIO] +
					 whole.b.vm.bus.nr_msr,
				 regions);
	}
	traffic(1, TRAFFIC);
	board_down();
}

/* ---- the devices for test kernels ---- */

static void test_debug_exit(void **state)
{
	static const struct {
		unsigned size;
		u64 val;
		int status;
	} want[] = {
		{ 1, 0, 1 }, { 1, 0x10, 0x21 }, { 2, 0x7f, 0xff }, { 4, 3, 7 }, { 4, 0xffffffff, 0xff }
	};

	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		board_init(&whole.b, 0, 0);
		is_up = true;
		board_add(&whole.b, "debug-exit", NULL);
		assert_int_equal(board_inb(&whole.b, 0xf4), 0);
		assert_int_equal(whole.b.vm.request, VM_REQ_NONE);
		bus_write(&whole.b.vm.bus, BUS_PIO, 0xf4, want[i].size, want[i].val);
		assert_int_equal(whole.b.vm.request, VM_REQ_EXIT);
		assert_int_equal(whole.b.vm.exit_status, want[i].status);
		board_outb(&whole.b, 0xf4, 0x33); /* the first write decided */
		assert_int_equal(whole.b.vm.exit_status, want[i].status);
		board_down();
	}
}

static void test_debugcon(void **state)
{
	board_init(&whole.b, 0, 0);
	is_up = true;
	fake_chr_init(&whole.chr);
	board_add(&whole.b, "debugcon", &(const struct device_conf){ .chr = &whole.chr.chr });
	assert_int_equal(board_inb(&whole.b, 0xe9), 0xe9);
	for (const char *p = "PASS\n"; *p; p++)
		board_outb(&whole.b, 0xe9, (u8)*p);
	assert_int_equal(whole.chr.out_len, 5);
	assert_memory_equal(whole.chr.out, "PASS\n", 5);
	whole.chr.room = 0; /* G37: a reader that reads nothing costs nothing */
	for (unsigned i = 0; i < 100000; i++)
		board_outb(&whole.b, 0xe9, 'x');
	whole.chr.room = 10;
	board_outb(&whole.b, 0xe9, 'y');
	assert_int_equal(whole.chr.out_len, 6);
	board_down();
}

/* Without a back end: standard output, here a pipe that fills up. */
static void test_debugcon_stdout(void **state)
{
	char buf[8] = { 0 };
	int p[2], saved;

	board_init(&whole.b, 0, 0);
	is_up = true;
	board_add(&whole.b, "debugcon", NULL);
	fflush(stdout);
	assert_int_equal(pipe(p), 0);
	saved = dup(1);
	dup2(p[1], 1);
	for (unsigned i = 0; i < 200000; i++) /* a pipe holds 64 KiB */
		board_outb(&whole.b, 0xe9, (u8)('0' + i % 10));
	dup2(saved, 1);
	close(saved);
	close(p[1]);
	assert_int_equal(read(p[0], buf, 5), 5);
	close(p[0]);
	assert_string_equal(buf, "01234");
	board_down();
}

static void test_pctestdev(void **state)
{
	struct bus *bus = &whole.b.vm.bus;

	board_init(&whole.b, 0, 0);
	is_up = true;
	board_add(&whole.b, "pc-testdev", NULL);
	bus_write(bus, BUS_PIO, 0xe0, 4, 0x12345678);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xe0, 4), 0x12345678);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xe0, 2), 0x5678);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xe1, 1), 0x56);
	bus_write(bus, BUS_PIO, 0xe2, 1, 0xab);
	bus_write(bus, BUS_PIO, 0xe0, 2, 0xcdef);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xe0, 4), 0x12abcdef);
	bus_write(bus, BUS_PIO, 0xe4, 4, 0x1000);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xe0, 4), 0x12abcdef);
	for (unsigned n = 0; n < IRQ_NR_GSI; n++) {
		board_outb(&whole.b, (u16)(0x2000 + n), 1);
		assert_true(whole.b.level[n]);
		board_outb(&whole.b, (u16)(0x2000 + n), 1);
		assert_int_equal(whole.b.rises[n], 1);
		board_outb(&whole.b, (u16)(0x2000 + n), 0);
		assert_false(whole.b.level[n]);
	}
	board_outb(&whole.b, 0x2000 + IRQ_NR_GSI, 1);
	/* A reset lets go of the lines. */
	board_outb(&whole.b, 0x2005, 0xff);
	device_reset_all(&whole.b.vm, RESET_WARM);
	assert_false(whole.b.level[5]);
	bus_write(bus, BUS_MMIO, 0xff000000, 8, 0x1122334455667788);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xff000003, 4), 0x22334455);
	bus_write(bus, BUS_MMIO, 0xff00fffc, 8, 0x99aabbccddeeff00); /* over the end */
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xff00fffc, 4), 0xddeeff00);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xff00fffe, 4), 0xffffddee);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xff010000, 4), 0xffffffff);
	board_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_teardown(f, teardown)
		T(test_all_types_are_there), T(test_round_trip),  T(test_truncated),
		T(test_bit_flips),           T(test_reset_twice), T(test_reset_quiets),
		T(test_second_is_refused),   T(test_debug_exit),  T(test_debugcon),
		T(test_debugcon_stdout),     T(test_pctestdev),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
