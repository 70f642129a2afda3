//! What a reply sends of a log: places, in memory or in a file, in offset order.
//!
//! The tail goes first, since it costs nothing to find. Only its large batches are sent from their file, by the kernel
//! and without a copy into the socket. Behind the tail what lies in a file of its own is found without being read, and
//! only what is neither is read into memory.

use tracing::debug;

use crate::log::reading::batches::Read;
use crate::log::reading::fill::Fill;
use crate::log::reading::read::LogReader;
pub(crate) use crate::storage::Span;
use crate::storage::{Located, StorageError};
use crate::types::Offset;
use crate::types::place::{PIECE_BYTES_MIN, Place};

/// A stretch of a log is found in so many steps at most, each in memory or in files.
const STRETCHES_MAX: usize = 8;

/// What a reply asks of a log; see [`Span`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Find {
    pub(crate) span: Span,
    /// Of the bytes those that it may hold in memory; the first batch may always come.
    pub(crate) held_max: usize,
    /// What will be asked for next is read ahead.
    pub(crate) reads_ahead: bool,
}

/// Whole batches for a reply.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) places: Vec<Place>,
    /// Sum of their lengths.
    pub(crate) bytes: usize,
    /// What of it lies in memory.
    pub(crate) held_bytes: usize,
    /// One past the last of their offsets; 0 without any.
    pub(crate) end: Offset,
    /// What should be read ahead now.
    pub(crate) fill: Option<Fill>,
}

impl Found {
    /// Whether the kernel can send what comes first by itself, and nothing has to come from the disk.
    fn is_sent_by_kernel(&self) -> bool {
        let is_piece = |place: &Place| matches!(place, Place::File(run) if run.piece().is_some());
        let is_there = |place: &Place| !matches!(place, Place::File(run) if !run.is_cached());
        self.places.first().is_some_and(is_piece) && self.places.iter().all(is_there)
    }

    fn add(&mut self, read: Read) {
        if read.bytes > 0 {
            self.end = read.end;
            self.bytes += read.bytes;
            self.held_bytes += read.bytes;
            self.places.extend(read.batches.into_iter().map(Place::Memory));
        }
    }
}

impl LogReader {
    /// Finds batches without waiting for the disk. `None`: some have to be read, by [`Self::find_blocking`].
    pub(crate) fn find_now(&self, find: &Find) -> Option<Found> {
        let Span { from, upto, max_bytes, at_least_one } = find.span;
        let held_max = max_bytes.min(find.held_max);
        let mut found = Found::default();
        let mut newest = self.shared.slot.read(from, upto, held_max, at_least_one);
        let is_large = |read: &Read| read.batches.first().is_some_and(|batch| batch.len() >= PIECE_BYTES_MIN);
        if let Some(read) = newest.take_if(|read| !is_large(read)) {
            found.add(read);
            return Some(found);
        }
        let located = self.locate(find, &mut found);
        if let Some(read) = newest
            && !found.is_sent_by_kernel()
        {
            // Lent already, or not in the page cache: memory has it.
            found = Found::default();
            found.add(read);
            return Some(found);
        }
        if located.is_all {
            return Some(found);
        }
        let rest = rest(find, &found);
        let (from, held_max) = (rest.from, rest.max_bytes.min(find.held_max));
        let read = if found.bytes > 0 {
            self.shared.slot.read(from, upto, held_max, rest.at_least_one)
        } else {
            let read = self.shared.read_ahead.read(from, upto, held_max, at_least_one);
            found.fill = read.as_ref().and_then(|read| self.ahead(find, read, held_max));
            read
        };
        found.add(read?);
        Some(found)
    }

    /// As [`Self::find_now`], and reads what is to be read, but not what can be sent from a file behind it. May block
    /// on the disk.
    ///
    /// # Errors
    /// As [`Self::read`], where nothing before it was found.
    pub(crate) fn find_blocking(&self, find: &Find) -> Result<Found, StorageError> {
        if let Some(found) = self.find_now(find) {
            return Ok(found);
        }
        let mut found = Found::default();
        let mut looked_from = None;
        // From a file, from RocksDB, from a file again; mostly that is all.
        for _ in 0..STRETCHES_MAX {
            let located = self.locate(find, &mut found);
            if located.is_all {
                break;
            }
            let Span { from, upto, max_bytes, at_least_one } = rest(find, &found);
            // A failure shows in what is read next as well, if it matters there.
            let looked = looked_from.replace(from) == Some(from);
            if !looked && self.shared.dir.find_again(self.shared.family, from).unwrap_or(false) {
                continue;
            }
            let bytes = max_bytes.min(find.held_max.saturating_sub(found.held_bytes));
            if bytes == 0 && found.bytes > 0 {
                break;
            }
            let to = located.next.map_or(upto, |next| next.min(upto));
            let read = match self.read(from, to, bytes, at_least_one) {
                // Whoever comes for what cannot be read is told so; what lies before it can be had.
                Err(failure) if found.bytes > 0 => {
                    debug!(%failure, "the rest of a stretch cannot be read");
                    break;
                }
                read => read?,
            };
            let is_over = located.next.is_none() || (read.bytes == 0 && !self.is_located(from, upto));
            if is_over {
                // Not before: the next read would wait for a fill that nobody runs.
                found.fill = self.ahead(find, &read, bytes);
            }
            found.add(read);
            if is_over {
                break;
            }
        }
        self.still_open()?;
        Ok(found)
    }

    fn ahead(&self, find: &Find, read: &Read, bytes: usize) -> Option<Fill> {
        if find.reads_ahead { self.fill_after(read, find.span.upto, bytes) } else { None }
    }

    /// Adds what can be sent from a file.
    fn locate(&self, find: &Find, found: &mut Found) -> Located {
        let mut located = self.shared.dir.locate(self.shared.family, &rest(find, found));
        if self.still_open().is_err() {
            return Located::default();
        }
        if located.bytes > 0 {
            found.places.extend(std::mem::take(&mut located.runs).into_iter().map(Place::File));
            found.bytes += located.bytes;
            found.end = located.end;
        }
        located
    }

    /// Whether what begins here can be sent from a file, and so need not be read ahead.
    pub(in crate::log) fn is_located(&self, from: Offset, upto: Offset) -> bool {
        let span = Span { from, upto, max_bytes: 0, at_least_one: true };
        !self.shared.dir.locate(self.shared.family, &span).runs.is_empty()
    }
}

/// What of the span comes behind what was found.
fn rest(find: &Find, found: &Found) -> Span {
    if found.bytes == 0 {
        return find.span;
    }
    let max_bytes = find.span.max_bytes.saturating_sub(found.bytes);
    Span { from: found.end, max_bytes, at_least_one: false, ..find.span }
}
