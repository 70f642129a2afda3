"""Faults over a cluster of real processes, one row a scenario; the history checker decides.

    compat-tests/run cluster [--quick | --short] [--only WORD,WORD] [--seed N] [--against "3.9.1"]

Three brokers on one ZooKeeper: klamm, or Apache Kafka of KLAMM_AGAINST (or --against; a word for each broker makes a mixed
cluster: "3.9.1 3.9.1 klamm"). With root, or where user namespaces are allowed, each process has a network of its own
(needs nft and ip); without, rows that cut are skipped. --quick takes 10 minutes, a full run 60; --short is the form of
`make test`: one kill -9, one SIGTERM. A row that fails keeps the folder with logs and history, and says where.
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
    parser.add_argument("--only", default="", help="rows whose name holds one of these, with commas between")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--against", default=os.environ.get("KLAMM_AGAINST", ""))
    parser.add_argument("--keep", action="store_true", help="keep the folder whatever happens")
    args = parser.parse_args()
    from kit.broker import kafka_path

    for version in {word for word in args.against.split() if word != "klamm"}:
        # No network inside.
        kafka_path(version)
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
