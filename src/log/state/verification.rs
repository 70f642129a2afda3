//! Verifications under way: that a producer's transaction may begin in this partition is asked of its coordinator, and
//! the answer must not outlive a marker that comes meanwhile. So each begins with a guard, which a marker withdraws.
//!
//! Source: Kafka 3.9 `VerificationGuard`, `VerificationStateEntry`, `ProducerStateManager`. Deviation: the number is
//! bounded; what was begun first goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixMs;
use crate::types::limits::VERIFICATIONS_PER_PARTITION_MAX;
use crate::types::{ProducerId, TransactionGuard};

/// Over all logs, because a log may be opened anew while a request holds a guard of the one before.
static NEXT_GUARD: AtomicU64 = AtomicU64::new(1);

/// The guards of one log that are good.
#[derive(Debug, Default)]
pub(in crate::log) struct Verifications {
    by_producer: HashMap<ProducerId, Verification>,
    by_guard: BTreeMap<u64, ProducerId>,
}

#[derive(Debug, Clone, Copy)]
struct Verification {
    guard: TransactionGuard,
    /// When expiry first saw it; `None`: not since it was last asked for.
    seen_ms: Option<UnixMs>,
}

impl Verifications {
    /// The producer's guard, made if there is none.
    pub(in crate::log) fn begin(&mut self, id: ProducerId) -> TransactionGuard {
        if let Some(known) = self.by_producer.get_mut(&id) {
            known.seen_ms = None;
            return known.guard;
        }
        if self.by_producer.len() >= VERIFICATIONS_PER_PARTITION_MAX
            && let Some((_, oldest)) = self.by_guard.pop_first()
        {
            self.by_producer.remove(&oldest);
        }
        let guard = TransactionGuard(NEXT_GUARD.fetch_add(1, Ordering::Relaxed));
        self.by_producer.insert(id, Verification { guard, seen_ms: None });
        self.by_guard.insert(guard.0, id);
        guard
    }

    pub(in crate::log) fn holds(&self, id: ProducerId, guard: TransactionGuard) -> bool {
        self.by_producer.get(&id).is_some_and(|known| known.guard == guard)
    }

    /// Withdraws the producer's guard.
    pub(in crate::log) fn end(&mut self, id: ProducerId) {
        if let Some(known) = self.by_producer.remove(&id) {
            self.by_guard.remove(&known.guard.0);
        }
    }

    /// Forgets those that were not asked for in `expiration_ms`.
    pub(in crate::log) fn expire(&mut self, now: UnixMs, expiration_ms: i64) {
        let by_guard = &mut self.by_guard;
        self.by_producer.retain(|_, known| {
            let seen_ms = *known.seen_ms.get_or_insert(now);
            let kept = now.saturating_sub(seen_ms) < expiration_ms;
            if !kept {
                by_guard.remove(&known.guard.0);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_the_same_until_it_is_withdrawn() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(ProducerId(1));
        assert_eq!(verifications.begin(ProducerId(1)), guard);
        assert!(verifications.holds(ProducerId(1), guard) && !verifications.holds(ProducerId(2), guard));
        verifications.end(ProducerId(1));
        assert!(!verifications.holds(ProducerId(1), guard));
        assert_ne!(verifications.begin(ProducerId(1)), guard);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_the_silent_when_they_expire() {
        let mut verifications = Verifications::default();
        let first = verifications.begin(ProducerId(-1));
        for id in 0..VERIFICATIONS_PER_PARTITION_MAX as i64 {
            verifications.begin(ProducerId(id));
        }
        assert!(!verifications.holds(ProducerId(-1), first));
        verifications.expire(1000, 50);
        verifications.expire(1049, 50);
        let asked_again = verifications.begin(ProducerId(7));
        verifications.expire(1050, 50);
        assert!(verifications.holds(ProducerId(7), asked_again));
        assert_eq!((verifications.by_producer.len(), verifications.by_guard.len()), (1, 1));
    }
}
