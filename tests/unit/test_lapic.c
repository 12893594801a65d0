/* Local APICs: modes, registers, priorities, IPIs, LINT pins, timers, hostile use. */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"

#define ID         0x02
#define VERSION    0x03
#define TPR        0x08
#define PPR        0x0a
#define EOI        0x0b
#define LDR        0x0d
#define DFR        0x0e
#define SVR        0x0f
#define ISR        0x10
#define TMR        0x18
#define IRR        0x20
#define ESR        0x28
#define ICR        0x30
#define ICR2       0x31
#define LVT_TIMER  0x32
#define LVT_LINT0  0x35
#define LVT_LINT1  0x36
#define LVT_ERROR  0x37
#define INIT_COUNT 0x38
#define CUR_COUNT  0x39
#define DCR        0x3e
#define SELF_IPI   0x3f

#define ICR_SELF_FIXED 0x44000u

#define MASKED   BIT(16)
#define PERIODIC BIT(17)
#define DEADLINE BIT(18)

static u32 rd(unsigned n, unsigned reg)
{
	fake.b.self = cpu(n);
	return (u32)mmio_rd(LAPIC_BASE + reg * 16, 4);
}

static void wr(unsigned n, unsigned reg, u32 val)
{
	fake.b.self = cpu(n);
	mmio_wr(LAPIC_BASE + reg * 16, 4, val);
}

/* As an engine does. */
static u32 dispatch_rd(unsigned n, u64 addr)
{
	struct vm_exit exit = { .reason = EXIT_EPT_VIOLATION, .size = 4, .addr = addr };

	fake.b.self = cpu(n);
	exit_dispatch(cpu(n), &exit);
	return (u32)exit.data;
}

static bool x2wr(unsigned n, unsigned reg, u64 val)
{
	return msr_wr(n, MSR_X2APIC_BASE + reg, val);
}

static u64 x2rd(unsigned n, unsigned reg)
{
	u64 v = 0;

	assert_true(msr_rd(n, MSR_X2APIC_BASE + reg, &v));
	return v;
}

static bool x2faults(unsigned n, unsigned reg)
{
	u64 v = 0;

	return !msr_rd(n, MSR_X2APIC_BASE + reg, &v);
}

static u64 base(unsigned n)
{
	u64 v = 0;

	assert_true(msr_rd(n, MSR_APIC_BASE, &v));
	return v;
}

static u32 posted(unsigned n)
{
	return vcpu_take(cpu(n), ~0u);
}

static bool has(unsigned n, unsigned first, unsigned vector)
{
	return rd(n, first + vector / 32) >> vector % 32 & 1;
}

static int pend(unsigned n)
{
	return irq_pending(cpu(n));
}

static int ack(unsigned n)
{
	return irq_ack(cpu(n));
}

static int setup(void **state)
{
	fake_vm(4);
	fake_controllers();
	for (unsigned i = 0; i < 4; i++) {
		wr(i, SVR, 0x1ff);
		posted(i);
	}
	return 0;
}

static void enter_x2apic(unsigned n)
{
	assert_true(msr_wr(n, MSR_APIC_BASE, base(n) | BIT(10)));
	assert_true(x2wr(n, SVR, 0x1ff));
	posted(n);
}

static void test_reset_values(void **state)
{
	device_reset_all(&fake.b.vm, RESET_COLD);
	assert_int_equal(base(0), 0xfee00900);
	assert_int_equal(base(3), 0xfee00800);
	assert_int_equal(rd(0, VERSION), 0x50014);
	assert_int_equal(rd(3, ID), 3 << 24);
	assert_int_equal(rd(0, SVR), 0xff);
	assert_int_equal(rd(0, DFR), 0xffffffff);
	assert_int_equal(rd(0, LVT_TIMER), MASKED);
	assert_int_equal(rd(0, LVT_LINT0), 0x700); /* virtual wire, on the boot processor only */
	assert_int_equal(rd(0, LVT_LINT1), 0x400);
	assert_int_equal(rd(1, LVT_LINT0), MASKED);
	for (unsigned r = 0; r < 8; r++)
		assert_int_equal(rd(0, IRR + r) | rd(0, ISR + r) | rd(0, TMR + r), 0);
	assert_int_equal(pend(0), -1);
}

static void test_priorities(void **state)
{
	wr(0, ICR, 0x40000 | 0x51);
	assert_true(posted(0) & VCPU_REQ_INTR);
	wr(0, ICR, 0x40000 | 0x61);
	assert_true(has(0, IRR, 0x51) && has(0, IRR, 0x61));
	assert_int_equal(pend(0), 0x61);
	assert_int_equal(ack(0), 0x61);
	assert_false(has(0, IRR, 0x61));
	assert_true(has(0, ISR, 0x61));
	assert_int_equal(rd(0, PPR), 0x60);
	assert_int_equal(pend(0), -1); /* a lower class waits */
	wr(0, ICR, 0x40000 | 0x6f);
	assert_int_equal(pend(0), -1); /* so does the same class */
	wr(0, ICR, 0x40000 | 0x71);
	assert_int_equal(pend(0), 0x71);
	assert_int_equal(ack(0), 0x71);
	wr(0, EOI, 0);
	assert_int_equal(rd(0, PPR), 0x60);
	posted(0);
	wr(0, EOI, 0);
	assert_true(posted(0) & VCPU_REQ_INTR); /* it is told to look again */
	assert_int_equal(ack(0), 0x6f);
	wr(0, EOI, 0);
	irq_set_cr8(cpu(0), 5);
	assert_int_equal(rd(0, TPR), 0x50);
	assert_int_equal(pend(0), -1);
	assert_int_equal(ack(0), -1);
	posted(0);
	wr(0, TPR, 0x4f);
	assert_true(posted(0) & VCPU_REQ_INTR);
	assert_int_equal(irq_get_cr8(cpu(0)), 4);
	assert_int_equal(rd(0, PPR), 0x4f);
	assert_int_equal(ack(0), 0x51);
	wr(0, EOI, 0);
	wr(0, EOI, 0); /* one too many */
	assert_int_equal(pend(0), -1);
}

