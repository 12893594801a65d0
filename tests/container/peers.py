#!/usr/bin/env python3
"""peers RUNTIME PROBE: the same bundles and commands given to the distribution's runc and crun, where they work here: the status of
each command, what the program wrote, the members of the state, and those words in messages that engines look for."""
import json
import os
import shutil
import subprocess
import sys
import time

import container
from container import Bundle, Skip, deep

# What podman, conmon, containerd's shim and go-runc look for in what a runtime says.
WORDS = ("no such file or directory", "permission denied")
# runc's own, which crun does not have everywhere.
OF_RUNC = ("executable file", "not found in $path", "does not exist", "not running")


UNIFIED = "/sys/fs/cgroup/unified"


def peers():
    found = [(name, program) for name in ("runc", "crun") if (program := shutil.which(name))]
    if not found:
        raise Skip("neither runc nor crun is installed")
    return found


class Seen:
    """What one runtime did with one bundle."""

    def __init__(self, bundle, program, own):
        self.b, self.own = bundle, own
        self.words = [program, "--root", f"{bundle.folder}/state-{os.path.basename(program)}"]
        self.rows, self.calls = [], 0

    def call(self, *words, text=True, **more):
        # The container keeps those of create.
        self.calls += 1
        out, err = f"{self.b.folder}/out-{self.calls}", f"{self.b.folder}/err-{self.calls}"
        with open(out, "w", encoding="utf-8") as o, open(err, "w", encoding="utf-8") as e:
            status = subprocess.run([*self.words, *words], stdin=subprocess.DEVNULL, stdout=o, stderr=e, cwd=self.b.folder, timeout=60,
                                    check=False, **more).returncode
        with open(out, encoding="utf-8", errors="replace") as o, open(err, encoding="utf-8", errors="replace") as e:
            said, message = o.read(), e.read()
        if status and self.own and message:
            assert message.startswith("bothy: ") and message.count("\n") == 1, (words, message)
        self.rows.append((words, status, said if text else "", message))
        return status, said

    def phase(self, name):
        status, said = self.call("state", name, text=False)
        if status:
            return "none"
        state = json.loads(said)
        for member in ("ociVersion", "id", "pid", "status", "bundle"):
            assert member in state, (member, state)
        assert state["id"] == name and state["bundle"] == self.b.folder and isinstance(state["pid"], int), state
        return state["status"] + ("" if state["pid"] else " without pid")


def life(s):
    """The commands in order, with what is wrong in between."""
    phases = []

    def look():
        phases.append(s.phase("x"))

    look()
    s.call("create", "--pid-file", s.b.folder + "/pid", "x")
    look()
    s.call("create", "x")
    s.call("delete", "y")
    s.call("kill", "y", "TERM")
    s.call("start", "y")
    s.call("start", "x")
    look()
    s.call("start", "x")
    s.call("delete", "x")
    s.call("exec", "x", "/bin/probe", "ids", "exit:3")
    s.call("exec", "x", "/no/such")
    s.call("exec", "x", "/etc")
    s.call("exec", "x", "nothing")
    s.call("exec", "--cwd", "/tmp", "--user", "5:6", "--env", "A=b", "x", "/bin/probe", "ids", "cwd", "env:A")
    s.call("kill", "x", "0")
    s.call("kill", "x", "KILL")
    end = time.time() + 5
    while s.phase("x").split()[0] != "stopped" and time.time() < end:
        s.rows.pop()
        time.sleep(0.01)
    s.rows.pop()
    look()
    s.call("kill", "x", "TERM")
    s.call("start", "x")
    s.call("exec", "x", "/bin/probe", "pid")
    s.call("delete", "x")
    look()
    s.call("delete", "x")
    s.call("delete", "--force", "x")
    return phases


def run(s):
    s.call("run", "x")
    return [s.phase("x")]


def create(s):
    status, _ = s.call("create", "x")
    phases = [s.phase("x")]
    if not status:
        s.call("start", "x")
    s.call("delete", "--force", "x")
    return phases


def change(member, value):
    def apply(c):
        at = member.split(".")
        for key in at[:-1]:
            c = c[key]
        c[at[-1]] = value
    return apply


def probe(*acts, **members):
    def apply(c):
        c["process"]["args"] = ["/bin/probe", *acts]
        c["process"].update(members)
    return apply


def add_mount(**m):
    return lambda c: c["mounts"].append(m)


def no_namespace(kind):
    def apply(c):
        c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != kind]
    return apply


