"""Runs the scenarios over a cluster that is made anew after a row that failed, then those that make one of their own."""

from cluster import network
from cluster.apart import rows_apart
from cluster.rig import Cluster
from cluster.scenarios import SCENARIOS, Plan, short
from kit.rows import Rows


class Suite:
    def __init__(self, args):
        self.args, self.rows, self.plan = args, Rows("", 26), Plan(args.seed, args.quick)
        self.cluster, self.keep = None, args.keep
        self.network = network.here()

    def ready(self):
        """The cluster, made if there is none."""
        if self.cluster is None:
            self.cluster = Cluster(self.args.against, net=self.network)
            try:
                seconds = self.cluster.start()
                print(f"{self.cluster.title}, {type(self.network).__name__.lower()}, up after {seconds:.1f} s", flush=True)
            except BaseException:
                self.cluster.end()
                print(f"    logs in {self.cluster.folder}", flush=True)
                self.cluster = None
                raise
        return self.cluster

    def row(self, function):
        failed = True
        try:
            note = function(self.ready(), self.plan)
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
        scenarios = [("short-kill-and-SIGTERM", False, short)] if self.args.short else SCENARIOS
        scenarios = [] if self.args.soak else scenarios
        try:
            for name, faults, function in scenarios:
                if not any(word in name for word in self.args.only.split(",")):
                    continue
                if faults and not self.network.faults:
                    print(f"SKIP  {name:26}          needs network namespaces and nft", flush=True)
                    continue
                self.rows.run(name, self.row, function)
        finally:
            self.leave()
        for row in rows_apart(self.args):
            if reason := row.missing(self.args):
                print(f"SKIP  {row.name:26}          {reason}", flush=True)
            else:
                self.rows.run(row.name, row.body, self)
        return 1 if self.rows.failed else 0
