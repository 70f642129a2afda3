//! `zookeeper.connect` and what goes with it: whether the state of the cluster lies elsewhere, where, and who this
//! broker is there.
//!
//! It proves that by SASL DIGEST-MD5 if the JAAS file of `KAFKA_OPTS` has a section `Client`
//! (`-Dzookeeper.sasl.clientconfig` names another) with ZooKeeper's own login module. Source: Kafka 3.9
//! `KafkaZkClient.createZkClient`, `JaasUtils.isZkSaslEnabled`. A certificate of its own, over TLS (`zookeeper_tls`),
//! says it as well.

use super::jaas::JaasFile;
use super::reader::Reader;
use super::tls::TlsSettings;
use super::{ConfigError, Secret, zookeeper_tls};

/// How to reach an external ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperConfig {
    /// `host:port` separated by commas, without the chroot.
    pub connect: String,
    /// Begins with `/` and does not end with one; empty: none.
    pub chroot: String,
    pub session_timeout_ms: i32,
    /// The session time-out where none is set.
    pub connection_timeout_ms: i32,
    pub max_in_flight_requests: usize,
    /// `klamm.controller.eligible`.
    pub controller_eligible: bool,
    /// `None`: it is nobody there, unless it shows a certificate.
    pub login: Option<ZookeeperLogin>,
    /// `None`: in the clear.
    pub tls: Option<TlsSettings>,
    /// `zookeeper.set.acl`: what it makes nobody else may change.
    pub set_acl: bool,
}

/// Who this broker is at ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperLogin {
    pub username: String,
    pub password: Secret,
}

/// ZooKeeper's module for DIGEST-MD5.
const DIGEST_MODULE: &str = "org.apache.zookeeper.server.auth.DigestLoginModule";

/// # Errors
/// The section is there and cannot be used.
fn login(reader: &Reader<'_>) -> Result<Option<ZookeeperLogin>, ConfigError> {
    let Some(file) = reader.settings.jaas_file() else { return Ok(None) };
    let Some((section, entries, enabled)) = file.of_zookeeper() else { return Ok(None) };
    let refuse = |why: String| {
        let why = format!("section '{section}' of {} {why}", file.path().display());
        Err(reader.invalid("zookeeper.connect", &why))
    };
    if !enabled {
        return refuse("is there, and zookeeper.sasl.client is false".into());
    }
    let Some(entry) = entries.iter().find(|entry| entry.module == DIGEST_MODULE) else {
        let found = entries.first().map_or("none", |entry| entry.module.as_str());
        return refuse(format!("needs the login module {DIGEST_MODULE}, and has {found}; Kerberos is not supported"));
    };
    match (entry.option("username"), entry.option("password")) {
        (Some(username), Some(password)) => {
            Ok(Some(ZookeeperLogin { username: username.reveal().to_owned(), password: password.clone() }))
        }
        _ => refuse("has no username or no password".into()),
    }
}

/// As Kafka says it.
fn no_login(reader: &Reader<'_>) -> ConfigError {
    let file = reader.settings.jaas_file().map(JaasFile::path);
    let file = file.map_or("null".into(), |path| path.display().to_string());
    let why = format!(
        "zookeeper.set.acl is true, but ZooKeeper client TLS configuration identifying at least \
         zookeeper.ssl.client.enable, zookeeper.clientCnxnSocket, and zookeeper.ssl.keystore.location was not present \
         and the verification of the JAAS login file failed [java.security.auth.login.config={file}]"
    );
    reader.invalid("zookeeper.set.acl", &why)
}

