//! What one listener's settings come to: both sides of a handshake, and what is compared when stores change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer};
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::store::{self, KeyEntry, StoreError};
use super::suites::{self, Spoken};
use super::verify::{OfClients, OfServers};
use super::{der, name};
use crate::config::tls::Stores;
use crate::config::{ClientAuth, TlsSettings};

/// What is in use, or may come to be.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) stores: Stores,
    /// When the files of the stores were changed last, as far as that can be told.
    pub(super) changed: [Option<SystemTime>; 2],
    pub(super) server: Arc<ServerConfig>,
    /// `None`: nobody else's certificate can be judged, since nothing says whom to trust.
    pub(super) client: Option<Arc<ClientConfig>>,
    /// The same without a look at names, to try the stores against each other.
    nameless: Option<Arc<ClientConfig>>,
    pub(super) entries: Vec<Entry>,
    /// The first moment from which one of its own certificates is not good any more, in seconds since 1970.
    pub(super) expires: Option<i64>,
}

/// A certificate of one's own, as far as another one in its place has to be like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) alias: String,
    /// RFC 2253.
    pub(super) name: String,
    pub(super) alternative_names: BTreeSet<String>,
}

/// What a connection to a server that is no broker presents and trusts, and who judges the server. `trusted_else`: whom
/// it trusts where no truststore is set, or why that cannot be. Reads the stores. Blocks.
///
/// # Errors
/// The setting and the file that cannot be used, and why.
pub(super) fn toward(
    settings: &TlsSettings,
    trusted_else: impl FnOnce() -> Result<Vec<CertificateDer<'static>>, String>,
) -> Result<(ClientConfig, Arc<OfServers>), StoreError> {
    let stores = &settings.stores;
    let Spoken { provider, outgoing, .. } = suites::resolve(settings)?;
    let keys = Keys::new(store::keys(stores)?, &provider);
    let keys = Arc::new(keys.map_err(|why| StoreError { why, ..of_keystore(stores) })?);
    let of_truststore = |why: String| StoreError { why, ..of_truststore(stores) };
    let trusted = store::trusted(stores)?.map_or_else(|| trusted_else().map_err(of_truststore), Ok)?;
    let checks_names = !settings.endpoint_identification.is_empty();
    let servers = OfServers::new(&trusted, &provider, checks_names);
    let servers = Arc::new(servers.map_err(|error| of_truststore(error.to_string()))?);
    Ok((connecting(&provider, &outgoing, Arc::clone(&servers), keys)?, servers))
}

fn connecting(
    provider: &Arc<CryptoProvider>,
    outgoing: &[&'static SupportedProtocolVersion],
    servers: Arc<OfServers>,
    keys: Arc<Keys>,
) -> Result<ClientConfig, StoreError> {
    let client = ClientConfig::builder_with_provider(Arc::clone(provider));
    let client = client.with_protocol_versions(outgoing).map_err(of_versions)?;
    Ok(client.dangerous().with_custom_certificate_verifier(servers).with_client_cert_resolver(keys))
}

fn of_versions(error: rustls::Error) -> StoreError {
    StoreError { key: "ssl.enabled.protocols", file: None, why: error.to_string() }
}

impl Built {
    /// # Errors
    /// The setting and the file that cannot be used, and why.
    pub(super) fn new(settings: &TlsSettings, stores: &Stores) -> Result<Self, StoreError> {
        let changed = [&stores.keystore_location, &stores.truststore_location];
        let changed = changed.map(|location| modified(location.as_deref()));
        let Spoken { provider, versions, outgoing } = suites::resolve(settings)?;
        let own = store::keys(stores)?;
        let entries = own.iter().filter_map(entry).collect();
        let expires = own.iter().filter_map(expires).min();
        let keys = Arc::new(Keys::new(own, &provider).map_err(|why| StoreError { why, ..of_keystore(stores) })?);
        let trusted = store::trusted(stores)?;
        let of_truststore = |why: rustls::Error| StoreError { why: why.to_string(), ..of_truststore(stores) };
        let verifier = match (settings.client_auth, &trusted) {
            (ClientAuth::None, _) => Arc::new(NoClientAuth) as Arc<_>,
            (auth, Some(trusted)) => {
                let is_mandatory = auth == ClientAuth::Required;
                Arc::new(OfClients::new(trusted, &provider, is_mandatory).map_err(of_truststore)?) as Arc<_>
            }
            (auth, None) => {
                let asked = if auth == ClientAuth::Required { "required" } else { "requested" };
                let why = format!("ssl.client.auth={asked} needs one, to tell whose certificates are good");
                return Err(StoreError { key: "ssl.truststore.location", file: None, why });
            }
        };
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_protocol_versions(&versions).map_err(of_versions)?;
        let mut server = server.with_client_cert_verifier(verifier).with_cert_resolver(Arc::clone(&keys) as Arc<_>);
        // Enough to resume once, and each is memory of both sides.
        server.send_tls13_tickets = 1;
        let client = |checks_names| -> Result<Option<Arc<ClientConfig>>, StoreError> {
            let Some(trusted) = trusted.as_ref().filter(|_| !outgoing.is_empty()) else { return Ok(None) };
            let servers = Arc::new(OfServers::new(trusted, &provider, checks_names).map_err(of_truststore)?);
            Ok(Some(Arc::new(connecting(&provider, &outgoing, servers, Arc::clone(&keys))?)))
        };
        Ok(Self {
            client: client(!settings.endpoint_identification.is_empty())?,
            nameless: client(false)?,
            stores: stores.clone(),
            changed,
            server: Arc::new(server),
            entries,
            expires,
        })
    }

    /// Whether a file of these stores is another one than when it was read.
    pub(super) fn is_outdated(&self) -> bool {
        let now = [&self.stores.keystore_location, &self.stores.truststore_location];
        now.map(|location| modified(location.as_deref())) != self.changed
    }

    /// Whether a broker with `other` can connect to one with these, whatever its name. Source: Kafka 3.9
    /// `SslFactory.SslEngineValidator`.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn accepts(&self, other: &Self) -> Result<(), String> {
        let client = other.nameless.as_ref().ok_or("there is no truststore to judge the other's certificate by")?;
        let host = ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into());
        let failed = |error: rustls::Error| error.to_string();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).map_err(failed)?;
        let mut client = ClientConnection::new(Arc::clone(client), host).map_err(failed)?;
        // Each round brings either side on; a handshake has a handful of them.
        for _ in 0..ROUNDS_MAX {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).map_err(|error| error.to_string())?;
            }
            feed(&mut bytes.as_slice(), |input| server.read_tls(input))?;
            server.process_new_packets().map_err(failed)?;
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).map_err(|error| error.to_string())?;
            }
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                client.read_tls(&mut input).map_err(|error| error.to_string())?;
                client.process_new_packets().map_err(failed)?;
            }
            if !client.is_handshaking() && !server.is_handshaking() {
                return Ok(());
            }
        }
        Err("the handshake does not come to its end".into())
    }
}

