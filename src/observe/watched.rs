//! What `/metrics`, `/livez` and `/readyz` say of one broker: there from before anything else is, so that a start that
//! takes long can be told from one that hangs, and until after everything else is gone.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::exposition::Exposition;
use super::health::{Health, Phase};
use super::sources::Sources;
use super::window::Window;
use super::{quotas, rows};
use crate::clock::SharedClock;

pub(crate) use super::exposition::CONTENT_TYPE;

/// One broker, for whoever watches it.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) health: Health,
    clock: SharedClock,
    /// Of the monotonic clock.
    started_ms: i64,
    sources: OnceLock<Sources>,
    window: Mutex<Window>,
}

impl Watched {
    /// A broker that begins to start.
    pub(crate) fn new(clock: SharedClock) -> Arc<Self> {
        let started_ms = clock.monotonic_ms();
        Arc::new(Self {
            health: Health::new(Phase::Starting("the log directories are being opened")),
            clock,
            started_ms,
            sources: OnceLock::new(),
            window: Mutex::default(),
        })
    }

    /// The rooms are there. Called once.
    pub(crate) fn on_wired(&self, sources: Sources) {
        self.sources.set(sources).expect("a broker is wired once");
    }

    /// Why it should not be sent requests yet, or any more, in one line. A broker that runs is ready once what it leads
    /// is: no leader waits for an epoch, no coordinator still reads its log.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        match self.health.phase() {
            Phase::Starting(what) => return Err(format!("starting: {what}")),
            Phase::Stopping => return Err("stopping".into()),
            Phase::Running => {}
        }
        let Some(sources) = self.sources.get() else { return Err("starting".into()) };
        let (loading, waiting) = (sources.loading(), sources.replicas.in_doubt());
        if loading > 0 {
            return Err(format!("coordinators of {loading} partitions are loading"));
        }
        if waiting > 0 {
            return Err(format!("{waiting} partitions wait for a leader epoch"));
        }
        Ok(())
    }

    /// All metrics as text. May block for as long as `/proc` does; one caller at a time is enough.
    pub(crate) fn metrics(&self) -> String {
        let mut text = Exposition::default();
        let now = self.clock.monotonic_ms();
        rows::of_process(&mut text, now - self.started_ms);
        rows::of_state(&mut text, self.health.phase());
        if let Some(sources) = self.sources.get() {
            rows::of_requests(&mut text, &sources.requests, now, &mut self.window.lock());
            rows::of_replicas(&mut text, sources);
            rows::of_controller(&mut text, &sources.image.current(), sources.controller.is_active());
            rows::of_listeners(&mut text, &sources.listeners);
            rows::of_certificates(&mut text, &sources.tls);
            quotas::of_clients(&mut text, &sources.quotas, now);
        }
        rows::of_counters(&mut text);
        text.finish()
    }
}
