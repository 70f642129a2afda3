"""A rolling upgrade from an earlier klamm to the present one, and one broker back and forth, under load."""

import filecmp
import os
import pathlib
import time

from cluster.apart import apart, klamm_alone, running
from cluster.copies import Copies
from cluster.rig import Cluster, Failed
from kit.broker import klamm_binary

STOP_S, IN_SYNC_S = 30, 60


def earlier():
    """The earlier binary; None if none is named."""
    path = os.environ.get("KLAMM_OLD_BINARY")
    return pathlib.Path(path).absolute() if path else None


def why_not(args):
    return klamm_alone(args) or (None if earlier() else "KLAMM_OLD_BINARY names no earlier binary (make cluster builds one)")


class Versions(Cluster):
    """Every broker begins with the earlier binary."""

    def make(self, number, kind, folder, port, extra):
        node = super().make(number, kind, folder, port, extra)
        node.binary = earlier()
        return node


class Roll:
    """Brokers of a run, moved from one binary to another."""

    def __init__(self, run):
        self.run, self.cluster, self.stops, self.syncs = run, run.cluster, [], []

    def move(self, node, binary):
        """SIGTERM, then a start of that binary, until it is in sync again."""
        code, seconds = node.term()
        self.stops.append(seconds)
        if code not in (0, 143):
            raise Failed(f"{node.label} ended with {code} on SIGTERM\n{node.tail(10)}")
        if seconds > STOP_S:
            raise Failed(f"{node.label} took {seconds:.1f} s to stop, {STOP_S} s are allowed")
        self.run.rest(0.5, 2)
        node.binary, began = binary, time.monotonic()
        node.restart()
        runs = os.readlink(f"/proc/{node.pid}/exe")
        if runs != str(binary.resolve()):
            raise Failed(f"{node.label} runs {runs}, not {binary}")
        # Internal topics, too: the next one to stop may coordinate.
        self.cluster.in_sync(None, IN_SYNC_S)
        self.syncs.append(time.monotonic() - began)
        self.run.rest(1, 3)


@apart("rolling-upgrade", missing=why_not)
def upgrade(suite):
    """Each broker in turn from the earlier binary to the present one; then one back and forward again. No error reaches a
    client, and transactions go on."""
    old, new = earlier(), klamm_binary()

    def body(run):
        copies, roll = Copies(run, count=1), Roll(run)
        try:
            run.rest(3)
            for node in run.cluster.nodes.values():
                roll.move(node, new)
            back = run.rng.choice(list(run.cluster.nodes.values()))
            roll.move(back, old)
            run.rest(suite.plan.pick(10, 3))
            roll.move(back, new)
            # Now none is left that the earlier one would have to understand.
            run.rest(suite.plan.pick(5, 1))
        except BaseException:
            copies.abandon()
            raise
        run.note(f"{len(roll.stops)} moves, the slowest stop {max(roll.stops):.1f} s, in sync {max(roll.syncs):.1f} s after at most")
        if filecmp.cmp(old, new, shallow=False):
            run.note("both binaries are the same")
        run.refuse_errors()

    with running(suite, Versions(net=suite.network)) as cluster:
        return suite.plan.run(cluster, "upgrade", body, rate=200)
