//! ZooKeeper's data model in this process, kept in the first log directory. The default for one node.
//!
//! Reads are answered from memory; writes are applied to memory at once, in the order of the calls, and their answers
//! wait for the log directory. Knows nothing of what the nodes mean.
//!
//! - **Rounds.** While one commit runs, further writes gather; they are committed and synced together. So a thousand
//!   concurrent multis, or one `multi_all` of a thousand, cost one or two syncs.
//! - **Nothing shown can be undone.** Answers, reads of a changed tree and watches wait until the round is on disk. If
//!   the disk is full, the round and what gathered behind it are taken back and refused. If the directory goes offline,
//!   those waiting get `Unknown`, later calls `Refused`, and the session shows `Disconnected` until the process ends.
//! - **The session is the process.** Ephemerals live in memory only. `connect` gives further sessions on the same tree.
//! - **Transaction ids** rise over restarts: a block of them is reserved in the first round that uses it, so opening
//!   writes nothing.

mod tree;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch as published};

use self::tree::{Changes, Node, Transaction, Tree, ZXID_KEY};
use self::watch::{Fired, Kind, Watches, wake};
use super::{
    Answer, Changed, Coordination, CoordinationError, CreateMode, MultiError, Op, OpResult, Session, Stat, check_path,
    check_size,
};
use crate::storage::{self, SharedLogDir, StorageError, Write, WriteSet};
use crate::task;

/// Transaction ids reserved at a time. A restart skips the unused rest of a block.
const ZXID_BLOCK: i64 = 1 << 16;

/// How long a call waits for the log directory before its outcome is unknown.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where a session's state is shown; the same channel for all sessions that its owner has one after the other.
type Published = Arc<published::Sender<Session>>;

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Durable,
    /// Taken back: the disk is full.
    Undone,
    /// The directory failed; the round may or may not be on disk.
    Lost,
}

/// Changes that reach the disk together.
#[derive(Debug, Default)]
struct Round {
    changes: Changes,
    /// The reservation of transaction ids goes with it.
    reserves: bool,
    fired: Fired,
    waiters: Vec<oneshot::Sender<Outcome>>,
}

impl Round {
    fn is_empty(&self) -> bool {
        self.changes.former.is_empty() && !self.reserves && self.fired.is_empty() && self.waiters.is_empty()
    }

    fn finish(self, outcome: Outcome) {
        for waiter in self.waiters {
            // A call that ran out of time no longer waits.
            let _ = waiter.send(outcome);
        }
        wake(self.fired);
    }
}

#[derive(Debug)]
struct State {
    tree: Tree,
    watches: Watches,
    sessions: BTreeMap<i64, Published>,
    /// Last transaction id given.
    zxid: i64,
    /// Highest transaction id of the block in use.
    zxid_reserved: i64,
    gathering: Round,
    committing: Option<Round>,
    /// A task is committing rounds.
    driven: bool,
    /// Why the directory takes no more writes.
    failed: Option<Arc<str>>,
}

#[derive(Debug)]
struct SharedTree {
    dir: SharedLogDir,
    state: Mutex<State>,
}

/// One session on the embedded tree.
#[derive(Debug)]
pub(crate) struct EmbeddedCoordination {
    shared: Arc<SharedTree>,
    session: Published,
}

