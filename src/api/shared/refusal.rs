//! One topic's or resource's error inside an answer: a code and, where Kafka has one, a text.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::api::error_code;
use crate::api::shared::strings::text;
use crate::cluster::admin::AdminError;
use crate::cluster::control::ControllerError;
use crate::cluster::placement::PlacementError;

/// Null stands for Kafka's own text of the code. Source: Kafka `ApiError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Refusal {
    pub(in crate::api) error: ResponseError,
    pub(in crate::api) message: Option<String>,
}

impl Refusal {
    pub(in crate::api) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: Some(message.into()) }
    }

    /// Without a text of its own.
    pub(in crate::api) fn bare(error: ResponseError) -> Self {
        Self { error, message: None }
    }

    pub(in crate::api) fn wire_message(&self) -> Option<StrBytes> {
        self.message.as_deref().map(text)
    }
}

/// Code and text of a result on the wire; success has code 0 and no text.
pub(in crate::api) fn wire_outcome(result: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.error.code(), refusal.wire_message()),
    }
}

/// Code and text of a whole answer that the controller here could not give.
pub(in crate::api) fn controller_outcome(error: &ControllerError) -> (i16, Option<StrBytes>) {
    let message = match error {
        ControllerError::NotController => "This is not the correct controller for this cluster.".to_owned(),
        error => error.to_string(),
    };
    (error_code::of_controller_error(error), Some(text(&message)))
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        Self::new(error_code::of_admin_error(&error), error.to_string())
    }
}

impl From<PlacementError> for Refusal {
    fn from(error: PlacementError) -> Self {
        Self::new(error_code::of_placement_error(&error), error.to_string())
    }
}
