/* Notes of written pages (vm/dirty.h): a copy of the memory of a guest that writes all over it, made as a migration does, is the
 * same in the end; on the software engine, and on KVM by rings and by its log. What needs KVM is skipped where there is none that works. */
#include "barevm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "vm/dirty.h"
#include "vm/dma.h"
#include "vm/handover.h"

#define RAM_SIZE (16 * MiB)
#define PAGES    (RAM_SIZE / RAM_PAGE_SIZE)
#define TABLE    0x4000
#define ROUNDS   12
#define FOR_DMA  0x8000 /* below what the guest writes to */

static bool without_rings(unsigned long request, void *arg, int *ret)
{
	if (request != KVM_CHECK_EXTENSION || (uintptr_t)arg != KVM_CAP_DIRTY_LOG_RING)
		return false;
	*ret = 0;
	return true;
}

/* --- the guest --- */
/* Writes at pseudo-random addresses from 64 KiB up: plainly, locked, by a string instruction across pages. Now and then it clears the
 * accessed and dirty bits of its page table's first entry, which the processor then sets again. */
static const u8 writer[] = {
	0xb9, 0x0d, 0x66, 0x19, 0x00,                   /* again: mov $0x19660d, %ecx */
	0xf7, 0xe1,                                     /* mul %ecx */
	0x05, 0x5f, 0xf3, 0x6e, 0x3c,                   /* add $0x3c6ef35f, %eax */
	0x89, 0xc3,                                     /* mov %eax, %ebx */
	0xc1, 0xeb, 0x08,                               /* shr $8, %ebx */
	0x81, 0xe3, 0xfc, 0xff, 0xef, 0x00,             /* and $0xeffffc, %ebx */
	0x89, 0x83, 0x00, 0x00, 0x01, 0x00,             /* mov %eax, 0x10000(%ebx) */
	0xf6, 0xc4, 0x07,                               /* test $7, %ah */
	0x75, 0x15,                                     /* jne 1f */
	0xf0, 0x0f, 0xc1, 0x93, 0x00, 0x00, 0x01, 0x00, /* lock xadd %edx, 0x10000(%ebx) */
	0xb9, 0x28, 0x00, 0x00, 0x00,                   /* mov $40, %ecx */
	0x8d, 0xbb, 0x00, 0xff, 0x00, 0x00,             /* lea 0xff00(%ebx), %edi */
	0xf3, 0xaa,                                     /* rep stosb */
	0x45,                                           /* 1: inc %ebp */
	0x66, 0xf7, 0xc5, 0x3f, 0x00,                   /* test $0x3f, %bp */
	0x75, 0xc1,                                     /* jne again */
	0x83, 0x25, 0x00, 0x40, 0x00, 0x00, 0x9f,       /* andl $~0x60, TABLE */
	0x0f, 0x01, 0x3d, 0x00, 0x00, 0x00, 0x00,       /* invlpg 0 */
	0xeb, 0xb1,                                     /* jmp again */
};

/* Not one that is an emulator (bothy doctor): it does not get through this guest. */
static void need_real_kvm(void)
{
	u64 ps = 0;

	need_kvm();
	kvm_engine.trial(&ps, NULL);
	if (ps < 100000) /* in an emulated machine some thousands */
		return;
	print_message("skipped: the host's KVM takes %llu ps an instruction\n", (unsigned long long)ps);
	skip();
}

static void begin(const struct engine_ops *engine)
{
	struct x86_state s;
	struct err err = { 0 };

	start_vm(engine, RAM_SIZE);
	memcpy(vm.ram.base + CODE, writer, sizeof(writer));
	for (unsigned k = 0; k < 4; k++)
		st32(vm.ram.base + TABLE + 4 * k, k << 22 | PTE_P | PTE_W | PTE_PS);
	protected_mode(&s);
	s.cr3 = TABLE;
	s.cr4 |= CR4_PSE;
	s.cr0 |= CR0_PG;
	if (vcpu_start(&vcpu, &s, &err) < 0)
		fail_msg("%s", err.msg);
}

static void end(void)
{
	vcpu_join(&vcpu);
	stop_vm();
}

/* --- the copy --- */
static u8 *copy;
static u64 bits[(PAGES + 63) / 64];

static u64 collect(void)
{
	struct err err = { 0 };
	s64 n = dirty_collect(&vm, bits, &err);

	if (n < 0)
		fail_msg("%s", err.msg);
	return (u64)n;
}

static void copy_dirty(void)
{
	for (u64 p = 0; p < PAGES; p++)
		if (bits[p / 64] >> p % 64 & 1)
			memcpy(copy + p * RAM_PAGE_SIZE, vm.ram.base + p * RAM_PAGE_SIZE, RAM_PAGE_SIZE);
	memset(bits, 0, sizeof(bits));
}

