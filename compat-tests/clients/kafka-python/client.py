"""One round of kafka-python: produce every record, read them back through a group, commit."""

import os

import kafka
from kafka.net.sasl.oauth import AbstractTokenProvider

bootstrap, topic, count = os.environ["BOOTSTRAP"], os.environ["TOPIC"], int(os.environ["COUNT"])
codec = None if os.environ["CODEC"] == "none" else os.environ["CODEC"]


class Token(AbstractTokenProvider):
    def token(self):
        return os.environ["TOKEN"]


def login():
    """What a listener over TLS asks for; nothing where there is none."""
    if "SECURITY" not in os.environ:
        return {}
    found = {"security_protocol": os.environ["SECURITY"], "ssl_cafile": os.environ["CA"]}
    mechanism = os.environ.get("MECHANISM")
    if mechanism is None:
        return {**found, "ssl_certfile": os.environ["CERTIFICATE"], "ssl_keyfile": os.environ["KEY"]}
    found["sasl_mechanism"] = mechanism
    if mechanism == "OAUTHBEARER":
        return {**found, "sasl_oauth_token_provider": Token()}
    return {**found, "sasl_plain_username": os.environ["LOGIN_USER"], "sasl_plain_password": os.environ["LOGIN_PASSWORD"]}


producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=20, **login())
sent = []
with open(os.environ["WORDS"], "rb") as words:
    for line in words:
        key, value = line.rstrip(b"\n").split(b"\t")
        sent.append(producer.send(topic, key=key, value=value))
producer.flush()
for future in sent:
    future.get(timeout=30)
producer.close()

consumer = kafka.KafkaConsumer(
    topic,
    bootstrap_servers=bootstrap,
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    consumer_timeout_ms=20_000,
    **login(),
)
left = count
with open(os.environ["OUT"], "wb") as out:
    for record in consumer:
        out.write(record.key + b"\t" + record.value + b"\n")
        left -= 1
        if left == 0:
            break
consumer.commit()
consumer.close()
