//! [`PartitionWriter`] over the replicas of this broker: the only file of the coordinators that knows them.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::writer::{CoordinatorRecord, PartitionWriter, WriteError};
use crate::clock::SharedClock;
use crate::log::config::LogConfig;
use crate::record::build::BatchBuilder;
use crate::record::walk;
use crate::replica::ack::{Ack, AckError, Completion};
use crate::replica::manager::ReplicaManager;
use crate::replica::partition::{AckAt, Refusal};
use crate::task;
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName};

/// Bytes read at a time while a coordinator's state is loaded.
const LOAD_STEP_BYTES: usize = 4 << 20;

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

impl From<Refusal> for WriteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader => Self::NotLeader,
            Refusal::NotEnoughReplicas => Self::NotEnoughReplicas,
            Refusal::Storage(_) | Refusal::Full | Refusal::Log(_) => Self::Storage(refusal.to_string()),
        }
    }
}

impl From<AckError> for WriteError {
    fn from(error: AckError) -> Self {
        match error {
            AckError::NotLeader => Self::NotLeader,
            AckError::Storage(_) | AckError::Full => Self::Storage(error.to_string()),
        }
    }
}

impl PartitionWriter for ReplicaWriter {
    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        records: Vec<CoordinatorRecord>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>> {
        let Some(replica) = self.replicas.get(topic.as_str(), partition) else {
            return ready(Err(WriteError::NotLeader)).boxed();
        };
        let now = self.clock.now_ms();
        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.append(now, Some(&record.key), record.value.as_deref());
        }
        let batch = builder.finish();
        if batch.bytes.len() > replica.with_log(|log| log.config().max_message_bytes) {
            return ready(Err(WriteError::TooLarge)).boxed();
        }
        let (completion, acked) = Completion::new(1);
        let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
        match replica.append(batch, ack, Some(epoch), now) {
            Err(refusal) => ready(Err(refusal.into())).boxed(),
            Ok(appended) => async move {
                match acked.await {
                    Ok(outcomes) => match outcomes.into_iter().next() {
                        Some(Ok(())) => Ok(appended.last_offset + 1),
                        Some(Err(error)) => Err(error.into()),
                        None => Err(WriteError::NotLeader),
                    },
                    Err(_) => Err(WriteError::NotLeader),
                }
            }
            .boxed(),
        }
    }

    fn batch_bytes_max(&self, topic: &TopicName) -> usize {
        let replica = self.replicas.of_topic(topic.as_str()).into_iter().next();
        replica.map_or(LogConfig::default().max_message_bytes, |replica| {
            replica.with_log(|log| log.config().max_message_bytes)
        })
    }

    fn load(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        mut visit: Box<dyn FnMut(Offset, i64, CoordinatorRecord) -> ControlFlow<()> + Send>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>> {
        let Some(replica) = self.replicas.get(topic.as_str(), partition) else {
            return ready(Err(WriteError::NotLeader)).boxed();
        };
        task::blocking(move || {
            let view = replica.view();
            let mut next = view.log_start_offset;
            while next < view.log_end_offset {
                let read = replica
                    .reader()
                    .read(next, view.log_end_offset, LOAD_STEP_BYTES, true)
                    .map_err(|failure| WriteError::Storage(failure.to_string()))?;
                if read.batches.is_empty() {
                    break;
                }
                for batch in &read.batches {
                    match load_batch(batch, &mut visit)? {
                        ControlFlow::Continue(after) => next = after,
                        ControlFlow::Break(()) => return Ok(next),
                    }
                }
            }
            Ok(view.log_end_offset)
        })
        .boxed()
    }
}

type Visitor = Box<dyn FnMut(Offset, i64, CoordinatorRecord) -> ControlFlow<()> + Send>;

/// Visits the records of one batch and answers the offset after it, unless the visitor has had enough.
fn load_batch(batch: &bytes::Bytes, visit: &mut Visitor) -> Result<ControlFlow<(), Offset>, WriteError> {
    let header = crate::record::batch::BatchHeader::parse(batch)
        .map_err(|error| WriteError::Storage(format!("an internal topic holds a broken batch: {error}")))?;
    let mut flow = ControlFlow::Continue(());
    if !header.is_control() {
        walk::for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
            let Some(key) = record.key else { return ControlFlow::Continue(()) };
            let record_of = CoordinatorRecord {
                key: batch_slice(batch, key),
                value: record.value.map(|value| batch_slice(batch, value)),
            };
            flow = visit(record.offset, record.timestamp, record_of);
            flow
        })
        .map_err(|error| WriteError::Storage(format!("an internal topic holds a broken batch: {error}")))?;
    }
    Ok(match flow {
        ControlFlow::Continue(()) => ControlFlow::Continue(header.next_offset()),
        ControlFlow::Break(()) => ControlFlow::Break(()),
    })
}

/// Records of an uncompressed batch are slices of it; those of a compressed one are copied.
fn batch_slice(batch: &bytes::Bytes, part: &[u8]) -> bytes::Bytes {
    let (start, end) = (batch.as_ptr() as usize, batch.as_ptr() as usize + batch.len());
    let at = part.as_ptr() as usize;
    if at >= start && at + part.len() <= end { batch.slice_ref(part) } else { bytes::Bytes::copy_from_slice(part) }
}
