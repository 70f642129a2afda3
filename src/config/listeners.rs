//! Listeners: where the broker listens, what it tells clients, and which listener brokers use among themselves.
//!
//! A function of the settings and the host name. Source: Kafka 3.9 `KafkaConfig`, `CoreUtils.listenerListToEndPoints`
//! and `EndPoint`; the texts of errors are theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ConfigError;
use super::reader::Reader;

/// One address, to listen on or to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// In capitals, as clients of JMX and znodes see it.
    pub name: String,
    pub security_protocol: SecurityProtocol,
    /// To listen on: empty means every interface. To be told: never empty.
    pub host: String,
    /// To listen on: 0 lets the system choose. To be told: 0 stands for the port that was chosen.
    pub port: u16,
}

/// How a listener's bytes are protected, and whether clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];
        all.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }

    /// Bytes are encrypted.
    pub fn is_over_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Clients authenticate by SASL.
    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Kafka's name, also in the broker's znode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = self.host.contains(':');
        let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}:{}", self.name, self.host, self.port)
    }
}

/// Where pages for whoever watches the broker are served over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpListener {
    /// Empty means every interface.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

/// `klamm.http.listener`.
///
/// # Errors
/// It is not `host:port`.
pub(crate) fn http(reader: &Reader<'_>) -> Result<Option<HttpListener>, ConfigError> {
    const KEY: &str = "klamm.http.listener";
    let Some(text) = reader.text(KEY).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let element = format!("HTTP://{}", text.trim());
    let (_, host, port) = split(&element).ok_or_else(|| reader.invalid(KEY, "it is written as host:port"))?;
    Ok(Some(HttpListener { host: host.into(), port }))
}

/// The four answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) advertised: Vec<Listener>,
    pub(crate) inter_broker: String,
    pub(crate) control_plane: Option<String>,
}

/// Reads all settings of listeners. Those named in `controller.listener.names` are KRaft's and left out.
///
/// # Errors
/// A value is not legal.
pub(crate) fn resolve(reader: &Reader<'_>, host_name: &str) -> Result<Resolved, ConfigError> {
    let controllers: BTreeSet<String> =
        csv(&reader.text("controller.listener.names").unwrap_or_default()).map(str::to_uppercase).collect();
    let map = protocol_map(reader, &controllers)?;
    let mut listeners = endpoints(reader, "listeners", &map)?;
    distinct_ports(reader, &listeners)?;
    listeners.retain(|listener| !controllers.contains(&listener.name));

    let told = reader.given("advertised.listeners").is_some();
    let advertised_by = if told { "advertised.listeners" } else { "listeners" };
    let mut advertised = if told { endpoints(reader, "advertised.listeners", &map)? } else { listeners.clone() };
    advertised.retain(|listener| !controllers.contains(&listener.name));
    if advertised.is_empty() {
        return Err(reader.invalid(advertised_by, "There must be at least one broker advertised listener."));
    }
    if advertised.iter().any(|listener| listener.host == "0.0.0.0") {
        let why = "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.";
        return Err(reader.invalid(advertised_by, why));
    }
    let inter_broker = inter_broker(reader, &map, &advertised, advertised_by)?;
    let control_plane = control_plane(reader, &map, &advertised, &inter_broker)?;
    let opened: BTreeSet<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    if !advertised.iter().all(|listener| opened.contains(listener.name.as_str())) {
        let why = format!(
            "advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. \
             Found {}. The valid options based on the current configuration are {}",
            names(&advertised),
            names(&listeners)
        );
        return Err(reader.invalid("advertised.listeners", &why));
    }
    for listener in &mut advertised {
        if listener.host.is_empty() {
            listener.host = host_name.into();
        }
    }
    Ok(Resolved { listeners, advertised, inter_broker, control_plane })
}

fn names(listeners: &[Listener]) -> String {
    listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(",")
}

fn csv(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty())
}

type ProtocolMap = BTreeMap<String, SecurityProtocol>;

