#!/usr/bin/env python3
"""How many times a guest leaves its code, per operation, in bothy and in QEMU, with the same kernel and the same devices.

    ./dev bench exits [--install-qemu] [OPTIONS]

One guest is booted again and again: once to do nothing, and once for each path with so many operations; the difference, divided
by the operations, is what one costs. It is Debian's kernel with its virtio modules and busybox. The paths: a character to the
serial port (4 KiB at a time); a 4 KiB read from a virtio disk (direct), one at a time, and eight at once; a frame of the virtio
network, TCP into the guest and out of it (the guest's own counters say how many); a second of a busy processor, and of an idle
one. "boot" is the guest that does nothing. Registers of time sources (HPET, PIT, port 61H) are left out of
everything but boot: kernels read them in a loop for some milliseconds to learn how fast they or the processor are, so that
there are the more of these the less each takes.

What counts is an access to a device: I/O instruction, memory-mapped register, MSR that the machine answers, hypercall; for bothy
from its own account (--exits). In QEMU's TCG nothing exits; it counts accesses to devices by its trace points memory_region_ops_*
(its local APIC is among them, as memory). With --kvm both also run on the host's KVM, where what is counted is every return
from KVM_RUN (QEMU's trace point kvm_run_exit). HLT has a column of its own: who counts it tells how often the processor slept.

"account" is what bothy's account of all its exits costs, device accesses or not, in percent of the time that the vCPU does not
sleep: their number, times what bench_account measures for one.
"""

import argparse
import collections
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from cpu import Failed, TOP

SYSTEM_TESTS = os.path.join(TOP, "tests/system")
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover",
           "net_failover", "virtio_net", "virtio_blk")
DISK_MIB = 64
BLOCK = 4096
APPEND = "console=ttyS0 panic=-1 quiet"

# name: (what one operation is, the operations of one run, the job's commands with $n)
PATHS = {
    "serial": ("character to the serial port", 16384,
               "head -c $n /dev/zero | tr '\\0' . >/dev/ttyS0; echo"),
    "disk": ("disk read, one at a time", 4000,
             "dd if=/dev/vda of=/dev/null bs=4k count=$n iflag=direct 2>/dev/null"),
    "disk-8": ("disk read, eight at once", 4000,
               "for k in 0 1 2 3 4 5 6 7; do dd if=/dev/vda of=/dev/null bs=4k skip=$((k * n / 8)) count=$((n / 8)) "
               "iflag=direct 2>/dev/null & done; wait"),
    "net-in": ("frame, TCP into the guest", 512,
               "wget -q -O /dev/null http://10.0.2.2:$(parameter port)/$n || fail get"),
    "net-out": ("frame, TCP out of the guest", 512,
                "{ printf 'POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n' $((n * 65536)); "
                "dd if=/dev/zero bs=64k count=$n 2>/dev/null; } | nc 10.0.2.2 $(parameter port) >/dev/null"),
    "busy": ("second, busy", 8, "timeout $n sh -c 'while :; do :; done'"),
    "idle": ("second, idle", 8, "sleep $n"),
}
JOB = """n=$(parameter n)
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 || fail eth0
route add default gw 10.0.2.2
frames() { cat /sys/class/net/eth0/statistics/[rt]x_packets | { read a; read b; echo $((a + b)); }; }
before=$(frames)
case $(parameter path) in
%s
esac
say "frames $(($(frames) - before))"
[ -z "$(parameter rest)" ] || sleep $(parameter rest)
"""

# What bothy's engines are to stay below: exits per operation (the boot's without time sources), and percent of the account.
GATES = {"boot": 6000, "serial": 1.3, "disk": 1.1, "disk-8": 1.2, "net-in": 0.3, "net-out": 0.9, "busy": 300, "idle": 60}
ACCOUNT_GATE = 1.0

# bothy's exit reasons that are an access to a device.
DEVICE_REASONS = (18, 30, 31, 32, 48, 49)
HLT = 12
SPUN = re.compile("0xfed00[0-3]|0x4[0-3]$|0x61$|hpet")


class Server(http.server.BaseHTTPRequestHandler):
    """Gives 64 KiB times the path's number, takes what comes."""

    def do_GET(self):
        size = 65536 * int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(bytes(size))

    def do_POST(self):
        left = int(self.headers["Content-Length"])
        while left:
            part = self.rfile.read(min(left, 65536))
            if not part:
                break
            left -= len(part)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def modules_of(kernel):
    """Files by name."""
    tree = os.path.join(kernel.split("/boot/")[0], "lib/modules")
    return {f[:-3]: os.path.join(at, f) for at, _, files in os.walk(tree) for f in files if f.endswith(".ko")}


