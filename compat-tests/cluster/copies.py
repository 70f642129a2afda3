"""R15: records copied exactly once, by transactions, while brokers die."""

import functools
import os
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from cluster.load import PATIENT, REQUEST_MS, Reader, Recorder, Task, consumer_settings, decode, encode
from cluster.rig import Failed
from cluster.run import read_all
from history.model import History, value_of
from history.rules import check

TIMEOUT_MS = 20_000
# librdkafka forgets a broker that metadata leaves out for a moment. `send_offsets_to_transaction` may be waiting for a connection to
# just that one, without regard to its own time-out, and looks again only when a connection to some broker opens or ends.
IDLE_MS = 5_000
# KLAMM_COPIER_DEBUG=eos,protocol has librdkafka tell on stderr what the copiers' producers do.
DEBUG = {"debug": words} if (words := os.environ.get("KLAMM_COPIER_DEBUG")) else {}


class Copier(Task):
    """Consume, produce, send offsets, commit; one in twenty aborts. A member of the group that all copiers share."""

    def __init__(self, record, bootstrap, source, target, group, name, rng):
        super().__init__()
        self.record, self.bootstrap, self.source, self.target = record, bootstrap, source, target
        self.group, self.name, self.rng = group, name, rng
        self.session, self.number, self.txn = 0, 0, 0
        self.ends = {"commit": 0, "abort": 0}
        record("producer", p=name, idempotent=True, acks=-1)

    def connect(self):
        """A new instance, which fences the one before, and a new member."""
        self.session, self.number = self.session + 1, 0
        self.producer = Producer({
            **PATIENT, "bootstrap.servers": self.bootstrap, "transactional.id": f"{self.target}-{self.name}", "linger.ms": 2,
            "transaction.timeout.ms": TIMEOUT_MS, "request.timeout.ms": REQUEST_MS, "socket.timeout.ms": 2 * REQUEST_MS,
            "retry.backoff.ms": 50, "connections.max.idle.ms": IDLE_MS, **DEBUG,
        })  # fmt: skip
        self.producer.init_transactions(60)
        settings = {**consumer_settings(self.bootstrap, self.group, "rc"), "auto.offset.reset": "earliest"}
        self.consumer = Consumer(settings)
        self.consumer.subscribe([self.source])

    def work(self):
        connected = False
        while not self.ending.is_set():
            try:
                if not connected:
                    self.connect()
                    connected = True
                if not self.step():
                    self.rewind()
            except KafkaException as error:
                # Fenced, or it cannot even abort: begin anew.
                self.record.error(error.args[0])
                if connected:
                    self.leave()
                connected = False
        if connected:
            self.consumer.close()

    def leave(self):
        """What has no outcome yet gets one, as a producer that is thrown away reports nothing."""
        self.producer.purge()
        self.producer.flush(10)
        self.consumer.close()

    def step(self):
        """One transaction of what there is. False if it was aborted, so that its input has to be read again."""
        messages = [m for m in self.consumer.consume(40, 0.2) if m.error() is None]
        if not messages:
            return True
        self.txn += 1
        txn = f"{self.name}/{self.txn}"
        self.producer.begin_transaction()
        try:
            ends = {}
            for message in messages:
                self.copy(message, txn)
                ends[message.partition()] = message.offset() + 1
            offsets = [TopicPartition(self.source, part, offset) for part, offset in ends.items()]
            self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata(), 30)
        except KafkaException as error:
            self.record.error(error.args[0])
            if error.args[0].fatal():
                raise
            return self.settle(txn, False)
        return self.settle(txn, self.rng.random() >= 0.05)

    def copy(self, message, txn):
        part, number, session, begun = message.partition(), self.number, self.session, time.monotonic()
        self.number += 1

        def delivered(error, record, begun=begun):
            result = "ok" if error is None else "unknown"
            self.record("send", p=self.name, s=session, n=number, part=part, t0=begun, t1=time.monotonic(), res=result,
                        off=record.offset() if error is None else -1, txn=txn)  # fmt: skip

        data = encode(value_of(self.name, session, number, part), 0, decode(message.value()))
        self.producer.produce(self.target, data, partition=part, on_delivery=delivered)

    def settle(self, txn, commit):
        """Commits or aborts, again and again while that may be repeated; whether it was committed."""
        begun = time.monotonic()
        told = functools.partial(self.record, "txn", id=txn, t0=begun)
        tried = commit
        while True:
            try:
                (self.producer.commit_transaction if commit else self.producer.abort_transaction)(30)
                self.ends["commit" if commit else "abort"] += 1
                told(end="commit" if commit else "abort", t1=time.monotonic(), res="ok")
                return commit
            except KafkaException as error:
                self.record.error(error.args[0])
                if error.args[0].txn_requires_abort():
                    commit = False
                elif not error.args[0].retriable():
                    told(end="commit" if tried else "abort", t1=time.monotonic(), res="unknown" if tried else "fail")
                    raise

    def rewind(self):
        """Back to what is committed."""
        mine = self.consumer.assignment()
        if mine:
            for one in self.consumer.committed(mine, 20):
                self.consumer.seek(TopicPartition(one.topic, one.partition, max(one.offset, 0)))


