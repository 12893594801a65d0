/* See device_traffic.h.
 *
 * A step of the script is one byte that says what happens, followed by its operands; a script that ends
 * within a step ends there. Addresses are mostly taken from the regions that exist, so that nearly every step
 * reaches a device; some hit around them or anywhere.
 */
#include "device_traffic.h"

#include <stdio.h>
#include <stdlib.h>

#include "vm/vcpu.h"

struct script {
	const u8 *at, *end;
};

static bool take(struct script *s, unsigned bytes, u64 *ret_val)
{
	u64 val = 0;

	if ((size_t)(s->end - s->at) < bytes)
		return false;
	for (unsigned i = 0; i < bytes; i++)
		val |= (u64)*s->at++ << 8 * i;
	*ret_val = val;
	return true;
}

/* Values on edges come up more often than chance has them. */
static bool take_value(struct script *s, u64 *ret_val)
{
	u64 kind, v;

	if (!take(s, 1, &kind))
		return false;
	switch (kind & 7) {
	case 0: *ret_val = kind >> 3; return true;
	case 1: *ret_val = ~(kind >> 3); return true;
	case 2: *ret_val = 1ull << (kind >> 3) << 32; return true;
	case 3: *ret_val = 1ull << (kind >> 3); return true;
	case 4: return take(s, 2, ret_val);
	case 5: return take(s, 4, ret_val);
	case 6: return take(s, 8, ret_val);
	default:
		if (!take(s, 1, &v))
			return false;
		*ret_val = v;
		return true;
	}
}

static bool take_address(struct board *b, struct script *s, enum bus_space *ret_space, u64 *ret_addr)
{
	struct bus *bus = &b->vm.bus;
	unsigned nr = bus->nr[BUS_PIO] + bus->nr[BUS_MMIO];
	u64 which, offset;

	if (!take(s, 1, &which))
		return false;
	if (which >= 250 || !nr) { /* anywhere */
		*ret_space = which & 1 ? BUS_PIO : BUS_MMIO;
		if (!take(s, *ret_space == BUS_PIO ? 2 : 6, ret_addr))
			return false;
		return true;
	}
	which %= nr;
	*ret_space = which < bus->nr[BUS_PIO] ? BUS_PIO : BUS_MMIO;
	if (*ret_space == BUS_MMIO)
		which -= bus->nr[BUS_PIO];

	const struct region *r = bus->space[*ret_space][which];

	if (!take(s, r->len <= 256 ? 1 : r->len <= 65536 ? 2 : 4, &offset))
		return false;
	if (offset == 255 && r->len < 255) /* one byte before: runs into it */
		*ret_addr = r->base - (r->base > 0);
	else
		*ret_addr = r->base + offset % r->len;
	return true;
}

static bool access(struct board *b, struct script *s, bool write, unsigned size)
{
	enum bus_space space;
	u64 addr, val;

	if (!take_address(b, s, &space, &addr))
		return false;
	if (!write) {
		bus_read(&b->vm.bus, space, addr, size);
		return true;
	}
	if (!take_value(s, &val))
		return false;
	bus_write(&b->vm.bus, space, addr, size, val);
	return true;
}

static bool msr(struct board *b, struct script *s, bool write)
{
	struct bus *bus = &b->vm.bus;
	u64 which, offset, val;

	if (!take(s, 1, &which) || !take(s, 1, &offset) || !bus->nr_msr || !b->self)
		return false;

	const struct msr_region *r = bus->msr[which % bus->nr_msr];
	u32 index = r->first + (u32)offset % (r->last - r->first + 1);

	if (!write) {
		bus_read_msr(bus, b->self, index, &val);
		return true;
	}
	if (!take_value(s, &val))
		return false;
	bus_write_msr(bus, b->self, index, val);
	return true;
}

static void fail(const char *what)
{
	fprintf(stderr, "device traffic: %s\n", what);
	abort();
}

