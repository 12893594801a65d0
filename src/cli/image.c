/* bothy image: makes, shows, checks and converts disk images, as qemu-img does for its own.
 *
 * Options may stand before, between and behind the names. Progress goes to standard error, and only where that is a
 * terminal.
 */
#include "cli/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "base/params.h"
#include "cli/help.h"
#include "host/qcow2.h"

#define STATUS_CORRUPT 2
#define STATUS_LEAKS   3
#define CHUNK          (2 * MiB)
#define LOOK_AHEAD     (64 * CHUNK)
#define MAX_SIZE       (1ull << 60)
#define PROGRESS_NS    200000000ull

struct image_options {
	const char *name[2];
	const char *format, *backing, *backing_format, *compression, *repair, *preallocation;
	u64 cluster_size;
	u32 version;
	bool json, compress, follow, force;
};

static const char *choice_of(const char *const *names, unsigned nr, unsigned i)
{
	return i < nr ? names[i] : NULL;
}

static const char *format_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "qcow2", "raw" };

	return choice_of(names, ARRAY_SIZE(names), i);
}

static const char *compression_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "deflate", "zstd" };

	return choice_of(names, ARRAY_SIZE(names), i);
}

static const char *const space_names[] = {
	[IMAGE_FILE_SPARSE] = "off",
	[IMAGE_FILE_METADATA] = "metadata",
	[IMAGE_FILE_RESERVED] = "falloc",
	[IMAGE_FILE_WRITTEN] = "full",
};

static const char *space_choice(unsigned i, const char **ret_help)
{
	return choice_of(space_names, ARRAY_SIZE(space_names), i);
}

static const char *repair_choice(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "leaks", "all" };

	return choice_of(names, ARRAY_SIZE(names), i);
}

#define AT(member) offsetof(struct image_options, member)
#define OPT_FORMAT                                                                        \
	{                                                                                 \
		.name = "format", .letter = 'f', .kind = OPT_STRING, .arg = "FORMAT",     \
		.help = "The format of the image that is made.", .choice = format_choice, \
		.default_text = "qcow2", .offset = AT(format),                            \
	}
#define OPT_CLUSTER                                                                                          \
	{                                                                                                    \
		.name = "cluster-size", .kind = OPT_SIZE, .arg = "SIZE",                                     \
		.help = "How much is allocated at a time, a power of 2.", .default_text = "64K", .min = 512, \
		.max = 2 * MiB, .offset = AT(cluster_size),                                                  \
	}
#define OPT_VERSION                                                                                  \
	{                                                                                            \
		.name = "image-version", .kind = OPT_U32, .arg = "N",                                \
		.help = "The version of the qcow2 format.", .default_text = "3", .min = 2, .max = 3, \
		.offset = AT(version),                                                               \
	}
#define OPT_COMPRESSION                                                                             \
	{                                                                                           \
		.name = "compression", .kind = OPT_STRING, .arg = "HOW",                            \
		.help = "How clusters of the new image are compressed, where they are.",            \
		.choice = compression_choice, .default_text = "deflate", .offset = AT(compression), \
	}
#define OPT_FORCE                                                                           \
	{                                                                                   \
		.name = "force", .kind = OPT_FLAG, .help = "Replace a file that is there.", \
		.offset = AT(force),                                                        \
	}
#define OPT_JSON                                                                             \
	{                                                                                    \
		.name = "json", .kind = OPT_FLAG, .help = "Print JSON.", .offset = AT(json), \
	}

