//! Which value wins, and what is wrong or pointless in what was given.
//!
//! Order, later wins: defaults, file, environment, `--override`, and while the broker runs the dynamic values of all
//! brokers, then those of this broker. Every value keeps the place it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::ConfigError;
use super::broker;
use super::jaas::JaasFile;
use super::java_options::JavaOptions;
use super::names::{
    OF_LISTENERS_AND_ALL, is_only_of_listeners, is_secret, may_be_of_listener, of_listener, own_row, row_of,
};
use super::setting::{Effect, Scope, Setting};
use super::sources::{Given, Source};

/// Names the classes that resolve `${provider:…}` in values; no row, since Kafka's table does not have it either.
const PROVIDERS: &str = "config.providers";

/// Everything that was given, by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the process was started with, the winner of each name.
    fixed: BTreeMap<String, Given>,
    dynamic_default: BTreeMap<String, String>,
    dynamic_broker: BTreeMap<String, String>,
    /// Beside the settings: `java.security.auth.login.config`.
    jaas_file: Option<Arc<JaasFile>>,
    java_options: Arc<JavaOptions>,
}

/// Without secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("fixed", &self.at_start()).field("dynamic", &self.dynamic()).finish()
    }
}

impl Settings {
    /// Merges values in rising order of precedence.
    pub(crate) fn merge(given: impl IntoIterator<Item = Given>) -> Self {
        let mut fixed: BTreeMap<_, _> = given.into_iter().map(|given| (given.name.clone(), given)).collect();
        // Two names for one number; Kafka's KafkaConfig.populateSynonyms.
        for (name, other) in [("broker.id", "node.id"), ("node.id", "broker.id")] {
            if let (Some(given), None) = (fixed.get(name).cloned(), fixed.get(other)) {
                fixed.insert(other.into(), Given { name: other.into(), ..given });
            }
        }
        Self { fixed, ..Self::default() }
    }

    /// The same start, with other dynamic values. What may not change while a broker runs is left out, and so are
    /// stores of keys without a listener's prefix, as in Kafka's `DynamicBrokerConfig`.
    pub(crate) fn with_dynamic(
        &self,
        of_all_brokers: BTreeMap<String, String>,
        of_this_broker: BTreeMap<String, String>,
    ) -> Self {
        let keep = |mut values: BTreeMap<String, String>, legal: fn(Scope) -> bool, of_listeners: fn(&str) -> bool| {
            values.retain(|name, _| match of_listener(name) {
                Some((_, rest)) => of_listeners(rest),
                None => own_row(name).is_none_or(|row| legal(scope_of(row))) && !is_only_of_listeners(name),
            });
            values
        };
        Self {
            fixed: self.fixed.clone(),
            dynamic_default: keep(
                of_all_brokers,
                |scope| scope == Scope::ClusterWide,
                |rest| OF_LISTENERS_AND_ALL.contains(&rest),
            ),
            dynamic_broker: keep(of_this_broker, |scope| scope != Scope::ReadOnly, |_| true),
            jaas_file: self.jaas_file.clone(),
            java_options: Arc::clone(&self.java_options),
        }
    }

    /// The same with what a JVM would be started with.
    ///
    /// # Errors
    /// The JAAS file cannot be read, or is malformed.
    pub(crate) fn with_java_options(self, options: JavaOptions) -> Result<Self, ConfigError> {
        let file = JaasFile::of_options(&options)?;
        Ok(Self { jaas_file: file.map(Arc::new), java_options: Arc::new(options), ..self })
    }

    pub(crate) fn java_option(&self, name: &str) -> Option<&str> {
        self.java_options.get(name)
    }

    pub(crate) fn jaas_file(&self) -> Option<&JaasFile> {
        self.jaas_file.as_deref()
    }

    /// What the process was started with.
    pub(crate) fn fixed(&self) -> &BTreeMap<String, Given> {
        &self.fixed
    }

    /// Dynamic values of all brokers.
    pub(crate) fn dynamic_default(&self) -> &BTreeMap<String, String> {
        &self.dynamic_default
    }

    /// Dynamic values of this broker.
    pub(crate) fn dynamic_broker(&self) -> &BTreeMap<String, String> {
        &self.dynamic_broker
    }

    /// The winning value of a name and its source; `None` if only the default is left.
    pub(crate) fn given(&self, name: &str) -> Option<Given> {
        let dynamic = |values: &BTreeMap<String, String>, source: Source| {
            let value = values.get(name)?.clone();
            Some(Given { name: name.into(), value, source })
        };
        dynamic(&self.dynamic_broker, Source::DynamicBroker)
            .or_else(|| dynamic(&self.dynamic_default, Source::DynamicDefault))
            .or_else(|| self.fixed.get(name).cloned())
    }

