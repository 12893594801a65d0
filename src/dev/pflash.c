/* Flash memory with Intel's command set, in which UEFI firmware keeps its variables.
 *
 * Documents: Intel StrataFlash Embedded Memory (P30) data sheet, 306666-11, cited as [P30 section]; the query structure is
 * JEDEC's JESD68.01, [CFI 4.3].
 *
 * How it works: a write is a command, or what an earlier one waits for; what is read depends on the last one. While that is the
 * array, the flash is memory like any ROM and reads cost nothing; a command takes the memory away (ram_rom_set_len()), so that
 * reads come here, and READ ARRAY brings it back. Programming clears bits, as flash does, and only erasing a block sets them.
 *
 *	FFH read array        10H, 40H program: the next write is the data
 *	70H read status       20H erase: the next write is D0H, in the block
 *	50H clear status      E8H buffered program: count - 1, the data, D0H
 *	90H read identifiers  60H lock bits: the next write is the kind; all blocks stay unlocked
 *	98H read query
 *
 * One chip of 8 bits, block size 4 KiB, as OVMF is built for. What has changed is handed to the store at READ ARRAY, when a
 * block is erased, and at the end.
 *
 * QUIRK(OVMF): clearing the status clears the ready bit too, until an operation sets it: by that OVMF tells flash from RAM.
 *
 * Omitted: suspend (everything is done at once), protection registers, voltage errors. Threads: vCPUs, under the device's lock.
 */
#include "dev/pflash.h"

#include <errno.h>

#include "base/bits.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define CMD_PROGRAM_ALT  0x10
#define CMD_ERASE        0x20
#define CMD_PROGRAM      0x40
#define CMD_CLEAR_STATUS 0x50
#define CMD_LOCK         0x60
#define CMD_READ_STATUS  0x70
#define CMD_READ_ID      0x90
#define CMD_READ_QUERY   0x98
#define CMD_CONFIRM      0xd0
#define CMD_BUFFERED     0xe8
#define CMD_READ_ARRAY   0xff

/* Status [P30 10.1] */
#define ST_READY         0x80
#define ST_ERASE_ERROR   0x20
#define ST_PROGRAM_ERROR 0x10
#define ST_ALL           (ST_READY | ST_ERASE_ERROR | ST_PROGRAM_ERROR)

#define BUFFER_LOG2 8
#define BUFFER_SIZE (1u << BUFFER_LOG2)

/* What is read. */
enum mode { MODE_ARRAY, MODE_STATUS, MODE_ID, MODE_QUERY, NR_MODES };
/* What the next write is. */
enum waiting {
	WAIT_COMMAND,
	WAIT_DATA,
	WAIT_ERASE,
	WAIT_LOCK,
	WAIT_COUNT,
	WAIT_BUFFER,
	WAIT_CONFIRM,
	NR_WAITS
};

struct pflash {
	struct device dev;
	struct region region;
	bool added;
	u64 size;
	u8 *data;
	void (*save)(void *opaque, u64 offset, const u8 *data, u64 len);
	void *save_opaque;
	u64 dirty_from, dirty_to; /* what the store has not seen */
	u64 programs, erases;     /* statistics */

	u8 mode, waiting, status;
	u32 buffered, wanted;
	u32 buffer_at; /* offset of the first byte */
	u8 buffer[BUFFER_SIZE];
};

static gpa_t base_of(const struct pflash *f)
{
	return RAM_HOLE_END - f->dev.vm->ram.rom_size;
}

/* --- contents --- */
static void save_changes(struct pflash *f)
{
	if (f->save && f->dirty_from < f->dirty_to)
		f->save(f->save_opaque, f->dirty_from, f->data + f->dirty_from, f->dirty_to - f->dirty_from);
	f->dirty_from = f->size;
	f->dirty_to = 0;
}

static void changed(struct pflash *f, u64 offset, u64 len)
{
	f->dirty_from = MIN(f->dirty_from, offset);
	f->dirty_to = MAX(f->dirty_to, offset + len);
	ram_code_written(&f->dev.vm->ram, base_of(f) + offset, len);
}

static void program(struct pflash *f, u64 offset, const u8 *bytes, u64 len)
{
	f->status |= ST_READY;
	if (offset >= f->size || len > f->size - offset) {
		f->status |= ST_PROGRAM_ERROR;
		return;
	}
	for (u64 i = 0; i < len; i++)
		f->data[offset + i] &= bytes[i];
	f->programs++;
	changed(f, offset, len);
}

static void erase(struct pflash *f, u64 offset)
{
	offset = ALIGN_DOWN(offset, (u64)PFLASH_BLOCK);
	memset(f->data + offset, 0xff, PFLASH_BLOCK);
	f->erases++;
	f->status |= ST_READY;
	changed(f, offset, PFLASH_BLOCK);
	save_changes(f);
}

/* --- reading --- */
static void map_memory(struct pflash *f)
{
	struct vm *vm = f->dev.vm;

	ram_rom_set_len(&vm->ram, vm->ram.rom_size - (f->mode == MODE_ARRAY ? 0 : f->size));
	vm_memory_changed(vm);
}

