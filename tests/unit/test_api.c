/* Methods by tables: routing, parameters, answers, the description; and the folders of running machines [A01 A02 A17 A20]. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api.h"
#include "api/machine_api.h"
#include "api/runtime.h"
#include "base/sock.h"

static struct api_args seen;
static unsigned calls;

static int take(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	int code = *(int *)api->target;

	seen = *args;
	calls++;
	if (code)
		return err_set(err, code, "not \xff now");
	*ret_result = json_pack("{s:b}", "ok", 1);
	return 0;
}

static const struct api_param params[] = {
	{ "number", API_INT, -5, 10, "A number." },
	{ "flag", API_BOOL, 0, 0, "A flag." },
	{ .name = NULL },
};

static const struct api_field fields[] = {
	{ "ok", API_BOOL, "Always.", NULL, false },
	{ .name = NULL },
};

static const struct api_method methods[] = {
	{ "look", "GET", "/a", "Looks.", params, fields, take },
	{ "act", "POST", "/b", "Acts.", params, fields, take },
	{ "bare", "POST", "/c", "Takes nothing.", NULL, NULL, take },
	{ .name = NULL },
};

static int code;

/* The status; the answer's text in `answer`. */
static char answer[4096];

static int ask(const char *verb, const char *path, const char *body, size_t len)
{
	const struct api api = { methods, "test", "0", &code };
	struct http_request req = { .verb = verb, .path = path, .body = body, .body_len = len };
	struct http_response res = { 0 };
	json_t *value;

	api_handle((void *)&api, &req, &res);
	assert_non_null(res.body);
	snprintf(answer, sizeof(answer), "%s", res.body);
	value = json_loadb(res.body, res.body_len, 0, NULL);
	assert_true(json_is_object(value));
	assert_int_equal(res.status == 200, !json_object_get(value, "error"));
	json_decref(value);
	free(res.body);
	return res.status;
}

static int post(const char *body)
{
	return ask("POST", "/b", body, strlen(body));
}

static int get(const char *name, const char *value)
{
	const struct api api = { methods, "test", "0", &code };
	struct http_request req = {
		.verb = "GET", .path = "/a", .query = { { name, value } }, .nr_query = 1
	};
	struct http_response res = { 0 };

	api_handle((void *)&api, &req, &res);
	free(res.body);
	return res.status;
}

static void test_routes(void **state)
{
	code = 0;
	assert_int_equal(ask("GET", "/a", NULL, 0), 200);
	assert_false(seen.arg[0].given || seen.arg[1].given);
	assert_int_equal(ask("POST", "/c", NULL, 0), 200);
	calls = 0;
	assert_int_equal(ask("GET", "/", NULL, 0), 404);
	assert_int_equal(ask("GET", "/aa", NULL, 0), 404);
	assert_int_equal(ask("GET", "", NULL, 0), 404);
	assert_int_equal(ask("GET", "/\xff\x1b[31m", NULL, 0), 404);
	assert_int_equal(ask("POST", "/a", NULL, 0), 405);
	assert_int_equal(ask("get", "/a", NULL, 0), 405);
	assert_int_equal(ask("GET", "/a", "{}", 2), 400);
	assert_int_equal(calls, 0);
}

static void test_parameters(void **state)
{
	static const char *const bad[] = {
		"{",
		"[]",
		"1",
		"null",
		"\"x\"",
		"{\"x\": 1}",
		"{\"number\": 11}",
		"{\"number\": -6}",
		"{\"number\": 1.0}",
		"{\"number\": 1e0}",
		"{\"number\": \"1\"}",
		"{\"number\": true}",
		"{\"number\": null}",
		"{\"number\": [1]}",
		"{\"number\": 9223372036854775808}",
		"{\"number\": -9223372036854775809}",
		"{\"number\": 1e400}",
		"{\"flag\": 1}",
		"{\"flag\": \"true\"}",
		"{\"number\": 1, \"number\": 1}",
		"{\"number\": 1} x",
		"{\"\xff\": 1}",
		"{\"a\\u0000\": 1}",
		"{number: 1}",
		"{'number': 1}",
		"{\"number\": 01}",
		"{\"number\": +1}",
		"{\"number\": 0x1}",
		"{\"number\": NaN}",
		"\xef\xbb\xbf{}",
	};
	static const char *const bad_numbers[] = {
		"", "x", "11", "-6", "1x", "1.0", "+1", " 1", "0x1", "-", "99999999999999999999999"
	};

	code = 0;
	assert_int_equal(post("{\"number\": 10, \"flag\": true}"), 200);
	assert_true(seen.arg[0].given && seen.arg[0].value == 10 && seen.arg[1].given &&
		    seen.arg[1].value == 1);
	assert_int_equal(post("{\"flag\": false}"), 200);
	assert_true(!seen.arg[0].given && seen.arg[1].given && !seen.arg[1].value);
	assert_int_equal(get("number", "-5"), 200);
	assert_true(seen.arg[0].value == -5);
	assert_int_equal(get("flag", "true"), 200);
	calls = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (post(bad[i]) != 400)
			fail_msg("%s is accepted", bad[i]);
	assert_int_equal(ask("POST", "/b", "{}\0", 3), 400);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_numbers); i++)
		if (get("number", bad_numbers[i]) != 400)
			fail_msg("number=%s is accepted", bad_numbers[i]);
	assert_int_equal(get("flag", "1"), 400);
	assert_int_equal(get("x", "1"), 400);
	post("{\"nmber\": 1}");
	assert_non_null(strstr(answer, "unknown parameter 'nmber'; POST /b takes number, flag"));
	assert_int_equal(ask("POST", "/c", "{\"x\": 1}", 8), 400);
	assert_non_null(strstr(answer, "takes no parameters"));
	assert_int_equal(calls, 0);
	/* Deep, but not too deep for the stack. */
	char *deep = malloc(60000);
	memset(deep, '[', 60000);
	assert_int_equal(ask("POST", "/b", deep, 60000), 400);
	free(deep);
}

