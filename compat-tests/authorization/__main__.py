"""The authorisation matrix: every key that a client may send, under every grant that there is, one row a grant.

What Apache Kafka 3.9.1 answers stands in `kafka-3.9.1.json`; klamm's answers are compared with it, cell by cell: error
codes of every element, sets of authorised operations, and which names are shown. So are the lines in which the logger
`kafka.authorizer.logger` says what was denied; recorded is how many they are, and a digest of them.

  compat-tests/run authorization            klamm beside the recorded answers, a grant of each kind (part of `make test`)
  compat-tests/run authorization --full     every grant, and Apache Kafka itself in the same run
  compat-tests/run authorization --capture  writes the recorded answers
  … --named                                 the client is User:alice, over SASL; what is recorded of User:ANONYMOUS holds for it

One client speaks from 127.0.0.1, and is granted things. Another speaks from 127.0.0.2, whose ACLs let it do everything
from there; both are User:ANONYMOUS. It could not have given itself that: at the first start User:ANONYMOUS is a super
user, at the second nobody is.
"""

import collections
import hashlib
import json
import pathlib
import re
import socket
import struct
import sys
import time

from authorization import questions
from kit import wire
from kit.broker import Kafka, Klamm
from kit.process import free_port

FIXTURE = pathlib.Path(__file__).parent / "kafka-3.9.1.json"
ADMIN, GRANTED = "127.0.0.2", "127.0.0.1"
PASSWORD = "a-secret"
ANONYMOUS = "User:ANONYMOUS"
NAMED = "--named" in sys.argv
ME = "User:alice" if NAMED else ANONYMOUS

SETTINGS = {
    "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
    "auto.create.topics.enable": "true",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
}

TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
LITERAL, PREFIXED = 3, 4
DENY, ALLOW = 2, 3
WORDS = ["", "", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "CLUSTER_ACTION", "DESCRIBE_CONFIGS",
         "ALTER_CONFIGS", "IDEMPOTENT_WRITE"]  # fmt: skip
OPERATION = {word: code for code, word in enumerate(WORDS) if word}
# What grants of a type are about.
RESOURCES = {"topic": (TOPIC, "t", PREFIXED), "group": (GROUP, "g", PREFIXED), "cluster": (CLUSTER, "kafka-cluster", LITERAL),
             "id": (TRANSACTIONAL_ID, "x", PREFIXED)}  # fmt: skip
SUPPORTED = {
    "topic": "READ WRITE CREATE DELETE ALTER DESCRIBE DESCRIBE_CONFIGS ALTER_CONFIGS ALL",
    "group": "READ DELETE DESCRIBE ALL",
    "cluster": "CREATE ALTER DESCRIBE CLUSTER_ACTION DESCRIBE_CONFIGS ALTER_CONFIGS IDEMPOTENT_WRITE ALL",
    "id": "WRITE DESCRIBE ALL",
}


def acl(kind, operation, permission=ALLOW, host=GRANTED, name=None, pattern=None, principal=ME):
    resource_type, usual, usual_pattern = RESOURCES[kind]
    return {
        "resource_type": resource_type, "resource_name": name or usual, "resource_pattern_type": pattern or usual_pattern,
        "principal": principal, "host": host, "operation": OPERATION[operation], "permission_type": permission,
    }  # fmt: skip


def everything():
    return [acl(kind, "ALL") for kind in RESOURCES]


# What is granted, by the name of the row.
GRANTS = {"nothing": [], "everything": everything()}
for kind, operations in SUPPORTED.items():
    for operation in operations.split():
        GRANTS[f"{operation} of {kind}"] = [acl(kind, operation)]
for kind, operations in SUPPORTED.items():
    for operation in operations.split()[:-1]:
        GRANTS[f"everything but {operation} of {kind}"] = [*everything(), acl(kind, operation, DENY)]
GRANTS |= {
    "topics by their name": [acl("topic", "ALL", name="t", pattern=LITERAL)],
    "every topic": [acl("topic", "READ", name="*", pattern=LITERAL)],
    "every group and topic, but t": [
        acl("topic", "ALL", name="*", pattern=LITERAL), acl("group", "ALL", name="*", pattern=LITERAL),
        acl("topic", "ALL", DENY, name="t", pattern=LITERAL),
    ],
    "every user": [acl("topic", "WRITE", principal="User:*"), acl("group", "READ", principal="User:*", host="*")],
    "somebody else": [acl("topic", "ALL", principal="User:other"), acl("cluster", "ALL", principal="User:other")],
    "another host": [acl("topic", "ALL", host="127.0.0.3"), acl("cluster", "ALL", host="127.0.0.3")],
    "a transaction": [acl("id", "WRITE"), acl("topic", "WRITE"), acl("topic", "READ"), acl("group", "READ")],
    "a consumer": [acl("topic", "READ"), acl("group", "READ")],
    "a producer": [acl("topic", "WRITE"), acl("topic", "CREATE")],
    "an idempotent producer of one topic, with others denied": [
        acl("topic", "WRITE"), acl("topic", "WRITE", DENY, name="t-", pattern=PREFIXED),
    ],
    "a denied prefix above": [acl("topic", "WRITE"), acl("topic", "WRITE", DENY, name="*", pattern=LITERAL)],
}  # fmt: skip
# One of each kind, for a short run.
SHORT = ["nothing", "everything", "READ of topic", "WRITE of topic", "DESCRIBE of topic", "CREATE of topic", "DELETE of topic", "READ of group",
         "DESCRIBE of group", "ALTER of cluster", "DESCRIBE of cluster", "CLUSTER_ACTION of cluster", "IDEMPOTENT_WRITE of cluster",
         "WRITE of id", "everything but DESCRIBE of topic", "a transaction", "every group and topic, but t"]  # fmt: skip


