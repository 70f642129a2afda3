//! The request bytes this broker may hold, `queued.max.request.bytes`, in two halves: one for requests that are being
//! answered, one for large frames that are still coming in. So slow senders, which fill only the second half, keep no
//! whole request from being served, and small frames never wait for either.
//!
//! A large frame takes its whole size at once: one that has room can be received to its end, and no two wait for each
//! other. While others wait for room a frame that comes too slowly loses it, and its connection.
//!
//! Waiting connections get room in the order in which they came, and only the first is woken when some is released. So
//! that none waits long for the first: a request gets room as long as there is any, so the last may take more than was
//! left; a request may be parked for minutes, and the whole half free never. The same holds for a frame above the whole
//! half that is to come in, while those that fit into it have to fit into what is left: a frame that is received makes
//! room within a bounded time. A connection that writes a reply which its client does not take does nothing else, so it
//! gives up its place meanwhile. Source of the first rule: Kafka 3.9 `SimpleMemoryPool.tryAllocate`, as `SocketServer`
//! makes it (not strict).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
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
    /// Whether the last may take more than is left, whatever its size.
    any_room: bool,
    used: AtomicUsize,
    waiting: AtomicUsize,
    /// Held by the first in the queue for room; fair.
    head: Semaphore,
    /// Wakes the first in the queue.
    released: Notify,
}

/// Bytes that count against a budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

/// A charge that is waited for. It keeps its place as long as it is kept, whether it is polled or not.
pub(crate) type Charging = Pin<Box<dyn Future<Output = Charge> + Send>>;

impl Admission {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let (requests, receiving) = (Budget::new(bytes_max / 2, true), Budget::new(bytes_max / 2, false));
        Arc::new(Self { requests, receiving })
    }

    /// Waits until a request of this size may be answered.
    pub(crate) fn charge(&self, bytes: usize) -> Charging {
        Box::pin(Arc::clone(&self.requests).charge(bytes))
    }

    /// The same without waiting; `None` also where others wait.
    pub(crate) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        self.requests.try_charge(bytes)
    }

    /// For the frames of one connection.
    pub(crate) fn receiving(&self) -> Receiving {
        Receiving { budget: Arc::clone(&self.receiving), held: None, waiting: None }
    }
}

impl Budget {
    fn new(bytes_max: usize, any_room: bool) -> Arc<Self> {
        let (used, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { bytes_max, any_room, used, waiting, head: Semaphore::new(1), released: Notify::new() })
    }

    fn admits(&self, used: usize, bytes: usize) -> bool {
        let fits = bytes <= self.bytes_max.saturating_sub(used);
        let any = used < self.bytes_max && (self.any_room || bytes > self.bytes_max);
        fits || any || used == 0
    }

    async fn charge(self: Arc<Self>, bytes: usize) -> Charge {
        if let Some(charge) = self.try_charge(bytes) {
            return charge;
        }
        let _waiting = Counted::new(&self.waiting);
        let _head = self.head.acquire().await.expect("the semaphore is never closed");
        // It is counted as waiting, so it finds what was released before or is woken by what is released after.
        while !self.try_take(bytes) {
            self.released.notified().await;
        }
        Charge { budget: Arc::clone(&self), bytes }
    }

    /// The room, if there is some and no connection waits for it.
    fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let free = self.waiting.load(Ordering::SeqCst) == 0 && self.try_take(bytes);
        free.then(|| Charge { budget: Arc::clone(self), bytes })
    }

    fn try_take(&self, bytes: usize) -> bool {
        let taken = |used| self.admits(used, bytes).then_some(used + bytes);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken).is_ok()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.budget.waiting.load(Ordering::SeqCst) > 0 {
            // Kept for the next first in the queue, if there is none yet.
            self.budget.released.notify_one();
        }
    }
}

/// The large frame that one connection receives, if it does.
#[derive(Debug)]
pub(crate) struct Receiving {
    budget: Arc<Budget>,
    held: Option<Box<Held>>,
    /// The place of a frame that has to wait: it outlives the read that began to wait, which a connection gives up for
    /// anything else that it has to do.
    waiting: Option<Waiting>,
}

struct Waiting(Charging);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
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

    /// Gives up the place of a frame that waits, so that no other waits for one whose connection is not read. It comes
    /// last when it asks again.
    pub(crate) fn step_back(&mut self) {
        self.waiting = None;
    }

    /// When a frame that has its room is to be judged, while its connection is not read; `None`: there is none.
    pub(crate) fn judged_at(&self) -> Option<Instant> {
        Some(self.held.as_ref()?.judged_at)
    }

    /// Judges that frame.
    ///
    /// # Errors
    /// Others wait for its room, and too little came.
    pub(crate) fn judge(&mut self) -> io::Result<()> {
        let others_wait = self.budget.waiting.load(Ordering::Acquire) > 0;
        self.held.as_mut().map_or(Ok(()), |held| held.judge(others_wait))
    }
}

impl Room for Receiving {
    async fn hold(&mut self, bytes: usize) {
        if self.held.is_some() {
            return;
        }
        let charge = match self.budget.try_charge(bytes).filter(|_| self.waiting.is_none()) {
            Some(charge) => charge,
            None => {
                let budget = &self.budget;
                let waiting = self.waiting.get_or_insert_with(|| Waiting(Box::pin(Arc::clone(budget).charge(bytes))));
                let charge = (&mut waiting.0).await;
                self.waiting = None;
                charge
            }
        };
        self.held = Some(Box::new(Held::new(charge)));
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
        let _second = admission.charge(30).await;
        let mut third = admission.charge(1);
        assert!(futures_util::poll!(&mut third).is_pending(), "the second took the last of it, and more");
        drop(first);
        let _third = third.await;
    }

