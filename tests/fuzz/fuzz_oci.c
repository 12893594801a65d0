/* config.json, a process, resources and state.json, from random bytes and from changed good ones.
 *
 * The first byte says which of them, and whether the rest is the document itself or changes to a good one: then each four
 * bytes are a position, an act (overwrite, cut, repeat) and a value. Nothing may crash or leak; what is refused comes with a
 * sentence.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "oci/spec.h"
#include "oci/status.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static const char process[] =
	"{\"terminal\":true,\"consoleSize\":{\"height\":5,\"width\":6},\"user\":{\"uid\":1,\"gid\":2,\"additionalGids\":[3]},"
	"\"args\":[\"a\"],\"env\":[\"A=b\"],\"cwd\":\"/\",\"capabilities\":{\"bounding\":[\"CAP_KILL\",\"X\"]},"
	"\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"soft\":1,\"hard\":18446744073709551615}],\"oomScoreAdj\":-5}";
static const char resources[] =
	"{\"memory\":{\"limit\":-1,\"swap\":5},\"cpu\":{\"shares\":2,\"cpus\":\"0\"},\"pids\":{\"limit\":9},"
	"\"devices\":[{\"allow\":false,\"type\":\"c\",\"major\":1,\"access\":\"rwm\"}],\"rdma\":{\"x\":{\"hcaHandles\":1}},"
	"\"blockIO\":{\"weightDevice\":[{\"major\":1,\"minor\":2,\"weight\":3}]},\"unified\":{\"a.b\":\"c\"}}";
static const char state[] =
	"{\"id\":\"x\",\"pid\":5,\"pidStart\":7,\"bundle\":\"/b\",\"cgroup\":\"/a/b\",\"complete\":true,\"owner\":0}";

/* A good document with changes, fresh memory. */
static char *change(const char *good, const u8 *data, size_t len, size_t *ret_len)
{
	size_t size = strlen(good), room = size + 64 * 1024;
	char *text = malloc(room);

	memcpy(text, good, size + 1);
	for (; len >= 4 && size && size + 256 < room; data += 4, len -= 4) {
		size_t at = ld16(data) % size, n = data[2] >> 2;

		switch (data[2] & 3) {
		case 0: text[at] = (char)data[3]; break;
		case 1: /* cut */
			n = MIN(n, size - at);
			memmove(text + at, text + at + n, size - at - n);
			size -= n;
			break;
		case 2: /* repeat */
			n = MIN(n, size - at);
			memmove(text + at + n, text + at, size - at);
			size += n;
			break;
		default: text[at] = "{}[]\",:0-e"[data[3] % 10]; break;
		}
	}
	*ret_len = size;
	return text;
}

static void must_have_sentence(int rc, const struct err *err)
{
	if (rc < 0 && !err->msg[0])
		abort();
}

static char folder[] = "/tmp/fuzz-bothy-XXXXXX";

static void remove_folder(void)
{
	char path[sizeof(folder) + 32];

	snprintf(path, sizeof(path), "%s/x/state.json", folder);
	unlink(path);
	snprintf(path, sizeof(path), "%s/x", folder);
	rmdir(path);
	rmdir(folder);
}

static void try_state(const char *text, size_t len)
{
	static int root = -1;
	struct status s;
	struct err err = { 0 };
	int dir, fd, rc;

	if (root < 0) {
		if (!mkdtemp(folder))
			abort();
		atexit(remove_folder);
		root = open(folder, O_RDONLY | O_DIRECTORY);
		if (mkdirat(root, "x", 0700) < 0)
			abort();
	}
	dir = openat(root, "x", O_RDONLY | O_DIRECTORY);
	fd = openat(dir, "state.json", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		abort();
	close(fd);
	close(dir);
	rc = status_open(root, "x", false, &s, &err);
	must_have_sentence(rc, &err);
	if (!rc) {
		/* Never a group that could be the whole machine's. */
		if (!strcmp(s.cgroup, "/") || strstr(s.cgroup, ".."))
			abort();
		status_close(&s);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct jtable_document doc;
	struct spec_process p;
	struct limits l;
	struct spec s;
	struct err err = { 0 };
	char *text, *config = NULL;
	const char *good[4] = { NULL, process, resources, state };
	size_t size;
	u8 kind;
	int rc = 0;

	log_set_level(LOG_ERROR); /* warnings are part of the game */
	if (!len)
		return 0;
	kind = data[0] & 3;
	if (!kind)
		good[0] = config = spec_default(data[0] & 8, 1, 2);
	if (data[0] & 4) {
		size = len - 1;
		text = malloc(size + 1);
		memcpy(text, data + 1, size);
	} else {
		text = change(good[kind], data + 1, len - 1, &size);
	}
	if (kind == 0 && !(rc = spec_open(&s, text, size, &err))) {
		spec_close(&s);
	} else if (kind == 1 && !(rc = spec_open_process(&doc, text, size, &p, &err))) {
		jtable_close(&doc);
	} else if (kind == 2 && !(rc = spec_open_limits(&doc, text, size, &l, &err))) {
		jtable_close(&doc);
	} else if (kind == 3) {
		try_state(text, size);
	}
	must_have_sentence(rc, &err);
	free(text);
	free(config);
	return 0;
}
