"""R9: the power goes at a random moment, again and again.

With `log.flush.interval.messages=1` what was acknowledged is there: the rules C1 to C7 of the crash rounds hold over the loss as
over a SIGKILL. With the defaults each log is a beginning of what it was: no hole, nothing wrong, nothing twice, what
survived one loss survives the next, and the state of producers and transactions agrees with the log.
"""

import random
import struct
import threading
import time

from crash import load as crash
from disk_faults import load
from disk_faults.rig import Rig
from kit import wire

OUT_OF_ORDER_SEQUENCE = 45
RAW = "raw"
# The crash rounds' topics have four partitions; more of them meet more of the storage.
crash.PARTITIONS = 12

# Which batches go to growing tables, per session: all, as by default, none.
PIECES = ["1", "8192", str(1 << 30)]


class Tally:
    """What the rounds of a row came to."""

    def __init__(self):
        self.rounds = self.acked = self.lost = self.most_lost = self.operations = 0
        self.starts, self.breaches = [], []

    def note(self):
        starts = sorted(self.starts) or [0]
        return (f"{self.rounds} losses, {self.acked} acknowledged, {self.lost} of them lost (at most {self.most_lost} at once), "
                f"{self.operations} operations undone, back after {starts[len(starts) // 2]:.2f} s (median, at most "
                f"{starts[-1]:.2f})")  # fmt: skip

    def add(self, context, breaches):
        self.breaches += breaches
        for breach in breaches[:4]:
            print(f"      {context}: {breach}", flush=True)


def synced(run):
    """Sessions of rounds with flush.messages=1; clients go on through the losses. In every other session one topic is not
    synced: it may lose its end."""
    tally, session = Tally(), 0
    while run.has_time() and not tally.breaches:
        session += 1
        rng = random.Random(f"{run.seed} synced {session}")
        settings = {"log.flush.interval.messages": "1", "klamm.table.piece.bytes": PIECES[session % 3]}
        with Rig(rng.randrange(1 << 32), ["directory", "journal"][session % 2], settings) as rig:
            # Growing tables are for what is not synced: every other session has them beside what is.
            synced_session(run, rig, rng, tally, 4 if run.quick else 12, growing=session % 2 == 0)
            if tally.breaches or rig.broker.panics():
                raise AssertionError(f"{len(tally.breaches)} breaches {rig.broker.panics()[:2]}; {tally.note()}")
    return tally.note()


