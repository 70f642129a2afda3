"""What may not be in a history: one function a rule, numbered C1 to C19 (those of Jepsen's Kafka checker, and more).

    C1   one value an offset                            INCONSISTENT_OFFSET, READERS_DISAGREE
    C2   only what was sent, where it was sent          PHANTOM, CORRUPT, WRONG_PARTITION
    C3   an idempotent producer's value once            DUPLICATE, SEQUENCE
    C4   what failed is never seen                      FAILED_VISIBLE
    C5   what was aborted is never seen by read_committed    ABORTED_READ
    C6   what acks=all acknowledged is there            LOST_WRITE
    C7   at the offset that was told                    WRONG_OFFSET
    C8   an idempotent session's records in its order   REORDER
    C9   what was sent after an answer lies behind it   STALE_LEADER_ORDER
    C10  a consumer's offsets rise, without a gap       NONMONOTONIC_POLL, POLL_SKIP, OFFSET_RESET
    C11  what a consumer was given stays                VANISHED
    C12  the end of a log does not go back              HW_REGRESS
    C13  a transaction is there whole or not at all     TORN_TXN
    C15  an exactly-once copy is one                    EOS_DUP, EOS_LOSS
    C17  a group's offsets do not go back               STALE_COMMIT
    C19  a group that commits after work has seen all   UNPROCESSED
    live a run acknowledged most of what was sent       IDLE

Not here: what compaction keeps, offsets by timestamp, fenced producers, one owner a generation, and what lies behind an
open transaction. Records of an acks=1 producer may be lost, so C1, C6, C7 and C9 ask only for
acks=all. Records of a producer that is not idempotent may be doubled and out of order; that is counted. So is what an idempotent one
sends again under another producer id or epoch, as librdkafka does after OUT_OF_ORDER_SEQUENCE_NUMBER.
"""

import bisect
import collections
import dataclasses


@dataclasses.dataclass(frozen=True)
class Breach:
    kind: str
    text: str

    def __str__(self):
        return f"{self.kind}: {self.text}"


RULES = []


def rule(function):
    RULES.append(function)
    return function


@rule
def one_value_an_offset(h):
    seen = {}
    for send in h.sends.values():
        if send.result == "ok" and send.offset >= 0 and h.safe(send):
            seen.setdefault((send.part, send.offset), {}).setdefault(send.value, f"acknowledged to {send.producer}")
    for where, _level, part, offset, value in h.readings():
        seen.setdefault((part, offset), {}).setdefault(value, where)
    for (part, offset), values in seen.items():
        if len(values) > 1:
            yield Breach("INCONSISTENT_OFFSET", f"{part}@{offset}: " + ", ".join(f"{v} ({w})" for v, w in values.items()))
    for (level, reader, part), final in h.finals.items():
        main = h.main[level, part]
        if final is main:
            continue
        low, high = max(final.begin, main.begin), min(final.end, main.end)
        for offset in final.records.keys() ^ main.records.keys():
            if low <= offset < high:
                yield Breach("READERS_DISAGREE", f"{part}@{offset}: only one of the first reader and {reader} has it")


@rule
def only_what_was_sent(h):
    for where, _level, part, offset, value in h.readings():
        if value.startswith("!"):
            yield Breach("CORRUPT", f"{part}@{offset} by {where}: {value[:80]}")
        elif value not in h.sends:
            yield Breach("PHANTOM", f"{part}@{offset} by {where}: {value}")
        elif h.sends[value].part != part:
            yield Breach("WRONG_PARTITION", f"{part}@{offset} by {where}: {value}")


def places(h):
    """{value: the (part, offset) where it was seen}."""
    found = collections.defaultdict(set)
    for _where, _level, part, offset, value in h.readings():
        found[value].add((part, offset))
    return found


def resent(h, at):
    """Whether a value lies at several places because its producer has sent it again under another id or epoch."""
    origins = [h.origins.get(place) for place in at]
    return None not in origins and len(set(origins)) == len(origins)


@rule
def once(h):
    for value, at in places(h).items():
        if len(at) > 1 and value in h.sends and h.idempotent(h.sends[value]) and not resent(h, at):
            yield Breach("DUPLICATE", f"{value} at {sorted(at)}")


@rule
def sequences_are_gapless(h):
    for (part, producer, epoch), entries in h.sequences.items():
        for (before, _), (sequence, offset) in zip(entries, entries[1:]):
            if sequence != before + 1:
                yield Breach("SEQUENCE", f"{part}@{offset}: {sequence} after {before} of producer {producer}, epoch {epoch}")


@rule
def failed_is_unseen(h):
    for where, _level, part, offset, value in h.readings():
        if value in h.sends and h.sends[value].result == "fail":
            yield Breach("FAILED_VISIBLE", f"{part}@{offset} by {where}: {value}")


@rule
def aborted_is_unseen(h):
    for where, level, part, offset, value in h.readings():
        if level == "rc" and value in h.sends and h.end_of(h.sends[value]) == "abort":
            yield Breach("ABORTED_READ", f"{part}@{offset} by {where}: {value} of {h.sends[value].txn}")


