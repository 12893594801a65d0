/* The content of one directory into another one: what a tmpfs with the option tmpcopyup begins with. */
#pragma once

#include "base/err.h"

/* from, to: descriptors of directories, O_PATH is enough. Directories, regular files and symbolic links are copied, with
 * owner and mode; other kinds are left out. */
int copyup(int from, int to, struct err *err);
