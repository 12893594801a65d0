/* The list of all device types.
 *
 * vm/device.h promises device_types[]; it is made here from devices.def, so that a
 * new device needs its own two files, its line there, and no other edit.
 */
#include "vm/device.h"

#define DEVICE(x) extern const struct device_ops x##_device;
#include "dev/devices.def"
#undef DEVICE

#define DEVICE(x) &x##_device,
const struct device_ops *const device_types[] = {
#include "dev/devices.def"
	NULL,
};
#undef DEVICE
