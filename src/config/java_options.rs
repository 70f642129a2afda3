//! Properties that a JVM would be started with, `-Dname=value` in `KAFKA_OPTS`: the few that are read here.

use std::collections::BTreeMap;
use std::fmt;

/// By name; of two for one name the later, as in Java.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct JavaOptions(BTreeMap<String, String>);

/// A value may be a password.
impl fmt::Debug for JavaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl JavaOptions {
    /// Those of these variables of the environment.
    pub(crate) fn of_environment(environment: &[(String, String)]) -> Self {
        let options = environment.iter().filter(|(name, _)| name == "KAFKA_OPTS");
        let words = options.flat_map(|(_, value)| value.split_whitespace());
        let property = |word: &str| {
            let (name, value) = word.trim_matches(['"', '\'']).strip_prefix("-D")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self(words.filter_map(property).collect())
    }

    /// The value of this property.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_words_of_kafka_opts_and_the_last_of_a_name_counts() {
        let environment = [
            ("OTHER".to_owned(), "-Da=0".to_owned()),
            ("KAFKA_OPTS".to_owned(), r#"-Xmx1g -Da=1 "-Db=x=y" -Dc -Da=2"#.to_owned()),
        ];
        let options = JavaOptions::of_environment(&environment);
        assert_eq!((options.get("a"), options.get("b"), options.get("c")), (Some("2"), Some("x=y"), None));
        assert!(!format!("{options:?}").contains("x=y"));
    }
}
