/* Device state in both directions, and the list of devices. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/device.h"
#include "vm/state.h"
#include "vm/vm.h"

struct thing {
	u8 before;
	bool on, flags_[3];
	u8 a, fifo[5];
	u16 b, bs[2];
	u32 c, cs[3];
	u64 d, ds[2];
	u8 after;
};

static const struct state_field thing_state[] = {
	STATE_BOOL(thing, on), STATE_U8(thing, a),  STATE_U8S(thing, fifo), STATE_U16(thing, b),
	STATE_U16S(thing, bs), STATE_U32(thing, c), STATE_U32S(thing, cs),  STATE_U64(thing, d),
	STATE_U64S(thing, ds), STATE_END,
};

static const struct thing example = {
	.before = 1,
	.on = true,
	.a = 0x12,
	.fifo = { 1, 2, 3, 4, 5 },
	.b = 0x3456,
	.bs = { 7, 0xffff },
	.c = 0x789abcde,
	.cs = { 1, 2, 0xffffffff },
	.d = 0x0123456789abcdef,
	.ds = { 9, ~0ull },
	.after = 2,
};

static void test_round_trip(void **state)
{
	size_t size = state_size(thing_state);
	u8 *buf = malloc(size), *again = malloc(size);
	struct thing t = { .before = 8, .after = 9, .flags_ = { 1, 0, 1 } };

	state_save(thing_state, &example, buf);
	assert_int_equal(state_load(thing_state, &t, buf, size, NULL), 0);
	/* Only what the list names is touched. */
	assert_int_equal(t.before, 8);
	assert_int_equal(t.after, 9);
	assert_true(t.flags_[0] && !t.flags_[1] && t.flags_[2]);
	assert_true(t.on && t.a == 0x12 && t.b == 0x3456 && t.c == 0x789abcde && t.d == 0x0123456789abcdef);
	assert_memory_equal(t.fifo, example.fifo, sizeof(t.fifo));
	assert_memory_equal(t.bs, example.bs, sizeof(t.bs));
	assert_memory_equal(t.cs, example.cs, sizeof(t.cs));
	assert_memory_equal(t.ds, example.ds, sizeof(t.ds));
	state_save(thing_state, &t, again);
	assert_memory_equal(buf, again, size);
	free(buf);
	free(again);
}

static void test_encoding(void **state)
{
	static const struct state_field fields[] = { STATE_BOOL(thing, on), STATE_U16S(thing, bs),
						     STATE_END };
	static const u8 want[] = {
		2,   'o',        'n', STATE_BOOL_, 1, 0, 0, 0, 1,    2,    'b',
		's', STATE_U16_, 2,   0,           0, 0, 7, 0, 0xff, 0xff,
	};
	u8 buf[sizeof(want)];

	assert_int_equal(state_size(fields), sizeof(want));
	state_save(fields, &example, buf);
	assert_memory_equal(buf, want, sizeof(want));
	assert_int_equal(state_size(NULL), 0);
	assert_int_equal(state_load(NULL, NULL, buf, 0, NULL), 0);
	assert_int_equal(state_load(NULL, NULL, buf, 1, NULL), -EINVAL);
}

/* Hostile case M02: every truncation is refused and changes nothing. */
static void test_M02_truncated(void **state)
{
	size_t size = state_size(thing_state);
	u8 *buf = malloc(size + 1);
	struct thing zero = { 0 }, t = { 0 };

	state_save(thing_state, &example, buf);
	for (size_t len = 0; len < size; len++) {
		struct err err = { 0 };
		u8 *exact = malloc(len ? len : 1); /* the sanitizer sees a read past it */

		memcpy(exact, buf, len);
		assert_int_equal(state_load(thing_state, &t, exact, len, &err), -EINVAL);
		assert_true(err.msg[0]);
		assert_memory_equal(&t, &zero, sizeof(t));
		free(exact);
	}
	buf[size] = 0;
	assert_int_equal(state_load(thing_state, &t, buf, size + 1, NULL), -EINVAL);
	assert_memory_equal(&t, &zero, sizeof(t));
	free(buf);
}

/* Hostile case M03: every bit flipped: refused untouched, or a changed value and nothing else. */
static void test_M03_bit_flips(void **state)
{
	size_t size = state_size(thing_state);
	u8 *buf = malloc(size), *again = malloc(size);
	unsigned refused = 0, taken = 0;

	state_save(thing_state, &example, buf);
	for (size_t bit = 0; bit < 8 * size; bit++) {
		struct thing t = { .before = 0x55, .after = 0xaa };

		buf[bit / 8] ^= (u8)(1u << bit % 8);
		if (state_load(thing_state, &t, buf, size, NULL)) {
			refused++;
			assert_int_equal(t.a, 0);
		} else {
			taken++;
			state_save(thing_state, &t, again);
			assert_memory_equal(buf, again, size);
		}
		assert_true(t.before == 0x55 && t.after == 0xaa);
		buf[bit / 8] ^= (u8)(1u << bit % 8);
	}
	assert_true(refused > 100 && taken > 100);
	free(buf);
	free(again);
}

