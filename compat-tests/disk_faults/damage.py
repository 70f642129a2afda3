"""R11: flipped bits, torn sectors, and a disk that answers EIO.

No client that checks the CRC takes a wrong byte; a partition or a directory goes offline, by itself; what a failed sync
left is never acknowledged.
"""

import random
import time

from disk_faults import load
from disk_faults.rig import Rig
from kit import wire

# A broker that finds its directory failed ends by itself; so long it may take.
ENDS_WITHIN = 20.0
# Its exit code then.
DISK_FAILED = 74
STORAGE_ERROR = 56
SMALL_FILES = ["*/MANIFEST*", "*/CURRENT", "*/OPTIONS*", "*/meta.properties", "*/.manifest"]


def written(rig, rng, seconds=2.0):
    """Starts klamm, writes for a while, and gives everything time to be acknowledged. The writers."""
    rig.broker.start()
    load.create_topics(rig.port)
    writers = load.writers_of(rig.port, f"w{rng.randrange(1000)}")
    for one in writers:
        one.start()
    time.sleep(seconds)
    for one in writers:
        one.stop(60)
    assert sum(len(one.acked) for one in writers) > 100, "hardly anything was written"
    return writers


def read_back(rig, writers, quiet=3.0):
    """Reads all there is. (Wrong values and what is acknowledged but gone, partitions that cannot be read.)"""
    logs = load.read_logs(rig.port, load.PARTITIONS, quiet=quiet)
    breaches = [f"wrong: {one}" for one in load.wrong_values(logs)]
    lost = load.lost(load.acked_of(writers), logs)
    offline = {at: log.error for at, log in logs.items() if log.error}
    return breaches, lost, offline


def start(rig, seconds=60):
    """Why klamm does not start, its last lines; None if it does."""
    try:
        rig.broker.start(seconds)
        return None
    except RuntimeError:
        return " / ".join(rig.broker.log().strip().splitlines()[-8:])


def damaged(paths, kind, files_of_one):
    """A row: klamm is killed or stopped, a bit or a sector of such a file is damaged, klamm starts.

    With `files_of_one` a file is of one partition, and only that may suffer. Else the directory as a whole may be
    refused, with a line that says so, or the log ends early, as after a loss of power.
    """

    def body(run):
        rounds = refused = offline_sum = lost_sum = found = 0
        while run.has_time():
            rounds += 1
            rng = random.Random(f"{run.seed} {rounds}")
            with Rig(rng.randrange(1 << 32), settings={"klamm.table.piece.bytes": rng.choice(["1", "8192"])}) as rig:
                writers = written(rig, rng, 1.5)
                rig.broker.stop() if rng.random() < 0.3 else rig.broker.kill()
                try:
                    path = rng.choice(paths)
                    where = rig.fs.fields(f"{kind} path={path} seed={rng.randrange(1 << 32)}")
                except RuntimeError:
                    # There was no such file this time.
                    continue
                found += 1
                reason = start(rig)
                context = f"round {rounds}, {where}"
                assert not rig.broker.panics(), f"{context}: {rig.broker.panics()}"
                if reason is not None:
                    refused += 1
                    assert not files_of_one, f"{context}: does not start for one partition's sake: {reason}"
                    assert "d0" in reason, f"{context}: refused by a line that does not name the directory: {reason}"
                    continue
                breaches, lost, offline = read_back(rig, writers)
                assert not breaches, f"{context}: {breaches[:3]}"
                offline_sum += len(offline)
                lost_sum += len(lost)
                if files_of_one:
                    assert len(offline) <= 1, f"{context}: {len(offline)} partitions offline: {dict(list(offline.items())[:3])}"
                    others = {at[:2] for at, *_ in lost}
                    assert len(others) <= 1, f"{context}: lost of {others}"
                    assert not lost or "growing" in str(where["path"]), f"{context}: lost without a word: {lost[:3]}"
        assert found, f"none of the files {paths} in {rounds} rounds"
        return (f"{found} damaged, 0 wrong values, {refused} refused to start, {offline_sum} partitions offline, "
                f"{lost_sum} acknowledged records gone")  # fmt: skip

    return body


