//! Where a broker is to be reached by others: its endpoint of the listener that brokers use among themselves.

use std::fmt;
use std::sync::Arc;

use crate::cluster::control::LiveBroker;
use crate::cluster::image::ImagePublisher;
use crate::security::sasl::login::Login;
use crate::security::tls::TlsListener;
use crate::types::BrokerId;

/// Host and port of a listener, what its bytes are protected by, and what it wants to see first.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// This broker's own end of it; `None`: bytes are plain.
    pub(crate) tls: Option<Arc<TlsListener>>,
    /// `None`: it does not ask who comes.
    pub(crate) login: Option<Arc<Login>>,
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        let parts = |address: &Self| (address.port, address.tls.is_some(), address.login.is_some());
        self.host == other.host && parts(self) == parts(other)
    }
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
    #[error("listener {listener} of broker {broker} asks for {protocol}, which this broker's own does not speak")]
    Protocol { broker: BrokerId, listener: Arc<str>, protocol: String },
}

/// Looks addresses up in the metadata image, which UpdateMetadata feeds.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    image: Arc<ImagePublisher>,
    /// `inter.broker.listener.name`, or `control.plane.listener.name`.
    listener: Arc<str>,
    /// This broker's own end of that listener, if it is over TLS: its keys and whom it trusts hold for both directions.
    tls: Option<Arc<TlsListener>>,
    /// What is shown there, if it is asked for.
    login: Option<Arc<Login>>,
}

impl Addresses {
    pub(crate) fn new(image: Arc<ImagePublisher>, listener: &str, tls: Option<Arc<TlsListener>>) -> Self {
        Self { image, listener: Arc::from(listener), tls, login: None }
    }

    /// The same brokers on another listener.
    pub(crate) fn on(&self, listener: &str, tls: Option<Arc<TlsListener>>) -> Self {
        Self::new(Arc::clone(&self.image), listener, tls)
    }

    /// The same with what is shown to listeners that ask.
    pub(crate) fn with_login(self, login: Option<&Arc<Login>>) -> Self {
        Self { login: login.map(Arc::clone), ..self }
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
        let (tls, login) = match (endpoint.security_protocol.as_str(), &self.tls, &self.login) {
            ("PLAINTEXT", None, _) => (None, None),
            ("SSL", Some(tls), _) => (Some(Arc::clone(tls)), None),
            ("SASL_PLAINTEXT", None, Some(login)) => (None, Some(Arc::clone(login))),
            ("SASL_SSL", Some(tls), Some(login)) => (Some(Arc::clone(tls)), Some(Arc::clone(login))),
            (other, _, _) => {
                let protocol = other.to_owned();
                return Err(AddressError::Protocol { broker: broker.id, listener, protocol });
            }
        };
        Ok(Address { host: endpoint.host.clone(), port: endpoint.port, tls, login })
    }

    /// The controller that the last UpdateMetadata named.
    ///
    /// # Errors
    /// None has named itself yet.
    pub(crate) fn controller(&self) -> Result<BrokerId, AddressError> {
        self.image.current().controller.ok_or(AddressError::NoController)
    }
}