fn protocol_map(reader: &Reader<'_>, controllers: &BTreeSet<String>) -> Result<ProtocolMap, ConfigError> {
    const KEY: &str = "listener.security.protocol.map";
    let mut map = BTreeMap::new();
    for pair in csv(&reader.text(KEY).unwrap_or_default()) {
        let Some((name, protocol)) = pair.rsplit_once(':') else {
            return Err(reader.invalid(KEY, "each element is written as NAME:PROTOCOL"));
        };
        let protocol = SecurityProtocol::parse(protocol.trim())
            .ok_or_else(|| reader.invalid(KEY, &format!("Invalid security protocol `{protocol}` defined in {KEY}")))?;
        map.insert(name.trim().to_uppercase(), protocol);
    }
    // A controller's listener is not opened; it needs no entry of its own.
    for name in controllers {
        map.entry(name.clone()).or_insert(SecurityProtocol::Plaintext);
    }
    Ok(map)
}

fn endpoints(reader: &Reader<'_>, key: &str, map: &ProtocolMap) -> Result<Vec<Listener>, ConfigError> {
    let text = reader.text(key).unwrap_or_default();
    let mut endpoints: Vec<Listener> = Vec::new();
    for element in csv(&text) {
        let (name, host, port) = split(element)
            .ok_or_else(|| reader.invalid(key, &format!("Unable to parse {element} to a broker endpoint")))?;
        let name = name.to_uppercase();
        let security_protocol = *map
            .get(&name)
            .ok_or_else(|| reader.invalid(key, &format!("No security protocol defined for listener {name}")))?;
        if endpoints.iter().any(|other| other.name == name) {
            return Err(reader.invalid(key, "Each listener must have a different name"));
        }
        endpoints.push(Listener { name, security_protocol, host: host.into(), port });
    }
    Ok(endpoints)
}

/// `NAME://host:port`; an IPv6 address may stand in brackets.
fn split(element: &str) -> Option<(&str, &str, u16)> {
    let (name, address) = element.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-%._:".contains(&b);
    (!name.is_empty() && host.bytes().all(legal)).then_some(())?;
    Some((name, host, port.parse().ok()?))
}

/// A port may stand twice only for one IPv4 and one IPv6 address.
fn distinct_ports(reader: &Reader<'_>, listeners: &[Listener]) -> Result<(), ConfigError> {
    for (index, one) in listeners.iter().enumerate() {
        let mut same = listeners[index + 1..].iter().filter(|other| other.port == one.port && one.port != 0);
        let Some(other) = same.next() else { continue };
        let is_v4 = |listener: &Listener| listener.host.parse::<Ipv4Addr>().is_ok();
        let is_v6 = |listener: &Listener| listener.host.parse::<Ipv6Addr>().is_ok();
        let is_ip = |listener: &Listener| listener.host.parse::<IpAddr>().is_ok();
        let pair = (is_v4(one) && is_v6(other)) || (is_v6(one) && is_v4(other));
        if !pair || same.next().is_some() {
            let why = if is_ip(one) && is_ip(other) {
                "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6"
            } else {
                "Each listener must have a different port"
            };
            return Err(reader.invalid("listeners", why));
        }
    }
    Ok(())
}

fn inter_broker(
    reader: &Reader<'_>,
    map: &ProtocolMap,
    advertised: &[Listener],
    advertised_by: &'static str,
) -> Result<String, ConfigError> {
    const NAME: &str = "inter.broker.listener.name";
    const PROTOCOL: &str = "security.inter.broker.protocol";
    let by_protocol = reader.text(PROTOCOL).unwrap_or_default();
    let (key, name) = match reader.text(NAME) {
        Some(_) if reader.given(PROTOCOL).is_some() => {
            return Err(reader.invalid(NAME, &format!("Only one of {NAME} and {PROTOCOL} should be set.")));
        }
        Some(name) if name.is_empty() => {
            return Err(reader.invalid(NAME, "The provided listener name is null or empty string"));
        }
        Some(name) => (NAME, name.to_uppercase()),
        None if reader.given(PROTOCOL).is_some() => (PROTOCOL, by_protocol),
        None => (advertised_by, by_protocol),
    };
    if key == NAME && !map.contains_key(&name) {
        let why = format!("Listener with name {name} defined in {NAME} not found in listener.security.protocol.map.");
        return Err(reader.invalid(key, &why));
    }
    if !advertised.iter().any(|listener| listener.name == name) {
        let why = format!(
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. \
             The valid options based on currently configured listeners are {}",
            names(advertised)
        );
        return Err(reader.invalid(key, &why));
    }
    Ok(name)
}

