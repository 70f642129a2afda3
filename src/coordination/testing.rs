//! A store that fails by a script, around the embedded tree. For tests of whoever writes to it.
//!
//! What happens to a call of a real ensemble when the network, the server or the session goes away between question
//! and answer. A rule says which calls it is about (reads or writes, a path and all below it), which of them it
//! strikes, and what becomes of them. Rules outlive the store, so that one can be armed before a start.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::embedded::EmbeddedCoordination;
use super::{Answer, Changed, Coordination, CoordinationError, CreateMode, MultiError, Op, OpResult, Session, Stat};

/// What becomes of a call that a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is carried out, and its answer is lost: `Unknown`.
    LoseAnswer,
    /// It is lost on its way and not carried out: `Unknown`, too.
    LoseRequest,
    /// Not carried out: `Refused`.
    Refuse,
    /// The same of the node alone, as one that may not be changed: in a multi the operation is named.
    Forbid,
    /// The session expires before it arrives: its ephemerals are gone, and it is not carried out.
    Expire,
}

/// Whether a rule is about calls that read, or that write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// One line of a script. It strikes every such call from now on until it is lifted, or so many.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    fate: Fate,
    access: Access,
    /// The path and all below it.
    below: String,
    pass: u64,
    strikes: Option<u64>,
}

impl Rule {
    pub(crate) fn new(fate: Fate, access: Access, below: &str) -> Self {
        Self { fate, access, below: below.to_owned(), pass: 0, strikes: None }
    }

    /// Lets so many calls pass first.
    pub(crate) fn after(self, pass: u64) -> Self {
        Self { pass, ..self }
    }

    /// Strikes so many calls and no more.
    pub(crate) fn times(self, strikes: u64) -> Self {
        Self { strikes: Some(strikes), ..self }
    }

    fn is_about(&self, access: Access, path: &str) -> bool {
        let within = |rest: &str| rest.is_empty() || rest.starts_with('/') || self.below == "/";
        self.access == access && path.strip_prefix(self.below.as_str()).is_some_and(within)
    }

    fn strike(&mut self) -> bool {
        if self.pass > 0 {
            self.pass -= 1;
            return false;
        }
        match &mut self.strikes {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        true
    }
}

/// Names a rule to [`Faults::met`] and [`Faults::lift`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleId(usize);

#[derive(Debug)]
struct Scripted {
    rule: Rule,
    met: u64,
    lifted: bool,
}

/// The switchboard of a [`FaultyCoordination`].
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Scripted>>,
}

impl Faults {
    /// Adds a rule to the script; it holds from now on.
    pub(crate) fn script(&self, rule: Rule) -> RuleId {
        let mut rules = self.rules.lock();
        rules.push(Scripted { rule, met: 0, lifted: false });
        RuleId(rules.len() - 1)
    }

    /// How many calls a rule has struck.
    pub(crate) fn met(&self, rule: RuleId) -> u64 {
        self.rules.lock()[rule.0].met
    }

    /// Takes a rule back.
    pub(crate) fn lift(&self, rule: RuleId) {
        self.rules.lock()[rule.0].lifted = true;
    }

    fn is_empty(&self) -> bool {
        self.rules.lock().iter().all(|line| line.lifted)
    }

    /// What becomes of a call, and for which of its paths.
    fn judge(&self, access: Access, paths: &[&str]) -> Option<(Fate, usize)> {
        let mut rules = self.rules.lock();
        for line in rules.iter_mut().filter(|line| !line.lifted) {
            let at = paths.iter().position(|path| line.rule.is_about(access, path));
            if let Some(at) = at
                && line.rule.strike()
            {
                line.met += 1;
                return Some((line.rule.fate, at));
            }
        }
        None
    }
}

/// The wrapped store.
#[derive(Debug)]
pub(crate) struct FaultyCoordination {
    inner: Arc<EmbeddedCoordination>,
    faults: Arc<Faults>,
}

impl FaultyCoordination {
    /// Wraps a store under the rules that are armed already.
    pub(crate) fn under(inner: Arc<EmbeddedCoordination>, faults: Arc<Faults>) -> Arc<Self> {
        Arc::new(Self { inner, faults })
    }

    /// Meets a call before it is carried out. `Ok(true)`: carry it out and lose the answer.
    async fn meet(&self, access: Access, paths: &[&str]) -> Result<bool, MultiError> {
        let failed = |index, error| Err(MultiError { index, error });
        let refused = || CoordinationError::Refused("injected fault".into());
        match self.faults.judge(access, paths) {
            None => Ok(false),
            Some((Fate::LoseAnswer, _)) => Ok(true),
            Some((Fate::LoseRequest, _)) => failed(0, lost()),
            Some((Fate::Refuse, _)) => failed(0, refused()),
            Some((Fate::Forbid, at)) => failed(at, refused()),
            Some((Fate::Expire, _)) => {
                self.inner.expire().await;
                failed(0, CoordinationError::SessionExpired)
            }
        }
    }

