/* The MC146818 clock and CMOS RAM, as the board sees it. Main thread, vCPUs not running. */
#pragma once

#include "base/types.h"

struct device;

/* One byte of CMOS RAM, index 0EH..7FH (32H is the century and belongs to the clock); kept over resets. */
void rtc_set_byte(struct device *dev, unsigned index, u8 val);

/* The bytes from which firmware and old kernels learn the size of memory: `low` bytes of RAM below the
 * 32-bit hole, `high` bytes from 4 GiB on. */
void rtc_set_memory(struct device *dev, u64 low, u64 high);

/* Guest's time of day minus the host's UTC, in nanoseconds; 0 at first. */
void rtc_set_offset(struct device *dev, s64 offset_ns);

/* Who is told of an alarm, in the moment in which it raises an interrupt: any thread, under the clock's lock. */
void rtc_set_alarm(struct device *dev, void (*on_alarm)(void *opaque), void *opaque);

#define RTC_SHUTDOWN_STATUS 0x0f /* a byte of CMOS RAM: for firmware, why the processor was reset */
#define RTC_SHUTDOWN_S3     0xfe /* it slept [SeaBIOS] */
