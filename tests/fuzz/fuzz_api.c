/* The control socket and files of options, from random bytes.
 *
 * The first byte says what: a request taken apart already (verb, path, query and body from the bytes), bytes on a connection to
 * the server itself, in pieces, or a file of options, from nothing or with changes to a good one. Answers have a status below
 * 500 and a JSON object with a sentence where they are no success; nothing may crash, leak or hang [A01, A05, A23].
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <fcntl.h>

#include "api/api.h"
#include "base/bits.h"
#include "base/loop.h"
#include "base/os.h"
#include "base/sock.h"
#include "cli/opts_file.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static void must(bool condition)
{
	if (!condition)
		abort();
}

/* ---- methods ---- */

static int take(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	for (unsigned i = 0; i < 2; i++)
		must(!args->arg[i].given ||
		     (args->arg[i].value >= (i ? 0 : -3) && args->arg[i].value <= (i ? 1 : 1000)));
	*ret_result = json_pack("{s:b}", "ok", 1);
	return 0;
}

static const struct api_param params[] = {
	{ "number", API_INT, -3, 1000, "A number." },
	{ "flag", API_BOOL, 0, 0, "A flag." },
	{ .name = NULL },
};

static const struct api_method methods[] = {
	{ "a", "GET", "/vm", "Looks.", params, NULL, take },
	{ "b", "POST", "/vm/stop", "Acts.", params, NULL, take },
	{ "c", "GET", "/openapi.json", "Describes.", NULL, NULL, api_describe },
	{ .name = NULL },
};

static const struct api api = { methods, "fuzz", "0", NULL };

/* A good request with changes, or the bytes themselves. */
static size_t fill(char *buf, size_t size, const char *good, const u8 *data, size_t len)
{
	size_t n = strlen(good);

	if (!len || data[0] & 1) {
		n = MIN(len, size);
		memcpy(buf, data, n);
		return n;
	}
	snprintf(buf, size, "%s", good);
	for (data++, len--; len >= 3; data += 3, len -= 3) {
		size_t at = data[0] % n;

		if (data[1] & 1) {
			buf[at] = (char)data[2];
		} else if (n + 64 < size) { /* repeat */
			size_t part = MIN((size_t)data[2] % 64, n - at);

			memmove(buf + at + part, buf + at, n - at);
			n += part;
		}
	}
	return n;
}

static void check_answer(struct http_response *res)
{
	json_t *value = json_loadb(res->body, res->body_len, 0, NULL);

	must(res->status >= 200 && res->status < 500);
	must(json_is_object(value));
	must((res->status == 200) == !json_string_value(json_object_get(value, "error")));
	json_decref(value);
	free(res->body);
}

static void try_method(const u8 *data, size_t len)
{
	static const char *const verbs[] = { "GET", "POST", "", "PUT" };
	static const char *const paths[] = { "/vm", "/vm/stop", "/openapi.json", "" };
	static const char *const names[] = { "number", "flag", "x", "" };
	char body[2048], value[32];
	struct http_request req = { .body = body };
	struct http_response res = { 0 };
	size_t n;

	if (len < 4)
		return;
	req.verb = verbs[data[0] & 3];
	req.path = paths[data[0] >> 2 & 3];
	req.nr_query = data[0] >> 4 & 1;
	req.query[0].name = names[data[0] >> 5 & 3];
	n = MIN((size_t)data[1] % 24, len - 2);
	memcpy(value, data + 2, n);
	value[n] = 0;
	req.query[0].value = value;
	if (data[0] & 0x80)
		req.body_len =
			fill(body, sizeof(body), "{\"number\": 17, \"flag\": true}", data + 2, len - 2);
	api_handle((void *)&api, &req, &res);
	check_answer(&res);
}

/* ---- the server ---- */

static struct loop *loop;
static struct http *http;
static int folder;
static char dir[] = "/tmp/fuzz-api-XXXXXX";

static void close_server(void)
{
	http_free(http);
	loop_free(loop);
	unlinkat(folder, "s", 0);
	close(folder);
	rmdir(dir);
}

static void open_server(void)
{
	int fd = -1;

	must(mkdtemp(dir) != NULL);
	folder = open(dir, O_RDONLY | O_DIRECTORY);
	must(!loop_new(&loop, NULL) && !http_new(loop, api_handle, (void *)&api, &http, NULL));
	must(!sock_listen(folder, "s", &fd, NULL) && !http_listen(http, fd, NULL));
	atexit(close_server);
}

