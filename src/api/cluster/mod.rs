//! What the cluster is and how it is set up: one file per API key.

pub(super) mod alter_client_quotas;
pub(super) mod alter_configs;
pub(super) mod alter_replica_log_dirs;
pub(super) mod api_versions;
pub(super) mod describe_client_quotas;
pub(super) mod describe_cluster;
pub(super) mod describe_configs;
pub(super) mod describe_log_dirs;
pub(super) mod describe_topic_partitions;
pub(super) mod incremental_alter_configs;
pub(super) mod list_config_resources;
pub(super) mod metadata;
pub(super) mod update_features;
