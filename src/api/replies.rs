//! Fetched records on their way to clients, over all connections: one budget of bytes, `klamm.reply.bytes`.
//!
//! - A reply counts with the bytes of its records that are held in memory, from before they are read until the socket
//!   has taken them. What is sent from its file is not held, and not counted. Those lent from the tail count as well:
//!   the tail turns while a slow client reads, and then the reply alone holds them.
//! - The first [`REPLY_BYTES_UNCOUNTED`] of a reply are free: they cost less than the kernel's buffers of the same
//!   socket, so a client that reads small replies never notices that others do not read theirs.
//! - A fetch takes a quarter of what is free at most, so replies get smaller while the budget fills. Only a batch that
//!   is larger than what was left waits, in the order of arrival; one larger than the whole budget is sent alone.
//! - While one waits, replies that their clients take too slowly give way, and with them their connections
//!   (`net::reply` judges the pace).
//! - Few fetches read from storage at a time: each may read one batch before it knows that there is no room for it.
//!
//! So what replies hold is bounded by the budget and 64 KiB per connection. Source: ours; Kafka answers from the page
//! cache and needs no such bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::task::{self, Counted};
use crate::types::limits::REPLY_BYTES_UNCOUNTED;

/// What the semaphore counts, in bytes: its counts are 32 bits wide.
const UNIT_BYTES: usize = 1 << 10;
/// Of what is free one reply may take this part.
const SHARE: usize = 4;
/// How often a waiting fetch asks another slow reply to give way.
const ASK_PERIOD: Duration = Duration::from_millis(100);

/// The budget.
#[derive(Debug)]
pub(crate) struct Replies {
    room: Arc<Semaphore>,
    units_max: u32,
    waiting: AtomicUsize,
    /// Asks one slow reply to give way, of those that listen the one that listens for the longest time.
    give_way: Notify,
    /// Places of those that read from storage.
    reading: Arc<Semaphore>,
    /// And of those that have what is sent brought into the page cache: they wait for the disk, mostly, and do not keep
    /// those from their places who do not.
    bringing: Arc<Semaphore>,
}

/// What one reply holds of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    replies: Arc<Replies>,
    /// `None`: nothing, because the reply is small.
    held: Option<OwnedSemaphorePermit>,
}

impl Replies {
    /// A budget of `bytes_max`; `reads_max` fetches read from storage at the same time, and as many replies are brought
    /// from the disk.
    pub(crate) fn new(bytes_max: u64, reads_max: usize) -> Arc<Self> {
        let units = (bytes_max / UNIT_BYTES as u64).clamp(1, u64::from(u32::MAX)) as u32;
        let units = units.min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX));
        let room = Arc::new(Semaphore::new(units as usize));
        let [reading, bringing] = [(); 2].map(|()| Arc::new(Semaphore::new(reads_max)));
        let (waiting, give_way) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { room, units_max: units, waiting, give_way, reading, bringing })
    }

    /// Room for a reply of up to `wanted` bytes, or for less. Never waits.
    pub(crate) fn claim(self: &Arc<Self>, wanted: usize) -> Claim {
        let units = self.units(wanted).min((self.room.available_permits() / SHARE) as u32);
        let counts = units as usize * UNIT_BYTES > REPLY_BYTES_UNCOUNTED;
        let held = if counts { Arc::clone(&self.room).try_acquire_many_owned(units).ok() } else { None };
        Claim { replies: Arc::clone(self), held }
    }

    /// Waits until there is room for `bytes`, or for as much as there is in all. Cancellation-safe.
    pub(crate) async fn claim_at_least(self: &Arc<Self>, bytes: usize) -> Claim {
        let room = Arc::clone(&self.room).acquire_many_owned(self.units(bytes));
        tokio::pin!(room);
        let _waiting = Counted::new(&self.waiting);
        loop {
            tokio::select! {
                biased;
                held = &mut room => {
                    return Claim { replies: Arc::clone(self), held: held.ok() };
                }
                () = self.ask() => {}
            }
        }
    }

    /// Waits until one more fetch may read from storage, and runs `work`, which does, on a thread that may block. The
    /// turn and what was claimed for it last as long as the reading does, also when the fetch is gone: a client that
    /// hangs up does not take the bound away from what is read for it.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        claim: Claim,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (T, Claim) {
        let permit = Arc::clone(&self.reading).acquire_owned().await.expect("never closed");
        task::blocking(move || {
            let read = work();
            drop(permit);
            (read, claim)
        })
        .await
    }

    async fn ask(&self) {
        self.give_way.notify_one();
        tokio::time::sleep(ASK_PERIOD).await;
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units_max)
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.room.available_permits() * UNIT_BYTES
    }
}

/// Reads from a file what a reply is about to send, on a thread that may block; for one with a claim in its turn.
pub(crate) fn read_cold<T: Send + 'static>(
    claim: Option<&Claim>,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let bringing = claim.map(|claim| Arc::clone(&claim.replies.bringing));
    async move {
        let permit = match bringing {
            Some(bringing) => Some(bringing.acquire_owned().await.expect("never closed")),
            None => None,
        };
        task::blocking(move || {
            let read = work();
            drop(permit);
            read
        })
        .await
    }
}

impl Claim {
    /// Holds nothing.
    pub(crate) fn nothing(replies: &Arc<Replies>) -> Self {
        Self { replies: Arc::clone(replies), held: None }
    }

