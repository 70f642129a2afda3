//! What an operator sees: the log, in log4j's shape, what the process says of its limits, the memory it gives back, and
//! the metrics and the state that are served over HTTP.
//!
//! Reads, never changes, what other rooms publish. Knows no sockets: the broker puts `watched` behind them.

mod exposition;
pub(crate) mod health;
mod log4j;
mod memory;
mod process;
mod quotas;
mod rows;
pub(crate) mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod watched;
mod window;

pub(crate) use log4j::loggers;
pub use log4j::{LogLevels, start_log};
pub use memory::start_giving_back;
pub use process::{FILE_DESCRIPTORS_MIN, raise_file_descriptors};
