/* A Multiboot 1 image whose first instructions end the machine by its debug-exit device: what is left of a run's time is
 * what the monitor needs to get there.
 */
	.section .text.start, "ax"
	.code32
	.globl	start
	.set	FLAGS, 0x10000		/* addresses valid [MB 3.1.3] */
header:
	.long	0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
	.long	header, header, edata, end, start
start:
	xor	%eax, %eax
	mov	$0xf4, %edx
	out	%eax, %dx
1:	hlt
	jmp	1b
	.section .note.GNU-stack, "", @progbits
