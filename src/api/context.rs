//! What a handler may use: handles of the domain rooms, and what is known of the request.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::cluster::image::{ClusterImage, ImagePublisher};

/// Handles of the rooms, one set per broker.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) clock: SharedClock,
    pub(crate) image: Arc<ImagePublisher>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) handles: Arc<Handles>,
    pub(crate) version: i16,
    /// `None` when the client sent null.
    pub(crate) client_id: Option<Arc<str>>,
    /// Name of the listener the connection came through.
    pub(crate) listener: Arc<str>,
    pub(crate) peer: SocketAddr,
}

impl RequestContext {
    /// The image of this moment; take it once per request.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        self.handles.image.current()
    }
}
