"""What an authorizer costs plaintext clients: klamm with 1,000 ACLs beside klamm without any, driven in turn, ten pairs.

Each pair writes the same bytes to both and reads them back from the tail; the figure is the broker's CPU with the
authorizer over that without, of each pair, and the median of the pairs.

    compat-tests/run perf.authorizer            ten pairs (about 6 minutes with a release build)
    compat-tests/run perf.authorizer --quick    three pairs of less
    compat-tests/run perf.authorizer --start    how long a start with 10,000 ACLs takes (seconds)

What one decision costs is measured in the process: `cargo test --release --lib a_decision_on_ten_thousand_acls --
--ignored --nocapture`.
"""

import statistics
import sys
import time

from kit.broker import Klamm
from kit.wire import Client, string
from perf.__main__ import GIB, Load, settle, topic

AT_MOST = 1.03
START_SECONDS_MAX = 0.3
ME = "User:ANONYMOUS"
TOPIC, GROUP, CLUSTER = 2, 3, 4
LITERAL, PREFIXED = 3, 4
ALL, READ, WRITE = 2, 3, 4
ALLOW = 3


def acl(resource_type, name, pattern, principal, operation):
    fields = bytes([resource_type]) + string(name) + bytes([pattern]) + string(principal) + string("*")
    return fields + bytes([operation, ALLOW])


def thousand():
    """Of topics one by one, of prefixes, of groups; and what the load needs, as somebody's test environment has them."""
    for n in range(600):
        yield acl(TOPIC, f"team-{n % 30}.topic-{n}", LITERAL, f"User:service-{n % 50}", READ + n % 2)
    for n in range(200):
        yield acl(TOPIC, f"p{n}-", PREFIXED, f"User:service-{n % 50}", READ)
    for n in range(196):
        yield acl(GROUP, f"group-{n}", LITERAL, f"User:service-{n % 50}", READ)
    for needed in (acl(TOPIC, "pair", PREFIXED, ME, WRITE), acl(TOPIC, "pair", PREFIXED, ME, READ), acl(GROUP, "g", PREFIXED, ME, READ),
                   acl(TOPIC, "pair", PREFIXED, ME, ALL)):  # fmt: skip
        yield needed


def create(client, acls):
    body = len(acls).to_bytes(4, "big") + b"".join(acls)
    answer = client.call(30, 1, body)
    answer.take("i")
    assert all(code == 0 for code, _ in answer.array(lambda r: (r.take("h"), r.string()))), "an ACL was refused"


def guarded(names):
    """klamm with an authorizer that lets the load do what it does, and no more."""
    broker = Klamm({"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer", "super.users": ME})
    broker.start()
    for name in names:
        topic(broker, name)
    acls = list(thousand())
    with Client(broker.port) as client:
        assert client.find_coordinator("g")[0] in (0, 15)
        create(client, acls)
    broker.stop()
    del broker.settings["super.users"]
    broker.start()
    return broker, len(acls)


def open_to_all(names):
    broker = Klamm()
    broker.start()
    for name in names:
        topic(broker, name)
    return broker


def starts():
    """Whether a start with 10,000 ACLs, to an answered request, takes as little as it may."""
    broker = Klamm({"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer", "super.users": ME})
    took = {}
    try:
        for count in (0, 10_000):
            broker.start()
            with Client(broker.port) as client:
                for begun in range(0, count, 1000):
                    create(client, [acl(TOPIC, f"topic-{n}", LITERAL, f"User:service-{n % 50}", READ) for n in range(begun, begun + 1000)])
            broker.stop()
            took[count] = []
            for _ in range(5):
                began = time.monotonic()
                broker.start()
                with Client(broker.port) as client:
                    client.find_coordinator("g")
                took[count].append(time.monotonic() - began)
                broker.stop()
    finally:
        broker.kill()
        broker.remove()
    none, many = (statistics.median(of_count) for of_count in took.values())
    verdict = "PASS" if many <= START_SECONDS_MAX else "FAIL"
    print(f"{verdict}  start with 10,000 ACLs: {many:.3f} s at most {START_SECONDS_MAX} (without: {none:.3f} s)")
    return many <= START_SECONDS_MAX


def main():
    if "--start" in sys.argv:
        sys.exit(not starts())
    quick = "--quick" in sys.argv
    pairs, bytes_ = (3, 64 << 20) if quick else (10, 256 << 20)
    load = Load()
    # One round more than pairs: the first warms.
    names = {size: [f"pair{size}-{n}" for n in range(pairs + 1)] for size in (1024, 100)}
    every = [name for of_size in names.values() for name in of_size]
    with_acls, count = guarded(every)
    without = open_to_all(every)
    failed = False
    try:
        for size, of_size in names.items():
            ratios = {"produce": [], "tail": []}
            for n, name in enumerate(of_size):
                used = {}
                for broker in (with_acls, without) if n % 2 else (without, with_acls):
                    settle()
                    before = broker.cpu_seconds()
                    load.produce(broker, name, size, bytes_ // size)
                    written = broker.cpu_until_idle()
                    tail = min(bytes_, 48 << 20)
                    load.consume(broker, name, tail // size, f"g{size}-{n}")
                    read = broker.cpu_until_idle()
                    used[broker] = {"produce": (written - before) * GIB / bytes_, "tail": (read - written) * GIB / tail}
                if n:
                    for what, of_pair in ratios.items():
                        of_pair.append(used[with_acls][what] / used[without][what])
            for what, of_pair in ratios.items():
                median = statistics.median(of_pair)
                verdict = "PASS" if median <= AT_MOST else "FAIL"
                failed |= median > AT_MOST
                print(f"{verdict}  {what} {size} B, authorizer with {count} ACLs over none, broker CPU: {median:.3f} at most {AT_MOST} "
                      f"({min(of_pair):.3f}-{max(of_pair):.3f}, {len(of_pair)} pairs)", flush=True)  # fmt: skip
    finally:
        for broker in (with_acls, without):
            broker.kill()
            broker.remove()
    sys.exit(failed)


if __name__ == "__main__":
    main()
