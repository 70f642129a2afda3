"""One round of confluent-kafka: produce every record, read them back through a group, commit."""

import os
import sys
import time

import confluent_kafka

bootstrap, topic, count = os.environ["BOOTSTRAP"], os.environ["TOPIC"], int(os.environ["COUNT"])
failures = []
login = {}
if "LIBRDKAFKA_CONFIG" in os.environ:
    with open(os.environ["LIBRDKAFKA_CONFIG"]) as config:
        login = dict(line.rstrip("\n").split("=", 1) for line in config)


def delivered(error, _message):
    if error:
        failures.append(error)


producer = confluent_kafka.Producer(
    {"bootstrap.servers": bootstrap, "compression.codec": os.environ["CODEC"], "enable.idempotence": True, **login}
)
with open(os.environ["WORDS"], "rb") as words:
    for line in words:
        key, value = line.rstrip(b"\n").split(b"\t")
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
if producer.flush(60) or failures:
    sys.exit(f"not delivered: {failures[:3]}")

consumer = confluent_kafka.Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": os.environ["GROUP"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        **login,
    }
)
consumer.subscribe([topic])
with open(os.environ["OUT"], "wb") as out:
    left = count
    deadline = time.monotonic() + 60
    while left > 0:
        # It waits for the whole number or the time-out, so ask for no more than can still come.
        messages = consumer.consume(min(left, 1000), timeout=1)
        if time.monotonic() > deadline:
            sys.exit(f"{left} records did not come")
        for message in messages:
            if message.error():
                sys.exit(str(message.error()))
            out.write(message.key() + b"\t" + message.value() + b"\n")
            left -= 1
consumer.commit(asynchronous=False)
consumer.close()
