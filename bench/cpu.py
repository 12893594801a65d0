#!/usr/bin/env python3
"""The benchmark of the CPU engine: one static program natively, in bothy and in QEMU's TCG, in turns.

    ./dev bench cpu [--install-qemu] [OPTIONS] [TEST...]

In the guests the program is process 1 of the same kernel with the same command line and the same initial RAM disk, on
one virtual CPU; natively it keeps to one CPU. Each figure is nanoseconds per operation, the best of all runs
of all rounds. Every test also gives a result that has to be the same everywhere; where it is not, the figure is
worth nothing, and the exit status is 1.

The time to the first process is from the start of the virtual machine monitor to the first line that the guest's
program prints. Resident memory beyond guest RAM is the sum of Pss over all mappings but the guest's memory, so that a
page mapped twice counts once; it is read while the guest waits.
"""
import argparse
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

TOP = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..")
SYSTEMS = ("native", "bothy", "tcg")
POINTS = (("boot", "at first"), ("end", "at the end"))
TITLES = {"native": "native", "bothy": "bothy", "tcg": "TCG"}
MEMORY_MIB = 512
APPEND = "console=ttyS0 quiet panic=-1"
ALL_FP = ("matmul-scalar", "matmul-sse2", "matmul-avx2", "x87")
ALL_KERNEL = ("getppid", "clock", "fault", "pipe", "fork", "exec")

# What the translator is to reach: (tests, against whom, bound). Against TCG the bound is how many times faster,
# against native how many times slower.
GATES = (
    [(("matmul-scalar",), "tcg", 8), (("matmul-sse2",), "tcg", 30), (("matmul-avx2",), "tcg", 500),
     (("memcpy",), "tcg", 40), (("fib", "qsort", "bytecode"), "tcg", 4), (("getppid",), "tcg", 2),
     (("fault",), "tcg", 3), (("pipe",), "tcg", 7), (("fork", "patch"), "tcg", 5),
     (ALL_KERNEL, "native", 4), (("memcpy",), "native", 1.3), (("fib",), "native", 1.5), (ALL_FP, "native", 1.6)])
GATE_LOSS = 0.95       # of TCG's speed, for every test: less is a loss beyond noise
GATE_BOOT = 0.5        # of TCG's time to the first process
GATE_MEMORY_BOOT = 32  # MiB beyond guest RAM
GATE_MEMORY_END = 96


class Failed(Exception):
    pass


# --- running --------------------------------------------------------------------------------------------------

