/* The software engine's figures, for soft_engine.c; see soft_stats.c. */
#pragma once

#include "vm/engine.h"

unsigned soft_stats(struct vcpu *vcpu, struct engine_stat ret[ENGINE_MAX_STATS]);
