/* What a guest that knows of its hypervisor gets beyond hardware: the contract between vCPUs and the device that serves
 * hypercalls and tells the guest when a vCPU does not run. vm->pv; NULL: there is none. All on the vCPU's own thread, without
 * locks held. */
#pragma once

#include "base/types.h"

struct vcpu;

struct pv_ops {
	/* Hypercall nr with its four operands, made at CPL 0; what the guest gets. is_long: from 64-bit code. */
	s64 (*call)(void *opaque, struct vcpu *vcpu, u64 nr, const u64 arg[4], bool is_long);
	/* The thread is about to sleep or to give its processor away, until on(). The guest's accesses to memory are done. */
	void (*off)(void *opaque, struct vcpu *vcpu);
	/* May post VCPU_REQ_FLUSH: others may have counted on it while the vCPU was off. */
	void (*on)(void *opaque, struct vcpu *vcpu);
	/* Now and then while it runs: at its local timer's interrupts. */
	void (*tick)(void *opaque, struct vcpu *vcpu);
	/* The record of stolen time: the MSR that says where it is. An engine that keeps records by itself takes it with get, while
	 * the vCPU does not run, calls none of the three above, and gives it back with set. */
	u64 (*get_record)(void *opaque, struct vcpu *vcpu);
	void (*set_record)(void *opaque, struct vcpu *vcpu, u64 msr);
};
