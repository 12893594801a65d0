#!/usr/bin/env python3
"""features RUNTIME PROBE: each feature of config.json, as the container's process sees it."""
import json
import os
import select
import socket
import subprocess
import sys
import termios
import threading
import time

import container
from container import Bundle, Skip, answers

MOUNT_CALLS = ("fsopen", "open_tree", "mount_setattr", "move_mount", "fsconfig", "fsmount")


def need_newer_mount_calls():
    if set(container.without.split(",")) & set(MOUNT_CALLS):
        raise Skip("needs Linux 5.12: id-mapped mounts, and mounts that are made before the container's namespaces")


def test_namespaces_are_new():
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup"]
    with Bundle() as b:
        b.config["linux"]["namespaces"].append({"type": "time"})
        a = b.ask("pid", "list:/sys/class/net", "link:/proc/self/ns/time", *["link:/proc/self/ns/" + k for k in kinds])
        assert a["pid"] == "1", a
        for k in kinds + ["time"]:
            assert a["link:/proc/self/ns/" + k] != os.readlink(f"/proc/self/ns/{k}"), k
        assert a["list:/sys/class/net"] == "lo", a


def test_namespaces_by_path():
    with Bundle() as first, Bundle() as second:
        first.config["linux"]["namespaces"].append({"type": "time"})
        with first.running() as name:
            pid = first.state(name)["pid"]
            kinds = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "time": "time"}
            second.config["linux"]["namespaces"] = [{"type": "mount"}] + [
                {"type": t, "path": f"/proc/{pid}/ns/{f}"} for t, f in kinds.items()]
            del second.config["hostname"]
            a = second.ask("pid", *["link:/proc/self/ns/" + f for f in kinds.values()])
            assert int(a["pid"]) > 1, a
            for f in kinds.values():
                assert a["link:/proc/self/ns/" + f] == os.readlink(f"/proc/{pid}/ns/{f}"), f


def test_mount_namespace_by_path():
    """It is in another's mounts, with a root of its own in there."""
    with Bundle() as first, Bundle() as second:
        first.config["mounts"].append({"destination": "/inner", "type": "tmpfs", "source": "tmpfs"})
        with first.running() as name:
            pid = first.state(name)["pid"]
            first.good("exec", name, "/bin/probe", "write:/inner/there@here")
            lin = second.config["linux"]
            lin["namespaces"] = [{"type": "mount", "path": f"/proc/{pid}/ns/mnt"}, {"type": "pid", "path": f"/proc/{pid}/ns/pid"}, {"type": "uts"}]
            del lin["maskedPaths"], lin["readonlyPaths"]
            second.config["mounts"] = []
            second.config["root"]["path"] = "/"
            a = second.ask("link:/proc/self/ns/mnt", "read:/inner/there", "list:/", "fds")
            assert a["link:/proc/self/ns/mnt"] == os.readlink(f"/proc/{pid}/ns/mnt") and a["read:/inner/there"] == "here" and not a["fds"], a
            for member, change in (("mounts", lambda c: c["mounts"].append({"destination": "/x", "type": "tmpfs"})),
                                   ("maskedPaths", lambda c: c["linux"].update(maskedPaths=["/x"])),
                                   ("root.readonly", lambda c: c["root"].update(readonly=True)),
                                   ("terminal", lambda c: c["process"].update(terminal=True)),
                                   ("not absolute", lambda c: c["root"].update(path="rootfs")),
                                   ("no/such", lambda c: c["root"].update(path="/no/such"))):
                c = container.deep(second.config)
                change(c)
                second.refused(member, config=c)
            assert first.state(name)["status"] == "running"


def test_namespace_lives_as_long_as_its_last_reference():
    with Bundle() as b:
        with b.running() as name:
            pid = b.state(name)["pid"]
            fd = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)
            inode = os.fstat(fd).st_ino
        # The container is gone; its namespace is not yet, and others can join it.
        b.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"},
                                           {"type": "uts", "path": f"/proc/{os.getpid()}/fd/{fd}"}]
        a = b.ask("link:/proc/self/ns/uts")
        assert a["link:/proc/self/ns/uts"] == f"uts:[{inode}]", a
        os.close(fd)


def test_user_namespace_maps():
    with Bundle() as b:
        b.config["linux"]["namespaces"].append({"type": "user"})
        b.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000},
                                            {"containerID": 5000, "hostID": 300000, "size": 10}]
        b.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 1000}]
        b.config["process"]["user"] = {"uid": 7, "gid": 8, "additionalGids": [9, 10]}
        for top, folders, files in os.walk(b.rootfs):
            for n in folders + files:
                os.chown(os.path.join(top, n), 100000, 200000)
        a = b.ask("ids", "read:/proc/self/uid_map", "read:/proc/self/gid_map", "status:Groups", "stat:/bin/probe",
                  "stat:/dev/null")
        assert a["ids"] == "7:8 7:8", a
        assert a["read:/proc/self/uid_map"].split() == ["0", "100000", "1000|", "5000", "300000", "10|"], a
        assert a["status:Groups"].split() == ["9", "10"], a
        assert " 0:0 " in a["stat:/bin/probe"], a
        assert a["stat:/dev/null"].endswith("1:3"), a


def test_sources_closed_to_the_users_of_a_container():
    """Bind sources and the root are opened by the runtime: the container's root may not reach them by path."""
    need_newer_mount_calls()
    with Bundle() as b:
        closed = os.path.join(b.folder, "closed")
        os.makedirs(os.path.join(closed, "data"))
        with open(os.path.join(closed, "data/file"), "w", encoding="utf-8") as f:
            f.write("inside")
        os.chmod(os.path.join(closed, "data/file"), 0o644)
        os.rename(b.rootfs, os.path.join(closed, "rootfs"))
        os.chmod(closed, 0o700)
        b.config["root"]["path"] = "closed/rootfs"
        b.config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uid", "gid"):
            b.config["linux"][kind + "Mappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        for n in ("", "dev", "proc", "sys", "tmp"):
            os.chown(os.path.join(closed, "rootfs", n), 100000, 100000)
        b.config["mounts"].append({"destination": "/tmp", "source": os.path.join(closed, "data"), "options": ["rbind", "ro"]})
        a = b.ask("read:/tmp/file", "write:/tmp/new")
        assert a["read:/tmp/file"] == "inside" and a["write:/tmp/new"] in ("EROFS", "EACCES"), a


def as_user(uid, words, env):
    return subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *words], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60)


