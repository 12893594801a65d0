/* The devices of a VM: creation by name, reset, teardown.
 *
 * Devices form a list in order of creation, which is also the order of resets and of state; teardown
 * goes backwards, so that a device may use one that was created before it. The types come
 * from dev/, as the array device_types. Main thread, no vCPU running.
 */
#include "vm/device.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm.h"

/* Whatever the alignment of a device's struct is, up to a cache line. */
#define DEVICE_ALIGN 64

static const struct device_ops *device_type(const char *name)
{
	for (const struct device_ops *const *t = device_types; *t; t++)
		if (!strcmp((*t)->name, name))
			return *t;
	return NULL;
}

static int device_unknown(const char *name, struct err *err)
{
	char known[768] = "";
	size_t len = 0;

	for (const struct device_ops *const *t = device_types; *t && len < sizeof(known); t++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s",
					t == device_types ? "" : ", ", (*t)->name);
	return err_set(err, -ENOENT, "unknown device '%s'; the devices are %s", name, known);
}

/* An id of one's own, or the type's name, with a number behind it where it is taken. */
static int device_set_id(struct vm *vm, struct device *dev, const char *id, struct err *err)
{
	const char *want = id ? id : dev->ops->name;

	if (!*want || strlen(want) >= sizeof(dev->id))
		return err_set(err, -EINVAL,
			       "'%.64s' cannot be a device's id; 1 to %zu characters are needed", want,
			       sizeof(dev->id) - 1);
	snprintf(dev->id, sizeof(dev->id), "%s", want);
	if (!device_find(vm, dev->id))
		return 0;
	if (id)
		return err_set(err, -EEXIST, "there is a device '%s' already; choose another id", id);
	for (unsigned n = 1; n < 10000; n++) {
		snprintf(dev->id, sizeof(dev->id), "%.26s%u", want, n);
		if (!device_find(vm, dev->id))
			return 0;
	}
	return err_set(err, -ENOSPC, "there are too many devices '%s'", want);
}

static struct device *device_alloc(struct vm *vm, const struct device_ops *ops)
{
	size_t size = ALIGN_UP(ops->size, (size_t)DEVICE_ALIGN);
	struct device *dev;

	assert(ops->size >= sizeof(struct device));
	dev = aligned_alloc(DEVICE_ALIGN, size);
	if (!dev)
		return NULL;
	memset(dev, 0, size);
	dev->ops = ops;
	dev->vm = vm;
	pthread_mutex_init(&dev->own_lock, NULL);
	dev->lock = &dev->own_lock;
	return dev;
}

static void device_destroy(struct device *dev)
{
	pthread_mutex_destroy(&dev->own_lock);
	free(dev);
}

int device_new(struct vm *vm, const char *name, const struct device_conf *conf, struct device **ret_dev,
	       struct err *err)
{
	const struct device_ops *ops = device_type(name);
	struct device *dev, **tail;
	int rc;

	if (!ops)
		return device_unknown(name, err);
	dev = device_alloc(vm, ops);
	if (!dev)
		return err_set(err, -ENOMEM, "no memory for device '%s'", name);
	rc = device_set_id(vm, dev, conf->id, err);
	if (rc) {
		device_destroy(dev);
		return rc;
	}
	rc = ops->init(dev, conf, err);
	if (rc) {
		err_wrap(err, "device '%s'", dev->id);
		if (ops->fini)
			ops->fini(dev);
		device_destroy(dev);
		return rc;
	}
	if (ops->reset)
		ops->reset(dev, RESET_COLD);
	for (tail = &vm->devices; *tail; tail = &(*tail)->next)
		;
	*tail = dev;
	if (ret_dev)
		*ret_dev = dev;
	return 0;
}

void device_free_all(struct vm *vm)
{
	while (vm->devices) {
		struct device **last = &vm->devices, *dev;

		while ((*last)->next)
			last = &(*last)->next;
		dev = *last;
		if (dev->ops->fini)
			dev->ops->fini(dev);
		*last = NULL;
		device_destroy(dev);
	}
}

void device_reset_all(struct vm *vm, enum reset_kind kind)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (dev->ops->reset)
			dev->ops->reset(dev, kind);
}

void device_quiesce_all(struct vm *vm)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (dev->ops->quiesce)
			dev->ops->quiesce(dev);
}

void device_resume_all(struct vm *vm)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (dev->ops->resume)
			dev->ops->resume(dev);
}

struct device *device_find(struct vm *vm, const char *id)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (!strcmp(dev->id, id))
			return dev;
	return NULL;
}