def cpio_entry(name, mode, data=b"", rdev=(0, 0)):
    """One entry of a newc archive; cpio(5)."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(path), 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def make_initramfs(path, program):
    with open(program, "rb") as f:
        init = f.read()
    with open(path, "wb") as f:
        f.write(cpio_entry("dev", 0o040755) + cpio_entry("sys", 0o040755)
                + cpio_entry("dev/console", 0o020600, rdev=(5, 1)) + cpio_entry("init", 0o100755, init)
                + cpio_entry("TRAILER!!!", 0))


def memory_beyond(pid, is_guest):
    """Pss and Rss in KiB of the mappings that are not the guest's memory. IS_GUEST: takes a mapping's size and name."""
    total, guest = {"Pss": 0, "Rss": 0}, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)", line)
            if m:
                guest = is_guest(int(m[2], 16) - int(m[1], 16), m[3])
                continue
            m = re.match(r"(Pss|Rss): +(\d+) kB", line)
            if m and not guest:
                total[m[1]] += int(m[2])
    return total


def run(what, command, limit, beyond=None):
    """One run of the program; what it printed."""
    start = time.monotonic()
    got = {"ns": {}, "check": {}, "skip": {}, "memory": {}, "clock": ""}
    text, pending, ended = b"", b"", False
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages)

        def go_on(point):
            got["memory"][point] = memory_beyond(process.pid, beyond)
            process.stdin.write(b"\n")
            process.stdin.flush()

        try:
            while True:
                left = start + limit - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    raise Failed(f"{what} did not end within {limit:.0f} s")
                data = os.read(process.stdout.fileno(), 65536)
                now = time.monotonic()
                if not data:
                    break
                text += data
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    m = re.search(r"@(\w+) ?(.*)", line.decode("utf-8", "replace").strip())
                    words = m[2].split() if m else []
                    if not m:
                        continue
                    if m[1] == "ready":
                        got["boot_s"] = now - start
                        go_on("boot")
                    elif m[1] == "end":
                        ended = True
                        go_on("end")
                    elif m[1] == "result" and len(words) == 4:
                        got["ns"][words[0]] = float(words[1])
                        got["check"][words[0]] = words[2]
                    elif m[1] == "skip" and words:
                        got["skip"][words[0]] = " ".join(words[1:])
                    elif m[1] == "clock":
                        got["clock"] = m[2]
                    elif m[1] == "failed":
                        raise Failed(f"{what}: {m[2]}")
            status = process.wait(timeout=10)
            if status or (beyond and not ended):
                raise Failed(f"{what} ended with status {status}")
        except (Failed, OSError, subprocess.TimeoutExpired) as e:
            messages.seek(0)
            tail = (text + messages.read()).decode("utf-8", "replace").replace("\r", "").splitlines()[-25:]
            raise Failed("\n".join([str(e), *tail, "the command: " + " ".join(command)])) from e
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()
    got["total_s"] = time.monotonic() - start
    return got


# --- results --------------------------------------------------------------------------------------------------

def show_ns(ns):
    for unit, scale in (("ns", 1), ("us", 1e3), ("ms", 1e6), ("s", 1e9)):
        v = ns / scale
        if v < 999.5 or unit == "s":
            return f"{v:.3g} {unit}" if v < 99.95 else f"{v:.0f} {unit}"


def show_ratio(r):
    return "" if r is None else f"{r:.2f}" if r < 9.995 else f"{r:.1f}" if r < 99.95 else f"{r:,.0f}"


def ratio(test, above, below):
    return test[above] / test[below] if test.get(above) and test.get(below) else None


def geomean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def summarize(tests, runs):
    """Best figures into TESTS; the tests whose results differ between the systems."""
    wrong = []
    for name, test in tests.items():
        checks = {}
        for system, results in runs.items():
            figures = [r["ns"][name] for r in results if name in r["ns"]]
            if figures:
                test[system] = min(figures)
                test.setdefault("all", {})[system] = figures
            for r in results:
                if name in r["check"]:
                    checks.setdefault(r["check"][name], set()).add(TITLES[system])
            reasons = [r["skip"][name] for r in results if name in r["skip"]]
            if reasons:
                test.setdefault("skip", {})[system] = reasons[0]
        if len(checks) > 1:
            wrong.append(f"{test['label']}: " + ", ".join(f"{c} ({' '.join(sorted(s))})" for c, s in checks.items()))
    return wrong


def gates(tests, tcg, boot, memory):
    """Rows of (what, figure, bound, met)."""
    rows, listed = [], set()

    def add(name, against, bound):
        test = tests[name]
        if against == "tcg":
            r = ratio(test, "tcg", "bothy")
            row = r and (test["label"], f"{show_ratio(r)} times TCG", f">= {bound}", r >= bound)
        else:
            r = ratio(test, "bothy", "native")
            row = r and (test["label"], f"{show_ratio(r)} x native", f"<= {bound}", r <= bound)
        if row:
            rows.append(row)

    for names, against, bound in GATES:
        for name in names:
            if name in tests:
                add(name, against, bound)
                listed.add((name, against))
    for name in tests:
        if (name, "tcg") not in listed:
            add(name, "tcg", GATE_LOSS)
    if tcg:
        r = boot["bothy"] / boot["tcg"]
        rows.append(("time to the first process", f"{r:.2f} of TCG's", f"<= {GATE_BOOT}", r <= GATE_BOOT))
    for (point, when), bound in zip(POINTS, (GATE_MEMORY_BOOT, GATE_MEMORY_END)):
        mib = memory["bothy"][point] / 1024
        rows.append((f"memory beyond RAM, {when}", f"{mib:.1f} MiB", f"<= {bound}", mib <= bound))
    return rows


def print_table(tests, systems, boot, memory):
    tcg = "tcg" in systems
    head = f"{'test':34}{'native':>10}{'bothy':>10}" + (f"{'TCG':>10}" if tcg else "") + f"{'bothy/native':>14}"
    print(head + (f"{'TCG/native':>12}{'TCG/bothy':>11}" if tcg else ""))
    groups = {}

    def ratios(values):
        b, t, tb = values
        return f"{show_ratio(b):>14}" + (f"{show_ratio(t):>12}{show_ratio(tb):>11}" if tcg else "")

    for test in tests.values():
        r = ratio(test, "bothy", "native"), ratio(test, "tcg", "native"), ratio(test, "tcg", "bothy")
        if all(s in test for s in systems):
            groups.setdefault(test["group"], []).append(r)
        cells = "".join(f"{show_ns(test[s]) if s in test else 'skipped':>10}" for s in systems)
        print(f"{test['label']:34}{cells}{ratios(r)}")
    print("\ngeometric means, of what all can run")
    for group, rs in [*groups.items(), ("all", sum(groups.values(), []))]:
        means = [geomean(v) for v in zip(*rs)] or [None] * 3
        print(f"{group:34}{'':{10 * len(systems)}}{ratios(means)}")
    print(f"\n{'of the machine':34}" + "".join(f"{TITLES[s]:>10}" for s in systems[1:]))
    print(f"{'time to the first process':34}" + "".join(f"{boot[s]:>8.2f} s" for s in systems[1:]))
    for point, when in POINTS:
        cells = (f"{memory[s][point] / 1024:>6.1f} MiB" for s in systems[1:])
        print(f"{'memory beyond RAM, ' + when:34}" + "".join(cells))


# --- the picture ----------------------------------------------------------------------------------------------

def write_svg(path, tests, systems, caption):
    """Bars of time relative to native, on a logarithmic scale."""
    colours = {"bothy": "#1f6f8b", "tcg": "#d98e4a"}
    drawn = [s for s in systems if s != "native"]
    rows = [t for t in tests.values() if ratio(t, "bothy", "native")]
    common = [t for t in rows if all(s in t for s in systems)]
    rows.append({"label": "geometric mean", **{s: geomean([ratio(t, s, "native") for t in common]) for s in drawn},
                 "native": 1.0})
    values = [ratio(t, s, "native") for t in rows for s in drawn if ratio(t, s, "native")]
    # A little less than 1 needs no decade of its own.
    low = min(0, math.floor(math.log10(min(values)) + 0.2))
    high = max(1, math.ceil(math.log10(max(values) * 1.01)))
    left, width, bar, gap, top = 230, 560, 9, 9, 64
    pitch = bar * len(drawn) + gap
    bottom = top + pitch * len(rows)

    def x(v):
        return left + width * (math.log10(v) - low) / (high - low)

    def text(at_x, at_y, s, anchor="start", size=12, extra=""):
        s = s.replace("&", "&amp;").replace("<", "&lt;")
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" font-size="{size}"{extra}>{s}</text>'

    right, foot = left + width + 70, bottom + 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{foot}" viewBox="0 0 {right} {foot}" '
           f'font-family="sans-serif" fill="#222">',
           f'<title>Time relative to native</title><rect width="100%" height="100%" fill="#fff"/>',
           text(16, 24, "Time relative to native execution, logarithmic; shorter is better", size=14,
                extra=' font-weight="bold"')]
    for i, s in enumerate(drawn):
        out.append(f'<rect x="{left + 110 * i}" y="36" width="12" height="12" fill="{colours[s]}"/>')
        out.append(text(left + 110 * i + 18, 46, "bothy" if s == "bothy" else "QEMU TCG"))
    for e in range(low, high + 1):
        out.append(f'<line x1="{x(10 ** e):.1f}" y1="{top - 6}" x2="{x(10 ** e):.1f}" y2="{bottom}" '
                   f'stroke="{"#888" if e == 0 else "#ddd"}"/>')
        out.append(text(x(10 ** e), bottom + 14, f"{10 ** e:,g}x" if e else "native", "middle", 11))
    for i, t in enumerate(rows):
        y = top + pitch * i
        weight = ' font-weight="bold"' if i == len(rows) - 1 else ""
        out.append(text(left - 8, y + bar * len(drawn) / 2 + 4, t["label"], "end", extra=weight))
        for j, s in enumerate(drawn):
            r = ratio(t, s, "native")
            if not r:
                continue
            a, b = sorted((x(1), x(r)))
            out.append(f'<rect x="{a:.1f}" y="{y + bar * j}" width="{max(b - a, 1):.1f}" height="{bar - 1}" '
                       f'fill="{colours[s]}"/>')
            out.append(text(b + 4, y + bar * j + bar - 1.5, show_ratio(r), size=9))
    out += [text(16, bottom + 36, caption, size=11, extra=' fill="#666"'), "</svg>\n"]
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out))


# --- the command ----------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(prog="./dev bench cpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", metavar="TEST", help="only these; 'list' lists them")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system runs all tests (default 3)")
    parser.add_argument("--budget", type=int, default=200, metavar="MS",
                        help="milliseconds for the runs of one test (default 200)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON in place of the table")
    parser.add_argument("--svg", metavar="FILE", help="draw the ratios to native")
    parser.add_argument("--gates", action="store_true",
                        help="print what the translator is to reach, and whether it does")
    parser.add_argument("--engine", default="soft", help="bothy's engine (default soft)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--qemu-program", default="qemu-system-x86_64")
    parser.add_argument("--timeout", type=float, default=180, metavar="S", help="limit of one run (default 180)")
    args = parser.parse_args()
    build = os.environ.get("BOTHY_BUILD_DIR") or os.path.join(TOP, "build/gcc")
    bothy, program = os.path.join(build, "src/cli/bothy"), os.path.join(build, "bench/bench_cpu")
    for path in (bothy, program):
        if not os.path.exists(path):
            sys.exit(f"cpu.py: there is no {path}; ./dev bench cpu builds it")
    listing = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout
    tests = {}
    for line in listing.splitlines():
        name, group, label = line.split("\t")
        tests[name] = {"group": group, "label": label}
    if args.tests == ["list"]:
        print("\n".join(f"{name:16}{t['label']}" for name, t in tests.items()))
        return 0
    unknown = [n for n in args.tests if n not in tests]
    if unknown or args.rounds < 1 or args.budget < 1:
        sys.exit(f"cpu.py: no test '{unknown[0]}'; 'list' lists them" if unknown else
                 "cpu.py: rounds and budget are 1 at least")
    if args.tests:
        tests = {n: t for n, t in tests.items() if n in args.tests}
    systems, qemu = ["native", "bothy"], None
    if not args.no_qemu:
        qemu = shutil.which(args.qemu_program)
        if qemu:
            systems.append("tcg")
        else:
            print(f"There is no {args.qemu_program}: going on without TCG. "
                  "./dev bench cpu --install-qemu installs it.", file=sys.stderr)
    kernel = subprocess.run([os.path.join(TOP, "tools/fetch-kernel")], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.strip()
    words = [f"budget={args.budget}", *args.tests]
    append = " ".join([APPEND, "--", *words])
    runs = {s: [] for s in systems}
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initramfs")
        make_initramfs(initrd, program)
        commands = {
            "native": [program, *words],
            "bothy": [bothy, "run", "--engine", args.engine, "--memory", f"{MEMORY_MIB}M", "--no-reboot", "--kernel",
                      kernel, "--initrd", initrd, "--append", append],
            "tcg": [qemu, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MIB), "-nodefaults", "-display",
                    "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", append],
        }
        beyond = {"native": None, "bothy": lambda size, name: "memfd:guest-ram" in name,
                  "tcg": lambda size, name: size == MEMORY_MIB << 20}
        for turn in range(args.rounds):
            for system in systems:
                result = run(TITLES[system], commands[system], args.timeout, beyond[system])
                runs[system].append(result)
                print(f"round {turn + 1} of {args.rounds}: {TITLES[system]}, {result['total_s']:.1f} s",
                      file=sys.stderr)

    wrong = summarize(tests, runs)
    guests = systems[1:]
    boot = {s: min(r["boot_s"] for r in runs[s]) for s in guests}
    # The last run's; a run does not differ from the others by luck here.
    memory = {s: {p: runs[s][-1]["memory"][p]["Pss"] for p in ("boot", "end")} for s in guests}
    clocks = {s: runs[s][-1]["clock"] for s in guests}
    version = ""
    if qemu:
        version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = (re.findall(r"^model name\s*: (.*)$", f.read(), re.M) or ["unknown CPU"])[0]
    about = f"{model}; {os.path.basename(kernel)}" + (f"; {version}" if version else "")
    rows = gates(tests, "tcg" in systems, boot, memory)
    if args.svg:
        write_svg(args.svg, tests, systems, about)
    if args.json:
        print(json.dumps({
            "host": model, "kernel": os.path.basename(kernel), "qemu": version, "engine": args.engine,
            "rounds": args.rounds, "budget_ms": args.budget, "unit": "ns per operation", "tests": tests, "wrong": wrong,
            "boot_s": {s: [r["boot_s"] for r in runs[s]] for s in guests},
            "memory_beyond_guest_ram_kib": {s: [r["memory"] for r in runs[s]] for s in guests},
            "clock_source": clocks,
            "geometric_means": {f"{a}/{b}": geomean([ratio(t, a, b) for t in tests.values()
                                                     if all(s in t for s in systems)])
                                for a, b in (("bothy", "native"), ("tcg", "native"), ("tcg", "bothy"))},
            "gates": [dict(zip(("what", "figure", "bound", "met"), r)) for r in rows]}, indent=1))
    else:
        print(f"{about}; best of {args.rounds} rounds\n")
        print_table(tests, systems, boot, memory)
        print(f"{'clock source of the guest':34}" + "".join(f"{clocks[s]:>10}" for s in guests))
        for test in tests.values():
            for s, why in test.get("skip", {}).items():
                print(f"skipped: {test['label']} ({TITLES[s]}): {why}")
        if args.gates:
            print("\ngates")
            for what, figure, bound, met in rows:
                print(f"{what:34}{figure:>20}   {bound:8} {'met' if met else 'NOT MET'}")
    for line in wrong:
        print(f"different results: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"cpu.py: {failure}")
