"""What clients may take, and how long they wait for more: klamm, or (KLAMM_AGAINST=3.9.1) Apache Kafka, one row each.

    compat-tests/run quota [--only WORD]

Raw frames, so that what an answer says and when the next one comes are seen as they are: bytes of produce and fetch, the
time of handling (`request_percentage`), changes of topics (`controller_mutation_rate`, KIP-599), connections of an address
(`connection_creation_rate`) and of a listener (`max.connection.creation.rate`, KIP-612), limits of 0, which limit holds, and
that nothing counts before a client has proved who it is.
"""

import argparse
import os
import struct
import sys
import time

from kit import wire
from kit.broker import Kafka, Klamm
from kit.process import free_port
from kit.rows import Rows
from kit.wire import Client, string

SLOW = "listener.name.slow.max.connection.creation.rate"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
THROTTLING_QUOTA_EXCEEDED = 89
# With the defaults, eleven windows of a second.
SECONDS = 10


class Broker:
    """The broker under test, and a connection that sets its limits."""

    def __init__(self, broker, slow_port, asking_port):
        self.port, self.slow_port, self.asking_port = broker.port, slow_port, asking_port
        self.admin = Client(broker.port, client_id="admin")
        self.topics = 0

    def limit(self, key, value, **entity):
        """Sets a limit; None takes it back. `entity`: user, client or ip; None is the default one."""
        names = {"user": "user", "client": "client-id", "ip": "ip"}
        parts = [string(names[kind]) + (b"\xff\xff" if name is None else string(name)) for kind, name in entity.items()]
        op = string(key) + struct.pack(">d?", value or 0.0, value is None)
        body = struct.pack(">ii", 1, len(parts)) + b"".join(parts) + struct.pack(">i", 1) + op + b"\0"
        r = self.admin.call(49, 0, body)
        _, _, error = r.take("iih")
        assert error == 0, f"AlterClientQuotas: {error}, {r.string()}"
        # Brokers hear of it by their feed.
        time.sleep(0.5)

    def topic(self, partitions=1):
        self.topics += 1
        name = f"t{self.topics}"
        assert self.admin.create_topic(name, partitions) == 0
        return name

    def client(self, name, port=None):
        return Client(port or self.port, client_id=name)


def produced(client, topic, size, acks=1):
    """Milliseconds that the answer of a produce of so many bytes tells to wait."""
    one = wire.batch([b"v" * size], int(time.time() * 1000))
    body = struct.pack(">hhii", -1, acks, 30000, 1) + string(topic) + struct.pack(">iii", 1, 0, len(one)) + one
    r = client.call(0, 6, body)

    def partition(r):
        _, error = r.take("ih")
        r.take("qqq")
        assert error == 0, error

    r.array(lambda r: (r.string(), r.array(partition)))
    return r.take("i")


def fetched(client, topic, max_bytes=1 << 20):
    """Milliseconds to wait, and how many bytes came."""
    body = struct.pack(">iiiibi", -1, 100, 1, max_bytes, 0, 1) + string(topic) + struct.pack(">iiqi", 1, 0, 0, max_bytes)
    r = client.call(1, 4, body)
    wait = r.take("i")

    def partition(r):
        r.take("ihqq")
        r.array(lambda r: r.take("qq"))
        return len(r.bytes())

    return wait, sum(sum(sizes) for _, sizes in r.array(lambda r: (r.string(), r.array(partition))))


def metadata(client):
    """Milliseconds to wait."""
    return client.call(3, 4, struct.pack(">i?", 0, False)).take("i")


def created(client, name, partitions, version):
    """(milliseconds to wait, error, message) of CreateTopics."""
    assert version < 5
    one = string(name) + struct.pack(">ihii", partitions, 1, 0, 0)
    r = client.call(19, version, struct.pack(">i", 1) + one + struct.pack(">i?", 10_000, False))
    wait = r.take("i")
    return (wait, *r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1:])


def compact(text):
    return bytes([len(text) + 1]) + text.encode()


def created_6(client, name, partitions):
    """The same by version 6, which is refused beyond the limit."""
    one = compact(name) + struct.pack(">ih", partitions, 1) + b"\1\1\0"
    body = b"\0" + b"\2" + one + struct.pack(">i?", 10_000, False) + b"\0"
    r = client.call(19, 6, body)
    r.take("b")
    wait = r.take("i")
    r.take("b")
    return (wait, *named_error(r))


def named_error(r):
    length = r.take("b") - 1
    r.at += length
    error = r.take("h")
    length = r.take("b") - 1
    text = r.data[r.at : r.at + length].decode() if length >= 0 else None
    return error, text


def grown_3(client, name, count):
    """The same of CreatePartitions 3."""
    body = b"\0" + b"\2" + compact(name) + struct.pack(">i", count) + b"\0\0" + struct.pack(">i?", 10_000, False) + b"\0"
    r = client.call(37, 3, body)
    r.take("b")
    wait = r.take("i")
    r.take("b")
    return (wait, *named_error(r))


