"""Those of librdkafka's own tests that skip themselves without TLS and SASL, run for real against three brokers.

    compat-tests/run librdkafka.secured [--quick] [--only WORD]

0097 checks certificates of both sides, 0126 gets tokens from an OpenID provider (kit/oidc.py), 0135 changes passwords
under a running client, and 0142 has sessions end while records are written, by each mechanism. Each is told what its
makers' cluster tells it: variables named SSL_…, VALID_OIDC_URL and the like, and lines of test.conf.

A test counts as run if the runner says that it passed and so many parts of it did as are expected, so one that skips
itself fails here. Parts about share consumers (KIP-932) need Kafka 4.1 and are not asked for: in 3.9 there are none.

Environment: KLAMM_BINARY, or KLAMM_AGAINST=3.9.1 for Apache Kafka. Ends with 0 if all rows pass.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import re
import sys
import tempfile
import threading

from kit import zookeeper
from kit.broker import Kafka, Klamm, librdkafka_path
from kit.oidc import AUDIENCE, CLIENT, ISSUER, SECRET, Provider
from kit.process import ROOT, free_port
from kit.rows import Rows
from librdkafka import runner
from sasl.between import put_user
from tls.stores import Authority, run

USER, PASSWORD = "alice", "planted-hunter2"
KEY_PASSWORD = "planted-key-password"
MODULES = "org.apache.kafka.common.security"
HANDLERS = f"{MODULES}.oauthbearer"
# Name: (protocol, how it asks).
LISTENERS = {"PLAINTEXT": "PLAINTEXT", "REQUIRED": "SSL", "REQUESTED": "SSL", "ASKS": "SASL_SSL", "OIDC": "SASL_SSL"}


class Certificates:
    """What librdkafka's 0097 wants of an authority and a client: every form in which a key or a certificate may come."""

    def __init__(self, folder):
        self.folder = folder
        self.authority, self.unused = Authority(folder / "ours", "ours"), Authority(folder / "unused", "unused")
        self.broker = self.authority.issue("broker", ["DNS:localhost", "IP:127.0.0.1"])
        self.both = folder / "both.pem"
        self.both.write_text(self.unused.pem.read_text() + self.authority.pem.read_text())
        self.authority_der = self.der(self.authority.pem, "authority.der")
        self.direct = self.client("direct", self.authority.pem, self.authority.key)
        key, certificate = self.sign("between", self.authority.pem, self.authority.key, "basicConstraints=critical,CA:TRUE,pathlen:0\n")
        self.through = self.client("through", certificate, key)

    def der(self, file, name):
        run("openssl", "x509", "-outform", "der", "-in", file, "-out", self.folder / name)
        return self.folder / name

    def sign(self, name, by, by_key, extensions):
        key, request, certificate, file = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt", "ext"))
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/O=klamm/CN={name}")
        file.write_text(extensions)
        run("openssl", "x509", "-req", "-in", request, "-CA", by, "-CAkey", by_key, "-CAcreateserial", "-out", certificate,
            "-days", 30, "-extfile", file)  # fmt: skip
        return key, certificate

    def client(self, name, by, by_key):
        """The variables, and what else test.conf says, of a client whose certificate `by` has signed."""
        key, certificate = self.sign(name, by, by_key, "extendedKeyUsage=clientAuth\n")
        is_direct = by == self.authority.pem
        chain, encrypted, pkcs = (self.folder / f"{name}.{end}" for end in ("chain.pem", "enc.pem", "pfx"))
        chain.write_text(certificate.read_text() + ("" if is_direct else by.read_text()))
        run("openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", key, "-passout", f"pass:{KEY_PASSWORD}", "-out", encrypted)
        run("openssl", "rsa", "-outform", "der", "-in", key, "-out", self.folder / f"{name}.key.der")
        authorities = self.folder / f"{name}.authorities.pem"
        authorities.write_text(("" if is_direct else by.read_text()) + self.authority.pem.read_text())
        run("openssl", "pkcs12", "-export", "-inkey", key, "-in", certificate, "-certfile", authorities, "-passout",
            f"pass:{KEY_PASSWORD}", "-out", pkcs)  # fmt: skip
        variables = {
            "SSL_pkcs": pkcs, "SSL_password": KEY_PASSWORD, "SSL_all_cas_pem": self.both, "SSL_priv_pem": encrypted,
            "SSL_priv_der": self.folder / f"{name}.key.der", "SSL_pub_pem": chain, "SSL_pub_der": self.der(certificate, f"{name}.crt.der"),
            "SSL_ca_pem": self.authority.pem, "SSL_ca_der": self.authority_der,
        }  # fmt: skip
        if not is_direct:
            variables["SSL_intermediate_pub_pem"] = by
        conf = {"ssl.ca.location": self.authority.pem, "ssl.certificate.location": chain, "ssl.key.location": encrypted,
                "ssl.key.password": KEY_PASSWORD}  # fmt: skip
        return variables, conf


