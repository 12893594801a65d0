#!/bin/sh
# Runs a firmware ROM under bothy: rom.sh BOTHY ROM. BOTHY_ENGINE is bothy's --engine (soft). Passes when the guest says so
# (status 1) and at least one check passed. The flash's contents must reach their file.
set -u
bothy=$1 rom=$2
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
truncate -s 65536 "$work/vars"
timeout 120 "$bothy" run --engine "${BOTHY_ENGINE:-soft}" --firmware "$rom" --firmware-vars "$work/vars" --device debug-exit \
	--serial stdio --no-reboot --memory 64M --cpus 2 --net none </dev/null >"$work/log" 2>&1
status=$?
tr -d '\r' <"$work/log" | grep -v '^PASS '
if [ $status -ne 1 ] || ! grep -q '^PASS ' "$work/log"; then
	echo "status $status of: $bothy run --firmware $rom"
	exit 1
fi
if [ "$(od -An -tx1 -j 4096 -N 4 "$work/vars" | tr -d ' ')" != 55ffffff ]; then
	echo "the file does not have what the guest programmed"
	exit 1
fi
