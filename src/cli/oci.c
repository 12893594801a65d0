/* bothy oci: what podman (through conmon), containerd (through its runc shim) and Docker call, and a person may.
 *
 * Options and output are those that clients of OCI runtimes expect. Options come before the id; what follows the id is
 * the command's own. With --log messages and the failure go to that file as well, as lines of JSON with --log-format
 * json, since the standard error of create belongs to the container from then on.
 */
#include "cli/oci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/help.h"

#if HAVE_JANSSON
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/os.h"
#include "base/params.h"
#include "oci/checkpoint.h"
#include "oci/container.h"
#include "oci/container_exec.h"
#include "oci/report.h"
#include "oci/selfcopy.h"
#include "oci/spec.h"

#define MAX_LIST 256

/* What all commands have in common. */
struct oci_options {
	const char *log, *log_format, *cgroup_manager, *rootless;
	bool debug;
	struct container_options container;
	struct checkpoint_options checkpoint;

	/* of single commands */
	const char *format, *process_file, *cwd, *user, *resources, *apparmor, *selinux;
	const char *env[MAX_LIST], *caps[MAX_LIST], *groups[MAX_LIST];
	unsigned env_count, cap_count, group_count;
	bool all, force, detach, tty, no_new_privs, quiet, stats, rootless_spec, no_subreaper, keep,
		ignore_paused;
	const char *interval;
	const char *memory, *memory_reservation, *memory_swap, *kernel_memory, *kernel_memory_tcp,
		*cpu_shares, *cpu_quota, *cpu_burst, *cpu_period, *cpu_rt_runtime, *cpu_rt_period, *cpu_idle,
		*cpus, *mems, *pids, *io_weight;
};

static struct oci_options oci; /* one process, one command */
static int log_fd = -1;

