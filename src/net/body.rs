//! The bytes of one reply on their way into a socket: from memory, or from files.
//!
//! A large batch in the page cache is sent by the kernel itself, which copies nothing. Smaller ones, and all over TLS,
//! are copied out of the page cache into a buffer that each thread has one of, and from there into the socket at once:
//! the buffer stays in the core's own cache, so the copy out of the page cache is the only one from memory. What the
//! socket does not take is forgotten, and copied again when there is room. What is not in the page cache is read on a
//! thread that may block.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;

use crate::transport::Stream;
use crate::types::place::{COPIED_BYTES, FileRun, Place};

/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

struct Hot {
    buffer: Box<[u8]>,
    parts: Vec<Range<usize>>,
}

thread_local! {
    static HOT: RefCell<Hot> =
        RefCell::new(Hot { buffer: vec![0; COPIED_BYTES].into_boxed_slice(), parts: Vec::with_capacity(SLICES_MAX) });
}

/// Why a reply was not sent to its end.
pub(super) enum WriteError {
    Io(io::Error),
    /// Others wait for room, and the client is slow.
    GaveWay,
    /// What was promised cannot be read, or is not what was written.
    Unreadable(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What is still to be sent.
pub(super) struct Body {
    parts: VecDeque<Place>,
    /// The first bytes of the first part, where they came from the disk.
    warm: VecDeque<Bytes>,
    bringing: Option<BoxFuture<'static, io::Result<Vec<Bytes>>>>,
    /// The kernel sent what was sent last, from a file.
    is_of_file: bool,
}

/// What became of an attempt to send.
pub(super) enum Sent {
    /// So many bytes; whether the socket is full now.
    Some { bytes: usize, is_full: bool },
    /// The socket is full.
    Full,
    /// What is next has to be read from the disk.
    Cold,
}

impl Body {
    pub(super) fn new(parts: VecDeque<Place>) -> Self {
        Self { parts, warm: VecDeque::new(), bringing: None, is_of_file: false }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Place::len).sum()
    }

    /// What of it is held in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.parts.iter().map(Place::held_bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether some of it comes from files.
    pub(super) fn has_files(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Place::File(_)))
    }

    /// Whether the kernel sent what was sent last, straight from a file.
    pub(super) fn is_of_file(&self) -> bool {
        self.is_of_file
    }

    /// Sends what comes next, as far as that waits for nothing.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn try_send(&mut self, stream: &mut Stream) -> io::Result<Sent> {
        self.is_of_file = false;
        let mut by_kernel = stream.sends_files();
        if by_kernel
            && self.warm.is_empty()
            && let Some(Place::File(run)) = self.parts.front()
            && let Some(piece) = run.piece()
        {
            match outcome(stream.try_send_file(piece), piece.bytes) {
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    by_kernel = false;
                }
                // Whoever reads it finds what is wrong with it.
                Err(error) if !is_of_socket(&error) => return Ok(Sent::Cold),
                sent => {
                    self.is_of_file = true;
                    return sent;
                }
            }
        }
        HOT.with_borrow_mut(|hot| {
            let Some((slices, goes_on)) = self.slices(hot, by_kernel) else { return Ok(Sent::Cold) };
            let offered = slices.iter().map(|slice| slice.len()).sum::<usize>();
            let taken =
                if goes_on { stream.try_write_before_more(&slices) } else { stream.try_write_vectored(&slices) };
            outcome(taken, offered)
        })
    }

    /// What is handed to the socket next, and whether more follows at once, which the kernel sends by itself; `None`:
    /// it is to be brought in before.
    fn slices<'a>(&'a self, hot: &'a mut Hot, by_kernel: bool) -> Option<(Vec<IoSlice<'a>>, bool)> {
        let mut slices = Vec::with_capacity(SLICES_MAX);
        if !self.warm.is_empty() {
            slices.extend(self.warm.iter().take(SLICES_MAX).map(|part| IoSlice::new(part)));
            return Some((slices, false));
        }
        let file = self.parts.iter().take(SLICES_MAX).position(|part| matches!(part, Place::File(_)));
        let (copied, goes_on) = match file.map(|at| (at, &self.parts[at])) {
            Some((at, Place::File(run))) => {
                let goes_on = by_kernel && at > 0 && run.piece().is_some();
                (!goes_on && run.copy(&mut hot.buffer, &mut hot.parts).is_ok(), goes_on)
            }
            _ => (false, false),
        };
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Place::Memory(bytes) if slices.len() < SLICES_MAX => slices.push(IoSlice::new(bytes)),
                Place::File(run) if copied && Some(at) == file => {
                    slices.extend(hot.parts.iter().map(|part| IoSlice::new(&hot.buffer[part.clone()])));
                    if hot.parts.iter().map(Range::len).sum::<usize>() < run.len() {
                        break;
                    }
                }
                _ => break,
            }
        }
        (!slices.is_empty()).then_some((slices, goes_on))
    }

    /// Lets go of what was sent; answers how much of it was held in memory.
    pub(super) fn advance(&mut self, mut sent: usize) -> usize {
        let mut held = 0;
        while let Some(first) = self.parts.front_mut() {
            let bytes = sent.min(first.len());
            match first {
                Place::Memory(part) => {
                    part.advance(bytes);
                    held += bytes;
                }
                Place::File(run) => {
                    run.advance(bytes);
                    cool(&mut self.warm, bytes);
                }
            }
            sent -= bytes;
            if first.len() > 0 {
                break;
            }
            self.warm.clear();
            self.parts.pop_front();
        }
        held
    }

    /// Forgets what came from the disk and was not sent: it can be had again, and whoever waits for a slow client holds
    /// nothing.
    pub(super) fn forget_warm(&mut self) {
        self.warm = VecDeque::new();
    }

    /// What is next and not in memory, if it is to be [brought in](Self::bring_in).
    pub(super) fn cold(&self) -> Option<&FileRun> {
        match self.parts.front() {
            Some(Place::File(run)) if self.bringing.is_none() => Some(run),
            _ => None,
        }
    }

    /// Begins to bring in what is next.
    pub(super) fn bring(&mut self, bringing: BoxFuture<'static, io::Result<Vec<Bytes>>>) {
        self.bringing = Some(bringing);
    }

    /// Waits for what is being brought in, if anything is. Cancellation-safe.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub(super) async fn brought(&mut self) -> Result<(), WriteError> {
        if let Some(bringing) = &mut self.bringing {
            let brought = bringing.await;
            self.bringing = None;
            self.warm = brought.map_err(WriteError::Unreadable)?.into();
        }
        Ok(())
    }

    /// What is held in memory, to be replaced by copies.
    pub(super) fn held(&mut self) -> impl Iterator<Item = &mut Bytes> {
        self.parts.iter_mut().filter_map(|part| match part {
            Place::Memory(bytes) => Some(bytes),
            Place::File(_) => None,
        })
    }
}

/// Whether the connection is broken, and not the file.
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

/// What became of `offered` bytes.
fn outcome(taken: io::Result<usize>, offered: usize) -> io::Result<Sent> {
    match taken {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(bytes) => Ok(Sent::Some { bytes, is_full: bytes < offered }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Full),
        Err(error) => Err(error),
    }
}

/// Lets go of warm bytes that were sent.
fn cool(warm: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(first) = warm.front_mut() {
        if sent < first.len() {
            first.advance(sent);
            return;
        }
        sent -= first.len();
        warm.pop_front();
    }
}
