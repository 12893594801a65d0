/* The program of the containers in these tests. Each argument is a question or an act, "word" or "word:what"; each answer
 * is a line "word:what=answer". An act that fails answers with the name of the errno.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *outcome(long rc)
{
	return rc < 0 ? strerrorname_np(errno) : "ok";
}

static void list(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	if (!d)
		printf("%s", outcome(-1));
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			printf("%s ", e->d_name);
	if (d)
		closedir(d);
}

/* Descriptors above standard error, and where they lead. */
static void fds(void)
{
	for (int fd = 3; fd < 1024; fd++) {
		char path[64], to[256];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (fcntl(fd, F_GETFD) < 0)
			continue;
		n = readlink(path, to, sizeof(to) - 1);
		printf("%d->%.*s ", fd, n < 0 ? 1 : (int)n, n < 0 ? "?" : to);
	}
}

static void read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	char buf[65536];
	ssize_t n, all = 0;

	if (fd < 0) {
		printf("%s", outcome(-1));
		return;
	}
	while (all < (ssize_t)sizeof(buf) && (n = read(fd, buf + all, sizeof(buf) - (size_t)all)) > 0)
		all += n;
	close(fd);
	for (ssize_t i = 0; i < all; i++)
		putchar(buf[i] == '\n' ? '|' : buf[i] ? buf[i] : ' ');
}

static void write_file(char *what)
{
	char *text = strchr(what, '@');
	int fd;

	if (text)
		*text++ = 0;
	fd = open(what, O_WRONLY | O_CREAT, 0644);
	printf("%s", outcome(fd < 0 ? fd : write(fd, text ? text : "x", strlen(text ? text : "x"))));
	if (fd >= 0)
		close(fd);
}

static void show_stat(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		printf("%s", outcome(-1));
	else
		printf("%o %u:%u %u:%u", st.st_mode, st.st_uid, st.st_gid, major(st.st_rdev),
		       minor(st.st_rdev));
}

static void status_line(const char *name)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			printf("%.*s", (int)strcspn(line + strlen(name) + 2, "\n"), line + strlen(name) + 2);
	if (f)
		fclose(f);
}

static void rlimit(int what)
{
	struct rlimit r;

	getrlimit((enum __rlimit_resource)what, &r);
	printf("%llu %llu", (unsigned long long)r.rlim_cur, (unsigned long long)r.rlim_max);
}

static void spin(void)
{
	for (;;)
		;
}

static void eat(const char *mib)
{
	size_t size = (size_t)atoi(mib) << 20;
	volatile char *p = malloc(size);

	for (size_t i = 0; p && i < size; i += 4096)
		p[i] = 1;
	printf("%s", p ? "ok" : "ENOMEM");
	free((void *)p);
}

/* As many processes as the limit lets it have, up to n. */
static void forks(int n)
{
	int made = 0;

	for (; made < n; made++) {
		pid_t pid = fork();

		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
	}
	printf("%d", made);
}

/* In a child that a filter may kill. */
static void try_syscall(long number)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		long rc = syscall(number, -1, -1, -1, -1, -1, -1);

		_exit(rc < 0 ? errno : 0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("signal %d", WTERMSIG(status));
	else
		printf("%s", WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "ok");
}

static void time_of(const char *clock)
{
	struct timespec ts;

	clock_gettime(!strcmp(clock, "boottime") ? CLOCK_BOOTTIME : CLOCK_MONOTONIC, &ts);
	printf("%lld", (long long)ts.tv_sec);
}

/* For ever: the number that is in memory goes into a file. */
static void count(const char *path)
{
	for (unsigned n = 1;; n++) {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

		dprintf(fd, "%u\n", n);
		close(fd);
		usleep(20000);
	}
}

static const char *read_line(char *text, size_t size)
{
	ssize_t n = read(0, text, size - 1);

	text[n < 0 ? 0 : n] = 0;
	return text;
}

static void show_link(const char *path)
{
	char text[4096];
	ssize_t n = readlink(path, text, sizeof(text));

	printf("%.*s", n < 0 ? 0 : (int)n, text);
}

