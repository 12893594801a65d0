/* The boot as the machine sees it: when each of a few events came first, since the last reset.
 *
 * Who sees an event calls timeline_note(). That costs one comparison; what has happened, and what this kind of boot does not have,
 * is not wanted any more. So nothing of this is left once a guest has its first process. Any thread.
 *
 * A boot through firmware goes from the top to the bottom of the list. One of a kernel that is loaded directly begins with the
 * kernel; firmware's part is not wanted then. Start-up IPIs, HLT and so on that firmware itself makes before the kernel is entered
 * are not what is meant by their names.
 */
#pragma once

#include <stdatomic.h>
#include <stdio.h>

#include "base/types.h"

struct vm;
struct vcpu;

/* X(NAME, "name in JSON", "for people") in the order of a boot. */
#define TIMELINE_EVENTS(X)                                                      \
	X(RESET, "cpu_reset", "CPU reset")                                      \
	X(FIRMWARE, "first_firmware_instruction", "first firmware instruction") \
	X(MEMORY, "memory_detected", "memory detected")                         \
	X(PCI, "pci_bus_probed", "PCI bus probed")                              \
	X(BOOT_SECTOR, "boot_sector_read", "boot sector read")                  \
	X(SECOND_STAGE, "second_stage_loader", "second-stage loader")           \
	X(KERNEL, "kernel_entry", "kernel entry")                               \
	X(SIPI, "first_startup_ipi", "first start-up IPI")                      \
	X(LAST_CPU, "last_cpu_online", "last CPU on line")                      \
	X(IDLE, "first_idle", "first idle (HLT)")                               \
	X(PROCESS, "first_process", "first process")

/* clang-format off */
enum timeline_event {
#define TIMELINE_ENUM_(NAME, json, text) TIMELINE_##NAME,
	TIMELINE_EVENTS(TIMELINE_ENUM_)
#undef TIMELINE_ENUM_
	TIMELINE_NR
};
/* clang-format on */

struct timeline_mark {
	u64 ns;    /* of the host, since the reset */
	u64 insns; /* begun by all vCPUs since the machine was made; at least so many unless exact */
	u64 exits; /* likewise, all of them */
	bool exact, counted; /* counted: the engine knows of instructions at all */
	int vcpu;            /* on whose thread; -1: no vCPU's */
};

struct timeline {
	_Atomic u32 wanted; /* bits of enum timeline_event */
	_Atomic u32 seen;   /* whose mark is complete */
	bool direct;        /* no firmware */
	_Atomic u64 online; /* vCPUs started since the kernel was entered, by number */
	u64 base_ns;        /* os_now_ns() of the reset */
	u64 insns_at_reset, exits_at_reset;
	u32 resets; /* how many there were before */
	struct timeline_mark mark[TIMELINE_NR];
};

void timeline_happened(struct vm *vm, enum timeline_event event);

/* No macro of struct vm here: vm.h includes this. */
static inline bool timeline_wants(const struct timeline *t, enum timeline_event event)
{
	return atomic_load_explicit(&t->wanted, memory_order_relaxed) >> event & 1;
}
#define timeline_note(vm, event)                                      \
	do {                                                          \
		if (unlikely(timeline_wants(&(vm)->timeline, event))) \
			timeline_happened(vm, event);                 \
	} while (0)

/* Main thread, no vCPU runs: a reset. direct: the kernel is loaded without firmware. */
void timeline_begin(struct vm *vm, bool direct);
/* The first vCPU's thread is about to execute its first instruction; a vCPU takes a start-up IPI. */
void timeline_first(struct vcpu *vcpu);
void timeline_started(struct vcpu *vcpu);
/* A disk is read at this byte: block.h's on_read, with the struct vm. */
bool timeline_disk_read(void *opaque, u64 offset);

/* Any thread. As a table, as JSON, as a picture. */
void timeline_print(struct vm *vm, FILE *out);
void timeline_print_json(struct vm *vm, FILE *out);
void timeline_print_svg(struct vm *vm, FILE *out);
