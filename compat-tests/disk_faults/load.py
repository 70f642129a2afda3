"""What is written and how it is read back: values that prove themselves, and who remembers what was acknowledged.

A value is `<writer>:<number>:<filler><crc>`: eight hexadecimal digits of the CRC-32 of what comes before. The filler
follows from writer and number. So a value that is read is one that was sent, or it is wrong.
"""

import logging
import random
import threading
import time
import zlib

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from kit import wire

# Small batches on many partitions, large ones on few, and keys that are rewritten.
SMALL, LARGE, KEYED = "small", "large", "keyed"
PARTITIONS = {SMALL: 24, LARGE: 6, KEYED: 4}
TRANSACTIONS = "transactions"
TRANSACTION_PARTITIONS = 4
# Of values, in bytes.
SIZES = {SMALL: (10, 900), LARGE: (5_000, 60_000), KEYED: (10, 400)}
NOISE = random.Random(1).randbytes(1 << 20)
# A librdkafka says on stderr whatever is fatal to it, and much is here.
QUIET = logging.getLogger("quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def value_of(writer, number, size):
    at = zlib.crc32(f"{writer}:{number}".encode()) % (len(NOISE) - size)
    body = f"{writer}:{number}:".encode() + NOISE[at : at + size]
    return body + b"%08x" % zlib.crc32(body)


def sender(value):
    """Writer and number of a value; None if nobody sent it."""
    body, crc = value[:-8], value[-8:]
    if crc != b"%08x" % zlib.crc32(body):
        return None
    writer, number, _ = body.split(b":", 2)
    return writer.decode(), int(number)


class Writer(threading.Thread):
    """A producer that numbers its values and remembers what was acknowledged where: `acked` is {(topic, partition,
    offset): number}. `outcomes` are (time, error) of what was not, and `times` those of what was."""

    def __init__(self, port, name, topic, idempotent=True, in_flight=300, settings=None):
        super().__init__(daemon=True)
        self.name, self.topic, self.in_flight = name, topic, in_flight
        self.acked, self.sent, self.errors, self.last_ack = {}, 0, {}, 0.0
        self.ending, self.resting = threading.Event(), threading.Event()
        self.producer = Producer({
            "logger": QUIET, "bootstrap.servers": f"127.0.0.1:{port}", "acks": "all", "enable.idempotence": idempotent,
            "linger.ms": 5 if topic == LARGE else 0, "batch.size": 400_000, "message.timeout.ms": 120_000,
            "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "log_level": 0,
            **({} if idempotent else {"retries": 0, "max.in.flight.requests.per.connection": 50}), **(settings or {}),
        })  # fmt: skip

    def delivered(self, number):
        def note(error, message):
            if error is None:
                self.acked[(self.topic, message.partition(), message.offset())] = number
                self.last_ack = time.monotonic()
            else:
                self.errors[error.name()] = self.errors.get(error.name(), 0) + 1

        return note

    def run(self):
        rng, (least, most) = random.Random(self.name), SIZES[self.topic]
        in_flight = self.in_flight if self.topic != LARGE else 40
        while not self.ending.is_set():
            if self.resting.is_set() or len(self.producer) > in_flight:
                self.producer.poll(0.02)
                continue
            number, size = self.sent, rng.randrange(least, most)
            self.sent += 1
            if self.topic == KEYED:
                key, partition = f"{self.name}-{number % 40}", number % 40 % PARTITIONS[KEYED]
            else:
                key, partition = None, rng.randrange(PARTITIONS[self.topic])
            try:
                value = value_of(self.name, number, size)
                self.producer.produce(self.topic, value, key=key, partition=partition, on_delivery=self.delivered(number))
            except (BufferError, KafkaException):
                time.sleep(0.02)
            self.producer.poll(0)

    def stop(self, flush=0.0):
        """Ends it; what is then not acknowledged is given up, after `flush` seconds."""
        self.ending.set()
        self.join(60)
        self.producer.flush(flush)
        self.producer.purge()
        self.producer.flush(5)


class Transactor(threading.Thread):
    """Transactions over several partitions; `ends` is {number: True, False, or None while it is not known}."""

    def __init__(self, port, name):
        super().__init__(daemon=True)
        self.port, self.name = port, name
        self.ends, self.sizes = {}, {}
        self.ending, self.resting = threading.Event(), threading.Event()

    def run(self):
        rng, producer, n = random.Random(self.name), None, 0
        while not self.ending.is_set():
            if self.resting.is_set():
                time.sleep(0.02)
                continue
            n += 1
            self.ends[n], self.sizes[n] = None, [rng.randrange(TRANSACTION_PARTITIONS) for _ in range(rng.randrange(1, 9))]
            try:
                if producer is None:
                    producer = Producer({
                        "logger": QUIET, "bootstrap.servers": f"127.0.0.1:{self.port}", "transactional.id": self.name, "linger.ms": 0,
                        "log_level": 0, "reconnect.backoff.max.ms": 200, "transaction.timeout.ms": 10_000,
                    })  # fmt: skip
                    producer.init_transactions(10)
                producer.begin_transaction()
                for i, partition in enumerate(self.sizes[n]):
                    producer.produce(TRANSACTIONS, value_of(f"{self.name}.{n}", i, 50), partition=partition)
                commit = rng.random() < 0.7
                (producer.commit_transaction if commit else producer.abort_transaction)(10)
                self.ends[n] = commit
            except KafkaException:
                producer = None

    def stop(self):
        self.ending.set()
        self.join(60)


def create_topics(port, configs=None):
    """All of them; `configs` are settings of topics besides."""
    configs = configs or {}
    settings = {
        SMALL: {"retention.ms": "-1", "segment.bytes": str(4 << 20)},
        LARGE: {"retention.ms": "-1", "segment.bytes": str(64 << 20)},
        KEYED: {"cleanup.policy": "compact", "segment.bytes": str(256 << 10), "min.cleanable.dirty.ratio": "0.01"},
    }
    with wire.Client(port, timeout=60) as client:
        for topic, count in PARTITIONS.items():
            assert client.create_topic(topic, count, configs=settings[topic] | configs.get(topic, {})) == 0, topic
        assert client.create_topic(TRANSACTIONS, TRANSACTION_PARTITIONS) == 0


def writers_of(port, name):
    """A load: small idempotent batches, small plain ones, large ones, keys."""
    return [
        Writer(port, f"{name}i", SMALL), Writer(port, f"{name}p", SMALL, idempotent=False),
        Writer(port, f"{name}l", LARGE), Writer(port, f"{name}k", KEYED),
    ]  # fmt: skip


def bounds(port, topic, count, timeout=30.0):
    """{partition: (error, log start, log end)}"""
    with wire.Client(port, timeout=timeout) as client:
        starts = client.list_offsets(topic, list(range(count)), -2)
        ends = client.list_offsets(topic, list(range(count)), -1)
    return {p: (starts[p][0] or ends[p][0], starts[p][1], ends[p][1]) for p in range(count)}


class Log:
    """What a client sees of a partition: `found` is [(offset, value)], `error` why it does not see all of it."""

    def __init__(self, error, start, end):
        self.error, self.start, self.end, self.found, self.bad_crc = error, start, end, [], 0


def read_logs(port, topics, seconds=60.0, level="read_uncommitted", quiet=4.0):
    """{(topic, partition): Log}, read by librdkafka with check.crcs. One that cannot be read has an error code.

    A partition that gives nothing for `quiet` seconds is asked for its error by a Fetch.
    """
    logs = {}
    for topic, count in topics.items():
        for p, (error, start, end) in bounds(port, topic, count).items():
            logs[(topic, p)] = Log(error, start, end)
    consumer = Consumer({
        "logger": QUIET, "bootstrap.servers": f"127.0.0.1:{port}", "group.id": "reader", "isolation.level": level, "check.crcs": True,
        "enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": True, "log_level": 0,
        "fetch.wait.max.ms": 50, "fetch.error.backoff.ms": 50,
    })  # fmt: skip
    reading = {at for at, log in logs.items() if not log.error and log.start < log.end}
    deadline, last = time.monotonic() + seconds, time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, p, logs[(topic, p)].start) for topic, p in reading])
        while reading and time.monotonic() < deadline and time.monotonic() - last < quiet:
            for message in consumer.consume(2000, 0.1):
                at, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    last = time.monotonic()
                    logs[at].found.append((message.offset(), message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    last = time.monotonic()
                    reading.discard(at)
                elif error.code() == KafkaError._BAD_MSG:
                    logs[at].bad_crc += 1
                    logs[at].error = logs[at].error or "bad CRC"
                elif at in logs:
                    logs[at].error = error.name()
                    reading.discard(at)
    finally:
        consumer.close()
    for at in reading:
        log = logs[at]
        begin = log.found[-1][0] + 1 if log.found else log.start
        with wire.Client(port, timeout=30) as client:
            code = client.fetch(at[0], {at[1]: begin}, max_bytes=1 << 20)[at[1]][0]
        log.error = log.error or code or f"stands at {begin} of {log.end}"
    return logs


def wrong_values(logs):
    """Values that a client which checks the CRC took and that nobody sent."""
    return [f"{topic}-{p} at {offset}: {value[:40]}" for (topic, p), log in logs.items()
            for offset, value in log.found if value is not None and sender(value) is None]  # fmt: skip


def acked_of(writers, log_start=0):
    """{(topic, partition, offset): (writer, number)}"""
    return {at: (w.name, number) for w in writers for at, number in list(w.acked.items())}


def lost(acked, logs):
    """What was acknowledged and is not there, of partitions that can be read: the offset has another value, or none.

    Of the compacted topic a key's later value counts too."""
    there, latest = {}, {}
    for (topic, p), log in logs.items():
        for offset, value in log.found:
            who = sender(value) if value is not None else None
            there[(topic, p, offset)] = who
            if topic == KEYED and who:
                key = (who[0], who[1] % 40)
                latest[key] = max(latest.get(key, -1), who[1])
    missing = []
    for at, who in acked.items():
        topic, p, offset = at
        log = logs.get((topic, p))
        if log is None or log.error or offset < log.start or there.get(at) == who:
            continue
        if topic == KEYED and at not in there and latest.get((who[0], who[1] % 40), -1) >= who[1]:
            continue
        missing.append((at, who, there.get(at)))
    return missing


def holes(logs):
    """Partitions, the compacted one apart, whose offsets are not those from start to end."""
    broken = []
    for (topic, p), log in logs.items():
        offsets = [offset for offset, _ in log.found]
        if topic in (SMALL, LARGE) and not log.error and offsets != list(range(log.start, log.end)):
            gap = next((i + log.start for i, offset in enumerate(offsets) if offset != i + log.start), len(offsets) + log.start)
            broken.append(f"{topic}-{p}: {len(offsets)} records between {log.start} and {log.end}, first gap at {gap}")
    return broken


def twice(logs, plain="p"):
    """Values of idempotent writers that are there more than once."""
    seen, found = {}, []
    for (topic, p), log in logs.items():
        for offset, value in log.found:
            who = sender(value) if value is not None else None
            if who is None or who[0].endswith(plain):
                continue
            if who in seen:
                found.append(f"{who} at {topic}-{p}:{offset} and {seen[who]}")
            seen[who] = f"{topic}-{p}:{offset}"
    return found
