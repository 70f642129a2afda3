//! What is looked at: the rooms of a broker, and the counts that nobody else holds together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::image::ImagePublisher;
use crate::controller::ControllerHandle;
use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::transaction::TransactionCoordinator;
use crate::metrics::{ListenerMetrics, RequestMetrics};
use crate::replica::manager::ReplicaManager;
use crate::security::quota::meter::Meter;
use crate::security::tls::TlsListeners;

/// A log directory, and whether it still takes writes.
#[derive(Debug)]
pub(crate) struct DirState {
    pub(crate) path: PathBuf,
    failed: AtomicBool,
}

impl DirState {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, failed: AtomicBool::new(false) })
    }

    pub(crate) fn on_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The rooms that are looked at. They are there once the broker is wired.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) image: Arc<ImagePublisher>,
    pub(crate) controller: ControllerHandle,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) transactions: Arc<TransactionCoordinator>,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) listeners: Vec<Arc<ListenerMetrics>>,
    pub(crate) tls: Arc<TlsListeners>,
    pub(crate) quotas: Arc<Meter>,
    pub(crate) dirs: Vec<Arc<DirState>>,
}

impl Sources {
    /// Partitions of internal topics led here whose coordinator still reads its log.
    pub(super) fn loading(&self) -> usize {
        self.groups.loading() + self.transactions.loading()
    }
}
