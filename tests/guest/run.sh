#!/bin/sh
# Runs one bare-metal test image under bothy: run.sh BOTHY IMAGE [CPUS]. With QEMU=1 under QEMU's TCG instead of BOTHY, to see
# whether a test is right itself. BOTHY_ENGINE is bothy's --engine (soft). Passes when the guest says so (status 1)
# and at least one check passed; is skipped where the guest says that there is nothing to check.
set -u
bothy=$1 image=$2 cpus=${3:-1}
log=$(mktemp) || exit 99
trap 'rm -f "$log"' EXIT

if [ "${QEMU:-0}" != 0 ]; then
	set -- qemu-system-x86_64 -accel tcg -cpu max -m 256 -smp "$cpus" -display none -no-reboot \
		-device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio -kernel "$image"
else
	set -- "$bothy" run --engine "${BOTHY_ENGINE:-soft}" --kernel "$image" --device debug-exit --serial stdio --no-reboot --memory 256M \
		--cpus "$cpus"
fi
timeout 120 "$@" </dev/null >"$log" 2>&1
status=$?

if grep -q 'the kvm engine cannot run on this host' "$log"; then
	echo "skipped: $(cat "$log")"
	exit 77
fi
if grep -q '^SKIP ' "$log" && ! grep -qvE '^SKIP |^0 passed, 0 failed|engine runs' "$log"; then
	grep '^SKIP ' "$log"
	exit 77
fi
tr -d '\r' <"$log" | grep -v '^PASS ' | tail -60
if [ $status -ne 1 ] || ! grep -q '^PASS ' "$log"; then
	echo "status $status of: $*"
	exit 1
fi
