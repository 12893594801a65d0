/* The program: finds the command and runs it. An error is printed here, once, as one line on standard
 * error; its exit status is 1.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/oci.h"

static bool wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (command_is_help(argv[i]))
			return true;
	}
	return false;
}

/* One line whatever is in it: the sentence may quote what the user or a file gave. */
static void print_error(const struct err *err)
{
	fputs("bothy: ", stderr);
	for (const char *p = err->msg; *p; p++)
		fputc((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p, stderr);
	fputc('\n', stderr);
}

/* Called by that name, as other programs call an OCI runtime, the program is `bothy oci`. */
static bool is_oci_runtime(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	return argv0 && !strcmp(slash ? slash + 1 : argv0, "bothy-oci");
}

int main(int argc, char **argv)
{
	const struct command *command;
	struct err err = { 0 };
	int status;

	if (is_oci_runtime(argv[0])) {
		status = oci_command.run(&oci_command, argc - 1, argv + 1, &err);
		if (err.code)
			print_error(&err);
		return err.code && !status ? 1 : status;
	}
	if (argc < 2) {
		help_print(NULL, stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		command = &help_version_command;
	else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		command = &help_command;
	else if (argv[1][0] == '-')
		command = (err_set(&err, -EINVAL,
				   "unknown option '%.64s'; a command comes first, see bothy help", argv[1]),
			   NULL);
	else
		command = command_find(argv[1], &err);

	if (!command) {
		status = 1;
	} else if (command != &help_command && !command->sub && wants_help(argc - 2, argv + 2)) {
		help_print(command, stdout);
		status = 0;
	} else {
		status = command->run(command, argc - 2, argv + 2, &err);
	}
	if (err.code) {
		print_error(&err);
		status = 1;
	}
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "bothy: cannot write to standard output: %s\n", strerror(errno));
		return status ? status : 1;
	}
	return status;
}
