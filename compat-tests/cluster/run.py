"""One scenario: load on a fresh topic, faults by the caller, then everything healed, read and judged."""

import json
import os
import random
import struct
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cluster.load import COMMIT, Member, Reader, Recorder, Watcher, Writer, consumer_settings, decode
from cluster.rig import Failed
from history.model import History
from history.rules import check, longest_gaps
from kit.wire import batches, values

PARTITIONS = 6
CONTROL = 0x20
NOT_LEADER = 6


def read_all(record, bootstrap, topic, partitions, level, seconds=120):
    """The final read through the leaders, as events and as {partition: [(offset, bytes)]}."""
    consumer = Consumer({**consumer_settings(bootstrap, f"{topic}-final", level), "enable.partition.eof": True})
    found, ended, deadline = {p: [] for p in range(partitions)}, {}, time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        while len(ended) < partitions and time.monotonic() < deadline:
            for message in consumer.consume(2000, 0.1):
                if message.error() is None:
                    found[message.partition()].append((message.offset(), message.value()))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended[message.partition()] = message.offset()
                else:
                    record.error(message.error())
    finally:
        consumer.close()
    if len(ended) < partitions:
        raise Failed(f"the final read ({level}) came to an end in {sorted(ended)} of {partitions} partitions only")
    for part, records in found.items():
        record("final", reader=f"leader {level}", iso=level, part=part, begin=0, end=ended[part],
               recs=[[offset, decode(value)] for offset, value in records])  # fmt: skip
    return found


def read_replica(record, cluster, number, topic, part, end, leads, seconds=30):
    """The final read of one replica up to `end`, from itself; if it leads, who produced what. False if it does not answer
    consumers."""
    recs, origins, at, deadline = [], [], 0, time.monotonic() + seconds
    with cluster.admin(number) as client:
        while at < end:
            error, high, data = client.fetch_replica(topic, part, at)
            if error == NOT_LEADER:
                return False
            if error:
                raise Failed(f"b{number} answers {error} about {topic}-{part} at {at}")
            before = at
            for base, last, one in batches(data):
                if not one[22] & CONTROL:
                    recs += [[offset, decode(value)] for offset, value in values(one) if at <= offset < end]
                    producer, epoch, sequence = struct.unpack_from(">qhi", one, 43)
                    if producer >= 0:
                        origins += [
                            [offset, producer, epoch, sequence + offset - base]
                            for offset in range(max(at, base), min(last + 1, end))
                        ]
                at = max(at, last + 1)
            if at == before and time.monotonic() > deadline:
                raise Failed(f"b{number} has {topic}-{part} up to {at} (high watermark {high}), the leader up to {end}")
            if at == before:
                time.sleep(0.05)
    record("final", reader=f"b{number}", iso="ru", part=part, begin=0, end=end, recs=recs)
    if leads:
        record("origin", part=part, recs=origins)
    return True


