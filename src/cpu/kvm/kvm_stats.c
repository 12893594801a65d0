/* What KVM itself counts of a vCPU [KVM api 4.133, binary statistics]: exits that it finishes in the kernel, instructions that it
 * emulates, interrupts that it injects. They are beside the account of exits, which counts those that come to bothy.
 *
 * KVM describes its figures by name; cumulative numbers are taken, histograms and times are not. Names and places are read
 * once, at the vCPU's creation (main thread); figures at any time, on any thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"

#define MAX_NAME  44
#define MAX_DESCS 256

struct figure {
	char name[MAX_NAME + 4]; /* kvm_NAME */
	u64 at;                  /* in the descriptor's file */
};

/* What halting came to [KVM api 4.133]; times are three: of sleeps, of looks that ended so, of those that did not. */
static const char *const wait_names[] = { "halt_exits", "halt_wait_ns", "halt_poll_success_ns",
					  "halt_poll_fail_ns" };

struct kvm_stats {
	int fd;
	u64 wait_at[ARRAY_SIZE(wait_names)]; /* in the file; 0: not there */
	unsigned nr;
	struct figure figure[ENGINE_MAX_STATS];
};

static bool name_ok(const char *name, size_t len)
{
	for (size_t i = 0; i < len && name[i]; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') ||
		      name[i] == '_'))
			return false;
	return len && *name;
}

static void read_descs(struct kvm_stats *s, const struct kvm_stats_header *head)
{
	size_t size = sizeof(struct kvm_stats_desc) + head->name_size;
	struct kvm_stats_desc *d = calloc(1, size + 1);

	for (u32 i = 0;
	     d && i < MIN(head->num_desc, (u32)MAX_DESCS) && s->nr < ENGINE_MAX_STATS - KVM_OWN_STATS; i++) {
		struct figure *f = &s->figure[s->nr];

		if (pread(s->fd, d, size, (off_t)(head->desc_offset + i * size)) != (ssize_t)size)
			break;
		for (unsigned w = 0; w < ARRAY_SIZE(wait_names); w++)
			if (d->size == 1 && head->name_size > strlen(wait_names[w]) &&
			    !strcmp(d->name, wait_names[w]))
				s->wait_at[w] = head->data_offset + d->offset;
		if ((d->flags & KVM_STATS_TYPE_MASK) != KVM_STATS_TYPE_CUMULATIVE ||
		    (d->flags & KVM_STATS_UNIT_MASK) != KVM_STATS_UNIT_NONE || d->size != 1 ||
		    !name_ok(d->name, head->name_size))
			continue;
		snprintf(f->name, sizeof(f->name), "kvm_%.*s", MAX_NAME - 1, d->name);
		f->at = head->data_offset + d->offset;
		s->nr++;
	}
	free(d);
}

struct kvm_stats *kvm_stats_open(int vcpu_fd)
{
	struct kvm_stats *s = calloc(1, sizeof(*s));
	struct kvm_stats_header head;

	if (!s)
		return NULL;
	s->fd = kvm_sys_ioctl(vcpu_fd, KVM_GET_STATS_FD, NULL, "KVM_GET_STATS_FD", NULL);
	if (s->fd < 0) {
		free(s);
		return NULL;
	}
	if (pread(s->fd, &head, sizeof(head), 0) == sizeof(head))
		read_descs(s, &head);
	return s;
}

void kvm_stats_close(struct kvm_stats *s)
{
	if (!s)
		return;
	close(s->fd);
	free(s);
}

unsigned kvm_stats_read(const struct kvm_stats *s, struct engine_stat *ret)
{
	unsigned n = 0;

	for (unsigned i = 0; s && i < s->nr; i++) {
		u64 value;

		if (pread(s->fd, &value, sizeof(value), (off_t)s->figure[i].at) == sizeof(value))
			ret[n++] = (struct engine_stat){ s->figure[i].name, value };
	}
	return n;
}

bool kvm_stats_wait(const struct kvm_stats *s, struct engine_wait *ret_wait)
{
	u64 v[ARRAY_SIZE(wait_names)] = { 0 };

	if (!s || !s->wait_at[0])
		return false;
	for (unsigned w = 0; w < ARRAY_SIZE(wait_names); w++)
		if (s->wait_at[w] &&
		    pread(s->fd, &v[w], sizeof(v[w]), (off_t)s->wait_at[w]) != (ssize_t)sizeof(v[w]))
			return false;
	*ret_wait = (struct engine_wait){ .count = v[0], .ns = v[1] + v[2] + v[3] };
	return true;
}
