//! JAAS text read as data: which login module, and its options. No class is loaded.
//!
//! Two forms: the value of `sasl.jaas.config` is one entry, `module flag key=value … ;`. A file, which
//! `-Djava.security.auth.login.config` in `KAFKA_OPTS` names, has sections of entries, `KafkaServer { entry … };`.
//! Words are letters, digits, `.`, `-`, `_` and `$`, and begin with no digit; anything else stands in quotes, with
//! Java's escapes. `//`, `/* */` and a lone `/` begin comments. Source: Kafka 3.9 `JaasConfig`, Java's
//! `StreamTokenizer`; the texts of errors are Kafka's, and hold no value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::java_options::JavaOptions;
use super::{ConfigError, Secret};

/// Longest text that is read, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A login module with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JaasEntry {
    /// Full name of the class.
    pub(crate) module: String,
    options: BTreeMap<String, Secret>,
}

impl JaasEntry {
    /// The value of an option.
    pub(crate) fn option(&self, key: &str) -> Option<&Secret> {
        self.options.get(key)
    }

    /// The options whose names begin so, by the rest of their names.
    pub(crate) fn options_after<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Secret)> {
        self.options.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value)))
    }
}

/// The value of this option in the first of these entries that has it.
pub(crate) fn option<'a>(entries: &'a [JaasEntry], key: &str) -> Option<&'a Secret> {
    entries.iter().find_map(|entry| entry.option(key))
}

/// The one entry of a setting.
///
/// # Errors
/// The text is malformed, or has none or several; the reason names keys and no values.
pub(crate) fn of_setting(text: &str) -> Result<JaasEntry, String> {
    let mut tokens = Tokens::of(text)?;
    let mut entries = Vec::new();
    while let Some(first) = tokens.next()? {
        entries.push(entry(first, &mut tokens)?);
    }
    match entries.len() {
        0 => Err("Login module not specified in JAAS config".into()),
        1 => Ok(entries.remove(0)),
        count => Err(format!("JAAS config property contains {count} login modules, should be 1 module")),
    }
}

/// The sections of a JAAS file, and where they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JaasFile {
    path: PathBuf,
    sections: BTreeMap<String, Vec<JaasEntry>>,
    /// `-Dzookeeper.sasl.clientconfig`: the section for ZooKeeper.
    zookeeper_section: String,
    /// `-Dzookeeper.sasl.client`: whether it is used.
    zookeeper_sasl: bool,
}

impl JaasFile {
    /// The one that `KAFKA_OPTS=-Djava.security.auth.login.config=…` names, if it does.
    ///
    /// # Errors
    /// The file cannot be read, or is malformed.
    pub(crate) fn of_options(options: &JavaOptions) -> Result<Option<Self>, ConfigError> {
        let property = |name: &str| options.get(name);
        let Some(path) = property("java.security.auth.login.config") else { return Ok(None) };
        // Java takes a second `=` for "this file alone", and a URL as well.
        let path = path.trim_start_matches('=');
        let path = Path::new(path.strip_prefix("file://").or(path.strip_prefix("file:")).unwrap_or(path));
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
        let syntax = |why| ConfigError::Syntax { path: path.into(), why };
        Ok(Some(Self {
            path: path.into(),
            sections: of_file(&text).map_err(syntax)?,
            zookeeper_section: property("zookeeper.sasl.clientconfig").unwrap_or("Client").to_owned(),
            zookeeper_sasl: property("zookeeper.sasl.client").is_none_or(|value| value.eq_ignore_ascii_case("true")),
        }))
    }

