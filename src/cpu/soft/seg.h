/* Descriptors, and the steps that far transfers, returns, task switches and deliveries share.
 * Inside cpu/soft only: seg*.c, excp.c, ops_seg.c. */
#pragma once

#include "cpu/soft/soft.h"

/* Types of system descriptors and gates [SDM3 table 3-2]. */
enum desc_type {
	DT_TSS16 = 1,
	DT_LDT = 2,
	DT_TSS16_BUSY = 3,
	DT_CALL16 = 4,
	DT_TASK = 5,
	DT_INT16 = 6,
	DT_TRAP16 = 7,
	DT_TSS32 = 9,
	DT_TSS32_BUSY = 11,
	DT_CALL32 = 12,
	DT_INT32 = 14,
	DT_TRAP32 = 15,
};

/* Fields of a descriptor's (first) eight bytes [SDM3 3.4.5, 5.8.3]. */
static inline unsigned desc_type(u64 d)
{
	return d >> 40 & 0xf;
}
static inline bool desc_is_user(u64 d)
{
	return d >> 44 & 1;
} /* S: code or data */
static inline unsigned desc_dpl(u64 d)
{
	return d >> 45 & 3;
}
static inline bool desc_present(u64 d)
{
	return d >> 47 & 1;
}
static inline bool desc_l(u64 d)
{
	return d >> 53 & 1;
}
static inline bool desc_db(u64 d)
{
	return d >> 54 & 1;
}
static inline bool desc_is_code(u64 d)
{
	return desc_is_user(d) && d >> 43 & 1;
}
static inline bool desc_is_conforming(u64 d)
{
	return d >> 42 & 1;
} /* of a code segment */
static inline bool desc_is_data(u64 d)
{
	return desc_is_user(d) && !(d >> 43 & 1);
}
static inline bool desc_is_writable(u64 d)
{
	return desc_is_data(d) && d >> 41 & 1;
}
static inline bool desc_is_readable(u64 d)
{
	return desc_is_data(d) || (desc_is_code(d) && d >> 41 & 1);
}
static inline u32 desc_base(u64 d)
{
	return (d >> 16 & 0xffffff) | (d >> 56 << 24);
}

static inline u32 desc_limit(u64 d)
{
	u32 limit = (d & 0xffff) | (d >> 32 & 0xf0000);
	return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static inline u16 gate_sel(u64 d)
{
	return (u16)(d >> 16);
}
static inline u32 gate_off(u64 d)
{
	return (d & 0xffff) | (d >> 32 & 0xffff0000);
}

static inline bool seg_is_null(u16 sel)
{
	return !(sel & 0xfffc);
}
static inline bool seg_canonical(u64 la)
{
	return bits_sext(la, 48) == la;
}

/* The error code that names sel; EXT while an event is delivered [SDM3 6.13]. */
static inline s64 seg_err(const struct soft_cpu *c, u16 sel)
{
	return (sel & 0xfffc) | (c->delivering != -1);
}

/* Outside long mode linear addresses have 32 bits. */
static inline gva_t seg_la(const struct soft_cpu *c, gva_t la)
{
	return soft_long(c) ? la : (u32)la;
}

/* seg.c */
/* Reads eight bytes of sel's descriptor; false when sel is beyond its table, or there is no LDT. */
bool seg_desc_read(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_desc);
/* The upper half of a 16-byte descriptor; false when it is beyond the table. */
bool seg_desc_read_hi(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_hi);
/* Sets bits of byte 5 (type) by a locked access; clears them likewise. */
void seg_desc_set_type(struct soft_cpu *c, const struct insn *i, u16 sel, u8 bits);
void seg_desc_clear_type(struct soft_cpu *c, const struct insn *i, u16 sel, u8 bits);
/* Makes sure that A is set in memory and in *desc. */
void seg_desc_accessed(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *desc);
/* The cache of a descriptor. */
void seg_cache(struct x86_segreg *s, u16 sel, u64 desc);
void seg_cache_null(struct x86_segreg *s, u16 sel);
/* CS := sel:desc with RPL = cpl, CPL := cpl. */
void seg_set_cs(struct soft_cpu *c, u16 sel, u64 desc, unsigned cpl);
/* #GP(err) unless rip is inside the code segment desc (64-bit: canonical). */
void seg_check_rip(struct soft_cpu *c, const struct insn *i, u64 desc, u64 rip, s64 err);
/* Whether [off, off+size) may be accessed through s. */
bool seg_range_ok(const struct soft_cpu *c, const struct x86_segreg *s, u64 off, unsigned size, unsigned acc);

/* A stack that a frame is built on, before it becomes SS:rSP. */
struct seg_stack {
	struct x86_segreg ss;
	u64 sp, mask;
	bool flat; /* 64-bit: no segment */
	bool sys;  /* by supervisor rights whatever CPL is now */
};

#define SEG_MAX_FRAME 36

void seg_stack_current(const struct soft_cpu *c, struct seg_stack *st);
/* The stack for privilege level dpl out of a 16- or 32-bit TSS, with all checks; ext goes to error codes. */
void seg_stack_inner(struct soft_cpu *c, const struct insn *i, unsigned dpl, unsigned ext,
		     struct seg_stack *st);
/* RSP number n (0-2; 3 + IST index) of the 64-bit TSS. */
u64 seg_stack_tss64(struct soft_cpu *c, const struct insn *i, unsigned n, unsigned ext);
/* Pushes val[0..n), size bytes each; probes all before it writes; #SS(err). Moves st->sp. */
void seg_stack_push(struct soft_cpu *c, const struct insn *i, struct seg_stack *st, const u64 *val,
		    unsigned n, unsigned size, s64 err);

/* seg_far.c */
/* The checks of the code segment that RETF and IRET return to [SDM2 RET]. */
void seg_far_check_return(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_desc);
/* The stack segment that goes with it; cs_desc, rpl: of the code segment. null: sel is an allowed null
 * selector. */
void seg_far_check_return_ss(struct soft_cpu *c, const struct insn *i, u16 sel, u64 cs_desc, unsigned rpl,
			     u64 *ret_desc, bool *ret_null);
/* ES, DS, FS, GS that the new, outer CPL may not use become null. */
void seg_far_drop_data(struct soft_cpu *c);
