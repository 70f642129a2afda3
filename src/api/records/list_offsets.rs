//! ListOffsets (2), versions 1–10: offsets by time.
//!
//! Behaviour
//! - Needs DESCRIBE of each topic: TOPIC_AUTHORIZATION_FAILED (29).
//! - Timestamp −1: the high watermark (read_committed: the last stable offset); −2: the log start; −3 (7+): the record
//!   with the largest timestamp; −4 (8+): the earliest local offset, here the log start; −5 (9+): the latest tiered
//!   offset, here none; −6 (11+) does not exist yet. Other negatives, or one too new for the version:
//!   UNSUPPORTED_VERSION (35) per partition.
//! - A time: the first record at or after it; none: timestamp −1, offset −1, no error.
//! - Leader epochs are checked as in Fetch. A partition named twice: INVALID_REQUEST (42). An isolation level that does
//!   not exist: UNKNOWN_SERVER_ERROR (−1).
//! - After an election the high watermark may lie below the start of the leader's epoch, and below what consumers have
//!   seen: −1, −3 and a time after which nothing is found are then OFFSET_NOT_AVAILABLE (78), before version 5
//!   LEADER_NOT_AVAILABLE (5).
//! - Another replica id than −1 reads to the log end; −2, of tools that look at every copy, also where another leads.
//!
//! Versions: 2 isolation; 4 leader epochs; 6 flexible; 10 a time-out that only tiered storage needs. Ignored:
//! timeout_ms.
//! Source: Kafka 3.9 `KafkaApis.handleListOffsetRequestV1AndAbove`, `Partition.fetchOffsetForTimestamp`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::isolation::read_committed;
use crate::api::shared::leader::{leader_of, replica_of};
use crate::api::shared::repeated::repeated;
use crate::replica::partition::Partition;
use crate::replica::view::PartitionView;
use crate::task;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{LeaderEpoch, Offset};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const VERSION_LEADER_EPOCH: i16 = 4;
const VERSION_OFFSET_NOT_AVAILABLE: i16 = 5;
const CONSUMER: i32 = -1;
const DEBUGGING: i32 = -2;

pub(crate) struct ListOffsets;

impl Handler for ListOffsets {
    type Req = ListOffsetsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=10;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Topic)]);

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
    let refused = ctx.refused(Operation::Describe, ResourceType::Topic, req.topics.iter().map(|topic| &**topic.name));
    let topics = req.topics.iter().map(|topic| {
        let is_refused = refused.contains(&topic.name);
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = if is_refused {
                Err(ResponseError::TopicAuthorizationFailed)
            } else if twice.contains(&(topic.name.as_str(), wanted.partition_index)) {
                Err(ResponseError::InvalidRequest)
            } else {
                find(ctx, topic.name.as_str(), wanted, &Reader::of(req))
            };
            partition_response(ctx, wanted.partition_index, answer)
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Who asks.
struct Reader {
    replica_id: i32,
    isolation_level: i8,
}

impl Reader {
    fn of(req: &ListOffsetsRequest) -> Self {
        Self { replica_id: req.replica_id.0, isolation_level: req.isolation_level }
    }

    /// Where the log ends for it.
    fn end(&self, view: &PartitionView) -> Result<Offset, ResponseError> {
        if self.replica_id != CONSUMER {
            return Ok(view.log_end_offset);
        }
        Ok(if read_committed(self.isolation_level)? { view.last_stable_offset } else { view.high_watermark })
    }
}

/// Whether a consumer may have seen more than this leader knows to be committed.
fn lags(partition: &Partition, view: &PartitionView) -> bool {
    partition.epoch_start().is_some_and(|start| view.high_watermark < start)
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
    reader: &Reader,
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
    let partition = match reader.replica_id {
        DEBUGGING => replica_of(ctx, topic, wanted.partition_index, wanted.current_leader_epoch)?,
        _ => leader_of(ctx, topic, wanted.partition_index, wanted.current_leader_epoch)?,
    };
    let view = partition.view();
    let end = reader.end(&view)?;
    let lags = reader.replica_id == CONSUMER && lags(&partition, &view);
    let not_available = match ctx.version {
        ..VERSION_OFFSET_NOT_AVAILABLE => ResponseError::LeaderNotAvailable,
        _ => ResponseError::OffsetNotAvailable,
    };
    let at = |offset| Position { timestamp: -1, offset, epoch: view.leader_epoch };
    let nowhere = Position { timestamp: -1, offset: Offset::NONE, epoch: LeaderEpoch::NONE };
    let found = match wanted.timestamp {
        LATEST if lags => return Err(not_available),
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
        Ok(None) if lags => Err(not_available),
        Ok(None) => Ok(nowhere),
        Err(failure) => {
            if partition.reader().is_news(&failure) {
                tracing::error!(topic, partition = wanted.partition_index, %failure, "a search by time failed");
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;
    use crate::replica::ack::{Ack, Completion};
    use crate::replica::partition::{AckAt, Role};
    use crate::replica::testing;
    use crate::types::{BrokerId, PartitionEpoch};

    /// P21: consumers may have read up to 1 from the leader of before.
    #[test]
    fn p21_a_new_leader_lags_until_its_high_watermark_is_in_its_epoch() {
        let (partition, _) = testing::closed();
        let role = |epoch, isr: &[i32]| Role {
            leader_epoch: LeaderEpoch(epoch),
            isr: isr.iter().map(|&id| BrokerId(id)).collect(),
            partition_epoch: PartitionEpoch(epoch),
            replicas: vec![BrokerId(1), BrokerId(2)],
            ..testing::role(1, epoch)
        };
        testing::take(&partition, role(1, &[1, 2]));
        assert!(!lags(&partition, &partition.view()), "there was nothing before");
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        let (completion, acked) = Completion::new(1);
        let ack = AckAt::Written(Ack::new(&completion, 0));
        drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
        assert_eq!(acked.wait(), [Ok(())]);
        assert!(!lags(&partition, &partition.view()), "it is of this epoch");
        testing::take(&partition, role(2, &[1, 2]));
        assert!(lags(&partition, &partition.view()));
        let ends = [CONSUMER, DEBUGGING, 2].map(|replica_id| {
            let reader = Reader { replica_id, isolation_level: 0 };
            reader.end(&partition.view()).expect("a level that exists").0
        });
        assert_eq!(ends, [0, 1, 1], "whoever is no consumer reads on");
        testing::take(&partition, role(3, &[1]));
        assert!(!lags(&partition, &partition.view()), "alone in sync, it knows");
    }
}
