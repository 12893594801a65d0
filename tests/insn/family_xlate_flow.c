/* Control flow of code that runs often: loops, calls and returns that do not match, jumps through registers, memory and
 * tables, targets that change, targets in the middle of what has been executed; then random graphs of blocks. */
#include <string.h>

#include "xlate.h"

static struct xlate_code code;

/* --- by hand --- */

#define REPEAT(n, body) "mov r15d, " n "; 9: " body "; dec r15d; jnz 9b"
#define PAD(n)          ".fill " n ", 1, 0x90;"

/* For code that looks at the words: whether this round is the last one, and where to go then. */
static void words(struct insn_rng *r, struct insn_state *s)
{
	static const u64 bad[] = { 0x0000800000000000, 0x30000000,         ~0ull, INSN_DATA,
				   0xffffffff80000000, 0x12345678abcdef00, 0,     INSN_CODE + 4096,
				   INSN_CODE - 1 };
	struct xlate_words w = { .rounds = xlate_rounds(r), .warm = xlate_inside(r, 64) };

	w.last = bad[xlate_below(r, ARRAY_SIZE(bad))];
	xlate_set_words(s, &w);
}

static void loops(struct insn_test *t)
{
	I("xor eax, eax; " REPEAT("300", "add rax, r15"));
	I("xor eax, eax; mov rcx, 300; 1: add rax, rcx; rol rax, 3; loop 1b");
	I("mov rcx, 300; 1: lea rax, [rax+rcx*2]; cmp al, 7; loopne 1b; mov rdx, rcx");
	I("mov ecx, 300; 1: lea rax, [rax+rcx*2]; test al, 1; loope 1b; mov rdx, rcx; test ecx, ecx; jz 2f; jmp 1b; 2: nop");
	I("mov rcx, 300; 1: add rax, rbx; adc rdx, rcx; dec rcx; jrcxz 2f; jmp 1b; 2: nop");
	I("mov ecx, 200; 1: inc eax; mov r8, 0x500000000; add rcx, r8; .byte 0x67; loop 1b");
	I("mov ecx, 200; 1: inc eax; mov r8, 0x500000000; add rcx, r8; .byte 0x67; jrcxz 2f; dec ecx; jmp 1b; 2: nop");
	I("mov r8d, 20; 1: mov r9d, 20; 2: mov r10d, 5; 3: add rax, r10; xor rax, r9; dec r10d; jnz 3b; rol rax, 7; dec r9d; jnz 2b; dec r8d; jnz 1b");
	I("mov r11d, 300; 1: add rax, r11; " PAD("200") "dec r11d; jnz 1b"); /* backward, six bytes */
	I("mov r11d, 300; 1: test r11b, 1; jz 2f; add rax, r11; " PAD(
		"200") "2: rol rax, 1; dec r11d; jnz 1b");
	I("mov r11d, 300; 1: test r11b, 3; jz 2f; add rax, r11; 3: dec r11d; jnz 1b; jmp 4f; 2: xor rax, rcx; jmp 3b; 4: nop");
	I("mov r11d, 300; jmp 2f; 1: add rax, r11; rcl rax, 1; 2: dec r11d; jns 1b");
	I("mov r11d, 300; 1: dec r11d; jz 2f; cmp al, r11b; jb 3f; ja 4f; add rax, 17; jmp 1b; 3: add rax, 5; jmp 1b; 4: sub rax, 3; jmp 1b; 2: nop");
	I("xor eax, eax; 1: inc eax; cmp eax, 50; jl 1b; 2: inc eax; cmp eax, 90; jne 2b; 3: dec eax; jno 4f; ud2; 4: test eax, eax; jnz 3b");
	I("mov rsi, 0x20000400; mov ecx, 256; xor eax, eax; 1: add al, [rsi]; rol eax, 5; inc rsi; loop 1b; mov [0x20000600], eax");
	I("mov rsi, 0x20000400; mov rdi, 0x20000ff0; mov ecx, 100; 1: mov rax, [rsi+rcx*8]; mov [rdi+rcx*8-200], rax; sub rcx, 1; jns 1b");
	I("mov edi, 0x20001d00; mov ecx, 500; 1: add dword ptr [rdi], ecx; add rdi, 4; loop 1b"); /* until a fault */
	I("mov esi, 0x20002d00; mov ecx, 500; 1: add rax, [rsi]; adc rdx, 0; add rsi, 8; loop 1b");
	I("mov esi, 0x20000100; 1: sub rsi, 8; mov [rsi], rsi; jmp 1b");
	I("mov esi, 0x20000801; mov eax, 200; 1: movups xmm0, [rsi]; paddd xmm1, xmm0; movups [rsi+0x900], xmm1; add rsi, 3; dec eax; jnz 1b");
}