/// Source: Kafka 3.9 `KafkaConfig.getControlPlaneListenerNameAndSecurityProtocol`, `validateValues`.
fn control_plane(
    reader: &Reader<'_>,
    map: &ProtocolMap,
    advertised: &[Listener],
    inter_broker: &str,
) -> Result<Option<String>, ConfigError> {
    const NAME: &str = "control.plane.listener.name";
    let Some(name) = reader.text(NAME).map(|name| name.to_uppercase()) else { return Ok(None) };
    let refuse = |why: &str| Err(reader.invalid(NAME, why));
    if reader.given("process.roles").is_some_and(|roles| !roles.value.trim().is_empty()) {
        return refuse(&format!("{NAME} is not supported in KRaft mode."));
    }
    if !map.contains_key(&name) {
        let why = format!("Listener with {name} defined in {NAME} not found in listener.security.protocol.map.");
        return refuse(&why);
    }
    if !advertised.iter().any(|listener| listener.name == name) {
        return refuse(&format!(
            "{NAME} must be a listener name defined in advertised.listeners. The valid options based on currently \
             configured listeners are {}",
            names(advertised)
        ));
    }
    if name == inter_broker {
        return refuse(&format!(
            "{NAME}, when defined, should have a different value from the inter broker listener name. Currently they \
             both have the value ListenerName({name})"
        ));
    }
    Ok(Some(name))
}

/// `max.connections` of each listener, which is that of the broker where it has none of its own.
pub(super) fn connections(reader: &Reader<'_>, listeners: &[Listener]) -> BTreeMap<String, usize> {
    let most = |listener: &Listener| reader.of_listener(&listener.name).int("max.connections");
    let most = |listener: &Listener| usize::try_from(most(listener)).unwrap_or(usize::MAX);
    listeners.iter().map(|listener| (listener.name.clone(), most(listener))).collect()
}

