/* Random 32-bit code, warm and flat, against the same code under a CS without the last page: lib/flat.h. Its operands in memory lie
 * around the middle of a piece of memory, around the end of 4 GiB, or at the border of a page that is not there; by displacements
 * that wrap more often than not. The registers EBX, EBP, ESI point there and move a little; EDI is an index. The number of a
 * sequence is its seed. */
#include "lib/flat.h"
#include "lib/emit.h"

#define SEQUENCES 1500
#define INPUTS    3
#define WARM      30 /* runs of each input */
#define PIECES    3
#define WORDS     64

static const u32 piece_at[PIECES] = { LOW + 0x2000 - 2 * WORDS, WRAP - 2 * WORDS, HOLE - 4 * WORDS };
#include "lib/pieces.h"

static u32 seed;

static u32 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

static u32 below(u32 n)
{
	return (next_random() >> 8) % n;
}

static bool one_in(u32 n)
{
	return !below(n);
}

/* --- operands --- */
static u32 base_value[8];

/* An address that is worth an access: somewhere in a piece, rarely over the edge of the hole. */
static u32 target(void)
{
	u32 piece = one_in(40) ? 2 : below(2);

	return piece == 2 ? HOLE - 12 + below(16) : piece_at[piece] + 64 + below(4 * WORDS - 128 + 8);
}

static void put_modrm(unsigned reg, unsigned rm)
{
	emit8((u8)(0xc0 | reg << 3 | rm));
}

/* ModRM of an operand in memory. */
static void put_memory(unsigned reg)
{
	static const u8 bases[] = { EBX, EBP, ESI };
	unsigned base = bases[below(3)], scale = below(4);
	u32 at = target();

	switch (below(6)) {
	case 0: /* absolute */
		emit8((u8)(reg << 3 | 5));
		emit32(at);
		break;
	case 1: /* base and index */
		emit8((u8)(0x80 | reg << 3 | 4));
		emit8((u8)(scale << 6 | EDI << 3 | base));
		emit32(at - base_value[base] - (base_value[EDI] << scale));
		break;
	case 2: /* index alone */
		emit8((u8)(reg << 3 | 4));
		emit8((u8)(scale << 6 | EDI << 3 | 5));
		emit32(at - (base_value[EDI] << scale));
		break;
	default: emit8((u8)(0x80 | reg << 3 | base)); emit32(at - base_value[base]);
	}
}

/* A register that may hold anything: EAX, ECX, EDX; those of bytes. */
static unsigned data(void)
{
	return below(3);
}

static unsigned data8(void)
{
	static const u8 r[] = { 0, 1, 2, 4, 5, 6 }; /* AL CL DL AH CH DH */

	return r[below(6)];
}

static void put_operand(bool byte, unsigned reg)
{
	if (one_in(3))
		put_modrm(reg, byte ? data8() : data());
	else
		put_memory(reg);
}

static bool word; /* 66H */

static void put_imm(void)
{
	u32 v = one_in(2) ? next_random() : (u32)below(5) - 2;

	emit8((u8)v);
	emit8((u8)(v >> 8));
	if (!word) {
		emit8((u8)(v >> 16));
		emit8((u8)(v >> 24));
	}
}

