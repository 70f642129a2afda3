//! What makes a listener over TLS out of its settings, and a client's certificate a principal.
//!
//! - `pem`, `jks`, `der` are formats; `store` reads keystores and truststores, PKCS12 by a crate.
//! - `suites` chooses versions and suites, `verify` judges certificates, `name` and `mapping` make principals of them.
//! - [`zookeeper`] is the side that connects to ZooKeeper, [`web`] the one that asks servers on the web.
//! - [`listener`] holds what one listener presents and trusts now, and replaces it; [`TlsListeners`] holds all of them.
//!
//! No socket is touched here: handshakes are `transport`'s. No password and no key goes into a line or an error.

mod built;
mod der;
mod jks;
pub(crate) mod listener;
mod listeners;
mod mapping;
mod name;
mod pem;
mod store;
mod suites;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verify;
pub(crate) mod web;
pub(crate) mod zookeeper;

pub(crate) use listener::TlsListener;
pub(crate) use listeners::TlsListeners;
