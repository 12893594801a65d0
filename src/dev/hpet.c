/* The High Precision Event Timer: a 100 MHz 64-bit counter and three comparators.
 *
 * Document: IA-PC HPET Specification 1.0a, cited as [HPET 2.x].
 *
 * How it works: the counter is guest time divided by 10 ns plus an offset, while enabled. For each timer
 * `due` is the guest time of its next match; one clock timer waits for the earliest. settle() fires what
 * is due, whether the clock timer or an access comes first. A one-shot timer matches when the counter
 * equals its comparator, so one that is set into the past matches after the counter has gone round [HPET
 * 2.3.9.2.1].
 *
 * Omitted, and why that is safe: FSB (message) interrupts are not among the capabilities; accesses of less
 * than 32 bits are undefined [HPET 2.2] and here read parts and write nothing.
 * DEVIATION: a periodic timer leaves out matches that come less than HPET_MIN_TICK ticks after the one
 * before, so that a guest cannot spend the host's time on nothing but timers; the comparator stays on its
 * grid.
 *
 * Threads: vCPUs under the device's lock, the clock timer on the main thread under the same lock.
 */
#include "dev/hpet.h"

#include <errno.h>

#include "base/bits.h"
#include "dev/intc.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/vm.h"

#define TICK_NS (HPET_PERIOD_FS / 1000000)
#define NEVER   (~0ull)

/* Registers [HPET 2.3.1] */
#define R_CAP     0x000
#define R_CONFIG  0x010
#define R_STATUS  0x020
#define R_COUNTER 0x0f0
#define R_TIMER   0x100 /* 20H bytes each */
#define T_CONFIG  0x00
#define T_COMPARE 0x08

#define CFG_ENABLE BIT(0)
#define CFG_LEGACY BIT(1)

#define T_LEVEL        BIT(1)
#define T_INT          BIT(2)
#define T_PERIODIC     BIT(3)
#define T_PERIODIC_CAP BIT(4)
#define T_SIZE_CAP     BIT(5)
#define T_VAL_SET      BIT(6)
#define T_32BIT        BIT(8)
#define T_ROUTE_SHIFT  9
#define T_ROUTE        (0x1full << T_ROUTE_SHIFT)

_Static_assert((HPET_ID >> 8 & 0x1f) == HPET_NR_TIMERS - 1, "the ID counts the timers");

struct hpet {
	struct device dev;
	struct region mmio;
	bool mmio_added;
	struct clock_timer *timer;

	u64 config, status;
	u64 counter; /* its value at `since`, or while halted */
	u64 since;   /* guest time */
	u64 tconfig[HPET_NR_TIMERS];
	u64 compare[HPET_NR_TIMERS];
	u64 period[HPET_NR_TIMERS]; /* the value last written to the comparator */
	u64 due[HPET_NR_TIMERS];    /* guest time, or NEVER */
	u32 lines;                  /* GSIs held high; derived */
	u32 isa_lines;              /* likewise in the legacy route */
};

static bool enabled(const struct hpet *h)
{
	return h->config & CFG_ENABLE;
}

static u64 counter_at(const struct hpet *h, u64 now)
{
	return enabled(h) ? h->counter + (now - h->since) / TICK_NS : h->counter;
}

static u64 width_mask(const struct hpet *h, unsigned n)
{
	return h->tconfig[n] & T_32BIT ? 0xffffffff : ~0ull;
}

/* Capabilities [HPET 2.3.8] */
static u64 timer_caps(unsigned n)
{
	return (u64)HPET_ROUTES << 32 | T_SIZE_CAP | (n == 0 ? T_PERIODIC_CAP : 0);
}

static u64 timer_writable(unsigned n)
{
	return T_LEVEL | T_INT | T_32BIT | T_ROUTE | (n == 0 ? T_PERIODIC | T_VAL_SET : 0);
}

static bool legacy(const struct hpet *h, unsigned n)
{
	return h->config & CFG_LEGACY && n < 2;
}

static unsigned isa_line(unsigned n)
{
	return n == 0 ? INTC_ISA_TIMER : INTC_ISA_RTC;
}

