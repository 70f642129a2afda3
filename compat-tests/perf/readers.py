"""What readers cost: eight groups on the tail of one topic, and the acknowledgements of others beside a replay.

Both brokers are warm, as `perf/__main__.py` says of its rows; part `readers` of `make bench`.
"""

import statistics
import subprocess
import threading
import time

GIB, MIB = 1 << 30, 1 << 20

GROUPS = 8
RATE_MIB = 50
REPLAYED_GIB = 8


def fan_out(broker, load, name, seconds):
    """Broker's CPU seconds for each GiB that went out to all groups, what came in included, and their messages per second."""
    count = RATE_MIB * 1024 * seconds
    readers = [
        subprocess.Popen(
            [load.binary, "-G", f"g{n}-{name}", "-t", name, "-b", f"127.0.0.1:{broker.port}", "-c", str(count), "-X",
             "auto.offset.reset=earliest", "-X", "fetch.queue.backoff.ms=10", "-q"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for n in range(GROUPS)
    ]  # fmt: skip
    try:
        time.sleep(4)
        before, began = broker.cpu_seconds(), time.monotonic()
        load.produce(broker, name, 1024, count, "-r", RATE_MIB * 1024)
        for reader in readers:
            if reader.wait(timeout=120):
                raise RuntimeError(f"a reader of {name} ended with {reader.returncode}")
        took = time.monotonic() - began
        out = GROUPS * count * 1024
        return (broker.cpu_until_idle() - before) * GIB / out, GROUPS * count / took, out
    finally:
        for reader in readers:
            reader.kill()


def rounds_of_fan_out(brokers, load, rows, size_of, topic):
    seconds = 4 if size_of.quick else 10
    cpu = {b.name: [] for b in brokers}

    def one_round(broker, name):
        topic(broker, name)
        cost, _, out = fan_out(broker, load, name, seconds)
        return cost, out

    size_of.warm("fan-out", brokers, lambda b, n: one_round(b, f"fw{n}"))
    for n in range(size_of.rounds):
        for broker in brokers:
            cpu[broker.name].append(one_round(broker, f"f{n}")[0])
    rows.add(f"{GROUPS} groups on the tail, {RATE_MIB} MiB/s in: broker CPU per GiB out", "s", cpu["klamm"], cpu["kafka"], at_most=0.5)


def rounds_beside_a_replay(brokers, load, rows, size_of, topic, quantile):
    """One client at 1,000 messages a second while another reads a log from its beginning, again and again."""
    seconds, gib = (10, 1) if size_of.quick else (30, REPLAYED_GIB)
    p50, p99, speed = ({b.name: [] for b in brokers} for _ in range(3))
    disk = {}
    for broker in brokers:
        topic(broker, "replayed")
        load.produce(broker, "replayed", 1024, gib * GIB // 1024)
        topic(broker, "beside", 1)
        broker.cpu_until_idle()
        before = broker.read_bytes()
        load.consume(broker, "replayed", gib * GIB // 1024, "first")
        disk[broker.name] = [(broker.read_bytes() - before) / MIB]
    rows.add(f"read from the disk by the first replay of {gib} GiB", "MiB", disk["klamm"], disk["kafka"], absolute=0)

    def one_round(broker, n, long):
        ended, rates = threading.Event(), []

        def replay():
            while not ended.is_set():
                rates.append(load.consume(broker, "replayed", gib * GIB // 1024, f"r{n}-{len(rates)}-{long}"))

        replaying = threading.Thread(target=replay)
        replaying.start()
        try:
            time.sleep(1)
            values = load.latency(broker, "beside", long)
        finally:
            ended.set()
            replaying.join()
        return values, statistics.median(rates), len(rates) * gib * GIB

    def warm_round(broker, n):
        values, _, passed = one_round(broker, f"w{n}", 10)
        return quantile(values, 0.5), passed

    size_of.warm("ack latency beside a replay", brokers, warm_round)
    for n in range(size_of.rounds):
        for broker in brokers:
            values, rate_, _ = one_round(broker, n, seconds)
            speed[broker.name].append(rate_)
            p50[broker.name].append(quantile(values, 0.5))
            p99[broker.name].append(quantile(values, 0.99))
    what = f"beside a replay of {gib} GiB"
    rows.add(f"ack latency {what}: p50", "ms", p50["klamm"], p50["kafka"], at_most=1.0)
    rows.add(f"ack latency {what}: p99", "ms", p99["klamm"], p99["kafka"], at_most=0.5)
    rows.add(f"the replay itself {what}: throughput", "msg/s", speed["klamm"], speed["kafka"])
