/* PNG: 8 bits per colour, no filters, one chunk of data.
 *
 * Document: Portable Network Graphics Specification, ISO/IEC 15948:2004 ("[PNG]"). A screen is mostly runs of one colour, which
 * deflate finds without the help of filters.
 */
#include "machine/png.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/lazy.h"

#define HEADER_LEN    13
#define CHUNK_EXTRA   12 /* length, type, and check sum */
#define DEFLATE_LEVEL 3

/* Of zlib, loaded for the first picture: most machines make none. */
static struct {
	__typeof__(compressBound) *bound;
	__typeof__(compress2) *compress;
	__typeof__(crc32) *crc32;
} zlib;

static int load_zlib(struct err *err)
{
	static const struct lazy_function functions[] = {
		{ "compressBound", &zlib.bound },
		{ "compress2", &zlib.compress },
		{ "crc32", &zlib.crc32 },
	};

	return zlib.crc32 ? 0 : lazy_load("libz.so.1", functions, ARRAY_SIZE(functions), err);
}

static u8 *put32(u8 *p, u32 v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (u8)(v >> (24 - 8 * i));
	return p + 4;
}

/* The chunk's data stand at p + 8 already [PNG 5.3]. Returns what is behind it. */
static u8 *seal_chunk(u8 *p, const char *type, u32 len)
{
	put32(p, len);
	memcpy(p + 4, type, 4);
	return put32(p + 8 + len, (u32)zlib.crc32(0, p + 4, len + 4));
}

/* Each line with a zero before it: filter type none [PNG 9]. */
static void fill_lines(const u32 *pixels, u32 width, u32 height, u8 *p)
{
	for (u32 y = 0; y < height; y++) {
		*p++ = 0;
		for (u32 x = 0; x < width; x++) {
			u32 c = *pixels++;

			*p++ = (u8)(c >> 16);
			*p++ = (u8)(c >> 8);
			*p++ = (u8)c;
		}
	}
}

int png_encode(const u32 *pixels, u32 width, u32 height, u8 **ret_file, size_t *ret_len, struct err *err)
{
	static const u8 signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' }; /* [PNG 5.2] */
	/* 8 bits, RGB, deflate, the only set of filters, not interlaced [PNG 11.2.2] */
	static const u8 form[] = { 8, 2, 0, 0, 0 };
	size_t raw_len = ((size_t)width * 3 + 1) * height;
	u8 *raw, *file, *p;
	uLongf packed;
	int r;

	assert(width && height && width <= 0xffff && height <= 0xffff);
	r = load_zlib(err);
	if (r < 0)
		return r;
	packed = zlib.bound(raw_len);
	raw = malloc(raw_len);
	file = malloc(sizeof(signature) + HEADER_LEN + packed + 3 * (size_t)CHUNK_EXTRA);
	if (!raw || !file) {
		free(raw);
		free(file);
		return err_set(err, -ENOMEM, "no memory for a picture of %u by %u pixels", width, height);
	}
	fill_lines(pixels, width, height, raw);
	memcpy(file, signature, sizeof(signature));
	p = file + sizeof(signature);
	put32(p + 8, width);
	put32(p + 12, height);
	memcpy(p + 16, form, sizeof(form));
	p = seal_chunk(p, "IHDR", HEADER_LEN);
	r = zlib.compress(p + 8, &packed, raw, raw_len, DEFLATE_LEVEL);
	free(raw);
	if (r != Z_OK) { /* there is room enough, so: no memory */
		free(file);
		return err_set(err, -ENOMEM, "no memory for a picture of %u by %u pixels", width, height);
	}
	p = seal_chunk(p, "IDAT", (u32)packed);
	p = seal_chunk(p, "IEND", 0);
	*ret_file = file;
	*ret_len = (size_t)(p - file);
	return 0;
}
