//! Who is at the other end of a connection, and what that may do.
//!
//! `principal` names it, `authorizer` decides; `tls` makes listeners over TLS of their settings.

pub(crate) mod authorizer;
pub(crate) mod principal;
pub(crate) mod tls;
