"""The fault file system as a child process, mounted in a folder of its own, and its orders as methods.

The mount ends with the mount namespace in which `run` starts the suite, whatever happens to the child.
"""

import os
import socket
import subprocess
import tempfile

from kit.process import Process


def binary():
    return os.environ["FAULT_FS_BINARY"]


class FaultFs(Process):
    """`names`: "directory" or "journal", when a name is durable. Files of programs go below `mount`."""

    name = "fault-fs"

    def __init__(self, seed=0, names="directory", trace=False):
        super().__init__(tempfile.mkdtemp(prefix="klamm-fault-fs-"))
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

    def remove(self):
        """Unmounts, ends it and removes everything."""
        if self.alive():
            try:
                self.order("quit")
                self.child.wait(30)
            except (OSError, RuntimeError, subprocess.TimeoutExpired):
                pass
        subprocess.run(["umount", "-l", str(self.mount)], stderr=subprocess.DEVNULL, check=False)
        super().remove()
