"""The same load for a long time: whatever the broker uses must stay level.

A steady stream into a topic that retention keeps small and into one that is compacted, while everything that comes and
goes comes and goes: topics, consumer groups that commit and leave, producer ids, connections that end in the middle of a
request, settings. Some of the topics get so much in large batches that they have files of their own when they are
deleted. Time-outs are short, so that what should be forgotten is forgotten within a minute. Memory, file descriptors, those
of files that have no name any more, threads, bytes and files on disk and CPU time are taken every second; each one's median
over the last third of the run may exceed that over the middle third by what LIMITS says.

    compat-tests/run soak [--minutes 10] [--json FILE] [--only NAME ...]

Needs the Python package confluent-kafka; `make soak` sets that up. KLAMM_BINARY names the binary. A checker must be able
to fail: `--plant leak` opens a connection per second and never closes it.
"""

import argparse
import json
import os
import pathlib
import socket
import stat
import struct
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer

from kit.broker import Klamm
from kit.level import level
from kit.wire import Client, string

STREAM, COMPACTED = "stream", "compacted"
SETTINGS = {
    "num.partitions": "6", "auto.create.topics.enable": "false", "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3", "offsets.topic.segment.bytes": str(1 << 20), "offsets.retention.minutes": "1",
    "offsets.retention.check.interval.ms": "2000", "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "1000", "log.cleaner.backoff.ms": "500", "log.segment.bytes": str(1 << 20),
    "producer.id.expiration.ms": "20000", "producer.id.expiration.check.interval.ms": "2000",
    "klamm.rocksdb.write.buffer.bytes": str(8 << 20),
}  # fmt: skip
# What may be added in the last third: a part of what there was, and a constant.
LIMITS = {
    "memory, MiB": (0.05, 6), "descriptors": (0.05, 20), "unlinked": (0, 4), "threads": (0, 2), "disk, MiB": (0.15, 32),
    "files": (0.15, 20), "CPU, ms/s": (0.15, 20),
}  # fmt: skip


class Worker(threading.Thread):
    """Does something again and again until it is told to end; an error that it does not expect ends the run."""

    def __init__(self, name, pause, step):
        super().__init__(daemon=True, name=name)
        self.pause, self.step, self.done, self.failure = pause, step, 0, None
        self.ending = threading.Event()

    def run(self):
        while not self.ending.wait(self.pause):
            try:
                self.step(self.done)
                self.done += 1
            except Exception as error:  # noqa: BLE001
                self.failure = f"{type(error).__name__}: {error}"
                return


def stream(bootstrap, topic, bytes_each, keys=0):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})

    def step(n):
        for i in range(100):
            key = str((n * 100 + i) % keys) if keys else None
            producer.produce(topic, os.urandom(bytes_each), key)
        producer.poll(0)

    return step


def producer_ids(bootstrap):
    def step(_):
        producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
        producer.produce(STREAM, b"x")
        assert producer.flush(20) == 0, "not acknowledged"

    return step


def groups(bootstrap):
    def step(n):
        consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"group-{n}", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 6000,
        })  # fmt: skip
        try:
            consumer.subscribe([STREAM])
            deadline = time.monotonic() + 20
            while (message := consumer.poll(0.2)) is None or message.error():
                assert time.monotonic() < deadline, "nothing to read"
            consumer.commit(message, asynchronous=False)
        except KafkaException as error:
            # Retention may pass it meanwhile.
            assert error.args[0].retriable(), error
        finally:
            consumer.close()

    return step


def topics(port):
    client = Client(port)

    def step(n):
        name = f"churn-{n}"
        error = client.create_topic(name, 3)
        assert error == 0, f"CreateTopics: {error}"
        error = client.delete_topic(name)
        assert error == 0, f"DeleteTopics: {error}"

    return step


def large_topics(bootstrap, port):
    """Topics that get 4 MiB in large batches before they are deleted."""
    client = Client(port)

    def step(n):
        name = f"large-{n}"
        error = client.create_topic(name, 1)
        assert error == 0, f"CreateTopics: {error}"
        producer = Producer({"bootstrap.servers": bootstrap, "batch.size": 256 << 10, "linger.ms": 20})
        for _ in range(64):
            producer.produce(name, os.urandom(64 << 10))
            producer.poll(0)
        assert producer.flush(20) == 0, "not acknowledged"
        error = client.delete_topic(name)
        assert error == 0, f"DeleteTopics: {error}"

    return step


