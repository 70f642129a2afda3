//! Controlled shutdown.

use super::isr::{proposal, propose};
use super::*;
use crate::cluster::control::{IsrProposal, IsrRefused, ShutdownLink};
use crate::types::{BrokerEpoch, PartitionEpoch};

async fn three(assignment: &[&[i32]]) -> (Cluster, [Member; 3], TopicId) {
    let (cluster, members, _) = super::isr::three(1).await;
    let id = cluster.create("u", assignment).await;
    for member in &members {
        member.sees(|image| image.topic("u").is_some_and(|topic| topic.partitions.len() == assignment.len())).await;
    }
    (cluster, members, id)
}

#[tokio::test(start_paused = true)]
async fn who_shuts_down_leads_nothing_and_is_in_no_isr_afterwards() {
    let (cluster, [one, two, three], _) = three(&[&[2, 3, 1], &[1, 2, 3], &[2], &[3, 1]]).await;
    let still_led = one.controller.controlled_shutdown(BrokerId(2), two.registrar.epoch.get()).await;
    assert_eq!(still_led, Ok(vec![]), "what has one replica does not count");
    three.sees(|image| image.partition("u", PartitionIndex(1)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    assert_eq!((three.leader("u", 0), three.isr("u", 0)), (Some((Some(3), 1)), vec![3, 1]));
    assert_eq!((three.leader("u", 1), three.isr("u", 1)), (Some((Some(1), 1)), vec![1, 3]));
    assert_eq!(three.leader("u", 2), Some((Some(2), 0)), "nobody else has it");
    assert_eq!(three.leader("u", 3), Some((Some(3), 0)), "it has no part in it");
    two.sees(|image| image.partition("u", PartitionIndex(1)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    let stops = two.stops();
    let stopped: Vec<_> = stops[0].partitions.iter().map(|stop| (stop.topic.as_str(), stop.partition.0)).collect();
    assert_eq!(stopped, [("t", 0), ("u", 1)]);
    assert!(stops[0].partitions.iter().all(|stop| !stop.delete && stop.leader_epoch == Some(LeaderEpoch(0))));
    let of_two = |roles: &LeaderAndIsr| {
        roles.topics.iter().map(|(name, _, states)| (name.clone(), states[0].partition.0)).collect()
    };
    let last: Vec<_> = of_two(two.roles().last().unwrap());
    assert_eq!(last, [("u".into(), 0)], "told to lead no more, and to follow nothing that it was told to stop");
    // It is not elected, nor told of roles, whatever happens.
    three.die().await;
    one.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(1))).await;
    assert_eq!(one.isr("u", 0), [1]);
    two.die().await;
    let again = cluster.start(2).await;
    again.sees(|image| image.topic("u").is_some()).await;
    let next = IsrProposal {
        leader_epoch: LeaderEpoch(one.leader("t", 0).unwrap().1),
        partition_epoch: one.broker.image.current().partition("t", PartitionIndex(0)).unwrap().partition_epoch,
        ..proposal(one.broker.image.current().topic("t").unwrap().id, 0, &[1, 2])
    };
    assert!(propose(&one, &one, next).await.is_ok(), "a new registration has nothing of it any more");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_is_in_sync_for_stays_and_is_named() {
    let (_cluster, [one, two, _three], id) = three(&[&[2, 1]]).await;
    let alone = IsrProposal { topic: "u".into(), ..proposal(id, 0, &[2]) };
    propose(&one, &two, alone).await.unwrap();
    let shut_down = || one.controller.controlled_shutdown(BrokerId(2), two.registrar.epoch.get());
    assert_eq!(shut_down().await, Ok(vec![("u".into(), PartitionIndex(0))]));
    assert_eq!(one.leader("u", 0), Some((Some(2), 0)));
    // The other one catches up; it still may not join beside a leader that stops. Kafka refuses it as well.
    let joined = IsrProposal { topic: "u".into(), partition_epoch: PartitionEpoch(1), ..proposal(id, 0, &[2, 1]) };
    assert_eq!(propose(&one, &two, joined).await, Err(IsrRefused::IneligibleReplica));
    assert_eq!(shut_down().await, Ok(vec![("u".into(), PartitionIndex(0))]));
}

#[tokio::test(start_paused = true)]
async fn the_controller_may_shut_itself_down() {
    let (_cluster, [one, two, _three], _) = three(&[&[1, 2]]).await;
    assert_eq!(one.controller.controlled_shutdown(BrokerId(1), one.registrar.epoch.get()).await, Ok(vec![]));
    two.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(2))).await;
    assert!(one.controller.is_active());
}

#[tokio::test(start_paused = true)]
async fn strangers_and_earlier_registrations_are_refused() {
    let (_cluster, [one, two, _three], _) = three(&[&[2, 1]]).await;
    let ask = |of: &Member, id, epoch| {
        let controller = of.controller.clone();
        async move { controller.controlled_shutdown(BrokerId(id), epoch).await }
    };
    let epoch = two.registrar.epoch.get();
    assert_eq!(ask(&two, 2, epoch).await, Err(ControllerError::NotController));
    assert_eq!(ask(&one, 9, epoch).await, Err(ControllerError::BrokerNotAvailable));
    assert_eq!(ask(&one, 2, BrokerEpoch(epoch.0 - 1)).await, Err(ControllerError::StaleBrokerEpoch));
    assert_eq!(one.leader("u", 0), Some((Some(2), 0)));
    assert_eq!(ask(&one, 2, BrokerEpoch::NONE).await, Ok(vec![]));
}
