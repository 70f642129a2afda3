//! Connections for one purpose, one to each broker that is asked something.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use parking_lot::Mutex;

use super::Peers;
use super::connection::{Ask, Connection};
use crate::coordinator::peer_links::NoAnswer;
use crate::types::BrokerId;
use crate::types::limits::CONTROL_FRAME_BYTES_MAX;
use crate::wire::codec;

#[derive(Debug)]
pub(super) struct ToBrokers {
    peers: Peers,
    purpose: &'static str,
    /// As many as there ever were brokers.
    connections: Mutex<HashMap<BrokerId, Arc<Connection>>>,
}

impl ToBrokers {
    pub(super) fn new(peers: &Peers, purpose: &'static str) -> Self {
        Self { peers: peers.clone(), purpose, connections: Mutex::default() }
    }

    /// Asks a broker at the address that the image has now; gives up after `request.timeout.ms`.
    ///
    /// # Errors
    /// There is no address, or no answer that can be read.
    pub(super) async fn call<Q, A>(&self, broker: BrokerId, request: &Q, version: i16) -> Result<A, NoAnswer>
    where
        Q: Request + Encodable,
        A: Decodable,
    {
        let failed = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let to = self.peers.addresses.of(broker).map_err(|error| failed(&error))?;
        let body = codec::encode_request(request, version).map_err(|error| failed(&error))?;
        let connection = {
            let mut connections = self.connections.lock();
            let fresh = || Arc::new(self.peers.connection(self.purpose, CONTROL_FRAME_BYTES_MAX));
            Arc::clone(connections.entry(broker).or_insert_with(fresh))
        };
        let decode = |body: BytesMut| codec::decode_response(body.freeze(), version);
        let ask = Ask { key: Q::KEY, version, body };
        connection.call(&to, ask, self.peers.patience.request, decode).await.map_err(|error| failed(&error))
    }
}
