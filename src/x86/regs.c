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

#include <string.h>

#include "base/bits.h"

#define REGS_FCW_RESET   0x0040
#define REGS_FTW_RESET   0xff /* 5555H, all registers hold zero: in the image's form, none is empty */
#define REGS_MXCSR_RESET 0x1f80
#define REGS_PAT_RESET   0x0007040600070406ull
/* IA32_MISC_ENABLE: fast strings; no branch trace store, no PEBS [SDM4 table 2-2]. */
#define REGS_MISC_ENABLE (BIT(0) | BIT(11) | BIT(12))

static void x86_state_power_up(struct x86_state *s)
{
	memset(s, 0, sizeof(*s));
	s->pat = REGS_PAT_RESET;
	s->misc_enable = REGS_MISC_ENABLE;
	s->xcr0 = XFEATURE_X87;
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
	s->nmi_pending = false;
	s->exc_pending = false;
	s->exc_vector = 0;
	s->exc_has_error = false;
	s->exc_error = 0;
}
