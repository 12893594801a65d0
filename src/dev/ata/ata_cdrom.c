/* An ATAPI CD-ROM drive with an image of a disc of one data track.
 *
 * Documents: [ACS-3 7.18] (PACKET, and what an ATAPI device answers to other commands), SCSI Primary Commands - 3, [SPC-3 6], and
 * Multi-Media Commands - 6, [MMC-6 6], for the commands in packets.
 *
 * How it works: a table says which commands there are, and which of them come through although the drive has news of a reset or
 * of another disc [SAM-3 5.9.7]. Each answer is composed whole in the drive's buffer and given as far as the command allows.
 * A command that fails leaves its sense, until another one succeeds or REQUEST SENSE has told it.
 *
 * The drawer opens and closes as the guest likes, with the same disc in it.
 *
 * Omitted: audio, subchannels, raw sectors (READ CD gives user data only), writing, changers; they are refused as fields or
 * commands that there are not, as the features say [MMC-6 5.3].
 */
#include <string.h>

#include "base/bits.h"
#include "dev/ata/ata.h"

#define SECTOR   2048u
#define LEAD_OUT 0xaa

/* ATA commands */
#define CMD_DEVICE_RESET    0x08
#define CMD_DIAGNOSTIC      0x90
#define CMD_PACKET          0xa0
#define CMD_IDENTIFY_PACKET 0xa1
#define CMD_SET_FEATURES    0xef
#define SET_MODE            0x03

/* Interrupt reason, in the count register [ACS-3 7.18.5] */
#define REASON_END 3

/* Sense keys and additional codes [SPC-3 4.5.6] */
#define NOT_READY      0x02
#define MEDIUM_ERROR   0x03
#define ILLEGAL        0x05
#define UNIT_ATTENTION 0x06
#define NO_MEDIUM      0x3a, 0x02 /* the drawer is open */
#define READ_ERROR     0x11, 0x00
#define BAD_COMMAND    0x20, 0x00
#define BAD_ADDRESS    0x21, 0x00
#define BAD_FIELD      0x24, 0x00
#define IS_RESET       0x29, 0x00
#define IS_CHANGED     0x28, 0x00
#define IS_LOCKED      0x53, 0x02

enum { NO_NEWS, NEWS_RESET, NEWS_MEDIUM, NR_NEWS };

/* Flags of commands */
#define F_ALWAYS BIT(0) /* news do not stop it */
#define F_DISC   BIT(1) /* needs one */

struct row {
	u8 command, flags;
	enum ata_next (*fn)(struct ata_drive *d, struct ata_cmd *cmd);
};

static u32 blocks(const struct ata_drive *d)
{
	return (u32)MIN(d->disk.block->size / SECTOR, 0xffffffffull);
}

/* ---- ends ---- */

static void set_sense(struct ata_drive *d, u8 key, u8 asc, u8 ascq)
{
	d->sense = key;
	d->asc = asc;
	d->ascq = ascq;
}

static enum ata_next fail(struct ata_drive *d, struct ata_cmd *cmd, u8 key, u8 asc, u8 ascq)
{
	set_sense(d, key, asc, ascq);
	cmd->count = REASON_END;
	return ata_fail(cmd, (u8)(key << 4 | ATA_ABRT));
}

static enum ata_next succeed(struct ata_drive *d, struct ata_cmd *cmd)
{
	set_sense(d, 0, 0, 0);
	cmd->count = REASON_END;
	return ATA_END;
}

/* len bytes of the buffer, as far as the command has room. */
static enum ata_next give(struct ata_drive *d, struct ata_cmd *cmd, unsigned len, unsigned room)
{
	succeed(d, cmd);
	cmd->buf_len = MIN(len, room);
	return cmd->buf_len ? ATA_GIVE : ATA_END;
}

static u8 *answer(struct ata_drive *d)
{
	return memset(d->buf, 0, sizeof(d->buf));
}

/* ---- what it is ---- */

