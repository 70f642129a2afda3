//! How much a socket takes at once of what the kernel sends from a file.
//!
//! The socket is filled whenever a third of its send buffer has gone, so with a small one a reader of old records costs
//! a wake-up for every 70 KB. What the kernel sends from a file lies in the page cache and is only lent to the socket,
//! so a larger buffer costs no memory there. A client that is slow gets none: it gains nothing, and what it has taken
//! would be seen in larger steps.

use std::io;
use std::time::Duration;

use crate::transport::Stream;

/// Sizes of a send buffer, as the kernel is asked for them: it takes twice as much, for what it needs besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendBuffer {
    pub(crate) usual_bytes: usize,
    /// While the kernel sends from a file.
    pub(crate) of_files_bytes: usize,
}

/// `socket.send.buffer.bytes` of Kafka, which every stock configuration names.
const DEFAULT_BYTES: usize = 102_400;

/// Beyond this a reader of old records is not sped up any more.
const OF_FILES_BYTES: usize = 512 << 10;

/// A client that makes room in this time takes more than a megabyte a second.
const QUICK: Duration = Duration::from_millis(50);

impl SendBuffer {
    /// `None`: it stays as it is. A size that somebody chose does.
    pub(crate) fn of(set_bytes: Option<usize>) -> Option<Self> {
        let usual_bytes = set_bytes.filter(|bytes| *bytes == DEFAULT_BYTES)?;
        Some(Self { usual_bytes, of_files_bytes: OF_FILES_BYTES })
    }
}

/// The send buffer of a connection while one reply is sent.
#[derive(Debug)]
pub(super) struct Room {
    buffer: Option<SendBuffer>,
    is_large: bool,
    is_quick: bool,
}

impl Room {
    pub(super) fn new(buffer: Option<SendBuffer>) -> Self {
        Self { buffer, is_large: false, is_quick: false }
    }

    /// The client has made some room, after so long.
    pub(super) fn made_in(&mut self, waited: Duration) {
        self.is_quick = waited < QUICK;
    }

    /// Makes it what suits what is sent next. To be called once more at the end of the reply.
    ///
    /// # Errors
    /// The kernel refuses the size, or the connection is broken.
    pub(super) fn suit(&mut self, stream: &Stream, is_of_file: bool) -> io::Result<()> {
        let Some(buffer) = self.buffer else { return Ok(()) };
        let large = is_of_file && self.is_quick;
        if large != self.is_large {
            stream.set_send_buffer_bytes(if large { buffer.of_files_bytes } else { buffer.usual_bytes })?;
            self.is_large = large;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_somebody_chose_stays() {
        assert!(SendBuffer::of(Some(DEFAULT_BYTES)).is_some());
        assert_eq!([Some(DEFAULT_BYTES - 1), Some(1 << 20), None].map(SendBuffer::of), [None; 3]);
    }
}
