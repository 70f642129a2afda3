"""Every method of Java's Admin, against Apache Kafka 3.9.1 and klamm, and what the two answer compared line by line.

`Sweep.java` makes the calls. A call that differs passes if `differences.tsv` names it with a reason; one that is named there
and does not differ fails, so that the list stays true.

    make admin                              both brokers are started; the table of what differs
    compat-tests/run admin --all            prints every line of both
    compat-tests/run admin --client 4.1.0   the Admin of that version, with the methods that it brought (Sweep41.java)
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from kit.broker import BesideZookeeper, Kafka, Klamm, kafka_path

HERE = pathlib.Path(__file__).parent
VERSION = "3.9.1"
SETTINGS = {"num.partitions": "2", "group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "false"}


def answers(classes, libs, broker):
    """{call: its line}, in the order of the calls."""
    command = ["java", "-cp", f"{classes}:{libs}", "Sweep", broker.bootstrap]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=600)
    lines = (line.split(" => ", 1) for line in done.stdout.splitlines() if " => " in line)
    return dict(lines)


def accepted(client):
    """{call: why it differs}, with that client."""
    lines = (HERE / "differences.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return {call: reason for call, reason, *alone in rows if alone in ([], [client])}


def compare(kafka, klamm, known, everything):
    """How many calls differ that should not, or are the same though they are said to differ."""
    failed = same = 0
    for call in kafka | klamm:
        one, other = kafka.get(call, "no answer"), klamm.get(call, "no answer")
        if everything:
            print(f"      {call}\n        kafka  {one}\n        klamm  {other}")
        if one == other and call not in known:
            same += 1
        elif one != other and call in known:
            print(f"PASS  {call}: differs, {known[call]}")
        elif one == other:
            failed += 1
            print(f"FAIL  {call}: is the same, and differences.tsv says it differs")
        else:
            failed += 1
            print(f"FAIL  {call}\n        kafka  {one}\n        klamm  {other}")
    print(f"{'FAIL' if failed else 'PASS'}  {len(kafka)} calls: {same} the same, {len(known)} different for a reason, {failed} wrong")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--client", default=VERSION)
    parser.add_argument("--against", default=VERSION, help="the release of the other broker; no difference from another one is accepted")
    arguments = parser.parse_args()
    libs = f"{kafka_path(arguments.client)}/libs/*"
    sources = [HERE / "Sweep.java"] + ([HERE / "Sweep41.java"] if arguments.client.startswith("4.") else [])
    with tempfile.TemporaryDirectory(prefix="klamm-admin-") as classes:
        subprocess.run(["javac", "-nowarn", "-Xlint:none", "-cp", libs, "-d", classes, *sources], check=True)
        found = {}
        # A newer client asks a node alone in versions that the other broker does not have.
        ours = Klamm if arguments.client == VERSION or arguments.against != VERSION else BesideZookeeper
        for broker in (Kafka(SETTINGS, version=arguments.against), ours(SETTINGS)):
            try:
                broker.start()
                found[broker.name] = answers(classes, libs, broker)
            finally:
                broker.remove()
    sys.exit(1 if compare(found["kafka"], found["klamm"], accepted(arguments.client) if arguments.against == VERSION else {}, arguments.all) else 0)


if __name__ == "__main__":
    main()
