//! Sockets: listeners, connections, admission. Decodes no body and knows no API beyond its header.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod outbox;
mod reply;
mod turn;
