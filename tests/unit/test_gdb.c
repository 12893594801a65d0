/* The GDB remote protocol: frames, registers, commands; and what a debugger sets (vm/debug.h). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "faketarget.h"

static struct fake_target target;

static int fresh(void **state)
{
	fake_target_init(&target, 64);
	return 0;
}

static int done(void **state)
{
	fake_target_fini(&target);
	return 0;
}

/* ---- frames ---- */

static enum packet_event feed(struct packet_in *in, const char *text)
{
	enum packet_event event = PACKET_NONE;
	size_t len = strlen(text), taken = 0;

	while (taken < len && event == PACKET_NONE)
		taken += packet_feed(in, (const u8 *)text + taken, len - taken, &event);
	assert_int_equal(taken, len);
	return event;
}

static void test_frames(void **state)
{
	static struct packet_in in;

	memset(&in, 0, sizeof(in));
	assert_int_equal(feed(&in, "$g#67"), PACKET_GOOD);
	assert_string_equal(in.data, "g");
	assert_int_equal(feed(&in, "$g#68"), PACKET_BAD);
	assert_int_equal(feed(&in, "$g#x7"), PACKET_BAD);
	assert_int_equal(feed(&in, "$g#6"), PACKET_NONE);
	assert_int_equal(feed(&in, "7"), PACKET_GOOD);
	assert_int_equal(feed(&in, "+"), PACKET_ACK);
	assert_int_equal(feed(&in, "-"), PACKET_NAK);
	assert_int_equal(feed(&in, "\3"), PACKET_BREAK);
	/* A frame that is not finished gives way to the next; $ in it is escaped. */
	assert_int_equal(feed(&in, "$m12$g#67"), PACKET_GOOD);
	assert_string_equal(in.data, "g");
	assert_int_equal(feed(&in, "$}\x04#81"), PACKET_GOOD);
	assert_string_equal(in.data, "$");
	assert_int_equal(feed(&in, "$#00"), PACKET_GOOD);
	assert_int_equal(in.len, 0);
	/* Garbage is told once. */
	assert_int_equal(feed(&in, "x"), PACKET_BAD);
	assert_int_equal(feed(&in, "yz"), PACKET_NONE);
	assert_int_equal(feed(&in, "$g#67"), PACKET_GOOD);
}

static void test_long_frame(void **state)
{
	static struct packet_in in;
	static char text[2 * PACKET_MAX];

	memset(&in, 0, sizeof(in));
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(feed(&in, "$"), PACKET_NONE);
	assert_int_equal(feed(&in, text), PACKET_NONE);
	text[0] = '#';
	snprintf(text, sizeof(text), "#%02x", (unsigned)(u8)('x' * (sizeof(text) - 1)));
	assert_int_equal(feed(&in, text), PACKET_LONG);
	assert_int_equal(feed(&in, "$g#67"), PACKET_GOOD);
}

static void test_out(void **state)
{
	struct packet_out out = { .data = NULL };

	packet_begin(&out);
	packet_put(&out, "a#}", 3);
	packet_end(&out);
	assert_int_equal(out.len, 9);
	/* 'a', '}' ^C, '}' ] */
	assert_memory_equal(out.data, "$a}\x03}]#bb", 9);
	packet_sent(&out, 3);
	assert_memory_equal(out.data, "\x03}]#bb", 6);
	/* Never more than there may be. */
	for (unsigned k = 0; k < 3 * PACKET_OUT_MAX; k++)
		packet_put_raw(&out, '+');
	assert_true(out.failed && out.len <= PACKET_OUT_MAX);
	free(out.data);
}

static void test_numbers(void **state)
{
	const char *p = "ffffffffffffffff,10000000000000000,x";
	u64 v;
	u8 bytes[2];

	assert_true(packet_number(&p, &v));
	assert_true(v == ~0ull && *p == ',');
	p++;
	assert_false(packet_number(&p, &v));
	p = "x";
	assert_false(packet_number(&p, &v));
	p = "A55";
	assert_false(packet_unhex(&p, bytes, 2));
	assert_true(packet_unhex(&p, bytes, 1));
	assert_int_equal(bytes[0], 0xa5);
}

/* ---- registers ---- */

