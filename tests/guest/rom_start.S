/* The first instructions of a firmware ROM: from the reset vector, through the copy of the ROM below 1 MiB, to 64-bit mode.
 * Other processors come the same way, from a start-up IPI. */

#define PML4 0x1000 /* then the page-directory-pointer table and four page directories, in RAM */

	.section .start, "ax"
	.code16
	/* Code of this section is at F000:OFF(label) too, for the last 64 KiB are seen there. */
#define OFF(label) ((label) - start_first + 0xfe00)
start_first:
start16:
	movl %edx, %esi /* the processor's signature; EAX is 0 unless a test of it failed */
	movl %eax, %edi
	ljmp $0xf000, $OFF(below)
	.globl start_ap
start_ap:
	xorl %esi, %esi
below:
	cli
	lgdtl %cs:OFF(gdt_pointer)
	movl %cr0, %eax
	andl $0x9fffffff, %eax /* caches on */
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $start32

	.code32
start32:
	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	testl %esi, %esi
	jz tables_made
	movl %edi, %ebp
	movl $PML4, %edi
	movl $(6 * 4096 / 4), %ecx
	xorl %eax, %eax
	cld
	rep stosl
	movl $(PML4 + 0x1003), PML4
	movl $4, %ecx
	movl $(PML4 + 0x2003), %eax
	movl $(PML4 + 0x1000), %edi
1:	movl %eax, (%edi)
	addl $0x1000, %eax
	addl $8, %edi
	loop 1b
	movl $2048, %ecx
	movl $0x83, %eax
	movl $(PML4 + 0x2000), %edi
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 1b
tables_made:
	movl $PML4, %eax
	movl %eax, %cr3
	movl $0x20, %eax
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	ljmpl $0x18, $start64

	.code64
start64:
	testl %esi, %esi
	jz 1f
	movl $0x80000, %esp
	movl %ebp, %edi
	call rom_main
1:	movl $0x70000, %esp
	call rom_ap_main
1:	hlt
	jmp 1b

	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00af9b000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt

	.section .vector, "ax"
	.code16
	jmp start16
	.balign 16, 0xff

	/* What is at F8000H where the ROM is seen: returns 2. */
	.section .fixed, "ax"
	.code64
	movl $2, %eax
	ret
	.section .note.GNU-stack, "", @progbits
