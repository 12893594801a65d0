/* Warm 32-bit code with flat segments: addresses and stacks that wrap at 4 GiB, segments that are flat no longer, 16-bit forms,
 * string instructions up to the end of 4 GiB, and what a fault in the middle of a warm block says. All at CPL 3, from one known
 * state to the next: lib/flat.h. [SDM1 3.3.7; SDM3 5.3, 6.6] */
#include "lib/flat.h"

/* Runs of a case: more than an engine may want before it translates, tries and translates again. */
#define WARM 40

/* --- code that does the same, flat and not flat --- */
/* name, code, then EAX ECX EDX EBX ESP EBP ESI EDI */
#define CASES(X)                                                                                             \
	/* addresses */                                                                                      \
	X(wrap_up,                                                                                           \
	  "mov 0x40000010(%ebx), %eax; mov 0x40000014(%ebx), %ecx; "                                         \
	  "add %eax, 0x40000018(%ebx); mov %cl, 0x40000020(%ebx)",                                           \
	  1, 2, 3, 0xc0000000, 0, 0, 0, 0)                                                                   \
	X(wrap_up_low, "mov 0x42002010(%ebx), %eax; add %eax, 0x42002018(%ebx); sub 0x42001ff0(%ebx), %edx", \
	  1, 2, 3, 0xc0000000, 0, 0, 0, 0)                                                                   \
	X(wrap_down, "mov -0x20(%ebx), %eax; mov %eax, -0x24(%ebx); adc %ecx, -0x14(%ebx)", 1, 2, 3, 0x10,   \
	  0, 0, 0, 0)                                                                                        \
	X(wrap_down_far, "mov -0x3dffe000(%ebx), %eax; mov %eax, -0x3dffdff0(%ebx)", 1, 2, 3, 0x40000000, 0, \
	  0, 0, 0)                                                                                           \
	X(least_displacement,                                                                                \
	  "mov -0x80000000(%ebx), %eax; sub $0x40, %ebx; mov -0x80000000(%ebx), %ecx; "                      \
	  "add %ecx, -0x80000000(%ebx)",                                                                     \
	  1, 2, 3, 0x82002000, 0, 0, 0, 0)                                                                   \
	X(most_displacement,                                                                                 \
	  "mov 0x7ffffffc(%ebx), %eax; add $0x40, %ebx; mov 0x7ffffffc(%ebx), %ecx; "                        \
	  "add %ecx, 0x7ffffff0(%ebx)",                                                                      \
	  1, 2, 3, 0x82002004, 0, 0, 0, 0)                                                                   \
	X(index_wraps,                                                                                       \
	  "mov 0x10(%ebx,%esi,8), %eax; mov 4(%ebx,%edi,4), %ecx; add %ecx, (%ebx,%edi,2); "                 \
	  "lea 3(%ebx,%edi,4), %edx",                                                                        \
	  1, 2, 3, 0x2002000, 0, 0, 0x20000000, 0xc0000001)                                                  \
	X(index_alone,                                                                                       \
	  "mov 0x2002000(,%esi,8), %eax; add %eax, 0x2002010(,%edi,4); mov (,%edi,4), %ecx; "                \
	  "xor %cl, -8(,%edi,4)",                                                                            \
	  1, 2, 3, 0, 0, 0, 0xe0000001, 0xc0000001)                                                          \
	X(index_below,                                                                                       \
	  "mov (%ebx,%esi), %eax; mov %eax, 4(%ebx,%esi); movzbl (%esi,%ebx), %ecx; "                        \
	  "inc %esi; mov (%ebx,%esi), %edx",                                                                 \
	  1, 2, 3, 0x40000000, 0, 0, 0xc2002000, 0)                                                          \
	X(base_moves,                                                                                        \
	  "mov (%ebx), %eax; add $8, %ebx; mov (%ebx), %ecx; add $8, %ebx; mov (%ebx), %edx; "               \
	  "sub $4, %ebx; add %eax, (%ebx);"                                                                  \
	  "lea 0x20(%ebx), %ebx; xor %ecx, 4(%ebx); inc %ebx; mov %dl, (%ebx); dec %ebx; "                   \
	  "dec %ebx; mov %dl, -1(%ebx)",                                                                     \
	  1, 2, 3, 0xfffffff0, 0, 0, 0, 0)                                                                   \
	X(base_moves_down,                                                                                   \
	  "mov (%ebx), %eax; sub $4, %ebx; mov (%ebx), %ecx; mov %eax, (%ebx); dec %ebx; "                   \
	  "mov %cl, -3(%ebx);"                                                                               \
	  "sub $0x13, %ebx; adc %eax, 8(%ebx); lea -8(%ebx), %ebx; mov %ecx, (%ebx)",                        \
	  1, 2, 3, 8, 0, 0, 0, 0)                                                                            \
	X(base_moves_far,                                                                                    \
	  "mov (%ebx), %eax; add $0x40000000, %ebx; mov -0x40000000(%ebx), %ecx; "                           \
	  "add $0x40000000, %ebx; add $0x40000000, %ebx;"                                                    \
	  "add $0x40000000, %ebx; mov %eax, 4(%ebx); sub $-0x80000000, %ebx; "                               \
	  "mov -0x80000000(%ebx), %edx; lea 0x7fffffff(%ebx), %ebx;"                                         \
	  "mov 1(%ebx), %eax; add %eax, 0x11(%ebx)",                                                         \
	  1, 2, 3, 0x2002000, 0, 0, 0, 0)                                                                    \
	X(absolute,                                                                                          \
	  "mov 0xfffffff0, %ecx; add 0x10, %ecx; add %ecx, 0xfffffff8; addl $5, 0xfffffffc; "                \
	  "addl $7, 0; mov %cl, 0xffffffff; sbb 0x4, %edx",                                                  \
	  1, 2, 3, 0, 0, 0, 0, 0)                                                                            \
	X(moffs,                                                                                             \
	  ".byte 0xa1; .long 0xfffffff4; .byte 0xa3; .long 0x2002004; .byte 0xa0; "                          \
	  ".long 0xfffffff1; .byte 0xa2; .long 0x2002003;"                                                   \
	  ".byte 0x66, 0xa1; .long 0xffffff82; .byte 0x66, 0xa3; .long 6; .byte 0x67, 0xa1; "                \
	  ".word 0x10; .byte 0x64, 0xa3; .long 0x10",                                                        \
	  1, 2, 3, 0, 0, 0, 0, 0)                                                                            \
	X(lea,                                                                                               \
	  "lea 0x40000000(%ebx), %eax; lea (%ebx,%ebx,8), %ecx; lea -1(,%ebx,4), %edx; "                     \
	  "lea 4(%esp), %ebp; lea (%bx,%si), %edi;"                                                          \
	  "lea 0x7fffffff(%ebx,%esi), %si; lea 0x12345678, %ebx; lea 0x1234(%ebp), %bp; "                    \
	  "lea -4(%esp), %esp; lea 4(%esp), %esp",                                                           \
	  1, 2, 3, 0xfffffff3, 0x2002000, 0, 0x9abcdef0, 0)                                                  \
	X(flags_and_addresses,                                                                               \
	  "add %ecx, %eax; mov (%ebx), %edx; adc $0, %edx; cmp %edx, %eax; "                                 \
	  "mov %eax, -4(%ebx); setb %cl; inc %ebx; dec %ebx;"                                                \
	  "mov -4(%ebx), %esi; sbb %edi, %edi; stc; inc %edi; dec %esi; adc 8(%ebx), %esi",                  \
	  0xffffffff, 2, 3, 0, 0, 0, 0, 0)                                                                   \
	/* the stack */                                                                                      \
	X(stack_wraps,                                                                                       \
	  "push %eax; push %ecx; push $0x12345678; push $-3; pop %esi; push (%esp); "                        \
	  "pop 0x2002000; pop %edi; mov (%esp), %ebp; add $4, %esp",                                         \
	  1, 2, 3, 0, 8, 0, 0, 0)                                                                            \
	X(stack_wraps_up,                                                                                    \
	  "pop %eax; pop %ecx; pop %edx; pop %esi; push %esi; push 4(%esp); "                                \
	  "mov 4(%esp), %edi; push 0xfffffff0",                                                              \
	  1, 2, 3, 0, 0xfffffff8, 0, 0, 0)                                                                   \
	X(stack_at_the_end, "push %eax; push %ecx; mov -8(%esp), %edx; pop %esi; pop %edi", 0x11, 0x22, 3,   \
	  0, 0, 0, 0, 0)                                                                                     \
	X(calls_wrap,                                                                                        \
	  "call 1f; call 1f; jmp 2f; 1: push %eax; inc %eax; call 3f; pop %ecx; ret; "                       \
	  "3: add %ecx, %edx; ret; 2: nop",                                                                  \
	  1, 2, 3, 0, 8, 0, 0, 0)                                                                            \
	X(ret_n,                                                                                             \
	  "push %eax; push %ecx; call 1f; jmp 2f; 1: mov 4(%esp), %edx; add 8(%esp), %edx; "                 \
	  "ret $8; 2: nop",                                                                                  \
	  7, 9, 3, 0, 12, 0, 0, 0)                                                                           \
	X(pusha, "stc; pusha; mov 12(%esp), %eax; popa; pusha; add $32, %esp; pushaw; popaw", 1, 2, 3, 4,    \
	  0x10, 6, 7, 8)                                                                                     \
	X(enter,                                                                                             \
	  "enter $0x10, $0; mov %eax, -4(%ebp); mov %esp, %ecx; leave; enter $8, $3; "                       \
	  "mov (%ebp), %edx; leave",                                                                         \
	  1, 2, 3, 4, 0x2002000, 0x2002080, 7, 8)                                                            \
	X(enter_wraps,                                                                                       \
	  "enter $0x10, $0; mov %eax, -4(%ebp); mov -4(%ebp), %ecx; leave; .byte 0x66, 0xc8, 8, 0, 0; "      \
	  ".byte 0x66, 0xc9",                                                                                \
	  1, 2, 3, 4, 0x8, 6, 7, 8)                                                                          \
	X(leave_wraps, "leave; push %ebp", 1, 2, 3, 4, 0x2002000, 0xfffffffc, 7, 8)                          \
	X(push_sp,                                                                                           \
	  "push %esp; pop %eax; push %esp; push %esp; pop (%esp); pop %ecx; push 4(%esp); "                  \
	  "pop 4(%esp); pop 0x10(%esp); push -4(%esp)",                                                      \
	  1, 2, 3, 4, 0x2002000, 6, 7, 8)                                                                    \
	X(pop_sp,                                                                                            \
	  "mov %esp, %edx; pushl %ecx; pop %esp; push %eax; push $0x2002040; pop %esp; "                     \
	  "pop %ebx; mov %edx, %esp",                                                                        \
	  1, 0x2001f80, 3, 4, 0x2002000, 6, 7, 8)                                                            \
	X(pop_sp_wraps, "push $4; pop %esp; push %eax; push %ecx; pop 0xc(%esp)", 1, 2, 3, 4, 0x2002000, 6,  \
	  7, 8)                                                                                              \
	X(push_segments,                                                                                     \
	  "push %ds; push %fs; pop %eax; pop %ecx; push %cs; movl $7, (%esp); pop %edx; "                    \
	  "pushw %ss; popw %si; push %es; pop %eax; mov %esp, %edi",                                         \
	  1, 2, 3, 4, 4, 6, 7, 8)                                                                            \
	X(pushf, "stc; pushf; pop %eax; cmc; pushfw; popw %cx; push $0xcd7; popf; pushf; pop %edx; cld", 1,  \
	  2, 3, 4, 4, 6, 7, 8)                                                                               \
	/* forms of other sizes */                                                                           \
	X(words,                                                                                             \
	  "pushw %ax; popw %cx; pushw $0x1234; pushw $-2; popw %dx; popw (%ebx); "                           \
	  "pushw (%ebx); mov (%esp), %esi; popw %di; pushw %sp; popw %bp",                                   \
	  0xabcd1234, 2, 0x99990000, 0x2002001, 2, 6, 7, 8)                                                  \
	X(word_operands,                                                                                     \
	  "add %ax, 0x10(%ebx); incw (%ebx); decw %cx; inc %dx; xchg %ax, %si; "                             \
	  "imulw $-7, 4(%ebx), %di; movw $0x8765, 2(%ebx); cwtl; cwtd; cltd;"                                \
	  "bsf 4(%ebx), %ax; adcw $-1, 8(%ebx)",                                                             \
	  0xabcd1234, 0x10000, 0x9999ffff, 0x2002001, 2, 6, 7, 8)                                            \
	X(addresses_of_words,                                                                                \
	  "mov 0x10(%bx,%si), %eax; mov %eax, (%di); add %cx, 2(%bp); mov (%bx), %dl; "                      \
	  "movzbl (%si), %ebp",                                                                              \
	  1, 2, 3, 0xffff0010, 0x2002000, 0xabcd0040, 0x12340100, 0xffff0180)                                \
	X(addresses_of_words_else,                                                                           \
	  "mov 0x10(%bx,%si), %eax; mov %eax, (%bx,%di); add %cx, 2(%bp); lea 4(%bx,%si), %edi", 1, 2, 3,    \
	  0x02000010, 0x2002000, 0x02000040, 0x2010, 0x20)                                                   \
	X(jecxz,                                                                                             \
	  "jecxz 1f; inc %eax; 1: mov %ebx, %ecx; jecxz 2f; inc %edx; 2: mov $0x50000, %ecx; "               \
	  "jcxz 3f; inc %esi; 3: mov $3, %ecx; 4: inc %edi; loop 4b;"                                        \
	  "mov $0x10002, %ecx; 5: inc %edi; .byte 0x67; loop 5b; loope 6f; 6: inc %ebp",                     \
	  1, 0, 3, 4, 0x2002000, 6, 7, 8)                                                                    \
	X(inc_dec,                                                                                           \
	  "stc; inc %eax; adc %ecx, %ecx; clc; dec %edx; sbb $0, %esi; add %edi, %edi; "                     \
	  "inc %ebp; setc %bl; seto %bh; dec %edi; pushf; pop %ecx",                                         \
	  0xffffffff, 2, 0x80000000, 0, 0x2002000, 0x7fffffff, 7, 0x80000000)                                \
	X(high_bytes,                                                                                        \
	  "xchg %ah, (%ebx); add %ch, %dl; mov %dh, 4(%ebx); xchg %al, %bh; xchg %bh, %al; "                 \
	  "mov 0xffffffff, %ch; sub %ah, %ah; movzbl %bh, %esi;"                                             \
	  "movsbl %ch, %edi; cmpxchg %dh, 8(%ebx); xadd %ah, 9(%ebx); xadd %ch, %bl; "                       \
	  "sub %ch, %bl; rol $3, %dh; mul %ch; setb %ah; mov $0x77, %dh",                                    \
	  0x11223344, 0x55667788, 0x99aabbcc, 0x2002000, 0x2002000, 6, 7, 8)                                 \
	X(xlat, "xlat; mov %al, %cl; .byte 0x64; xlat; add $0x10, %al; .byte 0x67; xlat", 0x11223305, 2, 3,  \
	  0xfffffffe, 0x2002000, 6, 7, 8)                                                                    \
	X(xlat_in_fs, ".byte 0x64; xlat; mov %al, %dl; .byte 0x67, 0x64; xlat", 0x11223305, 2, 3,            \
	  0xfff00002, 0x2002000, 6, 7, 8)                                                                    \
	X(decimal, "aaa; daa; aas; das; aam; aad; .byte 0xd6; lahf; sahf; bound %eax, 0x2001f00",            \
	  0x11223399, 2, 3, 4, 0x2002000, 6, 7, 8)                                                           \
	X(arpl, "arpl %cx, %ax; setz %dl; movl $0x40, (%ebx); arpl %cx, (%ebx); arpl %ax, 0xfffffff0", 0x10, \
	  3, 3, 0x2002000, 0x2002000, 6, 7, 8)                                                               \
	X(cmpxchg8b,                                                                                         \
	  "lock cmpxchg8b 0xfffffff8; cmpxchg8b 0xfffffff8; setz %bh; "                                      \
	  "cmpxchg8b 0x2002000(%esi); cmpxchg8b 0xfffffff8",                                                 \
	  1, 2, 3, 4, 0x2002000, 6, 0xfffffff8, 8)                                                           \
	X(locked,                                                                                            \
	  "lock add %eax, (%ebx); lock xadd %ecx, -4(%ebx); lock cmpxchg %edx, 8(%ebx); "                    \
	  "lock btsl $7, 4(%ebx); lock incl -8(%ebx); lock negl (%ebx); "                                    \
	  "xchg %edi, -0x10(%ebx)",                                                                          \
	  1, 2, 3, 0, 0x2002000, 6, 7, 8)                                                                    \
	X(bits,                                                                                              \
	  "bt %eax, (%ebx); adc $0, %ecx; bts %edx, (%ebx); btcl $31, 4(%ebx); setc %cl; "                   \
	  "btr %edx, %esi; shld $5, %eax, (%ebx); shrd %cl, %edx, -4(%ebx); bswap %edi; "                    \
	  "bsr (%ebx), %ebp",                                                                                \
	  0xffffffe1, 2, 0x4f, 0, 0x2002000, 6, 7, 8)                                                        \
	X(vectors,                                                                                           \
	  "movups (%ebx), %xmm0; movups -0x20(%ebx), %xmm7; paddd %xmm0, %xmm7; "                            \
	  "movups %xmm7, 0x20(%ebx); movd %eax, %xmm1; movd %xmm7, %ecx; "                                   \
	  "pmovmskb %xmm7, %edx;"                                                                            \
	  "cvtsi2sd %eax, %xmm2; cvttsd2si %xmm2, %esi; movnti %ecx, 0x40(%ebx); "                           \
	  "fildl (%ebx); fistpl 4(%ebx); pextrw $3, %xmm7, %edi",                                            \
	  77, 2, 3, 0, 0x2002000, 6, 7, 8)                                                                   \
	X(group3,                                                                                            \
	  "mull (%ebx); xor %edx, %edx; divl 4(%esi); imull -4(%ebx); notl (%ebx); "                         \
	  "negl 4(%ebx); mov $0, %edx; idivl 0x2002000(%edx); div %bh",                                      \
	  0x12345, 2, 3, 0, 0x2002000, 6, 0x2002000, 8)                                                      \
	X(shifts,                                                                                            \
	  "shl %cl, %eax; rcll $1, (%ebx); sar $3, %edx; rcrl %cl, 4(%ebx); ror $8, %si; "                   \
	  "shll $31, 8(%ebx); adc %edi, %edi; shr $1, %ah",                                                  \
	  0x12345, 0x22, 0x87654321, 0, 0x2002000, 6, 7, 0x80000008)                                         \
	/* control flow */                                                                                   \
	X(indirect,                                                                                          \
	  "push $1f; jmp *(%esp); nop; 1: mov $2f, %eax; mov %esp, %edx; jmp *%eax; ud2; "                   \
	  "2: movl $3f, 0x2002000; call *0x2002000(%esi); jmp 4f; 3: inc %ecx; ret; "                        \
	  "4: mov $3b, %ebx;"                                                                                \
	  "call *%ebx; call *0xffffffff(%edi); jmp *5f; 5: .long 6f; 6: push $7f; ret; ud2; "                \
	  "7: nop",                                                                                          \
	  1, 2, 3, 4, 8, 6, 0, 0x2002001)                                                                    \
	X(ret_elsewhere,                                                                                     \
	  "mov $3, %esi; 4: call 1f; 3: inc %ecx; jmp 2f; 1: mov (%esp), %edx; "                             \
	  "movl $5f, (%esp); ret; 5: inc %eax; dec %esi; jnz 4b; 2: nop",                                    \
	  1, 2, 3, 4, 8, 6, 0, 8)                                                                            \
	X(deep,                                                                                              \
	  "mov $40, %ecx; call 1f; jmp 2f; 1: push %ecx; dec %ecx; jz 3f; call 1b; "                         \
	  "3: pop %ecx; add %ecx, %eax; ret; 2: nop",                                                        \
	  1, 2, 3, 4, 0x100, 6, 0, 8)                                                                        \
	X(jumps,                                                                                             \
	  "mov $50, %ecx; 1: add %ecx, %eax; jc 2f; test $4, %al; jz 3f; 2: inc %edx; "                      \
	  "3: cmp $0x30, %dl; cmova %ebx, %esi; dec %ecx; jnz 1b",                                           \
	  1, 2, 3, 4, 8, 6, 0, 8)                                                                            \
	/* strings */                                                                                        \
	X(movs, "mov $20, %ecx; rep movsl; mov $3, %ecx; rep movsb; movsw; movsl", 1, 2, 3, 4, 8, 6,         \
	  0x2001fe0, 0xffffffb8)                                                                             \
	X(movs_wraps, "mov $20, %ecx; rep movsl; mov $60, %ecx; rep movsb", 1, 2, 3, 4, 8, 6, 0xffffffb8,    \
	  0x2001fe0)                                                                                         \
	X(movs_both_wrap, "mov $20, %ecx; rep movsl", 1, 2, 3, 4, 8, 6, 0xffffffe0, 0xfffffff0)              \
	X(movs_down, "std; mov $20, %ecx; rep movsl; mov $3, %ecx; rep movsb; movsw; cld", 1, 2, 3, 4, 8, 6, \
	  0x2002030, 0x18)                                                                                   \
	X(movs_overlap, "mov $100, %ecx; rep movsb; mov $9, %ecx; rep movsw", 1, 2, 3, 4, 8, 6, 0x2001fe0,   \
	  0x2001fe3)                                                                                         \
	X(movs_nothing,                                                                                      \
	  "xor %ecx, %ecx; rep movsl; rep stosb; repe cmpsb; mov %esi, %eax; .byte 0x67; "                   \
	  "rep stosl",                                                                                       \
	  1, 2, 3, 4, 8, 6, 0x403ff000, 0x403ff000)                                                          \
	X(movs_words, "mov $0xffff0005, %ecx; .byte 0x67; rep movsl; mov %ecx, %edx; .byte 0x67; lodsb", 1,  \
	  2, 3, 4, 8, 6, 0x12340020, 0x56780080)                                                             \
	X(stos,                                                                                              \
	  "mov $40, %ecx; rep stosl; mov $7, %ecx; rep stosb; stosw; mov %edi, %edx; std; "                  \
	  "mov $9, %ecx; rep stosw; cld",                                                                    \
	  0x11223344, 2, 3, 4, 8, 6, 0x20, 0xffffff80)                                                       \
	X(scas,                                                                                              \
	  "mov $50, %ecx; repne scasb; mov %ecx, %edx; mov $50, %ecx; repe scasl; pushf; "                   \
	  "pop %ebx; std; mov $30, %ecx; repne scasw; cld",                                                  \
	  0, 2, 3, 4, 0x2002000, 6, 0x20, 0xfffffff0)                                                        \
	X(cmps,                                                                                              \
	  "mov $50, %ecx; repe cmpsb; mov %ecx, %edx; sbb %eax, %eax; mov $8, %ecx; "                        \
	  "repne cmpsl; std; mov $8, %ecx; repne cmpsw; cld",                                                \
	  1, 2, 3, 4, 0x2002000, 6, 0xfffffff0, 0xfffffff0)                                                  \
	X(lods, "mov $9, %ecx; rep lodsl; lodsb; lodsw; std; mov $5, %ecx; rep lodsb; cld; fs lodsb", 1, 2,  \
	  3, 4, 0x2002000, 6, 0xfffffff0, 0)                                                                 \
	X(string_overrides,                                                                                  \
	  "fs lodsl; mov %eax, %edx; mov $0xf0, %esi; mov $4, %ecx; "                                        \
	  "rep movsl %gs:(%esi), (%edi); mov $0x2002000, %esi; cs lodsl; ss movsb; es cmpsb",                \
	  1, 2, 3, 4, 0x2002000, 6, 0x20, 0x2002040)                                                         \
	/* into the hole: faults */                                                                          \
	X(fault_third,                                                                                       \
	  "add %ecx, %eax; mov (%ebx), %edx; mov %eax, -4(%ebx); add $4, %ebx; "                             \
	  "mov (%ebx), %esi; inc %edi",                                                                      \
	  0xffffffff, 2, 3, 0x403feffc, 0x2002000, 6, 7, 8)                                                  \
	X(fault_after_inc, "mov (%ebx), %eax; inc %ebx; inc %ebx; inc %ebx; inc %ebx; mov (%ebx), %ecx", 1,  \
	  2, 3, 0x403feffc, 0x2002000, 6, 7, 8)                                                              \
	X(fault_after_dec, "mov (%ebx), %eax; dec %ebx; dec %ebx; mov (%ebx), %ecx", 1, 2, 3, 0x40400000,    \
	  0x2002000, 6, 7, 8)                                                                                \
	X(fault_after_sub, "mov (%ebx), %eax; sub $-8, %ebx; mov -4(%ebx), %ecx", 1, 2, 3, 0x403feffc,       \
	  0x2002000, 6, 7, 8)                                                                                \
	X(fault_after_add, "mov (%ebx), %eax; add $-8, %ebx; mov 6(%ebx), %ecx", 1, 2, 3, 0x40400000,        \
	  0x2002000, 6, 7, 8)                                                                                \
	X(fault_after_lea, "mov (%ebx), %eax; lea 0x20(%ebx), %ebx; mov -0x1e(%ebx), %ecx", 1, 2, 3,         \
	  0x403feffc, 0x2002000, 6, 7, 8)                                                                    \
	X(fault_after_words, "mov (%ebx), %eax; addw $4, %bx; mov (%ebx), %ecx", 1, 2, 3, 0x403feffc,        \
	  0x2002000, 6, 7, 8)                                                                                \
	X(base_cut_to_words,                                                                                 \
	  "mov (%ebx), %eax; addw $0x10, %bx; mov -8(%ebx), %ecx; decw %bx; lea 8(%ebx), %bx", 1, 2, 3,      \
	  0xfffffff0, 0x2002000, 6, 7, 8)                                                                    \
	X(words_of_bases,                                                                                    \
	  "mov (%ebx), %eax; addw $4, %bx; mov (%ebx), %ecx; incw %si; decw %di; "                           \
	  "lea 8(%ebx), %bx; mov (%ebx,%esi), %edx",                                                         \
	  1, 2, 3, 0x200fffc, 0x2002000, 6, 0x1fffff, 0x10000)                                               \
	X(fault_across, "stc; adc %eax, %eax; mov -8(%ebx), %edx; mov %eax, -2(%ebx); nop", 0x80000000, 2,   \
	  3, 0x403ff000, 0x2002000, 6, 7, 8)                                                                 \
	X(fault_pop, "cmp %eax, %ecx; pop %edx; pop %edx; pop %edx", 1, 2, 3, 4, 0x403feff8, 6, 7, 8)        \
	X(fault_push, "inc %eax; mov %esp, %ebx; push %eax; push %ecx; push %edx", 0x7fffffff, 2, 3, 4,      \
	  0x40400004, 6, 7, 8)                                                                               \
	X(fault_pop_memory, "xor %eax, %eax; push %ecx; pop (%ebx)", 1, 2, 3, 0x403ff000, 4, 6, 7, 8)        \
	X(fault_push_memory, "xor %eax, %eax; push (%ebx)", 1, 2, 3, 0x403ff000, 4, 6, 7, 8)                 \
	X(fault_call, "dec %eax; call 1f; 1: ud2", 1, 2, 3, 4, 0x40400000, 6, 7, 8)                          \
	X(fault_call_indirect, "dec %eax; mov $1f, %ecx; call *%ecx; 1: ud2", 1, 2, 3, 4, 0x40400000, 6, 7,  \
	  8)                                                                                                 \
	X(fault_ret, "sub $2, %eax; ret", 1, 2, 3, 4, 0x403ff000, 6, 7, 8)                                   \
	X(fault_leave, "sub $2, %eax; leave", 1, 2, 3, 4, 0x2002000, 0x403ffff8, 7, 8)                       \
	X(fault_pusha, "sub $2, %eax; pusha", 1, 2, 3, 4, 0x40400010, 6, 7, 8)                               \
	X(fault_popa, "sub $2, %eax; popa", 1, 2, 3, 4, 0x403feff4, 6, 7, 8)                                 \
	X(fault_jmp, "sub $2, %eax; jmp *%ebx", 1, 2, 3, 0x403ff010, 0x2002000, 6, 7, 8)                     \
	X(fault_jmp_memory, "sub $2, %eax; jmp *(%ebx)", 1, 2, 3, 0x403ff010, 0x2002000, 6, 7, 8)            \
	X(fault_xchg, "neg %eax; xchg %eax, (%ebx)", 1, 2, 3, 0x403ff010, 0x2002000, 6, 7, 8)                \
	X(fault_movs, "sub $2, %eax; mov $20, %ecx; rep movsl", 1, 2, 3, 4, 0x2002000, 6, 0x2002000,         \
	  0x403fefe0)                                                                                        \
	X(fault_movs_source, "sub $2, %eax; mov $20, %ecx; rep movsb", 1, 2, 3, 4, 0x2002000, 6, 0x403feff0, \
	  0xfffffff8)                                                                                        \
	X(fault_movs_down, "std; sub $2, %eax; mov $20, %ecx; rep movsw", 1, 2, 3, 4, 0x2002000, 6,          \
	  0x2002000, 0x40400008)                                                                             \
	X(fault_stos, "sub $2, %eax; mov $21, %ecx; rep stosl", 1, 2, 3, 4, 0x2002000, 6, 0x2002000,         \
	  0x403fefe2)                                                                                        \
	X(fault_cmps, "sub $2, %eax; mov $21, %ecx; repne cmpsl", 1, 2, 3, 4, 0x2002000, 6, 0x2002000,       \
	  0x403fefe2)                                                                                        \
	X(fault_scas, "sub $2, %eax; mov $21, %ecx; repne scasl", 1, 2, 3, 4, 0x2002000, 6, 0x2002000,       \
	  0x403fefe0)                                                                                        \
	X(fault_divide, "add %eax, %ecx; mov (%esi), %edi; div %ebx; inc %ecx", 0xffffffff, 2, 3, 1,         \
	  0x2002000, 6, 0x2002000, 8)                                                                        \
	X(fault_divide_memory, "add %eax, %ecx; mov 4(%esi), %edi; movl $0, (%esi); idivl (%esi); inc %ecx", \
	  0xffffffff, 2, 3, 1, 0x2002000, 6, 4, 8)                                                           \
	X(fault_overflow, "mov $0x7fffffff, %eax; inc %eax; into; inc %eax", 1, 2, 3, 4, 0x2002000, 6, 4, 8) \
	X(fault_bound, "cmp %eax, %ecx; bound %eax, 0x2001f00; inc %eax", 0x7fffffff, 2, 3, 4, 0x2002000, 6, \
	  4, 8)                                                                                              \
	X(fault_invalid, "cmp %eax, %ecx; mov (%ebx), %edx; ud2", 0x7fffffff, 2, 3, 4, 0x2002000, 6, 4, 8)   \
	X(fault_privileged, "cmp %eax, %ecx; mov %eax, (%ebx); cli; inc %eax", 0x7fffffff, 2, 3, 4,          \
	  0x2002000, 6, 4, 8)                                                                                \
	X(fault_override, "add %eax, %ecx; mov %fs:0xfc, %edx; mov %fs:0xfd, %edx; inc %eax", 0x7fffffff, 2, \
	  3, 4, 0x2002000, 6, 4, 8)                                                                          \
	X(fault_override_movs, "add %eax, %ecx; mov $7, %ecx; rep movsl %fs:(%esi), (%edi); inc %eax",       \
	  0x7fffffff, 2, 3, 4, 0x2002000, 6, 0xf0, 0x2002000)                                                \
	X(fault_override_lods, "add %eax, %ecx; mov $7, %ecx; rep lodsw %fs:(%esi), %ax; inc %eax",          \
	  0x7fffffff, 2, 3, 4, 0x2002000, 6, 0xf3, 0x2002000)                                                \
	X(fault_code_store, "add %eax, %ecx; mov %cs:(%ebx), %edx; mov %eax, %cs:(%ebx)", 0x7fffffff, 2, 3,  \
	  0x2001ffc, 0x2002000, 6, 4, 8)                                                                     \
	/* overrides */                                                                                      \
	X(overrides,                                                                                         \
	  "mov %fs:0x10, %eax; mov %eax, %fs:4(%ebx); add %ecx, %gs:0xf8; "                                  \
	  "mov %gs:0x110, %edx; mov %ss:(%edi), %esi; mov %esi, %ds:4(%ebp); "                               \
	  "mov %es:8(%edi), %ebp;"                                                                           \
	  "mov %cs:0x2001ff0, %edi; mov %ax, %fs:0xfe; .byte 0x64, 0x8d, 7",                                 \
	  1, 2, 3, 0x20, 0x2002000, 0x2002000, 4, 0xfffffff8)

