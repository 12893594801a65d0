/* A debugger's registers as one table, of which the description and all transfers are made.
 *
 * The features org.gnu.gdb.i386.* and their registers' names are GDB's [GDB G.5.10]; gdb knows these by name and shows ymm and
 * zmm as wholes. What it does not know, control and system registers, is in a feature of our own.
 *
 * Order: what is asked for at every stop comes first, and is all that is in the packet `g`.
 */
#include "gdb/gdbregs.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"

enum { F_CORE, F_SEGMENTS, F_SSE, F_SYSTEM, F_AVX, F_AVX512, NR_FEATURES };

static const char *const feature_names[NR_FEATURES] = {
	[F_CORE] = "org.gnu.gdb.i386.core", [F_SEGMENTS] = "org.gnu.gdb.i386.segments",
	[F_SSE] = "org.gnu.gdb.i386.sse",   [F_SYSTEM] = "org.bothy.x86.system",
	[F_AVX] = "org.gnu.gdb.i386.avx",   [F_AVX512] = "org.gnu.gdb.i386.avx512",
};

/* Types that are used in a feature have to be in it. */
#define TYPE_FLAGS                                                                                                      \
	"<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" "  \
	"end=\"1\"/><field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/><field "        \
	"name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" "  \
	"end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/><field "      \
	"name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" "          \
	"start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" "         \
	"end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/><field " \
	"name=\"ID\" start=\"21\" end=\"21\"/></flags>"
#define TYPE_VEC128                                                                                                  \
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>" \
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"         \
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"         \
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"       \
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"                         \
	"<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"                         \
	"<field name=\"uint128\" type=\"uint128\"/></union>"
#define TYPE_V2UI128 "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>"

static const char *const feature_types[NR_FEATURES] = {
	[F_CORE] = TYPE_FLAGS, [F_SEGMENTS] = "", [F_SSE] = TYPE_VEC128,
	[F_SYSTEM] = "",       [F_AVX] = "",      [F_AVX512] = TYPE_VEC128 TYPE_V2UI128,
};

/* Where a register's value is. */
enum {
	S_FIELD, /* at: offset in struct gdb_cpu */
	S_READ_ONLY,
	S_CANONICAL, /* takes canonical addresses only */
	S_FLAGS,
	S_MXCSR,
	S_FIELD16,
	S_PC,
	S_SELECTOR, /* at: enum x86_seg */
	S_XSAVE,    /* at: offset in the XSAVE image, of the legacy part, which is always there */
	S_XSAVE16,
	S_FTW, /* as one bit per register there, two here */
	S_AVX, /* as S_XSAVE, of a component that may be in its initial state */
	S_OPMASK,
	S_ZMM_HI256,
	S_HI16_ZMM,
};

static const u64 component[] = {
	[S_AVX] = XFEATURE_AVX,
	[S_OPMASK] = XFEATURE_OPMASK,
	[S_ZMM_HI256] = XFEATURE_ZMM_HI256,
	[S_HI16_ZMM] = XFEATURE_HI16_ZMM,
};

/* Of the legacy part [SDM1 10.5.1]. */
#define XSAVE_FCW   0
#define XSAVE_FSW   2
#define XSAVE_FTW   4
#define XSAVE_FOP   6
#define XSAVE_FIP   8
#define XSAVE_FCS   12
#define XSAVE_FDP   16
#define XSAVE_FDS   20
#define XSAVE_MXCSR 24
#define XSAVE_ST    32
#define XSAVE_XMM   160
#define XSAVE_BV    512

#define AT(field)      ((u16)offsetof(struct gdb_cpu, state.field))
#define AT_N(field, n) ((u16)(AT(field) + (n) * sizeof(((struct gdb_cpu *)0)->state.field[0])))

/* ---- the table ---- */

