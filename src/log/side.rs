//! Side records of one partition: their keys and their values, byte by byte. All integers are big-endian; every value
//! begins with a version byte.
//!
//! Keys are [`keys::side_prefix`] (topic id, partition), one tag byte, the tag's suffix:
//!
//! | tag | suffix | value after the version byte |
//! |---|---|---|
//! | 0x80 | `start` | log start offset i64 |
//! | 0x80 | `end` | log end offset i64, see below |
//! | 0x80 | `hwm` | high watermark i64: everything below was replicated, as far as this replica knew |
//! | 0x80 | `clean` | compaction: cleaned up to (exclusive) i64, earliest delete horizon i64 (`i64::MAX`: none) |
//! | 0x80 | `check` | a checkpoint |
//! | 0x81 | leader epoch i32 | its start offset i64 |
//! | 0x82 | running maximum timestamp i64, sign bit flipped, inverted | offset i64: no batch up to it is younger |
//! | 0x83 | producer id i64 | a producer |
//! | 0x84 | offset of the abort marker i64, producer id i64 | first offset i64, last stable offset i64 |
//! | 0x85 | base offset i64 | a closed virtual segment |
//! | 0x86 | offset i64 | every producer, as it was when the log ended there |
//!
//! - `end` was written by versions whose compaction removed the last batch, so that offsets never go back. It is read,
//!   and goes when a batch has taken that place again.
//! - Producer: epoch i16, coordinator epoch i32, first offset of the open transaction i64 (−1: none), last seen i64
//!   (ms), count u8, then per batch, oldest first: last sequence i32, last offset i64, offset delta i32, timestamp i64;
//!   then the offset of its last transaction marker i64 (−1, or left out: none).
//! - Every producer: for each its id i64, length u16, and a producer with its own version byte.
//! - Segment: end offset (exclusive) i64, bytes u64, largest timestamp i64, last offset of the batch that has it i64,
//!   first timestamp i64, created i64 (ms), last append i64 (ms).
//! - Checkpoint: log end i64, base offset of the active segment i64, then the active segment as above.
//!
//! The time index is inverted so that one forward seek finds the largest timestamp below a given one; its first record
//! is the youngest.
//!
//! **Checkpoints keep appends cheap.** Nothing here is written per batch: now and then ([`checkpoint_is_due`]) an
//! append carries the checkpoint, a time index record and the producers that wrote since. What lies behind the
//! checkpoint is rebuilt at open from the headers of the batches, which hold the same facts.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

use crate::log::state::aborted::AbortedTransaction;
use crate::log::state::producer_state::{BatchMeta, ProducerEntry};
use crate::log::state::segments::Segment;
use crate::storage::{PartitionId, keys};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes appended between two checkpoints of a partition at least, and batches. An open reads so much per partition.
const CHECKPOINT_BYTES_MIN: u64 = 64 << 10;
const CHECKPOINT_BATCHES_MIN: u64 = 4;
/// After so many bytes it is time, however few the batches.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;

/// Whether an append of so many bytes should carry a checkpoint, where there were so many, it included, since the last.
pub(super) fn checkpoint_is_due(unrecorded_bytes: u64, batch_bytes: u64) -> bool {
    let some_batches = CHECKPOINT_BATCHES_MIN.saturating_mul(batch_bytes);
    unrecorded_bytes >= some_batches.clamp(CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX)
}

const VERSION: u8 = 1;

const FACT: u8 = 0x80;
const EPOCH: u8 = 0x81;
const TIME: u8 = 0x82;
const PRODUCER: u8 = 0x83;
const ABORTED: u8 = 0x84;
const SEGMENT: u8 = 0x85;
const SNAPSHOT: u8 = 0x86;

/// Makes the keys of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct SideKeys {
    prefix: [u8; 20],
}

impl SideKeys {
    pub(super) fn new(id: &PartitionId) -> Self {
        Self { prefix: keys::side_prefix(id.topic_id, id.partition) }
    }

    fn key(&self, tag: u8, suffix: &[u8]) -> Bytes {
        let mut key = BytesMut::with_capacity(21 + suffix.len());
        key.put_slice(&self.prefix);
        key.put_u8(tag);
        key.put_slice(suffix);
        key.freeze()
    }

