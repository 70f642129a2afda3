//! What is counted while the broker works: one relaxed addition each, no lock, no allocation.
//!
//! What belongs to the process stands here as a list of statics; what belongs to one broker, a partition or a listener
//! is a value that its owner holds. `observe` reads all of it and gives it Kafka's names. What can be asked for at any
//! time is not counted but read when somebody looks.

pub(crate) mod rate;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::requests::{Api, BUCKETS, RequestMetrics, Series, bucket_end_us};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes away what was added before.
    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What went in and out of one partition.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    /// Bytes of batches that are larger than a topic or a segment takes.
    pub(crate) bytes_rejected: Counter,
    /// Appends that were asked for by clients.
    pub(crate) produces: Counter,
    pub(crate) produces_failed: Counter,
    pub(crate) fetches: Counter,
}

impl Traffic {
    /// The counts of this moment.
    pub(crate) fn counts(&self) -> TrafficCounts {
        TrafficCounts {
            messages_in: self.messages_in.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            bytes_rejected: self.bytes_rejected.get(),
            produces: self.produces.get(),
            produces_failed: self.produces_failed.get(),
            fetches: self.fetches.get(),
        }
    }
}

/// [`Traffic`] at one moment, or of several partitions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TrafficCounts {
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_rejected: u64,
    pub(crate) produces: u64,
    pub(crate) produces_failed: u64,
    pub(crate) fetches: u64,
}

impl std::ops::AddAssign for TrafficCounts {
    fn add_assign(&mut self, other: Self) {
        self.messages_in += other.messages_in;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.bytes_rejected += other.bytes_rejected;
        self.produces += other.produces;
        self.produces_failed += other.produces_failed;
        self.fetches += other.fetches;
    }
}

/// Connections of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub(crate) name: Arc<str>,
    pub(crate) open: Gauge,
    pub(crate) accepted: Counter,
    /// Clients that proved who they are, and such that did not.
    pub(crate) authentications: Counter,
    pub(crate) authentications_failed: Counter,
    /// The same of connections that had been authenticated before.
    pub(crate) reauthentications: Counter,
    pub(crate) reauthentications_failed: Counter,
    /// Connections that were ended because their clients did not authenticate again in time.
    pub(crate) sessions_expired: Counter,
}

impl ListenerMetrics {
    pub(crate) fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            open: Gauge::new(),
            accepted: Counter::new(),
            authentications: Counter::new(),
            authentications_failed: Counter::new(),
            reauthentications: Counter::new(),
            reauthentications_failed: Counter::new(),
            sessions_expired: Counter::new(),
        })
    }

    /// Counts a connection that was accepted, which is open until this is dropped.
    pub(crate) fn opened(self: &Arc<Self>) -> OpenConnection {
        self.accepted.add(1);
        self.open.add(1);
        OpenConnection(Arc::clone(self))
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<ListenerMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.sub(1);
    }
}

/// Replicas that a leader took out of the ISR; counted where the controller has agreed to the smaller one. Kafka's
/// `kafka.server:type=ReplicaManager,name=IsrShrinksPerSec`.
pub(crate) static ISR_SHRINKS: Counter = Counter::new();
/// Replicas that joined an ISR again; counted where the controller has agreed to the larger one.
pub(crate) static ISR_EXPANDS: Counter = Counter::new();
/// Changes of an ISR that the controller refused, or that nobody answered.
pub(crate) static FAILED_ISR_UPDATES: Counter = Counter::new();
/// Partitions that got another leader while this broker was the controller, first leaders left out. Kafka times them
/// (`kafka.controller:type=ControllerStats,name=LeaderElectionRateAndTimeMs`).
pub(crate) static LEADER_ELECTIONS: Counter = Counter::new();
/// Those of them that were led by a replica from outside the ISR.
pub(crate) static UNCLEAN_LEADER_ELECTIONS: Counter = Counter::new();

/// Logs whose last compaction failed and that wait for another try; Kafka's
/// `kafka.log:type=LogCleanerManager,name=uncleanable-partitions-count`, over all directories.
pub(crate) static UNCLEANABLE_PARTITIONS: Gauge = Gauge::new();

/// Frames refused before their body was decoded: bad size, unknown key or version, malformed header.
pub(crate) static FRAMES_REFUSED: Counter = Counter::new();
/// Request bodies that did not decode.
pub(crate) static BODIES_REFUSED: Counter = Counter::new();
/// Connections that ended while hands were shaken for TLS: refused, or too slow.
pub(crate) static HANDSHAKES_REFUSED: Counter = Counter::new();
/// Replies that their clients took too slowly while others waited for room.
pub(crate) static REPLIES_GIVEN_UP: Counter = Counter::new();
/// Replies that were cut off, with their connections, because their records could not be read from their files.
pub(crate) static REPLIES_UNREADABLE: Counter = Counter::new();
