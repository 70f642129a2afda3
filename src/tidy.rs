//! The rules of ARCHITECTURE.md and of style as a test: which room may import which, where the outside crates, the
//! clock, randomness and spawning may be named, and how a file looks.
//!
//! The tables come first; whoever changes the house changes them in the same commit. Code under `#[cfg(test)]` is free
//! of the doors, because a test may build what it likes, but not of the rules about form. Each checker is a function
//! from text to findings, and is shown to fail on a planted fault at the end.
//!
//! Tests and what they share have four names. `tests` (inline, or a file of its own) and `<subject>_tests` hold tests;
//! `testing` holds what several files of tests share, doubles of the room's seam above all, and stands in the room
//! whose seam it doubles: a room of doubles would have to import every other. `contract` is the suite of a seam.

mod circles;
mod cves;
mod source;

use source::{Source, below, files, imports, names, sources, test_files, ungrouped};

/// The vocabulary and the tools that a room with tasks of its own may use.
const BASE: &[&str] = &["types", "clock", "task", "metrics", "config"];

/// A room, or a part of one (the longest path that fits counts), and what it may import besides itself.
struct Door {
    path: &'static str,
    base: &'static [&'static str],
    rooms: &'static [&'static str],
}

const fn door(path: &'static str, base: &'static [&'static str], rooms: &'static [&'static str]) -> Door {
    Door { path, base, rooms }
}

/// Who may import whom. Absent from a row means never; `clock` in a row without tasks is there for `UnixMs`.
const DOORS: &[Door] = &[
    door("types", &[], &[]),
    door("clock", &["types"], &[]),
    door("task", &["types"], &[]),
    door("metrics", &["types"], &[]),
    door("config", &["types", "clock"], &[]),
    // No input or output, no tasks: functions over bytes.
    door("record", &["types", "clock"], &[]),
    door("wire", &["types", "clock"], &[]),
    door("storage", BASE, &[]),
    door("coordination", BASE, &[]),
    door("coordination/embedded", BASE, &["storage"]),
    // Synchronous: it never spawns.
    door("log", &["types", "clock", "metrics", "config"], &["record", "storage"]),
    // A task of its own follows the feed of config changes.
    door("cluster", BASE, &["coordination"]),
    // A task of its own follows what it needs of the tree, through `cluster`.
    door("security", BASE, &["cluster"]),
    // `storage` for the write sets that it commits; never a znode.
    door("replica", BASE, &["log", "record", "storage", "cluster"]),
    // Never a log.
    door("controller", BASE, &["cluster", "coordination"]),
    // Never storage: `replica` through PartitionWriter.
    door("coordinator", BASE, &["replica", "cluster", "record"]),
    door("coordinator/replica_writer", BASE, &["replica", "log", "cluster", "record"]),
    // Never storage, znodes or sockets.
    door("api", BASE, &["wire", "record", "log", "cluster", "security", "replica", "controller", "coordinator"]),
    // The one map of all errors to Kafka's codes.
    door(
        "api/error_code",
        BASE,
        &[
            "wire",
            "record",
            "log",
            "cluster",
            "security",
            "replica",
            "controller",
            "coordinator",
            "coordination",
            "storage",
        ],
    ),
    // A socket's bytes, and no word of what they say. A relay has tasks.
    door("transport", &["types", "task"], &["wire"]),
    // No domain room: it knows an API by its header.
    door("net", BASE, &["api", "wire", "security", "transport"]),
    // The wire below, the seams of the rooms above: the far ends of what `cluster` and `replica` know as links.
    door("peer", BASE, &["wire", "cluster", "security", "replica", "coordinator", "transport"]),
    door("observe", BASE, &["cluster", "security", "replica", "controller", "coordinator"]),
];

/// These put the house together and may import everything.
const COMPOSITION: &[&str] = &["lib", "main", "broker", "sim", "tidy"];

/// A name in code, and the only paths whose code may contain it.
struct Only {
    names: &'static [&'static str],
    paths: &'static [&'static str],
    why: &'static str,
}

