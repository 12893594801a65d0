#!/usr/bin/env python3
"""lifecycle RUNTIME PROBE: the commands in every order, what they leave, and a runtime that is killed at any point."""
import json
import os
import signal
import subprocess
import sys
import time

import container
from container import Bundle, answers

# Between two system calls at which the runtime is killed.
STEP = int(os.environ.get("BOTHY_STEP", "3"))
CYCLES = int(os.environ.get("BOTHY_CYCLES", "100"))
killat = os.path.join(os.path.dirname(container.probe), "container_killat")


def gone(pid, seconds=5):
    end = time.time() + seconds
    while time.time() < end:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_phases():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        b.config["annotations"] = {"a.b": "c"}
        b.save()
        b.good("create", "--pid-file", b.folder + "/pid", "x")
        s = b.state("x")
        assert s["status"] == "created" and s["id"] == "x" and s["bundle"] == b.folder and s["annotations"] == {"a.b": "c"}, s
        assert s["pid"] == int(open(b.folder + "/pid", encoding="utf-8").read()), s
        # The program has not begun.
        with open(f"/proc/{s['pid']}/cmdline", "rb") as f:
            assert b"create" in f.read()
        p = b.call("create", "x")
        assert p.returncode and "already" in p.stderr, p.stderr
        p = b.call("delete", "y")
        assert p.returncode and "does not exist" in p.stderr, p.stderr
        b.good("delete", "--force", "y")
        b.good("start", "x")
        assert b.state("x")["status"] == "running"
        p = b.call("start", "x")
        assert p.returncode and "running" in p.stderr, p.stderr
        p = b.call("delete", "x")
        assert p.returncode and "running" in p.stderr, p.stderr
        b.good("pause", "x")
        assert b.state("x")["status"] == "paused"
        p = b.call("exec", "x", "/bin/probe", "pid")
        assert p.returncode and "paused" in p.stderr, p.stderr
        assert b.call("pause", "x").returncode
        b.good("resume", "x")
        assert b.state("x")["status"] == "running" and b.call("resume", "x").returncode
        assert [c["id"] for c in json.loads(b.good("list", "--format", "json"))] == ["x"]
        assert b.good("list", "-q") == "x\n" and "running" in b.good("list")
        assert json.loads(b.good("ps", "--format", "json", "x")) == [s["pid"]]
        assert str(s["pid"]) in b.good("ps", "x")
        b.good("kill", "x", "SIGKILL")
        assert gone(s["pid"])
        assert b.state("x")["status"] == "stopped" and b.state("x")["pid"] == 0
        p = b.call("kill", "x", "TERM")
        assert p.returncode and "not running" in p.stderr, p.stderr
        assert b.call("start", "x").returncode and b.call("exec", "x", "/bin/probe").returncode
        b.good("delete", "x")
        assert not os.listdir(b.root)


def test_delete_before_start():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        b.save()
        b.good("create", "x")
        pid = b.state("x")["pid"]
        b.good("delete", "x")
        assert gone(pid)


def test_signals():
    with Bundle() as b, b.running() as name:
        for what in ("0", "SIGCONT", "CONT", "18", "RTMIN+1"):
            if what != "RTMIN+1":
                b.good("kill", name, what)
        p = b.call("kill", name, "NOSUCH")
        assert p.returncode and "no signal" in p.stderr, p.stderr
        b.good("kill", "--all", name, "KILL")
        assert b.state(name)["status"] == "stopped"


def test_frozen_container_can_be_killed():
    with Bundle() as b:
        with b.running() as name:
            b.good("pause", name)
            b.good("kill", name, "KILL")
            assert b.state(name)["status"] in ("paused", "stopped")
            b.good("delete", "--force", name)


def test_exec_waits_for_a_paused_container():
    with Bundle() as b, b.running() as name:
        b.good("pause", name)
        p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "exec", "--ignore-paused", name, "/bin/probe", "exit:6"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        assert p.poll() is None
        b.good("resume", name)
        assert p.wait(10) == 6


