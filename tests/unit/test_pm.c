/* ACPI fixed hardware: events, power button, S5, timer. */
#include "fakevm.h"

#include "dev/ioapic.h"
#include "dev/pm.h"

static struct device *pm;

static int setup(void **state)
{
	const struct device_conf conf = { .base = PM_BASE, .gsi = PM_SCI_GSI };

	fake_vm(1);
	fake_controllers();
	pm = fake_add("pm", &conf);
	return 0;
}

/* The level of the SCI, as its last receiver has it. */
static bool sci(void)
{
	return fake.intc.isa_level >> PM_SCI_GSI & 1;
}

static void test_power_button(void **state)
{
	pm_power_button(pm);
	assert_int_equal(pio_rd(PM_EVT_PORT, 2), 0x100);
	assert_false(sci());
	pio_wr(PM_EVT_PORT + 2, 2, 0x100);
	assert_true(sci());
	pio_wr(PM_EVT_PORT, 2, 0x001); /* clears another */
	assert_true(sci());
	pio_wr(PM_EVT_PORT, 2, 0x100);
	assert_false(sci());
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), 0x01000000);
	pm_power_button(pm);
	assert_true(sci());
	pio_wr(PM_EVT_PORT + 1, 1, 1); /* a byte of the register */
	assert_false(sci());
	pio_wr(PM_EVT_PORT + 2, 2, 0xffff);
	assert_int_equal(pio_rd(PM_EVT_PORT + 2, 2), 0x721);
	pm_power_button(pm);
	device_reset_all(&fake.b.vm, RESET_WARM);
	assert_false(sci());
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), 0);
}

static void test_gpe(void **state)
{
	pm_gpe(pm, 3);
	pm_gpe(pm, 32);
	pm_gpe(pm, ~0u);
	assert_int_equal(pio_rd(PM_GPE0_PORT, 4), 8);
	assert_false(sci());
	pio_wr(PM_GPE0_PORT + 4, 4, 8);
	assert_true(sci());
	pio_wr(PM_GPE0_PORT, 1, 8);
	assert_false(sci());
	assert_int_equal(pio_rd(PM_GPE0_PORT + 4, 4), 8);
}

static void test_sleep(void **state)
{
	assert_int_equal(pio_rd(PM_CNT_PORT, 2), 1); /* SCI_EN, fixed */
	pio_wr(PM_CNT_PORT, 2, 0);
	assert_int_equal(pio_rd(PM_CNT_PORT, 2), 1);
	pio_wr(PM_CNT_PORT, 2, PM_SLP_TYP_S5 << 10); /* the type alone does nothing */
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	assert_int_equal(pio_rd(PM_CNT_PORT, 2), PM_SLP_TYP_S5 << 10 | 1);
	for (unsigned type = 0; type < 7; type++)
		if (type != PM_SLP_TYP_S3)
			pio_wr(PM_CNT_PORT, 2, type << 10 | 1 << 13);
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	pio_wr(PM_CNT_PORT, 2, PM_SLP_TYP_S5 << 10 | 1 << 13);
	assert_int_equal(fake.b.vm.request, VM_REQ_POWEROFF);
	assert_int_equal(pio_rd(PM_CNT_PORT, 2), PM_SLP_TYP_S5 << 10 | 1); /* SLP_EN reads 0 */
}

static void test_sleep_by_bytes(void **state)
{
	pio_wr(PM_CNT_PORT, 1, 0xff);
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	pio_wr(PM_CNT_PORT + 1, 1, (PM_SLP_TYP_S5 << 10 | 1 << 13) >> 8);
	assert_int_equal(fake.b.vm.request, VM_REQ_POWEROFF);
}

/* The request that has been made since the last call. */
static int asked(void)
{
	return atomic_exchange(&fake.b.vm.request, VM_REQ_NONE);
}

static void suspend(void)
{
	fake.b.self = cpu(0);
	pio_wr(PM_CNT_PORT, 2, PM_SLP_TYP_S3 << 10 | 1 << 13);
	assert_int_equal(asked(), VM_REQ_SLEEP);
	assert_int_equal(vcpu_take(cpu(0), ~0u) & VCPU_REQ_OFF, VCPU_REQ_OFF);
	device_reset_all(&fake.b.vm, RESET_SLEEP);
	assert_false(pm_asleep(pm));
	pm_sleep(pm);
	assert_true(pm_asleep(pm));
}

static void wake(u32 events)
{
	pm_wake(pm);
	assert_false(pm_asleep(pm));
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), events | 0x8000);
	pio_wr(PM_EVT_PORT, 2, 0xffff);
	assert_int_equal(pio_rd(PM_EVT_PORT, 2), 0);
	assert_int_equal(asked(), VM_REQ_NONE);
}

