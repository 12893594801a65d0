/* Which process is a container's: no other one that gets its pid, however soon [O32]. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci/status.h"

#define SECOND 1000000000ull

/* A process that waits to be killed; pid 0: any. -errno where the pid cannot be had. */
static pid_t make(pid_t pid)
{
	struct clone_args a = {
		.exit_signal = SIGCHLD,
		.set_tid = pid ? (u64)(uintptr_t)&pid : 0,
		.set_tid_size = pid ? 1 : 0,
	};
	pid_t made = (pid_t)syscall(SYS_clone3, &a, sizeof(a));

	if (made == 0) {
		for (;;)
			pause();
	}
	return made < 0 ? -errno : made;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_alive_zombie_gone(void **state)
{
	struct status s = { .id = "x" };
	pid_t pid = make(0);
	siginfo_t info;
	int fd;

	assert_true(pid > 0);
	assert_int_equal(status_pidfd(&s, &fd, NULL), -ESRCH);
	status_remember(&s, pid);
	assert_true(s.pid == pid && s.pid_start && strlen(s.boot) == 36);
	assert_int_equal(status_pidfd(&s, &fd, NULL), 0);
	assert_int_equal(status_wait(fd, SECOND / 100), -ETIMEDOUT);
	kill(pid, SIGKILL);
	assert_int_equal(status_wait(fd, 10 * SECOND), 0);
	close(fd);
	/* A zombie has ended. */
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(status_pidfd(&s, &fd, NULL), -ESRCH);
	end(pid);
	assert_int_equal(status_pidfd(&s, &fd, NULL), -ESRCH);
}

static void test_another_boot(void **state)
{
	struct status s = { .id = "x" };
	pid_t pid = make(0);
	int fd;

	status_remember(&s, pid);
	s.boot[0] = s.boot[0] == '0' ? '1' : '0';
	assert_int_equal(status_pidfd(&s, &fd, NULL), -ESRCH);
	end(pid);
}

/* Processes made one after the other with the same pid, most of them in the same hundredth of a second. */
static void test_pid_used_again_at_once(void **state)
{
	unsigned same = 0;

	for (int i = 0; i < 200; i++) {
		struct status first = { .id = "x" }, second = { .id = "x" };
		pid_t pid = make(0), again;
		int fd;

		assert_true(pid > 0);
		status_remember(&first, pid);
		end(pid);
		again = make(pid);
		/* Somebody else may be faster. */
		if (again == -EEXIST)
			continue;
		if (again < 0) {
			print_message("skipped: this process may not choose pids: %s\n", strerror(-again));
			skip();
		}
		assert_int_equal(again, pid);
		status_remember(&second, again);
		if (!second.pid_inode) {
			end(again);
			print_message("skipped: Linux 6.9 or later is needed\n");
			skip();
		}
		same += first.pid_start == second.pid_start;
		if (!status_pidfd(&first, &fd, NULL)) {
			end(again);
			fail_msg("another process with the pid %d is taken for the first", (int)pid);
		}
		assert_int_equal(status_pidfd(&second, &fd, NULL), 0);
		close(fd);
		end(again);
	}
	/* Otherwise the times would have told them apart. */
	assert_true(same > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alive_zombie_gone),
		cmocka_unit_test(test_another_boot),
		cmocka_unit_test(test_pid_used_again_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
