/* A small virtio driver for tests: finds a device on the board's PCI bus, starts it, and writes rings, right or wrong. */
#pragma once

#include "fakeboard.h"
#include "dev/virtio/virtio.h"

#define VDRIVER_RAM   (4 * MiB) /* what the board needs */
#define VDRIVER_RINGS 0x100000  /* 64 KiB per queue: descriptors, +4000H driver area, +8000H device area */
#define VDRIVER_DATA  0x200000  /* free for the test, to 4 MiB */
#define VDRIVER_NEXT  BIT(0)
#define VDRIVER_WRITE BIT(1)
#define VDRIVER_TABLE BIT(2)

struct vdriver_seg {
	u64 addr;
	u32 len;
	bool write;
};

struct vdriver_queue {
	u16 size;
	u64 desc, driver, device;
	u16 free;  /* split: next descriptor, round and round; packed: next position */
	u16 avail; /* split: index of the available ring */
	u16 used;  /* split: index of the used ring; packed: next position */
	bool wrap, used_wrap;
	u16 entries[VIRTIO_QUEUE_SIZE]; /* packed: of the buffer with this id */
};

struct vdriver {
	struct board *b;
	u64 ecam, regs, msix; /* configuration space, BAR 0, BAR 2 */
	bool packed, event_idx;
	u64 features;
	u16 nr_queues;
	struct vdriver_queue q[VIRTIO_MAX_QUEUES];
};

/* The nth device of this type; its BARs are placed, it is a bus master. Aborts when there is none. */
void vdriver_find(struct vdriver *d, struct board *b, u16 type, unsigned nth);

u64 vdriver_read(struct vdriver *d, unsigned off, unsigned size); /* of BAR 0 */
void vdriver_write(struct vdriver *d, unsigned off, unsigned size, u64 val);
u8 vdriver_status(struct vdriver *d);
void vdriver_set_status(struct vdriver *d, u8 val);
u64 vdriver_offered(struct vdriver *d);

/* Up to FEATURES_OK with these features and VERSION_1; true: accepted. */
bool vdriver_negotiate(struct vdriver *d, u64 features);
/* Programs and enables queue q with rings at their usual place. */
void vdriver_queue(struct vdriver *d, unsigned q, u16 size);
/* All of it: negotiates, enables all queues, DRIVER_OK, MSI-X off. Asserts that the device is content. */
void vdriver_start(struct vdriver *d, u64 features, u16 size);

/* One descriptor as it is, at index i of the table or ring. Split: next; packed: id. */
void vdriver_desc(struct vdriver *d, unsigned q, unsigned i, u64 addr, u32 len, u16 flags, u16 next);
/* Makes buffer `head` available (split). */
void vdriver_offer(struct vdriver *d, unsigned q, u16 head);
/* A proper buffer of n parts, and its id. */
u16 vdriver_add(struct vdriver *d, unsigned q, const struct vdriver_seg *segs, unsigned n);
void vdriver_kick(struct vdriver *d, unsigned q);
/* The next used buffer, if there is one. */
bool vdriver_used(struct vdriver *d, unsigned q, u32 *ret_id, u32 *ret_len);

u8 *vdriver_mem(struct vdriver *d, u64 gpa);
