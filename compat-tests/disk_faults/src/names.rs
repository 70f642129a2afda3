//! Directories twice: as programs see them, and as a loss of power would leave them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};

/// A file's or a directory's number.
pub type Node = u64;
pub const ROOT: Node = 1;

pub type Entries = BTreeMap<OsString, Node>;
/// In this directory, this name now stands for that, or for nothing.
pub type Entry = (Node, OsString, Option<Node>);

/// When a name that was made, changed or removed is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// When its directory is synced: what POSIX promises.
    Directory,
    /// When anything is synced, as on ext4, whose journal has them in order.
    Journal,
}

#[derive(Debug)]
pub struct Names {
    promise: Promise,
    seen: HashMap<Node, Entries>,
    durable: HashMap<Node, Entries>,
    /// What is not durable, with the numbers of the operations. Entries of one operation belong together.
    unsynced: Vec<(u64, Vec<Entry>)>,
}

impl Names {
    pub fn new(promise: Promise) -> Self {
        let root = || HashMap::from([(ROOT, Entries::new())]);
        Self { promise, seen: root(), durable: root(), unsynced: Vec::new() }
    }

    pub fn add_directory(&mut self, node: Node) {
        self.seen.insert(node, Entries::new());
        self.durable.insert(node, Entries::new());
    }

    /// What a directory holds; `None` if it is no directory.
    pub fn entries(&self, directory: Node) -> Option<&Entries> {
        self.seen.get(&directory)
    }

    pub fn is_directory(&self, node: Node) -> bool {
        self.seen.contains_key(&node)
    }

    pub fn get(&self, directory: Node, name: &OsStr) -> Option<Node> {
        self.seen.get(&directory)?.get(name).copied()
    }

    pub fn change(&mut self, number: u64, entries: Vec<Entry>) {
        for entry in &entries {
            set(&mut self.seen, entry);
        }
        self.unsynced.push((number, entries));
    }

    pub fn unsynced_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.unsynced.iter().map(|(number, _)| *number)
    }

    /// A file was synced. Whether names became durable by it.
    pub fn sync_file(&mut self) -> bool {
        if self.promise == Promise::Directory || self.unsynced.is_empty() {
            return false;
        }
        self.durable.clone_from(&self.seen);
        self.unsynced.clear();
        true
    }

    /// A directory was synced. An operation that touches others too, as a rename does, is durable there as well.
    /// Whether names became durable by it.
    pub fn sync_directory(&mut self, directory: Node) -> bool {
        if self.promise == Promise::Journal {
            return self.sync_file();
        }
        let in_directory = |(_, entries): &mut (u64, Vec<Entry>)| entries.iter().any(|(node, ..)| *node == directory);
        let mut done: Vec<_> = self.unsynced.extract_if(.., in_directory).collect();
        let mut settled = BTreeSet::new();
        let mut next = 0;
        while next < done.len() {
            settled.extend(done[next].1.iter().map(|(node, name, _)| (*node, name.clone())));
            next += 1;
            // What else happened to these names must neither be half done nor take their place later.
            let same_name = |(_, entries): &mut (u64, Vec<Entry>)| {
                entries.iter().any(|(node, name, _)| settled.contains(&(*node, name.clone())))
            };
            done.extend(self.unsynced.extract_if(.., same_name));
        }
        for (node, name) in settled {
            let now = self.get(node, &name);
            set(&mut self.durable, &(node, name, now));
        }
        !done.is_empty()
    }

    /// Keeps what is durable, and of the rest what was done before the operation of this number.
    pub fn lose_power(&mut self, kept_before: u64) {
        self.seen.clone_from(&self.durable);
        for (number, entries) in std::mem::take(&mut self.unsynced) {
            if number < kept_before {
                entries.iter().for_each(|entry| set(&mut self.seen, entry));
            }
        }
        self.durable.clone_from(&self.seen);
    }

    /// All nodes that have a name, or had one that may come back.
    pub fn named(&self) -> HashSet<Node> {
        let mut found = HashSet::from([ROOT]);
        let mut next: Vec<Node> = vec![ROOT];
        next.extend(self.unsynced.iter().flat_map(|(_, entries)| entries).filter_map(|(_, _, node)| *node));
        found.extend(&next);
        while let Some(node) = next.pop() {
            for entries in [self.seen.get(&node), self.durable.get(&node)].into_iter().flatten() {
                next.extend(entries.values().filter(|node| found.insert(**node)));
            }
        }
        found
    }

    /// How many names each file has that can be seen, with one of their paths.
    pub fn links(&self) -> HashMap<Node, (u32, String)> {
        let mut found = HashMap::new();
        let mut next = vec![(ROOT, String::new())];
        while let Some((directory, path)) = next.pop() {
            for (name, node) in self.seen.get(&directory).into_iter().flatten() {
                let path = format!("{path}{}", name.display());
                if self.is_directory(*node) {
                    next.push((*node, format!("{path}/")));
                }
                found.entry(*node).or_insert((0, path)).0 += 1;
            }
        }
        found
    }

    /// Forgets directories that have no name.
    pub fn retain(&mut self, keep: impl Fn(Node) -> bool) {
        self.seen.retain(|node, _| keep(*node));
        self.durable.retain(|node, _| keep(*node));
    }
}

fn set(directories: &mut HashMap<Node, Entries>, (directory, name, node): &Entry) {
    let Some(entries) = directories.get_mut(directory) else { return };
    match node {
        Some(node) => entries.insert(name.clone(), *node),
        None => entries.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(directory: Node, name: &str, node: Option<Node>) -> Entry {
        (directory, name.into(), node)
    }

    fn names(promise: Promise) -> Names {
        let mut names = Names::new(promise);
        names.add_directory(2);
        names.change(0, vec![entry(ROOT, "d", Some(2))]);
        names.sync_directory(ROOT);
        names
    }

    #[test]
    fn a_rename_is_durable_with_either_directory_and_never_half() {
        for synced in [ROOT, 2] {
            let mut names = names(Promise::Directory);
            names.change(1, vec![entry(ROOT, "a", Some(9))]);
            names.sync_directory(ROOT);
            names.change(2, vec![entry(ROOT, "a", None), entry(2, "b", Some(9))]);
            names.sync_directory(synced);
            names.lose_power(0);
            assert_eq!((names.get(ROOT, OsStr::new("a")), names.get(2, OsStr::new("b"))), (None, Some(9)));
        }
    }

    #[test]
    fn what_was_done_to_a_name_before_does_not_come_back() {
        let mut names = names(Promise::Directory);
        names.change(1, vec![entry(2, "x", Some(5))]);
        names.change(2, vec![entry(ROOT, "y", Some(6))]);
        names.change(3, vec![entry(ROOT, "y", None), entry(2, "x", Some(6))]);
        names.sync_directory(ROOT);
        names.lose_power(u64::MAX);
        assert_eq!(names.get(2, OsStr::new("x")), Some(6));
    }

    #[test]
    fn the_journal_has_names_in_order() {
        let mut names = names(Promise::Journal);
        for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
            names.change(number, vec![entry(2, name, Some(number + 10))]);
            if number == 1 {
                assert!(names.sync_file());
            }
        }
        names.lose_power(3);
        assert_eq!(names.entries(2).expect("a directory").len(), 2);
    }
}
