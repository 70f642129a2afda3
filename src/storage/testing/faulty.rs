//! A log directory that fails by a script, around any other one. For tests of the rooms above.
//!
//! The script is held by [`Faults`], which stays with the test; what a line of it can say stands in `script`. Rules
//! outlive the directory, so that one can be armed before a start; a stop does not, as I-6 says. What is struck keeps
//! the contract of `LogDir`: the order of `Done`, and that sets behind a refused one are refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

pub(crate) use super::script::{Fate, Operation, READS, Rule, WRITES};
use super::script::{Touched, kinds};
use crate::storage::{
    DiskBytes, Done, Family, LogDir, LogEndState, PartitionId, SharedLogDir, StorageError, VisitBatch, VisitPair,
    WriteSet,
};
use crate::types::Offset;

/// Told once why a directory has stopped.
type Listener = Box<dyn FnOnce(Arc<str>) + Send>;

/// Why a directory fails.
const REASON: &str = "injected fault";

/// Names a rule to [`Faults::met`] and [`Faults::lift`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleId(usize);

/// The wrapped directory.
#[derive(Debug)]
pub(crate) struct FaultyDir {
    inner: SharedLogDir,
    path: PathBuf,
    faults: Arc<Faults>,
    /// Which opening under these faults this is. An earlier one is a process that was killed: no rule is about it.
    opened: u64,
}

/// The switchboard of a [`FaultyDir`].
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    /// Signalled when a rule is lifted.
    lifted: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<Scripted>,
    /// Openings so far.
    opened: u64,
    stopped: bool,
    /// Told of the stop.
    listener: Option<Listener>,
    /// Refused sets that add batches and are not done yet, by family.
    refusals: HashMap<Family, u64>,
    /// `Some` while commits wait: they are queued here and go on in order when nothing makes them wait any more.
    held: Option<VecDeque<Queued>>,
}

struct Scripted {
    rule: Rule,
    met: u64,
    lifted: bool,
}

/// A set that waits, and where to.
struct Queued {
    dir: SharedLogDir,
    set: WriteSet,
    done: Done,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules: Vec<&Rule> = self.rules.iter().filter(|line| !line.lifted).map(|line| &line.rule).collect();
        let held = self.held.as_ref().map(VecDeque::len);
        write!(f, "stopped {}, held {held:?}, rules {rules:?}", self.stopped)
    }
}

impl FaultyDir {
    /// Wraps a directory; nothing fails until it is armed.
    pub(crate) fn around(inner: SharedLogDir) -> (Arc<Self>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let path = inner.path();
        (Self::under(inner, path, Arc::clone(&faults)), faults)
    }

    /// Wraps a directory that was opened anew, under the rules that are armed already. It goes by `path`.
    pub(crate) fn under(inner: SharedLogDir, path: PathBuf, faults: Arc<Faults>) -> Arc<Self> {
        let opened = {
            let mut state = faults.state.lock();
            state.stopped = false;
            state.listener = None;
            state.refusals.clear();
            state.opened += 1;
            state.opened
        };
        Arc::new(Self { inner, path, faults, opened })
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped { dir: self.path(), reason: REASON.into() }
    }

    /// Stops the directory and tells of it (I-6).
    fn stop(&self, state: &mut State) -> StorageError {
        state.stopped = true;
        if let Some(told) = state.listener.take() {
            told(REASON.into());
        }
        self.stopped()
    }

    fn is_stopped(&self, state: &State) -> bool {
        state.stopped && state.opened == self.opened
    }

    fn full(&self) -> StorageError {
        StorageError::Full { dir: self.path() }
    }

    /// The fate of a call that is one of these operations, by the first rule that strikes it, waiting aside.
    fn judge(&self, state: &mut State, operations: &[Operation], touched: &Touched<'_>) -> Option<Fate> {
        self.judge_by(state, operations, touched, |fate| fate != Fate::Wait)
    }

    /// Whether a call that is one of these operations has to wait, whatever becomes of it then.
    fn waits(&self, state: &mut State, operations: &[Operation], touched: &Touched<'_>) -> bool {
        self.judge_by(state, operations, touched, |fate| fate == Fate::Wait).is_some()
    }

