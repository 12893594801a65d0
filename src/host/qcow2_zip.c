/* Compressed clusters: raw deflate streams with a window of 4 KiB, or one zstd frame [qcow2, "Compressed clusters"].
 * A stream that does not give exactly one cluster is an I/O error.
 *
 * Both libraries are loaded with the first such cluster (base/lazy.h): few images have any.
 *
 * Threads: any, no lock.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/lazy.h"
#include "base/log.h"
#include "host/qcow2_int.h"

#define WINDOW    12
#define MEM_LEVEL 9

static struct {
	__typeof__(inflateInit2_) *inflate_init;
	__typeof__(inflate) *inflate;
	__typeof__(inflateEnd) *inflate_end;
	__typeof__(deflateInit2_) *deflate_init;
	__typeof__(deflate) *deflate;
	__typeof__(deflateEnd) *deflate_end;
	int rc; /* of loading */
} zlib = { .rc = -ENOENT };

static struct {
	__typeof__(ZSTD_createDStream) *create;
	__typeof__(ZSTD_decompressStream) *decompress;
	__typeof__(ZSTD_freeDStream) *free;
	__typeof__(ZSTD_compress) *compress;
	__typeof__(ZSTD_isError) *is_error;
	int rc;
} zstd = { .rc = -ENOENT };

static int load(const char *library, const struct lazy_function *functions, unsigned count)
{
	struct err err = { 0 };
	int rc = lazy_load(library, functions, count, &err);

	if (rc)
		log_error("compressed clusters: %s", err.msg);
	return rc;
}

static void load_zlib(void)
{
	static const struct lazy_function functions[] = {
		{ "inflateInit2_", &zlib.inflate_init },
		{ "inflate", &zlib.inflate },
		{ "inflateEnd", &zlib.inflate_end },
		{ "deflateInit2_", &zlib.deflate_init },
		{ "deflate", &zlib.deflate },
		{ "deflateEnd", &zlib.deflate_end },
	};

	zlib.rc = load("libz.so.1", functions, ARRAY_SIZE(functions));
}

static void load_zstd(void)
{
	static const struct lazy_function functions[] = {
		{ "ZSTD_createDStream", &zstd.create }, { "ZSTD_decompressStream", &zstd.decompress },
		{ "ZSTD_freeDStream", &zstd.free },     { "ZSTD_compress", &zstd.compress },
		{ "ZSTD_isError", &zstd.is_error },
	};

	zstd.rc = load("libzstd.so.1", functions, ARRAY_SIZE(functions));
}

static int need_zlib(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_zlib);
	return zlib.rc;
}

static int need_zstd(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_zstd);
	return zstd.rc;
}

static int inflate_cluster(const u8 *in, u64 len, u8 *out, u64 out_len)
{
	z_stream z = { .next_in = (u8 *)in,
		       .avail_in = (unsigned)len,
		       .next_out = out,
		       .avail_out = (unsigned)out_len };
	int rc = need_zlib();

	if (rc)
		return rc;
	if (zlib.inflate_init(&z, -WINDOW, ZLIB_VERSION, sizeof(z)) != Z_OK)
		return -ENOMEM;
	rc = zlib.inflate(&z, Z_FINISH);
	zlib.inflate_end(&z);
	/* What follows the stream in its last sector is not its own. */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int unzstd_cluster(const u8 *in, u64 len, u8 *out, u64 out_len)
{
	ZSTD_inBuffer from = { in, len, 0 };
	ZSTD_outBuffer to = { out, out_len, 0 };
	ZSTD_DStream *z;
	size_t rc = 1;
	int loaded = need_zstd();

	if (loaded)
		return loaded;
	z = zstd.create();
	if (!z)
		return -ENOMEM;
	while (to.pos < to.size) {
		size_t before = from.pos + to.pos;

		rc = zstd.decompress(z, &to, &from);
		if (zstd.is_error(rc) || !rc || from.pos + to.pos == before)
			break;
	}
	zstd.free(z);
	return zstd.is_error(rc) || to.pos < to.size ? -EIO : 0;
}

int qcow2_zip_read(const struct qcow2 *q, u64 entry, u8 *ret_cluster)
{
	u64 offset, len;
	u8 *in;
	int rc;

	qcow2_map_zipped(q, entry, &offset, &len);
	in = malloc(len);
	if (!in)
		return -ENOMEM;
	rc = image_file_read(&q->file, in, len, offset);
	if (rc == 0)
		rc = q->h.zstd ? unzstd_cluster(in, len, ret_cluster, q->cluster)
			       : inflate_cluster(in, len, ret_cluster, q->cluster);
	free(in);
	return rc;
}

static s64 deflate_cluster(const u8 *data, u64 len, u8 *out)
{
	z_stream z = {
		.next_in = (u8 *)data, .avail_in = (unsigned)len, .next_out = out, .avail_out = (unsigned)len
	};
	int rc = need_zlib();

	if (rc)
		return rc;
	if (zlib.deflate_init(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW, MEM_LEVEL, Z_DEFAULT_STRATEGY,
			      ZLIB_VERSION, sizeof(z)) != Z_OK)
		return -ENOMEM;
	rc = zlib.deflate(&z, Z_FINISH);
	zlib.deflate_end(&z);
	return rc == Z_STREAM_END ? (s64)(len - z.avail_out) : 0;
}

s64 qcow2_zip_pack(const struct qcow2 *q, const u8 *data, u8 *out)
{
	size_t n;
	int rc;

	if (!q->h.zstd)
		return deflate_cluster(data, q->cluster, out);
	rc = need_zstd();
	if (rc)
		return rc;
	n = zstd.compress(out, q->cluster, data, q->cluster, ZSTD_CLEVEL_DEFAULT);
	return zstd.is_error(n) || n >= q->cluster ? 0 : (s64)n;
}
