#!/usr/bin/env python3
"""hostile RUNTIME PROBE: bundles and containers that mean harm. Names of tests carry the ids of the cases."""
import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import container
from container import Bundle, answers, deep


def full_config(b):
    """A configuration with every member that means something."""
    c = deep(b.config)
    ids = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    c["annotations"] = {"a": "b"}
    c["domainname"] = "d"
    c["hooks"] = {"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]}
    c["mounts"].append({"destination": "/m", "type": "none", "source": "/tmp", "options": ["bind"], "uidMappings": ids,
                        "gidMappings": ids})
    c["process"].update({
        "consoleSize": {"height": 1, "width": 2}, "oomScoreAdj": 10, "apparmorProfile": "", "selinuxLabel": "",
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "priority": 0, "flags": [], "runtime": 0, "deadline": 0, "period": 0},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "user": {"uid": 0, "gid": 0, "umask": 0o22, "additionalGids": [1]}})
    c["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    c["linux"].update({
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0}],
        "sysctl": {"net.ipv4.ip_forward": "1"}, "rootfsPropagation": "rslave", "mountLabel": "",
        "personality": {"domain": "LINUX"},
        "intelRdt": {"closID": "x", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=70", "schemata": ["L3:0=f"], "enableCMT": False,
                     "enableMBM": False, "enableMonitoring": False},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
                    "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "", "listenerMetadata": "",
                    "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                                  "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}]},
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 1}},
        "resources": {
            "memory": {"limit": 1 << 28, "reservation": 1 << 27, "swap": 1 << 28, "kernel": -1, "kernelTCP": -1, "swappiness": 10,
                       "disableOOMKiller": False, "useHierarchy": True, "checkBeforeUpdate": False},
            "cpu": {"shares": 2, "quota": 1000, "burst": 0, "period": 100000, "realtimeRuntime": 0, "realtimePeriod": 0,
                    "cpus": "0", "mems": "0", "idle": 0},
            "pids": {"limit": 10}, "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
            "blockIO": {"weight": 10, "leafWeight": 10,
                        "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                        **{"throttle%sDevice" % k: [{"major": 8, "minor": 0, "rate": 10}]
                           for k in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")}},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 2}},
            "unified": {"memory.high": "1"},
            "devices": [{"allow": False, "type": "c", "major": 1, "minor": 2, "access": "rwm"}]}})
    c["linux"]["namespaces"].append({"type": "time", "path": ""})
    return c


def paths(value, at=()):
    yield at
    if isinstance(value, dict):
        for key, sub in value.items():
            yield from paths(sub, at + (key,))
    elif isinstance(value, list) and value:
        yield from paths(value[0], at + (0,))


def replaced(config, at, value):
    config = deep(config)
    place = config
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return config


IGNORED = ("useHierarchy",)


def test_every_member_of_another_type():
    with Bundle() as b:
        b.config = full_config(b)
        count = 0
        for at in list(paths(b.config)):
            if not at or at[-1] in IGNORED:
                continue
            was = b.config
            for key in at:
                was = was[key]
            wrong = {dict: ["[]", "text", 7], list: ["{}", "text", 7], str: [7, True, ["x"]], bool: ["true", 1, []],
                     int: ["text", True, [1], 1.5, -(1 << 63), (1 << 64) - 1, 1 << 80]}[type(was)]
            for value in wrong:
                value = json.loads(value) if isinstance(value, str) and value in ("[]", "{}") else value
                try:
                    # A range of numbers: the extremes are valid for some.
                    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63 and isinstance(was, int):
                        b.save(replaced(b.config, at, value))
                        p = b.call("create", "x")
                        assert p.returncode in (0, 1) and p.stderr.count("\n") <= 3, (p.returncode, p.stderr)
                        b.good("delete", "--force", "x")
                    else:
                        b.refused(config=replaced(b.config, at, value))
                except AssertionError as e:
                    raise AssertionError(f"{'.'.join(map(str, at))} = {value!r}: {e}") from e
                count += 1
        assert count > 400, count


def test_paths_in_sentences():
    with Bundle() as b:
        for at, value, words in (
                (("linux", "namespaces", 0, "type"), "pids", ("linux.namespaces[0].type", "pids", "network")),
                (("process", "cwd"), 5, ("process.cwd", "string")),
                (("process", "rlimits", 0, "soft"), -1, ("process.rlimits[0].soft", "-1")),
                (("linux", "resources", "devices", 0, "allow"), "no", ("linux.resources.devices[0].allow",)),
                (("mounts", 1, "options"), "ro", ("mounts[1].options", "list"))):
            b.refused(*words, config=replaced(b.config, at, value))


