/* The software engine's side of the contract in vm/engine.h: creation, state in and out, what a crash
 * looks like.
 *
 * Host code: may call libc; the guest's vector state has been spilled wherever this runs.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/soft/code.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/interp.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/soft_stats.h"
#include "cpu/soft/thunk.h"
#include "cpu/soft/walk.h"
#include "x86/cpuid.h"
#include "x86/disasm.h"

static int soft_probe(struct err *err)
{
	return thunk_init(err);
}

/* Everything in the table but what is hidden on purpose: virtual-8086 mode extensions; and AVX-512 where the host
 * does not keep its state. The rest of AVX-512 goes with AVX512F. */
static void soft_features(const struct engine_conf *conf, u64 ret_features[4])
{
	fpu_init();
	memset(ret_features, 0, 4 * sizeof(u64));
	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		if (f != X86_FEATURE_VME && !cpuid_runs_guests(f) &&
		    (f != X86_FEATURE_AVX512F || fpu_has_avx512()))
			ret_features[f / 64] |= BIT(f % 64);
}

/* --- creation ---------------------------------------------------------------------------- */
/* A device wrote over code. It is dropped before the caller signals completion. */
static void soft_code_written(void *opaque, gpa_t gpa, u64 len)
{
	code_written(opaque, gpa, len);
}

static void free_vm(struct soft_vm *svm)
{
	if (!svm)
		return;
	jit_vm_fini(svm);
	code_vm_fini(svm);
	thunk_arena_free(svm->thunks);
	free(svm);
}

/* A region of each cache takes 7 MiB. By itself a guest's code gets at most a quarter of what the guest has as memory. */
static u32 most_regions(const struct vm *vm)
{
	u64 cache = vm->engine_conf.cache ? vm->engine_conf.cache * (u64)MiB : vm->ram.end / 4;

	return (u32)MIN(cache / (CODE_REGION + JIT_CODE + JIT_DATA), (u64)REGIONS_MOST);
}

/* Without a translator; NULL with a sentence. */
static struct soft_vm *new_vm(struct vm *vm, struct err *err)
{
	struct soft_vm *svm = calloc(1, sizeof(*svm));

	if (!svm) {
		err_set(err, -ENOMEM, "no memory for the software engine");
		return NULL;
	}
	svm->vm = vm;
	svm->most_regions = most_regions(vm);
	if (thunk_arena_new(&svm->thunks, err) || code_vm_init(svm, err)) {
		free_vm(svm);
		return NULL;
	}
	return svm;
}

static int soft_vm_init(struct vm *vm, struct err *err)
{
	int rc = lockstep_check(vm, err);
	struct err why = { 0 };
	struct soft_vm *svm;

	if (!rc)
		rc = thunk_init(err);
	if (rc)
		return rc;
	if (vm->ram.end / RAM_PAGE_SIZE >= BIT(TLB_KEY_PFN_BITS))
		return err_set(err, -EINVAL,
			       "the software engine runs machines with less than %llu GiB of memory",
			       (unsigned long long)(BIT(TLB_KEY_PFN_BITS) * RAM_PAGE_SIZE / GiB));
	svm = vm->engine_vm = new_vm(vm, &why);
	rc = svm ? jit_vm_init(svm, err) : err_set(err, why.code, "%s", why.msg);
	if (rc)
		return rc;
	vm->ram.code_written = soft_code_written;
	vm->ram.code_opaque = svm;
	return 0;
}

/* Nobody else tracks writes to code, so its marks go with the blocks. */
static void soft_vm_fini(struct vm *vm)
{
	vm->ram.code_written = NULL;
	free_vm(vm->engine_vm);
	vm->engine_vm = NULL;
	for (u64 page = 0; vm->ram.code_map && page < vm->ram.end / RAM_PAGE_SIZE; page++)
		if (atomic_load_explicit(&vm->ram.code_map[page], memory_order_relaxed))
			atomic_store(&vm->ram.code_map[page], 0);
}

static void free_cpu(struct soft_cpu *c)
{
	if (!c)
		return;
	thunk_thread_forget(c);
	jit_fini(c);
	code_fini(c);
	mmu_fini(c);
	free(c->xsave);
	free(c->bounce);
	free(c);
}

static void soft_vcpu_fini(struct vcpu *vcpu)
{
	free_cpu(vcpu->engine);
	vcpu->engine = NULL;
}

/* By the vendor string's EBX: "Auth", "Hygo". */
static bool is_amd(const struct cpuid_table *t)
{
	u32 r[4];

	cpuid_query(t, 0, 0, 0, 0, 1, 0, r);
	return r[1] == 0x68747541 || r[1] == 0x6f677948;
}