static void test_suspend(void **state)
{
	suspend();
	assert_int_equal(asked(), VM_REQ_NONE);
	pm_power_button(pm);
	assert_int_equal(asked(), VM_REQ_WAKE);
	wake(0x100);
	pm_rtc_alarm(pm); /* awake, it is a status only */
	assert_int_equal(asked(), VM_REQ_NONE);
	suspend(); /* and wakes a guest that has never said what shall */
	assert_int_equal(asked(), VM_REQ_WAKE);
	wake(0x400);

	pio_wr(PM_EVT_PORT + 2, 2, 0x020); /* not the alarm */
	suspend();
	pm_rtc_alarm(pm);
	pm_gpe(pm, 3);
	assert_int_equal(asked(), VM_REQ_NONE);
	pm_power_button(pm); /* always */
	assert_int_equal(asked(), VM_REQ_WAKE);
	wake(0x00200500);

	pio_wr(PM_EVT_PORT + 2, 2, 0x400);
	pio_wr(PM_GPE0_PORT, 4, 8);
	pio_wr(PM_GPE0_PORT + 4, 4, 8);
	suspend(); /* the enable bits stay on */
	pm_gpe(pm, 3);
	assert_int_equal(asked(), VM_REQ_WAKE);
	pio_wr(PM_GPE0_PORT, 4, 8);
	wake(0x04000000);
	suspend();
	pm_rtc_alarm(pm);
	assert_int_equal(asked(), VM_REQ_WAKE);
	wake(0x04000400);
	suspend();
	device_reset_all(&fake.b.vm, RESET_WARM); /* somebody presses the reset button instead */
	assert_false(pm_asleep(pm));
	pm_power_button(pm);
	assert_int_equal(asked(), VM_REQ_NONE);
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), 0x100);
}

static void test_timer(void **state)
{
	fake_advance(1000000000 - fake.b.now);
	assert_int_equal(pio_rd(PM_TMR_PORT, 4), 3579545);
	assert_int_equal(pio_rd(PM_TMR_PORT, 2), 3579545 & 0xffff);
	assert_int_equal(pio_rd(PM_TMR_PORT + 1, 1), 3579545 >> 8 & 0xff);
	pio_wr(PM_TMR_PORT, 4, 0);
	assert_int_equal(pio_rd(PM_TMR_PORT, 4), 3579545);
	/* The top bit changes each 599.93 s. */
	pio_wr(PM_EVT_PORT + 2, 2, 1);
	for (unsigned n = 1; n <= 4; n++) {
		u64 at = (u64)n * 0x80000000 * 1000000000.0 / 3579545;
		fake_advance(at - 1000 - fake.b.now);
		assert_false(sci());
		assert_int_equal(pio_rd(PM_TMR_PORT, 4) >> 31, (n - 1) & 1);
		fake_advance(2000);
		assert_true(sci());
		assert_int_equal(pio_rd(PM_EVT_PORT, 2), 1);
		assert_int_equal(pio_rd(PM_TMR_PORT, 4) >> 31, n & 1);
		pio_wr(PM_EVT_PORT, 2, 1);
		assert_false(sci());
	}
	/* Not enabled: no clock timer, but the status is there when looked at. */
	pio_wr(PM_EVT_PORT + 2, 2, 0);
	u64 fired = fake.b.fired;
	fake_advance(2000000000000);
	assert_int_equal(fake.b.fired, fired);
	assert_int_equal(pio_rd(PM_EVT_PORT, 2), 1);
	assert_false(sci());
}

static void test_G42_ports(void **state)
{
	/* Each port, each width; holes read all-ones; nothing powers off but S5, or sleeps but S3. */
	for (unsigned port = PM_BASE; port < PM_BASE + PM_SIZE; port++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			u64 v = pio_rd(port, size);
			if (port >= PM_GPE0_PORT + PM_GPE0_LEN ||
			    (port > PM_TMR_PORT + 3 && port + size <= PM_GPE0_PORT))
				assert_int_equal(v, ~0ull >> (64 - 8 * size));
		}
	}
	for (unsigned i = 0; i < 65536; i++) {
		unsigned port = PM_BASE + (unsigned)(fake_random() % PM_SIZE);
		if (port / 2 != PM_CNT_PORT / 2 && port < PM_CNT_PORT - 3)
			pio_wr(port, 1u << fake_random() % 3, fake_random());
	}
	assert_int_equal(fake.b.vm.request, VM_REQ_NONE);
	u64 fired = fake.b.fired, t = fake.b.now;
	fake_storm(BUS_PIO, PM_BASE, PM_SIZE, 20000);
	assert_true(fake.b.fired - fired <= (fake.b.now - t) / 599000000000 + 1);
	device_reset_all(&fake.b.vm, RESET_COLD);
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), 0);
}

static void test_state(void **state)
{
	pm_power_button(pm);
	pio_wr(PM_EVT_PORT + 2, 2, 0x101);
	fake_state(pm);
	assert_true(sci());
	assert_int_equal(pio_rd(PM_EVT_PORT, 4), 0x01010100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
		T(test_power_button), T(test_gpe),   T(test_sleep),     T(test_sleep_by_bytes),
		T(test_suspend),      T(test_timer), T(test_G42_ports), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
