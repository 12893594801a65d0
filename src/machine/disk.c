/* --disk and --cdrom: from the text to an open back end, and its device. */
#include "machine/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "dev/ata/ahci.h"
#include "dev/virtio/virtio.h"
#include "host/block_image.h"
#include "host/block_raw.h"
#include "vm/device.h"

#define MAX_SERIAL 20 /* [virtio 5.2.6], and the same in ATA */
#define CD_SECTOR  2048u

enum { FORMAT_GUESS, FORMAT_RAW, FORMAT_QCOW2 };
enum { BUS_VIRTIO, BUS_AHCI, BUS_NVME };

struct settings {
	u32 bus, format, aio, queues, iops;
	u64 bw;
	bool ro, packed, backing;
	const char *id;
};

static const char *const buses[] = { "virtio", "ahci", "nvme", NULL };
static const char *const formats[] = { "auto", "raw", "qcow2", NULL };
/* As enum block_aio_kind. */
static const char *const aios[] = { "auto", "io_uring", "threads", NULL };

#define BOTH_PARAMS                                                                           \
	{ .key = "id", .kind = PARAM_STRING, .offset = offsetof(struct settings, id) },       \
		{ .key = "iops",                                                              \
		  .kind = PARAM_U32,                                                          \
		  .offset = offsetof(struct settings, iops),                                  \
		  .min = 1,                                                                   \
		  .max = 100000000 },                                                         \
		{ .key = "bw",                                                                \
		  .kind = PARAM_SIZE,                                                         \
		  .offset = offsetof(struct settings, bw),                                    \
		  .min = 4096,                                                                \
		  .max = 1ull << 40 },                                                        \
	{                                                                                     \
		.key = "aio", .kind = PARAM_CHOICE, .offset = offsetof(struct settings, aio), \
		.choices = aios                                                               \
	}

static const struct param cdrom_table[] = { BOTH_PARAMS, { .key = NULL } };

