//! What the group coordinator refuses, and Kafka's number for each refusal.

/// A refusal. The discriminants are Kafka's error codes. Source: Kafka `Errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(i16)]
pub(crate) enum GroupError {
    /// The group's metadata cannot be stored, because it is larger than one batch may be.
    #[error("the group's metadata is too large to be stored")]
    UnknownServerError = -1,
    #[error("the metadata of a committed offset is too long")]
    OffsetMetadataTooLarge = 12,
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress = 14,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable = 15,
    #[error("this broker does not coordinate the group")]
    NotCoordinator = 16,
    #[error("the generation is not the current one")]
    IllegalGeneration = 22,
    #[error("the protocol type differs or no protocol is common to all members")]
    InconsistentGroupProtocol = 23,
    #[error("the group id is not valid")]
    InvalidGroupId = 24,
    #[error("the member id is not known")]
    UnknownMemberId = 25,
    #[error("the session time-out is out of range")]
    InvalidSessionTimeout = 26,
    #[error("the group is rebalancing")]
    RebalanceInProgress = 27,
    #[error("the commit is larger than one batch may be")]
    InvalidCommitOffsetSize = 28,
    #[error("the group has members")]
    NonEmptyGroup = 68,
    #[error("there is no such group")]
    GroupIdNotFound = 69,
    #[error("join again with the member id given")]
    MemberIdRequired = 79,
    #[error("the group is full")]
    GroupMaxSizeReached = 81,
    #[error("another member has taken the instance id")]
    FencedInstanceId = 82,
}

impl GroupError {
    /// Kafka's error code.
    pub(crate) fn code(self) -> i16 {
        self as i16
    }
}
