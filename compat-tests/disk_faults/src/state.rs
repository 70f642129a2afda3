//! The file system's state behind one lock, and the gate through which every operation comes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::Errno;

use crate::content::{Allocation, Change, Content, Keep};
use crate::faults::{Effect, Operation, Rule, matches};
use crate::names::{Names, Node, Promise, ROOT};
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    /// Operations wait.
    Frozen,
    /// Operations fail: who asks is being killed.
    Off,
}

/// A file or a directory.
#[derive(Debug)]
pub struct Inode {
    /// Of a file.
    pub content: Option<Content>,
    pub allocation: Allocation,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub changed: SystemTime,
    pub opened: u64,
    pub links: u32,
    /// One of its paths, from the file system's root.
    pub path: String,
}

/// What a loss of power did.
#[derive(Debug, Default)]
pub struct Loss {
    pub files: u64,
    pub bytes: u64,
    pub operations: u64,
}

#[derive(Debug)]
pub struct State {
    backing: PathBuf,
    pub names: Names,
    pub inodes: HashMap<Node, Inode>,
    next_node: Node,
    pub power: Power,
    /// Operations so far.
    pub number: u64,
    pub rules: Vec<Rule>,
    pub next_rule: u64,
    pub random: Random,
    /// The size of the disk.
    pub bytes_max: u64,
    trace: Option<io::BufWriter<File>>,
}

#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    thawed: Condvar,
}

/// An operation that may go on.
pub struct Admitted<'a> {
    pub state: MutexGuard<'a, State>,
    /// Its number.
    pub number: u64,
    /// What else is wrong with it: `Short`, `Flip` or `Lie`.
    pub effect: Option<Effect>,
}

impl Shared {
    pub fn new(state: State) -> Self {
        Self { state: Mutex::new(state), thawed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation panics")
    }

    /// Waits until the file system is not frozen, and applies the rules.
    pub fn admit(&self, operation: Operation, path: impl Fn(&State) -> String) -> Result<Admitted<'_>, Errno> {
        let mut state = self.lock();
        let mut slept = false;
        loop {
            match state.power {
                Power::Frozen => state = self.thawed.wait(state).expect("no operation panics"),
                Power::Off => return Err(Errno::EIO),
                Power::On => {
                    let path = path(&state);
                    // One that slept has met its rule.
                    let effect = if slept { None } else { state.effect(operation, &path) };
                    match effect {
                        Some(Effect::Freeze) => state.power = Power::Frozen,
                        Some(Effect::SleepMs(ms)) => {
                            slept = true;
                            drop(state);
                            std::thread::sleep(Duration::from_millis(ms));
                            state = self.lock();
                        }
                        other => {
                            state.number += 1;
                            let number = state.number;
                            state.note(operation, &path, other);
                            return match other {
                                Some(Effect::Fail) => {
                                    if operation == Operation::Sync {
                                        state.write_off(&path);
                                    }
                                    Err(Errno::EIO)
                                }
                                Some(Effect::Full) => Err(Errno::ENOSPC),
                                effect => Ok(Admitted { state, number, effect }),
                            };
                        }
                    }
                }
            }
        }
    }

    pub fn set_power(&self, power: Power) {
        self.lock().power = power;
        self.thawed.notify_all();
    }
}

impl State {
    pub fn new(backing: PathBuf, promise: Promise, seed: u64, trace: Option<File>) -> Self {
        let mut state = Self {
            backing,
            names: Names::new(promise),
            inodes: HashMap::new(),
            next_node: ROOT,
            power: Power::On,
            number: 0,
            rules: Vec::new(),
            next_rule: 1,
            random: Random::new(seed),
            bytes_max: u64::MAX,
            trace: trace.map(io::BufWriter::new),
        };
        state.add_inode(None, 0o755, 0, 0);
        state
    }

    fn add_inode(&mut self, content: Option<Content>, mode: u16, uid: u32, gid: u32) -> Node {
        let node = self.next_node;
        self.next_node += 1;
        let (allocation, changed, path) = (Allocation::default(), SystemTime::now(), String::new());
        let inode = Inode { content, allocation, mode, uid, gid, changed, opened: 0, links: 0, path };
        self.inodes.insert(node, inode);
        node
    }

    /// Makes an empty file that has no name yet.
    pub fn add_file(&mut self, mode: u16, uid: u32, gid: u32) -> io::Result<Node> {
        let path = self.backing.join(self.next_node.to_string());
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        // It is reached through its descriptor alone, and its space goes with that.
        std::fs::remove_file(path)?;
        Ok(self.add_inode(Some(Content::new(file)), mode, uid, gid))
    }

    /// Makes an empty directory that has no name yet.
    pub fn add_directory(&mut self, mode: u16, uid: u32, gid: u32) -> Node {
        let node = self.add_inode(None, mode, uid, gid);
        self.names.add_directory(node);
        node
    }

