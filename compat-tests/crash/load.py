"""The load of the crash rounds, and the rules C1 to C7 that hold for it (`__main__.py` has them in words)."""

import random
import sys
import threading
import time

# A checker thread must not wait for eight writers at Python's default of 5 ms each.
sys.setswitchinterval(0.001)

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from kit.stock import read_to_end
from kit.wire import Client, batches, values

PARTITIONS = 4
TOPIC, COMPACTED, TRANSACTIONS = "crash", "crash-compacted", "crash-transactions"
# Records of each partition that a round reads again.
OVERLAP = 10_000


class Writer(threading.Thread):
    """A producer that numbers its messages and remembers what was acknowledged where."""

    def __init__(self, port, name, idempotent, topic=TOPIC, keys=0):
        super().__init__(daemon=True)
        self.name, self.idempotent, self.topic, self.keys = name, idempotent, topic, keys
        self.acked, self.sent, self.failed = {}, 0, 0
        self.ending, self.resting = threading.Event(), threading.Event()
        settings = {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "acks": "all",
            "linger.ms": 0,
            "enable.idempotence": idempotent,
            "message.timeout.ms": 120000,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 50,
            "log_level": 2,
        }
        if not idempotent:
            settings |= {"max.in.flight.requests.per.connection": 400, "batch.num.messages": 1, "retries": 0}
        self.producer = Producer(settings)

    def delivered(self, error, message):
        if error is None:
            self.acked[(message.partition(), message.offset())] = message.value()
        else:
            self.failed += 1

    def in_flight(self):
        return len(self.producer)

    def run(self):
        rng = random.Random(self.name)
        while not self.ending.is_set():
            if self.resting.is_set() or len(self.producer) > 500:
                # Enough is on its way; the rest of the time belongs to the broker and the checks.
                self.producer.poll(0.2)
                continue
            value = f"{self.name}:{self.sent}:".encode() + b"x" * rng.randrange(10, 900)
            key = f"{self.name}-{self.sent % self.keys}" if self.keys else None
            try:
                self.producer.produce(self.topic, value, key=key, partition=rng.randrange(PARTITIONS) if not key else -1,
                                      on_delivery=self.delivered)
                self.sent += 1
            except BufferError:
                self.producer.poll(0.05)
            self.producer.poll(0)
        self.producer.flush(90)


class Transactor(threading.Thread):
    """A transactional producer that remembers how each of its transactions ended: True, False or None for unknown."""

    def __init__(self, port, name):
        super().__init__(daemon=True)
        self.port, self.name = port, name
        self.ends, self.sizes = {}, {}
        self.ending, self.resting, self.idle = threading.Event(), threading.Event(), threading.Event()

    def connect(self):
        producer = Producer({
            "bootstrap.servers": f"127.0.0.1:{self.port}", "transactional.id": self.name, "linger.ms": 0, "log_level": 0,
            "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "transaction.timeout.ms": 60000,
        })  # fmt: skip
        producer.init_transactions(60)
        return producer

    def end(self, producer, commit):
        """Commits or aborts, repeats what may be repeated; whether it was committed."""
        while True:
            try:
                (producer.commit_transaction if commit else producer.abort_transaction)(30)
                return commit
            except KafkaException as error:
                if error.args[0].txn_requires_abort():
                    commit = False
                elif not error.args[0].retriable():
                    raise

    def run(self):
        rng, producer, n = random.Random(self.name), None, 0
        while not self.ending.is_set():
            if self.resting.is_set():
                self.idle.set()
                time.sleep(0.02)
                continue
            self.idle.clear()
            n += 1
            self.ends[n], self.sizes[n] = None, rng.randrange(1, 8)
            try:
                producer = producer or self.connect()
                producer.begin_transaction()
                for i in range(self.sizes[n]):
                    producer.produce(TRANSACTIONS, f"{self.name}:{n}:{i}", partition=rng.randrange(PARTITIONS))
                self.ends[n] = self.end(producer, rng.random() < 0.7)
            except KafkaException:
                # Fatal: a new instance aborts what this one has left open.
                producer = None
        self.idle.set()


class Reader(threading.Thread):
    """A member of a group that commits what it has read, synchronously, and remembers that."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.read, self.committed = 0, {}
        self.consumer = Consumer({
            "bootstrap.servers": f"127.0.0.1:{port}", "group.id": "crash", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 6000, "reconnect.backoff.max.ms": 200, "log_level": 2,
        })
        self.consumer.subscribe([TOPIC])

    def run(self):
        while not self.ending.is_set():
            messages = self.consumer.consume(200, 0.2)
            good = [m for m in messages if m.error() is None]
            self.read += len(good)
            if good:
                try:
                    for at in self.consumer.commit(asynchronous=False) or []:
                        if at.error is None and at.offset >= 0:
                            self.committed[at.partition] = max(at.offset, self.committed.get(at.partition, 0))
                except Exception:  # the broker is down: nothing was acknowledged
                    pass
        self.consumer.close()


class Churn(threading.Thread):
    """Creates topics all the time, so that a kill meets creations."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ending = port, threading.Event()

    def run(self):
        n = 0
        while not self.ending.is_set():
            try:
                with Client(self.port, timeout=5) as client:
                    while not self.ending.is_set():
                        client.create_topic(f"churn-{n}", 3, timeout_ms=3000)
                        n += 1
                        time.sleep(0.05)
            except (OSError, AssertionError):
                time.sleep(0.05)


