/* How a VM ends: requests from any thread to the main loop.
 *
 * The first request stands (compare and exchange), except that QUIT replaces those after which the VM goes on; every request that does
 * wakes the loop, so that none is lost when the first was made before the loop ran. The text of a crash is
 * written before the request that announces it; a mutex keeps two crashing vCPUs from writing it at once.
 * Who finds VM_REQ_CRASH in vm->request (a sequentially consistent load) sees the whole text.
 */
#include "vm/vm.h"

#include <string.h>

void vm_request(struct vm *vm, enum vm_request req)
{
	int old = VM_REQ_NONE;
	bool set = atomic_compare_exchange_strong(&vm->request, &old, (int)req);

	/* A guest that resets, or sleeps and wakes, in a circle must not swallow the user's wish to end it. */
	if (!set && req == VM_REQ_QUIT && (old == VM_REQ_RESET || old == VM_REQ_SLEEP || old == VM_REQ_WAKE))
		set = atomic_compare_exchange_strong(&vm->request, &old, (int)req);
	if (set && vm->loop)
		loop_stop(vm->loop, (int)req);
}

void vm_memory_changed(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpu[i])
			vcpu_post(vm->vcpu[i], VCPU_REQ_FLUSH);
}

void vm_settle(struct vm *vm)
{
	if (vm->engine && vm->engine->settle)
		vm->engine->settle(vm);
}

void vm_crash(struct vm *vm, const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	if (atomic_load(&vm->request) == VM_REQ_NONE) {
		size_t len = strnlen(text, sizeof(vm->crash) - 1);

		memcpy(vm->crash, text, len);
		vm->crash[len] = 0;
		if (vm->debug && vcpu_self() && atomic_load(&vm->debug->crash_stops)) {
			vcpu_self()->debug.why = DEBUG_CRASHED;
			debug_stopped(vcpu_self());
		} else {
			vm_request(vm, VM_REQ_CRASH);
		}
	}
	pthread_mutex_unlock(&lock);
}
