//! What `compat-tests/hostile` may reach: the checks that a stranger's batches meet, with errors as text.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};

use super::batch::Codec;
use super::compression::{self, Compression};
use super::{BatchBuilder, ProduceRules, checksum, for_each_record, validate};

/// The produce checks with this decompression cap.
pub fn check_batch(records: BytesMut, cap: usize) -> Result<(), String> {
    let rules = ProduceRules { decompressed_bytes_max: cap, timestamp_after_max_ms: i64::MAX, ..Default::default() };
    validate(records, &rules, 0).map(drop).map_err(|error| error.to_string())
}

/// Reads all records of a stored batch; how many there are.
pub fn read_batch(batch: &[u8], cap: usize) -> Result<usize, String> {
    let mut records = 0;
    let read = for_each_record(batch, cap, |_| {
        records += 1;
        ControlFlow::Continue(())
    });
    read.map(|()| records).map_err(|error| error.to_string())
}

/// Decompresses by the codec's number in a batch's attributes; the length.
pub fn decompress(codec: i16, input: &[u8], cap: usize) -> Result<usize, String> {
    let mut out = Vec::new();
    let codec = Codec::from_attributes(codec).map_err(|error| error.to_string())?;
    compression::decompress(codec, input, cap, &mut out).map_err(|error| error.to_string())?;
    Ok(out.len())
}

/// Compresses by the codec's number.
pub fn compress(codec: i16, input: &[u8]) -> Result<Bytes, String> {
    let mut out = BytesMut::new();
    let codec = Codec::from_attributes(codec).map_err(|error| error.to_string())?;
    compression::compress(Compression::from(codec), input, &mut out);
    Ok(out.freeze())
}

/// A good batch of one record per value.
pub fn build_batch(codec: i16, values: &[&[u8]]) -> Result<BytesMut, String> {
    let codec = Codec::from_attributes(codec).map_err(|error| error.to_string())?;
    let mut builder = BatchBuilder::new().compressed(Compression::from(codec));
    for value in values {
        builder.append(0, Some(b"key"), Some(value));
    }
    Ok(builder.finish().bytes)
}

/// Puts the checksum right after a mutation, so that the mutation gets past it.
pub fn mend_checksum(batch: &mut [u8]) {
    if let Some(crc) = checksum::of_batch(batch) {
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}
