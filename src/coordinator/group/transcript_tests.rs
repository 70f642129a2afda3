//! Transcript tests of the group shard: `testdata/*.txt` hold commands (`> …`) and below each what came of it: records,
//! and replies to whoever waited. `KLAMM_REWRITE=1 cargo test transcript` writes the outputs anew; read the diff.
//!
//! `join ANN` asks as client ANN and is answered as `ANN`. A member id `ANN#01` stands for `ANN-<uuid 01>`; the number
//! counts the joins. `advance` moves time and does what is due on the way; `reload` replays the log into a new shard;
//! every transcript must come out the same if the log is compacted before. `txn-commit` commits offsets in the
//! transaction of `producer=`, and `end-txn` ends it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::config::GroupConfig;
use super::records::{self, Key};
use super::request::*;
use super::shard::GroupShard;
use crate::coordinator::shard::{Moment, Outcome, Shard, Ticket};
use crate::coordinator::writer::{CoordinatorRecord, Entry, InTransaction};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName, TransactionMarker, TransactionResult,
};

const UUID: &str = "-00000000-0000-4000-8000-0000000000";
const BATCH_BYTES_MAX: usize = 1_000_000;

struct Stage {
    config: GroupConfig,
    batch_bytes_max: usize,
    shard: GroupShard,
    /// One record, or a marker, each.
    log: Vec<Entry>,
    now_ms: i64,
    joins: u128,
    /// Whether a reload finds of each key only the last record outside of transactions.
    compacted: bool,
    waiting: BTreeMap<Ticket, String>,
    printed: String,
}

impl Stage {
    fn new(compacted: bool) -> Self {
        let config = GroupConfig::default();
        Self {
            shard: GroupShard::new(Arc::new(config.clone()), BATCH_BYTES_MAX),
            batch_bytes_max: BATCH_BYTES_MAX,
            config,
            log: Vec::new(),
            now_ms: 0,
            joins: 0,
            compacted,
            waiting: BTreeMap::new(),
            printed: String::new(),
        }
    }

    fn now(&self) -> Moment {
        Moment { unix_ms: 1_000_000 + self.now_ms, monotonic_ms: self.now_ms }
    }

    /// A new shard from the log, as after a failover; who waited is answered by the shell.
    fn reload(&mut self) {
        if self.compacted {
            let log = std::mem::take(&mut self.log);
            let key = |at: usize| match &log[at] {
                Entry::Records { transaction: None, records } => Some(&records[0].key),
                Entry::Records { .. } | Entry::Marker(_) => None,
            };
            let last = |at: usize| key(at).is_none() || (at + 1..log.len()).all(|later| key(later) != key(at));
            self.log = (0..log.len()).filter(|&at| last(at)).map(|at| log[at].clone()).collect();
        }
        self.shard = GroupShard::new(Arc::new(self.config.clone()), self.batch_bytes_max);
        for entry in &self.log {
            replay(&mut self.shard, entry);
        }
        self.waiting.clear();
        let mut out = Outcome::default();
        self.shard.on_loaded(self.now(), &mut out);
        self.settle(out);
    }

    fn settle(&mut self, out: Outcome<GroupReply>) {
        for record in out.records {
            let transaction = out.transaction;
            let of = transaction.map(|of| format!(" of producer {}", of.producer_id)).unwrap_or_default();
            writeln!(self.printed, "record{of} {}", show_record(&record)).expect("a string");
            self.append(Entry::Records { transaction, records: vec![record] });
        }
        if let Some(marker) = out.marker {
            writeln!(self.printed, "marker of producer {} {}", marker.producer_id, marker.result).expect("a string");
            self.append(Entry::Marker(marker));
        }
        for (ticket, reply) in out.replies {
            let who = self.waiting.remove(&ticket).expect("each request is answered once");
            writeln!(self.printed, "{who}: {}", show_reply(&reply)).expect("a string");
        }
    }

    fn append(&mut self, entry: Entry) {
        replay(&mut self.shard, &entry);
        self.log.push(entry);
    }

    fn ask(&mut self, who: &str, request: GroupRequest) {
        let ticket = Ticket(self.waiting.keys().next_back().map_or(0, |last| last.0 + 1));
        self.waiting.insert(ticket, who.into());
        let mut out = Outcome::default();
        self.shard.handle(self.now(), ticket, request, &mut out);
        self.settle(out);
        self.due();
    }

    fn due(&mut self) {
        while self.shard.next_wake_ms().is_some_and(|ms| ms <= self.now_ms) {
            let mut out = Outcome::default();
            self.shard.on_time(self.now(), &mut out);
            self.settle(out);
        }
    }

