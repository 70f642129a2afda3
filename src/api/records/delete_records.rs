//! DeleteRecords (21), versions 0–2: moves the start of logs, so that what lies below can be read no more.
//!
//! Behaviour
//! - Offset −1: up to the high watermark. Above it, or another negative one: OFFSET_OUT_OF_RANGE (1). One below the log
//!   start changes nothing.
//! - A topic whose `cleanup.policy` lacks `delete`: POLICY_VIOLATION (44). An internal one: INVALID_TOPIC_EXCEPTION
//!   (17).
//! - Answers, per partition, with the low watermark once the new start is written; there is one copy, whose log start
//!   that is. Of a partition named twice the last offset counts.
//!
//! Versions: 2 flexible. Ignored: timeout_ms, since nothing is waited for but the disk.
//! Source: Kafka 3.9 `KafkaApis.handleDeleteRecordsRequest`, `ReplicaManager.deleteRecordsOnLocalLog`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::FutureExt;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::{debug, info};

use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::leader::{ANY_EPOCH, leader_of};
use crate::replica::change::Changed;
use crate::replica::delete_records::delete_records;
use crate::replica::partition::Partition;
use crate::task;
use crate::types::{Offset, TopicName};

/// As an offset: the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// Of a partition in which nothing was deleted.
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) struct DeleteRecords;

impl Handler for DeleteRecords {
    type Req = DeleteRecordsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(ctx: RequestContext, req: DeleteRecordsRequest) -> Reply<DeleteRecordsResponse> {
        Reply::Later(task::blocking(move || respond(&ctx, &req)).boxed())
    }
}

/// All changes are queued before the first is waited for: the writer makes one write of them.
fn respond(ctx: &RequestContext, req: &DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics: IndexMap<&StrBytes, IndexMap<i32, i64>> = IndexMap::new();
    for topic in &req.topics {
        let offsets = topics.entry(&topic.name.0).or_default();
        offsets.extend(topic.partitions.iter().map(|asked| (asked.partition_index, asked.offset)));
    }
    let queued: Vec<_> = topics
        .into_iter()
        .map(|(topic, offsets)| {
            let name = TopicName::new(topic.as_str());
            let changes = offsets.into_iter().map(|(index, offset)| (index, change(ctx, &name, index, offset)));
            (topic, changes.collect::<Vec<_>>())
        })
        .collect();
    let topics = queued.into_iter().map(|(topic, changes)| {
        let partitions = changes.into_iter().map(|(index, change)| {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
            match change.and_then(Change::finish) {
                Ok(low_watermark) => result.with_low_watermark(low_watermark.0),
                Err(error) => result.with_low_watermark(INVALID_LOW_WATERMARK).with_error_code(error.code()),
            }
        });
        DeleteRecordsTopicResult::default().with_name(topic.clone().into()).with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// A start that was moved and is being written.
struct Change {
    partition: Arc<Partition>,
    start: Changed<Offset>,
}

fn change(ctx: &RequestContext, topic: &TopicName, index: i32, offset: i64) -> Result<Change, ResponseError> {
    if topic.is_internal() {
        return Err(ResponseError::InvalidTopicException);
    }
    let partition = leader_of(ctx, topic.as_str(), index, ANY_EPOCH)?;
    let to = (offset != HIGH_WATERMARK).then_some(Offset(offset));
    match delete_records(&partition, to, ctx.handles.clock.now_ms()) {
        Ok(start) => Ok(Change { partition, start }),
        Err(error) => {
            debug!(partition = %partition.name(), %error, "no records deleted");
            Err(error_code::of_delete_records_error(&error))
        }
    }
}

impl Change {
    /// Waits for the write. The start that holds then.
    fn finish(self) -> Result<Offset, ResponseError> {
        match self.start.written() {
            Ok(start) => {
                info!(partition = %self.partition.name(), log_start_offset = %start, "a client had records deleted");
                self.partition.reclaim_below(start);
                Ok(start)
            }
            Err(error) => {
                debug!(partition = %self.partition.name(), %error, "no records deleted");
                Err(error_code::of_change_error(&error))
            }
        }
    }
}
