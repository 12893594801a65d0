/* The same kernels as an ordinary program: "native NAME ROUNDS" prints the checksum and the nanoseconds;
 * without arguments it lists names and rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

int main(int argc, char **argv)
{
	for (const struct kernel *k = kernels; k->name; k++) {
		uint64_t t0, sum;

		if (argc < 3) {
			printf("%s %u\n", k->name, k->rounds);
			continue;
		}
		if (strcmp(argv[1], k->name))
			continue;
		t0 = now_ns();
		sum = k->run((uint32_t)strtoul(argv[2], NULL, 10));
		printf("%016lx %lu\n", (unsigned long)sum, (unsigned long)(now_ns() - t0));
		return 0;
	}
	return argc < 3 ? 0 : 1;
}
