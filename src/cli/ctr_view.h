/* What `bothy container ls` and `inspect` print. Each prints to standard output. Main thread only. */
#pragma once

#include "cli/ctr_store.h"

int ctr_view_list(const struct ctr_store *store, bool json, bool quiet, struct err *err);
int ctr_view_container(const struct ctr_store *store, const struct ctr *ctr, struct err *err);
int ctr_view_namespaces(const struct ctr_store *store, const struct ctr *ctr, bool json, struct err *err);
