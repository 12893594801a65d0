/* An ATA device at the end of a SATA link: the contract between a command set (ata_disk.c, ata_cdrom.c) and the adapter that
 * carries commands and data (ahci_cmd.c).
 *
 * The adapter gives a command to begin(), and then does what the answer says, as often as the command set has more to do. All of
 * it under the adapter's lock. Data between the guest and the disk never passes through a command set.
 */
#pragma once

#include "base/types.h"
#include "dev/drive.h"

/* Status and error registers [ACS-3 6.1] [ACS-3 6.2] */
#define ATA_ERR  BIT(0)
#define ATA_DRQ  BIT(3)
#define ATA_DSC  BIT(4)
#define ATA_DRDY BIT(6)
#define ATA_BSY  BIT(7)
#define ATA_ABRT BIT(2)
#define ATA_IDNF BIT(4)
#define ATA_UNC  BIT(6)

#define ATA_LBA_MODE BIT(6) /* in the device register */

/* Register FIS from the host [SATA 10.5.5] */
#define FIS_LEN       20
#define FIS_COMMAND   2
#define FIS_FEATURE   3
#define FIS_LBA       4
#define FIS_DEVICE    7
#define FIS_LBA_EXP   8
#define FIS_FEAT_EXP  11
#define FIS_COUNT     12
#define FIS_COUNT_EXP 13
#define FIS_CONTROL   15

#define ATA_ACMD_LEN 16
#define ATA_BUF_LEN  2048

/* How the end of a command is told. */
enum ata_protocol {
	ATA_PLAIN,  /* by registers: no data, PIO to the device, DMA */
	ATA_PIO_IN, /* with the last block of data */
	ATA_PACKET, /* by registers, and data are announced like those of PIO where there are some */
	ATA_QUEUED, /* by a bit of SActive, in any order */
};

enum ata_next {
	ATA_END,   /* it is over: see status */
	ATA_GIVE,  /* buf[0..buf_len) goes to the guest, then it is over */
	ATA_TAKE,  /* buf[0..buf_len) comes from the guest; then next() */
	ATA_BLOCK, /* op for the disk, with data from or to the guest if it has some; then next() */
};

struct ata_cmd {
	u8 fis[FIS_LEN];
	u8 acmd[ATA_ACMD_LEN];
	unsigned tag;

	/* By begin(), and for the next step by next(). */
	enum ata_protocol protocol;
	enum block_op op;
	u64 offset, len; /* bytes, inside the disk; a flush has neither */
	u32 buf_len;     /* at most ATA_BUF_LEN */
	bool flush;      /* for the command set */
	unsigned at;     /* for the command set */

	/* The registers at the end; begin() finds those of the command. */
	u8 status, error, device;
	u16 count;
	u64 lba;
};

struct ata_drive;

struct ata_ops {
	u8 signature[4]; /* count, LBA low, mid, high after a reset [ACS-3 9.2] */
	u8 idle_status;
	/* Commands that are not queued come one at a time, and not beside queued ones. */
	enum ata_next (*begin)(struct ata_drive *d, struct ata_cmd *cmd);
	/* result: 0 or a negative errno of the host. */
	enum ata_next (*next)(struct ata_drive *d, struct ata_cmd *cmd, int result);
	/* Nothing is under way. hard: power on, or a reset of the link; else software's reset. */
	void (*reset)(struct ata_drive *d, bool hard);
	/* Are the values of a loaded state possible? */
	bool (*check)(const struct ata_drive *d);
};

struct ata_drive {
	const struct ata_ops *ops;
	struct drive disk;
	u8 buf[ATA_BUF_LEN]; /* of the command that is not queued */

	/* Disk */
	bool write_cache, smart;
	u8 multiple; /* sectors for each block of READ MULTIPLE, 0: not set */
	u8 mode;     /* of transfers, as in SET FEATURES */
	bool log_valid;
	u8 log[14]; /* the queued command that has failed, as the log shows it */

	/* CD-ROM */
	u8 sense, asc, ascq; /* of the last command that failed */
	u8 attention;        /* enum in ata_cdrom.c */
	bool open, locked, event;
};

#define ATA_DRIVE_STATE(s, d)                                                                               \
	STATE_BOOL(s, d.write_cache), STATE_BOOL(s, d.smart), STATE_U8(s, d.multiple), STATE_U8(s, d.mode), \
		STATE_BOOL(s, d.log_valid), STATE_U8S(s, d.log), STATE_U8(s, d.sense), STATE_U8(s, d.asc),  \
		STATE_U8(s, d.ascq), STATE_U8(s, d.attention), STATE_BOOL(s, d.open),                       \
		STATE_BOOL(s, d.locked), STATE_BOOL(s, d.event)

extern const struct ata_ops ata_disk_ops, ata_cdrom_ops;

/* For both command sets: text in words of two characters, the first one in the high byte [ACS-3 3.4.9], padded with spaces. */
void ata_text(u8 *word, const char *text, unsigned len);
/* Ends the command with an error. */
enum ata_next ata_fail(struct ata_cmd *cmd, u8 error);
/* The sum over a page of 512 bytes that ends with its checksum is zero. */
void ata_checksum(u8 *page);
