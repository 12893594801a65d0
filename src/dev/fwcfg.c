/* The firmware configuration device.
 *
 * Document: QEMU Firmware Configuration (fw_cfg) Device, docs/specs/fw_cfg.rst of QEMU 7.2, cited as [fw_cfg <heading>]. It is
 * what SeaBIOS, OVMF, coreboot and others expect of a virtual machine, so there is nothing to be gained from another one.
 *
 * How it works: an item is a key of 16 bits and some bytes. Writing the key to port 510H selects it, and each read of port 511H
 * gives its next byte; behind its end, and where there is no such item, zeros. Named items, files, have keys from 20H on, which
 * the directory (key 19H, big-endian, made when it is selected) tells. The DMA interface does the same in blocks: the guest
 * writes the address of a descriptor (control, length, address, big-endian) to 514H and 518H, and the device carries it out
 * within the second write.
 *
 * A hostile guest: of a descriptor each field is read once. It is one transfer and names no other descriptor, so there are no
 * loops. Memory is reached by dma_*() only, which refuses what is not RAM, and before a byte moves; a transfer that is longer
 * than any item could be is refused too, so that none takes long. No item can be written to: that is what the error bit is for.
 *
 * Omitted: the interface by MMIO, which is for machines without ports; writable items. Threads: vCPUs, under the device's
 * lock; filling on the main thread while none runs.
 */
#include "dev/fwcfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/dma.h"
#include "vm/vm.h"

#define FWCFG_PORT 0x510
#define FWCFG_LEN  12
#define MAX_ITEMS  48
#define NO_ITEM    0xffff /* bits 14 and 15 of a key are flags: this one is never an item's */

/* Offsets of the ports. */
#define R_SELECT 0
#define R_DATA   1
#define R_DMA    4

#define KEY_WRITE BIT(14) /* once: the item is selected for writing */

#define ID_TRADITIONAL BIT(0)
#define ID_DMA         BIT(1)

/* The descriptor [fw_cfg, DMA interface]. */
#define DMA_ERROR  BIT(0)
#define DMA_READ   BIT(1)
#define DMA_SKIP   BIT(2)
#define DMA_SELECT BIT(3)
#define DMA_WRITE  BIT(4)
#define DMA_SIZE   16
#define DMA_MAX    (64 * MiB) /* of one transfer; more than any item has */

#define DIR_ENTRY 64

static const char signature[] = "QEMU";
static const char dma_signature[8] = { 'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G' };

struct item {
	u16 key;
	char name[FWCFG_MAX_NAME]; /* "" for those that are not files */
	u8 *data;
	u32 len;
	void (*fill)(void *opaque, u8 *data);
	void *opaque;
};

struct fwcfg {
	struct device dev;
	struct region region;
	bool added;
	struct item item[MAX_ITEMS];
	unsigned nr;
	u8 dir[4 + MAX_ITEMS * DIR_ENTRY]; /* as it was when it was selected */
	u32 dir_len;
	u64 transfers; /* statistics */

	u16 key;
	u32 pos; /* in the item that is selected, at most its length */
	u32 dma_high;
};

