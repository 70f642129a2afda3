"""Runs librdkafka's own test-runner, unmodified, against a fresh klamm and compares with expected.tsv.

Each test number is a process of its own; several run at once against one broker, and one that fails in that crowd is
run again alone before it counts. The log of each test is kept in the folder named at the end.

Environment:
  TESTS="0001 0002"   only these numbers
  JOBS=4              how many at once
  LIMIT=900           seconds after which one number is stopped
  SCENARIO=noautocreate   the tests of that scenario, on a broker without automatic creation of topics
  KLAMM_BROKERS=3     on a cluster, whose tests that need three brokers must pass then
  SECURE=1            every client over TLS, authenticated by SCRAM-SHA-512
  IDEMPOTENT=1        every producer idempotent (the runner's -P)
  ROWS=1              print one row per number and nothing else, as `make test` wants it; Kafka's tools are not fetched
  and what compat-tests/kit/broker.py says about the broker (KLAMM_BINARY, KLAMM_AGAINST, KLAMM_BOOTSTRAP)

Four numbers want more than one listener over SASL: `librdkafka.secured` runs them.

Ends with 0 when every test does what expected.tsv says.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from clients import secure
from kit.broker import ROOT, chosen, kafka_path, librdkafka_path
from librdkafka.runner import Outcome, run_one

HERE = pathlib.Path(__file__).resolve().parent

# The setting in which Apache Kafka scored what expected.tsv says of it.
PROPERTIES = {
    "num.partitions": "4",
    "default.replication.factor": "1",
    "broker.rack": "RACK1",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "log.cleaner.backoff.ms": "1000",
    "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


# Tests that fail on one broker, and have to pass on three.
OF_A_CLUSTER = {"0098", "0101", "0103"}
SCENARIO = os.environ.get("SCENARIO", "")
# The numbers that have tests in a scenario; the others skip themselves.
OF_SCENARIO = {"noautocreate": "0045 0107 0111"}
OPTIONS = (["-s", SCENARIO] if SCENARIO else []) + (["-P"] if os.environ.get("IDEMPOTENT") == "1" else [])
CLUSTER = int(os.environ.get("KLAMM_BROKERS", "1")) > 1


@dataclasses.dataclass
class Expected:
    number: str
    name: str
    kafka: str
    seconds: int
    klamm: str
    reason: str


def expectations():
    rows = {}
    for line in (HERE / "expected.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        number, name, kafka, seconds, klamm, *reason = line.split("\t")
        rows[number] = Expected(number, name, kafka, int(seconds), klamm, reason[0] if reason else "")
    return rows


def java_classes(suite, kafka):
    """A few tests drive a Java client beside librdkafka's; their classes are compiled once."""
    folder = suite / "tests/java"
    if not list(folder.glob("*.class")):
        subprocess.run(
            ["make", "-s", "-C", str(folder), f"KAFKA_PATH={kafka}", "all"], check=True, stdout=subprocess.DEVNULL
        )


def selected(rows):
    wanted = os.environ.get("TESTS", OF_SCENARIO.get(SCENARIO, "")).replace(",", " ").split()
    if SCENARIO:
        # Numbers that have tests in it alone are in no list.
        rows |= {number: Expected(number, "", "pass", 0, "pass", "") for number in wanted if number not in rows}
    for number in wanted:
        if number not in rows:
            sys.exit(f"no test {number} in expected.tsv")
    return wanted or list(rows)


