/* Device access to RAM.
 *
 * Every range is checked as a whole before a byte moves, so a transfer happens completely or not at all.
 * Only RAM is reached: a descriptor that points at a device's registers cannot re-enter the device
 * (hostile cases G06, G12), and one that points at ROM cannot change it.
 *
 * Guest memory changes under us whenever a vCPU likes: a caller copies what it must trust and checks
 * the copy. Any thread.
 */
#include "vm/dma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>

#include "vm/vm.h"

void *dma_map(struct vm *vm, iova_t addr, u64 len, bool write)
{
	struct ram *ram = &vm->ram;
	void *p = ram_ptr(ram, addr, len);

	return p && write && ram_has_rom(ram, addr, len) ? NULL : p;
}

void dma_written(struct vm *vm, const void *p, u64 len)
{
	struct ram *ram = &vm->ram;
	gpa_t addr = (gpa_t)((const u8 *)p - ram->base);

	ram_mark_dirty(ram, addr, len);
	/* The bytes must be visible before we look for marks: see ram.c. */
	atomic_thread_fence(memory_order_seq_cst);
	if (ram_has_code(ram, addr, len))
		ram_code_written(ram, addr, len);
}

int dma_discard(struct vm *vm, iova_t addr, u64 len)
{
	struct ram *ram = &vm->ram;
	void *p = dma_map(vm, addr, len, true);
	int r;

	if (!p)
		return -EFAULT;
	if ((addr | len) % RAM_PAGE_SIZE)
		return -EINVAL;
	if (!len)
		return 0;
	r = ram_discard(ram, addr, len);
	if (r < 0)
		return r;
	dma_written(vm, p, len);
	return 0;
}

int dma_read(struct vm *vm, iova_t addr, void *buf, u64 len)
{
	const void *p;

	if (!len)
		return 0;
	p = dma_map(vm, addr, len, false);
	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int dma_write(struct vm *vm, iova_t addr, const void *buf, u64 len)
{
	void *p;

	if (!len)
		return 0;
	p = dma_map(vm, addr, len, true);
	if (!p)
		return -EFAULT;
	memcpy(p, buf, len);
	dma_written(vm, p, len);
	return 0;
}
