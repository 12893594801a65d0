/* Which engine runs the guest, and how.
 *
 * There are two, the software engine and KVM; engine_select() is where another is added, the table of settings where one
 * is. KVM is not always the faster one: some hosts (a virtual machine without nested virtualization, for one) offer a
 * /dev/kvm that interprets its guests. So "auto" times a small guest. Main thread.
 */
#include "vm/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

static bool parse_irqchip(const char *text, size_t len, void *ret_field)
{
	static const char *const names[] = {
		[IRQCHIP_AUTO] = "auto",
		[IRQCHIP_USER] = "user",
		[IRQCHIP_SPLIT] = "split",
		[IRQCHIP_FULL] = "full",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i]) == len && !strncmp(names[i], text, len)) {
			*(enum engine_irqchip *)ret_field = (enum engine_irqchip)i;
			return true;
		}
	return false;
}

static const struct setting {
	const struct engine_ops *engine; /* whose it is */
	const char *key;
	size_t offset; /* in struct engine_conf */
	bool (*parse)(const char *text, size_t len, void *ret_field);
	const char *values;
} settings[] = {
	{ &soft_engine, "translate", offsetof(struct engine_conf, translate), parse_bool, "on or off" },
	{ &soft_engine, "lockstep", offsetof(struct engine_conf, lockstep), parse_bool, "on or off" },
	{ &soft_engine, "pic", offsetof(struct engine_conf, pic), parse_bool, "on or off" },
	{ &soft_engine, "perf-map", offsetof(struct engine_conf, perf_map), parse_bool, "on or off" },
	{ &soft_engine, "cache", offsetof(struct engine_conf, cache), parse_u32,
	  "a number of MiB, or 0 for the engine's own choice" },
	{ &soft_engine, "warm", offsetof(struct engine_conf, warm), parse_u32,
	  "a number of executions, or 0 for the engine's own choice" },
	{ &kvm_engine, "ioeventfd", offsetof(struct engine_conf, ioeventfd), parse_bool, "on or off" },
	{ &kvm_engine, "irqfd", offsetof(struct engine_conf, irqfd), parse_bool, "on or off" },
	{ &kvm_engine, "irqchip", offsetof(struct engine_conf, irqchip), parse_irqchip,
	  "auto, user, split or full" },
	{ &kvm_engine, "nested", offsetof(struct engine_conf, nested), parse_bool, "on or off" },
};

/* For a sentence: nobody reads more. */
static int shown(size_t len)
{
	return (int)MIN(len, (size_t)64);
}

/* One KEY=VALUE. other: the engine that will not run; NULL: either may. */
static int parse_setting(const char *text, size_t len, const struct engine_ops *other,
			 struct engine_conf *conf, struct err *err)
{
	const char *equals = memchr(text, '=', len);
	size_t key_len = equals ? (size_t)(equals - text) : len;

	for (const struct setting *s = settings; s < settings + ARRAY_SIZE(settings); s++) {
		if (strlen(s->key) != key_len || strncmp(s->key, text, key_len))
			continue;
		if (other && s->engine == other)
			return err_set(err, -EINVAL, "engine setting '%s' is for the %s engine only", s->key,
				       s->engine->name);
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
		"=off), cache (=MiB) and warm (=N) of soft, and ioeventfd, irqfd and nested (=on or off), irqchip (=auto, user, split or full) of kvm",
		shown(key_len), text);
}

/* Is it the name of this one? */
static bool names(const char *text, size_t len, const struct engine_ops *engine)
{
	return len == strlen(engine->name) && !strncmp(text, engine->name, len);
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
	const struct engine_ops *other = names(text, len, &kvm_engine)    ? &soft_engine
					 : names(text, len, &soft_engine) ? &kvm_engine
									  : NULL;
	const char *at = text + len;

	if (len >= name_len)
		return unknown_engine(text, len, err);
	engine_conf_init(&conf);
	while (*at == ',') {
		size_t n = strcspn(++at, ",");
		int r = parse_setting(at, n, other, &conf, err);

		if (r < 0)
			return r;
		at += n;
	}
	memcpy(ret_name, text, len);
	ret_name[len] = 0;
	*ret_conf = conf;
	return 0;
}

int engine_conf_check(const struct engine_conf *conf, const struct engine_ops *engine, const char *why,
		      struct err *err)
{
	if (!conf->nested)
		return 0;
	if (engine->nested)
		return engine->nested(conf, err) ? 0 : -ENOTSUP;
	return err_set(
		err, -ENOTSUP,
		"nested=on cannot be had: the %s engine has neither SVM nor VMX for a guest; leave it out, or use "
		"--engine kvm,nested=on where the host's KVM has one of them%s%s%s",
		engine->name, *why ? " (" : "", why, *why ? ")" : "");
}

/* Does it run here? NULL with a sentence if not. */
static const struct engine_ops *probed(const struct engine_ops *engine, struct err *err)
{
	if (engine->probe && engine->probe(err)) {
		err_wrap(err, "the %s engine cannot run on this host", engine->name);
		return NULL;
	}
	return engine;
}

/* kvm, or NULL and why not. */
static const struct engine_ops *fast_kvm(char *ret_why, size_t why_len)
{
	struct err err = { 0 };
	u64 ps;

	if (kvm_engine.probe(&err) || kvm_engine.trial(&ps, &err)) {
		snprintf(ret_why, why_len, "the soft engine runs: %.900s", err.msg);
		return NULL;
	}
	snprintf(ret_why, why_len, "the %s engine runs: the host's KVM takes %llu.%02llu ns an instruction%s",
		 ps > ENGINE_SLOW_PS ? soft_engine.name : kvm_engine.name, (unsigned long long)ps / 1000,
		 (unsigned long long)ps % 1000 / 10,
		 ps > ENGINE_SLOW_PS ? ", so it is an emulator, and the slower one" : "");
	return ps > ENGINE_SLOW_PS ? NULL : &kvm_engine;
}

const struct engine_ops *engine_select(const char *name, char *ret_why, size_t why_len, struct err *err)
{
	const struct engine_ops *engine;
	char why[sizeof(((struct err *)0)->msg)] = "";

	if (!strcmp(name, kvm_engine.name)) {
		engine = probed(&kvm_engine, err);
	} else if (!strcmp(name, soft_engine.name)) {
		engine = probed(&soft_engine, err);
	} else if (!strcmp(name, "auto")) {
		engine = fast_kvm(why, sizeof(why));
		if (!engine)
			engine = probed(&soft_engine, err);
	} else {
		unknown_engine(name, strlen(name), err);
		return NULL;
	}
	if (engine && why_len)
		snprintf(ret_why, why_len, "%s", why);
	return engine;
}
