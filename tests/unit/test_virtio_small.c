/* virtio-console, virtio-rng, and how long virtio-fs lets a vCPU work for its folder. */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/pci.h"
#include "vdriver.h"
#include "wholeboard.h"

#define RX   0
#define TX   1
#define DATA VDRIVER_DATA

static struct wholeboard w;
static struct vdriver d;

static const u64 variants[] = { 0, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED,
				VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX };

static void up(u16 type)
{
	wholeboard_init(&w, VDRIVER_RAM, 1);
	w.b.now = 1000000000;
	vdriver_find(&d, &w.b, type, 0);
}

static void send(const char *text)
{
	const struct vdriver_seg seg = { DATA, (u32)strlen(text), false };

	memcpy(vdriver_mem(&d, DATA), text, seg.len);
	vdriver_add(&d, TX, &seg, 1);
	vdriver_kick(&d, TX);
}

static void test_console(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 id, len;

		up(VIRTIO_ID_CONSOLE);
		assert_int_equal(fake_chr_type(&w.console, "early", 5), 0); /* no driver */
		vdriver_start(&d, variants[v], 16);
		for (unsigned i = 0; i < 20; i++) {
			send("hello, ");
			assert_true(vdriver_used(&d, TX, &id, &len));
			assert_int_equal(len, 0);
		}
		assert_int_equal(w.console.total, 140);
		assert_memory_equal(w.console.out, "hello, hello, ", 14);
		/* typed before there are buffers, and more than one takes */
		assert_int_equal(fake_chr_type(&w.console, "0123456789", 10), 10);
		const struct vdriver_seg segs[] = { { DATA + 0x100, 3, true }, { DATA + 0x200, 4, true } };
		vdriver_add(&d, RX, segs, 2);
		vdriver_add(&d, RX, segs + 1, 1);
		vdriver_kick(&d, RX);
		assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 7);
		assert_memory_equal(vdriver_mem(&d, DATA + 0x100), "012", 3);
		assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 3);
		assert_memory_equal(vdriver_mem(&d, DATA + 0x200), "789", 3);
		vdriver_add(&d, RX, segs, 2);
		vdriver_kick(&d, RX);
		assert_false(vdriver_used(&d, RX, &id, &len));
		vdriver_read(&d, 0x1000, 1);
		assert_int_equal(fake_chr_type(&w.console, "x", 1), 1);
		assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 1);
		/* what does not fit is left with the back end */
		char much[1000] = { 0 };
		assert_int_equal(fake_chr_type(&w.console, much, sizeof(much)), 256);
		wholeboard_fini(&w);
	}
}

/* Something is typed while buffers wait that the device may not touch: it waits for the guest to allow it. */
static void test_console_no_master(void **state)
{
	const struct vdriver_seg seg = { DATA, 8, true };
	u32 id, len;

	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		up(VIRTIO_ID_CONSOLE);
		vdriver_start(&d, variants[v], 16);
		bus_write(&w.b.vm.bus, BUS_MMIO, d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
		vdriver_add(&d, RX, &seg, 1);
		vdriver_kick(&d, RX);
		assert_int_equal(fake_chr_type(&w.console, "abc", 3), 3);
		assert_false(vdriver_used(&d, RX, &id, &len));
		bus_write(&w.b.vm.bus, BUS_MMIO, d.ecam + PCI_COMMAND, 2,
			  PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
		assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 3);
		wholeboard_fini(&w);
	}
}

/* In a pause memory does not change, whatever is typed. */
static void test_console_pause(void **state)
{
	const struct vdriver_seg seg = { DATA, 8, true };
	u32 id, len;

	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		up(VIRTIO_ID_CONSOLE);
		vdriver_start(&d, variants[v], 16);
		vdriver_add(&d, RX, &seg, 1);
		vdriver_kick(&d, RX);
		device_quiesce_all(&w.b.vm);
		assert_int_equal(fake_chr_type(&w.console, "abc", 3), 3);
		assert_false(vdriver_used(&d, RX, &id, &len));
		device_resume_all(&w.b.vm);
		assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 3);
		assert_memory_equal(vdriver_mem(&d, DATA), "abc", 3);
		wholeboard_fini(&w);
	}
}

