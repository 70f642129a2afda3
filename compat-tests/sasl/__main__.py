"""Stock clients that say who they are, by SASL_PLAINTEXT and SASL_SSL: on klamm, or (KLAMM_AGAINST=3.9.1) on Apache Kafka.

    compat-tests/run sasl [--only WORD] [--java] [--jvm-brokers]

librdkafka and kafka-python write and read with each mechanism and are kept out with a wrong password; a user that an
administrator makes logs in at once; a client that has to authenticate again (KIP-368) goes on; what raw frames send
before they are authenticated is answered or ends the connection; no secret is in the log; three brokers authenticate at
each other, and let in a user that a tool writes into ZooKeeper. With --java kafka-configs makes a user, and the console
tools write and read as well; with --jvm-brokers one klamm stands between two brokers of Apache Kafka. Needs confluent-kafka and kafka-python
(`compat-tests/run` sets them up).
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import kafka
import kafka.errors
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from kit.broker import Kafka, Klamm, kafka_path
from kit.process import free_port
from kit.rows import Rows
from kit.wire import Client, string
from sasl import between
from tls.stores import Authority

SECRET = "planted-hunter2"
MODULES = "org.apache.kafka.common.security"
# How long a session may last; rows that authenticate again outlive several.
REAUTH_MS = 2000


def settings(broker):
    """Four listeners: one that asks nobody, one with every mechanism, one whose sessions end soon, one over TLS.

    `broker`: the certificate and key of the last one."""
    found = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,ASKS:SASL_PLAINTEXT,SOON:SASL_PLAINTEXT,OVER_TLS:SASL_SSL",
        "listener.name.over_tls.ssl.keystore.type": "PEM",
        "listener.name.over_tls.ssl.keystore.location": broker.pem,
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.soon.connections.max.reauth.ms": REAUTH_MS,
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "1",
    }
    for listener in ("asks", "soon", "over_tls"):
        key = f"listener.name.{listener}"
        plain = f'{MODULES}.plain.PlainLoginModule required user_alice="{SECRET}" user_bob="other";'
        found[f"{key}.plain.sasl.jaas.config"] = plain
        for name in ("scram-sha-256", "scram-sha-512"):
            found[f"{key}.{name}.sasl.jaas.config"] = f"{MODULES}.scram.ScramLoginModule required;"
        found[f"{key}.oauthbearer.sasl.jaas.config"] = f"{MODULES}.oauthbearer.OAuthBearerLoginModule required;"
    return found


class Suite:
    def __init__(self, broker, asks, soon):
        self.broker, self.asks, self.soon = broker, f"127.0.0.1:{asks}", f"127.0.0.1:{soon}"
        self.ports = (asks, soon)
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap})


def librdkafka(bootstrap, mechanism, user="alice", password=SECRET, **more):
    if mechanism == "OAUTHBEARER":
        login = {"oauth_cb": lambda _config: (token(user), time.time() + 3600)}
    else:
        login = {"sasl.username": user, "sasl.password": password}
    return {
        "bootstrap.servers": bootstrap, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "log_level": 2,
        **login, **more,
    }  # fmt: skip


def token(user, seconds=3600):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': int(now), 'exp': now + seconds})}."


def write_and_read(config, topic, count=50):
    """A producer and a consumer of a group, both with `config`."""
    problems = []
    producer = Producer({**config, "error_cb": problems.append, "message.timeout.ms": 20_000})
    producer.poll(0)
    for n in range(count):
        producer.produce(topic, f"{topic}-{n}")
    left = producer.flush(25)
    if left:
        raise RuntimeError(f"{left} of {count} records were not written: {problems[:1]}")
    consumer = Consumer({**config, "group.id": topic, "auto.offset.reset": "earliest", "error_cb": problems.append})
    values, deadline = set(), time.monotonic() + 25
    try:
        consumer.subscribe([topic])
        while len(values) < count and time.monotonic() < deadline:
            values |= {message.value() for message in consumer.consume(100, 0.2) if message.error() is None}
    finally:
        consumer.close()
    if len(values) != count:
        raise RuntimeError(f"{len(values)} of {count} records came back: {problems[:1]}")
    return f"{count} records"


def kept_out(config):
    """What librdkafka says of it."""
    problems = []
    producer = Producer({**config, "error_cb": problems.append})
    deadline = time.monotonic() + 15
    while not any("AUTHENTICATION" in problem.name() for problem in problems):
        producer.poll(0.1)
        if time.monotonic() > deadline:
            raise RuntimeError(f"no failed authentication within 15 s, but {problems[:2]}")
    try:
        producer.list_topics(timeout=1)
    except KafkaException:
        said = next(problem.str() for problem in problems if "AUTHENTICATION" in problem.name())
        return said.split(": ", 1)[-1][:110]
    raise RuntimeError("it was let in all the same")


def python_client(bootstrap, mechanism, password=SECRET):
    return {
        "bootstrap_servers": bootstrap, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism,
        "sasl_plain_username": "alice", "sasl_plain_password": password, "bootstrap_timeout_ms": 2000,
    }  # fmt: skip


def write_and_read_python(config, topic, count=20):
    producer = kafka.KafkaProducer(**config)
    for n in range(count):
        producer.send(topic, f"{n}".encode())
    producer.flush(20)
    producer.close()
    consumer = kafka.KafkaConsumer(topic, group_id=None, auto_offset_reset="earliest", consumer_timeout_ms=10_000, **config)
    values = set()
    for record in consumer:
        values.add(record.value)
        if len(values) == count:
            break
    consumer.close()
    if len(values) != count:
        raise RuntimeError(f"{len(values)} of {count} records came back")
    return f"{count} records"


def kept_out_python(config):
    try:
        kafka.KafkaProducer(**config, max_block_ms=5000).close()
    except kafka.errors.KafkaError as problem:
        return f"{type(problem).__name__}: {problem}"[:110]
    raise RuntimeError("it was let in")


def make_users(suite):
    upsertions = [
        UserScramCredentialUpsertion("alice", ScramCredentialInfo(mechanism, 4096), SECRET.encode())
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
    ]
    for future in suite.admin.alter_user_scram_credentials(upsertions).values():
        future.result(20)
    described = suite.admin.describe_user_scram_credentials(["alice"])["alice"].result(20)
    infos = sorted((info.mechanism.name, info.iterations) for info in described.scram_credential_infos)
    wanted = [("SCRAM_SHA_256", 4096), ("SCRAM_SHA_512", 4096)]
    if infos != wanted:
        raise RuntimeError(f"{infos} instead of {wanted}")


def again(suite, mechanism):
    """A producer that outlives several sessions, one connection all the time."""
    problems = []
    config = librdkafka(suite.soon, mechanism)
    producer = Producer({**config, "error_cb": problems.append, "linger.ms": 0, "message.timeout.ms": 20_000})
    producer.poll(0)
    written, until = 0, time.monotonic() + 2.5 * REAUTH_MS / 1000
    while time.monotonic() < until:
        producer.produce("again", b"x")
        if producer.flush(20):
            raise RuntimeError(f"a record was not written: {problems[:2]}")
        written += 1
        time.sleep(0.05)
    if problems:
        raise RuntimeError(f"{problems[0]} after {written} records")
    return f"{written} records in {2.5 * REAUTH_MS / 1000} s"


class Raw(Client):
    """Frames as they are."""

    def frame(self, data):
        self.socket.sendall(struct.pack(">i", len(data)) + data)

    def handshake(self, mechanism, version=1):
        """(error, mechanisms)."""
        r = self.call(17, version, string(mechanism))
        return r.take("h"), r.array(lambda r: r.string())

    def authenticate(self, data, version=1):
        """(error, message, token, lifetime)."""
        r = self.call(36, version, struct.pack(">i", len(data)) + data)
        return r.take("h"), r.string(), r.bytes(), r.take("q") if version else 0

    def raw_token(self, data):
        self.frame(data)
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def is_closed(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


PLAIN = f"\0alice\0{SECRET}".encode()


def raw_order(suite):
    """What may come, in which order."""
    port = suite.ports[0]
    with Raw(port) as client:
        error, mechanisms = client.handshake("PLAIN")
        assert (error, sorted(mechanisms)) == (0, ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]), mechanisms
        assert client.authenticate(PLAIN) == (0, "", b"", 0)
        assert client.metadata([])[0]
        assert client.handshake("PLAIN")[0] == 34, "nobody has to authenticate again here"
    with Raw(port) as client:
        assert client.handshake("PLAIN", 0)[0] == 0
        assert client.raw_token(PLAIN) == b""
        assert client.metadata([])[0]
    with Raw(port) as client:
        error, mechanisms = client.handshake("GSSAPI")
        assert error == 33 and len(mechanisms) == 4 and client.is_closed()
    for key, version in ((3, 1), (36, 1), (0, 3), (1234, 0)):
        with Raw(port) as client:
            client.send(key, version, b"\0" * 16)
            assert client.is_closed(), f"key {key}"
    with Raw(port) as client:
        client.handshake("PLAIN")
        client.send(3, 1, struct.pack(">i", 0))
        # Kafka answers a request out of order with ILLEGAL_SASL_STATE; either way it is the end.
        while not client.is_closed():
            pass


def raw_failures(suite):
    """What a client is told."""
    port = suite.ports[0]
    cases = [
        ("PLAIN", b"\0alice\0wrong", "Authentication failed: Invalid username or password"),
        ("PLAIN", b"\0nobody\0wrong", "Authentication failed: Invalid username or password"),
        ("PLAIN", b"\0\0x", "Authentication failed: username not specified"),
        ("PLAIN", b"\0alice\0", "Authentication failed: password not specified"),
        ("PLAIN", b"bob\0alice\0" + SECRET.encode(),
         "Authentication failed: Client requested an authorization id that is different from username"),
        ("PLAIN", b"rubbish", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
        ("SCRAM-SHA-256", b"n,,n=nobody,r=abc", None),
        ("SCRAM-SHA-256", b"rubbish", None),
        ("SCRAM-SHA-512", b"n,a=bob,n=alice,r=abc",
         "Authentication failed: Client requested an authorization id that is different from username"),
        ("OAUTHBEARER", b"rubbish", None),
    ]  # fmt: skip
    for mechanism, data, text in cases:
        text = text or f"Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
        with Raw(port) as client:
            client.handshake(mechanism)
            began = time.monotonic()
            error, message, _, _ = client.authenticate(data)
            assert (error, message) == (58, text), (mechanism, data, error, message)
            assert client.is_closed()
            assert time.monotonic() - began >= 0.08, "it is told at once"
    with Raw(port) as client:
        client.handshake("OAUTHBEARER")
        expired = f"n,,\x01auth=Bearer {token('alice', -60)}\x01\x01".encode()
        error, _, data, _ = client.authenticate(expired)
        assert (error, data) == (0, b'{"status":"invalid_token"}'), (error, data)
        error, message, _, _ = client.authenticate(b"\x01")
        assert (error, message) == (58, '{"status":"invalid_token"}'), (error, message)
    return f"{len(cases) + 1} ways"


def raw_sessions(suite):
    """Sessions that end, and principals that may not change."""
    port = suite.ports[1]
    with Raw(port) as client:
        client.handshake("PLAIN")
        assert client.authenticate(PLAIN) == (0, "", b"", REAUTH_MS)
        assert client.metadata([])[0]
        time.sleep(REAUTH_MS / 1000 + 0.2)
        client.send(3, 1, struct.pack(">i", 0))
        assert client.is_closed()
    with Raw(port) as client:
        client.handshake("PLAIN")
        client.authenticate(PLAIN)
        assert client.handshake("PLAIN")[0] == 0
        error, message, _, _ = client.authenticate(b"\0bob\0other")
        wanted = "Cannot change principals during re-authentication from User.alice: User.bob"
        assert (error, message) == (58, wanted), (error, message)
        assert client.is_closed()
    with Raw(port) as client:
        client.handshake("PLAIN")
        client.authenticate(PLAIN)
        assert client.handshake("PLAIN")[0] == 0 and client.authenticate(PLAIN)[0] == 0
        assert client.handshake("PLAIN")[0] == 34, "once in a second"
    with Raw(port) as client:
        client.handshake("OAUTHBEARER")
        soon = f"n,,\x01auth=Bearer {token('alice', 1)}\x01\x01".encode()
        error, _, _, lifetime = client.authenticate(soon)
        # The end of a token is a fraction of a second, and rounded.
        assert error == 0 and 0 < lifetime <= 1001, (error, lifetime)


def raw_bounds(suite):
    """Frames that are too long, and rubbish."""
    port = suite.ports[0]
    for prefix in (struct.pack(">i", 524_289), struct.pack(">i", 100 << 20), struct.pack(">i", -1), b"GET / HTTP/1.1\r\n\r\n"):
        with Raw(port) as client:
            client.socket.sendall(prefix)
            assert client.is_closed(), prefix
    with Raw(port) as client:
        client.handshake("PLAIN")
        client.authenticate(PLAIN)
        # One who has proved who it is may send more.
        body = struct.pack(">i", 40_000) + b"".join(string(f"a-long-name-{n:06d}") for n in range(40_000))
        client.send(3, 4, body + b"\0")
        assert client.receive()


def jvm(*arguments, stdin=None):
    """The output of one of Kafka's own tools; fails if it does."""
    home = kafka_path("3.9.1")
    command = ["java", "-Xmx256M", "-cp", f"{home}/*:{home}/libs/*", *arguments]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stdout[-300:]}")
    return done.stdout


