/* A whole virtual machine: builds it from a plain description, runs it, takes it apart.
 *
 * All functions are for the main thread. Signals are the caller's: it turns them into
 * vm_request(machine_vm(m), VM_REQ_QUIT), for instance with a signalfd on machine_vm(m)->loop.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct machine;
struct vm;

#define MACHINE_MAX_INITRDS 32
#define MACHINE_MAX_DEVICES 16
#define MACHINE_MAX_DISKS   16
#define MACHINE_MAX_SERIALS 4
#define MACHINE_MAX_CDROMS  4
#define MACHINE_MAX_SHARES  8

/* What to build. All strings are the caller's and must live as long as the machine; NULL means the
 * default, which is named with each member. */
struct machine_config {
	const char *name;      /* "bothy" */
	const char *engine;    /* "auto"; as engine_conf_parse() */
	u32 cpus;              /* 0: 1; at most VM_MAX_VCPUS */
	const char *affinity;  /* as affinity_parse(); NULL: any processor of the host */
	u64 memory;            /* bytes; 0: MACHINE_DEFAULT_MEMORY */
	const char *balloon;   /* as balloon_parse(); NULL: none */
	const char *cpu_model; /* "host" */
	const char *kernel;    /* NULL: firmware boots; bzImage, ELF with a PVH entry, or Multiboot image */
	const char *
		firmware; /* as firmware_open(); NULL: "bios" where there is a disk or CD-ROM and no kernel */
	const char *firmware_vars;               /* where UEFI variables are kept; NULL: nowhere */
	const char *boot;                        /* as bootorder_parse() */
	const char *initrd[MACHINE_MAX_INITRDS]; /* Linux, PVH: at most one; Multiboot: the modules */
	unsigned nr_initrds;
	const char *append; /* "" */
	/* COM1 on; of the first: "stdio" unless console or display is; as chr_open(): stdio, file:PATH, pty, unix:PATH, none */
	const char *serial[MACHINE_MAX_SERIALS];
	unsigned nr_serials;
	const char *vga;     /* "std"; none: no display adapter */
	const char *display; /* "none"; text: the screen's text on this terminal */
	const char *console; /* NULL: no virtio console; as chr_open(). One of the two can be stdio */
	const char *device[MACHINE_MAX_DEVICES]; /* names for --device */
	unsigned nr_devices;
	const char *net;                     /* as nic_open(); NULL: user, where there is one */
	const char *disk[MACHINE_MAX_DISKS]; /* as disk_open() */
	unsigned nr_disks;
	const char *cdrom[MACHINE_MAX_CDROMS]; /* as disk_open_cdrom() */
	unsigned nr_cdroms;
	const char *share[MACHINE_MAX_SHARES]; /* as sharedir_open() */
	unsigned nr_shares;
	const char *vsock; /* as vsock_open(); NULL: none */
	bool no_reboot;    /* a guest that resets the machine ends it, with status 0 */
	/* A folder in which sockets of the consoles are made, "serial.sock" and "console.sock", as chr_share_open(); a
	 * descriptor of the caller's, 0: none. */
	int socket_dir;
};

#define MACHINE_DEFAULT_MEMORY (512 * MiB)
#define MACHINE_MIN_MEMORY     (4 * MiB)
#define MACHINE_MAX_MEMORY     (64 * GiB)

/* How machine_run() ends, as an exit status of the process. A debug-exit device gives its own. */
enum machine_status {
	MACHINE_POWEROFF = 0, /* the guest powered off, or reset with no_reboot */
	MACHINE_FAILED = 1,   /* an option or the host: for the caller's use, never from machine_run() */
	MACHINE_CRASHED = 2,  /* triple fault; the description went to standard error */
	MACHINE_QUIT = 3,     /* VM_REQ_QUIT: Ctrl-a x, or a signal that the caller turned into it */
};

/* Checks the description, reads the images, builds everything; nothing executes yet. */
int machine_new(const struct machine_config *config, struct machine **ret_machine, struct err *err);

/* Starts the vCPUs and runs the main loop until the VM ends; a reset starts it over (devices reset, RAM
 * cleared, images loaded again) unless no_reboot. The vCPUs have stopped when it returns. Once per machine.
 */
int machine_run(struct machine *machine, int *ret_status, struct err *err);

struct vm *machine_vm(struct machine *machine);
const struct machine_config *machine_config(const struct machine *machine); /* with defaults filled in */

enum machine_state {
	MACHINE_READY, /* built, or between a stop and a start */
	MACHINE_RUNNING,
	MACHINE_PAUSED,
	MACHINE_ASLEEP, /* the guest has suspended it to RAM (ACPI S3) */
	MACHINE_ENDING, /* something was asked of vm_request() and comes next: an end or a reset */
};
enum machine_state machine_state(const struct machine *machine);
const char *machine_state_name(enum machine_state state); /* one word, lower case */

/* For callbacks of the loop in machine_run(). A paused machine stands still: vCPUs are parked, guest time and the TSC stop,
 * disks have finished what was on its way, frames from the network wait, and memory does not change. What the host sends
 * meanwhile is taken up at the resume. A reset ends a pause. -EALREADY, -ESHUTDOWN with a sentence where the state is another.
 * Pausing takes as long as the longest disk request on its way. */
int machine_pause(struct machine *machine, struct err *err);
int machine_resume(struct machine *machine, struct err *err);
/* For a debugger, besides pause and resume: the machine runs when neither holds it. A hold before machine_run(), or over a reset,
 * is one before the first instruction. Any state of the machine is allowed, and twice is once. */
void machine_hold(struct machine *machine);
void machine_release(struct machine *machine);
/* Presses the power button: the guest may power off, or not look; one that sleeps wakes. -EAGAIN while paused. */
int machine_press_power(struct machine *machine, struct err *err);
/* Wakes a machine that sleeps, by its power button; -EALREADY where it does not sleep. */
int machine_wake(struct machine *machine, struct err *err);
/* vm_request() for RESET or QUIT from outside; -ESHUTDOWN where one is under way. */
int machine_request_reset(struct machine *machine, struct err *err);
int machine_request_quit(struct machine *machine, struct err *err);

/* Moves a running or paused machine to the engine `name`, soft or kvm, without the guest noticing more than a pause;
 * afterwards it runs, or is paused, as before. Refused before the pause where it is on that one already (-EALREADY), the
 * host does not have it, or it lacks a feature that the guest was promised (-ENOTSUP). */
int machine_set_engine(struct machine *machine, const char *name, struct err *err);

/* One line on why this engine was taken; empty when it was asked for by name. */
const char *machine_engine_why(const struct machine *machine);

/* Stops what runs, restores the terminal, frees everything; NULL is allowed. */
void machine_free(struct machine *machine);
