#!/usr/bin/env python3
"""klamm beside Apache Kafka 3.9.1 on this machine, driven in turn by the same stock clients; one table of ratios.

Every size is warmed up with at least 1 GiB before three rounds are measured; figures are medians with their range.
A broker's CPU is counted from the first byte until it has drained and idles, so the flushes that a produce causes are
its own. Messages per second tell as much about the client as about the broker, because both share the cores.

    make bench                          everything (about 25 minutes)
    make bench BENCH="produce consume"  some of: start partitions restart commits produce latency many consume java
    bench.py --quick …                  less warm-up and shorter rounds, for working on the code

Environment: KLAMM_BINARY (default target/release/klamm).
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "kit"))

import commits  # noqa: E402
from broker import Kafka, Klamm, kafka_path, librdkafka_path  # noqa: E402
from wire import Client, batch  # noqa: E402

GIB = 1 << 30
SIZES = (1024, 100)
PARTITIONS = 6


def say(text):
    print(text, flush=True)


class Rows:
    """Figures of both brokers by row; prints the table."""

    def __init__(self):
        self.rows = []

    def add(self, name, unit, klamm, kafka, at_most=None, at_least=None, absolute=None):
        self.rows.append((name, unit, sorted(klamm), sorted(kafka), at_most, at_least, absolute))
        self.show(self.rows[-1])

    @staticmethod
    def figure(values):
        if not values:
            return "–"
        mid = statistics.median(values)
        form = "{:,.0f}" if mid >= 1000 else "{:.3g}"
        text = form.format(mid)
        return text if len(values) == 1 else f"{text} ({form.format(values[0])}–{form.format(values[-1])})"

    def cells(self, row):
        name, unit, klamm, kafka, at_most, at_least, absolute = row
        ratio = statistics.median(klamm) / statistics.median(kafka) if kafka and statistics.median(kafka) else None
        goal, verdict = "", ""
        if absolute is not None:
            goal, verdict = f"≤ {absolute:g} {unit}", "yes" if statistics.median(klamm) <= absolute else "NO"
        elif at_most is not None and ratio is not None:
            goal, verdict = f"≤ {at_most:g} ×", "yes" if ratio <= at_most else "NO"
        elif at_least is not None and ratio is not None:
            goal, verdict = f"≥ {at_least:g} ×", "yes" if ratio >= at_least else "NO"
        return [f"{name}, {unit}", self.figure(klamm), self.figure(kafka), "–" if ratio is None else f"{ratio:.2f}", goal, verdict]

    def show(self, row):
        say("| " + " | ".join(self.cells(row)) + " |")

    def table(self):
        say("\n| | klamm | Apache Kafka 3.9.1 | ratio | goal | reached |")
        say("|---|---|---|---|---|---|")
        for row in self.rows:
            self.show(row)
        return all(self.cells(row)[-1] != "NO" for row in self.rows)


# librdkafka rests for a second by default when its own queue is full; the faster a broker fills that, the longer the
# round would take.
NO_PAUSE = ("-X", "fetch.queue.backoff.ms=10")


class Load:
    """librdkafka's own load generator."""

    def __init__(self):
        self.binary = str(librdkafka_path() / "rdkafka_performance")

    def run(self, *args):
        done = subprocess.run([self.binary, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"rdkafka_performance {args}: {done.stdout[-2000:]}")
        return done.stdout

    def produce(self, broker, topic, size, count, *more):
        """Messages per second."""
        out = self.run("-P", "-t", topic, "-b", f"127.0.0.1:{broker.port}", "-s", size, "-c", count, "-a", -1,
                       "-X", "linger.ms=5", "-X", "queue.buffering.max.messages=500000", *more, "-q")
        return rate(out)

    def consume(self, broker, topic, count, group):
        out = self.run("-G", group, "-t", topic, "-b", f"127.0.0.1:{broker.port}", "-o", "beginning", "-c", count,
                       "-X", "auto.offset.reset=earliest", *NO_PAUSE, "-q")
        return rate(out)

    def latency(self, broker, topic, seconds, per_second=1000, producers=1):
        """Sorted acknowledgement latencies in ms at so many messages a second of each of so many producers."""
        paths = [broker.folder / f"latency-{n}.txt" for n in range(producers)]
        with ThreadPoolExecutor(producers) as threads:
            list(threads.map(lambda path: self.run(
                "-P", "-l", "-t", topic, "-b", f"127.0.0.1:{broker.port}", "-s", 100, "-r", per_second, "-c",
                per_second * seconds, "-a", -1, "-X", "linger.ms=0", "-A", path, "-q"), paths))
        lines = [line for path in paths for line in path.read_text().split()]
        return sorted(float(line) / 1000 for line in lines if re.fullmatch(r"[\d.]+", line))


def rate(out):
    """Messages per second from the generator's last summary."""
    found = re.findall(r"(\d+) msgs/s", out)
    return float(found[-1]) if found else float("nan")


def quantile(values, q):
    return values[min(len(values) - 1, int(len(values) * q))]


def topic(broker, name, partitions=PARTITIONS, configs=None):
    with Client(broker.port) as client:
        error = client.create_topic(name, partitions, configs=configs)
        if error not in (0, 36):
            raise RuntimeError(f"{broker.name}: creating {name}: error {error}")


def rounds_of_produce(brokers, load, rows, quick):
    warm_bytes, round_bytes, rounds = (GIB // 4, GIB // 4, 2) if quick else (GIB, GIB // 2, 3)
    for size in SIZES:
        cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
        for broker in brokers:
            topic(broker, f"warm{size}", configs={"retention.bytes": str(64 << 20), "segment.bytes": str(16 << 20)})
            load.produce(broker, f"warm{size}", size, warm_bytes // size)
            broker.cpu_until_idle()
        for n in range(rounds):
            for broker in brokers:
                name = f"p{size}-{n}"
                topic(broker, name)
                settle()
                before = broker.cpu_seconds()
                speed[broker.name].append(load.produce(broker, name, size, round_bytes // size))
                cpu[broker.name].append((broker.cpu_until_idle() - before) * GIB / round_bytes)
        rows.add(f"produce {size} B, acks=all, 6 partitions: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=0.5)
        rows.add(f"produce {size} B: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)
    time.sleep(10)
    by = {b.name: b.memory_mib() for b in brokers}
    rows.add("RSS 10 s after the produce rounds", "MiB", [by["klamm"][0]], [by["kafka"][0]], absolute=400)
    rows.add("RSS at its peak", "MiB", [by["klamm"][1]], [by["kafka"][1]], absolute=600)


def rounds_of_consume(brokers, load, rows, quick):
    rounds = 2 if quick else 3
    # What the tail holds: one round is read right after it was written.
    tail_bytes = 48 << 20
    for size in SIZES:
        warm = tail_bytes // size
        cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
        for n in range(rounds + 1):
            for broker in brokers:
                name = f"t{size}-{n}"
                topic(broker, name)
                load.produce(broker, name, size, warm)
                broker.cpu_until_idle()
                settle()
                before, rates, reads = broker.cpu_seconds(), [], 8
                for read in range(reads):
                    rates.append(load.consume(broker, name, warm, f"g{size}-{n}-{read}"))
                used = (broker.cpu_until_idle() - before) * GIB / (warm * size * reads)
                if n > 0:  # the first round warms the JVM
                    cpu[broker.name].append(used)
                    speed[broker.name].append(statistics.median(rates))
        rows.add(f"consume {size} B from the tail: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=1.0)
        rows.add(f"consume {size} B from the tail: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)
    cold_bytes = GIB // 4 if quick else GIB
    for size in SIZES:
        cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
        name, count = f"cold{size}", cold_bytes // size
        for broker in brokers:
            topic(broker, name)
            load.produce(broker, name, size, count)
        for n in range(rounds):
            for broker in brokers:
                broker.stop()
                drop_page_cache()
                broker.start()
                broker.cpu_until_idle()
                before = broker.cpu_seconds()
                speed[broker.name].append(load.consume(broker, name, count, f"cold{size}-{n}"))
                cpu[broker.name].append((broker.cpu_until_idle() - before) * GIB / cold_bytes)
        rows.add(f"consume {size} B after a restart, page cache dropped: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=1.3)
        rows.add(f"consume {size} B after a restart, page cache dropped: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)


def settle():
    """Lets the kernel write out what the rounds before left to it, lest that be charged to the next one."""
    subprocess.run(["sync"], check=True)


def drop_page_cache():
    settle()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        say("  (the page cache cannot be dropped here: not root)")


def rounds_of_latency(brokers, load, rows, quick):
    seconds, rounds = (15, 2) if quick else (60, 3)
    p50, p99 = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
    for broker in brokers:
        topic(broker, "latency", 1)
        load.latency(broker, "latency", 10)
    for _ in range(rounds):
        for broker in brokers:
            settle()
            values = load.latency(broker, "latency", seconds)
            p50[broker.name].append(quantile(values, 0.5))
            p99[broker.name].append(quantile(values, 0.99))
    rows.add("ack latency, 1,000 msg/s of 100 B, acks=all: p50", "ms", p50["klamm"], p50["kafka"], at_most=1.0)
    rows.add("ack latency, 1,000 msg/s of 100 B, acks=all: p99", "ms", p99["klamm"], p99["kafka"], at_most=0.5)


def rounds_of_many(brokers, load, rows, quick):
    """Small batches: each message to another of a hundred partitions; and many clients with little to send."""
    bytes_, rounds, seconds = (GIB // 8, 2, 5) if quick else (GIB // 2, 3, 15)
    everywhere = ("-X", "sticky.partitioning.linger.ms=0")
    cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
    used, p50, p99 = ({b.name: [] for b in brokers} for _ in range(3))
    for broker in brokers:
        topic(broker, "hundred", 100)
        load.produce(broker, "hundred", 1024, 2 * bytes_ // 1024, *everywhere)
        load.latency(broker, "hundred", seconds, 400, 16)
        broker.cpu_until_idle()
    for _ in range(rounds):
        for broker in brokers:
            settle()
            before = broker.cpu_seconds()
            speed[broker.name].append(load.produce(broker, "hundred", 1024, bytes_ // 1024, *everywhere))
            cpu[broker.name].append((broker.cpu_until_idle() - before) * GIB / bytes_)
            before = broker.cpu_seconds()
            values = load.latency(broker, "hundred", seconds, 400, 16)
            used[broker.name].append((broker.cpu_until_idle() - before) * 1e6 / len(values))
            p50[broker.name].append(quantile(values, 0.5))
            p99[broker.name].append(quantile(values, 0.99))
    rows.add("produce 1 KiB to 100 partitions in turn: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"])
    rows.add("produce 1 KiB to 100 partitions in turn: throughput", "msg/s", speed["klamm"], speed["kafka"])
    rows.add("16 producers, 400 msg/s of 100 B each, linger 0: broker CPU", "µs/msg", used["klamm"], used["kafka"])
    rows.add("16 producers: ack latency p50", "ms", p50["klamm"], p50["kafka"])
    rows.add("16 producers: ack latency p99", "ms", p99["klamm"], p99["kafka"])


def start_and_idle(make, rows, quick):
    times, idle = {}, {}
    for kind in make:
        times[kind.name], idle[kind.name] = [], []
        for _ in range(2 if quick else 5):
            broker = kind()
            try:
                times[kind.name].append(broker.start() * 1000)
                time.sleep(2)
                idle[kind.name].append(broker.memory_mib()[0])
            finally:
                broker.remove()
    rows.add("start to Metadata answered, empty directory", "ms", times["klamm"], times["kafka"], absolute=40)
    rows.add("idle RSS", "MiB", idle["klamm"], idle["kafka"], absolute=20)


def seconds_to_ends(broker, name, partitions):
    """From the start of the process until the first and the last record of every partition came."""
    begin = time.monotonic()
    broker.start()
    with Client(broker.port) as client:
        every = list(range(partitions))
        start = offsets_when_led(client, name, every, -2)
        end = offsets_when_led(client, name, every, -1)
        for at in (start, {p: o - 1 for p, o in end.items()}):
            left = dict(at)
            while left:
                answer = client.fetch(name, left, max_bytes=4096)
                for p, (error, _, records) in answer.items():
                    if error == 0 and records:
                        left.pop(p)
    return time.monotonic() - begin


def offsets_when_led(client, name, partitions, timestamp):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = client.list_offsets(name, partitions, timestamp)
        if all(error == 0 for error, _ in answer.values()):
            return {p: offset for p, (_, offset) in answer.items()}
        time.sleep(0.005)
    raise TimeoutError(f"{name}: not every partition is led")


def restart_after_kill(make, load, rows, quick):
    figures = {}
    for kind in make:
        figures[kind.name] = []
        broker = kind({"num.partitions": str(PARTITIONS)})
        try:
            broker.start()
            topic(broker, "kill")
            load.produce(broker, "kill", 1024, (GIB // 4 if quick else GIB) // 1024)
            for _ in range(1 if quick else 3):
                writer = subprocess.Popen(
                    [load.binary, "-P", "-t", "kill", "-b", f"127.0.0.1:{broker.port}", "-s", "1024", "-a", "-1", "-q"],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(2)
                broker.kill()
                writer.kill()
                writer.wait()
                broker.wait_for_session()
                figures[kind.name].append(seconds_to_ends(broker, "kill", PARTITIONS))
        finally:
            broker.remove()
    rows.add("restart after SIGKILL under load, 1 GiB: first and last record of every partition", "s",
             figures["klamm"], figures["kafka"], absolute=1)


def thousand_partitions(make, rows, quick):
    created, after_term, after_kill = {}, {}, {}
    for kind in make:
        broker = kind()
        try:
            broker.start()
            with Client(broker.port, timeout=120) as client:
                begin = time.monotonic()
                error = client.create_topic("thousand", 1000)
                created[kind.name] = [time.monotonic() - begin]
                if error:
                    raise RuntimeError(f"{kind.name}: error {error}")
                one = batch([b"x" * 100], int(time.time() * 1000))
                for first in range(0, 1000, 100):
                    answer = client.produce("thousand", {p: one for p in range(first, first + 100)})
                    if any(error for error, _ in answer.values()):
                        raise RuntimeError(f"{kind.name}: {answer}")
            broker.stop()
            after_term[kind.name] = [seconds_to_ends(broker, "thousand", 1000)]
            with Client(broker.port) as client:
                for first in range(0, 1000, 100):
                    client.produce("thousand", {p: one for p in range(first, first + 100)})
            broker.kill()
            broker.wait_for_session()
            after_kill[kind.name] = [seconds_to_ends(broker, "thousand", 1000)]
        finally:
            broker.remove()
    rows.add("1,000 partitions: created by one request", "s", created["klamm"], created["kafka"], absolute=2)
    rows.add("1,000 partitions: restart after SIGTERM", "s", after_term["klamm"], after_term["kafka"], absolute=2)
    rows.add("1,000 partitions: restart after SIGKILL", "s", after_kill["klamm"], after_kill["kafka"], absolute=4)


def restart_after_commits(make, rows, quick):
    figures, count = {}, 1_000_000 if quick else 10_000_000
    for kind in make:
        broker = kind()
        try:
            figures[kind.name] = commits.measure(broker, count)
        finally:
            broker.remove()
        say(f"  {kind.name}: " + ", ".join(f"{name} {value:,.6g}" for name, value in figures[kind.name].items()))

    def of(name):
        return [[figures[kind.name][name]] if kind.name in figures else [] for kind in (Klamm, Kafka)]

    rows.add(f"commits: {count:,} over 100 keys", "1/s", *of("commits/s"), at_least=0.95)
    rows.add("commits: broker CPU", "s", *of("CPU s"))
    rows.add("commits: data on disk at the SIGKILL", "MiB", *of("MiB on disk"))
    rows.add("commits, SIGKILL: process start to the group's answer", "s", *of("answered after s"))
    rows.add("commits, SIGKILL: ready to the group's answer", "s", *of("answered after ready s"), absolute=1)


def java_tools(brokers, rows, quick):
    """Java's own load tools, a new JVM each time, so their figures are those of a cold client."""
    jars = str(kafka_path("3.9.1") / "libs/*")
    count = 200_000 if quick else 1_000_000

    def java(main, *args):
        done = subprocess.run(["java", "-Xmx512M", "-cp", jars, main, *map(str, args)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        return done.stdout

    speed, cpu, p99, fetch, e2e = ({b.name: [] for b in brokers} for _ in range(5))
    for n in range(2 if quick else 4):
        for broker in brokers:
            at, name = f"127.0.0.1:{broker.port}", f"java{n}"
            topic(broker, name)
            settle()
            before = broker.cpu_seconds()
            out = java("org.apache.kafka.tools.ProducerPerformance", "--topic", name, "--num-records", count,
                       "--record-size", 1024, "--throughput", -1, "--producer-props", f"bootstrap.servers={at}",
                       "acks=all", "linger.ms=5", "batch.size=65536")
            used = broker.cpu_until_idle() - before
            # Not to the end: where the producer left partitions of uneven size, the client waits half a second for the
            # short ones (fetch.max.wait.ms) before it asks for more of the long ones.
            consumed = java("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", at, "--topic", name,
                            "--messages", count * 9 // 10, "--timeout", 60000)
            last = java("org.apache.kafka.tools.EndToEndLatency", at, "e2e", 2000, "all", 100)
            if n == 0:
                continue
            speed[broker.name].append(float(re.findall(r"([\d.]+) records/sec", out)[-1]))
            p99[broker.name].append(float(re.findall(r"(\d+) ms 99th", out)[-1]))
            cpu[broker.name].append(used * GIB / (count * 1024))
            fetch[broker.name].append(float(consumed.strip().splitlines()[-1].split(",")[-1]))
            e2e[broker.name].append(float(re.findall(r"99th = (\d+)", last)[-1]))
    rows.add("ProducerPerformance 1 KiB, acks=all: throughput", "records/s", speed["klamm"], speed["kafka"], at_least=0.95)
    rows.add("ProducerPerformance: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=0.5)
    rows.add("ProducerPerformance: p99", "ms", p99["klamm"], p99["kafka"], at_most=1.0)
    rows.add("ConsumerPerformance: fetch rate", "records/s", fetch["klamm"], fetch["kafka"], at_least=0.95)
    rows.add("EndToEndLatency: p99", "ms", e2e["klamm"], e2e["kafka"], at_most=1.0)


def main():
    every = ["start", "partitions", "restart", "commits", "produce", "latency", "many", "consume", "java"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of: {' '.join(every)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["klamm", "kafka"], help="commits: one of the two brokers")
    parser.add_argument("--json", help="writes the figures there as well")
    args = parser.parse_args()
    parts = args.parts or every
    load, rows, make = Load(), Rows(), (Klamm, Kafka)
    if "start" in parts:
        start_and_idle(make, rows, args.quick)
    if "partitions" in parts:
        thousand_partitions(make, rows, args.quick)
    if "restart" in parts:
        restart_after_kill(make, load, rows, args.quick)
    if "commits" in parts:
        restart_after_commits([kind for kind in make if args.only in (None, kind.name)], rows, args.quick)
    if {"produce", "latency", "many", "consume", "java"} & set(parts):
        brokers = [kind({"group.initial.rebalance.delay.ms": "0"}) for kind in make]
        try:
            for broker in brokers:
                broker.start()
            if "produce" in parts:
                rounds_of_produce(brokers, load, rows, args.quick)
            if "latency" in parts:
                rounds_of_latency(brokers, load, rows, args.quick)
            if "many" in parts:
                rounds_of_many(brokers, load, rows, args.quick)
            if "consume" in parts:
                rounds_of_consume(brokers, load, rows, args.quick)
            if "java" in parts:
                java_tools(brokers, rows, args.quick)
        finally:
            for broker in brokers:
                broker.remove()
    reached = rows.table()
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows.rows, indent=1))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
