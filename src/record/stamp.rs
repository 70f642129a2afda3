//! Writing the broker's fields into a batch in place, after validation and before the write (I-4).
//!
//! Base offset and leader epoch lie outside the checksum. LogAppendTime changes attributes and maximum timestamp, which
//! lie inside, so the checksum is corrected (`checksum`). Source: Kafka `DefaultRecordBatch`, its setters.

use bytes::BytesMut;

use super::batch::{BatchHeader, HEADER_BYTES, TIMESTAMP_TYPE_BIT};
use super::checksum;
use super::valid::ValidBatch;
use crate::clock::UnixMs;
use crate::types::{LeaderEpoch, Offset};

/// Gives the batch its place in the log. `append_time`: the topic's timestamp type is LogAppendTime.
pub(crate) fn stamp(batch: &mut ValidBatch, base_offset: Offset, epoch: LeaderEpoch, append_time: Option<UnixMs>) {
    let mut header = batch.header;
    header.base_offset = base_offset;
    header.partition_leader_epoch = epoch;
    if let Some(now) = append_time {
        header.attributes |= TIMESTAMP_TYPE_BIT;
        header.max_timestamp = now;
        // All records now have the same timestamp, so the first one is where the maximum stands.
        batch.offset_of_max_timestamp_delta = 0;
    }
    batch.header = rewrite_header(&mut batch.bytes, &batch.header, header);
}

/// Puts `new` in front of the batch whose header is `old`, correcting the checksum if checked fields changed.
pub(crate) fn rewrite_header(bytes: &mut BytesMut, old: &BatchHeader, new: BatchHeader) -> BatchHeader {
    let mut new = new;
    let unchecked_only =
        BatchHeader { base_offset: old.base_offset, partition_leader_epoch: old.partition_leader_epoch, ..new } == *old;
    bytes[..HEADER_BYTES].copy_from_slice(&new.to_bytes());
    if !unchecked_only {
        new.crc = checksum::after_header_change(old.crc, &old.to_bytes(), bytes);
        bytes[..HEADER_BYTES].copy_from_slice(&new.to_bytes());
    }
    new
}
