//! The topics of the coordinators, made when they are first needed.

use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::api::context::RequestContext;
use crate::api::error_code::of_internal_creation;
use crate::types::TopicName;

/// How long the first request waits for the topic; a client that is told to retry does so after 100 ms or so.
const CREATION_PATIENCE: Duration = Duration::from_millis(1000);

/// Creates the topic unless it is there, and waits for it.
///
/// # Errors
/// It is not there yet. Whatever went wrong is the cluster's affair: the client retries.
pub(in crate::api) async fn ensure(ctx: &RequestContext, topic: &str) -> Result<(), ResponseError> {
    if ctx.image().topic(topic).is_some() {
        return Ok(());
    }
    let created = ctx.handles.auto_creation.create(&TopicName::new(topic), CREATION_PATIENCE).await;
    created.map_err(|error| of_internal_creation(&error))
}
