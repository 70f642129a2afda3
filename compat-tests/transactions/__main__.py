"""Transactions as a stock librdkafka client sees them, row by row, on klamm or (KLAMM_AGAINST=3.9.1) on Apache Kafka.

    compat-tests/run transactions [--only WORD] [--zookeeper]

With --zookeeper klamm keeps the cluster's state in a ZooKeeper of its own. Rows named "killed" restart the broker with SIGKILL, so they are left out for one that runs already.
Needs the Python package confluent-kafka; `make transactions` sets that up.
"""

import argparse
import contextlib
import os
import random
import sys
import threading
import time
import traceback

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from kit import zookeeper
from kit.broker import chosen
from kit.stock import read_to_end
from kit.wire import Client

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "auto.create.topics.enable": "false",
}
ROWS, KEPT = [], []


def row(function):
    ROWS.append(function)
    return function


class Check:
    """A broker, and topics of a row's own."""

    def __init__(self, broker, name):
        self.broker, self.name = broker, name

    def topic(self, suffix="", partitions=2):
        name = f"{self.name}{suffix}"
        with Client(self.broker.port) as client:
            error = client.create_topic(name, partitions)
            assert error in (0, 36), error
            deadline = time.monotonic() + 20
            while any(e for e, _ in client.metadata([name])[1][name][1].values()) and time.monotonic() < deadline:
                time.sleep(0.05)
        return name

    def producer(self, id=None, **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        base = {"bootstrap.servers": self.broker.bootstrap, "linger.ms": 0, "log_level": 2,
                "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50}  # fmt: skip
        if id is not None:
            base["transactional.id"] = id
        producer = Producer(base | settings)
        # Never destroyed: one that lost its broker may hang in that.
        KEPT.append(producer)
        if id is not None:
            producer.init_transactions(60)
        return producer

    def read(self, topic, level="read_committed", partitions=2, seconds=10.0):
        """Values of a topic, each partition's in order, up to its end as this level sees it."""
        return read_to_end(self.broker.bootstrap, f"{self.name}-reader", topic, partitions, level, seconds)

    def flat(self, topic, **how):
        return sorted(value for values in self.read(topic, **how).values() for value in values)

    def committed(self, group, topic, partition=0, level="read_committed"):
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": group, "isolation.level": level,
                             "log_level": 2})  # fmt: skip
        try:
            return consumer.committed([TopicPartition(topic, partition)], timeout=10)[0].offset
        finally:
            consumer.close()


def write(producer, topic, values, partition=None):
    for n, value in enumerate(values):
        producer.produce(topic, value, partition=n % 2 if partition is None else partition)
    producer.flush(20)


def code(call):
    """The name of the error a call fails with, or None."""
    try:
        call()
    except KafkaException as error:
        return error.args[0].name()
    return None


@row
def commit_and_abort(check):
    """Committed records show, aborted ones do not, and readers of everything see both."""
    topic = check.topic()
    producer = check.producer("commit-and-abort")
    for name, count, end in [("a", 10, producer.commit_transaction), ("b", 5, producer.abort_transaction),
                             ("c", 3, producer.commit_transaction)]:  # fmt: skip
        producer.begin_transaction()
        write(producer, topic, [f"{name}{n}" for n in range(count)])
        end(20)
    committed = [f"a{n}" for n in range(10)] + [f"c{n}" for n in range(3)]
    assert check.flat(topic) == sorted(committed)
    assert check.flat(topic, level="read_uncommitted") == sorted(committed + [f"b{n}" for n in range(5)])
    # Each of the three left a marker in both partitions.
    with Client(check.broker.port) as client:
        ends = client.list_offsets(topic, [0, 1], -1)
    assert sum(offset for _, offset in ends.values()) == 18 + 6, ends


@row
def open_transaction_holds_readers(check):
    """Records behind an open transaction wait for it; then all come in order."""
    topic = check.topic(partitions=1)
    first, plain = check.producer("holds-readers"), check.producer()
    write(plain, topic, ["before"], 0)
    first.begin_transaction()
    write(first, topic, ["inside"], 0)
    write(plain, topic, ["behind"], 0)
    assert check.flat(topic, partitions=1) == ["before"]
    assert len(check.flat(topic, partitions=1, level="read_uncommitted")) == 3
    first.commit_transaction(20)
    assert check.read(topic, partitions=1)[0] == ["before", "inside", "behind"]


