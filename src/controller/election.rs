//! Who leads a partition. Pure: data in, data out; the caller raises the leader epoch and writes under the fence.
//!
//! Source: Kafka 3.9 `PartitionStateMachine`, `PartitionLeaderElectionAlgorithms`, `ReplicaStateMachine`.

use crate::cluster::znodes::partition_state::{LeaderAndIsrNode, Recovery};
use crate::types::BrokerId;

/// A leader and its ISR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elected {
    /// `None`: the partition is offline.
    pub(super) leader: Option<BrokerId>,
    /// Never empty; keeps the order of the former ISR.
    pub(super) isr: Vec<BrokerId>,
    pub(super) recovery: Recovery,
}

/// The first state of a partition: the first online replica leads, all online ones are in sync.
///
/// `None`: no replica is online, the partition stays without a state.
pub(super) fn initial(replicas: &[BrokerId], online: impl Fn(BrokerId) -> bool) -> Option<Elected> {
    let isr: Vec<_> = replicas.iter().copied().filter(|id| online(*id)).collect();
    let leader = *isr.first()?;
    Some(Elected { leader: Some(leader), isr, recovery: Recovery::Recovered })
}

/// Elects after the leader was lost: the first replica in assignment order that is online and in the ISR.
///
/// If there is none and `unclean_allowed`, the first online replica leads alone and must recover. `None`: no replica
/// can lead.
pub(super) fn elect_offline(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
    unclean_allowed: bool,
) -> Option<Elected> {
    let isr: Vec<_> = state.isr.iter().copied().filter(|id| online(*id)).collect();
    if let Some(leader) = replicas.iter().copied().find(|id| isr.contains(id)) {
        return Some(Elected { leader: Some(leader), isr, recovery: state.recovery });
    }
    let leader = replicas.iter().copied().find(|id| unclean_allowed && online(*id))?;
    Some(Elected { leader: Some(leader), isr: vec![leader], recovery: Recovery::Recovering })
}

/// What becomes of a partition when replicas have come or gone; `None` if it stays as it is.
///
/// A leader that is online keeps leading, with the online part of its ISR. A lost one is replaced; if no replica can
/// lead, the ISR stays whole, so that the replica of it that comes back first may. (Kafka keeps one member of it,
/// whichever it looked at last.)
pub(super) fn on_replicas_changed(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
    unclean_allowed: bool,
) -> Option<Elected> {
    let next = match state.leader.filter(|leader| online(*leader)) {
        Some(leader) => {
            let isr = state.isr.iter().copied().filter(|id| *id == leader || online(*id)).collect();
            Elected { leader: Some(leader), isr, recovery: state.recovery }
        }
        None => elect_offline(state, replicas, online, unclean_allowed).unwrap_or_else(|| Elected {
            leader: None,
            isr: state.isr.clone(),
            recovery: state.recovery,
        }),
    };
    let unchanged = next.leader == state.leader && next.isr == state.isr;
    (!unchanged).then_some(next)
}

/// What becomes of a partition whose leader says that its log may have lost its end; `None` if it leads no more.
///
/// Another replica that is online and in sync leads, as it has what the leader lost. If there is none the leader stays,
/// as no other replica knows more. The epoch rises either way, so that readers notice (KIP-320).
pub(super) fn on_end_lost(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
    broker: BrokerId,
) -> Option<Elected> {
    state.leader.filter(|leader| *leader == broker)?;
    let others: Vec<_> = state.isr.iter().copied().filter(|id| *id != broker && online(*id)).collect();
    let (leader, isr) = match replicas.iter().copied().find(|id| others.contains(id)) {
        Some(other) => (other, others),
        None => (broker, state.isr.clone()),
    };
    Some(Elected { leader: Some(leader), isr, recovery: state.recovery })
}

/// Elects in place of a leader that is about to stop: the first replica in assignment order that is in the ISR and
/// stays. Those that stop as well leave the ISR. `None`: nobody can take over, and the leader keeps it all.
pub(super) fn on_controlled_shutdown(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    stays: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let isr: Vec<_> = state.isr.iter().copied().filter(|id| stays(*id)).collect();
    let leader = replicas.iter().copied().find(|id| isr.contains(id))?;
    Some(Elected { leader: Some(leader), isr, recovery: state.recovery })
}