def deleted_5(client, name):
    """The same of DeleteTopics 5."""
    r = client.call(20, 5, b"\0" + b"\2" + compact(name) + struct.pack(">i", 10_000) + b"\0")
    r.take("b")
    wait = r.take("i")
    r.take("b")
    return (wait, *named_error(r))


def about(found, wanted, slack=1500):
    assert wanted - slack <= found <= wanted + slack, f"{found} ms instead of some {wanted}"


def of_produce(b):
    """What is too much for the windows has its connection wait."""
    topic, client = b.topic(), b.client("p")
    b.limit("producer_byte_rate", 10_000, client="p")
    assert produced(client, topic, 50_000) == 0, "below what the windows hold"
    wait = produced(client, topic, 70_000)
    about(wait, 2_000)
    begun = time.monotonic()
    metadata(client)
    about(1000 * (time.monotonic() - begun), wait, 700)
    other = b.client("q")
    assert produced(other, topic, 500_000) == 0, "another client"
    return f"{wait} ms"


def of_fetch(b):
    topic, client = b.topic(), b.client("f")
    produced(b.admin, topic, 60_000)
    b.limit("consumer_byte_rate", 10_000, client="f")
    wait, size = fetched(client, topic)
    assert wait == 0 and size > 60_000, (wait, size)
    wait, size = fetched(client, topic)
    assert size == 0, "an empty answer"
    about(wait, 2_000)
    begun = time.monotonic()
    metadata(client)
    about(1000 * (time.monotonic() - begun), wait, 700)
    return f"{wait} ms"


def of_requests(b):
    """Many requests of one client are told to wait, a second at most, and do."""
    client = b.client("r")
    b.limit("request_percentage", 0.01, client="r")
    waits, begun = [], time.monotonic()
    while sum(1 for wait in waits if wait) < 3:
        waits.append(metadata(client))
        assert len(waits) < 5_000 and time.monotonic() - begun < 60, "never told to wait"
    told = [wait for wait in waits if wait]
    assert max(told) <= 1_000, told
    # What was told before the last answer has been waited for.
    about(1000 * (time.monotonic() - begun), sum(told[:-1]), 5_000)
    assert 1000 * (time.monotonic() - begun) >= 0.9 * sum(told[:-1])
    b.limit("request_percentage", None, client="r")
    assert metadata(client) == 0 or metadata(client) == 0
    return f"{told} ms"


def of_a_produce(b):
    """A large batch takes time that counts, in the request that brings it."""
    topic, client = b.topic(), b.client("rp")
    b.limit("request_percentage", 0.001, client="rp")
    wait = produced(client, topic, 900_000)
    assert 0 < wait <= 1_000, wait
    return f"{wait} ms"


def of_acks_0(b):
    """Without an answer the connection waits all the same for bytes."""
    topic, client = b.topic(), b.client("p0")
    b.limit("producer_byte_rate", 10_000, client="p0")
    one = wire.batch([b"v" * 120_000], int(time.time() * 1000))
    client.send(0, 6, struct.pack(">hhii", -1, 0, 30000, 1) + string(topic) + struct.pack(">iii", 1, 0, len(one)) + one)
    client.received += 1
    begun = time.monotonic()
    metadata(client)
    about(1000 * (time.monotonic() - begun), 2_000)


def of_mutations(b):
    """A bucket of eleven tokens: one change may take more than there is, and the next waits for that."""
    client = b.client("m")
    b.limit("controller_mutation_rate", 1, client="m")
    assert created_6(client, "m1", 10)[:2] == (0, 0)
    assert created_6(client, "m2", 10)[:2] == (0, 0)
    wait, error, text = created_6(client, "m3", 1)
    assert error == THROTTLING_QUOTA_EXCEEDED, error
    assert text is None, text
    about(wait, 9_000)
    client.close()
    # The connection waits, and whoever comes by another one is told the same.
    client = b.client("m")
    wait, error, text = grown_3(client, "m1", 11)
    assert error == THROTTLING_QUOTA_EXCEEDED, error
    client.close()
    client = b.client("m")
    wait, error, text = deleted_5(client, "m1")
    assert error == THROTTLING_QUOTA_EXCEEDED, error
    client.close()
    # Older versions know no such error: it is done, and waited for.
    client = b.client("m")
    wait, error, text = created(client, "m4", 1, 4)
    assert error == 0, error
    about(wait, 10_000)
    b.limit("controller_mutation_rate", None, client="m")
    return f"{wait} ms"


