//! AlterPartition: what leaders propose, and what is stored and told.

use futures_util::future::join_all;

use super::*;
use crate::cluster::control::{AlterPartition, IsrLink, IsrProposal, IsrRefused, IsrResults, ShutdownLink, StoredIsr};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::{BrokerEpoch, PartitionEpoch};

/// Three brokers, the first of them the controller, and a topic that they all replicate.
pub(super) async fn three(partitions: usize) -> (Cluster, [Member; 3], TopicId) {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let members = [one, cluster.start(2).await, cluster.start(3).await];
    members[0].sees(|image| image.brokers.len() == 3).await;
    let id = cluster.create("t", &vec![&[1, 2, 3][..]; partitions]).await;
    for member in &members {
        member.sees(|image| image.topic("t").is_some_and(|topic| topic.partitions.len() == partitions)).await;
    }
    (cluster, members, id)
}

pub(super) fn proposal(id: TopicId, partition: i32, isr: &[i32]) -> IsrProposal {
    IsrProposal {
        topic: "t".into(),
        topic_id: id,
        partition: PartitionIndex(partition),
        leader_epoch: LeaderEpoch(0),
        isr: isr.iter().map(|id| (BrokerId(*id), BrokerEpoch::NONE)).collect(),
        recovery: Recovery::Recovered,
        partition_epoch: PartitionEpoch(0),
    }
}

/// What `leader` asks of the controller of `of`.
pub(super) async fn ask(
    of: &Member,
    leader: &Member,
    partitions: Vec<IsrProposal>,
) -> Result<IsrResults, ControllerError> {
    let broker_epoch = leader.registrar.epoch.get();
    of.controller.alter_partition(AlterPartition { broker: leader.id(), broker_epoch, partitions }).await
}

/// The outcome of one proposal.
pub(super) async fn propose(of: &Member, leader: &Member, proposal: IsrProposal) -> Result<StoredIsr, IsrRefused> {
    let mut results = ask(of, leader, vec![proposal.clone()]).await.expect("the request is not refused");
    assert_eq!(results.len(), 1);
    let (id, partition, result) = results.remove(0);
    assert_eq!((id, partition), (proposal.topic_id, proposal.partition));
    result
}

fn stored(isr: &[i32], partition_epoch: i32) -> StoredIsr {
    StoredIsr {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(0),
        isr: isr.iter().copied().map(BrokerId).collect(),
        recovery: Recovery::Recovered,
        partition_epoch: PartitionEpoch(partition_epoch),
    }
}

#[tokio::test(start_paused = true)]
async fn an_isr_is_stored_before_it_is_answered_and_told_to_every_broker() {
    let (cluster, [one, two, three], id) = three(1).await;
    let roles = one.roles().len() + two.roles().len();
    assert_eq!(propose(&one, &one, proposal(id, 0, &[1, 3])).await, Ok(stored(&[1, 3], 1)));
    let (data, stat) = cluster.store.get("/brokers/topics/t/partitions/0/state").await.unwrap().unwrap();
    assert_eq!(data, r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,3]}"#);
    assert_eq!(stat.version, 1);
    for member in [&one, &two, &three] {
        member
            .sees(|image| image.partition("t", PartitionIndex(0)).unwrap().partition_epoch == PartitionEpoch(1))
            .await;
        assert_eq!(member.isr("t", 0), [1, 3]);
    }
    assert_eq!(one.roles().len() + two.roles().len(), roles, "no role has changed");
    let back = IsrProposal { partition_epoch: PartitionEpoch(1), ..proposal(id, 0, &[1, 3, 2]) };
    assert_eq!(propose(&one, &one, back).await, Ok(stored(&[1, 3, 2], 2)));
}

#[tokio::test(start_paused = true)]
async fn refusals_come_in_kafkas_order() {
    let (_cluster, [one, two, _three], id) = three(1).await;
    let good = proposal(id, 0, &[1, 2]);
    propose(&one, &one, good.clone()).await.unwrap();
    let now = IsrProposal { partition_epoch: PartitionEpoch(1), ..good.clone() };
    let later = PartitionEpoch(2);
    let (older, newer) = (LeaderEpoch(-1), LeaderEpoch(1));
    let unrecovered = Recovery::Recovering;
    let strange = TopicId::from_random(77).unwrap();
    let refusals = [
        (IsrProposal { topic_id: strange, leader_epoch: newer, ..now.clone() }, IsrRefused::UnknownTopicId),
        (
            IsrProposal { partition: PartitionIndex(9), leader_epoch: newer, ..now.clone() },
            IsrRefused::UnknownPartition,
        ),
        (IsrProposal { leader_epoch: newer, ..good.clone() }, IsrRefused::Other(41)),
        (IsrProposal { partition_epoch: later, leader_epoch: older, ..now.clone() }, IsrRefused::Other(41)),
        (IsrProposal { leader_epoch: older, ..good.clone() }, IsrRefused::FencedLeaderEpoch),
        (proposal(id, 0, &[1, 3]), IsrRefused::InvalidUpdateVersion),
        (IsrProposal { recovery: unrecovered, ..now.clone() }, IsrRefused::InvalidRequest),
        (IsrProposal { recovery: unrecovered, ..proposal(id, 0, &[1]) }, IsrRefused::InvalidUpdateVersion),
    ];
    for (asked, refused) in refusals {
        assert_eq!(propose(&one, &one, asked.clone()).await, Err(refused), "{asked:?}");
    }
    for isr in [&[2, 3][..], &[1, 1], &[1, 9], &[]] {
        let asked = IsrProposal { partition_epoch: PartitionEpoch(1), ..proposal(id, 0, isr) };
        assert_eq!(propose(&one, &one, asked).await, Err(IsrRefused::InvalidRequest), "{isr:?}");
    }
    assert_eq!(propose(&one, &two, now).await, Err(IsrRefused::InvalidRequest), "it does not lead");
    assert_eq!(propose(&one, &one, good).await, Ok(stored(&[1, 2], 1)), "what is so already is answered again");
}