def test_rootless():
    with Bundle() as b:
        for top, folders, files in os.walk(b.folder):
            for n in [""] + folders + files:
                os.chown(os.path.join(top, n), 4242, 4242)
        env = dict(os.environ, XDG_RUNTIME_DIR=b.folder)
        os.unlink(os.path.join(b.folder, "config.json"))
        own = os.path.join(b.rootfs, "bothy-oci")
        container.shutil.copy(os.path.realpath(container.runtime), own)
        p = as_user(4242, [own, "spec", "--rootless", "--bundle", b.folder], env)
        assert p.returncode == 0, p.stderr
        b.config = json.load(open(os.path.join(b.folder, "config.json"), encoding="utf-8"))
        b.config["process"]["terminal"] = False
        b.config["process"]["args"] = ["/bin/probe", "ids", "pid", "read:/proc/self/uid_map", "stat:/bin/probe", "fds",
                                       "write:/tmp/x", "stat:/dev/null", "openrw:/dev/null"]
        b.config["root"]["readonly"] = False
        b.save()
        p = as_user(4242, [own, "run", "--bundle", b.folder, "rootless"], env)
        assert p.returncode == 0, p.stderr
        a = answers(p.stdout)
        assert a["ids"] == "0:0 0:0" and a["pid"] == "1" and a["fds"] == "", a
        assert a["read:/proc/self/uid_map"].split() == ["0", "4242", "1|"], a
        assert a["write:/tmp/x"] == "ok" and a["openrw:/dev/null"] == "ok", a
        assert os.stat(os.path.join(b.rootfs, "tmp/x")).st_uid == 4242


def test_rootless_with_subordinate_ids():
    if not container.shutil.which("newuidmap"):
        raise Skip("newuidmap is not installed")
    lines = {}
    for name in ("/etc/subuid", "/etc/subgid"):
        lines[name] = open(name, encoding="utf-8").read() if os.path.exists(name) else None
    with open("/etc/passwd", encoding="utf-8") as f:
        passwd = f.read()
    user = next((p.split(":") for p in passwd.splitlines() if p.startswith("nobody:")), None)
    if not user:
        raise Skip("this machine has no user nobody")
    uid = int(user[2])
    try:
        for name in lines:
            with open(name, "a", encoding="utf-8") as f:
                f.write("nobody:700000:65536\n")
        with Bundle(rootless=True) as b:
            for top, folders, files in os.walk(b.folder):
                for n in [""] + folders + files:
                    os.chown(os.path.join(top, n), uid, int(user[3]))
            gid = int(user[3])
            b.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1},
                                                {"containerID": 1, "hostID": 700000, "size": 65536}]
            b.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1},
                                                {"containerID": 1, "hostID": 700000, "size": 65536}]
            b.config["process"]["user"] = {"uid": 33, "gid": 33}
            b.config["process"]["args"] = ["/bin/probe", "ids", "read:/proc/self/uid_map"]
            b.save()
            own = os.path.join(b.rootfs, "bothy-oci")
            container.shutil.copy(os.path.realpath(container.runtime), own)
            p = subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", own, "run", "--bundle",
                                b.folder, "sub"], env=dict(os.environ, XDG_RUNTIME_DIR=b.folder), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60)
            assert p.returncode == 0, p.stderr
            a = answers(p.stdout)
            assert a["ids"] == "33:33 33:33", a
            assert a["read:/proc/self/uid_map"].split() == ["0", str(uid), "1|", "1", "700000", "65536|"], a
    finally:
        for name, text in lines.items():
            if text is None:
                os.unlink(name)
            else:
                with open(name, "w", encoding="utf-8") as f:
                    f.write(text)


def test_names():
    with Bundle() as b:
        b.config["hostname"] = "box"
        b.config["domainname"] = "example.test"
        a = b.ask("host", "domain")
        assert a == {"host": "box", "domain": "example.test"}, a


