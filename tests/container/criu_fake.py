#!/usr/bin/env python3
"""criu swrk FD: speaks CRIU's protocol [rpc.proto] with a runtime, writes what it is asked to $FAKE_CRIU/asked.json, and does as if:
a dump ends the process, a restore makes one that sleeps in namespaces of its own. $FAKE_CRIU/how says what goes wrong."""
import ctypes
import json
import os
import signal
import socket
import sys

folder = os.environ["FAKE_CRIU"]
libc = ctypes.CDLL(None, use_errno=True)
CLONE_PARENT, NAMESPACES = 0x8000, 0x20000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000
TEXT, PAIR = {10, 13, 14, 37, 44, 53, 63}, {11, 23, 25, 27, 39}


def how():
    try:
        with open(folder + "/how", encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    at, found = 0, []
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found.append((tag >> 3, value))
    return found


def number(field, value):
    out = bytearray()
    for n in (field << 3, value):
        while n > 0x7f:
            out.append(n & 0x7f | 0x80)
            n >>= 7
        out.append(n)
    return bytes(out)


def part(field, data):
    return number(field, 0)[:-1].replace(bytes([field << 3]), bytes([field << 3 | 2])) + bytes([len(data)]) + data


def restored():
    """As a sibling of this process: a child of the runtime's."""
    ready, done = os.pipe()
    flags = NAMESPACES & ~(0x4000000 if how() == "host-uts" else 0)
    pid = libc.syscall(56, CLONE_PARENT | flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        for cap in range(64):
            if how() != "capabilities" and cap not in (5, 10, 29):
                libc.prctl(24, cap, 0, 0, 0)
        if how() != "privileges":
            libc.prctl(38, 1, 0, 0, 0)
        os.write(done, b"x")
        os.execv(os.environ["FAKE_PROBE"], ["probe", "sleep:1000"])
    os.read(ready, 1)
    return pid


def main():
    conn = socket.socket(fileno=int(sys.argv[2]))
    request = dict(fields(conn.recv(65536)))
    options = {}
    for key, value in fields(request[2]):
        if key in TEXT:
            value = value.decode()
        elif key in PAIR:
            value = [v.decode() if isinstance(v, bytes) else v for _, v in fields(value)]
        options.setdefault(str(key), []).append(value)
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        groups = f.read()
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = f.read()
    with open(folder + "/asked.json", "w", encoding="utf-8") as f:
        json.dump({"request": request[1], "options": options, "groups": groups, "mounted": f" {options['13'][0]} " in mounts}, f)
    peer = f"/proc/{os.getppid()}/fd/"
    kind, good, extra = request[1], how() not in ("fails", "silent"), b""

    def tell(step, pid):
        text = part(5, part(1, step.encode()) + number(2, pid))
        conn.send(number(1, 6) + number(2, 1) + text)
        answer = dict(fields(conn.recv(4096)))
        assert answer[1] == 6
        return answer.get(3)

    if how() == "garbage":
        conn.send(b"\xff" * 300)
        return
    if how() == "gone":
        return
    with open(peer + f"{options['17'][0]}/{options['10'][0]}", "w", encoding="utf-8") as f:
        f.write("(00.000001) fine\n")
        if how() == "fails":
            f.write("(00.000002) Error (criu/files.c:1): Can't dump \x1b[2J this\n")
    if kind == 1 and good:
        with open(peer + f"{options['1'][0]}/core-1.img", "w", encoding="utf-8") as f:
            f.write("image")
        if "3" not in options:
            os.kill(options["2"][0], signal.SIGKILL)
    if kind == 2 and good:
        pid = restored()
        with open(folder + "/restored", "w", encoding="utf-8") as f:
            f.write(str(pid))
        # The page server is no more, or sends something else: CRIU ends, or says so, with the processes there already.
        if how() == "late-gone":
            tell("setup-namespaces", pid)
            return
        if how() == "late-garbage":
            tell("setup-namespaces", pid)
            conn.send(b"\xff" * 300)
            return
        if how() == "late-fails":
            tell("setup-namespaces", pid)
            with open(peer + f"{options['17'][0]}/{options['10'][0]}", "a", encoding="utf-8") as f:
                f.write("(00.000009) Error (criu/uffd.c:9): the page server has gone\n")
            conn.send(number(1, kind) + number(2, 0) + number(7, 5))
            return
        for step in ("setup-namespaces", "post-restore", "pre-resume"):
            if good and not tell(step, pid):
                os.kill(pid, signal.SIGKILL)
                good = False
        extra = part(4, number(1, pid))
    conn.send(number(1, kind) + number(2, int(good)) + extra + (b"" if good else number(7, 5)))


main()
