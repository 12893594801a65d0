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
#include <stdatomic.h>
#include <string.h>

#include "vm/vm.h"

int dma_read(struct vm *vm, iova_t addr, void *buf, u64 len)
{
	const void *p;

	if (!len)
		return 0;
	p = ram_ptr(&vm->ram, addr, len);
	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int dma_write(struct vm *vm, iova_t addr, const void *buf, u64 len)
{
	struct ram *ram = &vm->ram;
	void *p;

	if (!len)
		return 0;
	p = ram_ptr(ram, addr, len);
	if (!p)
		return -EFAULT;
	for (unsigned i = 0; i < ram->nr_roms; i++)
		if (addr < ram->rom[i].end && ram->rom[i].start < addr + len)
			return -EFAULT;
	memcpy(p, buf, len);
	/* The bytes must be visible before we look for marks: see ram.c. */
	atomic_thread_fence(memory_order_seq_cst);
	if (ram_has_code(ram, addr, len))
		ram_code_written(ram, addr, len);
	return 0;
}