def test_process():
    with Bundle() as b:
        p = b.config["process"]
        p["user"] = {"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 6]}
        p["cwd"] = "/new/folder/tmp"
        os.makedirs(b.rootfs + "/new/folder/tmp")
        p["env"] = ["A=1", "B=two words", "PATH=/bin"]
        p["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
        p["oomScoreAdj"] = 500
        p["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
        p["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
        b.config["linux"]["personality"] = {"domain": "LINUX32"}
        with open(b.rootfs + "/etc/passwd", "w", encoding="utf-8") as f:
            f.write("root:x:0:0::/root:/bin/sh\nu:x:1000:1001::/homes/u:/bin/sh\n")
        a = b.ask("ids", "umask", "status:Groups", "cwd", "env:A", "env:B", "env:HOME", "rlimit:7", "rlimit:4",
                  "read:/proc/self/oom_score_adj", "scheduler", "ioprio", "personality", "session", "fds", "status:NoNewPrivs")
        assert a["ids"] == "1000:1001 1000:1001" and a["umask"] == "27" and a["status:Groups"] == "5 6", a
        assert a["cwd"] == "/new/folder/tmp" and a["env:A"] == "1" and a["env:B"] == "two words", a
        assert a["env:HOME"] == "/homes/u", a
        assert a["rlimit:7"] == "64 128" and a["rlimit:4"] == "0 0", a
        assert a["read:/proc/self/oom_score_adj"] == "500|", a
        assert a["scheduler"] == "3 3" and a["ioprio"] == str(2 << 13 | 6) and a["personality"] == "8", a
        assert a["session"] == "1" and a["fds"] == "" and a["status:NoNewPrivs"] == "1", a


def test_capabilities():
    with Bundle() as b:
        b.config["process"]["user"] = {"uid": 1000, "gid": 1000}
        chown, kill, net = 1 << 0, 1 << 5, 1 << 12
        b.config["process"]["capabilities"] = {
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL"]}
        a = b.ask(*["status:Cap" + s for s in ("Bnd", "Prm", "Eff", "Inh", "Amb")])
        got = {k: int(v, 16) for k, v in a.items()}
        # execve() of a program without file capabilities leaves what is ambient.
        assert got["status:CapBnd"] == chown | kill | net, a
        assert got["status:CapInh"] == chown | kill, a
        assert got["status:CapAmb"] == kill and got["status:CapPrm"] == kill and got["status:CapEff"] == kill, a


def test_root_is_read_only():
    with Bundle() as b:
        b.config["root"]["readonly"] = True
        a = b.ask("write:/new", "write:/dev/shm/new")
        assert a == {"write:/new": "EROFS", "write:/dev/shm/new": "ok"}, a


def test_mount_options():
    with Bundle() as b:
        data = os.path.join(b.folder, "data")
        os.makedirs(data + "/sub")
        with open(data + "/file", "w", encoding="utf-8") as f:
            f.write("x")
        subprocess.run(["mount", "-t", "tmpfs", "below", data + "/sub"], check=True)
        try:
            b.config["mounts"] += [
                {"destination": "/a", "source": "data", "options": ["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]},
                {"destination": "/b", "source": "data", "options": ["rbind", "rro"]},
                {"destination": "/c", "source": "data", "options": ["rbind", "ro"]},
                {"destination": "/d/e/file", "source": "data/file", "options": ["bind"]},
                {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1700", "nosymfollow"]},
                {"destination": "/s", "source": "data", "options": ["rbind", "rshared"]},
                {"destination": "/p", "source": "data", "options": ["rbind", "private"]},
            ]
            a = b.ask("write:/a/new", "write:/b/sub/new", "write:/c/sub/new", "write:/c/new", "read:/d/e/file", "stat:/t",
                      "list:/a/sub", "read:/proc/self/mountinfo")
            assert a["write:/a/new"] == a["write:/b/sub/new"] == a["write:/c/new"] == "EROFS", a
            assert a["write:/c/sub/new"] == "ok", a
            assert a["read:/d/e/file"] == "x" and a["stat:/t"].startswith("41700 "), a
            lines = {l.split()[4]: l for l in a["read:/proc/self/mountinfo"].split("|") if l}
            assert "ro,nosuid,nodev,noexec,noatime" in lines["/a"], lines["/a"]
            assert "nosymfollow" in lines["/t"] and "size=1024k" in lines["/t"], lines["/t"]
            assert "/a/sub" not in lines and "/b/sub" in lines, lines
            assert "shared:" not in lines["/p"], lines["/p"]
            assert os.listdir(data) and not os.path.exists(data + "/new")
        finally:
            subprocess.run(["umount", data + "/sub"], check=True)


def test_tmpfs_copies_up():
    with Bundle() as b:
        os.makedirs(b.rootfs + "/var/deep")
        with open(b.rootfs + "/var/deep/file", "w", encoding="utf-8") as f:
            f.write("old")
        os.symlink("/etc/passwd", b.rootfs + "/var/link")
        os.chmod(b.rootfs + "/var", 0o751)
        b.config["mounts"].append({"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]})
        a = b.ask("read:/var/deep/file", "link:/var/link", "write:/var/new", "stat:/var")
        assert a["read:/var/deep/file"] == "old" and a["link:/var/link"] == "/etc/passwd", a
        assert a["write:/var/new"] == "EROFS" and a["stat:/var"].startswith("40751"), a


def test_long_mount_data():
    """More than fsconfig(2) takes as one string."""
    with Bundle() as b:
        lower = []
        for i in range(40):
            lower.append(os.path.join(b.folder, "layer%d" % i))
            os.makedirs(lower[-1])
            with open(lower[-1] + "/file%d" % i, "w", encoding="utf-8") as f:
                f.write(str(i))
        b.config["mounts"].append({"destination": "/over", "type": "overlay", "source": "overlay",
                                   "options": ["lowerdir=" + ":".join(lower), "nodev"]})
        a = b.ask("read:/over/file0", "read:/over/file39", "read:/proc/self/mountinfo")
        assert a["read:/over/file0"] == "0" and a["read:/over/file39"] == "39", a
        assert [l for l in a["read:/proc/self/mountinfo"].split("|") if " /over " in l and "nodev" in l], a


def test_o36_id_mapped_mount():
    need_newer_mount_calls()
    with Bundle() as b:
        data = os.path.join(b.folder, "data")
        os.makedirs(data)
        with open(data + "/file", "w", encoding="utf-8") as f:
            f.write("x")
        os.chown(data + "/file", 1000, 1000)
        ids = [{"containerID": 1000, "hostID": 5000, "size": 1}]
        b.config["mounts"].append({"destination": "/m", "source": data, "options": ["bind"], "uidMappings": ids,
                                   "gidMappings": ids})
        a = b.ask("stat:/m/file")
        assert " 5000:5000 " in a["stat:/m/file"], a
        # What the root of a user namespace makes there is nobody's else: not the host's root's, and not its own on the host.
        os.chown(data, 1000, 1000)
        ids[0].update(containerID=1000, hostID=100000)
        b.config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uid", "gid"):
            b.config["linux"][kind + "Mappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        a = b.ask("write:/m/new@y", "stat:/m/new", "stat:/m/file")
        assert a["write:/m/new@y"] == "ok" and " 0:0 " in a["stat:/m/new"] and " 0:0 " in a["stat:/m/file"], a
        st = os.stat(data + "/new")
        assert (st.st_uid, st.st_gid) == (1000, 1000), st


def test_o11_propagation_does_not_reach_the_host():
    with Bundle() as b:
        b.config["linux"]["rootfsPropagation"] = "rshared"
        b.config["process"]["capabilities"] = {k: ["CAP_SYS_ADMIN"] for k in ("bounding", "permitted", "effective")}
        before = open("/proc/self/mountinfo", encoding="utf-8").read()
        a = b.ask("mount:/tmp", "read:/proc/self/mountinfo")
        assert a["mount:/tmp"] == "ok", a
        root = [l for l in a["read:/proc/self/mountinfo"].split("|") if l and l.split()[4] == "/"]
        assert "shared:" in root[-1], root
        assert open("/proc/self/mountinfo", encoding="utf-8").read() == before


def test_masked_and_read_only_paths():
    with Bundle() as b:
        os.makedirs(b.rootfs + "/secret")
        os.makedirs(b.rootfs + "/fixed/sub")
        with open(b.rootfs + "/secret/file", "w", encoding="utf-8") as f:
            f.write("x")
        with open(b.rootfs + "/etc/key", "w", encoding="utf-8") as f:
            f.write("key")
        b.config["linux"]["maskedPaths"] += ["/secret", "/etc/key", "/not/there"]
        b.config["linux"]["readonlyPaths"] += ["/fixed", "/not/there/either"]
        a = b.ask("list:/secret", "write:/secret/x", "read:/etc/key", "write:/fixed/sub/x", "write:/proc/sys/kernel/panic@1",
                  "read:/proc/keys", "write:/proc/sysrq-trigger@h")
        assert a["list:/secret"] == "" and a["write:/secret/x"] == "EROFS" and a["read:/etc/key"] == "", a
        assert a["write:/fixed/sub/x"] == "EROFS" and a["write:/proc/sys/kernel/panic@1"] == "EROFS", a
        assert a["read:/proc/keys"] == "" and a["write:/proc/sysrq-trigger@h"] in ("EROFS", "ENOENT"), a


def test_devices():
    with Bundle() as b:
        b.config["linux"]["devices"] = [
            {"path": "/dev/mine/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]
        b.config["process"]["capabilities"] = {k: ["CAP_MKNOD", "CAP_SYS_ADMIN"] for k in ("bounding", "permitted", "effective")}
        a = b.ask("stat:/dev/mine/zero", "stat:/dev/pipe", "openrw:/dev/null", "openrw:/dev/full", "link:/dev/ptmx", "link:/dev/fd",
                  "mknod", "openrw:/tmp/node", "openrw:/dev/mine/zero")
        assert a["stat:/dev/mine/zero"] == "20640 3:4 1:5" and a["stat:/dev/pipe"].startswith("10600 "), a
        assert a["openrw:/dev/null"] == a["openrw:/dev/full"] == "ok", a
        assert a["link:/dev/ptmx"] == "pts/ptmx" and a["link:/dev/fd"] == "/proc/self/fd", a
        # A node of a disk may be made, and not opened.
        assert a["mknod"] == "ok" and a["openrw:/tmp/node"] == "EPERM", a


def test_devices_allowed():
    with Bundle() as b:
        b.config["linux"]["resources"]["devices"].append({"allow": True, "type": "b", "major": 254, "minor": 0, "access": "r"})
        b.config["process"]["capabilities"] = {k: ["CAP_MKNOD"] for k in ("bounding", "permitted", "effective")}
        a = b.ask("mknod", "read:/tmp/node", "openrw:/tmp/node")
        assert a["mknod"] == "ok" and a["openrw:/tmp/node"] == "EPERM", a


def test_sysctl():
    with Bundle() as b:
        b.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000", "net/ipv4/ip_default_ttl": "33",
                                       "fs.mqueue.msg_max": "11"}
        a = b.ask("read:/proc/sys/net/ipv4/ip_forward", "read:/proc/sys/kernel/msgmax", "read:/proc/sys/net/ipv4/ip_default_ttl",
                  "read:/proc/sys/fs/mqueue/msg_max")
        assert [v.strip("|") for v in a.values()] == ["1", "9000", "33", "11"], a


def test_time_offsets():
    with Bundle() as b:
        b.config["linux"]["namespaces"].append({"type": "time"})
        b.config["linux"]["timeOffsets"] = {"monotonic": {"secs": 86400 * 30}, "boottime": {"secs": 86400 * 60, "nanosecs": 5}}
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        a = b.ask("clock:monotonic", "clock:boottime")
        assert abs(int(a["clock:monotonic"]) - now - 86400 * 30) < 60, a
        assert abs(int(a["clock:boottime"]) - time.clock_gettime(time.CLOCK_BOOTTIME) - 86400 * 60) < 60, a


SYS_MKDIR, SYS_GETPID, SYS_PTRACE, SYS_SYNC, SYS_KEYCTL = 83, 39, 101, 162, 250


def test_seccomp():
    for nnp in (True, False):
        with Bundle() as b:
            b.config["process"]["noNewPrivileges"] = nnp
            b.config["linux"]["seccomp"] = {
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
                             {"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                             {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS"},
                             {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
                              "args": [{"index": 0, "value": 18446744073709551615, "op": "SCMP_CMP_EQ"}]}]}
            b.config["linux"]["seccomp"]["syscalls"][3]["args"][0]["value"] = 0xffffffff
            b.config["linux"]["seccomp"]["syscalls"][3]["args"][0]["op"] = "SCMP_CMP_GE"
            a = b.ask("status:Seccomp", "syscall:%d" % SYS_MKDIR, "syscall:%d" % SYS_SYNC, "syscall:%d" % SYS_PTRACE,
                      "syscall:%d" % SYS_GETPID, "syscall:%d" % SYS_KEYCTL, "status:NoNewPrivs")
            assert a["status:Seccomp"] == "2" and a["status:NoNewPrivs"] == ("1" if nnp else "0"), a
            assert a["syscall:%d" % SYS_MKDIR] == "EPERM" and a["syscall:%d" % SYS_SYNC] == "ENOSYS", a
            assert a["syscall:%d" % SYS_PTRACE] == "signal 31" and a["syscall:%d" % SYS_GETPID] == "ok", a
            assert a["syscall:%d" % SYS_KEYCTL] == "EADDRNOTAVAIL", a


def test_seccomp_listener():
    with Bundle() as b:
        path = os.path.join(b.folder, "agent")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen(1)
        got = {}

        def agent():
            conn, _ = server.accept()
            data, fds, _, _ = socket.recv_fds(conn, 65536, 4)
            got["state"] = json.loads(data)
            got["fds"] = len(fds)
            got["link"] = os.readlink("/proc/self/fd/%d" % fds[0])
            # Nobody answers: whoever asks gets ENOSYS once the listener is closed.
            os.close(fds[0])
            conn.close()

        thread = threading.Thread(target=agent, daemon=True)
        thread.start()
        b.config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "hello",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
        a = b.ask("syscall:%d" % SYS_MKDIR, "status:Seccomp")
        thread.join(10)
        server.close()
        assert a["syscall:%d" % SYS_MKDIR] == "ENOSYS" and a["status:Seccomp"] == "2", a
        assert got["fds"] == 1 and "seccomp notify" in got["link"], got
        assert got["state"]["metadata"] == "hello" and got["state"]["state"]["id"] == "c1", got


def test_hooks_in_order():
    kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    with Bundle() as b:
        log = os.path.join(b.folder, "log")
        script = os.path.join(b.folder, "hook.py")
        with open(script, "w", encoding="utf-8") as f:
            f.write("#!%s\nimport sys, json, os\ns = json.load(sys.stdin)\n"
                    "open(%r, 'a').write('%%s %%s %%s %%s|' %% (sys.argv[1], s['status'], s['id'], os.environ.get('X')))\n"
                    % (sys.executable, log))
        os.chmod(script, 0o755)
        b.config["annotations"] = {"key": "value"}
        b.config["hooks"] = {k: [{"path": script, "args": ["hook", k], "env": ["X=" + k], "timeout": 30}] for k in kinds
                             if k != "startContainer"}
        # In the container: the probe itself writes.
        b.config["hooks"]["startContainer"] = [{"path": "/bin/probe", "args": ["probe", "write:/tmp/started"]}]
        a = b.ask("stat:/tmp/started")
        assert a["stat:/tmp/started"].startswith("100"), a
        lines = open(log, encoding="utf-8").read().strip("|").split("|")
        assert [l.split()[0] for l in lines] == [k for k in kinds if k != "startContainer"], lines
        states = {l.split()[0]: l.split()[1] for l in lines}
        assert states["createRuntime"] == "creating" and states["poststart"] == "running" and states["poststop"] == "stopped", states
        assert all(l.split()[2] == "c1" and l.split()[3] == l.split()[0] for l in lines), lines


def test_hooks_get_all_of_the_state():
    """More than a pipe takes; and a hook that reads nothing is no failure."""
    with Bundle() as b:
        script, log = b.folder + "/hook.py", b.folder + "/log"
        with open(script, "w", encoding="utf-8") as f:
            f.write("#!%s\nimport sys, json\nopen(%r, 'a').write('%%d|' %% len(json.load(sys.stdin)['annotations']['big']))\n" % (sys.executable, log))
        os.chmod(script, 0o755)
        b.config["annotations"] = {"big": "x" * (2 << 20)}
        b.config["hooks"] = {k: [{"path": "/bin/true"}, {"path": script}] for k in ("createRuntime", "createContainer", "poststop")}
        b.ask("pid")
        assert open(log, encoding="utf-8").read() == f"{2 << 20}|" * 3


def test_few_descriptors():
    """A limit that the way to the program does not keep holds for the program all the same."""
    for nnp in (True, False):
        with Bundle() as b:
            b.config["process"]["noNewPrivileges"] = nnp
            b.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}]
            b.config["hooks"] = {"startContainer": [{"path": "/bin/probe", "args": ["probe", "write:/tmp/hook"]}]}
            b.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}
            a = b.ask("rlimit:7", "read:/bin/probe")
            assert a == {"rlimit:7": "3 3", "read:/bin/probe": "EMFILE"} and os.path.exists(b.rootfs + "/tmp/hook"), a
            with b.running() as name:
                assert answers(b.good("exec", name, "/bin/probe", "rlimit:7"))["rlimit:7"] == "3 3"


def test_failing_hooks():
    for kind in ("prestart", "createRuntime", "createContainer"):
        with Bundle() as b:
            b.config["process"]["args"] = ["/bin/probe"]
            b.config["hooks"] = {kind: [{"path": "/bin/false"}]}
            b.refused(kind, "status 1")
            b.config["hooks"] = {kind: [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
            b.refused(kind, "1 seconds")
            b.config["hooks"] = {kind: [{"path": "/no/such/hook"}]}
            b.refused(kind)


def test_limits_v1_and_v2():
    with Bundle() as b:
        b.config["linux"]["resources"].update({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 64 << 20},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 20}})
        with b.running() as name:
            stats = json.loads(b.good("events", "--stats", name))["data"]
            assert stats["memory"]["usage"]["limit"] == 64 << 20, stats["memory"]["usage"]
            assert stats["pids"]["limit"] == 20 and stats["pids"]["current"] == 1, stats["pids"]
            b.good("update", "--memory", "128M", "--memory-swap", "128M", "--pids-limit", "30", "--cpu-share", "256", name)
            stats = json.loads(b.good("events", "--stats", name))["data"]
            assert stats["memory"]["usage"]["limit"] == 128 << 20 and stats["pids"]["limit"] == 30, stats
            b.good("update", "--resources", "-", name, input=json.dumps({"pids": {"limit": 10}}), stdin=None)
            assert json.loads(b.good("events", "--stats", name))["data"]["pids"]["limit"] == 10
            cpu = "/sys/fs/cgroup/cpu" + b.config["linux"]["cgroupsPath"]
            if os.path.isdir(cpu):
                assert open(cpu + "/cpu.shares", encoding="utf-8").read() == "256\n"
                assert open(cpu + "/cpu.cfs_quota_us", encoding="utf-8").read() == "50000\n"
        a = b.ask("forks:100")
        assert a["forks:100"] == "19", a


def test_other_limits():
    """Each takes effect, in whichever version of control groups has it, or is a warning or a failure with its name."""
    disk = next((d for d in sorted(os.listdir("/sys/block")) if not d.startswith(("loop", "ram", "zram"))), None)
    major, minor = map(int, open(f"/sys/block/{disk}/dev", encoding="utf-8").read().split(":")) if disk else (1, 0)
    pages = sorted(os.listdir("/sys/kernel/mm/hugepages"))[0] if os.path.isdir("/sys/kernel/mm/hugepages") and os.listdir("/sys/kernel/mm/hugepages") else "hugepages-2048kB"
    kib = int(pages.split("-")[1][:-2])
    size = f"{kib >> 10}MB" if kib < 1 << 20 else f"{kib >> 20}GB"
    rate = [{"major": major, "minor": minor, "rate": 1 << 20}]
    cases = (
        ({"memory": {"kernel": 64 << 20}}, "memory.kernel", "memory/memory.kmem.limit_in_bytes", str(64 << 20), None, None),
        ({"memory": {"kernelTCP": 32 << 20}}, "memory.kernelTCP", "memory/memory.kmem.tcp.limit_in_bytes", str(32 << 20), None, None),
        ({"memory": {"swappiness": 17}}, "memory.swappiness", "memory/memory.swappiness", "17", None, None),
        ({"memory": {"reservation": 32 << 20}}, "memory.reservation", "memory/memory.soft_limit_in_bytes", str(32 << 20), "memory.low", str(32 << 20)),
        ({"cpu": {"cpus": "0", "mems": "0"}}, "cpu.cpus", "cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"),
        ({"cpu": {"quota": 20000, "period": 100000, "burst": 5000}}, "cpu", "cpu/cpu.cfs_burst_us", "5000", "cpu.max.burst", "5000"),
        ({"cpu": {"idle": 1}}, "cpu.idle", "cpu/cpu.idle", "1", "cpu.idle", "1"),
        ({"cpu": {"realtimePeriod": 500000}}, "cpu.realtimePeriod", "cpu/cpu.rt_period_us", "500000", None, None),
        ({"blockIO": {"weight": 100}}, "blockIO.weight", "blkio/blkio.bfq.weight", "100", "io.bfq.weight", "100"),
        ({"blockIO": {"weight": 100}}, "blockIO.weight", "blkio/blkio.weight", "100", "io.weight", "910"),
        ({"blockIO": {"throttleReadBpsDevice": rate}}, "blockIO.throttleReadBpsDevice", "blkio/blkio.throttle.read_bps_device",
         f"{major}:{minor} {1 << 20}", "io.max", f"rbps={1 << 20}"),
        ({"blockIO": {"throttleWriteIOPSDevice": rate}}, "blockIO.throttleWriteIOPSDevice", "blkio/blkio.throttle.write_iops_device",
         f"{major}:{minor} {1 << 20}", "io.max", f"wiops={1 << 20}"),
        ({"hugepageLimits": [{"pageSize": size, "limit": kib << 12}]}, "hugepageLimits", f"hugetlb/hugetlb.{size}.limit_in_bytes", str(kib << 12),
         f"hugetlb.{size}.max", str(kib << 12)),
        ({"network": {"classID": 0x100001}}, "network.classID", "net_cls/net_cls.classid", str(0x100001), None, None),
        ({"network": {"priorities": [{"name": "lo", "priority": 3}]}}, "network.priorities", "net_prio/net_prio.ifpriomap", "lo 3", None, None),
        ({"unified": {"pids.max": "77"}}, "unified", None, None, "pids.max", "77"),
    )
    seen = set()
    for resources, name, v1, text1, v2, text2 in cases:
        with Bundle() as b:
            b.config["linux"]["resources"].update(resources)
            b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
            b.save()
            p = b.call("create", "x")
            if p.returncode:
                assert p.stderr.count("\n") == 1 and f"linux.resources.{name}" in p.stderr, (name, p.stderr)
                continue
            group = b.config["linux"]["cgroupsPath"]
            files = [(f"/sys/fs/cgroup/{v1.split('/')[0]}{group}/{v1.split('/')[1]}", text1)] if v1 else []
            files += [(f"{top}{group}/{v2}", text2) for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")] if v2 else []
            found = [open(f, encoding="utf-8").read() for f, _ in files if os.path.exists(f)]
            # With the BFQ scheduler and without, weights have other files.
            assert any(t in f for f in found for _, t in files) or (name == "blockIO.weight" and not found) or f"linux.resources.{name}" in p.stderr or "no effect" in p.stderr, (name, found, p.stderr)
            if found:
                seen.add(name)
            # What is counted is reported.
            data = json.loads(b.good("events", "--stats", "x"))["data"]
            if name.startswith("memory.kernel") and found:
                assert data["memory"]["kernel" if name == "memory.kernel" else "kernelTCP"]["limit"] == int(found[0]), data["memory"]
            if name == "hugepageLimits":
                assert size in data["hugetlb"], data["hugetlb"]
            b.good("delete", "--force", "x")
    assert len(seen) > 3, seen


def test_memory_limit_kills():
    with Bundle() as b:
        b.config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
        b.config["process"]["args"] = ["/bin/probe", "eat:200"]
        b.save()
        p = b.call("run", "eater")
        assert p.returncode == 137, (p.returncode, p.stderr)


def test_terminal():
    with Bundle() as b:
        path = os.path.join(b.folder, "console")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen(2)
        b.config["process"].update(terminal=True, consoleSize={"height": 33, "width": 99})
        b.config["process"]["args"] = ["/bin/probe", "tty", "stat:/dev/console", "session", "sleep:1000"]
        b.save()
        b.good("create", "--console-socket", path, "t")
        conn, _ = server.accept()
        _, fds, _, _ = socket.recv_fds(conn, 4096, 4)
        assert len(fds) == 1 and os.get_terminal_size(fds[0]) == (99, 33)
        b.good("start", "t")
        text = b""
        while b"session" not in text:
            text += os.read(fds[0], 4096)
        a = answers(text.decode())
        assert a["tty"].startswith("1 1 1 /dev/"), a
        assert a["stat:/dev/console"].startswith("20") and " 136:" in a["stat:/dev/console"], a
        # One more, by exec.
        process = {"terminal": True, "cwd": "/", "args": ["/bin/probe", "tty"], "user": {"uid": 0, "gid": 0}}
        with open(os.path.join(b.folder, "process.json"), "w", encoding="utf-8") as f:
            json.dump(process, f)
        b.good("exec", "--detach", "--process", os.path.join(b.folder, "process.json"), "--console-socket", path, "t")
        conn2, _ = server.accept()
        _, more, _, _ = socket.recv_fds(conn2, 4096, 4)
        text = b""
        while b"tty=" not in text or b"\n" not in text:
            text += os.read(more[0], 4096)
        assert b"tty=1 1 1 /dev/pts/" in text, text
        for fd in fds + more:
            os.close(fd)
        conn.close()
        conn2.close()
        server.close()
        b.good("delete", "--force", "t")


def on_a_terminal(b, *words):
    """Runs the runtime on a terminal of its own, types a line, and gives back its status and all that came."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([container.runtime, "--root", b.root, *words], cwd=b.folder, stdin=slave, stdout=slave, stderr=slave)
    text = b""
    os.write(master, b"typed\n")
    end = time.time() + 30
    while p.poll() is None and time.time() < end:
        if select.select([master], [], [], 0.1)[0]:
            text += os.read(master, 4096)
    while select.select([master], [], [], 0)[0]:
        text += os.read(master, 4096)
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    assert before == after, f"the terminal is not as it was; {p.poll()} {text}"
    return p.wait(1), text.decode()


def test_terminal_in_the_foreground():
    with Bundle() as b:
        b.config["process"]["terminal"] = True
        b.config["process"]["args"] = ["/bin/probe", "tty", "line", "exit:4"]
        b.save()
        status, text = on_a_terminal(b, "run", "fore")
        assert status == 4 and "1 1 1 /dev/" in text and "line=typed" in text, (status, text)
        b.config["process"]["terminal"] = False
        with b.running() as name:
            status, text = on_a_terminal(b, "exec", "--tty", name, "/bin/probe", "tty", "line", "exit:5")
            assert status == 5 and "1 1 1 /dev/pts/" in text and "line=typed" in text, (status, text)


def test_terminal_nobody_reads():
    """Much is typed, and the program takes nothing: its output and its end are seen all the same."""
    with Bundle() as b:
        b.config["process"]["terminal"] = True
        b.config["process"]["args"] = ["/bin/probe", "sleep:2", "pid", "sleep:1000"]
        b.save()
        master, slave = os.openpty()
        os.set_blocking(master, False)
        p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "run", "x"], cwd=b.folder, stdin=slave, stdout=slave, stderr=slave)
        text, end = b"", time.time() + 20
        while b"pid=1" not in text and time.time() < end:
            try:
                os.write(master, b"x" * 200 + b"\n")
            except BlockingIOError:
                time.sleep(0.01)
            if select.select([master], [], [], 0)[0]:
                text = (text + os.read(master, 65536))[-65536:]
        assert b"pid=1" in text, text[-200:]
        b.good("kill", "x", "KILL")
        while p.poll() is None and time.time() < end:
            if select.select([master], [], [], 0.1)[0]:
                os.read(master, 65536)
        assert p.wait(1) == 137
        os.close(master)
        os.close(slave)


def test_preserved_descriptors():
    with Bundle() as b:
        r, w = os.pipe()
        os.write(w, b"x")
        fd = os.open("/dev/null", os.O_RDONLY)

        def give():
            os.dup2(r, 200)
            os.dup2(fd, 4)
            os.dup2(200, 3)

        a = b.ask("fds", options=("--preserve-fds", "2"), preexec_fn=give, close_fds=False)
        listed = a["fds"].split()
        assert len(listed) == 2 and listed[0].startswith("3->pipe:") and listed[1] == "4->/dev/null", a
        for fd in (r, w, fd):
            os.close(fd)


def test_no_pivot():
    with Bundle() as b:
        a = b.ask("list:/", options=("--no-pivot",))
        assert "bin" in a["list:/"] and "home" not in a["list:/"], a


def test_status_of_run():
    with Bundle() as b:
        for acts, status in ((["exit:7"], 7), (["exit:0"], 0)):
            b.config["process"]["args"] = ["/bin/probe", *acts]
            b.save()
            assert b.call("run", b.new_id()).returncode == status
        b.config["process"]["args"] = ["nothing"]
        b.save()
        p = b.call("run", "x")
        assert p.returncode != 0 and "executable file 'nothing' not found in $PATH" in p.stderr, p.stderr


def test_without_cgroup():
    with Bundle() as b:
        b.config["mounts"] = [m for m in b.config["mounts"] if m.get("type") != "cgroup"]
        b.config["process"]["args"] = ["/bin/probe", "pid"]
        b.save()
        assert "pid=1" in b.good("--cgroup-manager", "disabled", "run", "x")


def test_oom_events():
    with Bundle() as b:
        if not (os.path.isdir("/sys/fs/cgroup/memory") or os.path.isfile("/sys/fs/cgroup/cgroup.controllers")):
            raise Skip("no control groups count memory")
        b.config["linux"]["resources"]["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
        with b.running() as name:
            lines = []
            p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "events", "--interval=1000s", name],
                                 stdout=subprocess.PIPE, text=True)
            first = json.loads(p.stdout.readline())
            assert first["type"] == "stats" and first["id"] == name, first
            # One that takes more than there is, beside the container's first process.
            assert b.call("exec", name, "/bin/probe", "eat:400").returncode == 137
            lines.append(json.loads(p.stdout.readline()))
            assert lines == [{"type": "oom", "id": name}], lines
            b.good("kill", name, "KILL")
            rest = p.communicate(timeout=10)[0]
            assert p.returncode == 0 and "stats" not in rest, rest


def test_interval_of_events():
    with Bundle() as b, b.running() as name:
        for text in ("x", "", "0", "0s", "5q", "5s5", "s", "-1", "1000h", "99999999999999999999s", "1m30", "100us"):
            p = b.call("events", "--interval", text, name)
            assert p.returncode == 1 and "--interval" in p.stderr and p.stderr.count("\n") == 1, (text, p.stderr)
        p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "events", "--interval=20ms", name], stdout=subprocess.PIPE, text=True)
        start = time.time()
        lines = [json.loads(p.stdout.readline())["type"] for _ in range(5)]
        assert lines == ["stats"] * 5 and time.time() - start < 5
        b.good("kill", name, "KILL")
        p.communicate(timeout=10)
        # As containerd, and as people write it.
        for text in ("5s", "1m30s", "7"):
            p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "events", "--interval", text, name], stdout=subprocess.PIPE)
            assert p.wait(10) == 0
            p.stdout.close()


def test_without_any_newer_mount_call():
    """Each of them alone: then all mounts are made by mount(2)."""
    if container.without:
        raise Skip("some are absent already")
    for name in MOUNT_CALLS:
        with Bundle() as b:
            container.prefix = [os.path.join(os.path.dirname(container.probe), "container_without"), name]
            try:
                a = b.ask("pid", "ls:/", "write:/proc/sys/kernel/hostname@x")
            finally:
                container.prefix = []
            assert a["pid"] == "1" and a["write:/proc/sys/kernel/hostname@x"] == "EROFS", (name, a)


def test_without_each_other_newer_call():
    """The whole life of a container without each of them; and nothing that the runtime was given leaks into it."""
    if container.without:
        raise Skip("some are absent already")
    fd = os.open("/dev/null", os.O_RDONLY)
    single = ("openat2", "pidfd_open", "close_range", "clone3", "pidfd_send_signal", "faccessat2")
    for name in (*single, ",".join(single + MOUNT_CALLS)):
        with Bundle() as b:
            b.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}
            b.config["hooks"] = {"poststop": [{"path": "/bin/true", "timeout": 5}]}
            container.prefix = [os.path.join(os.path.dirname(container.probe), "container_without"), name]
            try:
                a = b.ask("fds", "syscall:101", pass_fds=[fd])
                assert a["fds"] == "" and a["syscall:101"] == "EPERM", (name, a)
                with b.running() as c:
                    assert answers(b.good("exec", c, "/bin/probe", "fds", pass_fds=[fd]))["fds"] == "", name
                    b.good("pause", c)
                    b.good("resume", c)
                    b.good("kill", c, "KILL")
                b.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
                if "pidfd_open" in name:
                    b.refused("1 seconds")
            finally:
                container.prefix = []
    os.close(fd)


def test_exec_cpu_affinity():
    with Bundle() as b, b.running() as name:
        process = {"cwd": "/", "args": ["/bin/probe", "status:Cpus_allowed_list"], "execCPUAffinity": {"initial": "0", "final": "0"}}
        for final, status in (("0", 0), ("99999", 1), ("x", 1), ("3-1", 1), ("0-", 1)):
            process["execCPUAffinity"]["final"] = final
            with open(b.folder + "/process.json", "w", encoding="utf-8") as f:
                json.dump(process, f)
            p = b.call("exec", "--process", b.folder + "/process.json", name)
            assert p.returncode == status, (final, p.stderr)
            if status:
                assert "execCPUAffinity" in p.stderr, p.stderr
            else:
                assert answers(p.stdout)["status:Cpus_allowed_list"] == "0", p.stdout


def test_exec_beside_an_init_with_groups():
    """An init has made groups below its own, which then takes no process: exec goes where the init is."""
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        raise Skip("control groups of version 1 take processes everywhere")
    with Bundle() as b, b.running() as name:
        group = "/sys/fs/cgroup" + b.config["linux"]["cgroupsPath"]
        os.mkdir(group + "/init.scope")
        for path, text in ((group + "/init.scope/cgroup.procs", str(b.state(name)["pid"])), (group + "/cgroup.subtree_control", "+pids")):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        a = answers(b.good("exec", name, "/bin/probe", "read:/proc/self/cgroup"))
        assert a["read:/proc/self/cgroup"] == "0::/init.scope|", a


def test_spec_and_features():
    with Bundle() as b:
        f = json.loads(b.good("features"))
        assert "network" in f["linux"]["namespaces"] and "rro" in f["mountOptions"] and f["ociVersionMax"].startswith("1.2"), f
        assert b.call("spec").returncode != 0


if __name__ == "__main__":
    container.main(sys.modules[__name__])
