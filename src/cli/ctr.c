/* bothy container: containers for people, by name. What runs, in which namespaces and from which root is the OCI runtime's
 * business (oci/); here are names, logs, networks and a table to look at.
 *
 * Options come before the first word that is none: what follows the root file system, or the name in exec, is the container's
 * own.
 */
#include "cli/ctr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/help.h"

#if HAVE_JANSSON
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>

#include "base/os.h"
#include "cli/ctr_net.h"
#include "cli/ctr_run.h"
#include "cli/ctr_view.h"
#include "cli/oci.h"
#include "oci/container.h"
#include "oci/container_exec.h"
#include "oci/selfcopy.h"

#define SECOND_NS 1000000000ull

static struct {
	const char *folder;
	struct ctr_run_options run;
	bool json, quiet, force, follow, namespaces;
	u32 seconds;
	const char *signal;
} ctr = { .seconds = 10 };

/* The words of the whole command line, for executing it again from a copy that the container cannot write. */
static int ensure_copy(int argc, char **argv, struct err *err)
{
	static char program[] = "bothy", group[] = "container";
	char **all = calloc((size_t)argc + 3, sizeof(*all));
	int rc;

	if (!all)
		return err_set(err, -ENOMEM, "no memory");
	all[0] = program;
	all[1] = group;
	memcpy(all + 2, argv, (size_t)argc * sizeof(*all));
	rc = selfcopy_ensure(all, err);
	free(all);
	return rc;
}

/* --- run --- */

static const struct {
	const char *name, *help;
} networks[] = {
	[CTR_USER] = { "user", "to the world through this process, as this user; ports by --publish" },
	[CTR_PRIVATE] = { "private", "a bridge to this host and other containers; needs root" },
	[CTR_HOST] = { "host", "the host's own interfaces" },
	[CTR_NONE] = { "none", "loopback alone" },
};

static const char *network_choice(unsigned i, const char **ret_help)
{
	if (i >= ARRAY_SIZE(networks))
		return NULL;
	*ret_help = networks[i].help;
	return networks[i].name;
}

/* A name from the root's last component: web, web-2, web-3, ... */
static int new_folder(const struct ctr_store *store, const char *root, struct ctr *ret_ctr, struct err *err)
{
	const char *slash = strrchr(root, '/'), *base = slash && slash[1] ? slash + 1 : "container";
	char name[STATUS_MAX_ID + 1];

	if (ctr.run.name)
		return ctr_store_new(store, ctr.run.name, ret_ctr, err);
	if (status_check_id(base, NULL) || strlen(base) > 200)
		base = "container";
	for (unsigned i = 1; i < 10000; i++) {
		struct err other = { 0 };
		int rc;

		snprintf(name, sizeof(name), i == 1 ? "%.200s" : "%.200s-%u", base, i);
		rc = ctr_store_new(store, name, ret_ctr, &other);
		if (rc != -EEXIST) {
			if (rc)
				err_set(err, rc, "%s", other.msg);
			return rc;
		}
	}
	return err_set(err, -EEXIST, "there are too many containers of '%s'; give one a --name", base);
}

/* A free address on the bridge; whoever calls has the folder locked. */
static int choose_address(const struct ctr_store *store, u32 *ret_address, struct err *err)
{
	bool used[256] = { [0] = true, [1] = true, [255] = true };
	char **names;
	unsigned count = status_list(store->dir, &names);

	for (unsigned i = 0; i < count; i++) {
		struct ctr c = { .dir = -1 };

		if (!ctr_store_find(store, names[i], &c, NULL)) {
			const char *a = json_string_value(json_object_get(c.record, "address"));
			unsigned last;

			/* One that has ended has given it back. */
			if (a && ctr_store_lock(&c) && sscanf(a, "10.77.0.%u", &last) == 1 && last < 256)
				used[last] = true;
			ctr_store_put(&c);
		}
		free(names[i]);
	}
	free(names);
	for (unsigned i = 2; i < 255; i++) {
		if (!used[i]) {
			*ret_address = (CTR_NET_GATEWAY & 0xffffff00) + i;
			return 0;
		}
	}
	return err_set(err, -EADDRNOTAVAIL, "all addresses of the bridge are in use; remove a container");
}

