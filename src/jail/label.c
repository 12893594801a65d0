/* A label is written into a file of /proc/self/attr and holds for the next program. What says whether a module is there is looked
 * at each time: a label that would not be in force must not be taken for one that is.
 */
#include "jail/label.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/types.h"

bool label_has_selinux(void)
{
	struct statfs fs;

	return !statfs("/sys/fs/selinux", &fs) && fs.f_type == SELINUX_MAGIC;
}

static bool has_apparmor(void)
{
	int fd = open("/sys/module/apparmor/parameters/enabled", O_RDONLY | O_CLOEXEC);
	char enabled = 'N';

	if (fd >= 0 && read(fd, &enabled, 1) != 1)
		enabled = 'N';
	if (fd >= 0)
		close(fd);
	return enabled == 'Y';
}

static bool wants_apparmor(const struct label *l)
{
	return l->apparmor && *l->apparmor && strcmp(l->apparmor, "unconfined") != 0;
}

static bool wants_selinux(const struct label *l)
{
	return l->selinux && *l->selinux;
}

int label_check(const struct label *l, struct err *err)
{
	bool apparmor = wants_apparmor(l), selinux = wants_selinux(l);

	if (apparmor && !has_apparmor())
		return err_set(
			err, -ENOTSUP,
			"process.apparmorProfile: AppArmor is not enabled on this host; take '%.64s' out",
			l->apparmor);
	if (selinux && !label_has_selinux())
		return err_set(err, -ENOTSUP,
			       "process.selinuxLabel: SELinux is not enabled on this host; take '%.64s' out",
			       l->selinux);
	if (apparmor && selinux)
		return err_set(
			err, -EINVAL,
			"process.apparmorProfile, process.selinuxLabel: a program has one of them; take one out");
	return 0;
}

int label_open(struct label *l, int proc, struct err *err)
{
	static const char *const files[] = { "self/attr/apparmor/exec", "self/attr/exec" };
	bool apparmor = wants_apparmor(l);

	l->fd = -1;
	if (!apparmor && !wants_selinux(l))
		return 0;
	/* The first is AppArmor's own, where several modules are in force. */
	for (unsigned i = apparmor ? 0 : 1; i < ARRAY_SIZE(files) && l->fd < 0; i++)
		l->fd = openat(proc, files[i], O_WRONLY | O_CLOEXEC);
	return l->fd < 0 ? err_sys(err, -errno, "process.%s: cannot open '/proc/%s'",
				   apparmor ? "apparmorProfile" : "selinuxLabel", files[1])
			 : 0;
}

int label_set(struct label *l, struct err *err)
{
	bool apparmor = wants_apparmor(l);
	char text[4096];
	int n, rc = 0;

	if (l->fd < 0)
		return 0;
	n = snprintf(text, sizeof(text), "%s%s", apparmor ? "exec " : "",
		     apparmor ? l->apparmor : l->selinux);
	if (n >= (int)sizeof(text))
		rc = err_set(err, -E2BIG, "process.%s: has more than %zu bytes",
			     apparmor ? "apparmorProfile" : "selinuxLabel", sizeof(text) - 6);
	else if (write(l->fd, text, (size_t)n) != n)
		rc = err_sys(err, -errno, "process.%s: cannot set '%.64s'",
			     apparmor ? "apparmorProfile" : "selinuxLabel",
			     apparmor ? l->apparmor : l->selinux);
	close(l->fd);
	l->fd = -1;
	return rc;
}
