/* A process in a container can reach the executable of any other one there through /proc/PID/exe, and so could
 * overwrite the runtime, of which a child is in the container before it executes the container's program.
 *
 * So that child's executable is one that cannot be written: the same file in a mount of its own that is read-only, detached,
 * and in no namespace once the last descriptor of it is closed, which execve() does. Nothing can change a mount that is in
 * no namespace. Making it takes no copy. Where the caller may not make mounts, the file is copied to a sealed memfd
 * [memfd_create(2), F_ADD_SEALS in fcntl(2)]; as much holds for a process that is executed from it.
 *
 * Whether a process is protected is seen by its executable, not told by an environment variable, so nobody can claim it.
 */
#include "oci/selfcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

extern char **environ;

static bool is_protected(int exe)
{
	struct statvfs fs;
	int seals = fcntl(exe, F_GET_SEALS);

	if (seals >= 0 && (seals & ALL_SEALS) == ALL_SEALS)
		return true;
	return !fstatvfs(exe, &fs) && fs.f_flag & ST_RDONLY;
}

static int read_only_mount(void)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	int fd = open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd >= 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int sealed_copy(int exe, struct err *err)
{
	int fd = memfd_create("bothy-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stat st;

	if (fd < 0 || fstat(exe, &st) < 0)
		return err_sys(err, -errno, "cannot make memory for a copy of the runtime");
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(fd, exe, NULL, (size_t)left);

		if (n <= 0 && errno != EINTR) {
			close(fd);
			return err_sys(err, n < 0 ? -errno : -EIO, "cannot copy the runtime");
		}
		left -= n > 0 ? n : 0;
	}
	if (fchmod(fd, 0500) < 0 || fcntl(fd, F_ADD_SEALS, ALL_SEALS) < 0) {
		close(fd);
		return err_sys(err, -errno, "cannot seal the copy of the runtime");
	}
	return fd;
}

int selfcopy_ensure(char **argv, struct err *err)
{
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd, rc;

	if (exe < 0)
		return err_sys(err, -errno, "cannot open the runtime's own executable");
	if (is_protected(exe)) {
		close(exe);
		prctl(PR_SET_NAME, "bothy-oci");
		return 0;
	}
	fd = read_only_mount();
	if (fd < 0)
		fd = sealed_copy(exe, err);
	close(exe);
	if (fd < 0)
		return fd;
	syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	rc = err_sys(err, -errno, "cannot execute the protected copy of the runtime");
	close(fd);
	return rc;
}
