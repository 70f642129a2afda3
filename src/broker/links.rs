//! What this broker's controller reaches brokers by, and its rooms the controller: in process what is here, over
//! connections what is elsewhere.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::cluster::control::{BrokerLink, LiveBroker};
use crate::cluster::image::ImagePublisher;
use crate::config::Config;
use crate::controller::LinkSource;
use crate::peer::address::Addresses;
use crate::peer::broker_link::RemoteBroker;
use crate::peer::versions::Versions;
use crate::peer::{Patience, Peers};
use crate::security::sasl::login::Logins;
use crate::security::tls::TlsListeners;
use crate::types::BrokerId;

/// Links from the controller here.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) own: Arc<dyn BrokerLink>,
    pub(super) peers: Peers,
}

impl LinkSource for Links {
    fn link(&self, broker: &LiveBroker) -> Option<Arc<dyn BrokerLink>> {
        if broker.id == self.peers.me {
            return Some(Arc::clone(&self.own));
        }
        Some(RemoteBroker::new(&self.peers, broker))
    }
}

/// What all connections to other brokers share.
pub(super) fn peers(
    config: &Config,
    me: BrokerId,
    image: &Arc<ImagePublisher>,
    clock: &SharedClock,
    tls: &TlsListeners,
    logins: &Logins,
) -> Peers {
    let of = |listener: &str| tls.of(listener).cloned();
    let login = |listener: &str| logins.get(listener);
    let listener = config.inter_broker_listener.as_str();
    let addresses = Addresses::new(Arc::clone(image), listener, of(listener)).with_login(login(listener));
    let control = config.control_plane_listener.as_deref();
    let control = control.map(|listener| addresses.on(listener, of(listener)).with_login(login(listener)));
    let patience = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    Peers {
        me,
        control: control.unwrap_or_else(|| addresses.clone()),
        addresses,
        versions: Versions::of(config.inter_broker_protocol),
        clock: Arc::clone(clock),
        patience: Patience {
            controller: patience(config.controller_socket_timeout_ms),
            request: patience(config.request_timeout_ms),
            replica: patience(config.replica_socket_timeout_ms),
        },
    }
}
