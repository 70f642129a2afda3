"""Every way in which a log may end, each read to its end by stock clients in both isolation levels, on klamm or
(KLAMM_AGAINST=3.9.1) on Apache Kafka.

    compat-tests/run log_ends [--quick] [--only WORD] [--before BINARY]

A way writes a topic of its own; then all rest until the cleaner and retention have taken what they take. kcat,
librdkafka's consumer, kafka-python and Java's consumer must come to the end that ListOffsets names, from the start and
from offsets that may lie in a gap, and know the same state; again after SIGKILL; and the next record must get the offset
that was the end. One row for each way and client. --quick leaves some ways and Java out. With --before another klamm
writes the topics, and the one under test starts on its data. A broker that runs already is not restarted.
Needs confluent-kafka and kafka-python (`compat-tests/run` sets them up), kcat, and without --quick a JDK.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent

import kafka
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kit.broker import chosen, kafka_path
from kit.wire import Client, batches

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "auto.create.topics.enable": "false",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.threads": "2",
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
    # The last batch of a producer that is known stays anyhow: they are to be forgotten.
    "producer.id.expiration.ms": "2000",
    "producer.id.expiration.check.interval.ms": "500",
}
COMPACT = {
    "cleanup.policy": "compact", "segment.ms": "1000", "delete.retention.ms": "100", "max.compaction.lag.ms": "1500",
    "min.cleanable.dirty.ratio": "0.01",
}  # fmt: skip
LEVELS = ("read_uncommitted", "read_committed")
READ_SECONDS = 30
# A consumer that has come to the end waits for more.
WAIT_MS = 100
KEPT = []


class Way:
    """One way in which a log ends: what is written, with a rest at each `yield`, and what is known in the end."""

    def __init__(self, function, configs, state, committed=None, left=None, emptied=False, stable=None, quick=False):
        self.function, self.configs, self.quick = function, configs, quick
        self.name = function.__name__.replace("_", "-")
        self.state = {"read_uncommitted": state, "read_committed": state if committed is None else committed}
        # On klamm, which cleans what rests: so many data records are left. `emptied`: the log start comes to the end.
        self.left, self.emptied = left, emptied
        # Where readers of committed records stop, if that is not the end.
        self.stable = stable
        self.topic = f"ends-{self.name}"


WAYS = []


def way(**how):
    def note(function):
        WAYS.append(Way(function, **how))
        return function

    return note


class Writer:
    """Writes one topic, a batch at a time."""

    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic

    def producer(self, id=None, **settings):
        base = {"bootstrap.servers": self.bootstrap, "linger.ms": 50, "log_level": 2} | settings
        if id is not None:
            base |= {"transactional.id": id, "transaction.timeout.ms": 600_000}
        producer = Producer(base)
        KEPT.append(producer)
        if id is not None:
            producer.init_transactions(60)
        return producer

    def put(self, producer, timestamp=0, **records):
        """One batch; a value of None deletes the key."""
        for key, value in records.items():
            producer.produce(self.topic, value, key, timestamp=timestamp, on_delivery=self.delivered)
        assert producer.flush(30) == 0, "not delivered"

    def transaction(self, producer, *sets, commits=True):
        producer.begin_transaction()
        for records in sets:
            self.put(producer, **records)
        (producer.commit_transaction if commits else producer.abort_transaction)(30)

    @staticmethod
    def delivered(error, _message):
        assert error is None, error


@way(configs=COMPACT, state={"a": "1"}, left=1, quick=True)
def tombstones(to):
    """The last records delete keys."""
    producer = to.producer()
    to.put(producer, a="1", b="1")
    yield
    to.put(producer, c="1", b=None)
    to.put(producer, c=None)


@way(configs=COMPACT, state={"a": "1"}, left=1)
def tombstones_of_an_idempotent_producer(to):
    producer = to.producer(**{"enable.idempotence": True})
    to.put(producer, a="1", b="1")
    yield
    to.put(producer, c="1", b=None)
    to.put(producer, c=None)


@way(configs=COMPACT, state={"a": "1"}, left=1, quick=True)
def a_commit_of_tombstones(to):
    """The last batch is a marker, and nothing is left of what it commits."""
    producer = to.producer("ends-commit")
    to.transaction(producer, {"a": "1", "b": "1"})
    yield
    to.transaction(producer, {"c": "1", "b": None}, {"c": None})


@way(configs=COMPACT, state={"a": "1", "b": "2"}, committed={"a": "1"}, quick=True)
def an_abort(to):
    """What was aborted goes; readers of everything may see it until then."""
    producer = to.producer("ends-abort")
    to.transaction(producer, {"a": "1"})
    yield
    to.transaction(producer, {"b": "2"}, commits=False)


@way(configs=COMPACT, state={"a": "1"}, left=1)
def tombstones_behind_a_commit(to):
    producer = to.producer("ends-behind")
    to.transaction(producer, {"a": "1", "b": "1"})
    yield
    to.put(to.producer(), b=None)


@way(configs=COMPACT, state={"a": "1", "c": "open"}, committed={"a": "1"}, left=2, stable=3, quick=True)
def an_open_transaction_behind_tombstones(to):
    """Readers of committed records come to the last stable offset."""
    producer = to.producer()
    to.put(producer, a="1", b="1")
    yield
    to.put(producer, b=None)
    yield
    open_one = to.producer("ends-open")
    open_one.begin_transaction()
    to.put(open_one, c="open")


@way(configs=COMPACT, state={"a": "1", "d": "1"}, left=2, quick=True)
def the_last_record_of_a_batch(to):
    """The batch stays for its other records; its last offset has none."""
    producer = to.producer()
    to.put(producer, a="1", c="1")
    yield
    to.put(producer, d="1", c=None)


@way(configs=COMPACT, state={"a": "1"}, left=1)
def compressed_tombstones(to):
    producer = to.producer(**{"compression.type": "zstd"})
    to.put(producer, a="1", b="1")
    yield
    to.put(producer, b=None, c=None)


@way(configs=COMPACT, state={}, left=0)
def nothing_but_tombstones(to):
    producer = to.producer()
    to.put(producer, a=None)
    yield
    to.put(producer, a=None, b=None)


RETENTION = {"cleanup.policy": "delete", "retention.ms": "1000", "segment.ms": "1000"}


@way(configs=RETENTION, state={}, emptied=True, quick=True)
def retention(to):
    """The log start comes to the end."""
    producer = to.producer()
    to.put(producer, a="1")
    yield
    to.put(producer, b="1")


@way(configs=RETENTION, state={}, emptied=True)
def retention_behind_an_abort(to):
    producer = to.producer("ends-retention")
    to.transaction(producer, {"a": "1"}, commits=False)
    yield
    to.transaction(producer, {"b": "1"}, commits=False)


@way(configs=RETENTION | {"retention.ms": "3600000"}, state={"b": "1"}, left=1)
def retention_of_a_part(to):
    producer = to.producer()
    to.put(producer, timestamp=1_500_000_000_000, a="1")
    yield
    to.put(producer, b="1")


@way(configs=COMPACT | {"cleanup.policy": "compact,delete", "retention.ms": "3000"}, state={}, emptied=True)
def compaction_and_retention(to):
    producer = to.producer()
    to.put(producer, a="1", b="1")
    yield
    to.put(producer, b=None)


@way(configs=RETENTION | {"retention.ms": "3600000"}, state={"a": "1", "b": "1"}, left=2)
def records(to):
    """Nothing goes."""
    to.put(to.producer(), a="1", b="1")
    yield


@way(configs=COMPACT, state={}, left=0)
def nothing(_to):
    """Nothing was ever written."""
    yield


DELETE_RECORDS = 21


@way(configs=RETENTION | {"retention.ms": "3600000"}, state={}, emptied=True)
def deleted_records(to):
    """DeleteRecords up to the end; left out where the broker does not announce it."""
    to.put(to.producer(), a="1", b="1")
    yield
    admin = AdminClient({"bootstrap.servers": to.bootstrap})
    for future in admin.delete_records([TopicPartition(to.topic, 0, 2)]).values():
        future.result(30)


def announced(port, key):
    with Client(port) as client:
        answer = client.call(18, 0, b"")
        assert answer.take("h") == 0
        return key in {found for found, _, _ in answer.array(lambda r: r.take("hhh"))}


def fold(records):
    state = {}
    for key, value in records:
        state.pop(key, None) if value is None else state.__setitem__(key, value)
    return state


def read_kcat(broker, topic, level, start, _end):
    command = ["kcat", "-b", broker.bootstrap, "-C", "-t", topic, "-p", "0", "-o", str(start), "-e", "-Z",
               "-f", "%k %s\n", "-X", f"isolation.level={level}", "-X", f"fetch.wait.max.ms={WAIT_MS}"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=READ_SECONDS, check=False, text=True)
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"kcat hung, it had read {late.stdout}") from None
    assert done.returncode == 0, done.stderr
    reached = re.findall(r"Reached end of topic \S+ \[0\] at offset (\d+)", done.stderr)
    assert reached, done.stderr
    records = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return [(key, None if value == "NULL" else value) for key, value in records], int(reached[-1])


def read_librdkafka(broker, topic, level, start, _end):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "ends", "isolation.level": level,
                         "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2,
                         "fetch.wait.max.ms": WAIT_MS})  # fmt: skip
    records, deadline = [], time.monotonic() + READ_SECONDS
    try:
        consumer.assign([TopicPartition(topic, 0, start)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error() is None:
                value = message.value()
                records.append((message.key().decode(), None if value is None else value.decode()))
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                return records, message.offset()
    finally:
        consumer.close()
    raise AssertionError(f"librdkafka hung, it had read {records}")


def read_kafka_python(broker, topic, level, start, end):
    consumer = kafka.KafkaConsumer(bootstrap_servers=broker.bootstrap, isolation_level=level, group_id=None,
                                   enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=WAIT_MS)  # fmt: skip
    records, deadline = [], time.monotonic() + READ_SECONDS
    try:
        here = kafka.TopicPartition(topic, 0)
        consumer.assign([here])
        consumer.seek(here, start)
        told = consumer.end_offsets([here])[here]
        assert told == end, f"ListOffsets names {told} as the end, not {end}"
        while consumer.position(here) < end:
            assert time.monotonic() < deadline, f"kafka-python hung at {consumer.position(here)}, it had read {records}"
            for record in consumer.poll(200).get(here, []):
                records.append((record.key.decode(), None if record.value is None else record.value.decode()))
        return records, consumer.position(here)
    finally:
        consumer.close()


CLIENTS = {"kcat": read_kcat, "librdkafka": read_librdkafka, "kafka-python": read_kafka_python}


class Suite:
    def __init__(self, broker, ways):
        self.broker, self.ways = broker, ways
        self.failed = self.passed = 0
        self.ends, self.starts = {}, {}

    def row(self, name, check):
        """Runs a check in a thread of the pool's; the row is printed when its turn comes."""

        def run():
            began = time.monotonic()
            try:
                check()
                return f"PASS {name} ({time.monotonic() - began:.1f} s)", True
            except Exception:  # noqa: BLE001, a row for whatever went wrong
                return f"FAIL {name}: {traceback.format_exc(limit=-1)}", False

        return run

    def rows(self, checks):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for line, passed in pool.map(lambda run: run(), [self.row(name, check) for name, check in checks]):
                print(line, flush=True)
                self.passed, self.failed = self.passed + passed, self.failed + (not passed)

    def write(self):
        with Client(self.broker.port) as client:
            for one in self.ways:
                assert client.create_topic(one.topic, 1, configs=one.configs) == 0, one.topic
        writing = [(one, one.function(Writer(self.broker.bootstrap, one.topic))) for one in self.ways]

        def goes_on(one, stage):
            try:
                return next(stage, self) is not self
            except Exception:  # noqa: BLE001, a row for whatever went wrong
                print(f"FAIL {one.name}: not written: {traceback.format_exc(limit=-2)}", flush=True)
                self.failed += 1
                self.ways.remove(one)
                return False

        while writing:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                more = list(pool.map(lambda each: goes_on(*each), writing))
            writing = [each for each, more in zip(writing, more) if more]
            time.sleep(1.2)

    def wait_for_leaders(self, seconds):
        """Kafka answers after a start before its partitions have leaders."""
        topics, deadline = [one.topic for one in self.ways], time.monotonic() + seconds
        with Client(self.broker.port) as client:

            def leads(topic):
                told, partitions = client.metadata([topic])[1][topic]
                return told == 0 and partitions[0][0] == 0 and client.list_offsets(topic, [0], -1)[0][0] == 0

            while not all(leads(topic) for topic in topics):
                assert time.monotonic() < deadline, "partitions have no leaders"
                time.sleep(0.1)

    def look(self, client, topic):
        """(log start, log end, data records that are stored)."""
        start, end = (client.list_offsets(topic, [0], at)[0][1] for at in (-2, -1))
        at, count = start, 0
        while at < end:
            found = list(batches(client.fetch(topic, {0: at})[0][2]))
            if not found:
                break
            for _, last, one in found:
                control = int.from_bytes(one[21:23], "big") & 0x20
                count += 0 if control else int.from_bytes(one[57:61], "big")
                at = last + 1
        return start, end, count

    def settled(self, one, client):
        """Kafka leaves the active segment alone; there only the log start is waited for."""
        start, end, count = self.look(client, one.topic)
        if one.emptied:
            return start == end
        return one.left is None or self.broker.name != "klamm" or count == one.left

    def rest(self, seconds, patience):
        """At least `seconds`, until everything is settled. What does not settle is a row that fails."""
        time.sleep(seconds)
        deadline = time.monotonic() + patience
        late = list(self.ways)
        with Client(self.broker.port) as client:
            while late and time.monotonic() < deadline:
                late = [one for one in late if not self.settled(one, client)]
                time.sleep(0.2 if late else 0)
            for one in late:
                print(f"FAIL {one.name}: not cleaned after {patience} s: {self.look(client, one.topic)}", flush=True)
                self.failed += 1
            for one in self.ways:
                self.starts[one.name], self.ends[one.name], _ = self.look(client, one.topic)

    def end(self, one, level):
        return self.ends[one.name] if level == "read_uncommitted" or one.stable is None else one.stable

    def reads(self, one, reader):
        first = self.starts[one.name]
        for level in LEVELS:
            end = self.end(one, level)
            for start in sorted({first, max(first, end - 2), max(first, end - 1)}):
                records, reached = reader(self.broker, one.topic, level, start, end)
                assert reached == end, f"{level} from {start}: the end was {reached}, not {end}"
                if start == first:
                    state, known = fold(records), one.state[level]
                    # What was aborted and not cleaned yet is shown to readers of everything.
                    goes = one.name == "an-abort" and level == "read_uncommitted"
                    assert state == known or goes and state == one.state["read_committed"], f"{level}: {state}, not {known}"

    def read(self, phase):
        self.rows([(f"{one.name}: {client}{phase}", lambda one=one, reader=reader: self.reads(one, reader))
                   for one in self.ways for client, reader in CLIENTS.items()])  # fmt: skip

    def java(self):
        """Java's consumer, whose position must come to the end, as Kafka Streams waits for it."""
        libs = kafka_path("3.9.1") / "libs"
        asked = [f"{one.topic}:{level}:{self.starts[one.name]}" for one in self.ways for level in LEVELS]
        command = ["java", "-Xmx256m", "-cp", f"{libs}/*", str(HERE / "Ends.java"), self.broker.bootstrap, *asked]
        done = subprocess.run(command, capture_output=True, timeout=120 + READ_SECONDS * len(asked), check=False, text=True)
        told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if line.startswith("ends-"))

        def check(one):
            for level in LEVELS:
                answer = told.get(f"{one.topic}:{level}:{self.starts[one.name]}", done.stderr[-300:])
                assert answer == str(self.end(one, level)), f"{level}: {answer}, not {self.end(one, level)}"

        self.rows([(f"{one.name}: java", lambda one=one: check(one)) for one in self.ways])

    def goes_on(self):
        """The next record follows the end, and a reader comes there."""

        def check(one):
            producer, told = Producer({"bootstrap.servers": self.broker.bootstrap, "log_level": 2}), []
            producer.produce(one.topic, "next", "next", on_delivery=lambda error, message: told.append((error, message)))
            producer.flush(30)
            error, message = told[0]
            assert error is None and message.offset() == self.ends[one.name], (error, message and message.offset())
            _, reached = read_librdkafka(self.broker, one.topic, "read_uncommitted", self.starts[one.name], None)
            assert reached == self.ends[one.name] + 1, reached

        self.rows([(f"{one.name}: the next record", lambda one=one: check(one)) for one in self.ways])


