"""Requests of an administrator and a look at single replicas, over the raw client: Metadata 1, CreateTopics 2,
Fetch 11 (which followers answer, too), ElectLeaders 1, AlterPartitionReassignments 0, ListPartitionReassignments 0."""

import dataclasses
import struct

from kit import wire
from kit.wire import string


@dataclasses.dataclass(frozen=True)
class Partition:
    error: int
    leader: int
    replicas: tuple
    isr: tuple


def compact(text):
    data = text.encode()
    return unsigned(len(data) + 1) + data


def unsigned(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_unsigned(r):
    shift = n = 0
    while True:
        byte = r.take("B")
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return n


def compact_string(r):
    n = read_unsigned(r)
    r.at += max(n - 1, 0)
    return None if n == 0 else r.data[r.at - n + 1 : r.at].decode()


def compact_array(r, element):
    return [element(r) for _ in range(max(read_unsigned(r) - 1, 0))]


class Admin(wire.Client):
    """One connection to one broker; most calls here are answered by the controller only."""

    def describe(self, topics=None):
        """(controller id, live broker ids, {topic: {partition: Partition}}); None for all topics."""
        names = struct.pack(">i", -1) if topics is None else struct.pack(">i", len(topics)) + b"".join(map(string, topics))
        r = self.call(3, 1, names)
        brokers = r.array(lambda r: (r.take("i"), r.string(), r.take("i"), r.string())[0])
        controller = r.take("i")

        def partition(r):
            error, index, leader = r.take("hii")
            replicas = tuple(r.array(lambda r: r.take("i")))
            return index, Partition(error, leader, replicas, tuple(r.array(lambda r: r.take("i"))))

        def topic(r):
            r.take("h")
            name = r.string()
            r.take("b")
            return name, dict(r.array(partition))

        return controller, brokers, dict(r.array(topic))

    def create(self, name, partitions, replication, configs=None, timeout_ms=20_000):
        """Error code."""
        configs = configs or {}
        one = string(name) + struct.pack(">ihi", partitions, replication, 0) + struct.pack(">i", len(configs))
        one += b"".join(string(k) + string(v) for k, v in configs.items())
        r = self.call(19, 2, struct.pack(">i", 1) + one + struct.pack(">i", timeout_ms) + b"\0")
        r.take("i")
        return r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1]

    def fetch_replica(self, topic, partition, offset, max_bytes=4 << 20):
        """(error, high watermark, records) of the replica of this broker, leader or not."""
        body = struct.pack(">iiiibii", -1, 100, 1, max_bytes, 0, 0, -1) + struct.pack(">i", 1) + string(topic)
        body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, max_bytes) + struct.pack(">i", 0) + string("")
        r = self.call(1, 11, body)
        _throttle, error, _session = r.take("ihi")
        if error:
            return error, -1, b""

        def answer(r):
            _index, error, high, _stable, _begin = r.take("ihqqq")
            r.array(lambda r: r.take("qq"))
            r.take("i")
            return error, high, r.bytes()

        return r.array(lambda r: (r.string(), r.array(answer)))[0][1][0]

    def elect_preferred(self, topic, partitions, timeout_ms=10_000):
        """{partition: error}."""
        body = struct.pack(">bi", 0, 1) + string(topic) + struct.pack(">i", len(partitions))
        body += b"".join(struct.pack(">i", p) for p in partitions) + struct.pack(">i", timeout_ms)
        r = self.call(43, 1, body)
        _throttle, error = r.take("ih")

        def partition(r):
            index, code = r.take("ih")
            r.string()
            return index, code

        found = dict(pair for _, pairs in r.array(lambda r: (r.string(), r.array(partition))) for pair in pairs)
        return found if not error else {p: error for p in partitions}

    def reassign(self, topic, assignment, timeout_ms=20_000):
        """Starts to move partitions to {partition: [replica, …]}. (error, {partition: error})."""
        parts = unsigned(len(assignment) + 1)
        for partition, replicas in assignment.items():
            parts += struct.pack(">i", partition) + unsigned(len(replicas) + 1)
            parts += b"".join(struct.pack(">i", one) for one in replicas) + b"\0"
        r = self.call(45, 0, b"\0" + struct.pack(">i", timeout_ms) + unsigned(2) + compact(topic) + parts + b"\0\0")
        r.take("b")
        _throttle, error = r.take("ih")
        compact_string(r)

        def partition(r):
            index, code = r.take("ih")
            compact_string(r)
            r.take("b")
            return index, code

        def one(r):
            name = compact_string(r)
            found = dict(compact_array(r, partition))
            r.take("b")
            return name, found

        return error, dict(compact_array(r, one)).get(topic, {})

    def reassigning(self, timeout_ms=20_000):
        """(error, {(topic, partition): (replicas, adding, removing)}) of what is under way."""
        r = self.call(46, 0, b"\0" + struct.pack(">i", timeout_ms) + b"\0\0")
        r.take("b")
        _throttle, error = r.take("ih")
        compact_string(r)

        def ids(r):
            return compact_array(r, lambda r: r.take("i"))

        def partition(r):
            found = (r.take("i"), ids(r), ids(r), ids(r))
            r.take("b")
            return found

        moving = {}

        def topic(r):
            name = compact_string(r)
            for index, *rest in compact_array(r, partition):
                moving[name, index] = tuple(rest)
            r.take("b")

        compact_array(r, topic)
        return error, moving
