//! What validation and building hand to the log.

use bytes::BytesMut;

use super::batch::BatchHeader;

/// One batch that passed every check. The bytes carry base offset 0 until `stamp`, and are uniquely owned.
#[derive(Debug)]
pub(crate) struct ValidBatch {
    pub(crate) bytes: BytesMut,
    /// As in `bytes`; the maximum timestamp is the true one.
    pub(crate) header: BatchHeader,
    /// Offset delta of the first record with the maximum timestamp.
    pub(crate) offset_of_max_timestamp_delta: i32,
}