/* --- items --- */
static struct item *find(struct fwcfg *f, u16 key)
{
	for (unsigned i = 0; i < f->nr; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static int add(struct fwcfg *f, const struct item *what, const void *data, struct err *err)
{
	struct item *item = find(f, what->key);
	u8 *copy = calloc(1, what->len ? what->len : 1);

	if (!copy)
		return err_set(err, -ENOMEM, "no memory for %u bytes of firmware configuration", what->len);
	if (data)
		memcpy(copy, data, what->len);
	if (!item) {
		if (f->nr == MAX_ITEMS) {
			free(copy);
			return err_set(err, -ENOSPC, "firmware can be told %u things at most", MAX_ITEMS);
		}
		item = &f->item[f->nr++];
	} else {
		free(item->data);
	}
	*item = *what;
	item->data = copy;
	return 0;
}

int fwcfg_add(struct device *dev, u16 key, const void *data, u32 len, struct err *err)
{
	return add(container_of(dev, struct fwcfg, dev), &(const struct item){ .key = key, .len = len }, data,
		   err);
}

static int add_file(struct fwcfg *f, struct item *what, const char *name, const void *data, struct err *err)
{
	size_t len = strlen(name);

	if (len >= sizeof(what->name))
		return err_set(err, -EINVAL,
			       "the name '%s' is too long for firmware, which takes %zu characters", name,
			       sizeof(what->name) - 1);
	memcpy(what->name, name, len + 1);
	what->key = FWCFG_FILE_FIRST;
	for (unsigned i = 0; i < f->nr; i++) {
		if (!strcmp(f->item[i].name, name)) {
			what->key = f->item[i].key;
			break;
		}
		if (f->item[i].name[0])
			what->key++;
	}
	return add(f, what, data, err);
}

int fwcfg_add_file(struct device *dev, const char *name, const void *data, u32 len, struct err *err)
{
	return add_file(container_of(dev, struct fwcfg, dev), &(struct item){ .len = len }, name, data, err);
}

int fwcfg_add_number(struct device *dev, u16 key, unsigned size, u64 val, struct err *err)
{
	u8 bytes[8];

	st64(bytes, val);
	return fwcfg_add(dev, key, bytes, size, err);
}

int fwcfg_add_number_file(struct device *dev, const char *name, u64 val, struct err *err)
{
	u8 bytes[8];

	st64(bytes, val);
	return fwcfg_add_file(dev, name, bytes, sizeof(bytes), err);
}

int fwcfg_add_live_file(struct device *dev, const char *name, u32 len, void (*fill)(void *opaque, u8 *data),
			void *opaque, struct err *err)
{
	return add_file(container_of(dev, struct fwcfg, dev),
			&(struct item){ .len = len, .fill = fill, .opaque = opaque }, name, NULL, err);
}

/* Number of files, then for each its length, key and name [fw_cfg, File Directory]. */
static void make_dir(struct fwcfg *f)
{
	u32 n = 0;

	for (unsigned i = 0; i < f->nr; i++) {
		const struct item *item = &f->item[i];
		u8 *e = f->dir + 4 + n * DIR_ENTRY;

		if (!item->name[0])
			continue;
		st32be(e, item->len);
		st16be(e + 4, item->key);
		st16be(e + 6, 0);
		memcpy(e + 8, item->name, sizeof(item->name));
		n++;
	}
	st32be(f->dir, n);
	f->dir_len = 4 + n * DIR_ENTRY;
}

/* The bytes that are selected. */
static const u8 *selected(struct fwcfg *f, u32 *ret_len)
{
	const struct item *item;

	if (f->key == FWCFG_FILE_DIR) {
		*ret_len = f->dir_len;
		return f->dir;
	}
	item = find(f, f->key);
	*ret_len = item ? item->len : 0;
	return item ? item->data : NULL;
}

static void select_item(struct fwcfg *f, u16 key)
{
	const struct item *item;

	f->key = key & (u16)~KEY_WRITE;
	f->pos = 0;
	if (f->key == FWCFG_FILE_DIR)
		make_dir(f);
	item = find(f, f->key);
	if (f->key == FWCFG_RAM_SIZE || (item && !strcmp(item->name, "etc/e820")))
		timeline_note(f->dev.vm, TIMELINE_MEMORY);
	if (item && item->fill)
		item->fill(item->opaque, item->data);
}

static u8 next_byte(struct fwcfg *f)
{
	u32 len;
	const u8 *data = selected(f, &len);

	return f->pos < len ? data[f->pos++] : 0;
}

/* --- DMA --- */
/* len bytes of the item to addr; zeros where it ends. */
static int dma_out(struct fwcfg *f, u64 addr, u32 len)
{
	u32 have, n;
	const u8 *data = selected(f, &have);
	u8 *p = len <= DMA_MAX ? dma_map(f->dev.vm, addr, len, true) : NULL;

	if (!p)
		return len ? -EFAULT : 0;
	n = MIN(len, have - f->pos);
	if (n)
		memcpy(p, data + f->pos, n);
	memset(p + n, 0, len - n);
	f->pos += n;
	dma_written(f->dev.vm, p, len);
	return 0;
}

static void skip(struct fwcfg *f, u32 len)
{
	u32 have;

	selected(f, &have);
	f->pos += MIN(len, have - f->pos);
}

static void dma_run(struct fwcfg *f, u64 addr)
{
	u8 desc[DMA_SIZE], result[4];
	u32 control, len;
	int rc = 0;

	f->transfers++;
	if (dma_read(f->dev.vm, addr, desc, sizeof(desc)) < 0)
		return;
	control = ld32be(desc);
	len = ld32be(desc + 4);
	if (control & DMA_SELECT)
		select_item(f, (u16)(control >> 16));
	if (control & DMA_READ)
		rc = dma_out(f, ld64be(desc + 8), len);
	else if (control & DMA_WRITE)
		rc = -EPERM;
	else if (control & DMA_SKIP)
		skip(f, len);
	st32be(result, rc < 0 ? DMA_ERROR : 0);
	dma_write(f->dev.vm, addr, result, sizeof(result));
}

/* --- ports --- */
static u64 fwcfg_read(void *opaque, u64 offset, unsigned size)
{
	struct fwcfg *f = opaque;
	u64 v = 0;

	if (offset == R_DATA && size == 1)
		return next_byte(f);
	if (offset < R_DMA)
		return bits_mask(size);
	for (unsigned i = 0; i < size && offset - R_DMA + i < sizeof(dma_signature); i++)
		v |= (u64)(u8)dma_signature[offset - R_DMA + i] << 8 * i;
	return v;
}

static void fwcfg_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct fwcfg *f = opaque;

	if (offset == R_SELECT && size == 2) {
		select_item(f, (u16)val);
	} else if (offset == R_DMA && size == 4) {
		f->dma_high = __builtin_bswap32((u32)val);
	} else if (offset == R_DMA + 4 && size == 4) {
		u64 addr = (u64)f->dma_high << 32 | __builtin_bswap32((u32)val);

		f->dma_high = 0;
		dma_run(f, addr);
	}
}

static const struct region_ops fwcfg_ops = { .read = fwcfg_read, .write = fwcfg_write, .max_size = 4 };

/* --- the device --- */
static int fwcfg_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);
	int r;

	f->region = (struct region){ "fw_cfg", &fwcfg_ops, f, dev->lock, BUS_PIO, FWCFG_PORT, FWCFG_LEN };
	r = bus_add(&dev->vm->bus, &f->region);
	if (r < 0)
		return err_sys(err, r, "the firmware configuration device cannot be placed at port %#x",
			       FWCFG_PORT);
	f->added = true;
	r = fwcfg_add(dev, FWCFG_SIGNATURE, signature, sizeof(signature) - 1, err);
	return r < 0 ? r : fwcfg_add_number(dev, FWCFG_ID, 4, ID_TRADITIONAL | ID_DMA, err);
}

