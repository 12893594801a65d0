/* The order in which firmware tries devices.
 *
 * Document: IEEE 1275, whose device paths QEMU's fw_cfg file "bootorder" has, one a line; SeaBIOS compares them with what it finds
 * (its boot.c), OVMF translates them (QemuBootOrderLib). Both look at the PCI slot and below, and take a wildcard for names.
 *
 * How it works: devices are asked in the order in which they were made, for each kind in turn. Main thread.
 */
#include "machine/bootorder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dev/ata/ahci.h"
#include "dev/pci.h"
#include "vm/device.h"
#include "vm/vm.h"

static const char *const names[BOOT_NR_KINDS] = { "disk", "cdrom", "net" };

/* What follows the slot. */
static const struct {
	const char *type;
	enum boot_kind kind;
	const char *node, *below;
} types[] = {
	{ "virtio-blk", BOOT_DISK, "scsi", "/disk@0,0" },
	{ "nvme", BOOT_DISK, "nvme", "/namespace@1,0" },
	{ "virtio-net", BOOT_NET, "ethernet", "/ethernet-phy@0" },
};

bool bootorder_has(const struct bootorder *order, enum boot_kind kind)
{
	for (unsigned i = 0; i < order->nr; i++)
		if (order->kind[i] == kind)
			return true;
	return false;
}

static int parse_kind(const char *text, size_t len, enum boot_kind *ret_kind, struct err *err)
{
	for (unsigned k = 0; k < BOOT_NR_KINDS; k++) {
		if (strlen(names[k]) == len && !strncmp(text, names[k], len)) {
			*ret_kind = k;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "--boot: there is no '%.*s' to boot from; there are disk, cdrom and net",
		       (int)MIN(len, (size_t)64), text);
}

int bootorder_parse(const char *text, struct bootorder *ret_order, struct err *err)
{
	struct bootorder order = { .asked_for = text };

	if (!text)
		text = "disk,cdrom,net";
	for (;;) {
		size_t len = strcspn(text, ",");
		enum boot_kind kind = BOOT_DISK;
		int r = parse_kind(text, len, &kind, err);

		if (r < 0)
			return r;
		if (bootorder_has(&order, kind))
			return err_set(err, -EINVAL, "--boot: '%s' is there twice", names[kind]);
		order.kind[order.nr++] = kind;
		if (!text[len])
			break;
		text += len + 1;
	}
	*ret_order = order;
	return 0;
}

struct list {
	char *text;
	size_t used;
};

/* One that does not fit is left out: firmware then tries it last. */
static void add_line(struct list *l, const char *line)
{
	size_t len = strlen(line);

	if (l->used + len + 2 > BOOTORDER_MAX)
		return;
	if (l->used)
		l->text[l->used++] = '\n';
	memcpy(l->text + l->used, line, len + 1);
	l->used += len;
}

/* A function other than 0 is named behind the slot. */
static void add_path(struct list *l, int devfn, const char *node, const char *below)
{
	unsigned slot = (unsigned)devfn >> 3, fn = devfn & 7;
	char line[96], function[8] = "";

	if (fn)
		snprintf(function, sizeof(function), ",%x", fn);
	snprintf(line, sizeof(line), "/pci@i0cf8/%s@%x%s%s", node, slot, function, below);
	add_line(l, line);
}

static unsigned add_kind(struct list *l, enum boot_kind kind, struct vm *vm)
{
	struct device *bus = pci_find(vm);
	unsigned n = 0;

	for (struct device *dev = vm->devices; dev; dev = dev->next) {
		int devfn = pci_devfn_of(bus, dev);

		if (devfn < 0)
			continue;
		for (unsigned t = 0; t < ARRAY_SIZE(types); t++) {
			if (types[t].kind != kind || strcmp(types[t].type, dev->ops->name) != 0)
				continue;
			add_path(l, devfn, types[t].node, types[t].below);
			n++;
		}
		/* One function with drives of both kinds. */
		for (unsigned port = 0; kind != BOOT_NET && port < AHCI_PORTS; port++) {
			char below[32];

			if (strcmp(dev->ops->name, "ahci") != 0 || !ahci_has(dev, port, kind == BOOT_CDROM))
				continue;
			snprintf(below, sizeof(below), "/drive@%x/disk@0", port);
			/* UEFI knows SATA by this name, and takes "ide" for the adapters of old; a BIOS does not look. */
			add_path(l, devfn, "pci8086,2922", below);
			n++;
		}
	}
	if (n && kind == BOOT_NET)
		add_line(l, "/rom@" BOOTORDER_NET_ROM);
	return n;
}

int bootorder_list(const struct bootorder *order, struct vm *vm, char ret_list[BOOTORDER_MAX],
		   struct err *err)
{
	struct list l = { .text = ret_list };

	ret_list[0] = 0;
	for (unsigned i = 0; i < order->nr; i++)
		if (!add_kind(&l, order->kind[i], vm) && order->asked_for)
			return err_set(err, -ENODEV, "--boot %s: the machine has none",
				       names[order->kind[i]]);
	return 0;
}
