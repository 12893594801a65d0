/* ACPI fixed hardware "pm": conf->base = PM_BASE, conf->gsi = PM_SCI_GSI. The constants are for the FADT
 * and the DSDT.
 *
 * FADT: SMI_CMD 0 (the machine is in ACPI mode from the start, SCI_EN reads 1), PM1a_EVT, PM1a_CNT,
 * PM_TMR, GPE0 as below, 32-bit timer (TMR_VAL_EXT set), RESET_REG = I/O port PM_RESET_PORT, 8 bits,
 * RESET_VALUE PM_RESET_VALUE (the port itself is in pci.c), no sleep button (SLP_BUTTON flag set), power
 * button fixed (PWR_BUTTON clear), RTC_STATUS in fixed registers (FIX_RTC clear). DSDT: \_S3 and \_S5 with the types below, no
 * other sleeping state.
 */
#pragma once

#include "base/types.h"
#include "vm/device.h"

#define PM_BASE        0x600 /* also what the LPC bridge's PMBASE register says */
#define PM_SIZE        0x30
#define PM_EVT_PORT    0x600 /* PM1a_STS 16 bits, PM1a_EN 16 bits */
#define PM_EVT_LEN     4
#define PM_CNT_PORT    0x604
#define PM_CNT_LEN     2
#define PM_TMR_PORT    0x608
#define PM_TMR_LEN     4
#define PM_GPE0_PORT   0x620 /* GPE0_STS 32 bits, GPE0_EN 32 bits */
#define PM_GPE0_LEN    8
#define PM_SCI_GSI     9 /* level */
#define PM_SLP_TYP_S3  1 /* as QEMU has it, since some guests do not ask the DSDT */
#define PM_SLP_TYP_S5  7
#define PM_RESET_PORT  0xcf9
#define PM_RESET_VALUE 0x06
#define PM_TMR_HZ      3579545u

/* Any thread, no lock held: the user pressed the power button. */
void pm_power_button(struct device *dev);

/* Any thread, no lock held: event n (0..31) of the GPE0 block has happened. */
void pm_gpe(struct device *dev, unsigned n);

/* Any thread, also with another device's lock held: the clock's alarm has gone off. dev is the struct device. */
void pm_rtc_alarm(void *dev);

/* Main thread, no vCPU runs. From pm_sleep() on, what wakes the machine asks for VM_REQ_WAKE, also when it has happened before;
 * until pm_wake(), which tells the guest that it has slept, or a reset. */
void pm_sleep(struct device *dev);
void pm_wake(struct device *dev);
/* Any thread: whether it is between the two. */
bool pm_asleep(struct device *dev);
