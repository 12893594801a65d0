/* Makes thunks: small functions that execute one guest instruction natively [SDM2 2.1-2.3].
 *
 * The instruction is encoded anew for 64-bit mode: operand size by 66 or REX.W, mandatory prefixes,
 * LOCK, REX, VEX or EVEX, opcode, ModRM, immediate. Segment and address-size prefixes go; a memory operand
 * becomes [P] with P a free host register that holds a pointer. General registers keep their numbers, so
 * that implicit operands and AH..BH need no thought; only RSP is given another number. Around it:
 *
 * 	push callee-saved registers that the guest's instruction names; push the flags' address
 * 	load the flags (ADD makes OF, SAHF the rest); move the pointers to their registers
 * 	load the guest's registers
 * 	the instruction
 * 	store the guest's registers; LAHF, SETO, store the flags; pop; ret
 *
 * A fault in the instruction leaves cpu->gpr, flags and memory as they were. The signal handler
 * (thunk_host.c) then continues in thunk_recover(), which never comes back: soft_raise() jumps to the
 * engine's loop, whose setjmp buffer restores the stack, so that nothing needs to be popped.
 *
 * Stores with a non-temporal hint become ordinary ones: the hint would only let them pass the engine's
 * own ordinary stores. BT, BTS, BTR, BTC of memory with the bit's number in a register would reach
 * beyond their operand: no thunk does them.
 *
 * Thunks are made by whichever vCPU decodes, under the lock of share.h, and run on each vCPU's own thread.
 */
#include "cpu/soft/thunk.h"

#include "cpu/soft/ops.h"
#include "x86/cpuid.h"

#define NO_REG    0xff
#define MAX_INSN  16
#define MAX_THUNK 160

/* What one instruction needs. */
struct form {
	u8 insn[MAX_INSN]; /* encoded; zeros behind */
	u8 len;
	u16 uses; /* guest registers to load and store, by number, but the one in sub */
	u8 sub;   /* host register in place of a guest register, or NO_REG */
	u8 sub_guest;
	u8 mem; /* host register that points at the operand, or NO_REG */
	u8 gpr; /* host register that points at cpu->gpr, or NO_REG */
	bool flags_in, flags_out;
};

/* --- what an instruction names ----------------------------------------------------------- */
/* Features of instructions that use vector registers. */
static bool vector_feature(unsigned feature)
{
	switch (feature) {
	case X86_FEATURE_SSE:
	case X86_FEATURE_SSE2:
	case X86_FEATURE_SSE3:
	case X86_FEATURE_SSSE3:
	case X86_FEATURE_SSE4_1:
	case X86_FEATURE_SSE4_2:
	case X86_FEATURE_AES:
	case X86_FEATURE_PCLMULQDQ:
	case X86_FEATURE_SHA:
	case X86_FEATURE_GFNI:
	case X86_FEATURE_F16C:
	case X86_FEATURE_AVX:
	case X86_FEATURE_AVX2:
	case X86_FEATURE_FMA:
	case X86_FEATURE_VAES:
	case X86_FEATURE_VPCLMULQDQ:
	case X86_FEATURE_AVX_VNNI:
	case X86_FEATURE_MMX: return true;
	default: return false;
	}
}

bool thunk_is_int(const struct insn *i, const struct native_row *row)
{
	if (row->fn == op_native_mem)
		return true;
	return !row->evex && !(row->flags & (NR_X87 | NR_MMX)) && !vector_feature(row->feature);
}

/* BT, BTS, BTR, BTC m, r */
static bool is_bit_string(const struct insn *i)
{
	return i->map == 1 && (i->opcode & 0xe7) == 0xa3 && i->mem && !(i->pfx & PFX_VEX);
}

/* CRC32 r, r/m8: the source alone is a byte. */
static bool is_crc32_byte(const struct insn *i)
{
	return i->map == 2 && i->opcode == 0xf0 && i->pfx & PFX_F2;
}

