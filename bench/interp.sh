#!/usr/bin/env bash
# interp.sh [--turns N] [--qemu]: guest instructions per second on integer code. Each kernel runs in a bare-metal
# guest and as an ordinary program, in turns, several times; the best of each is taken, and the checksums are
# compared. With --qemu, QEMU's TCG runs the same guest.
set -euo pipefail
turns=3 qemu=0
while [ $# -gt 0 ]; do
	case $1 in
	--turns) turns=$2; shift 2 ;;
	--qemu) qemu=1; shift ;;
	*) echo "interp.sh: unknown option '$1'; valid are --turns N, --qemu" >&2; exit 1 ;;
	esac
done
build=${BOTHY_BUILD_DIR:?names the build folder; ./dev bench interp sets it}
native=$build/bench/bench_native guest=$build/bench/bench_guest.flat
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Fields of the exit table that bothy wrote as JSON.
field() { sed -n "s/^ *\"$1\": \([0-9]*\),*$/\1/p" "$work/exits" | head -n 1; }
tcg() { # ROUNDS
	qemu-system-x86_64 -nodefaults -display none -accel tcg -cpu max -m 64 -kernel "$guest" -append "$name $1" \
		-device isa-debug-exit,iobase=0xf4,iosize=4 -serial none >/dev/null || true
}
least() { sort -n "$1" | head -n 1; }

printf '%-10s %14s %10s %10s %12s %10s' kernel instructions 'bothy ms' 'native ms' 'M insn/s' 'to native'
[ $qemu = 1 ] && printf ' %10s %10s' 'TCG ms' 'to TCG'
echo
total_insns=0 total_ns=0
while read -r name rounds; do
	rm -f "$work"/{bothy,native,tcg}.ns
	for ((turn = 0; turn < turns; turn++)); do
		status=0
		got=$("$build/src/cli/bothy" run --engine soft,translate=off --memory 64M --kernel "$guest" --append "$name $rounds" \
			--device debug-exit --exits=json </dev/null 2>"$work/exits") || status=$?
		read -r expected ns < <("$native" "$name" "$rounds")
		if [ $status -ne 1 ] || [ "${got//$'\r'/}" != "$expected" ]; then
			echo "interp.sh: $name gave '$got' with status $status instead of '$expected' with status 1" >&2
			cat "$work/exits" >&2
			exit 1
		fi
		echo "$ns" >>"$work/native.ns"
		field guest_ns >>"$work/bothy.ns"
		if [ $qemu = 1 ]; then
			# Nine times the work less once the work: the start of QEMU falls out.
			start=$(date +%s%N)
			tcg $((rounds * 9))
			middle=$(date +%s%N)
			tcg "$rounds"
			echo $(((middle - start - ($(date +%s%N) - middle)) / 8)) >>"$work/tcg.ns"
		fi
	done
	insns=$(field instructions) b=$(least "$work/bothy.ns") n=$(least "$work/native.ns")
	total_insns=$((total_insns + insns)) total_ns=$((total_ns + b))
	awk "BEGIN { printf \"%-10s %14d %10.1f %10.1f %12.1f %10.1f\", \"$name\", $insns, $b / 1e6, $n / 1e6, $insns * 1e3 / $b, $b / $n }"
	[ $qemu = 1 ] && awk "BEGIN { t = $(least "$work/tcg.ns"); printf \" %10.1f %10.2f\", t / 1e6, $b / t }"
	echo
done < <("$native")
awk "BEGIN { printf \"%-10s %14d %10.1f %10s %12.1f\n\", \"all\", $total_insns, $total_ns / 1e6, \"\", $total_insns * 1e3 / $total_ns }"