static void answer(char *word, char *what)
{
	char text[4096];

	if (!strcmp(word, "ids"))
		printf("%u:%u %u:%u", getuid(), getgid(), geteuid(), getegid());
	else if (!strcmp(word, "pid"))
		printf("%d", (int)getpid());
	else if (!strcmp(word, "session"))
		printf("%d", (int)getsid(0));
	else if (!strcmp(word, "cwd"))
		printf("%s", getcwd(text, sizeof(text)) ? text : outcome(-1));
	else if (!strcmp(word, "umask"))
		printf("%o", umask(022));
	else if (!strcmp(word, "host"))
		printf("%s", gethostname(text, sizeof(text)) ? outcome(-1) : text);
	else if (!strcmp(word, "domain"))
		printf("%s", getdomainname(text, sizeof(text)) ? outcome(-1) : text);
	else if (!strcmp(word, "env"))
		printf("%s", getenv(what) ? getenv(what) : "(none)");
	else if (!strcmp(word, "status"))
		status_line(what);
	else if (!strcmp(word, "fds"))
		fds();
	else if (!strcmp(word, "list"))
		list(what);
	else if (!strcmp(word, "read"))
		read_file(what);
	else if (!strcmp(word, "write"))
		write_file(what);
	else if (!strcmp(word, "stat"))
		show_stat(what);
	else if (!strcmp(word, "link"))
		show_link(what);
	else if (!strcmp(word, "rlimit"))
		rlimit(atoi(what));
	else if (!strcmp(word, "mknod"))
		printf("%s", outcome(mknod("/tmp/node", S_IFBLK | 0600, makedev(254, 0))));
	else if (!strcmp(word, "openrw"))
		printf("%s", outcome(open(what, O_RDWR | O_NONBLOCK)));
	else if (!strcmp(word, "mount"))
		printf("%s", outcome(mount("none", what, "tmpfs", 0, "")));
	else if (!strcmp(word, "personality"))
		printf("%d", personality(0xffffffff));
	else if (!strcmp(word, "scheduler"))
		printf("%d %d", sched_getscheduler(0), getpriority(PRIO_PROCESS, 0));
	else if (!strcmp(word, "ioprio"))
		printf("%ld", syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
	else if (!strcmp(word, "clock"))
		time_of(what);
	else if (!strcmp(word, "tty"))
		printf("%d %d %d %s", isatty(0), isatty(1), isatty(2), ttyname(0) ? ttyname(0) : "?");
	else if (!strcmp(word, "type"))
		printf("%s", outcome(ioctl(atoi(what), TIOCSTI, "x")));
	else if (!strcmp(word, "steal"))
		printf("%s", outcome(ioctl(atoi(what), TIOCSCTTY, 1)));
	else if (!strcmp(word, "line"))
		printf("%.*s", (int)strcspn(read_line(text, sizeof(text)), "\n"), text);
	else if (!strcmp(word, "syscall"))
		try_syscall(atol(what));
	else if (!strcmp(word, "socket"))
		printf("%s", outcome(socket(atoi(what), SOCK_STREAM, 0)));
	else if (!strcmp(word, "forks"))
		forks(atoi(what));
	else if (!strcmp(word, "eat"))
		eat(what);
	else if (!strcmp(word, "sethost"))
		printf("%s", outcome(sethostname(what, strlen(what))));
	else if (!strcmp(word, "exit"))
		exit(atoi(what));
	else if (!strcmp(word, "trap"))
		__builtin_trap();
	else if (!strcmp(word, "sleep"))
		sleep((unsigned)atoi(what));
	else if (!strcmp(word, "count"))
		count(what);
	else if (!strcmp(word, "spin"))
		spin();
	else if (!strcmp(word, "ignore"))
		signal(atoi(what), SIG_IGN);
	else
		printf("(unknown)");
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *what = strchr(argv[i], ':');

		printf("%s=", argv[i]);
		fflush(stdout);
		if (what)
			*what++ = 0;
		answer(argv[i], what ? what : argv[i]);
		putchar('\n');
		fflush(stdout);
	}
	return 0;
}
