"""Listeners over TLS, met by stock clients: part of `make test`.

librdkafka (confluent-kafka), kafka-python and the Java tools of Kafka 3.9 speak to listeners whose stores openssl and
keytool made, in each format; clients show certificates or do not; a certificate is replaced while the broker runs; two
brokers replicate over TLS; strangers stay outside; and an idle connection is weighed. One row per test.
"""

import argparse
import contextlib
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from kit import wire, zookeeper
from kit.broker import Klamm, kafka_path
from kit.process import free_port
from kit.rows import Rows
from tls.stores import PASSWORD, Authority

NAMES = ["DNS:localhost", "IP:127.0.0.1"]
IDLE_KIB_MAX = 40
IDLE_CONNECTIONS = 500


class World:
    """The stores, and brokers with listeners of every kind of them."""

    def __init__(self, folder):
        self.folder = folder
        self.ours, self.others = Authority(folder / "ours", "ours"), Authority(folder / "others", "others")
        self.server = self.ours.issue("broker", NAMES)
        self.rsa = self.ours.issue("broker", NAMES, rsa=True, file="broker-rsa")
        self.alice = self.ours.issue("alice")
        self.old = self.ours.issue("old", version1=True)
        self.mallory = self.others.issue("alice")


def listener(name, **settings):
    return {f"listener.name.{name}.ssl.{key.replace('_', '.')}": str(value) for key, value in settings.items()}


def listeners(world):
    """{name: its settings}; every format on either side, with and without clients' certificates."""
    ours, server = world.ours, world.server
    pem = {"keystore_type": "PEM", "keystore_location": server.pem}
    trust = {"truststore_type": "PEM", "truststore_location": ours.pem}
    joined = lambda path: " ".join(path.read_text().split("\n"))  # noqa: E731
    return {
        "pem": listener("pem", **pem),
        "inline": listener("inline", keystore_type="PEM", keystore_key=joined(server.key),
                           keystore_certificate_chain=joined(server.certificate)),
        "encrypted": listener("encrypted", keystore_type="PEM", keystore_location=server.encrypted, key_password=PASSWORD),
        "p12": listener("p12", keystore_type="PKCS12", keystore_location=world.rsa.p12, keystore_password=PASSWORD),
        # Of the default type, which is JKS, and of the other: what it is decides.
        "jks": listener("jks", keystore_location=server.jks, keystore_password=PASSWORD),
        "other": listener("other", keystore_location=server.p12, keystore_password=PASSWORD),
        "old": listener("old", **pem, enabled_protocols="TLSv1.2"),
        "new": listener("new", **pem, enabled_protocols="TLSv1.3"),
        "mutual": listener("mutual", **pem, client_auth="required", truststore_location=ours.jks, truststore_password=PASSWORD),
        "asked": listener("asked", **pem, **trust, client_auth="requested"),
        "trusting": listener("trusting", **pem, client_auth="required", truststore_type="PKCS12",
                             truststore_location=ours.p12, truststore_password=PASSWORD),
    }  # fmt: skip


class Secure(Klamm):
    """A klamm with a plain listener and those of `listeners`, each at `ports[name]`."""

    def __init__(self, world, folder):
        self.world = world
        kinds = listeners(world)
        self.ports = {name: free_port() for name in kinds}
        super().__init__(folder=folder)
        addresses = [f"{name.upper()}://127.0.0.1:{port}" for name, port in self.ports.items()]
        plain = f"PLAINTEXT://127.0.0.1:{self.port}"
        self.settings = {
            "listeners": ",".join([plain, *addresses]),
            "advertised.listeners": ",".join([plain, *addresses]),
            "listener.security.protocol.map": ",".join(["PLAINTEXT:PLAINTEXT", *(f"{name.upper()}:SSL" for name in kinds)]),
            "group.initial.rebalance.delay.ms": "0",
        }
        for settings in kinds.values():
            self.settings |= settings


def rdkafka(broker, name, identity=None, **more):
    settings = {
        "bootstrap.servers": f"localhost:{broker.ports[name]}", "security.protocol": "ssl",
        "ssl.ca.location": str(broker.world.ours.pem), "log_level": 0,
    }  # fmt: skip
    if identity:
        settings |= {"ssl.key.location": str(identity.key), "ssl.certificate.location": str(identity.certificate)}
    return settings | more


