//! The records of `__transaction_state`, encoded by hand exactly as Kafka 3.9 writes them, so that a JVM broker can
//! take the partition over and Kafka's console consumer formatters can print it.
//!
//! All integers are big-endian; a string is an int16 length and UTF-8; an array has an int32 count, −1 for null. Key
//! and value each begin with an int16 version. No value is a tombstone.
//!
//! ```text
//! key    0, transactional id
//! value  0, producer id i64, producer epoch i16, time-out in ms i32, state i8,
//!           [topic, [partition i32]]? (null when Empty), last update i64, start i64 (−1: none)
//! ```
//! Value version 1 is read, too; it is flexible: compact lengths (+1, unsigned varint) and tagged fields.
//! Source: Kafka 3.9 `TransactionLogKey.json`, `TransactionLogValue.json`, `TransactionLog`.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use super::state::{State, TransactionValue};
use crate::coordinator::fields::{Reader, TooLong, put_str};
use crate::coordinator::shard::ReplayError;
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::{PartitionIndex, ProducerEpoch, ProducerId, TopicName, TopicPartition};

/// The newest version of a value, the first that is flexible.
const VERSION_FLEXIBLE: i16 = 1;

/// The record that stores a transactional id, or with `None` the tombstone that removes it.
pub(super) fn record(id: &str, value: Option<&TransactionValue>) -> Result<CoordinatorRecord, TooLong> {
    let mut key = BytesMut::with_capacity(4 + id.len());
    key.put_i16(0);
    put_str(&mut key, id)?;
    let value = match value {
        Some(value) => Some(encode(value)?),
        None => None,
    };
    Ok(CoordinatorRecord { key: key.freeze(), value })
}

fn encode(value: &TransactionValue) -> Result<Bytes, TooLong> {
    let mut out = BytesMut::with_capacity(64 + 32 * value.partitions.len());
    out.put_i16(0);
    out.put_i64(value.producer_id.0);
    out.put_i16(value.producer_epoch.0);
    out.put_i32(value.timeout_ms);
    out.put_i8(value.state.code());
    if value.state == State::Empty {
        out.put_i32(-1);
    } else {
        let partitions: Vec<&TopicPartition> = value.partitions.iter().collect();
        let topics: Vec<&[&TopicPartition]> = partitions.chunk_by(|a, b| a.topic == b.topic).collect();
        // Each came in a frame, which bounds them far below 2³¹.
        out.put_i32(topics.len() as i32);
        for topic in topics {
            put_str(&mut out, topic[0].topic.as_str())?;
            out.put_i32(topic.len() as i32);
            topic.iter().for_each(|partition| out.put_i32(partition.partition.0));
        }
    }
    out.put_i64(value.last_update_ms);
    out.put_i64(value.start_ms);
    Ok(out.freeze())
}

/// Reads a key: the transactional id.
pub(super) fn read_key(key: &[u8]) -> Result<&str, ReplayError> {
    let mut from = Reader::new(key);
    match from.i16()? {
        0 => from.str(),
        version => Err(ReplayError::UnknownKeyVersion(version)),
    }
}