static enum ata_next inquiry(struct ata_drive *d, struct ata_cmd *cmd)
{
	static const char name[] = "BOTHY   CD-ROM          1   "; /* vendor, product, revision */
	const u8 *c = cmd->acmd;
	unsigned room = ld16be(c + 3);
	u8 *b = answer(d);

	if (c[1] & 1) { /* vital product data [SPC-3 7.6] */
		b[0] = 5;
		b[1] = c[2];
		if (c[2] == 0x00) {
			b[3] = 2;
			b[5] = 0x80;
			return give(d, cmd, 6, room);
		}
		if (c[2] != 0x80)
			return fail(d, cmd, ILLEGAL, BAD_FIELD);
		b[3] = DRIVE_SERIAL_LEN;
		for (unsigned i = 0; i < DRIVE_SERIAL_LEN; i++)
			b[4 + i] = i < strlen(d->disk.serial) ? (u8)d->disk.serial[i] : ' ';
		return give(d, cmd, 4 + DRIVE_SERIAL_LEN, room);
	}
	if (c[2])
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	b[0] = 5;    /* CD/DVD device */
	b[1] = 0x80; /* removable */
	b[2] = 5;    /* SPC-3 */
	b[3] = 2;
	b[4] = 31;
	for (unsigned i = 0; i < sizeof(name) - 1; i++)
		b[8 + i] = (u8)name[i];
	return give(d, cmd, 36, room);
}

