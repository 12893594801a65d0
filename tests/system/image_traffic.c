/* image_traffic IMAGE MODEL SEED COUNT [kill]: COUNT random writes and zeroes go to a qcow2 image and the same ones to a raw
 * file; flushes in between. With `kill` the process ends by SIGKILL instead of closing the image. For tests that want the
 * opinion of others about what this writes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "host/image.h"

#define MAX_LEN (192 * KiB)

static u64 seed;

static u64 next_random(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 20;
}

static struct image *open_image(const char *path, const char *format)
{
	const struct image_conf conf = { .path = path, .format = format, .backing = true };
	struct err err = { 0 };
	struct image *im;

	if (image_open(&conf, &im, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(1);
	}
	return im;
}

static void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	exit(1);
}

int main(int argc, char **argv)
{
	struct image *to[2];
	u8 *buf;

	if (argc < 5)
		return 2;
	buf = malloc(MAX_LEN);
	if (!buf)
		return 1;
	to[0] = open_image(argv[1], "qcow2");
	to[1] = open_image(argv[2], "raw");
	seed = strtoull(argv[3], NULL, 0);
	for (u64 i = 0, n = strtoull(argv[4], NULL, 0); i < n; i++) {
		u64 len = 512 * (1 + next_random() % (next_random() % 8 ? 32 : MAX_LEN / 512));
		u64 at = next_random() % ((to[0]->size - len) / 512 + 1) * 512, kind = next_random() % 16;
		const struct iovec iov = { buf, len };

		for (u64 k = 0; k < len; k += 8)
			st64(buf + k, next_random());
		for (unsigned k = 0; k < 2; k++)
			if (kind)
				must(to[k]->ops->write(to[k], &iov, 1, at, len), "write");
			else
				must(to[k]->ops->zero(to[k], at, len, i & 1), "zero");
		if (i % 16 == 0)
			must(to[0]->ops->flush(to[0]), "flush");
	}
	must(to[0]->ops->flush(to[0]), "flush");
	if (argc > 5)
		raise(SIGKILL);
	for (unsigned k = 0; k < 2; k++)
		to[k]->ops->close(to[k]);
	free(buf);
	return 0;
}
