//! A shard while its log is read: each record is replayed on the thread that reads it.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use super::shard::Shard;
use super::writer::{Loaded, Visitor};

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Loading<S> {
    pub(super) shard: S,
    pub(super) records: u64,
    pub(super) skipped: u64,
}

impl<S: Shard> Loading<S> {
    pub(super) fn new(shard: S) -> Self {
        Self { shard, records: 0, skipped: 0 }
    }

    /// What the reading thread calls for each record, and what ends that.
    pub(super) fn visit(self) -> (AbandonLoad<S>, Visitor) {
        let loading = Arc::new(Mutex::new(Some(self)));
        let visited = loading.clone();
        let visit = move |found: Loaded| match &mut *visited.lock() {
            Some(loading) => {
                loading.replay(&found);
                ControlFlow::Continue(())
            }
            // This load was given up.
            None => ControlFlow::Break(()),
        };
        (AbandonLoad(loading), Box::new(visit))
    }

    fn replay(&mut self, found: &Loaded) {
        self.records += 1;
        let replayed = match found {
            Loaded::Record { producer_id: None, record, .. } => self.shard.replay(record),
            Loaded::Record { producer_id: Some(id), record, .. } => self.shard.replay_in_transaction(*id, record),
            Loaded::Marker(marker) => self.shard.replay_marker(marker),
        };
        if let Err(error) = replayed {
            self.skipped += 1;
            if self.skipped <= 10 {
                warn!(?found, %error, "a coordinator record is skipped");
            }
        }
    }
}

/// Takes the shard away from the reading thread when the load is given up, so that it stops at the next record.
pub(super) struct AbandonLoad<S>(Arc<Mutex<Option<Loading<S>>>>);

impl<S> AbandonLoad<S> {
    /// The log has been read.
    pub(super) fn done(self) -> Loading<S> {
        self.0.lock().take().expect("only this function takes it, and it takes the guard")
    }
}

impl<S> Drop for AbandonLoad<S> {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}
