//! What a connection to a server on the web presents and trusts: what is set, or the authorities of this system.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::built;
use super::store::StoreError;
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
        let built = built::toward(settings, of_system).map(|(config, _)| Arc::new(Self(Arc::new(config))));
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
