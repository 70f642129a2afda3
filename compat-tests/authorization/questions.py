"""What is asked under every grant: each API key that a client may send, in one version or a few, with requests that
change nothing that another answer shows.

Names beginning with t, g and x are those that grants are about; u, h and y are others, of which nothing is ever granted.
"""

import importlib
import struct
import time

from kit import wire

MODULES = [importlib.import_module(f"kafka.protocol.{name}") for name in ("metadata", "consumer", "producer", "admin")]

ALL = []


def message(name):
    for module in MODULES:
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


class Question:
    """One request; `fields` are kafka-python's names of them, structures as dictionaries of them."""

    def __init__(self, api, version, fields, note=""):
        self.api, self.version, self.fields = api, version, fields
        self.name = f"{api} {version}" + (f", {note}" if note else "")

    def frame(self, correlation):
        request = built(message(self.api + "Request"), self.fields, self.version)
        request.with_header(correlation_id=correlation, client_id="matrix")
        return request.encode(version=self.version, header=True, framed=True)

    def verdict(self, data):
        response = message(self.api + "Response").decode(data, version=self.version, header=True)
        return told(response.to_dict(json=False), self.version)


def built(cls, fields, version):
    """A message of dictionaries, all structures made."""
    values = {}
    for name, value in fields.items():
        field = cls.fields[name]
        if field.is_struct_array() and value is not None:
            value = [built(field.data_class, one, version) for one in value]
        elif field.is_struct() and value is not None:
            value = built(field.data_class, value, version)
        values[name] = value
    return cls(version=version, **values)


NAMES = ("name", "topic", "topic_name", "group_id", "transactional_id", "resource_name", "key", "partition_index", "partition")


def told(value, version):
    """Error codes, sets of operations, and the names they belong to; lists in one order, since brokers have several."""
    if isinstance(value, dict):
        found = {}
        for name, one in value.items():
            if name.endswith("error_code") or name.endswith("authorized_operations") or name in NAMES and one not in (None, ""):
                found[name] = sorted(one) if isinstance(one, set) else one
            elif isinstance(one, (dict, list)):
                below = told(one, version)
                if below:
                    found[name] = below
        return found
    if isinstance(value, list):
        found = [told(one, version) for one in value if isinstance(one, dict)]
        return sorted((one for one in found if one), key=repr)
    return None


def ask(api, version, note="", **fields):
    ALL.append(Question(api, version, fields, note))


def batch(transactional=False, producer=(-1, -1, -1)):
    data = bytearray(wire.batch([b"v"], int(time.time() * 1000), producer))
    if transactional:
        data[22] |= 0x10
        struct.pack_into(">I", data, 17, wire.crc32c(bytes(data[21:])))
    return bytes(data)


def topics(*names):
    return [{"name": name, "partitions": [{"partition_index": 0}]} for name in names]


def produce(version, note, transactional_id, transactional, *names):
    data = [
        {"name": name, "partition_data": [{"index": 0, "records": batch(transactional, (7000, 0, 0) if transactional else (-1, -1, -1))}]}
        for name in names
    ]
    ask("Produce", version, note, transactional_id=transactional_id, acks=-1, timeout_ms=5000, topic_data=data)


# ---- records
for v in (3, 9, 11):
    produce(v, "plain", None, False, "t", "t-missing", "u")
produce(9, "plain batches of a transactional id", "x", False, "t")
produce(9, "a transactional batch without an id", None, True, "t", "u")
produce(9, "a transactional batch of an id", "x", True, "t-missing")
produce(9, "a transactional batch of another id", "y", True, "t-missing")


def fetched(*names, **more):
    one = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20, **more}
    return [{"topic": name, "partitions": [one]} for name in names]


for v in (4, 11, 12):
    ask("Fetch", v, max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, replica_id=-1, topics=fetched("t", "t-missing", "u"))
for v in (1, 5, 7):
    wanted = [{"name": n, "partitions": [{"partition_index": 0, "timestamp": -1, "current_leader_epoch": -1}]} for n in ("t", "t-missing", "u")]
    ask("ListOffsets", v, replica_id=-1, topics=wanted)
for v in (2, 4):
    wanted = [{"topic": n, "partitions": [{"partition": 0, "current_leader_epoch": -1, "leader_epoch": 0}]} for n in ("t", "u")]
    ask("OffsetForLeaderEpoch", v, replica_id=-2, topics=wanted)
for v in (0, 2):
    wanted = [{"name": n, "partitions": [{"partition_index": 0, "offset": 0}]} for n in ("t", "t-missing", "u")]
    ask("DeleteRecords", v, topics=wanted, timeout_ms=5000)

# ---- cluster
operations = {"include_topic_authorized_operations": True}
for v in (1, 4, 9, 12):
    # Before version 4 a topic that is named is created, where that is allowed.
    named = [{"name": n} for n in (("t", "t-missing", "u", "u-missing") if v >= 4 else ("t", "u"))]
    more = operations if v >= 8 else {}
    more = more | ({"include_cluster_authorized_operations": True} if 8 <= v <= 10 else {})
    ask("Metadata", v, "named", topics=named, allow_auto_topic_creation=False, **more)
    ask("Metadata", v, "all", topics=None, allow_auto_topic_creation=False, **more)
