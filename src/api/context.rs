//! What a handler may use: handles of the domain rooms, and what is known of the request.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka_protocol::ResponseError;

use crate::api::authorization::Authorization;
use crate::api::gate::Gate;
use crate::api::handling::Handling;
use crate::api::replies::Replies;
use crate::clock::SharedClock;
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::auto_create::AutoCreation;
use crate::cluster::control::BrokerLink;
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::{ClusterImage, ImagePublisher};
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::running_config::RunningConfig;
use crate::config::loggers::LoggerLevels;
use crate::controller::ControllerHandle;
use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::markers::SharedMarkers;
use crate::coordinator::routed_verification::RoutedVerification;
use crate::coordinator::transaction::TransactionCoordinator;
use crate::metrics::RequestMetrics;
use crate::replica::follower_fetch::FollowerFetches;
use crate::replica::manager::ReplicaManager;
use crate::replica::session_cache::Sessions;
use crate::security::authorizer::AclAuthorizer;
use crate::security::principal::Principal;
use crate::security::quota::meter::Meter;
use crate::security::quota::mute::Mute;
use crate::security::tls::TlsListeners;
use crate::security::tokens::Tokens;
use crate::types::{BrokerId, PartitionIndex};

/// Handles of the rooms, one set per broker.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) broker_id: BrokerId,
    /// From `/cluster/id`.
    pub(crate) cluster_id: Arc<str>,
    pub(crate) config: Arc<RunningConfig>,
    /// What the listeners over TLS present and trust.
    pub(crate) tls: Arc<TlsListeners>,
    pub(crate) clock: SharedClock,
    pub(crate) image: Arc<ImagePublisher>,
    pub(crate) dynamic_config: Arc<DynamicConfig>,
    pub(crate) admin: ClusterAdmin,
    pub(crate) auto_creation: Arc<AutoCreation>,
    /// This broker's end of the controller's channel.
    pub(crate) control: Arc<dyn BrokerLink>,
    /// This broker's controller, elected or not.
    pub(crate) controller: ControllerHandle,
    /// In blocks from the cluster's controller, wherever it is.
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) replicas: Arc<ReplicaManager>,
    /// The leader's end of followers' fetches.
    pub(crate) follower_fetches: Arc<FollowerFetches>,
    pub(crate) groups: Arc<GroupCoordinator>,
    /// Writes the ends of transactions, where this broker leads.
    pub(crate) markers: SharedMarkers,
    /// This broker's coordinator of transactions.
    pub(crate) transactions: Arc<TransactionCoordinator>,
    /// All brokers' coordinators.
    pub(crate) verification: Arc<RoutedVerification>,
    /// Where clients wait while the broker starts.
    pub(crate) gate: Gate,
    /// Fetch sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// Memory of fetched records.
    pub(crate) replies: Arc<Replies>,
    /// Counts of requests.
    pub(crate) requests: Arc<RequestMetrics>,
    /// What clients take, and may take.
    pub(crate) quotas: Arc<Meter>,
    /// What is logged.
    pub(crate) loggers: Arc<dyn LoggerLevels>,
    /// Delegation tokens; `None`: there are none.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// `None`: everybody may do everything.
    pub(crate) authorizer: Option<Arc<AclAuthorizer>>,
}

/// Who speaks through a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Clients of a broker that is alone: no other broker can be.
    Alone,
    /// Clients of a broker of a cluster.
    Clients,
    /// Other brokers of the cluster, and clients if they like.
    Brokers,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) handles: Arc<Handles>,
    /// The key that is asked.
    pub(crate) key: i16,
    /// What its row states.
    pub(crate) authorization: Authorization,
    pub(crate) version: i16,
    /// `None` when the client sent null.
    pub(crate) client_id: Option<Arc<str>>,
    /// Name of the listener the connection came through.
    pub(crate) listener: Arc<str>,
    pub(crate) audience: Audience,
    pub(crate) peer: SocketAddr,
    /// Whom the request is made for.
    pub(crate) principal: Arc<Principal>,
    /// How long its connection is not read.
    pub(crate) mute: Arc<Mute>,
    /// How long it is worked on; `None`: nobody asks.
    pub(crate) handling: Option<Arc<Handling>>,
}

impl RequestContext {
    /// The image of this moment; take it once per request.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        self.handles.image.current()
    }

    /// What a client is told of a partition that has no open replica here.
    /// Source: Kafka 3.9 `ReplicaManager.getPartitionOrError`.
    pub(crate) fn without_replica(&self, topic: &str, partition: PartitionIndex) -> ResponseError {
        if self.handles.replicas.is_offline(topic, partition) {
            return ResponseError::KafkaStorageError;
        }
        match self.image().partition(topic, partition) {
            Some(_) => ResponseError::NotLeaderOrFollower,
            None => ResponseError::UnknownTopicOrPartition,
        }
    }
}
