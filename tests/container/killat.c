/* killat N PROGRAM [ARGUMENT...]: runs a program and kills it with SIGKILL at its Nth entry into the kernel, counted from its
 * start and across execve(). Its children are left alone. Prints "killed" or "ended STATUS".
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long n = argc > 2 ? atol(argv[1]) : 0;
	bool entering = true;
	int status;
	pid_t pid;

	if (argc < 3)
		return 2;
	pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execv(argv[2], argv + 2);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	for (int pass = 0;; pass = 0) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)pass) < 0)
			break;
		if (waitpid(pid, &status, 0) != pid || WIFEXITED(status) || WIFSIGNALED(status))
			break;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (entering && n-- == 0) {
				kill(pid, SIGKILL);
				waitpid(pid, &status, 0);
				puts("killed");
				return 0;
			}
			entering = !entering;
			continue;
		}
		/* A signal of its own goes on to it. */
		while (WIFSTOPPED(status) && WSTOPSIG(status) != SIGTRAP &&
		       WSTOPSIG(status) != (SIGTRAP | 0x80)) {
			if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)WSTOPSIG(status)) < 0 ||
			    waitpid(pid, &status, 0) != pid)
				break;
			if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
				entering = !entering;
				break;
			}
		}
		if (WIFEXITED(status) || WIFSIGNALED(status))
			break;
	}
	printf("ended %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
