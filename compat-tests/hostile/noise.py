"""Noise through real connections, row 15 of the table of hostile input: random bytes, flipped bits, and what stock
clients once sent, again and changed. The long form records every client of `make clients` that can be installed here
and some of Kafka's tools, the short one kcat. How a run goes: `suite.py`.
"""

import concurrent.futures
import contextlib
import pathlib
import socket
import struct

HERE = pathlib.Path(__file__).resolve().parent
from hostile import capture
from hostile.frames import METADATA, MIB, batch, fetch7, frame, gzip_bomb, join, produce, string
from hostile.suite import QUICK, case, connect, main, one_of

SETTINGS = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
    "queued.max.request.bytes": str(200 * MIB),
    "connections.max.idle.ms": "5000",
}
# Creating what flipped bits ask for is honest work, and a lot of it.
NOT_MUTATED = (19, 37)
AT_A_TIME = 16


def drain(s):
    s.setblocking(False)
    with contextlib.suppress(OSError):
        s.recv(1 << 16)


def push(s, data):
    """How many bytes the connection took before the broker closed it."""
    sent = 0
    with memoryview(data) as view, contextlib.suppress(OSError):
        while sent < len(data):
            sent += s.send(view[sent:])
    return sent


def versions(host):
    """(key, version) of everything that is announced."""
    with host.client() as c:
        r = c.call(18, 0, b"")
        r.take("h")
        ranges = r.array(lambda r: r.take("hhh"))
    return [(key, version) for key, first, last in ranges for version in range(first, last + 1)]


@case("15 random bytes", peak=128)
def noise(host):
    total = 4 * MIB if QUICK else 10**9
    known, left, connections = versions(host), total, 0
    while left > 0:
        data = host.random.randbytes(host.random.choice((64, 1000, 70_000, MIB, MIB)))
        how = host.random.random()
        if how < 0.5:
            # A request of ours up to its body.
            key, version = host.random.choice(known)
            data = struct.pack(">hhi", key, version, 1) + b"\0\1x" + data
            data = struct.pack(">i", len(data)) + data
        elif how < 0.9:
            head = struct.pack(">hh", host.random.randrange(0, 70), host.random.randrange(0, 14))
            data = struct.pack(">i", len(data) + len(head)) + head + data
        connections += 1
        with connect(host.port) as s:
            left -= push(s, data)
            drain(s)
    return f"{total - left:,} bytes taken over {connections} connections"


@case("15 bit flips in good frames", peak=128)
def flips(host):
    good = [
        METADATA,
        frame(18, 0),
        frame(18, 3, b"\2a\2b\0", flexible=True),
        frame(0, 3, produce("t", batch())),
        frame(0, 3, produce("t", batch(gzip_bomb(1000), attributes=1))),
        frame(1, 7, fetch7(0, 0, [(0, 0)])),
        frame(2, 1, struct.pack(">ii", -1, 1) + string("t") + struct.pack(">iiq", 1, 0, -1)),
        frame(8, 2, string("f") + struct.pack(">i", -1) + string("") + struct.pack(">qi", -1, 1) + string("t") + struct.pack(">iiq", 1, 0, 5) + string("")),
        frame(9, 1, string("f") + struct.pack(">i", 1) + string("t") + struct.pack(">ii", 1, 0)),
        frame(10, 1, string("f") + b"\0"),
        frame(11, 2, join("f")),
        frame(12, 1, string("f") + struct.pack(">i", 1) + string("m")),
        frame(22, 0, struct.pack(">hi", -1, 1000)),
    ]
    rounds = 2000 if QUICK else 20_000
    answered = 0
    s = None
    for _ in range(rounds):
        data = bytearray(host.random.choice(good))
        flip(data, host.random, 4 if host.random.random() < 0.95 else 0)
        try:
            s = s or connect(host.port, 0.05)
            s.sendall(data)
            if s.recv(1 << 16):
                answered += 1
                continue
        except OSError:
            pass
        if s:
            s.close()
        s = None
    if s:
        s.close()
    return f"{rounds} frames, {answered} answered"


def flip(data, chance, begin):
    for _ in range(chance.choice((1, 1, 2, 5))):
        data[chance.randrange(begin, len(data))] ^= 1 << chance.randrange(8)


# ---- captures --------------------------------------------------------------------------------------------------------


