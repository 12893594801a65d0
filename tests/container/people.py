#!/usr/bin/env python3
"""people RUNTIME PROBE: `bothy container`: run, exec, ls, stop, rm, logs, inspect, its networks, and a supervisor that is killed."""
import contextlib
import http.server
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import container
from container import Bundle, Skip, answers

bothy = os.path.join(os.path.dirname(container.runtime), "bothy")
PROGRAMS = ("sh", "cat", "httpd", "wget", "sleep", "init", "ps", "yes", "head", "ip", "kill", "tail")


class People(Bundle):
    """A root file system, and a folder of containers."""

    def __init__(self, busybox=False):
        super().__init__()
        self.containers = self.folder + "/containers"
        os.unlink(self.folder + "/config.json")
        if busybox:
            program = shutil.which("busybox")
            if not program:
                self.__exit__()
                raise Skip("busybox is not installed")
            shutil.copy(program, self.rootfs + "/bin/busybox")
            for name in PROGRAMS:
                os.symlink("busybox", f"{self.rootfs}/bin/{name}")

    def __exit__(self, *_):
        if os.path.isdir(self.containers):
            for name in self.call("ls", "-q").stdout.split():
                self.call("rm", "--force", name)
        super().__exit__()

    def words(self, *words):
        return [bothy, "container", "--folder", self.containers, *words]

    def call(self, *words, **more):
        more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self.words(*words), capture_output=True, text=True, check=False, timeout=60, errors="replace", **more)

    def name(self):
        return f"{container.mark}-{self.new_id()}"

    @contextlib.contextmanager
    def running(self, *words, options=(), name=None):
        name = name or self.name()
        assert self.good("run", "-d", "--name", name, *options, self.rootfs, *words) == name + "\n"
        try:
            yield name
        finally:
            self.good("rm", "--force", name)

    def inspect(self, name, *more):
        return json.loads(self.good("inspect", *more, name))

    def wrong(self, *words, expected):
        p = self.call(*words)
        assert p.returncode == 1 and p.stderr.startswith("bothy: ") and p.stderr.count("\n") == 1, (words, p.returncode, p.stderr)
        assert expected in p.stderr, (words, p.stderr)


def wait_for(what, seconds=10):
    end = time.time() + seconds
    while not what():
        assert time.time() < end, "it has not come"
        time.sleep(0.02)


def get(url):
    with urllib.request.urlopen(url, timeout=5) as f:
        return f.read()


def test_run():
    with People() as p:
        name = p.name()
        a = p.call("run", "--rm", "--name", name, "--network", "none", "-e", "A=1 2", "-w", "/tmp", "-u", "5:6", "-v", p.folder + ":/v:ro",
                   "--memory", "64M", "--pids", "20", "--cpus", "0.5", p.rootfs, "/bin/probe", "pid", "env:A", "cwd", "ids", "fds",
                   "write:/v/x@y", "read:/proc/sys/kernel/hostname", "read:/proc/self/cgroup", "exit:7")
        assert a.returncode == 7, (a.returncode, a.stderr)
        got = answers(a.stdout)
        assert got["pid"] == "1" and got["env:A"] == "1 2" and got["cwd"] == "/tmp" and got["ids"] == "5:6 5:6", got
        assert got["fds"] == "" and got["write:/v/x@y"] == "EROFS", got
        assert got["read:/proc/sys/kernel/hostname"].strip("|") == name, got
        assert p.good("ls", "-q") == "" and os.listdir(p.containers) == [".state"]
        # Named after its folder, numbered when that is taken.
        for expected in ("rootfs", "rootfs-2"):
            p.good("run", "--network", "none", p.rootfs, "/bin/probe")
            assert expected in p.good("ls", "-q").split()


