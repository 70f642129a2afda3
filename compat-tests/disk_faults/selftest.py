"""Whether the fault file system does what it says: one row per promise, each asked through the mount.

What stays after a loss of power is asked of a child that wrote it and was killed, as the suite does with klamm.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import random
import subprocess
import sys
import textwrap
import time

from disk_faults.faultfs import FaultFs

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
KEEP_SIZE, PUNCH_HOLE = 1, 2
ROWS = []


def row(name, names="directory"):
    def add(body):
        ROWS.append((name, names, body))
        return body

    return add


def equal(got, wanted, what):
    assert got == wanted, f"{what}: {str(got)[:200]}, not {str(wanted)[:200]}"


def child(fs, code):
    """A program that runs this code in the mount, says so, and goes on until it is killed."""
    prelude = "import os, time\nd = lambda p: os.open(p, os.O_RDONLY)\n"
    tail = "\nprint('done', flush=True)\ntime.sleep(600)\n"
    program = subprocess.Popen([sys.executable, "-c", prelude + textwrap.dedent(code) + tail], cwd=fs.mount,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    equal(program.stdout.readline(), "done\n", "the program")
    return program


def read(path):
    return pathlib.Path(path).read_bytes()


def fails(code, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        equal(error.errno, code, "errno")
        return
    raise AssertionError(f"succeeded, and should not with {errno.errorcode[code]}")


@row("what a disk does: write, read, truncate, rename, link, remove, list")
def plain(fs, rng):
    root = fs.mount
    (root / "a").mkdir()
    (root / "a/one").write_bytes(b"x" * 100_000)
    with open(root / "a/one", "r+b") as file:
        file.seek(50_000)
        file.write(b"y" * 10)
        file.truncate(60_000)
        file.truncate(70_000)
    equal(read(root / "a/one"), b"x" * 50_000 + b"y" * 10 + b"x" * 9990 + bytes(10_000), "bytes")
    os.link(root / "a/one", root / "two")
    equal(os.stat(root / "two").st_nlink, 2, "links")
    os.rename(root / "two", root / "a/three")
    equal(sorted(os.listdir(root / "a")), ["one", "three"], "names")
    fails(errno.ENOTEMPTY, os.rmdir, root / "a")
    fails(errno.EEXIST, os.link, root / "a/one", root / "a/three")
    with open(root / "a/one", "rb") as file:
        os.remove(root / "a/one")
        os.remove(root / "a/three")
        equal(os.fstat(file.fileno()).st_nlink, 0, "links of an open file without names")
        equal(len(file.read()), 70_000, "its bytes")
    os.rmdir(root / "a")
    equal(os.listdir(root), [], "names")
    names = [f"n{i:04}" for i in range(3000)]
    for name in names:
        (root / name).touch()
    equal(sorted(os.listdir(root)), names, "three thousand names")


@row("direct I/O, fallocate, holes, mappings, locks, appending")
def special(fs, rng):
    path = fs.mount / "file"
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 8192)
    buffer.write(b"d" * 8192)
    equal(os.pwrite(fd, buffer, 4096), 8192, "a direct write")
    back = mmap.mmap(-1, 8192)
    equal(os.preadv(fd, [back], 4096), 8192, "a direct read")
    equal(back[:], b"d" * 8192, "its bytes")
    used = os.fstat(fd).st_blocks
    equal(LIBC.fallocate(fd, KEEP_SIZE, 0, 1 << 20), 0, "fallocate")
    stat = os.fstat(fd)
    equal((stat.st_size, stat.st_blocks), (12_288, (1 << 20) // 512), "kept size, and blocks")
    assert used < stat.st_blocks, "it had them before"
    equal(LIBC.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 4096, 4096), 0, "a hole")
    equal(read(path), bytes(8192) + b"d" * 4096, "a hole's bytes")
    equal(LIBC.fallocate(fd, 0, 0, 20_000), 0, "fallocate with size")
    equal(os.fstat(fd).st_size, 20_000, "size")
    with mmap.mmap(fd, 20_000, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        equal(mapped[8192:8200], b"d" * 8, "mapped bytes")
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    code = f"import fcntl,os; fcntl.lockf(os.open({str(path)!r}, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    equal(subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode, 1, "a second lock")
    os.close(fd)
    with open(path, "ab") as file:
        file.write(b"e")
    equal(os.stat(path).st_size, 20_001, "appended")


@row("random reads and writes are those of a disk")
def noise(fs, rng):
    path, other = fs.mount / "file", fs.folder / "model"
    with open(path, "w+b", buffering=0) as file, open(other, "w+b", buffering=0) as model:
        for n in range(1500):
            offset, size = rng.randrange(1 << 20), rng.randrange(1, 200_000)
            what = rng.randrange(6)
            data = rng.randbytes(size) if what < 3 else b""
            got = []
            for one in (file, model):
                if what < 3:
                    got.append(os.pwrite(one.fileno(), data, offset))
                elif what == 3:
                    got.append(os.ftruncate(one.fileno(), offset))
                elif what == 4:
                    got.append(LIBC.fallocate(one.fileno(), KEEP_SIZE | PUNCH_HOLE, offset, size))
                else:
                    got.append(os.pread(one.fileno(), size, offset))
            equal(got[0], got[1], f"operation {n}")
    assert read(path) == read(other), "the files differ"


@row("a loss of power takes what was not synced, and nothing else")
def losing(fs, rng):
    program = child(fs, """
        f = os.open("f", os.O_CREAT | os.O_RDWR)
        os.write(f, b"a" * 10000); os.fsync(f); os.fsync(d("."))
        os.pwrite(f, b"b" * 5000, 2000); os.pwrite(f, b"c" * 50000, 9000)
        g = os.open("g", os.O_CREAT | os.O_RDWR); os.write(g, b"g"); os.fsync(g)
        h = os.open("h", os.O_CREAT | os.O_RDWR); os.fsync(d(".")); os.write(h, b"h")
        assert os.pread(f, 3, 2000) == b"bbb"
    """)
    loss = fs.lose_power(program)
    equal(read(fs.mount / "f"), b"a" * 10_000, "a synced file")
    equal(sorted(os.listdir(fs.mount)), ["f", "g", "h"], "names")
    equal(read(fs.mount / "g"), b"g", "a file synced before its directory")
    equal(read(fs.mount / "h"), b"", "a name without its bytes")
    assert loss["bytes"] == 55_001, loss


@row("a name is durable when its directory was synced")
def names_by_directory(fs, rng):
    program = child(fs, """
        os.mkdir("e"); os.fsync(d("."))
        for name in ("x", "y", "z"):
            f = os.open(name, os.O_CREAT | os.O_RDWR); os.write(f, name.encode()); os.fsync(f)
        os.fsync(d("."))
        os.rename("x", "e/x"); os.fsync(d("e"))
        os.remove("y"); os.link("z", "e/z")
        f = os.open("new", os.O_CREAT | os.O_RDWR); os.write(f, b"n"); os.fsync(f)
    """)
    fs.lose_power(program)
    equal(sorted(os.listdir(fs.mount)), ["e", "y", "z"], "names")
    equal(os.listdir(fs.mount / "e"), ["x"], "names in e")
    equal(read(fs.mount / "e/x") + read(fs.mount / "y"), b"xy", "bytes")
    equal(os.stat(fs.mount / "z").st_nlink, 1, "links")


@row("as on ext4, names are durable when anything was synced, in their order", names="journal")
def names_by_journal(fs, rng):
    program = child(fs, """
        f = os.open("a", os.O_CREAT | os.O_RDWR); os.fsync(f)
        os.rename("a", "b"); g = os.open("c", os.O_CREAT | os.O_RDWR); os.write(g, b"c"); os.fdatasync(f)
        os.remove("b")
    """)
    fs.lose_power(program)
    equal(sorted(os.listdir(fs.mount)), ["b", "c"], "names")
    equal(read(fs.mount / "c"), b"", "bytes of one that was not synced")


WRITES = """
    f = os.open("f", os.O_CREAT | os.O_RDWR); os.fsync(f); os.fsync(d("."))
    for n in range(64):
        os.pwrite(f, bytes([n + 1]) * 6000, n * 6000)
