//! Elections that are asked for.

use std::collections::BTreeSet;

use super::isr::{proposal, propose};
use super::*;
use crate::cluster::control::IsrProposal;
use crate::cluster::dynamic_config::BrokerOverrides;
use crate::cluster::znodes::config::Entity;
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::TopicPartition;

/// Broker 1 is the controller, and 2 the preferred leader of "u", which 1 leads: it was away, and is in sync again.
async fn misplaced() -> (Cluster, Member, Member) {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    one.sees(|image| image.brokers.len() == 2).await;
    let id = cluster.create("u", &[&[2, 1]]).await;
    two.sees(|image| image.topic("u").is_some()).await;
    two.die().await;
    one.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(1))).await;
    let two = cluster.start(2).await;
    two.sees(|image| image.topic("u").is_some()).await;
    rejoin(&one, id, &[1, 2]).await;
    (cluster, one, two)
}

async fn rejoin(one: &Member, id: TopicId, isr: &[i32]) {
    let state = one.broker.image.current().partition("u", PartitionIndex(0)).unwrap().clone();
    let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
    let back = IsrProposal { topic: "u".into(), leader_epoch, partition_epoch, ..proposal(id, 0, isr) };
    propose(one, one, back).await.unwrap();
}

fn only(topic: &str, partition: i32) -> BTreeSet<TopicPartition> {
    BTreeSet::from([TopicPartition::new(topic, partition)])
}

async fn outcome(of: &Member, kind: ElectionType, topic: &str) -> Result<i32, ElectionRefused> {
    let mut results = of.controller.elect_leaders(kind, only(topic, 0)).await.unwrap();
    assert_eq!((results.len(), results[0].0.topic.as_str()), (1, topic));
    results.remove(0).1.map(|id| id.0)
}

#[tokio::test(start_paused = true)]
async fn preferred_leaders_come_back_by_themselves() {
    let (_cluster, one, _two) = misplaced().await;
    assert_eq!(one.leader("u", 0), Some((Some(1), 1)));
    tokio::time::sleep(Duration::from_secs(310)).await;
    assert_eq!((one.leader("u", 0), one.isr("u", 0)), (Some((Some(2), 2)), vec![1, 2]));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(one.leader("u", 0), Some((Some(2), 2)), "once");
}

#[tokio::test(start_paused = true)]
async fn a_tenth_of_a_brokers_partitions_may_be_led_elsewhere() {
    let (cluster, one, _two) = misplaced().await;
    cluster.create("many", &[&[2_i32, 1][..]; 9]).await;
    one.sees(|image| image.topic("many").is_some()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(one.leader("u", 0), Some((Some(1), 1)), "one of ten");
}

#[tokio::test(start_paused = true)]
async fn a_preferred_leader_that_is_not_in_sync_is_not_elected() {
    let (cluster, one, two) = misplaced().await;
    let id = one.broker.image.current().topic("u").unwrap().id;
    rejoin(&one, id, &[1]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(one.leader("u", 0), Some((Some(1), 1)));
    assert_eq!(outcome(&one, ElectionType::Preferred, "u").await, Err(ElectionRefused::PreferredNotAvailable));
    drop((cluster, two));
}

#[tokio::test(start_paused = true)]
async fn a_wish_in_the_tree_is_carried_out_and_deleted() {
    const PATH: &str = "/admin/preferred_replica_election";
    let (cluster, one, two) = misplaced().await;
    for wish in ["rubbish", r#"{"version":1,"partitions":[{"topic":"u","partition":0},{"topic":"v","partition":7}]}"#] {
        cluster.store.create(PATH, wish.to_owned().into(), CreateMode::Persistent).await.unwrap();
        while cluster.store.get(PATH).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    two.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(2))).await;
    // One that is there when a term begins counts as well.
    let id = one.broker.image.current().topic("u").unwrap().id;
    two.die().await;
    let two = cluster.start(2).await;
    two.sees(|image| image.topic("u").is_some()).await;
    rejoin(&one, id, &[1, 2]).await;
    one.controller.stop().await;
    let wish = r#"{"version":1,"partitions":[{"topic":"u","partition":0}]}"#;
    cluster.store.create(PATH, wish.into(), CreateMode::Persistent).await.unwrap();
    one.store.close().await;
    two.active().await;
    assert_eq!(cluster.store.get(PATH).await.unwrap(), None);
    assert_eq!(two.leader("u", 0), Some((Some(2), 4)));
}

#[tokio::test(start_paused = true)]
async fn administrators_hear_why_nobody_was_elected() {
    let (cluster, one, two) = misplaced().await;
    assert_eq!(outcome(&one, ElectionType::Unclean, "u").await, Err(ElectionRefused::NotNeeded));
    assert_eq!(outcome(&one, ElectionType::Preferred, "u").await, Ok(2));
    assert_eq!(outcome(&one, ElectionType::Preferred, "u").await, Err(ElectionRefused::NotNeeded));
    assert_eq!(outcome(&one, ElectionType::Preferred, "v").await, Err(ElectionRefused::UnknownPartition));
    let refused = two.controller.elect_leaders(ElectionType::Preferred, only("u", 0)).await;
    assert_eq!(refused, Err(ControllerError::NotController));
    two.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(2))).await;
    // A topic that waits to be deleted: one of its brokers is away.
    cluster.create("doomed", &[&[2]]).await;
    one.sees(|image| image.topic("doomed").is_some()).await;
    two.die().await;
    one.sees(|image| image.brokers.len() == 1).await;
    ClusterAdmin::new(cluster.store.clone()).mark_for_deletion(&["doomed".into()]).await.remove(0).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outcome(&one, ElectionType::Unclean, "doomed").await, Err(ElectionRefused::BeingDeleted));
}

