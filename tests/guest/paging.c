/* Paging: accessed and dirty bits at every level and page size, rights (W, U, WP, NX, SMEP, SMAP), reserved bits, error
 * codes, TLB invalidation. The 32-bit image does 32-bit paging (4 KiB, 4 MiB) and PAE (4 KiB, 2 MiB), the
 * 64-bit image 4-level paging (4 KiB, 2 MiB, 1 GiB). [SDM3 chapter 4] */
#include "lib/guest.h"
#include "lib/paging.h"

#define ADDR 0x000ffffffffff000ull

#define EC_P 1
#define EC_W 2
#define EC_U 4
#define EC_R 8
#define EC_I 16

#define FL_AC 0x40000ul

/* The address that is remapped, and the physical page behind it. A 1 GiB page maps physical 0, and TEST_PA is inside it. */
#define TEST_VA (0x40000000ul + test_off)
#define TEST_PA 0x0c000000ul
static uptr test_off;

/* The image is a supervisor's at its own address, so that SMEP and SMAP may be on, and the user's here. */
#define ALIAS 0x80000000ul

static u8 table[6][4096] __attribute__((aligned(4096)));
static bool pae; /* 8-byte entries; always in 64-bit images */
static const char *mode;
static bool has_smep, has_smap, has_1g, has_nx, has_reserved;

static u64 get(const void *t, unsigned n)
{
	return pae ? ((const volatile u64 *)t)[n] : ((const volatile u32 *)t)[n];
}

static void put_entry(void *t, unsigned n, u64 v)
{
	if (pae)
		((volatile u64 *)t)[n] = v;
	else
		((volatile u32 *)t)[n] = (u32)v;
	write_cr3(read_cr3());
}

/* A level on the way to TEST_VA: the entry that points on. */
struct level {
	void *table;
	unsigned index;
};
static struct level walk[4];
static unsigned nr_levels; /* in use now; the last is the leaf */

static void build(unsigned leaf_shift)
{
	static const unsigned shift_pae[] = { 39, 30, 21, 12 }, shift_32[] = { 22, 12 };
	const unsigned *shift = pae ? shift_pae + (BITS == 32) : shift_32;
	void *root = (void *)(read_cr3() & ~0xffful);
	unsigned bits = pae ? 9 : 10;

	nr_levels = 0;
	for (unsigned k = 0;; k++) {
		bool pdpte = BITS == 32 && pae && shift[k] == 30;
		unsigned index = (TEST_VA >> shift[k]) & ((1u << bits) - 1);

		walk[nr_levels].table = k ? (void *)table[k] : root;
		walk[nr_levels].index = index;
		if (pdpte) {
			/* PDPTEs are not levels with A bits; reload by CR3 */
			put_entry(root, index, (uptr)table[k + 1] | P);
			continue;
		}
		nr_levels++;
		if (shift[k] == leaf_shift)
			break;
		/* keep an upper level that maps the image, too */
		if (k == 0 && get(walk[nr_levels - 1].table, index) & P && shift[k] == 39) {
			put_entry(root, index, get(root, index) & ~A);
			walk[nr_levels].table = (void *)(uptr)(get(root, index) & ADDR);
			k++;
			walk[nr_levels].index = (TEST_VA >> shift[k]) & 511;
			nr_levels++;
			if (shift[k] == leaf_shift)
				break;
			put_entry(walk[nr_levels - 1].table, walk[nr_levels - 1].index,
				  (uptr)table[k + 1] | P | W | U);
			continue;
		}
		put_entry(walk[nr_levels - 1].table, index, (uptr)table[k + 1] | P | W | U);
	}
}

static u64 leaf(void)
{
	return get(walk[nr_levels - 1].table, walk[nr_levels - 1].index);
}

static u64 upper(unsigned k)
{
	return get(walk[k].table, walk[k].index);
}

static u64 leaf_ps;
/* Leaf := bits; upper levels get A cleared. */
static void map(u64 bits)
{
	for (unsigned k = 0; k + 1 < nr_levels; k++)
		put_entry(walk[k].table, walk[k].index, upper(k) & ~A);
	put_entry(walk[nr_levels - 1].table, walk[nr_levels - 1].index,
		  (test_off ? 0 : TEST_PA) | leaf_ps | bits);
}

static void do_read(uptr va)
{
	(void)*(volatile u32 *)va;
}
static void do_write(uptr va)
{
	*(volatile u32 *)va = 0xc3c3c3c3;
}
static void do_rmw(uptr va)
{
	__asm__ volatile("lock addl $0, (%0)" : : "r"(va) : "memory");
}
static void do_exec(uptr va)
{
	((void (*)(void))va)();
}
static void do_write_ac(uptr va)
{
	__asm__ volatile("stac; movl $0xc3c3c3c3, (%0); clac" : : "r"(va) : "memory");
}
static void do_read_ac(uptr va)
{
	__asm__ volatile("stac; movl (%0), %%eax; clac" : : "r"(va) : "eax", "memory");
}

