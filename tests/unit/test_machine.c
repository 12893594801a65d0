/* The machine on a fake engine that records what it is given: construction and its refusals, start states,
 * ends, resets, and the board's addresses as seen on the bus. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "boot_images.h"
#include "dev/hpet.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pci.h"
#include "dev/pm.h"
#include "dev/vga.h"
#include "machine/machine.h"
#include "vm/clock.h"
#include "vm/vm.h"

/* ---- the engine ---- */

static struct {
	int vms, vcpus; /* that exist */
	int fail_vcpu;  /* vcpu_init of this one fails, -1: none */
	bool fail_vm;
	struct engine_conf conf; /* that vm_init has seen */
	_Atomic int starts;      /* of vCPU 0 */
	struct x86_state state[VM_MAX_VCPUS];
	void (*action)(struct vcpu *vcpu, int start); /* what vCPU 0 does, once per start */
	_Atomic int done;                             /* starts for which action has been called */
} fake;

static int fake_probe(struct err *err)
{
	return 0;
}

static void fake_features(const struct engine_conf *conf, u64 ret_features[4])
{
	memset(ret_features, 0xff, 32);
}

static int fake_vm_init(struct vm *vm, struct err *err)
{
	fake.vms++;
	fake.conf = vm->engine_conf;
	return fake.fail_vm ? err_set(err, -ENODEV, "the fake engine does not want to") : 0;
}

static void fake_vm_fini(struct vm *vm)
{
	fake.vms--;
}

static int fake_vcpu_init(struct vcpu *vcpu, struct err *err)
{
	if ((int)vcpu->id == fake.fail_vcpu)
		return err_set(err, -ENODEV, "the fake engine has no vCPU %u", vcpu->id);
	fake.vcpus++;
	vcpu->engine = malloc(1);
	return 0;
}

static void fake_vcpu_fini(struct vcpu *vcpu)
{
	fake.vcpus--;
	free(vcpu->engine);
}

static enum run_end fake_run(struct vcpu *vcpu)
{
	int start = atomic_load(&fake.starts);

	vcpu_take(vcpu, VCPU_REQ_INTR | VCPU_REQ_NMI | VCPU_REQ_TIMER);
	if (vcpu->id == 0 && atomic_exchange(&fake.done, start) != start && fake.action)
		fake.action(vcpu, start);
	usleep(200);
	return RUN_REQUEST;
}

static int fake_get_state(struct vcpu *vcpu, struct x86_state *ret_state, struct err *err)
{
	*ret_state = fake.state[vcpu->id];
	return 0;
}

static int fake_set_state(struct vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	fake.state[vcpu->id] = *state;
	if (vcpu->id == 0)
		atomic_fetch_add(&fake.starts, 1);
	return 0;
}

const struct engine_ops soft_engine = {
	.name = "soft",
	.probe = fake_probe,
	.features = fake_features,
	.vm_init = fake_vm_init,
	.vm_fini = fake_vm_fini,
	.vcpu_init = fake_vcpu_init,
	.vcpu_fini = fake_vcpu_fini,
	.run = fake_run,
	.get_state = fake_get_state,
	.set_state = fake_set_state,
};

/* ---- a folder with images ---- */

static char dir[] = "/tmp/machine-XXXXXX";
static char kernel_path[64], initrd_path[64], empty_path[64], junk_path[64];

