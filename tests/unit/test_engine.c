/* The choice of an engine and its settings: what a user may write, and the sentence for what not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vm/engine.h"

static void test_engine_select(void **state)
{
	struct err err = { 0 };
	const struct engine_ops *engine;
	char why[256] = "x";

	assert_ptr_equal(engine_select("soft", why, sizeof(why), &err), &soft_engine);
	assert_string_equal(why, "");
	if (kvm_engine.probe(&err)) {
		assert_null(engine_select("kvm", why, sizeof(why), &err));
		assert_non_null(strstr(err.msg, "the kvm engine cannot run on this host: "));
		assert_ptr_equal(engine_select("auto", why, sizeof(why), &err), &soft_engine);
	} else {
		assert_ptr_equal(engine_select("kvm", why, sizeof(why), &err), &kvm_engine);
		assert_string_equal(why, "");
		/* The line says which. */
		engine = engine_select("auto", why, sizeof(why), &err);
		assert_non_null(engine);
		assert_non_null(strstr(why, engine == &soft_engine ? "the soft engine runs: "
								   : "the kvm engine runs: "));
	}
	assert_null(strchr(why, '\n'));
	assert_null(engine_select("tcg", why, sizeof(why), &err));
	assert_string_equal(err.msg, "unknown engine 'tcg'; the engines are auto, soft and kvm");
	assert_int_equal(err.code, -EINVAL);
	assert_null(engine_select("", NULL, 0, NULL));
	assert_non_null(engine_select("auto", NULL, 0, NULL));
}

static void test_defaults(void **state)
{
	struct engine_conf conf;

	memset(&conf, 0xff, sizeof(conf));
	engine_conf_init(&conf);
	assert_true(conf.translate);
	assert_false(conf.lockstep);
	assert_false(conf.perf_map);
	assert_int_equal(conf.warm, 0);
}