const ONLY: &[Only] = &[
    Only {
        names: &["kafka_protocol"],
        paths: &["wire", "api", "peer"],
        why: "domain rooms speak their own types, not the wire's",
    },
    Only {
        names: &["rocksdb", "librocksdb_sys"],
        paths: &["storage/rocksdb"],
        why: "RocksDB stays behind the storage seam",
    },
    Only {
        names: &["dir.commit", "dir.queue", "storage::queue"],
        paths: &["storage", "replica/partition"],
        why: "who writes waits for the outcome (storage::commit); a bare callback may forget it",
    },
    Only {
        names: &["zookeeper_client"],
        paths: &["coordination/zookeeper"],
        why: "ZooKeeper stays behind the coordination seam",
    },
    Only {
        names: &["rustls", "p12_keystore", "pkcs8", "x509_parser"],
        paths: &["security/tls", "transport"],
        why: "TLS stays behind a stream and a listener's settings",
    },
    Only {
        names: &["hyper", "http_body_util"],
        paths: &["peer/web"],
        why: "HTTP stays behind the seam of those who ask (security::sasl::web)",
    },
    Only {
        names: &["rustls_native_certs"],
        paths: &["security/tls"],
        why: "TLS stays behind a stream and a listener's settings",
    },
    Only {
        names: &["tokio::spawn", "spawn_blocking", "spawn_local", "thread::spawn", "thread::Builder"],
        paths: &["task"],
        why: "task.rs alone spawns, so that each task has a panic policy",
    },
    Only {
        // Tokio's own `Instant` is fine for the deadline of a wait: a test can stop it.
        names: &["SystemTime::now", "std::time::Instant"],
        paths: &["clock", "task", "net", "broker", "main"],
        why: "rooms are given the time (I-25)",
    },
    Only {
        names: &["getrandom", "Uuid::new_v4", "rand::"],
        paths: &["clock"],
        why: "rooms are given their random numbers (I-25)",
    },
    Only {
        names: &["TcpListener", "TcpStream", "UdpSocket", "socket2"],
        // The broker opens the listeners, so that a taken port ends the start before anything else is touched.
        paths: &["net", "broker", "peer/connection", "peer/web", "transport"],
        why: "sockets belong to net and transport, and those to others to peer",
    },
];

/// Outcomes that are dropped by `let _ =`: where, how many, and what makes up for the looking.
const DROPPED: &[(&str, usize, &str)] = &[
    ("replica/ack", 1, "whoever asked may have gone"),
    ("coordination/embedded", 1, "a call that ran out of time no longer waits"),
    ("coordination/embedded/watch", 1, "nobody may be waiting any more"),
    ("coordination/zookeeper/watch", 1, "nobody may be waiting any more"),
    ("coordination/zookeeper/session", 2, "a close that comes late is as good as a cut; what comes after it is closed"),
    ("controller/channel", 2, "a queue's far end has gone with its broker, or with the controller"),
    ("controller/controller", 4, "whoever asked may have gone; a node that stays is found to be ours"),
    ("controller/event", 1, "a lost session counts as changed"),
    ("cluster/admin", 1, "a lost session counts as changed"),
    ("cluster/dynamic_config", 1, "a lost session counts as changed"),
    ("cluster/auto_create", 1, "what is shown in time is looked up afterwards"),
    ("api/brokers", 1, "whoever asked may have gone"),
    ("api/topics/create_topics", 1, "what is shown in time is looked up afterwards"),
    ("api/topics/delete_topics", 1, "the publisher lives as long as the wait"),
    ("net/connection", 1, "a broker that is gone has stopped"),
    ("broker", 2, "an orderly stop waits for so long and no longer"),
    ("observe/log4j", 3, "writing into a string does not fail; a second call changes nothing"),
    ("observe/process", 1, "the limit that holds afterwards is read"),
];

/// A file longer than this is several files.
const FILE_LINES_MAX: usize = 1000;
const COLUMNS_MAX: usize = 120;

/// Words that mean unfinished. Spelled in halves, since this file is read as well.
const MARKERS: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("unimpl", "emented!"), ("to", "do!"), ("HA", "CK")];

