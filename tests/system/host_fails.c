/* For LD_PRELOAD: a host with a bad sector. Transfers by preadv(2) and pwritev(2) of the file $HOST_FAILS that touch its byte
 * number $HOST_FAILS_AT end with EIO. io_uring does not pass here: to be used with aio=threads. */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

ssize_t preadv64(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t pwritev64(int fd, const struct iovec *iov, int nr, off_t at);

static bool fails(int fd, const struct iovec *iov, int nr, off_t at)
{
	const char *file = getenv("HOST_FAILS"), *bad_at = getenv("HOST_FAILS_AT");
	struct stat bad, st;
	off_t bad_byte, end = at;

	if (!file || !bad_at || stat(file, &bad) < 0 || fstat(fd, &st) < 0 || st.st_ino != bad.st_ino ||
	    st.st_dev != bad.st_dev)
		return false;
	for (int i = 0; i < nr; i++)
		end += (off_t)iov[i].iov_len;
	bad_byte = (off_t)strtoll(bad_at, NULL, 0);
	return at <= bad_byte && bad_byte < end;
}

static ssize_t pass(const char *name, int fd, const struct iovec *iov, int nr, off_t at)
{
	ssize_t (*next)(int fd, const struct iovec *iov, int nr, off_t at) = dlsym(RTLD_NEXT, name);

	if (next && !fails(fd, iov, nr, at))
		return next(fd, iov, nr, at);
	errno = EIO;
	return -1;
}

ssize_t preadv64(int fd, const struct iovec *iov, int nr, off_t at)
{
	return pass("preadv64", fd, iov, nr, at);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int nr, off_t at)
{
	return pass("pwritev64", fd, iov, nr, at);
}
