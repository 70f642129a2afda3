//! Idempotent producers, and what they were promised.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::cluster::{Live, TOPIC};
use super::net::{Ends, Net};
use crate::record::BatchBuilder;
use crate::replica::ack::{Ack, Completion};
use crate::replica::partition::{AckAt, AppendRefused};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId};

/// A record that was acknowledged by all: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) partition: PartitionIndex,
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

/// One producer of one partition.
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) partition: PartitionIndex,
    pub(super) acks: Acks,
    pub(super) chance: Chance,
    pub(super) net: Arc<Net>,
    pub(super) live: Arc<Live>,
    pub(super) history: History,
    /// The latest leader epoch that it has seen.
    pub(super) epoch: LeaderEpoch,
}

impl Producer {
    /// Until it is told to stop, and then until its last record is acknowledged.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut sequence = 0;
        while !*stop.borrow() {
            let value = format!("{}-{sequence}", self.id);
            let offset = self.deliver(&value, sequence, &stop).await;
            let Some(offset) = offset else { return };
            if self.acks == Acks::All {
                self.chance.note(&format!("acked {} {sequence} at {offset} of {}", self.id, self.partition));
                self.history.lock().push(Acked { partition: self.partition, offset, value });
            }
            sequence += 1;
            sleep(self.chance.millis(2, 60)).await;
        }
    }

    /// Sends one record until it is acknowledged, as a client does that retries for ever. One that asks the leader
    /// alone may find what it sent before gone, and then ends, as a client that finds its sequence broken.
    async fn deliver(&mut self, value: &str, sequence: i32, stop: &watch::Receiver<bool>) -> Option<Offset> {
        loop {
            match self.attempt(value, sequence).await {
                Ok(offset) => return Some(offset),
                Err(Failed::Broken(why)) if self.acks == Acks::All => {
                    panic!("producer {} of partition {}: {why}", self.id, self.partition)
                }
                Err(Failed::Broken(_)) => return None,
                Err(Failed::Again) if *stop.borrow() && self.acks == Acks::Leader => return None,
                Err(Failed::Again) => sleep(self.chance.millis(5, 100)).await,
            }
        }
    }

    async fn attempt(&mut self, value: &str, sequence: i32) -> Result<Offset, Failed> {
        let (leader, epoch) = self.live.leader(self.partition, &self.chance).ok_or(Failed::Again)?;
        if epoch < self.epoch {
            // As clients do since KIP-320: what is older than what they have seen is no news.
            return Err(Failed::Again);
        }
        self.epoch = epoch;
        let mut builder = BatchBuilder::new().producer(ProducerId(self.id), ProducerEpoch(0), sequence);
        builder.append(0, None, Some(value.as_bytes()));
        let (batch, acks, partition) = (builder.finish(), self.acks, self.partition);
        let append = async move |ends: Ends| {
            let partition = ends.replicas.get(TOPIC, partition).ok_or(Failed::Again)?;
            let (completion, acked) = Completion::new(1);
            let ack = Ack::new(&completion, 0);
            drop(completion);
            let ack = if acks == Acks::All { AckAt::HighWatermark(ack) } else { AckAt::Written(ack) };
            let appended = match partition.append(batch, ack, None, None, 0) {
                Ok(accepted) => accepted.appended,
                Err(AppendRefused::Log(why)) => return Err(Failed::Broken(why.to_string())),
                Err(_) => return Err(Failed::Again),
            };
            match acked.all().await.remove(0) {
                Ok(()) => Ok(appended.base_offset),
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

/// Why a record was not acknowledged.
#[derive(Debug)]
enum Failed {
    Again,
    /// The log does not have what was acknowledged before.
    Broken(String),
}
