/* A guest of the test's own: 64-bit code of this image, by SVM (svm.h) or VMX (vmx.h). virt_init() says which. */
#pragma once

#include "guest.h"
#include "paging.h"

enum virt_exit {
	VIRT_OTHER,
	VIRT_CPUID,
	VIRT_IO,
	VIRT_CALL,
	VIRT_HLT,
	VIRT_INTR,
	VIRT_FAULT,
	VIRT_SHUTDOWN,
	VIRT_NPF,
	VIRT_NR_EXITS
};

enum virt_event { VIRT_INTERRUPT = 0, VIRT_EXCEPTION = 3 }; /* the numbers of both */

/* Registers, and what the last exit was about. */
struct virt {
	u64 rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15,
		rax; /* in the order of the assembly */
	u64 rip;
	uptr reason; /* as the processor says it */
	u16 port;
	bool in;
	u8 len; /* of the instruction */
	unsigned vector;
	u64 error, fault_address;
};

struct virt_ops {
	const char *call; /* the instruction */
	void (*init)(void);
	void (*fini)(void);
	bool (*has_nested_paging)(void);
	u64 leaf_bits; /* of nested paging's entries */
	/* The inner guest is at fn, with nothing intercepted but CPUID, ports, HLT, hypercalls, interrupts and its end. */
	void (*begin)(void (*fn)(void));
	enum virt_exit (*run)(void);
	void (*inject)(u32 event, u32 error); /* at the next entry: vector, type, bit 11 with error, bit 31 */
	void (*intercept)(unsigned vector);
	void (*set_idt)(u64 base, u16 limit);
	void (*set_cr3)(u64 cr3);
	void (*set_flags)(u64 flags);
	void (*let_interrupts_in)(void);
	void (*flush)(void); /* nested paging's TLB, before the next entry */
};

static struct virt virt;
static bool virt_is_svm;
static bool virt_nested_paging;
static volatile bool virt_inside; /* the inner guest runs */
static volatile uptr virt_arg;    /* for it */
static u8 virt_stack[8192] __attribute__((aligned(16)));
/* One to one with 2 MiB pages, but for the one around virt_map()'s, which has 4 KiB pages. */
static u64 virt_npt[3][512] __attribute__((aligned(4096))),
	virt_npt_pd[4][512] __attribute__((aligned(4096)));

struct virt_table {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* The inner guest's registers, relative to rsi. */
#define VIRT_LOAD                                                                           \
	"	mov (%rsi), %rbx; mov 8(%rsi), %rcx; mov 16(%rsi), %rdx; mov 32(%rsi), %rdi\n"    \
	"	mov 40(%rsi), %rbp; mov 48(%rsi), %r8; mov 56(%rsi), %r9; mov 64(%rsi), %r10\n"   \
	"	mov 72(%rsi), %r11; mov 80(%rsi), %r12; mov 88(%rsi), %r13; mov 96(%rsi), %r14\n" \
	"	mov 104(%rsi), %r15\n"
#define VIRT_STORE                                                                          \
	"	mov %rbx, (%rsi); mov %rcx, 8(%rsi); mov %rdx, 16(%rsi); mov %rdi, 32(%rsi)\n"    \
	"	mov %rbp, 40(%rsi); mov %r8, 48(%rsi); mov %r9, 56(%rsi); mov %r10, 64(%rsi)\n"   \
	"	mov %r11, 72(%rsi); mov %r12, 80(%rsi); mov %r13, 88(%rsi); mov %r14, 96(%rsi)\n" \
	"	mov %r15, 104(%rsi)\n"
#define VIRT_PUSH "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
#define VIRT_POP  "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"

#include "svm.h"
#include "vmx.h"

static const struct virt_ops *virt_ops;

/* False: the processor has neither. */
static inline bool virt_init(void)
{
	u32 svm[4], vmx[4];

	cpuid(0x80000001, 0, svm);
	cpuid(1, 0, vmx);
	virt_is_svm = svm[2] >> 2 & 1;
	check(virt_is_svm != (vmx[2] >> 5 & 1), "CPUID has either SVM or VMX");
	if (!virt_is_svm && !(vmx[2] >> 5 & 1))
		return false;
	virt_ops = virt_is_svm ? &svm_ops : &vmx_ops;
	virt_npt[0][0] = (uptr)virt_npt[1] | 7;
	for (unsigned i = 0; i < 4; i++) {
		virt_npt[1][i] = (uptr)virt_npt_pd[i] | 7;
		for (unsigned k = 0; k < 512; k++)
			virt_npt_pd[i][k] = (u64)(i * 512 + k) << 21 | virt_ops->leaf_bits | PS;
	}
	virt_ops->init();
	return true;
}

static inline void virt_begin(void (*fn)(void))
{
	memset_(&virt, 0, sizeof(virt));
	virt.rip = (uptr)fn;
	virt_ops->begin(fn);
}

static inline enum virt_exit virt_run(void)
{
	enum virt_exit exit;

	virt_inside = true;
	exit = virt_ops->run();
	virt_inside = false;
	return exit;
}

/* Over the instruction that the inner guest was left for. */
static inline void virt_skip(void)
{
	virt.rip += virt.len;
}

static inline void virt_inject(enum virt_event event, unsigned vector, u32 error)
{
	bool has_error = event == VIRT_EXCEPTION && vector == GP;

	virt_ops->inject(vector | (u32)event << 8 | (has_error ? 1u << 11 : 0) | 1u << 31, error);
}

/* Nested paging: guest-physical page gpa is at pa from the next entry on; 0: nowhere. All calls are about the same 2 MiB. */
static inline void virt_map(uptr gpa, uptr pa)
{
	u64 *pde = &virt_npt_pd[gpa >> 30][gpa >> 21 & 511];

	if (*pde & PS) {
		for (unsigned i = 0; i < 512; i++)
			virt_npt[2][i] = ((gpa & ~0x1ffffful) + i * 4096ul) | virt_ops->leaf_bits;
		*pde = (uptr)virt_npt[2] | 7;
	}
	virt_npt[2][gpa >> 12 & 511] = pa ? pa | virt_ops->leaf_bits : 0;
	virt_ops->flush();
}
