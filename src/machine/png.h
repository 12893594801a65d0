/* Pictures as PNG files. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* width * height pixels of 0xRRGGBB, both 1 to 65535, as a file in memory that the caller frees. -ENOMEM. Any thread. */
int png_encode(const u32 *pixels, u32 width, u32 height, u8 **ret_file, size_t *ret_len, struct err *err);