static void put_file(char *path, size_t path_len, const char *name, const void *data, size_t len)
{
	FILE *f;

	snprintf(path, path_len, "%s/%s", dir, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static int setup(void **state)
{
	const u32 addr[5] = { 0x200000, 0x200000, 0, 0x210000, 0x200040 };
	static u8 kernel[4096];

	if (!mkdtemp(dir))
		return -1;
	memset(kernel, 0xf4, sizeof(kernel));
	put_multiboot(kernel, 0, BIT(16), addr);
	put_file(kernel_path, sizeof(kernel_path), "kernel", kernel, sizeof(kernel));
	put_file(initrd_path, sizeof(initrd_path), "initrd", "initial", 7);
	put_file(empty_path, sizeof(empty_path), "empty", "", 0);
	put_file(junk_path, sizeof(junk_path), "junk", "junk", 4);
	return 0;
}

static int teardown(void **state)
{
	unlink(kernel_path);
	unlink(initrd_path);
	unlink(empty_path);
	unlink(junk_path);
	return rmdir(dir);
}

static struct machine_config config(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.fail_vcpu = -1;
	return (struct machine_config){
		.kernel = kernel_path, .serial = { "none" }, .nr_serials = 1, .memory = 16 * MiB
	};
}

static struct machine *make(const struct machine_config *c)
{
	struct machine *m = NULL;
	struct err err;

	if (machine_new(c, &m, &err) < 0)
		fail_msg("machine_new: %s", err.msg);
	return m;
}

static int run(struct machine *m)
{
	struct err err;
	int status = -1;

	if (machine_run(m, &status, &err) < 0)
		fail_msg("machine_run: %s", err.msg);
	return status;
}

/* ---- ends ---- */

static void power_off(struct vcpu *vcpu, int start)
{
	/* ACPI: SLP_EN with the type that \_S5 names. */
	bus_write(&vcpu->vm->bus, BUS_PIO, PM_CNT_PORT, 2, BIT(13) | PM_SLP_TYP_S5 << 10);
}

static void debug_exit(struct vcpu *vcpu, int start)
{
	bus_write(&vcpu->vm->bus, BUS_PIO, 0xf4, 4, 21);
}

static void crash(struct vcpu *vcpu, int start)
{
	vm_crash(vcpu->vm, "it went wrong");
}

static void quit(struct vcpu *vcpu, int start)
{
	vm_request(vcpu->vm, VM_REQ_QUIT);
}

static void quit_over_reset(struct vcpu *vcpu, int start)
{
	vm_request(vcpu->vm, VM_REQ_RESET);
	vm_request(vcpu->vm, VM_REQ_QUIT);
	vm_request(vcpu->vm, VM_REQ_POWEROFF);
}

static void reset_port(struct vcpu *vcpu, int start)
{
	bus_write(&vcpu->vm->bus, BUS_PIO, PM_RESET_PORT, 1, PM_RESET_VALUE);
}

static void each_end_has_its_status(void **state)
{
	static const struct {
		void (*action)(struct vcpu *vcpu, int start);
		int status;
		bool no_reboot;
	} rows[] = {
		{ power_off, MACHINE_POWEROFF, false }, { debug_exit, 43, false },
		{ quit, MACHINE_QUIT, false },          { quit_over_reset, MACHINE_QUIT, false },
		{ reset_port, MACHINE_POWEROFF, true },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct machine_config c = config();
		struct machine *m;
		struct err err;
		int status = -1;

		c.device[0] = "debug-exit";
		c.nr_devices = 1;
		c.no_reboot = rows[i].no_reboot;
		fake.action = rows[i].action;
		m = make(&c);
		assert_int_equal(run(m), rows[i].status);
		assert_int_equal(fake.starts, 1);
		assert_int_equal(machine_run(m, &status, &err), -EBUSY);
		machine_free(m);
		assert_int_equal(fake.vms, 0);
		assert_int_equal(fake.vcpus, 0);
	}
}

static void crash_is_described(void **state)
{
	struct machine_config c = config();
	char path[64], text[64] = "";
	int saved = dup(STDERR_FILENO), fd;
	struct machine *m;

	snprintf(path, sizeof(path), "%s/stderr", dir);
	fake.action = crash;
	m = make(&c);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	dup2(fd, STDERR_FILENO);
	assert_int_equal(run(m), MACHINE_CRASHED);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	close(fd);
	unlink(path);
	assert_string_equal(text, "it went wrong\n");
	machine_free(m);
}

/* ---- from outside ---- */

static struct machine *outside;
static unsigned steps;

/* On the main loop while the machine runs. */
static void command_it(void *opaque)
{
	struct vm *vm = machine_vm(outside);
	struct err err = { 0 };
	u64 now, tsc;
	s64 offset;

	steps++;
	assert_int_equal(machine_state(outside), MACHINE_RUNNING);
	assert_int_equal(machine_resume(outside, &err), -EALREADY);
	tsc = vcpu_rdtsc();
	assert_int_equal(machine_pause(outside, &err), 0);
	assert_int_equal(machine_pause(outside, &err), -EALREADY);
	assert_string_equal(err.msg, "'test' is paused already");
	assert_int_equal(machine_press_power(outside, &err), -EAGAIN);
	assert_int_equal(machine_state(outside), MACHINE_PAUSED);
	now = clock_now(vm);
	offset = vm->vcpu[0]->tsc_offset;
	usleep(20000);
	assert_int_equal(clock_now(vm), now);
	assert_int_equal(machine_resume(outside, &err), 0);
	/* The guest's TSC has stood still too. */
	assert_in_range((u64)(offset - vm->vcpu[0]->tsc_offset), vm->tsc_khz * 15, vcpu_rdtsc() - tsc);
	assert_int_equal(vm->vcpu[1]->tsc_offset, vm->vcpu[0]->tsc_offset);
	assert_true(clock_now(vm) - now < 1000000000);
	assert_int_equal(machine_press_power(outside, &err), 0);
	assert_true(bus_read(&vm->bus, BUS_PIO, PM_EVT_PORT, 2) & BIT(8));
	if (steps < 3) {
		/* A reset out of a pause; the machine runs again afterwards. */
		assert_int_equal(machine_pause(outside, &err), 0);
		assert_int_equal(machine_request_reset(outside, &err), 0);
		assert_int_equal(machine_state(outside), MACHINE_ENDING);
		assert_int_equal(machine_pause(outside, &err), -ESHUTDOWN);
		assert_int_equal(machine_resume(outside, &err), -ESHUTDOWN);
		assert_int_equal(machine_press_power(outside, &err), -ESHUTDOWN);
		assert_int_equal(machine_request_quit(outside, &err), -ESHUTDOWN);
		return;
	}
	if (steps == 3)
		assert_int_equal(machine_pause(outside, &err), 0);
	assert_int_equal(machine_request_quit(outside, &err), 0);
}

static void come_in(struct vcpu *vcpu, int start)
{
	loop_post(vcpu->vm->loop, command_it, NULL);
}

static void obeys_from_outside(void **state)
{
	struct machine_config c = config();
	struct err err = { 0 };

	c.cpus = 2;
	c.name = "test";
	fake.action = come_in;
	steps = 0;
	outside = make(&c);
	assert_int_equal(machine_state(outside), MACHINE_READY);
	assert_int_equal(machine_pause(outside, &err), -ESHUTDOWN);
	assert_string_equal(err.msg, "'test' is ready");
	assert_int_equal(run(outside), MACHINE_QUIT);
	assert_int_equal(steps, 3);
	assert_int_equal(fake.starts, 3);
	machine_free(outside);
}

/* ---- sleep ---- */

#define FACS_WAKING 0x9f00c
#define MARK        0x300000

static u32 waking;
static bool quits;

/* On the main loop, again until the machine is asleep. */
static void wake_it(void *opaque)
{
	struct err err = { 0 };

	if (machine_state(outside) != MACHINE_ASLEEP) {
		loop_post(machine_vm(outside)->loop, wake_it, NULL);
		return;
	}
	steps++;
	assert_int_equal(machine_pause(outside, &err), -ESHUTDOWN);
	assert_string_equal(err.msg, "'test' is asleep");
	assert_int_equal(machine_resume(outside, &err), -ESHUTDOWN);
	if (quits) {
		assert_int_equal(machine_request_quit(outside, &err), 0);
		return;
	}
	assert_int_equal(machine_wake(outside, &err), 0);
	assert_int_equal(machine_state(outside), MACHINE_ENDING); /* of the sleep */
	assert_int_equal(machine_wake(outside, &err), -ESHUTDOWN);
}

static void sleep_once(struct vcpu *vcpu, int start)
{
	struct vm *vm = vcpu->vm;

	if (start > 1) {
		power_off(vcpu, start);
		return;
	}
	assert_int_equal(machine_wake(outside, NULL), -EALREADY);
	st32(ram_ptr(&vm->ram, FACS_WAKING, 4), waking);
	st32(ram_ptr(&vm->ram, MARK, 4), 0x12345678);
	bus_write(&vm->bus, BUS_PIO, PM_CNT_PORT, 2, BIT(13) | PM_SLP_TYP_S3 << 10);
	loop_post(vm->loop, wake_it, NULL);
}

static void sleep_with(u32 vector, bool no_reboot, int starts)
{
	struct machine_config c = config();

	c.cpus = 2;
	c.name = "test";
	c.no_reboot = no_reboot;
	waking = vector;
	fake.action = sleep_once;
	steps = 0;
	outside = make(&c);
	assert_int_equal(run(outside), quits ? MACHINE_QUIT : MACHINE_POWEROFF);
	assert_int_equal(steps, 1);
	assert_int_equal(fake.starts, starts);
}

static void sleeps_and_wakes(void **state)
{
	struct vm *vm;

	sleep_with(0x98765, true, 2);
	vm = machine_vm(outside);
	assert_int_equal(fake.state[0].seg[SEG_CS].sel, 0x9876);
	assert_int_equal(fake.state[0].seg[SEG_CS].base, 0x98760);
	assert_int_equal(fake.state[0].rip, 5);
	assert_int_equal(fake.state[0].cr0, CR0_ET);
	assert_int_equal(fake.state[1].activity, X86_WAIT_SIPI);
	assert_int_equal(ld32(ram_ptr(&vm->ram, MARK, 4)), 0x12345678);
	assert_int_equal(bus_read(&vm->bus, BUS_PIO, PM_EVT_PORT, 2) & 0x8100, 0x8100);
	machine_free(outside);
}

static void ends_asleep(void **state)
{
	quits = true;
	sleep_with(0x98765, false, 1);
	machine_free(outside);
	quits = false;
}

/* A vector that is none, or that real mode does not reach: as a PC that finds nothing to resume. */
static void sleeps_without_a_way_back(void **state)
{
	static const u32 vectors[] = { 0, 0x100000, 0xffffffff };

	for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++) {
		sleep_with(vectors[i], false, 2);
		assert_int_equal(fake.state[0].rip, 0x200040);
		assert_int_equal(ld32(ram_ptr(&machine_vm(outside)->ram, MARK, 4)), 0);
		machine_free(outside);
		sleep_with(vectors[i], true, 1);
		machine_free(outside);
	}
}

/* ---- states ---- */

static void vcpus_start_as_they_should(void **state)
{
	struct machine_config c = config();
	struct machine *m;
	u64 tsc = vcpu_rdtsc();

	c.cpus = 3;
	c.initrd[0] = initrd_path;
	c.nr_initrds = 1;
	c.append = "args";
	fake.action = power_off;
	m = make(&c);
	assert_string_not_equal(machine_engine_why(m), "");
	run(m);
	assert_int_equal(fake.state[0].rip, 0x200040);
	assert_int_equal(fake.state[0].gpr[R_AX], 0x2badb002);
	assert_int_equal(fake.state[0].activity, X86_ACTIVE);
	for (unsigned i = 0; i < 3; i++) {
		u64 guest_tsc = tsc + fake.state[i].tsc_offset;

		/* At `tsc` the guest's counter had not started yet, but was about to. */
		assert_true((s64)guest_tsc < 0);
		assert_true(0 - guest_tsc < machine_vm(m)->tsc_khz * 60000);
		assert_int_equal(fake.state[i].tsc_offset, fake.state[0].tsc_offset);
		assert_int_equal(machine_vm(m)->vcpu[i]->tsc_offset, fake.state[0].tsc_offset);
		assert_int_equal(fake.state[i].mtrr_def_type & 0xfff, 0x806);
		if (i)
			assert_int_equal(fake.state[i].activity, X86_WAIT_SIPI);
	}
	machine_free(m);
}

static void spoil_and_reset(struct vcpu *vcpu, int start)
{
	struct ram *ram = &vcpu->vm->ram;

	if (start == 3) {
		power_off(vcpu, start);
		return;
	}
	memset(ram->base, 0xcc, 0x9f000);
	memset(ram->base + MiB, 0xcc, 15 * MiB);
	st64(&ram->base[0xe0000], 0);
	bus_write(&vcpu->vm->bus, BUS_PIO, 0x21, 1, 0x5a);
	reset_port(vcpu, start);
}

static void reset_starts_over(void **state)
{
	struct machine_config c = config();
	struct machine *m;
	struct x86_state first;
	struct ram *ram;
	u64 tsc;

	c.initrd[0] = initrd_path;
	c.nr_initrds = 1;
	fake.action = spoil_and_reset;
	m = make(&c);
	ram = &machine_vm(m)->ram;
	assert_int_equal(run(m), MACHINE_POWEROFF);
	assert_int_equal(fake.starts, 3);
	first = fake.state[0];
	tsc = vcpu_rdtsc();
	assert_true(tsc + first.tsc_offset < machine_vm(m)->tsc_khz * 60000); /* the counter started over */
	assert_int_equal(first.rip, 0x200040);
	assert_int_equal(ram->base[0x200040], 0xf4);
	assert_int_equal(ram->base[0x20f000], 0);
	assert_int_equal(ram->base[15 * MiB], 0);
	assert_memory_equal(ram->base + ld32(ram->base + ld32(ram->base + first.gpr[R_BX] + 24)), "initial",
			    7);
	assert_memory_equal(ram->base + 0xe0000, "RSD PTR ", 8);
	assert_int_not_equal(bus_read(&machine_vm(m)->bus, BUS_PIO, 0x21, 1), 0x5a);
	machine_free(m);
}

/* ---- the board ---- */

static void board_answers(void **state)
{
	struct machine_config c = config();
	struct machine *m;
	struct bus *bus;

	c.cpus = 2;
	m = make(&c);
	bus = &machine_vm(m)->bus;
	assert_int_equal(bus_read(bus, BUS_PIO, 0x3fd, 1), 0x60);       /* UART: transmitter empty */
	assert_int_equal(bus_read(bus, BUS_PIO, 0x80, 1), 0xff);        /* nobody */
	assert_int_equal(bus_read(bus, BUS_PIO, 0x2f8, 4), 0xffffffff); /* no COM2 */
	assert_int_not_equal(bus_read(bus, BUS_PIO, 0x3cc, 1), 0xff);   /* VGA */
	assert_null(ram_ptr(&machine_vm(m)->ram, 0x9ffff, 2));
	assert_non_null(bus_find(bus, BUS_MMIO, 0xbffff));
	assert_true(bus_read(bus, BUS_PIO, PM_CNT_PORT, 2) & 1); /* SCI_EN */
	bus_write(bus, BUS_PIO, 0xcf8, 4, BIT(31));
	assert_int_equal(bus_read(bus, BUS_PIO, 0xcfc, 4), bus_read(bus, BUS_MMIO, PCI_ECAM_BASE, 4));
	assert_int_not_equal(bus_read(bus, BUS_PIO, 0xcfc, 4), 0xffffffff); /* a host bridge */
	bus_write(bus, BUS_MMIO, IOAPIC_BASE, 4, 1);
	assert_int_equal(bus_read(bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4) >> 16 & 0xff, 23);
	assert_int_equal(bus_read(bus, BUS_MMIO, HPET_BASE, 4), HPET_ID);
	assert_non_null(bus_find(bus, BUS_MMIO, LAPIC_BASE));
	for (unsigned port = 0x20; port <= 0x71; port++) {
		static const unsigned known[] = { 0x20, 0x21, 0x40, 0x41, 0x42, 0x43,
						  0x60, 0x61, 0x64, 0x70, 0x71 };

		for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
			if (port == known[i])
				assert_non_null(bus_find(bus, BUS_PIO, port));
	}
	/* The tables: where a guest looks for them, and not to be overwritten. */
	assert_memory_equal(machine_vm(m)->ram.base + 0xe0000, "RSD PTR ", 8);
	assert_true(ram_is_rom(&machine_vm(m)->ram, 0xe0000));
	assert_true(ram_is_rom(&machine_vm(m)->ram, 0xfffff));
	assert_false(ram_is_rom(&machine_vm(m)->ram, 0x100000));
	machine_free(m);
}

static void board_without_vga(void **state)
{
	struct machine_config c = config();
	struct machine *m;
	struct bus *bus;

	c.vga = "none";
	m = make(&c);
	bus = &machine_vm(m)->bus;
	assert_int_equal(bus_read(bus, BUS_PIO, 0x3cc, 1), 0xff);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xb8000, 4), 0xffffffff);
	assert_null(ram_ptr(&machine_vm(m)->ram, 0xb8000, 1));
	assert_int_equal(bus_read(bus, BUS_MMIO, PCI_ECAM_BASE + (VGA_PCI_SLOT << 15), 4), 0xffffffff);
	fake.action = power_off;
	run(m);
	machine_free(m);
}

