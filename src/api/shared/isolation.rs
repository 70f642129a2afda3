//! The isolation level of readers. Source: Kafka `IsolationLevel`.

use kafka_protocol::ResponseError;

/// Whether only committed records are wanted.
///
/// # Errors
/// There is no such level; Kafka fails over it without a code of its own.
pub(in crate::api) fn read_committed(level: i8) -> Result<bool, ResponseError> {
    match level {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ResponseError::UnknownServerError),
    }
}