/* IDENTIFY PACKET DEVICE [ACS-3 7.13.6] */
static enum ata_next identify(struct ata_drive *d, struct ata_cmd *cmd)
{
	u8 *b = answer(d);
	static const struct {
		u8 word;
		u16 value;
	} words[] = {
		{ 0, 0x8580 },  /* CD-ROM, removable, packets of 12 bytes, DRQ within 50 us */
		{ 49, 0x0b00 }, /* DMA, LBA, IORDY */
		{ 50, 0x4000 },  { 53, 0x0006 },              /* words 64 to 70 and 88 are valid */
		{ 63, 0x0007 },  { 64, 0x0003 }, { 65, 120 }, /* ns: cycle times */
		{ 66, 120 },     { 67, 120 },    { 68, 120 },    { 76, 0x0006 }, /* 1.5 and 3 Gb/s */
		{ 80, 0x07f0 },                                                  /* up to ACS-3 */
		{ 82, 0x4210 }, /* NOP, DEVICE RESET, PACKET */
		{ 83, 0x4000 },  { 84, 0x4000 }, { 85, 0x4210 }, { 87, 0x4000 },
		{ 222, 0x103f }, /* serial, up to SATA 3.0 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		st16(b + 2 * words[i].word, words[i].value);
	st16(b + 2 * 88, (u16)(0x003f | (d->mode >> 3 == 8 ? BIT(8 + (d->mode & 7)) : 0)));
	ata_text(b + 2 * 10, d->disk.serial, 20);
	ata_text(b + 2 * 23, "1", 8);
	ata_text(b + 2 * 27, "bothy CD-ROM", 40);
	b[2 * 255] = 0xa5;
	ata_checksum(b);
	cmd->protocol = ATA_PIO_IN;
	cmd->buf_len = 512;
	return ATA_GIVE;
}

/* Fixed format; what it tells is then told [SPC-3 6.27]. */
static enum ata_next request_sense(struct ata_drive *d, struct ata_cmd *cmd)
{
	u8 *b = answer(d);

	b[0] = 0x70;
	b[2] = d->sense;
	b[7] = 10;
	b[12] = d->asc;
	b[13] = d->ascq;
	if (!d->sense && d->attention) {
		static const u8 news[NR_NEWS][2] = {
			[NEWS_RESET] = { IS_RESET }, [NEWS_MEDIUM] = { IS_CHANGED }
		};

		b[2] = UNIT_ATTENTION;
		memcpy(b + 12, news[d->attention], 2);
		d->attention = NO_NEWS;
	}
	return give(d, cmd, 18, cmd->acmd[4]);
}

/* [MMC-6 6.6]: what it can do, in the order of the features' numbers. */
static enum ata_next get_configuration(struct ata_drive *d, struct ata_cmd *cmd)
{
	static const struct {
		u16 code;
		u8 flags; /* version, persistent, current where there is a disc */
		u8 len;
		u8 data[8];
	} features[] = {
		{ 0x0000, 0x03, 8, { 0x00, 0x10, 0, 0, 0x00, 0x08, 0, 0 } }, /* profiles: DVD-ROM, CD-ROM */
		{ 0x0001, 0x0b, 8, { 0, 0, 0, 8, 1, 0, 0, 0 } },             /* core, over ATAPI */
		{ 0x0002, 0x07, 4, { 2, 0, 0, 0 } },                         /* polling for events */
		{ 0x0003, 0x0b, 4, { 0x29, 0, 0, 0 } },                      /* a tray, ejects and locks */
		{ 0x0010, 0x00, 8, { 0, 0, 8, 0, 0, 1, 0, 0 } },             /* blocks of 2048 bytes */
		{ 0x001e, 0x08, 4, { 0, 0, 0, 0 } },                         /* CDs */
	};
	const u8 *c = cmd->acmd;
	unsigned kind = c[1] & 3, first = ld16be(c + 2), len = 8;
	u8 *b = answer(d);

	if (kind == 3)
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		bool current = features[i].flags & 3 || !d->open;

		if (features[i].code < first || (kind == 1 && !current) ||
		    (kind == 2 && features[i].code != first))
			continue;
		st16be(b + len, features[i].code);
		b[len + 2] = (u8)((features[i].flags & ~1u) | current);
		b[len + 3] = features[i].len;
		memcpy(b + len + 4, features[i].data, features[i].len);
		if (!features[i].code && !d->open)
			b[len + 10] = 1; /* the CD-ROM profile is the current one */
		len += 4u + features[i].len;
	}
	st32be(b, len - 4);
	st16be(b + 6, d->open ? 0 : 0x0008);
	return give(d, cmd, len, ld16be(c + 7));
}

/* Pages [MMC-6 7.2]: the error recovery page, and the capabilities that old drivers look for. */
static unsigned put_page(const struct ata_drive *d, u8 *b, u8 code, bool all)
{
	if (code == 0x01) {
		b[0] = 0x01;
		b[1] = 10;
		return 12;
	}
	if (code != 0x2a)
		return 0;
	b[0] = 0x2a;
	b[1] = 18;
	b[2] = 0x03;                        /* reads CD-R, CD-RW */
	b[6] = (u8)(0x29 | d->locked << 1); /* a tray, ejects and locks */
	st16be(b + 8, 706 * 4);             /* KB/s at most */
	st16be(b + 12, 512);                /* KiB of buffer */
	st16be(b + 14, 706 * 4);
	return 20;
}

static enum ata_next mode_sense(struct ata_drive *d, struct ata_cmd *cmd)
{
	const u8 *c = cmd->acmd;
	bool ten = c[0] == 0x5a;
	unsigned len = ten ? 8 : 4, room = ten ? ld16be(c + 7) : c[4], head = len;
	u8 control = c[2] >> 6, code = c[2] & 0x3f;
	u8 *b = answer(d);

	if (control == 3) /* saved values */
		return fail(d, cmd, ILLEGAL, 0x39, 0x00);
	for (u8 page = 0; page < 0x3f; page++)
		if (code == 0x3f || code == page)
			len += put_page(d, b + len, page, code == 0x3f);
	if (len == head)
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	if (control == 1) /* what can be changed: nothing */
		memset(b + head + 2, 0, len - head - 2);
	if (ten)
		st16be(b, (u16)(len - 2));
	else
		b[0] = (u8)(len - 1);
	return give(d, cmd, len, room);
}

/* ---- drawer and events ---- */

static enum ata_next test_unit_ready(struct ata_drive *d, struct ata_cmd *cmd)
{
	return succeed(d, cmd);
}

/* [MMC-6 6.7], by polling, of which there are the media events. */
static enum ata_next get_event(struct ata_drive *d, struct ata_cmd *cmd)
{
	const u8 *c = cmd->acmd;
	u8 *b = answer(d);