class Rig:
    """Three brokers, whose listeners ask for certificates, passwords and tokens; the provider of tokens beside them."""

    def __init__(self, folder, reauth_ms, token_seconds):
        self.folder, self.reauth_ms = folder, reauth_ms
        self.certificates = Certificates(folder)
        self.provider = Provider(folder / "provider", token_seconds)
        self.server = zookeeper.Server(folder / "zookeeper")
        put_user(self.server.tree(""), USER, PASSWORD, "SCRAM-SHA-256", "SCRAM-SHA-512")
        self.version = os.environ.get("KLAMM_AGAINST")
        self.members, self.ports = [], []
        for number in (1, 2, 3):
            self.members.append(self.member(number))

    def member(self, number):
        home = self.folder / f"b{number}"
        member = Kafka(None, home, version=self.version, heap="512M") if self.version else Klamm(None, home)
        ports = {name: free_port() for name in LISTENERS} | {"PLAINTEXT": member.port}
        self.ports.append(ports)
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
        member.settings = {
            **self.settings(), "broker.id": number, "listeners": addresses, "advertised.listeners": addresses, "log.dirs": home / "data",
        }  # fmt: skip
        return member

    def settings(self):
        asks, oidc = "listener.name.asks", "listener.name.oidc"
        found = {
            "zookeeper.connect": f"127.0.0.1:{self.server.port}", "zookeeper.session.timeout.ms": "30000",
            "zookeeper.connection.timeout.ms": "60000",
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "num.partitions": "4", "default.replication.factor": "3", "offsets.topic.replication.factor": "3",
            "transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "true",
            "connections.max.reauth.ms": self.reauth_ms,
            "ssl.keystore.type": "PEM", "ssl.keystore.location": self.certificates.broker.pem,
            "ssl.truststore.type": "PEM", "ssl.truststore.location": self.certificates.authority.pem,
            # Under TLS 1.3 a client hears that it is not let in after its part of the handshake, and librdkafka takes it for another error.
            "listener.name.required.ssl.client.auth": "required", "listener.name.required.ssl.enabled.protocols": "TLSv1.2",
            "listener.name.requested.ssl.client.auth": "requested",
            f"{asks}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{asks}.plain.sasl.jaas.config": f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            f"{asks}.oauthbearer.sasl.jaas.config": f"{HANDLERS}.OAuthBearerLoginModule required;",
            f"{oidc}.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oidc}.oauthbearer.sasl.jaas.config": f"{HANDLERS}.OAuthBearerLoginModule required;",
            f"{oidc}.oauthbearer.sasl.server.callback.handler.class": f"{HANDLERS}.OAuthBearerValidatorCallbackHandler",
            f"{oidc}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{self.provider.url}/keys",
            f"{oidc}.oauthbearer.sasl.oauthbearer.expected.audience": AUDIENCE,
            f"{oidc}.oauthbearer.sasl.oauthbearer.expected.issuer": ISSUER,
        }  # fmt: skip
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            found[f"{asks}.{mechanism}.sasl.jaas.config"] = f"{MODULES}.scram.ScramLoginModule required;"
        return found

    def start(self):
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until(member.ready, 90)

    def bootstrap(self, listener):
        return ",".join(f"127.0.0.1:{ports[listener]}" for ports in self.ports)

    def reached(self, listener, login=None, client=None):
        """(bootstrap, lines of test.conf, variables) of a client at this listener."""
        variables, certificate = client or ({}, {"ssl.ca.location": self.certificates.authority.pem})
        conf = {"security.protocol": LISTENERS[listener].lower(), **certificate, **(login or {})}
        return self.bootstrap(listener), conf, {name: str(value) for name, value in variables.items()}

    def close(self):
        for member in self.members:
            member.stop()
        self.server.kill()
        self.provider.close()
        for member in self.members:
            member.remove()
        self.server.remove()


