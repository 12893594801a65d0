/* See wholeboard.h. */
#include "wholeboard.h"

#include <stdio.h>
#include <stdlib.h>

#include "dev/ata/ahci.h"
#include "dev/fwcfg.h"
#include "dev/pci.h"

#define DISK_SIZE MiB
#define ROM_SIZE  (256 * KiB) /* of which the first part is flash */
#define FLASH     (64 * KiB)
#define BAR_ROOM  (64 * KiB)

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "whole board: %s\n", what);
	abort();
}

void wholeboard_place_bars(struct wholeboard *w)
{
	struct bus *bus = &w->b.vm.bus;
	u64 next = PCI_MMIO_BASE, room;

	for (u64 devfn = 0; devfn < 256; devfn++) {
		u64 ecam = PCI_ECAM_BASE + (devfn << 12);

		if (bus_read(bus, BUS_MMIO, ecam, 4) == 0xffffffff)
			continue;
		for (unsigned off = PCI_BAR0; off < PCI_BAR0 + 4 * PCI_NR_BARS; off += 4) {
			u64 bar;

			bus_write(bus, BUS_MMIO, ecam + off, 4, 0xffffffff);
			bar = bus_read(bus, BUS_MMIO, ecam + off, 4);
			if (!bar || bar & 1)
				continue;
			/* Its size [PCI 6.2.5.1]. */
			room = MAX(BAR_ROOM, -(bar & ~0xfull) & 0xffffffff);
			next = ALIGN_UP(next, room);
			bus_write(bus, BUS_MMIO, ecam + off, 4, next);
			next += room;
			if (bar & 4) {
				off += 4;
				bus_write(bus, BUS_MMIO, ecam + off, 4, 0);
			}
		}
		bus_write(bus, BUS_MMIO, ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	}
}

void wholeboard_init(struct wholeboard *w, u64 ram_size, u32 nr_vcpus)
{
	static const u8 mac[NET_MAC_LEN] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
	const struct ata_conf ata[AHCI_PORTS] = { { .block = &w->ata.block },
						  { .block = &w->cdrom.block, .cdrom = true } };
	static const struct block_conf disk_conf = { .serial = "disk", .queues = 2 };
	struct chr *chr = &w->chr.chr;
	struct err err;

	board_init_rom(&w->b, ram_size, ROM_SIZE, nr_vcpus);
	fake_chr_init(&w->chr);
	fake_chr_init(&w->console);
	fake_block_init(&w->disk, DISK_SIZE);
	fake_block_init(&w->ata, DISK_SIZE);
	fake_block_init(&w->cdrom, DISK_SIZE);
	w->cdrom.block.read_only = true;
	fake_block_init(&w->nvme, DISK_SIZE);
	fake_net_init(&w->net);
	fake_fs_init(&w->fs);
	fake_vsock_init(&w->vsock);
	w->pc.vga = true;
	must(pc_init(&w->pc, &w->b.vm, &err) == 0 && pc_add_devices(&w->pc, &chr, 1, &err) == 0, err.msg);
	board_add(&w->b, "pflash", &(const struct device_conf){ .base = FLASH });
	must(fwcfg_add_number_file(device_find(&w->b.vm, "fwcfg"), "number", 12345, &err) == 0, err.msg);
	board_add(&w->b, "virtio-blk",
		  &(const struct device_conf){
			  .block = &w->disk.block, .block_conf = &disk_conf, .packed = true });
	board_add(&w->b, "ahci", &(const struct device_conf){ .ata = ata });
	board_add(&w->b, "nvme", &(const struct device_conf){ .block = &w->nvme.block });
	board_add(&w->b, "virtio-net",
		  &(const struct device_conf){ .net = &w->net.net, .mac = mac, .packed = true });
	board_add(&w->b, "virtio-console",
		  &(const struct device_conf){ .chr = &w->console.chr, .packed = true });
	board_add(&w->b, "virtio-balloon", &(const struct device_conf){ .packed = true });
	board_add(&w->b, "virtio-fs", &(const struct device_conf){ .fs = &w->fs.fs, .packed = true });
	board_add(&w->b, "virtio-vsock",
		  &(const struct device_conf){ .vsock = &w->vsock.vs, .packed = true });
	/* Those that the user can add. */
	for (const struct device_ops *const *t = device_types; *t; t++) {
		if ((*t)->help)
			board_add(&w->b, (*t)->name,
				  &(const struct device_conf){ .chr = &w->chr.chr, .packed = true });
	}
	wholeboard_place_bars(w);
}

void wholeboard_fini(struct wholeboard *w)
{
	board_fini(&w->b);
	fake_block_fini(&w->disk);
	fake_block_fini(&w->ata);
	fake_block_fini(&w->nvme);
	fake_block_fini(&w->cdrom);
}
