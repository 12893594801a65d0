/* The 8254 programmable interval timer at ports 40H-43H, and port 61H, through which software opens
 * the gate of channel 2 and sees its output.
 *
 * Documents: Intel 8254 data sheet (231164), cited as [8254 <heading>]; [PIIX4 4.2.4.1] (Intel 290562) for
 * port 61H.
 *
 * How it works: nothing counts. Guest time is converted to ticks of the 1.193182 MHz clock since the VM
 * started; a channel remembers at which tick its counting element held which count, and everything else -
 * the count read back, OUT, the next edge - is computed from the difference. So nothing drifts, and a
 * read costs the same after an hour as after a microsecond.
 *
 * Per mode, with n the count and k the ticks since the counting element was loaded:
 *
 *	mode  OUT                            loaded at the tick after       gate low
 *	0     high from k = n                the write                      holds the count
 *	1     low for k < n                  a trigger (gate rising)        no effect
 *	2     low at k = n - 1               the write, then each n ticks   stops, OUT high; rising reloads
 *	3     high for half of n, then low   the write, then each half      stops, OUT high; rising reloads
 *	4     low at k = n                   the write                      holds the count
 *	5     low at k = n                   a trigger                      no effect
 *
 * sync() brings a channel to the present: in modes 2 and 3 it moves `start` to the beginning of the period or
 * half period that runs now, and lets a count that was written meanwhile (pending) take over at its end.
 * Gates of channels 0 and 1 are tied high, so their modes 1 and 5 never trigger.
 *
 * Interrupts: each rising edge of channel 0 becomes a low-high pair on the line, from a timer that is armed
 * for the tick of the next edge. Edges closer together than PIT_MIN_EDGE_NS are merged, and so are edges that
 * pass while the host is late, so that no programming costs the host more than one timer callback per 100 us;
 * reads stay exact.
 *
 * Omitted, and why that is safe: in modes 2 to 4 the line of channel 0 is not lowered when OUT falls but just
 * before it rises, which an edge-triggered input cannot tell; channel 1 refreshes no memory and the speaker
 * makes no sound; the parity and channel-check bits of port 61H read as no error.
 *
 * Threads: vCPUs, and the main thread for the timer; always under the device's lock.
 */
#include <errno.h>
#include <string.h>

#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/vm.h"

#define PIT_PORT        0x40
#define PIT_HZ          1193182ull
#define PIT_NS          1000000000ull
#define PIT_MIN_EDGE_NS 100000ull
#define PIT_REFRESH_NS  15085ull /* half a period of the refresh toggle: 18 ticks */
#define PIT_NEVER       (~0ull)
#define PIT_MAX_COUNT   65536u

#define PORT61         0x61
#define PORT61_GATE2   0x01
#define PORT61_KEPT    0x0f /* gate, speaker, and the two check-enable bits read back */
#define PORT61_REFRESH 0x10
#define PORT61_OUT2    0x20

#define RW_LSB  1
#define RW_MSB  2
#define RW_BOTH 3

struct pit {
	struct device dev;
	struct region counters, port61_region;
	struct clock_timer *timer;
	unsigned gsi;
	bool line; /* as driven last */
	/* Per channel. */
	u8 ctrl[3];        /* the control word's low six bits: RW, mode, BCD */
	u8 low_byte[3];    /* first byte of a two-byte count */
	bool write_msb[3]; /* its second byte is due */
	bool read_msb[3];
	u16 latch[3];
	u8 latched[3]; /* bytes of the latch still to be read */
	u8 status[3];
	bool status_latched[3];
	bool gate[3];
	u32 cr[3];         /* the count register, 1..65536; 0: no count since the control word */
	u32 n[3];          /* the count in use; 0: none */
	bool pending[3];   /* cr waits for the end of the period (modes 2, 3) or for a trigger (1, 5) */
	bool null[3];      /* the null count flag: cr has not reached the counting element */
	bool triggered[3]; /* modes 1, 5 */
	bool high[3];      /* mode 3: the half that runs since start is the high one */
	bool held[3];      /* not counting; k is elapsed */
	u64 start[3];      /* tick at which the counting element held n */
	u64 elapsed[3];
	u8 port61;
	u64 edge;        /* tick of the next rising edge of channel 0, or PIT_NEVER */
	u64 quiet_until; /* guest time before which none is delivered */
};

static u64 tick_of(u64 ns)
{
	return (u64)((unsigned __int128)ns * PIT_HZ / PIT_NS);
}

