/* Where `bothy container` keeps what it knows: FOLDER/NAME/{config.json, record.json, namespaces, log, log.1} and, of the OCI
 * runtime, FOLDER/.state/NAME. Main thread only. Needs jansson.
 */
#pragma once

#include <jansson.h>

#include "oci/status.h"

struct ctr_store {
	char path[2048];       /* FOLDER */
	char state_path[2200]; /* FOLDER/.state, the --root of the runtime */
	int dir, state;        /* descriptors of both */
};

/* A container there. */
struct ctr {
	char name[STATUS_MAX_ID + 1];
	char path[2600]; /* FOLDER/NAME */
	int dir;
	json_t *record; /* "root", "args", "network", "address", "stop", "created"; "exit", "ended" when it has ended */
};

/* folder NULL: /var/lib/bothy/containers for root, $XDG_DATA_HOME/bothy/containers or ~/.local/share/... for others. */
int ctr_store_open(const char *folder, struct ctr_store *ret_store, struct err *err);
void ctr_store_close(struct ctr_store *store);

/* Makes the folder of a new container. *ret_ctr has an empty record. -EEXIST. */
int ctr_store_new(const struct ctr_store *store, const char *name, struct ctr *ret_ctr, struct err *err);
int ctr_store_find(const struct ctr_store *store, const char *name, struct ctr *ret_ctr, struct err *err);
void ctr_store_put(struct ctr *ctr);
int ctr_store_save(const struct ctr *ctr, struct err *err);
/* Removes the folder of one that nobody supervises. */
int ctr_store_remove(const struct ctr_store *store, struct ctr *ctr, struct err *err);
/* The supervisor's lock, for as long as it lives. -EBUSY: there is one. */
int ctr_store_lock(const struct ctr *ctr);
/* Waits until nobody has it; -ETIMEDOUT. */
int ctr_store_wait(const struct ctr *ctr, u64 patience_ns);

/* "running", "paused", "created", "exited", "dead" (its supervisor was killed); *ret_status as the runtime has it, for
 * status_close() when *ret_has. */
const char *ctr_store_phase(const struct ctr_store *store, const struct ctr *ctr, struct status *ret_status,
			    bool *ret_has);
