"""A program under test as a child process: started and ended any number of times, in a folder of its own.

A child ends with its starter, even when that is killed; but also with the thread that started it, so start it from one
that stays. Nothing is bound beyond loopback.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def script(name, *arguments):
    """The last line that a script of the repository prints."""
    command = [str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1]


def write_properties(path, properties):
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return path


class Process:
    """One program. Its output goes to `<name>.log` in `folder`, which is a new one below /tmp if none is given."""

    name = "?"

    def __init__(self, folder=None):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix=f"klamm-{self.name}-"))
        self.folder.mkdir(exist_ok=True)
        self.log_path = self.folder / f"{self.name}.log"
        self.child = None
        self.log_begin = 0

    def command(self):
        """What to execute; asked at every start."""
        raise NotImplementedError

    def ready(self):
        raise NotImplementedError

    def launch(self):
        """Starts the program and does not wait for it."""
        with open(self.log_path, "ab") as log:
            self.log_begin = log.tell()
            self.child = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    def start(self, seconds=60):
        """Starts the program and waits until it is ready; the seconds that took, from its execution on."""
        self.launch()
        return self.wait_until(self.ready, seconds)

    def wait_until(self, true, seconds):
        """Waits for something that the running program brings about; the seconds that took."""
        began = time.monotonic()
        while not true():
            if not self.alive():
                raise RuntimeError(f"{self.name} ended with {self.child.returncode} before it was ready\n{self.tail()}")
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"{self.name} was not ready after {seconds} s\n{self.tail()}")
            time.sleep(0.002)
        return time.monotonic() - began

    def stop(self, seconds=60):
        """SIGTERM, then SIGKILL after a while. Returns the exit code; 0 if it was never started."""
        if self.child is None:
            return 0
        if self.alive():
            self.child.terminate()
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self):
        """SIGKILL. Returns the exit code."""
        if self.child is None:
            return 0
        self.child.kill()
        return self.child.wait()

    def remove(self):
        """Ends it, and everything it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self):
        self.child.send_signal(signal.SIGSTOP)

    def resume(self):
        self.child.send_signal(signal.SIGCONT)

    def alive(self):
        return self.child is not None and self.child.poll() is None

    @property
    def pid(self):
        return self.child.pid

    def log(self):
        """What it has printed since its last start."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_begin)
            return log.read().decode(errors="replace")

    def tail(self, lines=30):
        return "\n".join(f"    {line}" for line in self.log().splitlines()[-lines:])

    def cpu_seconds(self):
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def read_bytes(self):
        """Bytes that the disk was read for so far."""
        lines = pathlib.Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))

    def cpu_until_idle(self, settle=1.5, deadline=60.0):
        """CPU seconds once less than 2 % of a core was used for `settle` seconds: background work is counted."""
        end = time.monotonic() + deadline
        before = self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(settle)
            now = self.cpu_seconds()
            if now - before <= 0.02 * settle:
                return now
            before = now
        return before

    def memory_mib(self):
        """(resident now, peak)."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return int(value["VmRSS"]) / 1024, int(value["VmHWM"]) / 1024
