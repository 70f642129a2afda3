"""Frames about transactions, for `codes`: what is asked of the coordinator of transactional ids, and of the partitions.

They build on each other. `codes` has made the transactional id "tx"; a frame that needs its producer is a function of
(producer id, epoch), which are the broker's to choose.
"""

import struct

from hostile.frames import batch, frame, produce, string, uvarint
from hostile.questions import FAR, NULL_STRING, Question, array, code_after_throttle, compact, i32

ALL = []
STRANGER = (987_654, 0)


def produced(r):
    """The code of the one partition of Produce 3."""
    return r.array(lambda r: (r.string(), r.array(lambda r: r.take("ihqq")[1])))[0][1][0]


def skip_name(r):
    """A compact string."""
    length = r.take("b") - 1
    r.at += length


def produced_11(r):
    """Flexible: tags of the header, then one topic with one partition."""
    r.take("bb")
    skip_name(r)
    return r.take("bih")[2]


def ask(name, key, version, body, read, flexible=False, producer=None):
    """`body` is a function of the producer: that of "tx", or the one given."""

    def data(tx):
        return frame(key, version, body(*(producer or tx)), flexible=flexible)

    ALL.append(Question(f"transactions: {name}", data, read))


def partitions_added(r):
    """Codes of AddPartitionsToTxn 0 to 2."""
    r.take("i")
    return [codes for _, codes in r.array(lambda r: (r.string(), r.array(lambda r: r.take("ih")[1])))]


def add(transactional, *topics):
    asked = array(*[string(name) + array(*[i32(p) for p in partitions]) for name, partitions in topics])
    return lambda id, epoch: string(transactional) + struct.pack(">qh", id, epoch) + asked


def end(transactional, commit=True):
    return lambda id, epoch: string(transactional) + struct.pack(">qh?", id, epoch, commit)


def offsets(transactional, group):
    return lambda id, epoch: string(transactional) + struct.pack(">qh", id, epoch) + string(group)


def commit(transactional, group, topic="t", partition=0, offset=5, extra=b""):
    asked = array(string(topic) + array(struct.pack(">iq", partition, offset) + extra + string("")))
    return lambda id, epoch: string(transactional) + string(group) + struct.pack(">qh", id, epoch) + asked


def commit_3(transactional, group, generation=-1, member="", topic="t"):
    """Flexible, with a member."""

    def body(id, epoch):
        one = b"\2" + compact(topic) + b"\2" + struct.pack(">iqi", 0, 7, -1) + compact("") + b"\0\0"
        head = compact(transactional) + compact(group) + struct.pack(">qh", id, epoch)
        return head + i32(generation) + compact(member) + b"\0" + one + b"\0"

    return body


def write(transactional, topic="t", sequence=0, attributes=0x10, flexible=False):
    def body(id, epoch):
        records = batch(attributes=attributes, producer=(id, epoch, sequence))
        if flexible:
            one = struct.pack(">i", 0) + uvarint(len(records) + 1) + records + b"\0"
            head = b"\0" if transactional is None else compact(transactional)
            return head + struct.pack(">hi", -1, 5000) + b"\2" + compact(topic) + b"\2" + one + b"\0\0"
        plain = produce(topic, records)
        return (NULL_STRING if transactional is None else string(transactional)) + plain[2:]

    return body


def markers(*ends, coordinator=0):
    """WriteTxnMarkers 1: (producer id or None for that of "tx", epoch, commit, topic, partition)."""

    def body(id, epoch):
        def one(pid, at, result, topic, partition):
            where = b"\2" + compact(topic) + b"\2" + i32(partition) + b"\0"
            who = struct.pack(">qh?", id if pid is None else pid, epoch if at is None else at, result)
            return who + where + i32(coordinator) + b"\0"

        return uvarint(len(ends) + 1) + b"".join(one(*end) for end in ends) + b"\0"

    return body


def markers_written(r):
    """The code of the one partition of one marker."""
    r.take("bb")
    r.take("qb")
    skip_name(r)
    return r.take("bih")[2]


def init(transactional, timeout_ms):
    return lambda id, epoch: string(transactional) + i32(timeout_ms)


