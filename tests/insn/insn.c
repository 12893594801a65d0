/* The frame of the instruction tests: batches, comparison, printing, random states. */
#include "insn.h"

#include <stdlib.h>
#include <string.h>

#include "x86/cpuid.h"
#include "x86/disasm.h"

struct insn_case *insn_batch;

static const char *const reg_names[X86_NR_GPR] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

void insn_start(const char *cpu_model, unsigned patience_ms)
{
	insn_batch = native_start(patience_ms);
	machine_start(cpu_model);
}

void insn_stop(void)
{
	native_stop();
	machine_stop();
}

bool insn_has(unsigned feature)
{
	return machine_has(feature);
}

/* The header says which parts are in their initial state; their bytes may then be anything [SDM1 13.6]. */
static void normalize(u8 *x)
{
	u64 bv = ld64(x + 512);
	if (!(bv & XFEATURE_X87)) {
		memset(x, 0, 24);
		st16(x, 0x37f);
		memset(x + 32, 0, 128);
	}
	if (!(bv & XFEATURE_SSE))
		memset(x + 160, 0, 256);
	if (!(bv & XFEATURE_AVX))
		memset(x + X86_XSAVE_AVX_OFFSET, 0, 256);
	if (!(bv & XFEATURE_OPMASK))
		memset(x + X86_XSAVE_OPMASK_OFFSET, 0, 64);
	if (!(bv & XFEATURE_ZMM_HI256))
		memset(x + X86_XSAVE_ZMM_HI256_OFFSET, 0, 512);
	if (!(bv & XFEATURE_HI16_ZMM))
		memset(x + X86_XSAVE_HI16_ZMM_OFFSET, 0, 1024);
}

/* Part (8 bytes) of vector register n in the image. */
static unsigned vec_offset(unsigned n, unsigned part)
{
	if (n >= 16)
		return X86_XSAVE_HI16_ZMM_OFFSET + 64 * (n - 16) + 8 * part;
	if (part >= 4)
		return X86_XSAVE_ZMM_HI256_OFFSET + 32 * n + 8 * (part - 4);
	return part < 2 ? 160 + 16 * n + 8 * part : X86_XSAVE_AVX_OFFSET + 16 * n + 8 * (part - 2);
}

static void vec_shape(unsigned *ret_regs, unsigned *ret_parts)
{
	bool avx512 = insn_has(X86_FEATURE_AVX512F);

	*ret_regs = avx512 ? 32 : 16;
	*ret_parts = avx512 ? 8 : insn_has(X86_FEATURE_AVX) ? 4 : 2;
}

int insn_run(unsigned n)
{
	int dead = native_run(n);
	if (dead >= 0)
		return dead;
	for (unsigned k = 0; k < n; k++) {
		if (insn_batch[k].native.vector == INSN_ENDLESS) {
			insn_batch[k].soft = insn_batch[k].native;
			continue;
		}
		machine_run(&insn_batch[k]);
		normalize(insn_batch[k].native.state.xsave);
		normalize(insn_batch[k].soft.state.xsave);
	}
	return -1;
}

/* --- comparison --- */

static bool differ(FILE *out, const char *what, u64 host, u64 soft)
{
	if (out)
		fprintf(out, "  %-8s host %016llx  engine %016llx\n", what, (unsigned long long)host,
			(unsigned long long)soft);
	return false;
}

/* An #PF error code of a kernel address: Linux always says "protection" and keeps to itself what is mapped. The last
 * page below the hole counts as the kernel's. */
static u32 visible_error(const struct insn_result *r)
{
	return r->vector == EXC_PF && r->cr2 >= 0x7ffffffff000 ? r->error & ~(u32)PFEC_P : r->error;
}

static bool pushes_error(int vector)
{
	return vector >= EXC_TS && vector <= EXC_PF;
}

