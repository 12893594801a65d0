/* Writes that the kernel takes instead of leaving the guest's KVM_RUN for each, where bus_late() allows it.
 *
 * Posted writes come into a ring that all vCPUs of a VM share [KVM api 4.116, KVM_REGISTER_COALESCED_MMIO]. Whoever comes back
 * from KVM_RUN gives them to the bus before anything else, and so does who looks at a device from outside; a ring without room
 * is an exit.
 *
 * A doorbell is an eventfd [KVM api 4.59, KVM_IOEVENTFD], which the main loop reads. It costs the waking of a thread, and
 * the vCPU has gone on by then; an exit costs the vCPU the device's work, which for asynchronous I/O is little. So that is asked
 * for by ioeventfd=on. A ring that nobody has answered when the machine stands still is none that is lost: devices look at all
 * their queues when they go on.
 *
 * Both are learnt from exits: an address comes to the kernel when it was written once, and goes when the bus has changed
 * (kvm_bus_follow). Where the kernel does not want more of them, exits stay exits.
 *
 * bus->lock is taken before the devices' locks. A vCPU's thread, but what the main loop calls.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/loop.h"
#include "cpu/kvm/kvm.h"

#define MAX_LATE   64
#define MAX_EVENTS 16
#define NR_ASKED   64
#define RING_LEN                                                    \
	((RAM_PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / \
	 sizeof(struct kvm_coalesced_mmio)) /* of which one stays free */

/* An address that the kernel has, or had. */
struct late {
	enum bus_space space;
	struct bus_late what;
	bool known; /* to the kernel */
	int fd;     /* of a doorbell; stays for the next one */
};

struct kvm_bus {
	struct kvm_vm *kvm;
	pthread_mutex_t lock;
	struct kvm_coalesced_mmio_ring *ring; /* NULL: none */
	unsigned ring_page;                   /* of a vCPU's mapping; 0: this KVM has none */
	bool refused[BUS_NR_SPACES][2]; /* kinds that this KVM does not take: doorbells, posted writes */
	_Atomic u32 seen;               /* vm->bus.changes, of which all was learnt */
	/* Addresses of which bus_late() was asked since, plus 1, by their hash: an exit costs no search for what is known. */
	_Atomic u64 asked[BUS_NR_SPACES][NR_ASKED];
	unsigned nr;
	struct late late[MAX_LATE];
	int epoll;
	struct loop_fd *watch;
};

/* --- posted writes --- */
static void settle(struct kvm_bus *b, struct vcpu *vcpu)
{
	struct kvm_coalesced_mmio_ring *ring = b->ring;
	u32 first;

	pthread_mutex_lock(&b->lock);
	first = ring->first;
	while (first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
		const struct kvm_coalesced_mmio e = ring->coalesced_mmio[first];
		enum bus_space space = e.pio ? BUS_PIO : BUS_MMIO;
		u32 len = MIN(e.len, (u32)sizeof(e.data));
		u64 val = 0;

		memcpy(&val, e.data, len);
		bus_write(&b->kvm->vm->bus, space, e.phys_addr, len, val);
		if (vcpu) {
			struct kvm_cpu *k = vcpu->engine;

			exit_account(vcpu, e.pio ? EXIT_IO : EXIT_EPT_VIOLATION, e.phys_addr, 0);
			k->nr_posted[space]++;
		}
		first = (first + 1) % RING_LEN;
		__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&b->lock);
}

void kvm_bus_settle(struct kvm_vm *kvm, struct vcpu *vcpu)
{
	const struct kvm_coalesced_mmio_ring *ring = kvm->bus->ring;

	if (ring &&
	    __atomic_load_n(&ring->first, __ATOMIC_RELAXED) != __atomic_load_n(&ring->last, __ATOMIC_RELAXED))
		settle(kvm->bus, vcpu);
}

/* --- doorbells, on the main thread --- */
static void on_rung(void *opaque, u32 events)
{
	struct kvm_bus *b = opaque;
	struct epoll_event rung[MAX_EVENTS];
	int n = epoll_wait(b->epoll, rung, MAX_EVENTS, 0);

	for (int i = 0; i < n; i++) {
		struct late l;
		u64 count;

		pthread_mutex_lock(&b->lock);
		l = b->late[rung[i].data.u32];
		pthread_mutex_unlock(&b->lock);
		if (read(l.fd, &count, sizeof(count)) == sizeof(count) && l.known)
			bus_write(&b->kvm->vm->bus, l.space, l.what.at, 2, l.what.val);
	}
}

static bool make_doorbell(struct kvm_bus *b, struct late *l)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = (u32)(l - b->late) };

	if (l->fd >= 0)
		return true;
	l->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return l->fd >= 0 && epoll_ctl(b->epoll, EPOLL_CTL_ADD, l->fd, &event) == 0;
}

