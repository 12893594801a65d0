/* Which engine runs the guest, and how.
 *
 * This version has one, the software engine. engine_select() is where another is added, the table of settings
 * where one is. Main thread.
 */
#include "vm/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Of text[0..len); false: not a value of this kind. */
static bool parse_bool(const char *text, size_t len, void *ret_field)
{
	bool on = len == 2 && !strncmp(text, "on", 2);

	if (!on && (len != 3 || strncmp(text, "off", 3)))
		return false;
	*(bool *)ret_field = on;
	return true;
}

static bool parse_u32(const char *text, size_t len, void *ret_field)
{
	u64 v = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (u64)(text[i] - '0');
		if (v > ~(u32)0)
			return false;
	}
	if (!len)
		return false;
	*(u32 *)ret_field = (u32)v;
	return true;
}

static const struct setting {
	const char *key;
	size_t offset; /* in struct engine_conf */
	bool (*parse)(const char *text, size_t len, void *ret_field);
	const char *values;
} settings[] = {
	{ "translate", offsetof(struct engine_conf, translate), parse_bool, "on or off" },
	{ "lockstep", offsetof(struct engine_conf, lockstep), parse_bool, "on or off" },
	{ "pic", offsetof(struct engine_conf, pic), parse_bool, "on or off" },
	{ "perf-map", offsetof(struct engine_conf, perf_map), parse_bool, "on or off" },
	{ "warm", offsetof(struct engine_conf, warm), parse_u32,
	  "a number of executions, or 0 for the engine's own choice" },
};

/* For a sentence: nobody reads more. */
static int shown(size_t len)
{
	return (int)MIN(len, (size_t)64);
}

/* One KEY=VALUE. */
static int parse_setting(const char *text, size_t len, struct engine_conf *conf, struct err *err)
{
	const char *equals = memchr(text, '=', len);
	size_t key_len = equals ? (size_t)(equals - text) : len;

	for (const struct setting *s = settings; s < settings + ARRAY_SIZE(settings); s++) {
		if (strlen(s->key) != key_len || strncmp(s->key, text, key_len))
			continue;
		if (!equals)
			return err_set(err, -EINVAL, "engine setting '%s' needs a value: %s", s->key,
				       s->values);
		if (!s->parse(equals + 1, len - key_len - 1, (char *)conf + s->offset))
			return err_set(err, -EINVAL, "engine setting '%s' cannot be '%.*s'; give %s", s->key,
				       shown(len - key_len - 1), equals + 1, s->values);
		return 0;
	}
	return err_set(
		err, -EINVAL,
		"unknown engine setting '%.*s'; the settings are translate, lockstep, pic and perf-map (=on or "
		"=off) and warm (=N)",
		shown(key_len), text);
}

static int unknown_engine(const char *name, size_t len, struct err *err)
{
	return err_set(err, -EINVAL, "unknown engine '%.*s'; the engines are auto, soft and kvm", shown(len),
		       name);
}

void engine_conf_init(struct engine_conf *ret_conf)
{
	*ret_conf = (struct engine_conf){ .translate = true };
}

int engine_conf_parse(const char *text, char *ret_name, size_t name_len, struct engine_conf *ret_conf,
		      struct err *err)
{
	struct engine_conf conf;
	size_t len = strcspn(text, ",");
	const char *at = text + len;

	if (len >= name_len)
		return unknown_engine(text, len, err);
	engine_conf_init(&conf);
	while (*at == ',') {
		size_t n = strcspn(++at, ",");
		int r = parse_setting(at, n, &conf, err);

		if (r < 0)
			return r;
		at += n;
	}
	memcpy(ret_name, text, len);
	ret_name[len] = 0;
	*ret_conf = conf;
	return 0;
}

static const char *engine_why_not_kvm(void)
{
	if (access("/dev/kvm", F_OK) < 0)
		return "this host has no /dev/kvm";
	return "this host has /dev/kvm, but the kvm engine is not part of this version of bothy";
}

const struct engine_ops *engine_select(const char *name, char *ret_why, size_t why_len, struct err *err)
{
	bool any = !strcmp(name, "auto");

	if (!strcmp(name, "kvm")) {
		err_set(err, -ENOTSUP,
			"the kvm engine is not part of this version of bothy; use --engine soft or --engine auto");
		return NULL;
	}
	if (!any && strcmp(name, soft_engine.name)) {
		unknown_engine(name, strlen(name), err);
		return NULL;
	}
	if (soft_engine.probe && soft_engine.probe(err)) {
		err_wrap(err, "the soft engine cannot run on this host");
		return NULL;
	}
	if (why_len)
		snprintf(ret_why, why_len, "%s%s", any ? "the soft engine runs: " : "",
			 any ? engine_why_not_kvm() : "");
	return &soft_engine;
}
