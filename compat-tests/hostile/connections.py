"""Hostile input through real connections, row by row; how the decoders themselves bear it is `cargo test --test hostile`.

The numbers are those of the rows of the project's table of hostile input. How a run goes: `suite.py`.
"""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

from hostile.frames import (
    METADATA,
    MIB,
    NOW,
    batch,
    fetch7,
    fetch_of,
    frame,
    gzip_bomb,
    join,
    lz4_bomb,
    lz4_frame,
    produce,
    record,
    snappy_bomb,
    string,
    uvarint,
    varint,
    zstd_bomb,
)  # fmt: skip
from hostile.suite import QUICK, case, closed, connect, equal, is_closed, main, one_of, raise_descriptors

FRAME_MAX = 100 * MIB  # socket.request.max.bytes
QUEUED_MAX = 200 * MIB
REPLIES_MAX = 64 * MIB
IDLE_S = 6 if QUICK else 15
GROUP_SIZE_MAX = 50
SETTINGS = {
    "queued.max.request.bytes": str(QUEUED_MAX),
    "klamm.reply.bytes": str(REPLIES_MAX),
    "connections.max.idle.ms": str(IDLE_S * 1000),
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
    "group.max.size": str(GROUP_SIZE_MAX),
}


# ---- rows 1 to 5: frames ---------------------------------------------------------------------------------------------


@case("5 TLS hello and HTTP to the port")
def strangers(host):
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(508)
    closed(host.port, hello, "TLS hello")
    for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.1\r\n\r\n"):
        closed(host.port, request, "HTTP")
    # The line comes after the close.
    for _ in range(100):
        log = host.log()
        if log.count("this is Kafka, not HTTP") == 2 and log.count("TLS handshake") == 1:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("no hint in the log")
    for _ in range(300):
        closed(host.port, b"GET / HTTP/1.1\r\n\r\n", "HTTP")
    lines = host.log().count("not HTTP")
    assert lines <= 110, f"{lines} log lines for 302 requests"
    return f"{lines} log lines for 302 requests"


@case("1 sizes below 0 and above the maximum")
def sizes(host):
    for size in (-1, -(2**31), FRAME_MAX + 1, 2**31 - 1):
        closed(host.port, struct.pack(">i", size), f"size {size}")


@case("2 90 MiB announced by 50, two bytes sent")
def announced(host):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            s = stack.enter_context(connect(host.port))
            s.sendall(struct.pack(">i", 90 * MIB) + b"\0\3")
        time.sleep(1)
        return f"another client answered after {host.answers(1.0) * 1000:.0f} ms"


@case("2 90 MiB announced by 6, all but the last sent", peak=QUEUED_MAX // MIB // 2 + 16)
def unfinished(host):
    """Only so many are received at a time; who stalls while others wait loses the connection."""
    body = bytes(MIB)
    done = threading.Event()

    def stall(s):
        with contextlib.suppress(OSError):
            s.sendall(struct.pack(">i", 90 * MIB) + b"\0\0\0\3")
            for _ in range(89):
                s.sendall(body)
            done.wait(30)

    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(host.port, 30)) for _ in range(6)]
        threads = [threading.Thread(target=stall, args=(s,), daemon=True) for s in sockets]
        for thread in threads:
            thread.start()
        time.sleep(1)
        small = host.answers(1.0)
        began = time.monotonic()
        if not QUICK:
            # Beyond what is left: it waits until those who stall give way.
            with host.client(60) as c:
                equal(c.produce("t", {0: batch(record(bytes(12 * MIB)), crc=0)})[0][0], 10, "a large request")
        large = time.monotonic() - began
        done.set()
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
    return f"meanwhile: a small request {small * 1000:.0f} ms" + ("" if QUICK else f", one of 12 MiB {large:.1f} s")


