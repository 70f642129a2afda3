//! What of a broker may be set while it runs, by AlterConfigs or by hand in ZooKeeper.
//!
//! Source: Kafka 3.9 `DynamicBrokerConfig.validateConfigs`, also for the texts of errors. Unknown names are taken, as
//! there: plugins may know them.

use std::collections::BTreeMap;

use super::names::{OF_LISTENERS_AND_ALL, is_only_of_listeners, of_listener, own_row, row_of};
use super::precedence::{Settings, scope_of};
use super::setting::{Scope, Setting};
use super::{Config, ConfigError};

/// For whom values are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynamicLevel {
    AllBrokers,
    ThisBroker,
}

impl Config {
    /// Whether these could be all the dynamic values of one level, beside those that the other level has now.
    ///
    /// # Errors
    /// Names that do not change while a broker runs, or not for all brokers, or only for one listener each; else the
    /// first value that is not legal.
    pub fn check_dynamic(&self, level: DynamicLevel, values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let is_fixed = |name: &str| own_row(name).is_some_and(|row| scope_of(row) == Scope::ReadOnly);
        refuse(values, "Cannot update these configs dynamically: Set", is_fixed)?;
        let why = "These security configs can be dynamically updated only per-listener using the listener prefix: \
                   HashSet";
        refuse(values, why, is_only_of_listeners)?;
        // Each, also one that the other level hides.
        for (name, value) in values {
            row_of(name).map_or(Ok(()), |row| row.parse(value).map(drop)).map_err(ConfigError::Dynamic)?;
        }
        let values = values.clone();
        let (all, own) = match level {
            DynamicLevel::AllBrokers => {
                let why = "Cannot update these configs at default cluster level, broker id must be specified: Set";
                let is_of_one = |name: &str| match of_listener(name) {
                    Some((_, rest)) => !OF_LISTENERS_AND_ALL.contains(&rest),
                    None => own_row(name).is_some_and(|row| scope_of(row) == Scope::PerBroker),
                };
                refuse(&values, why, is_of_one)?;
                (values, self.settings.dynamic_broker().clone())
            }
            DynamicLevel::ThisBroker => (self.settings.dynamic_default().clone(), values),
        };
        let secret = all.keys().chain(own.keys()).any(|name| is_known_secret(name));
        if secret && self.zookeeper.is_some() && self.password_encoder.is_none() {
            return Err(ConfigError::Dynamic("Password encoder secret not configured".into()));
        }
        let changed = self.with_dynamic(all, own)?;
        self.check_existing_listeners(&changed)?;
        THREADS.iter().try_for_each(|(name, refused)| self.check_threads(&changed, name, *refused))?;
        Ok(changed)
    }

    /// A number of threads changes by no more than a factor of two at once.
    /// Source: Kafka 3.9 `DynamicThreadPool.validateReconfiguration`, `LogCleaner.validateReconfiguration`.
    fn check_threads(&self, changed: &Self, name: &str, refused: TooMuch) -> Result<(), ConfigError> {
        let count = |config: &Self| {
            let given = config.settings.given(name).map(|given| given.value);
            let text = given.or_else(|| row_of(name)?.default.map(str::to_owned));
            text.and_then(|text| text.trim().parse::<i64>().ok())
        };
        let (Some(old), Some(new)) = (count(self), count(changed)) else { return Ok(()) };
        match new < old / 2 || new > old * 2 {
            true => Err(ConfigError::Dynamic(format!(
                "Invalid value org.apache.kafka.common.config.ConfigException: {} for configuration Invalid dynamic \
                 configuration",
                refused(name, old, new)
            ))),
            false => Ok(()),
        }
    }

    /// Of a listener that is open, stores of keys may change and little else. Source: Kafka 3.9
    /// `DynamicListenerConfig.validateReconfiguration`.
    fn check_existing_listeners(&self, changed: &Self) -> Result<(), ConfigError> {
        for listener in &self.listeners {
            let fixed = |config: &Self| config.settings.of_listener(&listener.name, |name| !may_change(name));
            if fixed(self) != fixed(changed) {
                let name = &listener.name;
                let why = format!(
                    "Invalid value org.apache.kafka.common.config.ConfigException: Configs cannot be updated \
                     dynamically for existing listener ListenerName({name}), restart broker or create a new listener \
                     for update for configuration Invalid dynamic configuration"
                );
                return Err(ConfigError::Dynamic(why));
            }
        }
        Ok(())
    }

    /// Values as they lie in the store, with their secrets decrypted; and the names of those that cannot be, which are
    /// left out. On a node alone secrets lie there as they are, as in KRaft.
    pub fn decoded(&self, mut stored: BTreeMap<String, String>) -> (BTreeMap<String, String>, Vec<String>) {
        if self.zookeeper.is_none() {
            return (stored, Vec::new());
        }
        let mut undecodable = Vec::new();
        stored.retain(|name, value| {
            if !is_known_secret(name) {
                return true;
            }
            let decoded = self.password_encoder.as_ref().and_then(|encoder| encoder.decode(value));
            match decoded {
                Some(decoded) => *value = decoded,
                None => {
                    undecodable.push(name.clone());
                    return false;
                }
            }
            true
        });
        (stored, undecodable)
    }

