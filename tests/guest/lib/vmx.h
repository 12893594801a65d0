/* virt.h by VMX [SDM3 24 to 28, appendices A and B]. */
#pragma once

static u32 vmx_on[1024] __attribute__((aligned(4096))), vmx_vmcs[1024] __attribute__((aligned(4096)));
static bool vmx_launched;

enum {
	VMCS_GUEST_ES = 0x800, /* selectors, in the order ES CS SS DS FS GS LDTR TR */
	VMCS_HOST_ES = 0xc00,  /* ES CS SS DS FS GS TR */
	VMCS_EPTP = 0x201a,
	VMCS_GPA = 0x2400,
	VMCS_LINK = 0x2800,
	VMCS_PIN = 0x4000,
	VMCS_PRIMARY = 0x4002,
	VMCS_EXCEPTIONS = 0x4004,
	VMCS_EXIT = 0x400c,
	VMCS_ENTRY = 0x4012,
	VMCS_INJECT = 0x4016,
	VMCS_INJECT_ERROR = 0x4018,
	VMCS_SECONDARY = 0x401e,
	VMCS_ERROR = 0x4400,
	VMCS_REASON = 0x4402,
	VMCS_EVENT = 0x4404,
	VMCS_EVENT_ERROR = 0x4406,
	VMCS_LEN = 0x440c,
	VMCS_LIMITS = 0x4800, /* as the selectors */
	VMCS_GDTR_LIMIT = 0x4810,
	VMCS_IDTR_LIMIT = 0x4812,
	VMCS_RIGHTS = 0x4814, /* as the selectors */
	VMCS_QUALIFICATION = 0x6400,
	VMCS_CR0 = 0x6800,
	VMCS_CR3 = 0x6802,
	VMCS_CR4 = 0x6804,
	VMCS_BASES = 0x6806, /* as the selectors */
	VMCS_GDTR = 0x6816,
	VMCS_IDTR = 0x6818,
	VMCS_DR7 = 0x681a,
	VMCS_RSP = 0x681c,
	VMCS_RIP = 0x681e,
	VMCS_RFLAGS = 0x6820,
	VMCS_HOST_CR0 = 0x6c00,
	VMCS_HOST_CR3 = 0x6c02,
	VMCS_HOST_CR4 = 0x6c04,
	VMCS_HOST_TR = 0x6c0a,
	VMCS_HOST_GDTR = 0x6c0c,
	VMCS_HOST_IDTR = 0x6c0e,
};
/* All other fields stay as VMCLEAR has left them in a region of zeros, or are looked at by no control that is on. */

#define VMX_PIN_INTR          (1u << 0)
#define VMX_PRIMARY_HLT       (1u << 7)
#define VMX_PRIMARY_IO        (1u << 24)
#define VMX_PRIMARY_SECONDARY (1u << 31)
#define VMX_SECONDARY_EPT     (1u << 1)
#define VMX_LONG              (1u << 9) /* of exit and entry controls */
#define VMX_UNUSABLE          (1u << 16)

#define MSR_FEATURE_CONTROL 0x3a
#define MSR_VMX_BASIC       0x480
#define MSR_VMX_SECONDARY   0x48b
#define MSR_VMX_TRUE_PIN    0x48d /* and primary, exit, entry; 481H to 484H where there are none of these */
#define CR4_VMXE            (1ul << 13)

static void vmx_write(uptr field, uptr v)
{
	bool failed;

	__asm__ volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"(field), "r"(v) : "memory");
	if (failed)
		check(false, "VMWRITE of field %lx", field);
}

static uptr vmx_read(uptr field)
{
	uptr v;

	__asm__ volatile("vmread %1, %0" : "=r"(v) : "r"(field) : "memory", "cc");
	return v;
}

/* 0: there has been an exit; 1: the entry has failed. */
int vmx_enter(u64 launched, struct virt *v);
__asm__(".text\n"
	"vmx_enter:\n" VIRT_PUSH "	push %rsi\n"
	"	mov $0x6c14, %eax\n" /* host RSP */
	"	vmwrite %rsp, %rax\n"
	"	mov $0x6c16, %eax\n" /* host RIP */
	"	lea 1f(%rip), %rcx\n"
	"	vmwrite %rcx, %rax\n"
	"	test %edi, %edi\n" VIRT_LOAD "	mov 112(%rsi), %rax\n"
	"	mov 24(%rsi), %rsi\n"
	"	jnz 2f\n"
	"	vmlaunch\n"
	"	jmp 3f\n"
	"2:	vmresume\n"
	"3:	pop %rsi\n"
	"	mov $1, %eax\n"
	"	jmp 4f\n"
	"1:	xchg %rsi, (%rsp)\n" VIRT_STORE "	mov %rax, 112(%rsi)\n"
	"	pop %rbx\n"
	"	mov %rbx, 24(%rsi)\n"
	"	xor %eax, %eax\n"
	"4:\n" VIRT_POP "	ret\n");

