/* Help texts, the man page [man-pages(7)] and shell completion, all from command_table.
 *
 * Nothing about a command is written here, except about help and version themselves: what is printed
 * comes from the rows of the tables, so the four forms cannot disagree.
 */
#include "cli/help.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_API
#include "api/machine_api.h"
#endif

#define WIDTH      79 /* of help texts, in columns */
#define OPT_COLUMN 30 /* where an option's explanation begins */

static const char *const program_summary = "virtual machines in an ordinary process, and containers";
static const char *const program_about =
	"bothy runs x86-64 virtual machines on Linux. It needs neither root nor /dev/kvm: where the host "
	"offers no hardware virtualization, a software engine of its own executes the guest. "
	"bothy oci runs Linux containers.";

/* Prints text in lines of WIDTH columns that begin at column `indent`; the cursor is at column `at`. */
static void wrap(FILE *out, const char *text, unsigned indent, unsigned at)
{
	while (*text) {
		size_t len = strcspn(text, " \n");
		bool first = at <= indent;

		if (!first && at + 1 + len > WIDTH) {
			fputc('\n', out);
			at = 0;
			first = true;
		}
		if (first && at < indent) {
			fprintf(out, "%*s", (int)(indent - at), "");
			at = indent;
		}
		if (!first) {
			fputc(' ', out);
			at++;
		}
		fwrite(text, 1, len, out);
		at += (unsigned)len;
		text += len;
		if (!strncmp(text, "\n\n", 2)) {
			fputs("\n\n", out);
			at = 0;
		}
		text += strspn(text, " \n");
	}
	fputc('\n', out);
}

/* "--name VALUE" as it is typed, with "-x, " in front where it has a letter. */
static int opt_form(const struct opt *o, char *buf, size_t len)
{
	char letter[8] = "";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	if (o->kind == OPT_FLAG)
		return snprintf(buf, len, "%s--%s", letter, o->name);
	if (o->optional)
		return snprintf(buf, len, "%s--%s[=%s]", letter, o->name, o->arg);
	return snprintf(buf, len, "%s--%s %s%s", letter, o->name, o->arg, o->kind == OPT_LIST ? " ..." : "");
}

/* Help, choices, default and what else there is to say as one paragraph. */
static void opt_text(const struct opt *o, char *buf, size_t len)
{
	size_t n = (size_t)snprintf(buf, len, "%s", o->help);
	bool explained = false;

	for (unsigned i = 0; o->choice && n < len; i++) {
		const char *help = NULL;
		const char *c = o->choice(i, &help);

		if (!c)
			break;
		explained |= help != NULL;
		n += (size_t)snprintf(buf + n, len - n, "%s%s%s%s",
				      i ? (explained ? "; " : ", ") : " One of: ", c, help ? " - " : "",
				      help ? help : "");
	}
	if (o->choice && n < len)
		n += (size_t)snprintf(buf + n, len - n, ".");
	if (o->default_text && n < len)
		n += (size_t)snprintf(buf + n, len - n, " Default: %s.", o->default_text);
	if (o->more && n < len)
		snprintf(buf + n, len - n, " %s", o->more);
}

static void print_pairs(FILE *out, const char *lines)
{
	while (*lines) {
		size_t key = strcspn(lines, "\t");
		size_t len = strcspn(lines + key + 1, "\n");
		char text[512];

		snprintf(text, sizeof(text), "%.*s", (int)len, lines + key + 1);
		fprintf(out, "  %-14.*s", (int)key, lines);
		wrap(out, text, 16, 16);
		lines += key + 1 + len;
		lines += strspn(lines, "\n");
	}
}

/* The last word of a name: "create" of "oci create". */
static const char *sub_name(const struct command *command)
{
	const char *space = strrchr(command->name, ' ');

	return space ? space + 1 : command->name;
}

static void print_program(FILE *out)
{
	fprintf(out, "bothy - %s\n\nUsage: bothy COMMAND [OPTIONS]\n\nCommands:\n", program_summary);
	for (unsigned i = 0; command_table[i]; i++)
		fprintf(out, "  %-12s%s\n", command_table[i]->name, command_table[i]->summary);
	fputs("\n'bothy help COMMAND' explains one of them.\n", out);
}