def init_3(transactional, producer=None, timeout_ms=60000):
    def body(id, epoch):
        return compact(transactional) + i32(timeout_ms) + struct.pack(">qh", *(producer or (id, epoch))) + b"\0"

    return body



def inited_3(r):
    return r.take("bih")[2]


for what, transactional, timeout_ms in (("no time-out", "new", 0), ("a time-out of -1", "new", -1), ("a time-out above the largest", "new", FAR),
                                        ("no name", "", 1000), ("a new one", "new", 1000), ("a long name", "n" * 30_000, 1000)):  # fmt: skip
    ask(f"init: {what}", 22, 1, init(transactional, timeout_ms), code_after_throttle)
for version in (3, 4):
    ask(f"init {version}: another's producer id", 22, version, init_3("tx", STRANGER), inited_3, flexible=True)
    ask(f"init {version}: an epoch ahead", 22, version, lambda id, epoch: init_3("tx", (id, epoch + 5))(id, epoch), inited_3, flexible=True)
    ask(f"init {version}: a producer of an unknown id", 22, version, init_3(f"unknown{version}", STRANGER), inited_3, flexible=True)

for version in (0, 2):
    for what, body, producer in (
        ("an unknown transactional id", add("nobody", ("t", [0])), None),
        ("no transactional id", add("", ("t", [0])), None),
        ("another's producer", add("tx", ("t", [0])), STRANGER),
        ("an unknown topic", add("tx", ("nowhere", [0])), None),
        ("an unknown partition beside a known one", add("tx", ("t", [0, 9])), None),
        ("a topic without partitions", add("tx", ("t", [])), None),
        ("nothing", add("tx"), None),
        ("partition -1", add("tx", ("t", [-1])), None),
    ):
        ask(f"add {version}: {what}", 24, version, body, partitions_added, producer=producer)
    ask(f"add {version}: an old epoch", 24, version, lambda id, epoch: add("tx", ("t", [0]))(id, -1), partitions_added)

for version in (0, 2):
    for what, body, producer in (
        ("an unknown transactional id", end("nobody"), None),
        ("no transactional id", end(""), None),
        ("another's producer", end("tx"), STRANGER),
        ("a commit of what has no partitions", end("tx"), None),
    ):
        ask(f"end {version}: {what}", 26, version, body, code_after_throttle, producer=producer)
    ask(f"end {version}: an old epoch", 26, version, lambda id, epoch: end("tx")(id, epoch - 1), code_after_throttle)

ask("end 2: an abort of what was committed", 26, 2, end("tx", False), code_after_throttle)

for version in (0, 2):
    for what, body, producer in (
        ("an unknown transactional id", offsets("nobody", "g"), None),
        ("no transactional id", offsets("", "g"), None),
        ("another's producer", offsets("tx", "g"), STRANGER),
    ):
        ask(f"add offsets {version}: {what}", 25, version, body, code_after_throttle, producer=producer)


def committed(r):
    """The code of the one partition of TxnOffsetCommit 0."""
    return partitions_added(r)[0][0]


def committed_3(r):
    r.take("bib")
    skip_name(r)
    return r.take("bih")[2]


for what, body in {
    "offsets outside of a transaction": commit("tx", "g"),
    "offsets of an unknown topic": commit("tx", "g", topic="nowhere"),
    "offsets of no group": commit("tx", ""),
    "offsets of an unknown transactional id": commit("nobody", "g"),
}.items():
    ask(f"commit 0: {what}", 28, 0, body, committed)
for version in (3, 4):
    ask(f"commit {version}: outside of a transaction", 28, version, commit_3("tx", "g"), committed_3, flexible=True)
    ask(f"commit {version}: of a stranger", 28, version, commit_3("tx", "g", 4, "ghost"), committed_3, flexible=True)

ask("produce: not in the transaction", 0, 3, write("tx"), produced)
ask("produce 11: not in the transaction", 0, 11, write("tx", flexible=True), produced_11, flexible=True)
ask("produce: another's producer", 0, 3, write("tx"), produced, producer=STRANGER)
ask("produce: an unknown transactional id", 0, 3, write("nobody"), produced)
ask("produce: no transactional id", 0, 3, write(None), produced)
ask("produce: an empty transactional id", 0, 3, write(""), produced)
ask("produce: a plain batch under a transactional id", 0, 3, write("tx", attributes=0), produced, producer=(555_555, 0))
ask("produce: a control batch", 0, 3, write("tx", attributes=0x30), produced)