@case("3 no request at all, unknown keys and versions")
def edges(host):
    closed(host.port, struct.pack(">i", 0), "size 0")
    closed(host.port, struct.pack(">ihhi", 8, 3, 1, 1), "header without client id")
    closed(host.port, frame(0, 3), "header only")
    for key, version in ((-1, 0), (1000, 0), (32767, 0), (3, -1), (3, 99), (0, 99), (1, 32767), (18, -2)):
        if key != 18:
            closed(host.port, frame(key, version, bytes(8)), f"key {key} version {version}")
    closed(host.port, frame(3, 1, struct.pack(">i", 0), client=b"\x7f\xff"), "client id longer than the frame")
    closed(host.port, frame(3, 1, struct.pack(">i", 2**31 - 1)), "2^31 topics")
    closed(host.port, frame(3, 9, b"\xff\xff\xff\xff\xff\xff\xff", flexible=True), "a varint of seven bytes")
    with connect(host.port) as s:
        s.sendall(frame(3, 1, struct.pack(">i", 0), client=b"\xff\xff"))
        assert s.recv(4), "a null client id was refused"


@case("4 ApiVersions of a version to come")
def api_versions(host):
    with host.client() as c:
        r = c.call(18, 99, b"\xff" * 9)
        equal(r.take("h"), 35, "error")
        keys = r.array(lambda r: r.take("hhh"))
        assert any(key == 18 for key, _, _ in keys), "the range of ApiVersions is missing"
        assert c.metadata([])[0], "the connection did not stay"


# ---- row 9: Produce --------------------------------------------------------------------------------------------------


@case("9 produce: acks, batches and their headers", peak=16)
def produce_table(host):
    good = batch()
    two_hours = NOW + 2 * 3600 * 1000
    with host.client() as c:
        equal(c.create_topic("compacted", 1, configs={"cleanup.policy": "compact"}), 0, "create")
        equal(c.create_topic("small", 1, configs={"segment.bytes": "1024"}), 0, "create")
        equal(c.create_topic("now", 1, configs={"message.timestamp.after.max.ms": "3600000"}), 0, "create")
        codes = [
            ("t", "acks 2", good, 21, 2),
            ("t", "acks -2", good, 21, -2),
            ("t", "null records", None, 87, -1),
            ("t", "no batch", b"", 87, -1),
            ("t", "magic 1", batch(magic=1), 87, -1),
            ("t", "magic 3", batch(magic=3), (2, 87), -1),
            ("t", "two batches", good + good, 87, -1),
            ("t", "zstd in version 3", batch(b"\x28\xb5\x2f\xfd", attributes=4), 76, -1),
            ("t", "base offset 5", batch(base=5), 87, -1),
            ("t", "larger than max.message.bytes", batch(record(bytes(1_100_000)), crc=1), 10, -1),
            ("t", "wrong crc", batch(crc=1), 2, -1),
            ("t", "last offset below the base", batch(last_delta=-1), 87, -1),
            ("t", "count 0", batch(count=0, last_delta=0), 87, -1),
            ("t", "count -1", batch(count=-1, last_delta=0), 87, -1),
            ("t", "count beside the range", batch(count=1, last_delta=1), 87, -1),
            ("t", "count above the records", batch(count=3), 87, -1),
            ("t", "2^31 records", batch(count=2**31 - 1), 87, -1),
            ("t", "control batch", batch(attributes=0x20), 87, -1),
            ("t", "transactional batch", batch(attributes=0x10, producer=(1, 0, 0)), None, -1),
            ("t", "producer id without sequence", batch(producer=(1, 0, -1)), 87, -1),
            ("t", "unknown codec", batch(attributes=6), None, -1),
            ("t", "gzip that is none", batch(b"not gzip at all", attributes=1), None, -1),
            ("t", "record length beyond the batch", batch(varint(1000) + b"\0"), 87, -1),
            ("t", "a batch cut short", good[:-1], None, -1),
            ("t", "17 bytes", good[:17], None, -1),
            ("compacted", "no key into a compacted topic", good, 87, -1),
            ("small", "larger than segment.bytes", batch(record(bytes(2000))), 18, -1),
            ("now", "two hours ahead", batch(time_ms=two_hours), 32, -1),
            ("nowhere", "unknown topic", good, 3, -1),
        ]
        for topic, what, records, wanted, acks in codes:
            r = c.call(0, 3, produce(topic, records, acks))
            answer = r.array(lambda r: (r.string(), r.array(lambda r: r.take("ihqq"))))
            error = answer[0][1][0][1]
            if wanted is None:
                assert error != 0, f"{what}: accepted"
            else:
                one_of(error, wanted if isinstance(wanted, tuple) else (wanted,), what)
    for topic in ("t", "compacted", "small", "now"):
        equal(host.end(topic), 0, f"end of {topic}")
    closed(host.port, frame(0, 3, produce("t", batch(crc=1), acks=0)), "acks=0 with a wrong crc")
    closed(host.port, frame(0, 3, produce("nowhere", good, acks=0)), "acks=0 to an unknown topic")
    with host.client() as c:
        equal(c.produce("t", {0: good})[0][0], 0, "a good batch")
    return f"{len(codes)} inputs, nothing appended"


