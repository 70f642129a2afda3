"""klamm on a real ZooKeeper 3.8, and what happens when that one fails: one row per scenario, with its figures.

Everything that is read from ZooKeeper is read with kit/zookeeper.py, not with klamm's own client.

  --quick     the few scenarios of `make test`, under 30 s
  --gone N    how long ZooKeeper is gone, in seconds (default 20; --minute for 60)
  --only X    the rows whose name contains X (and what they need first)
  --keep      leave the folder with the logs behind, and say where it is
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from kit import wire, zookeeper
from kit.broker import Kafka, Klamm, free_port
from kit.rows import Rows

CHROOT = "/a/chroot"
STATE = "/brokers/topics/{}/partitions/{}/state"
ID = r"[A-Za-z0-9_-]{22}"
MESSAGE_TOO_LARGE = 10
TOPIC_AUTHORIZATION_FAILED = 29
SEED = int(os.environ.get("SEED", time.time_ns() % 100_000))


def check(truth, complaint):
    if not truth:
        raise AssertionError(complaint)


def until(seconds, body, what):
    """Polls until `body` answers something true; returns it and how long that took."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, zookeeper.ZooError):
            found = body()
            if found:
                return found, time.monotonic() - began
        check(time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def complaints(broker):
    """The lines in which a klamm that ended said why."""
    return [line.removeprefix("klamm: ") for line in broker.log().splitlines() if line.startswith("klamm: ")]


class Cluster:
    """One ZooKeeper and one klamm on it."""

    def __init__(self, folder, session_s):
        self.folder = folder
        self.session_s = session_s
        self.server = zookeeper.Server(folder)
        self.tree = self.server.tree(CHROOT)
        self.port = free_port()
        self.klamm = None

    def settings(self, chroot=CHROOT):
        milliseconds = int(self.session_s * 1000)
        return {
            "zookeeper.connect": f"127.0.0.1:{self.server.port}{chroot}",
            "zookeeper.session.timeout.ms": milliseconds,
            "group.initial.rebalance.delay.ms": "0",
            "klamm.disk.reserve.bytes": "0",
        }

    def make(self, **more):
        """klamm with the settings of now, not started."""
        self.klamm = Klamm({**self.settings(), **more}, self.folder, self.port)
        return self.klamm

    def start(self):
        return self.make().start()

    def refused(self, name, within, chroot=CHROOT, data=None):
        """Starts a broker that must not come up. The seconds it took, and its last line."""
        folder = self.folder / name
        broker = Klamm({"log.dirs": data or folder / "data", **self.settings(chroot)}, folder)
        began = time.monotonic()
        broker.launch()
        try:
            code = broker.child.wait(within)
        except subprocess.TimeoutExpired:
            broker.kill()
            raise AssertionError(f"still there after {within:g} s: {broker.tail(2)}") from None
        lines = complaints(broker)
        check(code == 1 and len(lines) == 1, f"ended with {code} and {lines}, not 1 and one line")
        return time.monotonic() - began, lines[0]

    def client(self):
        return wire.Client(self.port)

    def registrations(self):
        """How often this run of klamm registered."""
        return len(re.findall(r"\bregistered broker=", self.klamm.log()))

    def registration(self):
        return self.tree.stat("/brokers/ids/1")

    def create(self, topic, partitions=1):
        began = time.monotonic()
        with self.client() as client:
            error = client.create_topic(topic, partitions, 10_000)
        check(error == 0, f"creating {topic} was answered {error}")
        self.led(topic, partitions)
        return time.monotonic() - began

    def led(self, topic, partitions=1, seconds=10):
        """Waits until every partition has a leader. Seconds."""

        def look():
            with self.client() as client:
                error, found = client.metadata([topic])[1].get(topic, (3, {}))
            return error == 0 and len(found) == partitions and all(one == (0, 1) for one in found.values())

        return until(seconds, look, f"{partitions} led partitions of {topic}")[1]

    def produce(self, topic, value=b"v", partition=0):
        with self.client() as client:
            return client.produce(topic, {partition: wire.batch([value], int(time.time() * 1000))})[partition]

    def json(self, path):
        node = self.tree.get(path)
        check(node is not None, f"no node {path}")
        return json.loads(node[0])

    def epochs(self):
        """Data and version of every partition's state."""
        found = {}
        for topic in self.tree.children("/brokers/topics"):
            with contextlib.suppress(zookeeper.ZooError):
                for partition in self.tree.children(f"/brokers/topics/{topic}/partitions"):
                    data, stat = self.tree.get(STATE.format(topic, partition))
                    found[topic, partition] = (json.loads(data)["leader_epoch"], stat.version)
        return found


class Traffic:
    """Produces with acks=all and reads back, all the time, until it is left; then everything must be there in order."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        self.ended = threading.Event()
        self.acked, self.slowest, self.fault = [], 0.0, None

    def __enter__(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def run(self):
        try:
            with self.cluster.client() as client:
                while not self.ended.is_set():
                    value = b"%d" % len(self.acked)
                    began = time.monotonic()
                    error, offset = client.produce(self.topic, {0: wire.batch([value], int(time.time() * 1000))})[0]
                    check(error == 0, f"a produce was answered {error} after {len(self.acked)} records")
                    error, _high, records = client.fetch(self.topic, {0: offset})[0]
                    check(error == 0, f"a fetch was answered {error} after {len(self.acked)} records")
                    got = [pair for _, _, one in wire.batches(records) for pair in wire.values(one)]
                    check(got == [(offset, value)], f"fetched {got}, produced {(offset, value)}")
                    self.acked.append(offset)
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.ended.wait(0.02)
        except Exception as problem:  # noqa: BLE001, told by the one who waits
            self.fault = problem

    def __exit__(self, kind, *_):
        self.ended.set()
        self.thread.join(40)
        if kind is None:
            check(self.fault is None, f"serving: {type(self.fault).__name__}: {self.fault}")
            check(self.acked == list(range(self.acked[0], self.acked[0] + len(self.acked))), "offsets have gaps")

    def figures(self):
        return f"{len(self.acked)} records served, slowest {self.slowest * 1000:.0f} ms"


# Road and layout


def road(cluster):
    seconds = cluster.start()
    cluster.create("road", 3)
    began = time.monotonic()
    with cluster.client() as client:
        for number in range(100):
            error, _ = client.produce("road", {number % 3: wire.batch([b"%d" % number], 1_700_000_000_000)})[number % 3]
            check(error == 0, f"produce was answered {error}")
        got = []
        for partition in range(3):
            error, _, records = client.fetch("road", {partition: 0})[partition]
            check(error == 0, f"fetch was answered {error}")
            got += [value for _, _, one in wire.batches(records) for _, value in wire.values(one)]
        names = client.metadata()[1]
    check(list(names) == ["road"], f"Metadata of all topics names {list(names)}")
    check(sorted(got, key=int) == [b"%d" % number for number in range(100)], f"{len(got)} other records came back")
    return f"ready in {seconds * 1000:.0f} ms, 100 records in {(time.monotonic() - began) * 1000:.0f} ms"


def layout(cluster):
    """Every node as Kafka 3.9 writes it. The order of keys is ours; Kafka's depends on hashes."""
    port = cluster.port
    with cluster.client() as client:
        client.init_producer_id()
    empty = [
        "/consumers", "/brokers", "/brokers/topics", "/brokers/seqid", "/config", "/config/changes", "/config/topics",
        "/config/clients", "/config/users", "/config/brokers", "/config/ips", "/admin", "/admin/delete_topics",
        "/isr_change_notification", "/log_dir_event_notification", "/brokers/topics/road/partitions",
        "/brokers/topics/road/partitions/2",
    ]  # fmt: skip
    shapes = {
        "/cluster/id": rf'\{{"version":"1","id":"{ID}"\}}',
        "/brokers/ids/1": rf'\{{"version":5,"host":"127\.0\.0\.1","port":{port},"jmx_port":-1,"timestamp":"\d{{13}}",'
        rf'"endpoints":\["PLAINTEXT://127\.0\.0\.1:{port}"\],'
        r'"listener_security_protocol_map":\{"PLAINTEXT":"PLAINTEXT"\},"features":\{\}\}',
        "/controller": r'\{"version":2,"brokerid":1,"timestamp":"\d{13}","kraftControllerEpoch":-1\}',
        "/controller_epoch": "1",
        "/feature": r'\{"version":2,"status":1,"features":\{\}\}',
        "/latest_producer_id_block": r'\{"version":1,"broker":1,"block_start":"\d+","block_end":"\d+999"\}',
        "/brokers/topics/road": rf'\{{"version":3,"topic_id":"{ID}","partitions":'
        r'\{"0":\[1\],"1":\[1\],"2":\[1\]\},"adding_replicas":\{\},"removing_replicas":\{\}\}',
        "/config/topics/road": r'\{"version":1,"config":\{\}\}',
    }
    for partition in range(3):
        shapes[STATE.format("road", partition)] = (
            r'\{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":\[1\]\}'
        )
    for path in empty:
        node = cluster.tree.get(path)
        check(node is not None, f"no node {path}")
        check(node[0] == b"" and node[1].owner == 0, f"{path} holds {node[0]}")
    for path, shape in shapes.items():
        node = cluster.tree.get(path)
        check(node is not None, f"no node {path}")
        text = node[0].decode()
        check(re.fullmatch(shape, text), f"{path} is {text}")
        check((node[1].owner != 0) == (path in ("/brokers/ids/1", "/controller")), f"{path} has owner {node[1].owner:#x}")
    check(cluster.registration().version == 1, "the registration's data version is not 1")
    check(cluster.tree.stat(STATE.format("road", 0)).version == 0, "a new state's version is not 0")
    top = cluster.tree.children("")
    return f"{len(empty) + len(shapes)} nodes; top: {' '.join(top)}"


# By hand


def topic_by_hand(cluster):
    cluster.tree.create("/brokers/topics/hand1", b'{"version":1,"partitions":{"0":[1],"1":[1]}}')
    first = cluster.led("hand1", 2)
    check(cluster.produce("hand1", partition=1)[0] == 0, "produce is refused")
    node = cluster.json("/brokers/topics/hand1")
    check(re.fullmatch(ID, node.get("topic_id", "")), f"no topic id was given: {node}")
    topic_id = "AAAAAAAAQACAAAAAAAAAAQ"
    cluster.tree.create(
        "/brokers/topics/hand3",
        b'{"version":3,"topic_id":"%s","partitions":{"0":[1]},"adding_replicas":{},"removing_replicas":{}}' % topic_id.encode(),
    )
    second = cluster.led("hand3")
    check(cluster.json("/brokers/topics/hand3")["topic_id"] == topic_id, "the topic's id was changed")
    node["partitions"]["2"] = [1]
    cluster.tree.set("/brokers/topics/hand1", json.dumps(node).encode())
    third = cluster.led("hand1", 3)
    check(cluster.produce("hand1", partition=2)[0] == 0, "produce to the new partition is refused")
    return f"version 1 led in {first * 1000:.0f} ms, version 3 in {second * 1000:.0f} ms, a partition more in {third * 1000:.0f} ms"


def change(cluster, entity, config):
    """Changes the settings of `topics/T`, `brokers/1` or `brokers/<default>` and says so, as Kafka's tools did."""
    path = f"/config/{entity}"
    data = json.dumps({"version": 1, "config": config}).encode()
    if cluster.tree.stat(path):
        cluster.tree.set(path, data)
    else:
        cluster.tree.create(path, data)
    note = json.dumps({"version": 2, "entity_path": entity}).encode()
    cluster.tree.create("/config/changes/config_change_", note, sequential=True)


def config_by_hand(cluster):
    cluster.create("settings")
    large = b"x" * 1000
    check(cluster.produce("settings", large)[0] == 0, "produce is refused")
    change(cluster, "topics/settings", {"max.message.bytes": "500"})
    refused = until(5, lambda: cluster.produce("settings", large)[0] == MESSAGE_TOO_LARGE, "MESSAGE_TOO_LARGE")[1]
    change(cluster, "topics/settings", {})
    taken = until(5, lambda: cluster.produce("settings", large)[0] == 0, "the default again")[1]
    change(cluster, "topics/settings", {"max.message.bytes": "rubbish"})
    cluster.tree.create("/config/changes/config_change_", b"rubbish", sequential=True)
    time.sleep(0.3)
    check(cluster.produce("settings", large)[0] == 0, "rubbish in a topic's settings stops it")
    change(cluster, "topics/settings", {"max.message.bytes": "500"})
    until(5, lambda: cluster.produce("settings", large)[0] == MESSAGE_TOO_LARGE, "settings after rubbish")
    return f"in force after {refused * 1000:.0f} ms, gone after {taken * 1000:.0f} ms"


def brokers_config_by_hand(cluster):
    cluster.create("broker-settings")
    large = b"x" * 1000
    check(cluster.produce("broker-settings", large)[0] == 0, "produce is refused")

    def until_answer(error, what):
        return until(5, lambda: cluster.produce("broker-settings", large)[0] == error, what)[1]

    change(cluster, "brokers/<default>", {"message.max.bytes": "500", "num.partitions": "7", "listeners": "PLAINTEXT://:1"})
    refused = until_answer(MESSAGE_TOO_LARGE, "MESSAGE_TOO_LARGE")
    change(cluster, "brokers/1", {"message.max.bytes": "5000"})
    own = until_answer(0, "the broker's own value")
    change(cluster, "brokers/1", {"message.max.bytes": "rubbish"})
    time.sleep(0.3)
    check(cluster.produce("broker-settings", large)[0] == 0, "rubbish in a broker's settings counts")
    change(cluster, "brokers/1", {})
    until_answer(MESSAGE_TOO_LARGE, "the value of all brokers")
    change(cluster, "brokers/<default>", {})
    until_answer(0, "the default again")
    return f"in force after {refused * 1000:.0f} ms, the broker's own after {own * 1000:.0f} ms"


def deletion_by_hand(cluster):
    cluster.create("goner", 2)
    check(cluster.produce("goner")[0] == 0, "produce is refused")
    change(cluster, "topics/goner", {"retention.ms": "1000"})
    cluster.tree.create("/admin/delete_topics/goner")

    def gone():
        left = [path for path in ("/brokers/topics", "/config/topics", "/admin/delete_topics")
                if "goner" in cluster.tree.children(path)]  # fmt: skip
        with cluster.client() as client:
            return not left and "goner" not in client.metadata()[1]

    seconds = until(10, gone, "the deletion")[1]
    cluster.tree.create("/admin/delete_topics/never-was")
    until(10, lambda: not cluster.tree.children("/admin/delete_topics"), "the deletion of a topic that is not there")
    cluster.create("goner")
    error, offset = cluster.produce("goner")
    check((error, offset) == (0, 0), f"the new topic begins at {offset} with error {error}")
    return f"gone in {seconds * 1000:.0f} ms; made anew, it begins at 0"


def topic_id_lost(cluster):
    """Old tools write a topic's node without its id while klamm is down; then the node goes, and comes back."""
    cluster.create("losing")
    check(cluster.produce("losing") == (0, 0), "produce is refused")
    path, node = "/brokers/topics/losing", cluster.json("/brokers/topics/losing")
    cluster.klamm.stop()
    cluster.tree.set(path, b'{"version":1,"partitions":{"0":[1]}}')
    cluster.start()
    cluster.led("losing")
    check(cluster.json(path)["topic_id"] == node["topic_id"], f"it has another id: {cluster.json(path)}")
    check(cluster.produce("losing") == (0, 1), "its records are gone")
    cluster.klamm.stop()
    for gone in reversed([path, *walk(cluster.tree, path)]):
        cluster.tree.delete(gone)
    cluster.start()
    until(10, lambda: f"losing-0 (topic_id {node['topic_id']})" in cluster.klamm.log(), "a line that names the stray")
    cluster.klamm.stop()
    cluster.tree.create(path, json.dumps(node).encode())
    cluster.start()
    cluster.led("losing")
    check(cluster.produce("losing") == (0, 2), "its records did not come back")
    return "its id and its records are kept, and come back after its node had gone"


def another_boot(cluster):
    """After a loss of power the end of a log may be lost: everything that is led gets one new leader epoch, once."""

    def started(**more):
        cluster.klamm.stop()
        before = {at: epoch for at, (epoch, _) in cluster.epochs().items()}
        cluster.make(**more).start()
        for topic in {topic for topic, _ in before}:
            cluster.led(topic, len([1 for of, _ in before if of == topic]))
        return {cluster.epochs()[at][0] - epoch for at, epoch in before.items()}

    other = {"klamm.boot.id": "other"}
    rises = [started(**other), started(**other), started(), started()]
    check(rises == [{1}, {0}, {1}, {0}], f"leader epochs rose by {rises}")
    return "one new epoch after each"


# Identity, restarts


def restart(cluster, how):
    before, epoch = cluster.epochs(), cluster.json("/controller_epoch")
    old = cluster.registration()
    began = time.monotonic()
    code = cluster.klamm.stop() if how == signal.SIGTERM else cluster.klamm.kill()
    stopped = time.monotonic() - began
    if how == signal.SIGTERM:
        check(code == 0, f"SIGTERM ended it with {code}")
        check(cluster.registration() is None, "the registration is still there after an orderly stop")
        check(cluster.tree.stat("/controller") is None, "/controller is still there after an orderly stop")
    else:
        check(cluster.registration().owner == old.owner, "there is no old registration to be in the way")
    ready = cluster.start()
    check(ready < cluster.session_s / 2, f"ready after {ready:.1f} s")
    after = cluster.epochs()
    check(after == before, f"leader epochs (or versions) of states changed from {before} to {after}")
    new = cluster.registration()
    check(new.czxid > old.czxid and new.owner != old.owner, "the registration is the old one")
    check(cluster.json("/controller_epoch") == epoch + 1, "the controller's epoch did not rise by 1")
    for topic in ("road", "hand1"):
        if topic in cluster.tree.children("/brokers/topics"):
            check(cluster.produce(topic)[0] == 0, f"produce to {topic} is refused")
    stop = f"stopped in {stopped * 1000:.0f} ms, " if how == signal.SIGTERM else ""
    return f"{stop}ready in {ready * 1000:.0f} ms; {len(before)} states untouched"


def same_id(cluster):
    before = cluster.registration()
    with Traffic(cluster, "road") as traffic:
        seconds, line = cluster.refused("second", cluster.session_s + 20)
    check("broker id 1 is already registered" in line and f"127.0.0.1:{cluster.port}" in line, f"the line is: {line}")
    check(seconds <= cluster.session_s + 1.5, f"refused only after {seconds:.1f} s")
    check(cluster.registration().czxid == before.czxid, "the first broker's registration was touched")
    return f"refused after {seconds:.1f} s, session {cluster.session_s:g} s; {traffic.figures()}; {line[:70]}…"


def wrong_cluster(cluster):
    cluster.klamm.stop()
    other = cluster.server.tree("/other")
    with contextlib.suppress(zookeeper.ZooError):
        other.create("")
    tops = []
    for name, chroot in (("other-cluster", "/other"), ("empty-cluster", "/empty")):
        if chroot == "/other":
            other.create("/cluster")
            other.create("/cluster/id", b'{"version":"1","id":"Zd2VO0TtTPK4nf3QTKsWNg"}')
        seconds, line = cluster.refused(name, 20, chroot, cluster.folder / "data")
        check("luster" in line and "meta.properties" in line, f"the line is: {line}")
        tops.append(f"{chroot} in {seconds * 1000:.0f} ms")
    check(cluster.server.tree("/other").children("") == ["cluster"], "something was made in the other cluster")
    cluster.start()
    with cluster.client() as client:
        end = client.list_offsets("road", [0], -1)[0]
    check(end[0] == 0 and end[1] > 0, f"the records are gone: {end}")
    return "refused at " + ", ".join(tops)


def no_zookeeper(cluster):
    """Started before ZooKeeper, klamm waits for it; if that one does not come, it says so."""
    cluster.klamm.stop()
    cluster.server.kill()
    seconds, line = cluster.refused("lonely", cluster.session_s + 10)
    check("ZooKeeper at 127.0.0.1" in line, f"the line is: {line}")
    # Not from a second thread: a process ends with the thread that has started it.
    cluster.make(**{"zookeeper.connection.timeout.ms": "30000"}).launch()
    began = time.monotonic()
    time.sleep(cluster.session_s + 2)
    check(cluster.klamm.alive(), f"it did not wait for ZooKeeper: {cluster.klamm.tail(1)}")
    cluster.server.start()
    there = time.monotonic()
    cluster.klamm.wait_until(cluster.klamm.ready, 30)
    ready = time.monotonic() - there
    return f"refused after {seconds:.1f} s; started {there - began:.1f} s ahead of ZooKeeper, ready {ready:.1f} s after it"


# Faults


def fault(cluster, body, anew, topic="road"):
    """Something happens to ZooKeeper under traffic. `anew`: whether the session is lost (None: either)."""
    before, states = cluster.registration(), cluster.epochs()
    count = cluster.registrations()
    mark = f"after-{int(time.time() * 1000)}"
    with Traffic(cluster, topic) as traffic:
        time.sleep(0.3)
        body(cluster.server)
        ended = time.time()
        check(traffic.fault is None, f"serving meanwhile: {traffic.fault}")

        def back():
            with cluster.client() as client:
                brokers = [broker[0] for broker in client.metadata([])[0]]
            controller = cluster.tree.get("/controller")
            stat = cluster.registration()
            fresh = stat and (stat.czxid != before.czxid or not anew)
            return brokers == [1] and controller and fresh

        seconds = until(3 * cluster.session_s + 10, back, "registered and controller again")[1]
        creating = until(3 * cluster.session_s + 10, lambda: attempt(cluster, mark), "creating a topic")[1]
        settle = 1.5 * cluster.session_s if anew is not False else 0.5
        time.sleep(settle)
        check(cluster.klamm.alive(), "klamm ended")
        registered = cluster.registrations() - count
        after = cluster.registration()
        check(after, "the registration is gone")
        check(registered <= 1, f"it registered {registered} times")
        check((registered == 1) == (after.czxid != before.czxid), f"registered {registered} times, czxid {before.czxid} → {after.czxid}")
        check(anew is None or registered == int(anew), f"it registered {registered} times")
        now = cluster.epochs()
        raised = {name: (old, now.get(name)) for name, old in states.items() if now.get(name) != old}
        check(not raised, f"states changed: {raised}")
        owners = set(re.findall(r"^(0x[0-9a-f]+):$", cluster.server.word("dump"), re.M))
        check(len(owners) == 1, f"sessions with ephemerals: {owners}")
    renewed = "session kept"
    if registered:
        # Below 0 when the server took requests before it was asked whether it serves.
        renewed = f"registered anew {max(after.created_ms / 1000 - ended, 0):.1f} s after"
    return f"{renewed}, topic created {creating + seconds:.1f} s after; {traffic.figures()}"


def attempt(cluster, topic):
    with cluster.client() as client:
        error = client.create_topic(topic, 1, 5000)
    if error not in (0, 36):
        return False
    cluster.led(topic)
    return cluster.produce(topic)[0] == 0


def restarted(server):
    server.kill()
    server.start()


def paused(seconds):
    def body(server):
        server.pause()
        time.sleep(seconds)
        server.resume()

    return body


def gone(seconds):
    def body(server):
        server.kill()
        time.sleep(seconds)
        server.start()

    return body


def asked_while_gone(cluster):
    """What needs ZooKeeper is refused in time while it is gone; what does not goes on."""
    before = cluster.registration()
    cluster.server.pause()
    with Traffic(cluster, "road"), cluster.client() as client:
        began = time.monotonic()
        # The broker cannot know yet that nobody will answer it.
        error = client.create_topic("too-early", 1, 2000)
        hanging = time.monotonic() - began
        check(error != 0 and hanging < 4, f"CreateTopics was answered {error} after {hanging:.1f} s of a pause")
        check(client.metadata()[1]["road"][0] == 0, "Metadata forgot something")
    cluster.server.kill()
    time.sleep(2 * cluster.session_s)
    with Traffic(cluster, "road") as traffic, cluster.client() as client:
        began = time.monotonic()
        error = client.create_topic("too-early", 1, 2000)
        creation = time.monotonic() - began
        check(error != 0 and creation < 4, f"CreateTopics was answered {error} after {creation:.1f} s")
        began = time.monotonic()
        answer, producer, _ = client.init_producer_id()
        producing = time.monotonic() - began
        check((answer == 0) == (producer >= 0) and producing < 5, f"InitProducerId was answered {answer} after {producing:.1f} s")
        began = time.monotonic()
        brokers, topics = client.metadata()
        check([broker[0] for broker in brokers] == [1] and topics["road"][0] == 0, "Metadata forgot something")
        metadata = time.monotonic() - began
    cluster.server.start()
    until(3 * cluster.session_s + 10, lambda: (stat := cluster.registration()) and stat.czxid != before.czxid, "the new registration")
    until(10, lambda: attempt(cluster, "too-early"), "creating the topic afterwards")
    return (
        f"CreateTopics refused in {hanging:.1f} s of a pause and ({error}) in {creation:.1f} s, InitProducerId answered ({answer}) in {producing:.1f} s, "
        f"Metadata in {metadata * 1000:.0f} ms; {traffic.figures()}"
    )


def flapping(cluster, rounds=12):
    """ZooKeeper comes and goes at all moments of a registration; in the end there is one."""
    chance = random.Random(SEED)
    count = cluster.registrations()
    longest = 1.6 * cluster.session_s
    with Traffic(cluster, "road") as traffic:
        for number in range(rounds):
            if number % 2:
                gone(chance.uniform(0, longest))(cluster.server)
            else:
                paused(chance.uniform(0, longest))(cluster.server)
            time.sleep(chance.choice([0, 0.02, 0.05, 0.1, 0.3, 1]))
        seconds = until(3 * cluster.session_s + 10, lambda: attempt(cluster, f"flapped-{SEED}"), "creating a topic")[1]
        time.sleep(2 * cluster.session_s)
        check(cluster.klamm.alive(), "klamm ended")
        owners = set(re.findall(r"^(0x[0-9a-f]+):$", cluster.server.word("dump"), re.M))
        check(len(owners) == 1, f"sessions with ephemerals: {owners}")
        check({int(owner, 16) for owner in owners} == {cluster.registration().owner}, "the registration is another session's")
        check(cluster.tree.children("/brokers/ids") == ["1"], "the registration is gone")
        registered = cluster.registrations() - count
        check(registered <= rounds, f"it registered {registered} times in {rounds} rounds")
    return f"{rounds} rounds, seed {SEED}: registered {registered} times, topic created {seconds:.1f} s after; {traffic.figures()}"


def beside_kafka(cluster, version="3.9.1"):
    """Apache Kafka starts on klamm's tree as the broker it was, and klamm on what Kafka leaves."""
    with cluster.client() as client:
        names = {name: len(partitions) for name, (_, partitions) in client.metadata()[1].items()}
    ids = {name: cluster.json(f"/brokers/topics/{name}")["topic_id"] for name in names}
    cluster.klamm.stop()
    more = {name: value for name, value in cluster.settings().items() if not name.startswith("klamm.")}
    kafka = Kafka(more, cluster.folder / "kafka", cluster.port, version, "512M")
    try:
        kafka.start()
        for name, partitions in names.items():
            cluster.led(name, partitions, 30)
        check(cluster.json("/controller")["brokerid"] == 1, "Kafka is not the controller")
        with cluster.client() as client:
            check(client.create_topic("jvm", 2, 10_000) == 0, "Kafka refuses to create a topic")
        cluster.led("jvm", 2)
        theirs = {path: keys(cluster.tree, path) for path in walk(cluster.tree, "") if "jvm" in path or "/" not in path[1:]}
    finally:
        kafka.stop()
    cluster.start()
    after = {name: cluster.json(f"/brokers/topics/{name}")["topic_id"] for name in names}
    check(after == ids, "topic ids changed")
    cluster.led("jvm", 2)
    check(cluster.produce("jvm")[0] == 0, "produce to Kafka's topic is refused")
    cluster.create("klamm", 2)
    differs = []
    for path, theirs_keys in theirs.items():
        ours = keys(cluster.tree, path.replace("jvm", "klamm"))
        if ours != theirs_keys:
            differs.append(f"{path}: {theirs_keys} there, {ours} here")
    check(not differs, "; ".join(differs))
    return f"Kafka led klamm's {len(names)} topics, klamm leads Kafka's; {len(theirs)} nodes have the same keys and types"


def walk(tree, path):
    for name in tree.children(path):
        yield f"{path}/{name}"
        yield from walk(tree, f"{path}/{name}")


def keys(tree, path):
    """What a node is: its keys with the values' types, or its text's type; and whether it is ephemeral."""
    node = tree.get(path)
    if node is None:
        return None
    data, stat = node
    if not data:
        return "empty"
    shape = json.loads(data, object_pairs_hook=lambda pairs: sorted((key, type(value).__name__) for key, value in pairs))
    return (shape if isinstance(shape, list) else type(shape).__name__, stat.owner != 0)


def stop_while_gone(cluster):
    """SIGTERM while ZooKeeper is gone must not wait for it."""
    cluster.server.kill()
    time.sleep(1)
    began = time.monotonic()
    code = cluster.klamm.stop(60)
    seconds = time.monotonic() - began
    cluster.server.start()
    ready = cluster.start()
    check(code == 0, f"ended with {code}")
    check(seconds < 2, f"stopped only after {seconds:.1f} s")
    check(ready < cluster.session_s, f"ready after {ready:.1f} s")
    return f"stopped in {seconds * 1000:.0f} ms; started again in {ready * 1000:.0f} ms"


def acls_by_hand(cluster):
    """ACLs that somebody else writes hold a moment later, also those whose notes klamm cannot have seen."""
    cluster.create("guarded")
    cluster.klamm.stop()
    lax = {"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer", "allow.everyone.if.no.acl.found": "true"}
    cluster.make(**lax).start()
    cluster.led("guarded")
    path = "/kafka-acl/Topic/guarded"

    def entry(operation, permission="Allow"):
        return {"principal": "User:ANONYMOUS", "permissionType": permission, "operation": operation, "host": "*"}

    def write(*entries, tell=True):
        data = json.dumps({"version": 1, "acls": entries}).encode()
        cluster.tree.set(path, data) if cluster.tree.stat(path) else cluster.tree.create(path, data)
        if tell:
            cluster.tree.create("/kafka-acl-changes/acl_changes_", b"TOPIC:guarded", sequential=True)

    def answered(error):
        # What may not be described is refused by its leader all the same.
        return until(5, lambda: cluster.produce("guarded")[0] == error, f"a produce answered with {error}")[1]

    answered(0)
    write(entry("Read"))
    refused = answered(TOPIC_AUTHORIZATION_FAILED)
    write(entry("Read"), entry("Write"))
    allowed = answered(0)
    write(entry("All"), entry("Write", "Deny"))
    answered(TOPIC_AUTHORIZATION_FAILED)
    cluster.tree.set(path, b"rubbish")
    cluster.tree.create("/kafka-acl-changes/acl_changes_", b"TOPIC:guarded", sequential=True)
    time.sleep(0.3)
    answered(TOPIC_AUTHORIZATION_FAILED)
    cluster.klamm.pause()
    until(cluster.session_s * 2 + 5, lambda: cluster.registration() is None, "the expiry")
    write(entry("Write"), tell=False)
    cluster.klamm.resume()
    until(10, lambda: cluster.registration(), "registered again")
    cluster.led("guarded")
    answered(0)
    cluster.tree.delete(path)
    cluster.tree.create("/kafka-acl-changes/acl_changes_", b"TOPIC:guarded", sequential=True)
    with cluster.client() as client:
        # Kafka's own node for a prefix, and its note.
        cluster.tree.create("/kafka-acl-extended/prefixed/Topic/gua", json.dumps({"version": 1, "acls": [entry("Read")]}).encode())
        note = b'{"version":1,"resourceType":"TOPIC","name":"gua","patternType":"PREFIXED"}'
        cluster.tree.create("/kafka-acl-extended-changes/acl_changes_", note, sequential=True)
        answered(TOPIC_AUTHORIZATION_FAILED)
        check("guarded" in client.metadata()[1], "READ implies DESCRIBE")
    cluster.tree.delete("/kafka-acl-extended/prefixed/Topic/gua")
    cluster.klamm.stop()
    cluster.start()
    return f"refused after {refused * 1000:.0f} ms, allowed after {allowed * 1000:.0f} ms, read anew in a new session"


def broker_frozen(cluster):
    """The broker itself stands still for longer than its session, alone: it registers again."""
    before = cluster.registration()
    count = cluster.registrations()
    cluster.klamm.pause()
    until(cluster.session_s * 2 + 5, lambda: cluster.registration() is None, "the expiry")
    cluster.klamm.resume()
    seconds = until(10, lambda: cluster.registration() and cluster.tree.stat("/controller"), "registered again")[1]
    until(10, lambda: attempt(cluster, f"thawed-{before.czxid}"), "creating a topic")
    check(cluster.registrations() == count + 1, "it registered more than once")
    return f"registered {seconds * 1000:.0f} ms after"


def id_taken(cluster):
    """While the broker stands still another one takes its id: the first must end when it wakes."""
    cluster.klamm.pause()
    until(cluster.session_s * 2 + 5, lambda: cluster.registration() is None, "the expiry")
    usurper = Klamm(cluster.settings(), cluster.folder / "usurper")
    usurper.start()
    frozen, began = cluster.klamm, time.monotonic()
    try:
        taken = cluster.registration()
        frozen.resume()
        code = frozen.child.wait(cluster.session_s + 5)
        seconds = time.monotonic() - began
        lines = complaints(frozen)
        check(code == 1 and len(lines) == 1 and "already registered" in lines[0], f"ended with {code} and {lines}")
        check(cluster.registration().czxid == taken.czxid, "the other broker's registration was touched")
        check(usurper.alive(), "the other broker ended")
    except subprocess.TimeoutExpired:
        frozen.kill()
        raise AssertionError(f"the first broker goes on beside the second: {frozen.tail(3)}") from None
    finally:
        usurper.stop()
        cluster.start()
    return f"ended with 1 after {seconds:.1f} s"


def quick(rows, folder):
    cluster = Cluster(folder, 2)
    rows.run("zookeeper: produce and fetch", road, cluster, always=True)
    rows.run("zookeeper: nodes are laid out as Kafka 3.9 does it", layout, cluster)
    rows.run("zookeeper: topics made by hand", topic_by_hand, cluster)
    rows.run("zookeeper: settings changed by hand", config_by_hand, cluster)
    rows.run("zookeeper: settings of brokers changed by hand", brokers_config_by_hand, cluster)
    rows.run("zookeeper: topics deleted by hand", deletion_by_hand, cluster)
    rows.run("zookeeper: ACLs written by hand", acls_by_hand, cluster)
    rows.run("zookeeper: a topic's id, and its node, are lost", topic_id_lost, cluster)
    rows.run("zookeeper: another boot of the machine", another_boot, cluster)
    rows.run("zookeeper: a directory of another cluster", wrong_cluster, cluster)
    rows.run("zookeeper: paused for longer than the session", fault, cluster, paused(3), None)
    cluster.session_s = 20
    rows.run("zookeeper: SIGTERM and restart", restart, cluster, signal.SIGTERM)
    rows.run("zookeeper: SIGKILL and restart", restart, cluster, signal.SIGKILL)
    cluster.klamm.stop()


def everything(rows, folder, gone_s):
    cluster = Cluster(folder, 6)
    session = cluster.session_s
    rows.run("produce and fetch", road, cluster, always=True)
    rows.run("nodes are laid out as Kafka 3.9 does it", layout, cluster)
    rows.run("topics and partitions made by hand", topic_by_hand, cluster)
    rows.run("settings of a topic changed by hand", config_by_hand, cluster)
    rows.run("settings of brokers changed by hand", brokers_config_by_hand, cluster)
    rows.run("topics deleted by hand", deletion_by_hand, cluster)
    rows.run("ACLs written by hand", acls_by_hand, cluster)
    rows.run("a topic's id, and its node, are lost while klamm is down", topic_id_lost, cluster)
    rows.run("another boot of the machine", another_boot, cluster)
    rows.run("SIGTERM and restart", restart, cluster, signal.SIGTERM)
    rows.run("SIGKILL and restart", restart, cluster, signal.SIGKILL)
    rows.run("a second broker with the same id", same_id, cluster)
    rows.run("a directory of another cluster", wrong_cluster, cluster)
    rows.run("ZooKeeper restarted", fault, cluster, restarted, None)
    rows.run("ZooKeeper paused for less than the session", fault, cluster, paused(session / 4), False)
    rows.run("ZooKeeper paused for longer than the session", fault, cluster, paused(session * 1.5), None)
    rows.run("ZooKeeper paused for four sessions", fault, cluster, paused(session * 4), None)
    rows.run(f"ZooKeeper gone for {gone_s:g} s", fault, cluster, gone(gone_s), None)
    rows.run("ZooKeeper restarted twice in a row", fault, cluster, lambda server: (restarted(server), restarted(server)), None)
    rows.run("asked while ZooKeeper is gone", asked_while_gone, cluster)
    rows.run("ZooKeeper comes and goes at random", flapping, cluster)
    rows.run("klamm frozen for longer than its session", broker_frozen, cluster)
    rows.run("its id taken while klamm was frozen", id_taken, cluster)
    if os.environ.get("BESIDE_KAFKA", "yes") == "yes" and shutil.which("mvn"):
        rows.run("Apache Kafka 3.9.1 on klamm's tree, and back", beside_kafka, cluster)
    else:
        print("SKIP  Apache Kafka 3.9.1 on klamm's tree, and back   (needs Maven; make compat installs it)")
    rows.run("SIGTERM while ZooKeeper is gone", stop_while_gone, cluster)
    rows.run("started before ZooKeeper, and without it", no_zookeeper, cluster)
    cluster.klamm.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--gone", type=float, default=20)
    parser.add_argument("--minute", dest="gone", action="store_const", const=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if not pathlib.Path(zookeeper.JAR).exists():
        print(f"SKIP  {'zookeeper':58}  {zookeeper.JAR} is missing; scripts/setup.sh installs it")
        return
    rows = Rows(arguments.only)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-zookeeper-"))
    try:
        quick(rows, folder) if arguments.quick else everything(rows, folder, arguments.gone)
    finally:
        if arguments.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if rows.failed else 0)


if __name__ == "__main__":
    main()