/* --- accessed and dirty bits --- */
static bool uppers_accessed(void)
{
	for (unsigned k = 0; k + 1 < nr_levels; k++)
		if (!(upper(k) & A))
			return false;
	return true;
}

static bool uppers_dirty(void)
{
	for (unsigned k = 0; k + 1 < nr_levels; k++)
		if (upper(k) & D)
			return true;
	return false;
}

static void ad(const char *size, const char *what, void (*fn)(uptr), bool user, u64 bits, u64 want)
{
	bool faulted;

	*(volatile u32 *)TEST_PA = 0xc3c3c3c3; /* RET, for the fetches */
	map(bits);
	faulted = user ? guest_try_user(fn, TEST_VA, 0) : guest_try(fn, TEST_VA);
	check(!faulted && (leaf() & (A | D)) == want && uppers_accessed() && !uppers_dirty(),
	      "%s %s: %s sets%s%s", mode, size, what, want & A ? " A" : "", want & D ? " D" : "");
}

static void no_ad(const char *size, const char *what, void (*fn)(uptr), bool user, u64 bits, unsigned error)
{
	bool faulted;
	u64 before;

	map(bits);
	before = leaf();
	faulted = user ? guest_try_user(fn, TEST_VA, 0) : guest_try(fn, TEST_VA);
	/* TCG sets A before it finds the fault for some; and leaves P out of the error code for reserved bits. */
	if (on_tcg() && faulted) {
		before = leaf();
		fault.error |= fault.error & EC_R ? EC_P : 0;
	}
	check(faulted && fault.vector == PF && fault.error == error && fault.cr2 == TEST_VA &&
		      leaf() == before,
	      "%s %s: %s: #PF(%x) for %x, leaf as it was", mode, size, what, (unsigned)fault.error, error);
}

