"""Checks histories, or itself.

    compat-tests/run history FILE …     one row a history: breaches by class, and figures
    compat-tests/run history            the checker's own test: planted faults, one row each (part of `make test`)

`model.py` says what a history is, `rules.py` what may not be in it.
"""

import argparse
import sys
import time

from history import selftest
from history.model import History
from history.rules import check
from kit.rows import Rows


def judge(path):
    verdict = check(History.load(path))
    for breach in verdict.examples:
        print(f"    {breach}")
    if not verdict:
        raise AssertionError(f"{verdict.counts} in {verdict.figures}")
    return str(verdict.figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    rows = Rows(args.only)
    if args.files:
        for path in args.files:
            rows.run(path, judge, path, always=True)
    else:
        print(f"seed {args.seed}")
        selftest.run(rows, args.seed)
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