def test_o18_o19_usual_filter():
    """What it leaves out, by what each call says without a filter and with it; a capability brings some back."""
    calls = {"keyctl": 250, "io_uring_setup": 425, "userfaultfd": 323, "bpf": 321, "perf_event_open": 298, "unshare": 272, "setns": 308,
             "mount": 165, "kexec_load": 246, "add_key": 248, "ptrace": 101}
    asked = ["syscall:%d" % n for n in [*calls.values(), 435, 56, 0x40000000 | 39]] + ["socket:1", "socket:38", "socket:40", "status:Seccomp"]
    with People() as p:
        def ask(*options):
            return answers(p.good("run", "--rm", "--network", "none", *options, p.rootfs, "/bin/probe", *asked))

        a, free = ask(), ask("--seccomp", "unconfined")
        assert a["status:Seccomp"] == "2" and free["status:Seccomp"] == "0", (a, free)
        for name, n in calls.items():
            assert a[f"syscall:{n}"] == "EPERM", (name, a)
        assert [n for n in calls if free[f"syscall:{calls[n]}"] not in ("EPERM", "ENOSYS")], free
        # clone3, and clone with flags for namespaces: as on a kernel that has neither.
        assert a["syscall:435"] == a["syscall:56"] == "ENOSYS" and free["syscall:56"] == "EINVAL", (a, free)
        # The same kernel by another ABI's numbers.
        assert a["syscall:%d" % (0x40000000 | 39)] in ("signal 31", "ENOSYS"), a
        assert a["socket:1"] == "ok" and a["socket:38"] == a["socket:40"] == "EAFNOSUPPORT", a
        more = ask("--cap", "CAP_SYS_ADMIN", "--cap", "CAP_SYS_PTRACE")
        assert more["syscall:272"] == "EINVAL" and more["syscall:101"] not in ("EPERM", "ENOSYS") and more["syscall:250"] == "EPERM", more


def test_o18_filter_from_a_file():
    with People() as p:
        path = p.folder + "/filter.json"

        def write(text):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text if isinstance(text, str) else json.dumps(text))

        def ask(*options):
            return answers(p.good("run", "--rm", "--network", "none", "--seccomp", path, *options, p.rootfs, "/bin/probe",
                                  "syscall:39", "syscall:102", "syscall:104", "syscall:107", "syscall:108"))

        error = {"action": "SCMP_ACT_ERRNO", "errnoRet": 5}
        rules = [dict(error, names=["getpid"]), dict(error, names=["getuid"], includes={"caps": ["CAP_SYS_ADMIN"]}),
                 dict(error, names=["getgid"], excludes={"caps": ["CAP_CHOWN"]}), dict(error, names=["geteuid"], includes={"minKernel": "99.1"}),
                 dict(error, names=["getegid"], includes={"arches": ["s390x"]})]
        # An engine's profile, and one of a bundle.
        write({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
               "syscalls": rules})
        a = ask()
        assert a == {"syscall:39": "EIO", **{f"syscall:{n}": "ok" for n in (102, 104, 107, 108)}}, a
        assert ask("--cap", "CAP_SYS_ADMIN")["syscall:102"] == "EIO"
        write({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [dict(error, names=["getgid"])]})
        assert ask()["syscall:104"] == "EIO"
        for text, expected in (("{", "no filter"), ("[]", "no filter"), ({"syscalls": []}, "no filter"),
                               ({"defaultAction": "ALLOW"}, "defaultAction"), ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [5]}, "syscalls"),
                               ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5, "archMap": 5}, "syscalls")):
            write(text)
            p.wrong("run", "--seccomp", path, p.rootfs, "/bin/probe", expected=expected)
        p.wrong("run", "--seccomp", "/no/such", p.rootfs, "/bin/probe", expected="/no/such")
        assert p.good("ls", "-q") == ""


def test_o28_masked():
    with People() as p:
        got = answers(p.good("run", "--rm", "--network", "none", p.rootfs, "/bin/probe", "read:/proc/kcore", "read:/proc/keys",
                             "read:/proc/timer_list", "read:/proc/interrupts", "list:/sys/firmware", "list:/proc/acpi",
                             "write:/proc/sysrq-trigger@x", "write:/proc/sys/kernel/core_pattern@x", "write:/sys/kernel/uevent_helper@x"))
        for name, answer in got.items():
            assert answer in ("", "ENOENT", "EROFS", "EACCES"), (name, answer)


