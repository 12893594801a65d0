/* What the account of exits costs: nanoseconds that an exit takes longer by being counted and timed, of a port at which nothing
 * happens. The least of several rounds; for `./dev bench exits`. */
#include <stdio.h>

#include "base/os.h"
#include "vm/vm.h"

#define EXITS  1000000u
#define ROUNDS 9
#define PORT   0x80

static struct vm vm;
static struct vcpu vcpu = { .vm = &vm };

static u64 nothing_read(void *opaque, u64 offset, unsigned size)
{
	return 0;
}

static void nothing_written(void *opaque, u64 offset, unsigned size, u64 val)
{
}

static const struct region_ops nothing = { .read = nothing_read, .write = nothing_written, .max_size = 4 };
static struct region region = {
	.name = "nothing", .ops = &nothing, .space = BUS_PIO, .base = PORT, .len = 1
};

static double ns_each(bool account)
{
	u64 t0 = os_now_ns();

	for (unsigned n = 0; n < EXITS; n++) {
		struct vm_exit exit = {
			.reason = EXIT_IO, .write = true, .size = 1, .addr = PORT, .data = n
		};

		if (account)
			exit_dispatch(&vcpu, &exit);
		else
			bus_write(&vm.bus, BUS_PIO, exit.addr, exit.size, exit.data);
	}
	return (double)(os_now_ns() - t0) / EXITS;
}

int main(void)
{
	double with = 1e9, without = 1e9;

	vm.tsc_khz = os_tsc_khz();
	if (bus_add(&vm.bus, &region) < 0)
		return 1;
	for (unsigned k = 0; k < ROUNDS; k++) {
		with = MIN(with, ns_each(true));
		without = MIN(without, ns_each(false));
	}
	printf("%.1f\n", with - without);
	return 0;
}
