//! One reply on its way into the socket: its frame, and the pace at which the client takes it.
//!
//! Most replies fit the socket's buffer at once. For one that does not the pace is looked at each second: records in
//! memory that go out too slowly give way when others wait for room (`api::replies`), and what is left of them after
//! the first second becomes bytes of its own, because a slice may pin the whole frame that its batch once came in.
//! Records in files cost nothing while they wait.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::time::Instant;

pub(super) use super::body::WriteError;
use super::body::{Body, Sent};
use super::idleness::Idleness;
use super::send_buffer::SendBuffer;
use crate::api::replies::{self, Claim};
use crate::transport::Stream;
use crate::types::limits::{REPLY_PACE_SECONDS, REPLY_REST_SECONDS_MAX};
use crate::types::place::Place;
use crate::wire::segments::Segments;

/// A frame, with what its records hold of the budget of all replies.
pub(super) struct Reply {
    body: Body,
    claim: Option<Claim>,
}

/// A first part up to this length is joined with the frame's head: one slice less, and small replies are one slice.
const JOIN_BYTES_MAX: usize = 4096;

/// Bytes that are sent without letting other tasks run.
const SEND_BYTES_MAX: usize = 1 << 20;

/// Bytes that are copied without letting other tasks run.
const COPY_BYTES_MAX: usize = 1 << 20;

const PACE: Duration = Duration::from_secs(REPLY_PACE_SECONDS);

impl Reply {
    /// Length, correlation id, tagged fields of response header 1, body.
    pub(super) fn new(correlation_id: i32, flexible_header: bool, body: Segments, claim: Option<Claim>) -> Self {
        let mut head = BytesMut::with_capacity(9);
        head.put_i32((4 + usize::from(flexible_header) + body.len()) as i32);
        head.put_i32(correlation_id);
        if flexible_header {
            head.put_u8(0);
        }
        let mut parts = VecDeque::from(body.into_parts());
        match parts.front_mut() {
            Some(Place::Memory(first)) if first.len() <= JOIN_BYTES_MAX => {
                head.extend_from_slice(first);
                *first = head.freeze();
            }
            _ => parts.push_front(head.freeze().into()),
        }
        Self { body: Body::new(parts), claim }
    }

    /// A frame of these bytes alone.
    pub(super) fn bare(body: Bytes) -> Self {
        let mut frame = BytesMut::with_capacity(4 + body.len());
        frame.put_i32(body.len() as i32);
        frame.extend_from_slice(&body);
        Self { body: Body::new(VecDeque::from([frame.freeze().into()])), claim: None }
    }

    /// Bytes that it holds in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.body.held_bytes()
    }

    /// Whether its bytes are counted against the budget of records.
    pub(super) fn has_records(&self) -> bool {
        self.claim.is_some()
    }
}

