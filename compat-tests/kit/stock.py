"""What suites do with the stock client confluent-kafka, which they have to install first."""

import time

from confluent_kafka import Consumer, KafkaError, TopicPartition


def read_to_end(bootstrap, group, topic, partitions, level="read_committed", seconds=60.0):
    """{partition: its values, in order} of a whole topic, up to the end that this isolation level sees.

    Fails if that does not come within `seconds`.
    """
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "isolation.level": level, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "enable.partition.eof": True, "log_level": 2,
    })  # fmt: skip
    found, ended, deadline = {p: [] for p in range(partitions)}, set(), time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        while len(ended) < partitions and time.monotonic() < deadline:
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    found[message.partition()].append(message.value().decode())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
    finally:
        consumer.close()
    assert len(ended) == partitions, f"only {sorted(ended)} of {partitions} partitions came to their end: {str(found)[:500]}"
    return found
