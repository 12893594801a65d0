/* Synthetic kernel images and a guest to load them into, for the tests and the fuzzer of the boot loaders. */
#pragma once

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "boot/boot.h"
#include "vm/ram.h"

#define GUEST_RSDP 0xe0000

struct guest {
	struct ram ram;
	struct boot_map map;
	struct boot_target target;
	struct boot_source source;
	struct x86_state state;
	struct err err;
};

/* size: 2 MiB to 3 GiB. */
static inline int guest_init(struct guest *g, u64 size)
{
	memset(g, 0, sizeof(*g));
	if (ram_init(&g->ram, size, &g->err) < 0)
		return -1;
	g->map = (struct boot_map){
		.nr = 4,
		.entry = { { 0, 0x9f000, BOOT_MAP_RAM },
			   { 0x9f000, 0x1000, BOOT_MAP_NVS },
			   { 0xe0000, 0x20000, BOOT_MAP_RESERVED },
			   { MiB, size - MiB, BOOT_MAP_RAM } },
	};
	g->target = (struct boot_target){ .ram = &g->ram,
					  .map = &g->map,
					  .rsdp = GUEST_RSDP,
					  .long_mode = true,
					  .signature = 0x50654,
					  .vga = true };
	g->source.append = "console=ttyS0";
	return 0;
}

static inline void guest_fini(struct guest *g)
{
	ram_fini(&g->ram);
}

static inline struct boot_file guest_file(const char *path, const void *data, size_t len)
{
	return (struct boot_file){ .path = path, .data = data, .len = len };
}

static inline int guest_load(struct guest *g, const void *kernel, size_t len)
{
	g->source.kernel = guest_file("kernel", kernel, len);
	memset(&g->err, 0, sizeof(g->err));
	return boot_load(&g->source, &g->target, &g->state, &g->err);
}

/* A bzImage of protocol 2.15 with 4 setup sectors and `size` bytes (a multiple of 16) of kernel that count
 * up. */
#define BZ_SETUP (5 * 512)
#define BZ_PREF  0x1000000
#define BZ_INIT  0x200000
static inline size_t make_bzimage(u8 *buf, size_t size)
{
	memset(buf, 0, BZ_SETUP);
	for (size_t i = 0; i < size; i++)
		buf[BZ_SETUP + i] = (u8)(i * 7);
	buf[0x1f1] = 4;
	st32(buf + 0x1f4, (u32)(size / 16));
	st16(buf + 0x1fe, 0xaa55);
	buf[0x200] = 0xeb;
	buf[0x201] = 0x6a;
	memcpy(buf + 0x202, "HdrS", 4);
	st16(buf + 0x206, 0x20f);
	buf[0x211] = 1; /* loaded high */
	st32(buf + 0x214, MiB);
	st32(buf + 0x22c, 0x7fffffff);
	st32(buf + 0x230, 0x200000);
	buf[0x234] = 1; /* relocatable */
	buf[0x235] = 21;
	st16(buf + 0x236, 1); /* 64-bit entry */
	st32(buf + 0x238, 2047);
	st64(buf + 0x258, BZ_PREF);
	st32(buf + 0x260, BZ_INIT);
	return BZ_SETUP + size;
}

/* An ELF file with a code segment of 64 bytes (AAH) and 4 KiB of bss at paddr, whose virtual address lies
 * `shift` above, and a PVH note. The entry is 16 bytes into the segment, the PVH entry 32. */
#define ELF_CODE_OFFSET 0x200
#define ELF_NOTE_OFFSET 0x280
#define ELF_FILE_LEN    0x300
static inline size_t make_elf(u8 *buf, bool is64, u32 paddr, u64 shift)
{
	u8 *note = buf + ELF_NOTE_OFFSET;

	memset(buf, 0, ELF_FILE_LEN);
	memset(buf + ELF_CODE_OFFSET, 0xaa, 64);
	st32(note, 4);
	st32(note + 4, 8);
	st32(note + 8, 18);
	memcpy(note + 12, "Xen", 4);
	st64(note + 16, paddr + 32);
	if (is64) {
		Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
				  .e_type = ET_EXEC,
				  .e_machine = EM_X86_64,
				  .e_version = EV_CURRENT,
				  .e_entry = paddr + shift + 16,
				  .e_phoff = sizeof(eh),
				  .e_ehsize = sizeof(eh),
				  .e_phentsize = sizeof(Elf64_Phdr),
				  .e_phnum = 2 };
		Elf64_Phdr ph[2] = { { .p_type = PT_LOAD,
				       .p_flags = PF_R | PF_X,
				       .p_offset = ELF_CODE_OFFSET,
				       .p_vaddr = paddr + shift,
				       .p_paddr = paddr,
				       .p_filesz = 64,
				       .p_memsz = 4096 + 64,
				       .p_align = 16 },
				     { .p_type = PT_NOTE,
				       .p_offset = ELF_NOTE_OFFSET,
				       .p_filesz = 24,
				       .p_memsz = 24,
				       .p_align = 4 } };

		memcpy(buf, &eh, sizeof(eh));
		memcpy(buf + sizeof(eh), ph, sizeof(ph));
	} else {
		Elf32_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
				  .e_type = ET_EXEC,
				  .e_machine = EM_386,
				  .e_version = EV_CURRENT,
				  .e_entry = (u32)(paddr + shift + 16),
				  .e_phoff = sizeof(eh),
				  .e_ehsize = sizeof(eh),
				  .e_phentsize = sizeof(Elf32_Phdr),
				  .e_phnum = 2 };
		Elf32_Phdr ph[2] = { { .p_type = PT_LOAD,
				       .p_flags = PF_R | PF_X,
				       .p_offset = ELF_CODE_OFFSET,
				       .p_vaddr = (u32)(paddr + shift),
				       .p_paddr = paddr,
				       .p_filesz = 64,
				       .p_memsz = 4096 + 64,
				       .p_align = 16 },
				     { .p_type = PT_NOTE,
				       .p_offset = ELF_NOTE_OFFSET,
				       .p_filesz = 24,
				       .p_memsz = 24,
				       .p_align = 4 } };

		memcpy(buf, &eh, sizeof(eh));
		memcpy(buf + sizeof(eh), ph, sizeof(ph));
	}
	return ELF_FILE_LEN;
}

/* Puts a Multiboot header at offset (a multiple of 4). addr: NULL or header, load, load end, bss end,
 * entry. */
/* The fixed part of a Multiboot 2 header of len bytes, whose tags follow it. */
static inline void put_multiboot2(u8 *buf, u32 offset, u32 len)
{
	st32(buf + offset, 0xe85250d6);
	st32(buf + offset + 4, 0);
	st32(buf + offset + 8, len);
	st32(buf + offset + 12, 0 - 0xe85250d6 - len);
}

static inline void put_multiboot(u8 *buf, u32 offset, u32 flags, const u32 addr[5])
{
	st32(buf + offset, 0x1badb002);
	st32(buf + offset + 4, flags);
	st32(buf + offset + 8, (u32)(0 - 0x1badb002 - flags));
	for (unsigned i = 0; addr && i < 5; i++)
		st32(buf + offset + 12 + 4 * i, addr[i]);
}