static void calls(struct insn_test *t)
{
	/* Fibonacci, factorial, Ackermann, two that call each other, Hanoi */
	I("mov edi, 11; call 1f; jmp 9f; 1: cmp edi, 2; jb 2f; push rdi; dec edi; call 1b; pop rdi; push rax; sub edi, 2; call 1b; pop rdx; add rax, rdx; ret;"
	  "2: mov eax, edi; ret; 9: nop");
	I("mov edi, 20; call 1f; jmp 9f; 1: push rbx; mov rbx, rdi; mov eax, 1; test rdi, rdi; jz 2f; dec rdi; call 1b; imul rax, rbx; 2: pop rbx; ret; 9: nop");
	I("mov edi, 2; mov esi, 7; call 1f; jmp 9f; 1: test edi, edi; jnz 2f; lea eax, [rsi+1]; ret; 2: test esi, esi; jnz 3f; dec edi; mov esi, 1; jmp 1b;"
	  "3: push rdi; dec esi; call 1b; pop rdi; dec edi; mov esi, eax; jmp 1b; 9: nop");
	I("mov ecx, 150; call 1f; jmp 9f; 1: jrcxz 3f; dec rcx; add rax, rcx; call 2f; sbb rdx, rax; ret; 2: jrcxz 3f; dec ecx; xor rax, rdx; call 1b; adc rax, 3; 3: ret; 9: nop");
	I("mov ecx, 7; call 1f; jmp 9f; 1: jrcxz 2f; dec ecx; xchg r9, r10; call 1b; xchg r9, r10; lea rax, [rax+rax*2]; add rax, r8; xchg r8, r10; call 1b; xchg r8, r10; inc ecx; 2: ret; 9: nop");
#define DEEP(n)         \
	I("mov ecx, " n \
	  "; xor eax, eax; call 1f; jmp 9f; 1: dec ecx; jz 2f; call 1b; inc eax; 2: ret; 9: nop")
	DEEP("2");
	DEEP("15");
	DEEP("17");
	DEEP("33");
	DEEP("65");
	DEEP("130");
	DEEP("600");
	I("1: inc rax; call 1b"); /* until the stack is at its end */
	I("1: inc rax; pop rdx; pop rbx; call 1b");
	I(REPEAT(
		"300",
		"call 1f; inc rdx; jmp 3f; 1: inc rax; call 2f; dec rdx; ret; 2: xor rax, r15; ret; 3: rol rax, 1"));
	I(REPEAT("300", "call 1f; inc rdx; 1: add rsp, 8")); /* never returned from */
	I(REPEAT("300", "call 1f; 1: pop rax; add rdx, rax"));
	I("mov rbx, rsp; " REPEAT(
		"300", "call 1f; ud2; 1: call 2f; ud2; 2: call 3f; ud2; 3: mov rsp, rbx; add rax, r15"));
	I(REPEAT("300", "lea rax, [rip+1f]; push rax; ret; ud2; 1: inc rdx")); /* not called */
	I(REPEAT(
		"300",
		"lea rax, [rip+1f]; push rax; lea rcx, [rip+2f]; push rcx; lea rdi, [rip+3f]; push rdi; ret; 3: inc rdx; ret; 2: rol rdx, 1; ret; 1: nop"));
	/* another return address, once and always */
	I(REPEAT("300", "call 1f; inc rdx; inc rdx; jmp 2f; 1: add qword ptr [rsp], 3; ret; 2: nop"));
	I(REPEAT(
		"300",
		"call 1f; inc rdx; inc rdx; jmp 2f; 1: cmp r15d, 1; jnz 3f; add qword ptr [rsp], 3; 3: ret; 2: nop"));
	I(REPEAT(
		"300",
		"call 1f; inc rdx; inc rdx; jmp 2f; 1: test r15b, 1; setz al; movzx eax, al; lea eax, [rax+rax*2]; add [rsp], rax; ret; 2: nop"));
	I(REPEAT(
		"300",
		"lea rax, [rip+2f]; call 1f; 3: pause; jmp 3b; 1: mov [rsp], rax; ret; 2: inc rdx")); /* a retpoline */
	I(REPEAT(
		"300",
		"lea rax, [rip+2f]; lea rcx, [rip+5f]; test r15b, 4; cmovz rax, rcx; call 4f; add rdx, rax; jmp 6f; 4: call 1f; 3: pause; jmp 3b; 1: mov [rsp], rax; ret;"
		"2: inc rdx; ret; 5: dec rdx; ret; 6: nop"));
	I(REPEAT(
		"300",
		"call 1f; inc rdx; jmp 3f; 1: call 2f; ud2; 2: add rsp, 8; ret; 3: nop")); /* the inner one skips a frame */
	I(REPEAT("300", "call 1f; inc rdx; jmp 3f; 1: pop rax; push rbx; push rax; ret; 3: add rsp, 8"));
	I(REPEAT(
		"300",
		"push rax; push rcx; call 1f; inc rdx; jmp 2f; 1: mov rax, [rsp+8]; add rcx, [rsp+16]; ret 16; 2: nop"));
	I(REPEAT("200",
		 "sub rsp, 8; call 1f; jmp 2f; 1: ret 0; 2: call 3f; jmp 4f; 3: inc rdx; ret 8; 4: nop"));
	I("lea rbx, [rsp-512]; lea rax, [rip+5f]; mov [rbx], rax; " /* two stacks, in turns */
	  REPEAT("300",
		 "call 1f; rol rdx, 1; jmp 4f; 1: xchg rsp, rbx; ret; 5: inc rdx; call 1b; xor rdx, r15; jmp 5b; 4: nop"));
	I(REPEAT("300", "lea rax, [rip+1f]; call rax; jmp 2f; 1: inc rcx; mov rdx, [rsp]; ret; 2: nop"));
	I("lea rax, [rip+1f]; mov [0x20000600], rax; " REPEAT(
		"300", "call [0x20000600]; jmp 2f; 1: inc rcx; xor qword ptr [0x20000600], 0; ret; 2: nop"));
	I(REPEAT(
		"300",
		"push rbp; mov rbp, rsp; sub rsp, 32; mov [rbp-8], r15; call 1f; leave; jmp 2f; 1: push rbp; mov rbp, rsp; mov rax, [rbp+16]; add rdx, [rbp+40]; pop rbp; ret; 2: nop"));
	I(REPEAT(
		"300",
		"cmp r15d, 77; call 1f; adc rdx, rdx; jmp 2f; 1: mov rax, [rsp]; ret; 2: nop")); /* flags across both */
	I(REPEAT(
		"300",
		"push rsp; call 1f; jmp 2f; 1: mov rax, rsp; xchg rax, [rsp+8]; sub rax, [rsp+8]; add rdx, rax; ret 8; 2: nop"));
	I(REPEAT(
		"100",
		"call 1f; 1: call 2f; 2: call 3f; 3: pop rax; pop rcx; pop rbx; sub rax, rcx; add rdx, rax"));
	/* the stack over the end of a page, and into what cannot be written */
	I("mov esp, 0x20001004; " REPEAT(
		"200", "call 1f; inc rdx; jmp 2f; 1: call 3f; ret; 3: mov rax, [rsp]; ret; 2: nop"));
	I("mov r8, rsp; " REPEAT(
		"200",
		"cmp r15d, 1; mov eax, 0x20002008; cmovz rsp, rax; call 1f; inc rdx; jmp 2f; 1: inc rcx; ret; 2: nop"));
	I("mov r8, rsp; " REPEAT(
		"200",
		"call 1f; inc rdx; jmp 2f; 1: cmp r15d, 1; mov eax, 0x20002ffc; cmovz rsp, rax; inc rcx; ret; 2: nop"));
	I("mov eax, 0x20002010; lea rcx, [rip+1f]; mov rsp, rax; ret; 1: nop"); /* pops from what is read-only */
}

