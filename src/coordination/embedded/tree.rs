//! The nodes of the embedded tree and the rules of ZooKeeper's transactions over them, as plain functions.
//!
//! Owns nothing but memory: what is written to the log directory and when is `mod.rs`'s business. Keeps two invariants:
//! every node but the root has a parent, and an ephemeral node has no children.
//!
//! Keys. A node's key is its parent's path, a NUL, its name; so the children of one node lie together and a node is
//! found by one lookup. `/` has the empty key, `/a` is `\0a`, `/a/b` is `/a\0b`.
//!
//! On disk the key is the byte `N` and the key above. The value is, big-endian:
//! ```text
//! byte  0      format, 1
//! bytes 1-8    czxid
//! bytes 9-16   mzxid
//! bytes 17-20  data version
//! bytes 21-24  children ever created: the next sequence number
//! the rest     data
//! ```
//! Example: `/a` made by transaction 1 and set to `x` by transaction 2 is
//! `4e 00 61` → `01 0000000000000001 0000000000000002 00000001 00000000 78`.
//! The key `Z` holds the highest transaction id that may have been given, 8 bytes big-endian.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::coordination::{CoordinationError, CreateMode, MultiError, Op, OpResult, Stat, check_path};

/// Key on disk of the highest transaction id that may have been given.
pub(super) const ZXID_KEY: &[u8] = b"Z";

/// First byte of the key on disk of every node.
const NODE_TAG: u8 = b'N';

/// First byte of every node's value.
const FORMAT: u8 = 1;

/// Bytes of a value before the data.
const VALUE_HEADER_BYTES: usize = 25;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Node {
    czxid: i64,
    mzxid: i64,
    version: i32,
    /// 0 for a persistent node.
    ephemeral_owner: i64,
    /// Children ever created. Written when a sequence is taken from it, so no number is given twice even over a
    /// restart.
    created_children: u32,
    data: Bytes,
}

impl Node {
    pub(super) fn is_ephemeral(&self) -> bool {
        self.ephemeral_owner != 0
    }

    pub(super) fn stat(&self) -> Stat {
        Stat { czxid: self.czxid, mzxid: self.mzxid, version: self.version, ephemeral_owner: self.ephemeral_owner }
    }

    pub(super) fn data(&self) -> Bytes {
        self.data.clone()
    }

    /// The value on disk.
    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(VALUE_HEADER_BYTES + self.data.len());
        value.put_u8(FORMAT);
        value.put_i64(self.czxid);
        value.put_i64(self.mzxid);
        value.put_i32(self.version);
        value.put_u32(self.created_children);
        value.put_slice(&self.data);
        value.freeze()
    }

    /// Reads [`Node::encode`] back; `None` if this is no such value.
    pub(super) fn decode(value: &[u8]) -> Option<Node> {
        let (header, data) = value.split_at_checked(VALUE_HEADER_BYTES)?;
        if header[0] != FORMAT {
            return None;
        }
        Some(Node {
            czxid: i64::from_be_bytes(header[1..9].try_into().ok()?),
            mzxid: i64::from_be_bytes(header[9..17].try_into().ok()?),
            version: i32::from_be_bytes(header[17..21].try_into().ok()?),
            ephemeral_owner: 0,
            created_children: u32::from_be_bytes(header[21..25].try_into().ok()?),
            data: Bytes::copy_from_slice(data),
        })
    }
}

/// Key of a node in memory. The path is legal.
pub(super) fn key(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((_, "")) | None => String::new(),
        Some((parent, name)) => format!("{parent}\0{name}"),
    }
}

/// Path of the parent of a node other than the root.
pub(super) fn parent_path(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// Path of a key.
fn path_of(key: &str) -> String {
    if key.is_empty() { "/".into() } else { key.replacen('\0', "/", 1) }
}

/// Key on disk.
pub(super) fn disk_key(key: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(key.len() + 1);
    bytes.put_u8(NODE_TAG);
    bytes.put_slice(key.as_bytes());
    bytes.freeze()
}

/// Reads [`disk_key`] back; `None` for other keys.
pub(super) fn key_from_disk(bytes: &[u8]) -> Option<String> {
    let (&tag, key) = bytes.split_first()?;
    if tag != NODE_TAG {
        return None;
    }
    String::from_utf8(key.to_vec()).ok()
}

/// What happened to a node; decides which watches fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Created(String),
    DataChanged(String),
    Deleted(String),
}

/// What transactions have changed: former nodes in the order of the changes, to undo them backwards, and events.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) former: Vec<(String, Option<Node>)>,
    pub(super) events: Vec<Event>,
}