/* The opcode to execute: non-temporal stores as ordinary ones of the same kind. */
static u8 host_opcode(const struct insn *i, bool *ret_one_byte)
{
	*ret_one_byte = false;
	if (i->map != 1 || !i->mem)
		return i->opcode;
	switch (i->opcode) {
	case 0x2b: /* MOVNTPS/PD -> MOVAPS/PD */ return 0x29;
	case 0xe7: /* MOVNTQ -> MOVQ, MOVNTDQ -> MOVDQA */ return 0x7f;
	case 0xc3: /* MOVNTI -> MOV */ *ret_one_byte = true; return 0x89;
	default: return i->opcode;
	}
}

bool thunk_has_modrm(const struct insn *i)
{
	return !(i->map == 1 && i->opcode == 0x77 && !i->evex);
}

/* --- encoding ---------------------------------------------------------------------------- */
struct regs {
	u8 reg, rm, vvvv; /* as the host's instruction names them */
	bool byte_rex;    /* SPL BPL SIL DIL: a REX must be there */
};

static void put(struct form *f, unsigned byte)
{
	if (f->len < MAX_INSN)
		f->insn[f->len++] = (u8)byte;
}

struct thunk_encoding thunk_encoding(const struct insn *i, const struct native_row *row)
{
	bool integer = thunk_is_int(i, row), x87 = row->flags & NR_X87;
	bool gpr = row->flags & (NR_GPR_REG | NR_GPR_RM | NR_GPR_VVVV);
	/* Rows of the integer tables: 66 is the operand size and F2/F3 mean nothing. */
	bool mandatory = !integer || row->fn, adx = i->map == 2 && i->opcode == 0xf6;
	struct thunk_encoding e = { .pp = i->pfx & PFX_66   ? 1
					  : i->pfx & PFX_F3 ? 2
					  : i->pfx & PFX_F2 ? 3
							    : 0 };

	e.opcode = host_opcode(i, &e.one_byte);
	if (i->pfx & PFX_VEX) {
		e.w = gpr ? i->osz == 8 : i->rex & REX_W;
	} else if (!x87) {
		e.p66 = integer && !adx ? i->osz == 2 : (i->pfx & (PFX_66 | PFX_F2 | PFX_F3)) == PFX_66;
		e.f2 = mandatory && i->pfx & PFX_F2;
		e.f3 = mandatory && i->pfx & PFX_F3;
		e.w = i->osz == 8;
	}
	return e;
}

static void encode_legacy(struct form *f, const struct insn *i, const struct native_row *row,
			  const struct regs *r)
{
	struct thunk_encoding e = thunk_encoding(i, row);
	u8 rex = (u8)((e.w ? REX_W : 0) | (r->reg & 8 ? REX_R : 0) | (r->rm & 8 ? REX_B : 0));

	if (i->pfx & PFX_LOCK)
		put(f, 0xf0);
	if (e.p66)
		put(f, 0x66);
	if (e.f2 || e.f3)
		put(f, e.f2 ? 0xf2 : 0xf3);
	if (!(row->flags & NR_X87) && (rex || r->byte_rex))
		put(f, 0x40 | rex);
	if (i->map >= 1 && !e.one_byte)
		put(f, 0x0f);
	if (i->map == 2)
		put(f, 0x38);
	else if (i->map == 3)
		put(f, 0x3a);
	put(f, e.opcode);
}

static void encode_vex(struct form *f, const struct insn *i, const struct native_row *row,
		       const struct regs *r)
{
	struct thunk_encoding e = thunk_encoding(i, row);

	put(f, 0xc4);
	put(f, (r->reg & 8 ? 0 : 0x80) | 0x40 | (r->rm & 8 ? 0 : 0x20) | i->map);
	put(f, (e.w ? 0x80u : 0) | (~r->vvvv & 15u) << 3 | (i->pfx & PFX_VEX_L ? 4 : 0) | e.pp);
	put(f, e.opcode);
}

