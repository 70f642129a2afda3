//! The gate that clients wait at while a broker starts.
//!
//! Brokers of the cluster are answered from the first moment on, because what this broker has yet to learn they tell;
//! clients, once its image shows the whole cluster. A request that waits is not refused, so no client sees an error.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Closed until it is opened, once.
#[derive(Debug)]
pub(crate) struct Gate {
    open: AtomicBool,
    opened: watch::Sender<bool>,
    /// True, or gone, when the broker stops.
    stopping: watch::Receiver<bool>,
}

impl Gate {
    /// A closed one.
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self { open: AtomicBool::new(false), opened: watch::Sender::new(false), stopping }
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.opened.send_replace(true);
    }

    /// Waits until it is open. False: the broker stops before.
    pub(crate) async fn passed(&self) -> bool {
        if self.open.load(Ordering::Acquire) {
            return true;
        }
        let (mut opened, mut stopping) = (self.opened.subscribe(), self.stopping.clone());
        tokio::select! {
            biased;
            // The sender is this gate's.
            open = opened.wait_for(|open| *open) => open.is_ok(),
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn it_holds_until_it_opens_or_the_broker_stops() {
        let (stop, stopping) = watch::channel(false);
        let gate = Gate::new(stopping.clone());
        let mut waiting = Box::pin(gate.passed());
        assert!(poll!(&mut waiting).is_pending());
        gate.open();
        assert!(waiting.await && gate.passed().await);
        let never = Gate::new(stopping);
        let mut waiting = Box::pin(never.passed());
        assert!(poll!(&mut waiting).is_pending());
        stop.send_replace(true);
        assert!(!waiting.await);
        drop(stop);
        assert!(!never.passed().await, "a start that failed");
    }
}
