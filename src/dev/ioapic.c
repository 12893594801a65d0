/* The I/O APIC: 24 interrupt inputs, each with a redirection entry, that become messages to the local
 * APICs.
 *
 * Documents: Intel 82093AA data sheet (290566), cited as [82093AA 3.x]; for the EOI register Intel ICH9
 * data sheet (316972), [ICH9 13.5].
 *
 * How it works: `lines` holds the level of each pin. A rising edge on an unmasked edge pin sends once and
 * is forgotten where the pin is masked [82093AA 3.2.4, bit 16]. A level pin sends while it is high,
 * unmasked and remote IRR is clear; a local APIC that takes the message sets remote IRR, its EOI clears
 * it, and service() looks again. One EOI looks at each pin once and sends at most one message per pin, so
 * that a line that never goes low costs the host no more than the guest that acknowledges it.
 *
 * Omitted, and why that is safe: the polarity bit is stored only, since the levels that devices report are
 * logical (asserted or not); the APIC bus and its arbitration do not exist, so the delivery status always
 * reads idle and the arbitration id never changes by itself.
 *
 * Threads: any, all under vm->intc_lock.
 */
#include "dev/ioapic.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dev/lapic.h"
#include "vm/bus.h"
#include "vm/vm.h"

/* Direct registers */
#define IOREGSEL 0x00
#define IOWIN    0x10
#define IOEOI    0x40

/* Indirect registers [82093AA 3.2] */
#define IOAPICID  0x00
#define IOAPICVER 0x01
#define IOAPICARB 0x02
#define IOREDTBL  0x10

#define VERSION (0x20u | (IOAPIC_NR_PINS - 1) << 16)

/* Redirection entry [82093AA 3.2.4] */
#define RED_LOGICAL  BIT(11)
#define RED_RIRR     BIT(14)
#define RED_LEVEL    BIT(15)
#define RED_MASKED   BIT(16)
#define RED_WRITABLE (0xff0000000001afffull) /* without delivery status and remote IRR */

struct ioapic {
	struct device dev;
	struct region mmio;
	bool mmio_added;
	u8 select;
	u32 id; /* bits 27..24 */
	u64 red[IOAPIC_NR_PINS];
	u32 lines;
};

static unsigned red_mode(u64 red)
{
	return red >> 8 & 7;
}

/* Only fixed and lowest priority know levels; the others are edge whatever the entry says [82093AA 3.2.4]. */
static bool red_is_level(u64 red)
{
	return red & RED_LEVEL && red_mode(red) <= APIC_LOWEST;
}

static struct apic_msg message(u64 red)
{
	return (struct apic_msg){
		.dest = (u32)(red >> 56),
		.logical = red & RED_LOGICAL,
		.level = red_is_level(red),
		.mode = (u8)red_mode(red),
		.vector = (u8)red,
	};
}

bool ioapic_message(struct device *dev, unsigned pin, struct apic_msg *ret_msg)
{
	const struct ioapic *io = container_of(dev, struct ioapic, dev);

	if (pin >= IOAPIC_NR_PINS)
		return false;
	*ret_msg = message(io->red[pin]);
	return true;
}

static unsigned send(struct ioapic *io, unsigned pin)
{
	const struct apic_msg msg = message(io->red[pin]);

	return lapic_deliver(io->dev.vm, &msg);
}

/* Sends for a level pin if it is due. */
static void service(struct ioapic *io, unsigned pin)
{
	u64 red = io->red[pin];

	if (!(io->lines >> pin & 1) || !red_is_level(red) || red & (RED_MASKED | RED_RIRR))
		return;
	if (send(io, pin))
		io->red[pin] |= RED_RIRR;
}

void ioapic_set_pin(struct device *dev, unsigned pin, bool level)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	if (pin >= IOAPIC_NR_PINS || (io->lines >> pin & 1) == level)
		return;
	io->lines ^= 1u << pin;
	if (irq_chips_away(dev->vm)) {
		dev->vm->apics->set_input(dev->vm, pin, level);
		return;
	}
	if (!level)
		return;
	if (red_is_level(io->red[pin]))
		service(io, pin);
	else if (!(io->red[pin] & RED_MASKED))
		send(io, pin);
}

void ioapic_eoi(struct device *dev, u8 vector)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++) {
		if (!(io->red[pin] & RED_RIRR) || (u8)io->red[pin] != vector)
			continue;
		io->red[pin] &= ~RED_RIRR;
		service(io, pin);
	}
}

void ioapic_get_chips(struct device *dev, struct irq_chips *ret_chips)
{
	const struct ioapic *io = container_of(dev, struct ioapic, dev);

	ret_chips->select = io->select;
	ret_chips->id = io->id;
	ret_chips->lines = io->lines;
	memcpy(ret_chips->red, io->red, sizeof(io->red));
}

void ioapic_set_chips(struct device *dev, const struct irq_chips *chips)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	io->select = chips->select;
	io->id = chips->id & 0x0f000000;
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++) {
		u64 red = chips->red[pin];

		io->red[pin] = red & (RED_WRITABLE | (red_is_level(red) ? RED_RIRR : 0));
		service(io, pin);
	}
}

