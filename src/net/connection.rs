//! One connection, one task: frames in, stage one in order, replies out in request order (I-23).
//!
//! While replies wait for their second stage further frames are read, up to a bound; a client that does not read its
//! replies is not read either, because writing comes first. A fetch begins when all replies before its own are sent, so
//! that what it gathers goes out at once.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::FuturesOrdered;
use futures_util::{StreamExt, poll};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::admission::{Admission, Charge, Charging, Receiving};
use super::handshake;
use super::idleness::Idleness;
use super::refusals::{Refusal, Refusals, shown};
use super::reply::{self, Reply, WriteError};
use super::send_buffer::{SendBuffer, SendBuffers};
use super::time_slice::TimeSlice;
use super::write_queue::{QueuedReply, WriteQueue, WriteQueues};
use crate::api::dispatch::{self, Dispatched, Origin};
use crate::api::handler::{CloseReason, Outcome};
use crate::api::security::authentication::{Answered, Authentication, SaslGate, SaslReply, Taken};
use crate::metrics::{self, Series};
use crate::security::tls::TlsListener;
use crate::transport::Stream;
use crate::types::limits::CONNECTION_REQUESTS_IN_FLIGHT_MAX;
use crate::wire::frame::{FrameError, FrameReader};

/// What a connection needs besides its socket.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) origin: Origin,
    /// `None`: bytes are plain.
    pub(crate) tls: Option<Arc<TlsListener>>,
    pub(crate) admission: Arc<Admission>,
    /// Where other brokers speak: what their connections are charged to instead, so that they never wait for clients
    /// that wait for them.
    pub(crate) of_brokers: Option<Arc<Admission>>,
    /// Where clients prove who they are: what they are charged to until they have, so that strangers hold up nobody
    /// but each other.
    pub(crate) of_strangers: Arc<Admission>,
    /// What of refusals is logged.
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) write_queues: Arc<WriteQueues>,
    pub(crate) send_buffers: SendBuffers,
    /// Where clients have to prove who they are before anything else.
    pub(crate) sasl: Option<Arc<SaslGate>>,
    /// `socket.request.max.bytes`.
    pub(crate) frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub(crate) idle_max: Duration,
    /// Turns true when the broker stops: what is in flight is answered, nothing more is read.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A reply on its way: its frame, or the end of the connection.
enum Ready {
    Write(Reply),
    /// The last one.
    WriteAndClose(Reply, CloseReason),
    Nothing,
    Close(CloseReason),
}

type Pending = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// A request that is counted when its reply has been sent.
#[derive(Clone, Copy)]
struct Timed {
    series: Option<Series>,
    begun: Instant,
}

/// A reply that is next in response order.
struct Finished {
    ready: Ready,
    timed: Timed,
    /// Request bytes that are free once it is sent.
    _charge: Option<Charge>,
    /// What was counted while it waited.
    _waiting: Option<QueuedReply>,
}