static const struct opt create_opts[] = {
	OPT_FORMAT,
	{
		.name = "backing",
		.letter = 'b',
		.kind = OPT_STRING,
		.arg = "FILE",
		.help = "What the image is based on: reads of what it has not written itself go there. A relative name is "
			"relative to the new image's folder.",
		.is_file = true,
		.offset = AT(backing),
	},
	{
		.name = "backing-format",
		.letter = 'F',
		.kind = OPT_STRING,
		.arg = "FORMAT",
		.help = "The format of that file; needed with --backing.",
		.choice = format_choice,
		.offset = AT(backing_format),
	},
	OPT_CLUSTER,
	OPT_VERSION,
	OPT_COMPRESSION,
	{
		.name = "preallocation",
		.kind = OPT_STRING,
		.arg = "WHAT",
		.help = "What of the host's space the image takes now: nothing, its tables, all of it by reserving, or all of it "
			"by writing zeroes.",
		.choice = space_choice,
		.default_text = "off",
		.offset = AT(preallocation),
	},
	OPT_FORCE,
	{ .name = NULL },
};
static const struct opt info_opts[] = { OPT_JSON, { .name = NULL } };
static const struct opt check_opts[] = {
	{
		.name = "repair",
		.letter = 'r',
		.kind = OPT_STRING,
		.arg = "WHAT",
		.help = "Repair what is found: clusters that nobody uses, or everything.",
		.choice = repair_choice,
		.offset = AT(repair),
	},
	OPT_JSON,
	{ .name = NULL },
};
static const struct opt convert_opts[] = {
	OPT_FORMAT,
	{
		.name = "compress",
		.letter = 'c',
		.kind = OPT_FLAG,
		.help = "Compress the clusters of the new image.",
		.offset = AT(compress),
	},
	{
		.name = "follow-backing",
		.kind = OPT_FLAG,
		.help = "Read the files that the source names as its base; it may name any file of this host.",
		.offset = AT(follow),
	},
	OPT_CLUSTER,
	OPT_VERSION,
	OPT_COMPRESSION,
	OPT_FORCE,
	{ .name = NULL },
};

static int parse(const struct command *command, unsigned names, int argc, char **argv,
		 struct image_options *ret, struct err *err)
{
	unsigned have = 0;

	for (int used; argc; argc -= used, argv += used) {
		int rc = opts_parse_front(command->opts, argc, argv, ret, &used, err);

		if (rc)
			return rc;
		if (used == argc)
			break;
		if (have == names)
			return err_set(err, -EINVAL, "unexpected argument '%.64s'; usage: bothy %s %s",
				       argv[used], command->name, command->synopsis);
		ret->name[have++] = argv[used++];
	}
	if (have == names)
		return 0;
	err_set(err, -EINVAL, "an argument is missing; usage: bothy %s %s", command->name, command->synopsis);
	return -EINVAL;
}

static bool is_raw(const char *format)
{
	return format && !strcmp(format, "raw");
}

/* ---- progress ---- */

static void progress(u64 done, u64 size, bool end)
{
	static u64 last;
	u64 now = os_now_ns();

	if (!isatty(STDERR_FILENO) || (!end && now - last < PROGRESS_NS))
		return;
	last = now;
	fprintf(stderr, "\r%3u%% of %llu MiB%s", (unsigned)(size ? done * 100.0 / (double)size : 100),
		(unsigned long long)(size / MiB), end ? "\n" : "");
}

/* For a callback: of *opaque bytes. */
static void progress_of(void *opaque, u64 done)
{
	progress(done, *(const u64 *)opaque, false);
}

/* ---- create ---- */

static enum image_file_space space_of(const struct image_options *o)
{
	unsigned i = 0;

	while (o->preallocation && strcmp(o->preallocation, space_names[i]) != 0)
		i++;
	return (enum image_file_space)i;
}

static int create_raw(const struct image_options *o, const char *path, u64 size, enum image_file_space space,
		      struct err *err)
{
	struct image_file file;
	int rc = image_file_create(&file, path, o->force, err);

	if (rc < 0)
		return rc;
	rc = ftruncate(file.fd, (off_t)size) < 0 ? -errno : 0;
	if (rc == 0)
		rc = image_file_take_space(&file, space, 0, size, progress_of, &size);
	if (rc < 0)
		err_sys(err, rc, "%s cannot be given %llu bytes", path, (unsigned long long)size);
	if (rc < 0 && !o->force)
		unlink(path);
	image_file_close(&file);
	return rc;
}

