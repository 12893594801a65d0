/* The font that a machine without firmware starts with, for pictures of its text.
 *
 * Firmware brings a font of its own, and so do most guests; here are ASCII, drawn on a grid of 5 by 7, and the lines and blocks
 * of code page 437, which are computed. Other characters are a small square.
 *
 * A character has 8 by 16 dots, 32 bytes apart in plane 2 [VGA, character generator]. Main thread, vCPUs not running.
 */
#include <string.h>

#include "dev/vga_int.h"

#define HEIGHT     16
#define BASELINE   11 /* the letters' last line */
#define ASCII_FROM 0x20

/* 35 dots each, line by line from the top left, in the number's low bits. */
static const u64 ascii[] = {
	0x000000000, 0x108421004, 0x294a00000, 0x295f57d4a, 0x11f4717c4, 0x672222273, /* space ! " # $ % */
	0x32544564d, 0x108800000, 0x088842082, 0x208210888, 0x009575480, 0x0084f9080, /* & ' ( ) * + */
	0x000003088, 0x0000f8000, 0x00000018c, 0x042222210, 0x3a33ae62e, 0x11842108e, /* , - . / 0 1 */
	0x3a211111f, 0x7c441062e, 0x08ca97c42, 0x7e1e0862e, 0x1910f462e, 0x7c2222108, /* 2 3 4 5 6 7 */
	0x3a317462e, 0x3a317844c, 0x018c03180, 0x018c03088, 0x088882082, 0x001f07c00, /* 8 9 : ; < = */
	0x208208888, 0x3a2111004, 0x3a216d6ae, 0x3a31fc631, 0x7a31f463e, 0x3a308422e, /* > ? @ A B C */
	0x72518c65c, 0x7e10f421f, 0x7e10f4210, 0x3a30bc62f, 0x4631fc631, 0x38842108e, /* D E F G H I */
	0x1c4210a4c, 0x4654c5251, 0x42108421f, 0x4775ac631, 0x4639ace31, 0x3a318c62e, /* J K L M N O */
	0x7a31f4210, 0x3a318d64d, 0x7a31f5251, 0x3e107043e, 0x7c8421084, 0x46318c62e, /* P Q R S T U */
	0x46318c544, 0x4631ad6aa, 0x462a22a31, 0x463151084, 0x7c222221f, 0x39084210e, /* V W X Y Z [ */
	0x420820821, 0x38421084e, 0x115100000, 0x00000001f, 0x208200000, 0x000e0be2f, /* \ ] ^ _ ` a */
	0x4216cc63e, 0x000e8422e, 0x042d9c62f, 0x000e8fe0e, 0x1928e2108, 0x01f18bc2e, /* b c d e f g */
	0x4216cc631, 0x100c2108e, 0x080610a4c, 0x4212a6292, 0x30842108e, 0x001aad631, /* h i j k l m */
	0x0016cc631, 0x000e8c62e, 0x001e8fa10, 0x000d9bc21, 0x0016cc210, 0x000e8383e, /* n o p q r s */
	0x211c42126, 0x00118c66d, 0x00118c544, 0x00118d6aa, 0x001151151, 0x00118bc2e, /* t u v w x y */
	0x001f1111f, 0x088441082, 0x108421084, 0x208411088, 0x0008a8800,              /* z { | } ~ */
};

