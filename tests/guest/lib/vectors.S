/* Entry of every vector: a uniform frame (struct frame in guest.h), then guest_interrupt(). And the way to CPL 3,
 * and the setjmp pair. */

#ifdef __x86_64__
#define W 8
#define PTR .quad
#else
#define W 4
#define PTR .long
#endif

	.text
	.altmacro
	.macro vector n
guest_vector_\n:
	.if (\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17) || (\n == 21)
	.else
	push	$0
	.endif
	push	$\n
	jmp	common
	.endm
	.macro vector_address n
	PTR	guest_vector_\n
	.endm

	.set i, 0
	.rept 256
	vector %i
	.set i, i + 1
	.endr

#ifdef __x86_64__
common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbx
	and	$-16, %rsp
	call	guest_interrupt
	mov	%rbx, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

/* int guest_setjmp(unsigned long buf[10]) */
	.globl guest_setjmp
guest_setjmp:
	mov	%rbx, (%rdi)
	mov	%rbp, 8(%rdi)
	mov	%r12, 16(%rdi)
	mov	%r13, 24(%rdi)
	mov	%r14, 32(%rdi)
	mov	%r15, 40(%rdi)
	lea	8(%rsp), %rax
	mov	%rax, 48(%rdi)
	mov	(%rsp), %rax
	mov	%rax, 56(%rdi)
	pushfq
	pop	64(%rdi)
	xor	%eax, %eax
	ret

/* void guest_longjmp(unsigned long buf[10]): to CPL 0 and the flat segments */
	.globl guest_longjmp
guest_longjmp:
	mov	(%rdi), %rbx
	mov	8(%rdi), %rbp
	mov	16(%rdi), %r12
	mov	24(%rdi), %r13
	mov	32(%rdi), %r14
	mov	40(%rdi), %r15
	mov	$0x10, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	mov	48(%rdi), %rsp
	push	64(%rdi)
	popfq
	mov	$1, %eax
	jmp	*56(%rdi)

/* void guest_enter_user(void (*fn)(unsigned long), unsigned long arg, void *stack, unsigned long flags) */
	.globl guest_enter_user
guest_enter_user:
	mov	$0x23, %eax
	mov	%eax, %ds
	mov	%eax, %es
	push	$0x23
	push	%rdx
	push	%rcx
	push	$0x1b
	push	%rdi
	mov	%rsi, %rdi
	iretq
	.globl guest_user_return
guest_user_return:
	int	$0x30
	ud2
#else
common:
	pushal
	push	%ds
	push	%es
	push	%fs
	push	%gs
	cld
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%esp, %ebx
	mov	%esp, %eax
	and	$-16, %esp
	sub	$12, %esp
	push	%eax
	call	guest_interrupt
	mov	%ebx, %esp
	pop	%gs
	pop	%fs
	pop	%es
	pop	%ds
	popal
	add	$8, %esp
	iret

	.globl guest_setjmp
guest_setjmp:
	mov	4(%esp), %ecx
	mov	%ebx, (%ecx)
	mov	%ebp, 4(%ecx)
	mov	%esi, 8(%ecx)
	mov	%edi, 12(%ecx)
	lea	4(%esp), %eax
	mov	%eax, 16(%ecx)
	mov	(%esp), %eax
	mov	%eax, 20(%ecx)
	pushfl
	pop	24(%ecx)
	xor	%eax, %eax
	ret

	.globl guest_longjmp
guest_longjmp:
	mov	4(%esp), %ecx
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%cs:(%ecx), %ebx
	mov	%cs:4(%ecx), %ebp
	mov	%cs:8(%ecx), %esi
	mov	%cs:12(%ecx), %edi
	mov	%eax, %ss
	mov	%cs:16(%ecx), %esp
	push	24(%ecx)
	popfl
	mov	$1, %eax
	jmp	*20(%ecx)

	.globl guest_enter_user
guest_enter_user:
	mov	4(%esp), %ecx
	mov	8(%esp), %edx
	mov	12(%esp), %ebx
	mov	16(%esp), %esi
	sub	$8, %ebx
	mov	%ebx, %edi
	sub	user_alias, %edi
	mov	%edx, 4(%edi)
	movl	$guest_user_return, (%edi)
	mov	user_alias, %edx
	add	%edx, (%edi)
	mov	$0x23, %eax
	mov	%eax, %ds
	mov	%eax, %es
	push	$0x23
	push	%ebx
	push	%esi
	push	$0x1b
	push	%ecx
	iret
	.globl guest_user_return
guest_user_return:
	int	$0x30
	ud2
#endif

	.section .rodata
	.balign 8
	.globl guest_vector_table
guest_vector_table:
	.set i, 0
	.rept 256
	vector_address %i
	.set i, i + 1
	.endr
