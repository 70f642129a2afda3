//! The replicas in sync as their leader sees them, who is to join or leave them, and the high watermark that follows.
//! Pure. The controller has the last word: a leader proposes a change, and until it knows the outcome it reckons with
//! both (the *maximal* ISR).
//!
//! Source: Kafka 3.9 `Partition`, `PartitionState`, `Partition.maybeIncrementLeaderHW`; KIP-497.

use super::followers::{Follower, Followers};
use crate::cluster::control::{IsrRefused, StoredIsr};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

/// Tells one proposal of a partition from all others of its life here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangeNumber(pub(crate) u64);

/// The replicas in sync, the leader among them, in the order of the stored list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Isr {
    /// As the controller has stored it.
    Committed { isr: Vec<BrokerId> },
    /// A replica is proposed to join it.
    Expanding { isr: Vec<BrokerId>, adding: BrokerId, change: ChangeNumber },
    /// Replicas are proposed to leave it.
    Shrinking { isr: Vec<BrokerId>, removing: Vec<BrokerId>, change: ChangeNumber },
}

impl Isr {
    /// As the controller has stored it last.
    pub(crate) fn committed(&self) -> &[BrokerId] {
        match self {
            Self::Committed { isr } | Self::Expanding { isr, .. } | Self::Shrinking { isr, .. } => isr,
        }
    }

    /// Whether it is in sync, or will be if the proposal under way is taken.
    pub(crate) fn in_maximal(&self, id: BrokerId) -> bool {
        self.committed().contains(&id) || matches!(self, Self::Expanding { adding, .. } if *adding == id)
    }

    /// How many are in sync at most, whatever comes of the proposal under way.
    pub(crate) fn maximal_len(&self) -> usize {
        self.committed().len() + usize::from(matches!(self, Self::Expanding { .. }))
    }

    /// The ISR to propose, and the proposal's number. `None`: nothing is under way.
    pub(crate) fn proposed(&self) -> Option<(Vec<BrokerId>, ChangeNumber)> {
        match self {
            Self::Committed { .. } => None,
            Self::Expanding { isr, adding, change } => Some((isr.iter().copied().chain([*adding]).collect(), *change)),
            Self::Shrinking { isr, removing, change } => {
                Some((isr.iter().copied().filter(|id| !removing.contains(id)).collect(), *change))
            }
        }
    }

    /// The number of the proposal under way.
    pub(crate) fn in_flight(&self) -> Option<ChangeNumber> {
        match self {
            Self::Committed { .. } => None,
            Self::Expanding { change, .. } | Self::Shrinking { change, .. } => Some(*change),
        }
    }
}

/// Whether a follower is to be proposed as in sync: it has all that is committed, and the whole of what came before
/// this leader's epoch. `live`: its broker is alive, and worth a proposal.
/// Source: Kafka 3.9 `Partition.needsExpandIsr`, `isFollowerInSync`.
pub(crate) fn want_expand(
    isr: &Isr,
    follower: &Follower,
    high_watermark: Offset,
    epoch_start: Offset,
    live: bool,
) -> bool {
    let level = |log_end: Offset| log_end >= high_watermark && log_end >= epoch_start;
    live && isr.in_flight().is_none() && !isr.in_maximal(follower.id) && follower.log_end.is_some_and(level)
}

/// Members that are to be proposed as out of sync: those that have not been level for `lag_ms`.
/// Source: Kafka 3.9 `Partition.getOutOfSyncReplicas`.
pub(crate) fn want_shrink(
    isr: &Isr,
    followers: &Followers,
    leader_end: Offset,
    now_ms: i64,
    lag_ms: i64,
) -> Vec<BrokerId> {
    if isr.in_flight().is_some() {
        return Vec::new();
    }
    let members = followers.iter().filter(|follower| isr.committed().contains(&follower.id));
    members.filter(|follower| !follower.is_caught_up(leader_end, now_ms, lag_ms)).map(|follower| follower.id).collect()
}

/// Whether a member has lost what it once had: it fetches below the high watermark, which no clean truncation does. It
/// is no longer in sync, whatever the lag. Source: ours; Kafka waits for the lag.
pub(crate) fn has_lost_data(isr: &Isr, follower: &Follower, high_watermark: Offset) -> bool {
    isr.in_flight().is_none()
        && isr.committed().contains(&follower.id)
        && follower.log_end.is_some_and(|log_end| log_end < high_watermark)
}

/// What follows from an answer to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// The controller stored this.
    Commit(Vec<BrokerId>, PartitionEpoch),
    /// It was surely not stored.
    Back,
    /// Nobody here can tell; a LeaderAndIsr will.
    Stay,
    /// Worth another attempt.
    Again,
    /// The answer is to another proposal than the one under way.
    Stale,
}

