/* The ACPI fixed hardware: power-management events and control, timer, general-purpose events.
 *
 * Document: ACPI Specification 6.4, 4.8 (fixed hardware register blocks), cited as [ACPI 4.8.x]. The port
 * layout is that of Intel's ICH9 [ICH9 13.8.3], so that firmware for that chip set finds what it looks
 * for.
 *
 * How it works: all blocks are in one range of ports, accessed at any width. The SCI is a level: high
 * while a status bit and its enable bit are both set. The timer is guest time times 3.579545 MHz; its
 * status bit (the top bit of the counter has changed) is brought up to date on access, and by a clock
 * timer while it is enabled.
 *
 * Sleep (S3): writing SLP_EN ends the vCPU's run and asks the main loop, which takes power from the machine (RESET_SLEEP: status and
 * enable bits have their own) and then calls pm_sleep(). From then on an event that wakes asks it to go on: the power button
 * always, the clock's alarm and general-purpose events where they are enabled [ACPI 4.8.3.1]. pm_wake() sets WAK_STS.
 *
 * DEVIATION: until PM1_EN has been written, an alarm wakes too. A guest that never says what is to wake it has no other way
 * to come back, and PCs differ in what their firmware leaves there.
 *
 * Omitted, and why that is safe: SMI_CMD and the SMI blocks (the machine starts in ACPI mode, SCI_EN is
 * fixed at 1, and the FADT says so); sleeping states other than S3 and S5, which the DSDT does not offer;
 * bus-master and global-lock status, which nothing here sets.
 *
 * Threads: vCPUs under the device's lock; pm_power_button(), pm_gpe() and pm_rtc_alarm() any; the clock timer on the main
 * thread.
 */
#include "dev/pm.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/vm.h"

/* Offsets of the 32-bit blocks */
#define R_EVT      (PM_EVT_PORT - PM_BASE)
#define R_CNT      (PM_CNT_PORT - PM_BASE)
#define R_TMR      (PM_TMR_PORT - PM_BASE)
#define R_GPE0_STS (PM_GPE0_PORT - PM_BASE)
#define R_GPE0_EN  (PM_GPE0_PORT - PM_BASE + 4)

/* PM1 status and enable [ACPI 4.8.3.1] */
#define EVT_TMR    BIT(0)
#define EVT_GBL    BIT(5)
#define EVT_PWRBTN BIT(8)
#define EVT_SLPBTN BIT(9)
#define EVT_RTC    BIT(10)
#define STS_BM     BIT(4)
#define STS_WAK    BIT(15)
#define EN_MASK    ((u16)(EVT_TMR | EVT_GBL | EVT_PWRBTN | EVT_SLPBTN | EVT_RTC))
#define STS_MASK   ((u16)(EN_MASK | STS_BM | STS_WAK))

/* PM1 control [ACPI 4.8.3.2] */
#define CNT_SCI_EN        BIT(0)
#define CNT_BM_RLD        BIT(1)
#define CNT_SLP_TYP       (7u << 10)
#define CNT_SLP_TYP_SHIFT 10
#define CNT_SLP_EN        BIT(13)
#define CNT_WRITABLE      ((u16)(CNT_BM_RLD | CNT_SLP_TYP))

#define TMR_HALF_SHIFT 31 /* the top bit of the 32-bit counter */

struct pm {
	struct device dev;
	struct region ports;
	bool ports_added;
	struct clock_timer *timer;
	unsigned gsi;
	u16 sts, en, cnt;
	u32 gpe_sts, gpe_en;
	u64 halves;      /* times that the top bit of the timer had changed when last looked at */
	bool en_written; /* since the last reset */
	bool asleep;     /* the machine's state, not the chip's */
	bool sci;        /* derived */
};

static u64 tmr_ticks(struct pm *pm)
{
	return (u64)((unsigned __int128)clock_now(pm->dev.vm) * PM_TMR_HZ / 1000000000);
}

