//! Record batches (magic 2) as bytes: header view, checks on produce, stamping in place, walking, building.
//!
//! Pure functions over bytes: no I/O, no clock, no spawning; nothing is reserved by an unchecked count and nothing is
//! decompressed without a cap (I-21). A batch that needs no rewriting is never copied.

pub(crate) mod batch;
pub(crate) mod build;
pub(crate) mod checksum;
pub(crate) mod compression;
pub(crate) mod control;
pub(crate) mod probe;
pub(crate) mod refused;
pub(crate) mod stamp;
pub(crate) mod valid;
pub(crate) mod validate;
pub(crate) mod walk;

pub(crate) use batch::{BatchError, BatchHeader, TimestampType};
pub(crate) use build::BatchBuilder;
#[cfg(test)]
pub(crate) use compression::Compression;
pub(crate) use compression::TopicCompression;
pub(crate) use stamp::stamp;
pub(crate) use valid::ValidBatch;
pub(crate) use validate::{ProduceRules, validate};
pub(crate) use walk::{RecordView, for_each_record};

#[cfg(test)]
mod tests;
