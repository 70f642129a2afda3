//! What a read of a log gives.

use bytes::Bytes;

use crate::types::Offset;

/// What a read found: one `Bytes` per batch, in offset order.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: Vec<Bytes>,
    /// Sum of their lengths.
    pub(crate) bytes: usize,
    /// One past the last of their offsets; 0 without any.
    pub(crate) end: Offset,
    /// Whether they were not in the tail.
    pub(in crate::log) behind_tail: bool,
}

/// Batches of one read, which occupies a thread, and for a moment whoever appends: more than that fill a megabyte
/// unless they are tiny.
const BATCHES_MAX: usize = 4096;

impl Read {
    /// Whether a batch of `len` bytes still fits; the first one may always come if `at_least_one` is asked for.
    pub(in crate::log) fn admits(&self, len: usize, max_bytes: usize, at_least_one: bool) -> bool {
        let fits = self.bytes + len <= max_bytes && self.batches.len() < BATCHES_MAX;
        fits || (at_least_one && self.batches.is_empty())
    }

    pub(in crate::log) fn push(&mut self, batch: Bytes, last_offset: Offset) {
        self.end = last_offset + 1;
        self.bytes += batch.len();
        self.batches.push(batch);
    }
}
