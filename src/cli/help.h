/* Everything that explains the commands, made from their tables: help texts, the man page,
 * completion for bash and zsh. Main thread only.
 */
#pragma once

#include <stdio.h>

#include "cli/command.h"

extern const struct command help_command;
extern const struct command help_version_command;

/* The help of one command; NULL: of the program. */
void help_print(const struct command *command, FILE *out);
