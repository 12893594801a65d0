#!/usr/bin/env python3
"""What the tests of containers share: bundles, calls of the runtime, and a count of what is left on the host.

A test is a function whose name begins with test_; main() runs all of a file, or those named on the command line.
"""
import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

# Not its real path: the name says that it is the OCI runtime.
runtime = os.path.abspath(sys.argv[1]) if len(sys.argv) > 2 else ""
probe = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else ""
# System calls that are to be absent, as on an older kernel.
without = os.environ.get("BOTHY_WITHOUT", "")
prefix = [os.path.join(os.path.dirname(probe), "container_without"), without] if without else []
# In the names of all that a run of these tests makes: several may run at a time.
mark = "bothy-test-%d" % os.getpid()


class Skip(Exception):
    """This host cannot do it; the text says why."""


class Bundle:
    """A bundle with the probe as its only program, and a state directory of its own."""

    def __init__(self, rootless=False):
        self.folder = tempfile.mkdtemp(prefix=mark + "-")
        os.chmod(self.folder, 0o755)
        self.root = os.path.join(self.folder, "state")
        self.rootfs = os.path.join(self.folder, "rootfs")
        for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
            os.makedirs(os.path.join(self.rootfs, name))
        shutil.copy(probe, os.path.join(self.rootfs, "bin/probe"))
        subprocess.run([runtime, "spec", "--bundle", self.folder] + (["--rootless"] if rootless else []), check=True)
        with open(os.path.join(self.folder, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False
        self.config["linux"]["cgroupsPath"] = f"/{mark}/{os.path.basename(self.folder)}"
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
                self.call("delete", "--force", name)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, config=None):
        with open(os.path.join(self.folder, "config.json"), "w", encoding="utf-8") as f:
            if isinstance(config, str):
                f.write(config)
            else:
                json.dump(config or self.config, f)

    def call(self, *words, **more):
        """The runtime with these words: the finished process, output as text."""
        more.setdefault("timeout", 60)
        more.setdefault("stdin", subprocess.DEVNULL)
        # Files, not pipes: a container that is created goes on holding them.
        with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
            p = subprocess.run([*prefix, runtime, "--root", self.root, *words], stdout=out, stderr=err, text=True, cwd=self.folder,
                               check=False, **more)
            out.seek(0)
            err.seek(0)
            p.stdout, p.stderr = out.read(), err.read()
            return p

    def good(self, *words, **more):
        """As call(), which must succeed; its standard output."""
        p = self.call(*words, **more)
        assert p.returncode == 0, f"{' '.join(words)}: status {p.returncode}, {p.stderr.strip()}"
        return p.stdout

    def new_id(self):
        self.number += 1
        return "c%d" % self.number

    def ask(self, *questions, options=(), **more):
        """Runs a container that answers: a dict from question to answer."""
        self.config["process"]["args"] = ["/bin/probe", *questions]
        self.save()
        return answers(self.good("run", *options, self.new_id(), **more))

    def refused(self, *expected, config=None):
        """create must fail, with one sentence that has these words, and leave nothing."""
        self.save(config)
        p = self.call("create", self.new_id())
        text = p.stderr.strip()
        assert p.returncode != 0, "it was accepted"
        assert p.returncode > 0, f"it died by signal {-p.returncode}"
        assert text.startswith("bothy: ") and text.count("\n") == 0, f"not one sentence: {text!r}"
        for word in expected:
            assert word in text, f"{word!r} is not in {text!r}"
        assert not os.path.isdir(self.root) or not os.listdir(self.root), "state is left"
        return text

    @contextlib.contextmanager
    def running(self, *acts, options=()):
        """A container that is started, and deleted at the end; its id."""
        self.config["process"]["args"] = ["/bin/probe", *(acts or ("sleep:1000",))]
        self.save()
        name = self.new_id()
        self.good("create", *options, name)
        try:
            self.good("start", name)
            yield name
        finally:
            self.good("delete", "--force", name)

    def state(self, name):
        return json.loads(self.good("state", name))


def answers(text):
    result = {}
    for line in text.splitlines():
        question, _, answer = line.partition("=")
        result[question] = answer.strip()
    return result


def cgroup_folders():
    found = set()
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        found.update(os.path.join(top, f) for f in folders if mark in os.path.join(top, f))
    return found


def census():
    """What a container could leave on the host, as comparable values."""
    namespaces, processes = set(), set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/cgroup", "rb") as g:
                line = f.read()
                # Without a command line it has ended, and its parent has not looked yet.
                ours = bool(line) and mark.encode() in line + g.read()
            if ours and pid != str(os.getpid()):
                processes.add(pid)
            if ours or pid == str(os.getpid()):
                for kind in os.listdir(f"/proc/{pid}/ns"):
                    namespaces.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            pass
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = sorted(line.split()[4] for line in f)
    # The common parent folder is made by the first container and stays.
    groups = {g for g in cgroup_folders() if not g.endswith("/" + mark)}
    return {"namespaces": namespaces, "processes": processes, "mounts": mounts, "groups": groups}


def settle(before):
    """Waits until what has been killed is gone."""
    end = time.time() + 5
    while census() != before and time.time() < end:
        time.sleep(0.005)
    after = census()
    assert after == before, (before, after)


@contextlib.contextmanager
def nothing_left():
    before = census()
    yield
    after = census()
    for key, was in before.items():
        assert after[key] == was, f"{key}: before {was}, after {after[key]}"


def remove_groups():
    for top in sorted(cgroup_folders(), key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(top)


def deep(config):
    return copy.deepcopy(config)


def need_root():
    if os.geteuid() != 0:
        print("skipped: containers of these tests need root")
        sys.exit(77)
    # A build machine may itself be a container that may not make namespaces.
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "true"], check=False,
                      stderr=subprocess.DEVNULL).returncode != 0:
        print("skipped: this machine does not let root make namespaces")
        sys.exit(77)


def main(module):
    need_root()
    wanted = sys.argv[3:]
    bad = 0
    for name, test in list(vars(module).items()):
        if not name.startswith("test_") or (wanted and name not in wanted):
            continue
        try:
            with nothing_left():
                test()
            print(f"PASS {name}", flush=True)
        except Skip as why:
            print(f"SKIP {name}: {why}", flush=True)
        except Exception:  # pylint: disable=broad-except
            bad = 1
            print(f"FAIL {name}; again: {'BOTHY_WITHOUT=' + without + ' ' if without else ''}{sys.argv[0]} {runtime} {probe} {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    remove_groups()
    sys.exit(bad)
