/* Capability sets by prctl(2) and capset(2) [capabilities(7)], without a library: five masks and three calls.
 *
 * Order matters. The bounding set is lowered while CAP_SETPCAP is held; a change of user empties the permitted set
 * unless PR_SET_KEEPCAPS is on; the ambient set can only hold what is both permitted and inheritable, so it comes
 * last. The calling process is single-threaded.
 */
#include "jail/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const caps_names[] = {
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",
	"CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
};

const char *caps_name(unsigned i)
{
	return i < ARRAY_SIZE(caps_names) ? caps_names[i] : NULL;
}

int caps_number(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(caps_names); i++)
		if (!strcmp(caps_names[i], name))
			return (int)i;
	return -1;
}

static int caps_get(struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return (int)syscall(SYS_capget, &header, data);
}

u64 caps_available(void)
{
	struct __user_cap_data_struct data[2] = { { 0 } };
	u64 bounding = 0;

	if (caps_get(data) < 0)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(caps_names); i++)
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			bounding |= BIT(i);
	return bounding & ((u64)data[1].permitted << 32 | data[0].permitted);
}

int caps_begin(const struct caps *caps, struct err *err)
{
	for (unsigned i = 0; i < 64; i++) {
		int held = prctl(PR_CAPBSET_READ, i, 0, 0, 0);

		if (held < 0) /* past the kernel's last one */
			break;
		if (held && !(caps->bounding & BIT(i)) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
			return err_sys(err, -errno, "cannot take capability %u out of the bounding set", i);
	}
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return err_sys(err, -errno, "cannot keep capabilities across the change of user");
	return 0;
}

int caps_apply(const struct caps *caps, struct err *err)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		return err_sys(err, -errno, "cannot end keeping capabilities");
	for (unsigned i = 0; i < 2; i++) {
		data[i].effective = (u32)(caps->effective >> (32 * i));
		data[i].permitted = (u32)(caps->permitted >> (32 * i));
		data[i].inheritable = (u32)(caps->inheritable >> (32 * i));
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return err_sys(err, -errno, "cannot set the capabilities");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return err_sys(err, -errno, "cannot clear the ambient capabilities");
	for (unsigned i = 0; i < ARRAY_SIZE(caps_names); i++) {
		if (caps->ambient & BIT(i) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return err_sys(err, -errno,
				       "cannot make %s ambient; it has to be permitted and inheritable too",
				       caps_names[i]);
	}
	return 0;
}
