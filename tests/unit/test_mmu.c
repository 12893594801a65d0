/* The engine's memory (cpu/soft/walk.c, mmu.c) against a second, straightforward model of paging written from [SDM3 4.3-4.7],
 * on random page tables; then the TLB's behaviour, one promise at a time. What mmu.c calls outside
 * itself (exceptions, exits, code cache) is doubled here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "cpu/soft/mmu.h"
#include "cpu/soft/walk.h"

#define RAM_SIZE  (16 * MiB)
#define ROM_START 0x300000
#define ROM_END   0x304000

static struct ram ram;
static struct vm vm;
static struct vcpu vcpu;
static struct soft_cpu *c;

/* --- doubles --- */

static jmp_buf raised;
static int raised_vector = -1;
static s64 raised_error;
static const struct insn *raised_insn;

void soft_raise(struct soft_cpu *cpu, const struct insn *i, unsigned vector, s64 error)
{
	raised_vector = (int)vector;
	raised_error = error;
	raised_insn = i;
	longjmp(raised, 1);
}

static struct vm_exit exits[64];
static unsigned nr_exits;

void soft_exit(struct soft_cpu *cpu, struct vm_exit *exit)
{
	if (!exit->write)
		exit->data = 0x1122334455667788ull + exit->addr;
	if (nr_exits < ARRAY_SIZE(exits))
		exits[nr_exits++] = *exit;
}

static gpa_t code_gpa;
static u64 code_len;
static unsigned nr_code;

void code_beside(struct soft_cpu *cpu, gpa_t gpa)
{
}

void code_stop(struct soft_cpu *cpu)
{
}

void soft_out_timeline(struct soft_cpu *cpu, enum timeline_event event)
{
}

void code_invalidate(struct soft_cpu *cpu, gpa_t gpa, u64 len)
{
	code_gpa = gpa;
	code_len = len;
	nr_code++;
	for (gpa_t a = gpa & ~63ull; a < gpa + len; a += 64)
		ram.code_map[a / 4096] &= ~BIT(a / 64 % 64);
}

u64 excp_data_breakpoint(struct soft_cpu *cpu, gva_t la, unsigned len, bool write)
{
	u64 hit = 0;
	for (unsigned n = 0; n < 4; n++)
		if (cpu->dr7 >> (2 * n) & 3 && (write || cpu->dr7 >> (16 + 4 * n) & 2) && cpu->dr[n] >= la &&
		    cpu->dr[n] < la + len)
			hit |= BIT(n);
	return hit;
}

/* Runs call; the vector that it raised, or -1. */
#define RAISED(call) (raised_vector = -1, setjmp(raised) == 0 ? (void)(call) : (void)0, raised_vector)

/* --- set-up --- */

static u64 rng_state = 0x853c49e6748fea9bull;

static u64 rnd(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state * 0x2545f4914f6cdd1dull;
}

static bool chance(unsigned percent)
{
	return (rnd() >> 20) % 100 < percent;
}

static void feature(enum x86_feature f, bool on)
{
	vm.cpuid.features[f / 64] &= ~BIT(f % 64);
	if (on)
		vm.cpuid.features[f / 64] |= BIT(f % 64);
}

static void set_maxphyaddr(unsigned bits)
{
	c->maxphy_mask = BIT(52) - BIT(bits);
}

enum paging { NONE, BITS32, PAE, LEVEL4 };

static void set_paging(enum paging p)
{
	c->cr0 = CR0_PE | CR0_WP | (p == NONE ? 0 : CR0_PG);
	c->cr4 = (p >= PAE ? CR4_PAE : 0) | CR4_PSE | CR4_PGE;
	c->efer = EFER_NXE | (p == LEVEL4 ? EFER_LMA | EFER_LME : 0);
	c->key = p == LEVEL4 ? MODE_64 : MODE_32;
	c->cpl = 0;
	c->flags = FL_RES1;
	c->cr3 = 0x1000;
	mmu_select(c);
	mmu_flush_all(c);
}

static void put64(gpa_t gpa, u64 v)
{
	st64(ram.base + gpa, v);
}

static int setup(void **state)
{
	ram.size = ram.low_size = ram.end = RAM_SIZE;
	ram.base = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ram.code_map = calloc(RAM_SIZE / 4096, sizeof(*ram.code_map));
	ram.rom[0] = (struct ram_range){ ROM_START, ROM_END };
	ram.nr_roms = 1;
	vm.cpuid.maxphyaddr = 40;
	feature(X86_FEATURE_PSE36, true);
	feature(X86_FEATURE_PDPE1GB, true);
	vcpu.vm = &vm;
	c = calloc(1, sizeof(*c));
	c->ram = &ram;
	c->vcpu = &vcpu;
	c->features = vm.cpuid.features;
	c->seg[SEG_FLAT].sel = 0;
	return mmu_init(c, NULL);
}

static int teardown(void **state)
{
	mmu_fini(c);
	free(c);
	free((void *)ram.code_map);
	munmap(ram.base, RAM_SIZE);
	return 0;
}

static int fresh(void **state)
{
	memset(ram.base, 0, RAM_SIZE);
	memset((void *)ram.code_map, 0, RAM_SIZE / 4096 * 8);
	nr_exits = nr_code = 0;
	c->dr7 = c->dr6 = 0;
	c->attention = 0;
	feature(X86_FEATURE_PSE36, true);
	feature(X86_FEATURE_PDPE1GB, true);
	set_maxphyaddr(40);
	set_paging(NONE);
	return 0;
}

/* --- the second model --- */

struct spec {
	bool ok;
	u32 error;
	gpa_t gpa;
	unsigned n; /* entries used */
	gpa_t where[4];
	unsigned entry_bytes;
	bool may_read, may_write, may_fetch, leaf_dirty;
};

struct access {
	gva_t la;
	bool user, implicit, write, fetch;
};

static u64 spec_entry(struct spec *s, gpa_t gpa, unsigned bytes)
{
	s->where[s->n++] = gpa;
	s->entry_bytes = bytes;
	if (gpa + bytes > RAM_SIZE)
		return bytes == 8 ? ~0ull : 0xffffffff;
	return bytes == 8 ? ld64(ram.base + gpa) : ld32(ram.base + gpa);
}

static bool bit(u64 v, unsigned n)
{
	return v >> n & 1;
}

