/* See fakeblock.h. */
#include "fakeblock.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static void copy(struct fake_block *f, struct block_req *req, bool write)
{
	u8 *at = f->data + req->offset;
	u64 left = req->len;

	for (unsigned i = 0; i < req->nr_iov; i++) {
		assert(req->iov[i].iov_len <= left);
		memcpy(write ? at : req->iov[i].iov_base, write ? req->iov[i].iov_base : at,
		       req->iov[i].iov_len);
		at += req->iov[i].iov_len;
		left -= req->iov[i].iov_len;
	}
	assert(!left);
}

static void complete(struct fake_block *f, struct block_req *req)
{
	if (!f->fail) {
		switch (req->op) {
		case BLOCK_READ: copy(f, req, false); break;
		case BLOCK_WRITE:
			copy(f, req, true);
			f->written += req->len;
			break;
		case BLOCK_FLUSH: f->flushes++; break;
		case BLOCK_DISCARD: break;
		case BLOCK_ZERO:
			memset(f->data + req->offset, 0, req->len);
			f->written += req->len;
			break;
		}
	}
	req->done(req, f->fail);
}

/* What the contract promises to a back end. */
static void check(const struct fake_block *f, const struct block_req *req)
{
	assert(req->done);
	if (req->op == BLOCK_FLUSH)
		return;
	assert(req->len && req->len % BLOCK_SECTOR == 0 && req->offset % BLOCK_SECTOR == 0);
	assert(req->offset <= f->block.size && req->len <= f->block.size - req->offset);
	assert(req->op == BLOCK_READ || !f->block.read_only);
}

static void fake_submit(struct block *b, struct block_req *req)
{
	struct fake_block *f = container_of(b, struct fake_block, block);

	check(f, req);
	f->requests++;
	if (!f->hold) {
		complete(f, req);
		return;
	}
	req->next = f->held;
	f->held = req;
	f->nr_held++;
	f->most_held = MAX(f->most_held, f->nr_held);
}

static void fake_commit(struct block *b)
{
	container_of(b, struct fake_block, block)->commits++;
}

void fake_block_run(struct fake_block *f, unsigned n, u64 seed)
{
	if (!f->block.lock)
		return;
	pthread_mutex_lock(f->block.lock);
	for (; n && f->held; n--, seed = seed * 6364136223846793005ull + 1442695040888963407ull) {
		struct block_req **at = &f->held, *req;

		for (u64 skip = (seed >> 33) % f->nr_held; skip; skip--)
			at = &(*at)->next;
		req = *at;
		*at = req->next;
		f->nr_held--;
		complete(f, req);
	}
	pthread_mutex_unlock(f->block.lock);
}

static void fake_drain(struct block *b)
{
	struct fake_block *f = container_of(b, struct fake_block, block);

	while (f->held)
		fake_block_run(f, f->nr_held, 1);
}

static void fake_close(struct block *b)
{
}

static const struct block_ops fake_ops = { fake_submit, fake_commit, fake_drain, fake_close };

void fake_block_init(struct fake_block *f, u64 size)
{
	memset(f, 0, sizeof(*f));
	f->block.ops = &fake_ops;
	f->block.size = size;
	f->block.name = "fake";
	/* Not of the heap, which would clear it where a test touches little of it. */
	f->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(f->data != MAP_FAILED);
}

void fake_block_fini(struct fake_block *f)
{
	assert(!f->held);
	munmap(f->data, f->block.size);
	f->data = NULL;
}
