//! The suite that every implementation of [`LogDir`] passes.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc;

use bytes::Bytes;

use super::{Family, LogDir, PartitionId, SharedLogDir, Span, StorageError, Write, WriteSet, keys};
use crate::types::place::{Place, joined};
use crate::types::{Offset, PartitionIndex, TopicId, TopicName};

/// Runs the suite. `open` opens the same directory each time, first of all an empty one; before it is called again the
/// previous handle was closed.
pub(crate) fn check<D: LogDir + ?Sized>(open: &mut dyn FnMut() -> std::sync::Arc<D>) {
    let dir = open();
    let dir = &*dir;
    batches_come_back_in_offset_order(dir);
    scan_starts_at_the_batch_that_holds_the_offset(dir);
    a_set_is_done_in_order_and_then_visible(dir);
    a_set_that_was_queued_is_written_once_it_is_seen_to(dir);
    deleted_ranges_are_gone_and_may_be_written_again(dir);
    the_start_of_a_log_may_move_forward_and_back(dir);
    a_log_that_begins_anew_shows_nothing_of_before(dir);
    what_is_settled_is_cut_and_written_again(dir);
    deletes_and_batches_of_one_set_apply_in_order(dir);
    side_records_are_ordered_and_deleted_by_range(dir);
    the_tree_is_visited_in_key_order(dir);
    families_are_stable_and_distinct(dir);
    a_deleted_partition_leaves_nothing_behind(dir);
    dir.close();
    contents_outlive_a_close(open);
    a_closed_directory_is_stopped(open);
}

/// A partition of a topic whose id follows from its name.
pub(crate) fn partition(topic: &str, index: i32) -> PartitionId {
    let id = topic.bytes().fold(2_u128, |id, byte| id.wrapping_mul(257).wrapping_add(u128::from(byte)));
    PartitionId {
        topic: TopicName::new(topic),
        topic_id: TopicId(uuid::Uuid::from_u128(id)),
        partition: PartitionIndex(index),
    }
}

pub(crate) fn batch(family: Family, last_offset: i64, bytes: &[u8]) -> Write {
    Write::Batch {
        family,
        last_offset: Offset(last_offset),
        batch: Bytes::copy_from_slice(bytes),
        sum: None,
        in_order: false,
    }
}

pub(crate) fn side(key: &[u8], value: &[u8]) -> Write {
    Write::Side { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
}

pub(crate) fn delete(family: Family, last_offsets: Range<i64>) -> Write {
    Write::DeleteBatches { family, last_offsets: Offset(last_offsets.start)..Offset(last_offsets.end) }
}

/// Commits one set and waits until it is done.
pub(crate) fn commit<D: LogDir + ?Sized>(dir: &D, writes: Vec<Write>, sync: bool) -> Result<(), StorageError> {
    let (sender, receiver) = mpsc::channel();
    dir.commit(WriteSet { writes, sync }, Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("done is always called")
}

/// Every batch from an offset on, however many the scan says it wants.
pub(crate) fn scan<D: LogDir + ?Sized>(dir: &D, family: Family, from: i64) -> Vec<(i64, Vec<u8>)> {
    let [found, others @ ..] = [0, 50_000, usize::MAX].map(|wanted| {
        let mut found = Vec::new();
        dir.scan(family, Offset(from), wanted, &mut |last_offset, batch| {
            found.push((last_offset.0, batch.shared().unwrap_or_else(|| Bytes::copy_from_slice(&batch))));
            ControlFlow::Continue(())
        })
        .expect("scan");
        // Shared ones are looked at when the scan is over.
        found.into_iter().map(|(offset, batch)| (offset, batch.to_vec())).collect()
    });
    assert!(others.iter().all(|other| *other == found));
    found
}

fn offsets<D: LogDir + ?Sized>(dir: &D, family: Family) -> Vec<i64> {
    scan(dir, family, 0).into_iter().map(|(last_offset, _)| last_offset).collect()
}

fn create<D: LogDir + ?Sized>(dir: &D, topic: &str) -> Family {
    dir.create(&[partition(topic, 0)]).expect("create")[0]
}

fn batches_come_back_in_offset_order<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "order");
    assert_eq!(dir.last_batch(family).expect("read"), None);
    let writes = [300, 0, 255, 256, i64::MAX - 1].map(|n| batch(family, n, &n.to_be_bytes()));
    commit(dir, writes.to_vec(), false).expect("commit");
    assert_eq!(offsets(dir, family), [0, 255, 256, 300, i64::MAX - 1]);
    let last = dir.last_batch(family).expect("read").expect("a batch");
    assert_eq!((last.0, &*last.1), (Offset(i64::MAX - 1), &(i64::MAX - 1).to_be_bytes()[..]));
    commit(dir, vec![batch(family, 255, b"again")], false).expect("commit");
    assert_eq!(scan(dir, family, 255)[0], (255, b"again".to_vec()));
}

