//! What each idempotent producer wrote last to one partition, and its open transaction: recognises duplicates, refuses
//! gaps, and says which transactions a marker ends.
//!
//! Pure: the log asks [`ProducerStates::check`] before it gives offsets and tells [`ProducerStates::record`] after.
//! State is a function of the log: the side records hold it up to the checkpoint, batch headers from there on.
//! Source: Kafka 3.9 `ProducerStateManager`, `ProducerAppendInfo`, `ProducerStateEntry`. Deviation: a producer expires
//! by the time of its last append, not by the timestamps that its records claim.

use std::collections::{HashMap, HashSet};

use crate::clock::UnixMs;
use crate::log::state::aborted::AbortedTransaction;
use crate::log::state::append_error::AppendError;
use crate::log::state::undecided::UndecidedTransactions;
use crate::record::BatchHeader;
use crate::record::batch::{NO_SEQUENCE, add_sequence};
use crate::types::limits::PRODUCER_BATCHES_REMEMBERED;
use crate::types::{Offset, ProducerEpoch, ProducerId, TransactionMarker, TransactionResult};

/// One remembered batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchMeta {
    pub(crate) last_sequence: i32,
    /// Inclusive.
    pub(crate) last_offset: Offset,
    /// Last offset minus base offset.
    pub(crate) offset_delta: i32,
    /// The batch's largest timestamp; its append time under LogAppendTime.
    pub(crate) timestamp: UnixMs,
}

impl BatchMeta {
    pub(crate) fn base_offset(&self) -> Offset {
        self.last_offset + -i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        add_sequence(self.last_sequence, -self.offset_delta)
    }
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: ProducerEpoch,
    /// Coordinator epoch of its last transaction marker; −1: none.
    pub(crate) coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub(crate) open_transaction: Option<Offset>,
    /// Offset of its last transaction marker, so that a cut that takes it away is noticed.
    pub(crate) last_marker: Option<Offset>,
    /// When it last appended, for expiry.
    pub(crate) last_seen_ms: UnixMs,
    /// Oldest first; the first `count` are meant.
    batches: [BatchMeta; PRODUCER_BATCHES_REMEMBERED],
    count: u8,
    /// Changed since its side record was written.
    dirty: bool,
}

impl ProducerEntry {
    pub(crate) fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            open_transaction: None,
            last_marker: None,
            last_seen_ms: 0,
            batches: Default::default(),
            count: 0,
            dirty: false,
        }
    }

    /// The remembered batches, oldest first.
    pub(crate) fn batches(&self) -> &[BatchMeta] {
        &self.batches[..usize::from(self.count)]
    }

    /// Remembers a batch and forgets the oldest if there are too many.
    pub(crate) fn push(&mut self, batch: BatchMeta) {
        if usize::from(self.count) == PRODUCER_BATCHES_REMEMBERED {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = batch;
        self.count += 1;
    }

    fn last(&self) -> Option<&BatchMeta> {
        self.batches().last()
    }

    /// Takes a batch's or marker's epoch; another one than before forgets the batches.
    fn take_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }

    fn has_ongoing_transaction(&self, epoch: ProducerEpoch) -> bool {
        self.open_transaction.is_some() && self.epoch == epoch
    }

    /// Whether the two say the same of the producer, whenever it was.
    fn is_as(&self, other: &Self) -> bool {
        let Self {
            epoch,
            coordinator_epoch,
            open_transaction,
            last_marker,
            last_seen_ms: _,
            batches: _,
            count: _,
            dirty: _,
        } = self;
        (*epoch, *coordinator_epoch, *open_transaction, *last_marker)
            == (other.epoch, other.coordinator_epoch, other.open_transaction, other.last_marker)
            && self.batches() == other.batches()
    }

    fn reaches(&self, log_end: Offset) -> bool {
        self.last().is_some_and(|last| last.last_offset >= log_end) || self.last_marker >= Some(log_end)
    }
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActiveProducer {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// −1: none is known.
    pub(crate) last_sequence: i32,
    pub(crate) last_seen_ms: UnixMs,
    /// −1: it never ended a transaction.
    pub(crate) coordinator_epoch: i32,
    pub(crate) open_transaction: Option<Offset>,
}

/// What [`ProducerStates::check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Checked {
    /// The next batch of this producer, or a batch without producer.
    New,
    /// One of the remembered batches again.
    Duplicate(BatchMeta),
}

