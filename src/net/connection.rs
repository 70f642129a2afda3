//! One connection, one task: frames in, stage one in order, replies out in request order (I-23).
//!
//! While replies wait for their second stage further frames are read, up to a bound; a client that does not read its
//! replies is not read either, because writing comes first.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::admission::{Admission, Charge, Receiving};
use crate::api::dispatch::{Dispatched, Origin, dispatch};
use crate::api::handler::{CloseReason, Outcome};
use crate::metrics;
use crate::types::limits::{
    CONNECTION_FETCHES_IN_FLIGHT_MAX, CONNECTION_REPLY_BYTES_WAITING_MAX, CONNECTION_REQUESTS_IN_FLIGHT_MAX,
};
use crate::wire::frame::FrameReader;
use crate::wire::segments::Segments;

/// What a connection needs besides its socket.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) origin: Origin,
    pub(crate) admission: Arc<Admission>,
    /// `socket.request.max.bytes`.
    pub(crate) frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub(crate) idle_max: Duration,
    /// Turns true when the broker stops: what is in flight is answered, nothing more is read.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A reply on its way: its frame, or the end of the connection.
enum Ready {
    Write(Vec<Bytes>),
    Nothing,
    Close(CloseReason),
}

type Pending = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// A reply whose turn has come.
struct Finished {
    ready: Ready,
    /// Request bytes that are free once it is sent.
    _charge: Charge,
    /// Bytes that were counted while it waited.
    waited_bytes: usize,
    is_fetch: bool,
}

/// Serves the connection until either side ends it.
pub(crate) async fn serve(stream: TcpStream, settings: Settings) {
    let peer = settings.origin.peer;
    let (read, write) = stream.into_split();
    let reader = FrameReader::new(settings.frame_bytes_max);
    let receiving = settings.admission.receiving();
    let pending = FuturesOrdered::new();
    let connection = Connection { read, write, reader, receiving, pending, waiting_bytes: 0, fetches: 0, settings };
    match connection.run().await {
        Ok(()) => debug!(%peer, "connection ended"),
        Err(End::Io(error)) => debug!(%peer, %error, "connection lost"),
        Err(End::Closed(CloseReason::Unencodable(error))) => {
            tracing::error!(%peer, error, "a response did not encode; this is a bug");
        }
        Err(End::Closed(CloseReason::FailedWithoutAcks)) => {
            debug!(%peer, "closed: a produce request with acks=0 failed, and closing is the only way to say so");
        }
        Err(End::Closed(CloseReason::Malformed(reason))) => {
            if metrics::refusal_may_be_logged() {
                warn!(%peer, reason, "closed: the request cannot be answered");
            }
        }
    }
}

/// Why a connection ends.
enum End {
    Io(io::Error),
    Closed(CloseReason),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Connection {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    reader: FrameReader,
    /// Memory of a large frame that is coming in.
    receiving: Receiving,
    pending: FuturesOrdered<Pending>,
    /// Bytes of finished replies in `pending`.
    waiting_bytes: usize,
    /// Fetches in `pending`.
    fetches: usize,
    settings: Settings,
}

impl Connection {
    async fn run(mut self) -> Result<(), End> {
        let idle = tokio::time::sleep(self.settings.idle_max);
        tokio::pin!(idle);
        let mut active_at = Instant::now();
        let mut stopping = self.settings.stopping.clone();
        let mut reading = true;
        let admission = Arc::clone(&self.settings.admission);
        // A frame that waits for room in the budget. Replies go on meanwhile, because they make that room.
        let mut held: Option<BytesMut> = None;
        loop {
            let may_read = reading
                && held.is_none()
                && self.pending.len() < CONNECTION_REQUESTS_IN_FLIGHT_MAX
                && self.fetches < CONNECTION_FETCHES_IN_FLIGHT_MAX
                && self.waiting_bytes < CONNECTION_REPLY_BYTES_WAITING_MAX;
            let held_bytes = held.as_ref().map_or(0, BytesMut::len);
            tokio::select! {
                biased;
                Some(finished) = self.pending.next(), if !self.pending.is_empty() => {
                    self.waiting_bytes -= finished.waited_bytes;
                    self.fetches -= usize::from(finished.is_fetch);
                    self.send(finished.ready).await?;
                    active_at = Instant::now();
                }
                frame = self.reader.next(&mut self.read, &mut self.receiving), if may_read => {
                    match frame.map_err(|error| End::Closed(CloseReason::Malformed(error.to_string())))? {
                        Some(frame) => match admission.try_charge(frame.len()) {
                            Some(charge) => {
                                self.receiving.release();
                                self.begin(frame, charge).await?;
                            }
                            None => held = Some(frame),
                        },
                        // The client is gone: nobody reads what is still pending.
                        None => return Ok(()),
                    }
                    active_at = Instant::now();
                }
                charge = admission.charge(held_bytes), if held.is_some() => {
                    self.receiving.release();
                    if let Some(frame) = held.take() {
                        self.begin(frame, charge).await?;
                    }
                }
                () = stopped(&mut stopping), if reading => reading = false,
                () = &mut idle, if self.pending.is_empty() => {
                    if active_at.elapsed() >= self.settings.idle_max {
                        return Ok(());
                    }
                    idle.as_mut().reset(active_at + self.settings.idle_max);
                }
            }
            if !reading && held.is_none() && self.pending.is_empty() {
                return Ok(());
            }
        }
    }

