/* The two 8259A interrupt controllers of a PC, master at 20H, slave at A0H, with the edge/level
 * registers of the EISA bridge at 4D0H.
 *
 * Documents: Intel 8259A data sheet (231468), cited as [8259A <heading>]; Intel 82371AB (PIIX4) data sheet
 * 290562, [PIIX4 ELCR1], for the edge/level registers.
 *
 * How it works: every input pin has a level (lines) and a request bit (irr). An edge input sets its
 * request when the pin rises; a level input's request is the pin itself. output() derives INTR from
 * requests, masks and services by priority; every change ends in update(), which walks the cascade
 * (slave INTR into input 2 of the master) and tells the hook when the master's INTR moved.
 *
 * Omitted, and why that is safe: MCS-80/85 mode (ICW4 bit 0 clear) has no meaning on an x86 bus and behaves
 * as 8086 mode; ICW3 and the buffered-mode bits describe wiring, which is fixed here; LTIM of ICW1 is
 * replaced by ELCR as on every PC since EISA [PIIX4 ICW1].
 * DEVIATION: an edge request stays when its pin falls before the acknowledge; the chip would deliver
 * the spurious vector instead. Devices that pulse a line lose nothing this way, and drivers cope with both.
 *
 * Threads: any, always under vm->intc_lock, which the bus takes for the registers.
 */
#include "dev/pic.h"

#include <errno.h>

#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define PIC_CASCADE  2 /* the master's input that the slave drives */
#define PIC_SPURIOUS 7

#define ICW1_IC4  0x01
#define ICW1_SNGL 0x02
#define ICW1_INIT 0x10
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
#define OCW3_FLAG 0x08
#define OCW3_RIS  0x01
#define OCW3_RR   0x02
#define OCW3_POLL 0x04
#define OCW3_SMM  0x20
#define OCW3_ESMM 0x40

/* Timer, keyboard, cascade; RTC and coprocessor of the slave: edge for good [PIIX4 ELCR1]. */
static const u8 elcr_writable[2] = { 0xf8, 0xde };

struct pic {
	struct device dev;
	struct region cmd[2], elcr_region;
	/* Element 0 is the master, 1 the slave. */
	u8 lines[2]; /* input pins */
	u8 irr[2];   /* requests */
	u8 isr[2];   /* in service */
	u8 imr[2];
	u8 elcr[2];
	u8 vector[2]; /* ICW2, low three bits clear */
	u8 lowest[2]; /* the input with the lowest priority */
	u8 icw[2];    /* the initialization word expected next: 0 none, 2, 3, 4 */
	bool icw4_due[2];
	bool single[2];
	bool aeoi[2];
	bool sfnm[2];   /* special fully nested mode */
	bool smm[2];    /* special mask mode */
	bool rotate[2]; /* rotate in automatic EOI mode */
	bool read_isr[2];
	bool poll[2]; /* the next read is a poll */
	bool intr;    /* the master's output, as last told to the hook; derived */
	void (*output_fn)(void *opaque, bool level);
	void *output_opaque;
};

/* The input of highest priority in set, or -1. Priority falls from lowest + 1 upwards, cyclically. */
static int highest(const struct pic *pic, unsigned c, u8 set)
{
	for (unsigned i = 1; i <= 8; i++) {
		unsigned n = (pic->lowest[c] + i) & 7;
		if (set & (1u << n))
			return (int)n;
	}
	return -1;
}

static unsigned rank(const struct pic *pic, unsigned c, int n)
{
	return ((unsigned)n + 7 - pic->lowest[c]) & 7;
}

