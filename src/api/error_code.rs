//! The one map from what the rooms say to Kafka's error codes. Exhaustive, without `_`: a new domain error must say
//! what clients see.

use kafka_protocol::ResponseError;

use crate::cluster::acls::AclStoreError;
use crate::cluster::admin::AdminError;
use crate::cluster::auto_create::AutoCreateError;
use crate::cluster::control::{ControlError, ControllerError, IsrRefused};
use crate::cluster::placement::PlacementError;
use crate::cluster::tokens::TokenStoreError;
use crate::controller::{ElectionRefused, ReassignmentRefused};
use crate::coordination::CoordinationError;
use crate::coordinator::group::error::GroupError;
use crate::coordinator::markers::MarkerError;
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::writer::TransactionRefusal;
use crate::log::partition_log::AppendError;
use crate::record::refused::RefusedKind;
use crate::replica::ack::AckError;
use crate::replica::change::ChangeError;
use crate::replica::delete_records::DeleteRecordsError;
use crate::replica::leader_link::FetchRefused;
use crate::replica::partition::AppendRefused;
use crate::replica::sessions::SessionError;
use crate::security::tokens::TokenError;

/// Code of a batch that was refused before the log saw it.
pub(crate) fn of_refused_batch(kind: RefusedKind) -> ResponseError {
    match kind {
        RefusedKind::CorruptMessage => ResponseError::CorruptMessage,
        RefusedKind::MessageTooLarge => ResponseError::MessageTooLarge,
        RefusedKind::InvalidRecord => ResponseError::InvalidRecord,
        RefusedKind::InvalidTimestamp => ResponseError::InvalidTimestamp,
        RefusedKind::UnsupportedCompressionType => ResponseError::UnsupportedCompressionType,
        RefusedKind::RecordListTooLarge => ResponseError::RecordListTooLarge,
    }
}

pub(crate) fn of_refusal(refusal: &AppendRefused) -> ResponseError {
    match refusal {
        AppendRefused::NotLeader => ResponseError::NotLeaderOrFollower,
        AppendRefused::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        AppendRefused::Storage(_) | AppendRefused::Full => ResponseError::KafkaStorageError,
        AppendRefused::Log(error) => of_append_error(error),
    }
}

pub(crate) fn of_append_error(error: &AppendError) -> ResponseError {
    match error {
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::InvalidTxnState { .. } | AppendError::TransactionalExpected { .. } => {
            ResponseError::InvalidTxnState
        }
        AppendError::TransactionCoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
    }
}

pub(crate) fn of_marker_error(error: &MarkerError) -> ResponseError {
    match error {
        MarkerError::NotLeader => ResponseError::NotLeaderOrFollower,
        MarkerError::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        MarkerError::NotAvailable(_) => ResponseError::KafkaStorageError,
        MarkerError::Unexpected(_) => ResponseError::UnknownServerError,
        MarkerError::Refused(TransactionRefusal::InvalidTxnState) => ResponseError::InvalidTxnState,
        MarkerError::Refused(TransactionRefusal::InvalidProducerEpoch) => ResponseError::InvalidProducerEpoch,
        MarkerError::Refused(TransactionRefusal::CoordinatorFenced) => ResponseError::TransactionCoordinatorFenced,
    }
}

pub(crate) fn of_ack_error(error: &AckError) -> ResponseError {
    match error {
        AckError::NotLeader => ResponseError::NotLeaderOrFollower,
        AckError::Storage(_) | AckError::Full => ResponseError::KafkaStorageError,
        AckError::NotEnoughAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
    }
}

/// ACLs that could not be written. Clients are given no reason, as by Kafka; it stands in the log.
pub(crate) fn of_acl_store_error(error: &AclStoreError) -> ResponseError {
    match error {
        AclStoreError::Znode(_)
        | AclStoreError::Coordination(_)
        | AclStoreError::Contended(_)
        | AclStoreError::TooLarge { .. } => ResponseError::UnknownServerError,
    }
}

