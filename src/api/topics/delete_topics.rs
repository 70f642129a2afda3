//! DeleteTopics (20), versions 1–6: mark topics for deletion, and answer once they are gone.
//!
//! Behaviour
//! - Only the controller serves it: NOT_CONTROLLER (41) from others. `delete.topic.enable=false`:
//!   TOPIC_DELETION_DISABLED (73), before version 3 INVALID_REQUEST (42).
//! - By name (UNKNOWN_TOPIC_OR_PARTITION, 3) or, from version 6, by id (UNKNOWN_TOPIC_ID, 100). Both at once for one
//!   topic: INVALID_REQUEST for the whole request.
//! - Needs DELETE of each topic, and DESCRIBE too where it is named by id: TOPIC_AUTHORIZATION_FAILED (29), in the
//!   latter case without the name.
//! - Beyond the client's `controller_mutation_rate`: THROTTLING_QUOTA_EXCEEDED (89) from version 5 on; others
//!   wait.
//! - The wish is written before the connection's next request is read. The answer waits until the topic has left this
//!   broker's image and the store, so that it can be created anew at once (Kafka waits for the image alone), or until
//!   the time-out: REQUEST_TIMED_OUT (7), while the deletion goes on; a time-out of 0 or less always.
//!
//! Versions: 3 TOPIC_DELETION_DISABLED; 4 flexible; 5 error message (null, as in Kafka 3.9), and is
//! refused what is beyond the limit; 6 ids (KIP-516).
//! Ignored: nothing. Source: Kafka 3.9 `KafkaApis.handleDeleteTopicsRequest`, `ZkAdminManager.deleteTopics`.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName as WireTopicName};

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::cluster::admin::AdminError;
use crate::cluster::image::ClusterImage;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{TopicId, TopicName};

const VERSION_DELETION_DISABLED: i16 = 3;
const VERSION_REFUSING: i16 = 5;
const VERSION_IDS: i16 = 6;

pub(crate) struct DeleteTopics;

/// One topic of the request, and what is known of it.
struct Entry {
    name: Option<WireTopicName>,
    id: uuid::Uuid,
    error: Option<ResponseError>,
}

impl Handler for DeleteTopics {
    type Req = DeleteTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=6;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Describe, ResourceType::Topic), (Operation::Delete, ResourceType::Topic)]);

    async fn handle(ctx: RequestContext, req: DeleteTopicsRequest) -> Reply<DeleteTopicsResponse> {
        let wanted = wanted(&req, ctx.version);
        let mut entries = match refuse_all(&ctx, &wanted) {
            Some(error) => return Reply::Now(respond(wanted.into_iter().map(|topic| refused(topic, error)).collect())),
            None => authorize(&ctx, resolve(&ctx.image(), wanted)),
        };
        let doomed: BTreeSet<TopicName> =
            entries.iter().filter(|entry| entry.error.is_none()).filter_map(Entry::topic).collect();
        let mut mutations = ctx.mutations(Some(VERSION_REFUSING));
        let image = ctx.image();
        let partitions = |name: &TopicName| image.topic(name.as_str()).map_or(0, |topic| topic.partitions.len());
        let (doomed, spared): (Vec<TopicName>, Vec<TopicName>) =
            doomed.into_iter().partition(|name| mutations.take(partitions(name)).is_ok());
        let spared: Outcomes =
            spared.into_iter().map(|name| (name, Some(ResponseError::ThrottlingQuotaExceeded))).collect();
        if doomed.is_empty() {
            settle(&mut entries, &spared);
            return Reply::Now(respond(entries).with_throttle_time_ms(mutations.throttle()));
        }
        let results = ctx.handles.admin.mark_for_deletion(&doomed).await;
        let refusal = |result: Result<(), AdminError>| result.err().map(|error| error_code::of_admin_error(&error));
        let mut outcomes: Outcomes = doomed.into_iter().zip(results.into_iter().map(refusal)).collect();
        Reply::Later(
            async move {
                let patience = Duration::from_millis(u64::try_from(req.timeout_ms).unwrap_or(0));
                let marked = outcomes.iter_mut().filter(|(_, outcome)| outcome.is_none());
                join_all(marked.map(async |(name, outcome)| {
                    let gone = await_gone(&ctx.handles, name, patience).await;
                    *outcome = (!gone).then_some(ResponseError::RequestTimedOut);
                }))
                .await;
                outcomes.extend(spared);
                settle(&mut entries, &outcomes);
                respond(entries).with_throttle_time_ms(mutations.throttle())
            }
            .boxed(),
        )
    }
}

/// What became of each topic that was to be deleted; `None` is success.
type Outcomes = HashMap<TopicName, Option<ResponseError>>;

impl Entry {
    fn topic(&self) -> Option<TopicName> {
        self.name.as_ref().map(|name| TopicName::new(name.as_str()))
    }
}

fn wanted(req: &DeleteTopicsRequest, version: i16) -> Vec<DeleteTopicState> {
    if version >= VERSION_IDS {
        return req.topics.clone();
    }
    req.topic_names.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone()))).collect()
}

