/* Guest memory, ROM ranges, code marks, DMA. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "vm/dma.h"
#include "vm/vm.h"

static void test_sizes(void **state)
{
	struct err err = { 0 };
	struct ram ram;

	assert_int_equal(ram_init(&ram, 0, &err), -EINVAL);
	assert_int_equal(ram_init(&ram, MiB - 4096, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "at least 1 MiB"));
	assert_int_equal(ram_init(&ram, MiB + 1, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "multiple of 4096"));
	assert_int_equal(ram_init(&ram, os_memory_total() + 4096, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "this host has"));
	assert_int_equal(ram_init(&ram, ~0ull, &err), -ENOMEM);
	assert_int_equal(ram_init(&ram, ~0ull - 4095, &err), -ENOMEM);
	/* A failed one may be finished, and twice. */
	ram_fini(&ram);
	ram_fini(&ram);
	assert_int_equal(ram_init(&ram, MiB, &err), 0);
	assert_int_equal(ram.end, MiB);
	assert_int_equal(ram.low_size, MiB);
	/* Large pages of the host's are possible. */
	assert_int_equal((uintptr_t)ram.base % (2 * MiB), 0);
	ram_fini(&ram);
}

static void test_zeroed_fini(void **state)
{
	struct ram ram = { 0 };

	ram_fini(&ram);
	/* Standard input is still there. */
	assert_true(fcntl(0, F_GETFD) >= 0 || errno != EBADF);
}

static void test_low(void **state)
{
	struct ram ram;
	u8 *p;

	assert_int_equal(ram_init(&ram, 2 * MiB, NULL), 0);
	p = ram_ptr(&ram, 0, 2 * MiB);
	assert_ptr_equal(p, ram.base);
	assert_int_equal(p[2 * MiB - 1], 0);
	p[2 * MiB - 1] = 0x5a;
	assert_null(ram_ptr(&ram, 0, 2 * MiB + 1));
	assert_null(ram_ptr(&ram, 2 * MiB - 1, 2));
	assert_non_null(ram_ptr(&ram, 2 * MiB - 1, 1));
	assert_null(ram_ptr(&ram, 2 * MiB, 0));
	assert_null(ram_ptr(&ram, 1, ~0ull));
	assert_null(ram_ptr(&ram, ~0ull, 2));
	/* The file holds it, and cannot be resized. */
	u8 c = 0;
	assert_int_equal(pread(ram.fd, &c, 1, 2 * MiB - 1), 1);
	assert_int_equal(c, 0x5a);
	assert_int_equal(ftruncate(ram.fd, 4096), -1);
	ram_fini(&ram);
}

/* Large pages of private memory: behind the first of them nothing is in the file. */
static void test_large(void **state)
{
	struct ram ram;
	int fd = memfd_create("file", MFD_CLOEXEC);
	u8 c = 1;

	assert_int_equal(ram_init_rom(&ram, 8 * MiB, 0, true, NULL), 0);
	assert_int_equal(ram_private_resident(&ram), 0);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	assert_int_equal(ram_read_file(&ram, 2 * MiB - 5, fd, 0, 10), 0);
	assert_memory_equal(ram.base + 2 * MiB - 5, "0123456789", 10);
	ram.base[5 * MiB] = 7;
	assert_int_equal(pread(ram.fd, &c, 1, 5 * MiB), 1);
	assert_int_equal(c, ram.private ? 0 : 7);
	/* At least the two pages that were written, at most all that is private. */
	if (ram.private)
		assert_in_range(ram_private_resident(&ram), 2 * 4096, 6 * MiB);
	else
		assert_int_equal(ram_private_resident(&ram), 0);
	/* On both sides of the edge, and no more than that. */
	ram.base[2 * MiB - 4097] = 8;
	assert_int_equal(ram_discard(&ram, 2 * MiB - 4096, 8192), 0);
	assert_int_equal(ram.base[2 * MiB - 5] | ram.base[2 * MiB], 0);
	assert_int_equal(ram.base[2 * MiB - 4097], 8);
	assert_int_equal(ram.base[5 * MiB], 7);
	assert_int_equal(ram_discard(&ram, 5 * MiB, 4096), 0);
	assert_int_equal(ram.base[5 * MiB], 0);
	ram.base[100] = ram.base[8 * MiB - 1] = 9;
	assert_int_equal(ram_clear(&ram), 0);
	assert_int_equal(ram_private_resident(&ram), 0);
	assert_int_equal(ram.base[100] | ram.base[8 * MiB - 1] | ram.base[2 * MiB - 4097], 0);
	close(fd);
	ram_fini(&ram);
}