static void test_software_disable(void **state)
{
	wr(0, LVT_TIMER, 0x30);
	wr(0, SVR, 0xff);
	assert_true(rd(0, LVT_TIMER) & MASKED);
	wr(0, LVT_TIMER, 0x30);
	assert_true(rd(0, LVT_TIMER) & MASKED); /* cannot be unmasked now */
	wr(1, ICR2, 0);
	wr(1, ICR, 0x51);
	assert_false(has(0, IRR, 0x51));
	wr(1, ICR, 0x400); /* an NMI is taken all the same */
	assert_int_equal(posted(0), VCPU_REQ_NMI);
}

static void test_physical_ipi(void **state)
{
	wr(0, ICR2, 2 << 24);
	wr(0, ICR, 0x4045);
	assert_true(has(2, IRR, 0x45));
	assert_false(has(0, IRR, 0x45) || has(1, IRR, 0x45) || has(3, IRR, 0x45));
	assert_int_equal(posted(2), VCPU_REQ_INTR);
	wr(0, ICR2, 0xff000000);
	wr(0, ICR, 0x4046);
	for (unsigned i = 0; i < 4; i++)
		assert_true(has(i, IRR, 0x46));
	wr(1, ICR, 0x80047); /* all with self */
	wr(1, ICR, 0xc0048); /* all but self */
	for (unsigned i = 0; i < 4; i++) {
		assert_true(has(i, IRR, 0x47));
		assert_int_equal(has(i, IRR, 0x48), i != 1);
	}
	wr(0, ICR2, 77 << 24); /* nobody there [G61] */
	wr(0, ICR, 0x4049);
	for (unsigned i = 0; i < 4; i++)
		assert_false(has(i, IRR, 0x49));
	assert_int_equal(rd(0, ICR), 0x4049); /* idle */
}

static void test_logical_ipi(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		wr(i, LDR, 1u << (24 + i));
	wr(0, ICR2, 0x0a000000);
	wr(0, ICR, 0x4850);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(has(i, IRR, 0x50), i == 1 || i == 3);

	/* Cluster model: two clusters of two */
	for (unsigned i = 0; i < 4; i++) {
		wr(i, DFR, 0x0fffffff);
		wr(i, LDR, (i / 2) << 28 | 1u << (24 + i % 2));
	}
	wr(0, ICR2, 0x13000000);
	wr(0, ICR, 0x4851);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(has(i, IRR, 0x51), i >= 2);
	wr(0, ICR2, 0xf1000000);
	wr(0, ICR, 0x4852);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(has(i, IRR, 0x52), i % 2 == 0);
	wr(0, DFR, 0x5fffffff); /* neither model: takes only broadcasts */
	wr(1, ICR2, 0x01000000);
	wr(1, ICR, 0x4853);
	assert_false(has(0, IRR, 0x53));
	wr(1, ICR2, 0xff000000);
	wr(1, ICR, 0x4854);
	assert_true(has(0, IRR, 0x54));
}

static void test_lowest_priority(void **state)
{
	unsigned got[4] = { 0 };

	wr(2, TPR, 0x20);
	for (unsigned n = 0; n < 30; n++) {
		wr(0, ICR2, 0xff000000);
		wr(0, ICR, 0x4100 | (0x40 + n));
		unsigned takers = 0;
		for (unsigned i = 0; i < 4; i++) {
			got[i] += has(i, IRR, 0x40 + n);
			takers += has(i, IRR, 0x40 + n);
		}
		assert_int_equal(takers, 1);
	}
	assert_int_equal(got[0], 10); /* equals take turns */
	assert_int_equal(got[1], 10);
	assert_int_equal(got[2], 0);
	assert_int_equal(got[3], 10);
	for (unsigned i = 0; i < 4; i++)
		wr(i, SVR, 0xff);
	wr(0, ICR, 0x41f0); /* nobody can take it */
	for (unsigned i = 0; i < 4; i++)
		assert_false(has(i, IRR, 0xf0));
}

static void test_init_sipi(void **state)
{
	wr(1, TPR, 0x30);
	wr(1, LVT_TIMER, 0x44);
	wr(1, INIT_COUNT, 1000000);
	wr(0, ICR2, 1 << 24);
	wr(0, ICR, 0xc500); /* INIT, level, assert */
	assert_int_equal(posted(1), VCPU_REQ_INIT);
	assert_int_equal(rd(1, TPR), 0);
	assert_int_equal(rd(1, SVR), 0xff);
	assert_int_equal(rd(1, ID), 1 << 24);
	wr(0, ICR, 0x8500); /* de-assert does nothing */
	assert_int_equal(posted(1), 0);
	/* What is left of its timer does no harm. */
	fake_advance(2000000);
	ring(1);
	assert_int_equal(posted(1), 0);
	assert_true(cpu(1)->timer_tsc == ~0ull);
	wr(0, ICR, 0x469a);
	assert_int_equal(posted(1), VCPU_REQ_SIPI);
	assert_int_equal(atomic_load(&cpu(1)->sipi_vector), 0x9a);
	wr(0, ICR, 0xc4500); /* INIT to all but self */
	assert_int_equal(posted(0), 0);
	assert_int_equal(posted(2), VCPU_REQ_INIT);
	assert_int_equal(posted(3), VCPU_REQ_INIT);
}