static int create(const struct image_options *o, const char *path, u64 size, struct err *err)
{
	struct qcow2_create_conf conf = {
		.path = path,
		.size = ALIGN_UP(size, IMAGE_SECTOR),
		.version = o->version ? o->version : 3,
		.cluster_bits = o->cluster_size ? (unsigned)__builtin_ctzll(o->cluster_size) : 16,
		.zstd = o->compression && !strcmp(o->compression, "zstd"),
		.replace = o->force,
		.backing = o->backing,
		.backing_format = o->backing_format,
		.space = space_of(o),
		.progress = progress_of,
		.opaque = &size,
	};

	if (is_raw(o->format)) {
		if (o->backing || o->cluster_size || o->version || o->compression || o->compress)
			return err_set(err, -EINVAL,
				       "a raw image has neither base, clusters, version nor compression; "
				       "leave them out, or use --format qcow2");
		if (conf.space == IMAGE_FILE_METADATA)
			return err_set(err, -EINVAL,
				       "--preallocation: a raw image has no tables; give falloc or full");
		return create_raw(o, path, conf.size, conf.space, err);
	}
	if (o->backing && conf.space != IMAGE_FILE_SPARSE)
		return err_set(
			err, -EINVAL,
			"--preallocation: an image with a base takes from it what it has not itself; leave one "
			"of the two out");
	if (o->cluster_size && !bits_is_pow2(o->cluster_size))
		return err_set(err, -EINVAL, "--cluster-size: %llu is no power of 2; give 512 to 2M",
			       (unsigned long long)o->cluster_size);
	if (conf.zstd && conf.version < 3)
		return err_set(err, -EINVAL, "--compression: zstd needs version 3 of the format");
	return qcow2_create(&conf, err);
}

/* The disk of the base, whose size the new one gets where none is given. */
static int base_size(const struct image_options *o, u64 *ret_size, struct err *err)
{
	const char *slash = strrchr(o->name[0], '/');
	struct image_conf conf = { .read_only = true, .no_backing = true, .format = o->backing_format };
	struct image *im;
	char *path = NULL;
	int rc;

	if (!o->backing_format)
		return err_set(err, -EINVAL, "--backing-format FORMAT is missing: what --backing %s is",
			       o->backing);
	if (o->backing[0] == '/' || !slash)
		path = strdup(o->backing);
	else if (asprintf(&path, "%.*s/%s", (int)(slash - o->name[0]), o->name[0], o->backing) < 0)
		path = NULL;
	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	conf.path = path;
	rc = image_open(&conf, &im, err);
	free(path);
	if (rc < 0)
		return err_wrap(err, "the base");
	*ret_size = im->size;
	im->ops->close(im);
	return 0;
}

static int run_create(const struct command *command, int argc, char **argv, struct err *err)
{
	struct image_options o = { 0 };
	u64 size = 0;
	int rc = parse(command, 1, argc, argv, &o, NULL) ? parse(command, 2, argc, argv, &o, err) : 0;

	/* One name is enough where a base says how large the disk is. */
	if (!rc && !o.name[1] && !o.backing)
		rc = err_set(err, -EINVAL, "an argument is missing; usage: bothy %s %s", command->name,
			     command->synopsis);
	if (!rc && o.backing)
		rc = base_size(&o, &size, err);
	if (!rc && o.name[1] && params_parse_size(o.name[1], &size))
		rc = err_set(err, -EINVAL, "'%.64s' is not a size; give bytes, or a number with K, M, G or T",
			     o.name[1]);
	if (!rc && (!size || size > MAX_SIZE))
		rc = err_set(err, -ERANGE, "a disk cannot have %llu bytes; give 512 to 1048576T",
			     (unsigned long long)size);
	if (rc == 0)
		rc = create(&o, o.name[0], size, err);
	if (rc == 0 && space_of(&o) == IMAGE_FILE_WRITTEN)
		progress(size, size, true);
	return rc;
}