static void test_high(void **state)
{
	struct ram ram;
	int fd = memfd_create("file", MFD_CLOEXEC);
	u8 *p, c = 0;

	if (os_memory_total() < RAM_LOW_MAX + 16 * MiB)
		skip();
	assert_int_equal(ram_init(&ram, RAM_LOW_MAX + 8 * MiB, NULL), 0);
	assert_true(ram.low_size == RAM_LOW_MAX);
	assert_true(ram.end == 4 * GiB + 8 * MiB);
	assert_null(ram_ptr(&ram, RAM_LOW_MAX - 1, 2));
	assert_null(ram_ptr(&ram, RAM_LOW_MAX, 1));
	assert_null(ram_ptr(&ram, 4 * GiB - 1, 1));
	assert_null(ram_ptr(&ram, 0, 5 * GiB));
	p = ram_ptr(&ram, 4 * GiB, 8 * MiB);
	assert_ptr_equal(p, ram.base + 4 * GiB);
	assert_null(ram_ptr(&ram, 4 * GiB, 8 * MiB + 1));
	if (p)
		p[0] = 0x77;
	assert_int_equal(pread(ram.fd, &c, 1, (off_t)RAM_LOW_MAX), 1);
	assert_int_equal(c, 0x77);
	assert_false(ram_has_code(&ram, 4 * GiB, 8 * MiB));
	atomic_fetch_or(&ram.code_map[(4 * GiB + 8 * MiB - 1) >> 12], BIT(63));
	assert_true(ram_has_code(&ram, 4 * GiB, 8 * MiB));
	assert_false(ram_has_code(&ram, 4 * GiB, 8 * MiB - 64));
	/* A file's bytes, also above the hole. */
	assert_int_equal(write(fd, "0123456789", 10), 10);
	assert_int_equal(ram_read_file(&ram, 5000, fd, 2, 8), 0);
	assert_memory_equal(ram.base + 5000, "23456789\0", 9);
	assert_int_equal(ram_read_file(&ram, 4 * GiB + 1, fd, 0, 4), 0);
	assert_memory_equal(ram.base + 4 * GiB, "w0123\0", 6);
	assert_int_equal(ram_read_file(&ram, 0, fd, 2, 9), -ENODATA);
	assert_int_equal(ram_read_file(&ram, RAM_LOW_MAX - 1, fd, 0, 2), -EFAULT);
	assert_int_equal(ram_read_file(&ram, 0, -1, 0, 2), -EBADF);
	close(fd);
	ram_fini(&ram);
}

static void test_rom(void **state)
{
	struct ram ram;

	assert_int_equal(ram_init(&ram, 2 * MiB, NULL), 0);
	assert_int_equal(ram_add_rom(&ram, 0xc0000, 0xd0000), 0);
	assert_int_equal(ram_add_rom(&ram, 0xc0001, 0xd0000), -EINVAL);
	assert_int_equal(ram_add_rom(&ram, 0xc0000, 0xd0001), -EINVAL);
	assert_int_equal(ram_add_rom(&ram, 0xd0000, 0xc0000), -EINVAL);
	assert_int_equal(ram_add_rom(&ram, 0xc0000, 0xc0000), -EINVAL);
	assert_int_equal(ram_add_rom(&ram, MiB, 3 * MiB), -EINVAL);
	assert_false(ram_is_rom(&ram, 0xbffff));
	assert_true(ram_is_rom(&ram, 0xc0000));
	assert_true(ram_is_rom(&ram, 0xcffff));
	assert_false(ram_is_rom(&ram, 0xd0000));
	for (unsigned i = 1; i < RAM_MAX_ROMS; i++)
		assert_int_equal(ram_add_rom(&ram, 0xe0000 + i * 4096, 0xe1000 + i * 4096), 0);
	assert_int_equal(ram_add_rom(&ram, 0xd0000, 0xd1000), -ENOSPC);
	ram_fini(&ram);
}

