/* The commands of the program: one file and one row each. Main thread only. */
#pragma once

#include "cli/opts.h"

struct command {
	const char *name;
	const char *summary;    /* one line, lower case, no full stop */
	const char *synopsis;   /* what follows the name in the usage line */
	const char *about;      /* paragraphs, separated by "\n\n"; NULL: none */
	const char *status;     /* exit statuses, lines of "N\tmeaning\n"; NULL: 0 and 1 as usual */
	const char *keys;       /* keys, lines of "key\tmeaning\n"; NULL: none */
	const char *example;    /* lines of shell; NULL: none */
	const struct opt *opts; /* NULL: the command looks at argv itself */
	bool takes_machine;     /* an argument is the name of one that runs: completion offers them */
	/* Commands of this command, NULL-terminated; NULL: none. It finds and explains them itself. */
	const struct command *const *sub;
	/* argv after the command's name. The process's exit status; a failure is in err (err->code set)
	 * and is then printed by main() with status 1. */
	int (*run)(const struct command *command, int argc, char **argv, struct err *err);
};

/* All commands, NULL-terminated. */
extern const struct command *const command_table[];

/* Any command, or NULL with a sentence that names the valid ones. */
const struct command *command_find(const char *name, struct err *err);
/* The command `name` of a command that has some, or NULL with a sentence. */
const struct command *command_find_sub(const struct command *group, const char *name, struct err *err);
bool command_is_help(const char *word); /* --help or -h */
