/* What the commands about running machines share: NAME and options from the command line, the machine's answers, numbers as
 * people read them. Main thread. */
#pragma once

#include "cli/opts.h"

/* One NAME, with options of the table before or behind it. */
int vmname_parse(const struct opt *opts, int argc, char **argv, void *target, const char **ret_name,
		 struct err *err);

#define VMNAME_TEXT 32

/* A number of bytes or of other things with a letter behind it; an amount of time. Into buf, which is returned. */
const char *vmname_bytes(double n, char buf[VMNAME_TEXT]);
const char *vmname_count(double n, char buf[VMNAME_TEXT]);
const char *vmname_time(double seconds, char buf[VMNAME_TEXT]);

/* Waits for seconds, or less where a signal comes, or standard input has a key (NULL ret_key: it is not looked at; 0: none).
 * False: SIGINT, SIGTERM or SIGHUP has come since vmname_catch_signals(). */
bool vmname_wait(double seconds, int *ret_key);
void vmname_catch_signals(void);

#if HAVE_API
#include <jansson.h>

/* Finds the machine and makes one request; see client_call(). */
int vmname_call(const char *name, const char *verb, const char *path, const json_t *body, json_t **ret_result,
		struct err *err);

/* A member of an object: a number (0 where there is none), a text ("?"). */
double vmname_number(const json_t *object, const char *member);
const char *vmname_string(const json_t *object, const char *member);

/* On standard output, as the control socket gives it. */
void vmname_print_json(const json_t *value);
#else
/* The sentence of commands that need the control socket. */
int vmname_unsupported(struct err *err);
#endif