class Connection:
    """A client from an address of its own."""

    def __init__(self, port, address, user=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
        self.correlation = 0
        if user:
            self.authenticate(user)

    def authenticate(self, user):
        """SASL PLAIN; everybody has the same password."""
        token = f"\0{user}\0{PASSWORD}".encode()
        for key, body in ((17, wire.string("PLAIN")), (36, struct.pack(">i", len(token)) + token)):
            frame = struct.pack(">hhi", key, 1, 0) + wire.string("matrix") + body
            self.socket.sendall(struct.pack(">i", len(frame)) + frame)
            answer = self.exactly(struct.unpack(">i", self.exactly(4))[0])
            assert answer[4:6] == b"\0\0", f"{user} is not let in: {answer}"

    def ask(self, question):
        self.correlation += 1
        self.socket.sendall(question.frame(self.correlation))
        data = self.exactly(struct.unpack(">i", self.exactly(4))[0])
        return question.verdict(data)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("closed by the broker")
            data += part
        return data

    def grant(self, acls):
        answer = self.ask(questions.Question("CreateAcls", 2, {"creations": acls}))
        assert all(one["error_code"] == 0 for one in answer["results"]), answer

    def take_back(self, host):
        filters = {"resource_type_filter": 1, "resource_name_filter": None, "pattern_type_filter": 1, "principal_filter": None,
                   "operation": 1, "permission_type": 1}  # fmt: skip
        asked = [{"host_filter": host, **filters}]
        answer = self.ask(questions.Question("DeleteAcls", 2, {"filters": asked}))
        assert all(one["error_code"] == 0 for one in answer["filter_results"]), answer


def with_authorizer(broker):
    """Kafka's brokers speak to themselves over the network, so they need a name of their own; klamm's does not."""
    broker.settings |= SETTINGS
    if broker.name == "kafka":
        broker.settings |= {"security.inter.broker.protocol": "SASL_PLAINTEXT", "sasl.mechanism.inter.broker.protocol": "PLAIN"}
    if broker.name == "kafka" or NAMED:
        broker.sasl_port = free_port()
        listeners = f"PLAINTEXT://{broker.bootstrap},SASL_PLAINTEXT://127.0.0.1:{broker.sasl_port}"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = f'username="admin" password="{PASSWORD}" user_admin="{PASSWORD}" user_alice="{PASSWORD}"'
        broker.settings |= {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{plain} {users};",
        }
    return broker


def client_of(broker):
    """The one that is granted things."""
    return Connection(broker.sasl_port, GRANTED, ME.removeprefix("User:")) if NAMED else Connection(broker.port, GRANTED)


def supers(broker, more=""):
    own = "User:admin" if broker.name == "kafka" else ""
    broker.settings["super.users"] = ";".join(name for name in (own, more) if name)


def prepare(broker):
    """Topics, groups and transactional ids as nobody hinders it; then nobody is above the ACLs any more."""
    supers(broker, ANONYMOUS)
    broker.start()
    with wire.Client(broker.port) as c:
        for topic in ("t", "u"):
            assert c.create_topic(topic, 1) == 0, topic
        for group in ("g", "h"):
            wait(lambda group=group: c.find_coordinator(group)[0] == 0)
        for name in ("x", "y"):
            wait(lambda name=name: c.call(10, 1, wire.string(name) + b"\1").take("ih")[1] == 0)
            wait(lambda name=name: c.call(22, 0, wire.string(name) + struct.pack(">i", 60_000)).take("ih")[1] == 0)
    admin = Connection(broker.port, GRANTED)
    for group in ("g", "h"):
        committed = [{"name": n, "partitions": [{"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}]} for n in ("t", "u")]
        commit = questions.Question(
            "OffsetCommit", 2, {"group_id": group, "generation_id_or_member_epoch": -1, "member_id": "", "topics": committed}
        )
        wait(lambda commit=commit: "'error_code': 0" in str(admin.ask(commit)))
    everywhere = {kind: "kafka-cluster" if kind == "cluster" else "*" for kind in RESOURCES}
    admin.grant([acl(kind, "ALL", host=ADMIN, name=name, pattern=LITERAL, principal=ANONYMOUS) for kind, name in everywhere.items()])
    broker.stop()
    broker.wait_for_session()
    supers(broker)
    broker.start()
    # Both coordinators have to be loaded, or the first row would show that.
    admin = Connection(broker.port, ADMIN)
    for question in questions.ALL:
        if question.api in ("DescribeGroups", "DescribeTransactions", "OffsetFetch", "EndTxn", "InitProducerId"):
            wait(lambda question=question: not set(codes(admin.ask(question))) & {14, 15, 16})
    return admin


def codes(value):
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "error_code":
                yield one
            yield from codes(one)
    elif isinstance(value, list):
        for one in value:
            yield from codes(one)


def wait(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "the broker does not become ready"
        time.sleep(0.1)


LOG = "the log of what was denied"


def denied(broker):
    """The lines about the client, without their times, and how often each is there."""
    lines = [line for line in broker.log().splitlines() if "(kafka.authorizer.logger)" in line]
    ours = [line for line in lines if f"host = {GRANTED} " in line]
    return collections.Counter(re.sub(r"^\[[^]]*\] ", "", line).replace(ME, ANONYMOUS) for line in ours)


def served(client):
    """The keys that the broker announces."""
    request = questions.Question("ApiVersions", 2, {})
    client.correlation += 1
    client.socket.sendall(request.frame(client.correlation))
    data = client.exactly(struct.unpack(">i", client.exactly(4))[0])
    return {one.api_key for one in questions.message("ApiVersionsResponse").decode(data, version=2, header=True).api_keys}


def answers(broker, names):
    """{grant: {question: verdict}}; beside the questions stands the digest of the log, and under `None` its lines."""
    try:
        admin = prepare(with_authorizer(broker))
        keys = served(admin)
        found = {}
        for name in names:
            admin.take_back(GRANTED)
            admin.take_back("127.0.0.3")
            admin.take_back("*")
            if GRANTS[name]:
                admin.grant(GRANTS[name])
            client = client_of(broker)
            found[name] = {}
            before = denied(broker)
            for question in questions.ALL:
                if questions.message(question.api + "Request").API_KEY not in keys:
                    found[name][question.name] = "not served"
                    continue
                try:
                    verdict = client.ask(question)
                except ConnectionError:
                    verdict, client = "closed", client_of(broker)
                found[name][question.name] = json.loads(json.dumps(verdict))
            lines = sorted((denied(broker) - before).items())
            digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]
            found[name][LOG] = f"{sum(count for _, count in lines)} lines, {digest}"
            found[name][None] = lines
        assert broker.alive(), f"{broker.name} died"
        return found
    finally:
        broker.kill()
        broker.remove()


# Where klamm differs and why, by the names of questions; also in GAPS.md.
MEANT = {f"OffsetFetch 1, {group}": "there an error of the group is each partition's; Kafka answers nothing" for group in "gh"}


def main():
    arguments = sys.argv[1:]
    names = list(GRANTS) if "--full" in arguments or "--capture" in arguments else SHORT
    only = [argument for argument in arguments if not argument.startswith("--")]
    names = [name for name in names if not only or any(word in name for word in only)]
    if "--capture" in arguments:
        recorded = answers(Kafka(), names)
        bare = recorded["nothing"]
        new = {name: {key: one for key, one in found.items() if key and (found is bare or one != bare[key])} for name, found in recorded.items()}
        lines = [f"{json.dumps(name)}: {json.dumps(found, sort_keys=True)}" for name, found in new.items()]
        FIXTURE.write_text("{\n" + ",\n".join(lines) + "\n}\n")  # each grant is one line
        print(f"{len(recorded)} grants of {len(questions.ALL)} questions")
        return
    recorded = json.loads(FIXTURE.read_text())
    # What is answered as if nothing were granted is not told again.
    recorded = {name: recorded["nothing"] | found for name, found in recorded.items()}
    if "--full" in arguments:
        now = answers(Kafka(), names)
        stale = [name for name in names if {key: one for key, one in now[name].items() if key} != recorded[name]]
        print(f"{'FAIL' if stale else 'PASS'}  Apache Kafka 3.9.1 answers as recorded  {stale or ''}")
        recorded = now
    found = answers(Klamm(), names)
    failed = cells = 0
    left_out = {question.name for question in questions.ALL if found[names[0]][question.name] == "not served"}
    for name in names:
        asked = [*(question.name for question in questions.ALL if question.name not in left_out), LOG]
        wrong = [one for one in asked if found[name][one] != recorded[name][one] and one not in MEANT]
        cells += len(asked)
        failed += len(wrong)
        print(f"{'FAIL' if wrong else 'PASS'}  {name:58} {len(asked) - len(wrong)} of {len(asked)}")
        for one in wrong:
            print(f"      {one}\n        Kafka {recorded[name][one]}\n        klamm {found[name][one]}")
        if LOG in wrong and None in recorded[name]:
            theirs, ours = (collections.Counter(dict(side[name][None])) for side in (recorded, found))
            print(*(f"        Kafka alone {line}" for line in theirs - ours), *(f"        klamm alone {line}" for line in ours - theirs), sep="\n")
    if left_out:
        print(f"SKIP  not served: {', '.join(sorted(left_out))}")
    print(f"{cells - failed} of {cells} cells as Apache Kafka 3.9.1")
    sys.exit(bool(failed))


main()
