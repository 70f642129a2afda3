//! What an operator sees: the log, in log4j's shape, what the process says of its limits, and the memory it gives
//! back.
//!
//! Metrics exposition and health endpoints join here later. Reads, never changes, what other rooms publish.

mod log4j;
mod memory;
mod process;

pub use log4j::{LogLevels, start_log};
pub use memory::start_giving_back;
pub use process::{FILE_DESCRIPTORS_MIN, raise_file_descriptors};
