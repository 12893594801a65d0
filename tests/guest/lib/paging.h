/* Bits of page-table entries and of the control registers that say what they mean. [SDM3 4.1, 4.5] */
#pragma once

#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX (1ull << 63)

#define CR0_WP    0x10000ul
#define CR0_PG    0x80000000ul
#define CR4_PSE   0x10ul
#define CR4_PAE   0x20ul
#define CR4_PGE   0x80ul
#define CR4_PCIDE 0x20000ul
#define CR4_SMEP  0x100000ul
#define CR4_SMAP  0x200000ul
