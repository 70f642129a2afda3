//! The syntax of Java's `.properties` files: comments, continued lines, escapes, and three ways to part name and value.
//!
//! Pure. Source: the documentation of `java.util.Properties.load`.

use std::iter::Peekable;
use std::str::Chars;

/// One entry. An empty file has none; a name without value has an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Line the entry begins in, from 1.
    pub(crate) line: usize,
}

/// All entries in their order; a name may stand more than once.
///
/// # Errors
/// A `\u` that four hexadecimal digits do not follow.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    logical_lines(text).into_iter().map(|(line, text)| entry(line, &text)).collect()
}

/// Lines joined over a backslash at their end, without comments and blank lines; escapes are still in them.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in text.split('\n').enumerate() {
        let content = natural.trim_start_matches(is_blank);
        if open.is_none() && (content.is_empty() || content.starts_with(['#', '!'])) {
            continue;
        }
        let (line, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        // An odd number of backslashes at the end joins the next line; an even one is that many escaped backslashes.
        let backslashes = content.len() - content.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            joined.push_str(&content[..content.len() - 1]);
            open = Some((line, joined));
        } else {
            joined.push_str(content);
            lines.push((line, joined));
        }
    }
    lines.extend(open);
    lines
}

/// Splits at the first unescaped `=`, `:` or blank; blanks around that one separator do not count.
fn entry(line: usize, text: &str) -> Result<Entry, String> {
    let mut rest = text.chars().peekable();
    let name = unescape(&mut rest, line, |c| is_blank(c) || c == '=' || c == ':')?;
    skip_blanks(&mut rest);
    if rest.next_if(|&c| c == '=' || c == ':').is_some() {
        skip_blanks(&mut rest);
    }
    let value = unescape(&mut rest, line, |_| false)?;
    Ok(Entry { name, value, line })
}

fn skip_blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|&c| is_blank(c)).is_some() {}
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Reads up to an unescaped character that ends the token. UTF-16 surrogate pairs written as two escapes become one
/// character; a lone one becomes U+FFFD.
fn unescape(rest: &mut Peekable<Chars<'_>>, line: usize, ends: impl Fn(char) -> bool) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::new();
    let push = |units: &mut Vec<u16>, c: char| units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    while let Some(c) = rest.next_if(|&c| !ends(c)) {
        if c != '\\' {
            push(&mut units, c);
            continue;
        }
        match rest.next() {
            Some('t') => push(&mut units, '\t'),
            Some('n') => push(&mut units, '\n'),
            Some('r') => push(&mut units, '\r'),
            Some('f') => push(&mut units, '\x0c'),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                let unit = unit.ok_or_else(|| format!("line {line}: Malformed \\uxxxx encoding."))?;
                units.push(unit);
            }
            Some(other) => push(&mut units, other),
            None => {}
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).expect("legal").into_iter().map(|entry| (entry.name, entry.value)).collect()
    }

    fn pair(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.into(), value.into())]
    }

    #[test]
    fn name_and_value_are_parted_by_equals_colon_or_blank() {
        for text in ["a=b", "a:b", "a b", "a\tb", "  a = b", "a : b", "a =b\n", "a=b\r\n"] {
            assert_eq!(pairs(text), pair("a", "b"), "{text:?}");
        }
        assert_eq!(pairs("a = = b"), pair("a", "= b"));
        assert_eq!(pairs("listeners=PLAINTEXT://:9092"), pair("listeners", "PLAINTEXT://:9092"));
        assert_eq!(pairs("a"), pair("a", ""));
        assert_eq!(pairs("a=b  "), pair("a", "b  "));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_but_not_inside_a_continued_line() {
        assert_eq!(pairs("# c\n  ! c\n\n \t\na=b"), pair("a", "b"));
        assert_eq!(pairs("a=b,\\\n   c,\\\n  # d"), pair("a", "b,c,# d"));
        assert_eq!(pairs("a=b\\\\\nc=d").len(), 2);
        assert_eq!(pairs("a=b\\"), pair("a", "b"));
    }

    #[test]
    fn escapes_are_resolved_in_names_and_values() {
        assert_eq!(pairs(r"a\=b\ c = \t\u00e4\q"), pair("a=b c", "\täq"));
        assert_eq!(pairs(r"a=\ud83d\ude00"), pair("a", "😀"));
        assert!(parse(r"a=\u00g0").is_err());
        assert!(parse(r"a=\u00").is_err());
    }

    #[test]
    fn an_entry_knows_the_line_it_begins_in() {
        let entries = parse("# c\na=1\\\n2\nb=3").expect("legal");
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [2, 4]);
    }
}
