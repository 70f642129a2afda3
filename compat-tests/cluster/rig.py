"""A ZooKeeper and some brokers, klamm or Apache Kafka, and what can be done to them."""

import contextlib
import json
import pathlib
import shutil
import struct
import tempfile
import time

from cluster import jvm_lines, network
from cluster.admin import Admin
from kit import zookeeper
from kit.broker import Kafka, Klamm
from kit.process import free_port

NOT_CONTROLLER = 41
SESSION_S = 6
LAG_S = 10
NO_FAULT = (OSError, AssertionError, struct.error, zookeeper.ZooError)
SETTINGS = {
    "zookeeper.session.timeout.ms": str(SESSION_S * 1000),
    "replica.lag.time.max.ms": str(LAG_S * 1000),
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "6",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.state.log.num.partitions": "6",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "2000",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
}


class Failed(Exception):
    """The cluster did not do what it must, whatever the history says."""


class Member:
    """What a broker of a cluster has that a broker of one node has not; mixed into `Klamm` and `Kafka`."""

    def join(self, cluster, number, extra):
        """To be called before the first start."""
        self.cluster, self.number, self.label = cluster, number, f"b{number}"
        self.name = self.label
        self.log_path = self.folder / f"{self.name}.log"
        self.host = cluster.addresses[self.label]
        listener = f"PLAINTEXT://{self.bootstrap}"
        self.settings = {
            **SETTINGS, "broker.id": number, "listeners": listener, "advertised.listeners": listener,
            "zookeeper.connect": f"{cluster.server.host}:{cluster.server.port}", **extra,
        }  # fmt: skip
        # Whether it shall be up, and whether it is stopped by SIGSTOP.
        self.wanted, self.paused = False, False
        return self

    def command(self):
        return self.cluster.network.wrap(self.label, super().command())

    def launch(self):
        self.wanted = True
        super().launch()

    def kill9(self):
        self.wanted = False
        self.kill()
        self.paused = False

    def term(self, seconds=60):
        """SIGTERM. (exit code, seconds it took)."""
        self.wanted, began = False, time.monotonic()
        return self.stop(seconds), time.monotonic() - began

    def pause(self):
        super().pause()
        self.paused = True

    def resume(self):
        super().resume()
        self.paused = False

    def registered(self):
        """The registration's stat; None if there is none."""
        return self.cluster.tree.stat(f"/brokers/ids/{self.number}")

    def restart(self, seconds=180):
        """Starts it after its death; the seconds until it is ready. Kafka's starts fail while its old session lives."""
        began = time.monotonic()
        if isinstance(self, Kafka):
            self.cluster.until(4 * SESSION_S, lambda: self.registered() is None, f"the old session of {self.label} to end")
        self.start(seconds)
        return time.monotonic() - began


class KlammMember(Member, Klamm):
    pass


