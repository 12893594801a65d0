/* A small NVMe driver for tests: finds the controller on the board's PCI bus, enables it, and makes queues and commands. Queue q
 * has 128 KiB at NDRIVER_AT + q * 128 KiB: its submission queue, and 64 KiB further its completion queue. */
#pragma once

#include "dev/nvme/nvme.h"
#include "fakeboard.h"

#define NDRIVER_AT   0x100000
#define NDRIVER_DATA 0x1c0000 /* free for the test, to 4 MiB */
#define NDRIVER_MAX  6        /* queues */

#define NDRIVER_OTHER 0xfffffffeu

struct ndriver {
	struct board *b;
	u64 ecam, regs;
	u16 cid;
	struct {
		u16 size, tail, head;
		bool phase;
	} q[NDRIVER_MAX];
};

/* Places the BAR and makes it a bus master. Aborts when there is none. */
void ndriver_find(struct ndriver *d, struct board *b);
u32 ndriver_read(struct ndriver *d, unsigned reg);
u64 ndriver_read64(struct ndriver *d, unsigned reg);
void ndriver_write(struct ndriver *d, unsigned reg, u32 val);
u8 *ndriver_mem(struct ndriver *d, u64 gpa);

/* Disables it, and enables it with queue 0 of 32 entries. */
void ndriver_enable(struct ndriver *d);
/* Makes a pair of queues, with vector q; false: refused. */
bool ndriver_queue(struct ndriver *d, unsigned q, u16 size);
/* Puts a command into its queue, with an identifier of its own, which it returns. */
u16 ndriver_put(struct ndriver *d, unsigned q, const struct nvme_sqe *e);
void ndriver_kick(struct ndriver *d, unsigned q);
/* The status of the next answer; ~0: there is none. */
unsigned ndriver_answer(struct ndriver *d, unsigned q, u16 *ret_cid, u32 *ret_dw0);
/* All three; NDRIVER_OTHER: another command was answered. */
unsigned ndriver_run(struct ndriver *d, unsigned q, const struct nvme_sqe *e, u32 *ret_dw0);