static void add(struct gdb_regs *t, unsigned feature, const char *name, int number, const char *tail,
		unsigned size, const char *type, unsigned source, unsigned at)
{
	struct gdb_reg *r = &t->reg[t->nr++];

	*r = (struct gdb_reg){
		.type = type, .feature = (u8)feature, .source = (u8)source, .size = (u8)size, .at = (u16)at
	};
	if (number >= 0)
		snprintf(r->name, sizeof(r->name), "%s%d%s", name, number, tail);
	else
		snprintf(r->name, sizeof(r->name), "%s", name);
}

static void add1(struct gdb_regs *t, unsigned feature, const char *name, unsigned size, const char *type,
		 unsigned source, unsigned at)
{
	add(t, feature, name, -1, "", size, type, source, at);
}

static void add_core(struct gdb_regs *t)
{
	/* In gdb's order, which is not the processor's. */
	static const u8 order64[] = { R_AX, R_BX, R_CX, R_DX, R_SI, R_DI, R_BP, R_SP };
	static const char *const names64[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp" };
	static const char *const names32[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };
	static const u8 segs[] = { SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	static const char *const seg_names[] = { "cs", "ss", "ds", "es", "fs", "gs" };
	bool is_64 = t->bits == 64;
	unsigned word = is_64 ? 8 : 4;

	for (unsigned k = 0; k < 8; k++) {
		unsigned r = is_64 ? order64[k] : k;
		bool stack = r == R_SP || r == R_BP;

		add1(t, F_CORE, is_64 ? names64[k] : names32[k], word,
		     stack   ? "data_ptr"
		     : is_64 ? "int64"
			     : "int32",
		     S_FIELD, AT_N(gpr, r));
	}
	for (int k = 8; is_64 && k < 16; k++)
		add(t, F_CORE, "r", k, "", 8, "int64", S_FIELD, AT_N(gpr, (unsigned)k));
	add1(t, F_CORE, is_64 ? "rip" : "eip", word, "code_ptr", S_PC, 0);
	add1(t, F_CORE, "eflags", 4, "i386_eflags", S_FLAGS, AT(rflags));
	for (unsigned k = 0; k < ARRAY_SIZE(segs); k++)
		add1(t, F_CORE, seg_names[k], 4, "int32", S_SELECTOR, segs[k]);
	for (int k = 0; k < 8; k++)
		add(t, F_CORE, "st", k, "", 10, "i387_ext", S_XSAVE, XSAVE_ST + 16 * (unsigned)k);
	add1(t, F_CORE, "fctrl", 4, "int", S_XSAVE16, XSAVE_FCW);
	add1(t, F_CORE, "fstat", 4, "int", S_XSAVE16, XSAVE_FSW);
	add1(t, F_CORE, "ftag", 4, "int", S_FTW, XSAVE_FTW);
	add1(t, F_CORE, "fiseg", 4, "int", S_XSAVE16, XSAVE_FCS);
	add1(t, F_CORE, "fioff", 4, "int", S_XSAVE, XSAVE_FIP);
	add1(t, F_CORE, "foseg", 4, "int", S_XSAVE16, XSAVE_FDS);
	add1(t, F_CORE, "fooff", 4, "int", S_XSAVE, XSAVE_FDP);
	add1(t, F_CORE, "fop", 4, "int", S_XSAVE16, XSAVE_FOP);
}

static void add_vectors(struct gdb_regs *t, bool avx, bool avx512)
{
	int n = t->bits == 64 ? 16 : 8;

	for (int k = 0; avx && k < n; k++)
		add(t, F_AVX, "ymm", k, "h", 16, "uint128", S_AVX, X86_XSAVE_AVX_OFFSET + 16 * (unsigned)k);
	if (!avx512)
		return;
	for (int k = 0; k < 8; k++)
		add(t, F_AVX512, "k", k, "", 8, "uint64", S_OPMASK,
		    X86_XSAVE_OPMASK_OFFSET + 8 * (unsigned)k);
	for (int k = 0; k < n; k++)
		add(t, F_AVX512, "zmm", k, "h", 32, "v2ui128", S_ZMM_HI256,
		    X86_XSAVE_ZMM_HI256_OFFSET + 32 * (unsigned)k);
	for (int k = 16; n == 16 && k < 32; k++) {
		unsigned at = X86_XSAVE_HI16_ZMM_OFFSET + 64 * (unsigned)(k - 16);

		add(t, F_AVX512, "xmm", k, "", 16, "vec128", S_HI16_ZMM, at);
		add(t, F_AVX512, "ymm", k, "h", 16, "uint128", S_HI16_ZMM, at + 16);
		add(t, F_AVX512, "zmm", k, "h", 32, "v2ui128", S_HI16_ZMM, at + 32);
	}
}

static void add_system(struct gdb_regs *t)
{
	static const struct {
		const char *name;
		u16 at;
		u8 source;
	} rows[] = {
		{ "cr0", AT(cr0), S_FIELD },
		{ "cr2", AT(cr2), S_FIELD },
		{ "cr3", AT(cr3), S_FIELD },
		{ "cr4", AT(cr4), S_FIELD },
		{ "cr8", offsetof(struct gdb_cpu, cr8), S_FIELD },
		{ "efer", AT(efer), S_FIELD },
		{ "xcr0", AT(xcr0), S_READ_ONLY },
		{ "es_base", AT(seg[SEG_ES].base), S_FIELD },
		{ "cs_base", AT(seg[SEG_CS].base), S_FIELD },
		{ "ss_base", AT(seg[SEG_SS].base), S_FIELD },
		{ "ds_base", AT(seg[SEG_DS].base), S_FIELD },
		{ "k_gs_base", AT(kernel_gs_base), S_CANONICAL },
		{ "gdtr", AT(gdtr.base), S_FIELD },
		{ "gdtr_limit", AT(gdtr.limit), S_FIELD16 },
		{ "idtr", AT(idtr.base), S_FIELD },
		{ "idtr_limit", AT(idtr.limit), S_FIELD16 },
		{ "ldtr", AT(ldtr.sel), S_FIELD16 },
		{ "ldtr_base", AT(ldtr.base), S_FIELD },
		{ "tr", AT(tr.sel), S_FIELD16 },
		{ "tr_base", AT(tr.base), S_FIELD },
		{ "dr0", AT_N(dr, 0), S_FIELD },
		{ "dr1", AT_N(dr, 1), S_FIELD },
		{ "dr2", AT_N(dr, 2), S_FIELD },
		{ "dr3", AT_N(dr, 3), S_FIELD },
		{ "dr6", AT(dr6), S_FIELD },
		{ "dr7", AT(dr7), S_FIELD },
		{ "star", AT(star), S_FIELD },
		{ "lstar", AT(lstar), S_FIELD },
		{ "cstar", AT(cstar), S_FIELD },
		{ "sfmask", AT(sfmask), S_FIELD },
		{ "sysenter_cs", AT(sysenter_cs), S_FIELD },
		{ "sysenter_esp", AT(sysenter_esp), S_FIELD },
		{ "sysenter_eip", AT(sysenter_eip), S_FIELD },
		{ "pat", AT(pat), S_FIELD },
		{ "tsc_aux", AT(tsc_aux), S_FIELD },
	};

	if (t->bits != 64) {
		add1(t, F_SYSTEM, "fs_base", 8, "uint64", S_CANONICAL, AT(seg[SEG_FS].base));
		add1(t, F_SYSTEM, "gs_base", 8, "uint64", S_CANONICAL, AT(seg[SEG_GS].base));
	}
	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++)
		add1(t, F_SYSTEM, rows[k].name, 8, "uint64", rows[k].source, rows[k].at);
}

void gdbregs_init(struct gdb_regs *t, unsigned bits, bool avx, bool avx512)
{
	memset(t, 0, sizeof(*t));
	t->bits = bits;
	add_core(t);
	if (bits == 64) {
		add1(t, F_SEGMENTS, "fs_base", 8, "int", S_CANONICAL, AT(seg[SEG_FS].base));
		add1(t, F_SEGMENTS, "gs_base", 8, "int", S_CANONICAL, AT(seg[SEG_GS].base));
	}
	for (int k = 0; k < (bits == 64 ? 16 : 8); k++)
		add(t, F_SSE, "xmm", k, "", 16, "vec128", S_XSAVE, XSAVE_XMM + 16 * (unsigned)k);
	add1(t, F_SSE, "mxcsr", 4, "int", S_MXCSR, XSAVE_MXCSR);
	t->nr_group = t->nr;
	add_system(t);
	add_vectors(t, avx, avx512);
}

/* ---- values ---- */

static bool is_64bit_code(const struct x86_state *s)
{
	return s->efer & EFER_LMA && s->seg[SEG_CS].attr & SA_L;
}

static u64 get_pc(const struct x86_state *s)
{
	return is_64bit_code(s) ? s->rip : (u32)(s->rip + s->seg[SEG_CS].base);
}

static void set_pc(struct x86_state *s, u64 pc)
{
	s->rip = is_64bit_code(s) ? pc : (u32)(pc - s->seg[SEG_CS].base);
}

/* [SDM1 8.1.7]: two bits per register: 0 valid, 1 zero, 2 special, 3 empty. Which of the first three, gdb finds by the value. */
static u16 full_tags(u8 abridged)
{
	u16 tags = 0;

	for (unsigned k = 0; k < 8; k++)
		if (!(abridged >> k & 1))
			tags |= (u16)(3 << 2 * k);
	return tags;
}

static u8 abridged_tags(u16 tags)
{
	u8 abridged = 0;

	for (unsigned k = 0; k < 8; k++)
		if ((tags >> 2 * k & 3) != 3)
			abridged |= (u8)(1 << k);
	return abridged;
}

/* The bytes of r, which are sent as they are; NULL: they are to be made. */
static u8 *place(const struct gdb_reg *r, struct gdb_cpu *cpu)
{
	switch (r->source) {
	case S_FIELD:
	case S_READ_ONLY:
	case S_CANONICAL:
	case S_FLAGS: return (u8 *)cpu + r->at;
	case S_XSAVE:
	case S_MXCSR:
	case S_AVX:
	case S_OPMASK:
	case S_ZMM_HI256:
	case S_HI16_ZMM: return cpu->state.xsave + r->at;
	default: return NULL;
	}
}

/* In its initial state a component is all 0, whatever its part of the image holds [SDM1 13.6]. */
static bool is_initial(const struct gdb_reg *r, const struct x86_state *s)
{
	return r->source >= S_AVX && !(ld64(s->xsave + XSAVE_BV) & component[r->source]);
}

void gdbregs_get(const struct gdb_regs *regs, unsigned n, const struct gdb_cpu *cpu, u8 *ret_value)
{
	const struct gdb_reg *r = &regs->reg[n];
	const u8 *from = place(r, (struct gdb_cpu *)cpu);
	u64 v = 0;

	memset(ret_value, 0, r->size);
	if (from) {
		if (!is_initial(r, &cpu->state))
			memcpy(ret_value, from, r->size);
		return;
	}
	switch (r->source) {
	case S_FIELD16: v = ld16((const u8 *)cpu + r->at); break;
	case S_PC: v = get_pc(&cpu->state); break;
	case S_SELECTOR: v = cpu->state.seg[r->at].sel; break;
	case S_XSAVE16: v = ld16(cpu->state.xsave + r->at); break;
	case S_FTW: v = full_tags(cpu->state.xsave[r->at]); break;
	default: break;
	}
	for (unsigned k = 0; k < r->size && k < 8; k++)
		ret_value[k] = (u8)(v >> 8 * k);
}

/* The component is not in its initial state any more: what else is in it was 0. */
static void begin_component(const struct gdb_reg *r, struct x86_state *s)
{
	static const struct {
		u16 at, len;
	} part[] = {
		[S_AVX] = { X86_XSAVE_AVX_OFFSET, 256 },
		[S_OPMASK] = { X86_XSAVE_OPMASK_OFFSET, 64 },
		[S_ZMM_HI256] = { X86_XSAVE_ZMM_HI256_OFFSET, 512 },
		[S_HI16_ZMM] = { X86_XSAVE_HI16_ZMM_OFFSET, 1024 },
	};

	memset(s->xsave + part[r->source].at, 0, part[r->source].len);
	st64(s->xsave + XSAVE_BV, ld64(s->xsave + XSAVE_BV) | component[r->source]);
}

/* Without protection a selector is a paragraph. With it, base and rights stay what they are: no descriptor is looked at. */
static void set_selector(struct x86_state *s, unsigned seg, u16 sel)
{
	s->seg[seg].sel = sel;
	if (!(s->cr0 & CR0_PE))
		s->seg[seg].base = (u64)sel << 4;
}

/* What the processor has of it, but for VM, which goes with all the segments. */
#define FLAGS_KNOWN (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_AC | FL_ID)

bool gdbregs_set(const struct gdb_regs *regs, unsigned n, struct gdb_cpu *cpu, const u8 *value)
{
	const struct gdb_reg *r = &regs->reg[n];
	struct x86_state *s = &cpu->state;
	u8 *to = place(r, cpu);
	u64 v = 0;

	for (unsigned k = 0; k < r->size && k < 8; k++)
		v |= (u64)value[k] << 8 * k;
	if (r->source == S_READ_ONLY || (r->source == S_CANONICAL && bits_sext(v, 48) != v) ||
	    (r->source == S_MXCSR && v >> 16))
		return false;
	if (r->source == S_FLAGS) {
		s->rflags = (s->rflags & FL_VM) | (v & FLAGS_KNOWN) | FL_RES1;
		return true;
	}
	if (to) {
		if (is_initial(r, s))
			begin_component(r, s);
		if (r->source == S_XSAVE || r->source == S_MXCSR)
			st64(s->xsave + XSAVE_BV, ld64(s->xsave + XSAVE_BV) | XFEATURE_X87 | XFEATURE_SSE);
		memcpy(to, value, r->size);
		return true;
	}
	switch (r->source) {
	case S_FIELD16: st16((u8 *)cpu + r->at, (u16)v); break;
	case S_PC: set_pc(s, v); break;
	case S_SELECTOR: set_selector(s, r->at, (u16)v); break;
	case S_XSAVE16: st16(s->xsave + r->at, (u16)v); break;
	case S_FTW: s->xsave[r->at] = abridged_tags((u16)v); break;
	default: break;
	}
	return true;
}

/* ---- the description ---- */

char *gdbregs_xml(const struct gdb_regs *regs)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int feature = -1;

	if (!out)
		return NULL;
	fprintf(out,
		"<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target><architecture>%s"
		"</architecture>",
		regs->bits == 64   ? "i386:x86-64"
		: regs->bits == 32 ? "i386"
				   : "i8086");
	for (unsigned k = 0; k < regs->nr; k++) {
		const struct gdb_reg *r = &regs->reg[k];
		const char *group = r->feature == F_SYSTEM    ? "system"
				    : !strcmp(r->type, "int") ? "float"
							      : NULL;

		if (r->feature != feature) {
			fprintf(out, "%s<feature name=\"%s\">%s", feature < 0 ? "" : "</feature>",
				feature_names[r->feature], feature_types[r->feature]);
			feature = r->feature;
		}
		fprintf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", r->name,
			r->size * 8u, r->type, k);
		if (group)
			fprintf(out, " group=\"%s\"", group);
		fputs("/>", out);
	}
	fputs("</feature></target>", out);
	fclose(out);
	return text;
}
