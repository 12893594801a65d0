/* The MC146818A real-time clock with 128 bytes of CMOS RAM behind ports 70H and 71H.
 *
 * Documents: Motorola MC146818A data sheet, cited as [MC146818 <heading>]; the century byte at 32H and the
 * memory sizes at 15H-18H, 30H-31H, 34H-35H, 5BH-5DH are conventions of PC firmware.
 *
 * How it works: the time of day is the host's real time plus an offset; setting the clock changes the offset.
 * While it runs the time registers are computed when read, so that nothing ticks; while the guest sets it
 * (SET, or the divider held in reset) they are plain bytes, and become an offset again at the end. The
 * fraction of the second, that is the phase of the updates, survives SET as on the chip; releasing the
 * divider starts half a second before the next update [MC146818 Divider Stages].
 *
 *	running   read time: computed    write time: new offset   updates: each second
 *	frozen    read time: the bytes   write time: the bytes    updates: none, UIP 0
 *
 * Flags: UF and AF follow from the seconds that passed since the flags were last looked at, PF from the
 * ticks of the 32768 Hz divider in guest time. Timers run only for interrupts that are enabled, and only
 * while the flag is still clear: nobody can be interrupted again before register C was read. So the
 * fastest periodic rate, 122 us, is also the fastest the host can be made to work.
 *
 * Omitted, and why that is safe: daylight saving (DSE reads back, PCs never used it); the square wave output;
 * divider bases other than 32768 Hz (taken as held in reset). A change of DM or 24/12 re-encodes the running
 * time instead of requiring that it be set again. The NMI mask of port 70H is kept; no source of NMIs exists.
 *
 * Threads: vCPUs, and the main thread for the timers; always under the device's lock.
 */
#include "dev/rtc.h"

#include <errno.h>

#include "base/os.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/vm.h"

#define RTC_PORT   0x70
#define NS_PER_S   1000000000ll
#define DAY_S      86400ll
#define DIVIDER_HZ 32768ull
/* UIP rises 244 us before the update, which takes 1984 us [MC146818 Update Cycle]. */
#define UIP_NS 2228000ll

#define REG_SEC        0x00
#define REG_SEC_ALARM  0x01
#define REG_MIN        0x02
#define REG_MIN_ALARM  0x03
#define REG_HOUR       0x04
#define REG_HOUR_ALARM 0x05
#define REG_WDAY       0x06
#define REG_MDAY       0x07
#define REG_MONTH      0x08
#define REG_YEAR       0x09
#define REG_A          0x0a
#define REG_B          0x0b
#define REG_C          0x0c
#define REG_D          0x0d
#define REG_CENTURY    0x32

#define A_UIP    0x80
#define A_DV     0x70
#define A_DV_32K 0x20
#define A_RS     0x0f
#define B_SET    0x80
#define B_PIE    0x40
#define B_AIE    0x20
#define B_UIE    0x10
#define B_SQWE   0x08
#define B_DM     0x04 /* binary, else BCD */
#define B_24     0x02
#define C_IRQF   0x80
#define C_PF     0x40
#define C_AF     0x20
#define C_UF     0x10
#define D_VRT    0x80

/* The furthest the guest's clock can be from the host's: it shows the years 0 to 9999. */
#define OFFSET_MAX_S (12000ll * 366 * DAY_S)

struct rtc {
	struct device dev;
	struct region region;
	struct clock_timer *second_timer, *periodic_timer;
	unsigned gsi;
	u8 index;
	bool nmi_masked;
	u8 ram[128];   /* registers and CMOS RAM; the time registers only while frozen */
	s64 offset_s;  /* guest's time of day minus the host's: seconds, */
	u32 phase_ns;  /* and 0 to 999999999 ns more */
	s64 seen_s;    /* second up to which UF and AF were worked out */
	u64 seen_tick; /* divider tick up to which PF was */
	bool alarm;    /* derived: AF and AIE are set */
	void (*on_alarm)(void *opaque);
	void *on_alarm_opaque;
	u8 wday_bias; /* days that the guest's day of the week is ahead of the calendar's */
};