    /// Stage one of one request. A reply that is there at once, with none before it, is written at once.
    async fn begin(&mut self, frame: BytesMut, charge: Charge) -> Result<(), End> {
        let Dispatched { correlation_id, flexible_header, is_fetch, outcome } =
            dispatch(&self.settings.origin, frame).await;
        match outcome {
            Outcome::Later(later) => {
                self.fetches += usize::from(is_fetch);
                self.pending.push_back(Box::pin(async move {
                    let ready = ready(correlation_id, flexible_header, later.await);
                    Finished { ready, _charge: charge, waited_bytes: 0, is_fetch }
                }));
                Ok(())
            }
            now if self.pending.is_empty() => self.send(ready(correlation_id, flexible_header, now)).await,
            now => {
                let ready = ready(correlation_id, flexible_header, now);
                let waited_bytes = match &ready {
                    Ready::Write(parts) => parts.iter().map(Bytes::len).sum(),
                    _ => 0,
                };
                self.waiting_bytes += waited_bytes;
                let finished = Finished { ready, _charge: charge, waited_bytes, is_fetch: false };
                self.pending.push_back(Box::pin(std::future::ready(finished)));
                Ok(())
            }
        }
    }

    async fn send(&mut self, ready: Ready) -> Result<(), End> {
        match ready {
            Ready::Write(parts) => {
                // Who does not read its replies is as idle as who sends nothing.
                let write = write_all(&mut self.write, &parts);
                match tokio::time::timeout(self.settings.idle_max, write).await {
                    Ok(written) => Ok(written?),
                    Err(_) => Err(End::Io(io::ErrorKind::TimedOut.into())),
                }
            }
            Ready::Nothing => Ok(()),
            Ready::Close(reason) => Err(End::Closed(reason)),
        }
    }
}

/// Resolves once the broker stops, or is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await.map(drop);
}

fn ready(correlation_id: i32, flexible_header: bool, outcome: Outcome) -> Ready {
    match outcome {
        Outcome::Now(body) => Ready::Write(frame(correlation_id, flexible_header, body)),
        Outcome::Nothing => Ready::Nothing,
        Outcome::Close(reason) => Ready::Close(reason),
        Outcome::Later(_) => unreachable!("a second stage answers"),
    }
}

/// Length, correlation id, tagged fields of response header 1, body.
fn frame(correlation_id: i32, flexible_header: bool, body: Segments) -> Vec<Bytes> {
    let mut head = BytesMut::with_capacity(9);
    head.put_i32((4 + usize::from(flexible_header) + body.len()) as i32);
    head.put_i32(correlation_id);
    if flexible_header {
        head.put_u8(0);
    }
    let mut parts = body.into_parts();
    match parts.first_mut() {
        // A short first part is joined with the head: one slice less, and small replies are one write of one slice.
        Some(first) if first.len() <= JOIN_BYTES_MAX => {
            head.extend_from_slice(first);
            *first = head.freeze();
        }
        _ => parts.insert(0, head.freeze()),
    }
    parts
}

const JOIN_BYTES_MAX: usize = 4096;

/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

async fn write_all(write: &mut OwnedWriteHalf, parts: &[Bytes]) -> io::Result<()> {
    if let [only] = parts {
        return write.write_all(only).await;
    }
    let mut at = 0;
    let mut skip = 0;
    while at < parts.len() {
        let slices: Vec<IoSlice<'_>> = parts[at..]
            .iter()
            .take(SLICES_MAX)
            .enumerate()
            .map(|(i, part)| IoSlice::new(if i == 0 { &part[skip..] } else { part }))
            .collect();
        let mut written = write.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while at < parts.len() && written >= parts[at].len() - skip {
            written -= parts[at].len() - skip;
            skip = 0;
            at += 1;
        }
        skip += written;
    }
    Ok(())
}