/* The operand in memory has no displacement, so its compression is of no concern. */
static void encode_evex(struct form *f, const struct insn *i, const struct native_row *row,
			const struct regs *r)
{
	struct thunk_encoding e = thunk_encoding(i, row);

	put(f, 0x62);
	put(f, (r->reg & 8 ? 0 : 0x80) | (r->rm & 16 ? 0 : 0x40) | (r->rm & 8 ? 0 : 0x20) |
		       (r->reg & 16 ? 0 : 0x10) | i->map);
	put(f, (e.w ? 0x80u : 0) | (~r->vvvv & 15u) << 3 | 4 | e.pp);
	put(f, (i->evex & EVEX_Z ? 0x80u : 0) | (i->evex & (EVEX_LL | EVEX_B | EVEX_AAA)) |
		       (r->vvvv & 16 ? 0 : 8));
	put(f, e.opcode);
}

/* The first of the candidates that is not in taken; the low ones first, they need no REX. */
static u8 pick(const u8 *candidates, unsigned n, u32 taken)
{
	for (unsigned k = 0; k < n; k++)
		if (!(taken & BIT(candidates[k])))
			return candidates[k];
	return NO_REG;
}

/* Finds registers and encodes. False: not an instruction that a thunk can do. */
static bool make_form(struct form *f, const struct insn *i, const struct native_row *row)
{
	static const u8 low_first[] = { R_SI, R_CX, R_DX, R_AX, R_DI, R_8, R_9, R_10, R_11 };
	static const u8 for_gpr[] = { R_DI, R_8, R_9, R_10, R_11 };
	bool integer = thunk_is_int(i, row);
	bool byte_reg = integer && i->osz == 1 && !is_crc32_byte(i);
	bool byte_rm = (integer && i->osz == 1) || is_crc32_byte(i);
	bool rex = i->pfx & (PFX_REX | PFX_VEX);
	unsigned flags = row->flags;
	struct regs r = { .reg = i->reg, .rm = i->mem ? 0 : i->rm, .vvvv = i->vvvv };
	u32 taken = BIT(R_SP), named = 0;
	bool sp = false;

	if (is_bit_string(i))
		return false;
	*f = (struct form){ .sub = NO_REG, .mem = NO_REG, .gpr = NO_REG };
	f->flags_out = flags & NR_FLAGS_OUT;
	/* Integer instructions change some flags, or none (a shift by 0); the others set all six. */
	f->flags_in = flags & NR_FLAGS_IN || (f->flags_out && integer);

	/* Guest registers, by number. A byte register 4..7 is the high byte of 0..3 unless a REX is there. */
#define NAME(field, is_byte)                             \
	do {                                             \
		if ((is_byte) && !rex && r.field >= 4) { \
			named |= BIT(r.field & 3);       \
		} else {                                 \
			if ((is_byte) && r.field >= 4)   \
				r.byte_rex = true;       \
			if (r.field == R_SP)             \
				sp = true;               \
			else                             \
				named |= BIT(r.field);   \
		}                                        \
	} while (0)
	if (flags & NR_GPR_REG)
		NAME(reg, byte_reg);
	if (flags & NR_GPR_RM && !i->mem)
		NAME(rm, byte_rm);
	if (flags & NR_GPR_VVVV)
		NAME(vvvv, false);
#undef NAME
	if (flags & NR_IMPL_AXDX)
		named |= BIT(R_AX) | BIT(R_DX);
	if (flags & NR_IMPL_CX)
		named |= BIT(R_CX);
	f->uses = (u16)named;
	taken |= named;

	if (sp) {
		f->sub = pick(low_first, ARRAY_SIZE(low_first), taken);
		f->sub_guest = R_SP;
		if (flags & NR_GPR_REG && r.reg == R_SP && !(byte_reg && !rex))
			r.reg = f->sub;
		if (flags & NR_GPR_RM && !i->mem && r.rm == R_SP && !(byte_rm && !rex))
			r.rm = f->sub;
		if (flags & NR_GPR_VVVV && r.vvvv == R_SP)
			r.vvvv = f->sub;
	}
	if (f->sub != NO_REG)
		taken |= BIT(f->sub);
	if (i->mem) {
		/* SI stays where the caller put it, unless it is the guest's. DI is the other pointer. */
		f->mem = pick(low_first, ARRAY_SIZE(low_first), taken | BIT(R_DI));
		taken |= BIT(f->mem);
		r.rm = f->mem;
	}
	if (f->uses || f->sub != NO_REG)
		f->gpr = pick(for_gpr, ARRAY_SIZE(for_gpr), taken | BIT(R_SI));

	if (i->evex)
		encode_evex(f, i, row, &r);
	else if (i->pfx & PFX_VEX)
		encode_vex(f, i, row, &r);
	else
		encode_legacy(f, i, row, &r);
	if (thunk_has_modrm(i))
		put(f, i->mem ? (r.reg & 7u) << 3 | (r.rm & 7u) : 0xc0u | (r.reg & 7u) << 3 | (r.rm & 7u));
	if (flags & NR_IMM8)
		put(f, (u8)i->imm);
	return f->len < MAX_INSN;
}

