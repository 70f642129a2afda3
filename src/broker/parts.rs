//! The rooms of a broker, wired; nothing runs yet but what follows the tree.

use std::sync::Arc;

use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::watch;

use super::dirs::Dirs;
use super::hand_over::HandOver;
use super::identity::Identity;
use super::leadership::Leadership;
use super::links;
use super::patience;
use super::refused::{StartError, failed};
use super::running;
use crate::api;
use crate::api::context::Handles;
use crate::api::gate::Gate;
use crate::api::replies::Replies;
use crate::clock::SharedClock;
use crate::cluster::acls::AclStore;
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::auto_create::AutoCreation;
use crate::cluster::control::BrokerLink;
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::cluster::running_config::RunningConfig;
use crate::cluster::tokens::TokenStore;
use crate::config::Config;
use crate::controller::{self, ControllerSeat};
use crate::coordination::SharedCoordination;
use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::group::config::GroupConfig;
use crate::coordinator::markers::LocalMarkers;
use crate::coordinator::replica_writer::ReplicaWriter;
use crate::coordinator::routed_markers::RoutedMarkers;
use crate::coordinator::routed_verification::RoutedVerification;
use crate::coordinator::transaction::TransactionCoordinator;
use crate::coordinator::transaction::config::TransactionConfig;
use crate::metrics::RequestMetrics;
use crate::observe;
use crate::peer::fetch::RemoteLeaders;
use crate::peer::markers::RemoteMarkers;
use crate::peer::verify::RemoteVerification;
use crate::peer::web::HttpWeb;
use crate::peer::{Peers, controller_link};
use crate::replica::alter_partition::{self, IsrChanges};
use crate::replica::control::ReplicaControl;
use crate::replica::fetcher::Fetchers;
use crate::replica::follower_fetch::FollowerFetches;
use crate::replica::manager::ReplicaManager;
use crate::replica::session_cache::Sessions;
use crate::security::authorizer::{AclAuthorizer, AuthorizerSettings};
use crate::security::principal::Principal;
use crate::security::quota::limits::Quotas;
use crate::security::quota::meter::Meter;
use crate::security::sasl::authority::Authority;
use crate::security::sasl::keys::FollowedKeys;
use crate::security::sasl::login::Login;
use crate::security::sasl::web::SharedWeb;
use crate::security::tls::TlsListeners;
use crate::security::tokens::Tokens;
use crate::task;

/// Fetches per core that read from storage at the same time: enough to keep a disk busy while each waits for it.
const STORAGE_READS_PER_CORE: usize = 8;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The rooms of a broker, wired.
pub(super) struct Parts {
    pub(super) image: Arc<ImagePublisher>,
    pub(super) dynamic_config: Arc<DynamicConfig>,
    pub(super) replicas: Arc<ReplicaManager>,
    pub(super) control: Arc<ReplicaControl>,
    pub(super) epoch: SharedBrokerEpoch,
    pub(super) peers: Peers,
    /// Who clients are, for listeners that ask.
    pub(super) authority: Arc<Authority>,
    pub(super) fetchers: Arc<Fetchers>,
    pub(super) hand_over: Option<HandOver>,
    /// Taken when the controller starts.
    pub(super) seat: Option<ControllerSeat>,
    pub(super) handles: Arc<Handles>,
}

