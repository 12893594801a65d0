/* SMBIOS structures: a machine, its one processor package, and its memory.
 *
 * Document: DMTF DSP0134 [SMBIOS 7.x], 2.8, with the entry point of 32 bits, which all firmware and kernels know.
 *
 * How it works: a structure is a fixed part, then its strings, which the fixed part names by number, then a zero. Fields that
 * are not mentioned are 0: unknown, or none. Structure n of a kind has the handle kind << 8 | n.
 *
 * Omitted, and why that is safe: serial numbers and the UUID, which would have to be each machine's own and the same in its next
 * life (zeros say that there is none); caches, slots and connectors, which are optional or read from CPUID and PCI.
 *
 * Any thread.
 */
#include "boot/smbios.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

#define HEADER          4
#define HANDLE(type, n) ((u16)((type) << 8 | (n)))

enum {
	T_BIOS = 0,
	T_SYSTEM = 1,
	T_CHASSIS = 3,
	T_CPU = 4,
	T_ARRAY = 16,
	T_MODULE = 17,
	T_RANGE = 19,
	T_BOOT = 32,
	T_END = 127
};

struct table {
	u8 *base, *cur; /* cur: the structure under way */
	u32 used;
	u16 nr, largest;
	u8 nr_strings;
	u32 begun;
};

static u8 *begin(struct table *t, u8 type, u8 n, u8 len)
{
	assert(t->used + len + 2 <= SMBIOS_MAX);
	t->begun = t->used;
	t->cur = t->base + t->used;
	t->used += len;
	t->nr_strings = 0;
	memset(t->cur, 0, len);
	t->cur[0] = type;
	t->cur[1] = len;
	st16(t->cur + 2, HANDLE(type, n));
	return t->cur;
}

/* Into the field at `at` of the structure under way. */
static void string(struct table *t, u8 at, const char *text)
{
	u32 len = (u32)strlen(text) + 1;

	assert(t->used + len + 1 <= SMBIOS_MAX);
	memcpy(t->base + t->used, text, len);
	t->used += len;
	t->cur[at] = ++t->nr_strings;
}

static void end(struct table *t)
{
	if (!t->nr_strings)
		t->base[t->used++] = 0;
	t->base[t->used++] = 0;
	t->nr++;
	t->largest = MAX(t->largest, (u16)(t->used - t->begun));
}

/* [SMBIOS 7.1]; the date is one that no real firmware has. */
static void put_bios(struct table *t, const char *version)
{
	u8 *p = begin(t, T_BIOS, 0, 24);

	string(t, 4, "bothy");
	string(t, 5, version);
	st16(p + 6, 0xe000); /* segment */
	string(t, 8, "01/01/1980");
	p[9] = 1;                /* 128 KiB */
	st64(p + 10, BIT(3));    /* characteristics are not told */
	p[18] = BIT(0);          /* ACPI */
	p[19] = BIT(4);          /* a virtual machine */
	memset(p + 20, 0xff, 4); /* no releases of it and of an embedded controller */
	end(t);
}

/* [SMBIOS 7.2, 7.4] */
static void put_system(struct table *t)
{
	u8 *p = begin(t, T_SYSTEM, 0, 27);

	string(t, 4, "bothy");
	string(t, 5, "Virtual Machine");
	p[24] = 6; /* woken by the power switch */
	end(t);

	p = begin(t, T_CHASSIS, 0, 22);
	string(t, 4, "bothy");
	p[5] = 1;                 /* of no kind that there is a word for */
	p[9] = p[10] = p[11] = 3; /* boot, power and heat: safe */
	p[12] = 3;                /* security: none */
	end(t);
}