def test_no_json_huge_deep():
    with Bundle() as b:
        text = json.dumps(b.config)
        for bad, word in (("{", "no JSON"), ("[]", "object"), ("null", "JSON"), (text[:-10], "JSON"), (text + "x", "JSON"),
                          ("{" + '"a":[' * 5000 + "]" * 5000 + "}", "nested"), ("[" * 1000000, "nested"),
                          ('{"ociVersion":"1.0.0","ociVersion":"1.0.1"}', "JSON"), (text.replace("bothy", "bo\\u0000"), "JSON"),
                          ('{"ociVersion":"\xff"}', ""), (text + " " * (17 << 20), "at most"),
                          ('{"ociVersion":"2.0.0"}', "2.0.0"), ('{"ociVersion":"1.0.0"}', "root.path")):
            b.refused(word, config=bad)
        os.unlink(b.folder + "/config.json")
        p = b.call("create", "x")
        assert p.returncode == 1 and "config.json" in p.stderr, p.stderr
        os.mkfifo(b.folder + "/config.json")
        p = b.call("create", "x")
        assert p.returncode == 1 and "pipe" in p.stderr, p.stderr
        os.unlink(b.folder + "/config.json")
        os.symlink("config.json", b.folder + "/config.json")
        p = b.call("create", "x")
        assert p.returncode == 1 and "config.json" in p.stderr, p.stderr
        os.unlink(b.folder + "/config.json")


def test_o01_own_executable():
    with open(container.runtime, "rb") as f:
        before = hashlib.sha256(f.read()).hexdigest()
    with Bundle() as b:
        b.config["process"]["args"] = ["/proc/self/exe", "--version"]
        b.save()
        # Inside, that is the copy, which finds no libraries there; whatever it does, it cannot be written.
        b.good("create", "x")
        fd = os.open(f"/proc/{b.state('x')['pid']}/exe", os.O_RDONLY)
        b.call("start", "x")
        b.good("delete", "--force", "x")
        # Nobody executes it any more, so "text file busy" protects it no longer.
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC):
            end = time.time() + 10
            while True:
                try:
                    own = os.open(f"/proc/self/fd/{fd}", flags)
                    try:
                        # A sealed copy can be opened, and not written.
                        os.write(own, b"x")
                        raise AssertionError("the runtime can be written through /proc/PID/exe")
                    finally:
                        os.close(own)
                except OSError as e:
                    if e.errno == errno.ETXTBSY and time.time() < end:
                        time.sleep(0.01)
                        continue
                    assert e.errno in (errno.EROFS, errno.EPERM), e
                    break
        os.close(fd)
        with b.running() as name:
            b.call("exec", name, "/proc/self/exe")
    with open(container.runtime, "rb") as f:
        assert hashlib.sha256(f.read()).hexdigest() == before


def test_o02_cwd_by_descriptor():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        for n in range(3, 24):
            b.config["process"]["cwd"] = f"/proc/self/fd/{n}"
            b.refused("cwd")
        b.config["process"]["cwd"] = "/proc/self/fd/5/../../../etc"
        b.refused("cwd")
        b.config["process"]["cwd"] = "/"
        os.symlink("/proc/self/fd/7", b.rootfs + "/trap")
        with b.running() as name:
            for cwd in ["/trap"] + [f"/proc/self/fd/{n}" for n in range(3, 24)]:
                p = b.call("exec", "--cwd", cwd, name, "/bin/probe", "cwd")
                assert p.returncode and "cwd" in p.stderr, (cwd, p.stdout, p.stderr)