fn scan_starts_at_the_batch_that_holds_the_offset<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "seek");
    // Offsets 0-9, 10-19, 20-41.
    commit(dir, [9, 19, 41].map(|n| batch(family, n, b"x")).to_vec(), false).expect("commit");
    for (from, first) in [(0, 9), (9, 9), (10, 19), (40, 41), (41, 41)] {
        assert_eq!(scan(dir, family, from)[0].0, first, "from {from}");
    }
    assert_eq!(scan(dir, family, 42), []);
    let mut visited = 0;
    dir.scan(family, Offset(0), 0, &mut |_, _| {
        visited += 1;
        ControlFlow::Break(())
    })
    .expect("scan");
    assert_eq!(visited, 1, "Break ends the scan");
}

fn a_set_is_done_in_order_and_then_visible<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "done");
    let (sender, done) = mpsc::channel();
    for n in 0..500_i64 {
        let sender = sender.clone();
        let writes = vec![batch(family, n, &n.to_be_bytes()), side(&[b"done", &n.to_be_bytes()[..]].concat(), b"s")];
        let sync = n % 100 == 0;
        dir.commit(
            WriteSet { writes, sync },
            Box::new(move |result| drop(sender.send((n, result, std::thread::current().id())))),
        );
    }
    drop(sender);
    let mut threads = HashSet::new();
    for n in 0..500_i64 {
        let (at, result, thread) = done.recv().expect("done");
        result.expect("written");
        assert_eq!(at, n);
        threads.insert(thread);
        // I-1: the batch and its side record together.
        assert_eq!(scan_one(dir, family, n), Some((n, n.to_be_bytes().to_vec())));
        assert!(dir.side(&[b"done", &n.to_be_bytes()[..]].concat()).expect("read").is_some());
    }
    assert!(!threads.contains(&std::thread::current().id()), "done runs on the writer's thread");
    assert_eq!(threads.len(), 1);
    assert_eq!(dir.queued_bytes(), 0);
}

fn a_set_that_was_queued_is_written_once_it_is_seen_to<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "queued");
    let (sender, done) = mpsc::channel();
    for n in 0..50_i64 {
        let sender = sender.clone();
        let set = WriteSet { writes: vec![batch(family, n, &n.to_be_bytes())], sync: n % 10 == 0 };
        dir.queue(set, Box::new(move |result| drop(sender.send((n, result)))));
        if n % 3 == 0 {
            dir.write_queued();
        }
    }
    dir.write_queued();
    for n in 0..50_i64 {
        let (at, result) = done.recv().expect("done");
        result.expect("written");
        assert_eq!(at, n);
    }
    assert_eq!(offsets(dir, family), (0..50).collect::<Vec<_>>());
}

/// What can be located from an offset on must be what is there; nobody may write meanwhile. Answers how many bytes.
pub(crate) fn locate<D: LogDir + ?Sized>(dir: &D, family: Family, from: i64) -> usize {
    let stored = scan(dir, family, from);
    let mut most = 0;
    for (upto, max_bytes, at_least_one) in
        [(i64::MAX, usize::MAX, false), (i64::MAX, 0, true), (i64::MAX, 100_000, true), (from + 20, usize::MAX, false)]
    {
        let located = dir.locate(family, &Span { from: Offset(from), upto: Offset(upto), max_bytes, at_least_one });
        let places: Vec<Place> = located.runs.into_iter().map(Place::File).collect();
        let expected: Vec<_> = stored.iter().filter(|(last_offset, _)| Offset(*last_offset) < located.end).collect();
        assert!(located.end <= Offset(upto) || places.is_empty(), "{from} {upto}");
        if !places.is_empty() {
            assert_eq!(located.end.0 - 1, expected.last().expect("some").0);
            let expected: Vec<u8> = expected.iter().flat_map(|(_, batch)| batch.iter().copied()).collect();
            assert!(joined(&places) == expected, "{from} {upto} {max_bytes}");
            assert_eq!(located.bytes, expected.len());
        }
        let first_alone = at_least_one && located.bytes == stored.first().map_or(0, |(_, batch)| batch.len());
        assert!(located.bytes <= max_bytes || first_alone, "{from} {max_bytes}");
        most = most.max(located.bytes);
    }
    most
}