struct rtc_date {
	s64 year;
	unsigned month, mday, hour, min, sec; /* month and mday from 1 */
};

/* Days since 1970-01-01 and back, Gregorian calendar, by counting years from March. */
static s64 days_from_date(s64 year, unsigned month, unsigned mday)
{
	s64 y = month > 2 ? year : year - 1;
	unsigned m = month > 2 ? month - 3 : month + 9;
	s64 era = (y >= 0 ? y : y - 399) / 400;
	s64 yoe = y - era * 400;

	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + (153 * m + 2) / 5 + mday - 1 - 719468;
}

static void date_from_days(s64 days, struct rtc_date *ret_date)
{
	s64 d = days + 719468;
	s64 era = (d >= 0 ? d : d - 146096) / 146097;
	s64 doe = d - era * 146097;
	s64 yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = (unsigned)(doe - (365 * yoe + yoe / 4 - yoe / 100));
	unsigned m = (5 * doy + 2) / 153;

	ret_date->mday = doy - (153 * m + 2) / 5 + 1;
	ret_date->month = m < 10 ? m + 3 : m - 9;
	ret_date->year = yoe + era * 400 + (ret_date->month <= 2);
}

static s64 floor_div(s64 a, s64 b)
{
	return a / b - (a % b < 0);
}

/* The guest's time of day: seconds since 1970, and the nanoseconds into the second. */
static s64 time_now(const struct rtc *rtc, s64 *ret_ns)
{
	s64 ns = (s64)os_realtime_ns() + rtc->phase_ns;

	*ret_ns = ns % NS_PER_S;
	return ns / NS_PER_S + rtc->offset_s;
}

static bool running(const struct rtc *rtc)
{
	return !(rtc->ram[REG_B] & B_SET) && (rtc->ram[REG_A] & A_DV) == A_DV_32K;
}

static u8 encode(const struct rtc *rtc, unsigned val)
{
	return (u8)(rtc->ram[REG_B] & B_DM ? val : val / 10 % 10 << 4 | val % 10);
}

static unsigned decode(const struct rtc *rtc, u8 byte)
{
	return rtc->ram[REG_B] & B_DM ? byte : (byte >> 4) * 10u + (byte & 15u);
}

static u8 encode_hour(const struct rtc *rtc, unsigned hour)
{
	if (rtc->ram[REG_B] & B_24)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct rtc *rtc, u8 byte)
{
	if (rtc->ram[REG_B] & B_24)
		return decode(rtc, byte);
	return decode(rtc, byte & 0x7f) % 12 + (byte & 0x80 ? 12 : 0);
}

/* Fills the time registers from a time of day. */
static void fill(struct rtc *rtc, s64 seconds)
{
	struct rtc_date d;
	s64 days = floor_div(seconds, DAY_S);
	unsigned rest = (unsigned)(seconds - days * DAY_S);

	date_from_days(days, &d);
	s64 wday = days + 4 + rtc->wday_bias; /* 1970-01-01 was a Thursday; Sunday is 1 */

	rtc->ram[REG_SEC] = encode(rtc, rest % 60);
	rtc->ram[REG_MIN] = encode(rtc, rest / 60 % 60);
	rtc->ram[REG_HOUR] = encode_hour(rtc, rest / 3600);
	rtc->ram[REG_WDAY] = encode(rtc, (unsigned)(wday - floor_div(wday, 7) * 7) + 1);
	rtc->ram[REG_MDAY] = encode(rtc, d.mday);
	rtc->ram[REG_MONTH] = encode(rtc, d.month);
	rtc->ram[REG_YEAR] = encode(rtc, (unsigned)(d.year - floor_div(d.year, 100) * 100));
	rtc->ram[REG_CENTURY] = encode(rtc, (unsigned)(floor_div(d.year, 100) & 127) % 100);
}