static u32 reg_read(const struct ioapic *io)
{
	unsigned n = io->select - IOREDTBL;

	switch (io->select) {
	case IOAPICID:
	case IOAPICARB: return io->id; /* loaded along with the id [82093AA 3.2.3] */
	case IOAPICVER: return VERSION;
	default:
		if (io->select >= IOREDTBL && n / 2 < IOAPIC_NR_PINS)
			return (u32)(n & 1 ? io->red[n / 2] >> 32 : io->red[n / 2]);
		return 0xffffffff;
	}
}

static void reg_write(struct ioapic *io, u32 val)
{
	unsigned n = io->select - IOREDTBL;

	if (io->select == IOAPICID)
		io->id = val & 0x0f000000;
	if (io->select < IOREDTBL || n / 2 >= IOAPIC_NR_PINS)
		return;

	u64 *red = &io->red[n / 2];
	u64 half = 0xffffffffull << (n & 1 ? 32 : 0), wide = (u64)val << (n & 1 ? 32 : 0);
	*red = (*red & (~half | ~RED_WRITABLE)) | (wide & half & RED_WRITABLE);
	if (!red_is_level(*red)) /* a switch to edge and back is how drivers clear it */
		*red &= ~RED_RIRR;
	if (io->dev.vm->apics)
		io->dev.vm->apics->rerouted(io->dev.vm);
	service(io, n / 2);
}

static u64 ioapic_read(void *opaque, u64 offset, unsigned size)
{
	struct ioapic *io = opaque;
	u32 v;

	if (irq_chips_away(io->dev.vm))
		return bits_mask(size);
	switch (offset & ~3ull) {
	case IOREGSEL: v = io->select; break;
	case IOWIN: v = reg_read(io); break;
	default: return bits_mask(size);
	}
	return (v >> 8 * (offset & 3)) & bits_mask(size);
}

/* The data sheet wants 32-bit accesses [82093AA 3.1]; the selector takes a byte as well. */
static void ioapic_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct ioapic *io = opaque;

	if (irq_chips_away(io->dev.vm))
		return;
	if (offset == IOREGSEL)
		io->select = (u8)val;
	else if (offset == IOWIN && size == 4)
		reg_write(io, (u32)val);
	else if (offset == IOEOI)
		ioapic_eoi(&io->dev, (u8)val);
}

/* The selector: half of all accesses. */
static bool ioapic_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .posted = true, .at = IOREGSEL, .len = 4 };
	return offset == IOREGSEL;
}

static const struct region_ops ioapic_ops = {
	.read = ioapic_read,
	.write = ioapic_write,
	.max_size = 4,
	.late = ioapic_late,
};

static int ioapic_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);
	u64 base = conf->base ? conf->base : IOAPIC_BASE;
	int r;

	dev->lock = &dev->vm->intc_lock;
	io->mmio = (struct region){ "I/O APIC", &ioapic_ops, io, dev->lock, BUS_MMIO, base, IOAPIC_SIZE };
	r = bus_add(&dev->vm->bus, &io->mmio);
	if (r < 0)
		return err_sys(err, r, "the I/O APIC cannot be placed at %#llx", (unsigned long long)base);
	io->mmio_added = true;
	return 0;
}

/* The pins keep the levels that their devices drive. */
static void ioapic_reset(struct device *dev, enum reset_kind kind)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	pthread_mutex_lock(dev->lock);
	io->select = 0;
	io->id = IOAPIC_ID << 24;
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++)
		io->red[pin] = RED_MASKED;
	pthread_mutex_unlock(dev->lock);
}

static const struct state_field ioapic_state[] = {
	STATE_U8(ioapic, select),
	STATE_U32(ioapic, id),
	STATE_U64S(ioapic, red),
	STATE_U32(ioapic, lines),
	STATE_END,
};

static int ioapic_post_load(struct device *dev, struct err *err)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	if (io->id & ~0x0f000000u)
		return err_set(err, -EINVAL, "the state of the I/O APIC has an impossible id %#x", io->id);
	if (io->lines >> IOAPIC_NR_PINS)
		return err_set(err, -EINVAL, "the state of the I/O APIC has impossible lines %#x", io->lines);
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++)
		if (io->red[pin] & ~(RED_WRITABLE | RED_RIRR) ||
		    (io->red[pin] & RED_RIRR && !red_is_level(io->red[pin])))
			return err_set(err, -EINVAL,
				       "the state of the I/O APIC has an impossible entry %#llx for pin %u",
				       (unsigned long long)io->red[pin], pin);
	return 0;
}

static void ioapic_fini(struct device *dev)
{
	struct ioapic *io = container_of(dev, struct ioapic, dev);

	if (io->mmio_added)
		bus_del(&dev->vm->bus, &io->mmio);
}

const struct device_ops ioapic_device = {
	.name = "ioapic",
	.size = sizeof(struct ioapic),
	.init = ioapic_init,
	.reset = ioapic_reset,
	.state = ioapic_state,
	.post_load = ioapic_post_load,
	.fini = ioapic_fini,
};