static void make_record(const struct ctr *c, const struct ctr_plan *p)
{
	char address[20] = "", created[40];
	json_t *args = json_array();
	time_t now = time(NULL);
	struct tm tm;

	for (char **a = p->args; *a; a++)
		json_array_append_new(args, json_string(*a));
	gmtime_r(&now, &tm);
	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (p->network == CTR_PRIVATE)
		snprintf(address, sizeof(address), "10.77.0.%u", p->address & 255);
	else if (p->network == CTR_USER)
		snprintf(address, sizeof(address), "10.0.2.15");
	json_object_set_new(c->record, "root", json_string(p->root));
	json_object_set_new(c->record, "args", args);
	json_object_set_new(c->record, "network", json_string(networks[p->network].name));
	json_object_set_new(c->record, "address", json_string(address));
	json_object_set_new(c->record, "stop", json_integer(p->stop_signal));
	json_object_set_new(c->record, "created", json_string(created));
}

/* From the options to a folder with everything in it, locked by us. */
static int prepare(const struct ctr_store *store, struct ctr_plan *p, struct ctr *c, struct err *err)
{
	int rc = new_folder(store, p->root, c, err);

	if (rc)
		return rc;
	/* Until the record is written nobody else chooses an address. */
	while (flock(store->dir, LOCK_EX) < 0 && errno == EINTR)
		;
	rc = ctr_store_lock(c);
	if (rc)
		err_set(err, rc, "somebody else works on the container '%s'", c->name);
	if (!rc && p->network == CTR_PRIVATE)
		rc = choose_address(store, &p->address, err);
	if (!rc)
		rc = ctr_config_write(p, c, err);
	if (!rc) {
		make_record(c, p);
		rc = ctr_store_save(c, err);
	}
	flock(store->dir, LOCK_UN);
	if (rc) {
		ctr_store_remove(store, c, NULL);
		ctr_store_put(c);
	}
	return rc;
}

static int make_plan(struct ctr_plan *p, struct err *err)
{
	const struct ctr_run_options *o = &ctr.run;
	const char *network = o->network ? o->network : "user";
	int rc = 0;

	p->options = o;
	for (unsigned i = 0; i < ARRAY_SIZE(networks); i++)
		if (!strcmp(networks[i].name, network))
			p->network = (enum ctr_network)i;
	if (p->network == CTR_PRIVATE && geteuid() != 0)
		return err_set(err, -EPERM,
			       "--network private: a bridge of the host needs root; use --network user");
	if (o->port_count && p->network != CTR_USER)
		return err_set(err, -EINVAL,
			       "--publish: only --network user leads ports of the host to the container");
	p->stop_signal = o->system ? SIGRTMIN + 3 : SIGTERM;
	if (o->stop_signal)
		rc = oci_parse_signal(o->stop_signal, &p->stop_signal, err);
	for (unsigned i = 0; i < o->port_count && !rc; i++)
		rc = ctr_config_port(o->ports[i], p->ports[i], err);
	p->tty = o->tty || (!o->detach && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
	return rc;
}

static void tell_starter(void *opaque, const struct err *e)
{
	int fd = *(int *)opaque;

	os_write_all(fd, e, sizeof(*e));
	close(fd);
}

/* The supervisor as a process of its own; returns when the program runs, or could not be started. */
static int run_detached(const struct ctr_store *store, struct ctr *c, const struct ctr_plan *p,
			struct err *err)
{
	struct err theirs = { 0 };
	int ends[2], status;
	ssize_t n;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, -errno, "cannot make a pipe");
	child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		close(ends[0]);
		setsid();
		for (int i = 0; i < 3 && null >= 0; i++)
			dup2(null, i);
		if (ctr_run(store, c, p, false, tell_starter, &ends[1], &status, &theirs) ||
		    p->options->remove)
			ctr_store_remove(store, c, NULL);
		_exit(0);
	}
	close(ends[1]);
	n = child < 0 ? -1 : read(ends[0], &theirs, sizeof(theirs));
	close(ends[0]);
	if (n != (ssize_t)sizeof(theirs))
		return err_set(err, -EIO, "the supervisor of container '%s' has ended", c->name);
	theirs.msg[sizeof(theirs.msg) - 1] = 0;
	if (theirs.code)
		return err_set(err, theirs.code, "%s", theirs.msg);
	puts(c->name);
	return 0;
}

static int run_run(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_plan *p = calloc(1, sizeof(*p));
	char *root = NULL;
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct ctr c = { .dir = -1 };
	int status = 0, rc = 0;

	if (!p)
		return err_set(err, -ENOMEM, "no memory");
	if (!argc)
		rc = err_set(err, -EINVAL,
			     "run needs the folder of a root file system: bothy container run %s",
			     command->synopsis);
	if (!rc && !(root = realpath(argv[0], NULL)))
		rc = err_sys(err, -errno, "cannot find the root file system '%.200s'", argv[0]);
	if (!rc) {
		p->root = root;
		p->args = argv + 1;
		rc = make_plan(p, err);
	}
	if (!rc)
		rc = ctr_store_open(ctr.folder, &store, err);
	if (!rc)
		rc = prepare(&store, p, &c, err);
	if (!rc && ctr.run.detach) {
		rc = run_detached(&store, &c, p, err);
		ctr_store_put(&c);
	} else if (!rc) {
		rc = ctr_run(&store, &c, p, true, NULL, NULL, &status, err);
		if (rc || ctr.run.remove)
			ctr_store_remove(&store, &c, NULL);
		ctr_store_put(&c);
	}
	ctr_store_close(&store);
	free(root);
	free(p);
	return rc ? rc : status;
}

/* --- on one that is there --- */

/* Opens the folder of all and the container that argv[0] names. */
static int find(const struct command *command, int argc, char **argv, int max_more, struct ctr_store *store,
		struct ctr *c, struct err *err)
{
	const char *word = strrchr(command->name, ' ') + 1;
	int rc;

	if (argc < 1)
		return err_set(err, -EINVAL, "%s needs the name of a container: bothy %s %s", word,
			       command->name, command->synopsis);
	if (argc - 1 > max_more)
		return err_set(err, -EINVAL, "%s: '%.64s' is one word too many; options come before the name",
			       word, argv[1 + max_more]);
	rc = ctr_store_open(ctr.folder, store, err);
	if (rc)
		return rc;
	rc = ctr_store_find(store, argv[0], c, err);
	if (rc)
		ctr_store_close(store);
	return rc;
}

static void put(struct ctr_store *store, struct ctr *c)
{
	ctr_store_put(c);
	ctr_store_close(store);
}

static int run_exec(const struct command *command, int argc, char **argv, struct err *err)
{
	struct container_exec e = {
		.args = (const char *const *)argv + 1,
		.cwd = ctr.run.cwd,
		.user = ctr.run.user,
		.env = ctr.run.env,
		.env_count = ctr.run.env_count,
		.detach = ctr.run.detach,
		.terminal = ctr.run.tty || (!ctr.run.detach && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)),
	};
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct ctr c = { .dir = -1 };
	int status = 0, rc = find(command, argc, argv, argc, &store, &c, err);

	if (rc)
		return rc;
	if (argc < 2)
		rc = err_set(err, -EINVAL, "exec needs a program: bothy container exec %s",
			     command->synopsis);
	if (!rc) {
		struct container_options options = { .root = store.state_path };

		rc = container_exec(&options, c.name, &e, &status, err);
		if (rc == -ENOENT)
			rc = err_set(err, rc, "container '%s' does not run", c.name);
	}
	put(&store, &c);
	return rc ? rc : status;
}

/* The signal, then patience, then SIGKILL; and until whoever supervises it has cleared away. */
static int end_process(const struct ctr_store *store, const struct ctr *c, int signal, u64 patience,
		       struct err *err)
{
	struct container_options options = { .root = store->state_path };
	struct status s;
	bool has;
	int pidfd = -1, rc = 0;

	ctr_store_phase(store, c, &s, &has);
	if (has && !status_pidfd(&s, &pidfd, NULL)) {
		enum status_phase phase = status_phase(&s);

		/* A frozen process takes no signal before it goes on. */
		if (phase == STATUS_PAUSED)
			container_freeze(&options, c->name, false, NULL);
		status_signal(&s, pidfd, signal);
		if (status_wait(pidfd, patience))
			status_signal(&s, pidfd, SIGKILL);
		if (status_wait(pidfd, 10 * SECOND_NS))
			rc = err_set(err, -EBUSY,
				     "the process of container '%s' does not end within 10 seconds", c->name);
		close(pidfd);
	}
	if (has)
		status_close(&s);
	if (!rc && ctr_store_wait(c, 10 * SECOND_NS))
		rc = err_set(err, -EBUSY, "the supervisor of container '%s' does not end", c->name);
	/* Nothing is left by one that could clear away. */
	return rc ? rc : container_delete(&options, c->name, true, err);
}

static int run_stop(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct ctr c = { .dir = -1 };
	int signal = 0, rc = find(command, argc, argv, 0, &store, &c, err);

	if (rc)
		return rc;
	signal = (int)json_integer_value(json_object_get(c.record, "stop"));
	if (ctr.signal)
		rc = oci_parse_signal(ctr.signal, &signal, err);
	if (!rc)
		rc = end_process(&store, &c, signal > 0 && signal <= SIGRTMAX ? signal : SIGTERM,
				 ctr.seconds * SECOND_NS, err);
	put(&store, &c);
	return rc;
}

static int run_rm(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct status s;
	const char *phase;
	struct ctr c = { .dir = -1 };
	bool has;
	int rc = find(command, argc, argv, 0, &store, &c, err);

	if (rc)
		return rc;
	phase = ctr_store_phase(&store, &c, &s, &has);
	if (has)
		status_close(&s);
	if (!ctr.force && (!strcmp(phase, "running") || !strcmp(phase, "paused") ||
			   !strcmp(phase, "creating") || !strcmp(phase, "created")))
		rc = err_set(err, -EBUSY, "container '%s' is %s; stop it, or use --force", c.name, phase);
	if (!rc)
		rc = end_process(&store, &c, SIGKILL, 0, err);
	if (!rc)
		rc = ctr_store_remove(&store, &c, err);
	put(&store, &c);
	return rc;
}

static int print_file(int fd)
{
	char buf[16384];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (os_write_all(STDOUT_FILENO, buf, (size_t)n))
			return -1;
	return 0;
}

