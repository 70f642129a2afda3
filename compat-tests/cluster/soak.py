"""R22: the cluster under everything that may happen to it, for as long as is asked; what brokers use must stay level.

b1 is never stopped, so that what a process leaks shows; the others are killed, stopped and started again, so that what
stays on disks and in ZooKeeper shows. A row must be able to fail: KLAMM_PLANT=leak opens connections and keeps them.
"""

import os
import socket
import time

from cluster.apart import apart, running
from cluster.churn import Operator
from cluster.load import Task
from cluster.rig import Cluster, Failed
from kit.level import level

# What is written stays small in memory before it goes to tables, or that alone would grow all the while.
SMALL = {"klamm.rocksdb.write.buffer.bytes": str(4 << 20)}
# What may be added in the last third: a part of what there was, and a constant.
LIMITS = {"memory, MiB": (0.10, 16), "descriptors": (0.10, 40), "threads": (0.05, 4)}
STRIKE_S = 40
# A process has to settle after its start.
YOUNG_S = 20


class Meter(Task):
    """Takes figures of every broker each second."""

    def __init__(self, cluster):
        super().__init__()
        self.name, self.cluster = "meter", cluster
        self.samples = {number: [] for number in cluster.nodes}
        self.kept = []

    def work(self):
        born = {}
        while not self.ending.wait(1):
            if os.environ.get("KLAMM_PLANT") == "leak":
                node = self.cluster.nodes[1]
                self.kept.append(socket.create_connection((node.host, node.port)))
            for number, node in self.cluster.nodes.items():
                child = node.child
                since = born.setdefault(child.pid, time.monotonic())
                if time.monotonic() - since < YOUNG_S:
                    continue
                try:
                    process = f"/proc/{child.pid}"
                    self.samples[number].append({
                        "memory, MiB": node.memory_mib()[0], "descriptors": len(os.listdir(f"{process}/fd")),
                        "threads": len(os.listdir(f"{process}/task")),
                    })  # fmt: skip
                except (OSError, KeyError):
                    # It ended meanwhile.
                    continue


class Strikes:
    """What happens to the brokers that are not spared, now and then."""

    def __init__(self, run):
        self.run, self.due, self.counts = run, time.monotonic() + STRIKE_S / 2, {}

    def maybe(self):
        if time.monotonic() < self.due:
            return
        run, cluster = self.run, self.run.cluster
        victim = run.rng.choice([node for number, node in cluster.nodes.items() if number != 1])
        what = run.rng.choice(["kill -9", "SIGTERM"])
        self.counts[what] = self.counts.get(what, 0) + 1
        if what == "kill -9":
            victim.kill9()
            run.rest(0, 10)
        else:
            code, _ = victim.term()
            if code not in (0, 143):
                raise Failed(f"{victim.label} ended with {code} on SIGTERM\n{victim.tail(10)}")
        victim.restart()
        run.flowing(60)
        cluster.in_sync()
        self.due = time.monotonic() + run.rng.uniform(0.5, 1.5) * STRIKE_S


def judge(samples):
    """A line for each broker; raises if one is not level."""
    lines, grown = [], False
    for number, found in samples.items():
        if len(found) < 30:
            raise Failed(f"{len(found)} samples of b{number} are too few: longer, please")
        for name, (first, middle, last, is_level) in level(found, LIMITS).items():
            grown |= not is_level
            lines.append(f"{'level' if is_level else 'GROWN'}  b{number} {name:12} {first:8.1f} {middle:8.1f} {last:8.1f}")
    print("    medians of the thirds\n    " + "\n    ".join(lines), flush=True)
    if grown:
        raise Failed("a broker uses more and more: " + "; ".join(line for line in lines if line.startswith("GROWN")))


@apart("R22-soak", asked=lambda args: args.soak)
def soak(suite):
    """Kills, stops, and an administrator's operations, for the minutes of --soak."""
    seconds = suite.args.soak * 60

    def body(run):
        meter, operator, strikes = Meter(run.cluster), Operator(run), Strikes(run)
        meter.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                operator.operate(10)
                strikes.maybe()
        finally:
            meter.ending.set()
        meter.end()
        operator.settled()
        operator.tell()
        run.note(", ".join(f"{what} {count}" for what, count in sorted(strikes.counts.items())))
        judge(meter.samples)

    extra = {} if suite.args.against else SMALL
    with running(suite, Cluster(suite.args.against, extra=extra, net=suite.network)) as cluster:
        return suite.plan.run(cluster, "R22", body, rate=50)
