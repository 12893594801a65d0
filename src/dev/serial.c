/* The 16550A UART.
 *
 * Document: National Semiconductor PC16550D data sheet (June 1995), cited as [16550 <heading>].
 *
 * How it works: two FIFOs of 16 bytes, one byte deep in 16450 mode. What the guest sends goes at once to the
 * character back end; what the back end has goes into the receive FIFO as far as there is room, so that a
 * fast typist (or a pasted file) never causes an overrun. update() derives the interrupt line from the four
 * sources.
 *
 * Output never holds up the guest for long: while the back end's ring is full, bytes wait in the transmit
 * FIFO with THRE clear, as on a slow line; after 100 ms they are dropped and counted, and so is everything
 * until the reader has made room again.
 *
 *	transmitter   THR write              ring full        ring has room
 *	flowing       byte to the ring       -> holding       -
 *	holding       FIFO fills, THRE 0     100 ms: dropping -> flowing, FIFO is sent
 *	dropping      byte counted, THRE 1   -                -> flowing
 *
 * Omitted, and why that is safe: the time that characters take (sending is instant; only the receive time-out
 * uses the programmed rate), parity and framing errors (no back end has them), DMA pins.
 * DEVIATION: OUT2 does not gate the interrupt as on the PC's adapter cards; drivers set it, some test kernels
 * forget to. Word length below 8 is applied in loopback only, because test kernels print before they set LCR.
 *
 * Threads: vCPUs for the registers, the main thread for the back end's calls and timers. The back end's calls
 * come without the device's lock and take it here.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "vm/backend.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/vm.h"

/* The crystal; the divisor counts sixteenths of it [16550 Programmable Baud Generator]. */
#define SERIAL_HZ      1843200ull
#define FIFO_SIZE      16
#define SERIAL_DROP_NS 100000000ull
#define TIMEOUT_MIN_NS 50000ull
#define TIMEOUT_MAX_NS 50000000ull

/* Registers by offset; 0 and 1 are the divisor latch while DLAB is set. */
#define REG_DATA 0
#define REG_IER  1
#define REG_IIR  2 /* FCR when written */
#define REG_LCR  3
#define REG_MCR  4
#define REG_LSR  5
#define REG_MSR  6
#define REG_SCR  7

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_RLS  0x04
#define IER_MS   0x08

#define IIR_NONE 0x01
#define IIR_RLS  0x06
#define IIR_RDA  0x04
#define IIR_CTI  0x0c
#define IIR_THRE 0x02
#define IIR_MS   0x00
#define IIR_FIFO 0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04

#define LCR_WLS  0x03
#define LCR_STB  0x04
#define LCR_PEN  0x08
#define LCR_DLAB 0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR   0x01
#define LSR_OE   0x02
#define LSR_PE   0x04
#define LSR_FE   0x08
#define LSR_BI   0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define LSR_FIFO 0x80

#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS  0x10
#define MSR_DSR  0x20
#define MSR_RI   0x40
#define MSR_DCD  0x80

extern const struct device_ops serial_device;

struct serial {
	struct device dev;
	struct region region;
	struct clock_timer *drop_timer;    /* armed while holding */
	struct clock_timer *timeout_timer; /* the receive time-out */
	struct chr *chr;
	unsigned gsi;
	struct serial *shares, *shared_by; /* ports with the same interrupt that were made before and after */
	bool line;
	bool holding, dropping; /* see above */
	u64 dropped;            /* bytes, for the operator */
	u8 ier, fcr, lcr, mcr, scr, dll, dlm;
	u8 lsr_errors; /* OE, and PE FE BI of the character that reached the top; cleared by reading LSR */
	u8 msr_delta;
	bool thre_int;                          /* the THRE interrupt waits to be seen */
	bool timeout_int;                       /* the character time-out does */
	u8 rx[FIFO_SIZE], rx_errors[FIFO_SIZE]; /* a ring: */
	u8 rx_head, rx_count;
	u8 tx[FIFO_SIZE]; /* from the front */
	u8 tx_count;
};

