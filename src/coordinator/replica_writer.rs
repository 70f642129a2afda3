//! [`PartitionWriter`] over the replicas of this broker: the only file of the coordinators that knows them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::ready;

use super::writer::{
    Appending, CoordinatorRecord, Entry, InTransaction, Loaded, PartitionWriter, TransactionRefusal, Visitor,
    WriteError,
};
use crate::clock::{SharedClock, UnixMs};
use crate::log::config::LogConfig;
use crate::log::partition_log::AppendError;
use crate::record::build::BatchBuilder;
use crate::record::control::read_marker;
use crate::record::walk;
use crate::record::{BatchError, BatchHeader, ValidBatch};
use crate::replica::ack::{Ack, AckError, Acked, Completion};
use crate::replica::manager::ReplicaManager;
use crate::replica::partition::{Accepted, AckAt, AppendRefused};
use crate::task;
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::types::{
    Fence, LeaderEpoch, LogOpening, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName, TransactionGuard,
};

/// Bytes read at a time while a coordinator's state is loaded, and bytes of records kept of them at most. Of what is
/// committed again and again only the last is replayed, so a longer step saves more.
const LOAD_STEP_BYTES: usize = 16 << 20;
const LOAD_KEPT_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct ReplicaWriter {
    replicas: Arc<ReplicaManager>,
    clock: SharedClock,
}

impl ReplicaWriter {
    pub(crate) fn new(replicas: Arc<ReplicaManager>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { replicas, clock })
    }
}

impl From<AppendRefused> for WriteError {
    fn from(refusal: AppendRefused) -> Self {
        match refusal {
            AppendRefused::NotLeader => Self::NotLeader,
            AppendRefused::NotEnoughReplicas => Self::NotEnoughReplicas,
            AppendRefused::Log(AppendError::InvalidTxnState { .. }) => TransactionRefusal::InvalidTxnState.into(),
            AppendRefused::Log(AppendError::InvalidProducerEpoch { .. }) => {
                TransactionRefusal::InvalidProducerEpoch.into()
            }
            AppendRefused::Log(AppendError::TransactionCoordinatorFenced { .. }) => {
                TransactionRefusal::CoordinatorFenced.into()
            }
            AppendRefused::Full => Self::Full,
            AppendRefused::Storage(_) | AppendRefused::Log(_) => Self::Storage(refusal.to_string()),
        }
    }
}

impl From<AckError> for WriteError {
    fn from(error: AckError) -> Self {
        match error {
            AckError::NotLeader => Self::NotLeader,
            AckError::Full => Self::Full,
            AckError::Storage(_) => Self::Storage(error.to_string()),
            AckError::NotEnoughAfterAppend => Self::NotEnoughAfterAppend,
        }
    }
}

/// Appends one batch, whose place is fixed when this returns, and answers when the high watermark has passed it.
pub(super) fn append_replicated(
    append: impl FnOnce(AckAt) -> Result<Accepted, WriteError>,
) -> Result<Appending, WriteError> {
    let (completion, acked) = Completion::new(1);
    let accepted = append(AckAt::HighWatermark(Ack::new(&completion, 0)))?;
    let end_offset = accepted.appended.last_offset + 1;
    // Writes it, perhaps here.
    drop(accepted);
    Ok(async move { outcome_of(acked).await.map(|()| end_offset) }.boxed())
}

/// The one outcome there is.
async fn outcome_of(acked: Acked) -> Result<(), WriteError> {
    match acked.all().await.into_iter().next() {
        Some(outcome) => Ok(outcome?),
        None => Err(WriteError::NotLeader),
    }
}

/// The batch that records become.
fn batch_of(transaction: Option<InTransaction>, records: &[CoordinatorRecord], now: UnixMs) -> ValidBatch {
    let mut builder = BatchBuilder::new();
    if let Some(InTransaction { producer_id, producer_epoch, .. }) = transaction {
        builder = builder.in_transaction(producer_id, producer_epoch);
    }
    for record in records {
        builder.append(now, Some(&record.key), record.value.as_deref());
    }
    builder.finish()
}

