//! Runs of batches through whatever buffer and socket, and what the page cache does to them.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::super::table::{Header, StagedBatch};
use super::*;
use crate::storage::rocksdb::database::OpenTables;
use crate::types::place::Place;
use crate::types::{Offset, PartitionIndex, TopicId};

fn value(number: usize, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at * 7 + number * 13) as u8).collect()
}

/// A table with batches of these sizes, under last offsets 9, 19 and so on, on the disk.
fn table(dir: &Path, sizes: &[usize]) -> (Arc<GrowingTable>, Vec<Bytes>) {
    let topic_id = TopicId(uuid::Uuid::from_u128(7));
    let header = Header { family: 1, topic_id, partition: PartitionIndex(0), follows: Offset::NONE };
    let table = Arc::new(GrowingTable::create(dir.join("1-1.sst"), &header).expect("made"));
    let values: Vec<Bytes> = sizes.iter().enumerate().map(|(number, &bytes)| value(number, bytes)).collect();
    let key = |number: usize| Offset(number as i64 * 10 + 9);
    let staged = |(number, bytes)| StagedBatch { last_offset: key(number), bytes, sum: None };
    let batches: Vec<_> = values.iter().cloned().enumerate().map(staged).collect();
    table.publish(&table.write(&batches).expect("written"));
    table.sync().expect("synced");
    (table, values)
}

fn locate(table: &Arc<GrowingTable>, from: i64, upto: i64, max_bytes: usize) -> (Located, bool) {
    let span = Span { from: Offset(from), upto: Offset(upto), max_bytes, at_least_one: true };
    let mut found = Located { end: span.from, ..Located::default() };
    let goes_on = table.locate(&span, &mut found);
    (found, goes_on)
}

/// Takes the table's pages out of the page cache; false where that does not work. A reader looks, as others would.
fn cool(table: &GrowingTable) -> bool {
    table.sync().expect("synced");
    rustix::fs::fadvise(&table.file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
    table.copy(RunAt { batch: 0, sent: 0, left: 1 }, &mut [0; 1], &mut Vec::new()) == Err(Cold)
}

/// Sends a run through a buffer of this size, of which the socket takes `takes` bytes at a time.
fn send(mut run: FileRun, buffer_bytes: usize, takes: usize) -> io::Result<(Vec<u8>, usize)> {
    let (mut buffer, mut parts, mut sent, mut cold) = (vec![0; buffer_bytes], Vec::new(), Vec::new(), 0);
    while run.len() > 0 {
        let got: Vec<u8> = match run.copy(&mut buffer, &mut parts) {
            Ok(()) => parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect(),
            Err(Cold) => {
                cold += 1;
                run.bring_in()?.concat()
            }
        };
        assert!(!got.is_empty());
        let taken = got.len().min(takes);
        sent.extend_from_slice(&got[..taken]);
        run.advance(taken);
    }
    Ok((sent, cold))
}

#[test]
fn a_span_is_whole_batches_within_its_limits() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (table, values) = table(dir.path(), &[100, 200, 300, 400]);
    for (from, upto, max_bytes, expected, is_all, goes_on) in [
        (0, 40, usize::MAX, 0..4, false, true),
        (10, 40, usize::MAX, 1..4, false, true),
        (19, 30, usize::MAX, 1..3, true, false),
        (20, 29, usize::MAX, 2..2, true, false),
        (0, 40, 599, 0..2, true, false),
        (0, 40, 600, 0..3, true, false),
        (5, 40, 0, 0..1, true, false),
        (40, 90, usize::MAX, 4..4, false, false),
    ] {
        let (found, goes) = locate(&table, from, upto, max_bytes);
        let read: Vec<u8> =
            found.runs.iter().flat_map(|run| Place::File(run.clone()).into_memory().expect("read").concat()).collect();
        assert_eq!(read, values[expected.clone()].concat(), "{from} {upto} {max_bytes}");
        assert_eq!((found.bytes, found.is_all, goes), (read.len(), is_all, goes_on), "{from} {upto} {max_bytes}");
        let end = if expected.is_empty() { from } else { expected.end as i64 * 10 };
        assert_eq!(found.end, Offset(end));
    }
}

