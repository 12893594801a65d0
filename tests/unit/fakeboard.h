/* A machine without processors and without real time, for tests of devices.
 *
 * Devices are driven through the bus as a guest would; guest time and the host's time of day stand still
 * until board_advance() moves both and fires the device timers in order. The functions of vm/clock.h,
 * os_realtime_ns() and vcpu_self() are replaced by the linker (--wrap, see meson.build). Everything runs on
 * one thread.
 */
#pragma once

#include "base/types.h"
#include "vm/backend.h"
#include "vm/device.h"
#include "vm/irq.h"
#include "vm/vm.h"

struct board {
	struct vm vm;
	u64 now;                /* guest time, ns */
	u64 realtime;           /* host's time of day at guest time 0, ns since 1970 */
	u64 fired;              /* timer callbacks so far */
	bool level[IRQ_NR_GSI]; /* interrupt lines, unless a test installs a controller of its own */
	unsigned rises[IRQ_NR_GSI];
	u64 msi_addr; /* messages: the last one, how many */
	u32 msi_data;
	unsigned msis;
	struct vcpu *self; /* what vcpu_self() says */
};

/* One board at a time. ram_size 0: none. nr_vcpus processors that do not run. */
void board_init(struct board *b, u64 ram_size, u32 nr_vcpus);
/* With firmware ROM. */
void board_init_rom(struct board *b, u64 ram_size, u64 rom_size, u32 nr_vcpus);

/* Frees the devices and fails the test if they leave regions, MSRs or timers behind. */
void board_fini(struct board *b);

/* device_new() that must succeed. */
struct device *board_add(struct board *b, const char *name, const struct device_conf *conf);

void board_advance(struct board *b, u64 ns);
unsigned board_timers(void); /* that exist */
u64 board_next_timer(void);  /* guest time of the next one armed, ~0: none */

/* The configuration space (in ECAM) of the first function of this class, 24 bits; aborts where there is none. */
u64 board_pci_find(struct board *b, u32 class_code);

u8 board_inb(struct board *b, u16 port);
void board_outb(struct board *b, u16 port, u8 val);

/* A character back end that takes `room` bytes. */
struct fake_chr {
	struct chr chr;
	u8 out[4096];
	size_t out_len; /* further output is counted only */
	size_t total;
	size_t room;
	unsigned ready; /* calls of input_ready */
};

void fake_chr_init(struct fake_chr *c);
/* What was typed; returns how much of it the device took. */
size_t fake_chr_type(struct fake_chr *c, const void *buf, size_t len);
