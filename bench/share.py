#!/usr/bin/env python3
"""The benchmark of shared folders: git status on many files in a shared folder, in bothy and in QEMU's TCG with virtiofsd, in turns.

    ./dev bench share [OPTIONS]

Both guests boot Debian's kernel, with its own virtiofs driver and the same initial RAM disk, on two virtual processors. A repository
of 10,000 files in 100 folders lies in the shared folder. Fresh is git status right after the folder was mounted, when the guest knows
nothing of it; again is the next one. Natively git runs on the host, on the same folder. Each figure is the best of all rounds.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from cpu import Failed, TITLES, TOP, show_ns, show_ratio

FIGURES = {"fresh": "git status, nothing known", "again": "git status, again", "list": "find, nothing known"}
GATE = 3  # times as fast as TCG with virtiofsd, in the first
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "fuse", "virtiofs")
MEMORY_MIB = 512
JOB = """
now() { cut -d ' ' -f 1 /proc/uptime; }
export HOME=/ PATH=/bin
n=0
while [ $n -lt RUNS ]; do
	mount -t virtiofs work /mnt || fail mount
	a=$(now); git -C /mnt status --porcelain >/out || fail git
	b=$(now); git -C /mnt status --porcelain >>/out || fail git
	c=$(now); umount /mnt; mount -t virtiofs work /mnt || fail mount
	d=$(now); find /mnt -newer /init >/dev/null; e=$(now); umount /mnt
	[ -s /out ] && fail "there are changes: $(head -n 3 /out)"
	say "times $a $b $c $d $e"
	n=$((n + 1))
done
"""


def run(*words, **more):
    got = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    if got.returncode:
        raise Failed(f"'{' '.join(words)}' ends with status {got.returncode}: {got.stdout}{got.stderr}")
    return got.stdout


def make_repository(folder, files):
    for i in range(files):
        name = os.path.join(folder, f"dir{i % 100}", f"file{i}")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w", encoding="ascii") as f:
            f.write(f"file {i}\n" * 20)
    git = ("git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench", "-c", "gc.auto=0")
    run(*git, "init", "-q")
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "all")
    # Younger than the index, all files would be read again each time.
    time.sleep(1.1)
    run(*git, "status")


def make_guest(folder, runs):
    """Kernel and initial RAM disk with the host's own git."""
    kernel = run(os.path.join(TOP, "tools/fetch-kernel")).strip()
    modules, pairs = os.path.join(kernel.split("/boot/")[0], "lib/modules"), []
    with open(os.path.join(folder, "modules"), "w", encoding="ascii") as f:
        for name in MODULES:
            found = run("find", modules, "-name", f"{name}.ko").split()
            if not found:
                raise Failed(f"the kernel {kernel} has no module {name}")
            pairs.append(f"{found[0]}=m/{name}.ko")
            f.write(f"/m/{name}.ko\n")
    with open(os.path.join(folder, "job"), "w", encoding="ascii") as f:
        f.write(JOB.replace("RUNS", str(runs)))
    git = shutil.which("git")
    libraries = re.findall(r"(/\S+) \(0x", run("ldd", git))
    pairs += [f"{folder}/modules=modules", f"{folder}/job=job-status", f"{git}=bin/git",
              *(f"{os.path.realpath(name)}={name[1:]}" for name in libraries)]
    initrd = os.path.join(folder, "initramfs.gz")
    run(os.path.join(TOP, "tests/system/make-initramfs"), initrd, os.path.join(TOP, "tests/system/virtio_init"), *pairs)
    return kernel, initrd


