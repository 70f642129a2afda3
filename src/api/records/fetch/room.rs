//! What a fetch reads, within its limits: from memory where it is there, from storage for the rest.

use std::sync::Arc;

use kafka_protocol::ResponseError;

use super::part::{Gathered, Limits, Part, look, refused};
use crate::api::replies::{Claim, Replies};
use crate::log::reading::read::Read;
use crate::replica::partition::Partition;
use crate::task;
use crate::types::Offset;

/// Reads what is readable now: from memory where the tail reaches back far enough or the records were read ahead, from
/// storage for the rest.
pub(super) async fn read(replies: &Arc<Replies>, gathered: &mut Gathered, limits: Limits) {
    let mut room = Room::of(limits);
    for (index, part) in gathered.parts.iter_mut().enumerate() {
        let Some((replica, upto, bytes)) = room.for_part(part) else { continue };
        match replica.reader().read_memory(part.wanted.fetch_offset, upto, bytes, room.empty_so_far) {
            Some(read) => room.take(part, read, &replica, upto, bytes),
            None => return read_blocking(replies, gathered, index, room).await,
        }
    }
}

/// The same from the partition at `first` on, on a thread that may block on the disk.
async fn read_blocking(replies: &Arc<Replies>, gathered: &mut Gathered, first: usize, mut room: Room) {
    let mut parts = std::mem::take(&mut gathered.parts);
    let claim = std::mem::replace(&mut gathered.claim, Claim::nothing(replies));
    let work = move || {
        for part in &mut parts[first..] {
            let Some((replica, upto, bytes)) = room.for_part(part) else { continue };
            match replica.reader().read(part.wanted.fetch_offset, upto, bytes, room.empty_so_far) {
                Ok(read) => room.take(part, read, &replica, upto, bytes),
                Err(failure) => {
                    tracing::error!(topic = %replica.id.topic, partition = %part.key.1, %failure, "a read failed");
                    part.found.error = Some(ResponseError::KafkaStorageError);
                }
            }
        }
        parts
    };
    (gathered.parts, gathered.claim) = replies.read(claim, work).await;
}

/// What a fetch may still take while it goes through its partitions.
struct Room {
    left: usize,
    read_committed: bool,
    any_replica: bool,
    /// The first batch may be larger than all limits, lest a consumer never get past it.
    empty_so_far: bool,
}

impl Room {
    fn of(limits: Limits) -> Self {
        let Limits { max_bytes: left, read_committed, any_replica, .. } = limits;
        Self { left, read_committed, any_replica, empty_so_far: true }
    }

    /// Looks at a partition: its replica, where to stop and how many bytes to read; `None` if there is nothing to read.
    fn for_part(&self, part: &mut Part) -> Option<(Arc<Partition>, Offset, usize)> {
        look(part, self.read_committed, self.any_replica);
        let (Some(replica), Some(upto)) = (&part.replica, part.found.upto) else { return None };
        let bytes = self.left.min(part.wanted.partition_max_bytes.max(0) as usize);
        let some = part.wanted.fetch_offset < upto && (bytes > 0 || self.empty_so_far);
        some.then(|| (Arc::clone(replica), upto, bytes))
    }

    /// Takes what was read of this partition, and has more read ahead for a consumer behind the tail.
    fn take(&mut self, part: &mut Part, read: Read, replica: &Partition, upto: Offset, bytes: usize) {
        if let Some(fill) = replica.reader().fill_after(&read, upto, bytes) {
            task::in_background(|| fill.run());
        }
        let from = part.wanted.fetch_offset;
        if self.read_committed && from < read.end {
            let Some(aborted) = replica.reader().aborted_transactions(from, read.end) else {
                // Deleted since it was looked at.
                part.found = refused(ResponseError::OffsetOutOfRange);
                part.found.log_start_offset = replica.view().log_start_offset;
                return;
            };
            part.found.aborted = aborted;
        }
        self.empty_so_far &= read.bytes == 0;
        self.left = self.left.saturating_sub(read.bytes);
        part.found.bytes = read.bytes;
        part.found.batches = read.batches;
    }
}