#[test]
fn a_run_is_sent_as_it_was_written_whatever_the_buffer_and_the_socket() {
    let dir = tempfile::tempdir().expect("tempdir");
    let sizes = [16 << 10, 1, 70_000, 5, 5, 600 << 10, 4096, 100];
    let (table, values) = table(dir.path(), &sizes);
    let expected = values.concat();
    for cold in [false, true] {
        for (buffer, takes) in [(64 << 10, usize::MAX), (64 << 10, 10_000), (100, 33), (1 << 20, 7777), (50, 1000)] {
            let is_cold = cold && cool(&table);
            let (mut found, _) = locate(&table, 0, 90, usize::MAX);
            let (sent, colds) = send(found.runs.remove(0), buffer, takes).expect("sent");
            assert!(sent == expected, "{buffer} {takes}");
            assert!(is_cold || colds == 0 || cold, "what was written is in the page cache");
        }
    }
    let many: Vec<usize> = (0..1000).map(|at| 10 + at % 50).collect();
    let other = tempfile::tempdir().expect("tempdir");
    let (crumbs, values) = self::table(other.path(), &many);
    let (mut found, _) = locate(&crumbs, 0, 10_000, usize::MAX);
    assert!(send(found.runs.remove(0), 64 << 10, usize::MAX).expect("sent").0 == values.concat());
}

/// Where the kernel says what is in the page cache, which it does from Linux 6.5 on.
#[test]
fn the_kernel_may_send_what_is_large_and_cached_and_checked() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (table, values) = table(dir.path(), &[PIECE_BYTES_MIN - 1, PIECE_BYTES_MIN, 3 * PIECE_BYTES_MAX]);
    let says = is_cached(&table.file, 0, 1) && table.sends();
    let left: usize = values.iter().map(Bytes::len).sum();
    let piece = |batch: u32, sent: u32| {
        let found = table.piece(RunAt { batch, sent, left })?;
        let mut bytes = vec![0; found.bytes];
        table.file.read_exact_at(&mut bytes, found.start).expect("read");
        assert!(bytes == values[batch as usize][sent as usize..sent as usize + found.bytes]);
        Some(found.bytes)
    };
    assert_eq!(piece(0, 0), None);
    assert_eq!(piece(1, 0), says.then_some(PIECE_BYTES_MIN));
    assert_eq!(piece(1, 1), says.then_some(PIECE_BYTES_MIN - 1), "the rest of what is large");
    assert_eq!(piece(1, (PIECE_BYTES_MIN - REST_BYTES_MIN) as u32 + 1), None);
    assert_eq!(piece(2, 9), says.then_some(PIECE_BYTES_MAX));
    assert_eq!(piece(2, 5 * PIECE_BYTES_MAX as u32 / 2), says.then_some(PIECE_BYTES_MAX / 2));
    table.checks.forget(2);
    assert_eq!((piece(1, 0), piece(2, 0)), (None, says.then_some(PIECE_BYTES_MAX)));
    table.checks.note(0..2, table.checks.forgotten());
    assert_eq!(piece(1, 0), says.then_some(PIECE_BYTES_MIN));
    let run = |batch: u32, left: usize| BatchFile::is_cached(&*table, RunAt { batch, sent: 0, left });
    assert_eq!((run(0, left), run(2, 0)), (says, true));
    table.sync().expect("synced");
    // Some of the last batch.
    let (from, bytes) = (left as u64 - (2 << 20), std::num::NonZeroU64::new(1 << 20));
    rustix::fs::fadvise(&table.file, from, bytes, rustix::fs::Advice::DontNeed).expect("advised");
    let is_dropped = !is_cached(&table.file, from, 1 << 20);
    assert_eq!((run(0, 2 * PIECE_BYTES_MIN - 1), run(0, left)), (says, says && !is_dropped));
    rustix::fs::fadvise(&table.file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
    assert_eq!(piece(1, 0).is_some(), is_cached(&table.file, 0, 2 * PIECE_BYTES_MIN as u64));
}

/// A socket that is full anywhere has a batch sent in parts, and copies go on into the next batch.
#[test]
fn the_kernel_sends_most_of_large_batches_wherever_the_socket_was_full() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (table, values) = table(dir.path(), &[65_535; 40]);
    let says = is_cached(&table.file, 0, 1) && table.sends();
    for takes in [3000, 50_000, 70_000, 100_000] {
        let (mut run, mut buffer) = (locate(&table, 0, 400, usize::MAX).0.runs.remove(0), vec![0; 128 << 10]);
        let (mut sent, mut by_kernel, mut parts) = (Vec::new(), 0, Vec::new());
        while run.len() > 0 {
            let bytes = if let Some(piece) = run.piece() {
                let mut bytes = vec![0; piece.bytes];
                table.file.read_exact_at(&mut bytes, piece.start).expect("read");
                by_kernel += bytes.len().min(takes);
                bytes
            } else {
                run.copy(&mut buffer, &mut parts).expect("in the page cache");
                parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect()
            };
            let taken = bytes.len().min(takes);
            sent.extend_from_slice(&bytes[..taken]);
            run.advance(taken);
        }
        assert!(sent == values.concat());
        assert!(!says || by_kernel * 10 > sent.len() * 9, "{takes}: {by_kernel} of {}", sent.len());
    }
}