    /// Reads every known value once, and refuses what must not be ignored.
    ///
    /// # Errors
    /// The first value, by name, that is malformed or refused.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(given) = self.fixed.get(PROVIDERS).filter(|given| !given.value.trim().is_empty()) {
            let (name, value, origin) = (PROVIDERS.into(), given.value.clone(), given.source.clone());
            // What they stand for would be taken literally, as a password perhaps.
            let reason = "configuration providers are not supported yet";
            return Err(ConfigError::Refused { name, value, origin, reason });
        }
        for name in self.names() {
            let (Some(row), Some(given)) = (row_of(name), self.given(name)) else { continue };
            if !given.source.is_dynamic() && broker::dynamic_row(name).is_some() {
                // No key of a file: as good as unknown there.
                continue;
            }
            let parsed =
                row.parse(&given.value).map_err(|why| ConfigError::Invalid { why, origin: given.source.clone() })?;
            let Effect::Refused(reason) = row.effect else { continue };
            let is_default = row.default.is_some_and(|default| row.parse(default).as_ref() == Ok(&parsed));
            if !is_default && !given.value.trim().is_empty() {
                let value = if row.is_sensitive() { "[hidden]".into() } else { given.value };
                return Err(ConfigError::Refused { name: name.into(), value, origin: given.source, reason });
            }
        }
        Ok(())
    }

    /// What is given for one listener, by the names behind its prefix that `wanted` takes.
    pub(crate) fn of_listener(&self, listener: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        let listener = listener.to_lowercase();
        let own = |full: &str| {
            let (name, rest) = of_listener(full)?;
            let given = self.given(full).filter(|_| name == listener && wanted(rest))?;
            Some((rest.to_owned(), given.value))
        };
        self.names().filter_map(own).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.fixed.keys().map(String::as_str).collect();
        names.extend(self.dynamic_default.keys().chain(self.dynamic_broker.keys()).map(String::as_str));
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    /// What was given at the start, by name.
    pub(crate) fn at_start(&self) -> Vec<&Given> {
        self.fixed.values().collect()
    }

    /// What was given while the broker runs, by name; a broker's own values hide those of all brokers.
    pub(crate) fn dynamic(&self) -> Vec<Given> {
        let names: BTreeSet<&String> = self.dynamic_default.keys().chain(self.dynamic_broker.keys()).collect();
        names.into_iter().filter_map(|name| self.given(name)).collect()
    }

    /// `name = value (source)` for each given value; what is or may be a secret is hidden.
    pub(crate) fn lines_of<'a>(given: impl IntoIterator<Item = &'a Given>) -> Vec<String> {
        let line = |given: &Given| {
            let value = if is_secret(&given.name) { "[hidden]" } else { given.value.trim() };
            format!("{} = {value} ({})", given.name, given.source)
        };
        given.into_iter().map(line).collect()
    }

    /// One line for each value that changes nothing: unknown names, settings without effect, and KRaft's together.
    pub(crate) fn warnings_of<'a>(given: impl IntoIterator<Item = &'a Given>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut kraft = Vec::new();
        for given in given {
            let name = &given.name;
            match row_of(name).map(|row| (row, row.effect)) {
                // The authorizer's, and said elsewhere where there is none.
                None if broker::OF_AUTHORIZER.contains(&name.as_str()) => {}
                None => lines.push(unknown(name)),
                Some((_, Effect::Kraft)) => kraft.push(name.as_str()),
                Some((row, Effect::Honoured))
                    if !given.source.is_dynamic() && broker::dynamic_row(row.name).is_some() =>
                {
                    lines.push(format!("The configuration '{name}' has no effect here ({}).", given.source));
                }
                Some((_, Effect::NoEffect)) => {
                    lines.push(format!("The configuration '{name}' has no effect ({}).", given.source));
                }
                Some((row, _)) if row.name != *name && !may_be_of_listener(row) => {
                    lines
                        .push(format!("The configuration '{name}' has no effect for one listener ({}).", given.source));
                }
                Some(_) => {}
            }
        }
        if !kraft.is_empty() {
            let names = kraft.join(", ");
            lines.push(format!("KRaft settings have no effect, the node coordinates itself: {names}."));
        }
        lines
    }
}

/// May change in Kafka while a broker runs, and not here.
const LISTENERS: [&str; 3] = ["listeners", "advertised.listeners", "listener.security.protocol.map"];

/// How a setting may change while this broker runs.
pub(crate) fn scope_of(row: &Setting) -> Scope {
    if LISTENERS.contains(&row.name) { Scope::ReadOnly } else { row.scope }
}

