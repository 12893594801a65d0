/* The HPET "hpet": conf->base = HPET_BASE. No other resources; its interrupts are routed by the guest. */
#pragma once

#include "base/types.h"

#define HPET_BASE      0xfed00000ull
#define HPET_SIZE      0x400ull
#define HPET_PERIOD_FS 10000000u /* 10 ns */
#define HPET_NR_TIMERS 3
#define HPET_ID        0x8086a201u /* for the ACPI table too: the low half of the capabilities */
#define HPET_ROUTES    0x00f00000u /* I/O APIC pins 20..23, for every timer */
#define HPET_MIN_TICK \
	10000 /* for the ACPI table: shortest period, in counter ticks, without lost interrupts */