/// Judges an answer to proposal `sent`. Source: Kafka 3.9 `Partition.handleAlterPartitionUpdate`,
/// `handleAlterPartitionError`.
pub(crate) fn on_answer(
    isr: &Isr,
    sent: ChangeNumber,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    answer: &Result<StoredIsr, IsrRefused>,
) -> Next {
    if isr.in_flight() != Some(sent) {
        return Next::Stale;
    }
    match answer {
        Ok(stored) if stored.leader_epoch == leader_epoch && stored.partition_epoch >= partition_epoch => {
            Next::Commit(stored.isr.clone(), stored.partition_epoch)
        }
        Ok(_) => Next::Stay,
        Err(IsrRefused::IneligibleReplica | IsrRefused::NotAttempted) => Next::Back,
        Err(
            IsrRefused::FencedLeaderEpoch
            | IsrRefused::InvalidUpdateVersion
            | IsrRefused::UnknownPartition
            | IsrRefused::UnknownTopicId
            | IsrRefused::InvalidRequest,
        ) => Next::Stay,
        Err(IsrRefused::Other(_)) => Next::Again,
    }
}

/// The moment a high watermark is reckoned at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reckoning {
    /// The leader's own written end.
    pub(crate) own_end: Offset,
    /// Which it never falls below within an epoch (I-8).
    pub(crate) before: Offset,
    /// `min.insync.replicas`, at most the number of replicas, those that are being added included (KAFKA-15583).
    pub(crate) min_isr: usize,
    pub(crate) now_ms: i64,
    pub(crate) lag_ms: i64,
}

/// The high watermark: what the leader and every replica has that is in the maximal ISR, or about to join it. It stands
/// still while the stored ISR is too small, or a member has not been heard of.
/// Source: Kafka 3.9 `Partition.maybeIncrementLeaderHW`.
pub(crate) fn high_watermark(
    isr: &Isr,
    followers: &Followers,
    at: Reckoning,
    mut live: impl FnMut(BrokerId) -> bool,
) -> Offset {
    if isr.committed().len() < at.min_isr {
        return at.before;
    }
    let mut high_watermark = at.own_end;
    for follower in followers.iter() {
        if follower.log_end.is_some_and(|log_end| log_end >= high_watermark) {
            continue;
        }
        let joins = |follower: &Follower| follower.is_caught_up(at.own_end, at.now_ms, at.lag_ms);
        if isr.in_maximal(follower.id) || (joins(follower) && live(follower.id)) {
            match follower.log_end {
                Some(log_end) => high_watermark = log_end,
                None => return at.before,
            }
        }
    }
    high_watermark.max(at.before)
}

#[cfg(test)]
mod tests {
    use super::super::followers::FollowerPosition;
    use super::*;
    use crate::clock::Clock;
    use crate::clock::testing::ManualClock;
    use crate::types::BrokerEpoch;

