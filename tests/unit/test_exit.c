/* Exits: answered by the machine, booked by reason and key, printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/vm.h"

static struct vm vm;
static struct vcpu cpu[2];

static u64 port_val;

static u64 port_read(void *opaque, u64 offset, unsigned size)
{
	return 0xa0 + offset;
}

static void port_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	port_val = val;
}

static bool msr_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	*ret_val = 100 + vcpu->id;
	return true;
}

static bool msr_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	return val == 1;
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .max_size = 4 };
static const struct msr_ops msr_ops = { msr_read, msr_write };
static struct region ports = { .name = "t", .ops = &port_ops, .space = BUS_PIO, .base = 0x3f8, .len = 8 };
static struct region mmio = {
	.name = "m", .ops = &port_ops, .space = BUS_MMIO, .base = 0xfee00000, .len = 4096
};
static struct msr_region msrs = { .name = "x", .ops = &msr_ops, .first = 0x800, .last = 0x8ff };

static int setup(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(cpu, 0, sizeof(cpu));
	vm.nr_vcpus = 2;
	vm.tsc_khz = 1000000; /* a tick is a nanosecond */
	for (u32 i = 0; i < 2; i++) {
		cpu[i].vm = &vm;
		cpu[i].id = i;
		vm.vcpu[i] = &cpu[i];
	}
	return bus_add(&vm.bus, &ports) || bus_add(&vm.bus, &mmio) || bus_add_msr(&vm.bus, &msrs);
}

static void test_dispatch(void **state)
{
	struct vm_exit e = { .reason = EXIT_IO, .addr = 0x3fd, .size = 1, .data = ~0ull, .fault = true };

	exit_dispatch(&cpu[0], &e);
	assert_true(e.data == 0xa5 && !e.fault);
	e = (struct vm_exit){ .reason = EXIT_IO, .addr = 0x80, .size = 2 };
	exit_dispatch(&cpu[0], &e);
	assert_true(e.data == 0xffff);
	e = (struct vm_exit){ .reason = EXIT_IO, .addr = 0x3f8, .size = 1, .write = true, .data = 'A' };
	exit_dispatch(&cpu[0], &e);
	assert_int_equal(port_val, 'A');
	e = (struct vm_exit){ .reason = EXIT_EPT_VIOLATION, .addr = 0xfee00010, .size = 4 };
	exit_dispatch(&cpu[0], &e);
	assert_true(e.data == 0xb0);
	e = (struct vm_exit){
		.reason = EXIT_EPT_VIOLATION, .addr = 0xfee00010, .size = 4, .write = true, .data = 9
	};
	exit_dispatch(&cpu[0], &e);
	assert_int_equal(port_val, 9);
	e = (struct vm_exit){ .reason = EXIT_RDMSR, .addr = 0x802 };
	exit_dispatch(&cpu[1], &e);
	assert_true(e.data == 101 && !e.fault);
	e = (struct vm_exit){ .reason = EXIT_RDMSR, .addr = 0x123, .data = 7 };
	exit_dispatch(&cpu[1], &e);
	assert_true(e.fault && e.data == 0);
	e = (struct vm_exit){ .reason = EXIT_WRMSR, .addr = 0x802, .data = 1 };
	exit_dispatch(&cpu[1], &e);
	assert_false(e.fault);
	e.data = 2;
	exit_dispatch(&cpu[1], &e);
	assert_true(e.fault);
	e = (struct vm_exit){ .reason = EXIT_VMCALL, .addr = 5 };
	exit_dispatch(&cpu[1], &e);
	assert_false(e.fault);
	assert_int_equal((s64)e.data, -1000); /* nobody there */
	e = (struct vm_exit){ .reason = EXIT_CPUID };
	exit_dispatch(&cpu[1], &e);
	assert_true(e.fault);

	assert_int_equal(cpu[0].stats.reason[EXIT_IO].count, 3);
	assert_int_equal(cpu[0].stats.reason[EXIT_EPT_VIOLATION].count, 2);
	assert_int_equal(cpu[0].stats.reason[EXIT_RDMSR].count, 0);
	assert_int_equal(cpu[1].stats.reason[EXIT_RDMSR].count, 2);
	assert_int_equal(cpu[1].stats.reason[EXIT_WRMSR].count, 2);
	assert_true(cpu[0].stats.reason[EXIT_IO].tsc > 0);
}

