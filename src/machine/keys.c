/* From what a terminal sends to keys of a PC's keyboard.
 *
 * Documents: ECMA-48 5.4 (control sequences); the sequences of function keys are those of xterm ("[XTERM]", ctlseqs) and of
 * Linux's console.
 *
 * A terminal sends characters, a PC's guest wants keys: each character is looked up on the American keyboard, which is what a
 * guest without settings assumes. What a terminal does not tell apart (Tab and Ctrl-I) is the plain key; a character behind ESC is
 * that key with Alt. Characters that are on no key are left out.
 */
#include "machine/keys.h"

#include <string.h>

#include "dev/ps2.h"

#define ESC       0x1b
#define MAX_CSI   32
#define KEY_ENTER 0x1c
#define KEY_TAB   0x0f
#define KEY_BACK  0x0e
#define KEY_ESC   0x01

/* By key number, plain and with Shift; 0 where a key makes no character. */
static const char plain[] = "\0\0331234567890-=\0\0qwertyuiop[]\0\0asdfghjkl;'`\0\\zxcvbnm,./\0\0\0 ";
static const char shifted[] = "\0\0!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0\0\0 ";

static u8 find(const char *keys, size_t nr, u8 c)
{
	const char *at = c ? memchr(keys + 1, c, nr - 1) : NULL;

	return at ? (u8)(at - keys) : 0;
}

static struct key_press character(u8 c)
{
	struct key_press k = { 0 };

	switch (c) {
	case '\r':
	case '\n': k.key = KEY_ENTER; return k;
	case '\t': k.key = KEY_TAB; return k;
	case 0x08:
	case 0x7f: k.key = KEY_BACK; return k;
	case ESC: k.key = KEY_ESC; return k;
	default: break;
	}
	if (c < 0x20) {
		/* Ctrl and a letter, or one of @ [ \ ] ^ _ */
		k.mods = KEYS_CTRL;
		c = c ? (u8)(c | 0x60) : ' ';
		if (c > 'z')
			c = (u8)(c & ~0x20);
	}
	k.key = find(plain, sizeof(plain) - 1, c);
	if (!k.key) {
		k.key = find(shifted, sizeof(shifted) - 1, c);
		k.mods |= KEYS_SHIFT;
	}
	return k;
}

/* ESC [ n ~ */
static u8 numbered(unsigned n)
{
	static const u8 keys[] = {
		[1] = 0x47 | PS2_EXTENDED,
		[2] = 0x52 | PS2_EXTENDED,
		[3] = 0x53 | PS2_EXTENDED,
		[4] = 0x4f | PS2_EXTENDED,
		[5] = 0x49 | PS2_EXTENDED,
		[6] = 0x51 | PS2_EXTENDED,
		[7] = 0x47 | PS2_EXTENDED,
		[8] = 0x4f | PS2_EXTENDED,
		[11] = 0x3b,
		[12] = 0x3c,
		[13] = 0x3d,
		[14] = 0x3e,
		[15] = 0x3f,
		[17] = 0x40,
		[18] = 0x41,
		[19] = 0x42,
		[20] = 0x43,
		[21] = 0x44,
		[23] = 0x57,
		[24] = 0x58,
	};

	return n < ARRAY_SIZE(keys) ? keys[n] : 0;
}

/* ESC [ or ESC O and a letter. */
static u8 lettered(u8 c)
{
	switch (c) {
	case 'A': return 0x48 | PS2_EXTENDED;
	case 'B': return 0x50 | PS2_EXTENDED;
	case 'C': return 0x4d | PS2_EXTENDED;
	case 'D': return 0x4b | PS2_EXTENDED;
	case 'E': return 0x4c;
	case 'F': return 0x4f | PS2_EXTENDED;
	case 'H': return 0x47 | PS2_EXTENDED;
	case 'M': return 0x1c | PS2_EXTENDED; /* Enter of the numeric keypad */
	case 'P': return 0x3b;
	case 'Q': return 0x3c;
	case 'R': return 0x3d;
	case 'S': return 0x3e;
	default: return 0;
	}
}

/* A control sequence: ESC [ parameters, and a final byte. The second parameter is 1 and the modifiers [XTERM]. */
static size_t control_sequence(const u8 *buf, size_t len, struct key_press *ret)
{
	unsigned param[2] = { 0 }, nr = 0;

	if (len > 3 && buf[2] == '[') { /* Linux's console: F1 to F5 */
		ret->key = buf[3] >= 'A' && buf[3] <= 'E' ? (u8)(0x3b + buf[3] - 'A') : 0;
		return 4;
	}
	for (size_t i = 2; i < len && i < MAX_CSI; i++) {
		u8 c = buf[i];

		if (c >= '0' && c <= '9') {
			if (nr < ARRAY_SIZE(param))
				param[nr] = MIN(param[nr] * 10 + c - '0', 1000u);
		} else if (c == ';') {
			nr++;
		} else if (c >= 0x40 && c <= 0x7e && !(c == '[' && i == 2)) {
			ret->key = c == '~' ? numbered(param[0]) : c == 'Z' ? KEY_TAB : lettered(c);
			ret->mods = c == 'Z' ? KEYS_SHIFT : param[1] ? (param[1] - 1) & 7 : 0;
			return i + 1;
		}
	}
	return len >= MAX_CSI ? MAX_CSI : 0; /* that long is none */
}

size_t keys_parse(const u8 *buf, size_t len, bool all, struct key_press *ret)
{
	size_t n = 0;

	*ret = (struct key_press){ 0 };
	if (buf[0] != ESC) {
		*ret = character(buf[0]);
		return 1;
	}
	if (len == 1) {
		if (all)
			*ret = character(ESC);
		return all;
	}
	if (buf[1] == '[') {
		n = control_sequence(buf, len, ret);
	} else if (buf[1] == 'O') {
		if (len > 2) {
			ret->key = lettered(buf[2]);
			n = 3;
		}
	} else if (buf[1] == ESC) {
		*ret = character(ESC);
		n = 1;
	} else {
		*ret = character(buf[1]);
		ret->mods |= KEYS_ALT;
		n = 2;
	}
	if (n || !all)
		return n;
	/* Nothing follows, so it was two keys: Alt and a bracket, or the letter O. */
	*ret = character(buf[1]);
	ret->mods |= KEYS_ALT;
	return 2;
}