fn scan_one<D: LogDir + ?Sized>(dir: &D, family: Family, from: i64) -> Option<(i64, Vec<u8>)> {
    let mut found = None;
    dir.scan(family, Offset(from), 0, &mut |last_offset, batch| {
        found = Some((last_offset.0, batch.to_vec()));
        ControlFlow::Break(())
    })
    .expect("scan");
    found
}

fn deleted_ranges_are_gone_and_may_be_written_again<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "truncate");
    commit(dir, (0..10).map(|n| batch(family, n, b"old")).collect(), false).expect("commit");
    commit(dir, vec![delete(family, 6..i64::MAX)], false).expect("commit");
    assert_eq!(offsets(dir, family), [0, 1, 2, 3, 4, 5]);
    assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last.0), Some(5));
    commit(dir, (6..8).map(|n| batch(family, n, b"new")).collect(), false).expect("commit");
    assert_eq!(scan(dir, family, 6), [(6, b"new".to_vec()), (7, b"new".to_vec())]);
    // A hole, as compaction makes it; both ways.
    commit(dir, vec![delete(family, 2..4)], false).expect("commit");
    commit(dir, vec![Write::DeleteBatch { family, last_offset: Offset(5) }], false).expect("commit");
    commit(dir, vec![Write::DeleteBatch { family, last_offset: Offset(99) }], false).expect("commit");
    assert_eq!(offsets(dir, family), [0, 1, 4, 6, 7]);
    commit(dir, vec![delete(family, 3..3)], false).expect("an empty range deletes nothing");
    assert_eq!(offsets(dir, family), [0, 1, 4, 6, 7]);
}

fn the_start_of_a_log_may_move_forward_and_back<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "retention");
    commit(dir, (0..10).map(|n| batch(family, n, b"old")).collect(), false).expect("commit");
    for end in [3, 7] {
        commit(dir, vec![delete(family, 0..end)], false).expect("commit");
        dir.reclaim(family, Offset(0)..Offset(end));
        assert_eq!(offsets(dir, family), (end..10).collect::<Vec<_>>());
        assert_eq!(scan(dir, family, 0)[0].0, end);
    }
    // All of it, further than it reaches, then from an earlier offset: a follower that starts anew.
    commit(dir, vec![delete(family, 0..i64::MAX)], false).expect("commit");
    assert_eq!(offsets(dir, family), [0_i64; 0]);
    assert_eq!(dir.last_batch(family).expect("read"), None);
    commit(dir, vec![batch(family, 4, b"new")], false).expect("commit");
    assert_eq!(scan(dir, family, 0), [(4, b"new".to_vec())]);
    commit(dir, vec![batch(family, 2, b"new")], false).expect("commit");
    assert_eq!(offsets(dir, family), [2, 4]);
}

/// A follower whose leader has deleted what it would need next, and later has another leader with more.
fn a_log_that_begins_anew_shows_nothing_of_before<D: LogDir + ?Sized>(dir: &D) {
    for settles in [false, true] {
        let family = create(dir, if settles { "anew settled" } else { "anew" });
        commit(dir, (0..10).map(|n| batch(family, n, &[b'o'; 300])).collect(), false).expect("commit");
        let begin = |start: i64, value: u8| {
            if settles {
                dir.settle(family).expect("settled");
            }
            commit(dir, vec![delete(family, 0..i64::MAX)], true).expect("commit");
            assert_eq!((offsets(dir, family), dir.last_batch(family).expect("read")), (vec![], None));
            for n in start..start + 8 {
                commit(dir, vec![batch(family, n, &[value; 300])], false).expect("commit");
                let expected: Vec<_> = (start..=n).map(|n| (n, vec![value; 300])).collect();
                assert_eq!(scan(dir, family, 0), expected);
            }
            assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last.0), Some(start + 7));
        };
        begin(0, b'a');
        begin(500, b'b');
        begin(200, b'c');
        begin(203, b'd');
    }
}

