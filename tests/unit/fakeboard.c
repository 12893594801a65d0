/* See fakeboard.h. */
#include "fakeboard.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dev/pci.h"
#include "vm/clock.h"

#define NEVER (~0ull)

struct clock_timer {
	struct clock_timer *next;
	pthread_mutex_t *lock;
	void (*fn)(void *opaque);
	void *opaque;
	u64 deadline; /* NEVER: not armed */
};

static struct board *board;
static struct clock_timer *timers;

/* ---- what the linker puts in place of the real ones ---- */

u64 __wrap_clock_now(struct vm *vm);
struct clock_timer *__wrap_clock_timer_new(struct vm *vm, pthread_mutex_t *lock, void (*fn)(void *opaque),
					   void *opaque);
void __wrap_clock_timer_free(struct clock_timer *t);
void __wrap_clock_timer_arm(struct clock_timer *t, u64 deadline);
void __wrap_clock_timer_cancel(struct clock_timer *t);
u64 __wrap_os_realtime_ns(void);
struct vcpu *__wrap_vcpu_self(void);

u64 __wrap_clock_now(struct vm *vm)
{
	return board->now;
}

struct clock_timer *__wrap_clock_timer_new(struct vm *vm, pthread_mutex_t *lock, void (*fn)(void *opaque),
					   void *opaque)
{
	struct clock_timer *t = calloc(1, sizeof(*t));

	assert(t);
	*t = (struct clock_timer){ timers, lock, fn, opaque, NEVER };
	timers = t;
	return t;
}

void __wrap_clock_timer_free(struct clock_timer *t)
{
	struct clock_timer **at = &timers;

	if (!t)
		return;
	while (*at != t) {
		assert(*at);
		at = &(*at)->next;
	}
	*at = t->next;
	free(t);
}

void __wrap_clock_timer_arm(struct clock_timer *t, u64 deadline)
{
	t->deadline = deadline;
}

void __wrap_clock_timer_cancel(struct clock_timer *t)
{
	t->deadline = NEVER;
}

u64 __wrap_os_realtime_ns(void)
{
	return board->realtime + board->now;
}

struct vcpu *__wrap_vcpu_self(void)
{
	return board->self;
}

/* ---- a controller that keeps the levels ---- */

static void set_gsi(void *opaque, unsigned gsi, bool level)
{
	struct board *b = opaque;

	if (level && !b->level[gsi])
		b->rises[gsi]++;
	b->level[gsi] = level;
}

static void msi(void *opaque, u64 addr, u32 data)
{
	struct board *b = opaque;

	b->msi_addr = addr;
	b->msi_data = data;
	b->msis++;
}

static int none(void *opaque, struct vcpu *vcpu)
{
	return -1;
}

static u64 get_cr8(void *opaque, struct vcpu *vcpu)
{
	return 0;
}

static void set_cr8(void *opaque, struct vcpu *vcpu, u64 cr8)
{
}

static const struct intc_ops intc_ops = {
	.set_gsi = set_gsi,
	.msi = msi,
	.pending = none,
	.ack = none,
	.get_cr8 = get_cr8,
	.set_cr8 = set_cr8,
};

/* ---- the board ---- */

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fake board: %s\n", what);
	abort();
}

void board_init(struct board *b, u64 ram_size, u32 nr_vcpus)
{
	board_init_rom(b, ram_size, 0, nr_vcpus);
}

void board_init_rom(struct board *b, u64 ram_size, u64 rom_size, u32 nr_vcpus)
{
	struct err err;

	memset(b, 0, sizeof(*b));
	must(!timers, "a timer was left behind");
	board = b;
	b->realtime = 1700000000ull * 1000000000ull; /* 2023-11-14 22:13:20 UTC, a Tuesday */
	b->vm.tsc_khz = 1000000;
	b->vm.cpuid.maxphyaddr = 40;
	memset(b->vm.cpuid.features, 0xff, sizeof(b->vm.cpuid.features)); /* all there are */
	pthread_mutex_init(&b->vm.intc_lock, NULL);
	b->vm.intc = &intc_ops;
	b->vm.intc_opaque = b;
	if (ram_size)
		must(ram_init_rom(&b->vm.ram, ram_size, rom_size, false, &err) == 0,
		     "no memory for the guest");
	b->vm.nr_vcpus = nr_vcpus;
	for (u32 i = 0; i < nr_vcpus; i++) {
		struct vcpu *v = aligned_alloc(64, ALIGN_UP(sizeof(struct vcpu), (size_t)64));

		must(v, "no memory for a vCPU");
		memset(v, 0, sizeof(*v));
		v->vm = &b->vm;
		v->id = i;
		v->timer_tsc = NEVER;
		b->vm.vcpu[i] = v;
	}
	log_set_level(LOG_ERROR);
}

