//! What somebody does to the tree by hand, or in a moment in which nobody looks.

use super::*;

const OTHER: u128 = 5 << 64 | 7;

/// A topic on brokers 1 and 2 whose deletion waits, because 2 is gone.
async fn deletion_waits() -> (Cluster, Member) {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    one.sees(|image| image.brokers.len() == 2).await;
    cluster.create("t", &[&[1, 2]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    two.die().await;
    one.sees(|image| image.brokers.len() == 1).await;
    ClusterAdmin::new(cluster.store.clone()).mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    (cluster, one)
}

/// What is found on the web for a topic that cannot be deleted.
async fn remove(cluster: &Cluster) {
    for path in [
        "/brokers/topics/t/partitions/0/state",
        "/brokers/topics/t/partitions/0",
        "/brokers/topics/t/partitions",
        "/brokers/topics/t",
        "/config/topics/t",
        "/admin/delete_topics/t",
    ] {
        cluster.store.delete(path, -1).await.unwrap();
    }
}

async fn make_anew(cluster: &Cluster) -> TopicId {
    let id = TopicId::from_random(OTHER).unwrap();
    let assignment = topics::Assignment::from([(PartitionIndex(0), vec![BrokerId(1), BrokerId(2)])]);
    let topic = NewTopic { name: "t".into(), id, assignment, overrides: Overrides::new() };
    ClusterAdmin::new(cluster.store.clone()).create_topics(&[topic]).await.remove(0).unwrap();
    id
}

/// The wish outlived the topic that was meant, and took the next one of its name when the broker was back.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_ends_with_its_topic() {
    for seen in [true, false] {
        let (cluster, one) = deletion_waits().await;
        remove(&cluster).await;
        if seen {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let id = make_anew(&cluster).await;
        one.sees(|image| image.topic("t").is_some_and(|topic| topic.id == id)).await;
        let two = cluster.start(2).await;
        two.sees(|image| image.brokers.len() == 2).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(cluster.store.get("/brokers/topics/t").await.unwrap().is_some(), "{seen}");
        assert_eq!(one.broker.image.current().topic("t").map(|topic| topic.id), Some(id), "{seen}");
        assert!(one.stops().is_empty() && two.stops().is_empty(), "{seen}");
    }
}

/// A wish that is still there is meant for whatever has the name, as in Kafka.
#[tokio::test(start_paused = true)]
async fn a_wish_that_stays_is_for_the_next_topic_as_well() {
    let (cluster, one) = deletion_waits().await;
    cluster.start(3).await;
    one.sees(|image| image.brokers.len() == 2).await;
    let mut node = cluster.store.get("/brokers/topics/t").await.unwrap().unwrap().0;
    let text = String::from_utf8(std::mem::take(&mut node).to_vec()).unwrap();
    let (id, other) = (topics::decode("t", text.as_bytes()).unwrap().id.unwrap(), TopicId::from_random(OTHER).unwrap());
    let text = text.replace(&id.to_string(), &other.to_string()).replace("[1,2]", "[1,3]");
    cluster.store.set("/brokers/topics/t", text.into(), -1).await.unwrap();
    while cluster.store.get("/brokers/topics/t").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cluster.store.get("/admin/delete_topics/t").await.unwrap(), None);
}

/// The session went after the registration and before the controller looked: nobody registered again.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_before_the_first_look_is_renewed() {
    let cluster = Cluster::new().await;
    let one = cluster.start_when(1, async |store| store.expire().await).await;
    one.active().await;
    assert!(cluster.store.get("/brokers/ids/1").await.unwrap().is_some());
}
