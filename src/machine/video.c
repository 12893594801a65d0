/* What firmware is to the display adapter.
 *
 * The VGA BIOS is SeaBIOS's, from the distribution. A machine without one has no option ROM, which only firmware misses: UEFI
 * and kernels that were loaded directly have drivers of their own.
 */
#include "machine/video.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "dev/vga.h"

static const char *const roms[] = {
	"/usr/share/seabios/vgabios-stdvga.bin",
	"/usr/share/qemu/vgabios-stdvga.bin",
};

void video_load_rom(struct pc *pc)
{
	for (unsigned i = 0; i < ARRAY_SIZE(roms); i++) {
		size_t len;
		u8 *rom;
		int fd;

		if (os_open_regular(roms[i], VGA_ROM_SIZE, &fd, &len, NULL) < 0)
			continue;
		rom = malloc(len);
		if (rom && os_pread_all(fd, roms[i], rom, len, 0, NULL) == 0) {
			pc->vga_rom = rom;
			pc->vga_rom_len = len;
		} else {
			free(rom);
		}
		close(fd);
		if (pc->vga_rom)
			return;
	}
}

void video_free_rom(struct pc *pc)
{
	free((void *)pc->vga_rom);
	pc->vga_rom = NULL;
}

void video_start(struct pc *pc, const struct boot_video *video)
{
	struct device *vga = vga_find(pc->vm);

	if (video->width)
		vga_set_frame_buffer(vga, PC_FRAME_BUFFER, video->width, video->height);
	else
		vga_set_text_mode(vga);
}
