//! Producer ids of this broker: taken one by one from blocks that the controller gives out.
//!
//! A call costs a round trip to the controller once per block, and usually not even then: the next block is fetched
//! when a tenth of the present one is left. An id is given out once, over restarts too, since every block is.
//! Source: Kafka 3.9 `RPCProducerIdManager`. Other than Kafka, a call that finds no block waits for one instead of
//! answering COORDINATOR_LOAD_IN_PROGRESS.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::control::{ControllerError, ControllerLink};
use super::registration::SharedBrokerEpoch;
use super::znodes::producer_ids::BLOCK_IDS;
use crate::task;
use crate::types::{BrokerId, ProducerId};

/// Ids left in a block when the next one is fetched.
const FETCH_AT_IDS: i64 = BLOCK_IDS / 10;

#[derive(Debug, Default)]
struct Blocks {
    current: Range<i64>,
    next: Option<Range<i64>>,
}

impl Blocks {
    fn take(&mut self) -> Option<i64> {
        if self.current.is_empty() {
            self.current = self.next.take()?;
        }
        self.current.next()
    }

    fn is_low(&self) -> bool {
        self.next.is_none() && self.current.end - self.current.start <= FETCH_AT_IDS
    }
}

/// Gives out producer ids.
#[derive(Debug)]
pub(crate) struct ProducerIds {
    broker: BrokerId,
    epoch: SharedBrokerEpoch,
    controller: Arc<dyn ControllerLink>,
    blocks: Mutex<Blocks>,
    /// One request for a block at a time.
    fetching: Semaphore,
}

impl ProducerIds {
    /// For `broker` under its registration of the moment.
    pub(crate) fn new(broker: BrokerId, epoch: SharedBrokerEpoch, controller: Arc<dyn ControllerLink>) -> Arc<Self> {
        Arc::new(Self { broker, epoch, controller, blocks: Mutex::default(), fetching: Semaphore::new(1) })
    }

    /// An id that no producer has or had.
    ///
    /// # Errors
    /// The controller gave no block; the caller may try again.
    pub(crate) async fn next(self: &Arc<Self>) -> Result<ProducerId, ControllerError> {
        loop {
            let (id, low) = {
                let mut blocks = self.blocks.lock();
                (blocks.take(), blocks.is_low())
            };
            let Some(id) = id else {
                self.fetch().await?;
                continue;
            };
            if low && self.fetching.available_permits() > 0 {
                let this = Arc::clone(self);
                task::spawn(async move {
                    if let Err(error) = this.fetch().await {
                        warn!(%error, "no further block of producer ids yet");
                    }
                });
            }
            return Ok(ProducerId(id));
        }
    }

    /// Fetches a block unless another call has done so while this one waited.
    async fn fetch(&self) -> Result<(), ControllerError> {
        let _alone = self.fetching.acquire().await.expect("the semaphore is never closed");
        if !self.blocks.lock().is_low() {
            return Ok(());
        }
        let block = self.controller.allocate_producer_ids(self.broker, self.epoch.get()).await?;
        debug!(?block, "a block of producer ids");
        let mut blocks = self.blocks.lock();
        match blocks.current.is_empty() {
            true => blocks.current = block,
            false => blocks.next = Some(block),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, join_all, ready};

    use super::*;
    use crate::types::BrokerEpoch;

    #[derive(Debug, Default)]
    struct Controller {
        blocks: AtomicI64,
    }

    impl ControllerLink for Controller {
        fn allocate_producer_ids(
            &self,
            _: BrokerId,
            _: BrokerEpoch,
        ) -> BoxFuture<'_, Result<Range<i64>, ControllerError>> {
            let start = self.blocks.fetch_add(1, Ordering::SeqCst) * BLOCK_IDS;
            ready(Ok(start..start + BLOCK_IDS)).boxed()
        }
    }

    #[tokio::test]
    async fn ids_never_repeat_and_blocks_are_fetched_once_each() {
        let controller = Arc::new(Controller::default());
        let ids = ProducerIds::new(BrokerId(1), SharedBrokerEpoch::default(), controller.clone());
        let mut seen = HashSet::new();
        for _ in 0..25 {
            for id in join_all((0..100).map(|_| ids.next())).await {
                assert!(seen.insert(id.unwrap()));
            }
            tokio::task::yield_now().await;
        }
        let blocks = controller.blocks.load(Ordering::SeqCst);
        assert!((3..=4).contains(&blocks), "{blocks}");
    }

    #[derive(Debug)]
    struct Nobody;

    impl ControllerLink for Nobody {
        fn allocate_producer_ids(
            &self,
            _: BrokerId,
            _: BrokerEpoch,
        ) -> BoxFuture<'_, Result<Range<i64>, ControllerError>> {
            ready(Err(ControllerError::NotController)).boxed()
        }
    }

    #[tokio::test]
    async fn without_a_controller_there_is_an_error() {
        assert_eq!(
            ProducerIds::new(BrokerId(1), SharedBrokerEpoch::default(), Arc::new(Nobody)).next().await,
            Err(ControllerError::NotController)
        );
    }
}
