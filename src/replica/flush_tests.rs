//! What `flush.ms` and `flush.messages` promise, by what a loss of power leaves of a partition's log.

use std::sync::Arc;
use std::time::Duration;

use super::ack::{Ack, Completion};
use super::flush::FlushTimer;
use super::partition::{AckAt, Home, Partition, Upkeep};
use super::testing;
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::reading::tail::Tail;
use crate::record::{BatchBuilder, ValidBatch};
use crate::storage::contract::partition;
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, SharedLogDir};
use crate::types::{BrokerId, ProducerEpoch, ProducerId};

/// A partition over this disk that is led here.
fn led(disk: &Arc<MemoryDir>, config: LogConfig) -> (Arc<Partition>, Arc<FlushTimer>) {
    let dir: SharedLogDir = disk.clone();
    let id = partition("t", 0);
    let family = dir.create(std::slice::from_ref(&id)).expect("created")[0];
    let tail = Tail::new(1 << 20);
    let log = PartitionLog::open(Arc::clone(&dir), id.clone(), family, config, Arc::clone(&tail), 0).expect("opens");
    let (me, flush) = (BrokerId(1), FlushTimer::new(Arc::clone(&dir)));
    let upkeep = Upkeep { cleaner: Arc::default(), flush: Arc::clone(&flush) };
    let (around, home) =
        (testing::alone(me, Arc::new(ManualClock::new(0, 1))), Home { at: 0, dir, family, tail, generation: 0 });
    let partition = Partition::new(around, id, home, upkeep, log);
    testing::take(&partition, testing::role(me.0, 0));
    (partition, flush)
}

fn records(count: usize) -> ValidBatch {
    let mut builder = BatchBuilder::new();
    for _ in 0..count {
        builder.append(0, Some(b"k"), Some(b"v"));
    }
    builder.finish()
}

/// Appends and waits for the acknowledgement.
fn append(partition: &Arc<Partition>, batch: ValidBatch) {
    let (completion, mut acked) = Completion::new(1);
    drop(partition.append(batch, AckAt::Written(Ack::new(&completion, 0)), None, None, 0).expect("accepted"));
    drop(completion);
    let outcomes = loop {
        match acked.try_all() {
            Some(outcomes) => break outcomes,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(outcomes, [Ok(())]);
}

/// Where the log ends after a loss of power.
fn left(disk: &MemoryDir) -> i64 {
    let (partition, _) = led(&disk.after_power_loss(), LogConfig::default());
    partition.view().log_end_offset.0
}

#[test]
fn by_default_nothing_is_synced() {
    let disk = MemoryDir::open();
    let (partition, _) = led(&disk, LogConfig::default());
    for _ in 0..10 {
        append(&partition, records(1));
    }
    assert_eq!((disk.syncs(), left(&disk)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_flush_ms_ago_survives_a_loss_of_power() {
    let disk = MemoryDir::open();
    let (partition, timer) = led(&disk, LogConfig { flush_ms: 100, ..LogConfig::default() });
    tokio::spawn(timer.run());
    append(&partition, records(2));
    append(&partition, records(3));
    tokio::time::sleep(Duration::from_millis(99)).await;
    append(&partition, records(1));
    assert_eq!((disk.syncs(), left(&disk)), (0, 0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    while disk.syncs() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(&disk), 6);
    append(&partition, records(1));
    tokio::time::sleep(Duration::from_millis(101)).await;
    while disk.syncs() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(&disk), 7);
}

#[test]
fn an_append_that_completes_flush_messages_is_acknowledged_after_the_sync() {
    let disk = MemoryDir::open();
    let (partition, _) = led(&disk, LogConfig { flush_messages: 5, ..LogConfig::default() });
    for (count, expected) in [(4, 0), (1, 5), (3, 5), (1, 5), (2, 11), (7, 18), (1, 18)] {
        append(&partition, records(count));
        assert_eq!(left(&disk), expected);
    }
    assert_eq!(disk.syncs(), 3);
    partition.set_config(LogConfig { flush_messages: 1, ..LogConfig::default() }, 1);
    append(&partition, records(1));
    assert_eq!(left(&disk), 20, "a change counts at once");
    partition.set_config(LogConfig::default(), 1);
    append(&partition, records(100));
    assert_eq!(left(&disk), 20);
}

/// A kill comes between the write and its sync; the client repeats what was not acknowledged.
#[test]
fn a_batch_repeated_after_a_kill_is_acknowledged_after_a_sync_as_well() {
    let repeated = || {
        let mut builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), 0);
        builder.append(0, Some(b"k"), Some(b"v"));
        builder.finish()
    };
    let disk = MemoryDir::open();
    let (before, _) = led(&disk, LogConfig::default());
    append(&before, repeated());
    disk.close();
    let disk = disk.reopen();
    let (after, _) = led(&disk, LogConfig { flush_messages: 1, ..LogConfig::default() });
    assert_eq!(left(&disk), 0);
    append(&after, repeated());
    assert_eq!((after.view().log_end_offset.0, left(&disk)), (1, 1));
    append(&after, repeated());
    assert_eq!(disk.syncs(), 1, "once is enough");
}