/* The time of day in the registers; what no clock can show is brought into range. */
static s64 parse(struct rtc *rtc)
{
	unsigned month = decode(rtc, rtc->ram[REG_MONTH]);
	unsigned mday = decode(rtc, rtc->ram[REG_MDAY]);
	s64 year = (s64)MIN(decode(rtc, rtc->ram[REG_CENTURY]), 99u) * 100 +
		   MIN(decode(rtc, rtc->ram[REG_YEAR]), 99u);

	month = MAX(MIN(month, 12u), 1u);
	mday = MAX(MIN(mday, 31u), 1u);
	s64 days = days_from_date(year, month, mday);
	unsigned wday = decode(rtc, rtc->ram[REG_WDAY]);
	s64 calendar = days + 4 - floor_div(days + 4, 7) * 7 + 1;

	rtc->wday_bias = (u8)((MAX(MIN(wday, 7u), 1u) + 7 - (unsigned)calendar) % 7);
	return days * DAY_S + MIN(decode_hour(rtc, rtc->ram[REG_HOUR]), 23u) * 3600 +
	       MIN(decode(rtc, rtc->ram[REG_MIN]), 59u) * 60 + MIN(decode(rtc, rtc->ram[REG_SEC]), 59u);
}

/* Makes the registers the time of day, keeping the fraction of the second. */
static void adopt(struct rtc *rtc)
{
	s64 ns, now_s = time_now(rtc, &ns);
	s64 wanted = parse(rtc);

	rtc->offset_s += wanted - now_s;
	rtc->seen_s = wanted;
}

/* Does the alarm match that hour, minute, second? Two high bits set: any [MC146818 Alarm]. */
static bool any(u8 alarm)
{
	return alarm >= 0xc0;
}

/* The first second after `after` at which the alarm matches, or -1 if no time of day does. */
static s64 next_alarm(const struct rtc *rtc, s64 after)
{
	u8 h = rtc->ram[REG_HOUR_ALARM], m = rtc->ram[REG_MIN_ALARM], s = rtc->ram[REG_SEC_ALARM];
	unsigned hour = decode_hour(rtc, h), min = decode(rtc, m), sec = decode(rtc, s);
	s64 t = after + 1, end = after + DAY_S;

	if ((!any(h) && hour > 23) || (!any(m) && min > 59) || (!any(s) && sec > 59))
		return -1;
	/* At most 24 + 60 + 60 steps and one more of each. */
	while (t <= end) {
		s64 day_s = t - floor_div(t, DAY_S) * DAY_S;

		if (!any(h) && day_s / 3600 != hour)
			t += 3600 - day_s % 3600;
		else if (!any(m) && day_s / 60 % 60 != min)
			t += 60 - day_s % 60;
		else if (!any(s) && day_s % 60 != sec)
			t++;
		else
			return t;
	}
	return -1;
}

static unsigned period_ticks(const struct rtc *rtc)
{
	unsigned rate = rtc->ram[REG_A] & A_RS;

	if (!rate || (rtc->ram[REG_A] & A_DV) != A_DV_32K)
		return 0;
	/* Rates 1 and 2 repeat 8 and 9 with this time base [MC146818 Table 5]. */
	return 1u << (rate < 3 ? rate + 6 : rate - 1);
}

static u64 divider(const struct rtc *rtc)
{
	return (u64)((unsigned __int128)clock_now(rtc->dev.vm) * DIVIDER_HZ / NS_PER_S);
}

/* Sets the flags for what has happened since the last look. */
static void sync(struct rtc *rtc)
{
	u64 tick = divider(rtc);
	unsigned period = period_ticks(rtc);

	if (period && tick / period > rtc->seen_tick / period)
		rtc->ram[REG_C] |= C_PF;
	rtc->seen_tick = tick;

	if (!running(rtc))
		return;
	s64 ns, now_s = time_now(rtc, &ns);

	if (now_s > rtc->seen_s) {
		s64 alarm = next_alarm(rtc, rtc->seen_s);

		rtc->ram[REG_C] |= C_UF;
		if (alarm >= 0 && alarm <= now_s)
			rtc->ram[REG_C] |= C_AF;
	}
	rtc->seen_s = now_s; /* the host's clock may also have been set back */
}

