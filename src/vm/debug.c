/* What a debugger has set, and how it hears of a vCPU that stopped. See debug.h for threads. */
#include "vm/debug.h"

#include <errno.h>
#include <string.h>

#include "vm/vm.h"

void debug_stopped(struct vcpu *vcpu)
{
	struct vm_debug *d = vcpu->vm->debug;

	if (d && d->stopped)
		d->stopped(d->opaque);
}

int debug_add_code(struct vm_debug *d, gva_t addr)
{
	u32 k = debug_code_from(d, addr);

	if (debug_has_code(d, addr))
		return 0;
	if (d->nr_code == DEBUG_MAX_CODE)
		return -ENOSPC;
	memmove(&d->code[k + 1], &d->code[k], (d->nr_code - k) * sizeof(d->code[0]));
	d->code[k] = addr;
	d->nr_code++;
	return 0;
}

void debug_del_code(struct vm_debug *d, gva_t addr)
{
	u32 k = debug_code_from(d, addr);

	if (!debug_has_code(d, addr))
		return;
	d->nr_code--;
	memmove(&d->code[k], &d->code[k + 1], (d->nr_code - k) * sizeof(d->code[0]));
}

static u32 find_data(const struct vm_debug *d, const struct debug_data *data)
{
	u32 k = 0;

	while (k < d->nr_data && (d->data[k].addr != data->addr || d->data[k].len != data->len ||
				  d->data[k].kind != data->kind))
		k++;
	return k;
}

int debug_add_data(struct vm_debug *d, const struct debug_data *data)
{
	if (!data->len || data->len > DEBUG_MAX_DATA_LEN || data->addr + data->len - 1 < data->addr)
		return -EINVAL;
	if (find_data(d, data) < d->nr_data)
		return 0;
	if (d->nr_data == DEBUG_MAX_DATA)
		return -ENOSPC;
	d->data[d->nr_data++] = *data;
	return 0;
}

void debug_del_data(struct vm_debug *d, const struct debug_data *data)
{
	u32 k = find_data(d, data);

	if (k < d->nr_data)
		d->data[k] = d->data[--d->nr_data];
}
