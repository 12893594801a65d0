/* Commands of an AHCI port: slots, FISes, and the way of data between the guest's memory and the disk.
 *
 * Document: Serial ATA AHCI 1.3.1, [AHCI 4.2] (structures in memory), [AHCI 5.3] (the port's state machine), [AHCI 6] (errors),
 * [AHCI 10.4.1] (software's reset); Serial ATA 3.1, [SATA 10.5] (FISes).
 *
 * How it works: a command is fetched from its slot once, and what the table says where its data are is read piece by
 * piece as the data move, each entry checked when it is read: a request to the host has as many whole sectors as
 * AHCI_PARTS entries hold, so that no table, however long, makes anything grow. Commands that are not queued come one at
 * a time, while the port is busy; queued ones are all under way at once.
 *
 * A list, table or buffer that is not memory ends in a host bus fatal error, a table that is too short for its command in an
 * overflow; the port then fetches nothing until software stops it [AHCI 6.2.2]. When it is stopped or reset with
 * commands on their way, those are forgotten; the host finishes what it does for them, and only then is the next one fetched
 * (hostile case G43).
 *
 * DEVIATION: a command that is not queued, issued while queued ones are under way, ends those and itself at once.
 *
 * Threads: vCPUs and the main thread, under the device's lock.
 */
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/ata/ahci.h"
#include "vm/dma.h"
#include "vm/vm.h"

/* Command header and table [AHCI 4.2.2] [AHCI 4.2.3] */
#define HEADER_LEN  32
#define HDR_CFL     0x1fu
#define HDR_ATAPI   BIT(5)
#define HDR_CLEAR   BIT(10)
#define HDR_PRDBC   4
#define HDR_TABLE   8
#define TABLE_ACMD  0x40
#define TABLE_PRDT  0x80
#define PRD_LEN     16
#define PRD_DBC     12
#define PRD_NOTIFY  BIT(31)
#define PRD_MAX     0x3fffffu
#define MIN_FIS_LEN (FIS_LEN / 4)
#define MAX_FIS_LEN 16

/* Received FISes [AHCI 4.2.1], and their types [SATA 10.5] */
#define RX_DMA_SETUP 0x00
#define RX_PIO_SETUP 0x20
#define RX_REGS      0x40
#define RX_BITS      0x58
#define FIS_H2D      0x27
#define FIS_D2H      0x34
#define FIS_DMA      0x41
#define FIS_PIO      0x5f
#define FIS_BITS     0xa1
#define FIS_IRQ      BIT(6)
#define FIS_TO_HOST  BIT(5)
#define FIS_IS_CMD   BIT(7)
#define CONTROL_SRST BIT(2)

static struct vm *vm_of(const struct ahci_port *p)
{
	return p->h->dev.vm;
}

static unsigned slot_of(const struct ahci_port *p, const struct ahci_cmd *c)
{
	return (unsigned)(c - p->cmd);
}

static bool is_queued(const struct ahci_cmd *c)
{
	return c->ata.protocol == ATA_QUEUED;
}

/* ---- errors ---- */

static void forget(struct ahci_port *p, struct ahci_cmd *c)
{
	if (c->state == AHCI_CMD_FREE)
		return;
	if (is_queued(c))
		p->nr_queued--;
	if (c->state == AHCI_CMD_HOST) {
		c->cancelled = true;
		p->nr_cancelled++;
	} else {
		c->state = AHCI_CMD_FREE;
	}
}

void ahci_cmd_cancel(struct ahci_port *p)
{
	for (unsigned i = 0; p->cmd && i < AHCI_SLOTS; i++)
		if (!p->cmd[i].cancelled)
			forget(p, &p->cmd[i]);
}

static bool fatal(struct ahci_port *p, u32 bit, const char *why)
{
	if (why)
		log_guest("%s: the guest's driver is at fault: %s", p->h->dev.id, why);
	p->is |= bit;
	p->halted = true;
	ahci_cmd_cancel(p);
	return false;
}

/* ---- FISes to the guest ---- */

static bool post(struct ahci_port *p, unsigned at, const u8 *fis, unsigned len)
{
	if (!(p->cr & CMD_FRE))
		return true;
	if (dma_write(vm_of(p), (p->fb | (u64)p->fbu << 32) + at, fis, len) < 0)
		return fatal(p, IS_HBFS, "received FISes have no place in memory");
	return true;
}

