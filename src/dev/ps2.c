/* The 8042 keyboard controller with a keyboard and a mouse, and system control port A (92H).
 *
 * Documents: IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller (cited
 * as [8042 <heading>]), Keyboards (101- and 102-Key), and Mouse; Intel 82371AB (PIIX4) for port 92H.
 *
 * How it works: each of the two devices has a queue of bytes to send, and so has the controller for its own
 * answers. One byte at a time stands in the output buffer (OBF); when the guest takes it, load() puts the
 * next one there: the controller's, then the keyboard's, then the mouse's, unless that interface is switched
 * off. A command that wants a parameter is remembered (expect for the controller, kbd_cmd and aux_cmd for the
 * devices) until the byte comes. The interrupt lines, 1 and 12, are high while a byte of their source is in
 * the buffer.
 *
 * Keys come from ps2_key(). A key is numbered by its code in set 1; the keyboard sends it in the set that the guest has chosen,
 * 2 unless it chose, and the controller translates set 2 to set 1 while the command byte says so [8042 Scan Code Translation].
 * The mouse never moves. Guests also reset the machine here (command FEH, output port bit 0, port 92H bit 0).
 *
 * Omitted, and why that is safe: scan code set 3, in which keys are sent as in set 2 (no guest chooses it by itself); typematic
 * repetition, which the terminal does that keys come from; transmission times (a queue that is full drops what a device sends, as a
 * real buffer does); the controller's RAM beyond the command byte reads back what was written; password commands are absent, as on
 * clones.
 *
 * The gate of A20 has one state here, which the output port and port 92H both show and set; a board has two, either of which
 * opens it. It is open after a reset, as firmware and what it boots expect, and what it does to addresses is vm/ram.h's.
 *
 * Threads: vCPUs, under the device's lock.
 */
#include "dev/ps2.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define PS2_DATA    0x60
#define PS2_STATUS  0x64
#define PS2_PORT92  0x92
#define PS2_KBD_GSI 1
#define PS2_AUX_GSI 12
#define QUEUE_SIZE  16

#define ST_OBF 0x01
#define ST_SYS 0x04
#define ST_A2  0x08 /* the last write went to 64H */
#define ST_INH 0x10 /* keyboard lock is open */
#define ST_AUX 0x20 /* the byte in the buffer is the mouse's */

/* The command byte. */
#define CB_KBD_INT 0x01
#define CB_AUX_INT 0x02
#define CB_SYS     0x04
#define CB_KBD_OFF 0x10
#define CB_AUX_OFF 0x20
#define CB_XLATE   0x40
#define CB_DEFAULT (CB_KBD_INT | CB_SYS | CB_AUX_OFF | CB_XLATE)

#define OUT_RESET 0x01 /* output port: low resets */
#define OUT_A20   0x02
#define OUT_KBD   0x10
#define OUT_AUX   0x20

#define P92_RESET 0x01
#define P92_A20   0x02

#define ACK    0xfa
#define RESEND 0xfe
#define BAT_OK 0xaa
#define BREAK  0xf0 /* before the code of a key that goes up, in set 2 */
#define PREFIX 0xe0

enum source { SRC_CTL, SRC_KBD, SRC_AUX, NR_SOURCES };

struct ps2 {
	struct device dev;
	struct region data_region, status_region, port92_region;
	bool line[2]; /* as driven last: keyboard, mouse */
	u8 ram[32];   /* the controller's; byte 0 is the command byte */
	u8 port92;
	bool a20;
	bool a2;
	bool obf;
	u8 obuf;
	u8 obuf_src;   /* enum source; a controller byte may pose as the mouse's (SRC_AUX) */
	bool xlate_up; /* F0H has been translated, its key comes next */
	u8 expect;     /* controller command that waits for its parameter, 0: none */
	/* Queues: of the controller, the keyboard, the mouse. */
	u8 queue[NR_SOURCES * QUEUE_SIZE];
	u8 count[NR_SOURCES];
	u8 last[NR_SOURCES]; /* last byte sent, for "resend" */
	/* Keyboard. */
	u8 kbd_cmd;
	u8 scan_set;
	u8 leds;
	u8 typematic;
	bool kbd_on;
	/* Mouse. */
	u8 aux_cmd;
	u8 resolution;
	u8 rate;
	bool aux_on;
	bool scale21;
	bool remote;
	bool wrap;
};

