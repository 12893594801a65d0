/* The ACPI tables of the board.
 *
 * Document: ACPI Specification 6.3 ("[ACPI]"); for the HPET table the IA-PC HPET Specification 1.0a
 * ("[HPET]"), for MCFG the PCI Firmware Specification 3.0.
 *
 * The tables lie behind each other in one read-only area below 1 MiB, the root pointer first: RSDP, DSDT,
 * FADT, MADT, HPET, MCFG, SSDT, then RSDT and XSDT, which point to the others. The DSDT is compiled from
 * dsdt.asl when bothy is built. The SSDT has one device per processor and is put together here, since the
 * number varies; its byte code is [ACPI 20.2]. The FACS lies apart, because the guest writes to it.
 *
 * The machine is in ACPI mode from the start, so there is no SMI command port. Omitted: legacy mode, S1, S2 and S4,
 * x2APIC entries (ids stay below 255), SRAT and SLIT (one node), any method that needs an embedded
 * controller. Main thread only.
 */
#include "boot/acpi.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"

/* dsdt_aml_code[], from iasl. */
static const
#include "boot/dsdt.hex"

#define OEM_ID       "BOTHY "
#define OEM_TABLE_ID "BOTHYPC "
#define CREATOR_ID   "BTHY"

#define HEADER_SIZE 36
#define FADT_SIZE   276
#define RSDP_SIZE   36
#define MAX_TABLES  8

	struct acpi_area {
	u8 *base;
	u32 gpa, len, used;
	bool overflow;
	u32 table[MAX_TABLES]; /* addresses for RSDT and XSDT */
	unsigned nr_tables;
	struct acpi_links links;
};

/* len bytes of zeros at the next multiple of 16; NULL once the area is full. */
static u8 *area_take(struct acpi_area *a, u32 len, u32 *ret_gpa)
{
	u32 at = ALIGN_UP(a->used, 16u);

	if (at > a->len || len > a->len - at) {
		a->overflow = true;
		return NULL;
	}
	a->used = at + len;
	*ret_gpa = a->gpa + at;
	memset(a->base + at, 0, len);
	return a->base + at;
}

/* Signatures and names are not terminated. */
static void put_text(u8 *p, const char *text, u32 len)
{
	memcpy(p, text, len);
}

/* Header with everything but the checksum [ACPI 5.2.6]. */
static void put_header(u8 *t, const char *signature, u32 len, u8 revision)
{
	put_text(t, signature, 4);
	st32(t + 4, len);
	t[8] = revision;
	put_text(t + 10, OEM_ID, 6);
	put_text(t + 16, OEM_TABLE_ID, 8);
	st32(t + 24, 1);
	put_text(t + 28, CREATOR_ID, 4);
	st32(t + 32, 1);
}

/* Offsets of t itself are from the area's start. */
static void seal(struct acpi_area *a, u8 *t, u32 t_at, u32 len, u32 checksum_at)
{
	t[checksum_at] = 0;
	t[checksum_at] = (u8)-bits_sum8(t, len);
	assert(a->links.nr_sums < ACPI_MAX_SUMS);
	a->links.sum[a->links.nr_sums].start = t_at;
	a->links.sum[a->links.nr_sums].len = len;
	a->links.sum[a->links.nr_sums++].at = t_at + checksum_at;
}

static void note_pointer(struct acpi_area *a, u32 at, u8 size)
{
	assert(a->links.nr_pointers < ACPI_MAX_POINTERS);
	a->links.pointer[a->links.nr_pointers].at = at;
	a->links.pointer[a->links.nr_pointers++].size = size;
}

/* A finished table from a buffer into the area. */
static u32 put_table(struct acpi_area *a, u8 *table, u32 len, bool listed)
{
	u32 gpa = 0;
	u8 *t = area_take(a, len, &gpa);

	if (!t)
		return 0;
	seal(a, table, gpa - a->gpa, len, 9);
	memcpy(t, table, len);
	if (listed && a->nr_tables < MAX_TABLES)
		a->table[a->nr_tables++] = gpa;
	return gpa;
}

