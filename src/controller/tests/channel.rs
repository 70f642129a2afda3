//! Channels to brokers that do not answer.

use super::*;

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
