#!/usr/bin/env python3
"""systemd RUNTIME PROBE MANAGER: control groups that systemd makes, against a manager of our own on a bus of our own."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

import container
from container import Bundle, answers

manager = sys.argv.pop(3) if len(sys.argv) > 3 else ""
SLICE = container.mark.replace("-", "_") + "-" + "a.slice"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy>
</busconfig>"""


@contextlib.contextmanager
def systemd(*how):
    """The bus and the manager; gives a function that says what the manager has been asked since the last time."""
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        with open(folder + "/config", "w", encoding="utf-8") as f:
            f.write(CONFIG % (folder + "/socket"))
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=" + folder + "/socket"
        bus = subprocess.Popen(["dbus-daemon", "--config-file", folder + "/config", "--nofork", "--nopidfile", "--print-address"],
                               stdout=subprocess.PIPE, text=True)
        assert bus.stdout.readline()
        p = subprocess.Popen([manager, *how], stdout=subprocess.PIPE, text=True)
        assert p.stdout.readline() == "ready\n"
        os.set_blocking(p.stdout.fileno(), False)

        def asked():
            try:
                return os.read(p.stdout.fileno(), 65536).decode().splitlines()
            except BlockingIOError:
                return []

        try:
            yield asked
        finally:
            bus.terminate()
            bus.wait()
            p.wait(10)
            p.stdout.close()
            bus.stdout.close()
            del os.environ["DBUS_SYSTEM_BUS_ADDRESS"]


def new_bundle():
    b = Bundle()
    b.config["linux"]["cgroupsPath"] = f"{SLICE}:{container.mark}:one"
    b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
    return b


