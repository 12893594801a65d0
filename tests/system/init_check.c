/* Process 1 of the system test's guest: runs every check, prints a line for each and a verdict, powers off.
 *
 * It is statically linked and is all there is in the initramfs. Each check runs in a child of its own with a
 * time limit, so that one that crashes or hangs is a failed check and not a guest without a verdict. Started
 * as an ordinary process it does the same but for mounting and powering off, so the checks
 * themselves can be tested on any Linux: the exit status is then 0 when all passed.
 *
 *   init_check          run all
 *   init_check NAME...  run these
 *   init_check --list   print the lines that a good run prints
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define TIME_LIMIT 120 /* seconds for one check */

static int report_fd = -1; /* where a failing child says why */

_Noreturn void check_fail(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	const char *slash = strrchr(file, '/');
	int n = snprintf(text, sizeof(text), "%s:%d: ", slash ? slash + 1 : file, line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	if (write(report_fd, text, strlen(text)) < 0)
		_exit(2);
	_exit(1);
}

/* Runs one check; returns whether it passed and, where not, why. */
static bool run_one(const struct check *check, char *why, size_t why_len)
{
	int report[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC)) {
		snprintf(why, why_len, "pipe: %s", strerror(errno));
		return false;
	}
	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		snprintf(why, why_len, "fork: %s", strerror(errno));
		return false;
	}
	if (!pid) {
		report_fd = report[1];
		setpgid(0, 0);
		alarm(TIME_LIMIT);
		check->run();
		_exit(0);
	}
	close(report[1]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL); /* what the check left behind */
	n = read(report[0], why, why_len - 1);
	why[n > 0 ? n : 0] = '\0';
	close(report[0]);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		snprintf(why, why_len, "took more than %d s", TIME_LIMIT);
	else if (WIFSIGNALED(status))
		snprintf(why, why_len, "killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) && n <= 0)
		snprintf(why, why_len, "exit status %d", WEXITSTATUS(status));
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static bool selected(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], name))
			return true;
	}
	return argc < 2;
}

static void mount_all(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/tmp", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("tmp", "/tmp", "tmpfs", 0, NULL);
	/* The kernel had no /dev/console to give to its first process. */
	int fd = open("/dev/console", O_RDWR);

	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		if (fd > 2)
			close(fd);
	}
}

int main(int argc, char **argv)
{
	static const struct check *const tables[] = { check_os_table, check_cpu_table, check_avx512_table };
	bool init = getpid() == 1;
	bool list = argc == 2 && !strcmp(argv[1], "--list");
	unsigned nr = 0, bad = 0;

	/* The fork and exec check starts this program again. */
	if (argc == 3 && !strcmp(argv[1], "--exit"))
		return atoi(argv[2]);
	if (init) {
		mount_all();
		argc = 1; /* words of the kernel's command line */
		printf("init_check: started\n");
	}
	for (unsigned t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (const struct check *c = tables[t]; c->name; c++) {
			char why[512] = "";
			bool good;

			if (!list && !selected(c->name, argc, argv))
				continue;
			nr++;
			if (!list && c->usable && !c->usable()) {
				printf("check %-16s not offered by this CPU\n", c->name);
				continue;
			}
			good = list || run_one(c, why, sizeof(why));
			printf("check %-16s %s%s\n", c->name, good ? "ok" : "FAIL: ", good ? "" : why);
			fflush(stdout);
			bad += !good;
		}
	}
	if (bad)
		printf("verdict: %u of %u checks failed\n", bad, nr);
	else
		printf("verdict: all %u checks passed\n", nr);
	fflush(stdout);
	if (init) {
		sync();
		reboot(RB_POWER_OFF);
		for (;;)
			pause();
	}
	return bad ? 1 : 0;
}