static void update_irq(struct rtc *rtc)
{
	u8 c = rtc->ram[REG_C] & (C_PF | C_AF | C_UF);

	if (c & rtc->ram[REG_B])
		c |= C_IRQF;
	rtc->ram[REG_C] = c;
	bool alarm = c & rtc->ram[REG_B] & C_AF;
	if (alarm && !rtc->alarm && rtc->on_alarm)
		rtc->on_alarm(rtc->on_alarm_opaque);
	rtc->alarm = alarm;
	irq_set(rtc->dev.vm, rtc->gsi, c & C_IRQF);
}

/* Arms the timers for the interrupts that are wanted and not yet flagged. */
static void plan(struct rtc *rtc)
{
	u8 b = rtc->ram[REG_B] & (u8)~rtc->ram[REG_C];
	unsigned period = period_ticks(rtc);
	s64 due = -1;

	if ((b & B_PIE) && period) {
		u64 tick = (rtc->seen_tick / period + 1) * period;

		clock_timer_arm(rtc->periodic_timer,
				(u64)(((unsigned __int128)tick * NS_PER_S + DIVIDER_HZ - 1) / DIVIDER_HZ));
	} else {
		clock_timer_cancel(rtc->periodic_timer);
	}

	if (running(rtc) && (b & B_UIE))
		due = rtc->seen_s + 1;
	else if (running(rtc) && (b & B_AIE))
		due = next_alarm(rtc, rtc->seen_s);
	if (due >= 0) {
		s64 ns, now_s = time_now(rtc, &ns);
		s64 wait = (due - now_s) * NS_PER_S - ns; /* at most a day */

		clock_timer_arm(rtc->second_timer, clock_now(rtc->dev.vm) + (u64)MAX(wait, 0));
	} else {
		clock_timer_cancel(rtc->second_timer);
	}
}

static void rtc_timer(void *opaque)
{
	struct rtc *rtc = opaque;

	sync(rtc);
	update_irq(rtc);
	plan(rtc);
}

static bool is_time(unsigned index)
{
	return index == REG_SEC || index == REG_MIN || index == REG_HOUR ||
	       (index >= REG_WDAY && index <= REG_YEAR) || index == REG_CENTURY;
}

static u8 read_register(struct rtc *rtc, unsigned index)
{
	u8 val = rtc->ram[index];
	s64 ns;

	switch (index) {
	case REG_A:
		time_now(rtc, &ns);
		if (running(rtc) && ns >= NS_PER_S - UIP_NS)
			val |= A_UIP;
		return val;
	case REG_C:
		/* Reading clears the flags and lets go of the line [MC146818 Register C]. */
		sync(rtc);
		update_irq(rtc);
		val = rtc->ram[REG_C];
		rtc->ram[REG_C] = 0;
		update_irq(rtc);
		plan(rtc);
		return val;
	default:
		if (is_time(index) && running(rtc)) {
			fill(rtc, time_now(rtc, &ns));
			val = rtc->ram[index];
		}
		return val;
	}
}

/* A write to A or B, which may stop and start the clock. */
static void write_control(struct rtc *rtc, unsigned index, u8 val)
{
	bool was_running = running(rtc);
	u8 old_a = rtc->ram[REG_A];

	if (was_running)
		fill(rtc, rtc->seen_s);
	if (index == REG_A) {
		rtc->ram[REG_A] = val & (u8)~A_UIP;
	} else {
		/* SET puts an end to update interrupts [MC146818 Register B]. */
		rtc->ram[REG_B] = val & B_SET ? val & (u8)~B_UIE : val;
		if (was_running)
			fill(rtc, rtc->seen_s); /* in the data mode that holds now */
	}
	if (was_running || !running(rtc))
		return;
	if ((old_a & A_DV) != A_DV_32K) {
		s64 ns;

		time_now(rtc, &ns);
		rtc->phase_ns = (u32)((rtc->phase_ns + NS_PER_S / 2 + NS_PER_S - ns) % NS_PER_S);
	}
	adopt(rtc);
}