/* Generic address structure [ACPI 5.2.3.2]: an I/O port. */
static void put_port(u8 *p, u16 port, u8 bits, u8 access)
{
	p[0] = 1; /* system I/O */
	p[1] = bits;
	p[3] = access; /* 1 byte, 2 word, 3 dword */
	st64(p + 4, port);
}

/* [ACPI 5.2.9]. Offsets by the table there. */
static void put_fadt(struct acpi_area *a, const struct acpi_board *b, u32 facs, u32 dsdt)
{
	/* WBINVD works, C1 on every processor, no sleep button, 32-bit PM timer, the reset register is there. PWR_BUTTON
	 * (bit 4) and FIX_RTC (bit 6) clear: a fixed power button, and the clock's alarm in PM1. */
	const u32 flags = BIT(0) | BIT(2) | BIT(5) | BIT(8) | BIT(10);
	u8 t[FADT_SIZE] = { 0 };
	u32 at;

	put_header(t, "FACP", sizeof(t), 6);
	st32(t + 36, facs);
	st32(t + 40, dsdt);
	t[45] = 1; /* preferred profile: desktop */
	st16(t + 46, b->sci_irq);
	/* 48 SMI_CMD to 55 PSTATE_CNT stay zero: no SMIs. */
	st32(t + 56, b->pm_event);
	st32(t + 64, b->pm_control);
	st32(t + 76, b->pm_timer);
	st32(t + 80, b->gpe0);
	t[88] = 4; /* lengths: PM1 events, control, timer, GPE0 */
	t[89] = 2;
	t[91] = 4;
	t[92] = b->gpe0_len;
	st16(t + 96, 0xfff); /* C2 and C3 latencies: too long, so absent */
	st16(t + 98, 0xfff);
	t[108] = b->century;
	/* IA-PC boot architecture [ACPI 5.2.9.3]: devices on the old bus, an 8042, no ASPM; a VGA that is not to be looked for. */
	st16(t + 109, BIT(0) | BIT(1) | BIT(4) | (b->vga ? 0 : BIT(2)));
	st32(t + 112, flags);
	put_port(t + 116, b->reset_port, 8, 1);
	t[128] = b->reset_value;
	t[131] = 3; /* minor version: 6.3 */
	/* X_FIRMWARE_CTRL stays zero: the 32-bit field holds the address [ACPI 5.2.9]. */
	st64(t + 140, dsdt);
	put_port(t + 148, b->pm_event, 32, 2);
	put_port(t + 172, b->pm_control, 16, 2);
	put_port(t + 208, b->pm_timer, 32, 3);
	if (b->gpe0_len)
		put_port(t + 220, b->gpe0, (u8)(b->gpe0_len * 8), 1);
	put_text(t + 268, "BOTHY", 5); /* hypervisor vendor */
	at = put_table(a, t, sizeof(t), true) - a->gpa;
	note_pointer(a, at + 36, 4);
	note_pointer(a, at + 40, 4);
	note_pointer(a, at + 140, 8);
}

/* [ACPI 5.2.12] */
static void put_madt(struct acpi_area *a, const struct acpi_board *b)
{
	u8 t[HEADER_SIZE + 8 + 255 * 8 + 12 + 2 * 10 + 6] = { 0 };
	u8 *p = t + HEADER_SIZE;
	u32 len;

	st32(p, (u32)b->lapic);
	st32(p + 4, 1); /* an 8259A pair is there too */
	p += 8;
	for (u32 i = 0; i < b->nr_cpus && i < 255; i++, p += 8) {
		p[0] = 0; /* processor local APIC */
		p[1] = 8;
		p[2] = (u8)i;
		p[3] = (u8)i;
		st32(p + 4, 1); /* enabled */
	}
	p[0] = 1; /* I/O APIC */
	p[1] = 12;
	p[2] = b->ioapic_id;
	st32(p + 4, (u32)b->ioapic);
	st32(p + 8, 0); /* its first global interrupt */
	p += 12;
	p[0] = 2; /* override: ISA interrupt 0, as the bus says (edge, high) */
	p[1] = 10;
	p[3] = 0;
	st32(p + 4, b->timer_pin);
	p += 10;
	p[0] = 2; /* override: the SCI, level, active high */
	p[1] = 10;
	p[3] = b->sci_irq;
	st32(p + 4, b->sci_irq);
	st16(p + 8, 0xd);
	p += 10;
	p[0] = 4; /* NMI at LINT1 of every processor */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	p += 6;
	len = (u32)(p - t);
	put_header(t, "APIC", len, 4);
	put_table(a, t, len, true);
}