static unsigned depth(const struct serial *s)
{
	return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger(const struct serial *s)
{
	static const u8 level[4] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* The interrupt of highest priority that is enabled and present [16550 Interrupt Identification Register]. */
static u8 iir(const struct serial *s)
{
	if ((s->ier & IER_RLS) && s->lsr_errors)
		return IIR_RLS;
	if ((s->ier & IER_RDA) && s->rx_count >= trigger(s))
		return IIR_RDA;
	if ((s->ier & IER_RDA) && s->timeout_int)
		return IIR_CTI;
	if ((s->ier & IER_THRE) && s->thre_int)
		return IIR_THRE;
	if ((s->ier & IER_MS) && s->msr_delta)
		return IIR_MS;
	return IIR_NONE;
}

/* Ports that share an interrupt share a lock: it is high while one of them wants it. */
static bool other_wants(const struct serial *s)
{
	for (const struct serial *o = s->shares; o; o = o->shares)
		if (o->line)
			return true;
	return false;
}

static void drive(struct serial *s, bool level)
{
	s->line = level;
	for (struct serial *o = s->shared_by; o; o = o->shared_by)
		level |= o->line;
	irq_set(s->dev.vm, s->gsi, level || other_wants(s));
}

static void update(struct serial *s)
{
	bool level = iir(s) != IIR_NONE;

	if (level != s->line)
		drive(s, level);
}

/* The lines CTS, DSR, RI, DCD. Without loopback the other side is there and ready. */
static u8 modem_lines(const struct serial *s)
{
	u8 lines = 0;

	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	if (s->mcr & MCR_RTS)
		lines |= MSR_CTS;
	if (s->mcr & MCR_DTR)
		lines |= MSR_DSR;
	if (s->mcr & MCR_OUT1)
		lines |= MSR_RI;
	if (s->mcr & MCR_OUT2)
		lines |= MSR_DCD;
	return lines;
}

/* Four characters at the programmed rate [16550 FIFO Interrupt Mode Operation]. */
static u64 timeout_ns(const struct serial *s)
{
	u64 divisor = (u64)s->dlm << 8 | s->dll;
	u64 bits = 1 + 5 + (s->lcr & LCR_WLS) + !!(s->lcr & LCR_PEN) + 1 + !!(s->lcr & LCR_STB);
	u64 ns = 4 * bits * 16 * (divisor ? divisor : 65536) * 1000000000ull / SERIAL_HZ;

	return MAX(MIN(ns, TIMEOUT_MAX_NS), TIMEOUT_MIN_NS);
}

/* (Re)starts the receive time-out after a character came or went. */
static void restart_timeout(struct serial *s)
{
	if ((s->fcr & FCR_ENABLE) && (s->ier & IER_RDA) && s->rx_count && s->rx_count < trigger(s))
		clock_timer_arm(s->timeout_timer, clock_now(s->dev.vm) + timeout_ns(s));
	else
		clock_timer_cancel(s->timeout_timer);
}

static void timeout_fired(void *opaque)
{
	struct serial *s = opaque;

	if (!s->rx_count)
		return;
	s->timeout_int = true;
	update(s);
}

/* The errors of a character show once it is at the top of the FIFO [16550 Line Status Register]. */
static void reveal(struct serial *s)
{
	if (!s->rx_count)
		return;
	s->lsr_errors |= s->rx_errors[s->rx_head];
	s->rx_errors[s->rx_head] = 0;
}

static void receive(struct serial *s, u8 byte, u8 errors)
{
	unsigned at = (s->rx_head + s->rx_count) % FIFO_SIZE;

	if (s->rx_count < depth(s)) {
		s->rx_count++;
	} else {
		s->lsr_errors |= LSR_OE;
		if (s->fcr & FCR_ENABLE)
			return; /* the FIFO keeps what it has */
		at = s->rx_head;
	}
	s->rx[at] = byte;
	s->rx_errors[at] = errors;
	reveal(s);
}

static void clear_rx(struct serial *s)
{
	s->rx_head = 0;
	s->rx_count = 0;
	memset(s->rx, 0, sizeof(s->rx));
	memset(s->rx_errors, 0, sizeof(s->rx_errors));
	s->timeout_int = false;
	clock_timer_cancel(s->timeout_timer);
}

static void tell_input_ready(struct serial *s)
{
	if (s->chr)
		s->chr->ops->input_ready(s->chr);
}

/* Sends what is in the transmit FIFO as far as the other side takes it. */
static void transmit(struct serial *s)
{
	size_t n = s->tx_count;

	if (!n)
		return;
	if (s->mcr & MCR_LOOP) {
		for (unsigned i = 0; i < s->tx_count; i++)
			receive(s, s->tx[i] & (u8)((32u << (s->lcr & LCR_WLS)) - 1), 0);
		restart_timeout(s);
	} else if (s->dropping) {
		s->dropped += n;
	} else {
		n = chr_write(s->chr, s->tx, s->tx_count);
	}
	s->tx_count -= (u8)n;
	memmove(s->tx, s->tx + n, s->tx_count);
	if (!s->tx_count) {
		s->thre_int = true;
		clock_timer_cancel(s->drop_timer);
		s->holding = false;
	} else if (!s->holding) {
		s->holding = true;
		clock_timer_arm(s->drop_timer, clock_now(s->dev.vm) + SERIAL_DROP_NS);
	}
}

static void drop_fired(void *opaque)
{
	struct serial *s = opaque;

	if (!s->holding)
		return;
	transmit(s);
	if (!s->holding) {
		update(s);
		return;
	}
	s->dropping = true;
	transmit(s);
	update(s);
	log_guest("%s: the reader is too slow, output is dropped (%llu bytes so far)", s->dev.id,
		  (unsigned long long)s->dropped);
}

static void serial_writable(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(s->dev.lock);
	s->dropping = false;
	transmit(s);
	update(s);
	pthread_mutex_unlock(s->dev.lock);
}

static size_t serial_can_input(void *opaque)
{
	struct serial *s = opaque;
	size_t n = 0;

	pthread_mutex_lock(s->dev.lock);
	if (!(s->mcr & MCR_LOOP))
		n = depth(s) - s->rx_count;
	pthread_mutex_unlock(s->dev.lock);
	return n;
}

static void serial_input(void *opaque, const u8 *buf, size_t len)
{
	struct serial *s = opaque;

	pthread_mutex_lock(s->dev.lock);
	/* The guest may have closed the loop since it was asked for room: the line is cut then. */
	for (size_t i = 0; i < len && !(s->mcr & MCR_LOOP); i++)
		receive(s, buf[i], 0);
	restart_timeout(s);
	update(s);
	pthread_mutex_unlock(s->dev.lock);
}

/* A break is received as a zero character [16550 Line Status Register, bit 4]. */
static void serial_break(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(s->dev.lock);
	if (!(s->mcr & MCR_LOOP))
		receive(s, 0, LSR_BI);
	restart_timeout(s);
	update(s);
	pthread_mutex_unlock(s->dev.lock);
}

static void write_data(struct serial *s, u8 val)
{
	s->thre_int = false;
	/* The line falls here, so that sending at once still makes an edge for the next THRE. */
	update(s);
	if (s->tx_count < depth(s))
		s->tx[s->tx_count++] = val;
	else
		s->dropped++; /* written although THRE was clear: lost, as on the chip */
	transmit(s);
}

static u8 read_data(struct serial *s)
{
	u8 val = s->rx[s->rx_head];

	s->timeout_int = false;
	if (!s->rx_count)
		return val;
	s->rx_head = (s->rx_head + 1) % FIFO_SIZE;
	s->rx_count--;
	reveal(s);
	restart_timeout(s);
	tell_input_ready(s);
	return val;
}

static void write_ier(struct serial *s, u8 val)
{
	u8 old = s->ier;

	s->ier = val & (IER_RDA | IER_THRE | IER_RLS | IER_MS);
	/* Enabling the THRE interrupt while the transmitter is empty raises it. */
	if ((s->ier & ~old & IER_THRE) && !s->tx_count)
		s->thre_int = true;
	if ((s->ier ^ old) & IER_RDA)
		restart_timeout(s);
}

static u8 read_iir(struct serial *s)
{
	u8 val = iir(s);

	if (val == IIR_THRE)
		s->thre_int = false;
	return s->fcr & FCR_ENABLE ? val | IIR_FIFO : val;
}

static void write_fcr(struct serial *s, u8 val)
{
	/* Switching the FIFOs empties them; their other bits count only while they are on [16550 FIFO Control
	 * Register]. */
	bool switched = (val ^ s->fcr) & FCR_ENABLE;

	if (!(val & FCR_ENABLE))
		val = 0;
	if (switched || (val & FCR_CLEAR_RX))
		clear_rx(s);
	if ((switched || (val & FCR_CLEAR_TX)) && s->tx_count) {
		s->tx_count = 0;
		s->thre_int = true;
		s->holding = false;
		clock_timer_cancel(s->drop_timer);
	}
	s->fcr = val & (u8) ~(FCR_CLEAR_RX | FCR_CLEAR_TX);
	restart_timeout(s);
	tell_input_ready(s);
}

static void write_mcr(struct serial *s, u8 val)
{
	u8 old = modem_lines(s), now, changed;
	bool was_loop = s->mcr & MCR_LOOP;

	s->mcr = val & (MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP);
	now = modem_lines(s);
	changed = old ^ now;
	s->msr_delta |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
	if (changed & old & MSR_RI)
		s->msr_delta |= MSR_TERI; /* its trailing edge only [16550 Modem Status Register] */
	if (was_loop && !(s->mcr & MCR_LOOP))
		tell_input_ready(s);
}

static u8 read_lsr(struct serial *s)
{
	u8 val = s->lsr_errors;

	if (s->rx_count)
		val |= LSR_DR;
	if (!s->tx_count)
		val |= LSR_THRE | LSR_TEMT;
	if (s->fcr & FCR_ENABLE) {
		u8 errors = s->lsr_errors & (LSR_PE | LSR_FE | LSR_BI);

		for (unsigned i = 0; i < s->rx_count; i++)
			errors |= s->rx_errors[(s->rx_head + i) % FIFO_SIZE];
		val |= errors ? LSR_FIFO : 0;
	}
	s->lsr_errors = 0;
	return val;
}

static u8 read_msr(struct serial *s)
{
	u8 val = s->msr_delta | modem_lines(s);

	s->msr_delta = 0;
	return val;
}

static u64 serial_read(void *opaque, u64 offset, unsigned size)
{
	struct serial *s = opaque;
	bool dlab = s->lcr & LCR_DLAB;
	u8 val;

	switch (offset) {
	case REG_DATA: val = dlab ? s->dll : read_data(s); break;
	case REG_IER: val = dlab ? s->dlm : s->ier; break;
	case REG_IIR: val = read_iir(s); break;
	case REG_LCR: val = s->lcr; break;
	case REG_MCR: val = s->mcr; break;
	case REG_LSR: val = read_lsr(s); break;
	case REG_MSR: val = read_msr(s); break;
	default: val = s->scr; break;
	}
	update(s);
	return val;
}

static void serial_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct serial *s = opaque;
	bool dlab = s->lcr & LCR_DLAB;
	u8 byte = (u8)val;

	switch (offset) {
	case REG_DATA:
		if (dlab)
			s->dll = byte;
		else
			write_data(s, byte);
		break;
	case REG_IER:
		if (dlab)
			s->dlm = byte;
		else
			write_ier(s, byte);
		break;
	case REG_IIR: write_fcr(s, byte); break;
	case REG_LCR: s->lcr = byte; break;
	case REG_MCR: write_mcr(s, byte); break;
	case REG_SCR: s->scr = byte; break;
	default: break; /* LSR and MSR are not for writing */
	}
	update(s);
}

static const struct region_ops serial_region_ops = { .read = serial_read,
						     .write = serial_write,
						     .max_size = 1 };

static void share_interrupt(struct serial *s)
{
	for (struct device *dev = s->dev.vm->devices; dev; dev = dev->next) {
		struct serial *o = container_of(dev, struct serial, dev);

		if (dev->ops != &serial_device || o->gsi != s->gsi || o->shared_by)
			continue;
		s->shares = o;
		o->shared_by = s;
		s->dev.lock = dev->lock;
		return;
	}
}

static int serial_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct serial *s = container_of(dev, struct serial, dev);
	int ret;

	s->gsi = conf->gsi;
	s->chr = conf->chr;
	share_interrupt(s);
	s->drop_timer = clock_timer_new(dev->vm, dev->lock, drop_fired, s);
	s->timeout_timer = clock_timer_new(dev->vm, dev->lock, timeout_fired, s);
	s->region = (struct region){ dev->id, &serial_region_ops, s, dev->lock, BUS_PIO, conf->base, 8 };
	ret = bus_add(&dev->vm->bus, &s->region);
	if (ret)
		return err_sys(err, ret, "cannot place the serial port at port %#llx",
			       (unsigned long long)conf->base);
	if (s->chr) {
		s->chr->opaque = s;
		s->chr->on_input = serial_input;
		s->chr->can_input = serial_can_input;
		s->chr->on_writable = serial_writable;
		s->chr->on_break = serial_break;
		s->chr->ops->input_ready(s->chr);
	}
	return 0;
}