static u8 *command_byte(struct ps2 *p)
{
	return &p->ram[0];
}

static void send(struct ps2 *p, enum source src, u8 byte)
{
	if (p->count[src] < QUEUE_SIZE)
		p->queue[src * QUEUE_SIZE + p->count[src]++] = byte;
}

/* Set 2's codes by set 1's [8042 Scan Code Translation]; 0: no key. */
static const u8 set2[] = {
	0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
	0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
	0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
	0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
	0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
	0x72, 0x7a, 0x70, 0x71, 0x7f, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
};

/* What the controller makes of a byte of the keyboard: of F0H nothing but bit 7 of the next one. */
static u8 translate(struct ps2 *p, u8 byte)
{
	u8 up = p->xlate_up ? 0x80 : 0;

	p->xlate_up = false;
	if (byte == 0x02) /* no key's; an answer's */
		byte = 0x83;
	for (unsigned key = 1; key < ARRAY_SIZE(set2); key++)
		if (set2[key] == byte)
			return (u8)key | up;
	return byte | up;
}

static bool next_is_translated(struct ps2 *p)
{
	return *command_byte(p) & CB_XLATE && p->queue[SRC_KBD * QUEUE_SIZE] == BREAK;
}

static void update_lines(struct ps2 *p)
{
	bool kbd = p->obf && p->obuf_src != SRC_AUX && (*command_byte(p) & CB_KBD_INT);
	bool aux = p->obf && p->obuf_src == SRC_AUX && (*command_byte(p) & CB_AUX_INT);

	if (kbd != p->line[0])
		irq_set(p->dev.vm, PS2_KBD_GSI, kbd);
	if (aux != p->line[1])
		irq_set(p->dev.vm, PS2_AUX_GSI, aux);
	p->line[0] = kbd;
	p->line[1] = aux;
}

static u8 take(struct ps2 *p, enum source src)
{
	u8 *q = &p->queue[src * QUEUE_SIZE];
	u8 byte = q[0];

	p->count[src]--;
	memmove(q, q + 1, QUEUE_SIZE - 1);
	p->last[src] = byte;
	return byte;
}

/* Fills the output buffer if it is empty and somebody has a byte. */
static void load(struct ps2 *p)
{
	if (!p->obf) {
		p->obf = true;
		if (p->count[SRC_CTL]) {
			p->obuf = take(p, SRC_CTL);
			p->obuf_src = SRC_CTL;
		} else if (p->count[SRC_KBD] && !(*command_byte(p) & CB_KBD_OFF)) {
			if (next_is_translated(p)) {
				take(p, SRC_KBD);
				p->xlate_up = true;
				p->obf = false;
				load(p);
				return;
			}
			p->obuf = take(p, SRC_KBD);
			p->obuf_src = SRC_KBD;
			if (*command_byte(p) & CB_XLATE)
				p->obuf = translate(p, p->obuf);
		} else if (p->count[SRC_AUX] && !(*command_byte(p) & CB_AUX_OFF)) {
			p->obuf = take(p, SRC_AUX);
			p->obuf_src = SRC_AUX;
		} else {
			p->obf = false;
		}
	}
	update_lines(p);
}

/* Puts a byte into the output buffer as if src had sent it; what was there is lost [8042 D2H, D3H]. */
static void force(struct ps2 *p, enum source src, u8 byte)
{
	p->obf = false;
	update_lines(p); /* so that the interrupt has an edge */
	p->obf = true;
	p->obuf = byte;
	p->obuf_src = (u8)src;
}

