/* bothy run: fills a struct machine_config from the options, builds the machine, stays in its main loop
 * until the guest ends, and says how it ended.
 *
 * Standard output is the guest's console (--serial stdio); whatever bothy itself has to say goes to
 * standard error. SIGINT, SIGTERM and SIGHUP are blocked in every thread and read from a signalfd on the
 * main loop, so that they end the VM in order: the vCPUs stop, the terminal is restored, files are closed.
 *
 * The exit table is composed while the machine still exists, and printed after the terminal is back to
 * normal.
 */
#include "cli/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#if HAVE_API
#include "api/machine_api.h"
#include "api/runtime.h"
#endif
#include "base/loop.h"
#include "cli/opts_file.h"
#include "gdb/gdb.h"
#include "machine/machine.h"
#include "vm/device.h"
#include "vm/exit.h"
#include "vm/vm.h"

#define STATUS_QUIT   130 /* Ctrl-a x */
#define STATUS_SIGNAL 128 /* plus the signal's number */

struct run_options {
	struct machine_config config;
	const char *exits;    /* NULL, "table" or "json" */
	const char *api;      /* NULL, "none" or a path */
	const char *gdb;      /* NULL, or as gdb_open() */
	const char *timeline; /* NULL, "text", "json" or the name of a picture */
	char *config_text;    /* of --config */
	bool print_config;
};

struct signals {
	struct vm *vm;
	int fd;
	int caught; /* the first signal that came, 0: none */
	struct loop_fd *handle;
	sigset_t old_mask;
	bool blocked;
};

