/* The bare-metal end: runs the kernel that the command line names, "IMAGE NAME ROUNDS", writes its
 * checksum to the serial port and ends the machine through the debug-exit port.
 */
#include <stddef.h>

#include "kernels.h"

void guest_main(const uint32_t *info);

static void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void put(char c)
{
	while (!(in8(0x3fd) & 0x20))
		;
	out8(0x3f8, (uint8_t)c);
}

static void put_hex(uint64_t v)
{
	for (int i = 60; i >= 0; i -= 4)
		put("0123456789abcdef"[v >> i & 15]);
	put('\n');
}

static int word_is(const char *p, const char *name)
{
	while (*name && *p == *name)
		p++, name++;
	return !*name && (!*p || *p == ' ');
}

static const char *next_word(const char *p)
{
	while (*p && *p != ' ')
		p++;
	while (*p == ' ')
		p++;
	return p;
}

void guest_main(const uint32_t *info)
{
	/* flags bit 2: cmdline, at offset 16 [MB 3.3] */
	const char *line = info[0] & 4 ? (const char *)(uintptr_t)info[4] : "";
	const char *name = next_word(line), *p;
	uint32_t rounds = 0;

	for (p = next_word(name); *p >= '0' && *p <= '9'; p++)
		rounds = rounds * 10 + (uint32_t)(*p - '0');
	for (const struct kernel *k = kernels; k->name; k++) {
		if (!word_is(name, k->name))
			continue;
		put_hex(k->run(rounds));
		out8(0xf4, 0);
	}
	out8(0xf4, 1);
}
