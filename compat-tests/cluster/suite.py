"""Runs the scenarios over a cluster that is made anew after a row that failed, or for other kinds of brokers, then those that make
one of their own.

Which rows: of a cluster of one kind those of `scenarios`, of a mixed one (--against "3.9.1 3.9.1 klamm") those of `mixed`, and
with --only the others as well; without --against a full run plays both, klamm's own first.
"""

import faulthandler

from cluster import network
from cluster.apart import rows_apart
from cluster.mixed import KINDS, MIXED
from cluster.rig import Cluster
from cluster.scenarios import SCENARIOS, Plan, short
from kit.rows import Rows

# The longest row takes 11 minutes.
ROW_SECONDS_MAX = 1500


def scenarios(args):
    """(name, whether it needs namespaces, kinds of brokers, function) of each row that is asked for."""
    against = args.against
    if args.soak:
        return []
    if args.short:
        return [("short-kill-and-SIGTERM", False, against, short)]
    rows, is_mixed = [], len(set(against.split())) > 1
    if not is_mixed or args.only:
        rows += [(name, faults, against, function) for name, faults, function in SCENARIOS]
    if is_mixed or (not against and not args.quick):
        rows += [(name, False, kinds or against or KINDS, function) for name, kinds, function in MIXED]
    return [row for row in rows if any(word in row[0] for word in args.only.split(","))]


class Suite:
    def __init__(self, args):
        self.args, self.rows, self.plan = args, Rows("", 26), Plan(args.seed, args.quick)
        self.cluster, self.keep = None, args.keep
        self.network = network.here()

    def limited(self, body, *arguments):
        """Runs a row. One that takes too long ends the suite, with the stack of each thread: a client that waits with
        Python's lock lets nobody else end it."""
        faulthandler.dump_traceback_later(ROW_SECONDS_MAX + 60 * (self.args.soak or 0), exit=True)
        try:
            return body(*arguments)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def ready(self, kinds):
        """The cluster of these kinds, made if there is none."""
        if self.cluster and self.cluster.against != kinds:
            self.leave()
        if self.cluster is None:
            self.cluster = Cluster(kinds, net=self.network)
            try:
                seconds = self.cluster.start()
                print(f"{self.cluster.title}, {type(self.network).__name__.lower()}, up after {seconds:.1f} s", flush=True)
            except BaseException:
                self.cluster.end()
                print(f"    logs in {self.cluster.folder}", flush=True)
                self.cluster = None
                raise
        return self.cluster

    def row(self, kinds, function):
        failed = True
        try:
            note = function(self.ready(kinds), self.plan)
            failed = False
            return note
        finally:
            if failed and self.cluster:
                # What is left of it would fail the next row, too.
                self.cluster.end()
                print(f"    logs in {self.cluster.folder}", flush=True)
                self.cluster = None

    def leave(self):
        """Ends the cluster, if there is one."""
        cluster, self.cluster = self.cluster, None
        if cluster:
            cluster.end()
            if self.keep:
                print(f"    logs in {cluster.folder}", flush=True)
            else:
                cluster.remove()

    def run(self):
        try:
            for name, faults, kinds, function in scenarios(self.args):
                if faults and not self.network.faults:
                    print(f"SKIP  {name:26}          needs network namespaces and nft", flush=True)
                    continue
                self.rows.run(name, self.limited, self.row, kinds, function)
        finally:
            self.leave()
        for row in rows_apart(self.args):
            if reason := row.missing(self.args):
                print(f"SKIP  {row.name:26}          {reason}", flush=True)
            else:
                self.rows.run(row.name, self.limited, row.body, self)
        return 1 if self.rows.failed else 0