static void test_modes(void **state)
{
	/* The transitions that must fault, and those that must not */
	u64 off = 0xfee00900 & ~BIT(11), xapic = off | BIT(11), x2 = xapic | BIT(10), wrong = off | BIT(10);

	assert_false(msr_wr(0, MSR_APIC_BASE, wrong));
	assert_true(msr_wr(0, MSR_APIC_BASE, x2));
	assert_false(msr_wr(0, MSR_APIC_BASE, xapic));
	assert_false(msr_wr(0, MSR_APIC_BASE, wrong));
	assert_int_equal(base(0), x2);
	assert_true(msr_wr(0, MSR_APIC_BASE, off));
	assert_false(msr_wr(0, MSR_APIC_BASE, x2));
	assert_false(msr_wr(0, MSR_APIC_BASE, wrong));
	assert_int_equal(rd(0, VERSION), 0xffffffff);
	assert_true(x2faults(0, VERSION));
	assert_true(msr_wr(0, MSR_APIC_BASE, xapic));
	assert_int_equal(rd(0, VERSION), 0x50014);
	assert_int_equal(rd(0, SVR), 0xff); /* as after power-up */
	/* reserved bits, and addresses that the processor does not have */
	assert_false(msr_wr(0, MSR_APIC_BASE, xapic | 1));
	assert_false(msr_wr(0, MSR_APIC_BASE, xapic | BIT(9)));
	assert_false(msr_wr(0, MSR_APIC_BASE, xapic | BIT(40)));
	assert_true(msr_wr(0, MSR_APIC_BASE, xapic | BIT(39)));
	assert_true(msr_wr(0, MSR_APIC_BASE, xapic));

	fake.b.vm.cpuid.features[X86_FEATURE_X2APIC / 64] = 0;
	assert_false(msr_wr(0, MSR_APIC_BASE, x2));
}

/* Each processor moves its own, and nobody answers where it was. */
static void test_moved_base(void **state)
{
	const u64 there = 0xfed40000, xapic = there | BIT(8) | BIT(11);
	u32 at = VERSION * 16;

	assert_true(msr_wr(0, MSR_APIC_BASE, xapic));
	assert_int_equal(dispatch_rd(0, there + at), 0x50014);
	assert_int_equal(dispatch_rd(0, there + ID * 16), 0);
	assert_int_equal(dispatch_rd(0, LAPIC_BASE + at), 0xffffffff);
	assert_int_equal(dispatch_rd(1, LAPIC_BASE + at), 0x50014);
	assert_int_equal(dispatch_rd(1, there + at), 0xffffffff);
	assert_true(msr_wr(0, MSR_APIC_BASE, xapic & ~BIT(11)));
	assert_int_equal(dispatch_rd(0, there + at), 0xffffffff);
	device_reset_all(&fake.b.vm, RESET_WARM);
	assert_int_equal(dispatch_rd(0, LAPIC_BASE + at), 0x50014);
	assert_int_equal(dispatch_rd(0, there + at), 0xffffffff);
}

static void test_two_nmis(void **state)
{
	wr(1, ICR, 0x400);
	wr(2, ICR, 0x400);
	assert_int_equal(atomic_load(&cpu(0)->requests), VCPU_REQ_NMI | VCPU_REQ_NMI_AGAIN);
	wr(2, ICR, 0x400); /* more than a processor remembers */
	assert_int_equal(vcpu_nmis(posted(0), 0, false), 2);
	assert_int_equal(vcpu_nmis(VCPU_REQ_NMI | VCPU_REQ_NMI_AGAIN, 1, false), 2);
	assert_int_equal(vcpu_nmis(VCPU_REQ_NMI | VCPU_REQ_NMI_AGAIN, 0, true), 1);
	assert_int_equal(vcpu_nmis(VCPU_REQ_NMI_AGAIN, 0, true), 1);
	assert_int_equal(vcpu_nmis(VCPU_REQ_INTR, 1, true), 1);
}

static void test_x2apic_registers(void **state)
{
	static const u8 read_only[] = { ID, VERSION, PPR, LDR, ISR, ISR + 7, TMR, IRR + 3, CUR_COUNT };
	static const u8 absent[] = { 0x00, 0x01, 0x04, 0x09, 0x0c, DFR,  0x29,
				     0x2f, ICR2, 0x3a, 0x3d, 0x40, 0x7f, 0xff };

	assert_true(x2faults(3, VERSION)); /* not in xAPIC mode */
	assert_false(x2wr(3, TPR, 0));
	enter_x2apic(3);
	assert_int_equal(rd(3, VERSION), 0xffffffff);
	assert_int_equal(x2rd(3, ID), 3);
	assert_int_equal(x2rd(3, VERSION), 0x50014);
	assert_int_equal(x2rd(3, LDR), 8);
	for (unsigned i = 0; i < ARRAY_SIZE(read_only); i++)
		assert_false(x2wr(3, read_only[i], 0));
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
		assert_true(x2faults(3, absent[i]));
		assert_false(x2wr(3, absent[i], 0));
	}
	assert_true(x2faults(3, EOI));
	assert_true(x2faults(3, SELF_IPI));
	assert_true(x2wr(3, EOI, 0));
	assert_false(x2wr(3, EOI, 1));
	assert_true(x2wr(3, ESR, 0));
	assert_false(x2wr(3, ESR, 1));
	assert_true(x2wr(3, TPR, 0xff));
	assert_false(x2wr(3, TPR, 0x100));
	assert_true(x2wr(3, TPR, 0));
	assert_false(x2wr(3, SVR, 0x1000 | 0x1ff)); /* EOI suppression is not offered */
	assert_false(x2wr(3, SVR, BIT(32) | 0x1ff));
	assert_false(x2wr(3, LVT_TIMER, BIT(19)));
	assert_false(x2wr(3, LVT_ERROR, 0x400));
	assert_true(x2wr(3, LVT_ERROR, 0xfe));
	assert_false(x2wr(3, INIT_COUNT, BIT(32)));
	assert_false(x2wr(3, DCR, 4));
	assert_true(x2wr(3, DCR, 0xb));
	assert_int_equal(x2rd(3, DCR), 0xb);
	assert_false(x2wr(3, ICR, BIT(20)));
	assert_false(x2wr(3, ICR, BIT(13)));
	assert_false(x2wr(3, ICR, BIT(16)));
	assert_true(x2wr(3, ICR, 0x0000000200004061));
	assert_int_equal(x2rd(3, ICR), 0x0000000200004061);
	assert_true(has(2, IRR, 0x61));
	assert_true(x2wr(3, SELF_IPI, 0x62));
	assert_int_equal(ack(3), 0x62);
	assert_false(x2wr(3, SELF_IPI, 0x162));
	assert_true(x2wr(3, EOI, 0));
	/* [G51]: each number, each access, a few values: a fault or nothing bad */
	static const u64 values[] = { 0, 1, 0xff, 0xffffffff, BIT(63), ~0ull };
	for (u32 msr = MSR_X2APIC_BASE; msr <= MSR_X2APIC_LAST; msr++) {
		u64 v;
		msr_rd(3, msr, &v);
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
			msr_wr(3, msr, values[i]);
	}
}

