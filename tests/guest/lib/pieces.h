/* Pieces of memory that are compared with what they held. A test defines PIECES, how many, and WORDS, of how many words, and where
 * they are, piece_at[]; then it includes this. */
#pragma once

static u32 memory[PIECES][WORDS];

static volatile u32 *word_at(unsigned piece, unsigned k)
{
	return (volatile u32 *)(piece_at[piece] + 4 * k);
}

static void keep_memory(void)
{
	for (unsigned n = 0; n < PIECES; n++)
		for (unsigned k = 0; k < WORDS; k++)
			memory[n][k] = *word_at(n, k);
}

static unsigned memory_differs(void)
{
	unsigned bad = 0;

	for (unsigned n = 0; n < PIECES; n++)
		for (unsigned k = 0; k < WORDS; k++)
			bad += memory[n][k] != *word_at(n, k);
	return bad;
}
