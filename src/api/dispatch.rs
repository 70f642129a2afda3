//! From a frame to the handler of its key: header, version gate, stage one. What cannot be answered closes the
//! connection.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;

use crate::api::cluster::api_versions;
use crate::api::context::{Audience, Handles, RequestContext};
use crate::api::handler::{CloseReason, Outcome, Row, Served, encoded};
use crate::api::handling::Handling;
use crate::api::records::fetch;
use crate::metrics::{self, Series};
use crate::security::authorizer::{Action, Requester};
use crate::security::principal::Principal;
use crate::security::quota::limits::Kind;
use crate::security::quota::mute::Mute;
use crate::types::acl::{CLUSTER_NAME, Operation, ResourceType};
use crate::wire::header::RequestHeader;

/// What every request of one connection shares.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) handles: Arc<Handles>,
    pub(crate) listener: Arc<str>,
    pub(crate) audience: Audience,
    /// Of IPv4 if it came by that, whatever the socket.
    pub(crate) peer: SocketAddr,
    /// Whom its requests are made for.
    pub(crate) principal: Arc<Principal>,
    /// It has still to prove who it is. What it takes until then is nobody's, or strangers would use up what others of
    /// their name may take.
    pub(crate) is_stranger: bool,
    /// How long the connection is not read.
    pub(crate) mute: Arc<Mute>,
}

/// A request whose stage one is over.
pub(crate) struct Dispatched {
    pub(crate) correlation_id: i32,
    /// Response header 1 (tagged fields) instead of 0.
    pub(crate) flexible_header: bool,
    /// Where the request is counted once it is answered; `None`: it is refused.
    pub(crate) series: Option<Series>,
    /// The reply carries records, and so may be `fetch.max.bytes` long.
    pub(crate) is_fetch: bool,
    pub(crate) outcome: Outcome,
}

/// Whether the connection that this frame came on is a broker's: it asks what only brokers ask, or fetches as a
/// follower. `None`: ApiVersions does not tell.
///
/// Where there is an authorizer it has to say that the other end may act for the cluster, or it would be enough to
/// fetch like a follower; until it does the connection is a client's, and asked about with each request. Without one
/// whoever wants a broker's place can have it, on a listener of brokers.
pub(crate) fn is_of_broker(origin: &Origin, frame: &BytesMut) -> Option<bool> {
    let speaks = speaks_as_broker(frame)?;
    if speaks && !may_act_for_cluster(origin) {
        return None;
    }
    Some(speaks)
}

fn may_act_for_cluster(origin: &Origin) -> bool {
    let Some(authorizer) = &origin.handles.authorizer else { return true };
    let action = Action::new(Operation::ClusterAction, ResourceType::Cluster, CLUSTER_NAME);
    // The request itself is asked for next, and then it is told.
    let action = Action { log_if_allowed: false, log_if_denied: false, ..action };
    let address = origin.peer.ip().to_canonical();
    authorizer.authorize(&Requester { principal: &origin.principal, address, api: &"its first request" }, &action)
}

fn speaks_as_broker(frame: &BytesMut) -> Option<bool> {
    let Some(&[key_high, key_low, version_high, version_low]) = frame.first_chunk() else { return Some(false) };
    let key = i16::from_be_bytes([key_high, key_low]);
    let version = i16::from_be_bytes([version_high, version_low]);
    match key {
        api_versions::KEY => None,
        key if key == fetch::ROW.key && frame.len() <= FOLLOWER_FRAME_BYTES_MAX => {
            let mut frame = frame.clone();
            let header = RequestHeader::take(&mut frame, is_flexible);
            Some(header.is_ok() && fetch::is_of_follower(frame, version))
        }
        key => Some(row(key).is_some_and(|row| row.served == Served::ToBrokers || is_between_brokers(key, version))),
    }
}

/// A follower's fetch of 50,000 partitions.
const FOLLOWER_FRAME_BYTES_MAX: usize = 4 << 20;

const WRITE_TXN_MARKERS: i16 = 27;

/// Keys that clients may send as well, and do not.
fn is_between_brokers(key: i16, version: i16) -> bool {
    const ADD_PARTITIONS_TO_TXN: i16 = 24;
    // AddPartitionsToTxn is asked by brokers alone from 4 on.
    key == WRITE_TXN_MARKERS || key == ADD_PARTITIONS_TO_TXN && version >= 4
}

