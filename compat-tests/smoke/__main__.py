"""The road, walked by stock clients: part of `make test`.

kcat produces words with each codec and reads them back by partition and through a group; they are still there after
an orderly stop and after SIGKILL; a few quick numbers of librdkafka's own suite pass. One row per test, beginning
with PASS, FAIL or SKIP. Which broker: compat-tests/kit/broker.py.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from kit import words
from kit.broker import ROOT, Klamm, chosen
from kit.rows import Rows

WORDS = 20_000
# Quick, and together they produce, consume, commit, compress, ask for offsets, and leave aborted records out.
LIBRDKAFKA = "0001 0002 0003 0005 0008 0012 0013 0017 0022 0031 0035 0036 0040 0048 0054 0070 0073 0090 0099 0129 0130"


def kcat(bootstrap, *arguments, **how):
    command = ["kcat", "-b", bootstrap, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=90, check=False, **how)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


def same(expected, text, folder):
    back = folder / "back"
    back.write_bytes(text)
    got, wanted = words.digest(back), words.digest(expected)
    if got != wanted:
        raise RuntimeError(f"{got[0]} records with checksum {got[1]} came back instead of {wanted[0]} with {wanted[1]}")
    return f"{got[0]} records, checksum {got[1]}"


def on_a_port_of_its_choice(folder):
    """What README tells who wants a broker for one test."""
    binary = Klamm(folder=folder).command()[0]
    command = [binary, "--override", "listeners=PLAINTEXT://127.0.0.1:0", "--override", f"log.dirs={folder}/data"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(broker.stdout.readline, "")
        said = (re.search(r"Awaiting socket connections on ([0-9.:]*[0-9])", line) for line in lines)
        bootstrap = next(found.group(1) for found in said if found)
        kcat(bootstrap, "-P", "-t", "once", input=b"word\n")
        read = kcat(bootstrap, "-C", "-t", "once", "-o", "beginning", "-e", "-q")
    finally:
        broker.kill()
        broker.wait()
    if read != b"word\n":
        raise RuntimeError(f"{read} came back")
    return bootstrap


def by_partition(bootstrap, topic):
    return kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k\\t%s\\n")


def by_group(bootstrap, topic, group):
    return kcat(
        bootstrap, "-X", "auto.offset.reset=earliest", "-G", group, "-e", "-q", "-f", "%k\\t%s\\n", topic
    )  # fmt: skip


def road(rows, broker, folder, records):
    """Every codec, both ways back; a group that comes again finds nothing new."""
    for codec in words.CODECS:
        topic = f"words-{codec}"

        def produce(codec=codec, topic=topic):
            kcat(broker.bootstrap, "-P", "-t", topic, "-K", "\\t", "-z", codec, "-l", str(records), "-X", "acks=all")
            return same(records, by_partition(broker.bootstrap, topic), folder)

        rows.run(f"kcat produces and reads, {codec}", produce)
        rows.run(
            f"kcat reads through a group, {codec}",
            lambda topic=topic: same(records, by_group(broker.bootstrap, topic, f"g-{topic}"), folder),
        )

    def again():
        text = by_group(broker.bootstrap, "words-none", "g-words-none")
        if text:
            raise RuntimeError(f"{len(text.splitlines())} records came twice")

    rows.run("a group that comes again reads nothing twice", again)


def restarts(rows, folder, records):
    """Only with a klamm of our own: what was acknowledged is there after a stop and after SIGKILL."""
    broker = Klamm({"num.partitions": "3", "group.initial.rebalance.delay.ms": "0"}, folder)
    broker.start()
    kcat(broker.bootstrap, "-P", "-t", "kept", "-K", "\\t", "-l", str(records), "-X", "acks=all")
    by_group(broker.bootstrap, "kept", "keeper")

    def ready_lines():
        """In this order; what testcontainers, Strimzi and Kafka's system tests look for is a part of them."""
        at, log = 0, broker.log()
        for line in (
            r"INFO \[KafkaServer id=1\] started \(kafka\.server\.KafkaServer\)",
            r"INFO \[BrokerLifecycleManager id=1\] The broker has been unfenced\. Transitioning from RECOVERY to RUNNING\. "
            r"\(kafka\.server\.BrokerLifecycleManager\)",
            r"INFO \[KafkaRaftServer nodeId=1\] Kafka Server started \(kafka\.server\.KafkaRaftServer\)",
        ):
            found = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] " + line + "$", re.M).search(log, at)
            if not found:
                raise RuntimeError(f"no line `{line}` where it should be on the console")
            at = found.end()

    rows.run("the ready lines are Kafka's", ready_lines)

    def orderly():
        began = time.monotonic()
        code = broker.stop()
        if code != 0:
            raise RuntimeError(f"SIGTERM ended it with {code}")
        return f"stopped in {(time.monotonic() - began) * 1000:.0f} ms"

    rows.run("SIGTERM ends it with 0", orderly)

    def after():
        broker.start()
        note = same(records, by_partition(broker.bootstrap, "kept"), folder)
        left = by_group(broker.bootstrap, "kept", "keeper")
        if left:
            raise RuntimeError(f"the group's offsets went back by {len(left.splitlines())}")
        return note

    rows.run("records and offsets are there after SIGTERM", after)
    broker.kill()
    rows.run("records and offsets are there after SIGKILL", after)
    broker.stop()


def librdkafka(rows, broker):
    environment = dict(os.environ, TESTS=LIBRDKAFKA, KLAMM_BOOTSTRAP=broker.bootstrap, ROWS="1", LIMIT="120", JOBS="2")
    done = subprocess.run([str(ROOT / "compat-tests/run"), "librdkafka"], env=environment, check=False)
    rows.failed += done.returncode != 0


def main():
    rows = Rows(width=44)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-smoke-"))
    try:
        records = folder / "words"
        words.write(records, WORDS)
        with chosen({"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}) as broker:
            road(rows, broker, folder, records)
            librdkafka(rows, broker)
        if not os.environ.get("KLAMM_AGAINST") and not os.environ.get("KLAMM_BOOTSTRAP"):
            restarts(rows, folder / "restarts", records)
            rows.run("the log tells the port of port 0", lambda: on_a_port_of_its_choice(folder / "once"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if rows.failed else 0)


if __name__ == "__main__":
    main()
