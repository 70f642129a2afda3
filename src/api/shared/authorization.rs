//! Asking the authorizer what a request may do. Without one everything is allowed, for one branch.
//!
//! Source: Kafka 3.9 `AuthHelper`.

use std::collections::HashSet;

use indexmap::IndexMap;
use kafka_protocol::messages::ApiKey;

use crate::api::context::RequestContext;
use crate::security::authorizer::{AclAuthorizer, Action, Requester};
use crate::types::acl::{CLUSTER_NAME, Operation, ResourceType};

impl RequestContext {
    /// Whether the request may do this.
    pub(in crate::api) fn may(&self, operation: Operation, resource_type: ResourceType, name: &str) -> bool {
        match &self.handles.authorizer {
            None => true,
            Some(authorizer) => self.ask(authorizer, &Action::new(operation, resource_type, name)),
        }
    }

    /// The same where a no is no attempt at something forbidden: there are other ways, or it is a filter.
    pub(in crate::api) fn may_perhaps(&self, operation: Operation, resource_type: ResourceType, name: &str) -> bool {
        match &self.handles.authorizer {
            None => true,
            Some(authorizer) => {
                let action = Action { log_if_denied: false, ..Action::new(operation, resource_type, name) };
                self.ask(authorizer, &action)
            }
        }
    }

    /// Whether the request may do this to the cluster.
    pub(in crate::api) fn may_on_cluster(&self, operation: Operation) -> bool {
        self.may(operation, ResourceType::Cluster, CLUSTER_NAME)
    }

    /// The same where there are other ways.
    pub(in crate::api) fn may_perhaps_on_cluster(&self, operation: Operation) -> bool {
        self.may_perhaps(operation, ResourceType::Cluster, CLUSTER_NAME)
    }

    /// Whether the request may do this to some resource of the type.
    pub(in crate::api) fn may_to_some(&self, operation: Operation, resource_type: ResourceType) -> bool {
        let Some(authorizer) = &self.handles.authorizer else { return true };
        debug_assert!(self.authorization.states(operation, resource_type), "{operation} {resource_type}");
        self.with_requester(|requester| authorizer.authorize_by_resource_type(requester, operation, resource_type))
    }

    /// Those of the names that the request may not do this to. Each is asked once, however often it comes.
    pub(in crate::api) fn refused<'n>(
        &self,
        operation: Operation,
        resource_type: ResourceType,
        names: impl IntoIterator<Item = &'n str>,
    ) -> RefusedNames<'n> {
        self.refused_of(Action::new(operation, resource_type, ""), names)
    }

    /// The same where a no is a filter.
    pub(in crate::api) fn hidden<'n>(
        &self,
        operation: Operation,
        resource_type: ResourceType,
        names: impl IntoIterator<Item = &'n str>,
    ) -> RefusedNames<'n> {
        self.refused_of(Action { log_if_denied: false, ..Action::new(operation, resource_type, "") }, names)
    }

    fn refused_of<'n>(&self, action: Action<'_>, names: impl IntoIterator<Item = &'n str>) -> RefusedNames<'n> {
        let mut refused = RefusedNames::default();
        let Some(authorizer) = &self.handles.authorizer else { return refused };
        let mut ask = |name: &'n str, references| {
            if !self.ask(authorizer, &Action { name, references, ..action }) {
                refused.0.insert(name);
            }
        };
        // Most requests name one topic, and need no map for that.
        let mut names = names.into_iter();
        let Some(first) = names.next() else { return refused };
        let mut references = 1;
        let other = names.find(|name| {
            references += usize::from(*name == first);
            *name != first
        });
        let Some(other) = other else {
            ask(first, references);
            return refused;
        };
        let mut counts = IndexMap::from([(first, references), (other, 1)]);
        names.for_each(|name| *counts.entry(name).or_insert(0) += 1);
        counts.into_iter().for_each(|(name, references)| ask(name, references));
        refused
    }

    /// Every operation that the request may do to a resource, a bit each, as clients are told it.
    pub(in crate::api) fn operations(&self, resource_type: ResourceType, name: &str) -> i32 {
        let supported = resource_type.operations().iter();
        let allowed = supported.filter(|operation| match &self.handles.authorizer {
            None => true,
            Some(authorizer) => {
                let action = Action::new(**operation, resource_type, name);
                let action = Action { log_if_allowed: false, log_if_denied: false, ..action };
                self.with_requester(|requester| authorizer.authorize(requester, &action))
            }
        });
        allowed.fold(0, |set, operation| set | operation.bit() as i32)
    }

    fn ask(&self, authorizer: &AclAuthorizer, action: &Action<'_>) -> bool {
        let Action { operation, resource_type, .. } = action;
        debug_assert!(self.authorization.states(*operation, *resource_type), "{operation} {resource_type}");
        self.with_requester(|requester| authorizer.authorize(requester, action))
    }

    fn with_requester<T>(&self, ask: impl FnOnce(&Requester<'_>) -> T) -> T {
        let key = ApiKey::try_from(self.key);
        let api: &(dyn std::fmt::Debug + Sync) = match &key {
            Ok(key) => key,
            Err(()) => &self.key,
        };
        ask(&Requester { principal: &self.principal, address: self.peer.ip().to_canonical(), api })
    }
}

/// Names that something may not be done to.
#[derive(Debug, Default)]
pub(in crate::api) struct RefusedNames<'n>(HashSet<&'n str>);

impl RefusedNames<'_> {
    pub(in crate::api) fn contains(&self, name: &str) -> bool {
        !self.0.is_empty() && self.0.contains(name)
    }

    pub(in crate::api) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