static void test_failures(void **state)
{
	static const int rows[][2] = {
		{ -EINVAL, 400 }, { -ERANGE, 400 }, { -ENOENT, 404 },    { -EALREADY, 409 },
		{ -EAGAIN, 409 }, { -EBUSY, 409 },  { -ESHUTDOWN, 409 }, { -EIO, 500 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		code = rows[i][0];
		assert_int_equal(ask("GET", "/a", NULL, 0), rows[i][1]);
		assert_non_null(strstr(answer, "not ? now")); /* no UTF-8, and told all the same */
	}
}

/* Every method of machines has what a client needs to know. */
static void test_description(void **state)
{
	const struct api api = machine_api_of(NULL);
	json_t *doc = NULL, *paths;
	unsigned n = 0;

	assert_int_equal(api_describe(&api, NULL, &doc, NULL), 0);
	paths = json_object_get(doc, "paths");
	for (const struct api_method *m = machine_api_methods; m->name; m++) {
		json_t *op = json_object_get(json_object_get(paths, m->path),
					     strcmp(m->verb, "GET") ? "post" : "get");

		n++;
		assert_string_equal(json_string_value(json_object_get(op, "operationId")), m->name);
		assert_true(strlen(m->summary) > 5 && m->summary[strlen(m->summary) - 1] == '.');
		assert_non_null(json_object_get(json_object_get(op, "responses"), "200"));
		for (const struct api_method *other = m + 1; other->name; other++) {
			assert_string_not_equal(m->name, other->name);
			assert_true(strcmp(m->path, other->path) != 0 || strcmp(m->verb, other->verb) != 0);
		}
		for (unsigned i = 0; m->params && m->params[i].name; i++)
			assert_true(i < API_MAX_PARAMS);
	}
	assert_true(n >= 9);
	json_decref(doc);
}

/* ---- runtime folders ---- */

static char base[] = "/tmp/runtime-XXXXXX";

static int make_base(void **state)
{
	if (!mkdtemp(base))
		return -1;
	return setenv("BOTHY_RUNTIME_DIR", base, 1);
}

static int remove_base(void **state)
{
	return rmdir(base);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "",    ".",   "..",  ".a",       "-a",       "_a",
					   "a/b", "a b", "a\n", "\x1b[31m", "\xc3\xa4", "a\\" };
	static const char *const good[] = { "a", "A1", "web-1.example_x", "0" };
	char name[80];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(runtime_check_name("x", bad[i], NULL), -EINVAL);
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(runtime_check_name("x", good[i], NULL), 0);
	memset(name, 'a', sizeof(name));
	name[63] = 0;
	assert_int_equal(runtime_check_name("x", name, NULL), 0);
	name[63] = 'a';
	name[64] = 0;
	assert_int_equal(runtime_check_name("x", name, NULL), -EINVAL);
}

