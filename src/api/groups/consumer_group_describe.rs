//! ConsumerGroupDescribe (69), version 0: what groups of KIP-848 are made of.
//!
//! Behaviour: UNSUPPORTED_VERSION (35) for each group that is named, whoever asks; see `consumer_group_heartbeat`.
//! Java's Admin asks for the same groups by DescribeGroups then. Needs nothing: Kafka refuses it before it looks at
//! permissions. Ignored: whether operations shall be told.
//! Source: Kafka 3.9 `KafkaApis.handleConsumerGroupDescribe`; bytes as captured from a broker of it.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply, Served};

/// ConsumerGroupDescribe.
#[derive(Debug)]
pub(crate) struct ConsumerGroupDescribe;

impl Handler for ConsumerGroupDescribe {
    type Req = ConsumerGroupDescribeRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Nothing("it is refused whoever asks");
    const SERVED: Served = Served::BesideZookeeper;

    async fn handle(_: RequestContext, req: ConsumerGroupDescribeRequest) -> Reply<ConsumerGroupDescribeResponse> {
        Reply::Now(refused(req))
    }
}

fn refused(req: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let code = ResponseError::UnsupportedVersion.code();
    let refused = |group| DescribedGroup::default().with_group_id(group).with_error_code(code);
    ConsumerGroupDescribeResponse::default().with_groups(req.group_ids.into_iter().map(refused).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::wire::codec;

    #[test]
    fn each_group_is_refused_byte_by_byte_as_kafka_does() {
        let named = |name| StrBytes::from_static_str(name).into();
        let asked = ConsumerGroupDescribeRequest::default().with_group_ids(vec![named("g"), named("")]);
        let of = |name: &[u8]| [&[0, 35, 0][..], name, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x80, 0, 0, 0, 0]].concat();
        let expected = [&[0, 0, 0, 0, 3][..], &of(b"\x02g"), &of(b"\x01"), &[0]].concat();
        assert_eq!(codec::encode_response(&refused(asked), 0).expect("encodes")[..], expected);
    }
}