    fn judge_by(
        &self,
        state: &mut State,
        operations: &[Operation],
        touched: &Touched<'_>,
        counts: fn(Fate) -> bool,
    ) -> Option<Fate> {
        if state.opened != self.opened {
            return None;
        }
        for line in state.rules.iter_mut().filter(|line| !line.lifted && counts(line.rule.fate())) {
            let rule = &mut line.rule;
            if rule.is_about(operations) && rule.covers(&*self.inner, touched) && rule.strike() {
                line.met += 1;
                return Some(rule.fate());
            }
        }
        None
    }

    /// Judges a call that blocks, and lets it wait here if it must.
    fn admit(&self, operation: Operation, touched: &Touched<'_>) -> Result<(), StorageError> {
        let writes = [Operation::Create, Operation::Delete, Operation::Settle].contains(&operation);
        let mut state = self.faults.state.lock();
        while self.waits(&mut state, &[operation], touched) {
            self.faults.lifted.wait(&mut state);
        }
        if writes && self.is_stopped(&state) {
            return Err(self.stopped());
        }
        match self.judge(&mut state, &[operation], touched) {
            None | Some(Fate::Wait) => Ok(()),
            Some(Fate::Full) => Err(self.full()),
            Some(Fate::Unreadable) => Err(StorageError::Read { dir: self.path(), reason: REASON.into() }),
            Some(Fate::Stop) => Err(self.stop(&mut state)),
        }
    }

    /// Commits or queues the set by `pass_on`, as the script wants it.
    fn pass(&self, set: WriteSet, done: Done, pass_on: fn(&dyn LogDir, WriteSet, Done)) {
        let mut state = self.faults.state.lock();
        let kinds = kinds(&set);
        if self.waits(&mut state, &kinds, &Touched::Set(&set)) {
            state.held.get_or_insert_default();
        }
        let refused = if self.is_stopped(&state) {
            Some(self.stopped())
        } else {
            match self.judge(&mut state, &kinds, &Touched::Set(&set)) {
                Some(Fate::Stop) => Some(self.stop(&mut state)),
                Some(Fate::Full) => Some(self.full()),
                Some(Fate::Unreadable | Fate::Wait) | None => {
                    set.rests_on().any(|family| state.refusals.contains_key(&family)).then(|| self.full())
                }
            }
        };
        let (set, done) = match refused {
            // An empty set keeps the order of `Done`; its own outcome does not matter.
            Some(error) => (WriteSet::default(), self.refuse(&mut state, &set, error, done)),
            None => (set, done),
        };
        match &mut state.held {
            Some(held) => held.push_back(Queued { dir: Arc::clone(&self.inner), set, done }),
            None => pass_on(&*self.inner, set, done),
        }
    }

    /// The `done` of a refused set. Until it has returned, sets behind it that rest on the same families are refused.
    fn refuse(&self, state: &mut State, set: &WriteSet, error: StorageError, done: Done) -> Done {
        let touched: Vec<Family> = set.rests_on().collect();
        for family in &touched {
            *state.refusals.entry(*family).or_default() += 1;
        }
        let faults = Arc::clone(&self.faults);
        Box::new(move |_| {
            done(Err(error));
            let refusals = &mut faults.state.lock().refusals;
            for family in touched {
                let Some(left) = refusals.get_mut(&family) else { continue };
                *left -= 1;
                if *left == 0 {
                    refusals.remove(&family);
                }
            }
        })
    }
}

impl Faults {
    /// Adds a rule to the script; it holds from now on.
    pub(crate) fn script(&self, rule: Rule) -> RuleId {
        let mut state = self.state.lock();
        state.rules.push(Scripted { rule, met: 0, lifted: false });
        RuleId(state.rules.len() - 1)
    }

    /// How many calls a rule has struck.
    pub(crate) fn met(&self, rule: RuleId) -> u64 {
        self.state.lock().rules[rule.0].met
    }

