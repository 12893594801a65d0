/* An ATA disk: its commands.
 *
 * Document: ATA/ATAPI Command Set - 3, cited as [ACS-3 7.x] (commands), and Serial ATA 3.1, [SATA 13.6] (queues).
 *
 * How it works: a table says of each command how it counts, how it moves data and which function does it; everything that
 * is not in the table is aborted [ACS-3 6.2.1]. Sectors have 512 bytes, in blocks of 4 KiB. Queued commands that fail
 * are described in the log for that purpose, which the driver reads before it goes on [SATA 13.7]. Where the driver
 * switches the write cache off, each write is followed by a flush, as it is where a command asks for that.
 *
 * A disk that the user has made read-only aborts every command that would write (hostile case G28).
 *
 * Omitted: addresses by cylinder, head and sector, which no driver for serial ATA uses (aborted); security, streaming,
 * self-tests and power management beyond the commands that always succeed; contents of SMART, which are those of
 * a disk without a flaw.
 */
#include <string.h>

#include "base/bits.h"
#include "dev/ata/ata.h"

#define SECTOR       512u
#define LBA28_MAX    0x0fffffffull
#define QUEUE_DEPTH  32
#define MAX_MULTIPLE 16
#define TRIM_BLOCKS  1 /* of ranges, per command */
#define TRIM_RANGES  (TRIM_BLOCKS * SECTOR / 8)
#define MODE_UDMA5   0x45
#define FUA          BIT(7) /* device register of a queued command */

/* Flags of commands */
#define F_EXT   BIT(0) /* 48 bits */
#define F_WRITE BIT(1)
#define F_PIO   BIT(2)
#define F_FUA   BIT(3)
#define F_QUEUE BIT(4)

/* SET FEATURES [ACS-3 7.45] */
#define SET_CACHE_ON  0x02
#define SET_MODE      0x03
#define SET_CACHE_OFF 0x82
#define SET_LOOKAHEAD 0xaa
#define SET_NO_AHEAD  0x55

/* SMART [ACS-3 7.48] */
#define SMART_DATA      0xd0
#define SMART_AUTOSAVE  0xd2
#define SMART_LOG       0xd5
#define SMART_ENABLE    0xd8
#define SMART_DISABLE   0xd9
#define SMART_STATUS    0xda
#define SMART_SIGNATURE 0xc24f00u

/* Logs [ACS-3 A.1] */
#define LOG_DIRECTORY 0x00
#define LOG_NCQ       0x10

struct row {
	u8 command, flags;
	enum ata_next (*fn)(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row);
};

static u64 lba28(const u8 *fis)
{
	return (u64)(ld32(fis + FIS_LBA) & LBA28_MAX);
}

static u64 lba48(const u8 *fis)
{
	return (ld32(fis + FIS_LBA) & 0xffffff) | (u64)(ld32(fis + FIS_LBA_EXP) & 0xffffff) << 24;
}

static u8 *page(struct ata_drive *d)
{
	return memset(d->buf, 0, SECTOR);
}

static enum ata_next give_page(struct ata_cmd *cmd)
{
	cmd->protocol = ATA_PIO_IN;
	cmd->buf_len = SECTOR;
	return ATA_GIVE;
}

static enum ata_next flush(struct ata_cmd *cmd)
{
	cmd->flush = false;
	cmd->op = BLOCK_FLUSH;
	cmd->offset = cmd->len = 0;
	return ATA_BLOCK;
}

/* ---- data ---- */

/* Into cmd->offset and cmd->len; false: it has failed. A count of 0 stands for the largest. */
static bool range_of(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	const u8 *fis = cmd->fis;
	u64 lba = row->flags & F_EXT ? lba48(fis) : lba28(fis), count;

	if (row->flags & F_QUEUE)
		count = fis[FIS_FEATURE] | (u32)fis[FIS_FEAT_EXP] << 8;
	else
		count = fis[FIS_COUNT] | (row->flags & F_EXT ? (u32)fis[FIS_COUNT_EXP] << 8 : 0);
	if (!count)
		count = row->flags & F_EXT ? 0x10000 : 0x100;
	if (!(fis[FIS_DEVICE] & ATA_LBA_MODE)) {
		ata_fail(cmd, ATA_ABRT);
		return false;
	}
	if (!drive_range(&d->disk, lba, count * SECTOR, &cmd->offset)) {
		ata_fail(cmd, ATA_IDNF);
		return false;
	}
	cmd->len = count * SECTOR;
	return true;
}

