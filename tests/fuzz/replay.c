/* A main() for a fuzz target where no fuzzing engine is linked.
 *
 *	fuzz_x [SEED [COUNT]]   COUNT random inputs; input i depends on SEED + i alone
 *	fuzz_x FILE...          these inputs, such as a crash that a fuzzing engine has found
 *
 * A target defines LLVMFuzzerTestOneInput() and aborts on what must not happen. With clang the same file is a
 * target of libFuzzer: see meson.build.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/types.h"

#define MAX_INPUT 4096

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

/* Where the library of a sanitizer is linked. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static const char *program;
static char how[512]; /* to repeat the input that runs */

/* On the way down. */
static void last_words(void)
{
	ssize_t n = write(STDERR_FILENO, how, strlen(how));

	(void)n;
}

static void on_abort(int sig)
{
	last_words();
}

static u64 next(u64 *rng)
{
	u64 x = *rng += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void run_random(u64 seed)
{
	const char *engine = getenv("BOTHY_ENGINE"); /* for targets that have one */
	u64 rng = seed;
	size_t len =
		next(&rng) % (1ull << (4 + next(&rng) % 9)); /* short ones and long ones, below MAX_INPUT */
	u8 *data = malloc(len ? len : 1);                    /* of its own size, for the sanitizer */

	for (size_t i = 0; i < len; i++)
		data[i] = (u8)next(&rng);
	snprintf(how, sizeof(how), "repeat it with: %s%s%s%s %llu 1\n", engine ? "BOTHY_ENGINE=" : "",
		 engine ? engine : "", engine ? " " : "", program, (unsigned long long)seed);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
}

static int run_file(const char *path)
{
	struct err err;
	void *data;
	size_t len;

	if (os_read_file(path, MAX_INPUT * 256, &data, &len, &err) < 0) {
		fprintf(stderr, "%s: %s\n", program, err.msg);
		return 1;
	}
	printf("%s: %s, %zu bytes\n", program, path, len);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	u64 seed = 1, count = 2000;
	char *end = NULL;

	program = argv[0];
	signal(SIGABRT, on_abort); /* returns, and abort() goes on */
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(last_words);
	if (argc > 1)
		seed = strtoull(argv[1], &end, 0);
	if (end && *end) {
		for (int i = 1; i < argc; i++)
			if (run_file(argv[i]))
				return 1;
		return 0;
	}
	if (argc > 2)
		count = strtoull(argv[2], NULL, 0);
	printf("%s: seed %llu, %llu inputs\n", program, (unsigned long long)seed, (unsigned long long)count);
	fflush(stdout);
	for (u64 i = 0; i < count; i++)
		run_random(seed + i);
	return 0;
}
