//! The request bytes this broker may hold, `queued.max.request.bytes`, in two halves: one for requests that are being
//! answered, one for large frames that are still coming in. So slow senders, which fill only the second half, keep
//! nobody's whole request from being served, and small frames never wait for either.
//!
//! A large frame takes its whole size at once: whoever has room can be received to its end, and no two wait for each
//! other. While others wait for room a frame that comes too slowly loses it, and its connection.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::task::Counted;
use crate::types::limits::{CROWDED_FRAME_BYTES_PER_SECOND_MIN, CROWDED_FRAME_GRACE_SECONDS};
use crate::wire::frame::Room;

/// The budgets.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Budget>,
    receiving: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    released: Notify,
}

/// Bytes that count against a budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { requests: Budget::new(bytes_max / 2), receiving: Budget::new(bytes_max / 2) })
    }

    /// Waits until a request of this size may be answered. One larger than the budget is served alone.
    /// Cancellation-safe.
    pub(crate) async fn charge(&self, bytes: usize) -> Charge {
        self.requests.charge(bytes).await
    }

    /// The same without waiting.
    pub(crate) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        self.requests.try_charge(bytes)
    }

    /// For the frames of one connection.
    pub(crate) fn receiving(&self) -> Receiving {
        Receiving { budget: Arc::clone(&self.receiving), held: None }
    }
}

impl Budget {
    fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0), waiting: AtomicUsize::new(0), released: Notify::new() })
    }

    /// Waits until there is room, or nobody else holds any.
    async fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        if let Some(charge) = self.try_charge(bytes) {
            return charge;
        }
        let _waiting = Counted::new(&self.waiting);
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

    fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.try_take(bytes).then(|| Charge { budget: Arc::clone(self), bytes })
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
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.released.notify_waiters();
    }
}

/// The large frame that one connection receives, if it does.
#[derive(Debug)]
pub(crate) struct Receiving {
    budget: Arc<Budget>,
    held: Option<Box<Held>>,
}

#[derive(Debug)]
struct Held {
    _charge: Charge,
    /// When what came is judged next.
    judged_at: Instant,
    /// Bytes since it was judged last.
    bytes: u64,
}

impl Held {
    fn new(charge: Charge) -> Self {
        Self { _charge: charge, judged_at: Instant::now() + Self::GRACE, bytes: 0 }
    }

    const GRACE: Duration = Duration::from_secs(CROWDED_FRAME_GRACE_SECONDS);

    /// # Errors
    /// Others wait, and too little came.
    fn judge(&mut self, others_wait: bool) -> io::Result<()> {
        if others_wait && self.bytes < CROWDED_FRAME_GRACE_SECONDS * CROWDED_FRAME_BYTES_PER_SECOND_MIN {
            let reason = "a large frame comes too slowly while others wait for queued.max.request.bytes";
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        self.bytes = 0;
        self.judged_at = Instant::now() + Self::GRACE;
        Ok(())
    }
}

impl Receiving {
    /// Gives the room back: the frame is whole and counted elsewhere.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }
}

impl Room for Receiving {
    async fn hold(&mut self, bytes: usize) {
        if self.held.is_none() {
            let charge = self.budget.charge(bytes).await;
            self.held = Some(Box::new(Held::new(charge)));
        }
    }

    async fn read(&mut self, read: impl Future<Output = io::Result<usize>> + Send) -> io::Result<usize> {
        let Some(held) = &mut self.held else { return read.await };
        // On the heap: a connection that receives nothing large does not pay for it.
        Box::pin(read_or_give_way(&self.budget, held, read)).await
    }
}

async fn read_or_give_way(
    budget: &Budget,
    held: &mut Held,
    read: impl Future<Output = io::Result<usize>> + Send,
) -> io::Result<usize> {
    tokio::pin!(read);
    loop {
        tokio::select! {
            biased;
            // First, so that a trickle does not put it off.
            () = tokio::time::sleep_until(held.judged_at) => held.judge(budget.waiting.load(Ordering::Acquire) > 0)?,
            read = &mut read => {
                held.bytes += *read.as_ref().unwrap_or(&0) as u64;
                return read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_waits_until_the_budget_has_room() {
        let admission = Admission::new(200);
        let first = admission.charge(80).await;
        let mut second = Box::pin(admission.charge(30));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        let _second = second.await;
    }

    #[tokio::test]
    async fn a_frame_above_the_budget_is_served_alone() {
        let admission = Admission::new(200);
        let _large = admission.charge(1000).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_frame_gives_way_only_if_others_wait() {
        let admission = Admission::new(200);
        let (mut slow, mut waiter) = (admission.receiving(), admission.receiving());
        slow.hold(90).await;
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, slow.read(std::future::pending())).await.is_err(), "nobody waits");
        let _request = admission.try_charge(90).expect("whole requests have a budget of their own");
        let mut waiting = Box::pin(waiter.hold(90));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(slow.read(std::future::pending()).await.is_err());
        drop(slow);
        waiting.await;
    }
}