class Bench:
    def __init__(self, args, folder, virtiofsd, qemu):
        self.args, self.folder, self.virtiofsd, self.qemu = args, folder, virtiofsd, qemu
        self.share = os.path.join(folder, "share")
        os.mkdir(self.share)
        make_repository(self.share, args.files)
        self.kernel, self.initrd = make_guest(folder, args.runs)
        self.bothy = os.path.join(os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc"), "src/cli/bothy")

    def native(self):
        times = []
        for words in (("git", "-C", self.share, "status", "--porcelain"), ("find", self.share, "-newer", self.initrd)):
            best = None
            for _ in range(self.args.runs):
                start = time.monotonic()
                run(*words)
                took = time.monotonic() - start
                best = took if best is None else min(best, took)
            times.append(best)
        return {"fresh": times[0], "again": times[0], "list": times[1]}

    def guest(self, system):
        append = "console=ttyS0 panic=-1 quiet job=status"
        server = None
        if system == "bothy":
            command = [self.bothy, "run", "--engine", self.args.engine, "--cpus", "2", "--memory", f"{MEMORY_MIB}M",
                       "--no-reboot", "--net", "none", "--api", "none", "--kernel", self.kernel, "--initrd", self.initrd,
                       "--append", append, "--share", f"work={self.share}"]
        else:
            socket = os.path.join(self.folder, "virtiofsd.sock")
            server = subprocess.Popen([self.virtiofsd, f"--socket-path={socket}", "-o", f"source={self.share}", "-o",
                                       "cache=auto", "-o", "sandbox=chroot"], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            while not os.path.exists(socket) and server.poll() is None:
                time.sleep(0.01)
            command = [self.qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB),
                       "-object", f"memory-backend-memfd,id=m,size={MEMORY_MIB}M,share=on", "-numa", "node,memdev=m",
                       "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-chardev",
                       f"socket,id=c,path={socket}", "-device", "vhost-user-fs-pci,chardev=c,tag=work", "-kernel",
                       self.kernel, "-initrd", self.initrd,
                       # On a busy host the kernel's test of the timer fails there now and then.
                       "-append", f"{append} no_timer_check"]
        try:
            got = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                 errors="replace", timeout=self.args.timeout)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"{TITLES[system]} does not end within {self.args.timeout:.0f} s") from late
        finally:
            if server:
                server.kill()
                server.wait()
                if os.path.exists(socket):
                    os.unlink(socket)
        rows = [[float(t) for t in row.split()] for row in re.findall(r"^job: times ([\d. ]+)", got.stdout, re.M)]
        if len(rows) != self.args.runs:
            raise Failed(f"{TITLES[system]}: {got.stdout[-2000:]}{got.stderr[-2000:]}")
        return {"fresh": min(b - a for a, b, _, _, _ in rows), "again": min(c - b for _, b, c, _, _ in rows),
                "list": min(e - d for _, _, _, d, e in rows)}


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench share", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each system does everything (default 3)")
    parser.add_argument("--runs", type=int, default=3, help="how often in each life of a guest (default 3)")
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of the table")
    parser.add_argument("--gates", action="store_true", help="print what is to be reached, and whether it is")
    parser.add_argument("--engine", default="soft", help="bothy's engine (default soft)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    parser.add_argument("--virtiofsd", default="/usr/lib/qemu/virtiofsd")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="limit of one guest's life (default 300)")
    args = parser.parse_args()
    if min(args.rounds, args.runs, args.files) < 1:
        sys.exit("share.py: rounds, runs and files are 1 at least")
    return args


def main():
    args = parse()
    qemu, virtiofsd = (None, None) if args.no_qemu else (shutil.which(args.qemu_program), shutil.which(args.virtiofsd))
    if not args.no_qemu and not (qemu and virtiofsd):
        sys.exit("share.py: QEMU or virtiofsd is not there; --no-qemu leaves them out")
    systems = ("native", "bothy", "tcg") if qemu else ("native", "bothy")
    runs = {s: [] for s in systems}
    with tempfile.TemporaryDirectory(prefix="bench-share.") as folder:
        bench = Bench(args, folder, virtiofsd, qemu)
        for turn in range(args.rounds):
            for system in systems:
                start = time.monotonic()
                runs[system].append(bench.native() if system == "native" else bench.guest(system))
                print(f"round {turn + 1} of {args.rounds}: {TITLES[system]}, {time.monotonic() - start:.1f} s", file=sys.stderr)
    best = {name: {s: min(r[name] for r in runs[s]) for s in systems} for name in FIGURES}
    ratio = best["fresh"]["tcg"] / best["fresh"]["bothy"] if qemu else None
    if args.json:
        print(json.dumps({"files": args.files, "engine": args.engine, "unit": "s", "best": best, "all": runs,
                          "gate": {"figure": ratio, "bound": GATE, "met": ratio and ratio >= GATE}}, indent=1))
        return
    print(f"{args.files} files; best of {args.rounds} rounds of {args.runs}\n")
    print(f"{'':30}" + "".join(f"{TITLES[s]:>13}" for s in systems) + (f"{'bothy/TCG':>11}" if qemu else ""))
    for name, label in FIGURES.items():
        row = best[name]
        print(f"{label:30}" + "".join(f"{show_ns(row[s] * 1e9):>13}" for s in systems)
              + (f"{show_ratio(row['tcg'] / row['bothy']):>11}" if qemu else ""))
    if args.gates and ratio:
        print(f"\n{FIGURES['fresh']}: {show_ratio(ratio)} times TCG, >= {GATE}: {'met' if ratio >= GATE else 'NOT MET'}")


try:
    main()
except Failed as failure:
    sys.exit(f"share.py: {failure}")