/// Runs stage one of the request in `frame`. The next frame of the connection may be dispatched when this returns.
pub(crate) async fn dispatch(origin: &Origin, mut frame: BytesMut) -> Dispatched {
    let frame_bytes = frame.len();
    let header = match RequestHeader::take(&mut frame, is_flexible) {
        Ok(header) => header,
        Err(error) => return refuse(0, error.to_string()),
    };
    let Some(row) = row(header.key) else {
        return refuse(header.correlation_id, format!("unknown API key {}", header.key));
    };
    if !row.served.is_to(origin.audience) {
        let reason = format!("API key {} is not served on listener {}", header.key, origin.listener);
        return refuse(header.correlation_id, reason);
    }
    if !(row.min_version..=row.max_version).contains(&header.version) {
        if header.key == api_versions::KEY {
            let outcome = encoded(&api_versions::unsupported_version(), 0);
            return Dispatched {
                correlation_id: header.correlation_id,
                flexible_header: false,
                series: None,
                is_fetch: false,
                outcome,
            };
        }
        return refuse(header.correlation_id, format!("API key {} has no version {}", header.key, header.version));
    }
    if frame_bytes > row.frame_bytes_max {
        return refuse(header.correlation_id, format!("a frame of {frame_bytes} bytes for API key {}", header.key));
    }
    if !passes_the_gate(row, header.version) && !origin.handles.gate.passed().await {
        return refuse(header.correlation_id, "the broker stops before it has started".into());
    }
    let times = origin.handles.quotas.limits(Kind::Request) && !is_exempt(row) && !origin.is_stranger;
    let handling = times.then(|| Handling::new(&origin.handles.clock));
    let ctx = RequestContext {
        handles: Arc::clone(&origin.handles),
        key: row.key,
        authorization: row.authorization,
        version: header.version,
        client_id: header.client_id,
        listener: Arc::clone(&origin.listener),
        audience: origin.audience,
        peer: origin.peer,
        principal: Arc::clone(&origin.principal),
        mute: Arc::clone(&origin.mute),
        handling: handling.clone(),
    };
    let flexible_header = header.key != api_versions::KEY && (row.flexible)(header.version);
    let outcome = match handling {
        None => (row.run)(ctx, frame).await,
        // Within the poll: some rows do their work before they give a future.
        Some(handling) => match handling.count(async { (row.run)(ctx, frame).await }).await {
            Outcome::Later(later) => Outcome::Later(async move { handling.count(later).await }.boxed()),
            now => now,
        },
    };
    if let Outcome::Close(CloseReason::Malformed(_)) = &outcome {
        metrics::BODIES_REFUSED.add(1);
    }
    let is_fetch = header.key == fetch::ROW.key;
    let series = origin.handles.requests.series(header.key, header.version);
    Dispatched { correlation_id: header.correlation_id, flexible_header, series, is_fetch, outcome }
}

/// Whether the time of a request is nobody's: what brokers ask of each other. A follower's fetch is exempt as well.
/// Source: Kafka 3.9 `RequestHandlerHelper.sendResponseExemptThrottle`.
fn is_exempt(row: &Row) -> bool {
    row.served == Served::ToBrokers || row.key == WRITE_TXN_MARKERS
}

/// Whether the request header of this key and version has tagged fields. Unknown ones are refused later either way.
pub(in crate::api) fn is_flexible(key: i16, version: i16) -> bool {
    row(key).is_some_and(|row| (row.min_version..=row.max_version).contains(&version) && (row.flexible)(version))
}

fn row(key: i16) -> Option<&'static Row> {
    super::TABLE.binary_search_by_key(&key, |row| row.key).ok().map(|at| &super::TABLE[at])
}

/// Whether a request is answered while the broker starts. Those of brokers are; of the keys that both clients and
/// followers use, the handler tells who asks, and has clients wait.
fn passes_the_gate(row: &Row, version: i16) -> bool {
    let fetches = row.key == fetch::ROW.key;
    row.served == Served::ToBrokers || row.key == api_versions::KEY || fetches || is_between_brokers(row.key, version)
}

fn refuse(correlation_id: i32, reason: String) -> Dispatched {
    metrics::FRAMES_REFUSED.add(1);
    let outcome = Outcome::Close(CloseReason::Malformed(reason));
    Dispatched { correlation_id, flexible_header: false, series: None, is_fetch: false, outcome }
}
