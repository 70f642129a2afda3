"""Apache Kafka's own command line tools, of 3.9 and of 4.1, against a fresh klamm: one row per tool and version.

Each row runs one tool as an operator would and looks for what it must print. Rows of one version build on each other:
a topic is made, filled, read through a group, looked at from every side, and deleted.

Environment: VERSIONS="3.9.1" for only that one; KLAMM_BROKERS=3 for three brokers, with rows about replicas; and what
compat-tests/kit/broker.py says about the broker.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from kit.broker import chosen, kafka_path

LIMIT_SECONDS = 60


class Tools:
    def __init__(self, version, bootstrap):
        self.version = version
        self.bootstrap = bootstrap
        self.bin = kafka_path(version) / "bin"
        self.failed = 0

    def row(self, name, tool, arguments, expect, stdin="", code=0, absent=None, seconds=LIMIT_SECONDS):
        """Runs one tool. `expect` are patterns that its output must contain, `absent` one that it must not.

        `code` is None of a tool that goes on until it is ended, after so many seconds."""
        began = time.monotonic()
        self.tell(name, began, *self.run(tool, arguments, expect, stdin, code, absent, seconds))

    def eventually(self, name, tool, arguments, expect):
        """The same of what takes its time: asked again until it says what is expected."""
        began = time.monotonic()
        while True:
            faults, output = self.run(tool, arguments, expect, "", 0, None, LIMIT_SECONDS)
            if not faults or time.monotonic() - began > LIMIT_SECONDS:
                return self.tell(name, began, faults, output)

    def run(self, tool, arguments, expect, stdin, code, absent, seconds):
        """(What is wrong with it, its output)."""
        # A few tools take the address in a way of their own.
        address = [] if self.bootstrap in " ".join(arguments) else ["--bootstrap-server", self.bootstrap]
        command = [str(self.bin / f"{tool}.sh"), *address, *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                timeout=seconds,
            )  # fmt: skip
            output, ended = done.stdout, done.returncode
        except subprocess.TimeoutExpired as late:
            output, ended = (late.stdout or b"").decode(errors="replace"), None
        faults = [f"no match for {pattern!r}" for pattern in expect if not re.search(pattern, output, re.M)]
        if absent and re.search(absent, output, re.M):
            faults.append(f"a match for {absent!r}")
        if ended != code:
            faults.insert(0, f"over {seconds} s" if ended is None else f"ended with {ended}, not {code}")
        return faults, output

    def tell(self, name, began, faults, output):
        verdict = "FAIL" if faults else "PASS"
        print(f"{verdict}  {self.version} {name:52} {time.monotonic() - began:5.1f} s", flush=True)
        if faults:
            self.failed += 1
            print("      " + "; ".join(faults))
            for line in output.strip().splitlines()[-8:]:
                print("      | " + line[:300])


def every_tool(tools):
    topic = "tools-" + tools.version.replace(".", "-")
    group = "group-" + topic
    records = "".join(f"k{n}\tv{n}\n" for n in range(100))

    tools.row("broker-api-versions", "kafka-broker-api-versions", [], [r"Produce\(0\): 0 to \d+ \[usable: \d+\]"])
    tools.row("cluster cluster-id", "kafka-cluster", ["cluster-id", "--bootstrap-server", tools.bootstrap], [r"^Cluster ID: \S{22}$"])
    tools.row(
        "topics --create", "kafka-topics",
        ["--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=3600000"],
        [rf"^Created topic {topic}\.$"],
    )  # fmt: skip
    tools.row(
        "topics --create again", "kafka-topics", ["--create", "--topic", topic, "--partitions", "3"],
        [rf"Topic '{topic}' already exists\."], code=1,
    )  # fmt: skip
    tools.row("topics --list", "kafka-topics", ["--list"], [rf"^{topic}$"])
    tools.row(
        "topics --describe", "kafka-topics", ["--describe", "--topic", topic],
        [r"TopicId: \S{22}\s+PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention\.ms=3600000",
         r"Partition: 2\s+Leader: (\d)\s+Replicas: \1\s+Isr: \1"],
    )  # fmt: skip
    tools.row(
        "topics --alter --partitions", "kafka-topics", ["--alter", "--topic", topic, "--partitions", "4"], [],
        absent="(?i)error",
    )  # fmt: skip
    tools.row(
        "topics --describe after it", "kafka-topics", ["--describe", "--topic", topic],
        [r"PartitionCount: 4", r"Partition: 3\s+Leader: \d"],
    )  # fmt: skip
    tools.row(
        "console-producer", "kafka-console-producer",
        ["--topic", topic, "--property", "parse.key=true", "--compression-codec", "lz4"], [], stdin=records,
        absent="ERROR|WARN",
    )  # fmt: skip
    tools.row(
        "console-consumer through a group", "kafka-console-consumer",
        ["--topic", topic, "--group", group, "--from-beginning", "--max-messages", "100", "--timeout-ms", "20000"],
        [r"^v0$", r"^v99$", r"Processed a total of 100 messages"],
    )  # fmt: skip
    tools.row("get-offsets", "kafka-get-offsets", ["--topic", topic], [rf"^{topic}:0:\d+$", rf"^{topic}:3:\d+$"])
    tools.row("get-offsets --time earliest", "kafka-get-offsets", ["--topic", topic, "--time", "earliest"], [rf"^{topic}:1:0$"])
    tools.row("get-offsets --time max-timestamp", "kafka-get-offsets", ["--topic", topic, "--time", "max-timestamp"], [rf"^{topic}:\d:\d+$"])
    tools.row("consumer-groups --list", "kafka-consumer-groups", ["--list"], [rf"^{group}$"])
    tools.row(
        "consumer-groups --describe", "kafka-consumer-groups", ["--describe", "--group", group],
        [r"has no active members", rf"^{group}\s+{topic}\s+0\s+(\d+)\s+\1\s+0\s"],
    )  # fmt: skip
    tools.row(
        "consumer-groups --describe --state", "kafka-consumer-groups", ["--describe", "--group", group, "--state"],
        [r"\bEmpty\b"],
    )  # fmt: skip
    tools.row(
        "consumer-groups --reset-offsets", "kafka-consumer-groups",
        ["--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute"],
        [rf"{group}\s+{topic}\s+0\s+0\b"],
    )  # fmt: skip
    tools.row(
        "console-consumer reads __consumer_offsets", "kafka-console-consumer",
        ["--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "8000", "--formatter",
         "org.apache.kafka.tools.consumer.OffsetsMessageFormatter"],
        [rf'"group":"{group}"' if tools.version.startswith("4") else group, topic],
    )  # fmt: skip
    tools.row(
        "configs --describe of a topic", "kafka-configs",
        ["--describe", "--entity-type", "topics", "--entity-name", topic, "--all"],
        [r"retention\.ms=3600000 sensitive=false synonyms=\{.*DYNAMIC_TOPIC_CONFIG:retention\.ms=3600000",
         r"cleanup\.policy=delete"],
    )  # fmt: skip
    tools.row(
        "configs --alter of a topic", "kafka-configs",
        ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=7200000"],
        [rf"^Completed updating config for topic {topic}\.$"],
    )  # fmt: skip
    tools.row(
        "configs --describe after it", "kafka-configs",
        ["--describe", "--entity-type", "topics", "--entity-name", topic], [r"retention\.ms=7200000"],
    )  # fmt: skip
    tools.row(
        "configs --describe of the broker", "kafka-configs",
        ["--describe", "--entity-type", "brokers", "--entity-name", "1", "--all"],
        [r"num\.partitions=4 sensitive=false synonyms=\{STATIC_BROKER_CONFIG:num\.partitions=4"],
    )  # fmt: skip
    tools.row(
        "configs --alter of all brokers", "kafka-configs",
        ["--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.cleaner.backoff.ms=14000"],
        [r"^Completed updating default config for brokers in the cluster\.$"],
    )  # fmt: skip
    tools.row(
        "configs --alter of the broker", "kafka-configs",
        ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", "log.cleaner.backoff.ms=13000"],
        [r"^Completed updating config for broker 1\.$"],
    )  # fmt: skip
    tools.row(
        "configs --describe after both", "kafka-configs", ["--describe", "--entity-type", "brokers", "--entity-name", "1"],
        [r"log\.cleaner\.backoff\.ms=13000 .*DYNAMIC_BROKER_CONFIG:log\.cleaner\.backoff\.ms=13000, "
         r"DYNAMIC_DEFAULT_BROKER_CONFIG:log\.cleaner\.backoff\.ms=14000"],
    )  # fmt: skip
    tools.row(
        "producer-perf-test, idempotent", "kafka-producer-perf-test",
        ["--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1", "--producer-props",
         f"bootstrap.servers={tools.bootstrap}"],
        [r"^20000 records sent"],
    )  # fmt: skip
    tools.row(
        "consumer-perf-test", "kafka-consumer-perf-test", ["--topic", topic, "--messages", "20000", "--timeout", "20000"],
        [r"^\d{4}-\d\d-\d\d .*?, [\d.]+, [\d.]+, 20\d{3}, "],
    )  # fmt: skip
    transactions(tools, topic)
    asked = {"partitions": [{"topic": topic, "partition": 1, "offset": -1}], "version": 1}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asked, file)
        file.flush()
        tools.row("delete-records", "kafka-delete-records", ["--offset-json-file", file.name], [rf"{topic}-1\s+low_watermark: \d+"])
    tools.row(
        "get-offsets --time earliest after it", "kafka-get-offsets", ["--topic", topic, "--time", "earliest"],
        [rf"^{topic}:0:0$", rf"^{topic}:1:[1-9]\d*$"],
    )  # fmt: skip
    tools.row(
        "consumer-groups --delete", "kafka-consumer-groups", ["--delete", "--group", group],
        [r"was successful"],
    )  # fmt: skip
    tools.row("topics --delete", "kafka-topics", ["--delete", "--topic", topic], [], absent="(?i)error")
    tools.row("topics --list after it", "kafka-topics", ["--list"], [], absent=rf"^{topic}$")


def transactions(tools, topic):
    """A transactional id comes into being, ends a few transactions, and is looked at."""
    transactional_id = "tid-" + topic
    tools.row(
        "producer-perf-test, transactional", "kafka-producer-perf-test",
        ["--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "10000", "--producer-props",
         f"bootstrap.servers={tools.bootstrap}", "--transactional-id", transactional_id, "--transaction-duration-ms", "300"],
        [r"^20000 records sent"],
    )  # fmt: skip
    tools.row(
        "console-consumer, read_committed", "kafka-console-consumer",
        ["--topic", topic, "--isolation-level", "read_committed", "--from-beginning", "--max-messages", "20100",
         "--timeout-ms", "20000"],
        [r"Processed a total of 20100 messages"],
    )  # fmt: skip
    tools.row(
        "transactions list", "kafka-transactions", ["list"],
        [r"TransactionalId\s+Coordinator\s+ProducerId\s+TransactionState", rf"^{transactional_id}\s+\d\s+\d+\s+CompleteCommit"],
    )  # fmt: skip
    tools.row(
        "transactions describe", "kafka-transactions", ["describe", "--transactional-id", transactional_id],
        [rf"^\d\s+{transactional_id}\s+\d+\s+0\s+CompleteCommit\s+60000\s"],
    )  # fmt: skip
    tools.row(
        "transactions describe-producers", "kafka-transactions", ["describe-producers", "--topic", topic, "--partition", "0"],
        [r"ProducerId\s+ProducerEpoch\s+LatestCoordinatorEpoch\s+LastSequence\s+LastTimestamp\s+CurrentTransactionStartOffset",
         r"^\d+\s+0\s+0\s+-?\d+\s+\d+\s+None"],
    )  # fmt: skip
    tools.row("transactions find-hanging", "kafka-transactions", ["find-hanging", "--broker-id", "1"], [r"^Topic\s+Partition"])
    formatter = "org.apache.kafka.tools.consumer.TransactionLogMessageFormatter"
    tools.row(
        "console-consumer reads __transaction_state", "kafka-console-consumer",
        ["--topic", "__transaction_state", "--from-beginning", "--timeout-ms", "8000", "--formatter", formatter],
        [transactional_id, "CompleteCommit|\"transactionStatus\":4"],
    )  # fmt: skip


def replicas(tools):
    """Three brokers: what their replicas hold is compared by a tool that reads each of them."""
    topic = "replicas-" + tools.version.replace(".", "-")
    tools.row(
        "topics --create, three replicas", "kafka-topics",
        ["--create", "--topic", topic, "--partitions", "3", "--replication-factor", "3"], [r"Created topic"],
    )  # fmt: skip
    tools.row(
        "producer-perf-test, three replicas", "kafka-producer-perf-test",
        ["--topic", topic, "--num-records", "30000", "--record-size", "200", "--throughput", "-1", "--producer-props",
         f"bootstrap.servers={tools.bootstrap}", "acks=all"],
        [r"^30000 records sent"],
    )  # fmt: skip
    tools.row("get-offsets, three brokers", "kafka-get-offsets", ["--topic", topic], [rf"^{topic}:[012]:\d+$"] * 3)
    for replica in ("1", "2", "3"):
        tools.row(
            f"console-consumer, client.rack of {replica}", "kafka-console-consumer",
            ["--topic", topic, "--from-beginning", "--max-messages", "30000", "--timeout-ms", "20000",
             "--consumer-property", f"client.rack=rack-{replica}"],
            [r"Processed a total of 30000 messages"],
        )  # fmt: skip
    tools.row(
        "replica-verification", "kafka-replica-verification",
        ["--broker-list", tools.bootstrap, "--topics-include", topic, "--report-interval-ms", "2000", "--time", "-2"],
        [r"verification process is started", r"max lag is 0 for partition"], absent=r"(?i)max lag is [1-9]|error|mismatch",
        code=None, seconds=20,
    )  # fmt: skip


def moves(tools, folder):
    """Three brokers: replicas and leaders are moved as an operator does it."""
    topic = "moves-" + tools.version.replace(".", "-")
    tools.row(
        "topics --create, replicas by hand", "kafka-topics",
        ["--create", "--topic", topic, "--replica-assignment", "1:2,2:1"], [r"Created topic"],
    )  # fmt: skip
    wanted, election = folder / "wanted.json", folder / "election.json"
    partitions = [{"topic": topic, "partition": 0, "replicas": [3, 1]}, {"topic": topic, "partition": 1, "replicas": [1, 3]}]
    wanted.write_text(json.dumps({"version": 1, "partitions": partitions}))
    election.write_text(json.dumps({"partitions": [{"topic": topic, "partition": 0}]}))
    tools.row(
        "reassign-partitions --execute", "kafka-reassign-partitions",
        ["--reassignment-json-file", str(wanted), "--execute"],
        [r"Current partition replica assignment", rf"Successfully started partition reassignments for {topic}-0,{topic}-1"],
    )  # fmt: skip
    # It says "still in progress" until then.
    tools.eventually(
        "reassign-partitions --verify", "kafka-reassign-partitions", ["--reassignment-json-file", str(wanted), "--verify"],
        [rf"Reassignment of partition {topic}-0 is completed", rf"Reassignment of partition {topic}-1 is completed"],
    )  # fmt: skip
    tools.row(
        "reassign-partitions --list", "kafka-reassign-partitions", ["--list"], [r"No partition reassignments found"]
    )
    tools.row(
        "topics --describe after it", "kafka-topics", ["--describe", "--topic", topic],
        [r"Partition: 0\s+Leader: 1\s+Replicas: 3,1\s+Isr: (1,3|3,1)", r"Partition: 1\s+Leader: \d\s+Replicas: 1,3\s+Isr: (1,3|3,1)"],
    )  # fmt: skip
    tools.row(
        "leader-election, preferred, of one partition", "kafka-leader-election",
        ["--election-type", "preferred", "--path-to-json-file", str(election)],
        [rf"Successfully completed leader election \(PREFERRED\) for partitions {topic}-0"],
    )  # fmt: skip
    tools.row(
        "leader-election once more", "kafka-leader-election",
        ["--election-type", "preferred", "--topic", topic, "--partition", "0"],
        [rf"Valid replica already elected for partitions {topic}-0"],
    )  # fmt: skip
    tools.eventually(
        "topics --describe, the new leader", "kafka-topics", ["--describe", "--topic", topic],
        [r"Partition: 0\s+Leader: 3\s+Replicas: 3,1"],
    )  # fmt: skip
    tools.row(
        "topics --under-replicated-partitions", "kafka-topics", ["--describe", "--under-replicated-partitions"], [],
        absent=r"Partition: \d",
    )  # fmt: skip
    tools.row(
        "log-dirs --describe", "kafka-log-dirs", ["--describe", "--topic-list", topic, "--broker-list", "1,2,3"],
        [rf'"broker":1,.*"partition":"{topic}-0"', rf'"broker":3,.*"partition":"{topic}-1"'],
        absent=r'"error":"',
    )  # fmt: skip


def main():
    versions = os.environ.get("VERSIONS", "3.9.1 4.1.0").split()
    failed = 0
    with chosen({"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}) as broker:
        print(f"Apache Kafka's tools against {broker.title}")
        for version in versions:
            tools = Tools(version, broker.bootstrap)
            every_tool(tools)
            if int(os.environ.get("KLAMM_BROKERS", "1")) > 1:
                replicas(tools)
                with tempfile.TemporaryDirectory() as folder:
                    moves(tools, pathlib.Path(folder))
            failed += tools.failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