static void fwcfg_reset(struct device *dev, enum reset_kind kind)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	f->key = NO_ITEM & ~KEY_WRITE;
	f->pos = 0;
	f->dma_high = 0;
}

static const struct state_field fwcfg_state[] = {
	STATE_U16(fwcfg, key),
	STATE_U32(fwcfg, pos),
	STATE_U32(fwcfg, dma_high),
	STATE_END,
};

static int fwcfg_post_load(struct device *dev, struct err *err)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);
	u32 pos = f->pos, len;

	if (f->key & KEY_WRITE)
		return err_set(err, -EINVAL, "the state of %s has the impossible key %#x", dev->id, f->key);
	select_item(f, f->key);
	selected(f, &len);
	if (pos > len)
		return err_set(err, -EINVAL, "the state of %s is at byte %u of an item that has %u", dev->id,
			       pos, len);
	f->pos = pos;
	return 0;
}

static unsigned fwcfg_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	ret[0] = (struct device_stat){ "dma_transfers", f->transfers };
	return 1;
}

static void fwcfg_fini(struct device *dev)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	if (f->added)
		bus_del(&dev->vm->bus, &f->region);
	for (unsigned i = 0; i < f->nr; i++)
		free(f->item[i].data);
}

const struct device_ops fwcfg_device = {
	.name = "fwcfg",
	.size = sizeof(struct fwcfg),
	.init = fwcfg_init,
	.reset = fwcfg_reset,
	.stats = fwcfg_stats,
	.state = fwcfg_state,
	.post_load = fwcfg_post_load,
	.fini = fwcfg_fini,
};
