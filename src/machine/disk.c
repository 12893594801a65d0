/* --disk: from the text to an open back end. */
#include "machine/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "dev/virtio/virtio.h"
#include "host/block_image.h"
#include "host/block_raw.h"

#define MAX_SERIAL 20 /* [virtio 5.2.6] */

enum { FORMAT_GUESS, FORMAT_RAW, FORMAT_QCOW2 };

struct settings {
	u32 format, aio, queues, iops;
	u64 bw;
	bool ro, packed, backing;
	const char *id;
};

static const char *const formats[] = { "auto", "raw", "qcow2", NULL };
/* As enum block_raw_aio. */
static const char *const aios[] = { "auto", "io_uring", "threads", NULL };

static const struct param table[] = {
	{ .key = "format",
	  .kind = PARAM_CHOICE,
	  .offset = offsetof(struct settings, format),
	  .choices = formats },
	{ .key = "ro", .kind = PARAM_FLAG, .offset = offsetof(struct settings, ro) },
	{ .key = "id", .kind = PARAM_STRING, .offset = offsetof(struct settings, id) },
	{ .key = "iops",
	  .kind = PARAM_U32,
	  .offset = offsetof(struct settings, iops),
	  .min = 1,
	  .max = 100000000 },
	{ .key = "bw",
	  .kind = PARAM_SIZE,
	  .offset = offsetof(struct settings, bw),
	  .min = 4096,
	  .max = 1ull << 40 },
	{ .key = "queues",
	  .kind = PARAM_U32,
	  .offset = offsetof(struct settings, queues),
	  .min = 1,
	  .max = VIRTIO_MAX_QUEUES },
	{ .key = "aio", .kind = PARAM_CHOICE, .offset = offsetof(struct settings, aio), .choices = aios },
	{ .key = "backing", .kind = PARAM_FLAG, .offset = offsetof(struct settings, backing) },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

static int check_id(const char *id, struct err *err)
{
	size_t len = id ? strlen(id) : 1;

	if (len < 1 || len > MAX_SERIAL)
		return err_set(err, -EINVAL, "--disk: 'id' has %zu characters; 1 to %u are possible", len,
			       MAX_SERIAL);
	for (const char *p = id; p && *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return err_set(
				err, -EINVAL,
				"--disk: character %zu of 'id' is a space, a control character or not ASCII",
				(size_t)(p - id) + 1);
	return 0;
}

int disk_open(struct disk *disk, const char *spec, unsigned queues, struct loop *loop, struct err *err)
{
	struct settings s = { .queues = MIN(queues, (unsigned)VIRTIO_MAX_QUEUES) };
	struct block_raw_conf raw;
	int r;

	*disk = (struct disk){ .text = strdup(spec) };
	if (!disk->text)
		return err_set(err, -ENOMEM, "no memory for --disk");
	r = params_parse("--disk", params_first(disk->text), table, &s, err);
	if (r == 0)
		r = check_id(s.id, err);
	if (r == 0 && !*disk->text)
		r = err_set(err, -EINVAL, "--disk: no file is named; give --disk FILE");
	if (r == 0 && s.format == FORMAT_QCOW2 && s.aio == BLOCK_RAW_URING)
		r = err_set(err, -EINVAL,
			    "--disk: qcow2 images are read and written by threads; leave out aio=io_uring");
	if (r == 0 && s.format != FORMAT_QCOW2 && s.backing)
		r = err_set(err, -EINVAL,
			    "--disk: 'backing' is for images of the format qcow2; add format=qcow2");
	if (r < 0)
		return r;
	disk->conf = (struct block_conf){
		.serial = s.id,
		.iops = s.iops,
		.bytes_per_s = s.bw,
		.queues = s.queues,
	};
	disk->packed = s.packed;
	if (s.format == FORMAT_QCOW2) {
		const struct image_conf image = {
			.path = disk->text,
			.format = "qcow2",
			.read_only = s.ro,
			.backing = s.backing,
		};

		return block_image_open(&image, loop, &disk->block, err);
	}
	raw = (struct block_raw_conf){
		.path = disk->text,
		.read_only = s.ro,
		.aio = (enum block_raw_aio)s.aio,
		.probe = s.format == FORMAT_GUESS,
	};
	return block_raw_open(&raw, loop, &disk->block, err);
}

void disk_close(struct disk *disk)
{
	if (disk->block)
		disk->block->ops->close(disk->block);
	free(disk->text);
	*disk = (struct disk){ 0 };
}