/* --- what the kernel knows --- */
static int tell(const struct kvm_bus *b, const struct late *l, bool known)
{
	const struct kvm_coalesced_mmio_zone zone = { .addr = l->what.at,
						      .size = (u32)l->what.len,
						      .pio = l->space == BUS_PIO };
	const struct kvm_ioeventfd doorbell = {
		.addr = l->what.at,
		.fd = l->fd,
		.flags = (l->space == BUS_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (known ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	if (!l->what.posted)
		return KVM_CALL(b->kvm->fd, KVM_IOEVENTFD, &doorbell, NULL);
	return known ? KVM_CALL(b->kvm->fd, KVM_REGISTER_COALESCED_MMIO, &zone, NULL)
		     : KVM_CALL(b->kvm->fd, KVM_UNREGISTER_COALESCED_MMIO, &zone, NULL);
}

static bool same(const struct bus_late *a, const struct bus_late *b)
{
	return a->posted == b->posted && a->at == b->at && a->len == b->len && a->val == b->val;
}

/* Where it may be kept: its own place, or a free one, of doorbells those that have been one before. */
static struct late *place(struct kvm_bus *b, enum bus_space space, const struct bus_late *what)
{
	struct late *free = NULL;

	for (struct late *l = b->late; l < b->late + b->nr; l++) {
		if (l->known && l->space == space && same(&l->what, what))
			return l;
		if (!l->known && what->posted == (l->fd < 0))
			free = l;
	}
	if (!free && b->nr < MAX_LATE) {
		free = &b->late[b->nr++];
		free->fd = -1;
	}
	return free;
}

void kvm_bus_learn(struct kvm_vm *kvm, enum bus_space space, u64 addr)
{
	struct kvm_bus *b = kvm->bus;
	_Atomic u64 *asked = &b->asked[space][addr / 4 % NR_ASKED];
	struct bus_late what;
	struct late *l;

	if (atomic_load_explicit(asked, memory_order_relaxed) == addr + 1)
		return;
	atomic_store_explicit(asked, addr + 1, memory_order_relaxed);
	if (!bus_late(&kvm->vm->bus, space, addr, &what) || b->refused[space][what.posted])
		return;
	pthread_mutex_lock(&b->lock);
	l = place(b, space, &what);
	if (l && !l->known) {
		l->space = space;
		l->what = what;
		l->known = (what.posted || make_doorbell(b, l)) && tell(b, l, true) >= 0;
		b->refused[space][what.posted] = !l->known;
	}
	pthread_mutex_unlock(&b->lock);
}

void kvm_bus_follow(struct kvm_vm *kvm)
{
	struct kvm_bus *b = kvm->bus;
	u32 changes = atomic_load_explicit(&kvm->vm->bus.changes, memory_order_relaxed);

	if (likely(changes == atomic_load_explicit(&b->seen, memory_order_relaxed)))
		return;
	atomic_store_explicit(&b->seen, changes, memory_order_relaxed);
	for (unsigned i = 0; i < BUS_NR_SPACES * NR_ASKED; i++)
		atomic_store_explicit(&b->asked[i / NR_ASKED][i % NR_ASKED], 0, memory_order_relaxed);
	pthread_mutex_lock(&b->lock);
	for (struct late *l = b->late; l < b->late + b->nr; l++) {
		struct bus_late what;

		if (!l->known ||
		    (bus_late(&kvm->vm->bus, l->space, l->what.at, &what) && same(&l->what, &what)))
			continue;
		tell(b, l, false);
		l->known = false;
	}
	pthread_mutex_unlock(&b->lock);
}

/* --- a VM --- */
int kvm_bus_init(struct kvm_vm *kvm, struct err *err)
{
	struct kvm_bus *b = calloc(1, sizeof(*b));
	struct loop *loop = kvm->vm->loop;
	int page = kvm_sys_cap(kvm->fd, KVM_CAP_COALESCED_MMIO);

	if (!b)
		return err_set(err, -ENOMEM, "no memory for the KVM engine");
	pthread_mutex_init(&b->lock, NULL);
	b->kvm = kvm;
	b->epoll = -1;
	b->ring_page = page > 0 ? (unsigned)page : 0;
	b->refused[BUS_MMIO][true] = !b->ring_page;
	b->refused[BUS_PIO][true] = !b->ring_page || !kvm_sys_cap(kvm->fd, KVM_CAP_COALESCED_PIO);
	b->refused[BUS_MMIO][false] = b->refused[BUS_PIO][false] =
		!kvm->vm->engine_conf.ioeventfd || !loop ||
		!kvm_sys_cap(kvm->fd, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	kvm->bus = b;
	if (b->refused[BUS_MMIO][false])
		return 0;
	b->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (b->epoll < 0)
		return err_sys(err, -errno, "no descriptor for the doorbells of KVM");
	return loop_fd_add(loop, b->epoll, EPOLLIN, on_rung, b, &b->watch, err);
}

/* The ring, as the vCPU's mapping shows it. */
static struct kvm_coalesced_mmio_ring *ring_of(const struct kvm_cpu *k)
{
	return (void *)((u8 *)k->run + (size_t)k->kvm->bus->ring_page * RAM_PAGE_SIZE);
}

void kvm_bus_vcpu_init(struct kvm_cpu *k)
{
	struct kvm_bus *b = k->kvm->bus;

	if (b->ring_page && !b->ring)
		b->ring = ring_of(k);
}

void kvm_bus_vcpu_fini(struct kvm_cpu *k)
{
	struct kvm_bus *b = k->kvm->bus;

	if (b->ring == ring_of(k))
		b->ring = NULL;
}

void kvm_bus_fini(struct kvm_vm *kvm)
{
	struct kvm_bus *b = kvm->bus;

	kvm->bus = NULL;
	if (!b)
		return;
	loop_fd_del(b->watch);
	for (unsigned i = 0; i < b->nr; i++)
		if (b->late[i].fd >= 0)
			close(b->late[i].fd);
	if (b->epoll >= 0)
		close(b->epoll);
	pthread_mutex_destroy(&b->lock);
	free(b);
}
