#!/usr/bin/env python3
"""checkpoint RUNTIME PROBE: a container to files and back: what CRIU is told, by one of our own, and the real one where it works."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import container
from container import Bundle, Skip


@contextlib.contextmanager
def fake(b, how=""):
    """Our own criu, in front of others; gives a function for what it has been asked."""
    folder = b.folder + "/fake"
    os.makedirs(folder, exist_ok=True)
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "criu_fake.py"), folder + "/criu")
    with open(folder + "/how", "w", encoding="utf-8") as f:
        f.write(how)
    was = os.environ["PATH"]
    os.environ.update(PATH=folder + ":" + was, FAKE_CRIU=folder, FAKE_PROBE=container.probe)

    def asked():
        with open(folder + "/asked.json", encoding="utf-8") as f:
            return json.load(f)

    try:
        yield asked
    finally:
        os.environ["PATH"] = was


def new_bundle():
    b = Bundle()
    os.makedirs(b.folder + "/data")
    b.config["mounts"].append({"destination": "//n//m/", "source": "data", "options": ["bind"]})
    b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
    b.save()
    return b


def start(b, name, **more):
    b.good("create", name, **more)
    b.good("start", name)


def test_dump_and_restore():
    with new_bundle() as b, fake(b) as asked:
        start(b, "x")
        pid = b.state("x")["pid"]
        b.good("checkpoint", "--image-path", b.folder + "/images", "--work-path", b.folder + "/criu", "--tcp-established", "--file-locks",
               "--ext-unix-sk", "--shell-job", "x")
        assert b.call("state", "x").returncode == 1 and os.path.exists(b.folder + "/images/core-1.img")
        a = asked()
        o = a["options"]
        assert a["request"] == 1 and o["2"] == [pid] and "3" not in o and o["4"] == o["5"] == o["7"] == o["8"] == [1], a
        assert o["13"] == [b.rootfs] and o["12"] == o["50"] == [1] and o["34"] == [0] and o["44"][0].endswith(b.config["linux"]["cgroupsPath"]), o
        assert ["/n/m", "/n/m"] in o["23"] and ["/proc/keys", "/proc/keys"] in o["23"] and not any("firmware" in m[0] for m in o["23"]), o["23"]
        with open(b.folder + "/images/descriptors.json", encoding="utf-8") as f:
            assert json.load(f)[0] == "/dev/null"
        b.good("restore", "--detach", "--image-path", b.folder + "/images", "--pid-file", b.folder + "/pid", "x")
        a = asked()
        o, state = a["options"], b.state("x")
        assert a["request"] == 2 and o["26"] == [1] and ["/n/m", b.folder + "/data"] in o["23"] and ["/proc/keys", "/dev/null"] in o["23"], o
        assert a["mounted"] and state["status"] == "running" and state["pid"] == int(open(b.folder + "/pid", encoding="utf-8").read()), a
        # In the container's control group, whose limits hold, and in a namespace that begins there.
        assert all(l.endswith(":/") for l in a["groups"].split()), a["groups"]
        assert json.loads(b.good("ps", "--format", "json", "x")) == [state["pid"]]
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            assert b.folder not in f.read()
        b.good("kill", "x", "KILL")
        b.good("delete", "--force", "x")


def test_restore_in_the_foreground():
    with new_bundle() as b, fake(b):
        start(b, "x")
        b.good("checkpoint", "x")
        p = subprocess.Popen([container.runtime, "--root", b.root, "restore", "x"], cwd=b.folder, stdin=subprocess.DEVNULL)
        end = time.time() + 10
        while b.call("state", "x").returncode or b.state("x")["status"] != "running":
            assert time.time() < end
            time.sleep(0.02)
        b.good("kill", "x", "KILL")
        assert p.wait(10) == 137 and b.call("state", "x").returncode == 1


def test_it_goes_on():
    with new_bundle() as b, fake(b) as asked:
        start(b, "x")
        b.good("checkpoint", "--pre-dump", "--image-path", b.folder + "/pre", "x")
        assert asked()["request"] == 4 and asked()["options"]["15"] == [1] and b.state("x")["status"] == "running"
        b.good("checkpoint", "--leave-running", "--parent-path", "../pre", "--image-path", b.folder + "/images", "--page-server", "127.0.0.1:99",
               "--manage-cgroups-mode", "soft", "--empty-ns", "network", "x")
        o = asked()["options"]
        assert o["3"] == [1] and o["14"] == ["../pre"] and o["11"] == [["127.0.0.1", 99]] and o["34"] == [3] and o["38"] == [0x40000000], o
        assert b.state("x")["status"] == "running"
        for words, expected in ((["--parent-path", "/x"], "--parent-path"), (["--page-server", "x"], "--page-server"),
                                (["--manage-cgroups-mode", "most"], "most"), (["--empty-ns", "pid"], "pid"), (["--status-fd", "77"], "77"),
                                (["--image-path", "/proc/x/y"], "--image-path")):
            p = b.call("checkpoint", *words, "x")
            assert p.returncode == 1 and expected in p.stderr and p.stderr.count("\n") == 1, (words, p.stderr)
        b.good("pause", "x")
        assert "paused" in b.call("checkpoint", "x").stderr
        b.good("delete", "--force", "x")


def test_namespaces_by_path():
    with new_bundle() as first, new_bundle() as b, fake(b) as asked:
        with first.running() as name:
            pid = first.state(name)["pid"]
            for n in b.config["linux"]["namespaces"]:
                if n["type"] in ("network", "ipc"):
                    n["path"] = f"/proc/{pid}/ns/" + {"network": "net", "ipc": "ipc"}[n["type"]]
            b.save()
            start(b, "x")
            b.good("checkpoint", "x")
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            assert asked()["options"]["37"] == [f"net[{inode}]:extRootNetNS"], asked()
            b.good("restore", "--detach", "x")
            o = asked()["options"]
            assert any(i[0] == "extRootNetNS" for i in o["27"]) and o["39"] == [["ipc", f"/proc/{pid}/ns/ipc"]], o
            b.good("delete", "--force", "x")


def test_what_goes_wrong():
    with new_bundle() as b:
        start(b, "x")
        p = b.call("checkpoint", "x", env=dict(os.environ, PATH="/nonexistent"))
        assert p.returncode == 1 and "install" in p.stderr and "criu" in p.stderr and p.stderr.count("\n") == 1, p.stderr
        for how, expected in (("fails", "Can't dump ?[2J this"), ("garbage", "CRIU fails"), ("gone", "without an answer")):
            with fake(b, how):
                p = b.call("checkpoint", "x")
                assert p.returncode == 1 and expected in p.stderr and p.stderr.count("\n") == 1, (how, p.stderr)
                assert b.state("x")["status"] == "running"
        with fake(b):
            b.good("checkpoint", "x")
        for how, expected in (("fails", "Can't dump"), ("garbage", "CRIU"), ("gone", "without an answer")):
            with fake(b, how):
                p = b.call("restore", "--detach", "x")
                assert p.returncode == 1 and expected in p.stderr and not os.listdir(b.root), (how, p.stderr)
        p = b.call("restore", "--image-path", "/no/such", "x")
        assert p.returncode == 1 and "/no/such" in p.stderr, p.stderr


def test_o39_images():
    """Images that would make more of the container than its configuration, and a folder that leads elsewhere."""
    with new_bundle() as b:
        with fake(b):
            start(b, "x")
            b.good("checkpoint", "x")
        for how, expected in (("capabilities", "more capabilities"), ("host-uts", "host's uts")):
            with fake(b, how):
                p = b.call("restore", "--detach", "x")
                assert p.returncode == 1 and expected in p.stderr and not os.listdir(b.root), (how, p.stderr)
        # What an older CRIU does not restore is there nevertheless.
        with fake(b, "privileges"):
            b.good("restore", "--detach", "x")
            with open(f"/proc/{b.state('x')['pid']}/status", encoding="utf-8") as f:
                assert "NoNewPrivs:\t1" in f.read()
            b.good("delete", "--force", "x")
        with fake(b):
            b.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
            b.save()
            p = b.call("restore", "--detach", "x")
            assert p.returncode == 1 and "filter of system calls" in p.stderr, p.stderr
            del b.config["linux"]["seccomp"]
            b.save()
            images = b.folder + "/checkpoint"
            for make in (lambda p: os.symlink("/etc/shadow", p), os.mkfifo, os.mkdir):
                make(images + "/pages-1.img")
                p = b.call("restore", "--detach", "x")
                assert p.returncode == 1 and "pages-1.img" in p.stderr, p.stderr
                (os.rmdir if os.path.isdir(images + "/pages-1.img") and not os.path.islink(images + "/pages-1.img") else os.unlink)(images + "/pages-1.img")
            for text in ("", "{}", "[1,2,3,4]", "[" * 100000, '["a","b","c","d"]'):
                with open(images + "/descriptors.json", "w", encoding="utf-8") as f:
                    f.write(text)
                p = b.call("restore", "--detach", "x")
                assert p.returncode == 1 and "descriptors.json" in p.stderr, (text[:9], p.stderr)
        assert not os.listdir(b.root)


def test_o40_lazy_pages():
    """CRIU ends, fails or talks nonsense with the processes half there, since its page server does: they are killed, and why is said."""
    with new_bundle() as b:
        with fake(b):
            start(b, "x")
            b.good("checkpoint", "--lazy-pages", "x")
        for how, expected in (("late-gone", "without an answer"), ("late-garbage", "CRIU"), ("late-fails", "the page server has gone")):
            with fake(b, how):
                p = b.call("restore", "--detach", "--lazy-pages", "x")
                assert p.returncode == 1 and expected in p.stderr and p.stderr.count("\n") == 1 and not os.listdir(b.root), (how, p.stderr)
                with open(os.environ["FAKE_CRIU"] + "/restored", encoding="utf-8") as f:
                    assert not os.path.exists("/proc/" + f.read()), how


def test_the_real_one():
    """A program that counts goes on where it was."""
    if not shutil.which("criu"):
        raise Skip("criu is not installed")
    p = subprocess.run(["criu", "check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if p.returncode:
        raise Skip("criu does not work on this kernel: " + (p.stdout.strip().splitlines() or ["?"])[0])

    def read(name):
        return int(b.good("exec", name, "/bin/probe", "read:/tmp/n").split("=")[1].strip("|\n ") or 0)

    def call(*words):
        """With pipes, as engines do: other files of the host would not be there at the restore."""
        p = subprocess.run([container.runtime, "--root", b.root, *words], cwd=b.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                           timeout=120, check=False)
        for log in ("checkpoint/dump.log", "images/dump.log", "images/restore.log"):
            if p.returncode and os.path.exists(f"{b.folder}/{log}"):
                with open(f"{b.folder}/{log}", encoding="utf-8", errors="replace") as f:
                    print(log, "".join(f.readlines()[-60:]))
        assert p.returncode == 0, (words, os.read(back, 4096))

    back, out = os.pipe()
    with new_bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "count:/tmp/n"]
        b.config["linux"]["resources"]["pids"] = {"limit": 50}
        b.save()
        call("create", "x")
        call("start", "x")
        time.sleep(1)
        call("checkpoint", "--leave-running", "x")
        time.sleep(0.3)
        call("checkpoint", "--image-path", b.folder + "/images", "x")
        with open(b.rootfs + "/tmp/n", encoding="utf-8") as f:
            before = int(f.read())
        assert before > 5
        call("restore", "--detach", "--image-path", b.folder + "/images", "x")
        time.sleep(1)
        assert b.state("x")["status"] == "running" and read("x") > before, (before, read("x"))
        a = container.answers(b.good("exec", "x", "/bin/probe", "read:/proc/1/cmdline", "read:/proc/1/cgroup", "list:/n/m", "write:/proc/sysrq-trigger@x"))
        assert a["read:/proc/1/cmdline"].startswith("/bin/probe count") and a["write:/proc/sysrq-trigger@x"] == "EROFS", a
        b.good("delete", "--force", "x")
    os.close(back)
    os.close(out)


if __name__ == "__main__":
    container.main(sys.modules[__name__])
