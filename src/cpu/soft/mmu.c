/* Memory as instructions see it: which translations hold, and the slow path of every access [SDM3 chapter 4].
 *
 * Models: translation with caching (TLB), PCIDs, global pages, INVLPG, INVPCID, MOV to CR3; accesses
 * that cross a page, go to memory-mapped I/O, to ROM, or write bytes that were decoded as code; data
 * breakpoints; alignment checks.
 *
 * How: translations are walked by walk.c and kept by tlb.c. A PCID that is not current is flushed by
 * being marked invalid; its tables are cleared when it is next used. Entries hold the rights of the
 * control bits that they were made under, so mmu_select() flushes when these change.
 *
 * A store to ROM goes to the bus, as one to where there is no memory: flash takes commands so.
 *
 * A write to marked code is done first and then reported (code_invalidate); the page gets its w tag back
 * at the first write after the last mark is gone.
 *
 * Omitted: caching of upper-level entries, and memory types (all RAM is write-back; PAT and MTRRs have
 * no effect).
 *
 * On the vCPU's thread; compiled with general registers only, because guest vector state may be live. */
#include "cpu/soft/mmu.h"

#include "cpu/soft/jit/storelog.h"
#include "cpu/soft/walk.h"

#define PAGE_MASK 0xfffull

static enum tlb_mode current_mode(const struct soft_cpu *c)
{
	return c->cpl == 3 ? TLB_USER : c->cr4 & CR4_SMAP && !(c->flags & FL_AC) ? TLB_SUP : TLB_SUP_AC;
}

static enum tlb_mode implicit_mode(const struct soft_cpu *c)
{
	return c->cr4 & CR4_SMAP ? TLB_SUP : TLB_SUP_AC;
}

static u16 current_pcid(const struct soft_cpu *c)
{
	return c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
}

/* --- invalidation --- */

/* The privilege is that of the half that code runs in, unless the guest does it otherwise: then a change of
 * privilege drops all windows. Some time after every translation of code was dropped the guest is believed
 * again: from the next change of privilege on, as what runs now may go on without a look at the TLB. */
static void windows_select(struct soft_cpu *c, enum tlb_mode mode)
{
	bool user = mode == TLB_USER;

	c->windows_held = mode == TLB_SUP_AC && c->cr4 & CR4_SMAP;
	if (user == c->windows_user)
		return;
	c->windows_user = user;
	if (unlikely(c->user_news) && user && !soft_vm86(c)) {
		soft_out_timeline(c, TIMELINE_PROCESS);
		c->user_news = timeline_wants(&c->vcpu->vm->timeline, TIMELINE_PROCESS);
	}
	if (likely(!c->windows_mixed))
		return;
	tlb_drop_windows(c, 0, 0);
	if (c->windows_mixed == WINDOWS_MIXED_ENDS)
		c->windows_mixed = WINDOWS_SPLIT;
}

void mmu_select(struct soft_cpu *c)
{
	u64 role = (c->cr0 & (CR0_PG | CR0_WP)) | (c->efer & (EFER_NXE | EFER_LMA)) |
		   (c->cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)) << 32;
	if (unlikely(role != c->tlb_role)) {
		/* Firmware and boot loaders of a BIOS do without paging. */
		if (role & ~c->tlb_role & CR0_PG && !c->vcpu->id)
			soft_out_timeline(c, TIMELINE_KERNEL);
		c->tlb_role = role;
		mmu_flush_all(c);
	}
	enum tlb_mode mode = current_mode(c);
	windows_select(c, mode);
	c->tlb_code[0] = &c->asid->code[c->cpl == 3];
	c->tlb_code[1] = &c->upper_code[c->cpl == 3];
	mmu_set_code_gen(c);
	/* Alignment checks are the slow path's [SDM3 6.15, interrupt 17]: then no access may take the
	 * fast one. */
	c->align_checks = c->cpl == 3 && c->cr0 & CR0_AM && c->flags & FL_AC;
	if (unlikely(c->align_checks || c->log)) {
		tlb_drop_windows(c, 0, 0);
		c->tlb[0] = c->tlb[1] = c->no_tlb;
		return;
	}
	c->tlb[0] = &c->asid->half[mode];
	c->tlb[1] = &c->upper[mode];
}

static void lower_flush(struct soft_cpu *c)
{
	tlb_drop_windows(c, 0, BIT(63));
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++) {
		if (&c->asids[k] != c->asid)
			c->asids[k].valid = false;
		c->asids[k].gen = tlb_new_generation(c);
	}
	c->asid->pcid = current_pcid(c);
	tlb_flush_tables(c, c->asid->half, c->asid->code);
	c->asid->large.nr = 0;
	c->lower_global = false;
	c->nr_flushes++;
}