def synced_session(run, rig, rng, tally, rounds, growing):
    rig.broker.start()
    load.create_topics(rig.port, {load.LARGE: {"flush.messages": str((1 << 63) - 1)}} if growing else {})
    with wire.Client(rig.port) as client:
        for topic, configs in [(crash.TOPIC, {"retention.ms": "-1"}), (crash.TRANSACTIONS, {}),
                               (crash.COMPACTED, {"cleanup.policy": "compact", "segment.bytes": str(256 << 10),
                                                  "min.cleanable.dirty.ratio": "0.01"})]:  # fmt: skip
            assert client.create_topic(topic, crash.PARTITIONS, configs=configs) == 0
    transactors = [crash.Transactor(rig.port, f"transactional{n}") for n in range(2)]
    writers = [crash.Writer(rig.port, "idempotent0", True), crash.Writer(rig.port, "plain0", False),
               crash.Writer(rig.port, "keyed0", True, crash.COMPACTED, 50)]  # fmt: skip
    large = [load.Writer(rig.port, "largep" if growing else "large", load.LARGE, idempotent=not growing, in_flight=20), load.Writer(rig.port, "small", load.SMALL, in_flight=100)]
    reader, churn = crash.Reader(rig.port), crash.Churn(rig.port)
    threads, seen = [*writers, *transactors, *large, reader, churn], {}
    for thread in threads:
        thread.start()
    try:
        for n in range(rounds):
            if n and not run.has_time():
                break
            before = dict(reader.committed)
            loss = rig.lose_power_at_a_moment(rng)
            context = f"session of seed {run.seed}, round {n + 1}, {loss}"
            if growing:
                # Offsets that were lost are given out anew: only once it is known which.
                large[0].resting.set()
                large[0].producer.purge()
            tally.starts.append(rig.restart(rng))
            tally.rounds += 1
            tally.operations += loss["operations"]
            deadline = time.monotonic() + 60
            while reader.read <= seen.get("read", -1) and time.monotonic() < deadline:
                time.sleep(0.1)
            for one in [*writers, *large, *transactors]:
                one.resting.set()
            found, _ = crash.check(rig.port, writers, reader, before, seen, n == rounds - 1)
            idle = [transactor.idle.wait(90) for transactor in transactors]
            found += crash.check_transactions(rig.port, transactors) if all(idle) else ["C7 a transaction does not end"]
            acked = load.acked_of(large)
            logs = load.read_logs(rig.port, {load.LARGE: load.PARTITIONS[load.LARGE], load.SMALL: load.PARTITIONS[load.SMALL]})
            found += [f"{topic}-{p}: {log.error}" for (topic, p), log in logs.items() if log.error]
            found += load.holes(logs) + load.wrong_values(logs) + load.twice(logs)
            if growing:
                lost = [at for at in acked if at[0] == load.LARGE and at[2] >= logs[at[:2]].end]
                for at in lost:
                    del acked[at]
                    del large[0].acked[at]
                tally.lost += len(lost)
            found += [f"acknowledged {who} at {at}, there is {there}" for at, who, there in load.lost(acked, logs)]
            tally.add(context, found)
            for one in [*writers, *large, *transactors]:
                one.resting.clear()
            if found:
                break
    finally:
        for thread in threads:
            thread.ending.set()
        if tally.breaches:
            rig.broker.kill()
            for one in [*writers, *large]:
                one.producer.purge()
        for thread in threads:
            thread.join(100)
        tally.acked += sum(len(one.acked) for one in [*writers, *large])


def unsynced(run):
    """Sessions of rounds with Kafka's defaults; each round has clients of its own."""
    tally, session = Tally(), 0
    while run.has_time() and not tally.breaches:
        session += 1
        rng = random.Random(f"{run.seed} unsynced {session}")
        settings = {"klamm.table.piece.bytes": PIECES[session % 3]}
        with Rig(rng.randrange(1 << 32), ["journal", "directory"][session % 2], settings) as rig:
            unsynced_session(run, rig, rng, tally, 4 if run.quick else 12)
            if tally.breaches or rig.broker.panics():
                raise AssertionError(f"{len(tally.breaches)} breaches {rig.broker.panics()[:2]}; {tally.note()}")
    return tally.note()


def unsynced_session(run, rig, rng, tally, rounds):
    rig.broker.start()
    load.create_topics(rig.port)
    with wire.Client(rig.port) as client:
        assert client.create_topic(RAW, 3) == 0
    settled, ends, sizes, producers = {}, {}, {}, set()
    for n in range(rounds):
        if n and not run.has_time():
            break
        writers = load.writers_of(rig.port, f"r{n}")
        transactors = [load.Transactor(rig.port, f"t{i}r{n}") for i in range(2)]
        raw = Sequences(rig.port, producers)
        for one in [*writers, *transactors, raw]:
            one.start()
        loss = rig.lose_power_at_a_moment(rng)
        for one in [*writers, *transactors, raw]:
            one.ending.set()
        context = f"round {n + 1}, {loss}"
        tally.starts.append(rig.restart(rng))
        tally.rounds += 1
        tally.operations += loss["operations"]
        # What waits in their queues would go to the broker that came back.
        for one in writers:
            one.producer.purge()
        for one in [*writers, *transactors]:
            one.stop()
        raw.join(60)
        for one in transactors:
            ends |= {(one.name, number): end for number, end in one.ends.items()}
            sizes |= {(one.name, number): size for number, size in one.sizes.items()}
        found, lost_now = check_beginnings(rig.port, writers, settled)
        found += check_transactions(rig.port, ends, sizes) + raw.check(rig.port)
        tally.acked += sum(len(one.acked) for one in writers)
        tally.lost += lost_now
        tally.most_lost = max(tally.most_lost, lost_now)
        tally.add(context, found)
        if found:
            return