/// The producers of one partition.
#[derive(Debug, Default, Clone)]
pub(in crate::log) struct ProducerStates {
    entries: HashMap<ProducerId, ProducerEntry>,
    /// Whose side record is out of date.
    dirty: Vec<ProducerId>,
    transactions: UndecidedTransactions,
}

impl ProducerStates {
    /// Checks epoch and sequence of a client's batch, and the epoch alone of a coordinator's, which has no sequence.
    /// Nothing changes. `verified`: a coordinator has said that the producer's transaction includes this partition.
    ///
    /// A producer of which nothing is known may begin with any sequence. `log_end` is for the text of an error.
    /// Source: Kafka `UnifiedLog.analyzeAndValidateProducerState`, `ProducerAppendInfo.appendDataBatch`.
    pub(in crate::log) fn check(
        &self,
        batch: &BatchHeader,
        verified: impl FnOnce() -> bool,
        log_end: Offset,
    ) -> Result<Checked, AppendError> {
        if !batch.has_producer_id() {
            return Ok(Checked::New);
        }
        let entry = self.entries.get(&batch.producer_id);
        let from_client = batch.base_sequence != NO_SEQUENCE;
        if from_client && let Some(original) = entry.and_then(|entry| duplicate(entry, batch)) {
            return Ok(Checked::Duplicate(original));
        }
        let ongoing = || entry.is_some_and(|entry| entry.has_ongoing_transaction(batch.producer_epoch));
        if batch.is_transactional() && !ongoing() && !verified() {
            return Err(AppendError::InvalidTxnState { producer_id: batch.producer_id });
        }
        let Some(entry) = entry else { return Ok(Checked::New) };
        check_epoch(entry, batch.producer_id, batch.producer_epoch)?;
        if from_client {
            check_sequence(entry, batch)?;
        }
        if entry.open_transaction.is_some() && !batch.is_transactional() {
            return Err(AppendError::TransactionalExpected { producer_id: batch.producer_id, offset: log_end });
        }
        Ok(Checked::New)
    }

