//! Where settings come from: files, the environment and the command line, each value with the place it was read.
//!
//! What lives here: reading, and the translation of `KAFKA_*` names. What a value means is not decided here.
//! The syntax of `.properties` files is in `properties`, the order of sources in `precedence`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::names::is_secret;
use super::properties;

/// One value as it was found. It is not shown where it is, or may be, a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    pub name: String,
    pub value: String,
    pub source: Source,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if is_secret(&self.name) { "[hidden]" } else { &self.value };
        write!(f, "{}={value} ({})", self.name, self.source)
    }
}

/// The place a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Line numbers count from 1; a YAML file has none.
    File { path: PathBuf, line: Option<usize> },
    /// The variable's name.
    Environment(String),
    /// Nowhere: the default.
    Default,
    /// `--override` on the command line.
    Override,
    /// Set for all brokers while they run.
    DynamicDefault,
    /// Set for this broker while it runs.
    DynamicBroker,
}

impl Source {
    /// Whether it was set while the broker runs.
    pub(crate) fn is_dynamic(&self) -> bool {
        matches!(self, Self::DynamicDefault | Self::DynamicBroker)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, line: Some(line) } => write!(f, "{}, line {line}", path.display()),
            Source::File { path, line: None } => path.display().fmt(f),
            Source::Environment(variable) => write!(f, "environment variable {variable}"),
            Source::Default => f.write_str("default"),
            Source::Override => f.write_str("--override"),
            Source::DynamicDefault => f.write_str("dynamic configuration of all brokers"),
            Source::DynamicBroker => f.write_str("dynamic configuration of this broker"),
        }
    }
}

/// The values of a file: YAML if its name ends in `.yaml` or `.yml`, else Java's `.properties` syntax.
///
/// # Errors
/// The file cannot be read, or is not of that syntax.
pub(crate) fn file(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // What is not UTF-8 is what Java takes every properties file for: ISO 8859-1.
        Err(error) => error.into_bytes().into_iter().map(char::from).collect(),
    };
    let syntax = |why: String| ConfigError::Syntax { path: path.into(), why };
    let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    let given = |line| move |(name, value)| Given { name, value, source: Source::File { path: path.into(), line } };
    if is_yaml {
        return Ok(yaml(&text).map_err(syntax)?.into_iter().map(given(None)).collect());
    }
    let entries = properties::parse(&text).map_err(syntax)?;
    Ok(entries.into_iter().map(|entry| given(Some(entry.line))((entry.name, entry.value))).collect())
}

/// Kafka's names as YAML, flat (`log.dirs: /data`) or nested (`log: {dirs: /data}`). A sequence is a list, null is
/// unset.
fn yaml(text: &str) -> Result<Vec<(String, String)>, String> {
    use serde_yaml::Value;

    fn scalar(name: &str, value: &Value) -> Result<String, String> {
        match value {
            Value::Bool(value) => Ok(value.to_string()),
            Value::Number(value) => Ok(value.to_string()),
            Value::String(value) => Ok(value.clone()),
            _ => Err(format!("{name}: a plain value is expected")),
        }
    }
    fn walk(name: String, value: &Value, found: &mut Vec<(String, String)>) -> Result<(), String> {
        match value {
            Value::Null => {}
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    let key = scalar(&name, key)?;
                    walk(if name.is_empty() { key } else { format!("{name}.{key}") }, value, found)?;
                }
            }
            Value::Sequence(list) => {
                let list: Result<Vec<_>, _> = list.iter().map(|element| scalar(&name, element)).collect();
                found.push((name, list?.join(",")));
            }
            _ if name.is_empty() => return Err("a mapping of names to values is expected".into()),
            value => {
                let value = scalar(&name, value)?;
                found.push((name, value));
            }
        }
        Ok(())
    }

    let mut found = Vec::new();
    walk(String::new(), &serde_yaml::from_str(text).map_err(|error| error.to_string())?, &mut found)?;
    Ok(found)
}

/// The values of `--override key=value` arguments.
///
/// # Errors
/// One has no `=`.
pub(crate) fn overrides(arguments: &[String]) -> Result<Vec<Given>, ConfigError> {
    let given = |argument: &String| {
        let (name, value) = argument.split_once('=').ok_or_else(|| ConfigError::Override(argument.clone()))?;
        Ok(Given { name: name.trim().into(), value: value.trim().into(), source: Source::Override })
    };
    arguments.iter().map(given).collect()
}

/// The values of `KAFKA_*` (Apache's and Confluent's images) and `KAFKA_CFG_*` (Bitnami's) variables.
///
/// Variables that the images keep for their scripts and the JVM are left out. In an order of their own, so that of two
/// variables for one setting the same one always wins: Bitnami's, as in its image.
pub(crate) fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Given> {
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort_by_key(|(name, _)| (name.starts_with("KAFKA_CFG_"), name.clone()));
    let given = |(variable, value): (String, String)| {
        let name = setting_of_variable(&variable)?;
        Some(Given { name, value, source: Source::Environment(variable) })
    };
    variables.into_iter().filter_map(given).collect()
}

