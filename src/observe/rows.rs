//! The metrics by name. The names are those that Kafka's dashboards and alerts use: what Prometheus' JMX exporter makes
//! of Kafka's beans with its `kafka-2_0_0.yml`, and Strimzi with its `kafka-metrics.yaml`. What Kafka has no name for
//! begins with `klamm_`.
//!
//! Topics and partitions have rows of their own up to a limit, in the order of their names; sums always count all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exposition::{Exposition, Kind};
use super::health::Phase;
use super::process;
use super::sources::Sources;
use super::window::{Buckets, Window, quantile_ms};
use crate::cluster::image::ClusterImage;
use crate::metrics::{self, ListenerMetrics, RequestMetrics, TrafficCounts};
use crate::replica::figures::ReplicaFigures;
use crate::replica::partition::Figures;
use crate::security::tls::TlsListeners;
use crate::types::{PartitionIndex, TopicName};

use Kind::{Counter, Gauge};

/// Topics with rows of their own.
const TOPICS_MAX: usize = 500;
/// Partitions with rows of their own.
const PARTITIONS_MAX: usize = 2000;

pub(super) fn of_process(text: &mut Exposition, up_ms: i64) {
    let version = env!("CARGO_PKG_VERSION");
    text.family("klamm_build_info", Gauge, "Which klamm this is.").row(&[("version", version)], 1);
    text.single("klamm_uptime_seconds", Gauge, "Time since the broker began to start.", up_ms as f64 / 1000.0);
    let Some(usage) = process::usage() else { return };
    text.single("process_cpu_seconds_total", Counter, "User and system CPU time.", usage.cpu_seconds);
    text.single("process_resident_memory_bytes", Gauge, "Resident memory.", usage.resident_bytes);
    text.single("process_virtual_memory_bytes", Gauge, "Virtual memory.", usage.virtual_bytes);
    text.single("process_threads", Gauge, "Threads.", usage.threads);
    if let Some(files) = usage.open_files {
        text.single("process_open_fds", Gauge, "Open file descriptors.", files);
    }
    if let Some(max) = usage.open_files_max {
        text.single("process_max_fds", Gauge, "File descriptors that may be open.", max);
    }
    if let Some(at) = usage.started_at_seconds {
        text.single("process_start_time_seconds", Gauge, "When the process began, since 1970.", at);
    }
}

pub(super) fn of_state(text: &mut Exposition, phase: Phase) {
    let help = "1 starting, 3 running, 7 stopping.";
    text.single("kafka_server_kafkaserver_brokerstate", Gauge, help, phase.broker_state());
}

pub(super) fn of_requests(text: &mut Exposition, requests: &RequestMetrics, now_ms: i64, window: &mut Window) {
    let counts: Vec<_> = requests.counts().collect();
    let mut family =
        text.family("kafka_network_requestmetrics_requests_total", Counter, "Requests that were answered.");
    for (api, versions) in &counts {
        for (version, buckets) in versions {
            let count: u64 = buckets.iter().sum();
            if count > 0 {
                family.row(&[("request", &api.name), ("version", &version.to_string())], count);
            }
        }
    }
    let all: Vec<Buckets> = counts.iter().map(|(_, versions)| sum(versions)).collect();
    let count = |buckets: &Buckets| buckets.iter().sum::<u64>();
    let asked = || counts.iter().map(|(api, _)| api.name.as_str()).enumerate().filter(|(at, _)| count(&all[*at]) > 0);
    let name = "kafka_network_requestmetrics_totaltimems_count";
    let mut family = text.family(name, Counter, "Requests that were answered and timed.");
    for (at, api) in asked() {
        family.row(&[("request", api)], count(&all[at]));
    }
    let lately = window.since(now_ms, &all);
    let help = "Milliseconds from a request to its sent answer, of the last five minutes or somewhat more.";
    let mut family = text.family("kafka_network_requestmetrics_totaltimems", Gauge, help);
    for (at, api) in asked() {
        for (label, part) in QUANTILES {
            family.row(&[("request", api), ("quantile", label)], quantile_ms(&lately[at], part));
        }
    }
}

/// Those that the exporter shows.
const QUANTILES: [(&str, f64); 6] =
    [("0.50", 0.5), ("0.75", 0.75), ("0.95", 0.95), ("0.98", 0.98), ("0.99", 0.99), ("0.999", 0.999)];