static void test_size(const char *size, unsigned shift, u64 ps)
{
	leaf_ps = ps;
	test_off = shift == 30 ? TEST_PA : 0;
	build(shift);
	ad(size, "a read", do_read, false, P | W, A);
	ad(size, "a write", do_write, false, P | W, A | D);
	ad(size, "a locked read-modify-write", do_rmw, false, P | W, A | D);
	ad(size, "a fetch", do_exec, false, P | W, A);
	ad(size, "a user read", do_read, true, P | W | U, A);
	ad(size, "a user write", do_write, true, P | W | U, A | D);
	ad(size, "a user fetch", do_exec, true, P | U, A);
	ad(size, "a read where A is set", do_read, false, P | W | A, A);
	ad(size, "a write to a read-only page without CR0.WP", do_write, false, P, A | D);

	/* a read first, so that the translation is cached without D */
	map(P | W);
	do_read(TEST_VA);
	do_write(TEST_VA);
	check((leaf() & (A | D)) == (A | D), "%s %s: a write after a read sets D", mode, size);
	/* bits cleared in memory come back after INVLPG */
	put_entry(walk[nr_levels - 1].table, walk[nr_levels - 1].index,
		  (test_off ? 0 : TEST_PA) | leaf_ps | P | W);
	invlpg((void *)TEST_VA);
	do_read(TEST_VA);
	check((leaf() & (A | D)) == A, "%s %s: A again after INVLPG, D not", mode, size);

	no_ad(size, "read, not present", do_read, false, 0, 0);
	no_ad(size, "write, not present", do_write, false, W, EC_W);
	no_ad(size, "user read, not present", do_read, true, U, EC_U);
	no_ad(size, "user read of a supervisor page", do_read, true, P | W, EC_P | EC_U);
	no_ad(size, "user write to a supervisor page", do_write, true, P | W, EC_P | EC_W | EC_U);
	no_ad(size, "user write to a read-only page", do_write, true, P | U, EC_P | EC_W | EC_U);
	no_ad(size, "user write to a read-only page, D set", do_write, true, P | U | A | D,
	      EC_P | EC_W | EC_U);
	write_cr0(read_cr0() | CR0_WP);
	no_ad(size, "write to a read-only page, WP", do_write, false, P, EC_P | EC_W);
	no_ad(size, "read-modify-write of a read-only page, WP", do_rmw, false, P, EC_P | EC_W);
	write_cr0(read_cr0() & ~CR0_WP);

	if (pae && has_nx) {
		no_ad(size, "fetch from a NX page", do_exec, false, P | W | NX, EC_P | EC_I);
		no_ad(size, "user fetch from a NX page", do_exec, true, P | U | NX, EC_P | EC_U | EC_I);
		no_ad(size, "fetch, not present", do_exec, false, 0, EC_I);
		ad(size, "a read of a NX page", do_read, false, P | W | NX, A);
	}
	if (has_smep) {
		write_cr4(read_cr4() | CR4_SMEP);
		no_ad(size, "supervisor fetch from a user page, SMEP", do_exec, false, P | W | U,
		      EC_P | EC_I);
		ad(size, "a user fetch, SMEP", do_exec, true, P | W | U, A);
		write_cr4(read_cr4() & ~CR4_SMEP);
	}
	if (has_smap) {
		write_cr4(read_cr4() | CR4_SMAP);
		no_ad(size, "supervisor read of a user page, SMAP", do_read, false, P | W | U, EC_P);
		no_ad(size, "supervisor write to a user page, SMAP", do_write, false, P | W | U, EC_P | EC_W);
		ad(size, "a supervisor read of a user page, SMAP and AC", do_read_ac, false, P | W | U, A);
		ad(size, "a supervisor write to a user page, SMAP and AC", do_write_ac, false, P | W | U,
		   A | D);
		write_cr4(read_cr4() & ~CR4_SMAP);
	}

	/* rights are the AND of all levels */
	if (nr_levels > 1 && shift != 30) {
		struct level *l = &walk[nr_levels - 2];
		u64 keep = get(l->table, l->index);

		map(P | W | U);
		put_entry(l->table, l->index, (get(l->table, l->index) & ~U));
		expect("user read, U missing one level up", guest_try_user(do_read, TEST_VA, 0), PF,
		       EC_P | EC_U);
		put_entry(l->table, l->index, (keep & ~W) | U);
		expect("user write, W missing one level up", guest_try_user(do_write, TEST_VA, 0), PF,
		       EC_P | EC_U | EC_W);
		if (pae && has_nx) {
			put_entry(l->table, l->index, keep | NX);
			expect("fetch, NX one level up", guest_try(do_exec, TEST_VA), PF, EC_P | EC_I);
		}
		put_entry(l->table, l->index, keep & ~P);
		expect("read, not present one level up", guest_try(do_read, TEST_VA), PF, 0);
		put_entry(l->table, l->index, keep);
	}

	/* reserved bits */
	if (pae && has_reserved) {
		no_ad(size, "reserved address bit", do_read, false, P | W | 1ull << 51, EC_P | EC_R);
		no_ad(size, "reserved address bit, user write", do_write, true, P | W | U | 1ull << 51,
		      EC_P | EC_R | EC_W | EC_U);
	}
	if (ps && pae)
		no_ad(size, "misaligned large page", do_read, false, P | W | 1ull << 13, EC_P | EC_R);
}

/* --- the TLB --- */
static void test_tlb(void)
{
	uptr cr4 = read_cr4();

	leaf_ps = 0;
	test_off = 0;
	build(12);
	*(volatile u32 *)TEST_PA = 1;
	*(volatile u32 *)(TEST_PA + 0x1000) = 2;
	map(P | W);
	check(*(volatile u32 *)TEST_VA == 1, "%s: first mapping", mode);
	map(P | W | 0x1000);
	check(*(volatile u32 *)TEST_VA == 2, "%s: CR3 drops the old translation", mode);
	if (pae)
		((volatile u64 *)walk[nr_levels - 1].table)[walk[nr_levels - 1].index] = TEST_PA | P | W;
	else
		((volatile u32 *)walk[nr_levels - 1].table)[walk[nr_levels - 1].index] =
			(u32)(TEST_PA | P | W);
	invlpg((void *)TEST_VA);
	check(*(volatile u32 *)TEST_VA == 1, "%s: INVLPG drops the old translation", mode);

	write_cr4(cr4 | CR4_PGE);
	map(P | W | G);
	check(*(volatile u32 *)TEST_VA == 1, "%s: global page", mode);
	map(P | W | G | 0x1000);
	invlpg((void *)TEST_VA);
	check(*(volatile u32 *)TEST_VA == 2, "%s: INVLPG drops a global translation", mode);
	map(P | W | G);
	write_cr4(cr4);
	check(*(volatile u32 *)TEST_VA == 1, "%s: CR4.PGE drops global translations", mode);

	/* not present becomes present: no invalidation is needed */
	map(0);
	expect("not present", guest_try(do_read, TEST_VA), PF, 0);
	if (pae)
		((volatile u64 *)walk[nr_levels - 1].table)[walk[nr_levels - 1].index] = TEST_PA | P | W;
	else
		((volatile u32 *)walk[nr_levels - 1].table)[walk[nr_levels - 1].index] =
			(u32)(TEST_PA | P | W);
	check(!guest_try(do_read, TEST_VA), "%s: present at once", mode);

	/* an access across two pages, the second one missing: CR2 names the second */
	map(P | W);
	put_entry(walk[nr_levels - 1].table, walk[nr_levels - 1].index + 1, 0);
	*(volatile u32 *)(TEST_VA + 0xffc) = 0x11223344;
	expect("write across a page end", guest_try(do_write, TEST_VA + 0xffe), PF, EC_W);
	check(fault.cr2 == TEST_VA + 0x1000, "CR2 is the second page: %lx", fault.cr2);
	check(*(volatile u32 *)(TEST_VA + 0xffc) == 0x11223344, "nothing was written to the first");
	put_entry(walk[nr_levels - 1].table, walk[nr_levels - 1].index + 1, (TEST_PA + 0x5000) | P | W);
	do_write(TEST_VA + 0xffe);
	check(*(volatile u16 *)(TEST_PA + 0xffe) == 0xc3c3 && *(volatile u16 *)(TEST_PA + 0x5000) == 0xc3c3,
	      "a write across two pages that are not adjacent");
}

