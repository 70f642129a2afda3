//! How much of the broker a user or a client may take: limits, rates, and what a request has to wait for it.
//!
//! `limits` are what was set, and whose count a request is part of · `bucket` holds tokens · `meter` counts and
//! says how long to wait · `mute` has a connection wait.
//!
//! Source: Kafka 3.9 `ClientQuotaManager`, `QuotaConfigs`, KIP-13, KIP-124, KIP-219, KIP-257, KIP-599.

mod bucket;
pub(crate) mod limits;
pub(crate) mod meter;
pub(crate) mod mute;
