/* The AHCI adapter "ahci": what its two sources share, and how the board says which drives it has. */
#pragma once

#include "dev/ata/ata.h"
#include "dev/pci.h"
#include "dev/pci_msi.h"

#define AHCI_PORTS 6
#define AHCI_SLOTS 32
/* Parts of the guest's memory in one request to the host. Parts have two bytes at least, so a sector fits always. */
#define AHCI_PARTS 256

/* What is at the end of port i's cable; device_conf.ata is an array of AHCI_PORTS of them. */
struct ata_conf {
	struct block *block; /* NULL: nothing */
	const struct block_conf *conf;
	bool cdrom;
};

/* PxIS and PxIE [AHCI 3.3.5] */
#define IS_DHRS    BIT(0)
#define IS_PSS     BIT(1)
#define IS_SDBS    BIT(3)
#define IS_DPS     BIT(5)
#define IS_PCS     BIT(6)  /* PxSERR.DIAG.X */
#define IS_PRCS    BIT(22) /* PxSERR.DIAG.N */
#define IS_OFS     BIT(24)
#define IS_IFS     BIT(27)
#define IS_HBFS    BIT(29)
#define IS_TFES    BIT(30)
#define IS_CLEARED (IS_DHRS | IS_PSS | IS_SDBS | IS_DPS | IS_OFS | IS_IFS | IS_HBFS | IS_TFES)

/* PxCMD [AHCI 3.3.7] */
#define CMD_ST  BIT(0)
#define CMD_SUD BIT(1)
#define CMD_POD BIT(2)
#define CMD_CLO BIT(3)
#define CMD_FRE BIT(4)

struct ahci;
struct ahci_port;

enum ahci_cmd_state {
	AHCI_CMD_FREE,
	AHCI_CMD_READY, /* it can go on at once */
	AHCI_CMD_DUE,   /* a limit of rate makes it wait */
	AHCI_CMD_HOST,  /* the host works for it */
};

/* A place in a PRD table: entry i begins `at` bytes into the data. */
struct ahci_place {
	u32 i;
	u64 at;
};

/* What has been fetched from a slot. */
struct ahci_cmd {
	struct block_req req;
	struct ahci_port *port;
	struct ata_cmd ata;
	enum ata_next next;
	enum ahci_cmd_state state;
	bool cancelled; /* nobody wants to know how it ends */
	bool stepping, notify;
	u64 header, table; /* in the guest's memory */
	u32 nr_prds;
	struct ahci_place place;
	u64 moved;         /* bytes of the guest's memory */
	u64 done;          /* bytes of this request of the command set */
	struct iovec *iov; /* AHCI_PARTS of them */
};

struct ahci_port {
	struct ahci *h;
	struct ata_drive drive;
	struct ahci_cmd *cmd; /* AHCI_SLOTS of them; NULL: nothing is connected */
	struct iovec *iov;    /* for all of them */

	u32 clb, clbu, fb, fbu, is, ie, cr, tfd, sig, ssts, sctl, serr, sact, ci;
	u8 ccs;
	u8 next;        /* slot to look at first */
	bool halted;    /* an error: no command is fetched until software stops the port */
	bool signature; /* the drive's first FIS waits to be taken */
	bool srst;      /* software holds the drive in reset */

	unsigned nr_cancelled, nr_queued;
	bool running, submitted;
};

struct ahci {
	struct device dev;
	struct pci_dev pci;
	struct pci_msi msi;
	struct ahci_port port[AHCI_PORTS];
	u32 ghc, is;
	bool resetting; /* GHC.HR: until nothing is under way */
	bool quiet;
};

#define AHCI_PORT_STATE(s, p)                                                                          \
	STATE_U32(s, p.clb), STATE_U32(s, p.clbu), STATE_U32(s, p.fb), STATE_U32(s, p.fbu),            \
		STATE_U32(s, p.is), STATE_U32(s, p.ie), STATE_U32(s, p.cr), STATE_U32(s, p.tfd),       \
		STATE_U32(s, p.sig), STATE_U32(s, p.ssts), STATE_U32(s, p.sctl), STATE_U32(s, p.serr), \
		STATE_U32(s, p.sact), STATE_U32(s, p.ci), STATE_U8(s, p.ccs), STATE_U8(s, p.next),     \
		STATE_BOOL(s, p.halted), STATE_BOOL(s, p.signature), STATE_BOOL(s, p.srst),            \
		ATA_DRIVE_STATE(s, p.drive)

/* ahci_port.c; under the lock. */
u32 ahci_port_read(struct ahci_port *p, unsigned reg);
/* Of val only the bits in mask are written. */
void ahci_port_write(struct ahci_port *p, unsigned reg, u32 val, u32 mask);
/* Has something to tell that the driver wants to know. */
bool ahci_port_pending(const struct ahci_port *p);
/* As after HBA reset, with the link up if there is a drive. Nothing is under way. */
void ahci_port_reset(struct ahci_port *p);
bool ahci_port_check(const struct ahci_port *p);

/* ahci_cmd.c; under the lock, for ports with and without a drive. */
/* Fetches what has been issued; ahci_cmd_commit() lets the host begin. */
void ahci_cmd_run(struct ahci_port *p);
void ahci_cmd_commit(struct ahci_port *p);
/* All that may have waited for something goes on: for a limit of rate, the end of cancelled commands, a bus master. */
void ahci_cmd_due(void *port);
/* Forgets all commands; what the host does for them goes on until nr_cancelled is 0 again. */
void ahci_cmd_cancel(struct ahci_port *p);
/* Sends the drive's first FIS after a reset, if it can be taken. */
void ahci_cmd_signature(struct ahci_port *p);

/* ahci.c: the state of a port has changed; recomputes the interrupt. */
void ahci_update(struct ahci *h);
/* A port has no cancelled commands any more. */
void ahci_drained(struct ahci *h);
bool ahci_may_fetch(const struct ahci *h);

/* For the board, of an AHCI device: is there a disk at the port, or a CD-ROM drive? Any thread. */
bool ahci_has(const struct device *dev, unsigned port, bool cdrom);
