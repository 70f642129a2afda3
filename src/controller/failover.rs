//! Election at `/controller`, and what a new controller does before anything else.
//!
//! Everything is read before anything is decided. The order, with Kafka's reasons: watches before reads; an
//! UpdateMetadata with the complete list of live brokers before the first LeaderAndIsr (I-15); roles before elections,
//! so that every leader that was live all the time goes on under the epoch it has. Source: Kafka 3.9
//! `KafkaController.elect`, `onControllerFailover`, `KafkaZkClient.registerControllerAndIncrementControllerEpoch`.

use tracing::{info, warn};

use super::fence::{Fence, Interrupted};
use super::partitions::Cause;
use super::term::Term;
use crate::clock::UnixMs;
use crate::cluster::znodes::controller::{self, EPOCH_PATH};
use crate::cluster::znodes::{features, notifications, topics};
use crate::coordination::{CoordinationError, CreateMode, Op, OpResult, SharedCoordination};
use crate::types::{BrokerId, ControllerEpoch, TopicName};

/// Tries to become controller: `/controller` appears and the epoch rises in one transaction, or neither.
///
/// `None`: another broker was faster, or the outcome is unknown; look at `/controller` again.
pub(super) async fn claim(
    store: &SharedCoordination,
    broker: BrokerId,
    now_ms: UnixMs,
) -> Result<Option<Fence>, Interrupted> {
    let mut ops = Vec::new();
    let last = match store.get(EPOCH_PATH).await? {
        Some((data, stat)) => {
            let unreadable = |error| CoordinationError::Refused(format!("{error}"));
            Some((controller::decode_epoch(&data).map_err(unreadable)?, stat.version))
        }
        None => {
            let data = controller::encode_epoch(ControllerEpoch(0));
            ops.push(Op::Create { path: EPOCH_PATH.into(), data, mode: CreateMode::Persistent });
            None
        }
    };
    let (epoch, version) = last.map_or((0, 0), |(epoch, version)| (epoch.unwrap_or_default().0, version));
    let epoch = ControllerEpoch(epoch.saturating_add(1));
    ops.push(Op::Create {
        path: controller::PATH.into(),
        data: controller::encode(broker, now_ms),
        mode: CreateMode::Ephemeral,
    });
    // The set's result carries the fencing token, so it stands last but for the features.
    let token_at = ops.len();
    ops.push(Op::Set { path: EPOCH_PATH.into(), data: controller::encode_epoch(epoch), version });
    ops.extend(enable_features(store).await?);
    match store.multi(ops).await {
        Ok(results) => match results.get(token_at) {
            Some(OpResult::Set(stat)) => Ok(Some(Fence::new(store.clone(), epoch, stat.version))),
            _ => Ok(None),
        },
        Err(refused) => match refused.error {
            CoordinationError::NodeExists(_) | CoordinationError::BadVersion(_) => Ok(None),
            error => Err(error.into()),
        },
    }
}

/// `/feature` belongs to the first transaction of a controller, if it needs one.
async fn enable_features(store: &SharedCoordination) -> Result<Option<Op>, Interrupted> {
    let path = features::PATH.to_owned();
    let data = features::encode_enabled();
    Ok(match store.get(features::PATH).await? {
        None => Some(Op::Create { path, data, mode: CreateMode::Persistent }),
        Some((found, stat)) => match features::is_enabled(&found) {
            Ok(true) => None,
            Ok(false) => Some(Op::Set { path, data, version: stat.version }),
            Err(error) => {
                warn!(%error, "left as it is");
                None
            }
        },
    })
}

impl Term {
    /// Takes over: arms the watches, reads everything, tells every broker, elects where a leader is missing.
    pub(super) async fn fail_over(&mut self) -> Result<(), Interrupted> {
        for parent in [notifications::ISR_CHANGES, notifications::LOG_DIR_EVENTS] {
            let names = self.store.children(parent).await?;
            self.delete_notes(parent, names).await?;
        }
        self.context.brokers = self.read_brokers().await?;
        let (names, changed) = self.store.children_and_watch(topics::TOPICS).await?;
        self.watch(changed, super::event::Event::TopicsChanged);
        self.load_topics(names.iter().map(|name| TopicName::new(name)).collect()).await?;
        self.read_deletions().await?;
        let partitions = self.context.select(|_, _| true);
        self.read_states(partitions.clone()).await?;
        for broker in self.context.brokers.values() {
            self.channels.open(&broker.info, broker.epoch);
        }
        let brokers: Vec<_> = self.context.brokers.keys().copied().collect();
        info!(controller_epoch = %self.fence.epoch, ?brokers, topics = self.context.topics.len(),
            partitions = partitions.len(), "elected as controller");
        self.send_metadata(brokers.iter().copied(), &[], &[]);
        // Before anybody is told to lead: who may have lost its end must not go on under the epoch it had.
        let bounced = self.settle_for(Cause::Bounced, partitions.clone()).await?;
        if !bounced.is_empty() {
            warn!(partitions = bounced.len(), "brokers were away while nobody looked; their partitions get new epochs");
        }
        for broker in &brokers {
            self.send_hosted(*broker);
        }
        if !partitions.is_empty() {
            self.send_metadata(brokers.iter().copied(), &partitions, &[]);
        }
        let changed = self.settle(partitions).await?;
        self.announce(&changed, false);
        self.bring_online().await?;
        // These read once more, now with a watch.
        self.on_isr_notified().await?;
        self.on_log_dir_notified().await?;
        self.on_deletions_changed().await?;
        self.on_reassignment_asked().await?;
        let brokers = self.context.brokers.keys().copied().collect();
        self.resume_reassignments(&brokers).await?;
        self.on_preferred_election_asked().await?;
        self.on_configs_changed().await?;
        self.follow_settings();
        self.schedule_rebalance();
        Ok(())
    }
}