static unsigned route(const struct hpet *h, unsigned n)
{
	return (h->tconfig[n] & T_ROUTE) >> T_ROUTE_SHIFT;
}

static bool routed(const struct hpet *h, unsigned n)
{
	return HPET_ROUTES >> route(h, n) & 1;
}

/* Brings the level-triggered lines in step with status and configuration; two timers may share one. */
static void update_lines(struct hpet *h)
{
	u32 lines = 0, isa = 0;

	for (unsigned n = 0; n < HPET_NR_TIMERS; n++) {
		if ((h->tconfig[n] & (T_LEVEL | T_INT)) != (T_LEVEL | T_INT) || !(h->status >> n & 1))
			continue;
		if (legacy(h, n))
			isa |= 1u << isa_line(n);
		else if (routed(h, n))
			lines |= 1u << route(h, n);
	}
	for (unsigned gsi = 0; gsi < IRQ_NR_GSI; gsi++) {
		if ((lines ^ h->lines) >> gsi & 1)
			irq_set(h->dev.vm, gsi, lines >> gsi & 1);
		if ((isa ^ h->isa_lines) >> gsi & 1)
			intc_legacy_irq(h->dev.vm, gsi, isa >> gsi & 1);
	}
	h->lines = lines;
	h->isa_lines = isa;
}

static void fire(struct hpet *h, unsigned n)
{
	if (h->tconfig[n] &
	    T_LEVEL) { /* [HPET 2.3.6]: the status bit whether or not the interrupt is enabled */
		h->status |= BIT(n);
		update_lines(h);
	} else if (!(h->tconfig[n] & T_INT)) {
		return;
	} else if (legacy(h, n)) {
		intc_legacy_irq(h->dev.vm, isa_line(n), true);
		intc_legacy_irq(h->dev.vm, isa_line(n), false);
	} else if (routed(h, n)) {
		irq_pulse(h->dev.vm, route(h, n));
	}
}

/* The guest time `ticks` from t, NEVER when that is centuries away. */
static u64 ticks_after(u64 t, u64 ticks)
{
	return ticks < BIT(59) ? t + ticks * TICK_NS : NEVER;
}

/* Computes when the comparator matches next, now included. */
static void schedule(struct hpet *h, unsigned n)
{
	u64 now = clock_now(h->dev.vm);

	h->due[n] = enabled(h) ? ticks_after(now, (h->compare[n] - counter_at(h, now)) & width_mask(h, n))
			       : NEVER;
}

/* The match at due[n] has been: which is the next one after now? */
static void advance(struct hpet *h, unsigned n, u64 now)
{
	u64 period = h->period[n] & width_mask(h, n);

	if (!(h->tconfig[n] & T_PERIODIC) || period == 0) {
		u64 round = BIT(32) * TICK_NS;
		h->due[n] =
			h->tconfig[n] & T_32BIT ? h->due[n] + ((now - h->due[n]) / round + 1) * round : NEVER;
		return;
	}
	/* The first match on the grid that is at least the minimum from now. */
	u64 late = (now - h->due[n]) / TICK_NS + HPET_MIN_TICK;
	u64 periods = period >= late ? 1 : (late + period - 1) / period;
	h->compare[n] = (h->compare[n] + periods * period) & width_mask(h, n);
	/* periods * period is at most late + period. */
	h->due[n] = period < BIT(59) ? ticks_after(h->due[n], periods * period) : NEVER;
}

/* What a match without an interrupt leaves behind is caught up with when somebody looks; kernels leave such timers running. */
static void arm(struct hpet *h)
{
	u64 first = NEVER;

	for (unsigned n = 0; n < HPET_NR_TIMERS; n++)
		if (h->tconfig[n] & T_INT)
			first = MIN(first, h->due[n]);
	if (first == NEVER)
		clock_timer_cancel(h->timer);
	else
		clock_timer_arm(h->timer, first);
}

static void settle(struct hpet *h)
{
	u64 now = clock_now(h->dev.vm);

	for (unsigned n = 0; n < HPET_NR_TIMERS; n++) {
		if (h->due[n] > now)
			continue;
		advance(h, n, now);
		fire(h, n);
	}
}