impl EmbeddedCoordination {
    /// Reads the tree of a log directory and opens the first session on it. Blocks on the disk; writes nothing.
    pub(crate) fn open(dir: SharedLogDir) -> Result<EmbeddedCoordination, StorageError> {
        let mut nodes = Vec::new();
        let mut zxid = 0;
        let mut unreadable = None;
        dir.scan_tree(&mut |key, value| {
            if key == ZXID_KEY
                && let Ok(value) = value.try_into()
            {
                zxid = i64::from_be_bytes(value);
            } else if let (Some(key), Some(node)) = (tree::key_from_disk(key), Node::decode(value)) {
                nodes.push((key, node));
            } else {
                unreadable = Some(format!("embedded tree: no readable node under the key {key:02x?}"));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(reason) = unreadable {
            return Err(StorageError::Read { dir: dir.path(), reason: reason.into() });
        }
        let tree = Tree::new(nodes);
        let zxid = zxid.max(tree.last_zxid());
        let state = State {
            tree,
            watches: Watches::default(),
            sessions: BTreeMap::new(),
            zxid,
            zxid_reserved: zxid,
            gathering: Round::default(),
            committing: None,
            driven: false,
            failed: None,
        };
        Ok(SharedTree::connect(Arc::new(SharedTree { dir, state: Mutex::new(state) })))
    }

    /// Another session on the same tree, as if another process had connected.
    #[cfg(test)]
    pub(crate) fn connect(&self) -> EmbeddedCoordination {
        SharedTree::connect(Arc::clone(&self.shared))
    }

    /// Ends the session as an ensemble does that has not heard of its owner for too long.
    #[cfg(test)]
    pub(crate) async fn expire(&self) {
        self.end(Session::Expired).await;
    }

    /// The session's id, if it lives.
    fn session_id(&self) -> Result<i64, CoordinationError> {
        match *self.session.borrow() {
            Session::Connected(id) | Session::Disconnected(id) => Ok(id),
            Session::Expired => Err(CoordinationError::SessionExpired),
            Session::Closed => Err(CoordinationError::Refused("the session is closed".into())),
        }
    }

    /// Applies batches, each whole or not at all, and waits until they are on disk. Answers the last transaction's id,
    /// too.
    async fn write(&self, batches: &[Vec<Op>]) -> (Vec<MultiResult>, i64) {
        let all = |error: CoordinationError| vec![Err(MultiError { index: 0, error }); batches.len()];
        let (results, zxid, waiter) = match self.apply(batches) {
            Ok(applied) => applied,
            Err(error) => return (all(error), 0),
        };
        // A refusal rests on what gathered before it; if that is taken back, the refusal is as void as a success.
        let error = match wait(waiter).await {
            Some(Outcome::Durable) => return (results, zxid),
            Some(Outcome::Undone) => CoordinationError::Refused("the log directory has no space left".into()),
            Some(Outcome::Lost) => CoordinationError::Unknown("the log directory failed".into()),
            None => CoordinationError::Unknown(format!("the log directory took more than {COMMIT_WAIT_MAX:?}")),
        };
        (all(error), 0)
    }

    fn apply(&self, batches: &[Vec<Op>]) -> Result<(Vec<MultiResult>, i64, Option<Waiter>), CoordinationError> {
        let mut state = self.shared.state.lock();
        let session = self.session_id()?;
        state.check_alive()?;
        let mut results = Vec::with_capacity(batches.len());
        for ops in batches {
            results.push(match check_size(ops) {
                Ok(()) => state.multi(ops, session),
                Err(error) => Err(MultiError { index: 0, error }),
            });
        }
        let waiter = SharedTree::settle(&self.shared, &mut state);
        Ok((results, state.zxid, waiter))
    }

    /// Applies one operation. Answers its transaction's id, too.
    async fn write_one(&self, op: Op) -> Result<(OpResult, i64), CoordinationError> {
        let (mut results, zxid) = self.write(&[vec![op]]).await;
        let mut results = results.pop().expect("one answer for one batch").map_err(|refused| refused.error)?;
        Ok((results.pop().expect("one result for one operation"), zxid))
    }

    /// Reads, and waits until what was read is on disk.
    async fn read<T: Send>(
        &self,
        mut look: impl FnMut(&mut State, i64) -> Result<T, CoordinationError> + Send,
    ) -> Result<T, CoordinationError> {
        loop {
            let (result, waiter) = {
                let mut state = self.shared.state.lock();
                let session = self.session_id()?;
                state.check_alive()?;
                let result = look(&mut state, session);
                (result, state.wait_for_pending())
            };
            match wait(waiter).await {
                Some(Outcome::Durable) => return result,
                Some(Outcome::Undone) => {}
                Some(Outcome::Lost) => return Err(CoordinationError::Unknown("the log directory failed".into())),
                None => return Err(CoordinationError::Unknown(format!("no answer in {COMMIT_WAIT_MAX:?}"))),
            }
        }
    }

    /// Ends the session, removes its ephemerals and resolves its watches.
    async fn end(&self, how: Session) {
        let waiter = {
            let mut state = self.shared.state.lock();
            let Ok(session) = self.session_id() else { return };
            if let Some(published) = state.sessions.remove(&session) {
                published.send_replace(how);
            }
            let delete = |path| Op::Delete { path, version: -1 };
            let ops: Vec<_> = state.tree.ephemerals(|owner| owner == session).into_iter().map(delete).collect();
            state.multi(&ops, session).expect("an ephemeral has no children and so can be deleted");
            let State { watches, gathering, .. } = &mut *state;
            watches.take_session(session, &mut gathering.fired);
            SharedTree::settle(&self.shared, &mut state)
        };
        wait(waiter).await;
    }
}

/// Tells what became of a round.
type Waiter = oneshot::Receiver<Outcome>;

/// What a multi answers.
type MultiResult = Result<Vec<OpResult>, MultiError>;

/// Waits for a round; `None` after [`COMMIT_WAIT_MAX`].
async fn wait(waiter: Option<Waiter>) -> Option<Outcome> {
    let Some(waiter) = waiter else { return Some(Outcome::Durable) };
    let outcome = tokio::time::timeout(COMMIT_WAIT_MAX, waiter).await.ok()?;
    Some(outcome.unwrap_or(Outcome::Lost))
}

impl State {
    fn check_alive(&self) -> Result<(), CoordinationError> {
        match &self.failed {
            Some(reason) => Err(CoordinationError::Refused(reason.to_string())),
            None => Ok(()),
        }
    }

    fn children(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        check_path(path)?;
        if self.tree.get(path).is_none() {
            return Err(CoordinationError::NoNode(path.into()));
        }
        Ok(self.tree.children(path).map(str::to_owned).collect())
    }

    /// Applies a multi to memory and to the gathering round.
    fn multi(&mut self, ops: &[Op], session: i64) -> MultiResult {
        let events_before = self.gathering.changes.events.len();
        let transaction = Transaction { zxid: self.zxid + 1, session };
        let changed_before = self.gathering.changes.former.len();
        let results = self.tree.multi(ops, transaction, &mut self.gathering.changes)?;
        if self.gathering.changes.former.len() > changed_before {
            self.zxid += 1;
        }
        for event in self.gathering.changes.events.drain(events_before..) {
            self.watches.take(&event, &mut self.gathering.fired);
        }
        if self.zxid > self.zxid_reserved {
            self.zxid_reserved = self.zxid + ZXID_BLOCK;
            self.gathering.reserves = true;
        }
        Ok(results)
    }

    /// The gathering round holds something for the disk.
    fn must_commit(&self) -> bool {
        let former = &self.gathering.changes.former;
        self.gathering.reserves || former.iter().any(|(key, before)| self.is_durable(key, before.as_ref()))
    }

    fn is_durable(&self, key: &str, before: Option<&Node>) -> bool {
        let persistent = |node: Option<&Node>| node.is_some_and(|node| !node.is_ephemeral());
        persistent(before) || persistent(self.tree.node(key))
    }

    /// A waiter for everything that is in memory and not yet on disk, if there is any.
    fn wait_for_pending(&mut self) -> Option<Waiter> {
        let round = if self.gathering.is_empty() { self.committing.as_mut()? } else { &mut self.gathering };
        let (sender, receiver) = oneshot::channel();
        round.waiters.push(sender);
        Some(receiver)
    }

    /// Moves the gathered round to the disk's side. `None`: nothing has gathered.
    fn next_round(&mut self) -> Option<WriteSet> {
        if self.gathering.is_empty() {
            return None;
        }
        let round = std::mem::take(&mut self.gathering);
        let mut set = WriteSet::default();
        let mut seen = BTreeSet::new();
        for (key, before) in &round.changes.former {
            // The first former node of a key is what the disk has.
            if !seen.insert(key) || !self.is_durable(key, before.as_ref()) {
                continue;
            }
            let key_on_disk = tree::disk_key(key);
            set.writes.push(match self.tree.node(key).filter(|node| !node.is_ephemeral()) {
                Some(node) => Write::Tree { key: key_on_disk, value: node.encode() },
                None => Write::DeleteTree { key: key_on_disk },
            });
        }
        // A reservation alone need not outlive a loss of power: its ids were not seen outside this process.
        set.sync = !set.writes.is_empty();
        if round.reserves {
            let value = Bytes::copy_from_slice(&self.zxid_reserved.to_be_bytes());
            set.writes.push(Write::Tree { key: Bytes::from_static(ZXID_KEY), value });
        }
        self.committing = Some(round);
        Some(set)
    }

    /// Closes the books on the round that was being committed.
    fn on_committed(&mut self, result: Result<(), StorageError>) {
        let round = self.committing.take().expect("a round is finished once, by the task that started it");
        match result {
            Ok(()) => round.finish(Outcome::Durable),
            Err(StorageError::Full { .. }) => {
                let gathered = std::mem::take(&mut self.gathering);
                self.undo(gathered);
                self.undo(round);
                // The reservation may have been in it.
                self.zxid_reserved = self.zxid;
                // A session that ended in these rounds stays ended.
                let sessions = &self.sessions;
                self.tree.forget_ephemerals(|owner| !sessions.contains_key(&owner));
            }
            Err(error) => {
                tracing::error!(%error, "the embedded coordination tree can no longer be written");
                self.failed = Some(error.to_string().into());
                for (&id, session) in &self.sessions {
                    session.send_replace(Session::Disconnected(id));
                }
                round.finish(Outcome::Lost);
                std::mem::take(&mut self.gathering).finish(Outcome::Lost);
            }
        }
    }

    fn open_session(&mut self, published: &Published) {
        // As in ZooKeeper, opening a session is a transaction; its id is never zero, which would mean "persistent".
        self.zxid += 1;
        self.sessions.insert(self.zxid, Arc::clone(published));
        published.send_replace(Session::Connected(self.zxid));
    }

    fn undo(&mut self, mut round: Round) {
        self.tree.undo(std::mem::take(&mut round.changes.former));
        round.finish(Outcome::Undone);
    }
}

impl SharedTree {
    fn connect(shared: Arc<SharedTree>) -> EmbeddedCoordination {
        let session = Arc::new(published::Sender::new(Session::Expired));
        shared.state.lock().open_session(&session);
        EmbeddedCoordination { shared, session }
    }

    /// After changes to memory: completes them if the disk has no part in them, else sees that they are committed.
    fn settle(shared: &Arc<SharedTree>, state: &mut State) -> Option<Waiter> {
        if state.committing.is_none() && !state.driven && !state.must_commit() {
            std::mem::take(&mut state.gathering).finish(Outcome::Durable);
            return None;
        }
        let waiter = state.wait_for_pending();
        if !state.driven {
            state.driven = true;
            task::spawn_owner("coordination-writer", SharedTree::drive(Arc::clone(shared)));
        }
        waiter
    }

    /// Commits rounds until nothing has gathered.
    async fn drive(shared: Arc<SharedTree>) {
        loop {
            let set = {
                let mut state = shared.state.lock();
                let Some(set) = state.next_round() else {
                    state.driven = false;
                    return;
                };
                set
            };
            let result = if set.writes.is_empty() { Ok(()) } else { storage::commit(shared.dir.as_ref(), set).await };
            shared.state.lock().on_committed(result);
        }
    }
}

impl Coordination for EmbeddedCoordination {
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)> {
        async move {
            let session = self.session_id()?;
            let create = Op::Create { path: path.to_owned(), data, mode };
            let (OpResult::Created(path), zxid) = self.write_one(create).await? else {
                unreachable!("a create answers Created");
            };
            let ephemeral_owner = if mode == CreateMode::Ephemeral { session } else { 0 };
            Ok((path, Stat { czxid: zxid, mzxid: zxid, version: 0, ephemeral_owner }))
        }
        .boxed()
    }

    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>> {
        self.read(move |state, _| {
            check_path(path)?;
            Ok(state.tree.get(path).map(|node| (node.data(), node.stat())))
        })
        .boxed()
    }

    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)> {
        self.read(move |state, session| {
            check_path(path)?;
            let found = state.tree.get(path).map(|node| (node.data(), node.stat()));
            Ok((found, state.watches.add(Kind::Data, path, session)))
        })
        .boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>> {
        self.read(move |state, _| state.children(path)).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)> {
        self.read(move |state, session| {
            let children = state.children(path)?;
            Ok((children, state.watches.add(Kind::Children, path, session)))
        })
        .boxed()
    }

    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat> {
        async move {
            match self.write_one(Op::Set { path: path.to_owned(), data, version }).await? {
                (OpResult::Set(stat), _) => Ok(stat),
                (other, _) => unreachable!("a set answers Set, not {other:?}"),
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()> {
        async move { self.write_one(Op::Delete { path: path.to_owned(), version }).await.map(drop) }.boxed()
    }

    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>> {
        async move { self.write(&[ops]).await.0.pop().expect("one answer for one batch") }.boxed()
    }

    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>> {
        async move { self.write(&batches).await.0 }.boxed()
    }

    fn session(&self) -> published::Receiver<Session> {
        self.session.subscribe()
    }

    fn reconnect(&self) -> Answer<'_, ()> {
        async move {
            let mut state = self.shared.state.lock();
            if *self.session.borrow() == Session::Expired {
                state.open_session(&self.session);
            }
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end(Session::Closed).boxed()
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
