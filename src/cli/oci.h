/* bothy oci: the command line of an OCI runtime, which `bothy-oci` is as a whole. */
#pragma once

#include "cli/command.h"

extern const struct command oci_command;

/* A signal's number from a name, with or without SIG, such as TERM or RTMIN+3, or from a number. */
int oci_parse_signal(const char *text, int *ret_signal, struct err *err);