def test_exec():
    with Bundle() as b:
        b.config["process"]["env"] = ["PATH=/bin", "A=1"]
        b.config["process"]["user"] = {"uid": 0, "gid": 0}
        with b.running() as name:
            pid = b.state(name)["pid"]
            kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup"]
            a = answers(b.good("exec", "--env", "B=2", "--cwd", "/tmp", "--user", "12:13", "--cap", "CAP_KILL", "-g", "77", name,
                               "probe", "env:A", "env:B", "cwd", "ids", "status:Groups", "fds", "read:/proc/self/cgroup",
                               "status:CapBnd", *["link:/proc/self/ns/" + k for k in kinds]))
            assert a["env:A"] == "1" and a["env:B"] == "2" and a["cwd"] == "/tmp" and a["ids"] == "12:13 12:13", a
            assert a["status:Groups"] == "77" and a["fds"] == "", a
            for k in kinds:
                assert a["link:/proc/self/ns/" + k] == os.readlink(f"/proc/{pid}/ns/{k}"), k
            assert all(l.endswith(":/") for l in a["read:/proc/self/cgroup"].strip("|").split("|")), a
            assert b.call("exec", name, "probe", "exit:9").returncode == 9
            p = b.call("exec", name, "nothing")
            assert p.returncode and "not found in $PATH" in p.stderr, p.stderr
            b.good("exec", "--detach", "--pid-file", b.folder + "/pid", name, "/bin/probe", "sleep:1000")
            extra = int(open(b.folder + "/pid", encoding="utf-8").read())
            assert sorted(json.loads(b.good("ps", "--format", "json", name))) == sorted([pid, extra])
        # Its pid namespace has ended with the first process.
        assert gone(extra)