static void indirect(struct insn_test *t)
{
#define TABLE(where)                                                            \
	"lea rax, [rip+1f]; mov " where "], rax; lea rax, [rip+2f]; mov " where \
	"+8], rax; lea rax, [rip+3f];"                                          \
	"mov " where "+16], rax; lea rax, [rip+4f]; mov " where "+24], rax;"
#define CASES \
	"1: inc rdx; jmp 5f; 2: rol rdx, 3; jmp 5f; 3: xor rdx, r15; jmp 5f; 4: lea rdx, [rdx+rdx*2]; 5: nop"
	I("sub rsp, 32; " TABLE("[rsp") REPEAT("300", "mov ecx, r15d; and ecx, 3; jmp [rsp+rcx*8]; " CASES));
	I(TABLE("[0x20000600")
		  REPEAT("300",
			 "imul ecx, r15d, 0x9e37; shr ecx, 9; and ecx, 3; jmp [rcx*8+0x20000600]; " CASES));
	I(TABLE("[0x20000600") REPEAT(
		"300",
		"imul ecx, r15d, 0x9e37; shr ecx, 9; and ecx, 3; mov rax, [rcx*8+0x20000600]; jmp rax; " CASES));
	I(TABLE("[0x20000600") REPEAT(
		"300",
		"mov ecx, r15d; shr ecx, 4; and ecx, 3; mov r10, [rcx*8+0x20000600]; jmp r10; " CASES));
	I(TABLE("[0x20000600")
		  REPEAT("300",
			 "mov ecx, r15d; shr ecx, 4; and ecx, 3; push [rcx*8+0x20000600]; ret; " CASES));
	I(TABLE("[0x20000600") "mov rbx, 0x20000600; " REPEAT(
		"300",
		"mov rax, [rbx]; mov rcx, [rbx+8]; mov rsi, [rbx+24]; mov [rbx], rcx; mov [rbx+8], rsi; mov [rbx+24], rax; jmp rax; " CASES));
	I(TABLE("gs:[0x40") REPEAT("300", "mov ecx, r15d; and ecx, 2; jmp gs:[rcx*8+0x40]; " CASES));
	I(TABLE("[0x20000ff4") REPEAT(
		"300", "mov ecx, r15d; and ecx, 3; jmp [rcx*8+0x20000ff4]; " CASES)); /* over a page's end */
#define FUNCTIONS \
	"jmp 5f; 1: inc rdx; ret; 2: rol rdx, 3; ret; 3: xor rdx, r15; ret; 4: lea rdx, [rdx+rdx*2]; ret; 5: nop"
	I(TABLE("[0x20000600") REPEAT(
		"300",
		"imul ecx, r15d, 0x9e37; shr ecx, 9; and ecx, 3; call [rcx*8+0x20000600]; add rdx, 5; " FUNCTIONS));
	I(TABLE("[0x20000600") REPEAT(
		"300",
		"mov r11d, r15d; and r11d, 3; mov r9, [r11*8+0x20000600]; call r9; sub rdx, r11; " FUNCTIONS));
	I("sub rsp, 32; " TABLE("[rsp")
		  REPEAT("300", "mov ecx, r15d; and ecx, 3; call [rsp+rcx*8]; add rdx, 5; " FUNCTIONS));
	I("lea rax, [rip+1f]; " REPEAT(
		"300",
		"jmp rax; 1: lea rax, [rip+2f]; inc rdx; jmp 3f; 2: lea rax, [rip+1b]; rol rdx, 1; 3: nop"));
	I("lea rsp, [rip+1f]; mov r9, rsp; mov r10, 0x20001c00; mov r15d, 300; 9: jmp rsp; 1: xchg rsp, r10; push rax; pop rax; xchg rsp, r10; dec r15d; jnz 9b");
	I(REPEAT(
		"300",
		"xor eax, eax; lea r10, [rip+1f]; cmp r15d, 150; jmp r10; 1: setb al; adc rdx, rax; lea r10, [rip+2f]; push r10; ret; 2: adc rdx, 0"));
	I(REPEAT(
		"300",
		"mov r8, 0xffffffff00000000; lea r9, [rip+1f]; or r8, r9; mov r8d, r8d; jmp r8; 1: inc rdx"));
	/* Two entries to the same bytes: from the front, or behind the first opcode. */
	I("lea rbx, [rip+1f]; " REPEAT(
		"300",
		"mov ecx, r15d; and ecx, 1; lea rax, [rbx+rcx]; jmp rax; 1: .byte 0xb8, 0x48, 0xff, 0xc2, 0x90; add rdx, rax"));
	I("lea rbx, [rip+1f]; " REPEAT(
		"300",
		"xor ecx, ecx; bt r15d, 4; adc rcx, rcx; lea rax, [rbx+rcx*2]; jmp rax; 1: .byte 0x48, 0xb9, 0x48, 0xff, 0xc2, 0x48, 0xd1, 0xc2, 0x90, 0x90; add rdx, rcx"));
	I("lea rbx, [rip+1f]; " REPEAT(
		"300",
		"mov ecx, r15d; and ecx, 7; lea rax, [rbx+rcx]; jmp rax; 1: nop; nop; nop; nop; nop; nop; nop; inc rdx")); /* a tail of a run */
	I("lea rbx, [rip+1f]; " REPEAT(
		"300",
		"mov ecx, r15d; shr ecx, 5; and ecx, 7; lea rax, [rbx+rcx*4]; jmp rax; 1: lea rdx, [rdx+1]; lea rdx, [rdx+2]; lea rdx, [rdx+3]; lea rdx, [rdx+4];"
		"lea rdx, [rdx+5]; lea rdx, [rdx+6]; lea rdx, [rdx+7]; lea rdx, [rdx+8]"));
	I("lea rbx, [rip+1f]; " REPEAT(
		"300",
		"mov ecx, r15d; and ecx, 3; lea rax, [rbx+rcx]; jmp rax; 1: cs; cs; cs; mov rax, [0x20000600]; add rdx, rax")); /* between prefixes */
	/* In the last round to where nothing can be executed. */
	t->setup = words;
#define LAST(text)                                                             \
	I("1: " XLATE_ROUND "lea rax, [rip+2f]; cmovz rax, [0x20000310];" text \
	  "; ud2; 2: inc rdx; cmp dword ptr [0x20000300], 0; jnz 1b")
	LAST("jmp rax");
	LAST("call rax");
	LAST("push rax; ret");
	LAST("push rax; push rax; ret 8");
	LAST("mov [0x20000600], rax; jmp [0x20000600]");
	LAST("mov [0x20000600], rax; call [0x20000600]");
	LAST("call 3f; ud2; 3: mov [rsp], rax; ret");
	LAST("mov r10, rax; cmp rax, rdx; jmp r10");
	LAST("mov rcx, [0x20000308]; xchg rax, [rcx]; jmp [rcx]");
	LAST("mov rbx, rax; call 3f; jmp 2f; 3: mov rcx, rbx; xchg rcx, [rsp]; ret");
	t->setup = NULL;
}