static enum ata_next transfer(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	bool write = row->flags & F_WRITE;

	if (row->flags & F_QUEUE)
		cmd->protocol = ATA_QUEUED;
	else if (row->flags & F_PIO && !write)
		cmd->protocol = ATA_PIO_IN;
	if (write && d->disk.block->read_only)
		return ata_fail(cmd, ATA_ABRT);
	if (!range_of(d, cmd, row))
		return ATA_END;
	cmd->op = write ? BLOCK_WRITE : BLOCK_READ;
	cmd->flush = write && (!d->write_cache || row->flags & F_FUA ||
			       (row->flags & F_QUEUE && cmd->fis[FIS_DEVICE] & FUA));
	return ATA_BLOCK;
}

/* READ and WRITE MULTIPLE need a size of blocks first [ACS-3 7.24]. */
static enum ata_next multiple(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	return d->multiple ? transfer(d, cmd, row) : ata_fail(cmd, ATA_ABRT);
}

/* Whether it can be read is what the host says when it is. */
static enum ata_next verify(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	range_of(d, cmd, row);
	return ATA_END;
}

static enum ata_next flush_cache(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	return flush(cmd);
}

/* DATA SET MANAGEMENT, of which there is TRIM [ACS-3 7.5] */
static enum ata_next trim(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	unsigned blocks = cmd->fis[FIS_COUNT] | (unsigned)cmd->fis[FIS_COUNT_EXP] << 8;

	if (cmd->fis[FIS_FEATURE] != 1 || blocks < 1 || blocks > TRIM_BLOCKS || d->disk.block->read_only)
		return ata_fail(cmd, ATA_ABRT);
	cmd->op = BLOCK_DISCARD;
	cmd->buf_len = blocks * SECTOR;
	return ATA_TAKE;
}

/* The next range of the list that is not empty. */
static enum ata_next trim_next(struct ata_drive *d, struct ata_cmd *cmd)
{
	while (cmd->at < TRIM_RANGES) {
		u64 range = ld64(d->buf + 8u * cmd->at++), count = range >> 48;

		if (!count)
			continue;
		if (!drive_range(&d->disk, range & 0xffffffffffff, count * SECTOR, &cmd->offset))
			return ata_fail(cmd, ATA_IDNF | ATA_ABRT);
		cmd->len = count * SECTOR;
		return ATA_BLOCK;
	}
	return ATA_END;
}

/* ---- what it is ---- */

/* IDENTIFY DEVICE [ACS-3 7.12.7]; words by their numbers. */
static enum ata_next identify(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	u64 sectors = d->disk.block->size / SECTOR;
	u8 *b = page(d);
	const struct {
		u8 word;
		u16 value;
	} words[] = {
		{ 0, 0x0040 }, /* fixed */
		{ 1, 16383 },  /* what stands there for all large disks */
		{ 3, 16 },
		{ 6, 63 },
		{ 47, 0x8000 | MAX_MULTIPLE },
		{ 49, 0x2f00 }, /* DMA, LBA, IORDY, standard standby timer */
		{ 50, 0x4000 },
		{ 53, 0x0006 }, /* words 64 to 70 and 88 are valid */
		{ 59, d->multiple ? (u16)(0x0100 | d->multiple) : 0 },
		{ 63, (u16)(0x0007 | (d->mode >> 3 == 4 ? BIT(8 + (d->mode & 7)) : 0)) },
		{ 64, 0x0003 },
		{ 65, 120 }, /* ns: cycle times */
		{ 66, 120 },
		{ 67, 120 },
		{ 68, 120 },
		{ 75, QUEUE_DEPTH - 1 },
		{ 76, 0x0106 }, /* 1.5 and 3 Gb/s, NCQ */
		{ 80, 0x07f0 }, /* up to ACS-3 */
		{ 82, 0x4061 }, /* NOP, look-ahead, write cache, SMART */
		{ 83, 0x7400 }, /* FLUSH CACHE and EXT, 48 bits */
		{ 84, 0x4060 }, /* FUA, logs */
		{ 85, (u16)(0x4040 | (d->write_cache ? 0x20 : 0) | d->smart) },
		{ 86, 0xb400 }, /* words 119 and 120 are valid; as word 83 */
		{ 87, 0x4060 },
		{ 88, (u16)(0x003f | (d->mode >> 3 == 8 ? BIT(8 + (d->mode & 7)) : 0)) },
		{ 105, TRIM_BLOCKS },
		{ 106, 0x6003 }, /* 2^3 logical sectors per physical one */
		{ 119, 0x4000 },
		{ 120, 0x4000 },
		{ 169, d->disk.block->read_only ? 0 : 1 },
		{ 209, 0x4000 }, /* aligned */
		{ 217, 1 },      /* nothing rotates */
		{ 222, 0x103f }, /* serial, up to SATA 3.0 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		st16(b + 2 * words[i].word, words[i].value);
	ata_text(b + 2 * 10, d->disk.serial, 20);
	ata_text(b + 2 * 23, "1", 8);
	ata_text(b + 2 * 27, "bothy disk", 40);
	st32(b + 2 * 60, (u32)MIN(sectors, LBA28_MAX));
	st64(b + 2 * 100, MIN(sectors, 0xffffffffffffull));
	b[2 * 255] = 0xa5;
	ata_checksum(b);
	return give_page(cmd);
}

static enum ata_next read_log(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	const u8 *fis = cmd->fis;
	unsigned pages = fis[FIS_COUNT] | (unsigned)fis[FIS_COUNT_EXP] << 8;
	u8 *b = page(d);

	if (pages != 1 || fis[FIS_LBA + 1] || fis[FIS_LBA_EXP + 1])
		return ata_fail(cmd, ATA_ABRT);
	switch (fis[FIS_LBA]) {
	case LOG_DIRECTORY: /* [ACS-3 A.3] */
		st16(b, 1);
		st16(b + 2 * LOG_NCQ, 1);
		break;
	case LOG_NCQ:        /* [ACS-3 A.14]; reading it clears it */
		b[0] = 0x80; /* not queued: there is nothing to tell */
		if (d->log_valid)
			memcpy(b, d->log, sizeof(d->log));
		d->log_valid = false;
		ata_checksum(b);
		break;
	default: return ata_fail(cmd, ATA_ABRT);
	}
	return give_page(cmd);
}