void help_print(const struct command *command, FILE *out)
{
	if (!command) {
		print_program(out);
		return;
	}
	fprintf(out, "bothy %s - %s\n\nUsage: bothy %s %s\n", command->name, command->summary, command->name,
		command->synopsis);
	if (command->about) {
		fputc('\n', out);
		wrap(out, command->about, 0, 0);
	}
	if (command->sub)
		fputs("\nCommands:\n", out);
	for (unsigned i = 0; command->sub && command->sub[i]; i++)
		fprintf(out, "  %-12s%s\n", sub_name(command->sub[i]), command->sub[i]->summary);
	if (command->opts)
		fputs("\nOptions (--name VALUE or --name=VALUE):\n", out);
	for (const struct opt *o = command->opts; o && o->name; o++) {
		char form[128], text[2048];
		int n = opt_form(o, form, sizeof(form));

		opt_text(o, text, sizeof(text));
		fprintf(out, "  %s", form);
		if (n + 3 >= OPT_COLUMN) {
			fputc('\n', out);
			wrap(out, text, OPT_COLUMN, 0);
		} else {
			wrap(out, text, OPT_COLUMN, (unsigned)n + 2);
		}
	}
	if (command->keys) {
		fputs("\nKeys, on a terminal:\n", out);
		print_pairs(out, command->keys);
	}
	if (command->status) {
		fputs("\nExit status:\n", out);
		print_pairs(out, command->status);
	}
	if (command->example)
		fprintf(out, "\nExamples:\n%s", command->example);
}

/* Text for troff: what it would take as a request, an escape or a hyphen is protected. */
static void roff(FILE *out, const char *text, size_t len)
{
	bool line_start = true;

	for (size_t i = 0; i < len; i++) {
		if (line_start && (text[i] == '.' || text[i] == '\''))
			fputs("\\&", out);
		if (text[i] == '\\')
			fputs("\\e", out);
		else if (text[i] == '-')
			fputs("\\-", out);
		else
			fputc(text[i], out);
		line_start = text[i] == '\n';
	}
}

static void roff_paragraphs(FILE *out, const char *text)
{
	while (*text) {
		const char *end = strstr(text, "\n\n");
		size_t len = end ? (size_t)(end - text) : strlen(text);

		fputs(".PP\n", out);
		roff(out, text, len);
		fputc('\n', out);
		text += len + (end ? 2 : 0);
	}
}

static void roff_pairs(FILE *out, const char *title, const char *lines)
{
	fprintf(out, ".SS %s\n", title);
	while (*lines) {
		size_t key = strcspn(lines, "\t");
		size_t len = strcspn(lines + key + 1, "\n");

		fputs(".TP\n.B ", out);
		roff(out, lines, key);
		fputc('\n', out);
		roff(out, lines + key + 1, len);
		fputc('\n', out);
		lines += key + 1 + len;
		lines += strspn(lines, "\n");
	}
}

static void man_command(FILE *out, const struct command *command)
{
	fprintf(out, ".SH \"BOTHY %s\"\n.B bothy %s\n", command->name, command->name);
	roff(out, command->synopsis, strlen(command->synopsis));
	fputs("\n", out);
	if (command->about)
		roff_paragraphs(out, command->about);
	if (command->opts)
		fputs(".SS Options\n", out);
	for (const struct opt *o = command->opts; o && o->name; o++) {
		char form[128], text[2048];

		opt_form(o, form, sizeof(form));
		opt_text(o, text, sizeof(text));
		fputs(".TP\n.B ", out);
		roff(out, form, strlen(form));
		fputc('\n', out);
		roff(out, text, strlen(text));
		fputc('\n', out);
	}
	if (command->keys)
		roff_pairs(out, "Keys", command->keys);
	if (command->status)
		roff_pairs(out, "Exit status", command->status);
	if (command->example) {
		fputs(".SS Examples\n.nf\n", out);
		roff(out, command->example, strlen(command->example));
		fputs(".fi\n", out);
	}
	for (unsigned i = 0; command->sub && command->sub[i]; i++)
		man_command(out, command->sub[i]);
}

static void man_print(FILE *out)
{
	fprintf(out,
		".TH BOTHY 1 \"\" \"bothy %s\" \"User Commands\"\n.SH NAME\nbothy \\- %s\n.SH SYNOPSIS\n",
		BOTHY_VERSION, program_summary);
	for (unsigned i = 0; command_table[i]; i++) {
		fprintf(out, "%s.B bothy %s\n", i ? ".br\n" : "", command_table[i]->name);
		roff(out, command_table[i]->synopsis, strlen(command_table[i]->synopsis));
		fputc('\n', out);
	}
	fputs(".SH DESCRIPTION\n", out);
	roff_paragraphs(out, program_about);
	for (unsigned i = 0; command_table[i]; i++)
		man_command(out, command_table[i]);
}

/* The fixed values of an option, separated by spaces. */
static void print_choices(FILE *out, const struct opt *o)
{
	for (unsigned i = 0; o->choice; i++) {
		const char *help = NULL;
		const char *c = o->choice(i, &help);

		if (!c)
			break;
		fprintf(out, "%s%s", i ? " " : "", c);
	}
}

