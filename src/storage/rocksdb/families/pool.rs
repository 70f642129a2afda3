//! Which numbers are whose: those of partitions, free families, and numbers without one. Plain data, kept beside the
//! records that say it on disk.

use std::collections::{BTreeSet, HashMap};

use crate::storage::PartitionId;

/// Free families to have before a topic is wanted.
pub(super) const POOL_READY: usize = 16;

/// Free families made beyond the need, in proportion: a tenth of those that are used.
const POOL_GROWTH_DIVISOR: usize = 10;

/// Free families are dropped where there are so many times as many as are to be ready, down to half of that.
const POOL_SURPLUS: usize = 4;

/// So many at once: the options file is written for each batch of them, and creating waits meanwhile.
const DROPPED_AT_ONCE: usize = 2000;

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) assigned: HashMap<PartitionId, u32>,
    pub(super) free: BTreeSet<u32>,
    /// Numbers without a family.
    pub(super) vacant: BTreeSet<u32>,
    /// Families ever made.
    pub(super) made: usize,
}

impl Pool {
    /// How many free families there should be.
    fn ready(&self) -> usize {
        POOL_READY.max(self.assigned.len() / POOL_GROWTH_DIVISOR)
    }

    /// Families to make so that the pool is ready again; 0 if it is.
    pub(super) fn missing(&self) -> usize {
        let (ready, free) = (self.ready(), self.free.len());
        if free * 2 >= ready { 0 } else { ready - free }
    }

    /// Families were made under these numbers.
    pub(super) fn add(&mut self, numbers: &[u32]) {
        self.made += numbers.len();
        for number in numbers {
            self.vacant.remove(number);
            self.free.insert(*number);
        }
    }

    /// Takes families out of the pool that are too many, the highest first.
    pub(super) fn take_surplus(&mut self) -> Vec<u32> {
        let (ready, free) = (self.ready(), self.free.len());
        if free <= POOL_SURPLUS * ready {
            return Vec::new();
        }
        let count = (free - POOL_SURPLUS / 2 * ready).min(DROPPED_AT_ONCE);
        (0..count).filter_map(|_| self.free.pop_last()).collect()
    }
}