static void test_x2apic_logical(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		enter_x2apic(i);
	assert_true(x2wr(0, ICR, 0x0000000600004870));
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(x2rd(i, IRR + 3) >> 16 & 1, i == 1 || i == 2);
	assert_true(x2wr(0, ICR, 0x0001000600004871)); /* cluster 1 is empty */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(x2rd(i, IRR + 3) >> 17 & 1, 0);
	assert_true(x2wr(0, ICR, 0xffffffff00004072));
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(x2rd(i, IRR + 3) >> 18 & 1, 1);
	/* A message from outside has 8 bits, and so has its broadcast. */
	irq_msi(&fake.b.vm, 0xfeeff000, 0x73);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(x2rd(i, IRR + 3) >> 19 & 1, 1);
	assert_true(x2wr(0, ICR, 0x000000ff00004074)); /* not a broadcast here: id 255 */
	assert_int_equal(x2rd(1, IRR + 3) >> 20 & 1, 0);
}

static void test_many_vcpus(void **state)
{
	fake_done(NULL);
	fake_vm(VM_MAX_VCPUS);
	fake_controllers();
	for (unsigned i = 0; i < VM_MAX_VCPUS; i++)
		enter_x2apic(i);
	assert_int_equal(x2rd(63, LDR), 0x00038000);
	assert_true(x2wr(0, ICR, 0x0003800000004830));
	for (unsigned i = 0; i < VM_MAX_VCPUS; i++)
		assert_int_equal(pend(i), i == 63 ? 0x30 : -1);
}

static void test_errors(void **state)
{
	wr(0, LVT_ERROR, 0xfe);
	wr(0, ICR, 0x40005); /* an illegal vector is not sent */
	assert_int_equal(rd(0, ESR), 0);
	assert_int_equal(ack(0), 0xfe);
	wr(0, EOI, 0);
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0x20);
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0);
	rd(0, 0x3a);
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0x80);
	irq_msi(&fake.b.vm, 0xfee00000, 0x0f); /* received */
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0x40);
	/* An error entry with an illegal vector must not go round and round. */
	wr(0, LVT_ERROR, 0x03);
	wr(0, ICR, 0x40005);
	wr(0, ESR, 0);
	assert_int_equal(rd(0, ESR), 0x60);
}

static void test_mmio_widths(void **state)
{
	fake.b.self = cpu(0);
	assert_int_equal(mmio_rd(LAPIC_BASE + 0x30, 1), 0x14);
	assert_int_equal(mmio_rd(LAPIC_BASE + 0x32, 1), 0x05);
	assert_int_equal(mmio_rd(LAPIC_BASE + 0x30, 8), 0x50014);
	assert_int_equal(mmio_rd(LAPIC_BASE + 0x33, 4), 0);
	mmio_wr(LAPIC_BASE + 0x80, 1, 0x70);
	mmio_wr(LAPIC_BASE + 0x82, 4, 0x70);
	assert_int_equal(rd(0, TPR), 0);
	mmio_wr(LAPIC_BASE + 0x80, 8, 0x70);
	assert_int_equal(rd(0, TPR), 0x70);
	fake.b.self = NULL; /* not a vCPU */
	assert_int_equal(mmio_rd(LAPIC_BASE + 0x30, 4), 0xffffffff);
	mmio_wr(LAPIC_BASE + 0x80, 4, 0);
	assert_int_equal(rd(0, TPR), 0x70);
}

/* The vCPU's part: calls timer_fn when the timer would be due, by guest time. */
static void timer_advance(u64 ns)
{
	fake_advance(ns);
	ring(0);
}

static void test_timer_one_shot(void **state)
{
	wr(0, DCR, 0xb); /* by 1 */
	wr(0, LVT_TIMER, 0x40);
	assert_true(cpu(0)->timer_tsc == ~0ull);
	u64 t0 = vcpu_rdtsc();
	wr(0, INIT_COUNT, 1000000);
	/* 1 ms at 2 GHz */
	assert_true(cpu(0)->timer_tsc >= t0 + 2000000);
	assert_true(cpu(0)->timer_tsc <= vcpu_rdtsc() + 2000001);
	fake_advance(400000);
	assert_int_equal(rd(0, CUR_COUNT), 600000);
	timer_advance(599999); /* early: arms again */
	assert_int_equal(pend(0), -1);
	assert_true(cpu(0)->timer_tsc != ~0ull);
	assert_int_equal(rd(0, CUR_COUNT), 1);
	timer_advance(1);
	assert_int_equal(ack(0), 0x40);
	wr(0, EOI, 0);
	assert_int_equal(rd(0, CUR_COUNT), 0);
	assert_int_equal(rd(0, INIT_COUNT), 1000000);
	assert_true(cpu(0)->timer_tsc == ~0ull);
	timer_advance(5000000);
	assert_int_equal(pend(0), -1);
	wr(0, LVT_TIMER, PERIODIC | 0x40); /* a finished one does not start by that */
	timer_advance(5000000);
	assert_int_equal(pend(0), -1);
}