/* What may follow each option of a command. */
static void bash_values(FILE *out, const struct command *c)
{
	for (const struct opt *o = c->opts; o && o->name; o++) {
		if (o->kind == OPT_FLAG || o->optional)
			continue;
		fprintf(out, "\t\"%s\":--%s) ", c->name, o->name);
		if (o->is_file) {
			fputs("compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\"))", out);
		} else if (o->choice) {
			fputs("COMPREPLY=($(compgen -W \"", out);
			print_choices(out, o);
			fputs("\" -- \"$cur\"))", out);
		} else {
			fputs(":", out);
		}
		fputs("; return ;;\n", out);
	}
}

/* The machines that run: expanded by both shells when they complete, in bash within double quotes, in zsh by _arguments. */
#define LIST_MACHINES "$(bothy ps 2>/dev/null | sed \"1d; s/ .*//\")"

/* The words of a command: its options, and the commands below it. */
static void bash_words(FILE *out, const struct command *c)
{
	fprintf(out, "\t\"%s\") COMPREPLY=($(compgen -W \"", c->name);
	for (unsigned k = 0; c == &help_command && command_table[k]; k++)
		fprintf(out, "%s ", command_table[k]->name);
	for (unsigned k = 0; c->sub && c->sub[k]; k++)
		fprintf(out, "%s ", sub_name(c->sub[k]));
	for (const struct opt *o = c->opts; o && o->name; o++)
		fprintf(out, "--%s ", o->name);
	if (c->takes_machine)
		fputs(LIST_MACHINES " ", out);
	fputs("--help\" -- \"$cur\")) ;;\n", out);
}

static void complete_bash(FILE *out)
{
	fputs("# bash completion for bothy\n"
	      "_bothy()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} word\n"
	      "\tCOMPREPLY=()\n"
	      "\tif ((COMP_CWORD == 1)); then\n\t\tCOMPREPLY=($(compgen -W \"",
	      out);
	for (unsigned i = 0; command_table[i]; i++)
		fprintf(out, "%s ", command_table[i]->name);
	/* A command of a command: its name, wherever it stands. */
	fputs("--help --version\" -- \"$cur\"))\n\t\treturn\n\tfi\n"
	      "\tfor word in \"${COMP_WORDS[@]:2:COMP_CWORD-2}\"; do\n\t\tcase $command:$word in\n",
	      out);
	for (unsigned i = 0; command_table[i]; i++)
		for (unsigned k = 0; command_table[i]->sub && command_table[i]->sub[k]; k++)
			fprintf(out, "\t\t%s:%s) command+=\" $word\" ;;\n", command_table[i]->name,
				sub_name(command_table[i]->sub[k]));
	fputs("\t\tesac\n\tdone\n\tcase $command:$prev in\n", out);
	for (unsigned i = 0; command_table[i]; i++) {
		bash_values(out, command_table[i]);
		for (unsigned k = 0; command_table[i]->sub && command_table[i]->sub[k]; k++)
			bash_values(out, command_table[i]->sub[k]);
	}
	fputs("\tesac\n\tcase $command in\n", out);
	for (unsigned i = 0; command_table[i]; i++) {
		bash_words(out, command_table[i]);
		for (unsigned k = 0; command_table[i]->sub && command_table[i]->sub[k]; k++)
			bash_words(out, command_table[i]->sub[k]);
	}
	fputs("\tesac\n}\ncomplete -F _bothy bothy\n", out);
}

/* Text inside '...[...]' of _arguments: quotes, brackets and colons would end it. */
static void zsh_text(FILE *out, const char *text)
{
	for (; *text && *text != '.'; text++) {
		if (strchr("'[]:\\", *text))
			fputc(' ', out);
		else
			fputc(*text, out);
	}
}

static void zsh_arguments(FILE *out, const struct command *c)
{
	fputs("\t_arguments '--help[explain the command]'", out);
	for (const struct opt *o = c->opts; o && o->name; o++) {
		fprintf(out, " \\\n\t\t'%s--%s%s[", o->kind == OPT_LIST ? "*" : "", o->name,
			o->kind == OPT_FLAG ? ""
			: o->optional       ? "=-"
					    : "=");
		zsh_text(out, o->help);
		fputs("]", out);
		if (o->kind != OPT_FLAG)
			fprintf(out, ":%s%s:", o->optional ? ":" : "", o->arg);
		if (o->is_file) {
			fputs("_files", out);
		} else if (o->choice) {
			fputs("(", out);
			print_choices(out, o);
			fputs(")", out);
		}
		fputs("'", out);
	}
}

