//! ListOffsets (2), versions 1–10: offsets by time.
//!
//! Behaviour
//! - Timestamp −1: the high watermark (read_committed: the last stable offset); −2: the log start; −3 (7+): the record
//!   with the largest timestamp; −4 (8+): the earliest local offset, here the log start; −5 (9+): the latest tiered
//!   offset, here none; −6 (11+) does not exist yet. Other negatives, or one too new for the version:
//!   UNSUPPORTED_VERSION (35) per partition.
//! - A time: the first record at or after it; none: timestamp −1, offset −1, no error.
//! - Leader epochs are checked as in Fetch. A partition named twice: INVALID_REQUEST (42). An isolation level that does
//!   not exist: UNKNOWN_SERVER_ERROR (−1).
//! - A debugging or replica id does not matter here: there is one copy.
//!
//! Versions: 2 isolation; 4 leader epochs; 6 flexible; 10 a time-out that only tiered storage needs. Ignored:
//! timeout_ms.
//! Source: Kafka 3.9 `KafkaApis.handleListOffsetRequestV1AndAbove`, `ReplicaManager.fetchOffset`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::isolation::read_committed;
use crate::api::shared::leader::leader_of;
use crate::api::shared::repeated::repeated;
use crate::task;
use crate::types::{LeaderEpoch, Offset};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const VERSION_LEADER_EPOCH: i16 = 4;

pub(crate) struct ListOffsets;

impl Handler for ListOffsets {
    type Req = ListOffsetsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=10;

    async fn handle(ctx: RequestContext, req: ListOffsetsRequest) -> Reply<ListOffsetsResponse> {
        // A search by time may read from disk.
        Reply::Later(task::blocking(move || respond(&ctx, &req)).boxed())
    }
}

fn respond(ctx: &RequestContext, req: &ListOffsetsRequest) -> ListOffsetsResponse {
    let twice =
        repeated(req.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index))
        }));
    let topics = req.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = if twice.contains(&(topic.name.as_str(), wanted.partition_index)) {
                Err(ResponseError::InvalidRequest)
            } else {
                find(ctx, topic.name.as_str(), wanted, req.isolation_level)
            };
            partition_response(ctx, wanted.partition_index, answer)
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

struct Position {
    timestamp: i64,
    offset: Offset,
    epoch: LeaderEpoch,
}

fn find(
    ctx: &RequestContext,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation_level: i8,
) -> Result<Position, ResponseError> {
    let lowest = match ctx.version {
        ..=6 => EARLIEST,
        7 => MAX_TIMESTAMP,
        8 => EARLIEST_LOCAL,
        _ => LATEST_TIERED,
    };
    if wanted.timestamp < lowest {
        return Err(ResponseError::UnsupportedVersion);
    }
    let partition = leader_of(ctx, topic, wanted.partition_index, wanted.current_leader_epoch)?;
    let view = partition.view();
    let end = if read_committed(isolation_level)? { view.last_stable_offset } else { view.high_watermark };
    let at = |offset| Position { timestamp: -1, offset, epoch: view.leader_epoch };
    let nowhere = Position { timestamp: -1, offset: Offset::NONE, epoch: LeaderEpoch::NONE };
    let found = match wanted.timestamp {
        LATEST => return Ok(at(end)),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = partition.with_log(|log| log.epoch_at(view.log_start_offset)).unwrap_or(view.leader_epoch);
            return Ok(Position { epoch, ..at(view.log_start_offset) });
        }
        LATEST_TIERED => return Ok(nowhere),
        MAX_TIMESTAMP => partition.reader().max_timestamp(end),
        time => partition.reader().offset_for_timestamp(time, end),
    };
    match found {
        Ok(Some((timestamp, offset, epoch))) => Ok(Position { timestamp, offset, epoch }),
        Ok(None) => Ok(nowhere),
        Err(failure) => {
            tracing::error!(topic, partition = wanted.partition_index, %failure, "a search by time failed");
            Err(ResponseError::KafkaStorageError)
        }
    }
}

fn partition_response(
    ctx: &RequestContext,
    index: i32,
    answer: Result<Position, ResponseError>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match answer {
        Ok(position) => {
            let epoch = if ctx.version >= VERSION_LEADER_EPOCH { position.epoch.0 } else { -1 };
            response.with_timestamp(position.timestamp).with_offset(position.offset.0).with_leader_epoch(epoch)
        }
        Err(error) => response.with_error_code(error.code()).with_timestamp(-1).with_offset(-1).with_leader_epoch(-1),
    }
}