/* The first nanosecond that belongs to the tick. */
static u64 ns_of(u64 tick)
{
	return (u64)(((unsigned __int128)tick * PIT_NS + PIT_HZ - 1) / PIT_HZ);
}

static unsigned mode_of(const struct pit *pit, unsigned c)
{
	unsigned mode = pit->ctrl[c] >> 1 & 7;

	return mode > 5 ? mode - 4
			: mode; /* the top bit does not count in modes 2 and 3 [8254 Control Word Format] */
}

static unsigned rw_of(const struct pit *pit, unsigned c)
{
	return pit->ctrl[c] >> 4 & 3;
}

static u32 modulus(const struct pit *pit, unsigned c)
{
	return pit->ctrl[c] & 1 ? 10000 : 65536;
}

static u32 from_bcd(u16 v)
{
	return (v & 15u) + 10 * (v >> 4 & 15u) + 100 * (v >> 8 & 15u) + 1000 * (v >> 12 & 15u);
}

static u16 to_bcd(u32 v)
{
	return (u16)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

/* Ticks of one half of mode 3; at least 1, so that the illegal count of 1 gives a period of 2. */
static u32 half(u32 n, bool high)
{
	return high ? (n + 1) / 2 : MAX(n / 2, 1u);
}

/* k, the ticks since the counting element was loaded. */
static u64 counted(const struct pit *pit, unsigned c, u64 now)
{
	if (pit->held[c])
		return pit->elapsed[c];
	return now > pit->start[c] ? now - pit->start[c] : 0;
}

static void take_pending(struct pit *pit, unsigned c)
{
	if (!pit->pending[c])
		return;
	pit->n[c] = pit->cr[c];
	pit->pending[c] = false;
}

static void sync(struct pit *pit, unsigned c, u64 now)
{
	u64 k = counted(pit, c, now);
	unsigned mode = mode_of(pit, c);

	if (!pit->n[c])
		return;
	if (!pit->held[c] && mode == 2 && k >= pit->n[c]) {
		pit->start[c] += pit->n[c];
		take_pending(pit, c);
		pit->start[c] += (now - pit->start[c]) / pit->n[c] * pit->n[c];
	} else if (!pit->held[c] && mode == 3 && k >= half(pit->n[c], pit->high[c])) {
		pit->start[c] += half(pit->n[c], pit->high[c]);
		pit->high[c] = !pit->high[c];
		take_pending(pit, c);
		u64 period = (u64)half(pit->n[c], true) + half(pit->n[c], false);
		pit->start[c] += (now - pit->start[c]) / period * period;
		if (now - pit->start[c] >= half(pit->n[c], pit->high[c])) {
			pit->start[c] += half(pit->n[c], pit->high[c]);
			pit->high[c] = !pit->high[c];
		}
	}
	if (!pit->pending[c] && now >= pit->start[c])
		pit->null[c] = false;
}

/* OUT; sync() first. */
static bool out(const struct pit *pit, unsigned c, u64 now)
{
	u64 k = counted(pit, c, now);
	u32 n = pit->n[c];

	switch (mode_of(pit, c)) {
	case 0: return n && !pit->write_msb[c] && k >= n;
	case 1: return !(pit->triggered[c] && k < n);
	case 2: return !n || pit->held[c] || k != n - 1;
	case 3: return !n || pit->held[c] || pit->high[c];
	case 4: return !n || pit->held[c] || k != n;
	default: return !(pit->triggered[c] && k == n);
	}
}

/* The counting element as software reads it; sync() first. */
static u16 count(const struct pit *pit, unsigned c, u64 now)
{
	u64 k = counted(pit, c, now);
	u32 n = pit->n[c], m = modulus(pit, c), val;

	if (!n)
		val = pit->cr[c];
	else if (mode_of(pit, c) == 3)
		val = (u32)MAX((s64)(n & ~1u) - 2 * (s64)k,
			       0); /* by twos, an odd count less one [8254 Mode 3] */
	else
		val = (u32)((n + m - k % m) % m); /* modes 0, 1, 4, 5 go on below zero */
	val %= m;
	return pit->ctrl[c] & 1 ? to_bcd(val) : (u16)val;
}

/* The tick of channel 0's next rising edge; sync() first. */
static u64 next_edge(const struct pit *pit, u64 now)
{
	u64 start = pit->start[0], edge;
	u32 n = pit->n[0];

	if (!n || pit->held[0])
		return PIT_NEVER;
	switch (mode_of(pit, 0)) {
	case 0: edge = start + n; break;
	case 2: edge = start + n; break;
	case 3:
		edge = start + half(n, pit->high[0]);
		if (pit->high[0])
			edge += half(pit->pending[0] ? pit->cr[0] : n, false);
		break;
	case 4: edge = start + n + 1; break;
	default: return PIT_NEVER;
	}
	return edge > now ? edge : PIT_NEVER;
}

static void drive(struct pit *pit, bool level)
{
	if (pit->line == level)
		return;
	pit->line = level;
	irq_set(pit->dev.vm, pit->gsi, level);
}

static void plan(struct pit *pit, u64 now)
{
	sync(pit, 0, now);
	pit->edge = next_edge(pit, now);
	if (pit->edge == PIT_NEVER)
		clock_timer_cancel(pit->timer);
	else
		clock_timer_arm(pit->timer, MAX(ns_of(pit->edge), pit->quiet_until));
}

/* Delivers the edge that is due, if any. */
static void deliver(struct pit *pit, u64 ns)
{
	if (tick_of(ns) < pit->edge || ns < pit->quiet_until)
		return;
	pit->quiet_until = ns + PIT_MIN_EDGE_NS;
	drive(pit, false);
	drive(pit, true);
	plan(pit, tick_of(ns));
}

static void pit_timer(void *opaque)
{
	struct pit *pit = opaque;
	u64 ns = clock_now(pit->dev.vm);

	if (pit->edge == PIT_NEVER)
		return;
	deliver(pit, ns);
	plan(pit, tick_of(ns));
}

static void set_gate(struct pit *pit, unsigned c, bool level, u64 now)
{
	unsigned mode = mode_of(pit, c);

	sync(pit, c, now);
	if (level == pit->gate[c])
		return;
	pit->gate[c] = level;
	if (mode == 1 || mode == 5) {
		if (!level || !pit->cr[c])
			return;
		pit->n[c] = pit->cr[c];
		pit->pending[c] = false;
		pit->triggered[c] = true;
		pit->start[c] = now + 1;
	} else if (!pit->n[c] || (mode == 0 && pit->write_msb[c])) {
		return; /* waits for a count */
	} else if (!level) {
		pit->elapsed[c] = counted(pit, c, now);
		pit->held[c] = true;
	} else if (mode == 0 || mode == 4) {
		pit->held[c] = false;
		pit->start[c] = now - MIN(pit->elapsed[c], now);
	} else {
		take_pending(pit, c);
		pit->held[c] = false;
		pit->high[c] = true;
		pit->start[c] = now + 1;
	}
}

/* A whole count has been written. */
static void load(struct pit *pit, unsigned c, u16 val, u64 now)
{
	unsigned mode = mode_of(pit, c);
	u32 n = pit->ctrl[c] & 1 ? from_bcd(val) : val;

	pit->cr[c] = n ? n : modulus(pit, c);
	pit->null[c] = true;
	if (mode == 1 || mode == 5 || ((mode == 2 || mode == 3) && pit->n[c])) {
		pit->pending[c] = true;
		return;
	}
	pit->n[c] = pit->cr[c];
	pit->start[c] = now + 1;
	pit->high[c] = true;
	pit->held[c] = !pit->gate[c];
	pit->elapsed[c] = 0;
}

static void write_count(struct pit *pit, unsigned c, u8 val, u64 now)
{
	switch (rw_of(pit, c)) {
	case RW_LSB: load(pit, c, val, now); return;
	case RW_MSB: load(pit, c, (u16)(val << 8), now); return;
	default: break;
	}
	if (pit->write_msb[c]) {
		pit->write_msb[c] = false;
		load(pit, c, (u16)(pit->low_byte[c] | val << 8), now);
		return;
	}
	pit->low_byte[c] = val;
	pit->write_msb[c] = true;
	/* The first byte stops mode 0 at once [8254 Mode 0]. */
	if (mode_of(pit, c) == 0 && pit->n[c] && !pit->held[c]) {
		pit->elapsed[c] = counted(pit, c, now);
		pit->held[c] = true;
	}
}

static void latch_count(struct pit *pit, unsigned c, u64 now)
{
	if (pit->latched[c])
		return;
	pit->latch[c] = count(pit, c, now);
	pit->latched[c] = rw_of(pit, c) == RW_BOTH ? 2 : 1;
}

static void latch_status(struct pit *pit, unsigned c, u64 now)
{
	if (pit->status_latched[c])
		return;
	pit->status[c] = (u8)(out(pit, c, now) << 7 | pit->null[c] << 6 | pit->ctrl[c]);
	pit->status_latched[c] = true;
}

static void write_control(struct pit *pit, u8 val, u64 now)
{
	unsigned c = val >> 6;

	if (c == 3) {
		/* Read-back: bits 5 and 4 ask, low, for count and status [8254 Read-Back Command]. */
		for (c = 0; c < 3; c++) {
			if (!(val & 2u << c))
				continue;
			sync(pit, c, now);
			if (!(val & 0x20))
				latch_count(pit, c, now);
			if (!(val & 0x10))
				latch_status(pit, c, now);
		}
		return;
	}
	if (!(val & 0x30)) {
		sync(pit, c, now);
		latch_count(pit, c, now);
		return;
	}
	pit->ctrl[c] = val & 0x3f;
	pit->write_msb[c] = false;
	pit->read_msb[c] = false;
	pit->latched[c] = 0;
	pit->status_latched[c] = false;
	pit->cr[c] = 0;
	pit->n[c] = 0;
	pit->pending[c] = false;
	pit->null[c] = true;
	pit->triggered[c] = false;
	pit->held[c] = false;
}

static u8 read_counter(struct pit *pit, unsigned c, u64 now)
{
	if (pit->status_latched[c]) {
		pit->status_latched[c] = false;
		return pit->status[c];
	}
	if (pit->latched[c]) {
		bool msb = rw_of(pit, c) == RW_MSB || (rw_of(pit, c) == RW_BOTH && pit->latched[c] == 1);

		pit->latched[c]--;
		return (u8)(msb ? pit->latch[c] >> 8 : pit->latch[c]);
	}
	sync(pit, c, now);

	u16 val = count(pit, c, now);
	bool msb = rw_of(pit, c) == RW_MSB || (rw_of(pit, c) == RW_BOTH && pit->read_msb[c]);

	if (rw_of(pit, c) == RW_BOTH)
		pit->read_msb[c] = !pit->read_msb[c];
	return (u8)(msb ? val >> 8 : val);
}

static u64 pit_read(void *opaque, u64 offset, unsigned size)
{
	struct pit *pit = opaque;

	/* The control word register cannot be read. */
	return offset == 3 ? 0xff : read_counter(pit, (unsigned)offset, tick_of(clock_now(pit->dev.vm)));
}

static void pit_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pit *pit = opaque;
	u64 ns = clock_now(pit->dev.vm);
	u64 now = tick_of(ns);

	/* An edge that is due counts, even if this write puts an end to its cause. */
	deliver(pit, ns);
	if (offset == 3) {
		write_control(pit, (u8)val, now);
	} else {
		sync(pit, (unsigned)offset, now);
		write_count(pit, (unsigned)offset, (u8)val, now);
	}
	if (offset == 0 || (offset == 3 && !(val & 0xc0) && (val & 0x30))) {
		drive(pit, out(pit, 0, now));
		plan(pit, now);
	}
}

