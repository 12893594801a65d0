/* Runs cases on the software engine: one vCPU, no devices, 4-level page tables that show the case's pages at the same linear
 * addresses as the host child has them. All gates of the IDT lead to a HLT of their own, so a run ends
 * with the vector in RIP and the interrupted state on the kernel's stack. The engine runs on the calling thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../engine_env.h"
#include "insn.h"
#include "vm/vm.h"

/* Guest-physical layout, shown to the kernel at KERNEL + gpa. */
enum {
	GDT = 0x1000,
	IDT = 0x2000,
	TSS = 0x3000,
	STUBS = 0x4000, /* one HLT per vector */
	STACK_TOP = 0x6000,
	PML4 = 0x8000,
	NEXT_TABLE = 0x9000,
	CODE = 0x40000,
	DATA = 0x50000,
	RAM_SIZE = 0x200000,
};
#define KERNEL 0xffffffff80000000ull

static struct vm vm;
static struct vcpu vcpu;
static struct x86_state base;
static u64 next_table = NEXT_TABLE;

static _Noreturn void fail(const struct err *err)
{
	fprintf(stderr, "insn: %s\n", err->msg);
	exit(1);
}

static void map_page(u64 la, u64 gpa, u64 bits)
{
	u64 table = PML4;
	for (unsigned shift = 39; shift > 12; shift -= 9) {
		u8 *e = vm.ram.base + table + (la >> shift & 511) * 8;
		if (!ld64(e)) {
			st64(e, next_table | PTE_P | PTE_W | PTE_U);
			next_table += 4096;
		}
		table = ld64(e) & 0xffffffffff000;
	}
	st64(vm.ram.base + table + (la >> 12 & 511) * 8, gpa | PTE_P | bits);
}

static void gate(unsigned vector, u64 target)
{
	u8 *g = vm.ram.base + IDT + 16 * vector;
	unsigned dpl = vector == EXC_BP || vector == EXC_OF ? 3 : 0;
	st64(g, (target & 0xffff) | 0x10ull << 16 | (u64)(0x8e00 | dpl << 13) << 32 |
			(target >> 16 & 0xffff) << 48);
	st64(g + 8, target >> 32);
}

/* Where page p of the data is: not next to the one before, so that an access over the end of a page cannot be right by
 * chance. */
static u64 data_page(u64 p)
{
	return DATA + (INSN_DATA_SIZE - 4096 - p) * 2;
}

static void build_memory(void)
{
	u8 *r = vm.ram.base;
	for (u64 p = 0; p < 0x8000; p += 4096)
		map_page(KERNEL + p, p, PTE_W);
	map_page(INSN_CODE, CODE, PTE_U);
	for (u64 p = 0; p < INSN_DATA_SIZE; p += 4096)
		map_page(INSN_DATA + p, data_page(p), PTE_U | PTE_NX | (p < INSN_DATA_RW ? PTE_W : 0));
	st64(r + GDT + 0x10, 0x00af9b000000ffffull); /* kernel code */
	st64(r + GDT + 0x18, 0x00cf93000000ffffull); /* kernel data */
	st64(r + GDT + (INSN_CS32 & ~7), 0x00cffb000000ffffull);
	st64(r + GDT + (INSN_DS & ~7), 0x00cff3000000ffffull);
	st64(r + GDT + (INSN_CS64 & ~7), 0x00affb000000ffffull);
	st64(r + TSS + 4, KERNEL + STACK_TOP); /* RSP0 */
	st16(r + TSS + 102, 104);              /* no I/O permission map */
	for (unsigned v = 0; v < 256; v++)
		gate(v, KERNEL + STUBS + v);
	memset(r + STUBS, 0xf4, 256);
}

static struct x86_segreg segment(u16 sel, u32 attr)
{
	return (struct x86_segreg){ .sel = sel, .attr = attr, .limit = 0xffffffff };
}

static void build_state(void)
{
	x86_state_reset(&base, false, true, vm.cpuid.signature);
	base.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	base.cr3 = PML4;
	base.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	if (cpuid_has(&vm.cpuid, X86_FEATURE_XSAVE))
		base.cr4 |= CR4_OSXSAVE;
	if (cpuid_has(&vm.cpuid, X86_FEATURE_FSGSBASE))
		base.cr4 |= CR4_FSGSBASE;
	base.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	base.xcr0 = vm.cpuid.xcr0_mask;
	base.gdtr = (struct x86_dtr){ 0x3f, KERNEL + GDT };
	base.idtr = (struct x86_dtr){ 0xfff, KERNEL + IDT };
	base.tr = (struct x86_segreg){ .sel = 0x8, .attr = SA_P | 0xb, .limit = 103, .base = KERNEL + TSS };
	base.ldtr = (struct x86_segreg){ .attr = SA_UNUSABLE };
	base.activity = X86_ACTIVE;
	base.seg[SEG_SS] = segment(INSN_DS, SA_P | SA_S | SA_DPL | 3 | SA_DB | SA_G);
	base.seg[SEG_DS] = base.seg[SEG_ES] = base.seg[SEG_SS];
	base.seg[SEG_FS] = base.seg[SEG_GS] = (struct x86_segreg){ .attr = SA_UNUSABLE };
	base.seg[SEG_GS].base = INSN_GS_BASE;
}