fn unknown(name: &str) -> String {
    let line = format!("The configuration '{name}' was supplied but isn't a known config.");
    let near = broker::rows().map(|row| (distance(name, row.name), row.name)).min();
    match near {
        // A fifth of the letters may differ, so that a short name does not remind of everything.
        Some((edits, near)) if edits <= 1 + name.len() / 5 && edits <= 4 => format!("{line} Did you mean '{near}'?"),
        _ => line,
    }
}

/// Least number of letters to insert, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: &str, source: Source) -> Given {
        Given { name: name.into(), value: value.into(), source }
    }

    fn warnings(settings: &Settings) -> Vec<String> {
        Settings::warnings_of(settings.at_start())
    }

    fn overridden(name: &str, value: &str) -> Settings {
        Settings::merge([given(name, value, Source::Override)])
    }

    #[test]
    fn the_later_source_wins_and_is_remembered() {
        let file = Source::File { path: "f".into(), line: Some(7) };
        let settings =
            Settings::merge([given("num.partitions", "1", file), given("num.partitions", "x", Source::Override)]);
        let error = settings.check().expect_err("not a number").to_string();
        assert_eq!(error, "Invalid value x for configuration num.partitions: Not a number of type INT (--override)");
    }

    #[test]
    fn a_dynamic_value_wins_if_it_may_change_at_all() {
        let values = |value: &str| {
            ["message.max.bytes", "num.partitions", "ssl.keystore.type", "listener.name.a.ssl.keystore.type"]
                .map(|name| (name.into(), value.into()))
                .into()
        };
        let settings = overridden("message.max.bytes", "1");
        let value = |settings: &Settings, name| settings.given(name).map(|given| given.value);
        let changed = settings.with_dynamic(values("2"), BTreeMap::new());
        assert_eq!(value(&changed, "message.max.bytes").as_deref(), Some("2"));
        assert_eq!(value(&changed, "num.partitions"), None);
        assert_eq!(value(&changed, "listener.name.a.ssl.keystore.type"), None);
        let changed = settings.with_dynamic(values("2"), values("3"));
        assert_eq!(value(&changed, "message.max.bytes").as_deref(), Some("3"));
        assert_eq!(value(&changed, "listener.name.a.ssl.keystore.type").as_deref(), Some("3"));
        assert_eq!(value(&changed, "ssl.keystore.type"), None, "without a listener's prefix");
    }

    /// CVE-2024-31141 among others.
    #[test]
    fn what_protects_is_refused_with_its_reason_and_without_its_secret() {
        let refused = |name, value| overridden(name, value).check().expect_err("refused").to_string();
        let error = refused("create.topic.policy.class.name", "P");
        assert!(error.contains("create.topic.policy.class.name") && error.contains("Java classes"), "{error}");
        assert!(!refused("sasl.kerberos.service.name", "hunter2").is_empty());
        refused("config.providers", "file");
        refused("listener.name.internal.ssl.engine.factory.class", "a.B");
        refused("listener.name.internal.plain.sasl.login.class", "x");
        for (name, harmless) in
            [("authorizer.class.name", ""), ("ssl.client.auth", "none"), ("zookeeper.set.acl", "FALSE")]
        {
            assert!(overridden(name, harmless).check().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_name_nobody_knows_gets_one_line_with_the_nearest_name() {
        let lines = warnings(&overridden("num.partition", "1"));
        assert_eq!(
            lines,
            ["The configuration 'num.partition' was supplied but isn't a known config. Did you mean 'num.partitions'?"]
        );
        assert!(!warnings(&overridden("jmx.port", "1"))[0].contains("mean"));
    }

    #[test]
    fn what_was_given_is_shown_with_its_source_but_no_secret() {
        let lines = |name| Settings::lines_of(overridden(name, "hunter2").at_start());
        assert_eq!(lines("broker.rack"), ["broker.rack = hunter2 (--override)"]);
        for secret in ["ssl.key.password", "listener.name.a.ssl.key.password", "nobody.knows"] {
            assert_eq!(lines(secret), [format!("{secret} = [hidden] (--override)")]);
        }
    }

    #[test]
    fn no_secret_is_in_the_form_for_debugging() {
        let names = ["ssl.key.password", "listener.name.a.plain.sasl.jaas.config", "nobody.knows"];
        let settings = Settings::merge(names.map(|name| given(name, "hunter2", Source::Override)));
        let settings = settings
            .with_dynamic(BTreeMap::new(), names[1..].iter().map(|n| ((*n).into(), "hunter3".into())).collect());
        let shown = format!("{settings:?}");
        assert!(names.iter().all(|name| shown.contains(name)) && !shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn a_setting_without_effect_says_so_once() {
        assert_eq!(warnings(&overridden("num.io.threads", "8")).len(), 1);
        assert!(warnings(&overridden("num.partitions", "8")).is_empty());
    }
}
