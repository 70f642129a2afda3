//! SASL: what client and server say to prove who the client is, message by message. Knows neither sockets nor frames.
//!
//! - `exchange` is one authentication at a listener, whichever its mechanism: tokens in, tokens out, at last a name;
//!   `outcome` is what may come of a token.
//! - `plain`, `scram` and `oauth` are the mechanisms; `credential` is what is stored of a SCRAM password.
//! - `login` is the other end, for where this broker authenticates at others; `fetched` is the token that a provider
//!   gives it for that.
//! - `authority` is whom the mechanisms ask: the users of `/config/users`, delegation tokens, the clock, and the keys
//!   of tokens of OAUTHBEARER, which `keys` has from files (`small_file`) and by `web`, a seam, as often as is needed
//!   (`retry`).
//!
//! What a client gets to know of a failure is Kafka's text, and never more. What comes in is bounded by its frame; no
//! message makes anything panic or costs more than its length.

pub(crate) mod authority;
pub(crate) mod credential;
pub(crate) mod exchange;
pub(crate) mod fetched;
pub(crate) mod keys;
pub(crate) mod login;
mod oauth;
pub(crate) mod outcome;
mod plain;
mod retry;
mod scram;
mod small_file;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod web;