/* Controls as wanted, with those that must be 1, without those that must be 0. */
static u32 vmx_controls(u32 msr, u32 wanted)
{
	u64 can = rdmsr(msr);

	return (u32)((wanted | can) & can >> 32);
}

static u32 vmx_true(unsigned which)
{
	return (rdmsr(MSR_VMX_BASIC) >> 55 & 1 ? MSR_VMX_TRUE_PIN : MSR_VMX_BASIC + 1) + which;
}

static bool vmx_has_nested_paging(void)
{
	return rdmsr(vmx_true(1)) >> 63 && rdmsr(MSR_VMX_SECONDARY) >> 32 & VMX_SECONDARY_EPT;
}

static void vmx_segment(unsigned nr, u16 sel, uptr base, u32 limit, u32 rights)
{
	vmx_write(VMCS_GUEST_ES + 2 * nr, sel);
	vmx_write(VMCS_BASES + 2 * nr, base);
	vmx_write(VMCS_LIMITS + 2 * nr, limit);
	vmx_write(VMCS_RIGHTS + 2 * nr, rights);
}

static void vmx_load(void)
{
	uptr pa = (uptr)vmx_vmcs;
	bool failed;

	memset_(vmx_vmcs, 0, sizeof(vmx_vmcs));
	vmx_vmcs[0] = (u32)rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
	__asm__ volatile("vmclear %1; vmptrld %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
	if (failed)
		check(false, "VMCLEAR, VMPTRLD");
	vmx_launched = false;
}

static void vmx_begin(void (*fn)(void))
{
	struct virt_table gdtr, idtr;

	__asm__ volatile("sgdt %0; sidt %1" : "=m"(gdtr), "=m"(idtr));
	vmx_load();
	vmx_write(VMCS_PIN, vmx_controls(vmx_true(0), VMX_PIN_INTR));
	vmx_write(VMCS_PRIMARY,
		  vmx_controls(vmx_true(1), VMX_PRIMARY_HLT | VMX_PRIMARY_IO |
						    (virt_nested_paging ? VMX_PRIMARY_SECONDARY : 0)));
	if (virt_nested_paging)
		vmx_write(VMCS_SECONDARY, vmx_controls(MSR_VMX_SECONDARY, VMX_SECONDARY_EPT));
	if (virt_nested_paging)
		vmx_write(VMCS_EPTP, (uptr)virt_npt[0] | 3 << 3 | 6);
	vmx_write(VMCS_EXCEPTIONS, 0);
	vmx_write(VMCS_EXIT, vmx_controls(vmx_true(2), VMX_LONG));
	vmx_write(VMCS_ENTRY, vmx_controls(vmx_true(3), VMX_LONG));
	vmx_write(VMCS_INJECT, 0);
	vmx_write(VMCS_LINK, ~0ul);
	for (unsigned i = 0; i < 6; i++)
		vmx_segment(i, i == 1 ? SEL_CODE : SEL_DATA, 0, ~0u, i == 1 ? 0xa09b : 0xc093);
	vmx_segment(6, 0, 0, 0, VMX_UNUSABLE);
	vmx_segment(7, SEL_TSS, (uptr)tss, sizeof(tss) - 1, 0x8b);
	vmx_write(VMCS_GDTR, gdtr.base);
	vmx_write(VMCS_GDTR_LIMIT, gdtr.limit);
	vmx_write(VMCS_IDTR, idtr.base);
	vmx_write(VMCS_IDTR_LIMIT, idtr.limit);
	vmx_write(VMCS_CR0, read_cr0());
	vmx_write(VMCS_CR3, read_cr3());
	vmx_write(VMCS_CR4, read_cr4());
	vmx_write(VMCS_DR7, 0x400);
	vmx_write(VMCS_RFLAGS, 2);
	vmx_write(VMCS_RSP, (uptr)virt_stack + sizeof(virt_stack) - 8);
	for (unsigned i = 0; i < 6; i++)
		vmx_write(VMCS_HOST_ES + 2 * i, i == 1 ? SEL_CODE : SEL_DATA);
	vmx_write(VMCS_HOST_ES + 12, SEL_TSS);
	vmx_write(VMCS_HOST_CR0, read_cr0());
	vmx_write(VMCS_HOST_CR3, read_cr3());
	vmx_write(VMCS_HOST_CR4, read_cr4());
	vmx_write(VMCS_HOST_TR, (uptr)tss);
	vmx_write(VMCS_HOST_GDTR, gdtr.base);
	vmx_write(VMCS_HOST_IDTR, idtr.base);
}

static enum virt_exit vmx_run(void)
{
	static const u8 exits[] = { [1] = VIRT_INTR,  [2] = VIRT_SHUTDOWN, [10] = VIRT_CPUID, [12] = VIRT_HLT,
				    [18] = VIRT_CALL, [30] = VIRT_IO,      [48] = VIRT_NPF };
	uptr qualification;

	vmx_write(VMCS_RIP, virt.rip);
	if (vmx_enter(vmx_launched, &virt)) {
		virt.reason = vmx_read(VMCS_ERROR) | 1u << 30;
		return VIRT_OTHER;
	}
	vmx_launched = true;
	virt.rip = vmx_read(VMCS_RIP);
	virt.reason = vmx_read(VMCS_REASON);
	virt.len = (u8)vmx_read(VMCS_LEN);
	qualification = vmx_read(VMCS_QUALIFICATION);
	virt.port = (u16)(qualification >> 16);
	virt.in = qualification >> 3 & 1;
	virt.fault_address = virt.reason == 48 ? vmx_read(VMCS_GPA) : qualification;
	virt.error = virt.reason == 48 ? qualification : vmx_read(VMCS_EVENT_ERROR);
	virt.vector = vmx_read(VMCS_EVENT) & 0xff;
	if (virt.reason == 0)
		return VIRT_FAULT;
	return virt.reason < sizeof(exits) ? (enum virt_exit)exits[virt.reason] : VIRT_OTHER;
}

static void vmx_init(void)
{
	uptr pa = (uptr)vmx_on;
	bool failed;

	check((rdmsr(MSR_FEATURE_CONTROL) & 5) == 5, "IA32_FEATURE_CONTROL allows VMXON, and is locked: %llx",
	      rdmsr(MSR_FEATURE_CONTROL));
	check(!(read_cr4() & CR4_VMXE), "CR4.VMXE is 0 after a reset");
	write_cr4(read_cr4() | CR4_VMXE);
	vmx_on[0] = (u32)rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
	__asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
	check(!failed, "VMXON, revision %x", vmx_on[0]);
}

static void vmx_fini(void)
{
	bool failed;

	__asm__ volatile("vmxoff" : "=@ccbe"(failed) : : "memory");
	check(!failed, "VMXOFF");
	write_cr4(read_cr4() & ~CR4_VMXE);
}

static void vmx_inject(u32 event, u32 error)
{
	vmx_write(VMCS_INJECT, event);
	vmx_write(VMCS_INJECT_ERROR, error);
}

static void vmx_intercept(unsigned vector)
{
	vmx_write(VMCS_EXCEPTIONS, vmx_read(VMCS_EXCEPTIONS) | 1u << vector);
}

static void vmx_set_idt(u64 base, u16 limit)
{
	vmx_write(VMCS_IDTR, base);
	vmx_write(VMCS_IDTR_LIMIT, limit);
}

static void vmx_set_cr3(u64 cr3)
{
	vmx_write(VMCS_CR3, cr3);
}

static void vmx_set_flags(u64 flags)
{
	vmx_write(VMCS_RFLAGS, flags);
}

static void vmx_let_interrupts_in(void)
{
	vmx_write(VMCS_PIN, vmx_controls(vmx_true(0), 0));
}

static void vmx_flush(void)
{
	const u64 none[2] = { 0 };

	__asm__ volatile("invept %0, %1" : : "m"(none), "r"(2ul) : "memory", "cc"); /* all */
}

static const struct virt_ops vmx_ops = {
	.call = "VMCALL",
	.init = vmx_init,
	.fini = vmx_fini,
	.has_nested_paging = vmx_has_nested_paging,
	.leaf_bits = 7 | 6 << 3, /* write-back */
	.begin = vmx_begin,
	.run = vmx_run,
	.inject = vmx_inject,
	.intercept = vmx_intercept,
	.set_idt = vmx_set_idt,
	.set_cr3 = vmx_set_cr3,
	.set_flags = vmx_set_flags,
	.let_interrupts_in = vmx_let_interrupts_in,
	.flush = vmx_flush,
};