@contextlib.contextmanager
def binary(path):
    """Another klamm for the time being."""
    before = os.environ.get("KLAMM_BINARY")
    os.environ["KLAMM_BINARY"] = path or before or ""
    try:
        yield
    finally:
        os.environ["KLAMM_BINARY"] = before or ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="ways whose name holds this")
    parser.add_argument("--quick", action="store_true", help="some of the ways, and no Java")
    parser.add_argument("--before", help="the klamm that writes the topics")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        with binary(args.before):
            broker = stack.enter_context(chosen(SETTINGS))
        print(f"against {broker.title}", flush=True)
        ways = [one for one in WAYS if args.only in one.name and (one.quick or not args.quick)]
        if not announced(broker.port, DELETE_RECORDS):
            ways = [one for one in ways if one.name != "deleted-records"]
        suite = Suite(broker, ways)
        suite.write()
        suite.rest(4, 60)
        restarts = broker.name != "elsewhere"
        if not args.before:
            suite.read("")
            if not args.quick:
                suite.java()
        if restarts:
            broker.kill()
            broker.wait_for_session()
            broker.start()
            suite.wait_for_leaders(60)
            suite.read(" after a kill" if not args.before else " on the data of another version")
        suite.goes_on()
    print(f"{suite.passed} passed, {suite.failed} failed")
    return 1 if suite.failed or not suite.passed else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A producer that is never destroyed may have threads of its own.
    os._exit(status)