/* G40: however short a period is programmed, a timer costs the host a callback per 20 us at most; each
 * step of the guest may cost a few more. */
static void advance(struct board *b, u64 ns)
{
	u64 before = b->fired;

	board_advance(b, ns);
	if (b->fired - before > board_timers() * (ns / 20000 + 4))
		fail("timers fire faster than any period should allow");
	for (u32 i = 0; i < b->vm.nr_vcpus; i++)
		vcpu_timer_check(b->vm.vcpu[i]);
}

static bool host_side(struct board *b, struct fake_chr *chr, struct script *s)
{
	u64 what, val;

	if (!take(s, 1, &what) || !take(s, 1, &val))
		return false;
	if (!chr)
		return true;
	switch (what & 3) {
	case 0: {
		u8 typed[64] = { (u8)val, 'x' };

		fake_chr_type(chr, typed, val & 63);
		break;
	}
	case 1:
		if (chr->chr.on_break)
			chr->chr.on_break(chr->chr.opaque);
		break;
	case 2: chr->room = val & 1 ? 0 : val; break;
	default:
		chr->room = SIZE_MAX;
		if (chr->chr.on_writable)
			chr->chr.on_writable(chr->chr.opaque);
		break;
	}
	return true;
}

/* What the engine asks of the interrupt controllers. */
static void processor(struct board *b, u64 what)
{
	if (!b->vm.nr_vcpus)
		return;
	b->self = b->vm.vcpu[(what >> 4) % b->vm.nr_vcpus];
	switch (what & 7) {
	case 0: irq_pending(b->self); break;
	case 1:
		vcpu_take(b->self, ~0u);
		irq_ack(b->self);
		break;
	case 2: irq_set_cr8(b->self, what >> 4); break;
	case 3: irq_get_cr8(b->self); break;
	case 4: irq_set(&b->vm, (unsigned)(what >> 3) & 31, true); break;
	case 5: irq_set(&b->vm, (unsigned)(what >> 3) & 31, false); break;
	case 6: irq_msi(&b->vm, 0xfee00000 | what << 8, (u32)what * 7); break;
	default: irq_pulse(&b->vm, (unsigned)(what >> 3) & 31); break;
	}
}

static bool step(struct board *b, struct fake_chr *chr, struct script *s)
{
	u64 op, val;

	if (!take(s, 1, &op))
		return false;
	switch (op & 15) {
	case 0:
	case 1:
	case 2:
	case 3: return access(b, s, false, 1u << (op >> 4 & 3));
	case 4:
	case 5:
	case 6:
	case 7:
	case 8: return access(b, s, true, 1u << (op >> 4 & 3));
	case 9: return msr(b, s, op & 16);
	case 10:
	case 11:
		if (!take(s, 1, &val))
			return false;
		advance(b, val << (op >> 4)); /* up to 8 ms */
		return true;
	case 12:
		if ((op >> 4) == 0)
			advance(b, 1000000000);
		else if ((op >> 4) == 1)
			device_reset_all(&b->vm, RESET_WARM);
		else if ((op >> 4) == 2)
			device_reset_all(&b->vm, RESET_COLD);
		else if ((op >> 4) == 3)
			device_reset_all(&b->vm, RESET_SLEEP);
		else
			advance(b, 10000000);
		return true;
	case 13: return host_side(b, chr, s);
	default:
		if (!take(s, 1, &val))
			return false;
		processor(b, val);
		return true;
	}
}

void device_traffic(struct board *b, struct fake_chr *chr, const u8 *script, size_t len)
{
	struct script s = { script, script + len };
	unsigned timers = board_timers();

	if (b->vm.nr_vcpus && !b->self)
		b->self = b->vm.vcpu[0];
	while (step(b, chr, &s)) {
		/* Devices may ask for the end of the machine: here it goes on. */
		atomic_store(&b->vm.request, VM_REQ_NONE);
		atomic_store(&b->vm.exit_status, 0);
	}
	if (board_timers() != timers)
		fail("a device makes timers as it runs");
}
