/* The I/O APIC "ioapic": 24 pins, pin n is GSI n. conf->base = IOAPIC_BASE. */
#pragma once

#include "base/types.h"
#include "vm/device.h"

#define IOAPIC_BASE    0xfec00000ull
#define IOAPIC_SIZE    0x1000ull
#define IOAPIC_NR_PINS 24
#define IOAPIC_ID      0 /* for the MADT; what the ID register holds after reset */

/* Any thread, vm->intc_lock held. The level of an input pin. */
void ioapic_set_pin(struct device *dev, unsigned pin, bool level);

struct apic_msg;
struct irq_chips;

/* vm->intc_lock held. What a pin sends, or would if it were not masked; false: there is no such pin. */
bool ioapic_message(struct device *dev, unsigned pin, struct apic_msg *ret_msg);

/* intc_ops.get_chips() and set_chips(), for this device. */
void ioapic_get_chips(struct device *dev, struct irq_chips *ret_chips);
void ioapic_set_chips(struct device *dev, const struct irq_chips *chips);

/* Any thread, vm->intc_lock held. An EOI message from a local APIC. */
void ioapic_eoi(struct device *dev, u8 vector);
