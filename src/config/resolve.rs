//! The typed configuration of a broker, made from the checked values.
//!
//! What lives here: the fields, and where each comes from; what follows from several settings is in `rules`. A field
//! has its setting's name and unit; where a field means something else than its setting, its comment says so.
//! Source: Kafka 3.9 `KafkaConfig`, also for the texts of errors; choices of our own say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ConfigError;
use super::authorizer::{self, AuthorizerConfig};
use super::broker;
use super::java_options::JavaOptions;
use super::kraft_mode;
use super::listeners::{self, HttpListener, Listener};
use super::machine::Machine;
use super::password::{self, PasswordEncoder};
use super::precedence::Settings;
use super::protocol::{self, ProtocolVersion};
use super::reader::Reader;
use super::rules::{self, PageCacheBytes};
use super::sasl::{self, SaslConfig};
use super::selector::{self, ReplicaSelector};
use super::sources;
use super::tls::{self, TlsSettings};
use super::token_source;
use super::tokens::{self, TokenConfig};
use super::topic::{TopicConfig, TopicValues};
use super::zookeeper::{ZookeeperConfig, zookeeper};
use super::zookeeper_tls;
use crate::types::BrokerId;

/// What a broker runs with. Durations are milliseconds and sizes bytes unless a name says otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything that was given, for DescribeConfigs and for a later [`Config::with_dynamic`].
    pub(crate) settings: Settings,
    /// What a topic without settings of its own has, as values.
    pub(crate) topic_values: TopicValues,
    machine: Machine,
    /// Cluster id the environment asks for (`CLUSTER_ID`, read beside `process.roles` only, as Kafka's images do).
    pub cluster_id: Option<String>,

    /// `broker.id` or `node.id`; `None`: the cluster gives one.
    pub broker_id: Option<BrokerId>,
    pub broker_id_generation_enable: bool,
    pub reserved_broker_max_id: i32,
    pub broker_rack: Option<String>,
    /// Never empty; KRaft's controller listeners are left out.
    pub listeners: Vec<Listener>,
    /// A subset of `listeners` by name. Port 0: the port the listener got.
    pub advertised_listeners: Vec<Listener>,
    /// Name of one of `advertised_listeners`.
    pub inter_broker_listener: String,
    /// Another of them, where brokers and the controller speak; `None`: they do on `inter_broker_listener`.
    pub control_plane_listener: Option<String>,
    /// Of each of `listeners` that is over TLS.
    pub tls: Vec<TlsSettings>,
    /// What clients of those of `listeners` that ask for SASL have to prove.
    pub(crate) sasl: SaslConfig,
    /// How secrets that are set while brokers run lie in ZooKeeper; `None`: none may.
    pub password_encoder: Option<PasswordEncoder>,
    /// What brokers of the cluster may say to each other.
    pub inter_broker_protocol: ProtocolVersion,
    /// `authorizer.class.name`; `None`: everybody may do everything.
    pub authorizer: Option<AuthorizerConfig>,
    /// `None`: there are no delegation tokens.
    pub tokens: Option<TokenConfig>,
    /// `None`: the node coordinates itself.
    pub zookeeper: Option<ZookeeperConfig>,
    /// Whether a broker that stops has the controller move away what it leads, and how long it may take: retries, each
    /// of this pause.
    pub controlled_shutdown_enable: bool,
    pub controlled_shutdown_max_retries: i32,
    pub controlled_shutdown_retry_backoff_ms: i64,
    /// How long this broker waits for the controller's answers.
    pub request_timeout_ms: i32,
    /// How long the controller here waits for brokers' answers, and a broker that stops for the controller's.
    pub controller_socket_timeout_ms: i32,
    /// How long a follower waits for a leader's answer, beyond the time for which it lets it wait.
    pub replica_socket_timeout_ms: i32,
    /// `log.dirs`, or `log.dir`; never empty.
    pub log_dirs: Vec<PathBuf>,

    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub auto_leader_rebalance_enable: bool,
    pub leader_imbalance_check_interval_seconds: i64,
    pub leader_imbalance_per_broker_percentage: i32,
    /// What a topic without settings of its own has.
    pub topic_defaults: TopicConfig,

    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_size: i32,
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_topic_num_partitions: i32,
    /// 1 on a node that coordinates itself, whatever the setting says (our choice).
    pub offsets_topic_replication_factor: i16,
    /// 1 on a node that coordinates itself, else `min.insync.replicas`.
    pub offsets_topic_min_insync_replicas: i32,
    pub offsets_topic_segment_bytes: i32,
    pub transaction_max_timeout_ms: i32,
    pub transaction_abort_check_interval_ms: i32,
    pub transactional_id_expiration_ms: i32,
    pub transactional_id_expiration_check_interval_ms: i32,
    pub transaction_partition_verification_enable: bool,
    pub transaction_topic_num_partitions: i32,
    /// 1 on a node that coordinates itself, whatever the setting says, as with the offsets topic.
    pub transaction_topic_replication_factor: i16,
    /// 1 on a node that coordinates itself, whatever the setting says.
    pub transaction_topic_min_insync_replicas: i32,
    pub transaction_topic_segment_bytes: i32,

    pub num_replica_fetchers: i32,
    pub replica_fetch_backoff_ms: i32,
    pub quota_window_num: i32,
    pub quota_window_size_seconds: i32,
    pub replication_quota_window_num: i32,
    pub replication_quota_window_size_seconds: i32,
    /// Bytes each second; `i64::MAX`: no limit.
    pub leader_replication_throttled_rate: i64,
    pub follower_replication_throttled_rate: i64,
    pub alter_log_dirs_replication_quota_window_num: i32,
    pub alter_log_dirs_replication_quota_window_size_seconds: i32,
    /// Bytes each second; `i64::MAX`: no limit.
    pub replica_alter_log_dirs_io_max_bytes_per_second: i64,
    pub controller_quota_window_num: i32,
    pub controller_quota_window_size_seconds: i32,
    pub replica_fetch_max_bytes: i32,
    pub replica_fetch_min_bytes: i32,
    pub replica_fetch_response_max_bytes: i32,
    pub replica_fetch_wait_max_ms: i32,

    /// `replica.selector.class`; `None`: consumers read from leaders.
    pub replica_selector: Option<ReplicaSelector>,

    pub producer_id_expiration_ms: i32,
    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,

    /// `None`: the system's value.
    pub socket_send_buffer_bytes: Option<u32>,
    /// `None`: the system's value.
    pub socket_receive_buffer_bytes: Option<u32>,
    pub socket_request_max_bytes: u32,
    /// `None`: connections are never closed for being idle.
    pub connections_max_idle_ms: Option<i64>,
    /// `max.connections`, but at most seven tenths of the file descriptors this process may open (our choice).
    pub max_connections: usize,
    /// The same for the listener of brokers, where it has no clients: whatever `max.connections` says, as in Kafka, but
    /// with three quarters of the file descriptors.
    pub max_connections_of_brokers: usize,
    /// Each listener's own `max.connections`.
    pub max_connections_of_listeners: BTreeMap<String, usize>,
    pub max_connections_per_ip: i32,
    /// `max.connection.creation.rate`, and each listener's own.
    pub max_connection_creation_rate: i32,
    pub max_connection_creation_rates: BTreeMap<String, i32>,
    /// Host names or addresses, as written.
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
    /// `queued.max.request.bytes`; where that is −1 a quarter of the memory, at most 512 MiB (our choice), and at
    /// least `socket.request.max.bytes`.
    pub queued_max_request_bytes: u64,

    pub log_retention_check_interval_ms: i64,
    pub log_initial_task_delay_ms: i64,
    pub log_cleaner_enable: bool,
    pub log_cleaner_backoff_ms: i64,
    /// A follower that has not been level with its leader for so long is out of sync.
    pub replica_lag_time_max_ms: i64,
    /// Interval at which high watermarks are recorded.
    pub replica_high_watermark_checkpoint_interval_ms: i64,

    /// `klamm.reply.bytes`; where that is −1 an eighth of the memory, at most 256 MiB.
    pub reply_bytes: u64,
    /// `klamm.tail.bytes`.
    pub tail_bytes: usize,
    /// `klamm.rocksdb.write.buffer.bytes`.
    pub rocksdb_write_buffer_bytes: usize,
    /// `klamm.table.piece.bytes`.
    pub table_piece_bytes: usize,
    /// `klamm.page.cache.bytes`; where that is −1 half of a container's memory, and an eighth of a virtual machine's
    /// whose host takes free pages back. `None`: what the kernel keeps.
    pub page_cache: Option<PageCacheBytes>,
    /// RocksDB's own files are not in it.
    pub files_bypass_page_cache: bool,
    /// `klamm.disk.reserve.bytes`; `None`: 5 % of the disk, at most 1 GiB.
    pub disk_reserve_bytes: Option<u64>,
    /// `klamm.stray.retention.ms`.
    pub stray_retention_ms: i64,
    /// `klamm.allow.empty.log.dir`.
    pub allow_empty_log_dir: bool,
    /// `klamm.http.listener`; `None`: no such pages are served.
    pub http_listener: Option<HttpListener>,
    /// `klamm.boot.id`; `None`: the machine's.
    pub boot_id: Option<String>,
}