def test_exec_in_user_and_time_namespaces():
    with Bundle() as b:
        b.config["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
        b.config["linux"]["timeOffsets"] = {"monotonic": {"secs": 1000000}}
        for kind in ("uid", "gid"):
            b.config["linux"][kind + "Mappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        with b.running() as name:
            a = answers(b.good("exec", name, "/bin/probe", "ids", "read:/proc/self/uid_map", "clock:monotonic"))
            assert a["ids"] == "0:0 0:0" and a["read:/proc/self/uid_map"].split()[1] == "100000", a
            assert abs(int(a["clock:monotonic"]) - time.clock_gettime(time.CLOCK_MONOTONIC) - 1000000) < 60, a


def test_shared_pid_namespace_leaves_nothing():
    """Without a pid namespace of its own, what the first process has started outlives it until delete."""
    with Bundle() as b:
        b.config["linux"]["namespaces"] = [n for n in b.config["linux"]["namespaces"] if n["type"] != "pid"]
        b.config["process"]["args"] = ["/bin/probe", "forks:5"]
        b.save()
        b.good("create", "x")
        b.good("start", "x")
        end = time.time() + 5
        while b.state("x")["status"] != "stopped" and time.time() < end:
            time.sleep(0.01)
        pids = json.loads(b.good("ps", "--format", "json", "x"))
        assert len(pids) == 5, pids
        b.good("delete", "x")
        assert all(gone(p) for p in pids)


def test_log_file():
    with Bundle() as b:
        b.save()
        log = b.folder + "/log"
        p = b.call("--log", log, "--log-format", "json", "start", "no")
        assert p.returncode
        line = json.loads(open(log, encoding="utf-8").read())
        assert line["level"] == "error" and "does not exist" in line["msg"] and line["time"], line


def test_help():
    with Bundle() as b:
        assert "--bundle" in b.good("create", "--help") and "--pid-file" in b.good("exec", "-h")
        p = b.call("creat", "x")
        assert p.returncode == 1 and "did you mean create" in p.stderr, p.stderr
        # What follows the id is the program's own.
        with b.running() as name:
            assert "(unknown)" in b.good("exec", name, "/bin/probe", "--help")


def test_cycles_leave_nothing():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "exit:0"]
        b.save()
        before = container.census()
        files = len(os.listdir("/proc/self/fd"))
        for _ in range(CYCLES):
            b.good("create", "x")
            b.good("start", "x")
            b.good("delete", "--force", "x")
        assert container.census() == before and len(os.listdir("/proc/self/fd")) == files
        assert not os.listdir(b.root)


def survive(b, words, steps, check):
    """Kills the runtime at its Nth system call for each N of steps; calls check() after each. Returns how many were killed."""
    killed = 0
    for n in steps:
        out = subprocess.run([killat, str(n), container.runtime, "--root", b.root, *words], cwd=b.folder, check=False,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60,
                             text=True, close_fds=True) if words[0] != "create" else create_killed(b, words, n)
        last = out.stdout.strip().splitlines()[-1] if out.stdout.strip() else ""
        check(n)
        if not last.startswith("killed"):
            break
        killed += 1
    return killed


def create_killed(b, words, n):
    """The container keeps standard output, so it may be no pipe."""
    with open(b.folder + "/killat", "w+", encoding="utf-8") as out:
        p = subprocess.run([killat, str(n), container.runtime, "--root", b.root, *words], cwd=b.folder, check=False,
                           stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, timeout=60, text=True)
        out.seek(0)
        p.stdout = out.read()
        return p


def clean(b, before):
    b.good("delete", "--force", "x")
    container.settle(before)
    assert not os.path.isdir(b.root) or not os.listdir(b.root), os.listdir(b.root)


def test_o38_create_killed_at_every_step():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        # Hooks and a filter: all messages between the two processes.
        b.config["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
        b.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                        "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}
        b.save()
        before = container.census()

        def check(n):
            try:
                clean(b, before)
            except AssertionError as e:
                raise AssertionError(f"killed at system call {n}: {e}") from e

        killed = survive(b, ["create", "x"], range(0, 5000, STEP), check)
        assert killed > 100, killed


def test_o38_start_and_delete_killed_at_every_step():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        b.save()
        before = container.census()
        for words in (["start", "x"], ["delete", "--force", "x"], ["exec", "x", "/bin/probe", "pid"]):
            for n in range(60 if STEP > 1 else 0, 5000, 5 if STEP > 1 else 1):
                b.good("create", "x")
                if words[0] != "start":
                    b.good("start", "x")
                out = subprocess.run([killat, str(n), container.runtime, "--root", b.root, *words], cwd=b.folder, check=False,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60,
                                     text=True)
                try:
                    clean(b, before)
                except AssertionError as e:
                    raise AssertionError(f"{words[0]} killed at system call {n}: {e}") from e
                if "killed" not in out.stdout:
                    break


def test_poststop_after_a_crash():
    """Hooks that undo what others have done run in delete, whatever has become of the runtime and of the container."""
    with Bundle() as b:
        log = b.folder + "/log"
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        b.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo made >>{log}"]}],
                             "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >/dev/null; echo undone >>{log}"]}, {"path": "/bin/false"}]}
        b.save()
        b.good("create", "x")
        os.kill(b.state("x")["pid"], signal.SIGKILL)
        assert "poststop" in b.call("delete", "--force", "x").stderr
        assert open(log, encoding="utf-8").read() == "made\nundone\n"
        # The runtime has been killed between the hook and its last step.
        for n in range(100, 1000, 7):
            os.unlink(log)
            create_killed(b, ["create", "x"], n)
            made = os.path.exists(log)
            b.good("delete", "--force", "x")
            if made:
                assert open(log, encoding="utf-8").read() == "made\nundone\n", n
                break
            with open(log, "a", encoding="utf-8"):
                pass
        assert made


def test_two_creates_of_one_id():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        b.save()
        for _ in range(10):
            many = [subprocess.Popen([container.runtime, "--root", b.root, "create", "x"], cwd=b.folder, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
            assert sorted(p.wait(30) for p in many) == [0, 1, 1, 1]
            b.good("delete", "--force", "x")


def test_o37_init_ignores_signals():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "ignore:15", "ignore:1", "forks:200", "sleep:1000"]
        b.save()
        b.good("create", "x")
        b.good("start", "x")
        b.good("kill", "x", "TERM")
        start = time.time()
        b.good("delete", "--force", "x")
        assert time.time() - start < 10


def test_run_passes_signals_on():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "ignore:1", "sleep:1000"]
        b.save()
        p = subprocess.Popen([container.runtime, "--root", b.root, "run", "x"], cwd=b.folder, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        end = time.time() + 10
        while b.call("state", "x").returncode or b.state("x")["status"] != "running":
            assert time.time() < end
            time.sleep(0.01)
        time.sleep(0.2)
        # The first process of a pid namespace gets no signal that it has no handler for, but SIGKILL.
        b.good("kill", "x", "KILL")
        assert p.wait(10) == 128 + signal.SIGKILL
        assert b.call("state", "x").returncode


if __name__ == "__main__":
    container.main(sys.modules[__name__])