/// Copies what is left in memory, piece by piece, so that it pins nothing else.
async fn own(body: &mut Body) {
    let mut copied = 0;
    for part in body.held() {
        *part = Bytes::copy_from_slice(part);
        copied += part.len();
        if copied >= COPY_BYTES_MAX {
            copied = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Sends the whole reply, some of it in each `idle_max`: see [`Idleness`]. Answers whether the socket was full
/// meanwhile.
///
/// # Errors
/// The connection broke, the client takes too little, the reply gave way, or what it promised cannot be read.
pub(super) async fn write(
    stream: &mut Stream,
    mut reply: Reply,
    buffer: &mut SendBuffer,
    idle_max: Duration,
) -> Result<bool, WriteError> {
    buffer.begins(stream, || reply.body.has_files());
    let mut sent = 0;
    let mut full = Full(None);
    while !reply.body.is_empty() && !full.is_full() && sent < SEND_BYTES_MAX {
        match reply.body.try_send(stream)? {
            Sent::Some { bytes, is_full } => {
                reply.body.advance(bytes);
                sent += bytes;
                full.found(is_full);
            }
            Sent::Full => full.found(true),
            Sent::Cold => break,
        }
    }
    if reply.body.is_empty() && !stream.has_unsent() {
        return Ok(full.is_full());
    }
    // On the heap: a connection that is idle does not pay for it.
    Box::pin(write_slowly(stream, reply, full, buffer, idle_max)).await?;
    Ok(true)
}

/// Since when the socket is full.
struct Full(Option<Instant>);

impl Full {
    fn is_full(&self) -> bool {
        self.0.is_some()
    }

    fn found(&mut self, is_full: bool) {
        self.0 = is_full.then(|| self.0.unwrap_or_else(Instant::now));
    }
}

async fn write_slowly(
    stream: &mut Stream,
    reply: Reply,
    mut full: Full,
    buffer: &mut SendBuffer,
    idle_max: Duration,
) -> Result<(), WriteError> {
    let timed_out = || WriteError::Io(io::ErrorKind::TimedOut.into());
    let Reply { mut body, mut claim } = reply;
    let all = body.len();
    let (mut left, mut held) = (all, body.held_bytes());
    // What waits by then is taken first.
    let waited = stream.waiting_bytes();
    let (mut judged_at, mut taken_then) = (Instant::now() + PACE, 0);
    let mut idleness = Idleness::new(idle_max);
    let (mut is_slow, mut is_own) = (false, false);
    let mut at_once = if full.is_full() { 0 } else { SEND_BYTES_MAX };
    while left > 0 {
        if at_once >= SEND_BYTES_MAX {
            at_once = 0;
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            sent = send_more(stream, &mut body, claim.as_ref(), &mut full, buffer) => {
                let (sent, sent_of_held) = sent?;
                (left, held, at_once) = (left - sent, held - sent_of_held, at_once + sent);
                if let Some(claim) = &mut claim {
                    claim.keep(held);
                }
            }
            () = asked_to_give_way(claim.as_ref()), if is_slow => return Err(WriteError::GaveWay),
            () = tokio::time::sleep_until(judged_at.min(idleness.look_at())) => {}
        }
        let now = Instant::now();
        if left == 0 || now < judged_at.min(idleness.look_at()) {
            continue;
        }
        let taken = (waited + all - left).saturating_sub(stream.waiting_bytes());
        if idleness.is_over(taken, 0) {
            return Err(timed_out());
        }
        if now >= judged_at {
            if let Full(Some(since)) = full {
                buffer.waits(stream, since.elapsed());
            }
            let in_time = taken.saturating_sub(taken_then) as u64;
            is_slow = in_time * REPLY_REST_SECONDS_MAX < left as u64 * REPLY_PACE_SECONDS;
            if !std::mem::replace(&mut is_own, true) {
                own(&mut body).await;
            }
            (judged_at, taken_then) = (Instant::now() + PACE, taken);
        }
    }
    // Over TLS: what was encrypted last, which is counted no more.
    Ok(tokio::time::timeout(idle_max, stream.flush()).await.map_err(|_| timed_out())??)
}

/// Sends some of it as soon as the socket takes it. Answers how much that was, and how much of it was held in memory.
/// Cancellation-safe: it does not wait once something is sent.
async fn send_more(
    stream: &mut Stream,
    body: &mut Body,
    claim: Option<&Claim>,
    full: &mut Full,
    buffer: &mut SendBuffer,
) -> Result<(usize, usize), WriteError> {
    loop {
        if let Full(Some(since)) = *full {
            body.forget_warm();
            stream.writable().await?;
            full.found(false);
            buffer.made_room(stream, since.elapsed(), body.is_of_file());
        }
        body.brought().await?;
        match body.try_send(stream)? {
            Sent::Some { bytes, is_full } => {
                full.found(is_full);
                return Ok((bytes, body.advance(bytes)));
            }
            Sent::Full => full.found(true),
            Sent::Cold => {
                if let Some(run) = body.cold() {
                    let run = run.clone();
                    body.bring(replies::read_cold(claim, move || run.bring_in()).boxed());
                }
            }
        }
    }
}

async fn asked_to_give_way(claim: Option<&Claim>) {
    match claim {
        Some(claim) => claim.asked_to_give_way().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::ops::Range;
    use std::os::fd::AsFd as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use socket2::SockRef;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::send_buffer::SendBuffers;
    use super::*;
    use crate::api::replies::Replies;
    use crate::types::place::{BatchFile, Cold, FilePiece, FileRun, RunAt};

    const MIB: usize = 1 << 20;
    const HOUR: Duration = Duration::from_secs(3600);

    /// With a send buffer that stays as it is.
    async fn written(socket: &mut Stream, reply: Reply, idle_max: Duration) -> Result<bool, WriteError> {
        write(socket, reply, &mut SendBuffers::new(None, 0).of_connection(), idle_max).await
    }

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), Stream::Plain(accepted.unwrap().0))
    }

    async fn some(client: &mut TcpStream, piece: &mut [u8]) -> usize {
        let got = client.read(piece).await.unwrap();
        assert!(got > 0, "cut off");
        got
    }

    fn body(bytes: usize) -> Segments {
        let mut body = Segments::default();
        for at in (0..bytes).step_by(MIB) {
            body.push(Bytes::from(vec![(at / MIB) as u8; MIB.min(bytes - at)]).into());
        }
        body
    }

    async fn claim(replies: &Arc<Replies>, bytes: usize) -> Option<Claim> {
        let mut claim = replies.claim_at_least(bytes).await;
        assert!(claim.settle(bytes));
        Some(claim)
    }

    #[tokio::test]
    async fn a_reply_arrives_whole_however_slowly_it_is_taken_and_gives_back_what_was_sent() {
        let replies = Replies::new(64 * MIB as u64, 1);
        let (mut client, mut socket) = pair().await;
        let reply = Reply::new(7, true, body(20 * MIB + 5), claim(&replies, 20 * MIB).await);
        assert_eq!(reply.held_bytes(), 20 * MIB + 5 + 9);
        let sending = tokio::spawn(async move { written(&mut socket, reply, HOUR).await });
        let mut got = vec![0; 9 + 10 * MIB];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got[..9], [[&(20 * MIB as u32 + 10).to_be_bytes()[..], &[0, 0, 0, 7]].concat(), vec![0]].concat());
        assert!(replies.free_bytes() >= 54 * MIB);
        // Longer than the pace is looked at: the rest becomes bytes of its own.
        tokio::time::sleep(PACE * 3 / 2).await;
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 20 * MIB + 5 + 9);
        assert!((0..=20 * MIB).step_by(MIB).all(|at| got[9 + at] == (at / MIB) as u8));
        assert!(sending.await.unwrap().is_ok());
        assert_eq!(replies.free_bytes(), 64 * MIB);
    }

    #[tokio::test]
    async fn a_reply_that_nobody_takes_gives_way_only_if_others_wait() {
        let replies = Replies::new(64 * MIB as u64, 1);
        let (_client, mut socket) = pair().await;
        let reply = Reply::new(7, true, body(64 * MIB), claim(&replies, 64 * MIB).await);
        let sending = written(&mut socket, reply, HOUR);
        tokio::pin!(sending);
        assert!(tokio::time::timeout(PACE * 2, &mut sending).await.is_err(), "nobody waits");
        let waits = replies.claim_at_least(32 * MIB);
        let (sent, other) = tokio::time::timeout(HOUR, async { tokio::join!(sending, waits) }).await.unwrap();
        assert!(matches!(sent, Err(WriteError::GaveWay)));
        assert_eq!(other.bytes_max(), 32 * MIB);
    }

    #[tokio::test]
    async fn a_reply_that_takes_longer_than_allowed_ends_the_connection() {
        let (_client, mut socket) = pair().await;
        let sent = written(&mut socket, Reply::new(7, true, body(64 * MIB), None), PACE / 10).await;
        assert!(matches!(sent, Err(WriteError::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    }

    /// A consumer on a slow link never got past such a reply.
    #[tokio::test]
    async fn a_reply_that_is_taken_all_the_time_may_take_longer_than_a_connection_may_be_idle() {
        let (mut client, mut socket) = pair().await;
        let reply = Reply::new(7, true, body(24 * MIB), None);
        let sending = tokio::spawn(async move { written(&mut socket, reply, Duration::from_millis(300)).await });
        let (mut got, mut piece, began) = (0, vec![0; MIB], Instant::now());
        while got < 24 * MIB {
            tokio::time::sleep(Duration::from_millis(40)).await;
            got += some(&mut client, &mut piece).await;
        }
        assert!(sending.await.unwrap().is_ok() && began.elapsed() > Duration::from_millis(600));
    }

    /// The kernel takes megabytes at once, and has room for more after a third of them: a client that takes less in the
    /// time that a connection may be idle was cut off.
    #[tokio::test]
    async fn a_reply_of_which_much_waits_in_the_kernel_is_not_idle_while_that_is_taken() {
        let (mut client, mut socket) = pair().await;
        SockRef::from(&client).set_recv_buffer_size(128 << 10).unwrap();
        socket.set_send_buffer_bytes(2 * MIB).unwrap();
        let kernel_takes_at_most = 6 * MIB;
        let bytes = kernel_takes_at_most + 2 * MIB;
        let reply = Reply::new(7, true, body(bytes), None);
        let sending = tokio::spawn(async move { written(&mut socket, reply, Duration::from_millis(300)).await });
        let (mut got, mut piece) = (0, vec![0; 64 << 10]);
        while got < bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
            got += some(&mut client, &mut piece).await;
        }
        assert!(sending.await.unwrap().is_ok());
    }

    /// Its pages are only lent to the socket, so more of them may wait there than of what is copied.
    #[tokio::test]
    async fn a_quick_client_gets_more_at_once_of_what_the_kernel_sends_as_long_as_it_is_quick() {
        let usual = 2 * 102_400;
        for (by_kernel, free_bytes, largest) in [(true, MIB, MIB), (false, MIB, usual), (true, MIB - 1, usual)] {
            let buffers = SendBuffers::new(Some(102_400), 4 * free_bytes);
            let mut buffer = buffers.of_connection();
            let (mut client, mut socket) = pair().await;
            SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
            socket.set_send_buffer_bytes(102_400).unwrap();
            let Stream::Plain(plain) = &socket else { unreachable!("it is plain") };
            let watched = SockRef::from(plain).try_clone().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            let stored = numbers(81 * MIB);
            file.write_all(&stored).unwrap();
            let mut segments = Segments::default();
            segments.push(Stored::place_in(stored, None, by_kernel.then_some(file)).1);
            let reply = Reply::new(7, false, segments, None);
            let sending = tokio::spawn(async move {
                write(&mut socket, reply, &mut buffer, HOUR).await.ok().unwrap();
                (socket, buffer)
            });
            let (mut piece, mut seen, mut left) = (vec![0; 1 << 16], 0, 8 + 81 * MIB);
            while left > 40 * MIB {
                seen = seen.max(watched.send_buffer_size().unwrap());
                left -= some(&mut client, &mut piece).await;
            }
            assert_eq!(seen, largest, "by the kernel: {by_kernel}, {free_bytes} free");
            // A client that pauses has it taken away.
            tokio::time::sleep(PACE * 2).await;
            assert_eq!(watched.send_buffer_size().unwrap(), usual);
            assert_eq!(buffers.free(), free_bytes / MIB - usize::from(largest == MIB), "what is there counts");
            while left > 0 {
                left -= some(&mut client, &mut piece).await;
            }
            let (socket, mut buffer) = sending.await.unwrap();
            // Whoever has taken all leaves it to others.
            buffer.rests(&socket);
            assert_eq!((watched.send_buffer_size().unwrap(), buffers.free()), (usual, free_bytes / MIB));
            socket.shut_down();
        }
    }

    /// The kernel would keep it for as long as the client likes, and nobody would count it.
    #[tokio::test]
    async fn what_waits_at_the_end_of_a_connection_counts_until_it_is_taken_or_forgotten() {
        for client_then in ["reads", "rests", "is gone"] {
            let buffers = SendBuffers::new(Some(102_400), 4 * MIB);
            let (mut client, mut socket) = pair().await;
            SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
            let mut buffer = buffers.of_connection();
            for _ in 0..4 {
                buffer.made_room(&socket, Duration::ZERO, true);
            }
            let sent = socket.try_write_vectored(&[io::IoSlice::new(&vec![0; 4 * MIB])]).unwrap();
            assert!((300_000..2 * MIB).contains(&sent) && buffers.free() == 0, "{sent}");
            let (mut got, began) = (Vec::new(), Instant::now());
            match client_then {
                "reads" => {
                    let (_, read) = tokio::join!(buffer.leaves(socket, HOUR), client.read_to_end(&mut got));
                    assert_eq!((read.unwrap(), got.len()), (sent, sent));
                }
                "rests" => {
                    tokio::time::pause();
                    buffer.leaves(socket, HOUR).await;
                    tokio::time::resume();
                    assert!(began.elapsed() >= HOUR, "it may go on");
                    let error = client.read_to_end(&mut got).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                }
                _ => {
                    drop(client);
                    buffer.leaves(socket, HOUR).await;
                }
            }
            assert_eq!(buffers.free(), 1);
        }
    }

    /// Batches in a file of which every other MiB is cold, and, if so told, one byte cannot be read. If there is a file
    /// in fact, the kernel may send every fourth MiB.
    #[derive(Debug)]
    struct Stored {
        bytes: Bytes,
        damaged_at: Option<usize>,
        brought: AtomicUsize,
        file: Option<File>,
        pieces: AtomicUsize,
    }

    impl Stored {
        fn place(bytes: Bytes, damaged_at: Option<usize>) -> (Arc<Self>, Place) {
            Self::place_in(bytes, damaged_at, None)
        }

        fn place_in(bytes: Bytes, damaged_at: Option<usize>, file: Option<File>) -> (Arc<Self>, Place) {
            let left = bytes.len();
            let (brought, pieces) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let stored = Arc::new(Self { bytes, damaged_at, brought, file, pieces });
            let file = Arc::clone(&stored) as Arc<dyn BatchFile>;
            (stored, Place::File(FileRun::new(file, RunAt { batch: 0, sent: 0, left })))
        }
    }

    impl BatchFile for Stored {
        fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
            let from = at.sent as usize;
            if from / MIB % 2 == 1 && self.brought.load(Ordering::Relaxed) <= from {
                return Err(Cold);
            }
            let bytes = buffer.len().min(at.left);
            buffer[..bytes].copy_from_slice(&self.bytes[from..from + bytes]);
            parts.clear();
            parts.extend([0..bytes / 2, bytes / 2..bytes]);
            Ok(())
        }

        fn piece(&self, at: RunAt) -> Option<FilePiece<'_>> {
            let (file, from) = (self.file.as_ref()?, at.sent as usize);
            let bytes = (MIB - from % MIB).min(at.left);
            (from / MIB).is_multiple_of(4).then(|| {
                self.pieces.fetch_add(1, Ordering::Relaxed);
                FilePiece { file: file.as_fd(), start: from as u64, bytes }
            })
        }

        fn is_cached(&self, _: RunAt) -> bool {
            false
        }

        fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
            let from = at.sent as usize;
            let to = (from + MIB / 2).min(self.bytes.len());
            if self.damaged_at.is_some_and(|damaged| (from..to).contains(&damaged)) {
                return Err(io::Error::other("a flipped bit"));
            }
            self.brought.fetch_max(to, Ordering::Relaxed);
            Ok(vec![self.bytes.slice(from..from + 1), self.bytes.slice(from + 1..to)])
        }

        fn advanced(&self, at: RunAt, bytes: usize) -> RunAt {
            RunAt { batch: 0, sent: at.sent + bytes as u32, left: at.left - bytes }
        }
    }

    fn numbers(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at / 251) as u8).collect()
    }

    #[tokio::test]
    async fn records_in_files_arrive_between_others_and_are_not_counted() {
        let replies = Replies::new(MIB as u64, 1);
        let (mut client, mut socket) = pair().await;
        let stored = numbers(9 * MIB + 77);
        let mut segments = Segments::default();
        segments.push(Bytes::from_static(b"head").into());
        segments.push(Stored::place(stored.clone(), None).1);
        segments.push(Bytes::from_static(b"between").into());
        segments.push(Stored::place(stored.slice(..10), None).1);
        segments.push(Bytes::from_static(b"tail").into());
        let expected = [&b"head"[..], &stored, b"between", &stored[..10], b"tail"].concat();
        let reply = Reply::new(7, false, segments, Some(Claim::nothing(&replies)));
        assert_eq!(reply.held_bytes(), 8 + 4 + 7 + 4);
        let sending = tokio::spawn(async move { written(&mut socket, reply, HOUR).await });
        let mut got = vec![0; 5 * MIB];
        client.read_exact(&mut got).await.unwrap();
        tokio::time::sleep(PACE * 3 / 2).await;
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got[..4], (expected.len() as u32 + 4).to_be_bytes());
        assert!(got[8..] == expected, "byte for byte");
        assert!(sending.await.unwrap().is_ok());
        assert_eq!(replies.free_bytes(), MIB);
    }

    /// Never a wrong byte, and never a frame that goes on as if nothing had happened.
    #[tokio::test]
    async fn a_reply_whose_records_cannot_be_read_is_cut_off() {
        let (mut client, mut socket) = pair().await;
        let stored = numbers(4 * MIB);
        let mut segments = Segments::default();
        segments.push(Stored::place(stored.clone(), Some(3 * MIB + 5)).1);
        let sending =
            tokio::spawn(async move { written(&mut socket, Reply::new(7, false, segments, None), HOUR).await });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(matches!(sending.await.unwrap(), Err(WriteError::Unreadable(_))));
        assert_eq!(got.len(), 8 + 3 * MIB);
        assert!(got[8..] == stored[..3 * MIB]);
    }

    #[tokio::test]
    async fn the_kernel_sends_what_lies_in_one_piece_between_what_is_copied() {
        for taken_at_once in [usize::MAX, 100_000] {
            let (mut client, mut socket) = pair().await;
            let stored = numbers(21 * MIB + 77);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&stored).unwrap();
            let (stored, place) = Stored::place_in(stored, None, Some(file));
            let mut segments = Segments::default();
            segments.push(Bytes::from_static(b"head").into());
            segments.push(place);
            segments.push(Bytes::from_static(b"tail").into());
            let sending =
                tokio::spawn(async move { written(&mut socket, Reply::new(7, false, segments, None), HOUR).await });
            let mut got = Vec::new();
            while (&mut client).take(taken_at_once as u64).read_to_end(&mut got).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
            assert!(sending.await.unwrap().is_ok());
            assert!(got[8..] == [b"head", &stored.bytes[..], b"tail"].concat(), "byte for byte");
            assert!(stored.pieces.load(Ordering::Relaxed) >= 6);
        }
    }

    /// What the file turns out to lack is read as what is cold, and found missing.
    #[tokio::test]
    async fn a_piece_that_the_file_lacks_cuts_the_reply_off() {
        let (mut client, mut socket) = pair().await;
        let (stored, file) = (numbers(4 * MIB), tempfile::tempfile().unwrap());
        file.set_len(MIB as u64 / 4).unwrap();
        let mut segments = Segments::default();
        segments.push(Stored::place_in(stored, Some(MIB / 3), Some(file)).1);
        let sending =
            tokio::spawn(async move { written(&mut socket, Reply::new(7, false, segments, None), HOUR).await });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(matches!(sending.await.unwrap(), Err(WriteError::Unreadable(_))));
        assert_eq!(got.len(), 8 + MIB / 4);
    }

    /// A client that reads nothing holds the places of its reply, and nothing of the files.
    #[tokio::test]
    async fn what_waits_for_a_client_is_read_when_there_is_room_for_it() {
        let (mut client, mut socket) = pair().await;
        let (stored, place) = Stored::place(numbers(60 * MIB), None);
        let mut segments = Segments::default();
        segments.push(place);
        let sending =
            tokio::spawn(async move { written(&mut socket, Reply::new(7, false, segments, None), HOUR).await });
        tokio::time::sleep(PACE).await;
        assert!(stored.brought.load(Ordering::Relaxed) < 30 * MIB && !sending.is_finished());
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(got[8..] == stored.bytes);
        assert!(sending.await.unwrap().is_ok());
    }
}