void mmu_flush_all(struct soft_cpu *c)
{
	c->once = true;
	lower_flush(c);
	tlb_flush_upper(c);
	c->upper_large.nr = 0;
	c->gen_global = tlb_new_generation(c);
	if (c->windows_mixed)
		c->windows_mixed = WINDOWS_MIXED_ENDS;
}

void mmu_flush_nonglobal(struct soft_cpu *c)
{
	c->once = true;
	lower_flush(c);
	tlb_flush_upper_nonglobal(c);
}

static struct tlb_asid *asid_find(struct soft_cpu *c, u16 pcid)
{
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		if (c->asids[k].valid && c->asids[k].pcid == pcid)
			return &c->asids[k];
	return NULL;
}

void mmu_set_cr3(struct soft_cpu *c, u64 cr3)
{
	u16 old = c->asid->pcid;
	c->cr3 = cr3 & ~CR3_NOFLUSH;
	u16 pcid = current_pcid(c);
	bool keep = c->cr4 & CR4_PCIDE && cr3 & CR3_NOFLUSH;

	c->once = true;
	tlb_drop_windows(c, 0, BIT(63));
	struct tlb_asid *a = asid_find(c, pcid);
	if (!a) {
		a = &c->asids[0];
		for (unsigned k = 0; k < TLB_NR_ASIDS && a->valid; k++)
			if (!c->asids[k].valid || c->asids[k].last_used < a->last_used)
				a = &c->asids[k];
		a->pcid = pcid;
		a->valid = true;
		keep = false; /* so it gets a new generation, too */
	}
	if (!keep) {
		tlb_flush_tables(c, a->half, a->code);
		a->large.nr = 0;
		a->gen = tlb_new_generation(c);
		c->nr_flushes++;
	}
	if (!keep || pcid != old)
		tlb_flush_upper_nonglobal(c);
	a->last_used = ++c->tlb_clock;
	c->asid = a;
	mmu_select(c);
}

void mmu_invlpg(struct soft_cpu *c, gva_t la)
{
	c->once = true;
	if (la >> 63) {
		tlb_drop_page(c, c->upper, c->upper_code, &c->upper_large, la);
		return;
	}
	if (!c->lower_global) {
		tlb_drop_page(c, c->asid->half, c->asid->code, &c->asid->large, la);
		return;
	}
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		if (c->asids[k].valid)
			tlb_drop_page(c, c->asids[k].half, c->asids[k].code, &c->asids[k].large, la);
}

void mmu_invpcid(struct soft_cpu *c, unsigned type, u16 pcid, gva_t la)
{
	struct tlb_asid *a = asid_find(c, pcid);
	c->once = true;
	switch (type) {
	case 0: /* one address; global entries may go too [SDM2 INVPCID] */
		tlb_drop2(c, la);
		if (la >> 63) {
			if (a == c->asid)
				tlb_drop_page(c, c->upper, c->upper_code, &c->upper_large, la);
		} else if (a) {
			tlb_drop_page(c, a->half, a->code, &a->large, la);
		}
		break;
	case 1: /* one PCID */
		if (a == c->asid) {
			tlb_drop_windows(c, 0, BIT(63));
			tlb_flush_tables(c, a->half, a->code);
			a->large.nr = 0;
			tlb_flush_upper_nonglobal(c);
			a->gen = tlb_new_generation(c);
		} else if (a) {
			a->valid = false;
		}
		c->nr_flushes++;
		break;
	case 2: mmu_flush_all(c); break;
	default: mmu_flush_nonglobal(c); break;
	}
}

void mmu_write_protect(struct soft_cpu *c, gpa_t page)
{
	tlb_drop_windows(c, 0, 0);
	tlb_write_protect(c, page);
}

bool mmu_load_pdptes(struct soft_cpu *c, u64 cr3)
{
	u64 v[4];
	for (unsigned k = 0; k < 4; k++) {
		const void *p = ram_ptr(c->ram, ram_gate(c->ram, cr3 & 0xffffffe0) + 8 * k, 8);
		v[k] = p ? __atomic_load_n((const u64 *)p, __ATOMIC_RELAXED) : ~0ull;
		/* [SDM3 table 4-8] */
		if (v[k] & PTE_P && v[k] & (c->maxphy_mask | 0xfff00000000001e6ull))
			return false;
	}
	for (unsigned k = 0; k < 4; k++)
		c->pdpte[k] = v[k];
	return true;
}

