/* Classes of resctrl. A class that others have made is used and left; its schema is compared by its numbers, since the kernel
 * writes a line otherwise than it was given.
 *
 * Omitted: pseudo-locking and exclusive groups, which runtime-spec does not know.
 */
#include "jail/rdt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/types.h"

int rdt_find(char *ret_root, size_t size, struct err *err)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, mount[1024];
	size_t room = 0;
	bool found = false;

	while (f && !found && getline(&line, &room, f) > 0)
		found = strstr(line, " - resctrl ") && sscanf(line, "%*s %*s %*s %*s %1023s", mount) == 1 &&
			strlen(mount) < size;
	if (found)
		memcpy(ret_root, mount, strlen(mount) + 1);
	free(line);
	if (f)
		fclose(f);
	return found ? 0
		     : err_set(err, -ENOTSUP,
			       "linux.intelRdt: resctrl is not mounted; on a processor with Intel RDT mount it on "
			       "/sys/fs/resctrl, or take intelRdt out");
}

static bool has_schema(const struct rdt *r)
{
	return r->l3_cache || r->bandwidth || r->schema_count;
}

static bool has_monitoring(const struct rdt *r)
{
	return r->monitoring || r->monitoring_cmt || r->monitoring_mbm;
}

static const char *class_of(const struct rdt *r, const char *id)
{
	return r->clos ? r->clos : has_schema(r) ? id : NULL;
}

static void class_path(const char *root, const struct rdt *r, const char *id, char *out, size_t size)
{
	const char *name = class_of(r, id);

	snprintf(out, size, "%.1000s%s%.300s", root, name ? "/" : "", name ? name : "");
}

static void group_path(const char *root, const struct rdt *r, const char *id, char *out, size_t size)
{
	char at[1400];

	class_path(root, r, id, at, sizeof(at));
	snprintf(out, size, "%.1390s/mon_groups/%.300s", at, id);
}

static int write_file(const char *dir, const char *file, const char *text)
{
	char path[2048];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		rc = -errno;
	close(fd);
	return rc;
}

/* Lines "L3:0=ff;1=0f", each with its resource and numbers, are equal; `have` may say more. */
static bool line_is_in(const char *line, const char *have)
{
	size_t kind = strcspn(line, ":\n");

	for (const char *p = have; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		const char *a = line + kind, *b;
		char *ends[2];

		p += strspn(p, " ");
		b = p + kind;
		if (strncmp(p, line, kind) != 0 || *b != ':' || *a != ':')
			continue;
		for (;;) {
			unsigned long va = strtoul(a + 1, &ends[0], 16), vb = strtoul(b + 1, &ends[1], 16);

			if (va != vb || ends[0] == a + 1)
				return false;
			a = ends[0] + strspn(ends[0], " ");
			b = ends[1] + strspn(ends[1], " ");
			if (*a != '=' && *a != ';')
				return (!*a || *a == '\n') && (!*b || *b == '\n');
			if (*a != *b)
				return false;
		}
	}
	return false;
}

static int compare(const char *dir, const char *schema, const char *member, struct err *err)
{
	char path[2048], have[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/schemata", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, have, sizeof(have) - 1);
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return err_sys(err, -errno, "linux.intelRdt: cannot read '%s'", path);
	have[n] = 0;
	for (const char *line = schema; *line; line += strcspn(line, "\n"), line += *line == '\n')
		if (*line != '\n' && !line_is_in(line, have))
			return err_set(
				err, -EEXIST,
				"linux.intelRdt.%s: the class '%.200s' is there with another schema than '%.*s'",
				member, strrchr(dir, '/') + 1, (int)MIN(strcspn(line, "\n"), (size_t)64),
				line);
	return 0;
}

static int put_schema(const char *dir, const char *schema, const char *member, bool made, struct err *err)
{
	char text[4096];
	size_t len = schema ? strlen(schema) : 0;
	int rc;

	if (!len)
		return 0;
	if (!made)
		return compare(dir, schema, member, err);
	if (snprintf(text, sizeof(text), "%s%s", schema, schema[len - 1] == '\n' ? "" : "\n") >=
	    (int)sizeof(text))
		return err_set(err, -E2BIG, "linux.intelRdt.%s: has more than %zu bytes", member,
			       sizeof(text) - 2);
	rc = write_file(dir, "schemata", text);
	return rc ? err_sys(err, rc, "linux.intelRdt.%s: the kernel does not take '%.64s'", member, schema)
		  : 0;
}

int rdt_create(const char *root, const struct rdt *r, const char *id, struct rdt_made *ret_made,
	       struct err *err)
{
	char dir[1400], group[2048];
	bool made = false;
	int rc = 0;

	*ret_made = (struct rdt_made){ 0 };
	class_path(root, r, id, dir, sizeof(dir));
	if (class_of(r, id) && has_schema(r)) {
		made = !mkdir(dir, 0755);
		if (!made && errno != EEXIST)
			return err_sys(err, -errno, "linux.intelRdt: cannot make the class '%s'", dir);
		ret_made->clos = made;
	} else if (access(dir, F_OK) < 0) {
		return err_sys(
			err, -errno,
			"linux.intelRdt.closID: there is no class '%s', and no schema to make one with", dir);
	}
	rc = put_schema(dir, r->l3_cache, "l3CacheSchema", made, err);
	if (!rc)
		rc = put_schema(dir, r->bandwidth, "memBwSchema", made, err);
	for (unsigned i = 0; i < r->schema_count && !rc; i++)
		rc = put_schema(dir, r->schemata[i], "schemata", made, err);
	if (!rc && has_monitoring(r)) {
		group_path(root, r, id, group, sizeof(group));
		if (mkdir(group, 0755) < 0)
			rc = err_sys(err, -errno, "linux.intelRdt: cannot make the group for monitoring '%s'",
				     group);
		ret_made->monitoring = !rc;
	}
	return rc;
}

int rdt_join(const char *root, const struct rdt *r, const char *id, pid_t pid, struct err *err)
{
	char dir[2048], text[16];
	int rc;

	snprintf(text, sizeof(text), "%d", (int)pid);
	class_path(root, r, id, dir, sizeof(dir));
	rc = write_file(dir, "tasks", text);
	if (!rc && has_monitoring(r)) {
		group_path(root, r, id, dir, sizeof(dir));
		rc = write_file(dir, "tasks", text);
	}
	return rc ? err_sys(err, rc, "linux.intelRdt: cannot put process %s into '%s'", text, dir) : 0;
}

int rdt_delete(const char *root, const struct rdt *r, const char *id, struct rdt_made made, struct err *err)
{
	char dir[2048];

	group_path(root, r, id, dir, sizeof(dir));
	if (made.monitoring && rmdir(dir) < 0 && errno != ENOENT)
		return err_sys(err, -errno, "cannot remove the group for monitoring '%s'", dir);
	class_path(root, r, id, dir, sizeof(dir));
	if (made.clos && rmdir(dir) < 0 && errno != ENOENT)
		return err_sys(err, -errno, "cannot remove the class '%s'", dir);
	return 0;
}