# ---- row 10: bombs ---------------------------------------------------------------------------------------------------


@case("10 decompression bombs and broken streams", peak=64 + 48)
def bombs(host):
    large = 128 * MIB if QUICK else 512 * MIB
    snappy = 1 if QUICK else 96 * MIB
    inputs = [
        ("gzip bomb", 1, gzip_bomb(large)),
        ("lz4 bomb", 3, lz4_bomb(160 * MIB)),
        ("zstd bomb", 4, zstd_bomb(1024 * MIB)),
        ("zstd window of 2 GiB", 4, zstd_bomb(MIB, window=0xA8)),
        ("snappy of 4 GiB announced", 2, b"\xff\xff\xff\xff\x0f\0"),
        ("snappy with a broken xerial header", 2, b"\x82SNAPPY\0\0\0\0\1\0\0\0\1\x7f\xff\xff\xff\0"),
        ("lz4 with an offset before its start", 3, lz4_frame(b"\x1f\0\xff\xff\xff\0\x50" + bytes(5))),
        ("lz4 with a wrong header checksum", 3, b"\x04\x22\x4d\x18\x60\x70\0" + bytes(8)),
        ("zstd without an end", 4, zstd_bomb(MIB)[:40]),
    ]
    if not QUICK:
        inputs.append(("snappy bomb", 2, snappy_bomb(snappy)))
    with host.client(60) as c:
        equal(c.create_topic("bombs", 1, configs={"max.message.bytes": str(16 * MIB)}), 0, "create")
        for what, codec, data in inputs:
            records = batch(data, attributes=codec)
            version = 7 if codec == 4 else 3
            r = c.call(0, version, produce("bombs", records))
            r.take("i")
            r.string()
            error = r.take("iih")[2]
            assert error not in (0, -1), f"{what}: error {error}"
        equal(host.end("bombs"), 0, "end")
    return f"{len(inputs)} inputs, nothing appended"


# ---- row 11: Fetch ---------------------------------------------------------------------------------------------------


@case("11 fetch: absurd values, partitions, sessions", peak=96)
def fetches(host):
    longest = 2**31 - 1
    with host.client() as c:
        for offset in (10**15, -1, -(2**63)):
            error = c.fetch("t", {0: offset}, max_bytes=longest, max_wait_ms=longest)[0][0]
            equal(error, 1, f"offset {offset}")
        for session, epoch, wanted in ((12345, 1, 70), (-1, 5, 70), (0, 7, 70)):
            r = c.call(1, 7, fetch7(session, epoch, []))
            r.take("i")
            one_of(r.take("h"), (wanted, 71), f"session {session} epoch {epoch}")
        r = c.call(1, 7, fetch7(0, 0, [(0, 0)]))
        error, session = r.take("ihi")[1:]
        assert error == 0 and session != 0, "no session was opened"
        r = c.call(1, 7, fetch7(session, 9, []))
        equal(r.take("ih")[1], 71, "epoch 9 after 0")
        r = c.call(1, 7, fetch7(session, 1, [], forgotten=500_000))
        one_of(r.take("ih")[1], (0, 71), "half a million forgotten partitions")
        partitions = 50_000
        r = c.call(1, 7, fetch7(0, -1, [(p, 0) for p in range(1, partitions + 1)]))
        equal(r.take("ihi")[1], 0, "50 000 partitions")
        answer = r.array(lambda r: (r.string(), r.array(lambda r: (r.take("ihqqq"), r.take("i"), r.take("i"))[0][1])))
        one_of(set(answer[0][1]), ({3},), "unknown partitions")
        for _ in range(1000 if QUICK else 10_000):
            c.call(1, 7, fetch7(0, 0, [(0, 10**15)]))
    # Parked for 24 days, and gone: the place is given back.
    for _ in range(200):
        with connect(host.port) as s:
            s.sendall(frame(1, 7, fetch7(0, -1, [(0, host_end(host))], wait_ms=longest)[:8] + struct.pack(">i", longest)
                            + fetch7(0, -1, [(0, host_end(host))], wait_ms=longest)[12:]))
    return "50 000 partitions, 1 000 sessions" if QUICK else "50 000 partitions, 10 000 sessions"