    pub(super) fn log_start(&self) -> Bytes {
        self.key(FACT, b"start")
    }

    pub(super) fn log_end(&self) -> Bytes {
        self.key(FACT, b"end")
    }

    pub(super) fn high_watermark(&self) -> Bytes {
        self.key(FACT, b"hwm")
    }

    pub(super) fn cleaned(&self) -> Bytes {
        self.key(FACT, b"clean")
    }

    pub(super) fn checkpoint(&self) -> Bytes {
        self.key(FACT, b"check")
    }

    pub(super) fn epoch(&self, epoch: LeaderEpoch) -> Bytes {
        self.key(EPOCH, &epoch.0.to_be_bytes())
    }

    pub(super) fn time(&self, timestamp: i64) -> Bytes {
        self.key(TIME, &(!(timestamp ^ i64::MIN)).to_be_bytes())
    }

    pub(super) fn producer(&self, id: ProducerId) -> Bytes {
        self.key(PRODUCER, &id.0.to_be_bytes())
    }

    pub(super) fn segment(&self, base_offset: Offset) -> Bytes {
        self.key(SEGMENT, &base_offset.0.to_be_bytes())
    }

    pub(super) fn aborted(&self, marker: Offset, id: ProducerId) -> Bytes {
        self.key(ABORTED, &[marker.0.to_be_bytes(), id.0.to_be_bytes()].concat())
    }

    pub(super) fn snapshot(&self, offset: Offset) -> Bytes {
        self.key(SNAPSHOT, &offset.0.to_be_bytes())
    }

    /// Snapshots of producers from when the log ended below `offset`.
    pub(super) fn snapshots_below(&self, offset: Offset) -> Range<Bytes> {
        self.key(SNAPSHOT, &[])..self.snapshot(offset)
    }

    /// Snapshots of producers from when the log ended at `offset` or beyond.
    pub(super) fn snapshots_from(&self, offset: Offset) -> Range<Bytes> {
        self.snapshot(offset)..self.key(SNAPSHOT + 1, &[])
    }

    /// Aborted transactions whose marker lies below `offset`.
    pub(super) fn aborted_below(&self, offset: Offset) -> Range<Bytes> {
        self.key(ABORTED, &[])..self.key(ABORTED, &offset.0.to_be_bytes())
    }

    /// Aborted transactions whose marker lies at or above `offset`.
    pub(super) fn aborted_from(&self, offset: Offset) -> Range<Bytes> {
        self.key(ABORTED, &offset.0.to_be_bytes())..self.key(SEGMENT, &[])
    }

    /// All side records of the log.
    pub(super) fn all(&self) -> Range<Bytes> {
        self.key(FACT, &[])..self.key(SNAPSHOT + 1, &[])
    }

    /// Facts and leader epochs.
    pub(super) fn facts_and_epochs(&self) -> Range<Bytes> {
        self.key(FACT, &[])..self.key(TIME, &[])
    }

    /// Producers, aborted transactions and segments.
    pub(super) fn producers_and_segments(&self) -> Range<Bytes> {
        self.key(PRODUCER, &[])..self.key(SEGMENT + 1, &[])
    }

    /// Time index records whose timestamp is at most this one, the youngest first.
    pub(super) fn times_up_to(&self, timestamp: i64) -> Range<Bytes> {
        self.time(timestamp)..self.key(PRODUCER, &[])
    }

    /// Time index records whose timestamp is this one or larger.
    pub(super) fn times_from(&self, timestamp: i64) -> Range<Bytes> {
        let end = timestamp.checked_sub(1).map_or_else(|| self.key(PRODUCER, &[]), |below| self.time(below));
        self.key(TIME, &[])..end
    }
}

/// One side record, read back.
#[derive(Debug)]
pub(super) enum SideRecord {
    LogStart(Offset),
    LogEnd(Offset),
    HighWatermark(Offset),
    Cleaned(Cleaned),
    Checkpoint(Checkpoint),
    Epoch(LeaderEpoch, Offset),
    /// The last offset up to which no batch is younger than the key says.
    Time(Offset),
    Producer(ProducerId, ProducerEntry),
    Aborted(AbortedTransaction),
    Segment(Segment),
}

