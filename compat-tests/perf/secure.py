"""What TLS and SASL cost: klamm beside Apache Kafka 3.9.1, both over TLS 1.3, driven in turn by the same clients.

    compat-tests/run perf.secure [--quick]     six rows; the long form warms both as `make bench` does
    compat-tests/run perf.secure --rows connects

Rows: librdkafka writes and reads messages of 1 KiB over TLS (CPU of the broker for each GiB, from the tail, where both
encrypt what they have in memory); a thousand clients in turn open a connection over TLS, authenticate by SCRAM-SHA-512 and
stay (CPU of the broker, and the time for all); what such a connection costs in memory while it idles.
"""

import argparse
import base64
import concurrent.futures
import hashlib
import hmac
import pathlib
import secrets
import ssl
import struct
import sys
import tempfile
import time

from clients import secure
from kit.broker import Kafka, Klamm
from kit.wire import Client, string
from perf.__main__ import GIB, NO_PAUSE, Load, Size, Table, settle, topic

CONNECTS = 1000
AT_ONCE = 8
MECHANISM = "SCRAM-SHA-512"


def one_and_the_other(folder):
    """Both brokers, started, each with keys and listeners of its own."""
    found = []
    for kind in (Klamm, Kafka):
        keys = secure.Keys(folder / kind.name)
        broker = kind(keys.settings(), port=keys.plain)
        broker.start()
        broker.keys, broker.ways = keys, keys.rounds(broker.bootstrap)
        found.append(broker)
    return found


class OverTls(Load):
    """The load generator with a broker's listener for SASL."""

    def produce(self, broker, topic, size, count, *more):
        return super().produce(of_way(broker), topic, size, count, *self.config(broker), *more)

    def consume(self, broker, topic, count, group):
        out = self.run("-G", group, "-t", topic, "-b", of_way(broker).bootstrap, "-o", "beginning", "-c", count,
                       "-X", "auto.offset.reset=earliest", *NO_PAUSE, *self.config(broker), "-q")  # fmt: skip
        if str(count) not in out:
            raise RuntimeError(out[-500:])

    @staticmethod
    def config(broker):
        lines = pathlib.Path(broker.ways[MECHANISM]["LIBRDKAFKA_CONFIG"]).read_text().splitlines()
        return [word for line in lines for word in ("-X", line)]


class of_way:
    """A broker as its listener for SASL is reached."""

    def __init__(self, broker):
        self.bootstrap = broker.ways[MECHANISM]["BOOTSTRAP"]


def rounds_over_tls(brokers, table, size_of):
    load, bytes_, reads = OverTls(), min(size_of.round_bytes, 48 << 20), 4
    written, read = ({b.name: [] for b in brokers} for _ in range(2))

    def produce(broker, name):
        before = broker.cpu_seconds()
        load.produce(broker, name, 1024, size_of.round_bytes // 1024)
        return (broker.cpu_until_idle() - before) * GIB / size_of.round_bytes

    def consume(broker, name):
        topic(broker, name)
        load.produce(broker, name, 1024, bytes_ // 1024)
        broker.cpu_until_idle()
        before = broker.cpu_seconds()
        for n in range(reads):
            load.consume(broker, name, bytes_ // 1024, f"g-{name}-{n}")
        return (broker.cpu_until_idle() - before) * GIB / (bytes_ * reads)

    passing = {"retention.bytes": str(64 << 20), "segment.bytes": str(16 << 20)}
    for broker in brokers:
        topic(broker, "warm", configs=passing)
    size_of.warm("produce over TLS", brokers, lambda b, _: (produce(b, "warm"), size_of.round_bytes))
    size_of.warm("consume over TLS", brokers, lambda b, n: (consume(b, f"warm-read-{n}"), bytes_ * reads))
    for n in range(size_of.rounds):
        for broker in brokers:
            topic(broker, f"w{n}")
            settle()
            written[broker.name].append(produce(broker, f"w{n}"))
            read[broker.name].append(consume(broker, f"r{n}"))
    table.add("produce 1 KiB over TLS 1.3: broker CPU", "s/GiB", written["klamm"], written["kafka"], at_most=0.5)
    table.add("consume 1 KiB over TLS 1.3 from the tail: broker CPU", "s/GiB", read["klamm"], read["kafka"], at_most=0.5)


class Salted:
    """A password as SCRAM wants it; worked out once, since clients of one program do that as well."""

    def __init__(self):
        self.known = {}

    def keys(self, salt, iterations):
        if (salt, iterations) not in self.known:
            self.known[salt, iterations] = hashlib.pbkdf2_hmac("sha512", secure.PASSWORD.encode(), salt, iterations)
        return self.known[salt, iterations]


def shaken(context, port):
    """A connection over TLS whose client has said nothing yet."""
    client = Client(port)
    client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
    return client


def authenticated(context, port, salted):
    """A connection over TLS whose client has proved that it knows the password."""
    client = shaken(context, port)
    client.call(17, 1, string(MECHANISM)).take("h")
    nonce = base64.b64encode(secrets.token_bytes(18)).decode()
    bare = f"n={secure.USER},r={nonce}"
    first = token(client, f"n,,{bare}")
    fields = dict(part.split("=", 1) for part in first.split(","))
    password = salted.keys(base64.b64decode(fields["s"]), int(fields["i"]))
    key = hmac.digest(password, b"Client Key", "sha512")
    without_proof = f"c=biws,r={fields['r']}"
    signed = hmac.digest(hashlib.sha512(key).digest(), f"{bare},{first},{without_proof}".encode(), "sha512")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed))).decode()
    assert token(client, f"{without_proof},p={proof}").startswith("v="), "not authenticated"
    return client


