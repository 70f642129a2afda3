//! Topics that grow, that somebody writes by hand, and that are deleted.

use super::*;

#[tokio::test(start_paused = true)]
async fn growth_and_topics_written_by_hand_take_effect() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let by_hand = Bytes::from_static(br#"{"version":1,"partitions":{"0":[1]}}"#);
    cluster.store.create("/brokers/topics/hand", by_hand, CreateMode::Persistent).await.unwrap();
    one.sees(|image| image.topic("hand").is_some()).await;
    let id = one.broker.image.current().topic("hand").unwrap().id;
    let (data, _) = cluster.store.get("/brokers/topics/hand").await.unwrap().unwrap();
    assert_eq!(topics::decode("hand", &data).unwrap().id, Some(id), "a missing id is written");
    let grown = Bytes::from_static(br#"{"version":1,"partitions":{"0":[1],"1":[1]}}"#);
    cluster.store.set("/brokers/topics/hand", grown, -1).await.unwrap();
    one.sees(|image| image.topic("hand").is_some_and(|topic| topic.partitions.len() == 2)).await;
    assert_eq!(one.broker.image.current().topic("hand").unwrap().id, id, "an id that was dropped is restored");
}

#[tokio::test(start_paused = true)]
async fn deleted_topic_leaves_the_image_the_disks_and_the_store() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1], &[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    cluster.delete("t").await;
    one.sees(|image| image.topic("t").is_none()).await;
    let stops: Vec<_> =
        one.broker.heard.lock().iter().filter(|heard| matches!(heard, Heard::Stop(_))).cloned().collect();
    let Heard::Stop(stop) = &stops[0] else { unreachable!() };
    assert_eq!((stops.len(), stop.partitions.len()), (1, 2));
    assert!(stop.partitions.iter().all(|partition| partition.delete && partition.leader_epoch.is_none()));
    for path in ["/brokers/topics/t", "/config/topics/t", "/admin/delete_topics/t"] {
        assert_eq!(cluster.store.get(path).await.unwrap(), None, "{path}");
    }
    let second = cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some_and(|topic| topic.id == second)).await;
}

#[tokio::test(start_paused = true)]
async fn wish_to_delete_an_unknown_topic_is_removed() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let admin = ClusterAdmin::new(cluster.store.clone());
    admin.mark_for_deletion(&["nothing".into()]).await.remove(0).unwrap();
    while !admin.marked_for_deletion().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// With nodes below a topic that nobody knew of, its node went before the wish: a topic that was made anew between the
/// two was deleted by a controller that was elected then.
#[tokio::test(start_paused = true)]
async fn a_topic_with_unknown_nodes_goes_together_with_the_wish() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    for path in ["/brokers/topics/t/partitions/7", "/brokers/topics/t/partitions/7/own", "/brokers/topics/t/own"] {
        cluster.store.create(path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    }
    // What is written of the wish second, after all of it together was not possible.
    let second =
        cluster.faults.script(Rule::new(Fate::Refuse, Access::Write, "/admin/delete_topics/t").after(1).times(1));
    let admin = ClusterAdmin::new(cluster.store.clone());
    admin.mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    let met = async {
        while cluster.faults.met(second) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), met).await.expect("written in two steps");
    assert!(cluster.store.get("/admin/delete_topics/t").await.unwrap().is_some());
    assert!(cluster.store.get("/brokers/topics/t").await.unwrap().is_some(), "it went without the wish");
    assert!(admin.await_gone(&"t".into(), Duration::from_secs(60)).await);
    assert_eq!(cluster.store.get("/admin/delete_topics/t").await.unwrap(), None);
}