def login(mechanism):
    if mechanism == "OAUTHBEARER":
        return {"sasl.mechanism": mechanism, "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": "scope=requiredScope principal=admin"}  # fmt: skip
    return {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": PASSWORD}


def of_provider(provider):
    """(lines of test.conf, variables) of a client that gets its tokens there."""
    conf = {
        "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": CLIENT,
        "sasl.oauthbearer.client.secret": SECRET, "sasl.oauthbearer.scope": "test",
        "sasl.oauthbearer.extensions": "workloadIdentity=develC348S,cluster=lkc123",
        "sasl.oauthbearer.token.endpoint.url": f"{provider.url}/token",
    }  # fmt: skip
    key = provider.client_key
    variables = {
        "VALID_OIDC_URL": f"{provider.url}/token", "INVALID_OIDC_URL": f"{provider.url}/token/badformat",
        "EXPIRED_TOKEN_OIDC_URL": f"{provider.url}/token/expired", "OAUTHBEARER_CLIENT_PRIVATE_KEY": key.file,
        "OAUTHBEARER_CLIENT_PRIVATE_KEY_ENCRYPTED": key.encrypted, "OAUTHBEARER_CLIENT_PRIVATE_KEY_PASSWORD": key.password,
    }  # fmt: skip
    return conf, variables


class Farther:
    """The same brokers, some milliseconds away: what they say comes late.

    librdkafka begins a handshake as soon as it is connected. Where the whole answer is there by then, it reports what is
    wrong with it under the code of a lost connection, which 0097 does not expect; a network is never that fast."""

    SECONDS = 0.005

    def __init__(self, bootstrap):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()
        self.bootstrap, self.ready = "", ready
        threading.Thread(target=self.serve, args=([int(at.rsplit(":", 1)[1]) for at in bootstrap.split(",")],), daemon=True).start()
        assert ready.wait(20)

    def serve(self, ports):
        asyncio.set_event_loop(self.loop)
        servers = [self.loop.run_until_complete(asyncio.start_server(self.relay(port), "127.0.0.1", 0)) for port in ports]
        self.bootstrap = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
        self.ready.set()
        self.loop.run_forever()

    def relay(self, port):
        async def pump(reader, writer, delay):
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    await asyncio.sleep(delay)
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def connected(reader, writer):
            try:
                there, back = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(pump(reader, back, 0), pump(there, writer, self.SECONDS))

        return connected

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)


class Suite:
    def __init__(self, rig, logs):
        self.rig, self.logs, self.suite = rig, logs, librdkafka_path()

    def test(self, number, reached, parts, least, label):
        """Runs the number once for each of `parts` (names of functions in it; none: all of it). At least so many parts, or
        where it names none so many checks, must pass."""
        passed, skipped = [], []
        bootstrap, conf, variables = reached
        for part in parts or [""]:
            name = re.sub(r"\W+", "-", f"secured-{number}-{label}-{part}").strip("-")
            lines = "".join(f"{key}={value}\n" for key, value in conf.items())
            environment = {**variables, **({"SUBTESTS": part} if part else {})}
            outcome = runner.run_one(number, self.suite, None, (bootstrap, lines), self.logs, 600, name=name, environment=environment)
            text = runner.plain_text(self.logs / f"{name}.log")
            done = re.findall(r": PASS \([\d.]+s\) \]|\[ PASSED: ", text)
            skipped += re.findall(r": SKIP: ", text)
            if outcome.result != "pass":
                raise AssertionError(f"{outcome.result} {part}: {outcome.detail}; log {self.logs}/{name}.log")
            if part and not done:
                raise AssertionError(f"no part of {part} ran; log {self.logs}/{name}.log")
            passed += done
        if len(passed) < least:
            raise AssertionError(f"{len(passed)} parts passed, not {least}; {len(skipped)} skipped")
        return f"{len(passed)} parts passed" + (f", {len(skipped)} are not for this mechanism" if skipped else "")


