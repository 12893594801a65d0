/* The ACPI tables: found as an operating system finds them, checksums, contents, and iasl's opinion. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "boot/acpi.h"
#include "boot/acpi_loader.h"
#include "boot/acpi_map.h"

#define AREA     0xe0000
#define AREA_LEN 0x20000
#define FACS     0x9f000

static u8 area[AREA_LEN], facs[4096];

static const struct acpi_board board_template = {
	.nr_cpus = 4,
	.lapic = MAP_LAPIC,
	.ioapic = MAP_IOAPIC,
	.ioapic_id = 5,
	.timer_pin = 2,
	.sci_irq = MAP_SCI_IRQ,
	.pm_event = MAP_PM_PORT,
	.pm_control = MAP_PM_PORT + 4,
	.pm_timer = MAP_PM_PORT + 8,
	.gpe0 = MAP_PM_PORT + 0x20,
	.gpe0_len = 8,
	.reset_port = MAP_RESET_PORT,
	.reset_value = 6,
	.hpet = MAP_HPET,
	.hpet_id = 0x8086a201,
	.hpet_min_tick = 10000,
	.ecam = 0xe0000000,
	.pci_mem = 0x80000000,
	.pci_high = 0x140000000,
	.pci_high_end = 0x2000000000,
	.ecam_last_bus = 255,
	.century = 0x32,
};

static u8 sum(const u8 *p, u32 len)
{
	u8 s = 0;

	while (len--)
		s += *p++;
	return s;
}

static const u8 *guest(u64 gpa, u32 len)
{
	assert_in_range(gpa, AREA, AREA + AREA_LEN - len);
	return area + (gpa - AREA);
}

/* A table with its length and checksum verified. */
static const u8 *table(u64 gpa, const char *signature)
{
	const u8 *t = guest(gpa, 36);

	assert_memory_equal(t, signature, 4);
	assert_true(gpa % 16 == 0);
	t = guest(gpa, ld32(t + 4));
	assert_int_equal(sum(t, ld32(t + 4)), 0);
	return t;
}

/* Searches for the root pointer as [ACPI 5.2.5.1] says; returns the XSDT. */
static const u8 *find_root(void)
{
	for (u32 at = 0; at < AREA_LEN; at += 16) {
		const u8 *rsdp = area + at, *rsdt, *xsdt;

		if (memcmp(rsdp, "RSD PTR ", 8) != 0)
			continue;
		assert_int_equal(sum(rsdp, 20), 0);
		assert_int_equal(sum(rsdp, 36), 0);
		assert_int_equal(rsdp[15], 2);
		assert_int_equal(ld32(rsdp + 20), 36);
		rsdt = table(ld32(rsdp + 16), "RSDT");
		xsdt = table(ld64(rsdp + 24), "XSDT");
		assert_int_equal((ld32(rsdt + 4) - 36) / 4, (ld32(xsdt + 4) - 36) / 8);
		for (u32 i = 0; i < (ld32(rsdt + 4) - 36) / 4; i++)
			assert_int_equal(ld32(rsdt + 36 + 4 * i), ld64(xsdt + 36 + 8 * i));
		return xsdt;
	}
	fail_msg("no root pointer");
	return NULL;
}

static const u8 *find(const char *signature)
{
	const u8 *xsdt = find_root();

	for (u32 i = 0; i < (ld32(xsdt + 4) - 36) / 8; i++) {
		u64 gpa = ld64(xsdt + 36 + 8 * i);

		if (memcmp(guest(gpa, 36), signature, 4) == 0)
			return table(gpa, signature);
	}
	fail_msg("no table %s", signature);
	return NULL;
}

static void build_vga(u32 nr_cpus, bool vga)
{
	struct acpi_board board = board_template;
	struct err err;
	u32 rsdp = 0;

	board.nr_cpus = nr_cpus;
	board.vga = vga;
	memset(area, 0x5a, sizeof(area));
	memset(facs, 0x5a, sizeof(facs));
	assert_int_equal(acpi_build(&board, area, AREA, AREA_LEN, facs, FACS, &rsdp, NULL, &err), 0);
	assert_int_equal(rsdp, AREA);
}

static void build(u32 nr_cpus)
{
	build_vga(nr_cpus, false);
}