/* --- random graphs --- */

#define MAX_NODES  12
#define MAX_PLACES 128

static struct xlate_pieces body;
static struct {
	unsigned place[MAX_PLACES], nr_places; /* where something begins */
	unsigned node[MAX_NODES], nr_nodes;
	struct {
		unsigned field, size;
		bool to_node, to_end;
	} fix[128];
	unsigned nr_fix;
} graph;

static void emit(const void *bytes, unsigned n)
{
	memcpy(code.code + code.len, bytes, n);
	code.len += n;
}

/* A relative field of that size comes next. */
static void fix(unsigned size, bool to_node, bool to_end)
{
	graph.fix[graph.nr_fix].field = code.len;
	graph.fix[graph.nr_fix].size = size;
	graph.fix[graph.nr_fix].to_node = to_node;
	graph.fix[graph.nr_fix++].to_end = to_end;
	emit("\0\0\0\0", size);
}

/* lea r15, [r15-1]; xchg rcx, r15; jrcxz 1f; xchg rcx, r15; jmp 2f; 1: xchg rcx, r15; jmp END; 2: no flag is changed */
static void burn_fuel(void)
{
	emit("\x4d\x8d\x7f\xff\x49\x87\xcf\xe3\x05\x49\x87\xcf\xeb\x08\x49\x87\xcf\xe9", 18);
	fix(4, false, true);
}

