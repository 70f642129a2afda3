"""R10: brokers lose power. Their data lie on fault file systems (`disk_faults`), so what they did not sync is lost.

Each start after a loss has another boot id, as after a real one: rule B2 of our design hangs on that. A row must be able to
fail: with KLAMM_PLANT=boot the boot id stays, and a broker registers before its old session has ended; with
KLAMM_PLANT=flush nothing is synced where the row about all brokers says that everything is.
"""

import contextlib
import os
import shutil
import time
import uuid

from cluster import network
from cluster.apart import apart, klamm_alone, running
from cluster.copies import Copies
from cluster.rig import NO_FAULT, SESSION_S, Cluster, Failed, KlammMember
from disk_faults import faultfs
from kit.wire import batches

# Files are written, merged and dropped all the time.
BUSY = {"klamm.rocksdb.write.buffer.bytes": str(4 << 20), "log.retention.check.interval.ms": "1000"}
SYNCED = {"log.flush.interval.messages": "1"}
# How long it may take until every partition acknowledges again, and until the victim is up and in sync again. On an idle
# machine a session and a second; several times that for a busy one.
SERVES_S, IN_SYNC_S = 5 * SESSION_S, 60
# A broker that rejoins before its session has ended was taken for one that was only killed. A session ends a time-out
# after the last ping, and pings are a third of that apart.
SOONEST_S = SESSION_S / 2


class PowerMember(KlammMember):
    """A broker whose data lie on a fault file system."""

    def mount(self, seed, names):
        """To be called before `join`; the settings that this takes."""
        self.fs = faultfs.FaultFs(seed, names, folder=self.folder.with_name(f"{self.folder.name}-disk"))
        self.fs.start(30)
        data = self.fs.mount / "data"
        self.fs.make_folders(data)
        return {"log.dirs": data, "klamm.boot.id": uuid.uuid4()}

    def lose_power(self, rng, keep=None):
        """Now. What that took, in numbers."""
        self.wanted, keep = False, keep or faultfs.keep_of(rng)
        loss = self.fs.lose_power(self.child, keep, rng.randrange(1 << 32))
        if os.environ.get("KLAMM_PLANT") != "boot":
            self.settings["klamm.boot.id"] = uuid.uuid4()
        return {"keep": keep, **loss}

    def return_from_loss(self, rng):
        """Launches it; now and then the power goes during the start, too. How often it did."""
        losses = 0
        while rng.random() < 0.25:
            self.fs.rule("freeze", "any", "*", after=rng.randrange(600))
            self.launch()
            self.fs.wait_frozen(self, 3)
            self.lose_power(rng)
            losses += 1
        self.launch()
        return losses


class PowerCluster(Cluster):
    """Three brokers, each on a disk that can lose what was not synced."""

    def __init__(self, seed, extra=None, net=None):
        super().__init__(extra={**BUSY, **(extra or {})}, net=net)
        self.seed = seed

    def make(self, number, kind, folder, port, extra):
        node = PowerMember(folder=folder, port=port)
        # Names are durable with their directory's sync, or with the next entry of a journal.
        names = "journal" if (self.seed + number) % 3 == 0 else "directory"
        # Known at once, so that a start which fails unmounts it.
        self.nodes[number] = node
        return node.join(self, number, {"klamm.disk.reserve.bytes": "0", **node.mount(self.seed + number, names), **extra})

    def end(self):
        super().end()
        for node in self.nodes.values():
            if hasattr(node, "fs"):
                # What a disk holds goes with its mount; whoever looks into a failure needs it.
                if self.failed:
                    shutil.copytree(node.fs.mount / "data", node.folder / "data", dirs_exist_ok=True)
                node.fs.unmount()

    def led_by(self, topic, number):
        """The partitions that a broker leads."""
        return {part for part, state in self.describe([topic])[2][topic].items() if state.leader == number}


def why_not(args):
    return klamm_alone(args) or faultfs.why_not() or (None if network.entered() else "needs a mount namespace, nft and ip")


def prepare():
    if not faultfs.why_not():
        faultfs.build()


def within(seconds, took, what):
    if took > seconds:
        raise Failed(f"{what} after {took:.1f} s, {seconds:g} s are allowed")
    return took


def is_anew(node, session):
    """Whether it is registered, by another session than that one."""
    with contextlib.suppress(*NO_FAULT):
        now = node.registered()
        return now is not None and now.owner != session.owner
    return False


def refuse_holes(run, node):
    """Fails if the copy of a broker lacks records between others. The end of the row compares all copies; here the disk is
    still as it came out of this loss."""
    with run.cluster.admin(node.number, timeout=60) as client:
        for part in range(run.partitions):
            at, high = 0, 1
            while at < high:
                error, high, data = client.fetch_replica(run.topic, part, at)
                found = list(batches(data))
                if error or (not found and at < high):
                    # Its end may be known later than that of its leader.
                    break
                for base, last, _ in found:
                    if base > at:
                        again = next(iter(batches(client.fetch_replica(run.topic, part, at)[2])), (None,))[0]
                        raise Failed(f"{node.label} has nothing of {run.topic}-{part} from {at} to {base - 1}; asked again, up to {again}")
                    at = max(at, last + 1)