static void tables_are_found(void **state)
{
	const u8 *t;

	build(4);
	t = find("FACP");
	assert_int_equal(ld32(t + 4), 276);
	assert_int_equal(t[8], 6);
	assert_int_equal(ld32(t + 36), FACS);
	table(ld32(t + 40), "DSDT");
	assert_int_equal(ld32(t + 40), ld64(t + 140));
	assert_int_equal(ld16(t + 46), 9);
	assert_int_equal(ld32(t + 48), 0); /* no SMI port */
	assert_int_equal(ld32(t + 56), 0x600);
	assert_int_equal(ld32(t + 64), 0x604);
	assert_int_equal(ld32(t + 76), 0x608);
	assert_int_equal(ld64(t + 152), 0x600);
	assert_int_equal(ld64(t + 176), 0x604);
	assert_int_equal(ld64(t + 212), 0x608);
	assert_int_equal(ld64(t + 224), 0x620);
	assert_int_equal(ld64(t + 120), 0xcf9);
	assert_int_equal(t[128], 6);
	assert_true(ld32(t + 112) & BIT(10));  /* RESET_REG_SUP */
	assert_false(ld32(t + 112) & BIT(4));  /* fixed power button */
	assert_false(ld32(t + 112) & BIT(20)); /* not hardware-reduced */
	assert_true(ld16(t + 109) & BIT(2));   /* no VGA to be looked for */

	t = find("HPET");
	assert_int_equal(ld32(t + 36), 0x8086a201);
	assert_int_equal(ld64(t + 44), 0xfed00000);
	t = find("MCFG");
	assert_int_equal(ld64(t + 44), 0xe0000000);
	assert_int_equal(t[54], 0);
	assert_int_equal(t[55], 255);

	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(ld32(facs + 4), 64);
	assert_int_equal(facs[64], 0x5a);

	build_vga(4, true);
	assert_false(ld16(find("FACP") + 109) & BIT(2));
}

static void madt_lists_processors(void **state)
{
	for (u32 n = 1; n <= 64; n += 21) {
		u32 cpus = 0, ioapics = 0, overrides = 0;
		const u8 *t, *p, *end;

		build(n);
		t = find("APIC");
		end = t + ld32(t + 4);
		assert_int_equal(ld32(t + 36), 0xfee00000);
		assert_int_equal(ld32(t + 40), 1);
		for (p = t + 44; p < end; p += p[1]) {
			assert_true(p[1] >= 2 && p + p[1] <= end);
			switch (p[0]) {
			case 0:
				assert_int_equal(p[2], cpus);
				assert_int_equal(p[3], cpus);
				assert_int_equal(ld32(p + 4), 1);
				cpus++;
				break;
			case 1:
				assert_int_equal(p[2], 5);
				assert_int_equal(ld32(p + 4), 0xfec00000);
				assert_int_equal(ld32(p + 8), 0);
				ioapics++;
				break;
			case 2:
				if (p[3] == 0) {
					assert_int_equal(ld32(p + 4), 2);
					assert_int_equal(ld16(p + 8), 0);
				} else {
					assert_int_equal(p[3], 9);
					assert_int_equal(ld32(p + 4), 9);
					assert_int_equal(ld16(p + 8), 0xd);
				}
				overrides++;
				break;
			case 4: assert_int_equal(p[2], 0xff); break;
			default: fail_msg("entry of type %u", p[0]);
			}
		}
		assert_ptr_equal(p, end);
		assert_int_equal(cpus, n);
		assert_int_equal(ioapics, 1);
		assert_int_equal(overrides, 2);
	}
}

static void refuses_a_small_area(void **state)
{
	struct err err;
	u32 rsdp = 7;

	for (u32 len = 0; len < 2048; len += 16) {
		u8 *exact = malloc(len + 1);

		exact[len] = 0x77;
		if (acpi_build(&board_template, exact, AREA, len, facs, FACS, &rsdp, NULL, &err) == 0)
			assert_true(len > 1024);
		else
			assert_int_equal(err.code, -ENOSPC);
		assert_int_equal(exact[len], 0x77);
		free(exact);
	}
}