    /// Values as they are to lie in the store: what [`Self::check_dynamic`] has taken.
    pub fn encoded(
        &self,
        mut values: BTreeMap<String, String>,
        mut random: impl FnMut() -> u128,
    ) -> BTreeMap<String, String> {
        let Some(encoder) = self.password_encoder.as_ref().filter(|_| self.zookeeper.is_some()) else { return values };
        for (name, value) in &mut values {
            if is_known_secret(name) {
                *value = encoder.encode(value, &mut random);
            }
        }
        values
    }

    /// A line for each dynamic value, without secrets.
    pub fn dynamic_lines(&self) -> Vec<String> {
        Settings::lines_of(&self.settings.dynamic())
    }

    /// A line for each dynamic value that has no effect.
    pub fn dynamic_warnings(&self) -> Vec<String> {
        Settings::warnings_of(&self.settings.dynamic())
    }
}

/// What Kafka says where a number of this name changes too much, from the first to the second.
type TooMuch = fn(&str, i64, i64) -> String;

/// Numbers of threads.
const THREADS: [(&str, TooMuch); 5] = [
    ("background.threads", pool),
    ("log.cleaner.threads", cleaner),
    ("num.io.threads", pool),
    ("num.recovery.threads.per.data.dir", pool),
    ("num.replica.fetchers", pool),
];

fn pool(name: &str, old: i64, new: i64) -> String {
    let bound = if new > old { "not be greater than double" } else { "be at least half" };
    format!(
        "Dynamic thread count update validation failed for {name}={new}, value should {bound} the current value {old}"
    )
}

fn cleaner(_: &str, old: i64, new: i64) -> String {
    let bound = if new > old { "increased to more than double" } else { "reduced to less than half" };
    format!("Log cleaner threads cannot be {bound} the current value {old}")
}

/// Whether a listener's own value of this name, without its prefix, may change while it is open.
fn may_change(name: &str) -> bool {
    is_only_of_listeners(name) || OF_LISTENERS_AND_ALL.contains(&name)
}

fn is_known_secret(name: &str) -> bool {
    row_of(name).is_some_and(Setting::is_sensitive)
}

