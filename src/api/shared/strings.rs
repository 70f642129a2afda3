//! Strings between the wire's type and ours. What a room keeps is copied, so that it does not keep a frame.

use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;

/// A copy for a room to keep.
pub(crate) fn str_arc(text: &str) -> Arc<str> {
    Arc::from(text)
}

/// A copy for a room to keep, if there is one.
pub(crate) fn opt_str(text: Option<&StrBytes>) -> Option<Arc<str>> {
    text.map(|text| Arc::from(text.as_str()))
}

/// For the wire.
pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// For the wire; `None` is null.
pub(crate) fn opt_text(value: Option<&str>) -> Option<StrBytes> {
    value.map(text)
}
