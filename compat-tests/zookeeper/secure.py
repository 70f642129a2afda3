"""klamm on a ZooKeeper over TLS: certificates, `zookeeper.set.acl` by them, and Apache Kafka 3.9.1 beside it.

    compat-tests/run zookeeper.secure

The stores are those that openssl and keytool make. Both brokers make nodes below roots of their own, and what anybody
may do to each of them is compared; then they are one cluster, whose topic each of them leads in turn.
"""

import pathlib
import sys
import tempfile
import time

from kit import wire, zookeeper
from kit.broker import Kafka, Klamm, kafka_path
from kit.process import free_port
from kit.rows import Rows
from tls.stores import PASSWORD, Authority
from zookeeper.guarded import guards, masked, use

NETTY = "org.apache.zookeeper.ClientCnxnSocketNetty"
X509 = "org.apache.zookeeper.server.auth.X509AuthenticationProvider"
NAMES = ["DNS:localhost", "IP:127.0.0.1"]


def server_settings(authority, identity, port, asks):
    return {
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "secureClientPort": port, "secureClientPortAddress": "127.0.0.1", "authProvider.1": X509, "ssl.clientAuth": asks,
        "ssl.keyStore.location": identity.jks, "ssl.keyStore.password": PASSWORD,
        "ssl.trustStore.location": authority.jks, "ssl.trustStore.password": PASSWORD,
    }  # fmt: skip