static bool compare_xsave(const u8 *a, const u8 *b, FILE *out)
{
	bool same = true;
	char name[32];
	unsigned parts, regs;
	vec_shape(&regs, &parts);
	if (ld16(a) != ld16(b))
		same = differ(out, "fcw", ld16(a), ld16(b));
	if (ld16(a + 2) != ld16(b + 2))
		same = differ(out, "fsw", ld16(a + 2), ld16(b + 2));
	if (a[4] != b[4])
		same = differ(out, "ftw", a[4], b[4]);
	if (ld32(a + 24) != ld32(b + 24))
		same = differ(out, "mxcsr", ld32(a + 24), ld32(b + 24));
	for (unsigned k = 0; k < 8; k++) {
		snprintf(name, sizeof(name), "st%u", k);
		if (memcmp(a + 32 + 16 * k, b + 32 + 16 * k, 10)) {
			same = differ(out, name, ld64(a + 32 + 16 * k), ld64(b + 32 + 16 * k));
			differ(out, "  exp", ld16(a + 40 + 16 * k), ld16(b + 40 + 16 * k));
		}
	}
	for (unsigned k = 0; k < regs; k++) {
		for (unsigned part = 0; part < parts; part++) {
			unsigned off = vec_offset(k, part);
			snprintf(name, sizeof(name), "zmm%u.%u", k, part);
			if (ld64(a + off) != ld64(b + off))
				same = differ(out, name, ld64(a + off), ld64(b + off));
		}
	}
	for (unsigned k = 0; parts == 8 && k < 8; k++) {
		unsigned off = X86_XSAVE_OPMASK_OFFSET + 8 * k;
		snprintf(name, sizeof(name), "k%u", k);
		if (ld64(a + off) != ld64(b + off))
			same = differ(out, name, ld64(a + off), ld64(b + off));
	}
	return same;
}

/* Which byte of an operand CR2 names is not said: on AMD's processors the first in the page that is not there, on Intel's another one
 * for some vectors. */
static bool only_page(const struct insn_case *c)
{
	return c->loose_cr2 || __builtin_cpu_is("intel");
}

/* Some of the accesses of a store of more than 8 bytes may complete where another one faults [SDM3 9.1.1]. Intel's processors store 8
 * and then 2 bytes for FSTP and FBSTP m80. True: the fault of this case is of such a store. */
static bool is_m80_store(const struct insn_case *c)
{
	static const u8 prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3 };
	u64 at = c->native.state.rip - INSN_CODE;
	u8 op, modrm;

	if (!__builtin_cpu_is("intel") || c->native.vector != EXC_PF || at >= c->len)
		return false;
	while (at + 2 < c->len && (memchr(prefixes, c->code[at], sizeof(prefixes)) ||
				   (c->mode == INSN_64 && c->code[at] >> 4 == 4)))
		at++;
	if (at + 2 > c->len)
		return false;
	op = c->code[at];
	modrm = c->code[at + 1];
	return modrm < 0xc0 &&
	       ((op == 0xdb && (modrm >> 3 & 7) == 7) || (op == 0xdf && (modrm >> 3 & 7) == 6));
}

