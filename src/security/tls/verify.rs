//! Who is trusted at the other end: what the truststore's certificates signed, and those certificates themselves.
//!
//! On top of `webpki`, for what Java takes and that does not: a certificate that stands in the truststore is trusted as
//! it is (a self-signed one, say, which is its own authority), and so is a version 1 certificate that one in the
//! truststore signed, as `openssl x509 -req` writes them when nobody tells it of extensions. Names are checked by
//! `ssl.endpoint.identification.algorithm` alone; a certificate without a DNS name among its alternative names may have
//! it as its common name. Source: the OpenJDK's `PKIXValidator`, `HostnameChecker`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use super::{der, name};

/// The truststore, for both sides.
#[derive(Debug)]
struct Trust {
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn is_trusted_itself(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.trusted.iter().any(|trusted| trusted == end_entity)
    }

    /// The whole check of a version 1 certificate: signed by a trusted one, and of now.
    fn verify_version_1(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let certificate = der::certificate(end_entity).ok_or(CertificateError::BadEncoding)?;
        let (_, parsed) = X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let now = ASN1Time::from_timestamp(now).map_err(|_| CertificateError::Expired)?;
        if now < parsed.validity().not_before {
            return Err(CertificateError::NotValidYet);
        }
        if now > parsed.validity().not_after {
            return Err(CertificateError::Expired);
        }
        let issuers = self.trusted.iter().filter(|trusted| may_issue(trusted));
        let issuers = issuers.filter_map(|trusted| der::certificate(trusted));
        let mut issuers = issuers.filter(|issuer| issuer.subject == certificate.issuer).peekable();
        issuers.peek().ok_or(CertificateError::UnknownIssuer)?;
        let signed = |issuer: der::Certificate<'_>| {
            self.verify_signature(
                &issuer,
                |algorithm| algorithm.signature_alg_id().as_ref() == certificate.signature_algorithm,
                certificate.signed,
                certificate.signature,
            )
        };
        match issuers.any(signed) {
            true => Ok(()),
            false => Err(CertificateError::BadSignature),
        }
    }

    /// By the key of this certificate, and those algorithms for it that are wanted.
    fn verify_signature(
        &self,
        by: &der::Certificate<'_>,
        wanted: impl Fn(&dyn SignatureVerificationAlgorithm) -> bool,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let of_key = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.public_key_alg_id().as_ref() == by.key_algorithm && wanted(**algorithm)
        };
        let mut algorithms = self.algorithms.all.iter().filter(of_key);
        algorithms.any(|algorithm| algorithm.verify_signature(by.key, message, signature).is_ok())
    }

    /// The signature of a handshake by a version 1 certificate. `None`: it has another version.
    fn verify_handshake_of_version_1(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Option<Result<HandshakeSignatureValid, Error>> {
        let certificate = der::certificate(certificate).filter(|certificate| certificate.version == 1)?;
        let of_scheme = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let algorithms = of_scheme.map_or(&[][..], |(_, algorithms)| algorithms);
        let is_valid = algorithms.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == certificate.key_algorithm
                && algorithm.verify_signature(certificate.key, message, signed.signature()).is_ok()
        });
        Some(match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        })
    }

    fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake_of_version_1(message, certificate, signed)
            .unwrap_or_else(|| verify_tls12_signature(message, certificate, signed, &self.algorithms))
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // What TLS 1.3 has done away with has not been offered, so no signature of that kind comes here.
        self.verify_handshake_of_version_1(message, certificate, signed)
            .unwrap_or_else(|| verify_tls13_signature(message, certificate, signed, &self.algorithms))
    }

    /// What `webpki` found, or what Java would have taken in its place.
    fn or_as_java<T>(
        &self,
        found: Result<T, Error>,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
        verified: T,
    ) -> Result<T, Error> {
        match found {
            Err(_) if self.is_trusted_itself(end_entity) => Ok(verified),
            Err(_) if der::certificate(end_entity).is_some_and(|certificate| certificate.version == 1) => {
                self.verify_version_1(end_entity, now).map_err(Error::InvalidCertificate)?;
                Ok(verified)
            }
            found => found,
        }
    }
}

/// The authorities of a truststore, for both sides. `None`: it has none, but single certificates.
///
/// # Errors
/// One of them cannot be read.
fn roots(trusted: &[CertificateDer<'static>]) -> Result<Option<Arc<RootCertStore>>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted.iter().filter(|certificate| may_issue(certificate)) {
        roots.add(certificate.clone())?;
    }
    Ok((!roots.is_empty()).then(|| Arc::new(roots)))
}

