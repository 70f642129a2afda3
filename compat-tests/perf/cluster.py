"""Three klamm brokers beside three Apache Kafka 3.9.1 on ZooKeepers of the same kind, driven in turn (`make bench BENCH=cluster`).

Replication factor 3, min.insync.replicas 2, session 6 s, tickTime 500 ms, heaps of 512 MiB. A cluster's CPU is that of its three
brokers, until they use no more than they do at rest. Each part begins without the topics of the one before. The rows with kills
are judged by the history checker as well, so a figure of a cluster that lost something is not told.
"""

import contextlib
import shutil
import time

from kit.wire import batch

KIB, GIB = 1 << 10, 1 << 30
PARTITIONS, MANY, VERY_MANY = 6, 1000, 10_000
NAMES = ("klamm", "kafka")
# Of a core, all three together. A JVM draws more than that for as long as it lives, so each side is looked at when it has
# nothing to do, and rests when it draws little more than it did then.
ALLOWED_AT_REST, LITTLE_MORE = 0.10, 1.5
PARTS = ("produce", "latency", "gaps", "empty", "many", "10000")
# Of topics that are there for warmth alone: they need not fit the disk three times.
PASSING = {"retention_bytes": 64 << 20, "segment_bytes": 16 << 20}
LATENCY_WARM_ROUNDS_MAX = 4


class Side:
    """One of the two clusters; `rows` speaks of it as `name`."""

    def __init__(self, name, cluster):
        self.name, self.cluster = name, cluster
        self.round, self.allowed = 0, None

    def cpu(self):
        return sum(node.cpu_seconds() for node in self.cluster.nodes.values())

    def draws(self, seconds):
        """CPU seconds that all three together use in one."""
        before = self.cpu()
        time.sleep(seconds)
        return (self.cpu() - before) / seconds

    def cpu_at_rest(self, settle=1.5, seconds=20):
        """CPU seconds so far, once all three together use little; what they use to rest is not in them."""
        if self.allowed is None:
            self.allowed = max(ALLOWED_AT_REST, LITTLE_MORE * min(self.draws(2 * settle) for _ in range(4)))
        end, before = time.monotonic() + seconds, self.cpu()
        while time.monotonic() < end:
            time.sleep(settle)
            now = self.cpu()
            if now - before <= self.allowed * settle:
                break
            before = now
        return before

    def topic(self, what, partitions=PARTITIONS, replication=3, **configs):
        self.round += 1
        name = f"{what}-{self.round}"
        return name, self.cluster.topic(name, partitions, replication, 240, **configs)

    def delete_topics(self):
        """What one row left costs the next ones memory, and an empty replica time."""
        ours = [name for name in self.cluster.describe()[2] if not name.startswith("__")]
        for name in ours:
            error = self.cluster.at_controller(lambda client, n=name: client.delete_topic(n, 30_000))
            # 3: a deletion that was repeated, since its answer was late.
            if error not in (0, 3):
                raise RuntimeError(f"{self.name} deletes {name} with error {error}")
        gone = lambda: not set(ours) & set(self.cluster.describe()[2])  # noqa: E731
        self.cluster.until(60, gone, "the deletion of the topics of the last row")


class Target:
    """What the load generator takes for a broker."""

    def __init__(self, side):
        self.bootstrap, self.folder = side.cluster.bootstrap, side.cluster.folder


