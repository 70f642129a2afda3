//! The beginning of a connection over TLS: hands are shaken in the connection's own task, in bounded time and memory,
//! and the certificate that was shown says whom it speaks for.
//!
//! Kafka bounds the time by `connections.max.idle.ms` alone, ten minutes; here it is 30 s at most (our choice: who says
//! nothing holds a place that others wait for). A handshake that is refused gets Kafka's line, in Kafka's words and at
//! its level; what only breaks off is no more than a connection that was lost. Source: Kafka 3.9 `Selector.poll`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::refusals::{Refusal, Refusals, shown};
use crate::metrics;
use crate::security::principal::Principal;
use crate::security::tls::TlsListener;
use crate::transport::{HandshakeError, Stream};

/// Longest time for a handshake.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shakes hands, and tells whom the connection speaks for. `None`: it has ended, or the broker stops.
pub(super) async fn accept(
    socket: TcpStream,
    tls: &TlsListener,
    peer: SocketAddr,
    idle_max: Duration,
    refusals: &Arc<Refusals>,
    mut stopping: watch::Receiver<bool>,
) -> Option<(Stream, Principal)> {
    let patience = PATIENCE.min(idle_max);
    let shaken = tokio::select! {
        shaken = timeout(patience, Stream::accept(socket, tls.server())) => shaken,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(HandshakeError::Io(error))) => {
            debug!(%peer, %error, "connection lost while hands were shaken");
            return None;
        }
        Ok(Err(HandshakeError::Refused(error))) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            if refusals.may_be_logged(Refusal::Authentication, peer.ip()) {
                info!(
                    target: "org.apache.kafka.common.network.Selector",
                    %peer, listener = tls.name(), reason = shown(&error.to_string()),
                    "Failed authentication with /{} (SSL handshake failed)", peer.ip()
                );
            }
            return None;
        }
        Err(_) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            debug!(%peer, "closed: no handshake within {} s", patience.as_secs());
            return None;
        }
    };
    match tls.principal(stream.certificates()) {
        Ok(principal) => Some((stream, principal)),
        Err(reason) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            if refusals.may_be_logged(Refusal::Authentication, peer.ip()) {
                let reason = shown(&reason);
                warn!(%peer, listener = tls.name(), reason, "closed: the certificate gives no principal");
            }
            None
        }
    }
}
