/* A whole virtual machine: construction, the main loop, reset, teardown.
 *
 * Without a kernel the first vCPU starts at the reset vector, in the firmware's ROM, and everything that the loader would
 * do is the firmware's (machine/firmware.c).
 *
 * Construction goes in the order in which parts need each other: what the configuration says is checked,
 * the images are read, then come loop, RAM, tables and the loaded kernel, then engine and vCPUs, and only
 * then the serial back end and the devices, so that a bad option or image is refused before the terminal
 * was touched. machine_free() undoes whatever part of that was done.
 *
 * A run: the vCPUs' threads start, the first in the boot loader's state, the others waiting for a start-up
 * IPI; the main thread stays in the loop until somebody calls vm_request(); then the vCPUs are stopped and
 * joined. A reset gives the devices their warm reset, clears RAM, loads the images again from the copies
 * kept in memory (files may have changed or gone since) and starts over. So nothing of the old run is left,
 * which is more than a PC promises, whose RAM survives.
 *
 * Sleep (ACPI S3) lies between: the vCPUs are parked, the devices lose their power, guest time goes on, and the main thread stays in
 * the loop until the power button, the clock or somebody else wakes the machine. It then goes on as after a reset, but with its RAM:
 * at the reset vector, from where firmware finds the guest, or without firmware at the guest's waking vector.
 *
 * The guest's TSC starts near zero: host TSC at the start of the run, negated, is the offset of all vCPUs. (Some hosts' KVM
 * cannot do that: there the guest has the host's, and sees pauses in it.)
 *
 * A pause parks the vCPUs' threads, stops guest time, then lets the devices finish. A resume takes the time that has passed out of
 * the TSC offsets, so that guests and their local timers see none of it.
 *
 * Omitted: snapshots, hot-plug. Main thread only.
 */
#include "machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "boot/boot.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "host/chr.h"
#include "host/chr_share.h"
#include "machine/affinity.h"
#include "machine/balloon.h"
#include "machine/bootorder.h"
#include "machine/disk.h"
#include "machine/display.h"
#include "machine/firmware.h"
#include "machine/nic.h"
#include "machine/pc.h"
#include "machine/sharedir.h"
#include "machine/video.h"
#include "machine/vsock.h"
#include "vm/backend.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/handover.h"
#include "vm/vm.h"
#include "vm/vsock.h"

#define MAX_KERNEL_FILE (2 * GiB)
#define ALIGNMENT       64

_Static_assert(MACHINE_MAX_INITRDS <= BOOT_MAX_INITRDS, "initrds");

struct machine {
	struct x86_state boot_state, ap_state; /* first, for their alignment */
	struct machine_config config;          /* with defaults filled in */
	char engine_why[256];
	struct boot_source source;
	char *initrd_path[MACHINE_MAX_INITRDS]; /* without what follows the name; NULL: nothing does */
	struct boot_video video;                /* as the loader has promised the kernel */
	struct firmware firmware;
	struct bootorder order;
	struct vm vm;
	struct pc pc;
	struct chr *serial[MACHINE_MAX_SERIALS], *console;
	struct display *display;                                  /* NULL: none */
	struct disk disk[MACHINE_MAX_DISKS + MACHINE_MAX_CDROMS]; /* the CD-ROMs behind the last disk */
	struct sharedir share[MACHINE_MAX_SHARES];
	struct vsock *vsock;
	bool vsock_packed;
	struct nic nic;
	struct balloon_conf balloon;
	bool balloon_packed;
	cpu_set_t host_cpus[VM_MAX_VCPUS]; /* by vCPU */
	bool lock_made, engine_made, ran, running;
	bool wakes; /* the next start is the end of a sleep */
	bool paused;
	bool pause_wanted,
		held;  /* by machine_pause(), machine_hold(); while it runs, one or both mean paused */
	u64 pause_tsc; /* host TSC at the pause */
};

/* ---- images ---- */

static void close_image(struct boot_file *f)
{
	if (f->in_file)
		close(f->fd);
	free((void *)f->data);
	memset(f, 0, sizeof(*f));
}

static int read_head(struct boot_file *f, size_t len, struct err *err)
{
	u8 *data = realloc((void *)f->data, len);

	if (!data)
		return err_set(err, -ENOMEM, "no memory for %zu bytes of '%s'", len, f->path);
	f->data = data;
	return os_pread_all(f->fd, f->path, data, len, 0, err);
}

