//! Codes of other brokers' answers as the errors of the seams. The other direction is `api/error_code.rs`.

use crate::cluster::control::{ControlError, ControllerError, IsrRefused};
use crate::replica::leader_link::{FetchRefused, SessionError};
use crate::types::TopicId;

/// Codes with a meaning of their own between brokers. Source: Kafka `Errors`.
pub(super) mod code {
    pub(crate) const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub(crate) const NONE: i16 = 0;
    pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(crate) const BROKER_NOT_AVAILABLE: i16 = 8;
    pub(crate) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub(crate) const STALE_CONTROLLER_EPOCH: i16 = 11;
    pub(crate) const NETWORK_EXCEPTION: i16 = 13;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const NOT_CONTROLLER: i16 = 41;
    pub(crate) const INVALID_REQUEST: i16 = 42;
    pub(crate) const OPERATION_NOT_ATTEMPTED: i16 = 55;
    pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
    pub(crate) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub(crate) const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub(crate) const FENCED_LEADER_EPOCH: i16 = 74;
    pub(crate) const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub(crate) const STALE_BROKER_EPOCH: i16 = 77;
    pub(crate) const INVALID_UPDATE_VERSION: i16 = 95;
    pub(crate) const UNKNOWN_TOPIC_ID: i16 = 100;
    pub(crate) const BROKER_ID_NOT_REGISTERED: i16 = 102;
    pub(crate) const INCONSISTENT_TOPIC_ID: i16 = 103;
    pub(crate) const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;
    pub(crate) const INELIGIBLE_REPLICA: i16 = 107;
}

/// Of a control request, or of one partition of it.
pub(super) fn control(error_code: i16) -> Result<(), ControlError> {
    Err(match error_code {
        code::NONE => return Ok(()),
        code::STALE_CONTROLLER_EPOCH => ControlError::StaleControllerEpoch,
        code::STALE_BROKER_EPOCH => ControlError::StaleBrokerEpoch,
        code::FENCED_LEADER_EPOCH => ControlError::FencedLeaderEpoch,
        code::UNKNOWN_TOPIC_OR_PARTITION => ControlError::UnknownPartition,
        // The answer does not tell which one is there.
        code::INCONSISTENT_TOPIC_ID => ControlError::InconsistentTopicId { here: TopicId::ZERO },
        code::KAFKA_STORAGE_ERROR => ControlError::Storage("its storage failed".into()),
        other => ControlError::Other(other),
    })
}

/// Of a whole request to the controller.
pub(super) fn controller(error_code: i16) -> Result<(), ControllerError> {
    Err(match error_code {
        code::NONE => return Ok(()),
        code::NOT_CONTROLLER => ControllerError::NotController,
        code::STALE_BROKER_EPOCH => ControllerError::StaleBrokerEpoch,
        code::BROKER_NOT_AVAILABLE => ControllerError::BrokerNotAvailable,
        code::BROKER_ID_NOT_REGISTERED => ControllerError::BrokerIdNotRegistered,
        other => ControllerError::Unavailable(format!("the controller answered with error code {other}")),
    })
}

/// Of one partition of AlterPartition.
pub(super) fn isr(error_code: i16) -> Option<IsrRefused> {
    Some(match error_code {
        code::NONE => return None,
        code::UNKNOWN_TOPIC_OR_PARTITION => IsrRefused::UnknownPartition,
        code::UNKNOWN_TOPIC_ID => IsrRefused::UnknownTopicId,
        code::FENCED_LEADER_EPOCH => IsrRefused::FencedLeaderEpoch,
        code::INVALID_UPDATE_VERSION => IsrRefused::InvalidUpdateVersion,
        code::INVALID_REQUEST => IsrRefused::InvalidRequest,
        code::INELIGIBLE_REPLICA => IsrRefused::IneligibleReplica,
        code::OPERATION_NOT_ATTEMPTED => IsrRefused::NotAttempted,
        other => IsrRefused::Other(other),
    })
}

/// Of one partition of a fetch, or of ListOffsets.
pub(super) fn fetch(error_code: i16) -> Option<FetchRefused> {
    Some(match error_code {
        code::NONE => return None,
        code::OFFSET_OUT_OF_RANGE => FetchRefused::OffsetOutOfRange,
        code::UNKNOWN_TOPIC_OR_PARTITION => FetchRefused::UnknownPartition,
        code::NOT_LEADER_OR_FOLLOWER => FetchRefused::NotLeader,
        code::KAFKA_STORAGE_ERROR => FetchRefused::Storage,
        code::FENCED_LEADER_EPOCH => FetchRefused::FencedLeaderEpoch,
        code::UNKNOWN_LEADER_EPOCH => FetchRefused::UnknownLeaderEpoch,
        code::UNKNOWN_TOPIC_ID => FetchRefused::UnknownTopicId,
        code::INCONSISTENT_TOPIC_ID => FetchRefused::InconsistentTopicId,
        other => FetchRefused::Other(other),
    })
}

/// Of a whole fetch: what is wrong with its session, if that is it.
pub(super) fn session(error_code: i16) -> Option<SessionError> {
    Some(match error_code {
        code::FETCH_SESSION_ID_NOT_FOUND => SessionError::NotFound,
        code::INVALID_FETCH_SESSION_EPOCH => SessionError::InvalidEpoch,
        code::FETCH_SESSION_TOPIC_ID_ERROR => SessionError::TopicIdError,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::error_code;

    /// What one broker says, another hears.
    #[test]
    fn every_code_comes_back_as_the_error_that_it_was() {
        let here = TopicId::ZERO;
        for error in [
            ControlError::StaleControllerEpoch,
            ControlError::StaleBrokerEpoch,
            ControlError::FencedLeaderEpoch,
            ControlError::UnknownPartition,
            ControlError::InconsistentTopicId { here },
            ControlError::Storage("its storage failed".into()),
            ControlError::Other(-1),
        ] {
            assert_eq!(control(error_code::of_control_error(&error)), Err(error));
        }
        for error in [
            ControllerError::NotController,
            ControllerError::StaleBrokerEpoch,
            ControllerError::BrokerNotAvailable,
            ControllerError::BrokerIdNotRegistered,
        ] {
            assert_eq!(controller(error_code::of_controller_error(&error)), Err(error));
        }
        for error in [
            IsrRefused::UnknownPartition,
            IsrRefused::UnknownTopicId,
            IsrRefused::FencedLeaderEpoch,
            IsrRefused::InvalidUpdateVersion,
            IsrRefused::InvalidRequest,
            IsrRefused::IneligibleReplica,
            IsrRefused::NotAttempted,
            IsrRefused::Other(29),
        ] {
            assert_eq!(isr(error_code::of_isr_refused(&error)), Some(error));
        }
        for error in [
            FetchRefused::OffsetOutOfRange,
            FetchRefused::UnknownPartition,
            FetchRefused::NotLeader,
            FetchRefused::Storage,
            FetchRefused::FencedLeaderEpoch,
            FetchRefused::UnknownLeaderEpoch,
            FetchRefused::UnknownTopicId,
            FetchRefused::InconsistentTopicId,
            FetchRefused::Other(-1),
        ] {
            assert_eq!(fetch(error_code::of_fetch_refused(error)), Some(error));
        }
        for error in [SessionError::NotFound, SessionError::InvalidEpoch, SessionError::TopicIdError] {
            assert_eq!(session(error_code::of_session_error(error).code()), Some(error));
        }
    }
}