/* NULL with a sentence. */
static struct soft_cpu *new_cpu(struct vcpu *vcpu, struct soft_vm *svm, struct err *err)
{
	struct soft_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));
	int rc;

	if (!c) {
		err_set(err, -ENOMEM, "no memory for vCPU %u", vcpu->id);
		return NULL;
	}
	memset(c, 0, sizeof(*c));
	c->vcpu = vcpu;
	c->svm = svm;
	c->ram = &vcpu->vm->ram;
	c->features = vcpu->vm->cpuid.features;
	c->amd = is_amd(&vcpu->vm->cpuid);
	c->delivering = -1;
	c->xsave = aligned_alloc(64, ALIGN_UP(X86_XSAVE_SIZE, 64));
	c->bounce = aligned_alloc(4096, 2 * 4096);
	if (!c->xsave || !c->bounce) {
		rc = err_set(err, -ENOMEM, "no memory for vCPU %u", vcpu->id);
	} else {
		memset(c->xsave, 0, X86_XSAVE_SIZE);
		rc = mmu_init(c, err);
	}
	if (!rc)
		rc = code_init(c, err);
	if (!rc)
		rc = jit_init(c, err);
	if (!rc)
		return c;
	free_cpu(c);
	return NULL;
}

static int soft_vcpu_init(struct vcpu *vcpu, struct err *err)
{
	struct err why = { 0 };

	vcpu->engine = new_cpu(vcpu, vcpu->vm->engine_vm, &why);
	return vcpu->engine ? 0 : err_set(err, why.code, "%s", why.msg);
}

/* --- running ----------------------------------------------------------------------------- */
/* Translated code finds its soft_cpu through GS. Whether user mode may set its base by an instruction is not asked
 * for something so rare. */
static _Thread_local const struct soft_cpu *gs_cpu;

static void set_gs(const struct soft_cpu *c)
{
	if (gs_cpu == c)
		return;
	syscall(SYS_arch_prctl, ARCH_SET_GS, c);
	gs_cpu = c;
}

/* Other threads: translated code looks at the mailbox at its next backward jump. */
static void soft_kick(struct vcpu *vcpu)
{
	struct soft_cpu *c = vcpu->engine;

	soft_recall(c);
}

/* When c halts: a region of each cache goes back each LOOK_NS, once none has been begun for QUIET_NS. */
#define LOOK_NS  1000000000ull
#define QUIET_NS 5000000000ull

/* Is it time, and is there something to give? */
static bool can_give_back(struct soft_vm *s, u64 now)
{
	u64 begun;
	bool can;

	share_lock(s);
	begun = s->code->use.nr_begun + (s->jit ? s->jit->use.nr_begun : 0);
	if (begun != s->begun) {
		s->begun = begun;
		s->begun_ns = now;
	}
	can = now - s->begun_ns >= QUIET_NS &&
	      (regions_can_give_back(&s->code->use) || (s->jit && regions_can_give_back(&s->jit->use)));
	share_unlock(s);
	return can;
}

static void give_back(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;
	u64 now = os_now_ns(), look = atomic_load_explicit(&s->look_ns, memory_order_relaxed);

	if (now < look || !atomic_compare_exchange_strong(&s->look_ns, &look, now + LOOK_NS) ||
	    !can_give_back(s, now))
		return;
	share_enter(c);
	share_alone(c);
	share_lock(s);
	code_give_back(s);
	if (s->jit)
		jit_give_back(s);
	share_unlock(s);
	share_together(c);
	share_leave(c);
}

static enum run_end soft_run(struct vcpu *vcpu)
{
	struct soft_cpu *c = vcpu->engine;

	if (c->jit)
		set_gs(c);
	enum run_end end = interp_run(c);

	if (end == RUN_HLT)
		give_back(c);
	vcpu->stats.insns = c->jit ? 0 : c->icount; /* translated code does not count */
	return end;
}

/* --- threads: what a thread has for its signals goes back when it ends --------------------- */
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static void thread_gone(void *cpu)
{
	thunk_thread_fini();
}

static void make_thread_key(void)
{
	pthread_key_create(&thread_key, thread_gone);
}

static _Thread_local const struct soft_cpu *this_vcpu;

static void enter_thread(struct soft_cpu *c)
{
	pthread_once(&thread_once, make_thread_key);
	pthread_setspecific(thread_key, c);
	thunk_thread_init(c);
	if (this_vcpu != c)
		jit_host_thread(c);
	this_vcpu = c;
}