/* The input that chip c would present, or -1 while its INTR is low. */
static int presented(const struct pic *pic, unsigned c)
{
	u8 blocking = pic->isr[c];
	int req = highest(pic, c, pic->irr[c] & (u8)~pic->imr[c]);

	/* Not before its initialization words are complete [8259A Initialization Command Words]. */
	if (req < 0 || pic->icw[c])
		return -1;
	/* A service that is masked lets every other level pass [8259A Special Mask Mode]. */
	if (pic->smm[c])
		blocking &= (u8)~pic->imr[c];
	/* The master lets the slave interrupt the slave [8259A The Special Fully Nest Mode]. */
	if (c == 0 && pic->sfnm[c])
		blocking &= (u8) ~(1u << PIC_CASCADE);

	int served = highest(pic, c, blocking);
	/* In the fully nested mode of the master the cascade still blocks what is below it. */
	if (c == 0 && pic->sfnm[c] && (pic->isr[c] & (1u << PIC_CASCADE)) && req != PIC_CASCADE &&
	    rank(pic, c, req) > rank(pic, c, PIC_CASCADE) &&
	    !(pic->smm[c] && (pic->imr[c] & (1u << PIC_CASCADE))))
		return -1;
	if (served >= 0 && rank(pic, c, req) >= rank(pic, c, served))
		return -1;
	return req;
}

static void set_pin(struct pic *pic, unsigned c, unsigned n, bool level)
{
	u8 bit = (u8)(1u << n);

	if (pic->elcr[c] & bit)
		pic->irr[c] = level ? pic->irr[c] | bit : pic->irr[c] & (u8)~bit;
	else if (level && !(pic->lines[c] & bit))
		pic->irr[c] |= bit;
	pic->lines[c] = level ? pic->lines[c] | bit : pic->lines[c] & (u8)~bit;
}

/* Carries the slave's output to the master and the master's to the processor. */
static void update(struct pic *pic)
{
	set_pin(pic, 0, PIC_CASCADE, presented(pic, 1) >= 0);

	bool intr = presented(pic, 0) >= 0;
	if (intr == pic->intr)
		return;
	pic->intr = intr;
	if (pic->output_fn)
		pic->output_fn(pic->output_opaque, intr);
}

/* What chip c does in an acknowledge cycle or a poll for input n. */
static void serve(struct pic *pic, unsigned c, unsigned n)
{
	u8 bit = (u8)(1u << n);

	if (!(pic->elcr[c] & bit))
		pic->irr[c] &= (u8)~bit;
	if (!pic->aeoi[c])
		pic->isr[c] |= bit;
	else if (pic->rotate[c])
		pic->lowest[c] = (u8)n;
}

/* The engine has the chips: only the pins are ours. */
static void lead_away(struct pic *pic, unsigned irq, bool level)
{
	u8 *lines = &pic->lines[irq >> 3], bit = (u8)(1u << (irq & 7));

	if (!(*lines & bit) == !level)
		return;
	*lines ^= bit;
	pic->dev.vm->apics->set_input(pic->dev.vm, IRQ_INPUT_PIC(irq), level);
}

void pic_set_irq(struct device *dev, unsigned irq, bool level)
{
	struct pic *pic = container_of(dev, struct pic, dev);

	if (irq > 15 || irq == PIC_CASCADE)
		return;
	if (irq_chips_away(dev->vm)) {
		lead_away(pic, irq, level);
		return;
	}
	set_pin(pic, irq >> 3, irq & 7, level);
	update(pic);
}

int pic_pending(struct device *dev)
{
	const struct pic *pic = container_of(dev, struct pic, dev);
	int n = irq_chips_away(dev->vm) ? -1 : presented(pic, 0);

	if (n < 0)
		return -1;
	if (n != PIC_CASCADE || pic->single[0])
		return pic->vector[0] | n;
	n = presented(pic, 1);
	return pic->vector[1] | (n < 0 ? PIC_SPURIOUS : n);
}

int pic_ack(struct device *dev)
{
	struct pic *pic = container_of(dev, struct pic, dev);
	int n = presented(pic, 0);
	int vector;

	/* A request that went away is answered with input 7 and leaves no service bit
	 * [8259A Edge and Level Triggered Modes]. */
	if (n < 0)
		return pic->vector[0] | PIC_SPURIOUS;
	serve(pic, 0, (unsigned)n);
	if (n != PIC_CASCADE || pic->single[0]) {
		vector = pic->vector[0] | n;
	} else {
		n = presented(pic, 1);
		if (n >= 0)
			serve(pic, 1, (unsigned)n);
		vector = pic->vector[1] | (n < 0 ? PIC_SPURIOUS : n);
		/* The slave's INTR drops during the cycle: a second request of its makes a new edge. */
		set_pin(pic, 0, PIC_CASCADE, false);
	}
	update(pic);
	return vector;
}

