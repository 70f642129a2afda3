//! Keystores and truststores, out of files and out of settings: PEM, PKCS12, JKS.
//!
//! A file of the types JKS and PKCS12 is read as what it is, as Java does. No password and no key is in an error.
//! Source: Kafka 3.9 `DefaultSslEngineFactory`; Java's `KeyStore`, `TrustStoreUtil` for what counts as trusted.

use std::path::Path;

use p12_keystore::{CertificateBag, Pkcs12Archive};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{der, jks, pem};
use crate::config::Secret;
use crate::config::tls::Stores;

/// Why a store cannot be used: the setting, the file, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}{}: {why}", file.as_deref().map(|file| format!("={file}")).unwrap_or_default())]
pub(crate) struct StoreError {
    /// Name of the setting, without a listener's prefix.
    pub(crate) key: &'static str,
    pub(crate) file: Option<String>,
    pub(crate) why: String,
}

/// A key and the certificates that go with it, its own first.
pub(super) struct KeyEntry {
    pub(super) alias: String,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Files of stores are read to their end, up to this size.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The entries with keys; none, if there is no keystore.
///
/// # Errors
/// The store cannot be read, or holds no key.
pub(super) fn keys(stores: &Stores) -> Result<Vec<KeyEntry>, StoreError> {
    let error = |key, file: Option<&String>, why| StoreError { key, file: file.cloned(), why };
    if let (Some(key), Some(chain)) = (&stores.keystore_key, &stores.keystore_chain) {
        let entry = pem_entry(key.reveal(), chain.reveal(), stores.key_password.as_ref());
        return Ok(vec![entry.map_err(|why| error("ssl.keystore.key", None, why))?]);
    }
    let Some(location) = &stores.keystore_location else { return Ok(Vec::new()) };
    let failed = |why| error("ssl.keystore.location", Some(location), why);
    let bytes = read(location).map_err(failed)?;
    let entries = match stores.keystore_type.as_str() {
        "PEM" => {
            let text = String::from_utf8_lossy(&bytes);
            pem_entry(&text, &text, stores.key_password.as_ref()).map(|entry| vec![entry])
        }
        kind if is_java(kind) => {
            let password = stores.keystore_password.as_ref().map_or("", Secret::reveal);
            let key_password = stores.key_password.as_ref().map_or(password, Secret::reveal);
            java_keys(&bytes, password, key_password)
        }
        other => Err(unknown(other)),
    };
    let entries = entries.map_err(failed)?;
    match entries.is_empty() {
        true => Err(failed("it holds no private key with its certificate".into())),
        false => Ok(entries),
    }
}

/// The certificates that are trusted; `None`, if there is no truststore.
///
/// # Errors
/// The store cannot be read, or holds none.
pub(super) fn trusted(stores: &Stores) -> Result<Option<Vec<CertificateDer<'static>>>, StoreError> {
    if let Some(inline) = &stores.truststore_certificates {
        let found = pem_certificates(inline.reveal());
        let error = |why| StoreError { key: "ssl.truststore.certificates", file: None, why };
        return found.map(Some).map_err(error);
    }
    let Some(location) = &stores.truststore_location else { return Ok(None) };
    let failed = |why| StoreError { key: "ssl.truststore.location", file: Some(location.clone()), why };
    let bytes = read(location).map_err(failed)?;
    let found = match stores.truststore_type.as_str() {
        "PEM" => pem_certificates(&String::from_utf8_lossy(&bytes)),
        kind if is_java(kind) => java_trusted(&bytes, stores.truststore_password.as_ref().map(Secret::reveal)),
        other => Err(unknown(other)),
    };
    let found = found.map_err(failed)?;
    match found.is_empty() {
        // Java's words, which people search for.
        true => Err(failed("the trustAnchors parameter must be non-empty: it holds no trusted certificate".into())),
        false => Ok(Some(found)),
    }
}

fn is_java(kind: &str) -> bool {
    ["JKS", "PKCS12"].iter().any(|known| known.eq_ignore_ascii_case(kind))
}

fn unknown(kind: &str) -> String {
    format!("{kind} not found: the type of a store is JKS, PKCS12 or PEM")
}

fn read(location: &str) -> Result<Vec<u8>, String> {
    let path = Path::new(location);
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes, and no store is longer than {FILE_BYTES_MAX}"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

fn pem_certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let entries = pem::entries(text, "CERTIFICATE")?;
    entries.into_iter().map(|entry| certificate(entry.der)).collect()
}

fn certificate(bytes: Vec<u8>) -> Result<CertificateDer<'static>, String> {
    match der::certificate(&bytes) {
        Some(_) => Ok(CertificateDer::from(bytes)),
        None => Err("a certificate cannot be parsed".into()),
    }
}