/* [HPET 3.2.4] */
static void put_hpet(struct acpi_area *a, const struct acpi_board *b)
{
	u8 t[56] = { 0 };

	put_header(t, "HPET", sizeof(t), 1);
	st32(t + 36, b->hpet_id);
	t[40] = 0;  /* in memory */
	t[41] = 64; /* bits */
	st64(t + 44, b->hpet);
	t[52] = 0; /* number */
	st16(t + 53, b->hpet_min_tick);
	put_table(a, t, sizeof(t), true);
}

static void put_mcfg(struct acpi_area *a, const struct acpi_board *b)
{
	u8 t[HEADER_SIZE + 8 + 16] = { 0 };

	put_header(t, "MCFG", sizeof(t), 1);
	st64(t + 44, b->ecam);
	t[55] = b->ecam_last_bus;
	put_table(a, t, sizeof(t), true);
}

/* PkgLength in two bytes; it counts itself [ACPI 20.2.4]. */
static void put_pkg_length(u8 *p, u32 len)
{
	p[0] = (u8)(0x40 | (len & 0xf));
	p[1] = (u8)(len >> 4);
}

/* Name (name, val) as 10 bytes. */
static u8 *put_name(u8 *p, const char *name, u32 val)
{
	*p++ = 0x08; /* NameOp */
	put_text(p, name, 4);
	p[4] = 0x0c; /* DWordPrefix */
	st32(p + 5, val);
	return p + 9;
}

static u8 *put_name64(u8 *p, const char *name, u64 val)
{
	p = put_name(p, name, (u32)val);
	p[-5] = 0x0e; /* QWordPrefix */
	st32(p, (u32)(val >> 32));
	return p + 4;
}

/* Scope (\_SB) { Name (ECAM, ...) and so on; Device (C0nn) { Name (_HID, "ACPI0007") Name (_UID, nn) } ... } */
static void put_ssdt(struct acpi_area *a, const struct acpi_board *b)
{
	static const char hex[] = "0123456789ABCDEF";
	static const char hid[] = "\x08_HID\x0d"
				  "ACPI0007";
	static const char uid[] = "\x08_UID\x0a";
	enum { NAMES_SIZE = 2 * 10 + 2 * 14 };
	enum { DEVICE_SIZE = 2 + 2 + 4 + sizeof(hid) + sizeof(uid) - 1 + 1 };
	/* The longest scope has 4095 bytes in a two-byte length. */
	u8 t[HEADER_SIZE + 1 + 4095];
	u32 nr = MIN(b->nr_cpus, (4095u - 7 - NAMES_SIZE) / DEVICE_SIZE);
	u32 scope = 2 + 5 + NAMES_SIZE + nr * DEVICE_SIZE, len = HEADER_SIZE + 1 + scope;
	u8 *p = t + HEADER_SIZE;

	memset(t, 0, sizeof(t));
	put_header(t, "SSDT", len, 2);
	*p++ = 0x10; /* ScopeOp */
	put_pkg_length(p, scope);
	put_text(p + 2, "\\_SB_", 5);
	p = put_name(p + 7, "ECAM", (u32)b->ecam);
	p = put_name(p, "PMEM", b->pci_mem);
	p = put_name64(p, "HMEM", b->pci_high);
	p = put_name64(p, "HEND", b->pci_high_end);
	for (u32 i = 0; i < nr; i++) {
		*p++ = 0x5b; /* DeviceOp */
		*p++ = 0x82;
		put_pkg_length(p, DEVICE_SIZE - 2);
		put_text(p + 2, "C0", 2);
		p[4] = (u8)hex[i >> 4 & 0xf];
		p[5] = (u8)hex[i & 0xf];
		p += 6;
		put_text(p, hid, sizeof(hid)); /* with the zero that ends the string */
		p += sizeof(hid);
		put_text(p, uid, sizeof(uid) - 1);
		p += sizeof(uid) - 1;
		*p++ = (u8)i;
	}
	put_table(a, t, len, true);
}

