/* The guest's own virtio devices, driven by a madman: rings of random descriptors over all of memory and devices, resets in
 * the middle, notifications as fast as they go, BARs moved over RAM, the local APIC and each other [G01-G17, G19-G24].
 * For ever. */
#include "hostile.h"

#define RINGS  0x4000000ul /* 64 MiB; free, as is what follows to 128 MiB */
#define BARS   0xc8000000ul
#define VENDOR 0x1af4

struct device {
	u32 config; /* address for port CF8H */
	uptr bar;
	unsigned queues;
};

static struct device device[8];
static unsigned nr_devices;

static u32 config_read(u32 config, unsigned off)
{
	outl(0xcf8, config | (off & 0xfc));
	return inl(0xcfc);
}

static void config_write(u32 config, unsigned off, u32 v)
{
	outl(0xcf8, config | (off & 0xfc));
	outl(0xcfc, v);
}

static void place(struct device *d)
{
	config_write(d->config, 0x10, (u32)d->bar);
	config_write(d->config, 0x14, 0);
	config_write(d->config, 0x18, (u32)d->bar + 0x8000);
	config_write(d->config, 4, 6);
}

static void find(void)
{
	for (u32 slot = 0; slot < 32 && nr_devices < 8; slot++) {
		struct device *d = &device[nr_devices];

		d->config = 1u << 31 | slot << 11;
		if ((config_read(d->config, 0) & 0xffff) != VENDOR)
			continue;
		d->bar = BARS + slot * 0x10000;
		place(d);
		d->queues = *(volatile u16 *)(d->bar + 0x12);
		nr_devices++;
	}
}

static void reg8(struct device *d, unsigned off, u8 v)
{
	*(volatile u8 *)(d->bar + off) = v;
}
static void reg16(struct device *d, unsigned off, u16 v)
{
	*(volatile u16 *)(d->bar + off) = v;
}
static void reg32(struct device *d, unsigned off, u32 v)
{
	*(volatile u32 *)(d->bar + off) = v;
}

/* Mostly memory, else what is not. */
static u64 address(void)
{
	static const u64 odd[] = { 0,      ROM,        RAM_END - 8, RAM_END,       HOLE,
				   IOAPIC, 0xfee00000, BARS,        BARS + 0x3000, ~0ull };
	u64 x = next_random();

	if (x & 7)
		return RINGS + 0x100000 + (x >> 8 & 0xfffff);
	return odd[(x >> 8) % (sizeof(odd) / sizeof(odd[0]))] + (x >> 32 & 0xf);
}

static void scribble(uptr ring, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		volatile u64 *p = (volatile u64 *)(ring + (next_random() & 0xff0));
		u64 x = next_random();

		p[0] = address();
		p[1] = (x & 0xfff) | (x >> 12 & 0x80870007ull) << 32 | (x >> 50) << 48;
	}
}

static void start(struct device *d)
{
	u32 offered;

	reg8(d, 0x14, 0);
	reg8(d, 0x14, 3);
	reg32(d, 0, 0);
	offered = *(volatile u32 *)(d->bar + 4);
	reg32(d, 8, 0);
	reg32(d, 0xc, offered);
	reg32(d, 8, 1);
	reg32(d, 0xc, 1);
	reg8(d, 0x14, 0xb);
	for (unsigned q = 0; q < d->queues; q++) {
		uptr ring = RINGS + q * 0x10000;

		reg16(d, 0x16, (u16)q);
		reg16(d, 0x18, (u16)(1u << next_random() % 9));
		reg32(d, 0x20, (u32)ring);
		reg32(d, 0x28, (u32)ring + 0x4000);
		reg32(d, 0x30, (u32)ring + 0x8000);
		reg16(d, 0x1c, 1);
	}
	reg8(d, 0x14, 0xf);
}

static void storm(struct device *d)
{
	unsigned q = (unsigned)next_random() % (d->queues + 1);
	uptr ring = RINGS + q * 0x10000;
	u64 x = next_random();

	switch (x & 15) {
	case 0: start(d); break;
	case 1: reg8(d, 0x14, (u8)(x >> 8)); break;
	case 2: config_write(d->config, (x >> 8) & 0xfc, (u32)(x >> 16)); break;
	case 3: /* a BAR over something else, and back */
		config_write(d->config, 0x10 + (x >> 8 & 8), x & 16 ? 0xfee00000 : (u32)RINGS);
		scribble(ring, 4);
		place(d);
		break;
	case 4: *(volatile u32 *)(d->bar + (x >> 8 & 0x3ffc)) = (u32)(x >> 32); break;
	case 5: (void)*(volatile u32 *)(d->bar + (x >> 8 & 0x3ffc)); break;
	case 6: *(volatile u32 *)(d->bar + 0x8000 + (x >> 8 & 0xffc)) = (u32)(x >> 32); break;
	default:
		scribble(ring, 8);
		*(volatile u16 *)(ring + 0x4004 + (x >> 8 & 0x1e)) = x >> 16 & 15;
		*(volatile u16 *)(ring + 0x4002) = (u16)(*(volatile u16 *)(ring + 0x4002) + (x >> 24 & 3));
		for (unsigned i = 0; i < 16; i++)
			reg16(d, 0x3000 + 4 * q, (u16)q);
	}
}

void guest_main(void)
{
	find();
	check(nr_devices >= 2, "%u virtio devices", nr_devices);
	for (u64 n = 0;; n++) {
		struct device *d = &device[n % nr_devices];

		if (n % 256 == 0) {
			place(d);
			start(d);
		}
		storm(d);
		if (n == 200000)
			ready();
	}
}