/* Bits hi..lo must be zero. */
static bool nonzero(u64 v, int hi, int lo)
{
	return hi >= lo && bits_get(v, (unsigned)hi, (unsigned)lo);
}

static struct spec spec_walk(const struct access *a)
{
	struct spec s = { 0 };
	bool nxe = c->efer & EFER_NXE, smep = c->cr4 & CR4_SMEP, smap = c->cr4 & CR4_SMAP,
	     wp = c->cr0 & CR0_WP;
	int maxphy = 52 - __builtin_popcountll(c->maxphy_mask);
	bool long_mode = c->efer & EFER_LMA, pae = c->cr4 & CR4_PAE;
	bool present = true, reserved = false;
	bool us = true, rw = true, xd = false; /* of all entries together */
	u64 e = 0;

	if (!(c->cr0 & CR0_PG)) {
		s.ok = s.may_read = s.may_write = s.may_fetch = s.leaf_dirty = true;
		s.gpa = a->la;
		return s;
	}
	if (!pae) {
		e = spec_entry(&s, (c->cr3 & 0xfffff000) + 4 * bits_get(a->la, 31, 22), 4);
		present = bit(e, 0);
		us = bit(e, 2);
		rw = bit(e, 1);
		if (present && bit(e, 7) && (c->cr4 & CR4_PSE)) {
			int m = cpuid_has(&vm.cpuid, X86_FEATURE_PSE36) ? MIN(40, maxphy) : 32;
			reserved = nonzero(e, 21, m - 19);
			s.gpa = bits_get(e, 31, 22) << 22 | bits_get(a->la, 21, 0);
			s.gpa |= m > 32 ? bits_get(e, (unsigned)m - 20, 13) << 32 : 0;
		} else if (present) {
			e = spec_entry(&s, (e & 0xfffff000) + 4 * bits_get(a->la, 21, 12), 4);
			present = bit(e, 0);
			us &= bit(e, 2);
			rw &= bit(e, 1);
			s.gpa = (e & 0xfffff000) | bits_get(a->la, 11, 0);
		}
	} else {
		int level = long_mode ? 4 : 2;
		gpa_t table = c->cr3 & 0xffffffffff000;
		if (!long_mode) {
			e = c->pdpte[bits_get(a->la, 31, 30)];
			present = bit(e, 0);
			table = e & 0xffffffffff000;
		}
		while (present && !reserved) {
			unsigned low = 12 + 9 * ((unsigned)level - 1);
			e = spec_entry(&s, table + 8 * bits_get(a->la, low + 8, low), 8);
			present = bit(e, 0);
			if (!present)
				break;
			us &= bit(e, 2);
			rw &= bit(e, 1);
			xd |= bit(e, 63);
			reserved = (bit(e, 63) && !nxe) || nonzero(e, 51, maxphy) ||
				   (!long_mode && nonzero(e, 62, 52));
			bool page = level == 1;
			if (level == 4)
				reserved |= bit(e, 7);
			if (level == 3 && bit(e, 7)) {
				page = true;
				reserved |= !cpuid_has(&vm.cpuid, X86_FEATURE_PDPE1GB) || nonzero(e, 29, 13);
			}
			if (level == 2 && bit(e, 7)) {
				page = true;
				reserved |= nonzero(e, 20, 13);
			}
			if (page) {
				s.gpa = bits_get(e, 51, low) << low | bits_get(a->la, low - 1, 0);
				break;
			}
			table = e & 0xffffffffff000;
			level--;
		}
	}
	xd &= nxe && pae;

	/* [SDM3 4.6.1] */
	if (a->user) {
		s.may_read = us;
		s.may_write = us && rw;
		s.may_fetch = us && !xd;
	} else if (!us) {
		s.may_read = true;
		s.may_write = rw || !wp;
		s.may_fetch = !xd;
	} else {
		bool data = !smap || (!a->implicit && c->flags & FL_AC);
		s.may_read = data;
		s.may_write = data && (rw || !wp);
		s.may_fetch = !smep && !xd;
	}
	s.leaf_dirty = bit(e, 6);
	bool allowed = a->fetch ? s.may_fetch : a->write ? s.may_write : s.may_read;
	s.ok = present && !reserved && allowed;
	/* [SDM3 4.7] */
	s.error = (present ? 1 : 0) | (a->write ? 2 : 0) | (a->user ? 4 : 0) | (present && reserved ? 8 : 0) |
		  (a->fetch && (smep || (pae && nxe)) ? 16 : 0);
	return s;
}

static u64 random_entry(enum paging p, gpa_t next, bool large)
{
	u64 e = rnd() & (PTE_PWT | PTE_PCD | PTE_A | PTE_D | PTE_G | 0xe00);
	e |= next;
	e |= chance(94) ? PTE_P : 0;
	e |= chance(75) ? PTE_W : 0;
	e |= chance(70) ? PTE_U : 0;
	e |= large ? PTE_PS : 0;
	if (p == BITS32)
		return (u32)e;
	e |= chance(8) ? PTE_NX : 0;
	if (p == LEVEL4)
		e |= (rnd() & 0x7ff) << 52;
	if (chance(5))
		e |= BIT(rnd() % 64);
	return e;
}

static gpa_t random_target(void)
{
	if (chance(10))
		return ROM_START + (rnd() % 4) * 4096;
	if (chance(8))
		return rnd() & 0xfffff000;
	return 0x100000 + rnd() % 0xc00 * 4096;
}

/* Tables at 1000H (top) ... 4000H; returns with everything random that a walk of la looks at. */
static void random_tables(enum paging p, gva_t la)
{
	unsigned top = p == LEVEL4 ? 4 : 2;
	memset(ram.base + 0x1000, 0, 0x5000);
	c->cr3 = 0x1000;
	for (unsigned k = 0; k < 4; k++)
		c->pdpte[k] = chance(95) ? 0x1001 : 0x1000;
	for (unsigned level = top; level >= 1; level--) {
		gpa_t table = 0x1000 + (top - level) * 0x1000;
		unsigned bits = p == BITS32 ? 10 : 9;
		unsigned shift = 12 + bits * (level - 1);
		unsigned idx = la >> shift & (BIT(bits) - 1);
		bool large = level > 1 && (chance(25) || (level == 4 && chance(2)));
		gpa_t next = table + 0x1000;
		if (chance(2))
			next = rnd() & 0xffff000; /* mostly not RAM */
		if (level == 1 || large) {
			next = random_target();
			if (level > 1 && chance(90))
				next &= ~(BIT(shift) - 1);
			if (large && p == BITS32 && chance(30))
				next |= (rnd() & 0x1ff) << 13;
			if (chance(10))
				next |= BIT(12); /* PAT in a large page */
		}
		u64 e = random_entry(p, next, large || (level == 1 && chance(50)));
		if (p == BITS32)
			st32(ram.base + table + idx * 4, (u32)e);
		else
			put64(table + idx * 8, e);
	}
}