# Never, since they are no names; but whether they might be is asked first.
ask("Metadata", 9, "to be created", topics=[{"name": "t-unborn+"}, {"name": "u-unborn+"}], allow_auto_topic_creation=True)
ask("DescribeCluster", 0, include_cluster_authorized_operations=True)
ask("DescribeCluster", 0, "without operations", include_cluster_authorized_operations=False)
for v in (1, 3):
    ask("DescribeLogDirs", v, topics=[{"topic": "t", "partitions": [0]}])
for v in (1, 4):
    resources = [(2, "t"), (2, "t-missing"), (2, "u"), (4, "1"), (4, "")]
    asked = [{"resource_type": kind, "resource_name": name, "configuration_keys": ["retention.ms"]} for kind, name in resources]
    ask("DescribeConfigs", v, resources=asked)
resources = [(2, "t"), (2, "t-missing"), (2, "u"), (4, "1"), (4, "9")]
ask("AlterConfigs", 1, validate_only=True, resources=[
    {"resource_type": kind, "resource_name": name, "configs": [{"name": "message.max.bytes" if kind == 4 else "retention.ms", "value": "90000000"}]}
    for kind, name in resources])  # fmt: skip
ask("IncrementalAlterConfigs", 0, validate_only=True, resources=[
    {"resource_type": kind, "resource_name": name, "configs": [
        {"name": "message.max.bytes" if kind == 4 else "retention.ms", "config_operation": 0, "value": "90000000"}]}
    for kind, name in resources])  # fmt: skip

for v in (1, 2):
    moved = [{"name": "t", "partitions": [0]}]
    ask("AlterReplicaLogDirs", v, dirs=[{"path": "/nowhere", "topics": moved}])
for v in (0, 1):
    of_users = [{"entity_type": "user", "match_type": 2, "match": None}]
    ask("DescribeClientQuotas", v, components=of_users, strict=False)
    changed = {"entity": [{"entity_type": "user", "entity_name": "u"}], "ops": [{"key": "producer_byte_rate", "value": 1e6, "remove": False}]}
    ask("AlterClientQuotas", v, entries=[changed], validate_only=True)
ask("DescribeUserScramCredentials", 0, users=[{"name": "nobody"}])
ask("AlterUserScramCredentials", 0, deletions=[{"name": "nobody", "mechanism": 1}], upsertions=[])
for v in (0, 1):
    ask("UpdateFeatures", v, timeout_ms=5000, feature_updates=[{"feature": "f", "max_version_level": 1}])

