"""Frames that a broker must refuse, or may, each with how to read its verdict; `codes` sends them to klamm and to Kafka.

A question is a name, the bytes of one frame, and a function from the response's body to what is compared: error codes
and a few numbers that do not depend on the broker. `None` instead of one: there should be no reply.
"""

import dataclasses
import struct
from collections.abc import Callable

from hostile.frames import (
    MIB,
    NOW,
    batch,
    fetch7,
    frame,
    gzip_bomb,
    join,
    lz4_frame,
    produce,
    record,
    string,
    uvarint,
    varint,
)

TOPICS = {
    "t": {},
    "compacted": {"cleanup.policy": "compact"},
    "small": {"segment.bytes": "1024"},
    "now": {"message.timestamp.after.max.ms": "3600000"},
    "appended": {"message.timestamp.type": "LogAppendTime"},
    "large": {"max.message.bytes": str(16 * MIB)},
    "grow": {},
    "kept": {},
}
FAR = 2**31 - 1


@dataclasses.dataclass
class Question:
    name: str
    data: bytes
    read: Callable | None = None


def i16(n):
    return struct.pack(">h", n)


def i32(n):
    return struct.pack(">i", n)


def i64(n):
    return struct.pack(">q", n)


def array(*elements):
    return i32(len(elements)) + b"".join(elements)


def compact(text):
    data = text.encode()
    return uvarint(len(data) + 1) + data


NULL_STRING = b"\xff\xff"
ALL = []


def ask(name, key, version, body, read, flexible=False):
    ALL.append(Question(name, frame(key, version, body, flexible=flexible), read))


def raw(name, data, read=None):
    ALL.append(Question(name, data, read))


# ---- how verdicts are read -------------------------------------------------------------------------------------------


def code_first(r):
    return r.take("h")


def code_after_throttle(r):
    return r.take("ih")[1]


def nested(head, element):
    """Codes of an array of (name, array of element), after `head`."""

    def read(r):
        if head:
            r.take(head)
        codes = [code for _, codes in r.array(lambda r: (r.string(), r.array(element))) for code in codes]
        return codes[0] if len(codes) == 1 else codes

    return read


def named(head, rest=lambda r: None):
    """Codes of an array of (name, code, …), after `head`."""

    def element(r):
        r.string()
        code = r.take("h")
        rest(r)
        return code

    def read(r):
        if head:
            r.take(head)
        codes = r.array(element)
        return codes[0] if len(codes) == 1 else codes

    return read


produced_3 = nested("", lambda r: r.take("ihqq")[1])
produced_7 = nested("", lambda r: r.take("ihqqq")[1])
offsets_listed = nested("i", lambda r: (lambda index, error, time, offset: (error, offset))(*r.take("ihqq")))
committed = nested("i", lambda r: r.take("ih")[1])
deleted = named("i")


def fetched_4(r):
    r.take("i")

    def partition(r):
        error = r.take("ihqq")[1]
        r.array(lambda r: r.take("qq"))
        r.bytes()
        return error

    return [code for _, codes in r.array(lambda r: (r.string(), r.array(partition))) for code in codes]


def fetched_7(r):
    error = r.take("ihi")[1]

    def partition(r):
        error = r.take("ihqqq")[1]
        r.array(lambda r: r.take("qq"))
        r.bytes()
        return error

    return error, [code for _, codes in r.array(lambda r: (r.string(), r.array(partition))) for code in codes]


def created(r):
    r.take("i")
    codes = r.array(lambda r: (r.string(), r.take("h"), r.string())[1])
    return codes[0] if len(codes) == 1 else codes


def described(r):
    r.take("i")

    def resource(r):
        error = r.take("h")
        r.string()
        r.take("b")
        r.string()

        def entry(r):
            r.string(), r.string(), r.take("bbb")
            r.array(lambda r: (r.string(), r.string(), r.take("b")))

        return error, len(r.array(entry)) > 0

    return r.array(resource)


def altered(r):
    r.take("i")

    def resource(r):
        error = r.take("h")
        r.string(), r.take("b"), r.string()
        return error

    return r.array(resource)


def metadata_1(r):
    r.array(lambda r: (r.take("i"), r.string(), r.take("i"), r.string()))
    r.take("i")

    def topic(r):
        error = r.take("h")
        r.string(), r.take("b")
        r.array(lambda r: (r.take("hii"), r.array(lambda r: r.take("i")), r.array(lambda r: r.take("i"))))
        return error

    return sorted(r.array(topic))


def groups_described(r):
    r.take("i")

    def group(r):
        error = r.take("h")
        r.string()
        state = r.string()
        r.string(), r.string()
        r.array(lambda r: (r.string(), r.string(), r.string(), r.bytes(), r.bytes()))
        return error, state

    return r.array(group)


def offsets_fetched_3(r):
    r.take("i")

    def partition(r):
        _, offset = r.take("iq")
        r.string()
        return r.take("h"), offset

    topics = r.array(lambda r: (r.string(), r.array(partition))[1])
    return r.take("h"), topics


