//! Blocks of producer ids: each is given out once, whatever fails.
//!
//! The block is on record before it is handed out; a block whose hand-out was lost is skipped for ever.
//! Source: Kafka 3.9 `KafkaController.processAllocateProducerIds`, `ZkProducerIdManager`.

use std::ops::Range;

use tracing::warn;

use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::control::ControllerError;
use crate::cluster::znodes::producer_ids;
use crate::coordination::{CoordinationError, CreateMode, Op};
use crate::types::{BrokerEpoch, BrokerId};

/// Attempts when another broker writes the node, which only a broker older than Kafka 3.0 does.
const ATTEMPTS_MAX: usize = 10;

impl Term {
    pub(super) async fn allocate_producer_ids(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<Result<Range<i64>, ControllerError>, Interrupted> {
        match self.context.brokers.get(&broker).map(|known| known.epoch) {
            Some(known) if known == epoch => {}
            Some(known) => {
                warn!(%broker, broker_epoch = %epoch, %known, "producer ids for another registration are refused");
                return Ok(Err(ControllerError::StaleBrokerEpoch));
            }
            None => {
                warn!(%broker, "producer ids for an unknown broker are refused");
                return Ok(Err(ControllerError::BrokerIdNotRegistered));
            }
        }
        for _ in 0..ATTEMPTS_MAX {
            let path = producer_ids::PATH.to_owned();
            let node = self.store.get(&path).await?;
            let last = match node.as_ref().map(|(data, _)| producer_ids::decode(data)).transpose() {
                Ok(last) => last.flatten(),
                Err(error) => return Ok(Err(ControllerError::Unavailable(error.to_string()))),
            };
            let Some(block) = producer_ids::next(last.as_ref()) else {
                return Ok(Err(ControllerError::Unavailable("all producer ids were given out".into())));
            };
            let data = producer_ids::encode(broker, &block);
            let op = match node {
                Some((_, stat)) => Op::Set { path, data, version: stat.version },
                None => Op::Create { path, data, mode: CreateMode::Persistent },
            };
            match self.fence.write(vec![op]).await {
                Ok(Ok(_)) => return Ok(Ok(block)),
                // Another broker was faster, or our own write came through although its answer was lost: the next block
                // then.
                Ok(Err(_)) | Err(Interrupted::Store(CoordinationError::Unknown(_))) => {}
                Err(interrupted) => return Err(interrupted),
            }
        }
        Ok(Err(ControllerError::Unavailable("the block of producer ids could not be written".into())))
    }
}