static void put_instruction(unsigned depth)
{
	static const u8 rmw[] = { 0x11, 0x01, 0x29, 0x31, 0x39, 0x85, 0x87, 0x89, 0x21, 0x09, 0x19 };
	static const u8 load[] = { 0x03, 0x13, 0x1b, 0x23, 0x2b, 0x33, 0x3b, 0x8b, 0x0b };
	static const u8 two[] = {
		0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0xbc, 0xbd, 0x40, 0x42, 0x44, 0x46, 0x4c, 0x4f
	};
	static const u8 moving[] = { EBX, EBP, ESI };
	static const u8 plain[] = { 0x98, 0x99, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0x27, 0x2f, 0x37, 0x3f, 0x90 };
	unsigned r = moving[below(3)];
	u32 kind = below(30);
	bool byte = one_in(4);

	word = false;
	if (kind < 22 && one_in(6)) {
		emit8(0x66);
		word = true;
	}
	switch (kind) {
	case 0 ... 3:
		emit8(rmw[below(sizeof(rmw))] & (byte ? 0xfe : 0xff));
		put_operand(byte, byte ? data8() : data());
		break;
	case 4 ... 7:
		emit8(load[below(sizeof(load))] & (byte ? 0xfe : 0xff));
		put_operand(byte, byte ? data8() : data());
		break;
	case 8: /* group 1 */
		emit8(byte ? 0x80 : 0x83);
		put_operand(byte, below(8));
		emit8((u8)next_random());
		break;
	case 9:
		emit8(0x81);
		put_operand(false, below(8));
		put_imm();
		break;
	case 10: /* MOV with an immediate */
		emit8(0xc7);
		put_operand(false, 0);
		put_imm();
		break;
	case 11: /* group 3 */
		emit8(byte ? 0xf6 : 0xf7);
		put_operand(byte, 2 + below(one_in(8) ? 6 : 4));
		break;
	case 12: /* INC, DEC */
		emit8(byte ? 0xfe : 0xff);
		put_operand(byte, below(2));
		break;
	case 13: /* shifts by a constant */
		emit8(byte ? 0xc0 : 0xc1);
		put_operand(byte, below(8));
		emit8((u8)(1 + below(one_in(4) ? 40 : 7)));
		break;
	case 14: /* by one or CL */
		emit8((u8)((byte ? 0xd0 : 0xd1) | below(2) << 1));
		put_operand(byte, below(8));
		break;
	case 15 ... 16:
		emit8(0x0f);
		emit8(two[below(sizeof(two))]);
		put_operand(false, data());
		break;
	case 17: /* XADD, CMPXCHG */
		if (one_in(2))
			emit8(0xf0);
		emit8(0x0f);
		emit8((u8)((one_in(2) ? 0xc0 : 0xb0) | !byte));
		put_memory(byte ? data8() : data());
		break;
	case 18: /* bits by a constant or by number, SHLD, SHRD; CMPXCHG8B */
		if (!word && one_in(4)) {
			unsigned n = data();

			emit8(0x83);
			put_modrm(4, n);
			emit8(one_in(4) ? 63 : 31);
			emit8(0x0f);
			emit8((u8)(0xa3 | below(4) << 3));
			put_memory(n);
			break;
		}
		if (!word && one_in(4)) {
			emit8(0x0f);
			emit8(0xc7);
			put_memory(1);
			break;
		}
		emit8(0x0f);
		if (one_in(2)) {
			emit8(0xba);
			put_operand(false, 4 + below(4));
		} else {
			emit8(one_in(2) ? 0xa4 : 0xac);
			put_operand(false, data());
		}
		emit8((u8)below(word ? 16 : 32));
		break;
	case 19: /* INC, DEC of one byte */ emit8((u8)(0x40 | below(2) << 3 | data())); break;
	case 20: /* MOV with an address */
		emit8((u8)(0xa0 | below(4)));
		emit32(target());
		break;
	case 21: /* LEA */
		emit8(0x8d);
		put_memory(data());
		break;
	case 22: /* SETcc */
		emit8(0x0f);
		emit8((u8)(0x90 | below(16)));
		put_operand(true, 0);
		break;
	case 23: emit8(plain[below(sizeof(plain))]); break;
	case 24: /* the stack: one word on it is the sequence's */
		switch (below(8)) {
		case 0:
			emit8((u8)(0x50 | below(8)));
			emit8((u8)(0x58 | data()));
			break;
		case 1:
			emit8(0x68);
			emit32(next_random());
			emit8((u8)(0x58 | data()));
			break;
		case 2:
			emit8(0xff);
			put_memory(6);
			emit8((u8)(0x58 | data()));
			break;
		case 3:
			emit8(0x6a);
			emit8((u8)next_random());
			emit8(0x8f);
			put_memory(0);
			break;
		case 4:
			emit8(0xff);
			emit8(0x74);
			emit8(0x24);
			emit8((u8)(0xf8 + 4 * below(4)));
			emit8((u8)(0x58 | data()));
			break;
		case 5:
			emit8(0x60);
			emit8(0x61);
			break;
		case 6:
			emit8(0x9c);
			emit8((u8)(0x58 | data()));
			break;
		default:
			emit8(0xe8);
			emit32(0);
			emit8((u8)(0x58 | data()));
		}
		break;
	case 25: /* a base register moves a little */
		switch (below(5)) {
		case 0: emit8((u8)(0x40 | r)); break;
		case 1: emit8((u8)(0x48 | r)); break;
		case 2:
			emit8(0x83);
			put_modrm(0, r);
			emit8((u8)(below(16) - 8));
			break;
		case 3:
			emit8(0x83);
			put_modrm(5, r);
			emit8((u8)(below(16) - 8));
			break;
		default:
			emit8(0x8d);
			emit8((u8)(0x40 | r << 3 | r));
			emit8((u8)(below(16) - 8));
		}
		break;
	case 26: /* a base register moves far, and everything that follows with it */
	{
		u32 by = one_in(2) ? next_random() : 0x40000000u << below(2);

		emit8(0x81);
		if (one_in(2)) {
			put_modrm(0, r);
			base_value[r] += by;
		} else {
			put_modrm(5, r);
			base_value[r] -= by;
		}
		emit32(by);
		break;
	}
	case 27: /* an override: GS, whose base wraps; FS, within it or not; DS */
		if (one_in(2)) {
			u8 op = one_in(2) ? 0x8b : rmw[below(sizeof(rmw))];
			u32 at = target() - 0xffffff00;

			emit8(0x65);
			emit8(op);
			if (one_in(3)) {
				emit8((u8)(data() << 3 | 5));
			} else {
				emit8((u8)(0x80 | data() << 3 | r));
				at -= base_value[r];
			}
			emit32(at);
			break;
		}
		emit8(one_in(2) ? 0x64 : 0x3e);
		emit8(0x8b);
		emit8((u8)(data() << 3 | 5));
		emit32(one_in(2) ? below(0x104) : target());
		break;
	case 28: /* over some */
		if (depth < 2) {
			u8 *place;

			emit8((u8)(0x70 | below(16)));
			place = emit_pointer;
			emit8(0);
			for (u32 n = 1 + below(3); n--;) {
				u32 kept[8];

				/* what may be skipped moves nothing far */
				memcpy_(kept, base_value, sizeof(kept));
				put_instruction(depth + 1);
				for (unsigned k = 0; k < 8; k++)
					if (kept[k] != base_value[k]) {
						emit8(0x8d);
						emit8((u8)(0x80 | k << 3 | k));
						emit32(kept[k] - base_value[k]);
						base_value[k] = kept[k];
					}
			}
			*place = (u8)(emit_pointer - place - 1);
		}
		break;
	default: /* a string instruction, which moves ESI and the index */
		emit8(0xbe);
		emit32(target());
		emit8(0xbf);
		emit32(target());
		if (one_in(2)) {
			emit8(0xb9);
			emit32(below(12));
			emit8(one_in(2) ? 0xf2 : 0xf3);
		}
		{
			static const u8 strings[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa,
						      0xab, 0xac, 0xad, 0xae, 0xaf };

			emit8(strings[below(sizeof(strings))]);
		}
		emit8(0xbe);
		emit32(base_value[ESI]);
		emit8(0xbf);
		emit32(base_value[EDI]);
	}
}

