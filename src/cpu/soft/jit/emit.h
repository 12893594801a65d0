/* An assembler for the host: one call, one instruction, into memory that is mapped twice [SDM2 chapter 2].
 *
 * Operands are host registers by number, memory by base, index and displacement, or a field of struct soft_cpu
 * through GS. The writer makes sure that there is room. On the vCPU's thread. */
#pragma once

#include "cpu/soft/soft.h"

struct emit {
	u8 *p;      /* where the next byte is written */
	s64 rx_off; /* from there to where it is executed */
};

#define NO_REG 0xff

/* A register, or memory. */
struct opnd {
	bool is_mem, gs;
	u8 reg;
	u8 base, index, scale; /* NO_REG: none; scale: log2 */
	s32 disp;
};

static inline struct opnd op_reg(unsigned reg)
{
	return (struct opnd){ .reg = (u8)reg };
}

static inline struct opnd op_mem(unsigned base, s32 disp)
{
	return (struct opnd){ .is_mem = true, .base = (u8)base, .index = NO_REG, .disp = disp };
}

static inline struct opnd op_idx(unsigned base, unsigned index, unsigned scale, s32 disp)
{
	return (struct opnd){
		.is_mem = true, .base = (u8)base, .index = (u8)index, .scale = (u8)scale, .disp = disp
	};
}

/* A field of soft_cpu; an index in it may be a variable. */
#define op_cpu(field)                    \
	((struct opnd){ .is_mem = true,  \
			.gs = true,      \
			.base = NO_REG,  \
			.index = NO_REG, \
			.disp = (s32)offsetof(struct soft_cpu, field) })

/* How an instruction is encoded; the low byte of an opcode word is the opcode itself. */
enum emit_flags {
	E_0F = 1 << 8,
	E_0F38 = 2 << 8,
	E_0F3A = 3 << 8,
	E_MAP = 3 << 8,
	E_W = 1 << 10,
	E_66 = 1 << 11,
	E_F2 = 1 << 12,
	E_F3 = 1 << 13,
	E_LOCK = 1 << 14,
	E_BREG = 1 << 15, /* reg is a byte register by number: SPL.. need a REX */
	E_BRM = 1 << 16,  /* rm, likewise */
};

static inline void emit1(struct emit *e, unsigned byte)
{
	*e->p++ = (u8)byte;
}

static inline void emit4(struct emit *e, u32 v)
{
	st32(e->p, v);
	e->p += 4;
}

static inline void emit8(struct emit *e, u64 v)
{
	st64(e->p, v);
	e->p += 8;
}

/* The low n bytes of v: what follows an opcode of any width. */
static inline void emit_bytes(struct emit *e, u64 v, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		emit1(e, (u8)(v >> 8 * k));
}

/* How an opcode word says an operand size of 2, 4, 8 bytes; 1 is another opcode. */
static inline u32 emit_size(unsigned size)
{
	return size == 8 ? E_W : size == 2 ? E_66 : 0;
}

static inline bool emit_fits(s64 disp)
{
	return disp == (s32)disp;
}

static inline const u8 *emit_rx(const struct emit *e)
{
	return e->p + e->rx_off;
}

/* op reg, rm or op rm, reg, as the opcode says; an immediate follows by emit1() or emit4(). */
void emit_op(struct emit *e, u32 op, unsigned reg, const struct opnd *rm);
/* The same under VEX; pp 0 none, 1 66, 2 F3, 3 F2. op: E_0F.., E_W and the opcode. */
void emit_vex(struct emit *e, u32 op, unsigned pp, bool l, unsigned vvvv, unsigned reg,
	      const struct opnd *rm);

/* Under EVEX; fields: insn->evex. Vector registers up to 31. */
void emit_evex(struct emit *e, u32 op, unsigned pp, unsigned fields, unsigned vvvv, unsigned reg,
	       const struct opnd *rm);

#define emit_rm(e, op, reg, ...)                     \
	do {                                         \
		const struct opnd rm_ = __VA_ARGS__; \
		emit_op((e), (op), (reg), &rm_);     \
	} while (0)

/* --- what the translator says often --- */
enum {
	OP_MOV_RM_R = 0x89,
	OP_MOV_R_RM = 0x8b,
	OP_LEA = 0x8d,
	OP_ADD_R_RM = 0x03,
	OP_SUB_R_RM = 0x2b,
	OP_CMP_R_RM = 0x3b,
	OP_CMP_RM_R = 0x39,
	OP_GRP1_IMM8 = 0x83,
	OP_GRP1_IMM = 0x81
};
enum { GRP1_ADD, GRP1_OR, GRP1_ADC, GRP1_SBB, GRP1_AND, GRP1_SUB, GRP1_XOR, GRP1_CMP };

/* The memory operand is at p, in the data behind the code, and reached relative to RIP. No immediate follows. */
static inline void emit_rm_data(struct emit *e, u32 op, unsigned reg, const void *p)
{
	unsigned rex = (op & E_W ? REX_W : 0) | (reg & 8 ? REX_R : 0);

	if (rex)
		emit1(e, 0x40 | rex);
	emit1(e, (u8)op);
	emit1(e, 5 | (reg & 7) << 3);
	emit4(e, (u32)((const u8 *)p - (emit_rx(e) + 4)));
}

static inline void emit_mov(struct emit *e, unsigned dst, unsigned src)
{
	emit_rm(e, E_W | OP_MOV_RM_R, src, op_reg(dst));
}

#define emit_load_cpu(e, reg, field)  emit_rm(e, E_W | OP_MOV_R_RM, reg, op_cpu(field))
#define emit_store_cpu(e, reg, field) emit_rm(e, E_W | OP_MOV_RM_R, reg, op_cpu(field))

/* reg = v, by the shortest form; changes no flags. */
void emit_imm(struct emit *e, unsigned reg, u64 v);
/* group-1 operation (GRP1_*) with an immediate on a 64-bit register. */
void emit_alu_imm(struct emit *e, unsigned op, unsigned reg, s32 imm);

/* A jump with a 32-bit displacement to a known place, or one to be set later: returns where the
 * displacement is. cc: condition, CC_JMP, CC_CALL. */
enum { CC_JMP = 16, CC_CALL = 17 };
u8 *emit_jump(struct emit *e, unsigned cc, const u8 *target_rx);
/* Pads with NOPs so that a field of `size` bytes (4 or 8), which follows `skip` bytes from here, lies within eight
 * aligned bytes: it can be changed by one store that every processor sees as one [SDM3 8.1.1]. */
void emit_align(struct emit *e, unsigned skip, unsigned size);
/* Sets the displacement at `at` so that it leads to target_rx: one 4-byte store. */
void emit_set_jump(u8 *at, s64 rx_off, const u8 *target_rx);
/* Here is where the jump at `at` goes. */
static inline void emit_land(const struct emit *e, u8 *at)
{
	emit_set_jump(at, e->rx_off, emit_rx(e));
}
/* JRCXZ, forward; and its landing. */
u8 *emit_jrcxz(struct emit *e);
static inline void emit_land8(const struct emit *e, u8 *at)
{
	*at = (u8)(e->p - (at + 1));
}
