/* A conversation in the GDB remote serial protocol, about something that has processors and memory: all but the socket and the
 * machine. Main thread.
 *
 * All-stop: either everything runs and the client waits for a stop, or everything stands still and it asks.
 */
#pragma once

#include <stdio.h>

#include "gdb/gdbregs.h"
#include "gdb/packet.h"
#include "vm/debug.h"

enum session_point { POINT_SOFT, POINT_HARD, POINT_WRITE, POINT_READ, POINT_ACCESS }; /* as in Z0..Z4 */

/* What is debugged. cpu: 0 to nr_cpus() - 1. But for halt, kill, monitor and running, called only while it stands still. */
struct session_ops {
	unsigned (*nr_cpus)(void *opaque);
	const char *(*cpu_text)(void *opaque, unsigned cpu); /* a few words for a list of threads */
	bool (*running)(void *opaque);
	void (*halt)(void *opaque);
	/* action[cpu]. A stop is told later by session_stopped(). */
	void (*resume)(void *opaque, const enum debug_action *action);
	void (*get)(void *opaque, unsigned cpu, struct gdb_cpu *ret_cpu);
	int (*set)(void *opaque, unsigned cpu,
		   const struct gdb_cpu *state); /* 0, or -errno and nothing changed */
	/* Memory by linear address; how many bytes it was, from the first. */
	size_t (*read)(void *opaque, unsigned cpu, gva_t la, void *buf, size_t len);
	size_t (*write)(void *opaque, unsigned cpu, gva_t la, const void *buf, size_t len);
	int (*point)(void *opaque, bool add, enum session_point kind, gva_t addr, u64 len);
	/* Carries out a line that a person typed; writes the answer. */
	void (*monitor)(void *opaque, unsigned cpu, const char *line, FILE *out);
	void (*kill)(void *opaque);
};

struct session_stop {
	unsigned cpu;
	int signal; /* as GDB numbers them: 2 interrupt, 5 trap, 6 abort */
	enum debug_why why;
	enum debug_kind kind; /* AT_DATA */
	gva_t addr;
	bool hard; /* AT_CODE */
};

struct session {
	const struct session_ops *ops;
	void *opaque;
	struct gdb_regs regs;
	char *xml; /* of regs */
	struct packet_in in;
	struct packet_out out;
	struct session_stop last;
	unsigned cpu;           /* chosen for registers and memory */
	unsigned cpu_run;       /* chosen for s and c, SESSION_ALL: all */
	bool no_ack, engaged;   /* it has said something that is a command */
	bool swbreak, hwbreak;  /* it understands these words in a stop */
	bool closing;           /* end the connection when out is empty */
	bool detached;          /* by its own word */
	struct gdb_cpu scratch; /* too large for the stack */
};
#define SESSION_ALL (~0u)

/* bits: as gdbregs_init(). -ENOMEM. */
int session_init(struct session *s, const struct session_ops *ops, void *opaque, unsigned bits, bool avx,
		 bool avx512);
void session_fini(struct session *s);
/* Takes bytes from the client while nothing waits to be sent; returns how many. */
size_t session_input(struct session *s, const u8 *bytes, size_t len);
/* What runs has stopped. */
void session_stopped(struct session *s, const struct session_stop *stop);
/* It has ended: status of its process. */
void session_ended(struct session *s, int status);
