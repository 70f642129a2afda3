//! The identity of clients: one file per API key. No listener offers SASL yet.

pub(super) mod delegation_tokens;
pub(super) mod sasl_authenticate;
pub(super) mod sasl_handshake;
