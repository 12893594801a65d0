/* A disk for a BIOS: a boot sector that reads the next sector by INT 13H, which says what the BIOS has found and ends the machine
 * with status 1 (debug-exit). All output goes by INT 10H. */
	.code16
	.globl _start
_start:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	movb %dl, drive
	movw $first, %si
	call print
	movb $0x42, %ah /* extended read [EDD 3.0 2.3.2] */
	movw $packet, %si
	int $0x13
	jc fail
	jmp second
fail:
	movw $failed, %si
	call print
	movl $1, %eax
	jmp end
end:
	movw $0xf4, %dx
	outl %eax, %dx
1:	hlt
	jmp 1b

print:
	lodsb
	testb %al, %al
	jz 1f
	movb $0x0e, %ah
	movw $7, %bx
	int $0x10
	jmp print
1:	ret

/* EAX in hexadecimal. */
print_hex:
	movw $8, %cx
1:	roll $4, %eax
	pushl %eax
	andb $0xf, %al
	cmpb $10, %al
	sbbb $0x69, %al
	das
	movb $0x0e, %ah
	movw $7, %bx
	pushw %cx
	int $0x10
	popw %cx
	popl %eax
	loop 1b
	ret

drive:	.byte 0
first:	.asciz "boot sector\r\n"
failed:	.asciz "cannot read the disk\r\n"
	.balign 4
packet:
	.byte 16, 0
	.word 1, 0x7e00, 0
	.quad 1

	.org 510
	.word 0xaa55

second:
	movw $here, %si
	call print
	/* The memory map [ACPI 15.1]: each entry's start, length and type. */
	xorl %ebx, %ebx
1:	movl $0xe820, %eax
	movl $0x534d4150, %edx
	movl $20, %ecx
	movw $0x600, %di
	int $0x15
	jc 2f
	pushl %ebx
	movw $entry, %si
	call print
	movl 0x600, %eax
	call print_hex
	movw $space, %si
	call print
	movl 0x608, %eax
	call print_hex
	movw $space, %si
	call print
	movl 0x610, %eax
	call print_hex
	movw $line, %si
	call print
	popl %ebx
	testl %ebx, %ebx
	jnz 1b
2:	movw $done, %si
	call print
	xorl %eax, %eax
	jmp end
here:	.asciz "second sector\r\n"
entry:	.asciz "memory "
space:	.asciz " "
line:	.asciz "\r\n"
done:	.asciz "done\r\n" /* of which SeaBIOS keeps the last letter back on a serial console */
	.org 1024
	.section .note.GNU-stack, "", @progbits