static void go_over(const struct engine_ops *to)
{
	struct err err = { 0 };

	vcpu_pause(&vcpu);
	if (handover_run(&vm, to, &err) < 0)
		fail_msg("%s", err.msg);
	vcpu_resume(&vcpu);
}

/* other: the engine to move to and back from on the way; NULL: none. */
static void converge(const struct engine_ops *engine, const struct engine_ops *other, unsigned us)
{
	const u8 by_device[] = "by a device";
	struct err err = { 0 };
	u64 n, part = 0;

	begin(engine);
	copy = malloc(RAM_SIZE);
	assert_non_null(copy);
	assert_int_equal(dirty_words(&vm), ARRAY_SIZE(bits));
	memset(bits, 0, sizeof(bits));
	usleep(20000);
	if (dirty_start(&vm, &err) < 0)
		fail_msg("%s", err.msg);
	memcpy(copy, vm.ram.base, RAM_SIZE);
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (other && round % 4 == 1)
			go_over(vm.engine == engine ? other : engine);
		usleep(us);
		if (round == 2)
			assert_int_equal(dma_write(&vm, FOR_DMA, by_device, sizeof(by_device)), 0);
		n = collect();
		/* Its thread may not have had a processor. */
		for (unsigned k = 0; k < 1000 && !n; k++) {
			usleep(1000);
			n = collect();
		}
		if (!n)
			fail_msg("nothing is written: %s", vm.crash);
		assert_true(round != 2 || bits[0] >> FOR_DMA / RAM_PAGE_SIZE & 1);
		part += n < PAGES;
		copy_dirty();
	}
	/* It is not said of all pages that they are written. */
	assert_true(part > 0);
	usleep(10 * us);
	vcpu_pause(&vcpu);
	/* The guest was not idle, so the copy is not yet the same. */
	for (unsigned k = 0; k < 1000 && !memcmp(copy, vm.ram.base, RAM_SIZE); k++) {
		vcpu_resume(&vcpu);
		usleep(1000);
		vcpu_pause(&vcpu);
	}
	assert_true(memcmp(copy, vm.ram.base, RAM_SIZE) != 0);
	assert_true(collect() > 0);
	copy_dirty();
	for (u64 p = 0; p < PAGES; p++)
		if (memcmp(copy + p * RAM_PAGE_SIZE, vm.ram.base + p * RAM_PAGE_SIZE, RAM_PAGE_SIZE))
			fail_msg("page %llu has changed, and nobody said so", (unsigned long long)p);
	assert_int_equal(collect(), 0);
	dirty_stop(&vm);
	vcpu_resume(&vcpu);
	usleep(5000);
	assert_int_equal(atomic_load(&vm.ram.dirty_on), false);
	end();
	free(copy);
}

static void test_soft(void **state)
{
	converge(&soft_engine, NULL, 300);
}

static void test_kvm_ring(void **state)
{
	need_real_kvm();
	converge(&kvm_engine, NULL, 2000);
}

static void test_kvm_log(void **state)
{
	need_real_kvm();
	ioctl_shim = without_rings;
	converge(&kvm_engine, NULL, 2000);
	ioctl_shim = NULL;
}

static void test_moves(void **state)
{
	need_real_kvm();
	converge(&kvm_engine, &soft_engine, 1000);
}

/* Nothing is noted that was written before, and nothing after the end. */
static void test_start_and_stop(void **state)
{
	const u8 byte = 1;
	struct err err = { 0 };

	start_vm(&soft_engine, RAM_SIZE);
	memset(bits, 0, sizeof(bits));
	dma_write(&vm, 0x5000, &byte, 1);
	assert_int_equal(dirty_start(&vm, &err), 0);
	assert_int_equal(collect(), 0);
	dma_write(&vm, 0x6fff, (const u8[]){ 1, 2 }, 2);
	assert_int_equal(collect(), 2);
	assert_int_equal(bits[0], BIT(6) | BIT(7));
	/* Those that are known already are not new. */
	dma_write(&vm, 0x7000, &byte, 1);
	assert_int_equal(collect(), 0);
	dma_write(&vm, RAM_SIZE - 1, &byte, 1);
	dirty_stop(&vm);
	dma_write(&vm, 0x9000, &byte, 1);
	assert_int_equal(dirty_start(&vm, &err), 0);
	assert_int_equal(collect(), 0);
	dirty_stop(&vm);
	stop_vm();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_and_stop), cmocka_unit_test(test_soft),
		cmocka_unit_test(test_kvm_ring),       cmocka_unit_test(test_kvm_log),
		cmocka_unit_test(test_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
