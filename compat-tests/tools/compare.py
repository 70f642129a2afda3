"""Apache Kafka's scripts that talk to a broker, each called in many ways against Apache Kafka 3.9.1 and klamm: exit codes and output.

`calls.txt` lists the calls in their order; those of one broker build on each other. What differs from run to run (addresses,
ids, times, rates) is masked, and lines are compared without their order. A call that differs passes if `differences.tsv`
names it with a reason; one that is named there and does not differ fails, so that the list stays true.

    make tools-compare                       both brokers are started; the table of what differs
    compat-tests/run tools.compare --all     prints what both said to every call
    compat-tests/run tools.compare --only transactions
"""

import argparse
import difflib
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading

from kit.broker import BesideZookeeper, Kafka, kafka_path

HERE = pathlib.Path(__file__).parent
VERSION = "3.9.1"
LIMIT_SECONDS = 120
SETTINGS = {
    "num.partitions": "2",
    "zookeeper.session.timeout.ms": "6000",
    "group.initial.rebalance.delay.ms": "0",
    "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
    "super.users": "User:ANONYMOUS",
    "delegation.token.secret.key": "a-key-of-this-test-alone",
    "password.encoder.secret": "a-secret-of-this-test-alone",
}
FILES = {
    "records.json": {"version": 1, "partitions": [{"topic": "one", "partition": 0, "offset": 2}]},
    "records-unknown.json": {"version": 1, "partitions": [{"topic": "none", "partition": 0, "offset": 2}]},
    "records-beyond.json": {"version": 1, "partitions": [{"topic": "one", "partition": 1, "offset": 1000}]},
    "election.json": {"partitions": [{"topic": "one", "partition": 0}]},
    "election-unknown.json": {"partitions": [{"topic": "none", "partition": 0}]},
    "move.json": {"version": 1, "partitions": [{"topic": "one", "partition": 0, "replicas": [1]}]},
    "move-nobody.json": {"version": 1, "partitions": [{"topic": "one", "partition": 0, "replicas": [7]}]},
    "move-unknown.json": {"version": 1, "partitions": [{"topic": "none", "partition": 0, "replicas": [1]}]},
    "move-topics.json": {"version": 1, "topics": [{"topic": "one"}]},
}
# What is not the same twice: (pattern, what stands for it), in their order.
MASKS = [
    (r"127\.0\.0\.1:\d+|localhost:\d+", "ADDRESS"),
    (r"/127\.0\.0\.1\b", "/HOST"),
    (r"\b127\.0\.0\.1 (?=\()", "HOST "),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"(?<![A-Za-z0-9_./-])[A-Za-z0-9_-]{22}(?![A-Za-z0-9_./-])", "ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([.,:]\d+)?Z?", "TIME"),
    (r"\b1[6-9]\d{11}\b", "MILLIS"),
    (r"/tmp/[^\s\",\]]*", "FOLDER"),
    (r"\bport: \d+|:\d{4,5}\b", "PORT"),
    (r"(console-consumer|perf-consumer|console-share-consumer|verifiable-consumer)-\d+", r"\1-N"),
    (r"\d+(\.\d+)? (ms|records/sec|MB/sec)", r"N \2"),
    (r"\(\d+(\.\d+)? MB/sec\)", "(N MB/sec)"),
    (r"(TIME, TIME).*", r"\1"),
    (r"^\d+\s+\d+\.\d+$", "N SECONDS"),
    (r"(Avg latency|Percentiles): .*", r"\1"),
    # Which of its partitions a group's commits go to depends on what it sends, their number on time.
    (r"(__consumer_offsets|__transaction_state):(\d+):\d+", r"\1:\2:N"),
    (r"(__consumer_offsets|__transaction_state)( \d+){2,}.*", r"\1 N"),
    (r"tries=\d+|after \d+ attempt", "tries"),
    # Producer ids come in blocks of a thousand; a broker that has had another life begins another.
    (r"^(\S*tid\s+1)\s+\d+(.*?)(\s+\d+)?$", r"\1 ID\2"),
    (r"^(1\s+tid)\s+\d+(.*MILLIS).*", r"\1 ID\2"),
    (r"^\d+(\s+\d+\s+-?\d+\s+\d+\s+MILLIS)", r"ID\1"),
    (r'"avg_throughput":[\d.]+', '"avg_throughput":N'),
    # In the order of a hash table.
    (r"requested consumer groups \(.*\)", "requested consumer groups (…)"),
    (r"\s+$", ""),
    (r"[ \t]+", " "),
    (r"-{5,}", "-----"),
    (r"^\[[\d.]+s\]\[warning\]\[perf.*", ""),
    # A listener, its address and the directory of data are each broker's own.
    (r"^ *(advertised\.listeners|listeners|log\.dirs|zookeeper\.connect|broker\.id\.generation\.enable)=.*", r"\1"),
]