def test_detached():
    with People() as p:
        with p.running("/bin/probe", "pid", "sleep:1000", options=("--network", "none")) as name:
            wait_for(lambda: p.good("logs", name) == "pid=1\nsleep:1000=")
            seen = p.inspect(name)
            assert seen["status"] == "running" and seen["args"][0] == "/bin/probe" and seen["network"] == "none", seen
            row = p.good("ls").splitlines()[1].split()
            assert row[:3] == [name, "running", str(seen["pid"])], row
            assert [c["name"] for c in json.loads(p.good("ls", "--json"))] == [name]
            got = answers(p.good("exec", "-e", "B=3", name, "/bin/probe", "env:B", "link:/proc/self/ns/pid"))
            assert got == {"env:B": "3", "link:/proc/self/ns/pid": os.readlink(f"/proc/{seen['pid']}/ns/pid")}, got
            assert p.call("exec", name, "/bin/probe", "exit:9").returncode == 9
            p.wrong("rm", name, expected="is running; stop it")
            p.wrong("run", "--name", name, p.rootfs, expected="already")
            p.good("stop", "--time", "0", name)
            seen = p.inspect(name)
            assert seen["status"] == "exited" and seen["exit"] == 137 and seen["pid"] == 0 and seen["ended"], seen
            assert p.good("logs", name).startswith("pid=1\n") and "exited 137" in p.good("ls")
            p.wrong("exec", name, "/bin/probe", expected="does not run")
            p.good("stop", name)


def test_stop_by_signal():
    with People(busybox=True) as p:
        script = "trap 'echo told; exit 3' USR1; while :; do sleep 0.05; done"
        with p.running("/bin/sh", "-c", script, options=("--network", "none", "--stop-signal", "USR1")) as name:
            time.sleep(0.2)
            p.good("stop", name)
            assert p.inspect(name)["exit"] == 3 and p.good("logs", name) == "told\n", p.good("logs", name)


