//! Who may do what: Kafka's `kafka.security.authorizer.AclAuthorizer`, on ACLs in the coordination tree.
//!
//! - `snapshot` decides, on all ACLs at one moment; `rules` holds those of one resource. Both are pure.
//! - `filter` says which ACLs are shown or deleted.
//! - [`AclAuthorizer`] holds the snapshot of this moment, follows the tree, and says in the log what it decided.
//!
//! The snapshot is swapped whole, so a decision never sees a part of a change. Changes made here are in it when they
//! are answered; those of others come by their notes. Whoever reads the tree for the snapshot holds `changing`, so that
//! an older reading never replaces a newer one.

mod audit;
mod filter;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

pub(crate) use self::filter::AclFilter;
use self::snapshot::{Decision, Snapshot};
use crate::cluster::acls::{AclFeed, AclStore, AclStoreError, Stale, Updated};
use crate::cluster::read_at_last::read_at_last;
use crate::cluster::znodes::acls::Acls;
use crate::security::principal::Principal;
use crate::task;
use crate::types::acl::{AccessControlEntry, Operation, ResourcePattern, ResourceType};

/// What holds beside the ACLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuthorizerSettings {
    /// They may do everything.
    pub(crate) super_users: Vec<Principal>,
    /// Whether everybody may do everything to a resource that no ACL is about.
    pub(crate) allow_everyone_if_no_acl_found: bool,
}

/// Who asks for something, and by which request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requester<'a> {
    pub(crate) principal: &'a Principal,
    /// In its shortest form: IPv4 where it is that.
    pub(crate) address: IpAddr,
    /// Shown as Kafka's name of the key.
    pub(crate) api: &'a (dyn fmt::Debug + Sync),
}

/// One thing that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Action<'a> {
    pub(crate) operation: Operation,
    pub(crate) resource_type: ResourceType,
    pub(crate) name: &'a str,
    /// How often the request names the resource.
    pub(crate) references: usize,
    /// Whether something is granted by it, or it is a mere look: what the log says at DEBUG, or at TRACE.
    pub(crate) log_if_allowed: bool,
    /// Whether somebody asked for just this: INFO, or TRACE.
    pub(crate) log_if_denied: bool,
}

impl<'a> Action<'a> {
    /// Asked for by name, once.
    pub(crate) fn new(operation: Operation, resource_type: ResourceType, name: &'a str) -> Self {
        Self { operation, resource_type, name, references: 1, log_if_allowed: true, log_if_denied: true }
    }
}

/// One ACL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AclBinding {
    pub(crate) pattern: ResourcePattern,
    pub(crate) entry: AccessControlEntry,
}

/// An ACL that a filter of a deletion matched, and why it was not deleted, if it was not.
pub(crate) type Deleted = (AclBinding, Option<AclStoreError>);

/// The authorizer of this broker. Its task follows the tree as long as the process lives; it swaps the snapshot, as
/// those do who change ACLs here. A panic ends the process.
#[derive(Debug)]
pub(crate) struct AclAuthorizer {
    settings: AuthorizerSettings,
    snapshot: RwLock<Arc<Snapshot>>,
    store: AclStore,
    changing: Mutex<()>,
}

impl AclAuthorizer {
    /// Reads all ACLs, then follows them.
    ///
    /// # Errors
    /// The tree cannot be read, or not all of it: nobody is served on a part of the ACLs.
    pub(crate) async fn start(settings: AuthorizerSettings, store: AclStore) -> Result<Arc<Self>, AclStoreError> {
        store.prepare().await?;
        let mut feed = AclFeed::new(store.clone());
        feed.catch_up().await?;
        let mut acls = Vec::new();
        for (pattern, found) in store.read_all().await? {
            acls.push((pattern, Arc::new(found?)));
        }
        info!(resources = acls.len(), "ACLs were read");
        let snapshot = RwLock::new(Arc::new(Snapshot::default().with(acls)));
        let this = Arc::new(Self { settings, snapshot, store, changing: Mutex::new(()) });
        task::spawn_owner("acl-authorizer", Arc::clone(&this).follow(feed));
        Ok(this)
    }

