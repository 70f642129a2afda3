//! A log that takes the place of another one of the same partition, in another directory.
//!
//! It has the other's batches up to some offset, taken over as a follower takes a leader's. What is missing is in
//! memory: what the other wrote lately is kept for this, and what it has given offsets to is on its way. So the
//! place is taken under the partition's lock, without a read and without a pause in the appends. Everything that
//! cannot be told from the batches alone (terms without one, producers and transactions whose batches are gone) is
//! taken over as it is.

use std::sync::Arc;

use bytes::Bytes;

use super::PartitionLog;
use crate::clock::UnixMs;
use crate::log::fetched::FetchedError;
use crate::log::kept::{Kept, KeptBytes};
use crate::record::BatchHeader;
use crate::storage::Write;
use crate::types::{LeaderEpoch, Offset};

impl PartitionLog {
    /// What is written from now on is kept for a log that is to take this one's place. Nothing more is kept than before
    /// if it is kept already. `all`: what all logs keep is bounded.
    pub(crate) fn keep_written(&mut self, all: &Arc<KeptBytes>) {
        let from = self.written_end;
        self.kept.get_or_insert_with(|| Kept::new(from, Arc::clone(all)));
    }

    /// No other log is to take its place any more.
    pub(crate) fn keep_no_more(&mut self) {
        self.kept = None;
    }

    /// Reads of this log that are under way, and replies that are still to be read ahead for.
    pub(crate) fn reads(&self) -> usize {
        // One is the log's own.
        Arc::strong_count(&self.reader.shared).saturating_sub(1)
    }

    /// Every batch from `from` on, those included whose write is under way. `None`: some would have to be read.
    fn batches_from(&self, from: Offset) -> Option<Vec<Bytes>> {
        let written = match &self.kept {
            _ if from >= self.written_end => Vec::new(),
            Some(kept) => kept.batches_from(from)?,
            None => return None,
        };
        Some(written.into_iter().chain(self.pending.iter().map(|batch| batch.bytes.clone())).collect())
    }

    /// Becomes what `replaced` is, whose batches it has up to its own end, and pushes what is to be written for that.
    /// Nothing of it is being written. What `replaced` has written counts as written here: until these writes are done
    /// that log has it. `false`: not now, and nothing has changed.
    ///
    /// # Errors
    /// A batch cannot be what was written. What is known here has run ahead of the disk.
    pub(crate) fn succeed(
        &mut self,
        replaced: &mut Self,
        high_watermark: Offset,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<bool, FetchedError> {
        assert!(self.pending.is_empty(), "whoever copies waits for each write");
        if self.truncating || replaced.truncating || self.state.log_start() != replaced.state.log_start() {
            return Ok(false);
        }
        let own_end = self.state.log_end();
        let Some(rest) = replaced.batches_from(own_end) else { return Ok(false) };
        let end_of = |batch: &Bytes| BatchHeader::parse(batch).map(|header| header.last_offset() + 1).ok();
        if rest.last().map_or(Some(own_end), end_of) != Some(replaced.state.log_end()) {
            return Ok(false);
        }
        self.config = replaced.config;
        writes.append(&mut self.repairs);
        // The mark that goes with them says that all of it is here.
        self.in_order = true;
        for batch in rest {
            self.append_fetched(batch, LeaderEpoch(i32::MAX), now, writes)?;
        }
        self.in_order = replaced.in_order;
        self.written_end = replaced.written_end;
        self.state.succeed(&replaced.state, writes);
        self.take_over(replaced);
        replaced.keep_no_more();
        self.checkpoint_high_watermark(high_watermark, writes);
        Ok(true)
    }
}
