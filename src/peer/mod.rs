//! Connections to other brokers, and the links that travel on them: this broker's ends of what the rooms below know as
//! seams. Knows how a request is written and what its answer means, and decides nothing.
//!
//! Connections are made for a purpose and are not shared: a fetch that waits for half a second holds its socket. Each
//! has one request under way, so an answer can belong to no other, and what is not answered in time ends the socket.
//! Versions are those of `inter.broker.protocol.version`, without asking: brokers of ZooKeeper's time do not negotiate
//! on these connections. `web` speaks to servers of another kind, which have keys and tokens.

pub(crate) mod address;
pub(crate) mod broker_link;
mod codes;
pub(crate) mod connection;
pub(crate) mod controller_link;
pub(crate) mod fetch;
mod login;
pub(crate) mod markers;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod to_brokers;
#[cfg(test)]
mod transaction_tests;
pub(crate) mod verify;
pub(crate) mod versions;
pub(crate) mod web;

use std::sync::Arc;
use std::time::Duration;

use self::address::Addresses;
use self::versions::Versions;
use crate::clock::SharedClock;
use crate::types::BrokerId;

/// What all connections of this broker to others share.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) me: BrokerId,
    pub(crate) addresses: Addresses,
    /// Where brokers hear the controller, and it them: the same, if they have no listener of their own for that.
    pub(crate) control: Addresses,
    pub(crate) versions: Versions,
    pub(crate) clock: SharedClock,
    pub(crate) patience: Patience,
}

/// How long a request may wait for its answer, connecting included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// `controller.socket.timeout.ms`: what the controller sends to brokers, and ControlledShutdown.
    pub(crate) controller: Duration,
    /// `request.timeout.ms`: what a broker sends to the controller, and what it sends for transactions.
    pub(crate) request: Duration,
    /// `replica.socket.timeout.ms`: what a follower sends to a leader, beyond the time for which it lets it wait.
    pub(crate) replica: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let all = Duration::from_secs(30);
        Self { controller: all, request: all, replica: all }
    }
}

impl Peers {
    /// A connection to whichever broker it is called with. `purpose` stands in the client id, for the other's log.
    fn connection(&self, purpose: &str, frame_bytes_max: usize) -> connection::Connection {
        let client_id = Arc::from(format!("broker-{}-{purpose}", self.me));
        connection::Connection::new(client_id, frame_bytes_max, Arc::clone(&self.clock))
    }
}
