/* A Multiboot 1 image that enters 64-bit mode and calls guest_main(info).
 *
 * The header carries the addresses, so that the image is a flat file that is loaded at 1 MiB [MB
 * 3.1.3]. Page tables map the first GiB one to one with 2 MiB pages. No interrupts, no descriptors beyond
 * the two needed.
 */
	.section .text.start, "ax"
	.code32
	.globl	start
	.set	FLAGS, 0x10002		/* addresses valid; memory information wanted */
header:
	.long	0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
	.long	header, header, edata, end, start
start:
	cli
	mov	%ebx, %edi		/* the information structure, first argument */
	mov	$stack_top, %esp
	mov	$page_directory_pointers, %eax
	or	$3, %eax
	mov	%eax, page_map
	mov	$page_directory, %eax
	or	$3, %eax
	mov	%eax, page_directory_pointers
	mov	$page_directory, %edx
	mov	$0x83, %eax		/* present, writable, 2 MiB */
	mov	$512, %ecx
1:	mov	%eax, (%edx)
	movl	$0, 4(%edx)
	add	$0x200000, %eax
	add	$8, %edx
	loop	1b
	mov	$page_map, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$0x100, %eax		/* LME */
	wrmsr
	mov	%cr0, %eax
	or	$0x80000001, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $long_mode
	.code64
long_mode:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%edi, %edi
	call	guest_main
2:	hlt
	jmp	2b

	.balign	8
gdt:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.balign	4096
page_map:
	.skip	4096
page_directory_pointers:
	.skip	4096
page_directory:
	.skip	4096
	.skip	65536
stack_top:
	.section .note.GNU-stack, "", @progbits
