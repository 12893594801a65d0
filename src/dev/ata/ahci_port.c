/* A port of the AHCI adapter: its registers and the link. Commands are in ahci_cmd.c.
 *
 * Document: Serial ATA AHCI 1.3.1, [AHCI 3.3] (registers), [AHCI 10.3] (starting and stopping), [AHCI 10.4.2] (port reset).
 *
 * How it works: when software stops the port or resets the link, PxCMD.CR stays set until the host has done with the guest's
 * memory [AHCI 10.3.1], and a drive that was reset stays busy until then.
 *
 * Omitted, and CAP says so: port multipliers, power states of the link, hot plug, staggered spin-up, cold presence.
 *
 * Threads: vCPUs and the main thread, under the device's lock.
 */
#include "base/bits.h"
#include "dev/ata/ahci.h"

/* Registers [AHCI 3.3] */
#define PX_CLB  0x00
#define PX_CLBU 0x04
#define PX_FB   0x08
#define PX_FBU  0x0c
#define PX_IS   0x10
#define PX_IE   0x14
#define PX_CMD  0x18
#define PX_TFD  0x20
#define PX_SIG  0x24
#define PX_SSTS 0x28
#define PX_SCTL 0x2c
#define PX_SERR 0x30
#define PX_SACT 0x34
#define PX_CI   0x38

#define CLB_MASK (~0x3ffu)
#define FB_MASK  (~0xffu)

#define IE_WRITABLE 0x7dc0007fu

/* PxCMD [AHCI 3.3.7] */
#define CMD_CCS      8
#define CMD_FR       BIT(14)
#define CMD_CR       BIT(15)
#define CMD_WRITABLE (CMD_ST | CMD_FRE | BIT(24) | BIT(25)) /* and ATAPI, DLAE, which change nothing */

#define SCTL_WRITABLE 0x0fffu
#define DET_NONE      0
#define DET_RESET     1
#define DET_PRESENT   3
#define DET_OFFLINE   4
#define SSTS_ACTIVE   0x100
#define SERR_N        BIT(16)
#define SERR_X        BIT(26)
#define NO_SIGNATURE  0xffffffffu
#define TFD_NO_DRIVE  0x7fu

/* ---- link and registers ---- */

static void link_down(struct ahci_port *p, u32 det)
{
	ahci_cmd_cancel(p);
	p->ssts = det;
	p->tfd = TFD_NO_DRIVE;
	p->sig = NO_SIGNATURE;
	p->signature = p->srst = false;
}

/* The drive answers at the speed that software allows, two generations at most [AHCI 3.3.11]. */
static void link_up(struct ahci_port *p)
{
	u32 speed = (p->sctl >> 4 & 0xf) == 1 ? 1 : 2;

	if (!p->cmd)
		return;
	p->drive.ops->reset(&p->drive, true);
	p->ssts = SSTS_ACTIVE | speed << 4 | DET_PRESENT;
	p->serr |= SERR_X | SERR_N;
	p->tfd = ATA_BSY;
	p->signature = true;
	ahci_cmd_signature(p);
}

void ahci_port_reset(struct ahci_port *p)
{
	p->is = p->ie = p->cr = p->sctl = p->serr = p->sact = p->ci = 0;
	p->ccs = p->next = 0;
	p->halted = false;
	link_down(p, DET_NONE);
	link_up(p);
}

static u32 read_is(const struct ahci_port *p)
{
	return p->is | (p->serr & SERR_X ? IS_PCS : 0) | (p->serr & SERR_N ? IS_PRCS : 0);
}

bool ahci_port_pending(const struct ahci_port *p)
{
	return read_is(p) & p->ie;
}

static u32 read_cmd(const struct ahci_port *p)
{
	u32 val = p->cr | CMD_SUD | CMD_POD | (u32)p->ccs << CMD_CCS;

	if (p->cr & CMD_FRE)
		val |= CMD_FR;
	if (p->cr & CMD_ST || p->nr_cancelled)
		val |= CMD_CR;
	return val;
}

