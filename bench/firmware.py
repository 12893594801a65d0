#!/usr/bin/env python3
"""The benchmark of a BIOS boot: from the start of the program to GRUB's menu, in bothy and in QEMU's TCG, in turns.

    ./dev bench firmware [OPTIONS]

Both start the distribution's SeaBIOS from the reset vector, with the same disk on virtio-blk, whose boot sector and GRUB are the
distribution's, and a VGA. GRUB writes to the serial port; the time is up when the menu's entry is there to be read. In between lie 16-
and 32-bit code, GRUB unpacking itself, and some thousands of accesses to devices. Each figure is one boot; the best is compared.
"""
import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

from cpu import Failed, TITLES, TOP, show_ns, show_ratio

GATE = 0.6  # of TCG's time
BIOS = "/usr/share/seabios/bios-256k.bin"
GRUB = "/usr/lib/grub/i386-pc"
ENTRY = "the entry that is waited for"
MEMORY_MIB = 512
EARLY = "set prefix=(memdisk)/boot/grub\nnormal (memdisk)/boot/grub/grub.cfg\n"
MENU = f"""serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=-1
menuentry "{ENTRY}" {{ true }}
"""


def run(*words):
    got = subprocess.run(words, capture_output=True, text=True, check=False)
    if got.returncode:
        raise Failed(f"'{' '.join(words)}' ends with status {got.returncode}: {got.stdout}{got.stderr}")


def make_disk(folder):
    """A boot sector, and behind it GRUB with its menu inside."""
    for what, package in ((BIOS, "seabios"), (os.path.join(GRUB, "boot.img"), "grub-pc-bin")):
        if not os.path.exists(what):
            raise Failed(f"there is no {what}; install {package}")
    if not shutil.which("grub-mkimage"):
        raise Failed("there is no grub-mkimage; install grub-common")
    tree = os.path.join(folder, "tree/boot/grub")
    os.makedirs(tree)
    for name, text in ((os.path.join(tree, "grub.cfg"), MENU), (os.path.join(folder, "early.cfg"), EARLY)):
        with open(name, "w", encoding="ascii") as f:
            f.write(text)
    disk, core, memdisk = (os.path.join(folder, name) for name in ("disk", "core", "memdisk"))
    run("tar", "-C", os.path.join(folder, "tree"), "-cf", memdisk, "boot")
    run("grub-mkimage", "-O", "i386-pc", "-p", "(memdisk)/boot/grub", "-c", os.path.join(folder, "early.cfg"), "-m", memdisk, "-o",
        core, "biosdisk", "memdisk", "tar", "serial", "terminal", "normal", "configfile", "test", "echo")
    with open(disk, "wb") as f, open(os.path.join(GRUB, "boot.img"), "rb") as sector, open(core, "rb") as rest:
        f.write(sector.read())
        f.write(rest.read())
        f.truncate(8 << 20)
    return disk


class Bench:
    def __init__(self, args, folder, qemu):
        self.args = args
        disk = make_disk(folder)
        bothy = os.path.join(os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc"), "src/cli/bothy")
        self.commands = {
            "bothy": [bothy, "run", "--engine", args.engine, "--firmware", BIOS, "--memory", f"{MEMORY_MIB}M", "--net", "none", "--api",
                      "none", "--disk", f"{disk},ro"],
            "tcg": [qemu, "-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-m", str(MEMORY_MIB), "-nodefaults", "-vga",
                    "std", "-display", "none", "-serial", "stdio", "-bios", BIOS, "-drive",
                    f"file={disk},format=raw,if=virtio,snapshot=on"],
        }

    def boot(self, system):
        """Seconds from the start of the program to the menu."""
        text, start = b"", time.monotonic()
        with subprocess.Popen(self.commands[system], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as guest:
            try:
                while ENTRY.encode() not in text:
                    left = start + self.args.timeout - time.monotonic()
                    if left <= 0 or not select.select([guest.stdout], [], [], left)[0]:
                        raise Failed(f"{TITLES[system]} shows no menu within {self.args.timeout:.0f} s: {text[-500:]!r}")
                    more = os.read(guest.stdout.fileno(), 65536)
                    if not more:
                        raise Failed(f"{TITLES[system]} has ended: {text[-500:]!r} {guest.stderr.read()[-500:]!r}")
                    text += more
                return time.monotonic() - start
            finally:
                guest.kill()


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench firmware", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each system boots (default 10)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of the table")
    parser.add_argument("--gates", action="store_true", help="print what is to be reached, and whether it is")
    parser.add_argument("--engine", default="soft", help="bothy's engine (default soft)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="limit of one boot (default 60)")
    args = parser.parse_args()
    if args.rounds < 1:
        sys.exit("firmware.py: rounds are 1 at least")
    return args


def main():
    args = parse()
    qemu = None if args.no_qemu else shutil.which(args.qemu_program)
    if not args.no_qemu and not qemu:
        sys.exit(f"firmware.py: there is no {args.qemu_program}; install it with --install-qemu, or say --no-qemu")
    systems = ("bothy", "tcg") if qemu else ("bothy",)
    runs = {s: [] for s in systems}
    with tempfile.TemporaryDirectory(prefix="bench-firmware.") as folder:
        bench = Bench(args, folder, qemu)
        for turn in range(args.rounds):
            for system in systems:
                runs[system].append(bench.boot(system))
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    best = {s: min(runs[s]) for s in systems}
    ratio = best["bothy"] / best["tcg"] if qemu else None
    if args.json:
        print(json.dumps({"engine": args.engine, "unit": "s", "best": best, "all": runs,
                          "gate": {"figure": ratio, "bound": GATE, "met": ratio and ratio <= GATE}}, indent=1))
        return
    print(f"BIOS boot to GRUB's menu; best of {args.rounds}\n")
    for system in systems:
        middle = sorted(runs[system])[len(runs[system]) // 2]
        print(f"{TITLES[system]:8}{show_ns(best[system] * 1e9):>10}   (median {show_ns(middle * 1e9)})")
    if qemu:
        print(f"\nbothy/TCG {show_ratio(ratio)}" + (f", <= {GATE}: {'met' if ratio <= GATE else 'NOT MET'}" if args.gates else ""))


try:
    main()
except Failed as failure:
    sys.exit(f"firmware.py: {failure}")