/* --- state ------------------------------------------------------------------------------- */
/* Copies the fields that both sides have under the same name; COPY is `to` or `from` x86_state. */
/* clang-format off */
#define SOFT_SHARED_FIELDS(COPY)                                                                           \
	COPY(rip) COPY(ldtr) COPY(tr) COPY(gdtr) COPY(idtr)                                                \
	COPY(cr0) COPY(cr2) COPY(cr3) COPY(cr4) COPY(dr6) COPY(dr7)                                        \
	COPY(efer) COPY(star) COPY(lstar) COPY(cstar) COPY(sfmask) COPY(kernel_gs_base) COPY(tsc_aux)      \
	COPY(sysenter_cs) COPY(sysenter_esp) COPY(sysenter_eip)                                            \
	COPY(pat) COPY(mtrr_def_type) COPY(misc_enable) COPY(spec_ctrl) COPY(xss) COPY(xcr0) COPY(tsc_adjust) \
	COPY(activity) COPY(nmi_blocked) COPY(nmi_pending)
#define SOFT_SHARED_ARRAYS(COPY) COPY(dr) COPY(mtrr_fixed) COPY(mtrr_base) COPY(mtrr_mask)
/* clang-format on */

static void get_state(struct soft_cpu *c, struct x86_state *s)
{
	fpu_spill(c);
	memset(s, 0, sizeof(*s));
#define GET_FIELD_(f) s->f = c->f;
#define GET_ARRAY_(f) memcpy(s->f, c->f, sizeof(s->f));
	SOFT_SHARED_FIELDS(GET_FIELD_)
	SOFT_SHARED_ARRAYS(GET_ARRAY_)
	memcpy(s->gpr, c->gpr, sizeof(s->gpr));
	memcpy(s->seg, c->seg, sizeof(s->seg));
	fpu_export(c, s->xsave);
	s->rflags = soft_get_flags(c);
	s->tsc_offset = (u64)c->vcpu->tsc_offset;
	s->sti_shadow = c->attention & ATT_SHADOW;
	s->movss_shadow = c->attention & ATT_MOVSS;
	/* A debug trap that is due is the only exception that can wait between instructions. */
	s->exc_pending = c->attention & ATT_DB;
	s->exc_vector = s->exc_pending ? EXC_DB : 0;
	s->intr_taken = c->attention & ATT_TAKEN;
	s->intr_vector = s->intr_taken ? c->taken_vector : 0;
}

static int soft_get_state(struct vcpu *vcpu, struct x86_state *ret_state, struct err *err)
{
	get_state(vcpu->engine, ret_state);
	return 0;
}

/* MSRs that WRMSR only lets canonical addresses into, which what uses them counts on. */
static int soft_check_addresses(const struct x86_state *s, struct err *err)
{
	const u64 address[] = { s->lstar, s->cstar, s->kernel_gs_base, s->sysenter_esp, s->sysenter_eip };

	for (unsigned k = 0; k < ARRAY_SIZE(address); k++)
		if (bits_sext(address[k], 48) != address[k])
			return err_set(err, -EINVAL,
				       "the CPU state has the non-canonical address %#llx in an MSR",
				       (unsigned long long)address[k]);
	return 0;
}

static int soft_check_state(const struct x86_state *s, struct err *err)
{
	if (s->cr0 & CR0_PG && !(s->cr0 & CR0_PE))
		return err_set(err, -EINVAL, "the CPU state has CR0 = %#llx: paging without protection",
			       (unsigned long long)s->cr0);
	if (s->cr0 >> 32 || s->cr4 & CR4_LA57)
		return err_set(err, -EINVAL,
			       "the CPU state has reserved bits set in CR0 or CR4 (%#llx, %#llx)",
			       (unsigned long long)s->cr0, (unsigned long long)s->cr4);
	if (!!(s->efer & EFER_LMA) != (s->cr0 & CR0_PG && s->efer & EFER_LME))
		return err_set(err, -EINVAL, "the CPU state has EFER = %#llx, which does not fit CR0 = %#llx",
			       (unsigned long long)s->efer, (unsigned long long)s->cr0);
	if (s->virt.nested)
		return err_set(
			err, -EINVAL,
			"the CPU state is one of a guest that uses SVM or VMX, which the soft engine does not have");
	if (s->efer & EFER_LMA && !(s->cr4 & CR4_PAE))
		return err_set(err, -EINVAL, "the CPU state is in long mode without CR4.PAE");
	if (s->efer & EFER_LMA && s->seg[SEG_CS].attr & SA_L && bits_sext(s->rip, 48) != s->rip)
		return err_set(err, -EINVAL, "the CPU state has the non-canonical RIP %#llx",
			       (unsigned long long)s->rip);
	return soft_check_addresses(s, err);
}

