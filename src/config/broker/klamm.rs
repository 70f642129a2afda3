//! klamm's own settings: few, and all with a default that fits one node.

use super::super::setting::*;

/// The rows.
pub(crate) const ROWS: &[Setting] = settings! {
    "klamm.tail.bytes" Long "67108864" [AtLeast(0)] ReadOnly => Honoured,
        "Memory for the newest batches of all partitions of a log directory, from which consumers at the end are fed.";
    "klamm.reply.bytes" Long "-1" [AtLeast(-1)] ReadOnly => Honoured,
        "Memory for fetched records that clients have not taken yet, and as much for other replies that wait; -1 means an \
         eighth of the memory, at most 256 MiB.";
    "klamm.rocksdb.write.buffer.bytes" Long "67108864" [AtLeast(1048576)] ReadOnly => Honoured,
        "Memory for records of a log directory that RocksDB has not flushed into files yet.";
    "klamm.table.piece.bytes" Long "8192" [AtLeast(1)] ReadOnly => Honoured,
        "What brings at least so many bytes for one partition at once goes straight to a file, once, where much of it \
         comes; less goes through RocksDB's log.";
    "klamm.page.cache.bytes" Long "-1" [AtLeast(-1)] ReadOnly => Honoured,
        "How much of what was written last is left in the page cache, for consumers behind the tail; -1 means what the \
         kernel keeps, half of the memory of a container that has less than the machine, and an eighth of that of a \
         virtual machine whose host takes free pages back.";
    "klamm.disk.reserve.bytes" Long "-1" [AtLeast(-1)] ReadOnly => Honoured,
        "Free disk space below which Produce is refused; -1 means 5 % of the disk, at most 1 GiB.";
    "klamm.stray.retention.ms" Long "86400000" [AtLeast(0)] ReadOnly => Honoured,
        "How long logs on disk are kept whose topic the cluster does not have; they come back when it does.";
    "klamm.allow.empty.log.dir" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether a broker starts with a new log directory although the cluster counts on partitions that it had there.";
    "klamm.controller.eligible" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether a broker beside ZooKeeper runs for controller. Where no broker of the cluster does, nothing is led.";
    "klamm.http.listener" Text null [Any] ReadOnly => Honoured,
        "Where /metrics, /livez and /readyz are served over HTTP, without a password, as in 127.0.0.1:9404; nowhere if \
         it is not set.";
    "klamm.boot.id" Text null [Any] ReadOnly internal => Honoured,
        "Stands in for the id of the machine's boot, for tests: with another one a start counts as one after a power loss.";
};
