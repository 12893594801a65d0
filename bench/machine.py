#!/usr/bin/env python3
"""The benchmark of the whole machine: a Debian 12 with systemd in bothy and in QEMU's TCG, beside native, in turns.

    ./dev bench machine [--install-qemu] [OPTIONS]

Both guests boot copies of one image with the same kernel, initial RAM disk and command line, on two virtual processors,
1 GiB of memory, a virtio disk for the root file system, another for reads, and the user network. The time to boot is
from the start of the virtual machine monitor to the login prompt on the console; a unit that failed ends the benchmark.
Then, by ssh: fio reads 4 KiB at random from the second disk (256 MiB, direct); iperf3 sends to a server on the host and
receives from it; bench_smp measures what two processors do together. Natively fio reads the second disk's file
(direct: this is the host's own disk, where the guests may have the host's page cache), and iperf3 goes over the loopback.

Memory beyond guest RAM is the sum of Pss over all mappings but the guest's memory, when the guest has idled for a while after
its boot. Time to the first
instruction is that of a guest with the same devices, and the same kernel and initial RAM disk in memory, whose first
instructions write a byte to a port. Each figure is the best of all rounds.
"""
import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from cpu import Failed, TITLES, TOP, memory_beyond, show_ns, show_ratio

SYSTEMS = ("native", "bothy", "tcg")
MEMORY_MIB = 1024
APPEND = "console=ttyS0 root=/dev/vda rw"
DATA_MIB = 256
FIRST_RUNS = 5
SETTLED = 40  # seconds after which a guest's caches of code are as small as they become
FIRST_STATUS = 1  # of a guest that writes 0 to its debug-exit device

# Figures by name: (label, unit, whether more is better).
FIGURES = {
    "boot": ("boot to the login prompt", "s", False),
    "read-1": ("random 4 KiB reads, one thread", "/s", True),
    "read-8": ("random 4 KiB reads, eight threads", "/s", True),
    "net-out": ("network, out of the guest", "MB/s", True),
    "net-in": ("network, into the guest", "MB/s", True),
    "compute-1": ("computing on one processor", "ns", False),
    "compute-2": ("computing on two", "ns", False),
    "mutex": ("a mutex that two threads want", "ns", False),
    "futex": ("a futex, there and back", "ns", False),
    "mprotect": ("mprotect with a shoot-down", "ns", False),
    "memory": ("memory beyond RAM, settled after the boot", "MiB", False),
    "first": ("start to the first instruction", "s", False),
}
# (figure, against whom, bound): how many times faster than TCG, which part of native speed, or the figure itself.
GATES = (
    ("boot", "tcg", 2.5), ("read-1", "tcg", 2), ("read-8", "tcg", 4), ("net-out", "tcg", 5), ("net-in", "tcg", 5),
    ("compute-2", "one", 1.85), ("mutex", "tcg", 3), ("futex", "tcg", 3), ("mprotect", "native", 0.6),
    ("memory", "most", 40), ("first", "most", 0.020),
)


