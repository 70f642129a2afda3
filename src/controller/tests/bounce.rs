//! B1: what a new controller makes of brokers that were away while nobody looked.

use super::isr::three;
use super::*;

/// Loses its power and is back before its session expires, as leader and controller. It kept itself leader under the
/// epoch it had, and the others cut what it had lost.
#[tokio::test(start_paused = true)]
async fn b1_who_bounced_does_not_lead_on_under_its_epoch() {
    let (cluster, [one, two, three], _) = three(2).await;
    let alone = cluster.create("alone", &[&[1]]).await;
    one.sees(|image| image.topic("alone").is_some_and(|topic| topic.id == alone)).await;
    // The others are too slow to become controller.
    two.controller.stop().await;
    three.controller.stop().await;
    one.die().await;
    let again = cluster.start(1).await;
    again.active().await;
    again.sees(|image| image.partition("t", PartitionIndex(1)).is_some()).await;
    assert_eq!((again.leader("t", 0), again.isr("t", 0)), (Some((Some(2), 1)), vec![2, 3]));
    let told = again.roles();
    let states = told.iter().flat_map(|roles| &roles.topics).filter(|(name, ..)| name.as_str() == "t");
    let led = states.flat_map(|(_, _, states)| states).any(|state| state.leader == Some(BrokerId(1)));
    assert!(!led, "not even once");
    two.sees(|image| image.partition("t", PartitionIndex(1)).unwrap().leader == Some(BrokerId(2))).await;
    assert_eq!(two.roles().last().unwrap().topics[0].2[0].leader_epoch, LeaderEpoch(1));
    assert_eq!(again.leader("alone", 0), Some((Some(1), 0)), "what it has alone stays as it was");
    let (_, stat) = cluster.store.get("/brokers/topics/alone/partitions/0/state").await.unwrap().unwrap();
    assert_eq!(stat.version, 0);
}

/// The same with a follower: it has to prove what it has before it counts again.
#[tokio::test(start_paused = true)]
async fn b1_a_follower_that_bounced_leaves_the_isr_and_who_stayed_keeps_its_epoch() {
    let (cluster, [one, two, three], _) = three(1).await;
    let rest = cluster.create("rest", &[&[2, 3]]).await;
    two.sees(|image| image.topic("rest").is_some_and(|topic| topic.id == rest)).await;
    three.controller.stop().await;
    two.controller.stop().await;
    two.die().await;
    let two = cluster.start(2).await;
    two.controller.stop().await;
    // Until here the live controller has seen it all.
    one.sees(|image| image.brokers.len() == 3 && image.partition("t", PartitionIndex(0)).unwrap().isr.len() == 2).await;
    let before = one.leader("rest", 0);
    assert_eq!(before, Some((Some(3), 1)));
    one.controller.stop().await;
    // Nobody looks, and 3 bounces.
    three.die().await;
    let three = cluster.start(3).await;
    three.controller.stop().await;
    one.store.close().await;
    let four = cluster.start(4).await;
    four.active().await;
    four.sees(|image| image.partition("t", PartitionIndex(0)).is_some()).await;
    assert_eq!(four.leader("rest", 0), Some((Some(3), 2)), "it alone is in sync, and its end may be another");
    assert_eq!(four.isr("rest", 0), [3]);
    assert_eq!((four.leader("t", 0), four.isr("t", 0)), (Some((Some(3), 2)), vec![3]), "1 is gone");
}
