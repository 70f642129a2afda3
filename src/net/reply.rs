//! One reply on its way into the socket: its frame, and the pace at which the client takes it.
//!
//! Most replies fit the socket's buffer at once. For one that does not the pace is looked at each second: records that
//! go out too slowly give way when others wait for room (`api::replies`), and what is left after the first second
//! becomes bytes of its own, because a slice may pin the whole frame that its batch once came in.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use crate::api::replies::Claim;
use crate::transport::Stream;
use crate::types::limits::{REPLY_PACE_SECONDS, REPLY_REST_SECONDS_MAX};
use crate::wire::segments::Segments;

/// A frame, with what its records hold of the budget of all replies.
pub(super) struct Reply {
    parts: VecDeque<Bytes>,
    claim: Option<Claim>,
}

/// Why a reply was not sent to its end.
pub(super) enum WriteError {
    Io(io::Error),
    /// Others wait for room, and the client is slow.
    GaveWay,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A first part up to this length is joined with the frame's head: one slice less, and small replies are one slice.
const JOIN_BYTES_MAX: usize = 4096;

/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

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
            Some(first) if first.len() <= JOIN_BYTES_MAX => {
                head.extend_from_slice(first);
                *first = head.freeze();
            }
            _ => parts.push_front(head.freeze()),
        }
        Self { parts, claim }
    }

    /// A frame of these bytes alone.
    pub(super) fn bare(body: Bytes) -> Self {
        let mut frame = BytesMut::with_capacity(4 + body.len());
        frame.put_i32(body.len() as i32);
        frame.extend_from_slice(&body);
        Self { parts: VecDeque::from([frame.freeze()]), claim: None }
    }

    /// Bytes still to be sent.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether its bytes are counted against the budget of records.
    pub(super) fn has_records(&self) -> bool {
        self.claim.is_some()
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        self.parts.iter().take(SLICES_MAX).map(|part| IoSlice::new(part)).collect()
    }

    /// Lets go of what was sent.
    fn advance(&mut self, mut sent: usize) {
        while let Some(first) = self.parts.front_mut() {
            if sent < first.len() {
                first.advance(sent);
                return;
            }
            sent -= first.len();
            self.parts.pop_front();
        }
    }

    /// Copies what is left, piece by piece, so that it pins nothing else.
    async fn own(&mut self) {
        let mut copied = 0;
        for part in &mut self.parts {
            *part = Bytes::copy_from_slice(part);
            copied += part.len();
            if copied >= COPY_BYTES_MAX {
                copied = 0;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Sends the whole reply, in `time_max`.
///
/// # Errors
/// The connection broke, the time is over, or the reply gave way.
pub(super) async fn write(stream: &mut Stream, mut reply: Reply, time_max: Duration) -> Result<(), WriteError> {
    while !reply.parts.is_empty() {
        match stream.try_write_vectored(&reply.slices()) {
            Ok(0) => return Err(WriteError::Io(io::ErrorKind::WriteZero.into())),
            Ok(sent) => reply.advance(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(WriteError::Io(error)),
        }
    }
    if reply.parts.is_empty() && !stream.has_unsent() {
        return Ok(());
    }
    // On the heap: a connection that is idle does not pay for it.
    match tokio::time::timeout(time_max, Box::pin(write_slowly(stream, reply))).await {
        Ok(written) => written,
        Err(_) => Err(WriteError::Io(io::ErrorKind::TimedOut.into())),
    }
}

async fn write_slowly(stream: &mut Stream, mut reply: Reply) -> Result<(), WriteError> {
    let mut left = reply.len();
    let (mut judged_at, mut left_then) = (Instant::now() + PACE, left);
    let (mut is_slow, mut is_own) = (false, false);
    while left > 0 {
        let slices = reply.slices();
        tokio::select! {
            biased;
            sent = stream.write_vectored(&slices) => {
                let sent = sent?;
                if sent == 0 {
                    return Err(WriteError::Io(io::ErrorKind::WriteZero.into()));
                }
                drop(slices);
                reply.advance(sent);
                left -= sent;
                if let Some(claim) = &mut reply.claim {
                    claim.keep(left);
                }
            }
            () = asked_to_give_way(reply.claim.as_ref()), if is_slow => return Err(WriteError::GaveWay),
            () = tokio::time::sleep_until(judged_at) => {}
        }
        if Instant::now() >= judged_at {
            let sent = (left_then - left) as u64;
            is_slow = sent * REPLY_REST_SECONDS_MAX < left as u64 * REPLY_PACE_SECONDS;
            if !std::mem::replace(&mut is_own, true) {
                reply.own().await;
            }
            (judged_at, left_then) = (Instant::now() + PACE, left);
        }
    }
    // Over TLS: what was encrypted last, which is counted no more.
    Ok(stream.flush().await?)
}

async fn asked_to_give_way(claim: Option<&Claim>) {
    match claim {
        Some(claim) => claim.asked_to_give_way().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::api::replies::Replies;

    const MIB: usize = 1 << 20;
    const HOUR: Duration = Duration::from_secs(3600);

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), Stream::Plain(accepted.unwrap().0))
    }

    fn body(bytes: usize) -> Segments {
        let mut body = Segments::default();
        for at in (0..bytes).step_by(MIB) {
            body.push(Bytes::from(vec![(at / MIB) as u8; MIB.min(bytes - at)]));
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
        assert_eq!(reply.len(), 20 * MIB + 5 + 9);
        let sending = tokio::spawn(async move { write(&mut socket, reply, HOUR).await });
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
        let sending = write(&mut socket, reply, HOUR);
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
        let sent = write(&mut socket, Reply::new(7, true, body(64 * MIB), None), PACE / 10).await;
        assert!(matches!(sent, Err(WriteError::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    }
}
