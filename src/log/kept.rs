//! What a log wrote lately, kept as long as another log is about to take its place. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::types::Offset;

/// What is kept at most; a log that is further behind reads.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// What all logs keep at most, together.
const ALL_BYTES_MAX: usize = 64 << 20;

/// Bytes that all logs of a broker keep together.
#[derive(Debug, Default)]
pub(crate) struct KeptBytes(AtomicUsize);

/// Batches that were written lately.
#[derive(Debug)]
pub(super) struct Kept {
    /// All that was written from here on.
    from: Offset,
    /// By their last offset.
    batches: VecDeque<(Offset, Bytes)>,
    bytes: usize,
    /// These and those of other logs.
    all: Arc<KeptBytes>,
}

impl Kept {
    /// Nothing yet, of a log that is written up to here.
    pub(super) fn new(written_end: Offset, all: Arc<KeptBytes>) -> Self {
        Self { from: written_end, batches: VecDeque::new(), bytes: 0, all }
    }

    /// Keeps a copy: the batch itself is a part of the frame that it came in.
    pub(super) fn push(&mut self, last_offset: Offset, batch: &Bytes) {
        self.bytes += batch.len();
        let mut all = self.all.0.fetch_add(batch.len(), Ordering::Relaxed) + batch.len();
        self.batches.push_back((last_offset, Bytes::copy_from_slice(batch)));
        while (self.bytes > KEPT_BYTES_MAX || all > ALL_BYTES_MAX)
            && let Some((last_offset, batch)) = self.batches.pop_front()
        {
            self.bytes -= batch.len();
            all = self.all.0.fetch_sub(batch.len(), Ordering::Relaxed) - batch.len();
            self.from = last_offset + 1;
        }
    }

    /// All that was written from `from` on; `None`: some of it is not here.
    pub(super) fn batches_from(&self, from: Offset) -> Option<Vec<Bytes>> {
        let wanted = |(last_offset, batch): &(Offset, Bytes)| (*last_offset >= from).then(|| batch.clone());
        (self.from <= from).then(|| self.batches.iter().filter_map(wanted).collect())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_lately_is_there_as_far_as_it_has_room() {
        let mut kept = Kept::new(Offset(10), Arc::default());
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX / 2]);
        kept.push(Offset(14), &large);
        kept.push(Offset(15), &Bytes::from_static(b"a"));
        let found = |kept: &Kept, from| kept.batches_from(Offset(from)).map(|found| found.len());
        assert_eq!([9, 10, 15, 16].map(|from| found(&kept, from)), [None, Some(2), Some(1), Some(0)]);
        kept.push(Offset(20), &large);
        assert_eq!([14, 15, 16].map(|from| found(&kept, from)), [None, Some(2), Some(1)]);
    }

    #[test]
    fn all_logs_together_keep_no_more_than_this() {
        let all: Arc<KeptBytes> = Arc::default();
        let sum = || all.0.load(Ordering::Relaxed);
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX]);
        let mut several: Vec<Kept> = (0..5).map(|_| Kept::new(Offset(0), Arc::clone(&all))).collect();
        several.iter_mut().for_each(|kept| kept.push(Offset(9), &large));
        let has_all = |kept: &Kept| kept.batches_from(Offset(0)).is_some();
        assert_eq!(several.iter().map(has_all).collect::<Vec<_>>(), [true, true, false, false, false]);
        assert_eq!(sum(), ALL_BYTES_MAX);
        several.remove(0);
        several[3].push(Offset(19), &large);
        let found = several[3].batches_from(Offset(10)).map(|found| found.len());
        assert_eq!((found, sum()), (Some(1), ALL_BYTES_MAX), "there is room again");
        several.clear();
        assert_eq!(sum(), 0);
    }

    /// Small batches that came in large frames kept all of these.
    #[test]
    fn what_is_kept_is_no_part_of_the_frame_that_it_came_in() {
        let frame = Bytes::from(vec![0; 1000]);
        let mut kept = Kept::new(Offset(0), Arc::default());
        kept.push(Offset(0), &frame.slice(10..20));
        assert!(frame.is_unique());
    }
}
