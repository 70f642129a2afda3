//! Length-prefixed frames off a stream.
//!
//! The buffer grows with the bytes received, never with the length announced, so a client that announces 100 MiB and
//! stays silent holds next to nothing, and an idle connection holds no buffer at all. Small pipelined frames are many
//! per read; a large one is read to its end and not beyond. What it takes is asked of the [`Room`] before it is taken.
//! Once much of it has come, or the peer has already sent one that large, it gets its whole memory at once: growing
//! would copy it and hold it twice meanwhile, while pages that nothing was written to cost nothing.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::types::limits::FRAME_FIRST_STEP_BYTES;

/// Why no further frame can be read; the connection is closed. Source: Kafka `NetworkReceive`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame announces {0} bytes")]
    Size(i32),
    #[error("a frame announces {bytes} bytes, more than {} ({max}){}", limit(*authenticated), hint(*bytes))]
    TooLarge { bytes: usize, max: usize, authenticated: bool },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The setting that bounds a frame.
fn limit(authenticated: bool) -> &'static str {
    if authenticated { "socket.request.max.bytes" } else { "sasl.server.max.receive.size" }
}

/// What a prefix above every sensible size is when it is not a size at all.
fn hint(bytes: usize) -> &'static str {
    match &(bytes as u32).to_be_bytes() {
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"OPTI" => ": this is Kafka, not HTTP",
        [0x16, 0x03, ..] => ": a TLS handshake on a plaintext listener",
        _ => "",
    }
}

/// Memory for frames under way, which connections share.
pub(crate) trait Room {
    /// Waits until a frame of this size may be held. Asking again for the same frame is free. Cancellation-safe.
    fn hold(&mut self, bytes: usize) -> impl Future<Output = ()> + Send;

    /// Runs one read of the stream; gives up on it if others need the room and this frame comes too slowly.
    fn read(
        &mut self,
        read: impl Future<Output = io::Result<usize>> + Send,
    ) -> impl Future<Output = io::Result<usize>> + Send;
}

/// A stream that tells when it is worth reading, so that nothing is allocated before.
pub(crate) trait Readable {
    /// From now on a read may wait until so many bytes have come, which will: whoever reads can do nothing with fewer.
    /// A wish. An end or an error comes through at any time.
    fn want(&mut self, bytes: usize);

    /// Waits until a read gives something, an end or an error included. Cancellation-safe.
    fn ready(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Length of the prefix.
const PREFIX_BYTES: usize = 4;
/// Room for a read while nothing tells that more will come.
const READ_AHEAD_BYTES: usize = 8 << 10;
/// A buffer may become this many times as large as what has been received.
const GROWTH: usize = 4;

/// From here on a buffer has room for its whole frame.
const WHOLE_FROM_BYTES: usize = 1 << 20;

/// A read waits for what a frame lacks from so many bytes on: being woken for each segment costs more than the copies.
const WAITED_FOR_BYTES_MIN: usize = 16 << 10;
/// And for no more than this, so that what has come is copied while the rest comes.
const WAITED_FOR_BYTES_MAX: usize = 96 << 10;
/// And for so long. What has come then may be no data: over TLS an end, or what is not TLS.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads frames. Holds what was received and not yet handed out.
#[derive(Debug)]
pub(crate) struct FrameReader {
    frame_bytes_max: usize,
    /// The bound is that of whoever has proved who it is, or need not.
    authenticated: bool,
    /// Begins with a prefix.
    received: BytesMut,
    /// Room for the next read of small frames: large while the peer fills what it is given.
    read_ahead_bytes: usize,
    /// Largest frame this peer has really sent, with its prefix.
    largest_bytes: usize,
    /// What the stream was told that a read waits for.
    wanted_bytes: usize,
    /// The frame that has begun comes slowly, and is read as it comes.
    is_slow: bool,
}

/// One read to be made.
struct Plan {
    /// Room to make behind what was received.
    reserve_bytes: usize,
    /// Size of a frame that has to be held first; 0 for what every connection may hold.
    held_bytes: usize,
    /// Most bytes to read.
    limit: usize,
    /// What the frame that has begun lacks, as far as is known.
    missing: usize,
}

impl FrameReader {
    /// Frames of at most `frame_bytes_max` bytes without their prefix.
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            authenticated: true,
            received: BytesMut::new(),
            read_ahead_bytes: READ_AHEAD_BYTES,
            largest_bytes: 0,
            wanted_bytes: 1,
            is_slow: false,
        }
    }

