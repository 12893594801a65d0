/* Compressed clusters: raw deflate streams with a window of 4 KiB, or one zstd frame [qcow2, "Compressed clusters"].
 * A stream that does not give exactly one cluster is an I/O error.
 *
 * Threads: any, no lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "host/qcow2_int.h"

#define WINDOW    12
#define MEM_LEVEL 9

static int inflate_cluster(const u8 *in, u64 len, u8 *out, u64 out_len)
{
	z_stream z = { .next_in = (u8 *)in,
		       .avail_in = (unsigned)len,
		       .next_out = out,
		       .avail_out = (unsigned)out_len };
	int rc;

	if (inflateInit2(&z, -WINDOW) != Z_OK)
		return -ENOMEM;
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* What follows the stream in its last sector is not its own. */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int unzstd_cluster(const u8 *in, u64 len, u8 *out, u64 out_len)
{
	ZSTD_inBuffer from = { in, len, 0 };
	ZSTD_outBuffer to = { out, out_len, 0 };
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t rc = 1;

	if (!z)
		return -ENOMEM;
	while (to.pos < to.size) {
		size_t before = from.pos + to.pos;

		rc = ZSTD_decompressStream(z, &to, &from);
		if (ZSTD_isError(rc) || !rc || from.pos + to.pos == before)
			break;
	}
	ZSTD_freeDStream(z);
	return ZSTD_isError(rc) || to.pos < to.size ? -EIO : 0;
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
	int rc;

	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW, MEM_LEVEL, Z_DEFAULT_STRATEGY) !=
	    Z_OK)
		return -ENOMEM;
	rc = deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return rc == Z_STREAM_END ? (s64)(len - z.avail_out) : 0;
}

s64 qcow2_zip_pack(const struct qcow2 *q, const u8 *data, u8 *out)
{
	size_t n;

	if (!q->h.zstd)
		return deflate_cluster(data, q->cluster, out);
	n = ZSTD_compress(out, q->cluster, data, q->cluster, ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(n) || n >= q->cluster ? 0 : (s64)n;
}