/* ---- info ---- */

static void put_json(const char *text)
{
	putchar('"');
	for (const u8 *p = (const u8 *)text; *p; p++) {
		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			printf("\\u%04x", *p);
		else
			putchar(*p);
	}
	putchar('"');
}

static void put_text(const char *text)
{
	for (const char *p = text; *p; p++)
		putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
}

/* One member of the table, in either form. */
static void row_text(bool json, const char *key, const char *text)
{
	printf(json ? ",\n  \"%s\": " : "%s: ", key);
	(json ? put_json : put_text)(text);
	if (!json)
		putchar('\n');
}

static void row_number(bool json, const char *key, u64 n)
{
	printf(json ? ",\n  \"%s\": %llu" : "%s: %llu\n", key, (unsigned long long)n);
}

static void row_flag(bool json, const char *key, bool on)
{
	printf(json ? ",\n  \"%s\": %s" : "%s: %s\n", key,
	       json ? (on ? "true" : "false") : (on ? "yes" : "no"));
}

static int run_info(const struct command *command, int argc, char **argv, struct err *err)
{
	struct image_options o = { 0 };
	struct qcow2_info info = { 0 };
	struct image_file file;
	const char *format;
	struct stat st;
	char user[64];
	int rc = parse(command, 1, argc, argv, &o, err);

	if (!rc)
		rc = image_file_open(&file, o.name[0], true, IMAGE_FILE_UNLOCKED, err);
	if (rc)
		return rc;
	rc = image_file_probe(&file, &format, err);
	if (rc == 0 && format && !strcmp(format, "qcow2"))
		rc = qcow2_info(&file, &info, err);
	else
		info.size = file.size;
	if (rc == 0 && fstat(file.fd, &st) == 0) {
		printf(o.json ? "{\n  \"image\": " : "image: ");
		(o.json ? put_json : put_text)(o.name[0]);
		printf(o.json ? "" : "\n");
		row_text(o.json, "format", format ? format : "raw");
		row_number(o.json, "disk-bytes", info.size);
		row_number(o.json, "used-bytes", (u64)st.st_blocks * 512);
		if (info.version) {
			row_number(o.json, "version", info.version);
			row_number(o.json, "cluster-bytes", 1ull << info.cluster_bits);
			row_number(o.json, "refcount-bits", info.refcount_bits);
			row_text(o.json, "compression", info.zstd ? "zstd" : "deflate");
			row_number(o.json, "snapshots", info.snapshots);
			row_number(o.json, "bitmaps", info.bitmaps);
			row_flag(o.json, "dirty", info.dirty);
			row_flag(o.json, "corrupt", info.corrupt);
		}
		if (info.backing[0])
			row_text(o.json, "backing-file", info.backing);
		if (info.backing_format[0])
			row_text(o.json, "backing-format", info.backing_format);
		if (image_file_user(&file, user, sizeof(user)))
			row_text(o.json, "used-by", user);
		printf(o.json ? "\n}\n" : "");
	}
	image_file_close(&file);
	return rc;
}

/* ---- check ---- */

static void say(void *opaque, const char *text)
{
	fprintf(stderr, "bothy: %s\n", text);
}