static void write_register(struct rtc *rtc, unsigned index, u8 val)
{
	sync(rtc);
	if (index == REG_A || index == REG_B) {
		write_control(rtc, index, val);
	} else if (index == REG_C || index == REG_D) {
		return; /* read-only */
	} else if (is_time(index) && running(rtc)) {
		fill(rtc, rtc->seen_s);
		rtc->ram[index] = val;
		adopt(rtc);
	} else {
		rtc->ram[index] = val;
	}
	if (index > REG_D && index != REG_CENTURY)
		return;
	update_irq(rtc);
	plan(rtc);
}

/* Where a PC's set-up, and this board, says how much memory there is. */
static bool is_memory_size(u8 index)
{
	return (index >= 0x15 && index <= 0x18) || index == 0x30 || index == 0x31 || index == 0x34 ||
	       index == 0x35 || (index >= 0x5b && index <= 0x5d);
}

static u64 rtc_read(void *opaque, u64 offset, unsigned size)
{
	struct rtc *rtc = opaque;

	if (!offset)
		return 0xff; /* the index cannot be read */
	if (is_memory_size(rtc->index))
		timeline_note(rtc->dev.vm, TIMELINE_MEMORY);
	return read_register(rtc, rtc->index);
}

static void rtc_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct rtc *rtc = opaque;

	if (offset) {
		write_register(rtc, rtc->index, (u8)val);
	} else {
		rtc->index = val & 0x7f;
		rtc->nmi_masked = val & 0x80;
	}
}

/* The index. */
static bool rtc_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .posted = true, .len = 1 };
	return offset == 0;
}

static const struct region_ops rtc_region_ops = {
	.read = rtc_read, .write = rtc_write, .max_size = 1, .late = rtc_late
};

void rtc_set_byte(struct device *dev, unsigned index, u8 val)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	if (index > REG_D && index < sizeof(rtc->ram) && index != REG_CENTURY)
		rtc->ram[index] = val;
}

void rtc_set_alarm(struct device *dev, void (*on_alarm)(void *opaque), void *opaque)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	rtc->on_alarm = on_alarm;
	rtc->on_alarm_opaque = opaque;
}

void rtc_set_memory(struct device *dev, u64 low, u64 high)
{
	u64 base_kib = MIN(low / KiB, 640ull);
	u64 ext_kib = low > MiB ? MIN((low - MiB) / KiB, 0xffffull) : 0;
	u64 ext64 = low > 16 * MiB ? MIN((low - 16 * MiB) / (64 * KiB), 0xffffull) : 0;
	u64 high64 = MIN(high / (64 * KiB), 0xffffffull);

	rtc_set_byte(dev, 0x15, (u8)base_kib);
	rtc_set_byte(dev, 0x16, (u8)(base_kib >> 8));
	rtc_set_byte(dev, 0x17, (u8)ext_kib);
	rtc_set_byte(dev, 0x18, (u8)(ext_kib >> 8));
	rtc_set_byte(dev, 0x30, (u8)ext_kib);
	rtc_set_byte(dev, 0x31, (u8)(ext_kib >> 8));
	rtc_set_byte(dev, 0x34, (u8)ext64);
	rtc_set_byte(dev, 0x35, (u8)(ext64 >> 8));
	rtc_set_byte(dev, 0x5b, (u8)high64);
	rtc_set_byte(dev, 0x5c, (u8)(high64 >> 8));
	rtc_set_byte(dev, 0x5d, (u8)(high64 >> 16));
}