void machine_start(const char *cpu_model)
{
	struct err err = { 0 };
	u64 features[4];

	snprintf(vm.name, sizeof(vm.name), "insn");
	vm.engine = &soft_engine;
	if (engine_env_parse(&vm.engine_conf, &err) < 0)
		fail(&err);
	vm.nr_vcpus = 1;
	vm.tsc_khz = 1000000;
	vm.vcpu[0] = &vcpu;
	vcpu.vm = &vm;
	vcpu.timer_tsc = ~0ull;
	pthread_mutex_init(&vm.intc_lock, NULL);
	vm.engine->features(&vm.engine_conf, features);
	struct cpuid_params params = {
		.model = cpu_model, .nr_vcpus = 1, .tsc_khz = vm.tsc_khz, .engine_features = features
	};
	if (vm.engine->probe(&err) < 0) {
		fprintf(stderr, "insn: skipped: %s\n", err.msg);
		exit(77);
	}
	if (ram_init(&vm.ram, RAM_SIZE, &err) < 0 || cpuid_build(&vm.cpuid, &params, &err) < 0 ||
	    vm.engine->vm_init(&vm, &err) < 0 || vm.engine->vcpu_init(&vcpu, &err) < 0)
		fail(&err);
	build_memory();
	build_state();
}

void machine_stop(void)
{
	vm.engine->vcpu_fini(&vcpu);
	vm.engine->vm_fini(&vm);
	ram_fini(&vm.ram);
}

bool machine_has(unsigned feature)
{
	return cpuid_has(&vm.cpuid, feature);
}

static bool pushes_error(unsigned vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC ||
	       vector == EXC_CP;
}

void machine_run(struct insn_case *c)
{
	static struct x86_state s;
	struct insn_result *res = &c->soft;
	struct err err = { 0 };

	memset(vm.ram.base + CODE, 0xcc, INSN_CODE_SIZE);
	memcpy(vm.ram.base + CODE, c->code, c->len);
	for (u64 p = 0; p < INSN_DATA_SIZE; p += 4096)
		memcpy(vm.ram.base + data_page(p), c->in.data + p, 4096);
	ram_code_written(&vm.ram, CODE, INSN_CODE_SIZE);
	memcpy(&s, &base, sizeof(s));
	memcpy(s.gpr, c->in.gpr, sizeof(s.gpr));
	s.rip = INSN_CODE;
	s.rflags = c->in.flags | FL_RES1 | FL_IF;
	s.seg[SEG_CS] = c->mode == INSN_64 ? segment(INSN_CS64, SA_P | SA_S | SA_DPL | 0xb | SA_L | SA_G)
					   : segment(INSN_CS32, SA_P | SA_S | SA_DPL | 0xb | SA_DB | SA_G);
	memcpy(s.xsave, c->in.xsave, INSN_XSAVE);
	st64(s.xsave + 512, base.xcr0 ? base.xcr0 : XFEATURE_X87 | XFEATURE_SSE); /* 0: no XSAVE */
	if (vm.engine->set_state(&vcpu, &s, &err) < 0)
		fail(&err);
	enum run_end end = vm.engine->run(&vcpu);
	vm.engine->get_state(&vcpu, &s, NULL);
	memset(res, 0, sizeof(*res));
	for (u64 p = 0; p < INSN_DATA_SIZE; p += 4096)
		memcpy(res->state.data + p, vm.ram.base + data_page(p), 4096);
	memcpy(res->state.xsave, s.xsave, INSN_XSAVE);
	memcpy(res->state.gpr, s.gpr, sizeof(s.gpr));
	res->state.rip = s.rip;
	res->state.flags = s.rflags;
	u64 vector = s.rip - 1 - (KERNEL + STUBS), sp = s.gpr[R_SP] - KERNEL;
	if (end != RUN_HLT || vector > 255 || sp < STUBS + 256 || sp > STACK_TOP - 40) {
		fprintf(stderr, "insn: the engine stopped in a strange way (%d) at %#llx\n%s", end,
			(unsigned long long)s.rip, vm.crash);
		res->vector = INSN_LOST;
		return;
	}
	const u8 *frame = vm.ram.base + sp;
	res->vector = (int)vector;
	if (pushes_error((unsigned)vector)) {
		res->error = ld32(frame);
		frame += 8;
	}
	res->cr2 = s.cr2;
	res->state.rip = ld64(frame);
	res->state.flags = ld64(frame + 16);
	res->state.gpr[R_SP] = ld64(frame + 24);
}