"""


@row("keep=prefix leaves what came first, the last write torn at a sector")
def prefix(fs, rng):
    lengths = set()
    for n in range(12):
        fs.lose_power(child(fs, WRITES), "prefix", seed=rng.randrange(1 << 30))
        found = read(fs.mount / "f")
        whole = b"".join(bytes([n + 1]) * 6000 for n in range(64))
        equal(found, whole[: len(found)], f"seed {n}")
        assert len(found) % 6000 % 512 == 0, len(found)
        lengths.add(len(found))
        os.remove(fs.mount / "f")
    assert len(lengths) > 6 and any(length % 6000 for length in lengths), lengths


@row("keep=some leaves pages in any order; the same seed leaves the same")
def some(fs, rng):
    holes = 0
    for n in range(8):
        seed, left = rng.randrange(1 << 30), []
        for _ in range(2):
            fs.lose_power(child(fs, WRITES), "some", seed=seed)
            left.append(read(fs.mount / "f"))
            os.remove(fs.mount / "f")
            fs.lose_power(child(fs, "os.fsync(d('.'))"))
        assert left[0] == left[1], f"seed {seed}"
        for at in range(0, len(left[0]), 6000):
            assert set(left[0][at : at + 6000]) <= {0, at // 6000 + 1}, "bytes that nobody wrote there"
        holes += 0 < left[0].count(0)
    assert holes, "never a hole"


@row("EIO on write, sync and read, by path and count")
def eio(fs, rng):
    f = os.open(fs.mount / "x.log", os.O_CREAT | os.O_RDWR)
    g = os.open(fs.mount / "y.sst", os.O_CREAT | os.O_RDWR)
    rule = fs.rule("eio", "write", "*.log", after=1, count=2)
    os.write(g, b"g")
    os.write(f, b"1")
    fails(errno.EIO, os.write, f, b"2")
    fails(errno.EIO, os.write, f, b"3")
    os.write(f, b"4")
    equal(read(fs.mount / "x.log"), b"14", "bytes")
    equal(fs.status()[f"rule{rule}"], 2, "hits")
    fs.rule("eio", "read", "*.sst")
    fails(errno.EIO, os.pread, g, 1, 0)
    fs.clear()
    equal(os.pread(g, 1, 0), b"g", "after the rules were cleared")
    for name in (f, g):
        os.close(name)


@row("what a failed sync left is lost, though the next sync succeeds")
def failed_sync(fs, rng):
    rule = fs.rule("eio", "sync", "f", count=1)
    program = child(fs, """
        f = os.open("f", os.O_CREAT | os.O_RDWR); os.write(f, b"1")
        try: os.fsync(f)
        except OSError as error: assert error.errno == 5
        else: raise SystemExit("no error")
        os.fsync(f); os.fsync(d("."))
    """)
    equal(fs.status()[f"rule{rule}"], 1, "hits")
    fs.lose_power(program)
    equal(read(fs.mount / "f"), b"", "bytes")


@row("a sync that lies leaves nothing durable")
def lie(fs, rng):
    fs.rule("lie", "sync", "f")
    program = child(fs, """
        for name in ("f", "g"):
            f = os.open(name, os.O_CREAT | os.O_RDWR); os.write(f, b"1"); os.fsync(f)
        os.fsync(d("."))
    """)
    fs.lose_power(program)
    equal((read(fs.mount / "f"), read(fs.mount / "g")), (b"", b"1"), "bytes")


@row("a flipped bit on the medium, a zeroed sector, a flipped bit of a read")
def flips(fs, rng):
    path, data = fs.mount / "f", rng.randbytes(50_000)
    path.write_bytes(data)
    where = fs.fields(f"flip path=f seed={rng.randrange(1 << 30)}")
    found = read(path)
    changed = [i for i in range(len(data)) if data[i] != found[i]]
    equal(changed, [where["offset"]], "bytes that changed")
    assert (data[changed[0]] ^ found[changed[0]]).bit_count() == 1
    where = fs.fields("zero path=f seed=1")
    equal(read(path)[where["offset"] : where["offset"] + 512].strip(b"\0"), b"", "the sector")
    before = read(path)
    fs.rule("flip", "read", "f", count=1)
    assert read(path) != before, "no bit was flipped"
    assert read(path) == before, "not for one read only"


@row("ENOSPC at the limit, also for files that are open without a name; then space again")
def enospc(fs, rng):
    fs.order("limit bytes=10485760")
    f = os.open(fs.mount / "f", os.O_CREAT | os.O_RDWR)
    written = 0
    with contextlib.suppress(OSError):
        while written < 100 << 20:
            written += os.write(f, b"x" * 65536)
    assert 10_300_000 <= written <= 10_485_760, written
    equal(os.statvfs(fs.mount).f_bavail, 0, "free blocks")
    equal(os.pwrite(f, b"y" * 65536, 0), 65536, "writing over what is there")
    fails(errno.ENOSPC, (fs.mount / "g").touch)
    os.remove(fs.mount / "f")
    fails(errno.ENOSPC, (fs.mount / "g").touch)
    os.close(f)
    deadline = time.monotonic() + 10
    while fs.status()["used"] and time.monotonic() < deadline:
        time.sleep(0.01)
    (fs.mount / "g").write_bytes(b"z" * 1_000_000)
    g = os.open(fs.mount / "g", os.O_RDWR)
    equal(LIBC.fallocate(g, KEEP_SIZE, 0, 20 << 20), -1, "more than there is")
    equal(ctypes.get_errno(), errno.ENOSPC, "errno")
    fs.order("limit bytes=0")
    equal(LIBC.fallocate(g, KEEP_SIZE, 0, 20 << 20), 0, "without a limit")
    os.close(g)


@row("short writes, and slow ones")
def short(fs, rng):
    f = os.open(fs.mount / "f", os.O_CREAT | os.O_RDWR)
    fs.rule("short", "write", count=1)
    equal(os.write(f, b"x" * 1000), 500, "bytes")
    fs.clear()
    fs.rule("sleep:300", "sync")
    began = time.monotonic()
    os.fsync(f)
    assert time.monotonic() - began >= 0.3
    os.close(f)


@row("the power goes at a given operation")
def freeze(fs, rng):
    for after in (0, 3, 7):
        fs.rule("freeze", "write", after=after)
        code = "import os\nf = os.open('f', os.O_CREAT | os.O_WRONLY)\nwhile True: os.write(f, b'x'); os.fsync(f)"
        program = subprocess.Popen([sys.executable, "-c", code], cwd=fs.mount)
        deadline = time.monotonic() + 30
        while fs.status()["power"] != "frozen":
            assert time.monotonic() < deadline, "it does not freeze"
            time.sleep(0.01)
        fs.lose_power(program, "prefix", seed=1)
        path = fs.mount / "f"
        assert not path.exists() or len(read(path)) in (0, after), "bytes of after the power went"
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def main():
    seed = int(os.environ.get("KLAMM_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"KLAMM_SEED={seed}", flush=True)
    failed = 0
    for name, names, body in ROWS:
        fs = FaultFs(seed, names)
        try:
            fs.start(30)
            body(fs, random.Random(f"{seed} {name}"))
            note, verdict = "", "PASS"
        except Exception as problem:  # noqa: BLE001, a row for whatever went wrong
            note, verdict = f"{type(problem).__name__}: {problem} {fs.log()[-500:]}", "FAIL"
            failed += 1
        finally:
            fs.remove()
        print(f"{verdict}  {name}  {note}".rstrip(), flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
