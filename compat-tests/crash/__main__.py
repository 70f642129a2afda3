"""SIGKILL under load, round after round: what was acknowledged must be there, once, where it was said to be.

Stock librdkafka producers (idempotent ones, and plain ones with hundreds of requests in flight) and a consumer group run
through every kill and restart, while topics are created and deleted, a compacted topic is rewritten and small write
buffers make flushes frequent. In every other round all batches, however small, go to growing tables. After each restart:

  C1  every acknowledged record lies at the offset that was acknowledged, with its value
  C2  offsets of a partition are contiguous (the compacted topic apart)
  C3  a value of an idempotent producer is there at most once
  C4  offsets that were committed do not go back
  C5  the group goes on: it has read on since the round before
  C6  the latest acknowledged value of every key of the compacted topic is the one that is read
  C7  of a transaction that was committed every record is read, once, and of one that was aborted none; of one whose end
      was not acknowledged all or none

    compat-tests/run crash [--rounds 20] [--seed N] [--json FILE]

Needs the Python package confluent-kafka; `make crash` sets that up. KLAMM_BINARY names the binary. A checker must be able to
fail: `--plant lose` cuts the newest write-ahead log and the growing tables after every kill, as if acknowledgements came before
the write.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import time

from crash.load import (
    COMPACTED,
    PARTITIONS,
    TOPIC,
    TRANSACTIONS,
    Churn,
    Reader,
    Transactor,
    Writer,
    check,
    check_transactions,
)
from kit.broker import Klamm
from kit.wire import Client


def plant_loss(broker):
    """What a build that acknowledges before it writes would leave behind."""
    logs = sorted((broker.folder / "data").rglob("*.log"), key=lambda p: p.stat().st_mtime)
    tables = sorted((broker.folder / "data").rglob("growing/*.sst"))
    for path in tables + [p for p in logs if p.name[0].isdigit()][-1:]:
        # The last 256 KiB of a table may be zeros.
        os.truncate(path, max(0, path.stat().st_size - (512 << 10)))


def rounds(args):
    rng = random.Random(args.seed)
    broker = Klamm({
        "group.initial.rebalance.delay.ms": "0", "log.cleaner.backoff.ms": "200", "log.segment.bytes": str(1 << 20),
        "auto.create.topics.enable": "false", "klamm.rocksdb.write.buffer.bytes": str(8 << 20),
        "offsets.topic.num.partitions": "5", "transaction.state.log.num.partitions": "3",
    })
    print(f"seed {args.seed}, data in {broker.folder}", flush=True)
    broker.start()
    with Client(broker.port) as client:
        assert client.create_topic(TOPIC, PARTITIONS, configs={"retention.ms": "-1", "segment.bytes": str(64 << 20)}) == 0
        assert client.create_topic(COMPACTED, PARTITIONS, configs={
            "cleanup.policy": "compact", "segment.bytes": str(256 << 10), "min.cleanable.dirty.ratio": "0.01"}) == 0
        assert client.create_topic(TRANSACTIONS, PARTITIONS) == 0
    transactors = [Transactor(broker.port, f"transactional{n}") for n in range(2)]
    writers = [Writer(broker.port, f"idempotent{n}", True) for n in range(3)]
    writers += [Writer(broker.port, f"plain{n}", False) for n in range(3)]
    writers += [Writer(broker.port, f"keyed{n}", True, COMPACTED, 50) for n in range(2)]
    reader, churn = Reader(broker.port), Churn(broker.port)
    threads = [*writers, *transactors, reader, churn]
    for thread in threads:
        thread.start()
    breaches, seen, report = [], {}, []
    try:
        for n in range(args.rounds):
            time.sleep(rng.uniform(0.5, 2.0))
            flying = sum(w.in_flight() for w in writers if not w.idempotent)
            before = dict(reader.committed)
            broker.kill()
            broker.settings["klamm.table.piece.bytes"] = "1" if n % 2 == 0 else "8192"
            if args.plant == "lose":
                plant_loss(broker)
            back = broker.start(30)
            deadline = time.monotonic() + 30
            while reader.read <= seen.get("read", -1) and time.monotonic() < deadline:
                time.sleep(0.1)
            # New messages rest during the check (those on their way do not), or the logs outgrow a checker in Python.
            for writer in [*writers, *transactors]:
                writer.resting.set()
            found, total = check(broker.port, writers, reader, before, seen, n == args.rounds - 1)
            idle = [transactor.idle.wait(60) for transactor in transactors]
            found += check_transactions(broker.port, transactors) if all(idle) else ["C7 a transaction does not end"]
            for writer in [*writers, *transactors]:
                writer.resting.clear()
            acked = sum(len(w.acked) for w in writers)
            ended = sum(1 for t in transactors for end in list(t.ends.values()) if end is not None)
            report.append({"round": n + 1, "in flight": flying, "back after s": round(back, 3), "acked": acked,
                           "transactions": ended, "records": total, "breaches": found[:10]})
            print(f"round {n + 1:2}: {flying} in flight at the kill, back after {back:.3f} s, {acked} acknowledged, "
                  f"{total} records, {ended} transactions, {len(found)} breaches", flush=True)
            for breach in found[:5]:
                print(f"    {breach}", flush=True)
            breaches += found
            if found and not args.keep_going:
                break
    finally:
        for thread in threads:
            thread.ending.set()
        for thread in threads:
            thread.join(100)
        if not breaches:
            broker.remove()
        else:
            broker.kill()
            print(f"data kept in {broker.folder}")
    few = sum(1 for one in report if one["in flight"] < 100)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1))
    times = sorted(one["back after s"] for one in report)
    print(f"{len(report)} rounds, {report[-1]['acked']} acknowledged records, {report[-1]['transactions']} ended "
          f"transactions, {len(breaches)} breaches, back after "
          f"{times[len(times) // 2]:.3f} s (median, at most {times[-1]:.3f}), {few} rounds with fewer than 100 in flight")
    return breaches


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json")
    parser.add_argument("--plant", choices=["lose"])
    parser.add_argument("--keep-going", action="store_true")
    args = parser.parse_args()
    breaches = rounds(args)
    if args.plant:
        print("the planted bug was " + ("found" if breaches else "NOT found"))
        return 0 if breaches else 1
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
