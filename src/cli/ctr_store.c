/* The folders of containers for people.
 *
 * A container is in one of two hands: the supervisor's, who has made it and holds a lock on its folder until it has ended
 * and everything of it is gone, or nobody's. What a supervisor that was killed has left is seen by the lock, and removed by
 * `rm`: the runtime's own state says what there is.
 */
#include "cli/ctr_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"

static int usual_folder(char *out, size_t size, struct err *err)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = snprintf(out, size, "/var/lib/bothy/containers");
	else if (data && data[0] == '/')
		n = snprintf(out, size, "%s/bothy/containers", data);
	else if (home && home[0] == '/')
		n = snprintf(out, size, "%s/.local/share/bothy/containers", home);
	else
		return err_set(err, -ENOENT, "HOME is not set; give --folder, where containers are kept");
	return n < (int)size ? 0 : err_set(err, -ENAMETOOLONG, "HOME is too long");
}

int ctr_store_open(const char *folder, struct ctr_store *ret_store, struct err *err)
{
	struct ctr_store s = { .dir = -1, .state = -1 };
	char usual[sizeof(s.path)], *full = NULL;
	const char *path = folder ? folder : usual;
	int rc = folder ? 0 : usual_folder(usual, sizeof(usual), err);

	/* Made where it is missing; it belongs to the caller alone, as the runtime's own folder. */
	if (!rc)
		rc = status_open_root(path, &s.dir, err);
	if (rc)
		return rc;
	full = realpath(path, NULL);
	if (!full || strlen(full) >= sizeof(s.path)) {
		rc = err_set(err, -ENAMETOOLONG, "--folder: cannot tell the full path of '%.200s'", path);
	} else {
		memcpy(s.path, full, strlen(full) + 1);
		snprintf(s.state_path, sizeof(s.state_path), "%s/.state", s.path);
		rc = status_open_root(s.state_path, &s.state, err);
	}
	free(full);
	if (rc)
		ctr_store_close(&s);
	else
		*ret_store = s;
	return rc;
}

void ctr_store_close(struct ctr_store *s)
{
	if (s->dir >= 0)
		close(s->dir);
	if (s->state >= 0)
		close(s->state);
	s->dir = s->state = -1;
}

static int open_folder(const struct ctr_store *store, const char *name, struct ctr *c, struct err *err)
{
	memset(c, 0, sizeof(*c));
	memcpy(c->name, name, strlen(name) + 1);
	snprintf(c->path, sizeof(c->path), "%s/%s", store->path, c->name);
	c->dir = openat(store->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (c->dir < 0)
		return errno == ENOENT
			       ? err_set(err, -ENOENT,
					 "there is no container '%s'; bothy container ls lists them", name)
			       : err_sys(err, -errno, "cannot open '%s'", c->path);
	return 0;
}

int ctr_store_new(const struct ctr_store *store, const char *name, struct ctr *ret_ctr, struct err *err)
{
	int rc = status_check_id(name, err);

	if (rc)
		return rc;
	if (mkdirat(store->dir, name, 0700) < 0)
		return errno == EEXIST
			       ? err_set(err, -EEXIST,
					 "there is a container '%s' already; remove it, or give another --name",
					 name)
			       : err_sys(err, -errno, "cannot make the folder '%s/%s'", store->path, name);
	rc = open_folder(store, name, ret_ctr, err);
	if (!rc && !(ret_ctr->record = json_object())) {
		close(ret_ctr->dir);
		rc = err_set(err, -ENOMEM, "no memory");
	}
	return rc;
}

int ctr_store_find(const struct ctr_store *store, const char *name, struct ctr *ret_ctr, struct err *err)
{
	json_error_t bad;
	int fd, rc = status_check_id(name, err);

	if (!rc)
		rc = open_folder(store, name, ret_ctr, err);
	if (rc)
		return rc;
	fd = openat(ret_ctr->dir, "record.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ret_ctr->record = fd < 0 ? NULL : json_loadfd(fd, JSON_REJECT_DUPLICATES, &bad);
	if (fd >= 0)
		close(fd);
	/* One whose making was interrupted at its beginning: it can be removed. */
	if (!json_is_object(ret_ctr->record)) {
		json_decref(ret_ctr->record);
		ret_ctr->record = json_object();
	}
	return 0;
}

void ctr_store_put(struct ctr *c)
{
	json_decref(c->record);
	close(c->dir);
	c->record = NULL;
	c->dir = -1;
}

int ctr_store_save(const struct ctr *c, struct err *err)
{
	int fd = openat(c->dir, ".record.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc = fd < 0 ? -errno : json_dumpfd(c->record, fd, JSON_INDENT(2)) < 0 ? -EIO : 0;

	if (fd >= 0 && close(fd) < 0 && !rc)
		rc = -errno;
	if (!rc && renameat(c->dir, ".record.new", c->dir, "record.json") < 0)
		rc = -errno;
	return rc ? err_sys(err, rc, "cannot write '%s/record.json'", c->path) : 0;
}

int ctr_store_remove(const struct ctr_store *store, struct ctr *c, struct err *err)
{
	static const char *const files[] = { "config.json", "record.json", ".record.new", "namespaces", "log",
					     "log.1",       "console",     "tap",         "resolv.conf" };

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		unlinkat(c->dir, files[i], 0);
	if (unlinkat(store->dir, c->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(err, -errno, "cannot remove the folder '%s'", c->path);
	return 0;
}

int ctr_store_lock(const struct ctr *c)
{
	return flock(c->dir, LOCK_EX | LOCK_NB) < 0 ? -EBUSY : 0;
}

int ctr_store_wait(const struct ctr *c, u64 patience_ns)
{
	u64 end = os_now_ns() + patience_ns;

	while (ctr_store_lock(c)) {
		if (os_now_ns() > end)
			return -ETIMEDOUT;
		usleep(5000);
	}
	flock(c->dir, LOCK_UN);
	return 0;
}

const char *ctr_store_phase(const struct ctr_store *store, const struct ctr *c, struct status *ret_status,
			    bool *ret_has)
{
	enum status_phase phase;

	*ret_has = !status_open(store->state, c->name, false, ret_status, NULL);
	phase = *ret_has ? status_phase(ret_status) : STATUS_STOPPED;
	if (phase != STATUS_STOPPED)
		return status_phase_name(phase);
	return json_object_get(c->record, "exit") ? "exited" : "dead";
}
