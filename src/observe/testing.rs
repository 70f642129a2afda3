//! Reads exposition back, strictly, for tests of whoever writes or serves it.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::is_name;

/// A row as a scraper sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// All rows, in their order.
///
/// # Errors
/// The first line that is not legal, and why.
pub(crate) fn parse(text: &str) -> Result<Vec<Row>, String> {
    let (mut rows, mut kinds, mut seen) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    let mut helped = String::new();
    let mut current = String::new();
    let body = text.strip_suffix('\n').ok_or("the last line does not end")?;
    for line in body.split('\n') {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap_or_default().to_owned();
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            let legal = ["counter", "gauge"].contains(&kind) && name == helped && is_name(name);
            if !legal || kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("a head that is wrong or comes twice: {line}"));
            }
            current = name.to_owned();
            continue;
        }
        let row = row(line).ok_or_else(|| format!("no row: {line}"))?;
        if row.name != current {
            return Err(format!("a row below another head, or none: {line}"));
        }
        if !seen.insert(format!("{}{:?}", row.name, row.labels)) {
            return Err(format!("a row comes twice: {line}"));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn row(line: &str) -> Option<Row> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || label.contains(':') {
                return None;
            }
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| Row { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// The value of the row with this name and these labels.
pub(crate) fn value(rows: &[Row], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let same = |row: &&Row| {
        row.name == name
            && row.labels.len() == labels.len()
            && row.labels.iter().zip(labels).all(|((a, b), (c, d))| a == c && b == d)
    };
    rows.iter().find(same).map(|row| row.value)
}