	if (!(c[1] & 1))
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	b[3] = BIT(4); /* what there is */
	if (!(c[4] & BIT(4))) {
		b[1] = 2;
		b[2] = 0x80; /* nothing of what was asked for */
		return give(d, cmd, 4, ld16be(c + 7));
	}
	b[1] = 6;
	b[2] = 4;
	b[4] = d->event ? (d->open ? 3 : 2) : 0; /* taken out, new */
	b[5] = (u8)(d->open ? 1 : 2);            /* the drawer is open; there is a disc */
	d->event = false;
	return give(d, cmd, 8, ld16be(c + 7));
}

static enum ata_next start_stop(struct ata_drive *d, struct ata_cmd *cmd)
{
	u8 how = cmd->acmd[4];
	bool eject = how & 2, start = how & 1;

	if (how >> 4 || !eject || start != d->open)
		return succeed(d, cmd);
	if (!start && d->locked)
		return fail(d, cmd, ILLEGAL, IS_LOCKED);
	d->open = !start;
	d->event = true;
	if (start)
		d->attention = NEWS_MEDIUM;
	return succeed(d, cmd);
}

static enum ata_next prevent(struct ata_drive *d, struct ata_cmd *cmd)
{
	d->locked = cmd->acmd[4] & 1;
	return succeed(d, cmd);
}

static enum ata_next mechanism_status(struct ata_drive *d, struct ata_cmd *cmd)
{
	answer(d)[1] = d->open ? 0x10 : 0;
	return give(d, cmd, 8, ld16be(cmd->acmd + 8));
}

/* ---- the disc ---- */

static enum ata_next read_capacity(struct ata_drive *d, struct ata_cmd *cmd)
{
	u8 *b = answer(d);

	st32be(b, blocks(d) - 1);
	st32be(b + 4, SECTOR);
	return give(d, cmd, 8, 8);
}

static enum ata_next read_blocks(struct ata_drive *d, struct ata_cmd *cmd, u32 lba, u32 count)
{
	if (lba > blocks(d) || count > blocks(d) - lba)
		return fail(d, cmd, ILLEGAL, BAD_ADDRESS);
	succeed(d, cmd);
	if (!count)
		return ATA_END;
	cmd->op = BLOCK_READ;
	cmd->offset = (u64)lba * SECTOR;
	cmd->len = (u64)count * SECTOR;
	return ATA_BLOCK;
}

static enum ata_next read10(struct ata_drive *d, struct ata_cmd *cmd)
{
	return read_blocks(d, cmd, ld32be(cmd->acmd + 2), ld16be(cmd->acmd + 7));
}

static enum ata_next read12(struct ata_drive *d, struct ata_cmd *cmd)
{
	return read_blocks(d, cmd, ld32be(cmd->acmd + 2), ld32be(cmd->acmd + 6));
}

/* [MMC-6 6.19]: sectors of mode 1, their user data */
static enum ata_next read_cd(struct ata_drive *d, struct ata_cmd *cmd)
{
	const u8 *c = cmd->acmd;
	u8 type = c[1] >> 2 & 7;
	u32 lba = ld32be(c + 2), count = ld32be(c + 5) & 0xffffff;

