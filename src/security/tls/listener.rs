//! One listener over TLS: what it presents and trusts now, and how that is replaced while it is open.
//!
//! Connections that are there keep what they were made with. What replaces a keystore is its like: the same
//! distinguished names, and no alternative name fewer, unless `ssl.allow.dn.changes` or `ssl.allow.san.changes` says
//! so. Source, also of the texts: Kafka 3.9 `SslFactory.createNewSslEngineFactory`.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tracing::info;

use super::built::{Built, Entry};
use super::mapping::Rules;
use super::store::StoreError;
use super::{der, name};
use crate::config::TlsSettings;
use crate::config::tls::Stores;
use crate::security::principal::Principal;

/// Shared by all connections of the listener.
#[derive(Debug)]
pub(crate) struct TlsListener {
    /// As the listener was opened; of these the stores alone change.
    settings: TlsSettings,
    rules: Rules,
    /// Brokers speak through it among themselves, so each must accept the other's.
    is_of_brokers: bool,
    now: RwLock<Arc<Built>>,
}

impl TlsListener {
    /// # Errors
    /// A setting, its file, and why it cannot be used.
    pub(crate) fn new(settings: TlsSettings, is_of_brokers: bool) -> Result<Arc<Self>, StoreError> {
        let rules = Rules::parse(&settings.principal_mapping_rules);
        let rules = rules.map_err(|why| StoreError { key: "ssl.principal.mapping.rules", file: None, why })?;
        if !settings.stores.has_keystore() {
            let why = "a listener over TLS needs one, with its key and certificate".into();
            return Err(StoreError { key: "ssl.keystore.location", file: None, why });
        }
        let built = Built::new(&settings, &settings.stores)?;
        if is_of_brokers {
            built.accepts(&built).map_err(|why| {
                let why = format!(
                    "A client SSLEngine created with the provided settings can't connect to a server SSLEngine \
                     created with those settings: {why}"
                );
                StoreError { key: "ssl.truststore.location", file: settings.stores.truststore_location.clone(), why }
            })?;
        }
        Ok(Arc::new(Self { settings, rules, is_of_brokers, now: RwLock::new(Arc::new(built)) }))
    }

    /// For a connection that comes.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.read().server)
    }

    /// For a connection to another broker; `None`: there is no truststore to judge it by.
    pub(crate) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.now.read().client.clone()
    }

    /// Whom a connection with these certificates speaks for: nobody known, if there are none, or until SASL says.
    ///
    /// # Errors
    /// No mapping rule applies to the name, or there is none to be read.
    pub(crate) fn principal(&self, shown: Option<&[CertificateDer<'_>]>) -> Result<Principal, String> {
        let shown = shown.filter(|_| !self.settings.is_sasl);
        let Some(certificate) = shown.and_then(<[_]>::first) else { return Ok(Principal::anonymous()) };
        let subject = der::certificate(certificate).and_then(|certificate| name::rfc2253(certificate.subject));
        let subject = subject.ok_or("the certificate's name cannot be read")?;
        self.rules.apply(&subject).map(Principal::user).ok_or_else(|| format!("No rules apply to {subject}"))
    }

    /// The first moment from which a certificate that it presents is not good any more, in seconds since 1970.
    pub(crate) fn expires(&self) -> Option<i64> {
        self.now.read().expires
    }

    /// Name of the listener.
    pub(crate) fn name(&self) -> &str {
        &self.settings.listener
    }

    /// Of each certificate of its own the alias and the name.
    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.now.read().entries.iter().map(|entry| format!("{}: {}", entry.alias, entry.name)).collect()
    }

    /// Whether these stores could take the place of those that are in use.
    ///
    /// # Errors
    /// Why not, in Kafka's words where it has some.
    pub(super) fn check(&self, stores: &Stores) -> Result<(), String> {
        self.build(stores).map(drop)
    }

    /// Takes these stores into use, for connections to come, if they or their files are others than those in use.
    ///
    /// # Errors
    /// As [`Self::check`]; what is in use stays.
    pub(super) fn take(&self, stores: &Stores) -> Result<(), String> {
        let Some(built) = self.build(stores)? else { return Ok(()) };
        let shown = |location: &Option<String>| location.clone().unwrap_or_else(|| "of the settings".into());
        info!(
            target: "org.apache.kafka.common.security.ssl.SslFactory",
            "Created new SERVER SSL engine builder for listener {} with keystore {} truststore {}",
            self.name(), shown(&stores.keystore_location), shown(&stores.truststore_location)
        );
        *self.now.write() = Arc::new(built);
        Ok(())
    }

    /// `None`: nothing is other than what is in use.
    fn build(&self, stores: &Stores) -> Result<Option<Built>, String> {
        let now = Arc::clone(&self.now.read());
        if now.stores == *stores && !now.is_outdated() {
            return Ok(None);
        }
        let config_error = |why: String| format!("org.apache.kafka.common.config.ConfigException: {why}");
        if !stores.has_keystore() {
            let why = "Cannot remove the SSL keystore from an existing listener for which a keystore was configured.";
            return Err(config_error(why.into()));
        }
        if stores.has_truststore() && !now.stores.has_truststore() {
            let why = "Cannot add SSL truststore to an existing listener for which no truststore was configured.";
            return Err(config_error(why.into()));
        }
        let built = Built::new(&self.settings, stores);
        let built = built.map_err(|error| format!("org.apache.kafka.common.KafkaException: {error}"))?;
        if !self.settings.allow_dn_changes {
            same_names(&built.entries, &now.entries).map_err(config_error)?;
        }
        if !self.settings.allow_san_changes {
            no_fewer_alternatives(&built.entries, &now.entries).map_err(config_error)?;
        }
        if self.is_of_brokers {
            let both = now.accepts(&built).and_then(|()| built.accepts(&now));
            both.map_err(|why| format!("javax.net.ssl.SSLHandshakeException: {why}"))?;
        }
        Ok(Some(built))
    }
}

fn same_count(new: &[Entry], old: &[Entry]) -> Result<(), String> {
    match new.len() == old.len() {
        true => Ok(()),
        false => Err(format!(
            "Keystore entries do not match, existing store contains {} entries, new store contains {} entries",
            old.len(),
            new.len()
        )),
    }
}

fn same_names(new: &[Entry], old: &[Entry]) -> Result<(), String> {
    same_count(new, old)?;
    match new.iter().zip(old).find(|(new, old)| !new.name.eq_ignore_ascii_case(&old.name)) {
        None => Ok(()),
        Some((new, old)) => Err(format!(
            "Keystore DistinguishedName does not match:  existing={{alias={}, DN={}}}, new={{alias={}, DN={}}}",
            old.alias, old.name, new.alias, new.name
        )),
    }
}

fn no_fewer_alternatives(new: &[Entry], old: &[Entry]) -> Result<(), String> {
    same_count(new, old)?;
    match new.iter().zip(old).find(|(new, old)| !new.alternative_names.is_superset(&old.alternative_names)) {
        None => Ok(()),
        Some((new, old)) => {
            let shown = |entry: &Entry| entry.alternative_names.iter().cloned().collect::<Vec<_>>().join(", ");
            Err(format!(
                "Keystore SubjectAltNames do not match:  existing={{alias={}, SAN=[{}]}}, new={{alias={}, SAN=[{}]}}",
                old.alias,
                shown(old),
                new.alias,
                shown(new)
            ))
        }
    }
}
