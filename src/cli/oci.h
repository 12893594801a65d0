/* bothy oci: the command line of an OCI runtime, which `bothy-oci` is as a whole. */
#pragma once

#include "cli/command.h"

extern const struct command oci_command;