static int set_state(struct soft_cpu *c, const struct x86_state *s, struct err *err)
{
	int rc = x86_state_check(s, err);

	if (!rc)
		rc = soft_check_state(s, err);
	if (rc)
		return rc;
	/* On the vCPU's own thread the host's registers may hold the old state: forget it. */
	fpu_spill(c);
#define SET_FIELD_(f) c->f = s->f;
#define SET_ARRAY_(f) memcpy(c->f, s->f, sizeof(s->f));
	SOFT_SHARED_FIELDS(SET_FIELD_)
	SOFT_SHARED_ARRAYS(SET_ARRAY_)
	memcpy(c->gpr, s->gpr, sizeof(s->gpr));
	c->gpr[RZERO] = 0;
	memcpy(c->seg, s->seg, sizeof(s->seg));
	memset(&c->seg[SEG_FLAT], 0, sizeof(c->seg[SEG_FLAT]));
	fpu_import(c, s->xsave);
	fpu_image_loaded(c);
	c->vcpu->tsc_offset = (s64)s->tsc_offset;
	c->taken_vector = s->intr_vector;
	/* CPL is SS.DPL, except where there are no descriptors [SDM3 5.5]. */
	c->cpl = !(s->cr0 & CR0_PE) ? 0 : s->rflags & FL_VM ? 3 : s->seg[SEG_SS].attr >> SA_DPL_SHIFT & 3;
	c->flags = FL_RES1;
	c->attention = (c->attention & ATT_DEBUG) | (s->sti_shadow ? ATT_SHADOW : 0) |
		       (s->movss_shadow ? ATT_MOVSS : 0) | (s->nmi_pending ? ATT_NMI : 0) |
		       (s->exc_pending ? ATT_DB : 0) | (s->dr7 & 0xff ? ATT_BREAK : 0) |
		       (s->intr_taken ? ATT_TAKEN : 0) | ATT_INTR;
	c->delivering = -1;
	c->cur = NULL;
	c->budget = 0;
	c->user_news = true;
	if (s->cr0 & CR0_PG && s->cr4 & CR4_PAE && !(s->efer & EFER_LMA) && !mmu_load_pdptes(c, s->cr3))
		return err_set(err, -EINVAL,
			       "the CPU state has reserved bits in its page-directory pointers (CR3 = %#llx)",
			       (unsigned long long)s->cr3);
	enter_thread(c);
	share_enter(c); /* others that are alone write-protect pages in the TLB */
	if (c->jit)
		jit_forget(c);
	mmu_flush_all(c);
	soft_mode_changed(c);
	soft_set_flags(c, s->rflags);
	soft_mode_changed(c);
	share_leave(c);
	return 0;
}

static u64 soft_insns(struct vcpu *vcpu, bool *ret_exact)
{
	const struct soft_cpu *c = vcpu->engine;

	*ret_exact = !c->jit || !__atomic_load_n(&c->jit_cpu->nr_entries, __ATOMIC_RELAXED);
	return __atomic_load_n(&c->icount, __ATOMIC_RELAXED);
}

/* --- debugging --------------------------------------------------------------------------- */
/* What a TLB knows of pages hangs on the points: VCPU_REQ_FLUSH is the caller's to post where these have changed. */
static void soft_debug(struct vcpu *vcpu)
{
	struct soft_cpu *c = vcpu->engine;
	const struct vm_debug *d = vcpu->vm->debug;

	c->debug = d && (d->nr_code || d->nr_data) ? d : NULL;
	c->debug_begun = false;
	c->attention &= ~(u32)ATT_DEBUG;
	if (vcpu->debug.action == DEBUG_STEP)
		c->attention |= ATT_DEBUG;
}

static bool soft_translate(struct vcpu *vcpu, gva_t la, gpa_t *ret_gpa)
{
	struct soft_cpu *c = vcpu->engine;
	struct walk w;

	if (soft_long(c) ? bits_sext(la, 48) != la : la >> 32)
		return false;
	if (!walk_page(c, la, TLB_SUP_AC, 0, &w))
		return false;
	*ret_gpa = w.gpa;
	return true;
}

static int soft_set_state(struct vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	return set_state(vcpu->engine, state, err);
}

