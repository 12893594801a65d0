/* The x87 instructions as rows [SDM2 A.5]: which exist, how large their memory operand is and which way
 * it goes.
 *
 * Eight opcodes D8..DF, each with eight memory forms by ModRM.reg and sixty-four register forms by the
 * whole ModRM byte. The undocumented aliases (D0-D7 in DC, DE; C8-CF and D0-DF in DD, DF; D8-DF in D9)
 * exist on every processor since the 8087 and run natively like the rest. FENI, FDISI and FSETPM (DB E0,
 * E1, E4) do nothing [SDM1 8.3.4].
 *
 * Called by the decoder. Tables only.
 */
#include "cpu/soft/decode.h"

#include "cpu/soft/fpu.h"
#include "x86/cpuid.h"

/* clang-format off */
#define LD(n)  { .msz = (n), .flags = NR_VALID | NR_X87 | NR_LOAD }
#define ST(n)  { .msz = (n), .flags = NR_VALID | NR_X87 | NR_STORE }
#define TT(n)  { .msz = (n), .flags = NR_VALID | NR_X87 | NR_STORE, .feature = X86_FEATURE_SSE3 } /* FISTTP */
#define FN(f)  { .flags = NR_VALID | NR_X87, .fn = (f) }
#define NONE   { .flags = 0 }

static const struct native_row mem_rows[8][8] = {
	/* FADD FMUL FCOM FCOMP FSUB FSUBR FDIV FDIVR m32 */
	[0] = { LD(4), LD(4), LD(4), LD(4), LD(4), LD(4), LD(4), LD(4) },
	/* FLD m32, -, FST m32, FSTP m32, FLDENV, FLDCW, FNSTENV, FNSTCW */
	[1] = { LD(4), NONE, ST(4), ST(4), FN(op_x87_ldenv), LD(2), FN(op_x87_stenv), ST(2) },
	/* FIADD ... m32 */
	[2] = { LD(4), LD(4), LD(4), LD(4), LD(4), LD(4), LD(4), LD(4) },
	/* FILD m32, FISTTP, FIST, FISTP m32, -, FLD m80, -, FSTP m80 */
	[3] = { LD(4), TT(4), ST(4), ST(4), NONE, LD(10), NONE, ST(10) },
	/* FADD ... m64 */
	[4] = { LD(8), LD(8), LD(8), LD(8), LD(8), LD(8), LD(8), LD(8) },
	/* FLD m64, FISTTP, FST, FSTP m64, FRSTOR, -, FNSAVE, FNSTSW */
	[5] = { LD(8), TT(8), ST(8), ST(8), FN(op_x87_rstor), NONE, FN(op_x87_save), ST(2) },
	/* FIADD ... m16 */
	[6] = { LD(2), LD(2), LD(2), LD(2), LD(2), LD(2), LD(2), LD(2) },
	/* FILD m16, FISTTP, FIST, FISTP m16, FBLD m80, FILD m64, FBSTP m80, FISTP m64 */
	[7] = { LD(2), TT(2), ST(2), ST(2), LD(10), LD(8), ST(10), ST(8) },
};

static const struct native_row reg_row = { .flags = NR_VALID | NR_X87 };
static const struct native_row cmov_row = { .flags = NR_VALID | NR_X87 | NR_FLAGS_IN, .feature = X86_FEATURE_CMOV };
static const struct native_row comi_row = { .flags = NR_VALID | NR_X87 | NR_FLAGS_OUT, .feature = X86_FEATURE_CMOV };
static const struct native_row init_row = { .flags = NR_VALID | NR_X87, .fn = op_x87_init };
static const struct native_row stsw_ax_row = { .flags = NR_VALID | NR_X87 | NR_IMPL_AXDX };

/* Register forms that exist, one bit for each ModRM C0..FF. */
static const u64 reg_forms[8] = {
	[0] = ~0ull,
	/* FLD, FXCH; FNOP, FSTP1; FCHS FABS FTST FXAM, FLD1..FLDZ; F2XM1.. */
	[1] = 0xffffull | 0xff01ull << 16 | 0x7f33ull << 32 | 0xffffull << 48,
	/* FCMOVB, E, BE, U; FUCOMPP */
	[2] = 0xffffffffull | 1ull << 41,
	/* FCMOVNB, NE, NBE, NU; FENI FDISI FNCLEX FNINIT FSETPM, FUCOMI; FCOMI */
	[3] = 0xffffffffull | 0xff1full << 32 | 0xffull << 48,
	/* FADD FMUL FCOM2 FCOMP3 FSUBR FSUB FDIVR FDIV */
	[4] = ~0ull,
	/* FFREE FXCH4 FST FSTP FUCOM FUCOMP */
	[5] = 0xffffffffffffull,
	/* FADDP FMULP FCOMP5 FCOMPP FSUBRP FSUBP FDIVRP FDIVP */
	[6] = 0xffffull | 0x02ffull << 16 | 0xffffffffull << 32,
	/* FFREEP FXCH7 FSTP8 FSTP9; FNSTSW AX, FUCOMIP, FCOMIP */
	[7] = 0xffffffffull | 0xff01ull << 32 | 0xffull << 48,
};
/* clang-format on */

const struct native_row *x87_row(const struct insn *i)
{
	unsigned op = i->opcode & 7, form = i->modrm & 63;

	if (i->pfx & PFX_LOCK)
		return NULL;
	if (i->modrm < 0xc0) {
		const struct native_row *row = &mem_rows[op][i->modrm >> 3 & 7];

		return row->flags & NR_VALID ? row : NULL;
	}
	if (!(reg_forms[op] >> form & 1))
		return NULL;
	if ((op == 2 || op == 3) && form < 32)
		return &cmov_row;
	if ((op == 3 || op == 7) && form >= 40)
		return &comi_row;
	if (op == 3 && form == 35)
		return &init_row;
	if (op == 7 && form == 32)
		return &stsw_ax_row;
	return &reg_row;
}
