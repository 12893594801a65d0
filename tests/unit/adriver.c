/* See adriver.h. */
#include "adriver.h"

#include <string.h>

#include "base/bits.h"
#include "dev/pci.h"

#define ABAR 0xd0000000ull

void adriver_find(struct adriver *d, struct board *b)
{
	*d = (struct adriver){ .b = b };
	d->ecam = board_pci_find(b, 0x010601);
	d->regs = ABAR;
	bus_write(&b->vm.bus, BUS_MMIO, d->ecam + 0x24, 4, ABAR);
	bus_write(&b->vm.bus, BUS_MMIO, d->ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
}

u32 adriver_read(struct adriver *d, unsigned reg)
{
	return (u32)bus_read(&d->b->vm.bus, BUS_MMIO, d->regs + reg, 4);
}

void adriver_write(struct adriver *d, unsigned reg, u32 val)
{
	bus_write(&d->b->vm.bus, BUS_MMIO, d->regs + reg, 4, val);
}

u32 adriver_pread(struct adriver *d, unsigned reg)
{
	return adriver_read(d, 0x100 + 0x80 * d->port + reg);
}

void adriver_pwrite(struct adriver *d, unsigned reg, u32 val)
{
	adriver_write(d, 0x100 + 0x80 * d->port + reg, val);
}

u8 *adriver_mem(struct adriver *d, u64 gpa)
{
	return d->b->vm.ram.base + gpa;
}

static u64 at(const struct adriver *d)
{
	return ADRIVER_AT + 0x10000ull * d->port;
}

void adriver_start(struct adriver *d)
{
	adriver_write(d, 4, 0x80000002);
	adriver_pwrite(d, AP_CMD, 0);
	adriver_pwrite(d, AP_CLB, (u32)at(d));
	adriver_pwrite(d, AP_CLB + 4, 0);
	adriver_pwrite(d, AP_FB, (u32)at(d) + ADRIVER_FIS);
	adriver_pwrite(d, AP_FB + 4, 0);
	adriver_pwrite(d, AP_CMD, 0x10);
	adriver_pwrite(d, AP_SERR, ~0u);
	adriver_pwrite(d, AP_IS, ~0u);
	adriver_pwrite(d, AP_IE, ~0u);
	adriver_write(d, 8, ~0u);
	adriver_pwrite(d, AP_CMD, 0x11);
}

u64 adriver_header(struct adriver *d, unsigned slot)
{
	return at(d) + 32ull * slot;
}

u64 adriver_table(struct adriver *d, unsigned slot)
{
	return at(d) + ADRIVER_TABLES + (u64)ADRIVER_TABLE * slot;
}

u8 *adriver_fis(struct adriver *d, unsigned offset)
{
	return adriver_mem(d, at(d) + ADRIVER_FIS + offset);
}

void adriver_command(struct adriver *d, unsigned slot, u8 command, u64 lba, u16 count, u32 flags,
		     const struct adriver_prd *prds, unsigned nr)
{
	u8 *h = adriver_mem(d, adriver_header(d, slot)), *t = adriver_mem(d, adriver_table(d, slot));

	memset(h, 0, 32);
	st32(h, 5 | flags | nr << 16);
	st64(h + 8, adriver_table(d, slot));
	memset(t, 0, 0x80);
	t[0] = 0x27;
	t[1] = 0x80;
	t[2] = command;
	st32(t + 4, (u32)(lba & 0xffffff) | 0x40000000);
	st32(t + 8, (u32)(lba >> 24 & 0xffffff));
	st16(t + 12, count);
	for (unsigned i = 0; i < nr; i++) {
		st64(t + 0x80 + 16 * i, prds[i].addr);
		st32(t + 0x88 + 16 * i, 0);
		st32(t + 0x8c + 16 * i, prds[i].len - 1);
	}
}

void adriver_queued(struct adriver *d, unsigned slot, u8 command, u64 lba, u16 count,
		    const struct adriver_prd *prds, unsigned nr)
{
	u8 *t = adriver_mem(d, adriver_table(d, slot));

	adriver_command(d, slot, command, lba, (u16)(slot << 3), 0, prds, nr);
	t[3] = (u8)count;
	t[11] = (u8)(count >> 8);
}

void adriver_packet(struct adriver *d, unsigned slot, const u8 packet[12], const struct adriver_prd *prds,
		    unsigned nr)
{
	u8 *t = adriver_mem(d, adriver_table(d, slot));

	adriver_command(d, slot, 0xa0, 0, 0, BIT(5), prds, nr);
	t[3] = 1; /* by DMA */
	memcpy(t + 0x40, packet, 12);
}

void adriver_issue(struct adriver *d, u32 slots)
{
	adriver_pwrite(d, AP_CI, slots);
}