    /// The section that says who this broker is at ZooKeeper, by its name, and whether it may be used.
    pub(crate) fn of_zookeeper(&self) -> Option<(&str, &[JaasEntry], bool)> {
        let entries = self.section(&self.zookeeper_section)?;
        Some((&self.zookeeper_section, entries, self.zookeeper_sasl))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The entries of the section of this name.
    pub(crate) fn section(&self, name: &str) -> Option<&Vec<JaasEntry>> {
        self.sections.get(name)
    }
}

/// The sections of a file.
///
/// # Errors
/// The text is malformed; the reason names keys and no values.
fn of_file(text: &str) -> Result<BTreeMap<String, Vec<JaasEntry>>, String> {
    let mut tokens = Tokens::of(text)?;
    let mut sections = BTreeMap::new();
    while let Some(token) = tokens.next()? {
        let Token::Text(name) = token else { return Err("a section's name is expected".into()) };
        if tokens.next()? != Some(Token::Sign('{')) {
            return Err(format!("section '{name}' does not begin with a brace"));
        }
        let mut entries = Vec::new();
        loop {
            match tokens.next()? {
                Some(Token::Sign('}')) => break,
                Some(first) => entries.push(entry(first, &mut tokens)?),
                None => return Err(format!("section '{name}' is not closed")),
            }
        }
        if tokens.next()? != Some(Token::Sign(';')) {
            return Err(format!("section '{name}' not terminated by semi-colon"));
        }
        if sections.insert(name.clone(), entries).is_some() {
            return Err(format!("section '{name}' stands twice"));
        }
    }
    Ok(sections)
}

fn entry(first: Token, tokens: &mut Tokens<'_>) -> Result<JaasEntry, String> {
    let Token::Text(module) = first else { return Err("Login module not specified in JAAS config".into()) };
    let flag = match tokens.next()? {
        None => return Err("Login module control flag not specified in JAAS config".into()),
        Some(Token::Text(flag)) => flag,
        Some(_) => String::new(),
    };
    let flags = ["required", "requisite", "sufficient", "optional"];
    if !flags.iter().any(|known| flag.eq_ignore_ascii_case(known)) {
        // What stands there may be half of a secret.
        return Err("Invalid login module control flag in JAAS config".into());
    }
    let mut options = BTreeMap::new();
    loop {
        let key = match tokens.next()? {
            None => return Err("JAAS config entry not terminated by semi-colon".into()),
            Some(Token::Sign(';')) => break,
            Some(Token::Text(key)) => key,
            Some(_) => return Err("a key is expected in JAAS config".into()),
        };
        if tokens.next()? != Some(Token::Sign('=')) {
            // Without its sign the word may be anything, the end of a value with a space in it say.
            return Err("Value not specified for a key in JAAS config".into());
        }
        match tokens.next()? {
            Some(Token::Text(value)) => drop(options.insert(key, Secret::new(value))),
            _ => return Err(format!("Value not specified for key '{key}' in JAAS config")),
        }
    }
    Ok(JaasEntry { module, options })
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A word, or what stood in quotes.
    Text(String),
    Sign(char),
    /// What begins as a number does: Java takes it for one, and Kafka for no value.
    Number,
}

struct Tokens<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        match text.len() <= TEXT_BYTES_MAX {
            true => Ok(Self { rest: text.chars().peekable() }),
            false => Err(format!("JAAS config is longer than {TEXT_BYTES_MAX} bytes")),
        }
    }

    fn next(&mut self) -> Result<Option<Token>, String> {
        self.skip_space_and_comments()?;
        let Some(first) = self.rest.next() else { return Ok(None) };
        Ok(Some(match first {
            '"' | '\'' => Token::Text(self.quoted(first)?),
            '0'..='9' | '.' | '-' => {
                while self.rest.next_if(|c| is_word(*c)).is_some() {}
                Token::Number
            }
            first if is_word(first) => {
                let mut word = String::from(first);
                while let Some(c) = self.rest.next_if(|c| is_word(*c)) {
                    word.push(c);
                }
                Token::Text(word)
            }
            sign => Token::Sign(sign),
        }))
    }

    fn skip_space_and_comments(&mut self) -> Result<(), String> {
        loop {
            while self.rest.next_if(|c| *c <= ' ').is_some() {}
            if self.rest.next_if_eq(&'/').is_none() {
                return Ok(());
            }
            if self.rest.next_if_eq(&'*').is_none() {
                while self.rest.next_if(|c| *c != '\n' && *c != '\r').is_some() {}
                continue;
            }
            let mut before = ' ';
            loop {
                match self.rest.next() {
                    Some('/') if before == '*' => break,
                    Some(c) => before = c,
                    None => return Err("a comment of the JAAS config is not closed".into()),
                }
            }
        }
    }

    /// Up to the closing quote. A line's end does not close it, which Java takes and which can only be a mistake.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let open = || "a quote of the JAAS config is not closed".to_owned();
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or_else(open)? {
                c if c == quote => return Ok(text),
                '\n' | '\r' => return Err(open()),
                '\\' => {
                    let escaped = self.rest.next().ok_or_else(open)?;
                    text.push(self.escaped(escaped));
                }
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self, first: char) -> char {
        match first {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                // Up to three octal digits, and no more than a byte.
                let most = if first <= '3' { 2 } else { 1 };
                let mut code = first.to_digit(8).unwrap_or_default();
                for _ in 0..most {
                    let Some(digit) = self.rest.next_if(|c| c.is_digit(8)) else { break };
                    code = code * 8 + digit.to_digit(8).unwrap_or_default();
                }
                char::from_u32(code).unwrap_or_default()
            }
            other => other,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_$".contains(c) || c as u32 >= 160
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(entry: &JaasEntry) -> Vec<(&str, &str)> {
        entry.options_after("").map(|(key, value)| (key, value.reveal())).collect()
    }

    #[test]
    fn an_entry_has_a_module_and_options() {
        let text = r#"org.apache.kafka.common.security.plain.PlainLoginModule required
            username="admin" // the broker
            password='a;"b' /* quoted */
            user_admin="\"q\\\u\101\n" user_b=word-1_$.x;"#;
        let entry = of_setting(text).expect("an entry");
        assert_eq!(entry.module, "org.apache.kafka.common.security.plain.PlainLoginModule");
        let expected =
            [("password", "a;\"b"), ("user_admin", "\"q\\uA\n"), ("user_b", "word-1_$.x"), ("username", "admin")];
        assert_eq!(options(&entry), expected);
        assert_eq!(entry.options_after("user_").map(|(user, _)| user).collect::<Vec<_>>(), ["admin", "b"]);
        assert_eq!(entry.option("password").expect("one").reveal(), "a;\"b");
        assert!(options(&of_setting("m Optional;").expect("no options")).is_empty());
    }

    #[test]
    fn bad_text_is_refused_with_a_reason_and_without_its_secrets() {
        let cases = [
            ("", "Login module not specified"),
            ("  // nothing", "Login module not specified"),
            ("m", "control flag not specified"),
            ("m hunter2 a=b;", "Invalid login module control flag"),
            ("m required a=hunter2", "not terminated by semi-colon"),
            ("m required a=\"hunter2;", "a quote of the JAAS config is not closed"),
            ("m required a=\"hunter2\n\";", "a quote of the JAAS config is not closed"),
            ("m required a=hunter2 b hunter2;", "Value not specified for a key"),
            ("m required a=hunter2 b=;", "Value not specified for key 'b'"),
            ("m required a=2;", "Value not specified for key 'a'"),
            ("m required a=", "Value not specified for key 'a'"),
            ("m required =hunter2;", "a key is expected"),
            ("m required a=hunter2; n required;", "contains 2 login modules"),
            ("m required /* hunter2", "a comment of the JAAS config is not closed"),
            ("{ m required; };", "Login module not specified"),
        ];
        for (text, expected) in cases {
            let error = of_setting(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert!(of_setting(&"x".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_file_has_sections_of_entries() {
        let text = "KafkaServer {\n  a required x=\"1\";\n  b required;\n};\nsasl.KafkaServer { c required; };";
        let sections = of_file(text).expect("two sections");
        let modules = |name: &str| sections[name].iter().map(|entry| entry.module.as_str()).collect::<Vec<_>>();
        assert_eq!((modules("KafkaServer"), modules("sasl.KafkaServer")), (vec!["a", "b"], vec!["c"]));
        assert_eq!(of_file(" "), Ok(BTreeMap::new()));
        for (bad, expected) in [
            ("KafkaServer { a required; }", "not terminated"),
            ("KafkaServer { a required;", "not closed"),
            ("KafkaServer a required;", "does not begin with a brace"),
            ("A { }; A { };", "stands twice"),
            (";", "a section's name"),
        ] {
            let error = of_file(bad).expect_err(bad);
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_never_end() {
        let pieces = ["\"", "'", "\\", "/", "*", ";", "=", "{", "}", "a", "9", "-", "\n", "ü", "\u{0}", "required"];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let (_, _) = (of_setting(&text).is_ok(), of_file(&text).is_ok());
        }
    }
}