/// The setting a variable stands for: `_` becomes `.`, `__` becomes `_`, `___` becomes `-`. Bitnami's `KAFKA_CFG_`
/// names know only the first of these. Source: `KafkaDockerWrapper` of Apache's image; `kafka-env.sh` of Bitnami's.
fn setting_of_variable(variable: &str) -> Option<String> {
    if variable == "KAFKA_ZOOKEEPER_CLIENT_CNXN_SOCKET" || variable == "KAFKA_CFG_ZOOKEEPER_CLIENTCNXNSOCKET" {
        return Some("zookeeper.clientCnxnSocket".into());
    }
    if let Some(name) = variable.strip_prefix("KAFKA_CFG_") {
        let name = name.to_ascii_lowercase().replace('_', ".");
        return Some(name.replace("sasl.ssl", "sasl_ssl").replace("sasl.plaintext", "sasl_plaintext"));
    }
    let name = variable.strip_prefix("KAFKA_")?;
    if NOT_SETTINGS.contains(&name) || NOT_SETTINGS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let name = name.replace("KAFKA_", "").to_ascii_lowercase();
    Some(name.replace('_', ".").replace("...", "-").replace("..", "_"))
}

/// Variables, without `KAFKA_`, that are for the images' scripts, the JVM or our own log.
const NOT_SETTINGS: &[&str] = &[
    "CLIENT_LISTENER_NAME",
    "CREATE_TOPICS",
    "CREATE_TOPICS_SEPARATOR",
    "DEBUG",
    "ENABLE_KRAFT",
    "GC_LOG_OPTS",
    "HEAP_OPTS",
    "HOME",
    "JMX_HOSTNAME",
    "JMX_OPTS",
    "JVM_PERFORMANCE_OPTS",
    "KRAFT_CLUSTER_ID",
    "LOG4J_LOGGERS",
    "LOG4J_OPTS",
    "LOG4J_ROOT_LOGLEVEL",
    "MOUNTED_CONF_DIR",
    "OPTS",
    "PATH",
    "SKIP_KRAFT_STORAGE_INIT",
    "TOOLS_LOG4J_LOGLEVEL",
    "VERSION",
];

/// Families of such variables.
const NOT_SETTINGS_PREFIXES: &[&str] = &["REST_"];

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(variable: &str) -> Option<String> {
        setting_of_variable(variable)
    }

    #[test]
    fn variables_become_settings_as_in_the_images() {
        assert_eq!(name_of("KAFKA_LOG_DIRS").as_deref(), Some("log.dirs"));
        assert_eq!(
            name_of("KAFKA_LISTENER_NAME_A__B_SSL_KEYSTORE_TYPE").as_deref(),
            Some("listener.name.a_b.ssl.keystore.type")
        );
        assert_eq!(name_of("KAFKA_A___B").as_deref(), Some("a-b"));
        assert_eq!(name_of("KAFKA_CFG_NODE_ID").as_deref(), Some("node.id"));
        let jaas = name_of("KAFKA_CFG_LISTENER_NAME_SASL_SSL_PLAIN_SASL_JAAS_CONFIG");
        assert_eq!(jaas.as_deref(), Some("listener.name.sasl_ssl.plain.sasl.jaas.config"));
        assert_eq!(name_of("KAFKA_JMX_PORT").as_deref(), Some("jmx.port"));
        assert_eq!(name_of("KAFKA_HEAP_OPTS"), None);
        assert_eq!(name_of("PATH"), None);
    }

    #[test]
    fn of_two_variables_for_one_setting_bitnamis_is_last() {
        let variables = ["KAFKA_NODE_ID", "KAFKA_CFG_NODE_ID", "KAFKA_CFG_A", "KAFKA_A"];
        let given = environment(variables.map(|name| (name.to_owned(), name.to_owned())));
        let values: Vec<_> = given.iter().map(|given| given.value.as_str()).collect();
        assert_eq!(values, ["KAFKA_A", "KAFKA_NODE_ID", "KAFKA_CFG_A", "KAFKA_CFG_NODE_ID"]);
    }

    #[test]
    fn yaml_may_be_flat_or_nested() {
        let text = "broker.id: 3\nlog:\n  dirs: [/a, /b]\n  cleaner.enable: false\nbroker.rack: ~\n";
        let expected = [("broker.id", "3"), ("log.dirs", "/a,/b"), ("log.cleaner.enable", "false")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(yaml(text), Ok(expected));
        assert_eq!(yaml(""), Ok(vec![]));
        assert!(yaml("just text").is_err());
    }

    #[test]
    fn an_override_needs_an_equals_sign() {
        let given = overrides(&["a=b=c".into()]).expect("legal");
        assert_eq!((given[0].name.as_str(), given[0].value.as_str()), ("a", "b=c"));
        assert!(overrides(&["a".into()]).is_err());
    }
}
