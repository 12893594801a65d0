/* /dev/kvm itself: opening it, what it must offer, its ioctls, and the signal that ends KVM_RUN.
 *
 * A vCPU is asked out of KVM_RUN by a signal whose handler sets immediate_exit in the run structure of the thread it
 * comes to. So a signal that arrives just before KVM_RUN ends it as well, and nobody has to change the signal mask
 * around each run. The signal comes from other threads (a kick) and from the thread's own timer.
 *
 * Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"

#define KVM_SYS_PATH "/dev/kvm"

int kvm_sys_ioctl(int fd, unsigned long request, void *arg, const char *what, struct err *err)
{
	int r;

	do
		r = ioctl(fd, request, arg);
	while (r < 0 && errno == EINTR && request != KVM_RUN);
	return r < 0 ? err_sys(err, -errno, "the host's KVM refuses %s", what) : r;
}

int kvm_sys_cap(int fd, int cap)
{
	int r = kvm_sys_ioctl(fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)cap, "KVM_CHECK_EXTENSION", NULL);

	return r < 0 ? 0 : r;
}

bool kvm_sys_hypercalls(int fd)
{
	return kvm_sys_cap(fd, KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
}

/* Without these there is no engine; Linux has all of them since 5.10. */
static const struct {
	int cap;
	const char *name;
} needed[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR" },
	{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER" },
};

static int check(int fd, struct err *err)
{
	int version = KVM_CALL(fd, KVM_GET_API_VERSION, NULL, err);

	if (version < 0)
		return version;
	if (version != KVM_API_VERSION)
		return err_set(err, -ENOTSUP, KVM_SYS_PATH " speaks version %d, not %d", version,
			       KVM_API_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (!kvm_sys_cap(fd, needed[i].cap))
			return err_set(err, -ENOTSUP,
				       "this host's KVM lacks %s; a Linux of version 5.10 or later has it",
				       needed[i].name);
	return 0;
}

int kvm_sys_open(struct err *err)
{
	int fd = open(KVM_SYS_PATH, O_RDWR | O_CLOEXEC), r;

	if (fd < 0 && errno == ENOENT)
		return err_set(err, -ENOENT,
			       "this host has no " KVM_SYS_PATH
			       "; load the module kvm_intel or kvm_amd, if the processor (or the hypervisor "
			       "around this host) offers virtualization");
	if (fd < 0 && errno == EACCES)
		return err_set(err, -EACCES,
			       KVM_SYS_PATH " may not be opened; have the user added to the group 'kvm'");
	if (fd < 0)
		return err_sys(err, -errno, KVM_SYS_PATH " cannot be opened");
	r = check(fd, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* --- the signal --- */
static _Thread_local struct kvm_run *this_run;

static void on_signal(int sig)
{
	if (this_run)
		__atomic_store_n(&this_run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

void kvm_sys_thread(struct kvm_run *run)
{
	sigset_t set;

	this_run = run;
	sigemptyset(&set);
	sigaddset(&set, KVM_SYS_SIGNAL);
	pthread_sigmask(run ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

int kvm_sys_signals(struct err *err)
{
	/* On the alternate stack, where the other engine has made one for the thread. */
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	if (sigaction(KVM_SYS_SIGNAL, &sa, NULL) < 0)
		return err_sys(err, -errno, "cannot handle signal %d", KVM_SYS_SIGNAL);
	return 0;
}
