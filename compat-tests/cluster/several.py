"""A cluster with the face of one broker, for the suites that know of one: clients, librdkafka's, the tools.

A rack for each broker, three replicas by default, as librdkafka's own makers test.
"""

import contextlib

from cluster import network
from cluster.rig import Cluster

REPLICATED = {
    "default.replication.factor": "3", "min.insync.replicas": "1", "auto.create.topics.enable": "true",
    "offsets.topic.replication.factor": "3", "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "1",
    # Kafka's default; the rig of faults has none, to be quick.
    "group.initial.rebalance.delay.ms": "3000",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}  # fmt: skip
# What a suite says of its one broker and does not hold for three.
OWN = {"broker.rack", "broker.id", "default.replication.factor"}


class Several:
    """`against` as `Cluster` takes it. The first broker stands for all where one is asked for."""

    def __init__(self, count, settings=None, against=""):
        suites = {key: value for key, value in (settings or {}).items() if key not in OWN}
        self.cluster = Cluster(against, count, {**REPLICATED, **suites}, net=network.Loopback(), racks=True)
        self.folder = self.cluster.folder
        self.title = self.cluster.title

    @property
    def nodes(self):
        return list(self.cluster.nodes.values())

    @property
    def bootstrap(self):
        return self.cluster.bootstrap

    @property
    def port(self):
        return self.nodes[0].port

    @property
    def child(self):
        """The process of one that has ended, if one has."""
        ended = [node for node in self.nodes if not node.alive()]
        return (ended or self.nodes)[0].child

    def start(self, seconds=60):
        return self.cluster.start()

    def alive(self):
        return all(node.alive() for node in self.nodes)

    def tail(self, lines=40):
        return "\n".join(f"{node.label}:\n{node.tail(lines)}" for node in self.nodes)

    def logs(self):
        return [node.log_path for node in self.nodes]

    def stop(self, seconds=60):
        for node in reversed(self.nodes):
            with contextlib.suppress(ProcessLookupError):
                if node.alive():
                    node.stop(seconds)
        self.cluster.end()

    def remove(self):
        self.cluster.remove()
