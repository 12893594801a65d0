/* What firmware talks to, driven by an input: fw_cfg's ports and DMA descriptors of any content [G43], flash commands, shadow RAM and
 * ECAM. Whatever is done, only RAM changes that may: the ROM behind the flash stays as it was, and so does what RAM hides.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dev/fwcfg.h"
#include "dev/pci.h"
#include "fakeboard.h"

#define RAM   (2 * MiB)
#define ROM   (256 * KiB)
#define SIZE  (64 * KiB)
#define FLASH (4 * GiB - ROM)

struct input {
	const u8 *p, *end;
};

static u8 take8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

static u32 take32(struct input *in)
{
	return take8(in) | take8(in) << 8 | take8(in) << 16 | (u32)take8(in) << 24;
}

/* Addresses where something begins or ends, more often than others. */
static u64 take_address(struct input *in)
{
	static const u64 edge[] = { 0,          0x1000, 0xc0000,      0xe0000,    0xf0000,
				    0x100000,   RAM,    0xb0000000,   0xe0000000, 0xfec00000,
				    0xfee00000, FLASH,  FLASH + SIZE, 4 * GiB,    ~0ull };
	u8 kind = take8(in);

	if (kind < 0x40)
		return (u64)take32(in) << 32 | take32(in);
	if (kind < 0x80)
		return take32(in) % RAM;
	return edge[kind % ARRAY_SIZE(edge)] + (u64)(s64)(s8)take8(in);
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "fuzz_firmware: %s\n", what);
	abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct board b;
	static u8 want[ROM];
	struct input in = { data, data + len };
	struct bus *bus = &b.vm.bus;
	struct device *fwcfg;
	struct ram *ram = &b.vm.ram;

	board_init_rom(&b, RAM, ROM, 1);
	memset(ram->rom_ptr + SIZE, 0x5a, ROM - SIZE);
	board_add(&b, "pci", &(const struct device_conf){ .id = NULL });
	fwcfg = board_add(&b, "fwcfg", &(const struct device_conf){ .id = NULL });
	board_add(&b, "pflash", &(const struct device_conf){ .base = SIZE });
	fwcfg_add_file(fwcfg, "file", want, 1000, NULL);
	while (in.p < in.end) {
		switch (take8(&in) % 8) {
		case 0: bus_write(bus, BUS_PIO, 0x510, 2, take8(&in) % 2 ? take8(&in) : take32(&in)); break;
		case 1: bus_read(bus, BUS_PIO, 0x510 + take8(&in) % 12, 1u << take8(&in) % 3); break;
		case 2: {
			u64 at = take_address(&in);
			u8 *p = ram_ptr(ram, at, 16);

			if (p && !ram_has_rom(ram, at, 16)) {
				st32be(p, take8(&in) | (u32)take8(&in) << 16);
				st32be(p + 4, take8(&in) % 4 ? take8(&in) : take32(&in));
				st64be(p + 8, take_address(&in));
			}
			bus_write(bus, BUS_PIO, 0x514, 4, __builtin_bswap32((u32)(at >> 32)));
			bus_write(bus, BUS_PIO, 0x518, 4, __builtin_bswap32((u32)at));
			break;
		}
		case 3: {
			static const u8 commands[] = { 0xff, 0x10, 0x20, 0x40, 0x50, 0x60,
						       0x70, 0x90, 0x98, 0xd0, 0xe8 };
			u8 k = take8(&in);

			bus_write(bus, BUS_MMIO, FLASH + take32(&in) % SIZE, 1u << k % 4,
				  k < 128 ? commands[k % ARRAY_SIZE(commands)] : take32(&in));
			break;
		}
		case 4: bus_read(bus, BUS_MMIO, FLASH + take32(&in) % SIZE, 1u << take8(&in) % 4); break;
		case 5: {
			u8 reg = take8(&in);

			bus_write(bus, BUS_PIO, 0xcf8, 4,
				  BIT(31) | (reg % 2 ? 0x90 + reg % 8 : 0x60 + reg % 8));
			bus_write(bus, BUS_PIO, 0xcfc, 1u << take8(&in) % 3, take32(&in));
			break;
		}
		case 6:
			bus_write(bus, BUS_MMIO, 0xc0000 + take32(&in) % 0x40000, 1u << take8(&in) % 4,
				  take32(&in));
			break;
		default:
			switch (take8(&in)) {
			case 0: device_reset_all(&b.vm, RESET_WARM); break;
			case 1: device_reset_all(&b.vm, RESET_SLEEP); break;
			}
			break;
		}
	}
	memset(want, 0x5a, sizeof(want));
	must(!memcmp(ram->rom_ptr + SIZE, want, ROM - SIZE), "ROM has changed");
	must(ram_ptr(ram, FLASH + SIZE, ROM - SIZE), "ROM is not there");
	device_reset_all(&b.vm, RESET_WARM);
	must(ram_ptr(ram, FLASH, ROM), "flash is not memory after a reset");
	must(!memcmp(ram->base + 0xf0000, want, 0x10000), "the copy of the ROM is not there after a reset");
	board_fini(&b);
	return 0;
}
