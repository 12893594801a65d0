/* peak PROGRAM [ARGUMENT...]: runs a program with its standard input and output at /dev/null and prints the most memory that it
 * had resident, in KiB. The kernel counts that of a program's parent at fork(2) as the program's, so the parent must be small.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage use;
	int status;
	pid_t pid;

	if (argc < 2)
		return 2;
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		if (null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1)
			execv(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &use) != pid)
		return 1;
	printf("%ld\n", use.ru_maxrss);
	return status ? 1 : 0;
}
