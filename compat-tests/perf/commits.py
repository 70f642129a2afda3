"""Ten million offset commits over a hundred keys, SIGKILL, and how soon the group answers again.

A broker that only appends would replay all of them; one that compacts in time replays little. OffsetCommit requests of
a hundred partitions each are pipelined over a few connections, prepared bytes in plain Python, so that the broker is what
is busy. Offsets are counted up, and the last request alone decides what must be answered after the restart.
"""

import struct
import time

from kit.wire import Client, batches, string

GROUP, TOPIC, KEYS = "commits", "commits", 100
CONNECTIONS, WINDOW = 2, 16
COORDINATOR_LOADING = 14
OFFSETS_PARTITIONS = 50


def offsets_partition(group):
    """The partition of __consumer_offsets that holds a group (of ASCII): Java's String.hashCode, without its sign."""
    code = 0
    for character in group:
        code = (code * 31 + ord(character)) & 0xFFFFFFFF
    return min(code, (1 << 32) - code) % OFFSETS_PARTITIONS


class Committer(Client):
    """A connection that keeps `WINDOW` OffsetCommit requests (version 2, no member) under way."""

    HEAD = string(GROUP) + struct.pack(">i", -1) + string("") + struct.pack(">q", -1)
    HEAD += struct.pack(">i", 1) + string(TOPIC) + struct.pack(">i", KEYS)
    PARTITION = struct.Struct(">" + "iqh" * KEYS)
    # Before the partitions, which come in any order: index in four bytes, error in two.
    REPLY_HEAD = struct.pack(">i", 1) + string(TOPIC) + struct.pack(">i", KEYS)

    def send_commit(self, offset):
        fields = [-1] * (3 * KEYS)
        fields[0::3] = range(KEYS)
        fields[1::3] = range(offset, offset + KEYS)
        self.send(8, 2, self.HEAD + self.PARTITION.pack(*fields))

    def receive_commit(self):
        answer = self.receive().data
        head, partitions = answer[: len(self.REPLY_HEAD)], answer[len(self.REPLY_HEAD) :]
        if head != self.REPLY_HEAD or any(partitions[4::6]) or any(partitions[5::6]):
            raise RuntimeError(f"a commit was refused: {answer[:120]}")


def commit(port, count):
    """Commits `count` times to every key; answers the seconds that took."""
    connections = [Committer(port, timeout=120) for _ in range(CONNECTIONS)]
    begin, left = time.monotonic(), count - 1
    for _ in range(WINDOW):
        for connection in connections:
            connection.send_commit(left)
    left -= WINDOW * CONNECTIONS
    while left > 0:
        for connection in connections:
            connection.receive_commit()
            connection.send_commit(left)
        left -= CONNECTIONS
    for connection in connections:
        for _ in range(WINDOW):
            connection.receive_commit()
    connections[0].send_commit(count)
    connections[0].receive_commit()
    seconds = time.monotonic() - begin
    for connection in connections:
        connection.close()
    return seconds


def fetch_committed(client):
    """(error, [offset of every key]) by OffsetFetch 2."""
    body = string(GROUP) + struct.pack(">i", 1) + string(TOPIC) + struct.pack(">i", KEYS)
    r = client.call(9, 2, body + struct.pack(">" + "i" * KEYS, *range(KEYS)))

    def partition(r):
        index, offset = r.take("iq")
        r.string()
        return index, offset, r.take("h")

    topics = r.array(lambda r: (r.string(), r.array(partition)))
    error = r.take("h")
    return error, [offset for _, partitions in topics for _, offset, _ in sorted(partitions)]


def until_answered(broker, wanted, deadline=300.0):
    """Starts the broker; seconds from its start to its ready line, and on to the right offsets of the group."""
    began = time.monotonic()
    broker.start()
    ready = answered = None
    while ready is None or answered is None:
        now = time.monotonic() - began
        if now > deadline:
            raise TimeoutError(f"{broker.name}: ready after {ready}, answered after {answered} s")
        if answered is None:
            with Client(broker.port) as client:
                error, offsets = fetch_committed(client)
            if error == 0 and offsets:
                if offsets != wanted:
                    raise RuntimeError(f"{broker.name}: committed {wanted[:3]}…, after the restart {offsets[:3]}…")
                answered = time.monotonic() - began
        if ready is None and "started (kafka.server." in broker.log():
            ready = time.monotonic() - began
        time.sleep(0.002)
    return ready, answered


def group_log(port):
    """(records, bytes) that lie in the group's partition of __consumer_offsets."""
    count = size = 0
    partition = offsets_partition(GROUP)
    with Client(port, timeout=120) as client:
        _, at = client.list_offsets("__consumer_offsets", [partition], -2)[partition]
        _, end = client.list_offsets("__consumer_offsets", [partition], -1)[partition]
        while at < end:
            error, _, fetched = client.fetch("__consumer_offsets", {partition: at}, max_bytes=32 << 20)[partition]
            if error:
                raise RuntimeError(f"reading __consumer_offsets-{partition}: error {error}")
            before = at
            for _base, last, one in batches(fetched):
                count += struct.unpack_from(">i", one, 57)[0]
                size += len(one)
                at = last + 1
            if at == before:
                break
    return count, size


def measure(broker, commits):
    """One broker, from its first start on: a dictionary of figures. What is left of the group's log is counted after
    the restart, so that the kill meets whatever is going on."""
    broker.start()
    with Client(broker.port, timeout=60) as client:
        error = client.create_topic(TOPIC, KEYS)
        if error:
            raise RuntimeError(f"{broker.name}: error {error}")
        while client.find_coordinator(GROUP)[0] or fetch_committed(client)[0]:
            time.sleep(0.05)
    before = broker.cpu_seconds()
    requests = commits // KEYS
    seconds = commit(broker.port, requests)
    cpu = broker.cpu_seconds() - before
    memory = broker.memory_mib()
    broker.kill()
    disk = sum(path.stat().st_blocks * 512 for path in (broker.folder / "data").rglob("*"))
    broker.wait_for_session()
    ready, answered = until_answered(broker, list(range(requests, requests + KEYS)))
    records, size = group_log(broker.port)
    return {"commits/s": commits / seconds, "CPU s": cpu, "MiB on disk": disk / (1 << 20), "peak RSS MiB": memory[1],
            "ready after s": ready, "answered after s": answered, "answered after ready s": max(0.0, answered - ready),
            "records left": records, "MiB left": size / (1 << 20)}
