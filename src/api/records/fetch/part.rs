//! What a fetch asks of a partition, and what was found for it.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::api::context::RequestContext;
use crate::api::replies::Claim;
use crate::api::shared::leader;
use crate::log::state::aborted::AbortedTransaction;
use crate::replica::partition::{OutOfRange, Partition};
use crate::replica::sessions::{FetchKey, Wanted};
use crate::types::place::Place;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// What a request asks of all its partitions.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: usize,
    /// Of these what may be held in memory.
    pub(super) held_max: usize,
    pub(super) min_bytes: usize,
    pub(super) max_wait: Duration,
    pub(super) read_committed: bool,
    /// A follower answers as well, as far as its own high watermark (KIP-392).
    pub(super) any_replica: bool,
}

/// One partition of the request with what was found for it.
pub(super) struct Part {
    pub(super) key: FetchKey,
    pub(super) wanted: Wanted,
    pub(super) replica: Option<Arc<Partition>>,
    /// The follower that the consumer is to read from.
    pub(super) preferred: Option<BrokerId>,
    pub(super) found: Fetched,
}

impl Part {
    /// One that is not looked for.
    pub(super) fn refused(key: FetchKey, wanted: Wanted, error: ResponseError) -> Self {
        Self { key, wanted, replica: None, preferred: None, found: refused(error) }
    }
}

#[derive(Default)]
pub(super) struct Fetched {
    pub(super) error: Option<ResponseError>,
    pub(super) high_watermark: Offset,
    pub(super) last_stable_offset: Offset,
    pub(super) log_start_offset: Offset,
    /// Epoch and end offset where the logs part.
    pub(super) diverging: Option<(LeaderEpoch, Offset)>,
    pub(super) places: Vec<Place>,
    pub(super) bytes: usize,
    /// What they count for, in bytes, where a fetch waits for so many: with the part of the next batch that would fit,
    /// which Kafka sends.
    pub(super) counted_bytes: usize,
    /// What of them lies in memory.
    pub(super) held_bytes: usize,
    /// What a reader of committed records must leave out of them.
    pub(super) aborted: Vec<AbortedTransaction>,
    /// Readable up to here; `None` when the partition has an error.
    pub(super) upto: Option<Offset>,
}

/// All partitions of a request, and what their records hold of the budget of all replies.
pub(super) struct Gathered {
    pub(super) parts: Vec<Part>,
    pub(super) claim: Claim,
    /// There was no room for one batch in time.
    pub(super) no_room: bool,
}

impl Gathered {
    pub(super) fn nothing(ctx: &RequestContext) -> Self {
        Self { parts: Vec::new(), claim: Claim::nothing(&ctx.handles.replies), no_room: false }
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.found.bytes).sum()
    }

    /// Whether there is as much as is waited for. Whole batches may never come to that where a limit lies close to it.
    fn has(&self, min_bytes: usize) -> bool {
        let counted = || self.parts.iter().map(|part| part.found.counted_bytes).fold(0, usize::saturating_add);
        let bytes = self.bytes();
        bytes >= min_bytes || (bytes > 0 && counted() >= min_bytes)
    }

    /// What of it counts against the budget of all replies.
    pub(super) fn held_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.found.held_bytes).sum()
    }

    pub(super) fn forget_records(&mut self) {
        for part in &mut self.parts {
            part.found.places = Vec::new();
            (part.found.bytes, part.found.counted_bytes, part.found.held_bytes) = (0, 0, 0);
            part.found.aborted = Vec::new();
        }
        self.claim.settle(0);
    }
}

pub(super) fn refused(error: ResponseError) -> Fetched {
    Fetched { error: Some(error), ..Fetched::nothing() }
}

impl Fetched {
    pub(super) fn nothing() -> Self {
        Self {
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            ..Self::default()
        }
    }
}

/// Fills in positions and errors of the moment; `upto` is set where there may be something to read.
pub(super) fn look(part: &mut Part, read_committed: bool, any_replica: bool) {
    let Some(replica) = &part.replica else { return };
    let view = replica.view();
    let found = &mut part.found;
    *found = Fetched::nothing();
    if view.offline {
        found.error = Some(ResponseError::KafkaStorageError);
        return;
    }
    let checked = match any_replica {
        true => leader::check_epoch(&view, part.wanted.current_leader_epoch),
        false => leader::check(&view, part.wanted.current_leader_epoch),
    };
    if let Err(error) = checked {
        found.error = Some(error);
        return;
    }
    found.high_watermark = view.high_watermark;
    found.last_stable_offset = view.last_stable_offset;
    found.log_start_offset = view.log_start_offset;
    if part.preferred.is_some() {
        return;
    }
    if part.wanted.last_fetched_epoch >= 0 {
        let (epoch, offset) = (LeaderEpoch(part.wanted.last_fetched_epoch), part.wanted.fetch_offset);
        match replica.divergence(epoch, offset, view.log_start_offset) {
            Ok(None) => {}
            Ok(parted) => {
                found.diverging = parted;
                return;
            }
            Err(OutOfRange) => {
                found.error = Some(ResponseError::OffsetOutOfRange);
                return;
            }
        }
    }
    let offset = part.wanted.fetch_offset;
    if offset < view.log_start_offset || offset > view.log_end_offset {
        found.error = Some(ResponseError::OffsetOutOfRange);
        return;
    }
    found.upto = Some(if read_committed { view.last_stable_offset } else { view.high_watermark });
}

impl Part {
    /// Whether it has what is not to be waited with.
    pub(super) fn is_due(&self) -> bool {
        let failed = self.found.error.is_some() && !self.is_refused();
        failed || self.found.diverging.is_some() || self.preferred.is_some()
    }

    /// Whether the request may not read it. That is no news: it waits with the others.
    fn is_refused(&self) -> bool {
        self.found.error == Some(ResponseError::TopicAuthorizationFailed)
    }
}

pub(super) fn is_due(gathered: &Gathered, limits: Limits) -> bool {
    gathered.parts.iter().all(Part::is_refused)
        || gathered.no_room
        || limits.max_wait.is_zero()
        || gathered.has(limits.min_bytes)
        || gathered.parts.iter().any(Part::is_due)
}
