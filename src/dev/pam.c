/* The programmable attribute map: shadow RAM.
 *
 * Document: Intel 3 Series chip set data sheet 316966, [Q35 5.1.19] to [Q35 5.1.25]. Each register has two fields of two
 * bits for two segments of 16 KiB; the first one's upper field is for all of F0000H-FFFFFH, and its lower one is reserved.
 *
 *	bit 0 read enable:  reads come from RAM, else from ROM (E0000H and up) or nowhere (below)
 *	bit 1 write enable: stores go to RAM, else nowhere
 *
 * Firmware starts with all of them off, its own top 128 KiB visible; copies itself into the RAM beneath, which is to be
 * read and written then; and at last takes the right to write away.
 *
 * How it works: ram_shadow_set() changes what lies at the addresses, so that reads and code cost nothing. What is written to
 * RAM while ROM is read there (the classic way to copy) is rare, and comes over the bus.
 *
 * Omitted: the HEN bit at 97H, an ISA hole at 15 MiB that no firmware makes. Where the host refuses a mapping (it has too
 * many) the guest sees what was there before. Threads: vCPUs.
 */
#include "dev/pam.h"

#include "base/bits.h"
#include "base/log.h"
#include "vm/vm.h"

#define PAM_BITS 0x33
#define PAM_RE   BIT(0)
#define PAM_WE   BIT(1)

static unsigned shadow_of(const struct pci_dev *bridge, gpa_t gpa)
{
	u64 segment = (gpa - RAM_SHADOW_START) / RAM_SHADOW_SEGMENT;
	const u8 *reg = bridge->config + PAM_REG;
	unsigned bits = gpa >= 0xf0000 ? reg[0] >> 4 : reg[1 + segment / 2] >> 4 * (segment % 2);

	return (bits & PAM_RE ? 0 : RAM_SHADOW_NO_READ) | (bits & PAM_WE ? 0 : RAM_SHADOW_NO_WRITE);
}

void pam_init(struct pci_dev *bridge)
{
	if (!bridge->owner->vm->ram.rom_size)
		return;
	memset(bridge->wmask + PAM_REG, PAM_BITS, PAM_NR);
	bridge->wmask[PAM_REG] &= 0xf0;
}

void pam_update(struct pci_dev *bridge)
{
	struct vm *vm = bridge->owner->vm;
	bool changed = false;

	if (!vm->ram.rom_size)
		return;
	for (gpa_t gpa = RAM_SHADOW_START; gpa < RAM_SHADOW_END; gpa += RAM_SHADOW_SEGMENT) {
		unsigned shadow = shadow_of(bridge, gpa);
		int rc;

		if (shadow == ram_shadow_get(&vm->ram, gpa))
			continue;
		rc = ram_shadow_set(&vm->ram, gpa, shadow);
		if (rc)
			log_guest("the memory at %#llx stays as it is: the host refuses a mapping (%d)",
				  (unsigned long long)gpa, rc);
		changed = true;
	}
	if (changed)
		vm_memory_changed(vm);
}

static u64 shadow_read(void *opaque, u64 offset, unsigned size)
{
	return bits_mask(size);
}

static void shadow_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct ram *ram = &((struct vm *)opaque)->ram;

	for (unsigned i = 0; i < size && offset + i < RAM_SHADOW_END - RAM_SHADOW_START; i++)
		if (ram_shadow_get(ram, RAM_SHADOW_START + offset + i) == RAM_SHADOW_NO_READ)
			ram->shadow_ptr[offset + i] = (u8)(val >> 8 * i);
}

const struct region_ops pam_shadow_ops = { .read = shadow_read, .write = shadow_write, .max_size = 8 };