/// The wish went, and the topic was back with the next controller.
#[tokio::test(start_paused = true)]
async fn while_others_make_nodes_below_a_topic_the_wish_to_delete_it_stays() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    cluster.store.create("/brokers/topics/t/own", Bytes::new(), CreateMode::Persistent).await.unwrap();
    let others = {
        let store = cluster.store.clone();
        crate::task::spawn(async move {
            for _ in 0..400 {
                // It may be gone by now.
                store.create("/brokers/topics/t/own", Bytes::new(), CreateMode::Persistent).await.ok();
                tokio::task::yield_now().await;
            }
        })
    };
    let admin = ClusterAdmin::new(cluster.store.clone());
    admin.mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    loop {
        let wish = cluster.store.get("/admin/delete_topics/t").await.unwrap();
        if cluster.store.get("/brokers/topics/t").await.unwrap().is_none() {
            break;
        }
        assert!(wish.is_some(), "the topic is still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    others.await.unwrap();
    assert!(admin.await_gone(&"t".into(), Duration::from_secs(60)).await);
    assert_eq!(cluster.store.get("/admin/delete_topics/t").await.unwrap(), None);
    one.sees(|image| image.topic("t").is_none()).await;
}

/// A node that the controller may not delete ended its term, and that of each one after it, once a second.
#[tokio::test(start_paused = true)]
async fn a_node_that_may_not_be_deleted_ends_no_term() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    let own = "/brokers/topics/t/own";
    cluster.store.create(own, Bytes::new(), CreateMode::Persistent).await.unwrap();
    let forbidden = cluster.faults.script(Rule::new(Fate::Forbid, Access::Write, own));
    let hidden = cluster.faults.script(Rule::new(Fate::Forbid, Access::Read, own));
    let (_, before) = cluster.store.get("/controller_epoch").await.unwrap().unwrap();
    let admin = ClusterAdmin::new(cluster.store.clone());
    admin.mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(cluster.faults.met(forbidden) > 0 && cluster.faults.met(hidden) > 0);
    assert!(cluster.store.get("/admin/delete_topics/t").await.unwrap().is_some(), "the wish stays");
    assert_eq!(cluster.store.get("/controller_epoch").await.unwrap().unwrap().1, before);
    cluster.create("u", &[&[1]]).await;
    one.sees(|image| image.topic("u").is_some()).await;
    cluster.faults.lift(forbidden);
    cluster.faults.lift(hidden);
    assert!(admin.await_gone(&"t".into(), Duration::from_secs(120)).await);
    one.sees(|image| image.topic("t").is_none()).await;
}

/// Nor does a wish that an administrator took back in the meantime keep the deletion from its end.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_wish_is_taken_back_ends_all_the_same() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    *one.broker.deletions_refused.lock() = 1;
    let admin = ClusterAdmin::new(cluster.store.clone());
    admin.mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    let refused = || *one.broker.deletions_refused.lock() == 0;
    while !refused() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.store.delete("/admin/delete_topics/t", -1).await.unwrap();
    one.sees(|image| image.topic("t").is_none()).await;
    while cluster.store.get("/brokers/topics/t").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A deletion that failed stayed under way until the broker started anew, and the name was taken that long.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_a_disk_refused_is_begun_again() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1], &[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    *one.broker.deletions_refused.lock() = 3;
    cluster.delete("t").await;
    let stops = one.broker.heard.lock().iter().filter(|heard| matches!(heard, Heard::Stop(_))).count();
    assert_eq!(stops, 4);
}

/// Row 11: a node that lost its id while no broker was up got a new one, and with it a new and empty topic.
#[tokio::test(start_paused = true)]
async fn ids_of_logs_on_disk_count_where_the_tree_has_none() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    let id = cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    one.die().await;
    let lost = Bytes::from_static(br#"{"version":1,"partitions":{"0":[1]}}"#);
    cluster.store.set("/brokers/topics/t", lost, -1).await.unwrap();
    let again = cluster
        .start_with(1, |broker| {
            broker.inventory.0.lock().insert("t".into(), id);
        })
        .await;
    again.sees(|image| image.topic("t").is_some()).await;
    assert_eq!(again.broker.image.current().topic("t").unwrap().id, id);
    let (data, _) = cluster.store.get("/brokers/topics/t").await.unwrap().unwrap();
    assert_eq!(topics::decode("t", &data).unwrap().id, Some(id), "and it is written back");
}

/// A topic with a log that cannot be opened can be deleted: there is no other way to be rid of it.
#[tokio::test(start_paused = true)]
async fn a_topic_with_a_failed_replica_can_be_deleted() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    *one.broker.refuses.lock() = Some(ControlError::Storage("damaged".into()));
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some_and(|state| state.leader.is_none())).await;
    cluster.delete("t").await;
}
