"""R16 and R17: groups whose members come and go, and an administrator who changes things, under load and kills."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType

from cluster.load import PATIENT, Member, consumer_settings
from cluster.rig import Failed

REASSIGNMENT_UNDER_WAY, ELECTION_NOT_NEEDED = 60, 84


def churn(run, seconds, kills):
    """Members join, leave and die (stop to poll, without a word); the coordinator is killed `kills` times between."""
    cluster, count = run.cluster, 0
    end, strikes = time.monotonic() + seconds, [time.monotonic() + seconds * (n + 1) / (kills + 1) for n in range(kills)]
    here = (run.record, cluster.bootstrap, run.topic, run.partitions)
    # A static member leaves without a word and is expected back.
    static = Member(*here, "static", run.group, **{"group.instance.id": "static"})
    run.members.append(static)
    static.start()
    while time.monotonic() < end:
        if strikes and time.monotonic() >= strikes[0]:
            strikes.pop(0)
            with cluster.admin() as client:
                error, coordinator, _, _ = client.find_coordinator(run.group)
            victim = cluster.broker(coordinator)
            victim.kill9()
            run.flowing(60)
            victim.restart()
            run.in_sync()
        live = [m for m in run.members if m.is_alive() and not m.ending.is_set() and not m.dying.is_set()]
        what = run.rng.choice(["join", "join", "leave", "die"])
        if what == "join" and len(live) < 8:
            count += 1
            member = Member(*here, f"guest{count}", run.group)
            run.members.append(member)
            member.start()
        elif what == "leave" and len(live) > 2:
            run.rng.choice(live[1:]).ending.set()
        elif what == "die" and len(live) > 2:
            # librdkafka sends heartbeats for ever where nobody takes the first assignment, so no coordinator ends that.
            told = [member for member in live[1:] if member.rebalances]
            if told:
                run.rng.choice(told).dying.set()
        run.rest(0.3, 2)
    run.note(
        f"{len(run.members)} members, {sum(m.rebalances for m in run.members)} rebalances seen, {kills} kills of the coordinator"
    )


class Operator:
    """Random operations of an administrator on a run's topic, and on one of its own beside it."""

    def __init__(self, run):
        self.run, self.cluster = run, run.cluster
        self.side, self.generation, self.side_partitions = f"{run.topic}-side", 0, 2
        self.client = AdminClient({**PATIENT, "bootstrap.servers": self.cluster.bootstrap})
        self.counts = {}
        self.cluster.topic(self.side, self.side_partitions)

    def work(self, seconds, kills=0):
        """Operations for that long, and what they were in the run's note."""
        self.operate(seconds, kills)
        self.settled()
        self.tell()

    def tell(self):
        self.run.note("operations: " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))

    def operate(self, seconds, kills=0):
        end, kinds = time.monotonic() + seconds, [self.move, self.elect, self.configure, self.grow, self.recreate]
        strikes = [time.monotonic() + seconds * (n + 1) / (kills + 1) for n in range(kills)]
        n = 0
        while time.monotonic() < end:
            if strikes and time.monotonic() >= strikes[0]:
                strikes.pop(0)
                victim = self.cluster.broker(self.cluster.controller())
                victim.kill9()
                self.run.flowing(60)
                victim.restart()
                self.cluster.in_sync()
            # Each kind once, then at random.
            kind = kinds[n] if n < len(kinds) else self.run.rng.choice(kinds)
            n += 1
            kind()
            self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            self.run.rest(0.2, 1)

    def settled(self, seconds=60):
        def nothing():
            error, moving = self.cluster.at_controller(lambda client: client.reassigning())
            return error == 0 and not moving

        return self.cluster.until(seconds, nothing, "every reassignment to end")[1]

    def move(self):
        """Two replicas, then three again, in another order."""
        part, ids = self.run.rng.randrange(self.run.partitions), sorted(self.cluster.nodes)
        self.run.rng.shuffle(ids)
        for replicas in (ids[:2], ids[1:] + ids[:1]):
            error, codes = self.cluster.at_controller(lambda c, r=replicas: c.reassign(self.run.topic, {part: r}))
            if error or codes != {part: 0}:
                raise Failed(f"a reassignment of partition {part} to {replicas} is answered {error}, {codes}")
            self.settled()
            wanted = tuple(replicas)
            self.cluster.until(
                30,
                lambda w=wanted: self.cluster.describe([self.run.topic])[2][self.run.topic][part].replicas == w,
                f"replicas {wanted}",
            )
            self.cluster.in_sync([self.run.topic])

    def elect(self):
        parts = list(range(self.run.partitions))
        codes = self.cluster.at_controller(lambda client: client.elect_preferred(self.run.topic, parts))
        if set(codes.values()) - {0, ELECTION_NOT_NEEDED}:
            raise Failed(f"a preferred election is answered {codes}")
        found = self.cluster.describe([self.run.topic], self.cluster.controller())[2][self.run.topic]
        wrong = {p: (d.leader, d.replicas) for p, d in found.items() if d.leader != d.replicas[0]}
        if wrong:
            raise Failed(f"after a preferred election others lead: {wrong}")

    def configure(self):
        value = str(self.run.rng.randrange(1 << 20, 1 << 24))
        entry = ConfigEntry("segment.bytes", value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.run.topic, incremental_configs=[entry])
        for future in self.client.incremental_alter_configs([resource], request_timeout=30).values():
            future.result(40)

        def told():
            asked = ConfigResource(ResourceType.TOPIC, self.run.topic)
            found = self.client.describe_configs([asked], request_timeout=10)[asked].result(15)
            return found["segment.bytes"].value == value

        self.cluster.until(20, told, "a changed setting to be told")

    def done(self, ask):
        """Waits for what `ask()` began. librdkafka goes on asking the controller that it knows until it refreshes that, and tells."""

        def answered():
            try:
                for future in ask().values():
                    future.result(40)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_CONTROLLER:
                    raise
                self.client.list_topics(timeout=10)
                return False
            return True

        self.cluster.until(30, answered, "the client to know the controller")

    def grow(self):
        self.side_partitions += 1
        wanted = NewPartitions(self.side, self.side_partitions)
        self.done(lambda: self.client.create_partitions([wanted], operation_timeout=20))
        self.cluster.until(
            30, lambda: len(self.cluster.describe([self.side])[2][self.side]) == self.side_partitions, "a new partition"
        )
        self.cluster.in_sync([self.side], 60)

    def recreate(self):
        """Deleted and made again under its name: nothing old is read from it."""
        self.write_side()
        self.done(lambda: self.client.delete_topics([self.side], operation_timeout=20))
        gone = lambda: not self.cluster.describe([self.side])[2].get(self.side)  # noqa: E731
        self.cluster.until(30, gone, f"{self.side} to be gone")
        self.cluster.until(30, lambda: self.side not in self.cluster.tree.children("/brokers/topics"), "its node to be gone")
        self.generation, self.side_partitions = self.generation + 1, 2
        self.cluster.topic(self.side, self.side_partitions)
        self.write_side()
        values = self.read_side()
        old = [value for value in values if not value.startswith(f"{self.generation}-")]
        if old or len(values) != 20:
            raise Failed(
                f"{self.side}, made anew as number {self.generation}, holds {len(values)} records, old ones {old[:5]}"
            )

    def write_side(self):
        lost = []
        producer = Producer({**PATIENT, "bootstrap.servers": self.cluster.bootstrap, "enable.idempotence": True})
        for n in range(20):
            producer.produce(
                self.side,
                f"{self.generation}-{n}",
                partition=n % 2,
                on_delivery=lambda error, _: error and lost.append(error),
            )
        if producer.flush(60) or lost:
            raise Failed(f"writing to {self.side}: {lost[:3]}")

    def read_side(self):
        settings = {**consumer_settings(self.cluster.bootstrap, self.side, "rc"), "enable.partition.eof": True}
        consumer, values, ended = Consumer(settings), [], set()
        consumer.assign([TopicPartition(self.side, p, 0) for p in range(2)])
        deadline = time.monotonic() + 30
        while len(ended) < 2 and time.monotonic() < deadline:
            for message in consumer.consume(100, 0.2):
                if message.error() is None:
                    values.append(message.value().decode())
                else:
                    ended.add(message.partition())
        consumer.close()
        return values