static void put_registers(u8 *fis, const struct ata_cmd *cmd)
{
	fis[2] = cmd->status;
	fis[3] = cmd->error;
	st32(fis + FIS_LBA, (u32)(cmd->lba & 0xffffff) | (u32)cmd->device << 24);
	st32(fis + FIS_LBA_EXP, (u32)(cmd->lba >> 24 & 0xffffff));
	st16(fis + FIS_COUNT, cmd->count);
}

static bool post_registers(struct ahci_port *p, const struct ata_cmd *cmd, bool irq)
{
	u8 fis[20] = { FIS_D2H, irq ? FIS_IRQ : 0 };

	put_registers(fis, cmd);
	p->tfd = cmd->status | (u32)cmd->error << 8;
	if (irq)
		p->is |= IS_DHRS;
	return post(p, RX_REGS, fis, sizeof(fis));
}

/* For the last block of data. */
static bool post_pio_setup(struct ahci_port *p, const struct ahci_cmd *c)
{
	u8 fis[20] = { FIS_PIO, FIS_IRQ | FIS_TO_HOST };

	put_registers(fis, &c->ata);
	fis[2] |= ATA_DRQ;
	fis[15] = c->ata.status;
	st16(fis + 16, (u16)MIN(c->moved, (u64)BLOCK_SECTOR));
	p->tfd = c->ata.status | (u32)c->ata.error << 8;
	p->is |= IS_PSS;
	return post(p, RX_PIO_SETUP, fis, sizeof(fis));
}

static bool post_dma_setup(struct ahci_port *p, const struct ahci_cmd *c)
{
	u8 fis[28] = { FIS_DMA, c->ata.op == BLOCK_READ ? FIS_TO_HOST : 0 };

	fis[4] = (u8)c->ata.tag;
	st32(fis + 20, (u32)c->moved);
	return post(p, RX_DMA_SETUP, fis, sizeof(fis));
}

/* BSY and DRQ are not among the bits that it sets [SATA 10.5.7]. */
static bool post_bits(struct ahci_port *p, const struct ahci_cmd *c)
{
	u8 fis[8] = { FIS_BITS, FIS_IRQ, c->ata.status & 0x77, c->ata.error };

	if (!(c->ata.status & ATA_ERR))
		st32(fis + 4, 1u << c->ata.tag);
	p->tfd = (p->tfd & 0x88) | fis[2] | (u32)fis[3] << 8;
	p->is |= IS_SDBS;
	return post(p, RX_BITS, fis, sizeof(fis));
}

/* The drive's first FIS after a reset, which says what it is. It waits until FISes are received. */
void ahci_cmd_signature(struct ahci_port *p)
{
	const struct ata_ops *ops = p->drive.ops;
	struct ata_cmd cmd;

	if (!p->signature || !(p->cr & CMD_FRE) || p->nr_cancelled)
		return;
	p->signature = false;
	p->sig = ld32(ops->signature);
	cmd = (struct ata_cmd){
		.status = ops->idle_status,
		.error = 1, /* passed [ACS-3 9.2] */
		.count = ops->signature[0],
		.lba = p->sig >> 8,
	};
	post_registers(p, &cmd, false);
}

/* ---- data ---- */

/* The next parts of the guest's memory for up to `want` bytes into c->iov, a multiple of `unit` bytes; *ret_nr of them.
 * Returns the bytes; 0: the command is over by an error. */