def round_trip(settings, topic, count=200):
    """Produces and reads back; small records, and one above what a record of TLS holds."""
    values = [f"{topic}-{at}".encode() for at in range(count)] + [b"x" * 200_000]
    failed = []
    producer = Producer(settings | {"acks": "all", "message.max.bytes": 1_000_000, "message.timeout.ms": 20_000})
    for value in values:
        producer.produce(topic, value, callback=lambda error, _: error and failed.append(error))
    left = producer.flush(25)
    assert not left and not failed, f"{left} records left, {failed[:1]}"
    consumer = Consumer(settings | {"group.id": f"g-{topic}", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    got, deadline = [], time.monotonic() + 25
    while len(got) < len(values) and time.monotonic() < deadline:
        got += [message.value() for message in consumer.consume(500, 0.2) if not message.error()]
    consumer.close()
    assert sorted(got) == sorted(values), f"{len(got)} of {len(values)} records came back"
    return f"{len(got)} records"


def stays_outside(settings, seconds=4):
    try:
        AdminClient(settings).list_topics(timeout=seconds)
    except KafkaException:
        return
    raise AssertionError("it was let in")


def with_librdkafka(rows, broker):
    for name in broker.ports:
        identity = broker.world.alice if name in ("mutual", "asked", "trusting") else None
        rows.run(f"librdkafka, {name}", round_trip, rdkafka(broker, name, identity), f"r-{name}")
    rows.run("librdkafka, a certificate of version 1", round_trip, rdkafka(broker, "mutual", broker.world.old), "r-version1")
    rows.run("nobody is asked for a certificate in vain", round_trip, rdkafka(broker, "asked"), "r-asked-none")
    rows.run("without a certificate nobody gets in", stays_outside, rdkafka(broker, "mutual"))
    rows.run("nor with another's", stays_outside, rdkafka(broker, "mutual", broker.world.mallory))
    strange = rdkafka(broker, "pem") | {"ssl.ca.location": str(broker.world.others.pem)}
    rows.run("a client that trusts others does not come in", stays_outside, strange)


def with_kafka_python(rows, broker):
    from kafka import KafkaConsumer, KafkaProducer

    def go(version):
        context = ssl.create_default_context(cafile=str(broker.world.ours.pem))
        context.load_cert_chain(str(broker.world.alice.certificate), str(broker.world.alice.key))
        context.minimum_version = context.maximum_version = version
        settings = {"bootstrap_servers": f"localhost:{broker.ports['mutual']}", "security_protocol": "SSL", "ssl_context": context}
        topic = f"p-{version.name.lower()}"
        producer = KafkaProducer(**settings)
        sent = [producer.send(topic, f"{at}".encode()) for at in range(100)]
        for future in sent:
            future.get(timeout=20)
        producer.close()
        consumer = KafkaConsumer(topic, **settings, auto_offset_reset="earliest", consumer_timeout_ms=4000, group_id=topic)
        got = [message.value for _, message in zip(range(100), consumer, strict=False)]
        consumer.close()
        assert len(got) == 100, f"{len(got)} of 100 records came back"

    rows.run("kafka-python, TLS 1.2, its certificate shown", go, ssl.TLSVersion.TLSv1_2)
    rows.run("kafka-python, TLS 1.3, its certificate shown", go, ssl.TLSVersion.TLSv1_3)


def java(broker, main, *arguments, stdin=None):
    home = kafka_path("3.9.1")
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{home}/libs/*", main, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, input=stdin)
    assert done.returncode == 0, (done.stderr or done.stdout)[-400:]
    return done.stdout


def with_java(rows, broker):
    world = broker.world
    config = broker.folder / "client.properties"
    config.write_text(f"""security.protocol=SSL
ssl.truststore.location={world.ours.jks}
ssl.truststore.password={PASSWORD}
ssl.keystore.type=PKCS12
ssl.keystore.location={world.alice.p12}
ssl.keystore.password={PASSWORD}
""")
    at = f"localhost:{broker.ports['mutual']}"

    def console():
        java(broker, "kafka.tools.ConsoleProducer", "--bootstrap-server", at,
             "--topic", "j", "--producer.config", config, stdin="a\nb\nc\n")  # fmt: skip
        read = java(broker, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", at, "--topic", "j",
                    "--from-beginning", "--max-messages", "3", "--timeout-ms", "30000", "--consumer.config", config)  # fmt: skip
        assert read.split() == ["a", "b", "c"], read

    rows.run("Java's console tools, JKS and PKCS12, its certificate shown", console)


def shown(port):
    """The certificate that a listener presents."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


def reload(rows, broker):
    world, port = broker.world, broker.ports["p12"]
    name = "listener.name.p12.ssl.keystore.location"

    def set_again():
        java(broker, "kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--entity-type", "brokers",
             "--entity-name", "1", "--alter", "--add-config", f"{name}={world.rsa.p12}")  # fmt: skip

    def same_path():
        before = shown(port)
        new = world.ours.issue("broker", NAMES, file="broker-new")
        shutil.copy(new.p12, world.rsa.p12)
        assert shown(port) == before, "nobody has asked for it yet"
        set_again()
        assert shown(port).split() == new.certificate.read_text().split(), "the former certificate is presented"
        return round_trip(rdkafka(broker, "p12"), "r-after-reload")

    rows.run("a keystore that changed under its name is taken (kafka-configs)", same_path)

    def another():
        before = shown(port)
        shutil.copy(world.ours.issue("another", NAMES).p12, world.rsa.p12)
        try:
            set_again()
        except AssertionError as refused:
            assert "DistinguishedName does not match" in str(refused), refused
        else:
            raise AssertionError("it was taken")
        assert shown(port) == before

    rows.run("another's is refused, and the former stays", another)


def strangers(rows, broker):
    def closed(payload):
        with socket.create_connection(("127.0.0.1", broker.ports["mutual"]), timeout=20) as sock:
            sock.sendall(payload)
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(4096):
                    got += piece
        assert len(got) < 100, got

    def all_of_them():
        hello = struct.pack(">ihhih", 10, 18, 0, 1, -1)
        for payload in (hello, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 70_000, b"\x16\x03\x01\xff\xff" + b"\0" * 70_000):
            closed(payload)
        with wire.Client(broker.port) as client:
            assert client.metadata([])[0]

    rows.run("plain bytes and rubbish are turned away", all_of_them)

    def secrets():
        log = broker.log()
        assert "Failed authentication with /127.0.0.1 (SSL handshake failed)" in log, "no line of Kafka's about it"
        assert PASSWORD not in log and "PRIVATE KEY" not in log, "a secret is in the log"

    rows.run("the log tells of failed handshakes, and no secret", secrets)


def resident_kib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def idle(rows, broker):
    def weigh(name, identity):
        context = ssl.create_default_context(cafile=str(broker.world.ours.pem))
        if identity:
            context.load_cert_chain(str(identity.certificate), str(identity.key))

        def connect():
            sock = socket.create_connection(("127.0.0.1", broker.ports[name]))
            secure = context.wrap_socket(sock, server_hostname="localhost")
            secure.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
            secure.recv(8192)
            return secure

        warm = [connect() for _ in range(20)]
        before = resident_kib(broker.child.pid)
        held = [connect() for _ in range(IDLE_CONNECTIONS)]
        time.sleep(0.5)
        each = (resident_kib(broker.child.pid) - before) / IDLE_CONNECTIONS
        for sock in warm + held:
            sock.close()
        assert each <= IDLE_KIB_MAX, f"{each:.1f} KiB"
        return f"{each:.1f} KiB each, of {IDLE_CONNECTIONS}"

    rows.run("an idle connection with a certificate is light", weigh, "mutual", broker.world.alice)


def cluster(rows, world, folder):
    """Two brokers and ZooKeeper; what brokers say to each other goes over TLS, with certificates on both sides."""
    tree = zookeeper.Server(folder)
    try:
        brokers = []
        for id in (1, 2):
            own = {
                "broker.id": str(id), "zookeeper.connect": f"127.0.0.1:{tree.port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BETWEEN:SSL",
                "inter.broker.listener.name": "BETWEEN", "default.replication.factor": "2", "min.insync.replicas": "2",
                "offsets.topic.replication.factor": "2", "num.partitions": "4", "group.initial.rebalance.delay.ms": "0",
            } | listener("between", keystore_type="PEM", keystore_location=world.server.pem, truststore_type="PEM",
                         truststore_location=world.ours.pem, client_auth="required")  # fmt: skip
            broker = Klamm(own, folder / f"broker-{id}")
            broker.folder.mkdir(exist_ok=True)
            plain, secure = f"PLAINTEXT://127.0.0.1:{broker.port}", f"BETWEEN://localhost:{free_port()}"
            broker.settings |= {"listeners": f"{plain},{secure}", "advertised.listeners": f"{plain},{secure}"}
            brokers.append(broker)
        try:
            for broker in brokers:
                broker.start()
            bootstrap = ",".join(broker.bootstrap for broker in brokers)
            rows.run("two brokers replicate over TLS", round_trip, {"bootstrap.servers": bootstrap, "log_level": 0}, "between")
        finally:
            for broker in brokers:
                broker.kill()
    finally:
        tree.kill()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="without the Java tools")
    arguments.add_argument("--only", default="", help="rows with this in their name")
    arguments = arguments.parse_args()
    rows = Rows(arguments.only, width=66)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-tls-"))
    try:
        world = World(folder / "stores")
        broker = Secure(world, folder / "broker")
        broker.folder.mkdir(exist_ok=True)
        broker.start()
        try:
            with_librdkafka(rows, broker)
            with_kafka_python(rows, broker)
            strangers(rows, broker)
            idle(rows, broker)
            if not arguments.quick:
                with_java(rows, broker)
                reload(rows, broker)
        finally:
            broker.kill()
        cluster(rows, world, folder / "cluster")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if rows.failed else 0)


if __name__ == "__main__":
    main()
