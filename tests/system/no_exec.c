/* Runs its arguments in a process that may not make memory executable that was not so from the beginning [PR_SET_MDWE
 * of prctl(2)], as a hardened host has it. Status 77 where this kernel does not know that. */
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif
#define REFUSE_EXEC_GAIN 1ul

int main(int argc, char **argv)
{
	if (argc < 2)
		return 1;
	if (prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0ul, 0ul, 0ul) < 0) {
		perror("no_exec: skipped: this kernel cannot refuse executable memory");
		return 77;
	}
	execv(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}
