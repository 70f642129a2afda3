//! Control batches that end transactions.
//!
//! Transactional and control, no sequence, one record: key { version i16 = 0, type i16: 0 abort, 1 commit }, value
//! { version i16 = 0, coordinator epoch i32 }, big-endian. Fields that newer versions append are ignored; other types
//! belong to other subjects (KRaft's). Source: Kafka `ControlRecordType`, `EndTransactionMarker`.

use std::ops::ControlFlow;

use bytes::Buf;

use super::build::BatchBuilder;
use super::valid::ValidBatch;
use super::walk::for_each_record;
use super::{BatchError, BatchHeader};
use crate::clock::UnixMs;
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::types::{TransactionMarker, TransactionResult};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// The batch that a marker is in a log.
pub(crate) fn marker_batch(marker: &TransactionMarker, now: UnixMs) -> ValidBatch {
    let kind = match marker.result {
        TransactionResult::Abort => ABORT,
        TransactionResult::Commit => COMMIT,
    };
    let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
    let value = [VERSION.to_be_bytes().as_slice(), &marker.coordinator_epoch.to_be_bytes()].concat();
    let mut builder = BatchBuilder::new().control(marker.producer_id, marker.producer_epoch);
    builder.append(now, Some(&key), Some(&value));
    builder.finish()
}

/// The marker that a control batch is; `None` for a control record of another kind, and where compaction took the
/// record because all of the transaction is gone. Source of the latter: Kafka `ProducerAppendInfo.append`.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn read_marker(header: &BatchHeader, batch: &[u8]) -> Result<Option<TransactionMarker>, BatchError> {
    if header.record_count == 0 {
        return Ok(None);
    }
    let mut read = Err(BatchError::Malformed("a control batch without a record"));
    for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
        read = read_record(header, record.key.unwrap_or_default(), record.value.unwrap_or_default());
        ControlFlow::Break(())
    })?;
    read
}

fn read_record(
    header: &BatchHeader,
    mut key: &[u8],
    mut value: &[u8],
) -> Result<Option<TransactionMarker>, BatchError> {
    let short = |_| BatchError::Malformed("a control record is cut short");
    key.try_get_i16().map_err(short)?;
    let result = match key.try_get_i16().map_err(short)? {
        ABORT => TransactionResult::Abort,
        COMMIT => TransactionResult::Commit,
        _ => return Ok(None),
    };
    value.try_get_i16().map_err(short)?;
    Ok(Some(TransactionMarker {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        coordinator_epoch: value.try_get_i32().map_err(short)?,
        result,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::stamp;
    use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    fn marker(result: TransactionResult) -> TransactionMarker {
        TransactionMarker {
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(3),
            coordinator_epoch: 258,
            result,
        }
    }

    #[test]
    fn markers_read_back_and_their_record_is_kafkas() {
        for result in [TransactionResult::Abort, TransactionResult::Commit] {
            let mut batch = marker_batch(&marker(result), 77);
            stamp(&mut batch, Offset(5), LeaderEpoch(1), None);
            let header = BatchHeader::parse(&batch.bytes).expect("a good header");
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.base_sequence, header.record_count, header.max_timestamp), (-1, 1, 77));
            assert_eq!(read_marker(&header, &batch.bytes), Ok(Some(marker(result))));
            let kind = (result == TransactionResult::Commit) as u8;
            // Length, attributes, two deltas; then key and value with their lengths, and no headers.
            let record = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 1, 2, 0];
            assert_eq!(batch.bytes[61..], record);
        }
    }

    #[test]
    fn other_control_records_are_none_of_ours_and_broken_ones_are_errors() {
        let header = marker_batch(&marker(TransactionResult::Commit), 0).header;
        assert_eq!(read_record(&header, &[0, 0, 0, 2], &[]), Ok(None));
        assert!(read_record(&header, &[0, 0, 0], &[]).is_err());
        assert!(read_record(&header, &[0, 0, 0, 1], &[0, 0, 0]).is_err());
        assert!(read_record(&header, &[0, 0, 0, 1], &[0, 0, 0, 0, 0, 1, 9]).is_ok_and(|marker| marker.is_some()));
    }
}