@row
def waiting_reader_wakes(check):
    """A reader that waits at the end gets the records when they are committed, not by its time-out."""
    topic = check.topic(partitions=1)
    producer = check.producer("wakes")
    consumer = Consumer({"bootstrap.servers": check.broker.bootstrap, "group.id": "wakes", "fetch.wait.max.ms": 8000,
                         "isolation.level": "read_committed", "log_level": 2})  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert consumer.poll(1) is None
    producer.begin_transaction()
    write(producer, topic, ["x"], 0)
    assert consumer.poll(1) is None
    producer.commit_transaction(20)
    began = time.monotonic()
    message = consumer.poll(8)
    waited = time.monotonic() - began
    consumer.close()
    assert message is not None and message.value() == b"x" and waited < 3, (message, waited)


@row
def newer_instance_fences(check):
    """A second producer of the same id aborts what the first has open and ends the first."""
    topic = check.topic()
    first = check.producer("fenced")
    first.begin_transaction()
    write(first, topic, ["lost"], 0)
    second = check.producer("fenced")
    second.begin_transaction()
    write(second, topic, ["kept"], 0)
    second.commit_transaction(20)
    assert code(lambda: first.commit_transaction(20)) == "_FENCED"
    assert check.flat(topic) == ["kept"]


@row
def time_out_aborts(check):
    """The coordinator aborts a transaction that is too old; its producer may not commit it."""
    topic = check.topic()
    producer = check.producer("timed-out", transaction_timeout_ms=1500)
    producer.begin_transaction()
    write(producer, topic, ["late"], 0)
    time.sleep(4)
    write(check.producer(), topic, ["plain"], 0)
    assert check.flat(topic) == ["plain"]
    assert code(lambda: producer.commit_transaction(20)) in ("_FENCED", "_STATE", "INVALID_PRODUCER_EPOCH", "_PURGE_QUEUE")


@row
def offsets_belong_to_the_transaction(check):
    """Offsets sent to a transaction count when it commits, and are gone when it aborts."""
    topic = check.topic()
    producer = check.producer("offsets")
    group = Consumer({"bootstrap.servers": check.broker.bootstrap, "group.id": "offsets-group", "log_level": 2})
    metadata = group.consumer_group_metadata()

    def send(offset):
        producer.begin_transaction()
        write(producer, topic, [f"out{offset}"], 0)
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, offset)], metadata, 20)

    send(5)
    assert check.committed("offsets-group", topic, level="read_uncommitted") == -1001
    # A reader of committed ones is told to wait (UNSTABLE_OFFSET_COMMIT) until its patience ends.
    assert code(lambda: check.committed("offsets-group", topic)) is not None
    producer.commit_transaction(20)
    assert check.committed("offsets-group", topic) == 5
    send(9)
    producer.abort_transaction(20)
    assert check.committed("offsets-group", topic) == 5
    group.close()
    assert check.flat(topic) == ["out5"]


