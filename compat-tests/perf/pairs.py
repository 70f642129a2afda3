"""Two binaries of klamm in turn, so that a change shows through the noise of a machine that others use.

Each pair does the same to both, the one that begins changing places; the figure is the new one's over the old one's, of
each pair, and the median of the pairs. A broker's CPU counts until it idles.

    compat-tests/run perf.pairs --binaries OLD NEW                  produce, tail (1 KiB and 100 B) and start, ten pairs
    compat-tests/run perf.pairs --binaries OLD NEW --rows cluster   produce to three brokers, RF 3, acks=all
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import time

from kit.broker import Klamm
from kit.wire import Client
from perf.__main__ import GIB, SIZES, TAIL_BYTES, Load, settle, topic
from perf.cluster import Side, Target

MIB = 1 << 20
AT_MOST = 1.03
ROWS = ("produce", "tail", "start", "cluster")


def in_turn(pairs, sides, measure):
    """The figures of both, pair by pair; the first round of each warms."""
    found = []
    for n in range(pairs + 1):
        order = sides if n % 2 else sides[::-1]
        used = {}
        for side in order:
            settle()
            used[side] = measure(side, n)
        if n:
            found.append(tuple(used[side] for side in sides))
    return found


def judge(what, unit, found):
    """Whether the new one costs at most so much; prints the row."""
    old, new = zip(*found)
    ratios = sorted(b / a for a, b in found)
    median = statistics.median(ratios)
    print(f"{'PASS' if median <= AT_MOST else 'FAIL'}  {what}: {median:.3f} at most {AT_MOST} ({ratios[0]:.3f}-{ratios[-1]:.3f}, "
          f"{len(ratios)} pairs), medians {statistics.median(old):.3g} and {statistics.median(new):.3g} {unit}", flush=True)  # fmt: skip
    return median <= AT_MOST


def broker_of(path, stack):
    broker = Klamm()
    broker.binary = path
    broker.start()
    stack.callback(broker.remove)
    return broker


def produce(args, load, stack):
    brokers, bytes_ = [broker_of(path, stack) for path in args.binaries], args.mib * MIB
    for size in SIZES:

        def one(broker, n, size=size):
            name = f"pair{size}-{n}"
            topic(broker, name)
            before = broker.cpu_seconds()
            load.produce(broker, name, size, bytes_ // size)
            return (broker.cpu_until_idle() - before) * GIB / bytes_

        yield f"produce {size} B, broker CPU", "s/GiB", in_turn(args.pairs, brokers, one)


def tail(args, load, stack):
    brokers, reads = [broker_of(path, stack) for path in args.binaries], 4
    for size in SIZES:

        def one(broker, n, size=size):
            name = f"tail{size}-{n}"
            topic(broker, name)
            load.produce(broker, name, size, TAIL_BYTES // size)
            before = broker.cpu_until_idle()
            for read in range(reads):
                load.consume(broker, name, TAIL_BYTES // size, f"g{size}-{n}-{read}")
            return (broker.cpu_until_idle() - before) * GIB / (TAIL_BYTES * reads)

        yield f"tail {size} B, broker CPU", "s/GiB", in_turn(args.pairs, brokers, one)


def start(args, load, stack):
    brokers = [broker_of(path, stack) for path in args.binaries]
    for broker in brokers:
        topic(broker, "many", 100)

    def one(broker, _):
        broker.stop()
        began = time.monotonic()
        broker.start()
        with Client(broker.port) as client:
            client.metadata()
        return (time.monotonic() - began) * 1000

    yield "start after a stop, 100 partitions, until Metadata is answered", "ms", in_turn(args.pairs, brokers, one)


def cluster(args, load, stack):
    from cluster.network import Loopback
    from cluster.rig import Cluster

    sides, bytes_ = [], args.mib * MIB
    for path in args.binaries:

        class Of(Cluster):
            def make(self, *given, path=path):
                node = super().make(*given)
                node.binary = pathlib.Path(path)
                return node

        three = Of("", net=Loopback())
        stack.callback(three.remove)
        three.start()
        sides.append(Side(pathlib.Path(path).name, three))

    def one(side, _):
        name, _ = side.topic("pair", min_insync_replicas=2)
        before = side.cpu_at_rest()
        load.produce(Target(side), name, 1024, bytes_ // 1024)
        return (side.cpu_at_rest() - before) * GIB / bytes_

    yield "produce 1024 B, RF 3, CPU of three brokers", "s/GiB", in_turn(args.pairs, sides, one)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", nargs=2, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--mib", type=int, default=256, help="bytes that one round produces")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS[:3])
    args = parser.parse_args()
    load, passed = Load(), True
    for row in args.rows:
        with contextlib.ExitStack() as stack:
            for what, unit, found in globals()[row](args, load, stack):
                passed &= judge(what, unit, found)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
