//! The identity of clients, and what they may do: one file per API key, and `authentication` for connections whose
//! listener asks for SASL.

mod acl_words;
pub(super) mod alter_user_scram_credentials;
pub(crate) mod authentication;
#[cfg(test)]
mod authentication_tests;
pub(super) mod create_acls;
pub(super) mod delegation_tokens;
pub(super) mod delete_acls;
pub(super) mod describe_acls;
pub(super) mod describe_user_scram_credentials;
pub(super) mod sasl_authenticate;
pub(super) mod sasl_handshake;
