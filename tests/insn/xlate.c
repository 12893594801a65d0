/* Code from pieces, for the families xlate_*. */
#include "xlate.h"

#include <stdlib.h>
#include <string.h>

#define TAIL 14 /* bytes that the end of the loop takes */

void xlate_add(struct xlate_pieces *list, const char *text, const u8 *begin, const u8 *end)
{
	if (list->n == XLATE_MAX_PIECES) {
		fprintf(stderr, "insn: too many pieces of code: \"%s\"\n", text);
		exit(1);
	}
	list->p[list->n++] = (struct xlate_piece){ text, begin, (unsigned)(end - begin) };
}

u32 xlate_below(struct insn_rng *r, u32 n)
{
	return (u32)((insn_rnd(r) >> 33) % n);
}

const struct xlate_piece *xlate_any(struct insn_rng *r, const struct xlate_pieces *list)
{
	return &list->p[xlate_below(r, list->n)];
}

void xlate_begin(struct xlate_code *c)
{
	c->len = c->loop = 0;
	c->text[0] = 0;
}

void xlate_raw(struct xlate_code *c, const char *text, const void *code, unsigned len)
{
	size_t used = strlen(c->text);
	if (c->len + len > sizeof(c->code)) {
		fprintf(stderr, "insn: too long: \"%s\"\n", c->text);
		exit(1);
	}
	memcpy(c->code + c->len, code, len);
	c->len += len;
	snprintf(c->text + used, sizeof(c->text) - used, "%s%s", used ? "; " : "", text);
}

bool xlate_put(struct xlate_code *c, const struct xlate_piece *p)
{
	if (c->len + p->len + TAIL > sizeof(c->code) ||
	    strlen(c->text) + strlen(p->text) + 3 > sizeof(c->text))
		return false;
	xlate_raw(c, p->text, p->code, p->len);
	return true;
}

void xlate_loop(struct xlate_code *c)
{
	c->loop = c->len;
}

void xlate_jump(struct xlate_code *c, u8 prefix, u8 opcode, unsigned target)
{
	u8 b[6] = { prefix, opcode };
	unsigned n = prefix ? 2 : 1;
	b[n - 1] = opcode;
	st32(b + n, target - (c->len + n + 4));
	char text[32];
	snprintf(text, sizeof(text), "jump %02x to +%x", opcode, target);
	xlate_raw(c, text, b, n + 4);
}

void xlate_end(struct xlate_code *c)
{
	/* cmp dword ptr [20000300H], 0 */
	static const u8 compare[8] = { 0x83, 0x3c, 0x25, 0x00, 0x03, 0x00, 0x20, 0x00 };
	xlate_raw(c, "cmp rounds, 0", compare, sizeof(compare));
	xlate_jump(c, 0x0f, 0x85, c->loop);
}

void xlate_try(struct insn_test *t, const struct xlate_code *c)
{
	unsigned failed = t->failed;

	insn_try(t, c->text, c->code, c->len);
	for (unsigned at = 0; t->failed != failed && at < c->len;) {
		char text[128];
		unsigned n =
			insn_disasm(c->code + at, c->len - at, t->mode, INSN_CODE + at, text, sizeof(text));
		printf("  %08llx %s\n", INSN_CODE + at, text);
		at += n ? n : 1;
	}
}

u32 xlate_rounds(struct insn_rng *r)
{
	static const u16 rounds[] = { 1, 2, 3, 20, 40, 150, 300, 300 };
	return rounds[xlate_below(r, ARRAY_SIZE(rounds))];
}

void xlate_set_words(struct insn_state *s, const struct xlate_words *w)
{
	memcpy(s->data + XLATE_WORDS, w, sizeof(*w));
}

u64 xlate_inside(struct insn_rng *r, unsigned span)
{
	u64 page = INSN_DATA + (insn_rnd(r) & 0x1000);
	u64 at = page + 1536 + xlate_below(r, 1024);
	return xlate_below(r, 4) ? at & ~63ull : at;
}

u64 xlate_edge(struct insn_rng *r, unsigned span)
{
	u32 k = xlate_below(r, 16), back = xlate_below(r, span + 1);
	if (k >= 10)
		back &= ~7u;
	switch (k) {
	case 0: return xlate_inside(r, span);
	case 1:
	case 2:
	case 3:
	case 10: return INSN_DATA + 0x1000 - back;
	case 4:
	case 5:
	case 6:
	case 11:
	case 12: return INSN_DATA + INSN_DATA_RW - back;
	case 7: return INSN_DATA + INSN_DATA_RW + 512 + back;
	case 8:
	case 13:
	case 14: return INSN_DATA + INSN_DATA_SIZE - back;
	default: return INSN_DATA - back; /* below */
	}
}
