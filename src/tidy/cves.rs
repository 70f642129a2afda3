//! The tests that `compat-tests/CVES.md` names are there, and crates are as new as its rows ask for.

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a test is and what it is called, and the text of its file.
fn missing(table: &str, text_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| CVE |"));
    let mut missing = Vec::new();
    for row in rows {
        let named = row.split('`').nth(1).and_then(|named| named.rsplit_once("::"));
        let found = named.and_then(|(path, name)| Some((text_of(path)?, name)));
        let is_there = |(text, name): &(String, &str)| {
            [format!("fn {name}("), format!("def {name}(")].iter().any(|start| text.contains(start))
        };
        if !found.as_ref().is_some_and(is_there) {
            missing.push(row.to_owned());
        }
    }
    missing
}

#[test]
fn every_row_of_cves_names_a_test_that_is_there() {
    let table = fs::read_to_string(root().join("compat-tests/CVES.md")).expect("a table");
    assert!(table.matches("CVE-").count() > 25, "rows are found");
    assert_eq!(missing(&table, |path| fs::read_to_string(root().join(path)).ok()), Vec::<String>::new());
}

#[test]
fn a_row_without_its_test_is_found() {
    let text_of = |path: &str| (path == "a.rs").then(|| "fn there() {}".to_owned());
    for (row, is_missing) in
        [("| C | w | `a.rs::there` |", false), ("| C | w | `a.rs::gone` |", true), ("| C | w | `b.rs::there` |", true)]
    {
        assert_eq!(missing(row, text_of).len(), usize::from(is_missing), "{row}");
    }
}

/// Versions in `Cargo.lock`, all of a crate's.
fn locked(lock: &str, name: &str) -> Vec<Vec<u32>> {
    let head = format!("name = \"{name}\"\nversion = \"");
    let versions = lock.split(&head).skip(1).filter_map(|rest| rest.split('"').next());
    versions.map(|version| version.split('.').map(|part| part.parse().unwrap_or(0)).collect()).collect()
}

/// RUSTSEC-2026-0041: the block format of `lz4_flex` gave memory away that was not its own, below 0.11.6.
/// RUSTSEC-2026-0344: `ruzstd` reserves what a frame claims; it is not used.
#[test]
fn no_crate_is_older_than_its_mended_release() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    let lz4 = locked(&lock, "lz4_flex");
    assert!(!lz4.is_empty() && lz4.iter().all(|version| *version >= vec![0, 11, 6]), "{lz4:?}");
    assert_eq!(locked(&lock, "ruzstd"), Vec::<Vec<u32>>::new());
}