    /// Bytes of records that the reply may have.
    pub(crate) fn bytes_max(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.num_permits() * UNIT_BYTES).max(REPLY_BYTES_UNCOUNTED)
    }

    /// Makes the claim fit a reply with so many bytes. False: there is no room for what that is more than was claimed.
    pub(crate) fn settle(&mut self, bytes: usize) -> bool {
        if bytes <= REPLY_BYTES_UNCOUNTED {
            self.held = None;
            return true;
        }
        let (units, has) =
            (self.replies.units(bytes) as usize, self.held.as_ref().map_or(0, |held| held.num_permits()));
        if units > has {
            let more = Arc::clone(&self.replies.room).try_acquire_many_owned((units - has) as u32);
            let Ok(more) = more else { return false };
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
        } else {
            self.keep(bytes);
        }
        true
    }

    /// Gives back what a reply does not need any more that has at most so many bytes still to be sent.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let units = self.replies.units(bytes) as usize;
        match &mut self.held {
            Some(_) if bytes <= REPLY_BYTES_UNCOUNTED => self.held = None,
            Some(held) => drop(held.split(held.num_permits().saturating_sub(units))),
            None => {}
        }
    }

    /// Resolves when another reply waits for room and this one shall give way; never for one that holds nothing.
    pub(crate) async fn asked_to_give_way(&self) {
        if self.held.is_none() {
            return std::future::pending().await;
        }
        loop {
            self.replies.give_way.notified().await;
            // Asked while no reply listened, and answered otherwise since.
            if self.replies.waiting.load(Ordering::Acquire) > 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    fn budget(bytes: usize) -> Arc<Replies> {
        Replies::new(bytes as u64, 1)
    }

    #[test]
    fn replies_get_smaller_while_the_budget_fills_and_small_ones_are_free() {
        let replies = budget(16 * MIB);
        let mut claims = Vec::new();
        while let claim = replies.claim(3 * MIB)
            && claim.held.is_some()
        {
            claims.push(claim);
        }
        let sizes: Vec<usize> = claims.iter().map(Claim::bytes_max).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] == 3 * MIB && sizes.len() > 10, "{sizes:?}");
        let free = replies.free_bytes();
        let mut small = replies.claim(3 * MIB);
        assert_eq!(small.bytes_max(), REPLY_BYTES_UNCOUNTED);
        assert!(small.settle(REPLY_BYTES_UNCOUNTED) && !small.settle(16 * MIB));
        assert_eq!(replies.free_bytes(), free);
        claims.clear();
        assert_eq!(replies.free_bytes(), 16 * MIB);
    }

    #[test]
    fn a_claim_holds_what_is_still_to_be_sent() {
        let replies = budget(16 * MIB);
        let mut claim = replies.claim(4 * MIB);
        for (bytes, free) in [(3 * MIB, 13 * MIB), (4 * MIB + 1, 12 * MIB - KIB)] {
            assert!(claim.settle(bytes));
            assert_eq!(replies.free_bytes(), free);
        }
        for (left, free) in [(9 * MIB, 12 * MIB - KIB), (100 * KIB, 16 * MIB - 100 * KIB), (MIB, 16 * MIB - 100 * KIB)]
        {
            claim.keep(left);
            assert_eq!(replies.free_bytes(), free);
        }
        claim.keep(KIB);
        assert_eq!(replies.free_bytes(), 16 * MIB, "the rest is small");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_has_a_slow_reply_give_way() {
        let replies = budget(4 * MIB);
        let mut slow = replies.claim_at_least(4 * MIB).await;
        assert!(slow.settle(4 * MIB));
        let waits = replies.claim_at_least(MIB);
        tokio::pin!(waits);
        tokio::select! {
            _ = &mut waits => panic!("there is no room"),
            () = slow.asked_to_give_way() => {}
        }
        drop(slow);
        assert_eq!(waits.await.bytes_max(), MIB);
        // The question that is left over from then asks nobody.
        let other = replies.claim(MIB);
        let asked = tokio::time::timeout(Duration::from_secs(60), other.asked_to_give_way()).await;
        assert!(asked.is_err());
    }

    #[tokio::test]
    async fn so_many_read_from_storage_at_a_time_also_when_their_clients_are_gone() {
        let replies = budget(4 * MIB);
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let claim = replies.claim(MIB);
        let claimed = claim.bytes_max();
        {
            let first = replies.read(claim, move || waits.recv().is_err());
            tokio::pin!(first);
            assert!(futures_util::poll!(&mut first).is_pending());
        }
        let second = replies.read(Claim::nothing(&replies), || 7);
        tokio::pin!(second);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(futures_util::poll!(&mut second).is_pending(), "the first still reads");
        assert_eq!(replies.free_bytes(), 4 * MIB - claimed, "and what it reads still counts");
        drop(go);
        assert_eq!(second.await.0, 7);
        while replies.free_bytes() < 4 * MIB {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_batch_above_the_budget_is_sent_alone() {
        let replies = budget(MIB);
        let other = replies.claim(MIB);
        assert!(!replies.claim(MIB).settle(10 * MIB));
        let alone = replies.claim_at_least(10 * MIB);
        tokio::pin!(alone);
        assert!(futures_util::poll!(&mut alone).is_pending());
        drop(other);
        assert!(alone.await.settle(10 * MIB));
    }
}