static void random_controls(enum paging p)
{
	c->cr0 = CR0_PE | CR0_PG | (chance(70) ? CR0_WP : 0);
	c->cr4 = (p >= PAE ? CR4_PAE : 0) | (chance(80) ? CR4_PSE : 0) | (chance(50) ? CR4_SMEP : 0) |
		 (chance(50) ? CR4_SMAP : 0) | (chance(50) ? CR4_PGE : 0);
	c->efer = (p == LEVEL4 ? EFER_LMA | EFER_LME : 0) | (chance(70) ? EFER_NXE : 0);
	c->key = p == LEVEL4 ? MODE_64 : MODE_32;
	c->cpl = chance(50) ? 3 : 0;
	c->flags = FL_RES1 | (chance(40) ? FL_AC : 0);
	static const unsigned widths[] = { 36, 39, 40, 46, 52 };
	set_maxphyaddr(widths[rnd() % ARRAY_SIZE(widths)]);
	feature(X86_FEATURE_PSE36, chance(80));
	feature(X86_FEATURE_PDPE1GB, chance(80));
}

static void check_random_walk(enum paging p)
{
	static u8 before[0x5000];
	struct access a = { .la = p == LEVEL4 ? bits_sext(rnd(), 48) : (u32)rnd() };
	a.la &= ~0xfull; /* the access stays in its page */
	random_controls(p);
	random_tables(p, a.la);
	if (chance(5))
		ram.code_map[0x2000 / 4096 + rnd() % 2] = ~0ull;
	mmu_select(c);
	mmu_flush_all(c);
	unsigned kind = rnd() % 3;
	a.write = kind == 1;
	a.fetch = kind == 2;
	a.implicit = kind < 2 && chance(25);
	a.user = c->cpl == 3 && !a.implicit;
	struct spec s = spec_walk(&a);
	memcpy(before, ram.base + 0x1000, sizeof(before));

	unsigned acc = a.write ? ACC_W : ACC_R;
	c->cr2 = 0xdead;
	int v = a.fetch      ? RAISED(mmu_fetch(c, a.la))
		: a.implicit ? RAISED(mmu_sys_probe(c, NULL, a.la, 8, acc))
			     : RAISED(mmu_probe(c, NULL, a.la, 8, acc));
	if (!s.ok) {
		assert_int_equal(v, EXC_PF);
		assert_int_equal(raised_error, s.error);
		assert_int_equal(c->cr2, a.la);
		assert_memory_equal(before, ram.base + 0x1000, sizeof(before));
	} else {
		assert_int_equal(v, -1);
		assert_int_equal(c->cr2, 0xdead);
		for (unsigned k = 0; k < s.n; k++) {
			if (s.where[k] - 0x1000 < sizeof(before))
				before[s.where[k] - 0x1000] |= PTE_A | (k == s.n - 1 && a.write ? PTE_D : 0);
		}
		assert_memory_equal(before, ram.base + 0x1000, sizeof(before));

		/* And the tags say exactly what may be done without asking again. */
		enum tlb_mode mode = a.user                                                     ? TLB_USER
				     : c->cr4 & CR4_SMAP && (a.implicit || !(c->flags & FL_AC)) ? TLB_SUP
												: TLB_SUP_AC;
		struct tlb_table *t = a.la >> 63 ? &c->upper[mode] : &c->asid->half[mode];
		struct tlb_entry *e = &t->e[a.la >> 12 & (TLB_SIZE - 1)];
		gva_t page = a.la & ~0xfffull;
		gpa_t gpa = s.gpa & ~0xfffull;
		bool in_ram = gpa < RAM_SIZE, rom = gpa >= ROM_START && gpa < ROM_END;
		bool code = in_ram && ram.code_map[gpa / 4096];
		if (!a.fetch)
			assert_int_equal(e->r == page, in_ram && s.may_read);
		if (a.fetch)
			assert_int_equal((a.la >> 63 ? c->upper_code : c->asid->code)[a.user]
							 .key[a.la >> 12 & (TLB_CODE_SIZE - 1)] ==
						 tlb_key(page, gpa),
					 in_ram && s.may_fetch);
		if (!a.fetch)
			assert_int_equal(e->w == page,
					 in_ram && s.may_write && (a.write || s.leaf_dirty) && !rom && !code);
		if (in_ram && !a.fetch)
			assert_ptr_equal(page + e->addend, ram.base + gpa);
	}
	ram.code_map[2] = ram.code_map[3] = 0;
}

static void test_random_walks(void **state)
{
	for (unsigned k = 0; k < 300000; k++)
		check_random_walk(BITS32 + k % 3);
}

/* --- small worlds --- */

/* 4-level tables at 1000H: la maps to gpa with bits; tables below are made as needed at 10000H on. */
static gpa_t next_table = 0x10000;

static gpa_t map4(gva_t la, gpa_t gpa, u64 bits, unsigned shift)
{
	gpa_t t = c->cr3 & 0xffffffffff000;
	for (unsigned s = 39; s > shift; s -= 9) {
		gpa_t e = t + 8 * (la >> s & 511);
		if (!(ld64(ram.base + e) & PTE_P)) {
			put64(e, next_table | PTE_P | PTE_W | PTE_U);
			next_table += 4096;
		}
		t = ld64(ram.base + e) & 0xffffffffff000;
	}
	gpa_t e = t + 8 * (la >> shift & 511);
	put64(e, gpa | bits | (shift > 12 ? PTE_PS : 0));
	return e;
}

static void world4(void)
{
	next_table = 0x10000;
	set_paging(LEVEL4);
}

