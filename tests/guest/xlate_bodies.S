/* Loops for the tests of interrupts and single steps: RCX rounds over all kinds of branches and accesses; RBX, RSI and RDI lead
 * into 4 KiB of data each. What they compute is in registers, flags, vector registers and the data in the end.
 * And run_body(), which starts one from a given state and records the final one. */

	.text

/* Where it begins and ends, and how it is called. */
	.macro body name
	.globl body_\name, body_\name\()_end
	.balign 64
body_\name:
	.endm
	.macro end_body name
	ret
body_\name\()_end:
	.pushsection .data.bodies, "aw"
	.quad 701f, body_\name, body_\name\()_end
	.popsection
	.pushsection .rodata
701:	.asciz "\name"
	.popsection
	.endm

	.pushsection .data.bodies, "aw"
	.balign 8
	.globl bodies
bodies:
	.popsection

body jcc
1:	add	%rax, %rdx
	adc	%r8, %r9
	xor	%rdx, %rax
	rol	$3, %r8
	jc	2f
	add	$7, %r10
2:	test	$3, %dl
	jz	3f
	imul	$77, %r11, %r11
	inc	%r11
	js	3f
	sbb	%r12, %r11
3:	dec	%rcx
	jnz	1b
end_body jcc

body loop
1:	lea	(%rax,%rcx,2), %rax
	rcr	$1, %rdx
	mov	%rdx, (%rbx)
	adc	(%rbx), %r8
	mov	%r8, 8(%rbx)
	loop	1b
end_body loop

body jmp
1:	jmp	3f
2:	adc	%rdx, %rax
	jrcxz	4f
	dec	%rcx
	jmp	1b
3:	sbb	%rax, %r9
	bt	$7, %r9
	jmp	2b
4:	nop
end_body jmp

body call
1:	call	2f
	adc	%rax, %r8
	call	3f
	dec	%rcx
	jnz	1b
	jmp	5f
2:	push	%rax
	push	%r9
	call	3f
	pop	%rdx
	add	%rdx, %r10
	pop	%r9
	ret
3:	cmp	%rax, %rdx
	call	4f
	sbb	%r11, %r11
	ret
4:	lea	5(%rax,%rdx), %rax
	mov	(%rsp), %r12
	ret
5:	nop
end_body call

body indirect
1:	mov	%ecx, %eax
	and	$7, %eax
	jmp	*7f(, %rax, 8)
10:	add	%rdx, %r8
11:	rol	$5, %r8
	jmp	2f
12:	lea	2f(%rip), %r10
	xor	%r8, %rdx
	jmp	*%r10
13:	lea	2f(%rip), %r10
	push	%r10
	sbb	%rdx, %r9
	ret
14:	adc	$5, %r9
2:	dec	%rcx
	lea	1b(%rip), %r10
	jz	3f
	jmp	*%r10
3:	nop
end_body indirect
	.pushsection .rodata
	.balign 8
7:	.quad 10b, 11b, 12b, 13b, 14b, 10b, 12b, 2b
	.popsection

body icall
1:	mov	%rcx, %rax
	shr	$2, %rax
	and	$3, %eax
	mov	7f(, %rax, 8), %r10
	call	*%r10
	add	%r8, %rdx
	call	*7f+8(%rip)
	lea	1b(%rip), %r11
	push	%r11
	dec	%rcx
	jz	3f
	ret
10:	rol	$7, %r8
	ret
11:	inc	%r9
	adc	%rdx, %r9
	ret
12:	push	%rdx
	add	%r9, (%rsp)
	pop	%r8
	ret
13:	pop	%r11
	xor	%r8, %rdx
	jmp	*%r11
3:	pop	%r11
end_body icall
	.pushsection .rodata
	.balign 8
7:	.quad 10b, 11b, 12b, 13b
	.popsection

body memory
1:	mov	(%rbx), %rax
	add	%rcx, 8(%rbx)
	adc	%rax, 16(%rbx)
	xchg	%rdx, 24(%rbx)
	push	%rdx
	push	%rbp
	mov	%rsp, %rbp
	sub	$48, %rsp
	mov	%rax, -8(%rbp)
	mov	%rcx, -40(%rbp)
	add	%r8, -8(%rbp)
	mov	-8(%rbp), %r8
	mov	8(%rbp), %r9
	leave
	pop	%r10
	lock xadd %r8, 32(%rbx)
	movzbl	3(%rbx), %r11d
	bts	%r11, 256(%rbx)
	setc	40(%rbx)
	movw	%cx, 4091(%rbx, %r11, 8)
	inc	%r11
	and	$511, %r11d
	xor	%rcx, (%rbx, %r11, 4)
	dec	%rcx
	jnz	1b
end_body memory

body strings
1:	mov	%rsi, %r8
	mov	%rdi, %r9
	mov	%rcx, %r10
	mov	$300, %ecx
	rep movsb
	mov	%rdi, %rax
	mov	$7, %ecx
	rep stosq
	lodsw
	movsl
	mov	$30, %ecx
	repe cmpsb
	adc	%rax, %rdx
	mov	%r10, %rcx
	mov	%r8, %rsi
	mov	%r9, %rdi
	add	$16, %rcx
	incb	(%rsi)
	sub	$17, %rcx
	jnz	1b
end_body strings

