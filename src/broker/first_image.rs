//! The last step before the listeners accept: the metadata image must show the whole cluster.
//!
//! A new controller first tells the live brokers and only then, in a later request, the partitions. Whoever answered
//! in between would say that topics do not exist. So the image is compared with the topics of the agreed store, which
//! are there before any controller reads them.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::refused::{StartError, failed};
use crate::cluster::image::ImagePublisher;
use crate::cluster::znodes::{admin, topics};
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
/// The store is read again this often, since a topic may be deleted meanwhile.
const RE_READ: Duration = Duration::from_millis(200);

/// Waits for an image with a controller, this broker and every topic that is not being deleted; and, if this broker is
/// the controller, until it takes requests. False: not all of that came in time.
///
/// # Errors
/// No controller told of this broker in time, or the store cannot be read.
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
        let existing = names(store, topics::TOPICS).await?;
        let deleting = names(store, admin::DELETE_TOPICS).await?;
        let awaited: Vec<&TopicName> = existing.difference(&deleting).collect();
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

/// Waits until no partition waits for a new leader epoch because its log may have lost its end. False: some still do.
pub(super) async fn await_epochs(replicas: &ReplicaManager) -> bool {
    let deadline = Instant::now() + TOPICS_PATIENCE;
    loop {
        let waiting = replicas.in_doubt();
        if waiting == 0 {
            return true;
        }
        if Instant::now() > deadline {
            warn!(partitions = waiting, "the controller gave no new leader epochs; starting without these partitions");
            return false;
        }
        sleep(EPOCHS_LOOK).await;
    }
}

async fn names(store: &dyn Coordination, path: &str) -> Result<BTreeSet<TopicName>, StartError> {
    match store.children(path).await {
        Ok(children) => Ok(children.iter().map(|name| TopicName::new(name)).collect()),
        Err(CoordinationError::NoNode(_)) => Ok(BTreeSet::new()),
        Err(error) => Err(failed(error)),
    }
}