static int run_check(const struct command *command, int argc, char **argv, struct err *err)
{
	struct image_options o = { 0 };
	struct image_conf conf = { .format = "qcow2", .no_backing = true, .repair = true };
	struct qcow2_result r = { 0 };
	enum qcow2_repair repair;
	struct image *im;
	int rc = parse(command, 1, argc, argv, &o, err);

	if (rc)
		return rc;
	repair = !o.repair                    ? QCOW2_REPAIR_NONE
		 : !strcmp(o.repair, "leaks") ? QCOW2_REPAIR_LEAKS
					      : QCOW2_REPAIR_ALL;
	conf.path = o.name[0];
	conf.read_only = repair == QCOW2_REPAIR_NONE;
	rc = image_open(&conf, &im, err);
	if (rc)
		return rc;
	rc = qcow2_check(im, repair, say, NULL, &r, err);
	im->ops->close(im);
	if (rc)
		return rc;
	if (o.json)
		printf("{\n  \"corruptions\": %llu,\n  \"leaks\": %llu,\n  \"corruptions-fixed\": %llu,\n"
		       "  \"leaks-fixed\": %llu,\n  \"clusters\": %llu,\n  \"allocated\": %llu\n}\n",
		       (unsigned long long)r.corruptions, (unsigned long long)r.leaks,
		       (unsigned long long)r.fixed_corruptions, (unsigned long long)r.fixed_leaks,
		       (unsigned long long)r.clusters, (unsigned long long)r.allocated);
	else
		printf("%llu corruptions (%llu repaired), %llu leaked clusters (%llu repaired); %llu of %llu clusters "
		       "allocated\n",
		       (unsigned long long)r.corruptions, (unsigned long long)r.fixed_corruptions,
		       (unsigned long long)r.leaks, (unsigned long long)r.fixed_leaks,
		       (unsigned long long)r.allocated, (unsigned long long)r.clusters);
	if (r.corruptions > r.fixed_corruptions)
		return STATUS_CORRUPT;
	return r.leaks > r.fixed_leaks ? STATUS_LEAKS : 0;
}

/* ---- convert ---- */

