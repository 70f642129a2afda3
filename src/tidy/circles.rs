//! No circles: within a room, files import each other in one direction.
//!
//! Read from the text: `use` lines and paths in code that begin with `crate`, `super` or `self` lead to files; a name
//! that a folder's `mod.rs` hands on counts for the file that has it. Files that reach each other are a circle, also a
//! folder's `mod.rs` and a file of it that takes something defined there. Code that only tests see is free.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, ident, sources};

/// A module: its path below `crate`, by parts.
type Module = Vec<String>;

/// One import: where it stands, what it names, and whether it only hands a name on.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    path: Vec<String>,
    /// The name it has here.
    alias: String,
    hands_on: bool,
}

fn module_of(source: &Source) -> Module {
    source.path().split('/').map(str::to_owned).collect()
}

/// Splits `a::{b, c::{d, e as f}}` into its paths.
fn expand(prefix: &[String], tree: &str, into: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = prefix.to_vec();
        path.extend(tree[..open].split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        let inner = tree[open + 1..].strip_suffix('}').unwrap_or(&tree[open + 1..]);
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&path, &inner[start..at], into);
                    start = at + 1;
                }
                _ => {}
            }
        }
        expand(&path, &inner[start..], into);
    } else if !tree.is_empty() {
        let (name, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = prefix.to_vec();
        path.extend(name.split("::").map(|part| part.trim().to_owned()));
        let last = path.last().cloned().unwrap_or_default();
        let alias = if alias.is_empty() { last } else { alias.trim().to_owned() };
        into.push((path, alias));
    }
}

/// What follows `use` on a line that begins with it, and whether it hands names on: `pub(in crate::log) use a::A;`.
fn used(line: &str) -> Option<(String, bool)> {
    if let Some(tree) = line.strip_prefix("use ") {
        return Some((tree.to_owned(), false));
    }
    let after = line.strip_prefix("pub")?;
    let after = if after.starts_with('(') { after.split_once(')')?.1 } else { after };
    Some((after.strip_prefix(" use ")?.to_owned(), true))
}

/// The imports of a file, and the paths in its code. `pub(in crate::…)` is none.
fn imports(source: &Source) -> Vec<Import> {
    let code: String = source.production().map(|(_, line)| format!("{line}\n")).collect();
    let mut found = Vec::new();
    let mut rest = String::with_capacity(code.len());
    let mut lines = code.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let Some((mut statement, hands_on)) = used(line.trim_start()) else {
            rest.push_str(line);
            continue;
        };
        while !statement.contains(';') {
            let Some(next) = lines.next() else { break };
            statement.push_str(next);
        }
        let mut paths = Vec::new();
        expand(&[], statement.split(';').next().unwrap_or_default(), &mut paths);
        found.extend(paths.into_iter().map(|(path, alias)| Import { path, alias, hands_on }));
    }
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(root) {
            let before = &rest[..at];
            // `$crate`, a part of a longer path, or who may see something.
            if before.ends_with(|c: char| ident(c) || c == ':' || c == '$') || before.ends_with("pub(in ") {
                continue;
            }
            let path: String = rest[at..].chars().take_while(|&c| ident(c) || c == ':').collect();
            let path: Vec<String> = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            let alias = path.last().cloned().unwrap_or_default();
            found.push(Import { path, alias, hands_on: false });
        }
    }
    found
}

struct House {
    modules: BTreeMap<Module, Vec<Import>>,
}

impl House {
    fn new(sources: &[Source]) -> Self {
        let mut modules = BTreeMap::new();
        for source in sources.iter().filter(|source| source.test_from > 0) {
            let module = module_of(source);
            // A folder is a module, also where its face is not read.
            for parts in 1..module.len() {
                modules.entry(module[..parts].to_vec()).or_default();
            }
            modules.insert(module, imports(source));
        }
        Self { modules }
    }

