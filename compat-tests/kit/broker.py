"""The brokers that suites run against, all with the same face: klamm, Apache Kafka, or one that runs already.

A suite names the one it needs (`Klamm`, `Kafka`), or takes `chosen`, which the environment decides:

  KLAMM_BOOTSTRAP=host:port   a broker that runs already; nothing is started
  KLAMM_AGAINST=3.9.1         Apache Kafka of that version (3.x with ZooKeeper, 4.x with KRaft), from scripts/kafka-jars.sh
  KLAMM_BINARY=path           klamm, this binary; without it target/release/klamm
  KLAMM_BROKERS=3             so many of them on one ZooKeeper, each in a rack of its own
"""

import contextlib
import os
import pathlib
import shutil
import struct
import subprocess
import time

from kit import wire, zookeeper
from kit.process import ROOT, Process, free_port, script, write_properties

# What one node needs whatever the suite; keys of Kafka 3.9.
SINGLE_NODE = {
    "broker.id": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
}


def kafka_path(version):
    """The folder of Apache Kafka's jars and tools."""
    return pathlib.Path(script("kafka-jars.sh", version))


def librdkafka_path():
    """The folder of librdkafka, its test-runner and rdkafka_performance."""
    return pathlib.Path(script("librdkafka.sh"))


class Broker(Process):
    """A broker of one node. Port, folder and data stay the same over restarts; `settings` go before the usual ones."""

    title = "?"
    host = "127.0.0.1"

    def __init__(self, settings=None, folder=None, port=None):
        super().__init__(folder)
        self.port = port or free_port()
        self.settings = settings or {}

    @property
    def bootstrap(self):
        return f"{self.host}:{self.port}"

    def logs(self):
        return list(self.folder.glob("*.log"))

    def usual(self):
        listener = f"PLAINTEXT://{self.bootstrap}"
        here = {"listeners": listener, "advertised.listeners": listener, "log.dirs": self.folder / "data"}
        return {**SINGLE_NODE, **here}

    def ready(self):
        """Whether Metadata is answered and names a broker."""
        with contextlib.suppress(OSError, AssertionError, struct.error), wire.Client(self.port, timeout=5, host=self.host) as client:
            return bool(client.metadata([])[0])
        return False

    def wait_for_session(self):
        """After a kill: until a start is not refused because of the dead process's session in ZooKeeper."""


def klamm_binary():
    """The binary under test."""
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return pathlib.Path(os.environ.get("KLAMM_BINARY") or pathlib.Path(target, "release/klamm")).absolute()


class Klamm(Broker):
    """klamm, the binary under test unless `binary` names another."""

    name = title = "klamm"
    binary = None

    def command(self):
        file = write_properties(self.folder / "klamm.properties", {**self.usual(), **self.settings})
        return [str(self.binary or klamm_binary()), str(file)]


class Kafka(Broker):
    """Apache Kafka, by default 3.9.1 in ZooKeeper mode with a heap of 1 GiB. Its ZooKeeper runs on while it restarts."""

    name = "kafka"
    # G1 and the pauses as Kafka's own start script sets them.
    JVM = [
        "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true", "-Dkafka.root.level=INFO",
    ]  # fmt: skip

    def __init__(self, settings=None, folder=None, port=None, version="3.9.1", heap="1G"):
        super().__init__(settings, folder, port)
        self.version, self.heap = version, heap
        self.title = f"Apache Kafka {version}"
        self.home = kafka_path(version)
        self.kraft = not version.startswith("3.")
        self.controller_port = free_port()
        self.zookeeper = None

    def java(self, heap, *arguments):
        log4j = [f"-Dlog4j.configuration=file:{self.home}/config/log4j.properties",
                 f"-Dlog4j2.configurationFile=file:{self.home}/config/log4j2.properties"]  # fmt: skip
        return ["java", f"-Xms{heap}", f"-Xmx{heap}", *self.JVM, *log4j, "-cp", f"{self.home}/libs/*", *arguments]

    def usual(self):
        settings = super().usual()
        if self.kraft:
            del settings["broker.id"]
            controller = f"127.0.0.1:{self.controller_port}"
            return settings | {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.listener.names": "CONTROLLER",
                "controller.quorum.bootstrap.servers": controller,
                "listeners": f"{settings['listeners']},CONTROLLER://{controller}",
                "share.coordinator.state.topic.replication.factor": "1",
                "share.coordinator.state.topic.min.isr": "1",
            }
        settings["zookeeper.session.timeout.ms"] = "6000"
        if self.zookeeper:
            settings["zookeeper.connect"] = f"127.0.0.1:{self.zookeeper.port}"
        return settings

    def launch(self):
        if not self.kraft and self.zookeeper is None and "zookeeper.connect" not in self.settings:
            self.zookeeper = zookeeper.Server(self.folder, f"{self.home}/libs/*", force_sync=True)
        super().launch()

    def command(self):
        file = write_properties(self.folder / "kafka.properties", {**self.usual(), **self.settings})
        if self.kraft and not (self.folder / "data").exists():
            self.storage_tool("format", "-t", self.storage_tool("random-uuid"), "-c", str(file), "--standalone")
        return self.java(self.heap, "kafka.Kafka", str(file))

    def storage_tool(self, *arguments):
        command = self.java("256M", "kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip().splitlines()[-1]

    def wait_for_session(self):
        if not self.kraft:
            time.sleep(7)

    def remove(self):
        self.kill()
        if self.zookeeper:
            self.zookeeper.kill()
        super().remove()


class BesideZookeeper(Klamm):
    """klamm with the coordination of the Kafka that it is compared with, and so with that Kafka's versions."""

    def __init__(self, settings):
        super().__init__(settings)
        self.zookeeper = zookeeper.Server(self.folder, f'{kafka_path("3.9.1")}/libs/*', force_sync=True)
        self.settings = {**settings, "zookeeper.connect": f"127.0.0.1:{self.zookeeper.port}"}

    def remove(self):
        self.stop()
        self.zookeeper.kill()
        super().remove()


class Elsewhere(Broker):
    """One that somebody else has started: it is talked to, and nothing else."""

    name = "elsewhere"

    def __init__(self, bootstrap):
        super().__init__(port=int(bootstrap.rsplit(":", 1)[1]))
        self.address = bootstrap
        self.title = "the broker at " + bootstrap

    @property
    def bootstrap(self):
        return self.address

    def start(self, seconds=60):
        return 0.0

    def alive(self):
        return True


@contextlib.contextmanager
def chosen(settings=None, keep_log=None, port=None):
    """The broker that the environment asks for, started; at the end it is stopped and its folder removed.

    `keep_log` is a folder into which the log is copied before, `port` where it is asked, for settings that name it.
    """
    running, version = os.environ.get("KLAMM_BOOTSTRAP"), os.environ.get("KLAMM_AGAINST")
    several = int(os.environ.get("KLAMM_BROKERS", "1"))
    if running:
        broker = Elsewhere(running)
    elif several > 1:
        # Made of this package's brokers.
        from cluster.several import Several

        broker = Several(several, settings, version or "")
    else:
        broker = Kafka(settings, port=port, version=version) if version else Klamm(settings, port=port)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
        if keep_log:
            for log in broker.logs():
                shutil.copy(log, keep_log)
        broker.remove()
