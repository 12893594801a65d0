/* Hostile command lists for the AHCI adapter, with a disk and a CD-ROM drive: headers, tables and commands written at random, and
 * nearly right; registers, resets, completions and time in any order; entries that point at device memory, at the list itself, and
 * change while a command is under way [G26, G28, G43].
 *
 * Whatever came before, an HBA reset gives an adapter that reads. What is read and written outside of the guest's memory is the
 * sanitizers' business; fakeblock.c checks what reaches a disk.
 */
#include <string.h>

#include "adriver.h"
#include "base/bits.h"
#include "script.h"
#include "wholeboard.h"

#define RAM (4 * MiB)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

/* Mostly memory that is free, else edges, the adapter's own structures, or anything. */
static u64 take_addr(struct adriver *d)
{
	const u64 edges[] = {
		0,          ADRIVER_AT, ADRIVER_AT + 0x10000, RAM - 2,
		RAM,        0xe0000,    0xc0000000,           d->regs,
		0xfee00000, ~0ull,      adriver_table(d, 0),  adriver_table(d, 31),
	};
	u64 kind = take(1);

	if (kind < 180)
		return ADRIVER_DATA + take(2) * 8;
	if (kind < 240)
		return edges[kind % ARRAY_SIZE(edges)] + (take(1) & 0x7f);
	return take(8);
}

static u8 take_command(void)
{
	static const u8 commands[] = { 0x06, 0x20, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x34, 0x35, 0x39, 0x3d,
				       0x40, 0x42, 0x60, 0x60, 0x61, 0x61, 0x90, 0xa0, 0xa0, 0xa0, 0xa1,
				       0xb0, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe7, 0xea, 0xec, 0xef, 0x08 };
	u8 which = (u8)take(1);

	return which < 250 ? commands[which % ARRAY_SIZE(commands)] : (u8)take(1);
}

/* A command that is right but for what the script changes. */
static void put_command(struct adriver *d, unsigned slot)
{
	static const u8 packets[] = { 0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x28, 0x43,
				      0x46, 0x4a, 0x51, 0x52, 0x5a, 0xa8, 0xa8, 0xbb, 0xbd, 0xbe };
	struct adriver_prd prds[16] = { { 0, 2 } };
	unsigned nr = (unsigned)take(1) % 17;
	u8 command = take_command(), *t = adriver_mem(d, adriver_table(d, slot));
	u32 flags = take(1) & 7 ? 0 : (u32)take(2) & ~0x1fu;

	for (unsigned i = 0; i < nr; i++)
		prds[i] = (struct adriver_prd){ take_addr(d), 2 + 2 * (u32)take(take(1) & 7 ? 1 : 3) };
	if (command == 0x60 || command == 0x61)
		adriver_queued(d, slot, command, take(take(1) & 7 ? 1 : 6), (u16)take(1), prds, nr);
	else
		adriver_command(d, slot, command, take(take(1) & 7 ? 1 : 6), (u16)take(1),
				flags | (command == 0xa0 ? BIT(5) : 0), prds, nr);
	if (command != 0x60 && command != 0x61)
		t[3] = (u8)take(1);
	for (unsigned i = 0; i < 12; i++)
		t[0x40 + i] = (u8)take(1);
	if (take(1) & 15)
		t[0x40] = packets[t[0x40] % sizeof(packets)];
	if (!(take(1) & 15)) { /* a table of more entries than there are */
		st16(adriver_mem(d, adriver_header(d, slot) + 2), (u16)take(2));
	}
}

/* One that works, in up to four parts: from it the script goes astray. */
static void put_right(struct adriver *d, unsigned slot)
{
	static const u8 commands[] = { 0x25, 0x35, 0x60, 0x61, 0x60, 0x61, 0x3d, 0x24 };
	u8 command = commands[take(1) % sizeof(commands)], lba = (u8)take(1);
	u16 count = (u16)(4 + 4 * (take(1) & 7));
	struct adriver_prd prds[4];
	u32 left = 512u * count;
	unsigned nr = 0;

	for (u64 at = ADRIVER_DATA + (take(1) << 12); left; nr++) {
		u32 len = nr == 3 ? left : MIN(left, 2 + 2 * (u32)(take(2) & 0xfff));

		prds[nr] = (struct adriver_prd){ at, len };
		at += len;
		left -= len;
	}
	if (d->port) {
		const u8 packet[12] = { 0x28, 0, 0, 0, 0, lba, 0, 0, (u8)(count / 4) };

		adriver_packet(d, slot, packet, prds, nr);
	} else if (command == 0x60 || command == 0x61) {
		adriver_queued(d, slot, command, lba, count, prds, nr);
		adriver_pwrite(d, AP_SACT, 1u << slot);
	} else {
		adriver_command(d, slot, command, lba, count, 0, prds, nr);
	}
}

