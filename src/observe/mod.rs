//! What an operator sees: the log, in log4j's shape, and what the process says of its limits.
//!
//! Metrics exposition and health endpoints join here later. Reads, never changes, what other rooms publish.

mod log4j;
mod process;

pub use log4j::{LogLevels, start_log};
pub use process::{FILE_DESCRIPTORS_MIN, raise_file_descriptors};