def check_beginnings(port, writers, settled):
    """Each log is a beginning of what it was; what is in it now (`settled`) stays. Breaches, and how many acknowledged
    records lay behind the ends."""
    logs = load.read_logs(port, load.PARTITIONS)
    found = [f"{topic}-{p}: {log.error}" for (topic, p), log in logs.items() if log.error]
    found += load.wrong_values(logs) + load.holes(logs) + load.twice(logs)
    there = {(topic, p, offset): load.sender(value) for (topic, p), log in logs.items()
             for offset, value in log.found if value is not None}  # fmt: skip
    behind = 0
    for at, who in load.acked_of(writers).items():
        topic, p, offset = at
        if offset >= logs[(topic, p)].end:
            behind += 1
        elif there.get(at) != who and not (topic == load.KEYED and at not in there):
            found.append(f"acknowledged {who} at {at}, there is {there.get(at)}")
    for at, who in settled.items():
        if there.get(at) != who and at[0] != load.KEYED:
            found.append(f"{at} survived a loss of power as {who}, now there is {there.get(at)}")
    settled.clear()
    settled.update(there)
    return found, behind


def check_transactions(port, ends, sizes):
    """In each partition all of a transaction is read or nothing, of an aborted one nothing; the stable offset moves on."""
    deadline, open_at = time.monotonic() + 45, ["?"]
    while open_at and time.monotonic() < deadline:
        open_at = [f"{p}: {stable} of {end}" for p, (stable, end) in stable_offsets(port).items() if stable != end]
        time.sleep(0.2 if open_at else 0)
    if open_at:
        return [f"a transaction hangs in partition {one}" for one in open_at]
    logs = load.read_logs(port, {load.TRANSACTIONS: load.TRANSACTION_PARTITIONS}, level="read_committed")
    found = [f"{topic}-{p}: {log.error}" for (topic, p), log in logs.items() if log.error]
    read = {}
    for (_topic, p), log in logs.items():
        for _offset, value in log.found:
            name, number = load.sender(value)[0].split(".")
            read.setdefault((name, int(number), p), []).append(value)
    for (name, number, p), values in read.items():
        wanted = sizes[(name, number)].count(p)
        if ends[(name, number)] is False or len(values) != wanted or len(set(values)) != wanted:
            found.append(f"transaction {name} {number}, committed {ends[(name, number)]}: {len(values)} of {wanted} in {p}")
    return found


def stable_offsets(port):
    """{partition: (last stable offset, high watermark)} of the transactions' topic."""
    found = {}
    with wire.Client(port, timeout=30) as client:
        for p in range(load.TRANSACTION_PARTITIONS):
            end = client.list_offsets(load.TRANSACTIONS, [p], -1)[p][1]
            body = struct.pack(">iiiibi", -1, 0, 0, 1 << 20, 1, 1) + wire.string(load.TRANSACTIONS)
            reader = client.call(1, 4, body + struct.pack(">iiqi", 1, p, end, 1 << 20))
            reader.take("i")
            _index, _error, high, stable = reader.array(lambda r: (r.string(), r.array(one_partition)))[0][1][0]
            found[p] = (stable, high)
    return found


def one_partition(reader):
    index, error, high, stable = reader.take("ihqq")
    reader.array(lambda r: r.take("qq"))
    reader.bytes()
    return index, error, high, stable


