//! `ssl.principal.mapping.rules`: from the name in a client's certificate to the name of its principal.
//!
//! `DEFAULT`, or `RULE:pattern/replacement/` with `L` or `U` behind it for small or capital letters; several are
//! separated by commas, and the first whose pattern matches the whole name counts. The replacement knows `$1`. Patterns
//! are Java's but for looking around and back references, which the engine here does not have: it needs time in
//! proportion to the name alone. Source: Kafka 3.9 `SslPrincipalMapper`; `Matcher.replaceAll`.

use regex::{Captures, Regex};

/// The rules in their order.
#[derive(Debug, Clone)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
enum Rule {
    Default,
    Replace { whole: Regex, pattern: Regex, replacement: Vec<Piece>, case: Case },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Lower,
    Upper,
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Rules {
    /// # Errors
    /// A rule is none, or its pattern is not one that is understood here.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (rule, after) = one(rest)?;
            rules.extend(rule);
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => after,
                None => return Err(format!("Invalid rule: `{rest}`, unmatched substring: `{after}`")),
            };
        }
        Ok(Self(rules))
    }

    /// The principal's name; `None`: no rule applies.
    pub(super) fn apply(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|rule| rule.apply(name))
    }
}

/// The rule that the text begins with, if it is not empty, and what follows it.
fn one(text: &str) -> Result<(Option<Rule>, &str), String> {
    let invalid = || format!("Invalid rule: {text}");
    if text.starts_with(',') {
        return Ok((None, text));
    }
    if let Some(after) = text.strip_prefix("DEFAULT") {
        return Ok((Some(Rule::Default), after));
    }
    let body = text.strip_prefix("RULE:").ok_or_else(invalid)?;
    let (pattern, rest) = up_to_slash(body).ok_or_else(invalid)?;
    let (replacement, rest) = up_to_slash(rest).ok_or_else(invalid)?;
    let (case, rest) = match rest.as_bytes().first() {
        Some(b'L') => (Case::Lower, &rest[1..]),
        Some(b'U') => (Case::Upper, &rest[1..]),
        _ => (Case::Kept, rest),
    };
    let compile = |pattern: &str| Regex::new(pattern).map_err(|error| format!("Invalid rule: {text}: {error}"));
    let compiled = compile(pattern)?;
    let replacement = pieces(replacement, compiled.captures_len() - 1);
    let whole = compile(&format!("^(?:{pattern})$"))?;
    Ok((Some(Rule::Replace { whole, pattern: compiled, replacement, case }), rest))
}

/// Up to the first slash that no backslash stands before, and what follows it.
fn up_to_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '/' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// A replacement of a pattern with so many groups. `$12` is group 12 if there is one, else group 1 and a 2; `$4` is
/// text where there are three.
fn pieces(replacement: &str, groups: usize) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut text = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            '$' if chars.peek().is_some_and(char::is_ascii_digit) => {
                let digit = |c: char| c.to_digit(10).map_or(0, |digit| digit as usize);
                let first = chars.next().map_or(0, digit);
                if first > groups {
                    text.push('$');
                    text.extend(char::from_digit(first as u32, 10));
                    continue;
                }
                let mut group = first;
                while let Some(next) = chars.peek().filter(|c| c.is_ascii_digit()).copied() {
                    if group * 10 + digit(next) > groups {
                        break;
                    }
                    group = group * 10 + digit(next);
                    chars.next();
                }
                found.extend((!text.is_empty()).then(|| Piece::Text(std::mem::take(&mut text))));
                found.push(Piece::Group(group));
            }
            c => text.push(c),
        }
    }
    found.extend((!text.is_empty()).then_some(Piece::Text(text)));
    found
}

impl Rule {
    fn apply(&self, name: &str) -> Option<String> {
        let Rule::Replace { whole, pattern, replacement, case } = self else { return Some(name.to_owned()) };
        whole.is_match(name).then_some(())?;
        let replaced = replace_all(pattern, name, replacement);
        Some(match case {
            Case::Kept => replaced,
            Case::Lower => replaced.to_lowercase(),
            Case::Upper => replaced.to_uppercase(),
        })
    }
}