/// Broker 2 alone was in sync with "u", and is gone.
async fn offline() -> (Cluster, Member) {
    let (cluster, one, two) = misplaced().await;
    assert_eq!(outcome(&one, ElectionType::Preferred, "u").await, Ok(2));
    let state = one.broker.image.current().partition("u", PartitionIndex(0)).unwrap().clone();
    let id = one.broker.image.current().topic("u").unwrap().id;
    let alone = IsrProposal {
        leader_epoch: LeaderEpoch(2),
        partition_epoch: crate::types::PartitionEpoch(state.partition_epoch.0.max(3)),
        ..proposal(id, 0, &[2])
    };
    propose(&one, &two, alone).await.unwrap();
    two.die().await;
    one.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader.is_none()).await;
    (cluster, one)
}

#[tokio::test(start_paused = true)]
async fn an_administrator_may_have_an_unclean_leader() {
    let (cluster, one) = offline().await;
    assert_eq!(outcome(&one, ElectionType::Preferred, "u").await, Err(ElectionRefused::PreferredNotAvailable));
    assert_eq!(outcome(&one, ElectionType::Unclean, "u").await, Ok(1));
    let (data, _) = cluster.store.get("/brokers/topics/u/partitions/0/state").await.unwrap().unwrap();
    let state = partition_state::decode("p", &data).unwrap();
    assert_eq!((state.isr, state.recovery), (vec![BrokerId(1)], Recovery::Recovering));
    cluster.create("lost", &[&[1]]).await;
    one.sees(|image| image.topic("lost").is_some()).await;
    let three = cluster.start(3).await;
    one.controller.stop().await;
    one.store.close().await;
    three.active().await;
    assert_eq!(outcome(&three, ElectionType::Unclean, "lost").await, Err(ElectionRefused::NoneAvailable));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_may_be_unclean_from_now_on_is_led_at_once() {
    let (cluster, one) = offline().await;
    let admin = ClusterAdmin::new(cluster.store.clone());
    let entity = Entity::Topic("u".into());
    let existing = admin.read_overrides(&entity).await.unwrap();
    let overrides = Overrides::from([("unclean.leader.election.enable".to_owned(), "true".to_owned())]);
    admin.set_overrides(&entity, &existing, overrides).await.unwrap();
    one.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(1))).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_with_the_default_of_all_topics() {
    let (_cluster, one) = offline().await;
    let all = BTreeMap::from([("unclean.leader.election.enable".to_owned(), "true".to_owned())]);
    one.config.apply(BrokerOverrides { own: Arc::default(), all: Arc::new(all) });
    one.sees(|image| image.partition("u", PartitionIndex(0)).unwrap().leader == Some(BrokerId(1))).await;
}
