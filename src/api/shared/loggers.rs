//! Changes to the levels of this broker's loggers, which hold at once and as long as the process lives.
//!
//! Behaviour: the resource is this broker's number, else INVALID_REQUEST (42). A logger that does not exist, or what is
//! no level: INVALID_CONFIG (40). The root logger always has a level; a level is no list. All of it is checked before
//! any of it holds. AlterConfigs does not know loggers: INVALID_REQUEST.
//!
//! Source: Kafka 3.9 `ConfigAdminManager.validateLogLevelConfigs`, `processIncremental`.

use super::changes::{APPEND, Base, DELETE, Resource, SET, SUBTRACT, check_is_me, invalid_config, invalid_request};
use super::refusal::Refusal;
use crate::api::context::Handles;
use crate::config::loggers::{LOGGERS, Level, ROOT};

/// Sets the levels of the loggers that the resource names.
pub(super) fn alter(handles: &Handles, asked: &Resource<'_>, base: Base, validate_only: bool) -> Result<(), Refusal> {
    if base == Base::Nothing {
        return Err(invalid_request("Unknown resource type BROKER_LOGGER"));
    }
    check_is_me(handles.broker_id, asked.name)?;
    let levels: Vec<_> =
        asked.changes.iter().map(|one| level(one.name, one.operation, one.value)).collect::<Result<_, _>>()?;
    if !validate_only {
        for (one, level) in asked.changes.iter().zip(levels) {
            handles.loggers.set(one.name, level);
        }
    }
    Ok(())
}

/// The level that the logger shall have; `None`: none of its own.
fn level(logger: &str, operation: i8, value: Option<&str>) -> Result<Option<Level>, Refusal> {
    let exists = LOGGERS.contains(&logger);
    match operation {
        SET | DELETE if !exists => Err(invalid_config(format!("Logger {logger} does not exist!"))),
        SET => match value.and_then(Level::settable) {
            Some(level) => Ok(Some(level)),
            None => Err(invalid_config(format!(
                "Cannot set the log level of {logger} to {} as it is not a supported log level. Valid log levels are \
                 DEBUG, ERROR, FATAL, INFO, TRACE, WARN",
                value.unwrap_or_default()
            ))),
        },
        DELETE if logger == ROOT => Err(invalid_request("Removing the log level of the root logger is not allowed")),
        DELETE => Ok(None),
        APPEND => Err(invalid_request("APPEND operation is not allowed for the BROKER_LOGGER resource")),
        SUBTRACT => Err(invalid_request("SUBTRACT operation is not allowed for the BROKER_LOGGER resource")),
        other => Err(invalid_request(format!("Unknown operation type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_logger_or_no_level_is_refused() {
        let code = |logger, operation, value| level(logger, operation, value).map_err(|refusal| refusal.error.code());
        assert_eq!(code("klamm::api", SET, Some("DEBUG")), Ok(Some(Level::Debug)));
        assert_eq!(code("klamm::api", DELETE, None), Ok(None));
        assert_eq!(code("no.such", SET, Some("DEBUG")), Err(40));
        assert_eq!(code("no.such", DELETE, None), Err(40));
        assert_eq!(code("klamm::api", SET, Some("LOUD")), Err(40));
        assert_eq!(code(ROOT, DELETE, None), Err(42));
        assert_eq!(code(ROOT, SET, Some("WARN")), Ok(Some(Level::Warn)));
        assert_eq!([APPEND, SUBTRACT, 9].map(|operation| code(ROOT, operation, Some("INFO"))), [Err(42); 3]);
    }
}
