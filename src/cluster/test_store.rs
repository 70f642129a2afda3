//! A tree in memory behind the coordination seam, for the tests of `cluster` and `controller` alone: several sessions
//! on one tree, expiry at will, and a count of rounds. The products are in `coordination`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::coordination::{
    Answer, Changed, Coordination, CoordinationError, CreateMode, MultiError, Op, OpResult, Session, Stat,
};

#[derive(Debug, Clone)]
struct Node {
    data: Bytes,
    stat: Stat,
    sequence: i32,
}

#[derive(Debug, Default)]
struct Tree {
    nodes: BTreeMap<String, Node>,
    zxid: i64,
    sessions: i64,
    node_watches: HashMap<String, Vec<oneshot::Sender<()>>>,
    child_watches: HashMap<String, Vec<oneshot::Sender<()>>>,
}

#[derive(Debug)]
pub(crate) struct TestStore {
    tree: Arc<Mutex<Tree>>,
    session: watch::Sender<Session>,
    /// Calls of `multi_all`.
    pub(crate) rounds: AtomicUsize,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Tree {
    fn children(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        let names = self.nodes.range(prefix.clone()..).take_while(|(child, _)| child.starts_with(&prefix));
        names.map(|(child, _)| child[prefix.len()..].to_owned()).filter(|name| !name.contains('/')).collect()
    }

    fn fire(&mut self, path: &str, children_too: bool) {
        let mut watches = self.node_watches.remove(path).unwrap_or_default();
        if children_too {
            watches.extend(self.child_watches.remove(parent(path)).unwrap_or_default());
        }
        for watch in watches {
            let _ = watch.send(());
        }
    }

    fn apply(&mut self, op: &Op, session: i64) -> Result<(OpResult, String, bool), CoordinationError> {
        let version_of = |tree: &Self, path: &str, version: i32| match tree.nodes.get(path) {
            None => Err(CoordinationError::NoNode(path.into())),
            Some(node) if version >= 0 && node.stat.version != version => {
                Err(CoordinationError::BadVersion(path.into()))
            }
            Some(_) => Ok(()),
        };
        match op {
            Op::Check { path, version } => {
                version_of(self, path, *version)?;
                Ok((OpResult::Checked, String::new(), false))
            }
            Op::Create { path, data, mode } => {
                let mut path = path.clone();
                if !parent(&path).is_empty() {
                    let above = self.nodes.get_mut(parent(&path));
                    let above = above.ok_or_else(|| CoordinationError::NoNode(path.clone()))?;
                    if *mode == CreateMode::PersistentSequential {
                        path = format!("{path}{:010}", above.sequence);
                        above.sequence += 1;
                    }
                }
                if self.nodes.contains_key(&path) {
                    return Err(CoordinationError::NodeExists(path));
                }
                let owner = if *mode == CreateMode::Ephemeral { session } else { 0 };
                let stat = Stat { czxid: self.zxid, mzxid: self.zxid, version: 0, ephemeral_owner: owner };
                self.nodes.insert(path.clone(), Node { data: data.clone(), stat, sequence: 0 });
                Ok((OpResult::Created(path.clone()), path, true))
            }
            Op::Set { path, data, version } => {
                version_of(self, path, *version)?;
                let zxid = self.zxid;
                let node = self.nodes.get_mut(path).expect("its version was read");
                node.data = data.clone();
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                Ok((OpResult::Set(node.stat), path.clone(), false))
            }
            Op::Delete { path, version } => {
                version_of(self, path, *version)?;
                if !self.children(path).is_empty() {
                    return Err(CoordinationError::NotEmpty(path.clone()));
                }
                self.nodes.remove(path);
                Ok((OpResult::Deleted, path.clone(), true))
            }
        }
    }

    fn multi(&mut self, ops: &[Op], session: i64) -> Result<Vec<OpResult>, MultiError> {
        let before = self.nodes.clone();
        self.zxid += 1;
        let mut results = Vec::new();
        let mut touched = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.apply(op, session) {
                Ok((result, path, children_too)) => {
                    results.push(result);
                    touched.push((path, children_too));
                }
                Err(error) => {
                    self.nodes = before;
                    return Err(MultiError { index, error });
                }
            }
        }
        for (path, children_too) in touched {
            self.fire(&path, children_too);
        }
        Ok(results)
    }
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::on(Arc::default())
    }

    /// Another session on the same tree.
    pub(crate) fn sibling(&self) -> Arc<Self> {
        Self::on(self.tree.clone())
    }

    fn on(tree: Arc<Mutex<Tree>>) -> Arc<Self> {
        let id = {
            let mut tree = tree.lock();
            tree.sessions += 1;
            tree.sessions
        };
        Arc::new(Self { tree, session: watch::Sender::new(Session::Connected(id)), rounds: AtomicUsize::new(0) })
    }

    /// Expires this session: its ephemerals go, its calls fail until `reconnect`.
    pub(crate) fn expire(&self) {
        let Session::Connected(id) = self.session.send_replace(Session::Expired) else { return };
        self.drop_ephemerals(id);
    }

    fn drop_ephemerals(&self, id: i64) {
        let mut tree = self.tree.lock();
        let owned = |node: &Node| node.stat.ephemeral_owner == id;
        let paths: Vec<_> = tree.nodes.iter().filter(|(_, node)| owned(node)).map(|(path, _)| path.clone()).collect();
        for path in paths {
            let _ = tree.multi(&[Op::Delete { path, version: -1 }], id);
        }
    }

    fn session_id(&self) -> Result<i64, CoordinationError> {
        match *self.session.borrow() {
            Session::Connected(id) => Ok(id),
            _ => Err(CoordinationError::SessionExpired),
        }
    }

    fn run(&self, ops: &[Op]) -> Result<Vec<OpResult>, MultiError> {
        let session = self.session_id().map_err(|error| MultiError { index: 0, error })?;
        self.tree.lock().multi(ops, session)
    }

    fn one(&self, op: Op) -> Result<OpResult, CoordinationError> {
        let mut results = self.run(&[op]).map_err(|refused| refused.error)?;
        Ok(results.remove(0))
    }

    fn read(&self, path: &str) -> Result<Option<(Bytes, Stat)>, CoordinationError> {
        self.session_id()?;
        Ok(self.tree.lock().nodes.get(path).map(|node| (node.data.clone(), node.stat)))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        self.session_id()?;
        let tree = self.tree.lock();
        match tree.nodes.contains_key(path) {
            true => Ok(tree.children(path)),
            false => Err(CoordinationError::NoNode(path.into())),
        }
    }
}