def damaged_while_it_runs(run):
    """Bits flip under a running klamm, and on the way from the disk.

    One that RocksDB meets in a table that it takes over fails the directory: then klamm ends, and its next start, on a disk
    that reads well again, has everything.
    """
    flips = offline_sum = ends = 0
    while run.has_time():
        rng = random.Random(f"{run.seed} {flips}")
        with Rig(rng.randrange(1 << 32), settings={"klamm.table.piece.bytes": rng.choice(["1", "8192"])}) as rig:
            writers = written(rig, rng, 1.5)
            # What is read comes from the disk.
            rig.broker.stop()
            rig.broker.start()
            for _ in range(3):
                rig.fs.order(f"flip path=*/db/*.sst seed={rng.randrange(1 << 32)}")
            rig.fs.rule("flip", "read", "*/db/*.sst", after=rng.randrange(20), count=2)
            flips += 5
            try:
                breaches, lost, offline = read_back(rig, writers)
            except OSError:
                assert ended(rig) == DISK_FAILED, f"ended with {rig.broker.child.returncode}: {rig.broker.tail(3)}"
                ends += 1
                rig.fs.clear()
                rig.broker.start(60)
                breaches, lost, offline = read_back(rig, writers)
            assert not breaches, breaches[:3]
            assert not lost, f"gone without a word: {lost[:3]}"
            assert len(offline) <= 5, f"{len(offline)} partitions offline: {dict(list(offline.items())[:6])}"
            assert not rig.broker.panics(), rig.broker.panics()
            offline_sum += len(offline)
    return f"{flips} flips, 0 wrong values, {offline_sum} partitions refused, klamm ended {ends} times"


def ended(rig):
    """Whether klamm has ended, soon; its exit code then."""
    deadline = time.monotonic() + ENDS_WITHIN
    while rig.broker.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    return None if rig.broker.alive() else rig.broker.child.returncode


def failing(operation, path, flush=True):
    """A row: an operation fails under load, once. The only directory fails, so klamm ends, as Kafka halts; then the power
    goes, and what was acknowledged is there all the same. Without `flush` (growing tables are for what is not synced) the
    power stays."""

    def body(run):
        rounds = met = 0
        while run.has_time():
            rounds += 1
            rng = random.Random(f"{run.seed} {rounds}")
            settings = {"klamm.table.piece.bytes": "1" if "growing" in path else rng.choice(["1", "8192"])}
            if flush:
                settings["log.flush.interval.messages"] = "1"
            with Rig(rng.randrange(1 << 32), settings=settings) as rig:
                rig.broker.start()
                load.create_topics(rig.port)
                writers = load.writers_of(rig.port, "w")
                for one in writers:
                    one.start()
                time.sleep(rng.uniform(0.3, 1.0))
                rule = rig.fs.rule("eio", operation, path, count=1)
                deadline = time.monotonic() + 10
                while not (hit := rig.fs.status()[f"rule{rule}"]) and time.monotonic() < deadline:
                    time.sleep(0.05)
                code = ended(rig) if hit else 0
                for one in writers:
                    one.ending.set()
                    one.producer.purge()
                if hit and code is None:
                    tail = rig.broker.tail(3)
                    for one in writers:
                        one.stop()
                    raise AssertionError(f"round {rounds}: {operation} of {path} failed and klamm lives on after "
                                         f"{ENDS_WITHIN:.0f} s, of its log: {tail}")  # fmt: skip
                met += hit
                loss = rig.lose_power(rng, "nothing") if flush else rig.broker.kill()
                rig.fs.clear()
                for one in writers:
                    one.stop()
                assert not hit or code not in (0, -6, -11), f"round {rounds}: ended with {code}"
                rig.broker.start(60)
                breaches, lost, offline = read_back(rig, writers)
                context = f"round {rounds}, {loss}"
                assert not breaches, f"{context}: {breaches[:3]}"
                assert not offline, f"{context}: {offline}"
                assert not lost, f"{context}: {len(lost)} acknowledged and gone: {lost[:3]}"
        assert met, f"it never came to {operation} of {path} in {rounds} rounds"
        return f"{met} of {rounds} rounds met it, klamm ended each time, 0 acknowledged lost"

    return body


def answers(port):
    """{partition: error code} of a Produce to each."""
    batch = wire.batch([load.value_of("xp", 0, 50)], int(time.time() * 1000))
    with wire.Client(port, timeout=60) as client:
        return {p: client.produce(load.SMALL, {p: batch}, timeout_ms=5000)[p][0] for p in range(load.PARTITIONS[load.SMALL])}


def goes_on_with_the_other(rig):
    """A directory is about to fail: Produce answers for each partition by itself, and still does a second later."""
    codes, deadline = {0}, time.monotonic() + 20
    while codes == {0} and time.monotonic() < deadline:
        time.sleep(0.2)
        codes = set(answers(rig.port).values())
    assert codes == {0, STORAGE_ERROR}, f"Produce answers {answers(rig.port)}"
    time.sleep(1.0)
    assert rig.broker.alive(), f"ended with {rig.broker.child.returncode}"
    found = answers(rig.port)
    assert set(found.values()) == {0, STORAGE_ERROR}, f"a second later Produce answers {found}"