static void leave_node(struct insn_rng *r)
{
	u8 cc = (u8)xlate_below(r, 16);
	switch (xlate_below(r, 20)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4: /* jcc, near */
		emit((u8[]){ 0x0f, 0x80 | cc }, 2);
		fix(4, xlate_below(r, 2), false);
		break;
	case 5:
	case 6:
	case 7: /* jcc, short */
		emit((u8[]){ 0x70 | cc }, 1);
		fix(1, false, false);
		break;
	case 8: /* loopne, loope, loop, jrcxz */
		emit((u8[]){ 0xe0 | (cc & 3) }, 1);
		fix(1, false, false);
		break;
	case 9:
	case 10: /* jmp */
		emit("\xe9", 1);
		fix(4, xlate_below(r, 2), false);
		break;
	case 11: /* jmp, short */
		emit("\xeb", 1);
		fix(1, false, false);
		break;
	case 12:
	case 13:
	case 14: /* call */
		emit("\xe8", 1);
		fix(4, true, false);
		break;
	case 15:
	case 16: emit("\xc3", 1); break;
	case 17: /* lea rdx, [rip+...]; jmp rdx */
		emit("\x48\x8d\x15", 3);
		fix(4, false, false);
		emit("\xff\xe2", 2);
		break;
	case 18: /* movzx edx, dl; and dl, 7; jmp or call [rdx*8+20000700H] */
		emit("\x0f\xb6\xd2\x80\xe2\x07\xff", 7);
		emit((u8[]){ cc & 1 ? 0x24 : 0x14 }, 1);
		emit("\xd5\x00\x07\x00\x20", 5);
		break;
	default: /* jcc; jcc */
		emit((u8[]){ 0x0f, 0x80 | cc }, 2);
		fix(4, false, false);
		emit((u8[]){ 0x0f, 0x80 | (cc ^ (u8)xlate_below(r, 16)) }, 2);
		fix(4, true, false);
	}
}