fn check_doors(source: &Source) -> Vec<String> {
    let room = source.room();
    if COMPOSITION.contains(&room) {
        return Vec::new();
    }
    let door = DOORS.iter().filter(|door| below(source.path(), door.path)).max_by_key(|door| door.path.len());
    let Some(door) = door else {
        return vec![format!("{}: the room `{room}` has no row in DOORS", source.name)];
    };
    let known = |name: &str| DOORS.iter().any(|door| door.path == name) || COMPOSITION.contains(&name);
    imports(source)
        .into_iter()
        .filter(|(_, name)| known(name) && name != room)
        .filter(|(_, name)| !door.base.contains(&name.as_str()) && !door.rooms.contains(&name.as_str()))
        .map(|(line, name)| format!("{}:{line}: `{}` may not import `{name}`", source.name, door.path))
        .collect()
}

fn check_dropped(source: &Source) -> Vec<String> {
    let allowed = DROPPED.iter().find(|(path, ..)| *path == source.path()).map_or(0, |(_, count, _)| *count);
    let dropped = source.production().filter(|(_, line)| line.trim_start().starts_with("let _ ="));
    let found = dropped.skip(allowed);
    found
        .map(|(line, _)| format!("{}:{line}: an outcome is dropped; look at it, or say why in DROPPED", source.name))
        .collect()
}

fn check_only(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for rule in ONLY {
        if rule.paths.iter().any(|prefix| below(source.path(), prefix)) {
            continue;
        }
        for (number, line) in source.production() {
            let line = &ungrouped(line);
            for name in rule.names.iter().filter(|name| names(line, name)) {
                // `storage::rocksdb` is our own folder, not the crate.
                if line.contains(&format!("storage::{name}")) || line.contains(&format!("mod {name}")) {
                    continue;
                }
                // The composition names our folders, too.
                if COMPOSITION.contains(&source.room()) && line.contains("crate::") {
                    continue;
                }
                found.push(format!("{}:{number}: `{name}` here: {}", source.name, rule.why));
            }
        }
    }
    found
}

fn check_form(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(format!("{}:1: a file opens with `//!`: what lives here, what does not", source.name));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{}: {lines} lines; more than {FILE_LINES_MAX} are several files", source.name));
    }
    for (index, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        // The formatter cannot break a literal, and a golden frame is one.
        let inked = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        let literal = line.contains('"') && inked(line) > inked(code) + COLUMNS_MAX / 3;
        // Nor can a row of a table be broken.
        let row = line.trim_start().starts_with("//! |");
        if line.chars().count() > COLUMNS_MAX && !literal && !row {
            found.push(format!("{}:{}: wider than {COLUMNS_MAX} columns", source.name, index + 1));
        }
        for (first, second) in MARKERS {
            if names(line, &format!("{first}{second}")) {
                found.push(format!("{}:{}: leftover `{first}{second}`", source.name, index + 1));
            }
        }
    }
    found
}

#[track_caller]
fn check(checker: fn(&Source) -> Vec<String>) {
    let found: Vec<String> = sources().iter().flat_map(checker).collect();
    assert!(found.is_empty(), "{} finding(s):\n{}", found.len(), found.join("\n"));
}

#[test]
fn rooms_import_through_their_doors_only() {
    check(check_doors);
}

#[test]
fn outside_crates_clock_chance_and_spawning_stay_in_their_rooms() {
    check(check_only);
}

#[test]
fn outcomes_are_looked_at() {
    check(check_dropped);
}

#[test]
fn files_open_with_their_purpose_and_keep_the_form() {
    check(check_form);
}

