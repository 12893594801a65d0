/* Translated code, the host's part: memory, the stack for calls, the timer that ends long runs.
 *
 * Code is in memory that is mapped twice, to be written and to be executed, never both in one mapping. The data
 * about it lie right behind the second mapping, so that code reaches them relative to RIP.
 *
 * The timer is the host's, one per thread, and is set to the local APIC's deadline when that has become sooner: its
 * signal's handler recalls the vCPU, and the loop looks at the clock. A deadline that moves away costs nothing but
 * one signal for nothing.
 *
 * Creation on the main thread, names for perf on any vCPU's, the rest on the vCPU's own. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu/soft/jit/lockstep.h"
#include "base/log.h"
#include "cpu/soft/jit/translate.h"
#include "cpu/soft/ops.h"

#define WARM 24

static void *map(size_t size)
{
	void *p =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int map_code(struct jit *j, struct err *err)
{
	u8 *rw = mmap(NULL, JIT_CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	u8 *rx = rw == MAP_FAILED ? rw
				  : mmap(NULL, JIT_CODE_SIZE + JIT_DATA_SIZE, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int code;

	/* An old size of 0 makes a second mapping of shared memory [mremap(2)]. */
	if (rx != MAP_FAILED &&
	    (mremap(rw, 0, JIT_CODE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, rx) == MAP_FAILED ||
	     mprotect(rx, JIT_CODE_SIZE, PROT_READ | PROT_EXEC) < 0)) {
		code = errno;
		munmap(rx, JIT_CODE_SIZE + JIT_DATA_SIZE);
		rx = MAP_FAILED;
		errno = code;
	}
	code = errno;
	if (rx == MAP_FAILED) {
		if (rw != MAP_FAILED)
			munmap(rw, JIT_CODE_SIZE);
		return err_sys(err, -code, "this host refuses executable memory for translated code");
	}
	j->rw = rw;
	j->rx = rx;
	j->data = rx + JIT_CODE_SIZE;
	return 0;
}

void jit_give_back(struct soft_vm *s)
{
	struct jit *j = s->jit;
	u32 r = regions_give_back(&j->use);
	u64 glue = r ? 0 : ALIGN_UP((u64)j->glue_used, RAM_PAGE_SIZE);

	if (r == REGIONS_MOST)
		return;
	jit_give_up(s, r);
	madvise(j->rw + r * JIT_CODE + glue, JIT_CODE - glue,
		MADV_REMOVE); /* shared memory: from both mappings */
	madvise(j->data + r * JIT_DATA, JIT_DATA, MADV_DONTNEED);
	madvise(j->regions[r].blocks, sizeof(*j->blocks) * JIT_MAX_BLOCKS, MADV_DONTNEED);
}

static int make_jit(struct soft_vm *s, struct err *err)
{
	const struct engine_conf *conf = &s->vm->engine_conf;
	struct err why = { 0 };
	struct jit *j = calloc(1, sizeof(*j));

	s->jit = j;
	if (!j)
		return err_set(err, -ENOMEM, "no memory for the translator");
	if (map_code(j, &why)) {
		s->jit = NULL;
		free(j);
		if (conf->lockstep)
			return err_set(err, why.code, "nothing to compare in lock-step: %s", why.msg);
		log_warn("%s, so the guest is interpreted, which is several times slower", why.msg);
		return 0;
	}
	regions_init(&j->use, JIT_LEAST, s->most_regions);
	j->warm = conf->warm ? conf->warm : conf->lockstep ? 1 : WARM;
	/* Blocks count to BLOCK_COLD, which stands for never. */
	j->warm = MIN(j->warm, BLOCK_COLD - 1u);
	j->trial_runs = j->warm * TRIAL_RUNS;
	j->trial_later = j->warm * TRIAL_LATER;
	j->perf_map = conf->perf_map;
	j->pic = conf->pic;
	j->lockstep = conf->lockstep;
	j->trials = !conf->lockstep;
	j->no_jcache = map(sizeof(*j->no_jcache) << JCACHE_BITS);
	j->blocks = map(sizeof(*j->blocks) * JIT_MAX_BLOCKS * REGIONS_MOST);
	for (u32 k = 0; j->blocks && k < REGIONS_MOST; k++)
		j->regions[k].blocks = j->blocks + k * JIT_MAX_BLOCKS;
	j->xlate = map(sizeof(*j->xlate));
	if (!j->no_jcache || !j->blocks || !j->xlate)
		return err_set(err, -ENOMEM, "no memory for the translator");
	glue_make(j);
	jit_flush(s);
	return 0;
}

int jit_vm_init(struct soft_vm *s, struct err *err)
{
	return s->vm->engine_conf.translate ? make_jit(s, err) : 0;
}

