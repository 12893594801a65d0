/* A guest's load on locks, for tests/system/smp: THREADS threads do the same for SECONDS, and count.
 *
 *	smp_load NAME THREADS SECONDS	prints "NAME rounds=N per_second=N slowest=N"; fails where a count is not what it must be
 *
 * What the rounds wait for: "dup" - a spinlock of the kernel (of the table of open files, which the threads share);
 * "futex" - a mutex, whose waiters sleep; "shoot" - the other threads' TLBs, since pages are unmapped and mapped again under them;
 * "spin" - a spinlock of the program's own, with PAUSE, by ticket: whoever holds or is next to hold the lock must run.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 256

static _Atomic int stop, ready;
static struct {
	_Alignas(64) unsigned long rounds;
	int bad;
} per_thread[MAX_THREADS];
static unsigned nr_threads;

static int dup_round(unsigned me)
{
	int fd = dup(0);

	if (fd < 0)
		return 1;
	return close(fd);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long under_mutex, under_spin; /* not atomic: the locks are what keeps them right */

static int futex_round(unsigned me)
{
	pthread_mutex_lock(&mutex);
	for (int k = 0; k < 10; k++)
		under_mutex++;
	pthread_mutex_unlock(&mutex);
	return 0;
}

static _Atomic unsigned next_ticket, serving;

static int spin_round(unsigned me)
{
	unsigned mine = atomic_fetch_add(&next_ticket, 1);

	while (atomic_load_explicit(&serving, memory_order_acquire) != mine)
		__builtin_ia32_pause();
	under_spin++;
	atomic_store_explicit(&serving, mine + 1, memory_order_release);
	return 0;
}

/* A page that was given back reads zero again: a translation that another CPU has kept would show the old number. */
static int shoot_round(unsigned me)
{
	static volatile unsigned long *page[MAX_THREADS];
	unsigned long *own, seen;
	unsigned other = (me + 1) % nr_threads;

	if (!page[me]) {
		own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (own == MAP_FAILED)
			return 1;
		page[me] = own;
	}
	*page[me] = 0x1234;
	seen = page[other] ? *page[other] : 0;
	if (seen != 0 && seen != 0x1234)
		return 1;
	if (madvise((void *)page[me], 4096, MADV_DONTNEED))
		return 1;
	return *page[me] != 0;
}

static const struct {
	const char *name;
	int (*round)(unsigned me); /* not 0: wrong */
	unsigned long *sum;
	unsigned long each;
} loads[] = {
	{ "dup", dup_round, NULL, 0 },
	{ "futex", futex_round, &under_mutex, 10 },
	{ "shoot", shoot_round, NULL, 0 },
	{ "spin", spin_round, &under_spin, 1 },
};
static int (*round_of)(unsigned me);

static void *run(void *arg)
{
	unsigned me = (unsigned)(unsigned long)arg;

	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&stop)) {
		per_thread[me].bad |= round_of(me);
		per_thread[me].rounds++;
	}
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static pthread_t thread[MAX_THREADS];
	unsigned long rounds = 0, slowest = ~0ul;
	unsigned which = 0;
	int bad = 0;
	double begin, length;

	if (argc != 4)
		return 2;
	while (which < sizeof(loads) / sizeof(loads[0]) && strcmp(loads[which].name, argv[1]))
		which++;
	nr_threads = (unsigned)atoi(argv[2]);
	if (which == sizeof(loads) / sizeof(loads[0]) || !nr_threads || nr_threads > MAX_THREADS)
		return 2;
	round_of = loads[which].round;
	begin = now();
	for (unsigned long k = 0; k < nr_threads; k++)
		if (pthread_create(&thread[k], NULL, run, (void *)k))
			return 2;
	usleep((useconds_t)(atof(argv[3]) * 1e6));
	stop = 1;
	for (unsigned k = 0; k < nr_threads; k++)
		pthread_join(thread[k], NULL);
	length = now() - begin;
	for (unsigned k = 0; k < nr_threads; k++) {
		rounds += per_thread[k].rounds;
		bad |= per_thread[k].bad;
		if (per_thread[k].rounds < slowest)
			slowest = per_thread[k].rounds;
	}
	if (loads[which].sum && *loads[which].sum != rounds * loads[which].each)
		bad = 1;
	printf("%s rounds=%lu per_second=%.0f slowest=%lu%s\n", argv[1], rounds, (double)rounds / length,
	       slowest, bad ? " WRONG" : "");
	return bad;
}