fn sum(versions: &[(i16, Buckets)]) -> Buckets {
    std::array::from_fn(|bucket| versions.iter().map(|(_, buckets)| buckets[bucket]).sum())
}

/// A replica that is open.
struct Replica<'a> {
    topic: &'a TopicName,
    partition: PartitionIndex,
    figures: Figures,
}

impl Replica<'_> {
    fn is_under_replicated(&self) -> bool {
        self.figures.leading && self.figures.in_sync < self.figures.replicas
    }

    fn is_under_min_isr(&self) -> bool {
        self.figures.leading && self.figures.in_sync < self.figures.min_in_sync
    }

    fn is_at_min_isr(&self) -> bool {
        self.figures.leading && self.figures.in_sync == self.figures.min_in_sync
    }
}

pub(super) fn of_replicas(text: &mut Exposition, sources: &Sources) {
    let all = sources.replicas.figures();
    of_traffic(text, &all);
    let replicas: Vec<Replica<'_>> = all
        .open
        .iter()
        .map(|open| Replica { topic: &open.id.topic, partition: open.id.partition, figures: open.figures() })
        .collect();
    sums_of_replicas(text, &replicas, all.offline);
    of_partitions(text, &replicas);
    of_dirs(text, sources, &all, &replicas);
}

/// Name, help, and which count it is.
type TrafficRow = (&'static str, &'static str, fn(&TrafficCounts) -> u64);

fn of_traffic(text: &mut Exposition, all: &ReplicaFigures) {
    let mut topics: BTreeMap<&TopicName, TrafficCounts> = BTreeMap::new();
    let mut total = all.before;
    for replica in &all.open {
        let counts = replica.traffic.counts();
        *topics.entry(&replica.id.topic).or_default() += counts;
        total += counts;
    }
    let rows: [TrafficRow; 7] = [
        ("messagesin", "Records that were appended.", |counts| counts.messages_in),
        ("bytesin", "Bytes of batches that were appended.", |counts| counts.bytes_in),
        ("bytesout", "Bytes of batches that were sent to consumers.", |counts| counts.bytes_out),
        ("bytesrejected", "Bytes of batches that were larger than allowed.", |counts| counts.bytes_rejected),
        ("totalproducerequests", "Appends that were asked for, by partition.", |counts| counts.produces),
        ("failedproducerequests", "Those of them that failed.", |counts| counts.produces_failed),
        ("totalfetchrequests", "Reads that were asked for, by partition.", |counts| counts.fetches),
    ];
    for (name, help, of) in rows {
        let name = format!("kafka_server_brokertopicmetrics_{name}_total");
        let mut family = text.family(&name, Counter, help);
        family.row(&[], of(&total));
        for (topic, counts) in topics.iter().take(TOPICS_MAX) {
            family.row(&[("topic", topic.as_str())], of(counts));
        }
    }
    let mut family = text.family("klamm_metrics_rows_left_out", Gauge, "Those that have no rows of their own.");
    family.row(&[("of", "topic")], topics.len().saturating_sub(TOPICS_MAX));
    family.row(&[("of", "partition")], all.open.len().saturating_sub(PARTITIONS_MAX));
}

