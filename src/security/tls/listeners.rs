//! All listeners over TLS of a broker.

use std::sync::Arc;

use tracing::error;

use super::listener::TlsListener;
use super::store::StoreError;
use crate::config::{Config, TlsSettings};

/// Why a broker with these settings does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener {listener}: {error}")]
pub(crate) struct TlsError {
    listener: String,
    error: StoreError,
}

/// In the order of `listeners`; those that are not over TLS are not here.
#[derive(Debug, Default)]
pub(crate) struct TlsListeners(Vec<Arc<TlsListener>>);

impl TlsListeners {
    /// Reads the stores of all of them.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub(crate) fn open(config: &Config) -> Result<Arc<Self>, TlsError> {
        let open = |settings: &TlsSettings| {
            let between_brokers = config.zookeeper.is_some() && is_of_brokers(config, &settings.listener);
            let opened = TlsListener::new(settings.clone(), between_brokers);
            opened.map_err(|error| TlsError { listener: settings.listener.clone(), error })
        };
        Ok(Arc::new(Self(config.tls.iter().map(open).collect::<Result<_, _>>()?)))
    }

    /// The listener of this name, if it is over TLS.
    pub(crate) fn of(&self, listener: &str) -> Option<&Arc<TlsListener>> {
        self.0.iter().find(|own| own.name() == listener)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TlsListener> {
        self.0.iter().map(|listener| &**listener)
    }

    /// Whether these settings could take the place of those in use.
    ///
    /// # Errors
    /// Why not, in Kafka's words where it has some.
    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        self.each(config, TlsListener::check)
    }

    /// Takes over what these settings say, and files that are others than when they were read. What cannot be used is
    /// said, and what is in use stays.
    pub(crate) fn take(&self, config: &Config) {
        if let Err(why) = self.each(config, TlsListener::take) {
            error!("{why}");
        }
    }

    fn each(
        &self,
        config: &Config,
        what: fn(&TlsListener, &crate::config::tls::Stores) -> Result<(), String>,
    ) -> Result<(), String> {
        for settings in &config.tls {
            let Some(listener) = self.of(&settings.listener) else { continue };
            // Kafka's text, with the cause where its exception takes a value.
            what(listener, &settings.stores).map_err(|why| {
                format!(
                    "Invalid value org.apache.kafka.common.config.ConfigException: Validation of dynamic config \
                     update of SSLFactory failed: {why} for configuration Invalid dynamic configuration"
                )
            })?;
        }
        Ok(())
    }
}

fn is_of_brokers(config: &Config, listener: &str) -> bool {
    listener == config.inter_broker_listener || Some(listener) == config.control_plane_listener.as_deref()
}