const ROUNDS_MAX: usize = 10;

fn feed(input: &mut &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) -> Result<(), String> {
    while !input.is_empty() {
        read(input).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// An error about the keystore, without a reason yet.
fn of_keystore(stores: &Stores) -> StoreError {
    let key = if stores.keystore_location.is_some() { "ssl.keystore.location" } else { "ssl.keystore.key" };
    StoreError { key, file: stores.keystore_location.clone(), why: String::new() }
}

/// An error about the truststore, without a reason yet.
fn of_truststore(stores: &Stores) -> StoreError {
    let inline = stores.truststore_location.is_none();
    let key = if inline { "ssl.truststore.certificates" } else { "ssl.truststore.location" };
    StoreError { key, file: stores.truststore_location.clone(), why: String::new() }
}

fn modified(location: Option<&str>) -> Option<SystemTime> {
    std::fs::metadata(location?).and_then(|metadata| metadata.modified()).ok()
}

/// What the first certificate of a key says.
fn entry(key: &KeyEntry) -> Option<Entry> {
    let certificate = key.chain.first()?;
    let name = name::rfc2253(der::certificate(certificate)?.subject)?;
    Some(Entry { alias: key.alias.clone(), name, alternative_names: alternative_names(certificate) })
}

fn expires(key: &KeyEntry) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(key.chain.first()?).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// As Java lists them, by the number of their kind.
fn alternative_names(certificate: &CertificateDer<'_>) -> BTreeSet<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return BTreeSet::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return BTreeSet::new() };
    let shown = |name: &GeneralName<'_>| match name {
        GeneralName::RFC822Name(name) => format!("[1, {name}]"),
        GeneralName::DNSName(name) => format!("[2, {name}]"),
        GeneralName::DirectoryName(name) => format!("[4, {}]", name::rfc2253(name.as_raw()).unwrap_or_default()),
        GeneralName::URI(name) => format!("[6, {name}]"),
        GeneralName::IPAddress(bytes) => format!("[7, {}]", address(bytes)),
        other => format!("{other:?}"),
    };
    names.value.general_names.iter().map(shown).collect()
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_or_else(|_| format!("{bytes:?}"), |address| address.to_string())
}

/// The keys of a keystore; of several the first that the other side can verify is used.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl Keys {
    /// # Errors
    /// A key cannot be used, or belongs to another certificate.
    fn new(entries: Vec<KeyEntry>, provider: &CryptoProvider) -> Result<Self, String> {
        let certified = entries.into_iter().map(|entry| {
            let first = entry.chain.first().and_then(|first| der::certificate(first));
            let first = first.ok_or("a key without a certificate")?;
            let key = load(&entry.key, &first, provider)
                .map_err(|error| format!("Private key could not be loaded: {error}"))?;
            if key.public_key().is_some_and(|public| !belongs(&public, &first)) {
                return Err("the private key is not that of the certificate".to_owned());
            }
            Ok(Arc::new(CertifiedKey::new(entry.chain, key)))
        });
        certified.collect::<Result<_, _>>().map(Self)
    }

    fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|certified| certified.key.choose_scheme(schemes).is_some()).cloned()
    }
}

/// Java leaves the public half out of a key on an elliptic curve, and `ring` asks for it: the certificate has it.
fn load(
    key: &PrivateKeyDer<'static>,
    certificate: &der::Certificate<'_>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    let load = |key| provider.key_provider.load_private_key(key);
    load(key.clone_key()).or_else(|error| {
        let whole = der::with_public_half(key.secret_der(), certificate.key).ok_or(error)?;
        load(PrivateKeyDer::Pkcs8(whole.into()))
    })
}

fn belongs(public: &SubjectPublicKeyInfoDer<'_>, certificate: &der::Certificate<'_>) -> bool {
    let parts = || {
        let (algorithm, rest) = der::first(der::whole(public, der::SEQUENCE)?, der::SEQUENCE)?;
        let key = der::whole(rest, der::BITS)?.strip_prefix(&[0])?;
        Some((algorithm, key))
    };
    // The same key may be named by an algorithm with and without parameters.
    parts().is_none_or(|(_, key)| key == certificate.key)
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client_hello.signature_schemes())
    }
}

impl ResolvesClientCert for Keys {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(schemes)
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
