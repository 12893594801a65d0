/* The instructions of VMX, SVM, SGX and SMX, which this machine does not have, are undefined [G62]. */
#include "hostile.h"

static u8 area[64];

#define INSN(name, ...)                                                                                 \
	static void name(uptr arg)                                                                      \
	{                                                                                               \
		__asm__ volatile(".byte " __VA_ARGS__ : : "a"(arg), "c"(arg), "d"(0) : "memory", "cc"); \
	}
INSN(vmxon, "0xf3, 0x0f, 0xc7, 0x30")
INSN(vmclear, "0x66, 0x0f, 0xc7, 0x30")
INSN(vmptrld, "0x0f, 0xc7, 0x30")
INSN(vmptrst, "0x0f, 0xc7, 0x38")
INSN(vmread, "0x0f, 0x78, 0x08")
INSN(vmwrite, "0x0f, 0x79, 0x08")
INSN(vmlaunch, "0x0f, 0x01, 0xc2")
INSN(vmresume, "0x0f, 0x01, 0xc3")
INSN(vmxoff, "0x0f, 0x01, 0xc4")
INSN(vmfunc, "0x0f, 0x01, 0xd4")
INSN(invept, "0x66, 0x0f, 0x38, 0x80, 0x08")
INSN(invvpid, "0x66, 0x0f, 0x38, 0x81, 0x08")
INSN(vmrun, "0x0f, 0x01, 0xd8")
INSN(vmload, "0x0f, 0x01, 0xda")
INSN(vmsave, "0x0f, 0x01, 0xdb")
INSN(stgi, "0x0f, 0x01, 0xdc")
INSN(clgi, "0x0f, 0x01, 0xdd")
INSN(skinit, "0x0f, 0x01, 0xde")
INSN(invlpga, "0x0f, 0x01, 0xdf")
INSN(encls, "0x0f, 0x01, 0xcf")
INSN(enclu, "0x0f, 0x01, 0xd7")
INSN(enclv, "0x0f, 0x01, 0xc0")
INSN(getsec, "0x0f, 0x37")
INSN(monitor, "0x0f, 0x01, 0xc8")
INSN(mwait, "0x0f, 0x01, 0xc9")
INSN(pconfig, "0x0f, 0x01, 0xc5")
INSN(rsm, "0x0f, 0xaa")
INSN(xbegin_abort, "0xc6, 0xf8, 0")

static const struct {
	const char *name;
	void (*fn)(uptr);
} insns[] = {
	{ "VMXON", vmxon },   { "VMCLEAR", vmclear }, { "VMPTRLD", vmptrld },   { "VMPTRST", vmptrst },
	{ "VMREAD", vmread }, { "VMWRITE", vmwrite }, { "VMLAUNCH", vmlaunch }, { "VMRESUME", vmresume },
	{ "VMXOFF", vmxoff }, { "VMFUNC", vmfunc },   { "INVEPT", invept },     { "INVVPID", invvpid },
	{ "VMRUN", vmrun },   { "VMLOAD", vmload },   { "VMSAVE", vmsave },     { "STGI", stgi },
	{ "CLGI", clgi },     { "SKINIT", skinit },   { "INVLPGA", invlpga },   { "ENCLS", encls },
	{ "ENCLU", enclu },   { "ENCLV", enclv },     { "GETSEC", getsec },     { "MONITOR", monitor },
	{ "MWAIT", mwait },   { "PCONFIG", pconfig }, { "RSM", rsm },           { "XABORT", xbegin_abort },
};

void guest_main(void)
{
	cli();
	for (unsigned k = 0; k < sizeof(insns) / sizeof(insns[0]); k++) {
		expect(insns[k].name, guest_try(insns[k].fn, (uptr)area), UD, -1);
		expect(insns[k].name, guest_try_user(insns[k].fn, (uptr)area, 0), UD, -1);
	}
}