#define RW (PTE_P | PTE_W | PTE_U)

static void test_no_paging(void **state)
{
	put64(0x5000, 0x1234567890abcdefull);
	assert_int_equal(mmu_load(c, NULL, 0x5000, 8, ACC_R), 0x1234567890abcdefull);
	assert_non_null(tlb_read(c, 0x5ff8, 8));
	assert_null(tlb_read(c, 0x5ff9, 8));
	mmu_store(c, NULL, 0x5003, 2, 0xbeef);
	assert_int_equal(ld64(ram.base + 0x5000), 0x123456beefabcdefull);
	for (unsigned size = 1; size <= 8; size++)
		assert_int_equal(mmu_load(c, NULL, 0x5000, size, ACC_R),
				 0x123456beefabcdefull & bits_mask(size));
	assert_ptr_equal(mmu_fetch(c, 0x5001), ram.base + 0x5001);
	assert_null(mmu_fetch(c, 0xc0000000));
}

static void test_wrap_32(void **state)
{
	ram.base[0] = 0x5a;
	assert_int_equal(mmu_load(c, NULL, 0xffffffff, 2, ACC_R) >> 8, 0x5a);
	mmu_store(c, NULL, 0xffffffff, 2, 0xa5ff);
	assert_int_equal(ram.base[0], 0xa5);
	assert_int_equal(exits[0].addr, 0xffffffff);
}

static void test_pages_crossed(void **state)
{
	world4();
	map4(0x400000, 0x200000, RW, 12);
	gpa_t second = map4(0x401000, 0x280000, PTE_P | PTE_U, 12);
	for (unsigned n = 1; n < 8; n++) {
		memset(ram.base + 0x200ff0, 0x11, 16);
		memset(ram.base + 0x280000, 0x22, 16);
		u64 want = 0x2222222222222222ull << (8 * n) |
			   (0x1111111111111111ull & bits_mask(8) >> (64 - 8 * n));
		assert_int_equal(mmu_load(c, NULL, 0x401000 - n, 8, ACC_R), want);
		/* The second page refuses the write: nothing may have changed. */
		assert_int_equal(RAISED(mmu_store(c, NULL, 0x401000 - n, 8, ~0ull)), EXC_PF);
		assert_int_equal(c->cr2, 0x401000);
		assert_int_equal(raised_error, PFEC_P | PFEC_W);
		assert_int_equal(ram.base[0x200fff], 0x11);
		assert_int_equal(RAISED(mmu_load(c, NULL, 0x401000 - n, 8, ACC_R | ACC_W)), EXC_PF);
		u8 buf[100];
		memset(buf, 0x77, sizeof(buf));
		assert_int_equal(RAISED(mmu_write_buf(c, NULL, 0x401000 - n, buf, 100)), EXC_PF);
		assert_int_equal(ram.base[0x200fff], 0x11);
	}
	put64(second, 0x280000 | RW);
	mmu_invlpg(c, 0x401000);
	mmu_store(c, NULL, 0x400ffb, 8, 0x8877665544332211ull);
	assert_int_equal(ld32(ram.base + 0x200ffb), 0x44332211);
	assert_int_equal(ram.base[0x200fff], 0x55);
	assert_int_equal(ld16(ram.base + 0x280000), 0x7766);
	assert_int_equal(ram.base[0x280002], 0x88);
	u8 out[4096], in[4096];
	for (unsigned k = 0; k < 4096; k++)
		out[k] = (u8)(k * 7);
	mmu_write_buf(c, NULL, 0x400123, out, 4096);
	mmu_read_buf(c, NULL, 0x400123, in, 4096);
	assert_memory_equal(out, in, 4096);
	assert_memory_equal(out, ram.base + 0x200123, 4096 - 0x123);
	assert_memory_equal(out + 4096 - 0x123, ram.base + 0x280000, 0x123);
}

static void test_not_canonical(void **state)
{
	world4();
	struct insn i = { .map = 1, .opcode = 0xb6, .seg = SEG_FLAT, .base = R_AX };
	map4(0x7ffffffff000, 0x200000, RW, 12);
	assert_int_equal(RAISED(mmu_load(c, &i, 0x800000000000, 1, ACC_R)), EXC_GP);
	assert_int_equal(raised_error, 0);
	assert_ptr_equal(raised_insn, &i);
	assert_int_equal(RAISED(mmu_store(c, &i, 0x7ffffffffffc, 8, 0)), EXC_GP);
	assert_int_equal(RAISED(mmu_load(c, &i, 0x7ffffffffff8, 8, ACC_R)), -1);
	assert_int_equal(RAISED(mmu_load(c, &i, 0xffff7fffffffffff, 1, ACC_R)), EXC_GP);
	i.base = R_SP;
	i.mem = 1;
	assert_int_equal(RAISED(mmu_load(c, &i, 0x800000000000, 1, ACC_R)), EXC_SS);
	i.seg = SEG_GS;
	assert_int_equal(RAISED(mmu_load(c, &i, 0x800000000000, 1, ACC_R)), EXC_GP);
	i.base = R_AX;
	i.seg = SEG_SS;
	assert_int_equal(RAISED(mmu_probe(c, &i, 0x123456789abcdef0, 1, ACC_W)), EXC_SS);
	assert_int_equal(RAISED(mmu_fetch(c, 0x800000000000)), EXC_GP);
	/* PUSH RAX, and PUSH [RAX] by which of its two addresses is bad. */
	i = (struct insn){ .opcode = 0x50 };
	assert_int_equal(RAISED(mmu_store(c, &i, 0x800000000000, 8, 0)), EXC_SS);
	i = (struct insn){ .opcode = 0xff, .modrm = 0x30, .mem = 1, .base = R_AX, .seg = SEG_FLAT };
	c->gpr[R_SP] = 0x800000000008;
	assert_int_equal(RAISED(mmu_store(c, &i, 0x800000000000, 8, 0)), EXC_SS);
	assert_int_equal(RAISED(mmu_load(c, &i, 0x900000000000, 8, ACC_R)), EXC_GP);
}

