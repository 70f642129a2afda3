//! What the log directory costs by itself: throughput, CPU, write amplification, memory, latency, start and stop.
//!
//! `cargo run --release --example storage-perf -- DIR COMMAND [name=value ...]`, with DIR on the disk to be measured. Commands:
//!
//! - `write families=6 value=16384 mib=2048 window_kib=1024 sync=0`: appends round robin with one 64-byte side record
//!   each, so many KiB outstanding; then closes. CPU and written bytes include the close.
//! - `latency value=16384 per_second=1000 seconds=5 sync=0`: lone commits, commit to `Done`.
//! - `partitions count=1000`: creates them in one call, writes a batch to each, closes, opens again, deletes them.
//! - `restart mib=1024 families=6`: writes, is killed, opens again. The directory stays.
//! - `read families=6 value=16384 mib=1024`: writes, closes, opens and scans everything, in one scan and in 1 MiB steps.
//! - `full reserve_mib=32 rounds=3`: appends until refused, deletes the older half, goes on; for a small file system.
//!
//! Figures are this process's own: user and system time, `write_bytes` of /proc/self/io, resident memory.

#![allow(dead_code, unused_imports, clippy::print_stdout, clippy::unwrap_used, unreachable_pub)]

#[path = "../../src/storage/mod.rs"]
mod storage;
#[path = "../../src/task.rs"]
mod task;
#[path = "../../src/types/mod.rs"]
mod types;

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use storage::rocksdb::{DirectoryOptions, RocksDirectory};
use storage::{Family, LogDir, PartitionId, Visited, Write, WriteSet, keys};
use types::{Offset, PartitionIndex, TopicId, TopicName};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("DIR COMMAND [name=value ...]"));
    let command = arguments.next().expect("a command");
    let settings: HashMap<String, u64> = arguments
        .map(|argument| {
            let (name, value) = argument.split_once('=').expect("name=value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    let of = |name: &str, default: u64| settings.get(name).copied().unwrap_or(default);
    fs::create_dir_all(&dir).expect("DIR");
    let options = DirectoryOptions {
        write_buffer_bytes: (of("write_buffer_mib", 64) as usize) << 20,
        write_buffer_bytes_max: (of("write_buffer_max_mib", 256) as usize) << 20,
        disk_reserve_bytes: of("reserve_mib", 1024) << 20,
        ..DirectoryOptions::default()
    };
    let load = Load {
        families: of("families", 6) as i32,
        value: of("value", 16384) as usize,
        bytes: of("mib", 1024) << 20,
        window: of("window_kib", 1024) << 10,
        sync: of("sync", 0) != 0,
    };
    match command.as_str() {
        "write" => write(&dir, options, &load),
        "latency" => latency(&dir, options, &load, of("per_second", 1000), of("seconds", 5)),
        "partitions" => partitions(&dir, options, of("count", 1000) as i32),
        "restart" => restart(&dir, options, &load),
        "killed" => killed(&dir, options, &load),
        "full" => full(&dir, options, of("rounds", 3)),
        "read" => read(&dir, options, &load),
        other => panic!("unknown command {other}"),
    }
}

struct Load {
    families: i32,
    value: usize,
    bytes: u64,
    window: u64,
    sync: bool,
}

fn ids(count: i32) -> Vec<PartitionId> {
    let id = |partition| PartitionId {
        topic: TopicName::new("perf"),
        topic_id: TopicId::from_random(12345).unwrap(),
        partition: PartitionIndex(partition),
    };
    (0..count).map(id).collect()
}

fn open(dir: &Path, options: DirectoryOptions) -> Arc<RocksDirectory> {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let opened = RocksDirectory::open(dir, options).expect("open");
    println!("open                 {:>9.1} ms, CPU {:.0} ms", ms(begin.elapsed()), (cpu_seconds() - cpu) * 1e3);
    opened
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Bytes outstanding, and a wait for room.
#[derive(Default)]
struct Window {
    outstanding: Mutex<u64>,
    changed: Condvar,
}

fn append(dir: &RocksDirectory, families: &[Family], load: &Load) {
    let window = Arc::new(Window::default());
    // Incompressible enough, and the same memory each time as in a network buffer that is reused.
    let payload: Vec<u8> = (0..load.value + 4096).map(|n| (n as u32).wrapping_mul(2_654_435_761) as u8).collect();
    let payload = Bytes::from(payload);
    let bytes = load.value as u64;
    let id = &ids(1)[0];
    let slowest = Arc::new(Mutex::new(Duration::ZERO));
    for n in 0..load.bytes / bytes {
        let family = families[(n % families.len() as u64) as usize];
        let offset = Offset((n / families.len() as u64) as i64);
        let shift = (n % 4096) as usize;
        let side = keys::side(id.topic_id, PartitionIndex(family.0 as i32), 0x83, &7_u64.to_be_bytes());
        let writes = vec![
            Write::Batch {
                family,
                last_offset: offset,
                batch: payload.slice(shift..shift + load.value),
                sum: None,
                in_order: false,
            },
            Write::Side { key: side, value: payload.slice(..64) },
        ];
        let mut outstanding = window.outstanding.lock().unwrap();
        while *outstanding + bytes > load.window.max(bytes) {
            outstanding = window.changed.wait(outstanding).unwrap();
        }
        *outstanding += bytes;
        drop(outstanding);
        let (window, slowest, begin) = (Arc::clone(&window), Arc::clone(&slowest), Instant::now());
        let done = Box::new(move |result: Result<(), storage::StorageError>| {
            result.expect("written");
            let mut worst = slowest.lock().unwrap();
            *worst = worst.max(begin.elapsed());
            let mut outstanding = window.outstanding.lock().unwrap();
            *outstanding -= bytes;
            window.changed.notify_one();
        });
        dir.commit(WriteSet { writes, sync: load.sync }, done);
    }
    let mut outstanding = window.outstanding.lock().unwrap();
    while *outstanding > 0 {
        outstanding = window.changed.wait(outstanding).unwrap();
    }
    println!("slowest commit       {:>9.1} ms", ms(*slowest.lock().unwrap()));
}

fn write(dir: &Path, options: DirectoryOptions, load: &Load) {
    let log_dir = open(dir, options);
    std::thread::sleep(Duration::from_millis(300));
    println!("idle resident        {:>9.1} MiB", resident_mib("VmRSS"));
    let families = log_dir.create(&ids(load.families)).expect("create");
    let (cpu, written, begin) = (cpu_seconds(), io("write_bytes"), Instant::now());
    append(&log_dir, &families, load);
    let appended = begin.elapsed().as_secs_f64();
    println!("resident after load  {:>9.1} MiB, peak {:.1}", resident_mib("VmRSS"), resident_mib("VmHWM"));
    let closing = Instant::now();
    log_dir.close();
    println!("close                {:>9.1} ms", ms(closing.elapsed()));
    let (mib, gib) = (load.bytes as f64 / (1 << 20) as f64, load.bytes as f64 / (1 << 30) as f64);
    println!("appended             {:>9.1} MiB/s, drained {:.1}", mib / appended, mib / begin.elapsed().as_secs_f64());
    println!("CPU                  {:>9.2} s/GiB drained", (cpu_seconds() - cpu) / gib);
    println!("write amplification  {:>9.2}", (io("write_bytes") - written) as f64 / load.bytes as f64);
}

fn latency(dir: &Path, options: DirectoryOptions, load: &Load, per_second: u64, seconds: u64) {
    let log_dir = open(dir, options);
    let families = log_dir.create(&ids(load.families)).expect("create");
    let payload = Bytes::from(vec![7; load.value]);
    let (sender, times) = mpsc::channel();
    let cpu = cpu_seconds();
    let begin = Instant::now();
    for n in 0..per_second * seconds {
        let due = Duration::from_secs(n) / per_second as u32;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let family = families[n as usize % families.len()];
        let writes = vec![Write::Batch {
            family,
            last_offset: Offset(n as i64),
            batch: payload.clone(),
            sum: None,
            in_order: false,
        }];
        let (sender, called) = (sender.clone(), Instant::now());
        let done = Box::new(move |result: Result<(), storage::StorageError>| {
            result.expect("written");
            sender.send(called.elapsed()).unwrap();
        });
        log_dir.commit(WriteSet { writes, sync: load.sync }, done);
    }
    drop(sender);
    let mut times: Vec<Duration> = times.iter().collect();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "commit to Done       p50 {:.0} us, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!(
        "CPU                  {:>9.1} us per commit, pacing included",
        (cpu_seconds() - cpu) * 1e6 / times.len() as f64
    );
    log_dir.close();
}

fn partitions(dir: &Path, options: DirectoryOptions, count: i32) {
    let log_dir = open(dir, options.clone());
    let timed = |what: &str, call: &mut dyn FnMut()| {
        let begin = Instant::now();
        call();
        println!("{what:<20} {:>9.1} ms, resident {:.0} MiB", ms(begin.elapsed()), resident_mib("VmRSS"));
    };
    let mut families = Vec::new();
    timed("create", &mut || families = log_dir.create(&ids(count)).expect("create"));
    let batch = Load { families: count, value: 16384, bytes: count as u64 * 16384, window: 1 << 20, sync: false };
    timed("one batch each", &mut || append(&log_dir, &families, &batch));
    timed("close", &mut || log_dir.close());
    let mut again = None;
    timed("open again", &mut || again = Some(open(dir, options.clone())));
    let again = again.unwrap();
    timed("create one more", &mut || drop(again.create(&ids(count + 1)).expect("create")));
    timed("delete", &mut || again.delete(&ids(count + 1)).expect("delete"));
    timed("create anew", &mut || drop(again.create(&ids(count)).expect("create")));
    timed("close", &mut || again.close());
}

fn killed(dir: &Path, options: DirectoryOptions, load: &Load) {
    let log_dir = open(dir, options);
    let families = log_dir.create(&ids(load.families)).expect("create");
    append(&log_dir, &families, load);
    // Abort stands for a kill: nothing is flushed or closed.
    std::process::abort();
}

fn restart(dir: &Path, options: DirectoryOptions, load: &Load) {
    let program = std::env::current_exe().unwrap();
    let outcome = std::process::Command::new(program)
        .arg(dir)
        .arg("killed")
        .arg(format!("mib={}", load.bytes >> 20))
        .arg(format!("families={}", load.families))
        .arg(format!("value={}", load.value))
        .status()
        .expect("started");
    assert!(!outcome.success());
    println!("-- after the kill");
    let log_dir = open(dir, options.clone());
    println!("resident             {:>9.1} MiB", resident_mib("VmRSS"));
    let begin = Instant::now();
    let ends: Vec<_> = log_dir
        .create(&ids(load.families))
        .expect("create")
        .into_iter()
        .map(|family| log_dir.last_batch(family).expect("read").expect("a batch").0.0)
        .collect();
    println!("last batches         {:>9.1} ms, {ends:?}", ms(begin.elapsed()));
    let begin = Instant::now();
    log_dir.close();
    println!("close                {:>9.1} ms", ms(begin.elapsed()));
    drop(log_dir);
    println!("-- after the close");
    open(dir, options).close();
}

fn read(dir: &Path, options: DirectoryOptions, load: &Load) {
    let log_dir = open(dir, options.clone());
    let families = log_dir.create(&ids(load.families)).expect("create");
    append(&log_dir, &families, load);
    log_dir.close();
    let log_dir = open(dir, options);
    for step in [u64::MAX, 1 << 20, 64 << 10] {
        let (cpu, begin, read_bytes) = (cpu_seconds(), Instant::now(), io("read_bytes"));
        let mut bytes = 0_u64;
        for family in &families {
            let mut next = 0;
            loop {
                let (before, from) = (bytes, next);
                let visit = &mut |last_offset: Offset, batch: Visited<'_>| {
                    bytes += batch.len() as u64;
                    next = last_offset.0 + 1;
                    if bytes - before >= step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                log_dir.scan(*family, Offset(from), usize::try_from(step).expect("64 bits"), visit).expect("scan");
                if bytes == before {
                    break;
                }
            }
        }
        let mib = bytes as f64 / (1 << 20) as f64;
        println!(
            "scan by {:>5} KiB     {:>9.1} MiB/s, CPU {:.2} s/GiB, {:.0} MiB from disk",
            step.min(1 << 40) >> 10,
            mib / begin.elapsed().as_secs_f64(),
            (cpu_seconds() - cpu) / mib * 1024.0,
            (io("read_bytes") - read_bytes) as f64 / (1 << 20) as f64
        );
    }
    log_dir.close();
}

fn full(dir: &Path, options: DirectoryOptions, rounds: u64) {
    let log_dir = open(dir, options.clone());
    let families = log_dir.create(&ids(4)).expect("create");
    let payload = Bytes::from((0..16384_u32).map(|n| n.wrapping_mul(2_654_435_761) as u8).collect::<Vec<u8>>());
    let commit = |writes: Vec<Write>| {
        let (sender, receiver) = mpsc::channel();
        log_dir.commit(WriteSet { writes, sync: false }, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap()
    };
    let (mut start, mut end) = (0_i64, 0_i64);
    for round in 0..rounds {
        let begin = end;
        let refused = loop {
            let add = |family: &Family| Write::Batch {
                family: *family,
                last_offset: Offset(end),
                batch: payload.clone(),
                sum: None,
                in_order: false,
            };
            match commit(families.iter().map(add).collect()) {
                Ok(()) => end += 1,
                Err(error) => break error,
            }
        };
        println!("round {round}: {} MiB until: {refused}", (end - begin) / 16);
        let middle = start + (end - start) / 2;
        let delete =
            |family: &Family| Write::DeleteBatches { family: *family, last_offsets: Offset(0)..Offset(middle) };
        commit(families.iter().map(delete).collect()).expect("deletes always pass");
        start = middle;
        let begin = Instant::now();
        while log_dir.is_full() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("room again after     {:>9.1} ms", ms(begin.elapsed()));
    }
    log_dir.close();
    let log_dir = open(dir, options);
    let mut found = 0;
    for family in &families {
        let count = &mut |_: Offset, _: Visited<'_>| {
            found += 1;
            ControlFlow::Continue(())
        };
        log_dir.scan(*family, Offset(0), usize::MAX, count).expect("scan");
    }
    assert_eq!(found, (end - start) * families.len() as i64);
    log_dir.close();
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn io(field: &str) -> u64 {
    number_of(&fs::read_to_string("/proc/self/io").unwrap(), field)
}

fn resident_mib(field: &str) -> f64 {
    number_of(&fs::read_to_string("/proc/self/status").unwrap(), field) as f64 / 1024.0
}

fn number_of(text: &str, field: &str) -> u64 {
    let line = text.lines().find(|line| line.split(':').next() == Some(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