# Functions of the tests, without those about share consumers.
SESSIONS = ["do_test_consumer:", "do_test_producer:", "do_test_txn_producer:", "do_test_oauthbearer:", "do_test_reauth_failure:"]
TOKENS = ["do_test_produce_consumer_with_OIDC", "do_test_produce_share_consumer_with_OIDC_", "do_test_OIDC_aws_iam"]


def everything(suite, rows):
    rig = suite.rig
    for label, client in (("its authority's", rig.certificates.direct), ("through another", rig.certificates.through)):
        least = 15 if client is rig.certificates.direct else 12
        for listener, auth in (("REQUIRED", "required"), ("REQUESTED", "requested"), ("ASKS", "required")):
            reached = rig.reached(listener, login("SCRAM-SHA-512") if listener == "ASKS" else None, client)
            reached[2]["SSL_client_auth"] = auth
            farther = Farther(reached[0])
            reached = (farther.bootstrap, *reached[1:])
            name = f"{LISTENERS[listener]}, a certificate {auth}"
            rows.run(f"0097 ssl_verify ({name}; {label})", suite.test, "0097", reached, [], least, f"{listener}-{label}")
            farther.close()
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        reached = rig.reached("ASKS", login(mechanism))
        rows.run(f"0135 sasl_credentials ({mechanism})", suite.test, "0135", reached, ["do_test:"], 2, mechanism)
    conf, variables = of_provider(rig.provider)
    oidc = rig.reached("OIDC", conf, (variables, {"ssl.ca.location": rig.certificates.authority.pem}))
    rows.run("0126 oauthbearer_oidc", suite.test, "0126", oidc, TOKENS, 24, "OIDC")
    for mechanism, least in (("PLAIN", 5), ("SCRAM-SHA-512", 5), ("OAUTHBEARER", 8)):
        reached = rig.reached("ASKS", login(mechanism))
        parts = [part for part in SESSIONS if mechanism == "OAUTHBEARER" or "oauthbearer" not in part]
        parts = [part for part in parts if mechanism != "OAUTHBEARER" or "failure" not in part]
        rows.run(f"0142 reauthentication ({mechanism})", suite.test, "0142", reached, parts, least, mechanism)
    rows.run("0142 reauthentication (OIDC)", suite.test, "0142", oidc, SESSIONS[:4], 6, "OIDC")


def in_short(suite, rows):
    """Some parts, in half a minute; 0097 takes as long by itself and has no parts."""
    rig = suite.rig
    rows.run("0135 sasl_credentials (PLAIN)", suite.test, "0135", rig.reached("ASKS", login("PLAIN")), ["do_test:"], 2, "short")
    conf, variables = of_provider(rig.provider)
    oidc = rig.reached("OIDC", conf, (variables, {"ssl.ca.location": rig.certificates.authority.pem}))
    rows.run("0126 oauthbearer_oidc (client credentials)", suite.test, "0126", oidc, ["producer and consumer with oidc configuration: client_credentials"], 1, "short")
    rows.run("0142 reauthentication (OIDC)", suite.test, "0142", oidc, SESSIONS[:2], 2, "short")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    logs = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "librdkafka-logs"
    logs.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.only, width=76)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-secured-"))
    rig = Rig(folder, reauth_ms=2000 if options.quick else 10_000, token_seconds=10)
    try:
        rig.start()
        suite = Suite(rig, logs)
        (in_short if options.quick else everything)(suite, rows)
        for member in rig.members:
            text = member.log_path.read_text(errors="replace")
            told = [secret for secret in (PASSWORD, SECRET, KEY_PASSWORD) if secret in text]
            if told:
                print(f"FAIL  {member.folder.name} logs a secret")
                rows.failed += 1
    finally:
        for member in rig.members:
            with contextlib.suppress(OSError):
                (logs / f"secured-{member.folder.name}.log").write_bytes(member.log_path.read_bytes())
        rig.close()
        run("rm", "-rf", folder)
    sys.exit(1 if rows.failed else 0)


if __name__ == "__main__":
    main()