# --- a guest ---------------------------------------------------------------------------------------------------

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Guest:
    """A Debian that has booted; .boot_s says how long that took."""

    def __init__(self, system, command, port, key, limit):
        self.title, self.command, self.limit = TITLES[system], command, limit
        self.ssh_words = ["ssh", "-q", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o",
                          "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=30", "root@127.0.0.1"]
        self.console, self.messages = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        start = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.messages)
        try:
            while b"login:" not in self.text():
                if self.process.poll() is not None or time.monotonic() > start + limit:
                    self.fail("does not get to its login prompt")
                time.sleep(0.02)
            self.boot_s = time.monotonic() - start
            if self.ssh("systemctl is-system-running --wait", check=False).strip() != "running":
                self.fail("has failed units: " + self.ssh("systemctl --failed --no-legend --plain", check=False))
        except BaseException:
            self.kill()
            raise

    def text(self):
        return os.pread(self.console.fileno(), 1 << 20, 0)

    def fail(self, what):
        messages = os.pread(self.messages.fileno(), 1 << 16, 0)
        tail = (self.text() + messages).decode("utf-8", "replace").replace("\r", "").splitlines()[-25:]
        raise Failed("\n".join([f"{self.title} {what}", *tail, "the command: " + " ".join(self.command)]))

    def ssh(self, command, stdin=None, check=True):
        try:
            got = subprocess.run([*self.ssh_words, command], stdin=stdin or subprocess.DEVNULL, capture_output=True,
                                 text=True, timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.fail(f"does not end '{command}' within {self.limit:.0f} s")
        if check and got.returncode:
            self.fail(f"ends '{command}' with status {got.returncode}: {got.stdout}{got.stderr}")
        return got.stdout

    def power_off(self):
        self.ssh("systemctl poweroff", check=False)
        try:
            if self.process.wait(timeout=self.limit):
                self.fail(f"ends with status {self.process.returncode}")
        except subprocess.TimeoutExpired:
            self.fail("does not power off")
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.console.close()
        self.messages.close()


# --- what is measured --------------------------------------------------------------------------------------------

def native(command, stdin=None):
    got = subprocess.run(["sh", "-c", command], stdin=stdin, capture_output=True, text=True, check=False)
    if got.returncode:
        raise Failed(f"natively '{command}' ends with status {got.returncode}: {got.stdout}{got.stderr}")
    return got.stdout


def json_of(text):
    return json.loads(text[text.index("{"):])


def reads(run, file, threads, seconds):
    got = json_of(run(f"fio --name=reads --filename={file} --readonly --rw=randread --bs=4k --direct=1 --ioengine=libaio "
                      f"--iodepth=1 --numjobs={threads} --thread --group_reporting --time_based --ramp_time=1 "
                      f"--runtime={seconds} --output-format=json"))
    return got["jobs"][0]["read"]["iops"]


def throughput(run, host, port, options, seconds):
    got = json_of(run(f"iperf3 --json -c {host} -p {port} -t {seconds} -O 1 {options}"))
    return got["end"]["sum_received"]["bits_per_second"] / 8e6


def smp(run, command):
    """Nanoseconds and results by test."""
    got = run(command)
    rows = [line.split() for line in got.splitlines() if line.startswith("@result ")]
    if not rows:
        raise Failed(f"'{command}' measures nothing: {got}")
    return {r[1]: float(r[2]) for r in rows}, {r[1]: r[3] for r in rows}


def measure(run, program, file, host, port, args):
    ns, checks = smp(run, f"{program} budget={args.budget}")
    figures = {
        "read-1": reads(run, file, 1, args.seconds), "read-8": reads(run, file, 8, args.seconds),
        "net-out": throughput(run, host, port, "", args.seconds),
        "net-in": throughput(run, host, port, "-R", args.seconds), **ns}
    return figures, checks


def first_instruction(command):
    best = None
    for _ in range(FIRST_RUNS):
        start = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            said = process.stdout.read(1)
            took = time.monotonic() - start
        if said != b"!" or process.returncode != FIRST_STATUS:
            raise Failed(f"'{' '.join(command)}' ends with status {process.returncode} and says {said}")
        best = took if best is None else min(best, took)
    return best


class Bench:
    def __init__(self, args, folder, build, debian, qemu):
        self.args, self.folder, self.debian, self.qemu = args, folder, debian, qemu
        self.bothy = os.path.join(build, "src/cli/bothy")
        self.program, self.first = os.path.join(build, "bench/bench_smp"), os.path.join(build, "bench/bench_first.flat")
        self.data, self.key = os.path.join(folder, "data.img"), os.path.join(debian, "key")
        with open(self.data, "wb") as f:
            for _ in range(DATA_MIB):
                f.write(os.urandom(1 << 20))
            os.fsync(f.fileno())

    def command(self, system, image, port, first=False):
        kernel, initrd = (os.path.join(self.debian, n) for n in ("vmlinuz", "initrd.img"))
        if system == "bothy":
            boot = (["--kernel", self.first, "--initrd", kernel, "--initrd", initrd, "--device", "debug-exit", "--device", "debugcon",
                     "--serial", "none"] if first
                    else ["--kernel", kernel, "--initrd", initrd, "--append", APPEND])
            return [self.bothy, "run", "--engine", self.args.engine, "--cpus", "2", "--memory", f"{MEMORY_MIB}M", "--no-reboot",
                    "--disk", image, "--disk", self.data, "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:22", *boot]
        boot = (["-kernel", self.first, "-initrd", f"{kernel},{initrd}", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                     "-debugcon", "stdio", "-serial", "none"]
                if first else ["-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", APPEND])
        disks = [w for i, file in enumerate((image, self.data)) for w in (
            "-drive", f"file={file},format=raw,if=none,id=d{i}", "-device", f"virtio-blk-pci,drive=d{i}")]
        return [self.qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB), "-nodefaults",
                "-display", "none", "-no-reboot", *disks, "-netdev",
                f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=n", *boot]

    def native(self, port):
        return measure(native, self.program, self.data, "127.0.0.1", port, self.args)

    def guest(self, system, port):
        """Figures and results of one guest's life."""
        image = os.path.join(self.folder, "root.img")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", os.path.join(self.debian, "disk.img"), image], check=True)
        own = free_port()
        guest = Guest(system, self.command(system, image, own), own, self.key, self.args.timeout)
        try:
            is_guest = {"bothy": lambda size, name: "memfd:guest-ram" in name,
                        "tcg": lambda size, name: size == MEMORY_MIB << 20}[system]
            time.sleep(SETTLED)
            memory = memory_beyond(guest.process.pid, is_guest)["Pss"] / 1024
            with open(self.program, "rb") as f:
                guest.ssh("cat >/var/tmp/bench_smp && chmod +x /var/tmp/bench_smp", stdin=f)
            figures, checks = measure(guest.ssh, "/var/tmp/bench_smp", "/dev/vdb", "10.0.2.2", port, self.args)
            guest.power_off()
        finally:
            guest.kill()
        first = first_instruction(self.command(system, image, free_port(), first=True))
        return {"boot": guest.boot_s, "memory": memory, "first": first, **figures}, checks


# --- results -------------------------------------------------------------------------------------------------------

def best_of(runs):
    best = {}
    for system, results in runs.items():
        for name, (_, _, more) in FIGURES.items():
            got = [r[name] for r in results if name in r]
            if got:
                best.setdefault(name, {})[system] = max(got) if more else min(got)
    return best


def speed(best, name, of, against):
    """How many times faster `of` is than `against`."""
    a, b = best[name].get(of), best[name].get(against)
    if not a or not b:
        return None
    return a / b if FIGURES[name][2] else b / a


def show(name, value):
    unit = FIGURES[name][1]
    if value is None:
        return ""
    if unit in ("s", "ns"):
        return show_ns(value * (1e9 if unit == "s" else 1))
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def gates(best):
    """Rows of (what, figure, bound, met)."""
    rows = []
    for name, against, bound in GATES:
        label = FIGURES[name][0]
        if against == "most":
            value = best[name]["bothy"]
            rows.append((label, show(name, value), f"<= {show(name, bound)}", value <= bound))
            continue
        r = (best["compute-1"]["bothy"] / best["compute-2"]["bothy"] if against == "one"
             else speed(best, name, "bothy", against))
        if r:
            whom = {"tcg": "times TCG", "native": "of native", "one": "times one"}[against]
            rows.append((label, f"{show_ratio(r)} {whom}", f">= {bound}", r >= bound))
    return rows


def print_table(best, systems):
    print(f"{'':36}" + "".join(f"{TITLES[s]:>13}" for s in systems) + f"{'bothy/native':>14}"
          + (f"{'bothy/TCG':>11}" if "tcg" in systems else ""))
    for name, (label, _, _) in FIGURES.items():
        cells = "".join(f"{show(name, best[name].get(s)):>13}" for s in systems)
        ratios = [show_ratio(speed(best, name, "bothy", s)) for s in ("native", "tcg") if s in systems]
        print(f"{label:36}{cells}{ratios[0]:>14}" + "".join(f"{r:>11}" for r in ratios[1:]))
    print("\nratios: how many times faster bothy is")


# --- the command ------------------------------------------------------------------------------------------------------

def parse():
    parser = argparse.ArgumentParser(prog="./dev bench machine", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each system does everything (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="of each run of fio and iperf3 (default 5)")
    parser.add_argument("--budget", type=int, default=500, metavar="MS",
                        help="milliseconds for the runs of one test of two processors (default 500)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of the table")
    parser.add_argument("--gates", action="store_true", help="print what the machine is to reach, and whether it does")
    parser.add_argument("--engine", default="soft", help="bothy's engine (default soft)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    parser.add_argument("--timeout", type=float, default=180, metavar="S", help="limit of one step (default 180)")
    args = parser.parse_args()
    if min(args.rounds, args.seconds, args.budget) < 1:
        sys.exit("machine.py: rounds, seconds and budget are 1 at least")
    return args


def rounds(bench, systems, port):
    """Lists of figures by system; results by test, each with who has it."""
    runs, checks = {s: [] for s in systems}, {}
    for turn in range(bench.args.rounds):
        for system in systems:
            start = time.monotonic()
            figures, results = bench.native(port) if system == "native" else bench.guest(system, port)
            runs[system].append(figures)
            for name, result in results.items():
                checks.setdefault(name, {}).setdefault(result, set()).add(TITLES[system])
            print(f"round {turn + 1} of {bench.args.rounds}: {TITLES[system]}, {time.monotonic() - start:.1f} s",
                  file=sys.stderr)
    return runs, checks


def main():
    args = parse()
    build = os.path.realpath(os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc"))
    for tool in ("fio", "iperf3", "ssh"):
        if not shutil.which(tool):
            sys.exit(f"machine.py: there is no {tool}; install fio, iperf3 and openssh-client")
    qemu = None if args.no_qemu else shutil.which(args.qemu_program)
    if not qemu and not args.no_qemu:
        sys.exit(f"machine.py: there is no {args.qemu_program}; --install-qemu installs it, --no-qemu leaves it out")
    systems = SYSTEMS if qemu else SYSTEMS[:2]
    made = subprocess.run([os.path.join(TOP, "tools/make-debian")], stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        return 1
    debian, port = made.stdout.strip(), free_port()
    # On a disk, not in memory: natively reads are the host disk's.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(debian), prefix="bench-machine.") as folder:
        server = subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL)
        try:
            runs, checks = rounds(Bench(args, folder, build, debian, qemu), systems, port)
        finally:
            server.kill()
            server.wait()
    best = best_of(runs)
    rows = gates(best)
    wrong = {n: {c: sorted(s) for c, s in results.items()} for n, results in checks.items() if len(results) > 1}
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = (re.findall(r"^model name\s*: (.*)$", f.read(), re.M) or ["unknown CPU"])[0]
    version = ""
    if qemu:
        version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    if args.json:
        print(json.dumps({
            "host": model, "qemu": version, "engine": args.engine, "rounds": args.rounds,
            "units": {n: unit for n, (_, unit, _) in FIGURES.items()}, "best": best, "all": runs, "wrong": wrong,
            "gates": [dict(zip(("what", "figure", "bound", "met"), r)) for r in rows]}, indent=1))
    else:
        print(f"{model}" + (f"; {version}" if version else "") + f"; best of {args.rounds} rounds\n")
        print_table(best, systems)
        if args.gates:
            print("\ngates")
            for what, figure, bound, met in rows:
                print(f"{what:36}{figure:>20}   {bound:10} {'met' if met else 'NOT MET'}")
    for name, results in wrong.items():
        print(f"different results: {FIGURES[name][0]}: {results}", file=sys.stderr)
    return 1 if wrong else 0


try:
    sys.exit(main())
except Failed as failure:
    sys.exit(f"machine.py: {failure}")