static void test_timer_divider(void **state)
{
	static const struct {
		u32 dcr;
		unsigned by;
	} div[] = {
		{ 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 },
	};

	wr(0, LVT_TIMER, 0x40);
	for (unsigned i = 0; i < ARRAY_SIZE(div); i++) {
		wr(0, DCR, div[i].dcr);
		wr(0, INIT_COUNT, 10000);
		fake_advance(4000 * div[i].by);
		assert_int_equal(rd(0, CUR_COUNT), 6000);
	}
	/* What is left goes on at the new pace. */
	wr(0, DCR, 0);
	assert_int_equal(rd(0, CUR_COUNT), 6000);
	fake_advance(2000);
	assert_int_equal(rd(0, CUR_COUNT), 5000);
	wr(0, INIT_COUNT, 0);
	assert_int_equal(rd(0, CUR_COUNT), 0);
	wr(0, DCR, 10);
	wr(0, INIT_COUNT, 0xffffffff); /* nine minutes */
	assert_int_equal(rd(0, CUR_COUNT), 0xffffffff);
	assert_true(cpu(0)->timer_tsc != ~0ull);
}

static void test_timer_periodic(void **state)
{
	unsigned got = 0;

	wr(0, DCR, 0xb);
	wr(0, LVT_TIMER, PERIODIC | 0x40);
	wr(0, INIT_COUNT, 1000000);
	for (unsigned i = 0; i < 100; i++) {
		timer_advance(100000);
		if (ack(0) == 0x40) {
			got++;
			wr(0, EOI, 0);
		}
	}
	assert_int_equal(got, 10);
	timer_advance(7500000); /* several at once are one, and the phase stays */
	assert_int_equal(ack(0), 0x40);
	wr(0, EOI, 0);
	assert_int_equal(pend(0), -1);
	assert_int_equal(rd(0, CUR_COUNT), 500000);
	/* Masked: counts on in silence, without waking anybody */
	wr(0, LVT_TIMER, PERIODIC | MASKED | 0x40);
	assert_true(cpu(0)->timer_tsc == ~0ull);
	fake_advance(5750000);
	assert_int_equal(rd(0, CUR_COUNT), 750000);
	wr(0, LVT_TIMER, PERIODIC | 0x40);
	assert_int_equal(pend(0), -1);
	timer_advance(750000);
	assert_int_equal(ack(0), 0x40);
	wr(0, EOI, 0);
	wr(0, LVT_TIMER, 0x40); /* one last time */
	timer_advance(1000000);
	assert_int_equal(ack(0), 0x40);
	wr(0, EOI, 0);
	timer_advance(3000000);
	assert_int_equal(pend(0), -1);
}

static void test_G40_timer_storm(void **state)
{
	unsigned calls = 0;

	wr(0, DCR, 0xb);
	wr(0, LVT_TIMER, PERIODIC | 0x40);
	wr(0, INIT_COUNT, 1);
	for (u64 end = fake.b.now + 10000000; fake.b.now < end; fake_advance(1000)) {
		u64 before = cpu(0)->timer_tsc;
		ring(0);
		assert_true(before != ~0ull);
		if (ack(0) >= 0) {
			calls++;
			wr(0, EOI, 0);
		}
	}
	assert_in_range(calls, 90, 101); /* 10 ms, at most one in 100 us */
	assert_true(rd(0, CUR_COUNT) <= 1);
}

static void test_tsc_deadline(void **state)
{
	u64 v, tsc;

	cpu(0)->tsc_offset = -12345;
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, 1)); /* ignored in another mode */
	assert_true(msr_rd(0, MSR_TSC_DEADLINE, &v));
	assert_int_equal(v, 0);
	assert_int_equal(pend(0), -1);
	wr(0, LVT_TIMER, DEADLINE | 0x41);
	tsc = vcpu_rdtsc() - 12345;
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, tsc + BIT(40)));
	assert_true(cpu(0)->timer_tsc == tsc + BIT(40) + 12345);
	assert_true(msr_rd(0, MSR_TSC_DEADLINE, &v));
	assert_true(v == tsc + BIT(40));
	wr(0, INIT_COUNT, 1000); /* without effect */
	assert_int_equal(rd(0, INIT_COUNT), 0);
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, 0)); /* disarms */
	assert_true(cpu(0)->timer_tsc == ~0ull);
	/* A short one */
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, vcpu_rdtsc() - 12345 + 200000));
	while (vcpu_rdtsc() < cpu(0)->timer_tsc)
		;
	ring(0);
	assert_int_equal(ack(0), 0x41);
	wr(0, EOI, 0);
	assert_true(msr_rd(0, MSR_TSC_DEADLINE, &v));
	assert_int_equal(v, 0);
	assert_true(cpu(0)->timer_tsc == ~0ull);
	/* Leaving the mode disarms. */
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, ~0ull - 1));
	wr(0, LVT_TIMER, 0x41);
	wr(0, LVT_TIMER, DEADLINE | 0x41);
	assert_true(msr_rd(0, MSR_TSC_DEADLINE, &v));
	assert_int_equal(v, 0);
	fake.b.vm.cpuid.features[X86_FEATURE_TSC_DEADLINE / 64] &= ~BIT(X86_FEATURE_TSC_DEADLINE % 64);
	assert_false(msr_wr(0, MSR_TSC_DEADLINE, 1));
}

