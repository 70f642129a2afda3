"""Delegation tokens as Java's Admin sees them: klamm beside what Apache Kafka 3.9.1 answered.

    compat-tests/run tokens            klamm on a ZooKeeper, against kafka-3.9.1.txt
    compat-tests/run tokens --jvm      and beside a broker of Apache Kafka 3.9.1 on the same ZooKeeper
    compat-tests/run tokens --record   asks Apache Kafka 3.9.1 and writes that file anew

`Tokens.java` makes, renews, describes, uses and expires tokens as five users and as nobody; ids, keys and times are
masked. Then: the nodes of tokens in ZooKeeper have the form that Kafka gives them, another broker learns of a token by
the notes, expired ones are deleted, and no key is in a log.
"""

import argparse
import base64
import difflib
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from kit import zookeeper
from kit.broker import Kafka, Klamm, kafka_path
from kit.process import free_port
from kit.rows import Rows

HERE = pathlib.Path(__file__).parent
RECORDED = HERE / "kafka-3.9.1.txt"
PASSWORD = "planted-hunter2"
SECRET = "planted-master-key"
MODULES = "org.apache.kafka.common.security"
USERS = ("admin", "alice", "bob", "carol", "dave")
DAY_MS = 24 * 3600 * 1000
NODES = "/delegation_token/tokens"


def settings(port, asks, **more):
    """A listener that asks nobody, and one that asks for SASL; an authorizer; tokens that live for five days."""
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in USERS)
    listeners = f"PLAINTEXT://127.0.0.1:{port},ASKS://127.0.0.1:{asks}"
    found = {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,ASKS:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.asks.plain.sasl.jaas.config": f"{MODULES}.plain.PlainLoginModule required {users};",
        "delegation.token.secret.key": SECRET,
        "delegation.token.max.lifetime.ms": 5 * DAY_MS,
        "delegation.token.expiry.time.ms": DAY_MS,
        "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
    }
    for name in ("scram-sha-256", "scram-sha-512"):
        found[f"listener.name.asks.{name}.sasl.jaas.config"] = f"{MODULES}.scram.ScramLoginModule required;"
    return {**found, **more}


class Program:
    """Java's Admin, compiled once."""

    def __init__(self, folder):
        self.libs, self.folder = f"{kafka_path('3.9.1')}/libs/*", folder
        command = ["javac", "-cp", self.libs, "-nowarn", "-d", folder, str(HERE / "Tokens.java")]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    def lines(self, broker, asks, *more):
        command = ["java", "-cp", f"{self.folder}:{self.libs}", "Tokens", broker.bootstrap, f"127.0.0.1:{asks}", PASSWORD, *more]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=400)
        return [line for line in done.stdout.splitlines() if " => " in line]


def record(program):
    port, asks = free_port(), free_port()
    kafka = Kafka(settings(port, asks), port=port)
    try:
        kafka.start()
        RECORDED.write_text("\n".join(program.lines(kafka, asks)) + "\n")
    finally:
        kafka.remove()


class Suite:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.server = zookeeper.Server(folder)
        self.brokers = []

    def start(self, chroot, number=1, of=Klamm, **more):
        port, asks = free_port(), free_port()
        found = settings(port, asks, **more) | {
            "broker.id": number, "zookeeper.connect": f"127.0.0.1:{self.server.port}{chroot}", "klamm.disk.reserve.bytes": "0",
        }  # fmt: skip
        if of is Kafka:
            del found["klamm.disk.reserve.bytes"]
        folder = self.folder / f"{chroot.strip('/')}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        broker = of(found, folder, port)
        self.brokers.append(broker)
        broker.start(180)
        return broker, asks

    def stop(self):
        while self.brokers:
            self.brokers.pop().stop()


def calls(suite):
    broker, asks = suite.start("/calls")
    found, wanted = suite.program.lines(broker, asks), RECORDED.read_text().splitlines()
    differs = [line for line in difflib.unified_diff(wanted, found, "kafka", "klamm", lineterm="", n=0) if line[0] in "+-"][2:]
    if differs:
        raise AssertionError("\n    " + "\n    ".join(differs))
    return f"{len(found)} calls"


def nodes(suite):
    """What the calls before left in the tree."""
    tree = suite.server.tree("/calls")
    ids = tree.children(NODES)
    for name in ids:
        node = json.loads(tree.get(f"{NODES}/{name}")[0])
        keys = {"version", "owner", "tokenRequester", "renewers", "issueTimestamp", "maxTimestamp", "expiryTimestamp", "tokenId"}
        assert set(node) == keys and node["version"] == 3 and node["tokenId"] == name, node
        assert node["owner"] in ("User%3Aalice", "User%3Abob", "User%3Acarol", "Group%3Ag"), node
    notes = tree.children("/delegation_token/token_changes")
    named = {tree.get(f"/delegation_token/token_changes/{note}")[0].decode() for note in notes}
    assert set(ids) <= named and all(note.startswith("token_change_") for note in notes), (ids, notes)
    return f"{len(ids)} tokens, {len(notes)} notes"


def secrets(suite):
    ids = suite.server.tree("/calls").children(NODES)
    keys = [hmac.digest(SECRET.encode(), name.encode(), hashlib.sha512) for name in ids]
    planted = [SECRET, PASSWORD, *(base64.b64encode(key).decode() for key in keys), *(key.hex() for key in keys)]
    log = "".join(path.read_text(errors="replace") for broker in suite.brokers for path in broker.logs())
    leaked = [secret[:12] for secret in planted if secret in log]
    assert log and not leaked, leaked
    return f"{len(planted)} secrets in {len(log)} characters"


def across(suite, of):
    """A token made here is good there, and the other way round."""
    chroot = f"/across-{of.name}"
    (one, asks), (_, other) = suite.start(chroot), suite.start(chroot, 2, of)
    expected = ["elsewhere => 2", "renewed elsewhere => expires in 1 min", "expired elsewhere => expires in 0 min"]
    for made, shown in ((asks, other), (other, asks)):
        found = suite.program.lines(one, made, f"127.0.0.1:{shown}")
        assert found == expected, found


def swept(suite):
    """What has expired goes, by the hand of the controller."""
    broker, asks = suite.start("/swept", **{"delegation.token.expiry.check.interval.ms": 500, "delegation.token.max.lifetime.ms": 1})
    suite.program.lines(broker, asks, "make")
    tree, until = suite.server.tree("/swept"), time.monotonic() + 30
    assert len(tree.children("/delegation_token/token_changes")) >= 3
    while tree.children(NODES):
        assert time.monotonic() < until, tree.children(NODES)
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--jvm", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    # No key may stand in the log however much is told (CVE-2026-33558).
    os.environ.setdefault("RUST_LOG", "debug")
    rows = Rows(arguments.only)
    with tempfile.TemporaryDirectory(prefix="klamm-tokens-") as folder:
        program = Program(folder)
        if arguments.record:
            record(program)
            return 0
        suite = Suite(program, pathlib.Path(folder))
        try:
            rows.run("every call is answered as by Kafka 3.9.1", calls, suite, always=True)
            rows.run("tokens lie in ZooKeeper as Kafka writes them", nodes, suite)
            rows.run("no key is in a log", secrets, suite)
            suite.stop()
            rows.run("another broker knows a token by its note", across, suite, Klamm)
            suite.stop()
            if arguments.jvm:
                rows.run("so does one of Apache Kafka, and the other way round", across, suite, Kafka)
                suite.stop()
            rows.run("expired tokens are deleted", swept, suite)
        finally:
            suite.stop()
            suite.server.kill()
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