def left_3(r):
    return r.take("ih")[1], r.array(lambda r: (r.string(), r.string(), r.take("h"))[2])


def answered(r):
    """Any reply will do."""
    return "answered"


# ---- frames and headers ----------------------------------------------------------------------------------------------

METADATA_BODY = i32(0)

for size in (-1, -(2**31), 100 * MIB + 1, FAR):
    raw(f"a frame of {size} bytes", i32(size))
raw("a frame of no bytes", i32(0))
raw("a header without client id", struct.pack(">ihhi", 8, 3, 1, 1))
raw("a header cut in its key", struct.pack(">ib", 1, 0))
raw("a TLS hello", bytes.fromhex("1603010200010001fc0303") + bytes(508))
raw("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
for key, version in ((-1, 0), (1000, 0), (32767, 0), (3, -1), (3, 99), (0, 99), (1, 32767), (11, 10)):
    raw(f"key {key}, version {version}", frame(key, version, bytes(8)))
raw("a client id longer than the frame", frame(3, 1, METADATA_BODY, client=b"\x7f\xff"))
raw("a client id of length -2", frame(3, 1, METADATA_BODY, client=b"\xff\xfe"))
raw("a client id that is not UTF-8", frame(3, 1, METADATA_BODY, client=b"\0\2\xff\xfe"), metadata_1)
raw("a null client id", frame(3, 1, METADATA_BODY, client=NULL_STRING), metadata_1)
raw("correlation id -5", frame(3, 1, METADATA_BODY, correlation=-5), metadata_1)
raw("ApiVersions 99", frame(18, 99, b"\xff" * 9, flexible=True), code_first)
raw("ApiVersions 99 with a header of old", frame(18, 99, b"\xff" * 9), code_first)
raw("ApiVersions -2", frame(18, -2, b""), code_first)
raw("ApiVersions 3 without a name", frame(18, 3, b"\1\1\0", flexible=True), code_first)
raw("ApiVersions 3 with a name of blanks", frame(18, 3, b"\4   \3 x\0", flexible=True), code_first)
raw("ApiVersions 3 with a body cut", frame(18, 3, b"\4", flexible=True), code_first)
header_9 = struct.pack(">hhi", 3, 9, 1) + b"\0\1x"
METADATA_9 = b"\1\1\0\0\0"  # no topics, create, and two booleans, no tags


def flexible(tags, body=METADATA_9):
    data = header_9 + tags + body
    return i32(len(data)) + data


raw("an unknown tag in the header", flexible(b"\1\x32\1x"), answered)
raw("header tags out of order", flexible(b"\2\x32\1x\x31\1x"), answered)
raw("a header tag twice", flexible(b"\2\x32\1x\x32\1x"), answered)
raw("more header tags than there are bytes", flexible(b"\xff\xff\x7f"))
raw("a header tag longer than the frame", flexible(b"\1\x32\xff\xff\x7f"))
raw("an unknown tag in the body", flexible(b"\0", METADATA_9[:-1] + b"\1\x32\1x"), answered)
raw("tag 10,000 at the end of the body", flexible(b"\0", METADATA_9[:-1] + b"\1" + uvarint(10_000) + b"\1x"), answered)
raw("body tags out of order", flexible(b"\0", METADATA_9[:-1] + b"\2\x32\1x\x31\1x"), answered)
raw("a body tag twice", flexible(b"\0", METADATA_9[:-1] + b"\2\x32\1x\x32\1x"), answered)
raw("a body tag longer than the frame", flexible(b"\0", METADATA_9[:-1] + b"\1\x32\xff\xff\x7f"))
raw("a varint of seven bytes", flexible(b"\0", b"\xff\xff\xff\xff\xff\xff\xff"))
raw("2^31 topics", frame(3, 1, i32(FAR)))
raw("-2 topics", frame(3, 1, i32(-2)), metadata_1)
raw("more topics than bytes", frame(3, 1, i32(9) + string("t")))
raw("a null topic name", frame(3, 1, array(NULL_STRING)))
raw("a topic name of length -2", frame(3, 1, array(b"\xff\xfe")))
raw("a topic name that is not UTF-8", frame(3, 1, array(b"\0\2\xff\xfe")), metadata_1)
raw("bytes after the body", frame(3, 1, METADATA_BODY + b"rest"), metadata_1)
raw("a null array that may not be null", frame(0, 3, struct.pack(">hhii", -1, -1, 5000, -1)), answered)
raw("a null group id", frame(12, 1, NULL_STRING + i32(1) + string("m")))


# ---- Produce ---------------------------------------------------------------------------------------------------------


def records_of(*parts, count=1, **how):
    return batch(b"".join(parts), count, **how)


def odd_record(fields):
    return varint(len(fields)) + fields


GOOD = batch()
PRODUCE = [
    ("t", "a good batch", GOOD),
    ("t", "no batch", b""),
    ("t", "null records", None),
    ("t", "magic 0", batch(magic=0)),
    ("t", "magic 1", batch(magic=1)),
    ("t", "magic 3", batch(magic=3)),
    ("t", "magic -1", batch(magic=-1)),
    ("t", "two batches", GOOD + GOOD),
    ("t", "a batch and a byte", GOOD + b"\0"),
    ("t", "a batch and twelve bytes", GOOD + bytes(12)),
    ("t", "zstd", batch(b"\x28\xb5\x2f\xfd", attributes=4)),
    ("t", "base offset 5", batch(base=5)),
    ("t", "base offset -1", batch(base=-1)),
    ("t", "larger than max.message.bytes", batch(record(bytes(1_100_000)), crc=1)),
    ("t", "wrong crc", batch(crc=1)),
    ("t", "last offset below the base", batch(last_delta=-1)),
    ("t", "count 0", batch(count=0, last_delta=0)),
    ("t", "count 0 and last offset -1", batch(b"", count=0, last_delta=-1)),
    ("t", "count -1", batch(count=-1, last_delta=0)),
    ("t", "count below the range", batch(count=1, last_delta=1)),
    ("t", "count above the records", batch(count=3)),
    ("t", "count below the records", records_of(record(b"a"), record(b"b", 1), count=1)),
    ("t", "2^31 records", batch(count=FAR)),
    ("t", "control batch", batch(attributes=0x20)),
    ("t", "transactional batch", batch(attributes=0x10, producer=(1, 0, 0))),
    ("t", "producer id without sequence", batch(producer=(1, 0, -1))),
    ("t", "a sequence without producer id", batch(producer=(-1, -1, 0))),
    ("t", "a producer id with epoch -1", batch(producer=(4001, -1, 0))),
    ("t", "codec 5", batch(attributes=5)),
    ("t", "codec 6", batch(attributes=6)),
    ("t", "codec 7", batch(attributes=7)),
    ("t", "unknown attribute bits", batch(attributes=0x7F00)),
    ("t", "delete horizon", batch(attributes=0x40)),
    ("t", "log append time", batch(attributes=0x08)),
    ("appended", "log append time into a topic that has it", batch(attributes=0x08)),
    ("t", "gzip that is none", batch(b"not gzip at all", attributes=1)),
    ("t", "snappy that is none", batch(b"not snappy at all", attributes=2)),
    ("t", "lz4 that is none", batch(b"not lz4 at all", attributes=3)),
    ("t", "gzip of nothing", batch(gzip_bomb(0)[:5], attributes=1)),
    ("t", "snappy with a broken xerial header", batch(b"\x82SNAPPY\0\0\0\0\1\0\0\0\1\x7f\xff\xff\xff\0", attributes=2)),
    ("t", "snappy of 4 GiB announced", batch(b"\xff\xff\xff\xff\x0f\0", attributes=2)),
    ("t", "lz4 with a wrong header checksum", batch(b"\x04\x22\x4d\x18\x60\x70\0" + bytes(8), attributes=3)),
    ("t", "lz4 with an offset before its start", batch(lz4_frame(b"\x1f\0\xff\xff\xff\0\x50" + bytes(5)), attributes=3)),
    ("t", "record length beyond the batch", batch(varint(1000) + b"\0")),
    ("t", "record length below its fields", batch(varint(1) + b"\0" * 8)),
    ("t", "record length -1", batch(varint(-1) + b"\0" * 8)),
    ("t", "a record with an attribute", batch(odd_record(b"\1\0\0" + varint(-1) + varint(1) + b"v" + varint(0)))),
    ("t", "a record with offset delta 5", batch(odd_record(b"\0" + varint(0) + varint(5) + varint(-1) + varint(0) + varint(0)))),
    ("t", "a record with a key of length -2", batch(odd_record(b"\0\0\0" + varint(-2) + varint(0) + varint(0)))),
    ("t", "a record with a value of length -2", batch(odd_record(b"\0\0\0" + varint(-1) + varint(-2) + varint(0)))),
    ("t", "a record with a null value", batch(odd_record(b"\0\0\0" + varint(-1) + varint(-1) + varint(0)))),
    ("t", "a record with -1 headers", batch(odd_record(b"\0\0\0" + varint(-1) + varint(0) + varint(-1)))),
    ("t", "a record with 1000 headers and none", batch(odd_record(b"\0\0\0" + varint(-1) + varint(0) + varint(1000)))),
    ("t", "a header with a null key", batch(odd_record(b"\0\0\0" + varint(-1) + varint(0) + varint(1) + varint(-1) + varint(0)))),
    ("t", "a record with bytes left over", batch(odd_record(b"\0\0\0" + varint(-1) + varint(0) + varint(0) + b"rest"))),
    ("t", "bytes after the records", batch(record(b"v") + b"rest")),
    ("t", "offset deltas that go back", records_of(record(b"a", 1), record(b"b", 0), count=2)),
    ("t", "a batch cut short", GOOD[:-1]),
    ("t", "17 bytes", GOOD[:17]),
    ("t", "a batch length of 0", GOOD[:8] + i32(0) + GOOD[12:]),
    ("t", "a batch length of -1", GOOD[:8] + i32(-1) + GOOD[12:]),
    ("t", "a batch length of 2^31-1", GOOD[:8] + i32(FAR) + GOOD[12:]),
    ("compacted", "no key into a compacted topic", GOOD),
    ("small", "larger than segment.bytes", batch(record(bytes(2000)))),
    ("now", "two hours ahead", batch(time_ms=NOW + 2 * 3600 * 1000)),
    ("t", "a hundred years ago", batch(time_ms=NOW - 100 * 365 * 86_400_000)),
    ("t", "timestamp -1", batch(time_ms=-1)),
    ("t", "timestamp -5", batch(time_ms=-5)),
    ("t", "timestamp 2^63-1", batch(time_ms=2**63 - 1)),
    ("nowhere", "unknown topic", GOOD),
    ("", "no topic name", GOOD),
    ("__consumer_offsets", "into __consumer_offsets", GOOD),
]  # fmt: skip
for topic, what, records in PRODUCE:
    ask(f"produce: {what}", 0, 3, produce(topic, records), produced_3)
for acks in (2, -2, 32767):
    ask(f"produce: acks {acks}", 0, 3, produce("t", GOOD, acks), produced_3)
for partition in (-1, 1, FAR):
    ask(f"produce: partition {partition}", 0, 3, produce("t", GOOD, partition=partition), produced_3)
for what, records in (("junk", b"not zstd at all"), ("no end", b"\x28\xb5\x2f\xfd\0\x58"), ("a window of 2 GiB", b"\x28\xb5\x2f\xfd\0\xa8\x23\3\0x")):
    ask(f"produce: zstd, {what}", 0, 7, produce("t", batch(records, attributes=4)), produced_7)
ask("produce: no topics", 0, 3, struct.pack(">hhi", -1, -1, 5000) + array(), produced_3)
ask("produce: a topic without partitions", 0, 3, struct.pack(">hhi", -1, -1, 5000) + array(string("t") + array()), produced_3)
ask("produce: time-out -1", 0, 3, struct.pack(">hhi", -1, 1, -1) + produce("t", GOOD)[8:], produced_3)
ask("produce: a partition twice", 0, 3, struct.pack(">hhi", -1, -1, 5000) + array(string("t") + array(*[i32(0) + i32(len(GOOD)) + GOOD] * 2)), produced_3)
ask("produce: a topic twice", 0, 3, struct.pack(">hhi", -1, -1, 5000) + array(*[string("t") + array(i32(0) + i32(len(GOOD)) + GOOD)] * 2), produced_3)
for what, records in (("a good batch", GOOD), ("a wrong crc", batch(crc=1))):
    raw(f"produce, acks 0: {what}", frame(0, 3, produce("t", records, acks=0)), None)
raw("produce, acks 0: unknown topic", frame(0, 3, produce("nowhere", GOOD, acks=0)), None)


def sequence(producer, epoch, base):
    return produce("t", batch(producer=(producer, epoch, base)))


for what, fields in (
    ("5 of an unknown producer", (7001, 0, 5)),
    ("0 of an unknown producer", (7002, 0, 0)),
    ("0 again", (7002, 0, 0)),
    ("2 after 0", (7002, 0, 2)),
    ("1 after 0", (7002, 0, 1)),
    ("1 of a new epoch", (7002, 1, 1)),
    ("0 of a new epoch", (7002, 1, 0)),
    ("1 of an old epoch", (7002, 0, 1)),
):
    ask(f"produce: sequence {what}", 0, 3, sequence(*fields), produced_3)


# ---- Fetch, ListOffsets, OffsetForLeaderEpoch, Metadata --------------------------------------------------------------


def fetch4(topic, offset, partition=0, wait_ms=0, replica=-1, isolation=0, max_bytes=1 << 20):
    body = struct.pack(">iiiib", replica, wait_ms, 0, max_bytes, isolation)
    return body + array(string(topic) + array(struct.pack(">iqi", partition, offset, max_bytes)))


for offset in (10**15, -1, -5, -(2**63)):
    ask(f"fetch: offset {offset}", 1, 4, fetch4("t", offset), fetched_4)
ask("fetch: unknown topic", 1, 4, fetch4("nowhere", 0), fetched_4)
ask("fetch: no topic name", 1, 4, fetch4("", 0), fetched_4)
for partition in (-1, 7):
    ask(f"fetch: partition {partition}", 1, 4, fetch4("t", 0, partition), fetched_4)
ask("fetch: wait of -1", 1, 4, fetch4("t", 0, wait_ms=-1), fetched_4)
ask("fetch: at most -1 bytes", 1, 4, fetch4("t", 0, max_bytes=-1), fetched_4)
ask("fetch: at most -1 bytes of what is there", 1, 4, fetch4("kept", 0, max_bytes=-1), fetched_4)
ask("fetch: for replica 5", 1, 4, fetch4("t", 0, replica=5), fetched_4)
ask("fetch: for replica -5", 1, 4, fetch4("t", 0, replica=-5), fetched_4)
ask("fetch: isolation 7", 1, 4, fetch4("t", 0, isolation=7), fetched_4)
ask("fetch: no topics", 1, 4, struct.pack(">iiiib", -1, 0, 0, 1, 0) + array(), fetched_4)
for session, epoch in ((12345, 1), (12345, 0), (-1, 5), (0, 7), (12345, -1)):
    ask(f"fetch: session {session}, epoch {epoch}", 1, 7, fetch7(session, epoch, []), fetched_7)
for epoch in (0, 5, -2):
    partition = struct.pack(">iiqqi", 0, epoch, 0, -1, 1 << 20)
    body = struct.pack(">iiiibii", -1, 0, 0, 1 << 20, 0, 0, -1) + array(string("t") + array(partition)) + array()
    ask(f"fetch: leader epoch {epoch}", 1, 9, body, fetched_7)
for timestamp in (-1, -2, -3, -4, -5, -100, 0, NOW + 10**9):
    body = i32(-1) + array(string("kept") + array(struct.pack(">iq", 0, timestamp)))
    ask(f"list offsets: timestamp {timestamp}", 2, 1, body, offsets_listed)
for topic, partition in (("nowhere", 0), ("t", 7), ("t", -1), ("", 0)):
    body = i32(-1) + array(string(topic) + array(struct.pack(">iq", partition, -1)))
    ask(f"list offsets: topic {topic!r}, partition {partition}", 2, 1, body, offsets_listed)
ask("list offsets: isolation 7", 2, 2, i32(-1) + b"\7" + array(string("kept") + array(struct.pack(">iq", 0, -1))), nested("ii"[:1], lambda r: r.take("ihqq")[1]))
ask("list offsets: a partition twice", 2, 1, i32(-1) + array(string("kept") + array(*[struct.pack(">iq", 0, -1)] * 2)), offsets_listed)


def epochs_ended(r):
    r.take("i")
    return r.array(lambda r: (r.string(), r.array(lambda r: (lambda e, p, epoch, end: (e, epoch, end))(*r.take("hiiq"))))[1])


for topic, current, epoch in (("kept", -1, 0), ("kept", -1, 100), ("kept", -1, -1), ("kept", 5, 0), ("kept", 0, 0), ("nowhere", -1, 0)):
    body = array(string(topic) + array(struct.pack(">iii", 0, current, epoch)))
    ask(f"end of epoch {epoch}, current {current}, {topic}", 23, 2, body, epochs_ended)
for name in ("", ".", "..", "a" * 249, "a" * 250, "a/b", "a b", "a\0b", "Zoë"):
    ask(f"metadata: name {name[:5]!r}, {len(name)} characters", 3, 1, array(string(name)), metadata_1)
ask("metadata: a name twice", 3, 1, array(string("t"), string("t")), metadata_1)


# ---- groups ----------------------------------------------------------------------------------------------------------

for session_ms in (1, 0, -1, FAR, 5999, 6000, 1_800_001):
    ask(f"join: session time-out {session_ms}", 11, 5, join("g", 5, session_ms=session_ms), code_after_throttle)
ask("join: empty group id", 11, 5, join("", 5), code_after_throttle)
ask("join: unknown member", 11, 5, join("g", 5, member="ghost"), code_after_throttle)


def join_with(group, kind="consumer", protocols=(("range", b"m"),), rebalance_ms=10_000, instance=NULL_STRING):
    body = string(group) + struct.pack(">ii", 10_000, rebalance_ms) + string("") + instance + string(kind)
    return body + array(*[string(name) + i32(len(data)) + data for name, data in protocols])


for what, how in {
    "no protocols": {"protocols": ()},
    "no protocol type": {"kind": ""},
    "an empty protocol name": {"protocols": (("", b"m"),)},
    "a protocol twice": {"protocols": (("range", b"m"), ("range", b"n"))},
    "rebalance time-out -1": {"rebalance_ms": -1},
    "rebalance time-out 0": {"rebalance_ms": 0},
    "an empty instance id": {"instance": string("")},
    "an instance id of 250 characters": {"instance": string("i" * 250)},
    "an instance id with a slash": {"instance": string("a/b")},
}.items():
    ask(f"join: {what}", 11, 5, join_with("odd " + what, **how), code_after_throttle)


def sync(group, generation=1, member="ghost"):
    return string(group) + i32(generation) + string(member) + array()


for group in ("g", "", "nobody"):
    ask(f"sync: group {group!r}", 14, 1, sync(group), code_after_throttle)
    ask(f"heartbeat: group {group!r}", 12, 1, string(group) + i32(1) + string("ghost"), code_after_throttle)
    ask(f"leave: group {group!r}", 13, 1, string(group) + string("ghost"), code_after_throttle)
    ask(f"leave 3: group {group!r}", 13, 3, string(group) + array(string("ghost") + NULL_STRING, string("") + string("i")), left_3)
    ask(f"describe: group {group!r}", 15, 1, array(string(group)), groups_described)
    ask(f"delete: group {group!r}", 42, 0, array(string(group)), named("i"))
    ask(f"offsets of group {group!r}", 9, 3, string(group) + array(string("t") + array(i32(0), i32(7))), offsets_fetched_3)
ask("sync: empty member id", 14, 1, sync("g", member=""), code_after_throttle)
ask("heartbeat: empty member id", 12, 1, string("g") + i32(1) + string(""), code_after_throttle)
ask("leave 3: nobody", 13, 3, string("g") + array(), left_3)
ask("delete: no groups", 42, 0, array(), named("i"))
ask("delete: a group twice", 42, 0, array(string("nobody"), string("nobody")), named("i"))
ask("describe: no groups", 15, 1, array(), groups_described)


def commit(group, generation=-1, member="", topic="t", partition=0, offset=5, metadata=""):
    body = string(group) + i32(generation) + string(member) + i64(-1)
    return body + array(string(topic) + array(struct.pack(">iq", partition, offset) + string(metadata)))


for what, how in {
    "a plain one": {},
    "4096 bytes of metadata": {"metadata": "x" * 4096},
    "4097 bytes of metadata": {"metadata": "x" * 4097},
    "32767 bytes of metadata": {"metadata": "x" * 32767},
    "offset -1": {"offset": -1},
    "offset -5": {"offset": -5},
    "unknown topic": {"topic": "nowhere"},
    "no topic name": {"topic": ""},
    "partition 7": {"partition": 7},
    "partition -1": {"partition": -1},
    "a member without generation": {"member": "ghost"},
    "an unknown member": {"member": "ghost", "generation": 1},
    "generation 5 without member": {"generation": 5},
    "generation -5": {"generation": -5},
}.items():
    ask(f"commit: {what}", 8, 2, commit("plain", **how), nested("", lambda r: r.take("ih")[1]))
ask("commit: empty group id", 8, 2, commit(""), nested("", lambda r: r.take("ih")[1]))
ask("commit: no topics", 8, 2, string("plain") + i32(-1) + string("") + i64(-1) + array(), answered)
ask("offsets: of all topics", 9, 3, string("plain") + i32(-1), lambda r: (r.take("i"), len(r.array(lambda r: (r.string(), r.array(lambda r: (r.take("iq"), r.string(), r.take("h"))))))))
for kind in (0, 1, 2, 5, -1):
    for name in ("g", ""):
        ask(f"coordinator of {name!r}, type {kind}", 10, 1, string(name) + struct.pack(">b", kind), code_after_throttle)
ask("groups in state 'Odd'", 16, 4, b"\2\4Odd\0", lambda r: (r.take("ih")[1:], r.data[r.at]), flexible=True)


# ---- topics and settings ---------------------------------------------------------------------------------------------


def create(name, partitions=1, factor=1, assignment=(), configs=(), validate=b"\0", timeout_ms=5000):
    one = string(name) + struct.pack(">ih", partitions, factor)
    one += array(*[i32(p) + array(*map(i32, brokers)) for p, brokers in assignment])
    one += array(*[string(key) + (NULL_STRING if value is None else string(value)) for key, value in configs])
    return array(one) + i32(timeout_ms) + validate


for name in ("", ".", "..", "a" * 250, "a/b", "../../etc", "a\0b", "Zoë", "a b", "__consumer_offsets", "t"):
    ask(f"create: name {name[:10]!r}, {len(name)} characters", 19, 2, create(name), created)
for what, how in {
    "a.b": {"name": "a.b"},
    "a_b beside a.b": {"name": "a_b"},
    "249 characters": {"name": "n" * 249},
    "0 partitions": {"partitions": 0},
    "-1 partitions": {"partitions": -1, "validate": b"\1"},
    "-2 partitions": {"partitions": -2},
    "replication factor 0": {"factor": 0},
    "replication factor -2": {"factor": -2},
    "replication factor 2": {"factor": 2},
    "replication factor 32767": {"factor": 32767},
    "an assignment": {"partitions": -1, "factor": -1, "assignment": [(0, [1])], "validate": b"\1"},
    "an assignment and a count": {"assignment": [(0, [1])]},
    "an assignment to an unknown broker": {"partitions": -1, "factor": -1, "assignment": [(0, [9])]},
    "an assignment to a broker twice": {"partitions": -1, "factor": -1, "assignment": [(0, [1, 1])]},
    "an assignment to nobody": {"partitions": -1, "factor": -1, "assignment": [(0, [])]},
    "an assignment of partition 1 alone": {"partitions": -1, "factor": -1, "assignment": [(1, [1])]},
    "an assignment of partition -1": {"partitions": -1, "factor": -1, "assignment": [(-1, [1])]},
    "an assignment of a partition twice": {"partitions": -1, "factor": -1, "assignment": [(0, [1]), (0, [1])]},
    "an unknown setting": {"configs": [("odd.setting", "1")]},
    "a malformed setting": {"configs": [("retention.ms", "often")]},
    "a setting out of range": {"configs": [("segment.bytes", "1")]},
    "a setting that is null": {"configs": [("retention.ms", None)], "validate": b"\1"},
    "a setting twice": {"configs": [("retention.ms", "1000"), ("retention.ms", "2000")], "validate": b"\1"},
    "a setting without name": {"configs": [("", "1")]},
    "an odd cleanup policy": {"configs": [("cleanup.policy", "burn")]},
    "a time-out of -1": {"name": "late", "timeout_ms": -1},
    "a time-out of 0": {"name": "later", "timeout_ms": 0},
}.items():
    ask(f"create: {what}", 19, 2, create(**{"name": f"many-{len(ALL)}", **how}), created)
ask("create: no topics", 19, 2, array() + i32(5000) + b"\0", created)
twice = create("twice")[4:-5]
ask("create: a topic twice", 19, 2, array(twice, twice) + i32(5000) + b"\0", created)
long_value = uvarint(10 * MIB + 1) + b"x" * 10 * MIB
ask("create: a setting of 10 MiB", 19, 5, b"\2" + compact("long") + struct.pack(">ih", 1, 1) + b"\1" + b"\2" + compact("retention.ms") + long_value + b"\0" + b"\0" + i32(5000) + b"\0\0", lambda r: (r.take("bib"), r.at + 4, struct.unpack_from(">h", r.data, 1 + 4 + 1 + 5))[2], flexible=True)


def grow(name, count, assignment=None):
    to = i32(-1) if assignment is None else array(*[array(*map(i32, brokers)) for brokers in assignment])
    return string(name) + i32(count) + to


for what, one in {
    "to 0": grow("grow", 0),
    "to -1": grow("grow", -1),
    "to 1": grow("grow", 1),
    "of an unknown topic": grow("nowhere", 2),
    "of no name": grow("", 2),
    "to 3 with one assignment": grow("grow", 3, [[1]]),
    "to an unknown broker": grow("grow", 2, [[9]]),
    "to a broker twice": grow("grow", 2, [[1, 1]]),
    "to nobody": grow("grow", 2, [[]]),
    "of __consumer_offsets to 1": grow("__consumer_offsets", 1),
}.items():
    ask(f"grow: {what}", 37, 1, array(one) + i32(5000) + b"\0", created)
ask("grow: a topic twice", 37, 1, array(grow("grow", 2), grow("grow", 3)) + i32(5000) + b"\0", created)
ask("grow: no topics", 37, 1, array() + i32(5000) + b"\0", created)
for what, names in (("an unknown topic", ["nowhere"]), ("no name", [""]), ("a/b", ["a/b"]), ("a topic twice", ["nowhere", "nowhere"]), ("nothing", [])):
    ask(f"delete topics: {what}", 20, 1, array(*map(string, names)) + i32(5000), deleted)


def resource(kind, name, keys=None):
    return struct.pack(">b", kind) + string(name) + (i32(-1) if keys is None else array(*map(string, keys)))


for what, one in {
    "a topic": resource(2, "kept"),
    "an unknown topic": resource(2, "nowhere"),
    "a topic without name": resource(2, ""),
    "a/b": resource(2, "a/b"),
    "an unknown key": resource(2, "kept", ["odd.setting"]),
    "no keys": resource(2, "kept", []),
    "the broker": resource(4, "1"),
    "another broker": resource(4, "7"),
    "a broker that is no number": resource(4, "one"),
    "the brokers' defaults": resource(4, ""),
    "the loggers of another broker": resource(8, "7"),
    "type 0": resource(0, "x"),
    "type 3": resource(3, "x"),
    "type 99": resource(99, "x"),
    "type -1": resource(-1, "x"),
}.items():
    ask(f"describe configs: {what}", 32, 1, array(one) + b"\1", described)
ask("describe configs: a topic twice", 32, 1, array(resource(2, "kept"), resource(2, "kept")) + b"\0", described)
ask("describe configs: nothing", 32, 1, array() + b"\0", described)


def alter(kind, name, *settings):
    return struct.pack(">b", kind) + string(name) + array(*[string(k) + struct.pack(">b", op) + (NULL_STRING if v is None else string(v)) for k, op, v in settings])


for what, one in {
    "a setting": alter(2, "kept", ("retention.ms", 0, "1000000")),
    "an unknown topic": alter(2, "nowhere", ("retention.ms", 0, "1000000")),
    "a topic without name": alter(2, "", ("retention.ms", 0, "1000000")),
    "an unknown setting": alter(2, "kept", ("odd.setting", 0, "1")),
    "a malformed value": alter(2, "kept", ("retention.ms", 0, "often")),
    "a null value": alter(2, "kept", ("retention.ms", 0, None)),
    "operation 9": alter(2, "kept", ("retention.ms", 9, "1")),
    "operation -1": alter(2, "kept", ("retention.ms", -1, "1")),
    "appending to what is no list": alter(2, "kept", ("retention.ms", 2, "1")),
    "appending to a list": alter(2, "kept", ("cleanup.policy", 2, "compact")),
    "a setting twice": alter(2, "kept", ("retention.ms", 0, "1"), ("retention.ms", 0, "2")),
    "a delete that is not set": alter(2, "kept", ("segment.ms", 1, None)),
    "nothing": alter(2, "kept"),
    "another broker": alter(4, "7", ("log.cleaner.threads", 0, "2")),
    "a broker that is no number": alter(4, "one", ("log.cleaner.threads", 0, "2")),
    "type 0": alter(0, "x", ("k", 0, "v")),
    "type 99": alter(99, "x", ("k", 0, "v")),
    "client metrics": alter(16, "x", ("k", 0, "v")),
    "the broker": alter(4, "1", ("log.cleaner.backoff.ms", 0, "15000")),
    "all brokers": alter(4, "", ("log.cleaner.backoff.ms", 0, "15000")),
    "all brokers, malformed": alter(4, "", ("log.cleaner.backoff.ms", 0, "often")),
    "all brokers, below the least": alter(4, "", ("log.segment.bytes", 0, "1")),
    "all brokers, what does not change": alter(4, "", ("num.partitions", 0, "2")),
    "all brokers, what one has": alter(4, "", ("listener.name.x.ssl.keystore.type", 0, "JKS")),
    "all brokers, nobody's setting": alter(4, "", ("odd.setting", 0, "1")),
    "all brokers, appending to what is no list": alter(4, "", ("log.cleaner.backoff.ms", 2, "1")),
}.items():
    ask(f"alter configs: {what}", 44, 0, array(one) + b"\0", altered)
ask("alter configs: a topic twice", 44, 0, array(*[alter(2, "kept", ("retention.ms", 0, "1000000"))] * 2) + b"\0", altered)


def replace(kind, name, *settings):
    return struct.pack(">b", kind) + string(name) + array(*[string(k) + (NULL_STRING if v is None else string(v)) for k, v in settings])


for what, one in {
    "settings": replace(2, "kept", ("retention.ms", "1000000"), ("segment.ms", "100000")),
    "an unknown topic": replace(2, "nowhere", ("retention.ms", "1000000")),
    "a topic without name": replace(2, "", ("retention.ms", "1000000")),
    "an unknown setting": replace(2, "kept", ("odd.setting", "1")),
    "a malformed value": replace(2, "kept", ("retention.ms", "often")),
    "a null value": replace(2, "kept", ("retention.ms", None)),
    "a setting twice": replace(2, "kept", ("retention.ms", "1"), ("retention.ms", "2")),
    "nothing": replace(2, "kept"),
    "another broker": replace(4, "7", ("log.cleaner.threads", "2")),
    "a broker that is no number": replace(4, "one", ("log.cleaner.threads", "2")),
    "the broker": replace(4, "1", ("log.cleaner.backoff.ms", "15000")),
    "all brokers, what does not change": replace(4, "", ("num.partitions", "2")),
    "a logger": replace(8, "1", ("root", "INFO")),
    "type 99": replace(99, "x", ("k", "v")),
}.items():
    ask(f"replace configs: {what}", 33, 0, array(one) + b"\0", altered)
ask("replace configs: a topic twice", 33, 0, array(*[replace(2, "kept")] * 2) + b"\0", altered)
for transactional, timeout_ms in ((None, 0), (None, -1), (None, FAR), ("", 1000)):
    body = (NULL_STRING if transactional is None else string(transactional)) + i32(timeout_ms)
    ask(f"producer id: transactional id {transactional!r}, time-out {timeout_ms}", 22, 0, body, code_after_throttle)
for producer, epoch in ((5, 3), (5, -1), (-1, 3)):
    body = b"\0" + i32(1000) + struct.pack(">qh", producer, epoch) + b"\0"
    ask(f"producer id: of producer {producer}, epoch {epoch}", 22, 3, body, lambda r: r.take("bih")[2], flexible=True)
raw("SASL handshake on a plaintext listener", frame(17, 1, string("PLAIN")), code_first)
raw("SASL authenticate on a plaintext listener", frame(36, 1, i32(3) + b"\0a\0"), code_first)

# ---- last, because Kafka 3.9 on ZooKeeper loses its session over them --------------------------------------------------

ask("create: 1,000,000 partitions", 19, 2, create("million", 1_000_000), created)
ask("create: 2^31-1 partitions", 19, 2, create("billions", FAR), created)
ask("grow: to 1,000,000,000", 37, 1, array(grow("grow", 1_000_000_000)) + i32(5000) + b"\0", created)