/// A delegation token that could not be written. Clients are given no reason, as by Kafka; it stands in the log.
pub(crate) fn of_token_store_error(error: &TokenStoreError) -> ResponseError {
    match error {
        TokenStoreError::Coordination(error) => of_coordination_error(error),
        TokenStoreError::Znode(_) | TokenStoreError::Contended | TokenStoreError::TooLarge { .. } => {
            ResponseError::UnknownServerError
        }
    }
}

/// A delegation token that was not changed.
pub(crate) fn of_token_error(error: &TokenError) -> ResponseError {
    match error {
        TokenError::NotFound => ResponseError::DelegationTokenNotFound,
        TokenError::OwnerMismatch(_) => ResponseError::DelegationTokenOwnerMismatch,
        TokenError::Expired => ResponseError::DelegationTokenExpired,
        TokenError::Store(error) => of_token_store_error(error),
    }
}

/// A change of a log that is no append.
pub(crate) fn of_change_error(error: &ChangeError) -> ResponseError {
    match error {
        ChangeError::Closed | ChangeError::Truncating | ChangeError::Leads => ResponseError::NotLeaderOrFollower,
        ChangeError::Failed(error) => of_ack_error(error),
        ChangeError::Unwritten(_) => ResponseError::KafkaStorageError,
    }
}

pub(crate) fn of_delete_records_error(error: &DeleteRecordsError) -> ResponseError {
    match error {
        DeleteRecordsError::NotLeader => ResponseError::NotLeaderOrFollower,
        DeleteRecordsError::PolicyViolation => ResponseError::PolicyViolation,
        DeleteRecordsError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        DeleteRecordsError::Unchanged(error) => of_change_error(error),
    }
}

pub(crate) fn of_session_error(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIdError => ResponseError::FetchSessionTopicIdError,
    }
}

/// A topic that was named and did not come into being.
pub(crate) fn of_auto_create_error(error: &AutoCreateError) -> ResponseError {
    match error {
        AutoCreateError::InvalidName(_) | AutoCreateError::Collision(..) => ResponseError::InvalidTopicException,
        AutoCreateError::Placement(error) => of_placement_error(error),
        AutoCreateError::Admin(error) => of_admin_error(error),
    }
}

/// An internal topic that did not come into being: the client is to try again, unless the cluster is too small.
pub(crate) fn of_internal_creation(_: &AutoCreateError) -> ResponseError {
    ResponseError::CoordinatorNotAvailable
}

pub(crate) fn of_placement_error(error: &PlacementError) -> ResponseError {
    match error {
        PlacementError::NoPartitions => ResponseError::InvalidPartitions,
        PlacementError::NoReplicas | PlacementError::TooFewBrokers { .. } | PlacementError::RacksIncomplete => {
            ResponseError::InvalidReplicationFactor
        }
    }
}

/// A write to the coordination tree that any broker may make.
pub(crate) fn of_admin_error(error: &AdminError) -> ResponseError {
    match error {
        AdminError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        AdminError::NoTopic(_) => ResponseError::UnknownTopicOrPartition,
        AdminError::TooLarge { .. } => ResponseError::InvalidPartitions,
        AdminError::Raced(_) => ResponseError::UnknownServerError,
        AdminError::Znode(_) => ResponseError::UnknownServerError,
        AdminError::Coordination(error) => of_coordination_error(error),
    }
}

/// The coordination tree did not do what was asked; nothing a client can mend, but it may try again.
pub(crate) fn of_coordination_error(error: &CoordinationError) -> ResponseError {
    match error {
        CoordinationError::Unknown(_) | CoordinationError::SessionExpired => ResponseError::RequestTimedOut,
        CoordinationError::NoNode(_)
        | CoordinationError::NodeExists(_)
        | CoordinationError::BadVersion(_)
        | CoordinationError::NotEmpty(_)
        | CoordinationError::NoChildrenForEphemerals(_)
        | CoordinationError::Refused(_) => ResponseError::UnknownServerError,
    }
}