class Suite:
    def __init__(self, folder):
        self.folder = folder
        self.ours, self.others = Authority(folder / "ours", "ours"), Authority(folder / "others", "others")
        self.alice = self.ours.issue("alice")
        # What a Java client does not take for localhost.
        self.elsewhere = self.ours.issue("elsewhere", ["DNS:elsewhere.example"])
        self.port = free_port()
        zoo = server_settings(self.ours, self.ours.issue("zoo", NAMES), self.port, "need")
        (folder / "need").mkdir()
        self.server = self.zookeeper(folder / "need", zoo)

    def zookeeper(self, folder, settings):
        return zookeeper.Server(folder, f"{kafka_path('3.9.1')}/libs/*", settings=settings)

    def settings(self, chroot, port=None, **more):
        """Over TLS with a truststore alone."""
        found = {
            "connect": f"localhost:{port or self.port}{chroot}", "clientCnxnSocket": NETTY, "ssl.client.enable": "true",
            "ssl.truststore.location": self.ours.jks, "ssl.truststore.password": PASSWORD,
            **{key.replace("_", "."): value for key, value in more.items()},
        }  # fmt: skip
        usual = {"offsets.topic.num.partitions": "1", "klamm.disk.reserve.bytes": "0", "password.encoder.secret": "x"}
        return usual | {f"zookeeper.{key}": value for key, value in found.items()}

    def mutual(self, chroot, kind="jks", **more):
        store = self.alice.p12 if kind == "p12" else self.alice.jks
        return self.settings(chroot, ssl_keystore_location=store, ssl_keystore_password=PASSWORD, **more)

    def new_folder(self, name):
        (self.folder / name).mkdir()
        return self.folder / name

    def server_alone(self):
        """A ZooKeeper that asks for no certificate, over TLS 1.3 as well."""
        port = free_port()
        zoo = server_settings(self.ours, self.ours.issue("zoo", NAMES, file="zoo2"), port, "none")
        # Of itself it has none of TLS 1.3.
        suites = "TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
        zoo |= {"ssl.protocol": "TLSv1.3", "ssl.enabledProtocols": "TLSv1.3,TLSv1.2", "ssl.ciphersuites": suites}
        server = self.zookeeper(self.new_folder("none"), zoo)
        try:
            for protocol in ("TLSv1.2", "TLSv1.3"):
                settings = self.settings(f"/{protocol}", port=port, ssl_protocol=protocol)
                klamm = Klamm(settings, self.new_folder(f"alone-{protocol}"))
                try:
                    klamm.start()
                    use(klamm)
                finally:
                    klamm.stop()
                assert server.tree(f"/{protocol}").get("/brokers/topics/t/partitions/1/state")
            return "1.2 and 1.3"
        finally:
            server.kill()

    def guards(self):
        klamm = Klamm(self.mutual("/klamm", "p12", set_acl="true"), self.new_folder("klamm"))
        kafka = Kafka(self.mutual("/kafka", set_acl="true"), self.new_folder("kafka"), free_port())
        try:
            klamm.start()
            use(klamm)
            kafka.start()
            use(kafka)
            wanted = masked(guards(self.server.tree("/kafka")))
            found = masked(guards(self.server.tree("/klamm")))
        finally:
            klamm.stop()
            kafka.stop()
        both = wanted.keys() & found.keys()
        differs = {path: (wanted[path], found[path]) for path in both if wanted[path] != found[path]}
        assert not differs, differs
        assert found["/config/users"] is None, found
        assert (31, "x509", "CN=alice,O=klamm") in found["/controller_epoch"], found["/controller_epoch"]
        return f"{len(both)} nodes in both"

    def shares(self):
        """One cluster of both kinds; each leads a partition of a topic that both have."""
        common = {"set_acl": "true", "session_timeout_ms": "6000"}
        brokers = [
            Klamm(self.mutual("/both", **common) | {"broker.id": "1"}, self.new_folder("one")),
            Kafka(self.mutual("/both", **common) | {"broker.id": "2"}, self.new_folder("two"), free_port()),
        ]
        try:
            for broker in brokers:
                broker.settings |= {"default.replication.factor": "2", "inter.broker.protocol.version": "3.9"}
                broker.start()
            tree = self.server.tree("/both")
            brokers[0].wait_until(lambda: tree.children("/brokers/ids") == ["1", "2"], 30)
            with wire.Client(brokers[0].port) as client:
                assert client.create_topic("shared", 2, 20_000) == 0
            leaders = {}
            end = time.monotonic() + 30
            while set(leaders.values()) != {1, 2}:
                assert time.monotonic() < end, leaders
                with wire.Client(brokers[1].port) as client:
                    partitions = client.metadata(["shared"])[1]["shared"][1]
                    leaders = {index: leader for index, (_, leader) in partitions.items()}
            for index, leader in leaders.items():
                with wire.Client(brokers[leader - 1].port) as client:
                    produced = {index: (3, -1)}
                    while produced[index][0]:
                        # A leader may hear of itself after others do.
                        assert time.monotonic() < end, produced
                        produced = client.produce("shared", {index: wire.batch([b"x"], 1)})
            return f"leaders {leaders}"
        finally:
            for broker in brokers:
                broker.stop()

    def refused(self, name, settings, *words):
        broker = Klamm(settings | {"zookeeper.connection.timeout.ms": "2000"}, self.new_folder(name))
        broker.launch()
        began = time.monotonic()
        code = broker.child.wait(30)
        assert code == 1 and all(word in broker.log() for word in words), broker.tail(5)
        assert PASSWORD not in broker.log()
        return time.monotonic() - began

    def refuses(self):
        trusted = self.mutual("/no", ssl_truststore_location=self.others.jks)
        longest = self.refused("trust", trusted, "cannot be used", f"localhost:{self.port}: SSL handshake failed", "UnknownIssuer")
        longest = max(longest, self.refused("nobody", self.settings("/no"), "SSL handshake failed: received fatal alert"))
        missing = self.mutual("/no", ssl_truststore_location="/nowhere.jks")
        self.refused("missing", missing, "zookeeper.ssl.truststore.location=/nowhere.jks", "No such file")
        wrong = self.mutual("/no") | {"zookeeper.ssl.keystore.password": "planted-hunter2"}
        self.refused("wrong", wrong, f"zookeeper.ssl.keystore.location={self.alice.jks}")
        assert "planted-hunter2" not in (self.folder / "wrong" / "klamm.log").read_text()
        plain = self.mutual("/no", clientCnxnSocket="org.apache.zookeeper.ClientCnxnSocketNIO")
        self.refused("plain", plain, NETTY)
        return f"{longest:.1f} s at most, of 2"

    def checks_names(self):
        """A certificate for another host, which counts once names are not looked at."""
        port = free_port()
        server = self.zookeeper(self.new_folder("elsewhere"), server_settings(self.ours, self.elsewhere, port, "none"))
        try:
            self.refused("named", self.settings("/x", port=port), "NotValidForName")
            settings = self.settings("/x", port=port) | {"zookeeper.ssl.endpoint.identification.algorithm": ""}
            klamm = Klamm(settings, self.new_folder("unnamed"))
            klamm.start()
            klamm.stop()
        finally:
            server.kill()


def main():
    rows = Rows()
    with tempfile.TemporaryDirectory(prefix="klamm-secure-") as folder:
        suite = Suite(pathlib.Path(folder))
        try:
            rows.run("a server's certificate is judged by the truststore", suite.server_alone)
            rows.run("nodes are guarded by a certificate as Kafka guards its own", suite.guards)
            rows.run("Kafka and klamm are one cluster over TLS to ZooKeeper", suite.shares)
            rows.run("what cannot be trusted, read or made safe ends the start", suite.refuses)
            rows.run("a certificate of another host ends the start", suite.checks_names)
        finally:
            suite.server.kill()
    return 1 if rows.failed else 0


if __name__ == "__main__":
    sys.exit(main())
