//! Who decides what clients may do.
//!
//! `authorizer.class.name` is a row of the table; what belongs to the class is not, as in Kafka, whose authorizer reads
//! it from whatever was given: `super.users`, principals separated by semicolons, since a certificate's name has
//! commas, and `allow.everyone.if.no.acl.found`. Neither changes while the broker runs. Source: Kafka 3.9
//! `AclAuthorizer.configure`.

use super::ConfigError;
use super::broker::{ALLOW_EVERYONE, SUPER_USERS};
use super::reader::Reader;
use super::sources::Given;

/// The class that there is.
pub(crate) const ACL_AUTHORIZER: &str = "kafka.security.authorizer.AclAuthorizer";

/// What the class reads of another ZooKeeper, and of how it gets there.
const OTHER_ZOOKEEPER: &str = "authorizer.zookeeper.";

/// An authorizer's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizerConfig {
    /// `User:alice` each; checked.
    pub super_users: Vec<String>,
    pub allow_everyone_if_no_acl_found: bool,
}

pub(super) fn resolve(reader: &Reader<'_>) -> Result<Option<AuthorizerConfig>, ConfigError> {
    const NAME: &str = "authorizer.class.name";
    let class = reader.text(NAME).unwrap_or_default();
    if class.is_empty() {
        return Ok(None);
    }
    let refused = |given: Given, reason| ConfigError::Refused {
        name: given.name,
        value: given.value,
        origin: given.source,
        reason,
    };
    if class != ACL_AUTHORIZER {
        let given = reader.given(NAME).expect("its default is empty");
        return Err(refused(
            given,
            "Java classes cannot be loaded; kafka.security.authorizer.AclAuthorizer is built in",
        ));
    }
    if let Some(given) = reader.settings.at_start().into_iter().find(|given| given.name.starts_with(OTHER_ZOOKEEPER)) {
        return Err(refused(given.clone(), "ACLs are kept where everything else of the cluster is"));
    }
    Ok(Some(AuthorizerConfig {
        super_users: super_users(reader.settings.fixed().get(SUPER_USERS))?,
        allow_everyone_if_no_acl_found: allow_everyone(reader.settings.fixed().get(ALLOW_EVERYONE))?,
    }))
}

fn super_users(given: Option<&Given>) -> Result<Vec<String>, ConfigError> {
    let Some(given) = given.filter(|given| !given.value.trim().is_empty()) else { return Ok(Vec::new()) };
    // Java leaves out what is empty at the end.
    let users = given.value.trim().trim_end_matches(';').split(';').map(str::trim);
    let user = |user: &str| match user.split_once(':') {
        Some(_) => Ok(user.to_owned()),
        None => {
            let why = format!("expected a string in format principalType:principalName but got {user}");
            Err(invalid(given, &why))
        }
    };
    users.map(user).collect()
}

/// As Scala's `toBoolean` reads it, which takes nothing else.
fn allow_everyone(given: Option<&Given>) -> Result<bool, ConfigError> {
    let Some(given) = given else { return Ok(false) };
    match given.value.trim() {
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") || text.is_empty() => Ok(false),
        _ => Err(invalid(given, "Expected value to be either true or false")),
    }
}

fn invalid(given: &Given, why: &str) -> ConfigError {
    let (name, value) = (&given.name, given.value.trim());
    let why = format!("Invalid value {value} for configuration {name}: {why}");
    ConfigError::Invalid { why, origin: given.source.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::precedence::Settings;
    use super::super::sources::Source;
    use super::*;

    fn resolved(given: &[(&str, &str)]) -> Result<Option<AuthorizerConfig>, String> {
        let given = given.iter().map(|(name, value)| Given {
            name: (*name).into(),
            value: (*value).into(),
            source: Source::Override,
        });
        let settings = Settings::merge(given);
        resolve(&Reader::new(&settings)).map_err(|error| error.to_string())
    }

    const CLASS: (&str, &str) = ("authorizer.class.name", ACL_AUTHORIZER);

    #[test]
    fn without_a_class_nobody_is_asked() {
        assert_eq!(resolved(&[(SUPER_USERS, "User:a")]), Ok(None));
    }

    #[test]
    fn super_users_are_separated_by_semicolons() {
        let users = |text| resolved(&[CLASS, (SUPER_USERS, text)]).map(|config| config.expect("a class").super_users);
        assert_eq!(users(" User:CN=a,O=b ; User:c;"), Ok(vec!["User:CN=a,O=b".into(), "User:c".into()]));
        assert_eq!(users(""), Ok(vec![]));
        assert!(users("User:a,b;alice").is_err_and(|why| why.contains("but got alice")));
    }

    #[test]
    fn what_would_open_or_close_too_much_ends_the_start() {
        let of = |name, value| resolved(&[CLASS, (name, value)]);
        let allows =
            |value| of(ALLOW_EVERYONE, value).map(|config| config.expect("a class").allow_everyone_if_no_acl_found);
        assert_eq!([allows("TRUE"), allows("false"), allows("")], [Ok(true), Ok(false), Ok(false)]);
        assert!(allows("yes").is_err());
        assert!(of("authorizer.zookeeper.url", "other:2181").is_err_and(|why| why.contains("is refused")));
        let class = resolved(&[("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")]);
        assert!(class.is_err_and(|why| why.contains("Java classes cannot be loaded")));
    }
}