fn pem_entry(key: &str, chain: &str, password: Option<&Secret>) -> Result<KeyEntry, String> {
    let mut keys = pem::entries(key, "PRIVATE KEY")?;
    if keys.len() != 1 {
        return Err(format!("Expected one private key, but found {}", keys.len()));
    }
    let entry = keys.remove(0);
    let bytes = match password {
        Some(password) => decrypted(&entry.der, password.reveal())?,
        None if entry.label.contains("ENCRYPTED") => {
            return Err("the private key is encrypted, and ssl.key.password is not given".into());
        }
        None => entry.der,
    };
    Ok(KeyEntry { alias: "kafka".into(), key: private_key(bytes)?, chain: pem_certificates(chain)? })
}

/// A key of an `ENCRYPTED PRIVATE KEY`.
fn decrypted(bytes: &[u8], password: &str) -> Result<Vec<u8>, String> {
    let info = pkcs8::EncryptedPrivateKeyInfoRef::try_from(bytes)
        .map_err(|_| "ssl.key.password is given, and the private key is not encrypted in a way that is known here")?;
    let document = info.decrypt(password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::NoPbes1CryptSupport) => {
            "the private key is encrypted by PBES1; openssl pkcs8 -topk8 -v2 aes-256-cbc writes it anew".to_owned()
        }
        error => format!("the private key cannot be decrypted by ssl.key.password: {error}"),
    })?;
    Ok(document.as_bytes().to_vec())
}

fn private_key(bytes: Vec<u8>) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::try_from(bytes).map_err(|_| "Private key could not be loaded".to_owned())
}

/// The keys of a JKS or PKCS12 file.
fn java_keys(bytes: &[u8], password: &str, key_password: &str) -> Result<Vec<KeyEntry>, String> {
    if !bytes.starts_with(&jks::MAGIC) {
        return pkcs12_keys(pkcs12(bytes, password)?);
    }
    let mut keys = Vec::new();
    for entry in jks::entries(bytes, Some(password))? {
        let jks::Entry::Key { alias, protected, chain } = entry else { continue };
        let key = private_key(jks::unprotect(&protected, key_password)?)?;
        let chain = chain.into_iter().map(certificate).collect::<Result<_, _>>()?;
        keys.push(KeyEntry { alias, key, chain });
    }
    Ok(keys)
}

fn pkcs12(bytes: &[u8], password: &str) -> Result<Pkcs12Archive, String> {
    Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| match error {
        p12_keystore::error::Error::MacError(_) => "keystore password was incorrect".to_owned(),
        error => format!("it is no JKS and no PKCS12 file that is understood: {error}"),
    })
}

fn pkcs12_keys(archive: Pkcs12Archive) -> Result<Vec<KeyEntry>, String> {
    let mut keys = Vec::new();
    for bag in archive.keys {
        let id = bag.local_key_id.as_ref().map(|id| id.0.as_slice());
        let own = archive.certs.iter().find(|cert| cert.local_key_id.is_some() && cert.local_key_id.as_deref() == id);
        let Some(own) = own else { continue };
        let chain = chain_of(own, &archive.certs)?;
        let alias = bag.friendly_name.unwrap_or_else(|| (keys.len() + 1).to_string());
        keys.push(KeyEntry { alias, key: private_key(bag.key.as_der().to_vec())?, chain });
    }
    Ok(keys)
}

/// A certificate and, each behind what it issued, those of the file that issued it.
fn chain_of(own: &CertificateBag, all: &[CertificateBag]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = vec![certificate(own.cert.as_der().to_vec())?];
    while chain.len() <= all.len() {
        let last = der::certificate(chain.last().expect("begun with one")).ok_or("a certificate cannot be parsed")?;
        if last.issuer == last.subject {
            break;
        }
        let issued = |bag: &&CertificateBag| {
            der::certificate(bag.cert.as_der()).is_some_and(|found| found.subject == last.issuer)
        };
        let Some(issuer) = all.iter().find(issued) else { break };
        chain.push(certificate(issuer.cert.as_der().to_vec())?);
    }
    Ok(chain)
}

/// What Java trusts of a store: the trusted certificates, and of each key its own.
fn java_trusted(bytes: &[u8], password: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    if !bytes.starts_with(&jks::MAGIC) {
        let archive = pkcs12(bytes, password.unwrap_or_default())?;
        let is_trusted = |cert: &CertificateBag| cert.trusted || cert.local_key_id.is_some();
        let trusted = archive.certs.into_iter().filter(is_trusted);
        return trusted.map(|bag| certificate(bag.cert.as_der().to_vec())).collect();
    }
    let entries = jks::entries(bytes, password)?;
    let own = entries.into_iter().filter_map(|entry| match entry {
        jks::Entry::Trusted { certificate } => Some(certificate),
        jks::Entry::Key { chain, .. } => chain.into_iter().next(),
    });
    own.map(certificate).collect()
}
