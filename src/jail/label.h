/* Labels of security modules: AppArmor's profile and SELinux's context of a program [proc(5), Documentation/admin-guide/LSM of
 * Linux]. Any thread. */
#pragma once

#include "base/err.h"

struct label {
	const char *apparmor, *selinux; /* NULL, "" or (AppArmor) "unconfined": none */
	int fd;                         /* the attribute of the calling process; -1: none is wanted */
};

/* Whether SELinux is in force on this host. */
bool label_has_selinux(void);

/* Refuses a label whose module the host does not have, and two at once. To be asked where /sys is the host's. */
int label_check(const struct label *label, struct err *err);
/* Opens the attribute that `label` is written to. proc: the host's /proc, which is another than that of a container. */
int label_open(struct label *label, int proc, struct err *err);
/* Takes force with the next execve(2). Closes the attribute. */
int label_set(struct label *label, struct err *err);
