/* FUSE requests about extended attributes.
 *
 * The guest has user.*, trusted.* (which overlay file systems use) and the capabilities of programs. All others belong to the
 * host: access lists would name users and be obeyed by nobody in the guest, labels of security modules are its policy.
 *
 * Threads: the server's.
 */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "host/fuse_int.h"

static bool is_guests(const char *name)
{
	return !strncmp(name, "user.", 5) || !strncmp(name, "trusted.", 8) ||
	       !strcmp(name, "security.capability");
}

/* How much there is, or all of it. */
static int answer(struct fuse_op *op, u32 size, ssize_t n)
{
	if (n < 0)
		return -errno;
	op->reply_len = (u32)n;
	if (size)
		return 0;
	*(struct fuse_getxattr_out *)op->reply = (struct fuse_getxattr_out){ .size = (u32)n };
	op->reply_len = sizeof(struct fuse_getxattr_out);
	return 0;
}

int fuse_xattr_get(struct fuse_op *op)
{
	const struct fuse_getxattr_in *in = op->arg;
	u32 size = MIN(in->size, op->reply_max);

	if (!is_guests(op->name[0]))
		return -ENODATA;
	return answer(op, in->size,
		      getxattr(fuse_node_path(op->node).text, op->name[0], in->size ? op->reply : NULL,
			       size));
}

int fuse_xattr_set(struct fuse_op *op)
{
	const struct fuse_setxattr_in *in = op->arg;

	if (in->size > op->more_len || in->flags & ~(u32)(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (!is_guests(op->name[0]))
		return -EOPNOTSUPP;
	return setxattr(fuse_node_path(op->node).text, op->name[0], op->more, in->size, (int)in->flags) < 0
		       ? -errno
		       : 0;
}

int fuse_xattr_remove(struct fuse_op *op)
{
	if (!is_guests(op->name[0]))
		return -EOPNOTSUPP;
	return removexattr(fuse_node_path(op->node).text, op->name[0]) < 0 ? -errno : 0;
}

int fuse_xattr_list(struct fuse_op *op)
{
	const struct fuse_getxattr_in *in = op->arg;
	char *list = (char *)op->reply;
	ssize_t n = listxattr(fuse_node_path(op->node).text, list, op->reply_max), kept = 0;

	for (ssize_t i = 0; i < n;) {
		size_t len = strlen(list + i) + 1;

		if (is_guests(list + i)) {
			memmove(list + kept, list + i, len);
			kept += (ssize_t)len;
		}
		i += (ssize_t)len;
	}
	if (n >= 0 && in->size && (u64)kept > in->size)
		return -ERANGE;
	return answer(op, in->size, n < 0 ? n : kept);
}
