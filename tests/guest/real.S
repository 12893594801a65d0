/* The 16-bit and 64-bit parts of real_to_long.c. The part from real_start to real_end is copied to REAL_BASE, below
 * 1 MiB, and runs there; labels in it are taken relative. Results go to the words at RESULTS. */

#define REAL_BASE 0x8000
#define RESULTS   0x9000
#define AT(label) (label - real_start + REAL_BASE)

	.text
	.code32
/* void real_run(void): from flat 32-bit protected mode to real mode and back */
	.globl real_run
real_run:
	pushal
	pushfl
	cli
	movl	%esp, saved_esp
	sidt	saved_idtr
	lidt	real_idtr
	/* FS keeps a limit of 4 GiB in real mode */
	movw	$0x10, %ax
	movw	%ax, %fs
	ljmp	$0x48, $AT(to_real)

	.code16
	.globl real_start, real_end
real_start:
to_real:
	movw	$0x50, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	%ax, %gs
	movl	%cr0, %eax
	andb	$0xfe, %al
	movl	%eax, %cr0
	ljmp	$0, $AT(in_real)
in_real:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	%ax, %gs
	movw	$0x7000, %sp
	movl	%cr0, %eax
	movw	%ax, RESULTS			/* 0: PE clear */
	smsw	RESULTS + 2

	/* INT n: pushes FLAGS, CS, IP; clears IF and TF; IRET restores */
	movw	$AT(on_int40), 0x40 * 4
	movw	$0, 0x40 * 4 + 2
	movw	$AT(on_div), 0
	movw	$0, 2
	movw	$AT(on_ud), 6 * 4
	movw	$0, 6 * 4 + 2
	movw	$AT(on_gp), 13 * 4
	movw	$0, 13 * 4 + 2
	movw	$AT(on_irq), 8 * 4
	movw	$0, 8 * 4 + 2
	stc
	sti
	int	$0x40
after_int40:
	pushfw
	popw	RESULTS + 8			/* 4: flags after IRET: IF and CF */
	cli
	movw	%sp, RESULTS + 10		/* 5 */

	/* faults through the vector table */
	xorw	%cx, %cx
div_insn:
	divw	%cx
after_div:
	movw	$AT(div_insn), RESULTS + 14	/* 7 */
ud_insn:
	ud2
	movw	$AT(ud_insn), RESULTS + 18	/* 9 */
	movw	$0, RESULTS + 20
gp_insn:
	movw	0xffff, %ax			/* crosses the limit */
	nop
	movw	$AT(gp_insn), RESULTS + 22	/* 11 */

	/* segments: 16 * selector + offset; far call and return */
	movw	$0x0910, %ax
	movw	%ax, %es
	movl	$0x12345678, %es:4
	movl	0x9104, %eax
	movl	%eax, RESULTS + 24		/* 12, 13 */
	lcall	$(REAL_BASE / 16), $(far_proc - real_start)
	movw	%ax, RESULTS + 28		/* 14 */

	/* 32-bit addresses; the limit that protected mode left in FS */
	movl	$0x100000, %ebx
	movl	%fs:(%ebx), %eax
	movl	%eax, RESULTS + 32		/* 16, 17 */

	/* an IRQ at vector 8: the 8254's one-shot */
	movw	$0, RESULTS + 36
	sti
	movw	$0xffff, %cx
	movb	$0x30, %al
	outb	%al, $0x43
	movb	$0, %al
	outb	%al, $0x40
	movb	$4, %al
	outb	%al, $0x40
1:	sti
	hlt
	cli
	cmpw	$0, RESULTS + 36
	loope	1b
	cli

	/* and back */
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$0x08, $real_back

on_int40:
	pushw	%bp
	movw	%sp, %bp
	movw	2(%bp), %ax
	subw	$AT(after_int40), %ax
	movw	%ax, RESULTS + 4		/* 2: return IP - what it should be */
	pushfw
	popw	RESULTS + 6			/* 3: flags inside */
	popw	%bp
	iretw
on_div:
	popw	RESULTS + 12			/* 6: IP of the fault */
	pushw	$AT(after_div)
	iretw
on_ud:
	popw	%ax
	movw	%ax, RESULTS + 16		/* 8 */
	addw	$2, %ax
	pushw	%ax
	iretw
on_gp:
	popw	%ax
	movw	%ax, RESULTS + 20		/* 10 */
	addw	$3, %ax
	pushw	%ax
	iretw
on_irq:
	pushw	%ax
	incw	RESULTS + 36			/* 18 */
	movb	$0x20, %al
	outb	%al, $0x20
	popw	%ax
	iretw
far_proc:
	movw	%cs, %ax
	lretw
real_end:

	.code32
real_back:
	movw	$0x10, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	xorw	%ax, %ax
	movw	%ax, %fs
	movw	%ax, %gs
	movl	saved_esp, %esp
	lidt	saved_idtr
	popfl
	popal
	ret

/* void long_run(u32 result[]): to 64-bit mode, compatibility mode, and back; CR3 and PAE are set */
	.globl long_run
long_run:
	pushal
	pushfl
	cli
	movl	40(%esp), %edi
	movl	%esp, saved_esp
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	rdmsr
	movl	%eax, (%edi)			/* 0: LME without LMA */
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	movl	$0xc0000080, %ecx
	rdmsr
	movl	%eax, 4(%edi)			/* 1: LMA */
	xorl	%eax, %eax
	.byte	0x40, 0x90			/* compatibility mode: INC EAX */
	movl	%eax, 8(%edi)			/* 2 */
	ljmp	$0x58, $1f
	.code64
1:	movl	$7, %eax
	.byte	0x40, 0x90			/* 64-bit mode: REX, NOP */
	movl	%eax, 12(%rdi)			/* 3 */
	movabsq	$0x123456789abcdef0, %rax
	movq	%rax, %r15
	shrq	$32, %r15
	movl	%r15d, 16(%rdi)			/* 4 */
	movl	$0xffffffff, %eax		/* clears the upper half */
	incq	%rax
	shrq	$32, %rax
	movl	%eax, 20(%rdi)			/* 5 */
	leaq	2f(%rip), %rax
	movl	%eax, 24(%rdi)			/* 6 */
2:	movl	$2b, 28(%rdi)			/* 7 */
	pushq	$0x08
	movl	$3f, %eax
	pushq	%rax
	lretq
	.code32
3:	xorl	%eax, %eax
	.byte	0x40, 0x90
	movl	%eax, 32(%edi)			/* 8: compatibility mode again */
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0
	movl	$0xc0000080, %ecx
	rdmsr
	movl	%eax, 36(%edi)			/* 9: LMA gone */
	andl	$~0x100, %eax
	wrmsr
	movl	saved_esp, %esp
	popfl
	popal
	ret

	.data
	.balign 8
real_idtr: .word 0x3ff; .long 0
saved_idtr: .word 0; .long 0
	.balign 4
saved_esp: .long 0
