"""Clients of a cluster that write down all they do: the events of `history/model.py`."""

import contextlib
import functools
import random
import sys
import threading
import time
import traceback
import zlib

# Acknowledgements are timed in threads; they must not wait for each other at Python's default of 5 ms.
sys.setswitchinterval(0.001)

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from history.model import value_of

PATIENT = {
    "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500, "topic.metadata.refresh.interval.ms": 2000,
    "socket.connection.setup.timeout.ms": 2000, "log_level": 0, "topic.metadata.refresh.fast.interval.ms": 100,
}  # fmt: skip
# A request on a cut connection is given up after this, and sent elsewhere.
REQUEST_MS = 5000
PENDING_MAX = 250
COMMIT = "commit: "


def encode(value, size, padding=None):
    """A record's bytes: the history's value, the CRC of all the rest, padding."""
    padding = "x" * max(0, size - len(value) - 10) if padding is None else padding
    return f"{value}|{zlib.crc32((value + padding).encode()):08x}|{padding}".encode()


def decode(data):
    """The history's value, or what is there behind a `!`."""
    try:
        value, crc, padding = data.decode().split("|", 2)
        if int(crc, 16) == zlib.crc32((value + padding).encode()):
            return value
    except (ValueError, AttributeError):
        pass
    return f"!{data!r}"


class Recorder:
    """Events of all threads, in one list: appending to it is atomic."""

    def __init__(self):
        self.events = []
        # Errors that reached clients, by name.
        self.errors = {}

    def __call__(self, kind, **fields):
        self.events.append({"e": kind, **fields})

    def error(self, error, doing=""):
        """`doing`: what a caller has to do again by itself, as a commit in librdkafka."""
        name = doing + (error.name() if isinstance(error, KafkaError) else str(error))
        self.errors[name] = self.errors.get(name, 0) + 1


