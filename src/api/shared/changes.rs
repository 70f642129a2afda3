//! A request to change settings, as both APIs ask for it.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::refusal::Refusal;
use crate::types::BrokerId;

/// One resource of a request.
pub(in crate::api) struct Resource<'a> {
    pub(in crate::api) kind: i8,
    pub(in crate::api) name: &'a StrBytes,
    pub(in crate::api) changes: Vec<Change<'a>>,
}

impl<'a> Resource<'a> {
    /// What tells resources apart.
    pub(super) fn identity(&self) -> (i8, &'a str) {
        (self.kind, self.name)
    }
}

/// What is to become of one setting.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Change<'a> {
    pub(in crate::api) name: &'a str,
    /// [`SET`] and the others.
    pub(in crate::api) operation: i8,
    pub(in crate::api) value: Option<&'a str>,
}

pub(in crate::api) const SET: i8 = 0;
pub(super) const DELETE: i8 = 1;
pub(super) const APPEND: i8 = 2;
pub(super) const SUBTRACT: i8 = 3;

/// What changes are made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Base {
    /// The settings that there are.
    Existing,
    /// None: what is not named goes back to its default.
    Nothing,
}

/// Source: Kafka 3.9 `ConfigAdminManager.validateResourceNameIsCurrentNodeId`.
pub(super) fn check_is_me(me: BrokerId, name: &str) -> Result<(), Refusal> {
    match name.parse() {
        Ok(number) if BrokerId(number) == me => Ok(()),
        Ok(number) => Err(invalid_request(format!("Unexpected broker id, expected {me}, but received {number}"))),
        Err(_) => Err(invalid_request(format!("Node id must be an integer, but it is: {name}"))),
    }
}

pub(in crate::api) fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

pub(super) fn invalid_config(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, message)
}