/// Reads a value.
pub(super) fn read_value(value: &[u8]) -> Result<TransactionValue, ReplayError> {
    let mut from = Reader::new(value);
    from.version(VERSION_FLEXIBLE, VERSION_FLEXIBLE)?;
    let producer_id = ProducerId(from.i64()?);
    let producer_epoch = ProducerEpoch(from.i16()?);
    let timeout_ms = from.i32()?;
    let [code] = from.array()?;
    let state = State::of_code(code as i8).ok_or(ReplayError::Malformed)?;
    let mut partitions = BTreeSet::new();
    for _ in 0..from.nullable_count()?.unwrap_or(0) {
        let topic = TopicName::new(from.str()?);
        for _ in 0..from.count()? {
            let partition = PartitionIndex(from.i32()?);
            partitions.insert(TopicPartition { topic: topic.clone(), partition });
        }
        from.tags()?;
    }
    let last_update_ms = from.i64()?;
    let start_ms = from.i64()?;
    from.tags()?;
    Ok(TransactionValue { producer_id, producer_epoch, timeout_ms, state, partitions, last_update_ms, start_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn ongoing() -> TransactionValue {
        TransactionValue {
            producer_id: ProducerId(1000),
            producer_epoch: ProducerEpoch(7),
            timeout_ms: 60_000,
            state: State::Ongoing,
            partitions: [("b", 0), ("a", 2), ("a", 1)].map(|(topic, index)| TopicPartition::new(topic, index)).into(),
            last_update_ms: 0x1122,
            start_ms: 0x0102_0304,
        }
    }

    #[test]
    fn a_transaction_is_key_0_and_value_0() {
        let record = record("tx", Some(&ongoing())).expect("short");
        assert_eq!(hex(&record.key), "000000027478");
        assert_eq!(read_key(&record.key), Ok("tx"));
        let value = record.value.expect("no tombstone");
        let golden = [
            "0000",
            "00000000000003e8",
            "0007",
            "0000ea60",
            "01",
            "00000002",
            "000161",
            "00000002",
            "00000001",
            "00000002",
            "000162",
            "00000001",
            "00000000",
            "0000000000001122",
            "0000000001020304",
        ];
        assert_eq!(hex(&value), golden.concat());
        assert_eq!(read_value(&value), Ok(ongoing()));
    }

    #[test]
    fn partitions_are_null_when_empty_and_none_when_complete() {
        let empty = TransactionValue { state: State::Empty, partitions: BTreeSet::new(), start_ms: -1, ..ongoing() };
        let bytes = record("t", Some(&empty)).expect("short").value.expect("no tombstone");
        assert_eq!(hex(&bytes[16..21]), "00ffffffff");
        assert_eq!(read_value(&bytes), Ok(empty.clone()));
        let complete = TransactionValue { state: State::CompleteAbort, ..empty };
        let bytes = record("t", Some(&complete)).expect("short").value.expect("no tombstone");
        assert_eq!(hex(&bytes[16..21]), "0500000000");
        assert_eq!(read_value(&bytes), Ok(complete));
    }

    #[test]
    fn flexible_values_are_read() {
        let value = [
            &[0, 1][..],
            &1000_i64.to_be_bytes(),
            &[0, 7],
            &60_000_i32.to_be_bytes(),
            // state, two topics: a with partitions 1 and 2 and a tagged field, b with partition 0
            &[1, 3, 2, b'a', 3, 0, 0, 0, 1, 0, 0, 0, 2, 1, 9, 1, 0xaa],
            &[2, b'b', 2, 0, 0, 0, 0, 0],
            &0x1122_i64.to_be_bytes(),
            &0x0102_0304_i64.to_be_bytes(),
            // the previous producer id and the client's version of transactions
            &[2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5, 2, 2, 0, 1],
        ];
        assert_eq!(read_value(&value.concat()), Ok(ongoing()));
    }

    #[test]
    fn what_is_torn_or_unknown_is_said_to_be() {
        let whole = record("tx", Some(&ongoing())).expect("short");
        let value = whole.value.expect("no tombstone");
        assert!((0..value.len()).all(|end| read_value(&value[..end]).is_err()));
        assert!((0..whole.key.len()).all(|end| read_key(&whole.key[..end]).is_err()));
        assert_eq!(read_key(&[0, 1, 0, 1, b'x']), Err(ReplayError::UnknownKeyVersion(1)));
        assert_eq!(read_value(&[0, 2, 0]), Err(ReplayError::UnknownValueVersion(2)));
        // Dead is never stored.
        let mut dead = value.to_vec();
        dead[16] = 6;
        assert_eq!(read_value(&dead), Err(ReplayError::Malformed));
        let mut huge = value[..17].to_vec();
        huge.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(read_value(&huge), Err(ReplayError::Malformed));
    }

    #[test]
    fn a_tombstone_has_no_value_and_a_long_id_no_record() {
        assert_eq!(record("t", None).expect("short").value, None);
        assert_eq!(record(&"x".repeat(40_000), None), Err(TooLong(40_000)));
    }
}