/* [SMBIOS 7.5] */
static void put_cpu(struct table *t, const struct smbios_board *b)
{
	u8 *p = begin(t, T_CPU, 0, 42), cores = (u8)MIN(b->nr_cpus, 255u);

	string(t, 4, "CPU 0");
	p[5] = 3; /* a central processor */
	p[6] = 2; /* of an unknown family; CPUID knows */
	string(t, 7, "bothy");
	st32(p + 8, b->signature);
	st32(p + 12, b->features);
	st16(p + 20, (u16)MIN(b->mhz, 0xffffu));
	st16(p + 22, (u16)MIN(b->mhz, 0xffffu));
	p[24] = BIT(6) | 1;            /* there, and enabled */
	p[25] = 6;                     /* no upgrade */
	memset(p + 26, 0xff, 6);       /* no structures about caches */
	p[35] = p[36] = p[37] = cores; /* of them enabled, threads */
	st16(p + 38, BIT(2) | BIT(3)); /* 64 bits, several cores */
	st16(p + 40, 2);
	end(t);
}

static void put_range(struct table *t, u8 n, u64 from, u64 len)
{
	u8 *p;

	if (!len)
		return;
	p = begin(t, T_RANGE, n, 31);
	if (from + len <= BIT(42)) {
		st32(p + 4, (u32)(from / KiB));
		st32(p + 8, (u32)((from + len) / KiB - 1));
	} else {
		st32(p + 4, 0xffffffff);
		st32(p + 8, 0xffffffff);
		st64(p + 15, from);
		st64(p + 23, from + len - 1);
	}
	st16(p + 12, HANDLE(T_ARRAY, 0));
	p[14] = 1;
	end(t);
}

/* One module [SMBIOS 7.17, 7.18, 7.20]. */
static void put_memory(struct table *t, const struct smbios_board *b)
{
	u8 *p = begin(t, T_ARRAY, 0, 23);
	u64 kib = b->memory / KiB, mib = b->memory / MiB;

	p[4] = 3; /* on the board, */
	p[5] = 3; /* for the system, */
	p[6] = 3; /* without error correction */
	st32(p + 7, kib < BIT(31) ? (u32)kib : 0x80000000);
	st16(p + 11, 0xfffe); /* nothing about errors */
	st16(p + 13, 1);
	if (kib >= BIT(31))
		st64(p + 15, b->memory);
	end(t);

	p = begin(t, T_MODULE, 0, 40);
	st16(p + 4, HANDLE(T_ARRAY, 0));
	st16(p + 6, 0xfffe);
	st16(p + 8, 0xffff); /* widths are unknown */
	st16(p + 10, 0xffff);
	if (mib < 0x7fff) {
		st16(p + 12, (u16)mib);
	} else {
		st16(p + 12, 0x7fff);
		st32(p + 28, (u32)mib);
	}
	p[14] = 9; /* a DIMM */
	string(t, 16, "DIMM 0");
	p[18] = 7;            /* RAM */
	st16(p + 19, BIT(1)); /* and no more is said of it */
	string(t, 23, "bothy");
	end(t);

	put_range(t, 0, 0, b->low_memory);
	put_range(t, 1, 4 * GiB, b->memory - b->low_memory);
}

/* Without the zero that ends it. */
static void put_mark(u8 *p, const char *text)
{
	while (*text)
		*p++ = (u8)*text++;
}

u32 smbios_build(const struct smbios_board *b, u32 gpa, u8 anchor[SMBIOS_ANCHOR], u8 tables[SMBIOS_MAX])
{
	struct table t = { .base = tables };

	if (b->bios)
		put_bios(&t, b->bios);
	put_system(&t);
	put_cpu(&t, b);
	put_memory(&t, b);
	begin(&t, T_BOOT, 0, 11); /* [SMBIOS 7.33] no errors found */
	end(&t);
	begin(&t, T_END, 0, HEADER);
	end(&t);

	memset(anchor, 0, SMBIOS_ANCHOR);
	put_mark(anchor, "_SM_");
	anchor[5] = SMBIOS_ANCHOR;
	anchor[6] = 2;
	anchor[7] = 8;
	st16(anchor + 8, t.largest);
	put_mark(anchor + 16, "_DMI_");
	st16(anchor + 22, (u16)t.used);
	st32(anchor + 24, gpa);
	st16(anchor + 28, t.nr);
	anchor[30] = 0x28;
	anchor[21] = (u8)-bits_sum8(anchor + 16, SMBIOS_ANCHOR - 16);
	anchor[4] = (u8)-bits_sum8(anchor, SMBIOS_ANCHOR);
	return t.used;
}
