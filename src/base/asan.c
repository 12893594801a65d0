/* Builds with the address sanitizer: what its runtime is told before each function that does not return comes through here
 * (meson.build wraps the call), so that an engine can put away what the runtime's code would change. */
#include "base/asan.h"

#include <stddef.h>

_Thread_local void (*asan_before)(void);

void __real___asan_handle_no_return(void);
void __wrap___asan_handle_no_return(void);
void __wrap___asan_handle_no_return(void)
{
	if (asan_before)
		asan_before();
	__real___asan_handle_no_return();
}
