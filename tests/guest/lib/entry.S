/* Multiboot entry (32-bit protected mode, paging off, interrupts off) [Multiboot 0.6.96, 3.2]; 64-bit images go on to long
 * mode with the first 4 GiB mapped one to one by 2 MiB pages that user code may use too. Then guest_start(). */

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl _start
_start:
	cli
	cld
	movl	%eax, multiboot_magic
	movl	%ebx, multiboot_info
	movl	$guest_stack_top, %esp
	lgdt	boot_gdtr
	ljmp	$0x08, $1f
1:	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	/* x87 and SSE on: compilers may use them */
	movl	%cr0, %eax
	andl	$~0x0c, %eax
	orl	$0x22, %eax
	movl	%eax, %cr0
	movl	%cr4, %eax
	orl	$0x600, %eax
	movl	%eax, %cr4
	fninit

#ifdef __x86_64__
	movl	$guest_pdpt + 7, guest_pml4
	xorl	%ecx, %ecx
2:	movl	%ecx, %eax
	shll	$12, %eax
	addl	$guest_pd + 7, %eax
	movl	%eax, guest_pdpt(, %ecx, 8)
	incl	%ecx
	cmpl	$4, %ecx
	jb	2b
	xorl	%ecx, %ecx
3:	movl	%ecx, %eax
	shll	$21, %eax
	orl	$0x87, %eax
	movl	%eax, guest_pd(, %ecx, 8)
	incl	%ecx
	cmpl	$2048, %ecx
	jb	3b
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$guest_pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x901, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80010000, %eax
	movl	%eax, %cr0
	ljmp	$0x18, $4f
	.code64
4:	xorl	%eax, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	call	guest_start
#else
	call	guest_start
#endif
5:	hlt
	jmp	5b

	.data
	.globl multiboot_magic, multiboot_info
multiboot_magic: .long 0
multiboot_info: .long 0
	.balign 8
boot_gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
boot_gdtr:
	.word . - boot_gdt - 1
	.long boot_gdt

	.bss
	.balign 4096
	.globl guest_pml4, guest_pdpt, guest_pd
guest_pml4: .skip 4096
guest_pdpt: .skip 4096
guest_pd: .skip 4 * 4096
	.skip 16384
	.globl guest_stack_top
guest_stack_top:
