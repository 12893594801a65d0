/* bothy doctor: a table of what bothy can use of a host. A row looks for one thing, by trying it wherever that changes
 * nothing, and says what it found; the table says what its absence costs a user and how to get it.
 */
#include "cli/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vm/engine.h"

#define FOUND_LEN 320

enum verdict {
	YES,   /* there, and good */
	WEAK,  /* there, but not as good as it may be */
	NO,    /* not there */
	NEVER, /* does not matter on this host */
};
static const char *const verdict_names[] = { "yes", "weak", "no", "-" };

struct doctor_options {
	bool json;
};

static const struct opt doctor_opts[] = {
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print a list.",
		.offset = offsetof(struct doctor_options, json),
	},
	{ .name = NULL },
};

/* The first line of a small file; false: not to be had. */
static bool first_line(const char *path, char *ret_text, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(ret_text, (int)len, f);

	if (ok)
		ret_text[strcspn(ret_text, "\n")] = 0;
	if (f)
		fclose(f);
	return ok;
}

/* --- engines --- */
static enum verdict look_soft(char *found)
{
	struct err err = { 0 };

	if (soft_engine.probe(&err)) {
		snprintf(found, FOUND_LEN, "%.300s", err.msg);
		return NO;
	}
	snprintf(found, FOUND_LEN, "memory may be executed, so the software engine translates");
	return YES;
}

static enum verdict look_kvm(char *found)
{
	struct err err = { 0 };
	u64 ps;

	if (kvm_engine.probe(&err) || kvm_engine.trial(&ps, &err)) {
		snprintf(found, FOUND_LEN, "%.300s", err.msg);
		return NO;
	}
	if (ps <= ENGINE_SLOW_PS) {
		snprintf(found, FOUND_LEN, "works: %llu.%02llu ns an instruction",
			 (unsigned long long)ps / 1000, (unsigned long long)ps % 1000 / 10);
		return YES;
	}
	snprintf(found, FOUND_LEN, "is an emulator: %llu ns an instruction", (unsigned long long)ps / 1000);
	return WEAK;
}

/* A parameter of whichever of the two modules is loaded. */
static enum verdict look_parameter(const char *intel, const char *amd, char *found)
{
	const char *names[] = { intel, amd }, *modules[] = { "kvm_intel", "kvm_amd" };
	char path[128], text[16];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/sys/module/%s", modules[i]);
		if (access(path, F_OK) < 0)
			continue;
		if (!names[i]) {
			snprintf(found, FOUND_LEN, "%s always has it", modules[i]);
			return YES;
		}
		snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", modules[i], names[i]);
		if (!first_line(path, text, sizeof(text)))
			continue;
		snprintf(found, FOUND_LEN, "%s=%s of %s", names[i], text, modules[i]);
		return *text == 'Y' || *text == '1' ? YES : NO;
	}
	snprintf(found, FOUND_LEN, "no module kvm_intel or kvm_amd to ask");
	return NEVER;
}

static enum verdict look_apic(char *found)
{
	bool split, full;

	if (kvm_engine.probe(NULL)) {
		snprintf(found, FOUND_LEN, "no KVM to ask");
		return NEVER;
	}
	split = kvm_engine.own_apics(false);
	full = kvm_engine.own_apics(true);
	snprintf(found, FOUND_LEN, "KVM %s local APICs for a guest (irqchip=%s)%s", split ? "has" : "has no",
		 split ? "split" : "user", full ? ", and all interrupt controllers (full)" : "");
	return split ? YES : NO;
}

static enum verdict look_paging(char *found)
{
	return look_parameter("ept", "npt", found);
}

static enum verdict look_vpid(char *found)
{
	return look_parameter("vpid", NULL, found);
}

static enum verdict look_nested(char *found)
{
	struct engine_conf conf;
	const char *name;
	enum verdict v;

	engine_conf_init(&conf);
	conf.nested = true;
	name = kvm_engine.nested(&conf, NULL);
	if (name) {
		snprintf(found, FOUND_LEN, "KVM has %s for a guest with nested=on", name);
		return YES;
	}
	v = look_parameter("nested", "nested", found);
	if (v != YES)
		return v;
	snprintf(found, FOUND_LEN, "KVM has neither SVM nor VMX for a guest");
	return NO;
}

/* --- memory, devices --- */
static enum verdict look_huge(char *found)
{
	char text[128];

	if (!first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", text, sizeof(text))) {
		snprintf(found, FOUND_LEN, "this kernel has no transparent huge pages of shared memory");
		return NO;
	}
	if (strstr(text, "[never]") &&
	    first_line("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)) &&
	    !strstr(text, "[never]")) {
		snprintf(found, FOUND_LEN, "private memory: %s; guests under KVM have that", text);
		return WEAK;
	}
	snprintf(found, FOUND_LEN, "shared memory: %s", text);
	return strstr(text, "[never]") || strstr(text, "[deny]") ? NO : strstr(text, "[advise]") ? WEAK : YES;
}

static enum verdict look_tap(char *found)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), code = errno;

	if (fd < 0) {
		snprintf(found, FOUND_LEN, "/dev/net/tun cannot be opened: %s", strerror(code));
		return NO;
	}
	close(fd);
	snprintf(found, FOUND_LEN, "/dev/net/tun can be opened%s",
		 geteuid() ? "; a device has to be made for this user by root" : "");
	return geteuid() ? WEAK : YES;
}

static enum verdict look_uring(char *found)
{
	struct io_uring_params params = { 0 };
	long fd = HAVE_LIBURING ? syscall(SYS_io_uring_setup, 1, &params) : -1;

	if (!HAVE_LIBURING) {
		snprintf(found, FOUND_LEN, "this bothy was built without liburing");
	} else if (fd < 0) {
		snprintf(found, FOUND_LEN, "the kernel refuses io_uring: %s", strerror(errno));
	} else {
		close((int)fd);
		snprintf(found, FOUND_LEN, "works");
		return YES;
	}
	return NO;
}

static enum verdict look_iommu(char *found)
{
	DIR *dir = opendir("/sys/kernel/iommu_groups");
	const struct dirent *e;
	unsigned n = 0;

	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.';
	if (dir)
		closedir(dir);
	snprintf(found, FOUND_LEN, "%u groups of devices", n);
	return n ? YES : NO;
}

/* --- isolation --- */
static enum verdict look_cgroups(char *found)
{
	char text[160] = "";
	struct statfs fs;

	if (statfs("/sys/fs/cgroup", &fs) < 0) {
		snprintf(found, FOUND_LEN, "nothing is mounted at /sys/fs/cgroup");
		return NO;
	}
	if (fs.f_type != CGROUP2_SUPER_MAGIC) {
		snprintf(found, FOUND_LEN, "version 1");
		return WEAK;
	}
	first_line("/sys/fs/cgroup/cgroup.controllers", text, sizeof(text));
	snprintf(found, FOUND_LEN, "version 2: %s%s", *text ? text : "no controllers",
		 access("/sys/fs/cgroup/cgroup.procs", W_OK) < 0 ? "; not writable for this user" : "");
	return *text ? YES : WEAK;
}

static enum verdict look_namespaces(char *found)
{
	static const char *const names[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts" };
	char path[64], text[32];
	size_t n = 0;
	bool all = true;

	*found = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		if (access(path, F_OK) < 0) {
			n += (size_t)snprintf(found + n, FOUND_LEN - n, "%s%s", all ? "not " : ", ",
					      names[i]);
			all = false;
		}
	}
	if (!all)
		return NO;
	if (geteuid() && first_line("/proc/sys/user/max_user_namespaces", text, sizeof(text)) &&
	    !atoi(text)) {
		snprintf(found, FOUND_LEN, "all, but user namespaces only for root");
		return WEAK;
	}
	snprintf(found, FOUND_LEN, "all eight");
	return YES;
}

static enum verdict look_seccomp(char *found)
{
	char text[160];
	bool kernel = first_line("/proc/sys/kernel/seccomp/actions_avail", text, sizeof(text));

	snprintf(found, FOUND_LEN, "%s",
		 !HAVE_SECCOMP ? "this bothy was built without libseccomp"
		 : kernel      ? "works"
			       : "this kernel has no filters of system calls");
	return HAVE_SECCOMP && kernel ? YES : NO;
}

/* --- the table --- */
static const struct check {
	const char *name;
	enum verdict (*look)(char *found); /* FOUND_LEN characters */
	const char *cost, *remedy;         /* of anything but YES */
} checks[] = {
	{ "software engine", look_soft, "guests need the host's KVM",
	  "a policy (SELinux, noexec, a service manager's MemoryDenyWriteExecute) forbids executable memory: allow it for "
	  "bothy" },
	{ "KVM", look_kvm, "guests run on the software engine, several times slower than the processor",
	  "enable virtualization in the firmware, or nested virtualization for this virtual machine, load kvm_intel or "
	  "kvm_amd, and add the user to the group kvm" },
	{ "nested paging", look_paging, "under KVM each change of a guest's page tables is an exit",
	  "load kvm_intel with ept=1, or kvm_amd with npt=1" },
	{ "local APIC", look_apic,
	  "under KVM each timer, end of interrupt and message between processors is an exit, and each wait, too",
	  "a Linux of version 4.4 or later has it" },
	{ "VPID", look_vpid, "under KVM each exit empties the processor's TLB",
	  "load kvm_intel with vpid=1" },
	{ "nested guests", look_nested, "a bothy inside of a guest of this host finds no KVM",
	  "load kvm_intel or kvm_amd with nested=1" },
	{ "huge pages", look_huge, "guests with much memory miss the TLB more often",
	  "echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled" },
	{ "TAP", look_tap, "guests have the user network only: slower, and not reachable from outside",
	  "as root: ip tuntap add NAME mode tap user USER; see --net tap" },
	{ "io_uring", look_uring, "disks are read and written by threads: more processor time a request",
	  "a kernel of 5.6 or later that allows it (sysctl kernel.io_uring_disabled=0), a build with liburing" },
	{ "control groups", look_cgroups, "containers have no limits, or few",
	  "mount version 2 at /sys/fs/cgroup, and have controllers delegated to the user" },
	{ "namespaces", look_namespaces, "containers are isolated in part, or need root",
	  "a kernel with all of them; sysctl user.max_user_namespaces=10000" },
	{ "seccomp", look_seccomp, "containers are not filtered by system call",
	  "a kernel with CONFIG_SECCOMP_FILTER, a build with libseccomp" },
	{ "IOMMU", look_iommu, "no device of the host can be given to a guest",
	  "enable VT-d or AMD-Vi in the firmware; intel_iommu=on on the kernel's command line" },
};

/* Our own sentences have no control characters; what the host says may have quotes. */
static void print_json_text(const char *name, const char *text, const char *after)
{
	printf("\"%s\": \"", name);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f ? '?' : *text);
	}
	printf("\"%s", after);
}

static void print_json(const struct check *c, enum verdict verdict, const char *found, bool last)
{
	printf("  {");
	print_json_text("name", c->name, ", ");
	print_json_text("verdict", verdict == NEVER ? "irrelevant" : verdict_names[verdict], ", ");
	print_json_text("found", found, ", ");
	print_json_text("cost", verdict == YES || verdict == NEVER ? "" : c->cost, ", ");
	print_json_text("remedy", verdict == YES || verdict == NEVER ? "" : c->remedy, last ? "}\n" : "},\n");
}

static void print_text(const struct check *c, enum verdict verdict, const char *found)
{
	printf("%-16s %-5s %s\n", c->name, verdict_names[verdict], found);
	if (verdict == WEAK || verdict == NO)
		printf("%-22s costs: %s\n%-22s to have it: %s\n", "", c->cost, "", c->remedy);
}

static int run_doctor(const struct command *command, int argc, char **argv, struct err *err)
{
	struct doctor_options options = { 0 };
	int rc = opts_parse(doctor_opts, argc, argv, &options, err);
	char found[FOUND_LEN];
	bool runs = false;

	if (rc)
		return rc;
	if (options.json)
		puts("[");
	for (unsigned i = 0; i < ARRAY_SIZE(checks); i++) {
		enum verdict verdict = checks[i].look(found);

		if (i < 2)
			runs |= verdict != NO;
		if (options.json)
			print_json(&checks[i], verdict, found, i + 1 == ARRAY_SIZE(checks));
		else
			print_text(&checks[i], verdict, found);
	}
	if (options.json)
		puts("]");
	else
		printf("\n%s\n", runs ? "Guests can run on this host." : "No guest can run on this host.");
	return runs ? 0 : 1;
}

const struct command doctor_command = {
	.name = "doctor",
	.summary = "say what this host offers, and what each missing thing costs",
	.synopsis = "[--json]",
	.about =
		"Each line is something that bothy uses where it is: whether it is there, what its absence costs, and "
		"how to get it. Nothing is changed.",
	.status = "0\tguests can run here\n1\tneither engine works\n",
	.opts = doctor_opts,
	.run = run_doctor,
};