/// What becomes of a partition some of whose replicas registered again after its state was last written; `None` if that
/// concerns neither its leader nor its ISR, or it has but one replica.
///
/// They may have lost what they had not synced, while nobody looked. So they leave the ISR as long as another member
/// stayed, who leads on or is elected. If none did, nobody's end is known: the leader stays. The epoch rises either
/// way, so that followers and readers notice. Ours; Kafka 3.9 keeps leader and epoch, which is safe only because it
/// does not register before the old session has expired.
pub(super) fn on_bounced(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
    bounced: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let concerned = replicas.len() > 1 && state.leader.iter().chain(&state.isr).any(|id| bounced(*id));
    if !concerned {
        return None;
    }
    let there: Vec<_> = state.isr.iter().copied().filter(|id| online(*id)).collect();
    let stayed: Vec<_> = there.iter().copied().filter(|id| !bounced(*id)).collect();
    let isr = if stayed.is_empty() { there } else { stayed };
    let in_sync = |id: &BrokerId| isr.contains(id);
    let leader = state.leader.filter(in_sync).or_else(|| replicas.iter().copied().find(in_sync))?;
    Some(Elected { leader: Some(leader), isr, recovery: state.recovery })
}

/// Elects the preferred leader, the first of the replicas, under the same ISR; `None` if it leads, or may not.
pub(super) fn on_preferred(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let preferred = replicas.first().copied()?;
    let may = state.leader != Some(preferred) && state.isr.contains(&preferred) && online(preferred);
    may.then(|| Elected { leader: Some(preferred), isr: state.isr.clone(), recovery: state.recovery })
}