static bool wakes(const struct pm *pm)
{
	u16 alarm = pm->en_written ? pm->en & EVT_RTC : EVT_RTC;

	return pm->sts & (EVT_PWRBTN | alarm) || pm->gpe_sts & pm->gpe_en;
}

/* Status of the timer and level of the SCI, as they should be now [ACPI 4.8.3.3]. */
static void update(struct pm *pm)
{
	u64 halves = tmr_ticks(pm) >> TMR_HALF_SHIFT;

	if (halves != pm->halves) {
		pm->halves = halves;
		pm->sts |= EVT_TMR;
	}
	bool sci = pm->sts & pm->en || pm->gpe_sts & pm->gpe_en;
	if (sci != pm->sci) {
		pm->sci = sci;
		irq_set(pm->dev.vm, pm->gsi, sci);
	}
	if (pm->asleep && wakes(pm))
		vm_request(pm->dev.vm, VM_REQ_WAKE);
	if (pm->en & EVT_TMR && !(pm->sts & EVT_TMR)) {
		unsigned __int128 next = (unsigned __int128)(halves + 1) << TMR_HALF_SHIFT;
		clock_timer_arm(pm->timer, (u64)(next * 1000000000 / PM_TMR_HZ) + 1);
	} else {
		clock_timer_cancel(pm->timer);
	}
}

static void pm_tick(void *opaque)
{
	update(opaque);
}

static void happened(struct device *dev, u16 event)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(dev->lock);
	pm->sts |= event;
	update(pm);
	pthread_mutex_unlock(dev->lock);
}

void pm_power_button(struct device *dev)
{
	happened(dev, EVT_PWRBTN);
}

void pm_rtc_alarm(void *dev)
{
	happened(dev, EVT_RTC);
}

void pm_gpe(struct device *dev, unsigned n)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	if (n >= 32)
		return;
	pthread_mutex_lock(dev->lock);
	pm->gpe_sts |= 1u << n;
	update(pm);
	pthread_mutex_unlock(dev->lock);
}

static void set_asleep(struct device *dev, bool asleep, u16 status)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(dev->lock);
	pm->asleep = asleep;
	pm->sts |= status;
	update(pm);
	pthread_mutex_unlock(dev->lock);
}

void pm_sleep(struct device *dev)
{
	set_asleep(dev, true, 0);
}

void pm_wake(struct device *dev)
{
	set_asleep(dev, false, STS_WAK);
}

bool pm_asleep(struct device *dev)
{
	struct pm *pm = container_of(dev, struct pm, dev);
	bool asleep;

	pthread_mutex_lock(dev->lock);
	asleep = pm->asleep;
	pthread_mutex_unlock(dev->lock);
	return asleep;
}

static u32 block_read(struct pm *pm, u64 block)
{
	switch (block) {
	case R_EVT: update(pm); return pm->sts | (u32)pm->en << 16;
	case R_CNT: return pm->cnt | CNT_SCI_EN | 0xffff0000;
	case R_TMR: return (u32)tmr_ticks(pm);
	case R_GPE0_STS: return pm->gpe_sts;
	case R_GPE0_EN: return pm->gpe_en;
	default: return 0xffffffff;
	}
}