/// Where a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// A `.properties` or YAML file.
    pub file: Option<PathBuf>,
    /// The process's environment; only `KAFKA_*` and `CLUSTER_ID` are looked at.
    pub environment: Vec<(String, String)>,
    /// `key=value` each; the last one of a key wins.
    pub overrides: Vec<String>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line that names key, value and source.
    pub fn load(inputs: &Inputs, machine: Machine) -> Result<Self, ConfigError> {
        let mut given = match &inputs.file {
            Some(path) => sources::file(path)?,
            None => Vec::new(),
        };
        given.extend(sources::environment(inputs.environment.iter().cloned()));
        given.extend(sources::overrides(&inputs.overrides)?);
        let settings = Settings::merge(given).with_java_options(JavaOptions::of_environment(&inputs.environment))?;
        let mut config = Self::of(settings, machine)?;
        let cluster_id = inputs.environment.iter().find(|(name, value)| name == "CLUSTER_ID" && !value.is_empty());
        if config.settings.given("process.roles").is_some() {
            config.cluster_id = cluster_id.map(|(_, value)| value.clone());
        }
        Ok(config)
    }

    /// The same broker with these dynamic values of `/config/brokers/<default>` and `/config/brokers/N`.
    ///
    /// # Errors
    /// A value is not legal; the old configuration stays in use then.
    pub fn with_dynamic(
        &self,
        of_all_brokers: BTreeMap<String, String>,
        of_this_broker: BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let settings = self.settings.with_dynamic(of_all_brokers, of_this_broker);
        let config = Self::of(settings, self.machine.clone())?;
        Ok(Self { cluster_id: self.cluster_id.clone(), ..config })
    }

    /// What a topic has that has these settings of its own.
    ///
    /// # Errors
    /// [`ConfigError::Topic`] with Kafka's text: an unknown name, a value that is not legal, or two that contradict.
    pub fn of_topic(&self, overrides: &BTreeMap<String, String>) -> Result<TopicConfig, ConfigError> {
        TopicConfig::over(&self.topic_values, overrides)
    }

    /// A line for each given value, with its source and without secrets, in the order of names.
    pub fn given_lines(&self) -> Vec<String> {
        Settings::lines_of(self.settings.at_start())
    }

    /// A line for each given value that has no effect, in the order of names.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Settings::warnings_of(self.settings.at_start());
        let reader = Reader::new(&self.settings);
        if self.authorizer.is_none() {
            let given = broker::OF_AUTHORIZER.into_iter().filter(|name| reader.given(name).is_some());
            lines.extend(given.map(|name| format!("The configuration '{name}' has no effect without an authorizer.")));
        }
        const NAMES: [&str; 3] = [
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
        ];
        lines.extend(sasl::warnings(&self.sasl));
        let is_fetched = self.sasl.logins.values().any(|login| matches!(login, sasl::SaslLogin::Fetched(_)));
        let given = self.settings.at_start();
        lines.extend(token_source::warnings(given.iter().map(|given| given.name.as_str()), is_fetched));
        let over_tls = self.zookeeper.as_ref().is_some_and(|zookeeper| zookeeper.tls.is_some());
        lines.extend(zookeeper_tls::warnings(&reader, over_tls));
        for name in NAMES {
            let asked = reader.given(name).and_then(|given| given.value.trim().parse::<i64>().ok());
            if self.zookeeper.is_none() && asked.is_some_and(|asked| asked > 1) {
                lines.push(format!("The configuration '{name}' is taken as 1: the node is alone."));
            }
        }
        lines
    }

    /// What whoever starts a broker should know though nothing was set wrong.
    pub fn note(&self) -> Option<String> {
        let is_set = ["log.dir", "log.dirs"].iter().any(|name| self.settings.given(name).is_some());
        let dirs: Vec<_> = self.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
        (!is_set).then(|| format!("Data lies in {}, Kafka's default; log.dirs says where else.", dirs.join(",")))
    }

    /// Neither ZooKeeper nor another node takes part.
    pub fn coordinates_itself(&self) -> bool {
        self.zookeeper.is_none()
    }

    fn of(settings: Settings, machine: Machine) -> Result<Self, ConfigError> {
        settings.check()?;
        Self::read(&Reader::new(&settings), machine)
    }

    fn read(reader: &Reader<'_>, machine: Machine) -> Result<Self, ConfigError> {
        let is_kraft = kraft_mode::check(reader)?;
        let zookeeper = if is_kraft { None } else { zookeeper(reader)? };
        let alone = zookeeper.is_none();
        let listeners = listeners::resolve(reader, &machine.host_name)?;
        let topic_values = TopicValues::of_broker(reader.settings);
        let topic_defaults = TopicConfig::over(&topic_values, &BTreeMap::new())?;
        rules::cross_checks(reader)?;
        let between: Vec<&str> = [Some(&listeners.inter_broker), listeners.control_plane.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let max_connection_creation_rates = listeners::creation_rates(reader, &listeners.listeners);
        let max_connections_of_listeners = listeners::connections(reader, &listeners.listeners);
        let sasl = sasl::resolve(reader, &listeners.listeners, &between, alone)?;
        Ok(Self {
            cluster_id: None,
            broker_id: rules::broker_id(reader, is_kraft)?,
            broker_id_generation_enable: reader.boolean("broker.id.generation.enable"),
            reserved_broker_max_id: reader.int("reserved.broker.max.id"),
            broker_rack: reader.text("broker.rack"),
            tls: tls::resolve(reader, &listeners.listeners)?,
            password_encoder: password::resolve(reader)?,
            listeners: listeners.listeners,
            advertised_listeners: listeners.advertised,
            inter_broker_listener: listeners.inter_broker,
            control_plane_listener: listeners.control_plane,
            sasl,
            inter_broker_protocol: protocol::resolve(reader, alone)?,
            authorizer: authorizer::resolve(reader)?,
            tokens: tokens::resolve(reader),
            zookeeper,
            controlled_shutdown_enable: reader.boolean("controlled.shutdown.enable"),
            controlled_shutdown_max_retries: reader.int("controlled.shutdown.max.retries"),
            controlled_shutdown_retry_backoff_ms: reader.long("controlled.shutdown.retry.backoff.ms"),
            request_timeout_ms: reader.int("request.timeout.ms"),
            controller_socket_timeout_ms: reader.int("controller.socket.timeout.ms"),
            replica_socket_timeout_ms: reader.int("replica.socket.timeout.ms"),
            log_dirs: rules::log_dirs(reader)?,
            num_partitions: reader.int("num.partitions"),
            default_replication_factor: rules::replication_factor(reader)?,
            auto_create_topics_enable: reader.boolean("auto.create.topics.enable"),
            delete_topic_enable: reader.boolean("delete.topic.enable"),
            auto_leader_rebalance_enable: reader.boolean("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_seconds: reader.long("leader.imbalance.check.interval.seconds"),
            leader_imbalance_per_broker_percentage: reader.int("leader.imbalance.per.broker.percentage"),
            group_min_session_timeout_ms: reader.int("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: reader.int("group.max.session.timeout.ms"),
            group_initial_rebalance_delay_ms: reader.int("group.initial.rebalance.delay.ms"),
            group_max_size: reader.int("group.max.size"),
            offset_metadata_max_bytes: reader.int("offset.metadata.max.bytes"),
            offsets_retention_ms: reader.long("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms: reader.long("offsets.retention.check.interval.ms"),
            offsets_topic_num_partitions: reader.int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: match reader.short("offsets.topic.replication.factor") {
                _ if alone => 1,
                factor => factor,
            },
            offsets_topic_min_insync_replicas: if alone { 1 } else { topic_defaults.min_insync_replicas },
            offsets_topic_segment_bytes: reader.int("offsets.topic.segment.bytes"),
            transaction_max_timeout_ms: reader.int("transaction.max.timeout.ms"),
            transaction_abort_check_interval_ms: reader
                .int("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            transactional_id_expiration_ms: reader.int("transactional.id.expiration.ms"),
            transactional_id_expiration_check_interval_ms: reader
                .int("transaction.remove.expired.transaction.cleanup.interval.ms"),
            transaction_partition_verification_enable: reader.boolean("transaction.partition.verification.enable"),
            transaction_topic_num_partitions: reader.int("transaction.state.log.num.partitions"),
            transaction_topic_replication_factor: match reader.short("transaction.state.log.replication.factor") {
                _ if alone => 1,
                factor => factor,
            },
            transaction_topic_min_insync_replicas: match reader.int("transaction.state.log.min.isr") {
                _ if alone => 1,
                replicas => replicas,
            },
            transaction_topic_segment_bytes: reader.int("transaction.state.log.segment.bytes"),
            num_replica_fetchers: reader.int("num.replica.fetchers"),
            replica_fetch_backoff_ms: reader.int("replica.fetch.backoff.ms"),
            quota_window_num: reader.int("quota.window.num"),
            quota_window_size_seconds: reader.int("quota.window.size.seconds"),
            replication_quota_window_num: reader.int("replication.quota.window.num"),
            replication_quota_window_size_seconds: reader.int("replication.quota.window.size.seconds"),
            leader_replication_throttled_rate: reader.dynamic_long("leader.replication.throttled.rate"),
            follower_replication_throttled_rate: reader.dynamic_long("follower.replication.throttled.rate"),
            alter_log_dirs_replication_quota_window_num: reader.int("alter.log.dirs.replication.quota.window.num"),
            alter_log_dirs_replication_quota_window_size_seconds: reader
                .int("alter.log.dirs.replication.quota.window.size.seconds"),
            replica_alter_log_dirs_io_max_bytes_per_second: reader
                .dynamic_long("replica.alter.log.dirs.io.max.bytes.per.second"),
            controller_quota_window_num: reader.int("controller.quota.window.num"),
            controller_quota_window_size_seconds: reader.int("controller.quota.window.size.seconds"),
            replica_fetch_max_bytes: reader.int("replica.fetch.max.bytes"),
            replica_fetch_min_bytes: reader.int("replica.fetch.min.bytes"),
            replica_fetch_response_max_bytes: reader.int("replica.fetch.response.max.bytes"),
            replica_fetch_wait_max_ms: reader.int("replica.fetch.wait.max.ms"),
            replica_selector: selector::resolve(reader)?,
            producer_id_expiration_ms: reader.int("producer.id.expiration.ms"),
            fetch_max_bytes: reader.int("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: reader.int("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: reader.int("max.request.partition.size.limit"),
            socket_send_buffer_bytes: reader.count("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: reader.count("socket.receive.buffer.bytes"),
            socket_request_max_bytes: reader.count("socket.request.max.bytes").unwrap_or_default(),
            connections_max_idle_ms: Some(reader.long("connections.max.idle.ms")).filter(|ms| *ms >= 0),
            max_connections: rules::max_connections(reader, &machine),
            max_connections_of_brokers: rules::descriptors(&machine, 75),
            max_connections_of_listeners,
            max_connections_per_ip: reader.int("max.connections.per.ip"),
            max_connection_creation_rate: reader.int("max.connection.creation.rate"),
            max_connection_creation_rates,
            max_connections_per_ip_overrides: rules::per_ip_overrides(reader)?,
            queued_max_request_bytes: rules::queued_max_request_bytes(reader, &machine),
            log_retention_check_interval_ms: reader.long("log.retention.check.interval.ms"),
            log_initial_task_delay_ms: reader.long("log.initial.task.delay.ms"),
            log_cleaner_enable: reader.boolean("log.cleaner.enable"),
            log_cleaner_backoff_ms: reader.long("log.cleaner.backoff.ms"),
            replica_lag_time_max_ms: reader.long("replica.lag.time.max.ms"),
            replica_high_watermark_checkpoint_interval_ms: reader.long("replica.high.watermark.checkpoint.interval.ms"),
            reply_bytes: rules::reply_bytes(reader, &machine),
            tail_bytes: reader.size("klamm.tail.bytes"),
            rocksdb_write_buffer_bytes: reader.size("klamm.rocksdb.write.buffer.bytes"),
            table_piece_bytes: reader.size("klamm.table.piece.bytes"),
            page_cache: rules::page_cache(reader, &machine),
            files_bypass_page_cache: rules::files_bypass_page_cache(reader, &machine),
            disk_reserve_bytes: u64::try_from(reader.long("klamm.disk.reserve.bytes")).ok(),
            stray_retention_ms: reader.long("klamm.stray.retention.ms"),
            allow_empty_log_dir: reader.boolean("klamm.allow.empty.log.dir"),
            http_listener: listeners::http(reader)?,
            boot_id: reader.text("klamm.boot.id"),
            topic_values,
            topic_defaults,
            machine,
            settings: reader.settings.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::broker;
    use super::super::setting::Effect;
    use super::super::sources::{Given, Source};
    use super::super::testing::{config, error};
    use super::*;

    #[test]
    fn a_row_is_honoured_exactly_if_a_field_comes_from_it() {
        let kraft = [("process.roles", "broker,controller"), ("node.id", "1")];
        let zookeeper = [("zookeeper.connect", "h:1"), ("advertised.listeners", "PLAINTEXT://h:1")];
        let tls = [("listeners", "SSL://h:1"), ("security.inter.broker.protocol", "SSL")];
        let oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=a \
                     clientSecret=b;";
        let sasl = [
            ("listeners", "PLAINTEXT://h:1,SASL_PLAINTEXT://h:2"),
            ("inter.broker.listener.name", "SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "OAUTHBEARER"),
            ("sasl.mechanism.inter.broker.protocol", "OAUTHBEARER"),
            ("sasl.oauthbearer.jwks.endpoint.url", "file:///keys"),
            ("sasl.oauthbearer.token.endpoint.url", "http://h/tokens"),
            ("zookeeper.connect", "h:1"),
            ("listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config", oauth),
        ];
        let mut read = BTreeSet::new();
        for given in [&kraft[..], &zookeeper, &tls, &sasl] {
            let overridden = |(name, value): (&str, &str)| Given {
                name: name.into(),
                value: value.into(),
                source: Source::Override,
            };
            let settings = Settings::merge(given.iter().copied().map(overridden));
            let reader = Reader::new(&settings);
            Config::read(&reader, Machine::for_test()).expect("legal");
            read.append(&mut reader.read.borrow_mut());
        }
        for row in broker::rows() {
            let is_topic_default = super::super::topic::rows().any(|topic| {
                let behind = super::super::topic::synonyms(topic.name).iter().any(|(name, _)| *name == row.name);
                behind && topic.effect == Effect::Honoured
            });
            let is_read = read.contains(row.name) || is_topic_default;
            assert_eq!(is_read, row.effect == Effect::Honoured, "{}", row.name);
        }
    }

    #[test]
    fn a_node_alone_keeps_its_internal_topics_itself() {
        let alone = config(&[("min.insync.replicas", "2"), ("offsets.topic.replication.factor", "3")]);
        assert!(alone.coordinates_itself());
        assert_eq!((alone.offsets_topic_replication_factor, alone.offsets_topic_min_insync_replicas), (1, 1));
        assert_eq!(alone.warnings().len(), 1);
        assert_eq!((alone.transaction_topic_replication_factor, alone.transaction_topic_min_insync_replicas), (1, 1));
        assert_eq!(config(&[("transaction.state.log.min.isr", "2")]).warnings().len(), 1);
        let cluster = config(&[("min.insync.replicas", "2"), ("zookeeper.connect", "a:1")]);
        assert_eq!(
            (cluster.transaction_topic_replication_factor, cluster.transaction_topic_min_insync_replicas),
            (3, 2)
        );
        assert_eq!((cluster.offsets_topic_replication_factor, cluster.offsets_topic_min_insync_replicas), (3, 2));
    }

    #[test]
    fn data_in_a_place_that_nobody_chose_is_told() {
        let note = "Data lies in /tmp/kafka-logs, Kafka's default; log.dirs says where else.";
        assert_eq!(config(&[]).note().as_deref(), Some(note));
        assert_eq!([config(&[("log.dirs", "d")]).note(), config(&[("log.dir", "d")]).note()], [None, None]);
    }

    #[test]
    fn the_id_may_be_given_under_either_name() {
        assert_eq!(config(&[]).broker_id, None);
        assert_eq!(config(&[("broker.id", "0")]).broker_id, Some(BrokerId(0)));
        assert_eq!(config(&[("node.id", "7")]).broker_id, Some(BrokerId(7)));
        assert!(error(&[("node.id", "7"), ("broker.id", "8")]).contains("same value as `broker.id`"));
        assert!(error(&[("broker.id", "1001")]).contains("not greater than reserved.broker.max.id"));
        assert!(error(&[("broker.id.generation.enable", "false")]).contains("greater than or equal to 0 (default)"));
    }

    #[test]
    fn the_page_cache_is_the_kernels_to_divide_but_in_a_container() {
        let contained = Machine { memory_is_limited: true, ..Machine::for_test() };
        let bytes = |set: &[(&str, &str)], machine: &Machine| {
            let overrides = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let inputs = Inputs { overrides, ..Inputs::default() };
            let config = Config::load(&inputs, machine.clone()).expect("it loads");
            let dear = machine.reports_free_pages && set.iter().all(|(_, value)| *value == "0");
            assert_eq!(config.files_bypass_page_cache, dear, "where pages are dear, and nobody said how many");
            config.page_cache.map(|kept| (kept.max, kept.at_once))
        };
        assert_eq!(bytes(&[], &Machine::for_test()), None);
        assert_eq!(bytes(&[], &contained), Some((512 << 20, 512 << 20)));
        let reports = Machine { reports_free_pages: true, ..contained.clone() };
        assert_eq!(bytes(&[], &reports), Some((128 << 20, 128 << 20)));
        let large = Machine { memory_bytes: 64 << 30, ..reports.clone() };
        assert_eq!(bytes(&[], &large), Some((8 << 30, 1 << 30)));
        assert_eq!(bytes(&[("klamm.page.cache.bytes", "0")], &large), Some((0, 0)));
        for machine in [Machine::for_test(), contained, large] {
            let set = bytes(&[("klamm.page.cache.bytes", "20000000000")], &machine);
            assert_eq!(set, Some((20_000_000_000, 20_000_000_000)), "what is asked for is kept from the beginning");
        }
    }

    #[test]
    fn bounds_follow_the_machine_where_nothing_is_set() {
        let open = config(&[]);
        assert_eq!((open.max_connections, open.max_connections_of_brokers), (700, 750));
        assert_eq!((open.queued_max_request_bytes, open.reply_bytes), (256 << 20, 128 << 20));
        assert_eq!(open.page_cache, None);
        let set = config(&[("max.connections", "10"), ("queued.max.request.bytes", "200000000")]);
        assert_eq!((set.max_connections, set.queued_max_request_bytes), (10, 200_000_000));
        assert_eq!(set.max_connections_of_brokers, 750);
        assert!(error(&[("queued.max.request.bytes", "5")]).contains("larger or equal to socket.request.max.bytes"));
    }

    #[test]
    fn an_error_is_one_line_with_key_value_and_source() {
        assert_eq!(
            error(&[("num.partitions", "many")]),
            "Invalid value many for configuration num.partitions: Not a number of type INT (--override)"
        );
        assert!(error(&[("log.dirs", " , ")]).starts_with("Invalid value , for configuration log.dirs: At least one"));
        assert!(error(&[("log.retention.minutes", "0")]).contains("configuration log.retention.minutes"));
    }

    #[test]
    fn dynamic_values_overlay_the_start_and_go_away_again() {
        let start = config(&[("message.max.bytes", "5")]);
        let changed = start.with_dynamic([("message.max.bytes".into(), "6".into())].into(), BTreeMap::new());
        let changed = changed.expect("legal");
        assert_eq!(changed.topic_defaults.max_message_bytes, 6);
        let back = changed.with_dynamic(BTreeMap::new(), BTreeMap::new()).expect("legal");
        assert_eq!(back.topic_defaults.max_message_bytes, 5);
        assert!(start.with_dynamic([("message.max.bytes".into(), "x".into())].into(), BTreeMap::new()).is_err());
    }
}