static void set_mode(struct pflash *f, enum mode mode)
{
	bool same = (f->mode == MODE_ARRAY) == (mode == MODE_ARRAY);

	f->mode = mode;
	if (!same)
		map_memory(f);
}

static u8 query(const struct pflash *f, u64 offset)
{
	u64 blocks = f->size / PFLASH_BLOCK - 1;
	const u8 table[] = {
		[0x10] = 'Q',
		[0x11] = 'R',
		[0x12] = 'Y',
		[0x13] = 1, /* Intel's extended command set */
		[0x15] = 0x31,
		[0x1b] = 0x45, /* 4.5 V to 5.5 V */
		[0x1c] = 0x55,
		[0x1f] = 1, /* times, as powers of two, and how much longer at most */
		[0x20] = 1,
		[0x21] = 1,
		[0x23] = 1,
		[0x24] = 1,
		[0x25] = 1,
		[0x27] = (u8)(63 - __builtin_clzll(f->size)),
		[0x2a] = BUFFER_LOG2,
		[0x2c] = 1, /* one region of equal blocks: how many less one, size in 256 bytes */
		[0x2d] = (u8)blocks,
		[0x2e] = (u8)(blocks >> 8),
		[0x2f] = (u8)(PFLASH_BLOCK / 256),
		[0x30] = (u8)(PFLASH_BLOCK / 256 >> 8),
		[0x31] = 'P',
		[0x32] = 'R',
		[0x33] = 'I',
		[0x34] = '1',
		[0x35] = '0',
	};

	offset &= 0xff;
	return offset < sizeof(table) ? table[offset] : 0;
}

static u8 read_byte(const struct pflash *f, u64 offset)
{
	static const u8 id[] = { 0x89, 0x18 }; /* Intel; then by block offset 2: unlocked */

	switch (f->mode) {
	case MODE_ARRAY: return f->data[offset];
	case MODE_ID: return (offset & 0xff) < sizeof(id) ? id[offset & 0xff] : 0;
	case MODE_QUERY: return query(f, offset);
	default: return f->status;
	}
}

static u64 pflash_read(void *opaque, u64 offset, unsigned size)
{
	struct pflash *f = opaque;
	u64 v = 0;

	for (unsigned i = 0; i < size && offset + i < f->size; i++)
		v |= (u64)read_byte(f, offset + i) << 8 * i;
	return v;
}

/* --- writing --- */
static void command(struct pflash *f, u8 cmd)
{
	static const struct {
		u8 cmd, mode, waiting;
	} table[] = {
		{ CMD_READ_STATUS, MODE_STATUS, WAIT_COMMAND },
		{ CMD_CLEAR_STATUS, MODE_STATUS, WAIT_COMMAND },
		{ CMD_READ_ID, MODE_ID, WAIT_COMMAND },
		{ CMD_READ_QUERY, MODE_QUERY, WAIT_COMMAND },
		{ CMD_PROGRAM, MODE_STATUS, WAIT_DATA },
		{ CMD_PROGRAM_ALT, MODE_STATUS, WAIT_DATA },
		{ CMD_ERASE, MODE_STATUS, WAIT_ERASE },
		{ CMD_LOCK, MODE_STATUS, WAIT_LOCK },
		{ CMD_BUFFERED, MODE_STATUS, WAIT_COUNT },
	};
	unsigned i = 0;

	while (i < ARRAY_SIZE(table) && table[i].cmd != cmd)
		i++;
	f->waiting = WAIT_COMMAND;
	if (i == ARRAY_SIZE(table)) { /* READ ARRAY, and what is no command */
		set_mode(f, MODE_ARRAY);
		save_changes(f);
		return;
	}
	set_mode(f, table[i].mode);
	f->waiting = table[i].waiting;
	if (cmd == CMD_CLEAR_STATUS)
		f->status = 0;
	else if (cmd == CMD_BUFFERED)
		f->status |= ST_READY; /* the buffer is free */
}

static void buffer_byte(struct pflash *f, u64 offset, u8 byte)
{
	if (!f->buffered)
		f->buffer_at = (u32)offset;
	f->buffer[f->buffered++] = byte;
	if (f->buffered == f->wanted)
		f->waiting = WAIT_CONFIRM;
}