static void test_folders(void **state)
{
	struct runtime a, b, c;
	struct runtime_list list;
	struct err err = { 0 };
	struct stat st;
	int dir = -1, fd = -1;

	assert_int_equal(runtime_open("beta", &b, &err), 0);
	assert_int_equal(runtime_open("alpha", &a, &err), 0);
	assert_int_equal(runtime_open(NULL, &c, &err), 0);
	assert_int_equal(runtime_open("alpha", &a, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "a machine named 'alpha' runs already"));
	assert_int_equal(fstat(a.dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(sock_listen(a.dir, RUNTIME_API_SOCK, &fd, &err), 0);
	assert_int_equal(fstatat(a.dir, RUNTIME_API_SOCK, &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(runtime_list(&list, &err), 0);
	assert_int_equal(list.nr, 3);
	assert_string_equal(list.name[0], "alpha");
	assert_string_equal(list.name[1], "beta");
	assert_string_equal(list.name[2], c.name);
	runtime_list_free(&list);
	runtime_close(&c);
	assert_int_equal(runtime_find("gamma", &dir, &err), -ENOENT);
	assert_string_equal(err.msg, "no machine named 'gamma' runs; there are alpha, beta");
	assert_int_equal(runtime_find("../alpha", &dir, &err), -EINVAL);
	assert_int_equal(runtime_find("beta", &dir, &err), 0);
	assert_true(runtime_alive(dir));
	runtime_close(&b);
	assert_false(runtime_alive(dir));
	close(dir);
	close(fd);
	runtime_close(&a);
	assert_int_equal(runtime_find("alpha", &dir, &err), -ENOENT);
}

/* A process that is killed leaves its folder; whoever comes next removes it, or takes it over. */
static void leave_stale(const char *name)
{
	pid_t child = fork();

	if (!child) {
		struct runtime r;
		int fd;

		if (runtime_open(name, &r, NULL) || sock_listen(r.dir, "serial.sock", &fd, NULL))
			_exit(1);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(child, &(int){ 0 }, 0), child);
}

static void test_stale(void **state)
{
	struct runtime_list list;
	struct runtime r;
	struct err err = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "%s/gone/serial.sock", base);
	leave_stale("gone");
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(runtime_open("gone", &r, &err), 0);
	assert_int_equal(access(path, F_OK), -1);
	runtime_close(&r);
	leave_stale("gone");
	assert_int_equal(runtime_list(&list, &err), 0);
	assert_int_equal(list.nr, 0);
	runtime_list_free(&list);
	path[strlen(base) + 5] = 0;
	assert_int_equal(access(path, F_OK), -1);
}

/* Many that open, close and look for one name at the same time: at most one has it, and nothing is left. */
static void test_races(void **state)
{
	pid_t child[6];
	char path[64];
	unsigned wins = 0;

	snprintf(path, sizeof(path), "%s/mutex", base);
	for (unsigned i = 0; i < ARRAY_SIZE(child); i++) {
		child[i] = fork();
		if (child[i])
			continue;
		for (unsigned k = 0; k < 100; k++) {
			struct runtime_list list;
			struct runtime r;
			int fd;

			if (i & 1) {
				if (runtime_list(&list, NULL))
					_exit(100);
				runtime_list_free(&list);
				continue;
			}
			if (runtime_open("one", &r, NULL))
				continue;
			fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
			if (fd < 0 || unlink(path) < 0)
				_exit(101); /* somebody else is here */
			close(fd);
			wins = 1;
			runtime_close(&r);
		}
		_exit(wins ? 1 : i & 1 ? 0 : 2);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(child); i++) {
		int status = 0;

		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 100);
	}
	unlink(path);
}

static void test_refused_bases(void **state)
{
	struct runtime_list list;
	struct runtime r;
	struct err err = { 0 };
	char link[64];

	assert_int_equal(setenv("BOTHY_RUNTIME_DIR", "/nowhere/at/all", 1), 0);
	assert_int_equal(runtime_open("a", &r, &err), -ENOENT);
	assert_int_equal(runtime_list(&list, &err), 0);
	assert_int_equal(list.nr, 0);
	snprintf(link, sizeof(link), "%s-link", base);
	assert_int_equal(symlink(base, link), 0);
	assert_int_equal(setenv("BOTHY_RUNTIME_DIR", link, 1), 0);
	assert_true(runtime_open("a", &r, &err) < 0);
	unlink(link);
	assert_int_equal(setenv("BOTHY_RUNTIME_DIR", base, 1), 0);
	assert_int_equal(chmod(base, 0777), 0);
	assert_int_equal(runtime_open("a", &r, &err), -EPERM);
	assert_int_equal(chmod(base, 0700), 0);
	assert_int_equal(runtime_open("a", &r, &err), 0);
	runtime_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),        cmocka_unit_test(test_parameters),
		cmocka_unit_test(test_failures),      cmocka_unit_test(test_description),
		cmocka_unit_test(test_names),         cmocka_unit_test(test_folders),
		cmocka_unit_test(test_stale),         cmocka_unit_test(test_races),
		cmocka_unit_test(test_refused_bases),
	};

	return cmocka_run_group_tests(tests, make_base, remove_base);
}