static void test_G63_deadline_past(void **state)
{
	static const u64 offsets[] = { 0, 1ull << 63, ~0ull, 1, 0x7fffffffffffffff };

	wr(0, LVT_TIMER, DEADLINE | 0x41);
	for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
		cpu(0)->tsc_offset = (s64)offsets[i];
		assert_true(msr_wr(0, MSR_TSC_DEADLINE, 1));
		assert_int_equal(ack(0), 0x41); /* once, at once */
		wr(0, EOI, 0);
		for (unsigned n = 0; n < 3; n++)
			ring(0);
		assert_int_equal(pend(0), -1);
		assert_true(cpu(0)->timer_tsc == ~0ull);
	}
	cpu(0)->tsc_offset = 0;
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, BIT(63)));
	assert_true(cpu(0)->timer_tsc == BIT(63));
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, ~0ull));
	assert_true(cpu(0)->timer_tsc == ~0ull);
	ring(0);
	assert_int_equal(pend(0), -1);
	/* The TSC moves: a call of timer_fn finds the new time. */
	assert_true(msr_wr(0, MSR_TSC_DEADLINE, BIT(63)));
	cpu(0)->tsc_offset = (s64)(BIT(62) - vcpu_rdtsc());
	ring(0);
	assert_int_equal(pend(0), -1);
	assert_in_range(cpu(0)->timer_tsc, BIT(62), vcpu_rdtsc() + BIT(62));
	cpu(0)->tsc_offset = (s64)(BIT(63) - vcpu_rdtsc());
	ring(0);
	assert_int_equal(ack(0), 0x41);
}

static void test_extint(void **state)
{
	/* Virtual wire: the 8259A through LINT0 of the boot processor */
	pio_wr(0x20, 1, 0x11);
	pio_wr(0x21, 1, 0x30);
	pio_wr(0x21, 1, 0x04);
	pio_wr(0x21, 1, 0x01);
	pio_wr(0x21, 1, 0x00);
	posted(0);
	irq_set(&fake.b.vm, 4, true);
	assert_true(posted(0) & VCPU_REQ_INTR);
	assert_int_equal(pend(0), 0x34);
	assert_int_equal(pend(1), -1);
	wr(0, LVT_LINT0, MASKED | 0x700);
	assert_int_equal(pend(0), -1);
	wr(0, LVT_LINT0, 0x700);
	/* What the local APIC has of its own goes first; then the vCPU is told to look again. */
	wr(0, TPR, 0xf0);
	wr(0, ICR, 0x40051);
	assert_int_equal(pend(0), 0x34); /* TPR does not hold off the external controller */
	wr(0, TPR, 0);
	posted(0);
	assert_int_equal(ack(0), 0x51);
	assert_true(posted(0) & VCPU_REQ_INTR);
	assert_int_equal(ack(0), 0x34);
	assert_int_equal(pend(0), -1);
	wr(0, EOI, 0);
	pio_wr(0x20, 1, 0x20);
	irq_set(&fake.b.vm, 4, false);
	/* With the APIC off LINT0 is INTR. */
	assert_true(msr_wr(1, MSR_APIC_BASE, base(1) & ~BIT(11)));
	posted(1);
	irq_set(&fake.b.vm, 4, true);
	assert_true(posted(1) & VCPU_REQ_INTR);
	assert_int_equal(ack(1), 0x34);
	assert_int_equal(pend(0), -1); /* gone to the other */
	assert_int_equal(ack(0), -1);
}

static void test_lint(void **state)
{
	wr(0, LVT_LINT1, 0x400);
	lapic_set_lint(&fake.b.vm, 0, 1, true);
	assert_int_equal(posted(0), VCPU_REQ_NMI);
	lapic_set_lint(&fake.b.vm, 0, 1, true); /* no edge */
	assert_int_equal(posted(0), 0);
	lapic_set_lint(&fake.b.vm, 0, 1, false);
	/* LINT0 as a fixed edge, then as a level */
	wr(2, LVT_LINT0, 0x55);
	lapic_set_lint(&fake.b.vm, 2, 0, true);
	assert_int_equal(ack(2), 0x55);
	wr(2, EOI, 0);
	assert_int_equal(pend(2), -1);
	wr(2, LVT_LINT0, BIT(15) | 0x56);
	assert_int_equal(ack(2), 0x56);
	assert_true(rd(2, LVT_LINT0) & BIT(14));
	assert_true(has(2, TMR, 0x56));
	wr(2, EOI, 0);
	assert_int_equal(ack(2), 0x56); /* still high */
	lapic_set_lint(&fake.b.vm, 2, 0, false);
	wr(2, EOI, 0);
	assert_int_equal(pend(2), -1);
	assert_false(rd(2, LVT_LINT0) & BIT(14));
	/* INIT by a pin; and pins that do not exist */
	wr(3, LVT_LINT1, 0x500);
	lapic_set_lint(&fake.b.vm, 3, 1, true);
	assert_int_equal(posted(3), VCPU_REQ_INIT);
	lapic_set_lint(&fake.b.vm, 9, 0, true);
	lapic_set_lint(&fake.b.vm, 3, 2, true);
}

static void test_init_refused(void **state)
{
	struct device_conf conf = { .index = 4, .id = "x" };
	struct err err = { 0 };

	assert_int_equal(device_new(&fake.b.vm, "lapic", &conf, NULL, &err), -22);
	conf.index = 1;
	assert_int_equal(device_new(&fake.b.vm, "lapic", &conf, NULL, &err), -17);
	assert_non_null(cpu(1)->lapic); /* the one that is there stays */
	wr(1, TPR, 0x30);
	assert_int_equal(rd(1, TPR), 0x30);
}

static void test_state(void **state)
{
	wr(0, LVT_TIMER, PERIODIC | 0x40);
	wr(0, INIT_COUNT, 500000);
	wr(0, ICR, 0x40051);
	ack(0);
	wr(0, ICR, 0x40061);
	fake_state(device_find(&fake.b.vm, "lapic"));
	assert_int_equal(pend(0), 0x61);
	assert_true(cpu(0)->timer_tsc != ~0ull);
	timer_advance(1000000000);
	assert_true(has(0, IRR, 0x40));
	assert_true(has(0, ISR, 0x51));
	fake_state(device_find(&fake.b.vm, "lapic2"));
}

