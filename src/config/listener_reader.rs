//! The settings as one listener has them, or one of its SASL mechanisms.
//!
//! `listener.name.<listener in small letters>.<key>` comes before `<key>`, wherever each was given, and
//! `listener.name.<listener>.<mechanism in small letters>.<key>` before both. Source: Kafka 3.9
//! `AbstractConfig.valuesWithPrefixOverride`, `ListenerName.configPrefix`, `saslMechanismConfigPrefix`.

use super::ConfigError;
use super::names::PREFIX;
use super::reader::Reader;
use super::secret::Secret;
use super::sources::Given;

/// Reads as [`Reader`] does, for one listener.
pub(crate) struct ListenerReader<'r, 'a> {
    reader: &'r Reader<'a>,
    /// The narrowest first, each with the full stop at its end.
    prefixes: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The settings as the listener of this name has them, whatever its letters' case.
    pub(crate) fn of_listener<'r>(&'r self, listener: &str) -> ListenerReader<'r, 'a> {
        ListenerReader { reader: self, prefixes: vec![format!("{PREFIX}{}.", listener.to_lowercase())] }
    }
}

impl<'r, 'a> ListenerReader<'r, 'a> {
    /// The same for one mechanism of the listener.
    pub(crate) fn of_mechanism(&self, mechanism: &str) -> ListenerReader<'r, 'a> {
        let listener = self.prefixes.last().expect("a listener's prefix is always there");
        let own = format!("{listener}{}.", mechanism.to_lowercase());
        ListenerReader { reader: self.reader, prefixes: vec![own, listener.clone()] }
    }

    /// The full name whose value holds: the narrowest that was given, else the general one.
    pub(crate) fn in_force(&self, name: &str) -> String {
        let mut own = self.prefixes.iter().map(|prefix| format!("{prefix}{name}"));
        own.find(|full| self.reader.given(full).is_some()).unwrap_or_else(|| name.to_owned())
    }

    /// What was given for exactly this listener, or exactly this mechanism of it.
    pub(crate) fn own(&self, name: &str) -> Option<Given> {
        self.reader.given(&format!("{}{name}", self.prefixes[0]))
    }

    /// What was given, with its source; `None` if only the default is left.
    #[cfg(test)]
    pub(crate) fn given(&self, name: &str) -> Option<Given> {
        self.reader.given(&self.in_force(name))
    }

    /// A text; `None` is Kafka's null.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.reader.text(&self.in_force(name))
    }

    /// A text that is never shown.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.reader.list(&self.in_force(name))
    }

    pub(crate) fn boolean(&self, name: &str) -> bool {
        self.reader.boolean(&self.in_force(name))
    }

    pub(crate) fn long(&self, name: &str) -> i64 {
        self.reader.long(&self.in_force(name))
    }

    pub(crate) fn int(&self, name: &str) -> i32 {
        self.reader.int(&self.in_force(name))
    }

    /// A number, or Kafka's null.
    pub(crate) fn optional(&self, name: &str) -> Option<i64> {
        self.reader.optional(&self.in_force(name))
    }

    pub(crate) fn short(&self, name: &str) -> i16 {
        self.reader.short(&self.in_force(name))
    }

    pub(crate) fn double(&self, name: &str) -> f64 {
        self.reader.double(&self.in_force(name))
    }

    /// A property that a JVM would be started with.
    pub(crate) fn java_option(&self, name: &str) -> Option<&str> {
        self.reader.settings.java_option(name)
    }

    /// An error that names the key in force, its value unless it is secret, and its source.
    pub(crate) fn invalid(&self, name: &str, why: &str) -> ConfigError {
        self.reader.invalid(&self.in_force(name), why)
    }

    /// The same without the value.
    pub(crate) fn invalid_unshown(&self, name: &str, why: &str) -> ConfigError {
        self.reader.invalid_unshown(&self.in_force(name), why)
    }
}

#[cfg(test)]
mod tests {
    use super::super::precedence::Settings;
    use super::super::sources::Source;
    use super::*;

    fn settings(given: &[(&str, &str)]) -> Settings {
        Settings::merge(given.iter().map(|(name, value)| Given {
            name: (*name).into(),
            value: (*value).into(),
            source: Source::Override,
        }))
    }

    #[test]
    fn the_narrowest_value_holds() {
        let settings = settings(&[
            ("ssl.client.auth", "required"),
            ("listener.name.a.ssl.client.auth", "requested"),
            ("sasl.jaas.config", "of all"),
            ("listener.name.a.plain.sasl.jaas.config", "of plain"),
            ("listener.name.b.sasl.jaas.config", "of b"),
        ]);
        let reader = Reader::new(&settings);
        let [a, b, c] = ["A", "B", "C"].map(|name| reader.of_listener(name));
        let of = |listener: &ListenerReader<'_, '_>, name| listener.text(name).expect("given");
        assert_eq!([&a, &b, &c].map(|l| of(l, "ssl.client.auth")), ["requested", "required", "required"]);
        let jaas = |listener: &ListenerReader<'_, '_>| of(listener, "sasl.jaas.config");
        assert_eq!([&a, &b, &c].map(jaas), ["of all", "of b", "of all"]);
        let plain = |listener: &ListenerReader<'_, '_>| jaas(&listener.of_mechanism("PLAIN"));
        assert_eq!([&a, &b, &c].map(plain), ["of plain", "of b", "of all"]);
        assert_eq!(a.of_mechanism("SCRAM-SHA-256").text("sasl.jaas.config").as_deref(), Some("of all"));
        assert!(b.of_mechanism("PLAIN").own("sasl.jaas.config").is_none(), "as JAAS is looked up");
        assert_eq!(a.in_force("ssl.client.auth"), "listener.name.a.ssl.client.auth");
        assert_eq!(c.given("ssl.client.auth").expect("given").name, "ssl.client.auth");
        assert_eq!(c.text("ssl.protocol").as_deref(), Some("TLSv1.3"), "the default");
    }

    #[test]
    fn an_error_names_the_key_in_force_and_no_secret() {
        let settings = settings(&[
            ("listener.name.a.ssl.key.password", "hunter2"),
            ("listener.name.a.ssl.truststore.location", "/t"),
        ]);
        let reader = Reader::new(&settings);
        let a = reader.of_listener("A");
        let error = a.invalid("ssl.key.password", "it is wrong").to_string();
        assert!(
            error.contains("listener.name.a.ssl.key.password: it is wrong") && !error.contains("hunter2"),
            "{error}"
        );
        let error = a.invalid("ssl.truststore.location", "gone").to_string();
        assert!(error.contains("value /t for configuration listener.name.a.ssl.truststore.location: gone"), "{error}");
        assert_eq!(format!("{:?}", a.secret("ssl.key.password")), "Some([hidden])");
    }
}