    fn advance(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.shard.next_wake_ms().filter(|&at| at <= until) {
            let before = self.printed.len();
            self.now_ms = self.now_ms.max(at);
            self.due();
            if self.printed.len() > before {
                self.printed.insert_str(before, &format!("at {at}\n"));
            }
        }
        self.now_ms = until;
    }

    fn run(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let command = words.next().expect("a command");
        let plain: Vec<&str> = words.clone().filter(|word| !word.contains('=')).collect();
        let args: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        let who = plain.first().copied().unwrap_or(command);
        let text = |name: &str| args.get(name).map(|value| expand(value));
        let number = |name: &str, default: i32| args.get(name).map_or(default, |v| v.parse().expect("a number"));
        let group: Arc<str> = text("group").unwrap_or_else(|| "g".into()).as_str().into();
        let member_id: Arc<str> = text("id").unwrap_or_default().as_str().into();
        let instance_id = text("instance").map(|id| Arc::from(id.as_str()));
        match command {
            "config" => self.configure(&args),
            "advance" => self.advance(who.parse().expect("milliseconds")),
            "reload" => self.reload(),
            "join" => {
                self.joins += 1;
                let topics = text("topics").unwrap_or_default();
                let names = text("protocols").unwrap_or_else(|| "range".into());
                let protocol = |name: &str| (name.to_owned(), subscription(&topics));
                self.ask(
                    who,
                    GroupRequest::Join(JoinRequest {
                        group,
                        member_id,
                        instance_id,
                        client_id: who.into(),
                        client_host: "/127.0.0.1".into(),
                        session_timeout_ms: number("session", 10_000),
                        rebalance_timeout_ms: number("rebalance", 60_000),
                        protocol_type: text("type").unwrap_or_else(|| "consumer".into()),
                        protocols: names.split(',').map(protocol).collect(),
                        require_known_member_id: plain.contains(&"require-id"),
                        can_skip_assignment: plain.contains(&"can-skip"),
                        reason: None,
                        // Decimal digits, so that they can be read in the UUID.
                        random: u128::from_str_radix(&self.joins.to_string(), 16).expect("digits"),
                    }),
                );
            }
            "sync" => {
                let assignments = text("assign").unwrap_or_default();
                let pairs = assignments.split(',').filter_map(|pair| pair.split_once(':'));
                self.ask(
                    who,
                    GroupRequest::Sync(SyncRequest {
                        group,
                        member_id,
                        instance_id,
                        generation_id: number("gen", 1),
                        protocol_type: text("type"),
                        protocol: text("protocol"),
                        assignments: pairs.map(|(id, data)| (id.into(), data.to_owned().into())).collect(),
                    }),
                );
            }
            "heartbeat" => {
                let generation_id = number("gen", 1);
                let request = HeartbeatRequest { group, member_id, instance_id, generation_id };
                self.ask(who, GroupRequest::Heartbeat(request));
            }
            "leave" => {
                let ids = args.get("id").copied().unwrap_or_default();
                let member = |id: &str| LeavingMember {
                    member_id: expand(id).as_str().into(),
                    instance_id: instance_id.clone(),
                    reason: None,
                };
                let members = ids.split(',').map(member).collect();
                self.ask(who, GroupRequest::Leave(LeaveRequest { group, members }));
            }
            "commit" | "txn-commit" => {
                let offset = |(at, offset): (&&str, &&str)| {
                    let (topic, partition) = at.rsplit_once('/')?;
                    Some(CommittedOffset {
                        topic: topic.into(),
                        partition: PartitionIndex(partition.parse().expect("a number")),
                        offset: Offset(offset.parse().expect("a number")),
                        leader_epoch: LeaderEpoch(3),
                        metadata: text("metadata").map(|metadata| metadata.into()),
                    })
                };
                let generation_id = number("gen", -1);
                let offsets = args.iter().filter_map(offset).collect();
                let request = if command == "commit" {
                    let retention_ms = args.get("retention").map(|v| v.parse().expect("a number"));
                    let request = CommitRequest { group, member_id, instance_id, generation_id, retention_ms, offsets };
                    GroupRequest::Commit(request)
                } else {
                    let producer_id = ProducerId(number("producer", 1).into());
                    let transaction = InTransaction { producer_id, producer_epoch: ProducerEpoch(0), guard: None };
                    let request =
                        TxnCommitRequest { group, member_id, instance_id, generation_id, transaction, offsets };
                    GroupRequest::TxnCommit(request)
                };
                self.ask(who, request);
            }
            "end-txn" => {
                let marker = TransactionMarker {
                    producer_id: ProducerId(number("producer", 1).into()),
                    producer_epoch: ProducerEpoch(0),
                    coordinator_epoch: 0,
                    result: match who {
                        "commit" => TransactionResult::Commit,
                        "abort" => TransactionResult::Abort,
                        other => panic!("no result {other}"),
                    },
                };
                self.ask(command, GroupRequest::EndTransaction { marker });
            }
            "fetch" => {
                let asked = |topics: &&str| {
                    let pair = |at: &str| {
                        let (topic, partition) = at.rsplit_once('/').expect("topic/partition");
                        (topic.into(), vec![PartitionIndex(partition.parse().expect("a number"))])
                    };
                    topics.split(',').map(pair).collect()
                };
                let (topics, require_stable) = (args.get("of").map(asked), plain.contains(&"stable"));
                self.ask(command, GroupRequest::Fetch(FetchRequest { group, topics, require_stable }));
            }
            "describe" => self.ask(who, GroupRequest::Describe { group }),
            "list" => {
                let states = text("states").map(|s| s.split(',').map(str::to_owned).collect()).unwrap_or_default();
                let types = text("types").map(|s| s.split(',').map(str::to_owned).collect()).unwrap_or_default();
                self.ask(who, GroupRequest::List(ListRequest { states, types }));
            }
            "delete" => self.ask(who, GroupRequest::Delete { group }),
            "delete-offsets" => {
                let one = |at: &str| {
                    let (topic, partition) = at.rsplit_once('/').expect("topic/partition");
                    (topic.into(), PartitionIndex(partition.parse().expect("a number")))
                };
                let offsets = args["of"].split(',').filter(|at| !at.is_empty()).map(one).collect();
                self.ask(command, GroupRequest::DeleteOffsets { group, offsets });
            }
            "topics-deleted" => {
                let topics = plain.iter().map(|name| TopicName::new(name)).collect();
                self.ask("topics-deleted", GroupRequest::TopicsDeleted { topics });
            }
            other => panic!("no command {other}"),
        }
    }

