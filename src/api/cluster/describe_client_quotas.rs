//! DescribeClientQuotas (48), versions 0–1: the limits that are set for users, clients and addresses.
//!
//! Behaviour: each component names a type and what to match: a name (0), the default (1) or any that is set (2). An
//! entity matches if all components do; `strict` leaves out what has a type that no component names. A type that is
//! named twice, addresses beside users or clients, a match of another kind: INVALID_REQUEST (42); another type:
//! UNSUPPORTED_VERSION (35). Needs DESCRIBE_CONFIGS of the cluster: CLUSTER_AUTHORIZATION_FAILED (31). What this
//! broker has followed so far is answered.
//! Versions: 0; 1 flexible.
//! Ignored: nothing.
//! Source: Kafka 3.9 `ZkAdminManager.describeClientQuotas`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::changes::invalid_request;
use crate::api::shared::quota_entity::{self, QuotaEntity};
use crate::api::shared::refusal::Refusal;
use crate::api::shared::strings::{opt_text, text};
use crate::cluster::znodes::config::EntityName;
use crate::types::acl::{Operation, ResourceType};

/// DescribeClientQuotas.
#[derive(Debug)]
pub(crate) struct DescribeClientQuotas;

impl Handler for DescribeClientQuotas {
    type Req = DescribeClientQuotasRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::DescribeConfigs, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: DescribeClientQuotasRequest) -> Reply<DescribeClientQuotasResponse> {
        if !ctx.may_on_cluster(Operation::DescribeConfigs) {
            let error = ResponseError::ClusterAuthorizationFailed;
            let refused = DescribeClientQuotasResponse::default().with_error_code(error.code()).with_entries(None);
            return Reply::Now(refused.with_error_message(Some(text(error.to_string()))));
        }
        let response = match Filter::read(&req.components, req.strict) {
            Ok(filter) => {
                let entries = ctx.handles.dynamic_config.quotas();
                let entries = entries.iter().filter_map(|(entity, overrides)| {
                    let entity = QuotaEntity::of(entity)?;
                    let values = quota_entity::limits(&entity, overrides);
                    (filter.matches(&entity) && !values.is_empty()).then(|| entry(&entity, values))
                });
                DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(entries.collect()))
            }
            Err(refusal) => DescribeClientQuotasResponse::default()
                .with_error_code(refusal.error.code())
                .with_error_message(refusal.wire_message())
                .with_entries(None),
        };
        Reply::Now(response)
    }
}

/// What a component asks of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    Exactly(EntityName),
    Any,
}

/// What is asked for; `None`: no component names the type.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    user: Option<Match>,
    client: Option<Match>,
    ip: Option<Match>,
    strict: bool,
}

impl Filter {
    fn read(components: &[ComponentData], strict: bool) -> Result<Self, Refusal> {
        let mut filter = Self { strict, ..Self::default() };
        for component in components {
            let kind = component.entity_type.as_str();
            let (place, kind) = match kind {
                quota_entity::USER => (&mut filter.user, "user"),
                quota_entity::CLIENT => (&mut filter.client, "client-id"),
                quota_entity::IP => (&mut filter.ip, "ip"),
                "" => return Err(invalid_request("Unexpected empty filter component entity type")),
                other => {
                    let why = format!("Custom entity type '{other}' not supported");
                    return Err(Refusal::new(ResponseError::UnsupportedVersion, why));
                }
            };
            let wanted = match component.match_type {
                0 => Match::Exactly(EntityName::Named(
                    component._match.as_ref().map(ToString::to_string).unwrap_or_default(),
                )),
                1 => Match::Exactly(EntityName::Default),
                2 => Match::Any,
                other => return Err(invalid_request(format!("Unexpected match type: {other}"))),
            };
            if place.replace(wanted).is_some() {
                return Err(invalid_request(format!("Duplicate {kind} filter component entity type")));
            }
        }
        if filter.ip.is_some() && (filter.user.is_some() || filter.client.is_some()) {
            return Err(invalid_request(
                "Invalid entity filter component combination, IP filter component should not be used with user or \
                 clientId filter component.",
            ));
        }
        Ok(filter)
    }

    fn matches(&self, entity: &QuotaEntity) -> bool {
        let one = |wanted: &Option<Match>, name: &Option<EntityName>| match (wanted, name) {
            (None, name) => name.is_none() || !self.strict,
            (Some(Match::Any), name) => name.is_some(),
            (Some(Match::Exactly(wanted)), name) => name.as_ref() == Some(wanted),
        };
        one(&self.user, &entity.user) && one(&self.client, &entity.client) && one(&self.ip, &entity.ip)
    }
}

/// Null stands for the default.
fn wire_name(name: &EntityName) -> Option<&str> {
    match name {
        EntityName::Default => None,
        EntityName::Named(name) => Some(name),
    }
}

fn entry(entity: &QuotaEntity, values: Vec<(&'static str, f64)>) -> EntryData {
    let named = entity.parts().map(|(kind, name)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(opt_text(wire_name(name)))
    });
    let values = values.into_iter().map(|(key, value)| ValueData::default().with_key(text(key)).with_value(value));
    EntryData::default().with_entity(named.collect()).with_values(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(kind: &'static str, match_type: i8, name: Option<&'static str>) -> ComponentData {
        ComponentData::default().with_entity_type(text(kind)).with_match_type(match_type).with_match(opt_text(name))
    }

    fn entity(user: Option<EntityName>, client: Option<EntityName>) -> QuotaEntity {
        QuotaEntity { user, client, ip: None }
    }

    #[test]
    fn an_entity_matches_if_all_components_do() {
        let alice = || Some(EntityName::Named("alice".into()));
        let app = || Some(EntityName::Named("app".into()));
        let all = [
            entity(alice(), None),
            entity(alice(), app()),
            entity(None, app()),
            entity(None, Some(EntityName::Default)),
            QuotaEntity { ip: Some(EntityName::Default), ..entity(None, None) },
        ];
        let found = |components: &[ComponentData], strict| -> Vec<usize> {
            let filter = Filter::read(components, strict).expect("a filter");
            (0..all.len()).filter(|n| filter.matches(&all[*n])).collect()
        };
        assert_eq!(found(&[], false), [0, 1, 2, 3, 4]);
        assert_eq!(found(&[component("user", 0, Some("alice"))], false), [0, 1]);
        assert_eq!(found(&[component("user", 0, Some("alice"))], true), [0]);
        assert_eq!(found(&[component("client-id", 1, None)], false), [3]);
        assert_eq!(found(&[component("client-id", 2, None)], false), [1, 2, 3]);
        assert_eq!(found(&[component("user", 2, None), component("client-id", 0, Some("app"))], true), [1]);
        assert_eq!(found(&[component("ip", 2, None)], false), [4]);
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        let refused = |components: &[ComponentData]| {
            let refusal = Filter::read(components, false).expect_err("refused");
            (refusal.error.code(), refusal.message.expect("a text"))
        };
        let user = || component("user", 2, None);
        assert_eq!(refused(&[user(), user()]), (42, "Duplicate user filter component entity type".into()));
        assert_eq!(refused(&[component("planet", 2, None)]), (35, "Custom entity type 'planet' not supported".into()));
        assert_eq!(refused(&[component("", 2, None)]).0, 42);
        assert_eq!(refused(&[component("user", 7, None)]), (42, "Unexpected match type: 7".into()));
        assert!(
            refused(&[user(), component("ip", 2, None)]).1.starts_with("Invalid entity filter component combination")
        );
    }
}
