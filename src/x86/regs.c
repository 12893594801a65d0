/* The state of a processor after power-up and after INIT.
 *
 * Values: [SDM3 table 9-1], with segment attributes as the table gives them for the hidden parts. Not in
 * that table: EFER is 0 after either ([APM2 table 14-1] says so of AMD processors; Intel's behave the same);
 * XCR0 has only bit 0 after power-up [SDM3 2.6]; the PAT's power-up value is [SDM3 11.12.4].
 *
 * INIT keeps x87 and SSE state, CR0.CD and CR0.NW, the TSC and its adjustment, MTRRs, PAT, XCR0 and the MSRs
 * that are not named here. The TSC's offset is the machine's to choose (all processors alike), so
 * it is 0 here after power-up. Pure functions; any thread.
 */
#include "x86/regs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

#define REGS_FCW_RESET   0x0040
#define REGS_FTW_RESET   0xff /* 5555H, all registers hold zero: in the image's form, none is empty */
#define REGS_MXCSR_RESET 0x1f80
#define REGS_PAT_RESET   0x0007040600070406ull
/* IA32_MISC_ENABLE: fast strings; no branch trace store, no PEBS [SDM4 table 2-2]. */
#define REGS_MISC_ENABLE (BIT(0) | BIT(11) | BIT(12))

#define REGS_TSC_RATIO BIT(32) /* 1.0 [APM2 15.30.5] */

static void x86_state_power_up(struct x86_state *s)
{
	memset(s, 0, sizeof(*s));
	s->pat = REGS_PAT_RESET;
	s->misc_enable = REGS_MISC_ENABLE;
	s->xcr0 = XFEATURE_X87;
	s->virt.tsc_ratio = REGS_TSC_RATIO;
	st16(s->xsave, REGS_FCW_RESET);
	s->xsave[4] = REGS_FTW_RESET;
	st32(s->xsave + 24, REGS_MXCSR_RESET);
	/* XSTATE_BV: the x87 part is not in what XRSTOR calls its initial state (FCW 037FH). */
	st64(s->xsave + 512, XFEATURE_X87 | XFEATURE_SSE);
}

void x86_state_reset(struct x86_state *s, bool init, bool bsp, u32 family_model_stepping)
{
	u64 cache = init ? s->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;

	if (!init)
		x86_state_power_up(s);

	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[R_DX] = family_model_stepping;
	s->rip = 0xfff0;
	s->rflags = FL_RES1;

	for (unsigned i = 0; i < X86_NR_SEG; i++)
		s->seg[i] = (struct x86_segreg){ .attr = SA_P | SA_S | 0x3, .limit = 0xffff };
	s->seg[SEG_CS] = (struct x86_segreg){
		.sel = 0xf000,
		.base = 0xffff0000,
		.limit = 0xffff,
		.attr = SA_P | SA_S | 0xb,
	};
	s->ldtr = (struct x86_segreg){ .attr = SA_P | 0x2, .limit = 0xffff };
	s->tr = (struct x86_segreg){ .attr = SA_P | 0xb, .limit = 0xffff };
	s->gdtr = (struct x86_dtr){ .limit = 0xffff };
	s->idtr = (struct x86_dtr){ .limit = 0xffff };

	s->cr0 = cache | CR0_ET;
	s->cr2 = 0;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;

	s->activity = bsp ? X86_ACTIVE : X86_WAIT_SIPI;
	s->sti_shadow = false;
	s->movss_shadow = false;
	s->nmi_blocked = false;
	s->nmi_pending = 0;
	s->exc_pending = false;
	s->exc_vector = 0;
	s->exc_has_error = false;
	s->exc_error = 0;
	s->intr_taken = false;
	s->intr_vector = 0;
	s->virt.nested = NULL;
	s->virt.nested_size = 0;
}

int x86_state_check(const struct x86_state *s, struct err *err)
{
	if (s->activity > X86_WAIT_SIPI)
		return err_set(err, -EINVAL, "the CPU state has activity %u, which does not exist",
			       s->activity);
	if (s->exc_pending && s->exc_vector != EXC_DB)
		return err_set(err, -EINVAL, "the CPU state has exception %u pending, which cannot wait",
			       s->exc_vector);
	return 0;
}

static size_t x86_segreg_describe(const char *name, const struct x86_segreg *s, char *out, size_t len)
{
	return (size_t)snprintf(out, len, "%-4s %04x base %016llx limit %08x attr %05x\n", name, s->sel,
				(unsigned long long)s->base, s->limit, s->attr);
}

size_t x86_state_describe(const struct x86_state *s, char *ret_text, size_t len)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const segs[] = { "es", "cs", "ss", "ds", "fs", "gs" };
	char text[2048]; /* more than all of it */
	size_t n = 0;

	n += (size_t)snprintf(text + n, sizeof(text) - n, "rip %016llx rflags %08llx\n",
			      (unsigned long long)s->rip, (unsigned long long)s->rflags);
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%-3s %016llx%c", names[r],
				      (unsigned long long)s->gpr[r], r % 4 == 3 ? '\n' : ' ');
	for (unsigned k = 0; k < X86_NR_SEG; k++)
		n += x86_segreg_describe(segs[k], &s->seg[k], text + n, sizeof(text) - n);
	n += x86_segreg_describe("tr", &s->tr, text + n, sizeof(text) - n);
	n += x86_segreg_describe("ldtr", &s->ldtr, text + n, sizeof(text) - n);
	snprintf(text + n, sizeof(text) - n,
		 "gdtr %016llx limit %04x  idtr %016llx limit %04x\n"
		 "cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %llx\n",
		 (unsigned long long)s->gdtr.base, s->gdtr.limit, (unsigned long long)s->idtr.base,
		 s->idtr.limit, (unsigned long long)s->cr0, (unsigned long long)s->cr2,
		 (unsigned long long)s->cr3, (unsigned long long)s->cr4, (unsigned long long)s->efer);
	n = (size_t)snprintf(ret_text, len, "%s", text);
	return len ? MIN(n, len - 1) : 0;
}