/* A reader that does not read [G37]: the guest waits for a moment, then output is dropped, and nothing grows. */
static void test_G37_slow_reader(void **state)
{
	u32 id, len;

	up(VIRTIO_ID_CONSOLE);
	vdriver_start(&d, 0, 16);
	w.console.room = 10;
	send("0123456789abcdef");
	assert_false(vdriver_used(&d, TX, &id, &len));
	assert_int_equal(w.console.total, 10);
	w.console.room = 3;
	w.console.chr.on_writable(w.console.chr.opaque);
	assert_false(vdriver_used(&d, TX, &id, &len));
	w.console.room = 100;
	w.console.chr.on_writable(w.console.chr.opaque);
	assert_true(vdriver_used(&d, TX, &id, &len));
	assert_memory_equal(w.console.out, "0123456789abcdef", 16); /* each byte once */
	w.console.room = 0;
	for (unsigned i = 0; i < 10; i++)
		send("lost");
	assert_false(vdriver_used(&d, TX, &id, &len));
	board_advance(&w.b, 200000000);
	for (unsigned i = 0; i < 10; i++)
		assert_true(vdriver_used(&d, TX, &id, &len));
	for (unsigned i = 0; i < 10000; i++) {
		send("lost");
		assert_true(vdriver_used(&d, TX, &id, &len));
	}
	assert_int_equal(w.console.total, 16);
	w.console.room = 1000;
	w.console.chr.on_writable(w.console.chr.opaque);
	send("back");
	assert_true(vdriver_used(&d, TX, &id, &len));
	assert_int_equal(w.console.total, 20);
	/* A reset in the middle of a buffer forgets how far it was */
	w.console.room = 2;
	send("abcd");
	vdriver_start(&d, 0, 16);
	w.console.room = 100;
	send("wxyz");
	assert_memory_equal(w.console.out + 20, "abwxyz", 6);
	wholeboard_fini(&w);
}

static void test_rng(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		const struct vdriver_seg segs[] = { { DATA, 100, true }, { DATA + 100, 156, true } };
		unsigned seen[256] = { 0 }, different = 0;
		u32 id, len;

		up(VIRTIO_ID_ENTROPY);
		vdriver_start(&d, variants[v], 16);
		for (unsigned i = 0; i < 40; i++) {
			memset(vdriver_mem(&d, DATA), 0, 512);
			vdriver_add(&d, 0, segs, 2);
			vdriver_kick(&d, 0);
			assert_true(vdriver_used(&d, 0, &id, &len));
			assert_int_equal(len, 256);
			assert_int_equal(*vdriver_mem(&d, DATA + 256), 0);
			for (unsigned k = 0; k < 256; k++)
				seen[*vdriver_mem(&d, DATA + k)]++;
		}
		for (unsigned k = 0; k < 256; k++)
			different += seen[k] > 0;
		assert_int_equal(different, 256); /* of 10240 bytes: not so once in 10^15 */
		wholeboard_fini(&w);
	}
}

/* Requests as large and as many as they can be: a MiB a second [G38]. */
static void test_G38_flood(void **state)
{
	const struct vdriver_seg huge = { 0x300000, VDRIVER_RAM - 0x300000, true };
	u64 total = 0;
	u32 id, len;

	up(VIRTIO_ID_ENTROPY);
	vdriver_start(&d, 0, 16);
	for (unsigned i = 0; i < 10000; i++) {
		const struct vdriver_seg seg = { DATA, 0x100000, true };

		vdriver_add(&d, 0, &seg, 1);
		for (unsigned k = 0; k < 10; k++)
			vdriver_kick(&d, 0);
		do
			board_advance(&w.b, 1000000);
		while (!vdriver_used(&d, 0, &id, &len));
		total += len;
	}
	assert_in_range(total * 1000000000 / (w.b.now - 1000000000), MiB / 2, MiB + 64 * KiB);
	vdriver_add(&d, 0, &huge, 1);
	vdriver_kick(&d, 0);
	board_advance(&w.b, 1000000000);
	assert_int_equal(vdriver_status(&d), 0xf);
	wholeboard_fini(&w);
}

/* A driver that floods gets answers at once for a while of each run, 200 microseconds, and the threads' after it [G22]. */
static void test_G22_share_at_once(void **state)
{
	const struct vdriver_seg segs[] = { { DATA, 40, false }, { DATA + 0x100, 16, true } };
	u32 id, len;

	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		up(VIRTIO_ID_FS);
		vdriver_start(&d, variants[v], 64);
		w.fs.takes_us = 110;
		for (unsigned run = 0; run < 3; run++) {
			w.fs.requests = w.fs.at_once = 0;
			for (unsigned i = 0; i < 20; i++)
				vdriver_add(&d, 1, segs, 2);
			vdriver_kick(&d, 1);
			assert_int_equal(w.fs.requests, 20);
			assert_in_range(w.fs.at_once, 1, 2);
			for (unsigned i = 0; i < 20; i++) {
				assert_true(vdriver_used(&d, 1, &id, &len));
				assert_int_equal(len, 16);
			}
			assert_false(vdriver_used(&d, 1, &id, &len));
		}
		wholeboard_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_console),           cmocka_unit_test(test_console_no_master),
		cmocka_unit_test(test_G37_slow_reader),   cmocka_unit_test(test_rng),
		cmocka_unit_test(test_G38_flood),         cmocka_unit_test(test_console_pause),
		cmocka_unit_test(test_G22_share_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