void board_fini(struct board *b)
{
	device_free_all(&b->vm);
	must(!b->vm.bus.nr[BUS_PIO] && !b->vm.bus.nr[BUS_MMIO], "a device left a region behind");
	must(!b->vm.bus.nr_msr, "a device left MSRs behind");
	must(!timers, "a device left a timer behind");
	for (u32 i = 0; i < b->vm.nr_vcpus; i++)
		free(b->vm.vcpu[i]);
	if (b->vm.ram.base)
		ram_fini(&b->vm.ram);
	pthread_mutex_destroy(&b->vm.intc_lock);
}

struct device *board_add(struct board *b, const char *name, const struct device_conf *conf)
{
	const struct device_conf empty = { 0 };
	struct device *dev = NULL;
	struct err err;

	if (device_new(&b->vm, name, conf ? conf : &empty, &dev, &err) != 0)
		must(false, err.msg);
	return dev;
}

unsigned board_timers(void)
{
	unsigned n = 0;

	for (struct clock_timer *t = timers; t; t = t->next)
		n++;
	return n;
}

static struct clock_timer *earliest(void)
{
	struct clock_timer *first = NULL;

	for (struct clock_timer *t = timers; t; t = t->next) {
		if (t->deadline != NEVER && (!first || t->deadline < first->deadline))
			first = t;
	}
	return first;
}

u64 board_next_timer(void)
{
	struct clock_timer *t = earliest();

	return t ? t->deadline : NEVER;
}

void board_advance(struct board *b, u64 ns)
{
	u64 end = b->now + ns, still = 0;
	struct clock_timer *t;

	while ((t = earliest()) && t->deadline <= end) {
		still = t->deadline > b->now ? 0 : still + 1;
		must(still < 1000, "timers fire without end at one moment");
		b->now = MAX(b->now, t->deadline);
		t->deadline = NEVER;
		b->fired++;
		if (t->lock)
			pthread_mutex_lock(t->lock);
		t->fn(t->opaque);
		if (t->lock)
			pthread_mutex_unlock(t->lock);
	}
	b->now = end;
}

u64 board_pci_find(struct board *b, u32 class_code)
{
	for (u64 devfn = 0; devfn < 256; devfn++) {
		u64 ecam = PCI_ECAM_BASE + (devfn << 12);

		if (bus_read(&b->vm.bus, BUS_MMIO, ecam + PCI_REVISION, 4) >> 8 == class_code)
			return ecam;
	}
	must(false, "there is no PCI function of this class");
	return 0;
}

u8 board_inb(struct board *b, u16 port)
{
	return (u8)bus_read(&b->vm.bus, BUS_PIO, port, 1);
}

void board_outb(struct board *b, u16 port, u8 val)
{
	bus_write(&b->vm.bus, BUS_PIO, port, 1, val);
}

/* ---- a character back end ---- */

static size_t fake_write(struct chr *chr, const u8 *buf, size_t len)
{
	struct fake_chr *c = container_of(chr, struct fake_chr, chr);
	size_t n = MIN(len, c->room);

	for (size_t i = 0; i < n && c->out_len < sizeof(c->out); i++)
		c->out[c->out_len++] = buf[i];
	c->total += n;
	c->room -= n;
	return n;
}

static void fake_input_ready(struct chr *chr)
{
	container_of(chr, struct fake_chr, chr)->ready++;
}

static void fake_close(struct chr *chr)
{
}

static const struct chr_ops fake_ops = { fake_write, fake_input_ready, fake_close };

void fake_chr_init(struct fake_chr *c)
{
	memset(c, 0, sizeof(*c));
	c->chr.ops = &fake_ops;
	c->room = SIZE_MAX;
}

size_t fake_chr_type(struct fake_chr *c, const void *buf, size_t len)
{
	const u8 *p = buf;
	size_t done = 0;

	while (done < len && c->chr.can_input) {
		size_t n = MIN(c->chr.can_input(c->chr.opaque), len - done);

		if (!n)
			break;
		c->chr.on_input(c->chr.opaque, p + done, n);
		done += n;
	}
	return done;
}
