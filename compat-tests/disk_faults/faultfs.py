"""The fault file system as a child process, mounted in a folder of its own, and its orders as methods.

The mount ends with the mount namespace in which `run` starts the suite, whatever happens to the child.
"""

import os
import pathlib
import socket
import subprocess
import tempfile
import time

from kit.process import Process

# Where the power may go: an operation, a path, and how many of them may pass.
MOMENTS = [
    ("sync", "*/db/*.log", 40), ("write", "*/db/*.log", 200), ("sync", "*/db/*.sst", 6), ("syncdir", "*", 8),
    ("sync", "*/growing/*", 6), ("write", "*/growing/*", 60), ("create", "*", 6), ("remove", "*", 6), ("rename", "*", 2),
    ("link", "*", 3), ("change", "*MANIFEST*", 6), ("truncate", "*", 4), ("change", "*", 400),
]  # fmt: skip


def binary():
    return os.environ["FAULT_FS_BINARY"]


def build():
    """Builds it and says by FAULT_FS_BINARY where it is, unless that says so already. Needs a network the first time."""
    if "FAULT_FS_BINARY" not in os.environ:
        script = pathlib.Path(__file__).resolve().with_name("build")
        built = subprocess.run([str(script)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        os.environ["FAULT_FS_BINARY"] = built


def why_not():
    """Why nothing can be mounted here; None if it can."""
    if os.geteuid() != 0 or pathlib.Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"]:
        return "mounting a file system needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing: the kernel has no FUSE"
    return None


def keep_of(rng):
    """How much a loss of power leaves of what was not synced; the worst is as likely as the others together."""
    return rng.choice(["nothing", "nothing", "prefix", "some", "some"])


class FaultFs(Process):
    """`names`: "directory" or "journal", when a name is durable. Files of programs go below `mount`."""

    name = "fault-fs"

    def __init__(self, seed=0, names="directory", trace=False, folder=None):
        super().__init__(folder or tempfile.mkdtemp(prefix="klamm-fault-fs-"))
        self.mount, backing, self.socket = self.folder / "mount", self.folder / "backing", self.folder / "socket"
        self.mount.mkdir()
        backing.mkdir()
        self.arguments = ["--mount", self.mount, "--backing", backing, "--socket", self.socket, "--names", names,
                          "--seed", str(seed)]  # fmt: skip
        if trace:
            self.arguments += ["--trace", self.folder / "trace"]

    def command(self):
        return [binary(), *map(str, self.arguments)]

    def ready(self):
        return os.path.ismount(self.mount) and self.socket.exists()

    def order(self, line):
        """Its answer; fails if that is an error."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.socket))
            connection.sendall(line.encode() + b"\n")
            answer = connection.makefile().readline().strip()
        word, _, rest = answer.partition(" ")
        if word != "ok":
            raise RuntimeError(f"{line}: {answer}")
        return rest

    def fields(self, line):
        """Its answer, as {key: value}; numbers as such."""
        pairs = (word.split("=", 1) for word in self.order(line).split())
        return {key: int(value) if value.isdigit() else value for key, value in pairs}

    def rule(self, do, op="any", path="*", after=0, count=None):
        """Adds a rule; how often it was met is `status()[f"rule{number}"]`."""
        return int(self.order(f"rule op={op} path={path} do={do} after={after}" + ("" if count is None else f" count={count}")))

    def clear(self):
        self.order("clear")

    def status(self):
        return self.fields("status")

    def files(self, path="*"):
        """{path: (length, durable length)}"""
        found = (one.rsplit(":", 2) for one in self.order(f"files path={path}").split())
        return {path: (int(length), int(durable)) for path, length, durable in found}

    def lose_power(self, process, keep="nothing", seed=0):
        """The power goes now, under a running program: what that did not sync is lost, but for what `keep` leaves
        ("nothing"; "prefix", what came first; "some", any pages). What was lost, in numbers."""
        self.order("freeze")
        process.send_signal(9)
        self.order("power-off")
        process.wait()
        loss = self.fields(f"lose keep={keep} seed={seed}")
        self.clear()
        self.order("power-on")
        return loss

    def moment(self, process, rng, seconds=3.0):
        """Waits for where the power shall go: a random time, or a random operation, at which it freezes, if that comes
        within `seconds`. What it waited for, in words."""
        if rng.random() < 0.4:
            time.sleep(rng.uniform(0.1, 1.5))
            return "a moment"
        operation, path, most = rng.choice(MOMENTS)
        time.sleep(rng.uniform(0, 0.7))
        self.rule("freeze", operation, path, after=rng.randrange(most))
        self.wait_frozen(process, seconds)
        return f"{operation} of {path}"

    def wait_frozen(self, process, seconds):
        """Whether it froze, before `process` ended and within `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.status()["power"] == "frozen":
                return True
            if not process.alive():
                return False
            time.sleep(0.01)
        return False

    def make_folders(self, *folders):
        """Makes durable folders below `mount`: who sets a broker up makes its directories long before."""
        for folder in folders:
            folder.mkdir()
        root = os.open(self.mount, os.O_RDONLY)
        os.fsync(root)
        os.close(root)

    def unmount(self):
        """Unmounts and ends it; its folder stays."""
        if self.alive():
            try:
                self.order("quit")
                self.child.wait(30)
            except (OSError, RuntimeError, subprocess.TimeoutExpired):
                pass
        subprocess.run(["umount", "-l", str(self.mount)], stderr=subprocess.DEVNULL, check=False)
        self.kill()

    def remove(self):
        """Unmounts, ends it and removes everything."""
        self.unmount()
        super().remove()
