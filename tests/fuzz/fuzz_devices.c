/* Hostile traffic to all devices of the board at once, and the test devices with them: bus accesses of every
 * size and value, resets, time, input, interrupts [G23-G25, G37, G40-G42, G45]. See device_traffic.h for what
 * must hold; the rest is the sanitizers' business.
 */
#include "device_traffic.h"
#include "wholeboard.h"

#define VCPUS 2
#define RAM   (16 * MiB)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct wholeboard w;

	wholeboard_init(&w, RAM, VCPUS);
	device_traffic(&w.b, &w.chr, data, len);
	wholeboard_fini(&w);
	return 0;
}
