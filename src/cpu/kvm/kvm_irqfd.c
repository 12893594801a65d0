/* Messages by eventfd, irqfd=on [KVM api 4.75, KVM_IRQFD]; and KVM's one table of routes [KVM api 4.52], of which they are a part.
 *
 * A message that is sent for the first time gets a route, whose number comes after those of the inputs, and an eventfd that KVM
 * listens to; from then on it is a write to that. Each new one costs a change of the whole table, so there are KVM_MAX_MESSAGES at
 * most, and what comes later, or what KVM or the host does not want to take, goes by KVM_SIGNAL_MSI as without irqfd=on: a guest that
 * thinks of ever new ones costs nothing more. The table begins anew when vCPUs go on after they stood still.
 *
 * A write does not tell who has taken the message, and KVM may deliver it later, on a thread of its own (one to all processors, for
 * example). So
 *  - level-triggered ones do not go this way, of which the I/O APIC keeps that one was taken, nor any but those of fixed and lowest
 *    priority delivery, for which two that become one are one in the local APIC as well;
 *  - whoever reads the local APICs takes the eventfds away first: KVM has delivered what was written when it has let go of one.
 *
 * Not the default, as it gains nothing: a write took 0.71 us where KVM_SIGNAL_MSI took 0.61 us (an empty system call 0.23 us), one to
 * all processors 3 us, a change of the table 64 us; a disk read had as many exits either way. It would gain where
 * somebody else rings (vhost, a passed-through device), which bothy has not.
 *
 * With intc_lock held, that is, by any thread, but for a VM's begin and end.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"
#include "vm/irq.h"

/* Message data [SDM3 10.11.2] */
#define DATA_OTHER_MODE (BIT(9) | BIT(10)) /* neither fixed nor lowest priority */
#define DATA_LEVEL      BIT(15)

union all_routes KVM_ROOM(kvm_irq_routing, kvm_irq_routing_entry, IRQ_NR_INPUTS + KVM_MAX_MESSAGES);

/* --- routes --- */
void kvm_irqfd_add_route(struct kvm_irq_routing *t, u32 gsi, u64 addr, u32 data)
{
	struct kvm_irq_routing_entry *e = &t->entries[t->nr++];

	e->gsi = gsi;
	e->type = KVM_IRQ_ROUTING_MSI;
	e->u.msi.address_lo = (u32)addr;
	e->u.msi.address_hi = (u32)(addr >> 32);
	e->u.msi.data = data;
}

static u32 gsi_of(const struct kvm_vm *kvm, const struct kvm_message *m)
{
	return IRQ_NR_INPUTS + (u32)(m - kvm->message);
}

int kvm_irqfd_set_routes(const struct kvm_vm *kvm, struct err *err)
{
	union all_routes all = { .room = { 0 } };

	memcpy(&all, &kvm->routes, sizeof(kvm->routes));
	for (const struct kvm_message *m = kvm->message; m < kvm->message + kvm->nr_messages; m++)
		kvm_irqfd_add_route(&all.head, gsi_of(kvm, m), m->addr, m->data);
	return KVM_CALL(kvm->fd, KVM_SET_GSI_ROUTING, &all.head, err);
}

/* --- eventfds --- */
static int tell(const struct kvm_vm *kvm, const struct kvm_message *m, u32 flags, struct err *err)
{
	const struct kvm_irqfd irqfd = { .fd = (u32)m->fd, .gsi = gsi_of(kvm, m), .flags = flags };

	return KVM_CALL(kvm->fd, KVM_IRQFD, &irqfd, err);
}

static const struct kvm_message *learn(struct kvm_vm *kvm, u64 addr, u32 data)
{
	struct kvm_message *m = &kvm->message[kvm->nr_messages];
	int fd = kvm->nr_messages < KVM_MAX_MESSAGES ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;

	if (fd < 0)
		return NULL;
	*m = (struct kvm_message){ addr, data, fd };
	kvm->nr_messages++;
	if (kvm_irqfd_set_routes(kvm, NULL) >= 0 && tell(kvm, m, 0, NULL) >= 0)
		return m;
	kvm->nr_messages--; /* its route leads from nowhere, until there is another table */
	close(fd);
	return NULL;
}

static const struct kvm_message *find(struct kvm_vm *kvm, u64 addr, u32 data)
{
	const struct kvm_message *m;

	for (m = kvm->message; m < kvm->message + kvm->nr_messages; m++)
		if (m->addr == addr && m->data == data)
			return m;
	m = kvm->learns_messages ? learn(kvm, addr, data) : NULL;
	kvm->learns_messages = m != NULL;
	return m;
}

bool kvm_irqfd_send(struct kvm_vm *kvm, u64 addr, u32 data)
{
	static const u64 one = 1;
	const struct kvm_message *m = data & (DATA_LEVEL | DATA_OTHER_MODE) ? NULL : find(kvm, addr, data);

	if (!m || write(m->fd, &one, sizeof(one)) != sizeof(one))
		return false;
	kvm->nr_rung++;
	return true;
}

int kvm_irqfd_drop(struct kvm_vm *kvm, struct err *err)
{
	int r = 0;

	while (kvm->nr_messages) {
		const struct kvm_message *m = &kvm->message[--kvm->nr_messages];

		if (r >= 0)
			r = tell(kvm, m, KVM_IRQFD_FLAG_DEASSIGN, err);
		close(m->fd);
	}
	kvm->learns_messages = kvm->vm->engine_conf.irqfd;
	return r;
}

int kvm_irqfd_init(struct kvm_vm *kvm, struct err *err)
{
	kvm->learns_messages = kvm->vm->engine_conf.irqfd;
	if (kvm->learns_messages && !kvm_sys_cap(kvm->fd, KVM_CAP_IRQFD))
		return err_set(err, -ENOTSUP,
			       "this host's KVM takes no interrupts by eventfd; leave irqfd=on out");
	return 0;
}