void rtc_set_offset(struct device *dev, s64 offset_ns)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);
	s64 ns;

	rtc->offset_s = floor_div(offset_ns, NS_PER_S);
	rtc->phase_ns = (u32)(offset_ns - rtc->offset_s * NS_PER_S);
	rtc->seen_s = time_now(rtc, &ns);
	plan(rtc);
}

static int rtc_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);
	u64 port = conf->base ? conf->base : RTC_PORT;
	s64 ns;
	int ret;

	rtc->gsi = conf->gsi;
	rtc->ram[REG_A] = A_DV_32K | 6; /* 32768 Hz base, 1024 Hz rate: as firmware leaves it */
	rtc->ram[REG_B] = B_24;
	rtc->ram[REG_D] = D_VRT;
	rtc->seen_s = time_now(rtc, &ns);
	rtc->seen_tick = divider(rtc);
	rtc->second_timer = clock_timer_new(dev->vm, dev->lock, rtc_timer, rtc);
	rtc->periodic_timer = clock_timer_new(dev->vm, dev->lock, rtc_timer, rtc);
	rtc->region = (struct region){ "MC146818 clock", &rtc_region_ops, rtc, dev->lock, BUS_PIO, port, 2 };
	ret = bus_add(&dev->vm->bus, &rtc->region);
	return ret ? err_sys(err, ret, "cannot place the clock MC146818 at port %#llx",
			     (unsigned long long)port)
		   : 0;
}

static void rtc_reset(struct device *dev, enum reset_kind kind)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	/* The battery keeps time, RAM and the data mode; RESET clears enables and flags [MC146818 RESET]. In a PC that sleeps the
	 * chip is not reset, since its alarm is to wake it. */
	sync(rtc);
	if (kind != RESET_SLEEP) {
		rtc->ram[REG_B] &= (u8) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
		rtc->ram[REG_C] = 0;
	}
	rtc->index = 0;
	rtc->nmi_masked = false;
	update_irq(rtc);
	plan(rtc);
}

static int rtc_post_load(struct device *dev, struct err *err)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);
	s64 ns, now_s;

	if (rtc->index > 0x7f || rtc->wday_bias > 6 || rtc->offset_s > OFFSET_MAX_S ||
	    rtc->offset_s < -OFFSET_MAX_S || rtc->phase_ns >= NS_PER_S || (rtc->ram[REG_A] & A_UIP) ||
	    (rtc->ram[REG_C] & 0x0f))
		return err_set(err, -EINVAL,
			       "the state of the clock MC146818 holds values the chip cannot have");
	rtc->ram[REG_D] = D_VRT;
	/* The clock is set before devices load: nothing was seen in the future. More than a day ago is
	 * as good as a day, for the alarm. */
	now_s = time_now(rtc, &ns);
	rtc->seen_s = MAX(MIN(rtc->seen_s, now_s), now_s - 2 * DAY_S);
	rtc->seen_tick = MIN(rtc->seen_tick, divider(rtc));
	update_irq(rtc);
	plan(rtc);
	return 0;
}

static void rtc_fini(struct device *dev)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	clock_timer_free(rtc->second_timer);
	clock_timer_free(rtc->periodic_timer);
	bus_del(&dev->vm->bus, &rtc->region);
}

static const struct state_field rtc_state[] = {
	STATE_U8(rtc, index),      STATE_BOOL(rtc, nmi_masked), STATE_U8S(rtc, ram),
	STATE_U64(rtc, offset_s),  STATE_U32(rtc, phase_ns),    STATE_U64(rtc, seen_s),
	STATE_U64(rtc, seen_tick), STATE_U8(rtc, wday_bias),    STATE_END,
};

const struct device_ops rtc_device = {
	.name = "rtc",
	.size = sizeof(struct rtc),
	.init = rtc_init,
	.reset = rtc_reset,
	.state = rtc_state,
	.post_load = rtc_post_load,
	.fini = rtc_fini,
};
