"""Three brokers on one ZooKeeper that authenticate at each other: klamm, or some of Apache Kafka among them.

The way OIDC is OAUTHBEARER with tokens of a provider on loopback, which the brokers fetch, renew and check.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import tempfile
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kit import zookeeper
from kit.broker import Kafka, Klamm
from kit.oidc import AUDIENCE, CLIENT, ISSUER, Provider
from kit.oidc import SECRET as CLIENT_SECRET
from kit.process import free_port
from tls.stores import Authority

SECRET = "planted-hunter2"
MODULES = {"PLAIN": "plain.PlainLoginModule", "SCRAM-SHA-256": "scram.ScramLoginModule", "SCRAM-SHA-512": "scram.ScramLoginModule",
           "OAUTHBEARER": "oauthbearer.OAuthBearerLoginModule"}
HANDLERS = "org.apache.kafka.common.security.oauthbearer"
# Its tokens are renewed, and old ones end, while records are written.
TOKEN_SECONDS = 6
SECONDS = 8


def credential(mechanism, password, iterations=4096):
    """As kafka-configs stores it."""
    hash_name = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[mechanism]
    salt = b"between-brokers!"
    salted = hashlib.pbkdf2_hmac(hash_name, password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    parts = {"salt": salt, "stored_key": hashlib.new(hash_name, client_key).digest(), "server_key": hmac.digest(salted, b"Server Key", hash_name)}
    text = ",".join(f"{key}={base64.b64encode(value).decode()}" for key, value in parts.items())
    return f"{text},iterations={iterations}"


def put_user(tree, user, password, *mechanisms):
    """What kafka-configs --zookeeper writes, before the first broker or beside running ones."""
    for parent in ("/config", "/config/users", "/config/changes"):
        with contextlib.suppress(zookeeper.ZooError):
            tree.create(parent)
    data = json.dumps({"version": 1, "config": {name: credential(name, password) for name in mechanisms}}).encode()
    tree.create(f"/config/users/{user}", data)
    change = json.dumps({"version": 2, "entity_path": f"users/{user}"}).encode()
    tree.create("/config/changes/config_change_", change, sequential=True)


def of_provider(provider):
    """Settings of a listener whose tokens a provider gives, both ends."""
    own = {
        "sasl.login.callback.handler.class": f"{HANDLERS}.OAuthBearerLoginCallbackHandler",
        "sasl.oauthbearer.token.endpoint.url": f"{provider.url}/token",
        "sasl.server.callback.handler.class": f"{HANDLERS}.OAuthBearerValidatorCallbackHandler",
        "sasl.oauthbearer.jwks.endpoint.url": f"{provider.url}/keys",
        "sasl.oauthbearer.expected.audience": AUDIENCE, "sasl.oauthbearer.expected.issuer": ISSUER,
    }  # fmt: skip
    return {f"listener.name.brokers.oauthbearer.{key}": value for key, value in own.items()}


@contextlib.contextmanager
def brokers(way, kinds, over_tls):
    """(the brokers, the ports where each asks who comes, the tree); they have elected and replicate."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-sasl-"))
    server = zookeeper.Server(folder)
    mechanism = "OAUTHBEARER" if way == "OIDC" else way
    provider = Provider(folder / "provider", TOKEN_SECONDS) if way == "OIDC" else None
    tree = server.tree("")
    authority = Authority(folder / "ours", "ours")
    certificate = authority.issue("broker", ["DNS:localhost", "IP:127.0.0.1"])
    if mechanism.startswith("SCRAM"):
        put_user(tree, "broker", SECRET, mechanism)
    members, ports = [], []
    for number, kind in enumerate(kinds, 1):
        own = f'user_broker="{SECRET}"' if mechanism == "PLAIN" else ""
        if mechanism == "OAUTHBEARER":
            # Good for less than the records take, so that later connections need later ones.
            own = 'unsecuredLoginStringClaim_sub="broker" unsecuredLoginLifetimeSeconds="5"'
        if provider:
            own = f'clientId="{CLIENT}" clientSecret="{CLIENT_SECRET}" scope="test"'
        jaas = f'org.apache.kafka.common.security.{MODULES[mechanism]} required username="broker" password="{SECRET}" {own};'
        settings = {
            "broker.id": number, "zookeeper.connect": f"127.0.0.1:{server.port}", "zookeeper.session.timeout.ms": "6000",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,BROKERS:{'SASL_SSL' if over_tls else 'SASL_PLAINTEXT'}",
            "inter.broker.listener.name": "BROKERS", "sasl.enabled.mechanisms": mechanism,
            "sasl.mechanism.inter.broker.protocol": mechanism,
            f"listener.name.brokers.{mechanism.lower()}.sasl.jaas.config": jaas,
            # Sessions end several times while records are written.
            "connections.max.reauth.ms": "2000",
            "default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
            "offsets.topic.num.partitions": "3", "group.initial.rebalance.delay.ms": "0",
        }  # fmt: skip
        if provider:
            settings |= of_provider(provider)
        if over_tls:
            settings |= {
                "listener.name.brokers.ssl.keystore.type": "PEM", "listener.name.brokers.ssl.truststore.type": "PEM",
                "listener.name.brokers.ssl.keystore.location": certificate.pem,
                "listener.name.brokers.ssl.truststore.location": authority.pem,
            }  # fmt: skip
        port, home = free_port(), folder / f"b{number}"
        member = (Klamm if kind == "klamm" else Kafka)(settings, home)
        addresses = f"PLAINTEXT://{member.bootstrap},BROKERS://127.0.0.1:{port}"
        member.settings |= {"listeners": addresses, "advertised.listeners": addresses, "log.dirs": home / "data"}
        members.append(member)
        ports.append(port)
    try:
        for member in members:
            member.launch()
        for member in members:
            member.wait_until(member.ready, 90)
        yield members, ports, tree
    finally:
        for member in members:
            member.stop()
        server.kill()
        if provider:
            provider.close()
        for member in members:
            member.remove()
        server.remove()


