//! Positions in a partition's log.

use std::fmt;
use std::ops::{Add, Sub};

/// Position of a record in its partition, from 0. Ranges of offsets are half-open unless a name says `last_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// First offset of a new partition.
    pub const ZERO: Self = Self(0);
    /// The wire's "no offset".
    pub const NONE: Self = Self(-1);
    /// Above every offset.
    pub const MAX: Self = Self(i64::MAX);
}

impl Add<i64> for Offset {
    type Output = Self;

    fn add(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl Sub for Offset {
    type Output = i64;

    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