impl Parts {
    pub(super) async fn build(
        config: &Arc<Config>,
        clock: &SharedClock,
        dirs: &Dirs,
        store: &SharedCoordination,
        identity: &Identity,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let image = Arc::new(ImagePublisher::default());
        let follow =
            || DynamicConfig::start(Arc::clone(store), identity.broker_id, Arc::clone(clock)).map_err(failed).boxed();
        let dynamic_config = patience::over_losses(config, store.session(), follow).await?;
        let tokens = tokens(config, store, clock).await?;
        if let (Some(tokens), Some(config)) = (&tokens, &config.tokens) {
            tokens.sweep(config.check_interval_ms, &image, identity.broker_id);
        }
        let web: SharedWeb = Arc::new(HttpWeb);
        let keys = FollowedKeys::start(&config.sasl, &web).await.map_err(failed)?;
        let users = Arc::clone(&dynamic_config) as Arc<_>;
        let authority = Authority::new(users, Arc::clone(clock), tokens.clone(), keys);
        let quotas = Arc::new(Meter::new(running::quota_windows(config), running::controller_quota_windows(config)));
        quotas.set(Quotas::stored(&dynamic_config.quotas()));
        let running = RunningConfig::new(Arc::clone(config));
        running.apply(dynamic_config.brokers());
        // What is set for all brokers counts as well.
        let logins = Login::start(&running.current().sasl, &web, clock).await.map_err(failed)?;
        let of_listeners = running.current();
        let tls = task::blocking(move || TlsListeners::open(&of_listeners)).await.map_err(failed)?;
        let config_of = running::topic_settings(&running, &dynamic_config);
        let surroundings = running::surroundings(&running.current(), identity.broker_id, clock, &image);
        let of_replicas = dirs.for_replicas();
        let replicas = task::blocking(move || ReplicaManager::new(surroundings, of_replicas, config_of)).await;
        let replicas = replicas.map_err(failed)?;
        running::throttle(&replicas, &running, &dynamic_config, &dynamic_config.topics());
        replicas.know_epochs(identity.epochs_before.clone());
        let writer = ReplicaWriter::new(Arc::clone(&replicas), Arc::clone(clock));
        let groups = GroupCoordinator::new(group_config(config), writer.clone(), Arc::clone(clock), Arc::clone(&image));
        let groups = Arc::new(groups);
        let epoch = SharedBrokerEpoch::default();
        let peers = links::peers(config, identity.broker_id, &image, clock, &tls, &logins);
        let markers = LocalMarkers::new(Arc::clone(&replicas), Arc::clone(&groups), Arc::clone(clock));
        let remote = RemoteMarkers::new(&peers);
        let routed = RoutedMarkers::new(identity.broker_id, Arc::clone(&image), markers.clone(), remote);
        let (controller, seat) = controller::seat();
        let blocks = controller_link::producer_ids(&peers, Arc::new(controller.clone()));
        let producer_ids = ProducerIds::new(identity.broker_id, epoch.clone(), blocks);
        let shutdown = controller_link::shutdown(&peers, Arc::new(controller.clone()));
        let changes = Arc::new(IsrChanges::default());
        let slots = usize::try_from(config.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let sessions = Arc::new(Sessions::new(slots));
        let follower_fetches = FollowerFetches::new(Arc::clone(&replicas), Arc::clone(&changes), Arc::clone(&sessions));
        let isr = controller_link::isr(&peers, Arc::new(controller.clone()));
        alter_partition::start(Arc::clone(&replicas), changes, isr, epoch.clone());
        let hand_over = HandOver::new(config, identity.broker_id, &epoch, &image, shutdown);
        let transactions = Arc::new(TransactionCoordinator::new(
            transaction_config(config),
            writer,
            routed,
            Arc::clone(clock),
            Arc::clone(&image),
            Arc::clone(&producer_ids),
        ));
        let (remote, local) = (RemoteVerification::new(&peers), Arc::clone(&transactions));
        let verification = RoutedVerification::new(identity.broker_id, Arc::clone(&image), local, remote);
        let (of_groups, of_transactions) = (Arc::clone(&groups), Arc::clone(&transactions));
        let listener = Arc::new(Leadership { groups: of_groups, transactions: of_transactions });
        let (manager, settings) = (Arc::clone(&replicas), Arc::clone(&dynamic_config));
        let leaders = RemoteLeaders::new(&peers);
        let of_fetchers = running::fetcher_settings(config);
        let fetchers = Fetchers::new(identity.broker_id, epoch.clone(), leaders, Arc::clone(clock), of_fetchers);
        let following = Arc::clone(&fetchers);
        let control = ReplicaControl::new(manager, Arc::clone(&image), following, settings, listener, epoch.clone());
        let admin = ClusterAdmin::new(Arc::clone(store));
        let auto_creation = AutoCreation::new(admin.clone(), Arc::clone(&image), Arc::clone(config), Arc::clone(clock));
        let handles = Arc::new(Handles {
            broker_id: identity.broker_id,
            cluster_id: Arc::clone(&identity.cluster_id),
            config: running,
            tls,
            clock: Arc::clone(clock),
            image: Arc::clone(&image),
            dynamic_config: Arc::clone(&dynamic_config),
            admin,
            auto_creation,
            producer_ids,
            control: Arc::clone(&control) as Arc<dyn BrokerLink>,
            controller,
            replicas: Arc::clone(&replicas),
            follower_fetches,
            groups,
            markers,
            transactions,
            verification,
            gate: Gate::new(stopped.clone()),
            sessions,
            replies: Replies::new(config.reply_bytes, STORAGE_READS_PER_CORE * cores()),
            requests: Arc::new(RequestMetrics::new(api::counted())),
            quotas,
            loggers: observe::loggers(),
            tokens,
            authorizer: authorizer(config, store, clock).await?,
        });
        let seat = Some(seat);
        Ok(Self {
            image,
            dynamic_config,
            replicas,
            control,
            fetchers,
            epoch,
            peers,
            authority,
            hand_over,
            seat,
            handles,
        })
    }
}

/// The authorizer, if there is one, with all ACLs.
async fn authorizer(
    config: &Config,
    store: &SharedCoordination,
    clock: &SharedClock,
) -> Result<Option<Arc<AclAuthorizer>>, StartError> {
    let Some(asked) = &config.authorizer else { return Ok(None) };
    let settings = AuthorizerSettings {
        super_users: asked.super_users.iter().filter_map(|text| Principal::parse(text)).collect(),
        allow_everyone_if_no_acl_found: asked.allow_everyone_if_no_acl_found,
    };
    let acls = AclStore::new(Arc::clone(store), Arc::clone(clock));
    let read = || AclAuthorizer::start(settings.clone(), acls.clone()).map_err(failed).boxed();
    patience::over_losses(config, store.session(), read).await.map(Some)
}

/// All delegation tokens, where a secret signs any.
async fn tokens(
    config: &Config,
    store: &SharedCoordination,
    clock: &SharedClock,
) -> Result<Option<Arc<Tokens>>, StartError> {
    let Some(settings) = &config.tokens else { return Ok(None) };
    let tokens = TokenStore::new(Arc::clone(store), Arc::clone(clock));
    let read = || Tokens::start(settings, tokens.clone(), Arc::clone(clock)).map_err(failed).boxed();
    patience::over_losses(config, store.session(), read).await.map(Some)
}

fn group_config(config: &Config) -> GroupConfig {
    GroupConfig {
        session_timeout_ms_min: config.group_min_session_timeout_ms,
        session_timeout_ms_max: config.group_max_session_timeout_ms,
        group_size_max: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        offset_metadata_units_max: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(usize::MAX),
        offsets_retention_ms: config.offsets_retention_ms,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
    }
}

fn transaction_config(config: &Config) -> TransactionConfig {
    TransactionConfig {
        timeout_ms_max: config.transaction_max_timeout_ms,
        abort_check_interval_ms: i64::from(config.transaction_abort_check_interval_ms),
        expiration_ms: i64::from(config.transactional_id_expiration_ms),
        expiration_check_interval_ms: i64::from(config.transactional_id_expiration_check_interval_ms),
    }
}