	if ((type != 0 && type != 2) || (c[9] != 0x10 && c[9]) || c[10] & 7)
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	return read_blocks(d, cmd, lba, c[9] ? count : 0);
}

static enum ata_next seek(struct ata_drive *d, struct ata_cmd *cmd)
{
	return ld32be(cmd->acmd + 2) < blocks(d) ? succeed(d, cmd) : fail(d, cmd, ILLEGAL, BAD_ADDRESS);
}

/* Minutes, seconds, frames, 75 to a second, of which 150 come before block 0. */
static void put_address(u8 *b, u32 lba, bool msf)
{
	u32 frames = lba + 150;

	if (!msf) {
		st32be(b, lba);
		return;
	}
	b[1] = (u8)MIN(frames / 75 / 60, 255u);
	b[2] = (u8)(frames / 75 % 60);
	b[3] = (u8)(frames % 75);
}

/* [MMC-6 6.25] */
static enum ata_next read_toc(struct ata_drive *d, struct ata_cmd *cmd)
{
	const u8 *c = cmd->acmd;
	bool msf = c[1] & 2;
	u8 format = c[2] & 0xf, first = c[6];
	unsigned len = 4, room = ld16be(c + 7);
	u8 *b = answer(d);

	if (!format)
		format = c[9] >> 6; /* where it was once */
	if (format == 1) {          /* one session */
		b[2] = b[3] = 1;
		b[5] = 0x14;
		b[6] = 1;
		put_address(b + 8, 0, msf);
		len = 12;
	} else if (format == 0) {
		if (first > 1 && first != LEAD_OUT)
			return fail(d, cmd, ILLEGAL, BAD_FIELD);
		b[2] = b[3] = 1;
		for (unsigned i = first == LEAD_OUT; i < 2; i++, len += 8) {
			b[len + 1] = 0x14; /* data */
			b[len + 2] = i ? LEAD_OUT : 1;
			put_address(b + len + 4, i ? blocks(d) : 0, msf);
		}
	} else if (format == 2) { /* the full one: points A0, A1, A2 and the track */
		static const u8 points[] = { 0xa0, 0xa1, 0xa2, 1 };

		b[2] = b[3] = 1;
		for (unsigned i = 0; i < ARRAY_SIZE(points); i++, len += 11) {
			b[len] = 1;
			b[len + 1] = 0x14;
			b[len + 3] = points[i];
			if (points[i] == 0xa2 || points[i] == 1)
				put_address(b + len + 7, points[i] == 1 ? 0 : blocks(d), true);
			else
				b[len + 8] = 1;
		}
	} else {
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	}
	st16be(b, (u16)(len - 2));
	return give(d, cmd, len, room);
}

/* [MMC-6 6.22]: a closed disc with one session and one track */
static enum ata_next read_disc_info(struct ata_drive *d, struct ata_cmd *cmd)
{
	u8 *b = answer(d);

	if (cmd->acmd[1] & 7)
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	st16be(b, 32);
	b[2] = 0x0e;
	b[3] = b[4] = b[5] = b[6] = 1;
	return give(d, cmd, 34, ld16be(cmd->acmd + 7));
}

/* [MMC-6 6.27] */
static enum ata_next read_track_info(struct ata_drive *d, struct ata_cmd *cmd)
{
	const u8 *c = cmd->acmd;
	u32 which = ld32be(c + 2);
	u8 *b = answer(d);

	if ((c[1] & 3) == 0 ? which >= blocks(d) : which != 1)
		return fail(d, cmd, ILLEGAL, BAD_FIELD);
	st16be(b, 34);
	b[2] = b[3] = 1;
	b[5] = 0x04; /* data */
	b[6] = 0x01; /* mode 1 */
	st32be(b + 24, blocks(d));
	return give(d, cmd, 36, ld16be(c + 7));
}

/* ---- the tables ---- */

static const struct row rows[] = {
	{ 0x00, F_DISC, test_unit_ready },
	{ 0x03, F_ALWAYS, request_sense },
	{ 0x12, F_ALWAYS, inquiry },
	{ 0x1a, 0, mode_sense },
	{ 0x1b, 0, start_stop },
	{ 0x1e, 0, prevent },
	{ 0x25, F_DISC, read_capacity },
	{ 0x28, F_DISC, read10 },
	{ 0x2b, F_DISC, seek },
	{ 0x43, F_DISC, read_toc },
	{ 0x46, F_ALWAYS, get_configuration },
	{ 0x4a, F_ALWAYS, get_event },
	{ 0x51, F_DISC, read_disc_info },
	{ 0x52, F_DISC, read_track_info },
	{ 0x5a, 0, mode_sense },
	{ 0xa8, F_DISC, read12 },
	{ 0xbb, 0, test_unit_ready }, /* SET CD SPEED: as fast as it gets */
	{ 0xbd, 0, mechanism_status },
	{ 0xbe, F_DISC, read_cd },
};

static enum ata_next packet(struct ata_drive *d, struct ata_cmd *cmd)
{
	unsigned i = 0;
	u8 news = d->attention;