    /// Whether the requester may do this.
    pub(crate) fn authorize(&self, requester: &Requester<'_>, action: &Action<'_>) -> bool {
        let Action { operation, resource_type, name, .. } = *action;
        let super_user = self.is_super_user(requester.principal);
        let allowed = super_user || {
            let snapshot = self.snapshot.read();
            match snapshot.decide(requester.principal, requester.address, operation, resource_type, name) {
                Decision::Allowed => true,
                Decision::Denied => false,
                Decision::NoAcls => self.settings.allow_everyone_if_no_acl_found,
            }
        };
        audit::tell(requester, action, allowed, || match super_user {
            true => audit::Because::SuperUser,
            false => audit::Because::Acls(self.snapshot.read().about(resource_type, name)),
        });
        allowed
    }

    /// Whether the requester may do this to some resource of a type, whether it exists or not.
    pub(crate) fn authorize_by_resource_type(
        &self,
        requester: &Requester<'_>,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        if self.is_super_user(requester.principal) {
            return true;
        }
        let by_default = self.settings.allow_everyone_if_no_acl_found;
        let snapshot = Arc::clone(&self.snapshot.read());
        let Requester { principal, address, .. } = *requester;
        let allowed = snapshot.decide_by_type(principal, address, operation, resource_type, by_default);
        audit::tell_of_type(requester, operation, resource_type, allowed);
        allowed
    }

    fn is_super_user(&self, principal: &Principal) -> bool {
        self.settings.super_users.contains(principal)
    }

    /// The ACLs that a filter matches, as far as this broker knows them.
    pub(crate) fn acls(&self, filter: &AclFilter) -> BTreeMap<ResourcePattern, Acls> {
        let snapshot = Arc::clone(&self.snapshot.read());
        let mut found: BTreeMap<ResourcePattern, Acls> = BTreeMap::new();
        for (pattern, acls) in snapshot.all().filter(|(pattern, _)| filter.matches_pattern(pattern)) {
            let matching: Acls = acls.iter().filter(|entry| filter.matches_entry(entry)).cloned().collect();
            if !matching.is_empty() {
                found.insert(pattern, matching);
            }
        }
        found
    }

    /// Adds ACLs; one that is there already is as good as added. What became of each, in order.
    pub(crate) async fn create(&self, bindings: &[AclBinding]) -> Vec<Result<(), AclStoreError>> {
        let mut by_pattern: BTreeMap<&ResourcePattern, Vec<usize>> = BTreeMap::new();
        for (at, binding) in bindings.iter().enumerate() {
            by_pattern.entry(&binding.pattern).or_default().push(at);
        }
        let mut results = vec![Ok(()); bindings.len()];
        let _changing = self.changing.lock().await;
        let mut changed = Vec::new();
        for (pattern, places) in by_pattern {
            let added = || places.iter().map(|&at| bindings[at].entry.clone());
            match self.change(pattern, |acls| acls.iter().cloned().chain(added()).collect()).await {
                Ok(updated) => changed.push((pattern.clone(), Arc::new(updated.after))),
                Err(refused) => places.iter().for_each(|&at| results[at] = Err(refused.clone())),
            }
        }
        self.swap(changed);
        results
    }

    /// Deletes what the filters match. For each filter in order: what it matched, unless one before it did.
    /// Source: Kafka 3.9 `AclAuthorizer.deleteAcls`.
    pub(crate) async fn delete(&self, filters: &[AclFilter]) -> Vec<Vec<Deleted>> {
        let _changing = self.changing.lock().await;
        let mut patterns: BTreeSet<ResourcePattern> = self.snapshot.read().all().map(|(pattern, _)| pattern).collect();
        patterns.extend(filters.iter().flat_map(AclFilter::named));
        let mut deleted = vec![Vec::new(); filters.len()];
        let mut swapped = Vec::new();
        for pattern in patterns {
            let matching: Vec<(usize, &AclFilter)> =
                filters.iter().enumerate().filter(|(_, filter)| filter.matches_pattern(&pattern)).collect();
            if matching.is_empty() {
                continue;
            }
            let first = |entry: &AccessControlEntry| matching.iter().find(|(_, filter)| filter.matches_entry(entry));
            let changed =
                self.change(&pattern, |acls| acls.iter().filter(|acl| first(acl).is_none()).cloned().collect());
            let (gone, error): (Vec<AccessControlEntry>, _) = match changed.await {
                Ok(Updated { before, after }) => {
                    let gone = before.difference(&after).cloned().collect();
                    swapped.push((pattern.clone(), Arc::new(after)));
                    (gone, None)
                }
                // What is known of it was not deleted.
                Err(error) => {
                    (self.known(&pattern).iter().filter(|acl| first(acl).is_some()).cloned().collect(), Some(error))
                }
            };
            for entry in gone {
                let Some((at, _)) = first(&entry) else { continue };
                deleted[*at].push((AclBinding { pattern: pattern.clone(), entry }, error.clone()));
            }
        }
        self.swap(swapped);
        deleted
    }

    fn known(&self, pattern: &ResourcePattern) -> Arc<Acls> {
        let snapshot = Arc::clone(&self.snapshot.read());
        let found = snapshot.all().find(|(known, _)| known == pattern);
        found.map(|(_, acls)| Arc::clone(acls)).unwrap_or_default()
    }

    /// For holders of `changing`, who swap what comes of it.
    async fn change(
        &self,
        pattern: &ResourcePattern,
        change: impl Fn(&Acls) -> Acls,
    ) -> Result<Updated, AclStoreError> {
        let updated = self.store.update(pattern, change).await;
        let updated = updated.inspect_err(|failure| warn!(%pattern, error = %failure, "ACLs were not changed"))?;
        if updated.before != updated.after {
            info!(%pattern, count = updated.after.len(), "ACLs were changed by a client");
        }
        Ok(updated)
    }

    /// For holders of `changing`.
    fn swap(&self, changes: impl IntoIterator<Item = (ResourcePattern, Arc<Acls>)>) {
        let next = self.snapshot.read().with(changes);
        *self.snapshot.write() = Arc::new(next);
    }

    async fn follow(self: Arc<Self>, mut feed: AclFeed) {
        while let Some(stale) = feed.next().await {
            let mut from = (&*self, &stale);
            let read = read_at_last(
                "changed ACLs",
                &mut from,
                |(this, _)| this.store.is_closed(),
                |(this, stale)| this.reload(stale).boxed(),
            );
            if read.await.is_none() {
                return;
            }
        }
    }

    /// Reads what has changed, and swaps the snapshot.
    ///
    /// # Errors
    /// The tree cannot be read; nothing was swapped.
    async fn reload(&self, stale: &Stale) -> Result<(), AclStoreError> {
        let _changing = self.changing.lock().await;
        let (found, whole) = match stale {
            Stale::Everything => (self.store.read_all().await?, true),
            Stale::Resources(patterns) => (self.store.read_each(patterns.iter().cloned()).await?, false),
        };
        let mut changes: BTreeMap<ResourcePattern, Arc<Acls>> = BTreeMap::new();
        let mut unreadable = BTreeSet::new();
        for (pattern, acls) in found {
            match acls {
                Ok(acls) => drop(changes.insert(pattern, Arc::new(acls))),
                Err(failure) => {
                    error!(error = %failure, "these ACLs are left as they were");
                    unreadable.insert(pattern);
                }
            }
        }
        if whole {
            let snapshot = Arc::clone(&self.snapshot.read());
            let gone = snapshot.all().map(|(pattern, _)| pattern);
            let gone: Vec<_> = gone.filter(|it| !changes.contains_key(it) && !unreadable.contains(it)).collect();
            changes.extend(gone.into_iter().map(|pattern| (pattern, Arc::default())));
        }
        self.swap(changes);
        Ok(())
    }
}