static void test_mmio(void **state)
{
	world4();
	map4(0x400000, 0xfec00000, RW, 12);
	map4(0x401000, 0x200000, RW, 12);
	struct insn i = { 0 };
	for (unsigned size = 1; size <= 8; size *= 2) {
		nr_exits = 0;
		u64 v = mmu_load(c, &i, 0x400010, size, ACC_R);
		assert_int_equal(v, (0x1122334455667788ull + 0xfec00010) & bits_mask(size));
		mmu_store(c, &i, 0x400013, size, 0xfedcba9876543210ull);
		assert_int_equal(nr_exits, 2);
		assert_int_equal(exits[0].reason, EXIT_EPT_VIOLATION);
		assert_int_equal(exits[0].addr, 0xfec00010);
		assert_int_equal(exits[0].size, size);
		assert_false(exits[0].write);
		assert_int_equal(exits[1].addr, 0xfec00013);
		assert_int_equal(exits[1].data, 0xfedcba9876543210ull & bits_mask(size));
		assert_true(exits[1].write);
	}
	/* Half in the device, half in RAM: each byte goes where it belongs. */
	nr_exits = 0;
	mmu_store(c, &i, 0x400ffd, 8, 0x8877665544332211ull);
	u64 got = 0, bytes = 0;
	for (unsigned k = 0; k < nr_exits; k++) {
		got |= exits[k].data << 8 * (exits[k].addr - 0xfec00ffd);
		bytes += exits[k].size;
	}
	assert_int_equal(bytes, 3);
	assert_int_equal(got, 0x332211);
	assert_int_equal(ld32(ram.base + 0x200000), 0x77665544);
	assert_int_equal(ram.base[0x200004], 0x88);
	/* A large buffer asks for aligned pieces of at most 8. */
	nr_exits = 0;
	u8 buf[33];
	mmu_read_buf(c, &i, 0x400007, buf, 33);
	assert_int_equal(nr_exits, 5);
	assert_int_equal(exits[0].size, 1);
	assert_int_equal(exits[1].size, 8);
	assert_int_equal(exits[1].addr, 0xfec00008);
	assert_null(tlb_read(c, 0x400010, 1));
	assert_null(tlb_write(c, 0x400010, 1));
}

static void test_rom(void **state)
{
	world4();
	map4(0x400000, ROM_START, RW, 12);
	ram.base[ROM_START] = 0x42;
	mmu_store(c, NULL, 0x400000, 8, 0);
	u8 zero[16] = { 0 };
	mmu_write_buf(c, NULL, 0x400000, zero, 16);
	assert_int_equal(ram.base[ROM_START], 0x42);
	/* A store goes to the bus, for whoever may want it there. */
	assert_int_equal(nr_exits, 3);
	assert_true(exits[0].write && exits[0].addr == ROM_START && exits[0].size == 8);
	nr_exits = 0;
	assert_int_equal(mmu_load(c, NULL, 0x400000, 1, ACC_R | ACC_W), 0x42);
	assert_null(tlb_write(c, 0x400000, 1));
	assert_non_null(tlb_read(c, 0x400000, 1));
	assert_int_equal(nr_exits, 0);
	/* Page tables in ROM work, without A and D. */
	put64(ROM_START + 0x1000, 0x200000 | RW);
	gpa_t pde = map4(0x800000, ROM_START + 0x1000, RW, 21);
	put64(pde, (ROM_START + 0x1000) | RW);
	mmu_store(c, NULL, 0x800000, 4, 0x12345678);
	assert_int_equal(ld32(ram.base + 0x200000), 0x12345678);
	assert_int_equal(ld64(ram.base + ROM_START + 0x1000), 0x200000 | RW);
}

static void test_accessed_and_dirty(void **state)
{
	static const unsigned shifts[] = { 12, 21, 30 };
	for (unsigned k = 0; k < ARRAY_SIZE(shifts); k++) {
		fresh(NULL);
		world4();
		gva_t la = 0x40000000;
		gpa_t leaf = map4(la, 0, RW, shifts[k]);
		la += shifts[k] > 12 ? 0x8000 : 0;
		mmu_load(c, NULL, la, 4, ACC_R);
		assert_int_equal(ld64(ram.base + leaf) & (PTE_A | PTE_D), PTE_A);
		assert_null(tlb_write(c, la, 4));
		mmu_store(c, NULL, la, 4, 1);
		assert_int_equal(ld64(ram.base + leaf) & (PTE_A | PTE_D), PTE_A | PTE_D);
		assert_non_null(tlb_write(c, la, 4));
		assert_int_equal(ld64(ram.base + 0x1000) & (PTE_A | PTE_D), PTE_A);
	}
}

static void test_peek(void **state)
{
	world4();
	gpa_t leaf = map4(0x400000, 0x200000, PTE_P, 12);
	map4(0x401000, 0xfee00000, PTE_P, 12);
	u64 v = 0;
	put64(0x200ff8, 0xabcdef);
	assert_true(mmu_peek(c, 0x400ff8, &v, 8));
	assert_int_equal(v, 0xabcdef);
	assert_false(mmu_peek(c, 0x400ffc, &v, 8));
	assert_false(mmu_peek(c, 0x500000, &v, 8));
	assert_false(mmu_peek(c, 0x1234567812345678, &v, 8));
	assert_int_equal(ld64(ram.base + leaf), 0x200000 | PTE_P);
	assert_int_equal(nr_exits, 0);
}

/* --- code --- */

