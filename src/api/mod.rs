//! Everything we answer: one file per API key, one row per key in [`TABLE`], in key order.
//!
//! ApiVersions is generated from the table, so that a version announced is a version honoured (I-22).

pub(crate) mod context;
pub(crate) mod handler;

use handler::Row;

/// The rows, sorted by key.
pub(crate) static TABLE: &[Row] = &[];