# ---- topics
new = [{"name": n, "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []} for n in ("t-new", "u-new", "t")]
for v in (2, 5, 7):
    ask("CreateTopics", v, topics=new, timeout_ms=5000, validate_only=True)
for v in (1, 3):
    ask("CreatePartitions", v, topics=[{"name": n, "count": 5, "assignments": None} for n in ("t", "t-missing", "u")],
        timeout_ms=5000, validate_only=True)  # fmt: skip
for v in (1, 5):
    ask("DeleteTopics", v, topic_names=["t-missing", "u-missing"], timeout_ms=5000)
for v in (1, 2):
    ask("ElectLeaders", v, election_type=0, timeout_ms=5000,
        topic_partitions=[{"topic": n, "partitions": [0]} for n in ("t", "t-missing")])  # fmt: skip
moved = [{"name": "t", "partitions": [{"partition_index": 0, "replicas": None}]}]
ask("AlterPartitionReassignments", 0, timeout_ms=5000, topics=moved)
ask("ListPartitionReassignments", 0, timeout_ms=5000, topics=[{"name": "t", "partition_indexes": [0]}])

# ---- groups
for key_type, keys in ((0, ("g", "h")), (1, ("x", "y"))):
    for v in (1, 3):
        for key in keys:
            ask("FindCoordinator", v, f"type {key_type}, {key}", key=key, key_type=key_type)
    ask("FindCoordinator", 4, f"type {key_type}", key_type=key_type, coordinator_keys=list(keys))
for group in ("g", "h"):
    member = {"group_id": group, "member_id": "nobody", "generation_id": 1}
    committed = [{"name": n, "partitions": [{"partition_index": i, "committed_offset": 1, "committed_metadata": ""} for i in (0, 9)]}
                 for n in ("t", "t-missing", "u")]  # fmt: skip
    for v in (2, 8):
        ask("OffsetCommit", v, group, group_id=group, generation_id_or_member_epoch=-1, member_id="", topics=committed)
    for v in (1, 2, 7):
        ask("OffsetFetch", v, group, group_id=group, topics=[{"name": n, "partition_indexes": [0]} for n in ("t", "t-missing", "u")])
    ask("OffsetFetch", 5, f"{group}, all", group_id=group, topics=None)
    for v in (0, 5, 7):
        # The type of a group that there is: nobody gets in.
        ask("JoinGroup", v, group, group_id=group, session_timeout_ms=1, rebalance_timeout_ms=1, member_id="nobody",
            protocol_type="consumer", protocols=[{"name": "range", "metadata": b""}])  # fmt: skip
    for v in (1, 4):
        ask("Heartbeat", v, group, **member)
    for v in (1, 3):
        ask("SyncGroup", v, group, assignments=[], **member)
    ask("SyncGroup", 5, group, assignments=[], protocol_type="consumer", protocol_name="range", **member)
    ask("SyncGroup", 5, f"{group}, no protocol", assignments=[], protocol_type=None, protocol_name=None, **member)
    ask("LeaveGroup", 1, group, group_id=group, member_id="nobody")
    ask("LeaveGroup", 4, group, group_id=group, members=[{"member_id": "nobody", "group_instance_id": None}])
ask("OffsetFetch", 8, "two groups", require_stable=False, groups=[
    {"group_id": g, "topics": [{"name": n, "partition_indexes": [0]} for n in ("t", "u")]} for g in ("g", "h")])  # fmt: skip
ask("OffsetFetch", 8, "two groups, all", require_stable=False, groups=[{"group_id": g, "topics": None} for g in ("g", "h")])
for v in (1, 5):
    more = {"include_authorized_operations": True} if v >= 3 else {}
    ask("DescribeGroups", v, groups=["g", "g-missing", "h"], **more)
for v in (1, 4):
    ask("ListGroups", v)
for group in ("g-missing", "h-missing"):
    ask("OffsetDelete", 0, group, group_id=group, topics=topics("t", "t-missing", "u"))
for v in (0, 2):
    ask("DeleteGroups", v, groups_names=["g-missing", "h-missing"])

# ---- producers and transactions
for v in (0, 4):
    ask("InitProducerId", v, "no id", transactional_id=None, transaction_timeout_ms=60000)
    for i in ("x", "y"):
        # An illegal time-out: no epoch moves.
        ask("InitProducerId", v, i, transactional_id=i, transaction_timeout_ms=0)
bogus = {"producer_id": 123456, "producer_epoch": 0}
for i in ("x", "y"):
    for names in (["t"], ["t", "u"], ["t", "t-missing"], ["__consumer_offsets"]):
        below = {"v3_and_below_transactional_id": i, "v3_and_below_producer_id": 123456, "v3_and_below_producer_epoch": 0}
        ask("AddPartitionsToTxn", 3, f"{i}, {names}", v3_and_below_topics=[{"name": n, "partitions": [0]} for n in names], **below)
    for group in ("g", "h"):
        ask("AddOffsetsToTxn", 3, f"{i}, {group}", transactional_id=i, group_id=group, **bogus)
        ask("TxnOffsetCommit", 3, f"{i}, {group}", transactional_id=i, group_id=group, member_id="nobody", generation_id=1,
            topics=[{"name": n, "partitions": [{"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}]}
                    for n in ("t", "t-missing", "u")], **bogus)  # fmt: skip
    ask("EndTxn", 3, i, transactional_id=i, committed=True, **bogus)
ask("AddPartitionsToTxn", 4, transactions=[
    {"transactional_id": "x", "verify_only": True, "topics": [{"name": "t", "partitions": [0]}], **bogus}])  # fmt: skip
ask("WriteTxnMarkers", 1, markers=[
    {"transaction_result": False, "coordinator_epoch": 0, "topics": [{"name": "t-missing", "partition_indexes": [0]}], **bogus}])  # fmt: skip
ask("DescribeProducers", 0, topics=[{"name": n, "partition_indexes": [0]} for n in ("t", "t-missing", "u", "t+")])
ask("DescribeTransactions", 0, transactional_ids=["x", "x-missing", "y"])
ask("ListTransactions", 0, state_filters=[], producer_id_filters=[])

# ---- ACLs
FILTER = {"resource_name_filter": "zz", "pattern_type_filter": 3, "principal_filter": None, "host_filter": None, "operation": 1,
          "permission_type": 1}  # fmt: skip
for v in (1, 3):
    ask("DescribeAcls", v, resource_type_filter=2, **FILTER)
    ask("DeleteAcls", v, filters=[{"resource_type_filter": 2, **FILTER}])
    made = {"principal": "User:z", "host": "*", "operation": 3, "permission_type": 3}
    ask("CreateAcls", v, creations=[
        {"resource_type": 2, "resource_name": "a/b", "resource_pattern_type": 3, **made},
        {"resource_type": 4, "resource_name": "other", "resource_pattern_type": 3, **made},
        {"resource_type": 2, "resource_name": "", "resource_pattern_type": 3, **made},
        {"resource_type": 2, "resource_name": "zy", "resource_pattern_type": 3, **(made | {"principal": "nobody"})},
    ])  # fmt: skip

# ---- for everybody
ask("ApiVersions", 2)
