//! What of a family went to RocksDB's log, and whether it is on the disk.

/// What of a family went to the log. A part of what is known of the family, so that it ends with a partition's life:
/// the next one's first table must not rely on what was brought to the disk for another.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage::rocksdb) struct Logged {
    /// In large pieces, since the last table.
    large_bytes: usize,
    /// Some of it may not be on the disk.
    unsynced: bool,
    /// The group in which something went there last.
    group: u64,
}

impl Default for Logged {
    /// What a killed process left in the log may not be on the disk.
    fn default() -> Self {
        Self { large_bytes: 0, unsynced: true, group: 0 }
    }
}

impl Logged {
    pub(in crate::storage::rocksdb) fn is_unsynced(self) -> bool {
        self.unsynced
    }

    /// Something went there in this group.
    pub(super) fn wrote(&mut self, group: u64) {
        self.unsynced = true;
        self.group = group;
    }

    /// Nothing of the family is in the log alone. `large_bytes`: what is to count as large pieces from here on.
    pub(super) fn came_to_disk(&mut self, large_bytes: usize) {
        *self = Self { large_bytes, unsynced: false, group: self.group };
    }

    /// Something came that only the log may have. Until much has come without, a table would soon have to give way.
    pub(in crate::storage::rocksdb) fn came_in_order(&mut self) {
        self.large_bytes = 0;
    }

    /// Counts a large piece; answers with the bytes of all since the last table, and the group of what came last.
    pub(super) fn add_large(&mut self, bytes: usize) -> (usize, u64) {
        self.large_bytes = self.large_bytes.saturating_add(bytes);
        (self.large_bytes, self.group)
    }
}