fn sums_of_replicas(text: &mut Exposition, replicas: &[Replica<'_>], offline: usize) {
    let count = |which: &dyn Fn(&Replica<'_>) -> bool| replicas.iter().filter(|replica| which(replica)).count();
    let rows = [
        ("partitioncount", "Replicas of this broker.", replicas.len() + offline),
        ("leadercount", "Partitions that are led here.", count(&|replica| replica.figures.leading)),
        ("offlinereplicacount", "Replicas whose logs cannot be opened.", offline),
        (
            "underreplicatedpartitions",
            "Partitions led here with replicas that are not in sync.",
            count(&|replica| replica.is_under_replicated()),
        ),
        (
            "underminisrpartitioncount",
            "Partitions led here with fewer replicas in sync than min.insync.replicas.",
            count(&|replica| replica.is_under_min_isr()),
        ),
        (
            "atminisrpartitioncount",
            "Partitions led here with as many replicas in sync as min.insync.replicas.",
            count(&|replica| replica.is_at_min_isr()),
        ),
    ];
    for (name, help, value) in rows {
        text.single(&format!("kafka_server_replicamanager_{name}"), Gauge, help, value);
    }
}

fn of_partitions(text: &mut Exposition, replicas: &[Replica<'_>]) {
    type Of = fn(&Replica<'_>) -> Option<u64>;
    let rows: [(&str, &str, Of); 9] = [
        ("kafka_cluster_partition_underreplicated", "1: replicas are not in sync.", |replica| {
            replica.figures.leading.then(|| replica.is_under_replicated().into())
        }),
        ("kafka_cluster_partition_underminisr", "1: fewer in sync than min.insync.replicas.", |replica| {
            replica.figures.leading.then(|| replica.is_under_min_isr().into())
        }),
        ("kafka_cluster_partition_atminisr", "1: as many in sync as min.insync.replicas.", |replica| {
            replica.figures.leading.then(|| replica.is_at_min_isr().into())
        }),
        ("kafka_cluster_partition_replicascount", "Replicas.", |replica| {
            replica.figures.leading.then_some(replica.figures.replicas as u64)
        }),
        ("kafka_cluster_partition_insyncreplicascount", "Replicas in sync.", |replica| {
            replica.figures.leading.then_some(replica.figures.in_sync as u64)
        }),
        ("kafka_log_log_size", "Bytes of all batches.", |replica| Some(replica.figures.size_bytes)),
        ("kafka_log_log_numlogsegments", "Segments.", |replica| Some(replica.figures.segments as u64)),
        ("kafka_log_log_logstartoffset", "First offset.", |replica| {
            u64::try_from(replica.figures.log_start_offset.0).ok()
        }),
        ("kafka_log_log_logendoffset", "Offset of the next record.", |replica| {
            u64::try_from(replica.figures.log_end_offset.0).ok()
        }),
    ];
    for (name, help, of) in rows {
        let mut family = text.family(name, Gauge, help);
        for replica in replicas.iter().take(PARTITIONS_MAX) {
            if let Some(value) = of(replica) {
                let partition = replica.partition.to_string();
                family.row(&[("topic", replica.topic.as_str()), ("partition", &partition)], value);
            }
        }
    }
}

fn of_dirs(text: &mut Exposition, sources: &Sources, all: &ReplicaFigures, replicas: &[Replica<'_>]) {
    let failed = sources.dirs.iter().filter(|dir| dir.has_failed()).count();
    let help = "Log directories that take no writes any more.";
    text.single("kafka_log_logmanager_offlinelogdirectorycount", Gauge, help, failed);
    let mut family = text.family("kafka_log_logmanager_logdirectoryoffline", Gauge, "1: it takes no writes any more.");
    for dir in &sources.dirs {
        family.row(&[("logDirectory", &dir.path.to_string_lossy())], u8::from(dir.has_failed()));
    }
    let mut sizes: BTreeMap<_, u64> = sources.dirs.iter().map(|dir| (dir.path.clone(), 0)).collect();
    for (open, replica) in all.open.iter().zip(replicas) {
        *sizes.entry(open.dir_path()).or_default() += replica.figures.size_bytes;
    }
    let mut family = text.family("klamm_log_directory_log_bytes", Gauge, "Bytes of the logs that lie there.");
    for (path, bytes) in &sizes {
        family.row(&[("logDirectory", &path.to_string_lossy())], bytes);
    }
}

/// Figures of the cluster are told by the controller alone; everywhere else they are 0, as Kafka has it.
pub(super) fn of_controller(text: &mut Exposition, image: &ClusterImage, is_active: bool) {
    let (mut topics, mut partitions, mut offline, mut elsewhere) = (0_u64, 0_u64, 0_u64, 0_u64);
    for topic in image.topics().filter(|_| is_active) {
        topics += 1;
        for state in topic.partitions.values() {
            partitions += 1;
            let is_led = state.leader.is_some_and(|leader| image.brokers.contains_key(&leader));
            offline += u64::from(!is_led);
            elsewhere += u64::from(state.leader.as_ref() != state.replicas.first());
        }
    }
    let brokers = if is_active { image.brokers.len() as u64 } else { 0 };
    for (name, help, value) in [
        ("activecontrollercount", "1: this broker is the controller.", u64::from(is_active)),
        ("activebrokercount", "Live brokers.", brokers),
        ("globaltopiccount", "Topics of the cluster.", topics),
        ("globalpartitioncount", "Partitions of the cluster.", partitions),
        ("offlinepartitionscount", "Partitions without a live leader.", offline),
        ("preferredreplicaimbalancecount", "Partitions that their first replica does not lead.", elsewhere),
    ] {
        text.single(&format!("kafka_controller_kafkacontroller_{name}"), Gauge, help, value);
    }
}

pub(super) fn of_listeners(text: &mut Exposition, listeners: &[Arc<ListenerMetrics>]) {
    let name = "kafka_server_socket_server_metrics_connection_count";
    let mut family = text.family(name, Gauge, "Open connections.");
    for listener in listeners {
        family.row(&[("listener", &listener.name), ("networkProcessor", "0")], listener.open.get());
    }
    let name = "kafka_server_socket_server_metrics_connection_creation_total";
    let mut family = text.family(name, Counter, "Connections that were taken.");
    for listener in listeners {
        family.row(&[("listener", &listener.name), ("networkProcessor", "0")], listener.accepted.get());
    }
    type Count = fn(&ListenerMetrics) -> u64;
    let of_authentication: [(&str, &str, Count); 5] = [
        ("successful_authentication_total", "Clients that proved who they are.", |l| l.authentications.get()),
        ("failed_authentication_total", "Clients that did not.", |l| l.authentications_failed.get()),
        ("successful_reauthentication_total", "Clients that proved it again.", |l| l.reauthentications.get()),
        ("failed_reauthentication_total", "Clients that did not prove it again.", |l| l.reauthentications_failed.get()),
        ("expired_connections_killed_count", "Clients that did not try to in time.", |l| l.sessions_expired.get()),
    ];
    for (name, help, count) in of_authentication {
        let name = format!("kafka_server_socket_server_metrics_{name}");
        let mut family = text.family(&name, Counter, help);
        for listener in listeners {
            family.row(&[("listener", &listener.name), ("networkProcessor", "0")], count(listener));
        }
    }
}

pub(super) fn of_certificates(text: &mut Exposition, tls: &TlsListeners) {
    let name = "klamm_certificate_expires_timestamp_seconds";
    let mut family = text.family(name, Gauge, "When a listener's certificate is not good any more, since 1970.");
    for listener in tls.iter() {
        if let Some(expires) = listener.expires() {
            family.row(&[("listener", listener.name())], expires);
        }
    }
}

/// What the whole process counts.
pub(super) fn of_counters(text: &mut Exposition) {
    for (name, help, counter) in [
        ("kafka_server_replicamanager_isrshrinks_total", "ISRs that became smaller.", &metrics::ISR_SHRINKS),
        ("kafka_server_replicamanager_isrexpands_total", "ISRs that became larger.", &metrics::ISR_EXPANDS),
        (
            "kafka_server_replicamanager_failedisrupdates_total",
            "Changes of ISRs that were not agreed to.",
            &metrics::FAILED_ISR_UPDATES,
        ),
        (
            "kafka_controller_controllerstats_leaderelectionrateandtimems_count",
            "Partitions that were given another leader.",
            &metrics::LEADER_ELECTIONS,
        ),
        (
            "kafka_controller_controllerstats_uncleanleaderelections_total",
            "Those of them that were given a leader from outside the ISR.",
            &metrics::UNCLEAN_LEADER_ELECTIONS,
        ),
        ("klamm_frames_refused_total", "Frames that were refused before they were decoded.", &metrics::FRAMES_REFUSED),
        ("klamm_bodies_refused_total", "Requests whose bodies did not decode.", &metrics::BODIES_REFUSED),
        (
            "klamm_handshakes_refused_total",
            "Connections whose TLS handshake was refused.",
            &metrics::HANDSHAKES_REFUSED,
        ),
        ("klamm_replies_given_up_total", "Answers that were taken too slowly.", &metrics::REPLIES_GIVEN_UP),
        (
            "klamm_replies_unreadable_total",
            "Answers cut off because their records could not be read.",
            &metrics::REPLIES_UNREADABLE,
        ),
    ] {
        text.single(name, Counter, help, counter.get());
    }
    let name = "kafka_log_logcleanermanager_uncleanable_partitions_count";
    let help = "Logs whose last compaction failed, in all directories.";
    text.single(name, Gauge, help, metrics::UNCLEANABLE_PARTITIONS.get());
}