    /// The same for a peer that has not proved yet who it is, until [`Self::authenticated`].
    pub(crate) fn of_stranger(frame_bytes_max: usize) -> Self {
        Self { authenticated: false, ..Self::new(frame_bytes_max) }
    }

    /// From now on frames may be so long.
    pub(crate) fn authenticated(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
        self.authenticated = true;
    }

    /// The next frame without its prefix; `None` when the stream ends between frames.
    ///
    /// Cancellation-safe: what was received stays here, and each await is a single read or changes nothing.
    pub(crate) async fn next<S: AsyncRead + Readable + Unpin + Send>(
        &mut self,
        stream: &mut S,
        memory: &mut impl Room,
    ) -> Result<Option<BytesMut>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                // Whoever looks at the stream in between sees whatever comes.
                self.want(0, stream);
                return Ok(Some(frame));
            }
            if self.received.is_empty() {
                self.received = BytesMut::new();
                stream.ready().await?;
            }
            let plan = self.plan()?;
            self.want(plan.missing, stream);
            if plan.held_bytes > 0 {
                memory.hold(plan.held_bytes).await;
            }
            self.received.reserve(plan.reserve_bytes);
            let room = plan.limit.min(self.received.capacity() - self.received.len());
            let mut buffer = (&mut self.received).limit(room);
            let read = memory.read(stream.read_buf(&mut buffer));
            let read = if self.wanted_bytes == 1 {
                read.await?
            } else if let Ok(read) = timeout(PATIENCE, read).await {
                read?
            } else {
                self.is_slow = true;
                continue;
            };
            if read == 0 {
                return if self.received.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
            self.is_slow &= read < WAITED_FOR_BYTES_MIN;
            self.read_ahead_bytes = if read == room { FRAME_FIRST_STEP_BYTES } else { READ_AHEAD_BYTES };
        }
    }

    /// `missing`: so many bytes of a frame have not come yet.
    fn want(&mut self, missing: usize, stream: &mut impl Readable) {
        let wanted = if missing < WAITED_FOR_BYTES_MIN || self.is_slow { 1 } else { missing.min(WAITED_FOR_BYTES_MAX) };
        if std::mem::replace(&mut self.wanted_bytes, wanted) != wanted {
            stream.want(wanted);
        }
    }

    /// So much has come of the frame that is under way.
    pub(crate) fn part_bytes(&self) -> usize {
        self.received.len()
    }

    /// Bytes of memory held for what is not handed out.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.received.capacity()
    }

    /// A frame that is already here, without waiting.
    pub(crate) fn take(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(bytes) = self.announced()? else { return Ok(None) };
        let whole_bytes = PREFIX_BYTES + bytes;
        if self.received.len() < whole_bytes {
            return Ok(None);
        }
        self.largest_bytes = self.largest_bytes.max(whole_bytes);
        self.is_slow = false;
        let mut frame = if self.received.len() == whole_bytes {
            // Nothing follows: hand the buffer out whole.
            std::mem::take(&mut self.received)
        } else {
            self.received.split_to(whole_bytes)
        };
        frame.advance(PREFIX_BYTES);
        Ok(Some(frame))
    }

    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.received.first_chunk() else { return Ok(None) };
        let size = i32::from_be_bytes(*prefix);
        let bytes = usize::try_from(size).map_err(|_| FrameError::Size(size))?;
        if bytes > self.frame_bytes_max {
            let (max, authenticated) = (self.frame_bytes_max, self.authenticated);
            return Err(FrameError::TooLarge { bytes, max, authenticated });
        }
        Ok(Some(bytes))
    }

    /// What the next read needs.
    fn plan(&self) -> Result<Plan, FrameError> {
        let held = self.received.len();
        let spare = self.received.capacity() - held;
        let missing = self.announced()?.map_or(0, |bytes| PREFIX_BYTES + bytes - held);
        if held + missing <= self.read_ahead_bytes {
            let short = spare < missing.max(READ_AHEAD_BYTES / 8);
            let reserve_bytes = if short { self.read_ahead_bytes } else { 0 };
            return Ok(Plan { reserve_bytes, held_bytes: 0, limit: usize::MAX, missing });
        }
        let mut plan = Plan { reserve_bytes: 0, held_bytes: 0, limit: missing, missing };
        let trusted = self.largest_bytes.min(held + missing);
        if spare < missing.min(READ_AHEAD_BYTES / 8) || trusted > self.received.capacity() {
            let grown = if held < WHOLE_FROM_BYTES { GROWTH * held } else { usize::MAX };
            let target = grown.max(FRAME_FIRST_STEP_BYTES).max(trusted).min(held + missing);
            plan.reserve_bytes = target - held;
            if target > FRAME_FIRST_STEP_BYTES {
                plan.held_bytes = held + missing;
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    const MAX: usize = 100 << 20;
    const KIB: usize = 1 << 10;

    /// Gives out at most `step` bytes per read, counts reads, and pends every other time if asked.
    #[derive(Default)]
    struct Source {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
        reads: usize,
        pend: bool,
        pended: bool,
        wanted: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if self.pend && !self.pended {
                self.pended = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.pended = false;
            self.reads += 1;
            let end = (self.at + self.step.min(buf.remaining())).min(self.bytes.len());
            buf.put_slice(&self.bytes[self.at..end]);
            self.at = end;
            Poll::Ready(Ok(()))
        }
    }

    impl Readable for Source {
        fn want(&mut self, bytes: usize) {
            self.wanted = bytes;
        }

        async fn ready(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Room for everything; the largest that was asked for.
    #[derive(Default)]
    struct Plenty(usize);

    impl Room for Plenty {
        async fn hold(&mut self, bytes: usize) {
            self.0 = self.0.max(bytes);
        }

        async fn read(&mut self, read: impl Future<Output = io::Result<usize>> + Send) -> io::Result<usize> {
            read.await
        }
    }

    fn frames(sizes: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut wire = Vec::new();
        let mut bodies = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let body = vec![i as u8; size];
            wire.extend_from_slice(&(size as i32).to_be_bytes());
            wire.extend_from_slice(&body);
            bodies.push(body);
        }
        (wire, bodies)
    }

    async fn all(source: &mut Source) -> Vec<Vec<u8>> {
        let mut reader = FrameReader::new(MAX);
        let mut read = Vec::new();
        while let Some(frame) = reader.next(source, &mut Plenty::default()).await.expect("good frames") {
            read.push(frame.to_vec());
        }
        read
    }

    #[tokio::test]
    async fn frames_come_out_whole_whatever_the_reads_are() {
        let (bytes, bodies) = frames(&[0, 1, 3, 70_000, 4, 65_532, 65_533, 300_000, 9]);
        for step in [1, 3, 4, 5, 1000, 65_536, usize::MAX] {
            let mut source = Source { bytes: bytes.clone(), step, ..Source::default() };
            assert_eq!(all(&mut source).await, bodies, "step {step}");
        }
    }

    #[tokio::test]
    async fn many_small_frames_take_few_reads() {
        let (bytes, bodies) = frames(&[100; 1200]);
        let mut source = Source { bytes, step: usize::MAX, ..Source::default() };
        assert_eq!(all(&mut source).await, bodies);
        assert!(source.reads <= 5, "{} reads", source.reads);
    }

    #[tokio::test]
    async fn a_large_frame_is_not_read_past_its_end_and_the_second_takes_two_reads() {
        let (bytes, _) = frames(&[KIB * KIB, KIB * KIB, 5]);
        let mut source = Source { bytes, step: usize::MAX, ..Source::default() };
        let mut reader = FrameReader::new(MAX);
        reader.next(&mut source, &mut Plenty::default()).await.expect("a frame");
        assert_eq!(reader.held_bytes(), 0);
        let before = source.reads;
        reader.next(&mut source, &mut Plenty::default()).await.expect("a frame");
        assert_eq!(source.reads - before, 2);
    }

    /// A read that waited for more than comes would never end.
    #[tokio::test]
    async fn a_read_waits_for_no_more_than_its_frame_lacks() {
        let (bytes, _) = frames(&[300 * KIB, 20, 20 * KIB, 5]);
        let ends = [300 * KIB + 4, 300 * KIB + 28, 320 * KIB + 32, 320 * KIB + 41];
        let mut source = Source { bytes, step: 7000, pend: true, ..Source::default() };
        let mut reader = FrameReader::new(MAX);
        let (mut room, mut most) = (Plenty::default(), 0);
        loop {
            tokio::select! {
                biased;
                frame = reader.next(&mut source, &mut room) => {
                    if frame.expect("good frames").is_none() {
                        break;
                    }
                }
                () = std::future::ready(()) => {
                    let end = ends.into_iter().find(|end| source.at < *end).unwrap_or(source.at + 1);
                    assert!(source.wanted <= end - source.at, "{} at {}", source.wanted, source.at);
                    most = most.max(source.wanted);
                }
            };
        }
        assert_eq!(most, WAITED_FOR_BYTES_MAX);
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (bytes, _) = frames(&[100, 100]);
        let mut source = Source { bytes, step: usize::MAX, ..Source::default() };
        let mut reader = FrameReader::new(MAX);
        for _ in 0..2 {
            reader.next(&mut source, &mut Plenty::default()).await.expect("a frame");
        }
        assert_eq!(reader.held_bytes(), 0);
    }

    #[tokio::test]
    async fn memory_follows_the_bytes_received() {
        for received in [4, 1000, 9000, 200 * KIB, 800 * KIB] {
            let mut bytes = (MAX as i32).to_be_bytes().to_vec();
            bytes.resize(received, 0);
            let mut source = Source { bytes, step: 1000, ..Source::default() };
            let mut reader = FrameReader::new(MAX);
            assert!(
                matches!(reader.next(&mut source, &mut Plenty::default()).await, Err(FrameError::Io(_))),
                "the stream ends inside a frame"
            );
            let held = reader.held_bytes();
            assert!(held <= GROWTH * received + FRAME_FIRST_STEP_BYTES, "{held} for {received}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_comes_is_moved_a_few_times_while_it_is_small() {
        let (bytes, bodies) = frames(&[50 << 20]);
        let mut source = Source { bytes, step: 64 * KIB, pend: true, ..Source::default() };
        let mut reader = FrameReader::new(MAX);
        let mut places = std::collections::BTreeSet::new();
        let mut room = Plenty::default();
        loop {
            tokio::select! {
                biased;
                frame = reader.next(&mut source, &mut room) => {
                    assert!(frame.expect("a good frame").is_some_and(|frame| frame == bodies[0]));
                    break;
                }
                () = std::future::ready(()) => places.insert(reader.received.as_ptr()),
            };
        }
        assert!(places.len() <= 5, "{places:?}");
    }

    #[tokio::test]
    async fn a_large_frame_is_held_whole_once_it_really_comes() {
        for (received, held) in [(4, 0), (10 * KIB, 0), (70 * KIB, MAX + 4)] {
            let mut bytes = (MAX as i32).to_be_bytes().to_vec();
            bytes.resize(received, 0);
            let mut source = Source { bytes, step: 1000, ..Source::default() };
            let mut room = Plenty::default();
            assert!(
                FrameReader::new(MAX).next(&mut source, &mut room).await.is_err(),
                "the stream ends inside a frame"
            );
            assert_eq!(room.0, held, "{received}");
        }
    }

    #[tokio::test]
    async fn strangers_are_recognised() {
        let strangers: [(&[u8], &str); 2] = [(b"GET / HTTP/1.1", "Kafka, not HTTP"), (&[0x16, 3, 1, 2, 0, 1], "TLS")];
        for (sent, hint) in strangers {
            let mut source = Source { bytes: sent.to_vec(), step: usize::MAX, ..Source::default() };
            let refused = FrameReader::new(MAX).next(&mut source, &mut Plenty::default()).await;
            assert!(refused.expect_err("not a frame").to_string().contains(hint), "{hint}");
        }
    }

    #[tokio::test]
    async fn a_bad_size_is_refused_at_once() {
        for size in [-1, i32::MIN] {
            let mut source = Source { bytes: size.to_be_bytes().to_vec(), step: usize::MAX, ..Source::default() };
            assert!(matches!(
                FrameReader::new(MAX).next(&mut source, &mut Plenty::default()).await,
                Err(FrameError::Size(_))
            ));
        }
        let mut source = Source { bytes: vec![0, 0, 0, 101], step: usize::MAX, ..Source::default() };
        let mut reader = FrameReader::new(100);
        assert!(matches!(
            reader.next(&mut source, &mut Plenty::default()).await,
            Err(FrameError::TooLarge { bytes: 101, max: 100, .. })
        ));
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (bytes, bodies) = frames(&[10, 5000, 0, 20]);
        let mut source = Source { bytes, step: 7, pend: true, ..Source::default() };
        let mut reader = FrameReader::new(MAX);
        let mut room = Plenty::default();
        let mut read = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = reader.next(&mut source, &mut room) => frame.expect("good frames"),
                () = std::future::ready(()) => continue,
            };
            match frame {
                Some(frame) => read.push(frame.to_vec()),
                None => break,
            }
        }
        assert_eq!(read, bodies);
    }
}