    /// Whether batches of this epoch join a transaction that is open.
    /// Source: Kafka 3.9 `UnifiedLog.hasOngoingTransaction`.
    pub(in crate::log) fn has_ongoing_transaction(&self, id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.has_ongoing_transaction(epoch))
    }

    /// Checks the epochs of a marker. Source: Kafka `ProducerAppendInfo.appendEndTxnMarker`.
    pub(in crate::log) fn check_marker(&self, marker: &TransactionMarker) -> Result<(), AppendError> {
        let Some(entry) = self.entries.get(&marker.producer_id) else { return Ok(()) };
        check_epoch(entry, marker.producer_id, marker.producer_epoch)?;
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return Err(AppendError::TransactionCoordinatorFenced {
                producer_id: marker.producer_id,
                got: marker.coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Notes a batch that took its offsets (or, at open, was found in the log). `now` counts for expiry.
    pub(in crate::log) fn record(&mut self, batch: &BatchHeader, last_offset: Offset, timestamp: UnixMs, now: UnixMs) {
        if !batch.has_producer_id() || batch.is_control() {
            return;
        }
        let entry = self.entries.entry(batch.producer_id).or_insert_with(|| ProducerEntry::new(batch.producer_epoch));
        entry.take_epoch(batch.producer_epoch);
        entry.last_seen_ms = now;
        if batch.is_transactional() && entry.open_transaction.is_none() {
            let first = last_offset + -i64::from(batch.last_offset_delta);
            entry.open_transaction = Some(first);
            self.transactions.begin(first);
        }
        entry.push(BatchMeta {
            last_sequence: batch.last_sequence(),
            last_offset,
            offset_delta: batch.last_offset_delta,
            timestamp,
        });
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(batch.producer_id);
        }
    }

    /// Notes a marker that took its offset (or, at open, was found in the log). Returns what it aborted, if there was
    /// anything. Source: Kafka `ProducerAppendInfo.appendEndTxnMarker`, `ProducerStateManager.lastStableOffset`.
    pub(in crate::log) fn record_marker(
        &mut self,
        marker: &TransactionMarker,
        offset: Offset,
        now: UnixMs,
    ) -> Option<AbortedTransaction> {
        let id = marker.producer_id;
        let entry = self.entries.entry(id).or_insert_with(|| ProducerEntry::new(marker.producer_epoch));
        entry.take_epoch(marker.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_marker = Some(offset);
        entry.last_seen_ms = now;
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(id);
        }
        let first_offset = entry.open_transaction.take()?;
        let last_stable_offset = self.transactions.end(first_offset, offset);
        let aborted = AbortedTransaction { producer_id: id, first_offset, last_offset: offset, last_stable_offset };
        (marker.result == TransactionResult::Abort).then_some(aborted)
    }

    /// The first offset that is not decided for readers of committed records.
    pub(in crate::log) fn first_unstable(&mut self, high_watermark: Offset) -> Option<Offset> {
        self.transactions.first_unstable(high_watermark)
    }

    /// First offsets, up to this one, of transactions that may not be decided for readers.
    pub(in crate::log) fn undecided_up_to(&self, offset: Offset) -> Vec<Offset> {
        self.transactions.undecided_up_to(offset)
    }

    /// Becomes what is known of the producers of another log with the same batches. What differs from before is to be
    /// recorded, but for when a producer was seen last; gives those that there are no more.
    pub(in crate::log) fn succeed(&mut self, other: &Self) -> Vec<ProducerId> {
        let before = std::mem::replace(self, other.clone());
        self.dirty.clear();
        for (id, entry) in &mut self.entries {
            let recorded = before.entries.get(id).is_some_and(|known| !known.dirty && known.is_as(entry));
            entry.dirty = !recorded;
            self.dirty.extend((!recorded).then_some(*id));
        }
        before.entries.into_keys().filter(|id| !self.entries.contains_key(id)).collect()
    }

    /// Takes over what a snapshot says of a producer, though its own record may say something else.
    pub(in crate::log) fn put_back(&mut self, id: ProducerId, mut entry: ProducerEntry) {
        entry.dirty = true;
        self.dirty.push(id);
        self.restore(id, entry);
    }

    /// Every producer, in no order.
    pub(in crate::log) fn all(&self) -> impl ExactSizeIterator<Item = (ProducerId, &ProducerEntry)> {
        self.entries.iter().map(|(&id, entry)| (id, entry))
    }

    /// Takes over what a side record says.
    pub(in crate::log) fn restore(&mut self, id: ProducerId, entry: ProducerEntry) {
        if let Some(first) = entry.open_transaction {
            self.transactions.begin(first);
        }
        self.entries.insert(id, entry);
    }

    /// Hands out every producer whose side record is out of date, once.
    pub(in crate::log) fn drain_dirty(&mut self, mut put: impl FnMut(ProducerId, &ProducerEntry)) {
        for id in self.dirty.drain(..) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.dirty = false;
                put(id, entry);
            }
        }
    }

    /// Whether a checkpoint has something to write about producers.
    pub(in crate::log) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Forgets producers that have not appended for `expiration_ms` and have no open transaction.
    pub(in crate::log) fn expire(&mut self, now: UnixMs, expiration_ms: i64, mut forgotten: impl FnMut(ProducerId)) {
        self.entries.retain(|&id, entry| {
            let expired = entry.open_transaction.is_none() && now.saturating_sub(entry.last_seen_ms) >= expiration_ms;
            if expired {
                forgotten(id);
            }
            !expired
        });
    }

    /// Forgets the producers that wrote something at or above `log_end`, and tells them: what that took the place of
    /// (an epoch, older batches, an open transaction) has to be read again.
    pub(in crate::log) fn truncate(&mut self, log_end: Offset) -> HashSet<ProducerId> {
        let mut lost = HashSet::new();
        self.entries.retain(|&id, entry| {
            let reaches = entry.reaches(log_end);
            if reaches {
                lost.insert(id);
            }
            !reaches
        });
        let open = self.entries.values().filter_map(|entry| entry.open_transaction);
        self.transactions.cut(log_end, open);
        lost
    }

    /// Every producer that is known.
    pub(in crate::log) fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.entries.iter().map(|(&id, entry)| ActiveProducer {
            id,
            epoch: entry.epoch,
            last_sequence: entry.last().map_or(NO_SEQUENCE, |last| last.last_sequence),
            last_seen_ms: entry.last_seen_ms,
            coordinator_epoch: entry.coordinator_epoch,
            open_transaction: entry.open_transaction,
        })
    }

    pub(in crate::log) fn contains(&self, id: ProducerId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Last offset of each producer, and its last marker: batches that compaction keeps, if need be empty, so that a
    /// replica can rebuild sequences and epochs from them.
    pub(in crate::log) fn last_offsets(&self) -> impl Iterator<Item = Offset> {
        let lasts = |entry: &ProducerEntry| [entry.last().map(|batch| batch.last_offset), entry.last_marker];
        self.entries.values().flat_map(lasts).flatten()
    }

    /// Every producer by its id, apart from what is yet to be recorded and from each replica's own clock.
    #[cfg(test)]
    pub(in crate::log) fn entries(&self) -> std::collections::BTreeMap<ProducerId, ProducerEntry> {
        self.entries
            .iter()
            .map(|(&id, entry)| {
                let mut entry = entry.clone();
                (entry.dirty, entry.last_seen_ms) = (false, 0);
                // What lies behind does not count.
                entry.batches[usize::from(entry.count)..].fill(BatchMeta::default());
                (id, entry)
            })
            .collect()
    }

    #[cfg(test)]
    pub(in crate::log) fn count(&self) -> usize {
        self.entries.len()
    }
}

