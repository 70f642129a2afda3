//! Sockets: listeners, connections, handshakes, admission, and pages over HTTP. Decodes no body and knows no API beyond
//! its header.

pub(crate) mod admission;
mod body;
pub(crate) mod connection;
pub(crate) mod connection_rates;
mod handshake;
pub(crate) mod http;
mod idleness;
pub(crate) mod listener;
pub(crate) mod refusals;
mod reply;
pub(crate) mod send_buffer;
mod time_slice;
pub(crate) mod write_queue;