static unsigned number_of(const struct gdb_regs *regs, const char *name)
{
	for (unsigned n = 0; n < regs->nr; n++)
		if (!strcmp(regs->reg[n].name, name))
			return n;
	fail_msg("there is no register %s", name);
	return 0;
}

static u64 get(const char *name)
{
	u8 v[GDBREGS_MAX_SIZE] = { 0 };

	gdbregs_get(&target.session.regs, number_of(&target.session.regs, name), &target.cpu[0], v);
	return ld64(v);
}

static bool set(const char *name, u64 value)
{
	u8 v[GDBREGS_MAX_SIZE] = { 0 };

	st64(v, value);
	return gdbregs_set(&target.session.regs, number_of(&target.session.regs, name), &target.cpu[0], v);
}

static void test_registers(void **state)
{
	const struct gdb_regs *regs = &target.session.regs;
	struct x86_state *s = &target.cpu[0].state;
	u8 before[GDBREGS_MAX_SIZE], after[GDBREGS_MAX_SIZE];

	assert_in_range(regs->nr, 100, GDBREGS_MAX);
	/* Each one is what it was set to. */
	for (unsigned n = 0; n < regs->nr; n++) {
		assert_in_range(regs->reg[n].size, 1, GDBREGS_MAX_SIZE);
		gdbregs_get(regs, n, &target.cpu[0], before);
		if (!gdbregs_set(regs, n, &target.cpu[0], before))
			continue; /* read-only */
		gdbregs_get(regs, n, &target.cpu[0], after);
		assert_memory_equal(before, after, regs->reg[n].size);
	}
	/* 16-bit code: the program counter is a linear address. */
	s->seg[SEG_CS].base = 0xf0000;
	s->rip = 0xfff0;
	assert_int_equal(get("rip"), 0xffff0);
	assert_true(set("rip", 0xf1234));
	assert_int_equal(s->rip, 0x1234);
	assert_true(set("ds", 0x1234));
	assert_int_equal(s->seg[SEG_DS].base, 0x12340);
	/* 64-bit code: it is RIP. */
	s->efer = EFER_LME | EFER_LMA;
	s->seg[SEG_CS].attr |= SA_L;
	assert_true(set("rip", 0xffffffff81000000));
	assert_true(s->rip == 0xffffffff81000000);
	/* What cannot be. */
	assert_false(set("fs_base", 1ull << 63));
	assert_false(set("mxcsr", 0x10000));
	assert_false(set("xcr0", 7));
	assert_true(set("eflags", 0xffffffff));
	assert_false(s->rflags & (FL_VM | BIT(3) | BIT(5) | BIT(15)));
	assert_true(s->rflags & FL_RES1);
}

static void test_vector_registers(void **state)
{
	struct x86_state *s = &target.cpu[0].state;

	/* In its initial state a component reads 0, whatever the image holds. */
	memset(s->xsave + X86_XSAVE_AVX_OFFSET, 0xee, 256);
	st64(s->xsave + 512, XFEATURE_X87 | XFEATURE_SSE);
	assert_true(get("ymm1h") == 0);
	assert_true(set("ymm1h", 0x55));
	assert_true(get("ymm1h") == 0x55);
	assert_true(get("ymm2h") == 0);
	assert_true(ld64(s->xsave + 512) & XFEATURE_AVX);
	assert_true(set("zmm31h", 7));
	assert_true(get("zmm31h") == 7 && get("xmm31") == 0);
	/* Tags: two bits each there, one here. */
	s->xsave[4] = 0x81;
	assert_int_equal(get("ftag"), 0x3ffc);
	assert_true(set("ftag", 0xffff));
	assert_int_equal(s->xsave[4], 0);
}

/* ---- commands ---- */

static char said[2 * PACKET_MAX];

/* The frames that wait, without + and frame marks, with a space between. */
static const char *answer(void)
{
	struct packet_out *out = &target.session.out;
	size_t n = 0;

	for (size_t k = 0; k < out->len && n + 1 < sizeof(said); k++) {
		if (out->data[k] == '$' && n)
			said[n++] = ' ';
		if (out->data[k] == '#')
			k += 2;
		else if (out->data[k] != '$' && out->data[k] != '+')
			said[n++] = (char)out->data[k];
	}
	said[n] = 0;
	packet_sent(out, out->len);
	return said;
}