def replicate(way, over_tls, *kinds):
    """Records with three acknowledgements, for longer than several sessions last; read back through a group."""
    with brokers(way, kinds, over_tls) as (members, ports, tree):
        bootstrap = ",".join(member.bootstrap for member in members)
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        until = time.monotonic() + 60
        while len(admin.list_topics(timeout=10).brokers) < 3:
            assert time.monotonic() < until, "three brokers do not find each other within a minute"
            time.sleep(0.1)
        admin.create_topics([NewTopic("t", num_partitions=6, replication_factor=3)])["t"].result(30)
        producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 40_000, "log_level": 2})
        until, count = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            for _ in range(50):
                producer.produce("t", str(count))
                count += 1
            left = producer.flush(40)
            assert not left, f"{left} records were not written"
            time.sleep(0.1)
        consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest", "log_level": 2,
        })  # fmt: skip
        values, until = set(), time.monotonic() + 40
        consumer.subscribe(["t"])
        while len(values) < count and time.monotonic() < until:
            values |= {message.value() for message in consumer.consume(500, 0.2) if message.error() is None}
        consumer.close()
        assert len(values) == count, f"{len(values)} of {count} records came back"
        partitions = admin.list_topics("t", timeout=10).topics["t"].partitions.values()
        in_sync = [len(partition.isrs) for partition in partitions]
        assert in_sync == [3] * 6, f"{in_sync} replicas are in sync"
        if way.startswith("SCRAM") and not over_tls:
            written_by_hand(tree, ports, way)
        for member in members:
            log = member.log_path.read_text(errors="replace")
            assert SECRET not in log and CLIENT_SECRET not in log, f"{member.folder.name} logs a secret"
        return f"{count} records"


def written_by_hand(tree, ports, mechanism):
    """A user that a tool writes into ZooKeeper is let in by every broker that follows."""
    put_user(tree, "dave", "by-hand", mechanism)
    config = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.username": "dave", "log_level": 2}
    for port in ports:
        admin = AdminClient({**config, "sasl.password": "by-hand", "bootstrap.servers": f"127.0.0.1:{port}"})
        assert admin.list_topics(timeout=15).brokers
