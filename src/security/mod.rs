//! Who is at the other end of a connection, and what that may do.
//!
//! `principal` names it; `sasl` is how a client proves that it is the one it names, `tokens` is what it lets
//! others prove that with, and `authorizer` decides. `tls` makes listeners over TLS of their settings.

pub(crate) mod authorizer;
pub(crate) mod principal;
pub(crate) mod quota;
pub(crate) mod sasl;
pub(crate) mod tls;
pub(crate) mod tokens;