fn what_is_settled_is_cut_and_written_again<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "settled");
    dir.settle(family).expect("there is nothing to do");
    let mut expected = Vec::new();
    for (round, from) in [0_i64, 6, 3, 9, 9].into_iter().enumerate() {
        commit(dir, vec![delete(family, from..i64::MAX)], true).expect("commit");
        expected.truncate(from as usize);
        assert_eq!(scan(dir, family, 0), expected);
        for n in from..from + 7 {
            let value = vec![round as u8; 300];
            commit(dir, vec![batch(family, n, &value)], false).expect("commit");
            expected.push((n, value));
        }
        dir.settle(family).expect("settled");
        assert_eq!(scan(dir, family, 0), expected);
        dir.settle(family).expect("again");
    }
}

fn deletes_and_batches_of_one_set_apply_in_order<D: LogDir + ?Sized>(dir: &D) {
    let family = create(dir, "mixed");
    let writes = vec![batch(family, 1, b"a"), batch(family, 2, b"b"), delete(family, 0..3), batch(family, 2, b"c")];
    commit(dir, writes, false).expect("commit");
    assert_eq!(scan(dir, family, 0), [(2, b"c".to_vec())]);
    commit(dir, vec![batch(family, 3, b"d"), delete(family, 2..i64::MAX)], false).expect("commit");
    assert_eq!(offsets(dir, family), [0_i64; 0]);
}

fn side_records_are_ordered_and_deleted_by_range<D: LogDir + ?Sized>(dir: &D) {
    let keys = ["s1", "s3", "s2", "t1"].map(|key| side(key.as_bytes(), key.as_bytes()));
    commit(dir, keys.to_vec(), false).expect("commit");
    assert_eq!(sides(dir, "s".."t"), ["s1", "s2", "s3"]);
    assert_eq!(dir.side(b"s2").expect("read").as_deref(), Some(&b"s2"[..]));
    assert_eq!(dir.side(b"s9").expect("read"), None);
    commit(dir, vec![Write::DeleteSide { key: Bytes::from_static(b"s2") }], false).expect("commit");
    assert_eq!(sides(dir, "s".."t"), ["s1", "s3"]);
    let range = Bytes::from_static(b"s")..Bytes::from_static(b"t");
    commit(dir, vec![Write::DeleteSides { keys: range }, side(b"s4", b"")], false).expect("commit");
    assert_eq!(sides(dir, "s".."u"), ["s4", "t1"]);
    assert_eq!(sides(dir, "u".."s"), [""; 0]);
}

pub(crate) fn sides<D: LogDir + ?Sized>(dir: &D, range: Range<&'static str>) -> Vec<String> {
    let mut found = Vec::new();
    dir.scan_sides(Bytes::from(range.start)..Bytes::from(range.end), &mut |key, _| {
        found.push(String::from_utf8(key.to_vec()).expect("text"));
        ControlFlow::Continue(())
    })
    .expect("scan");
    found
}

fn the_tree_is_visited_in_key_order<D: LogDir + ?Sized>(dir: &D) {
    let node =
        |path: &str| Write::Tree { key: Bytes::copy_from_slice(path.as_bytes()), value: Bytes::from_static(b"n") };
    commit(dir, vec![node("/b"), node("/a"), node("/a/c"), node("/d")], true).expect("commit");
    commit(dir, vec![Write::DeleteTree { key: Bytes::from_static(b"/b") }], true).expect("commit");
    let mut found = Vec::new();
    dir.scan_tree(&mut |key, value| {
        assert_eq!(value, b"n");
        found.push(String::from_utf8(key.to_vec()).expect("text"));
        ControlFlow::Continue(())
    })
    .expect("scan");
    assert_eq!(found, ["/a", "/a/c", "/d"]);
}