    /// Takes a rule back. What waits because of it goes on.
    pub(crate) fn lift(&self, rule: RuleId) {
        let mut state = self.state.lock();
        state.rules[rule.0].lifted = true;
        let waits = |line: &Scripted| !line.lifted && line.rule.fate() == Fate::Wait;
        if !state.rules.iter().any(waits) {
            // Passed on under the lock, so that no commit called meanwhile overtakes them.
            for Queued { dir, set, done } in state.held.take().into_iter().flatten() {
                dir.commit(set, done);
            }
        }
        drop(state);
        self.lifted.notify_all();
    }

    /// As a kill would: what an opened directory still does is about no rule any more.
    pub(crate) fn detach(&self) {
        self.state.lock().opened += 1;
    }

    /// The n-th commit from now, counted from 0, fails and with it every later one.
    pub(crate) fn fail_commit(&self, n: u64) {
        self.script(Rule::new(Fate::Stop, &[Operation::Commit]).after(n).times(1));
    }

    /// The n-th commit with `sync` from now, counted from 0, fails and with it every later commit.
    pub(crate) fn fail_sync(&self, n: u64) {
        self.script(Rule::new(Fate::Stop, &[Operation::CommitSync]).after(n).times(1));
    }

    /// The next set that adds batches is refused as if the disk's reserve were reached, though `is_full` denies it.
    pub(crate) fn refuse_next(&self) {
        self.script(Rule::new(Fate::Full, &[Operation::CommitBatches]).times(1));
    }

    /// While set, sets that add batches are refused as if the disk's reserve were reached.
    pub(crate) fn set_full(&self, full: bool) {
        if full {
            self.script(Rule::new(Fate::Full, &[Operation::CommitBatches]));
        } else {
            self.lift_all(Fate::Full);
        }
    }

    /// Keeps commits from being written until [`Faults::release`].
    pub(crate) fn hold(&self) {
        self.script(Rule::new(Fate::Wait, &[Operation::Commit]));
    }

    /// Lets the held commits go on, in order.
    pub(crate) fn release(&self, _: &FaultyDir) {
        self.lift_all(Fate::Wait);
    }

    /// The next `n` sets that write anything are refused for want of space, also those of side records alone.
    pub(crate) fn refuse_any(&self, n: u64) {
        let sets = [Operation::CommitBatches, Operation::CommitSides, Operation::CommitTree];
        self.script(Rule::new(Fate::Full, &sets).times(n));
    }

    /// While set, the batches of this family cannot be read.
    pub(crate) fn fail_reads_of(&self, family: Option<Family>) {
        match family {
            Some(family) => {
                self.script(Rule::new(Fate::Unreadable, READS).of_family(family));
            }
            None => self.lift_all(Fate::Unreadable),
        }
    }

    /// Keeps reads waiting until it is called with false.
    pub(crate) fn hold_reads(&self, hold: bool) {
        if hold {
            self.script(Rule::new(Fate::Wait, READS));
        } else {
            self.lift_all(Fate::Wait);
        }
    }

    fn lift_all(&self, fate: Fate) {
        let of_fate = |line: &Scripted| line.rule.fate() == fate && !line.lifted;
        let rules: Vec<usize> = {
            let state = self.state.lock();
            state.rules.iter().enumerate().filter(|(_, line)| of_fate(line)).map(|(at, _)| at).collect()
        };
        for at in rules {
            self.lift(RuleId(at));
        }
    }
}