class Copies:
    """Copiers of a run's topic, and the judgement of what they made."""

    def __init__(self, run, count=2):
        self.run, self.record, self.cluster = run, Recorder(), run.cluster
        self.target, self.group = f"{run.topic}-copy", f"{run.topic}-copiers"
        self.cluster.topic(self.target, run.partitions)
        here = (self.record, self.cluster.bootstrap)
        self.copiers = [Copier(*here, run.topic, self.target, self.group, f"copier{n}", run.rng) for n in range(count)]
        self.readers = [Reader(*here, self.target, run.partitions, f"copy-{level}", level) for level in ("rc", "ru")]
        for task in [*self.copiers, *self.readers]:
            task.start()
        run.after_read.append(self.judge)

    def abandon(self):
        for task in [*self.copiers, *self.readers]:
            task.ending.set()

    def at_end(self):
        for copier in self.copiers:
            if copier.fault:
                raise Failed(f"{copier.name}: {copier.fault}")
        consumer = Consumer(consumer_settings(self.cluster.bootstrap, self.group, "rc"))
        try:
            at = consumer.committed([TopicPartition(self.run.topic, p) for p in range(self.run.partitions)], timeout=10)
        except KafkaException:
            # Unstable while a transaction is open.
            return False
        finally:
            consumer.close()
        return [one.offset for one in at] == self.run.ends()

    def stable(self):
        """Whether no transaction is open: the last stable offsets are the ends."""
        consumer = Consumer(consumer_settings(self.cluster.bootstrap, f"{self.target}-lso", "rc"))
        try:
            for part in range(self.run.partitions):
                stable = consumer.get_watermark_offsets(TopicPartition(self.target, part), timeout=5, cached=False)[1]
                with self.cluster.admin(self.cluster.leader(self.target, part)) as client:
                    if client.list_offsets(self.target, [part], -1)[part] != (0, stable):
                        return False
        except KafkaException:
            return False
        finally:
            consumer.close()
        return True

    def judge(self):
        """Adds what was copied to the run's history, and checks the copy's own."""
        try:
            try:
                self.cluster.until(120, self.at_end, "the copiers to commit the end of their input")
            except Failed as failed:
                raise Failed(f"{failed}\n" + "\n".join(copier.where() for copier in self.copiers)) from failed
            for copier in self.copiers:
                copier.end()
            took = self.cluster.until(TIMEOUT_MS / 1000 + 10, self.stable, "every transaction to end")[1]
        finally:
            self.abandon()
        for reader in self.readers:
            reader.end()
        committed = read_all(self.record, self.cluster.bootstrap, self.target, self.run.partitions, "rc")
        read_all(self.record, self.cluster.bootstrap, self.target, self.run.partitions, "ru")
        copied = [value.decode().split("|", 2)[2] for records in committed.values() for _, value in records]
        self.run.record("copied", recs=copied)
        verdict = check(History(self.record.events))
        commits, aborts = (sum(copier.ends[end] for copier in self.copiers) for end in ("commit", "abort"))
        self.run.note(f"{len(copied)} copied by {commits} transactions, {aborts} aborted, stable after {took:.1f} s")
        for name, count in self.record.errors.items():
            self.run.record.errors[f"copier {name}"] = count
        if not verdict:
            raise Failed(f"the copy: {verdict.counts}: " + "\n    ".join(str(one) for one in verdict.examples))