def read_partition(client, topic, partition, begin=0):
    """Log start (or `begin`, if that is later), log end, and [(offset, value)] of everything between."""
    start = client.list_offsets(topic, [partition], -2)[partition]
    end = client.list_offsets(topic, [partition], -1)[partition]
    if start[0] or end[0]:
        raise RuntimeError(f"{topic}-{partition}: errors {start[0]}, {end[0]}")
    start = (0, max(start[1], begin))
    found, at = [], start[1]
    while at < end[1]:
        error, _, records = client.fetch(topic, {partition: at}, max_bytes=8 << 20)[partition]
        if error:
            raise RuntimeError(f"{topic}-{partition} at {at}: error {error}")
        for _base, last, one in batches(records):
            found += [(offset, value) for offset, value in values(one) if at <= offset < end[1]]
            at = last + 1
    return start[1], end[1], found


def check_transactions(port, transactors):
    """C7. Nothing is open meanwhile: the transactors rest."""
    ends = {t.name: dict(t.ends) for t in transactors}
    breaches, found = [], {}
    try:
        logs = read_to_end(f"127.0.0.1:{port}", "crash-transactions", TRANSACTIONS, PARTITIONS)
    except AssertionError as late:
        return [f"C7 {late}"]
    for value in (value for values in logs.values() for value in values):
        name, n, _ = value.split(":")
        found.setdefault((name, int(n)), []).append(value)
    for transactor in transactors:
        for n, committed in ends[transactor.name].items():
            values = found.get((transactor.name, n), [])
            whole = len(values) == len(set(values)) == transactor.sizes[n]
            if not {True: whole, False: not values, None: whole or not values}[committed]:
                breaches.append(f"C7 {transactor.name} {n}: committed {committed}, {len(values)} of {transactor.sizes[n]} read")
    return breaches


def check(port, writers, reader, before, seen, full):
    """Applies the rules; answers their breaches and the number of records read.

    `seen` carries from round to round how far the logs were read: a round reads what is new and, of what it has seen,
    the end again, where a crash would tear; `full` reads everything.
    """
    breaches, total = [], 0
    # Taken before the log is read: writers go on meanwhile, and what is acknowledged later may lie beyond the end read.
    acked = {writer.name: dict(writer.acked) for writer in writers}
    with Client(port, timeout=60) as client:
        begin = {} if full else seen.get("ends", {})
        logs = {p: read_partition(client, TOPIC, p, max(0, begin.get(p, 0) - OVERLAP)) for p in range(PARTITIONS)}
        compacted = {p: read_partition(client, COMPACTED, p) for p in range(PARTITIONS)}
    once = {}
    for p, (start, end, found) in logs.items():
        total += len(found)
        offsets = [offset for offset, _ in found]
        if offsets != list(range(start, end)):
            breaches.append(f"C2 partition {p}: {len(offsets)} records between {start} and {end}")
        by_offset = dict(found)
        for writer in writers:
            if writer.topic != TOPIC:
                continue
            for (partition, offset), value in acked[writer.name].items():
                if partition == p and offset >= start and by_offset.get(offset) != value:
                    breaches.append(f"C1 {writer.name}: acknowledged {value[:24]} at {p}:{offset}, "
                                    f"there is {str(by_offset.get(offset))[:30]}")
        for offset, value in found:
            name = value.split(b":", 1)[0]
            if name.startswith(b"idempotent"):
                if value in once:
                    breaches.append(f"C3 {value[:24]} at {p}:{offset} and {once[value]}")
                once[value] = (p, offset)
    seen["ends"] = {p: end for p, (_, end, _) in logs.items()}
    latest = {}
    for p, (_, _, found) in compacted.items():
        for offset, value in found:
            if value is not None:
                name, number, _ = value.split(b":", 2)
                latest[(name, int(number) % 50)] = max(latest.get((name, int(number) % 50), -1), int(number))
    for writer in writers:
        if writer.topic == COMPACTED:
            wanted = {}
            for value in acked[writer.name].values():
                number = int(value.split(b":", 2)[1])
                wanted[number % 50] = max(wanted.get(number % 50, -1), number)
            for key, number in wanted.items():
                if latest.get((writer.name.encode(), key), -1) < number:
                    breaches.append(f"C6 {writer.name} key {key}: acknowledged {number}, "
                                    f"read {latest.get((writer.name.encode(), key))}")
    committed = committed_offsets(port)
    for p, offset in before.items():
        if committed.get(p, -1) < offset:
            breaches.append(f"C4 partition {p}: committed {offset}, after the restart {committed.get(p)}")
    if reader.read <= seen.get("read", -1):
        breaches.append(f"C5 the group stands at {reader.read} records")
    seen["read"] = reader.read
    return breaches, total


def committed_offsets(port):
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "crash", "log_level": 2})
    try:
        at = consumer.committed([TopicPartition(TOPIC, p) for p in range(PARTITIONS)], timeout=30)
        return {one.partition: one.offset for one in at}
    finally:
        consumer.close()
