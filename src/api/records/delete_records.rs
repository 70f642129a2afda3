//! DeleteRecords (21), versions 0–2: moves the start of logs, so that what lies below can be read no more.
//!
//! Behaviour
//! - Needs DELETE of each topic: TOPIC_AUTHORIZATION_FAILED (29).
//! - Offset −1: up to the high watermark. Above it, or another negative one: OFFSET_OUT_OF_RANGE (1). One below the log
//!   start changes nothing.
//! - A topic whose `cleanup.policy` lacks `delete`: POLICY_VIOLATION (44). An internal one: INVALID_TOPIC_EXCEPTION
//!   (17).
//! - Answers, per partition, with the low watermark, once the new start is written here and every live replica has come
//!   there; after `timeout_ms` without that with REQUEST_TIMED_OUT (7) and the low watermark of the beginning. A
//!   partition that is led elsewhere meanwhile, or gone, or whose log directory has failed, says so. Of a partition
//!   named twice the last offset counts.
//!
//! Versions: 2 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleDeleteRecordsRequest`, `ReplicaManager.deleteRecords`, `DelayedDeleteRecords`.

use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::leader::{ANY_EPOCH, leader_of};
use crate::replica::change::Changed;
use crate::replica::delete_records::{Moved, delete_records};
use crate::replica::partition::Partition;
use crate::task;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{Offset, TopicName};

/// As an offset: the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// Of a partition in which nothing was deleted.
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) struct DeleteRecords;

impl Handler for DeleteRecords {
    type Req = DeleteRecordsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Delete, ResourceType::Topic)]);

    async fn handle(ctx: RequestContext, req: DeleteRecordsRequest) -> Reply<DeleteRecordsResponse> {
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(req.timeout_ms).unwrap_or(0));
        let answer = async move {
            let of_ctx = ctx.clone();
            let written = task::blocking(move || write(&of_ctx, &req)).await;
            let mut topics = Vec::with_capacity(written.len());
            for (topic, partitions) in written {
                let mut results = Vec::with_capacity(partitions.len());
                for (index, deleted) in partitions {
                    results.push(result(&ctx, index, deleted, deadline).await);
                }
                topics.push(DeleteRecordsTopicResult::default().with_name(topic.into()).with_partitions(results));
            }
            DeleteRecordsResponse::default().with_topics(topics)
        };
        Reply::Later(answer.boxed())
    }
}

/// Records below an offset are deleted here.
struct Deleted {
    partition: Arc<Partition>,
    below: Offset,
    /// When they were.
    low_watermark: Offset,
}

/// What became of the partitions of one topic.
type Of<T> = (StrBytes, Vec<(i32, Result<T, ResponseError>)>);

/// All changes are queued before the first is waited for: the writer makes one write of them.
fn write(ctx: &RequestContext, req: &DeleteRecordsRequest) -> Vec<Of<Deleted>> {
    let mut topics: IndexMap<&StrBytes, IndexMap<i32, i64>> = IndexMap::new();
    for topic in &req.topics {
        let offsets = topics.entry(&topic.name.0).or_default();
        offsets.extend(topic.partitions.iter().map(|asked| (asked.partition_index, asked.offset)));
    }
    let refused = ctx.refused(Operation::Delete, ResourceType::Topic, topics.keys().map(|topic| topic.as_str()));
    let queued: Vec<_> = topics
        .into_iter()
        .map(|(topic, offsets)| {
            let name = TopicName::new(topic.as_str());
            let is_refused = refused.contains(topic.as_str());
            let changes = offsets.into_iter().map(|(index, offset)| {
                let change = match is_refused {
                    true => Err(ResponseError::TopicAuthorizationFailed),
                    false => change(ctx, &name, index, offset),
                };
                (index, change)
            });
            (topic.clone(), changes.collect::<Vec<_>>())
        })
        .collect();
    let finish = |(topic, changes): Of<Change>| {
        let finished = changes.into_iter().map(|(index, change)| (index, change.and_then(Change::finish)));
        (topic, finished.collect())
    };
    queued.into_iter().map(finish).collect()
}