fn refuse(values: &BTreeMap<String, String>, why: &str, is_refused: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
    let names: Vec<&str> = values.keys().map(String::as_str).filter(|name| is_refused(name)).collect();
    match names.is_empty() {
        true => Ok(()),
        // The way a set of its kind prints in Scala.
        false => Err(ConfigError::Dynamic(format!("{why}({})", names.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::describe::describe_broker;
    use crate::config::{ConfigEntry, ConfigSource, Inputs, Machine, Synonym};

    fn check(level: DynamicLevel, name: &str, value: &str) -> Result<(), String> {
        let config = Config::load(&Inputs::default(), Machine::for_test()).expect("defaults");
        let checked = config.check_dynamic(level, &[(name.to_owned(), value.to_owned())].into());
        checked.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn kafkas_words_say_what_does_not_change_while_a_broker_runs() {
        use DynamicLevel::{AllBrokers, ThisBroker};
        assert_eq!(check(AllBrokers, "log.retention.ms", "1000"), Ok(()));
        assert_eq!(check(ThisBroker, "nobody.knows", "1"), Ok(()));
        let refused = |level, name, value| check(level, name, value).expect_err("refused");
        assert_eq!(refused(ThisBroker, "broker.id", "7"), "Cannot update these configs dynamically: Set(broker.id)");
        let of_listener = "listener.name.plaintext.ssl.keystore.type";
        for name in ["ssl.protocol", of_listener] {
            let why = "Cannot update these configs at default cluster level, broker id must be specified";
            assert_eq!(refused(AllBrokers, name, "PEM"), format!("{why}: Set({name})"));
        }
        assert_eq!(check(ThisBroker, of_listener, "PEM"), Ok(()));
        for level in [AllBrokers, ThisBroker] {
            assert_eq!(
                refused(level, "ssl.keystore.type", "JKS"),
                "These security configs can be dynamically updated only per-listener using the listener prefix: \
                 HashSet(ssl.keystore.type)"
            );
        }
        assert_eq!(
            refused(ThisBroker, "listener.name.plaintext.num.partitions", "7"),
            "Invalid value org.apache.kafka.common.config.ConfigException: Configs cannot be updated dynamically for \
             existing listener ListenerName(PLAINTEXT), restart broker or create a new listener for update for \
             configuration Invalid dynamic configuration"
        );
        assert_eq!(check(ThisBroker, "listener.name.another.num.partitions", "7"), Ok(()));
        assert_eq!(
            refused(AllBrokers, "log.retention.ms", "x"),
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG"
        );
    }

    /// Kafka encrypts them with `password.encoder.secret`, and without one it refuses them.
    #[test]
    fn secrets_lie_in_a_zookeeper_encrypted_or_not_at_all() {
        let load = |more: &[&str]| {
            let given = ["zookeeper.connect=a:1", "advertised.listeners=PLAINTEXT://h:1"];
            let overrides = given.iter().chain(more).map(|text| (*text).to_owned()).collect();
            Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::for_test()).expect("legal")
        };
        let (without, with) = (load(&[]), load(&["password.encoder.secret=s", "password.encoder.iterations=1024"]));
        let name = "listener.name.plaintext.ssl.key.password";
        let values: BTreeMap<_, _> =
            [(name.to_owned(), "hunter2".to_owned()), ("log.retention.ms".to_owned(), "5".to_owned())].into();
        let refused = without.check_dynamic(DynamicLevel::ThisBroker, &values).expect_err("refused").to_string();
        assert_eq!(refused, "Password encoder secret not configured");
        with.check_dynamic(DynamicLevel::ThisBroker, &values).expect("a secret");
        let stored = with.encoded(values.clone(), || 7);
        assert!(stored[name].contains("encryptedPassword:") && stored["log.retention.ms"] == "5");
        assert_eq!(with.decoded(stored.clone()), (values.clone(), vec![]));
        let (left, undecodable) = without.decoded(stored);
        assert_eq!((left.len(), undecodable), (1, vec![name.to_owned()]));
        let alone = Config::load(&Inputs::default(), Machine::for_test()).expect("defaults");
        assert_eq!(alone.encoded(values.clone(), || 7), values, "as in KRaft");
    }

    #[test]
    fn a_number_of_threads_changes_by_a_factor_of_two_at_most() {
        let refused = |name, value| check(DynamicLevel::ThisBroker, name, value).expect_err("refused");
        assert_eq!(check(DynamicLevel::AllBrokers, "num.io.threads", "16"), Ok(()));
        assert_eq!(check(DynamicLevel::AllBrokers, "num.io.threads", "4"), Ok(()));
        assert_eq!(
            refused("num.io.threads", "17"),
            "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation \
             failed for num.io.threads=17, value should not be greater than double the current value 8 for \
             configuration Invalid dynamic configuration"
        );
        assert!(refused("num.io.threads", "3").contains("value should be at least half the current value 8"));
        assert!(refused("log.cleaner.threads", "3").contains("cannot be increased to more than double"));
    }

    #[test]
    fn a_value_that_the_other_level_hides_must_be_legal_too() {
        let config = Config::load(&Inputs::default(), Machine::for_test()).expect("defaults");
        let values = |value: &str| [("log.retention.ms".to_owned(), value.to_owned())].into();
        let config = config.with_dynamic(BTreeMap::new(), values("1000")).expect("legal");
        assert!(config.check_dynamic(DynamicLevel::AllBrokers, &values("x")).is_err());
    }

    #[test]
    fn what_is_set_and_has_no_effect_says_so() {
        let config = Config::load(&Inputs::default(), Machine::for_test()).expect("defaults");
        let set = config.with_dynamic([("num.io.threads".into(), "9".into())].into(), BTreeMap::new()).expect("legal");
        assert_eq!(set.dynamic_lines(), ["num.io.threads = 9 (dynamic configuration of all brokers)"]);
        assert_eq!(set.dynamic_warnings().len(), 1);
    }

    /// As Kafka 3.9.1 answers kafka-configs: two of the throttles that kafka-reassign-partitions sets and takes back.
    #[test]
    fn throttles_are_set_while_a_broker_runs_and_shown_as_numbers() {
        use DynamicLevel::{AllBrokers, ThisBroker};
        const RATE: &str = "leader.replication.throttled.rate";
        for name in [RATE, "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second"] {
            for level in [AllBrokers, ThisBroker] {
                assert_eq!(check(level, name, "0"), Ok(()));
                let refused = |value| check(level, name, value).expect_err("refused");
                let line = |value, why| format!("Invalid value {value} for configuration {name}: {why}");
                assert_eq!(refused("-1"), line("-1", "Value must be at least 0"));
                assert_eq!(refused("x"), line("x", "Not a number of type LONG"));
            }
        }
        let config = Config::load(&Inputs::default(), Machine::for_test()).expect("defaults");
        let shown = |config: &Config| describe_broker(config).into_iter().find(|entry| entry.name == RATE);
        assert_eq!(shown(&config), None, "Kafka shows it where it is set");
        let set = config.with_dynamic(BTreeMap::new(), [(RATE.to_owned(), "1000".to_owned())].into()).expect("legal");
        let synonym = Synonym { name: RATE.into(), value: Some("1000".into()), source: ConfigSource::DynamicBroker };
        let entry = ConfigEntry {
            name: RATE.into(),
            value: Some("1000".into()),
            source: ConfigSource::DynamicBroker,
            synonyms: vec![synonym],
            wire_type: 5,
            read_only: true,
            sensitive: false,
            documentation: None,
        };
        assert_eq!(shown(&set), Some(entry));
        let inputs = Inputs { overrides: vec![format!("{RATE}=x")], ..Inputs::default() };
        let started = Config::load(&inputs, Machine::for_test()).expect("no key of a file");
        assert_eq!((started.warnings().len(), started.leader_replication_throttled_rate), (1, i64::MAX));
        assert_eq!(set.leader_replication_throttled_rate, 1000);
    }
}
