//! What a row of the settings table is, and how a value is read and checked against it.
//!
//! A row says everything that is known of one setting: name, type, default, legal values, how it may change while the
//! broker runs, what we do with it, and one sentence. The texts of errors are Kafka's, since tools and tests show them.
//! Source: Kafka 3.9 `ConfigDef`.

use std::fmt;

use super::numbers;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// The default as text; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// Which values are legal beyond the type.
    pub check: Check,
    /// How it may change while the broker runs.
    pub scope: Scope,
    /// Kafka does not show it in DescribeConfigs.
    pub internal: bool,
    /// What we do with it.
    pub effect: Effect,
    /// One sentence for people.
    pub documentation: &'static str,
}

/// Type of a setting's value. Source: Kafka `ConfigDef.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Text,
    Int,
    Short,
    Long,
    Double,
    /// Texts separated by commas.
    List,
    /// Name of a Java class.
    Class,
    /// A text that is never shown.
    Password,
}

/// Legal values beyond the type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Check {
    Any,
    AtLeast(i64),
    /// Both ends are legal.
    Between(i64, i64),
    /// Both ends are legal.
    BetweenDoubles(f64, f64),
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    /// Of a list: each element.
    EachOf(&'static [&'static str]),
    /// Names of Kafka's own classes, or nothing.
    ClassOf(&'static [&'static str]),
    NotEmpty,
    /// −1 or 1 to 9.
    GzipLevel,
    /// −1 or more than 0.
    ThreadPoolSize,
    /// A Kafka release, such as `3.9` or `3.9-IV0`.
    MetadataVersion,
    /// `*`, or `partition:broker` separated by commas.
    ThrottledReplicas,
}

/// How a setting may change while the broker runs. Source: Kafka `DynamicBrokerConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    ReadOnly,
    /// By AlterConfigs for one broker.
    PerBroker,
    /// By AlterConfigs for one broker or for all.
    ClusterWide,
    /// A topic's own setting.
    PerTopic,
}

/// What we do with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Honoured,
    /// Accepted; a start that sets it says in one line that it does nothing (yet).
    NoEffect,
    /// KRaft's own; all of them together get one line.
    Kraft,
    /// A value other than the default ends the start, for this reason: ignoring it would make something less safe.
    Refused(&'static str),
}

pub(crate) use Check::*;
pub(crate) use Effect::*;
pub(crate) use Kind::*;
pub(crate) use Scope::*;

/// Writes rows as `"name" Type default [check] Scope => Effect, "sentence";`.
macro_rules! settings {
    (@default null) => { None };
    (@default $default:expr) => { Some($default) };
    (@internal) => { false };
    (@internal internal) => { true };
    ($($name:literal $kind:ident $default:tt [$check:expr] $scope:ident $($internal:ident)?
        => $effect:expr, $documentation:literal;)*) => {
        &[$(Setting {
            name: $name,
            kind: $kind,
            default: settings!(@default $default),
            check: $check,
            scope: $scope,
            internal: settings!(@internal $($internal)?),
            effect: $effect,
            documentation: $documentation,
        }),*]
    };
}
pub(crate) use settings;

/// A value that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Boolean(bool),
    Text(String),
    Integer(i64),
    Double(f64),
    List(Vec<String>),
}

impl Setting {
    /// The value is never shown.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Reads a text as this setting's value.
    ///
    /// # Errors
    /// What is wrong, in Kafka's words and without the value where it is secret.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = self.kind.parse(text).map_err(|why| self.invalid(text.trim(), &why))?;
        self.check.check(self.name, &value).map_err(|NotAllowed(shown, why)| self.invalid(&shown, &why))?;
        Ok(value)
    }

    fn invalid(&self, value: &str, why: &str) -> String {
        let value = if self.is_sensitive() { "[hidden]" } else { value };
        format!("Invalid value {value} for configuration {}: {why}", self.name)
    }
}

/// The value as Kafka shows it, and why it is refused.
struct NotAllowed(String, String);

