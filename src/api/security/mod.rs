//! The identity of clients, and what they may do: one file per API key. No listener offers SASL yet.

mod acl_words;
pub(super) mod create_acls;
pub(super) mod delegation_tokens;
pub(super) mod delete_acls;
pub(super) mod describe_acls;
pub(super) mod sasl_authenticate;
pub(super) mod sasl_handshake;