/// The session that acts, and its transaction id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transaction {
    pub(super) zxid: i64,
    pub(super) session: i64,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Takes the nodes read from disk and adds the root if it is not among them.
    pub(super) fn new(nodes: Vec<(String, Node)>) -> Tree {
        let mut nodes: BTreeMap<_, _> = nodes.into_iter().collect();
        nodes.entry(String::new()).or_default();
        Tree { nodes }
    }

    /// By key.
    pub(super) fn node(&self, key: &str) -> Option<&Node> {
        self.nodes.get(key)
    }

    /// By path.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&key(path))
    }

    /// Names of the children in order. The node need not exist.
    pub(super) fn children(&self, path: &str) -> impl Iterator<Item = &str> {
        let parent = if path == "/" { "" } else { path };
        let prefix_bytes = parent.len() + 1;
        self.nodes.range(format!("{parent}\0")..format!("{parent}\u{1}")).map(move |(key, _)| &key[prefix_bytes..])
    }

    /// Highest transaction id in the tree.
    pub(super) fn last_zxid(&self) -> i64 {
        self.nodes.values().map(|node| node.czxid.max(node.mzxid)).max().unwrap_or(0)
    }

    /// Paths of the ephemerals whose owner satisfies the predicate.
    pub(super) fn ephemerals(&self, mut owner: impl FnMut(i64) -> bool) -> Vec<String> {
        let mine = self.nodes.iter().filter(|(_, node)| node.is_ephemeral() && owner(node.ephemeral_owner));
        mine.map(|(key, _)| path_of(key)).collect()
    }

    /// Removes the ephemerals whose owner satisfies the predicate, outside any transaction.
    pub(super) fn forget_ephemerals(&mut self, mut owner: impl FnMut(i64) -> bool) {
        self.nodes.retain(|_, node| !(node.is_ephemeral() && owner(node.ephemeral_owner)));
    }

    /// All operations or none. Later ones see what earlier ones did, as in ZooKeeper.
    pub(super) fn multi(
        &mut self,
        ops: &[Op],
        transaction: Transaction,
        changes: &mut Changes,
    ) -> Result<Vec<OpResult>, MultiError> {
        let (former_count, event_count) = (changes.former.len(), changes.events.len());
        let mut results = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            match self.apply(op, transaction, changes) {
                Ok(result) => results.push(result),
                Err(error) => {
                    self.undo(changes.former.split_off(former_count));
                    changes.events.truncate(event_count);
                    return Err(MultiError { index, error });
                }
            }
        }
        Ok(results)
    }

    /// Puts former nodes back, the latest change first.
    pub(super) fn undo(&mut self, former: Vec<(String, Option<Node>)>) {
        for (key, node) in former.into_iter().rev() {
            match node {
                Some(node) => self.nodes.insert(key, node),
                None => self.nodes.remove(&key),
            };
        }
    }

    fn apply(
        &mut self,
        op: &Op,
        transaction: Transaction,
        changes: &mut Changes,
    ) -> Result<OpResult, CoordinationError> {
        match op {
            Op::Check { path, version } => {
                self.expect(path, *version)?;
                Ok(OpResult::Checked)
            }
            Op::Create { path, data, mode } => {
                self.create(path, data, *mode, transaction, changes).map(OpResult::Created)
            }
            Op::Set { path, data, version } => {
                self.expect(path, *version)?;
                let key = key(path);
                let node = self.nodes.get_mut(&key).expect("the line above found it");
                changes.former.push((key, Some(node.clone())));
                changes.events.push(Event::DataChanged(path.clone()));
                node.data = data.clone();
                node.version = node.version.wrapping_add(1);
                node.mzxid = transaction.zxid;
                Ok(OpResult::Set(node.stat()))
            }
            Op::Delete { path, version } => {
                self.expect(path, *version)?;
                if path == "/" {
                    return Err(CoordinationError::Refused("the root cannot be deleted".into()));
                }
                if self.children(path).next().is_some() {
                    return Err(CoordinationError::NotEmpty(path.clone()));
                }
                let key = key(path);
                let node = self.nodes.remove(&key);
                changes.former.push((key, node));
                changes.events.push(Event::Deleted(path.clone()));
                Ok(OpResult::Deleted)
            }
        }
    }

    /// The node exists in that version; −1 is any.
    fn expect(&self, path: &str, version: i32) -> Result<(), CoordinationError> {
        check_path(path)?;
        let node = self.get(path).ok_or_else(|| CoordinationError::NoNode(path.into()))?;
        if version != -1 && version != node.version {
            return Err(CoordinationError::BadVersion(path.into()));
        }
        Ok(())
    }

    fn create(
        &mut self,
        path: &str,
        data: &Bytes,
        mode: CreateMode,
        transaction: Transaction,
        changes: &mut Changes,
    ) -> Result<String, CoordinationError> {
        let sequential = mode == CreateMode::PersistentSequential;
        // A sequential path may end with a slash: its name is then the number alone.
        if sequential {
            check_path(&format!("{path}0"))?
        } else {
            check_path(path)?
        }
        if path == "/" && !sequential {
            return Err(CoordinationError::NodeExists(path.into()));
        }
        let parent_key = key(parent_path(path));
        let parent = self.nodes.get(&parent_key).ok_or_else(|| CoordinationError::NoNode(path.into()))?;
        if parent.is_ephemeral() {
            return Err(CoordinationError::NoChildrenForEphemerals(path.into()));
        }
        let path = if sequential { format!("{path}{:010}", parent.created_children) } else { path.to_owned() };
        let key = key(&path);
        if self.nodes.contains_key(&key) {
            return Err(CoordinationError::NodeExists(path));
        }
        let parent = self.nodes.get_mut(&parent_key).expect("found above");
        if sequential {
            changes.former.push((parent_key, Some(parent.clone())));
        }
        parent.created_children = parent.created_children.wrapping_add(1);
        let node = Node {
            czxid: transaction.zxid,
            mzxid: transaction.zxid,
            version: 0,
            ephemeral_owner: if mode == CreateMode::Ephemeral { transaction.session } else { 0 },
            created_children: 0,
            data: data.clone(),
        };
        self.nodes.insert(key.clone(), node);
        changes.former.push((key, None));
        changes.events.push(Event::Created(path.clone()));
        Ok(path)
    }
}