/* What is only copied into the guest's memory stays in its file. */
static int open_image(bool kernel, const char *path, u64 max, struct boot_file *ret_file, struct err *err)
{
	struct boot_file f = { .path = path, .in_file = true };
	int r;

	r = os_open_regular(path, max, &f.fd, &f.len, err);
	if (r < 0)
		return err_wrap(err, "%s", kernel ? "kernel" : "initrd"), r;
	if (kernel) {
		r = read_head(&f, MIN(f.len, (size_t)BOOT_HEAD), err);
		if (r == 0 && !boot_head_is_enough(&f)) {
			r = read_head(&f, f.len, err);
			close(f.fd);
			f.in_file = false;
		}
	}
	if (r < 0) {
		close_image(&f);
		return err_wrap(err, "kernel"), r;
	}
	*ret_file = f;
	return 0;
}

/* "FILE TEXT", for modules, unless that is itself the name of a file. */
static int split_initrd(struct machine *m, unsigned i, struct err *err)
{
	const char *text = m->config.initrd[i], *space = strchr(text, ' ');

	m->source.text[i] = NULL;
	if (!space || access(text, F_OK) == 0)
		return 0;
	m->source.text[i] = text;
	m->initrd_path[i] = strndup(text, (size_t)(space - text));
	return m->initrd_path[i] ? 0 : err_set(err, -ENOMEM, "no memory for the name of an initrd");
}

static int open_images(struct machine *m, struct err *err)
{
	const struct machine_config *c = &m->config;
	char need[32], have[32];
	struct stat st;
	int r;

	if (c->firmware)
		return firmware_open(&m->firmware, c->firmware, c->firmware_vars, err);
	r = open_image(true, c->kernel, MAX_KERNEL_FILE, &m->source.kernel, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < c->nr_initrds; i++) {
		const char *path;

		r = split_initrd(m, i, err);
		if (r < 0)
			return r;
		path = m->initrd_path[i] ? m->initrd_path[i] : c->initrd[i];
		/* Before it is opened: it may be larger than the host's memory too. */
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && (u64)st.st_size >= c->memory)
			return err_set(
				err, -ENOMEM,
				"initrd %s (%s) is larger than the guest's memory (%s); give it more with --memory",
				path, boot_size_text((u64)st.st_size, need), boot_size_text(c->memory, have));
		r = open_image(false, path, c->memory, &m->source.initrd[i], err);
		if (r < 0)
			return r;
		m->source.nr_initrds = i + 1;
	}
	m->source.append = c->append;
	return 0;
}

static void close_images(struct machine *m)
{
	close_image(&m->source.kernel);
	for (unsigned i = 0; i < m->source.nr_initrds; i++)
		close_image(&m->source.initrd[i]);
	memset(&m->source, 0, sizeof(m->source));
	for (unsigned i = 0; i < MACHINE_MAX_INITRDS; i++) {
		free(m->initrd_path[i]);
		m->initrd_path[i] = NULL;
	}
}

/* Tables and images into cleared RAM, and the state in which each vCPU starts. */
static int load(struct machine *m, struct err *err)
{
	struct vm *vm = &m->vm;
	struct boot_target target = {
		.ram = &vm->ram,
		.map = &m->pc.map,
		.long_mode = cpuid_has(&vm->cpuid, X86_FEATURE_LM),
		.signature = vm->cpuid.signature,
		.vga = m->pc.vga,
		.frame_buffer = m->pc.vga ? PC_FRAME_BUFFER : 0,
		.video = &m->video,
	};
	int r;

	x86_state_reset(&m->ap_state, false, false, vm->cpuid.signature);
	m->ap_state.activity = X86_WAIT_SIPI;
	if (m->firmware.path) { /* it does the rest */
		x86_state_reset(&m->boot_state, false, true, vm->cpuid.signature);
		return 0;
	}
	m->video = (struct boot_video){ 0 };
	r = pc_write_tables(&m->pc, err);
	if (r < 0)
		return r;
	target.rsdp = m->pc.rsdp;
	r = boot_load(&m->source, &target, &m->boot_state, err);
	if (r < 0)
		return r;
	pc_set_memory_types(&m->pc, &m->boot_state);
	pc_set_memory_types(&m->pc, &m->ap_state);
	return 0;
}

/* ---- construction ---- */

