/* The decoder on bytes that a guest may put anywhere, in all modes [G54]: it reads no byte beyond those it was
 * given, nor a sixteenth, and what it calls an instruction is one that handlers can trust: registers and
 * segments are indexes into their arrays, sizes are among those that exist, and the length is what was read.
 *
 * First byte of the input: mode, and which features are on; then instructions, one at each offset.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/decode.h"
#include "x86/regs.h"

#define MAX_LEN 15

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static const u8 *bytes_now;
static unsigned len_now, key_now;

#define must(ok)                       \
	do {                           \
		if (!(ok))             \
			complain(#ok); \
	} while (0)

static _Noreturn void complain(const char *what)
{
	fprintf(stderr, "not so: %s; key %u, bytes", what, key_now);
	for (unsigned k = 0; k < len_now; k++)
		fprintf(stderr, " %02x", bytes_now[k]);
	fprintf(stderr, "\n");
	abort();
}

static bool is_size(unsigned n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

/* Where a byte register lies in the array of general registers. */
static bool is_byte_reg(unsigned at)
{
	return at < X86_NR_GPR * 8 && (at % 8 == 0 || (at % 8 == 1 && at < 4 * 8));
}

static void check_insn(const struct insn *i, unsigned len)
{
	unsigned mode = key_now & KEY_MODE, nr_regs = i->evex ? 32 : X86_NR_GPR;
	const struct native_row *row = i->evex ? simd_row(i) : NULL;

	must(i->fn);
	must(i->len >= 1 && i->len <= MAX_LEN && i->len <= len);
	must(is_size(i->osz));
	must(i->asz == 2 || i->asz == 4 || i->asz == 8);
	must(mode == MODE_64 ? i->asz != 2 : i->asz != 8);
	must(mode == MODE_64 || i->osz != 8);
	must(i->reg < nr_regs && i->rm < nr_regs && i->vvvv < nr_regs);
	/* Vector registers 16 to 31; general and mask registers are fewer. */
	must(!i->evex || (row && i->pfx & PFX_VEX && i->map >= 1));
	must(!row || !(row->flags & NR_GPR_REG) || i->reg < X86_NR_GPR);
	must(!row || !(row->flags & NR_GPR_RM) || i->mem || i->rm < X86_NR_GPR);
	must(!row || !(row->evex & EV_K_REG) || i->reg < 8);
	must(!row || !(row->evex & EV_K_RM) || i->mem || i->rm < 8);
	must(mode == MODE_64 || (i->reg < 8 && i->rm < 8 && i->vvvv < 8));
	must(is_byte_reg(i->reg_b) && is_byte_reg(i->rm_b));
	must(i->base < NR_REGS && i->index < NR_REGS && i->index != RIPB && i->scale <= 3);
	must(i->base != RIPB || (mode == MODE_64 && i->mem));
	must(i->seg <= SEG_FLAT);
	must(!i->flat || (mode == MODE_64 && i->asz == 8));
	must(i->map <= 3);
	must(i->rex <= (i->evex ? 31 : 15) && (mode == MODE_64 || !(i->rex & ~REX_W)));
	must(i->msz <= 108); /* FSAVE; what is larger does not run natively */
	/* But for MOV of moffs, where it is an address. */
	must(i->map == 0 && i->opcode >= 0xa0 && i->opcode <= 0xa3 ? i->disp == (s64)i->imm
								   : i->disp == (s32)i->disp);
}

static void decode(const u8 *bytes, unsigned len, const u64 *features)
{
	/* Of its exact size: the sanitizer sees one byte more. */
	u8 *copy = malloc(len ? len : 1);
	struct decode_info info;
	enum decode_result result, prefix;
	struct insn insn, again;

	if (!copy)
		abort();
	memcpy(copy, bytes, len);
	bytes_now = copy;
	len_now = len;
	memset(&insn, 0xff, sizeof(insn));
	result = decode_insn(copy, len, key_now, features, &insn, &info);
	must(result == DECODE_OK || result == DECODE_MORE || result == DECODE_UD || result == DECODE_GP);
	must(result != DECODE_MORE || len < MAX_LEN);
	must(result != DECODE_GP || len >= MAX_LEN);
	if (result == DECODE_OK) {
		check_insn(&insn, len);
		/* Its own bytes are enough, and one less is not. */
		prefix = decode_insn(copy, insn.len, key_now, features, &again, &info);
		must(prefix == DECODE_OK && again.len == insn.len && again.fn == insn.fn);
		prefix = decode_insn(copy, insn.len - 1u, key_now, features, &again, &info);
		must(prefix == DECODE_MORE || prefix == DECODE_UD);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static const u64 patterns[4] = { ~0ull, 0, 0x5555555555555555ull, 0xaaaaaaaaaaaaaaaaull };
	u64 features[4];

	if (!len)
		return 0;
	key_now = (unsigned)data[0] % 3 | (data[0] & 4 ? KEY_SS32 : 0) | (data[0] & 8 ? KEY_SINGLE : 0);
	for (unsigned k = 0; k < 4; k++)
		features[k] = patterns[data[0] >> 4 & 3];
	data++;
	len--;
	for (size_t at = 0; at < len; at++) {
		unsigned n = (unsigned)MIN(len - at, (size_t)MAX_LEN + 1);

		/* Short ones too: pages end anywhere. */
		decode(data + at, n, features);
		decode(data + at, data[at] % (n + 1), features);
	}
	return 0;
}
