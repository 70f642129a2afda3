"""The checker's own test: clean histories pass, and every rule finds the fault that was planted for it.

    compat-tests/run history [--seed N]

One row a fault. A clean history is made by a small model of a cluster: partitions that are lists, producers that are
answered late, doubled (the plain ones), or never, consumers that lag, a group that commits, transactions, a copy.
"""

import copy
import json
import pathlib
import random
import tempfile

from history.model import History, value_of
from history.rules import RULES, check

PARTS = 3


class Model:
    """Makes the events of a run in which everything is right."""

    def __init__(self, seed):
        self.rng, self.now, self.events = random.Random(seed), 100.0, []
        self.logs = {p: [] for p in range(PARTS)}  # (value, txn); None stands for a marker

    def tick(self):
        self.now += self.rng.uniform(0.001, 0.01)
        return self.now

    def send(self, producer, number, plain=False, txn=None):
        rng, part = self.rng, self.rng.randrange(PARTS)
        value, begun = value_of(producer, 0, number, part), self.tick()
        fate = rng.choices(["ok", "gone", "unknown", "fail"], [90, 4, 4, 2])[0] if txn is None else "ok"
        offset = -1
        if fate in ("ok", "unknown"):
            offset = len(self.logs[part])
            self.logs[part].append((value, txn))
            if plain and rng.random() < 0.05:
                self.logs[part].append((value, txn))
        result = {"gone": "unknown"}.get(fate, fate)
        event = {"e": "send", "p": producer, "s": 0, "n": number, "part": part, "t0": begun, "t1": self.tick(), "res": result,
                 "off": offset if result == "ok" else -1}  # fmt: skip
        if txn is not None:
            event["txn"] = txn
        self.events.append(event)

    def transaction(self, producer, number):
        """One of six records; how it ended. Its markers take offsets, too."""
        txn, before = f"{producer}/{number}", {p: len(log) for p, log in self.logs.items()}
        for i in range(6):
            self.send(producer, number * 10 + i, txn=txn)
        end, result = [("commit", "ok"), ("abort", "ok"), ("commit", "unknown"), ("commit", "ok")][number // 40 % 4]
        begun = self.tick()
        committed = end == "commit" and (result == "ok" or self.rng.random() < 0.5)
        self.events.append({"e": "txn", "id": txn, "end": end, "t0": begun, "t1": self.tick(), "res": result})
        for part, log in self.logs.items():
            if len(log) > before[part]:
                log.append(None)
        return txn, committed

    def run(self, count=400):
        names = [("idempotent", True, -1), ("plain", False, -1), ("weak", False, 1)]
        for name, idempotent, acks in names:
            self.events.append({"e": "producer", "p": name, "idempotent": idempotent, "acks": acks})
        committed = {}
        for n in range(count):
            self.send("idempotent", n)
            self.send("plain", n, plain=True)
            self.send("weak", n, plain=True)
            if n % 40 == 0:
                txn, done = self.transaction("transactional", n)
                committed[txn] = done
        # Some of what acks=1 was told is gone, with its answer standing: another record has its offset, as nothing was read.
        visible = {p: [(o, r[0]) for o, r in enumerate(log) if r and (r[1] is None or committed[r[1]])]
                   for p, log in self.logs.items()}  # fmt: skip
        every = {p: [(o, r[0]) for o, r in enumerate(log) if r] for p, log in self.logs.items()}
        self.events.append({"e": "send", "p": "weak", "s": 1, "n": 0, "part": 0, "t0": self.tick(), "t1": self.tick(), "res": "ok",
                            "off": visible[0][5][0]})  # fmt: skip
        self.consume(visible, every)
        for level, logs in (("rc", visible), ("ru", every)):
            for reader in ("leader", "follower"):
                for part, records in logs.items():
                    end = len(self.logs[part]) - (5 if reader == "follower" else 0)
                    self.events.append({"e": "final", "reader": f"{reader} {level}", "iso": level, "part": part, "begin": 0,
                                        "end": end, "recs": [[o, v] for o, v in records if o < end]})  # fmt: skip
        source = [v for records in visible.values() for _, v in records]
        self.events.append({"e": "copied", "recs": source})
        return self.events

    def consume(self, visible, every):
        """A reader of each level, and a group of two that takes turns; then commits that are read again."""
        for name, level, group, logs in (("reader", "ru", None, every), ("group-1", "rc", "group", visible)):
            at = {p: 0 for p in logs}
            while any(at[p] < len(logs[p]) for p in logs):
                recs = []
                for part, records in logs.items():
                    some = records[at[part] : at[part] + self.rng.randrange(30)]
                    at[part] += len(some)
                    recs += [[part, o, v] for o, v in some]
                self.events.append({"e": "poll", "c": name, "iso": level, "g": group, "t": self.tick(), "recs": recs})
                if group and recs and self.rng.random() < 0.3:
                    self.commit_and_look(recs)
                    if self.rng.random() < 0.2:
                        self.events.append({"e": "moved", "c": name, "parts": [recs[-1][0]]})
                        at[recs[-1][0]] = max(0, at[recs[-1][0]] - 10)
        for part in range(PARTS):
            for end in sorted(self.rng.sample(range(len(self.logs[part])), 5)) + [len(self.logs[part])]:
                # Taken before anything was acknowledged, then at the end.
                late = end == len(self.logs[part])
                t0 = self.tick() if late else 50.0 + end / 1000
                self.events.append({"e": "end", "part": part, "off": end, "t0": t0, "t1": t0 + 0.0001})

    def commit_and_look(self, recs):
        part, offset, _ = recs[-1]
        begun = self.tick()
        self.events.append(
            {"e": "commit", "g": "group", "part": part, "off": offset + 1, "t0": begun, "t1": self.tick(), "res": "ok"}
        )
        begun = self.tick()
        self.events.append({"e": "committed", "g": "group", "part": part, "off": offset + 1, "t0": begun, "t1": self.tick()})


PLANTS = []


def plant(*kinds):
    """A fault, and the classes of breaches that it must raise; no others."""

    def take(function):
        PLANTS.append((function.__name__.replace("_", "-"), set(kinds), function))
        return function

    return take


def of(events, kind, **fields):
    return [e for e in events if e["e"] == kind and all(e.get(k) == v for k, v in fields.items())]


def sends(events, producer="idempotent", result="ok"):
    return of(events, "send", p=producer, res=result)


def drop(events, value, where=("final", "poll", "copied")):
    """Takes a value out of everything that was read."""
    for e in events:
        if e["e"] in where:
            e["recs"] = [r for r in e["recs"] if (r if isinstance(r, str) else r[-1]) != value]


def value(send):
    return value_of(send["p"], send["s"], send["n"], send["part"])


def rename(events, old, new):
    """Puts another value in the place of one, wherever it was read."""
    for e in events:
        if e["e"] in ("final", "poll"):
            for r in e["recs"]:
                if r[-1] == old:
                    r[-1] = new
        if e["e"] == "copied":
            e["recs"] = [new if v == old else v for v in e["recs"]]


@plant("LOST_WRITE", "UNPROCESSED")
def acknowledged_record_lost(events, rng):
    drop(events, value(rng.choice(sends(events))))


@plant("LOST_WRITE", "UNPROCESSED")
def plain_acknowledged_record_lost(events, rng):
    drop(events, value(rng.choice(sends(events, "plain"))))


@plant("LOST_WRITE", "VANISHED")
def lost_after_it_was_read(events, rng):
    """Read above a high watermark that went back: in no final read, but in a consumer's hands."""
    drop(events, value(rng.choice(sends(events))), where=("final", "copied"))


@plant("VANISHED")
def unacknowledged_record_read_and_gone(events, rng):
    level = {v for e in of(events, "final", iso="rc") for _, v in e["recs"]}
    victim = next(value(s) for s in sends(events, result="unknown") if value(s) in level)
    drop(events, victim, where=("final", "copied"))


@plant("WRONG_OFFSET")
def wrong_offset_told(events, rng):
    """The offset of a marker or a lost answer: nothing else lies there, so only the telling is wrong."""
    send = sends(events)[-1]
    send["off"] += 100_000
    # Answered after all else, so that no other answer contradicts it.
    send["t1"] = 1e6


@plant("WRONG_OFFSET", "INCONSISTENT_OFFSET", "STALE_LEADER_ORDER")
def spurious_zero(events, rng):
    send = next(s for s in sends(events)[50:] if s["off"] > 20)
    send["off"] = 0


@plant("DUPLICATE")
def idempotent_record_doubled(events, rng):
    """Appended a second time at the end of its partition, where every reader of the end finds it."""
    send = [s for s in sends(events)][-1]
    for e in of(events, "final", part=send["part"]):
        if e["reader"].startswith("leader"):
            e["recs"].append([e["end"], value(send)])
            e["end"] += 1
    of(events, "copied")[0]["recs"].append(value(send))


@plant("SEQUENCE")
def sequence_with_a_hole(events, rng):
    """A broker took a batch whose predecessor it does not have."""
    events.append({"e": "origin", "part": 0, "recs": [[0, 7, 0, 0], [1, 7, 0, 1], [2, 7, 0, 3]]})


@plant("SEQUENCE", "DUPLICATE")
def sequence_twice(events, rng):
    idempotent_record_doubled(events, rng)
    send = sends(events)[-1]
    events.append(
        {"e": "origin", "part": send["part"], "recs": [[send["off"], 7, 0, 5], [end_of(events, send["part"]), 7, 0, 5]]}
    )


def end_of(events, part):
    return max(r[0] for e in of(events, "final", part=part) for r in e["recs"])


@plant()
def sent_again_under_a_new_id(events, rng):
    """No fault: the broker cannot know."""
    idempotent_record_doubled(events, rng)
    send = sends(events)[-1]
    events.append(
        {"e": "origin", "part": send["part"], "recs": [[send["off"], 7, 0, 5], [end_of(events, send["part"]), 9, 0, 0]]}
    )


@plant("REORDER")
def session_out_of_order(events, rng):
    seen = {v for e in of(events, "final", iso="rc") for _, v in e["recs"]}
    chosen = [s for s in of(events, "send", p="idempotent", part=1) if value(s) in seen]
    first, second = chosen[3], chosen[4]
    for one in (first, second):
        one["res"], one["off"] = "unknown", -1
    a, b = value(first), value(second)
    rename(events, a, "?")
    rename(events, b, a)
    rename(events, "?", b)


@plant("READERS_DISAGREE")
def replica_with_a_hole(events, rng):
    final = of(events, "final", reader="follower rc")[0]
    del final["recs"][7]


@plant("INCONSISTENT_OFFSET", "LOST_WRITE", "EOS_DUP", "EOS_LOSS")
def replicas_of_two_minds(events, rng):
    """Two leaders of one epoch: a follower holds another record where the leader has one."""
    send = sends(events)[30]
    ghost = {**send, "s": 7, "res": "unknown", "off": -1}
    events.append(ghost)
    for e in of(events, "final", part=send["part"]):
        if e["reader"].startswith("leader"):
            for r in e["recs"]:
                if r[1] == value(send):
                    r[1] = value(ghost)


@plant("PHANTOM", "LOST_WRITE", "UNPROCESSED", "INCONSISTENT_OFFSET")
def record_that_nobody_sent(events, rng):
    rename(events, value(rng.choice(sends(events))), "nobody/0/1/0")


@plant("CORRUPT", "LOST_WRITE", "UNPROCESSED", "INCONSISTENT_OFFSET")
def damaged_record(events, rng):
    rename(events, value(rng.choice(sends(events))), "!damaged")


@plant("WRONG_PARTITION", "DUPLICATE", "INCONSISTENT_OFFSET")
def record_in_another_partition(events, rng):
    send = next(s for s in sends(events) if s["part"] == 0)
    poll = next(e for e in of(events, "poll", c="reader") if any(r[0] == 1 for r in e["recs"]))
    next(r for r in poll["recs"] if r[0] == 1)[2] = value(send)


@plant("FAILED_VISIBLE")
def refused_record_is_there(events, rng):
    seen = {v for e in of(events, "final", iso="rc") for _, v in e["recs"]}
    next(s for s in sends(events, result="unknown") if value(s) in seen)["res"] = "fail"


@plant("ABORTED_READ", "EOS_DUP")
def aborted_record_shown(events, rng):
    """A reader of committed records is given one of an aborted transaction, and copies it."""
    aborted = {e["id"] for e in of(events, "txn") if e["end"] == "abort"}
    send = next(s for s in of(events, "send", p="transactional") if s["txn"] in aborted)
    events.append(
        {"e": "poll", "c": "other", "iso": "rc", "g": None, "t": 1e6, "recs": [[send["part"], send["off"], value(send)]]}
    )
    of(events, "copied")[0]["recs"].append(value(send))


@plant("TORN_TXN", "LOST_WRITE", "UNPROCESSED")
def transaction_torn(events, rng):
    committed = {e["id"] for e in of(events, "txn") if e["end"] == "commit" and e["res"] == "ok"}
    drop(events, value(next(s for s in of(events, "send", p="transactional") if s["txn"] in committed)))


@plant("STALE_LEADER_ORDER")
def stale_leader_answers(events, rng):
    """Two records lie in one order and were answered in the other."""
    for part in range(PARTS):
        ordered = sorted(
            (s for s in of(events, "send", res="ok", part=part) if s["p"] in ("idempotent", "plain")), key=lambda s: s["off"]
        )
        for first, second in zip(ordered[9:], ordered[10:]):
            if first["p"] != second["p"]:
                # As if the first had been sent when all was over.
                first["t0"], first["t1"] = 1e5, 1e5 + 1
                return


@plant("NONMONOTONIC_POLL")
def consumer_goes_back(events, rng):
    poll = next(e for e in of(events, "poll", c="reader")[3:] if e["recs"])
    events.insert(events.index(poll) + 1, copy.deepcopy(poll))


@plant("POLL_SKIP")
def consumer_skips(events, rng):
    for poll in of(events, "poll", c="reader")[3:]:
        mine = [r for r in poll["recs"] if r[0] == poll["recs"][0][0]]
        if len(mine) > 3:
            poll["recs"] = [r for r in poll["recs"] if r not in mine[1:3]]
            return


@plant("OFFSET_RESET")
def consumer_is_out_of_range(events, rng):
    events.append({"e": "reset", "c": "reader", "part": 0, "why": "a test"})


@plant("HW_REGRESS")
def end_of_the_log_goes_back(events, rng):
    last = max(of(events, "end", part=2), key=lambda e: e["t0"])
    events.append({"e": "end", "part": 2, "off": last["off"] - 1, "t0": last["t1"] + 1, "t1": last["t1"] + 2})


@plant("HW_REGRESS")
def end_before_what_was_acknowledged(events, rng):
    send = sends(events)[-1]
    t0 = send["t1"] + 0.00001
    events.append({"e": "end", "part": send["part"], "off": send["off"], "t0": t0, "t1": t0 + 0.00001})
    # The true ends come later.


@plant("STALE_COMMIT")
def committed_offset_goes_back(events, rng):
    of(events, "committed")[2]["off"] -= 1


@plant("EOS_DUP")
def copied_twice(events, rng):
    of(events, "copied")[0]["recs"].append(of(events, "copied")[0]["recs"][3])


@plant("EOS_LOSS")
def not_copied(events, rng):
    del of(events, "copied")[0]["recs"][3]


@plant("UNPROCESSED")
def group_misses_a_record(events, rng):
    send = rng.choice(sends(events))
    for e in of(events, "poll", g="group"):
        # The gap itself is another rule's: as if it lay at a rebalance.
        kept = [r for r in e["recs"] if r[2] != value(send)]
        if len(kept) != len(e["recs"]):
            e["recs"] = kept
            events.insert(events.index(e) + 1, {"e": "moved", "c": e["c"], "parts": [send["part"]]})
            events.insert(events.index(e), {"e": "moved", "c": e["c"], "parts": [send["part"]]})
            i = events.index(e)
            split = [{**e, "recs": [r]} for r in kept]
            moved = [{"e": "moved", "c": e["c"], "parts": [send["part"]]} for _ in kept]
            # It may have been read twice.
            events[i : i + 1] = [x for pair in zip(moved, split) for x in pair]


@plant("IDLE")
def nothing_was_acknowledged(events, rng):
    for send in of(events, "send"):
        if send["res"] == "ok" and send["p"] != "weak":
            send["res"], send["off"] = "unknown", -1


def clean(seed):
    """Forty histories without a fault, none of which may be blamed; and one goes through a file."""
    count = 0
    for n in range(40):
        events = Model(seed + n).run(120)
        verdict = check(History(events))
        assert verdict, f"seed {seed + n}: {verdict.counts}: {verdict.examples[0]}"
        count += len(events)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "history.jsonl")
        path.write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")
        again = check(History.load(path))
    assert again and again.figures == verdict.figures, again
    assert verdict.figures["lost of acks=1"] == 1 and verdict.figures["doubled"] > 0, verdict.figures
    return f"{count} events"


