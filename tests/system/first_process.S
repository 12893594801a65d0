/* A process 1 of few instructions: says so on its standard output, and reboots. */
	.globl	_start, call
_start:	mov	$4, %eax		/* write */
	mov	$1, %ebx
	mov	$text, %ecx
	mov	$length, %edx
call:	int	$0x80
	mov	$88, %eax		/* reboot */
	mov	$0xfee1dead, %ebx
	mov	$672274793, %ecx
	mov	$0x01234567, %edx	/* restart */
	int	$0x80
1:	jmp	1b
text:	.ascii	"this is the first process\n"
	.set	length, . - text
	.section .note.GNU-stack, "", @progbits
