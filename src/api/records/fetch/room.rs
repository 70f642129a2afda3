//! What a fetch finds, within its limits: in memory, in files from which it can be sent, in storage for the rest.

use std::sync::Arc;

use kafka_protocol::ResponseError;

use super::part::{Gathered, Limits, Part, look, refused};
use crate::api::replies::{Claim, Replies};
use crate::log::reading::find::{Find, Found, Span};
use crate::replica::partition::Partition;
use crate::task;

/// Partitions that are looked at without letting other tasks run.
const AT_ONCE: usize = 256;

/// Finds what is readable now: in the tail as far as it reaches back, in the files of tables, in what was read ahead,
/// and has the rest read.
pub(super) async fn read(replies: &Arc<Replies>, gathered: &mut Gathered, limits: Limits) {
    let mut room = Room::of(limits);
    for (index, part) in gathered.parts.iter_mut().enumerate() {
        if index % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let Some((replica, find)) = room.for_part(part) else { continue };
        match replica.reader().find_now(&find) {
            Some(found) => room.take(part, found, &replica),
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
            let Some((replica, find)) = room.for_part(part) else { continue };
            let mut reader = replica.reader();
            let mut found = reader.find_blocking(&find);
            if found.is_err() && reader.is_closed() {
                // It may have moved to another directory.
                reader = replica.reader();
                found = reader.find_blocking(&find);
            }
            match found {
                Ok(found) => room.take(part, found, &replica),
                // Deleted meanwhile; the next metadata tell what is there now.
                Err(_) if reader.is_closed() => {
                    part.found.error = Some(ResponseError::NotLeaderOrFollower);
                }
                Err(failure) => {
                    if replica.reader().is_news(&failure) {
                        tracing::error!(topic = %replica.id.topic, partition = %part.key.1, %failure, "a read failed");
                    }
                    // A consumer in Java asks for ever where storage has failed, without a word. What is damaged it
                    // tells, as it does of a batch that Kafka sends damaged.
                    let is_damage = failure.is_damage();
                    let error =
                        if is_damage { ResponseError::CorruptMessage } else { ResponseError::KafkaStorageError };
                    part.found.error = Some(error);
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
    /// And of that in memory.
    held_left: usize,
    read_committed: bool,
    any_replica: bool,
    /// The first batch may be larger than all limits, lest a consumer never get past it.
    empty_so_far: bool,
}

impl Room {
    fn of(limits: Limits) -> Self {
        let Limits { max_bytes: left, held_max: held_left, read_committed, any_replica, .. } = limits;
        Self { left, held_left, read_committed, any_replica, empty_so_far: true }
    }

    /// Looks at a partition: its replica, and what to ask of its log; `None` if there is nothing to read.
    fn for_part(&self, part: &mut Part) -> Option<(Arc<Partition>, Find)> {
        look(part, self.read_committed, self.any_replica);
        let (Some(replica), Some(upto)) = (&part.replica, part.found.upto) else { return None };
        let bytes = self.bytes_max(part);
        let (from, at_least_one) = (part.wanted.fetch_offset, self.empty_so_far);
        let span = Span { from, upto, max_bytes: bytes, at_least_one };
        let some = from < upto && (bytes > 0 || at_least_one);
        some.then(|| (Arc::clone(replica), Find { span, held_max: self.held_left, reads_ahead: true }))
    }

    fn bytes_max(&self, part: &Part) -> usize {
        self.left.min(part.wanted.partition_max_bytes.max(0) as usize)
    }

    /// Takes what was found of this partition, and has more read ahead for a consumer behind the tail.
    fn take(&mut self, part: &mut Part, read: Found, replica: &Partition) {
        if let Some(fill) = read.fill {
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
        let is_all = part.found.upto.is_none_or(|upto| read.end >= upto);
        part.found.counted_bytes = if is_all { read.bytes } else { read.bytes.max(self.bytes_max(part)) };
        self.empty_so_far &= read.bytes == 0;
        self.left = self.left.saturating_sub(read.bytes);
        self.held_left = self.held_left.saturating_sub(read.held_bytes);
        (part.found.bytes, part.found.held_bytes) = (read.bytes, read.held_bytes);
        part.found.places = read.places;
    }
}
