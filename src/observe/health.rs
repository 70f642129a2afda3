//! How far a broker has come: what `/livez` and `/readyz` answer by. Set by the broker, read by whoever asks.

use parking_lot::Mutex;

/// Where a broker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// With what it is at.
    Starting(&'static str),
    Running,
    Stopping,
}

impl Phase {
    /// As Kafka numbers it. Source: Kafka 3.9 `BrokerState`.
    pub(crate) fn broker_state(self) -> u8 {
        match self {
            Self::Starting(_) => 1,
            Self::Running => 3,
            Self::Stopping => 7,
        }
    }
}

/// The phase of one broker.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Phase>);

impl Health {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(Mutex::new(phase))
    }

    pub(crate) fn set(&self, phase: Phase) {
        *self.0.lock() = phase;
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.0.lock()
    }
}