class Run:
    """The load of one scenario. `rate`: records a second over all producers; `weak`: whether one has acks=1."""

    def __init__(self, cluster, name, seed, rate=300, weak=True, group=True, partitions=PARTITIONS, exempt=(), **configs):
        self.cluster, self.name, self.partitions = cluster, name, partitions
        self.seed = f"{seed}-{name}"
        self.rng, self.record, self.notes = random.Random(self.seed), Recorder(), []
        # Called once all is read, before the history is judged.
        self.after_read = []
        self.topic = f"{name}-{seed}"
        cluster.topic(self.topic, partitions, **configs)
        for rule, why in exempt:
            self.record("exempt", rule=rule, why=why)
        here = (self.record, cluster.bootstrap, self.topic, partitions)
        each = rate / (5 if weak else 4)
        self.writers = [Writer(*here, f"idempotent{n}", each) for n in range(3)]
        self.writers.append(Writer(*here, "plain", each, idempotent=False))
        if weak:
            self.writers.append(Writer(*here, "weak", each, acks="1", idempotent=False))
        self.readers = [Reader(*here, "reader-rc", "rc"), Reader(*here, "reader-ru", "ru")]
        self.group = f"{self.topic}-group" if group else None
        self.members = [Member(*here, f"member{n}", self.group) for n in range(2)] if group else []
        self.watcher = Watcher(*here, self.group)
        for task in [*self.writers, *self.readers, *self.members, self.watcher]:
            task.start()
        self.flowing()
        # From here on time without an acknowledgement counts.
        self.began, self.ended = time.monotonic(), None

    def note(self, text):
        self.notes.append(text)

    def flowing(self, seconds=60):
        """Waits until every partition acknowledges, under acks=all, something sent from now on."""
        since = time.monotonic()

        def all_acked():
            parts = set()
            for event in reversed(self.record.events):
                if event["e"] == "send" and event["res"] == "ok" and event["t0"] >= since and event["p"] != "weak":
                    parts.add(event["part"])
                elif event["e"] == "send" and event["t1"] < since:
                    break
            return len(parts) == self.partitions

        return self.cluster.until(seconds, all_acked, "an acknowledgement in every partition")[1]

    def rest(self, low, high=None):
        time.sleep(low if high is None else self.rng.uniform(low, high))

    def in_sync(self, seconds=120):
        return self.cluster.in_sync([self.topic], seconds)

    def refuse_errors(self):
        """Fails if an error reached a client. Not of commits: a coordinator that is being loaded is told to whoever commits, by
        Kafka, too, and librdkafka does not try again. And not what a client says of its own slowness."""
        errors = {
            name: count for name, count in self.record.errors.items() if not name.startswith(COMMIT) and name != "_MAX_POLL_EXCEEDED"
        }
        if errors:
            raise Failed(f"errors reached clients: {errors}")

    def settle(self):
        """Heals everything and waits until the cluster is whole; the seconds that took."""
        began = time.monotonic()
        self.cluster.heal()
        self.in_sync()
        self.flowing()
        return time.monotonic() - began

    def abandon(self):
        """Ends the load of a scenario that has failed."""
        for task in [*self.writers, *self.readers, *self.members, self.watcher]:
            task.ending.set()

    def finish(self):
        """Ends the load, reads everything, checks. The row's note; raises if anything was found."""
        try:
            self.told("healed and in sync", self.settle)
            self.ended = time.monotonic()
            self.told("drained", self.drain)
            self.told("read", self.read)
            for also in self.after_read:
                also()
            return self.told("judged", self.judge)
        except Exception:
            self.abandon()
            self.save()
            raise

    def told(self, what, body):
        """Runs a step, and with KLAMM_RIG_VERBOSE says how long that took."""
        began = time.monotonic()
        found = body()
        if os.environ.get("KLAMM_RIG_VERBOSE"):
            print(f"    {what}: {time.monotonic() - began:.1f} s, {time.monotonic() - self.began:.1f} s in all", flush=True)
        return found

    def drain(self):
        for writer in self.writers:
            writer.ending.set()
        for writer in self.writers:
            writer.end(130)

        def caught_up(reader):
            return all(at >= end for at, end in zip(reader.at, self.ends()))

        for reader in self.readers:
            self.cluster.until(
                60, lambda r=reader: caught_up(r) or r.fault, f"{reader.name} to come to the end of {self.topic}"
            )
        if self.group:
            try:
                self.cluster.until(90, self.group_at_end, f"the group to commit the end of {self.topic}")
            except Failed as late:
                raise Failed(f"{late}\n" + "\n".join(member.state() for member in self.members)) from late
        for task in [*self.readers, *self.members, self.watcher]:
            task.ending.set()
        for task in [*self.readers, *self.members, self.watcher]:
            task.end()

    def group_at_end(self):
        """Whether the group's last committed offsets are the ends."""
        consumer = Consumer(consumer_settings(self.cluster.bootstrap, self.group, "rc"))
        try:
            at = consumer.committed([TopicPartition(self.topic, p) for p in range(self.partitions)], timeout=10)
        except KafkaException as problem:
            # The coordinator moves, or loads.
            self.record.error(problem.args[0], "group's end: ")
            return False
        finally:
            consumer.close()
        return [one.offset for one in at] == self.ends()

    def ends(self):
        """High watermarks, as the leaders tell them."""
        found = []
        for part in range(self.partitions):
            with self.cluster.admin(self.cluster.leader(self.topic, part)) as client:
                error, end = client.list_offsets(self.topic, [part], -1)[part]
                assert error == 0, error
                found.append(end)
        return found

    def read(self):
        for level in ("rc", "ru"):
            read_all(self.record, self.cluster.bootstrap, self.topic, self.partitions, level)
        refused = set()
        ends = self.ends()
        for part, state in self.cluster.describe([self.topic])[2][self.topic].items():
            for number in state.replicas:
                if not read_replica(self.record, self.cluster, number, self.topic, part, ends[part], number == state.leader):
                    refused.add(number)
        if refused:
            # A row of its own fails for that.
            self.note(f"followers {sorted(refused)} answer no consumer, so their copies were not read")
        self.refused = refused

    def judge(self):
        history = History(self.record.events)
        verdict = check(history)
        gaps = longest_gaps(history, self.began, self.ended)
        gap = max((seconds for seconds, _ in gaps.values()), default=0.0)
        figures = self.figures = verdict.figures
        self.gap = gap
        text = f"seed {self.seed}, acked {figures['acked']}, lost {figures['lost']}, doubled {figures['doubled']}, longest gap {gap:.2f} s"
        text += f"; unknown {figures['unknown']}, read {figures['read']}, lost of acks=1 {figures['lost of acks=1']}"
        for note in self.notes:
            text += f"; {note}"
        if self.record.errors:
            text += "; client errors " + ", ".join(f"{name} {count}" for name, count in sorted(self.record.errors.items()))
        problems = [str(breach) for breach in verdict.examples] + self.cluster.panics()
        if problems:
            raise Failed(f"{verdict.counts} in {text}\n    " + "\n    ".join(problems))
        return text

    def save(self):
        """Keeps the history for `compat-tests/run history FILE`."""
        path = self.cluster.folder / f"{self.topic}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for event in list(self.record.events):
                file.write(json.dumps(event) + "\n")
        print(f"    history in {path}", flush=True)