impl LogDir for FaultyDir {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.inner.partitions()
    }

    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        if self.is_stopped(&self.faults.state.lock()) {
            return Err(self.stopped());
        }
        let known: HashSet<PartitionId> = self.inner.partitions().into_iter().map(|(id, _)| id).collect();
        // Those that exist keep their family, and nothing is written.
        let missing: Vec<PartitionId> = wanted.iter().filter(|id| !known.contains(id)).cloned().collect();
        if !missing.is_empty() {
            self.admit(Operation::Create, &Touched::Partitions(&missing))?;
        }
        self.inner.create(wanted)
    }

    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.admit(Operation::Delete, &Touched::Partitions(partitions))?;
        self.inner.delete(partitions)
    }

    fn commit(&self, set: WriteSet, done: Done) {
        self.pass(set, done, |dir, set, done| dir.commit(set, done));
    }

    fn queue(&self, set: WriteSet, done: Done) {
        self.pass(set, done, |dir, set, done| dir.queue(set, done));
    }

    fn write_queued(&self) {
        self.inner.write_queued();
    }

    fn when_failed(&self, told: Listener) {
        let mut state = self.faults.state.lock();
        if self.is_stopped(&state) {
            drop(state);
            told(REASON.into());
        } else if state.opened == self.opened {
            state.listener = Some(told);
        }
    }

    fn failure(&self) -> Option<Arc<str>> {
        if self.is_stopped(&self.faults.state.lock()) { Some(REASON.into()) } else { self.inner.failure() }
    }

    fn disk(&self) -> Option<DiskBytes> {
        self.inner.disk()
    }

    fn queued_bytes(&self) -> usize {
        self.inner.queued_bytes()
    }

    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }

    fn is_full(&self) -> bool {
        let shown = self.faults.state.lock().rules.iter().any(|line| !line.lifted && line.rule.is_shown());
        shown || self.inner.is_full()
    }

    fn scan(
        &self,
        family: Family,
        from: Offset,
        wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> Result<(), StorageError> {
        self.admit(Operation::Scan, &Touched::Family(family))?;
        self.inner.scan(family, from, wanted, visit)
    }

    fn end(&self, family: Family) -> LogEndState {
        self.inner.end(family)
    }

    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        self.admit(Operation::LastBatch, &Touched::Family(family))?;
        self.inner.last_batch(family)
    }

    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.admit(Operation::Side, &Touched::SideKey(key))?;
        self.inner.side(key)
    }

    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.admit(Operation::ScanSides, &Touched::SideKey(&keys.start))?;
        self.inner.scan_sides(keys, visit)
    }

    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.admit(Operation::ScanTree, &Touched::Tree)?;
        self.inner.scan_tree(visit)
    }

    fn reclaim(&self, family: Family, last_offsets: Range<Offset>) {
        // It answers nothing, so a script can only make it wait.
        let _waited = self.admit(Operation::Reclaim, &Touched::Family(family));
        self.inner.reclaim(family, last_offsets);
    }

    fn settle(&self, family: Family) -> Result<(), StorageError> {
        self.admit(Operation::Settle, &Touched::Family(family))?;
        self.inner.settle(family)
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::storage::contract::{self, batch, commit, partition};
    use crate::storage::keys;
    use crate::storage::testing::memory::MemoryDir;

    /// A directory with the topics `a` and `b`.
    fn two_topics() -> (Arc<FaultyDir>, Arc<Faults>, Vec<Family>) {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        let families = dir.create(&[partition("a", 0), partition("b", 0)]).expect("created");
        (dir, faults, families)
    }

    fn is_unreadable<T>(result: &Result<T, StorageError>) -> bool {
        matches!(result, Err(StorageError::Read { .. }))
    }

    #[test]
    fn unarmed_keeps_the_contract() {
        let disk = MemoryDir::open();
        contract::check(&mut || FaultyDir::around(disk.reopen()).0);
    }

    #[test]
    fn a_failed_commit_stops_the_directory_until_it_is_opened_anew_and_writes_nothing() {
        let disk = MemoryDir::open();
        let (dir, faults) = FaultyDir::around(disk.clone());
        let family = dir.create(&[partition("t", 0)]).expect("created")[0];
        faults.fail_commit(1);
        let (tell, told) = mpsc::channel();
        dir.when_failed(Box::new(move |reason| tell.send(reason).expect("the test listens")));
        assert!(commit(&*dir, vec![batch(family, 0, b"a")], false).is_ok());
        for _ in 0..2 {
            let refused = commit(&*dir, vec![batch(family, 1, b"b")], false);
            assert!(matches!(refused, Err(StorageError::Stopped { .. })), "{refused:?}");
        }
        assert_eq!(told.iter().count(), 1);
        assert!(matches!(dir.create(&[partition("u", 0)]), Err(StorageError::Stopped { .. })));
        assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last), Some(Offset(0)));
        let dir = FaultyDir::under(disk.reopen(), dir.path(), faults);
        assert!(commit(&*dir, vec![batch(family, 1, b"b")], false).is_ok());
    }

    #[test]
    fn only_a_commit_with_sync_meets_a_failing_sync() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        faults.fail_sync(0);
        assert!(commit(&*dir, vec![], false).is_ok());
        assert!(commit(&*dir, vec![], true).is_err());
        assert!(commit(&*dir, vec![], false).is_err());
    }

    #[test]
    fn at_the_reserve_batches_alone_are_refused_until_it_is_lifted() {
        let (dir, faults, families) = two_topics();
        faults.set_full(true);
        assert!(dir.is_full());
        let refused = commit(&*dir, vec![batch(families[0], 0, b"a")], false);
        assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
        assert!(commit(&*dir, vec![contract::side(b"k", b"v")], false).is_ok());
        faults.set_full(false);
        assert!(!dir.is_full());
        assert!(commit(&*dir, vec![batch(families[0], 0, b"a")], false).is_ok());
    }

    #[test]
    fn what_is_queued_behind_a_refused_batch_of_its_family_is_refused_as_well() {
        let (dir, faults, families) = two_topics();
        let wait = faults.script(Rule::new(Fate::Wait, &[Operation::Commit]).times(1));
        dir.commit(WriteSet::default(), Box::new(|_| ()));
        faults.refuse_next();
        let (sender, done) = mpsc::channel();
        for (n, family) in [families[0], families[0], families[1]].into_iter().enumerate() {
            let sender = sender.clone();
            let set = WriteSet { writes: vec![batch(family, n as i64, b"x")], sync: false };
            dir.commit(set, Box::new(move |result| sender.send(result.is_ok()).expect("the test listens")));
        }
        faults.lift(wait);
        drop(sender);
        assert_eq!(done.iter().collect::<Vec<_>>(), [false, false, true]);
        assert!(commit(&*dir, vec![batch(families[0], 0, b"x")], false).is_ok(), "all of them are done");
    }

    #[test]
    fn a_read_fails_for_the_topic_it_was_scripted_for_and_once() {
        let (dir, faults, families) = two_topics();
        let rule = faults.script(Rule::new(Fate::Unreadable, READS).of_partition("b", 0).times(1));
        assert!(dir.last_batch(families[0]).is_ok());
        assert!(is_unreadable(&dir.last_batch(families[1])));
        assert!(dir.last_batch(families[1]).is_ok());
        assert_eq!(faults.met(rule), 1);
        faults.script(Rule::new(Fate::Unreadable, &[Operation::ScanSides]).of_topic("a"));
        let sides = |name| {
            let id = partition(name, 0);
            let start = keys::side(id.topic_id, id.partition, 0, &[]);
            let end = keys::side(id.topic_id, id.partition, 255, &[]);
            dir.scan_sides(start..end, &mut |_, _| std::ops::ControlFlow::Continue(()))
        };
        assert!(is_unreadable(&sides("a")) && is_unreadable(&sides("a")) && sides("b").is_ok());
    }

    #[test]
    fn held_commits_are_done_in_order_after_the_release() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        faults.hold();
        let (sender, done) = mpsc::channel();
        for n in 0..3 {
            let sender = sender.clone();
            dir.commit(WriteSet::default(), Box::new(move |_| sender.send(n).expect("the test listens")));
        }
        assert!(done.try_recv().is_err());
        faults.release(&dir);
        drop(sender);
        assert_eq!(done.iter().take(3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_read_waits_until_its_rule_is_lifted() {
        let (dir, faults, families) = two_topics();
        let wait = faults.script(Rule::new(Fate::Wait, READS));
        let reading = Arc::clone(&dir);
        let (sender, read) = mpsc::channel();
        let thread = crate::task::thread("waiting-read", move || {
            drop(reading.last_batch(families[0]));
            sender.send(()).expect("the test listens");
        });
        while faults.met(wait) == 0 {
            std::thread::yield_now();
        }
        assert!(read.try_recv().is_err());
        faults.lift(wait);
        read.recv().expect("it goes on");
        thread.expect("started").join().expect("no panic");
    }
}