static bool all_zero(const u8 *p, u64 len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* A piece that is whole clusters; the last one is filled up with zeroes. */
static int put_data(struct image *to, u8 *buf, u64 at, u64 len, u64 cluster, bool compress)
{
	int rc = 0;

	for (u64 done = 0; rc == 0 && done < len; done += cluster) {
		u64 n = MIN(cluster, len - done);
		const struct iovec iov = { buf + done, n };

		if (all_zero(buf + done, n))
			continue;
		rc = -EOPNOTSUPP;
		if (compress) {
			if (n < cluster)
				memset(buf + len, 0, cluster - n);
			rc = qcow2_io_write_compressed(to, buf + done, at + done);
		}
		if (rc == -EOPNOTSUPP)
			rc = to->ops->write(to, &iov, 1, at + done, n);
	}
	return rc;
}

static int copy(struct image *from, struct image *to, u64 cluster, bool compress, struct err *err)
{
	u8 *buf = calloc(1, CHUNK + cluster);
	int rc = 0;

	if (!buf)
		return err_set(err, -ENOMEM, "no memory");
	for (u64 at = 0, n; rc == 0 && at < from->size; at += n) {
		enum image_extent kind;
		struct iovec iov;

		progress(at, from->size, false);
		rc = from->ops->extent(from, at, MIN(from->size - at, LOOK_AHEAD), &kind, &n);
		if (rc == 0 && kind == IMAGE_ZERO && (at + n == from->size || n >= CHUNK)) {
			/* Up to the next border of a cluster it is data. */
			n = at + n == from->size ? n : ALIGN_DOWN(at + n, CHUNK) - at;
			if (n && (at & (CHUNK - 1)) == 0)
				continue;
		}
		n = MIN(from->size - at, CHUNK - (at & (CHUNK - 1)));
		iov = (struct iovec){ buf, n };
		if (rc == 0)
			rc = from->ops->read(from, &iov, 1, at, n);
		if (rc < 0) {
			err_sys(err, rc, "%s cannot be read at %llu", from->path, (unsigned long long)at);
			break;
		}
		rc = put_data(to, buf, at, n, cluster, compress);
		if (rc < 0)
			err_sys(err, rc, "%s cannot be written", to->path);
	}
	if (rc == 0) {
		rc = to->ops->flush(to);
		if (rc < 0)
			err_sys(err, rc, "%s cannot be written", to->path);
	}
	progress(from->size, from->size, true);
	free(buf);
	return rc;
}

static int run_convert(const struct command *command, int argc, char **argv, struct err *err)
{
	struct image_options o = { 0 };
	struct image_conf in = { .read_only = true }, out = { 0 };
	struct image *from = NULL, *to = NULL;
	int rc = parse(command, 2, argc, argv, &o, err);

	if (rc)
		return rc;
	in.path = o.name[0];
	in.backing = o.follow;
	rc = image_open(&in, &from, err);
	if (rc)
		return rc;
	if (!from->size)
		rc = err_set(err, -EINVAL, "%s is empty", in.path);
	if (!rc)
		rc = create(&o, o.name[1], from->size, err);
	if (!rc) {
		out.path = o.name[1];
		out.format = is_raw(o.format) ? "raw" : "qcow2";
		rc = image_open(&out, &to, err);
	}
	if (!rc)
		rc = copy(from, to, o.cluster_size ? o.cluster_size : 64 * KiB, o.compress, err);
	if (to) {
		to->ops->close(to);
		/* Half an image is none. */
		if (rc && !o.force)
			unlink(o.name[1]);
	}
	from->ops->close(from);
	return rc;
}

/* ---- the commands ---- */

static const struct command create_command = {
	.name = "image create",
	.summary = "make an empty disk image",
	.synopsis = "[OPTIONS] FILE SIZE",
	.about =
		"SIZE is in bytes, or with K, M, G or T. With --backing it may be left out: it is the base's.",
	.example = "  bothy image create disk.qcow2 10G\n"
		   "  bothy image create --backing base.qcow2 --backing-format qcow2 mine.qcow2\n",
	.opts = create_opts,
	.run = run_create,
};

static const struct command info_command = {
	.name = "image info",
	.summary = "show what is in an image's header, and who uses it",
	.synopsis = "[--json] FILE",
	.opts = info_opts,
	.run = run_info,
};

static const struct command check_command = {
	.name = "image check",
	.summary = "check the tables of a qcow2 image, and repair them",
	.synopsis = "[OPTIONS] FILE",
	.about =
		"Findings go to standard error. After a crash of the host there may be leaks, which are harmless.",
	.status = "0\tthe image is whole, or everything found was repaired\n"
		  "1\tit could not be checked; one sentence on standard error says why\n"
		  "2\tit is corrupt\n"
		  "3\tit has leaked clusters\n",
	.example = "  bothy image check --repair=leaks disk.qcow2\n",
	.opts = check_opts,
	.run = run_check,
};

static const struct command convert_command = {
	.name = "image convert",
	.summary = "copy an image into another format",
	.synopsis = "[OPTIONS] FROM TO",
	.about =
		"FROM is read as qcow2 if its first bytes say so, else as raw. What is zero takes no space in TO.",
	.example = "  bothy image convert disk.img disk.qcow2\n"
		   "  bothy image convert --format raw disk.qcow2 disk.img\n"
		   "  bothy image convert --compress --compression zstd disk.img small.qcow2\n",
	.opts = convert_opts,
	.run = run_convert,
};

static const struct command *const image_rows[] = {
	&create_command, &info_command, &check_command, &convert_command, NULL,
};

static bool is_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}

static int run_image(const struct command *command, int argc, char **argv, struct err *err)
{
	for (unsigned i = 0; argc && image_rows[i]; i++) {
		const struct command *row = image_rows[i];

		if (strcmp(strchr(row->name, ' ') + 1, argv[0]) != 0)
			continue;
		for (int k = 1; k < argc; k++)
			if (is_help(argv[k])) {
				help_print(row, stdout);
				return 0;
			}
		return row->run(row, argc - 1, argv + 1, err);
	}
	if (argc && is_help(argv[0])) {
		help_print(command, stdout);
		return 0;
	}
	if (argc)
		return err_set(err, -EINVAL,
			       "unknown command 'image %.64s'; there are create, info, check, convert",
			       argv[0]);
	help_print(command, stderr);
	return 1;
}

const struct command image_command = {
	.name = "image",
	.summary = "make, show, check and convert disk images",
	.synopsis = "COMMAND ...",
	.sub = image_rows,
	.run = run_image,
};