/* ---- keys ---- */

bool ps2_key(struct device *dev, u8 key, bool down)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);
	bool extended = key & PS2_EXTENDED, taken;
	u8 code = key & (u8)~PS2_EXTENDED;

	assert(code && code < ARRAY_SIZE(set2));
	pthread_mutex_lock(dev->lock);
	/* A key that cannot be sent whole is not sent at all. */
	taken = p->count[SRC_KBD] + 3 <= QUEUE_SIZE;
	if (taken && p->kbd_on) {
		if (extended)
			send(p, SRC_KBD, PREFIX);
		if (p->scan_set == 1) {
			send(p, SRC_KBD, down ? code : code | 0x80);
		} else {
			if (!down)
				send(p, SRC_KBD, BREAK);
			send(p, SRC_KBD, set2[code]);
		}
		load(p);
	}
	pthread_mutex_unlock(dev->lock);
	return taken;
}

bool ps2_idle(struct device *dev)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);
	bool idle;

	pthread_mutex_lock(dev->lock);
	idle = !p->count[SRC_KBD] && !(p->obf && p->obuf_src == SRC_KBD);
	pthread_mutex_unlock(dev->lock);
	return idle;
}

static void kbd_defaults(struct ps2 *p)
{
	p->scan_set = 2;
	p->typematic = 0x2b;
	p->leds = 0;
	p->kbd_cmd = 0;
}

static void kbd_parameter(struct ps2 *p, u8 byte)
{
	u8 cmd = p->kbd_cmd;

	p->kbd_cmd = 0;
	switch (cmd) {
	case 0xed: p->leds = byte & 7; break;
	case 0xf0:
		if (byte > 3) {
			send(p, SRC_KBD, RESEND);
			return;
		}
		send(p, SRC_KBD, ACK);
		if (byte)
			p->scan_set = byte;
		else
			send(p, SRC_KBD, p->scan_set);
		return;
	case 0xf3: p->typematic = byte & 0x7f; break;
	default: break; /* FBH-FDH: a key's type, of set 3 */
	}
	send(p, SRC_KBD, ACK);
}

static void kbd_write(struct ps2 *p, u8 byte)
{
	/* A command where a parameter is due puts an end to the wait. */
	if (p->kbd_cmd && byte < 0xed) {
		kbd_parameter(p, byte);
		return;
	}
	p->kbd_cmd = 0;
	switch (byte) {
	case 0xed: /* LEDs */
	case 0xf0: /* scan code set */
	case 0xf3: /* typematic rate */
	case 0xfb: /* types of single keys */
	case 0xfc:
	case 0xfd:
		send(p, SRC_KBD, ACK);
		p->kbd_cmd = byte;
		break;
	case 0xee: send(p, SRC_KBD, 0xee); break; /* echo */
	case 0xf2:
		send(p, SRC_KBD, ACK);
		send(p, SRC_KBD, 0xab);
		send(p, SRC_KBD, 0x83);
		break;
	case 0xf4:
		send(p, SRC_KBD, ACK);
		p->kbd_on = true;
		break;
	case 0xf5:
		send(p, SRC_KBD, ACK);
		kbd_defaults(p);
		p->kbd_on = false;
		break;
	case 0xf6:
		send(p, SRC_KBD, ACK);
		kbd_defaults(p);
		break;
	case 0xf7: /* types of all keys */
	case 0xf8:
	case 0xf9:
	case 0xfa: send(p, SRC_KBD, ACK); break;
	case 0xfe: send(p, SRC_KBD, p->last[SRC_KBD]); break;
	case 0xff:
		p->count[SRC_KBD] = 0;
		kbd_defaults(p);
		p->kbd_on = true;
		send(p, SRC_KBD, ACK);
		send(p, SRC_KBD, BAT_OK);
		break;
	default: send(p, SRC_KBD, RESEND); break;
	}
}