impl PartitionWriter for ReplicaWriter {
    fn may_append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
    ) -> Result<LogOpening, WriteError> {
        let replica = self.replicas.get(topic.as_str(), partition).ok_or(WriteError::NotLeader)?;
        Ok(replica.may_append(epoch, self.clock.now_ms())?)
    }

    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        fence: Fence,
        entry: &Entry,
    ) -> Result<Appending, WriteError> {
        let replica = self.replicas.get(topic.as_str(), partition).ok_or(WriteError::NotLeader)?;
        let now = self.clock.now_ms();
        append_replicated(|ack| match entry {
            Entry::Records { transaction, records } => {
                let batch = batch_of(*transaction, records, now);
                if batch.bytes.len() > replica.with_log(|log| log.config().max_message_bytes) {
                    return Err(WriteError::TooLarge);
                }
                let guard = transaction.and_then(|transaction| transaction.guard);
                Ok(replica.append(batch, ack, Some(fence), guard, now)?)
            }
            Entry::Marker(marker) => Ok(replica.append_marker(marker, ack, Some(fence), now)?),
        })
    }

    fn begin_verification(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Option<TransactionGuard> {
        self.replicas.get(topic.as_str(), partition)?.begin_verification(producer_id, producer_epoch)
    }

    fn batch_bytes_max(&self, topic: &TopicName) -> usize {
        let replica = self.replicas.of_topic(topic.as_str()).into_iter().next();
        replica.map_or(LogConfig::default().max_message_bytes, |replica| {
            replica.with_log(|log| log.config().max_message_bytes)
        })
    }

    fn until_replicated(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        end: Offset,
    ) -> Appending {
        let Some(replica) = self.replicas.get(topic.as_str(), partition) else {
            return ready(Err(WriteError::NotLeader)).boxed();
        };
        let (completion, acked) = Completion::new(1);
        replica.on_replicated(epoch, end, Ack::new(&completion, 0));
        async move {
            match outcome_of(acked).await {
                // How many replicas are in sync is of no interest to what was there before.
                Ok(()) | Err(WriteError::NotEnoughAfterAppend) => Ok(end),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn load(&self, topic: &TopicName, partition: PartitionIndex, mut visit: Visitor) -> Appending {
        let Some(replica) = self.replicas.get(topic.as_str(), partition) else {
            return ready(Err(WriteError::NotLeader)).boxed();
        };
        task::blocking(move || {
            let (view, reader) = (replica.view(), replica.reader());
            let mut next = view.log_start_offset;
            let mut latest = Latest::default();
            while next < view.log_end_offset {
                let from = next;
                next = view.log_end_offset;
                let mut read_bytes = 0;
                let mut visited = Ok(ControlFlow::Continue(()));
                reader
                    .visit_headers(from, view.log_end_offset, |_, header, batch| {
                        if read_bytes >= LOAD_STEP_BYTES || latest.bytes >= LOAD_KEPT_BYTES {
                            next = header.base_offset;
                            return ControlFlow::Break(());
                        }
                        read_bytes += batch.len();
                        visited = latest.take_or_show(header, batch, &mut visit);
                        if let Ok(flow) = visited { flow } else { ControlFlow::Break(()) }
                    })
                    .map_err(|failure| WriteError::Storage(failure.to_string()))?;
                let flow = visited
                    .map_err(|bad| WriteError::Storage(format!("an internal topic holds a broken batch: {bad}")))?;
                if flow.is_break() || latest.drain(&mut visit).is_break() {
                    break;
                }
            }
            Ok(view.log_end_offset)
        })
        .boxed()
    }
}

/// The records of one step of a load: of each key only the last, as compaction would leave them.
#[derive(Debug, Default)]
struct Latest {
    by_key: HashMap<Box<[u8]>, Kept>,
    /// Of keys and values.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    offset: Offset,
    timestamp: UnixMs,
    value: Option<Vec<u8>>,
}

impl Latest {
    /// Takes the records of one batch, which follows those taken before; or visits them, after those, because what
    /// belongs to a transaction counts in its order.
    fn take_or_show(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        visit: &mut Visitor,
    ) -> Result<ControlFlow<()>, BatchError> {
        if !header.is_transactional() && !header.is_control() {
            return self.take(batch).map(|()| ControlFlow::Continue(()));
        }
        let drained = self.drain(visit);
        if drained.is_break() { Ok(drained) } else { show(header, batch, visit) }
    }

    fn take(&mut self, batch: &[u8]) -> Result<(), BatchError> {
        walk::for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
            let Some(key) = record.key else { return ControlFlow::Continue(()) };
            self.bytes += record.value.map_or(0, <[u8]>::len);
            match self.by_key.get_mut(key) {
                Some(kept) => {
                    self.bytes -= kept.value.as_ref().map_or(0, Vec::len);
                    kept.offset = record.offset;
                    kept.timestamp = record.timestamp;
                    match (&mut kept.value, record.value) {
                        (Some(buffer), Some(value)) => {
                            buffer.clear();
                            buffer.extend_from_slice(value);
                        }
                        (before, value) => *before = value.map(<[u8]>::to_vec),
                    }
                }
                None => {
                    self.bytes += key.len();
                    let value = record.value.map(<[u8]>::to_vec);
                    let kept = Kept { offset: record.offset, timestamp: record.timestamp, value };
                    self.by_key.insert(key.into(), kept);
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Visits what was kept, in the order of the log, and forgets it.
    fn drain(&mut self, visit: &mut Visitor) -> ControlFlow<()> {
        self.bytes = 0;
        let mut records: Vec<(Box<[u8]>, Kept)> = self.by_key.drain().collect();
        records.sort_unstable_by_key(|(_, kept)| kept.offset);
        for (key, kept) in records {
            let record = CoordinatorRecord { key: Bytes::from(key), value: kept.value.map(Bytes::from) };
            visit(Loaded::Record { offset: kept.offset, timestamp: kept.timestamp, producer_id: None, record })?;
        }
        ControlFlow::Continue(())
    }
}

/// Visits what a batch adds to a transaction, or that it ends one.
fn show(header: &BatchHeader, batch: &[u8], visit: &mut Visitor) -> Result<ControlFlow<()>, BatchError> {
    if header.is_control() {
        let marker = read_marker(header, batch)?;
        return Ok(marker.map_or(ControlFlow::Continue(()), |marker| visit(Loaded::Marker(marker))));
    }
    let mut flow = ControlFlow::Continue(());
    walk::for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
        let Some(key) = record.key else { return ControlFlow::Continue(()) };
        let (key, value) = (Bytes::copy_from_slice(key), record.value.map(Bytes::copy_from_slice));
        flow = visit(Loaded::Record {
            offset: record.offset,
            timestamp: record.timestamp,
            producer_id: Some(header.producer_id),
            record: CoordinatorRecord { key, value },
        });
        flow
    })?;
    Ok(flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::control::marker_batch;
    use crate::record::stamp;
    use crate::types::{TransactionMarker, TransactionResult};

    fn batch(base_offset: i64, records: &[(&str, Option<&str>)]) -> ValidBatch {
        let mut builder = BatchBuilder::new();
        for (key, value) in records {
            builder.append(7, Some(key.as_bytes()), value.map(str::as_bytes));
        }
        let mut batch = builder.finish();
        stamp(&mut batch, Offset(base_offset), LeaderEpoch(0), None);
        batch
    }

    #[test]
    fn what_belongs_to_a_transaction_is_visited_in_its_order() {
        let stamped = |mut batch: ValidBatch, base_offset| {
            stamp(&mut batch, Offset(base_offset), LeaderEpoch(0), None);
            batch
        };
        let mut builder = BatchBuilder::new().in_transaction(ProducerId(4), ProducerEpoch(0));
        builder.append(7, Some(b"a"), Some(b"2"));
        let marker = TransactionMarker {
            producer_id: ProducerId(4),
            producer_epoch: ProducerEpoch(0),
            coordinator_epoch: 3,
            result: TransactionResult::Commit,
        };
        let (told, seen) = std::sync::mpsc::channel();
        let mut visit: Visitor = Box::new(move |found| {
            told.send(found).expect("this test listens");
            ControlFlow::Continue(())
        });
        let mut latest = Latest::default();
        let written = [
            batch(0, &[("a", Some("1"))]),
            stamped(builder.finish(), 1),
            batch(2, &[("a", Some("3"))]),
            stamped(marker_batch(&marker, 7), 3),
        ];
        for batch in &written {
            let flow = latest.take_or_show(&batch.header, &batch.bytes, &mut visit).expect("a good batch");
            assert!(flow.is_continue() && latest.drain(&mut visit).is_continue());
        }
        drop(visit);
        let record = |offset, producer_id, value: &'static str| Loaded::Record {
            offset: Offset(offset),
            timestamp: 7,
            producer_id,
            record: CoordinatorRecord { key: Bytes::from("a"), value: Some(Bytes::from(value)) },
        };
        let expected =
            [record(0, None, "1"), record(1, Some(ProducerId(4)), "2"), record(2, None, "3"), Loaded::Marker(marker)];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn of_each_key_the_last_record_is_visited_in_the_order_of_the_log() {
        let mut latest = Latest::default();
        for batch in [
            batch(10, &[("a", Some("1")), ("b", Some("long")), ("c", None), ("a", Some("3"))]),
            batch(14, &[("b", Some("x")), ("c", Some("y")), ("b", None)]),
        ] {
            latest.take(&batch.bytes).expect("a good batch");
        }
        assert_eq!(latest.bytes, 3 + "3".len() + "y".len());
        let (told, seen) = std::sync::mpsc::channel();
        let mut visit: Visitor = Box::new(move |found| {
            told.send(found).expect("this test listens");
            ControlFlow::Continue(())
        });
        assert!(latest.drain(&mut visit).is_continue() && latest.by_key.is_empty());
        drop(visit);
        let record = |offset, key, value: Option<&'static str>| Loaded::Record {
            offset: Offset(offset),
            timestamp: 7,
            producer_id: None,
            record: CoordinatorRecord { key: Bytes::from(key), value: value.map(Bytes::from) },
        };
        let expected = [record(13, "a", Some("3")), record(15, "c", Some("y")), record(16, "b", None)];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }
}