static void hpet_tick(void *opaque)
{
	settle(opaque);
	arm(opaque);
}

static u64 reg_read(struct hpet *h, u64 reg)
{
	u64 n = (reg - R_TIMER) / 0x20;

	switch (reg) {
	case R_CAP: return (u64)HPET_PERIOD_FS << 32 | HPET_ID;
	case R_CONFIG: return h->config;
	case R_STATUS:
		settle(h);
		arm(h);
		return h->status;
	case R_COUNTER: return counter_at(h, clock_now(h->dev.vm));
	}
	if (reg < R_TIMER || n >= HPET_NR_TIMERS)
		return 0;
	switch (reg & 0x1f) {
	case T_CONFIG: return timer_caps((unsigned)n) | (h->tconfig[n] & ~T_VAL_SET);
	case T_COMPARE:
		settle(h);
		arm(h);
		return h->compare[n];
	default: return 0;
	}
}

static void config_write(struct hpet *h, u64 val)
{
	u64 now = clock_now(h->dev.vm), old = h->config;

	val &= CFG_ENABLE | CFG_LEGACY;
	if ((old ^ val) & CFG_LEGACY) {
		/* Lines are handed over low. */
		u64 status = h->status;
		h->status = 0;
		update_lines(h);
		h->config = val;
		intc_set_legacy(h->dev.vm, val & CFG_LEGACY);
		h->status = status;
		update_lines(h);
		h->config = old;
	}
	h->counter = counter_at(h, now);
	h->since = now;
	h->config = val;
	if ((old ^ val) & CFG_ENABLE)
		for (unsigned n = 0; n < HPET_NR_TIMERS; n++)
			schedule(h, n);
}

/* [HPET 2.3.8] */
static void tconfig_write(struct hpet *h, unsigned n, u64 val)
{
	u64 old = h->tconfig[n];

	val &= timer_writable(n);
	if (!(HPET_ROUTES >> ((val & T_ROUTE) >> T_ROUTE_SHIFT) & 1)) /* a route not offered does not stick */
		val = (val & ~T_ROUTE) | (old & T_ROUTE);
	if (!(val & T_PERIODIC))
		val &= ~T_VAL_SET;
	h->tconfig[n] = val;
	h->compare[n] &= width_mask(h, n);
	if ((old ^ val) & (T_32BIT | T_PERIODIC))
		schedule(h, n);
	update_lines(h);
}

/* In periodic mode every value written becomes the period, and the comparator itself
 * only when the guest has asked for that [HPET 2.3.9.2.2]. */
static void compare_write(struct hpet *h, unsigned n, u64 val, u64 mask)
{
	bool direct = !(h->tconfig[n] & T_PERIODIC) || h->tconfig[n] & T_VAL_SET;

	h->period[n] = ((h->period[n] & ~mask) | (val & mask)) & width_mask(h, n);
	if (direct) {
		h->compare[n] = ((h->compare[n] & ~mask) | (val & mask)) & width_mask(h, n);
		schedule(h, n);
	}
	h->tconfig[n] &= ~T_VAL_SET;
}

static void reg_write(struct hpet *h, u64 reg, u64 val, u64 mask)
{
	u64 n = (reg - R_TIMER) / 0x20, now;

	settle(h);
	switch (reg) {
	case R_CONFIG: config_write(h, (h->config & ~mask) | (val & mask)); break;
	case R_STATUS:
		h->status &= ~(val & mask);
		update_lines(h);
		break;
	case R_COUNTER:
		now = clock_now(h->dev.vm);
		h->counter = (counter_at(h, now) & ~mask) | (val & mask);
		h->since = now;
		for (unsigned i = 0; i < HPET_NR_TIMERS; i++)
			schedule(h, i);
		break;
	default:
		if (reg < R_TIMER || n >= HPET_NR_TIMERS)
			break;
		if ((reg & 0x1f) == T_CONFIG)
			tconfig_write(h, (unsigned)n, (h->tconfig[n] & ~mask) | (val & mask));
		else if ((reg & 0x1f) == T_COMPARE)
			compare_write(h, (unsigned)n, val, mask);
	}
	settle(h); /* a comparator set to this very tick */
	arm(h);
}

