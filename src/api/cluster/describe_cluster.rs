//! DescribeCluster (60), versions 0–2: cluster id, controller and brokers, from the image.
//!
//! Behaviour
//! - Authorised operations on the cluster are answered when asked for; none without DESCRIBE of it.
//! - Each client gets the endpoints of the listener it came through.
//! - Endpoint type (1+) must be 1, brokers: there are no KRaft controllers to list. Anything else is
//!   MISMATCHED_ENDPOINT_TYPE (114), unknown numbers UNSUPPORTED_ENDPOINT_TYPE (115).
//!
//! Versions: 0 flexible; 1 endpoint types (KIP-919); 2 fenced brokers (KIP-1073; there are none without KRaft).
//! Source: Kafka 3.9 `KafkaApis.handleDescribeCluster`, `AuthHelper.computeDescribeClusterResponse`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId as WireBrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::cluster::metadata::{OPERATIONS_OMITTED, cluster_operations, controller_id, endpoint};
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::types::acl::{Operation, ResourceType};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) struct DescribeCluster;

impl Handler for DescribeCluster {
    type Req = DescribeClusterRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: DescribeClusterRequest) -> Reply<DescribeClusterResponse> {
        if ctx.version >= 1 && req.endpoint_type != BROKERS {
            let (error, message) = match req.endpoint_type {
                CONTROLLERS => (
                    ResponseError::MismatchedEndpointType,
                    "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
                ),
                _ => (ResponseError::UnsupportedEndpointType, "Unsupported endpoint type"),
            };
            let refused = DescribeClusterResponse::default()
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
                .with_controller_id(WireBrokerId(-1))
                .with_cluster_authorized_operations(OPERATIONS_OMITTED);
            return Reply::Now(refused);
        }
        let image = ctx.image();
        let brokers = image.brokers.values().filter_map(|broker| {
            let endpoint = endpoint(broker, &ctx.listener)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(WireBrokerId(broker.id.0))
                    .with_host(StrBytes::from_string(endpoint.host.clone()))
                    .with_port(i32::from(endpoint.port))
                    .with_rack(broker.rack.clone().map(StrBytes::from_string)),
            )
        });
        let operations =
            if req.include_cluster_authorized_operations { cluster_operations(&ctx) } else { OPERATIONS_OMITTED };
        Reply::Now(
            DescribeClusterResponse::default()
                .with_endpoint_type(BROKERS)
                .with_cluster_id(StrBytes::from_string(ctx.handles.cluster_id.to_string()))
                .with_controller_id(WireBrokerId(controller_id(&image).0))
                .with_brokers(brokers.collect())
                .with_cluster_authorized_operations(operations),
        )
    }
}
