"""klamm on a ZooKeeper that asks who comes: SASL DIGEST-MD5 and `zookeeper.set.acl`, beside Apache Kafka 3.9.1.

    compat-tests/run zookeeper.guarded

Both brokers make a topic and a user; what anybody may do to each node of theirs is compared, node by node. Then Kafka's
zookeeper-security-migration opens klamm's nodes and guards them again, and klamm goes on.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

from kit import wire, zookeeper
from kit.broker import Kafka, Klamm, kafka_path
from kit.process import free_port
from kit.rows import Rows

DIGEST = "org.apache.zookeeper.server.auth.DigestLoginModule"
PROVIDER = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
PASSWORD = "planted-hunter2"
# Nodes that one of the two has alone, or under names of its own.
OWN = ("/migration", "/log_dir_event_notification/", "/config/changes/", "/isr_change_notification/", "/kafka-acl")


def jaas(folder):
    """Files for the server, for who is let in, and for somebody else; and the options that name them."""
    texts = {
        "server": f'Server {{ {DIGEST} required user_kafka="{PASSWORD}"; }};',
        "client": f'Client {{ {DIGEST} required username="kafka" password="{PASSWORD}"; }};',
        "wrong": f'Client {{ {DIGEST} required username="kafka" password="another"; }};',
    }
    for name, text in texts.items():
        (folder / f"{name}.conf").write_text(text)
    return {name: f"-Djava.security.auth.login.config={folder / name}.conf" for name in texts}


class Guarded(Kafka):
    """Apache Kafka that logs in at ZooKeeper."""

    def __init__(self, option, settings, folder, port):
        super().__init__(settings, folder, port)
        self.JVM = [*Kafka.JVM, option]


@contextlib.contextmanager
def options(value):
    """What klamm reads of the environment."""
    before = os.environ.get("KAFKA_OPTS")
    os.environ["KAFKA_OPTS"] = value
    try:
        yield
    finally:
        os.environ.pop("KAFKA_OPTS")
        if before is not None:
            os.environ["KAFKA_OPTS"] = before


def settings(server, chroot):
    return {
        "zookeeper.connect": f"127.0.0.1:{server.port}{chroot}",
        "zookeeper.set.acl": "true",
        "password.encoder.secret": "x",
        "delegation.token.secret.key": "x",
        "offsets.topic.num.partitions": "1",
    }


def use(broker):
    with wire.Client(broker.port) as client:
        assert client.create_topic("t", 2, 20_000) == 0
        deadline = 0
        while client.metadata(["t"])[1].get("t", (3, {}))[0] and deadline < 200:
            deadline += 1


def guards(tree, path=""):
    """{path: who may do what} of every node that anybody may list; a node that is hidden has None."""
    found = {path or "/": tree.acl(path)}
    if found[path or "/"] is not None:
        for name in tree.children(path):
            found |= guards(tree, f"{path}/{name}")
    return found


def masked(found):
    return {path: acl and sorted(acl) for path, acl in found.items() if not any(path.startswith(own) for own in OWN)}


class Suite:
    def __init__(self, folder):
        self.folder, self.files = folder, jaas(folder)
        provider = f"-Dzookeeper.authProvider.1={PROVIDER}"
        self.server = zookeeper.Server(folder, options=[self.files["server"], provider])
        (folder / "klamm").mkdir()
        (folder / "kafka").mkdir()
        self.klamm = Klamm({**settings(self.server, "/klamm"), "klamm.disk.reserve.bytes": "0"}, folder / "klamm")

    def starts(self):
        with options(self.files["client"]):
            self.klamm.start()
        use(self.klamm)

    def compares(self):
        kafka = Guarded(self.files["client"], settings(self.server, "/kafka"), self.folder / "kafka", free_port())
        try:
            kafka.start()
            use(kafka)
            wanted = masked(guards(self.server.tree("/kafka")))
        finally:
            kafka.stop()
        found = masked(guards(self.server.tree("/klamm")))
        both = wanted.keys() & found.keys()
        differs = {path: (wanted[path], found[path]) for path in both if wanted[path] != found[path]}
        assert not differs, differs
        assert found["/config/users"] is None and found["/brokers/ids/1"], found
        return f"{len(both)} nodes in both, {len(wanted) - len(both)} and {len(found) - len(both)} in one alone"

    def migrates(self):
        for mode in ("unsecure", "secure"):
            command = ["java", self.files["client"], "-cp", f"{kafka_path('3.9.1')}/libs/*", "kafka.admin.ZkSecurityMigrator"]
            command += [f"--zookeeper.acl={mode}", "--zookeeper.connect", f"127.0.0.1:{self.server.port}/klamm"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
            hidden = self.server.tree("/klamm").acl("/config/users") is None
            assert hidden == (mode == "secure"), mode
        with wire.Client(self.klamm.port) as client:
            assert client.create_topic("u", 1, 20_000) == 0
        self.klamm.stop()
        with options(self.files["client"]):
            self.klamm.start()
        use_again = self.server.tree("/klamm").get("/brokers/topics/u")
        assert use_again

    def refuses(self):
        """A wrong password, or none where nodes are to be guarded."""
        (self.folder / "stranger").mkdir()
        found = settings(self.server, "/stranger") | {"zookeeper.connection.timeout.ms": 3000}
        for files, word in ((self.files["wrong"], "ZooKeeper at"), ("", "JAAS login file failed")):
            broker = Klamm(found, self.folder / "stranger")
            with options(files):
                broker.launch()
                code = broker.child.wait(30)
            assert code == 1 and word in broker.log() and PASSWORD not in broker.log(), broker.tail(3)


def main():
    if not pathlib.Path(zookeeper.JAR).exists():
        print(f"SKIP  zookeeper.guarded  {zookeeper.JAR} is missing; scripts/setup.sh installs it")
        return 0
    rows = Rows()
    with tempfile.TemporaryDirectory(prefix="klamm-guarded-") as folder:
        suite = Suite(pathlib.Path(folder))
        try:
            rows.run("a broker proves who it is to ZooKeeper", suite.starts)
            rows.run("its nodes are guarded as Kafka guards its own", suite.compares)
            rows.run("zookeeper-security-migration opens and guards them", suite.migrates)
            rows.run("a wrong password, and none, end the start", suite.refuses)
        finally:
            suite.klamm.stop()
            suite.server.kill()
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