static int check_config(struct machine_config *c, struct err *err)
{
	char size[32], limit[32];

	if (!c->name)
		c->name = "bothy";
	if (!c->engine)
		c->engine = "auto";
	if (!c->cpus)
		c->cpus = 1;
	if (!c->memory)
		c->memory = MACHINE_DEFAULT_MEMORY;
	if (!c->append)
		c->append = "";
	if (!c->vga)
		c->vga = "std";
	if (!c->display)
		c->display = "none";
	if (!c->nr_serials) {
		bool taken = (c->console && !strcmp(c->console, "stdio")) || strcmp(c->display, "none") != 0;

		c->serial[c->nr_serials++] = taken ? "none" : "stdio";
	}
	if (strcmp(c->display, "none") != 0 && strcmp(c->display, "text") != 0)
		return err_set(err, -EINVAL, "unknown display '%s'; use none or text", c->display);
	if (strcmp(c->vga, "none") != 0 && strcmp(c->vga, "std") != 0)
		return err_set(err, -EINVAL, "unknown display adapter '%s'; use std or none", c->vga);
	if (!strcmp(c->vga, "none") && strcmp(c->display, "none") != 0)
		return err_set(
			err, -EINVAL,
			"--display %s shows what a display adapter has, and --vga none leaves it out; leave out one of the two",
			c->display);
	if (c->nr_serials > MACHINE_MAX_SERIALS)
		return err_set(err, -EINVAL, "at most %u serial ports are possible", MACHINE_MAX_SERIALS);
	if (c->kernel && c->firmware)
		return err_set(err, -EINVAL,
			       "a kernel is started without firmware; leave out --kernel or --firmware");
	if (!c->kernel && !c->firmware && (c->nr_disks || c->nr_cdroms))
		c->firmware = "bios";
	if ((!c->kernel || !*c->kernel) && (!c->firmware || !*c->firmware))
		return err_set(
			err, -EINVAL,
			"nothing to boot; name a kernel with --kernel FILE, or a disk with --disk FILE");
	if ((c->firmware_vars || c->boot) && !c->firmware)
		return err_set(err, -EINVAL, "%s is for firmware, and a kernel is started without",
			       c->boot ? "--boot" : "--firmware-vars");
	if (c->firmware && (c->nr_initrds || (c->append && *c->append)))
		return err_set(err, -EINVAL, "%s is for a kernel, and there is no --kernel",
			       c->nr_initrds ? "--initrd" : "--append");
	if (c->cpus > VM_MAX_VCPUS)
		return err_set(err, -EINVAL, "%u processors are too many, %u are possible", c->cpus,
			       VM_MAX_VCPUS);
	if (c->memory < MACHINE_MIN_MEMORY || c->memory > MACHINE_MAX_MEMORY)
		return err_set(err, -EINVAL, "%s of memory are too %s; a machine has %s to %llu GiB",
			       boot_size_text(c->memory, size),
			       c->memory < MACHINE_MIN_MEMORY ? "few" : "many",
			       boot_size_text(MACHINE_MIN_MEMORY, limit),
			       (unsigned long long)(MACHINE_MAX_MEMORY / GiB));
	if (c->memory > os_memory_total())
		return err_set(err, -ENOMEM, "%s of memory are more than the %s that this host has",
			       boot_size_text(c->memory, size), boot_size_text(os_memory_total(), limit));
	if (c->nr_initrds > MACHINE_MAX_INITRDS || c->nr_devices > MACHINE_MAX_DEVICES ||
	    c->nr_disks > MACHINE_MAX_DISKS || c->nr_cdroms > MACHINE_MAX_CDROMS ||
	    c->nr_shares > MACHINE_MAX_SHARES)
		return err_set(
			err, -EINVAL,
			"at most %u initrds, %u devices, %u disks, %u CD-ROMs and %u shares are possible",
			MACHINE_MAX_INITRDS, MACHINE_MAX_DEVICES, MACHINE_MAX_DISKS, MACHINE_MAX_CDROMS,
			MACHINE_MAX_SHARES);
	/* The last page may be a fraction for the user, not for the machine. */
	c->memory = ALIGN_DOWN(c->memory, RAM_PAGE_SIZE);
	return 0;
}

static int make_cpus(struct machine *m, struct err *err)
{
	struct vm *vm = &m->vm;
	int r;

	m->engine_made = true; /* vm_fini accepts a half-built one */
	r = vm->engine->vm_init(vm, err);
	if (r < 0)
		return r;
	for (u32 i = 0; i < m->config.cpus; i++) {
		struct vcpu *vcpu = aligned_alloc(ALIGNMENT, ALIGN_UP(sizeof(*vcpu), (size_t)ALIGNMENT));

		if (!vcpu)
			return err_set(err, -ENOMEM, "no memory for processor %u", i);
		memset(vcpu, 0, sizeof(*vcpu));
		vcpu->vm = vm;
		vcpu->id = i;
		vcpu->timer_tsc = ~0ull;
		vcpu->host_cpus = m->host_cpus[i];
		vm->vcpu[i] = vcpu;
		r = vm->engine->vcpu_init(vcpu, err);
		if (r < 0) {
			vm->vcpu[i] = NULL;
			free(vcpu);
			return r;
		}
	}
	return 0;
}

