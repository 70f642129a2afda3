//! Producers, and what they were promised.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::cluster::Live;
use super::net::{Ends, Net};
use super::topics::{COMES, Place};
use crate::record::{BatchBuilder, ValidBatch};
use crate::replica::ack::{Ack, Completion};
use crate::replica::partition::{AckAt, AppendRefused};
use crate::types::{
    BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicId, TransactionMarker, TransactionResult,
};

/// A record that was acknowledged by all: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) place: Place,
    /// Which of the topics of that name.
    pub(super) topic_id: TopicId,
    pub(super) offset: Offset,
    pub(super) value: String,
}

/// What all producers were promised.
pub(super) type History = Arc<Mutex<Vec<Acked>>>;

/// How a producer wants its records acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    Leader,
    All,
}

/// One producer of one partition. That of a topic that is deleted now and then is not idempotent: what its batches
/// follow goes with the topic.
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) place: Place,
    pub(super) acks: Acks,
    pub(super) chance: Chance,
    pub(super) net: Arc<Net>,
    pub(super) live: Arc<Live>,
    pub(super) history: History,
    /// The latest leader epoch that it has seen.
    pub(super) epoch: LeaderEpoch,
    /// Its records come in transactions, which it ends itself.
    pub(super) transactional: bool,
}

/// Records of a transaction.
const TRANSACTION: i32 = 3;

impl Producer {
    /// Until it is told to stop, and then until its last record is acknowledged.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut sequence = 0;
        while !*stop.borrow() {
            let value = format!("{}-{sequence}", self.id);
            let delivered = self.deliver(&value, sequence, &stop).await;
            let Some((topic_id, offset)) = delivered else { return };
            if self.acks == Acks::All {
                self.chance.note(&format!("acked {} {sequence} at {offset} of {}", self.id, self.place));
                self.history.lock().push(Acked { place: self.place, topic_id, offset, value });
            }
            sequence += 1;
            if self.transactional && sequence % TRANSACTION == 0 {
                self.end_transaction().await;
            }
            sleep(self.chance.millis(2, 60)).await;
        }
    }

    /// Sends one record until it is acknowledged, as a client does that retries for ever. One that asks the leader
    /// alone may find what it sent before gone, and then ends, as a client that finds its sequence broken.
    async fn deliver(&mut self, value: &str, sequence: i32, stop: &watch::Receiver<bool>) -> Option<(TopicId, Offset)> {
        loop {
            match self.attempt(value, sequence).await {
                Ok(delivered) => return Some(delivered),
                Err(Failed::Broken(why)) if self.acks == Acks::All => {
                    panic!("producer {} of {}: {why}", self.id, self.place)
                }
                Err(Failed::Broken(_)) => return None,
                // Its topic may be gone for good.
                Err(Failed::Again) if *stop.borrow() && (self.acks == Acks::Leader || !self.is_idempotent()) => {
                    return None;
                }
                Err(Failed::Again) => sleep(self.chance.millis(5, 100)).await,
            }
        }
    }

    /// As its coordinator does, until the marker is acknowledged.
    async fn end_transaction(&mut self) {
        let result = if self.chance.one_in(2) { TransactionResult::Commit } else { TransactionResult::Abort };
        let (producer_id, producer_epoch) = (ProducerId(self.id), ProducerEpoch(0));
        let marker = TransactionMarker { producer_id, producer_epoch, coordinator_epoch: 0, result };
        while self.send(What::Marker(marker)).await.is_err() {
            sleep(self.chance.millis(5, 100)).await;
        }
        self.chance.note(&format!("{result:?} {}", self.id));
    }

    fn is_idempotent(&self) -> bool {
        self.place.topic != COMES
    }

    async fn attempt(&mut self, value: &str, sequence: i32) -> Result<(TopicId, Offset), Failed> {
        let mut builder = BatchBuilder::new();
        if self.is_idempotent() {
            builder = builder.producer(ProducerId(self.id), ProducerEpoch(0), sequence);
        }
        if self.transactional {
            builder = builder.transactional();
        }
        builder.append(0, None, Some(value.as_bytes()));
        self.send(What::Batch(builder.finish())).await
    }

    async fn send(&mut self, what: What) -> Result<(TopicId, Offset), Failed> {
        let (leader, epoch) = self.live.leader(self.place, &self.chance).ok_or(Failed::Again)?;
        if epoch < self.epoch && self.is_idempotent() {
            // As clients do since KIP-320: what is older than what they have seen is no news.
            return Err(Failed::Again);
        }
        self.epoch = epoch;
        let (acks, place, transactional) = (self.acks, self.place, self.transactional);
        let (id, producer_epoch) = (ProducerId(self.id), ProducerEpoch(0));
        let append = async move |ends: Ends| {
            let partition = ends.replicas.get(place.topic, place.index).ok_or(Failed::Again)?;
            let topic_id = partition.id.topic_id;
            let (completion, acked) = Completion::new(1);
            let ack = Ack::new(&completion, 0);
            drop(completion);
            let ack = if acks == Acks::All { AckAt::HighWatermark(ack) } else { AckAt::Written(ack) };
            let appended = match what {
                What::Batch(batch) => {
                    let guard = if transactional { partition.begin_verification(id, producer_epoch) } else { None };
                    partition.append(batch, ack, None, guard, 0)
                }
                What::Marker(marker) => partition.append_marker(&marker, ack, None, 0),
            };
            let appended = match appended {
                Ok(accepted) => accepted.appended,
                Err(AppendRefused::Log(why)) => return Err(Failed::Broken(why.to_string())),
                Err(_) => return Err(Failed::Again),
            };
            match acked.all().await.remove(0) {
                Ok(()) => Ok((topic_id, appended.base_offset)),
                Err(_) => Err(Failed::Again),
            }
        };
        let call = self.net.call("P", BrokerId(100 + self.id as i32), leader, |ends| Box::pin(append(ends)));
        match timeout(Duration::from_secs(3), call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failed::Again),
        }
    }
}

/// What a producer sends, or its coordinator.
enum What {
    Batch(ValidBatch),
    Marker(TransactionMarker),
}

/// Why a record was not acknowledged.
#[derive(Debug)]
enum Failed {
    Again,
    /// The log does not have what was acknowledged before.
    Broken(String),
}