    async fn one<T>(
        &self,
        access: Access,
        path: &str,
        call: impl Future<Output = Result<T, CoordinationError>>,
    ) -> Result<T, CoordinationError> {
        let lose = self.meet(access, &[path]).await.map_err(|failed| failed.error)?;
        let answer = call.await;
        if lose { Err(lost()) } else { answer }
    }
}

fn lost() -> CoordinationError {
    CoordinationError::Unknown("injected fault".into())
}

impl Coordination for FaultyCoordination {
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)> {
        self.one(Access::Write, path, self.inner.create(path, data, mode)).boxed()
    }

    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>> {
        self.one(Access::Read, path, self.inner.get(path)).boxed()
    }

    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)> {
        self.one(Access::Read, path, self.inner.get_and_watch(path)).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>> {
        self.one(Access::Read, path, self.inner.children(path)).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)> {
        self.one(Access::Read, path, self.inner.children_and_watch(path)).boxed()
    }

    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat> {
        self.one(Access::Write, path, self.inner.set(path, data, version)).boxed()
    }

    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()> {
        self.one(Access::Write, path, self.inner.delete(path, version)).boxed()
    }

    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>> {
        async move {
            let paths: Vec<&str> = ops.iter().map(Op::path).collect();
            let lose = self.meet(Access::Write, &paths).await?;
            let answer = self.inner.multi(ops).await;
            if lose { Err(MultiError { index: 0, error: lost() }) } else { answer }
        }
        .boxed()
    }

    /// With rules each batch by itself, as ZooKeeper does it; none arrives after one that found the session gone.
    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>> {
        if self.faults.is_empty() {
            return self.inner.multi_all(batches);
        }
        async move {
            let mut answers = Vec::with_capacity(batches.len());
            for ops in batches {
                answers.push(self.multi(ops).await);
            }
            answers
        }
        .boxed()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.inner.session()
    }

    fn reconnect(&self) -> Answer<'_, ()> {
        self.inner.reconnect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::embedded::testing::TreeDir;

    fn store() -> (Arc<FaultyCoordination>, Arc<EmbeddedCoordination>, Arc<Faults>) {
        let (tree, faults) = (TreeDir::new().store(), Arc::new(Faults::default()));
        (FaultyCoordination::under(Arc::clone(&tree), Arc::clone(&faults)), tree, faults)
    }

    async fn create(store: &dyn Coordination, path: &str) -> Result<(), CoordinationError> {
        store.create(path, Bytes::new(), CreateMode::Persistent).await.map(drop)
    }

    #[tokio::test]
    async fn a_lost_answer_was_carried_out_and_a_lost_request_was_not() {
        let (store, tree, faults) = store();
        let rule = faults.script(Rule::new(Fate::LoseAnswer, Access::Write, "/a").times(1));
        faults.script(Rule::new(Fate::LoseRequest, Access::Write, "/b").times(1));
        for (path, there) in [("/a", true), ("/b", false)] {
            assert!(matches!(create(&*store, path).await, Err(CoordinationError::Unknown(_))));
            assert_eq!(tree.get(path).await.unwrap().is_some(), there, "{path}");
        }
        assert_eq!(create(&*store, "/ab").await, Ok(()), "another path");
        assert_eq!(faults.met(rule), 1);
    }

    #[tokio::test]
    async fn a_rule_strikes_writes_below_its_path_after_those_it_lets_pass() {
        let (store, _, faults) = store();
        let rule = faults.script(Rule::new(Fate::Refuse, Access::Write, "/a").after(1));
        create(&*store, "/a").await.unwrap();
        assert!(matches!(create(&*store, "/a/b").await, Err(CoordinationError::Refused(_))));
        assert!(store.get("/a").await.unwrap().is_some(), "reads pass");
        let multi =
            |path: &str| vec![Op::Create { path: path.into(), data: Bytes::new(), mode: CreateMode::Persistent }];
        let answers = store.multi_all(vec![multi("/c"), multi("/a/b"), multi("/d")]).await;
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        faults.lift(rule);
        create(&*store, "/a/b").await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_session_takes_its_ephemerals_and_ends_with_a_new_one() {
        let (store, _, faults) = store();
        store.create("/e", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
        faults.script(Rule::new(Fate::Expire, Access::Write, "/p").times(1));
        assert_eq!(create(&*store, "/p").await, Err(CoordinationError::SessionExpired));
        assert_eq!(*store.session().borrow(), Session::Expired);
        store.reconnect().await.unwrap();
        assert!(store.get("/e").await.unwrap().is_none());
        create(&*store, "/p").await.unwrap();
    }
}