/* --- translation for an access --- */

/* PUSH, POP, CALL, RET, ENTER, LEAVE and the like. */
static bool is_stack_op(const struct insn *i)
{
	u8 op = i->opcode;
	if (i->map == 1)
		return op == 0xa0 || op == 0xa1 || op == 0xa8 || op == 0xa9;
	if (i->map != 0)
		return false;
	return (op >= 0x50 && op <= 0x5f) || op == 0x68 || op == 0x6a || op == 0x8f || op == 0x9c ||
	       op == 0x9d || op == 0xc2 || op == 0xc3 || (op >= 0xc8 && op <= 0xcb) || op == 0xcf ||
	       op == 0xe8 ||
	       (op == 0xff && (i->modrm & 0x38) >= 0x10 && (i->modrm & 0x38) != 0x20 &&
		(i->modrm & 0x38) != 0x28);
}

/* Does the access of la go through SS? In 64-bit mode SS has no base and may be decoded as SEG_FLAT. */
static bool uses_ss(const struct soft_cpu *c, const struct insn *i, gva_t la)
{
	if (!i)
		return false;
	if (is_stack_op(i) && (!i->mem || la - c->gpr[R_SP] + 16 < 32))
		return true;
	return i->seg == SEG_SS || (i->seg == SEG_FLAT && i->mem && (i->base == R_SP || i->base == R_BP));
}

/* Whether addresses are 32 bits wide: outside 64-bit mode; for the processor's own accesses outside
 * IA-32e mode. */
static bool is_narrow(const struct soft_cpu *c, bool implicit)
{
	return implicit ? !soft_long(c) : !soft_mode64(c);
}

static bool is_canonical(gva_t la)
{
	return (u64)((s64)(la << 16) >> 16) == la;
}

static gva_t check_linear(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, bool narrow)
{
	if (narrow)
		return (u32)la;
	if (unlikely(!is_canonical(la) || !is_canonical(la + len - 1)))
		soft_raise(c, i, uses_ss(c, i, la) ? EXC_SS : EXC_GP, 0);
	return la;
}

/* The address after la + n, where an access goes on in the next page. */
static gva_t next_page(gva_t la, unsigned n, bool narrow)
{
	return narrow ? (u32)(la + n) : la + n;
}

static void translate(struct soft_cpu *c, const struct insn *i, gva_t la, enum tlb_mode mode, unsigned acc,
		      struct tlb_place *ret)
{
	const struct tlb_table *t = la >> 63 ? &c->upper[mode] : &c->asid->half[mode];
	const struct tlb_entry *e = &t->e[la >> 12 & (TLB_SIZE - 1)];
	if (acc & ACC_X) {
		ret->host = tlb_exec(c, la);
		if (ret->host) {
			ret->gpa = (gpa_t)(ret->host - c->ram->base);
			return;
		}
	} else if ((acc & ACC_W ? e->w : e->r) == (la & ~PAGE_MASK)) {
		ret->host = (u8 *)(la + e->addend);
		ret->gpa = (gpa_t)(ret->host - c->ram->base);
		ret->rom = false; /* reads do not ask */
		return;
	}
	struct walk w;
	c->nr_misses++;
	if (!tlb_find2(c, la, mode, acc, &w)) {
		c->nr_walks++;
		if (unlikely(!walk_page(c, la, mode, acc, &w))) {
			c->cr2 = la;
			soft_raise(c, i, EXC_PF, w.error);
		}
		tlb_insert2(c, la, mode, &w);
	}
	tlb_fill(c, la, mode, acc, &w, ret);
}

/* Translates [la, la + len), len 1..4096, into one or two places; returns the bytes in the first. */
static unsigned translate_range(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len,
				unsigned acc, bool implicit, struct tlb_place ret[2])
{
	bool narrow = is_narrow(c, implicit);
	enum tlb_mode mode = implicit ? implicit_mode(c) : current_mode(c);
	la = check_linear(c, i, la, len, narrow);
	/* Larger ones are not checked. */
	if (unlikely(c->align_checks) && !implicit && len <= (c->amd ? 16 : 8) && bits_is_pow2(len) &&
	    la & (len - 1))
		soft_raise(c, i, EXC_AC, 0);
	unsigned n = MIN(len, (unsigned)(RAM_PAGE_SIZE - (la & PAGE_MASK)));
	translate(c, i, la, mode, acc, &ret[0]);
	if (n < len)
		translate(c, i, next_page(la, n, narrow), mode, acc, &ret[1]);
	return n;
}