u32 ahci_port_read(struct ahci_port *p, unsigned reg)
{
	switch (reg) {
	case PX_CLB: return p->clb;
	case PX_CLBU: return p->clbu;
	case PX_FB: return p->fb;
	case PX_FBU: return p->fbu;
	case PX_IS: return read_is(p);
	case PX_IE: return p->ie;
	case PX_CMD: return read_cmd(p);
	case PX_TFD: return p->tfd;
	case PX_SIG: return p->sig;
	case PX_SSTS: return p->ssts;
	case PX_SCTL: return p->sctl;
	case PX_SERR: return p->serr;
	case PX_SACT: return p->sact;
	case PX_CI: return p->ci;
	default: return 0;
	}
}

static void write_cmd(struct ahci_port *p, u32 val)
{
	bool was_on = p->cr & CMD_ST;

	/* FISes are received as long as commands run [AHCI 10.3.2]. */
	if (val & CMD_ST)
		val |= p->cr & CMD_FRE;
	p->cr = val & CMD_WRITABLE;
	if (was_on && !(val & CMD_ST)) {
		ahci_cmd_cancel(p);
		p->ci = p->sact = 0;
		p->ccs = p->next = 0;
		p->halted = false;
	}
	if (val & CMD_CLO && !(p->cr & CMD_ST))
		p->tfd &= ~(u32)(ATA_BSY | ATA_DRQ);
	ahci_cmd_signature(p);
}

static void write_sctl(struct ahci_port *p, u32 val)
{
	u32 old = p->sctl & 0xf, det = val & 0xf;

	p->sctl = val & SCTL_WRITABLE;
	if (det == old)
		return;
	if (det == DET_RESET || det == DET_OFFLINE)
		link_down(p, det == DET_OFFLINE ? DET_OFFLINE : DET_NONE);
	else if (det == DET_NONE && (old == DET_RESET || old == DET_OFFLINE))
		link_up(p);
}

static u32 merge(u32 old, u32 val, u32 mask, u32 writable)
{
	mask &= writable;
	return (old & ~mask) | (val & mask);
}

void ahci_port_write(struct ahci_port *p, unsigned reg, u32 val, u32 mask)
{
	u32 ones = val & mask;

	switch (reg) {
	case PX_CLB: p->clb = merge(p->clb, val, mask, CLB_MASK); break;
	case PX_CLBU: p->clbu = merge(p->clbu, val, mask, ~0u); break;
	case PX_FB: p->fb = merge(p->fb, val, mask, FB_MASK); break;
	case PX_FBU: p->fbu = merge(p->fbu, val, mask, ~0u); break;
	case PX_IS: p->is &= ~ones; break;
	case PX_IE: p->ie = merge(p->ie, val, mask, IE_WRITABLE); break;
	case PX_CMD: write_cmd(p, merge(p->cr, val, mask, ~0u)); break;
	case PX_SCTL: write_sctl(p, merge(p->sctl, val, mask, ~0u)); break;
	case PX_SERR: p->serr &= ~ones; break;
	case PX_SACT:
		if (p->cr & CMD_ST)
			p->sact |= ones;
		break;
	case PX_CI:
		if (p->cr & CMD_ST)
			p->ci |= ones;
		break;
	default: break;
	}
	ahci_cmd_run(p);
	ahci_cmd_commit(p);
}

bool ahci_port_check(const struct ahci_port *p)
{
	return !(p->clb & ~CLB_MASK) && !(p->fb & ~FB_MASK) && !(p->is & ~IS_CLEARED) &&
	       !(p->ie & ~IE_WRITABLE) && !(p->cr & ~CMD_WRITABLE) && !(p->sctl & ~SCTL_WRITABLE) &&
	       !(p->serr & ~(SERR_X | SERR_N)) && p->tfd <= 0xffff && p->ccs < AHCI_SLOTS &&
	       p->next < AHCI_SLOTS && (p->cmd ? p->drive.ops->check(&p->drive) : !p->signature && !p->ssts);
}