/// What the group coordinator refuses.
pub(crate) fn of_group_error(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownServerError => ResponseError::UnknownServerError,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::InvalidTxnState => ResponseError::InvalidTxnState,
        GroupError::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
        GroupError::TransactionCoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
    }
}

/// Code of a group's answer; 0 for success.
pub(crate) fn of_group_answer(error: Option<GroupError>) -> i16 {
    error.map_or(0, |error| of_group_error(error).code())
}

/// What the transaction coordinator refuses.
pub(crate) fn of_transaction_error(error: TransactionError) -> ResponseError {
    match error {
        TransactionError::UnknownServerError => ResponseError::UnknownServerError,
        TransactionError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        TransactionError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        TransactionError::NotCoordinator => ResponseError::NotCoordinator,
        TransactionError::InvalidRequest => ResponseError::InvalidRequest,
        TransactionError::InvalidTransactionTimeout => ResponseError::InvalidTransactionTimeout,
        TransactionError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
        TransactionError::ProducerFenced => ResponseError::ProducerFenced,
        TransactionError::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
        TransactionError::InvalidTxnState => ResponseError::InvalidTxnState,
        TransactionError::TransactionalIdNotFound => ResponseError::TransactionalIdNotFound,
        TransactionError::NetworkException => ResponseError::NetworkException,
        TransactionError::Other(code) => {
            ResponseError::try_from_code(code).unwrap_or(ResponseError::UnknownServerError)
        }
    }
}