/* A queued command has failed. */
static void write_log(struct ata_drive *d, const struct ata_cmd *cmd)
{
	d->log_valid = true;
	memset(d->log, 0, sizeof(d->log));
	d->log[0] = (u8)cmd->tag;
	d->log[2] = cmd->status;
	d->log[3] = cmd->error;
	memcpy(d->log + 4, cmd->fis + FIS_LBA, 8);
	memcpy(d->log + 12, cmd->fis + FIS_COUNT, 2);
}

static enum ata_next smart(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	const u8 *fis = cmd->fis;
	u32 key = ld32(fis + FIS_LBA) >> 8 & 0xffff;

	if (key != SMART_SIGNATURE >> 8 || (!d->smart && fis[FIS_FEATURE] != SMART_ENABLE))
		return ata_fail(cmd, ATA_ABRT);
	switch (fis[FIS_FEATURE]) {
	case SMART_ENABLE: d->smart = true; return ATA_END;
	case SMART_DISABLE: d->smart = false; return ATA_END;
	case SMART_AUTOSAVE: return ATA_END;
	case SMART_STATUS: return ATA_END; /* the signature stays as it is: no threshold is exceeded */
	case SMART_DATA:
		st16(page(d), 16); /* the structure's revision; no attribute */
		ata_checksum(d->buf);
		return give_page(cmd);
	case SMART_LOG:
		/* The directory, in which there is none. */
		if (fis[FIS_LBA] != LOG_DIRECTORY || fis[FIS_COUNT] != 1)
			return ata_fail(cmd, ATA_ABRT);
		st16(page(d), 1);
		return give_page(cmd);
	default: return ata_fail(cmd, ATA_ABRT);
	}
}

/* ---- settings ---- */

/* A mode of transfers makes no difference, but reads back in IDENTIFY DEVICE: PIO 0 to 4, multiword DMA 0 to 2, ultra DMA 0 to 5. */
static bool is_mode(u8 mode)
{
	static const u8 modes[32] = { [0] = 2, [1] = 5, [4] = 3, [8] = 6 };

	return (mode & 7) < modes[mode >> 3];
}

static enum ata_next set_features(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	switch (cmd->fis[FIS_FEATURE]) {
	case SET_CACHE_ON: d->write_cache = true; return ATA_END;
	case SET_CACHE_OFF: d->write_cache = false; return flush(cmd);
	case SET_LOOKAHEAD:
	case SET_NO_AHEAD: return ATA_END;
	case SET_MODE:
		if (!is_mode(cmd->fis[FIS_COUNT]))
			return ata_fail(cmd, ATA_ABRT);
		d->mode = cmd->fis[FIS_COUNT];
		return ATA_END;
	default: return ata_fail(cmd, ATA_ABRT);
	}
}

static enum ata_next set_multiple(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	u8 n = cmd->fis[FIS_COUNT];

	if (n > MAX_MULTIPLE || (n && !bits_is_pow2(n)))
		return ata_fail(cmd, ATA_ABRT);
	d->multiple = n;
	return ATA_END;
}