/* B3H to DAH by the lines that meet in the middle: two bits each for up, right, down, left; 1 a single line, 2 a double one. */
#define LINES(up, right, down, left) ((up) << 6 | (right) << 4 | (down) << 2 | (left))
static const u8 boxes[] = {
	LINES(1, 0, 1, 0), LINES(1, 0, 1, 1), LINES(1, 0, 1, 2), LINES(2, 0, 2, 1), LINES(0, 0, 2, 1),
	LINES(0, 0, 1, 2), LINES(2, 0, 2, 2), LINES(2, 0, 2, 0), LINES(0, 0, 2, 2), LINES(2, 0, 0, 2),
	LINES(2, 0, 0, 1), LINES(1, 0, 0, 2), LINES(0, 0, 1, 1), LINES(1, 1, 0, 0), LINES(1, 1, 0, 1),
	LINES(0, 1, 1, 1), LINES(1, 1, 1, 0), LINES(0, 1, 0, 1), LINES(1, 1, 1, 1), LINES(1, 2, 1, 0),
	LINES(2, 1, 2, 0), LINES(2, 2, 0, 0), LINES(0, 2, 2, 0), LINES(2, 2, 0, 2), LINES(0, 2, 2, 2),
	LINES(2, 2, 2, 0), LINES(0, 2, 0, 2), LINES(2, 2, 2, 2), LINES(1, 2, 0, 2), LINES(2, 1, 0, 1),
	LINES(0, 2, 1, 2), LINES(0, 1, 2, 1), LINES(2, 1, 0, 0), LINES(1, 2, 0, 0), LINES(0, 2, 1, 0),
	LINES(0, 1, 2, 0), LINES(2, 1, 2, 1), LINES(1, 2, 1, 2), LINES(1, 0, 0, 1), LINES(0, 1, 1, 0),
};
#define BOXES_FROM 0xb3

static void draw_ascii(u64 dots, u8 glyph[HEIGHT])
{
	/* Each line but every third twice: 7 lines become 9 or 10, of which the letters' proportions come. */
	for (unsigned line = 0; line < 7; line++) {
		u8 row = (u8)((dots >> 5 * (6 - line) & 0x1f) << 2);
		unsigned at = BASELINE - 9 + line * 3 / 2;

		glyph[at] = row;
		if (line % 2)
			glyph[at + 1] = row;
	}
}

static void draw_box(u8 lines, u8 glyph[HEIGHT])
{
	unsigned up = lines >> 6, right = lines >> 4 & 3, down = lines >> 2 & 3, left = lines & 3;
	unsigned upright = up > down ? up : down, level = left > right ? left : right;
	u8 column = upright == 2 ? 0x28 : 0x10;

	for (unsigned y = 0; y < HEIGHT; y++)
		if ((up && y <= 8) || (down && y >= 7))
			glyph[y] |= column;
	for (unsigned y = 6; y <= 8; y += 2) {
		unsigned row = level == 2 ? y : 7;

		if (left)
			glyph[row] |= 0xf8;
		if (right)
			glyph[row] |= 0x1f;
	}
}

static void draw(unsigned c, u8 glyph[HEIGHT])
{
	static const u8 shade[3][2] = { { 0x22, 0x88 }, { 0x55, 0xaa }, { 0xdd, 0x77 } };

	if (c >= ASCII_FROM && c < ASCII_FROM + ARRAY_SIZE(ascii)) {
		draw_ascii(ascii[c - ASCII_FROM], glyph);
	} else if (c >= BOXES_FROM && c < BOXES_FROM + ARRAY_SIZE(boxes)) {
		draw_box(boxes[c - BOXES_FROM], glyph);
	} else if (c >= 0xb0 && c <= 0xb2) {
		for (unsigned y = 0; y < HEIGHT; y++)
			glyph[y] = shade[c - 0xb0][y & 1];
	} else if (c >= 0xdb && c <= 0xdf) { /* full, lower, left, right, upper */
		for (unsigned y = c == 0xdc ? 8 : 0; y < (c == 0xdf ? 8 : HEIGHT); y++)
			glyph[y] = c == 0xdd ? 0xf0 : c == 0xde ? 0x0f : 0xff;
	} else if (c && c != 0xff) {
		memset(glyph + 5, 0x3c, 6);
	}
}

void vga_font_load(struct vga *v)
{
	for (unsigned c = 0; c < 256; c++) {
		u8 glyph[HEIGHT] = { 0 };

		draw(c, glyph);
		for (unsigned y = 0; y < HEIGHT; y++)
			v->mem[4 * (32 * (size_t)c + y) + 2] = glyph[y];
	}
}