class Sequences(threading.Thread):
    """A producer without a library: it knows the sequence of every batch, so it can ask what the broker remembers."""

    def __init__(self, port, producers):
        super().__init__(daemon=True)
        self.port, self.producers, self.ending = port, producers, threading.Event()
        self.producer = None
        # By partition, the base offset of each sequence that was acknowledged.
        self.acked = {p: [] for p in range(3)}
        self.problem = None

    def batch(self, p, sequence):
        value = load.value_of(f"raw{self.producer[0]}.{p}", sequence, 20)
        return wire.batch([value], int(time.time() * 1000), (*self.producer, sequence))

    def run(self):
        try:
            with wire.Client(self.port, timeout=10) as client:
                error, producer_id, epoch = client.init_producer_id()
                assert error == 0, error
                if producer_id in self.producers:
                    self.problem = f"producer id {producer_id} was given out before"
                self.producers.add(producer_id)
                self.producer = (producer_id, epoch)
                while not self.ending.is_set():
                    batches = {p: self.batch(p, len(self.acked[p])) for p in self.acked}
                    for p, (error, base) in client.produce(RAW, batches).items():
                        assert error == 0, error
                        self.acked[p].append(base)
        except (OSError, AssertionError, struct.error):
            pass

    def check(self, port):
        """After a loss: what the broker remembers of the producer is what its log holds."""
        found = [self.problem] if self.problem else []
        if self.producer is None:
            return found
        logs = load.read_logs(port, {RAW: 3})
        found += [f"raw-{p}: {log.error}" for (_, p), log in logs.items() if log.error] + load.wrong_values(logs)
        with wire.Client(port, timeout=60) as client:
            for p, bases in self.acked.items():
                mine = [(offset, load.sender(value)[1]) for offset, value in logs[(RAW, p)].found
                        if load.sender(value)[0] == f"raw{self.producer[0]}.{p}"]  # fmt: skip
                if [number for _, number in mine] != list(range(len(mine))):
                    found.append(f"raw-{p}: sequences {[number for _, number in mine][:20]}")
                    continue
                kept = list(zip(bases, range(len(bases)), strict=True))[: len(mine)]
                if mine[: len(kept)] != kept:
                    found.append(f"raw-{p}: acknowledged {kept[-3:]}, read {mine[len(kept) - 3 : len(kept)]}")
                if mine:
                    found += self.ask(client, p, mine, logs[(RAW, p)].end)
        return found

    def ask(self, client, p, mine, end):
        last = mine[-1]
        answers = [client.produce(RAW, {p: self.batch(p, sequence)})[p] for sequence in (last[1], last[1] + 5, last[1] + 1)]
        wanted = [(0, last[0]), (OUT_OF_ORDER_SEQUENCE, -1), (0, end)]
        return [] if answers == wanted else [f"raw-{p}: last in the log {last} of {end}; repeat, gap, next: {answers}, not {wanted}"]


def beginnings(run):
    """The power goes while klamm starts on an empty directory: the next start must not mind, and the directory must be
    sound: what is acknowledged then survives."""
    rounds, reached = 0, 0
    while run.has_time():
        rounds += 1
        rng = random.Random(f"{run.seed} beginning {rounds}")
        with Rig(rng.randrange(1 << 32), ["directory", "journal"][rounds % 2], {"log.flush.interval.messages": "1"}) as rig:
            for _ in range(3):
                rig.fs.rule("freeze", "any", "*", after=rng.randrange(150))
                rig.broker.launch()
                reached += rig.wait_frozen(1.5)
                rig.lose_power(rng)
            rig.broker.start(60)
            with wire.Client(rig.port, timeout=30) as client:
                assert client.create_topic("t", 3) == 0
                error, base = client.produce("t", {1: wire.batch([b"first"], 1)})[1]
                assert (error, base) == (0, 0), (error, base)
            rig.lose_power(rng, "nothing")
            rig.broker.start(60)
            with wire.Client(rig.port, timeout=30) as client:
                error, high, records = client.fetch("t", {1: 0})[1]
                found = [value for _, _, one in wire.batches(records) for _, value in wire.values(one)]
            assert (error, high, found) == (0, 1, [b"first"]), f"after round {rounds}: {error} {high} {found}"
            assert not rig.broker.panics(), rig.broker.panics()
    return f"{rounds} directories, {reached} of {3 * rounds} losses during the start"
