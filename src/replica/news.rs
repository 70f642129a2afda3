//! What partitions tell the fetch sessions of their followers: that there is something to look at. So a fetch looks at
//! what has changed, whatever else its session holds.
//!
//! A partition sets the mark of each session that has it, after it has published what changed. A session takes a mark
//! back before it looks: what is published later sets it again, and nothing is missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::BrokerId;

/// What changed at a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The high watermark or the log start: followers are told, but nothing waits for it.
    Positions,
    /// Records, or the role: a fetch that waits must look.
    Look,
}

/// Marked partitions of one session, by their slots in it, and the fetch that may wait for them.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    marked: Mutex<Vec<usize>>,
    wake: Notify,
    /// The fetch that waits wants to hear of [`News::Positions`], too; the first of them takes this back.
    heeds_positions: AtomicBool,
}

impl Inbox {
    /// Slots that were marked since the last call.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.marked.lock())
    }

    /// Has the next news of any kind end [`Self::woken`].
    pub(crate) fn heed_positions(&self) {
        self.heeds_positions.store(true, Ordering::Release);
    }

    /// Has whoever waits look, or whoever does so next.
    pub(crate) fn pass_on(&self) {
        self.wake.notify_one();
    }

    /// Resolves when there is something that a fetch waits for, perhaps since before the call.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// One partition's way to tell one session.
#[derive(Debug)]
pub(crate) struct Mark {
    replica: BrokerId,
    inbox: Arc<Inbox>,
    slot: usize,
    is_set: AtomicBool,
}

impl Mark {
    /// Of the session of a replica, which has the partition in this slot.
    pub(crate) fn new(replica: BrokerId, inbox: Arc<Inbox>, slot: usize) -> Arc<Self> {
        Arc::new(Self { replica, inbox, slot, is_set: AtomicBool::new(false) })
    }

    fn set(&self, news: News) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.inbox.marked.lock().push(self.slot);
        }
        if news == News::Look || self.inbox.heeds_positions.swap(false, Ordering::AcqRel) {
            self.inbox.wake.notify_one();
        }
    }

    /// Before the partition is looked at.
    pub(crate) fn take_back(&self) {
        self.is_set.store(false, Ordering::Release);
    }
}

/// The sessions that have one partition, one for each replica.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    marks: Mutex<Vec<Arc<Mark>>>,
}

impl Sessions {
    /// From now on the session is told. An earlier one of the same replica is not any more: it was left behind, or has
    /// yet to forget the partition.
    pub(crate) fn join(&self, mark: &Arc<Mark>) {
        let mut marks = self.marks.lock();
        marks.retain(|other| other.replica != mark.replica);
        marks.push(Arc::clone(mark));
    }

    pub(crate) fn leave(&self, mark: &Arc<Mark>) {
        self.marks.lock().retain(|other| !Arc::ptr_eq(other, mark));
    }

    pub(crate) fn tell(&self, news: News) {
        for mark in self.marks.lock().iter() {
            mark.set(news);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.marks.lock().len()
    }
}

/// When the latest fetch of a session came, in milliseconds of the monotonic clock: it asked for all partitions of the
/// session once more, those that it does not name where it had asked for them before.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<AtomicI64>);

impl Pulse {
    pub(crate) fn new(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    pub(crate) fn beat(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Release);
    }

    pub(crate) fn last_ms(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

impl PartialEq for Pulse {
    /// Of the same session.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pulse {}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn mark(replica: i32, inbox: &Arc<Inbox>, slot: usize) -> Arc<Mark> {
        Mark::new(BrokerId(replica), Arc::clone(inbox), slot)
    }

    #[test]
    fn a_mark_is_set_once_until_it_is_taken_back() {
        let (inbox, sessions) = (Arc::<Inbox>::default(), Sessions::default());
        let mark = mark(2, &inbox, 7);
        sessions.join(&mark);
        sessions.tell(News::Positions);
        sessions.tell(News::Look);
        assert_eq!(inbox.take(), [7]);
        sessions.tell(News::Look);
        assert_eq!(inbox.take(), [0_usize; 0], "it has not been taken back");
        mark.take_back();
        sessions.tell(News::Look);
        assert_eq!(inbox.take(), [7]);
        sessions.leave(&mark);
        mark.take_back();
        sessions.tell(News::Look);
        assert_eq!(inbox.take(), [0_usize; 0]);
    }

    #[test]
    fn positions_wake_once_and_only_whoever_heeds_them() {
        let (inbox, sessions) = (Arc::<Inbox>::default(), Sessions::default());
        sessions.join(&mark(2, &inbox, 0));
        let woken = || inbox.woken().now_or_never().is_some();
        sessions.tell(News::Positions);
        assert!(!woken());
        inbox.heed_positions();
        sessions.tell(News::Positions);
        assert!(woken());
        sessions.tell(News::Positions);
        assert!(!woken(), "once");
        sessions.tell(News::Look);
        assert!(woken() && !woken());
    }

    #[test]
    fn a_replica_is_told_in_its_latest_session() {
        let (old, new, sessions) = (Arc::<Inbox>::default(), Arc::<Inbox>::default(), Sessions::default());
        let former = mark(2, &old, 0);
        sessions.join(&former);
        sessions.join(&mark(3, &old, 1));
        sessions.join(&mark(2, &new, 4));
        sessions.tell(News::Look);
        assert_eq!((old.take(), new.take(), sessions.len()), (vec![1], vec![4], 2));
        sessions.leave(&former);
        assert_eq!(sessions.len(), 2, "what was replaced has left already");
    }
}
