"""What the scripts of this folder share: one klamm meets every case in turn, one row per case.

After each it must live, answer another client at once, and have given back the memory. A row: verdict, name, resident
memory before, at its peak and after (MiB), a note. `--quick` is the short form of `make test`; KLAMM_SEED=n repeats a
run; arguments name cases to run alone.
"""

import os
import pathlib
import random
import resource
import socket
import sys
import time

from kit import wire
from kit.broker import Klamm

# What is free goes back after two minutes (`src/observe/memory.rs`); here sooner, to see what is kept for good.
os.environ.setdefault("MALLOC_CONF", "dirty_decay_ms:10000")
QUICK = "--quick" in sys.argv
CASES = []


def case(name, rise=8, peak=None, quick=True):
    """A case that may leave `rise` MiB behind, and hold `peak` MiB while it runs."""

    def add(body):
        CASES.append((name, body, rise, rise if peak is None else peak, quick))
        return body

    return add


def connect(port, timeout=10.0):
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def closed(port, data, what, within=3.0):
    """Sends bytes; the broker must close without a reply."""
    with connect(port, within) as s:
        try:
            s.sendall(data)
            got = s.recv(1)
        except ConnectionError:
            return
        except TimeoutError:
            raise AssertionError(f"{what}: neither closed nor answered") from None
        assert got == b"", f"{what}: answered"


def is_closed(s, within):
    s.settimeout(within)
    try:
        return s.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def equal(got, wanted, what):
    assert got == wanted, f"{what}: {got}, not {wanted}"


def one_of(got, wanted, what):
    assert got in wanted, f"{what}: {got}, none of {wanted}"


def raise_descriptors():
    """As many as this process may open; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Host:
    """The broker with what cases share."""

    def __init__(self, broker, seed):
        self.broker, self.port, self.random = broker, broker.port, random.Random(seed)
        self.before = 0.0
        with self.client() as c:
            equal(c.create_topic("t", 1), 0, "create")

    def client(self, timeout=20.0):
        return wire.Client(self.port, timeout=timeout)

    def prepared(self):
        """What the broker holds now is not the case's doing: it is where the count begins."""
        self.before = self.broker.memory_mib()[0]
        self.reset_peak()

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.broker.pid}/clear_refs").write_text("5")

    def answers(self, within=2.0):
        began = time.monotonic()
        with self.client(timeout=within) as c:
            assert c.metadata([])[0], "no broker in Metadata"
        return time.monotonic() - began

    def end(self, topic="t"):
        with self.client() as c:
            return c.list_offsets(topic, [0], -1)[0][1]

    def log(self):
        return self.broker.log()


def run(host, name, body, rise, peak):
    host.prepared()
    note, verdict = "", "PASS"
    try:
        note = body(host) or ""
        host.answers()
        highest = host.broker.memory_mib()[1]
        assert highest - host.before <= peak, f"{highest - host.before:.0f} MiB more at the peak, not {peak}; {note}"
        # Free memory is given back after ten seconds, as said above.
        deadline = time.monotonic() + 15
        while host.broker.memory_mib()[0] - host.before > rise and time.monotonic() < deadline:
            time.sleep(0.1)
        after = host.broker.memory_mib()[0]
        assert after - host.before <= rise, f"{after - host.before:.0f} MiB more, not {rise}; {note}"
        assert "panicked at" not in host.log(), "a panic in the log"
    except Exception as problem:  # noqa: BLE001, a row for whatever went wrong
        note, verdict = f"{type(problem).__name__}: {problem}", "FAIL"
    if not host.broker.alive():
        print(f"FAIL  {name}: the broker died: {host.log()[-2000:]}")
        sys.exit(1)
    now, highest = host.broker.memory_mib()
    print(f"{verdict}  {name:48} {host.before:5.0f} {highest:5.0f} {now:5.0f}  {note}".rstrip(), flush=True)
    return verdict == "PASS"


def main(settings, companion=None):
    """Runs all cases. `companion`: name and class of what is made beside them, and whose `end` is the last case."""
    seed = int(os.environ.get("KLAMM_SEED") or random.SystemRandom().randrange(1 << 32))
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    print(f"KLAMM_SEED={seed}; resident MiB before, at the peak, after", flush=True)
    broker = Klamm(settings)
    passed = True
    try:
        broker.start()
        host = Host(broker, seed)
        beside = companion and companion[1](broker.port)
        for name, body, rise, peak, quick in CASES:
            if (quick or not QUICK) and (not wanted or any(word in name for word in wanted)):
                passed &= run(host, name, body, rise, peak)
        if not wanted:
            if beside:
                passed &= run(host, companion[0], beside.end, 8, 8)
            began = time.monotonic()
            broker.stop()
            took = time.monotonic() - began
            print(f"{'PASS' if took < 5 else 'FAIL'}  an orderly stop after all that {took:.1f} s")
            passed &= took < 5
    finally:
        broker.remove()
    sys.exit(not passed)
