//! What a leader knows of the replicas that follow it: how far each has come, and when it was last level. Pure.
//!
//! Times are of the monotonic clock, in milliseconds. Source: Kafka 3.9 `Replica`, `ReplicaState`.

use super::news::Pulse;
use crate::types::{BrokerEpoch, BrokerId, Offset};

/// A replica that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) id: BrokerId,
    /// Everything below it is written there (I-5). `None`: it has not fetched under this leader epoch.
    pub(crate) log_end: Option<Offset>,
    /// [`Offset::NONE`] as long as it is unknown.
    pub(crate) log_start: Offset,
    /// Of the registration it fetches under; [`BrokerEpoch::NONE`]: unknown.
    pub(crate) broker_epoch: BrokerEpoch,
    /// When it had all that the leader had. `None`: not under this leader epoch.
    pub(crate) last_caught_up_ms: Option<i64>,
    last_fetch_ms: Option<i64>,
    leader_end_at_last_fetch: Offset,
    /// Of the session it fetches in, whose later fetches ask for the same again without being recorded here.
    pulse: Option<Pulse>,
}

/// What one fetch of a follower says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FollowerPosition {
    pub(crate) fetch_offset: Offset,
    pub(crate) log_start: Offset,
    /// [`BrokerEpoch::NONE`]: not said.
    pub(crate) broker_epoch: BrokerEpoch,
}

/// Why a fetch does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCounted {
    /// It is not among the replicas, as far as this leader knows.
    UnknownReplica,
    /// It is of an earlier registration of the follower than one that has fetched already.
    StaleBrokerEpoch,
}

impl Follower {
    fn new(id: BrokerId, last_caught_up_ms: Option<i64>) -> Self {
        Self {
            id,
            log_end: None,
            log_start: Offset::NONE,
            broker_epoch: BrokerEpoch::NONE,
            last_caught_up_ms,
            last_fetch_ms: None,
            leader_end_at_last_fetch: Offset::NONE,
            pulse: None,
        }
    }

    /// Whether it is level with the leader, or was so at most `lag_ms` ago. Source: `ReplicaState.isCaughtUp`.
    pub(crate) fn is_caught_up(&self, leader_end: Offset, now_ms: i64, lag_ms: i64) -> bool {
        self.log_end == Some(leader_end) || self.last_caught_up_ms.is_some_and(|at| now_ms.saturating_sub(at) <= lag_ms)
    }

    /// A fetch at an offset that the leader had at the fetch before was level then: it took all there was meanwhile.
    fn record(&mut self, position: FollowerPosition, leader_end: Offset, now_ms: i64) {
        let level_at = if position.fetch_offset >= leader_end {
            Some(now_ms)
        } else if position.fetch_offset >= self.leader_end_at_last_fetch {
            self.last_fetch_ms
        } else {
            None
        };
        self.last_caught_up_ms = self.last_caught_up_ms.max(level_at);
        self.log_end = Some(position.fetch_offset);
        self.log_start = position.log_start;
        self.broker_epoch = self.broker_epoch.max(position.broker_epoch);
        self.leader_end_at_last_fetch = self.leader_end_at_last_fetch.max(leader_end);
        self.last_fetch_ms = Some(now_ms);
    }

    /// If it is level with a leader whose log ends here, it was so at the latest fetch of its session.
    fn note_pulse(&mut self, leader_end: Offset) {
        let Some(pulse) = &self.pulse else { return };
        if self.log_end.is_some_and(|log_end| log_end >= leader_end) {
            self.last_caught_up_ms = self.last_caught_up_ms.max(Some(pulse.last_ms()));
        }
    }
}

/// The replicas of one partition but for the leader, in the order of the assignment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followers {
    list: Vec<Follower>,
}

impl Followers {
    /// Those of a leader that begins an epoch: nothing is known of them, and those in sync have until now to show that
    /// they are. Source: Kafka 3.9 `Replica.resetReplicaState`; a leader that is elected again forgets as well, since a
    /// follower may have been cut meanwhile.
    pub(crate) fn of_new_epoch(me: BrokerId, replicas: &[BrokerId], isr: &[BrokerId], now_ms: i64) -> Self {
        let others = replicas.iter().filter(|&&id| id != me);
        let new = |&id: &BrokerId| Follower::new(id, isr.contains(&id).then_some(now_ms));
        Self { list: others.map(new).collect() }
    }