/// How far compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cleaned {
    /// Exclusive.
    pub(super) up_to: Offset,
    /// When the first tombstone that was kept may go, in ms since 1970; `i64::MAX`: none is waiting.
    pub(super) delete_horizon_ms: i64,
}

impl Default for Cleaned {
    fn default() -> Self {
        Self { up_to: Offset::ZERO, delete_horizon_ms: i64::MAX }
    }
}

/// Everything about the batches below `log_end` is in side records; `active.end` is `log_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) active: Segment,
}

/// A side record that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSideRecord {
    #[error("a side record is cut short")]
    Short,
    #[error("a side record has the unknown version {0}")]
    Version(u8),
    #[error("a side record has the unknown key {0:02x?}")]
    Key(Vec<u8>),
}

impl From<TryGetError> for BadSideRecord {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

impl SideRecord {
    /// Reads a record by its whole key.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, BadSideRecord> {
        let unknown = || BadSideRecord::Key(key.to_vec());
        let (tag, suffix) = key.get(20..).and_then(<[u8]>::split_first).ok_or_else(unknown)?;
        let mut value = value;
        match value.try_get_u8()? {
            VERSION => {}
            version => return Err(BadSideRecord::Version(version)),
        }
        let (mut id, value) = (suffix, &mut value);
        Ok(match (*tag, suffix) {
            (FACT, b"start") => Self::LogStart(Offset(value.try_get_i64()?)),
            (FACT, b"end") => Self::LogEnd(Offset(value.try_get_i64()?)),
            (FACT, b"hwm") => Self::HighWatermark(Offset(value.try_get_i64()?)),
            (FACT, b"clean") => {
                Self::Cleaned(Cleaned { up_to: Offset(value.try_get_i64()?), delete_horizon_ms: value.try_get_i64()? })
            }
            (FACT, b"check") => {
                let log_end = Offset(value.try_get_i64()?);
                let base = Offset(value.try_get_i64()?);
                let active = Segment { end_offset: log_end, ..decode_segment(base, value)? };
                Self::Checkpoint(Checkpoint { active })
            }
            (EPOCH, _) => Self::Epoch(LeaderEpoch(id.try_get_i32()?), Offset(value.try_get_i64()?)),
            (TIME, _) => Self::Time(Offset(value.try_get_i64()?)),
            (PRODUCER, _) => Self::Producer(ProducerId(id.try_get_i64()?), decode_producer(value)?),
            (ABORTED, _) => Self::Aborted(AbortedTransaction {
                last_offset: Offset(id.try_get_i64()?),
                producer_id: ProducerId(id.try_get_i64()?),
                first_offset: Offset(value.try_get_i64()?),
                last_stable_offset: Offset(value.try_get_i64()?),
            }),
            (SEGMENT, _) => Self::Segment(decode_segment(Offset(id.try_get_i64()?), value)?),
            _ => return Err(unknown()),
        })
    }
}

/// Value of `start`, `end`, `hwm`, an epoch's start and a time index record.
pub(super) fn encode_offset(offset: Offset) -> Bytes {
    let mut value = BytesMut::with_capacity(9);
    value.put_u8(VERSION);
    value.put_i64(offset.0);
    value.freeze()
}

pub(super) fn encode_cleaned(cleaned: Cleaned) -> Bytes {
    let mut value = BytesMut::with_capacity(17);
    value.put_u8(VERSION);
    value.put_i64(cleaned.up_to.0);
    value.put_i64(cleaned.delete_horizon_ms);
    value.freeze()
}

pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> Bytes {
    let mut value = BytesMut::with_capacity(73);
    value.put_u8(VERSION);
    value.put_i64(checkpoint.active.end_offset.0);
    value.put_i64(checkpoint.active.base_offset.0);
    put_segment(&checkpoint.active, &mut value);
    value.freeze()
}

pub(super) fn encode_segment(segment: &Segment) -> Bytes {
    let mut value = BytesMut::with_capacity(57);
    value.put_u8(VERSION);
    put_segment(segment, &mut value);
    value.freeze()
}

