/* What firmware is to the display adapter: its option ROM, and the mode it is left in. Main thread. */
#pragma once

#include "boot/boot.h"
#include "machine/pc.h"

/* Reads the distribution's VGA BIOS for pc_add_devices(), where there is one; it is needed by firmware only. */
void video_load_rom(struct pc *pc);
void video_free_rom(struct pc *pc);

/* Before the vCPUs start, without firmware: text, or what the boot loader has promised. */
void video_start(struct pc *pc, const struct boot_video *video);
