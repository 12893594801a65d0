/* What a vCPU leaves guest execution with: one form, one dispatcher, one account, for both engines.
 *
 * Reasons are the SDM's basic exit reasons [SDM3 appendix C], and from EXIT_OWN on bothy's own. An engine fills a
 * struct vm_exit and calls exit_dispatch(), which lets the machine answer and books
 * count and time under the reason and, where there is one, the key (port, MMIO address,
 * MSR, vector, control register). What an engine finishes by itself (CPUID, a CR
 * write, a fault into the guest) it books with exit_account().
 */
#pragma once

#include <stdio.h>

#include "base/types.h"

struct vcpu;
struct vm;

/* X(NAME, number, "name", key) — key: what the key of an account means, or NULL. */
#define EXIT_REASONS(X)                                         \
	X(EXCEPTION, 0, "exception or NMI", "vector")           \
	X(EXTINT, 1, "external interrupt", "vector")            \
	X(TRIPLE_FAULT, 2, "triple fault", NULL)                \
	X(INIT, 3, "INIT signal", NULL)                         \
	X(SIPI, 4, "start-up IPI", NULL)                        \
	X(INTR_WINDOW, 7, "interrupt window", NULL)             \
	X(NMI_WINDOW, 8, "NMI window", NULL)                    \
	X(TASK_SWITCH, 9, "task switch", NULL)                  \
	X(CPUID, 10, "CPUID", "leaf")                           \
	X(HLT, 12, "HLT", NULL)                                 \
	X(INVLPG, 14, "INVLPG", NULL)                           \
	X(VMCALL, 18, "VMCALL", "call")                         \
	X(CR, 28, "control-register access", "register")        \
	X(DR, 29, "debug-register access", "register")          \
	X(IO, 30, "I/O instruction", "port")                    \
	X(RDMSR, 31, "RDMSR", "MSR")                            \
	X(WRMSR, 32, "WRMSR", "MSR")                            \
	X(MWAIT, 36, "MWAIT", NULL)                             \
	X(PAUSE, 40, "PAUSE", NULL)                             \
	X(EOI, 45, "virtualized EOI", "vector")                 \
	X(GDTR_IDTR, 46, "GDTR or IDTR access", NULL)           \
	X(LDTR_TR, 47, "LDTR or TR access", NULL)               \
	X(EPT_VIOLATION, 48, "EPT violation (MMIO)", "address") \
	X(EPT_MISCONFIG, 49, "EPT misconfiguration", "address") \
	X(WBINVD, 54, "WBINVD", NULL)                           \
	X(XSETBV, 55, "XSETBV", NULL)                           \
	X(INVPCID, 58, "INVPCID", NULL)                         \
	X(PML_FULL, 62, "page-modification log full", NULL)     \
	X(CARRIED, 79, "by the other engine", "RIP")

/* clang-format off */
enum exit_reason {
#define EXIT_ENUM_(NAME, number, name, key) EXIT_##NAME = number,
	EXIT_REASONS(EXIT_ENUM_)
#undef EXIT_ENUM_
	EXIT_NR = 80
};
/* clang-format on */

#define EXIT_OWN    79u
#define EXIT_NO_KEY (~0ull)

struct vm_exit {
	enum exit_reason reason;
	bool write; /* IO, EPT_VIOLATION: the guest writes */
	u8 size;    /* IO 1 2 4; EPT_VIOLATION 1 2 4 8 */
	bool fault; /* out, MSRs: the guest gets #GP */
	u64 addr;   /* port, guest-physical address, MSR number */
	u64 data;   /* in for writes, out for reads (zero-extended) */
	/* VMCALL: addr is the call's number, data what it returns. */
	u64 arg[4];
	bool is_long; /* made by 64-bit code */
};

struct exit_count {
	u64 count;
	u64 tsc; /* host TSC ticks spent */
};

struct exit_key_count {
	u16 reason;
	bool used;
	u64 key;
	struct exit_count n;
};

/* Buckets of a histogram of times: the first counts exits that were not timed, bucket b those below 2^b TSC ticks (and not in
 * an earlier one), the last all others too. */
#define EXIT_HIST 40

#define EXIT_MAX_KEYS 256 /* per vCPU; the rarest give way, and are booked under the reason alone */

/* One per vCPU; written by its thread only, read by any (a torn read is a slightly old figure). */
struct exit_stats {
	struct exit_count reason[EXIT_NR];
	u64 hist[EXIT_NR][EXIT_HIST];
	struct exit_key_count key[EXIT_MAX_KEYS]; /* open addressing */
	u64 keys_dropped;                         /* exits of the keys that gave way */
	u64 start_tsc, stop_tsc;                  /* of the vCPU's thread; stop 0 while it runs */
	u64 idle_tsc;                             /* waiting in HLT */
	u64 insns;                                /* guest instructions begun; 0: the engine cannot tell */
};

/* Answers the exit (VMCALL, IO, EPT_VIOLATION, RDMSR, WRMSR) and books it. On the vCPU's thread. */
void exit_dispatch(struct vcpu *vcpu, struct vm_exit *exit);

/* Books an exit that the engine handled, begun at host TSC t0 (0: count only). */
void exit_account(struct vcpu *vcpu, enum exit_reason reason, u64 key, u64 t0);

/* What the vCPU's engine has waited by itself (engine_ops.waited) stays in the account when that engine goes. */
void exit_keep_waits(struct vcpu *vcpu);

#define EXIT_ALL_VCPUS (-1)

/* The table, largest first, with the wall time in guest, exits and idle; of one vCPU, or of all added up. */
void exit_print(struct vm *vm, int vcpu, FILE *out);
void exit_print_json(struct vm *vm, int vcpu, FILE *out);

/* The sums without keys; times in nanoseconds. */
struct exit_sums {
	struct {
		u64 count, ns;
		u64 hist[EXIT_HIST];
	} reason[EXIT_NR];
	u64 hist_ns[EXIT_HIST]; /* where each bucket ends; of the first and the last it means nothing */
	u64 wall_ns, guest_ns, exits_ns, idle_ns, insns;
};
void exit_sum(struct vm *vm, int vcpu, struct exit_sums *ret_sums);

/* Each key of each reason, all vCPUs added up, by reason, then largest first. Any thread. */
void exit_each_key(struct vm *vm,
		   void (*fn)(void *opaque, enum exit_reason reason, const char *what, u64 key, u64 count,
			      u64 ns),
		   void *opaque);

const char *exit_name(enum exit_reason reason);