static void test_code_pages(void **state)
{
	world4();
	map4(0x400000, 0x200000, RW, 12);
	map4(0x500000, 0x200000, RW, 12);
	map4(0xffffffff80000000, 0x200000, RW | PTE_G, 12);
	mmu_store(c, NULL, 0x400000, 1, 0);
	mmu_store(c, NULL, 0x500000, 1, 0);
	mmu_store(c, NULL, 0xffffffff80000000, 1, 0);
	c->cpl = 3;
	mmu_select(c);
	mmu_store(c, NULL, 0x400000, 1, 0);
	assert_non_null(tlb_write(c, 0x400000, 1));
	ram.code_map[0x200] = BIT(3) | BIT(4); /* 200c0..2013f */
	mmu_write_protect(c, 0x200000);
	assert_null(tlb_write(c, 0x400000, 1));
	assert_non_null(tlb_read(c, 0x400000, 1));
	c->cpl = 0;
	mmu_select(c);
	assert_null(tlb_write(c, 0x400000, 1));
	assert_null(tlb_write(c, 0x500000, 1));
	assert_null(tlb_write(c, 0xffffffff80000000, 1));

	/* Beside the code: nothing dropped, no tag. */
	mmu_store(c, NULL, 0x400000, 8, ~0ull);
	mmu_store(c, NULL, 0x4000bf, 1, 0xff);
	mmu_store(c, NULL, 0x400140, 8, ~0ull);
	assert_int_equal(nr_code, 0);
	assert_null(tlb_write(c, 0x400000, 1));
	/* Into it, over its start. */
	mmu_store(c, NULL, 0x4000bd, 4, 0);
	assert_int_equal(nr_code, 1);
	assert_int_equal(code_gpa, 0x2000bd);
	assert_int_equal(code_len, 4);
	assert_int_equal(ram.code_map[0x200], BIT(4));
	u8 buf[0x200] = { 0 };
	mmu_write_buf(c, NULL, 0x400000, buf, sizeof(buf));
	assert_int_equal(nr_code, 2);
	/* No code left: the tag comes back. */
	mmu_store(c, NULL, 0x400000, 8, 0);
	assert_non_null(tlb_write(c, 0x400000, 1));
	assert_int_equal(nr_code, 2);
}

/* A page that is written through more addresses than the reverse table has room for, and more pages than
 * it has sets: after mmu_write_protect() never a w tag. */
static void test_write_protect_many(void **state)
{
	world4();
	for (unsigned k = 0; k < 64; k++)
		map4(0x400000 + k * 4096, 0x200000, RW, 12);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned k = 0; k < 64; k++)
			if (chance(60))
				mmu_store(c, NULL, 0x400000 + k * 4096, 1, 0);
		unsigned with = 0;
		for (unsigned k = 0; k < 64; k++)
			with += tlb_write(c, 0x400000 + k * 4096, 1) != NULL;
		assert_true(with > 0 && with <= 4);
		mmu_write_protect(c, 0x200000);
		for (unsigned k = 0; k < 64; k++)
			assert_null(tlb_write(c, 0x400000 + k * 4096, 1));
	}
	set_paging(NONE);
	for (unsigned k = 0; k < 20000; k++) {
		gva_t la = 0x400000 + rnd() % 0xa00 * 4096;
		mmu_store(c, NULL, la, 1, 0);
		assert_non_null(tlb_write(c, la, 1));
		gva_t other = 0x400000 + rnd() % 0xa00 * 4096;
		mmu_write_protect(c, other);
		assert_null(tlb_write(c, other, 1));
	}
}

/* --- invalidation --- */

#define PRESENT(la) (tlb_read(c, la, 1) != NULL)

static void load_at(gva_t la)
{
	mmu_load(c, NULL, la, 1, ACC_R);
	assert_true(PRESENT(la));
}

static void test_pcid(void **state)
{
	const gva_t user = 0x400000, global = 0x402000, kern = 0xffff888000000000, knon = 0xffffc90000001000;
	world4();
	gpa_t leaf = map4(user, 0x200000, RW, 12);
	map4(global, 0x205000, RW | PTE_G, 12);
	map4(kern, 0x201000, RW | PTE_G, 12);
	map4(knon, 0x202000, RW, 12);
	c->cr4 |= CR4_PCIDE;
	mmu_select(c);

	mmu_set_cr3(c, 0x1000 | 1);
	load_at(user);
	load_at(kern);
	load_at(knon);
	mmu_set_cr3(c, 0x1000 | 2);
	assert_false(PRESENT(user));
	assert_true(PRESENT(kern));
	assert_false(PRESENT(knon));
	put64(leaf, 0x203000 | RW);
	ram.base[0x203000] = 0x99;
	assert_int_equal(mmu_load(c, NULL, user, 1, ACC_R), 0x99);
	load_at(knon);
	/* Back without a flush: the old translation is still there. */
	mmu_set_cr3(c, 0x1000 | 1 | CR3_NOFLUSH);
	assert_int_equal(c->cr3, 0x1000 | 1);
	assert_true(PRESENT(user));
	assert_false(PRESENT(knon));
	assert_int_equal(mmu_load(c, NULL, user, 1, ACC_R), 0);
	load_at(knon);
	mmu_set_cr3(c, 0x1000 | 1 | CR3_NOFLUSH);
	assert_true(PRESENT(knon));
	/* With one. */
	mmu_set_cr3(c, 0x1000 | 1);
	assert_false(PRESENT(user));
	assert_false(PRESENT(knon));
	assert_true(PRESENT(kern));
	/* INVLPG: this PCID only, but a global page everywhere. */
	load_at(user);
	mmu_invlpg(c, user);
	assert_false(PRESENT(user));
	mmu_set_cr3(c, 0x1000 | 2 | CR3_NOFLUSH);
	assert_true(PRESENT(user));
	load_at(global);
	mmu_set_cr3(c, 0x1000 | 1 | CR3_NOFLUSH);
	mmu_invlpg(c, global);
	mmu_set_cr3(c, 0x1000 | 2 | CR3_NOFLUSH);
	assert_false(PRESENT(global));
	load_at(user);

	/* INVPCID of another PCID and of this one. */
	mmu_set_cr3(c, 0x1000 | 1 | CR3_NOFLUSH);
	load_at(user);
	mmu_invpcid(c, 0, 2, user);
	assert_true(PRESENT(user));
	mmu_set_cr3(c, 0x1000 | 2 | CR3_NOFLUSH);
	assert_false(PRESENT(user));
	load_at(user);
	mmu_invpcid(c, 1, 1, 0);
	assert_true(PRESENT(user));
	mmu_set_cr3(c, 0x1000 | 1 | CR3_NOFLUSH);
	assert_false(PRESENT(user));
	load_at(user);
	load_at(knon);
	load_at(kern);
	mmu_invpcid(c, 1, 1, 0);
	assert_false(PRESENT(user));
	assert_false(PRESENT(knon));
	assert_true(PRESENT(kern));
	load_at(user);
	load_at(knon);
	mmu_invpcid(c, 3, 0, 0);
	assert_false(PRESENT(user));
	assert_false(PRESENT(knon));
	assert_true(PRESENT(kern));
	mmu_set_cr3(c, 0x1000 | 2 | CR3_NOFLUSH);
	assert_false(PRESENT(user));
	mmu_invpcid(c, 2, 0, 0);
	assert_false(PRESENT(kern));
}

