//! The columns of the table, and how its text is read and written.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs};

use super::operations::Target;
use super::rig::Rig;
use crate::coordination::testing as store;
use crate::storage::testing::faulty as dir;
use crate::storage::testing::faulty::{Operation as On, READS, WRITES};

/// The table as a reader sees it, below the root of the repository.
const FILE: &str = "src/broker/tests/faults/operations_by_faults.md";

/// Between the parts of a cell.
const SEPARATOR: &str = " · ";

/// Between answers that are as good as each other.
const OR: &str = " or ";

/// Says that the fault met no call of the operation, and that all went as without one.
const NOT_MET: &str = "not met";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    NoFault,
    AtReserve,
    NoSpace,
    UnreadableOnce,
    Unreadable,
    Stopped,
    Slow,
    LostAnswer,
    SessionLost,
    Refused,
}

/// In the order of the table.
pub(super) const COLUMNS: &[Column] = &[
    Column::NoFault,
    Column::AtReserve,
    Column::NoSpace,
    Column::UnreadableOnce,
    Column::Unreadable,
    Column::Stopped,
    Column::Slow,
    Column::LostAnswer,
    Column::SessionLost,
    Column::Refused,
];

/// A fault that is in force.
pub(super) enum Armed {
    Nothing,
    /// It has struck already.
    Struck,
    Dir(usize, dir::RuleId),
    Store(store::RuleId),
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoFault => "no fault",
            Self::AtReserve => "at the reserve",
            Self::NoSpace => "no space",
            Self::UnreadableOnce => "read error once",
            Self::Unreadable => "unreadable",
            Self::Stopped => "stopped",
            Self::Slow => "slow",
            Self::LostAnswer => "answer lost",
            Self::SessionLost => "session lost",
            Self::Refused => "refused",
        }
    }

    /// Whether it strikes once, or never: what is looked at afterwards has nothing to do with it.
    pub(super) fn is_over_at_once(self) -> bool {
        matches!(self, Self::UnreadableOnce | Self::LostAnswer | Self::Refused)
    }

    /// Whether every write to the directory is struck, and not what concerns one topic alone.
    pub(super) fn strikes_everything(self) -> bool {
        matches!(self, Self::AtReserve | Self::NoSpace | Self::Stopped)
    }

    /// Whether the answer says that another session is on its way, upon which every client asks again.
    pub(super) fn asks_again(self, answer: &str) -> bool {
        let passing = ["NOT_CONTROLLER", "REQUEST_TIMED_OUT", "COORDINATOR_LOAD_IN_PROGRESS"];
        self == Self::SessionLost && passing.contains(&answer)
    }

    /// Whether only a restart ends it.
    pub(super) fn needs_restart(self) -> bool {
        self == Self::Stopped
    }

    pub(super) async fn arm(self, rig: &Rig, target: &Target) -> Armed {
        let in_dir = |rule| Armed::Dir(target.dir, rig.dir(target.dir).script(rule));
        let in_store = |fate| {
            let rule = store::Rule::new(fate, store::Access::Write, target.path).times(1);
            Armed::Store(rig.store.script(rule))
        };
        let unreadable = dir::Rule::new(dir::Fate::Unreadable, READS).of_topic(target.topic);
        match self {
            Self::NoFault => Armed::Nothing,
            Self::AtReserve => in_dir(dir::Rule::new(dir::Fate::Full, &[On::CommitBatches])),
            Self::NoSpace => {
                let writes = [On::CommitBatches, On::CommitSides, On::CommitTree, On::Create, On::Delete];
                in_dir(dir::Rule::new(dir::Fate::Full, &writes))
            }
            Self::UnreadableOnce => in_dir(unreadable.times(1)),
            Self::Unreadable => in_dir(unreadable),
            Self::Stopped => in_dir(dir::Rule::new(dir::Fate::Stop, WRITES).times(1)),
            Self::Slow => in_dir(dir::Rule::new(dir::Fate::Wait, &[WRITES, READS].concat())),
            Self::LostAnswer => in_store(store::Fate::LoseAnswer),
            Self::Refused => in_store(store::Fate::Refuse),
            Self::SessionLost => {
                rig.expire().await;
                Armed::Struck
            }
        }
    }
}

impl Armed {
    pub(super) fn is_met(&self, rig: &Rig) -> bool {
        match self {
            Self::Nothing => false,
            Self::Struck => true,
            Self::Dir(at, rule) => rig.dir(*at).met(*rule) > 0,
            Self::Store(rule) => rig.store.met(*rule) > 0,
        }
    }

    pub(super) fn lift(&self, rig: &Rig) {
        match self {
            Self::Nothing | Self::Struck => {}
            Self::Dir(at, rule) => rig.dir(*at).lift(*rule),
            Self::Store(rule) => rig.store.lift(*rule),
        }
    }
}

/// What a cell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The client's codes; `late`: only once the fault was lifted.
    pub(super) late: bool,
    pub(super) answer: String,
    /// What is seen of the operation while the fault lasts.
    pub(super) shows: String,
    /// What those get who have nothing to do with it.
    pub(super) others: String,
    /// The same operation once more, when the fault is over.
    pub(super) again: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.late { "late " } else { "" };
        let parts = [&self.shows, &self.others, &self.again].map(String::as_str).join(SEPARATOR);
        write!(f, "{late}{}{SEPARATOR}{parts}", self.answer)
    }
}

impl Outcome {
    fn parse(cell: &str) -> Option<Self> {
        let parts: Vec<&str> = cell.split(SEPARATOR).collect();
        let [answer, shows, others, again] = parts.try_into().ok()?;
        let (late, answer) = answer.strip_prefix("late ").map_or((false, answer), |answer| (true, answer));
        let [answer, shows, others, again] = [answer, shows, others, again].map(str::to_owned);
        Some(Self { late, answer, shows, others, again })
    }

    /// As the table writes it. Where it allows several answers, any of them is as good.
    pub(super) fn written(&self, met: bool, without_fault: Option<&Self>, expected: Option<&Self>) -> String {
        let several = expected.map(|expected| expected.answer.as_str()).unwrap_or_default();
        if several.contains(OR) && several.split(OR).any(|answer| answer == self.answer) {
            return Self { answer: several.to_owned(), ..self.clone() }.to_string();
        }
        if !met && without_fault == Some(self) { NOT_MET.into() } else { self.to_string() }
    }
}

/// The cells by the names of row and column.
pub(super) struct Table(BTreeMap<(String, String), String>);

impl Table {
    pub(super) fn read() -> Self {
        let cells_of = |line: &str| -> Vec<String> {
            line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)).expect("the table is there");
        let mut lines = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| !line.is_empty());
        let head = cells_of(lines.next().expect("the table has a head"));
        let mut cells = BTreeMap::new();
        for line in lines.skip(1) {
            let row = cells_of(line);
            assert_eq!(row.len(), head.len(), "cells of {}", row[0]);
            for (column, cell) in head.iter().zip(&row).skip(1) {
                cells.insert((row[0].clone(), column.clone()), cell.clone());
            }
        }
        Self(cells)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.keys()
    }

    pub(super) fn text(&self, row: &str, column: Column) -> Option<&str> {
        self.0.get(&(row.to_owned(), column.name().to_owned())).map(String::as_str)
    }

    /// What the cell says, in full.
    pub(super) fn cell(&self, row: &str, column: Column) -> Option<Outcome> {
        match self.text(row, column)? {
            NOT_MET => self.cell(row, Column::NoFault),
            cell => Outcome::parse(cell),
        }
    }
}