def host_end(host, cache={}):  # noqa: B006, asked once
    if "end" not in cache:
        cache["end"] = host.end()
    return cache["end"]


# ---- row 12: groups --------------------------------------------------------------------------------------------------


@case("12 groups: time-outs, names, metadata, members", peak=48)
def groups(host):
    with host.client(30) as c:
        deadline = time.monotonic() + 15
        while c.call(12, 1, string("g") + struct.pack(">i", 1) + string("ghost")).take("ih")[1] in (14, 15, 16):
            assert time.monotonic() < deadline, "the coordinator does not load"
            r = c.call(10, 1, string("g") + b"\0")
            r.take("ih")
            time.sleep(0.1)

        def joined(*args, **kwargs):
            return c.call(11, kwargs.get("version", 2), join(*args, **kwargs)).take("ih")[1]

        for session_ms in (1, 0, -1, 2**31 - 1):
            equal(joined("g", session_ms=session_ms), 26, f"session time-out {session_ms}")
        equal(joined(""), 24, "empty group id")
        equal(joined("g", member="ghost"), 25, "unknown member")
        large = joined("large", metadata=bytes(MIB))
        one_of(large, (0, -1), "1 MiB of metadata")
        seen = [joined("crowd", version=5) for _ in range(500 if QUICK else 10_000)]
        one_of(set(seen), ({79}, {79, 81}), "joins without a member id")
        for length, wanted in ((4096, (0, 25)), (4097, (12,)), (32767, (12,))):
            body = string("plain") + struct.pack(">i", -1) + string("") + struct.pack(">qi", -1, 1) + string("t")
            body += struct.pack(">iiq", 1, 0, 5) + string("x" * length)
            r = c.call(8, 2, body)
            error = r.array(lambda r: (r.string(), r.array(lambda r: r.take("ih"))))[0][1][0][1]
            one_of(error, wanted, f"{length} bytes of offset metadata")
    closed(host.port, frame(11, 2, join("huge", metadata=bytes(17 * MIB))), "17 MiB of metadata")
    return f"{len(seen)} joins without an id: {seen.count(79)} times 79, {seen.count(81)} times 81; 1 MiB of metadata: {large}"


# ---- row 13: names and counts ----------------------------------------------------------------------------------------