def produce(side, load, bytes_, replication, **configs):
    """(messages per second, CPU seconds of all brokers for each GiB)."""
    configs["min_insync_replicas"] = min(2, replication)
    name, _ = side.topic(f"produce{replication}", replication=replication, **configs)
    before = side.cpu_at_rest()
    speed = load.produce(Target(side), name, KIB, bytes_ // KIB)
    return speed, (side.cpu_at_rest() - before) * GIB / bytes_


def rounds_of_produce(sides, load, rows, size_of):
    """Replication factors in turn, as brokers are: what a page costs depends on what the machine did before."""
    bytes_, factors = size_of.round_bytes, (3, 1)
    for factor in factors:
        size_of.warm(
            f"produce, RF {factor}", sides, lambda s, n, r=factor: (produce(s, load, bytes_, r, **PASSING)[1], bytes_)
        )
    speed, cpu = ({(name, factor): [] for name in NAMES for factor in factors} for _ in range(2))
    for _ in range(size_of.rounds):
        for side in sides:
            for factor in factors:
                fast, used = produce(side, load, bytes_, factor)
                speed[side.name, factor].append(fast)
                cpu[side.name, factor].append(used)
    for factor in factors:
        of = [cpu[name, factor] for name in NAMES]
        goals = {"at_most": 0.4} if factor == 3 else {}
        rows.add(f"produce 1 KiB, RF {factor}, acks=all: CPU of all brokers", "s/GiB", *of, **goals)
        of = [speed[name, factor] for name in NAMES]
        goals = {"at_least": 1.5} if factor == 3 else {}
        rows.add(f"produce 1 KiB, RF {factor}: throughput", "msg/s", *of, **goals)
    of = [[three / one for three, one in zip(cpu[name, 3], cpu[name, 1], strict=True)] for name in NAMES]
    rows.add("RF 3 over its own RF 1: CPU", "×", *of, absolute=3.5)


def rounds_of_latency(sides, load, rows, size_of):
    p50, p99 = {name: [] for name in NAMES}, {name: [] for name in NAMES}
    names = {side.name: side.topic("latency")[0] for side in sides}
    seconds = 10 if size_of.quick else 30

    def of(side):
        values = load.latency(Target(side), names[side.name], seconds)
        return values[len(values) // 2], values[int(len(values) * 0.99)]

    size_of.warm("ack latency", sides, lambda side, n: (of(side)[0], 1000 * seconds), LATENCY_WARM_ROUNDS_MAX)
    for _ in range(size_of.rounds):
        for side in sides:
            half, most = of(side)
            p50[side.name].append(half)
            p99[side.name].append(most)
    rows.add("ack latency, 1,000 msg/s, RF 3: p50", "ms", p50["klamm"], p50["kafka"], at_most=0.6)
    rows.add("ack latency, 1,000 msg/s, RF 3: p99", "ms", p99["klamm"], p99["kafka"], at_most=0.5)


def gaps(sides, rows, size_of):
    """The longest time without an acknowledgement in some partition, under each fault."""
    from cluster.load import COMMIT
    from cluster.rig import SESSION_S
    from cluster.run import Run
    from cluster.scenarios import gap_between

    def kill(run, side):
        victim = side.cluster.broker(side.cluster.leader(run.topic))
        run.rest(2)
        victim.kill9()
        run.flowing(120)
        run.rest(2)
        found = gap_between(run, run.began, time.monotonic())
        victim.restart()
        run.in_sync()
        return {"kill -9": found}

    def term(run, side):
        victim = side.cluster.broker(side.cluster.leader(run.topic))
        run.rest(2)
        victim.term()
        run.rest(3)
        found = gap_between(run, run.began, time.monotonic())
        errors = sum(count for name, count in run.record.errors.items() if not name.startswith(COMMIT))
        victim.restart()
        run.in_sync()
        return {"SIGTERM": found, "SIGTERM, errors": errors}

    def zookeeper(run, side):
        run.rest(2)
        began = time.monotonic()
        side.cluster.server.kill()
        run.rest(15)
        back = time.monotonic()
        side.cluster.server.start()
        run.rest(2 * SESSION_S)
        return {"ZooKeeper gone": gap_between(run, began, back), "ZooKeeper back": gap_between(run, back, time.monotonic())}

    found = {name: {} for name in NAMES}
    for n in range(size_of.rounds):
        for fault in (kill, term, zookeeper):
            for side in sides:
                run = Run(
                    side.cluster, f"{fault.__name__}{n}-{side.round}", int(time.time()) % 100_000, weak=False, group=False
                )
                side.round += 1
                for name, value in fault(run, side).items():
                    found[side.name].setdefault(name, []).append(value)
                run.finish()
    for name, unit, goal in [("kill -9", "s", SESSION_S + 1), ("SIGTERM", "s", 0.5), ("SIGTERM, errors", "", 0),
                             ("ZooKeeper gone", "s", 0.5), ("ZooKeeper back", "s", 1)]:  # fmt: skip
        of = [found[side].get(name, []) for side in NAMES]
        rows.add(f"{name}: longest time without an acknowledgement" if unit else name, unit, *of, absolute=goal)


def many_partitions(sides, rows, size_of, count=MANY):
    """Goals are for a thousand; they make `count` of them, all in one topic."""
    created, led, back, rss, cpu = ({name: [] for name in NAMES} for _ in range(5))
    for side in sides:
        name, seconds = side.topic("many", count)
        created[side.name].append(seconds)
        time.sleep(10)
        # klamm gives back what a burst took once it has been at rest for two minutes.
        before, span = side.cpu(), 15 if size_of.quick else 150
        time.sleep(span)
        cpu[side.name].append((side.cpu() - before) / span / len(side.cluster.nodes) * 100)
        rss[side.name] += [node.memory_mib()[0] for node in side.cluster.nodes.values()]
        victim = next(node for node in side.cluster.nodes.values() if node.number != side.cluster.controller())
        victim.kill9()
        side.cluster.until(30, lambda v=victim: v.registered() is None, "the dead broker's session to end")
        led[side.name].append(acknowledged_everywhere(side.cluster, name))
        began = time.monotonic()
        victim.start(180)
        side.cluster.in_sync([name], 240)
        back[side.name].append(time.monotonic() - began)
    for what, unit, found, goal in [
        ("created and in sync", "s", created, 3),
        ("session's end to an acknowledgement of each", "s", led, 1),
        ("killed broker back and in sync", "s", back, 3),
        ("idle: RSS of a broker", "MiB", rss, 120),
        ("idle: CPU of a broker", "% of a core", cpu, 0.5),
    ]:
        goal = goal if count == MANY else None
        rows.add(f"{count:,} partitions × 3, {what}", unit, found["klamm"], found["kafka"], absolute=goal)


def acknowledged_everywhere(cluster, topic, seconds=120):
    """Seconds until every partition has acknowledged a record under acks=all, asked in requests of a hundred."""
    began, left, one = time.monotonic(), None, batch([b"x" * 100], int(time.time() * 1000))
    with contextlib.ExitStack() as stack:
        clients = {node.number: stack.enter_context(cluster.admin(node.number, 30)) for node in cluster.alive()}
        while left is None or left:
            found = clients[min(clients)].describe([topic])[2][topic]
            left = set(found) if left is None else left
            for number, client in clients.items():
                mine = sorted(p for p in left if found[p].leader == number)
                for first in range(0, len(mine), 100):
                    answer = client.produce(topic, {p: one for p in mine[first : first + 100]}, timeout_ms=5000)
                    left -= {p for p, (error, _) in answer.items() if error == 0}
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"{len(left)} of {len(found)} partitions acknowledge nothing after {seconds} s")
    return time.monotonic() - began


def empty_replica(sides, load, rows, size_of):
    """A follower whose directory was emptied fetches everything anew."""
    bytes_, took = GIB // 4 if size_of.quick else 2 * GIB, {name: [] for name in NAMES}
    for side in sides:
        name, _ = side.topic("empty")
        load.produce(Target(side), name, KIB, bytes_ // KIB)
        side.cluster.in_sync()
        victim = next(node for node in side.cluster.nodes.values() if node.number != side.cluster.controller())
        victim.term()
        shutil.rmtree(victim.folder / "data")
        # It led partitions of one replica, too.
        victim.settings["klamm.allow.empty.log.dir"] = "true"
        began = time.monotonic()
        victim.restart()
        side.cluster.in_sync([name], 600)
        took[side.name].append(time.monotonic() - began)
    rows.add(f"an empty replica of {bytes_ / GIB:g} GiB in sync again", "s", took["klamm"], took["kafka"], at_most=0.5)


def measure(load, rows, size_of, only=None, parts=None):
    """Adds the rows. `only`: one of the two clusters, for working on the code; `parts`: some of the rows."""
    from cluster.network import Loopback
    from cluster.rig import Cluster

    with contextlib.ExitStack() as stack:
        sides = []
        for name, against in (("klamm", ""), ("kafka", "3.9.1")):
            if only in (None, name):
                cluster = Cluster(against, net=Loopback())
                stack.callback(cluster.remove)
                cluster.start()
                sides.append(Side(name, cluster))
        # The last is not for Kafka: the heaps are not made for so many.
        klamm_alone = [side for side in sides if side.name == "klamm"]
        of = {
            "produce": lambda: rounds_of_produce(sides, load, rows, size_of),
            "latency": lambda: rounds_of_latency(sides, load, rows, size_of),
            "gaps": lambda: gaps(sides, rows, size_of),
            "empty": lambda: empty_replica(sides, load, rows, size_of),
            "many": lambda: many_partitions(sides, rows, size_of),
            "10000": lambda: many_partitions(klamm_alone, rows, size_of, VERY_MANY),
        }
        for part in PARTS:
            if part in (parts or PARTS) and not (part == "10000" and size_of.quick):
                for side in sides:
                    side.delete_topics()
                of[part]()
