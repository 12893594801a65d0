/* As many processors as there are execute the same functions until they are warm; shared_code.sh looks at how often these were
 * translated. */
#include "lib/emit.h"
#include "lib/smp.h"

#define AREA      ((uptr)0x2000000ul)
#define FUNCTIONS 5000u
#define STRIDE    80u

static volatile u32 wrong;

static uptr at(u32 k)
{
	return AREA + k * STRIDE;
}

static void run(void)
{
	u32 bad = 0;

	for (u32 k = 0; k < FUNCTIONS; k++)
		for (u32 turn = 0; turn < 60; turn++)
			bad += (u32)((u64(*)(u64))at(k))(turn) != (k + turn) * 3;
	__atomic_fetch_add(&wrong, bad, __ATOMIC_SEQ_CST);
}

void guest_main(void)
{
	cli();
	for (u32 k = 0; k < FUNCTIONS; k++) {
		emit_at(at(k));
		emit("\x8d\x87", 2); /* lea k(%rdi), %eax; lea (%rax, %rax, 2), %eax; ret */
		emit32(k);
		emit("\x8d\x04\x40\xc3", 4);
	}
	aps_begin_all();
	bool ended = ap_together(run, run);
	check(ended && !wrong, "%u processors, %u functions: %u wrong", 1 + ap_alive, FUNCTIONS, wrong);
}