    fn configure(&mut self, args: &BTreeMap<&str, &str>) {
        for (name, value) in args {
            let value: i64 = value.parse().expect("a number");
            match *name {
                "group.max.size" => self.config.group_size_max = value as usize,
                "group.initial.rebalance.delay.ms" => self.config.initial_rebalance_delay_ms = value as i32,
                "offset.metadata.max.bytes" => self.config.offset_metadata_units_max = value as usize,
                "offsets.retention.ms" => self.config.offsets_retention_ms = value,
                "offsets.retention.check.interval.ms" => self.config.offsets_retention_check_interval_ms = value,
                "max.message.bytes" => self.batch_bytes_max = value as usize,
                other => panic!("no setting {other}"),
            }
        }
        self.reload();
    }
}

fn replay(shard: &mut GroupShard, entry: &Entry) {
    let replayed = match entry {
        Entry::Records { transaction: None, records } => records.iter().try_for_each(|record| shard.replay(record)),
        Entry::Records { transaction: Some(of), records } => {
            records.iter().try_for_each(|record| shard.replay_in_transaction(of.producer_id, record))
        }
        Entry::Marker(marker) => shard.replay_marker(marker),
    };
    replayed.expect("our own records");
}

fn subscription(topics: &str) -> Bytes {
    let names: Vec<&str> = topics.split(',').filter(|name| !name.is_empty()).collect();
    let mut out = vec![0, 1];
    out.extend_from_slice(&(names.len() as i32).to_be_bytes());
    for name in names {
        out.extend_from_slice(&(name.len() as i16).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    out.into()
}

fn expand(text: &str) -> String {
    text.replace('#', UUID)
}

fn short(text: &str) -> String {
    text.replace(UUID, "#")
}

fn show_record(record: &CoordinatorRecord) -> String {
    let value = record.value.as_deref();
    match records::read_key(&record.key).expect("our own record") {
        Key::Offset { topic, partition, group } => match value.map(|v| records::read_offset(v).expect("our own")) {
            Some(v) => {
                let expire = v.expire_ms.map(|ms| format!(" expires {ms}")).unwrap_or_default();
                format!("offset {group} {topic}/{partition} = {} at {}{expire}", v.offset, v.commit_ms)
            }
            None => format!("offset {group} {topic}/{partition} gone"),
        },
        Key::Group { group } => match value.map(|v| records::read_group(v).expect("our own")) {
            Some(v) => {
                let leader = v.leader.as_deref().unwrap_or("none");
                let protocol = v.protocol.as_deref().unwrap_or("none");
                let members = v.members.iter().map(|m| format!(" {}={:?}", m.member_id, m.assignment));
                let members: String = members.collect();
                short(&format!("group {group} generation {} {protocol} leader {leader}:{members}", v.generation_id))
            }
            None => format!("group {group} gone"),
        },
    }
}

fn show_reply(reply: &GroupReply) -> String {
    let result = |result: &Result<(), super::error::GroupError>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    let text = match reply {
        GroupReply::Join(reply) => match reply.error {
            Some(error) => format!("{error:?} id={}", reply.member_id),
            None => {
                let member = |m: &JoinedMember| match &m.instance_id {
                    Some(instance_id) => format!(" {}({instance_id})", m.member_id),
                    None => format!(" {}", m.member_id),
                };
                let members: String = reply.members.iter().map(member).collect();
                let skip = if reply.skip_assignment { " skip" } else { "" };
                let protocol = reply.protocol.as_deref().unwrap_or("none");
                format!(
                    "joined id={} generation {} {protocol} leader {}{skip} members{members}",
                    reply.member_id, reply.generation_id, reply.leader
                )
            }
        },
        GroupReply::Sync(reply) => match reply.error {
            Some(error) => format!("{error:?}"),
            None => format!("synced {:?}", reply.assignment),
        },
        GroupReply::Heartbeat(answer) | GroupReply::Delete(answer) => result(answer),
        GroupReply::DeleteOffsets(Err(error)) => format!("{error:?}"),
        GroupReply::Leave(answers) | GroupReply::DeleteOffsets(Ok(answers)) => {
            answers.iter().map(result).collect::<Vec<_>>().join(", ")
        }
        GroupReply::Commit(reply) => match (reply.error, reply.too_long.as_slice()) {
            (None, []) => "ok".into(),
            (None, too_long) => format!("ok, but too long {too_long:?}"),
            (Some(error), _) => format!("{error:?}"),
        },
        GroupReply::Fetch(topics) => {
            let one = |topic: &TopicName, o: &FetchedOffset| {
                let error = o.error.map(|error| format!("({error:?})")).unwrap_or_default();
                format!("{topic}/{}={}{error} ", o.partition, o.offset)
            };
            topics.iter().flat_map(|(topic, of)| of.iter().map(move |o| one(topic, o))).collect()
        }
        GroupReply::Describe(None) => "no such group".into(),
        GroupReply::Describe(Some(group)) => {
            let member = |m: &DescribedMember| format!(" {}={:?}", m.member_id, m.assignment);
            let members: String = group.members.iter().map(member).collect();
            format!("{} type {:?} protocol {:?}:{members}", group.state, group.protocol_type, group.protocol)
        }
        GroupReply::List(groups) => {
            let mut lines: Vec<String> = groups.iter().map(|g| format!("{}:{}", g.group, g.state)).collect();
            lines.sort();
            lines.join(" ")
        }
        GroupReply::TopicsDeleted | GroupReply::EndTransaction => "done".into(),
    };
    short(text.trim_end())
}

/// Runs the commands of a transcript and returns it with fresh outputs.
fn replayed(transcript: &str, compacted: bool) -> String {
    let mut stage = Stage::new(compacted);
    let mut out = String::new();
    for line in transcript.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}").expect("a string");
            stage.run(command);
            out.push_str(&std::mem::take(&mut stage.printed));
        } else if line.starts_with("# ") || line.is_empty() {
            writeln!(out, "{line}").expect("a string");
        }
    }
    out
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/coordinator/testdata").join(name);
    let expected = std::fs::read_to_string(&path).expect("a transcript");
    let actual = replayed(&expected, false);
    assert_eq!(replayed(&expected, true), actual, "{name}: compaction changes the state");
    if std::env::var_os("KLAMM_REWRITE").is_some() {
        std::fs::write(&path, &actual).expect("a writable transcript");
    } else {
        assert_eq!(actual, expected, "{name}: KLAMM_REWRITE=1 shows the difference in git");
    }
}

#[test]
fn dynamic_members_join_sync_beat_and_leave() {
    check("dynamic.txt");
}

#[test]
fn a_static_member_keeps_its_place() {
    check("static.txt");
}

#[test]
fn deadlines_remove_who_does_not_come() {
    check("deadlines.txt");
}

#[test]
fn a_cooperative_rebalance_goes_through_two_generations() {
    check("cooperative.txt");
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    check("refusals.txt");
}

#[test]
fn offsets_are_committed_fetched_and_removed() {
    check("offsets.txt");
}

#[test]
fn state_is_the_fold_of_the_log() {
    check("reload.txt");
}

#[test]
fn offsets_of_a_transaction_count_with_its_marker() {
    check("transactions.txt");
}