static const char *ask(const char *command)
{
	char frame[1024];
	u8 sum = 0;

	for (const char *c = command; *c; c++)
		sum = (u8)(sum + (u8)*c);
	snprintf(frame, sizeof(frame), "$%s#%02x", command, sum);
	assert_int_equal(session_input(&target.session, (const u8 *)frame, strlen(frame)), strlen(frame));
	return answer();
}

static void test_first_word_stops(void **state)
{
	/* Garbage does not. */
	assert_int_equal(session_input(&target.session, (const u8 *)"GET / HTTP", 1), 1);
	answer();
	assert_true(target.running);
	assert_string_equal(ask("?"), "T05thread:1;");
	assert_false(target.running);
	assert_int_equal(target.halts, 1);
}

static void test_memory(void **state)
{
	ask("?");
	assert_string_equal(ask("M1000,3:a1b2c3"), "OK");
	assert_string_equal(ask("m1000,4"), "a1b2c300");
	assert_string_equal(ask("X1002,2:zz"), "OK");
	assert_string_equal(ask("m1000,4"), "a1b27a7a");
	assert_string_equal(ask("m3fff,10"), "00"); /* as much as there is */
	assert_string_equal(ask("m4000,1"), "E0e");
	assert_string_equal(ask("M3fff,2:0000"), "E0e");
	assert_string_equal(ask("mffffffffffffffff,ffffffffffffffff"), "E0e");
	assert_string_equal(ask("M1000,3:a1b2"), "E01");
	assert_string_equal(ask("M1000,ffffffffffffffff:a1b2"), "E01");
}

static void test_going_on(void **state)
{
	ask("?");
	assert_string_equal(ask("vCont?"), "vCont;c;C;s;S");
	assert_string_equal(ask("vCont;s:2;c"), "");
	assert_true(target.running);
	assert_int_equal(target.action[0], DEBUG_GO);
	assert_int_equal(target.action[1], DEBUG_STEP);
	/* Nothing but an interrupt is heard now. */
	assert_string_equal(ask("g"), "");
	fake_target_stop(&target, 1, DEBUG_STEPPED, 0);
	assert_string_equal(answer(), "T05thread:2;");
	assert_string_equal(ask("qC"), "QC2");
	assert_string_equal(ask("vCont;s:2"), "");
	assert_int_equal(target.action[0], DEBUG_HOLD);
	assert_int_equal(session_input(&target.session, (const u8 *)"\3", 1), 1);
	assert_string_equal(answer(), "T02thread:2;");
	assert_string_equal(ask("Hc-1"), "OK");
	assert_string_equal(ask("c"), "");
	assert_int_equal(target.action[2], DEBUG_GO);
	fake_target_stop(&target, 2, DEBUG_AT_DATA, 0x1234);
	assert_string_equal(answer(), "T05thread:3;watch:1234;");
	ask("qSupported:swbreak+");
	ask("s");
	assert_int_equal(target.action[2], DEBUG_STEP);
	assert_int_equal(target.action[0], DEBUG_HOLD);
	fake_target_stop(&target, 0, DEBUG_AT_CODE, 0x1234);
	assert_string_equal(answer(), "T05thread:1;swbreak:;");
	assert_string_equal(ask("vCont;s:4"), "E01");
	assert_false(target.running);
	assert_string_equal(ask("k"), "");
	assert_true(target.killed && target.session.closing);
}

static void test_points(void **state)
{
	ask("?");
	assert_string_equal(ask("Z2,1234,8"), "OK");
	assert_int_equal(target.last_kind, POINT_WRITE);
	assert_int_equal(target.last_addr, 0x1234);
	assert_int_equal(target.last_len, 8);
	assert_string_equal(ask("Z5,1234,8"), "");
	assert_string_equal(ask("Z0,1234"), "E01");
	assert_string_equal(ask("z0,1234,1"), "OK");
}

static void test_monitor(void **state)
{
	const char *text;

	ask("?");
	text = ask("qRcmd,6869");
	assert_string_equal(target.line, "hi");
	assert_non_null(strstr(text, " OK"));
	assert_int_equal(text[0], 'O');
	/* Much is cut, not refused. */
	ask("qRcmd,6d756368");
	assert_false(target.session.out.failed);
	assert_in_range(target.session.out.size, 1, 256 * 1024);
	assert_string_equal(ask("qRcmd,6"), "E01");
}

