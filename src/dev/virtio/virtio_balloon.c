/* virtio-balloon: the guest gives pages back to the host, and tells how it is off for memory.
 *
 * Document: virtio 1.2, [virtio 5.5].
 *
 * How it works: of a page that comes through the inflate queue, or is reported as free, the host's memory is freed at
 * once; it reads zero when it is touched again, so that taking it back needs nothing, and a guest that goes on using it
 * harms its own contents only. Only RAM is given away: an address that is none breaks the device (hostile case G36). Code
 * that an engine has decoded there is dropped, as with any write. A disk that is writing to such a page keeps it until
 * it is done, by the host kernel's own count of references.
 *
 * The driver's buffer for statistics stays in its ring. When somebody asks, it goes back to the driver, which fills it
 * anew; what is in it is read when the driver says so.
 *
 * To free a page costs the host a system call, for which the guest pays nothing, so RATE of them are possible a
 * second; what has to wait stays in the ring.
 *
 * QUIRK(Linux): queues whose features were not negotiated are left out when queues are numbered, so a driver without
 * statistics finds free page reporting at 2; the document has it at 4, Linux with statistics and without hints at 3. All
 * three are served.
 *
 * Omitted, features that are not offered: free page hints (for live migration), page poison; MUST_TELL_HOST, as
 * the host need not be told.
 *
 * Threads: vCPUs, the main thread (timer), and who asks, under the device's lock.
 */
#include "dev/virtio/virtio_balloon.h"

#include <string.h>

#include "base/bits.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/clock.h"
#include "vm/dma.h"
#include "vm/throttle.h"
#include "vm/vm.h"

extern const struct device_ops virtio_balloon_device;

#define INFLATE    0
#define DEFLATE    1
#define STATS      2
#define NR_QUEUES  5
#define CLASS_CODE 0x00ff00

/* Features [virtio 5.5.3] */
#define F_STATS_VQ       BIT(1)
#define F_DEFLATE_ON_OOM BIT(2)
#define F_PAGE_REPORTING BIT(5)

#define PAGE       4096ull /* [virtio 5.5.6], whatever the guest's pages are */
#define MAX_PFNS   4096    /* of one buffer; Linux sends 256 */
#define CHUNK      256     /* read at a time */
#define RATE       500000  /* calls a second */
#define STAT_LEN   10      /* u16 tag, u64 value */
#define MAX_REPORT 64      /* entries of a buffer with statistics that are looked at */

/* [virtio 5.5.4] */
struct balloon_config {
	u32 num_pages, actual;
} packed_struct;
#define CONFIG_ACTUAL 4

struct virtio_balloon {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct throttle rate;
	struct clock_timer *due;
	u64 discarded;
	u64 stat[BALLOON_NR_STATS];
	u16 known;
	u64 stat_time;

	/* State */
	struct balloon_config config;
};

#define BALLOON_STAT_NAME_(NAME, text) [BALLOON_STAT_##NAME] = text,
const char *const virtio_balloon_stat_names[BALLOON_NR_STATS] = { BALLOON_STATS(BALLOON_STAT_NAME_) };

/* ---- giving away ---- */

/* Pages that follow one another, not yet given away. */
struct run {
	u64 start, len; /* bytes */
};

static bool flush(struct virtio_balloon *b, struct run *run, u64 now)
{
	if (!run->len)
		return true;
	throttle_take(&b->rate, now, 1);
	if (dma_discard(b->dev.vm, run->start, run->len) < 0) {
		virtio_broken(&b->v, "it gives memory away that is none");
		return false;
	}
	b->discarded += run->len;
	run->len = 0;
	return true;
}

