/* --net: from the text to an open back end. */
#include "machine/nic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/params.h"
#include "host/net_tap.h"
#include "host/net_user.h"

#define MAX_FORWARDS 32
#define MIN_MTU      576   /* what every IPv4 host takes */
#define MAX_MTU      65520 /* [virtio 5.1.4.1]: below 65535, with room for headers */
/* As large as possible: whatever leaves this host is packed anew by its own kernel, and each frame costs the guest
 * as much as any other. */
#define DEFAULT_MTU MAX_MTU

struct settings {
	struct {
		unsigned nr;
		const char *item[MAX_FORWARDS];
	} hostfwd;
	const char *mac;
	u32 mtu;
	bool packed;
};

static const struct param user_table[] = {
	{ .key = "hostfwd",
	  .kind = PARAM_LIST,
	  .offset = offsetof(struct settings, hostfwd),
	  .max = MAX_FORWARDS },
	{ .key = "mac", .kind = PARAM_STRING, .offset = offsetof(struct settings, mac) },
	{ .key = "mtu",
	  .kind = PARAM_U32,
	  .offset = offsetof(struct settings, mtu),
	  .min = MIN_MTU,
	  .max = MAX_MTU },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

/* MTU is the interface's. */
static const struct param tap_table[] = {
	{ .key = "mac", .kind = PARAM_STRING, .offset = offsetof(struct settings, mac) },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

static int parse_mac(const char *text, u8 *ret_mac, struct err *err)
{
	unsigned b[NET_MAC_LEN];
	int end = 0;

	if (strlen(text) != 17 ||
	    sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 ||
	    end != 17 || b[0] & 1 || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return err_set(
			err, -EINVAL,
			"--net: 'mac' cannot be '%.64s'; give an address of one adapter, as in 02:00:00:12:34:56",
			text);
	for (unsigned i = 0; i < NET_MAC_LEN; i++)
		ret_mac[i] = (u8)b[i];
	return 0;
}

static int open_user(struct nic *nic, char *params, struct err *err)
{
	struct settings s = { .mtu = DEFAULT_MTU };
	struct net_user_conf conf;
	int r = params_parse("--net", params, user_table, &s, err);

	if (r == 0 && s.mac)
		r = parse_mac(s.mac, nic->mac, err);
	if (r < 0)
		return r;
	nic->packed = s.packed;
	conf = (struct net_user_conf){ (u16)s.mtu, s.hostfwd.item, s.hostfwd.nr };
	return net_user_open(&conf, &nic->net, err);
}

static int open_tap(struct nic *nic, const char *name, char *params, struct loop *loop, struct err *err)
{
	struct settings s = { .packed = false };
	int r = params_parse("--net", params, tap_table, &s, err);

	if (r == 0 && s.mac)
		r = parse_mac(s.mac, nic->mac, err);
	if (r < 0)
		return r;
	nic->packed = s.packed;
	return net_tap_open(name, loop, &nic->net, err);
}

int nic_open(struct nic *nic, const char *spec, struct loop *loop, struct err *err)
{
	char *text = strdup(spec ? spec : "user"), *params;
	int r;

	*nic = (struct nic){ .wanted = true };
	if (!text)
		return err_set(err, -ENOMEM, "no memory for --net");
	/* An address of nobody's, local to this link. */
	os_random(nic->mac, sizeof(nic->mac));
	nic->mac[0] = (u8)((nic->mac[0] & 0xfc) | 2);
	params = params_first(text);
	if (!strcmp(text, "none") && !params) {
		nic->wanted = false;
		r = 0;
	} else if (!strcmp(text, "user")) {
		r = open_user(nic, params, err);
	} else if (!strncmp(text, "tap=", 4)) {
		r = open_tap(nic, text + 4, params, loop, err);
	} else if (!strcmp(text, "none")) {
		r = err_set(err, -EINVAL, "--net none takes no settings, but was given '%.64s'", params);
	} else {
		r = err_set(err, -EINVAL, "--net: there is no network '%.64s'; give user, tap=NAME or none",
			    text);
	}
	if (r == -ENOSYS && !spec) {
		nic->wanted = false;
		r = 0;
	}
	free(text);
	return r;
}

void nic_close(struct nic *nic)
{
	if (nic->net)
		nic->net->ops->close(nic->net);
	*nic = (struct nic){ 0 };
}
