//! What follows from settings that change while the broker runs: those of topics, and those of brokers.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::identity::millis;
use super::sockets;
use crate::clock::SharedClock;
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::running_config::RunningConfig;
use crate::cluster::znodes::config::{Entity, EntityName, Overrides};
use crate::config::Config;
use crate::log::config::LogConfig;
use crate::metrics::rate::Windows;
use crate::net::connection_rates::{AddressLimits, RateLimits};
use crate::net::listener::{ConnectionLimits, Limits};
use crate::replica::fetcher::FetcherSettings;
use crate::replica::maintenance::{Periods, PeriodsOf};
use crate::replica::manager::{ConfigOf, ReplicaConfig, ReplicaManager};
use crate::replica::surroundings::Surroundings;
use crate::replica::throttle::Throttles;
use crate::security::quota::limits::Quotas;
use crate::security::quota::meter::Meter;
use crate::security::tls::TlsListeners;
use crate::task;
use crate::types::{BrokerId, TopicName};

/// Effective settings of a topic, asked anew whenever a log is opened or what they depend on changes.
pub(super) fn topic_settings(config: &Arc<RunningConfig>, dynamic: &Arc<DynamicConfig>) -> ConfigOf {
    let (config, dynamic) = (Arc::clone(config), Arc::clone(dynamic));
    Arc::new(move |topic: &TopicName| {
        let config = config.current();
        let overrides = dynamic.topic(topic.as_str());
        let effective = config.of_topic(&overrides).unwrap_or_else(|error| {
            // Written by hand into ZooKeeper: CreateTopics and AlterConfigs refuse it.
            warn!(%topic, %error, "the topic's settings are malformed; the broker's defaults hold");
            config.topic_defaults.clone()
        });
        ReplicaConfig {
            log: LogConfig::of(&effective, i64::from(config.producer_id_expiration_ms)),
            min_insync_replicas: usize::try_from(effective.min_insync_replicas).unwrap_or(1),
        }
    })
}

/// Applies what is set for topics and brokers for as long as the broker runs.
pub(super) fn follow(
    config: Arc<RunningConfig>,
    dynamic: Arc<DynamicConfig>,
    replicas: Arc<ReplicaManager>,
    limits: Arc<ConnectionLimits>,
    tls: Arc<TlsListeners>,
    quotas: Arc<Meter>,
) {
    let of_addresses = Arc::clone(&limits);
    follow_brokers(&config, Arc::clone(&replicas), limits, tls);
    task::spawn_owner("dynamic settings", async move {
        loop {
            let changes = dynamic.changed().await;
            config.apply(dynamic.brokers());
            if changes.quotas {
                let entities = dynamic.quotas();
                quotas.set(Quotas::stored(&entities));
                of_addresses.set_addresses(task::blocking(move || address_limits(&entities)).await);
            }
            throttle(&replicas, &config, &dynamic, &changes.topics);
            for topic in &changes.topics {
                replicas.reconfigure(topic);
            }
        }
    });
}

fn follow_brokers(
    config: &RunningConfig,
    replicas: Arc<ReplicaManager>,
    limits: Arc<ConnectionLimits>,
    tls: Arc<TlsListeners>,
) {
    let mut changes = config.subscribe();
    task::spawn_owner("broker settings", async move {
        while changes.changed().await.is_ok() {
            let now = changes.borrow_and_update().clone();
            replicas.reconfigure_all();
            set_rates(replicas.throttles(), &now);
            let (config, listeners) = (Arc::clone(&now), Arc::clone(&tls));
            // Stores are read.
            task::blocking(move || listeners.take(&config)).await;
            // Names of hosts are looked up.
            limits.set(task::blocking(move || connection_limits(&now)).await);
        }
    });
}

pub(super) fn connection_limits(config: &Config) -> Limits {
    Limits {
        total_max: config.max_connections,
        total_max_of_brokers: config.max_connections_of_brokers,
        listener_max: config.max_connections_of_listeners.clone().into_iter().collect(),
        per_ip_max: usize::try_from(config.max_connections_per_ip).unwrap_or(usize::MAX),
        per_ip_overrides: sockets::per_ip_overrides(config),
        rates: rate_limits(config),
    }
}

fn rate_limits(config: &Config) -> RateLimits {
    let limit = |rate: i32| u32::try_from(rate).ok().filter(|_| rate != i32::MAX);
    let own = config.max_connection_creation_rates.iter();
    let of_brokers = (config.listeners.len() > 1).then(|| config.inter_broker_listener.clone());
    RateLimits {
        of_broker: limit(config.max_connection_creation_rate),
        of_listeners: own.filter_map(|(name, rate)| Some((name.clone(), limit(*rate)?))).collect(),
        of_brokers,
    }
}