    /// The assignment of the same epoch changed.
    pub(crate) fn reassign(&mut self, me: BrokerId, replicas: &[BrokerId]) {
        let known = std::mem::take(&mut self.list);
        let others = replicas.iter().filter(|&&id| id != me);
        let keep = |&id: &BrokerId| {
            let found = known.iter().find(|follower| follower.id == id);
            found.cloned().unwrap_or_else(|| Follower::new(id, None))
        };
        self.list = others.map(keep).collect();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Follower> {
        self.list.iter()
    }

    pub(crate) fn get(&self, id: BrokerId) -> Option<&Follower> {
        self.list.iter().find(|follower| follower.id == id)
    }

    /// Notes a fetch. A later registration than the one known may have lost what the earlier one had, so nothing of it
    /// is kept. Source: Kafka 3.9 `Replica.updateFetchStateOrThrow`; KIP-903.
    pub(crate) fn record(
        &mut self,
        id: BrokerId,
        position: FollowerPosition,
        leader_end: Offset,
        now_ms: i64,
    ) -> Result<&Follower, NotCounted> {
        let follower = self.list.iter_mut().find(|follower| follower.id == id).ok_or(NotCounted::UnknownReplica)?;
        let (known, said) = (follower.broker_epoch, position.broker_epoch);
        if known != BrokerEpoch::NONE && said != BrokerEpoch::NONE {
            if said < known {
                return Err(NotCounted::StaleBrokerEpoch);
            }
            if said > known {
                *follower = Follower::new(id, None);
            }
        }
        follower.record(position, leader_end, now_ms);
        Ok(follower)
    }

    /// The follower's fetches are of this session from now on: one that does not name the partition asks for what was
    /// recorded last.
    pub(crate) fn follows_in(&mut self, id: BrokerId, pulse: &Pulse) {
        let follower = self.list.iter_mut().find(|follower| follower.id == id);
        if let Some(follower) = follower.filter(|follower| follower.pulse.as_ref() != Some(pulse)) {
            follower.pulse = Some(pulse.clone());
        }
    }

    /// That session has forgotten the partition, of a leader whose log ends here.
    pub(crate) fn leaves(&mut self, id: BrokerId, pulse: &Pulse, leader_end: Offset) {
        let follower = self.list.iter_mut().find(|follower| follower.id == id);
        if let Some(follower) = follower.filter(|follower| follower.pulse.as_ref() == Some(pulse)) {
            follower.note_pulse(leader_end);
            follower.pulse = None;
        }
    }

    /// The leader's log, which ends at `before`, is about to end behind that: whoever is level was so until now.
    pub(crate) fn leader_moves_from(&mut self, before: Offset) {
        for follower in &mut self.list {
            follower.note_pulse(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::clock::testing::ManualClock;

    const ME: BrokerId = BrokerId(1);
    const LAG_MS: i64 = 30;

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().map(|&id| BrokerId(id)).collect()
    }

    fn at(offset: i64) -> FollowerPosition {
        FollowerPosition { fetch_offset: Offset(offset), log_start: Offset(0), broker_epoch: BrokerEpoch::NONE }
    }

    fn of(epoch: i64, offset: i64) -> FollowerPosition {
        FollowerPosition { broker_epoch: BrokerEpoch(epoch), ..at(offset) }
    }

    #[test]
    fn at_the_start_of_an_epoch_those_in_sync_have_the_lag_to_show_it() {
        let followers = Followers::of_new_epoch(ME, &ids(&[1, 2, 3]), &ids(&[1, 2]), 100);
        let caught_up = |id, now| followers.get(BrokerId(id)).expect("there").is_caught_up(Offset(5), now, LAG_MS);
        assert!(caught_up(2, 100) && caught_up(2, 130) && !caught_up(2, 131));
        assert!(!caught_up(3, 100), "never seen");
        assert_eq!(followers.get(ME), None);
        assert_eq!(followers.get(BrokerId(2)).expect("there").log_end, None);
    }

    #[test]
    fn the_same_epoch_keeps_what_is_known_of_those_that_stay() {
        let mut followers = Followers::of_new_epoch(ME, &ids(&[1, 2, 3]), &ids(&[1, 2, 3]), 0);
        followers.record(BrokerId(2), at(7), Offset(9), 1).expect("counted");
        followers.reassign(ME, &ids(&[1, 2, 4]));
        assert_eq!(followers.get(BrokerId(2)).expect("stays").log_end, Some(Offset(7)));
        assert_eq!(followers.get(BrokerId(3)), None);
        assert!(!followers.get(BrokerId(4)).expect("new").is_caught_up(Offset(9), 1, LAG_MS));
        assert_eq!(followers.record(BrokerId(3), at(9), Offset(9), 2), Err(NotCounted::UnknownReplica));
    }

    /// KIP-903: what an earlier registration had says nothing of a later one, and comes too late after it.
    #[test]
    fn a_later_registration_begins_afresh_and_an_earlier_one_is_refused() {
        let mut followers = Followers::of_new_epoch(ME, &ids(&[1, 2]), &ids(&[1, 2]), 0);
        followers.record(BrokerId(2), of(5, 9), Offset(9), 0).expect("the first");
        let restarted = followers.record(BrokerId(2), of(8, 4), Offset(9), 1).expect("restarted");
        assert_eq!((restarted.log_end, restarted.broker_epoch), (Some(Offset(4)), BrokerEpoch(8)));
        assert!(!restarted.is_caught_up(Offset(9), 1, LAG_MS), "it was level in its former life");
        assert_eq!(followers.record(BrokerId(2), of(5, 9), Offset(9), 2), Err(NotCounted::StaleBrokerEpoch));
        let silent = followers.record(BrokerId(2), at(6), Offset(9), 3).expect("does not say");
        assert_eq!((silent.log_end, silent.broker_epoch), (Some(Offset(6)), BrokerEpoch(8)));
    }

    /// A session's fetches are recorded only where something has changed, and say the same as if all were.
    #[test]
    fn a_session_that_names_what_changed_says_as_much_as_full_fetches() {
        let clock = ManualClock::new(0, 11);
        let up_to = |bound: u128| (clock.random() % bound) as i64;
        let mut quiet_and_late = 0;
        for _ in 0..500 {
            let of_epoch = || Followers::of_new_epoch(ME, &ids(&[1, 2]), &[], 0);
            let (mut all, mut some) = (of_epoch(), of_epoch());
            let (pulse, mut now, mut end, mut offset) = (Pulse::new(0), 0, 0, 0);
            for round in 0..60 {
                now += up_to(20);
                if up_to(3) == 0 {
                    some.leader_moves_from(Offset(end));
                    end += 1 + up_to(3);
                }
                now += up_to(20);
                let (level_before, before) =
                    (some.get(BrokerId(2)).and_then(|it| it.log_end) == Some(Offset(end)), offset);
                offset = (offset + up_to(4)).min(end);
                pulse.beat(now);
                all.record(BrokerId(2), at(offset), Offset(end), now).expect("counted");
                if round == 0 || before != offset || !level_before {
                    some.record(BrokerId(2), at(offset), Offset(end), now).expect("counted");
                    some.follows_in(BrokerId(2), &pulse);
                }
                let later = now + up_to(60);
                for leader_end in [end, end + 1] {
                    let mut asked = some.clone();
                    if leader_end > end {
                        asked.leader_moves_from(Offset(end));
                    }
                    let [all, some] = [&all, &asked].map(|followers| {
                        let follower = followers.get(BrokerId(2)).expect("there");
                        follower.is_caught_up(Offset(leader_end), later, LAG_MS)
                    });
                    assert_eq!(all, some, "{later} {leader_end} {asked:?}");
                    quiet_and_late += usize::from(!all && level_before);
                }
            }
        }
        assert!(quiet_and_late > 100, "followers that were quiet do lag");
    }

    #[test]
    fn a_session_that_forgets_the_partition_says_nothing_of_it_any_more() {
        let mut followers = Followers::of_new_epoch(ME, &ids(&[1, 2]), &[], 0);
        let (pulse, other) = (Pulse::new(0), Pulse::new(0));
        followers.record(BrokerId(2), at(9), Offset(9), 0).expect("counted");
        followers.follows_in(BrokerId(2), &pulse);
        pulse.beat(100);
        followers.leaves(BrokerId(2), &other, Offset(9));
        followers.leaves(BrokerId(2), &pulse, Offset(9));
        pulse.beat(200);
        followers.leader_moves_from(Offset(9));
        let caught_up = |now| followers.get(BrokerId(2)).expect("there").is_caught_up(Offset(10), now, LAG_MS);
        assert!(caught_up(100 + LAG_MS) && !caught_up(101 + LAG_MS), "level until it was forgotten");
    }

    /// The rule in words: it was level at a fetch if it came to the end of then by its next one. All fetches are kept
    /// and asked, instead of the last one.
    #[test]
    fn caught_up_agrees_with_a_model_that_keeps_every_fetch() {
        let clock = ManualClock::new(0, 7);
        let up_to = |bound: u128| (clock.random() % bound) as i64;
        for _ in 0..200 {
            let mut followers = Followers::of_new_epoch(ME, &ids(&[1, 2]), &[], 0);
            let (mut now, mut end, mut offset) = (0, 0, 0);
            let mut fetches: Vec<(i64, i64, i64)> = Vec::new();
            for _ in 0..50 {
                now += up_to(20);
                end += up_to(4);
                offset = (offset + up_to(6)).min(end);
                followers.record(BrokerId(2), at(offset), Offset(end), now).expect("counted");
                fetches.push((now, offset, end));
                let level = |index: usize| {
                    let (_, offset, end_then) = fetches[index];
                    offset >= end_then || fetches.get(index + 1).is_some_and(|&(_, next, _)| next >= end_then)
                };
                let last_level = (0..fetches.len()).rev().find(|&index| level(index)).map(|index| fetches[index].0);
                let later = now + up_to(60);
                let expected = offset == end || last_level.is_some_and(|at| later - at <= LAG_MS);
                let follower = followers.get(BrokerId(2)).expect("there");
                assert_eq!(follower.is_caught_up(Offset(end), later, LAG_MS), expected, "{fetches:?} {later}");
            }
        }
    }
}
