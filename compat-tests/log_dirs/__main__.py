"""A partition that Kafka's own tool moves between the log directories of a broker, while an idempotent producer writes to
it and a consumer reads it; one row per case.

What was acknowledged must be there once, at its offset, whatever moves, and whenever the broker is killed.

    compat-tests/run log_dirs          klamm; with KLAMM_AGAINST=3.9.1 Apache Kafka
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kit.broker import Kafka, Klamm, kafka_path

TOPIC = "moves"
VALUE_BYTES = 1000
PRELOADED = 30_000
LIMIT_SECONDS = 120
# Bytes a second; a move of what is preloaded takes some ten seconds.
SLOW = 3_000_000
# The broker is killed, of which clients would tell much.
QUIET = {"log_level": 0}
TOOLS = kafka_path("3.9.1") / "bin"


class Load:
    """Writes numbered values until it is stopped, and remembers where each was acknowledged."""

    def __init__(self, bootstrap):
        settings = {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": LIMIT_SECONDS * 1000}
        self.producer = Producer({"bootstrap.servers": bootstrap, **QUIET, **settings})
        self.acknowledged, self.errors, self.next = {}, [], 0
        self.stopped = threading.Event()
        self.thread = None

    def send(self):
        number = self.next
        self.next += 1
        self.producer.produce(TOPIC, str(number).ljust(VALUE_BYTES), partition=0, on_delivery=self.on_delivery)

    def on_delivery(self, error, message):
        if error:
            self.errors.append(str(error))
        else:
            self.acknowledged[message.offset()] = int(message.value())

    def preload(self):
        for _ in range(PRELOADED):
            self.send()
            self.producer.poll(0)
        self.producer.flush(LIMIT_SECONDS)

    def run(self):
        while not self.stopped.wait(0.002):
            self.send()
            self.producer.poll(0)

    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopped.set()
        self.thread.join()
        self.producer.flush(LIMIT_SECONDS)


class Reader:
    """Reads all of it, as it comes."""

    def __init__(self, bootstrap):
        settings = {"group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        self.consumer = Consumer({"bootstrap.servers": bootstrap, **QUIET, **settings})
        self.consumer.assign([TopicPartition(TOPIC, 0, 0)])
        self.found = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.upto = None

    def run(self):
        end = None
        while self.upto is None or len(self.found) < self.upto:
            for message in self.consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    self.found.append((message.offset(), int(message.value())))
            if self.upto is not None:
                end = end or time.monotonic() + LIMIT_SECONDS
                if time.monotonic() > end:
                    return

    def finish(self, count):
        self.upto = count
        self.thread.join()
        self.consumer.close()


class Moves:
    def __init__(self, broker):
        self.broker, self.failed = broker, 0
        self.file = broker.folder / "reassignment.json"

    def tool(self, name, *arguments):
        command = [str(TOOLS / f"{name}.sh"), "--bootstrap-server", self.broker.bootstrap, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS, check=False)
        return done.stdout

    def logs(self):
        """[(directory, offset lag, whether it is a future log)] of the partition."""
        output = self.tool("kafka-log-dirs", "--describe", "--topic-list", TOPIC)
        described = json.loads(output[output.index("{") :].splitlines()[0])
        dirs = described["brokers"][0]["logDirs"]
        return sorted((d["logDir"], p["offsetLag"], p["isFuture"]) for d in dirs for p in d["partitions"] if p["partition"] == f"{TOPIC}-0")

    def home(self):
        return next(directory for directory, _, future in self.logs() if not future)

    def ask(self, to, *arguments):
        partition = {"topic": TOPIC, "partition": 0, "replicas": [1], "log_dirs": [to]}
        self.file.write_text(json.dumps({"version": 1, "partitions": [partition]}))
        return self.tool("kafka-reassign-partitions", "--reassignment-json-file", str(self.file), "--execute", *arguments)

    def verified(self):
        """Whether the tool says that it is complete, which takes the rate back, too."""
        output = self.tool("kafka-reassign-partitions", "--reassignment-json-file", str(self.file), "--verify")
        return re.search(rf"Reassignment of replica {TOPIC}-0-1 completed successfully", output) is not None

    def wait(self):
        end = time.monotonic() + LIMIT_SECONDS
        while not self.verified():
            if time.monotonic() > end:
                return False
        return True

    def row(self, name, outcome, detail=""):
        self.failed += not outcome
        print(f"{'PASS' if outcome else 'FAIL'}  {name}{'' if outcome else f': {detail}'}", flush=True)


def run(broker, paths):
    moves = Moves(broker)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
    load, reader = Load(broker.bootstrap), Reader(broker.bootstrap)
    load.preload()
    load.start()
    reader.thread.start()
    for name in ("to the other directory", "and back"):
        to = next(path for path in paths if path != moves.home())
        asked = moves.ask(to)
        moves.row(f"kafka-reassign-partitions moves a log {name}", moves.wait() and moves.home() == to, asked)
    to = next(path for path in paths if path != moves.home())
    asked = moves.ask(to, "--replica-alter-log-dirs-throttle", str(SLOW))
    logs = moves.logs()
    slow = any(directory == to and future and lag > 0 for directory, lag, future in logs)
    moves.row("a move that is held back is told with its lag", slow, f"{asked} {logs}")
    broker.kill()
    broker.wait_for_session()
    broker.start()
    moves.row("a move goes on after a kill", moves.wait() and moves.home() == to, moves.logs())
    time.sleep(1)
    load.stop()
    reader.finish(len(load.acknowledged))
    end = broker_end(broker)
    moves.row("no record was refused", not load.errors, load.errors[:3])
    sent = [load.acknowledged.get(offset) for offset in range(end)]
    moves.row("each record is acknowledged once, in order", sent == list(range(load.next)) and end == load.next, f"{end} of {load.next}")
    moves.row("each record is read once, in order", reader.found == list(enumerate(range(load.next))), f"{len(reader.found)} of {load.next}")
    moves.row("one directory has the log", len(moves.logs()) == 1, moves.logs())
    return moves.failed


def broker_end(broker):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "end"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=30)[1]
    finally:
        consumer.close()


def main():
    broker = (Kafka if os.environ.get("KLAMM_AGAINST") else Klamm)({"log.segment.bytes": str(8 << 20)})
    paths = [str(pathlib.Path(broker.folder).resolve() / name) for name in ("data-a", "data-b")]
    broker.settings["log.dirs"] = ",".join(paths)
    broker.start()
    try:
        failed = run(broker, paths)
    except KafkaException as error:
        failed = 1
        print(f"FAIL  {error}\n{broker.tail()}")
    finally:
        broker.remove()
    sys.exit(1 if failed else 0)


main()
