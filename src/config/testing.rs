//! Configurations for tests.

use super::{Config, ConfigError, Inputs, Machine};

fn load(given: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let overrides = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::for_test())
}

/// The configuration of these `--override`s.
pub(crate) fn config(given: &[(&str, &str)]) -> Config {
    load(given).unwrap_or_else(|error| panic!("{error}"))
}

/// The line these `--override`s end with.
pub(crate) fn error(given: &[(&str, &str)]) -> String {
    load(given).expect_err("refused").to_string()
}