def test_o03_o04_image_with_its_own_dev():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        b.config["mounts"] = [m for m in b.config["mounts"] if not m["destination"].startswith("/dev")]
        secret = b.folder + "/secret"
        with open(secret, "w", encoding="utf-8") as f:
            f.write("secret")
        os.symlink(secret, b.rootfs + "/dev/null")
        b.refused("/dev/null")
        os.unlink(b.rootfs + "/dev/null")
        with open(b.rootfs + "/dev/null", "w", encoding="utf-8") as f:
            f.write("no device")
        b.refused("/dev/null")
        os.unlink(b.rootfs + "/dev/null")
        # A console that leads elsewhere.
        pts = {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}
        b.config["mounts"].append(pts)
        b.config["process"]["terminal"] = True
        for target in (secret, "/etc/passwd", "/proc/self/fd/1"):
            os.symlink(target, b.rootfs + "/dev/console")
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.bind(b.folder + "/console")
            server.listen(1)
            b.save()
            p = b.call("create", "--console-socket", b.folder + "/console", "x")
            assert p.returncode == 1 and "/dev/console" in p.stderr, p.stderr
            server.close()
            os.unlink(b.folder + "/console")
            os.unlink(b.rootfs + "/dev/console")
        assert open(secret, encoding="utf-8").read() == "secret"


def test_o05_writes_to_proc_go_to_the_host_s():
    """What is mounted over /proc and /proc/sys of the container takes no setting away."""
    with Bundle() as b:
        os.makedirs(b.folder + "/proc/sys/net/ipv4")
        setting = b.folder + "/proc/sys/net/ipv4/ip_forward"
        with open(setting, "w", encoding="utf-8") as f:
            f.write("old")
        b.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        b.config["linux"]["maskedPaths"] = b.config["linux"]["readonlyPaths"] = []
        b.config["process"]["oomScoreAdj"] = 300
        b.config["mounts"].append({"destination": "/proc/sys", "source": b.folder + "/proc/sys", "options": ["bind"]})
        b.config["mounts"].append({"destination": "/real", "type": "proc", "source": "proc"})
        a = b.ask("read:/proc/sys/net/ipv4/ip_forward", "read:/real/sys/net/ipv4/ip_forward", "read:/real/self/oom_score_adj")
        assert a["read:/proc/sys/net/ipv4/ip_forward"] == "old" and open(setting, encoding="utf-8").read() == "old", a
        assert a["read:/real/sys/net/ipv4/ip_forward"] == "1|" and a["read:/real/self/oom_score_adj"] == "300|", a


def test_o06_o08_links_where_the_kernels_file_systems_go():
    for name in ("proc", "sys", "dev"):
        with Bundle() as b:
            b.config["process"]["args"] = ["/bin/probe"]
            os.rmdir(f"{b.rootfs}/{name}")
            os.makedirs(b.rootfs + "/elsewhere")
            for target in ("elsewhere", "/elsewhere", "/", "..", "/proc/self/root"):
                os.symlink(target, f"{b.rootfs}/{name}")
                b.refused("symbolic link")
                os.unlink(f"{b.rootfs}/{name}")


def test_o07_links_on_the_way_to_a_mount():
    with Bundle() as b:
        outside = b.folder + "/outside"
        os.makedirs(outside)
        for i, target in enumerate(("../../../../../.." + outside, outside, "/../.." + outside, "/proc/self/root" + outside,
                                    "/proc/1/root" + outside)):
            os.symlink(target, f"{b.rootfs}/l{i}")
            b.config["mounts"].append({"destination": f"/l{i}/new", "type": "tmpfs", "source": "tmpfs"})
            b.config["process"]["args"] = ["/bin/probe"]
            b.save()
            p = b.call("run", b.new_id())
            assert p.returncode in (0, 1), p.stderr
            assert not os.listdir(outside), os.listdir(outside)


def swap(b, stop, name, outside):
    """A folder and a link that leads out take turns at one name, as fast as they can."""
    link, folder, place = (f"{b.rootfs}/{n}" for n in (".link", ".folder", name))
    os.symlink("../../../../../../.." + outside, link)
    os.makedirs(folder)
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    while not stop.is_set():
        for first in (link, folder):
            libc.renameat2(-100, first.encode(), -100, place.encode(), 2)
            if not os.path.lexists(place):
                os.rename(first, place)


