/* What the commands about running machines share. */
#include "cli/vmname.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"

#if HAVE_API
#include "api/api.h"
#include "api/client.h"
#include "api/runtime.h"
#endif

static volatile sig_atomic_t caught;

int vmname_parse(const struct opt *opts, int argc, char **argv, void *target, const char **ret_name,
		 struct err *err)
{
	int used = 0, rc = opts_parse_front(opts, argc, argv, target, &used, err);

	if (rc)
		return rc;
	if (used == argc)
		return err_set(err, -EINVAL, "a machine's NAME is missing; bothy ps lists those that run");
	*ret_name = argv[used];
	return opts_parse(opts, argc - used - 1, argv + used + 1, target, err);
}

/* With the unit in which it is at least 1 and below `limit`; with a digit behind the point below `fine`. */
static const char *scaled(double n, double step, double limit, double fine, const char *const *units,
			  char *buf)
{
	unsigned u = 0;

	for (; n >= limit && units[u + 1]; u++)
		n /= step;
	snprintf(buf, VMNAME_TEXT, u && n < fine ? "%.1f%s" : "%.0f%s", n, units[u]);
	return buf;
}

const char *vmname_bytes(double n, char buf[VMNAME_TEXT])
{
	static const char *const units[] = { "", " KiB", " MiB", " GiB", " TiB", NULL };

	return scaled(n, 1024, 1024, 10, units, buf);
}

const char *vmname_count(double n, char buf[VMNAME_TEXT])
{
	static const char *const units[] = { "", "k", "M", "G", "T", NULL };

	return scaled(n, 1000, 10000, 100, units, buf);
}

const char *vmname_time(double seconds, char buf[VMNAME_TEXT])
{
	u64 s = (u64)seconds;

	if (s < 60)
		snprintf(buf, VMNAME_TEXT, "%.1f s", seconds);
	else if (s < 86400)
		snprintf(buf, VMNAME_TEXT, "%llu:%02llu:%02llu", (unsigned long long)s / 3600,
			 (unsigned long long)s / 60 % 60, (unsigned long long)s % 60);
	else
		snprintf(buf, VMNAME_TEXT, "%llu d %02llu:%02llu", (unsigned long long)s / 86400,
			 (unsigned long long)s / 3600 % 24, (unsigned long long)s / 60 % 60);
	return buf;
}

static void on_signal(int sig)
{
	caught = 1;
}

void vmname_catch_signals(void)
{
	/* Without SA_RESTART: what waits comes back. */
	const struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

bool vmname_wait(double seconds, int *ret_key)
{
	u64 end = os_now_ns() + (u64)(seconds * 1e9), now;

	if (ret_key)
		*ret_key = 0;
	while (!caught && (now = os_now_ns()) < end) {
		struct pollfd pfd = { .fd = ret_key ? STDIN_FILENO : -1, .events = POLLIN };
		char key;

		if (poll(&pfd, 1, (int)((end - now) / 1000000) + 1) <= 0 || !ret_key)
			continue;
		if (read(STDIN_FILENO, &key, 1) == 1)
			*ret_key = key;
		else
			return false;
		break;
	}
	return !caught;
}

#if HAVE_API
int vmname_call(const char *name, const char *verb, const char *path, const json_t *body, json_t **ret_result,
		struct err *err)
{
	int dir = -1, rc = runtime_find(name, &dir, err);

	if (rc)
		return rc;
	rc = client_call(dir, verb, path, body, ret_result, err);
	close(dir);
	return rc;
}

double vmname_number(const json_t *object, const char *member)
{
	return json_number_value(json_object_get(object, member));
}

const char *vmname_string(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "?";
}

void vmname_print_json(const json_t *value)
{
	char *text = api_text(value);

	if (text)
		fputs(text, stdout);
	free(text);
	fflush(stdout);
}
#else
int vmname_unsupported(struct err *err)
{
	return err_set(
		err, -ENOTSUP,
		"this bothy was built without libmicrohttpd or jansson, so machines have no control socket");
}
#endif