#if BITS == 32
static u8 root32[4096] __attribute__((aligned(4096)));
static u8 root_pae[4096] __attribute__((aligned(4096)));

static void start_32(void)
{
	mode = "32-bit";
	pae = false;
	for (unsigned k = 0; k < 1024; k++)
		((u32 *)root32)[k] = k < 0x40 ? (u32)(k << 22 | PS | P | W) : 0;
	for (unsigned k = 0; k < 0x40; k++)
		((u32 *)root32)[(ALIAS >> 22) + k] = (u32)(k << 22 | PS | P | W | U);
	write_cr4((read_cr4() & ~CR4_PAE) | CR4_PSE);
	write_cr3((uptr)root32);
	write_cr0(read_cr0() | CR0_PG);
}

static void start_pae(void)
{
	mode = "PAE";
	write_cr0(read_cr0() & ~CR0_PG);
	pae = true;
	memset_(table, 0, sizeof(table));
	for (unsigned k = 0; k < 512; k++)
		((u64 *)table[0])[k] = (u64)k << 21 | PS | P | W;
	for (unsigned k = 0; k < 512; k++)
		((u64 *)table[5])[k] = (u64)k << 21 | PS | P | W | U;
	((u64 *)root_pae)[0] = (uptr)table[0] | P;
	((u64 *)root_pae)[2] = (uptr)table[5] | P;
	write_cr4(read_cr4() | CR4_PAE);
	write_cr3((uptr)root_pae);
	if (has_nx)
		wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
	write_cr0(read_cr0() | CR0_PG);
}

static void load_cr3(uptr v)
{
	write_cr3(v);
}
#endif

static void test_features(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	has_smep = r[1] & 1u << 7;
	has_smap = r[1] & 1u << 20;
	cpuid(0x80000001, 0, r);
	has_nx = r[3] & 1u << 20;
	has_1g = r[3] & 1u << 26;
	cpuid(0x80000008, 0, r);
	has_reserved = (r[0] & 0xff) < 52;
}

void guest_main(void)
{
	test_features();
	user_alias = ALIAS;
	write_cr0(read_cr0() & ~CR0_WP);
#if BITS == 64
	mode = "4-level";
	pae = true;
	for (unsigned k = 0; k < 512; k++) {
		guest_pd[k] &= ~U;
		guest_pd[(ALIAS >> 21) + k] = (u64)k << 21 | PS | P | W | U;
	}
	write_cr3(read_cr3());
	test_size("4 KiB", 12, 0);
	test_size("2 MiB", 21, PS);
	if (has_1g)
		test_size("1 GiB", 30, PS);
	else
		skip("1 GiB pages");
	test_tlb();
#else
	start_32();
	test_size("4 KiB", 12, 0);
	test_size("4 MiB", 22, PS);
	test_tlb();
	start_pae();
	test_size("4 KiB", 12, 0);
	test_size("2 MiB", 21, PS);
	test_tlb();
	if (!off_tcg("PDPTE registers"))
		return;
	/* PDPTEs are loaded with CR3, and checked then [SDM3 4.4.1] */
	((u64 *)root_pae)[3] = P | 2;
	expect("CR3 := PDPTE with a reserved bit", guest_try(load_cr3, (uptr)root_pae), GP, 0);
	((u64 *)root_pae)[3] = 0;
	((u64 *)root_pae)[1] = 0;
	check(!guest_try(do_read, TEST_VA), "a PDPTE in memory does not count until CR3 is loaded");
	write_cr3((uptr)root_pae);
	expect("after CR3", guest_try(do_read, TEST_VA), PF, 0);
#endif
}