bool insn_compare(const struct insn_case *c, FILE *out)
{
	const struct insn_result *h = &c->native, *s = &c->soft;
	const struct insn_state *a = &h->state, *b = &s->state;
	unsigned regs = c->mode == INSN_64 ? 16 : 8;
	u64 mask = c->mode == INSN_64 ? ~0ull : 0xffffffff;
	u64 fl = FL_ARITH | FL_DF | FL_AC | FL_ID | FL_NT | FL_IF;
	bool same = true;

	if (h->vector != s->vector)
		same = differ(out, "vector", (u64)h->vector, (u64)s->vector);
	else if (pushes_error(h->vector) && visible_error(h) != visible_error(s))
		same = differ(out, "error", h->error, s->error);
	if (h->vector == EXC_PF && s->vector == EXC_PF && (h->cr2 ^ s->cr2) >> (only_page(c) ? 12 : 0))
		same = differ(out, "cr2", h->cr2, s->cr2);
	if (a->rip != b->rip)
		same = differ(out, "rip", a->rip, b->rip);
	if ((a->flags ^ b->flags) & fl)
		same = differ(out, "flags", a->flags & fl, b->flags & fl);
	for (unsigned r = 0; r < regs; r++)
		if ((a->gpr[r] ^ b->gpr[r]) & mask)
			same = differ(out, reg_names[r], a->gpr[r], b->gpr[r]);
	same &= compare_xsave(a->xsave, b->xsave, out);
	/* What such a store leaves behind lies right before the page that cannot be written. */
	unsigned stored = is_m80_store(c) ? 9 : 0;
	if (memcmp(a->data, b->data, INSN_DATA_RW - stored) ||
	    memcmp(a->data + INSN_DATA_RW, b->data + INSN_DATA_RW, INSN_DATA_SIZE - INSN_DATA_RW)) {
		same = false;
		for (unsigned k = 0, said = 0; k < INSN_DATA_SIZE && said < 8; k += 8)
			if (ld64(a->data + k) != ld64(b->data + k)) {
				char name[16];
				snprintf(name, sizeof(name), "[%x]", (unsigned)(INSN_DATA + k));
				differ(out, name, ld64(a->data + k), ld64(b->data + k));
				said++;
			}
	}
	return same;
}

void insn_print_state(const struct insn_state *s, FILE *out)
{
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		fprintf(out, "  %-3s %016llx%s", reg_names[r], (unsigned long long)s->gpr[r],
			r % 4 == 3 ? "\n" : "");
	fprintf(out, "  flags %08llx fcw %04x fsw %04x ftw %02x mxcsr %08x\n", (unsigned long long)s->flags,
		ld16(s->xsave), ld16(s->xsave + 2), s->xsave[4], ld32(s->xsave + 24));
	for (unsigned k = 0; k < 8; k++)
		fprintf(out, "  st%u %04x.%016llx%s", k, ld16(s->xsave + 40 + 16 * k),
			(unsigned long long)ld64(s->xsave + 32 + 16 * k), k % 4 == 3 ? "\n" : "");
	unsigned regs, parts;
	vec_shape(&regs, &parts);
	for (unsigned k = 0; k < regs; k++) {
		fprintf(out, "  %cmm%-2u ", parts == 8 ? 'z' : 'y', k);
		for (unsigned part = parts; part-- > 0;)
			fprintf(out, "%016llx%s", (unsigned long long)ld64(s->xsave + vec_offset(k, part)),
				part ? "." : "\n");
	}
	for (unsigned k = 0; parts == 8 && k < 8; k++)
		fprintf(out, "  k%u %016llx%s", k,
			(unsigned long long)ld64(s->xsave + X86_XSAVE_OPMASK_OFFSET + 8 * k),
			k % 4 == 3 ? "\n" : "");
}

unsigned insn_disasm(const u8 *code, unsigned len, enum insn_mode mode, u64 rip, char *text, size_t text_len)
{
	return disasm(code, len, mode == INSN_64 ? 64 : 32, rip, text, text_len);
}

/* --- random numbers and states --- */

void insn_seed(struct insn_rng *r, u64 seed)
{
	for (unsigned k = 0; k < 2; k++) { /* splitmix64 */
		u64 z = seed += 0x9e3779b97f4a7c15ull;
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		r->s[k] = z ^ z >> 31;
	}
}