void jit_vm_fini(struct soft_vm *s)
{
	struct jit *j = s->jit;

	if (!j)
		return;
	if (j->map)
		fclose(j->map);
	munmap(j->rw, JIT_CODE_SIZE);
	munmap((void *)(uintptr_t)j->rx, JIT_CODE_SIZE + JIT_DATA_SIZE);
	if (j->no_jcache)
		munmap(j->no_jcache, sizeof(*j->no_jcache) << JCACHE_BITS);
	if (j->blocks)
		munmap(j->blocks, sizeof(*j->blocks) * JIT_MAX_BLOCKS * REGIONS_MOST);
	if (j->xlate)
		munmap(j->xlate, sizeof(*j->xlate));
	free(j);
	s->jit = NULL;
}

/* With room below that cannot be touched: more calls than the stack has room for start it anew (thunk_host.c). */
static bool map_stack(struct soft_cpu *c)
{
	u8 *p = map(JIT_STACK_SIZE + JIT_GUARD_SIZE);

	if (!p)
		return false;
	mprotect(p, JIT_GUARD_SIZE, PROT_NONE);
	c->jit_cpu->stack = p;
	c->jit_stack = (u64)(uintptr_t)p + JIT_GUARD_SIZE + JIT_STACK_SIZE - 64;
	*(u64 *)(uintptr_t)c->jit_stack = (u64)(uintptr_t)c->jit->ret_top;
	return true;
}

int jit_init(struct soft_cpu *c, struct err *err)
{
	struct jit_cpu *own;

	c->self = c;
	c->armed_tsc = ~0ull;
	soft_let_go(c);
	c->jit = c->svm->jit;
	if (!c->jit)
		return 0;
	own = c->jit_cpu = calloc(1, sizeof(*own));
	if (!own)
		return err_set(err, -ENOMEM, "no memory for the translator");
	own->jcache = map(sizeof(*own->jcache) << JCACHE_BITS);
	c->jit_insn = calloc(2, sizeof(*c->jit_insn));
	if (!own->jcache || !c->jit_insn)
		return err_set(err, -ENOMEM, "no memory for the translator");
	c->jit_insn[1].fn = jit_op_stepped;
	c->jit_full = own->jcache;
	c->jit_empty = c->jit->no_jcache;
	soft_let_go(c);
	if (!map_stack(c))
		return err_set(err, -ENOMEM, "no memory for the stack of translated code");
	jit_forget(c);
	return c->jit->lockstep ? lockstep_init(c, err) : 0;
}

void jit_fini(struct soft_cpu *c)
{
	struct jit_cpu *own = c->jit_cpu;

	if (!own)
		return;
	if (own->has_timer)
		timer_delete(own->timer);
	if (own->jcache)
		munmap(own->jcache, sizeof(*own->jcache) << JCACHE_BITS);
	if (own->stack)
		munmap(own->stack, JIT_STACK_SIZE + JIT_GUARD_SIZE);
	lockstep_fini(c);
	free(c->jit_insn);
	free(own);
	c->jit_cpu = NULL;
	c->jit = NULL;
}

/* --- names for perf --- */
void jit_host_map(struct jit *j, const struct xblock *x, gva_t rip)
{
	if (!j->map) {
		char path[64];

		snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
		j->map = fopen(path, "ae");
		if (!j->map) {
			j->perf_map = false;
			return;
		}
		setlinebuf(j->map);
	}
	fprintf(j->map, "%llx %llx guest_%llx\n", (unsigned long long)(uintptr_t)x->code,
		(unsigned long long)(x->code_end - x->code), (unsigned long long)rip);
}

/* --- the timer --- */
void jit_host_thread(struct soft_cpu *c)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, JIT_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (c->jit && c->jit_cpu->has_timer) { /* of an earlier thread */
		timer_delete(c->jit_cpu->timer);
		c->jit_cpu->has_timer = false;
	}
	c->armed_tsc = ~0ull;
}

void jit_host_arm(struct soft_cpu *c)
{
	struct jit_cpu *j = c->jit_cpu;
	u64 deadline = c->vcpu->timer_tsc, now = vcpu_rdtsc(), ticks = deadline > now ? deadline - now : 0,
	    ns;
	struct itimerspec its = { 0 };

	c->armed_tsc = deadline;
	if (!j->has_timer) {
		struct sigevent sev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = JIT_SIGNAL };

		sev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
		if (timer_create(CLOCK_MONOTONIC, &sev, &j->timer) < 0)
			return; /* then deadlines wait for the loop to come round */
		j->has_timer = true;
	}
	ns = (u64)((unsigned __int128)ticks * 1000000 / c->vcpu->vm->tsc_khz) + 1;
	its.it_value.tv_sec = (time_t)(ns / 1000000000);
	its.it_value.tv_nsec = (long)(ns % 1000000000);
	timer_settime(j->timer, 0, &its, NULL);
}