static void test_code_marks(void **state)
{
	struct ram ram;

	assert_int_equal(ram_init(&ram, 2 * MiB, NULL), 0);
	assert_false(ram_has_code(&ram, 0, 2 * MiB));
	atomic_fetch_or(&ram.code_map[3], BIT(5)); /* 0x3140..0x317f */
	assert_true(ram_has_code(&ram, 0, 2 * MiB));
	assert_true(ram_has_code(&ram, 0x3140, 1));
	assert_true(ram_has_code(&ram, 0x317f, 1));
	assert_false(ram_has_code(&ram, 0x313f, 1));
	assert_true(ram_has_code(&ram, 0x313f, 2));
	assert_false(ram_has_code(&ram, 0x3180, 64));
	assert_false(ram_has_code(&ram, 0x3140, 0));
	assert_false(ram_has_code(&ram, 0, 0x3140));
	assert_true(ram_has_code(&ram, 0x2000, 0x1141));
	assert_false(ram_has_code(&ram, 0x4140, 0x1000));
	/* Every pair of granules within two pages, against the plain definition. */
	for (unsigned first = 0; first < 128; first++) {
		for (unsigned last = first; last < 128; last++) {
			gpa_t a = 0x3000 + first * 64, e = 0x3000 + last * 64 + 63;

			assert_int_equal(ram_has_code(&ram, a, e - a + 1), first <= 5 && last >= 5);
		}
	}
	ram_fini(&ram);
}

static struct {
	unsigned calls;
	gpa_t gpa;
	u64 len;
} written;

static void on_written(void *opaque, gpa_t gpa, u64 len)
{
	assert_ptr_equal(opaque, &written);
	written.calls++;
	written.gpa = gpa;
	written.len = len;
}

static void test_dma(void **state)
{
	static struct vm vm;
	u8 buf[64] = { 1, 2, 3 }, back[64] = { 0 };

	assert_int_equal(ram_init(&vm.ram, 2 * MiB, NULL), 0);
	vm.ram.code_written = on_written;
	vm.ram.code_opaque = &written;
	assert_int_equal(dma_write(&vm, 2 * MiB - 64, buf, 64), 0);
	assert_int_equal(dma_read(&vm, 2 * MiB - 64, back, 64), 0);
	assert_memory_equal(buf, back, 64);
	assert_int_equal(written.calls, 0);
	/* Code. */
	atomic_fetch_or(&vm.ram.code_map[1], BIT(0));
	assert_int_equal(dma_write(&vm, 0x0fff, buf, 64), 0);
	assert_int_equal(written.calls, 1);
	assert_true(written.gpa == 0xfff && written.len == 64);
	ram_fini(&vm.ram);
}

/* Hostile cases G06, G08, G12: DMA outside RAM fails as a whole, at both ends of it. */
static void test_G06_dma_outside(void **state)
{
	static const struct {
		gpa_t gpa;
		u64 len;
	} bad[] = {
		{ 2 * MiB, 1 },    { 2 * MiB - 1, 2 }, { 0xfee00000, 4 },    { ~0ull, 1 },
		{ ~0ull - 3, 8 },  { 0, ~0ull },       { 1, ~0ull },         { 4 * GiB, 1 },
		{ 3 * GiB, 4096 }, { 0, 2 * MiB + 1 }, { BIT(63), BIT(63) },
	};
	static struct vm vm;
	u8 buf[8] = { 0xff };

	assert_int_equal(ram_init(&vm.ram, 2 * MiB, NULL), 0);
	assert_int_equal(ram_add_rom(&vm.ram, 0xf0000, 0x100000), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(dma_write(&vm, bad[i].gpa, buf, bad[i].len), -EFAULT);
		assert_int_equal(dma_read(&vm, bad[i].gpa, buf, bad[i].len), -EFAULT);
	}
	/* Nothing of a refused write is done. */
	assert_int_equal(dma_write(&vm, 2 * MiB - 1, buf, 2), -EFAULT);
	assert_int_equal(vm.ram.base[2 * MiB - 1], 0);
	/* ROM is read, not written, not even in part. */
	assert_int_equal(dma_read(&vm, 0xf0000, buf, 4), 0);
	assert_int_equal(dma_write(&vm, 0xf0000, "abcd", 4), -EFAULT);
	assert_int_equal(dma_write(&vm, 0xefffe, "abcd", 4), -EFAULT);
	assert_int_equal(dma_write(&vm, 0xfffff, "abcd", 4), -EFAULT);
	assert_int_equal(dma_write(&vm, 0xefffc, "abcd", 4), 0);
	assert_int_equal(dma_write(&vm, 0x100000, "abcd", 4), 0);
	assert_int_equal(dma_write(&vm, ~0ull, buf, 0), 0);
	ram_fini(&vm.ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_zeroed_fini),
		cmocka_unit_test(test_low),
		cmocka_unit_test(test_high),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_rom),
		cmocka_unit_test(test_code_marks),
		cmocka_unit_test(test_dma),
		cmocka_unit_test(test_G06_dma_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