def connections(port):
    def step(n):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(struct.pack(">ihhi", 1000, 3, 1, n))

    return step


def settings(port):
    client = Client(port)

    def step(n):
        change = string("log.cleaner.backoff.ms") + b"\0" + string(str(500 + n % 2))
        body = struct.pack(">ib", 1, 4) + string("") + struct.pack(">i", 1) + change + b"\0"
        answer = client.call(44, 0, body)
        answer.take("i")
        assert answer.take("ih")[1] == 0, "IncrementalAlterConfigs"

    return step


def leak(port):
    kept = []
    return lambda _: kept.append(socket.create_connection(("127.0.0.1", port)))


def unlinked(process):
    """Open files that have no name any more: their space comes back only when they are closed. One that RocksDB took over
    shows as deleted, too, but has a name of RocksDB's."""
    count = 0
    for descriptor in (process / "fd").iterdir():
        try:
            file = descriptor.stat()
            count += stat.S_ISREG(file.st_mode) and file.st_nlink == 0
        except FileNotFoundError:
            pass
    return count


def sample(broker):
    process = pathlib.Path(f"/proc/{broker.pid}")
    files = []
    for path in (broker.folder / "data").rglob("*"):
        try:
            files.append(path.stat().st_blocks * 512)
        except FileNotFoundError:
            pass
    return {
        "memory, MiB": broker.memory_mib()[0], "descriptors": len(os.listdir(process / "fd")),
        "unlinked": unlinked(process),
        "threads": len(os.listdir(process / "task")), "disk, MiB": sum(files) / (1 << 20), "files": len(files),
    }  # fmt: skip


def verdict(samples):
    """A line for each figure, and whether all are level."""
    found = level(samples, LIMITS)
    lines = [
        f"{'PASS' if is_level else 'FAIL'}  {name:14} {first:9.1f} {middle:9.1f} {last:9.1f}"
        for name, (first, middle, last, is_level) in found.items()
    ]
    return lines, all(is_level for *_, is_level in found.values())


def soak(args):
    broker = Klamm(SETTINGS)
    broker.start()
    with Client(broker.port) as client:
        assert client.create_topic(STREAM, 6, configs={"retention.bytes": str(4 << 20)}) == 0
        compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
        assert client.create_topic(COMPACTED, 2, configs=compacted) == 0
    at, port = f"127.0.0.1:{broker.port}", broker.port
    workers = [
        Worker("stream", 0.05, stream(at, STREAM, 1000)), Worker("keyed", 0.1, stream(at, COMPACTED, 200, 1000)),
        Worker("producer ids", 0.5, producer_ids(at)), Worker("groups", 0.5, groups(at)),
        Worker("topics", 0.5, topics(port)), Worker("large topics", 2, large_topics(at, port)), Worker("connections", 0.05, connections(port)),
        Worker("settings", 0.5, settings(port)),
    ]  # fmt: skip
    if args.plant == "leak":
        workers.append(Worker("leak", 1, leak(port)))
    workers = [worker for worker in workers if not args.only or worker.name in args.only]
    samples, cpu, ended = [], broker.cpu_seconds(), time.monotonic() + 60 * args.minutes
    for worker in workers:
        worker.start()
    try:
        while time.monotonic() < ended:
            began = time.monotonic()
            time.sleep(1)
            one, now = sample(broker), broker.cpu_seconds()
            samples.append({**one, "CPU, ms/s": 1000 * (now - cpu) / (time.monotonic() - began)})
            cpu = now
            if len(samples) % 60 == 0:
                print(f"minute {len(samples) // 60}: " + ", ".join(f"{k} {v:.0f}" for k, v in samples[-1].items()), flush=True)
            failed = [f"{worker.name}: {worker.failure}" for worker in workers if worker.failure]
            assert broker.alive() and not failed, f"{failed}\n{broker.tail(5)}"
    finally:
        for worker in workers:
            worker.ending.set()
        for worker in workers:
            worker.join(30)
        code = broker.stop()
        broker.remove()
    lines, level = verdict(samples)
    print("done: " + ", ".join(f"{worker.done} × {worker.name}" for worker in workers) + f"; ended with {code}")
    print("medians of the      first    middle      last third")
    print("\n".join(lines))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(samples))
    return level and code == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json")
    parser.add_argument("--only", nargs="*", help="these workers alone, to find out which of them something grows with")
    parser.add_argument("--plant", choices=["leak"])
    sys.exit(0 if soak(parser.parse_args()) else 1)


if __name__ == "__main__":
    main()