# A transaction from its beginning to its end.
ask("add: partition 0", 24, 0, add("tx", ("t", [0])), partitions_added)
ask("add: partition 0 again", 24, 0, add("tx", ("t", [0])), partitions_added)
ask("produce: in the transaction", 0, 3, write("tx"), produced)
ask("produce: the same again", 0, 3, write("tx"), produced)
ask("produce: a gap in the transaction", 0, 3, write("tx", sequence=7), produced)
ask("produce: a plain batch inside the transaction", 0, 3, write("tx", sequence=1, attributes=0), produced)
ask("produce: an old epoch", 0, 3, lambda id, epoch: write("tx", sequence=1)(id, epoch - 1), produced)
ask("produce: a partition that was not added", 0, 3, write("tx", topic="kept"), produced)
ask("commit 0: a group that was not added", 28, 0, commit("tx", "g"), committed)
ask("add offsets: the group", 25, 0, offsets("tx", "g"), code_after_throttle)
ask("commit 3: a stranger in the transaction", 28, 3, commit_3("tx", "g", 4, "ghost"), committed_3, flexible=True)
ask("commit 3: a generation without a member", 28, 3, commit_3("tx", "g", 4), committed_3, flexible=True)
ask("commit 0: in the transaction", 28, 0, commit("tx", "g"), committed)
ask("end 1: an old epoch while it is open", 26, 1, lambda id, epoch: end("tx")(id, epoch - 1), code_after_throttle)
ask("markers: an old coordinator's", 27, 1, markers((None, None, True, "t", 0), coordinator=-5), markers_written, flexible=True)
ask("markers: of epoch -1", 27, 1, markers((None, -1, True, "t", 0)), markers_written, flexible=True)
ask("markers: an unknown topic", 27, 1, markers((None, None, True, "nowhere", 0)), markers_written, flexible=True)
ask("markers: an unknown partition", 27, 1, markers((None, None, True, "t", 9)), markers_written, flexible=True)
ask("markers: of a stranger", 27, 1, markers((777_777, 3, False, "kept", 0)), markers_written, flexible=True)
ask("markers: of that stranger, an older epoch", 27, 1, markers((777_777, 2, False, "kept", 0)), markers_written, flexible=True)
ask("markers: of that stranger, an older coordinator", 27, 1, markers((777_777, 3, False, "kept", 0), coordinator=-1), markers_written, flexible=True)
ask("end: commit", 26, 1, end("tx"), code_after_throttle)


def described(r):
    """The code of the one transactional id, or producers' topic."""
    r.take("bib")
    return r.take("h")


ask("describe: an unknown transactional id", 65, 0, lambda *_: b"\2" + compact("nobody") + b"\0", described, flexible=True)
ask("describe: an empty transactional id", 65, 0, lambda *_: b"\2" + compact("") + b"\0", described, flexible=True)
ask("describe: one that is there", 65, 0, lambda *_: b"\2" + compact("tx") + b"\0", described, flexible=True)
ask("list: an unknown state", 66, 0, lambda *_: b"\2" + compact("Odd") + b"\1\0", lambda r: (r.take("bih")[2], r.take("b")), flexible=True)
ask("list: all", 66, 0, lambda *_: b"\1\1\0", lambda r: r.take("bih")[2], flexible=True)


def producers_described(r):
    r.take("bib")
    skip_name(r)
    return r.take("bih")[2]


for what, topic, partition in (("an unknown topic", "nowhere", 0), ("an illegal name", "a b", 0), ("no name", "", 0),
                               ("an unknown partition", "t", 9), ("partition -1", "t", -1), ("one that is there", "t", 0)):  # fmt: skip
    body = b"\2" + compact(topic) + b"\2" + i32(partition) + b"\0\0"
    ask(f"producers: {what}", 61, 0, lambda *_, body=body: body, producers_described, flexible=True)
ask("coordinator: a transactional id", 10, 1, lambda *_: string("tx") + b"\1", lambda r: r.take("ih")[1])
ask("coordinator: an empty transactional id", 10, 1, lambda *_: string("") + b"\1", lambda r: r.take("ih")[1])