fn put_segment(segment: &Segment, value: &mut BytesMut) {
    value.put_i64(segment.end_offset.0);
    value.put_u64(segment.bytes);
    value.put_i64(segment.max_timestamp);
    value.put_i64(segment.max_timestamp_batch.0);
    value.put_i64(segment.first_timestamp);
    value.put_i64(segment.created_ms);
    value.put_i64(segment.last_append_ms);
}

fn decode_segment(base_offset: Offset, value: &mut &[u8]) -> Result<Segment, BadSideRecord> {
    Ok(Segment {
        base_offset,
        end_offset: Offset(value.try_get_i64()?),
        bytes: value.try_get_u64()?,
        max_timestamp: value.try_get_i64()?,
        max_timestamp_batch: Offset(value.try_get_i64()?),
        first_timestamp: value.try_get_i64()?,
        created_ms: value.try_get_i64()?,
        last_append_ms: value.try_get_i64()?,
    })
}

pub(super) fn encode_aborted(transaction: &AbortedTransaction) -> Bytes {
    let mut value = BytesMut::with_capacity(17);
    value.put_u8(VERSION);
    value.put_i64(transaction.first_offset.0);
    value.put_i64(transaction.last_stable_offset.0);
    value.freeze()
}

pub(super) fn encode_producer(entry: &ProducerEntry) -> Bytes {
    let batches = entry.batches();
    let mut value = BytesMut::with_capacity(32 + 24 * batches.len());
    value.put_u8(VERSION);
    value.put_i16(entry.epoch.0);
    value.put_i32(entry.coordinator_epoch);
    value.put_i64(entry.open_transaction.unwrap_or(Offset::NONE).0);
    value.put_i64(entry.last_seen_ms);
    value.put_u8(batches.len() as u8);
    for batch in batches {
        value.put_i32(batch.last_sequence);
        value.put_i64(batch.last_offset.0);
        value.put_i32(batch.offset_delta);
        value.put_i64(batch.timestamp);
    }
    value.put_i64(entry.last_marker.unwrap_or(Offset::NONE).0);
    value.freeze()
}

fn decode_producer(value: &mut &[u8]) -> Result<ProducerEntry, BadSideRecord> {
    let mut entry = ProducerEntry::new(ProducerEpoch(value.try_get_i16()?));
    entry.coordinator_epoch = value.try_get_i32()?;
    entry.open_transaction = Some(Offset(value.try_get_i64()?)).filter(|&offset| offset != Offset::NONE);
    entry.last_seen_ms = value.try_get_i64()?;
    for _ in 0..value.try_get_u8()? {
        entry.push(BatchMeta {
            last_sequence: value.try_get_i32()?,
            last_offset: Offset(value.try_get_i64()?),
            offset_delta: value.try_get_i32()?,
            timestamp: value.try_get_i64()?,
        });
    }
    // Written since there are transactions.
    if value.has_remaining() {
        entry.last_marker = Some(Offset(value.try_get_i64()?)).filter(|&offset| offset != Offset::NONE);
    }
    Ok(entry)
}

/// Producers of a log that ended at one offset.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) log_end: Offset,
    pub(super) producers: Vec<(ProducerId, ProducerEntry)>,
}

pub(super) fn encode_snapshot<'p>(producers: impl Iterator<Item = (ProducerId, &'p ProducerEntry)>) -> Bytes {
    let mut value = BytesMut::new();
    value.put_u8(VERSION);
    for (id, entry) in producers {
        let encoded = encode_producer(entry);
        value.put_i64(id.0);
        value.put_u16(encoded.len() as u16);
        value.put_slice(&encoded);
    }
    value.freeze()
}