/// What becomes of a partition of whose replicas `replicas` are left: the others leave the ISR, and the leadership goes
/// to the first that is in sync and online, unless the leader stays. The epoch rises in any case, so that the leader
/// learns its replicas. `None`: none of those that are left can lead.
pub(super) fn on_reduced(
    state: &LeaderAndIsrNode,
    replicas: &[BrokerId],
    online: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let isr: Vec<_> = state.isr.iter().copied().filter(|id| replicas.contains(id)).collect();
    let may_lead = |id: &BrokerId| isr.contains(id) && online(*id);
    let leader = state.leader.filter(may_lead).or_else(|| replicas.iter().copied().find(may_lead))?;
    Some(Elected { leader: Some(leader), isr, recovery: state.recovery })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ControllerEpoch, LeaderEpoch};

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn state(leader: i32, isr: &[i32]) -> LeaderAndIsrNode {
        LeaderAndIsrNode {
            controller_epoch: ControllerEpoch(1),
            leader: (leader >= 0).then_some(BrokerId(leader)),
            leader_epoch: LeaderEpoch(3),
            isr: ids(isr),
            recovery: Recovery::Recovered,
        }
    }

    fn elected(leader: i32, isr: &[i32], recovery: Recovery) -> Option<Elected> {
        Some(Elected { leader: (leader >= 0).then_some(BrokerId(leader)), isr: ids(isr), recovery })
    }

    fn among(live: &[i32]) -> impl Fn(BrokerId) -> bool + Copy {
        move |id| live.contains(&id.0)
    }

    #[test]
    fn first_online_replica_of_a_new_partition_leads_all_online_ones() {
        assert_eq!(initial(&ids(&[1, 2, 3]), among(&[3, 2])), elected(2, &[2, 3], Recovery::Recovered));
        assert_eq!(initial(&ids(&[1]), among(&[2])), None);
    }

    #[test]
    fn first_online_in_sync_replica_in_assignment_order_leads() {
        let next = elect_offline(&state(1, &[3, 2, 1]), &ids(&[1, 2, 3]), among(&[2, 3]), false);
        assert_eq!(next, elected(2, &[3, 2], Recovery::Recovered));
    }

    #[test]
    fn unclean_leader_leads_alone_and_recovers() {
        let next = elect_offline(&state(1, &[1]), &ids(&[1, 2, 3]), among(&[2, 3]), true);
        assert_eq!(next, elected(2, &[2], Recovery::Recovering));
        assert_eq!(elect_offline(&state(1, &[1]), &ids(&[1, 2]), among(&[2]), false), None);
    }

    #[test]
    fn restart_of_the_leader_alone_changes_nothing() {
        assert_eq!(on_replicas_changed(&state(1, &[1]), &ids(&[1]), among(&[1]), false), None);
    }

    #[test]
    fn lost_follower_leaves_the_isr_and_the_leader_stays() {
        let next = on_replicas_changed(&state(1, &[1, 2, 3]), &ids(&[1, 2, 3]), among(&[1, 3]), false);
        assert_eq!(next, elected(1, &[1, 3], Recovery::Recovered));
    }

    #[test]
    fn without_an_in_sync_replica_the_partition_is_offline_and_keeps_its_isr() {
        let offline = on_replicas_changed(&state(1, &[1, 2]), &ids(&[1, 2, 3]), among(&[3]), false);
        assert_eq!(offline, elected(-1, &[1, 2], Recovery::Recovered));
        assert_eq!(on_replicas_changed(&state(-1, &[1, 2]), &ids(&[1, 2, 3]), among(&[3]), false), None);
        let back = on_replicas_changed(&state(-1, &[1, 2]), &ids(&[1, 2, 3]), among(&[2, 3]), false);
        assert_eq!(back, elected(2, &[2], Recovery::Recovered));
    }

    #[test]
    fn who_lost_the_end_of_its_log_gives_way_to_who_has_it_or_stays_under_another_epoch() {
        let after =
            |state: &LeaderAndIsrNode, live: &[i32]| on_end_lost(state, &ids(&[1, 2, 3]), among(live), BrokerId(1));
        assert_eq!(after(&state(1, &[1]), &[1, 2, 3]), elected(1, &[1], Recovery::Recovered));
        assert_eq!(after(&state(1, &[3, 1, 2]), &[1, 2, 3]), elected(2, &[3, 2], Recovery::Recovered));
        assert_eq!(after(&state(1, &[1, 2]), &[1]), elected(1, &[1, 2], Recovery::Recovered));
        assert_eq!(after(&state(2, &[1, 2]), &[1, 2]), None, "it leads no more");
    }

    #[test]
    fn who_shuts_down_gives_its_leadership_to_the_first_in_sync_that_stays() {
        let after = |isr: &[i32], stay: &[i32]| on_controlled_shutdown(&state(1, isr), &ids(&[1, 2, 3]), among(stay));
        assert_eq!(after(&[3, 1, 2], &[2, 3]), elected(2, &[3, 2], Recovery::Recovered));
        assert_eq!(after(&[1, 2, 3], &[3]), elected(3, &[3], Recovery::Recovered), "2 shuts down as well");
        assert_eq!(after(&[1], &[2, 3]), None, "nobody else is in sync");
    }

    #[test]
    fn the_preferred_leader_is_elected_where_it_is_in_sync() {
        let after =
            |leader, isr: &[i32], live: &[i32]| on_preferred(&state(leader, isr), &ids(&[1, 2, 3]), among(live));
        assert_eq!(after(2, &[2, 1], &[1, 2, 3]), elected(1, &[2, 1], Recovery::Recovered));
        assert_eq!(after(1, &[2, 1], &[1, 2, 3]), None, "it leads");
        assert_eq!(after(2, &[2, 3], &[1, 2, 3]), None, "it is not in sync");
        assert_eq!(after(2, &[2, 1], &[2, 3]), None, "it is gone");
    }

    #[test]
    fn replicas_that_are_none_any_more_leave_the_isr_and_the_leadership() {
        let after = |isr: &[i32], left: &[i32], live: &[i32]| on_reduced(&state(1, isr), &ids(left), among(live));
        assert_eq!(after(&[1, 2, 3], &[3, 2], &[1, 2, 3]), elected(3, &[2, 3], Recovery::Recovered));
        assert_eq!(after(&[1, 2, 3], &[3, 1], &[1, 2, 3]), elected(1, &[1, 3], Recovery::Recovered));
        assert_eq!(after(&[1, 2, 3], &[3, 2], &[1, 2]), elected(2, &[2, 3], Recovery::Recovered));
        assert_eq!(after(&[1], &[2], &[1, 2]), None, "what is left has nothing");
    }

    #[test]
    fn who_bounced_unseen_leaves_the_isr_if_another_stayed() {
        let after = |leader: i32, isr: &[i32], live: &[i32], bounced: &[i32]| {
            on_bounced(&state(leader, isr), &ids(&[1, 2, 3]), among(live), among(bounced))
        };
        let recovered = Recovery::Recovered;
        assert_eq!(after(1, &[1, 2, 3], &[1, 2, 3], &[]), None);
        assert_eq!(after(1, &[1, 2], &[1, 2, 3], &[3]), None, "it is not in sync anyway");
        assert_eq!(after(1, &[1, 2, 3], &[1, 2, 3], &[1]), elected(2, &[2, 3], recovered));
        assert_eq!(after(1, &[1, 2, 3], &[1, 2, 3], &[2]), elected(1, &[1, 3], recovered));
        assert_eq!(after(1, &[3, 2, 1], &[1, 2, 3], &[1, 2]), elected(3, &[3], recovered));
        assert_eq!(after(1, &[1, 2], &[1, 2], &[1, 2]), elected(1, &[1, 2], recovered), "nobody's end is known");
        assert_eq!(after(1, &[1, 2], &[1], &[1]), elected(1, &[1], recovered), "who is gone is no better");
        assert_eq!(after(2, &[2, 3], &[3], &[3]), elected(3, &[3], recovered));
        assert_eq!(after(2, &[2, 3], &[1], &[1]), None);
        let alone = |bounced| on_bounced(&state(1, &[1]), &ids(&[1]), among(&[1]), among(bounced));
        assert_eq!(alone(&[1]), None, "nobody else has the partition");
    }
}
