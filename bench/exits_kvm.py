#!/usr/bin/env python3
"""How many exits KVM counts per operation in bothy and in QEMU, on a real KVM that needs no hardware: inside of a machine
that QEMU's TCG emulates (-cpu max offers SVM with nested paging).

    ./dev bench exits_kvm [--install-qemu] [OPTIONS]

In one such machine runs `bothy run --engine kvm`, in another `qemu-system-x86_64 -accel kvm` (TCG is several times slower where
memory has been another guest's, so neither runs after the other), with the guest, the devices and the paths of `./dev bench
exits`. "exits" are those of /sys/kernel/debug/kvm/exits: every return from the guest, also what KVM
finishes by itself, such as the accesses to its own local APIC that QEMU uses, and the timer interrupts of the machine around. "user"
are returns from KVM_RUN: what bothy says of its vCPU (entries to the guest), and QEMU's trace point kvm_run_exit. "seconds" is the
time of the whole run, less that of the guest that does nothing (the better of two, since TCG has to translate the programs first).

In a third machine both take turns, six each. The seconds of "boot" are the mean of those from the start of the program to the first
words of the guest's first process; the guests stay there, stopped, so that each gets memory that has been nobody's. Both have a
VGA, on which the kernel has its console; --no-vga leaves it out in both. The last lines are of an exit for a port at which nothing
is, from a ROM that does nothing else.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

from cpu import Failed, TOP
from exits import APPEND, PATHS, SYSTEM_TESTS, modules_of, prepare, show

# Operations of one run: everything takes ten times as long in there.
OPERATIONS = {"none": 0, "serial": 8192, "disk": 4000, "disk-8": 500, "net-in": 256, "busy": 4, "idle": 4}
FIRMWARE = ("/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/kvmvapic.bin")
MEMORY = "128"
PORT_EXITS = 100000  # ten seconds: the start of a program takes one, give or take a third
TURNS = 6

# Both get the guest's command line, the disk, the initramfs, and more options.
RUN = {
    "bothy": f"""#!/bin/busybox sh
append=$1 disk=$2 initrd=$3
shift 3
exec /bothy run --engine ENGINE --memory {MEMORY}M --no-reboot --net user,mtu=1500 --disk $disk VGA \\
	--kernel /inner/vmlinuz --initrd $initrd --append "$append" "$@"
""",
    "qemu": f"""#!/bin/busybox sh
append=$1 disk=$2 initrd=$3
shift 3
exec /qemu -L /firmware -accel kvm -cpu host -m {MEMORY} -nodefaults VGA -display none -no-reboot -serial stdio \\
	-kernel /inner/vmlinuz -initrd $initrd -append "$append" -drive file=$disk,if=none,id=d,format=raw \\
	-device virtio-blk-pci,drive=d,disable-legacy=on -netdev user,id=n -device virtio-net-pci,netdev=n,disable-legacy=on,romfile= "$@"
""",
}
COUNT = {"bothy": "--exits", "qemu": "-D /tmp/trace -trace kvm_run_exit"}
VGA = {"bothy": "--vga std", "qemu": "-device VGA"}
NO_VGA = {"bothy": "--vga none", "qemu": ""}
# Process 1 of the guests of "boot".
FIRST = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
echo "job: first process" >/dev/console
exec busybox sleep 10000
"""
# Runs a ROM, whose last write ends the process with status 1.
RUN_ROM = {
    "bothy": "/bothy run --engine ENGINE --firmware $1 --device debug-exit --memory 16M --net none --serial none --no-reboot",
    "qemu": "/qemu -L /firmware -accel kvm -cpu host -m 16 -nodefaults -display none -no-reboot -bios $1 "
            "-device isa-debug-exit,iobase=0xf4,iosize=4",
}
# In the machine around. one WHO PATH OPERATIONS; port WHO; boot WHO.
JOB = f"""export BOTHY_RUNTIME_DIR=/run
mkdir -p /run /www
mount -t debugfs debugfs /sys/kernel/debug
ifconfig lo 127.0.0.1
head -c {OPERATIONS["net-in"] * 65536} /dev/zero >/www/{OPERATIONS["net-in"]}
head -c 67108864 /dev/zero >/disk
httpd -p 127.0.0.1:8000 -h /www
# As in tests/system/nested.
/bothy run --engine kvm --kernel /inner/vmlinuz --memory 96M --net none --serial none --name hold </dev/null >/tmp/hold 2>&1 &
hold=$!
until /bothy pause hold >/dev/null 2>&1; do kill -0 $hold || {{ cat /tmp/hold; fail "no machine stands still"; }}; sleep 0.2; done
held=$(cat /sys/kernel/debug/kvm/exits)
watch_kvm() {{
	while sleep 0.2; do
		n=$(($(cat /sys/kernel/debug/kvm/exits) - held))
		[ "$n" = 0 ] || echo $n >/tmp/exits
	done
}}
one() {{
	rm -f /tmp/trace /tmp/exits
	watch_kvm &
	watch=$!
	read -r before rest </proc/uptime
	timeout $limit /run-$1 "{APPEND} job=exits path=$2 n=$3 port=8000 rest=3" /disk /inner/initramfs.gz $count </dev/null \\
		>/tmp/log 2>/tmp/err
	status=$?
	read -r after rest </proc/uptime
	kill $watch
	user=$(grep -c kvm_run_exit /tmp/trace 2>/dev/null) || user=$(awk '/entries to the guest/ {{ n += $5 }} END {{ print n }}' /tmp/err)
	grep -q 'job: done' /tmp/log || tail -n 20 /tmp/log /tmp/err
	say "figures $1 $2 $status $(cat /tmp/exits) $user $before $after $(sed -n 's/^job: frames //p' /tmp/log | tr -d '\\r')"
}}
port() {{
	for exits in 1 {PORT_EXITS}; do
		read -r before rest </proc/uptime
		timeout $limit sh /rom-$1 /port-$exits </dev/null >/tmp/log 2>&1
		status=$?
		read -r after rest </proc/uptime
		[ $status = 1 ] || cat /tmp/log
		say "port $1 $exits $status $before $after"
	done
}}
boots=0 stopped=
boot() {{
	boots=$((boots + 1))
	truncate -s 64M /disk-$boots
	mkfifo /tmp/console-$boots
	read -r before rest </proc/uptime
	/run-$1 "{APPEND}" /disk-$boots /inner/first.gz </dev/null 2>/tmp/err >/tmp/console-$boots &
	stopped="$stopped $!"
	grep -q "first process" /tmp/console-$boots || {{
		cat /tmp/err
		fail "boot of $1"
	}}
	read -r after rest </proc/uptime
	kill -STOP $!
	say "boot $1 $before $after"
}}
"""