@case("13 topic names, absurd partitions, long configs", peak=96)
def names(host):
    with host.client(30) as c:
        for name in ("", ".", "..", "a" * 250, "a/b", "../../etc", "a\0b", "Zoë", "a b"):
            equal(c.create_topic(name, 1), 17, f"name {name[:20]!r}")
        equal(c.create_topic("a.b", 1), 0, "a.b")
        equal(c.create_topic("a_b", 1), 17, "a_b beside a.b")
        equal(c.create_topic("n" * 249, 1), 0, "249 characters")
        for partitions in (0, -2, 1_000_000, 2**31 - 1):
            one_of(c.create_topic("many", partitions), (37, 44), f"{partitions} partitions")

        def replicas(factor):
            one = string("copies") + struct.pack(">ihii", 1, factor, 0, 0)
            r = c.call(19, 2, struct.pack(">i", 1) + one + struct.pack(">i", 5000) + b"\0")
            r.take("i")
            return r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1]

        for factor in (0, -2, 2, 32767):
            equal(replicas(factor), 38, f"replication factor {factor}")
        for count in (0, -1, 1, 1_000_000_000):
            body = struct.pack(">i", 1) + string("t") + struct.pack(">iiib", count, -1, 5000, 0)
            r = c.call(37, 1, body)
            r.take("i")
            error = r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1]
            one_of(error, (37, 44), f"grow to {count} partitions")
        long = 10 * MIB
        config = b"\x02" + b"\x0dcleanup.policy"[:1] + b"retention.ms" + uvarint(long + 1) + b"x" * long + b"\0"
        topic = b"\x02" + b"\x05long" + struct.pack(">ih", 1, 1) + b"\1" + config + b"\0"
        r = c.call(19, 5, b"\0" + topic + struct.pack(">i", 5000) + b"\0\0")
        r.take("b")
        error = struct.unpack(">h", r.data[r.at + 4 + 1 + 5 : r.at + 4 + 1 + 5 + 2])[0]
        equal(error, 40, "a config value of 10 MiB")
        topics = c.metadata()[1]
        assert set(topics) - {"__consumer_offsets"} <= {"t", "compacted", "small", "now", "bombs", "a.b", "n" * 249, "big"}, sorted(topics)
    stray = set(os.listdir(host.broker.folder)) - {"data", "klamm.log", "klamm.properties"}
    assert not stray, f"files outside the log directory: {stray}"


# ---- row 14: connections ---------------------------------------------------------------------------------------------


def latency(host, seconds):
    """Sorted seconds that small produce requests of one client take."""
    took, until = [], time.monotonic() + seconds
    with host.client() as c:
        one_of(c.create_topic("quiet", 1), (0, 36), "create")
        while time.monotonic() < until:
            began = time.monotonic()
            equal(c.produce("quiet", {0: batch(record(bytes(100)))})[0][0], 0, "produce")
            took.append(time.monotonic() - began)
            time.sleep(0.004)
    return sorted(took)


def told(took):
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