impl Kind {
    fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let integer = |least: i64, most: i64, java: &str| match text.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(format!("Not a number of type {java}")),
        };
        match self {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            Kind::Boolean => Err("Expected value to be either true or false".into()),
            Kind::Int => integer(i32::MIN.into(), i32::MAX.into(), "INT"),
            Kind::Short => integer(i16::MIN.into(), i16::MAX.into(), "SHORT"),
            Kind::Long => integer(i64::MIN, i64::MAX, "LONG"),
            Kind::Double => {
                numbers::read_double(text).map(Value::Double).ok_or_else(|| "Not a number of type DOUBLE".into())
            }
            Kind::List if text.is_empty() => Ok(Value::List(Vec::new())),
            Kind::List => Ok(Value::List(text.split(',').map(|element| element.trim().into()).collect())),
            Kind::Text | Kind::Class | Kind::Password => Ok(Value::Text(text.into())),
        }
    }

    /// Number of the type in DescribeConfigs. Source: Kafka `DescribeConfigsResponse.ConfigType`.
    pub fn wire_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }
}

impl Check {
    fn check(self, name: &str, value: &Value) -> Result<(), NotAllowed> {
        let refuse = |why: String| Err(NotAllowed(value.to_string(), why));
        match (self, value) {
            (Check::AtLeast(least), Value::Integer(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Check::Between(least, _), Value::Integer(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Check::Between(_, most), Value::Integer(n)) if *n > most => {
                refuse(format!("Value must be no more than {most}"))
            }
            (Check::BetweenDoubles(least, _), Value::Double(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Check::BetweenDoubles(_, most), Value::Double(n)) if *n > most => {
                refuse(format!("Value must be no more than {most}"))
            }
            (Check::OneOf(legal), Value::Text(text)) if !legal.contains(&text.as_str()) => {
                refuse(format!("String must be one of: {}", legal.join(", ")))
            }
            (Check::OneOfAnyCase(legal), Value::Text(text)) if !legal.iter().any(|l| l.eq_ignore_ascii_case(text)) => {
                refuse(format!("String must be one of (case insensitive): {}", legal.join(", ")))
            }
            (Check::EachOf(legal), Value::List(list)) => {
                match list.iter().find(|element| !legal.contains(&element.as_str())) {
                    Some(element) => {
                        Err(NotAllowed(element.clone(), format!("String must be one of: {}", legal.join(", "))))
                    }
                    None => Ok(()),
                }
            }
            (Check::ClassOf(known), Value::Text(class)) if !class.is_empty() && !known.contains(&class.as_str()) => {
                refuse(format!("Java classes cannot be loaded; known by name are {}", known.join(", ")))
            }
            (Check::NotEmpty, Value::Text(text)) if text.is_empty() => refuse("String must be non-empty".into()),
            (Check::GzipLevel, Value::Integer(level)) if *level != -1 && !(1..=9).contains(level) => {
                refuse("Value must be between 1 and 9 or equal to -1".into())
            }
            (Check::ThreadPoolSize, Value::Integer(size)) if *size != -1 && *size < 1 => {
                refuse("Value can be -1 or greater than 0".into())
            }
            (Check::MetadataVersion, Value::Text(text)) if !is_kafka_version(text) => {
                refuse(format!("Version {text} is not a valid version"))
            }
            (Check::ThrottledReplicas, Value::List(list)) if !are_throttled_replicas(list) => {
                let shown = format!("[{}]", list.join(", "));
                let form = "[partitionId]:[brokerId],[partitionId]:[brokerId],...";
                let why =
                    format!("{name} must be the literal '*' or a list of replicas in the following format: {form}");
                Err(NotAllowed(shown, why))
            }
            _ => Ok(()),
        }
    }
}

/// `0.x.y`, or a release from 1.0 to 3.9, optionally with `-IVn` or a patch level. Source: Kafka `MetadataVersion`.
fn is_kafka_version(text: &str) -> bool {
    const RELEASES: [&str; 29] = [
        "0.8.0", "0.8.1", "0.8.2", "0.9.0", "0.10.0", "0.10.1", "0.10.2", "0.11.0", "1.0", "1.1", "2.0", "2.1", "2.2",
        "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9",
    ];
    let parts = if text.starts_with("0.") { 3 } else { 2 };
    let key = text.split('.').take(parts).collect::<Vec<_>>().join(".");
    let (release, step) = key.split_once("-IV").map_or((key.as_str(), None), |(release, step)| (release, Some(step)));
    RELEASES.contains(&release) && step.is_none_or(|step| step.parse::<u8>().is_ok())
}

fn are_throttled_replicas(list: &[String]) -> bool {
    let pair = |text: &String| {
        text.split_once(':').is_some_and(|(partition, broker)| {
            [partition, broker].iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    list.iter().all(pair) || matches!(list, [star] if star == "*")
}

/// As DescribeConfigs shows it. Source: Kafka `ConfigDef.convertToString`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Integer(number) => number.fmt(f),
            Value::Double(number) => f.write_str(&numbers::java_double(*number)),
            Value::List(list) => f.write_str(&list.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, check: Check) -> Setting {
        Setting {
            name: "a.key",
            kind,
            default: None,
            check,
            scope: ReadOnly,
            internal: false,
            effect: Honoured,
            documentation: "",
        }
    }

    #[test]
    fn a_refused_value_is_named_in_kafkas_words() {
        let refused = |kind, check, text: &str| row(kind, check).parse(text).expect_err("a refusal");
        assert_eq!(refused(Int, Any, " x "), "Invalid value x for configuration a.key: Not a number of type INT");
        assert_eq!(
            refused(Int, Any, "99999999999"),
            "Invalid value 99999999999 for configuration a.key: Not a number of type INT"
        );
        assert_eq!(
            refused(Long, AtLeast(-1), "-2"),
            "Invalid value -2 for configuration a.key: Value must be at least -1"
        );
        assert_eq!(
            refused(Boolean, Any, "yes"),
            "Invalid value yes for configuration a.key: Expected value to be either true or false"
        );
        assert_eq!(
            refused(List, EachOf(&["compact", "delete"]), "compact,"),
            "Invalid value  for configuration a.key: String must be one of: compact, delete"
        );
        assert_eq!(
            refused(Double, BetweenDoubles(0.0, 1.0), "2"),
            "Invalid value 2.0 for configuration a.key: Value must be no more than 1"
        );
        assert_eq!(
            refused(List, ThrottledReplicas, "1"),
            "Invalid value [1] for configuration a.key: a.key must be the literal '*' or a list of replicas in the \
             following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        );
    }

    #[test]
    fn a_secret_is_not_repeated_in_an_error() {
        let secret = Setting { check: OneOf(&["x"]), ..row(Password, Any) };
        assert!(!secret.parse("hunter2").expect_err("a refusal").contains("hunter2"));
    }

    #[test]
    fn what_java_reads_is_read() {
        assert_eq!(row(Int, Any).parse(" +5 "), Ok(Value::Integer(5)));
        assert_eq!(row(Double, Any).parse("0.5d"), Ok(Value::Double(0.5)));
        assert!(row(Double, BetweenDoubles(0.0, 1.0)).parse("nan").is_err(), "Java does not start over it");
        assert_eq!(row(Boolean, Any).parse("TRUE"), Ok(Value::Boolean(true)));
        assert_eq!(row(List, Any).parse(" a , b"), Ok(Value::List(vec!["a".into(), "b".into()])));
        assert_eq!(row(List, Any).parse(""), Ok(Value::List(vec![])));
        for version in ["3.9", "3.9-IV0", "2.8.1", "0.10.0-IV1", "0.9.0"] {
            assert!(row(Text, MetadataVersion).parse(version).is_ok(), "{version}");
        }
        assert!(row(Text, MetadataVersion).parse("9").is_err());
    }
}