/// Whether a trusted certificate may sign others. `webpki` does not ask that of a trust anchor, so whoever owns a
/// single certificate that is trusted could make one of any name. Source: the OpenJDK's `X509TrustManagerImpl` and
/// `ConstraintsChecker`: an anchor before version 3 may; a later one says so.
fn may_issue(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    if parsed.version().0 < X509Version::V3.0 {
        return true;
    }
    let is_authority = matches!(parsed.basic_constraints(), Ok(Some(found)) if found.value.ca);
    let signs = match parsed.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    is_authority && signs
}

fn unknown_issuer() -> Error {
    Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

/// Judges the certificates that clients show.
#[derive(Debug)]
pub(super) struct OfClients {
    trust: Trust,
    /// `None`: no authority is trusted.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
    is_mandatory: bool,
}

impl OfClients {
    /// # Errors
    /// A trusted certificate cannot be an authority.
    pub(super) fn new(
        trusted: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
        is_mandatory: bool,
    ) -> Result<Self, Error> {
        let build = |roots| WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        let webpki = roots(trusted)?.map(build).transpose().map_err(|error| Error::General(error.to_string()))?;
        let trust = Trust { trusted: trusted.to_vec(), algorithms: provider.signature_verification_algorithms };
        Ok(Self { trust, webpki, is_mandatory })
    }
}

impl ClientCertVerifier for OfClients {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.as_ref().map_or(&[], |webpki| webpki.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let found = match &self.webpki {
            Some(webpki) => webpki.verify_client_cert(end_entity, intermediates, now),
            None => Err(unknown_issuer()),
        };
        self.trust.or_as_java(found, end_entity, now, ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// Judges the certificates that other brokers show.
#[derive(Debug)]
pub(super) struct OfServers {
    trust: Trust,
    /// `None`: no authority is trusted.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    checks_names: bool,
}

impl OfServers {
    /// # Errors
    /// A trusted certificate cannot be an authority.
    pub(super) fn new(
        trusted: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
        checks_names: bool,
    ) -> Result<Self, Error> {
        let build = |roots| WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        let webpki = roots(trusted)?.map(build).transpose().map_err(|error| Error::General(error.to_string()))?;
        let trust = Trust { trusted: trusted.to_vec(), algorithms: provider.signature_verification_algorithms };
        Ok(Self { trust, webpki, checks_names })
    }
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(unknown_issuer()),
        };
        // The name is what webpki looks at last: whoever gets so far is trusted.
        let found = match found {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            found => found,
        };
        let verified = self.trust.or_as_java(found, end_entity, now, ServerCertVerified::assertion())?;
        match !self.checks_names || is_named(end_entity, server_name) {
            true => Ok(verified),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// Whether the certificate is that of this host: by its alternative names; a host name, where none of them is one, by
/// the last of its common names. Source: `HostnameChecker.matchDNS`, `matchIP`.
fn is_named(certificate: &CertificateDer<'_>, wanted: &ServerName<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let names = parsed.subject_alternative_name().ok().flatten();
    let names: &[GeneralName<'_>] = names.as_ref().map_or(&[], |names| &names.value.general_names);
    match wanted {
        ServerName::IpAddress(address) => {
            let address = std::net::IpAddr::from(*address);
            names.iter().any(|name| match (name, address) {
                (GeneralName::IPAddress(bytes), std::net::IpAddr::V4(address)) => *bytes == address.octets(),
                (GeneralName::IPAddress(bytes), std::net::IpAddr::V6(address)) => *bytes == address.octets(),
                _ => false,
            })
        }
        ServerName::DnsName(host) => {
            let of_dns = names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            });
            let of_dns: Vec<&str> = of_dns.collect();
            if !of_dns.is_empty() {
                return of_dns.iter().any(|name| matches(name, host.as_ref()));
            }
            let subject = der::certificate(certificate).map(|certificate| name::common_names(certificate.subject));
            subject.unwrap_or_default().last().is_some_and(|name| matches(name, host.as_ref()))
        }
        _ => false,
    }
}

/// A name may begin with `*.`, which stands for one label.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        // Not all of a top level domain.
        Some(domain) if !domain.contains('.') => false,
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
    }
}