static void aux_defaults(struct ps2 *p)
{
	p->aux_cmd = 0;
	p->resolution = 2; /* 4 counts per mm */
	p->rate = 100;
	p->aux_on = false;
	p->scale21 = false;
	p->remote = false;
	p->wrap = false;
}

/* A mouse that has not moved, no button pressed. */
static void aux_packet(struct ps2 *p)
{
	send(p, SRC_AUX, 0x08);
	send(p, SRC_AUX, 0);
	send(p, SRC_AUX, 0);
}

static void aux_write(struct ps2 *p, u8 byte)
{
	if (p->aux_cmd) {
		if (p->aux_cmd == 0xe8)
			p->resolution = byte & 3;
		else
			p->rate = byte;
		p->aux_cmd = 0;
		send(p, SRC_AUX, ACK);
		return;
	}
	/* In wrap mode everything but its end and a reset comes back. */
	if (p->wrap && byte != 0xec && byte != 0xff) {
		send(p, SRC_AUX, byte);
		return;
	}
	switch (byte) {
	case 0xe6:
	case 0xe7: p->scale21 = byte & 1; break;
	case 0xe8: /* resolution */
	case 0xf3: /* sample rate */ p->aux_cmd = byte; break;
	case 0xe9:
		send(p, SRC_AUX, ACK);
		send(p, SRC_AUX, (u8)(p->remote << 6 | p->aux_on << 5 | p->scale21 << 4));
		send(p, SRC_AUX, p->resolution);
		send(p, SRC_AUX, p->rate);
		return;
	case 0xea: p->remote = false; break;
	case 0xeb:
		send(p, SRC_AUX, ACK);
		aux_packet(p);
		return;
	case 0xec: p->wrap = false; break;
	case 0xee: p->wrap = true; break;
	case 0xf0: p->remote = true; break;
	case 0xf2:
		send(p, SRC_AUX, ACK);
		send(p, SRC_AUX, 0); /* a plain mouse */
		return;
	case 0xf4: p->aux_on = true; break;
	case 0xf5: p->aux_on = false; break;
	case 0xf6: aux_defaults(p); break;
	case 0xfe: send(p, SRC_AUX, p->last[SRC_AUX]); return;
	case 0xff:
		p->count[SRC_AUX] = 0;
		aux_defaults(p);
		send(p, SRC_AUX, ACK);
		send(p, SRC_AUX, BAT_OK);
		send(p, SRC_AUX, 0);
		return;
	default: send(p, SRC_AUX, RESEND); return;
	}
	send(p, SRC_AUX, ACK);
}

static void machine_reset(struct ps2 *p)
{
	vm_request(p->dev.vm, VM_REQ_RESET);
}

static u8 output_port(const struct ps2 *p)
{
	u8 val = OUT_RESET;

	if (p->a20)
		val |= OUT_A20;
	if (p->line[0])
		val |= OUT_KBD;
	if (p->line[1])
		val |= OUT_AUX;
	return val;
}

static void set_a20(struct ps2 *p, bool on)
{
	p->a20 = on;
	if (ram_set_a20(&p->dev.vm->ram, on))
		vm_memory_changed(p->dev.vm);
}

static void write_output_port(struct ps2 *p, u8 val)
{
	set_a20(p, val & OUT_A20);
	if (!(val & OUT_RESET))
		machine_reset(p);
}

/* A byte to port 60H: the parameter of a controller command, or for the keyboard. */
static void write_data(struct ps2 *p, u8 val)
{
	u8 cmd = p->expect;

	p->expect = 0;
	if (cmd >= 0x60 && cmd <= 0x7f) {
		p->ram[cmd & 0x1f] = val;
		return;
	}
	switch (cmd) {
	case 0xd1: write_output_port(p, val); break;
	case 0xd2: force(p, SRC_KBD, val); break;
	case 0xd3: force(p, SRC_AUX, val); break;
	case 0xd4:
		/* Speaking to a device switches its interface on, or the answer would never come. */
		*command_byte(p) &= (u8)~CB_AUX_OFF;
		aux_write(p, val);
		break;
	default:
		*command_byte(p) &= (u8)~CB_KBD_OFF;
		kbd_write(p, val);
		break;
	}
}