    const ME: BrokerId = BrokerId(1);
    const CHANGE: ChangeNumber = ChangeNumber(7);

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().map(|&id| BrokerId(id)).collect()
    }

    fn committed(isr: &[i32]) -> Isr {
        Isr::Committed { isr: ids(isr) }
    }

    fn expanding(isr: &[i32], adding: i32) -> Isr {
        Isr::Expanding { isr: ids(isr), adding: BrokerId(adding), change: CHANGE }
    }

    fn shrinking(isr: &[i32], removing: &[i32]) -> Isr {
        Isr::Shrinking { isr: ids(isr), removing: ids(removing), change: CHANGE }
    }

    fn position(offset: i64) -> FollowerPosition {
        FollowerPosition { fetch_offset: Offset(offset), log_start: Offset(0), broker_epoch: BrokerEpoch::NONE }
    }

    /// Followers 2 and 3 at these offsets, seen at time 0 by a leader that ends at 10.
    fn followers(second: i64, third: i64) -> Followers {
        let mut followers = Followers::of_new_epoch(ME, &ids(&[1, 2, 3]), &[], 0);
        for (id, offset) in [(2, second), (3, third)] {
            followers.record(BrokerId(id), position(offset), Offset(10), 0).expect("counted");
        }
        followers
    }

    #[test]
    fn the_maximal_isr_is_what_it_may_be_by_now() {
        assert_eq!((committed(&[1, 2]).maximal_len(), committed(&[1, 2]).proposed()), (2, None));
        let grows = expanding(&[1, 2], 3);
        assert!(grows.in_maximal(BrokerId(3)) && grows.maximal_len() == 3);
        assert_eq!(grows.proposed(), Some((ids(&[1, 2, 3]), CHANGE)));
        let shrinks = shrinking(&[1, 2, 3], &[2]);
        assert!(shrinks.in_maximal(BrokerId(2)) && shrinks.maximal_len() == 3, "until it is known to be gone");
        assert_eq!(shrinks.proposed(), Some((ids(&[1, 3]), CHANGE)));
    }

    #[test]
    fn a_follower_joins_when_it_has_all_that_counts_and_nothing_is_under_way() {
        let followers = followers(8, 4);
        let second = followers.get(BrokerId(2)).expect("there");
        let wants = |isr: &Isr, hw, start, live| want_expand(isr, second, Offset(hw), Offset(start), live);
        assert!(wants(&committed(&[1]), 8, 8, true));
        assert!(!wants(&committed(&[1]), 9, 0, true), "below the high watermark");
        assert!(!wants(&committed(&[1]), 0, 9, true), "below what came before the epoch");
        assert!(!wants(&committed(&[1]), 8, 8, false), "its broker is gone");
        assert!(!wants(&committed(&[1, 2]), 8, 8, true), "in it");
        assert!(!wants(&expanding(&[1], 3), 8, 8, true) && !wants(&shrinking(&[1, 3], &[3]), 8, 8, true));
        let silent = Followers::of_new_epoch(ME, &ids(&[1, 2]), &[], 0);
        assert!(!want_expand(&committed(&[1]), silent.get(BrokerId(2)).expect("there"), Offset(0), Offset(0), true));
    }

    #[test]
    fn members_leave_when_they_lag_and_nothing_is_under_way() {
        let followers = followers(10, 4);
        let wants = |isr: &Isr, now| want_shrink(isr, &followers, Offset(10), now, 30);
        assert_eq!(wants(&committed(&[1, 2, 3]), 0), ids(&[3]), "never level");
        assert_eq!(wants(&committed(&[1, 2, 3]), 1000), ids(&[3]), "2 is level for ever");
        assert_eq!(want_shrink(&committed(&[1, 2, 3]), &followers, Offset(11), 30, 30), ids(&[3]));
        assert_eq!(want_shrink(&committed(&[1, 2, 3]), &followers, Offset(11), 31, 30), ids(&[2, 3]));
        assert_eq!(wants(&committed(&[1, 2]), 1000), [], "3 is out already");
        assert_eq!(wants(&shrinking(&[1, 2, 3], &[2]), 1000), []);
    }

    /// B4: a member below the high watermark has lost data.
    #[test]
    fn b4_a_member_that_fetches_below_the_high_watermark_has_lost_data() {
        let followers = followers(10, 4);
        let third = followers.get(BrokerId(3)).expect("there");
        assert!(has_lost_data(&committed(&[1, 3]), third, Offset(5)));
        assert!(!has_lost_data(&committed(&[1, 3]), third, Offset(4)));
        assert!(!has_lost_data(&committed(&[1, 2]), third, Offset(5)), "not a member");
        assert!(!has_lost_data(&shrinking(&[1, 3], &[3]), third, Offset(5)), "on its way out");
    }

    #[test]
    fn answers_are_taken_as_kafka_takes_them() {
        let isr = expanding(&[1], 2);
        let stored = |leader_epoch, partition_epoch| StoredIsr {
            leader: Some(ME),
            leader_epoch: LeaderEpoch(leader_epoch),
            isr: ids(&[1, 2]),
            recovery: Default::default(),
            partition_epoch: PartitionEpoch(partition_epoch),
        };
        let next = |sent, answer: Result<StoredIsr, IsrRefused>| {
            on_answer(&isr, sent, LeaderEpoch(3), PartitionEpoch(5), &answer)
        };
        assert_eq!(next(CHANGE, Ok(stored(3, 6))), Next::Commit(ids(&[1, 2]), PartitionEpoch(6)));
        assert_eq!(next(CHANGE, Ok(stored(3, 5))), Next::Commit(ids(&[1, 2]), PartitionEpoch(5)), "it was so already");
        assert_eq!(next(CHANGE, Ok(stored(4, 6))), Next::Stay);
        assert_eq!(next(CHANGE, Ok(stored(3, 4))), Next::Stay);
        assert_eq!(next(ChangeNumber(6), Ok(stored(3, 6))), Next::Stale, "of an earlier proposal");
        for back in [IsrRefused::IneligibleReplica, IsrRefused::NotAttempted] {
            assert_eq!(next(CHANGE, Err(back)), Next::Back);
        }
        for stay in [
            IsrRefused::FencedLeaderEpoch,
            IsrRefused::InvalidUpdateVersion,
            IsrRefused::UnknownPartition,
            IsrRefused::UnknownTopicId,
            IsrRefused::InvalidRequest,
        ] {
            assert_eq!(next(CHANGE, Err(stay)), Next::Stay);
        }
        assert_eq!(next(CHANGE, Err(IsrRefused::Other(7))), Next::Again);
        let done = Isr::Committed { isr: ids(&[1]) };
        assert_eq!(on_answer(&done, CHANGE, LeaderEpoch(3), PartitionEpoch(5), &Ok(stored(3, 6))), Next::Stale);
    }

    /// KAFKA-15583: with too few in sync nothing more becomes visible, not even what all of them have.
    #[test]
    fn the_high_watermark_stands_still_below_min_isr_and_for_a_member_not_heard_of() {
        let at = Reckoning { own_end: Offset(10), before: Offset(3), min_isr: 2, now_ms: 0, lag_ms: 30 };
        let reckon = |isr: &Isr, followers: &Followers, at| high_watermark(isr, followers, at, |_| true).0;
        assert_eq!(reckon(&committed(&[1]), &followers(10, 10), at), 3);
        assert_eq!(reckon(&expanding(&[1], 2), &followers(10, 10), at), 3, "the stored one is what counts");
        assert_eq!(reckon(&committed(&[1, 2]), &followers(10, 10), at), 10);
        assert_eq!(reckon(&committed(&[1, 2]), &followers(8, 4), at), 8, "3 never was level");
        let silent = Followers::of_new_epoch(ME, &ids(&[1, 2, 3]), &ids(&[1, 2]), 0);
        assert_eq!(reckon(&committed(&[1, 2]), &silent, at), 3);
        assert_eq!(reckon(&committed(&[1, 2]), &followers(1, 1), at), 3, "never back");
    }

    /// The definition, set by set, against the loop.
    #[test]
    fn the_high_watermark_agrees_with_its_definition() {
        let clock = ManualClock::new(0, 3);
        let up_to = |bound: u128| (clock.random() % bound) as i64;
        let mut moved = 0;
        for round in 0..20_000 {
            let replicas = ids(&[1, 2, 3, 4, 5][..1 + up_to(5) as usize]);
            let mut isr = vec![ME];
            isr.extend(replicas[1..].iter().copied().filter(|_| up_to(2) == 0));
            let (own_end, lag_ms) = (up_to(8), 10);
            let mut followers = Followers::of_new_epoch(ME, &replicas, &isr, 0);
            for &id in &replicas[1..] {
                if up_to(4) > 0 {
                    let offset = up_to(own_end as u128 + 1);
                    followers.record(id, position(offset), Offset(own_end), up_to(20)).expect("counted");
                }
            }
            let outside: Vec<_> = replicas.iter().copied().filter(|id| !isr.contains(id)).collect();
            let state = match (up_to(3), outside.first()) {
                (0, Some(&adding)) => Isr::Expanding { isr: isr.clone(), adding, change: CHANGE },
                (1, _) if isr.len() > 1 => Isr::Shrinking { isr: isr.clone(), removing: vec![isr[1]], change: CHANGE },
                _ => Isr::Committed { isr: isr.clone() },
            };
            let (now_ms, min_isr) = (up_to(30), 1 + up_to(replicas.len() as u128) as usize);
            let before = Offset(up_to(own_end as u128 + 1));
            let dead = BrokerId(2 + up_to(4) as i32);
            let at = Reckoning { own_end: Offset(own_end), before, min_isr, now_ms, lag_ms };
            let found = high_watermark(&state, &followers, at, |id| id != dead);

            let counts = |follower: &&Follower| {
                let joining = matches!(&state, Isr::Expanding { adding, .. } if *adding == follower.id);
                let level = follower.is_caught_up(Offset(own_end), now_ms, lag_ms) && follower.id != dead;
                isr.contains(&follower.id) || joining || level
            };
            let ends: Vec<Option<Offset>> = followers.iter().filter(counts).map(|follower| follower.log_end).collect();
            let lowest = ends.iter().copied().chain([Some(Offset(own_end))]).min().flatten();
            let expected = if isr.len() < min_isr { before } else { lowest.map_or(before, |end| end.max(before)) };
            assert_eq!(found, expected, "round {round}: {state:?} {followers:?} {at:?} without {dead}");
            moved += i32::from(found > before);
        }
        assert!(moved > 1000, "the cases are worth nothing: {moved}");
    }
}
