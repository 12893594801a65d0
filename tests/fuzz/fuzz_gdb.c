/* The GDB remote protocol [A16]: bytes of any kind, frames around them with the right checksum, commands with the right beginning,
 * and stops in between. What is asked of the target stays within its bounds (faketarget.c looks), what is answered is in frames whose
 * checksums are right, and no input stops the session from taking more.
 *
 * Input: pieces of a kind, a length, and so many bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faketarget.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static struct fake_target target;

#define must(ok)                                              \
	do {                                                  \
		if (!(ok)) {                                  \
			fprintf(stderr, "not so: %s\n", #ok); \
			abort();                              \
		}                                             \
	} while (0)

static int digit(u8 c)
{
	return c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Everything that waits to be sent, taken by the client. */
static void drain(void)
{
	struct packet_out *out = &target.session.out;

	must(!out->failed && out->len <= PACKET_OUT_MAX);
	for (size_t k = 0; k < out->len;) {
		u8 sum = 0;

		if (out->data[k] == '+' || out->data[k] == '-') {
			k++;
			continue;
		}
		must(out->data[k++] == '$');
		for (; k < out->len && out->data[k] != '#'; k++)
			sum = (u8)(sum + out->data[k]);
		must(k + 3 <= out->len);
		must((digit(out->data[k + 1]) << 4 | digit(out->data[k + 2])) == sum);
		k += 3;
	}
	packet_sent(out, out->len);
}

static void say(const u8 *bytes, size_t len)
{
	while (len && !target.session.closing) {
		size_t n = session_input(&target.session, bytes, len);

		must(n || target.session.out.len);
		must(n <= len);
		bytes += n;
		len -= n;
		drain();
	}
}

static void say_frame(const char *word, const u8 *bytes, size_t len)
{
	u8 frame[600], sum = 0;
	size_t n = 0;

	frame[n++] = '$';
	for (; *word; word++)
		frame[n++] = (u8)*word;
	for (size_t k = 0; k < len; k++)
		frame[n++] = bytes[k] == '#' || bytes[k] == '$' ? 'x' : bytes[k];
	for (size_t k = 1; k < n; k++)
		sum = (u8)(sum + frame[k]);
	frame[n++] = '#';
	frame[n++] = (u8) "0123456789abcdef"[sum >> 4];
	frame[n++] = (u8) "0123456789abcdef"[sum & 15];
	say(frame, n);
}

/* A command's beginning, then what commands are made of. */
static void say_command(u8 which, const u8 *bytes, size_t len)
{
	static const char *const words[] = {
		"?",
		"C",
		"D",
		"G",
		"Hg",
		"Hc",
		"M",
		"M1000,",
		"P",
		"P3=",
		"QStartNoAckMode",
		"S",
		"T",
		"X",
		"X1000,",
		"Z0,",
		"Z2,1000,",
		"c",
		"g",
		"k",
		"m",
		"m1000,",
		"p",
		"qRcmd,",
		"qSupported:",
		"qThreadExtraInfo,",
		"qXfer:features:read:target.xml:",
		"qXfer:threads:read::",
		"qfThreadInfo",
		"s",
		"vCont",
		"vCont;",
		"vCont;s:",
		"vCont?",
		"vKill;",
		"z0,",
	};
	static const char alphabet[] = "0123456789abcdef0123456789abcdef,:;=-.}x";
	u8 text[256];

	for (size_t k = 0; k < len; k++)
		text[k] = (u8)alphabet[bytes[k] % (sizeof(alphabet) - 1)];
	say_frame(words[which % ARRAY_SIZE(words)], text, len);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	fake_target_init(&target, len && data[0] & 1 ? 64 : 32);
	while (len >= 3 && !target.session.closing) {
		u8 kind = data[0], which = data[1];
		size_t n = MIN((size_t)data[2], len - 3);

		data += 3;
		switch (kind % 8) {
		case 0: say(data, n); break;
		case 1: say_frame("", data, n); break;
		case 2:
			if (target.running && target.session.engaged)
				fake_target_stop(&target, which % FAKE_CPUS, (enum debug_why)(1 + which % 3),
						 0x1234);
			drain();
			n = 0;
			break;
		default:
			n = MIN(n, (size_t)which % 32);
			say_command(kind / 8 ^ which, data, n);
			break;
		}
		data += n;
		len -= 3 + n;
	}
	session_ended(&target.session, 1);
	drain();
	fake_target_fini(&target);
	return 0;
}
