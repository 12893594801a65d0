/* A firmware of our own, run from the reset vector: what a chip set owes its firmware.
 *
 * - the state after reset, the ROM at 4 GiB and its copy below 1 MiB;
 * - shadow RAM [Q35 5.1.19]: each of the four states, with data and with code, changed by ports and by ECAM, seen by the next
 *   instruction and by another processor;
 * - PCIEXBAR moves; fw_cfg by ports and by DMA; port 92H;
 * - flash: commands, code in it that changes.
 *
 * Loops repeat what is checked until it is translated. Two processors.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define ECAM     0xe0000000u
#define PAM0     0x90
#define PAM_ROM  0x00
#define PAM_COPY 0x20 /* reads ROM, writes RAM */
#define PAM_LOCK 0x10 /* reads RAM, writes nothing */
#define PAM_RAM  0x30
#define PLACE    0xf8000u /* where .fixed of the ROM is seen */
#define FLASH    0xfffd0000u
#define TRIES    200

struct shared {
	volatile u32 value, ap_alive, ap_stop;
	u32 failed, dma[4];
	u8 buf[64];
};
#define G ((struct shared *)0x20000)

extern const u8 start_ap[];
typedef u32 (*function)(void);

static void out8(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static void out16(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static void out32(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static u8 in8(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static u64 tsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

static u8 get8(u64 a)
{
	return *(volatile u8 *)a;
}
static u32 get32(u64 a)
{
	return *(volatile u32 *)a;
}
static void put8(u64 a, u8 v)
{
	*(volatile u8 *)a = v;
}
static void put32(u64 a, u32 v)
{
	*(volatile u32 *)a = v;
}

static void say(const char *s)
{
	while (*s)
		out8(0x3f8, (u8)*s++);
}

static void check(const char *what, int good)
{
	say(good ? "PASS " : "FAIL ");
	say(what);
	say("\n");
	G->failed += !good;
}

static void pam(u8 v)
{
	out32(0xcf8, 0x80000000u | PAM0);
	out8(0xcfc, v);
}

/* mov $v, %eax; ret */
static void put_function(u64 at, u32 v)
{
	put8(at, 0xb8);
	put8(at + 1, (u8)v);
	put8(at + 2, 0);
	put8(at + 3, 0);
	put8(at + 4, 0);
	put8(at + 5, 0xc3);
}

static u32 call(u64 at)
{
	return ((function)at)();
}

static int same(u64 a, u64 b, u32 len)
{
	for (u32 i = 0; i < len; i += 4)
		if (get32(a + i) != get32(b + i))
			return 0;
	return 1;
}

static void rom_is_seen(u32 eax_at_reset)
{
	check("EAX is 0 after reset", eax_at_reset == 0);
	check("the last 64 KiB at F0000", same(0xf0000, 0xffff0000, 0x10000));
	check("the 64 KiB before at E0000", same(0xe0000, 0xfffe0000, 0x10000));
	check("nothing at C0000", get32(0xc0000) == ~0u && get32(0xdfffc) == ~0u);
	put32(0xf0000, 0x12345678);
	put32(0xffff0000, 0x12345678);
	put32(0xc0000, 0x12345678);
	check("stores change no ROM",
	      get32(0xf0000) != 0x12345678 && get32(0xffff0000) != 0x12345678 && get32(0xc0000) == ~0u);
}

static void shadow_states(void)
{
	u32 rom = get32(PLACE + 0x100), good = 0;

	pam(PAM_RAM);
	put32(PLACE + 0x100, 0x11111111);
	check("RAM is read and written", get32(PLACE + 0x100) == 0x11111111);
	pam(PAM_LOCK);
	put32(PLACE + 0x100, 0x22222222);
	check("RAM is read only", get32(PLACE + 0x100) == 0x11111111);
	pam(PAM_COPY);
	put32(PLACE + 0x100, 0x33333333);
	check("ROM is read, RAM is written", get32(PLACE + 0x100) == rom);
	pam(PAM_ROM);
	put32(PLACE + 0x100, 0x44444444);
	check("ROM is read only", get32(PLACE + 0x100) == rom);
	pam(PAM_RAM);
	check("what was written is there", get32(PLACE + 0x100) == 0x33333333);
	/* The classic way to copy: onto itself. */
	pam(PAM_COPY);
	for (u32 a = 0xf0000; a < 0x100000; a += 4)
		put32(a, get32(a));
	pam(PAM_RAM);
	check("a copy of the ROM", same(0xf0000, 0xffff0000, 0x10000));
	/* One field does not change another's segment. */
	out32(0xcf8, 0x80000000u | (PAM0 + 4));
	out8(0xcfc + 1, 0x03); /* 95H: E0000-E3FFF */
	put32(0xe0000, 0x55555555);
	put32(0xe4000, 0x55555555);
	check("segments by themselves", get32(0xe0000) == 0x55555555 && get32(0xe4000) == get32(0xfffe4000));
	out8(0xcfc + 1, 0);
	for (u32 i = 0; i < TRIES; i++) {
		pam(i & 1 ? PAM_RAM : PAM_ROM);
		put32(PLACE + 0x100, i);
		good += get32(PLACE + 0x100) == (i & 1 ? i : rom);
	}
	check("states by turns", good == TRIES);
}

/* The register is written by a store, and the very next instruction reads or writes there. */
static u32 ecam_then_read(u8 v)
{
	u32 got;

	__asm__ volatile("movb %1, (%2)\n\tmovl (%3), %0"
			 : "=&r"(got)
			 : "r"(v), "r"((u64)(ECAM + PAM0)), "r"((u64)(PLACE + 0x200))
			 : "memory");
	return got;
}

static void ecam_then_write(u8 v, u32 word)
{
	__asm__ volatile("movl (%3), %%eax\n\tmovb %0, (%1)\n\tmovl %2, (%3)"
			 :
			 : "r"(v), "r"((u64)(ECAM + PAM0)), "r"(word), "r"((u64)(PLACE + 0x200))
			 : "memory", "eax");
}

static void shadow_by_stores(void)
{
	u32 rom, good = 0;

	pam(PAM_ROM);
	rom = get32(PLACE + 0x200);
	for (u32 i = 0; i < TRIES; i++) {
		ecam_then_write(PAM_RAM, i);
		ecam_then_write(PAM_LOCK, ~i);
		good += ecam_then_read(PAM_ROM) == rom;
		good += ecam_then_read(PAM_RAM) == i;
	}
	check("a store takes effect on the next instruction", good == 2 * TRIES);
}

static void shadow_code(void)
{
	u32 good = 0;

	pam(PAM_RAM);
	put_function(PLACE, 1);
	for (u32 i = 0; i < TRIES; i++)
		good += call(PLACE) == 1;
	for (u32 i = 0; i < TRIES; i++) {
		pam(i & 1 ? PAM_RAM : PAM_ROM);
		for (u32 k = 0; k < 40; k++)
			good += call(PLACE) == (i & 1 ? 1 : 2);
		put8(ECAM + PAM0, i & 2 ? PAM_RAM : PAM_ROM);
		good += call(PLACE) == (i & 2 ? 1 : 2);
	}
	check("code changes with its memory", good == TRIES + 41 * TRIES);
	pam(PAM_RAM);
	put_function(PLACE, 3);
	good = call(PLACE) == 3;
	pam(PAM_COPY);
	put_function(PLACE, 4); /* beneath: what is executed is ROM */
	good += call(PLACE) == 2;
	pam(PAM_LOCK);
	put_function(PLACE, 5);
	for (u32 i = 0; i < TRIES; i++)
		good += call(PLACE) == 4;
	check("code written beneath ROM", good == 2 + TRIES);
}

void rom_ap_main(void)
{
	G->ap_alive = 1;
	while (!G->ap_stop)
		G->value = call(PLACE);
	G->ap_alive = 0;
	for (;;)
		__asm__ volatile("hlt");
}

static int wait_value(volatile u32 *p, u32 want)
{
	for (u64 end = tsc() + 20000000000ull; tsc() < end;)
		if (*p == want)
			return 1;
	return 0;
}

static void other_processor(void)
{
	u32 good = 0, offset = (u32)(u64)start_ap & 0xffff;

	pam(PAM_ROM);
	/* ljmp F000:start_ap */
	put8(0x8000, 0xea);
	put8(0x8001, (u8)offset);
	put8(0x8002, (u8)(offset >> 8));
	put8(0x8003, 0x00);
	put8(0x8004, 0xf0);
	put32(0xfee00300, 0x000c4500); /* INIT to all others */
	put32(0xfee00300, 0x000c4608); /* SIPI, page 8 */
	check("the other processor starts in ROM", wait_value(&G->ap_alive, 1));
	for (u32 i = 0; i < 30; i++) {
		pam(PAM_RAM);
		put_function(PLACE, 100 + i);
		good += wait_value(&G->value, 100 + i);
		pam(PAM_ROM);
		good += wait_value(&G->value, 2);
	}
	check("the other processor sees each change", good == 60);
	G->ap_stop = 1;
	check("the other processor stops", wait_value(&G->ap_alive, 0));
}

static void ecam_moves(void)
{
	out32(0xcf8, 0x80000060u);
	out32(0xcfc, 0xd0000001u);
	check("ECAM elsewhere", get32(0xd0000000) == 0x29c08086 && get32(ECAM) == ~0u);
	put32(0xd0000060, 0);
	check("ECAM nowhere", get32(0xd0000000) == ~0u && get32(ECAM) == ~0u);
	out32(0xcfc, ECAM | 1);
	check("ECAM back", get32(ECAM) == 0x29c08086 && get32(0xd0000000) == ~0u);
}

static u32 swap(u32 v)
{
	return __builtin_bswap32(v);
}

static void fw_cfg(void)
{
	u8 *b = G->buf;

	out16(0x510, 0);
	for (u32 i = 0; i < 5; i++)
		b[i] = in8(0x511);
	check("fw_cfg by ports", b[0] == 'Q' && b[1] == 'E' && b[2] == 'M' && b[3] == 'U' && b[4] == 0);
	G->dma[0] = swap(0x0019000a); /* select the directory, read */
	G->dma[1] = swap(4);
	G->dma[2] = 0;
	G->dma[3] = swap((u32)(u64)b);
	out32(0x514, 0);
	out32(0x518, swap((u32)(u64)G->dma));
	check("fw_cfg by DMA", G->dma[0] == 0 && b[0] == 0 && b[3] > 3);
	G->dma[0] = swap(2);
	G->dma[3] = swap(0xf0000); /* ROM */
	out32(0x518, swap((u32)(u64)G->dma));
	check("fw_cfg writes no ROM", G->dma[0] == swap(1) && get32(0xf0000) == get32(0xffff0000));
}

static void flash(void)
{
	u32 good = 0;

	put8(FLASH, 0x50);
	put8(FLASH, 0x70);
	check("flash has a status", get8(FLASH) == 0 && get8(FLASH + 5) == 0);
	put8(FLASH, 0x20);
	put8(FLASH + 0x1010, 0xd0);
	check("a block is erased", get8(FLASH) == 0x80);
	put8(FLASH, 0xff);
	check("an erased block is all ones", get32(FLASH + 0x1000) == ~0u && get32(FLASH + 0x1ffc) == ~0u);
	put8(FLASH + 0x1000, 0x10);
	put8(FLASH + 0x1000, 0xf5);
	put8(FLASH + 0x1000, 0x10);
	put8(FLASH + 0x1000, 0x5f);
	put8(FLASH + 0x1000, 0xff);
	check("programming clears bits", get8(FLASH + 0x1000) == 0x55);
	for (u32 i = 1; i <= TRIES; i++) {
		const u8 code[] = { 0xb8, (u8)i, 0, 0, 0, 0xc3 };

		put8(FLASH + 0x2000, 0x20);
		put8(FLASH + 0x2000, 0xd0);
		for (u32 k = 0; k < sizeof(code); k++) {
			put8(FLASH + 0x2000 + k, 0x40);
			put8(FLASH + 0x2000 + k, code[k]);
		}
		put8(FLASH, 0xff);
		for (u32 k = 0; k < 30; k++)
			good += call(FLASH + 0x2000) == (u8)i;
	}
	check("code in flash changes", good == 30 * TRIES);
	put8(FLASH, 0x98);
	check("the query", get8(FLASH + 0x10) == 'Q' && get8(FLASH + 0x27) == 16);
	put8(FLASH, 0xff);
}

void rom_main(u32 eax_at_reset)
{
	for (u32 i = 0; i < sizeof(struct shared); i += 4)
		put32((u64)G + i, 0);
	out8(0x3fb, 0x03);
	rom_is_seen(eax_at_reset);
	shadow_states();
	shadow_by_stores();
	shadow_code();
	other_processor();
	ecam_moves();
	fw_cfg();
	/* It is not to be closed here: this code lies in an odd megabyte. */
	check("A20 is open", in8(0x92) & 2);
	flash();
	out32(0xf4, G->failed ? 1 : 0);
	for (;;)
		__asm__ volatile("hlt");
}
