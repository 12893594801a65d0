/* Memory: a slot for each part between two changes of what it is: RAM, ROM (read-only to the guest), hole.
 *
 * An access to a hole, and a store to ROM, leaves the guest as MMIO, and the bus answers. The slots point into the mapping of
 * the memfd, so devices and loaders see what the guest sees, at once; where a segment of the shadow (vm/ram.h) is
 * mapped anew, KVM notices by itself. What it has to be told is which parts are read-only, and which are memory: a chip set, a
 * flash or a display adapter changes that while the guest runs, and vm_memory_changed() brings each vCPU here before it goes on. Parts
 * that stay what they are keep their slot. For one that changes there is none for a moment: another vCPU that
 * gets in there then meets the bus, as on a board while its chip set is being set up.
 *
 * DEVIATION: the gate of A20 (ram_gate()) stays open. KVM has no such pin, and nothing that a processor with KVM runs today waits
 * for memory to wrap around.
 *
 * Threads: see kvm.h.
 */
#include <errno.h>
#include <string.h>

#include "cpu/kvm/kvm.h"

struct plan {
	struct kvm_slot part[KVM_MAX_SLOTS];
	unsigned nr;
};

static void add(struct plan *p, gpa_t start, gpa_t end, bool rom)
{
	if (start < end && p->nr < KVM_MAX_SLOTS)
		p->part[p->nr++] = (struct kvm_slot){ start, end, rom };
}

/* The first ROM that begins at or after gpa. */
static const struct ram_range *next_rom(const struct ram *ram, gpa_t gpa)
{
	const struct ram_range *next = NULL;

	for (unsigned i = 0; i < ram->nr_roms; i++)
		if (ram->rom[i].start >= gpa && (!next || ram->rom[i].start < next->start))
			next = &ram->rom[i];
	return next;
}

/* [start, end) is RAM, but for the hole; ROMs lie inside of it or outside. */
static void add_ram(struct plan *p, const struct ram *ram, gpa_t start, gpa_t end, u64 hole_end)
{
	if (start < ram->hole.end && ram->hole.start < end) {
		if (start < ram->hole.start)
			add_ram(p, ram, start, ram->hole.start, hole_end);
		add(p, hole_end, ram->hole.end, false); /* by itself: what is behind it keeps its slot */
		start = ram->hole.end;
	}
	while (start < end) {
		const struct ram_range *rom = next_rom(ram, start);

		if (!rom || rom->start >= end) {
			add(p, start, end, false);
			return;
		}
		add(p, start, rom->start, false);
		add(p, rom->start, MIN(rom->end, end), true);
		start = rom->end;
	}
}

static void make_plan(struct plan *p, const struct ram *ram, const struct kvm_layout *l)
{
	p->nr = 0;
	if (ram->rom_size) {
		add_ram(p, ram, 0, RAM_SHADOW_START, l->hole_end);
		for (unsigned i = 0; i < RAM_SHADOW_NR; i++)
			add(p, RAM_SHADOW_START + i * RAM_SHADOW_SEGMENT,
			    RAM_SHADOW_START + (i + 1) * RAM_SHADOW_SEGMENT, l->shadow >> 2 * i & 3);
		add_ram(p, ram, RAM_SHADOW_END, ram->low_size, l->hole_end);
		add(p, RAM_HOLE_END - l->rom_len, RAM_HOLE_END, true);
	} else {
		add_ram(p, ram, 0, ram->low_size, l->hole_end);
	}
	add_ram(p, ram, RAM_HOLE_END, ram->end, l->hole_end);
}

static bool same(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->start == b->start && a->end == b->end && a->rom == b->rom;
}

static bool listed(const struct kvm_slot *list, unsigned n, const struct kvm_slot *s)
{
	for (unsigned i = 0; i < n; i++)
		if (same(&list[i], s))
			return true;
	return false;
}

/* size 0 takes the slot away. */
static int set_slot(struct kvm_vm *kvm, unsigned nr, const struct kvm_slot *s, u64 size, struct err *err)
{
	const struct kvm_userspace_memory_region region = {
		.slot = nr,
		.flags = s->rom          ? KVM_MEM_READONLY
			 : kvm->dirty_on ? KVM_MEM_LOG_DIRTY_PAGES
					 : 0,
		.guest_phys_addr = s->start,
		.memory_size = size,
		.userspace_addr = (u64)(uintptr_t)(kvm->vm->ram.base + s->start),
	};
	int r = KVM_CALL(kvm->fd, KVM_SET_USER_MEMORY_REGION, &region, err);

	if (r < 0)
		return r;
	/* What was written there, nobody can say any more. */
	if (!size && kvm->dirty_on && !s->rom)
		ram_mark_dirty(&kvm->vm->ram, s->start, s->end - s->start);
	kvm->slot[nr] = size ? *s : (struct kvm_slot){ 0 };
	return 0;
}

int kvm_memory_set_flags(struct kvm_vm *kvm, struct err *err)
{
	int r = 0;

	for (unsigned nr = 0; nr < KVM_MAX_SLOTS && r >= 0; nr++) {
		const struct kvm_slot s = kvm->slot[nr];

		if (s.start < s.end && !s.rom)
			r = set_slot(kvm, nr, &s, s.end - s.start, err);
	}
	return r;
}

static int add_slot(struct kvm_vm *kvm, const struct kvm_slot *s, struct err *err)
{
	for (unsigned nr = 0; nr < KVM_MAX_SLOTS; nr++)
		if (kvm->slot[nr].start == kvm->slot[nr].end)
			return set_slot(kvm, nr, s, s->end - s->start, err);
	return err_set(err, -ENOSPC, "the guest's memory has more parts than the KVM engine has room for");
}

static int follow(struct kvm_vm *kvm, const struct kvm_layout *layout, struct err *err)
{
	struct plan plan;
	int r = 0;

	make_plan(&plan, &kvm->vm->ram, layout);
	for (unsigned nr = 0; nr < KVM_MAX_SLOTS && r >= 0; nr++)
		if (kvm->slot[nr].start < kvm->slot[nr].end && !listed(plan.part, plan.nr, &kvm->slot[nr]))
			r = set_slot(kvm, nr, &kvm->slot[nr], 0, err);
	for (unsigned i = 0; i < plan.nr && r >= 0; i++)
		if (!listed(kvm->slot, KVM_MAX_SLOTS, &plan.part[i]))
			r = add_slot(kvm, &plan.part[i], err);
	return r;
}

int kvm_memory_follow(struct kvm_vm *kvm, struct err *err)
{
	struct ram *ram = &kvm->vm->ram;
	struct kvm_layout l, *laid = &kvm->layout;
	int r = 0;

	pthread_mutex_lock(&kvm->memory_lock);
	l = (struct kvm_layout){ atomic_load(&ram->shadow), atomic_load(&ram->rom_len),
				 atomic_load(&ram->hole_end) };
	if (!kvm->memory_laid || laid->shadow != l.shadow || laid->rom_len != l.rom_len ||
	    laid->hole_end != l.hole_end)
		r = follow(kvm, &l, err);
	if (r >= 0) {
		kvm->memory_laid = true;
		*laid = l;
	}
	pthread_mutex_unlock(&kvm->memory_lock);
	return r;
}