static bool inflate(struct virtio_balloon *b, const struct virtq_buf *buf, u64 now)
{
	struct run run = { 0, 0 };
	u32 pfn[CHUNK];
	size_t got;

	if (buf->out_len % sizeof(u32) || buf->out_len > MAX_PFNS * sizeof(u32)) {
		virtio_broken(&b->v, "a list of pages that is too long, or has half an entry");
		return false;
	}
	for (u64 at = 0; (got = virtq_read(buf->iov, buf->nr_out, at, pfn, sizeof(pfn))) > 0; at += got) {
		for (size_t i = 0; i < got / sizeof(u32); i++) {
			u64 gpa = pfn[i] * PAGE;

			if (run.len && gpa == run.start + run.len) {
				run.len += PAGE;
			} else if (run.len && gpa + PAGE == run.start) {
				run.start = gpa;
				run.len += PAGE;
			} else {
				if (!flush(b, &run, now))
					return false;
				run = (struct run){ gpa, PAGE };
			}
		}
	}
	return flush(b, &run, now);
}

/* Each part of the buffer is free memory; of its first and last page the guest may use what is outside. */
static bool report(struct virtio_balloon *b, const struct virtq_buf *buf, u64 now)
{
	const u8 *ram = b->dev.vm->ram.base;

	for (unsigned i = buf->nr_out; i < buf->nr_out + buf->nr_in; i++) {
		u64 from = (u64)((const u8 *)buf->iov[i].iov_base - ram);
		u64 start = ALIGN_UP(from, PAGE), end = ALIGN_DOWN(from + buf->iov[i].iov_len, PAGE);
		struct run run = { start, start < end ? end - start : 0 };

		if (!flush(b, &run, now))
			return false;
	}
	return true;
}

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_balloon *b = container_of(v, struct virtio_balloon, v);
	const struct virtq_used used = { .token = buf->token };
	u64 now = clock_now(b->dev.vm), wait = throttle_wait(&b->rate, now);

	if (wait) {
		clock_timer_arm(b->due, now + wait);
		return false;
	}
	if (q == INFLATE ? !inflate(b, buf, now)
			 : q >= STATS && virtio_has(v, F_PAGE_REPORTING) && !report(b, buf, now))
		return false;
	virtq_push(v, q, &used, 1);
	return true;
}

static void on_due(void *opaque)
{
	struct virtio_balloon *b = opaque;

	for (unsigned q = 0; q < NR_QUEUES; q++)
		virtio_run(&b->v, q);
}

/* ---- statistics ---- */

static void read_stats(struct virtio_balloon *b, const struct virtq_buf *buf)
{
	u8 bytes[MAX_REPORT * STAT_LEN];
	size_t len = virtq_read(buf->iov, buf->nr_out, 0, bytes, sizeof(bytes));

	b->known = 0;
	for (size_t at = 0; at + STAT_LEN <= len; at += STAT_LEN) {
		u16 tag = ld16(bytes + at);

		if (tag >= BALLOON_NR_STATS)
			continue;
		b->stat[tag] = ld64(bytes + at + 2);
		b->known |= (u16)BIT(tag);
	}
	b->stat_time = clock_now(b->dev.vm);
}

/* The queue that is the device's to take from: statistics, or, for a driver without them, reports. */
static void buffers(struct virtio *v, unsigned q)
{
	struct virtio_balloon *b = container_of(v, struct virtio_balloon, v);
	bool stats = virtio_has(v, F_STATS_VQ);

	do {
		while (virtq_pop(v, q, &v->buf)) {
			if (stats)
				read_stats(b, &v->buf);
			if (stats || !request(v, q, &v->buf)) {
				virtq_unpop(v, q, &v->buf.token, 1);
				/* Word of the next one. */
				virtq_listen(v, q, true);
				virtq_notify(v, q);
				return;
			}
		}
	} while (virtq_listen(v, q, true));
	virtq_notify(v, q);
}

static void ask(struct virtio_balloon *b)
{
	struct virtio *v = &b->v;

	if (!virtio_has(v, F_STATS_VQ) || !virtq_pop(v, STATS, &v->buf))
		return;
	virtq_push(v, STATS, &(const struct virtq_used){ .token = v->buf.token }, 1);
	virtq_listen(v, STATS, true);
	virtq_notify(v, STATS);
}

/* ---- what others ask for ---- */

struct device *virtio_balloon_find(struct vm *vm)
{
	struct device *dev = vm->devices;

	while (dev && dev->ops != &virtio_balloon_device)
		dev = dev->next;
	return dev;
}