/* --- the function around it -------------------------------------------------------------- */
struct out {
	u8 *p;
	u32 n;
};

static void out1(struct out *o, unsigned byte)
{
	o->p[o->n++] = (u8)byte;
}

static void out_push(struct out *o, unsigned reg)
{
	if (reg & 8)
		out1(o, 0x41);
	out1(o, 0x50 | (reg & 7));
}

static void out_pop(struct out *o, unsigned reg)
{
	if (reg & 8)
		out1(o, 0x41);
	out1(o, 0x58 | (reg & 7));
}

/* mov dst, src */
static void out_mov(struct out *o, unsigned dst, unsigned src)
{
	out1(o, 0x48 | (src & 8 ? REX_R : 0) | (dst & 8 ? REX_B : 0));
	out1(o, 0x89);
	out1(o, 0xc0 | (src & 7) << 3 | (dst & 7));
}

/* mov reg, [base + 8 * guest] or back; base is none that needs a SIB */
static void out_gpr(struct out *o, bool store, unsigned reg, unsigned base, unsigned guest)
{
	out1(o, 0x48 | (reg & 8 ? REX_R : 0) | (base & 8 ? REX_B : 0));
	out1(o, store ? 0x89 : 0x8b);
	out1(o, 0x40 | (reg & 7) << 3 | (base & 7));
	out1(o, 8 * guest);
}

static void out_thunk(struct out *o, const struct form *f)
{
	static const u8 callee_saved[] = { R_BX, R_BP, R_12, R_13, R_14, R_15 };

	for (unsigned k = 0; k < ARRAY_SIZE(callee_saved); k++)
		if (f->uses & BIT(callee_saved[k]))
			out_push(o, callee_saved[k]);
	if (f->flags_out)
		out_push(o, R_DX);
	if (f->flags_in) {
		static const u8 load[] = {
			0x0f, 0xb7, 0x02, /* movzx eax, word [rdx] */
			0x04, 0x7f,       /* add al, 7FH: OF if al was 1 */
			0x9e,             /* sahf */
		};

		for (unsigned k = 0; k < sizeof(load); k++)
			out1(o, load[k]);
	}
	if (f->gpr != NO_REG && f->gpr != R_DI)
		out_mov(o, f->gpr, R_DI);
	if (f->mem != NO_REG && f->mem != R_SI)
		out_mov(o, f->mem, R_SI);
	for (unsigned k = 0; k < X86_NR_GPR; k++)
		if (f->uses & BIT(k))
			out_gpr(o, false, k, f->gpr, k);
	if (f->sub != NO_REG)
		out_gpr(o, false, f->sub, f->gpr, f->sub_guest);

	for (unsigned k = 0; k < f->len; k++)
		out1(o, f->insn[k]);

	for (unsigned k = 0; k < X86_NR_GPR; k++)
		if (f->uses & BIT(k))
			out_gpr(o, true, k, f->gpr, k);
	if (f->sub != NO_REG)
		out_gpr(o, true, f->sub, f->gpr, f->sub_guest);
	if (f->flags_out) {
		static const u8 store[] = {
			0x9f,             /* lahf */
			0x0f, 0x90, 0xc0, /* seto al */
			0x5a,             /* pop rdx */
			0x66, 0x89, 0x02, /* mov [rdx], ax */
		};

		for (unsigned k = 0; k < sizeof(store); k++)
			out1(o, store[k]);
	}
	for (unsigned k = ARRAY_SIZE(callee_saved); k-- > 0;)
		if (f->uses & BIT(callee_saved[k]))
			out_pop(o, callee_saved[k]);
	out1(o, 0xc3);
}

