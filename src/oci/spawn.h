/* A child process in namespaces: new ones, and others that exist already. */
#pragma once

#include <sys/types.h>

#include "jail/cgroup.h"
#include "oci/spec.h"

struct spawn {
	int join[NS_KINDS]; /* descriptors of namespaces to join; -1: none */
	u32 create; /* CLONE_NEW... of those to make; without CLONE_NEWCGROUP, which is for the child itself */
	struct idmap uids, gids;           /* of a new user namespace */
	const struct spec_offset *offsets; /* of a new time namespace */
	unsigned offset_count;
	/* Of the control group that the child is in from its beginning; NULL: the caller's. Stays the caller's to close. */
	struct cgroup_door *door;
	/* Runs in the child, with its end of the wire; does not return. Its first message is WIRE_GO, which the caller sends. */
	void (*child)(void *opaque, int wire);
	void *opaque;
};

/* The child is the caller's, its pid is in the caller's pid namespace. When this fails there is no child. */
int spawn(const struct spawn *how, pid_t *ret_pid, int *ret_wire, struct err *err);

/* For the child in a user namespace: becomes its root, where there is one. */
int spawn_become_root(struct err *err);
