/* A Multiboot 1 image whose first instructions write a byte to port E9H, by which whoever started the monitor sees that it
 * has got there, and end the machine by its debug-exit device.
 */
	.section .text.start, "ax"
	.code32
	.globl	start
	.set	FLAGS, 0x10000		/* addresses valid [MB 3.1.3] */
header:
	.long	0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
	.long	header, header, edata, end, start
start:
	mov	$'!', %al
	out	%al, $0xe9
	xor	%eax, %eax
	mov	$0xf4, %edx
	out	%eax, %dx
1:	hlt
	jmp	1b
	.section .note.GNU-stack, "", @progbits
