/* A small AHCI driver for tests: finds the adapter on the board's PCI bus, starts a port, and writes lists and tables, right or
 * wrong. The memory of port p is at ADRIVER_AT + p * 64 KiB: command list, received FISes, then a table for each slot. */
#pragma once

#include "fakeboard.h"

#define ADRIVER_AT     0x100000
#define ADRIVER_DATA   0x200000 /* free for the test, to 4 MiB */
#define ADRIVER_FIS    0x400
#define ADRIVER_TABLES 0x1000
#define ADRIVER_TABLE  0x600 /* bytes: room for 80 entries */

/* Port registers */
#define AP_CLB  0x00
#define AP_FB   0x08
#define AP_IS   0x10
#define AP_IE   0x14
#define AP_CMD  0x18
#define AP_TFD  0x20
#define AP_SIG  0x24
#define AP_SSTS 0x28
#define AP_SCTL 0x2c
#define AP_SERR 0x30
#define AP_SACT 0x34
#define AP_CI   0x38

struct adriver {
	struct board *b;
	u64 ecam, regs;
	unsigned port;
};

struct adriver_prd {
	u64 addr;
	u32 len; /* even */
};

/* Places the BAR and makes it a bus master. Aborts when there is none. */
void adriver_find(struct adriver *d, struct board *b);
u32 adriver_read(struct adriver *d, unsigned reg); /* of the adapter */
void adriver_write(struct adriver *d, unsigned reg, u32 val);
u32 adriver_pread(struct adriver *d, unsigned reg); /* of d->port */
void adriver_pwrite(struct adriver *d, unsigned reg, u32 val);
u8 *adriver_mem(struct adriver *d, u64 gpa);
/* Command list and FISes at their place, all interrupts on, PxSERR clear, port started. */
void adriver_start(struct adriver *d);

u64 adriver_header(struct adriver *d, unsigned slot);
u64 adriver_table(struct adriver *d, unsigned slot);
u8 *adriver_fis(struct adriver *d, unsigned at); /* what was received */
/* A command in the slot; 48-bit registers, count as in the command. flags: of the header. It is not issued. */
void adriver_command(struct adriver *d, unsigned slot, u8 command, u64 lba, u16 count, u32 flags,
		     const struct adriver_prd *prds, unsigned nr);
/* The same for READ (0x60) and WRITE (0x61) FPDMA QUEUED. */
void adriver_queued(struct adriver *d, unsigned slot, u8 command, u64 lba, u16 count,
		    const struct adriver_prd *prds, unsigned nr);
/* A packet for a CD-ROM drive. */
void adriver_packet(struct adriver *d, unsigned slot, const u8 packet[12], const struct adriver_prd *prds,
		    unsigned nr);
void adriver_issue(struct adriver *d, u32 slots);
