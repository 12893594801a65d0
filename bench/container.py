#!/usr/bin/env python3
"""container [COUNT]: create, start and delete a container whose program ends at once, COUNT times (100) in turns with crun and
runc where they are installed. Prints milliseconds, the most memory that each command had resident, what the process that waits
for `start` has, and the ratios. Fails where bothy takes more than 0.9 times crun's time, or more memory than crun.

Needs root. crun of Debian 12 refuses machines that mix both versions of control groups, so all of them run in a mount
namespace without the second one's; configurations are of version 1.0, which all of them take.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

build = os.environ.get("BOTHY_BUILD_DIR", "build/gcc")
bothy = os.path.abspath(os.path.join(build, "src/cli/bothy-oci"))
probe = os.path.abspath(os.path.join(build, "tests/container/container_probe"))
peak = os.path.abspath(os.path.join(build, "bench/bench_peak"))
UNIFIED = "/sys/fs/cgroup/unified"
STEPS = ("create", "start", "delete")


def spawn(words):
    """Milliseconds that a program takes."""
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    start = time.perf_counter()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=null)
    status = os.waitpid(pid, 0)[1]
    if status:
        sys.exit(f"{' '.join(words)} fails with status {status}")
    return (time.perf_counter() - start) * 1000


def memory(path, root, bundle):
    """KiB resident: the most of create, start and delete, and of the process between create and start."""
    peaks, waiting = [], 0
    for words in (["create", "--bundle", bundle, "x"], ["start", "x"], ["delete", "--force", "x"]):
        # The container holds its standard error.
        with tempfile.TemporaryFile("w+") as out:
            subprocess.run([peak, path, "--root", root, *words], stdout=out, check=True)
            out.seek(0)
            peaks.append(int(out.read()))
        if words[0] == "create":
            pid = json.loads(subprocess.run([path, "--root", root, "state", "x"], capture_output=True, check=True).stdout)["pid"]
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                waiting = next(int(line.split()[1]) for line in f if line.startswith("Rss:"))
    return [*peaks, waiting]


def make_bundle(folder):
    os.makedirs(folder + "/rootfs/bin")
    for name in ("proc", "dev", "sys"):
        os.makedirs(f"{folder}/rootfs/{name}")
    shutil.copy(probe, folder + "/rootfs/bin/probe")
    subprocess.run([bothy, "spec", "--bundle", folder], check=True)
    with open(folder + "/config.json", encoding="utf-8") as f:
        config = json.load(f)
    config["ociVersion"] = "1.0.2"
    config["process"].update(terminal=False, args=["/bin/probe"])
    config["linux"]["cgroupsPath"] = "/bothy-bench"
    with open(folder + "/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if os.geteuid() != 0:
        sys.exit("bench container needs root")
    if os.path.ismount(UNIFIED):
        if "BOTHY_BENCH_INSIDE" not in os.environ:
            os.execvpe("unshare", ["unshare", "-m", sys.executable, *sys.argv], dict(os.environ, BOTHY_BENCH_INSIDE="1"))
        subprocess.run(["umount", UNIFIED], check=True)
    runtimes = {"bothy": bothy, **{n: p for n in ("crun", "runc") if (p := shutil.which(n))}}
    for name in ("crun", "runc"):
        if name not in runtimes:
            print(f"{name} is not installed; install the package {name} to compare with it")
    times = {n: {s: [] for s in STEPS} for n in runtimes}
    with tempfile.TemporaryDirectory() as work:
        make_bundle(work + "/bundle")
        for i in range(count + 3):
            for name, path in runtimes.items():
                for step, words in (("create", ["create", "--bundle", work + "/bundle", "x"]), ("start", ["start", "x"]),
                                    ("delete", ["delete", "--force", "x"])):
                    ms = spawn([path, "--root", f"{work}/{name}", *words])
                    if i >= 3:
                        times[name][step].append(ms)
        kib = {n: memory(p, f"{work}/{n}", work + "/bundle") for n, p in runtimes.items()}
    totals = {n: [sum(t) for t in zip(*(times[n][s] for s in STEPS))] for n in runtimes}
    print(f"{count} containers in turns, milliseconds (median)")
    print(f"{'':8}{''.join(f'{s:>9}' for s in STEPS)}{'all':>9}{'mean':>9}  bothy takes")
    for name in runtimes:
        row = "".join(f"{statistics.median(times[name][s]):9.2f}" for s in STEPS)
        ratio = "" if name == "bothy" else f"{statistics.median(totals['bothy']) / statistics.median(totals[name]):.2f} times that"
        print(f"{name:8}{row}{statistics.median(totals[name]):9.2f}{statistics.mean(totals[name]):9.2f}  {ratio}")
    print("memory, KiB resident: the most of each command, and of the process that waits for start")
    print(f"{'':8}{''.join(f'{s:>9}' for s in STEPS)}{'waiting':>9}")
    for name, row in kib.items():
        print(f"{name:8}{''.join(f'{v:9}' for v in row)}")
    if "crun" not in runtimes:
        return
    time_ratio = statistics.median(totals["bothy"]) / statistics.median(totals["crun"])
    bad = [f"{time_ratio:.2f} times crun's time, not 0.9"] if time_ratio > 0.9 else []
    # A container's own memory is what counts most; of the commands only one at a time is there.
    for what, ours, theirs in (("most of a command", max(kib["bothy"][:3]), max(kib["crun"][:3])),
                               ("waiting process", kib["bothy"][3], kib["crun"][3])):
        if ours > theirs:
            bad.append(f"memory, {what}: {ours} KiB, crun {theirs}")
    print("not met: " + "; ".join(bad) if bad else "met: at most 0.9 times crun's time, and no more memory")
    if bad:
        sys.exit(1)


main()