static const struct exit_key_count *key_of(const struct vcpu *vcpu, unsigned reason, u64 key)
{
	for (unsigned i = 0; i < EXIT_MAX_KEYS; i++)
		if (vcpu->stats.key[i].used && vcpu->stats.key[i].reason == reason &&
		    vcpu->stats.key[i].key == key)
			return &vcpu->stats.key[i];
	return NULL;
}

/* A time's bucket is the first that ends behind it. */
static void test_histogram(void **state)
{
	struct exit_sums sums;
	unsigned b;

	for (unsigned i = 0; i < 3; i++)
		exit_account(&cpu[0], EXIT_CPUID, 0, 0);
	exit_account(&cpu[0], EXIT_CPUID, 0, vcpu_rdtsc() - (1 << 30));
	exit_account(&cpu[0], EXIT_CPUID, 0, 1); /* since the host's start */
	exit_sum(&vm, EXIT_ALL_VCPUS, &sums);
	assert_int_equal(sums.reason[EXIT_CPUID].hist[0], 3);
	assert_int_equal(sums.reason[EXIT_CPUID].hist[31], 1); /* it took 2^30 and a little */
	for (b = EXIT_HIST - 1; !sums.reason[EXIT_CPUID].hist[b]; b--)
		;
	assert_true(b > 31);
	assert_true(sums.hist_ns[20] > sums.hist_ns[19]);
}

static void test_account(void **state)
{
	exit_account(&cpu[0], EXIT_CPUID, 0, 0);
	exit_account(&cpu[0], EXIT_CPUID, 0, vcpu_rdtsc());
	exit_account(&cpu[0], EXIT_CPUID, 1, 0);
	exit_account(&cpu[0], EXIT_CR, 0, 0);
	exit_account(&cpu[0], EXIT_WBINVD, EXIT_NO_KEY, 0);
	exit_account(&cpu[0], (enum exit_reason)EXIT_NR, 0, 0);
	exit_account(&cpu[0], (enum exit_reason) - 1, 0, 0);
	assert_int_equal(cpu[0].stats.reason[EXIT_CPUID].count, 3);
	assert_int_equal(key_of(&cpu[0], EXIT_CPUID, 0)->n.count, 2);
	assert_int_equal(key_of(&cpu[0], EXIT_CPUID, 1)->n.count, 1);
	assert_int_equal(key_of(&cpu[0], EXIT_CR, 0)->n.count, 1);
	assert_null(key_of(&cpu[0], EXIT_WBINVD, EXIT_NO_KEY));
}

/* Hostile case G45: a sweep over all ports neither grows nor breaks the account. */
static void test_G45_port_sweep(void **state)
{
	u64 sum = 0;

	for (u32 port = 0; port < 0x10000; port++) {
		struct vm_exit e = { .reason = EXIT_IO, .addr = port, .size = 1 };

		exit_dispatch(&cpu[0], &e);
	}
	assert_int_equal(cpu[0].stats.reason[EXIT_IO].count, 0x10000);
	for (unsigned i = 0; i < EXIT_MAX_KEYS; i++)
		sum += cpu[0].stats.key[i].used ? cpu[0].stats.key[i].n.count : 0;
	assert_int_equal(sum + cpu[0].stats.keys_dropped, 0x10000);
	assert_true(cpu[0].stats.keys_dropped > 0);
}

/* What is frequent stays, though a sweep has filled the table before and goes on. */
static void test_frequent_key_stays(void **state)
{
	u64 seen = 0;

	for (u32 leaf = 0; leaf < 10000; leaf++)
		exit_account(&cpu[0], EXIT_CPUID, leaf, 0);
	for (u32 i = 0; i < 2000; i++) {
		exit_account(&cpu[0], EXIT_WRMSR, 0x80b, 0);
		exit_account(&cpu[0], EXIT_WRMSR, 0x80b, 0);
		exit_account(&cpu[0], EXIT_CPUID, 50000 + i, 0);
	}
	for (unsigned i = 0; i < EXIT_MAX_KEYS; i++)
		seen += cpu[0].stats.key[i].used ? cpu[0].stats.key[i].n.count : 0;
	assert_int_equal(seen + cpu[0].stats.keys_dropped, 16000);
	assert_non_null(key_of(&cpu[0], EXIT_WRMSR, 0x80b));
	assert_int_equal(key_of(&cpu[0], EXIT_WRMSR, 0x80b)->n.count, 4000);
}