#[test]
fn the_table_of_doors_has_no_cycle() {
    let rooms = |path: &str| -> Vec<&str> {
        DOORS
            .iter()
            .filter(|door| below(door.path, path))
            .flat_map(|door| door.base.iter().chain(door.rooms))
            .copied()
            .collect()
    };
    for door in DOORS {
        let room = door.path.split('/').next().expect("split yields at least one part");
        let mut reached = rooms(room);
        let mut at = 0;
        while at < reached.len() {
            for next in rooms(reached[at]) {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        assert!(!reached.contains(&room), "`{room}` reaches itself");
    }
}

#[test]
fn the_tables_name_what_is_there() {
    let sources = sources();
    let there = |path: &str| COMPOSITION.contains(&path) || sources.iter().any(|source| below(source.path(), path));
    let doors = DOORS.iter().flat_map(|door| [door.path].into_iter().chain(door.rooms.iter().copied()));
    let only = ONLY.iter().flat_map(|only| only.paths.iter().copied());
    let dropped = DROPPED.iter().map(|(path, ..)| *path);
    let gone: Vec<&str> = doors.chain(only).chain(dropped).filter(|path| !there(path)).collect();
    assert!(gone.is_empty(), "no such room or file: {gone:?}");
}

#[test]
fn a_planted_import_is_found() {
    let planted = |name: &str, text: &str| check_doors(&Source::new(name, text, false)).len();
    assert_eq!(planted("log/read.rs", "use crate::cluster::image::ClusterImage;"), 1);
    assert_eq!(planted("log/read.rs", "use crate::{\n    types::{Offset, TopicName},\n    api::handler,\n};"), 1);
    assert_eq!(planted("log/mod.rs", "use super::net;"), 1);
    assert_eq!(planted("coordination/zookeeper/session.rs", "use crate::storage;"), 1);
    assert_eq!(planted("coordination/embedded/tree.rs", "use crate::storage;"), 0);
    assert_eq!(planted("log/read.rs", "// use crate::cluster;\nuse crate::types::Offset;"), 0);
    assert_eq!(planted("log/read.rs", "#[cfg(test)]\nmod tests {\n    use crate::cluster;\n}"), 0);
    assert_eq!(planted("attic/mod.rs", ""), 1);
}

#[test]
fn a_planted_name_is_found() {
    let planted = |name: &str, text: &str| check_only(&Source::new(name, text, false)).len();
    assert_eq!(planted("replica/mod.rs", "use kafka_protocol::messages::ApiKey;"), 1);
    assert_eq!(planted("replica/mod.rs", "let a = 'x'; let now = SystemTime::now();"), 1);
    assert_eq!(planted("replica/mod.rs", "use std::time::{Duration, Instant};"), 1);
    assert_eq!(planted("replica/mod.rs", "use std::time::Duration; use tokio::time::Instant;"), 0);
    assert_eq!(planted("replica/mod.rs", "let text = \"rocksdb\"; /* rocksdb */ let c = b'\\''; // rocksdb"), 0);
    assert_eq!(planted("api/mod.rs", "tokio::spawn(work);"), 1);
    assert_eq!(planted("broker.rs", "use crate::storage::rocksdb::open;"), 0);
}

#[test]
fn a_planted_outcome_that_is_dropped_is_found() {
    let planted = |name: &str, text: &str| check_dropped(&Source::new(name, text, false)).len();
    assert_eq!(planted("log/read.rs", "fn f() {\n    let _ = write();\n    let _guard = lock();\n}"), 1);
    assert_eq!(planted("log/read.rs", "// let _ = write();\n#[cfg(test)]\nmod tests {\n    let _ = 1;\n}"), 0);
    assert_eq!(planted("replica/ack.rs", "let _ = wake.send(outcomes);"), 0);
    assert_eq!(planted("replica/ack.rs", "let _ = wake.send(outcomes);\nlet _ = queued;"), 1);
}

#[test]
fn planted_faults_of_form_are_found() {
    let planted = |text: &str| check_form(&Source::new("log/read.rs", text, false)).len();
    assert_eq!(planted("//! Reads.\n"), 0);
    assert_eq!(planted("use std::fs;\n"), 1);
    assert_eq!(planted(&format!("//! Reads.\n// {}\n", "x".repeat(120))), 1);
    assert_eq!(planted(&format!("//! Reads.\nconst X: &str = \"{}\";\n", "x".repeat(120))), 0);
    assert_eq!(planted(&format!("//! Reads.\n// {}: later\n", ["TO", "DO"].concat())), 1);
    assert_eq!(planted(&format!("//! Reads.\n{}", "\n".repeat(FILE_LINES_MAX))), 1);
}

fn check_test_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().expect("split yields at least one part");
    let known =
        ["tests", "testing", "contract"].contains(&name) || name.ends_with("_tests") || ["sim", "tidy"].contains(&path);
    (!known).then(|| format!("{path}: for tests only, and neither tests, testing, contract nor …_tests"))
}

#[test]
fn what_only_tests_see_says_so_by_its_name() {
    let found: Vec<String> = test_files(&files()).iter().filter_map(|path| check_test_name(path)).collect();
    assert!(found.is_empty(), "{} finding(s):\n{}", found.len(), found.join("\n"));
    assert!(check_test_name("storage/faulty").is_some() && check_test_name("log/end_tests").is_none());
}