u64 insn_rnd(struct insn_rng *r) /* xoroshiro128+ */
{
	u64 a = r->s[0], b = r->s[1], v = a + b;
	b ^= a;
	r->s[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	r->s[1] = b << 37 | b >> 27;
	return v ^ v >> 32;
}

u64 insn_value(struct insn_rng *r)
{
	u64 v = insn_rnd(r), k = insn_rnd(r);
	switch (k % 16) {
	case 0: return 0;
	case 1: return ~0ull;
	case 2: return v & 0xff;
	case 3: return (u64)(s64)(s8)v;
	case 4: return (u32)v;
	case 5: return (u64)(s64)(s32)v;
	case 6: return BIT(v & 63);
	case 7: return BIT(v & 63) - 1;
	case 8: return 0 - BIT(v & 63);
	case 9: return v & insn_rnd(r) & insn_rnd(r);
	case 10: return v | insn_rnd(r) | insn_rnd(r);
	default: return v;
	}
}

/* A double or a pair of floats, often a special one. */
static u64 float_value(struct insn_rng *r)
{
	static const u64 special[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000000,
		0x7ff0000000000001,
		0x000fffffffffffff,
		0x0000000000000001,
		0x7fefffffffffffff,
		0x3f80000040000000,
		0x7f800000ff800000,
		0x7fc000007f800001,
		0x00000001807fffff,
		0x4f0000005f000000,
		0x43e0000000000000,
		0xc1e0000000000000,
		0x41dfffffffc00000,
		0x3fe0000000000000,
	};
	u64 v = insn_rnd(r), k = insn_rnd(r);
	switch (k % 8) {
	case 0:
	case 1: return special[v % ARRAY_SIZE(special)];
	case 2:
	case 3: /* near 1 */ return (v & 0x800fffffffffffff) | (0x3f0 + (v >> 52 & 0x1f)) << 52;
	case 4: return (v & 0x807fffff807fffff) | (0x3c0000003c000000 + (k & 0x0700000007000000));
	default: return insn_value(r);
	}
}

void insn_random_state(struct insn_rng *r, struct insn_state *s)
{
	memset(s, 0, offsetof(struct insn_state, data));
	for (unsigned k = 0; k < X86_NR_GPR; k++)
		s->gpr[k] = insn_value(r);
	s->gpr[R_SP] = INSN_STACK;
	s->flags = insn_rnd(r) & FL_ARITH;
	/* x87: all exceptions masked, 64-bit precision, mostly; any number of registers in use. */
	u64 k = insn_rnd(r);
	unsigned in_use = k & 15, top = k >> 4 & 7;
	if (in_use > 8)
		in_use = 0;
	st16(s->xsave, (u16)(0x037f & ~(k >> 8 & 0x0f00 & (k >> 16))));
	st16(s->xsave + 2, (u16)(top << 11));
	for (unsigned n = 0; n < in_use; n++)
		s->xsave[4] |= (u8)(1 << ((top + n) & 7));
	for (unsigned n = 0; n < 8; n++) {
		u64 m = float_value(r), e = insn_rnd(r);
		u16 exp = (u16)(e >> 32 & 0x8000) | (e & 0x300   ? 0x3fff - 32 + (e & 63)
						     : e & 0x400 ? 0x7fff
								 : (e >> 16 & 0x7fff));
		if (e & 0x7000)
			m |= BIT(63);
		if ((e >> 20 & 15) == 0)
			m = exp = 0;
		st64(s->xsave + 32 + 16 * n, m);
		st16(s->xsave + 40 + 16 * n, exp);
	}
	st32(s->xsave + 24, 0x1f80 | (u32)(k >> 40 & 7 ? 0 : k >> 24 & 0xe040)); /* rounding, DAZ, FTZ */
	for (unsigned n = 0; n < 512; n += 8) {
		u64 v = n / 16 & 1 ? float_value(r) : n & 8 ? insn_value(r) : insn_rnd(r);
		st64(n < 256 ? s->xsave + 160 + n : s->xsave + X86_XSAVE_AVX_OFFSET + n - 256, v);
	}
	for (unsigned n = X86_XSAVE_ZMM_HI256_OFFSET; n < INSN_XSAVE; n += 8)
		st64(s->xsave + n, n / 16 & 1 ? float_value(r) : insn_rnd(r));
	for (unsigned n = 0; n < 8; n++) { /* often few elements, or all */
		u64 v = insn_value(r);
		st64(s->xsave + X86_XSAVE_OPMASK_OFFSET + 8 * n, n & 1 ? v : insn_rnd(r) & insn_rnd(r));
	}
	st64(s->xsave + 512, 0xe7);
	for (unsigned n = 0; n < INSN_DATA_SIZE; n += 8)
		st64(s->data + n, (n & 0x30) == 0x30 ? float_value(r) : insn_rnd(r));
}
