//! Partitions that move to other replicas, and controllers that fail on the way.

use super::isr::{proposal, propose};
use super::*;
use crate::cluster::control::IsrProposal;
use crate::types::TopicPartition;

const WISHES: &str = "/admin/reassign_partitions";

/// Brokers 1 to 4 with a partition on 1 and 2, and 9, which is the controller and has no part in anything.
struct Kit {
    cluster: Cluster,
    nine: Member,
    others: BTreeMap<i32, Member>,
    id: TopicId,
}

impl Kit {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let nine = cluster.start(9).await;
        nine.active().await;
        let mut others = BTreeMap::new();
        for id in 1..=4 {
            let member = cluster.start(id).await;
            // They never contend.
            member.controller.stop().await;
            others.insert(id, member);
        }
        nine.sees(|image| image.brokers.len() == 5).await;
        let id = cluster.create("t", &[&[1, 2]]).await;
        let kit = Self { cluster, nine, others, id };
        kit.nine.sees(|image| image.topic("t").is_some()).await;
        kit
    }

    async fn reassign(&self, target: Option<&[i32]>) -> Result<(), ReassignmentRefused> {
        self.reassign_with(0, target, true).await
    }

    async fn reassign_with(
        &self,
        partition: i32,
        target: Option<&[i32]>,
        factor_may_change: bool,
    ) -> Result<(), ReassignmentRefused> {
        let target = target.map(|ids| ids.iter().copied().map(BrokerId).collect());
        let wishes = Wishes::from([(TopicPartition::new("t", partition), target)]);
        let mut results = self.nine.controller.reassign(wishes, factor_may_change).await.unwrap();
        assert_eq!(results.len(), 1);
        results.remove(0).1
    }

    /// Replicas, those being added and those being removed, as the controller lists them.
    async fn moving(&self) -> Option<(Vec<i32>, Vec<i32>, Vec<i32>)> {
        let mut moving = self.nine.controller.reassignments(None).await.unwrap();
        let moving = moving.pop()?;
        let plain = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
        Some((plain(&moving.replicas), plain(&moving.adding), plain(&moving.removing)))
    }

    async fn stored(&self) -> String {
        let (data, _) = self.cluster.store.get("/brokers/topics/t").await.unwrap().unwrap();
        let text = String::from_utf8(data.to_vec()).unwrap();
        text[text.find(r#""partitions""#).unwrap()..].trim_end_matches('}').to_owned()
    }

    async fn write_topic(&self, partitions: &str) {
        let text = format!(r#"{{"version":3,"topic_id":"{}",{partitions}}}}}"#, self.id);
        self.cluster.store.set("/brokers/topics/t", text.into(), -1).await.unwrap();
    }

    async fn write_state(&self, leader: i32, epoch: i32, isr: &str) {
        let text =
            format!(r#"{{"controller_epoch":1,"leader":{leader},"version":1,"leader_epoch":{epoch},"isr":{isr}}}"#);
        self.cluster.store.set("/brokers/topics/t/partitions/0/state", text.into(), -1).await.unwrap();
    }

    /// What the leader tells once its followers have caught up.
    async fn in_sync(&self, leader: i32, isr: &[i32]) {
        let state = self.nine.broker.image.current().partition("t", PartitionIndex(0)).unwrap().clone();
        let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
        let proposal = IsrProposal { leader_epoch, partition_epoch, ..proposal(self.id, 0, isr) };
        propose(&self.nine, &self.others[&leader], proposal).await.unwrap();
    }

    async fn fail_over(&mut self) {
        let nine = self.cluster.start_with(10, |_| ()).await;
        std::mem::replace(&mut self.nine, nine).die().await;
        self.nine.active().await;
        self.nine.sees(|image| image.topic("t").is_some()).await;
    }

    /// Moved to 3 and 4, and nothing left of it anywhere.
    async fn is_moved(&self) {
        self.nine
            .sees(|image| image.partition("t", PartitionIndex(0)).unwrap().replicas == [BrokerId(3), BrokerId(4)])
            .await;
        assert_eq!(self.moving().await, None);
        assert_eq!(self.stored().await, r#""partitions":{"0":[3,4]},"adding_replicas":{},"removing_replicas":{"#);
        let (data, _) = self.cluster.store.get("/brokers/topics/t/partitions/0/state").await.unwrap().unwrap();
        let state = partition_state::decode("p", &data).unwrap();
        assert_eq!((state.leader, state.isr), (Some(BrokerId(3)), vec![BrokerId(3), BrokerId(4)]));
        for id in [1, 2] {
            let stops = self.others[&id].stops();
            let last = &stops.last().expect("told to stop").partitions;
            assert_eq!((last[0].delete, last[0].leader_epoch), (true, Some(state.leader_epoch)), "{id}");
        }
        for id in [3, 4] {
            let roles = self.others[&id].roles();
            let last = &roles.last().unwrap().topics[0].2[0];
            assert_eq!((last.leader, last.leader_epoch), (Some(BrokerId(3)), state.leader_epoch), "{id}");
            assert!(last.adding.is_empty() && last.removing.is_empty(), "{id}");
        }
    }
}

const MOVING: &str = r#""partitions":{"0":[3,4,1,2]},"adding_replicas":{"0":[3,4]},"removing_replicas":{"0":[1,2]"#;

#[tokio::test(start_paused = true)]
async fn a_partition_moves_once_its_target_is_in_sync() {
    let kit = Kit::new().await;
    assert_eq!(kit.reassign(Some(&[3, 4])).await, Ok(()));
    assert_eq!(kit.stored().await, MOVING);
    assert_eq!(kit.moving().await, Some((vec![3, 4, 1, 2], vec![3, 4], vec![1, 2])));
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    for (id, is_new) in [(1, false), (2, false), (3, true), (4, true)] {
        let member = &kit.others[&id];
        while member.roles().last().is_none_or(|roles| roles.topics[0].2[0].leader_epoch < LeaderEpoch(1)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let state = member.roles().last().unwrap().topics[0].2[0].clone();
        assert_eq!((state.is_new, state.leader), (is_new, Some(BrokerId(1))), "{id}");
        assert_eq!((state.adding, state.removing), ([3, 4].map(BrokerId).to_vec(), [1, 2].map(BrokerId).to_vec()));
    }
    kit.in_sync(1, &[1, 2, 3]).await;
    assert!(kit.moving().await.is_some(), "4 is still behind");
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    kit.is_moved().await;
    assert_eq!(kit.nine.leader("t", 0), Some((Some(3), 2)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stays_leads_on_and_more_or_fewer_replicas_are_a_move_as_well() {
    let kit = Kit::new().await;
    kit.reassign(Some(&[1, 2, 3])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    kit.in_sync(1, &[1, 2, 3]).await;
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(2)).await;
    assert_eq!((kit.nine.leader("t", 0), kit.moving().await), (Some((Some(1), 2)), None));
    kit.reassign(Some(&[2])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().replicas == [BrokerId(2)]).await;
    assert_eq!((kit.nine.leader("t", 0), kit.nine.isr("t", 0)), (Some((Some(2), 3)), vec![2]));
    assert_eq!(kit.stored().await, r#""partitions":{"0":[2]},"adding_replicas":{},"removing_replicas":{"#);
    // A new order is a move without any.
    kit.reassign(Some(&[2])).await.unwrap();
    assert_eq!(kit.moving().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_move_can_be_taken_back_or_turned_elsewhere() {
    let kit = Kit::new().await;
    kit.reassign(Some(&[3, 2])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    kit.in_sync(1, &[1, 2, 3]).await;
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader == Some(BrokerId(3))).await;
    assert_eq!(kit.moving().await, None);
    kit.reassign(Some(&[4, 2])).await.unwrap();
    kit.reassign(Some(&[1, 2])).await.unwrap();
    assert_eq!(kit.moving().await, Some((vec![1, 2, 3], vec![1], vec![3])), "from the same origin");
    while kit.others[&4].stops().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(kit.others[&4].stops()[0].partitions[0].delete, "nobody wants it any more");
    kit.reassign(None).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().replicas.len() == 2).await;
    assert_eq!(kit.moving().await, None);
    assert_eq!(kit.stored().await, r#""partitions":{"0":[2,3]},"adding_replicas":{},"removing_replicas":{"#);
    assert_eq!(kit.nine.leader("t", 0).unwrap().0, Some(3));
    assert_eq!(kit.reassign(None).await, Err(ReassignmentRefused::NotInProgress));
}

#[tokio::test(start_paused = true)]
async fn refusals_have_kafkas_texts() {
    let kit = Kit::new().await;
    let invalid = |text: &str| Err(ReassignmentRefused::InvalidReplicas(text.into()));
    let duplicate = "Duplicate replica ids in partition reassignment replica list: ArrayBuffer(1, 1)";
    assert_eq!(kit.reassign(Some(&[])).await, invalid("Empty replica list specified in partition reassignment."));
    assert_eq!(kit.reassign(Some(&[1, 1])).await, invalid(duplicate));
    assert_eq!(kit.reassign(Some(&[1, -1])).await, invalid("Invalid broker id in replica list: ArrayBuffer(1, -1)"));
    let dead = "Replica assignment has brokers that are not alive. Replica list: ArrayBuffer(7), live broker list: \
                Set(1, 2, 3, 4, 9)";
    assert_eq!(kit.reassign(Some(&[7, 1])).await, invalid(dead));
    assert_eq!(kit.reassign_with(5, Some(&[1]), true).await, Err(ReassignmentRefused::UnknownPartition));
    let factor = ReassignmentRefused::FactorChanged { from: 2, to: 3 };
    assert_eq!(kit.reassign_with(0, Some(&[1, 2, 3]), false).await, Err(factor));
    let refused = kit.others[&1].controller.reassign(Wishes::new(), true).await;
    assert!(matches!(refused, Err(ControllerError::Unavailable(_))), "it has stopped");
    assert_eq!(kit.stored().await, r#""partitions":{"0":[1,2]},"adding_replicas":{},"removing_replicas":{"#);
}

#[tokio::test(start_paused = true)]
async fn wishes_in_the_tree_leave_it_as_they_are_done() {
    let kit = Kit::new().await;
    let wish = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,4]},{"topic":"v","partition":0,"replicas":[1]}]}"#;
    kit.cluster.store.create(WISHES, wish.into(), CreateMode::Persistent).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    while kit.cluster.store.get(WISHES).await.unwrap().unwrap().0.len() == wish.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let left = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,4]}]}"#;
    assert_eq!(kit.cluster.store.get(WISHES).await.unwrap().unwrap().0, left, "what cannot be has left at once");
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    kit.is_moved().await;
    while kit.cluster.store.get(WISHES).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The next one is seen as well, rubbish is thrown away, and the API overrules.
    for wish in ["rubbish", r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1]}]}"#] {
        kit.cluster.store.create(WISHES, wish.to_owned().into(), CreateMode::Persistent).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kit.moving().await, Some((vec![1, 3, 4], vec![1], vec![3, 4])));
    kit.reassign(Some(&[4, 2])).await.unwrap();
    assert_eq!(kit.cluster.store.get(WISHES).await.unwrap(), None);
    assert_eq!(kit.moving().await, Some((vec![4, 2, 3], vec![2], vec![3])));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_moves_is_deleted_afterwards() {
    let kit = Kit::new().await;
    kit.reassign(Some(&[3, 4])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    ClusterAdmin::new(kit.cluster.store.clone()).mark_for_deletion(&["t".into()]).await.remove(0).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kit.cluster.store.get("/brokers/topics/t").await.unwrap().is_some());
    assert_eq!(kit.reassign(Some(&[1])).await, Err(ReassignmentRefused::UnknownPartition));
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    while kit.cluster.store.get("/brokers/topics/t").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_hears_again_what_it_is_to_follow() {
    let mut kit = Kit::new().await;
    kit.reassign(Some(&[3, 4])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    kit.others.remove(&4).unwrap().die().await;
    kit.nine.sees(|image| image.brokers.len() == 4).await;
    let four = kit.cluster.start(4).await;
    four.controller.stop().await;
    kit.others.insert(4, four);
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(2)).await;
    while !kit.others[&4].roles().last().is_some_and(|roles| roles.topics[0].2[0].is_new) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    kit.is_moved().await;
}

#[tokio::test(start_paused = true)]
async fn growth_beside_a_move_is_kept() {
    let kit = Kit::new().await;
    let grown = r#""partitions":{"0":[1,2],"1":[2]},"adding_replicas":{},"removing_replicas":{"#;
    kit.write_topic(grown).await;
    kit.reassign(Some(&[3, 4])).await.unwrap();
    let both = r#""partitions":{"0":[3,4,1,2],"1":[2]},"adding_replicas":{"0":[3,4]},"removing_replicas":{"0":[1,2]"#;
    assert_eq!(kit.stored().await, both);
    kit.nine.sees(|image| image.topic("t").unwrap().partitions.len() == 2).await;
}

/// Everything that was acknowledged lay on a replica that was being added, and taking the move back deleted it.
#[tokio::test(start_paused = true)]
async fn a_replica_that_alone_is_in_sync_is_not_given_up() {
    let mut kit = Kit::new().await;
    kit.reassign(Some(&[3, 4])).await.unwrap();
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch == LeaderEpoch(1)).await;
    kit.in_sync(1, &[1, 2, 3]).await;
    for id in [1, 2] {
        kit.others.remove(&id).unwrap().die().await;
    }
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().isr == [BrokerId(3)]).await;
    let before = kit.nine.leader("t", 0);
    let refused = |verb: &str| {
        Err(ReassignmentRefused::InvalidReplicas(format!(
            "Unable to {verb} partition assignment for t:0 because it would require an unclean leader election."
        )))
    };
    assert_eq!(kit.reassign(None).await, refused("revert"));
    assert_eq!(kit.reassign(Some(&[4, 1])).await, refused("change"));
    let wish = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}"#;
    kit.cluster.store.create(WISHES, wish.into(), CreateMode::Persistent).await.unwrap();
    while kit.cluster.store.get(WISHES).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((kit.stored().await.as_str(), kit.nine.leader("t", 0)), (MOVING, before));
    assert!(kit.others[&3].stops().is_empty());
    assert_eq!(kit.reassign(Some(&[3, 1])).await, Ok(()), "it stays");
}