static u64 port61_read(void *opaque, u64 offset, unsigned size)
{
	struct pit *pit = opaque;
	u64 ns = clock_now(pit->dev.vm);
	u8 val = pit->port61;

	sync(pit, 2, tick_of(ns));
	if (out(pit, 2, tick_of(ns)))
		val |= PORT61_OUT2;
	if (ns / PIT_REFRESH_NS & 1)
		val |= PORT61_REFRESH;
	return val;
}

static void port61_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pit *pit = opaque;

	pit->port61 = val & PORT61_KEPT;
	set_gate(pit, 2, val & PORT61_GATE2, tick_of(clock_now(pit->dev.vm)));
}

static const struct region_ops pit_region_ops = { .read = pit_read, .write = pit_write, .max_size = 1 };
static const struct region_ops port61_ops = { .read = port61_read, .write = port61_write, .max_size = 1 };

static int pit_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pit *pit = container_of(dev, struct pit, dev);
	u64 port = conf->base ? conf->base : PIT_PORT;
	int ret;

	pit->gsi = conf->gsi;
	pit->edge = PIT_NEVER;
	pit->timer = clock_timer_new(dev->vm, dev->lock, pit_timer, pit);
	pit->counters = (struct region){ "8254 timer", &pit_region_ops, pit, dev->lock, BUS_PIO, port, 4 };
	pit->port61_region = (struct region){ "port 61H", &port61_ops, pit, dev->lock, BUS_PIO, PORT61, 1 };
	ret = bus_add(&dev->vm->bus, &pit->counters);
	if (!ret)
		ret = bus_add(&dev->vm->bus, &pit->port61_region);
	return ret ? err_sys(err, ret, "cannot place the timer 8254 at its ports") : 0;
}

