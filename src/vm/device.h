/* A device: one struct, one table of functions, one line in dev/devices.def. */
#pragma once

#include <pthread.h>

#include "base/err.h"
#include "base/types.h"
#include "vm/state.h"

struct vm;
struct device;
struct chr;
struct block;
struct block_conf;
struct net;
struct balloon_conf;
struct ata_conf;
struct fs;
struct vsock;

/* Where the board puts it and what it is connected to. Each device reads what concerns it. */
struct device_conf {
	const char *id;  /* unique in the VM, e.g. "com1"; NULL: the device's name */
	u64 base;        /* first port or MMIO address */
	unsigned gsi;    /* interrupt line */
	unsigned index;  /* vCPU number, unit number, ... */
	struct chr *chr; /* character back end, NULL: none */
	/* Disks: what holds the contents, and how the guest sees it (NULL: defaults); both live as long as the device. */
	struct block *block;
	const struct block_conf *block_conf;
	/* Drives of an adapter for several, by port; NULL: none. What they name lives as long as the device. */
	const struct ata_conf *ata;
	struct net *net; /* network back end, NULL: no cable; lives as long as the device */
	const u8 *mac;   /* its address, 6 bytes */
	const struct balloon_conf *balloon; /* NULL: defaults; lives as long as the device */
	/* A PCI function: its option ROM, which lives as long as the device; NULL: none. */
	const u8 *rom;
	size_t rom_len;
	struct fs *fs;       /* what serves a shared folder; lives as long as the device */
	struct vsock *vsock; /* the host's end of the guest's sockets; lives as long as the device */
	bool packed;         /* virtio: offers packed rings */
};

enum reset_kind {
	RESET_COLD, /* power on */
	RESET_WARM, /* the reset line: everything but what the datasheet says survives */
	RESET_SLEEP, /* power off in ACPI's S3: as RESET_COLD, but for what has power there, or what firmware finds in memory */
};

/* A figure; the name is of lower-case letters, digits and underscores. */
struct device_stat {
	const char *name;
	u64 value;
};
#define DEVICE_MAX_STATS 16

struct device_ops {
	const char *name; /* in devices.def, on the command line */
	const char *help; /* one line; NULL: not for --device */
	size_t size;      /* of the device's struct, whose first member is struct device */
	/* Main thread, vCPUs not running. Adds regions and timers. On failure fini() follows. */
	int (*init)(struct device *dev, const struct device_conf *conf, struct err *err);
	/* vCPUs not running. Called once after init too. Idempotent. */
	void (*reset)(struct device *dev, enum reset_kind kind);
	/* The machine is paused, before the state is read: finishes what is on its way, begins nothing more by itself, and leaves
	 * the guest's memory alone. resume: takes up what was left. Main thread, vCPUs and clock stand still. NULL: nothing to
	 * do, for devices that act by vCPUs and clock timers only. A reset ends it too. */
	void (*quiesce)(struct device *dev);
	void (*resume)(struct device *dev);
	/* What it has counted, into rows; how many. Any thread, figures may be slightly old; NULL: nothing. */
	unsigned (*stats)(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS]);
	const struct state_field *state; /* NULL: stateless */
	/* Checks and completes what was loaded (arms timers, drives lines); NULL: nothing to check. */
	int (*post_load)(struct device *dev, struct err *err);
	/* Undoes init; accepts a half-built object (zeroed where init did not get to). */
	void (*fini)(struct device *dev);
};

struct device {
	const struct device_ops *ops;
	struct vm *vm;
	struct device *next; /* in vm->devices, in order of creation */
	char id[32];
	pthread_mutex_t own_lock;
	pthread_mutex_t *lock; /* own_lock, or vm->intc_lock for interrupt controllers (set in init) */
};

/* Creates, initializes, resets and links; the VM frees it. -ENOENT for an unknown name with the known
 * ones listed. */
int device_new(struct vm *vm, const char *name, const struct device_conf *conf, struct device **ret_dev,
	       struct err *err);
void device_free_all(struct vm *vm); /* in reverse order of creation */
void device_reset_all(struct vm *vm, enum reset_kind kind);
void device_quiesce_all(struct vm *vm);
void device_resume_all(struct vm *vm);
struct device *device_find(struct vm *vm, const char *id);

/* All device types, NULL-terminated; the array is made from dev/devices.def. */
extern const struct device_ops *const device_types[];