body vectors
1:	movdqu	(%rbx), %xmm1
	paddq	%xmm1, %xmm2
	pmuludq	%xmm2, %xmm3
	pshufd	$0x39, %xmm2, %xmm2
	movq	%rcx, %xmm4
	pxor	%xmm4, %xmm15
	movdqu	%xmm15, 20(%rbx)
	paddd	16(%rbx), %xmm9
	cvtsi2sd %rcx, %xmm5
	mulsd	%xmm5, %xmm5
	cvttsd2si %xmm5, %r8
	fildll	8(%rbx)
	fistpll	48(%rbx)
	movq	%xmm9, %rdx
	cmp	%rdx, %r8
	jb	2f
	psllq	$1, %xmm9
2:	sbb	%r9, %rdx
	dec	%rcx
	jnz	1b
end_body vectors

/* Ports and device memory between vector instructions: the version of the local APIC, and the port of POST codes. */
body devices
	mov	%rcx, %r11
	mov	%rbx, %r12
	mov	$0xfee00000, %ebp
1:	movdqu	(%rbx), %xmm1
	paddq	%xmm1, %xmm2
	mov	0x30(%rbp), %eax
	paddd	%xmm2, %xmm3
	out	%al, $0x80
	pshufd	$0x1b, %xmm3, %xmm2
	movdqu	%xmm3, 32(%rbx)
	fildll	8(%rbx)
	adc	%rax, %r8
	mov	0x30(%rbp), %edx
	fistpll	16(%rbx)
	xor	%rdx, %r9
	movq	%xmm2, %r10
	xor	%eax, %eax
	cpuid
	paddq	%xmm3, %xmm4
	mov	%r12, %rbx
	movq	%xmm4, 24(%rbx)
	sub	$1, %r11
	jnz	1b
	xor	%eax, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
end_body devices

/* CF and OF live all the way round. */
body flags
	stc
1:	adc	%rax, %rdx
	lea	-1(%rcx), %rcx
	mov	%rdx, (%rbx)
	rcl	$1, %r8
	mov	(%rbx), %r9
	pushf
	adc	%r9, %r10
	popf
	inc	%r11
	lahf
	movzbl	%ah, %eax
	adc	%rax, %r12
	push	%r12
	pop	%r13
	jrcxz	2f
	jmp	1b
2:	nop
end_body flags

/* Longer than any block. */
body long
1:
	.rept	60
	add	%rax, %rdx
	rol	$7, %rdx
	adc	%rdx, %r8
	xor	%rcx, %rax
	.endr
	sub	$40, %rcx
	ja	1b
end_body long

/* Pages that lead into each other, with the edge of the loop from one to the other. */
body pages
1:	add	%rax, %rdx
	jmp	2f
	.balign	4096
2:	adc	%rdx, %r8
	call	3f
	dec	%rcx
	jnz	1b
	jmp	5f
	.balign	4096
3:	rol	$9, %r8
	jc	4f
	ret
4:	xor	%r8, %rax
	ret
5:	nop
end_body pages

	.pushsection .data.bodies, "aw"
	.quad	0, 0, 0
	.popsection

/* void run_body(uptr code, const struct state *in, struct state *out): the state is RAX RCX RDX RBX RBP RSI RDI R8 ... R15, RFLAGS, then
 * XMM0 ... XMM15. RFLAGS is 2 afterwards. */
	.globl	run_body
run_body:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rdi, run_code
	mov	%rdx, run_out
	.set	i, 0
	.altmacro
	.macro load_xmm n, at
	movups	\at(%rsi), %xmm\n
	.endm
	.rept	16
	load_xmm %i, %(128 + i * 16)
	.set	i, i + 1
	.endr
	fninit
	mov	(%rsi), %rax
	mov	8(%rsi), %rcx
	mov	16(%rsi), %rdx
	mov	24(%rsi), %rbx
	mov	32(%rsi), %rbp
	mov	48(%rsi), %rdi
	mov	56(%rsi), %r8
	mov	64(%rsi), %r9
	mov	72(%rsi), %r10
	mov	80(%rsi), %r11
	mov	88(%rsi), %r12
	mov	96(%rsi), %r13
	mov	104(%rsi), %r14
	mov	112(%rsi), %r15
	push	120(%rsi)
	popf
	mov	40(%rsi), %rsi
	call	*run_code
	pushf
	push	%rsi
	mov	run_out, %rsi
	mov	%rax, (%rsi)
	mov	%rcx, 8(%rsi)
	mov	%rdx, 16(%rsi)
	mov	%rbx, 24(%rsi)
	mov	%rbp, 32(%rsi)
	pop	%rax
	mov	%rax, 40(%rsi)
	mov	%rdi, 48(%rsi)
	mov	%r8, 56(%rsi)
	mov	%r9, 64(%rsi)
	mov	%r10, 72(%rsi)
	mov	%r11, 80(%rsi)
	mov	%r12, 88(%rsi)
	mov	%r13, 96(%rsi)
	mov	%r14, 104(%rsi)
	mov	%r15, 112(%rsi)
	pop	%rax
	push	$2
	popf
	mov	%rax, 120(%rsi)
	.set	i, 0
	.macro store_xmm n, at
	movups	%xmm\n, \at(%rsi)
	.endm
	.rept	16
	store_xmm %i, %(128 + i * 16)
	.set	i, i + 1
	.endr
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.bss
	.balign	8
run_code: .skip 8
run_out: .skip 8
