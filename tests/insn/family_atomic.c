/* XADD CMPXCHG CMPXCHG8B CMPXCHG16B, with LOCK and without; LOCK where it is not allowed. */
#include "families.h"

/* Half of the comparisons succeed. */
static void match(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	s->gpr[R_SI] &= ~15ull;
	const u8 *p = s->data + (s->gpr[R_SI] - INSN_DATA);
	if (k & 1) {
		s->gpr[R_AX] = ld64(p);
		s->gpr[R_DX] = k & 2 ? ld64(p) >> 32 : ld64(p + 8);
	}
	if (k & 4)
		s->gpr[R_BX] = s->gpr[R_AX];
}

void family_atomic(struct insn_test *t)
{
	t->setup = match;
#define BOTH(text) \
	I(text);   \
	I("lock " text)
	I("xadd al, bl");
	I("xadd cx, dx");
	I("xadd r8d, r9d");
	I("xadd rax, rax");
	EACH(BOTH, "xadd [rsi], bl", "xadd [rsi], bx", "xadd [rdi], r9d", "xadd [rbp], rdx");
	I("cmpxchg bl, cl");
	I("cmpxchg bx, cx");
	I("cmpxchg ebx, r9d");
	I("cmpxchg rbx, r10");
	EACH(BOTH, "cmpxchg [rsi], cl", "cmpxchg [rsi], cx", "cmpxchg [rsi], ecx", "cmpxchg [rsi], r9",
	     "cmpxchg [rsi+4], r9", "cmpxchg8b [rsi]", "cmpxchg8b [rsi+5]");
	if (insn_has(X86_FEATURE_CX16)) {
		BOTH("cmpxchg16b [rsi]");
		BOTH("cmpxchg16b [rsi+8]"); /* not aligned: #GP */
	}
	I("mov ebx, 0x20000ffd; lock add dword ptr [rbx], eax");
	I("mov ebx, 0x20001ffc; lock xadd [rbx], rax"); /* into the read-only page */
	I("mov ebx, 0x20001ffc; lock cmpxchg [rbx], rcx");
	I("mov ebx, 0x20002000; cmpxchg [rbx], rcx"); /* faults whether it stores or not */
	I("mov ebx, 0x20002000; lock or dword ptr [rbx], 0");
	I(".byte 0xf0, 0x01, 0xd8"); /* lock add eax, ebx */
	I(".byte 0xf0, 0x8b, 0x06"); /* lock mov eax, [rsi] */
	I(".byte 0xf0, 0x39, 0x06"); /* lock cmp [rsi], eax */
	I(".byte 0xf0, 0x90");
	I(".byte 0xf0, 0x0f, 0xa3, 0x06"); /* lock bt */
	I(".byte 0xf0, 0xf6, 0x06, 0x01"); /* lock test */
	I(".byte 0xf0, 0xd1, 0x26");       /* lock shl */
	I(".byte 0xf0, 0x0f, 0x58, 0x06"); /* lock addps */
	I(".byte 0xf0, 0x0f, 0xc7, 0xc8"); /* lock cmpxchg8b of a register: no such thing */
	t->setup = NULL;
}
