"""Faults over a cluster of real processes, one row a scenario; the history checker decides.

    compat-tests/run cluster [--quick | --short | --soak MINUTES] [--only WORD,WORD] [--seed N] [--against "3.9.1"]

Three brokers on one ZooKeeper: klamm, or Apache Kafka of KLAMM_AGAINST (or --against; a word for each broker makes a mixed
cluster: "3.9.1 3.9.1 klamm", which has rows of its own, and with --only the others as well). Without --against a full run
plays klamm's rows and then the mixed ones (15 minutes). With root, or where user namespaces are allowed, each process has a
network of its own (needs nft and ip); without, rows that cut are skipped. --quick takes 10 minutes, a full run 75; --short is the form of
`make test`: one kill -9, one SIGTERM. A row that fails keeps the folder with logs and history, and says where.

Some rows, klamm's alone, make a cluster of their own: losses of power (R10; root and FUSE), and the rolling upgrade from an
earlier binary (KLAMM_OLD_BINARY; `make cluster` builds the commit before). --soak plays kills, stops and administration for
so many minutes, that row alone, and asks whether what brokers use stays level.
"""

import argparse
import os
import sys
import time

from cluster import network


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="this row alone; 5 minutes at least")
    parser.add_argument("--only", default="", help="rows whose name holds one of these, with commas between")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--against", default=os.environ.get("KLAMM_AGAINST", ""))
    parser.add_argument("--keep", action="store_true", help="keep the folder whatever happens")
    args = parser.parse_args()
    from cluster.suite import scenarios
    from kit.broker import kafka_path

    for version in {word for _, _, kinds, _ in scenarios(args) for word in kinds.split() if word != "klamm"}:
        # No network inside.
        kafka_path(version)
    from cluster.apart import rows_apart

    for row in rows_apart(args):
        row.prepare()
    if not args.short:
        network.enter()
    # Only now, as the program may have started anew.
    from cluster.suite import Suite

    return Suite(args).run()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Clients that lost their cluster may hang in their destruction.
    os._exit(status)
