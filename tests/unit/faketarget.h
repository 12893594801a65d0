/* Something for a debugger's session (gdb/session.h) to debug: three processors, a little memory, and checks of how it is asked. */
#pragma once

#include "gdb/session.h"

#define FAKE_CPUS   3u
#define FAKE_BASE   0x1000ull
#define FAKE_MEMORY 0x3000u

struct fake_target {
	struct session session;
	struct gdb_cpu cpu[FAKE_CPUS];
	u8 memory[FAKE_MEMORY]; /* at FAKE_BASE */
	bool running, killed;
	enum debug_action action[FAKE_CPUS];
	unsigned resumes, halts, points; /* how often */
	int last_kind;
	gva_t last_addr;
	u64 last_len;
	char line[256]; /* of the last monitor command */
};

void fake_target_init(struct fake_target *f, unsigned bits);
void fake_target_fini(struct fake_target *f);
/* A stop of what runs, as a machine would tell it. */
void fake_target_stop(struct fake_target *f, unsigned cpu, enum debug_why why, gva_t addr);
