/* virt.h by SVM [APM2 15, appendix B]. */
#pragma once

static u8 vmcb[4096] __attribute__((aligned(4096))), svm_host[4096] __attribute__((aligned(4096)));
static u8 svm_iopm[3 * 4096] __attribute__((aligned(4096))),
	svm_msrpm[2 * 4096] __attribute__((aligned(4096)));

#define VMCB8(offset)  (*(volatile u8 *)(vmcb + (offset)))
#define VMCB16(offset) (*(volatile u16 *)(vmcb + (offset)))
#define VMCB32(offset) (*(volatile u32 *)(vmcb + (offset)))
#define VMCB64(offset) (*(volatile u64 *)(vmcb + (offset)))

enum {
	VMCB_EXCEPTIONS = 0x08,
	VMCB_INTERCEPTS = 0x0c,
	VMCB_INTERCEPTS2 = 0x10,
	VMCB_IOPM = 0x40,
	VMCB_MSRPM = 0x48,
	VMCB_ASID = 0x58,
	VMCB_TLB = 0x5c,
	VMCB_VINTR = 0x60,
	VMCB_EXIT = 0x70,
	VMCB_INFO1 = 0x78,
	VMCB_INFO2 = 0x80,
	VMCB_NP = 0x90,
	VMCB_INJECT = 0xa8,
	VMCB_NCR3 = 0xb0,
	VMCB_ES = 0x400,
	VMCB_CS = 0x410,
	VMCB_SS = 0x420,
	VMCB_DS = 0x430,
	VMCB_GDTR = 0x460,
	VMCB_IDTR = 0x480,
	VMCB_EFER = 0x4d0,
	VMCB_CR4 = 0x548,
	VMCB_CR3 = 0x550,
	VMCB_CR0 = 0x558,
	VMCB_DR7 = 0x560,
	VMCB_DR6 = 0x568,
	VMCB_RFLAGS = 0x570,
	VMCB_RIP = 0x578,
	VMCB_RSP = 0x5d8,
	VMCB_RAX = 0x5f8,
	VMCB_PAT = 0x668,
};
#define SVM_INTR     (1u << 0)
#define SVM_CPUID    (1u << 18)
#define SVM_HLT      (1u << 24)
#define SVM_IO       (1u << 27)
#define SVM_SHUTDOWN (1u << 31)

#define MSR_EFER     0xc0000080
#define MSR_PAT      0x277
#define MSR_VM_CR    0xc0010114
#define MSR_VM_HSAVE 0xc0010117
#define EFER_SVME    (1ull << 12)

/* VMRUN, with interrupts let in from its first instruction on and GIF = 1 again afterwards, when they are pending. */
void svm_enter(u64 vmcb_pa, struct virt *v);
__asm__(".text\n"
	"svm_enter:\n" VIRT_PUSH "	push %rsi\n"
	"	mov %rdi, %rax\n" VIRT_LOAD "	mov 24(%rsi), %rsi\n"
	"	clgi\n"
	"	sti\n"
	"	vmrun %rax\n"
	"	cli\n"
	"	xchg %rsi, (%rsp)\n" VIRT_STORE "	pop %rbx\n"
	"	mov %rbx, 24(%rsi)\n"
	"	stgi\n" VIRT_POP "	ret\n");

static void svm_segment(unsigned at, u16 sel, u16 attr)
{
	VMCB16(at) = sel;
	VMCB16(at + 2) = attr;
	VMCB32(at + 4) = ~0u;
	VMCB64(at + 8) = 0;
}

static void svm_begin(void (*fn)(void))
{
	struct virt_table gdtr, idtr;

	__asm__ volatile("sgdt %0; sidt %1" : "=m"(gdtr), "=m"(idtr));
	memset_(vmcb, 0, sizeof(vmcb));
	memset_(svm_iopm, 0xff, sizeof(svm_iopm));
	memset_(svm_msrpm, 0xff, sizeof(svm_msrpm));
	VMCB32(VMCB_INTERCEPTS) = SVM_INTR | SVM_CPUID | SVM_HLT | SVM_IO | SVM_SHUTDOWN;
	VMCB32(VMCB_INTERCEPTS2) = 1 << 0 | 1 << 1; /* VMRUN, as it must be, and VMMCALL */
	VMCB64(VMCB_IOPM) = (uptr)svm_iopm;
	VMCB64(VMCB_MSRPM) = (uptr)svm_msrpm;
	VMCB32(VMCB_ASID) = 1;
	VMCB8(VMCB_TLB) = 1;
	VMCB64(VMCB_VINTR) = 1 << 24; /* IF of its own */
	VMCB64(VMCB_NP) = virt_nested_paging;
	VMCB64(VMCB_NCR3) = (uptr)virt_npt[0];
	svm_segment(VMCB_ES, SEL_DATA, 0xc93);
	svm_segment(VMCB_CS, SEL_CODE, 0xa9b);
	svm_segment(VMCB_SS, SEL_DATA, 0xc93);
	svm_segment(VMCB_DS, SEL_DATA, 0xc93);
	VMCB32(VMCB_GDTR + 4) = gdtr.limit;
	VMCB64(VMCB_GDTR + 8) = gdtr.base;
	VMCB32(VMCB_IDTR + 4) = idtr.limit;
	VMCB64(VMCB_IDTR + 8) = idtr.base;
	VMCB64(VMCB_EFER) = rdmsr(MSR_EFER);
	VMCB64(VMCB_CR0) = read_cr0();
	VMCB64(VMCB_CR3) = read_cr3();
	VMCB64(VMCB_CR4) = read_cr4();
	VMCB64(VMCB_DR6) = 0xffff0ff0;
	VMCB64(VMCB_DR7) = 0x400;
	VMCB64(VMCB_RFLAGS) = 2;
	VMCB64(VMCB_RIP) = (uptr)fn;
	VMCB64(VMCB_RSP) = (uptr)virt_stack + sizeof(virt_stack) - 8;
	VMCB64(VMCB_PAT) = rdmsr(MSR_PAT);
}