static void map_has_memory_above_the_hole(void **state)
{
	struct machine_config c = config();
	struct machine *m;
	u8 *info, *mmap;
	u64 ram = 0;

	if (os_memory_total() < 5 * GiB)
		skip();
	c.memory = 5 * GiB;
	fake.action = power_off;
	m = make(&c);
	run(m);
	info = machine_vm(m)->ram.base + fake.state[0].gpr[R_BX];
	mmap = machine_vm(m)->ram.base + ld32(info + 48);
	for (u32 off = 0; off < ld32(info + 44); off += 24) {
		u64 start = ld64(mmap + off + 4), len = ld64(mmap + off + 12);

		if (ld32(mmap + off + 20) == 1) {
			assert_non_null(ram_ptr(&machine_vm(m)->ram, start, len));
			ram += len;
		}
	}
	/* All but what lies between the FACS and 1 MiB. */
	assert_int_equal(ram, 5 * GiB - (MiB - 0x9f000));
	machine_free(m);
}

/* ---- refusals ---- */

static char long_path[64];

static void bad_engine(struct machine_config *c)
{
	c->engine = "warp";
}
static void bad_setting(struct machine_config *c)
{
	c->engine = "soft,warm=very";
}
static void odd_setting(struct machine_config *c)
{
	c->engine = "auto,turbo=on";
}
static void bad_cpu(struct machine_config *c)
{
	c->cpu_model = "z80";
}
static void many_cpus(struct machine_config *c)
{
	c->cpus = 65;
}
static void little_memory(struct machine_config *c)
{
	c->memory = 4 * MiB - 1;
}
static void much_memory(struct machine_config *c)
{
	c->memory = 64 * GiB + 1;
}
static void host_memory(struct machine_config *c)
{
	c->memory = ALIGN_UP(os_memory_total() + 1, 4096);
}
static void no_kernel(struct machine_config *c)
{
	c->kernel = NULL;
}
static void missing_kernel(struct machine_config *c)
{
	c->kernel = "/nowhere/vmlinuz";
}
static void folder_kernel(struct machine_config *c)
{
	c->kernel = dir;
}
static void empty_kernel(struct machine_config *c)
{
	c->kernel = empty_path;
}
static void junk_kernel(struct machine_config *c)
{
	c->kernel = junk_path;
}
static void missing_initrd(struct machine_config *c)
{
	c->initrd[0] = "/nowhere/initrd";
	c->nr_initrds = 1;
}
static void second_initrd(struct machine_config *c)
{
	c->initrd[0] = initrd_path;
	c->initrd[1] = dir;
	c->nr_initrds = 2;
}
static void large_initrd(struct machine_config *c)
{
	snprintf(long_path, sizeof(long_path), "%s/large", dir);
	close(open(long_path, O_CREAT | O_WRONLY, 0600));
	/* Sparse, so it costs nothing; larger than any host's memory, so reading it would fail otherwise. */
	assert_int_equal(truncate(long_path, 1ll << 40), 0);
	c->initrd[0] = long_path;
	c->nr_initrds = 1;
}
static void bad_serial(struct machine_config *c)
{
	c->serial[0] = "file:/nowhere/log";
}
static void odd_serial(struct machine_config *c)
{
	c->serial[0] = "tape";
}
static void bad_device(struct machine_config *c)
{
	c->device[0] = "flux";
	c->nr_devices = 1;
}
static void board_device(struct machine_config *c)
{
	c->device[0] = "pic";
	c->nr_devices = 1;
}
static void same_device(struct machine_config *c)
{
	c->device[0] = c->device[1] = "debug-exit";
	c->nr_devices = 2;
}
static void odd_vga(struct machine_config *c)
{
	c->vga = "cirrus";
}
static void display_of_nothing(struct machine_config *c)
{
	c->vga = "none";
	c->display = "text";
}
static void engine_fails(struct machine_config *c)
{
	fake.fail_vm = true;
}
static void vcpu_fails(struct machine_config *c)
{
	c->cpus = 4;
	fake.fail_vcpu = 2;
}

