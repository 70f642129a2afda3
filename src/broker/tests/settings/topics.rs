//! Settings that say how topics come and go.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, MetadataResponse};

use super::*;
use crate::broker::tests::while_down;
use crate::cluster::admin::{ClusterAdmin, NewTopic};
use crate::cluster::control::{Endpoint, LiveBroker};
use crate::cluster::znodes::{brokers, partition_state};
use crate::coordination::{Coordination, CreateMode};
use crate::replica::partition::Role;
use crate::types::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId};

/// Error code of a topic that is made with the broker's defaults.
async fn made(probe: &mut Probe, name: &str) -> i16 {
    let one = CreatableTopic::default().with_name(topic(name)).with_num_partitions(-1).with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![one]).with_timeout_ms(30_000);
    probe.call(&request, 7).await.topics[0].error_code
}

/// Error code and partitions that Metadata answers, creating the topic if it may.
async fn asked(probe: &mut Probe, name: &str) -> (i16, usize) {
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic(name)))]))
        .with_allow_auto_topic_creation(true);
    let answer = probe.call(&request, 12).await;
    (answer.topics[0].error_code, answer.topics[0].partitions.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_and_deleted_as_the_broker_says() {
    let settings = ["num.partitions=3", "default.replication.factor=2", "delete.topic.enable=false"];
    let mut probe = Probe::start(&[settings[0], settings[2]]).await;
    probe.create("asked").await;
    assert_eq!(asked(&mut probe, "asked").await, (0, 3));
    assert_eq!(made(&mut probe, "made").await, 0);
    assert_eq!(asked(&mut probe, "made").await, (0, 3));
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic("made")]).with_timeout_ms(30_000);
    assert_eq!(probe.call(&request, 5).await.responses[0].error_code, 73, "TOPIC_DELETION_DISABLED");
    let mut probe = probe.restart(&[settings[1], "auto.create.topics.enable=false"]).await;
    assert_eq!(made(&mut probe, "replicated").await, 38, "INVALID_REPLICATION_FACTOR: there is one broker");
    assert_eq!(asked(&mut probe, "unknown").await, (3, 0), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(probe.call(&request, 5).await.responses[0].error_code, 0);
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_wants_as_many_replicas_in_sync_as_is_set() {
    let mut probe = Probe::start(&["min.insync.replicas=2"]).await;
    probe.create("t").await;
    assert_eq!(probe.produce("t", &["v"]).await, 0, "all replicas there are");
    let of_two = |epoch| Role {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(epoch),
        isr: vec![BrokerId(1)],
        partition_epoch: PartitionEpoch(epoch),
        replicas: vec![BrokerId(1), BrokerId(2)],
    };
    probe.partition("t").take_role(of_two(7)).expect("taken").await.expect("recorded");
    assert_eq!(probe.produce("t", &["v"]).await, 19, "NOT_ENOUGH_REPLICAS");
    probe.set("t", "min.insync.replicas", "1").await;
    eventually("the topic's own setting counts", async || probe.produce("t", &["v"]).await == 0).await;
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_out_of_sync_leads_only_where_that_is_allowed() {
    let mut probe = Probe::start(&[]).await;
    probe.create("t").await;
    probe.create("u").await;
    // As if the leader had been broker 2, which is gone.
    let path = |topic: &str| partition_state::path(topic, PartitionIndex(0));
    probe.broker.stop().await;
    while_down(probe.dir.path(), async |tree| {
        for topic in ["t", "u"] {
            let (data, _) = tree.get(&path(topic)).await.unwrap().expect("the partition has a state");
            let mut state = partition_state::decode(&path(topic), &data).unwrap();
            (state.leader, state.isr) = (None, vec![BrokerId(2)]);
            tree.set(&path(topic), partition_state::encode(&state), -1).await.unwrap();
        }
    })
    .await;
    let leads = |probe: &Probe, topic: &str| {
        let replica = probe.broker.replicas.get(topic, PartitionIndex(0));
        replica.is_some_and(|replica| replica.view().leading)
    };
    let mut probe = Probe::start_in(probe.dir, &[]).await;
    assert!(!leads(&probe, "t") && !leads(&probe, "u"));
    probe.set("t", "unclean.leader.election.enable", "true").await;
    let mut probe = probe.restart(&[]).await;
    eventually("t is led", async || leads(&probe, "t")).await;
    assert!(!leads(&probe, "u"), "it has no setting of its own");
    // What all brokers have, set while they run, counts at the next election.
    probe.set("", "unclean.leader.election.enable", "true").await;
    let probe = probe.restart(&[]).await;
    eventually("u is led", async || leads(&probe, "u")).await;
    probe.broker.stop().await;
}

/// Whether this broker leads a partition again that another one has led for a while, as far as the tree tells.
async fn leads_again(settings: &[&str]) -> bool {
    let mut probe = Probe::start(&[&["leader.imbalance.check.interval.seconds=1"], settings].concat()).await;
    let tree = Arc::clone(&probe.broker.coordination);
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        security_protocol: "PLAINTEXT".into(),
        host: "localhost".into(),
        port: 1,
    };
    let two = LiveBroker { id: BrokerId(2), endpoints: vec![endpoint], rack: None };
    tree.create("/brokers/ids/2", brokers::encode(&two, 0), CreateMode::Persistent).await.unwrap();
    let known = |answer: MetadataResponse| answer.brokers.len() == 2;
    while !known(probe.call(&MetadataRequest::default().with_topics(Some(vec![])), 12).await) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let new = NewTopic {
        name: "t".into(),
        id: TopicId::from_random(7 << 64).unwrap(),
        assignment: [(PartitionIndex(0), vec![BrokerId(1), BrokerId(2)])].into(),
        overrides: Default::default(),
    };
    ClusterAdmin::new(Arc::clone(&tree)).create_topics(&[new]).await.remove(0).unwrap();
    let epoch =
        |probe: &Probe| probe.broker.replicas.get("t", PartitionIndex(0)).map(|replica| replica.role().leader_epoch);
    eventually("t is led", async || epoch(&probe) == Some(LeaderEpoch(0))).await;
    let path = partition_state::path("t", PartitionIndex(0));
    let (data, _) = tree.get(&path).await.unwrap().unwrap();
    let mut state = partition_state::decode(&path, &data).unwrap();
    (state.leader, state.leader_epoch) = (Some(BrokerId(2)), LeaderEpoch(1));
    tree.set(&path, partition_state::encode(&state), -1).await.unwrap();
    let note = r#"{"version":1,"partitions":[{"topic":"t","partition":0}]}"#;
    let notes = "/isr_change_notification/isr_change_";
    tree.create(notes, note.into(), CreateMode::PersistentSequential).await.unwrap();
    // The first look comes 5 s after the election of the controller.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let again = epoch(&probe) == Some(LeaderEpoch(2));
    probe.broker.stop().await;
    again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_back_to_preferred_replicas_as_is_set() {
    let (by_default, few, never) = tokio::join!(
        leads_again(&[]),
        leads_again(&["leader.imbalance.per.broker.percentage=100"]),
        leads_again(&["auto.leader.rebalance.enable=false"]),
    );
    assert!(by_default);
    assert!(!few, "all of them may be led elsewhere");
    assert!(!never);
}
