/* See fuseclient.h. */
#include "fuseclient.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define PATIENCE_S 20

void fuseclient_init(struct fuseclient *c, struct fs *fs)
{
	memset(c, 0, sizeof(*c));
	c->fs = fs;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	fs->lock = &c->lock;
}

void fuseclient_fini(struct fuseclient *c)
{
	c->fs->ops->drain(c->fs);
	c->fs->ops->close(c->fs);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
}

/* On a thread of the server, which holds the lock. */
static struct fuseclient *the_client;

static void done(struct fs_req *req, u32 written)
{
	struct fuseclient_req *r = container_of(req, struct fuseclient_req, req);

	assert(written <= req->in_len);
	r->written = written;
	r->done = true;
	pthread_cond_broadcast(&the_client->changed);
}

void fuseclient_begin(struct fuseclient *c, struct fuseclient_req *r, u32 opcode, u64 node, const void *fixed,
		      size_t fixed_len, const void *more, size_t more_len, u32 room)
{
	struct fuse_in_header h = {
		.len = (u32)(sizeof(h) + fixed_len + more_len),
		.opcode = opcode,
		.unique = __atomic_add_fetch(&c->unique, 1, __ATOMIC_RELAXED),
		.nodeid = node,
		.uid = c->uid,
		.gid = c->gid,
		.pid = 1,
	};

	assert(h.len <= sizeof(r->out) && room <= sizeof(r->in));
	memcpy(r->out, &h, sizeof(h));
	if (fixed_len)
		memcpy(r->out + sizeof(h), fixed, fixed_len);
	if (more_len)
		memcpy(r->out + sizeof(h) + fixed_len, more, more_len);
	r->iov[0] = (struct iovec){ r->out, h.len };
	r->iov[1] = (struct iovec){ r->in, room };
	r->req = (struct fs_req){ .iov = r->iov,
				  .nr_out = 1,
				  .nr_in = room ? 1 : 0,
				  .out_len = h.len,
				  .in_len = room,
				  .done = done,
				  .at_once = c->at_once };
	r->done = false;
	r->written = 0;
	pthread_mutex_lock(&c->lock);
	the_client = c;
	c->fs->ops->submit(c->fs, &r->req);
	r->at_once = r->done;
	pthread_mutex_unlock(&c->lock);
}

bool fuseclient_is_done(struct fuseclient *c, struct fuseclient_req *r)
{
	bool is;

	pthread_mutex_lock(&c->lock);
	is = r->done;
	pthread_mutex_unlock(&c->lock);
	return is;
}

int fuseclient_wait(struct fuseclient *c, struct fuseclient_req *r)
{
	struct fuse_out_header oh;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&c->lock);
	while (!r->done)
		if (pthread_cond_timedwait(&c->changed, &c->lock, &until) == ETIMEDOUT)
			assert(!"no answer");
	pthread_mutex_unlock(&c->lock);
	if (!r->written)
		return 1;
	assert(r->written >= sizeof(oh));
	memcpy(&oh, r->in, sizeof(oh));
	assert(oh.len == r->written && oh.error <= 0 && oh.error > -512);
	assert(oh.error == 0 || oh.len == sizeof(oh));
	return oh.error;
}

int fuseclient_ask(struct fuseclient *c, u32 opcode, u64 node, const void *fixed, size_t fixed_len,
		   const void *more, size_t more_len)
{
	fuseclient_begin(c, &c->r, opcode, node, fixed, fixed_len, more, more_len, sizeof(c->r.in));
	return fuseclient_wait(c, &c->r);
}

int fuseclient_start(struct fuseclient *c, u32 flags, struct fuse_init_out *ret)
{
	const struct fuse_init_in in = {
		.major = 7, .minor = 37, .max_readahead = 128 << 10, .flags = flags
	};
	int rc = fuseclient_ask(c, FUSE_INIT, 0, &in, sizeof(in), NULL, 0);

	if (!rc && ret)
		memcpy(ret, fuseclient_answer(&c->r), sizeof(*ret));
	return rc;
}