    /// Issue 12, row 13: a frame above the half waited for a moment in which none was held, and never came first while
    /// others kept coming, or while one request was parked.
    #[tokio::test]
    async fn a_frame_above_the_budget_needs_any_room_and_takes_all() {
        let admission = Admission::new(200);
        let parked = admission.charge(40).await;
        let large = admission.charge(1000).await;
        let mut later = admission.charge(1);
        assert!(admission.try_charge(1).is_none() && futures_util::poll!(&mut later).is_pending());
        drop(parked);
        assert!(futures_util::poll!(&mut later).is_pending());
        drop(large);
        let _later = later.await;
        let unlimited = Admission::new(usize::MAX);
        let (_huge, _none) = (unlimited.charge(100 << 20).await, Admission::new(0).charge(1).await);
        assert!(unlimited.try_charge(1).is_some());
    }

    #[tokio::test]
    async fn what_comes_in_fits_what_is_left_or_is_above_the_whole() {
        let admission = Admission::new(200);
        let (mut holder, mut fitting, mut large) =
            (admission.receiving(), admission.receiving(), admission.receiving());
        holder.hold(90).await;
        assert!(futures_util::poll!(Box::pin(fitting.hold(90))).is_pending());
        fitting.step_back();
        large.hold(1000).await;
        drop(holder);
        assert!(futures_util::poll!(Box::pin(fitting.hold(90))).is_pending());
        drop(large);
        fitting.hold(90).await;
    }

    #[tokio::test]
    async fn who_waits_is_not_overtaken_by_those_who_come_later() {
        let admission = Admission::new(200);
        let held = admission.charge(100).await;
        let mut large = admission.charge(1000);
        assert!(futures_util::poll!(&mut large).is_pending());
        let mut behind = admission.charge(1);
        assert!(futures_util::poll!(&mut behind).is_pending());
        drop(held);
        assert!(admission.try_charge(1).is_none(), "others wait");
        assert!(futures_util::poll!(&mut behind).is_pending(), "and the first of them comes first");
        let large = large.await;
        assert!(futures_util::poll!(&mut behind).is_pending());
        drop(large);
        let _behind = behind.await;
    }

    /// A release woke every waiting connection, all but one of them for nothing.
    #[tokio::test]
    async fn a_release_wakes_the_first_alone() {
        let admission = Admission::new(200);
        let held = admission.charge(100).await;
        let mut waiting: Vec<_> = (0..100).map(|_| polled(admission.charge(100))).collect();
        assert!(waiting.iter_mut().all(|task| task.poll().is_none()));
        let woken = |waiting: &[Polled]| waiting.iter().filter(|task| task.is_woken()).count();
        drop(held);
        assert!(waiting[0].is_woken() && woken(&waiting) == 1);
        let charge = waiting[0].poll().expect("the first has the room");
        // The next one comes first, finds no room and waits for the release.
        assert!(waiting[1].is_woken() && waiting[1].poll().is_none() && woken(&waiting) == 0);
        drop(waiting.remove(1));
        assert!(waiting[1].is_woken() && woken(&waiting) == 1, "who gave up is passed over");
        drop(charge);
        let _charge = waiting[1].poll().expect("there is room");
    }

    /// A future with a waker that counts.
    struct Polled {
        charging: Charging,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn polled(charging: Charging) -> Polled {
        Polled { charging, woken: Arc::default() }
    }

    impl Polled {
        fn poll(&mut self) -> Option<Charge> {
            self.woken.0.store(false, Ordering::SeqCst);
            let waker = std::task::Waker::from(Arc::clone(&self.woken));
            match self.charging.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
                std::task::Poll::Ready(charge) => Some(charge),
                std::task::Poll::Pending => None,
            }
        }

        fn is_woken(&self) -> bool {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    /// A connection polls its read anew whenever it does anything else; its frame keeps its place all the same.
    #[tokio::test]
    async fn a_frame_that_is_received_keeps_its_place_when_its_read_is_polled_anew() {
        let admission = Admission::new(200);
        let (mut holder, mut first, mut second) = (admission.receiving(), admission.receiving(), admission.receiving());
        holder.hold(100).await;
        for _ in 0..2 {
            assert!(futures_util::poll!(Box::pin(first.hold(100))).is_pending());
        }
        let mut later = Box::pin(second.hold(100));
        assert!(futures_util::poll!(&mut later).is_pending());
        drop(holder);
        assert!(futures_util::poll!(&mut later).is_pending(), "it came second");
        first.hold(100).await;
        drop(first);
        later.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_frame_gives_way_only_if_others_wait() {
        let admission = Admission::new(200);
        let (mut slow, mut waiter) = (admission.receiving(), admission.receiving());
        slow.hold(100).await;
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, slow.read(std::future::pending())).await.is_err(), "nobody waits");
        let _request = admission.try_charge(90).expect("whole requests have a budget of their own");
        let mut waiting = Box::pin(waiter.hold(100));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(slow.read(std::future::pending()).await.is_err());
        drop(slow);
        waiting.await;
    }
}
