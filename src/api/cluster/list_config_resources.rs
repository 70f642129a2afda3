//! ListConfigResources (74), versions 0–1: what has settings that can be described (KIP-1142).
//!
//! Behaviour: no types ask for all of them. A type that the version does not have is UNSUPPORTED_VERSION (35). Brokers
//! and their loggers are named by the ids of those with an endpoint on the client's listener; topics by their names.
//! Client metrics and groups have no settings here, so there are none of them. Needs DESCRIBE_CONFIGS of the cluster:
//! CLUSTER_AUTHORIZATION_FAILED (31).
//! Versions: 0 client metrics alone (ListClientMetricsResources, KIP-714); 1 types. Ignored: nothing.
//! Source: Kafka 4.1 `KafkaApis.handleListConfigResources`, `ListConfigResourcesRequest.supportedResourceTypes`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use crate::api::authorization::Authorization;
use crate::api::cluster::metadata::endpoint;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::types::acl::{Operation, ResourceType};

/// Types of resources on the wire. Source: Kafka 4.1 `ConfigResource.Type`.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// ListConfigResources.
#[derive(Debug)]
pub(crate) struct ListConfigResources;

impl Handler for ListConfigResources {
    type Req = ListConfigResourcesRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::DescribeConfigs, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: ListConfigResourcesRequest) -> Reply<ListConfigResourcesResponse> {
        let refused = |error: ResponseError| ListConfigResourcesResponse::default().with_error_code(error.code());
        if !ctx.may_on_cluster(Operation::DescribeConfigs) {
            return Reply::Now(refused(ResponseError::ClusterAuthorizationFailed));
        }
        let Some(types) = wanted(ctx.version, &req.resource_types) else {
            return Reply::Now(refused(ResponseError::UnsupportedVersion));
        };
        let image = ctx.image();
        let brokers = || image.brokers.values().filter(|broker| endpoint(broker, &ctx.listener).is_some());
        let mut found = Vec::new();
        for of in types {
            let named = |name: String| ConfigResource::default().with_resource_name(text(name)).with_resource_type(of);
            match of {
                TOPIC => found.extend(image.topics().map(|topic| named(topic.name.to_string()))),
                BROKER | BROKER_LOGGER => found.extend(brokers().map(|broker| named(broker.id.to_string()))),
                _ => {}
            }
        }
        Reply::Now(ListConfigResourcesResponse::default().with_config_resources(found))
    }
}

/// The types that are asked for, each once; `None`: one that the version does not have.
fn wanted(version: i16, asked: &[i8]) -> Option<Vec<i8>> {
    let known: &[i8] =
        if version == 0 { &[CLIENT_METRICS] } else { &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP] };
    let is_wanted = |of: &&i8| asked.is_empty() || asked.contains(of);
    asked.iter().all(|of| known.contains(of)).then(|| known.iter().filter(is_wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_types_are_all_and_each_counts_once() {
        assert_eq!(wanted(0, &[]), Some(vec![CLIENT_METRICS]));
        assert_eq!(wanted(0, &[TOPIC]), None);
        assert_eq!(wanted(1, &[]), Some(vec![TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP]));
        assert_eq!(wanted(1, &[GROUP, TOPIC, GROUP]), Some(vec![TOPIC, GROUP]));
        assert_eq!((wanted(1, &[TOPIC, 3]), wanted(1, &[0])), (None, None));
    }
}
