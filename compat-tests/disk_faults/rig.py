"""klamm on the fault file system, and how the power goes under it."""

import os
import uuid

from disk_faults.faultfs import FaultFs, keep_of
from kit.broker import Klamm

# Small write buffers and segments, so that files are written, merged and dropped all the time.
BUSY = {
    "group.initial.rebalance.delay.ms": "0", "log.cleaner.backoff.ms": "200", "auto.create.topics.enable": "false",
    "klamm.rocksdb.write.buffer.bytes": str(4 << 20), "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "3", "log.retention.check.interval.ms": "1000",
}  # fmt: skip


class Klamm(Klamm):
    """Its log directories lie on a fault file system; each start after a loss of power has a boot id of its own."""

    def __init__(self, fs, settings=None, dirs=1):
        super().__init__(BUSY | (settings or {}))
        self.dirs = [fs.mount / f"d{n}" for n in range(dirs)]
        self.settings["log.dirs"] = ",".join(map(str, self.dirs))
        self.settings["klamm.boot.id"] = str(uuid.uuid4())

    def panics(self):
        """Lines of its whole log that no run may have."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [line for line in lines if "panicked at" in line or "SIGSEGV" in line or "Assertion" in line]


class Rig:
    """A file system with one klamm on it. `with Rig(...) as rig` ends both; after a failure the logs are kept."""

    def __init__(self, seed, names="directory", settings=None, dirs=1):
        self.fs = FaultFs(seed, names, trace=bool(os.environ.get("FAULT_FS_TRACE")))
        self.fs.start(30)
        self.plant()
        self.broker = Klamm(self.fs, settings, dirs)
        self.fs.make_folders(*self.broker.dirs)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.broker.kill()
        self.fs.remove()
        if kind is None:
            self.broker.remove()
        else:
            print(f"      klamm's log: {self.broker.log_path}", flush=True)

    def plant(self):
        """KLAMM_PLANT is a pattern of paths whose syncs lie: then the rows about power must fail."""
        if os.environ.get("KLAMM_PLANT"):
            self.fs.rule("lie", "sync", os.environ["KLAMM_PLANT"])

    @property
    def port(self):
        return self.broker.port

    def lose_power(self, rng, keep=None):
        """Now; what it took, in numbers."""
        keep = keep or keep_of(rng)
        loss = self.fs.lose_power(self.broker.child, keep, rng.randrange(1 << 32))
        self.broker.settings["klamm.boot.id"] = str(uuid.uuid4())
        self.plant()
        return {"keep": keep} | loss

    def lose_power_at_a_moment(self, rng, seconds=3.0):
        """After a random time, or at a random operation that comes within `seconds`."""
        at = self.fs.moment(self.broker, rng, seconds)
        return {"at": at} | self.lose_power(rng)

    def wait_frozen(self, seconds):
        """Whether it froze."""
        return self.fs.wait_frozen(self.broker, seconds)

    def restart(self, rng, seconds=60):
        """Starts klamm after a loss of power; now and then the power goes during that start too."""
        while rng.random() < 0.25:
            self.fs.rule("freeze", "any", "*", after=rng.randrange(600))
            self.broker.launch()
            self.wait_frozen(1.5)
            self.lose_power(rng)
        return self.broker.start(seconds)
