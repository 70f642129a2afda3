//! Writing the protocol's compact types by hand, for the messages where the crate's codec is not used.

use bytes::{BufMut, Bytes, BytesMut};

/// A body of a flexible version: compact lengths, and tagged fields at the end of every structure.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: BytesMut,
}

impl Writer {
    pub(super) fn bool(&mut self, value: bool) {
        self.out.put_u8(u8::from(value));
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.out.put_i8(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.out.put_i16(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    pub(super) fn slice(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    /// The length of the array that follows.
    pub(super) fn count(&mut self, count: usize) {
        put_uvarint(&mut self.out, count + 1);
    }

    /// `None` is null.
    pub(super) fn string(&mut self, text: Option<&str>) {
        put_compact(&mut self.out, text);
    }

    /// The end of a structure that has no tagged fields.
    pub(super) fn no_tags(&mut self) {
        self.out.put_u8(0);
    }

    /// The end of a structure with one tagged field.
    pub(super) fn one_tag(&mut self, tag: u32, value: &[u8]) {
        self.out.put_u8(1);
        put_uvarint(&mut self.out, tag as usize);
        put_uvarint(&mut self.out, value.len());
        self.out.put_slice(value);
    }

    pub(super) fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// A string with its compact length; `None` is null.
pub(super) fn put_compact(out: &mut BytesMut, text: Option<&str>) {
    match text {
        None => out.put_u8(0),
        Some(text) => {
            put_uvarint(out, text.len() + 1);
            out.put_slice(text.as_bytes());
        }
    }
}

/// Seven bits per byte, the lowest first.
pub(super) fn put_uvarint(out: &mut BytesMut, value: usize) {
    let mut left = value;
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}
