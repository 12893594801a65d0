/* Lazily loaded libraries, by dlopen(3). The names are constants of the program, looked for where the system's linker looks:
 * nothing of a guest, an image or the working directory comes into it.
 */
#include "base/lazy.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int lazy_load(const char *library, const struct lazy_function *functions, unsigned count, struct err *err)
{
	/* Never unloaded: the pointers stay good. */
	void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);

	if (!handle)
		return err_set(err, -ENOENT, "%s is needed and cannot be loaded: %s", library, dlerror());
	for (unsigned i = 0; i < count; i++) {
		void *found = dlsym(handle, functions[i].name);

		if (!found)
			return err_set(err, -ENOENT, "%s has no function %s; another version is needed",
				       library, functions[i].name);
		memcpy(functions[i].where, &found, sizeof(found));
	}
	return 0;
}
