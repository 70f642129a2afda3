//! What a connection to ZooKeeper over TLS presents and trusts.
//!
//! As a listener's, but for the name: ZooKeeper's client takes a certificate that is made out to the host as it is
//! written in `zookeeper.connect`, or to the address that it was reached at. Source: ZooKeeper 3.8 `ZKTrustManager`;
//! the name that the address has in the DNS is not asked for, since whoever answers for that could answer anything.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::built;
use super::store::StoreError;
use super::verify::OfServers;
use crate::config::TlsSettings;

/// Read once, at the start.
pub(crate) struct TowardsZookeeper {
    config: ClientConfig,
    servers: Arc<OfServers>,
}

impl std::fmt::Debug for TowardsZookeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TowardsZookeeper")
    }
}

impl TowardsZookeeper {
    /// Reads the stores.
    ///
    /// # Errors
    /// The setting, its file, and why it cannot be used.
    pub(crate) fn open(settings: &TlsSettings) -> Result<Self, String> {
        // The setting's own name, and the one password that there is for a key.
        let named = |StoreError { key, file, why }| {
            let file = file.map(|file| format!("={file}")).unwrap_or_default();
            format!("zookeeper.{key}{file}: {}", why.replace("ssl.key.password", "zookeeper.ssl.keystore.password"))
        };
        let (config, servers) = built::toward(settings, || Err("there is none".into())).map_err(named)?;
        Ok(Self { config, servers })
    }

    /// For a socket to the server that `zookeeper.connect` calls `host`, at this address.
    ///
    /// # Errors
    /// In the crate's words.
    pub(crate) fn session(&self, host: &str, address: IpAddr) -> Result<ClientConnection, Error> {
        let address = ServerName::IpAddress(address.into());
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| address.clone());
        let mut config = self.config.clone();
        let servers = Arc::clone(&self.servers);
        config.dangerous().set_certificate_verifier(Arc::new(ByEither { servers, address }));
        ClientConnection::new(Arc::new(config), name)
    }
}

/// Judges a server's certificate by the name of its host, then by its address.
#[derive(Debug)]
struct ByEither {
    servers: Arc<OfServers>,
    address: ServerName<'static>,
}

impl ServerCertVerifier for ByEither {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = |name| self.servers.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match judge(server_name) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName)) => judge(&self.address),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ServerConnection, ServerConnection as Server};

    use super::super::listener::TlsListener;
    use super::super::testing::{Authority, Identity, converse, self_signed, settings, stores, with};
    use super::*;

    /// Whether hands are shaken with a server that has this identity and trusts these.
    fn meets(own: &TowardsZookeeper, server: &Identity, host: &str, address: &str) -> Result<(), String> {
        let server = TlsListener::new(with(server, &[]), false).expect("opens").server();
        let mut server: Server = ServerConnection::new(server).expect("a session");
        let address = address.parse().expect("an address");
        let mut client = own.session(host, address).map_err(|error| error.to_string())?;
        converse(&mut client, &mut server)?;
        (!client.is_handshaking()).then_some(()).ok_or_else(|| "it goes on".into())
    }

    fn trusting(trusted: &[&str]) -> TlsSettings {
        let mut own = settings("ZooKeeper");
        let nobody = Identity { certificate: String::new(), key: String::new() };
        own.stores = stores(&nobody, trusted);
        (own.stores.keystore_key, own.stores.keystore_chain) = (None, None);
        own
    }

    #[test]
    fn a_server_is_known_by_its_hosts_name_or_by_its_address() {
        let authority = Authority::new("authority");
        let own = TowardsZookeeper::open(&trusting(&[&authority.pem])).expect("opens");
        let meets = |server: &Identity, host: &str| meets(&own, server, host, "127.0.0.1");
        let named = authority.issue("zoo", &["zoo.example"]);
        assert_eq!(meets(&named, "zoo.example"), Ok(()));
        assert!(meets(&named, "other.example").expect_err("another name").contains("NotValidForName"));
        let numbered = authority.issue("zoo", &["127.0.0.1"]);
        assert_eq!(meets(&numbered, "zoo.example"), Ok(()), "reached at that address");
        // As ZooKeeper's own guide has keytool make them.
        assert_eq!(meets(&authority.issue("zoo.example", &[]), "zoo.example"), Ok(()));
        let stranger = Authority::new("stranger").issue("zoo", &["zoo.example"]);
        assert!(meets(&stranger, "zoo.example").expect_err("nobody known").contains("UnknownIssuer"));
    }

    #[test]
    fn names_are_not_looked_at_if_that_is_set_and_a_certificate_may_stand_for_itself() {
        let alone = self_signed("zoo", &["zoo.example"]);
        let mut own = trusting(&[&alone.certificate]);
        own.endpoint_identification = String::new();
        let own = TowardsZookeeper::open(&own).expect("opens");
        assert_eq!(meets(&own, &alone, "other.example", "127.0.0.1"), Ok(()));
    }

    #[test]
    fn stores_that_cannot_be_used_are_named_with_their_setting() {
        let mut own = trusting(&[]);
        own.stores.truststore_location = Some("/nowhere/trust.jks".into());
        own.stores.truststore_type = "JKS".into();
        let refused = TowardsZookeeper::open(&own).expect_err("no file");
        assert!(refused.starts_with("zookeeper.ssl.truststore.location=/nowhere/trust.jks: "), "{refused}");
    }
}