static void complete_zsh(FILE *out)
{
	fputs("#compdef bothy\nlocal -a commands=(\n", out);
	for (unsigned i = 0; command_table[i]; i++) {
		fprintf(out, "\t'%s:", command_table[i]->name);
		zsh_text(out, command_table[i]->summary);
		fputs("'\n", out);
	}
	fputs(")\nif ((CURRENT == 2)); then\n\t_describe command commands\n\treturn\nfi\n"
	      "local command=$words[2]\nshift words\n((CURRENT--))\ncase $command in\n",
	      out);
	for (unsigned i = 0; command_table[i]; i++) {
		const struct command *c = command_table[i];

		fprintf(out, "%s)\n", c->name);
		if (c->sub)
			fputs("\tcase $words[2] in\n", out);
		for (unsigned k = 0; c->sub && c->sub[k]; k++) {
			fprintf(out, "\t%s)\n\tshift words\n\t((CURRENT--))\n", sub_name(c->sub[k]));
			zsh_arguments(out, c->sub[k]);
			fputs("\n\treturn\n\t;;\n", out);
		}
		if (c->sub)
			fputs("\tesac\n", out);
		zsh_arguments(out, c);
		if (c->takes_machine)
			fputs(" \\\n\t\t'1:machine:(" LIST_MACHINES ")'", out);
		if (c == &help_command)
			fputs(" \\\n\t\t'1:command:{_describe command commands}'", out);
		if (c->sub)
			fputs(" \\\n\t\t'1:command:(", out);
		for (unsigned k = 0; c->sub && c->sub[k]; k++)
			fprintf(out, "%s ", sub_name(c->sub[k]));
		fputs(c->sub ? ")'\n\t;;\n" : "\n\t;;\n", out);
	}
	fputs("esac\n", out);
}

struct help_options {
	bool man, openapi;
	const char *completion;
};

static const char *shell_choice(unsigned i, const char **ret_help)
{
	static const char *const shells[] = { "bash", "zsh" };

	return i < ARRAY_SIZE(shells) ? shells[i] : NULL;
}

static const struct opt help_opts[] = {
	{
		.name = "man",
		.kind = OPT_FLAG,
		.help = "Print the manual page, as troff source.",
		.offset = offsetof(struct help_options, man),
	},
	{
		.name = "completion",
		.kind = OPT_STRING,
		.arg = "SHELL",
		.help = "Print the completion script of a shell.",
		.choice = shell_choice,
		.offset = offsetof(struct help_options, completion),
	},
	{
		.name = "openapi",
		.kind = OPT_FLAG,
		.help = "Print the description of the machines' control socket, as an OpenAPI document.",
		.offset = offsetof(struct help_options, openapi),
	},
	{ .name = NULL },
};

static int print_openapi(struct err *err)
{
#if HAVE_API
	const struct api api = machine_api_of(NULL);
	json_t *document = NULL;
	char *text;
	int rc = api_describe(&api, NULL, &document, err);

	if (rc)
		return rc;
	text = api_text(document);
	json_decref(document);
	if (text)
		fputs(text, stdout);
	free(text);
	return 0;
#else
	return err_set(err, -ENOTSUP, "this bothy was built without libmicrohttpd or jansson");
#endif
}

static int run_help(const struct command *command, int argc, char **argv, struct err *err)
{
	struct help_options options = { 0 };
	int rc;

	if (argc >= 1 && argv[0][0] != '-') {
		const struct command *about = command_find(argv[0], err);

		if (about && argc > 1)
			return err_set(err, -EINVAL,
				       "help explains one command at a time; '%.64s' is one too many",
				       argv[1]);
		if (about)
			help_print(about, stdout);
		return 0;
	}
	if (argc >= 1 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
		help_print(command, stdout);
		return 0;
	}
	rc = opts_parse(help_opts, argc, argv, &options, err);
	if (rc)
		return rc;
	if (options.openapi)
		return print_openapi(err);
	if (options.man)
		man_print(stdout);
	else if (options.completion && !strcmp(options.completion, "bash"))
		complete_bash(stdout);
	else if (options.completion)
		complete_zsh(stdout);
	else
		help_print(NULL, stdout);
	return 0;
}

static int run_version(const struct command *command, int argc, char **argv, struct err *err)
{
	if (argc > 0)
		return err_set(err, -EINVAL, "version takes no argument, but was given '%.64s'", argv[0]);
	printf("bothy %s\n", BOTHY_VERSION);
	return 0;
}

const struct command help_command = {
	.name = "help",
	.summary = "explain a command",
	.synopsis = "[COMMAND | --man | --completion SHELL | --openapi]",
	.about = "Without an argument, lists the commands.",
	.example = "  bothy help --man | man -l -\n"
		   "  source <(bothy help --completion bash)\n",
	.opts = help_opts,
	.run = run_help,
};

const struct command help_version_command = {
	.name = "version",
	.summary = "print the version",
	.synopsis = "",
	.run = run_version,
};