static void write_command(struct ps2 *p, u8 cmd)
{
	p->expect = 0;
	if (cmd >= 0x20 && cmd <= 0x3f) {
		send(p, SRC_CTL, p->ram[cmd & 0x1f]);
		return;
	}
	if (cmd >= 0x60 && cmd <= 0x7f) {
		p->expect = cmd;
		return;
	}
	/* F0H-FFH pulse the output lines whose bit is clear; only bit 0 leads anywhere: reset. */
	if (cmd >= 0xf0) {
		if (!(cmd & OUT_RESET))
			machine_reset(p);
		return;
	}
	switch (cmd) {
	case 0xa7: *command_byte(p) |= CB_AUX_OFF; break;
	case 0xa8: *command_byte(p) &= (u8)~CB_AUX_OFF; break;
	case 0xa9: send(p, SRC_CTL, 0); break; /* mouse interface: no fault */
	case 0xaa:
		*command_byte(p) |= CB_SYS;
		send(p, SRC_CTL, 0x55);
		break;
	case 0xab: send(p, SRC_CTL, 0); break;
	case 0xad: *command_byte(p) |= CB_KBD_OFF; break;
	case 0xae: *command_byte(p) &= (u8)~CB_KBD_OFF; break;
	case 0xc0: send(p, SRC_CTL, 0x80); break; /* input port: not locked */
	case 0xd0: send(p, SRC_CTL, output_port(p)); break;
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: p->expect = cmd; break;
	case 0xdd: set_a20(p, false); break;
	case 0xdf: set_a20(p, true); break;
	default: break; /* unknown ones are ignored */
	}
}

static u64 data_read(void *opaque, u64 offset, unsigned size)
{
	struct ps2 *p = opaque;
	u8 val = p->obuf;

	/* The line falls before the next byte raises it again: an edge for each byte. */
	p->obf = false;
	update_lines(p);
	load(p);
	return val;
}

static void data_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct ps2 *p = opaque;

	p->a2 = false;
	write_data(p, (u8)val);
	load(p);
}

static u64 status_read(void *opaque, u64 offset, unsigned size)
{
	struct ps2 *p = opaque;
	u8 val = ST_INH;

	if (p->obf)
		val |= ST_OBF | (p->obuf_src == SRC_AUX ? ST_AUX : 0);
	if (*command_byte(p) & CB_SYS)
		val |= ST_SYS;
	if (p->a2)
		val |= ST_A2;
	return val;
}

static void status_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct ps2 *p = opaque;

	p->a2 = true;
	write_command(p, (u8)val);
	load(p);
}

static u64 port92_read(void *opaque, u64 offset, unsigned size)
{
	struct ps2 *p = opaque;

	return (p->port92 & (u8)~P92_A20) | (p->a20 ? P92_A20 : 0);
}

static void port92_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct ps2 *p = opaque;
	bool rises = val & ~(u64)p->port92 & P92_RESET;

	p->port92 = val & P92_RESET;
	set_a20(p, val & P92_A20);
	if (rises)
		machine_reset(p);
}

static const struct region_ops data_ops = { .read = data_read, .write = data_write, .max_size = 1 };
static const struct region_ops status_ops = { .read = status_read, .write = status_write, .max_size = 1 };
static const struct region_ops port92_ops = { .read = port92_read, .write = port92_write, .max_size = 1 };