def rom(exits):
    """64 KiB that end at the reset vector: mov $exits, %ecx; 1: out %al, $0x80; dec %ecx; jnz 1b; out %al, $0xf4 of 0."""
    image = bytearray(b"\xf4" * 65536)
    code = b"\x66\xb9" + exits.to_bytes(4, "little") + b"\xe6\x80\x66\x49\x75\xfa\xb0\x00\xe6\xf4"
    image[0:len(code)] = code
    image[0xfff0:0xfff3] = b"\xe9" + (0x10000 - 0xfff3).to_bytes(2, "little")  # jmp 0
    return bytes(image)


def libraries(programs):
    """What the dynamic linker finds for them, and the libraries that bothy loads by itself."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = set()
    for name, package in (("libslirp.so.0", "libslirp0"), ("libmicrohttpd.so.12", "libmicrohttpd12")):
        library = re.search(rf"{re.escape(name)} .*=> (\S+)", known)
        if not library:
            raise Failed(f"there is no {name}; install {package}")
        found.add(library[1])
    for program in (*programs, *found):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found.update(re.findall(r"(/\S+\.so\S*)", listed))
    return found


def run(args, bothy, qemu):
    kernel, inner = prepare(args.folder)
    tree = modules_of(kernel)

    def write(name, *text):
        with open(os.path.join(args.folder, name), "w", encoding="utf-8") as f:
            f.writelines(text)

    for who, text in RUN.items():
        write(f"job-{who}", f"limit={args.limit} count='{COUNT[who]}'\n{JOB}",
              *(f"one {who} {path} {OPERATIONS[path]}\n" for path in ["none", "none", *args.path]), "kill $hold\n")
        write(who, text.replace("ENGINE", args.engine).replace("VGA", (NO_VGA if args.no_vga else VGA)[who]))
        write(f"rom-{who}", RUN_ROM[who].replace("ENGINE", args.engine) + "\n")
    write("job-turns", f"limit={args.limit}\n{JOB}", *(f"{what} {who}\n" for what in ("boot", "port") for _ in range(TURNS)
                                                       for who in RUN), "kill -KILL $stopped\nkill $hold\n")
    write("first", FIRST)
    first = os.path.join(args.folder, "first.gz")
    subprocess.run([os.path.join(SYSTEM_TESTS, "make-initramfs"), first, os.path.join(args.folder, "first")], check=True)
    for exits in (1, PORT_EXITS):
        with open(os.path.join(args.folder, f"port-{exits}"), "wb") as f:
            f.write(rom(exits))
    outer = ("irqbypass", "kvm", "kvm-amd")
    write("modules", *(f"/m/{name}.ko\n" for name in outer))
    pairs = [f"{bothy}=bothy", f"{qemu}=qemu", f"{args.folder}/modules=modules",
             *(f"{args.folder}/job-{job}=job-{job}" for job in (*RUN, "turns")), f"{first}=inner/first.gz",
             *(f"{args.folder}/{who}=run-{who}" for who in RUN), *(f"{args.folder}/rom-{who}=rom-{who}" for who in RUN),
             *(f"{args.folder}/port-{exits}=port-{exits}" for exits in (1, PORT_EXITS)), f"{inner}=inner/initramfs.gz",
             f"{kernel}=inner/vmlinuz", *(f"{tree[name]}=m/{name}.ko" for name in outer),
             *(f"{f}=firmware/{os.path.basename(f)}" for f in FIRMWARE), *(f"{f}={f}" for f in libraries((bothy, qemu)))]
    initramfs = os.path.join(args.folder, "outer.gz")
    subprocess.run([os.path.join(SYSTEM_TESTS, "make-initramfs"), initramfs, os.path.join(SYSTEM_TESTS, "virtio_init"), *pairs],
                   check=True)
    figures = {}
    for job in ("turns", *RUN):
        console = run_outer(args, qemu, kernel, initramfs, job)
        try:
            if job == "turns":
                turns = read_turns(console)
            else:
                read_figures(console, job, figures, args.path)
        except Failed as e:
            raise Failed(f"{job}: {e}\n" + "\n".join(console.splitlines()[-60:])) from e
    return figures, turns


def read_turns(console):
    """The seconds of all boots, and the microseconds of an exit for a port in all runs, by who."""
    def seconds(pattern):
        return [float(after) - float(before) for before, after in re.findall(rf"^job: {pattern} (\S+) (\S+)$", console, re.M)]

    boots = {who: seconds(f"boot {who}") for who in RUN}
    ports = {who: [(many - one) * 1e6 / PORT_EXITS for one, many in
                   zip(seconds(f"port {who} 1 1"), seconds(f"port {who} {PORT_EXITS} 1"))] for who in RUN}
    if any(len(s) != TURNS for s in (*boots.values(), *ports.values())):
        raise Failed("not all guests have come to their first process or, with status 1, to their end")
    return boots, ports


def read_figures(console, who, figures, paths):
    """Into figures[who, path], the better of two."""
    for line in re.findall(r"^job: figures \S+ (.*)$", console, re.M):
        path, status, *counts = line.split()
        if status != "0" or len(counts) != 5:
            raise Failed(f"{path}: status {status}")
        exits, user, before, after, frames = counts
        new = (int(exits), int(user), float(after) - float(before), int(frames))
        if (who, path) not in figures or new[2] < figures[who, path][2]:
            figures[who, path] = new
    if any((who, path) not in figures for path in ["none", *paths]):
        raise Failed("not all runs came to their end")


def run_outer(args, qemu, kernel, initramfs, who):
    """What its console shows."""
    got = subprocess.run([qemu, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "4096", "-nographic", "-no-reboot", "-net",
                          "none", "-kernel", kernel, "-initrd", initramfs, "-append",
                          f"console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check job={who}"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, timeout=args.timeout, check=False)
    return got.stdout.decode("utf-8", "replace").replace("\r", "")


def print_table(figures, turns, paths):
    boots, ports = turns
    print(f"{'':32}" + "".join(f"{who + ' exits':>14}{'user':>10}{'seconds':>10}" for who in ("bothy", "qemu")))
    for path in ["none", *paths]:
        line = f"{'boot' if path == 'none' else PATHS[path][0]:32}"
        for who in ("bothy", "qemu"):
            exits, user, seconds, frames = figures[who, path]
            ops = 1
            if path == "none":
                seconds = statistics.mean(boots[who])
            else:
                base = figures[who, "none"]
                ops = max(frames - base[3], 1) if path.startswith("net") else OPERATIONS[path]
                exits, user, seconds = exits - base[0], user - base[1], seconds - base[2]
            line += f"{show(exits / ops):>14}{show(user / ops):>10}{seconds:10.1f}"
        print(line)
    print()
    for what, unit, measured in (("boot", "s", boots), ("exit for a port", "us", ports)):
        for who, values in measured.items():
            print(f"{what}, {who}: " + " ".join(f"{v:.3g}" for v in values) + f" {unit}")
        mean, best = ((f(measured["bothy"]) / f(measured["qemu"])) for f in (statistics.mean, min))
        print(f"{what}: {mean:.2f} of QEMU's, the best of each {best:.2f}")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench exits_kvm", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = [p for p in OPERATIONS if p != "none"]
    parser.add_argument("--path", action="append", choices=choices, help="only this one; may be given several times")
    parser.add_argument("--engine", default="kvm", help="bothy's, as in kvm,ioeventfd=on (default kvm)")
    parser.add_argument("--no-vga", action="store_true", help="neither machine has a VGA")
    parser.add_argument("--limit", type=int, default=200, metavar="S", help="of one guest (default 200)")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="of all (default 1800)")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    args = parser.parse_args()
    args.path = args.path or choices
    build = os.path.realpath(os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc"))
    qemu = shutil.which(args.qemu_program)
    missing = [f for f in FIRMWARE if not os.path.exists(f)]
    if not qemu or missing:
        raise Failed(f"{' and '.join(missing) or args.qemu_program} is missing; --install-qemu installs QEMU")
    with tempfile.TemporaryDirectory(prefix="bench-exits.") as args.folder:
        print_table(*run(args, os.path.join(build, "src/cli/bothy"), qemu), args.path)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"exits_kvm.py: {failure}")
