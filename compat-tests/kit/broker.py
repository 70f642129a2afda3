"""Starts the broker under test, or Apache Kafka in its place, on free loopback ports and in a folder of its own.

Which one is decided by the environment, so that every suite can be pointed at another broker:

  KLAMM_BOOTSTRAP=host:port   a broker that runs already; nothing is started
  KLAMM_AGAINST=3.9.1         Apache Kafka of that version (3.x with ZooKeeper, 4.x with KRaft), from scripts/kafka-jars.sh
  KLAMM_BINARY=path           klamm, this binary; without it target/release/klamm

A process started here ends with its starter, even when that is killed. Nothing is bound beyond loopback.
"""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

# G1 and the pauses as Kafka's own start script sets them.
KAFKA_JVM = [
    "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
]  # fmt: skip

# What one node needs whatever the suite; keys of Kafka 3.9.
SINGLE_NODE = {
    "broker.id": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def output_of(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1]


def kafka_path(version):
    """The folder of Apache Kafka's jars and tools."""
    return pathlib.Path(output_of(str(ROOT / "scripts/kafka-jars.sh"), version))


def librdkafka_path():
    """The folder of librdkafka, its test-runner and rdkafka_performance."""
    return pathlib.Path(output_of(str(ROOT / "scripts/librdkafka.sh")))


def binary():
    chosen = os.environ.get("KLAMM_BINARY")
    if chosen:
        return chosen
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return os.path.join(target, "release", "klamm")


def answers(port, timeout=1.0):
    """Whether the broker answers Metadata (version 1, no topics) and names at least one broker."""
    client = b"kit"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            size = struct.unpack(">i", stream.read(4))[0]
            body = stream.read(size)
            return struct.unpack(">ii", body[:8])[1] > 0
    except (OSError, struct.error):
        return False


class Process:
    """One child: its output in a file, its end tied to ours."""

    def __init__(self, name, command, folder, env=None):
        self.name = name
        self.log_path = folder / f"{name}.log"
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=env,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def wait_until(self, ready, seconds):
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.alive():
                raise RuntimeError(f"{self.name} ended with {self.child.returncode} before it was ready\n{self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} was not ready after {seconds} s\n{self.tail()}")
            time.sleep(0.01)

    def tail(self, lines=30):
        text = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in text[-lines:])

    def stop(self, seconds=30):
        """SIGTERM, then SIGKILL after a while. Returns the exit code."""
        if self.alive():
            self.child.terminate()
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def kill(self):
        self.child.kill()
        self.child.wait()

    def cpu_seconds(self):
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        return int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Broker:
    """A running broker: `bootstrap`, `name`, and `process` (None when somebody else started it)."""

    def __init__(self, name, bootstrap, process=None, helpers=()):
        self.name = name
        self.bootstrap = bootstrap
        self.process = process
        self.helpers = list(helpers)

    def stop(self):
        code = self.process.stop() if self.process else 0
        for helper in self.helpers:
            helper.stop(5)
        return code


def write_properties(path, properties):
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return path


def start_klamm(folder, properties=None, port=None, name="klamm"):
    port = port or free_port()
    listener = f"PLAINTEXT://127.0.0.1:{port}"
    settings = {**SINGLE_NODE, "listeners": listener, "advertised.listeners": listener, "log.dirs": str(folder / "data")}
    settings.update(properties or {})
    file = write_properties(folder / f"{name}.properties", settings)
    process = Process(name, [binary(), str(file)], folder)
    process.wait_until(lambda: answers(port), 30)
    return Broker("klamm", f"127.0.0.1:{port}", process)


def java(home, heap, *arguments):
    opens = ["-Dkafka.root.level=INFO", f"-Dlog4j.configuration=file:{home}/config/log4j.properties",
             f"-Dlog4j2.configurationFile=file:{home}/config/log4j2.properties"]  # fmt: skip
    return ["java", f"-Xmx{heap}", *opens, "-cp", f"{home}/libs/*", *arguments]


def start_zookeeper(folder, home=None, port=None):
    """ZooKeeper from Kafka's jars. Returns its process; `port` is an attribute of it."""
    home = home or kafka_path("3.9.1")
    port = port or free_port()
    file = write_properties(
        folder / "zookeeper.properties",
        {
            "dataDir": folder / "zookeeper",
            "clientPort": port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "maxClientCnxns": 0,
            "tickTime": 500,
        },
    )
    process = Process("zookeeper", java(home, "256M", "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(file)), folder)

    def open_port():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    process.wait_until(open_port, 60)
    process.port = port
    return process


def start_kafka(folder, version, properties=None, port=None, heap="1G"):
    home = kafka_path(version)
    port = port or free_port()
    listener = f"PLAINTEXT://127.0.0.1:{port}"
    settings = {**SINGLE_NODE, "log.dirs": str(folder / "data")}
    helpers = []
    if version.startswith("3."):
        if "zookeeper.connect" not in (properties or {}):
            helpers.append(start_zookeeper(folder, home))
            settings["zookeeper.connect"] = f"127.0.0.1:{helpers[0].port}"
        settings |= {
            "zookeeper.session.timeout.ms": "6000",
            "listeners": listener,
            "advertised.listeners": listener,
        }
    else:
        controller = free_port()
        settings |= {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listeners": f"{listener},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listener,
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }
        settings.pop("broker.id")
    settings.update(properties or {})
    file = write_properties(folder / "kafka.properties", settings)
    if not version.startswith("3."):
        cluster = output_of(*java(home, "256M", "kafka.tools.StorageTool", "random-uuid"))
        subprocess.run(
            java(home, "256M", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(file), "--standalone"),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    command = java(home, heap, *KAFKA_JVM[:-1], f"-Xms{heap}", KAFKA_JVM[-1], "kafka.Kafka", str(file))
    process = Process("kafka", command, folder)
    process.wait_until(lambda: answers(port), 60)
    return Broker(f"Apache Kafka {version}", f"127.0.0.1:{port}", process, helpers)


@contextlib.contextmanager
def broker(properties=None, keep_log=None):
    """The broker that the environment asks for; stopped, and its folder removed, at the end.

    `keep_log` is a folder into which the log is copied before.
    """
    running = os.environ.get("KLAMM_BOOTSTRAP")
    if running:
        yield Broker("the broker at " + running, running)
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-"))
    started = None
    try:
        version = os.environ.get("KLAMM_AGAINST")
        started = start_kafka(folder, version, properties) if version else start_klamm(folder, properties)
        yield started
    finally:
        if started:
            started.stop()
        if keep_log:
            for log in folder.glob("*.log"):
                shutil.copy(log, keep_log)
        shutil.rmtree(folder, ignore_errors=True)
