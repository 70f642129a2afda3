"""klamm on a disk that loses power, flips bits, fails and fills up: one row per case, with its figures.

    disk_faults/run [--quick] [WORD …]        only the rows whose name has one of the words; --quick is fewer rows, shorter ones

KLAMM_SEED=n repeats a run, as far as threads allow; FAULT_FS_TRACE=1 has the file system write down every operation.
A checker must be able to fail: with KLAMM_PLANT=*.log the disk says that a write-ahead log is synced and does not do it, with
KLAMM_PLANT=*.sst it does so for tables; the rows about power must fail then.

Needs root, FUSE and the Python package confluent-kafka; `run` sees to all that. KLAMM_BINARY names the binary.
"""

import os
import random
import sys
import time
import traceback

# A checker thread must not wait for writers at Python's default of 5 ms each.
sys.setswitchinterval(0.001)

from disk_faults import damage, full, power

# As in damage.py.
ROWS = [
    ("R9 power loss, flush=1: nothing acknowledged is lost", power.synced, 300, 45),
    ("R9 power loss, defaults: each log is a beginning", power.unsynced, 300, 45),
    ("R9 power loss while a directory begins", power.beginnings, 60, 10),
    *damage.ROWS,
    *full.ROWS,
]


class Run:
    """What a row is given."""

    def __init__(self, seed, seconds, quick):
        self.seed, self.quick = seed, quick
        self.deadline = time.monotonic() + seconds

    def has_time(self):
        return time.monotonic() < self.deadline


def shortened(text):
    """Its first and its last line."""
    lines = text.strip().splitlines() or [""]
    return lines[0][:600] + (f" … {lines[-1].strip()[:400]}" if len(lines) > 1 else "")


def main():
    seed = int(os.environ.get("KLAMM_SEED") or random.SystemRandom().randrange(1 << 32))
    quick = "--quick" in sys.argv
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    print(f"KLAMM_SEED={seed}", flush=True)
    failed, began = 0, time.monotonic()
    for name, body, seconds, quick_seconds in ROWS:
        if wanted and not any(word in name for word in wanted):
            continue
        if quick and not quick_seconds and not wanted:
            continue
        start = time.monotonic()
        try:
            note, verdict = body(Run(f"{seed} {name}", quick_seconds or 5 if quick else seconds, quick)) or "", "PASS"
        except Exception as problem:  # noqa: BLE001, a row for whatever went wrong
            note, verdict, failed = f"{type(problem).__name__}: {shortened(str(problem))}", "FAIL", failed + 1
            if not isinstance(problem, (AssertionError, RuntimeError, TimeoutError)):
                traceback.print_exc()
        print(f"{verdict}  {name:56} {time.monotonic() - start:4.0f} s  {note}".rstrip(), flush=True)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, {failed} rows failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