static void test_settings(void **state)
{
	static const struct {
		const char *text, *name;
		struct engine_conf conf;
	} rows[] = {
		{ "soft", "soft", { .translate = true } },
		{ "auto", "auto", { .translate = true } },
		{ "kvm", "kvm", { .translate = true } },
		{ "kvm,irqchip=split", "kvm", { .translate = true, .irqchip = IRQCHIP_SPLIT } },
		{ "kvm,irqchip=full", "kvm", { .translate = true, .irqchip = IRQCHIP_FULL } },
		{ "kvm,irqchip=split,irqchip=user", "kvm", { .translate = true, .irqchip = IRQCHIP_USER } },
		{ "auto,irqchip=user,warm=2",
		  "auto",
		  { .translate = true, .irqchip = IRQCHIP_USER, .warm = 2 } },
		{ "kvm,irqchip=auto", "kvm", { .translate = true } },
		{ "kvm,nested=on", "kvm", { .translate = true, .nested = true } },
		{ "auto,nested=on,nested=off", "auto", { .translate = true } },
		{ "kvm,ioeventfd=on", "kvm", { .translate = true, .ioeventfd = true } },
		{ "kvm,irqfd=on", "kvm", { .translate = true, .irqfd = true } },
		{ "auto,irqfd=on,ioeventfd=on,irqfd=off", "auto", { .translate = true, .ioeventfd = true } },
		{ "", "", { .translate = true } },
		{ "warp9", "warp9", { .translate = true } }, /* engine_select() knows better */
		{ "soft,translate=off", "soft", { .translate = false } },
		{ "auto,translate=on", "auto", { .translate = true } },
		{ "soft,warm=1,lockstep=on", "soft", { .translate = true, .lockstep = true, .warm = 1 } },
		{ "soft,lockstep=on,perf-map=on,pic=on,translate=off,warm=7",
		  "soft",
		  { .lockstep = true, .perf_map = true, .pic = true, .warm = 7 } },
		{ "soft,perf-map=off,lockstep=off,warm=0", "soft", { .translate = true } },
		{ "soft,cache=64", "soft", { .translate = true, .cache = 64 } },
		{ "soft,warm=4294967295", "soft", { .translate = true, .warm = 4294967295u } },
		{ "soft,warm=0000000000016", "soft", { .translate = true, .warm = 16 } },
		{ "soft,warm=9,translate=off,warm=3,translate=on", "soft", { .translate = true, .warm = 3 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct engine_conf conf;
		struct err err = { 0 };
		char name[6];

		memset(&conf, 0xff, sizeof(conf));
		if (engine_conf_parse(rows[i].text, name, sizeof(name), &conf, &err) != 0)
			fail_msg("'%s' gives '%s'", rows[i].text, err.msg);
		assert_string_equal(name, rows[i].name);
		if (conf.translate != rows[i].conf.translate || conf.lockstep != rows[i].conf.lockstep ||
		    conf.perf_map != rows[i].conf.perf_map || conf.pic != rows[i].conf.pic ||
		    conf.cache != rows[i].conf.cache || conf.warm != rows[i].conf.warm ||
		    conf.irqchip != rows[i].conf.irqchip || conf.ioeventfd != rows[i].conf.ioeventfd ||
		    conf.irqfd != rows[i].conf.irqfd || conf.nested != rows[i].conf.nested)
			fail_msg("'%s' gives %d %d %d %d %d %d %d %d %u %u", rows[i].text, conf.irqchip,
				 conf.ioeventfd, conf.irqfd, conf.nested, conf.translate, conf.lockstep,
				 conf.perf_map, conf.pic, conf.cache, conf.warm);
	}
}

static void test_refusals(void **state)
{
#define LIST                                                                                                                                    \
	"; the settings are translate, lockstep, pic and perf-map (=on or =off), cache (=MiB) and warm (=N) of soft, and ioeventfd, irqfd and " \
	"nested (=on or off), irqchip (=auto, user, split or full) of kvm"
#define NUMBER "; give a number of executions, or 0 for the engine's own choice"
	static const char *const rows[][2] = {
		{ "soft,", "unknown engine setting ''" LIST },
		{ "soft,,warm=1", "unknown engine setting ''" LIST },
		{ "soft,warm=1,", "unknown engine setting ''" LIST },
		{ "soft,=on", "unknown engine setting ''" LIST },
		{ "soft,turbo", "unknown engine setting 'turbo'" LIST },
		{ "soft,turbo=on", "unknown engine setting 'turbo'" LIST },
		{ "soft,tran=on", "unknown engine setting 'tran'" LIST },
		{ "soft,translated=on", "unknown engine setting 'translated'" LIST },
		{ "soft,perf_map=on", "unknown engine setting 'perf_map'" LIST },
		{ "soft, warm=1", "unknown engine setting ' warm'" LIST },
		{ "soft,translate", "engine setting 'translate' needs a value: on or off" },
		{ "soft,lockstep,warm=1", "engine setting 'lockstep' needs a value" },
		{ "soft,warm", "engine setting 'warm' needs a value: a number of executions" },
		{ "soft,translate=", "engine setting 'translate' cannot be ''; give on or off" },
		{ "soft,translate=yes", "engine setting 'translate' cannot be 'yes'; give on or off" },
		{ "soft,translate=o", "cannot be 'o'" },
		{ "soft,translate=of", "cannot be 'of'" },
		{ "soft,translate=onn", "cannot be 'onn'" },
		{ "soft,lockstep=ON,warm=1", "engine setting 'lockstep' cannot be 'ON'; give on or off" },
		{ "soft,perf-map=1", "engine setting 'perf-map' cannot be '1'; give on or off" },
		{ "soft,perf-map=on=off", "cannot be 'on=off'" },
		{ "soft,cache=big", "engine setting 'cache' cannot be 'big'; give a number of MiB, or 0" },
		{ "soft,warm=", "engine setting 'warm' cannot be ''" NUMBER },
		{ "soft,warm=on", "engine setting 'warm' cannot be 'on'" NUMBER },
		{ "soft,warm=-1", "cannot be '-1'" NUMBER },
		{ "soft,warm=1k", "cannot be '1k'" NUMBER },
		{ "soft,warm=0x10", "cannot be '0x10'" NUMBER },
		{ "soft,warm=4294967296", "cannot be '4294967296'" NUMBER },
		{ "soft,warm=18446744073709551617", "cannot be '18446744073709551617'" NUMBER },
		{ "kvm,warm=1", "engine setting 'warm' is for the soft engine only" },
		{ "soft,irqchip=user", "engine setting 'irqchip' is for the kvm engine only" },
		{ "soft,nested=on", "engine setting 'nested' is for the kvm engine only" },
		{ "kvm,nested=yes", "engine setting 'nested' cannot be 'yes'; give on or off" },
		{ "kvm,irqchip", "engine setting 'irqchip' needs a value: auto, user, split or full" },
		{ "kvm,irqchip=kernel",
		  "engine setting 'irqchip' cannot be 'kernel'; give auto, user, split or full" },
		{ "warpnine", "unknown engine 'warpnine'; the engines are auto, soft and kvm" },
		{ "warpnine,warm=1", "unknown engine 'warpnine'; the engines are" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct engine_conf conf = { .warm = 77 };
		struct err err = { 0 };
		char name[8] = "before";
		int r = engine_conf_parse(rows[i][0], name, sizeof(name), &conf, &err);

		assert_int_equal(r, -EINVAL);
		assert_int_equal(err.code, -EINVAL);
		if (!strstr(err.msg, rows[i][1]))
			fail_msg("'%s' gives '%s'", rows[i][0], err.msg);
		/* Outputs are not written on failure. */
		assert_string_equal(name, "before");
		assert_int_equal(conf.warm, 77);
		assert_false(conf.translate);
	}
}

/* What a guest would miss is refused before there is one. */
static void test_nested(void **state)
{
	struct engine_conf conf;
	struct err err = { 0 };
	const char *name;

	engine_conf_init(&conf);
	assert_int_equal(engine_conf_check(&conf, &soft_engine, "", &err), 0);
	assert_int_equal(engine_conf_check(&conf, &kvm_engine, "", &err), 0);
	conf.nested = true;
	assert_int_equal(engine_conf_check(&conf, &soft_engine, "for a reason", &err), -ENOTSUP);
	assert_string_equal(
		err.msg,
		"nested=on cannot be had: the soft engine has neither SVM nor VMX for a guest; leave it "
		"out, or use --engine kvm,nested=on where the host's KVM has one of them (for a reason)");
	name = kvm_engine.nested(&conf, &err);
	assert_int_equal(engine_conf_check(&conf, &kvm_engine, "", &err), name ? 0 : -ENOTSUP);
	if (!name)
		assert_non_null(strstr(err.msg, "this host's KVM has neither SVM nor VMX for a guest"));
	conf.irqchip = IRQCHIP_USER;
	assert_int_equal(engine_conf_check(&conf, &kvm_engine, "", &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "use it with irqchip=split or full"));
}

static void test_long_text(void **state)
{
	static const char *const begins[] = { "", "soft,", "soft,warm=", "soft,translate=on," };
	static char text[65536];

	for (size_t i = 0; i < ARRAY_SIZE(begins); i++) {
		struct engine_conf conf;
		struct err err = { 0 };
		char name[32];

		memset(text, 'x', sizeof(text) - 1);
		for (size_t k = 0; begins[i][k]; k++)
			text[k] = begins[i][k];
		assert_int_equal(engine_conf_parse(text, name, sizeof(name), &conf, &err), -EINVAL);
		assert_true(strlen(err.msg) < 300);
		assert_int_equal(engine_conf_parse(text, name, sizeof(name), &conf, NULL), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engine_select), cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_settings),      cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_nested),        cmocka_unit_test(test_long_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
