//! From what was found to the response of a fetch: all of it, or in a session what has news.

use super::part::{Gathered, Part};
use crate::api::context::RequestContext;
use crate::api::handler::Outcome;
use crate::api::records::fetched::by_topic;
use crate::api::shared::leader_hints;
use crate::log::state::aborted::AbortedTransaction;
use crate::replica::sessions::{FetchKey, Session, Told, Use};
use crate::types::BrokerId;
use crate::wire::fetch::{self, FetchResponse, FetchedPartition};

pub(super) fn tell(ctx: &RequestContext, usage: &Use, committed: bool, mut gathered: Gathered) -> Outcome {
    match usage {
        Use::Sessionless => encode(ctx, 0, 0, committed, gathered),
        Use::Full { by_id } => {
            let mut session = Session::new(*by_id, gathered.parts.iter().map(|part| (&part.key, &part.wanted)));
            for part in &gathered.parts {
                session.must_tell(&part.key, part.told(), part.has_data(), part.found.error.is_some());
            }
            let clock = &ctx.handles.clock;
            let id = ctx.handles.sessions.open(session, clock.now_ms(), clock.random());
            encode(ctx, 0, id, committed, gathered)
        }
        Use::Incremental(session) => {
            let mut session = session.lock();
            gathered
                .parts
                .retain(|part| session.must_tell(&part.key, part.told(), part.has_data(), part.found.error.is_some()));
            let id = session.id;
            drop(session);
            encode(ctx, 0, id, committed, gathered)
        }
    }
}

/// The response of a fetch that has to wait: no data, and no new session. What is not sent counts as not told.
/// Source: Kafka 3.9 `FetchContext.getThrottledResponse`.
pub(super) fn tell_later(ctx: &RequestContext, usage: &Use, throttle_time_ms: i32) -> Outcome {
    let session_id = match usage {
        Use::Sessionless | Use::Full { .. } => 0,
        Use::Incremental(session) => session.lock().id,
    };
    let response = FetchResponse { throttle_time_ms, session_id, ..FetchResponse::default() };
    Outcome::Records(fetch::encode(response, ctx.version), Gathered::nothing(ctx).claim)
}

impl Part {
    fn told(&self) -> Told {
        Told { high_watermark: self.found.high_watermark.0, log_start_offset: self.found.log_start_offset.0 }
    }

    fn has_data(&self) -> bool {
        self.found.bytes > 0 || self.found.diverging.is_some() || self.preferred.is_some()
    }
}

fn wire_aborted(transaction: &AbortedTransaction) -> fetch::AbortedTransaction {
    fetch::AbortedTransaction { producer_id: transaction.producer_id, first_offset: transaction.first_offset }
}

/// A partition as the answer has it.
fn answered(part: Part, committed: bool) -> (FetchKey, FetchedPartition) {
    let Part { key, preferred, found, .. } = part;
    let partition = FetchedPartition {
        index: key.1,
        error_code: found.error.map_or(0, |error| error.code()),
        high_watermark: found.high_watermark,
        last_stable_offset: found.last_stable_offset,
        log_start_offset: found.log_start_offset,
        aborted_transactions: committed.then(|| found.aborted.iter().map(wire_aborted).collect()),
        preferred_read_replica: preferred.filter(|_| found.error.is_none()).unwrap_or(BrokerId::NONE),
        records: found.places,
        diverging_epoch: found.diverging,
        current_leader: None,
    };
    (key, partition)
}

/// The response. `committed`: aborted transactions are named.
pub(super) fn encode(
    ctx: &RequestContext,
    error_code: i16,
    session_id: i32,
    committed: bool,
    gathered: Gathered,
) -> Outcome {
    let topics = by_topic(gathered.parts.into_iter().map(|part| answered(part, committed)));
    let mut response = FetchResponse { error_code, session_id, topics, ..FetchResponse::default() };
    leader_hints::of_fetch(ctx, &mut response);
    Outcome::Records(fetch::encode(response, ctx.version), gathered.claim)
}