static const struct param table[] = {
	{ .key = "bus", .kind = PARAM_CHOICE, .offset = offsetof(struct settings, bus), .choices = buses },
	{ .key = "format",
	  .kind = PARAM_CHOICE,
	  .offset = offsetof(struct settings, format),
	  .choices = formats },
	{ .key = "ro", .kind = PARAM_FLAG, .offset = offsetof(struct settings, ro) },
	BOTH_PARAMS,
	{ .key = "queues",
	  .kind = PARAM_U32,
	  .offset = offsetof(struct settings, queues),
	  .min = 1,
	  .max = VIRTIO_MAX_QUEUES },
	{ .key = "backing", .kind = PARAM_FLAG, .offset = offsetof(struct settings, backing) },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

static int check_id(const char *what, const char *id, struct err *err)
{
	size_t len = id ? strlen(id) : 1;

	if (len < 1 || len > MAX_SERIAL)
		return err_set(err, -EINVAL, "%s: 'id' has %zu characters; 1 to %u are possible", what, len,
			       MAX_SERIAL);
	for (const char *p = id; p && *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return err_set(
				err, -EINVAL,
				"%s: character %zu of 'id' is a space, a control character or not ASCII",
				what, (size_t)(p - id) + 1);
	return 0;
}

/* The text's settings, as far as both options have them. */
static int parse(struct disk *disk, const char *what, const char *spec, const struct param *params,
		 struct settings *s, struct err *err)
{
	int r;

	*disk = (struct disk){ .text = strdup(spec) };
	if (!disk->text)
		return err_set(err, -ENOMEM, "no memory for %s", what);
	r = params_parse(what, params_first(disk->text), params, s, err);
	if (r == 0)
		r = check_id(what, s->id, err);
	if (r == 0 && !*disk->text)
		r = err_set(err, -EINVAL, "%s: no file is named; give %s FILE", what, what);
	disk->conf = (struct block_conf){ .serial = s->id, .iops = s->iops, .bytes_per_s = s->bw };
	return r;
}

int disk_open(struct disk *disk, const char *spec, unsigned queues, struct loop *loop, struct err *err)
{
	struct settings s = { 0 };
	struct block_raw_conf raw;
	int r = parse(disk, "--disk", spec, table, &s, err);

	if (r == 0 && s.format != FORMAT_QCOW2 && s.backing)
		r = err_set(err, -EINVAL,
			    "--disk: 'backing' is for images of the format qcow2; add format=qcow2");
	if (r == 0 && s.bus != BUS_VIRTIO && s.packed)
		r = err_set(err, -EINVAL, "--disk: 'packed' is for disks on bus=virtio, not on bus=%s",
			    buses[s.bus]);
	if (r == 0 && s.bus == BUS_AHCI && s.queues)
		r = err_set(err, -EINVAL, "--disk: a disk on bus=ahci has one queue; leave out 'queues'");
	if (r < 0)
		return r;
	disk->conf.queues = s.queues;
	/* An NVMe driver asks for as many as it wants. */
	if (!s.queues && s.bus == BUS_VIRTIO)
		disk->conf.queues = MIN(queues, (unsigned)VIRTIO_MAX_QUEUES);
	disk->bus = s.bus;
	disk->packed = s.packed;
	if (s.format == FORMAT_QCOW2) {
		const struct image_conf image = {
			.path = disk->text,
			.format = "qcow2",
			.read_only = s.ro,
			.backing = s.backing,
		};

		return block_image_open(&image, (enum block_aio_kind)s.aio, loop, &disk->block, err);
	}
	raw = (struct block_raw_conf){
		.path = disk->text,
		.read_only = s.ro,
		.aio = (enum block_aio_kind)s.aio,
		.probe = s.format == FORMAT_GUESS,
	};
	return block_raw_open(&raw, loop, &disk->block, err);
}

int disk_open_cdrom(struct disk *disk, const char *spec, struct loop *loop, struct err *err)
{
	struct settings s = { 0 };
	struct block_raw_conf raw;
	int r = parse(disk, "--cdrom", spec, cdrom_table, &s, err);

	if (r < 0)
		return r;
	disk->bus = BUS_AHCI;
	disk->cdrom = true;
	raw = (struct block_raw_conf){
		.path = disk->text,
		.read_only = true,
		.aio = (enum block_aio_kind)s.aio,
		.probe = true,
	};
	r = block_raw_open(&raw, loop, &disk->block, err);
	if (r == 0 && disk->block->size < CD_SECTOR)
		r = err_set(err, -EINVAL, "--cdrom: %s has %llu bytes, which are less than a sector's %u",
			    disk->text, (unsigned long long)disk->block->size, CD_SECTOR);
	return r;
}

/* All of bus=ahci is on one adapter. */
static int add_ahci(struct vm *vm, const struct disk *disks, unsigned nr, struct err *err)
{
	struct ata_conf ata[AHCI_PORTS] = { { 0 } };
	const struct device_conf conf = { .ata = ata };
	unsigned n = 0;

	for (unsigned i = 0; i < nr; i++) {
		if (disks[i].bus != BUS_AHCI)
			continue;
		if (n == AHCI_PORTS)
			return err_set(err, -EINVAL,
				       "at most %u disks on bus=ahci and CD-ROMs are possible together; put "
				       "others on bus=virtio",
				       AHCI_PORTS);
		ata[n++] = (struct ata_conf){ disks[i].block, &disks[i].conf, disks[i].cdrom };
	}
	return n ? device_new(vm, "ahci", &conf, NULL, err) : 0;
}

int disk_add_devices(struct vm *vm, const struct disk *disks, unsigned nr, struct err *err)
{
	static const char *const types[] = { [BUS_VIRTIO] = "virtio-blk", [BUS_NVME] = "nvme" };

	for (unsigned i = 0; i < nr; i++) {
		char id[16];
		const struct device_conf conf = {
			.id = id,
			.block = disks[i].block,
			.block_conf = &disks[i].conf,
			.packed = disks[i].packed,
		};
		int r;

		if (disks[i].bus == BUS_AHCI)
			continue;
		snprintf(id, sizeof(id), "disk%u", i);
		r = device_new(vm, types[disks[i].bus], &conf, NULL, err);
		if (r < 0)
			return r;
	}
	return add_ahci(vm, disks, nr, err);
}

void disk_close(struct disk *disk)
{
	if (disk->block)
		disk->block->ops->close(disk->block);
	free(disk->text);
	*disk = (struct disk){ 0 };
}