def test_o07_o42_links_put_there_meanwhile():
    with Bundle() as b, Bundle() as other:
        outside = b.folder + "/outside"
        os.makedirs(outside)
        os.makedirs(b.rootfs + "/vol")
        b.config["mounts"].append({"destination": "/vol/a/b", "type": "tmpfs", "source": "tmpfs"})
        b.config["linux"]["maskedPaths"].append("/vol/a")
        b.config["linux"]["readonlyPaths"].append("/vol")
        b.config["process"]["args"] = ["/bin/probe"]
        b.save()
        # Another container has the same root at the same time.
        other.config = deep(b.config)
        other.config["root"]["path"] = b.rootfs
        other.config["linux"]["cgroupsPath"] += "-other"
        other.save()
        stop = threading.Event()
        thread = threading.Thread(target=swap, args=(b, stop, "vol", outside), daemon=True)
        thread.start()
        try:
            for _ in range(60):
                for one in (b, other):
                    p = one.call("run", one.new_id())
                    assert p.returncode in (0, 1), (p.returncode, p.stderr)
                    assert not os.listdir(outside), os.listdir(outside)
        finally:
            stop.set()
            thread.join()


def test_o09_root():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        os.symlink("rootfs", b.folder + "/link")
        os.symlink("/", b.folder + "/host")
        os.symlink("loop", b.folder + "/loop")
        os.mkfifo(b.folder + "/pipe")
        for path in ("link", "host", "loop", "..", "rootfs/..", "../..", "/", "//", "/proc/self/root", "config.json", "pipe", "none", "",
                     "x" * 300, "a/" * 3000):
            b.config["root"]["path"] = path
            b.refused("root.path")
        b.config["root"]["path"] = "rootfs//"
        b.save()
        b.good("run", "x")


def test_o10_mounts():
    with Bundle() as b:
        base = deep(b.config["mounts"])
        b.config["process"]["args"] = ["/bin/probe"]
        b.config["mounts"] = [{"destination": "/m", "type": "tmpfs", "source": "t"}] * 100000
        b.refused("mounts", "too many")
        b.config["mounts"] = [{"destination": "/m", "type": "tmpfs", "source": "t"}] * 5000
        b.refused("mounts", "too many")
        for options, word in ((["size=9223372036854775808"], ""), (["size=1k,mode=777"], "comma"), ([""], "empty"),
                              (["no_such_option"], "no_such_option"), (["size=" + "9" * 5000], "")):
            b.config["mounts"] = base + [{"destination": "/m", "type": "tmpfs", "source": "t", "options": options}]
            b.save()
            p = b.call("run", b.new_id())
            assert p.returncode == (0 if options[0].startswith("size=92233720") and p.returncode == 0 else 1), p.stderr
            assert p.returncode == 0 or word in p.stderr, p.stderr
        for mount, word in (({"destination": "/m", "type": "bind"}, "source"), ({"destination": "/", "type": "tmpfs"}, "root itself"),
                            ({"destination": "/../..", "type": "tmpfs"}, "root itself"), ({"destination": "/m"}, "type"),
                            ({"destination": "/m", "type": "nosuchfs"}, "nosuchfs"),
                            ({"destination": "/m", "source": "/no/such", "options": ["bind"]}, "/no/such"),
                            ({"destination": "/" + "x" * 300, "type": "tmpfs"}, "xxx"),
                            ({"destination": "/" + "x/" * 3000, "type": "tmpfs"}, "4095"),
                            ({"destination": "/bin/probe", "type": "tmpfs"}, "/bin/probe"),
                            ({"destination": "/m", "options": ["remount", "ro"]}, "/m"),
                            ({"destination": "/m", "options": ["remount", "a,b"]}, "comma")):
            b.config["mounts"] = base + [mount]
            b.refused("mounts[", word)


def test_o12_sysctl():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        for key in ("kernel.core_pattern", "vm.swappiness", "kernel/core_pattern", "kernel.sysrq", "fs.file-max", "net", "kernel.",
                    "", "../kernel.msgmax", "net.ipv4..ip_forward", "kernel.modprobe", "net/../kernel/core_pattern", "x" * 500):
            b.config["linux"]["sysctl"] = {key: "1"}
            b.refused("sysctl")
        b.config["linux"]["sysctl"] = {"net.ipv4.no_such": "1"}
        b.refused("net.ipv4.no_such")
        b.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        b.config["linux"]["namespaces"] = [n for n in b.config["linux"]["namespaces"] if n["type"] != "network"]
        b.refused("network namespace")


