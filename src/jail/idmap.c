/* Id maps, by writing /proc/PID/uid_map or through newuidmap(1) [user_namespaces(7)].
 *
 * A process with CAP_SETUID over the parent namespace may write any map. Without it, it may map its own effective id
 * alone, after giving up setgroups(2) for the namespace; all else is asked of the set-user-ID helpers, which know
 * /etc/subuid. They are called with numbers as arguments, through no shell, so nothing in a configuration can become an
 * option of theirs.
 */
#include "jail/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

int idmap_check(const struct idmap *map, const char *name, struct err *err)
{
	if (map->count > IDMAP_MAX_RANGES)
		return err_set(err, -E2BIG, "%s: %u ranges; the kernel takes at most %d", name, map->count,
			       IDMAP_MAX_RANGES);
	for (unsigned i = 0; i < map->count; i++) {
		const struct idmap_range *a = &map->ranges[i];

		if (!a->count)
			return err_set(err, -EINVAL, "%s[%u].size: a range of 0 ids maps nothing", name, i);
		if (a->inside > UINT32_MAX - a->count || a->outside > UINT32_MAX - a->count)
			return err_set(err, -ERANGE, "%s[%u]: the range goes past the last id, %u", name, i,
				       UINT32_MAX - 1);
		for (unsigned k = 0; k < i; k++) {
			const struct idmap_range *b = &map->ranges[k];

			if ((a->inside < b->inside + b->count && b->inside < a->inside + a->count) ||
			    (a->outside < b->outside + b->count && b->outside < a->outside + a->count))
				return err_set(err, -EINVAL, "%s[%u] overlaps %s[%u]", name, i, name, k);
		}
	}
	return 0;
}

s64 idmap_outside(const struct idmap *map, u32 inside)
{
	for (unsigned i = 0; i < map->count; i++)
		if (inside >= map->ranges[i].inside && inside - map->ranges[i].inside < map->ranges[i].count)
			return (s64)map->ranges[i].outside + (inside - map->ranges[i].inside);
	return -1;
}

static int write_file(pid_t pid, const char *name, const char *text)
{
	char path[64];
	ssize_t n;
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* One write: the kernel takes a map only once. */
	n = write(fd, text, strlen(text));
	rc = n < 0 ? -errno : 0;
	close(fd);
	return rc;
}

static char *map_text(const struct idmap *map)
{
	char *text = malloc(map->count * 36 + 1);
	size_t n = 0;

	if (!text)
		return NULL;
	text[0] = 0;
	for (unsigned i = 0; i < map->count; i++)
		n += (size_t)sprintf(text + n, "%u %u %u\n", map->ranges[i].inside, map->ranges[i].outside,
				     map->ranges[i].count);
	return text;
}

static int run_helper(const char *helper, pid_t pid, const struct idmap *map, struct err *err)
{
	char(*numbers)[12] = calloc(map->count * 3 + 1, sizeof(*numbers));
	char **argv = calloc(map->count * 3 + 3, sizeof(*argv));
	unsigned n = 0;
	int status = 0, rc = 0;
	pid_t child;

	if (!numbers || !argv) {
		rc = err_set(err, -ENOMEM, "no memory to run %s", helper);
		goto out;
	}
	argv[n++] = (char *)helper;
	for (unsigned i = 0; i < map->count * 3 + 1; i++) {
		const struct idmap_range *r = i ? &map->ranges[(i - 1) / 3] : NULL;
		u32 parts[3] = { r ? r->inside : 0, r ? r->outside : 0, r ? r->count : 0 };

		snprintf(numbers[i], sizeof(numbers[i]), "%u", i ? parts[(i - 1) % 3] : (unsigned)pid);
		argv[n++] = numbers[i];
	}
	child = fork();
	if (child == 0) {
		execvp(helper, argv);
		_exit(127);
	}
	if (child < 0)
		rc = err_sys(err, -errno, "cannot run %s", helper);
	while (!rc && waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			rc = err_sys(err, -errno, "cannot wait for %s", helper);
	if (!rc && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		rc = err_set(err, -ENOENT,
			     "this map of ids needs %s, which is not installed (package uidmap)", helper);
	else if (!rc && status)
		rc = err_set(err, -EPERM, "%s refuses this map of ids; see /etc/subuid and /etc/subgid",
			     helper);
out:
	free(argv);
	free(numbers);
	return rc;
}

static int write_map(pid_t pid, const char *file, const char *helper, const struct idmap *map, u32 own,
		     struct err *err)
{
	char *text = map_text(map);
	int rc;

	if (!text)
		return err_set(err, -ENOMEM, "no memory for a map of ids");
	rc = write_file(pid, file, text);
	free(text);
	if (rc != -EPERM)
		return rc ? err_sys(err, rc, "cannot write %s of process %d", file, (int)pid) : 0;
	if (map->count == 1 && map->ranges[0].count == 1 && map->ranges[0].outside == own)
		return err_sys(err, rc, "cannot map one's own id");
	return run_helper(helper, pid, map, err);
}

int idmap_write(pid_t pid, const struct idmap *uids, const struct idmap *gids, struct err *err)
{
	int rc;

	/* Without privileges, one's own group can be mapped only where setgroups(2) is denied. */
	if (geteuid() != 0 && gids->count == 1 && gids->ranges[0].count == 1 &&
	    gids->ranges[0].outside == getegid()) {
		rc = write_file(pid, "setgroups", "deny");
		if (rc)
			return err_sys(err, rc, "cannot deny setgroups in a user namespace");
	}
	rc = gids->count ? write_map(pid, "gid_map", "newgidmap", gids, getegid(), err) : 0;
	if (!rc && uids->count)
		rc = write_map(pid, "uid_map", "newuidmap", uids, geteuid(), err);
	return rc;
}

int idmap_userns(const struct idmap *uids, const struct idmap *gids, int *ret_fd, struct err *err)
{
	int ready[2], rc = 0, fd = -1;
	char path[64], byte;
	pid_t child;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return err_sys(err, -errno, "cannot make a pipe");
	child = fork();
	if (child == 0) {
		byte = unshare(CLONE_NEWUSER) < 0 ? (char)errno : 0;
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	if (child < 0) {
		close(ready[0]);
		return err_sys(err, -errno, "cannot make a process");
	}
	if (read(ready[0], &byte, 1) != 1 || byte)
		rc = err_sys(err, byte ? -(u8)byte : -EIO, "cannot make a user namespace");
	close(ready[0]);
	if (!rc)
		rc = idmap_write(child, uids, gids, err);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)child);
	if (!rc && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		rc = err_sys(err, -errno, "cannot open a user namespace");
	kill(child, SIGKILL);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (!rc)
		*ret_fd = fd;
	return rc;
}