/// `max.connection.creation.rate` as each listener has it.
pub(super) fn creation_rates(reader: &Reader<'_>, listeners: &[Listener]) -> BTreeMap<String, i32> {
    let rate = |listener: &Listener| reader.of_listener(&listener.name).int("max.connection.creation.rate");
    listeners.iter().map(|listener| (listener.name.clone(), rate(listener))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};

    fn shown(given: &[(&str, &str)]) -> (String, String, String) {
        let config = config(given);
        let join =
            |listeners: &[super::Listener]| listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        (join(&config.listeners), join(&config.advertised_listeners), config.inter_broker_listener.clone())
    }

    /// CVE-2026-82266.
    #[test]
    fn pages_over_http_are_off_unless_their_address_is_set() {
        let of = |text| config(&[("klamm.http.listener", text)]).http_listener;
        let at = |host: &str, port| Some(super::HttpListener { host: host.into(), port });
        assert_eq!([config(&[]).http_listener, of(""), of(" ")], [None, None, None]);
        assert_eq!(of("127.0.0.1:9404"), at("127.0.0.1", 9404));
        assert_eq!([of("[::1]:0"), of(":1"), of(" h:1 ")], [at("::1", 0), at("", 1), at("h", 1)]);
        for wrong in ["9404", "h", "h:", "h:x", "h:70000", "http://h:1", "a b:1"] {
            let line = error(&[("klamm.http.listener", wrong)]);
            assert!(line.contains("klamm.http.listener") && line.contains("host:port"), "{line}");
        }
    }

    const MAP: (&str, &str) = ("listener.security.protocol.map", "A:PLAINTEXT,B:PLAINTEXT");

    #[test]
    fn without_settings_all_interfaces_are_open_and_the_host_name_is_told() {
        let (open, told, inter) = shown(&[]);
        assert_eq!(
            (open.as_str(), told.as_str(), inter.as_str()),
            ("PLAINTEXT://:9092", "PLAINTEXT://this.host:9092", "PLAINTEXT")
        );
    }

    #[test]
    fn several_listeners_each_with_its_own_address() {
        let given = [
            MAP,
            ("listeners", " a://0.0.0.0:9092 , B://[::1]:0,"),
            ("advertised.listeners", "A://kafka:29092,B://localhost:29092"),
            ("inter.broker.listener.name", "a"),
        ];
        let (open, told, inter) = shown(&given);
        assert_eq!(open, "A://0.0.0.0:9092,B://[::1]:0");
        assert_eq!(told, "A://kafka:29092,B://localhost:29092");
        assert_eq!(inter, "A");
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[("listeners", "PLAINTEXT://0.0.0.0:9092")], "cannot use the nonroutable meta-address 0.0.0.0"),
            (&[("listeners", "PLAINTEXT://:1,PLAINTEXT://:2")], "Each listener must have a different name"),
            (&[MAP, ("listeners", "A://:1,B://:1"), ("inter.broker.listener.name", "A")], "must have a different port"),
            (&[("listeners", "X://:1")], "No security protocol defined for listener X"),
            (&[("listeners", "PLAINTEXT:9092")], "Unable to parse PLAINTEXT:9092 to a broker endpoint"),
            (&[("listeners", "PLAINTEXT://:99999")], "Unable to parse"),
            (&[("listeners", "")], "There must be at least one broker advertised listener."),
            (&[MAP, ("listeners", "A://:1")], "The valid options based on currently configured listeners are A"),
            (&[("listener.security.protocol.map", "A:FOO")], "Invalid security protocol `FOO`"),
            (
                &[("inter.broker.listener.name", "PLAINTEXT"), ("security.inter.broker.protocol", "PLAINTEXT")],
                "Only one of",
            ),
        ];
        for (given, expected) in cases {
            let error = error(given);
            assert!(error.contains(expected), "{given:?}: {error}");
            assert!(!error.contains('\n') && error.contains("--override"), "{error}");
        }
    }

    #[test]
    fn the_controllers_listener_is_another_one_than_that_of_brokers() {
        let of = |name| {
            [
                MAP,
                ("listeners", "A://h:1,B://h:2"),
                ("inter.broker.listener.name", "A"),
                ("control.plane.listener.name", name),
            ]
        };
        assert_eq!(config(&of("b")).control_plane_listener.as_deref(), Some("B"));
        assert_eq!(config(&of("b")[..3]).control_plane_listener, None);
        for (name, expected) in [
            (
                "C",
                "Listener with C defined in control.plane.listener.name not found in listener.security.protocol.map.",
            ),
            ("", "not found in listener.security.protocol.map."),
            ("A", "Currently they both have the value ListenerName(A)"),
        ] {
            assert!(error(&of(name)).contains(expected), "{}", error(&of(name)));
        }
        let hidden = error(&[&of("B")[..], &[("advertised.listeners", "A://h:1")]].concat());
        assert!(hidden.contains("must be a listener name defined in advertised.listeners"), "{hidden}");
        let kraft = [("process.roles", "broker,controller"), ("node.id", "1")];
        assert!(error(&[&of("B")[..], &kraft].concat()).contains("is not supported in KRaft mode"));
    }

    #[test]
    fn one_port_serves_an_ipv4_and_an_ipv6_address() {
        let listeners = ("listeners", "A://127.0.0.1:9092,B://[::1]:9092");
        assert_eq!(shown(&[MAP, listeners, ("inter.broker.listener.name", "A")]).2, "A");
    }
}