static void test_no_answer_is_read(void **state)
{
	static const char two[] = "$m1000,4#8e$m1000,4#8e";

	ask("?");
	/* The second waits until the first has been answered and that has been taken. */
	assert_int_equal(session_input(&target.session, (const u8 *)two, sizeof(two) - 1),
			 (sizeof(two) - 1) / 2);
	assert_int_equal(session_input(&target.session, (const u8 *)two, sizeof(two) - 1), 0);
	answer();
	assert_int_equal(session_input(&target.session, (const u8 *)two, sizeof(two) - 1),
			 (sizeof(two) - 1) / 2);
	answer();
}

/* ---- what is set ---- */

static void test_debug_code(void **state)
{
	static struct vm_debug d;

	for (u32 k = 0; k < DEBUG_MAX_CODE; k++)
		assert_int_equal(debug_add_code(&d, (k * 7919ull) % 65536 * 64), 0);
	assert_int_equal(debug_add_code(&d, 1), -ENOSPC);
	assert_int_equal(debug_add_code(&d, 7919 * 64), 0);
	for (u32 k = 1; k < d.nr_code; k++)
		assert_true(d.code[k - 1] < d.code[k]);
	assert_true(debug_has_code(&d, 7919 * 64));
	assert_true(debug_code_in_page(&d, 7919 * 64 + 1));
	debug_del_code(&d, 7919 * 64);
	debug_del_code(&d, 7919 * 64);
	assert_false(debug_has_code(&d, 7919 * 64));
	assert_int_equal(d.nr_code, DEBUG_MAX_CODE - 1);
	d.nr_code = 0;
	assert_int_equal(debug_add_code(&d, ~0ull), 0);
	assert_true(debug_code_in_page(&d, ~0xfffull));
	assert_false(debug_code_in_page(&d, 0));
}

static void test_debug_data(void **state)
{
	static struct vm_debug d;
	const struct debug_data last = { ~0ull - 7, 8, DEBUG_WRITE }, wraps = { ~0ull - 7, 9, DEBUG_WRITE },
				none = { 5, 0, DEBUG_READ }, vast = { 5, DEBUG_MAX_DATA_LEN + 1, DEBUG_READ };

	assert_int_equal(debug_add_data(&d, &wraps), -EINVAL);
	assert_int_equal(debug_add_data(&d, &none), -EINVAL);
	assert_int_equal(debug_add_data(&d, &vast), -EINVAL);
	assert_int_equal(debug_add_data(&d, &last), 0);
	assert_int_equal(debug_add_data(&d, &last), 0);
	assert_int_equal(d.nr_data, 1);
	assert_non_null(debug_find_data(&d, ~0ull, 1, DEBUG_WRITE));
	assert_non_null(debug_find_data(&d, ~0ull - 15, 9, DEBUG_WRITE));
	assert_null(debug_find_data(&d, ~0ull - 15, 8, DEBUG_WRITE));
	assert_null(debug_find_data(&d, ~0ull, 1, DEBUG_READ));
	assert_null(debug_find_data(&d, 0, 8, DEBUG_ACCESS));
	debug_del_data(&d, &last);
	assert_int_equal(d.nr_data, 0);
	for (u32 k = 0; k < DEBUG_MAX_DATA; k++)
		assert_int_equal(debug_add_data(&d, &(struct debug_data){ k, 1, DEBUG_ACCESS }), 0);
	assert_int_equal(debug_add_data(&d, &last), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_long_frame),
		cmocka_unit_test(test_out),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test_setup_teardown(test_registers, fresh, done),
		cmocka_unit_test_setup_teardown(test_vector_registers, fresh, done),
		cmocka_unit_test_setup_teardown(test_first_word_stops, fresh, done),
		cmocka_unit_test_setup_teardown(test_memory, fresh, done),
		cmocka_unit_test_setup_teardown(test_going_on, fresh, done),
		cmocka_unit_test_setup_teardown(test_points, fresh, done),
		cmocka_unit_test_setup_teardown(test_monitor, fresh, done),
		cmocka_unit_test_setup_teardown(test_no_answer_is_read, fresh, done),
		cmocka_unit_test(test_debug_code),
		cmocka_unit_test(test_debug_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
