//! What a script for a failing directory can say: which calls a [`Rule`] is about (kind of operation, topic,
//! partition), which of them it strikes (after so many, so often, until lifted), and what becomes of them ([`Fate`]).
//! Pure.

use crate::storage::{Family, LogDir, PartitionId, Write, WriteSet, keys};
use crate::types::{PartitionIndex, TopicName};

/// What a call does, as far as a script tells calls apart. A write set is of several kinds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Any write set, an empty one included.
    Commit,
    /// A set that adds batches.
    CommitBatches,
    /// A set that adds no batches: it deletes some, or changes side records.
    CommitSides,
    /// A set that changes the embedded tree.
    CommitTree,
    /// A set that asks for a sync.
    CommitSync,
    Create,
    Delete,
    Scan,
    LastBatch,
    Side,
    ScanSides,
    ScanTree,
    Reclaim,
    Settle,
}

/// Every operation that writes.
pub(crate) const WRITES: &[Operation] = &[Operation::Commit, Operation::Create, Operation::Delete, Operation::Settle];
/// Every operation that reads.
pub(crate) const READS: &[Operation] =
    &[Operation::Scan, Operation::LastBatch, Operation::Side, Operation::ScanSides, Operation::ScanTree];

/// What becomes of a call that a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A write is refused for want of space; nothing of it is written.
    Full,
    /// A read fails.
    Unreadable,
    /// A write fails, and with it every later one until the directory is opened anew (I-6).
    Stop,
    /// It waits until the rule is lifted, and whatever is committed after it waits behind it. Then it goes on.
    Wait,
}

impl Fate {
    fn concerns(self, operation: Operation) -> bool {
        let reads = READS.contains(&operation);
        match self {
            Self::Full | Self::Stop => !reads && operation != Operation::Reclaim,
            Self::Unreadable => reads,
            Self::Wait => true,
        }
    }
}

/// One line of a script. Without further limits it strikes every call of these kinds, from now on until it is lifted.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    fate: Fate,
    operations: Vec<Operation>,
    topic: Option<TopicName>,
    partition: Option<PartitionIndex>,
    family: Option<Family>,
    /// Calls to let pass before.
    pass: u64,
    /// Calls to strike; `None`: all.
    strikes: Option<u64>,
}

impl Rule {
    pub(crate) fn new(fate: Fate, operations: &[Operation]) -> Self {
        Self {
            fate,
            operations: operations.to_vec(),
            topic: None,
            partition: None,
            family: None,
            pass: 0,
            strikes: None,
        }
    }

    /// Only what touches this topic.
    pub(crate) fn of_topic(self, topic: &str) -> Self {
        Self { topic: Some(TopicName::new(topic)), ..self }
    }

    /// Only what touches this partition of the topic.
    pub(crate) fn of_partition(self, topic: &str, partition: i32) -> Self {
        Self { partition: Some(PartitionIndex(partition)), ..self.of_topic(topic) }
    }

    /// Only reads of the batches of this family.
    pub(super) fn of_family(self, family: Family) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Lets so many calls pass first.
    pub(crate) fn after(self, pass: u64) -> Self {
        Self { pass, ..self }
    }

    /// Strikes so many calls and no more.
    pub(crate) fn times(self, strikes: u64) -> Self {
        Self { strikes: Some(strikes), ..self }
    }

    /// The directory says that it is full while this rule holds, as one does that is at its reserve.
    pub(super) fn is_shown(&self) -> bool {
        let everywhere = self.topic.is_none() && self.strikes.is_none() && self.pass == 0;
        self.fate == Fate::Full && everywhere && self.operations == [Operation::CommitBatches]
    }

    pub(super) fn fate(&self) -> Fate {
        self.fate
    }

    /// Whether it is about a call that is one of these operations.
    pub(super) fn is_about(&self, operations: &[Operation]) -> bool {
        operations.iter().any(|operation| self.operations.contains(operation) && self.fate.concerns(*operation))
    }

    /// Whether what is touched in this directory belongs to the topic and partition of the rule.
    pub(super) fn covers(&self, dir: &dyn LogDir, touched: &Touched<'_>) -> bool {
        if let Some(wanted) = self.family {
            return matches!(touched, Touched::Family(family) if *family == wanted);
        }
        let Some(topic) = &self.topic else { return true };
        let fits = |id: &PartitionId| id.topic == *topic && self.partition.is_none_or(|wanted| wanted == id.partition);
        if let Touched::Partitions(ids) = touched {
            return ids.iter().any(fits);
        }
        dir.partitions().iter().filter(|(id, _)| fits(id)).any(|(id, family)| {
            let prefix = keys::side_prefix(id.topic_id, id.partition);
            match touched {
                Touched::Set(set) => set.writes.iter().any(|write| writes_to(write, *family, &prefix)),
                Touched::Family(touched) => touched == family,
                Touched::SideKey(key) => key.starts_with(&prefix),
                Touched::Partitions(_) | Touched::Tree => false,
            }
        })
    }

    /// Counts a call that the rule is about. True: it is struck.
    pub(super) fn strike(&mut self) -> bool {
        if self.pass > 0 {
            self.pass -= 1;
            return false;
        }
        match &mut self.strikes {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// What a call touches, looked up only when a rule asks for it.
pub(super) enum Touched<'a> {
    Set(&'a WriteSet),
    Partitions(&'a [PartitionId]),
    Family(Family),
    SideKey(&'a [u8]),
    Tree,
}

/// All that a set is.
pub(super) fn kinds(set: &WriteSet) -> Vec<Operation> {
    let mut kinds = vec![Operation::Commit];
    let tree = |write: &Write| matches!(write, Write::Tree { .. } | Write::DeleteTree { .. });
    if set.sync {
        kinds.push(Operation::CommitSync);
    }
    if set.adds_batches() {
        kinds.push(Operation::CommitBatches);
    } else if set.writes.iter().any(tree) {
        kinds.push(Operation::CommitTree);
    } else if !set.writes.is_empty() {
        kinds.push(Operation::CommitSides);
    }
    kinds
}

fn writes_to(write: &Write, of: Family, prefix: &[u8]) -> bool {
    match write {
        Write::Batch { family, .. }
        | Write::RestsOn { family }
        | Write::DeleteBatch { family, .. }
        | Write::DeleteBatches { family, .. } => *family == of,
        Write::Side { key, .. } | Write::DeleteSide { key } => key.starts_with(prefix),
        Write::DeleteSides { keys } => keys.start.starts_with(prefix),
        Write::Tree { .. } | Write::DeleteTree { .. } => false,
    }
}
