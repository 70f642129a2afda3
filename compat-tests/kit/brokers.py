"""Brokers as processes on loopback: klamm, and Apache Kafka 3.9.1 on a ZooKeeper of its own, both with the same face."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from broker import ROOT, free_port, output_of
from wire import wait_ready


def script(name, *args):
    """Last line that a script of the repository prints."""
    return output_of(str(ROOT / "scripts" / name), *args)


class Broker:
    """A broker process with its data in a folder of its own."""

    name = "?"

    def __init__(self, settings=None, folder=None):
        self.port = free_port()
        self.settings = settings or {}
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self, deadline=60.0):
        """Starts the process and waits until Metadata names a broker; answers the seconds that took."""
        log = open(self.folder / "log.txt", "ab")
        begin = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.environment())
        wait_ready(self.port, deadline)
        return time.monotonic() - begin

    def stop(self, how=signal.SIGTERM, deadline=60.0):
        """Seconds until the process is gone."""
        begin = time.monotonic()
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(deadline)
        return time.monotonic() - begin

    def kill(self):
        return self.stop(signal.SIGKILL)

    def wait_for_session(self):
        """After a kill: until a start is not refused because of the dead process's session in ZooKeeper."""

    def remove(self):
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self):
        """(resident now, peak)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return int(value["VmRSS"]) / 1024, int(value["VmHWM"]) / 1024

    def cpu_until_idle(self, settle=1.5, deadline=60.0):
        """CPU seconds once less than 2 % of a core was used for `settle` seconds: background work is counted."""
        end = time.monotonic() + deadline
        before = self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(settle)
            now = self.cpu_seconds()
            if now - before <= 0.02 * settle:
                return now
            before = now
        return before


class Klamm(Broker):
    name = "klamm"

    def command(self):
        binary = os.environ.get("KLAMM_BINARY") or ROOT / "target/release/klamm"
        settings = {
            "broker.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.folder / "data"),
            **self.settings,
        }
        return [str(binary)] + [part for k, v in settings.items() for part in ("--override", f"{k}={v}")]


class Kafka(Broker):
    """Apache Kafka 3.9.1 in ZooKeeper mode, heap 1 GiB, G1 as its scripts set it."""

    name = "kafka"

    def __init__(self, settings=None, folder=None):
        super().__init__(settings, folder)
        self.jars = script("kafka-jars.sh", "3.9.1")
        self.zookeeper = None
        self.zookeeper_port = free_port()

    def start(self, deadline=60.0):
        if self.zookeeper is None:
            conf = self.folder / "zoo.properties"
            conf.write_text(
                f"dataDir={self.folder}/zk\nclientPort={self.zookeeper_port}\nclientPortAddress=127.0.0.1\n"
                "admin.enableServer=false\nmaxClientCnxns=0\n"
            )
            log = open(self.folder / "zk.txt", "ab")
            main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
            self.zookeeper = subprocess.Popen(
                ["java", "-Xmx256M", "-cp", f"{self.jars}/libs/*", main, str(conf)], stdout=log, stderr=log
            )
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", self.zookeeper_port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
        return super().start(deadline)

    def command(self):
        settings = {
            "broker.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.folder / "data"),
            "zookeeper.connect": f"127.0.0.1:{self.zookeeper_port}",
            "zookeeper.session.timeout.ms": "6000",
            "offsets.topic.replication.factor": "1",
            **self.settings,
        }
        conf = self.folder / "server.properties"
        conf.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        jvm = "-Xms1G -Xmx1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
        jvm += "-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true"
        jvm += f" -Dkafka.root.level=INFO -Dlog4j.configuration=file:{self.jars}/config/log4j.properties"
        return ["java", *jvm.split(), "-cp", f"{self.jars}/libs/*", "kafka.Kafka", str(conf)]

    def wait_for_session(self):
        time.sleep(7)

    def remove(self):
        super().stop(signal.SIGKILL)
        if self.zookeeper:
            self.zookeeper.kill()
            self.zookeeper.wait()
        super().remove()