/* More PCIDs than there are sets of tables: never a translation of another one. */
static void test_many_pcids(void **state)
{
	enum { N = 20 };
	world4();
	for (unsigned k = 1; k <= N; k++) {
		c->cr3 = 0x100000 + k * 0x1000;
		map4(0x400000, 0x200000 + k * 0x1000, RW, 12);
		ram.base[0x200000 + k * 0x1000] = (u8)k;
	}
	c->cr4 |= CR4_PCIDE;
	mmu_select(c);
	for (unsigned n = 0; n < 20000; n++) {
		unsigned k = 1 + (unsigned)(rnd() >> 20) % (n % 1000 < 500 ? N : 6);
		mmu_set_cr3(c, (0x100000 + k * 0x1000) | k | (chance(80) ? CR3_NOFLUSH : 0));
		const u8 *p = tlb_read(c, 0x400000, 1);
		assert_int_equal(p ? *p : mmu_load(c, NULL, 0x400000, 1, ACC_R), k);
	}
}

/* Switching PCIDE off and on must not bring entries of another address space back. */
static void test_pcide_toggle(void **state)
{
	world4();
	gpa_t leaf = map4(0x400000, 0x200000, RW, 12);
	c->cr4 |= CR4_PCIDE;
	mmu_select(c);
	mmu_set_cr3(c, 0x1000 | 5);
	load_at(0x400000);
	c->cr4 &= ~CR4_PCIDE;
	c->cr3 = 0x1000;
	mmu_select(c);
	load_at(0x400000);
	c->cr4 |= CR4_PCIDE;
	mmu_select(c);
	load_at(0x400000);
	put64(leaf, 0x201000 | RW);
	mmu_set_cr3(c, 0x1000 | 5 | CR3_NOFLUSH);
	assert_false(PRESENT(0x400000));
}

static void test_nonglobal_overflow(void **state)
{
	world4();
	for (unsigned k = 0; k < 200; k++)
		map4(0xffffc90000000000 + k * 4096, 0x200000 + k * 4096, PTE_P | PTE_W | (k & 1 ? PTE_G : 0),
		     12);
	for (unsigned n = 20; n <= 200; n += 180) {
		for (unsigned k = 0; k < n; k++)
			load_at(0xffffc90000000000 + k * 4096);
		mmu_set_cr3(c, 0x1000);
		for (unsigned k = 0; k < n; k++)
			assert_true(!PRESENT(0xffffc90000000000 + k * 4096) || (k & 1));
		assert_int_equal(PRESENT(0xffffc90000001000), n == 20);
	}
}

static void test_invlpg_large(void **state)
{
	static const gva_t halves[] = { 0, 0xffff800000000000 };
	for (unsigned h = 0; h < 2; h++) {
		for (unsigned many = 0; many < 2; many++) {
			gva_t b = halves[h];
			fresh(NULL);
			world4();
			map4(b + 0x200000, 0x200000, RW, 21);
			map4(b + 0x40000000, 0, RW, 30);
			map4(b + 0x80000000, 0x200000, RW, 12);
			if (many)
				for (unsigned k = 1; k < 40; k++) {
					map4(b + 0x100000000 + k * 0x200000, 0x200000, RW, 21);
					load_at(b + 0x100000000 + k * 0x200000);
				}
			load_at(b + 0x201000);
			load_at(b + 0x3ff000);
			load_at(b + 0x40002000);
			load_at(b + 0x40e03000);
			load_at(b + 0x80000000);
			mmu_invlpg(c, b + 0x300000);
			assert_false(PRESENT(b + 0x201000));
			assert_false(PRESENT(b + 0x3ff000));
			assert_true(PRESENT(b + 0x40002000));
			mmu_invlpg(c, b + 0x5fff0000);
			assert_false(PRESENT(b + 0x40002000));
			assert_false(PRESENT(b + 0x40e03000));
			assert_true(PRESENT(b + 0x80000000));
		}
	}
}

/* The first level's upper tables are given up when too many entries are not global; INVLPG must still find
 * every piece of a large page in the second level. */
static void test_invlpg_large_after_overflow(void **state)
{
	const gva_t big = 0xffff888000200000, other = 0xffffc90000000000;
	world4();
	gpa_t pde = map4(big, 0x200000, PTE_P | PTE_W | PTE_G, 21);
	for (unsigned k = 0; k < 100; k++)
		map4(other + k * 4096, 0x100000, PTE_P | PTE_W, 12);
	ram.base[0x205000] = 1;
	ram.base[0x405000] = 2;
	load_at(big);
	load_at(big + 0x5000);
	for (unsigned k = 0; k < 100; k++)
		load_at(other + k * 4096);
	mmu_set_cr3(c, 0x1000);
	assert_false(PRESENT(big + 0x5000));
	put64(pde, 0x400000 | PTE_P | PTE_W | PTE_G | PTE_PS);
	mmu_invlpg(c, big);
	assert_int_equal(mmu_load(c, NULL, big + 0x5000, 1, ACC_R), 2);
	/* The same with a global large page of the lower half, whose PCID's tables go to others meanwhile. */
	pde = map4(0x40000000, 0x200000, RW | PTE_G, 21);
	c->cr4 |= CR4_PCIDE;
	mmu_select(c);
	assert_int_equal(mmu_load(c, NULL, 0x40005000, 1, ACC_R), 1);
	for (u64 pcid = 1; pcid < 12; pcid++)
		mmu_set_cr3(c, 0x1000 | pcid);
	put64(pde, 0x400000 | RW | PTE_G | PTE_PS);
	mmu_invlpg(c, 0x40000000);
	assert_int_equal(mmu_load(c, NULL, 0x40005000, 1, ACC_R), 2);
}