/* --- the access itself --- */

/* A device may have changed what is memory and what is not. The next access of the same block sees it. */
static void bus_access(struct soft_cpu *c, struct vm_exit *exit)
{
	soft_exit(c, exit);
	if (unlikely(atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed) & VCPU_REQ_FLUSH))
		mmu_flush_all(c);
}

static u64 bus_load(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
	struct vm_exit exit = { .reason = EXIT_EPT_VIOLATION, .size = (u8)size, .addr = gpa };
	bus_access(c, &exit);
	return exit.data & bits_mask(size);
}

static void bus_store(struct soft_cpu *c, gpa_t gpa, unsigned size, u64 val)
{
	struct vm_exit exit = { .reason = EXIT_EPT_VIOLATION,
				.write = true,
				.size = (u8)size,
				.addr = gpa,
				.data = val & bits_mask(size) };
	bus_access(c, &exit);
}

/* size 1, 2, 4, 8, within a page; to RAM one access. */
static u64 load_unit(struct soft_cpu *c, const struct tlb_place *p, unsigned offset, unsigned size)
{
	if (unlikely(!p->host))
		return bus_load(c, p->gpa + offset, size);
	const u8 *h = p->host + offset;
	switch (size) {
	case 1: return *(const volatile u8 *)h;
	case 2: return *(const volatile any_u16 *)h;
	case 4: return *(const volatile any_u32 *)h;
	default: return *(const volatile any_u64 *)h;
	}
}

/* Without looking whether code was hit. */
static void store_unit(struct soft_cpu *c, const struct tlb_place *p, unsigned offset, unsigned size, u64 val)
{
	if (unlikely(!p->host || p->rom)) {
		bus_store(c, p->gpa + offset, size, val);
		return;
	}
	u8 *h = p->host + offset;
	if (unlikely(c->log))
		storelog_add(c->log, h, size);
	switch (size) {
	case 1: *(volatile u8 *)h = (u8)val; break;
	case 2: *(volatile any_u16 *)h = (u16)val; break;
	case 4: *(volatile any_u32 *)h = (u32)val; break;
	default: *(volatile any_u64 *)h = val; break;
	}
}

/* The largest unit for n bytes at gpa: all of them when that is a size an access can have, else what is
 * aligned. */
static unsigned unit_size(gpa_t gpa, unsigned n)
{
	if (n <= 8 && bits_is_pow2(n))
		return n;
	unsigned u = 8;
	while (u > n || gpa & (u - 1))
		u /= 2;
	return u;
}

/* len bytes of one place, at most 4096. */
static void load_bytes(struct soft_cpu *c, const struct tlb_place *p, u8 *buf, unsigned len)
{
	if (p->host && len > 8) { /* longer than what is read as one */
		soft_copy(buf, p->host, len);
		return;
	}
	for (unsigned k = 0, u; k < len; k += u) {
		u = unit_size(p->gpa + k, len - k);
		u64 v = load_unit(c, p, k, u);
		for (unsigned b = 0; b < u; b++)
			buf[k + b] = (u8)(v >> (8 * b));
	}
}

static void store_bytes(struct soft_cpu *c, const struct tlb_place *p, const u8 *buf, unsigned len)
{
	bool ram = p->host && !p->rom;

	if (ram && len > 8 && !c->log) {
		soft_copy(p->host, buf, len);
		walk_code_written(c, p->gpa, len);
		return;
	}
	for (unsigned k = 0, u; k < len; k += u) {
		u = unit_size(p->gpa + k, len - k);
		u64 v = 0;
		for (unsigned b = 0; b < u; b++)
			v |= (u64)buf[k + b] << (8 * b);
		store_unit(c, p, k, u, v);
	}
	if (ram)
		walk_code_written(c, p->gpa, len);
}

/* A debugger's watchpoint: the machine stops after the instruction. */
static void check_watchpoints(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, bool write)
{
	struct debug_vcpu *d = &c->vcpu->debug;
	const struct debug_data *p = debug_find_data(c->debug, la, len, write ? DEBUG_WRITE : DEBUG_READ);

	if (!p || d->why)
		return;
	d->kind = p->kind;
	d->addr = la - p->addr < p->len ? la : p->addr;
	d->why = DEBUG_AT_DATA;
	c->attention |= ATT_DEBUG;
	if (i != c->jit_insn)
		code_stop(c);
}

