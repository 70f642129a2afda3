//! Counting what a request takes of its client's quotas, and having its connection wait.

use std::sync::Arc;

use crate::api::context::RequestContext;
use crate::security::quota::limits::Kind;

impl RequestContext {
    /// Counts bytes that the request took. The connection is not read for the milliseconds that are answered, mostly 0.
    pub(in crate::api) fn throttle(&self, kind: Kind, bytes: usize) -> i32 {
        if !self.handles.quotas.any() {
            return 0;
        }
        let now_ms = self.handles.clock.monotonic_ms();
        let throttle_ms = self.handles.quotas.record(kind, &self.principal.name, &self.client(), bytes as f64, now_ms);
        if throttle_ms > 0 {
            self.mute.extend(now_ms, throttle_ms);
        }
        i32::try_from(throttle_ms).unwrap_or(i32::MAX)
    }

    /// Takes back what [`Self::throttle`] counted a moment ago: it is not sent.
    pub(in crate::api) fn take_back(&self, kind: Kind, bytes: usize) {
        let now_ms = self.handles.clock.monotonic_ms();
        self.handles.quotas.take_back(kind, &self.principal.name, &self.client(), bytes as f64, now_ms);
    }

    /// As many bytes as the client may take at once; `usize::MAX` without a limit.
    pub(in crate::api) fn at_once_max(&self, kind: Kind) -> usize {
        if !self.handles.quotas.any() {
            return usize::MAX;
        }
        let most = self.handles.quotas.at_once_max(kind, &self.principal.name, &self.client());
        most.map_or(usize::MAX, |bytes| bytes as usize)
    }

    fn client(&self) -> Arc<str> {
        self.client_id.clone().unwrap_or_default()
    }
}