static enum virt_exit svm_run(void)
{
	u64 code, info1, info2;

	VMCB64(VMCB_RAX) = virt.rax;
	VMCB64(VMCB_RIP) = virt.rip;
	svm_enter((uptr)vmcb, &virt);
	VMCB8(VMCB_TLB) = 0;
	VMCB64(VMCB_INJECT) = 0;
	virt.rax = VMCB64(VMCB_RAX);
	virt.rip = VMCB64(VMCB_RIP);
	virt.reason = code = VMCB64(VMCB_EXIT);
	info1 = VMCB64(VMCB_INFO1);
	info2 = VMCB64(VMCB_INFO2);
	virt.len = 0;
	switch (code) {
	case 0x40 ... 0x5f:
		virt.vector = (unsigned)code - 0x40;
		virt.error = info1;
		virt.fault_address = info2;
		return VIRT_FAULT;
	case 0x60: return VIRT_INTR;
	case 0x72: virt.len = 2; return VIRT_CPUID;
	case 0x78: virt.len = 1; return VIRT_HLT;
	case 0x7b:
		virt.len = (u8)(info2 - virt.rip);
		virt.port = (u16)(info1 >> 16);
		virt.in = info1 & 1;
		return VIRT_IO;
	case 0x7f: return VIRT_SHUTDOWN;
	case 0x81: virt.len = 3; return VIRT_CALL;
	case 0x400:
		virt.error = info1;
		virt.fault_address = info2;
		return VIRT_NPF;
	default: return VIRT_OTHER;
	}
}

static void svm_init(void)
{
	u32 r[4];

	cpuid(0x80000000, 0, r);
	check(r[0] >= 0x8000000a, "leaf 8000000AH is there: %x", r[0]);
	cpuid(0x8000000a, 0, r);
	check((r[0] & 0xff) == 1 && r[1] >= 2, "revision %u of SVM, %u ASIDs, features %x", r[0] & 0xff, r[1],
	      r[3]);
	check(!(rdmsr(MSR_VM_CR) & 1u << 4), "VM_CR lets SVM be enabled: %llx", rdmsr(MSR_VM_CR));
	check(!(rdmsr(MSR_EFER) & EFER_SVME), "EFER.SVME is 0 after a reset");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	check(rdmsr(MSR_EFER) & EFER_SVME, "and can be set");
	wrmsr(MSR_VM_HSAVE, (uptr)svm_host);
	check(rdmsr(MSR_VM_HSAVE) == (uptr)svm_host, "VM_HSAVE_PA keeps what is written");
}

static void svm_fini(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
	check(!(rdmsr(MSR_EFER) & EFER_SVME), "EFER.SVME can be cleared");
}

static bool svm_has_nested_paging(void)
{
	u32 r[4];

	cpuid(0x8000000a, 0, r);
	return r[3] & 1;
}

static void svm_inject(u32 event, u32 error)
{
	VMCB64(VMCB_INJECT) = event | (u64)error << 32;
}

static void svm_intercept(unsigned vector)
{
	VMCB32(VMCB_EXCEPTIONS) |= 1u << vector;
}

static void svm_set_idt(u64 base, u16 limit)
{
	VMCB64(VMCB_IDTR + 8) = base;
	VMCB32(VMCB_IDTR + 4) = limit;
}

static void svm_set_cr3(u64 cr3)
{
	VMCB64(VMCB_CR3) = cr3;
}

static void svm_set_flags(u64 flags)
{
	VMCB64(VMCB_RFLAGS) = flags;
}

static void svm_let_interrupts_in(void)
{
	VMCB32(VMCB_INTERCEPTS) &= ~SVM_INTR;
	VMCB64(VMCB_VINTR) = 0;
}

static void svm_flush(void)
{
	VMCB8(VMCB_TLB) = 1;
}

static const struct virt_ops svm_ops = {
	.call = "VMMCALL",
	.init = svm_init,
	.fini = svm_fini,
	.has_nested_paging = svm_has_nested_paging,
	.leaf_bits = P | W | U,
	.begin = svm_begin,
	.run = svm_run,
	.inject = svm_inject,
	.intercept = svm_intercept,
	.set_idt = svm_set_idt,
	.set_cr3 = svm_set_cr3,
	.set_flags = svm_set_flags,
	.let_interrupts_in = svm_let_interrupts_in,
	.flush = svm_flush,
};
