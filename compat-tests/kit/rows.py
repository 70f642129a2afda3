"""One row per test: PASS or FAIL, its name, how long it took, and a note. `scripts/test.sh` counts the rows."""

import time


class Rows:
    """Runs tests and prints their rows. `only`: a part of the names of those to run; `width` of the column of names."""

    def __init__(self, only="", width=58):
        self.failed = 0
        self.only = only
        self.width = width

    def run(self, name, body, *arguments, always=False):
        """A test passes if `body` returns; what it returns is the note. `always`: others need it, so `only` spares it."""
        if self.only not in name and not always:
            return
        began = time.monotonic()
        try:
            note, verdict = body(*arguments) or "", "PASS"
        except Exception as problem:  # noqa: BLE001, a row for whatever went wrong
            note, verdict = f"{type(problem).__name__}: {problem}", "FAIL"
            self.failed += 1
        print(f"{verdict}  {name:{self.width}} {time.monotonic() - began:5.1f} s  {note}".rstrip(), flush=True)