/* Everything at random on four vCPUs in both modes; the sanitizers and the assertion are the judges. */
static void test_G61_storm(void **state)
{
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 200; i++) {
			unsigned n = (unsigned)(fake_random() % 4);
			fake.b.self = cpu(n);
			fake_storm(BUS_MMIO, LAPIC_BASE, LAPIC_SIZE, 8);
			msr_wr(n, MSR_X2APIC_BASE + (u32)(fake_random() % 64),
			       fake_random() >> fake_random() % 64);
			msr_wr(n, MSR_TSC_DEADLINE, fake_random());
			irq_msi(&fake.b.vm, 0xfee00000 | (fake_random() & 0xfffff), (u32)fake_random());
			irq_set(&fake.b.vm, (unsigned)(fake_random() % 24), fake_random() & 1);
			lapic_set_lint(&fake.b.vm, n, 1, fake_random() & 1);
			ring(n);
			int v = pend(n);
			if (fake_random() & 1)
				assert_true(ack(n) == v);
		}
		for (unsigned n = 0; n < 4; n++)
			if (fake_random() & 1)
				msr_wr(n, MSR_APIC_BASE, LAPIC_BASE | (fake_random() & 0xd00));
	}
	device_reset_all(&fake.b.vm, RESET_WARM);
	for (unsigned n = 0; n < 4; n++)
		assert_true(cpu(n)->timer_tsc == ~0ull);
	test_reset_values(NULL);
}

/* EOI without an exit [KVM msr]: the guest's word. */
#define WORD 0x3000ull

static u8 *word(void)
{
	return ram_ptr(&fake.b.vm.ram, WORD, 4);
}

static void test_eoi_msr(void **state)
{
	u64 v;

	assert_true(msr_rd(0, MSR_KVM_PV_EOI, &v));
	assert_int_equal(v, 0);
	assert_true(msr_wr(0, MSR_KVM_PV_EOI, WORD | 1));
	/* Not aligned, or not in RAM [G60]. */
	assert_false(msr_wr(0, MSR_KVM_PV_EOI, WORD | 3));
	assert_false(msr_wr(0, MSR_KVM_PV_EOI, fake.b.vm.ram.end | 1));
	assert_false(msr_wr(0, MSR_KVM_PV_EOI, LAPIC_BASE | 1));
	assert_false(msr_wr(0, MSR_KVM_PV_EOI, ~3ull | 1));
	assert_true(msr_rd(0, MSR_KVM_PV_EOI, &v));
	assert_int_equal(v, WORD | 1);
	assert_true(msr_rd(1, MSR_KVM_PV_EOI, &v));
	assert_int_equal(v, 0);
	/* INIT takes it away. */
	device_reset_all(&fake.b.vm, RESET_WARM);
	assert_true(msr_rd(0, MSR_KVM_PV_EOI, &v));
	assert_int_equal(v, 0);
}

static void test_eoi_word(void **state)
{
	assert_true(msr_wr(0, MSR_KVM_PV_EOI, WORD | 1));
	wr(0, ICR, ICR_SELF_FIXED | 0x50);
	assert_int_equal(ack(0), 0x50);
	assert_int_equal(word()[0], 1);
	/* The guest clears it: that was the EOI, and a lower vector gets through. */
	word()[0] = 0;
	posted(0);
	wr(0, ICR, ICR_SELF_FIXED | 0x40);
	assert_true(posted(0) & VCPU_REQ_INTR);
	assert_int_equal(pend(0), 0x40);
	assert_false(has(0, ISR, 0x50));
	assert_int_equal(ack(0), 0x40);
	assert_int_equal(word()[0], 1);
	/* Another one comes before it is used: taken back, and the register is to be written. */
	posted(0);
	wr(0, ICR, ICR_SELF_FIXED | 0x41);
	assert_true(posted(0) & VCPU_REQ_INTR);
	assert_int_equal(pend(0), -1); /* of the same class */
	assert_int_equal(word()[0], 0);
	assert_true(has(0, ISR, 0x40));
	wr(0, EOI, 0);
	assert_false(has(0, ISR, 0x40));
	assert_int_equal(ack(0), 0x41);
	/* A guest that writes the register although it might have cleared the word. */
	assert_int_equal(word()[0], 1);
	wr(0, EOI, 0);
	assert_int_equal(word()[0], 0);
	assert_false(has(0, ISR, 0x41));
}

static void test_eoi_not_lent(void **state)
{
	struct apic_msg level = { .mode = APIC_FIXED, .vector = 0x50, .level = true };

	assert_true(msr_wr(0, MSR_KVM_PV_EOI, WORD | 1));
	/* The I/O APIC wants to know of a level-triggered one. */
	lapic_deliver(&fake.b.vm, &level);
	assert_int_equal(ack(0), 0x50);
	assert_int_equal(word()[0], 0);
	wr(0, EOI, 0);
	/* While another waits. */
	wr(0, ICR, ICR_SELF_FIXED | 0x60);
	wr(0, ICR, ICR_SELF_FIXED | 0x70);
	assert_int_equal(ack(0), 0x70);
	assert_int_equal(word()[0], 0);
	wr(0, EOI, 0);
	assert_int_equal(ack(0), 0x60);
	assert_int_equal(word()[0], 1);
	/* One inside of another: what is left is taken back first. */
	wr(0, ICR, ICR_SELF_FIXED | 0x80);
	assert_int_equal(ack(0), 0x80);
	assert_int_equal(word()[0], 0);
	wr(0, EOI, 0);
	wr(0, EOI, 0);
	assert_int_equal(pend(0), -1);
	for (unsigned r = 0; r < 8; r++)
		assert_int_equal(rd(0, ISR + r), 0);
	/* Switched off with one lent. */
	wr(0, ICR, ICR_SELF_FIXED | 0x60);
	assert_int_equal(ack(0), 0x60);
	assert_int_equal(word()[0], 1);
	assert_true(msr_wr(0, MSR_KVM_PV_EOI, 0));
	assert_int_equal(word()[0], 0);
	assert_true(has(0, ISR, 0x60));
}