static u64 take_parts(struct ahci_port *p, struct ahci_cmd *c, u64 want, unsigned unit, bool write,
		      unsigned *ret_nr)
{
	struct ahci_place at = c->place, places[AHCI_PARTS];
	unsigned n = 0;
	u64 got = 0;

	while (got < want && n < AHCI_PARTS && at.i < c->nr_prds) {
		u8 prd[PRD_LEN];
		u64 base, len, from, part;
		u32 dbc;
		void *ptr;

		if (dma_read(vm_of(p), c->table + TABLE_PRDT + (u64)PRD_LEN * at.i, prd, sizeof(prd)) < 0) {
			fatal(p, IS_HBFS, "a command table is not in memory");
			return 0;
		}
		dbc = ld32(prd + PRD_DBC);
		/* Bit 0 is reserved [AHCI 4.2.3.3], but SeaBIOS hands over an odd buffer of a CD-ROM's reader as it is. */
		base = ld64(prd);
		len = (dbc & PRD_MAX & ~1u) + 2ull; /* the last bit is one [AHCI 4.2.3.3] */
		/* Where an entry has become shorter since the last time, more of the table is skipped. */
		from = c->moved + got - at.at;
		if (from >= len) {
			at = (struct ahci_place){ at.i + 1, at.at + len };
			continue;
		}
		part = MIN(len - from, want - got);
		ptr = dma_map(vm_of(p), base + from, part, write);
		if (!ptr) {
			fatal(p, IS_HBFS, "a buffer is not in memory");
			return 0;
		}
		c->notify |= dbc >> 31;
		c->iov[n] = (struct iovec){ ptr, part };
		places[n++] = at;
		got += part;
	}
	for (u64 excess = got % unit; excess;) {
		u64 cut = MIN(excess, (u64)c->iov[n - 1].iov_len);

		c->iov[n - 1].iov_len -= cut;
		got -= cut;
		excess -= cut;
		n -= !c->iov[n - 1].iov_len;
	}
	if (!got) {
		fatal(p, IS_OFS, NULL);
		return 0;
	}
	c->place = places[n - 1];
	*ret_nr = n;
	return got;
}

/* buf_len bytes from the drive's buffer to the guest, or into it. */
static bool copy_buffer(struct ahci_port *p, struct ahci_cmd *c, bool to_guest)
{
	u8 *buf = p->drive.buf;
	u64 left = c->ata.buf_len;
	unsigned n = 0;

	while (left) {
		u64 got = take_parts(p, c, left, 1, to_guest, &n);

		if (!got)
			return false;
		for (unsigned i = 0; i < n; i++) {
			void *part = c->iov[i].iov_base;

			memcpy(to_guest ? part : buf, to_guest ? buf : part, c->iov[i].iov_len);
			if (to_guest)
				dma_written(vm_of(p), part, c->iov[i].iov_len);
			buf += c->iov[i].iov_len;
		}
		c->moved += got;
		left -= got;
	}
	return true;
}

static bool moves_data(const struct ata_cmd *cmd)
{
	return cmd->op == BLOCK_READ || cmd->op == BLOCK_WRITE;
}

static void host_done(struct block_req *req, int result);

/* The next piece of what the command set wants of the disk. */
static void ask_host(struct ahci_port *p, struct ahci_cmd *c)
{
	struct block *b = p->drive.disk.block;
	u64 len = c->ata.len;
	unsigned n = 0;

	if (!c->done && !p->h->quiet &&
	    !drive_may_pass(&p->drive.disk, moves_data(&c->ata) ? MIN(len, (u64)UINT32_MAX) : 0)) {
		c->state = AHCI_CMD_DUE;
		return;
	}
	if (moves_data(&c->ata)) {
		len = take_parts(p, c, len - c->done, BLOCK_SECTOR, c->ata.op == BLOCK_READ, &n);
		if (!len)
			return;
	}
	c->req = (struct block_req){
		.op = c->ata.op,
		.offset = c->ata.offset + c->done,
		.len = len,
		.iov = c->iov,
		.nr_iov = n,
		.done = host_done,
	};
	c->state = AHCI_CMD_HOST;
	p->submitted = true;
	b->ops->submit(b, &c->req);
}

/* ---- the life of a command ---- */

static void end_queued(struct ahci_port *p, struct ahci_cmd *c)
{
	u32 bit = 1u << slot_of(p, c);

	if (!post_dma_setup(p, c) || !post_bits(p, c))
		return;
	if (c->ata.status & ATA_ERR) {
		/* The drive drops all others as well [SATA 13.6.4.3]. */
		fatal(p, IS_TFES, NULL);
		return;
	}
	p->sact &= ~bit;
}

