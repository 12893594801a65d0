/* Guests that do one thing for ever, one per image (HOW): loop in real mode, write to ROM, flood a port. bothy has to stay as it
 * is, and to end when it is told to. 32-bit images. */
#include "hostile.h"

#if HOW == 0
/* At 8000H: to real mode, and JMP to itself with a little work. */
static const u8 code[] = {
	0x0f, 0x20, 0xc0,             /* mov eax, cr0 */
	0x24, 0xfe,                   /* and al, FEH */
	0x0f, 0x22, 0xc0,             /* mov cr0, eax */
	0xea, 0x0d, 0x80, 0x00, 0x00, /* jmp 0:800DH */
	0x31, 0xdb,                   /* xor bx, bx */
	0x8e, 0xdb,                   /* mov ds, bx */
	0x40,                         /* inc ax */
	0x89, 0x07,                   /* mov [bx], ax */
	0x83, 0xc3, 0x02,             /* add bx, 2 */
	0x81, 0xe3, 0xff, 0x0f,       /* and bx, FFFH */
	0xeb, 0xf4,                   /* jmp to the INC */
};
#endif

void guest_main(void)
{
	cli();
	check(true, "begin");
	ready();
#if HOW == 0
	memcpy_((void *)0x8000, code, sizeof(code));
	gdt[SEL_FREE / 8] = make_desc(0, 0xffff, 0x9b, 0);
	gdt[SEL_FREE / 8 + 1] = make_desc(0, 0xffff, 0x93, 0);
	__asm__ volatile("mov %w0, %%ds; mov %w0, %%es; mov %w0, %%ss; ljmp %1, $0x8000"
			 :
			 : "r"(SEL_FREE + 8), "i"(SEL_FREE));
#elif HOW == 1
	for (u32 n = 0;; n++)
		*(volatile u32 *)(ROM + (n * 4 & 0x1fffc)) = n;
#else
	for (u32 n = 0;; n++) {
		outb(0x80, (u8)n);
		outl(0x5000, n);
		outb(0x3f9, (u8)(n & 0xf));
		inb(0x3fa);
	}
#endif
}