    pub fn inode(&mut self, node: Node) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&node).ok_or(Errno::ESTALE)
    }

    pub fn content(&mut self, node: Node) -> Result<&mut Content, Errno> {
        self.inode(node)?.content.as_mut().ok_or(Errno::EISDIR)
    }

    pub fn path(&self, node: Node) -> String {
        self.inodes.get(&node).map_or_else(|| "?".into(), |inode| inode.path.clone())
    }

    pub fn path_in(&self, directory: Node, name: &std::ffi::OsStr) -> String {
        let directory = if directory == ROOT { String::new() } else { self.path(directory) + "/" };
        format!("{directory}{}", name.display())
    }

    fn effect(&mut self, operation: Operation, path: &str) -> Option<Effect> {
        self.rules.iter_mut().find_map(|rule| rule.apply(operation, path))
    }

    fn note(&mut self, operation: Operation, path: &str, effect: Option<Effect>) {
        let number = self.number;
        if let Some(trace) = &mut self.trace {
            let effect = effect.map(|effect| format!(" {effect:?}")).unwrap_or_default();
            // A trace that cannot be written is missed by who wants to read it.
            let _missed = writeln!(trace, "{number} {} {path}{effect}", operation.name());
        }
    }

    fn write_off(&mut self, path: &str) {
        let files = self.inodes.values_mut().filter(|inode| inode.path == path);
        files.filter_map(|inode| inode.content.as_mut()).for_each(Content::write_off);
    }

    /// Bytes that files take which have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        let held = self.inodes.values().filter(|inode| inode.links > 0 || inode.opened > 0);
        held.map(|inode| inode.allocation.bytes()).sum()
    }

    /// Changes a file, if there is space.
    pub fn change(&mut self, number: u64, node: Node, change: Change) -> Result<(), Errno> {
        let inode = self.inode(node)?;
        let range = if let Change::Write { offset, data } = &change { (*offset, data.len() as u64) } else { (0, 0) };
        let missing = inode.allocation.missing_bytes(range.0, range.1);
        self.expect_space(missing)?;
        let inode = self.inode(node)?;
        let content = inode.content.as_mut().ok_or(Errno::EISDIR)?;
        match change {
            Change::Write { .. } => inode.allocation.add(range.0, range.1),
            Change::Zero { offset, length } => inode.allocation.remove(offset, length),
            Change::Length(length) => inode.allocation.remove(length, u64::MAX - length),
        }
        content.change(number, change).map_err(Errno::from)?;
        inode.changed = SystemTime::now();
        Ok(())
    }

    pub fn expect_space(&self, bytes: u64) -> Result<(), Errno> {
        let full = bytes > 0 && self.bytes_max != u64::MAX && self.used_bytes() + bytes > self.bytes_max;
        if full { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Counts names anew, and forgets what has none and is not open.
    pub fn tidy(&mut self) {
        let mut links = self.names.links();
        let named = self.names.named();
        self.inodes.retain(|node, inode| named.contains(node) || inode.opened > 0);
        for (node, inode) in &mut self.inodes {
            let (count, path) = links.remove(node).unwrap_or_default();
            inode.links = count;
            if count > 0 {
                inode.path = path;
            }
        }
        let inodes = &self.inodes;
        self.names.retain(|node| inodes.contains_key(&node));
    }

    /// Numbers of operations that a loss of power would undo, in order.
    pub fn unsynced_numbers(&self) -> Vec<u64> {
        let contents = self.inodes.values().filter_map(|inode| inode.content.as_ref());
        let mut numbers: Vec<u64> = contents.flat_map(Content::unsynced_numbers).collect();
        numbers.extend(self.names.unsynced_numbers());
        numbers.sort_unstable();
        numbers
    }

    /// Undoes what is not durable, but for what is kept. The process that had files open must be gone.
    pub fn lose_power(&mut self, how: &str, seed: u64) -> io::Result<Loss> {
        let mut random = Random::new(seed);
        let numbers = self.unsynced_numbers();
        let some = |random: &mut Random| {
            let at = random.below(numbers.len() as u64 + 1) as usize;
            numbers.get(at).copied().unwrap_or(u64::MAX)
        };
        let (keep, names_before) = match how {
            "prefix" => {
                let end = some(&mut random);
                (Keep::Before(end), end)
            }
            "some" => (Keep::Some(random.below(256) as u8), some(&mut random)),
            _ => (Keep::Nothing, 0),
        };
        let mut loss = Loss { operations: numbers.len() as u64, ..Loss::default() };
        let mut nodes: Vec<Node> = self.inodes.keys().copied().collect();
        nodes.sort_unstable();
        for node in nodes {
            let Some(inode) = self.inodes.get_mut(&node) else { continue };
            inode.opened = 0;
            let Some(content) = &mut inode.content else { continue };
            if content.is_unsynced() {
                loss.files += 1;
                loss.bytes += content.unsynced_bytes();
                content.lose_power(keep, &mut random)?;
                inode.allocation = Allocation::default();
                inode.allocation.add(0, content.length());
            }
        }
        self.names.lose_power(names_before);
        self.tidy();
        Ok(loss)
    }

    /// Files whose path matches, with their path, in its order.
    pub fn files(&self, pattern: &str) -> Vec<(String, Node)> {
        let some = self.inodes.iter().filter(|(_, inode)| inode.content.is_some() && inode.links > 0);
        let mut found: Vec<_> = some.map(|(node, inode)| (inode.path.clone(), *node)).collect();
        found.retain(|(path, _)| matches(pattern, path));
        found.sort();
        found
    }

    pub fn flush_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            let _missed = trace.flush();
        }
    }
}
