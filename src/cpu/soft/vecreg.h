/* The guest's vector and mask registers while they are in the host's (soft_cpu.vec_live), one by one. n is in range. */
#pragma once

#include "base/types.h"

/* Registers 0 to 15, 32 bytes; what is above is cleared. The host has AVX. */
void vecreg_get_ymm(unsigned n, void *ret_bytes);
void vecreg_set_ymm(unsigned n, const void *bytes);
/* 0 to 31, 64 bytes. The host has AVX512F. */
void vecreg_get_zmm(unsigned n, void *ret_bytes);
void vecreg_set_zmm(unsigned n, const void *bytes);
/* The host has AVX512BW. */
u64 vecreg_get_k(unsigned n);
void vecreg_set_k(unsigned n, u64 v);
