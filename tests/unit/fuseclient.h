/* Asks a FUSE server (host/fuse.h) as a guest's driver would, one request after the other, or several at once. */
#pragma once

#include <linux/fuse.h>
#include <pthread.h>

#include "base/types.h"
#include "host/fuse.h"
#include "vm/fs.h"

#define FUSECLIENT_ROOM (256u << 10)

/* One request under way, in memory that stands for the guest's. */
struct fuseclient_req {
	struct fs_req req;
	struct iovec iov[2];
	u8 out[FUSECLIENT_ROOM], in[FUSECLIENT_ROOM];
	u32 written;
	bool done, at_once; /* at_once: when submit() returned, it was done */
};

struct fuseclient {
	struct fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	u64 unique;
	u32 uid, gid;
	bool at_once;            /* submit() may answer */
	struct fuseclient_req r; /* of fuseclient_ask() */
};

/* Connects to an open server. */
void fuseclient_init(struct fuseclient *c, struct fs *fs);
void fuseclient_fini(struct fuseclient *c);
/* INIT as Linux 6.1 does it; its error. */
int fuseclient_start(struct fuseclient *c, u32 flags, struct fuse_init_out *ret);

/* Begins a request: header, fixed part, then what follows. The answer has `room` bytes of space. */
void fuseclient_begin(struct fuseclient *c, struct fuseclient_req *r, u32 opcode, u64 node, const void *fixed,
		      size_t fixed_len, const void *more, size_t more_len, u32 room);
/* Waits for it; the answer's error (0 or -errno), or 1: there is no answer. */
int fuseclient_wait(struct fuseclient *c, struct fuseclient_req *r);
bool fuseclient_is_done(struct fuseclient *c, struct fuseclient_req *r);
/* Both, with c->r. */
int fuseclient_ask(struct fuseclient *c, u32 opcode, u64 node, const void *fixed, size_t fixed_len,
		   const void *more, size_t more_len);
/* What came behind the answer's header, and how much that is. */
static inline void *fuseclient_answer(struct fuseclient_req *r)
{
	return r->in + sizeof(struct fuse_out_header);
}

static inline u32 fuseclient_answer_len(const struct fuseclient_req *r)
{
	return r->written - (u32)sizeof(struct fuse_out_header);
}