def token(client, text):
    """What the broker says to one token of SASL."""
    body = struct.pack(">i", len(text)) + text.encode()
    answer = client.call(36, 0, body)
    error, why = answer.take("h"), answer.string()
    assert error == 0, why
    return answer.bytes().decode()


def rounds_of_connects(brokers, table, size_of):
    salted = Salted()
    cpu, seconds = ({b.name: [] for b in brokers} for _ in range(2))

    def connects(broker, count):
        """CPU seconds of the broker, seconds for all, and KiB that each connection takes while it idles."""
        context = ssl.create_default_context(cafile=str(broker.keys.authority.pem))
        before, resident, began = broker.cpu_seconds(), broker.memory_mib()[0], time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            open_now = list(threads.map(lambda _: authenticated(context, broker.keys.asks, salted), range(count)))
        took, used = time.monotonic() - began, broker.cpu_until_idle() - before
        each = (broker.memory_mib()[0] - resident) * 1024 / count
        for client in open_now:
            client.close()
        return used, took, each

    def strangers(broker, count):
        """KiB that each connection takes which has shaken hands and says nothing more."""
        context = ssl.create_default_context(cafile=str(broker.keys.authority.pem))
        resident = broker.memory_mib()[0]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            open_now = list(threads.map(lambda _: shaken(context, broker.keys.asks), range(count)))
        broker.cpu_until_idle()
        each = (broker.memory_mib()[0] - resident) * 1024 / count
        for client in open_now:
            client.close()
        return each

    stranger = [strangers(brokers[0], CONNECTS)]
    brokers[0].stop()
    brokers[0].start()
    # The first thousand, since later ones take the memory that these gave back to the allocator.
    memory = [connects(brokers[0], CONNECTS)[2]]
    size_of.warm("connects", brokers, lambda b, _: (connects(b, CONNECTS)[0], CONNECTS), rounds_max=3 if size_of.quick else 10)
    for _ in range(size_of.rounds):
        for broker in brokers:
            time.sleep(1)
            used, took, _ = connects(broker, CONNECTS)
            cpu[broker.name].append(used)
            seconds[broker.name].append(took)
    table.add(f"{CONNECTS} connects by TLS 1.3 and {MECHANISM}: broker CPU", "s", cpu["klamm"], cpu["kafka"], at_most=0.5)
    table.add("the same: time until all are in", "s", seconds["klamm"], seconds["kafka"], at_most=0.5)
    table.add("a connection that has shaken hands and is not authenticated: RSS", "KiB", stranger, [], absolute=16)
    table.add("an idle authenticated connection: RSS", "KiB", memory, [], absolute=40)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--round-mib", type=float)
    parser.add_argument("--warm-gib", type=float)
    parser.add_argument("--rows", default="bytes connects")
    args = parser.parse_args()
    table, size_of = Table(), Size(args)
    with tempfile.TemporaryDirectory(prefix="klamm-secure-") as folder:
        brokers = one_and_the_other(pathlib.Path(folder))
        try:
            if "connects" in args.rows:
                rounds_of_connects(brokers, table, size_of)
            if "bytes" in args.rows:
                rounds_over_tls(brokers, table, size_of)
        finally:
            for broker in brokers:
                broker.remove()
    sys.exit(0 if table.table() else 1)


if __name__ == "__main__":
    main()
