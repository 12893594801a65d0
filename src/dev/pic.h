/* The pair of 8259A interrupt controllers, seen from the other interrupt controllers.
 *
 * The PIC belongs to the group that shares vm->intc_lock (vm/irq.h): its ->lock is that lock, and
 * every function here wants it held.
 */
#pragma once

#include "base/types.h"

struct device;
struct irq_chips;

/* Input 0..15 (the slave's start at 8) goes high or low. Input 2 is the cascade and is ignored. */
void pic_set_irq(struct device *dev, unsigned irq, bool level);

/* The vector an acknowledge cycle would deliver now, or -1 while INTR is low. No side effect. */
int pic_pending(struct device *dev);

/* The acknowledge cycle: moves the request into service and returns its vector. With nothing
 * requested it returns the spurious vector (input 7), as the chip does; never -1. */
int pic_ack(struct device *dev);

/* intc_ops.get_chips() and set_chips(), for this device. */
void pic_get_chips(struct device *dev, struct irq_chips *ret_chips);
void pic_set_chips(struct device *dev, const struct irq_chips *chips);

/* Calls fn whenever the INTR output changes, and once now. fn runs with the lock held. */
void pic_set_output(struct device *dev, void (*fn)(void *opaque, bool level), void *opaque);
