/* Text in RAM.
 *
 * In the text modes that everybody uses, the bytes at B8000H-BFFFFH are those of planes 0 and 1 in turn, and nothing is made
 * of what the guest writes. After TEXT_ACCESSES of them RAM takes the place of that part of the window: then text neither
 * leaves the guest under KVM nor goes through the bus in the software engine. As soon as a register says something
 * else, what is there goes back to the planes. A guest that changes registers all the time does not have its memory laid out
 * anew each time.
 *
 * DEVIATION: a read does not fill the latches then. Another vCPU that writes text in the moment in which the registers are
 * changed may write where it was.
 *
 * Threads: as vga_mem.c.
 */
#include <errno.h>

#include "base/bits.h"
#include "dev/vga_int.h"
#include "vm/dma.h"
#include "vm/vm.h"

#define TEXT_START    0xb8000ull
#define TEXT_LEN      0x8000u
#define TEXT_ACCESSES 256

_Static_assert(TEXT_START + TEXT_LEN == VGA_WINDOW_BASE + VGA_WINDOW_SIZE, "text is the window's end");

static struct vm *vm_of(const struct vga *v)
{
	return v->dev.vm;
}

static u8 *text(const struct vga *v)
{
	return vm_of(v)->ram.base + TEXT_START;
}

static void show(struct vga *v, bool in_ram)
{
	struct ram *ram = &vm_of(v)->ram;

	v->text_in_ram = in_ram;
	v->text_accesses = 0;
	ram_set_hole_end(ram, in_ram ? TEXT_START : ram->hole.end);
	vm_memory_changed(vm_of(v));
}

bool vga_text_access(struct vga *v)
{
	/* A board may have no RAM there. */
	if (v->text_in_ram || !vga_mem_is_text(v) || vm_of(v)->ram.hole.end != TEXT_START + TEXT_LEN ||
	    ++v->text_accesses < TEXT_ACCESSES)
		return v->text_in_ram;
	for (u32 n = 0; n < TEXT_LEN / 2; n++)
		st16(text(v) + 2 * n, ld16(v->mem + 4 * n));
	ram_mark_dirty(&vm_of(v)->ram, TEXT_START, TEXT_LEN);
	show(v, true);
	return true;
}

void vga_text_leave(struct vga *v)
{
	if (!v->text_in_ram)
		return;
	show(v, false);
	for (u32 n = 0; n < TEXT_LEN / 2; n++)
		st16(v->mem + 4 * n, ld16(text(v) + 2 * n));
}

u64 vga_text_read(const struct vga *v, u64 offset, unsigned size)
{
	u64 val = 0;

	return dma_read(vm_of(v), VGA_WINDOW_BASE + offset, &val, size) ? bits_mask(size) : val;
}

void vga_text_write(struct vga *v, u64 offset, unsigned size, u64 val)
{
	dma_write(vm_of(v), VGA_WINDOW_BASE + offset, &val,
		  size); /* what is before TEXT_START is not decoded */
}

u32 vga_text_cell(const struct vga *v, u32 n, u32 planes)
{
	return v->text_in_ram && n < TEXT_LEN / 2 ? (planes & 0xffff0000) | ld16(text(v) + 2 * n) : planes;
}

int vga_text_post_load(struct vga *v)
{
	if (v->text_in_ram && (!vga_mem_is_text(v) || vm_of(v)->ram.hole.end != TEXT_START + TEXT_LEN))
		return -EINVAL;
	if (vm_of(v)->ram.hole.end)
		show(v, v->text_in_ram);
	return 0;
}