static u64 hpet_read(void *opaque, u64 offset, unsigned size)
{
	unsigned pos = offset & 7;

	if (pos + size > 8)
		return bits_mask(size);
	return reg_read(opaque, offset - pos) >> 8 * pos & bits_mask(size);
}

static void hpet_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	unsigned pos = offset & 7;

	if (size < 4 || offset & (size - 1))
		return;
	reg_write(opaque, offset - pos, val << 8 * pos, bits_mask(size) << 8 * pos);
}

static const struct region_ops hpet_ops = {
	.read = hpet_read,
	.write = hpet_write,
	.max_size = 8,
};

static int hpet_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct hpet *h = container_of(dev, struct hpet, dev);
	u64 base = conf->base ? conf->base : HPET_BASE;
	int r;

	h->timer = clock_timer_new(dev->vm, dev->lock, hpet_tick, h);
	if (!h->timer)
		return err_set(err, -ENOMEM, "no memory for the HPET's timer");
	h->mmio = (struct region){ "HPET", &hpet_ops, h, dev->lock, BUS_MMIO, base, HPET_SIZE };
	r = bus_add(&dev->vm->bus, &h->mmio);
	if (r < 0)
		return err_sys(err, r, "the HPET cannot be placed at %#llx", (unsigned long long)base);
	h->mmio_added = true;
	return 0;
}

static void hpet_reset(struct device *dev, enum reset_kind kind)
{
	struct hpet *h = container_of(dev, struct hpet, dev);

	pthread_mutex_lock(dev->lock);
	h->status = 0;
	update_lines(h);
	config_write(h, 0);
	h->counter = 0;
	h->since = 0;
	for (unsigned n = 0; n < HPET_NR_TIMERS; n++) {
		h->tconfig[n] = 0;
		h->compare[n] = ~0ull;
		h->period[n] = 0;
		h->due[n] = NEVER;
	}
	arm(h);
	pthread_mutex_unlock(dev->lock);
}

static const struct state_field hpet_state[] = {
	STATE_U64(hpet, config),  STATE_U64(hpet, status),   STATE_U64(hpet, counter),
	STATE_U64(hpet, since),   STATE_U64S(hpet, tconfig), STATE_U64S(hpet, compare),
	STATE_U64S(hpet, period), STATE_U64S(hpet, due),     STATE_END,
};

static int hpet_post_load(struct device *dev, struct err *err)
{
	struct hpet *h = container_of(dev, struct hpet, dev);
	const char *bad = NULL;

	pthread_mutex_lock(dev->lock);
	if (h->config & ~(CFG_ENABLE | CFG_LEGACY))
		bad = "config";
	if (h->status >> HPET_NR_TIMERS)
		bad = "status";
	if (h->since > clock_now(dev->vm))
		bad = "since";
	for (unsigned n = 0; n < HPET_NR_TIMERS; n++) {
		if (h->tconfig[n] & ~timer_writable(n))
			bad = "tconfig";
		else if (h->compare[n] & ~width_mask(h, n))
			bad = "compare";
		else if (!enabled(h) && h->due[n] != NEVER)
			bad = "due";
	}
	if (!bad) {
		intc_set_legacy(dev->vm, h->config & CFG_LEGACY);
		h->lines = 0;
		h->isa_lines = 0;
		update_lines(h);
		arm(h);
	}
	pthread_mutex_unlock(dev->lock);
	return bad ? err_set(err, -EINVAL, "the state of the HPET has an impossible value in %s", bad) : 0;
}

static void hpet_fini(struct device *dev)
{
	struct hpet *h = container_of(dev, struct hpet, dev);

	if (h->mmio_added)
		bus_del(&dev->vm->bus, &h->mmio);
	clock_timer_free(h->timer);
}

const struct device_ops hpet_device = {
	.name = "hpet",
	.size = sizeof(struct hpet),
	.init = hpet_init,
	.reset = hpet_reset,
	.state = hpet_state,
	.post_load = hpet_post_load,
	.fini = hpet_fini,
};