/* --- to and from an engine with local APICs of its own --- */
static struct {
	u64 addr;
	u32 data;
	unsigned nr, rerouted;
} sent;

static unsigned engine_send(struct vm *vm, u64 addr, u32 data)
{
	sent.addr = addr;
	sent.data = data;
	return ++sent.nr;
}

static void engine_rerouted(struct vm *vm)
{
	sent.rerouted++;
}

static const struct apic_ops engine_apics = { .send = engine_send, .rerouted = engine_rerouted };

static void get_apic(unsigned n, struct apic_state *ret)
{
	memset(ret, 0, sizeof(*ret));
	fake.b.vm.intc->get_apic(fake.b.vm.intc_opaque, cpu(n), ret);
}

static void set_apic(unsigned n, const struct apic_state *apic)
{
	fake.b.vm.intc->set_apic(fake.b.vm.intc_opaque, cpu(n), apic);
}

static void test_apic_state(void **state)
{
	struct apic_state first, second;

	wr(1, TPR, 0x35);
	wr(1, LDR, 0x40000000);
	wr(1, LVT_TIMER, PERIODIC | 0xec);
	wr(1, DCR, 0xb);
	wr(1, INIT_COUNT, 50000000);
	wr(1, ICR2, 0x03000000);
	wr(1, ICR, 0x40000 | 0x51); /* to itself */
	wr(1, ICR, 0x40000 | 0x61);
	assert_int_equal(ack(1), 0x61);
	get_apic(1, &first);
	assert_int_equal(first.reg[TPR], 0x35);
	assert_int_equal(first.reg[ID], 1 << 24);
	assert_int_equal(first.reg[IRR + 2], BIT(0x51 & 31));
	assert_int_equal(first.reg[ISR + 3], BIT(0x61 & 31));
	assert_true(first.reg[CUR_COUNT] && first.reg[CUR_COUNT] <= 50000000);
	/* Into another one, through which it comes out the same. */
	device_reset_all(&fake.b.vm, RESET_COLD);
	set_apic(1, &first);
	assert_true(posted(1) == 0 || pend(1) < 0x61);
	get_apic(1, &second);
	second.reg[CUR_COUNT] = first.reg[CUR_COUNT];
	assert_memory_equal(&first, &second, sizeof(first));
	wr(1, EOI, 0);
	assert_int_equal(pend(1), 0x51);
	/* Vectors that are none do not come in. */
	second.reg[IRR] = 0xffff;
	set_apic(1, &second);
	assert_int_equal(rd(1, IRR), 0);
	/* x2APIC mode. */
	enter_x2apic(2);
	get_apic(2, &first);
	assert_int_equal(first.reg[LDR], 4);
	assert_int_equal(first.reg[ID], 2 << 24);
	set_apic(2, &first);
	assert_int_equal(x2rd(2, LDR), 4);
}

static void test_engine_has_them(void **state)
{
	u64 v;

	wr(0, ICR, 0x40000 | 0x51);
	fake.b.vm.apics = &engine_apics;
	posted(0);
	/* Messages go there. */
	irq_msi(&fake.b.vm, 0xfee01004, 0x4061);
	assert_int_equal(sent.nr, 1);
	assert_true(sent.addr == 0xfee01004 && sent.data == 0x61);
	irq_msi(&fake.b.vm, 0xfee02008, 0xc162);
	assert_true(sent.addr == 0xfee02008 && sent.data == 0xc162);
	assert_int_equal(lapic_deliver_ids(&fake.b.vm, 6, APIC_FIXED, 0x63), 3 + 4);
	assert_true(sent.addr == 0xfee02000 && sent.data == 0x63);
	/* What the device holds is nobody's: no vector, no registers. */
	assert_int_equal(pend(0), -1);
	assert_int_equal(ack(0), -1);
	assert_false(msr_rd(0, MSR_APIC_BASE, &v));
	assert_false(msr_wr(0, MSR_TSC_DEADLINE, 1));
	assert_int_equal(rd(0, ID), 0xffffffff);
	assert_false(posted(0) & VCPU_REQ_INTR);
	/* The I/O APIC says when a route changes. */
	mmio_wr(IOAPIC_BASE, 4, 0x10 + 2 * 9);
	mmio_wr(IOAPIC_BASE + 0x10, 4, BIT(15) | 0x51);
	assert_int_equal(sent.rerouted, 1);
	assert_true(fake.b.vm.intc->route(fake.b.vm.intc_opaque, 9, &v, &sent.data));
	assert_true(v == LAPIC_BASE && sent.data == (0x51 | BIT(15) | BIT(14)));
	assert_false(fake.b.vm.intc->route(fake.b.vm.intc_opaque, 10, &v, &sent.data));
	assert_false(fake.b.vm.intc->route(fake.b.vm.intc_opaque, 24, &v, &sent.data));
	fake.b.vm.apics = NULL;
	assert_int_equal(pend(0), 0x51);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
		T(test_reset_values),
		T(test_priorities),
		T(test_software_disable),
		T(test_physical_ipi),
		T(test_logical_ipi),
		T(test_lowest_priority),
		T(test_init_sipi),
		T(test_modes),
		T(test_moved_base),
		T(test_two_nmis),
		T(test_x2apic_registers),
		T(test_x2apic_logical),
		T(test_many_vcpus),
		T(test_errors),
		T(test_mmio_widths),
		T(test_timer_one_shot),
		T(test_timer_divider),
		T(test_timer_periodic),
		T(test_G40_timer_storm),
		T(test_tsc_deadline),
		T(test_G63_deadline_past),
		T(test_extint),
		T(test_lint),
		T(test_init_refused),
		T(test_state),
		T(test_G61_storm),
		T(test_eoi_msr),
		T(test_eoi_word),
		T(test_eoi_not_lent),
		T(test_apic_state),
		T(test_engine_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
