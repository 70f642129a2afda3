"""R12: the disk fills up under load, then there is space again.

Produce is refused before ENOSPC, or held back; reads, deletes and admin calls work; klamm goes on unaided within ten
seconds; nothing acknowledged is lost, and nothing is corrupt.
"""

import random
import struct
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from disk_faults import load
from disk_faults.rig import Rig
from kit import wire

STORAGE_ERROR = 56
MIB = 1 << 20
RESUMES_WITHIN = 10.0


class Commits(threading.Thread):
    """A group's commits, one after another; `last` is the offset that was acknowledged, `at` when."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ending = port, threading.Event()
        self.last, self.at, self.errors = 0, 0.0, {}

    def run(self):
        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{self.port}", "group.id": "full", "log_level": 0,
                             "enable.auto.commit": False})  # fmt: skip
        while not self.ending.is_set():
            try:
                consumer.commit(offsets=[TopicPartition(load.SMALL, 0, self.last + 1)], asynchronous=False)
                self.last += 1
                self.at = time.monotonic()
                time.sleep(0.02)
            except KafkaException as error:
                name = error.args[0].name()
                self.errors[name] = self.errors.get(name, 0) + 1
                time.sleep(0.1)
        consumer.close()


class Ends(threading.Thread):
    """Transactions of one record, one after another; `at` is when the last one was committed."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ending, self.at, self.errors = port, threading.Event(), 0.0, {}

    def connect(self):
        producer = Producer({"logger": load.QUIET, "bootstrap.servers": f"127.0.0.1:{self.port}", "transactional.id": "full",
                             "linger.ms": 0, "log_level": 0, "transaction.timeout.ms": 10_000})  # fmt: skip
        producer.init_transactions(10)
        return producer

    def end(self, producer):
        """Repeats what may be repeated, as applications have to: a call that timed out goes on within the client."""
        commit = True
        while not self.ending.is_set():
            try:
                (producer.commit_transaction if commit else producer.abort_transaction)(5)
                self.at = time.monotonic() if commit else self.at
                return
            except KafkaException as error:
                self.note(error)
                if error.args[0].txn_requires_abort():
                    commit = False
                elif not error.args[0].retriable():
                    raise

    def note(self, error):
        name = error.args[0].name()
        self.errors[name] = self.errors.get(name, 0) + 1

    def run(self):
        producer, n = None, 0
        while not self.ending.is_set():
            try:
                producer = producer or self.connect()
                producer.begin_transaction()
                producer.produce(load.TRANSACTIONS, load.value_of("full", n, 100), partition=0)
                n += 1
                self.end(producer)
            except KafkaException as error:
                # A new instance ends what this one has left open.
                self.note(error)
                producer = None
                time.sleep(0.1)


def refusal(port, topic, partitions):
    """Error codes that a Produce meets now, over the partitions."""
    with wire.Client(port, timeout=60) as client:
        batch = wire.batch([load.value_of("xp", 0, 5000)], int(time.time() * 1000))
        return {client.produce(topic, {p: batch}, timeout_ms=5000)[p][0] for p in range(partitions)}


