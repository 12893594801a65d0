/* A machine's figures in Prometheus' text format, version 0.0.4. */
#pragma once

struct vm;

/* state: one word, as machine_state_name(). free(); NULL where memory is short. Main thread. */
char *metrics_text(struct vm *vm, const char *state);