void virtio_balloon_set_target(struct device *dev, u64 bytes)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);
	u32 pages = (u32)(MIN(bytes, dev->vm->ram.size) / PAGE);

	pthread_mutex_lock(dev->lock);
	if (b->config.num_pages != pages) {
		b->config.num_pages = pages;
		virtio_config_changed(&b->v);
	}
	pthread_mutex_unlock(dev->lock);
}

void virtio_balloon_query(struct device *dev, struct balloon_info *ret_info)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);

	pthread_mutex_lock(dev->lock);
	*ret_info = (struct balloon_info){
		.target = b->config.num_pages * PAGE,
		.actual = MIN(b->config.actual * PAGE, dev->vm->ram.size),
		.discarded = b->discarded,
		.known = b->known,
		.stat_age = clock_now(dev->vm) - b->stat_time,
	};
	memcpy(ret_info->stat, b->stat, sizeof(b->stat));
	ask(b);
	pthread_mutex_unlock(dev->lock);
}

/* ---- the device ---- */

static void config_written(struct virtio *v, unsigned offset, unsigned size, u32 val)
{
	struct virtio_balloon *b = container_of(v, struct virtio_balloon, v);

	if (offset == CONFIG_ACTUAL && size == 4)
		b->config.actual = val;
}

static void stopped(struct virtio *v)
{
	struct virtio_balloon *b = container_of(v, struct virtio_balloon, v);

	b->config.actual = 0;
	b->known = 0;
	clock_timer_cancel(b->due);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BALLOON,
	.class_code = CLASS_CODE,
	.request = request,
	.buffers = buffers,
	.stopped = stopped,
	.config_written = config_written,
};

static int virtio_balloon_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	static const struct balloon_conf defaults = { .target = 0 };
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);
	const struct balloon_conf *c = conf->balloon ? conf->balloon : &defaults;
	u64 features = F_STATS_VQ;

	features |= c->no_deflate_on_oom ? 0 : F_DEFLATE_ON_OOM;
	features |= c->no_reporting ? 0 : F_PAGE_REPORTING;
	b->config.num_pages = (u32)(MIN(c->target, dev->vm->ram.size) / PAGE);
	b->rate.rate = RATE;
	b->due = clock_timer_new(dev->vm, dev->lock, on_due, b);
	virtio_init(&b->v, dev, &ops, features, conf->packed, NR_QUEUES, &b->config, sizeof(b->config));
	virtio_fill_queue(&b->v, STATS);
	return virtio_pci_init(&b->pci, &b->v, err);
}

/* The target is the user's: a guest that starts over is asked for the same. */
static void virtio_balloon_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);

	stopped(&b->v);
	b->rate.free = 0;
	virtio_pci_reset(&b->pci);
}

static void virtio_balloon_quiesce(struct device *dev)
{
	virtio_quiesce(&container_of(dev, struct virtio_balloon, dev)->v);
}

static void virtio_balloon_resume(struct device *dev)
{
	virtio_resume(&container_of(dev, struct virtio_balloon, dev)->v);
}

static const struct state_field virtio_balloon_state[] = {
	VIRTIO_STATE(virtio_balloon, v),
	VIRTIO_PCI_STATE(virtio_balloon, pci),
	STATE_U32(virtio_balloon, config.num_pages),
	STATE_U32(virtio_balloon, config.actual),
	STATE_END,
};

static int virtio_balloon_post_load(struct device *dev, struct err *err)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);
	int r = virtio_pci_post_load(&b->pci, err);

	b->known = 0;
	/* What had to wait when it was saved. */
	if (r == 0)
		clock_timer_arm(b->due, clock_now(dev->vm));
	return r;
}

static void virtio_balloon_fini(struct device *dev)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, dev);

	clock_timer_free(b->due);
	virtio_pci_fini(&b->pci);
}

const struct device_ops virtio_balloon_device = {
	.name = "virtio-balloon",
	.size = sizeof(struct virtio_balloon),
	.init = virtio_balloon_init,
	.reset = virtio_balloon_reset,
	.quiesce = virtio_balloon_quiesce,
	.resume = virtio_balloon_resume,
	.state = virtio_balloon_state,
	.post_load = virtio_balloon_post_load,
	.fini = virtio_balloon_fini,
};
