//! Reading checked values by name, as the types the broker uses.

#[cfg(test)]
use std::cell::RefCell;

use super::ConfigError;
use super::names::row_of;
use super::precedence::Settings;
use super::setting::Value;
use super::sources::{Given, Source};

/// Reads checked values by name, also behind a listener's prefix; a name that is no row, or of another type, is a
/// mistake of ours and caught by a test. A listener's view of the settings is in `listener_reader`.
pub(crate) struct Reader<'a> {
    pub(crate) settings: &'a Settings,
    #[cfg(test)]
    pub(crate) read: RefCell<std::collections::BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            #[cfg(test)]
            read: RefCell::default(),
        }
    }

    /// What was given, with its source; `None` if only the default is left.
    pub(crate) fn given(&self, name: &str) -> Option<Given> {
        self.settings.given(name)
    }

    fn value(&self, name: &str) -> Option<Value> {
        let row = row_of(name).expect("only rows are read");
        #[cfg(test)]
        self.read.borrow_mut().insert(row.name);
        let text = self.given(name).map(|given| given.value).or_else(|| row.default.map(str::to_owned))?;
        Some(row.parse(&text).expect("all values were checked before"))
    }

    /// A text; `None` is Kafka's null.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string())
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => Vec::new(),
        }
    }

    pub(crate) fn boolean(&self, name: &str) -> bool {
        self.value(name) == Some(Value::Boolean(true))
    }

    pub(crate) fn optional(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::Integer(number) => Some(number),
            other => unreachable!("{name} is a number in its row, not {other:?}"),
        }
    }

    pub(crate) fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Double(number)) => number,
            other => unreachable!("{name} is a fraction with a default in its row, not {other:?}"),
        }
    }

    pub(crate) fn long(&self, name: &str) -> i64 {
        self.optional(name).expect("its row has a default")
    }

    /// A number that counts where it was set while the broker runs, and nowhere else: Kafka has no such key in a file.
    pub(crate) fn dynamic_long(&self, name: &str) -> i64 {
        match self.given(name).filter(|given| !given.source.is_dynamic()) {
            None => self.long(name),
            Some(_) => {
                let default = row_of(name).and_then(|row| row.default).and_then(|default| default.parse().ok());
                default.expect("its row has a default")
            }
        }
    }

    pub(crate) fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("its row is an int")
    }

    pub(crate) fn short(&self, name: &str) -> i16 {
        i16::try_from(self.long(name)).expect("its row is a short")
    }

    /// `None` for a negative number, which stands for "no value of ours".
    pub(crate) fn count(&self, name: &str) -> Option<u32> {
        u32::try_from(self.long(name)).ok()
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        usize::try_from(self.long(name)).expect("its row allows no negative number")
    }

    /// An error that names key, value and source.
    pub(crate) fn invalid(&self, name: &str, why: &str) -> ConfigError {
        self.refusal(name, why, row_of(name).is_some_and(|row| !row.is_sensitive()))
    }

    /// An error that names key and source, for a value that may hold a secret.
    pub(crate) fn invalid_unshown(&self, name: &str, why: &str) -> ConfigError {
        self.refusal(name, why, false)
    }

    fn refusal(&self, name: &str, why: &str, is_shown: bool) -> ConfigError {
        let default = row_of(name).and_then(|row| row.default).unwrap_or_default();
        let (value, origin) = match self.given(name) {
            Some(given) => (given.value, given.source),
            None => (default.to_owned(), Source::Default),
        };
        let value = if is_shown { value.trim() } else { "[hidden]" };
        ConfigError::Invalid { why: format!("Invalid value {value} for configuration {name}: {why}"), origin }
    }
}
