/* --boot: from what kinds of devices firmware boots, and in which order. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct vm;

enum boot_kind { BOOT_DISK, BOOT_CDROM, BOOT_NET, BOOT_NR_KINDS };

struct bootorder {
	enum boot_kind kind[BOOT_NR_KINDS];
	unsigned nr;
	bool asked_for; /* by the user: each kind must be there */
};

#define BOOTORDER_MAX 4096 /* bytes of the list */
/* The file of fw_cfg with a program that boots from the network, for firmware that has none of its own. */
#define BOOTORDER_NET_ROM "genroms/pxe-virtio.rom"

/* Kinds after commas; NULL: disk, cdrom, net. */
int bootorder_parse(const char *text, struct bootorder *ret_order, struct err *err);
bool bootorder_has(const struct bootorder *order, enum boot_kind kind);

/* The devices exist: their paths as firmware wants them, one a line. -ENODEV with a sentence where there is none of a kind that was
 * asked for. */
int bootorder_list(const struct bootorder *order, struct vm *vm, char ret_list[BOOTORDER_MAX],
		   struct err *err);
