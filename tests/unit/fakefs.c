/* See fakefs.h. */
#include "fakefs.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#define ANSWER 16

/* Reads all that there is to read, as a server might. */
static void answer(struct fs_req *req)
{
	static volatile u8 sum;
	u64 out = 0, in = 0, left = ANSWER;

	for (unsigned i = 0; i < req->nr_out + req->nr_in; i++) {
		const struct iovec *v = &req->iov[i];

		if (i < req->nr_out) {
			sum = (u8)(sum + ((const u8 *)v->iov_base)[0] +
				   ((const u8 *)v->iov_base)[v->iov_len - 1]);
			out += v->iov_len;
			continue;
		}
		memset(v->iov_base, ANSWER, v->iov_len < left ? v->iov_len : left);
		left -= v->iov_len < left ? v->iov_len : left;
		in += v->iov_len;
	}
	assert(out == req->out_len && in == req->in_len);
	req->done(req, (u32)(ANSWER - left));
}

static void fake_submit(struct fs *fs, struct fs_req *req)
{
	struct fake_fs *f = container_of(fs, struct fake_fs, fs);

	assert(req->done && req->nr_out + req->nr_in <= FS_MAX_PARTS);
	f->requests++;
	f->at_once += req->at_once;
	if (f->takes_us)
		usleep(f->takes_us);
	if (!f->hold) {
		answer(req);
		return;
	}
	req->next = f->held;
	f->held = req;
}

void fake_fs_run(struct fake_fs *f, unsigned n)
{
	struct fs_req *req;

	if (!f->fs.lock)
		return;
	pthread_mutex_lock(f->fs.lock);
	for (; n && (req = f->held); n--) {
		f->held = req->next;
		answer(req);
	}
	pthread_mutex_unlock(f->fs.lock);
}

static void fake_drain(struct fs *fs)
{
	fake_fs_run(container_of(fs, struct fake_fs, fs), ~0u);
}

static void fake_reset(struct fs *fs)
{
	struct fake_fs *f = container_of(fs, struct fake_fs, fs);

	assert(!f->held);
	f->resets++;
}

static void fake_close(struct fs *fs)
{
}

static const struct fs_ops fake_ops = { fake_submit, fake_drain, fake_reset, fake_close };

void fake_fs_init(struct fake_fs *f)
{
	memset(f, 0, sizeof(*f));
	f->fs.ops = &fake_ops;
	f->fs.tag = "fake";
}