static void end_plain(struct ahci_port *p, struct ahci_cmd *c)
{
	u8 moved[4];
	bool ok, failed = c->ata.status & ATA_ERR;

	st32(moved, (u32)c->moved);
	if (c->moved && dma_write(vm_of(p), c->header + HDR_PRDBC, moved, sizeof(moved)) < 0) {
		fatal(p, IS_HBFS, "a command header is not in memory");
		return;
	}
	if (c->ata.protocol == ATA_PIO_IN && !failed)
		ok = post_pio_setup(p, c);
	else
		ok = (c->ata.protocol != ATA_PACKET || !c->moved || post_pio_setup(p, c)) &&
		     post_registers(p, &c->ata, true);
	if (!ok)
		return;
	if (failed)
		fatal(p, IS_TFES, NULL);
	else
		p->ci &= ~(1u << slot_of(p, c));
}

static void end(struct ahci_port *p, struct ahci_cmd *c)
{
	if (c->notify)
		p->is |= IS_DPS;
	if (is_queued(c))
		end_queued(p, c);
	else
		end_plain(p, c);
	/* Unless an error has taken it away. */
	if (c->state != AHCI_CMD_FREE)
		forget(p, c);
}

static void step(struct ahci_port *p, struct ahci_cmd *c)
{
	struct ata_drive *d = &p->drive;

	switch (c->next) {
	case ATA_END: end(p, c); break;
	case ATA_GIVE:
		if (copy_buffer(p, c, true))
			c->next = ATA_END;
		break;
	case ATA_TAKE:
		if (copy_buffer(p, c, false))
			c->next = d->ops->next(d, &c->ata, 0);
		break;
	case ATA_BLOCK: ask_host(p, c); break;
	}
}

/* The host may answer at once, inside submit(): then this loop goes on, and not one inside it. */
static void pump(struct ahci_port *p, struct ahci_cmd *c)
{
	if (c->stepping)
		return;
	c->stepping = true;
	while (c->state == AHCI_CMD_READY)
		step(p, c);
	c->stepping = false;
}

void ahci_cmd_commit(struct ahci_port *p)
{
	struct block *b = p->drive.disk.block;

	if (!p->submitted)
		return;
	p->submitted = false;
	b->ops->commit(b);
}

static void host_done(struct block_req *req, int result)
{
	struct ahci_cmd *c = container_of(req, struct ahci_cmd, req);
	struct ahci_port *p = c->port;
	struct ata_drive *d = &p->drive;

	drive_done(&d->disk, req, result);
	c->state = AHCI_CMD_READY;
	if (c->cancelled) {
		c->cancelled = false;
		c->state = AHCI_CMD_FREE;
		p->nr_cancelled--;
		if (!p->nr_cancelled)
			ahci_drained(p->h);
		return;
	}
	if (moves_data(&c->ata)) {
		c->moved += req->len;
		c->done += req->len;
	}
	if (result < 0 || !moves_data(&c->ata) || c->done == c->ata.len) {
		if (result < 0)
			c->ata.lba = req->offset / BLOCK_SECTOR;
		c->done = 0;
		c->next = d->ops->next(d, &c->ata, result);
	}
	if (c->stepping)
		return;
	pump(p, c);
	ahci_cmd_run(p);
	ahci_cmd_commit(p);
	ahci_update(p->h);
}

void ahci_cmd_due(void *port)
{
	struct ahci_port *p = port;

	ahci_cmd_signature(p);
	for (unsigned i = 0; p->cmd && i < AHCI_SLOTS; i++) {
		if (p->cmd[i].state != AHCI_CMD_DUE)
			continue;
		p->cmd[i].state = AHCI_CMD_READY;
		pump(p, &p->cmd[i]);
	}
	ahci_cmd_run(p);
	ahci_cmd_commit(p);
	ahci_update(p->h);
}

/* ---- issue ---- */

/* A FIS that carries no command but the control register [SATA 10.5.5]: software's reset [AHCI 10.4.1]. */
static void control(struct ahci_port *p, const u8 *fis, u32 flags, u32 bit)
{
	bool srst = fis[FIS_CONTROL] & CONTROL_SRST;

	if (srst) {
		ahci_cmd_cancel(p);
		p->tfd |= ATA_BSY;
		if (flags & HDR_CLEAR) {
			p->tfd &= ~(u32)(ATA_BSY | ATA_DRQ);
			p->ci &= ~bit;
		}
	} else {
		p->ci &= ~bit;
		if (p->srst) {
			p->drive.ops->reset(&p->drive, false);
			p->tfd |= ATA_BSY;
			p->signature = true;
			ahci_cmd_signature(p);
		}
	}
	p->srst = srst;
}