def java(suite, rows, folder):
    def configure():
        said = jvm(
            "kafka.admin.ConfigCommand", "--bootstrap-server", suite.broker.bootstrap, "--alter", "--entity-type", "users",
            "--entity-name", "carol", "--add-config", f"SCRAM-SHA-256=[iterations=8192,password={SECRET}]",
        )  # fmt: skip
        assert "Completed updating config for user carol." in said, said
        # Its own --describe asks for quotas as well.
        described = suite.admin.describe_user_scram_credentials(["carol"])["carol"].result(20)
        infos = [(info.mechanism.name, info.iterations) for info in described.scram_credential_infos]
        assert infos == [("SCRAM_SHA_256", 8192)], infos

    rows.run("kafka-configs makes a SCRAM user", configure, always=True)
    options = {
        "SCRAM-SHA-256": f'{MODULES}.scram.ScramLoginModule required username="carol" password="{SECRET}";',
        "PLAIN": f'{MODULES}.plain.PlainLoginModule required username="alice" password="{SECRET}";',
        "OAUTHBEARER": f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="alice";',
    }
    for mechanism, jaas in options.items():
        file = folder / f"{mechanism}.properties"
        file.write_text(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\nsasl.jaas.config={jaas}\n")

        def console(mechanism=mechanism, file=file):
            topic = f"java-{mechanism}"
            jvm("kafka.tools.ConsoleProducer", "--bootstrap-server", suite.soon,
                "--topic", topic, "--producer.config", str(file), stdin="a\nb\n")  # fmt: skip
            read = jvm("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", suite.soon, "--topic", topic,
                       "--from-beginning", "--max-messages", "2", "--timeout-ms", "20000", "--consumer.config", str(file))  # fmt: skip
            assert "a\nb\n" in read, read

        rows.run(f"Java's console tools, {mechanism}", console)


def no_secret(suite):
    log = "".join(path.read_text(errors="replace") for path in suite.broker.logs())
    assert SECRET not in log and base64.b64encode(SECRET.encode()).decode() not in log
    return f"{len(log)} bytes of log"


@contextlib.contextmanager
def running(folder):
    """The broker that the environment asks for, and the ports of the listeners that ask who comes."""
    asks, soon, over_tls = free_port(), free_port(), free_port()
    authority = Authority(folder / "ours", "ours")
    given = settings(authority.issue("broker", ["DNS:localhost", "IP:127.0.0.1"]))
    version = os.environ.get("KLAMM_AGAINST")
    broker = Kafka(given, version=version) if version else Klamm(given)
    listeners = {"PLAINTEXT": broker.port, "ASKS": asks, "SOON": soon, "OVER_TLS": over_tls}
    addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
    broker.settings |= {"listeners": addresses, "advertised.listeners": addresses}
    try:
        broker.start()
        yield broker, asks, soon, {"bootstrap.servers": f"127.0.0.1:{over_tls}", "security.protocol": "SASL_SSL",
                                   "ssl.ca.location": str(authority.pem)}  # fmt: skip
    finally:
        broker.stop()
        broker.remove()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--java", action="store_true")
    parser.add_argument("--jvm-brokers", action="store_true")
    arguments = parser.parse_args()
    # No secret may stand in the log however much is told (CVE-2026-33558).
    os.environ.setdefault("RUST_LOG", "debug")
    rows = Rows(arguments.only)
    with tempfile.TemporaryDirectory() as folder, running(pathlib.Path(folder)) as (broker, asks, soon, over_tls):
        suite = Suite(broker, asks, soon)
        rows.run("a SCRAM user is made and described", make_users, suite, always=True)
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"):
            name = mechanism.lower()
            rows.run(f"librdkafka writes and reads, {mechanism}", write_and_read, librdkafka(suite.asks, mechanism), f"c-{name}")
            if mechanism == "OAUTHBEARER":
                continue
            wrong = librdkafka(suite.asks, mechanism, password="wrong")
            rows.run(f"librdkafka is kept out, {mechanism}", kept_out, wrong)
            mine = python_client(suite.asks, mechanism)
            rows.run(f"kafka-python writes and reads, {mechanism}", write_and_read_python, mine, f"p-{name}")
            rows.run(f"kafka-python is kept out, {mechanism}", kept_out_python, python_client(suite.asks, mechanism, "wrong"))
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"):
            config = {**librdkafka("", mechanism), **over_tls}
            rows.run(f"librdkafka writes and reads over TLS, {mechanism}", write_and_read, config, f"t-{mechanism.lower()}")
        wrong = {**librdkafka("", "SCRAM-SHA-512", password="wrong"), **over_tls}
        rows.run("librdkafka is kept out over TLS, SCRAM-SHA-512", kept_out, wrong)
        rows.run("librdkafka is kept out, an unknown user", kept_out, librdkafka(suite.asks, "SCRAM-SHA-256", user="nobody"))
        for mechanism in ("PLAIN", "SCRAM-SHA-512"):
            rows.run(f"librdkafka outlives its session, {mechanism}", again, suite, mechanism)
        rows.run("what comes before authentication, in order and out of it", raw_order, suite)
        rows.run("what a client is told that proves nothing", raw_failures, suite)
        rows.run("sessions end, and stay their principal's", raw_sessions, suite)
        rows.run("what a stranger sends is bounded", raw_bounds, suite)
        if arguments.java:
            java(suite, rows, pathlib.Path(folder))
        rows.run("no secret is in the log", no_secret, suite)
    if "KLAMM_AGAINST" not in os.environ:
        three = "three brokers authenticate at each other"
        rows.run(f"{three}, SCRAM-SHA-256", between.replicate, "SCRAM-SHA-256", False, "klamm", "klamm", "klamm")
        rows.run(f"{three}, OAUTHBEARER", between.replicate, "OAUTHBEARER", False, "klamm", "klamm", "klamm")
        rows.run(f"{three}, tokens of a provider", between.replicate, "OIDC", False, "klamm", "klamm", "klamm")
        rows.run(f"{three}, PLAIN over TLS", between.replicate, "PLAIN", True, "klamm", "klamm", "klamm")
    if arguments.jvm_brokers:
        rows.run("one klamm between two of Apache Kafka, SCRAM-SHA-512 over TLS", between.replicate, "SCRAM-SHA-512", True, "kafka", "klamm", "kafka")
        rows.run("one klamm between two of Apache Kafka, OAUTHBEARER", between.replicate, "OAUTHBEARER", False, "kafka", "klamm", "kafka")
        rows.run("one klamm between two of Apache Kafka, tokens of a provider", between.replicate, "OIDC", False, "kafka", "klamm", "kafka")
    sys.exit(1 if rows.failed else 0)


main()