static void check_breakpoints(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, bool write,
			      bool implicit)
{
	if (unlikely(c->debug))
		check_watchpoints(c, i, la, len, write);
	if (likely(!(c->dr7 & 0xff)) || implicit)
		return;
	u64 hit = excp_data_breakpoint(c, la, len, write);
	if (hit) {
		c->dr6 |= hit;
		c->attention |= ATT_DB;
	}
}

static u64 load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc,
		bool implicit)
{
	struct tlb_place p[2];
	unsigned n = translate_range(c, i, la, size, acc, implicit, p);
	u64 v = 0;
	if (likely(n == size && bits_is_pow2(size))) {
		v = load_unit(c, &p[0], 0, size);
	} else {
		u8 bytes[8] = { 0 };
		load_bytes(c, &p[0], bytes, n);
		if (n < size)
			load_bytes(c, &p[1], bytes + n, size - n);
		for (unsigned k = 0; k < size; k++)
			v |= (u64)bytes[k] << (8 * k);
	}
	check_breakpoints(c, i, la, size, false, implicit);
	return v;
}

static void store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val, bool implicit)
{
	struct tlb_place p[2];
	unsigned n = translate_range(c, i, la, size, ACC_W, implicit, p);
	if (likely(n == size && bits_is_pow2(size))) {
		store_unit(c, &p[0], 0, size, val);
		if (p[0].host && !p[0].rom)
			walk_code_written(c, p[0].gpa, size);
	} else {
		u8 bytes[8] = { 0 };
		for (unsigned k = 0; k < size; k++)
			bytes[k] = (u8)(val >> (8 * k));
		store_bytes(c, &p[0], bytes, n);
		if (n < size)
			store_bytes(c, &p[1], bytes + n, size - n);
	}
	check_breakpoints(c, i, la, size, true, implicit);
}

u64 mmu_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc)
{
	return load(c, i, la, size, acc, false);
}

void mmu_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val)
{
	store(c, i, la, size, val, false);
}

void *mmu_atomic(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, gpa_t *ret_gpa)
{
	struct tlb_place p[2];
	if (translate_range(c, i, la, size, ACC_R | ACC_W, false, p) < size || !p[0].host || p[0].rom)
		return NULL;
	*ret_gpa = p[0].gpa;
	if (unlikely(c->log))
		storelog_add(c->log, p[0].host, size);
	check_breakpoints(c, i, la, size, true, false);
	return p[0].host;
}

void mmu_atomic_done(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
	walk_code_written(c, gpa, size);
}

void mmu_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc)
{
	struct tlb_place p[2];
	if (len)
		translate_range(c, i, la, len, acc, false, p);
}

u64 mmu_sys_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size)
{
	return load(c, i, la, size, ACC_R, true);
}

void mmu_sys_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val)
{
	store(c, i, la, size, val, true);
}

void mmu_sys_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc)
{
	struct tlb_place p[2];
	if (len)
		translate_range(c, i, la, len, acc, true, p);
}

void mmu_read_buf(struct soft_cpu *c, const struct insn *i, gva_t la, void *buf, unsigned len)
{
	struct tlb_place p[2];
	if (!len)
		return;
	unsigned n = translate_range(c, i, la, len, ACC_R, false, p);
	load_bytes(c, &p[0], buf, n);
	if (n < len)
		load_bytes(c, &p[1], (u8 *)buf + n, len - n);
	check_breakpoints(c, i, la, len, false, false);
}

void mmu_write_buf(struct soft_cpu *c, const struct insn *i, gva_t la, const void *buf, unsigned len)
{
	struct tlb_place p[2];
	if (!len)
		return;
	unsigned n = translate_range(c, i, la, len, ACC_W, false, p);
	store_bytes(c, &p[0], buf, n);
	if (n < len)
		store_bytes(c, &p[1], (const u8 *)buf + n, len - n);
	check_breakpoints(c, i, la, len, true, false);
}

const u8 *mmu_fetch(struct soft_cpu *c, gva_t la)
{
	struct tlb_place p;
	la = check_linear(c, NULL, la, 1, is_narrow(c, false));
	translate(c, NULL, la, current_mode(c), ACC_X, &p);
	return p.host;
}

bool mmu_peek(struct soft_cpu *c, gva_t la, void *buf, unsigned len)
{
	for (unsigned k = 0; k < len; k++) {
		struct walk w;
		gva_t a = is_narrow(c, true) ? (u32)(la + k) : la + k;
		const u8 *p;
		if (!is_canonical(a) || !walk_page(c, a, TLB_SUP_AC, 0, &w) ||
		    !(p = ram_ptr(c->ram, w.gpa, 1)))
			return false;
		((u8 *)buf)[k] = *p;
	}
	return true;
}