void pic_set_output(struct device *dev, void (*fn)(void *opaque, bool level), void *opaque)
{
	struct pic *pic = container_of(dev, struct pic, dev);

	pic->output_fn = fn;
	pic->output_opaque = opaque;
	if (fn)
		fn(opaque, pic->intr);
}

void pic_get_chips(struct device *dev, struct irq_chips *ret_chips)
{
	const struct pic *pic = container_of(dev, struct pic, dev);

	for (unsigned c = 0; c < 2; c++)
		ret_chips->pic[c] = (struct pic_state){
			.lines = pic->lines[c],
			.irr = pic->irr[c],
			.isr = pic->isr[c],
			.imr = pic->imr[c],
			.elcr = pic->elcr[c],
			.vector = pic->vector[c],
			.lowest = pic->lowest[c],
			.icw = pic->icw[c],
			.icw4_due = pic->icw4_due[c],
			.aeoi = pic->aeoi[c],
			.sfnm = pic->sfnm[c],
			.smm = pic->smm[c],
			.rotate = pic->rotate[c],
			.read_isr = pic->read_isr[c],
			.poll = pic->poll[c],
		};
	ret_chips->pic[0].lines &= (u8) ~(1u << PIC_CASCADE);
}

/* A request of a level input is its pin, whatever it was elsewhere. A single chip is one that no engine knows. */
void pic_set_chips(struct device *dev, const struct irq_chips *chips)
{
	const struct pic_state *chip = chips->pic;
	struct pic *pic = container_of(dev, struct pic, dev);

	for (unsigned c = 0; c < 2; c++) {
		pic->elcr[c] = chip[c].elcr & elcr_writable[c];
		pic->irr[c] = (u8)((chip[c].irr & ~pic->elcr[c]) | (pic->lines[c] & pic->elcr[c]));
		pic->isr[c] = chip[c].isr;
		pic->imr[c] = chip[c].imr;
		pic->vector[c] = chip[c].vector & 0xf8;
		pic->lowest[c] = chip[c].lowest & 7;
		pic->icw[c] = chip[c].icw;
		pic->icw4_due[c] = chip[c].icw4_due;
		pic->single[c] = false;
		pic->aeoi[c] = chip[c].aeoi;
		pic->sfnm[c] = chip[c].sfnm;
		pic->smm[c] = chip[c].smm;
		pic->rotate[c] = chip[c].rotate;
		pic->read_isr[c] = chip[c].read_isr;
		pic->poll[c] = chip[c].poll;
	}
	/* As after an acknowledge: a second one that asks makes a new edge. */
	set_pin(pic, 0, PIC_CASCADE, false);
	update(pic);
}

/* What ICW1 resets, and RESET with it [8259A Initialization Command Word 1]. Pins are not ours. */
static void clear(struct pic *pic, unsigned c)
{
	pic->irr[c] = pic->lines[c] & pic->elcr[c];
	pic->isr[c] = 0;
	pic->imr[c] = 0;
	pic->lowest[c] = 7;
	pic->icw[c] = 0;
	pic->icw4_due[c] = false;
	pic->single[c] = false;
	pic->aeoi[c] = false;
	pic->sfnm[c] = false;
	pic->smm[c] = false;
	pic->rotate[c] = false;
	pic->read_isr[c] = false;
	pic->poll[c] = false;
}

/* OCW2: end of interrupt and rotation; R, SL, EOI are bits 7..5. */
static void write_ocw2(struct pic *pic, unsigned c, u8 val)
{
	u8 level = val & 7;
	/* In special mask mode a masked service is not the one meant [8259A End of Interrupt]. */
	u8 eligible = pic->smm[c] ? pic->isr[c] & (u8)~pic->imr[c] : pic->isr[c];
	int n = highest(pic, c, eligible);

	switch (val >> 5) {
	case 0: pic->rotate[c] = false; break;
	case 4: pic->rotate[c] = true; break;
	case 1: /* non-specific EOI */
	case 5: /* and rotate */
		if (n < 0)
			break;
		pic->isr[c] &= (u8) ~(1u << n);
		if (val & 0x80)
			pic->lowest[c] = (u8)n;
		break;
	case 3: /* specific EOI */
	case 7: /* and rotate */
		pic->isr[c] &= (u8) ~(1u << level);
		if (val & 0x80)
			pic->lowest[c] = level;
		break;
	case 6: pic->lowest[c] = level; break;
	default: break; /* 2: no operation */
	}
}