@row
def many_producers_interleave(check):
    """Transactions of several producers in the same partitions, ended at random: what is committed shows, once."""
    topic = check.topic()
    expected, lock = [], threading.Lock()

    def work(name):
        rng, producer = random.Random(name), check.producer(f"interleave-{name}")
        for n in range(25):
            values = [f"{name}-{n}-{i}" for i in range(rng.randrange(1, 6))]
            producer.begin_transaction()
            write(producer, topic, values)
            if rng.random() < 0.6:
                producer.commit_transaction(20)
                with lock:
                    expected.extend(values)
            else:
                producer.abort_transaction(20)

    workers = [threading.Thread(target=work, args=(name,)) for name in "pqrst"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert check.flat(topic) == sorted(expected)


def relay(check, source, target, name, count, stop_after=None):
    """Copies `count` records of a group from `source` to `target`, a transaction for each few; answers how many. After
    `stop_after` of them it leaves with its transaction open, as one that was killed would."""
    consumer = Consumer({"bootstrap.servers": check.broker.bootstrap, "group.id": f"{check.name}-relay", "log_level": 2,
                         "isolation.level": "read_committed", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "session.timeout.ms": 6000})  # fmt: skip
    producer = check.producer(name)
    consumer.subscribe([source])
    copied, empty, deadline = 0, 0, time.monotonic() + 40
    while copied < count and time.monotonic() < deadline:
        messages = [m for m in consumer.consume(7, 0.5) if m.error() is None]
        empty = 0 if messages else empty + 1
        if not messages:
            # A busy machine may need more than one look.
            if copied and empty > 4:
                break
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, message.value(), partition=message.partition())
        ends = {m.partition(): m.offset() + 1 for m in messages}
        offsets = [TopicPartition(source, p, offset) for p, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
        copied += len(messages)
        if stop_after is not None and copied >= stop_after:
            producer.flush(10)
            consumer.close()
            return copied
        producer.commit_transaction(20)
    consumer.close()
    return copied


@row
def exactly_once_relay(check):
    """Consume, transform, produce: instances leave in the middle of a transaction, and every record arrives once."""
    source, target = check.topic("-in"), check.topic("-out")
    values = [f"v{n:03}" for n in range(200)]
    write(check.producer(), source, values)
    for stop_after in (20, 33, 50):
        relay(check, source, target, "relay", 200, stop_after)
    relay(check, source, target, "relay", 200)
    found = check.flat(target)
    assert found == values, f"missing {sorted(set(values) - set(found))[:9]}, {len(found)} records, {len(set(found))} values"


@row
def killed_in_a_transaction(check):
    """The broker dies between the records and the commit: the transaction goes on after the restart."""
    topic = check.topic()
    producer = check.producer("killed-inside", transaction_timeout_ms=60000)
    producer.begin_transaction()
    write(producer, topic, ["one", "two"])
    check.broker.kill()
    check.broker.wait_for_session()
    check.broker.start()
    write(producer, topic, ["three"], 0)
    producer.commit_transaction(30)
    assert check.flat(topic) == ["one", "three", "two"]


@row
def killed_after_the_commit(check):
    """The broker dies right after commits were acknowledged: markers and offsets follow at the next start."""
    topic = check.topic()
    metadata = Consumer({"bootstrap.servers": check.broker.bootstrap, "group.id": "killed-group", "log_level": 2})
    for n in range(6):
        # librdkafka 2.15.1 may never send offsets again after it lost its only broker, so each life has a producer.
        producer = producer if n % 2 else check.producer("killed-after")
        producer.begin_transaction()
        write(producer, topic, [f"{n}-{i}" for i in range(4)])
        offsets = [TopicPartition(topic, 0, 100 + n)]
        producer.send_offsets_to_transaction(offsets, metadata.consumer_group_metadata(), 20)
        if n % 3 == 1:
            producer.abort_transaction(20)
        else:
            producer.commit_transaction(20)
        if n % 2:
            check.broker.kill()
            check.broker.wait_for_session()
            check.broker.start()
    assert check.flat(topic) == sorted(f"{n}-{i}" for n in (0, 2, 3, 5) for i in range(4))
    assert check.committed("killed-group", topic) == 105
    metadata.close()


@contextlib.contextmanager
def zookeeper_of(args):
    """The settings that a ZooKeeper adds, which is started for it."""
    if not args.zookeeper:
        yield {}
        return
    server = zookeeper.Server(None)
    try:
        yield {"zookeeper.connect": f"127.0.0.1:{server.port}"}
    finally:
        server.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--zookeeper", action="store_true", help="klamm on a ZooKeeper")
    args = parser.parse_args()
    failed = passed = 0
    with zookeeper_of(args) as elsewhere, chosen(SETTINGS | elsewhere) as broker:
        print(f"against {broker.title}{', on ZooKeeper' if elsewhere else ''}", flush=True)
        for function in ROWS:
            name = function.__name__.replace("_", "-")
            if args.only not in name or (name.startswith("killed") and os.environ.get("KLAMM_BOOTSTRAP")):
                continue
            began = time.monotonic()
            try:
                function(Check(broker, name))
                print(f"PASS {name} ({time.monotonic() - began:.1f} s)", flush=True)
                passed += 1
            except Exception:
                print(f"FAIL {name}: {traceback.format_exc(limit=-2)}", flush=True)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
