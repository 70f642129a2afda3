//! What the writer lock guards.

use std::collections::HashMap;

use super::activity::Activity;
use crate::storage::Family;
use crate::storage::rocksdb::database::Batch;
use crate::storage::rocksdb::growing::routing::Routing;
use crate::types::Offset;

/// What belongs to whoever writes.
#[derive(Debug, Default)]
pub(super) struct WriterState {
    pub(super) batch: Batch,
    /// Starts of logs that this group moves, in order; they count once the group is written.
    pub(super) starts: Vec<(Family, Offset)>,
    /// Families whose tables this group had handed over, with the first of its own batches in them.
    pub(super) ingested: Vec<(Family, Offset)>,
    /// Families of which a batch was refused, and the last set that was queued before its owner could know: up to that
    /// place sets with batches of the family are refused too, since their offsets would leave a gap.
    pub(super) refused: HashMap<Family, u64>,
    pub(super) activity: Activity,
    pub(super) routing: Routing,
}