/* --- an instruction of another engine's vCPU ----------------------------------------------- */
/* A carrier is a CPU with blocks and thunks of its own: nothing of the vCPU's own engine is touched, and what was decoded
 * is never used again without its bytes being looked at (code_find.c). */
static void soft_carry_end(void *carrier)
{
	struct soft_cpu *c = carrier;
	struct soft_vm *svm = c->svm;

	free_cpu(c);
	free_vm(svm);
}

static int new_carrier(struct vcpu *vcpu, void **ret_carrier, struct err *err)
{
	struct err why = { 0 };
	struct soft_vm *svm = thunk_init(&why) ? NULL : new_vm(vcpu->vm, &why);
	struct soft_cpu *c = svm ? new_cpu(vcpu, svm, &why) : NULL;

	if (!c) {
		free_vm(svm);
		return err_set(err, why.code, "the software engine cannot help out: %s", why.msg);
	}
	svm->only = c;
	/* Whatever the model says. What a guest may use beyond that is the other engine's to decide, and some hosts' KVM shows features of
	 * the host's processor that no model has. */
	soft_features(&vcpu->vm->engine_conf, svm->features);
	c->features = svm->features;
	*ret_carrier = c;
	return 0;
}

static int soft_carry(struct vcpu *vcpu, void **carrier, struct x86_state *state, enum run_end *ret_end,
		      struct err *err)
{
	struct soft_cpu *c;
	int rc = *carrier ? 0 : new_carrier(vcpu, carrier, err);

	c = *carrier;
	if (!c)
		return rc;
	rc = set_state(c, state, err);
	if (rc)
		return rc;
	*ret_end = interp_carry(c);
	get_state(c, state);
	return 0;
}

/* --- a triple fault, for people ---------------------------------------------------------- */
/* The instructions of the last blocks up to RIP, oldest first. */
static void print_trail(struct soft_cpu *c, char *out, size_t len)
{
	unsigned bits = (c->key & KEY_MODE) == MODE_64 ? 64 : (c->key & KEY_MODE) == MODE_32 ? 32 : 16;
	size_t n = 0;

	n += (size_t)snprintf(out + n, len - n, "last instructions:\n");
	for (unsigned k = SOFT_TRAIL - 4; k < SOFT_TRAIL; k++) {
		u64 rip = c->trail[(c->trail_next + k) % SOFT_TRAIL];
		bool last = k == SOFT_TRAIL - 1;

		for (unsigned m = 0; m < (last ? CODE_MAX_INSNS : 6u) && n + 128 < len; m++) {
			u8 bytes[15];
			char text[96];
			unsigned got = sizeof(bytes), used;
			gva_t la = bits == 64 ? rip : (u32)(rip + c->seg[SEG_CS].base);

			while (got && !mmu_peek(c, la, bytes, got))
				got--;
			used = disasm(bytes, got, bits, rip, text, sizeof(text));
			n += (size_t)snprintf(out + n, len - n, "%c %016llx  %s\n",
					      last && rip == c->rip ? '>' : ' ', (unsigned long long)rip,
					      text);
			if (!used || (last && rip == c->rip) || disasm_ends_block(bytes, got, bits))
				break;
			rip += used;
		}
	}
}

void interp_crash(struct soft_cpu *c)
{
	char text[sizeof(c->vcpu->vm->crash)];
	struct x86_state state;
	size_t n = 0, len = sizeof(text);

	get_state(c, &state);
	n += (size_t)snprintf(text + n, len - n, "triple fault on vCPU %u, first by exception %u",
			      c->vcpu->id, c->exc.vector);
	if (c->exc.has_error)
		n += (size_t)snprintf(text + n, len - n, " (error code %#x)", c->exc.error);
	n += (size_t)snprintf(text + n, len - n, ", cpl %u\n", c->cpl);
	n += x86_state_describe(&state, text + n, len - n);
	print_trail(c, text + n, len - n);
	vm_crash(c->vcpu->vm, text);
}

const struct engine_ops soft_engine = {
	.name = "soft",
	.probe = soft_probe,
	.features = soft_features,
	.vm_init = soft_vm_init,
	.vm_fini = soft_vm_fini,
	.vcpu_init = soft_vcpu_init,
	.vcpu_fini = soft_vcpu_fini,
	.run = soft_run,
	.kick = soft_kick,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.stats = soft_stats,
	.insns = soft_insns,
	.debug = soft_debug,
	.translate = soft_translate,
	.carry = soft_carry,
	.carry_end = soft_carry_end,
};