static bool is_optional_device(const char *name)
{
	for (const struct device_ops *const *type = device_types; *type; type++)
		if (!strcmp((*type)->name, name))
			return (*type)->help;
	return false;
}

static int add_optional_devices(struct machine *m, struct err *err)
{
	for (unsigned i = 0; i < m->config.nr_devices; i++) {
		const char *name = m->config.device[i];
		const struct device_conf conf = { .id = NULL };
		char known[256] = "";
		size_t len = 0;
		int r;

		if (is_optional_device(name)) {
			r = device_new(&m->vm, name, &conf, NULL, err);
			if (r < 0)
				return r;
			continue;
		}
		for (const struct device_ops *const *type = device_types; *type && len < sizeof(known);
		     type++)
			if ((*type)->help)
				len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s",
							len ? ", " : "", (*type)->name);
		return err_set(err, -ENOENT, "there is no device '%s' to add; there are %s", name, known);
	}
	return 0;
}

/* Before the terminal is touched: most of what can be wrong with a machine is wrong here. */
static int open_disks(struct machine *m, struct err *err)
{
	for (unsigned i = 0; i < m->config.nr_disks; i++) {
		int r = disk_open(&m->disk[i], m->config.disk[i], m->config.cpus, m->vm.loop, err);

		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < m->config.nr_cdroms; i++) {
		int r = disk_open_cdrom(&m->disk[m->config.nr_disks + i], m->config.cdrom[i], m->vm.loop,
					err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_shares(struct machine *m, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < m->config.nr_shares && r == 0; i++)
		r = sharedir_open(&m->share[i], m->config.share[i], err);
	return r == 0 ? sharedir_check_tags(m->share, m->config.nr_shares, err) : r;
}

/* The network comes first, so that its slot does not depend on how many disks there are. */
static int add_back_ends(struct machine *m, struct err *err)
{
	const struct device_conf net = {
		.id = "net0", .net = m->nic.net, .mac = m->nic.mac, .packed = m->nic.packed
	};
	int rc = m->nic.wanted ? device_new(&m->vm, "virtio-net", &net, NULL, err) : 0;

	if (rc < 0)
		return rc;
	rc = disk_add_devices(&m->vm, m->disk, m->config.nr_disks + m->config.nr_cdroms, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < m->config.nr_shares; i++) {
		char id[16];
		const struct device_conf conf = { .id = id,
						  .fs = m->share[i].fs,
						  .packed = m->share[i].packed };
		int r;

		snprintf(id, sizeof(id), "share%u", i);
		r = device_new(&m->vm, "virtio-fs", &conf, NULL, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void on_quit(void *opaque)
{
	struct machine *m = opaque;

	vm_request(&m->vm, VM_REQ_QUIT);
}

static int open_console(struct machine *m, const char *spec, const char *socket, struct chr **chr,
			struct err *err)
{
	int r = chr_open(spec, m->vm.loop, on_quit, m, chr, err);

	if (r == 0 && socket && m->config.socket_dir)
		r = chr_share_open(m->config.socket_dir, socket, m->vm.loop, chr, err);
	return r;
}

/* The first one can be looked at by bothy console. */
static int open_serials(struct machine *m, struct err *err)
{
	for (unsigned i = 0; i < m->config.nr_serials; i++) {
		int r = open_console(m, m->config.serial[i], i ? NULL : "serial.sock", &m->serial[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int build(struct machine *m, struct err *err)
{
	const struct machine_config *c = &m->config;
	struct vm *vm = &m->vm;
	struct cpuid_params params = { .model = c->cpu_model, .nr_vcpus = c->cpus };
	u64 features[4] = { 0 };
	char engine[32];
	int r;

	snprintf(vm->name, sizeof(vm->name), "%s", c->name);
	r = engine_conf_parse(c->engine, engine, sizeof(engine), &vm->engine_conf, err);
	if (r < 0)
		return r;
	vm->engine = engine_select(engine, m->engine_why, sizeof(m->engine_why), err);
	if (!vm->engine)
		return err && err->code ? err->code : -EINVAL;
	r = engine_conf_check(&vm->engine_conf, vm->engine, m->engine_why, err);
	if (r < 0)
		return r;
	vm->nr_vcpus = c->cpus;
	os_tsc_begin();
	r = open_images(m, err);
	if (r < 0)
		return r;
	vm->tsc_khz = os_tsc_khz();
	vm->engine->features(&vm->engine_conf, features);
	params.tsc_khz = vm->tsc_khz;
	params.engine_features = features;
	if (m->firmware.path)
		params.max_phys_bits = firmware_phys_bits(c->memory);
	r = cpuid_build(&vm->cpuid, &params, err);
	if (r < 0)
		return r;

	pthread_mutex_init(&vm->intc_lock, NULL);
	m->lock_made = true;
	vm->clock_paused = true; /* guest time 0, until the vCPUs run */
	r = loop_new(&vm->loop, err);
	if (r < 0)
		return r;
	r = open_disks(m, err);
	if (r == 0)
		r = open_shares(m, err);
	if (r == 0 && c->vsock)
		r = vsock_open(c->vsock, &m->vsock, &m->vsock_packed, err);
	if (r == 0)
		r = nic_open(&m->nic, c->net, vm->loop, err);
	if (r < 0)
		return r;
	r = ram_init_rom(&vm->ram, c->memory, firmware_rom_size(&m->firmware), vm->engine->large_pages, err);
	if (r < 0)
		return r;
	if (m->firmware.path)
		firmware_load(&m->firmware, &vm->ram);
	m->pc.vga = strcmp(c->vga, "none") != 0;
	r = pc_init(&m->pc, vm, err);
	if (r < 0)
		return r;
	r = load(m, err);
	if (r < 0)
		return r;
	if (c->no_reboot)
		close_images(m); /* never needed again */

	r = make_cpus(m, err);
	if (r < 0)
		return r;
	r = open_serials(m, err);
	if (r == 0 && c->console)
		r = open_console(m, c->console, "console.sock", &m->console, err);
	if (r < 0)
		return r;
	if (m->pc.vga)
		video_load_rom(&m->pc);
	r = pc_add_devices(&m->pc, m->serial, c->nr_serials, err);
	if (r == 0 && m->firmware.path)
		r = firmware_tell(&m->firmware, &m->pc, c, err);
	if (r == 0)
		r = add_back_ends(m, err);
	if (r == 0 && m->firmware.path)
		r = firmware_tell_order(&m->order, vm, err);
	if (r == 0 && c->console)
		r = device_new(vm, "virtio-console", &(const struct device_conf){ .chr = m->console }, NULL,
			       err);
	if (r == 0 && m->vsock)
		r = device_new(vm, "virtio-vsock",
			       &(const struct device_conf){ .vsock = m->vsock, .packed = m->vsock_packed },
			       NULL, err);
	if (r == 0 && c->balloon)
		r = device_new(vm, "virtio-balloon",
			       &(const struct device_conf){ .balloon = &m->balloon,
							    .packed = m->balloon_packed },
			       NULL, err);
	if (r < 0)
		return r;
	r = add_optional_devices(m, err);
	if (r == 0 && strcmp(c->display, "none") != 0)
		r = display_open(vm, on_quit, m, &m->display, err);
	return r;
}

int machine_new(const struct machine_config *config, struct machine **ret_machine, struct err *err)
{
	struct machine *m = aligned_alloc(ALIGNMENT, ALIGN_UP(sizeof(*m), (size_t)ALIGNMENT));
	int r;

	if (!m)
		return err_set(err, -ENOMEM, "no memory for the machine");
	memset(m, 0, sizeof(*m));
	m->vm.ram.fd = -1;
	m->config = *config;
	r = check_config(&m->config, err);
	if (r == 0)
		r = affinity_parse(m->config.affinity, m->config.cpus, m->host_cpus, err);
	if (r == 0)
		r = bootorder_parse(m->config.boot, &m->order, err);
	if (r == 0 && m->config.balloon)
		r = balloon_parse(m->config.balloon, m->config.memory, &m->balloon, &m->balloon_packed, err);
	if (r == 0)
		r = build(m, err);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	*ret_machine = m;
	return 0;
}

/* ---- running ---- */

static void park(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_post(vm->vcpu[i], VCPU_REQ_PAUSE);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_pause(vm->vcpu[i]);
}

/* The local APICs, between the devices and an engine that has its own while it runs. */
static int move_apics(struct vm *vm, bool inside, struct err *err)
{
	return vm->engine->apics ? vm->engine->apics(vm, inside, err) : 0;
}

static void must_move_apics(struct vm *vm, bool inside)
{
	struct err err = { 0 };

	if (move_apics(vm, inside, &err) < 0)
		vm_crash(vm, err.msg);
}

/* All vCPUs are parked between two instructions, and devices stand still. */
static void stand_still(struct machine *m)
{
	struct vm *vm = &m->vm;

	park(vm);
	m->pause_tsc = vcpu_rdtsc();
	clock_pause(vm);
	must_move_apics(vm, false);
	m->paused = true;
	device_quiesce_all(vm);
}

static void go_on(struct machine *m)
{
	struct vm *vm = &m->vm;
	u64 passed;

	clock_resume(vm);
	passed = vm->tsc_fixed ? 0 : vcpu_rdtsc() - m->pause_tsc;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vm->vcpu[i]->tsc_offset = (s64)((u64)vm->vcpu[i]->tsc_offset - passed);
	must_move_apics(vm, true);
	pc_tsc_changed(&m->pc);
	m->paused = false;
	device_resume_all(vm);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_resume(vm->vcpu[i]);
}

static int start(struct machine *m, struct err *err)
{
	struct vm *vm = &m->vm;
	s64 offset;
	int r;

	m->running = true;
	if (!m->wakes)
		timeline_begin(vm, !m->firmware.path);
	m->wakes = false;
	for (unsigned i = 0; i < m->config.nr_disks; i++) {
		m->disk[i].block->on_read_opaque = vm;
		m->disk[i].block->on_read = m->firmware.path ? timeline_disk_read : NULL;
	}
	clock_resume(vm);
	offset = vm->tsc_fixed ? 0 : (s64)(0 - vcpu_rdtsc());
	m->boot_state.tsc_offset = (u64)offset;
	m->ap_state.tsc_offset = (u64)offset;
	pc_open_virtualization(&m->pc, &m->boot_state);
	pc_open_virtualization(&m->pc, &m->ap_state);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vm->vcpu[i]->tsc_offset = offset;
	pc_tsc_changed(&m->pc);
	if (!m->firmware.path) {
		pc_program_pics(&m->pc);
		if (m->pc.vga)
			video_start(&m->pc, &m->video);
	}
	r = move_apics(vm, true, err);
	if (r < 0)
		return r;
	/* The first one last: it must not send a start-up IPI to a thread that is not there yet. */
	for (u32 i = vm->nr_vcpus; i-- > 0;) {
		if (m->held)
			vcpu_post(vm->vcpu[i], VCPU_REQ_PAUSE);
		vm->vcpu[i]->debug.why = DEBUG_NONE;
		r = vcpu_start(vm->vcpu[i], i ? &m->ap_state : &m->boot_state, err);
		if (r < 0)
			return r;
	}
	if (m->held)
		stand_still(m);
	return 0;
}

static void stop(struct machine *m)
{
	struct vm *vm = &m->vm;

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpu[i] && vm->vcpu[i]->thread_started)
			vcpu_post(vm->vcpu[i], VCPU_REQ_STOP);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpu[i] && vm->vcpu[i]->thread_started)
			vcpu_join(vm->vcpu[i]);
	if (vm->loop)
		clock_pause(vm);
	if (m->running)
		move_apics(vm, false, NULL); /* for the devices' reset, or nothing more */
	m->running = m->paused = m->pause_wanted = false;
}

/* RAM reads zero again and costs the host nothing; the engine forgets code it had found there. */
static int clear_ram(struct ram *ram, struct err *err)
{
	int r;

	for (u64 page = 0; page < ram->end / RAM_PAGE_SIZE; page++)
		if (atomic_load_explicit(&ram->code_map[page], memory_order_relaxed))
			ram_code_written(ram, page * RAM_PAGE_SIZE, RAM_PAGE_SIZE);
	r = ram_clear(ram);
	if (r < 0)
		return err_sys(err, r, "cannot clear the guest's memory");
	ram_mark_dirty(ram, 0, ram->end);
	return 0;
}

static int reset(struct machine *m, struct err *err)
{
	int r;

	log_info("%s: reset", m->vm.name);
	/* Before the devices, which may post anew. */
	for (u32 i = 0; i < m->vm.nr_vcpus; i++)
		atomic_store(&m->vm.vcpu[i]->requests, 0);
	device_reset_all(&m->vm, RESET_WARM);
	r = clear_ram(&m->vm.ram, err);
	if (r < 0)
		return r;
	return load(m, err);
}

/* The vCPUs are to start where the sleep ends, RAM stays. False: the guest has not said where, so it is reset. */
static bool wake(struct machine *m)
{
	for (u32 i = 0; i < m->vm.nr_vcpus; i++)
		atomic_store(&m->vm.vcpu[i]->requests, 0);
	pm_wake(m->pc.pm);
	if (m->firmware.path)
		x86_state_reset(&m->boot_state, false, true, m->vm.cpuid.signature);
	else if (!pc_wake_state(&m->pc, &m->boot_state))
		return false;
	log_info("%s: awake", m->vm.name);
	m->wakes = true;
	return true;
}

static int wait_for_request(struct vm *vm)
{
	int request;

	while ((request = atomic_load(&vm->request)) == VM_REQ_NONE)
		loop_run(vm->loop);
	return request;
}

/* From the guest's wish to sleep to the next request, as a rule VM_REQ_WAKE. */
static int sleep_until_request(struct machine *m)
{
	struct vm *vm = &m->vm;
	int request = VM_REQ_SLEEP;

	park(vm);
	must_move_apics(vm, false);
	if (m->paused) /* no guest resumes from that pause */
		clock_resume(vm);
	m->paused = m->pause_wanted = false;
	device_reset_all(vm, RESET_SLEEP);
	rtc_set_byte(device_find(vm, "rtc"), RTC_SHUTDOWN_STATUS, RTC_SHUTDOWN_S3);
	if (!atomic_compare_exchange_strong(&vm->request, &request, VM_REQ_NONE))
		return request;
	log_info("%s: asleep", vm->name);
	pm_sleep(m->pc.pm);
	return wait_for_request(vm);
}

int machine_run(struct machine *m, int *ret_status, struct err *err)
{
	struct vm *vm = &m->vm;
	int r = 0;

	if (m->ran)
		return err_set(err, -EBUSY, "a machine runs only once");
	m->ran = true;
	for (;;) {
		int request;

		r = start(m, err);
		if (r < 0)
			break;
		request = wait_for_request(vm);
		if (request == VM_REQ_SLEEP)
			request = sleep_until_request(m);
		stop(m);
		switch (request) {
		case VM_REQ_CRASH:
			/* What is printed on a terminal that shows the screen would be gone with it. */
			display_close(m->display);
			m->display = NULL;
			fprintf(stderr, "%s\n", vm->crash);
			*ret_status = MACHINE_CRASHED;
			return 0;
		case VM_REQ_EXIT: *ret_status = atomic_load(&vm->exit_status); return 0;
		case VM_REQ_QUIT: *ret_status = MACHINE_QUIT; return 0;
		case VM_REQ_WAKE: break;
		case VM_REQ_RESET:
			if (!m->config.no_reboot)
				break;
			*ret_status = MACHINE_POWEROFF;
			return 0;
		default: *ret_status = MACHINE_POWEROFF; return 0;
		}
		/* All vCPUs are stopped, so nobody but a signal can ask for something else now; see
		 * vm_request(). */
		if (atomic_exchange(&vm->request, VM_REQ_NONE) != request) {
			*ret_status = MACHINE_QUIT;
			return 0;
		}
		if (request == VM_REQ_WAKE && wake(m))
			continue;
		if (request == VM_REQ_WAKE && m->config.no_reboot) {
			*ret_status = MACHINE_POWEROFF;
			return 0;
		}
		r = reset(m, err);
		if (r < 0)
			break;
	}
	stop(m);
	return r;
}

/* ---- from outside ---- */

enum machine_state machine_state(const struct machine *m)
{
	if (atomic_load(&m->vm.request) != VM_REQ_NONE)
		return MACHINE_ENDING;
	if (pm_asleep(m->pc.pm))
		return MACHINE_ASLEEP;
	if (!m->running)
		return MACHINE_READY;
	return m->paused ? MACHINE_PAUSED : MACHINE_RUNNING;
}

const char *machine_state_name(enum machine_state state)
{
	static const char *const names[] = {
		[MACHINE_READY] = "ready",   [MACHINE_RUNNING] = "running", [MACHINE_PAUSED] = "paused",
		[MACHINE_ASLEEP] = "asleep", [MACHINE_ENDING] = "ending",
	};

	return names[state];
}

static int refuse(const struct machine *m, int code, struct err *err)
{
	return err_set(err, code, "'%s' is %s", m->vm.name, machine_state_name(machine_state(m)));
}

int machine_pause(struct machine *m, struct err *err)
{
	enum machine_state state = machine_state(m);

	if (state != MACHINE_RUNNING && state != MACHINE_PAUSED)
		return refuse(m, -ESHUTDOWN, err);
	if (m->pause_wanted)
		return err_set(err, -EALREADY, "'%s' is paused already", m->vm.name);
	if (state == MACHINE_RUNNING)
		stand_still(m);
	m->pause_wanted = true;
	return 0;
}

int machine_resume(struct machine *m, struct err *err)
{
	if (machine_state(m) == MACHINE_RUNNING)
		return err_set(err, -EALREADY, "'%s' is not paused", m->vm.name);
	if (machine_state(m) != MACHINE_PAUSED)
		return refuse(m, -ESHUTDOWN, err);
	if (!m->pause_wanted)
		return err_set(err, -EBUSY,
			       "'%s' is not paused, but stopped by its debugger; let it go on there",
			       m->vm.name);
	m->pause_wanted = false;
	if (!m->held)
		go_on(m);
	return 0;
}

void machine_hold(struct machine *m)
{
	if (machine_state(m) == MACHINE_RUNNING)
		stand_still(m);
	m->held = true;
}

void machine_release(struct machine *m)
{
	if (m->held && machine_state(m) == MACHINE_PAUSED && !m->pause_wanted)
		go_on(m);
	m->held = false;
}

/* What can be known before is checked before anything stops. */
static const struct engine_ops *other_engine(struct machine *m, const char *name, struct err *err)
{
	const struct engine_ops *to = engine_select(name, NULL, 0, err);

	if (m->vm.debug) {
		err_set(err, -EBUSY, "'%s' was started with --gdb, so its engine stays", m->vm.name);
		return NULL;
	}
	if (to == m->vm.engine) {
		err_set(err, -EALREADY, "'%s' runs on the %s engine already", m->vm.name, name);
		return NULL;
	}
	return !to || handover_check(&m->vm, to, err) ? NULL : to;
}

int machine_set_engine(struct machine *m, const char *name, struct err *err)
{
	bool paused = machine_state(m) == MACHINE_PAUSED;
	const struct engine_ops *to;
	struct err own = { 0 };
	int r;

	if (!paused && machine_state(m) != MACHINE_RUNNING)
		return refuse(m, -ESHUTDOWN, err);
	to = other_engine(m, name, &own);
	if (!to)
		return err_set(err, own.code, "%s", own.msg);
	r = paused ? 0 : machine_pause(m, err);
	if (r < 0)
		return r;
	r = handover_run(&m->vm, to, err);
	/* It may have come to its end meanwhile. */
	if (!paused && machine_state(m) == MACHINE_PAUSED)
		machine_resume(m, NULL);
	return r;
}

int machine_press_power(struct machine *m, struct err *err)
{
	if (machine_state(m) == MACHINE_PAUSED)
		return err_set(err, -EAGAIN,
			       "'%s' is paused, so its guest cannot see the power button; resume it first",
			       m->vm.name);
	if (machine_state(m) != MACHINE_RUNNING && machine_state(m) != MACHINE_ASLEEP)
		return refuse(m, -ESHUTDOWN, err);
	pm_power_button(m->pc.pm);
	return 0;
}

int machine_wake(struct machine *m, struct err *err)
{
	if (machine_state(m) == MACHINE_RUNNING || machine_state(m) == MACHINE_PAUSED)
		return err_set(err, -EALREADY, "'%s' is not asleep", m->vm.name);
	return machine_press_power(m, err);
}

static int request_if_alive(struct machine *m, enum vm_request request, struct err *err)
{
	if (machine_state(m) == MACHINE_ENDING)
		return refuse(m, -ESHUTDOWN, err);
	vm_request(&m->vm, request);
	return 0;
}

int machine_request_reset(struct machine *m, struct err *err)
{
	return request_if_alive(m, VM_REQ_RESET, err);
}

int machine_request_quit(struct machine *m, struct err *err)
{
	return request_if_alive(m, VM_REQ_QUIT, err);
}

const struct machine_config *machine_config(const struct machine *m)
{
	return &m->config;
}

struct vm *machine_vm(struct machine *m)
{
	return &m->vm;
}

const char *machine_engine_why(const struct machine *m)
{
	return m->engine_why;
}

void machine_free(struct machine *m)
{
	struct vm *vm;

	if (!m)
		return;
	vm = &m->vm;
	stop(m);
	display_close(m->display);
	device_free_all(vm);
	video_free_rom(&m->pc);
	/* What the guest was told is written is on the disk before the process ends. */
	for (unsigned i = 0; i < ARRAY_SIZE(m->disk); i++)
		disk_close(&m->disk[i]);
	for (unsigned i = 0; i < m->config.nr_shares && i < MACHINE_MAX_SHARES; i++)
		sharedir_close(&m->share[i]);
	if (m->vsock)
		m->vsock->ops->free(m->vsock);
	nic_close(&m->nic);
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		if (!vm->vcpu[i])
			continue;
		vm->engine->vcpu_fini(vm->vcpu[i]);
		free(vm->vcpu[i]);
	}
	if (m->engine_made)
		vm->engine->vm_fini(vm);
	for (unsigned i = 0; i < MACHINE_MAX_SERIALS; i++)
		chr_close(m->serial[i]);
	chr_close(m->console);
	ram_fini(&vm->ram);
	loop_free(vm->loop);
	if (m->lock_made)
		pthread_mutex_destroy(&vm->intc_lock);
	close_images(m);
	firmware_close(&m->firmware);
	free(m);
}
