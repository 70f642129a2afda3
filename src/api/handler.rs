//! What a handler is, and how it is erased into a row of plain function pointers.

use std::future::Future;
use std::ops::RangeInclusive;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::protocol::Request;

use crate::api::authorization::Authorization;
use crate::api::context::{Audience, RequestContext};
use crate::api::replies::Claim;
use crate::api::throttled::Throttled;
use crate::types::limits;
use crate::wire::codec;
use crate::wire::segments::Segments;

/// A typed answer. Stage one of a handler (up to returning this) fixes the order of effects on its connection; stage
/// two (the future of `Later`) only waits. Replies leave in request order either way (I-23).
pub(crate) enum Reply<R> {
    Now(R),
    Later(BoxFuture<'static, R>),
    /// The request means nothing, as if it could not be decoded: the connection ends.
    Unreadable(String),
}

/// To whom a key is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Everywhere,
    /// Only brokers of the cluster ask for it, where brokers speak.
    ToBrokers,
    /// In a cluster whose other brokers may run Kafka 3.9, whoever asks.
    BesideZookeeper,
}

impl Served {
    pub(crate) fn is_to(self, audience: Audience) -> bool {
        match self {
            Self::Everywhere => true,
            Self::ToBrokers => audience == Audience::Brokers,
            Self::BesideZookeeper => audience != Audience::Alone,
        }
    }
}

/// One API key. The file that implements it opens with its contract.
pub(crate) trait Handler {
    type Req: Request<Response: Throttled> + Send + 'static;
    /// Versions we honour; ApiVersions announces exactly these.
    const VERSIONS: RangeInclusive<i16>;
    /// What the authorizer is asked.
    const AUTHORIZATION: Authorization;
    /// To whom.
    const SERVED: Served = Served::Everywhere;
    /// Largest frame in bytes. Decoding may cost up to 16 times as much memory.
    const FRAME_BYTES_MAX: usize = limits::CONTROL_FRAME_BYTES_MAX;

    fn handle(
        ctx: RequestContext,
        req: Self::Req,
    ) -> impl Future<Output = Reply<<Self::Req as Request>::Response>> + Send;
}

/// An erased answer: what the connection does next.
pub(crate) enum Outcome {
    /// Response body, without frame length and header.
    Now(Segments),
    /// The same with records, and with what they hold of the budget of all replies until they are sent.
    Records(Segments, Claim),
    Later(BoxFuture<'static, Outcome>),
    /// acks=0.
    Nothing,
    /// The request cannot be answered: malformed, or acks=0 with an error.
    Close(CloseReason),
}

/// Why a connection ends without a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloseReason {
    Malformed(String),
    /// acks=0 met an error; closing is the only way to say so. Source: Kafka 3.9 `KafkaApis.handleProduceRequest`.
    FailedWithoutAcks,
    /// Our own response did not encode: a bug, logged with its key and version.
    Unencodable(String),
    /// The client did not prove who it is.
    Unauthenticated(String),
    /// The time is over for which the client had proved it.
    SessionExpired,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) key: i16,
    pub(crate) min_version: i16,
    pub(crate) max_version: i16,
    pub(crate) frame_bytes_max: usize,
    /// Decodes the body (everything after the request header) and runs stage one.
    pub(crate) run: fn(RequestContext, BytesMut) -> BoxFuture<'static, Outcome>,
    /// Whether request header 2 and response header 1 are used in this version.
    pub(crate) flexible: fn(i16) -> bool,
    /// To whom; elsewhere there is no such key.
    pub(crate) served: Served,
    /// What the authorizer is asked.
    pub(crate) authorization: Authorization,
}

/// The row of a typed handler.
pub(crate) const fn row<H: Handler + 'static>() -> Row {
    Row {
        key: <H::Req as Request>::KEY,
        min_version: *H::VERSIONS.start(),
        max_version: *H::VERSIONS.end(),
        frame_bytes_max: H::FRAME_BYTES_MAX,
        run: run::<H>,
        flexible: |version| codec::is_flexible(<H::Req as Request>::KEY, version),
        served: H::SERVED,
        authorization: H::AUTHORIZATION,
    }
}

fn run<H: Handler + 'static>(ctx: RequestContext, body: BytesMut) -> BoxFuture<'static, Outcome> {
    async move {
        let version = ctx.version;
        let req = match codec::decode_request::<H::Req>(body.freeze(), version) {
            Ok(req) => req,
            Err(error) => return Outcome::Close(CloseReason::Malformed(error.to_string())),
        };
        let timed = ctx.handling.is_some().then(|| ctx.clone());
        match H::handle(ctx, req).await {
            Reply::Now(response) => answered(timed.as_ref(), response, version),
            Reply::Later(response) => {
                Outcome::Later(async move { answered(timed.as_ref(), response.await, version) }.boxed())
            }
            Reply::Unreadable(why) => Outcome::Close(CloseReason::Malformed(why)),
        }
    }
    .boxed()
}

/// Encodes the response. What the request took of its client's time is counted, and told if it was too much.
fn answered<R>(timed: Option<&RequestContext>, mut response: R, version: i16) -> Outcome
where
    R: kafka_protocol::protocol::Encodable + Throttled,
{
    if let Some(ctx) = timed {
        let wait_ms = ctx.throttle_time();
        if let Some(told) = response.throttle_time_ms() {
            *told = wait_ms.max(*told);
        }
    }
    encoded(&response, version)
}

/// Encodes a response body for the version asked.
pub(crate) fn encoded<R: kafka_protocol::protocol::Encodable>(response: &R, version: i16) -> Outcome {
    match codec::encode_response(response, version) {
        Ok(body) => Outcome::Now(Segments::from(body)),
        Err(error) => Outcome::Close(CloseReason::Unencodable(error.to_string())),
    }
}