fn families_are_stable_and_distinct<D: LogDir + ?Sized>(dir: &D) {
    let wanted: Vec<_> = (0..40).map(|n| partition("many", n)).collect();
    let families = dir.create(&wanted).expect("create");
    assert_eq!(families.iter().collect::<HashSet<_>>().len(), 40);
    assert_eq!(dir.create(&wanted).expect("create"), families, "an existing partition keeps its family");
    let held = dir.partitions();
    for (id, family) in wanted.iter().zip(&families) {
        assert!(held.contains(&(id.clone(), *family)));
    }
    assert_eq!(dir.create(&[]).expect("create"), []);
}

fn a_deleted_partition_leaves_nothing_behind<D: LogDir + ?Sized>(dir: &D) {
    let id = partition("gone", 0);
    let key = keys::side(id.topic_id, id.partition, 0x80, b"x");
    let neighbour = keys::side(id.topic_id, PartitionIndex(1), 0x80, b"x");
    // More rounds than a pool has free families, so that wiped ones are used again.
    for _ in 0..40 {
        let family = create(dir, "gone");
        assert_eq!(dir.last_batch(family).expect("read"), None);
        assert_eq!(offsets(dir, family), [0_i64; 0]);
        assert_eq!(dir.side(&key).expect("read"), None);
        commit(dir, vec![batch(family, 5, b"x"), side(&key, b"x"), side(&neighbour, b"x")], false).expect("commit");
        commit(dir, vec![delete(family, 0..3)], false).expect("commit");
        dir.delete(&[id.clone(), partition("never was", 0)]).expect("delete");
        assert!(!dir.partitions().iter().any(|(held, _)| *held == id));
    }
    assert!(dir.side(&neighbour).expect("read").is_some(), "another partition's side records stay");
}

fn contents_outlive_a_close<D: LogDir + ?Sized>(open: &mut dyn FnMut() -> std::sync::Arc<D>) {
    let dir = open();
    assert_eq!(dir.partitions().iter().filter(|(id, _)| id.topic.as_str() == "many").count(), 40);
    assert!(!dir.partitions().iter().any(|(id, _)| id.topic.as_str() == "gone"));
    let family = create(&*dir, "retention");
    assert_eq!(offsets(&*dir, family), [2, 4]);
    commit(&*dir, vec![delete(family, 0..3)], false).expect("commit");
    dir.close();
    let dir = open();
    assert_eq!(dir.create(&[partition("retention", 0)]).expect("create"), [family]);
    assert_eq!(offsets(&*dir, family), [4], "a moved start outlives a close");
    assert_eq!(sides(&*dir, "s".."u"), ["s4", "t1"]);
    dir.close();
}

fn a_closed_directory_is_stopped<D: LogDir + ?Sized>(open: &mut dyn FnMut() -> std::sync::Arc<D>) {
    let dir = open();
    let (sender, done) = mpsc::channel();
    for n in 0..50 {
        let sender = sender.clone();
        let writes = vec![side(b"closing", b"v")];
        dir.commit(WriteSet { writes, sync: false }, Box::new(move |result| drop(sender.send((n, result)))));
    }
    drop(sender);
    dir.close();
    // What was queued before is written.
    let results: Vec<_> = done.iter().collect();
    assert_eq!(results.len(), 50);
    assert!(results.iter().enumerate().all(|(n, (at, result))| n == *at && result.is_ok()));
    let refused = commit(&*dir, vec![], false);
    assert!(matches!(refused, Err(StorageError::Stopped { .. })), "{refused:?}");
    let held = std::sync::Arc::new(parking_lot::Mutex::new(()));
    let (guard, taken) = (held.lock(), std::sync::Arc::clone(&held));
    let (sender, done) = mpsc::channel();
    dir.commit(
        WriteSet::default(),
        Box::new(move |_| {
            let free = taken.try_lock_for(std::time::Duration::from_secs(10)).is_some();
            sender.send(free).expect("the test waits");
        }),
    );
    drop(guard);
    assert_eq!(done.recv(), Ok(true), "who queues may hold the lock that `done` takes");
    dir.close();
}

/// The suite over trait objects too, as rooms above see it.
#[test]
fn the_suite_runs_over_a_trait_object() {
    let disk = super::testing::memory::MemoryDir::open();
    check(&mut || -> SharedLogDir { disk.reopen() });
}