/* --- running it --- */
static void fill(u32 v)
{
	for (unsigned n = 0; n < PIECES; n++)
		for (unsigned k = 0; k < WORDS; k++)
			*word_at(n, k) = v = v * 0x343fd + 0x269ec3;
}

/* Each in a page of its own, lest it be one that keeps changing; some across its end. */
static u32 place(u32 number)
{
	return WINDOW + number % 1000 * 4096 +
	       (number % 5 ? number * 16 % 0xc00 : 0x1000 - 10 - number * 7 % 150);
}

static bool sequence(u32 number)
{
	struct state s = begin(place(number)), twin;
	bool fine = true;

	seed = number * 0x9e3779b1u | 1;
	for (unsigned k = 0; k < 4; k++)
		next_random();
	for (unsigned k = 0; k < 8; k++)
		s.reg[k] = base_value[k] = next_random();
	s.reg[ESP] = one_in(2) ? (u32)(below(5) * 4) : LOW + 0x2000;
	emit_at(s.eip);
	for (u32 n = 2 + below(14); n--;)
		put_instruction(0);
	emit8(0xcd);
	emit8(VECTOR_USER_RETURN);
	for (u32 input = 0; input < INPUTS && fine; input++) {
		u32 filling = next_random();

		for (unsigned k = 0; k < 3; k++)
			s.reg[k] = one_in(3) ? (u32)below(3) - 1 : next_random();
		s.flags = 2 | (next_random() & FL_ALL);
		s.cs = SEL_TWIN;
		fill(filling);
		run(&s);
		twin = end_state;
		twin.cs = s.cs = SEL_UCODE;
		keep_memory();
		for (unsigned k = 0; k < WARM && fine; k++) {
			unsigned words;

			fill(filling);
			run(&s);
			words = memory_differs();
			fine = same(&end_state, &twin) && !words;
			if (!fine) {
				print("sequence %u, input %u, run %u, %u words:", number, input, k, words);
				for (u32 at = s.eip; at < (u32)emit_pointer; at++)
					print(" %02x", *(volatile u8 *)at);
				print("\n");
				print_state("from", &s);
				print_state("twin", &twin);
				print_state("flat", &end_state);
			}
		}
	}
	return fine;
}

void guest_main(void)
{
	unsigned bad = 0, ends[256] = { 0 };

	flat_init();
	for (u32 k = 0; k < SEQUENCES && bad < 5; k++) {
		bad += !sequence(k);
		ends[end_state.vector & 255]++;
	}
	check(!bad, "%u random sequences, warm and flat: %u wrong", SEQUENCES, bad);
	check(ends[VECTOR_USER_RETURN] > SEQUENCES / 2 && ends[PF] && ends[DE] && (ends[GP] || on_tcg()),
	      "of which %u ended, %u #PF, %u #GP, %u #DE", ends[VECTOR_USER_RETURN], ends[PF], ends[GP],
	      ends[DE]);
}