static bool aim(struct insn_rng *r)
{
	for (unsigned k = 0; k < graph.nr_fix; k++) {
		unsigned field = graph.fix[k].field, size = graph.fix[k].size, tries = 0;
		s32 d;
		do {
			unsigned to = graph.fix[k].to_end    ? code.len
				      : graph.fix[k].to_node ? graph.node[xlate_below(r, graph.nr_nodes)]
							     : graph.place[xlate_below(r, graph.nr_places)];
			d = (s32)(to - (field + size));
		} while (size == 1 && d != (s8)d && tries++ < 100);
		if (size == 1 && d != (s8)d)
			return false;
		u8 b[4];
		st32(b, (u32)d);
		memcpy(code.code + field, b, size);
	}
	return true;
}

static bool build_graph(struct insn_rng *r)
{
	unsigned want = 3 + xlate_below(r, MAX_NODES - 3);

	xlate_begin(&code);
	memset(&graph, 0, sizeof(graph));
	while (graph.nr_nodes < want && code.len < INSN_MAX_CODE - 110) {
		unsigned n = xlate_below(r, 5);
		graph.node[graph.nr_nodes++] = code.len;
		graph.place[graph.nr_places++] = code.len;
		while (n-- && code.len < INSN_MAX_CODE - 80 && graph.nr_places + 2 < MAX_PLACES) {
			const struct xlate_piece *p = xlate_any(r, &body);
			graph.place[graph.nr_places++] = code.len;
			emit(p->code, p->len);
		}
		burn_fuel();
		graph.place[graph.nr_places++] = code.len - 22;
		leave_node(r);
	}
	snprintf(code.text, sizeof(code.text), "a graph of %u nodes", graph.nr_nodes);
	return aim(r);
}