def test_o14_capabilities():
    with Bundle() as b:
        b.config["process"]["capabilities"] = {
            "bounding": ["CAP_KILL", "CAP_NO_SUCH", "cap_chown"], "permitted": ["CAP_KILL", "CAP_SYS_ADMIN"],
            "effective": ["CAP_KILL", "CAP_NET_RAW"], "inheritable": [], "ambient": ["CAP_SYS_ADMIN"]}
        a = b.ask(*["status:Cap" + s for s in ("Bnd", "Prm", "Eff", "Inh", "Amb")])
        assert int(a["status:CapBnd"], 16) == 1 << 5 and int(a["status:CapAmb"], 16) == 0, a
        assert int(a["status:CapPrm"], 16) == 1 << 5 and int(a["status:CapEff"], 16) == 1 << 5, a
        # Nothing at all.
        del b.config["process"]["capabilities"]
        a = b.ask(*["status:Cap" + s for s in ("Bnd", "Prm", "Eff", "Inh", "Amb")])
        assert all(int(v, 16) == 0 for v in a.values()), a


def test_o15_set_user_id():
    with Bundle() as b:
        shutil.copy(container.probe, b.rootfs + "/bin/suid")
        os.chmod(b.rootfs + "/bin/suid", 0o4755)
        b.config["process"]["user"] = {"uid": 1000, "gid": 1000}
        b.config["process"]["args"] = ["/bin/suid", "ids", "status:CapEff"]
        for nnp, ids in ((True, "1000:1000 1000:1000"), (False, "1000:1000 0:1000")):
            b.config["process"]["noNewPrivileges"] = nnp
            b.save()
            a = answers(b.good("run", b.new_id()))
            assert a["ids"] == ids, a
        b.config["root"]["readonly"] = False


def test_o16_maps():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        good = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        b.config["linux"]["uidMappings"] = good
        b.config["linux"]["gidMappings"] = good
        b.refused("uidMappings", "user namespace")
        b.config["linux"]["namespaces"].append({"type": "user"})
        for bad, word in (([], "uidMappings"), ([dict(good[0], size=0)], "size"),
                          ([dict(good[0], size=4294967295)], "past the last id"),
                          (good + [{"containerID": 999, "hostID": 500000, "size": 5}], "overlaps"),
                          (good + [{"containerID": 5000, "hostID": 100999, "size": 5}], "overlaps"),
                          ([{"containerID": i * 2, "hostID": 100000 + i * 2, "size": 1} for i in range(400)], "340"),
                          ([{"containerID": 1, "hostID": 1, "size": 4294967290}], "not mapped"),
                          ([{"containerID": -1, "hostID": 1, "size": 1}], "containerID"),
                          ([{"containerID": 1 << 32, "hostID": 1, "size": 1}], "containerID")):
            b.config["linux"]["uidMappings"] = bad
            b.refused(word)


def test_o17_maps_are_numbers():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        b.config["linux"]["namespaces"].append({"type": "user"})
        good = {"containerID": 0, "hostID": 100000, "size": 1000}
        b.config["linux"]["gidMappings"] = [good]
        for key in good:
            for bad in ("0", "0 0 4294967295", "--help", "0\n0 0 1", -1, 1.5, 1e10, 1 << 40, None, [0], {"v": 0}):
                b.config["linux"]["uidMappings"] = [dict(good, **{key: bad})]
                b.refused(key)


