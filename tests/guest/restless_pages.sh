#!/bin/sh
# restless_pages.sh BOTHY IMAGE: IMAGE (xlate_restless64) has pages that the engine stops tracking, tracks again when they have come to
# rest, and whose blocks it finds changed: by its figures.
set -u
bothy=$1 image=$2
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
bad=0

for engine in soft soft,warm=1 soft,translate=off; do
	timeout 60 "$bothy" run --engine $engine --kernel "$image" --device debug-exit --serial stdio --no-reboot --memory 256M \
		--exits=json </dev/null >"$work/out" 2>"$work/figures"
	status=$?
	if [ $status -ne 1 ] || ! grep -q '^PASS ' "$work/out"; then
		cat "$work/out"
		echo "status $status with $engine"
		exit 1
	fi
	for row in pages_no_longer_tracked:15 pages_tracked_again:4 blocks_found_changed:1000; do
		name=${row%:*} least=${row#*:}
		value=$(grep -o "\"$name\": [0-9]*" "$work/figures" | awk '{ sum += $2 } END { print sum + 0 }')
		echo "$engine: $name $value"
		[ "$value" -ge "$least" ] || bad=1
	done
done
exit $bad
