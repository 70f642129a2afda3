//! CRC-32C of a batch, and how to correct it when only the header changed.
//!
//! CRC is linear: for two heads of equal length before the same tail, the checksums differ by the difference of the
//! heads' own checksums, shifted over the tail. So a new timestamp in the header of a large batch costs about a
//! microsecond, not another pass over its bytes, while the partition's lock is held.

use super::batch::{CHECKED_FROM, HEADER_BYTES};
use crate::types::crc;

/// Below this many bytes a second pass is cheaper than the correction.
const CORRECT_FROM_BYTES: usize = 8 << 10;

/// Checksum of a whole batch, or `None` if it is shorter than its header.
pub(crate) fn of_batch(batch: &[u8]) -> Option<u32> {
    (batch.len() >= HEADER_BYTES).then(|| crc32c::crc32c(&batch[CHECKED_FROM..]))
}

/// The checksum of `batch` (bytes from 0), whose header was `old_head` when its checksum was `old_crc`.
pub(crate) fn after_header_change(old_crc: u32, old_head: &[u8; HEADER_BYTES], batch: &[u8]) -> u32 {
    let tail_bytes = batch.len().saturating_sub(HEADER_BYTES);
    if tail_bytes < CORRECT_FROM_BYTES {
        return crc32c::crc32c(&batch[CHECKED_FROM..]);
    }
    let before = crc32c::crc32c(&old_head[CHECKED_FROM..]);
    let after = crc32c::crc32c(&batch[CHECKED_FROM..HEADER_BYTES]);
    old_crc ^ crc::shift(before ^ after, tail_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correction_equals_a_second_pass_for_any_length() {
        for tail in [0, 1, 100, CORRECT_FROM_BYTES - 1, CORRECT_FROM_BYTES, 10_007, 65_536, 1_000_003] {
            let mut batch: Vec<u8> = (0..HEADER_BYTES + tail).map(|i| (i * 31 % 251) as u8).collect();
            let old_crc = of_batch(&batch).expect("long enough");
            let old_head = *batch.first_chunk().expect("long enough");
            batch[22] ^= 0x08;
            batch[35..43].copy_from_slice(&1_700_000_000_123_i64.to_be_bytes());
            assert_eq!(
                after_header_change(old_crc, &old_head, &batch),
                of_batch(&batch).expect("long enough"),
                "{tail}"
            );
        }
    }
}
