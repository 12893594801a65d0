/* A virtio device without its transport: status, features, configuration space, and the queues.
 *
 * A device type keeps a struct virtio and a transport (virtio_pci.h) beside its struct device, describes itself with a
 * struct virtio_ops, and gets each buffer of the driver through ops->request(). Everything here runs with the
 * device's lock held, on vCPU threads (the transport) or the main thread (completions), unless said otherwise.
 *
 * What the guest writes is hostile: see virtq.c. A ring that cannot be right sets DEVICE_NEEDS_RESET, and nothing
 * more is taken from any queue until the driver has reset the device [virtio 2.1.2].
 */
#pragma once

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"
#include "vm/device.h"
#include "vm/state.h"

struct vm;
struct virtio;

#define VIRTIO_MAX_QUEUES 16
#define VIRTIO_QUEUE_SIZE 256 /* entries at most */
#define VIRTIO_MAX_SEGS   256 /* of one buffer */
#define VIRTIO_NO_VECTOR  0xffff

/* Device types [virtio 5] */
#define VIRTIO_ID_NET     1
#define VIRTIO_ID_BLOCK   2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_ENTROPY 4
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_VSOCK   19
#define VIRTIO_ID_FS      26

/* Device status [virtio 2.1] */
#define VIRTIO_ACKNOWLEDGE BIT(0)
#define VIRTIO_DRIVER      BIT(1)
#define VIRTIO_DRIVER_OK   BIT(2)
#define VIRTIO_FEATURES_OK BIT(3)
#define VIRTIO_NEEDS_RESET BIT(6)
#define VIRTIO_FAILED      BIT(7)

/* Features of all types [virtio 6] */
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX     BIT(29)
#define VIRTIO_F_VERSION_1     BIT(32)
#define VIRTIO_F_RING_PACKED   BIT(34)

/* What a buffer is known by when it is given back. */
struct virtq_token {
	u16 id;
	u16 entries; /* of the ring */
	u32 epoch;   /* the resets before it was taken */
};

/* One buffer of the driver: iov[0..nr_out) for the device to read, then nr_in to write. */
struct virtq_buf {
	struct virtq_token token;
	unsigned nr_out, nr_in;
	u64 out_len, in_len; /* bytes, 4 GiB at most together */
	struct iovec iov[VIRTIO_MAX_SEGS];
};

struct virtq_used {
	struct virtq_token token;
	u32 written; /* bytes, from the start of the writable part */
};

struct virtio_ops {
	u16 id;
	u32 class_code; /* for PCI */
	/* One buffer of queue q. True: it is the device's until virtq_push(), which may come at once. False: not now;
	 * it stays with the driver until virtio_run() is called again. buf is only lent. */
	bool (*request)(struct virtio *v, unsigned q, const struct virtq_buf *buf);
	/* Requests were taken from q, no more come for now; NULL: nothing to do. */
	void (*taken)(struct virtio *v, unsigned q);
	/* The driver has put buffers into q, one of those that the device takes from by itself (virtio_fill_queue()). */
	void (*buffers)(struct virtio *v, unsigned q);
	/* DRIVER_OK was set; NULL: nothing to do. */
	void (*started)(struct virtio *v);
	/* The driver has reset the device: what is on its way will be dropped by virtq_push(). NULL: nothing to do. */
	void (*stopped)(struct virtio *v);
	/* The driver has written size bytes (1, 2, 4) into the type's configuration, inside of it; NULL: it cannot. */
	void (*config_written)(struct virtio *v, unsigned offset, unsigned size, u32 val);
};

struct virtio_transport {
	/* The driver wants to know of a used buffer in q, or that the device needs a reset. */
	void (*queue_interrupt)(void *opaque, unsigned q);
	void (*config_interrupt)(void *opaque);
};

/* A queue as far as it is not in the state: where the rings are in this process, what is on its way. */
struct virtq {
	u8 *desc, *driver, *device; /* NULL: not enabled */
	u16 inflight;               /* ring entries taken and not given back */
	u16 signalled;              /* index of the used ring at the last interrupt, while .. */
	bool signalled_valid;
	bool fill; /* ops->buffers() instead of ops->request() */
};

struct virtio {
	struct device *dev;
	const struct virtio_ops *ops;
	const struct virtio_transport *transport;
	void *transport_opaque;
	u64 offered;
	u16 nr_queues;
	const u8 *config; /* the type's configuration space; the caller's */
	u16 config_len;
	u8 generation;  /* of the configuration, for a driver that reads it in parts */
	bool dma_off;   /* the transport does not allow access to memory */
	bool resetting; /* status reads 0 once nothing is on its way */
	bool quiet;     /* the machine is paused: buffers stay with the driver */
	u32 epoch;
	u32 inflight; /* buffers, of all epochs */
	struct virtq q[VIRTIO_MAX_QUEUES];
	struct virtq_buf buf; /* the one under way */