/// The controller failed between the replicas' node and the state: who led was a replica no more, and led for ever.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_no_replica_is_replaced_by_the_next_controller() {
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_state(3, 2, "[3,1,2]").await;
    kit.fail_over().await;
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader_epoch > LeaderEpoch(2)).await;
    assert_eq!((kit.nine.leader("t", 0).unwrap().0, kit.nine.isr("t", 0)), (Some(1), vec![1, 2]));
}

/// A controller fails at each step, and the next one finds the tree as it was left.
#[tokio::test(start_paused = true)]
async fn the_next_controller_goes_on_wherever_the_last_one_stopped() {
    // 1: the replicas are on record, and nobody has heard of it.
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_topic(MOVING).await;
    kit.fail_over().await;
    assert!(kit.moving().await.is_some());
    assert!(kit.nine.leader("t", 0).unwrap().1 >= 1, "they hear of each other under a new epoch");
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    kit.is_moved().await;

    // 2: all have heard, and the target is not in sync.
    let mut kit = Kit::new().await;
    kit.reassign(Some(&[3, 4])).await.unwrap();
    kit.fail_over().await;
    kit.in_sync(1, &[1, 2, 3, 4]).await;
    kit.is_moved().await;

    // 3: it is in sync, and nothing followed from it.
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_topic(MOVING).await;
    kit.write_state(1, 1, "[1,2,3,4]").await;
    kit.fail_over().await;
    kit.is_moved().await;

    // 4: the target leads, and the replicas are not on record.
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_topic(MOVING).await;
    kit.write_state(3, 2, "[3,4]").await;
    kit.fail_over().await;
    kit.is_moved().await;

    // 5: the replicas are on record, and the wish is still there.
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_topic(r#""partitions":{"0":[3,4]},"adding_replicas":{},"removing_replicas":{"#).await;
    kit.write_state(3, 2, "[3,4]").await;
    let wish = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,4]}]}"#;
    kit.cluster.store.create(WISHES, wish.into(), CreateMode::Persistent).await.unwrap();
    kit.fail_over().await;
    assert_eq!(kit.cluster.store.get(WISHES).await.unwrap(), None);
    assert_eq!((kit.nine.leader("t", 0).unwrap().0, kit.nine.isr("t", 0)), (Some(3), vec![3, 4]));

    // 6: it was taken back while 3 was in sync already.
    let mut kit = Kit::new().await;
    kit.nine.controller.stop().await;
    kit.write_topic(r#""partitions":{"0":[1,2,3]},"adding_replicas":{},"removing_replicas":{"0":[3]"#).await;
    kit.write_state(3, 2, "[1,2,3]").await;
    kit.fail_over().await;
    kit.nine.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().replicas.len() == 2).await;
    assert_eq!((kit.nine.leader("t", 0).unwrap().0, kit.nine.isr("t", 0)), (Some(1), vec![1, 2]));
    assert_eq!(kit.stored().await, r#""partitions":{"0":[1,2]},"adding_replicas":{},"removing_replicas":{"#);
}
