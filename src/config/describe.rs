//! Settings as DescribeConfigs shows them: value, source, synonyms, type and documentation.
//!
//! Source: Kafka 3.9 `ConfigHelper`, `DynamicBrokerConfig.brokerConfigSynonyms`. A secret's value is never in an entry,
//! nor is that of an unknown name, since it might be one.

use std::collections::BTreeMap;

use super::loggers::{LOGGERS, LoggerLevels};
use super::names::row_of;
use super::precedence::{Settings, scope_of};
use super::setting::{Kind, Scope};
use super::{Config, ConfigError, broker, topic};

/// One line of DescribeConfigs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None`: null, also of what is secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    /// Every value that was found under this name or one that stands for it, the winning one first.
    pub synonyms: Vec<Synonym>,
    /// The type's number on the wire, 0 for unknown.
    pub wire_type: i8,
    pub read_only: bool,
    pub sensitive: bool,
    pub documentation: Option<&'static str>,
}

/// One value an entry could have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// Where a value comes from; the numbers are the wire's. Source: Kafka `DescribeConfigsResponse.ConfigSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    BrokerLogger = 6,
}

impl ConfigSource {
    /// Number on the wire.
    pub fn wire(self) -> i8 {
        self as i8
    }
}

/// Every setting of this broker that Kafka shows, and every name that was given, by name.
pub fn describe_broker(config: &Config) -> Vec<ConfigEntry> {
    let shown = broker::rows().filter(|row| !row.internal).map(|row| row.name);
    let given = config.settings.fixed().keys().chain(config.settings.dynamic_default().keys());
    let given = given.chain(config.settings.dynamic_broker().keys()).map(String::as_str);
    let names: std::collections::BTreeSet<&str> = shown.chain(given).collect();
    names.into_iter().map(|name| broker_entry(&config.settings, name, true)).collect()
}

/// What was set for all brokers while they run: DescribeConfigs of the broker resource with an empty name.
pub fn describe_cluster_default(config: &Config) -> Vec<ConfigEntry> {
    // A broker's own values would hide them.
    let of_all = config.settings.with_dynamic(config.settings.dynamic_default().clone(), BTreeMap::new());
    of_all.dynamic_default().keys().map(|name| broker_entry(&of_all, name, false)).collect()
}

/// Every logger with its level. Source: Kafka 3.9 `ConfigHelper`, `Log4jController.loggers`.
pub fn describe_loggers(levels: &dyn LoggerLevels) -> Vec<ConfigEntry> {
    let entry = |logger: &&str| ConfigEntry {
        name: (*logger).into(),
        value: Some(levels.level(logger).name().into()),
        source: ConfigSource::BrokerLogger,
        synonyms: Vec::new(),
        wire_type: 0,
        read_only: false,
        sensitive: false,
        documentation: None,
    };
    LOGGERS.iter().map(entry).collect()
}

/// Every setting of a topic that has these of its own.
///
/// # Errors
/// As [`Config::of_topic`].
pub fn describe_topic(config: &Config, overrides: &BTreeMap<String, String>) -> Result<Vec<ConfigEntry>, ConfigError> {
    config.of_topic(overrides)?;
    let mut entries = Vec::new();
    for row in topic::rows() {
        let own = overrides.get(row.name);
        let value = match own.map(|text| row.parse(text)) {
            Some(parsed) => parsed.map_err(ConfigError::Topic)?.to_string(),
            None => config.topic_values.0[row.name].to_string(),
        };
        let behind: Vec<&str> = topic::synonyms(row.name).iter().map(|(name, _)| *name).collect();
        let mut synonyms: Vec<_> = own
            .map(|_| Synonym { name: row.name.into(), value: Some(value.clone()), source: ConfigSource::Topic })
            .into_iter()
            .collect();
        synonyms
            .extend(behind.first().map(|first| broker_synonyms(&config.settings, first, false)).unwrap_or_default());
        entries.push(ConfigEntry {
            name: row.name.into(),
            value: Some(value),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            synonyms,
            wire_type: row.kind.wire_type(),
            read_only: false,
            sensitive: false,
            documentation: Some(row.documentation),
        });
    }
    Ok(entries)
}

