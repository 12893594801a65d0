/* Which namespaces there are is seen in /proc alone: links of /proc/PID/ns for processes, of /proc/PID/fd for open descriptors,
 * and lines of /proc/self/mountinfo for mounts of a namespace's file. A namespace that something else keeps (a child
 * namespace, a socket, a device in it) has no holder here, and yet exists.
 *
 * Processes come and go meanwhile; one that has gone holds nothing. Any thread.
 */
#include "jail/nsview.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

u64 nsview_inode(pid_t pid, enum ns_kind kind)
{
	char path[64];
	struct stat st;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, ns_types[kind].file);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/%s", ns_types[kind].file);
	return stat(path, &st) ? 0 : st.st_ino;
}

typedef void found_fn(void *opaque, enum nsview_holder holder, pid_t number, const char *text);

static void find_descriptors(pid_t pid, const char *wanted, found_fn *found, void *opaque)
{
	char path[300], link[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[n < 0 ? 0 : n] = 0;
		if (n > 0 && !strcmp(link, wanted))
			found(opaque, NSVIEW_DESCRIPTOR, pid, e->d_name);
	}
	if (d)
		closedir(d);
}

static void find_mounts(const char *wanted, found_fn *found, void *opaque)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char root[128], path[4096];

		if (sscanf(line, "%*s %*s %*s %127s %4095s", root, path) == 2 && !strcmp(root, wanted))
			found(opaque, NSVIEW_MOUNT, 0, path);
	}
	free(line);
	if (f)
		fclose(f);
}

void nsview_holders(enum ns_kind kind, u64 inode, found_fn *found, void *opaque)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	char wanted[64];

	snprintf(wanted, sizeof(wanted), "%s:[%llu]", ns_types[kind].file, (unsigned long long)inode);
	while (d && (e = readdir(d))) {
		char *end;
		long pid = strtol(e->d_name, &end, 10);

		if (pid <= 0 || *end)
			continue;
		if (nsview_inode((pid_t)pid, kind) == inode)
			found(opaque, NSVIEW_PROCESS, (pid_t)pid, NULL);
		find_descriptors((pid_t)pid, wanted, found, opaque);
	}
	if (d)
		closedir(d);
	find_mounts(wanted, found, opaque);
}
