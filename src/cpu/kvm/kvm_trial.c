/* A small guest, run to its exit and timed: does this host's KVM execute guests, and at what speed?
 *
 * The guest is a loop of two instructions in protected mode without paging (every processor with virtualization runs that by
 * itself), and HLT. It runs once round for the way there and back (long, where this host is a virtual machine itself), and many
 * times round; of several tries the best counts, since others map its page, or are interrupted by what else the host does. Where the
 * processor executes guests an instruction takes a fraction of a nanosecond; some hosts offer a /dev/kvm that interprets, at a
 * hundred and more. What is neither is seen again, ten times as long, so that a way that varies weighs less.
 *
 * Main thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/kvm/kvm.h"
#include "x86/defs.h"

#define ROUNDS      4000u /* at first; each of two instructions */
#define MOST_ROUNDS 400000u
#define TRIES       5
#define EMULATOR_PS 100000u /* no processor takes this long, however busy */

static const u8 guest[] = {
	0x49,       /* again: dec %ecx */
	0x75, 0xfd, /* jnz again */
	0xf4,       /* hlt */
};

static struct kvm_segment flat(u8 type)
{
	return (struct kvm_segment){
		.limit = ~0u, .selector = 8, .type = type, .present = 1, .s = 1, .db = 1, .g = 1
	};
}

static int start(int fd, u32 rounds, struct err *err)
{
	const struct kvm_regs regs = { .rcx = rounds, .rflags = FL_RES1 };
	struct kvm_sregs sregs;
	int r = KVM_CALL(fd, KVM_GET_SREGS, &sregs, err);

	if (r < 0)
		return r;
	sregs.cr0 |= CR0_PE;
	sregs.cs = flat(0xb);
	sregs.ss = sregs.ds = sregs.es = flat(0x3);
	r = KVM_CALL(fd, KVM_SET_SREGS, &sregs, err);
	return r < 0 ? r : KVM_CALL(fd, KVM_SET_REGS, &regs, err);
}

static int run(int fd, const struct kvm_run *kr, u32 rounds, u64 *ret_ns, struct err *err)
{
	int r = start(fd, rounds, err);
	u64 t0 = os_now_ns();

	if (r < 0)
		return r;
	do
		r = kvm_sys_ioctl(fd, KVM_RUN, NULL, "KVM_RUN", err);
	while (r == -EINTR);
	if (r < 0)
		return r;
	*ret_ns = os_now_ns() - t0;
	if (kr->exit_reason != KVM_EXIT_HLT)
		return err_set(err, -EIO,
			       "this host's KVM does not run a guest of two instructions (exit %u)",
			       kr->exit_reason);
	return 0;
}

static int run_best(int fd, const struct kvm_run *kr, u32 rounds, u64 *ret_ns, struct err *err)
{
	u64 ns;
	int r = 0;

	*ret_ns = ~0ull;
	for (unsigned i = 0; r >= 0 && i < TRIES; i++) {
		r = run(fd, kr, rounds, &ns, err);
		if (r >= 0)
			*ret_ns = MIN(*ret_ns, ns);
	}
	return r;
}

/* Picoseconds an instruction; not the way to the guest and back. */
static int time_insn(int fd, const struct kvm_run *kr, u64 *ret_ps, struct err *err)
{
	u64 way, ns; /* there and back; and with the loop */
	int r = run_best(fd, kr, 1, &way, err);

	for (u32 rounds = ROUNDS; r >= 0 && rounds <= MOST_ROUNDS; rounds *= 10) {
		r = run_best(fd, kr, rounds, &ns, err);
		if (r < 0)
			break;
		*ret_ps = (ns > way ? ns - way : 0) * 1000 / (2 * (rounds - 1));
		if (*ret_ps <= ENGINE_SLOW_PS || *ret_ps > EMULATOR_PS)
			break;
	}
	return r;
}

static int run_vcpu(int vm_fd, u32 run_size, u64 *ret_ps, struct err *err)
{
	int fd = KVM_CALL(vm_fd, KVM_CREATE_VCPU, NULL, err), r;
	const struct kvm_run *kr;

	if (fd < 0)
		return fd;
	kr = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (kr == MAP_FAILED) {
		r = err_sys(err, -errno, "cannot map a vCPU of the host's KVM");
	} else {
		r = time_insn(fd, kr, ret_ps, err);
		munmap((void *)kr, run_size);
	}
	close(fd);
	return r;
}

static int run_vm(int sys_fd, u8 *page, u64 *ret_ps, struct err *err)
{
	const struct kvm_userspace_memory_region slot = {
		.memory_size = RAM_PAGE_SIZE,
		.userspace_addr = (u64)(uintptr_t)page,
	};
	int size = KVM_CALL(sys_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, err), fd, r;

	if (size < 0)
		return size;
	fd = KVM_CALL(sys_fd, KVM_CREATE_VM, NULL, err);
	if (fd < 0)
		return fd;
	r = 0;
	if (kvm_sys_cap(fd, KVM_CAP_SET_TSS_ADDR))
		r = kvm_sys_ioctl(fd, KVM_SET_TSS_ADDR, (void *)0xfeffd000ul, "KVM_SET_TSS_ADDR", err);
	if (r >= 0)
		r = KVM_CALL(fd, KVM_SET_USER_MEMORY_REGION, &slot, err);
	if (r >= 0)
		r = run_vcpu(fd, (u32)size, ret_ps, err);
	close(fd);
	return r;
}

int kvm_trial_run(u64 *ret_ps, struct err *err)
{
	int fd = kvm_sys_open(err), r;
	u8 *page;

	if (fd < 0)
		return fd;
	page = mmap(NULL, RAM_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		r = err_sys(err, -errno, "no memory for a test of the host's KVM");
	} else {
		memcpy(page, guest, sizeof(guest));
		r = run_vm(fd, page, ret_ps, err);
		munmap(page, RAM_PAGE_SIZE);
	}
	close(fd);
	return MIN(r, 0);
}
