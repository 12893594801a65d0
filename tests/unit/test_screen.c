/* What people see of a screen: text in UTF-8, pictures as PNG; and what they type, as keys. The PNG's oracle is zlib's inflate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "dev/ps2.h"
#include "machine/keys.h"
#include "machine/png.h"
#include "machine/screen.h"

static struct vga_text look;

static void text(void **state)
{
	static const char *const rows[] = { "plain \xb3\xe1 text", "", "  \x01 \xff", "12345678901234" };
	char *got;

	memset(&look, 0, sizeof(look));
	look.kind = VGA_TEXT;
	look.columns = 14;
	look.rows = 4;
	for (u32 y = 0; y < 4; y++)
		for (u32 x = 0; x < 14; x++)
			look.cell[y * 14 + x] = 0x0700 | (x < strlen(rows[y]) ? (u8)rows[y][x] : ' ');
	look.cell[13] = 0; /* no character */
	got = screen_text(&look);
	assert_string_equal(got, "plain \u2502\u00df text\n\n  \u263a\n12345678901234\n");
	free(got);
	look.rows = look.columns = 0;
	got = screen_text(&look);
	assert_string_equal(got, "");
	free(got);
}

static u32 big_endian(const u8 *p)
{
	return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

static void png(void **state)
{
	static const u32 sizes[][2] = { { 1, 1 }, { 3, 2 }, { 640, 480 }, { 2560, 3 } };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 width = sizes[i][0], height = sizes[i][1];
		uLongf raw_len = ((uLongf)width * 3 + 1) * height, got_len = raw_len;
		u32 *pixels = malloc((size_t)width * height * 4);
		u8 *raw = malloc(raw_len), *file, *at;
		size_t len;

		for (u32 k = 0; k < width * height; k++)
			pixels[k] = k * 2654435761u & 0xffffff;
		assert_int_equal(png_encode(pixels, width, height, &file, &len, NULL), 0);
		assert_memory_equal(file, "\x89PNG\r\n\x1a\n", 8);
		at = file + 8;
		assert_memory_equal(at + 4, "IHDR", 4);
		assert_int_equal(big_endian(at + 8), width);
		assert_int_equal(big_endian(at + 12), height);
		assert_memory_equal(at + 16, "\x08\x02\0\0", 5);
		for (const char *const *type = (const char *const[]){ "IHDR", "IDAT", "IEND", NULL }; *type;
		     type++) {
			u32 n = big_endian(at);

			assert_true((size_t)(file + len - at) >= n + 12);
			assert_memory_equal(at + 4, *type, 4);
			assert_int_equal(big_endian(at + 8 + n), crc32(0, at + 4, n + 4));
			if (!strcmp(*type, "IDAT"))
				assert_int_equal(uncompress(raw, &got_len, at + 8, n), Z_OK);
			at += n + 12;
		}
		assert_ptr_equal(at, file + len);
		assert_int_equal(got_len, raw_len);
		for (u32 y = 0, k = 0; y < height; y++) {
			const u8 *row = raw + y * (width * 3 + 1);

			assert_int_equal(row[0], 0);
			for (u32 x = 0; x < width; x++, k++)
				assert_int_equal((u32)row[1 + 3 * x] << 16 | row[2 + 3 * x] << 8 |
							 row[3 + 3 * x],
						 pixels[k]);
		}
		free(file);
		free(raw);
		free(pixels);
	}
}

static void keys(void **state)
{
	static const struct {
		const char *typed;
		u8 key, mods;
		size_t len; /* taken */
	} rows[] = {
		{ "a", 0x1e, 0, 1 },
		{ "A", 0x1e, KEYS_SHIFT, 1 },
		{ "1x", 0x02, 0, 1 },
		{ "!", 0x02, KEYS_SHIFT, 1 },
		{ "|", 0x2b, KEYS_SHIFT, 1 },
		{ "\\", 0x2b, 0, 1 },
		{ "~", 0x29, KEYS_SHIFT, 1 },
		{ " ", 0x39, 0, 1 },
		{ "\r", 0x1c, 0, 1 },
		{ "\t", 0x0f, 0, 1 },
		{ "\x7f", 0x0e, 0, 1 },
		{ "\x03", 0x2e, KEYS_CTRL, 1 },
		{ "\x1a", 0x2c, KEYS_CTRL, 1 },
		{ "\x1c", 0x2b, KEYS_CTRL, 1 },
		{ "\x1d", 0x1b, KEYS_CTRL, 1 },
		{ "\xc3", 0, KEYS_SHIFT, 1 },
		{ "\x1b[A", 0x48 | PS2_EXTENDED, 0, 3 },
		{ "\x1bOD", 0x4b | PS2_EXTENDED, 0, 3 },
		{ "\x1b[1;5C", 0x4d | PS2_EXTENDED, KEYS_CTRL, 6 },
		{ "\x1b[3~", 0x53 | PS2_EXTENDED, 0, 4 },
		{ "\x1b[5;2~x", 0x49 | PS2_EXTENDED, KEYS_SHIFT, 6 },
		{ "\x1b[H", 0x47 | PS2_EXTENDED, 0, 3 },
		{ "\x1bOP", 0x3b, 0, 3 },
		{ "\x1b[[E", 0x3f, 0, 4 },
		{ "\x1b[15~", 0x3f, 0, 5 },
		{ "\x1b[21~", 0x44, 0, 5 },
		{ "\x1b[24~", 0x58, 0, 5 },
		{ "\x1b[Z", 0x0f, KEYS_SHIFT, 3 },
		{ "\x1b[99~", 0, 0, 5 },
		{ "\x1bx", 0x2d, KEYS_ALT, 2 },
		{ "\x1b\x1b", 0x01, 0, 1 },
	};
	struct key_press k;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t n = keys_parse((const u8 *)rows[i].typed, strlen(rows[i].typed), false, &k);

		if (n != rows[i].len || k.key != rows[i].key || (k.key && k.mods != rows[i].mods))
			fail_msg("row %u: %zu bytes, key %#x with %#x", i, n, k.key, k.mods);
	}
	/* Sequences may come in pieces; what is none is two keys at last. */
	assert_int_equal(keys_parse((const u8 *)"\x1b", 1, false, &k), 0);
	assert_int_equal(keys_parse((const u8 *)"\x1b", 1, true, &k), 1);
	assert_int_equal(k.key, 0x01);
	assert_int_equal(keys_parse((const u8 *)"\x1b[1;", 4, false, &k), 0);
	assert_int_equal(keys_parse((const u8 *)"\x1b[", 2, true, &k), 2);
	assert_int_equal(k.key, 0x1a);
	assert_int_equal(k.mods, KEYS_ALT);
}

/* Whatever comes: a step forward, and a key that the keyboard has. */
static void any_bytes(void **state)
{
	u8 buf[64];
	u32 x = 1;

	for (unsigned round = 0; round < 20000; round++) {
		size_t len, at = 0;

		for (len = 0; len < sizeof(buf); len++) {
			x = x * 1664525 + 1013904223;
			buf[len] = x >> 28 < 3   ? 0x1b
				   : x >> 28 < 8 ? (u8) "[O;19~A"[x >> 20 & 7]
						 : (u8)(x >> 16);
		}
		while (at < len) {
			struct key_press k;
			size_t n = keys_parse(buf + at, len - at, true, &k);

			assert_in_range(n, 1, len - at);
			assert_in_range(k.key & (u8)~PS2_EXTENDED, 0, 0x58);
			assert_in_range(k.mods, 0, 7);
			at += n;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text),
		cmocka_unit_test(png),
		cmocka_unit_test(keys),
		cmocka_unit_test(any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