def like_before(quiet, now):
    """At most twice what it was; some milliseconds more are the machine's, whose cores the test shares."""
    slack = 0.05 if QUICK else 0.01
    for part in (50, 99):
        before, after = quiet[len(quiet) * part // 100], now[len(now) * part // 100]
        assert after <= 2 * before + slack, f"another client: p{part} {after * 1000:.1f} ms, before {before * 1000:.1f} ms"


@case("14 ten thousand idle connections", peak=64)
def idle(host):
    """Four in five descriptors are the broker's bound on connections, and the rows before hold some."""
    count = min(500 if QUICK else 10_000, raise_descriptors() // 10 * 7 - 200)
    quiet = latency(host, 1 if QUICK else 3)
    with contextlib.ExitStack() as stack:
        # What the allocator and the kernel hold once is not a connection's.
        before = None
        began = time.monotonic()
        for n in range(count + 100):
            if n == 100:
                time.sleep(0.2)
                before = host.broker.memory_mib()[0]
            s = stack.enter_context(connect(host.port))
            s.sendall(METADATA)
            assert s.recv(4096), "no reply"
        per_connection = (host.broker.memory_mib()[0] - before) * 1024 / count
        took = time.monotonic() - began
        now = latency(host, 1 if QUICK else 3)
        answered = host.answers(1.0)
    assert per_connection <= 8, f"{per_connection:.1f} KiB per connection"
    like_before(quiet, now)
    note = f"{count}: {per_connection:.1f} KiB each; connected and answered in {took:.1f} s, then another in {answered * 1000:.0f} ms"
    return f"{note}; a client that produces: {told(quiet)}; meanwhile {told(now)}"


def storm(port, rate, seconds):
    """Connects so often a second, one after the other, and resets each; run as a process of its own."""
    reset = struct.pack("ii", 1, 0)
    took, began = [], time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        if len(took) >= (now - began) * rate:
            time.sleep(0.0005)
            continue
        with connect(port) as s:
            if len(took) % 2:
                s.sendall(METADATA)
                assert s.recv(4096), "no reply"
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        took.append(time.monotonic() - now)
    print(len(took) / (time.monotonic() - began), sorted(took)[len(took) * 99 // 100], max(took))


@case("14 five thousand connects a second")
def connects(host):
    """Every other one asks for Metadata. Then a thousand at once, as after a restart."""
    seconds = 1 if QUICK else 5
    quiet = latency(host, seconds)
    command = [sys.executable, __file__, "--storm", str(host.port), "2500", str(seconds + 0.5)]
    storms = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(0.3)
    now = latency(host, seconds)
    results = [[float(word) for word in s.communicate(timeout=60)[0].split()] for s in storms]
    assert all(results), "a connect failed"
    rate, p99, worst = sum(r[0] for r in results), max(r[1] for r in results), max(r[2] for r in results)
    like_before(quiet, now)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        waiting = {}
        poll = select.poll()
        for _ in range(1000):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", host.port))
            waiting[s.fileno()] = s
            poll.register(s, select.POLLOUT)
        while waiting:
            for descriptor, _ in poll.poll(1000):
                poll.unregister(descriptor)
                error = waiting.pop(descriptor).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                equal(error, 0, "connect")
    burst = time.monotonic() - began
    # The kernel lets those wait for a second that do not fit the queue of who has not been accepted yet.
    assert burst < 0.9, f"a thousand at once took {burst:.1f} s"
    note = f"{rate:.0f} a second, each p99 {p99 * 1000:.1f} ms, worst {worst * 1000:.0f} ms; a thousand at once in {burst * 1000:.0f} ms"
    return f"{note}; a client that produces: {told(quiet)}; meanwhile {told(now)}"


@case("14 a thousand pipelined requests", peak=32)
def pipelined(host):
    with connect(host.port) as s:
        s.sendall(b"".join(frame(3, 1, struct.pack(">i", -1), correlation=n) for n in range(1000)))
        others = sorted(host.answers() for _ in range(20))
        stream = s.makefile("rb")
        for n in range(1000):
            size = struct.unpack(">i", stream.read(4))[0]
            equal(struct.unpack(">i", stream.read(size)[:4])[0], n, "order of replies")
    return f"in order; others at most {others[-1] * 1000:.0f} ms"


def slowest_answer(host):
    """Seconds that another client waited at most, asking again and again for a while."""
    waits, until = [], time.monotonic() + (2 if QUICK else 5)
    while time.monotonic() < until:
        waits.append(host.answers())
        time.sleep(0.05)
    return max(waits)


@case("14 a reader that never reads", peak=160)
def never_reads(host):
    part = batch(record(bytes(900_000)))
    with host.client() as c:
        equal(c.create_topic("big", 1), 0, "create")
        for _ in range(30):
            equal(c.produce("big", {0: part})[0][0], 0, "produce")
    host.prepared()
    body = struct.pack(">iiiibi", -1, 1000, 1, 2**31 - 1, 0, 1) + string("big") + struct.pack(">iiqi", 1, 0, 0, 2**31 - 1)
    # The first waits for records that do not come, so that everything behind it piles up.
    waits = struct.pack(">iiiibi", -1, 3000, 1, 2**31 - 1, 0, 1) + string("big") + struct.pack(">iiqi", 1, 0, 30, 2**31 - 1)
    with connect(host.port, 2) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(TimeoutError):
            s.sendall(frame(1, 4, waits) + frame(1, 4, body) * 200)
        slowest = slowest_answer(host)
    return f"200 fetches of 27 MB each; another client answered after at most {slowest * 1000:.0f} ms"


@case("14 clients who pile up answers behind a slow one", rise=40, peak=REPLIES_MAX // MIB + 64)
def answers_pile_up(host):
    with host.client() as c:
        equal(c.create_topic("slow", 1), 0, "create")
    host.prepared()
    # The first waits for records that do not come; what is asked behind it is answered at once, and waits.
    waits = struct.pack(">iiiibi", -1, 60_000, 1, 2**31 - 1, 0, 1) + string("slow") + struct.pack(">iiqi", 1, 0, 0, 2**20)
    # All settings of the broker, with their documentation: some 40 KB.
    asks = frame(32, 3, struct.pack(">ib", 1, 4) + string("1") + struct.pack(">ibb", -1, 1, 1))
    with contextlib.ExitStack() as stack:
        for _ in range(30 if QUICK else 100):
            s = stack.enter_context(connect(host.port, 2))
            with contextlib.suppress(TimeoutError):
                s.sendall(frame(1, 4, waits) + asks * 90)
        slowest = slowest_answer(host)
    return f"another client answered after at most {slowest * 1000:.0f} ms"


# Beside the budget: one batch for each that reads from storage at the same time, and what is read ahead, which stays.
@case("14 readers of 50 MiB of a cold log who never read", rise=40, peak=REPLIES_MAX // MIB + 96)
def cold_never_read(host):
    """More than the tail holds, in batches of 900 kB: nobody else's reply fits what is sent without being counted."""
    count = 20 if QUICK else 200
    part = batch(record(bytes(900_000)))
    with host.client() as c:
        for topic in ("cold", "warm"):
            equal(c.create_topic(topic, 1), 0, "create")
        for _ in range(80):
            equal(c.produce("cold", {0: part})[0][0], 0, "produce")
    time.sleep(2)
    host.prepared()
    took = {"Metadata": [], "produce and fetch of 100 B": [], "fetch of 900 kB": []}
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            s = socket.socket()
            stack.callback(s.close)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", host.port))
            s.sendall(fetch_of("cold", 0, max_bytes=50 * MIB) * 3)
        until = time.monotonic() + (4 if QUICK else 10)
        with host.client() as c:
            large = 0
            while time.monotonic() < until:
                began = time.monotonic()
                assert c.metadata([])[0]
                took["Metadata"].append(time.monotonic() - began)
                began = time.monotonic()
                error, base = c.produce("warm", {0: batch(record(bytes(100)))})[0]
                equal(error, 0, "produce")
                assert c.fetch("warm", {0: base})[0][2], "no records"
                took["produce and fetch of 100 B"].append(time.monotonic() - began)
                began = time.monotonic()
                if c.fetch("cold", {0: large % 80})[0][2]:
                    took["fetch of 900 kB"].append(time.monotonic() - began)
                    large += 1
                time.sleep(0.02)
    assert large, "nobody got a large batch"
    notes = []
    for what, times in took.items():
        times.sort()
        notes.append(f"{what} p50 {times[len(times) // 2] * 1000:.0f} ms, worst {times[-1] * 1000:.0f} ms")
    assert took["produce and fetch of 100 B"][-1] < 1, "small answers waited for large ones"
    return f"{count}; meanwhile {', '.join(notes)}"


# ---- the run ---------------------------------------------------------------------------------------------------------


class Dawdlers:
    """Connections that send a byte now and then while the other cases run; `connections.max.idle.ms` ends them."""

    def __init__(self, port):
        self.sockets = [connect(port) for _ in range(3)]
        self.sockets[0].sendall(struct.pack(">i", 1000))
        self.sockets[1].sendall(b"\0\0")
        self.began, self.stop = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self.dawdle, daemon=True)
        self.thread.start()

    def dawdle(self):
        while not self.stop.wait(0.5):
            with contextlib.suppress(OSError):
                self.sockets[0].sendall(b"\0")

    def end(self, _host):
        """Slow, half a size, silent."""
        self.stop.wait(max(0, self.began + IDLE_S + 1.5 - time.monotonic()))
        self.stop.set()
        self.thread.join()
        for s, what in zip(self.sockets, ("a byte each half second", "half a size", "silence")):
            assert is_closed(s, 1.0), f"{what}: not closed"
            s.close()
        return f"closed after connections.max.idle.ms ({IDLE_S} s)"


if __name__ == "__main__":
    if "--storm" in sys.argv:
        storm(*(float(word) if "." in word else int(word) for word in sys.argv[sys.argv.index("--storm") + 1 :]))
    else:
        main(SETTINGS, ("2 slow senders and silent ones", Dawdlers))