/// Serves the connection until either side ends it. Answers what is left of it, if it came to a first request.
pub(crate) async fn serve(socket: TcpStream, mut settings: Settings) -> Option<Leaving> {
    let peer = settings.origin.peer;
    let stream = match settings.tls.take() {
        None => Stream::Plain(socket),
        // On the heap: whoever has shaken hands does not pay for it any more.
        Some(tls) => {
            let stopping = settings.stopping.clone();
            let accepted =
                Box::pin(handshake::accept(socket, &tls, peer, settings.idle_max, &settings.refusals, stopping)).await;
            let (stream, principal) = accepted?;
            settings.origin.principal = Arc::new(principal);
            stream
        }
    };
    let sasl = settings.sasl.as_ref().map(|gate| Box::new(Authentication::new(gate)));
    let reader = match &settings.sasl {
        Some(gate) => FrameReader::of_stranger(gate.frame_bytes_max.min(settings.frame_bytes_max)),
        None => FrameReader::new(settings.frame_bytes_max),
    };
    let admission = Arc::clone(if sasl.is_some() { &settings.of_strangers } else { &settings.admission });
    let receiving = admission.receiving();
    let refusals = Arc::clone(&settings.refusals);
    let pending = FuturesOrdered::new();
    let write_queue = settings.write_queues.of_connection();
    let send_buffer = settings.send_buffers.of_connection();
    let slice = Arc::new(TimeSlice::new());
    let its_slice = Arc::clone(&slice);
    let (finished, next_fetch) = (VecDeque::new(), None);
    let idleness = Idleness::new(settings.idle_max);
    let connection = Connection {
        stream,
        send_buffer,
        idleness,
        reader,
        admission,
        receiving,
        pending,
        finished,
        write_queue,
        next_fetch,
        slice,
        sasl,
        ending: false,
        settings,
    };
    let mut running = pin!(connection.run());
    let polled = poll_fn(|context| {
        its_slice.begins();
        running.as_mut().poll(context)
    });
    let (ended, leaving) = polled.await;
    match ended {
        Ok(()) => debug!(%peer, "connection ended"),
        Err(End::Io(error)) => debug!(%peer, %error, "connection lost"),
        Err(End::Closed(CloseReason::Unencodable(error))) => {
            tracing::error!(%peer, error, "a response did not encode; this is a bug");
        }
        Err(End::Closed(CloseReason::FailedWithoutAcks)) => {
            debug!(%peer, "closed: a produce request with acks=0 failed, and closing is the only way to say so");
        }
        Err(End::GaveWay) => {
            metrics::REPLIES_GIVEN_UP.add(1);
            if refusals.may_be_logged(Refusal::Other, peer.ip()) {
                warn!(%peer, "closed: records are taken too slowly while others wait for klamm.reply.bytes");
            }
        }
        Err(End::Unreadable(error)) => {
            metrics::REPLIES_UNREADABLE.add(1);
            if refusals.may_be_logged(Refusal::Other, peer.ip()) {
                tracing::error!(%peer, %error, "closed: records that were being sent cannot be read");
            }
        }
        Err(End::Closed(CloseReason::Unauthenticated(reason))) => {
            if refusals.may_be_logged(Refusal::Authentication, peer.ip()) {
                info!(target: SELECTOR, %peer, "Failed authentication with /{} ({})", peer.ip(), shown(&reason));
            }
        }
        Err(End::Closed(CloseReason::SessionExpired)) => {
            debug!(%peer, "closed: the client did not authenticate again in time");
        }
        Err(End::TooLate) => {
            debug!(%peer, "closed: the client did not authenticate within {} s", AUTHENTICATION_PATIENCE.as_secs());
        }
        Err(End::Closed(CloseReason::Malformed(reason))) => {
            if refusals.may_be_logged(Refusal::Other, peer.ip()) {
                warn!(%peer, reason = shown(&reason), "closed: the request cannot be answered");
            }
        }
    }
    Some(leaving)
}

/// The logger of Kafka's line about clients that are not let in.
const SELECTOR: &str = "org.apache.kafka.common.network.Selector";
/// How long a client may take to prove who it is, if `connections.max.idle.ms` is not less; our choice, Kafka has that
/// setting alone. Clients give up much earlier: Java's after 30 s without an answer.
const AUTHENTICATION_PATIENCE: Duration = Duration::from_secs(60);

/// Why a connection ends.
enum End {
    Io(io::Error),
    /// Its reply was taken too slowly, and others needed the room.
    GaveWay,
    /// Its client has not proved who it is, and the time for that is over.
    TooLate,
    /// Records that were promised cannot be read any more.
    Unreadable(io::Error),
    Closed(CloseReason),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) if !is_refusal(&error) => Self::Io(error),
            refused => Self::Closed(CloseReason::Malformed(refused.to_string())),
        }
    }
}

/// Whether an error of reading says something of what was read, or how slowly it came; all others are the network's,
/// the end in the middle of a frame too.
fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some() && matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::InvalidData)
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => Self::Io(error),
            WriteError::GaveWay => Self::GaveWay,
            WriteError::Unreadable(error) => Self::Unreadable(error),
        }
    }
}

/// A connection that is over, but for what waits in its socket. It counts no more against any limit of connections:
/// there are no more of them than large send buffers.
pub(crate) struct Leaving {
    stream: Stream,
    send_buffer: SendBuffer,
    idle_max: Duration,
    stopping: watch::Receiver<bool>,
}

impl Leaving {
    /// Waits for that, or until the broker stops.
    pub(crate) async fn ends(mut self) {
        tokio::select! {
            () = self.send_buffer.leaves(self.stream, self.idle_max) => {}
            () = stopped(&mut self.stopping) => {}
        }
    }
}

