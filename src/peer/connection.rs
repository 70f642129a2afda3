//! One socket to one other broker, plain or over TLS: one request under way, one deadline for each, and a new socket
//! after any failure.
//!
//! A call takes the socket out of the connection and puts it back once the answer is decoded. So whatever ends a call
//! before that, a time-out, an answer that cannot be read, or the caller who drops it, ends the socket as well, and an
//! answer that comes late is never taken for another. Calls wait for each other in the order in which they were made.
//! After a failure the next socket is opened no sooner than 50 ms later, doubling up to 1 s, give or take a fifth.
//! Source of the times: Kafka 3.9 `reconnect.backoff.ms`, `reconnect.backoff.max.ms`.
//!
//! Where the other broker asks who comes, a new socket is authenticated first (`login`). It does not do that again:
//! when the time that the other grants is nearly over, the next call opens another socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::Address;
use super::login::{self, Line, LoginError};
use crate::clock::SharedClock;
use crate::transport::{HandshakeError, Stream};
use crate::wire::codec;
use crate::wire::error::CodecError;
use crate::wire::frame::{FrameReader, Room};
use crate::wire::header;

/// What a connection sends.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) key: i16,
    pub(crate) version: i16,
    /// Without the header.
    pub(crate) body: Bytes,
}

/// Why there is no answer. What was asked may have been done all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{to} cannot be reached: {error}")]
    Connect { to: Address, error: io::Error },
    #[error("the connection to {to} was lost: {error}")]
    Lost { to: Address, error: io::Error },
    #[error("{to} gave no answer within {} ms", patience.as_millis())]
    TimedOut { to: Address, patience: Duration },
    #[error("the answer of {to} cannot be read: {reason}")]
    Malformed { to: Address, reason: String },
    #[error("this broker could not authenticate at {to}: {reason}")]
    Unauthenticated { to: Address, reason: String },
}

/// A socket, or the way to the next one.
#[derive(Debug)]
pub(crate) struct Connection {
    client_id: Arc<str>,
    /// Largest answer in bytes.
    frame_bytes_max: usize,
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// Calls that failed since the last answer.
    failures: u32,
    /// When the next socket may be opened.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    to: Address,
    stream: Stream,
    reader: FrameReader,
    correlation_id: i32,
    /// The other broker wants another authentication soon.
    usable_until: Option<Instant>,
}

const RECONNECT_MS_MIN: u64 = 50;
const RECONNECT_MS_MAX: u64 = 1000;
/// How long opening a socket may take. Source: Kafka `socket.connection.setup.timeout.ms`.
const SETUP_PATIENCE: Duration = Duration::from_secs(10);
/// A peer that has vanished is noticed after this time: unacknowledged bytes, and silence on an idle connection.
const VANISHED_AFTER: Duration = Duration::from_secs(10);

impl Connection {
    /// Answers longer than `frame_bytes_max` end the socket.
    pub(crate) fn new(client_id: Arc<str>, frame_bytes_max: usize, clock: SharedClock) -> Self {
        Self { client_id, frame_bytes_max, clock, state: Mutex::default() }
    }

    /// Sends `ask` to the broker at `to` and decodes its answer, the body without its header. Opens a socket if there
    /// is none, or only one to another address. `patience` is for all of it. Cancellation-safe, see above.
    ///
    /// # Errors
    /// No answer came, or one that `decode` refuses; the socket is closed.
    pub(crate) async fn call<T>(
        &self,
        to: &Address,
        ask: Ask,
        patience: Duration,
        decode: impl FnOnce(BytesMut) -> Result<T, CodecError>,
    ) -> Result<T, CallError> {
        let timed_out = || CallError::TimedOut { to: to.clone(), patience };
        let deadline = Instant::now() + patience;
        let Ok(mut state) = timeout(patience, self.state.lock()).await else { return Err(timed_out()) };
        let left = deadline.saturating_duration_since(Instant::now());
        let exchanged = timeout(left, self.exchange(&mut state, to, ask, decode)).await;
        let answer = exchanged.unwrap_or_else(|_| Err(timed_out()));
        match &answer {
            Ok(_) => state.failures = 0,
            Err(_) => {
                state.failures = state.failures.saturating_add(1);
                let pause = reconnect_pause(state.failures, self.clock.random());
                state.not_before = Some(Instant::now() + pause);
            }
        }
        answer
    }

    async fn exchange<T>(
        &self,
        state: &mut State,
        to: &Address,
        ask: Ask,
        decode: impl FnOnce(BytesMut) -> Result<T, CodecError>,
    ) -> Result<T, CallError> {
        let usable = state.open.take().filter(|open| open.to == *to);
        let usable = usable.and_then(|mut open| (!open.is_over()).then_some(open));
        let mut open = match usable {
            Some(open) => open,
            None => self.open(state.not_before.take(), to).await?,
        };
        let decoded = open.ask(&self.client_id, ask, decode).await?;
        state.open = Some(open);
        Ok(decoded)
    }

