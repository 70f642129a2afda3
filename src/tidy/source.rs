//! Source files as the rules read them: what is code, what only tests see, and what is imported.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file as the checkers see it.
pub(super) struct Source {
    /// Path below `src`, with slashes.
    pub(super) name: String,
    pub(super) text: String,
    /// The text with comments and the insides of literals blanked, line for line.
    pub(super) code: String,
    /// Index of the first line that only tests see.
    pub(super) test_from: usize,
}

impl Source {
    pub(super) fn new(name: &str, text: &str, test_file: bool) -> Source {
        let code = blank(text);
        let lines: Vec<&str> = code.lines().collect();
        let inline = (1..lines.len())
            .find(|&i| lines[i - 1].starts_with("#[cfg(test)]") && is_mod(lines[i]) && lines[i].ends_with('{'));
        let test_from = if test_file { 0 } else { inline.unwrap_or(lines.len()) };
        Source { name: name.into(), text: text.into(), code, test_from }
    }

    /// `log/read.rs` → `log/read`, `log/mod.rs` → `log`.
    pub(super) fn path(&self) -> &str {
        let path = self.name.strip_suffix(".rs").unwrap_or(&self.name);
        path.strip_suffix("/mod").unwrap_or(path)
    }

    pub(super) fn room(&self) -> &str {
        self.path().split('/').next().expect("split yields at least one part")
    }

    /// Numbered lines of code that run outside tests.
    pub(super) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().take(self.test_from).enumerate().map(|(index, line)| (index + 1, line))
    }
}

pub(super) fn is_mod(line: &str) -> bool {
    ["mod ", "pub mod ", "pub(crate) mod ", "pub(super) mod "].iter().any(|start| line.starts_with(start))
}

/// Whether `path` is `prefix` or lies below it.
pub(super) fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces comments and the insides of string and character literals with spaces and keeps the line breaks.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// End (exclusive) of the comment or literal that starts at `at`; `at` itself when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let find = |from: usize, what: &str| {
        let what: Vec<char> = what.chars().collect();
        (from..chars.len()).find(|&i| chars[i..].starts_with(&what)).map_or(chars.len(), |i| i + what.len())
    };
    let next = |n: usize| chars.get(at + n).copied().unwrap_or(' ');
    match chars[at] {
        '/' if next(1) == '/' => find(at, "\n").saturating_sub(1).max(at + 2),
        '/' if next(1) == '*' => find(at + 2, "*/"),
        '"' => quoted_end(chars, at),
        'r' if (next(1) == '"' || next(1) == '#') && (at == 0 || !ident(chars[at - 1]) || chars[at - 1] == 'b') => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            if next(1 + hashes) != '"' {
                return at;
            }
            find(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
        }
        '\'' if next(1) == '\\' => find(at + 3, "'"),
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn quoted_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

pub(super) fn ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `line` and is not a part of a longer name.
pub(super) fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, found)| {
        let free = |c: Option<char>, edge: Option<char>| !edge.is_some_and(ident) || !c.is_some_and(ident);
        free(line[..start].chars().next_back(), word.chars().next())
            && free(line[start + found.len()..].chars().next(), word.chars().next_back())
    })
}

/// `use std::time::{Duration, Instant};` also names `std::time::Instant`.
pub(super) fn ungrouped(line: &str) -> String {
    let Some((head, group)) = line.split_once("std::time::{") else { return line.to_owned() };
    let names: Vec<String> =
        first_names(&format!("{{{group}")).iter().map(|name| format!("std::time::{name}")).collect();
    format!("{head}{}", names.join(" "))
}

/// The rooms that a text of code imports: what follows `crate::`, or `super::` in a room's topmost file.
pub(super) fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut roots = vec!["crate::"];
    if !source.path().contains('/') {
        roots.push("super::");
    }
    let code: String = source.production().map(|(_, line)| format!("{line}\n")).collect();
    for root in roots {
        for (start, _) in code.match_indices(root) {
            if code[..start].ends_with(|c: char| ident(c) || c == ':' || c == '$') {
                continue;
            }
            let line = code[..start].matches('\n').count() + 1;
            let rest = &code[start + root.len()..];
            for name in first_names(rest) {
                found.push((line, name));
            }
        }
    }
    found
}

/// `a::b` → a; `{a::{b, c}, d}` → a, d.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|&c| ident(c)).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                found.push(name(&group[start..at]));
                start = at + 1;
            }
            '}' => {
                found.push(name(&group[start..at]));
                break;
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a source folder can be listed").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    into.sort();
}

/// Files that `#[cfg(test)] mod x;` names: `x.rs`, and all below `x/`.
pub(super) fn test_files(files: &[(String, String)]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, text) in files {
        let folder = match name.strip_suffix(".rs").expect("only Rust files are listed") {
            "lib" | "main" => String::new(),
            path => format!("{}/", path.strip_suffix("/mod").unwrap_or(path)),
        };
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            if pair[0].trim().starts_with("#[cfg(test)]") && is_mod(pair[1].trim()) && pair[1].ends_with(';') {
                let module = pair[1].trim_end_matches(';').rsplit(' ').next().expect("a mod line has a name");
                found.insert(format!("{folder}{module}"));
            }
        }
    }
    found
}

/// Names below `src` and texts of all source files.
pub(super) fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    let file = |path: &PathBuf| {
        let name = path.strip_prefix(&root).expect("listed below the root").to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(path).expect("a source file is readable text"))
    };
    paths.iter().map(file).collect()
}

pub(super) fn sources() -> Vec<Source> {
    let files = files();
    let tests = test_files(&files);
    files
        .iter()
        .map(|(name, text)| {
            let path = name.strip_suffix(".rs").expect("only Rust files are listed");
            let path = path.strip_suffix("/mod").unwrap_or(path);
            Source::new(name, text, tests.iter().any(|test| below(path, test)))
        })
        .collect()
}

#[test]
fn a_module_that_only_tests_see_is_exempt() {
    let files = [("log/mod.rs".to_owned(), "#[cfg(test)]\npub(crate) mod testing;\n".to_owned())];
    assert_eq!(test_files(&files), BTreeSet::from(["log/testing".to_owned()]));
}