struct Connection {
    stream: Stream,
    send_buffer: SendBuffer,
    idleness: Idleness,
    reader: FrameReader,
    /// What its requests are charged to.
    admission: Arc<Admission>,
    /// Memory of a large frame that is coming in.
    receiving: Receiving,
    pending: FuturesOrdered<Pending>,
    /// Replies that became ready, in response order, while one before them was being written.
    finished: VecDeque<Finished>,
    /// Finished replies of both.
    write_queue: Arc<WriteQueue>,
    /// A fetch that begins when `pending` is empty.
    next_fetch: Option<Pending>,
    slice: Arc<TimeSlice>,
    /// Boxed: most connections have none.
    sasl: Option<Box<Authentication>>,
    /// The last reply is on its way: nothing more is read.
    ending: bool,
    settings: Settings,
}

impl Connection {
    /// Why it ended, and what is left of it.
    async fn run(mut self) -> (Result<(), End>, Leaving) {
        let ended = self.serve().await;
        let Settings { idle_max, stopping, .. } = self.settings;
        (ended, Leaving { stream: self.stream, send_buffer: self.send_buffer, idle_max, stopping })
    }

    async fn serve(&mut self) -> Result<(), End> {
        let mut idle = pin!(tokio::time::sleep_until(self.idleness.look_at()));
        let patience = AUTHENTICATION_PATIENCE.min(self.settings.idle_max);
        let mut too_late_at = self.sasl.is_some().then(|| Instant::now() + patience);
        let mut stopping = self.settings.stopping.clone();
        let mut reading = true;
        // Replies go on meanwhile, because they make the room that it waits for.
        let mut held: Option<HeldFrame> = None;
        loop {
            if self.slice.is_over() {
                tokio::task::yield_now().await;
            }
            if self.unsent() == 0 {
                self.pending.extend(self.next_fetch.take());
            }
            if self.write_queue.is_full() {
                self.receiving.step_back();
            }
            let origin = &self.settings.origin;
            let muted = origin.mute.left(|| origin.handles.clock.monotonic_ms());
            let may_read = reading
                && muted.is_none()
                && !self.ending
                && held.is_none()
                && self.next_fetch.is_none()
                && self.unsent() < CONNECTION_REQUESTS_IN_FLIGHT_MAX
                && !self.write_queue.is_full();
            let (unsent, judged_at) = (self.unsent(), self.receiving.judged_at());
            let rested_at = self.send_buffer.rested_at();
            tokio::select! {
                biased;
                Some(finished) = next_in_order(&mut self.finished, &mut self.pending), if unsent > 0 => {
                    self.send(finished.ready, finished.timed, &mut held).await?;
                    self.idleness.ends();
                }
                frame = read_or_hung_up(&mut self.stream, &mut self.reader, &mut self.receiving, may_read) => {
                    match frame? {
                        Some(frame) => {
                            self.recognise(&frame);
                            match self.admission.try_charge(frame.len()) {
                                Some(charge) => {
                                    self.receiving.release();
                                    self.begin(frame, charge).await?;
                                }
                                None => {
                                    let charging = self.admission.charge(frame.len());
                                    held = Some((frame, charging));
                                }
                            }
                        }
                        // The client is gone: what is still pending is not read.
                        None => return Ok(()),
                    }
                    self.idleness.ends();
                }
                charge = charged(&mut held), if held.is_some() => {
                    self.receiving.release();
                    if let Some((frame, _)) = held.take() {
                        self.begin(frame, charge).await?;
                    }
                }
                () = reached(judged_at), if !may_read && held.is_none() => judge(&mut self.receiving)?,
                () = tokio::time::sleep(muted.unwrap_or_default()), if muted.is_some() => {}
                () = stopped(&mut stopping), if reading => reading = false,
                () = reached(too_late_at), if too_late_at.is_some() => return Err(End::TooLate),
                () = reached(rested_at), if rested_at.is_some() => self.send_buffer.rests(&self.stream),
                () = &mut idle, if unsent == 0 => {
                    if self.idleness.is_over(self.reader.part_bytes(), self.stream.waiting_bytes()) {
                        return Ok(());
                    }
                    idle.as_mut().reset(self.idleness.look_at());
                }
            }
            if self.idleness.look_at() < idle.deadline() {
                idle.as_mut().reset(self.idleness.look_at());
            }
            if too_late_at.is_some() && self.sasl.as_ref().is_some_and(|sasl| sasl.is_done()) {
                too_late_at = None;
            }
            if !reading && held.is_none() && self.unsent() == 0 && self.next_fetch.is_none() {
                return Ok(());
            }
        }
    }

