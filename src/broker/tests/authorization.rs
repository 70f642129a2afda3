//! What brokers ask of each other, and clients of a broker, under an authorizer. Every key that a client may send
//! stands in `compat-tests/authorization`, beside what Apache Kafka answers.

use std::path::Path;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, DescribeAclsRequest, FetchRequest, MetadataRequest,
    ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::super::Broker;
use super::cluster::{client_at, config_with, peers, registration, shows, until};
use super::{WireClient, create, fetch, produce, start, start_with, topic, while_down};
use crate::cluster::control::{BrokerLink, ControlError, ControlHead, LeaderAndIsr, StopReplica, UpdateMetadata};
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::{Coordination, CreateMode, ensure_path};
use crate::peer::broker_link::RemoteBroker;
use crate::record::build::BatchBuilder;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, ProducerEpoch, ProducerId};

const AUTHORIZER: &str = "authorizer.class.name=kafka.security.authorizer.AclAuthorizer";

fn of_follower() -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_topic(topic("t")).with_partitions(vec![partition]);
    FetchRequest::default().with_replica_id(7.into()).with_max_bytes(1 << 20).with_topics(vec![wanted])
}

/// CVE-2018-1288 goes on: also where brokers speak, whoever is none gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_brokers_ask_needs_cluster_action() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(config_with(&server, "guarded", 1, dir.path(), &[AUTHORIZER])).await.unwrap();
    let mut brokers = client_at(broker.addresses()[0]).await;
    let link = RemoteBroker::new(&peers(99, "BROKERS", vec![]), &registration(&broker, 1));
    let (controller_epoch, broker_epoch) = (ControllerEpoch(1000), BrokerEpoch(i64::MAX));
    let head = ControlHead { controller: BrokerId(99), controller_epoch, broker_epoch };
    let refused = ControlError::Other(31);
    let metadata = UpdateMetadata { head, topics: vec![], live_brokers: vec![] };
    assert_eq!(link.update_metadata(metadata).await, Err(refused.clone()));
    let roles = LeaderAndIsr { head, topics: vec![] };
    assert_eq!(link.leader_and_isr(roles).await, Err(refused.clone()));
    assert_eq!(link.stop_replica(StopReplica { head, partitions: vec![] }).await, Err(refused));
    let ids = brokers.call(&AllocateProducerIdsRequest::default(), 0).await;
    assert_eq!(ids.error_code, 31);
    let isr = brokers.call(&AlterPartitionRequest::default(), 3).await;
    assert_eq!(isr.error_code, 31);
    let fetched = brokers.call(&of_follower(), 12).await;
    assert_eq!((fetched.error_code, fetched.responses[0].partitions[0].error_code), (0, 29));
    let image = until(&mut brokers, None, |answer| shows(answer, &[1], 1)).await;
    assert!(image.topics.is_empty());
    broker.stop().await;
}

/// CVE-2018-17196: a request without a transactional id, or with one that its batches are not of, wrote to
/// transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_batch_needs_its_id_whatever_the_request_says() {
    const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    broker.stop().await;
    with_acl(dir.path(), "t", "Allow", "All").await;
    let broker = start_with(dir.path(), &[AUTHORIZER]).await;
    let mut client = WireClient::connect(&broker).await;
    let mut batch = BatchBuilder::new().producer(ProducerId(1), ProducerEpoch(0), 0).transactional();
    batch.append(1_700_000_000_000, None, Some(b"v"));
    let mut request = produce("t", &["v"]);
    assert_eq!(code_of(&mut client, &request).await, 0, "the topic may be written");
    request.topic_data[0].partition_data[0].records = Some(batch.finish().bytes.freeze());
    for id in [None, Some("not-granted")] {
        request.transactional_id = id.map(|id| StrBytes::from_static_str(id).into());
        assert_eq!(code_of(&mut client, &request).await, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "{id:?}");
    }
    broker.stop().await;
}

