/* For whom a thread of the FUSE server acts.
 *
 * What may be done is decided by the guest's kernel, which knows its users; this process does it with its own rights. Only who
 * owns what is made new, and whether set-user-ID bits survive a write, depend on who asks. Where this process is root (or
 * may act as anybody), it takes the user's and group's number for the time of the call, and keeps the right to pass
 * permissions, since of the user's other groups it knows nothing. Linux keeps both per thread [setfsuid(2), capabilities(7)].
 *
 * Where it is not root, all is made as this process' own user, whoever asks.
 *
 * Threads: the server's.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/fuse_int.h"

#define CAP(n) BIT(n)
#define ANYONE 65534 /* another than root */

static void set_effective(u64 caps)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return;
	for (unsigned i = 0; i < 2; i++)
		data[i].effective = (u32)(caps >> 32 * i) & data[i].permitted;
	syscall(SYS_capset, &header, data);
}

u64 fuse_cred_caps(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return 0;
	return data[0].effective | (u64)data[1].effective << 32;
}

/* Neither call says whether it has worked but by what it answers the next time. */
static bool become(u32 uid, u32 gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return (u32)setfsgid((gid_t)-1) == gid && (u32)setfsuid((uid_t)-1) == uid;
}

bool fuse_cred_may_change(void)
{
	u32 uid = geteuid(), gid = getegid();
	bool may = uid == 0 && fuse_cred_caps() & CAP(CAP_CHOWN) && become(ANYONE, ANYONE);

	become(uid, gid);
	return may;
}

int fuse_cred_begin(struct fuse_op *op)
{
	if (!op->f->as_root || (!op->h.uid && !op->h.gid))
		return 0;
	if (op->h.uid == (u32)-1 || op->h.gid == (u32)-1)
		return -EINVAL;
	if (!become(op->h.uid, op->h.gid)) {
		become(0, 0);
		return -EPERM;
	}
	/* Gone with the number. */
	set_effective(fuse_cred_caps() | (op->caps & (CAP(CAP_DAC_OVERRIDE) | CAP(CAP_DAC_READ_SEARCH))));
	return 0;
}

void fuse_cred_end(struct fuse_op *op)
{
	if (!op->f->as_root || (!op->h.uid && !op->h.gid))
		return;
	become(0, 0);
	set_effective(op->caps);
}

void fuse_cred_drop_fsetid(struct fuse_op *op, bool drop)
{
	if (drop && op->caps & CAP(CAP_FSETID))
		set_effective(op->caps & ~CAP(CAP_FSETID));
}

void fuse_cred_restore(struct fuse_op *op, bool dropped)
{
	if (dropped && op->caps & CAP(CAP_FSETID))
		set_effective(op->caps);
}