    /// By its first request the connection is a broker's or a client's. A broker's takes nothing from clients any more,
    /// but for the room of a first frame that is large.
    fn recognise(&mut self, frame: &BytesMut) {
        let Some(of_brokers) = &self.settings.of_brokers else { return };
        if self.sasl.as_ref().is_some_and(|sasl| !sasl.is_done()) {
            // Not before it is known whose it is.
            return;
        }
        match dispatch::is_of_broker(&self.settings.origin, frame) {
            None => return,
            Some(false) => {}
            Some(true) => {
                let of_brokers = Arc::clone(of_brokers);
                self.charge_to(of_brokers);
            }
        }
        self.settings.of_brokers = None;
    }

    /// Charges what comes from now on to these budgets.
    fn charge_to(&mut self, admission: Arc<Admission>) {
        self.receiving = admission.receiving();
        self.admission = admission;
    }

    /// Stage one of one request. A reply that is there at once, with none before it, is written at once.
    async fn begin(&mut self, frame: BytesMut, charge: Charge) -> Result<(), End> {
        let begun = Instant::now();
        let frame = match &mut self.sasl {
            None => frame,
            Some(sasl) => match sasl.take(frame, begun) {
                Taken::Request(frame) => frame,
                Taken::Answered(answered) => return self.authenticate(answered, charge, begun).await,
            },
        };
        let Dispatched { correlation_id, flexible_header, series, is_fetch, outcome } =
            dispatch::dispatch(&self.settings.origin, frame).await;
        let timed = Timed { series, begun };
        match outcome {
            Outcome::Later(later) => {
                let write_queue = Arc::clone(&self.write_queue);
                let later: Pending = Box::pin(async move {
                    let ready = ready(correlation_id, flexible_header, later.await);
                    finished(ready, timed, Some(charge), &write_queue)
                });
                if is_fetch && self.unsent() > 0 {
                    self.next_fetch = Some(later);
                } else {
                    self.pending.push_back(later);
                }
                Ok(())
            }
            now if self.unsent() == 0 => self.send(ready(correlation_id, flexible_header, now), timed, &mut None).await,
            now => {
                let ready = ready(correlation_id, flexible_header, now);
                let finished = finished(ready, timed, Some(charge), &self.write_queue);
                self.pending.push_back(Box::pin(std::future::ready(finished)));
                Ok(())
            }
        }
    }

    /// Replies to a part of an authentication, in its turn.
    async fn authenticate(&mut self, answered: Answered, charge: Charge, begun: Instant) -> Result<(), End> {
        let Answered { reply, principal, end, delay } = answered;
        if let Some(principal) = principal {
            self.settings.origin.principal = principal;
            self.settings.origin.is_stranger = false;
            if Arc::ptr_eq(&self.admission, &self.settings.of_strangers) {
                self.charge_to(Arc::clone(&self.settings.admission));
            }
            self.reader.authenticated(self.settings.frame_bytes_max);
        }
        let reply = reply.map(|reply| match reply {
            SaslReply::Response { correlation_id, flexible_header, body } => {
                Reply::new(correlation_id, flexible_header, body.into(), None)
            }
            SaslReply::Token(token) => Reply::bare(token),
        });
        self.ending |= end.is_some();
        let ready = match (reply, end) {
            (Some(reply), None) => Ready::Write(reply),
            (Some(reply), Some(reason)) => Ready::WriteAndClose(reply, reason),
            (None, Some(reason)) => Ready::Close(reason),
            (None, None) => Ready::Nothing,
        };
        let timed = Timed { series: None, begun };
        if delay.is_zero() && self.unsent() == 0 {
            return self.send(ready, timed, &mut None).await;
        }
        let write_queue = Arc::clone(&self.write_queue);
        // What waits is short: the frame that it answers holds no room any more.
        drop(charge);
        self.pending.push_back(Box::pin(async move {
            tokio::time::sleep(delay).await;
            finished(ready, timed, None, &write_queue)
        }));
        Ok(())
    }

    /// Requests whose replies are still to be sent, but for the next fetch.
    fn unsent(&self) -> usize {
        self.pending.len() + self.finished.len()
    }

    /// Sends what is next in response order, and counts its request.
    async fn send(&mut self, ready: Ready, timed: Timed, held: &mut Option<HeldFrame>) -> Result<(), End> {
        match ready {
            Ready::Write(reply) => self.write_reply(reply, held).await?,
            Ready::WriteAndClose(reply, reason) => {
                self.write_reply(reply, held).await?;
                return Err(End::Closed(reason));
            }
            Ready::Nothing => {}
            Ready::Close(reason) => return Err(End::Closed(reason)),
        }
        if let Some(series) = timed.series {
            self.settings.origin.handles.requests.count(series, timed.begun.elapsed());
        }
        Ok(())
    }

