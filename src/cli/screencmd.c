/* bothy screen: what a machine's display adapter shows, as text or as a picture. */
#include "cli/screencmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/vmname.h"

struct screen_options {
	bool json;
	const char *png;
};

static const struct opt screen_opts[] = {
	{
		.name = "png",
		.kind = OPT_STRING,
		.arg = "FILE",
		.help = "Save a picture of the screen, of text too; - is standard output.",
		.is_file = true,
		.offset = offsetof(struct screen_options, png),
	},
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print what the machine says; with --png also the picture, in base64.",
		.offset = offsetof(struct screen_options, json),
	},
	{ .name = NULL },
};

#if HAVE_API

/* Text without its empty rows at the end. */
static int print_text(const char *name, const json_t *answer, struct err *err)
{
	const char *text = vmname_string(answer, "text");
	size_t len = strlen(text);

	if (!strcmp(vmname_string(answer, "kind"), "blank"))
		return err_set(
			err, -EINVAL,
			"the screen of '%s' is switched off: its guest has not set a mode, or saves power",
			name);
	if (strcmp(vmname_string(answer, "kind"), "text") != 0)
		return err_set(
			err, -EINVAL,
			"the screen of '%s' shows a picture of %.0f x %.0f pixels; save it with --png FILE",
			name, vmname_number(answer, "width"), vmname_number(answer, "height"));
	while (len >= 2 && text[len - 1] == '\n' && text[len - 2] == '\n')
		len--;
	fwrite(text, 1, len == 1 ? 0 : len, stdout);
	return 0;
}

static int value_of(char c)
{
	const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* [RFC 4648 4]; up to the first character that is no digit. */
static size_t from_base64(const char *text, u8 *ret_data)
{
	size_t len = 0;
	u32 bits = 0;
	unsigned have = 0;

	for (int v; (v = value_of(*text)) >= 0; text++) {
		bits = bits << 6 | (u32)v;
		have += 6;
		if (have >= 8) {
			have -= 8;
			ret_data[len++] = (u8)(bits >> have);
		}
	}
	return len;
}

static int save_picture(const json_t *answer, const char *path, struct err *err)
{
	const char *text = vmname_string(answer, "png");
	u8 *data = malloc(strlen(text) + 1);
	bool to_stdout = !strcmp(path, "-");
	size_t len;
	int fd, rc;

	if (!data)
		return err_set(err, -ENOMEM, "no memory for the picture");
	len = from_base64(text, data);
	fd = to_stdout ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0) {
		rc = err_sys(err, -errno, "--png: cannot write '%s'", path);
	} else {
		rc = os_write_all(fd, data, len);
		if (!to_stdout && close(fd) < 0 && !rc)
			rc = -errno;
		if (rc)
			rc = err_sys(err, rc, "--png: cannot write '%s'", path);
	}
	free(data);
	return rc;
}

static int run_screen(const struct command *command, int argc, char **argv, struct err *err)
{
	struct screen_options options = { 0 };
	const char *name = NULL;
	json_t *answer = NULL;
	int rc = vmname_parse(screen_opts, argc, argv, &options, &name, err);

	if (!rc)
		rc = vmname_call(name, "GET", options.png ? "/vm/screen?png=true" : "/vm/screen", NULL,
				 &answer, err);
	if (rc)
		return rc;
	if (options.png)
		rc = save_picture(answer, options.png, err);
	else if (!options.json)
		rc = print_text(name, answer, err);
	if (!rc && options.json)
		vmname_print_json(answer);
	json_decref(answer);
	return rc;
}

#else

static int run_screen(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

#endif

const struct command screencmd_command = {
	.name = "screen",
	.summary = "show what a machine's display adapter shows",
	.synopsis = "NAME [OPTIONS]",
	.about =
		"Prints the text of the screen. Where it shows a picture, or for the colours of text, --png saves one.",
	.example = "  bothy screen web\n  bothy screen web --png screen.png\n",
	.takes_machine = true,
	.opts = screen_opts,
	.run = run_screen,
};
