"""A disk without space, and one that fails, as clients and whoever watches the process see them; one row per case.

The data lies on a tmpfs of 192 MiB, which takes a mount and so root: without it the run fails and says so, the quick one
(as in `make test`) is skipped. Ballast in a file of its own fills it up and is taken away again. What was acknowledged must
be there at the end, in order and once.

    compat-tests/run disk_full [--quick] [--only NAME ...]

KLAMM_BINARY names the binary; without it target/release/klamm.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from kit.broker import Klamm
from kit.wire import Client, batch, batches, values

MIB = 1 << 20
STORAGE_ERROR = 56
EXIT_NO_LOG_DIR = 74
# The disk's own end is met, not the reserve before it.
SETTINGS = {"klamm.disk.reserve.bytes": "0", "klamm.rocksdb.write.buffer.bytes": str(4 * MIB)}
LARGE = batch([os.urandom(60_000)], 1_700_000_000_000)
# Below what goes to a table of its own.
MIDDLE = batch([os.urandom(4_000)], 1_700_000_000_000)
SMALL = batch([b"small"], 1_700_000_000_000)


class NoMount(Exception):
    """Nothing can be mounted, and without that nothing is tested."""


def mount(*words):
    mounted = subprocess.run(["mount", *words], capture_output=True, text=True)
    if mounted.returncode:
        raise NoMount(mounted.stderr.strip())


@contextlib.contextmanager
def small_disk(more="", mib=192):
    """A folder whose `data` is a file system of its own. `more`: options of its mount."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="klamm-disk-"))
    data = folder / "data"
    data.mkdir()
    mount("-t", "tmpfs", "-o", f"size={mib}m{more}", "tmpfs", data)
    broker = Klamm(SETTINGS, folder)
    try:
        yield broker
    finally:
        broker.kill()
        subprocess.run(["umount", "-l", data], check=True)
        broker.remove()