def main():
    rows = expectations()
    numbers = selected(rows)
    jobs = int(os.environ.get("JOBS", "4"))
    limit = int(os.environ.get("LIMIT", "900"))
    logs = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "librdkafka-logs"
    logs.mkdir(parents=True, exist_ok=True)

    rows_only = os.environ.get("ROWS") == "1"
    suite = librdkafka_path()
    kafka = None
    if not rows_only:
        kafka = kafka_path("3.9.1")
        java_classes(suite, kafka)
    against = os.environ.get("KLAMM_AGAINST")
    outcomes = {}
    properties = PROPERTIES | ({"auto.create.topics.enable": "false"} if SCENARIO == "noautocreate" else {})
    keys = secure.Keys(pathlib.Path(tempfile.mkdtemp(prefix="klamm-keys-"))) if os.environ.get("SECURE") == "1" else None
    with chosen(properties | (keys.settings() if keys else {}), keep_log=logs, port=keys and keys.plain) as broker:
        reached = (broker.bootstrap, "")
        if keys:
            way = keys.rounds(broker.bootstrap)["SCRAM-SHA-512"]
            reached = (way["BOOTSTRAP"], pathlib.Path(way["LIBRDKAFKA_CONFIG"]).read_text())
        if not rows_only:
            print(f"librdkafka's suite ({suite.name}), {len(numbers)} numbers, {jobs} at once, against {broker.title}")

        def run(number, attempt):
            if not broker.alive():
                return Outcome("fail", 0, "the broker is gone")
            name = number if attempt == 1 else f"{number}.{attempt}"
            outcome = run_one(number, suite, kafka, reached, logs, limit, name=name, options=OPTIONS)
            row = rows[number]
            if rows_only:
                print(f"{outcome.result.upper()}  librdkafka {number} {row.name:28} {outcome.seconds:5.1f} s", flush=True)
                if outcome.result == "fail":
                    print(f"      {outcome.detail}\n      log: {logs}/{number}.log", flush=True)
                return outcome
            note = f"  ({row.reason})" if row.reason and outcome.result != "pass" else ""
            print(f"  {number} {row.name:36} {outcome.result:4} {outcome.seconds:6.1f} s{note}", flush=True)
            if outcome.result == "fail" and row.klamm != "fail":
                print(f"       {outcome.detail}", flush=True)
            return outcome

        began = time.monotonic()
        # The longest first, so that no long one is left over at the end.
        order = sorted(numbers, key=lambda number: -rows[number].seconds)
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for number, outcome in zip(order, pool.map(lambda number: run(number, 1), order)):
                outcomes[number] = outcome
        if rows_only:
            sys.exit(any(outcome.result == "fail" for outcome in outcomes.values()))
        again = [n for n in numbers if jobs > 1 and outcomes[n].result == "fail" and wanted(rows[n], against) == "pass"]
        if again:
            print(f"Once more, each alone: {' '.join(again)}")
            for number in again:
                outcomes[number] = run(number, 2)
        minutes = (time.monotonic() - began) / 60
        if not broker.alive():
            print(f"THE BROKER ENDED with {broker.child.returncode}\n{broker.tail()}")
    sys.exit(conclude(rows, numbers, outcomes, against, minutes, logs))


def wanted(row, against):
    if CLUSTER and row.number in OF_A_CLUSTER:
        return "pass"
    return row.kafka if against else row.klamm


def conclude(rows, numbers, outcomes, against, minutes, logs):
    """Prints what differs, and the list of tests that do not pass with their reasons."""
    unexpected, excused, better = [], [], []
    for number in numbers:
        row, result = rows[number], outcomes[number].result
        expected = wanted(row, against)
        if result == expected or (SCENARIO and result == "skip"):
            if result != "pass" and not SCENARIO:
                excused.append(number)
        elif result == "pass":
            better.append(number)
        else:
            unexpected.append(number)
    passed = sum(outcome.result == "pass" for outcome in outcomes.values())
    print(f"\n{passed} of {len(numbers)} numbers pass, in {minutes:.0f} minutes. Logs: {logs}")
    if excused:
        print("Not passing, and expected:")
        for number in excused:
            row = rows[number]
            print(f"  {number} {row.name:36} {outcomes[number].result:4}  {row.reason or 'as Apache Kafka'}")
    if better:
        print("Passing although expected.tsv does not say so:", " ".join(better))
    if unexpected:
        print("UNEXPECTED:")
        for number in unexpected:
            print(f"  {number} {rows[number].name:36} {outcomes[number].result:4}  {outcomes[number].detail}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    main()
