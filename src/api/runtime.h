/* The folders of running machines: BASE/NAME, where BASE is $BOTHY_RUNTIME_DIR, else $XDG_RUNTIME_DIR/bothy, else /run/bothy.
 *
 * A folder holds the machine's sockets, and a file `lock` on which it has a lock while it runs. What is in a folder whose
 * lock is free was left by a process that was killed: whoever finds it removes it. Folders belong to one user and are closed
 * to others. Main thread.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

#define RUNTIME_MAX_NAME 63
#define RUNTIME_API_SOCK "api.sock"

struct runtime {
	char name[RUNTIME_MAX_NAME + 1];
	int base, dir, lock; /* descriptors; -1: none */
};

/* 1 to RUNTIME_MAX_NAME letters, digits and -_. with a letter or digit in front; the sentence begins with `what`. */
int runtime_check_name(const char *what, const char *name, struct err *err);

/* Makes and locks the folder of a machine that begins to run; name NULL: one is chosen. -EEXIST: one of that name runs. */
int runtime_open(const char *name, struct runtime *ret_runtime, struct err *err);
/* Removes the folder; accepts one that was never opened if its descriptors are -1. */
void runtime_close(struct runtime *runtime);

struct runtime_list {
	unsigned nr;
	char (*name)[RUNTIME_MAX_NAME + 1]; /* sorted; free() by runtime_list_free() */
};

/* The machines that run; where there is no BASE, none. */
int runtime_list(struct runtime_list *ret_list, struct err *err);
void runtime_list_free(struct runtime_list *list);

/* The folder of a machine that runs, as a descriptor to be closed. -ENOENT with a sentence that names those that do. */
int runtime_find(const char *name, int *ret_dir, struct err *err);

/* Does the machine whose folder this is run? */
bool runtime_alive(int dir);