def one_loses_power(run, at_once, totals):
    """A broker that leads loses power and comes back: at once, while its session still lives, or when it was declared
    dead and the others went on without it."""
    cluster, rng = run.cluster, run.rng
    victim = cluster.broker(cluster.leader(run.topic, rng.randrange(run.partitions)))
    led, before, session = cluster.led_by(run.topic, victim.number), cluster.epochs(run.topic), victim.registered()
    at = victim.fs.moment(victim, rng)
    began, loss = time.monotonic(), victim.lose_power(rng, rng.choice([None, "nothing"]))
    if not at_once:
        cluster.until(SERVES_S, lambda: victim.registered() is None, f"the session of {victim.label} to end")
        totals["serves"].append(within(SERVES_S, time.monotonic() - began + run.flowing(60), "all acknowledge again"))
        run.rest(0, 3)
    returned = time.monotonic()
    again = victim.return_from_loss(rng)
    victim.wait_until(lambda: is_anew(victim, session), SERVES_S + IN_SYNC_S)
    if at_once:
        if time.monotonic() - began < SOONEST_S:
            raise Failed(f"{victim.label} registered {time.monotonic() - began:.1f} s after it lost power: its session lived")
        totals["serves"].append(within(SERVES_S, time.monotonic() - began + run.flowing(60), "all acknowledge again"))
    victim.wait_until(victim.ready, IN_SYNC_S)
    # Internal topics, too: the next to lose power may hold what only it has.
    cluster.in_sync(None, IN_SYNC_S)
    # Where it came at once it has waited for its session.
    allowed = IN_SYNC_S + (SERVES_S if at_once else 0)
    totals["sync"].append(within(allowed, time.monotonic() - returned, f"{victim.label} is in sync again"))
    refuse_holes(run, victim)
    after = cluster.epochs(run.topic)
    kept = {part for part in led if after[part] <= before[part]}
    if kept:
        raise Failed(f"{victim.label} lost power and led {sorted(kept)} on under the same epochs")
    totals["lost"] += loss["bytes"]
    totals["losses"] += 1 + again
    if os.environ.get("KLAMM_RIG_VERBOSE"):
        print(f"    {victim.label} at {at}, {'at once' if at_once else 'declared dead'}, {again} more: {loss}", flush=True)


def note(run, totals):
    run.note(
        f"{totals['losses']} losses of power, {totals['lost'] / 1024:.0f} KiB not synced; all acknowledge again after "
        f"{max(totals['serves']):.1f} s, in sync {max(totals['sync']):.1f} s after the return at most"
    )


@apart("R10-power-loss-of-one", missing=why_not, prepare=prepare)
def one(suite):
    """One broker at a time, with the default flush settings; between two losses all are in sync again. A copier goes on by
    transactions, so coordinators lose the ends of their logs as well."""
    totals = {"serves": [], "sync": [], "lost": 0, "losses": 0}

    def body(run):
        copies = Copies(run, count=1)
        try:
            for n in range(suite.plan.pick(12, 2)):
                one_loses_power(run, at_once=n % 2 == 1, totals=totals)
                run.rest(1, 3)
        except BaseException:
            copies.abandon()
            raise
        note(run, totals)
        if not totals["lost"]:
            raise Failed("everything was synced, so this proves nothing")

    with running(suite, PowerCluster(suite.plan.seed, net=suite.network)) as cluster:
        return suite.plan.run(cluster, "R10", body, rate=200)


@apart("R10-power-loss-of-all", missing=why_not, prepare=prepare)
def everyone(suite):
    """All three at once, where every record is synced before it is acknowledged."""
    totals = {"serves": [], "sync": [], "lost": 0, "losses": 0}

    def body(run):
        cluster = run.cluster
        for _ in range(suite.plan.pick(4, 1)):
            victim = cluster.broker(run.rng.choice(sorted(cluster.nodes)))
            victim.fs.moment(victim, run.rng)
            for node in cluster.nodes.values():
                totals["lost"] += node.lose_power(run.rng)["bytes"]
            totals["losses"] += len(cluster.nodes)
            began = time.monotonic()
            for node in cluster.nodes.values():
                node.launch()
            for node in cluster.nodes.values():
                node.wait_until(node.ready, SERVES_S + IN_SYNC_S)
            run.flowing(60)
            totals["serves"].append(within(SERVES_S + IN_SYNC_S, time.monotonic() - began, "all acknowledge again"))
            cluster.in_sync()
            totals["sync"].append(within(SERVES_S + IN_SYNC_S, time.monotonic() - began, "all are in sync again"))
            run.rest(1, 3)
        note(run, totals)

    extra = {} if os.environ.get("KLAMM_PLANT") == "flush" else SYNCED
    with running(suite, PowerCluster(suite.plan.seed, extra, suite.network)) as cluster:
        return suite.plan.run(cluster, "R10a", body, rate=50)
