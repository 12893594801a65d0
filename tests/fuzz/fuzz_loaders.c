/* Hostile kernel images [A11]: images of every kind with random damage go through boot_load().
 *
 * fuzz_loaders [SEED [COUNT]]: with the same seed the same images. What must hold for each: the image is
 * not read beyond its end (it lies in memory of its own size, for the sanitizer), guest memory outside the
 * map's RAM stays untouched, a refusal has a sentence, and a loaded kernel has a state that hangs together.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "../unit/boot_images.h"

#define GUEST_SIZE (8 * MiB)
#define MAX_IMAGE  16384

static u64 rng;

static u32 rnd(u32 below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (u32)((rng >> 16) % below);
}

/* Values that sit on edges, more often than chance has them. */
static u64 rnd_value(void)
{
	static const u64 edges[] = {
		0,          1,          4,           0xf,        0xfff,      0x1000,         0x7fffffff,
		0x80000000, 0xffffffff, 0x100000000, MiB,        GUEST_SIZE, GUEST_SIZE - 1, 0x9f000,
		0xe0000,    0xfffff000, ~0ull,       ~0ull - 15, 1ull << 63
	};

	switch (rnd(4)) {
	case 0: return edges[rnd(ARRAY_SIZE(edges))];
	case 1: return edges[rnd(ARRAY_SIZE(edges))] + rnd(64) - 32;
	case 2: return rnd(0x10000);
	default: return (u64)rnd(0x7fffffff) << 32 | rnd(0x7fffffff);
	}
}

static size_t make_multiboot2(u8 *buf)
{
	size_t len = ALIGN_UP(make_elf(buf, rnd(2), 0x200000, 0), 8ul), at = len + 16;

	memset(buf + len, 0, 1024);
	for (u32 n = rnd(6); n > 0; n--) {
		static const u8 words[] = { 3, 4, 1, 1, 3, 0, 0, 1, 1, 4, 2 }; /* of tags 1 to 11 */
		u16 type = (u16)(1 + rnd(11));

		st16(buf + at, type);
		st16(buf + at + 2, type == 2 || type == 11 || rnd(2));
		st32(buf + at + 4, 8 + 4u * words[type - 1]);
		for (unsigned i = 0; i < words[type - 1]; i++)
			st32(buf + at + 8 + 4 * i, type == 1 ? rnd(22) : (u32)rnd_value());
		if (type == 10 && rnd(2)) {
			st32(buf + at + 8, 0x100000);
			st32(buf + at + 12, 0xffffffff);
			st32(buf + at + 16, 1u << rnd(24));
			st32(buf + at + 20, rnd(4));
		}
		at += ALIGN_UP(8 + 4u * words[type - 1], 8u);
	}
	st32(buf + at + 4, 8);
	put_multiboot2(buf, (u32)len, (u32)(at + 8 - len));
	return at + 8 + rnd(2) * 64;
}

static size_t make_image(u8 *buf)
{
	u32 addr[5] = { 0x200000, 0x200000, 0, 0, 0x200000 };
	size_t len;

	switch (rnd(6)) {
	case 5: return make_multiboot2(buf);
	case 0:
		len = make_bzimage(buf, 4096);
		/* Into the small guest. */
		st64(buf + 0x258, 0x200000);
		st32(buf + 0x260, 0x10000);
		return len;
	case 1: return make_elf(buf, rnd(2), 0x200000, 0);
	case 2:
		len = make_elf(buf, rnd(2), 0x200000, 0);
		memset(buf + len, 0, 64);
		put_multiboot(buf, (u32)len, 0, NULL);
		return len + 64;
	case 3:
		memset(buf, 0, 4096);
		put_multiboot(buf, 4 * rnd(900), BIT(16), addr);
		return 4096;
	default:
		for (len = 0; len < 2048; len++)
			buf[len] = (u8)rnd(256);
		return len;
	}
}

