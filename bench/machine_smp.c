/* What two processors do together: compute side by side, hand a mutex and a futex to each other, and take a page away
 * from the other one's TLB. Natively and in a guest of two processors.
 */
#include "cpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

static unsigned cpus[2]; /* the two processors that are used */
static uint64_t units;

static cpu_set_t only(unsigned which)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpus[which], &set);
	return set;
}

/* This thread is then on the first of two processors. */
static const char *two_processors(void)
{
	static cpu_set_t all;
	static bool known;
	cpu_set_t first;
	unsigned nr = 0;

	if (!known && sched_getaffinity(0, sizeof(all), &all))
		cpu_die("the processors of this thread");
	known = true;
	for (unsigned i = 0; i < CPU_SETSIZE && nr < 2; i++) {
		if (CPU_ISSET(i, &all))
			cpus[nr++] = i;
	}
	if (nr < 2)
		return "there is but one processor";
	first = only(0);
	if (sched_setaffinity(0, sizeof(first), &first))
		cpu_die("to stay on one processor");
	return NULL;
}

/* The other thread is made on the other processor: moved there by itself, it would first wait here for the end of this
 * one's time slice. */
static void with_other(void *(*other)(void *), void (*own)(void))
{
	cpu_set_t set = only(1);
	pthread_attr_t attr;
	pthread_t thread;

	if (pthread_attr_init(&attr) || pthread_attr_setaffinity_np(&attr, sizeof(set), &set) ||
	    pthread_create(&thread, &attr, other, NULL))
		cpu_die("thread");
	pthread_attr_destroy(&attr);
	own();
	pthread_join(thread, NULL);
}

/* --- computing --- */

#define WORDS 8192    /* 64 KiB: the second level of caches has both */
#define STEPS 1000000 /* of one unit: much longer than it takes to make a thread */

/* Numbers in a table, each step where the last one leads: arithmetic, loads, stores, branches. */
static uint64_t compute(uint64_t n)
{
	static _Thread_local uint64_t table[WORDS];
	uint64_t x = 88172645463325252, sum = 0;

	for (unsigned i = 0; i < WORDS; i++)
		table[i] = i;
	while (n--) {
		for (unsigned i = 0; i < STEPS; i++) {
			uint64_t at = cpu_random(&x) % WORDS;

			if (table[at] & 1)
				table[at] = table[at] * 5 + x;
			else
				table[at] ^= x >> 7;
			sum += table[at];
		}
	}
	return sum;
}

static uint64_t compute_check(void)
{
	return compute(1);
}

static void compute_own(void)
{
	cpu_sink = compute(units);
}

static void *compute_other(void *arg)
{
	return (void *)compute(units);
}

static void compute_one_run(uint64_t n)
{
	units = n;
	compute_own();
}

static void compute_two_run(uint64_t n)
{
	units = n;
	with_other(compute_other, compute_own);
}

/* --- a mutex --- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t counter;

static void mutex_own(void)
{
	for (uint64_t i = 0; i < units; i++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
	}
}

static void *mutex_other(void *arg)
{
	mutex_own();
	return NULL;
}

static void mutex_run(uint64_t n)
{
	units = n;
	counter = 0;
	with_other(mutex_other, mutex_own);
	if (counter != 2 * n) {
		errno = EILSEQ;
		cpu_die("the mutex lets two in at a time");
	}
}

static uint64_t mutex_check(void)
{
	mutex_run(1000);
	return counter;
}

/* --- a futex --- */

static _Atomic uint32_t turn;

static void wait_for(uint32_t whose)
{
	uint32_t is;

	while ((is = atomic_load(&turn)) != whose)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, is, NULL, NULL, 0);
}

static void hand_to(uint32_t whom)
{
	atomic_store(&turn, whom);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void futex_own(void)
{
	for (uint64_t i = 0; i < units; i++) {
		wait_for(0);
		hand_to(1);
	}
	wait_for(0);
}

static void *futex_other(void *arg)
{
	for (uint64_t i = 0; i < units; i++) {
		wait_for(1);
		hand_to(0);
	}
	return NULL;
}

static void futex_run(uint64_t n)
{
	units = n;
	with_other(futex_other, futex_own);
}

static uint64_t futex_check(void)
{
	futex_run(100);
	return atomic_load(&turn);
}

/* --- a page that the other processor has in its TLB --- */

static volatile uint32_t *page;
static _Atomic bool stop;

static const char *mprotect_setup(void)
{
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		cpu_die("memory");
	*page = 1;
	return two_processors();
}

static void mprotect_own(void)
{
	for (uint64_t i = 0; i < units; i++) {
		/* Taking the right to write away needs the other's TLB flushed, giving it does not. */
		if (mprotect((void *)page, PAGE, PROT_READ) ||
		    mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE))
			cpu_die("mprotect");
		++*page;
	}
	atomic_store(&stop, true);
}

static void *mprotect_other(void *arg)
{
	uint32_t sum = 0;

	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		sum += *page;
	cpu_sink = sum;
	return NULL;
}

static void mprotect_run(uint64_t n)
{
	units = n;
	atomic_store(&stop, false);
	with_other(mprotect_other, mprotect_own);
}

static uint64_t mprotect_check(void)
{
	*page = 0;
	mprotect_run(100);
	return *page;
}

static void mprotect_teardown(void)
{
	munmap((void *)page, PAGE);
}

static const struct cpu_test tests[] = {
	{ .name = "compute-1",
	  .group = "smp",
	  .label = "computing on one processor",
	  .ops = STEPS,
	  .setup = two_processors,
	  .check = compute_check,
	  .run = compute_one_run },
	{ .name = "compute-2",
	  .group = "smp",
	  .label = "computing on two",
	  .ops = 2 * STEPS,
	  .setup = two_processors,
	  .check = compute_check,
	  .run = compute_two_run },
	{ .name = "mutex",
	  .group = "smp",
	  .label = "a mutex that two threads want",
	  .ops = 2,
	  .setup = two_processors,
	  .check = mutex_check,
	  .run = mutex_run },
	{ .name = "futex",
	  .group = "smp",
	  .label = "a futex, there and back",
	  .ops = 1,
	  .setup = two_processors,
	  .check = futex_check,
	  .run = futex_run },
	{ .name = "mprotect",
	  .group = "smp",
	  .label = "mprotect with a shoot-down",
	  .ops = 1,
	  .setup = mprotect_setup,
	  .check = mprotect_check,
	  .run = mprotect_run,
	  .teardown = mprotect_teardown },
	{ .name = NULL },
};

const struct cpu_test *const cpu_tables[] = { tests, NULL };
const bool cpu_only_one = false;
