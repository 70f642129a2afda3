"""What a broker pays for a log that is read from its beginning, by size of batch: CPU, speed, and bytes from the disk.

The reader is a socket that asks for what a stock consumer asks for and throws it away, so that the figures are the
broker's. Binaries take turns, each over a log of its own with the same batches; a round reads everything once.

    compat-tests/run perf.replay --binaries OLD NEW [--gib 1] [--kib 16 64 900] [--rounds 3] [--partitions 6]
    compat-tests/run perf.replay --stuck 1000           readers that ask for 50 MiB each and read nothing: RSS, others' p99
    compat-tests/run perf.replay --kafka …              Apache Kafka 3.9.1 takes part
    compat-tests/run perf.replay --restart …            each starts again before it is read from
"""

import argparse
import pathlib
import statistics
import struct
import time

from kit.broker import Kafka, Klamm
from kit.wire import Client, batch, string

GIB, MIB = 1 << 30, 1 << 20
TOPIC = "replay"


def fetch_body(offsets, partition_bytes, max_bytes=50 * MIB):
    body = struct.pack(">iiiib", -1, 500, 1, max_bytes, 0) + struct.pack(">i", 1) + string(TOPIC)
    body += struct.pack(">i", len(offsets))
    return body + b"".join(struct.pack(">iqi", p, offset, partition_bytes) for p, offset in offsets.items())


class Reader(Client):
    """Fetches into one buffer that is used again and again."""

    def __init__(self, port):
        super().__init__(port)
        self.buffer = bytearray(64 * MIB)

    def fetch(self, offsets, partition_bytes=MIB):
        """Bytes of records; moves the offsets."""
        self.send(1, 4, fetch_body(offsets, partition_bytes))
        self.received += 1
        length = struct.unpack(">i", self._exactly(4))[0]
        view, got = memoryview(self.buffer)[:length], 0
        while got < length:
            n = self.socket.recv_into(view[got:])
            if n == 0:
                raise ConnectionError("closed by the broker")
            got += n
        at = 4 + 4 + 4 + 2 + len(TOPIC)
        (count,) = struct.unpack_from(">i", self.buffer, at)
        at, total = at + 4, 0
        for _ in range(count):
            partition, error, _, _, aborted, size = struct.unpack_from(">ihqqii", self.buffer, at)
            assert error == 0 and aborted <= 0, (partition, error, aborted)
            at += 30
            end, total = at + size, total + size
            while at + 61 <= end:
                base, rest = struct.unpack_from(">qi", self.buffer, at)
                if at + 12 + rest > end:
                    break
                assert base == offsets[partition], f"partition {partition}: {base} instead of {offsets[partition]}"
                offsets[partition] = base + struct.unpack_from(">i", self.buffer, at + 23)[0] + 1
                at += 12 + rest
            at = end
        return total


def fill(broker, kib, partitions, bytes_):
    """Messages of 1 KiB in batches of about so many KiB, to all partitions in turn."""
    per_batch = max(1, kib * 1024 // 1100)
    one = batch([b"x" * 1024] * per_batch, int(time.time() * 1000))
    with Client(broker.port, timeout=120) as client:
        client.create_topic(TOPIC, partitions)
        time.sleep(0.5)
        for _ in range(int(bytes_ / len(one) / partitions) + 1):
            answer = client.produce(TOPIC, {p: one for p in range(partitions)})
            assert not any(error for error, _ in answer.values()), answer
    return per_batch


def ends(broker, partitions):
    with Client(broker.port) as client:
        return {p: end for p, (_, end) in client.list_offsets(TOPIC, range(partitions), -1).items()}


def replay(broker, partitions, upto):
    """CPU seconds for each GiB, MiB/s, and MiB read from the disk."""
    cpu, disk, began, total = broker.cpu_seconds(), broker.read_bytes(), time.monotonic(), 0
    offsets = dict.fromkeys(range(partitions), 0)
    with Reader(broker.port) as reader:
        while any(offsets[p] < upto[p] for p in offsets):
            total += reader.fetch(offsets)
    seconds = time.monotonic() - began
    cpu = broker.cpu_until_idle() - cpu
    return cpu * GIB / total, total / MIB / seconds, (broker.read_bytes() - disk) / MIB


def compare(args):
    makers = [(pathlib.Path(path).name, lambda path=path: klamm(path)) for path in args.binaries]
    if args.kafka:
        makers.append(("kafka", Kafka))
    for kib in args.kib:
        brokers = []
        try:
            for name, make in makers:
                broker = make()
                broker.start()
                brokers.append((name, broker))
                fill(broker, kib, args.partitions, args.gib * GIB)
                broker.cpu_until_idle()
                if args.restart:
                    broker.stop()
                    broker.start()
                    broker.cpu_until_idle()
            upto = {name: ends(broker, args.partitions) for name, broker in brokers}
            figures = {name: [] for name, _ in brokers}
            for _ in range(args.rounds):
                for name, broker in brokers:
                    figures[name].append(replay(broker, args.partitions, upto[name]))
            for name, _ in brokers:
                cpu, speed, disk = zip(*figures[name])
                print(f"{kib:4} KiB  {name:12}  CPU {statistics.median(cpu):.3f} s/GiB ({min(cpu):.3f}–{max(cpu):.3f})  "
                      f"{statistics.median(speed):6.0f} MiB/s  from the disk, round by round: "
                      + ", ".join(f"{mib:.0f}" for mib in disk) + " MiB", flush=True)
        finally:
            for _, broker in brokers:
                broker.remove()


def klamm(path):
    broker = Klamm()
    broker.binary = path
    return broker


def stuck(args):
    """RSS while so many readers have asked for 50 MiB and read nothing, and what another client notices.

    They begin behind the first 2 MiB of a partition, which went through RocksDB and are held in memory, as far as
    klamm.reply.bytes allows.
    """
    for path in args.binaries:
        broker = klamm(path)
        try:
            broker.start()
            fill(broker, args.kib[0], args.partitions, 64 * MIB * args.partitions)
            broker.cpu_until_idle()
            before, readers = broker.memory_mib()[0], []
            for _ in range(args.stuck):
                reader = Client(broker.port)
                reader.send(1, 4, fetch_body(dict.fromkeys(range(args.partitions), 2048), 50 * MIB))
                readers.append(reader)
            waits = []
            with Client(broker.port) as other:
                other.create_topic("other", 1)
                one = batch([b"y" * 100], int(time.time() * 1000))
                for _ in range(1000):
                    began = time.monotonic()
                    other.produce("other", {0: one})
                    waits.append((time.monotonic() - began) * 1000)
                    time.sleep(0.005)
            waits.sort()
            print(f"{pathlib.Path(path).name}: {args.stuck} readers that read nothing: RSS {before:.0f} → "
                  f"{broker.memory_mib()[0]:.0f} MiB; another's ack p50 {waits[500]:.2f} ms, p99 {waits[990]:.2f} ms", flush=True)
            # Whoever does read gets what was promised, after all that time.
            upto = ends(broker, args.partitions)
            with Reader(broker.port) as reader:
                offsets = dict.fromkeys(range(args.partitions), 0)
                while any(offsets[p] < upto[p] for p in offsets):
                    reader.fetch(offsets)
            for reader in readers:
                reader.close()
        finally:
            broker.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", nargs="+", required=True)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--kib", type=int, nargs="+", default=[16, 64, 900])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--stuck", type=int)
    parser.add_argument("--restart", action="store_true")
    args = parser.parse_args()
    if args.stuck:
        stuck(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
