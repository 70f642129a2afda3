//! Counting what a request takes of its client's quotas, and having its connection wait.
//!
//! Source: Kafka 3.9 `RequestHandlerHelper`, KIP-124, KIP-219, KIP-599.

use std::sync::Arc;

use kafka_protocol::ResponseError;

use super::refusal::Refusal;
use crate::api::context::RequestContext;
use crate::security::quota::limits::Kind;
use crate::security::quota::meter::{Debt, Took};

impl RequestContext {
    /// Counts bytes that the request took. The connection is not read for the milliseconds that are answered, mostly 0.
    pub(in crate::api) fn throttle(&self, kind: Kind, bytes: usize) -> i32 {
        if !self.handles.quotas.limits(kind) {
            return 0;
        }
        self.record(kind, bytes as f64)
    }

    /// The same for the time that the request has been worked on so far. Called once, when its answer is known.
    pub(in crate::api) fn throttle_time(&self) -> i32 {
        let Some(handling) = &self.handling else { return 0 };
        self.record(Kind::Request, handling.spent_ns() as f64 / NS_PER_PERCENT)
    }

    fn record(&self, kind: Kind, taken: f64) -> i32 {
        let now_ms = self.handles.clock.monotonic_ms();
        let wait_ms = self.handles.quotas.record(kind, &self.principal.name, &self.client(), taken, now_ms);
        self.wait(now_ms, wait_ms)
    }

    /// The connection is not read for so long.
    fn wait(&self, now_ms: i64, wait_ms: u32) -> i32 {
        if wait_ms > 0 {
            self.mute.extend(now_ms, wait_ms);
        }
        i32::try_from(wait_ms).unwrap_or(i32::MAX)
    }

    /// Takes back what [`Self::throttle`] counted a moment ago: it is not sent.
    pub(in crate::api) fn take_back(&self, kind: Kind, bytes: usize) {
        if !self.handles.quotas.limits(kind) {
            return;
        }
        let now_ms = self.handles.clock.monotonic_ms();
        self.handles.quotas.take_back(kind, &self.principal.name, &self.client(), bytes as f64, now_ms);
    }

    /// As many bytes as the client may take at once; `usize::MAX` without a limit.
    pub(in crate::api) fn at_once_max(&self, kind: Kind) -> usize {
        if !self.handles.quotas.limits(kind) {
            return usize::MAX;
        }
        let most = self.handles.quotas.at_once_max(kind, &self.principal.name, &self.client());
        most.map_or(usize::MAX, |bytes| bytes as usize)
    }

    /// What the request may change of topics. `refusing_since`: versions from this one on are refused what is beyond
    /// the limit; older ones get it, and wait. `None`: none is refused.
    pub(in crate::api) fn mutations(&self, refusing_since: Option<i16>) -> Mutations {
        let limited = self.handles.quotas.limits(Kind::Mutation);
        let refuses = refusing_since.is_some_and(|since| self.version >= since);
        let debt = if refuses { Debt::Refused } else { Debt::Waited };
        Mutations { ctx: limited.then(|| self.clone()), debt, until_ms: 0 }
    }

    fn client(&self) -> Arc<str> {
        self.client_id.clone().unwrap_or_default()
    }
}

/// A percent of a thread's second.
const NS_PER_PERCENT: f64 = 1e7;

/// What one request changes of topics, in partitions.
#[derive(Debug)]
pub(in crate::api) struct Mutations {
    /// `None`: nobody is limited.
    ctx: Option<RequestContext>,
    debt: Debt,
    /// Until when its connection waits; 0: it does not.
    until_ms: i64,
}

impl Mutations {
    /// Counts partitions that are to be made or to go.
    ///
    /// # Errors
    /// They are not: THROTTLING_QUOTA_EXCEEDED.
    pub(in crate::api) fn take(&mut self, partitions: usize) -> Result<(), Refusal> {
        let Some(ctx) = &self.ctx else { return Ok(()) };
        let now_ms = ctx.handles.clock.monotonic_ms();
        let (quotas, user) = (&ctx.handles.quotas, &ctx.principal.name);
        let took = quotas.take_tokens(self.debt, user, &ctx.client(), partitions as f64, now_ms);
        let (Took::Tokens { wait_ms } | Took::Nothing { wait_ms }) = took;
        if wait_ms > 0 {
            self.until_ms = now_ms.saturating_add(i64::from(wait_ms));
        }
        match took {
            Took::Tokens { .. } => Ok(()),
            Took::Nothing { .. } => Err(Refusal::bare(ResponseError::ThrottlingQuotaExceeded)),
        }
    }

    /// The same of what is never refused: who is beyond the limit waits.
    pub(in crate::api) fn note(&mut self, partitions: impl FnOnce() -> usize) {
        debug_assert_eq!(self.debt, Debt::Waited);
        if self.ctx.is_some() && self.take(partitions()).is_err() {
            unreachable!("nothing is refused to who may owe");
        }
    }

    /// How long the connection is not read from now on, in milliseconds; what has passed since does not count.
    pub(in crate::api) fn throttle(&self) -> i32 {
        let Some(ctx) = self.ctx.as_ref().filter(|_| self.until_ms > 0) else { return 0 };
        let now_ms = ctx.handles.clock.monotonic_ms();
        ctx.wait(now_ms, u32::try_from(self.until_ms - now_ms).unwrap_or(0))
    }
}