    async fn open(&self, not_before: Option<Instant>, to: &Address) -> Result<Open, CallError> {
        if let Some(moment) = not_before {
            sleep_until(moment).await;
        }
        let failed = |error| CallError::Connect { to: to.clone(), error };
        let stream = timeout(SETUP_PATIENCE, connected(to)).await;
        let stream = stream.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        let reader = FrameReader::new(self.frame_bytes_max);
        let mut open = Open { to: to.clone(), stream, reader, correlation_id: 0, usable_until: None };
        if let Some(login) = &to.login {
            let mut line = Stranger { open: &mut open, client_id: &self.client_id };
            let authenticating = login::authenticate(&mut line, login, self.clock.random(), self.clock.now_ms());
            let lifetime = timeout(SETUP_PATIENCE, authenticating).await;
            let lifetime = lifetime.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
            let lifetime = lifetime.map_err(|error| match error {
                LoginError::Line(error) => error,
                LoginError::Refused(reason) => CallError::Unauthenticated { to: to.clone(), reason },
            })?;
            open.usable_until = lifetime.map(|lifetime| Instant::now() + lifetime);
        }
        Ok(open)
    }
}

impl Open {
    /// Sends `ask` and decodes its answer. After an error the socket is of no use.
    async fn ask<T>(
        &mut self,
        client_id: &str,
        ask: Ask,
        decode: impl FnOnce(BytesMut) -> Result<T, CodecError>,
    ) -> Result<T, CallError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let to = &self.to;
        let lost = |error| CallError::Lost { to: to.clone(), error };
        let malformed = |reason: String| CallError::Malformed { to: to.clone(), reason };
        let flexible = codec::is_flexible(ask.key, ask.version);
        let (key, version, length) = (ask.key, ask.version, ask.body.len());
        let head = header::put_request(key, version, self.correlation_id, client_id, flexible, length);
        self.stream.write_all(&head).await.map_err(lost)?;
        self.stream.write_all(&ask.body).await.map_err(lost)?;
        let answer = self.reader.next(&mut self.stream, &mut Unshared).await;
        let mut answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(malformed(error.to_string())),
        };
        let correlation_id =
            header::take_response(&mut answer, flexible).map_err(|error| malformed(error.to_string()))?;
        if correlation_id != self.correlation_id {
            return Err(malformed(format!("correlation id {correlation_id} instead of {}", self.correlation_id)));
        }
        decode(answer).map_err(|error| malformed(error.to_string()))
    }

    /// The other side has closed it, or sent what was not asked for, while it was idle; or its time is over.
    fn is_over(&mut self) -> bool {
        self.usable_until.is_some_and(|until| until <= Instant::now()) || !self.stream.is_quiet()
    }
}

async fn connected(to: &Address) -> io::Result<Stream> {
    let socket = TcpStream::connect((to.host.as_str(), to.port)).await?;
    prepare(&socket)?;
    let Some(tls) = &to.tls else { return Ok(Stream::Plain(socket)) };
    let config = tls.client().ok_or_else(|| io::Error::other("there is no truststore to judge its certificate by"))?;
    Stream::connect(socket, config, &to.host).await.map_err(|error| match error {
        HandshakeError::Io(error) => error,
        HandshakeError::Refused(error) => io::Error::other(format!("SSL handshake failed: {error}")),
    })
}

/// A socket to a broker that does not know yet who this one is.
struct Stranger<'a> {
    open: &'a mut Open,
    client_id: &'a str,
}

impl Line for Stranger<'_> {
    type Error = CallError;

    async fn ask(&mut self, key: i16, version: i16, body: Bytes) -> Result<Bytes, CallError> {
        self.open.ask(self.client_id, Ask { key, version, body }, |answer| Ok(answer.freeze())).await
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;

    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, VANISHED_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    Ok(sockopt::set_tcp_user_timeout(stream, VANISHED_AFTER.as_millis() as u32)?)
}

/// Pause before another socket after so many failures in a row.
fn reconnect_pause(failures: u32, random: u128) -> Duration {
    let doubled = RECONNECT_MS_MIN << failures.saturating_sub(1).min(10);
    let ms = doubled.min(RECONNECT_MS_MAX);
    // Four fifths of it and, evenly spread, up to two fifths more.
    let spread = (random % u128::from(2 * ms / 5 + 1)) as u64;
    Duration::from_millis(ms - ms / 5 + spread)
}

/// A connection has its memory for itself: its frame is bounded, and so is the number of peers.
struct Unshared;

impl Room for Unshared {
    async fn hold(&mut self, _bytes: usize) {}

    async fn read(&mut self, read: impl Future<Output = io::Result<usize>> + Send) -> io::Result<usize> {
        read.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_are_spread() {
        for (failures, ms) in [(1, 50), (2, 100), (3, 200), (5, 800), (6, 1000), (40, 1000)] {
            let least = reconnect_pause(failures, 0);
            assert_eq!(least, Duration::from_millis(ms * 4 / 5), "{failures} failures");
            let all: Vec<Duration> = (0..1000).map(|random| reconnect_pause(failures, random)).collect();
            assert_eq!(all.iter().max(), Some(&Duration::from_millis(ms * 6 / 5)), "{failures} failures");
            assert_eq!(all.iter().min(), Some(&least));
        }
    }
}
