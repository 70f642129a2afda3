//! The last step before the listeners accept: the metadata image must show the whole cluster.
//!
//! A new controller first tells the live brokers and only then, in a later request, the partitions. Whoever answered
//! in between would say that topics do not exist. So the image is compared with the topics of the agreed store, which
//! are there before any controller reads them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::refused::{StartError, failed};
use crate::cluster::image::ImagePublisher;
use crate::cluster::znodes::{admin, partition_state, topics};
use crate::controller::ControllerHandle;
use crate::coordination::{Coordination, CoordinationError};
use crate::replica::manager::ReplicaManager;
use crate::types::{BrokerId, TopicName};

/// How long a controller may take to tell of this broker.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(60);
/// How long the topics may take after that. One that the controller cannot lead anywhere must not hold up the others.
const TOPICS_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for partitions without an epoch.
const EPOCHS_LOOK: Duration = Duration::from_millis(5);
/// Between two looks for topics that are late.
const LATE_LOOK: Duration = Duration::from_secs(1);
/// The store is read again this often, since a topic may be deleted meanwhile.
const RE_READ: Duration = Duration::from_millis(200);

/// Waits for an image with a controller, this broker and every topic that is not being deleted; and, if this broker is
/// the controller, until it takes requests. False: not all of that came in time.
///
/// # Errors
/// No controller told of this broker in time, or the store cannot be read all the while.
pub(super) async fn await_complete(
    publisher: &ImagePublisher,
    store: &dyn Coordination,
    me: BrokerId,
    controller: &ControllerHandle,
) -> Result<bool, StartError> {
    let mut image = publisher.subscribe();
    let shown = image.wait_for(|image| image.controller.is_some() && image.brokers.contains_key(&me));
    match timeout(CONTROLLER_PATIENCE, shown).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => {
            return Err(StartError(format!(
                "no controller sent its metadata within {} s of the registration",
                CONTROLLER_PATIENCE.as_secs()
            )));
        }
    }
    let deadline = Instant::now() + TOPICS_PATIENCE;
    let mut all = true;
    loop {
        let existing = match awaited_topics(store).await {
            Ok(existing) => existing,
            // It may be there again soon, as it was a moment ago, and its session may be followed by another.
            Err(error) if Instant::now() < deadline => {
                warn!(%error, "the list of topics cannot be read; trying again");
                sleep(RE_READ).await;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let awaited: Vec<&TopicName> = existing.iter().collect();
        let complete = image.wait_for(|image| awaited.iter().all(|topic| image.topic(topic.as_str()).is_some()));
        if timeout(RE_READ, complete).await.is_ok() {
            break;
        }
        if Instant::now() > deadline {
            let image = publisher.current();
            let missing = awaited.iter().filter(|topic| image.topic(topic.as_str()).is_none()).count();
            warn!(missing, "the controller has not told of all topics; starting without them");
            all = false;
            break;
        }
    }
    // The controller tells every broker before it is done with the beginning of its term, and takes requests after
    // that.
    if publisher.current().controller == Some(me) {
        let mut status = controller.subscribe();
        all &= matches!(timeout(TOPICS_PATIENCE, status.wait_for(|status| status.active)).await, Ok(Ok(_)));
    }
    Ok(all)
}

/// Waits for the topics that [`await_complete`] did not wait for any longer, and calls `then`. What the image does not
/// show after that was deleted. A topic that never had a leader, or whose node cannot be read, is not waited for: no
/// controller tells of it.
pub(super) async fn await_rest(
    publisher: Arc<ImagePublisher>,
    store: Arc<dyn Coordination>,
    then: impl FnOnce() + Send,
) {
    while !matches!(missing(&publisher, &*store).await, Ok(missing) if missing.is_empty()) {
        sleep(LATE_LOOK).await;
    }
    info!("the controller has told of all topics");
    then();
}

async fn missing(publisher: &ImagePublisher, store: &dyn Coordination) -> Result<Vec<TopicName>, CoordinationError> {
    let mut missing = Vec::new();
    for topic in awaited_topics(store).await? {
        if publisher.current().topic(topic.as_str()).is_some() {
            continue;
        }
        let node = store.get(&topics::path(topic.as_str())).await?;
        let readable = node.is_some_and(|(data, _)| topics::decode(topic.as_str(), &data).is_ok());
        if readable && store.get(&partition_state::partitions_path(topic.as_str())).await?.is_some() {
            missing.push(topic);
        }
    }
    Ok(missing)
}

/// Waits until no partition waits for a new leader epoch because its log may have lost its end, for a while.
pub(super) async fn await_epochs(replicas: &ReplicaManager) {
    let deadline = Instant::now() + TOPICS_PATIENCE;
    loop {
        let waiting = replicas.in_doubt();
        if waiting == 0 {
            return;
        }
        if Instant::now() > deadline {
            warn!(partitions = waiting, "the controller gave no new leader epochs; starting without these partitions");
            return;
        }
        sleep(EPOCHS_LOOK).await;
    }
}

/// Topics that are there and not being deleted.
async fn awaited_topics(store: &dyn Coordination) -> Result<BTreeSet<TopicName>, CoordinationError> {
    let existing = names(store, topics::TOPICS).await?;
    let deleting = names(store, admin::DELETE_TOPICS).await?;
    Ok(&existing - &deleting)
}

async fn names(store: &dyn Coordination, path: &str) -> Result<BTreeSet<TopicName>, CoordinationError> {
    match store.children(path).await {
        Ok(children) => Ok(children.iter().map(|name| TopicName::new(name)).collect()),
        Err(CoordinationError::NoNode(_)) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control::{ControlHead, LiveBroker, PartitionState, TopicMetadata, UpdateMetadata};
    use crate::cluster::registration::ensure_top_level_paths;
    use crate::coordination::embedded::testing::TreeDir;
    use crate::coordination::testing::{Access, Fate, Faults, FaultyCoordination, Rule};
    use crate::coordination::{CreateMode, ensure_path};
    use crate::types::{BrokerEpoch, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

    /// From a controller that is not here.
    fn told(topics: Vec<TopicMetadata>) -> UpdateMetadata {
        let (controller_epoch, broker_epoch) = (ControllerEpoch(1), BrokerEpoch(1));
        UpdateMetadata {
            head: ControlHead { controller: BrokerId(2), controller_epoch, broker_epoch },
            topics,
            live_brokers: vec![LiveBroker { id: BrokerId(1), endpoints: vec![], rack: None }],
        }
    }

    /// A topic that the image did not show after ten seconds counted as deleted, and its transactions as ended without
    /// their markers.
    #[tokio::test(start_paused = true)]
    async fn topics_that_are_late_are_not_taken_for_deleted() {
        let store = TreeDir::new().store();
        ensure_top_level_paths(&*store, BrokerId(1)).await.expect("made");
        let id = TopicId::from_random(5 << 64 | 7);
        let node = topics::encode(&topics::TopicNode { id, ..topics::TopicNode::default() });
        for (name, data) in [("late", node.clone()), ("never-led", node), ("rubbish", "rubbish".into())] {
            store.create(&topics::path(name), data, CreateMode::Persistent).await.expect("made");
        }
        for name in ["late", "rubbish"] {
            ensure_path(&*store, &partition_state::partitions_path(name)).await.expect("made");
        }
        let publisher = Arc::new(ImagePublisher::default());
        publisher.apply(&told(vec![]));
        let (controller, _seat) = crate::controller::seat();
        assert!(matches!(await_complete(&publisher, &*store, BrokerId(1), &controller).await, Ok(false)));
        let (done, mut complete) = tokio::sync::oneshot::channel();
        let rest = await_rest(Arc::clone(&publisher), store, move || done.send(()).expect("awaited"));
        let rest = tokio::spawn(rest);
        sleep(Duration::from_secs(3600)).await;
        assert!(complete.try_recv().is_err());
        let state = PartitionState {
            partition: PartitionIndex(0),
            controller_epoch: ControllerEpoch(1),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            isr: vec![],
            partition_epoch: PartitionEpoch(0),
            replicas: vec![],
            adding: vec![],
            removing: vec![],
            recovery: Default::default(),
            offline_replicas: vec![],
            is_new: false,
        };
        let id = id.expect("a legal id");
        publisher.apply(&told(vec![TopicMetadata {
            name: "late".into(),
            id,
            partitions: vec![state],
            deleted: vec![],
        }]));
        rest.await.expect("it ends");
        complete.try_recv().expect("said");
    }

    /// One lost answer ended the process, though it was registered and told of everything.
    #[tokio::test(start_paused = true)]
    async fn lost_answers_do_not_end_a_start() {
        let tree = TreeDir::new().store();
        ensure_top_level_paths(&*tree, BrokerId(1)).await.expect("made");
        let faults = Arc::new(Faults::default());
        let store = FaultyCoordination::under(tree, Arc::clone(&faults));
        let publisher = ImagePublisher::default();
        publisher.apply(&told(vec![]));
        let (controller, _seat) = crate::controller::seat();
        let wait = || await_complete(&publisher, &*store, BrokerId(1), &controller);
        faults.script(Rule::new(Fate::LoseRequest, Access::Read, "/brokers/topics").times(3));
        assert!(matches!(wait().await, Ok(true)));
        let rule = faults.script(Rule::new(Fate::LoseRequest, Access::Read, "/brokers/topics"));
        let begun = Instant::now();
        assert!(wait().await.is_err(), "not for ever");
        assert!((TOPICS_PATIENCE..2 * TOPICS_PATIENCE).contains(&begun.elapsed()));
        faults.lift(rule);
    }
}