/* RSDT and XSDT [ACPI 5.2.7, 5.2.8], and what the RSDP says about them. */
static void put_roots(struct acpi_area *a, u8 *rsdp)
{
	u8 t[HEADER_SIZE + MAX_TABLES * 8] = { 0 };
	u32 len = HEADER_SIZE + a->nr_tables * 4, at;

	put_header(t, "RSDT", len, 1);
	for (unsigned i = 0; i < a->nr_tables; i++)
		st32(t + HEADER_SIZE + i * 4, a->table[i]);
	at = put_table(a, t, len, false);
	for (unsigned i = 0; i < a->nr_tables; i++)
		note_pointer(a, at - a->gpa + HEADER_SIZE + i * 4, 4);
	st32(rsdp + 16, at);
	note_pointer(a, 16, 4);

	memset(t, 0, sizeof(t));
	len = HEADER_SIZE + a->nr_tables * 8;
	put_header(t, "XSDT", len, 1);
	for (unsigned i = 0; i < a->nr_tables; i++)
		st64(t + HEADER_SIZE + i * 8, a->table[i]);
	at = put_table(a, t, len, false);
	for (unsigned i = 0; i < a->nr_tables; i++)
		note_pointer(a, at - a->gpa + HEADER_SIZE + i * 8, 8);
	st64(rsdp + 24, at);
	note_pointer(a, 24, 8);
}

int acpi_build(const struct acpi_board *b, u8 *area, u32 area_gpa, u32 len, u8 *facs, u32 facs_gpa,
	       u32 *ret_rsdp, struct acpi_links *ret_links, struct err *err)
{
	struct acpi_area a = { .base = area, .gpa = area_gpa, .len = len };
	u8 dsdt[sizeof(dsdt_aml_code)];
	u32 rsdp_gpa = 0, dsdt_gpa;
	u8 *rsdp = area_take(&a, RSDP_SIZE, &rsdp_gpa);

	if (!rsdp)
		return err_set(err, -ENOSPC, "the ACPI tables do not fit into %u bytes", len);
	memset(facs, 0, ACPI_FACS_SIZE); /* [ACPI 5.2.10] */
	put_text(facs, "FACS", 4);
	st32(facs + 4, ACPI_FACS_SIZE);
	facs[32] = 2;

	memcpy(dsdt, dsdt_aml_code, sizeof(dsdt));
	dsdt_gpa = put_table(&a, dsdt, sizeof(dsdt), false);
	put_fadt(&a, b, facs_gpa, dsdt_gpa);
	put_madt(&a, b);
	put_hpet(&a, b);
	put_mcfg(&a, b);
	put_ssdt(&a, b);

	put_text(rsdp, "RSD PTR ", 8); /* [ACPI 5.2.5.3] */
	put_text(rsdp + 9, OEM_ID, 6);
	rsdp[15] = 2;
	st32(rsdp + 20, RSDP_SIZE);
	put_roots(&a, rsdp);
	seal(&a, rsdp, 0, 20, 8);
	seal(&a, rsdp, 0, RSDP_SIZE, 32);
	if (a.overflow)
		return err_set(err, -ENOSPC, "the ACPI tables do not fit into %u bytes", len);
	*ret_rsdp = rsdp_gpa;
	a.links.used = a.used;
	if (ret_links)
		*ret_links = a.links;
	return 0;
}