	/* State; queues by number */
	u64 features;
	u8 status;
	u16 q_size[VIRTIO_MAX_QUEUES];
	u8 q_enabled[VIRTIO_MAX_QUEUES];
	u64 q_desc[VIRTIO_MAX_QUEUES], q_driver[VIRTIO_MAX_QUEUES], q_device[VIRTIO_MAX_QUEUES];
	u16 q_avail[VIRTIO_MAX_QUEUES]; /* next to take; packed: bit 15 is the wrap counter */
	u16 q_used[VIRTIO_MAX_QUEUES];  /* next to give back; the same */
};

#define VIRTIO_STATE(s, v)                                                                                   \
	STATE_U64(s, v.features), STATE_U8(s, v.status), STATE_U16S(s, v.q_size), STATE_U8S(s, v.q_enabled), \
		STATE_U64S(s, v.q_desc), STATE_U64S(s, v.q_driver), STATE_U64S(s, v.q_device),               \
		STATE_U16S(s, v.q_avail), STATE_U16S(s, v.q_used)

/* Main thread, in the device's init. features: what the type offers; those of all types are added, the packed ring
 * where packed is set. config changes under the device's lock only: see virtio_config_changed(). */
void virtio_init(struct virtio *v, struct device *dev, const struct virtio_ops *ops, u64 features,
		 bool packed, unsigned nr_queues, const void *config, size_t config_len);
/* Queue q is filled by the device: buffers wait there until it takes them with virtq_pop(). */
void virtio_fill_queue(struct virtio *v, unsigned q);
/* As after power on. vCPUs not running, nothing on its way. */
void virtio_reset(struct virtio *v);
int virtio_post_load(struct virtio *v, struct err *err);

static inline bool virtio_has(const struct virtio *v, u64 feature)
{
	return v->features & feature;
}

static inline bool virtio_running(const struct virtio *v)
{
	return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK && !v->resetting;
}

/* For quiesce and resume of struct device_ops: between them no buffer is taken from the driver, and a type that fills queues
 * by itself does not (it looks at v->quiet). */
void virtio_quiesce(struct virtio *v);
void virtio_resume(struct virtio *v);

/* Takes what waits in q, up to a bound (the rest on the main loop). Any thread. */
void virtio_run(struct virtio *v, unsigned q);
/* The device has changed its configuration: tells the driver. Any thread. */
void virtio_config_changed(struct virtio *v);
/* The driver's ring or request cannot be right; why is for the log. */
void virtio_broken(struct virtio *v, const char *why);

/* For transports: what the driver writes into the registers that all transports have. */
void virtio_write_status(struct virtio *v, u8 val);
void virtio_write_features(struct virtio *v, unsigned word, u32 val); /* word 0: bits 31..0 */
void virtio_write_size(struct virtio *v, unsigned q, u16 val);
void virtio_enable_queue(struct virtio *v, unsigned q);
void virtio_notified(struct virtio *v, unsigned q);

/* ---- virtq.c ---- */

/* The next buffer, without running requests; false: there is none, or the ring is broken. */
bool virtq_pop(struct virtio *v, unsigned q, struct virtq_buf *ret_buf);
/* Gives the n buffers taken last, in the order in which they were taken, back as if they had not been. */
void virtq_unpop(struct virtio *v, unsigned q, const struct virtq_token *tokens, unsigned n);
/* Hands n buffers to the driver, all at once. Those taken before a reset are dropped. */
void virtq_push(struct virtio *v, unsigned q, const struct virtq_used *used, unsigned n);
/* Interrupts the driver if it wants to know of what was pushed since the last call. */
void virtq_notify(struct virtio *v, unsigned q);
/* Asks the driver for notifications or tells it that none are needed; true: buffers wait already. */
bool virtq_listen(struct virtio *v, unsigned q, bool on);

/* For virtio.c: maps the rings (false: they are not in RAM or not aligned) and begins at their start. */
bool virtq_map(struct virtio *v, unsigned q);
void virtq_start(struct virtio *v, unsigned q);

/* Between a buffer's parts and the device's memory; returns how many of len bytes there were from offset on. */
size_t virtq_read(const struct iovec *iov, unsigned nr, u64 offset, void *buf, size_t len);
size_t virtq_write(struct vm *vm, const struct iovec *iov, unsigned nr, u64 offset, const void *buf,
		   size_t len);
