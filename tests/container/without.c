/* without NAME[,NAME...] PROGRAM [ARGUMENT...]: runs a program for which these system calls do not exist: they fail with ENOSYS,
 * as on an older kernel. By a filter, which its children inherit.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	int number;
} calls[] = {
	{ "openat2", SYS_openat2 },
	{ "fsopen", SYS_fsopen },
	{ "open_tree", SYS_open_tree },
	{ "move_mount", SYS_move_mount },
	{ "mount_setattr", SYS_mount_setattr },
	{ "pidfd_open", SYS_pidfd_open },
	{ "fsconfig", SYS_fsconfig },
	{ "fsmount", SYS_fsmount },
	{ "close_range", SYS_close_range },
	{ "pidfd_send_signal", SYS_pidfd_send_signal },
	{ "faccessat2", SYS_faccessat2 },
	{ "clone3", SYS_clone3 },
};

int main(int argc, char **argv)
{
	struct sock_filter code[40] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr)) };
	struct sock_fprog program = { .len = 1, .filter = code };

	if (argc < 3)
		return 2;
	for (char *save = NULL, *w = strtok_r(argv[1], ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		unsigned i = 0;

		while (i < sizeof(calls) / sizeof(calls[0]) && strcmp(calls[i].name, w) != 0)
			i++;
		if (i == sizeof(calls) / sizeof(calls[0]) || program.len > 32)
			return 2;
		code[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
								   (unsigned)calls[i].number, 0, 1);
		code[program.len++] =
			(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	}
	code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	/* With CAP_SYS_ADMIN it needs no no_new_privs, which would show. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		perror("seccomp");
		return 77;
	}
	execv(argv[2], argv + 2);
	return 127;
}