/* --- the arena --------------------------------------------------------------------------- */
static u32 hash(u64 a, u64 b, u32 flags)
{
	u64 h = (a ^ (u64)flags << 40) * 0x9e3779b97f4a7c15ull;

	h ^= h >> 29;
	h = (h ^ b) * 0xbf58476d1ce4e5b9ull;
	return (u32)(h >> 32);
}

thunk_fn thunk_get(struct thunk_arena *a, const struct insn *i, const struct native_row *row)
{
	struct thunk_slot *s;
	struct form f;
	u64 k0, k1;
	u32 flags;

	if (!make_form(&f, i, row))
		return NULL;
	k0 = ld64(f.insn);
	k1 = ld64(f.insn + 8);
	/* A register in the instruction may be the guest's of that number, or stand for another. */
	flags = row->flags | (u32)f.sub << 16 | (u32)f.sub_guest << 24;
	for (u32 h = hash(k0, k1, flags);; h++) {
		s = &a->slots[h % THUNK_SLOTS];
		if (!s->off)
			break;
		if (s->key[0] == k0 && s->key[1] == k1 && s->flags == flags)
			return (thunk_fn)(uintptr_t)(a->rx + s->off);
	}
	if (a->nr >= THUNK_MAX_NR || a->used + MAX_THUNK > THUNK_CODE_SIZE)
		return NULL;
	struct out o = { .p = a->rw + a->used };
	out_thunk(&o, &f);
	*s = (struct thunk_slot){ .key = { k0, k1 }, .off = a->used, .flags = flags };
	a->used += ALIGN_UP(o.n, 16);
	a->nr++;
	return (thunk_fn)(uintptr_t)(a->rx + s->off);
}

bool thunk_attach(struct thunk_arena *a, struct insn *i)
{
	struct form f;
	thunk_fn code;

	if (!i->thunk)
		return true;
	if (!make_form(&f, i, i->thunk)) {
		/* A row that no thunk can serve: flushing would not help. */
		i->fn = op_ud;
		i->thunk = NULL;
		return true;
	}
	code = thunk_get(a, i, i->thunk);
	if (!code)
		return false;
	i->thunk = (void *)(uintptr_t)code;
	return true;
}

void thunk_reset(struct thunk_arena *a)
{
	for (u32 k = 0; k < THUNK_SLOTS; k++)
		a->slots[k].off = 0;
	a->used = 16;
	a->nr = 0;
}

_Noreturn void thunk_recover(struct soft_cpu *c, const struct insn *i, unsigned vector)
{
	if (vector == EXC_XM && !(c->cr4 & CR4_OSXMMEXCPT))
		vector = EXC_UD;
	soft_raise(c, i, vector, vector == EXC_GP ? 0 : NO_ERROR);
}
