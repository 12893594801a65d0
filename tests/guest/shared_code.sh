#!/bin/sh
# shared_code.sh BOTHY IMAGE: code is decoded and translated once for all processors. IMAGE (xlate_share64) runs with one and with four,
# and the engine's figures are compared.
set -u
bothy=$1 image=$2
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

# figure FILE NAME: its sum over the vCPUs
figure() {
	grep -o "\"$2\": [0-9]*" "$1" | awk '{ sum += $2 } END { print sum + 0 }'
}

for cpus in 1 4; do
	timeout 60 "$bothy" run --engine soft --kernel "$image" --device debug-exit --serial stdio --no-reboot --memory 256M \
		--cpus $cpus --exits=json </dev/null >"$work/out" 2>"$work/$cpus"
	status=$?
	if [ $status -ne 1 ] || ! grep -q "^PASS $cpus processors" "$work/out"; then
		cat "$work/out" "$work/$cpus"
		echo "status $status with $cpus processors"
		exit 1
	fi
done
bad=0
for name in translations blocks_decoded instructions_translated; do
	one=$(figure "$work/1" $name) four=$(figure "$work/4" $name)
	echo "$name: $one with one processor, $four with four"
	# 5000 functions; the others' start-up and waiting come on top
	[ "$one" -ge 5000 ] || bad=1
	[ "$four" -le $((one + one / 20 + 200)) ] || bad=1
done
exit $bad
