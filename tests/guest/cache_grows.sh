#!/bin/sh
# cache_grows.sh BOTHY IMAGE: IMAGE (xlate_evict64) has more warm code than the least caches hold, for which it is translated
# 11 million times. Caches that may grow do, and little is made again.
set -u
bothy=$1 image=$2
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

# more NAME LEAST, less NAME MOST
figure() {
	sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$work/exits"
}
more() {
	echo "$1: $(figure "$1"), at least $2"
	[ "$(figure "$1")" -ge "$2" ] || bad=1
}
less() {
	echo "$1: $(figure "$1"), at most $2"
	[ "$(figure "$1")" -le "$2" ] || bad=1
}

timeout 100 "$bothy" run --engine soft,warm=1,cache=200 --kernel "$image" --device debug-exit --serial stdio --no-reboot --memory 256M \
	--exits=json </dev/null >"$work/out" 2>"$work/exits"
status=$?
if [ $status -ne 1 ]; then
	cat "$work/out" "$work/exits"
	echo "status $status"
	exit 1
fi
bad=0
more regions_added 20
more block_regions_added 15
less regions 28 # 200 MiB
less block_regions 28
less translations 4000000
less blocks_decoded 3000000
exit $bad