def prepare(folder):
    """The guest's kernel and initramfs."""
    made = subprocess.run([os.path.join(TOP, "tools/fetch-kernel")], stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        raise Failed("there is no kernel for the guest")
    kernel, pairs = made.stdout.strip(), []
    found = modules_of(kernel)
    for name in MODULES:
        if name not in found:
            raise Failed(f"{kernel} has no module {name} beside it")
        pairs.append(f"{found[name]}=m/{name}.ko")
    with open(os.path.join(folder, "modules"), "w", encoding="utf-8") as f:
        f.writelines(f"/m/{name}.ko\n" for name in MODULES)
    with open(os.path.join(folder, "job"), "w", encoding="utf-8") as f:
        f.write(JOB % "\n".join(f"{name}) {commands} ;;" for name, (_, _, commands) in PATHS.items()))
    with open(os.path.join(folder, "disk"), "wb") as f:
        for _ in range(DISK_MIB):
            f.write(os.urandom(1 << 20))
    initramfs = os.path.join(folder, "initramfs.gz")
    subprocess.run([os.path.join(SYSTEM_TESTS, "make-initramfs"), initramfs, os.path.join(SYSTEM_TESTS, "virtio_init"),
                    f"{folder}/job=job-exits", f"{folder}/modules=modules", *pairs], check=True)
    return kernel, initramfs


class Counts:
    """devices: accesses; hlt: None where nobody counts it; keys: accesses by what was accessed; account: exits booked per ns
    that is not idle, None likewise; frames: by the guest."""

    def __init__(self, devices, hlt, keys, account, frames):
        self.devices, self.hlt, self.keys, self.account, self.frames = devices, hlt, keys, account, frames


def of_bothy(messages):
    exits = json.loads(messages[messages.index("{\n"):messages.rindex("\n}") + 2])
    keys, devices, hlt, booked = collections.Counter(), 0, 0, 0
    for reason in exits["reasons"]:
        booked += reason["count"]
        if reason["reason"] == HLT:
            hlt = reason["count"]
        if reason["reason"] not in DEVICE_REASONS:
            continue
        devices += reason["count"]
        for key in reason["keys"]:
            keys[f"{reason['name']} {key['key']}"] += key["count"]
    return devices, hlt, keys, booked / max(exits["wall_ns"] - exits["idle_ns"], 1)


def of_trace(path):
    keys = collections.Counter()
    pattern = re.compile(r"memory_region_ops_(read|write) .* addr (0x[0-9a-f]+) .* name '(.*)'|kvm_run_exit .* reason (\d+)")
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            found = pattern.search(line)
            if found:
                keys[f"KVM_RUN ends by {found[4]}" if found[4] else f"{found[1]} {found[3]} {found[2]}"] += 1
    kvm = {k: n for k, n in keys.items() if k.startswith("KVM_RUN")}
    if kvm:
        return sum(kvm.values()), kvm.get("KVM_RUN ends by 5", 0), kvm, None
    return sum(keys.values()), None, keys, None


class Bench:
    def __init__(self, args, folder, bothy, qemu, port):
        self.args, self.folder, self.bothy, self.qemu, self.port = args, folder, bothy, qemu, port
        self.kernel, self.initramfs = prepare(folder)

    def command(self, system, append):
        disk = os.path.join(self.folder, "disk")
        what, engine = system.split("-")
        if what == "bothy":
            return [self.bothy, "run", "--engine", engine, "--memory", "256M", "--no-reboot", "--exits=json", "--net", "user,mtu=1500",
                    "--vga", "none", "--disk", disk, "--kernel", self.kernel, "--initrd", self.initramfs, "--append", append]
        points = ("kvm_run_exit",) if engine == "kvm" else ("memory_region_ops_read", "memory_region_ops_write")
        return [self.qemu, "-accel", engine, "-cpu", "host" if engine == "kvm" else "max", "-m", "256", "-nodefaults",
                "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", self.kernel, "-initrd", self.initramfs,
                "-append", append, "-drive", f"file={disk},if=none,id=d,format=raw", "-device",
                "virtio-blk-pci,drive=d,disable-legacy=on", "-netdev", "user,id=n", "-device",
                "virtio-net-pci,netdev=n,disable-legacy=on,romfile=", "-D", os.path.join(self.folder, "trace"),
                *(word for point in points for word in ("-trace", point))]

    def run(self, system, path, n):
        command = self.command(system, f"{APPEND} job=exits path={path} n={n} port={self.port}")
        trace = os.path.join(self.folder, "trace")
        if os.path.exists(trace):
            os.unlink(trace)
        try:
            got = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.args.timeout,
                                 check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"{system}, {path}: the guest does not end within {self.args.timeout:.0f} s") from None
        console = got.stdout.decode("utf-8", "replace").replace("\r", "")
        messages = got.stderr.decode("utf-8", "replace")
        frames = re.search(r"^job: frames (\d+)$", console, re.M)
        if got.returncode or not frames or "job: done" not in console:
            raise Failed("\n".join([f"{system}, {path}: status {got.returncode}", *console.splitlines()[-15:],
                                    *messages.splitlines()[-15:], "the command: " + " ".join(command)]))
        found = of_bothy(messages) if system.startswith("bothy") else of_trace(trace)
        return Counts(*found, int(frames[1]))

    def measure(self, system):
        """By path: device accesses and HLTs per operation, the difference by key, exits booked per ns."""
        start = time.monotonic()
        base, result = self.run(system, "none", 0), {}
        result["boot"] = (base.devices, base.hlt, base.keys, base.account)
        for path in self.args.path:
            n = PATHS[path][1]
            counts = self.run(system, path, n)
            ops = max(counts.frames - base.frames, 1) if path.startswith("net") else n
            hlt = None if counts.hlt is None else (counts.hlt - base.hlt) / ops
            keys = collections.Counter({k: (c - base.keys.get(k, 0)) / ops for k, c in counts.keys.items()})
            spun = sum(n for k, n in keys.items() if SPUN.search(k))
            result[path] = ((counts.devices - base.devices) / ops - spun, hlt, keys, counts.account)
        print(f"{system}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        return result


def show(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.005 else f"{value:.4f}"


def print_table(results, systems, keys, account_ns):
    columns = "".join(f"{s:>14}{'HLT':>8}" + (f"{'account':>9}" if s.startswith("bothy") else "") for s in systems)
    print(f"{'exits per':32}{columns}")
    for path in next(iter(results.values())):
        line = f"{'boot' if path == 'boot' else PATHS[path][0]:32}"
        for s in systems:
            line += f"{show(results[s][path][0]):>14}{show(results[s][path][1]):>8}"
            if results[s][path][3] is not None:
                line += f"{100 * account_ns * results[s][path][3]:8.3f}%"
        print(line)
        for s in systems if keys else ():
            for key, count in collections.Counter(results[s][path][2]).most_common(keys):
                print(f"    {s:10} {show(count):>10}  {key}")


def unmet(results, account_ns):
    """What is not reached, in sentences."""
    for system, by_path in results.items():
        for path, (exits, _, keys, booked) in by_path.items() if system.startswith("bothy") else ():
            if path == "boot":
                exits -= sum(n for k, n in keys.items() if SPUN.search(k))
            if exits > GATES[path]:
                yield f"{system}, {path}: {show(exits)} exits, more than {GATES[path]}"
            if 100 * account_ns * booked > ACCOUNT_GATE:
                yield f"{system}, {path}: the account takes {100 * account_ns * booked:.2f} % of the time"


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench exits", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", action="append", choices=PATHS, help="only this one; may be given several times")
    parser.add_argument("--keys", type=int, default=0, metavar="N", help="also the N most frequent accesses of each path")
    parser.add_argument("--gates", action="store_true", help="fail where bothy needs more exits than it is to")
    parser.add_argument("--kvm", action="store_true", help="also on the host's KVM")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of the table")
    parser.add_argument("--timeout", type=float, default=180, metavar="S", help="limit of one guest (default 180)")
    args = parser.parse_args()
    args.path = args.path or list(PATHS)
    return args


def main():
    args = parse()
    build = os.path.realpath(os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc"))
    qemu = None if args.no_qemu else shutil.which(args.qemu_program)
    if not qemu and not args.no_qemu:
        sys.exit(f"exits.py: there is no {args.qemu_program}; --install-qemu installs it, --no-qemu leaves it out")
    systems = ["bothy-soft"] + ["qemu-tcg"] * bool(qemu)
    if args.kvm:
        systems += ["bothy-kvm"] + ["qemu-kvm"] * bool(qemu)
    account_ns = float(subprocess.run([os.path.join(build, "bench/bench_account")], check=True, stdout=subprocess.PIPE).stdout)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="bench-exits.") as folder:
        bench = Bench(args, folder, os.path.join(build, "src/cli/bothy"), qemu, server.server_address[1])
        results = {s: bench.measure(s) for s in systems}
    if args.json:
        print(json.dumps({"account_ns": account_ns, "systems": {
            s: {p: dict(zip(("exits", "hlt", "keys", "booked_per_ns"), r)) for p, r in by_path.items()}
            for s, by_path in results.items()}}, indent=1))
    else:
        print_table(results, systems, args.keys, account_ns)
        print(f"the account takes {account_ns:.1f} ns an exit")
    missed = list(unmet(results, account_ns)) if args.gates else []
    for sentence in missed:
        print(f"NOT MET: {sentence}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"exits.py: {failure}")