/// The same for clients of before PRODUCER_FENCED, which know it by its former code.
pub(crate) fn of_transaction_error_for(knows_fencing: bool, error: TransactionError) -> ResponseError {
    match of_transaction_error(error) {
        ResponseError::ProducerFenced if !knows_fencing => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

/// What a controller hears of its request, or of one partition of it. The way back is `peer/codes.rs`, as for the next
/// three.
pub(crate) fn of_control_error(error: &ControlError) -> i16 {
    match error {
        ControlError::StaleControllerEpoch => ResponseError::StaleControllerEpoch.code(),
        ControlError::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch.code(),
        ControlError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch.code(),
        ControlError::UnknownPartition => ResponseError::UnknownTopicOrPartition.code(),
        ControlError::InconsistentTopicId { .. } => ResponseError::InconsistentTopicId.code(),
        // The answer says beside the code that an end was lost.
        ControlError::Storage(_) | ControlError::EndLost => ResponseError::KafkaStorageError.code(),
        ControlError::Other(code) => *code,
        // Of this broker's own end nothing is out of reach.
        ControlError::Unreachable(_) => ResponseError::UnknownServerError.code(),
    }
}

/// What another broker hears of the controller here.
pub(crate) fn of_controller_error(error: &ControllerError) -> i16 {
    match error {
        ControllerError::NotController => ResponseError::NotController.code(),
        ControllerError::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch.code(),
        ControllerError::BrokerIdNotRegistered => ResponseError::BrokerIdNotRegistered.code(),
        ControllerError::BrokerNotAvailable => ResponseError::BrokerNotAvailable.code(),
        ControllerError::Unavailable(_) => ResponseError::UnknownServerError.code(),
    }
}

/// Why a partition has no new leader.
pub(crate) fn of_election(refused: ElectionRefused) -> ResponseError {
    match refused {
        ElectionRefused::NotNeeded => ResponseError::ElectionNotNeeded,
        ElectionRefused::PreferredNotAvailable => ResponseError::PreferredLeaderNotAvailable,
        ElectionRefused::NoneAvailable => ResponseError::EligibleLeadersNotAvailable,
        ElectionRefused::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ElectionRefused::BeingDeleted => ResponseError::InvalidTopicException,
    }
}

/// Why a partition is not reassigned.
pub(crate) fn of_reassignment(refused: &ReassignmentRefused) -> ResponseError {
    match refused {
        ReassignmentRefused::NotInProgress => ResponseError::NoReassignmentInProgress,
        ReassignmentRefused::InvalidReplicas(_) => ResponseError::InvalidReplicaAssignment,
        ReassignmentRefused::FactorChanged { .. } => ResponseError::InvalidReplicationFactor,
        ReassignmentRefused::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ReassignmentRefused::Unwritable(_) => ResponseError::UnknownServerError,
    }
}

/// What a leader hears of one partition of its AlterPartition.
pub(crate) fn of_isr_refused(error: &IsrRefused) -> i16 {
    match error {
        IsrRefused::UnknownPartition => ResponseError::UnknownTopicOrPartition.code(),
        IsrRefused::UnknownTopicId => ResponseError::UnknownTopicId.code(),
        IsrRefused::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch.code(),
        IsrRefused::InvalidUpdateVersion => ResponseError::InvalidUpdateVersion.code(),
        IsrRefused::InvalidRequest => ResponseError::InvalidRequest.code(),
        IsrRefused::IneligibleReplica => ResponseError::IneligibleReplica.code(),
        IsrRefused::NotAttempted => ResponseError::OperationNotAttempted.code(),
        IsrRefused::Other(code) => *code,
    }
}

/// What a follower hears of one partition of its fetch.
pub(crate) fn of_fetch_refused(error: FetchRefused) -> i16 {
    match error {
        FetchRefused::OffsetOutOfRange => ResponseError::OffsetOutOfRange.code(),
        FetchRefused::UnknownPartition => ResponseError::UnknownTopicOrPartition.code(),
        FetchRefused::NotLeader => ResponseError::NotLeaderOrFollower.code(),
        FetchRefused::Storage => ResponseError::KafkaStorageError.code(),
        FetchRefused::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch.code(),
        FetchRefused::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch.code(),
        FetchRefused::UnknownTopicId => ResponseError::UnknownTopicId.code(),
        FetchRefused::InconsistentTopicId => ResponseError::InconsistentTopicId.code(),
        FetchRefused::Other(code) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_produce_are_kafkas() {
        assert_eq!(of_refused_batch(RefusedKind::CorruptMessage).code(), 2);
        assert_eq!(of_refused_batch(RefusedKind::MessageTooLarge).code(), 10);
        assert_eq!(of_refused_batch(RefusedKind::RecordListTooLarge).code(), 18);
        assert_eq!(of_refused_batch(RefusedKind::InvalidTimestamp).code(), 32);
        assert_eq!(of_refused_batch(RefusedKind::UnsupportedCompressionType).code(), 76);
        assert_eq!(of_refused_batch(RefusedKind::InvalidRecord).code(), 87);
        assert_eq!(of_refusal(&AppendRefused::NotLeader).code(), 6);
        assert_eq!(of_refusal(&AppendRefused::NotEnoughReplicas).code(), 19);
        assert_eq!(of_refusal(&AppendRefused::Full).code(), 56);
        assert_eq!(of_ack_error(&AckError::NotEnoughAfterAppend).code(), 20);
        assert_eq!(of_session_error(SessionError::NotFound).code(), 70);
        assert_eq!(of_session_error(SessionError::InvalidEpoch).code(), 71);
        assert_eq!(of_session_error(SessionError::TopicIdError).code(), 106);
    }

    #[test]
    fn the_codes_of_delegation_tokens_are_kafkas() {
        let lost = CoordinationError::Unknown(String::new());
        let codes = [
            (TokenError::NotFound, 62),
            (TokenError::OwnerMismatch(String::new()), 63),
            (TokenError::Expired, 66),
            (TokenError::Store(TokenStoreError::Coordination(lost)), 7),
            (TokenError::Store(TokenStoreError::Contended), -1),
        ];
        for (error, code) in codes {
            assert_eq!(of_token_error(&error).code(), code, "{error:?}");
        }
    }

    #[test]
    fn the_codes_of_elections_and_reassignments_are_kafkas() {
        let elections = [
            (ElectionRefused::NotNeeded, 84),
            (ElectionRefused::PreferredNotAvailable, 80),
            (ElectionRefused::NoneAvailable, 83),
            (ElectionRefused::UnknownPartition, 3),
            (ElectionRefused::BeingDeleted, 17),
        ];
        for (refused, code) in elections {
            assert_eq!(of_election(refused).code(), code, "{refused:?}");
        }
        let reassignments = [
            (ReassignmentRefused::NotInProgress, 85),
            (ReassignmentRefused::InvalidReplicas(String::new()), 39),
            (ReassignmentRefused::FactorChanged { from: 1, to: 2 }, 38),
            (ReassignmentRefused::UnknownPartition, 3),
            (ReassignmentRefused::Unwritable(String::new()), -1),
        ];
        for (refused, code) in reassignments {
            assert_eq!(of_reassignment(&refused).code(), code, "{refused:?}");
        }
    }

    #[test]
    fn the_codes_of_groups_are_kafkas() {
        let codes = [
            (GroupError::UnknownServerError, -1),
            (GroupError::OffsetMetadataTooLarge, 12),
            (GroupError::CoordinatorLoadInProgress, 14),
            (GroupError::CoordinatorNotAvailable, 15),
            (GroupError::NotCoordinator, 16),
            (GroupError::IllegalGeneration, 22),
            (GroupError::InconsistentGroupProtocol, 23),
            (GroupError::InvalidGroupId, 24),
            (GroupError::UnknownMemberId, 25),
            (GroupError::InvalidSessionTimeout, 26),
            (GroupError::RebalanceInProgress, 27),
            (GroupError::InvalidCommitOffsetSize, 28),
            (GroupError::NonEmptyGroup, 68),
            (GroupError::GroupSubscribedToTopic, 86),
            (GroupError::GroupIdNotFound, 69),
            (GroupError::MemberIdRequired, 79),
            (GroupError::GroupMaxSizeReached, 81),
            (GroupError::FencedInstanceId, 82),
            (GroupError::InvalidTxnState, 48),
            (GroupError::InvalidProducerEpoch, 47),
            (GroupError::TransactionCoordinatorFenced, 52),
            (GroupError::UnstableOffsetCommit, 88),
        ];
        for (error, code) in codes {
            assert_eq!(of_group_error(error).code(), code, "{error:?}");
        }
        assert_eq!(of_group_answer(None), 0);
    }

    #[test]
    fn the_codes_of_transactions_are_kafkas() {
        let codes = [
            (TransactionError::UnknownServerError, -1),
            (TransactionError::NetworkException, 13),
            (TransactionError::Other(53), 53),
            (TransactionError::CoordinatorLoadInProgress, 14),
            (TransactionError::CoordinatorNotAvailable, 15),
            (TransactionError::NotCoordinator, 16),
            (TransactionError::InvalidRequest, 42),
            (TransactionError::InvalidTxnState, 48),
            (TransactionError::InvalidProducerIdMapping, 49),
            (TransactionError::InvalidTransactionTimeout, 50),
            (TransactionError::ConcurrentTransactions, 51),
            (TransactionError::ProducerFenced, 90),
            (TransactionError::TransactionalIdNotFound, 105),
        ];
        for (error, code) in codes {
            assert_eq!(of_transaction_error(error).code(), code, "{error:?}");
        }
        assert_eq!(of_transaction_error_for(false, TransactionError::ProducerFenced).code(), 47);
        assert_eq!(of_transaction_error_for(true, TransactionError::ProducerFenced).code(), 90);
    }
}
