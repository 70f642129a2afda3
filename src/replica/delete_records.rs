//! DeleteRecords: a client moves the start of a log.
//!
//! Source: Kafka 3.9 `Partition.deleteRecordsOnLeader`, `UnifiedLog.maybeIncrementLogStartOffset`.

use std::sync::Arc;

use super::change::{ChangeError, Changed};
use super::partition::Partition;
use crate::clock::UnixMs;
use crate::types::Offset;

/// Why no record was deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DeleteRecordsError {
    #[error("the replica does not lead")]
    NotLeader,
    /// `cleanup.policy` does not contain `delete`.
    #[error("the topic's policy is not to delete")]
    PolicyViolation,
    #[error("offset {to} lies above the high watermark {high_watermark}, or is negative")]
    OffsetOutOfRange { to: Offset, high_watermark: Offset },
    #[error(transparent)]
    Unchanged(#[from] ChangeError),
}

/// A log start that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) log_start_offset: Offset,
    /// What was to be deleted lies below it; the start may lie higher.
    pub(crate) below: Offset,
}

/// Makes everything below `to` unreadable, `None`: all below the high watermark. A start that lies higher stays. Gives
/// the log start, which counts once it is written. May read the disk.
pub(crate) fn delete_records(
    partition: &Arc<Partition>,
    to: Option<Offset>,
    now: UnixMs,
) -> Result<Changed<Moved>, DeleteRecordsError> {
    // After a disk was full this gives a log back that takes changes.
    partition.open_anew(now)?;
    let changed = partition.change_log(|log, view, writes| {
        if !view.leading {
            return Err(DeleteRecordsError::NotLeader);
        }
        if !log.config().delete {
            return Err(DeleteRecordsError::PolicyViolation);
        }
        let high_watermark = view.high_watermark;
        let to = to.unwrap_or(high_watermark);
        if to < Offset::ZERO || high_watermark < to {
            return Err(DeleteRecordsError::OffsetOutOfRange { to, high_watermark });
        }
        log.advance_log_start(to, writes);
        Ok(Moved { log_start_offset: log.log_start_offset(), below: to })
    })?;
    changed.transposed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ack::AckError;
    use crate::replica::testing;
    use crate::storage::StorageError;
    use crate::types::LeaderEpoch;

    fn delete(partition: &Arc<Partition>, to: Option<i64>) -> Result<i64, DeleteRecordsError> {
        let changed = delete_records(partition, to.map(Offset), 0)?;
        Ok(changed.written().map(|moved| moved.log_start_offset.0)?)
    }

    #[test]
    fn the_start_moves_up_to_the_high_watermark_and_never_back() {
        let (partition, _) = testing::led(LeaderEpoch(0));
        testing::append(&partition, 5);
        assert_eq!(delete(&partition, Some(2)).expect("deleted"), 2);
        assert_eq!(delete(&partition, Some(1)).expect("nothing to do"), 2);
        assert_eq!(delete(&partition, Some(0)).expect("nothing to do"), 2);
        for to in [6, -2, i64::MIN, i64::MAX] {
            assert!(matches!(delete(&partition, Some(to)), Err(DeleteRecordsError::OffsetOutOfRange { .. })), "{to}");
        }
        assert_eq!(partition.view().log_start_offset, Offset(2));
        assert_eq!(delete(&partition, None).expect("deleted"), 5);
        assert_eq!(delete(&partition, None).expect("again"), 5);
        testing::append(&partition, 1);
        assert_eq!((partition.view().log_start_offset, partition.view().high_watermark), (Offset(5), Offset(6)));
    }

    #[test]
    fn only_a_leader_of_a_log_that_is_deleted_from_does_it() {
        let (partition, _) = testing::led(LeaderEpoch(0));
        testing::append(&partition, 2);
        let mut config = partition.with_log(|log| *log.config());
        (config.delete, config.compact) = (false, true);
        partition.set_config(config, 1);
        assert!(matches!(delete(&partition, Some(1)), Err(DeleteRecordsError::PolicyViolation)));
        config.delete = true;
        partition.set_config(config, 1);
        assert_eq!(delete(&partition, Some(1)).expect("both policies"), 1);
        partition.stop_following();
        assert!(matches!(delete(&partition, Some(2)), Err(DeleteRecordsError::NotLeader)));
        partition.close();
        assert!(matches!(delete(&partition, Some(2)), Err(DeleteRecordsError::Unchanged(ChangeError::Closed))));
    }

    #[test]
    fn a_start_that_is_not_written_goes_back() {
        let (partition, faults) = testing::led(LeaderEpoch(0));
        testing::append(&partition, 5);
        faults.refuse_any(1);
        let refused = delete(&partition, Some(3));
        let is_full = |error: &DeleteRecordsError| {
            matches!(error, DeleteRecordsError::Unchanged(ChangeError::Unwritten(StorageError::Full { .. })))
        };
        assert!(refused.as_ref().is_err_and(is_full), "{refused:?}");
        assert_eq!(delete(&partition, Some(0)).expect("nothing to do"), 0, "it is as the disk has it");
        assert_eq!(delete(&partition, Some(4)).expect("deleted"), 4);
        faults.fail_commit(0);
        let stopped = delete(&partition, Some(5));
        assert!(stopped.is_err(), "{stopped:?}");
        let offline = delete(&partition, Some(5));
        let storage = |error: &DeleteRecordsError| {
            matches!(error, DeleteRecordsError::Unchanged(ChangeError::Failed(AckError::Storage(_))))
        };
        assert!(offline.as_ref().is_err_and(storage), "{offline:?}");
    }
}