class KafkaMember(Member, Kafka):
    def may_have_ended(self):
        """Whether a fault explains that it did: a start is refused while its old session lives, or ZooKeeper is away."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_begin)
            said = log.read().decode(errors="replace")
        refused = "Exiting Kafka due to fatal exception during startup" in said and "zookeeper" in said
        return not self.cluster.is_mixed or refused

    # Three of them start again and again on a few cores: the second compiler would only cost.
    JVM = [*Kafka.JVM, "-XX:TieredStopAtLevel=1"]


class Cluster:
    """`against`: empty for klamm, or a version of Apache Kafka; or one such word for each broker ("3.9.1 3.9.1 klamm").
    `racks`: RACK1 for the first broker, and so on."""

    def __init__(self, against="", count=3, extra=None, folder=None, net=None, racks=False):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="klamm-cluster-"))
        self.network = net or network.here()
        names = [f"b{n}" for n in range(1, count + 1)] + ["zk"]
        self.addresses = {name: self.network.add(name) for name in names}
        self.extra, self.racks, self.against = extra or {}, racks, against
        kinds = against.split() or ["klamm"]
        self.kinds = kinds if len(kinds) > 1 else kinds * count
        self.title = " + ".join(
            f"{self.kinds.count(k)} {'klamm' if k == 'klamm' else 'Apache Kafka ' + k}" for k in dict.fromkeys(self.kinds)
        )
        # `replaced`: brokers that others stand in the place of.
        self.server, self.nodes, self.failed, self.replaced = None, {}, False, []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def start(self):
        """Starts everything; the seconds until all brokers know of each other."""
        began = time.monotonic()
        wrap = lambda command: self.network.wrap("zk", command)  # noqa: E731
        self.server = zookeeper.Server(self.folder / "zk", host=self.addresses["zk"], wrap=wrap)
        self.tree = self.server.tree("")
        for number, kind in enumerate(self.kinds, 1):
            extra = {**self.extra, **({"broker.rack": f"RACK{number}"} if self.racks else {})}
            self.nodes[number] = self.make(number, kind, self.folder / f"b{number}", free_port(), extra)
            self.nodes[number].launch()
        for node in self.nodes.values():
            node.wait_until(node.ready, 180)
        self.all_known(60)
        return time.monotonic() - began

    def make(self, number, kind, folder, port, extra):
        if kind == "klamm":
            return KlammMember(folder=folder, port=port).join(self, number, {"klamm.disk.reserve.bytes": "0", **extra})
        return KafkaMember(folder=folder, port=port, version=kind, heap="512M").join(self, number, extra)

    def renew(self, number, kind, extra=None):
        """In the place of a broker that was stopped, one of that kind with the same id and address and an empty directory."""
        old = self.nodes[number]
        self.replaced.append(old)
        folder = self.folder / f"b{number}-{len(self.replaced)}"
        rack = {key: value for key, value in old.settings.items() if key == "broker.rack"}
        node = self.nodes[number] = self.make(number, kind, folder, old.port, {**self.extra, **rack, **(extra or {})})
        return node

    def end(self):
        """Ends every process; the folder stays."""
        for node in self.nodes.values():
            with contextlib.suppress(ProcessLookupError):
                if node.alive():
                    node.resume()
            node.kill()
        if self.server:
            self.server.kill()

    def remove(self):
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def broker(self, number):
        return self.nodes[number]

    @property
    def bootstrap(self):
        return ",".join(node.bootstrap for node in self.nodes.values())

    def alive(self):
        return [node for node in self.nodes.values() if node.alive() and not node.paused]

    def until(self, seconds, body, what):
        """Polls until `body` answers something true; (that, the seconds it took). Fails with `what` when time is over."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(*NO_FAULT):
                found = body()
                if found:
                    return found, time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise Failed(f"waited {seconds:g} s for {what}")
            time.sleep(0.05)

    def admin(self, number=None, timeout=10):
        """A connection to a broker, or to the first that is up."""
        node = self.nodes[number] if number else self.alive()[0]
        return Admin(node.port, timeout, node.host)

    def describe(self, topics=None, number=None):
        with self.admin(number) as client:
            return client.describe(topics)

    def controller(self):
        """The id in ZooKeeper; None if there is none."""
        node = self.tree.get("/controller")
        return node and json.loads(node[0])["brokerid"]

    def controller_epoch(self):
        return int(self.tree.get("/controller_epoch")[0])

    def at_controller(self, body, seconds=30):
        """What `body(client)` answers on a connection to the controller; tried again while that changes, as Kafka's tools do."""

        def ask():
            with self.admin(self.controller(), timeout=30) as client:
                answer = body(client)
            first = answer[0] if isinstance(answer, tuple) else answer
            codes = first.values() if isinstance(first, dict) else [first]
            return None if NOT_CONTROLLER in codes else (answer,)

        return self.until(seconds, ask, "an answer of the controller")[0][0]

    def all_known(self, seconds):
        """Waits until each broker that is up names all that are up."""
        up = {node.number for node in self.alive()}
        for number in up:
            self.until(seconds, lambda n=number: set(self.describe([], n)[1]) >= up, f"b{number} to know {sorted(up)}")

    def topic(self, name, partitions=6, replication=3, seconds=60, whole=True, **configs):
        """Creates a topic and waits until it is in sync, or else (`whole` is false) led; the seconds that took."""
        began = time.monotonic()
        configs = {key.replace("_", "."): str(value) for key, value in configs.items()}
        codes = []

        def create():
            codes.append(self.at_controller(lambda client: client.create(name, partitions, replication, configs)))
            # NOT_CONTROLLER and INVALID_REPLICATION_FACTOR while a controller is still learning of brokers.
            return codes[-1] in (0, 36)

        self.until(seconds, create, f"the creation of {name}, answered {codes}")
        if whole:
            self.in_sync([name], seconds)
        else:
            led = lambda: all(p.leader > 0 for p in self.describe([name])[2][name].values())  # noqa: E731
            self.until(seconds, led, f"leaders of {name}")
        return time.monotonic() - began

    def leader(self, topic, partition=0):
        found = self.describe([topic])[2][topic][partition]
        return found.leader

    def epochs(self, topic):
        """{partition: leader epoch} as ZooKeeper has it."""
        state = "/brokers/topics/{}/partitions/{}/state"
        partitions = self.tree.children(f"/brokers/topics/{topic}/partitions")
        return {int(p): json.loads(self.tree.get(state.format(topic, p))[0])["leader_epoch"] for p in partitions}

    def in_sync(self, topics=None, seconds=120):
        """Waits until every partition has a leader and all its replicas in sync, as every live broker tells it."""

        def look(number):
            found = self.describe(topics, number)[2]
            return bool(found) and all(
                partitions
                and all(p.error == 0 and p.leader > 0 and set(p.isr) == set(p.replicas) for p in partitions.values())
                for partitions in found.values()
            )

        began = time.monotonic()
        for node in self.alive():
            try:
                self.until(seconds, lambda n=node.number: look(n), f"full ISR, asking {node.label}")
            except Failed as late:
                raise Failed(f"{late}: {self.lagging(topics, node.number)}") from None
        return time.monotonic() - began

    def lagging(self, topics, number):
        try:
            found = self.describe(topics, number)[2]
        except NO_FAULT as problem:
            return f"no answer: {problem}"
        return [f"{t}-{p}: {d}" for t, ps in found.items() for p, d in ps.items() if set(d.isr) != set(d.replicas)][:6]

    def tend(self):
        """Starts again what shall be up and is not, without waiting. A klamm that ended by itself is a failure."""
        for node in self.nodes.values():
            if node.wanted and not node.alive():
                if isinstance(node, Klamm) or not node.may_have_ended():
                    raise Failed(f"{node.label} ended by itself with {node.child.returncode}\n{node.tail(15)}")
                # Its old session still lives, mostly; without ZooKeeper it could not start.
                with contextlib.suppress(*NO_FAULT):
                    if node.registered() is None:
                        node.launch()

    def heal(self, seconds=180):
        """Takes every fault away and waits until all brokers are up and know each other; the seconds that took."""
        began = time.monotonic()
        self.tend()
        self.network.heal()
        if not self.server.alive():
            self.server.start()
        for node in self.nodes.values():
            if node.paused and node.alive():
                node.resume()
            node.wanted = True

        def up():
            for node in self.nodes.values():
                if not node.alive() and isinstance(node, Klamm):
                    node.launch()
            self.tend()
            return all(node.alive() and node.ready() for node in self.nodes.values())

        self.until(seconds, up, "all brokers to be up")
        self.all_known(seconds)
        return time.monotonic() - began

    @property
    def is_mixed(self):
        return len({isinstance(node, Klamm) for node in [*self.nodes.values(), *self.replaced]}) > 1

    def panics(self):
        """Lines of the brokers' logs that no fault explains; of JVM brokers only where they have klamm for a neighbour."""
        found = []
        for node in [*self.replaced, *self.nodes.values()]:
            if not node.log_path.exists():
                continue
            text = node.log_path.read_text(errors="replace")
            if isinstance(node, Klamm):
                found += [f"{node.label}: {line}" for line in text.splitlines() if "panicked" in line]
            elif self.is_mixed:
                found += [f"{node.label}: {line[:300]}" for line in jvm_lines.that_matter(text)]
        return found
