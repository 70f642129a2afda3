//! The text in which metrics are told: Prometheus' exposition format 0.0.4.
//!
//! ```text
//! # HELP process_open_fds Open file descriptors.
//! # TYPE process_open_fds gauge
//! process_open_fds 48
//! ```
//!
//! All rows of a name stand together below its head; a name without rows has no head. Source: the format's description,
//! prometheus.io/docs/instrumenting/exposition_formats.

use std::fmt::{Display, Write as _};

/// What the text is sent as.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, until the process ends.
    Counter,
    Gauge,
}

/// The text, as it grows.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a name. Each is begun once.
    pub(super) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        debug_assert!(is_name(name), "{name}");
        Family { text: &mut self.text, name, kind, help, begun: false }
    }

    /// A name with one row that has no labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).row(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// One name and its rows.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    begun: bool,
}

impl Family<'_> {
    /// Adds a row. No two have the same labels. `value` is a finite number.
    pub(super) fn row(&mut self, labels: &[(&str, &str)], value: impl Display) {
        if !self.begun {
            self.begun = true;
            self.head();
        }
        self.text.push_str(self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            debug_assert!(is_name(label) && !label.contains(':'), "{label}");
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(self.text, text, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect("writing into a string does not fail");
    }

    fn head(&mut self) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(self.name);
        self.text.push(' ');
        escape(self.text, self.help, false);
        writeln!(self.text, "\n# TYPE {} {kind}", self.name).expect("writing into a string does not fail");
    }
}

/// A value of a label is quoted, a help is not.
fn escape(into: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if quoted => into.push_str("\\\""),
            c => into.push(c),
        }
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::{Row, parse};

    #[test]
    fn rows_stand_below_their_head() {
        let mut text = Exposition::default();
        text.single("a_total", Kind::Counter, "One \\ thing\nafter \"another\".", 3_u64);
        text.family("empty", Kind::Gauge, "No rows, no head.");
        let mut family = text.family("b", Kind::Gauge, "B.");
        family.row(&[("topic", "t"), ("partition", "0")], 0.25);
        family.row(&[("topic", "u"), ("partition", "1")], -1_i64);
        assert_eq!(
            text.finish(),
            "# HELP a_total One \\\\ thing\\nafter \"another\".\n\
             # TYPE a_total counter\n\
             a_total 3\n\
             # HELP b B.\n\
             # TYPE b gauge\n\
             b{topic=\"t\",partition=\"0\"} 0.25\n\
             b{topic=\"u\",partition=\"1\"} -1\n"
        );
    }

    #[test]
    fn a_value_of_a_label_comes_back_whatever_is_in_it() {
        for value in ["", "a b", "\"", "\\", "\\n", "\n", "a\"} 7\nforged 1", "ä{},=#", "\\\\\"\n\\"] {
            let mut text = Exposition::default();
            text.family("a", Kind::Gauge, "A.").row(&[("l", value), ("m", "x")], 1);
            let rows = parse(&text.finish()).expect("legal");
            let labels = vec![("l".to_owned(), value.to_owned()), ("m".to_owned(), "x".to_owned())];
            assert_eq!(rows, [Row { name: "a".into(), labels, value: 1.0 }], "{value:?}");
        }
    }

    /// The checker that other tests stand on finds planted faults.
    #[test]
    fn what_is_not_legal_is_found() {
        let head = "# HELP a A.\n# TYPE a gauge\n";
        for text in [
            "a 1\n".to_owned(),
            format!("{head}a 1"),
            format!("{head}a one\n"),
            format!("{head}a{{l=\"x}} 1\n"),
            format!("{head}a{{l=\"\\x\"}} 1\n"),
            format!("{head}a{{1=\"x\"}} 1\n"),
            format!("{head}b 1\n"),
            format!("{head}a 1\na 1\n"),
            format!("{head}a 1\n# HELP b B.\n# TYPE b gauge\nb 1\n{head}a{{l=\"x\"}} 1\n"),
            "# TYPE a gauge\na 1\n".to_owned(),
        ] {
            assert!(parse(&text).is_err(), "{text}");
        }
        assert_eq!(parse(&format!("{head}a 1\n")).map(|rows| rows.len()), Ok(1));
    }
}
