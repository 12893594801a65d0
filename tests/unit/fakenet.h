/* The other end of a network cable, for tests of adapters. */
#pragma once

#include "vm/net.h"

struct fake_net {
	struct net net;
	bool full;               /* takes nothing */
	unsigned sent;           /* frames that it took */
	u8 frame[NET_MAX_FRAME]; /* the last one */
	size_t len;
	bool worked; /* it came with work left to do */
	struct net_work work;
	unsigned ready; /* calls of ready() */
	bool started;
};

void fake_net_init(struct fake_net *f);
/* A frame for the guest, and the end of a batch; false: it stays. Takes the device's lock. */
bool fake_net_give(struct fake_net *f, const void *frame, size_t len);
/* There is room again. Takes the device's lock. */
void fake_net_room(struct fake_net *f);