/// Reads a snapshot by its whole key.
pub(super) fn decode_snapshot(key: &[u8], mut value: &[u8]) -> Result<Snapshot, BadSideRecord> {
    let unknown = || BadSideRecord::Key(key.to_vec());
    let Some((&SNAPSHOT, mut suffix)) = key.get(20..).and_then(<[u8]>::split_first) else { return Err(unknown()) };
    let log_end = Offset(suffix.try_get_i64()?);
    let check_version = |value: &mut &[u8]| match value.try_get_u8()? {
        VERSION => Ok(()),
        version => Err(BadSideRecord::Version(version)),
    };
    check_version(&mut value)?;
    let mut producers = Vec::new();
    while value.has_remaining() {
        let id = ProducerId(value.try_get_i64()?);
        let len = usize::from(value.try_get_u16()?);
        let (mut encoded, rest) = value.split_at_checked(len).ok_or(BadSideRecord::Short)?;
        check_version(&mut encoded)?;
        producers.push((id, decode_producer(&mut encoded)?));
        value = rest;
    }
    Ok(Snapshot { log_end, producers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionIndex, TopicId};

    fn keys() -> SideKeys {
        let topic_id = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).expect("a legal id");
        SideKeys::new(&PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(3) })
    }

    fn segment() -> Segment {
        Segment {
            base_offset: Offset(7),
            end_offset: Offset(9),
            bytes: 300,
            max_timestamp: 1000,
            max_timestamp_batch: Offset(8),
            first_timestamp: 900,
            created_ms: 500,
            last_append_ms: 600,
        }
    }

    #[test]
    fn a_checkpoint_comes_after_some_bytes_and_some_batches() {
        let appends = |bytes: u64| (1..).find(|count| checkpoint_is_due(count * bytes, bytes)).expect("some time");
        assert_eq!([100, 16 << 10, 64 << 10, 512 << 10, 2 << 20].map(appends), [656, 4, 4, 2, 1]);
    }

    #[test]
    fn layouts_are_pinned() {
        let suffix = |key: Bytes| key[20..].to_vec();
        assert_eq!(suffix(keys().log_start()), b"\x80start");
        assert_eq!(suffix(keys().high_watermark()), b"\x80hwm");
        assert_eq!(suffix(keys().epoch(LeaderEpoch(5))), [0x81, 0, 0, 0, 5]);
        assert_eq!(suffix(keys().time(-1)), [0x82, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(suffix(keys().time(0)), [0x82, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(suffix(keys().producer(ProducerId(258))), [0x83, 0, 0, 0, 0, 0, 0, 1, 2]);
        let aborted = [&[0x84u8][..], &258i64.to_be_bytes(), &7i64.to_be_bytes()].concat();
        assert_eq!(suffix(keys().aborted(Offset(258), ProducerId(7))), aborted);
        assert_eq!(suffix(keys().segment(Offset(7))), [0x85, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(encode_offset(Offset(258)).as_ref(), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        let expected: Vec<u8> =
            [1u8].into_iter().chain([9, 300, 1000, 8, 900, 500, 600].map(i64::to_be_bytes).concat()).collect();
        assert_eq!(encode_segment(&segment()), expected);
        let checkpoint = encode_checkpoint(&Checkpoint { active: segment() });
        assert_eq!(checkpoint[..17], [[1u8].as_slice(), &9i64.to_be_bytes(), &7i64.to_be_bytes()].concat());
        assert_eq!(checkpoint[17..], expected[1..]);
    }

    #[test]
    fn records_read_back() {
        let mut producer = ProducerEntry::new(ProducerEpoch(4));
        producer.last_seen_ms = 77;
        producer.push(BatchMeta { last_sequence: 9, last_offset: Offset(20), offset_delta: 3, timestamp: 5 });
        (producer.coordinator_epoch, producer.open_transaction) = (6, Some(Offset(17)));
        producer.last_marker = Some(Offset(16));
        let value = encode_producer(&producer);
        let read = SideRecord::decode(&keys().producer(ProducerId(1)), &value[..value.len() - 8]).expect("readable");
        let mut before_transactions = producer.clone();
        before_transactions.last_marker = None;
        assert!(matches!(read, SideRecord::Producer(_, entry) if entry == before_transactions));
        let aborted = AbortedTransaction {
            producer_id: ProducerId(7),
            first_offset: Offset(3),
            last_offset: Offset(9),
            last_stable_offset: Offset(10),
        };
        let value = encode_aborted(&aborted);
        assert_eq!(value[..], [[1u8].as_slice(), &3i64.to_be_bytes(), &10i64.to_be_bytes()].concat());
        let read = SideRecord::decode(&keys().aborted(Offset(9), ProducerId(7)), &value).expect("readable");
        assert!(matches!(read, SideRecord::Aborted(read) if read == aborted));
        let read = SideRecord::decode(&keys().producer(ProducerId(1)), &encode_producer(&producer)).expect("readable");
        assert!(matches!(read, SideRecord::Producer(ProducerId(1), entry) if entry == producer));
        let read = SideRecord::decode(&keys().segment(Offset(7)), &encode_segment(&segment())).expect("readable");
        assert!(matches!(read, SideRecord::Segment(read) if read == segment()));
        let checkpoint = Checkpoint { active: segment() };
        let read = SideRecord::decode(&keys().checkpoint(), &encode_checkpoint(&checkpoint)).expect("readable");
        assert!(matches!(read, SideRecord::Checkpoint(read) if read == checkpoint));
        let read = SideRecord::decode(&keys().high_watermark(), &encode_offset(Offset(8))).expect("readable");
        assert!(matches!(read, SideRecord::HighWatermark(Offset(8))));
        let read = SideRecord::decode(&keys().time(-5), &encode_offset(Offset(3))).expect("readable");
        assert!(matches!(read, SideRecord::Time(Offset(3))));
    }

    #[test]
    fn a_snapshot_reads_back_and_its_layout_is_pinned() {
        let mut producer = ProducerEntry::new(ProducerEpoch(4));
        producer.push(BatchMeta { last_sequence: 9, last_offset: Offset(20), offset_delta: 3, timestamp: 5 });
        let both = [(ProducerId(258), &producer), (ProducerId(7), &producer)];
        let (key, value) = (keys().snapshot(Offset(258)), encode_snapshot(both.into_iter()));
        assert_eq!(key[20..], [0x86, 0, 0, 0, 0, 0, 0, 1, 2]);
        let encoded = encode_producer(&producer);
        let expected = [&[1, 0, 0, 0, 0, 0, 0, 1, 2, 0, encoded.len() as u8][..], &encoded].concat();
        assert_eq!(value[..expected.len()], expected);
        let snapshot = decode_snapshot(&key, &value).expect("readable");
        assert_eq!(snapshot.log_end, Offset(258));
        assert_eq!(snapshot.producers, both.map(|(id, entry)| (id, entry.clone())));
        let cut = |len: usize| decode_snapshot(&key, &value[..len]);
        let whole = [1, expected.len(), value.len()];
        for len in (0..value.len()).filter(|len| !whole.contains(len)) {
            // The last field of a producer may be left out.
            assert!(cut(len).is_err(), "{len}");
        }
        assert!(decode_snapshot(&keys().segment(Offset(7)), &value).is_err());
        assert!(keys().all().contains(&key) && !keys().producers_and_segments().contains(&key));
        assert!(
            keys().snapshots_from(Offset(258)).contains(&key) && !keys().snapshots_below(Offset(258)).contains(&key)
        );
    }

    #[test]
    fn damaged_records_are_refused() {
        let value = encode_segment(&segment());
        for len in 0..value.len() {
            assert_eq!(SideRecord::decode(&keys().segment(Offset(7)), &value[..len]).err(), Some(BadSideRecord::Short));
        }
        assert_eq!(SideRecord::decode(&keys().log_start(), &[9]).err(), Some(BadSideRecord::Version(9)));
        assert!(matches!(SideRecord::decode(b"short", &[1]), Err(BadSideRecord::Key(_))));
    }

    #[test]
    fn the_time_index_finds_the_largest_timestamp_not_above() {
        let range = keys().times_up_to(10);
        assert!(range.contains(&keys().time(10)) && range.contains(&keys().time(i64::MIN)));
        assert!(!range.contains(&keys().time(11)));
        assert!(keys().time(10) < keys().time(9), "the youngest first");
        let range = keys().times_from(10);
        assert!(range.contains(&keys().time(10)) && range.contains(&keys().time(i64::MAX)));
        assert!(!range.contains(&keys().time(9)));
    }
}