/// Gives a topic of a broker that is down one ACL, for everybody.
async fn with_acl(dir: &Path, topic: &str, permission: &str, operation: &str) {
    let acl =
        format!(r#"{{"principal":"User:*","permissionType":"{permission}","operation":"{operation}","host":"*"}}"#);
    while_down(dir, async |tree| {
        ensure_path(tree, "/kafka-acl/Topic").await.unwrap();
        let data = format!(r#"{{"version":1,"acls":[{acl}]}}"#);
        tree.create(&format!("/kafka-acl/Topic/{topic}"), data.into(), CreateMode::Persistent).await.unwrap();
    })
    .await;
}

async fn code_of(client: &mut WireClient, request: &ProduceRequest) -> i16 {
    client.call(request, 9).await.responses[0].partition_responses[0].error_code
}

/// Who fetches like a follower, and may not, had the room of brokers all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_has_its_room_once_it_may_act_for_the_cluster() {
    const LARGE: usize = 450 << 10;
    let Some(server) = ZookeeperServer::start() else { return };
    let begins_large = async |client: &mut WireClient| {
        client.stream.write_all(&(LARGE as i32).to_be_bytes()).await.unwrap();
        client.stream.write_all(&vec![0; LARGE / 2]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    for (chroot, super_users, has_room) in [("mallory", "User:x", false), ("follower", "User:ANONYMOUS", true)] {
        let dir = tempfile::tempdir().unwrap();
        let super_users = format!("super.users={super_users}");
        let small = ["socket.request.max.bytes=1048576", "queued.max.request.bytes=1048576"];
        let settings = [&small[..], &[AUTHORIZER, &super_users]].concat();
        let broker = Broker::start(config_with(&server, chroot, 1, dir.path(), &settings)).await.unwrap();
        let mut follower = client_at(broker.addresses()[0]).await;
        follower.call(&of_follower(), 12).await;
        // The room of clients is taken by one of them; what the follower sends next waits for it or does not.
        let mut client = client_at(broker.addresses()[1]).await;
        begins_large(&mut client).await;
        begins_large(&mut follower).await;
        follower.stream.write_all(&vec![0; LARGE - LARGE / 2]).await.unwrap();
        // Zeros are Produce 0, which ends a connection.
        let ended = follower.frame_within(Duration::from_millis(1500)).await;
        assert_eq!(ended.is_some(), has_room, "{chroot}");
        drop(client);
        broker.stop().await;
    }
}

/// Who may read one topic of two is not answered at once, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_may_not_be_read_waits_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    for name in ["t", "u"] {
        create(&mut client, name).await;
    }
    broker.stop().await;
    with_acl(dir.path(), "u", "Deny", "Read").await;

    let broker = start_with(dir.path(), &[AUTHORIZER, "allow.everyone.if.no.acl.found=true"]).await;
    let mut client = WireClient::connect(&broker).await;
    let mut both = fetch("t", 0).with_max_wait_ms(60_000);
    both.topics.push(fetch("u", 0).topics.remove(0));
    client.send(&both, 12).await;
    assert!(client.frame_within(Duration::from_millis(300)).await.is_none(), "it waits");
    let mut other = WireClient::connect(&broker).await;
    other.call(&produce("t", &["a"]), 9).await;
    let fetched = client.receive::<FetchRequest>(client.correlation, 12).await;
    let codes: Vec<i16> = fetched.responses.iter().map(|topic| topic.partitions[0].error_code).collect();
    assert_eq!(codes, [0, 29]);
    let alone = client.call(&fetch("u", 0).with_max_wait_ms(60_000), 12).await;
    assert_eq!(alone.responses[0].partitions[0].error_code, 29, "there is nothing to wait for");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_may_anything_until_an_acl_says_so_and_without_an_authorizer_there_are_no_acls() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let filter = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let disabled = client.call(&filter, 3).await;
    let why = disabled.error_message.as_deref();
    assert_eq!((disabled.error_code, why), (54, Some("No Authorizer is configured on the broker")));
    client.send(&filter.clone().with_operation(0), 3).await;
    assert_eq!(client.frame().await, None, "what means nothing is not guessed");
    broker.stop().await;

    let broker = start_with(dir.path(), &[AUTHORIZER]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(client.call(&filter, 3).await.error_code, 31);
    let produced = client.call(&produce("t", &["a"]), 9).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 29);
    let hidden = client.call(&MetadataRequest::default().with_topics(None), 9).await;
    assert!(hidden.topics.is_empty() && hidden.brokers.len() == 1);
    let follower = client.call(&of_follower(), 12).await;
    assert_eq!(follower.responses[0].partitions[0].error_code, 29, "and not that nobody follows it");
    broker.stop().await;

    let broker = start_with(dir.path(), &[AUTHORIZER, "super.users=User:x;User:ANONYMOUS"]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(client.call(&filter, 3).await.error_code, 0);
    let produced = client.call(&produce("t", &["a"]), 9).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    broker.stop().await;
}