def wait(what, true, seconds):
    """How long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"{what} within {seconds:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - began


def filled(settings, by_deleting=False, flapping=0, quota=192 * MIB):
    """A row. `flapping`: for so many seconds space comes and goes, a little each time."""

    def body(run):
        rng = random.Random(run.seed)
        with Rig(rng.randrange(1 << 32), settings=settings) as rig:
            rig.fs.order(f"limit bytes={quota}")
            rig.broker.start()
            load.create_topics(rig.port)
            with wire.Client(rig.port, timeout=60) as client:
                assert client.create_topic("ballast", 2) == 0
                for n in range(40 if by_deleting else 0):
                    batch = wire.batch([load.value_of("b", n, 900_000)], int(time.time() * 1000))
                    assert client.produce("ballast", {n % 2: batch})[n % 2][0] == 0
            # They repeat what is refused, as applications do.
            writers = [load.Writer(rig.port, f"w{n}l", load.LARGE) for n in range(2)]
            writers += [load.Writer(rig.port, "wi", load.SMALL), load.Writer(rig.port, "wk", load.KEYED)]
            commits, ends = Commits(rig.port), Ends(rig.port)
            for one in [*writers, commits, ends]:
                one.start()
            try:
                return under(rig, rng, writers, commits, ends, by_deleting, flapping, quota)
            finally:
                rig.fs.order("limit bytes=0")
                for one in [commits, ends]:
                    one.ending.set()
                for one in writers:
                    one.ending.set()
                    one.producer.purge()
                for one in writers:
                    one.stop()
                for one in [commits, ends]:
                    one.join(60)

    return body


def under(rig, rng, writers, commits, ends, by_deleting, flapping, quota):
    alive = lambda: rig.broker.alive() or None  # noqa: E731
    codes = {"?"}

    def is_full():
        nonlocal codes
        assert alive(), f"klamm ended with {rig.broker.child.returncode}: {rig.broker.tail(3)}"
        codes = refusal(rig.port, load.LARGE, load.PARTITIONS[load.LARGE])
        return 0 not in codes

    wait("full", is_full, 120)
    used, until = rig.fs.status()["used"], time.monotonic() + flapping
    while time.monotonic() < until and alive():
        quota += rng.randrange(300_000)
        for more in (rng.randrange(4 * MIB), 0):
            rig.fs.order(f"limit bytes={quota + more}")
            time.sleep(rng.uniform(0.01, 0.2))
    assert alive(), f"klamm ended with {rig.broker.child.returncode}: {rig.broker.panics()[:2]}"
    wait("full", is_full, 120)
    # Full for a while, and asked for more all the time.
    time.sleep(3)
    codes |= refusal(rig.port, load.SMALL, 24)
    assert codes - {0} <= {STORAGE_ERROR}, f"refused with {codes}"
    acked = load.acked_of(writers)
    logs = load.read_logs(rig.port, load.PARTITIONS)
    offline = {at: log.error for at, log in logs.items() if log.error}
    lost = load.lost(acked, logs)
    assert not offline and not lost and not load.wrong_values(logs), f"while full: {offline} {lost[:3]}"
    with wire.Client(rig.port, timeout=60) as client:
        assert client.metadata([load.SMALL])[1][load.SMALL][0] == 0
    began = time.monotonic()
    if by_deleting:
        consumer_error = delete_topic(rig.port, "ballast")
        assert consumer_error == 0, f"deleting a topic on a full disk answers {consumer_error}"
    else:
        rig.fs.order(f"limit bytes={2 * quota}")
    resumed = wait("produce goes on", lambda: max(w.last_ack for w in writers) > began and alive(), RESUMES_WITHIN)
    committed = wait("commits go on", lambda: commits.at > began, RESUMES_WITHIN)
    ended = wait(f"transactions go on, which met {ends.errors},", lambda: ends.at > began, 2 * RESUMES_WITHIN)
    assert alive(), f"klamm ended with {rig.broker.child.returncode}"
    if by_deleting:
        rig.fs.order("limit bytes=0")
    for one in writers:
        one.stop(60)
    for context, again in [("", lambda: None), (" after a kill", lambda: (rig.broker.kill(), rig.broker.start(60)))]:
        again()
        logs = load.read_logs(rig.port, load.PARTITIONS)
        offline = {at: log.error for at, log in logs.items() if log.error}
        lost, holes = load.lost(load.acked_of(writers), logs), load.holes(logs) + load.twice(logs) + load.wrong_values(logs)
        assert not offline and not lost and not holes, f"at the end{context}: {offline} {lost[:3]} {holes[:3]}"
    assert not rig.broker.panics(), rig.broker.panics()
    return (f"refused with {sorted(codes - {0})} at {used // MIB} of {quota // MIB} MiB, produce after {resumed:.1f} s, commits "
            f"{committed:.1f} s, transactions {ended:.1f} s; {len(acked)} acknowledged, 0 lost; commits met {commits.errors}, "
            f"transactions {ends.errors}")  # fmt: skip


def delete_topic(port, name):
    """Error code of the deletion."""
    with wire.Client(port, timeout=60) as client:
        reader = client.call(20, 1, struct.pack(">i", 1) + wire.string(name) + struct.pack(">i", 30_000))
        reader.take("i")
        return reader.array(lambda r: (r.string(), r.take("h")))[0][1]


NO_RESERVE = {"klamm.disk.reserve.bytes": "0"}

ROWS = [
    ("R12 full at the reserve, then a larger disk", filled({}), 60, 20),
    ("R12 full at the reserve, then a topic is deleted", filled({}, by_deleting=True), 60, 0),
    ("R12 space comes and goes at the reserve", filled({"log.segment.bytes": str(1 << 20)}, flapping=15), 60, 0),
    ("R12 full without a reserve, growing tables", filled(NO_RESERVE | {"klamm.table.piece.bytes": "1"}), 60, 20),
    ("R12 full without a reserve, the log alone", filled(NO_RESERVE | {"klamm.table.piece.bytes": str(1 << 30)}), 60, 0),
    ("R12 full without a reserve, flush=1", filled(NO_RESERVE | {"log.flush.interval.messages": "1"}), 60, 0),
]