def test_scope():
    with systemd() as asked, new_bundle() as b:
        b.config["linux"]["resources"].update({
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}, "pids": {"limit": 2},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"}})
        b.save()
        b.good("--systemd-cgroup", "create", "x")
        scope = container.mark + "-one.scope"
        lines = asked()
        for line in (f"start {scope} {SLICE}", "Delegate=1", "PIDs=one", f"MemoryMax={64 << 20}", f"MemorySwapMax={32 << 20}",
                     f"MemoryLow={32 << 20}", "TasksMax=2", "CPUWeight=39", "CPUQuotaPerSecUSec=500000", "CPUQuotaPeriodUSec=100000",
                     "AllowedCPUs=01"):
            assert line in lines, (line, lines)
        state = b.state("x")
        with open(f"/proc/{state['pid']}/cgroup", encoding="utf-8") as f:
            group = f"/{SLICE.split('-')[0]}.slice/{SLICE}/{scope}"
            assert all(line.rstrip("\n").split(":", 2)[2] == group for line in f), group
        # Nobody else is in it: the limit of 2 leaves room for one more.
        assert json.loads(b.good("ps", "--format", "json", "x")) == [state["pid"]]
        b.good("start", "x")
        got = answers(b.good("exec", "x", "/bin/probe", "read:/proc/self/cgroup", "forks:5"))
        assert got["forks:5"] == "0" and all(l.endswith(":/") for l in got["read:/proc/self/cgroup"].strip("|").split("|")), got
        b.good("update", "--pids-limit", "7", "--memory", "80M", "--memory-swap", "80M", "x")
        lines = asked()
        assert f"set {scope}" in lines and "TasksMax=7" in lines and f"MemoryMax={80 << 20}" in lines, lines
        # The same name again, while there is one.
        p = b.call("--systemd-cgroup", "create", "y")
        assert p.returncode == 1 and "there already" in p.stderr and b.state("x")["status"] == "running", p.stderr
        assert f"reset {scope}" in asked()
        b.good("delete", "--force", "x")
        assert f"stop {scope}" in asked()
        assert os.listdir(b.root) == []


def test_wrong_paths():
    with systemd() as asked, new_bundle() as b:
        for path in ("/a/b", "a:b", "a:b:c:d", "machine.slice:a/b:c", "machine:a:b", "-a.slice:b:c", "a--b.slice:b:c", "machine.slice:a:",
                     "machine.slice:a:x y", "../x.slice:a:b", "machine.slice:" + "p" * 250 + ":x"):
            b.config["linux"]["cgroupsPath"] = path
            b.save()
            p = b.call("--systemd-cgroup", "create", "x")
            assert p.returncode == 1 and "cgroupsPath" in p.stderr and p.stderr.count("\n") == 1, (path, p.stderr)
        assert not any(line.startswith("start") for line in asked()) and not os.listdir(b.root)


def test_job_fails():
    with systemd("failed"), new_bundle() as b:
        b.save()
        p = b.call("--systemd-cgroup", "create", "x")
        assert p.returncode == 1 and "ends with 'failed'" in p.stderr, p.stderr
        assert not os.listdir(b.root)


def test_no_systemd():
    with new_bundle() as b, tempfile.TemporaryDirectory() as folder:
        b.save()
        p = b.call("--systemd-cgroup", "create", "x", env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={folder}/none"))
        assert p.returncode == 1 and "cgroupfs" in p.stderr and p.stderr.count("\n") == 1, p.stderr


def test_o38_create_killed():
    killat = os.path.join(os.path.dirname(container.probe), "container_killat")
    with systemd(), new_bundle() as b:
        b.save()
        before = container.census()
        killed = 0
        for n in range(100, 5000, 17):
            with tempfile.TemporaryFile("w+") as out:
                subprocess.run([killat, str(n), container.runtime, "--root", b.root, "--systemd-cgroup", "create", "x"], cwd=b.folder,
                               check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, timeout=60)
                out.seek(0)
                last = out.read()
            b.good("delete", "--force", "x")
            container.settle(before)
            if "killed" not in last:
                break
            killed += 1
        assert killed > 10, killed


def test_real_systemd():
    """Where systemd runs this machine."""
    if not os.path.isdir("/run/systemd/system"):
        raise container.Skip("systemd does not run here")
    scope = container.mark + "-one.scope"

    def show(*names):
        out = subprocess.run(["systemctl", "show", *[w for n in names for w in ("-p", n)], scope], stdout=subprocess.PIPE, text=True, check=True)
        return dict(line.split("=", 1) for line in out.stdout.splitlines())

    with new_bundle() as b:
        b.config["linux"]["cgroupsPath"] = f"bothy-test.slice:{container.mark}:one"
        b.config["linux"]["resources"].update({"memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 20},
                                               "cpu": {"quota": 50000, "period": 100000, "cpus": "0"}})
        b.save()
        b.good("--systemd-cgroup", "create", "x")
        b.good("start", "x")
        got = show("MemoryMax", "TasksMax", "Delegate", "ActiveState", "Slice", "CPUQuotaPerSecUSec", "ControlGroup", "AllowedCPUs")
        group = f"/bothy.slice/bothy-test.slice/{scope}"
        assert got == {"MemoryMax": str(64 << 20), "TasksMax": "20", "Delegate": "yes", "ActiveState": "active", "Slice": "bothy-test.slice",
                       "CPUQuotaPerSecUSec": "500ms", "ControlGroup": group, "AllowedCPUs": "0"}, got
        with open(f"/proc/{b.state('x')['pid']}/cgroup", encoding="utf-8") as f:
            assert f.read().strip().endswith(group)
        b.good("update", "--pids-limit", "7", "x")
        b.good("exec", "x", "/bin/probe", "pid")
        # It keeps what it has been told.
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert show("TasksMax") == {"TasksMax": "7"} and json.loads(b.good("events", "--stats", "x"))["data"]["pids"]["limit"] == 7
        assert json.loads(b.good("events", "--stats", "x"))["data"]["memory"]["usage"]["limit"] == 64 << 20
        p = b.call("--systemd-cgroup", "create", "y")
        assert p.returncode == 1 and scope in p.stderr and b.state("x")["status"] == "running", p.stderr
        b.good("pause", "x")
        b.good("resume", "x")
        b.good("delete", "--force", "x")
        assert show("LoadState")["LoadState"] == "not-found" and not os.path.exists("/sys/fs/cgroup" + group)
    subprocess.run(["systemctl", "stop", "bothy-test.slice", "bothy.slice"], check=False)


if __name__ == "__main__":
    if not shutil.which("dbus-daemon"):
        print("skipped: dbus-daemon is not installed")
        sys.exit(77)
    container.main(sys.modules[__name__])