static void write_ocw3(struct pic *pic, unsigned c, u8 val)
{
	if (val & OCW3_ESMM)
		pic->smm[c] = val & OCW3_SMM;
	if (val & OCW3_POLL)
		pic->poll[c] = true;
	else if (val & OCW3_RR)
		pic->read_isr[c] = val & OCW3_RIS;
}

static void write_even(struct pic *pic, unsigned c, u8 val)
{
	if (val & ICW1_INIT) {
		clear(pic, c);
		pic->single[c] = val & ICW1_SNGL;
		pic->icw4_due[c] = val & ICW1_IC4;
		pic->icw[c] = 2;
	} else if (val & OCW3_FLAG) {
		write_ocw3(pic, c, val);
	} else {
		write_ocw2(pic, c, val);
	}
}

static void write_odd(struct pic *pic, unsigned c, u8 val)
{
	switch (pic->icw[c]) {
	case 2:
		pic->vector[c] = val & 0xf8;
		pic->icw[c] = !pic->single[c] ? 3 : pic->icw4_due[c] ? 4 : 0;
		break;
	case 3: pic->icw[c] = pic->icw4_due[c] ? 4 : 0; break;
	case 4:
		pic->aeoi[c] = val & ICW4_AEOI;
		pic->sfnm[c] = val & ICW4_SFNM;
		pic->icw[c] = 0;
		break;
	default: pic->imr[c] = val; break;
	}
}

/* The poll word, and with it the acknowledgement [8259A Poll Command]. */
static u8 read_poll(struct pic *pic, unsigned c)
{
	int n = presented(pic, c);

	pic->poll[c] = false;
	if (n < 0)
		return 0;
	serve(pic, c, (unsigned)n);
	if (c == 1)
		set_pin(pic, 0, PIC_CASCADE, false);
	return 0x80 | (u8)n;
}

static u64 pic_read(struct pic *pic, unsigned c, u64 offset)
{
	u8 val;

	if (irq_chips_away(pic->dev.vm))
		return 0xff;
	if (pic->poll[c]) {
		val = read_poll(pic, c);
		update(pic);
		return val;
	}
	if (offset)
		return pic->imr[c];
	return pic->read_isr[c] ? pic->isr[c] : pic->irr[c];
}

static void pic_write(struct pic *pic, unsigned c, u64 offset, u64 val)
{
	if (irq_chips_away(pic->dev.vm))
		return;
	if (offset)
		write_odd(pic, c, (u8)val);
	else
		write_even(pic, c, (u8)val);
	update(pic);
}

static u64 master_read(void *opaque, u64 offset, unsigned size)
{
	return pic_read(opaque, 0, offset);
}

static void master_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	pic_write(opaque, 0, offset, val);
}

static u64 slave_read(void *opaque, u64 offset, unsigned size)
{
	return pic_read(opaque, 1, offset);
}

static void slave_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	pic_write(opaque, 1, offset, val);
}

static u64 elcr_read(void *opaque, u64 offset, unsigned size)
{
	const struct pic *pic = opaque;

	return irq_chips_away(pic->dev.vm) ? 0xff : pic->elcr[offset & 1];
}

static void elcr_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pic *pic = opaque;
	unsigned c = offset & 1;
	u8 old = pic->elcr[c];

	if (irq_chips_away(pic->dev.vm))
		return;
	pic->elcr[c] = (u8)val & elcr_writable[c];
	/* An input that becomes level follows its pin; one that becomes edge starts without a request. */
	pic->irr[c] = (u8)((pic->irr[c] & (u8) ~(pic->elcr[c] | old)) | (pic->lines[c] & pic->elcr[c]));
	update(pic);
}

