/* --affinity: from the text to sets of host processors.
 *
 * What a process may use is less than what the host has where somebody has said so (a control group, taskset), and the
 * kernel would take the intersection without a word. So each processor that is named is compared with that set, and a
 * person learns at once which one was meant in vain. Hosts with more processors than a cpu_set_t has room for (1024) are
 * served up to that number.
 */
#include "machine/affinity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXAMPLE "give VCPU=CPU or VCPU=FIRST-LAST, several after commas, as in 0=1,1=2-3"

/* A decimal number at *p, which moves behind it. */
static bool number(const char **p, u32 *ret_n)
{
	u32 n = 0;

	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; ++*p) {
		if (n > 99999)
			return false;
		n = n * 10 + (u32)(**p - '0');
	}
	*ret_n = n;
	return true;
}

/* "0-3,6" */
static const char *set_text(const cpu_set_t *set, char *buf, size_t len)
{
	size_t n = 0;

	buf[0] = 0;
	for (unsigned first = 0; first < CPU_SETSIZE && n < len; first++) {
		unsigned last = first;

		if (!CPU_ISSET(first, set))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
			last++;
		n += (size_t)snprintf(buf + n, len - n, last > first ? "%s%u-%u" : "%s%u", n ? "," : "",
				      first, last);
		first = last;
	}
	return buf;
}

static int add(cpu_set_t *set, const cpu_set_t *allowed, u32 first, u32 last, struct err *err)
{
	char text[256];

	for (u32 cpu = first; cpu <= last; cpu++) {
		if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, allowed))
			return err_set(
				err, -EINVAL,
				"--affinity: processor %u of the host is not there for this process; it may use %s",
				cpu, set_text(allowed, text, sizeof(text)));
		CPU_SET(cpu, set);
	}
	return 0;
}

int affinity_parse(const char *text, u32 nr_vcpus, cpu_set_t *sets, struct err *err)
{
	cpu_set_t allowed;
	const char *p = text;

	if (!text)
		return 0;
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return err_sys(err, -errno, "--affinity: the host does not say which processors there are");
	do {
		u32 vcpu = 0, first = 0, last;
		bool ok = number(&p, &vcpu) && *p++ == '=' && number(&p, &first);
		int r;

		last = first;
		if (ok && *p == '-') {
			p++;
			ok = number(&p, &last) && last >= first;
		}
		if (!ok || (*p && *p != ','))
			return err_set(err, -EINVAL, "--affinity cannot be '%.64s'; " EXAMPLE, text);
		if (vcpu >= nr_vcpus)
			return err_set(
				err, -EINVAL,
				"--affinity: the guest has no processor %u; they are 0 to %u, as many as --cpus says",
				vcpu, nr_vcpus - 1);
		r = add(&sets[vcpu], &allowed, first, last, err);
		if (r < 0)
			return r;
	} while (*p++);
	return 0;
}
