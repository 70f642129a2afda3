//! Where record batches lie that are on their way to a reader: in memory, or in a file that stays open.
//!
//! A reply is a list of places. What is in memory is held until the socket has taken it; a run of batches in a file
//! costs a few words, however long it is, and is copied out a piece at a time when the socket has room. How batches lie
//! in a file its owner alone knows: it implements [`BatchFile`].

use std::fmt::Debug;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes of whole batches that follow each other.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Memory(Bytes),
    File(FileRun),
}

impl Place {
    /// Bytes that are still to be sent.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(run) => run.len(),
        }
    }

    /// The same bytes in memory, read from the file where they are in one. Blocks on the disk then.
    ///
    /// # Errors
    /// As [`BatchFile::bring_in`].
    pub(crate) fn into_memory(self) -> std::io::Result<Vec<Bytes>> {
        let mut run = match self {
            Self::Memory(bytes) => return Ok(vec![bytes]),
            Self::File(run) => run,
        };
        let mut read = Vec::new();
        while run.len() > 0 {
            let brought = run.bring_in()?;
            run.advance(brought.iter().map(Bytes::len).sum());
            read.extend(brought);
        }
        Ok(read)
    }

    /// Of those what it holds in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(_) => 0,
        }
    }
}

impl From<Bytes> for Place {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

/// The same bytes in memory, or the same place of one file.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memory(one), Self::Memory(other)) => one == other,
            (Self::File(one), Self::File(other)) => Arc::ptr_eq(&one.file, &other.file) && one.at == other.at,
            _ => false,
        }
    }
}

impl Eq for Place {}

/// A position in a run of batches of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAt {
    /// The batch that is next, counted from the file's first.
    pub(crate) batch: u32,
    /// Bytes of it that were sent.
    pub(crate) sent: u32,
    /// Bytes up to the end of the run.
    pub(crate) left: usize,
}

/// What is copied out of a file at once: a small part of a core's second cache. Who owns the file may count on a
/// buffer of this size.
pub(crate) const COPIED_BYTES: usize = 128 << 10;

/// The kernel is asked to send by itself a batch of at least so many bytes: a call for each costs more than the copies
/// of a smaller one.
pub(crate) const PIECE_BYTES_MIN: usize = 48 << 10;

/// A file with batches. What lies at a position never changes as long as anybody holds it.
pub(crate) trait BatchFile: Debug + Send + Sync + 'static {
    /// Copies what comes next into `buffer`, as far as that needs no wait for the disk, and says in `parts` which parts
    /// of the buffer are bytes of batches. At least one byte.
    ///
    /// # Errors
    /// See [`Cold`].
    fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold>;

    /// The rest of the batch that comes next, or a part of it, where it lies in one piece, if it is worth a call of its
    /// own, is in the page cache and is checked: the kernel may send it by itself. Whether it still is in the page
    /// cache when that is done is uncertain.
    fn piece(&self, at: RunAt) -> Option<FilePiece<'_>>;

    /// Whether all that is left of a run is in the page cache at the moment; false where the kernel does not say.
    fn is_cached(&self, at: RunAt) -> bool;

    /// Brings what comes next into the page cache. Some of it, at least one byte, is checked and answered as well,
    /// since it may have left the page cache before the next [`copy`](Self::copy). Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written; whoever has to know has been told.
    fn bring_in(&self, at: RunAt) -> std::io::Result<Vec<Bytes>>;

    /// The position `bytes` further on, which the run has.
    fn advanced(&self, at: RunAt, bytes: usize) -> RunAt;
}

/// A part of an open file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FilePiece<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) start: u64,
    pub(crate) bytes: usize,
}

/// Nothing was copied: what is next is not in the page cache, or came from the disk and could not be checked in the
/// buffer. It is to be brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cold;

/// Batches of a file that follow each other, from a position on.
#[derive(Debug, Clone)]
pub(crate) struct FileRun {
    file: Arc<dyn BatchFile>,
    at: RunAt,
}

impl FileRun {
    pub(crate) fn new(file: Arc<dyn BatchFile>, at: RunAt) -> Self {
        Self { file, at }
    }

    /// Bytes still to be sent.
    pub(crate) fn len(&self) -> usize {
        self.at.left
    }

    /// [`BatchFile::copy`] of what is next.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn copy(&self, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        self.file.copy(self.at, buffer, parts)
    }

    /// [`BatchFile::piece`] of what is next.
    pub(crate) fn piece(&self) -> Option<FilePiece<'_>> {
        self.file.piece(self.at)
    }

    /// [`BatchFile::is_cached`] of all that is left.
    pub(crate) fn is_cached(&self) -> bool {
        self.file.is_cached(self.at)
    }

    /// [`BatchFile::bring_in`] of what is next. Blocks.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn bring_in(&self) -> std::io::Result<Vec<Bytes>> {
        self.file.bring_in(self.at)
    }

    /// Goes on behind what was sent.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.at = self.file.advanced(self.at, bytes);
    }
}

/// All bytes of these places.
#[cfg(test)]
pub(crate) fn joined(places: &[Place]) -> Vec<u8> {
    places.iter().flat_map(|place| place.clone().into_memory().expect("readable").concat()).collect()
}
