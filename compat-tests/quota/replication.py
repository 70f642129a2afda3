"""Replication that is held back, shown by a reassignment over three brokers: klamm, or (KLAMM_AGAINST=3.9.1) Apache Kafka.

    compat-tests/run quota.replication [--java]

A partition of some megabytes moves to another broker: at once without a limit, and no faster than its rate with one, be it
the leader's or the follower's; a replica that is in sync is not held back. With --java kafka-reassign-partitions does it.
"""

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import time

from cluster.several import Several
from kit import wire
from kit.broker import kafka_path
from kit.rows import Rows
from kit.wire import Client, string
from quota.__main__ import compact

MIB = 1 << 20
SIZE = 8 * MIB
RATE = MIB
# So much of it is sent before the rate is noticed: an answer, and what its windows let pass.
SECONDS_MIN = 3
RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
REPLICAS = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")


class Move:
    """The cluster, and connections to all of it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.clients = {}
        self.topics = 0

    def client(self, broker):
        if broker not in self.clients:
            self.clients[broker] = Client(self.cluster.nodes[broker - 1].port)
        return self.clients[broker]

    def controller(self):
        r = self.client(1).call(3, 1, struct.pack(">i", 0))
        r.array(lambda r: (r.take("i"), r.string(), r.take("i"), r.string()))
        return self.client(r.take("i"))

    def state(self, topic):
        """(leader, replicas, ISR) of partition 0, as broker 1 has it."""
        r = self.client(1).call(3, 1, struct.pack(">i", 1) + string(topic))
        r.array(lambda r: (r.take("i"), r.string(), r.take("i"), r.string()))
        r.take("i")

        def partition(r):
            _, _, leader = r.take("hii")
            return leader, r.array(lambda r: r.take("i")), r.array(lambda r: r.take("i"))

        def topic_of(r):
            r.take("h")
            r.string()
            r.take("b")
            return r.array(partition)

        return r.array(topic_of)[0][0]

    def filled(self):
        """A topic on broker 1 alone, with some megabytes."""
        self.topics += 1
        name = f"moved{self.topics}"
        assignment = struct.pack(">iiii", 1, 0, 1, 1)
        one = string(name) + struct.pack(">ih", -1, -1) + assignment + struct.pack(">i", 0)
        r = self.controller().call(19, 2, struct.pack(">i", 1) + one + struct.pack(">i", 30_000) + b"\0")
        r.take("i")
        assert r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1] == 0
        batch = wire.batch([os.urandom(MIB // 4 - 200)], int(time.time() * 1000))
        for _ in range(4 * SIZE // MIB):
            error, _ = self.client(1).produce(name, {0: batch})[0]
            assert error == 0, error
        return name

    def configure(self, resource_type, name, values):
        """Sets these; None takes one back."""
        op = lambda key, value: string(key) + struct.pack(">b", value is None) + (b"\xff\xff" if value is None else string(value))
        configs = b"".join(op(key, value) for key, value in values.items())
        one = struct.pack(">b", resource_type) + string(name) + struct.pack(">i", len(values)) + configs
        # A broker's own are set by itself.
        client = self.client(int(name)) if resource_type == 4 and name else self.controller()
        r = client.call(44, 0, struct.pack(">i", 1) + one + b"\0")
        r.take("i")
        assert r.array(lambda r: (r.take("h"), r.string(), r.take("b"), r.string()))[0][:2] == (0, None)

    def rates(self, leader=None, follower=None):
        text = lambda rate: None if rate is None else str(rate)
        for broker in ("1", "2", "3"):
            self.configure(4, broker, dict(zip(RATES, (text(leader), text(follower)))))

    def reassign(self, topic, replicas):
        partition = struct.pack(">i", 0) + bytes([len(replicas) + 1]) + struct.pack(f">{len(replicas)}i", *replicas) + b"\0"
        body = b"\0" + struct.pack(">i", 30_000) + b"\2" + compact(topic) + b"\2" + partition + b"\0\0"
        r = self.controller().call(45, 0, body)
        r.take("b")
        _, error = r.take("ih")
        assert error == 0, error

    def moves(self, topic, replicas):
        """Seconds until the partition is there and nowhere else."""
        began = time.monotonic()
        self.reassign(topic, replicas)
        self.wait(topic, replicas)
        return time.monotonic() - began

    def wait(self, topic, replicas):
        deadline = time.monotonic() + 120
        while True:
            _, now, in_sync = self.state(topic)
            if (sorted(now), sorted(in_sync)) == (sorted(replicas), sorted(replicas)):
                return
            assert time.monotonic() < deadline, (now, in_sync)
            time.sleep(0.1)


def at_once(move):
    seconds = move.moves(move.filled(), [2])
    return f"{seconds:.1f} s"


def held(move, rates, replicas):
    topic = move.filled()
    move.rates(**rates)
    move.configure(2, topic, replicas)
    try:
        seconds = move.moves(topic, [2])
    finally:
        move.rates()
        move.configure(2, topic, dict.fromkeys(replicas))
    assert seconds >= SECONDS_MIN, f"{seconds:.1f} s"
    return f"{SIZE // MIB} MiB at {RATE // MIB} MiB/s: {seconds:.1f} s"


def by_leader(move):
    return held(move, {"leader": RATE}, {REPLICAS[0]: "0:1"})


def by_follower(move):
    return held(move, {"follower": RATE}, {REPLICAS[1]: "0:2"})


def in_sync(move):
    """Who is in sync stays so, whatever the rate."""
    topic = move.filled()
    move.moves(topic, [1, 2])
    move.rates(leader=1, follower=1)
    move.configure(2, topic, dict.fromkeys(REPLICAS, "*"))
    try:
        took = []
        for _ in range(8):
            began = time.monotonic()
            error, _ = move.client(1).produce(topic, {0: wire.batch([os.urandom(MIB // 4)], 0)})[0]
            assert error == 0, error
            took.append(round(time.monotonic() - began, 1))
        assert sum(took) < 10, took
        in_sync = move.state(topic)[2]
        assert sorted(in_sync) == [1, 2], in_sync
        return str(took)
    finally:
        move.rates()
        move.configure(2, topic, dict.fromkeys(REPLICAS))


def by_the_tool(move):
    topic = move.filled()
    plan = move.cluster.folder / "plan.json"
    partitions = [{"topic": topic, "partition": 0, "replicas": [3], "log_dirs": ["any"]}]
    plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
    home = kafka_path("3.9.1")

    def tool(*arguments):
        command = ["java", "-Xmx256M", "-cp", f"{home}/libs/*", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"]
        command += ["--bootstrap-server", move.cluster.bootstrap, "--reassignment-json-file", str(plan), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        return done.stdout

    began = time.monotonic()
    said = tool("--execute", "--throttle", str(RATE))
    assert "Successfully started partition reassignment" in said, said
    move.wait(topic, [3])
    seconds = time.monotonic() - began
    assert seconds >= SECONDS_MIN, f"{seconds:.1f} s"
    said = tool("--verify")
    assert "is completed" in said and "Clearing topic-level throttles" in said, said
    return f"{seconds:.1f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--java", action="store_true", help="with kafka-reassign-partitions as well")
    options = parser.parse_args()
    rows = Rows()
    cluster = Several(3, {"default.replication.factor": "1"}, os.environ.get("KLAMM_AGAINST", ""))
    try:
        cluster.start()
        move = Move(cluster)
        rows.run("a partition moves at once", at_once, move)
        rows.run("its leader holds it back", by_leader, move)
        rows.run("its follower holds it back", by_follower, move)
        rows.run("a replica in sync is not held back", in_sync, move)
        if options.java:
            rows.run("kafka-reassign-partitions --throttle", by_the_tool, move)
    finally:
        with contextlib.suppress(Exception):
            cluster.stop()
        cluster.remove()
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