static int run_logs(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct ctr c = { .dir = -1 };
	int rc = find(command, argc, argv, 0, &store, &c, err), older, fd;
	bool last = false;

	if (rc)
		return rc;
	older = openat(c.dir, "log.1", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (older >= 0) {
		print_file(older);
		close(older);
	}
	fd = openat(c.dir, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	while (fd >= 0 && !print_file(fd) && ctr.follow && !last) {
		struct stat now, ours;

		/* Once more after its supervisor has ended. */
		if (!ctr_store_lock(&c)) {
			flock(c.dir, LOCK_UN);
			last = true;
		} else if (!fstatat(c.dir, "log", &now, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &ours) &&
			   now.st_ino != ours.st_ino) {
			print_file(fd);
			close(fd);
			fd = openat(c.dir, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		} else {
			usleep(50000);
		}
	}
	if (fd >= 0)
		close(fd);
	put(&store, &c);
	return 0;
}

static int run_ls(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_store store = { .dir = -1, .state = -1 };
	int rc;

	if (argc)
		return err_set(err, -EINVAL, "ls: '%.64s' is one word too many", argv[0]);
	rc = ctr_store_open(ctr.folder, &store, err);
	if (rc)
		return rc;
	rc = ctr_view_list(&store, ctr.json, ctr.quiet, err);
	ctr_store_close(&store);
	return rc;
}

static int run_inspect(const struct command *command, int argc, char **argv, struct err *err)
{
	struct ctr_store store = { .dir = -1, .state = -1 };
	struct ctr c = { .dir = -1 };
	int rc = find(command, argc, argv, 0, &store, &c, err);

	if (rc)
		return rc;
	rc = ctr.namespaces ? ctr_view_namespaces(&store, &c, ctr.json, err)
			    : ctr_view_container(&store, &c, err);
	put(&store, &c);
	return rc;
}

/* --- tables --- */

#define OFF(m) .offset = offsetof(__typeof__(ctr), m)
#define STR(n, l, a, m, h)                                                                      \
	{                                                                                       \
		.name = (n), .letter = (l), .kind = OPT_STRING, .arg = (a), .help = (h), OFF(m) \
	}
#define FLAG(n, l, m, h)                                                          \
	{                                                                         \
		.name = (n), .letter = (l), .kind = OPT_FLAG, .help = (h), OFF(m) \
	}
#define LIST(n, l, a, m, c, h)                                                                  \
	{                                                                                       \
		.name = (n), .letter = (l), .kind = OPT_LIST, .arg = (a), .help = (h),          \
		.max_count = CTR_MAX_LIST, OFF(m), .count_offset = offsetof(__typeof__(ctr), c) \
	}
#define JSON FLAG("json", 0, json, "Print JSON.")
#define END                  \
	{                    \
		.name = NULL \
	}

static const struct opt global_opts[] = {
	{ .name = "folder",
	  .kind = OPT_STRING,
	  .arg = "FOLDER",
	  .is_file = true,
	  OFF(folder),
	  .help = "Where containers are kept; /var/lib/bothy/containers for root, else "
		  "~/.local/share/bothy/containers." },
	END,
};

static const struct opt run_opts[] = {
	STR("name", 'n', "NAME", run.name, "What it is called; else after the folder."),
	FLAG("detach", 'd', run.detach, "Leave it running, and print its name."),
	FLAG("tty", 't', run.tty, "Give it a terminal; done by itself where this is one."),
	FLAG("rm", 0, run.remove, "Remove it when it has ended."),
	{ .name = "network",
	  .kind = OPT_STRING,
	  .arg = "NETWORK",
	  .help = "What eth0 is connected to.",
	  .choice = network_choice,
	  .default_text = "user",
	  OFF(run.network) },
	LIST("publish", 'p', "[ADDRESS:]PORT:PORT[/udp]", run.ports, run.port_count,
	     "A port of the host that leads to one of the container; ADDRESS is 127.0.0.1 if not given."),
	LIST("volume", 'v', "HOSTPATH:PATH[:ro]", run.volumes, run.volume_count,
	     "A file or folder of the host, seen in the container."),
	LIST("env", 'e', "NAME=VALUE", run.env, run.env_count, "A variable of its environment."),
	STR("user", 'u', "UID[:GID]", run.user, "Who it runs as, as numbers."),
	STR("cwd", 'w', "FOLDER", run.cwd, "Its working directory in the container."),
	STR("hostname", 0, "NAME", run.hostname, "Its host name; else the container's name."),
	STR("memory", 'm', "SIZE", run.memory, "Limit of memory."),
	STR("cpus", 0, "N", run.cpus, "Limit of processor time, in processors, as 0.5."),
	STR("pids", 0, "N", run.pids, "Limit of processes and threads."),
	LIST("cap", 0, "CAPABILITY", run.caps, run.cap_count, "One more capability, as CAP_NET_ADMIN."),
	STR("seccomp", 0, "FILE", run.seccomp,
	    "Its filter of system calls: a file as linux.seccomp of a bundle or as engines have it, or unconfined for none."),
	FLAG("read-only", 0, run.read_only, "Its root cannot be written."),
	FLAG("system", 0, run.system,
	     "Run an init (/sbin/init) as process 1: own /run and /tmp, control groups that it may write, more capabilities, and "
	     "RTMIN+3 to stop it."),
	FLAG("bundle-hooks", 0, run.hooks, "Run the hooks of the bundle, which are programs of this host."),
	STR("stop-signal", 0, "SIGNAL", run.stop_signal, "What 'stop' sends first."),
	END,
};

static const struct opt exec_opts[] = {
	FLAG("detach", 'd', run.detach, "Leave it running."),
	FLAG("tty", 't', run.tty, "Give it a terminal; done by itself where this is one."),
	LIST("env", 'e', "NAME=VALUE", run.env, run.env_count, "One more variable of its environment."),
	STR("user", 'u', "UID[:GID]", run.user, "Who it runs as, as numbers."),
	STR("cwd", 'w', "FOLDER", run.cwd, "Its working directory in the container."),
	END,
};

static const struct opt ls_opts[] = {
	JSON,
	FLAG("quiet", 'q', quiet, "Print names alone."),
	END,
};

static const struct opt stop_opts[] = {
	{ .name = "time",
	  .letter = 't',
	  .kind = OPT_U32,
	  .arg = "SECONDS",
	  .help = "How long it may take, before it is killed.",
	  .default_text = "10",
	  .max = 86400,
	  OFF(seconds) },
	STR("signal", 's', "SIGNAL", signal, "What it is sent first; else TERM, or what run was given."),
	END,
};

static const struct opt rm_opts[] = { FLAG("force", 'f', force, "Kill it first where it runs."), END };
static const struct opt logs_opts[] = { FLAG("follow", 'f', follow, "Go on until it has ended."), END };

static const struct opt inspect_opts[] = {
	FLAG("namespaces", 0, namespaces,
	     "Which namespaces it is in, which of them are the host's, and who holds each of them."),
	JSON,
	END,
};

#define COMMAND(id, text, syn, table, fn, more)                            \
	static const struct command id##_row = { .name = "container " #id, \
						 .summary = (text),        \
						 .synopsis = (syn),        \
						 .opts = (table),          \
						 .run = (fn),              \
						 .about = (more) }
COMMAND(run, "run a program in a new container", "[OPTIONS] FOLDER [PROGRAM [ARGUMENT ...]]", run_opts,
	run_run,
	"FOLDER is a root file system, or an unpacked OCI bundle (with config.json). Without a program it is /bin/sh, or the "
	"bundle's. The status is the program's, or 128 and the number of the signal that ended it.\n\nWithout root the container "
	"has a user namespace in which only its root user exists, who is the caller outside.");
COMMAND(exec, "run a further program in a container", "[OPTIONS] NAME PROGRAM [ARGUMENT ...]", exec_opts,
	run_exec, NULL);
COMMAND(ls, "list containers", "[OPTIONS]", ls_opts, run_ls, NULL);
COMMAND(stop, "end a container: a signal, patience, then SIGKILL", "[OPTIONS] NAME", stop_opts, run_stop,
	NULL);
COMMAND(rm, "remove a container that has ended, and its log", "[OPTIONS] NAME", rm_opts, run_rm,
	"Its root file system stays as it is.");
COMMAND(logs, "print what a container has written", "[OPTIONS] NAME", logs_opts, run_logs,
	"The last 8 to 16 MiB are kept.");
COMMAND(inspect, "print everything about a container, as JSON", "[OPTIONS] NAME", inspect_opts, run_inspect,
	NULL);

static const struct command *const rows[] = {
	&run_row, &exec_row, &ls_row, &stop_row, &rm_row, &logs_row, &inspect_row, NULL,
};

static int run_container(const struct command *command, int argc, char **argv, struct err *err)
{
	static const struct opt none[] = { END };
	const struct command *row;
	int used, more, rc;

	if (argc && command_is_help(argv[0])) {
		help_print(command, stdout);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[0], CTR_HOOK))
		return ctr_net_hook(argv[1], err);
	rc = opts_parse_front(global_opts, argc, argv, &ctr, &used, err);
	if (rc)
		return rc;
	if (used == argc) {
		help_print(command, stderr);
		return 1;
	}
	row = command_find_sub(command, argv[used], err);
	if (!row)
		return err->code;
	if (used + 1 < argc && command_is_help(argv[used + 1])) {
		help_print(row, stdout);
		return 0;
	}
	rc = opts_parse_front(row->opts ? row->opts : none, argc - used - 1, argv + used + 1, &ctr, &more,
			      err);
	if (!rc && (row == &run_row || row == &exec_row))
		rc = ensure_copy(argc, argv, err);
	if (rc)
		return rc;
	more += used + 1;
	return row->run(row, argc - more, argv + more, err);
}
#else
static const struct opt global_opts[] = { { .name = NULL } };
static const struct command *const rows[] = { NULL };

static int run_container(const struct command *command, int argc, char **argv, struct err *err)
{
	return err_set(
		err, -ENOTSUP,
		"this bothy was built without jansson and has no containers; install libjansson-dev and build again");
}
#endif

const struct command ctr_command = {
	.name = "container",
	.summary = "containers for people: run, exec, ls, stop, rm, logs, inspect",
	.synopsis = "[OPTIONS] COMMAND ...",
	.about =
		"Runs programs of a root file system in Linux namespaces of their own, as root or as any user. Each container has a "
		"name, a log, and a network.",
	.example =
		"  bothy container run --rm /srv/debian /bin/bash\n"
		"  bothy container run -d --name web -p 8080:80 /srv/debian /usr/sbin/nginx -g 'daemon off;'\n"
		"  bothy container inspect --namespaces web\n",
	.opts = global_opts,
	.sub = rows,
	.run = run_container,
};