static void book(struct vcpu *vcpu, unsigned reason, u64 key, u64 count, u64 tsc)
{
	exit_account(vcpu, (enum exit_reason)reason, key, 0);
	vcpu->stats.reason[reason].count += count - 1;
	vcpu->stats.reason[reason].tsc += tsc;
	for (unsigned i = 0; key != EXIT_NO_KEY && i < EXIT_MAX_KEYS; i++) {
		struct exit_key_count *k = &vcpu->stats.key[i];

		if (k->used && k->reason == reason && k->key == key) {
			k->n.count += count - 1;
			k->n.tsc += tsc;
		}
	}
}

/* Two vCPUs of 10 ms each: 3 ms in I/O, 1 ms in MSRs, 4 ms idle, so 12 ms in the guest. */
static void fill(void)
{
	for (u32 i = 0; i < 2; i++) {
		cpu[i].stats.start_tsc = 1000;
		cpu[i].stats.stop_tsc = 10001000;
		cpu[i].stats.insns = 600000;
	}
	book(&cpu[0], EXIT_IO, 0x3f8, 1000, 2000000);
	book(&cpu[1], EXIT_IO, 0x3f8, 100, 200000);
	for (u64 p = 0; p < 10; p++)
		book(&cpu[1], EXIT_IO, 0x70 + p, 10, 80000 - p * 1000);
	cpu[1].stats.reason[EXIT_IO].tsc += 45000; /* to the round sum */
	book(&cpu[1], EXIT_WRMSR, 0x80b, 50, 1000000);
	book(&cpu[0], EXIT_HLT, EXIT_NO_KEY, 4, 4000000);
	cpu[0].stats.idle_tsc = 4000000;
}

static char *printed(void (*print)(struct vm *vm, int vcpu, FILE *out), int vcpu)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	print(&vm, vcpu, f);
	fclose(f);
	return text;
}

static const char *line_of(const char *text, const char *what)
{
	static char line[256];
	const char *at = strstr(text, what);
	size_t len;

	assert_non_null(at);
	while (at > text && at[-1] != '\n')
		at--;
	len = strcspn(at, "\n");
	assert_true(len < sizeof(line));
	memcpy(line, at, len);
	line[len] = 0;
	return line;
}

static void test_print(void **state)
{
	char *text;

	fill();
	text = printed(exit_print, EXIT_ALL_VCPUS);
	assert_non_null(strstr(line_of(text, "  12  HLT"), "       4        4.000      1000000  20.00%"));
	assert_non_null(
		strstr(line_of(text, "  30  I/O instruction"), "1200        3.000         2500  15.00%"));
	assert_non_null(strstr(line_of(text, "port 0x3f8"), "1100        2.200         2000  11.00%"));
	assert_non_null(strstr(line_of(text, "MSR 0x80b"), "50        1.000        20000   5.00%"));
	/* Largest first, at most 8 keys, and how many are left out. */
	assert_true(strstr(text, "12  HLT") < strstr(text, "30  I/O"));
	assert_true(strstr(text, "30  I/O") < strstr(text, "port 0x3f8"));
	assert_true(strstr(text, "port 0x3f8") < strstr(text, "port 0x70"));
	assert_true(strstr(text, "port 0x70") < strstr(text, "port 0x76"));
	assert_null(strstr(text, "port 0x77"));
	assert_non_null(strstr(text, "and 3 more\n"));
	assert_true(strstr(text, "and 3 more") < strstr(text, "32  WRMSR"));
	assert_non_null(strstr(line_of(text, "wall time of 2 vCPUs"), "20.000 ms           100.00%"));
	assert_non_null(strstr(line_of(text, "in the guest"), "12.000 ms            60.00%"));
	assert_non_null(strstr(line_of(text, "in exits"), "4.000 ms            20.00%"));
	assert_non_null(strstr(line_of(text, "idle"), "4.000 ms            20.00%"));
	assert_non_null(strstr(text, "guest instructions 1200000, 100.0 million per second of guest time\n"));
	free(text);
}