static void test_messages(void **state)
{
	size_t size = state_size(thing_state);
	u8 *buf = malloc(size);
	struct thing t = { 0 };
	struct err err = { 0 };

	state_save(thing_state, &example, buf);
	buf[1] = 'x';
	state_load(thing_state, &t, buf, size, &err);
	assert_non_null(strstr(err.msg, "'on'"));
	buf[1] = 'o';
	buf[3] = STATE_U8_;
	state_load(thing_state, &t, buf, size, &err);
	assert_non_null(strstr(err.msg, "type"));
	buf[3] = STATE_BOOL_;
	buf[8] = 2;
	state_load(thing_state, &t, buf, size, &err);
	assert_non_null(strstr(err.msg, "0 or 1"));
	buf[8] = 1;
	buf[7] = 0xff; /* count 0xff000001 */
	assert_int_equal(state_load(thing_state, &t, buf, size, &err), -EINVAL);
	free(buf);
}

/* ---- devices ---- */

static char story[1024];

static void tell(const struct device *dev, const char *what)
{
	size_t n = strlen(story);

	snprintf(story + n, sizeof(story) - n, "%s:%s ", dev->id, what);
}

struct gadget {
	struct device dev;
	u64 base;
	u8 big[100] __attribute__((aligned(64)));
};

static int gadget_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct gadget *g = container_of(dev, struct gadget, dev);

	assert_int_equal(g->base, 0);
	assert_int_equal((uintptr_t)g->big % 64, 0);
	assert_ptr_equal(dev->lock, &dev->own_lock);
	g->base = conf->base;
	tell(dev, "init");
	return conf->base == 0xbad ? err_set(err, -EBUSY, "no") : 0;
}

static void gadget_reset(struct device *dev, enum reset_kind kind)
{
	tell(dev, kind == RESET_COLD ? "cold" : "warm");
}

static void gadget_fini(struct device *dev)
{
	tell(dev, "fini");
}

static const struct device_ops gadget_ops = {
	.name = "gadget",
	.size = sizeof(struct gadget),
	.init = gadget_init,
	.reset = gadget_reset,
	.fini = gadget_fini,
};

static int plain_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	return 0;
}

static const struct device_ops plain_ops = { .name = "plain",
					     .size = sizeof(struct device),
					     .init = plain_init };

/* In place of the real list: the linker takes these first. */
const struct device_ops *const device_types[] = { &gadget_ops, &plain_ops, NULL };

static void test_devices(void **state)
{
	static struct vm vm;
	struct device *a = NULL, *b = NULL, *p = NULL, *untouched = (void *)&vm;
	struct device_conf conf = { .base = 0x300 }, named = { .id = "com1" },
			   bad = { .base = 0xbad, .id = "x" };
	struct device_conf longid = { .id = "0123456789012345678901234567890123456789" },
			   empty = { .id = "" };
	struct err err = { 0 };

	assert_int_equal(device_new(&vm, "gadget", &conf, &a, &err), 0);
	assert_int_equal(device_new(&vm, "plain", &named, &p, &err), 0);
	assert_int_equal(device_new(&vm, "gadget", &conf, &b, &err), 0);
	assert_string_equal(a->id, "gadget");
	assert_string_equal(b->id, "gadget1");
	assert_int_equal(((struct gadget *)a)->base, 0x300);
	assert_ptr_equal(device_find(&vm, "com1"), p);
	assert_null(device_find(&vm, "com2"));

	assert_int_equal(device_new(&vm, "nosuch", &conf, &untouched, &err), -ENOENT);
	assert_string_equal(err.msg, "unknown device 'nosuch'; the devices are gadget, plain");
	assert_int_equal(device_new(&vm, "plain", &named, &untouched, &err), -EEXIST);
	assert_int_equal(device_new(&vm, "plain", &longid, &untouched, &err), -EINVAL);
	assert_int_equal(device_new(&vm, "plain", &empty, &untouched, &err), -EINVAL);
	assert_int_equal(device_new(&vm, "gadget", &bad, &untouched, &err), -EBUSY);
	assert_string_equal(err.msg, "device 'x': no");
	assert_ptr_equal(untouched, (void *)&vm);
	assert_string_equal(story, "gadget:init gadget:cold gadget1:init gadget1:cold x:init x:fini ");

	story[0] = 0;
	device_reset_all(&vm, RESET_WARM);
	device_free_all(&vm);
	assert_string_equal(story, "gadget:warm gadget1:warm gadget1:fini gadget:fini ");
	assert_null(vm.devices);
	device_free_all(&vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_encoding),
		cmocka_unit_test(test_M02_truncated), cmocka_unit_test(test_M03_bit_flips),
		cmocka_unit_test(test_messages),      cmocka_unit_test(test_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
