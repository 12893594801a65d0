/* What the tables of spec.c cannot say about a configuration. */
#pragma once

#include "oci/spec.h"

int spec_check(struct spec *spec, struct err *err);
int spec_check_process(struct spec_process *process, struct err *err);
/* Makes limits->devices of rules, with those that every container has at the end; memory belongs to doc. */
int spec_check_rules(struct jtable_document *doc, const struct spec_device_rule *rules, unsigned count,
		     struct limits *limits, struct err *err);

/* The capability sets of the names in process->capabilities; unknown ones are warned about and left out. */
void spec_check_capabilities(struct spec_process *process);

/* The i-th name of a limit of processes, NULL past the end. */
const char *spec_check_rlimit(unsigned i);