def level_of(h):
    """The level whose final reads decide what is there: read_committed, where there are such."""
    return "rc" if any(level == "rc" for level, _ in h.main) else "ru"


@rule
def acknowledged_is_there(h):
    level = level_of(h)
    present = {value for (l, _part), final in h.main.items() if l == level for value in final.records.values()}
    for send in h.durable():
        final = h.main.get((level, send.part))
        if final is None:
            yield Breach("LOST_WRITE", f"partition {send.part} was not read at the end")
        elif send.value not in present and not 0 <= send.offset < final.begin:
            yield Breach("LOST_WRITE", f"{send.value}, acknowledged at {send.part}@{send.offset}, {send.done:.3f} s")


@rule
def told_offset_is_true(h):
    level = level_of(h)
    at = {
        value: (part, offset) for (l, part), final in h.main.items() if l == level for offset, value in final.records.items()
    }
    for send in h.durable():
        final = h.main.get((level, send.part))
        if send.offset >= 0 and final and send.value in at and final.records.get(send.offset) != send.value:
            yield Breach("WRONG_OFFSET", f"{send.value} told {send.part}@{send.offset}, is at {at[send.value]}")


@rule
def session_order(h):
    for (level, part), final in h.main.items():
        last, seen = {}, set()
        for offset in sorted(final.records):
            send = h.sends.get(final.records[offset])
            # A value that is there twice is rule C3's.
            if send is None or not h.idempotent(send) or send.value in seen:
                continue
            seen.add(send.value)
            before = last.get((send.producer, send.session))
            if before is not None and send.number < before[0]:
                yield Breach("REORDER", f"{level} {part}@{offset}: {send.value} behind number {before[0]} at {before[1]}")
            last[send.producer, send.session] = (send.number, offset)


@rule
def real_time_order(h):
    parts = collections.defaultdict(list)
    for send in h.sends.values():
        if send.result == "ok" and send.offset >= 0 and h.safe(send):
            parts[send.part].append(send)
    for part, sends in parts.items():
        answered, at, highest, of = sorted(sends, key=lambda s: s.done), 0, -1, None
        for send in sorted(sends, key=lambda s: s.begun):
            while answered[at].done < send.begun:
                if answered[at].offset > highest:
                    highest, of = answered[at].offset, answered[at]
                at += 1
            if send.offset <= highest:
                yield Breach(
                    "STALE_LEADER_ORDER",
                    f"{part}: {send.value} at {send.offset}, sent after the answer {highest} to {of.value}",
                )


@rule
def polls_rise(h):
    """A member of a group may begin an assignment once more where it began it: seen once, on a busy machine, of a librdkafka
    consumer whose leaders changed while its first fetch was under way. Whether that is the client's doing is not proven."""
    ranks = {key: sorted(final.records) for key, final in h.main.items()}
    for consumer, events in h.consumers.items():
        last, first = {}, {}
        for event in events:
            if event[0] == "moved":
                for part in event[1]:
                    last.pop(part, None)
                    first.pop(part, None)
                continue
            _, level, group, _time, records = event
            for part, offset, _value in records:
                before = last.get(part)
                last[part] = offset
                if before is None:
                    first[part] = offset
                    continue
                if group and offset == first.get(part):
                    # Once.
                    first[part] = None
                    continue
                if offset <= before:
                    yield Breach("NONMONOTONIC_POLL", f"{consumer}: {part}@{offset} after {before}")
                    continue
                there = ranks.get((level, part), [])
                skipped = bisect.bisect_left(there, offset) - bisect.bisect_right(there, before)
                if skipped > 0:
                    missing = there[bisect.bisect_right(there, before)]
                    yield Breach(
                        "POLL_SKIP", f"{consumer}: {part}@{offset} after {before}, {skipped} between, first {missing}"
                    )


@rule
def positions_are_kept(h):
    for event in h.resets:
        yield Breach("OFFSET_RESET", f"{event['c']}, partition {event['part']}: {event['why']}")


@rule
def what_was_read_stays(h):
    for consumer, level, _group, time, part, offset, value in h.polls():
        final = h.main.get((level, part))
        # A record of an aborted transaction that was shown is rule C5's.
        aborted = value in h.sends and h.end_of(h.sends[value]) == "abort"
        if final and not aborted and offset >= final.begin and offset not in final.records:
            yield Breach("VANISHED", f"{part}@{offset}: {value}, given to {consumer} at {time:.3f} s")


