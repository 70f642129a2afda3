//! UpdateFeatures (57), versions 0–1: no feature of this cluster can be finalised.
//!
//! Behaviour: only the controller serves it: NOT_CONTROLLER (41) from others. No updates, a feature without a name, or
//! one that is named twice: INVALID_REQUEST (42) for the whole. Each feature that is named is unknown: INVALID_REQUEST
//! for it. Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31).
//! Versions: 1 types of upgrades and a check without effect (KIP-584). Ignored: nothing that could change the answer.
//! Source: Kafka 3.9 `KafkaController.processFeatureUpdates`, whose brokers beside ZooKeeper support no feature either;
//! `KafkaApis.handleUpdateFeatures`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::repeated::repeated;
use crate::api::shared::strings::text;
use crate::types::acl::{Operation, ResourceType};

/// UpdateFeatures.
#[derive(Debug)]
pub(crate) struct UpdateFeatures;

impl Handler for UpdateFeatures {
    type Req = UpdateFeaturesRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: UpdateFeaturesRequest) -> Reply<UpdateFeaturesResponse> {
        if !ctx.may_on_cluster(Operation::Alter) {
            let error = ResponseError::ClusterAuthorizationFailed;
            let refused = UpdateFeaturesResponse::default().with_error_code(error.code());
            return Reply::Now(refused.with_error_message(Some(text(error.to_string()))));
        }
        let is_controller = ctx.handles.controller.is_active();
        Reply::Now(response(is_controller, &req))
    }
}

fn response(is_controller: bool, req: &UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let whole = |error: ResponseError, message: &str| {
        UpdateFeaturesResponse::default().with_error_code(error.code()).with_error_message(Some(text(message)))
    };
    if !is_controller {
        return whole(ResponseError::NotController, "This is not the correct controller for this cluster.");
    }
    let names = || req.feature_updates.iter().map(|update| update.feature.as_str());
    if req.feature_updates.is_empty() {
        return whole(ResponseError::InvalidRequest, "Can not provide empty FeatureUpdates in the request.");
    }
    if names().any(|name| name.trim().is_empty()) || !repeated(names()).is_empty() {
        return whole(ResponseError::InvalidRequest, "Feature names must be unique and not empty.");
    }
    let refused = req.feature_updates.iter().map(|update| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature.clone())
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(text(why_not(update))))
    });
    UpdateFeaturesResponse::default().with_error_message(None).with_results(refused.collect())
}

/// Types of upgrades. Source: Kafka 3.9 `FeatureUpdate.UpgradeType`.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Source: Kafka 3.9 `KafkaController.validateFeatureUpdate`, where nothing is finalised or supported.
fn why_not(update: &FeatureUpdateKey) -> String {
    // Version 0 has a flag instead of the type.
    let kind = if update.allow_downgrade { SAFE_DOWNGRADE } else { update.upgrade_type };
    let level = update.max_version_level;
    match kind {
        UPGRADE if level < 1 => format!(
            "Can not provide versionLevel: {level} less than 1 without setting the allowDowngrade flag to true in the \
             request."
        ),
        SAFE_DOWNGRADE | UNSAFE_DOWNGRADE if level < 1 => "Can not delete non-existing finalized feature.".to_owned(),
        UPGRADE | SAFE_DOWNGRADE | UNSAFE_DOWNGRADE => {
            "Could not apply finalized feature update because the provided feature is not supported.".to_owned()
        }
        _ => "Received unknown upgrade type.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    #[test]
    fn every_feature_is_unknown_and_only_the_controller_says_so() {
        let named = |names: &[&'static str]| {
            let updates = names.iter().map(|name| FeatureUpdateKey::default().with_feature(text(*name)));
            UpdateFeaturesRequest::default().with_feature_updates(updates.collect())
        };
        let codes = |is_controller, names: &[&'static str]| {
            let answer = response(is_controller, &named(names));
            for version in UpdateFeatures::VERSIONS {
                assert!(encode_response(&answer, version).is_ok(), "{version}");
            }
            (answer.error_code, answer.results.iter().map(|one| one.error_code).collect::<Vec<_>>())
        };
        assert_eq!(codes(true, &["metadata.version", "x"]), (0, vec![42, 42]));
        assert_eq!(codes(false, &["x"]), (41, vec![]));
        for wrong in [&[][..], &[""], &["x", "x"]] {
            assert_eq!(codes(true, wrong), (42, vec![]));
        }
    }

    #[test]
    fn why_is_said_in_kafkas_words() {
        let why = |level, kind, flag| {
            let update = FeatureUpdateKey::default().with_max_version_level(level).with_upgrade_type(kind);
            why_not(&update.with_allow_downgrade(flag))
        };
        assert!(why(1, UPGRADE, false).ends_with("is not supported."));
        assert!(why(0, UPGRADE, false).starts_with("Can not provide versionLevel: 0 less than 1"));
        for (kind, flag) in [(SAFE_DOWNGRADE, false), (UNSAFE_DOWNGRADE, false), (UPGRADE, true)] {
            assert_eq!(why(0, kind, flag), "Can not delete non-existing finalized feature.");
        }
        assert_eq!(why(1, 0, false), "Received unknown upgrade type.");
    }
}
