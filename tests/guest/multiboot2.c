/* Started by a Multiboot 2 loader: what it gives is true of the machine. [MB2 3.6] */
#include "lib/guest.h"

#define WIDTH  640
#define HEIGHT 480

struct tag {
	u32 type, size;
	u32 data[];
};

static const struct tag *find(u32 type)
{
	const u32 *info = (const u32 *)(uptr)multiboot_info;
	const struct tag *t = (const struct tag *)(info + 2);

	while (t->type && t->type != type)
		t = (const struct tag *)((uptr)t + ((t->size + 7) & ~7u));
	return t->type ? t : NULL;
}

static bool starts_with(const char *text, const char *with)
{
	while (*with)
		if (*text++ != *with++)
			return false;
	return true;
}

static void test_memory(void)
{
	const struct tag *map = find(6), *basic = find(4);
	u64 ram = 0;

	check(map && map->data[0] == 24, "there is a memory map");
	for (u32 at = 16; map && at < map->size; at += 24) {
		const u64 *e = (const u64 *)((uptr)map + at);

		if ((u32)e[2] == 1)
			ram += e[1];
	}
	check(ram > 255 * 1024 * 1024ull && ram < 257 * 1024 * 1024ull, "it has 256 MiB: %llu", ram);
	check(basic && basic->data[0] > 600 && basic->data[1] == 255 * 1024, "the sizes agree");
}

static void test_acpi(void)
{
	const struct tag *t = find(14);
	const u8 *p = (const u8 *)(t ? t->data : NULL);
	u8 sum = 0;

	for (unsigned i = 0; p && i < 20; i++)
		sum = (u8)(sum + p[i]);
	check(p && starts_with((const char *)p, "RSD PTR ") && !sum,
	      "a root pointer of ACPI with its check sum");
}

static void test_frame_buffer(void)
{
	const struct tag *t = find(8);
	volatile u32 *pixel;

	check(t && t->data[3] == WIDTH && t->data[4] == HEIGHT && (t->data[5] & 0xffff) == 0x0120,
	      "a frame buffer of %u x %u", t ? t->data[3] : 0, t ? t->data[4] : 0);
	if (!t)
		return;
	pixel = (volatile u32 *)(uptr)t->data[0];
	pixel[0] = 0x00ff8040;
	pixel[WIDTH * HEIGHT - 1] = 0x00123456;
	check(pixel[0] == 0x00ff8040 && pixel[WIDTH * HEIGHT - 1] == 0x00123456, "it is memory");
	outw(0x1ce, 4);
	check(inw(0x1cf) & 1, "and on the screen");
}

void guest_main(void)
{
	check(multiboot_magic == 0x36d76289 && !(multiboot_info & 7), "the loader says that it is one: %x",
	      multiboot_magic);
	if (multiboot_magic != 0x36d76289)
		return;
	check(find(1) && find(2) && starts_with((const char *)find(2)->data, "bothy"),
	      "command line and loader's name");
	check(*(volatile u16 *)0x413 > 600, "the BIOS data area has the memory's size");
	test_memory();
	test_acpi();
	test_frame_buffer();
}