@rule
def ends_rise(h):
    for part, events in h.ends.items():
        highest = -1
        answered = sorted(events, key=lambda e: e["t1"])
        acked = sorted((s for s in h.sends.values() if s.part == part and s.result == "ok" and s.offset >= 0 and h.safe(s)
                        and s.txn is None), key=lambda s: s.done)  # fmt: skip
        i = j = 0
        for event in sorted(events, key=lambda e: e["t0"]):
            while answered[i]["t1"] < event["t0"]:
                highest = max(highest, answered[i]["off"])
                i += 1
            while j < len(acked) and acked[j].done < event["t0"]:
                highest = max(highest, acked[j].offset + 1)
                j += 1
            if event["off"] < highest:
                yield Breach(
                    "HW_REGRESS", f"{part}: the end is {event['off']} at {event['t0']:.3f} s, it was {highest} before"
                )


@rule
def transactions_are_whole(h):
    present = {value for (level, _part), final in h.main.items() if level == "rc" for value in final.records.values()}
    writes = collections.defaultdict(list)
    for send in h.sends.values():
        if send.txn is not None:
            writes[send.txn].append(send)
    for txn, sends in writes.items():
        there = [s.value in present for s in sends if s.result != "fail"]
        if any(there) and not all(there):
            gone = next(s.value for s in sends if s.result != "fail" and s.value not in present)
            yield Breach("TORN_TXN", f"{txn}, ended {h.end_of(sends[0])}: {sum(there)} of {len(there)} records, not {gone}")


@rule
def copies_are_exact(h):
    if h.copied is None:
        return
    # What a producer that is not idempotent has doubled is there twice, and has to come twice.
    source = collections.Counter(
        value for (level, _), final in h.main.items() if level == "rc" for value in final.records.values()
    )
    copied = collections.Counter(h.copied)
    for value in source.keys() | copied.keys():
        there, count = source[value], copied[value]
        if count > there:
            yield Breach("EOS_DUP", f"{value} is {there} times in the source and was copied {count} times")
        elif count < there:
            yield Breach("EOS_LOSS", f"{value} is {there} times in the source and was copied {count} times")


@rule
def groups_do_not_go_back(h):
    for key, fetches in h.committed.items():
        commits = sorted(h.commits.get(key, []), key=lambda e: e["t1"])
        for fetch in fetches:
            before = [c for c in commits if c["res"] == "ok" and c["t1"] < fetch["t0"]]
            if not before:
                continue
            allowed = {
                c["off"] for c in commits if c["res"] != "fail" and c["t1"] >= before[-1]["t0"] and c["t0"] <= fetch["t1"]
            }
            if fetch["off"] not in allowed:
                yield Breach(
                    "STALE_COMMIT",
                    f"{key[0]}, partition {key[1]}: {fetch['off']} at {fetch['t0']:.3f} s, after {before[-1]['off']}",
                )


@rule
def groups_see_all(h):
    seen = collections.defaultdict(set)
    for _consumer, _level, group, _time, _part, _offset, value in h.polls():
        if group:
            seen[group].add(value)
    if seen:
        durable = h.durable()
        for group, values in seen.items():
            for send in durable:
                if send.value not in values:
                    yield Breach("UNPROCESSED", f"{group} never saw {send.value}")


@rule
def most_was_acknowledged(h):
    sends = [s for s in h.sends.values() if h.safe(s)]
    acked = sum(s.result == "ok" for s in sends)
    if not acked or acked * 2 < len(sends):
        yield Breach("IDLE", f"{acked} of {len(sends)} sends were acknowledged")


@dataclasses.dataclass
class Verdict:
    """Breaches by class (the first few of each in words), and figures."""

    counts: dict
    examples: list
    figures: dict

    def __bool__(self):
        return not self.counts


def longest_gaps(h, begin=None, end=None):
    """{part: (seconds, when it began)} of the longest time without an acknowledgement under acks=all."""
    times = collections.defaultdict(list)
    for send in h.sends.values():
        if send.result == "ok" and h.safe(send):
            times[send.part].append(send.done)
    gaps = {}
    for part, done in times.items():
        done = sorted(t for t in done if (begin is None or t >= begin) and (end is None or t <= end))
        done = ([begin] if begin is not None else []) + done + ([end] if end is not None else [])
        gaps[part] = max(((b - a, a) for a, b in zip(done, done[1:])), default=(0.0, 0.0))
    return gaps


def figures(h):
    results = collections.Counter(s.result for s in h.sends.values() if h.safe(s))
    level = level_of(h)
    present = {value for (l, _part), final in h.main.items() if l == level for value in final.records.values()}
    return {
        "acked": results["ok"],
        "unknown": results["unknown"],
        "failed": results["fail"],
        "read": sum(1 for _ in h.polls()),
        "lost": sum(s.value not in present for s in h.durable()),
        "lost of acks=1": sum(s.result == "ok" and not h.safe(s) and s.value not in present for s in h.sends.values()),
        "doubled": sum(len(at) > 1 for at in places(h).values()),
    }


def check(h, examples=5):
    """Applies every rule."""
    counts, told = collections.Counter(), []
    for one in RULES:
        for breach in one(h):
            if breach.kind in h.exempt:
                continue
            counts[breach.kind] += 1
            if counts[breach.kind] <= examples:
                told.append(breach)
    return Verdict(dict(counts), told, figures(h))