def mask(text, folder):
    text = text.replace(str(folder), "HERE")
    for pattern, stands in MASKS:
        text = re.sub(pattern, stands, text, flags=re.M)
    # Lines of the tool's own logging tell when, and what the client's threads met on their way.
    # klamm has settings of its own besides Kafka's.
    left_out = re.compile(r"^\[TIME\] (WARN|INFO)| *klamm\.")
    lines = [line for line in text.splitlines() if line.strip() and not left_out.match(line)]
    return sorted(lines)


def calls():
    """[(label, script, its arguments, its input)]: the lines of calls.txt, `script arguments… [< input]`."""
    found = []
    for line in (HERE / "calls.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        command, _, given = line.partition(" < ")
        found.append((line, command.split(" ", 1)[0], command.split(" ", 1)[1:], given.encode().decode("unicode_escape")))
    return found


class Asked:
    """One broker with a folder of files for the tools."""

    def __init__(self, broker):
        self.broker, self.folder = broker, pathlib.Path(tempfile.mkdtemp(prefix="klamm-tools-"))
        for name, content in FILES.items():
            (self.folder / name).write_text(json.dumps(content))
        (self.folder / "client.properties").write_text("default.api.timeout.ms=15000\nrequest.timeout.ms=10000\n")
        self.answers = {}

    def ask(self, call):
        label, script, arguments, given = call
        words = shlex.split(arguments[0]) if arguments else []
        words = [word.replace("{at}", self.broker.bootstrap).replace("{dir}", str(self.folder)) for word in words]
        bin_ = kafka_path(VERSION) / "bin"
        # A class stands for a script that scripts/kafka-jars.sh does not write.
        command = [str(bin_ / "kafka-run-class.sh"), script] if "." in script else [str(bin_ / f"{script}.sh")]
        command += words
        try:
            done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  check=False, timeout=LIMIT_SECONDS)  # fmt: skip
            self.answers[label] = [f"exit code {done.returncode}", *mask(done.stdout, self.folder)]
        except subprocess.TimeoutExpired:
            self.answers[label] = [f"not done after {LIMIT_SECONDS} s"]


def accepted():
    """{call: why it differs}"""
    lines = (HERE / "differences.tsv").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if line and not line.startswith("#"))


def judge(label, kafka, klamm, known, everything):
    """How one call went: "same", "known" or "wrong"; prints what there is to see."""
    if everything:
        print(f"      {label}\n" + "".join(f"        {line}\n" for line in kafka), flush=True)
    if kafka == klamm and label not in known:
        return "same"
    if kafka == klamm:
        print(f"FAIL  {label}: is the same, and differences.tsv says it differs", flush=True)
        return "wrong"
    if label in known:
        print(f"PASS  {label}: differs, {known[label]}", flush=True)
        return "known"
    print(f"FAIL  {label}")
    for line in difflib.unified_diff(kafka, klamm, "kafka", "klamm", lineterm="", n=0):
        print(f"        {line[:400]}", flush=True)
    return "wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="", help="calls that contain this text")
    arguments = parser.parse_args()
    asked = [Asked(Kafka(SETTINGS, version=VERSION)), Asked(BesideZookeeper(SETTINGS))]
    counts = {"same": 0, "known": 0, "wrong": 0}
    try:
        for one in asked:
            one.broker.start()
        known = accepted()
        for call in (call for call in calls() if arguments.only in call[0]):
            both = [threading.Thread(target=one.ask, args=(call,)) for one in asked]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            kafka, klamm = (one.answers[call[0]] for one in asked)
            counts[judge(call[0], kafka, klamm, known, arguments.all)] += 1
    finally:
        for one in asked:
            one.broker.remove()
            subprocess.run(["rm", "-rf", str(one.folder)], check=True)
    total = sum(counts.values())
    verdict = "FAIL" if counts["wrong"] else "PASS"
    print(f"{verdict}  {total} calls: {counts['same']} the same, {counts['known']} different for a reason, {counts['wrong']} wrong")
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
