"""Stock clients, unmodified, against a fresh klamm: one row per client.

Each client produces Debian's word list line by line, keyed, with every codec it has, and reads it back through a
group; what comes back is compared by checksum. kcat then reads each topic once more, so that no client is judged by
itself alone, and asks for the group's offsets: nothing may be left over.

A client is a folder with two programs:
  prepare   installs the client below $CLIENT_CACHE and prints its version as the last line; exit code 77: the
            toolchain is missing, the last line says which (SKIP)
  run       one round: $BOOTSTRAP $TOPIC $GROUP $CODEC; reads $WORDS ($COUNT lines `key<TAB>value`), writes $OUT alike
and a file `codecs` with what it supports.

With --secure each client does the same over TLS instead, once for each way to say who it is (`secure.py`); with --kills
against three brokers that die one after the other (`kills.py`).

Environment: CLIENTS="kcat sarama" for only these; KEEP=1 keeps what they said, CLIENT_DEBUG=1 has franz-go say more; and what compat-tests/kit/broker.py says about the broker.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from clients import kills, secure
from kit import words
from kit.broker import ROOT, chosen

HERE = pathlib.Path(__file__).resolve().parent

ORDER = ["kcat", "kafka-python", "confluent-kafka", "java-console-3.9", "java-console-4.1", "kafkajs", "sarama", "franz-go"]
SKIP = 77
LIMIT_SECONDS = 180


def cache():
    base = os.environ.get("KLAMM_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "klamm")
    return pathlib.Path(base) / "clients"


def prepare(client, log):
    """(version, None), or (None, why it is skipped)."""
    home = cache() / client
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(HERE / client / "prepare")],
        env=dict(os.environ, CLIENT_CACHE=str(home), ROOT=str(ROOT)),
        cwd=HERE / client,
        stdout=subprocess.PIPE,
        stderr=open(log, "wb"),
        text=True,
        check=False,
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == SKIP:
        return None, last
    if done.returncode != 0:
        raise RuntimeError(f"prepare ended with {done.returncode}: {tail(log)}")
    return last, None


def tail(path):
    lines = pathlib.Path(path).read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-4:])[-600:]


def compare(expected, path, who):
    got = words.digest(path)
    if got != expected:
        raise RuntimeError(f"{who}: {got[0]} records with checksum {got[1]} instead of {expected[0]} with {expected[1]}")


def round_of(client, name, records, expected, folder, given):
    """Writes and reads by way of `given`, the environment of the client. (topic, group, what it read)."""
    topic, group, out = f"{client}-{name}", f"group-{client}-{name}", folder / f"{client}-{name}.out"
    environment = dict(
        os.environ,
        CLIENT_CACHE=str(cache() / client),
        ROOT=str(ROOT),
        TOPIC=topic,
        GROUP=group,
        WORDS=str(records),
        COUNT=str(expected[0]),
        OUT=str(out),
        **given,
    )
    log = folder / f"{client}-{name}.log"
    with open(log, "wb") as output:
        try:
            subprocess.run(
                [str(HERE / client / "run")], env=environment, cwd=HERE / client, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT_SECONDS, check=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as problem:
            raise RuntimeError(f"ended with {problem.returncode}: {tail(log)}") from problem
        except subprocess.TimeoutExpired as problem:
            raise RuntimeError(f"not done after {LIMIT_SECONDS} s: {tail(log)}") from problem
    return topic, group, out


def check_round(client, topic, group, out, bootstrap, expected, folder):
    compare(expected, out, client)
    witness(bootstrap, topic, expected, folder)
    left_over(bootstrap, topic, group)


def witness(bootstrap, topic, expected, folder):
    """kcat finds the same records in the topic."""
    seen = folder / "witness"
    with open(seen, "wb") as output:
        subprocess.run(
            ["kcat", "-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k\\t%s\\n"],
            stdout=output, timeout=60, check=True,
        )  # fmt: skip
    compare(expected, seen, "kcat reading after it")


def left_over(bootstrap, topic, group):
    """kcat finds none that the group has not committed."""
    left = subprocess.run(
        ["kcat", "-b", bootstrap, "-X", "auto.offset.reset=earliest", "-G", group, "-e", "-q", topic],
        stdout=subprocess.PIPE, timeout=90, check=True,
    ).stdout  # fmt: skip
    if left:
        raise RuntimeError(f"the group had committed {len(left.splitlines())} records too few")


def row(verdict, client, note):
    print(f"{verdict}  {client:18} {note}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secure", action="store_true")
    parser.add_argument("--kills", action="store_true")
    args = parser.parse_args()
    over_tls = args.secure
    if args.kills:
        os.environ["KLAMM_BROKERS"] = "3"
    wanted = os.environ.get("CLIENTS", "").replace(",", " ").split() or (kills.CLIENTS if args.kills else ORDER)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-clients-"))
    failed = 0
    try:
        records = folder / "words"
        limit = int(os.environ.get("WORDS_LIMIT", "0")) or (2000 if over_tls else None)
        count = words.write(records, limit)
        expected = words.digest(records)
        settings = {"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}
        keys = secure.Keys(folder / "keys") if over_tls else None
        with chosen(settings | (keys.settings() if keys else {}), port=keys and keys.plain) as broker:
            print(f"{count} words per round, checksum {expected[1]}, against {broker.title}")
            rounds = keys.rounds(broker.bootstrap) if keys else None
            for client in wanted:
                if args.kills:
                    failed += not under_kills(client, broker.cluster, records, expected, folder)
                else:
                    failed += not one(client, broker.bootstrap, records, expected, folder, rounds)
    finally:
        if "KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


def installed(client, folder):
    """(version, None), or (None, the row's verdict), which has been printed."""
    try:
        version, missing = prepare(client, folder / f"{client}.prepare.log")
    except RuntimeError as problem:
        row("FAIL", client, problem)
        return None, False
    if missing:
        row("SKIP", client, missing)
        return None, True
    return version, None


def under_kills(client, cluster, records, expected, folder):
    """Whether what the client wrote is there once, whoever died meanwhile; or whether it was skipped."""
    version, verdict = installed(client, folder)
    if version is None:
        return verdict
    given = {"BOOTSTRAP": cluster.bootstrap, "CODEC": "none"}
    words_of = set(records.read_bytes().splitlines())

    def one_round(number):
        name = f"kills-{number}"

        def run():
            topic, _, out = round_of(client, name, records, expected, folder, given)
            made_up = set(out.read_bytes().splitlines()) - words_of
            if made_up:
                raise RuntimeError(f"{len(made_up)} records that nobody wrote, {made_up.pop()} among them")
            witness(cluster.bootstrap, topic, expected, folder)

        return f"{client}-{name}", f"group-{client}-{name}", run

    try:
        row("PASS", client, f"{version:38} {kills.beside(cluster, one_round)}")
    except (RuntimeError, subprocess.SubprocessError) as problem:
        row("FAIL", client, f"{version}: {problem}")
        return False
    return True


def one(client, bootstrap, records, expected, folder, rounds):
    """Whether the client did what it should, or was skipped. `rounds`: {name: environment}, or None for one per codec."""
    version, verdict = installed(client, folder)
    if version is None:
        return verdict
    began = time.monotonic()
    if rounds is None:
        codecs = (HERE / client / "codecs").read_text().split()
        rounds = {codec: {"BOOTSTRAP": bootstrap, "CODEC": codec} for codec in codecs}
    faults = []
    for name, given in rounds.items():
        try:
            topic, group, out = round_of(client, name, records, expected, folder, given)
            check_round(client, topic, group, out, bootstrap, expected, folder)
        except (RuntimeError, subprocess.SubprocessError) as problem:
            faults.append(f"{name}: {problem}")
    if faults:
        row("FAIL", client, f"{version}\n      " + "\n      ".join(faults))
        return False
    row("PASS", client, f"{version:38} {' '.join(rounds):30} {time.monotonic() - began:5.1f} s")
    return True


if __name__ == "__main__":
    main()