def one_of_two_directories(run):
    """Of two log directories one fails. The second: its partitions go offline, the others are served, and acknowledged on.
    The first has the cluster's state, so klamm ends. Nothing acknowledged is lost either way."""
    rounds = {"d0": 0, "d1": 0}
    while run.has_time() or 0 in rounds.values():
        failed = min(rounds, key=rounds.get)
        rounds[failed] += 1
        rng = random.Random(f"{run.seed} {rounds} {failed}")
        with Rig(rng.randrange(1 << 32), settings={"log.flush.interval.messages": "1"}, dirs=2) as rig:
            rig.broker.start()
            load.create_topics(rig.port)
            writer = load.Writer(rig.port, "w", load.SMALL)
            writer.start()
            time.sleep(1.0)
            rig.fs.rule("eio", rng.choice(["write", "sync"]), f"{failed}/*")
            before = len(writer.acked)
            if failed == "d0":
                code = ended(rig)
                assert code == DISK_FAILED, f"ended with {code}: {rig.broker.tail(3)}"
            else:
                goes_on_with_the_other(rig)
            writer.ending.set()
            writer.producer.purge()
            writer.stop()
            rig.lose_power(rng, "nothing")
            rig.broker.start(60)
            logs = load.read_logs(rig.port, {load.SMALL: 24})
            lost = load.lost(load.acked_of([writer]), logs)
            bad = {at: log.error for at, log in logs.items() if log.error}
            assert not lost and not bad and before, f"{len(lost)} lost, {bad}, {before} acknowledged"
    return f"{rounds['d1']} times the other was served on, {rounds['d0']} times klamm ended, 0 acknowledged lost"


def short_and_slow(run):
    """Short writes and reads are gone on with; a disk that takes its time loses nothing."""
    with Rig(1, settings={"log.flush.interval.messages": "1"}) as rig:
        rig.fs.rule("short", "write", "*", count=300)
        rig.fs.rule("sleep:30", "sync", "*", count=100)
        rng = random.Random(run.seed)
        writers = written(rig, rng, 3.0)
        rig.fs.rule("short", "read", "*", count=300)
        breaches, lost, offline = read_back(rig, writers)
        assert not breaches and not lost and not offline, (breaches[:3], lost[:3], offline)
        rig.lose_power(rng, "nothing")
        rig.broker.start(60)
        breaches, lost, offline = read_back(rig, writers)
        assert not breaches and not lost and not offline, (breaches[:3], lost[:3], offline)
        return f"{sum(len(one.acked) for one in writers)} acknowledged, 0 lost"


# Name, what it does, and for how many seconds it may repeat itself: of a full run, and of a quick one (0: not in it).
ROWS = [
    ("R11 a bit of a table flips", damaged(["*/db/*.sst"], "flip", True), 40, 8),
    ("R11 a sector of a table is lost", damaged(["*/db/*.sst"], "zero", True), 20, 0),
    ("R11 a bit of a growing table flips", damaged(["*/growing/*"], "flip", True), 40, 8),
    ("R11 a sector of a growing table is lost", damaged(["*/growing/*"], "zero", True), 20, 0),
    ("R11 a bit of the write-ahead log flips", damaged(["*/db/*.log"], "flip", False), 20, 5),
    ("R11 a bit of MANIFEST and the like flips", damaged(SMALL_FILES, "flip", False), 30, 0),
    ("R11 bits flip under a running broker", damaged_while_it_runs, 30, 5),
    ("R11 EIO on write, write-ahead log", failing("write", "*/db/*.log"), 20, 0),
    ("R11 EIO on sync, write-ahead log", failing("sync", "*/db/*.log"), 25, 5),
    ("R11 EIO on sync, write-ahead log, flush defaults", failing("sync", "*/db/*.log", flush=False), 15, 0),
    ("R11 EIO on write, tables", failing("write", "*/db/*.sst"), 15, 0),
    ("R11 EIO on sync, tables", failing("sync", "*/db/*.sst"), 20, 0),
    ("R11 EIO on write, growing tables", failing("write", "*/growing/*", flush=False), 15, 4),
    ("R11 EIO on sync, growing tables", failing("sync", "*/growing/*", flush=False), 20, 0),
    ("R11 EIO on write, MANIFEST", failing("write", "*/db/MANIFEST*"), 15, 0),
    ("R11 EIO on sync, MANIFEST", failing("sync", "*/db/MANIFEST*"), 15, 4),
    ("R11 EIO on sync of a directory", failing("syncdir", "*"), 15, 0),
    ("R11 one of two directories fails", one_of_two_directories, 25, 5),
    ("R11 short writes and reads, slow syncs", short_and_slow, 15, 5),
]
