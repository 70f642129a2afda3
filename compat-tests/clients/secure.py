"""A broker with a listener over TLS that asks who comes, and each way in which a client can say it.

A client's `run` gets $SECURITY (SASL_SSL or SSL), $MECHANISM, $LOGIN_USER, $LOGIN_PASSWORD, $TOKEN (an unsigned JWT), $CA (PEM),
$CERTIFICATE and $KEY (PEM, for SSL alone), and the same as two files: $JAVA_CONFIG with keys of Java's clients, and
$LIBRDKAFKA_CONFIG. Where nothing is asked, none of them is set.
"""

import base64
import json
import subprocess
import time

from kit.broker import kafka_path
from kit.process import free_port
from tls.stores import Authority

USER, PASSWORD = "alice", "planted-hunter2"
MODULES = "org.apache.kafka.common.security"
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
MUTUAL = "mutual-TLS"


def token():
    """A JWT that nobody signed, good for an hour."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': USER, 'iat': now, 'exp': now + 3600})}."


class Keys:
    """An authority, the broker's certificate and the client's, in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder, "authority")
        self.broker = self.authority.issue("broker", ["DNS:localhost", "IP:127.0.0.1"])
        self.client = self.authority.issue("client")
        self.asks, self.mutual, self.plain = free_port(), free_port(), free_port()

    def settings(self):
        """What the broker needs besides: three listeners, one that asks nobody, one for SASL, one for certificates."""
        jaas = "listener.name.asks.{}.sasl.jaas.config"
        listeners = f"PLAINTEXT://127.0.0.1:{self.plain},ASKS://127.0.0.1:{self.asks},MUTUAL://127.0.0.1:{self.mutual}"
        return {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,ASKS:SASL_SSL,MUTUAL:SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.broker.pem,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.pem,
            "listener.name.mutual.ssl.client.auth": "required",
            jaas.format("plain"): f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            jaas.format("scram-sha-256"): f"{MODULES}.scram.ScramLoginModule required;",
            jaas.format("scram-sha-512"): f"{MODULES}.scram.ScramLoginModule required;",
            jaas.format("oauthbearer"): f"{MODULES}.oauthbearer.OAuthBearerLoginModule required;",
        }

    def rounds(self, bootstrap):
        """{way: the environment of a client that goes it}, once the user has been made at `bootstrap`."""
        passwords = ",".join(f"SCRAM-SHA-{bits}=[iterations=4096,password={PASSWORD}]" for bits in (256, 512))
        subprocess.run(
            [kafka_path("3.9.1") / "bin/kafka-configs.sh", "--bootstrap-server", bootstrap, "--alter", "--entity-type", "users",
             "--entity-name", USER, "--add-config", passwords], check=True, stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        return {way: self.environment(way) for way in [*MECHANISMS, MUTUAL]}

    def environment(self, way):
        given = {"CODEC": "none", "CA": str(self.authority.pem)}
        if way == MUTUAL:
            port = self.mutual
            given |= {"SECURITY": "SSL", "CERTIFICATE": str(self.client.certificate), "KEY": str(self.client.key)}
        else:
            port = self.asks
            given |= {"SECURITY": "SASL_SSL", "MECHANISM": way, "LOGIN_USER": USER, "LOGIN_PASSWORD": PASSWORD, "TOKEN": token()}
        given["BOOTSTRAP"] = f"127.0.0.1:{port}"
        files = {"JAVA_CONFIG": self.java(way, given), "LIBRDKAFKA_CONFIG": self.librdkafka(way, given)}
        for name, lines in files.items():
            file = self.folder / f"{way}.{name.lower()}"
            file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
            given[name] = str(file)
        return given

    def java(self, way, given):
        found = {
            "security.protocol": given["SECURITY"], "ssl.truststore.type": "PEM", "ssl.truststore.location": self.authority.pem,
        }  # fmt: skip
        if way == MUTUAL:
            return found | {"ssl.keystore.type": "PEM", "ssl.keystore.location": self.client.pem}
        who = f'username="{USER}" password="{PASSWORD}"'
        module = {
            "PLAIN": f"plain.PlainLoginModule required {who}",
            "OAUTHBEARER": f'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{USER}"',
        }.get(way, f"scram.ScramLoginModule required {who}")
        return found | {"sasl.mechanism": way, "sasl.jaas.config": f"{MODULES}.{module};"}

    def librdkafka(self, way, given):
        found = {"security.protocol": given["SECURITY"].lower(), "ssl.ca.location": self.authority.pem}
        if way == MUTUAL:
            return found | {"ssl.certificate.location": self.client.certificate, "ssl.key.location": self.client.key}
        if way == "OAUTHBEARER":
            login = {"enable.sasl.oauthbearer.unsecure.jwt": "true", "sasl.oauthbearer.config": f"principal={USER}"}
        else:
            login = {"sasl.username": USER, "sasl.password": PASSWORD}
        return found | {"sasl.mechanism": way, **login}
