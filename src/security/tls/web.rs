//! What a connection to a server on the web presents and trusts: what is set, or the authorities of this system.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::built::{Keys, of_keystore, of_truststore};
use super::store::{self, StoreError};
use super::suites::{self, Spoken};
use super::verify::OfServers;
use crate::config::TlsSettings;

/// Read once.
pub(crate) struct TowardsWeb(Arc<ClientConfig>);

impl std::fmt::Debug for TowardsWeb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TowardsWeb")
    }
}

impl TowardsWeb {
    /// Reads the stores. Blocks.
    ///
    /// # Errors
    /// The setting, its file, and why it cannot be used.
    pub(crate) fn open(settings: &TlsSettings) -> Result<Arc<Self>, String> {
        let built = build(settings).map(|config| Arc::new(Self(Arc::new(config))));
        built.map_err(|StoreError { key, file, why }| {
            let file = file.map(|file| format!("={file}")).unwrap_or_default();
            format!("{key}{file}: {why}")
        })
    }

    /// For a connection.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

fn build(settings: &TlsSettings) -> Result<ClientConfig, StoreError> {
    let stores = &settings.stores;
    let Spoken { provider, outgoing, .. } = suites::resolve(settings)?;
    let keys = Keys::new(store::keys(stores)?, &provider);
    let keys = Arc::new(keys.map_err(|why| StoreError { why, ..of_keystore(stores) })?);
    let of_truststore = |why: String| StoreError { why, ..of_truststore(stores) };
    let trusted = match store::trusted(stores)? {
        Some(trusted) => trusted,
        None => of_system().map_err(of_truststore)?,
    };
    let checks_names = !settings.endpoint_identification.is_empty();
    let servers = OfServers::new(&trusted, &provider, checks_names);
    let servers = Arc::new(servers.map_err(|error| of_truststore(error.to_string()))?);
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&outgoing);
    let config =
        config.map_err(|error| StoreError { key: "ssl.enabled.protocols", file: None, why: error.to_string() })?;
    Ok(config.dangerous().with_custom_certificate_verifier(servers).with_client_cert_resolver(keys))
}

/// The authorities that this system trusts, or those in the file of `SSL_CERT_FILE`.
fn of_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.is_empty() {
        false => Ok(found.certs),
        true => {
            let why = found.errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
            Err(format!("it is not set, and this system's own authorities cannot be had: {why}"))
        }
    }
}