def test_o18_seccomp():
    with Bundle() as b:
        b.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}]}
        # The same call by another ABI's number.
        a = b.ask("syscall:39", "syscall:%d" % (0x40000000 | 39))
        assert a["syscall:39"] == "EPERM" and a["syscall:%d" % (0x40000000 | 39)] in ("signal 31", "ENOSYS"), a
        b.config["process"]["args"] = ["/bin/probe"]
        rule = {"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}
        for change, word in ((("syscalls", [rule] * 100000), "too many"), (("syscalls", [rule] * 5000), "too many"),
                             (("syscalls", [dict(rule, args=[{"index": 7, "value": 1, "op": "SCMP_CMP_EQ"}])]), "index"),
                             (("syscalls", [dict(rule, action="ALLOW")]), "action"), (("flags", ["SOMETHING"]), "flags"),
                             (("architectures", ["SCMP_ARCH_Z80"]), "architectures"), (("defaultAction", "SCMP_ACT_NOTIFY"), "listener"),
                             (("syscalls", [dict(rule, action="SCMP_ACT_NOTIFY")]), "listenerPath"),
                             (("listenerPath", "/no/such/socket"), "/no/such/socket"),
                             (("syscalls", [dict(rule, errnoRet=70000)]), "70000")):
            c = deep(b.config)
            c["linux"]["seccomp"][change[0]] = change[1]
            if word != "listenerPath":
                b.refused(word, config=c)
            else:
                # Without no_new_privs the filter is loaded before create is done; with it, start says so.
                c["process"]["noNewPrivileges"] = False
                b.refused(word, config=c)


def test_o20_control_groups():
    with Bundle() as b, Bundle() as other:
        b.config["process"]["args"] = ["/bin/probe"]
        for path in ("/", "//", "/../x", "a/../../..", "/a/./b", "..", "/x\ny", "machine.slice:libpod:x", "/" + "x" * 300, "/" + "x/" * 700):
            b.config["linux"]["cgroupsPath"] = path
            b.refused("cgroupsPath")
        # Somebody else's.
        with other.running() as name:
            b.config["linux"]["cgroupsPath"] = other.config["linux"]["cgroupsPath"]
            b.refused("in use")
            b.config["linux"]["cgroupsPath"] = os.path.dirname(other.config["linux"]["cgroupsPath"])
            b.refused("in use")
            assert other.state(name)["status"] == "running"
        c = deep(other.config)
        for name in ("../memory.max", "memory", "a/b.c", ""):
            c["linux"]["resources"]["unified"] = {name: "1"}
            c["process"]["args"] = ["/bin/probe"]
            other.refused("unified", config=c)
        # The agent of version 1 cannot be set from inside: groups are read-only there.
        a = other.ask("write:/sys/fs/cgroup/memory/release_agent@/x", "write:/sys/fs/cgroup/devices/devices.allow@a")
        assert all(v in ("EROFS", "EACCES", "ENOENT", "EPERM") for v in a.values()), a


def test_o21_bombs():
    with Bundle() as b:
        b.config["linux"]["resources"]["pids"] = {"limit": 50}
        b.config["linux"]["resources"]["memory"] = {"limit": 32 << 20, "swap": 32 << 20}
        b.config["process"]["args"] = ["/bin/probe", "forks:10000", "eat:400"]
        b.save()
        start = time.time()
        p = b.call("run", "bomb")
        assert p.returncode == 137 and "forks:10000=49" in p.stdout, (p.returncode, p.stdout)
        assert time.time() - start < 20


def test_o22_annotations_do_nothing():
    with Bundle() as b:
        mark = b.folder + "/mark"
        b.config["annotations"] = {"run.oci.keep_original_groups": "1", "run.oci.handler": "krun", "run.oci.seccomp.receiver": mark,
                                   "org.criu.config": mark, "run.oci.hooks.stdout": mark, "run.oci.systemd.force_cgroup_v1": "/x"}
        b.ask("pid")
        assert not os.path.exists(mark)


def test_o25_exec_sees_the_container_alone():
    with Bundle() as b:
        with open(b.rootfs + "/etc/passwd", "wb") as f:
            f.write(b"root:x:0:0::/\xff\xfe:/bin/sh\n" + b"\n:::::::::\n" + b"a" * 100000)
        b.config["process"]["env"] = ["PATH=:/proc/self/fd/3:relative:/bin", "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/"]
        with b.running() as name:
            a = answers(b.good("exec", name, "probe", "pid", "fds"))
            assert a["fds"] == "", a
        os.unlink(b.rootfs + "/etc/passwd")
        os.mkfifo(b.rootfs + "/etc/passwd")
        a = b.ask("env:HOME")
        assert a["env:HOME"] == "/", a


def test_o24_nothing_of_the_container_is_loaded():
    """Whoever opens one of these waits for ever: what the C library would read for a program on its way."""
    with Bundle() as b:
        for name in ("etc/nsswitch.conf", "etc/group", "etc/ld.so.cache", "etc/ld.so.preload", "etc/host.conf", "etc/resolv.conf",
                     "lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libc.so.6", "usr/lib/locale/locale-archive",
                     "etc/localtime", "lib64/ld-linux-x86-64.so.2"):
            os.makedirs(os.path.dirname(f"{b.rootfs}/{name}"), exist_ok=True)
            os.mkfifo(f"{b.rootfs}/{name}")
        b.config["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
        b.config["process"]["args"] = ["probe", "sleep:1000"]
        b.save()
        b.good("create", "x", timeout=10)
        b.good("start", "x", timeout=10)
        assert answers(b.good("exec", "--user", "9", "x", "probe", "pid", timeout=10))["pid"]
        b.good("delete", "--force", "x", timeout=10)


def test_o27_terminal_of_the_caller():
    """A container that has the caller's terminal as its standard input cannot type there."""
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe", "type:0", "steal:0", "type:0", "type:1"]
        b.config["process"]["capabilities"] = {}
        b.save()
        master, slave = os.openpty()

        def own():
            os.setsid()
            __import__("fcntl").ioctl(slave, 0x540E, 0)

        p = subprocess.Popen([*container.prefix, container.runtime, "--root", b.root, "run", "x"], cwd=b.folder, stdin=slave, stdout=slave,
                             stderr=slave, preexec_fn=own)
        os.close(slave)
        assert p.wait(20) == 0
        text = os.read(master, 65536).decode()
        os.close(master)
        lines = [l.split("=")[1] for l in text.replace("\r", "").splitlines() if "=" in l]
        assert len(lines) == 4 and set(lines) <= {"EPERM", "EIO"}, text


def test_o26_cannot_be_inspected_before_its_program():
    with Bundle() as b:
        b.config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uid", "gid"):
            b.config["linux"][kind + "Mappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        b.config["process"]["args"] = ["/bin/probe", "sleep:1000"]
        b.save()
        b.good("create", "x")
        # /proc/PID of a process that cannot be inspected belongs to root, not to its user.
        assert os.stat(f"/proc/{b.state('x')['pid']}/mem").st_uid == 0
        b.good("start", "x")
        pid = b.state("x")["pid"]
        end = time.time() + 5
        while os.stat(f"/proc/{pid}/mem").st_uid != 100000 and time.time() < end:
            time.sleep(0.01)
        assert os.stat(f"/proc/{pid}/mem").st_uid == 100000


def test_o31_environment():
    with Bundle() as b:
        b.config["process"]["env"] = ["A=x\ny", "PATH=/bin"]
        b.config["process"]["args"] = ["/bin/probe", "env:A"]
        b.save()
        assert "env:A=x\ny" in b.good("run", "x")
        for env, word in ((["=x"], "env[0]"), (["A"], "env[0]"), (["PATH=/bin", ""], "env[1]"), (["A=1"] * 20000, "env")):
            b.config["process"]["env"] = env
            b.refused(word)
        b.config["process"]["env"] = ["A=" + "x" * (10 << 20)]
        b.save()
        p = b.call("run", "y")
        assert p.returncode == 1 and "too long" in p.stderr, p.stderr
        for args in ([], [""], [5]):
            b.config["process"]["args"] = args
            b.refused("process.args")


def test_o32_ids_and_state():
    with Bundle() as b:
        b.save()
        for name in ("../x", "a/b", ".", "..", "", "-x", "a b", "x" * 300, "a\nb", "\xff", "/etc"):
            p = b.call("create", "--", name)
            assert p.returncode == 1 and "id" in p.stderr, (name, p.stderr)
            assert b.call("state", "--", name).returncode == 1 and b.call("delete", "--", name).returncode == 1
        victim = subprocess.Popen(["sleep", "1000"])
        with b.running() as name:
            path = f"{b.root}/{name}/state.json"
            state = json.load(open(path, encoding="utf-8"))
            # Another process's pid, as after its use for another process, made in the same hundredth of a second.
            with open(f"/proc/{victim.pid}/stat", encoding="utf-8") as f:
                start = int(f.read().rsplit(")", 1)[1].split()[19])
            for change in ({"pidStart": 1}, *([{"pidStart": start}, {"pidStart": start, "pidInode": 1 << 62}] if state["pidInode"] else [])):
                with open(path, "w", encoding="utf-8") as f:
                    json.dump(dict(state, pid=victim.pid, **change), f)
                assert b.state(name)["status"] == "stopped" and b.call("kill", name, "KILL").returncode == 1, change
            for change in ({"cgroup": "/"}, {"cgroup": "/../x"}, {"cgroup": "relative"}, {"pid": -1}, {"pid": "1"}, {"pid": 1 << 40},
                           {"bundle": 5}, {"id": "other"}, {"bundle": "x" * 5000}):
                with open(path, "w", encoding="utf-8") as f:
                    json.dump(dict(state, **change), f)
                for words in (["state", name], ["kill", name, "KILL"], ["delete", "--force", name], ["exec", name, "/bin/probe"]):
                    p = b.call(*words)
                    assert p.returncode == 1 and p.stderr.count("\n") == 1, (change, words, p.stdout, p.stderr)
            for text in ("", "{", "[" * 100000, "x" * 100):
                with open(path, "w", encoding="utf-8") as f:
                    f.write(text)
                assert b.call("state", name).returncode == 1
            with open(path, "w", encoding="utf-8") as f:
                json.dump(state, f)
            assert b.state(name)["status"] == "running"
        assert victim.poll() is None
        victim.kill()
        victim.wait()
        # A folder that others may write to is not believed.
        os.chmod(b.root, 0o777)
        p = b.call("list")
        assert p.returncode == 1 and "others may write" in p.stderr, p.stderr
        os.chmod(b.root, 0o700)


def test_o33_namespace_paths():
    with Bundle() as b:
        os.mkfifo(b.folder + "/pipe")
        with open(b.folder + "/file", "w", encoding="utf-8"):
            pass
        b.config["process"]["args"] = ["/bin/probe"]
        for path, word in ((b.folder + "/pipe", "no namespace"), (b.folder + "/file", "no namespace"), ("/no/such", "/no/such"),
                           ("/proc/self/ns/uts", "another kind"), ("/", "no namespace"), ("/dev/zero", "no namespace"),
                           ("relative", "absolute")):
            b.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": path}]
            del b.config["hostname"]
            b.refused(word)
            b.config["hostname"] = "x"
        b.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "mount"}]
        b.refused("twice")
        b.config["linux"]["namespaces"] = [{"type": "pid"}]
        b.refused("mount")


def test_o34_labels():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        b.config["process"]["selinuxLabel"] = "system_u:system_r:x:s0"
        b.refused("selinuxLabel")
        del b.config["process"]["selinuxLabel"]
        b.config["linux"]["mountLabel"] = "x"
        b.refused("mountLabel")
        del b.config["linux"]["mountLabel"]
        b.config["linux"]["intelRdt"] = {"closID": "x"}
        b.refused("intelRdt")
        del b.config["linux"]["intelRdt"]
        b.config["process"]["apparmorProfile"] = "no-such-profile"
        b.refused()


def test_o35_extreme_numbers():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        b.config["linux"]["namespaces"].append({"type": "time"})
        for offset in ({"secs": (1 << 63) - 1}, {"secs": -(1 << 62)}, {"secs": 1 << 40}, {"nanosecs": 1000000000}, {"nanosecs": -1},
                       {"secs": 1 << 64}):
            b.config["linux"]["timeOffsets"] = {"monotonic": offset}
            b.refused("monotonic" if "nanosecs" not in offset else "nanosecs")
        b.config["linux"]["timeOffsets"] = {"realtime": {"secs": 1}}
        b.refused("realtime")
        del b.config["linux"]["timeOffsets"]
        for soft, hard, word in ((-1, 10, "soft"), (10, 5, "above"), (1 << 64, 1 << 64, ""), ("unlimited", 1, "soft")):
            b.config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": soft, "hard": hard}]
            b.refused(word)
        b.config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1}]
        a = b.ask("rlimit:4")
        assert a["rlimit:4"] == f"{(1 << 64) - 1} {(1 << 64) - 1}", a
        for limit in ("RLIMIT_NONE", "NOFILE", ""):
            b.config["process"]["rlimits"] = [{"type": limit, "soft": 1, "hard": 1}]
            b.config["process"]["args"] = ["/bin/probe"]
            b.refused("rlimits[0].type")
        b.config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2
        b.refused("twice")


def test_o13_devices():
    with Bundle() as b:
        b.config["process"]["args"] = ["/bin/probe"]
        for device, word in (({"path": "dev/x", "type": "c", "major": 1, "minor": 3}, "absolute"),
                             ({"path": "/dev/x", "type": "x"}, "type"), ({"path": "/dev/x", "type": "c", "major": -1}, "major"),
                             ({"path": "/dev/x", "type": "c", "major": 5000, "minor": 1}, "major"),
                             ({"path": "/dev/..", "type": "c", "major": 1, "minor": 3}, "/dev/.."),
                             ({"path": "/", "type": "c", "major": 1, "minor": 3}, ""),
                             ({"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o60644}, "fileMode")):
            b.config["linux"]["devices"] = [device]
            b.refused(word)


if __name__ == "__main__":
    container.main(sys.modules[__name__])
