//! What a listener over TLS is made of: stores of keys and certificates, versions, and whom it lets in.
//!
//! Values only; what the stores hold is read by `security::tls`. Source: Kafka 3.9 `SslConfigs`,
//! `BrokerSecurityConfigs`, `DefaultSslEngineFactory`.

use super::ConfigError;
use super::listener_reader::ListenerReader;
use super::listeners::Listener;
use super::reader::Reader;
use super::secret::Secret;

/// The `ssl.*` settings of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The listener's name, in capitals.
    pub listener: String,
    /// Clients authenticate by SASL, and a certificate says nothing of whom they are.
    pub is_sasl: bool,
    pub stores: Stores,
    /// `ssl.client.auth`.
    pub client_auth: ClientAuth,
    /// `ssl.enabled.protocols`; empty: all that there are.
    pub enabled_protocols: Vec<String>,
    /// `ssl.protocol`.
    pub protocol: String,
    /// `ssl.cipher.suites`, Java's names; empty: all that there are.
    pub cipher_suites: Vec<String>,
    /// `ssl.endpoint.identification.algorithm`; empty: names are not looked at.
    pub endpoint_identification: String,
    /// `ssl.principal.mapping.rules`.
    pub principal_mapping_rules: String,
    /// `ssl.allow.dn.changes`.
    pub allow_dn_changes: bool,
    /// `ssl.allow.san.changes`.
    pub allow_san_changes: bool,
}

/// What may change while the broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stores {
    /// `ssl.keystore.type`.
    pub keystore_type: String,
    /// `ssl.keystore.location`.
    pub keystore_location: Option<String>,
    /// `ssl.keystore.password`.
    pub keystore_password: Option<Secret>,
    /// `ssl.keystore.key`, as PEM.
    pub keystore_key: Option<Secret>,
    /// `ssl.keystore.certificate.chain`, as PEM.
    pub keystore_chain: Option<Secret>,
    /// `ssl.key.password`.
    pub key_password: Option<Secret>,
    /// `ssl.truststore.type`.
    pub truststore_type: String,
    /// `ssl.truststore.location`.
    pub truststore_location: Option<String>,
    /// `ssl.truststore.password`.
    pub truststore_password: Option<Secret>,
    /// `ssl.truststore.certificates`, as PEM.
    pub truststore_certificates: Option<Secret>,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    /// Whoever shows none is anonymous.
    Requested,
    Required,
}

/// The settings of every listener over TLS, in their order.
///
/// # Errors
/// A value that nothing here can do as it says.
pub(super) fn resolve(reader: &Reader<'_>, listeners: &[Listener]) -> Result<Vec<TlsSettings>, ConfigError> {
    let over_tls = listeners.iter().filter(|listener| listener.security_protocol.is_over_tls());
    over_tls.map(|listener| of_listener(listener, &reader.of_listener(&listener.name))).collect()
}

fn of_listener(listener: &Listener, reader: &ListenerReader<'_, '_>) -> Result<TlsSettings, ConfigError> {
    let text = |name| reader.text(name).unwrap_or_default();
    let is_sasl = listener.security_protocol.is_sasl();
    let settings = TlsSettings {
        listener: listener.name.clone(),
        is_sasl,
        stores: stores(reader),
        client_auth: client_auth(reader, is_sasl),
        enabled_protocols: reader.list("ssl.enabled.protocols"),
        protocol: text("ssl.protocol"),
        cipher_suites: reader.list("ssl.cipher.suites"),
        endpoint_identification: text("ssl.endpoint.identification.algorithm"),
        principal_mapping_rules: text("ssl.principal.mapping.rules"),
        allow_dn_changes: reader.boolean("ssl.allow.dn.changes"),
        allow_san_changes: reader.boolean("ssl.allow.san.changes"),
    };
    if !["", "https"].iter().any(|known| settings.endpoint_identification.eq_ignore_ascii_case(known)) {
        let why = "Unknown endpoint identification algorithm; it is https, or empty";
        return Err(reader.invalid("ssl.endpoint.identification.algorithm", why));
    }
    settings.stores.check(reader)?;
    Ok(settings)
}

/// Beside SASL the general value counts as none; the listener's own holds. Source: Kafka 3.9 `ChannelBuilders.create`.
fn client_auth(reader: &ListenerReader<'_, '_>, is_sasl: bool) -> ClientAuth {
    const NAME: &str = "ssl.client.auth";
    if is_sasl && reader.own(NAME).is_none() {
        return ClientAuth::None;
    }
    match reader.text(NAME).unwrap_or_default().as_str() {
        "required" => ClientAuth::Required,
        "requested" => ClientAuth::Requested,
        _ => ClientAuth::None,
    }
}

fn stores(reader: &ListenerReader<'_, '_>) -> Stores {
    Stores {
        keystore_type: reader.text("ssl.keystore.type").unwrap_or_default(),
        keystore_location: reader.text("ssl.keystore.location"),
        keystore_password: reader.secret("ssl.keystore.password"),
        keystore_key: reader.secret("ssl.keystore.key"),
        keystore_chain: reader.secret("ssl.keystore.certificate.chain"),
        key_password: reader.secret("ssl.key.password"),
        truststore_type: reader.text("ssl.truststore.type").unwrap_or_default(),
        truststore_location: reader.text("ssl.truststore.location"),
        truststore_password: reader.secret("ssl.truststore.password"),
        truststore_certificates: reader.secret("ssl.truststore.certificates"),
    }
}

const PEM: &str = "PEM";

