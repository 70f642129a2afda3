"""The same hostile frames to klamm and to Apache Kafka 3.9.1, one row per frame: what klamm did, what Kafka did, and
whether that is the same: an error code (a few, where a request names several things), a closed connection, or silence.

A difference that is meant has its reason in `MEANT`, and a line in compat-tests/GAPS.md; any other fails, and so does
a reason that nothing needs any more. Arguments name the frames to send alone. `--all` also prints rows that agree.
"""

import socket
import struct
import sys
import time

from hostile import questions, transactions
from kit import wire
from kit.broker import Kafka, Klamm

SILENCE_S = 8  # the requests name a time-out of five
SETTINGS = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
    "transaction.state.log.num.partitions": "2",
}
QUESTIONS = transactions.ALL + questions.ALL
# Why klamm differs, by the names of the questions. What clients notice of it stands in compat-tests/GAPS.md.
SAID = "klamm says what is wrong"
STRICT = "klamm takes no length below -1 for null"
TEXT = "klamm takes only UTF-8 in bodies"
CODEC = "INVALID_RECORD; Kafka's UNKNOWN_SERVER_ERROR says nothing"
MANY = "klamm bounds the partitions of a request, as KRaft does"
REASONS = {
    "an old header cannot be skipped, but is answered": ["ApiVersions 99 with a header of old"],
    "klamm's guard against absurd counts takes it for one": ["tag 10,000 at the end of the body"],
    "klamm answers INVALID_REQUEST": ["a null topic name"],
    STRICT: ["-2 topics"],
    TEXT: ["a topic name that is not UTF-8"],
    "Kafka leaves the client waiting": ["produce: null records", "replace configs: a topic twice"],
    CODEC: [
        *(f"produce: codec {codec}" for codec in (5, 6, 7)),
        *(f"produce: {codec} that is none" for codec in ("gzip", "snappy", "lz4")),
        *(f"produce: zstd, {what}" for what in ("junk", "no end", "a window of 2 GiB")),
        "produce: gzip of nothing",
        "produce: snappy with a broken xerial header",
        "produce: snappy of 4 GiB announced",
        "produce: lz4 with a wrong header checksum",
        "produce: lz4 with an offset before its start",
        "produce: a batch length of 2^31-1",
    ],
    "klamm refuses it, Kafka lets it pass": ["produce: log append time"],
    "klamm appends both, Kafka the last": ["produce: a partition twice", "produce: a topic twice"],
    "klamm refuses it, as KRaft does; Kafka makes a partition without a leader": [
        "create: an assignment to an unknown broker",
        "create: an assignment to nobody",
    ],
    "klamm reads it and answers": ["create: a setting of 10 MiB"],
    "klamm describes once what is named twice": ["describe configs: a topic twice"],
    SAID: [
        "create: an assignment of partition -1",
        "grow: of no name",
        "alter configs: operation 9",
        "alter configs: operation -1",
        "transactions: markers: of epoch -1",
    ],
    MANY: ["create: 1,000,000 partitions", "create: 2^31-1 partitions", "grow: to 1,000,000,000"],
}
MEANT = {name: reason for reason, names in REASONS.items() for name in names}


def verdict(port, question, producer):
    """Sends one frame over a connection of its own. `producer` is that of the transactional id "tx"."""
    data = question.data(producer) if callable(question.data) else question.data
    with socket.create_connection(("127.0.0.1", port), SILENCE_S) as s:
        try:
            s.sendall(data)
            head = exactly(s, 4)
            if not head:
                return "closed"
            body = exactly(s, struct.unpack(">i", head)[0])
        except TimeoutError:
            return "silence"
        except OSError:
            return "closed"
    if question.read is None:
        return "answered"
    # A frame names its correlation id; the body of a flexible response follows one more byte, which readers skip.
    try:
        return str(question.read(wire.Reader(body[4:])))
    except (struct.error, IndexError, UnicodeDecodeError):
        return f"{len(body)} bytes: {body[:24].hex()}"


def exactly(s, size):
    data = b""
    while len(data) < size:
        part = s.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data


def prepare(broker):
    """Topics, a record to list offsets of, coordinators that are loaded; answers the producer of a transactional id."""
    with wire.Client(broker.port) as c:
        for topic, configs in questions.TOPICS.items():
            assert c.create_topic(topic, 1, configs=configs) == 0, topic
        wait(lambda: c.produce("kept", {0: wire.batch([b"v"], questions.NOW)})[0][0] == 0)
        wait(lambda: c.init_producer_id()[0] == 0)
        wait(lambda: c.find_coordinator("g")[0] == 0)
        body = questions.commit("prepared", topic="kept")
        wait(lambda: c.call(8, 2, body).data[-2:] == b"\0\0")
        body = questions.string("g") + questions.i32(1) + questions.string("ghost")
        wait(lambda: c.call(12, 1, body).take("ih")[1] == 25)
        wait(lambda: c.call(10, 1, questions.string("tx") + b"\1").take("ih")[1] == 0)
        init = questions.string("tx") + questions.i32(60_000)
        wait(lambda: c.call(22, 0, init).take("ih")[1] == 0)
        # Each of these raised the epoch, so that there is an older one.
        return c.call(22, 0, init).take("ihqh")[2:]


def wait(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "the broker does not become ready"
        time.sleep(0.1)


def main():
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    asked = [q for q in QUESTIONS if not wanted or any(word in q.name for word in wanted)]
    brokers = [Klamm(SETTINGS), Kafka(SETTINGS)]
    verdicts = {}
    try:
        for broker in brokers:
            broker.start()
            producer = prepare(broker)
            verdicts[broker.name] = [verdict(broker.port, question, producer) for question in asked]
            assert broker.alive(), f"{broker.name} died"
            broker.kill()
    finally:
        for broker in brokers:
            broker.remove()
    print(f"      {'frame':52} {'klamm':24} {'Apache Kafka 3.9.1':24}")
    same, meant, wrong = 0, 0, []
    for question, klamm, kafka in zip(asked, verdicts["klamm"], verdicts["kafka"]):
        reason = MEANT.get(question.name)
        if (klamm == kafka) == bool(reason):
            wrong.append(question.name)
            mark, note = "FAIL", f"the same, though it is said: {reason}" if reason else "different"
        else:
            same, meant = same + (not reason), meant + bool(reason)
            mark, note = "PASS", reason or "same"
        if klamm != kafka or reason or "--all" in sys.argv:
            print(f"{mark}  {question.name:52} {klamm:24} {kafka:24} {note}")
    unknown = set(MEANT) - {question.name for question in QUESTIONS}
    for name in unknown:
        print(f"FAIL  a reason for no frame: {name}")
    mark = "FAIL" if wrong or unknown else "PASS"
    print(f"{mark}  {len(asked)} frames: {same} the same, {meant} different on purpose, {len(wrong)} not as they should")
    sys.exit(bool(wrong or unknown))


if __name__ == "__main__":
    main()
