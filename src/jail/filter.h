/* Filters of system calls [seccomp(2)], from rules as runtime-spec states them, by libseccomp. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct filter_arg {
	u32 index;      /* 0..5 */
	const char *op; /* SCMP_CMP_... */
	u64 value, value_two;
};

struct filter_rule {
	const char **names;
	unsigned name_count;
	const char *action; /* SCMP_ACT_... */
	bool has_errno;
	u32 errno_ret;
	struct filter_arg *args;
	unsigned arg_count;
};

struct filter_spec {
	const char *default_action;
	bool has_default_errno;
	u32 default_errno;
	const char **architectures;
	unsigned architecture_count;
	const char **flags; /* SECCOMP_FILTER_FLAG_... */
	unsigned flag_count;
	struct filter_rule *rules;
	unsigned rule_count;
	const char *listener_path; /* of a unix socket, for SCMP_ACT_NOTIFY; NULL: none */
	const char *listener_metadata;
};

/* A program for the kernel; malloc()ed. */
struct filter {
	void *code;
	size_t size; /* in bytes; 8 each instruction */
	u32 flags;   /* for seccomp(2) */
	bool notify; /* some rule asks a listener */
};

/* The i-th name that is known, NULL past the end. */
const char *filter_action_name(unsigned i);
const char *filter_operator_name(unsigned i);
const char *filter_arch_name(unsigned i);
const char *filter_flag_name(unsigned i);

/* Whether this build has libseccomp. */
bool filter_available(void);

/* Names are checked; a system call that libseccomp does not know is left to the default action, as runtime-spec wants. */
int filter_compile(const struct filter_spec *spec, struct filter *ret_filter, struct err *err);

/* The calling process has the filter from now on. ret_listener: a descriptor for notifications, -1 where `notify` is not set. */
int filter_load(const struct filter *filter, int *ret_listener, struct err *err);