def planted(seed, kinds, function):
    """The fault is found, in several histories, and as nothing else than it is."""
    found = 0
    for n in range(3):
        events = Model(seed + n).run()
        function(events, random.Random(seed + n))
        verdict = check(History(events))
        extra, missing = verdict.counts.keys() - kinds, kinds - verdict.counts.keys()
        assert not missing and not extra, (
            f"seed {seed + n}: missing {sorted(missing)}, extra {sorted(extra)}: {verdict.examples}"
        )
        found += sum(verdict.counts.values())
    return f"{' '.join(sorted(kinds))}: {found}"


def exempted(seed):
    events = Model(seed).run()
    drop(events, value(sends(events)[10]))
    events += [{"e": "exempt", "rule": kind, "why": "a test"} for kind in ("LOST_WRITE", "UNPROCESSED")]
    assert check(History(events))


def covered():
    """Every class that the rules can raise has a fault here."""
    import re

    text = (pathlib.Path(__file__).parent / "rules.py").read_text(encoding="utf-8")
    raised = set(re.findall(r'Breach\("([A-Z_]+)"', text))
    missing = raised - {kind for _, kinds, _ in PLANTS for kind in kinds}
    assert not missing, missing
    return f"{len(RULES)} rules, {len(raised)} classes"


def run(rows, seed):
    rows.run("clean-histories-pass", clean, seed)
    for name, kinds, function in PLANTS:
        rows.run(name, planted, seed, kinds, function)
    rows.run("an-exempt-class-is-not-told", exempted, seed)
    rows.run("every-class-is-planted", covered)
