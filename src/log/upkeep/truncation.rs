//! Cutting the end of a log off, or all of it: what remains is worked out beside the log, off its lock, since that may
//! read much of it. The log becomes that once it is written.
//!
//! What `recovery` does with a log that lost its end is done here with one that is to lose it. A kill leaves the log as
//! it was or as it is to be, because all that is written is one set.
//! Source: Kafka 3.9 `UnifiedLog.truncateTo`, `truncateFullyAndStartAt`.

use crate::clock::UnixMs;
use crate::log::reading::read::LogReader;
use crate::log::state::log_state::LogState;
use crate::log::upkeep::recovery;
use crate::storage::{StorageError, Write};
use crate::types::Offset;

/// A truncation that has begun. The log does not change meanwhile.
#[derive(Debug)]
#[must_use = "the log takes no changes until the truncation is ended or abandoned"]
pub(crate) struct Truncation {
    reader: LogReader,
    /// What the log is to be.
    state: LogState,
    /// What makes it so, in one set.
    writes: Vec<Write>,
}

impl Truncation {
    /// `writes`: what was to be written before anything else.
    pub(in crate::log) fn new(reader: LogReader, state: LogState, writes: Vec<Write>) -> Self {
        Self { reader, state, writes }
    }

    /// Removes every batch that contains or follows `to`, and what is known about them. Below the log start there is
    /// nothing left to keep: the log begins anew at `to`, where its leader goes on. Where no batch goes the terms still
    /// do that begin at the end. Blocks on the disk.
    pub(crate) fn cut(&mut self, to: Offset, now: UnixMs) -> Result<(), StorageError> {
        let Self { reader, state, writes } = self;
        let (log_start, log_end) = (state.log_start(), state.log_end());
        if to >= log_end {
            // A leader may have begun a term here that another one ended before there was a batch. Were it kept, the
            // logs would seem to part at the same place for ever.
            state.cut_epochs(log_end, writes);
            return Ok(());
        }
        if to < log_start {
            self.start_at(to.max(Offset::ZERO), now);
            return Ok(());
        }
        let new_end = recovery::end_of_cut(reader, to, log_start)?;
        writes.push(Write::DeleteBatches { family: state.family(), last_offsets: to..log_end });
        state.drop_recorded_end(writes);
        recovery::cut(reader, state, new_end, now, writes)
    }

    /// Removes everything: the log begins anew at `offset`, and all below it counts as replicated.
    pub(crate) fn start_at(&mut self, offset: Offset, now: UnixMs) {
        self.state.restart_at(offset, now, &mut self.writes);
    }

    /// What is to be written, as one set. To be taken once.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    pub(in crate::log) fn into_state(self) -> LogState {
        self.state
    }
}