/* The command in c, whose slot was fetched, is the drive's. */
static void begin(struct ahci_port *p, struct ahci_cmd *c)
{
	struct ata_drive *d = &p->drive;
	struct ata_cmd *cmd = &c->ata;
	const u8 *fis = cmd->fis;
	u32 bit = 1u << slot_of(p, c);

	cmd->tag = slot_of(p, c);
	cmd->device = fis[FIS_DEVICE];
	cmd->count = ld16(fis + FIS_COUNT);
	cmd->lba = (ld32(fis + FIS_LBA) & 0xffffff) | (u64)(ld32(fis + FIS_LBA_EXP) & 0xffffff) << 24;
	c->state = AHCI_CMD_READY;
	p->tfd |= ATA_BSY;
	if (p->nr_queued && !(p->sact & bit)) {
		ahci_cmd_cancel(p);
		c->state = AHCI_CMD_READY;
		cmd->status = ATA_DRDY;
		c->next = ata_fail(cmd, ATA_ABRT);
		return;
	}
	c->next = d->ops->begin(d, cmd);
	if (!is_queued(c))
		return;
	/* Accepted: the slot is free for the next one, the tag is not [SATA 13.6.4.1]. */
	p->nr_queued++;
	p->ci &= ~bit;
	post_registers(p, &(const struct ata_cmd){ .status = ATA_DRDY | ATA_DSC, .count = cmd->count },
		       false);
}

static void issue(struct ahci_port *p, unsigned slot)
{
	struct ahci_cmd *c = &p->cmd[slot];
	u8 header[HEADER_LEN];
	u32 flags;

	p->ccs = (u8)slot;
	p->next = (u8)((slot + 1) % AHCI_SLOTS);
	c->ata = (struct ata_cmd){ .tag = slot };
	c->stepping = c->notify = false;
	c->place = (struct ahci_place){ 0, 0 };
	c->moved = c->done = 0;
	c->header = (p->clb | (u64)p->clbu << 32) + (u64)HEADER_LEN * slot;
	if (dma_read(vm_of(p), c->header, header, sizeof(header)) < 0) {
		fatal(p, IS_HBFS, "the command list is not in memory");
		return;
	}
	flags = ld32(header);
	c->nr_prds = flags >> 16;
	c->table = ld64(header + HDR_TABLE) & ~0x7full;
	if (dma_read(vm_of(p), c->table, c->ata.fis, FIS_LEN) < 0 ||
	    (flags & HDR_ATAPI && dma_read(vm_of(p), c->table + TABLE_ACMD, c->ata.acmd, ATA_ACMD_LEN) < 0)) {
		fatal(p, IS_HBFS, "a command table is not in memory");
		return;
	}
	if (c->ata.fis[0] != FIS_H2D || (flags & HDR_CFL) < MIN_FIS_LEN || (flags & HDR_CFL) > MAX_FIS_LEN) {
		fatal(p, IS_IFS, "a command that is no register FIS");
		return;
	}
	if (!(c->ata.fis[1] & FIS_IS_CMD)) {
		control(p, c->ata.fis, flags, 1u << slot);
		return;
	}
	begin(p, c);
	pump(p, c);
}

static bool can_issue(const struct ahci_port *p)
{
	return p->cr & CMD_ST && p->ci && !p->halted && !p->nr_cancelled && !p->signature &&
	       !(p->tfd & (ATA_BSY | ATA_DRQ)) && ahci_may_fetch(p->h);
}

/* The slot after the last one that has something [AHCI 5.3.3]. A slot whose queued command is under way must wait. */
static int next_slot(const struct ahci_port *p)
{
	for (unsigned i = 0; i < AHCI_SLOTS; i++) {
		unsigned slot = (p->next + i) % AHCI_SLOTS;

		if (p->ci >> slot & 1 && p->cmd[slot].state == AHCI_CMD_FREE)
			return (int)slot;
	}
	return -1;
}

void ahci_cmd_run(struct ahci_port *p)
{
	int slot;

	if (p->running || !p->cmd)
		return;
	p->running = true;
	while (can_issue(p) && (slot = next_slot(p)) >= 0)
		issue(p, (unsigned)slot);
	p->running = false;
}
