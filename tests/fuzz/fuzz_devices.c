/* Hostile traffic to all devices of the board at once, and the test devices with them: bus accesses of every
 * size and value, resets, time, input, interrupts [G23-G25, G37, G40-G42, G45]. See device_traffic.h for what
 * must hold; the rest is the sanitizers' business.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "device_traffic.h"
#include "machine/pc.h"

#define VCPUS 2
#define RAM   (16 * MiB)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct board b;
	static struct fake_chr chr;
	static struct pc pc;
	struct err err;

	board_init(&b, RAM, VCPUS);
	fake_chr_init(&chr);
	if (pc_init(&pc, &b.vm, &err) < 0 || pc_add_devices(&pc, &chr.chr, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	/* Those that the user can add. */
	for (const struct device_ops *const *t = device_types; *t; t++) {
		if ((*t)->help)
			board_add(&b, (*t)->name, &(const struct device_conf){ .chr = &chr.chr });
	}
	device_traffic(&b, &chr, data, len);
	board_fini(&b);
	return 0;
}