/// The remembered batch that this one repeats. Source: Kafka `ProducerStateEntry.findDuplicateBatch`.
fn duplicate(entry: &ProducerEntry, batch: &BatchHeader) -> Option<BatchMeta> {
    if batch.producer_epoch != entry.epoch {
        return None;
    }
    let last_sequence = batch.last_sequence();
    let same = |seen: &&BatchMeta| seen.last_sequence == last_sequence && seen.base_sequence() == batch.base_sequence;
    entry.batches().iter().find(same).copied()
}

fn check_epoch(entry: &ProducerEntry, producer_id: ProducerId, got: ProducerEpoch) -> Result<(), AppendError> {
    if got < entry.epoch {
        return Err(AppendError::InvalidProducerEpoch { producer_id, got, current: entry.epoch });
    }
    Ok(())
}

/// Source: Kafka `ProducerAppendInfo.checkSequence`.
fn check_sequence(entry: &ProducerEntry, batch: &BatchHeader) -> Result<(), AppendError> {
    let refuse = |last_sequence| {
        Err(AppendError::OutOfOrderSequence {
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            got: batch.base_sequence,
            last_sequence,
        })
    };
    match entry.last() {
        _ if batch.producer_epoch != entry.epoch => match batch.base_sequence {
            0 => Ok(()),
            _ => refuse(None),
        },
        Some(last) if add_sequence(last.last_sequence, 1) != batch.base_sequence => refuse(Some(last.last_sequence)),
        // Its epoch is known from a transaction marker alone: it begins anew.
        None if batch.base_sequence != 0 => refuse(None),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::LeaderEpoch;

    /// Header of a batch of `count` records.
    pub(in crate::log) fn header(id: i64, epoch: i16, base_sequence: i32, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: 49,
            partition_leader_epoch: LeaderEpoch::NONE,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence,
            record_count: count,
        }
    }

    struct Log {
        states: ProducerStates,
        end: i64,
    }

    impl Log {
        fn append(&mut self, batch: BatchHeader) -> Result<i64, AppendError> {
            match self.states.check(&batch, || false, Offset(self.end))? {
                Checked::Duplicate(original) => Ok(original.base_offset().0),
                Checked::New => {
                    let base = self.end;
                    self.end += i64::from(batch.record_count);
                    self.states.record(&batch, Offset(self.end - 1), 0, 0);
                    Ok(base)
                }
            }
        }
    }

    fn log() -> Log {
        Log { states: ProducerStates::default(), end: 0 }
    }

    #[test]
    fn duplicate_sequence_returns_original_offset() {
        let mut log = log();
        for sequence in 0..6 {
            assert_eq!(log.append(header(1, 0, sequence * 2, 2)), Ok(i64::from(sequence) * 2));
        }
        for sequence in 1..6 {
            assert_eq!(log.append(header(1, 0, sequence * 2, 2)), Ok(i64::from(sequence) * 2));
        }
        assert!(matches!(log.append(header(1, 0, 0, 2)), Err(AppendError::OutOfOrderSequence { .. })), "the sixth");
        assert!(matches!(log.append(header(1, 0, 10, 1)), Err(AppendError::OutOfOrderSequence { .. })), "half of one");
    }

    #[test]
    fn a_gap_is_refused_and_an_unknown_producer_may_begin_anywhere() {
        let mut log = log();
        assert_eq!(log.append(header(1, 0, 17, 3)), Ok(0));
        assert!(matches!(
            log.append(header(1, 0, 21, 1)),
            Err(AppendError::OutOfOrderSequence { got: 21, last_sequence: Some(19), .. })
        ));
        assert_eq!(log.append(header(1, 0, 20, 1)), Ok(3));
    }

    #[test]
    fn a_new_epoch_begins_at_sequence_zero_and_an_older_one_is_fenced() {
        let mut log = log();
        log.append(header(1, 3, 0, 5)).expect("first");
        assert!(matches!(log.append(header(1, 4, 5, 1)), Err(AppendError::OutOfOrderSequence { .. })));
        assert_eq!(log.append(header(1, 4, 0, 1)), Ok(5));
        assert!(matches!(log.append(header(1, 3, 5, 1)), Err(AppendError::InvalidProducerEpoch { .. })));
        assert_eq!(log.append(header(1, 4, 0, 1)), Ok(5), "the old epoch's batches are no duplicates any more");
    }

    #[test]
    fn sequences_wrap_to_zero_after_their_maximum() {
        let mut log = log();
        assert_eq!(log.append(header(1, 0, i32::MAX - 1, 4)), Ok(0));
        assert_eq!(log.append(header(1, 0, 2, 1)), Ok(4));
        assert_eq!(log.append(header(1, 0, i32::MAX - 1, 4)), Ok(0), "a duplicate across the wrap");
        let mut log = self::log();
        assert_eq!(log.append(header(1, 0, i32::MAX, 1)), Ok(0));
        assert_eq!(log.append(header(1, 0, 0, 1)), Ok(1));
    }

    #[test]
    fn producers_expire_by_their_last_append() {
        let mut states = ProducerStates::default();
        states.record(&header(1, 0, 0, 1), Offset(0), 0, 1000);
        states.record(&header(2, 0, 0, 1), Offset(1), 0, 1500);
        let mut gone = Vec::new();
        states.expire(2000, 1000, |id| gone.push(id));
        assert_eq!(gone, [ProducerId(1)]);
        assert!(!states.contains(ProducerId(1)) && states.contains(ProducerId(2)));
    }

    #[test]
    fn a_cut_forgets_who_wrote_above_it() {
        let mut states = ProducerStates::default();
        for (sequence, offset) in [(0, 0), (1, 1), (2, 5)] {
            states.record(&header(1, 0, sequence, 1), Offset(offset), 0, 0);
        }
        states.record(&header(2, 0, 0, 1), Offset(4), 0, 0);
        states.record(&header(3, 0, 0, 1), Offset(1), 0, 0);
        assert_eq!(states.truncate(Offset(2)), [ProducerId(1), ProducerId(2)].into());
        assert!(!states.contains(ProducerId(1)) && states.contains(ProducerId(3)));
    }

    /// Keeps every batch of every producer and looks through them all.
    #[derive(Default)]
    struct Naive(HashMap<ProducerId, Vec<(i16, i32, i32, i64)>>, i64);

    impl Naive {
        fn append(&mut self, batch: &BatchHeader) -> Option<i64> {
            let seen = self.0.entry(batch.producer_id).or_default();
            let epoch = batch.producer_epoch.0;
            let (first, count) = (batch.base_sequence, batch.record_count);
            let current: Vec<_> = seen.iter().filter(|seen| seen.0 == epoch).copied().collect();
            let latest = seen.last().map(|last| last.0);
            let mut recent = current.iter().rev().take(if latest == Some(epoch) { 5 } else { 0 });
            if let Some(original) = recent.find(|seen| seen.1 == first && seen.2 == count) {
                return Some(original.3);
            }
            let next = current.last().map(|last| ((i64::from(last.1) + i64::from(last.2)) % (1 << 31)) as i32);
            let fits = match latest {
                None => true,
                Some(latest) if latest > epoch => false,
                Some(latest) if latest < epoch => first == 0,
                Some(_) => Some(first) == next,
            };
            let base = self.1;
            fits.then(|| {
                seen.push((epoch, first, count, base));
                self.1 += i64::from(count);
                base
            })
        }
    }

    #[test]
    fn agrees_with_a_naive_model() {
        let clock = crate::clock::testing::ManualClock::new(0, 42);
        let mut accepted = 0;
        for _ in 0..50 {
            let (mut log, mut naive) = (log(), Naive::default());
            for _ in 0..300 {
                let bits = crate::clock::Clock::random(&clock);
                let (id, epoch) = (bits as i64 & 1, (bits >> 8) as i16 & 1);
                let sequence = match (bits >> 16) & 7 {
                    0 => i32::MAX - ((bits >> 24) as i32 & 3),
                    _ => (bits >> 24) as i32 & 15,
                };
                let count = 1 + ((bits >> 32) as i32 & 1);
                let batch = header(id, epoch, sequence, count);
                let expected = naive.append(&batch);
                assert_eq!(log.append(batch).ok(), expected, "{batch:?}");
                accepted += usize::from(expected.is_some());
            }
        }
        assert!(accepted > 500, "the model must accept enough to mean something: {accepted}");
    }
}