/// What came from the disk is checked before it is sent; what is damaged is not, and is not located any more.
#[test]
fn a_bit_that_flipped_on_the_disk_is_never_sent() {
    for sizes in [[16 << 10, 16 << 10, 16 << 10], [16 << 10, 2 << 20, 16 << 10]] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &sizes);
        let (mut found, _) = locate(&table, 0, 30, usize::MAX);
        let run = found.runs.remove(0);
        let place = table.blocks.read()[1].value_start() + 5000;
        let mut byte = [0];
        table.file.read_exact_at(&mut byte, place).expect("read");
        table.file.write_all_at(&[byte[0] ^ 4], place).expect("flipped");
        if !cool(&table) {
            return;
        }
        let Err(error) = send(run, 64 << 10, usize::MAX) else { panic!("damaged bytes were sent") };
        let error = error.to_string();
        assert!(error.contains("checksum mismatch at offset 19"), "{error}");
        let (mut found, goes_on) = locate(&table, 0, 30, usize::MAX);
        assert!(found.bytes == sizes[0] && !goes_on && !found.is_all, "what lies before it can be had");
        table.checks.forget(table.block_count());
        let sent =
            send(found.runs.remove(0), 64 << 10, usize::MAX).expect("though it is checked with the damaged one").0;
        assert!(sent == values[0]);
        table.file.write_all_at(&byte, place).expect("as it was");
    }
}

/// Clients that read nothing hold no more of the disk and its descriptors than this.
#[test]
fn replies_hold_a_bounded_number_of_tables() {
    let dirs = [tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir")];
    let [(one, _), (other, _)] = [0, 1].map(|at| table(dirs[at].path(), &[100, 100]));
    let open = Arc::new(OpenTables::new(1));
    one.count_in(&open);
    other.count_in(&open);
    let held = locate(&one, 0, 20, usize::MAX).0.runs;
    assert_eq!((held.len(), locate(&one, 0, 20, 100).0.runs.len()), (1, 1), "it is lent already");
    let (found, goes_on) = locate(&other, 0, 20, usize::MAX);
    assert!(found.runs.is_empty() && found.end == Offset(0) && !goes_on && !found.is_all, "to be read in another way");
    // The same where a limit lies within the table: there is more of the span.
    for (upto, bytes_max) in [(10, usize::MAX), (20, 100)] {
        let (found, _) = locate(&other, 0, upto, bytes_max);
        assert!(found.runs.is_empty() && !found.is_all, "up to {upto}, {bytes_max} bytes");
    }
    let weak = Arc::downgrade(&one);
    drop(one);
    drop(held);
    assert_eq!(locate(&other, 0, 20, usize::MAX).0.runs.len(), 1);
    assert_eq!(weak.strong_count(), 1, "a file that was deleted is not closed by who sends");
    open.close_all();
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn what_came_from_the_disk_is_checked_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (table, values) = table(dir.path(), &[100 << 10; 20]);
    if !cool(&table) {
        return;
    }
    let run = || locate(&table, 0, 200, usize::MAX).0.runs.remove(0);
    let (sent, cold) = send(run(), 64 << 10, usize::MAX).expect("sent");
    assert!(sent == values.concat() && cold > 0);
    assert_eq!(send(run(), 64 << 10, usize::MAX).expect("sent").1, 0, "all of it is checked and in the page cache");
    table.checks.forget(table.block_count());
    assert!(send(run(), 64 << 10, usize::MAX).expect("sent").1 > 0, "in the page cache, but not checked");
}

/// It waits for the disk now and then, whatever the size of its batches.
#[test]
fn small_batches_are_checked_in_the_buffer_that_they_are_copied_to() {
    let dir = tempfile::tempdir().expect("tempdir");
    let sizes: Vec<usize> = (0..2000).map(|number| 1000 + number % 7000).collect();
    let (table, values) = table(dir.path(), &sizes);
    let run = || locate(&table, 0, 20_000, usize::MAX).0.runs.remove(0);
    if !cool(&table) {
        return;
    }
    let stretches = table.size_bytes().div_ceil(AHEAD_BYTES) as usize;
    let (sent, cold) = send(run(), COPIED_BYTES, 100_000).expect("sent");
    assert!(sent == values.concat() && cold <= 3 * stretches, "{cold} of {stretches}");
    table.checks.forget(table.block_count());
    let (sent, cold) = send(run(), COPIED_BYTES, 100_000).expect("sent");
    assert!(sent == values.concat() && cold == 0, "it is in the page cache");
    assert!(table.checks.has(0..2000));
    // The end of a run may lie before that of what fits the buffer.
    table.checks.forget(table.block_count());
    let mut some = locate(&table, 35, 110, 10_000).0.runs.remove(0);
    let (mut buffer, mut parts) = (vec![0; COPIED_BYTES], Vec::new());
    some.copy(&mut buffer, &mut parts).expect("copied");
    let bytes: usize = parts.iter().map(Range::len).sum();
    assert_eq!(bytes, some.len(), "at once");
    some.advance(1500);
    table.checks.forget(table.block_count());
    some.copy(&mut buffer, &mut parts).expect("copied");
    assert_eq!(parts.iter().map(Range::len).sum::<usize>(), bytes - 1500, "the rest of one that was sent in part");
    assert!(buffer[parts[0].clone()] == values[4][497..], "{parts:?}");
}

/// Whoever reads the same file elsewhere has all that was checked forgotten.
#[test]
fn readers_of_one_file_that_come_from_the_disk_do_not_hold_each_other_up() {
    for bytes in [10_000, 300 << 10] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &vec![bytes; (8 << 20) / bytes]);
        let run = |from: i64| locate(&table, from, 10_000, usize::MAX).0.runs.remove(0);
        if !cool(&table) {
            return;
        }
        let mut runs = [run(0), run(values.len() as i64 / 2 * 10)];
        let (mut buffer, mut parts, mut cold) = (vec![0; COPIED_BYTES], Vec::new(), 0);
        let mut sent = [Vec::new(), Vec::new()];
        while runs.iter().any(|run| run.len() > 0) {
            for (run, sent) in runs.iter_mut().zip(&mut sent).filter(|(run, _)| run.len() > 0) {
                let got = match run.copy(&mut buffer, &mut parts) {
                    Ok(()) => parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect(),
                    Err(Cold) => {
                        cold += 1;
                        run.bring_in().expect("read").concat()
                    }
                };
                run.advance(got.len());
                sent.extend(got);
            }
        }
        assert!(sent == [values.concat(), values[values.len() / 2..].concat()]);
        let pieces = sent.iter().map(Vec::len).sum::<usize>() / COPIED_BYTES;
        assert!(cold < pieces / 3, "{cold} of {pieces} pieces of {bytes}");
    }
}

