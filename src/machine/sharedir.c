/* --share: from the text to an open back end. */
#include "machine/sharedir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "host/fuse.h"
#include "vm/fs.h"

#define MAX_TAG 36 /* [virtio 5.11.4] */
#define MAX_ID  0xfffffffe

struct settings {
	bool ro, packed;
	u32 cache, uid, gid;
};

/* As enum fuse_cache. */
static const char *const caches[] = { "auto", "always", "none", NULL };

static const struct param table[] = {
	{ .key = "ro", .kind = PARAM_FLAG, .offset = offsetof(struct settings, ro) },
	{ .key = "cache",
	  .kind = PARAM_CHOICE,
	  .offset = offsetof(struct settings, cache),
	  .choices = caches },
	{ .key = "uid", .kind = PARAM_U32, .offset = offsetof(struct settings, uid), .max = MAX_ID },
	{ .key = "gid", .kind = PARAM_U32, .offset = offsetof(struct settings, gid), .max = MAX_ID },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

/* Splits "TAG=DIR". */
static int split(char *text, char **ret_dir, struct err *err)
{
	char *dir = strchr(text, '=');
	size_t len = dir ? (size_t)(dir - text) : 0;

	if (!dir || !len || !dir[1])
		return err_set(err, -EINVAL, "--share: '%.64s' is no name and folder; give TAG=DIR", text);
	if (len > MAX_TAG)
		return err_set(err, -EINVAL, "--share: the tag has %zu characters; 1 to %u are possible", len,
			       MAX_TAG);
	for (size_t i = 0; i < len; i++)
		if (text[i] <= 0x20 || text[i] >= 0x7f)
			return err_set(
				err, -EINVAL,
				"--share: character %zu of the tag is a space, a control character or not ASCII",
				i + 1);
	*dir = 0;
	*ret_dir = dir + 1;
	return 0;
}

int sharedir_open(struct sharedir *dir, const char *spec, struct err *err)
{
	struct settings s = { .ro = false };
	char *text = strdup(spec), *params, *path = NULL;
	int r;

	*dir = (struct sharedir){ NULL, false };
	if (!text)
		return err_set(err, -ENOMEM, "no memory for --share");
	params = params_first(text);
	r = split(text, &path, err);
	if (r == 0)
		r = params_parse("--share", params, table, &s, err);
	if (r == 0) {
		const struct fuse_conf conf = {
			.tag = text,
			.path = path,
			.read_only = s.ro,
			.cache = (enum fuse_cache)s.cache,
			.uid = s.uid,
			.gid = s.gid,
		};

		dir->packed = s.packed;
		r = fuse_open(&conf, &dir->fs, err);
	}
	free(text);
	return r;
}

int sharedir_check_tags(const struct sharedir *dirs, unsigned nr, struct err *err)
{
	for (unsigned i = 0; i < nr; i++)
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(dirs[i].fs->tag, dirs[k].fs->tag))
				return err_set(err, -EINVAL,
					       "--share: two folders have the tag '%s'; give each its own",
					       dirs[i].fs->tag);
	return 0;
}

void sharedir_close(struct sharedir *dir)
{
	if (dir->fs)
		dir->fs->ops->close(dir->fs);
	*dir = (struct sharedir){ NULL, false };
}
