//! ConsumerGroupHeartbeat (68), version 0: a member of a group of KIP-848 says that it is there.
//!
//! Behaviour: UNSUPPORTED_VERSION (35), whoever asks. There are no such groups here, and none in a cluster of Kafka 3.9
//! on ZooKeeper, which announces the key all the same; so it is served beside ZooKeeper alone, where clients move
//! between brokers of both kinds. Needs nothing: Kafka refuses it before it looks at permissions.
//! Ignored: all of it.
//! Source: Kafka 3.9 `KafkaApis.handleConsumerGroupHeartbeat`; bytes as captured from a broker of it.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply, Served};
use crate::types::limits;

/// ConsumerGroupHeartbeat.
#[derive(Debug)]
pub(crate) struct ConsumerGroupHeartbeat;

impl Handler for ConsumerGroupHeartbeat {
    type Req = ConsumerGroupHeartbeatRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Nothing("it is refused whoever asks");
    const SERVED: Served = Served::BesideZookeeper;
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(_: RequestContext, _: ConsumerGroupHeartbeatRequest) -> Reply<ConsumerGroupHeartbeatResponse> {
        Reply::Now(refused())
    }
}

fn refused() -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default().with_error_code(ResponseError::UnsupportedVersion.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[test]
    fn the_answer_is_that_of_kafka_byte_by_byte() {
        let mut expected = [0; 18];
        (expected[5], expected[16]) = (35, 0xff);
        assert_eq!(codec::encode_response(&refused(), 0).expect("encodes")[..], expected);
    }
}
