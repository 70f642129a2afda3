//! Certificates and settings for tests, made anew in each run.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{ClientConnection, ServerConnection};

use crate::config::tls::Stores;
use crate::config::{ClientAuth, Secret, TlsSettings};

/// One that signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::of(name, IsCa::Ca(BasicConstraints::Unconstrained), None)
    }

    /// Whether it may or not.
    pub(crate) fn of(name: &str, is_ca: IsCa, usage: Option<KeyUsagePurpose>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, &[]);
        params.is_ca = is_ca;
        params.key_usages = usage.into_iter().collect();
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For a server of these names, or a client.
    pub(crate) fn issue(&self, name: &str, alternative_names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, alternative_names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// One that nobody else signed, and that is no authority either.
pub(crate) fn self_signed(name: &str, alternative_names: &[&str]) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(name, alternative_names).self_signed(&key).expect("signed").pem();
    Identity { certificate, key: key.serialize_pem() }
}

fn params(name: &str, alternative_names: &[&str]) -> CertificateParams {
    let alternative_names: Vec<String> = alternative_names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternative_names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "klamm");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Kafka's defaults, without stores.
pub(crate) fn settings(listener: &str) -> TlsSettings {
    TlsSettings {
        listener: listener.into(),
        is_sasl: false,
        stores: Stores {
            keystore_type: "PEM".into(),
            keystore_location: None,
            keystore_password: None,
            keystore_key: None,
            keystore_chain: None,
            key_password: None,
            truststore_type: "PEM".into(),
            truststore_location: None,
            truststore_password: None,
            truststore_certificates: None,
        },
        client_auth: ClientAuth::None,
        enabled_protocols: vec!["TLSv1.2".into(), "TLSv1.3".into()],
        protocol: "TLSv1.3".into(),
        cipher_suites: Vec::new(),
        endpoint_identification: "https".into(),
        principal_mapping_rules: "DEFAULT".into(),
        allow_dn_changes: false,
        allow_san_changes: false,
    }
}

/// The same with what this identity presents, and whom it trusts.
pub(crate) fn with(identity: &Identity, trusted: &[&str]) -> TlsSettings {
    let mut settings = settings("A");
    settings.stores = stores(identity, trusted);
    settings
}

/// Stores in the settings themselves.
pub(crate) fn stores(identity: &Identity, trusted: &[&str]) -> Stores {
    Stores {
        keystore_key: Some(Secret::new(identity.key.clone())),
        keystore_chain: Some(Secret::new(identity.certificate.clone())),
        truststore_certificates: (!trusted.is_empty()).then(|| Secret::new(trusted.concat())),
        ..settings("A").stores
    }
}

/// Has the two say to each other what they want to, until a handshake is over. The error tells who ended it.
pub(super) fn converse(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), String> {
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("into memory");
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).expect("out of memory");
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("into memory");
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).expect("out of memory");
            client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        }
    }
    Ok(())
}
