//! Which test shows what a setting does.

use std::collections::BTreeSet;

use super::*;
use crate::config::setting::{Effect, Setting};
use crate::config::{broker, topic};

/// Name of a broker's setting, and the test that shows its effect.
const OF_BROKERS: &[(&str, &str)] = &[
    ("broker.id", "identity::a_broker_is_told_of_as_it_was_set_up"),
    ("broker.id.generation.enable", "identity::a_broker_without_an_id_gets_one_above_those_given_by_hand"),
    ("reserved.broker.max.id", "identity::a_broker_without_an_id_gets_one_above_those_given_by_hand"),
    ("broker.rack", "identity::a_broker_is_told_of_as_it_was_set_up"),
    (
        "authorizer.class.name",
        "authorization::nobody_may_anything_until_an_acl_says_so_and_without_an_authorizer_there_are_no_acls",
    ),
    ("num.partitions", "topics::topics_are_made_and_deleted_as_the_broker_says"),
    ("default.replication.factor", "topics::topics_are_made_and_deleted_as_the_broker_says"),
    ("auto.create.topics.enable", "topics::topics_are_made_and_deleted_as_the_broker_says"),
    ("delete.topic.enable", "topics::topics_are_made_and_deleted_as_the_broker_says"),
    ("auto.leader.rebalance.enable", "topics::leadership_goes_back_to_preferred_replicas_as_is_set"),
    ("leader.imbalance.check.interval.seconds", "topics::leadership_goes_back_to_preferred_replicas_as_is_set"),
    ("leader.imbalance.per.broker.percentage", "topics::leadership_goes_back_to_preferred_replicas_as_is_set"),
    ("num.replica.fetchers", "replicas::a_follower_asks_as_is_set"),
    ("replica.fetch.backoff.ms", "replicas::a_follower_asks_as_is_set"),
    ("delegation.token.secret.key", "tokens::a_token_lives_as_long_as_is_set_and_speaks_for_its_owner"),
    ("delegation.token.master.key", "tokens::a_token_lives_as_long_as_is_set_and_speaks_for_its_owner"),
    ("delegation.token.expiry.time.ms", "tokens::a_token_lives_as_long_as_is_set_and_speaks_for_its_owner"),
    ("delegation.token.max.lifetime.ms", "tokens::a_token_lives_as_long_as_is_set_and_speaks_for_its_owner"),
    ("delegation.token.expiry.check.interval.ms", "tokens::expired_tokens_are_looked_for_as_often_as_is_set"),
    ("replica.fetch.max.bytes", "replicas::a_follower_asks_as_is_set"),
    ("replica.fetch.min.bytes", "replicas::a_follower_asks_as_is_set"),
    ("replica.fetch.response.max.bytes", "replicas::a_follower_asks_as_is_set"),
    ("replica.fetch.wait.max.ms", "replicas::a_follower_asks_as_is_set"),
    ("replica.selector.class", "racks::consumers_are_sent_to_a_follower_in_their_rack_if_that_is_set"),
    ("message.max.bytes", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("min.insync.replicas", "topics::acks_all_wants_as_many_replicas_in_sync_as_is_set"),
    ("compression.type", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("compression.gzip.level", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("compression.zstd.level", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("unclean.leader.election.enable", "topics::a_replica_out_of_sync_leads_only_where_that_is_allowed"),
    ("controlled.shutdown.enable", "connections::leadership_is_handed_over_for_as_long_as_is_set"),
    ("controlled.shutdown.max.retries", "connections::leadership_is_handed_over_for_as_long_as_is_set"),
    ("controlled.shutdown.retry.backoff.ms", "connections::leadership_is_handed_over_for_as_long_as_is_set"),
    ("request.timeout.ms", "connections::requests_to_other_brokers_wait_as_long_as_is_set"),
    ("controller.socket.timeout.ms", "connections::requests_to_other_brokers_wait_as_long_as_is_set"),
    ("replica.socket.timeout.ms", "connections::requests_to_other_brokers_wait_as_long_as_is_set"),
    ("fetch.max.bytes", "requests::answers_are_as_large_as_the_broker_allows"),
    ("max.incremental.fetch.session.cache.slots", "requests::answers_are_as_large_as_the_broker_allows"),
    ("max.request.partition.size.limit", "requests::answers_are_as_large_as_the_broker_allows"),
    ("quota.window.num", "requests::a_client_that_takes_too_much_waits_as_its_quotas_windows_say"),
    ("quota.window.size.seconds", "requests::a_client_that_takes_too_much_waits_as_its_quotas_windows_say"),
    ("replication.quota.window.num", "replicas::replication_is_held_back_as_its_windows_say"),
    ("replication.quota.window.size.seconds", "replicas::replication_is_held_back_as_its_windows_say"),
    ("alter.log.dirs.replication.quota.window.num", "replicas::moves_between_directories_are_held_back_as_is_set"),
    (
        "alter.log.dirs.replication.quota.window.size.seconds",
        "replicas::moves_between_directories_are_held_back_as_is_set",
    ),
    ("controller.quota.window.num", "requests::changes_of_topics_beyond_a_limit_wait_as_its_windows_say"),
    ("controller.quota.window.size.seconds", "requests::changes_of_topics_beyond_a_limit_wait_as_its_windows_say"),
    ("queued.max.request.bytes", "requests::frames_that_come_in_take_room_that_is_bounded"),
    ("socket.send.buffer.bytes", "connections::sockets_have_the_buffers_that_are_set"),
    ("socket.receive.buffer.bytes", "connections::sockets_have_the_buffers_that_are_set"),
    ("socket.request.max.bytes", "requests::a_frame_larger_than_allowed_closes_the_connection"),
    ("connections.max.idle.ms", "connections::an_idle_connection_is_closed"),
    ("max.connections", "connections::connections_beyond_the_limit_of_the_broker_or_of_the_listener_wait_for_a_place"),
    ("max.connection.creation.rate", "connections::connections_beyond_a_rate_wait"),
    ("max.connections.per.ip", "connections::connections_beyond_a_limit_are_closed"),
    ("max.connections.per.ip.overrides", "connections::connections_beyond_a_limit_are_closed"),
    ("producer.id.expiration.ms", "logs::a_producer_that_wrote_long_ago_is_forgotten"),
    ("listeners", "identity::a_broker_is_told_of_as_it_was_set_up"),
    ("advertised.listeners", "identity::a_broker_is_told_of_as_it_was_set_up"),
    ("listener.security.protocol.map", "identity::a_broker_is_told_of_as_it_was_set_up"),
    ("inter.broker.listener.name", "identity::the_listener_between_brokers_must_be_one_of_the_listeners"),
    ("control.plane.listener.name", "control_plane::the_controller_is_heard_on_a_listener_of_its_own"),
    ("inter.broker.protocol.version", "connections::brokers_speak_in_the_versions_that_are_set"),
    ("security.inter.broker.protocol", "identity::the_listener_between_brokers_must_be_one_of_the_listeners"),
    ("connections.max.reauth.ms", "sasl::a_session_lasts_as_long_as_is_set"),
    ("connection.failed.authentication.delay.ms", "sasl::a_client_is_let_in_by_its_password_and_kept_out_without"),
    ("sasl.enabled.mechanisms", "sasl::a_client_is_let_in_by_its_password_and_kept_out_without"),
    ("sasl.jaas.config", "sasl::a_client_is_let_in_by_its_password_and_kept_out_without"),
    ("sasl.mechanism.inter.broker.protocol", "sasl::what_brokers_show_each_other_must_be_offered"),
    ("sasl.login.callback.handler.class", "login::a_provider_is_asked_as_is_set"),
    ("sasl.login.connect.timeout.ms", "login::a_provider_is_asked_as_is_set"),
    ("sasl.login.read.timeout.ms", "login::a_provider_is_asked_as_is_set"),
    ("sasl.login.refresh.buffer.seconds", "login::a_token_is_renewed_as_is_set"),
    ("sasl.login.refresh.min.period.seconds", "login::a_token_is_renewed_as_is_set"),
    ("sasl.login.refresh.window.factor", "login::a_token_is_renewed_as_is_set"),
    ("sasl.login.refresh.window.jitter", "login::a_token_is_renewed_as_is_set"),
    ("sasl.login.retry.backoff.max.ms", "login::a_provider_is_asked_again_as_is_set"),
    ("sasl.login.retry.backoff.ms", "login::a_provider_is_asked_again_as_is_set"),
    ("sasl.server.max.receive.size", "sasl::what_a_stranger_sends_is_bounded"),
    ("sasl.server.callback.handler.class", "sasl::who_judges_tokens_is_one_of_kafkas_own"),
    ("sasl.oauthbearer.clock.skew.seconds", "sasl::tokens_are_judged_as_is_set"),
    ("sasl.oauthbearer.expected.audience", "sasl::tokens_are_judged_as_is_set"),
    ("sasl.oauthbearer.expected.issuer", "sasl::tokens_are_judged_as_is_set"),
    ("sasl.oauthbearer.jwks.endpoint.refresh.ms", "sasl::the_keys_of_tokens_are_read_again_as_often_as_is_set"),
    ("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "sasl::keys_at_a_url_are_asked_for_as_often_as_is_set"),
    ("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "sasl::keys_at_a_url_are_asked_for_as_often_as_is_set"),
    ("sasl.oauthbearer.jwks.endpoint.url", "sasl::tokens_are_judged_as_is_set"),
    ("sasl.oauthbearer.scope.claim.name", "login::a_token_is_read_as_is_set"),
    ("sasl.oauthbearer.token.endpoint.url", "login::a_provider_is_asked_as_is_set"),
    ("sasl.oauthbearer.sub.claim.name", "sasl::tokens_are_judged_as_is_set"),
    ("log.dir", "directories::data_lies_where_it_was_told_to"),
    ("log.dirs", "directories::data_lies_where_it_was_told_to"),
    ("log.segment.bytes", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.roll.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.roll.hours", "running::what_is_set_at_the_start_is_what_topics_have"),
    ("log.retention.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.retention.minutes", "running::what_is_set_at_the_start_is_what_topics_have"),
    ("log.retention.hours", "running::what_is_set_at_the_start_is_what_topics_have"),
    ("log.retention.bytes", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.retention.check.interval.ms", "logs::segments_go_when_their_topic_lets_them"),
    ("log.flush.interval.messages", "flush::every_so_many_records_are_synced_where_a_count_is_set"),
    ("log.flush.interval.ms", "flush::records_are_synced_in_time_where_a_time_is_set"),
    ("log.flush.scheduler.interval.ms", "flush::records_are_synced_in_time_where_a_time_is_set"),
    ("log.initial.task.delay.ms", "running::chores_are_done_as_often_as_is_set"),
    ("replica.lag.time.max.ms", "running::a_follower_may_lag_for_as_long_as_is_set"),
    ("replica.high.watermark.checkpoint.interval.ms", "running::chores_are_done_as_often_as_is_set"),
    ("log.cleanup.policy", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.cleaner.enable", "logs::without_the_cleaner_nothing_is_compacted"),
    ("log.cleaner.backoff.ms", "running::chores_are_done_as_often_as_is_set"),
    ("log.cleaner.min.cleanable.ratio", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.cleaner.delete.retention.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.cleaner.min.compaction.lag.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.cleaner.max.compaction.lag.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.message.timestamp.type", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.message.timestamp.difference.max.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.message.timestamp.before.max.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("log.message.timestamp.after.max.ms", "running::open_logs_take_over_what_is_set_while_they_run"),
    ("group.min.session.timeout.ms", "coordinators::groups_are_held_within_their_bounds"),
    ("group.max.session.timeout.ms", "coordinators::groups_are_held_within_their_bounds"),
    ("group.initial.rebalance.delay.ms", "coordinators::groups_are_held_within_their_bounds"),
    ("group.max.size", "coordinators::groups_are_held_within_their_bounds"),
    ("offset.metadata.max.bytes", "coordinators::groups_are_held_within_their_bounds"),
    ("offsets.retention.minutes", "coordinators::offsets_of_a_group_that_is_gone_expire"),
    ("offsets.retention.check.interval.ms", "coordinators::offsets_of_a_group_that_is_gone_expire"),
    ("offsets.topic.num.partitions", "coordinators::groups_are_held_within_their_bounds"),
    ("offsets.topic.replication.factor", INTERNAL_TOPICS),
    ("offsets.topic.segment.bytes", "coordinators::groups_are_held_within_their_bounds"),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "coordinators::transactions_end_and_are_forgotten_in_time",
    ),
    ("transaction.max.timeout.ms", "coordinators::transactions_end_and_are_forgotten_in_time"),
    (
        "transaction.partition.verification.enable",
        "coordinators::a_partition_that_was_not_added_is_refused_if_that_is_verified",
    ),
    (
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        "coordinators::transactions_end_and_are_forgotten_in_time",
    ),
    ("transaction.state.log.min.isr", INTERNAL_TOPICS),
    ("transaction.state.log.num.partitions", "coordinators::transactions_end_and_are_forgotten_in_time"),
    ("transaction.state.log.replication.factor", INTERNAL_TOPICS),
    ("transaction.state.log.segment.bytes", "coordinators::transactions_end_and_are_forgotten_in_time"),
    ("transactional.id.expiration.ms", "coordinators::transactions_end_and_are_forgotten_in_time"),
    ("process.roles", "identity::the_file_of_a_kraft_node_starts_one_broker"),
    ("node.id", "identity::the_file_of_a_kraft_node_starts_one_broker"),
    ("controller.listener.names", "identity::the_file_of_a_kraft_node_starts_one_broker"),
    ("controller.quorum.voters", "identity::the_file_of_a_kraft_node_starts_one_broker"),
    ("zookeeper.connect", INTERNAL_TOPICS),
    ("zookeeper.session.timeout.ms", "zookeeper::zookeeper_is_asked_and_waited_for_as_is_set"),
    ("zookeeper.connection.timeout.ms", "zookeeper::zookeeper_is_asked_and_waited_for_as_is_set"),
    ("zookeeper.set.acl", "zookeeper::nobody_else_may_change_what_a_broker_keeps_in_zookeeper_if_that_is_set"),
    ("zookeeper.max.in.flight.requests", "zookeeper::requests_to_zookeeper_are_bounded_as_is_set"),
    ("zookeeper.ssl.client.enable", "zookeeper_tls::zookeeper_is_met_over_tls_as_is_set"),
    ("zookeeper.clientCnxnSocket", "zookeeper_tls::zookeeper_is_met_over_tls_as_is_set"),
    ("zookeeper.ssl.keystore.location", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.keystore.password", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.keystore.type", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.truststore.location", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.truststore.password", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.truststore.type", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.protocol", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.enabled.protocols", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.cipher.suites", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.endpoint.identification.algorithm", "zookeeper_tls::what_zookeeper_is_spoken_to_with_is_as_set"),
    ("zookeeper.ssl.crl.enable", "zookeeper_tls::revocation_cannot_be_asked_for"),
    ("zookeeper.ssl.ocsp.enable", "zookeeper_tls::revocation_cannot_be_asked_for"),
    ("password.encoder.secret", "tls::passwords_lie_in_zookeeper_as_set"),
    ("password.encoder.old.secret", "tls::passwords_lie_in_zookeeper_as_set"),
    ("password.encoder.cipher.algorithm", "tls::passwords_lie_in_zookeeper_as_set"),
    ("password.encoder.iterations", "tls::passwords_lie_in_zookeeper_as_set"),
    ("password.encoder.key.length", "tls::passwords_lie_in_zookeeper_as_set"),
    ("password.encoder.keyfactory.algorithm", "tls::passwords_lie_in_zookeeper_as_set"),
    ("ssl.allow.dn.changes", "tls::another_name_is_taken_only_where_that_is_allowed"),
    ("ssl.allow.san.changes", "tls::another_name_is_taken_only_where_that_is_allowed"),
    ("ssl.cipher.suites", "tls::what_is_spoken_is_as_set"),
    ("ssl.client.auth", "tls::whom_a_listener_lets_in_is_as_set"),
    ("ssl.enabled.protocols", "tls::what_is_spoken_is_as_set"),
    ("ssl.endpoint.identification.algorithm", "tls::whom_a_listener_lets_in_is_as_set"),
    ("ssl.key.password", "tls::stores_are_those_that_are_set"),
    ("ssl.keystore.certificate.chain", "tls::stores_are_those_that_are_set"),
    ("ssl.keystore.key", "tls::stores_are_those_that_are_set"),
    ("ssl.keystore.location", "tls::stores_are_those_that_are_set"),
    ("ssl.keystore.password", "tls::stores_are_those_that_are_set"),
    ("ssl.keystore.type", "tls::stores_are_those_that_are_set"),
    ("ssl.principal.mapping.rules", "tls::whom_a_listener_lets_in_is_as_set"),
    ("ssl.protocol", "tls::what_is_spoken_is_as_set"),
    ("ssl.truststore.certificates", "tls::whom_a_listener_lets_in_is_as_set"),
    ("ssl.truststore.location", "tls::stores_are_those_that_are_set"),
    ("ssl.truststore.password", "tls::stores_are_those_that_are_set"),
    ("ssl.truststore.type", "tls::stores_are_those_that_are_set"),
    ("klamm.tail.bytes", "directories::the_newest_batches_are_in_memory_as_far_as_the_tail_reaches"),
    ("klamm.reply.bytes", "clients::records_that_nobody_takes_give_way_to_those_of_another_client"),
    ("klamm.rocksdb.write.buffer.bytes", "directories::what_exceeds_the_write_buffer_becomes_files"),
    ("klamm.table.piece.bytes", "directories::pieces_that_are_large_enough_go_to_a_table_of_their_own"),
    ("klamm.page.cache.bytes", "directories::a_directory_is_told_how_much_of_the_page_cache_to_keep"),
    ("klamm.disk.reserve.bytes", "directories::produce_is_refused_below_the_reserve"),
    ("klamm.stray.retention.ms", "starts::a_topic_that_was_deleted_while_the_broker_was_down_goes_and_all_else_stays"),
    ("klamm.allow.empty.log.dir", "starts::b3_a_lost_directory_is_refused_unless_that_is_allowed"),
    ("klamm.controller.eligible", "zookeeper::a_broker_that_is_not_eligible_leaves_the_controller_to_others"),
    ("klamm.http.listener", "watched::what_is_produced_is_seen_by_whoever_scrapes"),
    ("klamm.boot.id", "starts::another_boot_gives_new_leader_epochs_and_a_restart_alone_none"),
];

const INTERNAL_TOPICS: &str = "zookeeper::a_broker_meets_others_in_zookeeper_and_its_internal_topics_are_as_set";

/// The same for a topic's settings.
const OF_TOPICS: &[(&str, &str)] = &[
    ("cleanup.policy", "logs::what_a_topic_does_not_allow_is_refused"),
    ("compression.type", "logs::batches_are_kept_in_the_topics_codec_and_level"),
    ("compression.gzip.level", "logs::batches_are_kept_in_the_topics_codec_and_level"),
    ("compression.zstd.level", "logs::batches_are_kept_in_the_topics_codec_and_level"),
    ("delete.retention.ms", "logs::compaction_begins_when_its_topic_lets_it"),
    ("flush.messages", "flush::every_so_many_records_are_synced_where_a_count_is_set"),
    ("flush.ms", "flush::records_are_synced_in_time_where_a_time_is_set"),
    ("max.compaction.lag.ms", "logs::compaction_begins_when_its_topic_lets_it"),
    ("max.message.bytes", "logs::what_a_topic_does_not_allow_is_refused"),
    ("message.timestamp.after.max.ms", "logs::what_a_topic_does_not_allow_is_refused"),
    ("message.timestamp.before.max.ms", "logs::what_a_topic_does_not_allow_is_refused"),
    ("message.timestamp.difference.max.ms", "logs::what_a_topic_does_not_allow_is_refused"),
    ("message.timestamp.type", "logs::what_a_topic_does_not_allow_is_refused"),
    ("min.cleanable.dirty.ratio", "logs::compaction_begins_when_its_topic_lets_it"),
    ("leader.replication.throttled.replicas", "replicas::replication_is_held_back_as_its_windows_say"),
    ("follower.replication.throttled.replicas", "replicas::replication_is_held_back_as_its_windows_say"),
    ("min.compaction.lag.ms", "logs::compaction_begins_when_its_topic_lets_it"),
    ("min.insync.replicas", "topics::acks_all_wants_as_many_replicas_in_sync_as_is_set"),
    ("retention.bytes", "logs::segments_go_when_their_topic_lets_them"),
    ("retention.ms", "logs::segments_go_when_their_topic_lets_them"),
    ("segment.bytes", "logs::segments_go_when_their_topic_lets_them"),
    ("segment.ms", "logs::segments_go_when_their_topic_lets_them"),
    ("unclean.leader.election.enable", "topics::a_replica_out_of_sync_leads_only_where_that_is_allowed"),
];

/// What is wrong with a table of probes for these rows.
fn faults(rows: impl Iterator<Item = &'static Setting>, probes: &[(&str, &str)]) -> Vec<String> {
    let honoured: BTreeSet<&str> = rows.filter(|row| row.effect == Effect::Honoured).map(|row| row.name).collect();
    let shown: BTreeSet<&str> = probes.iter().map(|(name, _)| *name).collect();
    let unshown = honoured.difference(&shown).map(|name| format!("{name} is honoured, and no test shows it"));
    let not_honoured = shown.difference(&honoured).map(|name| format!("{name} has a test and is not honoured"));
    let untrue = probes
        .iter()
        .filter(|(name, test)| !names(test, name))
        .map(|(name, test)| format!("{test} is no test, or its file does not name {name}"));
    unshown.chain(not_honoured).chain(untrue).collect()
}

/// Whether there is such a test here and its file names the setting.
fn names(test: &str, setting: &str) -> bool {
    let (module, function) = test.split_once("::").unwrap_or(("", test));
    let file = match module {
        "authorization" | "clients" | "starts" => format!("src/broker/tests/{module}.rs"),
        module => format!("src/broker/tests/settings/{module}.rs"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let is_test = text.match_indices(&format!("fn {function}(")).any(|(at, _)| {
        text[..at].lines().rev().take(2).any(|line| line.starts_with("#[tokio::test") || line == "#[test]")
    });
    is_test && ["=", "\""].iter().any(|end| text.contains(&format!("\"{setting}{end}")))
}

#[test]
fn every_honoured_setting_has_a_test_that_shows_its_effect() {
    let found = [faults(broker::rows(), OF_BROKERS), faults(topic::rows(), OF_TOPICS)].concat();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_setting_without_a_test_is_found() {
    let without = |name: &str| {
        faults(broker::rows(), &OF_BROKERS.iter().filter(|(of, _)| *of != name).copied().collect::<Vec<_>>())
    };
    assert_eq!(without("log.roll.ms"), ["log.roll.ms is honoured, and no test shows it"]);
    let planted = [OF_TOPICS, &[("preallocate", "logs::nothing_shows_it")]].concat();
    assert_eq!(faults(topic::rows(), &planted).len(), 2);
    assert!(
        !names("logs::records", "segment.ms")
            && !names("flush::every_so_many_records_are_synced_where_a_count_is_set", "segment.ms")
    );
}