static void sleep_enter(struct pm *pm)
{
	unsigned type = (pm->cnt & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT;

	switch (type) {
	case PM_SLP_TYP_S5: vm_request(pm->dev.vm, VM_REQ_POWEROFF); break;
	case PM_SLP_TYP_S3:
		vm_request(pm->dev.vm, VM_REQ_SLEEP);
		/* It has executed its last instruction. */
		if (vcpu_self())
			vcpu_post(vcpu_self(), VCPU_REQ_OFF);
		break;
	default:
		log_guest("the guest asks for a sleeping state (type %u) that the machine does not have",
			  type);
	}
}

static void block_write(struct pm *pm, u64 block, u32 val, u32 mask)
{
	switch (block) {
	case R_EVT:
		update(pm);
		pm->sts &= (u16) ~(val & mask); /* ones clear */
		pm->en = (u16)((pm->en & ~(mask >> 16)) | ((val & mask) >> 16 & EN_MASK));
		pm->en_written |= mask >> 16 != 0;
		update(pm);
		break;
	case R_CNT:
		pm->cnt = (u16)((pm->cnt & ~mask) | (val & mask & CNT_WRITABLE));
		if (val & mask & CNT_SLP_EN)
			sleep_enter(pm);
		break;
	case R_GPE0_STS:
		pm->gpe_sts &= ~(val & mask);
		update(pm);
		break;
	case R_GPE0_EN:
		pm->gpe_en = (pm->gpe_en & ~mask) | (val & mask);
		update(pm);
		break;
	default: break;
	}
}

/* An access of any width may touch two neighbouring blocks. */
static u64 pm_read(void *opaque, u64 offset, unsigned size)
{
	unsigned pos = offset & 3;
	u64 v = block_read(opaque, offset - pos);

	if (pos + size > 4)
		v |= (u64)block_read(opaque, offset - pos + 4) << 32;
	return v >> 8 * pos & bits_mask(size);
}

static void pm_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	unsigned pos = offset & 3;
	u64 mask = bits_mask(size) << 8 * pos;

	val <<= 8 * pos;
	block_write(opaque, offset - pos, (u32)val, (u32)mask);
	if (mask >> 32)
		block_write(opaque, offset - pos + 4, (u32)(val >> 32), (u32)(mask >> 32));
}

static const struct region_ops pm_ops = {
	.read = pm_read,
	.write = pm_write,
	.max_size = 4,
};

static int pm_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pm *pm = container_of(dev, struct pm, dev);
	u64 base = conf->base ? conf->base : PM_BASE;
	int r;

	pm->gsi = conf->gsi;
	pm->timer = clock_timer_new(dev->vm, dev->lock, pm_tick, pm);
	if (!pm->timer)
		return err_set(err, -ENOMEM, "no memory for the ACPI timer");
	pm->ports = (struct region){ "ACPI PM", &pm_ops, pm, dev->lock, BUS_PIO, base, PM_SIZE };
	r = bus_add(&dev->vm->bus, &pm->ports);
	if (r < 0)
		return err_sys(err, r, "the ACPI registers cannot be placed at port %#llx",
			       (unsigned long long)base);
	pm->ports_added = true;
	return 0;
}

static void pm_reset(struct device *dev, enum reset_kind kind)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(dev->lock);
	pm->cnt = 0;
	pm->asleep = false;
	if (kind != RESET_SLEEP) {
		pm->sts = 0;
		pm->en = 0;
		pm->en_written = false;
		pm->gpe_sts = 0;
		pm->gpe_en = 0;
	}
	pm->halves = tmr_ticks(pm) >> TMR_HALF_SHIFT;
	update(pm);
	pthread_mutex_unlock(dev->lock);
}

static const struct state_field pm_state[] = {
	STATE_U16(pm, sts),    STATE_U16(pm, en),     STATE_U16(pm, cnt),         STATE_U32(pm, gpe_sts),
	STATE_U32(pm, gpe_en), STATE_U64(pm, halves), STATE_BOOL(pm, en_written), STATE_END,
};

static int pm_post_load(struct device *dev, struct err *err)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	if (pm->sts & ~STS_MASK || pm->en & ~EN_MASK || pm->cnt & ~CNT_WRITABLE)
		return err_set(
			err, -EINVAL,
			"the state of the ACPI registers is impossible: status %#x, enable %#x, control %#x",
			pm->sts, pm->en, pm->cnt);
	pthread_mutex_lock(dev->lock);
	pm->sci = false;
	pm->asleep = false;
	update(pm);
	pthread_mutex_unlock(dev->lock);
	return 0;
}

static void pm_fini(struct device *dev)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	if (pm->ports_added)
		bus_del(&dev->vm->bus, &pm->ports);
	clock_timer_free(pm->timer);
}

const struct device_ops pm_device = {
	.name = "pm",
	.size = sizeof(struct pm),
	.init = pm_init,
	.reset = pm_reset,
	.state = pm_state,
	.post_load = pm_post_load,
	.fini = pm_fini,
};