static void pit_reset(struct device *dev, enum reset_kind kind)
{
	struct pit *pit = container_of(dev, struct pit, dev);

	/* The data sheet leaves the state undefined until programmed: here nothing counts then, so that an
	 * idle guest which never uses the timer costs no wake-ups. Mode 0 keeps OUT low. */
	for (unsigned c = 0; c < 3; c++) {
		write_control(pit, (u8)(c << 6 | RW_BOTH << 4), 0);
		pit->low_byte[c] = 0;
		pit->latch[c] = 0;
		pit->status[c] = 0;
		pit->gate[c] = c != 2;
		pit->high[c] = false;
		pit->start[c] = 0;
		pit->elapsed[c] = 0;
	}
	pit->port61 = 0;
	pit->edge = PIT_NEVER;
	pit->quiet_until = 0;
	clock_timer_cancel(pit->timer);
	drive(pit, false);
}

static int pit_post_load(struct device *dev, struct err *err)
{
	struct pit *pit = container_of(dev, struct pit, dev);
	u64 now = tick_of(clock_now(dev->vm));

	for (unsigned c = 0; c < 3; c++) {
		if (pit->ctrl[c] > 0x3f || !rw_of(pit, c) || pit->latched[c] > 2 ||
		    pit->n[c] > PIT_MAX_COUNT || pit->cr[c] > PIT_MAX_COUNT || (pit->n[c] && !pit->cr[c]) ||
		    (pit->pending[c] && !pit->cr[c]))
			return err_set(err, -EINVAL,
				       "the state of 8254 channel %u holds values the chip cannot have", c);
		/* The clock is set before devices load: a count cannot have begun in the future. */
		pit->start[c] = MIN(pit->start[c], now + 1);
		pit->elapsed[c] = MIN(pit->elapsed[c], now);
	}
	pit->port61 &= PORT61_KEPT;
	pit->quiet_until = MIN(pit->quiet_until, clock_now(dev->vm) + PIT_MIN_EDGE_NS);
	/* An edge may have been due when the state was saved; none is further off than two periods. */
	if (pit->edge != PIT_NEVER && pit->edge > now + 2 * PIT_MAX_COUNT)
		plan(pit, now);
	if (pit->edge != PIT_NEVER)
		clock_timer_arm(pit->timer, MAX(ns_of(pit->edge), pit->quiet_until));
	irq_set(dev->vm, pit->gsi, pit->line);
	return 0;
}