static void refuses_with_a_sentence(void **state)
{
	static const struct {
		void (*spoil)(struct machine_config *c);
		const char *says;
	} rows[] = {
		{ bad_engine, "warp" },
		{ bad_setting, "'warm' cannot be 'very'" },
		{ odd_setting, "unknown engine setting 'turbo'" },
		{ bad_cpu, "z80" },
		{ many_cpus, "65 processors are too many" },
		{ little_memory, "too few" },
		{ much_memory, "too many" },
		{ host_memory, "" },
		{ no_kernel, "--kernel" },
		{ missing_kernel, "/nowhere/vmlinuz" },
		{ folder_kernel, "a directory" },
		{ empty_kernel, "is empty" },
		{ junk_kernel, "not a kernel that bothy knows" },
		{ missing_initrd, "/nowhere/initrd" },
		{ second_initrd, "a directory" },
		{ large_initrd, "is larger than the guest's memory (16 MiB)" },
		{ bad_serial, "/nowhere/log" },
		{ odd_serial, "tape" },
		{ bad_device, "there is no device 'flux' to add; there are debugcon, debug-exit" },
		{ board_device, "there is no device 'pic' to add" },
		{ same_device, "debug-exit" },
		{ odd_vga, "unknown display adapter 'cirrus'" },
		{ display_of_nothing, "--vga none" },
		{ engine_fails, "does not want to" },
		{ vcpu_fails, "no vCPU 2" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct machine_config c = config();
		struct machine *m = NULL;
		struct err err = { 0 };
		int r;

		rows[i].spoil(&c);
		r = machine_new(&c, &m, &err);
		if (r >= 0 || err.code != r || !strstr(err.msg, rows[i].says))
			fail_msg("row %u: %d \"%s\", wanted \"%s\"", i, r, err.msg, rows[i].says);
		assert_null(m);
		assert_int_equal(fake.vms, 0);
		assert_int_equal(fake.vcpus, 0);
	}
	unlink(long_path);
	machine_free(NULL);
}

static void settings_reach_the_engine(void **state)
{
	struct machine_config c = config();
	struct machine *m;

	m = make(&c);
	assert_true(fake.conf.translate);
	assert_false(fake.conf.lockstep || fake.conf.perf_map || fake.conf.warm);
	machine_free(m);
	c.engine = "soft,translate=off,lockstep=on,perf-map=on,warm=12";
	m = make(&c);
	assert_string_equal(machine_engine_why(m), "");
	assert_false(fake.conf.translate);
	assert_true(fake.conf.lockstep && fake.conf.perf_map);
	assert_int_equal(fake.conf.warm, 12);
	machine_free(m);
	c.engine = "auto,warm=3";
	m = make(&c);
	assert_string_not_equal(machine_engine_why(m), "");
	assert_int_equal(fake.conf.warm, 3);
	machine_free(m);
}

static void frees_what_never_ran(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		struct machine_config c = config();

		c.device[0] = "pc-testdev";
		c.device[1] = "debugcon";
		c.nr_devices = i;
		c.cpus = 1 + i * 7;
		machine_free(make(&c));
		assert_int_equal(fake.vms, 0);
		assert_int_equal(fake.vcpus, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_end_has_its_status),
		cmocka_unit_test(crash_is_described),
		cmocka_unit_test(obeys_from_outside),
		cmocka_unit_test(sleeps_and_wakes),
		cmocka_unit_test(ends_asleep),
		cmocka_unit_test(sleeps_without_a_way_back),
		cmocka_unit_test(vcpus_start_as_they_should),
		cmocka_unit_test(reset_starts_over),
		cmocka_unit_test(board_answers),
		cmocka_unit_test(board_without_vga),
		cmocka_unit_test(map_has_memory_above_the_hole),
		cmocka_unit_test(refuses_with_a_sentence),
		cmocka_unit_test(settings_reach_the_engine),
		cmocka_unit_test(frees_what_never_ran),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