fn broker_entry(settings: &Settings, name: &str, of_one_broker: bool) -> ConfigEntry {
    let row = row_of(name);
    let sensitive = row.is_none_or(|row| row.kind == Kind::Password);
    let text = settings.given(name).map(|given| given.value);
    let text = text.or_else(|| broker::row(name)?.default.map(str::to_owned));
    let value = text.filter(|_| !sensitive);
    let value = value.map(|text| row.and_then(|row| row.parse(&text).ok()).map_or(text, |value| value.to_string()));
    let mut synonyms = broker_synonyms(settings, name, sensitive);
    synonyms.retain(|synonym| of_one_broker || synonym.source == ConfigSource::DynamicDefaultBroker);
    ConfigEntry {
        name: name.into(),
        value,
        source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
        synonyms,
        wire_type: row.map_or(0, |row| row.kind.wire_type()),
        read_only: broker::row(name).is_none_or(|row| scope_of(row) == Scope::ReadOnly),
        sensitive,
        documentation: row.filter(|row| broker::dynamic_row(row.name).is_none()).map(|row| row.documentation),
    }
}

/// All values of a name and of those that stand for it, by source, beginning with the name itself.
fn broker_synonyms(settings: &Settings, name: &str, sensitive: bool) -> Vec<Synonym> {
    let names = broker_names(name);
    let mut found = Vec::new();
    let mut add = |source: ConfigSource, lookup: &dyn Fn(&str) -> Option<String>| {
        for name in &names {
            if let Some(value) = lookup(name) {
                let value = Some(value).filter(|_| !sensitive);
                found.push(Synonym { name: name.clone(), value, source });
            }
        }
    };
    add(ConfigSource::DynamicBroker, &|name| settings.dynamic_broker().get(name).cloned());
    add(ConfigSource::DynamicDefaultBroker, &|name| settings.dynamic_default().get(name).cloned());
    add(ConfigSource::StaticBroker, &|name| settings.fixed().get(name).map(|given| given.value.clone()));
    add(ConfigSource::Default, &|name| broker::row(name)?.default.map(str::to_owned));
    // Kafka drops what stands before the name itself, so that a base setting does not show a listener's own.
    found.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

/// A name and those that stand for it, first one first. Source: `DynamicBrokerConfig.brokerConfigSynonyms`.
fn broker_names(name: &str) -> Vec<String> {
    let names: &[&str] = match name {
        "log.roll.ms" | "log.roll.hours" => &["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            &["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        _ => match row_of(name) {
            Some(row) if row.name != name => return vec![name.into(), row.name.into()],
            _ => return vec![name.into()],
        },
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::config;
    use super::*;

    fn find<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
        entries.iter().find(|entry| entry.name == name).expect("described")
    }

    #[test]
    fn a_brokers_entry_names_its_source_and_what_it_overrides() {
        let entries = describe_broker(&config(&[("num.partitions", "3"), ("listeners", "PLAINTEXT://:1")]));
        assert!(entries.len() >= 314);
        let partitions = find(&entries, "num.partitions");
        assert_eq!((partitions.value.as_deref(), partitions.source.wire()), (Some("3"), 4));
        assert!(partitions.read_only && !partitions.sensitive);
        let shown: Vec<_> = partitions.synonyms.iter().map(|s| (s.value.as_deref(), s.source.wire())).collect();
        assert_eq!(shown, [(Some("3"), 4), (Some("1"), 5)]);
        let zookeeper = find(&entries, "zookeeper.connect");
        assert_eq!(
            (zookeeper.value.as_deref(), zookeeper.source, zookeeper.synonyms.len()),
            (None, ConfigSource::Default, 0)
        );
        assert!(!find(&entries, "message.max.bytes").read_only);
    }

    /// CVE-2019-12399.
    #[test]
    fn what_may_be_secret_has_no_value() {
        let entries = describe_broker(&config(&[("some.password", "hunter2")]));
        let unknown = find(&entries, "some.password");
        assert_eq!((unknown.value.as_deref(), unknown.sensitive, unknown.wire_type), (None, true, 0));
        assert!(unknown.synonyms.iter().all(|synonym| synonym.value.is_none()));
        assert!(find(&entries, "ssl.key.password").sensitive);
    }

    #[test]
    fn a_topics_entry_shows_its_own_value_then_the_brokers() {
        let broker = config(&[("log.retention.hours", "1")]);
        let entries = describe_topic(&broker, &[("retention.ms".to_owned(), " 5".to_owned())].into()).expect("legal");
        assert_eq!(entries.len(), 36);
        let retention = find(&entries, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source.wire()), (Some("5"), 1));
        let plain = describe_topic(&broker, &BTreeMap::new()).expect("legal");
        // Kafka's own order: the finer setting is not set, so what is left begins at nothing.
        assert_eq!(find(&plain, "retention.ms").value.as_deref(), Some("3600000"));
        let segment = find(&plain, "segment.bytes");
        assert_eq!((segment.source, segment.synonyms[0].name.as_str()), (ConfigSource::Default, "log.segment.bytes"));
    }
}