def of_nothing(b):
    """Limits of 0: of bytes they let everything pass, of time nobody waits longer than a second, and what is refused of
    topics is told to wait for nothing."""
    topic = b.topic()
    produced(b.admin, topic, 1_000)
    names = iter(("n1", "n2", "n3"))
    asked = {
        "producer_byte_rate": lambda client: produced(client, topic, 1_000),
        "consumer_byte_rate": lambda client: fetched(client, topic)[0],
        "request_percentage": metadata,
        "controller_mutation_rate": lambda client: created_6(client, next(names), 1)[:2],
    }
    told = {}
    for key, ask in asked.items():
        b.limit(key, 0, client=key)
        client = b.client(key)
        begun = time.monotonic()
        told[key] = [ask(client), ask(client)]
        seconds = time.monotonic() - begun
        assert seconds < 4, (key, seconds)
        b.limit(key, None, client=key)
    assert told["producer_byte_rate"] == told["consumer_byte_rate"] == [0, 0], told
    assert told["request_percentage"] == [1_000, 1_000], told
    assert told["controller_mutation_rate"] == [(0, 0), (0, THROTTLING_QUOTA_EXCEEDED)], told


def of_strangers(b):
    """Who has still to log in uses up nobody's time: else strangers would have everybody wait to log in."""
    b.limit("request_percentage", 0.0001, client="s")
    clients = [b.client("s", b.asking_port) for _ in range(20)]
    for client in clients:
        r = client.call(18, 1, b"")
        assert r.take("h") == 0
        r.array(lambda r: r.take("hhh"))
        wait = r.take("i")
        assert wait == 0, wait
    begun, client = time.monotonic(), clients[-1]
    assert client.call(17, 1, string("PLAIN")).take("h") == 0
    token = b"\0alice\0planted"
    assert client.call(36, 1, struct.pack(">i", len(token)) + token).take("h") == 0
    assert time.monotonic() - begun < 0.9
    told = max(metadata(client), metadata(client))
    b.limit("request_percentage", None, client="s")
    assert told > 0, "now it counts"


def of_the_more_particular(b):
    """A user's client before the user, and both before a client; everybody here is ANONYMOUS."""
    topic = b.topic()
    b.limit("producer_byte_rate", 1_000, client="w")
    about(produced(b.client("w"), topic, 20_000), 10_000, 3_000)
    b.limit("producer_byte_rate", 1e9, user="ANONYMOUS")
    assert produced(b.client("w"), topic, 20_000) == 0
    b.limit("producer_byte_rate", 2_000, user="ANONYMOUS", client="w")
    assert produced(b.client("w"), topic, 40_000) > 0
    assert produced(b.client("v"), topic, 40_000) == 0
    for entity in ({"client": "w"}, {"user": "ANONYMOUS"}, {"user": "ANONYMOUS", "client": "w"}):
        b.limit("producer_byte_rate", None, **entity)


def of_a_listener(b):
    """Beyond its rate a listener accepts nothing for a while: two a second, so 20 at once."""
    begun = time.monotonic()
    clients = [b.client("l", b.slow_port) for _ in range(23)]
    for client in clients:
        metadata(client)
    took = time.monotonic() - begun
    assert 0.7 < took < 6, took
    begun = time.monotonic()
    metadata(b.client("l"))
    assert time.monotonic() - begun < 0.5, "another listener"
    return f"{took:.1f} s"


def of_an_address(b):
    """Beyond its rate an address's connections are accepted, and closed after a while without a word."""
    b.limit("connection_creation_rate", 1, ip="127.0.0.1")
    refused, begun = [], time.monotonic()
    for _ in range(14):
        client = b.client("a")
        opened = time.monotonic()
        try:
            metadata(client)
        except OSError:
            refused.append(time.monotonic() - opened)
    b.limit("connection_creation_rate", None, ip="127.0.0.1")
    assert 2 <= len(refused) <= 4, refused
    assert all(seconds < 3 for seconds in refused), refused
    metadata(b.client("a"))
    return f"{len(refused)} of 14 closed after {max(refused):.1f} s, all in {time.monotonic() - begun:.1f} s"


ROWS = {
    "bytes of produce": of_produce,
    "bytes of fetch": of_fetch,
    "bytes of produce without acks": of_acks_0,
    "time of requests": of_requests,
    "time of a produce": of_a_produce,
    "changes of topics": of_mutations,
    "limits of 0": of_nothing,
    "time of who has not logged in": of_strangers,
    "the more particular limit holds": of_the_more_particular,
    "connections of a listener": of_a_listener,
    "connections of an address": of_an_address,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the names of the rows to run")
    options = parser.parse_args()
    rows, port, slow, asking = Rows(options.only), free_port(), free_port(), free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{port},SLOW://127.0.0.1:{slow},ASKS://127.0.0.1:{asking}"
    settings = {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SLOW:PLAINTEXT,ASKS:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.asks.plain.sasl.jaas.config": f'{PLAIN} required user_alice="planted";',
        "inter.broker.listener.name": "PLAINTEXT",
        SLOW: "2",
    }
    version = os.environ.get("KLAMM_AGAINST")
    broker = Kafka(settings, port=port, version=version) if version else Klamm(settings, port=port)
    try:
        broker.start()
        b = Broker(broker, slow, asking)
        for name, body in ROWS.items():
            rows.run(name, body, b)
    finally:
        broker.remove()
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