# A name, what is changed, how it is used. Statuses of failures are compared as 0, or not 0; of programs as they are.
BUNDLES = [
    ("a life", [probe("sleep:1000")], life),
    ("identity", [probe("ids", "cwd", "umask", "env:HOME", "exit:7", user={"uid": 12, "gid": 13, "umask": 0o27, "additionalGids": [5]}, cwd="/tmp")], run),
    ("killed by a signal", [probe("pid", "trap")], run),
    ("names", [probe("host"), change("hostname", "a-name")], run),
    ("limits of a process", [probe("rlimit:7", "rlimit:4", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 5}])], run),
    ("read-only root", [probe("write:/x", "write:/dev/shm/x", "write:/proc/sys/kernel/panic@1", "read:/proc/kcore"), change("root.readonly", True)], run),
    ("capabilities", [probe("status:CapEff", "status:CapBnd", "status:CapAmb", "status:CapInh")], run),
    ("a user without capabilities", [probe("status:CapEff", "write:/etc/x", user={"uid": 7, "gid": 7})], run),
    ("mounts", [probe("write:/t/x", "write:/b/x", "read:/b/file"),
                add_mount(destination="/t", type="tmpfs", source="tmpfs", options=["nosuid", "size=64k"]),
                add_mount(destination="/b", type="bind", source="data", options=["rbind", "ro"])], run),
    ("devices", [probe("stat:/dev/null", "stat:/dev/full", "link:/dev/ptmx", "link:/dev/fd", "link:/dev/stdin", "stat:/dev/n"),
                 change("linux.devices", [{"path": "/dev/n", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4}])], run),
    ("system calls", [probe("syscall:83", "syscall:162", "status:Seccomp"), change("linux.seccomp", {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}, {"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]})], run),
    ("a host's network", [probe("pid"), no_namespace("network")], run),
    ("settings", [probe("read:/proc/sys/net/ipv4/ip_forward", "read:/proc/sys/kernel/msgmax"), change("linux.sysctl", {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"})], run),
    ("a setting of the host", [probe("pid"), change("linux.sysctl", {"kernel.sysrq": "1"})], create),
    ("no such program", [change("process.args", ["/no/such"])], create),
    ("no such program in PATH", [change("process.args", ["nothing"])], create),
    ("a program that is none", [change("process.args", ["/etc"])], create),
    ("no such working directory", [probe("cwd", cwd="/new/here")], run),
    ("no program", [change("process.args", [])], create),
    ("no such root", [probe("pid"), change("root.path", "nowhere")], create),
    ("a bind mount of nothing", [probe("pid"), add_mount(destination="/b", type="bind", source="/no/such", options=["bind"])], create),
    ("no program in a folder", [change("process.args", ["/bin/none/there"])], create),
    ("a hook that fails", [probe("pid"), change("hooks", {"createRuntime": [{"path": "/bin/false"}]})], create),
    ("annotations", [probe("pid"), change("annotations", {"a.b/c": "d"})], run),
]


def compare(mine, theirs, who):
    assert len(mine) == len(theirs), (who, [m[0] for m in mine], [t[0] for t in theirs])
    different = []
    for (words, status, said, message), (_, other, other_said, other_message) in zip(mine, theirs):
        from_program = words[0] == "run" or (words[0] == "exec" and not other_message)
        if (status != other) if from_program and other not in (1, 255) else (bool(status) != bool(other)):
            different.append((words, "status", status, other, message, other_message))
        if said != other_said:
            different.append((words, "output", said, other_said, message, other_message))
        # Of a container that is not there crun says which of its files is not.
        for word in WORDS + OF_RUNC if who == "runc" else WORDS if words[0] in ("create", "run", "exec") else ():
            if status and word in other_message.lower() and word not in message.lower():
                different.append((words, "the word " + word, message, other_message))
    return different


def test_as_others_do():
    found = peers()
    bad, count = [], 0
    with Bundle() as b:
        os.makedirs(b.folder + "/data")
        with open(b.folder + "/data/file", "w", encoding="utf-8") as f:
            f.write("inside")
        # Older releases of crun know no later one.
        b.config["ociVersion"] = "1.0.2"
        base = deep(b.config)
        for name, changes, use in BUNDLES:
            results = {}
            for who, program in [("bothy", container.runtime), *found]:
                config = deep(base)
                for c in changes:
                    c(config)
                b.save(config)
                s = Seen(b, program, who == "bothy")
                try:
                    phases = use(s)
                    results[who] = (s.rows, phases)
                finally:
                    s.call("delete", "--force", "x", text=False)
            for who, (rows, phases) in list(results.items())[1:]:
                d = compare(results["bothy"][0], rows, who)
                if phases != results["bothy"][1]:
                    d.append(("phases", results["bothy"][1], phases))
                count += 1
                bad += [(name, who, one) for one in d]
    # Without the mount it is a folder, in which runc leaves one.
    if "BOTHY_PEERS_INSIDE" in os.environ:
        shutil.rmtree(f"{UNIFIED}/{container.mark}", ignore_errors=True)
    assert not bad, "\n".join(map(str, bad))
    assert count >= 20, count


if __name__ == "__main__":
    container.need_root()
    # crun of Debian 12 refuses machines that mix both versions of control groups: here there is version 1 alone then.
    if os.path.ismount(UNIFIED):
        if "BOTHY_PEERS_INSIDE" not in os.environ:
            os.execvpe("unshare", ["unshare", "-m", sys.executable, *sys.argv], dict(os.environ, BOTHY_PEERS_INSIDE="1"))
        subprocess.run(["umount", UNIFIED], check=True)
    container.main(sys.modules[__name__])
