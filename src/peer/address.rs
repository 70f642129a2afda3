//! Where a broker is to be reached by others: its endpoint of the listener that brokers use among themselves.

use std::fmt;
use std::sync::Arc;

use crate::cluster::control::LiveBroker;
use crate::cluster::image::ImagePublisher;
use crate::types::BrokerId;

/// Host and port of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("broker {0} is not live")]
    NotLive(BrokerId),
    #[error("no controller is known yet")]
    NoController,
    #[error("broker {broker} has no listener {listener}, by which this broker reaches others")]
    NoListener { broker: BrokerId, listener: Arc<str> },
    #[error("listener {listener} of broker {broker} asks for {protocol}, which is not supported yet")]
    Protocol { broker: BrokerId, listener: Arc<str>, protocol: String },
}

/// Looks addresses up in the metadata image, which UpdateMetadata feeds.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    image: Arc<ImagePublisher>,
    /// `inter.broker.listener.name`, or `control.plane.listener.name`.
    listener: Arc<str>,
}

impl Addresses {
    pub(crate) fn new(image: Arc<ImagePublisher>, listener: &str) -> Self {
        Self { image, listener: Arc::from(listener) }
    }

    /// The same brokers on another listener.
    pub(crate) fn on(&self, listener: &str) -> Self {
        Self::new(Arc::clone(&self.image), listener)
    }

    /// Of a broker that the image shows as live.
    ///
    /// # Errors
    /// It is not live, or has no such listener.
    pub(crate) fn of(&self, broker: BrokerId) -> Result<Address, AddressError> {
        let image = self.image.current();
        self.of_live(image.brokers.get(&broker).ok_or(AddressError::NotLive(broker))?)
    }

    /// Of a broker by its registration.
    ///
    /// # Errors
    /// It has no such listener, or one that this broker cannot speak to.
    pub(crate) fn of_live(&self, broker: &LiveBroker) -> Result<Address, AddressError> {
        let listener = Arc::clone(&self.listener);
        let Some(endpoint) = broker.endpoints.iter().find(|endpoint| *endpoint.listener == *listener) else {
            return Err(AddressError::NoListener { broker: broker.id, listener });
        };
        if endpoint.security_protocol != "PLAINTEXT" {
            let protocol = endpoint.security_protocol.clone();
            return Err(AddressError::Protocol { broker: broker.id, listener, protocol });
        }
        Ok(Address { host: endpoint.host.clone(), port: endpoint.port })
    }

    /// The controller that the last UpdateMetadata named.
    ///
    /// # Errors
    /// None has named itself yet.
    pub(crate) fn controller(&self) -> Result<BrokerId, AddressError> {
        self.image.current().controller.ok_or(AddressError::NoController)
    }
}
