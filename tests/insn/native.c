/* The test's side of the child that runs cases on the host CPU (native_child.c). */
#include "native.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct native_shared *shared;
static pid_t child = -1;

/* The child's program lies beside this one. */
static void run_child(int fd)
{
	char path[PATH_MAX + 16], number[16];
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
	char *slash;

	if (n > 0) {
		path[n] = 0;
		slash = strrchr(path, '/');
		strcpy(slash + 1, "insn_native");
		snprintf(number, sizeof(number), "%d", fd);
		execl(path, "insn_native", number, (char *)NULL);
		fprintf(stderr, "insn: cannot run %s: %s\n", path, strerror(errno));
	}
	_exit(1);
}

struct insn_case *native_start(unsigned patience_ms)
{
	int fd = memfd_create("insn-cases", 0);
	u8 *p = fd < 0 || ftruncate(fd, NATIVE_SIZE) < 0
			? MAP_FAILED
			: mmap(NULL, NATIVE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror("insn: memory for the cases");
		exit(1);
	}
	shared = (struct native_shared *)p;
	shared->patience = patience_ms * 1000 / NATIVE_TICK_US;
	fflush(NULL);
	child = fork();
	if (child < 0) {
		perror("insn: fork");
		exit(1);
	}
	if (child == 0)
		run_child(fd);
	close(fd);
	return (struct insn_case *)(p + NATIVE_CASES);
}

int native_run(unsigned n)
{
	u32 batch = atomic_load(&shared->go) + 1;
	shared->n = n;
	atomic_store(&shared->go, batch);
	native_wake(&shared->go);
	for (unsigned waited = 0; atomic_load(&shared->done) != batch; waited++) {
		int status;
		native_wait(&shared->done, batch - 1, 100);
		if (waitpid(child, &status, WNOHANG) == child) {
			fprintf(stderr,
				"insn: the child that runs code on the host ended (signal %d) in case %u\n",
				WIFSIGNALED(status) ? WTERMSIG(status) : 0, atomic_load(&shared->at));
			child = -1;
			return (int)atomic_load(&shared->at);
		}
		if (waited > 200) {
			fprintf(stderr, "insn: the code of case %u does not end on the host\n",
				atomic_load(&shared->at));
			return (int)atomic_load(&shared->at);
		}
	}
	return -1;
}

void native_stop(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = -1;
	munmap(shared, NATIVE_SIZE);
}
