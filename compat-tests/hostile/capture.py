"""What stock clients send, as it was: a relay between them and a broker that keeps the bytes of each connection."""

import contextlib
import os
import pathlib
import selectors
import socket
import struct
import subprocess
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
from kit import words
from kit.broker import ROOT, Klamm, kafka_path
from kit.process import free_port

CLIENTS = ["kcat", "kafka-python", "confluent-kafka", "java-console-3.9", "java-console-4.1", "kafkajs", "sarama", "franz-go"]
LIMIT_SECONDS = 90
WORDS = 200


class Relay:
    """Passes everything on, both ways. `sessions`: what each client connection sent."""

    def __init__(self, port, to):
        self.to, self.sessions = to, []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=100)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.ended = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while not self.ended:
            for key, _ in self.selector.select(0.2):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.data:
                    self.move(key.fileobj, *key.data)

    def accept(self):
        client, _ = self.listener.accept()
        try:
            broker = socket.create_connection(("127.0.0.1", self.to), 5)
        except OSError:
            client.close()
            return
        kept = bytearray()
        self.sessions.append(kept)
        self.selector.register(client, selectors.EVENT_READ, (broker, kept))
        self.selector.register(broker, selectors.EVENT_READ, (client, None))

    def move(self, source, other, kept):
        with contextlib.suppress(OSError):
            data = source.recv(1 << 16)
            if data:
                if kept is not None:
                    kept += data
                other.sendall(data)
                return
        for s in (source, other):
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(s)
            s.close()

    def end(self):
        self.ended = True
        self.thread.join()
        self.listener.close()


def frames_of(session):
    """The whole frames of a session, each with its length."""
    found, at = [], 0
    while at + 4 <= len(session):
        end = at + 4 + struct.unpack_from(">i", session, at)[0]
        if end > len(session):
            break
        found.append(bytes(session[at:end]))
        at = end
    return found


def clients_cache():
    base = os.environ.get("KLAMM_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "klamm")
    return pathlib.Path(base) / "clients"


def converse(client, bootstrap, folder):
    """One client of compat-tests/clients produces some words with each of its codecs and reads them through a group."""
    home, place = clients_cache() / client, HERE.parent / "clients" / client
    home.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, CLIENT_CACHE=str(home), ROOT=str(ROOT), BOOTSTRAP=bootstrap)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, "check": True}
    subprocess.run([place / "prepare"], env=environment, **quiet)
    for codec in (place / "codecs").read_text().split():
        environment |= {
            "TOPIC": f"{client}-{codec}", "GROUP": f"group-{client}-{codec}", "CODEC": codec, "COUNT": str(WORDS),
            "WORDS": str(folder / "words"), "OUT": str(folder / "out"),
        }  # fmt: skip
        subprocess.run([place / "run"], env=environment, stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS, **quiet)


def administrate(version, bootstrap):
    """Some of Kafka's own tools, for the requests that no consumer or producer sends."""
    tools = kafka_path(version) / "bin"
    topic = f"administrated-{version}"
    for tool, *arguments in (
        ("kafka-topics", "--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=3600000"),
        ("kafka-topics", "--alter", "--topic", topic, "--partitions", "3"),
        ("kafka-topics", "--describe"),
        ("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=7200000"),
        ("kafka-configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"),
        ("kafka-get-offsets", "--topic", topic),
        ("kafka-consumer-groups", "--all-groups", "--describe"),
        ("kafka-topics", "--delete", "--topic", topic),
    ):
        command = [tools / f"{tool}.sh", "--bootstrap-server", bootstrap, *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT_SECONDS, check=True)


def sessions(clients=("kcat",), tools=()):
    """{who: sessions} of clients that talk to a fresh klamm, and why the others are missing."""
    found, missing = {}, []
    port = free_port()
    settings = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "group.initial.rebalance.delay.ms": "0"}
    broker = Klamm(settings)
    with tempfile.TemporaryDirectory(prefix="klamm-capture-") as folder:
        folder = pathlib.Path(folder)
        words.write(folder / "words", WORDS)
        talks = [(client, converse, (client, f"127.0.0.1:{port}", folder)) for client in clients]
        talks += [(f"tools {version}", administrate, (version, f"127.0.0.1:{port}")) for version in tools]
        try:
            broker.start()
            relay = Relay(port, broker.port)
            for who, talk, arguments in talks:
                begin = len(relay.sessions)
                try:
                    talk(*arguments)
                    found[who] = relay.sessions[begin:]
                except (OSError, subprocess.SubprocessError) as problem:
                    missing.append(f"{who} ({type(problem).__name__})")
            relay.end()
        finally:
            broker.remove()
    return {who: [bytes(session) for session in kept] for who, kept in found.items()}, missing