static void pit_fini(struct device *dev)
{
	struct pit *pit = container_of(dev, struct pit, dev);

	clock_timer_free(pit->timer);
	bus_del(&dev->vm->bus, &pit->counters);
	bus_del(&dev->vm->bus, &pit->port61_region);
}

static const struct state_field pit_state[] = {
	STATE_BOOL(pit, line),
	STATE_U8S(pit, ctrl),
	STATE_U8S(pit, low_byte),
	STATE_FIELD_(pit, write_msb, 3, STATE_BOOL_),
	STATE_FIELD_(pit, read_msb, 3, STATE_BOOL_),
	STATE_U16S(pit, latch),
	STATE_U8S(pit, latched),
	STATE_U8S(pit, status),
	STATE_FIELD_(pit, status_latched, 3, STATE_BOOL_),
	STATE_FIELD_(pit, gate, 3, STATE_BOOL_),
	STATE_U32S(pit, cr),
	STATE_U32S(pit, n),
	STATE_FIELD_(pit, pending, 3, STATE_BOOL_),
	STATE_FIELD_(pit, null, 3, STATE_BOOL_),
	STATE_FIELD_(pit, triggered, 3, STATE_BOOL_),
	STATE_FIELD_(pit, high, 3, STATE_BOOL_),
	STATE_FIELD_(pit, held, 3, STATE_BOOL_),
	STATE_U64S(pit, start),
	STATE_U64S(pit, elapsed),
	STATE_U8(pit, port61),
	STATE_U64(pit, edge),
	STATE_U64(pit, quiet_until),
	STATE_END,
};

const struct device_ops pit_device = {
	.name = "pit",
	.size = sizeof(struct pit),
	.init = pit_init,
	.reset = pit_reset,
	.state = pit_state,
	.post_load = pit_post_load,
	.fini = pit_fini,
};