    /// While the client does not take this reply the requests behind it go on: what they hold, others may wait for. But
    /// no other connection waits for a frame of this one that waits for room, `held` or still to come, or that has its
    /// room and is not read.
    async fn write_reply(&mut self, reply: Reply, held: &mut Option<HeldFrame>) -> Result<(), End> {
        let was_full = self.write_while_others_go_on(reply, held).await?;
        if was_full || self.send_buffer.may_hold_more() {
            self.idleness.waits(self.stream.waiting_bytes());
        }
        self.send_buffer.ends();
        Ok(())
    }

    /// Answers whether the socket was full meanwhile.
    async fn write_while_others_go_on(&mut self, reply: Reply, held: &mut Option<HeldFrame>) -> Result<bool, End> {
        // A client that does not read its replies is as idle as one that sends nothing.
        let mut writing = pin!(reply::write(&mut self.stream, reply, &mut self.send_buffer, self.settings.idle_max));
        if let Poll::Ready(written) = poll!(writing.as_mut()) {
            return Ok(written?);
        }
        self.receiving.step_back();
        if let Some((frame, charging)) = held {
            *charging = self.admission.charge(frame.len());
        }
        loop {
            tokio::select! {
                biased;
                written = writing.as_mut() => return Ok(written?),
                Some(finished) = self.pending.next(), if !self.pending.is_empty() => self.finished.push_back(finished),
                () = reached(self.receiving.judged_at()) => judge(&mut self.receiving)?,
            }
        }
    }
}

/// The next reply in the order of the requests.
async fn next_in_order(finished: &mut VecDeque<Finished>, pending: &mut FuturesOrdered<Pending>) -> Option<Finished> {
    match finished.pop_front() {
        Some(finished) => Some(finished),
        None => pending.next().await,
    }
}

/// A frame that has begun to come and is not read does not keep its room from others.
fn judge(receiving: &mut Receiving) -> Result<(), End> {
    receiving.judge().map_err(|slow| End::Closed(CloseReason::Malformed(slow.to_string())))
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A frame that waits for room in the budget, and its place.
type HeldFrame = (BytesMut, Charging);

/// Resolves when the frame that waits has its room; never, if none waits.
async fn charged(held: &mut Option<HeldFrame>) -> Charge {
    match held {
        Some((_, charging)) => charging.await,
        None => std::future::pending().await,
    }
}

/// How often a connection that is not read is asked whether its client is still there.
const HANG_UP_PERIOD: Duration = Duration::from_secs(1);

/// The next frame; `None` when the client has closed the connection, also where nothing is read that would tell.
async fn read_or_hung_up(
    stream: &mut Stream,
    reader: &mut FrameReader,
    receiving: &mut Receiving,
    may_read: bool,
) -> Result<Option<BytesMut>, FrameError> {
    if may_read {
        return reader.next(stream, receiving).await;
    }
    loop {
        tokio::time::sleep(HANG_UP_PERIOD).await;
        if stream.is_hung_up() {
            return Ok(None);
        }
    }
}

/// Resolves once the broker stops, or is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await.map(drop);
}

/// A reply that waits for those before it. Records are counted elsewhere, see [`crate::api::replies`].
fn finished(ready: Ready, timed: Timed, charge: Option<Charge>, write_queue: &Arc<WriteQueue>) -> Finished {
    let waiting = match &ready {
        Ready::Write(reply) | Ready::WriteAndClose(reply, _) if !reply.has_records() => {
            Some(write_queue.put(reply.held_bytes()))
        }
        _ => None,
    };
    Finished { ready, timed, _charge: charge, _waiting: waiting }
}

fn ready(correlation_id: i32, flexible_header: bool, outcome: Outcome) -> Ready {
    match outcome {
        Outcome::Now(body) => Ready::Write(Reply::new(correlation_id, flexible_header, body, None)),
        Outcome::Records(body, claim) => Ready::Write(Reply::new(correlation_id, flexible_header, body, Some(claim))),
        Outcome::Nothing => Ready::Nothing,
        Outcome::Close(reason) => Ready::Close(reason),
        Outcome::Later(_) => unreachable!("a second stage answers"),
    }
}