static void damage(u8 *buf, size_t *len)
{
	for (u32 n = rnd(6); n > 0; n--) {
		/* Headers are where decisions are made. */
		size_t at = rnd(3) ? rnd((u32)MIN(*len, (size_t)0x2a0)) : rnd((u32)*len);

		switch (rnd(4)) {
		case 0: buf[at] ^= (u8)(1u << rnd(8)); break;
		case 1: buf[at] = (u8)rnd(256); break;
		case 2:
			at &= ~3ull;
			if (at + 4 <= *len)
				st32(buf + at, (u32)rnd_value());
			break;
		default:
			at &= ~7ull;
			if (at + 8 <= *len)
				st64(buf + at, rnd_value());
			break;
		}
	}
	if (rnd(8) == 0)
		*len = 1 + rnd((u32)*len);
	/* Keep the checksum right now and then, so that damaged Multiboot headers are looked at. */
	for (size_t i = 0; rnd(2) && i + 12 <= MIN(*len, (size_t)8192); i += 4)
		if (ld32(buf + i) == 0x1badb002)
			st32(buf + i + 8, 0 - 0x1badb002 - ld32(buf + i + 4));
		else if (ld32(buf + i) == 0xe85250d6 && i + 16 <= *len)
			st32(buf + i + 12, 0 - 0xe85250d6 - ld32(buf + i + 4) - ld32(buf + i + 8));
}

static bool untouched(struct guest *g, gpa_t start, gpa_t end)
{
	const u8 *p = ram_ptr(&g->ram, start, end - start);

	for (gpa_t i = 0; i < end - start; i++)
		if (p[i])
			return false;
	return true;
}

static int check(struct guest *g, int r)
{
	if (r < 0)
		return g->err.msg[0] && g->err.code == r ? 0 : -1;
	if (!untouched(g, 0x9f000, MiB))
		return -1;
	if (!ram_ptr(&g->ram, g->state.gdtr.base, g->state.gdtr.limit + 1u))
		return -1;
	return g->state.cr0 & CR0_PE ? 0 : -1;
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	u64 count = argc > 2 ? strtoull(argv[2], NULL, 0) : 5000;
	static u8 buf[MAX_IMAGE], initrd[5000];
	struct boot_video video;
	u64 loaded = 0;
	struct guest g;

	printf("fuzz_loaders: seed %llu, %llu images\n", (unsigned long long)seed, (unsigned long long)count);
	if (guest_init(&g, GUEST_SIZE) < 0) {
		printf("%s\n", g.err.msg);
		return 1;
	}
	for (u64 i = 0; i < count; i++) {
		size_t len;
		u8 *exact;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull | 1;
		len = make_image(buf);
		damage(buf, &len);
		exact = malloc(len);
		memcpy(exact, buf, len);
		g.target.long_mode = rnd(2);
		video = (struct boot_video){ 0 };
		g.target.video = &video;
		g.target.frame_buffer = rnd(2) ? 0xdf000000 : 0;
		g.source.nr_initrds = rnd(3);
		g.source.initrd[0] = guest_file("a", initrd, sizeof(initrd));
		g.source.initrd[1] = guest_file("b", initrd, 1 + rnd(100));
		r = guest_load(&g, exact, len);
		loaded += r == 0;
		if (check(&g, r) < 0) {
			printf("image %llu went wrong: result %d, \"%s\"; repeat it with: fuzz_loaders %llu 1\n",
			       (unsigned long long)i, r, g.err.msg, (unsigned long long)seed + i);
			return 1;
		}
		free(exact);
		if (fallocate(g.ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)g.ram.size) <
		    0) {
			perror("fallocate");
			return 1;
		}
	}
	guest_fini(&g);
	printf("%llu loaded, %llu refused\n", (unsigned long long)loaded,
	       (unsigned long long)(count - loaded));
	/* Damage that refuses everything, or nothing, would test nothing. */
	return count >= 1000 && (loaded < count / 20 || loaded > count - count / 20);
}
