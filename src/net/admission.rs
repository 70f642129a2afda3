//! One budget for the request bytes this broker holds: a connection that would exceed it is not read until others are
//! answered. `queued.max.request.bytes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The budget.
#[derive(Debug)]
pub(crate) struct Admission {
    bytes_max: usize,
    used: AtomicUsize,
    released: Notify,
}

/// Bytes that count against the budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0), released: Notify::new() })
    }

    /// Waits until the budget has room, or nobody else holds any of it, so that one frame larger than the budget is
    /// still served alone. Cancellation-safe.
    pub(crate) async fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(charge) = self.try_charge(bytes) {
                return charge;
            }
            released.await;
        }
    }

    /// The same without waiting.
    pub(crate) fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.try_take(bytes).then(|| Charge { admission: Arc::clone(self), bytes })
    }

    fn try_take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used == 0 || used + bytes <= self.bytes_max).then_some(used + bytes)
            })
            .is_ok()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.admission.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.admission.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_waits_until_the_budget_has_room() {
        let admission = Admission::new(100);
        let first = admission.charge(80).await;
        let mut second = Box::pin(admission.charge(30));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        let _second = second.await;
    }

    #[tokio::test]
    async fn a_frame_above_the_budget_is_served_alone() {
        let admission = Admission::new(100);
        let _large = admission.charge(1000).await;
    }
}