/* One byte, or the low one of what is no data. */
static void write_byte(struct pflash *f, u64 offset, u8 byte)
{
	u8 waiting = f->waiting;

	if (waiting != WAIT_BUFFER)
		f->waiting = WAIT_COMMAND;
	switch (waiting) {
	case WAIT_COMMAND: command(f, byte); break;
	case WAIT_DATA: program(f, offset, &byte, 1); break;
	case WAIT_ERASE:
		if (byte == CMD_CONFIRM)
			erase(f, offset);
		else
			f->status |= ST_READY | ST_ERASE_ERROR | ST_PROGRAM_ERROR; /* a wrong sequence */
		break;
	case WAIT_LOCK: f->status |= ST_READY; break;
	case WAIT_COUNT:
		f->buffered = 0;
		f->wanted = byte + 1u;
		f->waiting = WAIT_BUFFER;
		break;
	case WAIT_BUFFER: buffer_byte(f, offset, byte); break;
	case WAIT_CONFIRM:
		if (byte == CMD_CONFIRM)
			program(f, f->buffer_at, f->buffer, f->buffered);
		else
			f->status |= ST_READY | ST_ERASE_ERROR | ST_PROGRAM_ERROR;
		break;
	default: break;
	}
}

static void pflash_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pflash *f = opaque;
	/* Data may be wider than the chip; a command's upper bytes mean nothing. */
	bool data = f->waiting == WAIT_DATA || f->waiting == WAIT_BUFFER;
	u8 bytes[8];

	if (!data || size == 1) {
		write_byte(f, offset, (u8)val);
		return;
	}
	st64(bytes, val);
	if (f->waiting == WAIT_DATA) {
		f->waiting = WAIT_COMMAND;
		program(f, offset, bytes, size);
		return;
	}
	for (unsigned i = 0; i < size && f->waiting == WAIT_BUFFER; i++)
		write_byte(f, offset + i, bytes[i]);
}

static const struct region_ops pflash_ops = { .read = pflash_read, .write = pflash_write, .max_size = 8 };

/* --- the device --- */
void pflash_set_store(struct device *dev, void (*save)(void *opaque, u64 offset, const u8 *data, u64 len),
		      void *opaque)
{
	struct pflash *f = container_of(dev, struct pflash, dev);

	f->save = save;
	f->save_opaque = opaque;
}

static int pflash_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pflash *f = container_of(dev, struct pflash, dev);
	struct ram *ram = &dev->vm->ram;
	int r;

	if (!conf->base || conf->base > ram->rom_size || conf->base % PFLASH_BLOCK)
		return err_set(
			err, -EINVAL,
			"flash memory has blocks of %u bytes in %llu of ROM, and %llu are not to be had",
			PFLASH_BLOCK, (unsigned long long)ram->rom_size, (unsigned long long)conf->base);
	f->size = conf->base;
	f->data = ram->rom_ptr;
	f->dirty_from = f->size;
	f->region = (struct region){ "flash", &pflash_ops, f, dev->lock, BUS_MMIO, base_of(f), f->size };
	r = bus_add(&dev->vm->bus, &f->region);
	if (r < 0)
		return err_sys(err, r, "flash memory cannot be placed at %#llx",
			       (unsigned long long)f->region.base);
	f->added = true;
	return 0;
}

/* The contents stay. */
static void pflash_reset(struct device *dev, enum reset_kind kind)
{
	struct pflash *f = container_of(dev, struct pflash, dev);

	save_changes(f);
	f->mode = MODE_ARRAY;
	map_memory(f);
	f->waiting = WAIT_COMMAND;
	f->status = ST_READY;
	f->buffered = f->wanted = f->buffer_at = 0;
	memset(f->buffer, 0, sizeof(f->buffer));
}

static const struct state_field pflash_state[] = {
	STATE_U8(pflash, mode),    STATE_U8(pflash, waiting),
	STATE_U8(pflash, status),  STATE_U32(pflash, buffered),
	STATE_U32(pflash, wanted), STATE_U32(pflash, buffer_at),
	STATE_U8S(pflash, buffer), STATE_END,
};

static int pflash_post_load(struct device *dev, struct err *err)
{
	struct pflash *f = container_of(dev, struct pflash, dev);

	if (f->mode >= NR_MODES || f->waiting >= NR_WAITS || f->status & ~ST_ALL || f->wanted > BUFFER_SIZE ||
	    f->buffered > f->wanted || (f->waiting == WAIT_BUFFER && f->buffered == f->wanted) ||
	    (f->waiting == WAIT_CONFIRM && f->buffered != f->wanted))
		return err_set(err, -EINVAL,
			       "the state of %s is impossible: mode %u, waiting for %u, %u of %u bytes",
			       dev->id, f->mode, f->waiting, f->buffered, f->wanted);
	map_memory(f);
	return 0;
}

static unsigned pflash_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	struct pflash *f = container_of(dev, struct pflash, dev);

	ret[0] = (struct device_stat){ "programs", f->programs };
	ret[1] = (struct device_stat){ "erases", f->erases };
	return 2;
}

static void pflash_fini(struct device *dev)
{
	struct pflash *f = container_of(dev, struct pflash, dev);

	if (!f->added)
		return;
	save_changes(f);
	bus_del(&dev->vm->bus, &f->region);
}

const struct device_ops pflash_device = {
	.name = "pflash",
	.size = sizeof(struct pflash),
	.init = pflash_init,
	.reset = pflash_reset,
	.stats = pflash_stats,
	.state = pflash_state,
	.post_load = pflash_post_load,
	.fini = pflash_fini,
};
