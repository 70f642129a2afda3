"""A history: JSON lines, one event each, in any order. Times are seconds of one host's monotonic clock.

{"e": "producer", "p", "idempotent": bool, "acks": -1 | 1}
    a producer, before its sends; without one it is idempotent with acks=all
{"e": "send", "p", "s", "n", "part", "t0", "t1", "res": "ok" | "fail" | "unknown", "off", "txn"}
    record number `n` of session `s`, whose value is `P/S/N/PART`. `fail`: it was surely not appended. `off` is -1
    where none was told, `txn` the id of its transaction, if any. One that was never answered is `unknown`.
{"e": "txn", "id", "end": "commit" | "abort", "t0", "t1", "res"}
    a transaction's end; `fail` counts as aborted. One without such an event has an unknown end.
{"e": "poll", "c", "iso": "rc" | "ru", "t", "g", "recs": [[part, off, value], …]}
    what consumer `c`, of group `g` if any, was given. A value that is damaged begins with `!`.
{"e": "moved", "c", "parts": [part, …]}
    assigned, revoked, sought: the next record of these may have any offset
{"e": "reset", "c", "part", "why"}
    a consumer was told that its offset is out of range, or that the log was truncated
{"e": "commit", "g", "part", "off", "t0", "t1", "res"}, {"e": "committed", "g", "part", "off", "t0", "t1"}
    offsets written and read
{"e": "end", "part", "off", "t0", "t1"}
    the end of the log as ListOffsets tells it
{"e": "final", "reader", "iso", "part", "begin", "end", "recs": [[off, value], …]}
    all of a partition between two offsets, read when everything had come to rest. The first of each level decides,
    the others must agree. Long ones may come in pieces.
{"e": "origin", "part", "recs": [[off, producer id, producer epoch, sequence], …]}
    of the records of idempotent producers, as their batches say; in the order of offsets
{"e": "copied", "recs": [value, …]}
    the values, in the order read, that an exactly-once copy of everything committed has written
{"e": "exempt", "rule", "why"}
    a class of breaches that this scenario allows
"""

import collections
import dataclasses
import json


@dataclasses.dataclass(slots=True)
class Send:
    value: str
    producer: str
    session: int
    number: int
    part: int
    begun: float
    done: float
    result: str
    offset: int
    txn: str | None


@dataclasses.dataclass(slots=True)
class Final:
    """What one reader found at the end in one partition."""

    begin: int
    end: int
    records: dict


def value_of(producer, session, number, part):
    return f"{producer}/{session}/{number}/{part}"


class History:
    """The events of one run, sorted by what the rules ask for."""

    def __init__(self, events):
        self.producers, self.sends, self.txns = {}, {}, {}
        # Of each consumer: ("poll", level, group, time, records) and ("moved", parts), in order.
        self.consumers = collections.defaultdict(list)
        self.commits, self.committed = collections.defaultdict(list), collections.defaultdict(list)
        # {(part, offset): (producer id, epoch)}, and the sequences in the order of offsets.
        self.origins, self.sequences = {}, collections.defaultdict(list)
        self.resets, self.ends = [], collections.defaultdict(list)
        # {(level, reader, part): Final}, the deciding ones first.
        self.finals, self.copied, self.exempt = {}, None, {}
        for event in events:
            getattr(self, "_" + event["e"])(event)
        self.main = {}
        for (level, _reader, part), final in self.finals.items():
            self.main.setdefault((level, part), final)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as lines:
            return cls(json.loads(line) for line in lines if line.strip())

    def _producer(self, e):
        self.producers[e["p"]] = (e["idempotent"], e["acks"])

    def _send(self, e):
        value = value_of(e["p"], e["s"], e["n"], e["part"])
        if value in self.sends:
            raise ValueError(f"two sends of {value}: the history itself is wrong")
        self.sends[value] = Send(
            value, e["p"], e["s"], e["n"], e["part"], e["t0"], e["t1"], e["res"], e.get("off", -1), e.get("txn")
        )

    def _txn(self, e):
        self.txns[e["id"]] = e

    def _poll(self, e):
        self.consumers[e["c"]].append(("poll", e["iso"], e.get("g"), e["t"], e["recs"]))

    def _moved(self, e):
        self.consumers[e["c"]].append(("moved", e["parts"]))

    def _reset(self, e):
        self.resets.append(e)

    def _commit(self, e):
        self.commits[e["g"], e["part"]].append(e)

    def _committed(self, e):
        self.committed[e["g"], e["part"]].append(e)

    def _end(self, e):
        self.ends[e["part"]].append(e)

    def _final(self, e):
        key = (e["iso"], e["reader"], e["part"])
        records = {off: value for off, value in e["recs"]}
        if len(records) != len(e["recs"]):
            raise ValueError(f"a final read of partition {e['part']} names an offset twice")
        if key in self.finals:
            self.finals[key].end = max(self.finals[key].end, e["end"])
            self.finals[key].records.update(records)
        else:
            self.finals[key] = Final(e["begin"], e["end"], records)

    def _origin(self, e):
        for offset, producer, epoch, sequence in e["recs"]:
            self.origins[e["part"], offset] = (producer, epoch)
            self.sequences[e["part"], producer, epoch].append((sequence, offset))

    def _copied(self, e):
        self.copied = (self.copied or []) + e["recs"]

    def _exempt(self, e):
        self.exempt[e["rule"]] = e["why"]

    def idempotent(self, send):
        return self.producers.get(send.producer, (True, -1))[0]

    def safe(self, send):
        """Whether an acknowledgement of it promises anything: acks=all."""
        return self.producers.get(send.producer, (True, -1))[1] == -1

    def end_of(self, send):
        """How its transaction ended: "none", "commit", "abort" or "unknown"."""
        if send.txn is None:
            return "none"
        txn = self.txns.get(send.txn)
        if txn is None or txn["res"] == "unknown":
            return "unknown"
        return "commit" if txn["end"] == "commit" and txn["res"] == "ok" else "abort"

    def polls(self):
        """(consumer, level, group, time, part, offset, value) of every record that a consumer was given."""
        for consumer, events in self.consumers.items():
            for event in events:
                if event[0] == "poll":
                    _, level, group, time, records = event
                    for part, offset, value in records:
                        yield consumer, level, group, time, part, offset, value

    def readings(self):
        """(where it was seen, level, part, offset, value) of every record seen by anybody."""
        for consumer, level, _group, _time, part, offset, value in self.polls():
            yield consumer, level, part, offset, value
        for (level, reader, part), final in self.finals.items():
            for offset, value in final.records.items():
                yield f"final {reader}", level, part, offset, value

    def durable(self):
        """The sends that must be there at the end: acknowledged under acks=all, and committed."""
        wanted = []
        open_ended = set()
        for (level, _part), final in self.main.items():
            if level == "rc":
                for value in final.records.values():
                    send = self.sends.get(value)
                    if send and self.end_of(send) == "unknown":
                        open_ended.add(send.txn)
        for send in self.sends.values():
            if send.result == "ok" and self.safe(send):
                end = self.end_of(send)
                if end in ("none", "commit") or (end == "unknown" and send.txn in open_ended):
                    wanted.append(send)
        return wanted