/* Has the last error stopped it? A driver starts it again, with a reset of the link where the drive is busy for good. */
static void recover(struct adriver *d)
{
	if (!(adriver_pread(d, AP_IS) & 0x79000000))
		return;
	adriver_pwrite(d, AP_CMD, 0);
	if (adriver_pread(d, AP_TFD) & 0x88) {
		adriver_pwrite(d, AP_SCTL, 1);
		adriver_pwrite(d, AP_SCTL, 0);
	}
	adriver_start(d);
}

static void step(struct wholeboard *w, struct adriver *d)
{
	u64 op = take(1), val = take(1);
	unsigned slot = (unsigned)val & 31;

	d->port = val >> 5 & 1;
	switch (op & 31) {
	case 0:
	case 1:
	case 2:
	case 3: put_command(d, slot); break;
	case 4:
	case 5: put_right(d, slot); break;
	case 6:
	case 7:
		recover(d);
		put_right(d, slot);
		adriver_pwrite(d, AP_CI, 1u << slot);
		break;
	case 8: recover(d); /* fall through */
	case 9: adriver_pwrite(d, AP_CI, 1u << slot); break;
	case 10: adriver_pwrite(d, AP_CI, (u32)take(4)); break;
	case 11: adriver_pwrite(d, AP_SACT, (u32)take(4)); break;
	case 12:
	case 13:
		adriver_pwrite(d, AP_SACT, 1u << slot);
		adriver_pwrite(d, AP_CI, 1u << slot);
		break;
	case 14: st32(adriver_mem(d, adriver_table(d, slot) + (take(1) << 2)), (u32)take(4)); break;
	case 15: st32(adriver_mem(d, adriver_header(d, slot) + (take(1) & 0x1c)), (u32)take(4)); break;
	case 16:
		st64(adriver_mem(d, adriver_table(d, slot) + 0x80 + 16 * (take(1) & 31)), take_addr(d));
		break;
	case 17:
	case 18: fake_block_run(val & 1 ? &w->ata : &w->cdrom, (unsigned)take(1), take(2)); break;
	case 19: w->ata.hold = w->cdrom.hold = val & 1; break;
	case 20: w->ata.fail = val & 15 ? 0 : -5; break;
	case 21: adriver_pwrite(d, (unsigned)take(1) & 0x7c, (u32)take(4)); break;
	case 22: adriver_write(d, (unsigned)take(1) & 0x7c, (u32)take(4)); break;
	case 23: adriver_pread(d, (unsigned)take(1) & 0x7c); break;
	case 24: adriver_start(d); break;
	case 25: /* the link */ adriver_pwrite(d, AP_SCTL, (u32)take(1) & 7); break;
	case 26: adriver_pwrite(d, AP_CMD, (u32)take(1) & 0x19); break;
	case 27: board_advance(&w->b, take(2) * 1000); break;
	case 28: bus_write(&w->b.vm.bus, BUS_MMIO, d->ecam + take(1), 4, take(4)); break;
	case 29: /* software's reset */
		adriver_command(d, slot, 0, 0, 0, BIT(10), NULL, 0);
		adriver_mem(d, adriver_table(d, slot))[1] = 0;
		adriver_mem(d, adriver_table(d, slot))[15] = (u8)take(1) & 4;
		break;
	case 30:
		if (val < 16)
			device_reset_all(&w->b.vm, RESET_WARM);
		else
			adriver_write(d, 4, 1);
		break;
	default:
		bus_write(&w->b.vm.bus, BUS_MMIO, d->regs + take(2) % 0x800, 1u << (val & 3), take(8));
		break;
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct wholeboard w;
	struct adriver d;

	script_begin(data, len, true);
	wholeboard_init(&w, RAM, 1);
	adriver_find(&d, &w.b);
	for (d.port = 0; d.port < 2; d.port++)
		adriver_start(&d);
	while (script_at < script_end)
		step(&w, &d);
	w.ata.hold = w.cdrom.hold = false;
	w.ata.fail = 0;
	fake_block_run(&w.ata, ~0u, 1);
	fake_block_run(&w.cdrom, ~0u, 1);
	adriver_find(&d, &w.b);
	adriver_write(&d, 4, 1);
	must(!(adriver_read(&d, 4) & 1), "AHCI: a reset does not end");
	adriver_start(&d);
	const struct adriver_prd prd = { ADRIVER_DATA, 4096 };
	memset(w.ata.data, 0xa5, 4096);
	adriver_command(&d, 0, 0x25, 0, 8, 0, &prd, 1);
	adriver_issue(&d, 1);
	must(!adriver_pread(&d, AP_CI) && !memcmp(adriver_mem(&d, ADRIVER_DATA), w.ata.data, 4096),
	     "AHCI: after a reset it does not read");
	must(!w.cdrom.written, "AHCI: a disc was written");
	wholeboard_fini(&w);
	return 0;
}