static int ps2_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);
	struct bus *bus = &dev->vm->bus;
	int ret;

	p->data_region = (struct region){ "8042 data", &data_ops, p, dev->lock, BUS_PIO, PS2_DATA, 1 };
	p->status_region =
		(struct region){ "8042 command", &status_ops, p, dev->lock, BUS_PIO, PS2_STATUS, 1 };
	p->port92_region = (struct region){ "port 92H", &port92_ops, p, dev->lock, BUS_PIO, PS2_PORT92, 1 };
	ret = bus_add(bus, &p->data_region);
	if (!ret)
		ret = bus_add(bus, &p->status_region);
	if (!ret)
		ret = bus_add(bus, &p->port92_region);
	return ret ? err_sys(err, ret, "cannot place the keyboard controller at its ports") : 0;
}

static void ps2_reset(struct device *dev, enum reset_kind kind)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);

	memset(p->ram, 0, sizeof(p->ram));
	*command_byte(p) = CB_DEFAULT;
	p->port92 = 0;
	set_a20(p, true);
	p->a2 = false;
	p->obf = false;
	p->obuf = 0;
	p->obuf_src = SRC_CTL;
	p->expect = 0;
	p->xlate_up = false;
	memset(p->queue, 0, sizeof(p->queue));
	memset(p->count, 0, sizeof(p->count));
	memset(p->last, 0, sizeof(p->last));
	kbd_defaults(p);
	p->kbd_on = true;
	aux_defaults(p);
	update_lines(p);
}

static int ps2_post_load(struct device *dev, struct err *err)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);

	for (unsigned i = 0; i < NR_SOURCES; i++) {
		if (p->count[i] > QUEUE_SIZE)
			return err_set(err, -EINVAL,
				       "the state of the keyboard controller has a queue of %u bytes",
				       p->count[i]);
	}
	if (p->obuf_src >= NR_SOURCES || p->scan_set > 3)
		return err_set(err, -EINVAL,
			       "the state of the keyboard controller holds values it cannot have");
	set_a20(p, p->a20);
	p->line[0] = p->obf && p->obuf_src != SRC_AUX && (*command_byte(p) & CB_KBD_INT);
	p->line[1] = p->obf && p->obuf_src == SRC_AUX && (*command_byte(p) & CB_AUX_INT);
	irq_set(dev->vm, PS2_KBD_GSI, p->line[0]);
	irq_set(dev->vm, PS2_AUX_GSI, p->line[1]);
	return 0;
}

static void ps2_fini(struct device *dev)
{
	struct ps2 *p = container_of(dev, struct ps2, dev);

	bus_del(&dev->vm->bus, &p->data_region);
	bus_del(&dev->vm->bus, &p->status_region);
	bus_del(&dev->vm->bus, &p->port92_region);
}

static const struct state_field ps2_state[] = {
	STATE_U8S(ps2, ram),
	STATE_U8(ps2, port92),
	STATE_BOOL(ps2, a20),
	STATE_BOOL(ps2, a2),
	STATE_BOOL(ps2, obf),
	STATE_U8(ps2, obuf),
	STATE_U8(ps2, obuf_src),
	STATE_U8(ps2, expect),
	STATE_BOOL(ps2, xlate_up),
	STATE_U8S(ps2, queue),
	STATE_U8S(ps2, count),
	STATE_U8S(ps2, last),
	STATE_U8(ps2, kbd_cmd),
	STATE_U8(ps2, scan_set),
	STATE_U8(ps2, leds),
	STATE_U8(ps2, typematic),
	STATE_BOOL(ps2, kbd_on),
	STATE_U8(ps2, aux_cmd),
	STATE_U8(ps2, resolution),
	STATE_U8(ps2, rate),
	STATE_BOOL(ps2, aux_on),
	STATE_BOOL(ps2, scale21),
	STATE_BOOL(ps2, remote),
	STATE_BOOL(ps2, wrap),
	STATE_END,
};

const struct device_ops ps2_device = {
	.name = "ps2",
	.size = sizeof(struct ps2),
	.init = ps2_init,
	.reset = ps2_reset,
	.state = ps2_state,
	.post_load = ps2_post_load,
	.fini = ps2_fini,
};