/* Master reset leaves the scratch register and the divisor alone [16550 Table I]. */
static void serial_reset(struct device *dev, enum reset_kind kind)
{
	struct serial *s = container_of(dev, struct serial, dev);

	s->ier = 0;
	s->fcr = 0;
	s->lcr = 0;
	s->mcr = 0;
	s->lsr_errors = 0;
	s->msr_delta = 0;
	s->thre_int = false;
	memset(s->tx, 0, sizeof(s->tx));
	s->tx_count = 0;
	s->holding = false;
	clock_timer_cancel(s->drop_timer);
	clear_rx(s);
	if (kind != RESET_WARM) {
		s->scr = 0;
		s->dll = 0;
		s->dlm = 0;
	}
	update(s);
	tell_input_ready(s);
}

static int serial_post_load(struct device *dev, struct err *err)
{
	struct serial *s = container_of(dev, struct serial, dev);

	if (s->rx_head >= FIFO_SIZE || s->rx_count > depth(s) || s->tx_count > depth(s))
		return err_set(err, -EINVAL, "the state of the serial port %s has FIFOs of %u and %u bytes",
			       dev->id, s->rx_count, s->tx_count);
	if ((s->ier & 0xf0) || (s->mcr & 0xe0) || (s->msr_delta & 0xf0) || (s->lsr_errors & ~0x1e) ||
	    (s->fcr & (FCR_CLEAR_RX | FCR_CLEAR_TX)))
		return err_set(err, -EINVAL,
			       "the state of the serial port %s holds bits the chip does not have", dev->id);
	s->holding = s->tx_count;
	s->dropping = false;
	if (s->holding) /* bytes held when the state was saved: tried at once, on the main loop */
		clock_timer_arm(s->drop_timer, clock_now(dev->vm));
	else
		clock_timer_cancel(s->drop_timer);
	restart_timeout(s);
	drive(s, iir(s) != IIR_NONE);
	tell_input_ready(s);
	return 0;
}