	cmd->protocol = cmd->fis[FIS_FEATURE] & 1 ? ATA_PLAIN : ATA_PACKET;
	while (i < ARRAY_SIZE(rows) && rows[i].command != cmd->acmd[0])
		i++;
	if (i == ARRAY_SIZE(rows))
		return fail(d, cmd, ILLEGAL, BAD_COMMAND);
	if (news && !(rows[i].flags & F_ALWAYS)) {
		d->attention = NO_NEWS;
		if (news == NEWS_RESET)
			return fail(d, cmd, UNIT_ATTENTION, IS_RESET);
		return fail(d, cmd, UNIT_ATTENTION, IS_CHANGED);
	}
	if (rows[i].flags & F_DISC && d->open)
		return fail(d, cmd, NOT_READY, NO_MEDIUM);
	return rows[i].fn(d, cmd);
}

static void put_signature(struct ata_cmd *cmd)
{
	cmd->count = 1;
	cmd->lba = 0xeb1401;
	cmd->device = 0;
}

static enum ata_next cdrom_begin(struct ata_drive *d, struct ata_cmd *cmd)
{
	cmd->status = ATA_DRDY;
	switch (cmd->fis[FIS_COMMAND]) {
	case CMD_PACKET: return packet(d, cmd);
	case CMD_IDENTIFY_PACKET: return identify(d, cmd);
	case CMD_SET_FEATURES:
		if (cmd->fis[FIS_FEATURE] != SET_MODE)
			return ata_fail(cmd, ATA_ABRT);
		d->mode = cmd->fis[FIS_COUNT];
		return ATA_END;
	case CMD_DEVICE_RESET:
		put_signature(cmd);
		cmd->status = 0;
		cmd->error = 1;
		return ATA_END;
	case CMD_DIAGNOSTIC:
		put_signature(cmd);
		cmd->error = 1;
		return ATA_END;
	case 0xe0: /* STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE */
	case 0xe1:
	case 0xe2:
	case 0xe3:
	case 0xe7: return ATA_END; /* FLUSH CACHE */
	case 0xe5: /* CHECK POWER MODE */ cmd->count = 0xff; return ATA_END;
	default: /* those of a disk tell who it is [ACS-3 7.12.6] */
		put_signature(cmd);
		return ata_fail(cmd, ATA_ABRT);
	}
}

static enum ata_next cdrom_next(struct ata_drive *d, struct ata_cmd *cmd, int result)
{
	cmd->lba = 0;
	return result < 0 ? fail(d, cmd, MEDIUM_ERROR, READ_ERROR) : ATA_END;
}

static void cdrom_reset(struct ata_drive *d, bool hard)
{
	set_sense(d, 0, 0, 0);
	if (!hard)
		return;
	d->attention = NEWS_RESET;
	d->locked = d->open = d->event = false;
	d->mode = 0;
}

static bool cdrom_check(const struct ata_drive *d)
{
	return d->attention < NR_NEWS && d->sense <= 0xf;
}

const struct ata_ops ata_cdrom_ops = {
	.signature = { 1, 1, 0x14, 0xeb },
	.idle_status = 0,
	.begin = cdrom_begin,
	.next = cdrom_next,
	.reset = cdrom_reset,
	.check = cdrom_check,
};
