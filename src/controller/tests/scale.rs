//! Ten thousand partitions on three brokers. How long it takes is printed, not judged.

use std::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn ten_thousand_partitions_change_their_leaders_and_their_controller() {
    const PARTITIONS: usize = 10_000;
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let (two, three) = (cluster.start(2).await, cluster.start(3).await);
    one.sees(|image| image.brokers.len() == 3).await;
    let begun = Instant::now();
    cluster.create("t", &vec![&[1_i32, 2, 3][..]; PARTITIONS]).await;
    let all = |epoch: i32| {
        move |image: &crate::cluster::image::ClusterImage| {
            image.topic("t").is_some_and(|topic| {
                topic.partitions.len() == PARTITIONS
                    && topic.partitions.values().all(|state| state.leader_epoch == LeaderEpoch(epoch))
            })
        }
    };
    three.sees(all(0)).await;
    eprintln!("created after {:?}", begun.elapsed());
    let begun = Instant::now();
    one.die().await;
    two.sees(all(1)).await;
    three.sees(all(1)).await;
    eprintln!("another controller, and another leader of each, after {:?}", begun.elapsed());
    for member in [&two, &three] {
        let roles = member.roles();
        let last = roles.last().unwrap();
        assert_eq!(last.topics[0].2.len(), PARTITIONS, "in one request");
        assert!(last.topics[0].2.iter().all(|state| state.leader == Some(BrokerId(2)) && state.isr.len() == 2));
    }
    let begun = Instant::now();
    two.die().await;
    three.sees(all(2)).await;
    eprintln!("and once more after {:?}", begun.elapsed());
    assert_eq!(three.leader("t", 9_999), Some((Some(3), 2)));
}