static void test_print_empty(void **state)
{
	char *text = printed(exit_print, EXIT_ALL_VCPUS);

	assert_non_null(strstr(text, "no exits"));
	assert_null(strstr(text, "guest instructions"));
	assert_null(strstr(text, "nan"));
	free(text);
	vm.nr_vcpus = 0;
	text = printed(exit_print_json, EXIT_ALL_VCPUS);
	assert_non_null(strstr(text, "\"reasons\": [\n  ]"));
	free(text);
}

static void test_json(void **state)
{
	char *text;
	int depth = 0;

	fill();
	text = printed(exit_print_json, EXIT_ALL_VCPUS);
	for (const char *p = text; *p; p++) {
		depth += *p == '{' || *p == '[';
		depth -= *p == '}' || *p == ']';
		assert_true(depth >= 0);
		/* No comma before a closing bracket. */
		if (*p == ',') {
			const char *next = p + 1 + strspn(p + 1, " \n");

			assert_true(*next == '"' || *next == '{');
		}
	}
	assert_int_equal(depth, 0);
	assert_non_null(strstr(text, "\"wall_ns\": 20000000,"));
	assert_non_null(strstr(text, "\"guest_ns\": 12000000,"));
	assert_non_null(
		strstr(text,
		       "{\"reason\": 30, \"name\": \"I/O instruction\", \"count\": 1200, \"ns\": 3000000, "
		       "\"key\": \"port\", \"keys\": [\n      {\"key\": \"0x3f8\", \"count\": 1100, "
		       "\"ns\": 2200000}"));
	/* All keys here, not only the largest. */
	assert_non_null(strstr(text, "\"0x79\""));
	assert_non_null(
		strstr(text,
		       "\"name\": \"HLT\", \"count\": 4, \"ns\": 4000000, \"keys\": [], \"histogram\": []}"));
	free(text);
}

/* One vCPU's part, and the sums without keys. */
static void test_one_vcpu(void **state)
{
	struct exit_sums all, one;
	char *text;

	fill();
	text = printed(exit_print_json, 1);
	assert_non_null(strstr(text, "\"vcpus\": 1,"));
	assert_non_null(strstr(text, "\"wall_ns\": 10000000,"));
	assert_non_null(strstr(text, "\"reason\": 30, \"name\": \"I/O instruction\", \"count\": 200,"));
	assert_null(strstr(text, "HLT"));
	free(text);
	text = printed(exit_print, 0);
	assert_non_null(strstr(text, "wall time of vCPU 0"));
	assert_null(strstr(text, "WRMSR"));
	free(text);
	exit_sum(&vm, EXIT_ALL_VCPUS, &all);
	exit_sum(&vm, 1, &one);
	assert_int_equal(all.wall_ns, 20000000);
	assert_int_equal(all.idle_ns, 4000000);
	assert_int_equal(all.guest_ns + all.exits_ns + all.idle_ns, all.wall_ns);
	assert_int_equal(all.insns, 1200000);
	assert_int_equal(all.reason[EXIT_IO].count, 1200);
	assert_int_equal(all.reason[EXIT_IO].ns, 3000000);
	assert_int_equal(one.reason[EXIT_IO].count, 200);
	assert_int_equal(one.reason[EXIT_HLT].count, 0);
	assert_int_equal(one.wall_ns, 10000000);
}

static void test_names(void **state)
{
	assert_string_equal(exit_name(EXIT_TRIPLE_FAULT), "triple fault");
	assert_string_equal(exit_name((enum exit_reason)5), "unknown");
	assert_string_equal(exit_name((enum exit_reason)EXIT_NR), "unknown");
	assert_int_equal(EXIT_EPT_VIOLATION, 48);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(test_dispatch),           T(test_account), T(test_histogram),   T(test_G45_port_sweep),
		T(test_frequent_key_stays), T(test_print),   T(test_print_empty), T(test_json),
		T(test_one_vcpu),           T(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