/// `None`: the node coordinates itself.
pub(super) fn zookeeper(reader: &Reader<'_>) -> Result<Option<ZookeeperConfig>, ConfigError> {
    let connect = reader.text("zookeeper.connect").unwrap_or_default();
    let controller_eligible = reader.boolean("klamm.controller.eligible");
    if connect.is_empty() {
        if !controller_eligible {
            return Err(reader.invalid("klamm.controller.eligible", "a node alone has nobody else for controller"));
        }
        return Ok(None);
    }
    let (hosts, chroot) = connect.split_once('/').map_or((connect.as_str(), ""), |(hosts, path)| (hosts, path));
    let hosts: Vec<_> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    let has_port = |host: &&str| host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    if hosts.is_empty() || !hosts.iter().all(has_port) {
        return Err(reader.invalid("zookeeper.connect", "servers are written as host:port, separated by commas"));
    }
    let chroot = chroot.trim_matches('/');
    let session_timeout_ms = reader.int("zookeeper.session.timeout.ms");
    let connection_timeout_ms =
        reader.optional("zookeeper.connection.timeout.ms").and_then(|ms| i32::try_from(ms).ok());
    let login = login(reader)?;
    let set_acl = reader.boolean("zookeeper.set.acl");
    let tls = zookeeper_tls::resolve(reader)?;
    let shows_certificate = tls.as_ref().is_some_and(|tls| tls.stores.has_keystore());
    if set_acl && login.is_none() && !shows_certificate {
        return Err(no_login(reader));
    }
    Ok(Some(ZookeeperConfig {
        login,
        tls,
        set_acl,
        controller_eligible,
        connect: hosts.join(","),
        chroot: if chroot.is_empty() { String::new() } else { format!("/{chroot}") },
        session_timeout_ms,
        connection_timeout_ms: connection_timeout_ms.unwrap_or(session_timeout_ms),
        max_in_flight_requests: reader.size("zookeeper.max.in.flight.requests"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use super::super::{Config, Inputs, Machine};
    use super::*;

    fn with_jaas(text: &str, options: &str, settings: &[&str]) -> Result<ZookeeperConfig, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("jaas.conf");
        std::fs::write(&path, text).expect("written");
        let options = format!("-Djava.security.auth.login.config={} {options}", path.display());
        let inputs = Inputs {
            overrides: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            environment: vec![("KAFKA_OPTS".into(), options)],
            ..Inputs::default()
        };
        let config = Config::load(&inputs, Machine::this()).map_err(|error| error.to_string())?;
        Ok(config.zookeeper.expect("external"))
    }

    #[test]
    fn a_section_of_jaas_says_who_the_broker_is_at_zookeeper() {
        const CLIENT: &str = "Client { org.apache.zookeeper.server.auth.DigestLoginModule required \
                              username=\"kafka\" password=\"hunter2\"; };";
        const ACL: [&str; 3] = ["broker.id=1", "zookeeper.connect=a:1", "zookeeper.set.acl=true"];
        let found = with_jaas(CLIENT, "", &ACL).expect("legal");
        let login = found.login.clone().expect("a login");
        assert_eq!((login.username.as_str(), login.password.reveal(), found.set_acl), ("kafka", "hunter2", true));
        assert!(!format!("{found:?}").contains("hunter2"));
        assert_eq!(with_jaas("Other {};", "", &ACL[..2]).expect("legal").login, None);
        let other = CLIENT.replace("Client", "Zoo");
        assert!(with_jaas(&other, "-Dzookeeper.sasl.clientconfig=Zoo", &ACL).is_ok());
        let refused = |text: &str, options: &str| {
            let error = with_jaas(text, options, &ACL).expect_err("refused");
            assert!(!error.contains("hunter2"), "{error}");
            error
        };
        assert!(refused(&other, "").contains("the verification of the JAAS login file failed"));
        assert!(refused(CLIENT, "-Dzookeeper.sasl.client=false").contains("zookeeper.sasl.client is false"));
        assert!(refused(&CLIENT.replace("Digest", "Krb5"), "").contains("Kerberos is not supported"));
        assert!(refused(&CLIENT.replace("password", "x"), "").contains("no password"));
    }

    #[test]
    fn zookeeper_connect_may_end_in_a_chroot() {
        let of = |connect| config(&[("zookeeper.connect", connect)]).zookeeper.expect("external");
        let zookeeper = of(" a:1, b:2/x/y/ ");
        assert_eq!((zookeeper.connect.as_str(), zookeeper.chroot.as_str()), ("a:1,b:2", "/x/y"));
        assert_eq!((zookeeper.session_timeout_ms, zookeeper.connection_timeout_ms), (18_000, 18_000));
        assert_eq!(of("a:1").chroot, "");
        assert!(error(&[("zookeeper.connect", "a:b")]).contains("host:port"));
        assert!(error(&[("klamm.controller.eligible", "false")]).contains("alone"));
    }
}