def captured(host, cache={}):  # noqa: B006, recorded once
    """The recorded sessions, the topics they speak of made, and a word on whose they are."""
    if not cache:
        clients, tools = (capture.CLIENTS[:1], ()) if QUICK else (capture.CLIENTS, ("3.9.1", "4.1.0"))
        found, missing = capture.sessions(clients, tools)
        assert found, f"nobody could be recorded: {', '.join(missing)}"
        cache["sessions"] = [session for sessions in found.values() for session in sessions if session]
        cache["note"] = f"{len(cache['sessions'])} sessions of {', '.join(found)}"
        cache["note"] += f"; not there: {', '.join(missing)}" if missing else ""
        with host.client() as c:
            for client in clients:
                for codec in (HERE.parent / "clients" / client / "codecs").read_text().split():
                    one_of(c.create_topic(f"{client}-{codec}", 1), (0, 36), "create")
    return cache["sessions"], cache["note"]


def replay(port, data, patience):
    """Sends all at once; how many whole replies came before there was silence for so long."""
    got = bytearray()
    with contextlib.suppress(OSError), connect(port, 2) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(data)
        s.settimeout(patience)
        while data := s.recv(1 << 16):
            got += data
    return len(capture.frames_of(got))


def replay_all(port, all_data, patience):
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return sum(pool.map(lambda data: replay(port, data, patience), all_data))


@case("15 captures, as they were sent", rise=16, peak=128)
def replayed(host):
    sessions, note = captured(host)
    answered = replay_all(host.port, sessions, 1.0)
    sent = sum(len(capture.frames_of(session)) for session in sessions)
    assert answered > sent * 0.8, f"{answered} of {sent} frames answered"
    return f"{note}; {answered} of {sent} frames answered"


@case("15 captures, mutated and reordered", rise=16, peak=192)
def mutated(host):
    sessions, _ = captured(host)
    rounds = 500 if QUICK else 20_000
    frames = [capture.frames_of(session) for session in sessions]
    frames = [session for session in frames if session]
    made = [mutate(host.random, frames) for _ in range(rounds)]
    answered = replay_all(host.port, made, 0.05)
    return f"{rounds} sessions, {sum(map(len, made)):,} bytes, {answered} frames answered"


def mutate(chance, sessions):
    """A session of theirs, or pieces of two, with frames changed, cut, repeated and in another order."""
    frames = list(chance.choice(sessions))
    if chance.random() < 0.3:
        other = chance.choice(sessions)
        frames = frames[: chance.randrange(len(frames) + 1)] + other[chance.randrange(len(other)) :]
    if chance.random() < 0.3:
        chance.shuffle(frames)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at = chance.randrange(len(frames))
        frames.insert(chance.randrange(len(frames) + 1), frames[at])
    for at in range(len(frames)):
        if chance.random() < 0.3:
            frames[at] = mutate_frame(chance, bytearray(frames[at]))
    data = b"".join(frames)
    return data[: chance.randrange(len(data))] if chance.random() < 0.2 else data


def mutate_frame(chance, data):
    """The length stays right nearly always, so that what follows is still read."""
    if struct.unpack_from(">h", data, 4)[0] in NOT_MUTATED:
        return bytes(data)
    how = chance.randrange(7)
    if how == 0:
        struct.pack_into(">h", data, 6, chance.randrange(-1, 20))  # another version of the same key
    elif how == 1:
        key = chance.choice([key for key in range(0, 76) if key not in NOT_MUTATED])
        struct.pack_into(">h", data, 4, key)
    elif how == 2:
        flip(data, chance, 8)
    elif how == 3:
        at = chance.randrange(8, len(data) + 1)
        data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 100)))
    elif how == 4:
        at = chance.randrange(8, len(data) + 1)
        del data[at : at + chance.choice((1, 2, 4, 100))]
    elif how == 5:
        at = chance.randrange(8, len(data) + 1)
        data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\x80\x80\x80"))
    else:
        begin, end = sorted((chance.randrange(8, len(data) + 1), chance.randrange(8, len(data) + 1)))
        data += data[begin:end]
    size = len(data) - 4
    if chance.random() < 0.03:
        size = chance.choice((-1, 0, size - 1, size + 1, 2**31 - 1))
    struct.pack_into(">i", data, 0, size)
    return bytes(data)


if __name__ == "__main__":
    main(SETTINGS)
