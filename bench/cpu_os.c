/* What a program asks of its kernel: system calls, the clock, page faults, switches between processes, new
 * processes. In a guest all of this is the guest's own kernel at work.
 */
#include "cpu.h"

#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void getppid_run(uint64_t n)
{
	while (n--)
		syscall(SYS_getppid);
}

static uint64_t getppid_check(void)
{
	return syscall(SYS_getppid) == getppid();
}

/* --- the clock, without a system call --- */

static int (*vdso_clock_gettime)(clockid_t clock, struct timespec *ret_ts);

/* How many symbols a table has that only its GNU hash table bounds: the last chain ends with the last one. */
static uint32_t vdso_count(const uint32_t *hash)
{
	uint32_t nr_buckets = hash[0], first = hash[1], bloom_words = hash[2], last = 0;
	const uint32_t *buckets = hash + 4 + bloom_words * 2, *chains = buckets + nr_buckets;

	for (uint32_t i = 0; i < nr_buckets; i++) {
		if (buckets[i] > last)
			last = buckets[i];
	}
	if (last < first)
		return first;
	while (!(chains[last - first] & 1))
		last++;
	return last + 1;
}

static const char *clock_setup(void)
{
	uintptr_t base = getauxval(AT_SYSINFO_EHDR), bias = 0;
	const ElfW(Ehdr) *header = (const void *)base;
	const ElfW(Dyn) *dyn = NULL;
	const ElfW(Sym) *syms = NULL;
	const char *strings = NULL;
	uint32_t count = 0;

	if (!base)
		return "this kernel gives no vDSO";
	for (unsigned i = 0; i < header->e_phnum; i++) {
		const ElfW(Phdr) *ph = (const void *)(base + header->e_phoff + i * header->e_phentsize);

		if (ph->p_type == PT_LOAD)
			bias = base + ph->p_offset - ph->p_vaddr;
		else if (ph->p_type == PT_DYNAMIC)
			dyn = (const void *)(base + ph->p_offset);
	}
	for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
		const void *at = (const void *)(bias + dyn->d_un.d_ptr);

		if (dyn->d_tag == DT_STRTAB)
			strings = at;
		else if (dyn->d_tag == DT_SYMTAB)
			syms = at;
		else if (dyn->d_tag == DT_HASH)
			count = ((const uint32_t *)at)[1];
		else if (dyn->d_tag == DT_GNU_HASH && !count)
			count = vdso_count(at);
	}
	for (uint32_t i = 0; syms && strings && i < count; i++) {
		if (syms[i].st_shndx != SHN_UNDEF &&
		    !strcmp(strings + syms[i].st_name, "__vdso_clock_gettime")) {
			vdso_clock_gettime = (int (*)(clockid_t, struct timespec *))(bias + syms[i].st_value);
			return NULL;
		}
	}
	return "the vDSO has no clock_gettime";
}

static void clock_run(uint64_t n)
{
	struct timespec ts;

	while (n--)
		vdso_clock_gettime(CLOCK_MONOTONIC, &ts);
}

/* The vDSO's clock lies between two readings of the kernel's. */
static uint64_t clock_check(void)
{
	struct timespec ts[3];
	int64_t ns[3];

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts[0]);
	vdso_clock_gettime(CLOCK_MONOTONIC, &ts[1]);
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts[2]);
	for (unsigned i = 0; i < 3; i++)
		ns[i] = (int64_t)ts[i].tv_sec * 1000000000 + ts[i].tv_nsec;
	return ns[0] <= ns[1] && ns[1] <= ns[2];
}

/* --- memory --- */

#define FAULT_PAGES 1024
#define PAGE        4096

/* Making and dropping the mapping is in the figure: a page fault brings a page that is later freed. */
static uint64_t fault_once(void)
{
	uint64_t len = (uint64_t)FAULT_PAGES * PAGE, sum = 0;
	volatile uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		cpu_die("memory for page faults");
	madvise((void *)p, len, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < FAULT_PAGES; i++) {
		p[(uint64_t)i * PAGE] = (uint8_t)i;
		sum += p[(uint64_t)i * PAGE];
	}
	munmap((void *)p, len);
	return sum;
}

static void fault_run(uint64_t n)
{
	while (n--)
		fault_once();
}

/* --- processes --- */

static int to_child[2], to_parent[2];
static pid_t pipe_child;

static const char *pipe_setup(void)
{
	if (pipe(to_child) || pipe(to_parent))
		cpu_die("pipe");
	pipe_child = fork();
	if (pipe_child < 0)
		cpu_die("fork");
	if (!pipe_child) {
		uint8_t c;

		close(to_child[1]);
		close(to_parent[0]);
		while (read(to_child[0], &c, 1) == 1) {
			c++;
			if (write(to_parent[1], &c, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(to_child[0]);
	close(to_parent[1]);
	return NULL;
}

static uint64_t pipe_once(uint8_t c)
{
	if (write(to_child[1], &c, 1) != 1 || read(to_parent[0], &c, 1) != 1)
		cpu_die("the other end of the pipe");
	return c;
}

static void pipe_run(uint64_t n)
{
	while (n--)
		pipe_once(0);
}

static uint64_t pipe_check(void)
{
	return pipe_once(41);
}

static void pipe_teardown(void)
{
	close(to_child[1]);
	close(to_parent[0]);
	waitpid(pipe_child, NULL, 0);
}

/* The child's wait status. PROGRAM: what it executes, NULL: it ends at once. */
static uint64_t fork_once(const char *program)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		char *argv[] = { (char *)"cpu", (char *)"exit", NULL }, *envp[] = { NULL };

		if (!program)
			_exit(3);
		execve(program, argv, envp);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		cpu_die("fork");
	return (uint64_t)status;
}

static void fork_run(uint64_t n)
{
	while (n--)
		fork_once(NULL);
}

static uint64_t fork_check(void)
{
	return fork_once(NULL);
}

static const char *own_path(void)
{
	return (const char *)getauxval(AT_EXECFN);
}

static void exec_run(uint64_t n)
{
	while (n--)
		fork_once(own_path());
}

static uint64_t exec_check(void)
{
	return fork_once(own_path());
}

const struct cpu_test cpu_os_tests[] = {
	{ .name = "getppid",
	  .group = "kernel",
	  .label = "getppid",
	  .ops = 1,
	  .check = getppid_check,
	  .run = getppid_run },
	{ .name = "clock",
	  .group = "kernel",
	  .label = "clock_gettime by the vDSO",
	  .ops = 1,
	  .setup = clock_setup,
	  .check = clock_check,
	  .run = clock_run },
	{ .name = "fault",
	  .group = "kernel",
	  .label = "anonymous page fault",
	  .ops = FAULT_PAGES,
	  .check = fault_once,
	  .run = fault_run },
	{ .name = "pipe",
	  .group = "kernel",
	  .label = "pipe, there and back",
	  .ops = 1,
	  .setup = pipe_setup,
	  .check = pipe_check,
	  .run = pipe_run,
	  .teardown = pipe_teardown },
	{ .name = "fork",
	  .group = "kernel",
	  .label = "fork, exit, wait",
	  .ops = 1,
	  .check = fork_check,
	  .run = fork_run },
	{ .name = "exec",
	  .group = "kernel",
	  .label = "fork, exec, exit, wait",
	  .ops = 1,
	  .check = exec_check,
	  .run = exec_run },
	{ .name = NULL },
};