/* Return addresses on the stack, and a table of targets: nodes, all of them. RBX points into the data, R15 is the fuel. */
static void graph_state(struct insn_rng *r, struct insn_state *s)
{
	struct xlate_words w = { .rounds = 1 };

	xlate_set_words(s, &w);
	/* Neither on the words nor on the table nor where the stack comes to. */
	bool edge = xlate_below(r, 4) == 0;
	s->gpr[R_BX] = edge ? INSN_DATA + 0x1000 - 8 : INSN_DATA + 0x380 + xlate_below(r, 0x2c0);
	s->gpr[R_15] = 20 + xlate_below(r, edge ? 300 : 580);
	for (unsigned at = (unsigned)(INSN_STACK - INSN_DATA); at < INSN_DATA_SIZE; at += 8)
		st64(s->data + at, INSN_CODE + graph.node[xlate_below(r, graph.nr_nodes)]);
	for (unsigned k = 0; k < 8; k++)
		st64(s->data + 0x700 + 8 * k, INSN_CODE + graph.node[xlate_below(r, graph.nr_nodes)]);
}

static void graphs(struct insn_test *t)
{
	body.n = 0;
	EACH_IN(&body, "add rax, rdx", "sub rcx, rax", "xor rdx, rcx", "inc rax", "dec rdx", "cmp rax, rcx",
		"test al, 3", "rol rdx, 5", "adc rcx, rax", "sbb rdx, 1", "imul rax, rax, 77",
		"lea rdx, [rdx+rax*4+1]", "shr rcx, 3", "bt rax, rdx", "neg rdx", "mov r9, rax");
	EACH_IN(&body, "mov rax, [rbx]", "mov [rbx+8], rdx", "add [rbx], rcx", "mov r10d, [rbx+4]",
		"cmp [rbx+8], r10", "mov [rbx+2], r9w", "xchg rax, [rbx+16]", "push rax; pop rcx",
		"push rdx; mov rdx, [rsp]; lea rsp, [rsp+8]", "pushf; pop rdx", "mov ecx, 5", "setc dl",
		"cmovs rax, rcx", "xor edx, edx", "not rax", "movups xmm1, [rbx]; movups [rbx+16], xmm1");
	EACH_IN(&body, "call 1f; jmp 2f; 1: ret; 2:", "call 1f; 1: pop rdx", "bswap rax",
		"inc dword ptr [rbx+4]", "mov r11, rsp", "add r11, r9; mov [rbx+24], r11",
		"jc 1f; inc rdx; 1:", "stc", "cmc", "shl rdx, cl", "movzx eax, byte ptr [rbx+3]", "lahf",
		"paddd xmm0, xmm1; movd eax, xmm0");
	t->setup = graph_state;
	for (unsigned n = 0; n < 2500; n++)
		if (build_graph(&t->rng))
			xlate_try(t, &code);
	t->setup = NULL;
}

void family_xlate_flow(struct insn_test *t)
{
	unsigned states = t->states;

	t->states = MIN(states, 8u);
	loops(t);
	calls(t);
	t->states = MIN(states, 12u);
	indirect(t);
	t->states = MIN(states, 6u);
	graphs(t);
}