def test_namespaces():
    with People() as p:
        with p.running("/bin/probe", "sleep:1000", options=("--network", "none")) as name:
            pid = p.inspect(name)["pid"]
            all_of = {n["type"]: n for n in p.inspect(name, "--namespaces", "--json")["namespaces"]}
            for kind, file in (("user", "user"), ("cgroup", "cgroup"), ("ipc", "ipc"), ("uts", "uts"), ("network", "net"),
                               ("pid", "pid"), ("time", "time"), ("mount", "mnt")):
                link = f"{file}:[{all_of[kind]['inode']}]"
                assert os.readlink(f"/proc/{pid}/ns/{file}") == link, kind
                assert all_of[kind]["host"] == (os.readlink(f"/proc/self/ns/{file}") == link), kind
                assert all_of[kind]["host"] or all_of[kind]["processes"] == [pid], all_of[kind]
            assert all_of["user"]["uids"][0]["outside"] == 0
            text = p.good("inspect", "--namespaces", name)
            assert f"1 process {pid}" in text and "the host's" in text, text
            # A descriptor and a mount keep two of them when its processes have gone.
            held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            mounted = p.folder + "/uts"
            with open(mounted, "w", encoding="utf-8"):
                pass
            subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/uts", mounted], check=True)
            try:
                p.good("stop", "-t", "0", name)
                after = {n["type"]: n for n in p.inspect(name, "--namespaces", "--json")["namespaces"]}
                assert after["network"]["descriptors"] == [{"pid": os.getpid(), "fd": held}], after["network"]
                assert after["uts"]["mounts"] == [mounted] and not after["uts"]["processes"], after["uts"]
                assert not after["ipc"]["processes"] + after["ipc"]["descriptors"] + after["ipc"]["mounts"], after["ipc"]
                assert "nobody" in p.good("inspect", "--namespaces", name)
            finally:
                os.close(held)
                subprocess.run(["umount", mounted], check=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_user_network():
    if not os.path.exists("/dev/net/tun"):
        raise Skip("no /dev/net/tun")
    with People(busybox=True) as p:
        probe = p.call("run", "--rm", p.rootfs, "/bin/ip", "route")
        if probe.returncode and "libslirp" in probe.stderr:
            raise Skip(probe.stderr.strip())
        assert "default via 10.0.2.2" in probe.stdout, (probe.stdout, probe.stderr)
        data = os.urandom(1 << 20).hex().encode()
        with open(p.folder + "/data", "wb") as f:
            f.write(data)
        port = free_port()
        with p.running("/bin/httpd", "-f", "-p", "80", "-h", "/www", options=("-p", f"{port}:80", "-v", p.folder + ":/www:ro")) as name:
            assert p.inspect(name)["address"] == "10.0.2.15"
            wait_for(lambda: not p.call("exec", name, "/bin/wget", "-q", "-O", "/tmp/x", "http://127.0.0.1/data").returncode)
            # From this host into the container.
            assert get(f"http://127.0.0.1:{port}/data") == data
            # The port is taken: a sentence, and nothing of the second container is left.
            p.wrong("run", "--name", name + "b", "-p", f"{port}:80", p.rootfs, "/bin/ps", expected=str(port))
            assert name + "b" not in p.good("ls", "-q")

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                self.send_response(200)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        # From the container to this host.
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert p.good("run", "--rm", p.rootfs, "/bin/wget", "-q", "-O", "-", f"http://10.0.2.2:{server.server_port}/").encode() == data
        finally:
            server.shutdown()
            server.server_close()


def interfaces():
    return {name for name in os.listdir("/sys/class/net") if name.startswith("bothy")}


def test_private_network():
    before = interfaces()
    with People(busybox=True) as p:
        with open(p.rootfs + "/etc/file", "w", encoding="utf-8") as f:
            f.write("from a")
        first = p.call("run", "--rm", "--network", "private", p.rootfs, "/bin/ip", "route")
        if first.returncode and "bridge" in first.stderr:
            raise Skip(first.stderr.strip())
        assert "default via 10.77.0.1" in first.stdout, (first.stdout, first.stderr)
        with p.running("/bin/httpd", "-f", "-p", "80", "-h", "/etc", options=("--network", "private")) as a:
            address = p.inspect(a)["address"]
            wait_for(lambda: subprocess.run(["grep", "-q", ":0050 ", f"/proc/{p.inspect(a)['pid']}/net/tcp6"], check=False).returncode == 0)
            assert get(f"http://{address}/file") == b"from a"
            with p.running("/bin/sleep", "1000", options=("--network", "private")) as b:
                assert p.inspect(b)["address"] != address
                assert p.good("exec", b, "/bin/wget", "-q", "-O", "-", f"http://{address}/file") == "from a"
    wait_for(lambda: not interfaces() - before - {"bothy0"})
    if "bothy0" not in before:
        subprocess.run(["ip", "link", "del", "bothy0"], check=True)


def test_system_container():
    with People(busybox=True) as p:
        os.mkdir(p.rootfs + "/sbin")
        os.mkdir(p.rootfs + "/run")
        os.symlink("../bin/busybox", p.rootfs + "/sbin/init")
        with open(p.rootfs + "/etc/inittab", "w", encoding="utf-8") as f:
            f.write("::sysinit:/bin/busybox touch /run/began\n::respawn:/bin/sleep 1000\n::shutdown:/bin/busybox touch /etc/ended\n")
        with p.running(options=("--system", "--network", "none", "--stop-signal", "USR2")) as name:
            wait_for(lambda: "sleep 1000" in p.good("exec", name, "/bin/ps"))
            got = answers(p.good("exec", name, "/bin/probe", "read:/proc/1/cmdline", "stat:/run/began"))
            assert got["read:/proc/1/cmdline"].startswith("/sbin/init") or "init" in got["read:/proc/1/cmdline"], got
            assert not os.path.exists(p.rootfs + "/run/began") and "ENOENT" not in got["stat:/run/began"], got
            # What init has started is started again when it is killed.
            p.good("exec", name, "/bin/busybox", "killall", "sleep")
            wait_for(lambda: "sleep 1000" in p.good("exec", name, "/bin/ps"))
            p.good("stop", name)
            assert p.inspect(name)["status"] == "exited" and os.path.exists(p.rootfs + "/etc/ended")


def test_terminal():
    with People() as p:
        pid, master = pty.fork()
        if pid == 0:
            os.execv(bothy, p.words("run", "--name", p.name(), "--network", "none", p.rootfs, "/bin/probe", "link:/proc/self/fd/0", "exit:5"))
        text = b""
        with contextlib.suppress(OSError):
            while more := os.read(master, 4096):
                text += more
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5, text
        assert b"/dev/pts/" in text or b"/dev/console" in text, text
        name = p.good("ls", "-q").strip()
        assert "link:" in p.good("logs", name)


def test_terminal_nobody_reads():
    """Much is typed, and the program takes nothing: the supervisor goes on."""
    with People() as p:
        name = p.name()
        pid, master = pty.fork()
        if pid == 0:
            os.execv(bothy, p.words("run", "--name", name, "--network", "none", p.rootfs, "/bin/probe", "sleep:1000"))
        wait_for(lambda: name in p.call("ls", "-q").stdout and p.inspect(name)["status"] == "running")
        os.set_blocking(master, False)
        end = time.time() + 0.5
        while time.time() < end:
            with contextlib.suppress(BlockingIOError):
                os.write(master, b"x" * 1000 + b"\n")
            with contextlib.suppress(BlockingIOError):
                os.read(master, 65536)
        p.good("stop", "-t", "0", name)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 137
        os.close(master)


def test_bundle():
    with People() as p:
        subprocess.run([container.runtime, "spec", "--bundle", p.folder], check=True)
        with open(p.folder + "/config.json", encoding="utf-8") as f:
            config = json.load(f)
        config["process"].update(args=["/bin/probe", "env:A", "cwd"], env=["A=bundle"], cwd="/tmp")
        with open(p.folder + "/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        assert answers(p.good("run", "--name", p.name(), "--network", "none", p.folder)) == {"env:A": "bundle", "cwd": "/tmp"}
        assert answers(p.good("run", "--name", p.name(), "--network", "host", p.folder, "/bin/probe", "link:/proc/self/ns/net")) == {
            "link:/proc/self/ns/net": os.readlink("/proc/self/ns/net")}


def test_o23_hooks_of_a_bundle():
    with People() as p:
        subprocess.run([container.runtime, "spec", "--bundle", p.folder], check=True)
        with open(p.folder + "/config.json", encoding="utf-8") as f:
            config = json.load(f)
        config["process"]["args"] = ["/bin/probe", "pid"]
        config["hooks"] = {"createRuntime": [{"path": "/usr/bin/touch", "args": ["touch", p.folder + "/mark"]}]}
        with open(p.folder + "/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        p.wrong("run", "--network", "none", p.folder, expected="--bundle-hooks")
        assert not os.path.exists(p.folder + "/mark")
        p.good("run", "--rm", "--network", "none", "--bundle-hooks", p.folder)
        assert os.path.exists(p.folder + "/mark")


def test_mistakes():
    with People() as p:
        for words, expected in (
                ([], "needs the folder"), (["/no/such"], "/no/such"), (["--network", "wlan", p.rootfs], "wlan"),
                (["-p", "80", p.rootfs], "--publish"), (["-p", "99999:1", p.rootfs], "--publish"), (["-p", "1:2/sctp", p.rootfs], "--publish"),
                (["-p", "1:2", "--network", "none", p.rootfs], "--network user"), (["-v", "x", p.rootfs], "--volume"),
                (["-v", "/no/such:/x", p.rootfs], "/no/such"), (["--memory", "much", p.rootfs], "--memory"),
                (["--cpus", "-1", p.rootfs], "--cpus"), (["--pids", "0", p.rootfs], "--pids"), (["--user", "root", p.rootfs], "--user"),
                (["--name", "a/b", p.rootfs], "a/b"), (["--stop-signal", "LOUD", p.rootfs], "LOUD"), (["--no-such", p.rootfs], "no-such"),
                (["--network", "none", p.rootfs, "/no/program"], "/no/program"),
                (["--network", "none", p.rootfs, "\udcff"], "UTF-8")):
            p.wrong("run", *words, expected=expected)
            assert not os.path.isdir(p.containers) or os.listdir(p.containers) == [".state"], (words, os.listdir(p.containers))
        for words in (["stop", "no"], ["rm", "no"], ["logs", "no"], ["inspect", "no"], ["exec", "no", "x"]):
            p.wrong(*words, expected="no container 'no'")
        p.wrong("lss", expected="did you mean ls")
        p.wrong("rm", expected="needs the name")
        p.wrong("ls", "x", expected="one word too many")
        os.chmod(p.containers, 0o777)
        p.wrong("ls", expected="others may write")
        os.chmod(p.containers, 0o700)


def test_log_is_bounded():
    with People(busybox=True) as p:
        name = p.name()
        p.good("run", "-d", "--name", name, "--network", "none", p.rootfs, "/bin/sh", "-c", "yes 0123456789 | head -c 40000000; echo end")
        wait_for(lambda: p.inspect(name)["status"] == "exited", 30)
        sizes = [os.path.getsize(f"{p.containers}/{name}/{f}") for f in ("log", "log.1")]
        assert max(sizes) <= 8 << 20 and sum(sizes) > 8 << 20, sizes
        assert p.good("logs", name).endswith("end\n")
        p.good("rm", name)


def test_follow():
    with People(busybox=True) as p:
        name = p.name()
        p.good("run", "-d", "--name", name, "--network", "none", p.rootfs, "/bin/sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done")
        assert p.good("logs", "--follow", name) == "1\n2\n3\n"


def test_o38_supervisor_killed():
    with People() as p:
        with p.running("/bin/probe", "sleep:1000", options=("--network", "none")) as name:
            pid = p.inspect(name)["pid"]
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                supervisor = int(f.read().rsplit(")", 1)[1].split()[1])
            os.kill(supervisor, signal.SIGKILL)
            wait_for(lambda: not os.path.exists(f"/proc/{supervisor}"))
            assert p.inspect(name)["status"] == "running" and p.good("exec", name, "/bin/probe", "pid")
            p.good("stop", "-t", "0", name)
            assert p.inspect(name)["status"] == "dead"
        assert os.listdir(p.containers) == [".state"] and not os.listdir(p.containers + "/.state")


def test_rootless():
    with People() as p:
        def become():
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

        def user(*words):
            return p.call(*words, preexec_fn=become, cwd="/")

        os.mkdir(p.containers)
        os.chown(p.containers, 65534, 65534)
        os.chown(p.rootfs, 65534, 65534)
        for name in os.listdir(p.rootfs):
            os.chown(f"{p.rootfs}/{name}", 65534, 65534)
        try:
            ran = user("ls")
        except PermissionError as why:
            raise Skip("other users may not reach the program") from why
        assert ran.returncode == 0, ran.stderr
        ran = user("run", "--rm", "--network", "none", p.rootfs, "/bin/probe", "ids", "read:/proc/self/uid_map", "pid")
        if ran.returncode and "user namespace" in ran.stderr:
            raise Skip(ran.stderr.strip())
        got = answers(ran.stdout)
        assert got.get("ids") == "0:0 0:0" and got["read:/proc/self/uid_map"].split()[1] == "65534" and got["pid"] == "1", (got, ran.stderr)
        # The device file of tap devices may be root's alone.
        ran = user("run", "--rm", p.rootfs, "/bin/probe", "read:/proc/net/route")
        if ran.returncode:
            assert "/dev/net/tun" in ran.stderr or "libslirp" in ran.stderr, ran.stderr
        else:
            assert "eth0" in ran.stdout, ran.stdout
        ran = user("run", "--network", "private", p.rootfs)
        assert ran.returncode == 1 and "needs root" in ran.stderr, ran.stderr
        assert user("ls", "-q").stdout == ""
        os.chown(p.containers, 0, 0)
        os.chown(p.containers + "/.state", 0, 0)


if __name__ == "__main__":
    container.main(sys.modules[__name__])
