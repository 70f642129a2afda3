//! What a log wrote lately, kept as long as another log is about to take its place. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::types::Offset;

/// What is kept at most; a log that is further behind reads.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Batches that were written lately.
#[derive(Debug)]
pub(super) struct Kept {
    /// All that was written from here on.
    from: Offset,
    /// By their last offset.
    batches: VecDeque<(Offset, Bytes)>,
    bytes: usize,
}

impl Kept {
    /// Nothing yet, of a log that is written up to here.
    pub(super) fn new(written_end: Offset) -> Self {
        Self { from: written_end, batches: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, last_offset: Offset, batch: Bytes) {
        self.bytes += batch.len();
        self.batches.push_back((last_offset, batch));
        while self.bytes > KEPT_BYTES_MAX
            && let Some((last_offset, batch)) = self.batches.pop_front()
        {
            self.bytes -= batch.len();
            self.from = last_offset + 1;
        }
    }

    /// All that was written from `from` on; `None`: some of it is not here.
    pub(super) fn batches_from(&self, from: Offset) -> Option<Vec<Bytes>> {
        let wanted = |(last_offset, batch): &(Offset, Bytes)| (*last_offset >= from).then(|| batch.clone());
        (self.from <= from).then(|| self.batches.iter().filter_map(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_lately_is_there_as_far_as_it_has_room() {
        let mut kept = Kept::new(Offset(10));
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX / 2]);
        kept.push(Offset(14), large.clone());
        kept.push(Offset(15), Bytes::from_static(b"a"));
        let found = |kept: &Kept, from| kept.batches_from(Offset(from)).map(|found| found.len());
        assert_eq!([9, 10, 15, 16].map(|from| found(&kept, from)), [None, Some(2), Some(1), Some(0)]);
        kept.push(Offset(20), large);
        assert_eq!([14, 15, 16].map(|from| found(&kept, from)), [None, Some(2), Some(1)]);
    }
}