static void write_log(const char *level, const char *text)
{
	char line[8192], time_text[64];
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(time_text, sizeof(time_text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (!oci.log_format || strcmp(oci.log_format, "json") != 0) {
		n = (size_t)snprintf(line, sizeof(line), "time=\"%s\" level=%s msg=\"", time_text, level);
	} else {
		n = (size_t)snprintf(line, sizeof(line), "{\"level\":\"%s\",\"time\":\"%s\",\"msg\":\"",
				     level, time_text);
	}
	for (; *text && n < sizeof(line) - 16; text++) {
		u8 c = (u8)*text;

		/* Bytes that are no ASCII may be no UTF-8 either. */
		if (c == '"' || c == '\\')
			n += (size_t)sprintf(line + n, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			line[n++] = '?';
		else
			line[n++] = (char)c;
	}
	n += (size_t)sprintf(line + n, "%s",
			     oci.log_format && !strcmp(oci.log_format, "json") ? "\"}\n" : "\"\n");
	os_write_all(log_fd, line, n);
}

static void log_sink(enum log_level level, const char *text)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };

	write_log(names[level], text);
}

static int open_log(struct err *err)
{
	if (oci.debug)
		log_set_level(LOG_DEBUG);
	if (!oci.log || !*oci.log)
		return 0;
	log_fd = open(oci.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
	if (log_fd < 0)
		return err_sys(err, -errno, "--log: cannot open '%s'", oci.log);
	log_set_sink(log_sink);
	return 0;
}

/* The id, and how many words may follow it. */
static int take_id(const struct command *c, int argc, char **argv, int max_more, const char **ret_id,
		   struct err *err)
{
	if (argc < 1)
		return err_set(err, -EINVAL, "%s needs the id of a container: bothy %s %s",
			       strrchr(c->name, ' ') + 1, c->name, c->synopsis);
	if (argc - 1 > max_more)
		return err_set(err, -EINVAL, "%s: '%.64s' is one word too many; options come before the id",
			       strrchr(c->name, ' ') + 1, argv[1 + max_more]);
	*ret_id = argv[0];
	return 0;
}

static int print_text(char *text, struct err *err)
{
	if (!text)
		return err->code;
	fputs(text, stdout);
	if (text[0] && text[strlen(text) - 1] != '\n')
		fputc('\n', stdout);
	free(text);
	return 0;
}

/* --- commands --- */

static int run_create(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	return rc ? rc : container_create(&oci.container, id, err);
}

static int run_start(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	return rc ? rc : container_start(&oci.container, id, err);
}

static int run_run(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int status = 0, rc = take_id(c, argc, argv, 0, &id, err);

	oci.container.stay = !oci.detach;
	oci.container.keep = oci.keep;
	if (!rc)
		rc = container_run(&oci.container, id, &status, err);
	return rc ? rc : status;
}

int oci_parse_signal(const char *text, int *ret_signal, struct err *err)
{
	const char *name = strncmp(text, "SIG", 3) ? text : text + 3;
	char *end;
	long n = strtol(text, &end, 10);

	if (end != text && !*end && n >= 0 && n <= SIGRTMAX) {
		*ret_signal = (int)n;
		return 0;
	}
	for (int i = 1; i < SIGRTMIN; i++) {
		if (sigabbrev_np(i) && !strcmp(sigabbrev_np(i), name)) {
			*ret_signal = i;
			return 0;
		}
	}
	n = 0;
	if (!strncmp(name, "RTMIN", 5) && (!name[5] || name[5] == '+'))
		n = SIGRTMIN + strtol(name + 5, &end, 10);
	else if (!strncmp(name, "RTMAX", 5) && (!name[5] || name[5] == '-'))
		n = SIGRTMAX + strtol(name + 5, &end, 10);
	if (n < SIGRTMIN || n > SIGRTMAX || *end)
		return err_set(err, -EINVAL, "'%.32s' is no signal; give a name such as TERM, or a number",
			       text);
	*ret_signal = (int)n;
	return 0;
}

static int run_kill(const struct command *c, int argc, char **argv, struct err *err)
{
	int signal = SIGTERM, rc;
	const char *id = NULL;

	rc = take_id(c, argc, argv, 1, &id, err);
	if (!rc && argc > 1)
		rc = oci_parse_signal(argv[1], &signal, err);
	return rc ? rc : container_kill(&oci.container, id, signal, oci.all, err);
}

static int run_delete(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	return rc ? rc : container_delete(&oci.container, id, oci.force, err);
}

static int run_pause(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	return rc ? rc : container_freeze(&oci.container, id, !strcmp(c->name, "oci pause"), err);
}

/* Opens a container's state for a report. */
static int open_status(const struct command *c, int argc, char **argv, int max_more,
		       struct status *ret_status, struct err *err)
{
	const char *id = NULL;
	int root, rc = take_id(c, argc, argv, max_more, &id, err);

	if (!rc)
		rc = status_open_root(oci.container.root, &root, err);
	if (rc)
		return rc;
	rc = status_open(root, id, false, ret_status, err);
	close(root);
	return rc;
}

static int run_state(const struct command *c, int argc, char **argv, struct err *err)
{
	struct status s;
	int rc = open_status(c, argc, argv, 0, &s, err);

	if (rc)
		return rc;
	rc = print_text(report_state(&s, err), err);
	status_close(&s);
	return rc;
}

static int run_ps(const struct command *c, int argc, char **argv, struct err *err)
{
	bool json = oci.format && !strcmp(oci.format, "json");
	struct status s;
	int rc = open_status(c, argc, argv, 64, &s, err);

	if (rc)
		return rc;
	rc = print_text(report_processes(&s, json, argc > 1 ? (const char *const *)argv + 1 : NULL, err),
			err);
	status_close(&s);
	return rc;
}

static int run_list(const struct command *c, int argc, char **argv, struct err *err)
{
	int root, rc;

	if (argc)
		return err_set(err, -EINVAL, "list: '%.64s' is one word too many", argv[0]);
	rc = status_open_root(oci.container.root, &root, err);
	if (rc)
		return rc;
	rc = print_text(report_list(root, oci.format && !strcmp(oci.format, "json"), oci.quiet, err), err);
	close(root);
	return rc;
}

/* "5", "5s" and "1m30s" as other runtimes' callers write a time: containerd gives --interval=5s. */
static int parse_interval(const char *text, u64 *ret_ns, struct err *err)
{
	static const struct {
		const char *unit;
		u64 ns;
	} units[] = { { "ms", 1000000 }, { "s", 1000000000 }, { "m", 60000000000 }, { "h", 3600000000000 } };
	u64 sum = 0;
	const char *p = text;

	while (*p >= '0' && *p <= '9' && strlen(text) < 16) {
		char *end;
		u64 n = strtoul(p, &end, 10), unit = 0;
		size_t len = strspn(end, "hms");

		if (!*end && p == text)
			unit = 1000000000;
		for (unsigned i = 0; i < ARRAY_SIZE(units); i++)
			if (len == strlen(units[i].unit) && !strncmp(end, units[i].unit, len))
				unit = units[i].ns;
		if (!unit || n > 86400000)
			break;
		sum += n * unit;
		p = end + len;
	}
	if (*p || p == text || sum < 1000000 || sum > 86400000000000ull)
		return err_set(
			err, -EINVAL,
			"--interval: '%.32s' is no time from 1ms to 24h; give seconds, or as 500ms, 5s, 1m30s",
			text);
	*ret_ns = sum;
	return 0;
}

/* Reports at intervals, and a line at once, as far as a look ten times a second is that, for each kill for want of memory. */
static int follow_events(const struct status *s, struct err *err)
{
	u64 interval = 0, next = os_now_ns();
	s64 before = report_oom_kills(s);
	int rc = parse_interval(oci.interval ? oci.interval : "5s", &interval, err);

	while (!rc) {
		s64 now = report_oom_kills(s);
		bool running = status_phase(s) != STATUS_STOPPED;

		for (; before >= 0 && before < now && !rc; before++)
			rc = print_text(report_oom(s, err), err);
		if (!rc && running && os_now_ns() >= next) {
			rc = print_text(report_stats(s, err), err);
			next += interval;
			/* As often as it can be done, where that is less often. */
			next = MAX(next, os_now_ns());
		}
		if (fflush(stdout) || !running)
			break;
		usleep((useconds_t)MIN(100000, interval / 1000));
	}
	return rc;
}

static int run_events(const struct command *c, int argc, char **argv, struct err *err)
{
	struct status s;
	int rc = open_status(c, argc, argv, 0, &s, err);

	if (rc)
		return rc;
	if (!oci.stats)
		rc = follow_events(&s, err);
	else if (status_phase(&s) == STATUS_STOPPED)
		rc = err_set(err, -ESRCH, "container not running: '%s' is stopped", s.id);
	else
		rc = print_text(report_stats(&s, err), err);
	status_close(&s);
	return rc;
}

static int run_exec(const struct command *c, int argc, char **argv, struct err *err)
{
	struct container_exec e = {
		.process_file = oci.process_file,
		.cwd = oci.cwd,
		.user = oci.user,
		.env = oci.env,
		.env_count = oci.env_count,
		.caps = oci.caps,
		.cap_count = oci.cap_count,
		.terminal = oci.tty,
		.no_new_privileges = oci.no_new_privs,
		.detach = oci.detach,
		.apparmor = oci.apparmor,
		.selinux = oci.selinux,
		.ignore_paused = oci.ignore_paused,
	};
	static u32 groups[MAX_LIST];
	const char *id = NULL;
	int status = 0, rc = take_id(c, argc, argv, argc, &id, err);

	if (rc)
		return rc;
	e.args = (const char *const *)argv + 1;
	for (unsigned i = 0; i < oci.group_count; i++) {
		char *end;
		unsigned long gid = strtoul(oci.groups[i], &end, 10);

		if (end == oci.groups[i] || *end || gid >= UINT32_MAX)
			return err_set(err, -EINVAL, "--additional-gids: '%.32s' is no group id",
				       oci.groups[i]);
		groups[i] = (u32)gid;
	}
	e.groups = groups;
	e.group_count = oci.group_count;
	rc = container_exec(&oci.container, id, &e, &status, err);
	return rc ? rc : status;
}

static int run_spec(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *dir = oci.container.bundle;
	char *text;
	int fd, rc;

	if (argc)
		return err_set(err, -EINVAL, "spec: '%.64s' is one word too many", argv[0]);
	if (dir && chdir(dir) < 0)
		return err_sys(err, -errno, "--bundle: cannot enter '%s'", dir);
	text = spec_default(oci.rootless_spec, geteuid(), getegid());
	if (!text)
		return err_set(err, -ENOMEM, "no memory for a configuration");
	fd = open("config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0) {
		rc = errno == EEXIST ? err_set(err, -EEXIST, "config.json is there already; remove it first")
				     : err_sys(err, -errno, "cannot write config.json");
	} else {
		rc = os_write_all(fd, text, strlen(text));
		if (!rc)
			rc = os_write_all(fd, "\n", 1);
		if (rc)
			err_sys(err, rc, "cannot write config.json");
		close(fd);
	}
	free(text);
	return rc;
}

static int run_features(const struct command *c, int argc, char **argv, struct err *err)
{
	if (argc)
		return err_set(err, -EINVAL, "features: '%.64s' is one word too many", argv[0]);
	return print_text(report_features(), err);
}

/* --- checkpoint, restore --- */

static int need_images(struct err *err)
{
	if (!oci.checkpoint.images)
		oci.checkpoint.images = "checkpoint";
	if (oci.checkpoint.images[0])
		return 0;
	return err_set(err, -EINVAL, "--image-path: is empty; give a folder");
}

static int run_checkpoint(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	if (!rc)
		rc = need_images(err);
	return rc ? rc : container_checkpoint(&oci.container, id, &oci.checkpoint, err);
}

static int run_restore(const struct command *c, int argc, char **argv, struct err *err)
{
	const char *id = NULL;
	char *images, *work;
	int status = 0, rc = take_id(c, argc, argv, 0, &id, err);

	if (!rc)
		rc = need_images(err);
	if (rc)
		return rc;
	/* The bundle becomes the working directory. */
	images = realpath(oci.checkpoint.images, NULL);
	if (!images)
		return err_sys(err, -errno, "--image-path: cannot find '%.200s'", oci.checkpoint.images);
	oci.checkpoint.images = images;
	if (oci.checkpoint.work && mkdir(oci.checkpoint.work, 0700) < 0 && errno != EEXIST)
		rc = err_sys(err, -errno, "--work-path: cannot make '%.200s'", oci.checkpoint.work);
	work = oci.checkpoint.work && !rc ? realpath(oci.checkpoint.work, NULL) : NULL;
	oci.checkpoint.work = work;
	oci.container.restore = &oci.checkpoint;
	oci.container.stay = !oci.detach;
	if (!rc)
		rc = container_run(&oci.container, id, &status, err);
	free(images);
	free(work);
	return rc ? rc : status;
}

/* --- update --- */

static int parse_limit(const char *option, const char *text, bool bytes, struct limits_value *v,
		       struct err *err)
{
	char *end;

	if (!text)
		return 0;
	errno = 0;
	v->v = strtoll(text, &end, 10);
	if (bytes && text[0] != '-') {
		u64 size;

		if (params_parse_size(text, &size) || size > INT64_MAX)
			return err_set(err, -EINVAL,
				       "--%s: '%.32s' is no size; give bytes, or a number with K, M, G",
				       option, text);
		v->v = (s64)size;
	} else if (errno || end == text || *end || v->v < -1) {
		return err_set(err, -EINVAL, "--%s: '%.32s' is no number", option, text);
	}
	v->set = true;
	return 0;
}

static int option_limits(struct limits *l, struct err *err)
{
	const struct {
		const char *option, *text;
		struct limits_value *value;
		bool bytes;
	} rows[] = {
		{ "memory", oci.memory, &l->memory, true },
		{ "memory-reservation", oci.memory_reservation, &l->memory_reservation, true },
		{ "memory-swap", oci.memory_swap, &l->memory_swap, true },
		{ "kernel-memory", oci.kernel_memory, &l->kernel_memory, true },
		{ "kernel-memory-tcp", oci.kernel_memory_tcp, &l->kernel_memory_tcp, true },
		{ "cpu-share", oci.cpu_shares, &l->cpu_shares, false },
		{ "cpu-quota", oci.cpu_quota, &l->cpu_quota, false },
		{ "cpu-burst", oci.cpu_burst, &l->cpu_burst, false },
		{ "cpu-period", oci.cpu_period, &l->cpu_period, false },
		{ "cpu-rt-runtime", oci.cpu_rt_runtime, &l->cpu_rt_runtime, false },
		{ "cpu-rt-period", oci.cpu_rt_period, &l->cpu_rt_period, false },
		{ "cpu-idle", oci.cpu_idle, &l->cpu_idle, false },
		{ "pids-limit", oci.pids, &l->pids, false },
		{ "blkio-weight", oci.io_weight, &l->io_weight, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		int rc = parse_limit(rows[i].option, rows[i].text, rows[i].bytes, rows[i].value, err);

		if (rc)
			return rc;
	}
	if (oci.cpus)
		l->cpus = oci.cpus;
	if (oci.mems)
		l->mems = oci.mems;
	return 0;
}

/* All of standard input, which may be a pipe. */
static int read_stdin(char **ret_text, size_t *ret_len, struct err *err)
{
	size_t len = 0, room = 65536;
	char *text = malloc(room);
	ssize_t n;

	while (text && (n = read(STDIN_FILENO, text + len, room - len)) > 0) {
		len += (size_t)n;
		if (len > 16 * MiB)
			break;
		if (len == room) {
			char *more = realloc(text, room *= 2);

			if (!more) {
				free(text);
				text = NULL;
			} else {
				text = more;
			}
		}
	}
	if (!text)
		return err_set(err, -ENOMEM, "no memory for the resources");
	*ret_text = text;
	*ret_len = len;
	return 0;
}

static int run_update(const struct command *c, int argc, char **argv, struct err *err)
{
	struct jtable_document doc = { 0 };
	struct limits limits = { 0 };
	bool devices = false;
	const char *id = NULL;
	int rc = take_id(c, argc, argv, 0, &id, err);

	if (!rc && oci.resources) {
		char *text = NULL;
		size_t len = 0;

		if (!strcmp(oci.resources, "-")) {
			rc = read_stdin(&text, &len, err);
		} else {
			void *data = NULL;

			rc = os_read_file(oci.resources, 16 * MiB, &data, &len, err);
			text = rc ? NULL : data;
		}
		if (!rc)
			rc = spec_open_limits(&doc, text, len, &limits, err);
		free(text);
		devices = !rc && json_array_size(json_object_get(doc.root, "devices"));
	}
	if (!rc)
		rc = option_limits(&limits, err);
	if (!rc)
		rc = container_update(&oci.container, id, &limits, devices, err);
	jtable_close(&doc);
	return rc;
}

/* --- tables --- */

static const char *format_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "table", "json" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const char *log_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "text", "json" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const char *manager_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "cgroupfs", "the runtime makes control groups itself" },
		{ "systemd", "systemd does, as with --systemd-cgroup" },
		{ "disabled", "the container stays in the caller's" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

#define OFF(m) .offset = offsetof(struct oci_options, m)
#define STR(n, a, m, h)                                                          \
	{                                                                        \
		.name = (n), .kind = OPT_STRING, .arg = (a), .help = (h), OFF(m) \
	}
#define FILE_OPT(n, a, m, h)                                                                      \
	{                                                                                         \
		.name = (n), .kind = OPT_STRING, .arg = (a), .help = (h), .is_file = true, OFF(m) \
	}
#define FLAG(n, m, h)                                              \
	{                                                          \
		.name = (n), .kind = OPT_FLAG, .help = (h), OFF(m) \
	}
#define LIST(n, l, a, m, c, h)                                                                 \
	{                                                                                      \
		.name = (n), .letter = (l), .kind = OPT_LIST, .arg = (a), .help = (h),         \
		.max_count = MAX_LIST, OFF(m), .count_offset = offsetof(struct oci_options, c) \
	}
#define BUNDLE                                                                                         \
	{                                                                                              \
		.name = "bundle", .letter = 'b', .kind = OPT_STRING, .arg = "FOLDER", .is_file = true, \
		.help = "The folder with config.json.", .default_text = "the working directory",       \
		OFF(container.bundle)                                                                  \
	}
#define PID_FILE FILE_OPT("pid-file", "FILE", container.pid_file, "Write the process's id there.")
#define CONSOLE                                                        \
	FILE_OPT("console-socket", "SOCKET", container.console_socket, \
		 "A unix socket whose listener gets the other end of the container's terminal.")
#define PRESERVE                                                                       \
	{                                                                              \
		.name = "preserve-fds", .kind = OPT_U32, .arg = "N", .max = 4096,      \
		OFF(container.preserve_fds),                                           \
		.help = "Hand on N descriptors after standard error to the container." \
	}
#define NO_PIVOT                             \
	FLAG("no-pivot", container.no_pivot, \
	     "Change the root by chroot: on a host that runs from an initramfs.")
#define DETACH                                                                                              \
	{                                                                                                   \
		.name = "detach", .letter = 'd', .kind = OPT_FLAG, .help = "Leave it running.", OFF(detach) \
	}
#define KEYRING FLAG("no-new-keyring", container.no_keyring, "Make no session keyring for the container.")
#define END                  \
	{                    \
		.name = NULL \
	}
#define FORMAT                                                                                               \
	{                                                                                                    \
		.name = "format", .letter = 'f', .kind = OPT_STRING, .arg = "FORMAT",                        \
		.help = "Form of the output.", .choice = format_choice, .default_text = "table", OFF(format) \
	}

static const struct opt global_opts[] = {
	FILE_OPT("root", "FOLDER", container.root,
		 "Where the state of containers is; /run/bothy-oci for root, else "
		 "$XDG_RUNTIME_DIR/bothy-oci."),
	FILE_OPT("log", "FILE", log, "Append messages and failures to a file."),
	{ .name = "log-format",
	  .kind = OPT_STRING,
	  .arg = "FORMAT",
	  .help = "Form of the lines in that file.",
	  .choice = log_choice,
	  .default_text = "text",
	  OFF(log_format) },
	FLAG("debug", debug, "Say more."),
	FLAG("systemd-cgroup", container.systemd,
	     "Have systemd make the control group, as a scope; linux.cgroupsPath is SLICE:PREFIX:NAME then."),
	{ .name = "cgroup-manager",
	  .kind = OPT_STRING,
	  .arg = "MANAGER",
	  .help = "Who makes control groups.",
	  .choice = manager_choice,
	  .default_text = "cgroupfs",
	  OFF(cgroup_manager) },
	{ .name = "rootless",
	  .kind = OPT_STRING,
	  .arg = "BOOL",
	  .optional = "true",
	  .help = "Accepted for other runtimes' callers; whether privileges are there is found out.",
	  OFF(rootless) },
	END,
};

static const struct opt create_opts[] = {
	BUNDLE, PID_FILE, CONSOLE, PRESERVE, KEYRING, NO_PIVOT, END,
};

static const struct opt run_opts[] = {
	BUNDLE,
	PID_FILE,
	CONSOLE,
	PRESERVE,
	KEYRING,
	NO_PIVOT,
	DETACH,
	FLAG("keep", keep, "Do not delete the container when it has ended."),
	FLAG("no-subreaper", no_subreaper, "Accepted for other runtimes' callers; never done."),
	END,
};

static const struct opt exec_opts[] = {
	{ .name = "process",
	  .letter = 'p',
	  .kind = OPT_STRING,
	  .arg = "FILE",
	  .is_file = true,
	  OFF(process_file),
	  .help = "The process object of a configuration, instead of a program and the options below." },
	PID_FILE,
	CONSOLE,
	PRESERVE,
	KEYRING,
	DETACH,
	{ .name = "tty", .letter = 't', .kind = OPT_FLAG, .help = "Give it a terminal.", OFF(tty) },
	{ .name = "user",
	  .letter = 'u',
	  .kind = OPT_STRING,
	  .arg = "UID[:GID]",
	  .help = "Who it runs as, as numbers.",
	  OFF(user) },
	STR("cwd", "FOLDER", cwd, "Its working directory in the container."),
	LIST("env", 'e', "NAME=VALUE", env, env_count, "One more variable of the environment."),
	LIST("cap", 'c', "CAPABILITY", caps, cap_count, "One more capability, as CAP_NET_ADMIN."),
	LIST("additional-gids", 'g', "GID", groups, group_count, "One more group."),
	FLAG("no-new-privs", no_new_privs, "It gains nothing by executing set-user-ID programs."),
	STR("apparmor", "PROFILE", apparmor, "Its AppArmor profile."),
	STR("process-label", "LABEL", selinux, "Its SELinux label."),
	FLAG("ignore-paused", ignore_paused,
	     "Go into a container that is paused: the program waits until it goes on."),
	END,
};

static const struct opt kill_opts[] = {
	{ .name = "all",
	  .letter = 'a',
	  .kind = OPT_FLAG,
	  .help = "All processes of the container.",
	  OFF(all) },
	END,
};

static const struct opt delete_opts[] = {
	{ .name = "force",
	  .letter = 'f',
	  .kind = OPT_FLAG,
	  OFF(force),
	  .help = "Kill it first where it runs; it is no failure if there is none." },
	END,
};

static const struct opt list_opts[] = {
	FORMAT,
	{ .name = "quiet", .letter = 'q', .kind = OPT_FLAG, .help = "Print ids alone.", OFF(quiet) },
	END,
};

static const struct opt ps_opts[] = { FORMAT, END };

static const struct opt events_opts[] = {
	FLAG("stats", stats, "Print once and end."),
	{ .name = "interval",
	  .kind = OPT_STRING,
	  .arg = "TIME",
	  .help = "Time between two reports, in seconds, or as 500ms or 1m30s.",
	  .default_text = "5s",
	  OFF(interval) },
	END,
};

static const struct opt spec_opts[] = {
	BUNDLE,
	FLAG("rootless", rootless_spec, "For a user without privileges."),
	END,
};

#define IMAGES                                                                                              \
	FILE_OPT("image-path", "FOLDER", checkpoint.images,                                                 \
		 "The folder of the images; ./checkpoint if not given."),                                   \
		FILE_OPT("work-path", "FOLDER", checkpoint.work,                                            \
			 "Where CRIU's log goes; else beside the images."),                                 \
		FLAG("tcp-established", checkpoint.tcp_established, "With connections of TCP."),            \
		FLAG("ext-unix-sk", checkpoint.ext_unix_sk, "With sockets whose other end is outside."),    \
		FLAG("shell-job", checkpoint.shell_job,                                                     \
		     "With a session, or a terminal, that is from outside."),                               \
		FLAG("file-locks", checkpoint.file_locks, "With locks on files."),                          \
		FLAG("auto-dedup", checkpoint.auto_dedup, "Keep no page twice, here and in the parent's."), \
		FLAG("lazy-pages", checkpoint.lazy_pages,                                                   \
		     "Memory comes when it is touched, from a page server."),                               \
		STR("manage-cgroups-mode", "MODE", checkpoint.cgroup_mode,                                  \
		    "soft, full or strict: CRIU sees to control groups too; else the runtime alone."),      \
		STR("empty-ns", "KIND", checkpoint.empty_ns, "network: it is left empty.")

static const struct opt checkpoint_opts[] = {
	IMAGES,
	STR("parent-path", "FOLDER", checkpoint.parent,
	    "Images of a pre-dump, from the folder of the images."),
	STR("page-server", "ADDRESS:PORT", checkpoint.page_server,
	    "Memory goes there instead of into files."),
	STR("status-fd", "N", checkpoint.status_fd,
	    "A descriptor that CRIU writes to when memory can be fetched."),
	FLAG("leave-running", checkpoint.leave_running, "The container goes on."),
	FLAG("pre-dump", checkpoint.pre_dump,
	     "Memory alone, for a later checkpoint with --parent-path; it goes on."),
	END,
};

static const struct opt restore_opts[] = {
	BUNDLE,
	PID_FILE,
	CONSOLE,
	DETACH,
	NO_PIVOT,
	FLAG("no-subreaper", no_subreaper, "Accepted for other runtimes' callers; never done."),
	IMAGES,
	STR("lsm-profile", "TYPE:NAME", checkpoint.lsm_profile,
	    "The label of the processes, instead of theirs."),
	STR("lsm-mount-context", "LABEL", checkpoint.lsm_mount_context,
	    "The label of mounts, instead of theirs."),
	END,
};

static const struct opt update_opts[] = {
	{ .name = "resources",
	  .letter = 'r',
	  .kind = OPT_STRING,
	  .arg = "FILE",
	  .is_file = true,
	  OFF(resources),
	  .help = "The resources object of a configuration; '-' is standard input. The options below come on top." },
	STR("memory", "SIZE", memory, "Memory; -1: no limit."),
	STR("memory-reservation", "SIZE", memory_reservation, "Memory it keeps when memory is short."),
	STR("memory-swap", "SIZE", memory_swap, "Memory and swap together; -1: no limit."),
	STR("kernel-memory", "SIZE", kernel_memory, "Memory of the kernel, where it is counted."),
	STR("kernel-memory-tcp", "SIZE", kernel_memory_tcp, "Memory of TCP buffers, where it is counted."),
	STR("cpu-share", "N", cpu_shares, "Weight of its processor time, 2 to 262144."),
	STR("cpu-quota", "MICROSECONDS", cpu_quota, "Processor time per period; -1: no limit."),
	STR("cpu-burst", "MICROSECONDS", cpu_burst, "Unused quota that may be saved up."),
	STR("cpu-period", "MICROSECONDS", cpu_period, "The period."),
	STR("cpu-rt-runtime", "MICROSECONDS", cpu_rt_runtime, "Real-time processor time per period."),
	STR("cpu-rt-period", "MICROSECONDS", cpu_rt_period, "Its period."),
	STR("cpu-idle", "0|1", cpu_idle, "Whether it runs only when nobody else wants to."),
	STR("cpuset-cpus", "LIST", cpus, "Processors, as 0-2,4."),
	STR("cpuset-mems", "LIST", mems, "Memory nodes."),
	STR("pids-limit", "N", pids, "Processes and threads; -1: no limit."),
	STR("blkio-weight", "N", io_weight, "Weight of its disk accesses, 10 to 1000."),
	END,
};

#define COMMAND(id, text, syn, table, fn, more)                      \
	static const struct command id##_row = { .name = "oci " #id, \
						 .summary = (text),  \
						 .synopsis = (syn),  \
						 .opts = (table),    \
						 .run = (fn),        \
						 .about = (more) }
COMMAND(create, "make a container, up to the point before its program", "[OPTIONS] ID", create_opts,
	run_create, "The process waits in its namespaces for 'start'.");
COMMAND(start, "let a container that was created run its program", "ID", NULL, run_start, NULL);
COMMAND(run, "create and start, and stay until it ends", "[OPTIONS] ID", run_opts, run_run, NULL);
COMMAND(state, "print a container's state as JSON", "ID", NULL, run_state, NULL);
COMMAND(kill, "send a signal to a container's first process", "[OPTIONS] ID [SIGNAL]", kill_opts, run_kill,
	"The signal is a name or a number; without one it is TERM.");
COMMAND(delete, "remove a container that has stopped", "[OPTIONS] ID", delete_opts, run_delete, NULL);
COMMAND(exec, "run a further program in a container", "[OPTIONS] ID PROGRAM [ARGUMENT ...]", exec_opts,
	run_exec, NULL);
COMMAND(list, "list containers", "[OPTIONS]", list_opts, run_list, NULL);
COMMAND(ps, "list the processes of a container", "[OPTIONS] ID [PS-OPTION ...]", ps_opts, run_ps, NULL);
COMMAND(pause, "freeze a container's processes", "ID", NULL, run_pause, NULL);
COMMAND(resume, "let them go on", "ID", NULL, run_pause, NULL);
COMMAND(update, "change a container's limits", "[OPTIONS] ID", update_opts, run_update, NULL);
COMMAND(events, "print what a container uses and each kill for want of memory, as JSON", "[OPTIONS] ID",
	events_opts, run_events, NULL);
COMMAND(checkpoint, "write a container's processes to files, and end it", "[OPTIONS] ID", checkpoint_opts,
	run_checkpoint, "CRIU (criu) has to be installed.");
COMMAND(restore, "make a container's processes from such files", "[OPTIONS] ID", restore_opts, run_restore,
	"The bundle is to be as it was. Without --detach it stays until the container ends, and the status is the container's.");
COMMAND(spec, "write a configuration to begin with", "[OPTIONS]", spec_opts, run_spec, NULL);
COMMAND(features, "print what this runtime can do, as JSON", "", NULL, run_features, NULL);

static const struct command *const oci_rows[] = {
	&create_row, &start_row, &run_row,      &state_row,      &kill_row,    &delete_row,
	&exec_row,   &list_row,  &ps_row,       &pause_row,      &resume_row,  &update_row,
	&events_row, &spec_row,  &features_row, &checkpoint_row, &restore_row, NULL,
};

/* Commands of which a child will be in a container. */
static bool enters_container(const struct command *c)
{
	return c == &create_row || c == &run_row || c == &exec_row || c == &restore_row;
}

static int run_row_command(const struct command *row, int argc, char **argv, struct err *err)
{
	static const struct opt none[] = { END };
	int used, rc = opts_parse_front(row->opts ? row->opts : none, argc, argv, &oci, &used, err);

	if (rc)
		return rc;
	oci.container.systemd |= oci.cgroup_manager && !strcmp(oci.cgroup_manager, "systemd");
	oci.container.no_cgroup = oci.cgroup_manager && !strcmp(oci.cgroup_manager, "disabled");
	return row->run(row, argc - used, argv + used, err);
}

/* The words of the whole command line, for executing it again. */
static int ensure_copy(int argc, char **argv, struct err *err)
{
	static char name[] = "bothy-oci";
	char **all = calloc((size_t)argc + 2, sizeof(*all));
	int rc;

	if (!all)
		return err_set(err, -ENOMEM, "no memory");
	all[0] = name;
	memcpy(all + 1, argv, (size_t)argc * sizeof(*all));
	rc = selfcopy_ensure(all, err);
	free(all);
	return rc;
}

static int run_oci(const struct command *command, int argc, char **argv, struct err *err)
{
	const struct command *row = NULL;
	int used, rc;

	if (argc && command_is_help(argv[0])) {
		help_print(command, stdout);
		return 0;
	}
	if (argc == 1 && (!strcmp(argv[0], "--version") || !strcmp(argv[0], "-v"))) {
		printf("bothy-oci version %s\nspec: %s\n", BOTHY_VERSION, SPEC_VERSION);
		return 0;
	}
	rc = opts_parse_front(global_opts, argc, argv, &oci, &used, err);
	if (!rc)
		rc = open_log(err);
	if (!rc && used == argc) {
		help_print(command, stderr);
		return 1;
	}
	if (!rc) {
		row = command_find_sub(command, argv[used], err);
		rc = row ? 0 : err->code;
	}
	if (!rc && used + 1 < argc && command_is_help(argv[used + 1])) {
		help_print(row, stdout);
		return 0;
	}
	if (!rc && enters_container(row))
		rc = ensure_copy(argc, argv, err);
	if (!rc && row)
		rc = run_row_command(row, argc - used - 1, argv + used + 1, err);
	if (err->code && log_fd >= 0)
		write_log("error", err->msg);
	return rc < 0 ? 1 : rc;
}
#else
static const struct opt global_opts[] = { { .name = NULL } };
static const struct command *const oci_rows[] = { NULL };

static int run_oci(const struct command *command, int argc, char **argv, struct err *err)
{
	return err_set(
		err, -ENOTSUP,
		"this bothy was built without jansson and has no containers; install libjansson-dev and build again");
}
#endif

const struct command oci_command = {
	.name = "oci",
	.summary = "containers: an OCI runtime, as podman and containerd call it",
	.synopsis = "[OPTIONS] COMMAND ...",
	.about =
		"Creates and runs containers from OCI bundles: Linux namespaces, control groups, capabilities and system call "
		"filters [OCI runtime-spec 1.2]. The program does the same under the name bothy-oci, which is the runtime to give "
		"to an engine.\n\nThe status of run and exec is the program's own, or 128 and the number of the signal that ended it.",
	.example = "  podman --runtime /usr/bin/bothy-oci run --rm alpine echo hello\n"
		   "  bothy oci spec && bothy oci run demo\n",
	.opts = global_opts,
	.sub = oci_rows,
	.run = run_oci,
};