static void stop(void *opaque)
{
	loop_stop(loop, 0);
}

/* A few turns of the loop. */
static void turns(unsigned n)
{
	while (n--) {
		loop_post(loop, stop, NULL);
		loop_run(loop);
	}
}

static void try_server(const u8 *data, size_t len)
{
	static const char good[] =
		"POST /vm/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"number\": 17}"
		"GET /vm?number=3&flag=true HTTP/1.1\r\nHost: x\r\n\r\n";
	char text[4096], answer[4096];
	size_t n = fill(text, sizeof(text), good, data, len), half = n ? data[0] % n : 0;
	int fd = -1;

	if (!loop)
		open_server();
	must(!sock_connect(folder, "s", &fd, NULL));
	must(send(fd, text, half, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || !half);
	turns(2);
	/* Fails where the server has had enough already. */
	(void)!send(fd, text + half, n - half, MSG_NOSIGNAL | MSG_DONTWAIT);
	turns(4);
	while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
		;
	close(fd);
	turns(1);
	/* Whoever comes next is served. */
	must(!sock_connect(folder, "s", &fd, NULL));
	must(send(fd, "GET /vm HTTP/1.0\r\n\r\n", 20, MSG_NOSIGNAL) == 20);
	turns(6);
	must(recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 15 && !memcmp(answer + 9, "200", 3));
	close(fd);
}

/* ---- options in a file ---- */

struct target {
	bool flag;
	const char *text;
	const char *list[3];
	unsigned nr_list;
	u32 number;
	u64 size;
};

static const struct opt opts[] = {
	{ .name = "flag", .kind = OPT_FLAG, .offset = offsetof(struct target, flag) },
	{ .name = "text", .kind = OPT_STRING, .arg = "T", .offset = offsetof(struct target, text) },
	{ .name = "list",
	  .kind = OPT_LIST,
	  .arg = "L",
	  .max_count = 3,
	  .offset = offsetof(struct target, list),
	  .count_offset = offsetof(struct target, nr_list) },
	{ .name = "number",
	  .kind = OPT_U32,
	  .arg = "N",
	  .min = 1,
	  .max = 64,
	  .offset = offsetof(struct target, number) },
	{ .name = "size",
	  .kind = OPT_SIZE,
	  .arg = "S",
	  .min = 1,
	  .max = GiB,
	  .offset = offsetof(struct target, size) },
	{ .name = NULL },
};

/* What is read, printed and read again is the same. */
static void try_file(const u8 *data, size_t len)
{
	struct target t = { 0 }, again = { 0 };
	bool seen[ARRAY_SIZE(opts)] = { false };
	char *text = malloc(4097), *printed = NULL, *copy = NULL;
	struct err err = { 0 };
	size_t n = fill(text, 4096,
			"flag = on\ntext = \" a\\x41\\n \"\nlist = x\nlist = \"y\"\nnumber = 3\nsize = 4K\n",
			data, len);
	FILE *out;
	int rc = opts_file_parse(opts, "f", text, n, &t, seen, &err);

	must(rc == 0 || (rc < 0 && !strncmp(err.msg, "f, line ", 8)));
	out = rc ? NULL : open_memstream(&printed, &n);
	if (out) {
		opts_file_print(opts, &t, out);
		fclose(out);
		memset(seen, 0, sizeof(seen));
		copy = malloc(n + 1);
		memcpy(copy, printed, n);
		must(!opts_file_parse(opts, "f", copy, n, &again, seen, &err));
		must(t.flag == again.flag && t.number == again.number && t.size == again.size);
		must(t.nr_list == again.nr_list && !t.text == !again.text);
		must(!t.text || !strcmp(t.text, again.text));
		for (unsigned i = 0; i < t.nr_list; i++)
			must(!strcmp(t.list[i], again.list[i]));
	}
	free(text);
	free(printed);
	free(copy);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	if (len < 2)
		return 0;
	switch (data[0] % 3) {
	case 0: try_method(data + 1, len - 1); break;
	case 1: try_server(data + 1, len - 1); break;
	default: try_file(data + 1, len - 1); break;
	}
	return 0;
}