    /// The file that a path in `module` leads to. `depth` bounds names that hand each other on.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut at = module.clone();
        let mut parts = path.iter();
        match parts.next()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            first => {
                at.push(first.to_owned());
                if !self.modules.contains_key(&at) {
                    return None;
                }
            }
        }
        for part in parts {
            if part == "super" {
                at.pop();
                continue;
            }
            at.push(part.clone());
            if !self.modules.contains_key(&at) {
                at.pop();
                let handed = self
                    .modules
                    .get(&at)
                    .and_then(|all| all.iter().find(|import| import.hands_on && import.alias == *part && depth > 0));
                return match handed {
                    Some(import) => self.resolve(&at, &import.path, depth - 1),
                    None => Some(at),
                };
            }
        }
        Some(at)
    }

    /// Which files of its own room each file imports.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let mut arrows: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, imports) in &self.modules {
            let targets = imports
                .iter()
                .filter(|import| !import.hands_on)
                .filter_map(|import| self.resolve(module, &import.path, 4))
                .filter(|target| target != module && target.first() == module.first() && !target.is_empty())
                .filter(|target| self.modules.contains_key(target));
            arrows.insert(module, targets.collect());
        }
        arrows
    }

    /// Sets of files that reach each other, each sorted.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let arrows = self.arrows();
        let reach = |from: &Module| -> BTreeSet<Module> {
            let mut reached = BTreeSet::new();
            let mut open: Vec<Module> = arrows[from].iter().cloned().collect();
            while let Some(next) = open.pop() {
                if reached.insert(next.clone()) {
                    open.extend(arrows[&next].iter().cloned());
                }
            }
            reached
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            arrows.keys().map(|&module| (module, reach(module))).collect();
        let circle = |module: &Module| -> Vec<String> {
            let others = reached[module].iter().filter(|other| reached[*other].contains(module));
            others.map(|other| other.join("/")).collect()
        };
        reached.keys().filter(|module| reached[**module].contains(**module)).map(|module| circle(module)).collect()
    }
}

#[test]
fn files_of_a_room_import_each_other_in_one_direction() {
    let house = House::new(&sources());
    let arrows = house.arrows();
    let ties = |circle: &[String]| -> String {
        let within = |module: &Module| circle.contains(&module.join("/"));
        let inside = arrows.iter().filter(|(from, _)| within(from));
        inside
            .flat_map(|(from, to)| {
                to.iter().filter(|to| within(to)).map(|to| format!("\n    {} -> {}", from.join("/"), to.join("/")))
            })
            .collect()
    };
    let found: Vec<String> =
        house.circles().iter().map(|circle| format!("  {}{}", circle.join(", "), ties(circle))).collect();
    assert!(found.is_empty(), "{} circle(s):\n{}", found.len(), found.join("\n"));
}

fn planted(files: &[(&str, &str)]) -> BTreeSet<Vec<String>> {
    let sources: Vec<Source> = files.iter().map(|(name, text)| Source::new(name, text, false)).collect();
    House::new(&sources).circles()
}

#[test]
fn a_planted_circle_is_found() {
    let circle = |names: &[&str]| BTreeSet::from([names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()]);
    let (a, b) = ("log/a.rs", "log/b.rs");
    assert_eq!(planted(&[(a, "use super::b::B;"), (b, "use super::a::A;")]), circle(&["log/a", "log/b"]));
    assert_eq!(planted(&[(a, "use super::b::B;"), (b, "fn f(a: &crate::log::a::A) {}")]), circle(&["log/a", "log/b"]));
    assert_eq!(planted(&[(a, "use super::{\n    b::{B, C},\n};"), (b, "use crate::types::Offset;")]), BTreeSet::new());
    assert_eq!(
        planted(&[(a, "use super::b::B;"), (b, "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}")]),
        BTreeSet::new()
    );
    // What a folder's face hands on counts for the file that has it; what it defines counts for the face.
    let face = ("log/mod.rs", "mod a;\nmod b;\npub(crate) use self::b::B;\nuse self::a::A;\nstruct C;");
    assert_eq!(planted(&[face, (a, "use super::B;"), (b, "struct B;")]), BTreeSet::new());
    assert_eq!(planted(&[face, (a, "use super::C;"), (b, "struct B;")]), circle(&["log", "log/a"]));
    let handed = ("log/mod.rs", "mod a;\nmod b;\npub(in crate::log) use self::b::B;\nuse self::a::A;\nstruct C;");
    assert_eq!(planted(&[handed, (a, "use super::B;"), (b, "pub(in crate::log) struct B;")]), BTreeSet::new());
    assert_eq!(planted(&[handed, (a, "fn f(c: super::C) {}"), (b, "struct B;")]), circle(&["log", "log/a"]));
}