/// A start that was moved and is being written.
struct Change {
    partition: Arc<Partition>,
    moved: Changed<Moved>,
}

fn change(ctx: &RequestContext, topic: &TopicName, index: i32, offset: i64) -> Result<Change, ResponseError> {
    if topic.is_internal() {
        return Err(ResponseError::InvalidTopicException);
    }
    let partition = leader_of(ctx, topic.as_str(), index, ANY_EPOCH)?;
    let to = (offset != HIGH_WATERMARK).then_some(Offset(offset));
    match delete_records(&partition, to, ctx.handles.clock.now_ms()) {
        Ok(moved) => Ok(Change { partition, moved }),
        Err(error) => {
            debug!(partition = %partition.name(), %error, "no records deleted");
            Err(error_code::of_delete_records_error(&error))
        }
    }
}

impl Change {
    /// Waits for the write.
    fn finish(self) -> Result<Deleted, ResponseError> {
        match self.moved.written() {
            Ok(Moved { log_start_offset, below }) => {
                let partition = self.partition;
                info!(partition = %partition.name(), %log_start_offset, "a client had records deleted");
                partition.reclaim_below(log_start_offset);
                let low_watermark = partition.low_watermark().unwrap_or(Offset(INVALID_LOW_WATERMARK));
                Ok(Deleted { partition, below, low_watermark })
            }
            Err(error) => {
                debug!(partition = %self.partition.name(), %error, "no records deleted");
                Err(error_code::of_change_error(&error))
            }
        }
    }
}

async fn result(
    ctx: &RequestContext,
    index: i32,
    deleted: Result<Deleted, ResponseError>,
    deadline: Instant,
) -> DeleteRecordsPartitionResult {
    let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
    let refused = |error: ResponseError, low_watermark| {
        DeleteRecordsPartitionResult::default()
            .with_partition_index(index)
            .with_low_watermark(low_watermark)
            .with_error_code(error.code())
    };
    let deleted = match deleted {
        Ok(deleted) => deleted,
        Err(error) => return refused(error, INVALID_LOW_WATERMARK),
    };
    match timeout_at(deadline, deleted_everywhere(ctx, &deleted)).await {
        Ok(Ok(low_watermark)) => result.with_low_watermark(low_watermark.0),
        Ok(Err(error)) => refused(error, INVALID_LOW_WATERMARK),
        Err(_) => refused(ResponseError::RequestTimedOut, deleted.low_watermark.0),
    }
}

/// Waits until no live replica has a record below the offset. The low watermark of then.
async fn deleted_everywhere(ctx: &RequestContext, deleted: &Deleted) -> Result<Offset, ResponseError> {
    // Who is live.
    let mut image = ctx.handles.image.subscribe();
    let id = &deleted.partition.id;
    loop {
        let mut moves = pin!(deleted.partition.low_watermark_moves());
        // What comes from here on is not missed.
        moves.as_mut().enable();
        let here = ctx.handles.replicas.get(id.topic.as_str(), id.partition);
        if !here.is_some_and(|here| Arc::ptr_eq(&here, &deleted.partition)) {
            return Err(ctx.without_replica(id.topic.as_str(), id.partition));
        }
        if deleted.partition.view().offline {
            return Err(ResponseError::KafkaStorageError);
        }
        match deleted.partition.low_watermark() {
            Some(low_watermark) if low_watermark >= deleted.below => return Ok(low_watermark),
            Some(_) => {
                tokio::select! {
                    () = moves => {}
                    changed = image.changed() => changed.map_err(|_| ResponseError::NotLeaderOrFollower)?,
                }
            }
            None => return Err(ResponseError::NotLeaderOrFollower),
        }
    }
}