/* What firmware does: the files somewhere, then the script. The result is what acpi_build() makes for that place. */
static void script_gives_the_same_tables(void **state)
{
	static struct acpi_files files;
	static u8 want[ACPI_LOADER_TABLES];
	const u32 place = 0x7ff00000;
	unsigned pointers = 0, sums = 0;
	struct err err;
	u32 rsdp;

	assert_int_equal(acpi_loader_build(&board_template, &files, &err), 0);
	assert_int_equal(acpi_build(&board_template, want + ACPI_FACS_SIZE, place + ACPI_FACS_SIZE,
				    sizeof(want) - ACPI_FACS_SIZE, want, place, &rsdp, NULL, &err),
			 0);
	for (const u8 *p = files.script; ld32(p); p += 128) {
		const char *name = (const char *)p + 4;
		bool in_rsdp = !strcmp(name, "etc/acpi/rsdp");
		u8 *file = in_rsdp ? files.rsdp : files.tables;
		u32 len = in_rsdp ? sizeof(files.rsdp) : sizeof(files.tables);

		assert_true(in_rsdp || !strcmp(name, "etc/acpi/tables"));
		if (ld32(p) == 1) {
			assert_int_equal(p[64], in_rsdp ? 2 : 1); /* below 1 MiB, or anywhere */
			assert_int_equal(ld32(p + 60), in_rsdp ? 16 : 64);
		} else if (ld32(p) == 2) {
			u32 at = ld32(p + 116);

			assert_string_equal((const char *)p + 60, "etc/acpi/tables");
			assert_true(p[120] == 4 || p[120] == 8);
			assert_true(at <= len - p[120]);
			st32(file + at, ld32(file + at) + place);
			pointers++;
		} else {
			u32 at = ld32(p + 60), start = ld32(p + 64), n = ld32(p + 68);

			assert_int_equal(ld32(p), 3);
			assert_true(at < len && start < len && n <= len - start);
			assert_int_equal(file[at], 0);
			file[at] = (u8)-sum(file + start, n);
			sums++;
		}
	}
	assert_true(pointers == 15 && sums == 10);
	assert_memory_equal(files.rsdp, want + ACPI_FACS_SIZE, sizeof(files.rsdp));
	memset(want + ACPI_FACS_SIZE, 0, ACPI_LOADER_RSDP);
	assert_memory_equal(files.tables, want, sizeof(want));
}

/* Runs iasl on files in the current folder; returns its exit status, its output in text. */
static int iasl(const char *args, char *text, size_t size)
{
	char cmd[512];
	FILE *p;
	size_t n;
	int status;

	snprintf(cmd, sizeof(cmd), "iasl %s 2>&1", args);
	p = popen(cmd, "r");
	assert_non_null(p);
	n = fread(text, 1, size - 1, p);
	text[n] = 0;
	status = pclose(p);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void dump(const u8 *t, const char *name)
{
	FILE *f = fopen(name, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(t, 1, ld32(t + 4), f), ld32(t + 4));
	fclose(f);
}

static void iasl_agrees(void **state)
{
	static const char *const names[] = { "DSDT", "SSDT", "FACP", "APIC", "HPET", "MCFG" };
	char dir[] = "/tmp/acpi-XXXXXX", home[4096], text[16384], cmd[64];
	FILE *f;
	static char dsl[65536];
	size_t n;

	if (system("command -v iasl > /dev/null 2>&1") != 0)
		skip();
	build(64);
	assert_non_null(getcwd(home, sizeof(home)));
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		const u8 *t = i == 0 ? table(ld32(find("FACP") + 40), "DSDT") : find(names[i]);
		char name[16];

		snprintf(name, sizeof(name), "%s.aml", names[i]);
		dump(t, name);
	}
	/* The two with byte code together, since one refers to the other. */
	assert_int_equal(iasl("-e DSDT.aml -d SSDT.aml", text, sizeof(text)), 0);
	assert_null(strstr(text, "Error"));
	f = fopen("SSDT.dsl", "r");
	assert_non_null(f);
	n = fread(dsl, 1, sizeof(dsl) - 1, f);
	dsl[n] = 0;
	fclose(f);
	assert_non_null(strstr(dsl, "Device (C000)"));
	assert_non_null(strstr(dsl, "Device (C03F)"));
	assert_non_null(strstr(dsl, "\"ACPI0007\""));
	/* What was disassembled compiles again. */
	assert_int_equal(iasl("-va SSDT.dsl", text, sizeof(text)), 0);
	assert_int_equal(iasl("-d DSDT.aml", text, sizeof(text)), 0);
	assert_int_equal(iasl("-va DSDT.dsl", text, sizeof(text)), 0);
	for (unsigned i = 2; i < ARRAY_SIZE(names); i++) {
		snprintf(cmd, sizeof(cmd), "-d %s.aml", names[i]);
		assert_int_equal(iasl(cmd, text, sizeof(text)), 0);
		snprintf(cmd, sizeof(cmd), "%s.dsl", names[i]);
		f = fopen(cmd, "r");
		assert_non_null(f);
		n = fread(dsl, 1, sizeof(dsl) - 1, f);
		dsl[n] = 0;
		fclose(f);
		/* How the disassembler marks a field that it does not accept. */
		assert_null(strstr(dsl, "Invalid"));
		assert_null(strstr(dsl, "Unknown"));
		assert_null(strstr(dsl, "incorrect"));
	}
	assert_int_equal(chdir(home), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_found),     cmocka_unit_test(madt_lists_processors),
		cmocka_unit_test(refuses_a_small_area), cmocka_unit_test(script_gives_the_same_tables),
		cmocka_unit_test(iasl_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