def fill(broker):
    """Takes what is left of the disk, to the last page."""
    with open(broker.folder / "data" / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def free(broker):
    (broker.folder / "data" / "ballast").unlink()


class Log:
    """A topic of one partition, and how many batches of it were acknowledged."""

    def __init__(self, broker, name):
        self.broker, self.name, self.acknowledged = broker, name, 0
        with Client(broker.port) as client:
            assert client.create_topic(name, 1) == 0, "not created"
            deadline = time.monotonic() + 30
            while self.produce(client, SMALL) != 0:
                assert time.monotonic() < deadline, "no leader"
                time.sleep(0.05)

    def produce(self, client, one):
        error, base = client.produce(self.name, {0: one})[0]
        if error == 0:
            assert base == self.acknowledged, f"offset {base} instead of {self.acknowledged}"
            self.acknowledged += 1
        return error

    def until(self, client, one, wanted, seconds=60):
        """Produces until this error code comes."""
        deadline = time.monotonic() + seconds
        while (error := self.produce(client, one)) != wanted:
            assert error in (0, STORAGE_ERROR), f"error {error}"
            assert time.monotonic() < deadline, f"still {error} instead of {wanted} after {seconds} s"
            if error:
                time.sleep(0.1)

    def check(self):
        with Client(self.broker.port) as client:
            offset = 0
            while offset < self.acknowledged:
                error, _, records = client.fetch(self.name, {0: offset}, 8 * MIB)[0]
                assert error == 0, f"Fetch: {error}"
                for base, last, one in batches(records):
                    assert base == offset, f"{base} after {offset}"
                    assert [len(value) for _, value in values(one)] in ([60_000], [4_000], [5]), "other bytes"
                    offset = last + 1
            assert offset == self.acknowledged, f"{offset} records, {self.acknowledged} acknowledged"


def survives(broker, *logs):
    """Everything is there, now and after a start."""
    for log in logs:
        log.check()
    assert broker.stop() == 0, "did not stop in order"
    broker.start()
    for log in logs:
        log.check()


def full_under_load():
    """The disk fills while batches come in; then there is space again."""
    with small_disk() as broker:
        (broker.folder / "data" / "ballast").write_bytes(bytes(100 * MIB))
        broker.start()
        large, small = Log(broker, "large"), Log(broker, "small")
        with Client(broker.port) as client:
            large.until(client, LARGE, STORAGE_ERROR)
            with contextlib.suppress(TimeoutError, AssertionError):
                small.until(client, SMALL, STORAGE_ERROR, 5)
            assert broker.alive(), "ended"
            large.check()
            small.check()
            free(broker)
            large.until(client, LARGE, 0)
            small.until(client, SMALL, 0)
            for _ in range(100):
                large.until(client, LARGE, 0)
        survives(broker, large, small)


def full_before_a_table_begins():
    """There is no page left when the first large batches come."""
    with small_disk() as broker:
        broker.start()
        log = Log(broker, "t")
        with Client(broker.port) as client:
            fill(broker)
            log.until(client, LARGE, STORAGE_ERROR)
            time.sleep(2)
            assert broker.alive(), "ended"
            free(broker)
            for _ in range(200):
                log.until(client, LARGE, 0)
            fill(broker)
            log.until(client, LARGE, STORAGE_ERROR)
            log.until(client, SMALL, STORAGE_ERROR)
            free(broker)
            log.until(client, LARGE, 0)
        survives(broker, log)


def deleting_while_full():
    """Batches and deletions meet the end of the disk together, and what they leave to the background needs it, too."""
    over, deleted_below, errors = threading.Event(), 0, set()

    def delete(broker, log):
        nonlocal deleted_below
        while not over.is_set():
            with contextlib.suppress(OSError), Client(broker.port) as client:
                while not over.is_set():
                    below = client.list_offsets(log.name, [0], -1)[0][1] - 1
                    error, _ = client.delete_records(log.name, {0: below})[0]
                    errors.add(error)
                    deleted_below = deleted_below if error else below
                    time.sleep(0.005)

    with small_disk() as broker:
        broker.start()
        log, deleted = Log(broker, "t"), Log(broker, "deleted")
        with Client(broker.port) as client:
            for _ in range(50):
                log.until(client, SMALL, 0)
                deleted.until(client, SMALL, 0)
            deleter = threading.Thread(target=delete, args=(broker, deleted))
            deleter.start()
            try:
                fill(broker)
                deadline, refused = time.monotonic() + 10, 0
                while time.monotonic() < deadline:
                    refused += sum(one.produce(client, MIDDLE) != 0 for one in (log, deleted))
                    time.sleep(0.01)
                assert refused, "the disk never was full"
                assert broker.alive(), "ended"
                free(broker)
                for one in (log, deleted):
                    one.until(client, SMALL, 0)
                    one.until(client, LARGE, 0)
            finally:
                over.set()
                deleter.join()
            assert errors <= {0, STORAGE_ERROR}, errors
        survives(broker, log)
        with Client(broker.port) as client:
            start = client.list_offsets("deleted", [0], -2)[0][1]
            assert deleted_below <= start <= deleted.acknowledged, f"the log begins at {start}, deleted below {deleted_below}"


def no_file_more():
    """There is space, but none for another file, when RocksDB begins its next log."""
    with small_disk(",nr_inodes=400") as broker:
        broker.start()
        log, others = Log(broker, "t"), broker.folder / "data" / "others"
        others.mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (others / str(number)).touch()
        with Client(broker.port) as client:
            log.until(client, MIDDLE, STORAGE_ERROR)
            time.sleep(2)
            assert broker.alive(), "ended"
            shutil.rmtree(others)
            log.until(client, MIDDLE, 0, 20)
            for _ in range(100):
                log.until(client, MIDDLE, 0)
        survives(broker, log)


def last_directory_fails():
    """Where growing tables should lie there is a file, which no directory is: an error that is not want of space."""
    broker = Klamm(SETTINGS)
    try:
        broker.start()
        log = Log(broker, "t")
        (broker.folder / "data" / "growing").write_bytes(b"")
        with Client(broker.port) as client, contextlib.suppress(OSError):
            while log.produce(client, LARGE) == 0:
                pass
        code = broker.child.wait(30)
        assert code == EXIT_NO_LOG_DIR, f"exit code {code}"
        # The directory's and the partition's own lines may come after it, from another thread, and nothing else.
        _, said, after = broker.log().rpartition("all log directories have failed")
        lines = [line for line in after.splitlines()[1:] if line]
        own = ("log directory goes offline", "an append was not written")
        assert said and all(any(one in line for one in own) for line in lines), broker.tail(5)
        (broker.folder / "data" / "growing").unlink()
        broker.start()
        log.check()
    finally:
        broker.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [full_under_load, full_before_a_table_begins, deleting_while_full, no_file_more, last_directory_fails]
    quick = [deleting_while_full, no_file_more]
    parser.add_argument("--only", nargs="*", choices=[case.__name__ for case in cases])
    parser.add_argument("--quick", action="store_true", help="two cases, which take some 20 seconds")
    args, failed = parser.parse_args(), 0
    only = [case.__name__ for case in quick] if args.quick else args.only
    for case in cases:
        if only and case.__name__ not in only:
            continue
        try:
            case()
            print(f"PASS  {case.__name__}", flush=True)
        except NoMount as error:
            failed += not args.quick
            print(f"{'SKIP' if args.quick else 'FAIL'}  {case.__name__}: nothing can be mounted: {error}", flush=True)
        except Exception as error:  # noqa: BLE001
            failed += 1
            print(f"FAIL  {case.__name__}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
