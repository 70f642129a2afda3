"""Brokers that die while stock clients write and read: the leader of what they use, their coordinator, the controller.

What a round has produced is compared as ever: nothing may be missing in the topic, and nothing there twice, as producers
are idempotent. What the client's own consumer saw may have come twice, since after a rebalance it begins again at what was
committed; so of that it is asked alone that nobody made it up.
"""

import collections
import concurrent.futures
import contextlib
import time

from kit.wire import Client, string

SECONDS = 60
# How long all are up between two kills, and how long the one that died stays away.
UP_S, DOWN_S = 3.0, 1.0
ROLES = ["leader", "coordinator", "controller"]
# kcat, kafkajs and kafka-python are left out: as they are used here their producers may write twice.
CLIENTS = ["confluent-kafka", "java-console-3.9", "java-console-4.1", "sarama", "franz-go"]


def coordinator(client, group):
    """The broker that coordinates the group, or None."""
    answer = client.call(10, 1, string(group) + b"\0")
    answer.take("i")
    error, _ = answer.take("h"), answer.string()
    node = answer.take("i")
    return node if error == 0 else None


def holder(cluster, role, topic, group):
    """The number of the broker that has the role now, or None."""
    if role == "controller":
        return cluster.controller()
    node = next(node for node in cluster.nodes.values() if node.alive())
    with Client(node.port, timeout=5) as client:
        if role == "coordinator":
            return coordinator(client, group)
        leaders = [leader for _, leader in client.metadata([topic])[1][topic][1].values()]
        return collections.Counter(leaders).most_common(1)[0][0] if leaders else None


def kill_one(cluster, role, topic, group):
    """kill -9 of the one that has the role, and its restart. Whether there was one."""
    number = None
    with contextlib.suppress(OSError, AssertionError):
        number = holder(cluster, role, topic, group)
    node = cluster.nodes.get(number)
    if node is None:
        return False
    node.kill9()
    time.sleep(DOWN_S)
    node.restart()
    cluster.in_sync()
    return True


def beside(cluster, one_round):
    """Runs rounds for a minute while brokers die one after the other; what happened, in words.

    `one_round(number)` is the topic and the group of that round, and what runs it. Brokers are started on this thread,
    as they end with the one that started them.
    """
    began, rounds, kills = time.monotonic(), 0, collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(1) as worker:
        while time.monotonic() - began < SECONDS or sum(kills.values()) < len(ROLES):
            topic, group, run = one_round(rounds)
            going = worker.submit(run)
            rounds += 1
            while not going.done():
                concurrent.futures.wait([going], UP_S)
                if not going.done() or rounds % 4 == 0:
                    role = ROLES[sum(kills.values()) % len(ROLES)]
                    kills[role] += kill_one(cluster, role, topic, group)
            going.result()
    return f"{rounds} rounds, killed: " + ", ".join(f"{role} {kills[role]}" for role in ROLES)
