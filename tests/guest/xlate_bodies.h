/* xlate_bodies.S: loops, and how to run one of them. */
#pragma once

#include "lib/irq.h"

struct state {
	u64 rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, flags;
	u8 xmm[16][16];
};

struct body {
	const char *name;
	uptr begin, end;
};
extern const struct body bodies[]; /* the last one has no name */

#define FL_CF 1ul
#define FL_TF 0x100ul
#define FL_IF 0x200ul
#define FL_RF 0x10000ul

void run_body(uptr code, const struct state *in, struct state *out);

/* 4 KiB each for RBX, RSI and RDI; RBX's is written over the end. */
static u8 body_data[4][4096] __attribute__((aligned(4096)));

static inline u64 body_random(u64 *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* The same state and data each time for the same seed. */
static void body_state(struct state *s, u64 seed, u64 rounds, u64 flags)
{
	u64 x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (unsigned k = 0; k < sizeof(*s) / 8; k++)
		((u64 *)s)[k] = body_random(&x);
	for (unsigned k = 0; k < sizeof(body_data) / 8; k++)
		((u64 *)body_data)[k] = body_random(&x);
	s->rcx = rounds;
	s->rbx = (uptr)body_data[0];
	s->rsi = (uptr)body_data[2];
	s->rdi = (uptr)body_data[3];
	s->flags = flags | 2;
}

/* Of what a body leaves behind. */
static u64 body_sum(const struct state *s)
{
	u64 sum = s->flags & 0xcd5;

	for (unsigned k = 0; k < sizeof(*s) / 8; k++)
		sum = (sum << 7 | sum >> 57) + (k == 15 ? 0 : ((const u64 *)s)[k]);
	for (unsigned k = 0; k < sizeof(body_data) / 8; k++)
		sum = (sum << 7 | sum >> 57) + ((u64 *)body_data)[k];
	return sum;
}