/* Nothing to do. */
static enum ata_next succeed(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	return ATA_END;
}

/* [ACS-3 7.3]: active or idle */
static enum ata_next check_power(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	cmd->count = 0xff;
	return ATA_END;
}

/* [ACS-3 7.9]: the signature, and the code for "passed" */
static enum ata_next diagnose(struct ata_drive *d, struct ata_cmd *cmd, const struct row *row)
{
	cmd->error = 1;
	cmd->count = 1;
	cmd->lba = 1;
	cmd->device = 0;
	return ATA_END;
}

static const struct row rows[] = {
	{ 0x06, F_EXT | F_WRITE, trim },
	{ 0x20, F_PIO, transfer },
	{ 0x21, F_PIO, transfer },
	{ 0x24, F_PIO | F_EXT, transfer },
	{ 0x25, F_EXT, transfer },
	{ 0x29, F_PIO | F_EXT, multiple },
	{ 0x2f, F_PIO | F_EXT, read_log },
	{ 0x30, F_PIO | F_WRITE, transfer },
	{ 0x31, F_PIO | F_WRITE, transfer },
	{ 0x34, F_PIO | F_WRITE | F_EXT, transfer },
	{ 0x35, F_WRITE | F_EXT, transfer },
	{ 0x39, F_PIO | F_WRITE | F_EXT, multiple },
	{ 0x3d, F_WRITE | F_EXT | F_FUA, transfer },
	{ 0x40, 0, verify },
	{ 0x41, 0, verify },
	{ 0x42, F_EXT, verify },
	{ 0x60, F_EXT | F_QUEUE, transfer },
	{ 0x61, F_EXT | F_QUEUE | F_WRITE, transfer },
	{ 0x90, 0, diagnose },
	{ 0xb0, F_PIO, smart },
	{ 0xc4, F_PIO, multiple },
	{ 0xc5, F_PIO | F_WRITE, multiple },
	{ 0xc6, 0, set_multiple },
	{ 0xc8, 0, transfer },
	{ 0xca, F_WRITE, transfer },
	{ 0xce, F_PIO | F_WRITE | F_EXT | F_FUA, multiple },
	{ 0xe0, 0, succeed }, /* STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE */
	{ 0xe1, 0, succeed },
	{ 0xe2, 0, succeed },
	{ 0xe3, 0, succeed },
	{ 0xe5, 0, check_power },
	{ 0xe7, 0, flush_cache },
	{ 0xea, F_EXT, flush_cache },
	{ 0xec, F_PIO, identify },
	{ 0xef, 0, set_features },
};

static enum ata_next disk_begin(struct ata_drive *d, struct ata_cmd *cmd)
{
	enum ata_next next = ATA_END;
	unsigned i = 0;

	cmd->status = ATA_DRDY | ATA_DSC;
	while (i < ARRAY_SIZE(rows) && rows[i].command != cmd->fis[FIS_COMMAND])
		i++;
	if (i == ARRAY_SIZE(rows))
		return ata_fail(cmd, ATA_ABRT);
	next = rows[i].fn(d, cmd, &rows[i]);
	if (next == ATA_END && cmd->status & ATA_ERR && cmd->protocol == ATA_QUEUED)
		write_log(d, cmd);
	return next;
}

static enum ata_next disk_next(struct ata_drive *d, struct ata_cmd *cmd, int result)
{
	if (result < 0) {
		ata_fail(cmd, cmd->op == BLOCK_READ ? ATA_UNC : ATA_ABRT);
		if (cmd->protocol == ATA_QUEUED)
			write_log(d, cmd);
		return ATA_END;
	}
	if (cmd->op == BLOCK_DISCARD)
		return trim_next(d, cmd);
	return cmd->flush ? flush(cmd) : ATA_END;
}

static void disk_reset(struct ata_drive *d, bool hard)
{
	d->log_valid = false;
	/* What software has set survives its own resets [ACS-3 7.45.14]. */
	if (!hard)
		return;
	d->write_cache = d->smart = true;
	d->multiple = 0;
	d->mode = MODE_UDMA5;
	memset(d->log, 0, sizeof(d->log));
}

static bool disk_check(const struct ata_drive *d)
{
	return d->multiple <= MAX_MULTIPLE && is_mode(d->mode);
}

const struct ata_ops ata_disk_ops = {
	.signature = { 1, 1, 0, 0 },
	.idle_status = ATA_DRDY | ATA_DSC,
	.begin = disk_begin,
	.next = disk_next,
	.reset = disk_reset,
	.check = disk_check,
};
