//! Channels to brokers that do not answer.

use super::*;
use crate::controller::queue::QUEUE_REQUESTS_MAX;
use crate::types::TopicPartition;

/// C1: a request without an answer was given up, and its broker never heard what it had missed.
#[tokio::test(start_paused = true)]
async fn c1_a_request_is_made_until_it_is_answered() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    two.sees(|image| image.brokers.len() == 2).await;
    two.broker.unreachable.store(true, Ordering::SeqCst);
    let heard = two.broker.heard.lock().len();
    cluster.create("t", &[&[2, 1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    cluster.create("u", &[&[1, 2]]).await;
    one.sees(|image| image.topic("u").is_some()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let unanswered = two.broker.unanswered.load(Ordering::SeqCst);
    assert!((90..110).contains(&unanswered), "one in 100 ms: {unanswered}");
    assert_eq!(two.broker.heard.lock().len(), heard);
    two.broker.unreachable.store(false, Ordering::SeqCst);
    two.sees(|image| image.topic("t").is_some() && image.topic("u").is_some()).await;
    let names: Vec<_> = two.roles().iter().map(|roles| roles.topics[0].0.clone()).collect();
    assert_eq!(names, ["t".into(), "u".into()], "in the order in which they were made");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_is_asked_no_more() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    two.sees(|image| image.brokers.len() == 2).await;
    let broker = Arc::clone(&two.broker);
    broker.unreachable.store(true, Ordering::SeqCst);
    cluster.create("t", &[&[2, 1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    two.die().await;
    one.sees(|image| image.brokers.len() == 1).await;
    let unanswered = broker.unanswered.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(broker.unanswered.load(Ordering::SeqCst) <= unanswered + 1);
    // It comes back: with the whole state, and nothing of what waited.
    let again = cluster.start(2).await;
    again.sees(|image| image.topic("t").is_some()).await;
    assert_eq!(again.leader("t", 0), Some((Some(1), 1)));
    assert_eq!(broker.heard.lock().iter().filter(|heard| matches!(heard, Heard::Roles(_))).count(), 0);
}

/// What waits for a broker that does not answer is bounded, and nothing is missed all the same.
#[tokio::test(start_paused = true)]
async fn a_broker_for_which_too_much_waits_is_told_everything() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    two.sees(|image| image.brokers.len() == 2).await;
    cluster.create("t", &[&[1, 2]]).await;
    cluster.create("doomed", &[&[1]]).await;
    two.sees(|image| image.topic("t").is_some() && image.topic("doomed").is_some()).await;
    let before = two.roles().len();
    two.broker.unreachable.store(true, Ordering::SeqCst);
    cluster.delete("doomed").await;
    // The same replicas once more: a new leader epoch, and a request with roles.
    let again = || Wishes::from([(TopicPartition::new("t", 0), Some(vec![BrokerId(1), BrokerId(2)]))]);
    for _ in 0..QUEUE_REQUESTS_MAX / 2 + 10 {
        one.controller.reassign(again(), true).await.unwrap().remove(0).1.unwrap();
    }
    cluster.create("last", &[&[2]]).await;
    one.sees(|image| image.topic("last").is_some()).await;
    two.broker.unreachable.store(false, Ordering::SeqCst);
    two.sees(|image| image.topic("last").is_some()).await;
    let epoch = one.leader("t", 0).unwrap();
    assert!(epoch.1 as usize > QUEUE_REQUESTS_MAX / 2);
    assert_eq!(two.leader("t", 0), Some(epoch));
    assert!(two.broker.image.current().topic("doomed").is_none(), "its end was not forgotten");
    let heard = two.roles().len() - before;
    assert!(heard < 100, "{heard}");
    let mut last = BTreeMap::new();
    for (name, _, states) in two.roles().into_iter().flat_map(|roles| roles.topics) {
        last.insert(name, states[0].leader_epoch.0);
    }
    assert_eq!(last, BTreeMap::from([("t".into(), epoch.1), ("last".into(), 0)]));
}
