//! Length-prefixed frames off a stream. A buffer grows with the bytes received, never with the announced length, and an
//! idle connection holds none.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::types::limits::FRAME_FIRST_STEP_BYTES;

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame announces {0} bytes")]
    Size(i32),
    #[error("a frame announces {bytes} bytes, more than socket.request.max.bytes ({max})")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes asked of the socket while no frame is known: several small pipelined requests come with one call.
const READ_AHEAD_BYTES: usize = 8 << 10;

/// A buffer may become this many times as large as what has been received.
const GROWTH: usize = 4;

/// State between frames.
#[derive(Debug)]
pub(crate) struct FrameReader {
    frame_bytes_max: usize,
    /// Received and not yet handed out; begins with a length prefix or with the rest of the present frame.
    received: BytesMut,
    /// Length of the frame whose prefix has been taken off.
    expected: Option<usize>,
}

impl FrameReader {
    /// Frames of at most `frame_bytes_max` bytes without their prefix.
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, received: BytesMut::new(), expected: None }
    }

    /// The next frame without its prefix; `None` when the stream ends between frames.
    ///
    /// Cancellation-safe: what was received stays here.
    pub(crate) async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<Option<BytesMut>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.make_room();
            let room = self.received.capacity() - self.received.len();
            // `read_buf` fills spare capacity only; it is limited so that a large frame ends where it ends.
            let limit = match self.expected {
                Some(expected) => room.min(expected - self.received.len()),
                None => room,
            };
            let read = stream.read_buf(&mut bytes::BufMut::limit(&mut self.received, limit)).await?;
            if read == 0 {
                return if self.received.is_empty() && self.expected.is_none() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// Bytes held for a frame that has not come whole.
    pub(crate) fn held_bytes(&self) -> usize {
        self.received.capacity()
    }

    fn take(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if self.expected.is_none() {
            let Some(prefix) = self.received.first_chunk::<4>() else { return Ok(None) };
            let size = i32::from_be_bytes(*prefix);
            let bytes = usize::try_from(size).map_err(|_| FrameError::Size(size))?;
            if bytes > self.frame_bytes_max {
                return Err(FrameError::TooLarge { bytes, max: self.frame_bytes_max });
            }
            self.received.advance(4);
            self.expected = Some(bytes);
        }
        match self.expected {
            Some(bytes) if self.received.len() >= bytes => {
                self.expected = None;
                if self.received.len() == bytes {
                    // Nothing follows: hand the buffer out whole, so that an idle connection holds none.
                    return Ok(Some(std::mem::take(&mut self.received)));
                }
                Ok(Some(self.received.split_to(bytes)))
            }
            _ => Ok(None),
        }
    }

    fn make_room(&mut self) {
        let wanted = match self.expected {
            // The first step covers most frames; after it the buffer grows with what has come.
            Some(expected) => expected.min(FRAME_FIRST_STEP_BYTES.max(self.received.len() * GROWTH)),
            None => READ_AHEAD_BYTES,
        };
        if self.received.len() == self.received.capacity() || self.received.capacity() < wanted.min(READ_AHEAD_BYTES) {
            self.received.reserve(wanted.saturating_sub(self.received.len()).max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        frames.iter().flat_map(|f| (f.len() as i32).to_be_bytes().into_iter().chain(f.iter().copied())).collect()
    }

    #[tokio::test]
    async fn pipelined_frames_come_one_by_one() {
        let large = vec![7; 300_000];
        let bytes = stream(&[b"one", b"", b"three", &large, b"five"]);
        let mut reader = FrameReader::new(1 << 20);
        let mut stream = &bytes[..];
        for wanted in [&b"one"[..], b"", b"three", &large, b"five"] {
            assert_eq!(reader.next(&mut stream).await.unwrap().unwrap(), wanted);
        }
        assert!(reader.next(&mut stream).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn frames_that_come_byte_by_byte_are_whole() {
        let bytes = stream(&[b"hello", b"world"]);
        let (mut ours, theirs) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut ours, &bytes).await.unwrap();
        });
        let (mut reader, mut theirs) = (FrameReader::new(100), theirs);
        assert_eq!(reader.next(&mut theirs).await.unwrap().unwrap(), &b"hello"[..]);
        assert_eq!(reader.next(&mut theirs).await.unwrap().unwrap(), &b"world"[..]);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_frame_that_announces_much_and_sends_little_holds_little() {
        let mut reader = FrameReader::new(100 << 20);
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut ours, &(90_i32 << 20).to_be_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut ours, &[0; 1000]).await.unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), reader.next(&mut theirs)).await;
        assert!(next.is_err(), "the frame is not whole");
        assert!(reader.held_bytes() <= FRAME_FIRST_STEP_BYTES + READ_AHEAD_BYTES, "{}", reader.held_bytes());
    }

    #[tokio::test]
    async fn sizes_out_of_range_and_torn_frames_are_errors() {
        let mut reader = FrameReader::new(10);
        assert!(matches!(reader.next(&mut &[0xff, 0xff, 0xff, 0xff][..]).await, Err(FrameError::Size(-1))));
        let mut reader = FrameReader::new(10);
        assert!(matches!(reader.next(&mut &[0, 0, 0, 11][..]).await, Err(FrameError::TooLarge { bytes: 11, max: 10 })));
        let mut reader = FrameReader::new(10);
        assert!(matches!(reader.next(&mut &[0, 0, 0, 5, 1][..]).await, Err(FrameError::Io(_))));
        let mut reader = FrameReader::new(10);
        assert!(reader.next(&mut &[][..]).await.unwrap().is_none());
    }
}
