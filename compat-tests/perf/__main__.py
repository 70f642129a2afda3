"""klamm beside Apache Kafka 3.9.1 on this machine, driven in turn by the same stock clients; one table of ratios.

Before a row is measured both brokers are driven until two rounds cost the same within a tenth, or 10 GiB have passed
(`warm.py`): Kafka's JIT goes on for that long. Then three rounds are measured; figures are medians with their range.
Table that begin with the start of a process (start, partitions, restart, commits) have nothing to warm.
A broker's CPU is counted from the first byte until it has drained and idles, so the flushes that a produce causes are
its own. Messages per second tell as much about the client as about the broker, because both share the cores.

    make bench                          everything (an hour or two, most of it warm-up)
    make bench BENCH="produce consume"  some of: start partitions restart commits produce latency many consume readers java
    make bench BENCH=cluster            three brokers of each (`cluster.py`), not part of everything
    compat-tests/run perf --quick …                  less warm-up and shorter rounds, for working on the code
    compat-tests/run perf --round-mib 4 --warm-gib 0.1 …  so little that only the logic is shown

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

from kit.broker import Kafka, Klamm, kafka_path, librdkafka_path
from kit.wire import Client, batch
from perf import commits, readers, warm

GIB = 1 << 30
SIZES = (1024, 100)
PARTITIONS = 6


def say(text):
    print(text, flush=True)


class Table:
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
        ratio = statistics.median(klamm) / statistics.median(kafka) if klamm and kafka and statistics.median(kafka) else None
        goal, verdict = "", ""
        if absolute is not None and klamm:
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
        is_done = done.returncode == 0
        if "-P" in args:
            # It takes an event that nobody has fetched for a message that was not sent, so 1 may be 0, and 0 be 1.
            count = args[args.index("-c") + 1]
            is_sent = re.search(rf"\b{count} delivered \(offset -?\d+, 0 failed\)", done.stdout)
            is_done = done.returncode in (0, 1) and is_sent
        if not is_done:
            raise RuntimeError(f"rdkafka_performance {args} ended with {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def produce(self, broker, topic, size, count, *more):
        """Messages per second."""
        out = self.run("-P", "-t", topic, "-b", broker.bootstrap, "-s", size, "-c", count, "-a", -1,
                       "-X", "linger.ms=5", "-X", "queue.buffering.max.messages=500000", *more, "-q")
        return rate(out)

    def consume(self, broker, topic, count, group):
        out = self.run("-G", group, "-t", topic, "-b", f"127.0.0.1:{broker.port}", "-o", "beginning", "-c", count,
                       "-X", "auto.offset.reset=earliest", *NO_PAUSE, "-q")
        return rate(out)

    def latency(self, broker, topic, seconds, per_second=1000, producers=1):
        """Sorted acknowledgement latencies in ms at so many messages a second of each of so many producers.

        Without the first second: librdkafka 2.15 may meet its own end of the bootstrap connection, and look for a leader
        half a second later.
        """
        paths = [broker.folder / f"latency-{n}.txt" for n in range(producers)]
        with ThreadPoolExecutor(producers) as threads:
            list(threads.map(lambda path: self.run(
                "-P", "-l", "-t", topic, "-b", broker.bootstrap, "-s", 100, "-r", per_second, "-c",
                per_second * seconds, "-a", -1, "-X", "linger.ms=0", "-A", path, "-q"), paths))
        number = re.compile(r"[\d.]+")
        values = [[float(word) / 1000 for word in path.read_text().split() if number.fullmatch(word)] for path in paths]
        return sorted(value for each in values for value in each[per_second:])


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


class Size:
    """How long a run is: bytes of a round, rounds that are measured, and the bound of a warm-up."""

    def __init__(self, args):
        self.quick = args.quick
        self.round_bytes = int((args.round_mib or (256 if args.quick else 512)) * (1 << 20))
        self.rounds = 2 if args.quick else 3
        self.warm_bytes = int((args.warm_gib or (1 if args.quick else 10)) * GIB)

    def warm(self, what, brokers, one_round, rounds_max=None):
        """Until both are warm; says what it took."""
        warmed = warm.until_steady(brokers, one_round, self.warm_bytes, rounds_max=rounds_max)
        say(f"  warm for {what}: {warmed.line()}")


# What is read or written for warmth alone goes soon, so that ten gigabytes of it need not fit the disk.
PASSING = {"retention.bytes": str(64 << 20), "segment.bytes": str(16 << 20)}


def rounds_of_produce(brokers, load, rows, size_of):
    def produce(broker, name, size, bytes_):
        """Messages per second, and CPU seconds for each GiB."""
        before = broker.cpu_seconds()
        speed = load.produce(broker, name, size, bytes_ // size)
        return speed, (broker.cpu_until_idle() - before) * GIB / bytes_

    for size in SIZES:
        cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
        for broker in brokers:
            topic(broker, f"warm{size}", configs=PASSING)
        bytes_ = size_of.round_bytes
        size_of.warm(f"produce {size} B", brokers, lambda b, n: (produce(b, f"warm{size}", size, bytes_)[1], bytes_))
        for n in range(size_of.rounds):
            for broker in brokers:
                name = f"p{size}-{n}"
                topic(broker, name)
                settle()
                rate_, used = produce(broker, name, size, bytes_)
                speed[broker.name].append(rate_)
                cpu[broker.name].append(used)
        rows.add(f"produce {size} B, acks=all, 6 partitions: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=0.5)
        rows.add(f"produce {size} B: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)
    time.sleep(10)
    by = {b.name: b.memory_mib() for b in brokers}
    rows.add("RSS 10 s after the produce rounds", "MiB", [by["klamm"][0]], [by["kafka"][0]], absolute=400)
    rows.add("RSS at its peak", "MiB", [by["klamm"][1]], [by["kafka"][1]], absolute=600)


def rounds_of_consume(brokers, load, rows, size_of):
    from_the_tail(brokers, load, rows, size_of)
    behind_the_tail(brokers, load, rows, size_of)


# What the tail holds of one topic: it is read right after it was written.
TAIL_BYTES = 48 << 20
TAIL_READS = 8


def from_the_tail(brokers, load, rows, size_of):
    bytes_ = min(TAIL_BYTES, size_of.round_bytes)

    def one_round(broker, name, size):
        """Messages per second and CPU seconds for each GiB, over several reads of what was just produced."""
        topic(broker, name)
        load.produce(broker, name, size, bytes_ // size)
        broker.cpu_until_idle()
        settle()
        before, rates = broker.cpu_seconds(), []
        for read in range(TAIL_READS):
            rates.append(load.consume(broker, name, bytes_ // size, f"g-{name}-{read}"))
        used = (broker.cpu_until_idle() - before) * GIB / (bytes_ * TAIL_READS)
        return statistics.median(rates), used

    for size in SIZES:
        cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
        size_of.warm(f"consume {size} B from the tail", brokers,
                     lambda b, n: (one_round(b, f"tw{size}-{n}", size)[1], bytes_ * TAIL_READS))
        for n in range(size_of.rounds):
            for broker in brokers:
                rate_, used = one_round(broker, f"t{size}-{n}", size)
                speed[broker.name].append(rate_)
                cpu[broker.name].append(used)
        rows.add(f"consume {size} B from the tail: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=1.0)
        rows.add(f"consume {size} B from the tail: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)


def behind_the_tail(brokers, load, rows, size_of):
    """Both run on: a restart would make one of them cold again."""
    bytes_ = 2 * size_of.round_bytes

    def one_round(broker, name, size, group, cold):
        if cold:
            drop_page_cache()
        before = broker.cpu_seconds()
        speed = load.consume(broker, name, bytes_ // size, group)
        return speed, (broker.cpu_until_idle() - before) * GIB / bytes_

    for size in SIZES:
        name = f"behind{size}"
        for broker in brokers:
            topic(broker, name)
            load.produce(broker, name, size, bytes_ // size)
            # The tail is another's.
            topic(broker, f"other{size}", configs=PASSING)
            load.produce(broker, f"other{size}", size, 2 * TAIL_BYTES // size)
            broker.cpu_until_idle()
        for where, cold in (("in the page cache", False), ("page cache dropped", True)):
            what = f"consume {size} B behind the tail, {where}"
            cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
            size_of.warm(what, brokers, lambda b, n: (one_round(b, name, size, f"w{size}-{cold}-{n}", cold)[1], bytes_))
            for n in range(size_of.rounds):
                for broker in brokers:
                    rate_, used = one_round(broker, name, size, f"b{size}-{cold}-{n}", cold)
                    speed[broker.name].append(rate_)
                    cpu[broker.name].append(used)
            rows.add(f"{what}: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=1.3)
            rows.add(f"{what}: throughput", "msg/s", speed["klamm"], speed["kafka"], at_least=0.95)


def settle():
    """Lets the kernel write out what the rounds before left to it, lest that be charged to the next one."""
    subprocess.run(["sync"], check=True)


def drop_page_cache():
    settle()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        say("  (the page cache cannot be dropped here: not root)")


# Of what is counted in messages and not in bytes.
LATENCY_WARM_ROUNDS_MAX = 12


def rounds_of_latency(brokers, load, rows, size_of):
    seconds = 15 if size_of.quick else 60
    p50, p99 = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
    for broker in brokers:
        topic(broker, "latency", 1)

    def one_round(broker, _):
        values = load.latency(broker, "latency", 10)
        return quantile(values, 0.5), 100 * 10 * 1000

    size_of.warm("ack latency", brokers, one_round, rounds_max=LATENCY_WARM_ROUNDS_MAX)
    for _ in range(size_of.rounds):
        for broker in brokers:
            settle()
            values = load.latency(broker, "latency", seconds)
            p50[broker.name].append(quantile(values, 0.5))
            p99[broker.name].append(quantile(values, 0.99))
    rows.add("ack latency, 1,000 msg/s of 100 B, acks=all: p50", "ms", p50["klamm"], p50["kafka"], at_most=1.0)
    rows.add("ack latency, 1,000 msg/s of 100 B, acks=all: p99", "ms", p99["klamm"], p99["kafka"], at_most=0.5)


def rounds_of_many(brokers, load, rows, size_of):
    """Small batches: each message to another of a hundred partitions; and many clients with little to send."""
    bytes_, seconds = size_of.round_bytes, 5 if size_of.quick else 15
    everywhere = ("-X", "sticky.partitioning.linger.ms=0")
    cpu, speed = {b.name: [] for b in brokers}, {b.name: [] for b in brokers}
    used, p50, p99 = ({b.name: [] for b in brokers} for _ in range(3))

    def produce(broker):
        before = broker.cpu_seconds()
        rate_ = load.produce(broker, "hundred", 1024, bytes_ // 1024, *everywhere)
        return rate_, (broker.cpu_until_idle() - before) * GIB / bytes_

    sent = 16 * 400 * seconds

    def trickle(broker):
        before = broker.cpu_seconds()
        values = load.latency(broker, "hundred", seconds, 400, 16)
        return values, (broker.cpu_until_idle() - before) * 1e6 / sent

    def one_trickle(broker, _):
        values, cost = trickle(broker)
        return cost, 100 * sent

    for broker in brokers:
        topic(broker, "hundred", 100, configs=PASSING)
    size_of.warm("produce to 100 partitions", brokers, lambda b, _: (produce(b)[1], bytes_))
    size_of.warm("16 producers", brokers, one_trickle, rounds_max=LATENCY_WARM_ROUNDS_MAX)
    for _ in range(size_of.rounds):
        for broker in brokers:
            settle()
            rate_, cost = produce(broker)
            speed[broker.name].append(rate_)
            cpu[broker.name].append(cost)
            values, cost = trickle(broker)
            used[broker.name].append(cost)
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


def java_tools(brokers, rows, size_of):
    """Java's own load tools, a new JVM each time, so their figures are those of a cold client and a warm broker."""
    jars = str(kafka_path("3.9.1") / "libs/*")
    count = max(size_of.round_bytes * 2 // 1024, 2000)

    def java(main, *args):
        done = subprocess.run(["java", "-Xmx512M", "-cp", jars, main, *map(str, args)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        return done.stdout

    def one_round(broker, name):
        """Records per second, broker's CPU seconds for each GiB and p99 in ms of the producer; the consumer's rate."""
        at = f"127.0.0.1:{broker.port}"
        topic(broker, name, configs=PASSING if name.startswith("javaw") else None)
        settle()
        before = broker.cpu_seconds()
        out = java("org.apache.kafka.tools.ProducerPerformance", "--topic", name, "--num-records", count,
                   "--record-size", 1024, "--throughput", -1, "--producer-props", f"bootstrap.servers={at}",
                   "acks=all", "linger.ms=5", "batch.size=65536")
        used = (broker.cpu_until_idle() - before) * GIB / (count * 1024)
        # Not to the end: where the producer left partitions of uneven size, the client waits half a second for the
        # short ones (fetch.max.wait.ms) before it asks for more of the long ones.
        consumed = "" if name.startswith("javaw") else java(
            "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", at, "--topic", name,
            "--messages", count * 9 // 10, "--timeout", 60000)
        return out, used, consumed

    speed, cpu, p99, fetch, e2e = ({b.name: [] for b in brokers} for _ in range(5))
    size_of.warm("ProducerPerformance", brokers, lambda b, n: (one_round(b, f"javaw{n}")[1], count * 1024))
    for n in range(size_of.rounds):
        for broker in brokers:
            out, used, consumed = one_round(broker, f"java{n}")
            last = java("org.apache.kafka.tools.EndToEndLatency", f"127.0.0.1:{broker.port}", "e2e", 2000, "all", 100)
            speed[broker.name].append(float(re.findall(r"([\d.]+) records/sec", out)[-1]))
            p99[broker.name].append(float(re.findall(r"(\d+) ms 99th", out)[-1]))
            cpu[broker.name].append(used)
            fetch[broker.name].append(float(consumed.strip().splitlines()[-1].split(",")[-1]))
            e2e[broker.name].append(float(re.findall(r"99th = (\d+)", last)[-1]))
    rows.add("ProducerPerformance 1 KiB, acks=all: throughput", "records/s", speed["klamm"], speed["kafka"], at_least=0.95)
    rows.add("ProducerPerformance: broker CPU", "s/GiB", cpu["klamm"], cpu["kafka"], at_most=0.5)
    rows.add("ProducerPerformance: p99", "ms", p99["klamm"], p99["kafka"], at_most=1.0)
    rows.add("ConsumerPerformance: fetch rate", "records/s", fetch["klamm"], fetch["kafka"], at_least=0.95)
    rows.add("EndToEndLatency: p99", "ms", e2e["klamm"], e2e["kafka"], at_most=1.0)


def main():
    every = ["start", "partitions", "restart", "commits", "produce", "latency", "many", "consume", "readers", "java"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of: {' '.join(every)} cluster")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--round-mib", type=float, help="bytes of one round (512)")
    parser.add_argument("--warm-gib", type=float, help="bound of a row's warm-up for each broker (10)")
    parser.add_argument("--only", choices=["klamm", "kafka"], help="commits, cluster: one of the two")
    parser.add_argument("--rows", nargs="*", help="cluster: some of produce latency gaps empty many 10000")
    parser.add_argument("--klamm", action="append", default=[], metavar="KEY=VALUE", help="a setting of klamm's that is not its default")
    parser.add_argument("--json", help="writes the figures there as well")
    args = parser.parse_args()
    parts = args.parts or every
    load, rows, make, size_of = Load(), Table(), (Klamm, Kafka), Size(args)
    if "start" in parts:
        start_and_idle(make, rows, args.quick)
    if "partitions" in parts:
        thousand_partitions(make, rows, args.quick)
    if "restart" in parts:
        restart_after_kill(make, load, rows, args.quick)
    if "commits" in parts:
        restart_after_commits([kind for kind in make if args.only in (None, kind.name)], rows, args.quick)
    if "cluster" in parts:
        # It needs the package confluent-kafka, which the others do not.
        from perf import cluster

        cluster.measure(load, rows, size_of, args.only, args.rows)
    if {"produce", "latency", "many", "consume", "readers", "java"} & set(parts):
        ours = dict(setting.split("=", 1) for setting in args.klamm)
        brokers = [kind({"group.initial.rebalance.delay.ms": "0", **(ours if kind is Klamm else {})}) for kind in make]
        try:
            for broker in brokers:
                broker.start()
            if "produce" in parts:
                rounds_of_produce(brokers, load, rows, size_of)
            if "latency" in parts:
                rounds_of_latency(brokers, load, rows, size_of)
            if "many" in parts:
                rounds_of_many(brokers, load, rows, size_of)
            if "consume" in parts:
                rounds_of_consume(brokers, load, rows, size_of)
            if "readers" in parts:
                readers.rounds_of_fan_out(brokers, load, rows, size_of, topic)
                readers.rounds_beside_a_replay(brokers, load, rows, size_of, topic, quantile)
            if "java" in parts:
                java_tools(brokers, rows, size_of)
        finally:
            for broker in brokers:
                broker.remove()
    reached = rows.table()
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows.rows, indent=1))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
