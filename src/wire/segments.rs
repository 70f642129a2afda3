//! A response body as a list of places, so that record bytes are sent from where they lie (I-4).

use bytes::Bytes;

use crate::types::place::Place;

/// What follows each other on the wire.
#[derive(Debug, Default, Clone)]
pub(crate) struct Segments {
    parts: Vec<Place>,
    bytes: usize,
}

impl Segments {
    pub(crate) fn push(&mut self, part: Place) {
        if part.len() > 0 {
            self.bytes += part.len();
            self.parts.push(part);
        }
    }

    /// Total length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn into_parts(self) -> Vec<Place> {
        self.parts
    }
}

impl From<Bytes> for Segments {
    fn from(part: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(part.into());
        segments
    }
}