impl Stores {
    /// Which of them go together. Source, also of the texts: Kafka 3.9 `DefaultSslEngineFactory.createKeystore`,
    /// `createTruststore`.
    fn check(&self, reader: &ListenerReader<'_, '_>) -> Result<(), ConfigError> {
        let refuse = |name: &str, why: &str| Err(reader.invalid(name, why));
        let kind = &self.keystore_type;
        match (&self.keystore_key, &self.keystore_chain, &self.keystore_location, &self.keystore_password) {
            (Some(_), ..) if kind != PEM => {
                let why = format!("SSL private key can be specified only for PEM, but key store type is {kind}.");
                return refuse("ssl.keystore.key", &why);
            }
            (Some(_), None, ..) => {
                let why = "SSL private key is specified, but certificate chain is not specified.";
                return refuse("ssl.keystore.key", why);
            }
            (Some(_), _, Some(_), _) => {
                let why = "Both SSL key store location and separate private key are specified.";
                return refuse("ssl.keystore.location", why);
            }
            (Some(_), _, _, Some(_)) => {
                let why = "SSL key store password cannot be specified with PEM format, only key password may be \
                           specified.";
                return refuse("ssl.keystore.password", why);
            }
            (None, Some(_), ..) => {
                let why = "SSL certificate chain is specified, but private key is not specified";
                return refuse("ssl.keystore.certificate.chain", why);
            }
            (None, None, Some(_), Some(_)) if kind == PEM => {
                let why = "SSL key store password cannot be specified with PEM format, only key password may be \
                           specified";
                return refuse("ssl.keystore.password", why);
            }
            (None, None, None, Some(_)) => {
                let why = "SSL key store is not specified, but key store password is specified.";
                return refuse("ssl.keystore.password", why);
            }
            (None, None, Some(_), None) if kind != PEM => {
                let why = "SSL key store is specified, but key store password is not specified.";
                return refuse("ssl.keystore.location", why);
            }
            _ => {}
        }
        let kind = &self.truststore_type;
        match (&self.truststore_certificates, &self.truststore_location, &self.truststore_password) {
            (Some(_), ..) if kind != PEM => {
                let why =
                    format!("SSL trust store certs can be specified only for PEM, but trust store type is {kind}.");
                refuse("ssl.truststore.certificates", &why)
            }
            (Some(_), Some(_), _) => {
                let why = "Both SSL trust store location and separate trust certificates are specified.";
                refuse("ssl.truststore.location", why)
            }
            (Some(_), _, Some(_)) => {
                refuse("ssl.truststore.password", "SSL trust store password cannot be specified for PEM format.")
            }
            (None, Some(_), Some(_)) if kind == PEM => {
                refuse("ssl.truststore.password", "SSL trust store password cannot be specified for PEM format.")
            }
            (None, None, Some(_)) => {
                let why = "SSL trust store is not specified, but trust store password is specified.";
                refuse("ssl.truststore.password", why)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is anything that holds a key of one's own.
    pub fn has_keystore(&self) -> bool {
        self.keystore_location.is_some() || self.keystore_key.is_some()
    }

    /// Whether there is anything that says whom to trust.
    pub fn has_truststore(&self) -> bool {
        self.truststore_location.is_some() || self.truststore_certificates.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use super::*;

    const LISTENERS: [(&str, &str); 3] = [
        ("listeners", "A://h:1,B://h:2,C://h:3"),
        ("listener.security.protocol.map", "A:SSL,B:SSL,C:PLAINTEXT"),
        ("inter.broker.listener.name", "C"),
    ];

    #[test]
    fn each_listener_over_tls_has_its_own_settings() {
        let given = [
            ("ssl.keystore.location", "/all"),
            ("ssl.keystore.password", "hunter1"),
            ("listener.name.b.ssl.keystore.location", "/b"),
            ("listener.name.b.ssl.keystore.password", "hunter2"),
            ("listener.name.b.ssl.client.auth", "required"),
        ];
        let config = config(&[&LISTENERS[..], &given].concat());
        let shown: Vec<_> = config
            .tls
            .iter()
            .map(|tls| (tls.listener.as_str(), tls.stores.keystore_location.as_deref(), tls.client_auth))
            .collect();
        assert_eq!(shown, [("A", Some("/all"), ClientAuth::None), ("B", Some("/b"), ClientAuth::Required)]);
        assert_eq!(config.tls[1].stores.keystore_password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter"));
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }

    #[test]
    fn stores_that_do_not_go_together_end_the_start() {
        let of = |given: &[(&'static str, &'static str)]| error(&[&LISTENERS[..], given].concat());
        for (given, expected) in [
            (vec![("ssl.keystore.location", "/k")], "key store password is not specified"),
            (vec![("ssl.keystore.password", "x")], "SSL key store is not specified"),
            (vec![("ssl.keystore.key", "x")], "can be specified only for PEM, but key store type is JKS."),
            (vec![("ssl.keystore.key", "x"), ("ssl.keystore.type", "PEM")], "certificate chain is not specified."),
            (vec![("ssl.keystore.certificate.chain", "x")], "but private key is not specified"),
            (
                vec![
                    ("ssl.keystore.type", "PEM"),
                    ("ssl.keystore.location", "/k"),
                    ("listener.name.a.ssl.keystore.password", "hunter2"),
                ],
                "[hidden] for configuration listener.name.a.ssl.keystore.password: SSL key store password cannot be",
            ),
            (vec![("ssl.truststore.password", "x")], "SSL trust store is not specified"),
            (vec![("ssl.truststore.certificates", "x")], "only for PEM, but trust store type is JKS"),
            (vec![("ssl.endpoint.identification.algorithm", "ldaps")], "Unknown endpoint identification algorithm"),
        ] {
            let error = of(&given);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
