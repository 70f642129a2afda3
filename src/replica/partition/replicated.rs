//! Owners of a log that wait until what it holds is replicated.

use super::{Partition, State};
use crate::replica::ack::{Ack, AckError};
use crate::types::{LeaderEpoch, Offset};

impl State {
    /// Whether this broker leads, and has since `epoch` without a gap.
    pub(super) fn has_led_since(&self, epoch: LeaderEpoch) -> bool {
        self.leading && (self.leading_since..=self.role.leader_epoch).contains(&epoch)
    }
}

impl Partition {
    /// Answers `ack` once the high watermark has reached `end`, which the log's written end had reached. `epoch`: as in
    /// [`Self::may_append`].
    pub(crate) fn on_replicated(&self, epoch: LeaderEpoch, end: Offset, ack: Ack) {
        let mut state = self.state.lock();
        if state.closed || !state.has_led_since(epoch) {
            return ack.answer(Err(AckError::NotLeader));
        }
        if self.view.get().high_watermark >= end {
            return ack.answer(Ok(()));
        }
        state.replicated.insert(end + -1, ack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ack::{Acked, Completion};
    use crate::replica::partition::{AppendRefused, Role};
    use crate::replica::testing;
    use crate::types::{BrokerId, PartitionEpoch};

    /// This broker leads; another one is in the ISR, too, whose fetches the test leaves out, unless `alone`.
    fn shared(epoch: i32, partition_epoch: i32, alone: bool) -> Role {
        let (me, other) = (testing::ME, BrokerId(2));
        let isr = if alone { vec![me] } else { vec![me, other] };
        let partition_epoch = PartitionEpoch(partition_epoch);
        Role { isr, replicas: vec![me, other], partition_epoch, ..testing::role(me.0, epoch) }
    }

    fn wait(partition: &Partition, epoch: i32, end: i64) -> Acked {
        let (completion, acked) = Completion::new(1);
        partition.on_replicated(LeaderEpoch(epoch), Offset(end), Ack::new(&completion, 0));
        acked
    }

    #[test]
    fn who_waits_for_the_log_end_is_answered_by_the_high_watermark() {
        let (partition, _) = testing::led(LeaderEpoch(1));
        testing::append(&partition, 2);
        testing::take(&partition, shared(2, 2, false));
        let mut builder = crate::record::BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        let (completion, mut appended) = Completion::new(1);
        let ack = crate::replica::partition::AckAt::HighWatermark(Ack::new(&completion, 0));
        drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
        partition.wait_for_writes().expect("written");
        let mut reached = wait(&partition, 1, 2);
        assert_eq!(reached.try_all(), Some(vec![Ok(())]), "it was there before");
        let mut behind = wait(&partition, 2, 3);
        assert_eq!((behind.try_all(), appended.try_all()), (None, None));
        // The same leadership under a later epoch.
        testing::take(&partition, shared(3, 3, true));
        assert_eq!((behind.try_all(), appended.try_all()), (Some(vec![Ok(())]), Some(vec![Ok(())])));
    }

    #[test]
    fn who_waits_when_another_broker_leads_is_told() {
        let (partition, _) = testing::led(LeaderEpoch(1));
        testing::take(&partition, shared(2, 2, false));
        testing::append_unacknowledged(&partition);
        let mut waiting = wait(&partition, 1, 1);
        testing::take(&partition, testing::role(2, 3));
        assert_eq!(waiting.try_all(), Some(vec![Err(AckError::NotLeader)]));
        assert_eq!(wait(&partition, 1, 0).try_all(), Some(vec![Err(AckError::NotLeader)]));
    }

    #[test]
    fn an_owner_may_append_as_long_as_its_leadership_has_no_gap() {
        let (partition, _) = testing::led(LeaderEpoch(2));
        let may = |epoch| partition.may_append(LeaderEpoch(epoch), 0).map(drop);
        testing::take(&partition, testing::role(testing::ME.0, 4));
        for epoch in [2, 3, 4] {
            assert!(may(epoch).is_ok(), "{epoch}");
        }
        assert!(matches!((may(1), may(5)), (Err(AppendRefused::NotLeader), Err(AppendRefused::NotLeader))));
        partition.stop_following();
        testing::take(&partition, testing::role(testing::ME.0, 5));
        assert!(matches!(may(4), Err(AppendRefused::NotLeader)) && may(5).is_ok());
    }
}