#[tokio::test(start_paused = true)]
async fn members_of_an_isr_are_live_under_the_registration_that_is_named() {
    let (cluster, [one, two, three], id) = three(2).await;
    let (old, one_epoch) = (two.registrar.epoch.get(), one.registrar.epoch.get());
    two.die().await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    let next = |partition: i32, isr: &[(i32, BrokerEpoch)]| IsrProposal {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        isr: isr.iter().map(|(id, epoch)| (BrokerId(*id), *epoch)).collect(),
        ..proposal(id, partition, &[])
    };
    let isr = [(1, one_epoch), (3, BrokerEpoch::NONE), (2, old)];
    assert_eq!(propose(&one, &one, next(0, &isr)).await, Err(IsrRefused::IneligibleReplica), "it is gone");
    let two = cluster.start(2).await;
    one.sees(|image| image.brokers.len() == 3).await;
    assert_eq!(propose(&one, &one, next(0, &isr)).await, Err(IsrRefused::IneligibleReplica), "it is back as another");
    let isr = [(1, one_epoch), (3, BrokerEpoch::NONE), (2, two.registrar.epoch.get())];
    assert!(propose(&one, &one, next(0, &isr)).await.is_ok());
    three.controller.controlled_shutdown(BrokerId(3), BrokerEpoch::NONE).await.unwrap_err();
    one.controller.controlled_shutdown(BrokerId(2), BrokerEpoch::NONE).await.unwrap();
    assert_eq!(propose(&one, &one, next(1, &isr)).await, Err(IsrRefused::IneligibleReplica), "it is about to stop");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_together_cost_one_round_and_are_answered_each() {
    let (cluster, [one, ..], id) = three(100).await;
    let rounds = cluster.dir.rounds();
    let asked = (0..100).map(|partition| propose(&one, &one, proposal(id, partition, &[1, 2])));
    for answer in join_all(asked).await {
        assert_eq!(answer, Ok(stored(&[1, 2], 1)));
    }
    assert_eq!(cluster.dir.rounds() - rounds, 1);
    // Twice the same partition: the second one sees what the first has left.
    let again = (0..2)
        .map(|_| propose(&one, &one, IsrProposal { partition_epoch: PartitionEpoch(1), ..proposal(id, 7, &[1]) }));
    let answers = join_all(again).await;
    assert_eq!(answers, [Ok(stored(&[1], 2)), Ok(stored(&[1], 2))]);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_another_wrote_is_read_again() {
    let (cluster, [one, two, _], id) = three(1).await;
    let path = "/brokers/topics/t/partitions/0/state";
    let foreign = r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2]}"#;
    cluster.store.set(path, foreign.into(), -1).await.unwrap();
    assert_eq!(propose(&one, &one, proposal(id, 0, &[1, 3])).await, Err(IsrRefused::InvalidUpdateVersion));
    two.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().partition_epoch == PartitionEpoch(1)).await;
    // The same with a write of ours whose answer was lost.
    let ours = r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,3]}"#;
    cluster.store.set(path, ours.into(), -1).await.unwrap();
    let asked = IsrProposal { partition_epoch: PartitionEpoch(1), ..proposal(id, 0, &[1, 3]) };
    assert_eq!(propose(&one, &one, asked).await, Ok(stored(&[1, 3], 2)));
}

#[tokio::test(start_paused = true)]
async fn only_the_controller_answers_and_only_registered_brokers() {
    let (cluster, [one, two, three], id) = three(1).await;
    let asked = || vec![proposal(id, 0, &[1, 2])];
    assert_eq!(ask(&two, &one, asked()).await, Err(ControllerError::NotController));
    for (broker, epoch) in [(1, one.registrar.epoch.get().0 - 1), (1, one.registrar.epoch.get().0 + 1), (9, 1)] {
        let request =
            AlterPartition { broker: BrokerId(broker), broker_epoch: BrokerEpoch(epoch), partitions: asked() };
        assert_eq!(one.controller.alter_partition(request).await, Err(ControllerError::StaleBrokerEpoch));
    }
    // Another controller was elected, and this one does not know it yet: nothing is written.
    cluster.store.set("/controller_epoch", Bytes::from_static(b"7"), -1).await.unwrap();
    let both = join_all([ask(&one, &one, asked()), ask(&one, &one, asked())]).await;
    assert_eq!(both, [Err(ControllerError::NotController), Err(ControllerError::NotController)]);
    let (_, stat) = cluster.store.get("/brokers/topics/t/partitions/0/state").await.unwrap().unwrap();
    assert_eq!(stat.version, 0);
    drop(three);
}

/// The controller wrote it, was refused, read it, and wrote it again, for ever.
#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_read_holds_up_no_other() {
    let (cluster, [one, two, _three], _) = three(2).await;
    let path = "/brokers/topics/t/partitions/0/state";
    cluster.store.set(path, Bytes::from_static(b"rubbish"), -1).await.unwrap();
    two.die().await;
    // A loop without end leaves the clock as it is.
    for _ in 0..10_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        if one.isr("t", 1) == [1, 3] {
            return;
        }
    }
    panic!("the controller does nothing else any more");
}