/// Why nothing of the request is done.
fn refuse_all(ctx: &RequestContext, wanted: &[DeleteTopicState]) -> Option<ResponseError> {
    if !ctx.handles.controller.is_active() {
        return Some(ResponseError::NotController);
    }
    if !ctx.handles.config.current().delete_topic_enable {
        return Some(match ctx.version < VERSION_DELETION_DISABLED {
            true => ResponseError::InvalidRequest,
            false => ResponseError::TopicDeletionDisabled,
        });
    }
    let ambiguous = wanted.iter().any(|topic| topic.name.is_some() && !topic.topic_id.is_nil());
    ambiguous.then_some(ResponseError::InvalidRequest)
}

fn refused(topic: DeleteTopicState, error: ResponseError) -> Entry {
    Entry { name: topic.name, id: topic.topic_id, error: Some(error) }
}

fn resolve(image: &Arc<ClusterImage>, wanted: Vec<DeleteTopicState>) -> Vec<Entry> {
    let entry = |topic: DeleteTopicState| {
        if topic.name.is_none() {
            return match image.topic_by_id(TopicId(topic.topic_id)) {
                Some(found) => {
                    let name = Some(WireTopicName(text(found.name.as_str())));
                    Entry { name, id: topic.topic_id, error: None }
                }
                None => refused(topic, ResponseError::UnknownTopicId),
            };
        }
        match topic.name.as_ref().and_then(|name| image.topic(name.as_str())) {
            Some(_) => Entry { name: topic.name, id: topic.topic_id, error: None },
            None => refused(topic, ResponseError::UnknownTopicOrPartition),
        }
    };
    wanted.into_iter().map(entry).collect()
}

/// Who may not describe a topic learns neither its name nor whether it exists. An id is no secret.
fn authorize(ctx: &RequestContext, mut entries: Vec<Entry>) -> Vec<Entry> {
    if ctx.handles.authorizer.is_none() {
        return entries;
    }
    let names: Vec<TopicName> = entries.iter().filter_map(Entry::topic).collect();
    let names = || names.iter().map(TopicName::as_str);
    let undescribed = ctx.refused(Operation::Describe, ResourceType::Topic, names());
    let undeleted = ctx.refused(Operation::Delete, ResourceType::Topic, names());
    for entry in &mut entries {
        let Some(name) = entry.topic() else { continue };
        let hidden = !entry.id.is_nil() && undescribed.contains(name.as_str());
        if hidden {
            entry.name = None;
        }
        if hidden || undeleted.contains(name.as_str()) {
            entry.error = Some(ResponseError::TopicAuthorizationFailed);
        }
    }
    entries
}

fn settle(entries: &mut [Entry], outcomes: &Outcomes) {
    for entry in entries.iter_mut().filter(|entry| entry.error.is_none()) {
        entry.error = entry.name.as_ref().and_then(|name| outcomes.get(name.as_str()).copied().flatten());
    }
}

/// Whether the topic left the image and the store in time.
async fn await_gone(handles: &Handles, name: &TopicName, patience: Duration) -> bool {
    if patience.is_zero() {
        return false;
    }
    let mut images = handles.image.subscribe();
    let gone = async {
        // The publisher lives as long as the handles.
        let _ = images.wait_for(|image| image.topic(name.as_str()).is_none()).await;
        handles.admin.await_gone(name, patience).await
    };
    tokio::time::timeout(patience, gone).await.unwrap_or(false)
}

fn respond(entries: Vec<Entry>) -> DeleteTopicsResponse {
    let result = |entry: Entry| {
        DeletableTopicResult::default()
            .with_name(entry.name)
            .with_topic_id(entry.id)
            .with_error_code(entry.error.map_or(0, |error| error.code()))
            .with_error_message(None)
    };
    DeleteTopicsResponse::default().with_responses(entries.into_iter().map(result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { name: Some(WireTopicName(text(name))), id: uuid::Uuid::nil(), error: None }
    }

    #[test]
    fn answers_encode_in_every_version() {
        for version in DeleteTopics::VERSIONS {
            let mut entries = vec![entry("a"), entry("b")];
            let outcomes = [("a".into(), None), ("b".into(), Some(ResponseError::RequestTimedOut))];
            settle(&mut entries, &outcomes.into());
            let response = respond(entries);
            assert_eq!(response.responses.iter().map(|one| one.error_code).collect::<Vec<_>>(), [0, 7]);
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }

    #[test]
    fn unknown_names_and_ids_are_told_apart() {
        let id = uuid::Uuid::from_u128(5);
        let by_name = DeleteTopicState::default().with_name(Some(WireTopicName(text("a"))));
        let by_id = DeleteTopicState::default().with_name(None).with_topic_id(id);
        let entries = resolve(&Arc::default(), vec![by_name, by_id]);
        let errors: Vec<_> = entries.iter().map(|entry| entry.error).collect();
        assert_eq!(errors, [Some(ResponseError::UnknownTopicOrPartition), Some(ResponseError::UnknownTopicId)]);
        assert!(entries[1].name.is_none());
    }
}
