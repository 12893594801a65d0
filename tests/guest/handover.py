#!/usr/bin/env python3
"""handover.py BOTHY IMAGE MOVES: the guest checksum.c on one engine and the other in turn, moved by bothy engine while it works,
through an end that nobody notices: sums, ticks and registers are those of a guest that stays. Also what is refused, and that a
refusal changes nothing."""
import json
import os
import subprocess
import sys
import tempfile
import time

bothy, image, moves = os.path.realpath(sys.argv[1]), sys.argv[2], int(sys.argv[3])
SKIP = 77


def run(*words, ok=True):
    r = subprocess.run([bothy, *words], capture_output=True, text=True, timeout=60, check=False)
    if ok and r.returncode:
        sys.exit(f"{words}: status {r.returncode}: {r.stderr}")
    return r


rows = {row["name"]: row for row in json.loads(run("doctor", "--json", ok=False).stdout)}
if rows["KVM"]["verdict"] == "no":
    print(f"skipped: {rows['KVM']['found']}")
    sys.exit(SKIP)

with tempfile.TemporaryDirectory(prefix="bothy-handover-") as folder:
    os.environ["BOTHY_RUNTIME_DIR"] = folder
    log = open(os.path.join(folder, "log"), "w+b")
    vm = subprocess.Popen(
        [bothy, "run", "--name", "move", "--engine", "kvm", "--cpu", "v1", "--kernel", image, "--device", "debug-exit",
         "--serial", "stdio", "--no-reboot", "--memory", "64M"], stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while b"PASS begin" not in open(log.name, "rb").read():
            if vm.poll() is not None or time.monotonic() > end:
                sys.exit("the guest does not begin: " + open(log.name).read())
            time.sleep(0.02)
        took = []
        refused = run("engine", "move", "kvm", ok=False)
        assert refused.returncode == 1 and "already" in refused.stderr, refused.stderr
        for word in ("tcg", "auto"):
            refused = run("engine", "move", word, ok=False)
            assert refused.returncode == 1 and "give soft or kvm" in refused.stderr, refused.stderr
        for i in range(moves):
            answer = json.loads(run("engine", "move", "kvm" if i & 1 else "soft", "--json").stdout)
            took.append(answer["took_ns"])
            if i % 10 == 5:  # a paused machine moves too, and stays paused
                run("pause", "move")
                run("engine", "move", "soft")if answer["engine"] == "kvm" else run("engine", "move", "kvm")
                state = [m for m in json.loads(run("ps", "--json").stdout) if m["name"] == "move"][0]
                assert state["state"] == "paused", state
                run("engine", "move", answer["engine"])
                run("resume", "move")
        if run("ps", "--json").stdout.find('"engine": "kvm"') >= 0:
            run("engine", "move", "soft")
        vm.stdin.write(b"x")
        vm.stdin.flush()
        status = vm.wait(timeout=60)
        text = open(log.name).read()
        if status != 1 or "FAIL" in text:
            sys.exit(f"status {status}\n{text}")
        took.sort()
        print(f"{len(took)} moves, median {took[len(took) // 2] / 1e6:.1f} ms, longest {took[-1] / 1e6:.1f} ms")
    finally:
        if vm.poll() is None:
            vm.kill()
        vm.wait()
