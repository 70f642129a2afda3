//! What every operation answers, leaves behind and does to others when something beneath it fails: the table
//! `operations_by_faults.md`, held against a whole broker over directories and a coordination that fail by a script.
//!
//! Each cell is one broker of its own in this process, spoken to over a socket. After the fault is lifted the operation
//! is repeated, and then the general checks follow, whatever the cell: others are served, names can be used, what was
//! acknowledged is there once, what was deleted does not come back; and the same once more after a kill.

mod client;
mod operations;
mod rig;
mod table;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use self::operations::{OPERATIONS, Operation};
use self::rig::{Rig, SOON};
use self::table::{COLUMNS, Column, Outcome, Table};
use crate::broker::Fatal;

/// Runs the cells of a row, side by side, and holds them against the table.
async fn row(name: &'static str) {
    let (_, operation) = *OPERATIONS.iter().find(|(known, _)| *known == name).expect("a row of the table");
    let table = Table::read();
    let cells = COLUMNS.iter().map(async |column| {
        let expected = table.cell(name, *column);
        let found = timeout(CELL_PATIENCE, cell(operation, *column, expected.as_ref()));
        AssertUnwindSafe(found).catch_unwind().await
    });
    let (mut wrong, mut without_fault) = (Vec::new(), None);
    for (column, cell) in COLUMNS.iter().zip(join_all(cells).await) {
        let expected = table.text(name, *column).unwrap_or_default();
        let written = match cell {
            Ok(Ok((found, met))) => {
                let written = found.written(met, without_fault.as_ref(), table.cell(name, *column).as_ref());
                without_fault.get_or_insert(found);
                written
            }
            Ok(Err(_)) => "it hangs".into(),
            Err(panicked) => match panicked.downcast::<String>() {
                Ok(why) => format!("a check failed: {why}"),
                Err(_) => "a check failed".into(),
            },
        };
        if written != expected {
            wrong.push(format!("{name} / {}\n  expected {expected}\n  found    {written}", column.name()));
        }
    }
    assert!(wrong.is_empty(), "{} cell(s) differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// How long one cell may take on a busy machine; each wait within it has a bound of its own.
const CELL_PATIENCE: Duration = Duration::from_secs(120);

/// One broker, one fault. Answers what was found, and whether the fault met anything.
async fn cell(operation: Operation, column: Column, expected: Option<&Outcome>) -> (Outcome, bool) {
    let rig = Rig::start(operation.dirs()).await;
    let target = operation.prepare(&rig).await;
    let armed = column.arm(&rig, &target).await;
    let mut client = rig.client().await;
    let met = || armed.is_met(&rig);
    let never = || false;
    let (mut late, answer, others);
    if column == Column::Slow {
        let mut acting = Box::pin(operation.act(&rig, &mut client, &never));
        let mut answered = None;
        while answered.is_none() && !met() {
            answered = timeout(Duration::from_millis(10), &mut acting).await.ok();
        }
        others = rig.others().await;
        late = expected.is_some_and(|expected| expected.late);
        if answered.is_none() {
            // One that is not held up has all the time it needs; one that is has none that would help.
            let patience = if late { Duration::from_millis(50) } else { LATE_AFTER };
            answered = timeout(patience, &mut acting).await.ok();
            late = answered.is_none();
            armed.lift(&rig);
        }
        answer = match answered {
            Some(answer) => answer,
            None => acting.await,
        };
    } else {
        late = false;
        answer = loop {
            match operation.act(&rig, &mut client, &met).await {
                answer if column.asks_again(&answer) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => break answer,
            }
        };
        if column.is_over_at_once() {
            armed.lift(&rig);
        }
        others = rig.others().await;
    }
    let was_met = met();
    let shows = match rig.runs().await {
        true => operation.shows(&rig, &mut rig.client().await, &answer, column).await,
        false => "–".into(),
    };
    let others = match rig.fatal().await {
        Some(Fatal::LogDirs(_)) => format!("{others}, ends with 74"),
        Some(Fatal::Identity(_)) => format!("{others}, ends with 1"),
        None => others.to_owned(),
    };
    armed.lift(&rig);
    if column.needs_restart() || !rig.runs().await {
        rig.restart(false).await.expect("it starts once the fault is over");
    }
    let again = repeat(operation, &rig, expected).await;
    operation.settle(&rig, &mut rig.client().await).await;
    rig.check("after the fault").await;
    rig.check_names("again").await;
    rig.restart(true).await.expect("it starts after a kill");
    operation.check_use(&rig).await;
    rig.check("after a kill").await;
    (Outcome { late, answer, shows, others, again }, was_met)
}

/// How long an operation may take that a slow directory does not hold up.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// The operation once more, until it answers what the table says or has had its time.
async fn repeat(operation: Operation, rig: &Rig, expected: Option<&Outcome>) -> String {
    let patience = if expected.is_some() { SOON } else { Duration::from_secs(3) };
    let deadline = Instant::now() + patience;
    loop {
        let again = operation.again(rig, &mut rig.client().await).await;
        if expected.is_some_and(|expected| expected.again == again) || Instant::now() > deadline {
            return again;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A test for each row, and one that no row of the table is without.
macro_rules! rows {
    ($($test:ident: $row:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                row($row).await;
            }
        )*

        const ROWS: &[&str] = &[$($row),*];
    };
}

rows! {
    produce_with_acks_1: "produce, acks=1",
    produce_with_acks_all: "produce, acks=all",
    produce_to_the_only_directory: "produce, the only directory",
    produce_to_two_partitions: "produce, two partitions",
    fetch: "fetch",
    list_offsets: "list offsets by time",
    create_topic_its_logs: "create topic: its logs",
    create_topic_the_tree: "create topic: the tree",
    delete_topic_its_logs: "delete topic: its logs",
    delete_topic_the_tree: "delete topic: the tree",
    grow_topic: "grow topic",
    auto_creation: "auto-creation",
    alter_config: "alter config",
    commit_offsets: "commit offsets",
    join_group: "join group",
    init_producer_with_transactions: "init producer, transactional",
    init_producer_without_transactions: "init producer, idempotent",
    add_offsets_to_a_transaction: "add offsets to transaction",
    end_transaction: "end transaction",
    retention: "retention",
    delete_records: "delete records",
    compaction: "compaction",
    restart: "restart",
    controller_election: "controller election",
}

#[test]
fn every_row_and_column_has_its_cell_and_its_test() {
    let table = Table::read();
    for (name, _) in OPERATIONS {
        assert!(ROWS.contains(name), "{name} is not run");
        for column in COLUMNS {
            assert!(table.cell(name, *column).is_some(), "{name} / {}: {:?}", column.name(), table.text(name, *column));
        }
    }
    for (row, column) in table.names() {
        assert!(ROWS.contains(&row.as_str()), "no test for the row {row}");
        assert!(COLUMNS.iter().any(|known| known.name() == column), "no fault {column}");
    }
}