static void serial_fini(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	if (s->chr) {
		s->chr->on_input = NULL;
		s->chr->can_input = NULL;
		s->chr->on_writable = NULL;
		s->chr->on_break = NULL;
		s->chr->opaque = NULL;
	}
	if (s->shares)
		s->shares->shared_by = s->shared_by;
	if (s->shared_by)
		s->shared_by->shares = s->shares;
	clock_timer_free(s->drop_timer);
	clock_timer_free(s->timeout_timer);
	bus_del(&dev->vm->bus, &s->region);
}

static const struct state_field serial_state[] = {
	STATE_U8(serial, ier),        STATE_U8(serial, fcr),           STATE_U8(serial, lcr),
	STATE_U8(serial, mcr),        STATE_U8(serial, scr),           STATE_U8(serial, dll),
	STATE_U8(serial, dlm),        STATE_U8(serial, lsr_errors),    STATE_U8(serial, msr_delta),
	STATE_BOOL(serial, thre_int), STATE_BOOL(serial, timeout_int), STATE_U8S(serial, rx),
	STATE_U8S(serial, rx_errors), STATE_U8(serial, rx_head),       STATE_U8(serial, rx_count),
	STATE_U8S(serial, tx),        STATE_U8(serial, tx_count),      STATE_END,
};

const struct device_ops serial_device = {
	.name = "serial",
	.size = sizeof(struct serial),
	.init = serial_init,
	.reset = serial_reset,
	.state = serial_state,
	.post_load = serial_post_load,
	.fini = serial_fini,
};