#define CASE_CODE_(name, text, ...) \
	__asm__(".pushsection .text; case_" #name ": " text "; int $0x30; .popsection");
CASES(CASE_CODE_)
#define CASE_DECLARE_(name, ...) extern const u8 case_##name[];
CASES(CASE_DECLARE_)

static const struct {
	const char *name;
	const u8 *code;
	u32 reg[8];
} cases[] = {
#define CASE_ROW_(name, text, ...) { #name, case_##name, { __VA_ARGS__ } },
	CASES(CASE_ROW_)
#undef CASE_ROW_
};

/* What memory holds at first: around the middle of both pieces, and at both sides of the hole. */
#define PIECES 4
#define WORDS  128
static const u32 piece_at[PIECES] = { LOW + 0x2000 - 2 * WORDS, WRAP - 2 * WORDS, HOLE - 4 * WORDS,
				      HOLE + 0x1000 };
#include "lib/pieces.h"

static u32 scramble(u32 v)
{
	v ^= v << 13;
	v ^= v >> 17;
	return v ^ v << 5;
}

static void fill(void)
{
	u32 v = 0x12345678;

	for (unsigned n = 0; n < PIECES; n++)
		for (unsigned k = 0; k < WORDS; k++)
			*word_at(n, k) = v = scramble(v);
	/* for BOUND */
	*word_at(0, 0) = 0x80000000;
	*word_at(0, 1) = 0x7ffffffe;
}

static void both_ways(void)
{
	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct state s = begin((u32)cases[c].code), twin;
		unsigned bad = 0, words = 0;

		memcpy_(s.reg, cases[c].reg, sizeof(s.reg));
		s.cs = SEL_TWIN;
		fill();
		run(&s);
		twin = end_state;
		twin.cs = s.cs = SEL_UCODE;
		keep_memory();
		for (unsigned k = 0; k < WARM; k++) {
			fill();
			run(&s);
			if (!same(&end_state, &twin) && !bad++) {
				print_state("twin", &twin);
				print_state("flat", &end_state);
			}
			words += memory_differs();
		}
		check(!bad && !words, "%s: the same, warm and flat: #%u, %u wrong, %u words", cases[c].name,
		      twin.vector, bad, words);
	}
}

void guest_main(void)
{
	flat_init();
	both_ways();
}