/// `connection_creation_rate` of addresses. May look up names of hosts.
pub(super) fn address_limits(entities: &[(Entity, Arc<Overrides>)]) -> AddressLimits {
    let mut limits = AddressLimits::default();
    for (entity, overrides) in entities {
        let Entity::Ip(path) = entity else { continue };
        let rate = overrides.get("connection_creation_rate").and_then(|rate| rate.trim().parse::<i32>().ok());
        let Some(rate) = rate.filter(|rate| *rate != i32::MAX) else { continue };
        let rate = u32::try_from(rate).unwrap_or(0);
        match EntityName::from_path(path) {
            Some(EntityName::Default) => limits.of_others = Some(rate),
            Some(EntityName::Named(host)) => match (host.as_str(), 0).to_socket_addrs() {
                Ok(found) => limits.by_address.extend(found.map(|address| (address.ip().to_canonical(), rate))),
                Err(error) => warn!(host, %error, "connection_creation_rate is set for an unknown host"),
            },
            None => {}
        }
    }
    limits
}

/// What replicas ask of the world around them.
pub(super) fn surroundings(
    config: &Config,
    me: BrokerId,
    clock: &SharedClock,
    image: &Arc<ImagePublisher>,
) -> Arc<Surroundings> {
    let (clock, image) = (Arc::clone(clock), Arc::clone(image));
    let replication = windows(config.replication_quota_window_num, config.replication_quota_window_size_seconds);
    let (samples, seconds) = (
        config.alter_log_dirs_replication_quota_window_num,
        config.alter_log_dirs_replication_quota_window_size_seconds,
    );
    let throttles = Throttles::new(replication, windows(samples, seconds));
    set_rates(&throttles, config);
    Arc::new(Surroundings { me, clock, image, lag_max: millis(config.replica_lag_time_max_ms), throttles })
}

fn set_rates(throttles: &Throttles, config: &Config) {
    let bytes = |rate: i64| if rate == i64::MAX { u64::MAX } else { u64::try_from(rate).unwrap_or(0) };
    throttles.leader.set_limit(bytes(config.leader_replication_throttled_rate));
    throttles.follower.set_limit(bytes(config.follower_replication_throttled_rate));
    throttles.log_dirs.set_limit(bytes(config.replica_alter_log_dirs_io_max_bytes_per_second));
}

/// Has replication of these topics be held back as they say.
pub(super) fn throttle<'a>(
    replicas: &ReplicaManager,
    config: &RunningConfig,
    dynamic: &DynamicConfig,
    topics: impl IntoIterator<Item = &'a TopicName>,
) {
    let (config, throttles) = (config.current(), replicas.throttles());
    for topic in topics {
        // What is malformed is said where its logs are configured.
        let effective =
            config.of_topic(&dynamic.topic(topic.as_str())).unwrap_or_else(|_| config.topic_defaults.clone());
        throttles.leader.name(topic, &effective.leader_throttled_replicas, replicas.me);
        throttles.follower.name(topic, &effective.follower_throttled_replicas, replicas.me);
    }
}

/// How often maintenance is done, asked before each pause.
pub(super) fn periods(config: Arc<RunningConfig>) -> PeriodsOf {
    Box::new(move || {
        let config = config.current();
        Periods {
            initial_delay: millis(config.log_initial_task_delay_ms),
            retention: millis(config.log_retention_check_interval_ms),
            high_watermarks: millis(config.replica_high_watermark_checkpoint_interval_ms).max(PAUSE_MIN),
            cleaner_backoff: millis(config.log_cleaner_backoff_ms).max(PAUSE_MIN),
            cleaner_enabled: config.log_cleaner_enable,
        }
    })
}

/// A pause of 0 must not keep a core busy with nothing to do.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How rates of clients and of connections are measured.
pub(super) fn quota_windows(config: &Config) -> Windows {
    windows(config.quota_window_num, config.quota_window_size_seconds)
}

/// How changes of topics are.
pub(super) fn controller_quota_windows(config: &Config) -> Windows {
    windows(config.controller_quota_window_num, config.controller_quota_window_size_seconds)
}

fn windows(samples: i32, seconds: i32) -> Windows {
    Windows { samples: usize::try_from(samples).unwrap_or(1), window_ms: i64::from(seconds) * 1000 }
}

/// How this broker fetches from its leaders.
pub(super) fn fetcher_settings(config: &Config) -> FetcherSettings {
    FetcherSettings {
        fetchers: u16::try_from(config.num_replica_fetchers).unwrap_or(1),
        response_bytes: config.replica_fetch_response_max_bytes,
        partition_bytes: config.replica_fetch_max_bytes,
        wait_ms: config.replica_fetch_wait_max_ms,
        min_bytes: config.replica_fetch_min_bytes,
        backoff: millis(i64::from(config.replica_fetch_backoff_ms)),
    }
}