static const char *engine_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "auto", "kvm where it is the faster one, else soft" },
		{ "soft", "bothy's own software engine" },
		{ "kvm", "hardware virtualization through /dev/kvm" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *cpu_choice(unsigned i, const char **ret_help)
{
	return cpuid_model_names[i];
}

static const char *device_choice(unsigned i, const char **ret_help)
{
	for (const struct device_ops *const *type = device_types; *type; type++) {
		if (!(*type)->help)
			continue;
		if (!i--) {
			*ret_help = (*type)->help;
			return (*type)->name;
		}
	}
	return NULL;
}

static const char *firmware_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "bios", "SeaBIOS, as the distribution has it" },
		{ "uefi", "OVMF, as the distribution has it" },
		{ "FILE", "an image of up to 16 MiB, which ends at 4 GiB" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *serial_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "stdio", "this terminal" },
		{ "file:PATH", "output into a file" },
		{ "pty", "a new pseudo-terminal, whose name is printed" },
		{ "unix:PATH", "a Unix socket made there, for up to eight clients" },
		{ "none", "connected to nothing" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *vga_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "std", "a VGA with a linear frame buffer, for which every system has a driver" },
		{ "none", "no display adapter" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *display_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "none", "nowhere" },
		{ "text", "its text in this terminal, whose keys are the guest's keyboard" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *net_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "user", "the host's network through this process, as an ordinary program uses it" },
		{ "tap=NAME", "a TAP interface of the host, which an administrator has made" },
		{ "none", "no adapter" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *timeline_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "text", "a table" },
		{ "json", "the same for programs" },
		{ "FILE.svg", "a picture, into that file" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *gdb_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ ":PORT", "a TCP port, for programs of this host only" },
		{ "HOST:PORT", "a TCP port at that numeric address of this host" },
		{ "unix:PATH", "a Unix socket, for this user only" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const char *exits_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "table", "json" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const struct opt run_opts[] = {
	{
		.name = "engine",
		.kind = OPT_STRING,
		.arg = "ENGINE",
		.help = "What executes the guest.",
		.more = "Settings may follow, as in soft,translate=off. For soft: translate=on|off - whether code that "
			"runs often is translated, or all is interpreted (on); lockstep=on|off - also interpret what is "
			"translated, and stop at the first difference, with one processor (off); pic=on|off - all user code is translated for any address, not just that of pages met at several (off); perf-map=on|off - name translated code for "
			"perf, in /tmp/perf-PID.map (off); cache=MIB - memory for code that was decoded and translated, 20 MiB at least, "
			"taken as the guest needs it and given back when it idles (0, a quarter of the guest's memory, at "
			"most 224 MiB); warm=N - after how many executions code is translated, and 21 "
			"times as many later anew by what was learnt (0, the engine's own choice). For kvm: "
			"ioeventfd=on|off - what a virtio driver has for its device is taken by the kernel and done by the main "
			"thread, while the guest goes on (off); "
			"irqfd=on|off - interrupts that are messages, such as those of virtio, go to the host's KVM by eventfd, where the "
			"local APICs are its, and not with irqchip=user (off); "
			"nested=on|off - the guest's processor has SVM or VMX, as the host's KVM offers it, so that the guest can run guests (off); "
			"irqchip=auto|user|split|full - whose interrupt controllers the guest has: bothy's (user), the faster local "
			"APICs of the host's KVM with bothy's 8259A and I/O APIC (split), or all of KVM's (full) (auto, split where the host "
			"offers it).",
		.choice = engine_choice,
		.free_form = true,
		.default_text = "auto",
		.offset = offsetof(struct run_options, config.engine),
	},
	{
		.name = "cpus",
		.kind = OPT_U32,
		.arg = "N",
		.help = "How many processors the guest has.",
		.default_text = "1",
		.min = 1,
		.max = VM_MAX_VCPUS,
		.offset = offsetof(struct run_options, config.cpus),
	},
	{
		.name = "affinity",
		.kind = OPT_STRING,
		.arg = "LIST",
		.help = "Where the guest's processors run: VCPU=CPU or VCPU=FIRST-LAST of the host, several after commas, as "
			"in 0=1,1=2-3. Those that are not named run wherever this process may.",
		.offset = offsetof(struct run_options, config.affinity),
	},
	{
		.name = "memory",
		.kind = OPT_SIZE,
		.arg = "SIZE",
		.help = "How much memory the guest has, in bytes or with K, M, G or T.",
		.default_text = "512M",
		.min = MACHINE_MIN_MEMORY,
		.max = MACHINE_MAX_MEMORY,
		.offset = offsetof(struct run_options, config.memory),
	},
	{
		.name = "balloon",
		.kind = OPT_STRING,
		.arg = "SIZE",
		.help = "A balloon, through which the guest gives memory back to the host: SIZE at first, 0 for none yet.",
		.more = "Settings may follow. deflate-on-oom=on|off - the guest may take memory back before it has to kill a "
			"program (on); reporting=on|off - it also gives back what is free for the moment (on); "
			"packed=on|off - offer packed rings (off).",
		.offset = offsetof(struct run_options, config.balloon),
	},
	{
		.name = "cpu",
		.kind = OPT_STRING,
		.arg = "MODEL",
		.help = "The processor that the guest sees.",
		.choice = cpu_choice,
		.default_text = "host",
		.offset = offsetof(struct run_options, config.cpu_model),
	},
	{
		.name = "kernel",
		.kind = OPT_STRING,
		.arg = "FILE",
		.help = "What to boot: a Linux bzImage, an ELF image with a PVH entry, or a Multiboot image; without, firmware "
			"boots a disk.",
		.is_file = true,
		.offset = offsetof(struct run_options, config.kernel),
	},
	{
		.name = "firmware",
		.kind = OPT_STRING,
		.arg = "FIRMWARE",
		.help = "The firmware that boots the machine, where there is no kernel.",
		.choice = firmware_choice,
		.free_form = true,
		.is_file = true,
		.default_text = "bios, where there is a disk or CD-ROM and no kernel",
		.offset = offsetof(struct run_options, config.firmware),
	},
	{
		.name = "boot",
		.kind = OPT_STRING,
		.arg = "ORDER",
		.help = "From what firmware boots, in this order: disk, cdrom, net, some of them, after commas.",
		.more = "With net a BIOS gets iPXE, which asks the network.",
		.default_text = "disk,cdrom,net",
		.offset = offsetof(struct run_options, config.boot),
	},
	{
		.name = "firmware-vars",
		.kind = OPT_STRING,
		.arg = "FILE",
		.help = "Where UEFI firmware keeps its variables; made from the firmware's template where there is no such file. "
			"Without, they last as long as the machine.",
		.is_file = true,
		.offset = offsetof(struct run_options, config.firmware_vars),
	},
	{
		.name = "initrd",
		.kind = OPT_LIST,
		.arg = "FILE",
		.help = "The initial RAM disk; for a Multiboot image each one is a module, and what follows its "
			"name behind a space is for whom it is.",
		.max_count = MACHINE_MAX_INITRDS,
		.is_file = true,
		.offset = offsetof(struct run_options, config.initrd),
		.count_offset = offsetof(struct run_options, config.nr_initrds),
	},
	{
		.name = "append",
		.kind = OPT_STRING,
		.arg = "TEXT",
		.help = "The kernel's command line.",
		.offset = offsetof(struct run_options, config.append),
	},
	{
		.name = "serial",
		.kind = OPT_LIST,
		.arg = "WHERE",
		.help = "What the guest's first serial port is connected to; given again, there is a second, up to COM4.",
		.choice = serial_choice,
		.free_form = true,
		.default_text = "stdio",
		.max_count = MACHINE_MAX_SERIALS,
		.offset = offsetof(struct run_options, config.serial),
		.count_offset = offsetof(struct run_options, config.nr_serials),
	},
	{
		.name = "vga",
		.kind = OPT_STRING,
		.arg = "KIND",
		.help = "The guest's display adapter.",
		.more = "With none the guest has one device less to look for, and nothing to show: its console is a serial port's or the "
			"virtio console.",
		.choice = vga_choice,
		.default_text = "std",
		.offset = offsetof(struct run_options, config.vga),
	},
	{
		.name = "display",
		.kind = OPT_STRING,
		.arg = "WHERE",
		.help = "Where the guest's screen is shown.",
		.more = "With --display text the first serial port is connected to nothing unless --serial says otherwise. bothy "
			"screen shows it too.",
		.choice = display_choice,
		.default_text = "none",
		.offset = offsetof(struct run_options, config.display),
	},
	{
		.name = "console",
		.kind = OPT_STRING,
		.arg = "WHERE",
		.help = "A virtio console (hvc0), faster than the serial port, and what it is connected to.",
		.more = "With --console stdio the serial port is connected to nothing unless --serial says otherwise.",
		.choice = serial_choice,
		.free_form = true,
		.default_text = "there is none",
		.offset = offsetof(struct run_options, config.console),
	},
	{
		.name = "net",
		.kind = OPT_STRING,
		.arg = "NET",
		.help = "What the guest's network adapter is connected to.",
		.more = "Settings may follow user: hostfwd=tcp:ADDR:PORT-:PORT - a port of the host leads to one of the guest "
			"(udp too; may be repeated); mac=ADDRESS - the adapter's (random); mtu=N - the largest packet (65520); packed=on|off - offer packed rings (off). The "
			"guest is 10.0.2.15, the host 10.0.2.2, the name server 10.0.2.3. A tap takes mac and packed; its MTU is "
			"the interface's.",
		.choice = net_choice,
		.free_form = true,
		.default_text = "user",
		.offset = offsetof(struct run_options, config.net),
	},
	{
		.name = "disk",
		.kind = OPT_LIST,
		.arg = "FILE",
		.help = "A disk: a file or block device with its contents, which one machine at a time may write.",
		.more = "Settings may follow the name, in which two commas stand for one. bus=virtio|ahci|nvme - the adapter that the "
			"guest sees it on (virtio); format=raw|qcow2 - how the disk lies in "
			"the file (raw; a file that looks otherwise is refused without, since a guest could have made it so); "
			"backing=on|off - whether files that a qcow2 image names as its base may be read (off); ro - read-only; id=ID - the disk's serial "
			"number; iops=N, bw=SIZE - at most so many requests, bytes per second; queues=N - queues for "
			"requests (as many as processors); aio=io_uring|threads - how the file is accessed (io_uring where the "
			"host allows it); packed=on|off - offer packed rings (off).",
		.max_count = MACHINE_MAX_DISKS,
		.is_file = true,
		.offset = offsetof(struct run_options, config.disk),
		.count_offset = offsetof(struct run_options, config.nr_disks),
	},
	{
		.name = "cdrom",
		.kind = OPT_LIST,
		.arg = "FILE",
		.help = "A CD-ROM drive with this image of a disc (ISO 9660 or any other) in it, on an AHCI adapter.",
		.more = "Settings may follow as with --disk: id, iops, bw, aio.",
		.max_count = MACHINE_MAX_CDROMS,
		.is_file = true,
		.offset = offsetof(struct run_options, config.cdrom),
		.count_offset = offsetof(struct run_options, config.nr_cdroms),
	},
	{
		.name = "share",
		.kind = OPT_LIST,
		.arg = "TAG=DIR",
		.help = "A folder of this host, which the guest mounts with: mount -t virtiofs TAG /mnt.",
		.more = "Settings may follow the name, in which two commas stand for one. ro - read-only; cache=auto|always|none - how "
			"long the guest believes what it knows: names and attributes for a second and contents until a file is opened "
			"again (auto), for ever, as nobody else changes the folder, or not at all; uid=N, gid=N - where bothy is not "
			"root: whose the files of its own user and group are in the guest (0), those of others being nobody's; "
			"packed=on|off - offer packed rings (off). What the guest makes belongs to its users' numbers where "
			"bothy is root, and else to bothy's user.",
		.max_count = MACHINE_MAX_SHARES,
		.offset = offsetof(struct run_options, config.share),
		.count_offset = offsetof(struct run_options, config.nr_shares),
	},
	{
		.name = "vsock",
		.kind = OPT_STRING,
		.arg = "cid=N,path=SOCK",
		.help = "Sockets between the guest, whose address is N (3 or more), and programs of this host.",
		.more = "A program that connects to the Unix socket SOCK and writes CONNECT PORT and a newline reaches the guest's port, "
			"once it has read OK and a number. What the guest connects to at address 2 and PORT is who listens at the Unix "
			"socket SOCK_PORT. packed=on|off - offer packed rings (off).",
		.offset = offsetof(struct run_options, config.vsock),
	},
	{
		.name = "device",
		.kind = OPT_LIST,
		.arg = "NAME",
		.help = "A further device, for test kernels.",
		.choice = device_choice,
		.max_count = MACHINE_MAX_DEVICES,
		.offset = offsetof(struct run_options, config.device),
		.count_offset = offsetof(struct run_options, config.nr_devices),
	},
	{
		.name = "name",
		.kind = OPT_STRING,
		.arg = "NAME",
		.help = "The machine's name: for bothy ps, stop, console and so on, and in messages. No other machine that "
			"runs may have it.",
		.default_text = "vm- and the process's number",
		.offset = offsetof(struct run_options, config.name),
	},
	{
		.name = "no-reboot",
		.kind = OPT_FLAG,
		.help = "End where the guest would reboot.",
		.offset = offsetof(struct run_options, config.no_reboot),
	},
	{
		.name = "exits",
		.kind = OPT_STRING,
		.arg = "FORMAT",
		.help = "At the end, print on standard error how often and how long the guest left its own code, by reason.",
		.choice = exits_choice,
		.optional = "table",
		.default_text = "table",
		.offset = offsetof(struct run_options, exits),
	},
	{
		.name = "timeline",
		.kind = OPT_STRING,
		.arg = "FORMAT",
		.help = "At the end, print on standard error when the guest's boot came how far; or draw it.",
		.choice = timeline_choice,
		.free_form = true,
		.optional = "text",
		.default_text = "text",
		.offset = offsetof(struct run_options, timeline),
	},
	{
		.name = "api",
		.kind = OPT_STRING,
		.arg = "PATH",
		.help = "A further place for the control socket, besides the machine's runtime folder; none: the machine has no "
			"control socket and is in no list.",
		.is_file = true,
		.offset = offsetof(struct run_options, api),
	},
	{
		.name = "gdb",
		.kind = OPT_STRING,
		.arg = "ADDR",
		.help = "Let gdb debug the guest, with 'target remote ADDR'.",
		.choice = gdb_choice,
		.free_form = true,
		.more = "Who can connect there has the guest in hand. Settings may follow. wait - stand still before the first "
			"instruction until gdb lets it go on; bits=16|32|64 - what kind of code gdb is told that this is (64). "
			"Breakpoints and watchpoints, of which there are 1024 and 64, are not seen by the guest; a step is one "
			"instruction, and interrupts wait meanwhile. In 16- and 32-bit code the program counter is the linear "
			"address. 'monitor help' lists more.",
		.offset = offsetof(struct run_options, gdb),
	},
	{
		.name = "config",
		.kind = OPT_CONFIG,
		.arg = "FILE",
		.more = "An option that may be repeated has a line each time, a flag is on or off, a value in double quotes keeps "
			"its spaces, and lines that begin with # are skipped.",
		.help = "Take options from a file: a line NAME = VALUE for each, without the dashes. Those on the command line come "
			"before those of the file.",
		.is_file = true,
		.offset = offsetof(struct run_options, config_text),
	},
	{
		.name = "print-config",
		.kind = OPT_FLAG,
		.help = "Print the options as a file for --config, and end.",
		.not_in_file = true,
		.offset = offsetof(struct run_options, print_config),
	},
	{ .name = NULL },
};

/* What of a machine can be seen and reached from other processes. */
struct outside {
#if HAVE_API
	struct runtime runtime;
	struct machine_api *api;
#endif
	const char *name;
	int dir; /* for sockets, 0: none */
};

#if HAVE_API
static int outside_open(struct outside *o, const struct run_options *options, struct err *err)
{
	const char *name = options->config.name;
	int rc = name ? runtime_check_name("--name", name, err) : 0;

	*o = (struct outside){ .runtime = { .base = -1, .dir = -1, .lock = -1 }, .name = name };
	if (rc || (options->api && !strcmp(options->api, "none")))
		return rc;
	rc = runtime_open(name, &o->runtime, err);
	/* Who did not ask for a name gets the machine anyway. */
	if (rc && !name && !options->api) {
		fprintf(stderr, "bothy: the machine has no control socket: %s\n", err->msg);
		*err = (struct err){ 0 };
		return 0;
	}
	if (rc)
		return rc;
	o->name = o->runtime.name;
	o->dir = o->runtime.dir;
	return 0;
}

static int outside_serve(struct outside *o, struct machine *machine, const char *path, struct err *err)
{
	return o->dir ? machine_api_open(machine, &o->runtime, path, &o->api, err) : 0;
}

static void outside_end(struct outside *o)
{
	machine_api_close(o->api);
	o->api = NULL;
}

static void outside_close(struct outside *o)
{
	runtime_close(&o->runtime);
}
#else
static int outside_open(struct outside *o, const struct run_options *options, struct err *err)
{
	*o = (struct outside){ .name = options->config.name };
	if (options->api && strcmp(options->api, "none") != 0)
		return err_set(err, -ENOTSUP, "--api: this bothy was built without libmicrohttpd or jansson");
	return 0;
}

static int outside_serve(struct outside *o, struct machine *machine, const char *path, struct err *err)
{
	return 0;
}

static void outside_end(struct outside *o)
{
}

static void outside_close(struct outside *o)
{
}
#endif

static void on_signal(void *opaque, u32 events)
{
	struct signals *s = opaque;
	struct signalfd_siginfo info;
	int signo;

	if (read(s->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	signo = (int)info.ssi_signo;
	if (!s->caught)
		s->caught = signo;
	vm_request(s->vm, VM_REQ_QUIT);
}

/* To be called before any thread is made, so that all of them inherit the mask. */
static int signals_block(struct signals *s, struct err *err)
{
	sigset_t mask;

	*s = (struct signals){ .fd = -1 };
	/* A reader of our output that goes away is an error of write(), not the end of the guest. */
	signal(SIGPIPE, SIG_IGN);
	/* Nor is a disk's file that may not grow: the guest gets an I/O error. */
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &mask, &s->old_mask);
	s->blocked = true;
	s->fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->fd < 0 ? err_sys(err, -errno, "cannot make a signalfd") : 0;
}

static int signals_watch(struct signals *s, struct vm *vm, struct err *err)
{
	s->vm = vm;
	return loop_fd_add(vm->loop, s->fd, EPOLLIN, on_signal, s, &s->handle, err);
}

static void signals_fini(struct signals *s)
{
	loop_fd_del(s->handle);
	if (s->fd >= 0)
		close(s->fd);
	if (s->blocked)
		pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
}

static void print_exits(struct vm *vm, FILE *out)
{
	exit_print(vm, EXIT_ALL_VCPUS, out);
}

static void print_exits_json(struct vm *vm, FILE *out)
{
	exit_print_json(vm, EXIT_ALL_VCPUS, out);
}

/* What print prints, as text; free(). NULL where memory is short. */
static char *compose(void (*print)(struct vm *vm, FILE *out), struct vm *vm)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	print(vm, out);
	fclose(out);
	return text;
}

/* The file of --timeline FILE.svg, opened before the guest runs for hours. */
static int open_picture(const char *timeline, FILE **ret_file, struct err *err)
{
	size_t len = timeline ? strlen(timeline) : 0;

	if (!timeline || !strcmp(timeline, "text") || !strcmp(timeline, "json"))
		return 0;
	if (len < 5 || strcmp(timeline + len - 4, ".svg") != 0)
		return err_set(err, -EINVAL,
			       "--timeline: '%s' is neither text nor json nor a file name that ends in .svg",
			       timeline);
	*ret_file = fopen(timeline, "we");
	return *ret_file ? 0 : err_sys(err, -errno, "--timeline: cannot write '%s'", timeline);
}

static int boot(const struct machine_config *config, const struct run_options *options,
		struct outside *outside, struct signals *signals, struct err *err)
{
	struct machine *machine = NULL;
	struct gdb *gdb = NULL;
	char *exits = NULL, *timeline = NULL;
	bool quit = false;
	int status = MACHINE_FAILED;
	FILE *picture = NULL;
	int rc = open_picture(options->timeline, &picture, err);

	if (!rc)
		rc = machine_new(config, &machine, err);
	if (rc) {
		if (picture)
			fclose(picture);
		return rc;
	}
	if (machine_engine_why(machine)[0])
		fprintf(stderr, "bothy: %s\n", machine_engine_why(machine));
	rc = signals_watch(signals, machine_vm(machine), err);
	if (!rc)
		rc = outside_serve(outside, machine, options->api, err);
	if (!rc && options->gdb)
		rc = gdb_open(machine, options->gdb, &gdb, err);
	if (!rc)
		rc = machine_run(machine, &status, err);
	/* A debug-exit device may give the same number as MACHINE_QUIT. */
	quit = !rc && atomic_load(&machine_vm(machine)->request) == VM_REQ_QUIT;
	if (!rc && options->exits)
		exits = compose(strcmp(options->exits, "json") ? print_exits : print_exits_json,
				machine_vm(machine));
	if (!rc && options->timeline && !picture)
		timeline = compose(strcmp(options->timeline, "json") ? timeline_print : timeline_print_json,
				   machine_vm(machine));
	if (!rc && picture)
		timeline_print_svg(machine_vm(machine), picture);
	if (picture && fclose(picture) != 0 && !rc)
		rc = err_sys(err, -errno, "--timeline: cannot write '%s'", options->timeline);
	gdb_close(gdb, status);
	outside_end(outside);
	loop_fd_del(signals->handle);
	signals->handle = NULL;
	machine_free(machine);
	if (exits)
		fputs(exits, stderr);
	if (timeline)
		fputs(timeline, stderr);
	free(exits);
	free(timeline);
	if (rc)
		return rc;
	if (quit)
		return signals->caught ? STATUS_SIGNAL + signals->caught : STATUS_QUIT;
	return status;
}

static int run_machine(const struct run_options *options, struct err *err)
{
	struct machine_config config = options->config;
	struct outside outside;
	struct signals signals;
	/* First, so that no signal leaves the runtime folder behind. */
	int rc = signals_block(&signals, err);

	if (!rc)
		rc = outside_open(&outside, options, err);
	if (!rc) {
		config.name = outside.name;
		config.socket_dir = outside.dir;
		rc = boot(&config, options, &outside, &signals, err);
		outside_close(&outside);
	}
	signals_fini(&signals);
	return rc;
}

static int run(const struct command *command, int argc, char **argv, struct err *err)
{
	struct run_options options = { 0 };
	int rc = opts_parse(run_opts, argc, argv, &options, err);

	if (!rc && options.print_config)
		opts_file_print(run_opts, &options, stdout);
	else if (!rc)
		rc = run_machine(&options, err);
	free(options.config_text);
	return rc;
}

const struct command run_command = {
	.name = "run",
	.summary = "boot a virtual machine and stay with it until it ends",
	.synopsis = "[OPTIONS] --kernel FILE",
	.about =
		"Builds a PC, loads the kernel and its initial RAM disk, and executes it. The guest's first serial "
		"port is this terminal unless --serial says otherwise.",
	.keys = "Ctrl-a x\tend the machine at once\n"
		"Ctrl-a h\tlist the keys\n"
		"Ctrl-a b\tsend a break to the guest\n"
		"Ctrl-a Ctrl-a\tsend one Ctrl-a to the guest\n",
	.status = "0\tthe guest powered off, or rebooted with --no-reboot\n"
		  "1\tan option or the host is at fault; one sentence on standard error says what\n"
		  "2\tthe guest crashed (triple fault); its registers are on standard error\n"
		  "130\tended with Ctrl-a x, or by bothy kill\n"
		  "128+N\tended by signal N (SIGINT, SIGTERM or SIGHUP)\n"
		  "2N+1\tthe guest wrote N to --device debug-exit\n",
	.example =
		"  bothy run --kernel vmlinuz --initrd initrd.gz --append console=ttyS0\n"
		"  bothy run --memory 1G --cpus 2 --kernel vmlinuz --initrd initrd.gz --disk disk.img,id=root\n"
		"  bothy run --memory 1G --exits --kernel vmlinuz --initrd initrd.gz\n"
		"  bothy run --config vm.conf --name web --serial none\n"
		"  bothy run --kernel test.flat --device debug-exit --serial stdio\n",
	.opts = run_opts,
	.run = run,
};
