/* Options in a file: one a line, NAME = VALUE, the name and the value as on the command line.
 *
 *	# Lines that begin with # are for people.
 *	cpus = 2
 *	disk = root.img,id=root
 *	disk = data.img
 *	no-reboot = on
 *	append = "console=ttyS0 x=\"a b\""
 *
 * An option that may be repeated has a line each time; a flag is on or off. A value in double quotes may begin or end with
 * spaces, and has \n, \t, \\, \" and \xHH for characters. Main thread.
 */
#pragma once

#include <stdio.h>

#include "cli/opts.h"

/* Reads path into target. *ret_text is what the values point into, for the caller to free(), also after a failure; seen[i] is set
 * for each row i of opts that it gives. The sentence names file and line. */
int opts_file_read(const struct opt *opts, const char *path, void *target, char **ret_text, bool *seen,
		   struct err *err);

/* The same from text of len bytes, which is changed and has room for a zero behind them. name is for sentences. */
int opts_file_parse(const struct opt *opts, const char *name, char *text, size_t len, void *target,
		    bool *seen, struct err *err);

/* Writes what target holds, so that reading it gives the same; what is not set is a comment with its default. */
void opts_file_print(const struct opt *opts, const void *target, FILE *out);
