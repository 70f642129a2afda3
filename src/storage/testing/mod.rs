//! Twins of a log directory for tests: one in memory, and one that fails by a script around any other.

pub(crate) mod faulty;
pub(crate) mod killed;
pub(crate) mod memory;
mod script;