static const struct region_ops master_ops = { .read = master_read, .write = master_write, .max_size = 1 };
static const struct region_ops slave_ops = { .read = slave_read, .write = slave_write, .max_size = 1 };
static const struct region_ops elcr_ops = { .read = elcr_read, .write = elcr_write, .max_size = 1 };

static int pic_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pic *pic = container_of(dev, struct pic, dev);
	struct bus *bus = &dev->vm->bus;
	int ret;

	dev->lock = &dev->vm->intc_lock;
	pic->cmd[0] = (struct region){ "8259A master", &master_ops, pic, dev->lock, BUS_PIO, 0x20, 2 };
	pic->cmd[1] = (struct region){ "8259A slave", &slave_ops, pic, dev->lock, BUS_PIO, 0xa0, 2 };
	pic->elcr_region =
		(struct region){ "8259A edge/level", &elcr_ops, pic, dev->lock, BUS_PIO, 0x4d0, 2 };
	ret = bus_add(bus, &pic->cmd[0]);
	if (!ret)
		ret = bus_add(bus, &pic->cmd[1]);
	if (!ret)
		ret = bus_add(bus, &pic->elcr_region);
	return ret ? err_sys(err, ret, "cannot place the interrupt controllers 8259A at their ports") : 0;
}

static void pic_reset(struct device *dev, enum reset_kind kind)
{
	struct pic *pic = container_of(dev, struct pic, dev);

	pthread_mutex_lock(dev->lock);
	for (unsigned c = 0; c < 2; c++) {
		pic->elcr[c] = 0;
		clear(pic, c);
		/* Undefined by the data sheet: nothing gets through before the guest has set up a chip. */
		pic->imr[c] = 0xff;
		pic->vector[c] = 0;
	}
	update(pic);
	pthread_mutex_unlock(dev->lock);
}

static int pic_post_load(struct device *dev, struct err *err)
{
	struct pic *pic = container_of(dev, struct pic, dev);

	for (unsigned c = 0; c < 2; c++) {
		if (pic->lowest[c] > 7 || (pic->vector[c] & 7) || pic->icw[c] == 1 || pic->icw[c] > 4 ||
		    (pic->elcr[c] & ~elcr_writable[c]))
			return err_set(err, -EINVAL,
				       "the state of 8259A chip %u holds values the chip cannot have", c);
	}
	pthread_mutex_lock(dev->lock);
	pic->intr = presented(pic, 0) >= 0;
	if (pic->output_fn)
		pic->output_fn(pic->output_opaque, pic->intr);
	pthread_mutex_unlock(dev->lock);
	return 0;
}

static void pic_fini(struct device *dev)
{
	struct pic *pic = container_of(dev, struct pic, dev);

	bus_del(&dev->vm->bus, &pic->cmd[0]);
	bus_del(&dev->vm->bus, &pic->cmd[1]);
	bus_del(&dev->vm->bus, &pic->elcr_region);
}

static const struct state_field pic_state[] = {
	STATE_U8S(pic, lines),
	STATE_U8S(pic, irr),
	STATE_U8S(pic, isr),
	STATE_U8S(pic, imr),
	STATE_U8S(pic, elcr),
	STATE_U8S(pic, vector),
	STATE_U8S(pic, lowest),
	STATE_U8S(pic, icw),
	STATE_FIELD_(pic, icw4_due, 2, STATE_BOOL_),
	STATE_FIELD_(pic, single, 2, STATE_BOOL_),
	STATE_FIELD_(pic, aeoi, 2, STATE_BOOL_),
	STATE_FIELD_(pic, sfnm, 2, STATE_BOOL_),
	STATE_FIELD_(pic, smm, 2, STATE_BOOL_),
	STATE_FIELD_(pic, rotate, 2, STATE_BOOL_),
	STATE_FIELD_(pic, read_isr, 2, STATE_BOOL_),
	STATE_FIELD_(pic, poll, 2, STATE_BOOL_),
	STATE_END,
};

const struct device_ops pic_device = {
	.name = "pic",
	.size = sizeof(struct pic),
	.init = pic_init,
	.reset = pic_reset,
	.state = pic_state,
	.post_load = pic_post_load,
	.fini = pic_fini,
};
