//! What the group coordinator refuses. The names are Kafka's; the api room has the numbers.

/// A refusal. Source of the names: Kafka `Errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// The group's metadata cannot be stored, because it is larger than one batch may be.
    #[error("the group's metadata is too large to be stored")]
    UnknownServerError,
    #[error("the metadata of a committed offset is too long")]
    OffsetMetadataTooLarge,
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    #[error("the generation is not the current one")]
    IllegalGeneration,
    #[error("the protocol type differs or no protocol is common to all members")]
    InconsistentGroupProtocol,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the member id is not known")]
    UnknownMemberId,
    #[error("the session time-out is out of range")]
    InvalidSessionTimeout,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the commit is larger than one batch may be")]
    InvalidCommitOffsetSize,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("a member of the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("join again with the member id given")]
    MemberIdRequired,
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("another member has taken the instance id")]
    FencedInstanceId,
    #[error("the transaction is not open in the group's partition")]
    InvalidTxnState,
    #[error("a newer instance of the producer has written")]
    InvalidProducerEpoch,
    #[error("a newer transaction coordinator has written")]
    TransactionCoordinatorFenced,
    #[error("offsets of an open transaction are pending")]
    UnstableOffsetCommit,
}
