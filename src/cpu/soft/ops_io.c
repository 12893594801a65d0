/* IN, OUT, INS, OUTS [SDM2; SDM1 18.5; SDM3 17.2.4 for I/O breakpoints].
 *
 * A port access is an exit to the machine. Rights: CPL <= IOPL, else (and always in virtual-8086 mode)
 * the bits of the TSS's map, of which two bytes are read whatever the port.
 *
 * REP INS and REP OUTS run in batches: after BATCH iterations, or as soon as the mailbox or an event wants
 * attention, the instruction ends with RIP still at itself, so that interrupts are taken in between (G44).
 * The memory operand is probed before the port is read, since reading may have side effects.
 *
 * Threads: the vCPU's own.
 */
#include <stdatomic.h>

#include "cpu/soft/ops.h"
#include "cpu/soft/seg.h"

#define BATCH           64
#define TSS_IO_MAP_BASE 0x66

static void check_port(struct soft_cpu *c, const struct insn *i, u16 port, unsigned size)
{
	unsigned type = c->tr.attr & SA_TYPE, at, bits;
	u32 base;

	if (soft_real(c) || (c->cpl <= soft_iopl(c) && !soft_vm86(c)))
		return;
	if ((type != DT_TSS32 && type != DT_TSS32_BUSY) || c->tr.limit < TSS_IO_MAP_BASE + 1)
		soft_gp(c, i, 0);
	base = (u32)mmu_sys_load(c, i, seg_la(c, c->tr.base + TSS_IO_MAP_BASE), 2);
	at = base + port / 8;
	if (at + 1 > c->tr.limit)
		soft_gp(c, i, 0);
	bits = (unsigned)mmu_sys_load(c, i, seg_la(c, c->tr.base + at), 2);
	if (bits >> (port & 7) & ((1u << size) - 1))
		soft_gp(c, i, 0);
}

static u64 port_access(struct soft_cpu *c, bool write, u16 port, unsigned size, u64 data)
{
	struct vm_exit exit = {
		.reason = EXIT_IO,
		.write = write,
		.size = (u8)size,
		.addr = port,
		.data = data,
	};
	u64 hit = excp_io_breakpoint(c, port, size);

	if (hit) {
		c->dr6 |= hit;
		c->attention |= ATT_DB;
	}
	soft_exit(c, &exit);
	return exit.data;
}

void op_in(struct soft_cpu *c, const struct insn *i)
{
	u16 port = i->aux ? (u16)c->gpr[R_DX] : (u8)i->imm;
	u64 v;

	check_port(c, i, port, i->osz);
	v = port_access(c, false, port, i->osz, 0);
	if (i->osz == 4)
		c->gpr[R_AX] = (u32)v;
	else
		c->gpr[R_AX] = (c->gpr[R_AX] & ~bits_mask(i->osz)) | (v & bits_mask(i->osz));
	END(c, i);
}

void op_out(struct soft_cpu *c, const struct insn *i)
{
	u16 port = i->aux ? (u16)c->gpr[R_DX] : (u8)i->imm;

	check_port(c, i, port, i->osz);
	port_access(c, true, port, i->osz, c->gpr[R_AX] & bits_mask(i->osz));
	END(c, i);
}

/* Registers at the width of the address size. */
static u64 get_reg(const struct soft_cpu *c, const struct insn *i, unsigned r)
{
	return c->gpr[r] & bits_mask(i->asz);
}

static void set_reg(struct soft_cpu *c, const struct insn *i, unsigned r, u64 v)
{
	if (i->asz == 2)
		c->gpr[r] = (c->gpr[r] & ~0xffffull) | (v & 0xffff);
	else
		c->gpr[r] = v & bits_mask(i->asz);
}

static void ins_once(struct soft_cpu *c, const struct insn *i, u16 port, unsigned size)
{
	gva_t la = seg_linear(c, i, SEG_ES, get_reg(c, i, R_DI), size, ACC_W);
	u64 v;

	mmu_probe(c, i, la, size, ACC_W);
	v = port_access(c, false, port, size, 0);
	if (size == 1)
		st8_la(c, i, la, (u8)v);
	else if (size == 2)
		st16_la(c, i, la, (u16)v);
	else
		st32_la(c, i, la, (u32)v);
}

static void outs_once(struct soft_cpu *c, const struct insn *i, u16 port, unsigned size)
{
	gva_t la = seg_linear(c, i, i->seg, get_reg(c, i, R_SI), size, ACC_R);
	u64 v = size == 1 ? ld8_la(c, i, la) : size == 2 ? ld16_la(c, i, la) : ld32_la(c, i, la);

	port_access(c, true, port, size, v);
}

static bool interrupted(const struct soft_cpu *c)
{
	return c->attention || c->flags & FL_TF ||
	       atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed);
}

static void string_io(struct soft_cpu *c, const struct insn *i, bool in)
{
	unsigned size = i->osz > 4 ? 4 : i->osz, r = in ? R_DI : R_SI;
	u64 step = c->flags & FL_DF ? -(u64)size : size;
	bool rep = i->pfx & (PFX_F2 | PFX_F3);
	u16 port = (u16)c->gpr[R_DX];

	check_port(c, i, port, size); /* even when there is nothing to repeat */
	for (unsigned n = 0; n < BATCH; n++) {
		if (rep && !get_reg(c, i, R_CX))
			break;
		if (in)
			ins_once(c, i, port, size);
		else
			outs_once(c, i, port, size);
		set_reg(c, i, r, get_reg(c, i, r) + step);
		if (!rep)
			break;
		set_reg(c, i, R_CX, get_reg(c, i, R_CX) - 1);
		if (interrupted(c))
			break;
	}
	if (rep && get_reg(c, i, R_CX)) {
		c->rip = soft_rip_mask(c, soft_rip(c, i));
		return;
	}
	END(c, i);
}

void op_ins(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, true);
}

void op_outs(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, false);
}