/* What leaves the first level is found in the second, without a walk, until it is flushed there too. */
static void test_second_level(void **state)
{
	const gva_t far = 0x400000 + TLB_SIZE * 4096ull;
	world4();
	gpa_t leaf = map4(0x400000, 0x200000, RW, 12);
	map4(far, 0x201000, RW, 12);
	load_at(0x400000);
	load_at(far);
	assert_false(PRESENT(0x400000));
	u64 walks = c->nr_walks;
	put64(leaf, 0x202000 | RW); /* may be seen late */
	ram.base[0x200000] = 1;
	ram.base[0x202000] = 2;
	assert_int_equal(mmu_load(c, NULL, 0x400000, 1, ACC_R), 1);
	assert_int_equal(c->nr_walks, walks);
	/* The first write has to set D, and so walks. */
	put64(leaf, 0x200000 | RW | PTE_A);
	mmu_store(c, NULL, 0x400000, 1, 3);
	assert_int_equal(c->nr_walks, walks + 1);
	assert_int_equal(ld64(ram.base + leaf) & PTE_D, PTE_D);
	put64(leaf, 0x202000 | RW);
	load_at(far);
	mmu_invlpg(c, 0x400000); /* now in the second level only */
	assert_int_equal(mmu_load(c, NULL, 0x400000, 1, ACC_R), 2);
	put64(leaf, 0x200000 | RW);
	load_at(far);
	mmu_set_cr3(c, 0x1000);
	assert_int_equal(mmu_load(c, NULL, 0x400000, 1, ACC_R), 3);
}

static void test_control_bits_flush(void **state)
{
	world4();
	map4(0x400000, 0x200000, PTE_P | PTE_U | PTE_D, 12);
	c->cr0 &= ~CR0_WP;
	mmu_select(c);
	mmu_store(c, NULL, 0x400000, 1, 1);
	assert_non_null(tlb_write(c, 0x400000, 1));
	c->cr0 |= CR0_WP;
	mmu_select(c);
	assert_null(tlb_write(c, 0x400000, 1));
	assert_int_equal(RAISED(mmu_store(c, NULL, 0x400000, 1, 1)), EXC_PF);
	/* AC under SMAP selects other tables and needs no flush. */
	c->cr4 |= CR4_SMAP;
	c->flags |= FL_AC;
	mmu_select(c);
	load_at(0x400000);
	u64 flushes = c->nr_flushes;
	c->flags &= ~FL_AC;
	mmu_select(c);
	assert_null(tlb_read(c, 0x400000, 1));
	assert_int_equal(RAISED(mmu_load(c, NULL, 0x400000, 1, ACC_R)), EXC_PF);
	c->flags |= FL_AC;
	mmu_select(c);
	assert_true(PRESENT(0x400000));
	/* The processor's own accesses do not look at AC. */
	assert_int_equal(RAISED(mmu_sys_load(c, NULL, 0x400000, 1)), EXC_PF);
	assert_int_equal(raised_error, PFEC_P);
	assert_int_equal(c->nr_flushes, flushes);
	c->cpl = 3;
	mmu_select(c);
	assert_int_equal(RAISED(mmu_sys_store(c, NULL, 0x400000, 1, 0)), EXC_PF);
	assert_int_equal(raised_error, PFEC_P | PFEC_W);
}

static void test_pdptes(void **state)
{
	set_paging(PAE);
	for (unsigned k = 0; k < 4; k++)
		put64(0x1020 + 8 * k, (0x5000 + 0x1000 * k) | PTE_P);
	assert_true(mmu_load_pdptes(c, 0x1020));
	for (unsigned k = 0; k < 4; k++)
		assert_int_equal(c->pdpte[k], (0x5000 + 0x1000 * k) | PTE_P);
	u64 reserved = 0xfff00000000001e6ull | c->maxphy_mask;
	for (unsigned b = 1; b < 64; b++) {
		put64(0x1038, 0x9001 | BIT(b));
		assert_int_equal(mmu_load_pdptes(c, 0x1020), !(reserved & BIT(b)));
		assert_int_equal(c->pdpte[0], 0x5001);
		put64(0x1038, 0x9000 | BIT(b)); /* not present: anything goes */
		assert_true(mmu_load_pdptes(c, 0x1020));
	}
	assert_false(mmu_load_pdptes(c, RAM_SIZE)); /* all ones */
	c->pdpte[2] = 0x7000;
	assert_int_equal(RAISED(mmu_load(c, NULL, 0x80000000, 1, ACC_R)), EXC_PF);
	assert_int_equal(raised_error, 0);
}

static void test_data_breakpoints(void **state)
{
	set_paging(NONE);
	load_at(0x5000);
	c->dr[1] = 0x5010;
	c->dr7 = BIT(2) | 1 << 20; /* L1, writes */
	mmu_flush_all(c);
	assert_int_equal(mmu_load(c, NULL, 0x5010, 4, ACC_R), 0);
	assert_false(PRESENT(0x5010));
	assert_int_equal(c->attention, 0);
	mmu_store(c, NULL, 0x500e, 2, 5);
	assert_int_equal(c->attention, 0);
	mmu_store(c, NULL, 0x500e, 4, 5);
	assert_int_equal(c->attention, ATT_DB);
	assert_int_equal(c->dr6, BIT(1));
	assert_null(tlb_write(c, 0x5010, 1));
	load_at(0x6000); /* other pages are as fast as ever */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_random_walks, fresh),
		cmocka_unit_test_setup(test_no_paging, fresh),
		cmocka_unit_test_setup(test_wrap_32, fresh),
		cmocka_unit_test_setup(test_pages_crossed, fresh),
		cmocka_unit_test_setup(test_not_canonical, fresh),
		cmocka_unit_test_setup(test_mmio, fresh),
		cmocka_unit_test_setup(test_rom, fresh),
		cmocka_unit_test_setup(test_accessed_and_dirty, fresh),
		cmocka_unit_test_setup(test_peek, fresh),
		cmocka_unit_test_setup(test_code_pages, fresh),
		cmocka_unit_test_setup(test_write_protect_many, fresh),
		cmocka_unit_test_setup(test_pcid, fresh),
		cmocka_unit_test_setup(test_many_pcids, fresh),
		cmocka_unit_test_setup(test_pcide_toggle, fresh),
		cmocka_unit_test_setup(test_nonglobal_overflow, fresh),
		cmocka_unit_test_setup(test_invlpg_large, fresh),
		cmocka_unit_test_setup(test_invlpg_large_after_overflow, fresh),
		cmocka_unit_test_setup(test_second_level, fresh),
		cmocka_unit_test_setup(test_control_bits_flush, fresh),
		cmocka_unit_test_setup(test_pdptes, fresh),
		cmocka_unit_test_setup(test_data_breakpoints, fresh),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