class Task(threading.Thread):
    """A thread that ends when told, and keeps what killed it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ending, self.fault = threading.Event(), None

    def run(self):
        try:
            self.work()
        except Exception as problem:  # noqa: BLE001, told by `end`
            self.fault = problem

    def where(self):
        """The lines of code that it is in."""
        frame = sys._current_frames().get(self.ident)
        return "".join(traceback.format_stack(frame)) if frame else "nowhere"

    def end(self, seconds=100):
        self.ending.set()
        self.join(seconds)
        if self.is_alive():
            raise AssertionError(f"{self.name} does not end; it is here:\n{self.where()}")
        if self.fault:
            raise self.fault


class Writer(Task):
    """A producer at a steady rate over all partitions. One that has no leader does not hold up the others."""

    def __init__(self, record, bootstrap, topic, partitions, name, rate, acks="all", idempotent=True, size=200, **more):
        super().__init__()
        self.record, self.topic, self.partitions, self.rate, self.size = record, topic, partitions, rate, size
        self.name, self.session, self.number = name, 0, 0
        self.settings = {
            **PATIENT, "bootstrap.servers": bootstrap, "acks": acks, "enable.idempotence": idempotent, "linger.ms": 2,
            "message.timeout.ms": 120_000, "request.timeout.ms": REQUEST_MS, "socket.timeout.ms": 2 * REQUEST_MS,
            "retry.backoff.ms": 50, "retry.backoff.max.ms": 500, "error_cb": self.failed, **more,
        }  # fmt: skip
        self.resting, self.fatal = threading.Event(), False
        record("producer", p=name, idempotent=idempotent, acks=-1 if acks == "all" else int(acks))

    def failed(self, error):
        if error.fatal():
            self.fatal = True
            self.record.error(error)

    def delivered(self, session, number, part, begun, error, message):
        done = time.monotonic()
        self.pending.pop((session, number))
        self.waiting[part] -= 1
        result, offset = "ok", -1
        if error is None:
            # None where the broker knew the batch already and not where it lies.
            offset = -1 if message.offset() is None else message.offset()
        else:
            # Whether an earlier try was stored is not known here, so no error counts as a sure refusal.
            result = "unknown"
            self.record.error(error)
        self.record("send", p=self.name, s=session, n=number, part=part, t0=begun, t1=done, res=result, off=offset)

    def work(self):
        self.pending, self.waiting = {}, [0] * self.partitions
        producer, due = Producer(self.settings), time.monotonic()
        while not self.ending.is_set():
            if self.fatal:
                # Both tell of the fatal error once more.
                for last in (producer.purge, lambda ended=producer: ended.flush(10)):
                    with contextlib.suppress(KafkaException):
                        last()
                producer, self.fatal, self.session, self.number = Producer(self.settings), False, self.session + 1, 0
            now = time.monotonic()
            if due < now - 1 or self.resting.is_set():
                due = now
            while due <= now and not self.resting.is_set():
                due += 1 / self.rate
                self.send(producer)
            self.serve(lambda wait=max(0.0, min(0.005, due - now)), now=producer: now.poll(wait))
        self.serve(lambda: producer.flush(100))
        for (session, number), (part, begun) in list(self.pending.items()):
            self.record(
                "send", p=self.name, s=session, n=number, part=part, t0=begun, t1=time.monotonic(), res="unknown", off=-1
            )

    def serve(self, call):
        """Lets the client call back; a fatal error is raised there as well as told."""
        try:
            call()
        except KafkaException as error:
            if not error.args[0].fatal():
                raise
            self.fatal = True

    def send(self, producer):
        part = self.number % self.partitions
        number, session = self.number, self.session
        self.number += 1
        if self.waiting[part] >= PENDING_MAX:
            return
        begun = time.monotonic()
        call = functools.partial(self.delivered, session, number, part, begun)
        try:
            producer.produce(
                self.topic, encode(value_of(self.name, session, number, part), self.size), partition=part, on_delivery=call
            )
        except (BufferError, KafkaException) as error:
            self.record.error(error.args[0] if isinstance(error, KafkaException) else "_QUEUE_FULL")
            return
        self.pending[session, number] = (part, begun)
        self.waiting[part] += 1


def consumer_settings(bootstrap, group, level):
    return {
        **PATIENT, "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False,
        "isolation.level": "read_committed" if level == "rc" else "read_uncommitted", "auto.offset.reset": "error",
        "check.crcs": True, "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000, "fetch.wait.max.ms": 200,
        "socket.timeout.ms": 2 * REQUEST_MS,
    }  # fmt: skip


class Reader(Task):
    """A consumer of all partitions from the beginning, without a group."""

    def __init__(self, record, bootstrap, topic, partitions, name, level):
        super().__init__()
        self.record, self.topic, self.name, self.level = record, topic, name, level
        self.at, self.told_to_reset = [0] * partitions, set()
        self.settings = consumer_settings(bootstrap, f"{topic}-{name}", level)

    def work(self):
        consumer = Consumer(self.settings)
        consumer.assign([TopicPartition(self.topic, p, 0) for p in range(len(self.at))])
        while not self.ending.is_set():
            self.take(consumer.consume(500, 0.1))
            while self.told_to_reset:
                # Written down already; so that a run which allows it comes to its end. (No seek in that state.)
                part = self.told_to_reset.pop()
                self.at[part] = 0
                self.record("moved", c=self.name, parts=[part])
                consumer.assign([TopicPartition(self.topic, p, at) for p, at in enumerate(self.at)])
        consumer.close()

    def take(self, messages, group=None):
        recs, now = [], time.monotonic()
        for message in messages:
            error = message.error()
            if error is None:
                recs.append([message.partition(), message.offset(), decode(message.value())])
                self.at[message.partition()] = message.offset() + 1
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):
                self.record("reset", c=self.name, part=message.partition(), why=error.str())
                self.told_to_reset.add(message.partition())
            else:
                self.record.error(error)
        if recs:
            self.record("poll", c=self.name, iso=self.level, g=group, t=now, recs=recs)
        return recs


class Member(Reader):
    """A member of a group, which commits what it has read, synchronously."""

    def __init__(self, record, bootstrap, topic, partitions, name, group, level="rc", **more):
        super().__init__(record, bootstrap, topic, partitions, name, level)
        self.group, self.uncommitted, self.rebalances = group, {}, 0
        # What it was told of last, given or taken.
        self.owned = []
        self.dying = threading.Event()
        self.settings = {**consumer_settings(bootstrap, group, level), "auto.offset.reset": "earliest", **more}
        # The longest of all members is how long a rebalance waits for one that is silent.
        self.settings["max.poll.interval.ms"] = 10_000

    def work(self):
        consumer = self.consumer = Consumer(self.settings)

        def moved(_consumer, partitions):
            self.rebalances += 1
            self.owned = sorted(one.partition for one in partitions)
            self.uncommitted.clear()
            self.record("moved", c=self.name, parts=[one.partition for one in partitions])

        def revoked(consumer, partitions):
            self.commit(consumer)
            moved(consumer, partitions)

        consumer.subscribe([self.topic], on_assign=moved, on_revoke=revoked, on_lost=moved)
        committed = time.monotonic()
        while not self.ending.is_set():
            for part, offset, _value in self.take(consumer.consume(200, 0.1), self.group):
                self.uncommitted[part] = offset + 1
            if time.monotonic() - committed > 0.5:
                self.commit(consumer)
                committed = time.monotonic()
            if self.dying.is_set():
                # Neither leaves nor polls, until the coordinator throws it out.
                self.ending.wait()
                self.uncommitted.clear()
        self.commit(consumer)
        self.leave(consumer)

    def leave(self, consumer):
        """Leaves the group. A close that meets a new assignment waits in the callback for ever (librdkafka 2.16.1), with
        Python's lock, so nobody gets one any more by then."""
        consumer.unsubscribe()
        until = time.monotonic() + 10
        while consumer.assignment() and time.monotonic() < until:
            consumer.poll(0.1)
        consumer.poll(0.1)
        consumer.close()

    def state(self):
        """Where it is, for whoever looks into why its group does not get on."""
        ending = "ending" if self.ending.is_set() else "dying" if self.dying.is_set() else "working"
        alive = self.where() if self.is_alive() else f"ended with {self.fault!r}"
        return f"{self.name}: {ending}, {self.rebalances} rebalances, owns {self.owned}, {alive}"

    def commit(self, consumer):
        if not self.uncommitted:
            return
        wanted, begun, result = dict(self.uncommitted), time.monotonic(), {}
        self.uncommitted.clear()
        try:
            offsets = [TopicPartition(self.topic, part, offset) for part, offset in wanted.items()]
            for one in consumer.commit(offsets=offsets, asynchronous=False):
                result[one.partition] = "ok" if one.error is None else "unknown"
        except KafkaException as error:
            self.record.error(error.args[0], COMMIT)
        for part in wanted.keys() - {part for part, answer in result.items() if answer == "ok"}:
            # Once more, unless there is a later one by then, or the partition has gone elsewhere.
            self.uncommitted[part] = wanted[part]
        for part, offset in wanted.items():
            self.record(
                "commit", g=self.group, part=part, off=offset, t0=begun, t1=time.monotonic(), res=result.get(part, "unknown")
            )


class Watcher(Task):
    """Asks for the ends of partitions, and for the committed offsets of a group if there is one."""

    def __init__(self, record, bootstrap, topic, partitions, group=None):
        super().__init__()
        self.name = "watcher"
        self.record, self.topic, self.partitions, self.group = record, topic, partitions, group
        self.settings = consumer_settings(bootstrap, group or f"{topic}-watcher", "rc")

    def work(self):
        consumer = Consumer(self.settings)
        while not self.ending.wait(0.3):
            part = random.randrange(self.partitions)
            with_error = TopicPartition(self.topic, part)
            begun = time.monotonic()
            try:
                _, end = consumer.get_watermark_offsets(with_error, timeout=3, cached=False)
                self.record("end", part=part, off=end, t0=begun, t1=time.monotonic())
                if self.group:
                    begun = time.monotonic()
                    for one in consumer.committed(
                        [TopicPartition(self.topic, p) for p in range(self.partitions)], timeout=3
                    ):
                        if one.error is None:
                            self.record(
                                "committed", g=self.group, part=one.partition, off=one.offset, t0=begun, t1=time.monotonic()
                            )
            except KafkaException:
                # It only asks; whoever needs an answer counts errors.
                continue
        consumer.close()