/// Those before a batch that cannot be read can be had, and it costs one reader its connection.
#[test]
fn what_the_disk_does_not_give_costs_no_other_batch() {
    for bytes in [10_000, 200 << 10] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[bytes; 12]);
        let place = table.blocks.read()[7].value_start() + 5000;
        table.file.set_len(place).expect("cut");
        table.checks.forget(table.block_count());
        let mut run = locate(&table, 0, 120, usize::MAX).0.runs.remove(0);
        let (mut buffer, mut parts, mut sent) = (vec![0; COPIED_BYTES], Vec::new(), Vec::new());
        let error = loop {
            let got: Vec<u8> = match run.copy(&mut buffer, &mut parts) {
                Ok(()) => parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect(),
                Err(Cold) => match run.bring_in() {
                    Ok(brought) => brought.concat(),
                    Err(error) => break error,
                },
            };
            run.advance(got.len());
            sent.extend(got);
        };
        assert!(sent == values[..7].concat(), "{} of {bytes}: {error}", sent.len());
        assert_eq!(locate(&table, 0, 120, usize::MAX).0.bytes, sent.len(), "what lies before it");
    }
}

/// A flip in the page cache that the check in the background has found was sent to whoever had asked before.
#[test]
fn what_was_found_damaged_meanwhile_is_not_sent() {
    for bytes in [10_000, PIECE_BYTES_MIN] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[bytes; 3]);
        let run = locate(&table, 0, 30, usize::MAX).0.runs.remove(0);
        table.file.write_all_at(&[values[1][500] ^ 1], table.blocks.read()[1].value_start() + 500).expect("flipped");
        assert_eq!(table.check_cached(0, 1 << 20, &mut Vec::new(), |_| ()).map(|(next, _)| next), Some(3));
        assert_eq!(table.piece(RunAt { batch: 1, sent: 0, left: 2 * bytes }).map(|piece| piece.bytes), None);
        let error = send(run, COPIED_BYTES, usize::MAX).map(drop).expect_err("damaged bytes were sent").to_string();
        assert!(error.contains("checksum mismatch at offset 19"), "{error}");
    }
}