/// As Java's: an empty match may follow another match at once, so `.*` replaces twice.
fn replace_all(pattern: &Regex, name: &str, replacement: &[Piece]) -> String {
    let mut out = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(captures) = pattern.captures_at(name, from) {
        let found = captures.get(0).map_or(0..0, |found| found.range());
        out.push_str(&name[copied..found.start]);
        put(&mut out, &captures, replacement);
        copied = found.end;
        from = match found.is_empty() {
            false => found.end,
            true => match name[found.end..].chars().next() {
                Some(next) => found.end + next.len_utf8(),
                None => break,
            },
        };
    }
    out.push_str(&name[copied..]);
    out
}

fn put(out: &mut String, captures: &Captures<'_>, replacement: &[Piece]) {
    for piece in replacement {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Group(group) => out.push_str(captures.get(*group).map_or("", |found| found.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(rules: &str, name: &str) -> Option<String> {
        Rules::parse(rules).unwrap_or_else(|why| panic!("{why}")).apply(name)
    }

    /// The rules and names of Kafka's documentation and of its `SslPrincipalMapperTest`.
    #[test]
    fn kafkas_examples_come_out_as_there() {
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L, \
                     RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L, \
                     RULE:^cn=(.*?),ou=(.*?),dc=(.*?),dc=(.*?)$/$1@$2/U, \
                     RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U, DEFAULT";
        for (name, expected) in [
            ("CN=Duke,OU=ServiceUsers,O=Org,C=US", "duke"),
            ("CN=Duke,OU=SME,O=mycp,L=Fulton,ST=MD,C=US", "duke@sme"),
            ("cn=duke,ou=sme,dc=mycp,dc=com", "DUKE@SME"),
            ("cN=duke,OU=JavaSoft,O=Sun Microsystems", "DUKE"),
            ("OU=JavaSoft,O=Sun Microsystems,C=US", "OU=JavaSoft,O=Sun Microsystems,C=US"),
        ] {
            assert_eq!(apply(rules, name).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_first_rule_that_matches_the_whole_name_counts() {
        assert_eq!(apply("RULE:CN=(\\w+)/$1/", "CN=a,O=b"), None, "not the whole name");
        assert_eq!(apply("RULE:CN=(\\w+)/$1/", "CN=a").as_deref(), Some("a"));
        assert_eq!(apply("", "CN=a"), None);
        assert_eq!(apply(" DEFAULT ", "CN=a").as_deref(), Some("CN=a"));
        assert_eq!(apply("DEFAULT,RULE:.*/x/", "CN=a").as_deref(), Some("CN=a"));
        assert_eq!(apply("RULE:CN=(.*)\\/x/a\\/$1/", "CN=q/x").as_deref(), Some("a/q"));
    }

    #[test]
    fn replacements_are_javas() {
        assert_eq!(apply("RULE:^(a)(b)(c)$/$1@$4/", "abc").as_deref(), Some("a@$4"));
        assert_eq!(apply("RULE:^(a)$/$12/", "a").as_deref(), Some("a2"));
        assert_eq!(apply("RULE:^a$/\\$1/", "a").as_deref(), Some("$1"));
        assert_eq!(apply("RULE:.*/x/", "abc").as_deref(), Some("xx"), "an empty match follows the long one");
        assert_eq!(apply("RULE:[^,]*,?.*/x/", "").as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rules in ["DEFAULT/L", "RULE:CN=(.*?)/$1", "RULE:^CN/LMNO/x/", "RULE:(/$1/", "nothing", "RULE:(?<=a)b/$1/"]
        {
            assert!(Rules::parse(rules).is_err_and(|why| why.starts_with("Invalid rule")), "{rules}");
        }
    }
}
