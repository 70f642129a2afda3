//! Settings of log directories.

use super::*;
use crate::broker::dirs;
use crate::storage::rocksdb::CachedBytes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_lies_where_it_was_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| dir.path().join(name));
    let lies = |path: &Path| path.join("meta.properties").exists();
    let several = format!("log.dirs={},{}", one.display(), two.display());
    let probe = Probe::start(&[&several]).await;
    assert!(lies(&one) && lies(&two));
    probe.broker.stop().await;
    // `load` sets log.dirs, which goes before.
    let single = format!("log.dir={}", three.display());
    assert_eq!(load(dir.path(), &[&single]).unwrap().log_dirs, [dir.path()]);
    let inputs = Inputs { overrides: vec![single], ..Inputs::default() };
    assert_eq!(Config::load(&inputs, Machine::this()).unwrap().log_dirs, [three]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_is_refused_below_the_reserve() {
    let mut probe = Probe::start(&["klamm.disk.reserve.bytes=9223372036854775807"]).await;
    probe.create("t").await;
    assert_eq!(probe.produce("t", &["v"]).await, 56, "KAFKA_STORAGE_ERROR");
    let mut probe = probe.restart(&["klamm.disk.reserve.bytes=0"]).await;
    assert_eq!(probe.produce("t", &["v"]).await, 0);
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_are_large_enough_go_to_a_table_of_their_own() {
    for (settings, grows) in [(&["klamm.table.piece.bytes=1"][..], true), (&[], false)] {
        let mut probe = Probe::start(settings).await;
        probe.create("t").await;
        for _ in 0..5 {
            assert_eq!(probe.produce("t", &["v".repeat(200).as_str()]).await, 0);
        }
        assert_eq!(!files_below(&probe.dir.path().join("growing")).is_empty(), grows);
        probe.broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_the_write_buffer_becomes_files() {
    for (setting, flushes) in [("klamm.rocksdb.write.buffer.bytes=1048576", true), ("num.partitions=1", false)] {
        let mut probe = Probe::start(&[setting, "klamm.table.piece.bytes=1073741824"]).await;
        probe.create("t").await;
        let large = "v".repeat(900_000);
        for _ in 0..6 {
            assert_eq!(probe.produce("t", &[large.as_str()]).await, 0);
        }
        let has_tables = || {
            let files = files_below(&probe.dir.path().join("db"));
            files.iter().any(|file| {
                let is_large = || file.metadata().is_ok_and(|file| file.len() > 800_000);
                file.extension().is_some_and(|end| end == "sst") && is_large()
            })
        };
        if flushes {
            eventually("it is flushed", async || has_tables()).await;
        } else {
            assert!(!has_tables());
        }
        probe.broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_batches_are_in_memory_as_far_as_the_tail_reaches() {
    for (settings, in_memory) in [(&["klamm.tail.bytes=0"][..], false), (&[], true)] {
        let mut probe = Probe::start(settings).await;
        probe.create("t").await;
        assert_eq!(probe.produce("t", &["v"]).await, 0);
        let partition = probe.partition("t");
        let end = partition.view().log_end_offset;
        let found = partition.reader().read_memory(partition.view().log_start_offset, end, 1 << 20, true);
        assert_eq!(found.is_some(), in_memory);
        probe.broker.stop().await;
    }
}

/// What is given back of the page cache is shown in `storage/rocksdb/growing/page_cache.rs`; here, that the directory
/// is told.
#[test]
fn a_directory_is_told_how_much_of_the_page_cache_to_keep() {
    let options = |settings: &[&str]| dirs::options(&load(Path::new("d"), settings).unwrap(), 2);
    let kept = Some(CachedBytes { max: 2500, at_once: 2500 });
    assert_eq!(options(&["klamm.page.cache.bytes=5000"]).cached, kept);
    assert_ne!(options(&[]).cached, kept);
    let mut on_dear_pages = load(Path::new("d"), &[]).unwrap();
    on_dear_pages.files_bypass_page_cache = true;
    assert!(dirs::options(&on_dear_pages, 2).files_bypass_page_cache);
    assert!(!options(&["klamm.page.cache.bytes=5000"]).files_bypass_page_cache);
}