impl Coordination for TestStore {
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)> {
        let result = self.one(Op::Create { path: path.into(), data, mode }).and_then(|result| {
            let OpResult::Created(path) = result else { unreachable!("a create answers Created") };
            let (_, stat) = self.read(&path)?.expect("it was just made");
            Ok((path, stat))
        });
        ready(result).boxed()
    }

    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>> {
        ready(self.read(path)).boxed()
    }

    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)> {
        let (sender, changed) = oneshot::channel();
        let result = self.read(path).map(|node| (node, changed));
        self.tree.lock().node_watches.entry(path.into()).or_default().push(sender);
        ready(result).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>> {
        ready(self.list(path)).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)> {
        let (sender, changed) = oneshot::channel();
        let result = self.list(path).map(|names| (names, changed));
        self.tree.lock().child_watches.entry(path.into()).or_default().push(sender);
        ready(result).boxed()
    }

    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat> {
        let result = self.one(Op::Set { path: path.into(), data, version });
        ready(result.map(|result| match result {
            OpResult::Set(stat) => stat,
            _ => unreachable!("a set answers Set"),
        }))
        .boxed()
    }

    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()> {
        ready(self.one(Op::Delete { path: path.into(), version }).map(|_| ())).boxed()
    }

    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>> {
        ready(self.run(&ops)).boxed()
    }

    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>> {
        self.rounds.fetch_add(1, Ordering::SeqCst);
        ready(batches.iter().map(|ops| self.run(ops)).collect()).boxed()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.session.subscribe()
    }

    fn reconnect(&self) -> Answer<'_, ()> {
        let id = {
            let mut tree = self.tree.lock();
            tree.sessions += 1;
            tree.sessions
        };
        self.session.send_replace(Session::Connected(id));
        ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        if let Session::Connected(id) = self.session.send_replace(Session::Closed) {
            self.drop_ephemerals(id);
        }
        ready(()).boxed()
    }
}
